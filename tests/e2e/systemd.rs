//! What systemd sees: units that it understands and that give little away, and programs that tell it how they are.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use weir_harness::install;
use weir_harness::patience::holds_within;
use weir_harness::places::Places;
use weir_harness::programs::{Program, Programs};
use weir_shared::clock::{self, Deadline};

use crate::alone;
use crate::first_light::first_light;
use crate::started::Started;

const UNITS: [&str; 2] = ["weir-edge", "weir-cloud"];
/// Highest exposure that a unit may have, in tenths.
const EXPOSURE_MAX: &str = "12";
/// Longest wait for a message.
const TOLD: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// As long as this the watchdog is fed.
const WATCHED: Duration = Duration::from_secs(5);

/// The unit, with the program where this build has it.
fn unit(name: &str, folder: &Path) -> PathBuf {
    let root = Places::find().unwrap().root().to_owned();
    let text = std::fs::read_to_string(root.join(format!("systemd/{name}.service"))).unwrap();
    let installed = format!("/usr/bin/{name}");
    assert!(text.contains(&installed), "{text}");
    let built = root.join("target/release").join(name);
    let path = folder.join(format!("{name}.service"));
    std::fs::write(&path, text.replace(&installed, built.to_str().unwrap())).unwrap();
    path
}

#[test]
fn the_units_are_understood_and_give_little_away() {
    let places = Places::find().unwrap();
    let say = &mut |line: &str| eprintln!("{line}");
    install::programs(&places, &[("systemd-analyze", "systemd")], say).unwrap();
    let folder = std::env::temp_dir().join(format!("weir-e2e-units-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    for name in UNITS {
        let unit = unit(name, &folder);
        let run = |words: &[&str]| {
            let output = Command::new("systemd-analyze").args(words).arg(&unit).output().unwrap();
            let said = [output.stdout, output.stderr].concat();
            (output.status.success(), String::from_utf8_lossy(&said).into_owned())
        };
        let (understood, said) = run(&["verify", "--man=no"]);
        assert!(understood && !said.contains(name), "{name}: {said}");
        let threshold = format!("--threshold={EXPOSURE_MAX}");
        let (hardened, said) = run(&["security", "--offline=true", "--no-pager", &threshold]);
        assert!(hardened, "{name}: {said}");
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

/// Reads until one message is `wanted`.
fn wait_for(socket: &UnixDatagram, wanted: &str) {
    let deadline = Deadline::after(TOLD);
    let mut others = Vec::new();
    let mut bytes = [0; 4096];
    while !deadline.passed() {
        let Ok(length) = socket.recv(&mut bytes) else { continue };
        let message = String::from_utf8_lossy(&bytes[..length]).trim().to_owned();
        if message == wanted {
            return;
        }
        others.push(message);
    }
    panic!("{wanted} was not told within {TOLD:?}, but {others:?}");
}

#[test]
fn the_programs_tell_systemd_how_they_are() {
    let first = first_light();
    let _alone = alone();
    let programs = Programs::new(&first.stack).unwrap();
    for program in [Program::Edge, Program::Cloud] {
        let path = std::env::temp_dir().join(format!("weir-e2e-{}-{}", program.name(), std::process::id()));
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let mut command = programs.command(program, &["run"]);
        let log = path.with_extension("log");
        let mut started = Started::new(command.env("NOTIFY_SOCKET", &path), &log);
        wait_for(&socket, "READY=1");
        wait_for(&socket, "STATUS=ok");
        let watched = clock::instant();
        let mut fed = 0;
        while clock::since(watched) < WATCHED {
            wait_for(&socket, "WATCHDOG=1");
            fed += 1;
        }
        assert!(fed >= 3, "{}: fed {fed} times in {WATCHED:?}", program.name());
        started.stop();
        wait_for(&socket, "STOPPING=1");
        let mut status = None;
        let mut has_ended = || {
            status = started.ended();
            Ok(status.is_some())
        };
        assert!(holds_within(TOLD, LOOK_EVERY, &mut has_ended).unwrap(), "{} does not end", program.name());
        assert!(status.is_some_and(|status| status.success()), "{}: {status:?}", program.name());
        for file in [&path, &log] {
            std::fs::remove_file(file).unwrap();
        }
    }
}
