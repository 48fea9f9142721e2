//! The messages of the simulated devices.
//!
//! Comes in: a counter, the real series, the time. Goes out: what one message says ([`Draft`]) and, once it has its
//! numbers, its topic and bytes.
//! Guarantees: which shape a message has depends on its counter alone; broken kinds take turns, so that a run with at
//! least ten broken messages has every kind. Pure.

use std::collections::BTreeMap;

use super::broken::Kind;
use super::content::{Content, Value};
use super::ledger::{Ticket, id};
use super::series::Series;

/// How many devices replay the shuttle: `shuttle-00` and so on.
const SHUTTLES: u64 = 20;
/// How many devices replay the water meter: `water-00` and so on.
const WATER_METERS: u64 = 5;
/// Of a hundred readings, this many come from water meters.
const WATER_PERCENT: u64 = 10;

/// All devices.
pub fn devices() -> impl Iterator<Item = String> {
    (0..SHUTTLES).map(shuttle).chain((0..WATER_METERS).map(water))
}

fn shuttle(n: u64) -> String {
    format!("shuttle-{n:02}")
}

fn water(n: u64) -> String {
    format!("water-{n:02}")
}

/// How often which shape comes, per mille of messages.
#[derive(Clone, Copy, Debug)]
pub struct Shapes {
    /// Broken messages.
    pub broken: u64,
    /// Arrays of 2 to 5 readings.
    pub arrays: u64,
}

/// How a reading spells its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TimeForm {
    Milliseconds,
    Utc,
    /// RFC 3339 with an offset of two hours.
    Offset,
}

/// One message before it has its numbers.
#[derive(Debug)]
pub struct Draft {
    /// Its readings.
    pub contents: Vec<Content>,
    /// What is broken in it, if anything, and when it was made.
    pub broken: Option<(Kind, i64)>,
    time_form: TimeForm,
}

/// Makes the messages of one connection.
#[derive(Debug)]
pub struct Maker<'a> {
    series: &'a Series,
    shapes: Shapes,
    /// This connection, and how many there are: each device belongs to one of them.
    share: (u64, u64),
    messages: u64,
    readings: u64,
    broken: u64,
}

impl<'a> Maker<'a> {
    /// For connection `share.0` of `share.1`.
    #[must_use]
    pub fn new(series: &'a Series, shapes: Shapes, share: (u64, u64)) -> Self {
        Self { series, shapes, share, messages: 0, readings: 0, broken: share.0 }
    }

    /// The next message, with at most `most` readings, stamped `now_ms`.
    pub fn draft(&mut self, most: u64, now_ms: i64) -> Draft {
        let dice = scatter(self.messages * self.share.1 + self.share.0);
        self.messages += 1;
        let time_form = match (dice >> 32) % 10 {
            0 => TimeForm::Utc,
            1 => TimeForm::Offset,
            _ => TimeForm::Milliseconds,
        };
        let (mut count, mut broken) = (1, None);
        if dice % 1000 < self.shapes.broken {
            let turn = usize::try_from(self.broken % Kind::ALL.len() as u64).expect("below ten");
            let kind = Kind::ALL[turn];
            self.broken += 1;
            count = if kind == Kind::OneOfSeveral { 2 } else { 0 };
            broken = Some((kind, now_ms));
        } else if dice % 1000 < self.shapes.broken + self.shapes.arrays {
            count = 2 + (dice >> 40) % 4;
        }
        let count = count.min(most);
        let contents = (0..count).map(|i| self.content(now_ms - (count - 1 - i).cast_signed())).collect();
        Draft { contents, broken, time_form }
    }

    fn content(&mut self, time_ms: i64) -> Content {
        let n = self.readings * self.share.1 + self.share.0;
        self.readings += 1;
        if scatter(n ^ 0x5eed) % 100 < WATER_PERCENT {
            self.water(n, time_ms)
        } else {
            self.shuttle(n, time_ms)
        }
    }

    fn shuttle(&self, n: u64, time_ms: i64) -> Content {
        let (row, values) = self.series.shuttle(n);
        let named = values.iter().zip(1..).map(|(&v, i): (_, u8)| (format!("f{i}"), Value::integer(v)));
        Content {
            device: shuttle(self.own_device(n, SHUTTLES)),
            time_ms,
            source_time: format!("row {row}"), // the series has no times
            values: named.collect(),
        }
    }

    fn water(&self, n: u64, time_ms: i64) -> Content {
        let row = self.series.water(n);
        // Beside the real flow one value of each other type, and an integer that a 64-bit float cannot hold.
        let pulses = (1i64 << 53) + 1 + 2 * (n & 0xffff).cast_signed();
        let values = BTreeMap::from([
            ("flow".to_owned(), Value::Number(row.flow)),
            ("open".to_owned(), Value::Flag(row.flow > 100.0)),
            (
                "mode".to_owned(),
                Value::Text(if n.is_multiple_of(7) { "händisch \"0\"" } else { "auto" }.to_owned()),
            ),
            ("pulses".to_owned(), Value::integer(pulses)),
        ]);
        let device = water(self.own_device(n, WATER_METERS));
        Content { device, time_ms, source_time: row.time.clone(), values }
    }

    /// A device of this connection, so that the order of a device is that of one connection.
    fn own_device(&self, n: u64, devices: u64) -> u64 {
        let (share, shares) = self.share;
        let own = (devices + shares - 1 - share % devices) / shares;
        if own == 0 { share % devices } else { share % devices + shares * (n / shares % own) }
    }
}

impl Draft {
    /// Topic and bytes of the message with these numbers.
    #[must_use]
    pub fn encode(&self, run: &str, ticket: &Ticket) -> (String, Vec<u8>) {
        let numbered = self.contents.iter().zip(ticket.first..);
        let mut readings: Vec<String> = numbered.map(|(content, n)| self.reading(content, run, n)).collect();
        if let Some(broken) = ticket.broken {
            let bytes = broken.bytes(run);
            if self.contents.is_empty() {
                return (broken.topic(run), bytes);
            }
            // In the middle: what comes before it and what comes after it must both arrive.
            readings.insert(readings.len() / 2, String::from_utf8(bytes).expect("this kind is JSON"));
            return (broken.topic(run), format!("[{}]", readings.join(",")).into_bytes());
        }
        let topic = format!("sensors/{}", self.contents[0].device);
        let payload =
            if readings.len() == 1 { readings.remove(0) } else { format!("[{}]", readings.join(",")) };
        (topic, payload.into_bytes())
    }

    fn reading(&self, content: &Content, run: &str, number: u64) -> String {
        let values: serde_json::Map<_, _> =
            content.values.iter().map(|(name, value)| (name.clone(), value.to_json())).collect();
        serde_json::json!({
            "device": content.device,
            "ts": self.time_form.spell(content.time_ms),
            "values": values,
            "tags": {"run": run, "id": id(run, number), "source_time": content.source_time},
        })
        .to_string()
    }
}

impl TimeForm {
    fn spell(self, time_ms: i64) -> serde_json::Value {
        let spell = |offset| {
            let time = jiff::Timestamp::from_millisecond(time_ms).expect("the simulator stamps the present");
            time.display_with_offset(jiff::tz::Offset::constant(offset)).to_string()
        };
        match self {
            Self::Milliseconds => time_ms.into(),
            Self::Utc => jiff::Timestamp::from_millisecond(time_ms).expect("as above").to_string().into(),
            Self::Offset => spell(2).into(),
        }
    }
}

/// `SplitMix64`: well-spread bits from a counter.
fn scatter(n: u64) -> u64 {
    let mut z = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulator::broken::Broken;

    const NOW: i64 = 1_790_000_000_123;

    fn ticket(draft: &Draft) -> Ticket {
        let broken = draft.broken.map(|(kind, time_ms)| Broken { kind, number: 0, time_ms });
        Ticket { first: 5, count: draft.contents.len() as u64, broken }
    }

    #[test]
    fn every_shape_comes_and_says_what_its_contents_say() {
        let series = Series::sample();
        let mut maker = Maker::new(&series, Shapes { broken: 20, arrays: 100 }, (1, 2));
        let (mut kinds, mut arrays, mut texts) = (std::collections::BTreeSet::new(), 0, 0);
        for _ in 0..2000 {
            let draft = maker.draft(100, NOW);
            let (topic, payload) = draft.encode("r1", &ticket(&draft));
            if let Some((kind, _)) = draft.broken {
                kinds.insert(kind);
                assert_eq!(topic, "sensors/broken/r1/0");
                continue;
            }
            let json: serde_json::Value = serde_json::from_slice(&payload).unwrap();
            let readings = json.as_array().cloned().unwrap_or_else(|| vec![json]);
            arrays += usize::from(readings.len() > 1);
            for ((reading, content), n) in readings.iter().zip(&draft.contents).zip(5..) {
                let time = match &reading["ts"] {
                    serde_json::Value::String(text) => {
                        texts += 1;
                        text.parse::<jiff::Timestamp>().unwrap().as_millisecond()
                    }
                    ms => ms.as_i64().unwrap(),
                };
                let values = reading["values"].as_object().unwrap();
                let back = Content {
                    device: reading["device"].as_str().unwrap().to_owned(),
                    time_ms: time,
                    source_time: reading["tags"]["source_time"].as_str().unwrap().to_owned(),
                    values: values.iter().map(|(n, v)| (n.clone(), Value::from_json(v).unwrap())).collect(),
                };
                assert_eq!(back.digest(), content.digest());
                assert_eq!(reading["tags"]["id"], id("r1", n));
            }
        }
        assert_eq!(kinds.len(), Kind::ALL.len());
        assert!(arrays > 100 && texts > 200, "{arrays} arrays, {texts} times as text");
    }

    #[test]
    fn a_device_belongs_to_one_connection() {
        let series = Series::sample();
        for shares in [1, 2, 3, 4, 7] {
            let mut owners = BTreeMap::new();
            for share in 0..shares {
                let mut maker = Maker::new(&series, Shapes { broken: 0, arrays: 0 }, (share, shares));
                for _ in 0..2000 {
                    let device = maker.draft(1, NOW).contents[0].device.clone();
                    if device.starts_with("shuttle") || shares <= WATER_METERS {
                        assert_eq!(*owners.entry(device.clone()).or_insert(share), share, "{device}");
                    }
                }
            }
            assert!(owners.len() as u64 >= SHUTTLES, "{shares}: {owners:?}");
        }
    }
}
