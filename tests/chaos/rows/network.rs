//! Row 25: the network flaps, a second there and a second not, to Kafka and to the broker, for several edges at once.
//!
//! Packets vanish in one half of the time, connections are reset in the other; then, with the network whole, the broker
//! refuses for a while, which shows every attempt to connect.
//! Must hold: everything is delivered once; attempts neither pile up nor march in step; memory stays bounded.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use weir_harness::faults::edge::Edge;
use weir_harness::faults::net::{Cut, How};
use weir_shared::clock;

use crate::lab::{Lab, pass};
use crate::report::{Report, tenth};
use crate::scene::Scene;

const RATE: u64 = 2000;
const FLAP: Duration = Duration::from_secs(1);
/// Short enough that the wait it has grown to is shorter than a canary may take.
const REFUSE: Duration = Duration::from_secs(5);
/// Attempts of one edge in [`REFUSE`]: with waits that double from 0.1 s there are about six.
const ATTEMPTS_MAX: usize = 15;
/// In one bucket of this length at most half of the edges may try, once the waits have grown.
const BUCKET: Duration = Duration::from_millis(100);
const MEMORY_MB_MAX: u64 = 96;
/// Of all edges together, for the load: none may spin while it cannot send.
const CORES_MAX: f64 = 0.5;
/// And for each: clients that lose their connections every second make new ones.
const CORES_EACH_MAX: f64 = 0.005;

/// Row 25.
pub(crate) fn row(lab: &Lab, report: &mut Report) -> anyhow::Result<()> {
    flap(lab, report, lab.wanted.edges, 30)
}

pub(super) fn flap(lab: &Lab, report: &mut Report, edges: u64, flaps: u64) -> anyhow::Result<()> {
    report.did(&format!("{edges} edges, {flaps} flaps of 1 s"));
    let mut scene = Scene::with_edges(lab, "flapping", RATE, edges)?;
    scene.begin("", &[])?;
    pass(FLAP);
    let (before, began) = (cpu_seconds(&scene), clock::instant());
    let ports = [scene.proxy.port(), lab.stack.ports().kafka()];
    for flap in 0..flaps {
        let how = if flap < flaps / 2 { How::Drop } else { How::Reset };
        let cut = Cut::ports(&ports, how)?;
        pass(FLAP);
        drop(cut);
        pass(FLAP);
    }
    let cores = (cpu_seconds(&scene) - before) / clock::since(began).as_secs_f64();
    report.figure("cores_while_flapping", hundredth(cores));
    let cores_max = CORES_MAX + CORES_EACH_MAX * edges as f64;
    let used = || {
        format!("the edges used {cores:.2} cores while the network flapped, at most {cores_max:.2} wanted")
    };
    report.check(cores <= cores_max, used);
    report.heal("flapping", scene.canary()?);
    let begun = clock::instant();
    scene.proxy.refuse(true);
    scene.proxy.cut();
    pass(REFUSE);
    scene.proxy.refuse(false);
    report.heal("refused", scene.canary()?);
    attempts(&scene, begun, edges, report);
    for edge in &mut scene.edges {
        let ended = edge.ended()?;
        report.check(ended.is_none(), || format!("an edge ended: {ended:?}"));
    }
    let memory = scene.edges.iter().filter_map(|edge| edge.resident_mb_max()).max().unwrap_or_default();
    report.check(memory <= MEMORY_MB_MAX, || format!("{memory} MB resident, wanted {MEMORY_MB_MAX}"));
    report.figure("resident_mb_max", memory);
    let (verdict, _) = scene.finish()?;
    report.verdict("flapping", &verdict);
    Ok(())
}

fn cpu_seconds(scene: &Scene<'_>) -> f64 {
    scene.edges.iter().filter_map(Edge::cpu_seconds).sum()
}

fn hundredth(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}

/// How the edges tried while they were refused.
fn attempts(scene: &Scene<'_>, begun: Instant, edges: u64, report: &mut Report) {
    let mut of: BTreeMap<String, Vec<Duration>> = BTreeMap::new();
    scene.proxy.look(|book| {
        let refused = book.attempts.iter().filter(|(who, at)| who.starts_with("weir-edge-") && *at >= begun);
        for (who, at) in refused.filter(|(_, at)| *at - begun < REFUSE) {
            of.entry(who.clone()).or_default().push(*at - begun);
        }
    });
    let most = of.values().map(Vec::len).max().unwrap_or_default();
    report.check(of.len() as u64 == edges, || format!("only {} of {edges} edges tried to connect", of.len()));
    report.check(most <= ATTEMPTS_MAX, || format!("{most} attempts of one edge in {REFUSE:?}"));
    // By the fourth attempt the waits add up to most of a second: edges without jitter still try at the same time.
    let fourth: Vec<Duration> = of.values().filter_map(|tries| tries.get(3)).copied().collect();
    let in_step = fourth
        .iter()
        .map(|at| fourth.iter().filter(|other| other.abs_diff(*at) < BUCKET / 2).count())
        .max()
        .unwrap_or_default();
    let bound = (fourth.len() * 6 / 10).max(2);
    report.check(fourth.len() < 5 || in_step <= bound, || {
        format!("{in_step} of {} edges tried within the same {BUCKET:?}", fourth.len())
    });
    let spread = fourth.iter().max().zip(fourth.iter().min()).map(|(max, min)| (*max - *min).as_secs_f64());
    report.figure("attempts_of_one_edge_max", most as u64);
    report.figure("spread_of_fourth_attempt_seconds", spread.map(tenth));
}
