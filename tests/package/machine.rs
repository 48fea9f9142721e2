//! A gateway: a small Debian with the edge's package, booted in a virtual machine with a real systemd.
//!
//! Comes in: the package, and where the servers of the stack are. Goes out: an image of a disk, and a program that boots it. Who
//! kills that program cuts the power: what the machine had not written to its disk is gone.
//! Guarantees: the settings are those of the package but for the servers' addresses; the machine sees the host at 10.0.2.2 and
//! gives its admin port to the host's loopback. By KVM where that boots it, else emulated (slow, and as real).
//! On failure: the last lines of the machine's console.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use weir_harness::addresses::Addresses;
use weir_harness::patience::holds_within;
use weir_harness::places::{Places, last_lines};
use weir_harness::programs::{Program, Programs};
use weir_harness::stack::Stack;

use crate::debian::{Debian, architecture, output};

/// Beside what the edge depends on: a kernel, and what gives it a network.
const PACKAGES: [&str; 5] = ["linux-image-amd64", "systemd-sysv", "udev", "iproute2", "dbus"];
/// The host, as the machine sees it.
const HOST: &str = "10.0.2.2";
const DISK: &str = "3G";
/// In place of two minutes.
const WATCHDOG: &str = "15";
/// On the kernel's command line: freeze the edge, and tell what becomes of it.
const FREEZE: &str = "weir.freeze";
/// What systemd says when it ends it.
const ENDED: &str = "Watchdog timeout";
/// Said on the console when it is back.
const BACK: &str = "weir-freeze: back after";
/// A boot, the freeze, the watchdog and the start again; emulated.
const FROZEN: Duration = Duration::from_secs(600);
/// A boot by KVM, until somebody could log in.
const BOOTED: Duration = Duration::from_secs(40);
const KVM: &str = "kvm";
const EMULATED: &str = "tcg";
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Freezes the edge once it works, and waits until systemd has ended it and it works again.
const FREEZE_SCRIPT: &str = r#"#!/bin/sh
set -eu
show() { systemctl show -p "$1" --value weir-edge; }
ready() { [ "$(show StatusText)" = ok ]; }
until ready; do sleep 1; done
first=$(show MainPID)
echo "weir-freeze: $first is frozen"
kill -STOP "$first"
began=$(date +%s)
until [ "$(show MainPID)" != 0 ] && [ "$(show MainPID)" != "$first" ]; do sleep 1; done
until ready; do sleep 1; done
journalctl -u weir-edge --no-pager -o cat | grep -F 'Watchdog timeout' | tail -n 1
echo "weir-freeze: back after $(($(date +%s) - began)) s as $(show MainPID)"
"#;

/// Where the machine is.
pub(crate) struct Machine(PathBuf);

impl Machine {
    /// The one of this checkout.
    pub(crate) fn find() -> Result<Self> {
        Ok(Self(Places::find()?.root().join("target/boot")))
    }

    /// Makes it anew, for the stack of the tests.
    pub(crate) fn make(&self, deb: &Path) -> Result<()> {
        let folder = &self.0;
        fs::create_dir_all(folder)?;
        let places = Places::find()?;
        let addresses = Stack::named("test")?.addresses();
        let debian =
            Debian::make(&places, "target/boot/root", &architecture()?, (&[deb.to_owned()], &PACKAGES))?;
        debian.install(deb)?;
        let kafka = port(&addresses.kafka)?;
        let admin = port(&addresses.edge_admin)?;
        set_up(&debian, &addresses, &admin)?;
        for (path, text) in [
            ("/etc/fstab", "/dev/vda / ext4 rw 0 1\n".to_owned()),
            ("/etc/hostname", "gateway\n".to_owned()),
            (
                "/etc/systemd/network/10-all.network",
                "[Match]\nName=en* eth*\n[Network]\nDHCP=yes\n".to_owned(),
            ),
            // The brokers call themselves by the host's loopback address.
            (
                "/etc/systemd/system/kafka.socket",
                format!("[Socket]\nListenStream=127.0.0.1:{kafka}\n[Install]\nWantedBy=sockets.target\n"),
            ),
            (
                "/etc/systemd/system/kafka.service",
                format!("[Service]\nExecStart=/lib/systemd/systemd-socket-proxyd {HOST}:{kafka}\n"),
            ),
            (
                "/etc/systemd/system/weir-edge.service.d/boot.conf",
                format!("[Service]\nWatchdogSec={WATCHDOG}\nTimeoutAbortSec=5\n"),
            ),
            (
                "/etc/systemd/system/weir-freeze.service",
                // A log-in on the console hangs up whoever has it open.
                format!(
                    "[Unit]\nConditionKernelCommandLine={FREEZE}\n\
                     [Service]\nExecStart=/bin/sh /usr/local/lib/weir-freeze\n\
                     StandardOutput=journal+console\nStandardError=journal+console\n\
                     [Install]\nWantedBy=multi-user.target\n"
                ),
            ),
            ("/usr/local/lib/weir-freeze", FREEZE_SCRIPT.to_owned()),
        ] {
            let path = debian.path(path);
            fs::create_dir_all(path.parent().context("a file in a folder")?)?;
            fs::write(path, text)?;
        }
        debian.run(&["systemctl", "enable", "systemd-networkd", "kafka.socket", "weir-freeze"])?;
        for name in ["vmlinuz", "initrd.img"] {
            fs::copy(debian.path(name).canonicalize()?, folder.join(name))
                .with_context(|| name.to_owned())?;
        }
        let disk = folder.join("disk");
        let _there_was_one = fs::remove_file(&disk);
        output(
            Command::new("mke2fs").args(["-q", "-t", "ext4", "-d"]).arg(debian.path("")).arg(&disk).arg(DISK),
        )?;
        let by = self.accelerator(&admin)?;
        for (name, append) in [("boot", ""), ("freeze", FREEZE)] {
            let script = format!(
                "#!/bin/sh\n# Boots the machine; whoever kills this cuts its power.\nexec {}\n",
                self.words(by, append, &admin)
            );
            let script_path = folder.join(name);
            fs::write(&script_path, script)?;
            output(Command::new("chmod").arg("+x").arg(&script_path))?;
        }
        eprintln!("{}: {} MB of files on a disk; runs by {by}", folder.display(), used(&disk)? >> 20);
        Ok(())
    }

    /// KVM is there and boots it: within other machines it may do neither. Nothing of that try stays on the disk.
    fn accelerator(&self, admin: &str) -> Result<&'static str> {
        if !Path::new("/dev/kvm").exists() {
            return Ok(EMULATED);
        }
        let line = format!("exec {} -snapshot", self.words(KVM, "", admin));
        let boots = self.run_until(&line, BOOTED, "login:")?;
        Ok(if boots { KVM } else { EMULATED })
    }

    /// Runs a line that boots it until its console says something, or for so long, and cuts the power.
    fn run_until(&self, line: &str, limit: Duration, wanted: &str) -> Result<bool> {
        let _of_an_earlier_one = fs::remove_file(self.console());
        let mut machine = Command::new("sh").args(["-c", line]).stdin(Stdio::null()).spawn()?;
        let said = holds_within(limit, LOOK_EVERY, || {
            Ok(self.said().contains(wanted) || machine.try_wait()?.is_some())
        });
        machine.kill()?;
        machine.wait()?;
        Ok(said? && self.said().contains(wanted))
    }

    fn console(&self) -> PathBuf {
        self.0.join("console")
    }

    /// All that the console said since the last boot.
    fn said(&self) -> String {
        fs::read(self.console()).map(|text| String::from_utf8_lossy(&text).into_owned()).unwrap_or_default()
    }

    /// What boots it. The console goes to a file, in which each boot begins anew.
    fn words(&self, by: &str, append: &str, admin: &str) -> String {
        let at = |name: &str| format!("'{}'", self.0.join(name).display());
        [
            &format!("qemu-system-x86_64 -accel {by} -cpu max -smp 1 -m 768"),
            "-display none -monitor none -no-reboot",
            &format!("-kernel {} -initrd {}", at("vmlinuz"), at("initrd.img")),
            &format!("-append 'root=/dev/vda rw console=ttyS0 quiet {append}'"),
            &format!("-drive file={},format=raw,if=virtio", at("disk")),
            &format!(
                "-netdev user,id=n,hostfwd=tcp:127.0.0.1:{admin}-:{admin} -device virtio-net-pci,netdev=n"
            ),
            &format!("-serial file:'{}'", self.console().display()),
        ]
        .join(" ")
    }

    /// Boots it with an edge that is frozen; gives what the console says of the watchdog.
    pub(crate) fn watchdog(&self) -> Result<String> {
        // One that was booted before has the disk and the port.
        let _there_was_none = Programs::new(&Stack::named("test")?)?.stop_one(Program::Edge);
        let script = format!("exec '{}'", self.0.join("freeze").display());
        let is_back = self.run_until(&script, FROZEN, BACK)?;
        let last = last_lines(&self.console(), 30);
        ensure!(is_back, "the watchdog did not bring it back; the console says:\n{last}");
        let said = self.said();
        ensure!(said.contains(ENDED), "it came back, but not by the watchdog; the console says:\n{last}");
        let said: Vec<&str> =
            said.lines().filter(|line| line.contains("weir-freeze:") || line.contains(ENDED)).collect();
        Ok(said.join("\n"))
    }
}

/// Tells the edge where the servers are.
fn set_up(debian: &Debian, addresses: &Addresses, admin: &str) -> Result<()> {
    let config = debian.path("/etc/weir/weir-edge.toml");
    let text = fs::read_to_string(&config)?;
    let text = changed(
        &text,
        "[mqtt]",
        &[
            ("host", &format!("\"{HOST}\"")),
            ("port", &addresses.mqtt.1.to_string()),
            ("topics", "[\"sensors/#\"]"),
        ],
    )?;
    let text = changed(&text, "[kafka]", &[("brokers", &format!("\"{}\"", addresses.kafka))])?;
    let text = changed(&text, "[admin]", &[("listen", &format!("\"0.0.0.0:{admin}\""))])?;
    Ok(fs::write(&config, text)?)
}

fn port(address: &str) -> Result<String> {
    Ok(address.rsplit_once(':').with_context(|| format!("{address} has no port"))?.1.to_owned())
}

/// Settings with other values in one section.
fn changed(text: &str, section: &str, values: &[(&str, &str)]) -> Result<String> {
    let start =
        text.find(&format!("\n{section}\n")).with_context(|| format!("no {section} in the settings"))? + 1;
    let end = text[start + 1..].find("\n[").map_or(text.len(), |end| start + 1 + end);
    let mut lines: Vec<String> = text[start..end].lines().map(str::to_owned).collect();
    for (key, value) in values {
        let line = lines.iter_mut().find(|line| line.starts_with(&format!("{key} = ")));
        *line.with_context(|| format!("no {key} in {section}"))? = format!("{key} = {value}");
    }
    Ok(format!("{}{}{}", &text[..start], lines.join("\n"), &text[end..]))
}

/// Bytes that a file with holes takes.
fn used(path: &Path) -> Result<u64> {
    Ok(std::os::unix::fs::MetadataExt::blocks(&path.metadata()?) * 512)
}
