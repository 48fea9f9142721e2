//! From PyPI: the ClickHouse engine, and two real sensor series.
//!
//! In: pinned wheels. Out: `python/` (a virtual environment with chdb), `data/shuttle.csv.gz` and
//! `data/water-flow.csv`. Guarantees and failure: see `install.rs`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::{Part, find, run_tied};

/// The engine alone: pandas, numpy and pyarrow, which its wheel also asks for, are not used here.
const ENGINE: &str = "chdb-core==26.9.0";
const SERIES: &str = "river==0.26.1";
const UNPACK: &str = r#"
import os, pathlib, sys, zipfile
folder = pathlib.Path(sys.argv[1])
wheel = next(folder.glob("*.whl"))
with zipfile.ZipFile(wheel) as archive:
    for name in ("shuttle.csv.gz", "water-flow.csv"):
        (folder / name).write_bytes(archive.read("river/datasets/" + name))
os.unlink(wheel)
"#;

pub(super) fn engine(dist: &Path) -> Part {
    Part {
        name: "python",
        content: format!("the ClickHouse engine from PyPI: {ENGINE}"),
        folder: dist.join("python"),
        needs: &["python3"],
        build: |folder, log| {
            run_tied(Command::new(interpreter()).args(["-m", "venv"]).arg(folder), log)?;
            let mut pip = Command::new(folder.join("bin/python"));
            pip.args([
                "-m",
                "pip",
                "--disable-pip-version-check",
                "install",
                "-q",
                "--no-deps",
                "--only-binary=:all:",
            ]);
            run_tied(pip.arg(ENGINE), log)?;
            run_tied(Command::new(folder.join("bin/python")).args(["-c", "import chdb"]), log)
        },
    }
}

pub(super) fn data(dist: &Path) -> Part {
    Part {
        name: "data",
        content: format!("real sensor series from PyPI: {SERIES} (shuttle.csv.gz, water-flow.csv)"),
        folder: dist.join("data"),
        needs: &["python3"],
        build: |folder, log| {
            download(folder, SERIES, log)?;
            run_tied(of(folder).args(["-c", UNPACK]).arg(folder), log)
        },
    }
}

/// The Python of the engine's environment, which is the first part that is made with it.
pub(super) fn of(folder: &Path) -> Command {
    Command::new(folder.with_file_name("python").join("bin/python"))
}

/// Puts one pinned wheel, without what it depends on, into a part's folder.
pub(super) fn download(folder: &Path, wheel: &str, log: &Path) -> Result<()> {
    let mut pip = of(folder);
    pip.args(["-m", "pip", "--disable-pip-version-check", "download", "-q", "--no-deps"]);
    run_tied(pip.args(["--only-binary=:all:", "-d"]).arg(folder).arg(wheel), log)
}

/// Debian's own Python before any other: its version is known.
fn interpreter() -> PathBuf {
    let debian = PathBuf::from("/usr/bin/python3");
    if debian.is_file() { debian } else { find("python3").unwrap_or(debian) }
}

pub(super) fn can_make_venv() -> bool {
    Command::new(interpreter())
        .args(["-c", "import venv, ensurepip"])
        .output()
        .is_ok_and(|output| output.status.success())
}
