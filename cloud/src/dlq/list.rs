//! `dlq ls`: how many of what, and the newest. Pure.
//!
//! Comes in: dead letters in any order. Goes out: sums by stage, reason and edge, and the newest N, as text or JSON.
//! Guarantees: memory is bounded whatever comes: N entries of cut texts, and [`GROUPS_MAX`] sums; what does not fit into
//! those is counted all the same.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::fmt::Write as _;

use serde::Serialize;

use super::letter::Letter;
use super::select::{Position, shown};

/// Most sums that are kept apart.
const GROUPS_MAX: usize = 10_000;
/// Longest text of an entry.
const TEXT_BYTES_MAX: usize = 200;
/// Widest column of a detail on the screen.
const DETAIL_CHARS_MAX: usize = 80;

/// One of the newest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct Entry {
    /// Ms since 1970, by Kafka.
    time: i64,
    #[serde(serialize_with = "as_text")]
    position: Position,
    stage: String,
    reason: String,
    edge: String,
    device: Option<String>,
    detail: String,
    retried: bool,
}

fn as_text<S: serde::Serializer>(position: &Position, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(position)
}

/// A sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sum {
    count: u64,
    first: i64,
    last: i64,
}

impl Sum {
    fn add(&mut self, time: i64) {
        self.count += 1;
        self.first = self.first.min(time);
        self.last = self.last.max(time);
    }
}

/// What has been seen.
pub(super) struct Summary {
    limit: usize,
    total: u64,
    /// Records that are no dead letters.
    unreadable: u64,
    /// Beyond [`GROUPS_MAX`].
    others: u64,
    sums: BTreeMap<[String; 3], Sum>,
    newest: BinaryHeap<Reverse<Entry>>,
}

impl Summary {
    /// With the newest `limit`.
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, total: 0, unreadable: 0, others: 0, sums: BTreeMap::new(), newest: BinaryHeap::new() }
    }

    /// Counts one.
    pub(super) fn add(
        &mut self,
        position: Position,
        time: i64,
        key: Option<&[u8]>,
        letter: &Letter<'_>,
        retried: bool,
    ) {
        self.total += 1;
        let edge = &*letter.weir.edge;
        let group = [cut(&letter.stage), cut(&letter.reason), cut(edge)];
        let room = self.sums.len() < GROUPS_MAX;
        match self.sums.get_mut(&group) {
            Some(sum) => sum.add(time),
            None if room => drop(self.sums.insert(group, Sum { count: 1, first: time, last: time })),
            None => self.others += 1,
        }
        let full = self.newest.len() >= self.limit;
        let oldest = self.newest.peek().map(|Reverse(entry)| (entry.time, entry.position));
        if full && oldest.is_none_or(|oldest| oldest >= (time, position)) {
            return;
        }
        if full {
            self.newest.pop();
        }
        self.newest.push(Reverse(Entry {
            time,
            position,
            stage: cut(&letter.stage),
            reason: cut(&letter.reason),
            edge: cut(edge),
            device: letter.device(key).map(cut),
            detail: cut(&letter.detail),
            retried,
        }));
    }

    /// Counts a record that is no dead letter.
    pub(super) fn unreadable(&mut self) {
        self.unreadable += 1;
    }

    /// As one JSON object.
    pub(super) fn json(self) -> String {
        let groups: Vec<_> = self
            .sums
            .iter()
            .map(|([stage, reason, edge], sum)| {
                serde_json::json!({
                    "stage": stage, "reason": reason, "edge": edge,
                    "count": sum.count, "first": sum.first, "last": sum.last,
                })
            })
            .collect();
        let (total, unreadable, others) = (self.total, self.unreadable, self.others);
        let newest = self.newest();
        serde_json::json!({
            "count": total, "unreadable": unreadable, "other_groups": others, "groups": groups, "newest": newest,
        })
        .to_string()
    }

    /// For people; ends with a line break.
    pub(super) fn text(self) -> String {
        let mut out = format!("{} dead letters\n", self.total);
        if self.unreadable > 0 {
            out += &format!("{} records that are no dead letters\n", self.unreadable);
        }
        let mut sums: Vec<_> = self.sums.iter().collect();
        sums.sort_by_key(|(_, sum)| Reverse(sum.count));
        let rows = sums.into_iter().map(|([stage, reason, edge], sum)| {
            vec![
                sum.count.to_string(),
                stage.clone(),
                reason.clone(),
                edge.clone(),
                shown(sum.first),
                shown(sum.last),
            ]
        });
        table(&mut out, &["count", "stage", "reason", "edge", "first", "last"], rows.collect());
        if self.others > 0 {
            out += &format!("{} in more than {GROUPS_MAX} groups\n", self.others);
        }
        let newest = self.newest();
        let rows = newest.into_iter().map(|e| {
            let detail: String = e.detail.chars().take(DETAIL_CHARS_MAX).collect();
            let device = e.device.unwrap_or_default();
            let retried = if e.retried { "retried" } else { "" };
            vec![
                e.position.to_string(),
                shown(e.time),
                e.stage,
                e.reason,
                e.edge,
                device,
                retried.to_owned(),
                detail,
            ]
        });
        let columns = ["position", "time", "stage", "reason", "edge", "device", "", "detail"];
        table(&mut out, &columns, rows.collect());
        out
    }

    /// The newest first.
    fn newest(self) -> Vec<Entry> {
        self.newest.into_sorted_vec().into_iter().map(|Reverse(entry)| entry).collect()
    }
}

/// Columns as wide as their widest cell; nothing when there is no row.
fn table(out: &mut String, columns: &[&str], rows: Vec<Vec<String>>) {
    if rows.is_empty() {
        return;
    }
    let head = columns.iter().map(|c| (*c).to_owned()).collect();
    let rows: Vec<Vec<String>> = std::iter::once(head).chain(rows).collect();
    let width = |n: usize| rows.iter().map(|row| printable(&row[n]).chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    out.push('\n');
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths).filter(|(_, width)| **width > 0) {
            write!(line, "{:<width$}  ", printable(cell)).expect("writing into a string");
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
}

/// Without what would move the cursor: the texts are of others.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '·' } else { c }).collect()
}

fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(TEXT_BYTES_MAX)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(summary: &mut Summary, offset: i64, time: i64, reason: &str) {
        let json = serde_json::json!({
            "weir": {"edge": "gw", "topic": "weir.readings"}, "stage": "process", "reason": reason,
            "detail": "line 1\u{1b}[2J", "received": 1, "raw": "",
        })
        .to_string();
        let letter = Letter::read(json.as_bytes()).unwrap();
        summary.add(Position { partition: 0, offset }, time, Some(b"pump"), &letter, offset == 7);
    }

    #[test]
    fn the_newest_are_kept_and_all_are_counted() {
        let mut summary = Summary::new(3);
        for (offset, time) in [(0, 50), (1, 10), (2, 90), (3, 70), (4, 20), (7, 80)] {
            add(&mut summary, offset, time, if offset == 1 { "empty" } else { "not_json" });
        }
        summary.unreadable();
        let value: serde_json::Value = serde_json::from_str(&summary.json()).unwrap();
        assert_eq!((&value["count"], &value["unreadable"]), (&6.into(), &1.into()));
        let newest: Vec<_> = value["newest"].as_array().unwrap().iter().map(|e| &e["position"]).collect();
        assert_eq!(newest, ["0:2", "0:7", "0:3"]);
        assert_eq!(
            (&value["newest"][1]["retried"], &value["newest"][1]["device"]),
            (&true.into(), &"pump".into())
        );
        let group = &value["groups"][1];
        assert_eq!((&group["count"], &group["first"], &group["last"]), (&5.into(), &20.into(), &90.into()));
    }

    #[test]
    fn text_is_a_table_without_control_characters() {
        let mut summary = Summary::new(1);
        add(&mut summary, 0, 1_500, "not_json");
        let text = summary.text();
        assert!(text.starts_with("1 dead letters\n\ncount  stage    reason"), "{text}");
        assert!(
            text.contains(
                "0:0       1970-01-01T00:00:01.500Z  process  not_json  gw    pump    line 1·[2J\n"
            ),
            "{text}"
        );
        assert_eq!(Summary::new(0).text(), "0 dead letters\n");
    }

    #[test]
    fn groups_are_bounded_and_still_counted() {
        let mut summary = Summary::new(0);
        for n in 0..GROUPS_MAX + 5 {
            add(&mut summary, 0, 1, &format!("reason-{n}"));
        }
        assert_eq!(
            (summary.sums.len(), summary.others, summary.total),
            (GROUPS_MAX, 5, GROUPS_MAX as u64 + 5)
        );
        assert!(summary.newest.is_empty());
    }
}
