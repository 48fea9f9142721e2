//! Row 5: the power fails.
//!
//! The journal lies on an ext4 in an image file; while readings stream in, the edge is stopped for a moment and the image
//! is copied: what the copy holds is what a power cut at that moment leaves (an fsync that was going on goes on during
//! the copy, so its writes may be torn). Owed to a copy are the readings whose acknowledgement had left the edge before:
//! the broker holds all others still. Half of the copies are made with Kafka away, so that all stands in the journal;
//! half with Kafka there, so that the cursor moves and segments go: then what Kafka held at the end of the copy counts.
//! Must hold: the edge starts on each copy, and all that is owed comes out once. Control: under libeatmydata it must not.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use weir_harness::faults::clock::eatmydata;
use weir_harness::faults::disk::{Mounted, photograph};
use weir_harness::faults::shim::{Fault, Shim};
use weir_harness::judge::tape::{self, Offsets, Seen};
use weir_harness::judge::{Verdict, judge};

use crate::lab::{Dice, Lab, pass};
use crate::report::Report;
use crate::scene::{DEAD_PORT, Scene};

const IMAGE_MB: u64 = 64;
const RATE: u64 = 3000;
/// Longer than the pause between two copies.
const SLOW: Duration = Duration::from_millis(200);
/// Copies of one journal.
const COPIES_OF_ONE: u64 = 25;

/// One copy.
struct Photograph {
    image: PathBuf,
    /// So many acknowledgements had left the edge.
    acknowledged: usize,
    /// Where Kafka's topics ended then.
    ends: Offsets,
}

/// Row 5.
pub(crate) fn row(lab: &Lab, report: &mut Report) -> anyhow::Result<()> {
    let mut left = lab.wanted.images;
    for series in 0.. {
        if left == 0 {
            break;
        }
        let count = left.min(COPIES_OF_ONE);
        left -= count;
        images(lab, report, &Series { seed: series, count, with_kafka: series % 2 == 1, disk: Disk::Good })?;
        lab.tell(&format!("row 5: {} of {} images judged", lab.wanted.images - left, lab.wanted.images));
    }
    report.did(&format!("{} images of a disk that lost its power", lab.wanted.images));
    report.figure("images", lab.wanted.images);
    Ok(())
}

/// How one journal is photographed.
pub(super) struct Series {
    pub(super) seed: u64,
    pub(super) count: u64,
    pub(super) with_kafka: bool,
    pub(super) disk: Disk,
}

/// What stands between edge and image.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Disk {
    Good,
    /// A library that makes fsync do nothing.
    EatsData,
    /// Every fsync takes a while before it begins.
    Slow,
}

pub(super) fn images(lab: &Lab, report: &mut Report, series: &Series) -> anyhow::Result<()> {
    let mut scene = Scene::new(lab, "power", RATE)?;
    // In memory: the copies are quick, and nothing but the loop device stands between fsync and image.
    let memory = Mounted::small(&scene.folder.join("memory"), (series.count + 2) * IMAGE_MB * 1024)?;
    let image = memory.path().join("disk.img");
    let disk = Mounted::new_image(&image, &scene.folder.join("disk"), IMAGE_MB)?;
    let spec = scene.spec();
    spec.journal = disk.path().join("journal");
    spec.add("journal", "segment_bytes = 262144");
    if !series.with_kafka {
        spec.brokers = format!("127.0.0.1:{DEAD_PORT}");
    }
    let shim = Shim::new(&scene.folder, &scene.specs[0].journal)?;
    let env = match series.disk {
        Disk::Good => Vec::new(),
        Disk::EatsData => eatmydata()?,
        Disk::Slow => shim.environment(),
    };
    scene.begin("", &env)?;
    if series.disk == Disk::Slow {
        shim.set(Fault::Slow(SLOW))?;
    }
    pass(Duration::from_millis(500));
    let photographs = take(&mut scene, memory.path(), &image, series)?;
    scene.edge()?.kill()?;
    scene.end_load()?;
    drop(disk);
    let live = scene.take_tape()?.finish()?; // what it sent before it was killed
    for (n, photograph) in photographs.iter().enumerate() {
        let about = format!("image {} of series {}", n + 1, series.seed);
        match develop(&scene, photograph, &live) {
            Ok(verdict) => report.verdict(&about, &verdict),
            Err(error) => report.problem(format!("{about}: {error:#}")),
        }
        fs::remove_file(&photograph.image)?;
    }
    Ok(())
}

/// Photographs at random moments of the stream.
fn take(
    scene: &mut Scene<'_>,
    folder: &Path,
    image: &Path,
    series: &Series,
) -> anyhow::Result<Vec<Photograph>> {
    let mut dice = Dice::new(series.seed + 500);
    let mut photographs = Vec::new();
    let brokers = scene.lab.brokers();
    for n in 0..series.count {
        pass(Duration::from_micros(dice.throw((5_000, 120_000))));
        let copy = folder.join(format!("copy-{n}.img"));
        scene.edge()?.signal(Signal::STOP);
        let acknowledged = scene.proxy.look(|book| book.acknowledged.len());
        photograph(image, &copy)?;
        // While it still stands: what it sends later was not in Kafka when the power failed.
        let ends = tape::ends(&brokers)?;
        scene.edge()?.signal(Signal::CONT);
        photographs.push(Photograph { image: copy, acknowledged, ends });
    }
    Ok(photographs)
}

/// Starts an edge on a copy and judges what comes out.
fn develop(scene: &Scene<'_>, taken: &Photograph, live: &[Seen]) -> anyhow::Result<Verdict> {
    let owed: HashSet<u64> =
        scene.proxy.look(|book| book.acknowledged[..taken.acknowledged].iter().copied().collect());
    let in_kafka =
        |seen: &&Seen| taken.ends.get(&(seen.topic, seen.partition)).is_some_and(|end| seen.offset < *end);
    let before: Vec<Seen> = live.iter().filter(in_kafka).cloned().collect();
    let disk = Mounted::image(&taken.image, &scene.folder.join("copy"))?;
    let developed = scene.develop(&disk.path().join("journal"), &owed, before)?;
    drop(disk);
    let mut verdict = judge(&scene.run, &owed, &developed.seen);
    verdict.problems.extend(developed.stop);
    Ok(verdict)
}
