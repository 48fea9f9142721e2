//! Outputs beside those of the engine, run single-threaded over the same input. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Deserialize;
use weir_cloud::reference::Reference;
use weir_shared::record::StreamId;
use weir_shared::wire;

use super::log::Entry;
use super::tables::History;
use super::{Gone, INPUTS, TABLE};
use crate::judge::Verdict;

/// Differences of one kind that are told one by one.
const TOLD_MAX: usize = 3;
/// Of a value so much is shown.
const SHOWN_CHARS: usize = 220;

/// Within it the order is promised: output topic, input topic, input partition, key.
type Line = (&'static str, &'static str, i32, Vec<u8>);
/// What the processors found gone from the log themselves: not the engine's to tell.
const GONE: &str = "gone_from_the_log";

/// What an output says of where it came from.
#[derive(Deserialize)]
struct Value<'a> {
    #[serde(borrow)]
    weir: Weir<'a>,
    reason: Option<std::borrow::Cow<'a, str>>,
    from: Option<i64>,
    to: Option<i64>,
}

#[derive(Deserialize)]
struct Weir<'a> {
    stream: Option<&'a str>,
    partition: i32,
    number: Option<u64>,
    topic: Option<&'a str>,
    offset: Option<i64>,
    versions: Option<BTreeMap<&'a str, i64>>,
    rules: Option<u64>,
}

/// Input topic, partition, stream, number.
pub(super) type Identity = (&'static str, i32, StreamId, u64);
/// Input topic, partition, offset.
pub(super) type Origin = (&'static str, i32, i64);

/// The outputs, sorted in several ways.
#[derive(Default)]
pub(super) struct Found {
    lines: HashMap<Line, Vec<Vec<u8>>>,
    /// Versions named by the outputs of each input record.
    versions: HashMap<Identity, i64>,
    /// Rule sets named by them.
    rules: HashMap<Identity, u64>,
    /// Values by output topic and identity.
    pub(super) named: HashMap<(&'static str, Identity), Vec<Vec<u8>>>,
    /// Outputs that have no identity: by output topic and origin, how many.
    pub(super) nameless: HashMap<(&'static str, Origin), usize>,
    /// Ranges told as gone.
    pub(super) gone: Vec<Gone>,
}

impl Found {
    pub(super) fn parse(outputs: &HashMap<&str, Vec<Entry>>, verdict: &mut Verdict) -> Self {
        let mut found = Self::default();
        for topic in super::OUTPUTS {
            for entry in outputs.get(topic).into_iter().flatten() {
                let value = entry.record.value.clone().unwrap_or_default();
                if let Err(why) = found.take(topic, entry.record.key.clone().unwrap_or_default(), value) {
                    verdict.wrong += 1;
                    verdict.problems.push(format!("{topic}: {why}"));
                }
            }
        }
        found
    }

    /// All numbers that outputs name.
    pub(super) fn rule_sets(&self) -> impl Iterator<Item = u64> {
        self.rules.values().copied().collect::<BTreeSet<_>>().into_iter()
    }

    fn take(&mut self, topic: &'static str, key: Vec<u8>, bytes: Vec<u8>) -> Result<(), String> {
        let shown = || shown(&bytes);
        let value: Value<'_> = serde_json::from_slice(&bytes).map_err(|e| format!("{e}: {}", shown()))?;
        let weir = value.weir;
        let input = match topic {
            wire::ENRICHED | wire::ALERTS => wire::READINGS,
            wire::AGGREGATES => wire::WINDOWS,
            _ => {
                let name = weir.topic.unwrap_or(wire::GAPS);
                INPUTS.into_iter().find(|known| *known == name).ok_or_else(shown)?
            }
        };
        if value.reason.as_deref() == Some(GONE) {
            let (from, to) = value.from.zip(value.to).ok_or_else(shown)?;
            self.gone.push(Gone { topic: input.to_owned(), partition: weir.partition, from, to });
            return Ok(());
        }
        let stream = weir.stream.and_then(|hex| StreamId::from_hex(hex.as_bytes()));
        match (stream.zip(weir.number), weir.offset) {
            (Some((stream, number)), _) => {
                let identity = (input, weir.partition, stream, number);
                if let Some(version) = weir.versions.as_ref().and_then(|v| v.get(TABLE)) {
                    self.versions.insert(identity, *version);
                }
                if let Some(number) = weir.rules {
                    self.rules.insert(identity, number);
                }
                // A reading may make any number of alerts, or none.
                if topic != wire::ALERTS {
                    self.named.entry((topic, identity)).or_default().push(bytes.clone());
                }
            }
            (None, Some(offset)) => {
                *self.nameless.entry((topic, (input, weir.partition, offset))).or_default() += 1;
            }
            (None, None) => return Err(format!("neither identity nor offset: {}", shown())),
        }
        self.lines.entry((topic, input, weir.partition, key)).or_default().push(bytes);
        Ok(())
    }
}

/// What the engine makes of the input.
pub(super) fn expected(
    reference: &mut Reference,
    inputs: &HashMap<&str, Vec<Entry>>,
    found: &Found,
    history: &mut History,
) -> HashMap<Line, Vec<Vec<u8>>> {
    let mut lines: HashMap<Line, Vec<Vec<u8>>> = HashMap::new();
    for topic in INPUTS {
        // Where an output is missing, the version of its neighbour is as good as any.
        let (mut version, mut number) = (history.newest(), history.newest_rules());
        for Entry { partition, record } in inputs.get(topic).into_iter().flatten() {
            let headers = record.stream.as_ref().zip(record.number.as_ref());
            let identity = headers.and_then(|(s, n)| wire::identity(s, n, *partition));
            let place = identity.map(|id| (topic, id.partition, id.stream, id.number));
            version = place.and_then(|place| found.versions.get(&place)).copied().unwrap_or(version);
            number = place.and_then(|place| found.rules.get(&place)).copied().unwrap_or(number);
            let world = (&*history.at(version), &*history.rules(number));
            for output in reference.process(topic, *partition, record, world) {
                let out = super::OUTPUTS.into_iter().find(|known| *known == output.topic);
                let line = (out.unwrap_or("?"), topic, *partition, output.key.unwrap_or_default());
                lines.entry(line).or_default().push(output.value);
            }
        }
    }
    lines
}

/// Notes every difference.
pub(super) fn compare(expected: &HashMap<Line, Vec<Vec<u8>>>, found: &Found, verdict: &mut Verdict) {
    let none = Vec::new();
    let mut told: HashMap<&str, usize> = HashMap::new();
    let mut tell = |verdict: &mut Verdict, kind: &'static str, topic: &str, value: &[u8]| {
        let count = told.entry(kind).or_default();
        *count += 1;
        if *count <= TOLD_MAX {
            verdict.problems.push(format!("{kind}: {topic}: {}", shown(value)));
        }
    };
    let all = expected.keys().chain(found.lines.keys().filter(|line| !expected.contains_key(*line)));
    for line in all {
        let (want, have) = (expected.get(line).unwrap_or(&none), found.lines.get(line).unwrap_or(&none));
        if want == have {
            continue;
        }
        let mut counts: HashMap<&[u8], i64> = HashMap::new();
        for value in want {
            *counts.entry(value).or_default() += 1;
        }
        for value in have {
            *counts.entry(value).or_default() -= 1;
        }
        let mut equal = true;
        for (value, count) in counts {
            if count > 0 {
                tell(verdict, "not made, but by the reference", line.0, value);
            } else if count < 0 && want.iter().any(|w| w == value) {
                tell(verdict, "made more often than by the reference", line.0, value);
            } else if count < 0 {
                tell(verdict, "made, but not by the reference", line.0, value);
            }
            equal &= count == 0;
        }
        if equal {
            verdict.disordered += 1;
            tell(verdict, "in another order than by the reference", line.0, &line.3);
        }
    }
    for (kind, count) in told {
        if count > TOLD_MAX {
            verdict.problems.push(format!("{kind}: {count} in all"));
        }
    }
}

fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().take(SHOWN_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> Line {
        (wire::ENRICHED, wire::READINGS, 0, b"d".to_vec())
    }

    fn value(number: u64) -> Vec<u8> {
        let stream = StreamId([7; 16]);
        format!(
            "{{\"weir\":{{\"stream\":\"{stream}\",\"partition\":0,\"number\":{number},\"versions\":{{\"devices\":3}}}}}}"
        )
        .into_bytes()
    }

    fn judged(want: &[u64], have: &[u64]) -> Verdict {
        let expected = HashMap::from([(line(), want.iter().copied().map(value).collect())]);
        let (mut found, mut verdict) = (Found::default(), Verdict::default());
        for number in have {
            found.take(wire::ENRICHED, b"d".to_vec(), value(*number)).unwrap();
        }
        compare(&expected, &found, &mut verdict);
        verdict
    }

    #[test]
    fn each_difference_is_seen() {
        assert!(judged(&[1, 2, 3], &[1, 2, 3]).is_right());
        for (have, kind) in [
            (vec![1, 3], "not made"),
            (vec![1, 2, 2, 3], "made more often"),
            (vec![1, 2, 3, 4], "made, but not"),
            (vec![1, 3, 2], "in another order"),
        ] {
            let verdict = judged(&[1, 2, 3], &have);
            assert!(verdict.problems[0].starts_with(kind), "{kind}: {verdict:?}");
        }
    }
}
