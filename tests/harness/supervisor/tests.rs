//! The life of a program under the supervisor, with real processes and time given as an argument.

use std::collections::BTreeMap;
use std::env;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use weir_shared::clock;

use super::unit::Unit;
use crate::control::{Exit, State};
use crate::patience::holds_within;
use crate::process::{Launch, spawn};

const PATIENCE: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(2);

fn launch(name: &str, script: &str) -> Launch {
    Launch {
        argv: ["sh", "-c", script].map(str::to_owned).to_vec(),
        env: BTreeMap::new(),
        folder: env::temp_dir(),
        log: env::temp_dir().join(format!("weir-unit-{}-{name}.log", std::process::id())),
    }
}

fn started(name: &str, script: &str, restart: bool) -> Unit {
    let (events, _) = channel();
    let mut unit = Unit::program(name.to_owned(), launch(name, script), restart, events);
    unit.start(clock::instant());
    assert_eq!(unit.state(), State::Ready, "{}", unit.detail());
    unit
}

/// Lets real time pass, `ahead` of it.
fn advance_until(unit: &mut Unit, ahead: Duration, wanted: impl Fn(&Unit) -> bool) {
    let came = holds_within(PATIENCE, LOOK_EVERY, || {
        if !wanted(unit) {
            unit.advance(clock::instant() + ahead);
        }
        Ok(wanted(unit))
    });
    assert!(came.unwrap(), "still {} ({})", unit.state(), unit.detail());
}

#[test]
fn an_ended_program_stays_down_and_its_exit_is_known() {
    let mut unit = started("exit", "exit 3", false);
    advance_until(&mut unit, Duration::ZERO, Unit::is_down);
    assert_eq!(unit.last_exit(), Some(Exit { code: Some(3), signal: None }));
    unit.advance(clock::instant() + Duration::from_secs(3600));
    assert!(unit.is_down());
    assert_eq!(unit.starts(), 1);
}

#[test]
fn a_program_to_be_restarted_comes_back_until_it_is_stopped() {
    let mut unit = started("again", "exit 1", true);
    advance_until(&mut unit, Duration::from_secs(60), |unit| unit.starts() >= 4);
    unit.stop(clock::instant());
    advance_until(&mut unit, Duration::ZERO, Unit::is_down);
    unit.advance(clock::instant() + Duration::from_secs(3600));
    assert!(unit.is_down(), "a stopped program was started again");
}

#[test]
fn a_program_that_ignores_sigterm_is_killed_after_the_deadline() {
    let mut unit = started("stubborn", "trap '' TERM; echo deaf; while :; do sleep 1; done", false);
    let log = launch("stubborn", "").log;
    let is_deaf = || Ok(std::fs::read_to_string(&log).is_ok_and(|text| text.contains("deaf")));
    assert!(holds_within(PATIENCE, LOOK_EVERY, is_deaf).unwrap(), "the program did not start");
    unit.stop(clock::instant());
    unit.advance(clock::instant() + Duration::from_secs(9));
    assert_eq!(unit.state(), State::Stopping);
    advance_until(&mut unit, Duration::from_secs(11), Unit::is_down);
    assert_eq!(unit.last_exit().and_then(|exit| exit.signal), Some(9));
}

#[test]
fn a_program_that_cannot_start_says_why() {
    let (events, _) = channel();
    let nowhere = Launch { argv: vec!["/no/such/program".to_owned()], ..launch("nowhere", "") };
    let mut unit = Unit::program("nowhere".to_owned(), nowhere, true, events);
    unit.start(clock::instant());
    assert_eq!(unit.state(), State::Failed);
    assert!(unit.detail().contains("/no/such/program"), "{}", unit.detail());
}

#[test]
fn the_kernel_kills_a_child_when_the_thread_that_spawned_it_ends() {
    let orphan = thread::spawn(|| spawn(&launch("orphan", "sleep 60")).expect("started"));
    let mut child = orphan.join().expect("thread");
    let ended = holds_within(PATIENCE, LOOK_EVERY, || Ok(child.try_wait()?.is_some()));
    assert!(ended.unwrap(), "the child outlived its supervisor");
}
