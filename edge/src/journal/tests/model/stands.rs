//! What stands in the journal, and what must hold of it.

use std::collections::{BTreeMap, BTreeSet};

use super::super::*;
use super::{Life, Line};
use crate::journal::writer::GivenUp;

/// A record that stands, as the model knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stands {
    pub(super) value: String,
    pub(super) line: Line,
    pub(super) number: u64,
    pub(super) position: u64,
}

impl Life {
    /// What came to stand since the last look is exactly one of these.
    pub(super) fn stood(&mut self, one_of: &[Vec<String>]) {
        let found = self.read();
        let known = self.stands.last().map(|s| s.value.clone());
        let from = known.and_then(|v| found.iter().position(|s| s.value == v)).map_or_else(
            || {
                found
                    .iter()
                    .position(|f| !self.stands.iter().any(|s| s.value == f.value))
                    .unwrap_or(found.len())
            },
            |at| at + 1,
        );
        let (old, new) = found.split_at(from);
        let mut at = 0;
        for s in &self.stands {
            if old.get(at).is_some_and(|o| o == s) {
                at += 1;
            } else {
                assert!(self.may_be_gone.contains(&s.value), "lost or altered: {s:?}");
            }
        }
        assert_eq!(at, old.len(), "twice, or never committed");
        let values: Vec<_> = new.iter().map(|s| s.value.clone()).collect();
        assert!(one_of.contains(&values), "{values:?} none of {one_of:?}");
        for s in new {
            let next = self.next.entry(s.line).or_default();
            assert_eq!(s.number, *next, "{s:?}");
            *next += 1;
        }
        self.stands.extend_from_slice(new);
        // What failed may still stand while nothing was written over it.
        self.tried.retain(|(position, _)| *position >= self.writer.position());
        let cursor = self.writer.controls().cursor.position;
        assert!(cursor >= self.cursor, "the cursor went back");
        self.cursor = cursor;
    }

    fn read(&self) -> Vec<Stands> {
        let mut reader = Reader::new(self.segments.clone(), self.writer.oldest());
        let mut found = Vec::new();
        while let Some(step) = reader.next(self.writer.position()).unwrap() {
            let batch = match step {
                Step::Batch(batch) => batch,
                // Acknowledged but perhaps sent again, so its segment stayed, and a later one was given up.
                Step::Skipped { to, .. } if to <= self.writer.controls().cursor.position => continue,
                Step::Skipped { .. } => panic!("{step:?}"),
            };
            for record in batch.frames().flat_map(|frame| frame.records()) {
                if let Record::Sent { place, value, .. } = record {
                    let line = (batch.stream, place.kind, place.partition);
                    let value = String::from_utf8(value.to_vec()).unwrap();
                    found.push(Stands { value, line, number: place.number, position: batch.position });
                }
            }
        }
        found
    }

    /// Whatever stood and is not proven is known, by what a redelivery is recognised by.
    pub(super) fn recognised(&self, recovered: &Recovered) {
        let known: BTreeSet<_> = recovered.messages.iter().map(|m| (m.session, m.packet, m.digest)).collect();
        for s in self.stands.iter().filter(|s| s.position >= recovered.controls.proven) {
            if let Some(&packet) = self.packets.get(&s.value) {
                assert!(known.contains(&(7, packet, packet.into())), "would come twice: {s:?}");
            }
        }
    }
}

/// The plan names exactly these.
pub(super) fn same(plan: &GivenUp, goes: &[Stands]) {
    let mut lines: BTreeMap<Line, Vec<u64>> = BTreeMap::new();
    for s in goes {
        lines.entry(s.line).or_default().push(s.number);
        let (stream, kind, partition) = s.line;
        assert!(plan.holds(stream, &Place { kind, partition, number: s.number }));
    }
    let planned: Vec<_> =
        plan.ranges.iter().map(|r| ((r.stream, r.kind, r.partition), r.from, r.to, r.count)).collect();
    let wanted: Vec<_> =
        lines.into_iter().map(|(line, n)| (line, n[0], n[n.len() - 1], n.len() as u64)).collect();
    assert_eq!(planned, wanted);
}
