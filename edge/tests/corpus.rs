//! What the fuzzers found and what hands made: all of it through the entry points of the fuzz targets.
//!
//! Comes in: `tests/fixtures/corpus/<target>/`. Guarantees: no input panics, and each folder holds inputs.
//! On failure: the names of the files that panicked.

use std::fs;
use std::panic::{RefUnwindSafe, catch_unwind};
use std::path::Path;

use weir_edge::fuzzing;

#[path = "../fuzz/reading.rs"]
mod reading;
#[path = "../fuzz/window_state.rs"]
mod window_state;

fn each(target: &str, run: impl Fn(&[u8]) + RefUnwindSafe) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/corpus").join(target);
    let mut files: Vec<_> =
        fs::read_dir(&folder).expect("the folder").map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", folder.display());
    files.retain(|file| {
        let bytes = fs::read(file).expect("a file");
        catch_unwind(|| run(&bytes)).is_err()
    });
    assert!(files.is_empty(), "panicked: {files:#?}");
}

#[test]
fn messages() {
    each("decode", fuzzing::decode);
}

#[test]
fn segments_of_the_journal() {
    each("journal", fuzzing::journal);
}

#[test]
fn readings() {
    each("reading", reading::reading);
}

#[test]
fn states_of_windows() {
    each("window_state", window_state::window_state);
}
