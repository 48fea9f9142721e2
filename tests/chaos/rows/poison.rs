//! Row 27: messages that are no readings: the simulator's broken kinds, 100 MB, a gzip bomb, deep nesting, noise.
//!
//! Must hold: each becomes one dead letter with a reason, its true length and its topic; the stream goes on.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::ensure;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;
use weir_harness::faults::load;
use weir_harness::judge::tape::{Seen, What};
use weir_harness::simulator::broken::{Broken, Kind};

use crate::lab::{Dice, Lab, pass};
use crate::report::Report;
use crate::scene::Scene;

const RATE: u64 = 1000;
const LARGE_BYTES: usize = 100 << 20;
const BOMB_BYTES: usize = 64 << 20;
const NESTED: usize = 40_000;
const NOISE: u64 = 200;

/// A message that must become a dead letter.
struct Poison {
    name: String,
    bytes: usize,
    /// `None`: any reason will do.
    reason: Option<&'static str>,
}

/// Row 27.
pub(crate) fn row(lab: &Lab, report: &mut Report) -> anyhow::Result<()> {
    let mut scene = Scene::new(lab, "poison", RATE)?;
    scene.begin("", &[])?;
    pass(Duration::from_secs(1));
    let (mut expected, mut messages) = (BTreeMap::new(), Vec::new());
    let topic = |name: &str| format!("sensors/{}/0/poison/{name}", scene.run.name());
    for (name, reason, bytes) in poison(scene.run.name()) {
        let poison = Poison { name: name.clone(), bytes: bytes.len(), reason };
        expected.insert(topic(&name), poison);
        messages.push((topic(&name), bytes, ()));
    }
    load::publish_raw(&lab.mqtt(), &format!("poison-{}", scene.run.name()), messages, |()| ())?;
    let large = topic("large");
    publish_large(&lab.mqtt(), &large)?;
    let poison = Poison { name: "large".to_owned(), bytes: LARGE_BYTES, reason: Some("too_large") };
    expected.insert(large, poison);
    report.did(&format!("{} poison messages in a stream", expected.len()));
    report.heal("after the last poison", scene.canary()?);
    let ended = scene.edge()?.ended()?;
    report.check(ended.is_none(), || format!("the edge ended: {ended:?}"));
    report.figure("resident_mb_max", scene.edge()?.resident_mb_max());
    let (verdict, seen) = scene.finish()?;
    report.verdict("stream", &verdict);
    letters(&expected, &seen, report);
    Ok(())
}

/// Name, reason, bytes.
fn poison(run: &str) -> Vec<(String, Option<&'static str>, Vec<u8>)> {
    let mut all = Vec::new();
    // One bad reading of several belongs to a message that has good ones too: the simulator's own runs show it.
    for (kind, number) in Kind::ALL.into_iter().filter(|kind| *kind != Kind::OneOfSeveral).zip(0..) {
        let broken = Broken { kind, number, time_ms: 1_790_000_000_000 };
        all.push((kind.name().to_owned(), Some(kind.reason()), broken.bytes(run)));
    }
    let mut bomb = GzEncoder::new(Vec::new(), Compression::best());
    let zeros = vec![b' '; 1 << 20];
    let packed = (0..BOMB_BYTES >> 20).try_for_each(|_| bomb.write_all(&zeros)).and_then(|()| bomb.finish());
    all.push(("gzip_bomb".to_owned(), None, packed.expect("memory takes everything")));
    for (name, open, close) in [("arrays", "[", "]"), ("objects", "{\"a\":", "}")] {
        let (open, close) = (open.repeat(NESTED), close.repeat(NESTED));
        let nested = format!(r#"{{"device":"x","ts":1790000000000,"values":{{"v":{open}1{close}}}}}"#);
        all.push((format!("nested_{name}"), None, nested.into_bytes()));
    }
    let mut dice = Dice::new(27);
    for n in 0..NOISE {
        let length = dice.throw((1, 2000));
        let mut bytes: Vec<u8> = (0..length).map(|_| dice.throw((0, 255)) as u8).collect();
        if n % 2 == 1 {
            // A good reading with some bytes changed; the device goes, so that it cannot become good again.
            let good = format!(r#"{{"ts":1790000000000,"values":{{"n":{n}}},"tags":{{"id":"x"}}}}"#);
            bytes = good.into_bytes();
            for _ in 0..dice.throw((1, 5)) {
                let at = usize::try_from(dice.throw((0, bytes.len() as u64 - 1))).unwrap_or(0);
                bytes[at] = dice.throw((0, 255)) as u8;
            }
        }
        all.push((format!("noise_{n}"), None, bytes));
    }
    all
}

fn letters(expected: &BTreeMap<String, Poison>, seen: &[Seen], report: &mut Report) {
    let mut found: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    let letters =
        seen.iter().filter_map(|s| if let What::Rejection(value) = &s.what { Some(value) } else { None });
    let mut count = 0_u64;
    for letter in letters {
        count += 1;
        let topic = letter["topic"].as_str().unwrap_or_default();
        report.check(expected.contains_key(topic), || format!("a dead letter of a good message: {letter}"));
        found.entry(topic).or_default().push(letter);
    }
    for (topic, poison) in expected {
        let letters = found.remove(topic.as_str()).unwrap_or_default();
        let name = &poison.name;
        report.check(letters.len() == 1, || format!("{name}: {} dead letters", letters.len()));
        for letter in letters {
            let reason = letter["reason"].as_str().unwrap_or_default();
            let right = !reason.is_empty() && poison.reason.is_none_or(|wanted| wanted == reason);
            report.check(right, || format!("{name}: reason {reason:?}, wanted {:?}", poison.reason));
            let bytes = letter["bytes"].as_u64().unwrap_or_default();
            report.check(bytes == poison.bytes as u64, || {
                format!("{name}: {bytes} bytes, had {}", poison.bytes)
            });
        }
    }
    report.figure("dead_letters", count);
}

/// Over a plain socket: no client library carries 100 MB by default.
fn publish_large(mqtt: &(String, u16), topic: &str) -> anyhow::Result<()> {
    let mut socket = TcpStream::connect((mqtt.0.as_str(), mqtt.1))?;
    socket.set_read_timeout(Some(Duration::from_secs(30)))?;
    socket.write_all(b"\x10\x11\x00\x04MQTT\x04\x02\x00\x00\x00\x05large")?;
    let mut answer = [0; 4];
    socket.read_exact(&mut answer)?;
    ensure!(answer == [0x20, 2, 0, 0], "CONNECT was not accepted: {answer:?}");
    let mut header = vec![0x32];
    let mut length = 2 + topic.len() + 2 + LARGE_BYTES;
    while length > 0 {
        let more = if length > 127 { 0x80 } else { 0 };
        header.push((length & 0x7f) as u8 | more);
        length >>= 7;
    }
    header.extend(u16::try_from(topic.len())?.to_be_bytes());
    header.extend(topic.as_bytes());
    header.extend([0, 1]);
    socket.write_all(&header)?;
    socket.write_all(&vec![b'x'; LARGE_BYTES])?;
    socket.read_exact(&mut answer)?;
    ensure!(answer == [0x40, 2, 0, 1], "PUBLISH was not acknowledged: {answer:?}");
    Ok(socket.write_all(b"\xe0\x00")?)
}
