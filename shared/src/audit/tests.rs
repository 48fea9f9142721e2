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
    let said = verify(folder, None);
    std::fs::write(path(folder), text).unwrap();
    said.unwrap_err()
}

#[test]
fn what_was_altered_put_in_moved_or_taken_out_is_named() {
    let folder = log("altered", 5);
    let right = verify(&folder, None).unwrap();
    assert!(right.starts_with("gateway_7: 5 entries, each bound to the one before; head 5:"), "{right}");
    let altered = after(&folder, |lines| lines[2] = lines[2].replace("anna", "otto"));
    assert_eq!(
        altered.lines().next().unwrap(),
        "gateway_7.audit.jsonl:3: was altered: its hash is not that of its content"
    );
    assert!(altered.contains("1 problem in"), "{altered}");
    assert!(after(&folder, |lines| drop(lines.remove(1))).contains(":2: is entry 3, and 2 should be here"));
    assert!(after(&folder, |lines| drop(lines.remove(0))).contains(":1: is entry 2, and 1 should be here"));
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
    let right = verify(&folder, None).unwrap();
    let hash = right.trim_end().rsplit(':').next().unwrap();
    assert!(verify(&folder, Some((4, hash))).is_ok());
    let text = std::fs::read_to_string(path(&folder)).unwrap();
    let cut: Vec<&str> = text.lines().take(3).collect();
    std::fs::write(path(&folder), cut.join("\n") + "\n").unwrap();
    assert!(verify(&folder, None).is_ok());
    assert!(verify(&folder, Some((4, hash))).unwrap_err().contains("there is no entry 4 with the hash"));
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn the_chain_goes_on_after_a_restart_a_torn_line_and_in_a_new_file() {
    let folder = log("torn", 2);
    let torn = [std::fs::read(path(&folder)).unwrap(), b"{\"n\":3,\"ti".to_vec()].concat();
    std::fs::write(path(&folder), torn).unwrap();
    let audit = Audit::new(Some(folder.clone()), "gateway/7");
    audit.record(&entry(2)).unwrap();
    audit.0.lock().unwrap().open.as_mut().unwrap().bytes = FILE_BYTES_MAX;
    // The file is as long as was written: the next one begins a new one.
    audit.record(&entry(3)).unwrap();
    drop(audit);
    let again = Audit::new(Some(folder.clone()), "gateway/7");
    again.record(&entry(4)).unwrap();
    assert!(folder.join("gateway_7.000000000001.audit.jsonl").exists());
    let right = verify(&folder, None).unwrap();
    assert!(right.starts_with("gateway_7: 6 entries"), "{right}");
    assert_eq!(again.last_of("rules.apply").unwrap()["version"], 5);
    assert_eq!(again.last_of("audit.torn"), Some(Value::Null));
    assert_eq!(again.last_of("config"), None);
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
    assert!(verify(&folder, None).unwrap().starts_with("gateway_7: 2 entries"));
    std::fs::remove_dir_all(&folder).unwrap();
}
