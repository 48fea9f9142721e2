//! A clean Debian in a folder.
//!
//! Comes in: packages that are to be installed in it later. Goes out: a root folder in which commands can be run.
//! Guarantees: has the smallest set of packages, systemd, and what the given packages depend on; made anew each time. One for
//! another processor runs under qemu, which the kernel is told to start for its programs.
//! On failure: the last lines of what failed.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use weir_harness::install;
use weir_harness::places::Places;

const RELEASE: &str = "bookworm";

/// The root folder.
pub(crate) struct Debian(PathBuf);

/// What Debian calls the processor of this machine.
pub(crate) fn architecture() -> Result<String> {
    Ok(output(Command::new("dpkg").arg("--print-architecture"))?.trim().to_owned())
}

/// What runs the programs of a processor that this machine has not, as the kernel knows it.
fn emulator(architecture: &str) -> Option<&'static str> {
    match (architecture, std::env::consts::ARCH) {
        ("arm64", "x86_64") => Some("qemu-aarch64"),
        ("armhf", "x86_64" | "aarch64") => Some("qemu-arm"),
        _ => None,
    }
}

impl Debian {
    /// Makes it in a folder of the checkout, for packages to come and with more of Debian's.
    pub(crate) fn make(
        places: &Places,
        folder: &str,
        architecture: &str,
        (debs, more): (&[PathBuf], &[&str]),
    ) -> Result<Self> {
        let mut tell = |line: &str| eprintln!("{line}");
        install::programs(places, &[("mmdebstrap", "mmdebstrap")], &mut tell)?;
        if let Some(emulator) = emulator(architecture) {
            let needs = [
                ("update-binfmts", "binfmt-support"),
                ("arch-test", "arch-test"),
                ("qemu-arm-static", "qemu-user-static"),
            ];
            install::programs(places, &needs, &mut tell)?;
            output(Command::new("update-binfmts").args(["--enable", emulator]))?;
        }
        let root = places.root().join(folder);
        // Mirrors seldom have updates for all processors in step, and a root that is thrown away needs none.
        let sources = if emulator(architecture).is_some() { vec![mirror()?] } else { sources() };
        let mut packages: Vec<String> = more.iter().map(|name| (*name).to_owned()).collect();
        packages.push("systemd".to_owned());
        for deb in debs {
            let depends = output(Command::new("dpkg-deb").arg("--field").arg(deb).arg("Depends"))?;
            // "libc6 (>= 2.34), passwd": the names alone.
            let name = |one: &str| one.split_whitespace().next().unwrap_or_default().to_owned();
            packages.extend(depends.trim().split(',').map(name));
        }
        if root.exists() {
            std::fs::remove_dir_all(&root).with_context(|| format!("cannot remove {}", root.display()))?;
        }
        let include = format!("--include={}", packages.join(","));
        let of = format!("--architectures={architecture}");
        let mut command = Command::new("mmdebstrap");
        command.args(["--variant=minbase", &of, &include, RELEASE]).arg(&root).args(sources);
        output(&mut command)?;
        Ok(Self(root))
    }

    /// Where a file of it is.
    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.0.join(file.trim_start_matches('/'))
    }

    /// Installs a package, or the same one again.
    pub(crate) fn install(&self, deb: &Path) -> Result<()> {
        let inside = "/tmp/package.deb";
        std::fs::copy(deb, self.path(inside))?;
        self.run(&["dpkg", "--install", "--force-confold", inside]).map(drop)
    }

    /// Runs a command in it, and gives back all that it said.
    pub(crate) fn run(&self, words: &[&str]) -> Result<String> {
        output(Command::new("chroot").arg(&self.0).args(words).env("DEBIAN_FRONTEND", "noninteractive"))
    }
}

/// The files that say where this machine has its packages from.
fn sources() -> Vec<PathBuf> {
    let more = std::fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten();
    let all = more.filter_map(|entry| Some(entry.ok()?.path()));
    let is_source = |path: &PathBuf| {
        path.extension().is_some_and(|ending| ending == "list" || ending == "sources")
            && path.metadata().is_ok_and(|m| m.len() > 0)
    };
    [PathBuf::from("/etc/apt/sources.list")].into_iter().chain(all).filter(is_source).collect()
}

/// Where this machine has the release itself from, without its updates.
fn mirror() -> Result<PathBuf> {
    let format = ["indextargets", "--format", "$(RELEASE) $(REPO_URI)", "Created-By: Packages"];
    let all = output(Command::new("apt-get").args(format))?;
    let found = all.lines().find_map(|line| line.strip_prefix(RELEASE)?.strip_prefix(' '));
    Ok(PathBuf::from(found.with_context(|| format!("apt knows no packages of {RELEASE}"))?))
}

/// What a command says, when it ends well.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    let lines: Vec<&str> = said.lines().collect();
    let last = lines[lines.len().saturating_sub(20)..].join("\n");
    ensure!(output.status.success(), "{command:?}: {}\n{last}", output.status);
    Ok(said)
}
