//! The run that all tests look at, and what must be true of it.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use weir_harness::devices;
use weir_harness::oracle::{Oracle, Store, Verdict};
use weir_harness::programs::{DEVICES_TABLE, Program, Programs, Samples};
use weir_harness::simulator::Plan;
use weir_harness::simulator::broken::Kind;
use weir_harness::simulator::message::Shapes;
use weir_harness::stack::Stack;
use weir_harness::stream::{self, Kill, Outcome};

pub(crate) const READINGS: u64 = 10_000;
const RATE: u64 = 1_000;

/// What the tests share.
pub(crate) struct FirstLight {
    pub(crate) stack: Stack,
    /// With a kill of each program in mid-stream.
    pub(crate) killed: Outcome,
    pub(crate) verdict: Verdict,
    /// A second, short run between two graceful stops.
    pub(crate) quiet: Outcome,
    pub(crate) quiet_verdict: Verdict,
    /// The metrics at the end of the quiet run: both programs were started right before it.
    pub(crate) edge: Samples,
    pub(crate) cloud: Samples,
    /// Exit codes of the four graceful stops.
    pub(crate) exits: Vec<Option<i32>>,
}

/// The run; made by the first who asks, an error for all when it fails.
pub(crate) fn first_light() -> &'static FirstLight {
    static RUN: OnceLock<Result<FirstLight, String>> = OnceLock::new();
    // Caught, so that the other tests fail with it at once and do not make a run each.
    let made = RUN.get_or_init(|| match std::panic::catch_unwind(make) {
        Ok(made) => made.map_err(|error| format!("{error:#}")),
        Err(_) => Err("making the run panicked".to_owned()),
    });
    made.as_ref().unwrap_or_else(|error| panic!("{error}"))
}

fn make() -> anyhow::Result<FirstLight> {
    let stack = Stack::up("test", false, &mut |line| eprintln!("{line}"))?;
    let oracle = Oracle::new(&stack.addresses())?;
    let programs = Programs::new(&stack)?;
    programs.stop()?;
    oracle.in_mysql(&devices::create(DEVICES_TABLE))?;
    oracle.in_mysql(&devices::fill(DEVICES_TABLE))?;
    programs.init()?;
    programs.init()?; // it may be run again at any time
    start(&programs)?;

    let kill = |program, at_readings| Kill { program, at_readings };
    let kills = [kill(Program::Edge, READINGS / 4), kill(Program::Cloud, READINGS / 2)];
    let shapes = Shapes { broken: 10, arrays: 100 };
    let plan = |readings| Plan { readings, rate: RATE, connections: 2, in_flight: 500, shapes };
    let tell = |_, event: Option<&str>| event.iter().for_each(|event| eprintln!("{event}"));
    let killed = stream::run(&stack, &programs, &oracle, &plan(READINGS), &kills, tell)?;
    let verdict = oracle.wait_and_judge(&killed.issued, |_| ())?;
    eprintln!("{verdict}");

    let stop = || [Program::Edge, Program::Cloud].map(|program| programs.stop_one(program));
    let mut exits = Vec::from(stop());
    start(&programs)?;
    let quiet = stream::run(&stack, &programs, &oracle, &plan(READINGS / 10), &[], tell)?;
    let quiet_verdict = oracle.wait_and_judge(&quiet.issued, |_| ())?;
    eprintln!("{quiet_verdict}");
    let metrics = |program| {
        programs.metrics(program).ok_or_else(|| anyhow::anyhow!("no metrics of {}", program.name()))
    };
    let (edge, cloud) = (metrics(Program::Edge)?, metrics(Program::Cloud)?);
    exits.extend(stop());
    let exits = exits.into_iter().collect::<anyhow::Result<_>>()?;
    Ok(FirstLight { stack, killed, verdict, quiet, quiet_verdict, edge, cloud, exits })
}

fn start(programs: &Programs<'_>) -> anyhow::Result<()> {
    for program in [Program::Cloud, Program::Edge] {
        programs.start(program)?;
    }
    [Program::Cloud, Program::Edge].into_iter().try_for_each(|program| programs.wait_ready(program))
}

#[test]
fn nothing_is_lost_doubled_or_altered_when_both_programs_are_killed() {
    let run = first_light();
    assert!(run.verdict.is_right(), "\n{}", run.verdict);
    assert_eq!(run.killed.kills.len(), 2);
    for store in Store::ALL {
        let judgement = run.verdict.of(store);
        assert_eq!((judgement.acked, judgement.found), (READINGS, READINGS), "{}", store.name());
        assert!(
            judgement.letters.acked >= 50,
            "{} dead letters in {}",
            judgement.letters.acked,
            store.name()
        );
    }
}

#[test]
fn every_kind_of_broken_message_was_sent_and_became_a_dead_letter() {
    let run = first_light();
    let acked = run.killed.issued.broken.iter().filter(|message| message.acked);
    let kinds: BTreeSet<Kind> = acked.map(|message| message.broken.kind).collect();
    assert_eq!(kinds.len(), Kind::ALL.len(), "{kinds:?}");
    for store in Store::ALL {
        let letters = run.verdict.of(store).letters;
        assert_eq!((letters.found, letters.lost, letters.altered), (letters.acked, 0, 0), "{}", store.name());
    }
}

#[test]
fn a_graceful_stop_drains_and_loses_nothing() {
    let run = first_light();
    assert_eq!(run.exits, [Some(0); 4], "exit codes of edge, cloud, edge, cloud");
    assert!(run.quiet_verdict.is_right(), "\n{}", run.quiet_verdict);
}

#[test]
fn known_devices_are_joined_and_unknown_ones_go_on_unjoined() {
    let run = first_light();
    let oracle = Oracle::new(&run.stack.addresses()).unwrap();
    // The quiet run: the tests of `damage` never touch it.
    let select = format!(
        "SELECT device, min(joined), max(joined) FROM weir_readings WHERE tags['run'] = '{}' GROUP BY device \
         ORDER BY device FORMAT JSONCompactEachRow",
        run.quiet.issued.run
    );
    let answer = oracle.in_clickhouse(&select).unwrap();
    let known: BTreeSet<String> = devices::known().collect();
    let (mut joined, mut unjoined) = (0, 0);
    for line in answer.lines() {
        let (device, min, max): (String, serde_json::Value, serde_json::Value) =
            serde_json::from_str(line).unwrap();
        let wanted = serde_json::json!(known.contains(&device));
        assert_eq!((&min, &max), (&wanted, &wanted), "{device}");
        if known.contains(&device) { joined += 1 } else { unjoined += 1 }
    }
    assert!(joined >= 15 && unjoined >= 5, "{joined} joined, {unjoined} not");
}
