//! Files of two sections, and lines that end in CR alone.

use super::*;

#[test]
fn a_file_of_two_sections_is_read_once() {
    let folder = Folder::new();
    let mut first = Run::new(&folder, "a*", Mode::Tail, false);
    let config = |name: &str| FileConfig {
        pattern: Pattern::new(folder.path(name).to_str().unwrap()).unwrap(),
        mode: Mode::Tail,
        header: false,
        line_bytes_max: 1000,
    };
    let mut second = Watched::new(&[config("a*"), config("*.log")], 1);
    let mut look = |run: &mut Run, second_first: bool| {
        let now = run.now;
        if second_first {
            second.look(now, &mut run.claims);
        }
        run.look(usize::MAX);
        second.look(now, &mut run.claims);
        let mut got = String::new();
        let mut send = |_: &str, chunk: Chunk, _| {
            got += std::str::from_utf8(&chunk.payload).unwrap();
            Ok(true)
        };
        while second.pass(now, &mut run.marks, &mut send).unwrap() {}
        (run.text(), got)
    };
    folder.append("a.log", "1\n");
    folder.append("b.log", "2\n");
    assert_eq!(
        look(&mut first, true),
        ("1\n".into(), "2\n".into()),
        "the first section, whoever looks first"
    );
    folder.append("c.log", "3\n");
    fs::hard_link(folder.path("c.log"), folder.path("a.linked")).unwrap();
    assert_eq!(look(&mut first, true), (String::new(), "3\n".into()), "under two names: who saw it first");
    fs::rename(folder.path("a.log"), folder.path("d.log")).unwrap();
    folder.append("d.log", "4\n");
    assert_eq!(look(&mut first, false), ("4\n".into(), String::new()), "still held");
    for _ in 0..3 {
        first.quiet();
        assert_eq!(look(&mut first, false), (String::new(), String::new()));
    }
    folder.append("d.log", "5\n");
    assert_eq!(look(&mut first, false), (String::new(), "5\n".into()), "goes on where the other one was");
}

#[test]
fn a_header_that_ends_in_cr_alone_is_a_problem_not_nothing() {
    for text in ["t,u\r1,2\r3,4\r", "t,u\r1,2\r3,4\n", "t,u\r1,2\n3,4\n"] {
        for mode in [Mode::Whole, Mode::Tail] {
            let folder = Folder::new();
            folder.append("a.csv", text);
            folder.append("b.csv", "t\r\n1\r\n");
            let mut run = Run::new(&folder, "*.csv", mode, true);
            run.look(usize::MAX);
            run.quiet();
            assert_eq!(run.text(), "t\r\n1\r\n", "the others are read");
            let problem = run.watched.problem().unwrap_or_default();
            assert!(
                problem.contains("a.csv: its first line, the header, holds a CR"),
                "{text:?}: {problem:?}"
            );
        }
    }
    let folder = Folder::new();
    folder.append("a.csv", "t,u\r");
    let mut run = Run::new(&folder, "*.csv", Mode::Whole, true);
    run.look(usize::MAX);
    assert_eq!(run.watched.problem(), None, "its LF may still come");
    folder.append("a.csv", "\n1,2\r\n");
    run.look(usize::MAX);
    assert_eq!(run.text(), "t,u\r\n1,2\r\n");
}

#[test]
fn patterns_that_surely_overlap_are_refused() {
    let check = |a: &str, b: &str| {
        let text = format!("[[file]]\npath = '{a}'\n[[file]]\npath = '{b}'\n");
        config::check("e.toml", &text, "file = []\n", |root| read(root, 1000)).map(drop)
    };
    for (a, b) in [("/a/*.csv", "/a/x.csv"), ("/a/x.csv", "/a/*.csv"), ("/a/x*", "/a/x-*.log")] {
        let shown = check(a, b).unwrap_err().to_string();
        assert!(shown.starts_with("e.toml:4:8: file[1].path: its files would be read twice"), "{shown}");
    }
    assert!(check("/a/x*", "/a/*.csv").is_ok() && check("/a/*", "/b/*").is_ok());
}
