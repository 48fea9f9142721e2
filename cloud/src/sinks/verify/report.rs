//! What verifying found, for people and for programs. Pure.
//!
//! Guarantees: records = stored + elsewhere + refused + replaced + lost + doubled + altered, for each store and topic.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write as _;

use serde_json::{Value, json};

use super::super::SinkName;
use super::super::batch::{Part, Topic};
use super::Found;

/// Most ranges of offsets that are named for each partition.
const RANGES_MAX: usize = 20;

/// What became of the records of a topic in a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sums {
    stored: u64,
    elsewhere: u64,
    refused: u64,
    replaced: u64,
}

/// What is wrong with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Wrong {
    Lost,
    Doubled,
    Altered,
}

impl Wrong {
    const ALL: [Self; 3] = [Self::Lost, Self::Doubled, Self::Altered];

    const fn word(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Doubled => "doubled",
            Self::Altered => "altered",
        }
    }
}

/// A table of a topic: none is the one of the topic itself.
type Of = (Topic, Option<&'static str>);

/// A table and a partition of its topic.
type Place = (Option<&'static str>, Part);

/// Rows of one thing: how many there are, and the records that are it.
#[derive(Debug, Default)]
struct Several {
    rows: u64,
    records: Vec<(Part, i64)>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Report {
    deep: bool,
    sums: BTreeMap<(usize, Of), Sums>,
    wrong: BTreeMap<(usize, Wrong, Place), Vec<i64>>,
    several: HashMap<(usize, Of, u128), Several>,
    kept: HashSet<(usize, Of, u128)>,
    altered: Vec<(usize, Place, i64, u128)>,
    /// Offsets that each store asked has not stored yet.
    behind: BTreeMap<usize, u64>,
}

impl Report {
    pub(super) fn new(deep: bool) -> Self {
        Self { deep, ..Self::default() }
    }

    /// So many offsets of a partition were not compared, as the store is not that far.
    pub(super) fn behind(&mut self, which: SinkName, offsets: i64) {
        *self.behind.entry(which as usize).or_default() += offsets.unsigned_abs();
    }

    /// Whether no store was asked.
    pub(super) fn is_empty(&self) -> bool {
        self.behind.is_empty()
    }

    /// Takes in what became of a record in a table: one of the user's `own`, or that of its topic.
    pub(super) fn add(
        &mut self,
        which: SinkName,
        own: Option<&'static str>,
        part: Part,
        offset: i64,
        found: Found,
    ) {
        let store = which as usize;
        let of = (part.topic, own);
        let sums = self.sums.entry((store, of)).or_default();
        let wrong = match found {
            Found::Stored => return sums.stored += 1,
            Found::Kept { key } => {
                sums.stored += 1;
                self.kept.insert((store, of, key));
                return;
            }
            Found::Altered { key } => return self.altered.push((store, (own, part), offset, key)),
            Found::Elsewhere => return sums.elsewhere += 1,
            Found::Refused => return sums.refused += 1,
            Found::Replaced => return sums.replaced += 1,
            Found::Times { key, rows } => {
                let several = self.several.entry((store, of, key)).or_default();
                several.rows = several.rows.max(rows);
                return several.records.push((part, offset));
            }
            Found::Missing => Wrong::Lost,
        };
        self.wrong.entry((store, wrong, (own, part))).or_default().push(offset);
    }

    /// To be called when all is in: as many rows as records of one thing are none too many (a dead letter may be there
    /// twice in the log), and one of several records of one thing may stand for all (a dead letter that was sent again and
    /// refused again; two results of one revision).
    pub(super) fn close(&mut self) {
        for ((store, of, _), several) in self.several.drain() {
            let too_many = several.rows > several.records.len() as u64;
            for (part, offset) in several.records {
                if too_many {
                    self.wrong.entry((store, Wrong::Doubled, (of.1, part))).or_default().push(offset);
                } else {
                    self.sums.entry((store, of)).or_default().stored += 1;
                }
            }
        }
        for (store, place, offset, key) in std::mem::take(&mut self.altered) {
            let of = (place.1.topic, place.0);
            if self.kept.contains(&(store, of, key)) {
                self.sums.entry((store, of)).or_default().replaced += 1;
            } else {
                self.wrong.entry((store, Wrong::Altered, place)).or_default().push(offset);
            }
        }
        self.wrong.values_mut().for_each(|offsets| offsets.sort_unstable());
    }

    fn count(&self, store: usize, of: Option<Of>, wrong: Wrong) -> u64 {
        let is_it = |(at, what, (own, part)): &(usize, Wrong, Place)| {
            *at == store && *what == wrong && of.is_none_or(|of| of == (part.topic, *own))
        };
        self.wrong.iter().filter(|(key, _)| is_it(key)).map(|(_, offsets)| offsets.len() as u64).sum()
    }

    fn total(&self, wrong: Wrong) -> u64 {
        (0..SinkName::ALL.len()).map(|store| self.count(store, None, wrong)).sum()
    }

    /// Whether nothing is lost, doubled or altered.
    pub(crate) fn is_right(&self) -> bool {
        self.wrong.is_empty()
    }

    /// For people; ends with a line break.
    pub(crate) fn text(&self) -> String {
        let mut out = format!(
            "{:<14} {:<16} {:>12} {:>12} {:>10} {:>8} {:>9} {:>6} {:>8} {:>8}\n",
            "store",
            "topic",
            "records",
            "stored",
            "elsewhere",
            "refused",
            "replaced",
            "lost",
            "doubled",
            "altered"
        );
        for ((store, of), sums) in &self.sums {
            let [lost, doubled, altered] = Wrong::ALL.map(|wrong| self.count(*store, Some(*of), wrong));
            let (topic, own) = *of;
            let name = own.map_or_else(|| topic.name().to_owned(), |own| format!("{} → {own}", topic.name()));
            let good = sums.stored + sums.elsewhere + sums.refused + sums.replaced;
            let altered_shown = if self.deep { altered.to_string() } else { "-".to_owned() };
            writeln!(
                out,
                "{:<14} {:<16} {:>12} {:>12} {:>10} {:>8} {:>9} {:>6} {:>8} {:>8}",
                SinkName::ALL[*store].name(),
                name,
                good + lost + doubled + altered,
                sums.stored,
                sums.elsewhere,
                sums.refused,
                sums.replaced,
                lost,
                doubled,
                altered_shown
            )
            .expect("writing into a string");
        }
        for ((store, wrong, (own, part)), offsets) in &self.wrong {
            let name = SinkName::ALL[*store].name();
            let own = own.map(|own| format!(" → {own}")).unwrap_or_default();
            writeln!(out, "{}: {name}: {part}{own}: offsets {}", wrong.word(), shown(offsets))
                .expect("writing into a string");
        }
        for (store, offsets) in self.behind.iter().filter(|(_, offsets)| **offsets > 0) {
            let name = SinkName::ALL[*store].name();
            writeln!(
                out,
                "{name}: {offsets} offsets were not compared, as it has not stored them yet (ends of transactions count)"
            )
            .expect("writing into a string");
        }
        let [lost, doubled, altered] = Wrong::ALL.map(|wrong| self.total(wrong));
        let altered =
            if self.deep { format!("{altered} altered") } else { "content not compared (--deep)".to_owned() };
        writeln!(out, "{lost} lost, {doubled} doubled, {altered}").expect("writing into a string");
        out
    }

    /// For programs: one object.
    pub(crate) fn json(&self) -> Value {
        let sums = self.sums.iter().map(|((store, of), sums)| {
            let [lost, doubled, altered] = Wrong::ALL.map(|wrong| self.count(*store, Some(*of), wrong));
            let (topic, own) = *of;
            json!({
                "store": SinkName::ALL[*store].name(), "topic": topic.name(), "table": own, "stored": sums.stored,
                "elsewhere": sums.elsewhere, "refused": sums.refused, "replaced": sums.replaced,
                "lost": lost, "doubled": doubled, "altered": self.deep.then_some(altered),
            })
        });
        let wrong = self.wrong.iter().map(|((store, wrong, (own, part)), offsets)| {
            json!({
                "store": SinkName::ALL[*store].name(), "what": wrong.word(), "topic": part.topic.name(),
                "table": own, "partition": part.partition, "offsets": offsets,
            })
        });
        json!({
            "ok": self.is_right(), "deep": self.deep, "lost": self.total(Wrong::Lost),
            "doubled": self.total(Wrong::Doubled), "altered": self.deep.then(|| self.total(Wrong::Altered)),
            "behind": self.behind.iter().map(|(store, n)| (SinkName::ALL[*store].name(), n)).collect::<BTreeMap<_, _>>(),
            "topics": sums.collect::<Vec<_>>(), "wrong": wrong.collect::<Vec<_>>(),
        })
    }
}

/// Offsets in ascending order, as ranges.
fn shown(offsets: &[i64]) -> String {
    let mut ranges: Vec<(i64, i64)> = Vec::new();
    for offset in offsets {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == *offset => *last = *offset,
            _ => ranges.push((*offset, *offset)),
        }
    }
    let named = ranges.iter().take(RANGES_MAX);
    let named: Vec<_> = named.map(|(a, b)| if a == b { a.to_string() } else { format!("{a}-{b}") }).collect();
    let more = if ranges.len() > RANGES_MAX {
        format!(" and {} more ranges", ranges.len() - RANGES_MAX)
    } else {
        String::new()
    };
    format!("{}{more}", named.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PART: Part = Part { topic: Topic::Enriched, partition: 2 };

    #[test]
    fn what_is_wrong_is_named_by_its_offsets() {
        let mut report = Report::new(true);
        for (offset, found) in [
            (1, Found::Stored),
            (2, Found::Missing),
            (3, Found::Missing),
            (5, Found::Missing),
            (6, Found::Elsewhere),
            (7, Found::Altered { key: 3 }),
            (8, Found::Times { key: 1, rows: 2 }),
        ] {
            report.add(SinkName::Clickhouse, None, PART, offset, found);
        }
        report.close();
        assert!(!report.is_right());
        let text = report.text();
        for part in [
            "lost: clickhouse: weir.enriched [2]: offsets 2-3, 5\n",
            "doubled: clickhouse: weir.enriched [2]: offsets 8\n",
            "altered: clickhouse: weir.enriched [2]: offsets 7\n",
            "\n3 lost, 1 doubled, 1 altered\n",
        ] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
        let json = report.json();
        assert_eq!(
            (&json["ok"], &json["lost"], &json["topics"][0]["stored"]),
            (&json!(false), &json!(3), &json!(1))
        );
    }

    #[test]
    fn one_of_several_records_of_one_thing_stands_for_all() {
        let mut report = Report::new(true);
        report.add(SinkName::Elasticsearch, None, PART, 4, Found::Altered { key: 7 });
        report.add(SinkName::Elasticsearch, None, PART, 9, Found::Kept { key: 7 });
        report.add(SinkName::Mysql, None, PART, 9, Found::Altered { key: 7 });
        report.close();
        let json = report.json();
        let wrong = json["wrong"].as_array().unwrap();
        assert_eq!(
            (wrong.len(), &wrong[0]["store"], &wrong[0]["offsets"]),
            (1, &json!("mysql"), &json!([9]))
        );
    }

    #[test]
    fn a_letter_that_is_twice_in_the_log_is_rightly_twice_in_the_store() {
        let mut report = Report::new(false);
        for offset in [4, 9] {
            report.add(SinkName::Mysql, None, PART, offset, Found::Times { key: 7, rows: 2 });
        }
        report.close();
        assert!(report.is_right(), "{}", report.text());
        assert!(report.text().contains("content not compared"), "{}", report.text());
    }
}
