//! Debian packages.
//!
//! In: which programs are not there. Out: they are. Guarantees: asks apt only if something is missing;
//! the packages' own services are neither started nor enabled; an existing `policy-rc.d` is put back.
//! On failure: apt's last lines; without root and sudo: the command to type.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};
use weir_shared::clock;

use super::{Part, Progress, find, java_home, python, run};

/// Run as root. `policy-rc.d` is Debian's way to say that nothing is to be started; ours is marked, so
/// that one that a killed install left behind is recognised.
const INSTALL: &str = r#"
set -eu
policy=/usr/sbin/policy-rc.d
mark='# weir-stack: no service starts during this install'
if [ -e "$policy" ] && ! grep -qF "$mark" "$policy"; then
    mv "$policy" "$policy.weir-stack"
fi
put_back() {
    rm -f "$policy"
    if [ -e "$policy.weir-stack" ]; then mv "$policy.weir-stack" "$policy"; fi
}
trap put_back EXIT
trap 'exit 1' INT TERM HUP
printf '#!/bin/sh\n%s\nexit 101\n' "$mark" > "$policy"
chmod 755 "$policy"
export DEBIAN_FRONTEND=noninteractive
dpkg --configure -a # an install that was interrupted
apt-get -q -o DPkg::Lock::Timeout=300 update
apt-get -q -y -o DPkg::Lock::Timeout=300 --no-install-recommends install "$@"
if [ -d /run/systemd/system ]; then
    for service in mosquitto mariadb clickhouse-server; do
        case " $* " in *" $service"*) systemctl disable "$service" || true ;; esac
    done
fi
"#;

/// Installs the packages of programs that are missing: the servers' own and those that `parts` need.
pub(super) fn install_missing(dist: &Path, parts: &[&Part], progress: Progress<'_>) -> Result<()> {
    let mut packages = Vec::new();
    if find("mosquitto").is_none() {
        packages.push("mosquitto");
    }
    if find("mariadbd").is_none() || find("mariadb-install-db").is_none() {
        packages.push("mariadb-server");
    }
    if java_home().is_none() {
        packages.push("default-jdk-headless");
    }
    let needs = |program| parts.iter().any(|part| part.needs.contains(&program));
    if needs("mvn") && find("mvn").is_none() {
        packages.push("maven");
    }
    if needs("python3") && !python::can_make_venv() {
        packages.extend(["python3", "python3-venv"]);
    }
    install(dist, &packages, progress)
}

/// What the fault suite of the edge needs beside the servers: a program each, and its package.
pub(super) const CHAOS: [(&str, &str); 5] = [
    ("nft", "nftables"),
    ("faketime", "faketime"),
    ("eatmydata", "eatmydata"),
    ("mkfs.ext4", "e2fsprogs"),
    ("gcc", "gcc"),
];

/// Installs the packages of those programs that are missing.
pub(super) fn install_programs(dist: &Path, programs: &[(&str, &str)], progress: Progress<'_>) -> Result<()> {
    let missing = programs.iter().filter(|(program, _)| find(program).is_none());
    let packages: Vec<&str> = missing.map(|(_, package)| *package).collect();
    install(dist, &packages, progress)
}

fn install(dist: &Path, packages: &[&str], progress: Progress<'_>) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    let list = packages.join(" ");
    if find("apt-get").is_none() {
        bail!("no apt-get here: please install what Debian calls {list}");
    }
    progress(&format!("installing Debian packages: {list}"));
    let started = clock::instant();
    let mut command = as_root(&list)?;
    command.args(["sh", "-c", INSTALL, "weir-stack"]).args(packages);
    run(&mut command, &dist.join("apt.log"))?;
    progress(&format!("installed Debian packages in {:.1} s", clock::since(started).as_secs_f64()));
    Ok(())
}

fn as_root(list: &str) -> Result<Command> {
    if rustix::process::geteuid().is_root() {
        return Ok(Command::new("env"));
    }
    let may = Command::new("sudo").args(["-n", "true"]).output().is_ok_and(|output| output.status.success());
    if !may {
        bail!(
            "missing Debian packages, and neither root nor `sudo` without a password: please run\n    \
             sudo apt-get install --no-install-recommends {list}"
        );
    }
    let mut command = Command::new("sudo");
    command.arg("-n");
    Ok(command)
}
