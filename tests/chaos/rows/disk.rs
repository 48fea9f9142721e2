//! Row 8: the disk is full, and later it is not.
//!
//! Must hold: acknowledgements stop, the process lives and `/live` stays good; within 5 s of room they go on; nothing is
//! lost, and nothing was acknowledged and dropped.

use std::fs;
use std::time::Duration;

use weir_harness::faults::disk::Mounted;

use crate::lab::{Lab, pass};
use crate::report::Report;
use crate::scene::{Scene, wait};

const DISK_KB: u64 = 16 * 1024;
const RATE: u64 = 2000;
/// Until what was preallocated is used up.
const STOPS: Duration = Duration::from_secs(60);
const STILL: Duration = Duration::from_secs(2);
const RESUMES_SECONDS_MAX: f64 = 5.0;

/// Row 8.
pub(crate) fn full(lab: &Lab, report: &mut Report) -> anyhow::Result<()> {
    report.did("a full disk, freed after the acknowledgements had stopped");
    let mut scene = Scene::new(lab, "full", RATE)?;
    let disk = Mounted::small(&scene.folder.join("disk"), DISK_KB)?;
    let spec = scene.spec();
    spec.journal = disk.path().join("journal");
    spec.add("journal", "segment_bytes = 262144");
    scene.begin("", &[])?;
    pass(Duration::from_secs(1));
    // Segments that Kafka has acknowledged go and leave room: fill it again until nothing moves any more.
    let stopped = wait(STOPS, || {
        disk.fill()?;
        Ok(scene.acknowledged_within(STILL) == 0)
    })?;
    report.check(stopped, || format!("it still acknowledged after {STOPS:?} on a full disk"));
    let ended = scene.edge()?.ended()?;
    report.check(ended.is_none(), || format!("it ended on the full disk: {ended:?}"));
    if ended.is_none() {
        let live = (0..3).all(|_| {
            pass(Duration::from_secs(1));
            scene.edges[0].is_live(&lab.admin)
        });
        report.check(live, || "/live was bad on the full disk".to_owned());
    }
    fs::remove_file(disk.path().join("filler"))?;
    if ended.is_some() {
        scene.start("", &[])?;
    }
    let resumed = scene.acknowledges(Duration::from_secs(60))?;
    report.check(resumed.is_some_and(|s| s <= RESUMES_SECONDS_MAX), || {
        format!("acknowledgements went on after {resumed:?} s of room, wanted {RESUMES_SECONDS_MAX}")
    });
    report.figure("resumed_seconds", resumed.map(crate::report::tenth));
    report.heal("freed", scene.canary()?);
    let (verdict, _) = scene.finish()?;
    report.verdict("full", &verdict);
    drop(disk);
    Ok(())
}
