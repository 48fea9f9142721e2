//! `weir-package`: installs the .deb files of `make deb` into a clean Debian and looks at what they do to it, those of `make arm`
//! too (`weir-package arm64 armhf`: a Debian for that processor, under qemu); and makes a gateway of one, to be booted
//! (`weir-package machine`, then `target/boot/boot`; `weir-package watchdog`).
//!
//! Comes in: `target/deb/*.deb`. Goes out: a line for each check on standard error, one JSON line of figures.
//! Guarantees: the Debian is new, made from the package sources of this machine; nothing outside `target/deb/root` changes, but that
//! the kernel learns to start programs for ARM.
//! On failure: the first check that does not hold ends it with exit code 1. Needs root, as installing packages does.

mod debian;
mod machine;

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use debian::Debian;
use machine::Machine;
use serde_json::{Map, Value};
use weir_harness::figures;
use weir_harness::places::Places;
use weir_shared::clock;

/// A package, and what is special about it.
struct Package {
    name: &'static str,
    /// Whether it starts with the machine.
    is_enabled: bool,
    /// Where it keeps what nobody else has.
    data: Option<&'static str>,
}

const EDGE: Package =
    Package { name: "weir-edge", is_enabled: true, data: Some("/var/lib/weir-edge/journal/segment") };
const CLOUD: Package = Package { name: "weir-cloud", is_enabled: false, data: None };

fn main() -> ExitCode {
    let (begun, mut figures) = (clock::instant(), Map::new());
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (name, checked) = match words[..] {
        [] => ("deb", of_this_machine(&mut figures)),
        ["machine"] => ("machine", machine()),
        ["watchdog"] => ("watchdog", watchdog(&mut figures)),
        ref architectures => ("deb", foreign(architectures, &mut figures)),
    };
    figures.insert("seconds".to_owned(), clock::since(begun).as_secs().into());
    let line = figures::line(name, checked.is_ok(), &figures);
    let told = writeln!(std::io::stdout(), "{line}");
    match checked {
        Ok(()) if told.is_ok() => ExitCode::SUCCESS,
        Ok(()) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn machine() -> Result<()> {
    Machine::find()?.make(&newest(&Places::find()?, "weir-edge", &debian::architecture()?)?)
}

fn watchdog(figures: &mut Map<String, Value>) -> Result<()> {
    let said = Machine::find()?.watchdog()?;
    eprintln!("{said}");
    figures.insert("said".to_owned(), said.into());
    Ok(())
}

fn of_this_machine(figures: &mut Map<String, Value>) -> Result<()> {
    check(&[EDGE, CLOUD], &debian::architecture()?, figures)
}

/// Gateways are of other kinds too.
fn foreign(architectures: &[&str], figures: &mut Map<String, Value>) -> Result<()> {
    architectures.iter().try_for_each(|architecture| check(&[EDGE], architecture, figures))
}

fn check(packages: &[Package], architecture: &str, figures: &mut Map<String, Value>) -> Result<()> {
    let places = Places::find()?;
    let debs = packages.iter().map(|package| newest(&places, package.name, architecture));
    let debs = debs.collect::<Result<Vec<_>>>()?;
    let debian = Debian::make(&places, "target/deb/root", architecture, (&debs, &[]))?;
    for (package, deb) in packages.iter().zip(&debs) {
        let Package { name, .. } = package;
        let bytes = deb.metadata()?.len();
        figures.insert(format!("{name}_{architecture}_deb_bytes"), bytes.into());
        debian.install(deb)?;
        installed(&debian, package)?;
        eprintln!(
            "{name} for {architecture}: installed, {} KiB: files, rights, unit, program, man page",
            bytes >> 10
        );
        kept(&debian, package, deb)?;
        eprintln!("{name} for {architecture}: upgrade and removal keep settings and data; purge keeps data");
    }
    Ok(())
}

/// The package that was made last.
fn newest(places: &Places, name: &str, architecture: &str) -> Result<PathBuf> {
    let folder = places.root().join("target/deb");
    let made_by = "`make deb`, for ARM `make arm`";
    let ending = format!("_{architecture}.deb");
    let is_it = |path: &PathBuf| {
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        file.starts_with(&format!("{name}_")) && file.ends_with(&ending)
    };
    let entries =
        std::fs::read_dir(&folder).with_context(|| format!("{}: run {made_by}", folder.display()))?;
    let found = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(is_it);
    let by_age = |path: &PathBuf| path.metadata().and_then(|m| m.modified()).ok();
    let newest = found.max_by_key(by_age);
    newest.with_context(|| format!("no {name} for {architecture} in {}: run {made_by}", folder.display()))
}

fn installed(debian: &Debian, package: &Package) -> Result<()> {
    let Package { name, is_enabled, .. } = *package;
    let config = format!("/etc/weir/{name}.toml");
    for file in [
        format!("/usr/bin/{name}"),
        format!("/lib/systemd/system/{name}.service"),
        format!("/usr/share/man/man1/{name}.1.gz"),
        format!("/usr/share/bash-completion/completions/{name}"),
        format!("/usr/share/doc/{name}/copyright"),
        config.clone(),
    ] {
        ensure!(debian.path(&file).is_file(), "{file} is not there");
    }
    let mode = debian.path(&config).metadata()?.permissions().mode() & 0o777;
    ensure!(mode == 0o640, "{config} has the mode {mode:o}: it may hold passwords");
    let owner = debian.run(&["stat", "-c", "%U:%G", &config])?;
    ensure!(owner.trim() == format!("root:{name}"), "{config} belongs to {owner}");
    let wanted = debian.path(&format!("/etc/systemd/system/multi-user.target.wants/{name}.service"));
    ensure!(wanted.symlink_metadata().is_ok() == is_enabled, "starts with the machine: {}", !is_enabled);
    let said = debian.run(&["systemd-analyze", "verify", "--man=no", &format!("{name}.service")])?;
    ensure!(!said.contains(name), "systemd does not like the unit: {said}");
    // As the user of the unit, who must be able to read its settings.
    debian.run(&[
        "setpriv",
        "--reuid",
        name,
        "--regid",
        name,
        "--init-groups",
        name,
        "check",
        "--config",
        &config,
    ])?;
    let version = debian.run(&[name, "--version"])?;
    ensure!(version.contains(env!("CARGO_PKG_VERSION")), "{version}");
    Ok(())
}

/// What a person wrote and what the program keeps outlives the package.
fn kept(debian: &Debian, package: &Package, deb: &std::path::Path) -> Result<()> {
    let config = debian.path(&format!("/etc/weir/{}.toml", package.name));
    let text = format!("# changed\n{}", std::fs::read_to_string(&config)?);
    std::fs::write(&config, &text)?;
    let data = package.data.map(|path| debian.path(path));
    if let Some(data) = &data {
        std::fs::create_dir_all(data.parent().context("a file in a folder")?)?;
        std::fs::write(data, "unsent")?;
    }
    let stands = |path: &Option<PathBuf>| path.as_ref().is_none_or(|path| path.is_file());
    debian.install(deb)?;
    ensure!(std::fs::read_to_string(&config)? == text, "an upgrade changed {}", config.display());
    ensure!(stands(&data), "an upgrade removed data");
    debian.run(&["dpkg", "--remove", package.name])?;
    ensure!(!debian.path(&format!("/usr/bin/{}", package.name)).exists(), "the program is still there");
    ensure!(config.is_file() && stands(&data), "the removal took settings or data with it");
    debian.run(&["dpkg", "--purge", package.name])?;
    ensure!(!config.exists(), "{} outlives the purge", config.display());
    ensure!(stands(&data), "the purge took the journal with it");
    Ok(())
}
