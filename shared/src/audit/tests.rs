//! What is done to an audit log behind its back is found.

use std::path::PathBuf;

use super::verify::verify;
use super::*;

/// A folder of its own with a log of `n` entries.
fn log(test: &str, n: u64) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("weir-audit-{test}-{}", std::process::id()));
    if folder.exists() {
        std::fs::remove_dir_all(&folder).unwrap();
    }
    let audit = Audit::new(Some(folder.clone()), "gateway/7");
    (0..n).for_each(|n| audit.record(&entry(n)).unwrap());
    folder
}

fn entry(n: u64) -> Entry<'static> {
    let (before, after) = (json!(n), json!({"version": n + 1, "text": "ä\n\"quoted\""}));
    Entry {
        who: "anna",
        role: "admin",
        action: "rules.apply",
        subject: "limit",
        before,
        after,
        result: "done",
    }
}

fn path(folder: &Path) -> PathBuf {
    folder.join("gateway_7.audit.jsonl")
}

/// What is said after the lines were changed.
fn after(folder: &Path, change: impl FnOnce(&mut Vec<String>)) -> String {
    let text = std::fs::read_to_string(path(folder)).unwrap();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    change(&mut lines);
    std::fs::write(path(folder), lines.join("\n") + "\n").unwrap();
    let said = verify(folder, None, None);
    std::fs::write(path(folder), text).unwrap();
    said.unwrap_err()
}

#[test]
fn what_was_altered_put_in_moved_or_taken_out_is_named() {
    let folder = log("altered", 5);
    let right = verify(&folder, None, None).unwrap();
    assert!(right.starts_with("gateway_7: 5 entries, each bound to the one before; head 5:"), "{right}");
    let altered = after(&folder, |lines| lines[2] = lines[2].replace("anna", "otto"));
    assert_eq!(
        altered.lines().next().unwrap(),
        "gateway_7.audit.jsonl:3: was altered: its hash is not that of its content"
    );
    assert!(altered.contains("1 problem in"), "{altered}");
    assert!(after(&folder, |lines| drop(lines.remove(1))).contains(":2: is entry 3, and 2 should be here"));
    assert!(
        after(&folder, |lines| drop(lines.remove(0))).contains(":1: is entry 2, and nothing is before it")
    );
    assert!(after(&folder, |lines| lines.swap(1, 2)).contains(":2: is entry 3"));
    assert!(after(&folder, |lines| lines.insert(3, "{}".into())).contains(":4: has no \"hash\""));
    // Made again with a right hash, it is bound to nothing.
    let forged = after(&folder, |lines| {
        let (line, _) = line(3, "2026-01-01T00:00:00.000Z", &entry(9), FIRST);
        lines[2] = String::from_utf8(line).unwrap().trim_end().to_owned();
    });
    assert!(
        forged.contains(":3: is not bound to the entry before it") && forged.contains(":4: is not"),
        "{forged}"
    );
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_cut_is_seen_by_a_head_that_was_known() {
    let folder = log("cut", 4);
    let right = verify(&folder, None, None).unwrap();
    let hash = right.trim_end().rsplit(':').next().unwrap();
    assert!(verify(&folder, None, Some(&(4, hash.to_owned()))).is_ok());
    let text = std::fs::read_to_string(path(&folder)).unwrap();
    let cut: Vec<&str> = text.lines().take(3).collect();
    std::fs::write(path(&folder), cut.join("\n") + "\n").unwrap();
    assert!(verify(&folder, None, None).is_ok());
    assert!(
        verify(&folder, None, Some(&(4, hash.to_owned())))
            .unwrap_err()
            .contains("there is no entry 4 with the hash")
    );
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn the_chain_goes_on_after_a_restart_a_torn_line_and_in_a_new_file() {
    let folder = log("torn", 2);
    let torn = [std::fs::read(path(&folder)).unwrap(), b"{\"n\":3,\"ti".to_vec()].concat();
    std::fs::write(path(&folder), torn).unwrap();
    let audit = Audit::new(Some(folder.clone()), "gateway/7");
    audit.record(&entry(2)).unwrap();
    audit.0.log.lock().unwrap().open.as_mut().unwrap().bytes = FILE_BYTES_MAX;
    // The file is as long as was written: the next one begins a new one.
    audit.record(&entry(3)).unwrap();
    drop(audit);
    let again = Audit::new(Some(folder.clone()), "gateway/7");
    again.record(&entry(4)).unwrap();
    let aside = folder.join("gateway_7.000000000001.audit.jsonl");
    assert!(std::fs::read_to_string(&aside).unwrap().contains("\"before\":\"{\\\"n\\\":3,\\\"ti\""));
    let right = verify(&folder, None, None).unwrap();
    assert!(right.starts_with("gateway_7: 6 entries"), "{right}");
    assert_eq!(again.last_of("rules.apply").unwrap()["version"], 5);
    assert_eq!(again.last_of("audit.torn"), Some(Value::Null));
    assert_eq!(again.last_of("config"), None);
    // What was archived and removed must be known.
    let last = verify::Line::read(
        std::fs::read(&aside).unwrap().trim_ascii_end().rsplit(|b| *b == b'\n').next().unwrap(),
    );
    let last = last.unwrap();
    std::fs::remove_file(&aside).unwrap();
    let unknown = verify(&folder, None, None).unwrap_err();
    assert!(
        unknown.contains(":1: is entry 5, and nothing is before it") && unknown.contains("--base 4:HASH"),
        "{unknown}"
    );
    assert!(
        verify(&folder, Some(&(4, FIRST.to_owned())), None)
            .unwrap_err()
            .contains("is not bound to the entry before it")
    );
    assert!(verify(&folder, Some(&(4, last.hash)), None).unwrap().starts_with("gateway_7: 2 entries"));
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn several_entries_are_there_together_and_nothing_is_written_behind_what_cannot_be_read() {
    let folder = log("together", 1);
    let audit = Audit::new(Some(folder.clone()), "gateway/7");
    audit.record_all(&[entry(1), entry(2)]).unwrap();
    audit.record_all(&[]).unwrap();
    assert!(verify(&folder, None, None).unwrap().starts_with("gateway_7: 3 entries"));
    drop(audit);
    let aside = folder.join("gateway_7.000000000001.audit.jsonl");
    std::fs::rename(path(&folder), &aside).unwrap();
    std::fs::write(&aside, std::fs::read_to_string(&aside).unwrap().replace("anna", "otto")).unwrap();
    let audit = Audit::new(Some(folder.clone()), "gateway/7");
    let why = audit.record(&entry(3)).unwrap_err();
    assert!(why.contains("its last line was altered") && why.contains("move the file away"), "{why}");
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_log_that_another_process_has_is_refused() {
    let folder = log("twin", 0);
    let first = Audit::new(Some(folder.clone()), "gateway/7");
    first.record(&entry(0)).unwrap();
    let second = Audit::new(Some(folder.clone()), "gateway/7");
    assert!(second.record(&entry(1)).unwrap_err().contains("another process has it"));
    drop(first);
    second.record(&entry(1)).unwrap();
    assert!(verify(&folder, None, None).unwrap().starts_with("gateway_7: 2 entries"));
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_log_that_is_taken_away_goes_on_in_a_new_file_and_shows_that_there_was_more() {
    let folder = log("taken", 0);
    let audit = Audit::new(Some(folder.clone()), "gateway/7");
    let first = || std::fs::read_to_string(path(&folder)).unwrap();
    audit.record(&entry(0)).unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    audit.record(&entry(1)).unwrap();
    assert!(first().starts_with("{\"n\":2,"), "{}", first());
    std::fs::rename(path(&folder), folder.join("elsewhere")).unwrap();
    audit.record(&entry(2)).unwrap();
    drop(audit);
    Audit::new(Some(folder.clone()), "gateway/7").record(&entry(3)).unwrap();
    assert!(first().starts_with("{\"n\":3,") && first().lines().count() == 2, "{}", first());
    let said = verify(&folder, None, None).unwrap_err();
    assert!(said.contains("--base"), "{said}");
    std::fs::remove_dir_all(folder).unwrap();
}
