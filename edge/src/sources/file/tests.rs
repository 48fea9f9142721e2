//! The file source on real folders; the time is an argument.

use std::fs;

use proptest::prelude::*;
use weir_shared::config;

use super::watched::QUIET;
use super::*;

mod overlaps;
mod rig;

use rig::{Folder, Run};

#[test]
fn whole_files_are_read_once_by_name_and_the_last_line_needs_no_end() {
    let folder = Folder::new();
    folder.append("b.csv", "t\n3\n4");
    folder.append("a.csv", "t\n1\n2\n");
    folder.append(".c.csv", "t\n9\n");
    folder.append("a.txt", "t\n9\n");
    let mut run = Run::new(&folder, "*.csv", Mode::Whole, true);
    run.look(usize::MAX);
    assert_eq!(run.text(), "t\n1\n2\nt\n3\n", "the end of b is still open");
    run.quiet();
    let last = run.chunks[0].1.clone();
    assert_eq!((run.text().as_str(), last.first_row, last.mark.row), ("t\n4", 3, 3));
    run.quiet();
    assert_eq!(run.text(), "", "each of them once");
    let mut again = Run::after(&folder, "*.csv", Mode::Whole, true, run.journaled.clone());
    again.quiet();
    again.quiet();
    assert_eq!(again.text(), "", "also after a restart");
    folder.append("b.csv", "\n5\n");
    again.look(usize::MAX);
    assert_eq!(again.text(), "t\n\n5\n", "what is added later is read too");
}

#[test]
fn a_file_that_still_grows_is_not_cut_in_a_line() {
    let folder = Folder::new();
    let mut run = Run::new(&folder, "a.csv", Mode::Whole, true);
    run.look(usize::MAX);
    folder.append("a.csv", "t,");
    run.quiet();
    folder.append("a.csv", "u\n1");
    run.quiet();
    folder.append("a.csv", "0,5\n2");
    run.now += QUIET;
    run.look(usize::MAX);
    assert_eq!(run.text(), "t,u\n10,5\n");
    run.now += QUIET / 2;
    folder.append("a.csv", "0");
    run.look(usize::MAX);
    run.now += QUIET / 2;
    run.look(usize::MAX);
    assert_eq!(run.text(), "", "it grew a second ago");
    run.quiet();
    assert_eq!(run.text(), "t,u\n20");
}

#[test]
fn a_followed_file_goes_on_through_rotation_and_truncation() {
    let folder = Folder::new();
    let mut run = Run::new(&folder, "app.log", Mode::Tail, false);
    folder.append("app.log", "1\n2");
    run.look(usize::MAX);
    run.quiet();
    assert_eq!(run.text(), "1\n", "a line counts when its end is there");
    folder.append("app.log", "\n3\n");
    run.look(usize::MAX);
    assert_eq!(run.text(), "2\n3\n");
    fs::rename(folder.path("app.log"), folder.path("app.log.1")).unwrap();
    folder.append("app.log.1", "4\nend");
    folder.append("app.log", "5\n");
    run.look(usize::MAX);
    assert_eq!(run.text(), "4\n", "the old one goes first, and is not done");
    run.quiet();
    run.look(usize::MAX);
    assert_eq!(run.text(), "end5\n");
    run.look(usize::MAX);
    fs::write(folder.path("app.log"), "6\n").unwrap();
    run.look(usize::MAX);
    assert_eq!(run.text(), "6\n", "as long as before, but another text");
    fs::write(folder.path("app.log"), "").unwrap();
    run.look(usize::MAX);
    folder.append("app.log", "7\n");
    run.look(usize::MAX);
    assert_eq!(run.text(), "7\n");
    let files: std::collections::HashSet<_> = run.journaled.keys().collect();
    assert_eq!(files.len(), 4, "the first, the second, and two more in its place");
}

#[test]
fn a_rotated_file_that_still_matches_is_not_read_again() {
    let folder = Folder::new();
    let mut run = Run::new(&folder, "app*", Mode::Tail, false);
    folder.append("app.log", "1\n");
    run.look(usize::MAX);
    fs::rename(folder.path("app.log"), folder.path("app.log.1")).unwrap();
    folder.append("app.log", "2\n");
    run.look(usize::MAX);
    assert_eq!(run.text(), "1\n2\n");
    let mut again = Run::after(&folder, "app*", Mode::Tail, false, run.journaled.clone());
    folder.append("app.log.1", "3\n");
    again.look(usize::MAX);
    assert_eq!(again.text(), "3\n");
}

/// Out of the pattern until the source has forgotten it, and back with what `change` made of it.
fn away_and_back(folder: &Folder, run: &mut Run, change: impl Fn()) {
    fs::rename(folder.path("a.csv"), folder.path("away")).unwrap();
    run.look(usize::MAX);
    run.quiet();
    run.quiet();
    change();
    fs::rename(folder.path("away"), folder.path("a.csv")).unwrap();
    run.look(usize::MAX);
    run.quiet();
}

#[test]
fn a_file_that_vanishes_and_comes_back_is_not_read_again() {
    for mode in [Mode::Whole, Mode::Tail] {
        let folder = Folder::new();
        folder.append("a.csv", "t\n1\n2\n");
        let mut run = Run::new(&folder, "*.csv", mode, true);
        run.look(usize::MAX);
        assert_eq!(run.text(), "t\n1\n2\n");
        away_and_back(&folder, &mut run, || {});
        assert_eq!(run.text(), "", "{mode:?}, unchanged");
        away_and_back(&folder, &mut run, || folder.append("away", "3\n"));
        assert_eq!((run.chunks[0].1.first_row, run.text().as_str()), (4, "t\n3\n"), "{mode:?}, longer");
        folder.append("a.csv", "4\n");
        run.look(usize::MAX);
        assert_eq!(run.text(), "t\n4\n", "{mode:?}, goes on");
    }
}

#[test]
fn another_file_with_the_inode_and_the_header_of_one_that_vanished_is_read() {
    let folder = Folder::new();
    let header = "t".repeat(2000) + "\n";
    folder.append("a.csv", format!("{header}1\n2\n"));
    let mut run = Run::new(&folder, "*.csv", Mode::Whole, true);
    run.look(usize::MAX);
    run.chunks.clear();
    let other = format!("{header}3\n4\n5\n");
    away_and_back(&folder, &mut run, || fs::write(folder.path("away"), &other).unwrap());
    assert_eq!(run.text(), other);
}

#[test]
fn a_line_that_is_too_long_is_cut_and_passed_in_bounded_memory() {
    let folder = Folder::new();
    let long = "x".repeat(5_000_000);
    folder.append("a.log", format!("{{\"a\":1}}\n{}\n{long}\n{{\"b\":2}}\n{long}", "y".repeat(150_000)));
    let mut run = Run::new(&folder, "a.log", Mode::Whole, false);
    run.look(usize::MAX);
    run.quiet();
    let lengths: Vec<_> =
        run.chunks.iter().map(|(_, c)| (c.payload.len(), c.first_row, c.mark.row)).collect();
    assert_eq!(lengths, [(8, 1, 1), (150_001, 2, 2), (200_001, 3, 3), (8, 4, 4), (200_001, 5, 5)]);
    assert_eq!(run.chunks[4].1.mark.offset, fs::metadata(folder.path("a.log")).unwrap().len());
}

#[test]
fn blank_lines_are_nothing() {
    let folder = Folder::new();
    folder.append("a.log", "\n".repeat(5000) + "1\n \n\r\n");
    let mut run = Run::new(&folder, "a.log", Mode::Whole, false);
    run.look(usize::MAX);
    run.quiet();
    assert_eq!(run.chunks.len(), 1);
    assert_eq!(run.chunks[0].1.first_row + run.text().find('1').unwrap() as u64, 5001);
}

#[test]
fn what_cannot_be_read_is_said_and_holds_up_no_other() {
    let folder = Folder::new();
    folder.append("a.csv", "h".repeat(200_001));
    folder.append("b.csv", "t\n1\n");
    let mut run = Run::new(&folder, "*.csv", Mode::Whole, true);
    run.look(usize::MAX);
    assert_eq!(run.text(), "t\n1\n");
    assert!(run.watched.problem().unwrap().contains("a.csv: its first line, the header, is longer"));
    run.look(usize::MAX);
    assert!(run.watched.problem().is_some(), "it is still so");
    fs::remove_file(folder.path("a.csv")).unwrap();
    run.look(usize::MAX);
    run.look(usize::MAX);
    assert_eq!(run.watched.problem(), None);
    fs::remove_dir_all(&folder.0).unwrap();
    run.look(usize::MAX);
    assert!(run.watched.problem().unwrap().contains("No such file"));
}

#[test]
fn the_thread_hands_on_within_its_memory_and_stops() {
    let folder = Folder::new();
    let rows: Vec<String> = (0..30_000).map(|i| format!("{i},{}", "x".repeat(20))).collect();
    folder.append("a.csv", rows.join("\n"));
    let pattern = Pattern::new(folder.path("a.csv").to_str().unwrap()).unwrap();
    let configs = [FileConfig { pattern, mode: Mode::Whole, header: false, line_bytes_max: 1000 }];
    let (events, taken) = flume::bounded(2);
    let (open, opened) = watch::channel(false);
    let memory = Arc::new(Semaphore::new(50_000 / MEMORY_UNIT_BYTES));
    let (marks, ready, stop) = (HashMap::new(), Health::default(), Stop::new());
    let wiring = Wiring { events, marks, memory: Arc::clone(&memory), open: opened, ready };
    let thread = std::thread::spawn({
        let stop = stop.clone();
        move || run(&configs, wiring, &stop)
    });
    open.send_replace(true);
    let mut got = Vec::new();
    while got.last() != rows.last() {
        let Event::Message(message) = taken.recv_timeout(Duration::from_secs(10)).unwrap() else {
            panic!("not a message")
        };
        assert!(message.memory.is_some() && memory.available_permits() < 50_000 / MEMORY_UNIT_BYTES);
        let Origin::File { first_row, .. } = message.origin else { panic!("{message:?}") };
        assert_eq!(first_row, got.len() as u64 + 1);
        got.extend(std::str::from_utf8(&message.payload).unwrap().lines().map(str::to_owned));
    }
    assert_eq!(got, rows);
    stop.trigger();
    thread.join().unwrap().unwrap();
}

#[test]
fn sections_are_read_with_all_their_problems() {
    let check = |text: &str| config::check("e.toml", text, "file = []\n", |root| read(root, 1000));
    let good =
        "[[file]]\npath = '/a/*.csv'\n[[file]]\npath = '/b.jsonl'\nformat = 'json_lines'\nmode = 'tail'\n";
    let files = check(good).unwrap();
    assert!(files[0].0.header && !files[1].0.header && files[1].0.mode == Mode::Tail);
    let bad = "[[file]]\npath = 'a.csv'\ndevice_field = ''\ndelimiter = '::'\ncolumns = ['a', 'a']\n\
               [[file]]\npath = '/a'\ntime_zone = 'Nowhere'\n[[file]]\npath = '/a'\nformat = 'xml'\n[[file]]\n";
    let shown = check(bad).unwrap_err().to_string();
    for want in [
        "2:8: file[0].path: must be absolute",
        "file[0].device: or device_field must say",
        "4:13: file[0].delimiter: must be one ASCII character",
        "5:11: file[0].columns: column a stands twice",
        "8:13: file[1].time_zone: must be a zone",
        "10:8: file[2].path: stands in another [[file]] too",
        "11:10: file[2].format: must be one of csv, json_lines",
        "file[3].path: must be set",
        "8 problems",
    ] {
        assert!(shown.contains(want), "{want}\n{shown}");
    }
}

#[derive(Clone, Debug)]
enum Step {
    Append(usize, usize),
    Rotate,
    Chunks(usize),
    Stop,
    Quiet,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1_usize..3000, 0_usize..8).prop_map(|(rows, cut)| Step::Append(rows, cut)),
        1 => Just(Step::Rotate),
        4 => (0_usize..4).prop_map(Step::Chunks),
        2 => Just(Step::Stop),
        1 => Just(Step::Quiet),
    ];
    prop::collection::vec(step, 1..30)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn every_row_exactly_once_under_random_stops(steps in steps(), header in any::<bool>()) {
        let folder = Folder::new();
        let mut run = Run::new(&folder, "log*", Mode::Tail, header);
        let mut rows = 0;
        let (mut got, mut held, mut rotated) = (Vec::new(), String::new(), 0);
        let collect = |run: &mut Run, got: &mut Vec<usize>| {
            for (_, chunk) in run.chunks.drain(..) {
                let text = std::str::from_utf8(&chunk.payload).unwrap();
                got.extend(text.lines().skip(usize::from(header)).map(|line| line.parse::<usize>().unwrap()));
            }
        };
        for step in steps {
            match step {
                Step::Append(count, cut) => {
                    if header && !folder.path("log").exists() {
                        folder.append("log", "row\n");
                    }
                    let new: String = (rows..rows + count).map(|row| format!("{row}\n")).collect();
                    rows += count;
                    let mut text = std::mem::take(&mut held) + &new;
                    held = text.split_off(text.len() - cut.min(text.len()));
                    folder.append("log", text);
                }
                Step::Rotate => {
                    if folder.path("log").exists() {
                        folder.append("log", std::mem::take(&mut held));
                        rotated += 1;
                        fs::rename(folder.path("log"), folder.path(&format!("log.{rotated}"))).unwrap();
                    }
                }
                Step::Chunks(most) => run.look(most),
                Step::Stop => {
                    collect(&mut run, &mut got);
                    run = Run::after(&folder, "log*", Mode::Tail, header, run.journaled.clone());
                }
                Step::Quiet => run.quiet(),
            }
        }
        folder.append("log", std::mem::take(&mut held));
        run.look(usize::MAX);
        collect(&mut run, &mut got);
        got.sort_unstable();
        prop_assert!(got.iter().copied().eq(0..rows), "{rows} rows, got {} from {:?}", got.len(), got.first());
    }
}
