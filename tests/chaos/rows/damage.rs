//! Row 6: the journal is damaged: bits flipped, a page of zeros, a cut tail, a missing segment, files that do not belong
//! there, window state that is garbage.
//!
//! What each file held is known without the edge: a reading stands in the journal in clear text, so that its number is
//! found there by reading the bytes.
//! Must hold: the edge starts without a hand; what it lost it announces to the number; nothing is lost but what stood at
//! the damage; window state comes from the journal again.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use weir_harness::faults::disk::copy_folder;
use weir_harness::judge::judge;
use weir_harness::judge::run::number_in;
use weir_harness::judge::tape::Seen;

use crate::lab::{Dice, Lab, pass};
use crate::report::Report;
use crate::scene::{Developed, Scene};

const RATE: u64 = 2000;
const STREAM: Duration = Duration::from_secs(4);
/// Nobody listens here.
const DEAD_BROKER: &str = "127.0.0.1:1";
/// A commit is smaller than this at this rate: what stands further from the damage must come out.
const NEAR_BYTES: u64 = 64 * 1024;
/// Ending of a segment's name.
const SEGMENT: &str = "wj";

/// What is done to a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Damage {
    Nothing,
    Flip,
    ZeroPage,
    CutTail,
    SegmentHeader,
    MissingSegment,
    ForeignFiles,
    SledGarbage,
    ImageGarbage,
    WindowStateGone,
}

const ALL: [Damage; 10] = [
    Damage::Nothing,
    Damage::Flip,
    Damage::ZeroPage,
    Damage::CutTail,
    Damage::SegmentHeader,
    Damage::MissingSegment,
    Damage::ForeignFiles,
    Damage::SledGarbage,
    Damage::ImageGarbage,
    Damage::WindowStateGone,
];

/// Where something was damaged: the file, and from where to where.
struct Place {
    file: PathBuf,
    from: u64,
    to: u64,
}

/// Row 6.
pub(crate) fn row(lab: &Lab, report: &mut Report) -> anyhow::Result<()> {
    damaged(lab, report, &ALL, lab.wanted.seeds)
}

/// The smallest part that shows whether damage cuts off what stands behind it.
pub(super) fn flips(lab: &Lab, report: &mut Report) -> anyhow::Result<()> {
    damaged(lab, report, &[Damage::Flip], 2)
}

fn damaged(lab: &Lab, report: &mut Report, kinds: &[Damage], seeds: u64) -> anyhow::Result<()> {
    let mut scene = Scene::new(lab, "damage", RATE)?;
    let brokers = std::mem::replace(&mut scene.spec().brokers, DEAD_BROKER.to_owned());
    scene.spec().add("journal", "segment_bytes = 262144");
    scene.windows(&["1s"]);
    scene.begin("", &[])?;
    pass(STREAM);
    scene.edge()?.kill()?;
    scene.end_load()?;
    scene.spec().brokers = brokers;
    drop(scene.take_tape()?.finish()?);
    let owed: HashSet<u64> = scene.proxy.look(|book| book.acknowledged.iter().copied().collect());
    let pristine = scene.specs[0].journal.clone();
    let held = contents(&pristine)?;
    ensure!(held.len() >= 4, "only {} segments to damage", held.len());
    let mut copies = 0;
    for (kind, seed) in kinds.iter().flat_map(|kind| (0..seeds).map(move |seed| (*kind, seed))) {
        let copy = scene.folder.join(format!("{kind:?}-{seed}"));
        copy_folder(&pristine, &copy)?;
        let place = hurt(kind, &copy, &held, &mut Dice::new(seed * 31 + kind as u64))?;
        if let Err(error) = develop(&scene, report, (kind, seed), (&copy, &held, place.as_ref()), &owed) {
            report.problem(format!("{kind:?} {seed}: {error:#}"));
        }
        fs::remove_dir_all(&copy)?;
        copies += 1;
    }
    report.did(&format!("{copies} damaged journals"));
    Ok(())
}

/// What a journal held: by file name the position of each reading in it.
type Held = BTreeMap<PathBuf, BTreeMap<u64, u64>>;

fn develop(
    scene: &Scene<'_>,
    report: &mut Report,
    (kind, seed): (Damage, u64),
    (journal, held, place): (&Path, &Held, Option<&Place>),
    owed: &HashSet<u64>,
) -> anyhow::Result<()> {
    let about = format!("{kind:?} {seed}");
    let Developed { seen, metrics, stop } = scene.develop(journal, owed, Vec::new())?;
    let mut verdict = judge(&scene.run, owed, &seen);
    let found: HashSet<u64> = seen.iter().filter_map(Seen::reading).collect();
    let mut far = Vec::new();
    for (file, readings) in held {
        for (number, at) in readings.iter().filter(|(n, _)| owed.contains(n) && !found.contains(n)) {
            let near = place.is_some_and(|p| {
                p.file == *file && *at + NEAR_BYTES >= p.from && *at <= p.to.saturating_add(NEAR_BYTES)
            });
            if !near {
                far.push(*number);
            }
        }
    }
    let shown = &far[..far.len().min(3)];
    report.check(far.is_empty(), || {
        format!("{about}: {} intact readings did not come, as {shown:?}", far.len())
    });
    if kind == Damage::CutTail {
        // What was cut off the very end is known to nobody any more: it cannot be announced.
        verdict.problems.clear();
        (verdict.given_up, verdict.lost) = (verdict.given_up + verdict.lost, 0);
    }
    verdict.problems.extend(stop);
    report.verdict(&about, &verdict);
    if matches!(kind, Damage::Flip | Damage::ZeroPage | Damage::SegmentHeader | Damage::ForeignFiles) {
        let counted = metrics.sum("weir_edge_journal_damaged_bytes_total", "")
            + metrics.sum("weir_edge_journal_set_aside_total", "");
        report.check(counted > 0.0, || format!("{about}: no metric counts it"));
    }
    Ok(())
}

fn hurt(kind: Damage, journal: &Path, held: &Held, dice: &mut Dice) -> anyhow::Result<Option<Place>> {
    let names: Vec<&PathBuf> = held.keys().collect();
    // Not the first and not the last: there is something intact before and behind.
    let middle = names[usize::try_from(dice.throw((1, names.len() as u64 - 2)))?].clone();
    let last = (*names.last().context("there are segments")?).clone();
    let mut inside = |file: &PathBuf| {
        let readings = &held[file];
        let most = readings.values().max().copied().unwrap_or(0);
        dice.throw((most / 4, most * 3 / 4))
    };
    let place = match kind {
        Damage::Nothing => None,
        Damage::Flip => {
            let at = inside(&middle);
            change(&journal.join(&middle), at, 1, |byte| byte ^ 0x10)?;
            Some(Place { file: middle, from: at, to: at })
        }
        Damage::ZeroPage => {
            let at = inside(&middle) / 4096 * 4096;
            change(&journal.join(&middle), at, 4096, |_| 0)?;
            Some(Place { file: middle, from: at, to: at + 4096 })
        }
        Damage::CutTail => {
            let at = inside(&last);
            fs::File::options().write(true).open(journal.join(&last))?.set_len(at)?;
            Some(Place { file: last, from: at, to: u64::MAX })
        }
        Damage::SegmentHeader => {
            change(&journal.join(&middle), 0, 16, |byte| byte ^ 0xff)?;
            Some(Place { file: middle, from: 0, to: u64::MAX })
        }
        Damage::MissingSegment => {
            fs::remove_file(journal.join(&middle))?;
            Some(Place { file: middle, from: 0, to: u64::MAX })
        }
        Damage::ForeignFiles => {
            fs::write(journal.join("notes.txt"), "somebody was here")?;
            fs::write(journal.join(format!("{:020}.{SEGMENT}", 77)), vec![0xa5; 5000])?;
            fs::write(journal.join(format!("{:020}.{SEGMENT}", 99_999_999_999_u64)), "")?;
            None
        }
        Damage::SledGarbage => state(journal, "sled", |path| {
            walk(path)?.iter().try_for_each(|file| fs::write(file, vec![0xff; 5000]))
        })?,
        Damage::ImageGarbage => state(journal, "image", |path| fs::write(path, b"something else"))?,
        Damage::WindowStateGone => {
            state(journal, "image", |path| fs::remove_file(path))?;
            state(journal, "sled", |path| fs::remove_dir_all(path))?
        }
    };
    Ok(place)
}

/// Does something to the part of the window state with this name, if it was written.
fn state(
    journal: &Path,
    name: &str,
    mut hurt: impl FnMut(&Path) -> std::io::Result<()>,
) -> anyhow::Result<Option<Place>> {
    let mut folders = vec![journal.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.file_name().is_some_and(|found| found == name) {
                hurt(&path)?;
            } else if path.is_dir() {
                folders.push(path);
            }
        }
    }
    Ok(None)
}

fn walk(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(walk(&path)?);
        } else {
            files.push(path);
        }
    }
    Ok(files)
}

fn change(file: &Path, at: u64, count: usize, to: impl Fn(u8) -> u8) -> anyhow::Result<()> {
    let mut bytes = fs::read(file)?;
    let at = usize::try_from(at)?;
    let end = bytes.len().min(at + count);
    bytes[at..end].iter_mut().for_each(|byte| *byte = to(*byte));
    Ok(fs::write(file, bytes)?)
}

/// Finds every reading by its clear text; only files that hold some.
fn contents(journal: &Path) -> anyhow::Result<Held> {
    let mut held = Held::new();
    for file in walk(journal)? {
        if file.extension().is_none_or(|ending| ending != SEGMENT) {
            continue;
        }
        let bytes = fs::read(&file)?;
        const MARK: &[u8] = br#""id":""#;
        let mut readings = BTreeMap::new();
        let mut from = 0;
        while let Some(at) = bytes[from..].windows(MARK.len()).position(|w| w == MARK) {
            if let Some(number) = number_in(&bytes[from + at..]) {
                readings.insert(number, (from + at) as u64);
            }
            from += at + MARK.len();
        }
        if !readings.is_empty() {
            held.insert(file.strip_prefix(journal)?.to_owned(), readings);
        }
    }
    Ok(held)
}
