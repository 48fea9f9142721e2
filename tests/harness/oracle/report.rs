//! The oracle's table and figures.
//!
//! Comes in: a [`Verdict`]. Goes out: text for people, JSON for programs. Pure.

use std::fmt::{self, Display, Formatter};

use serde_json::{Map, Value, json};

use super::{Store, Verdict};

impl Display for Verdict {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        writeln!(
            out,
            "{:<14} {:>9} {:>9} {:>6} {:>8} {:>8} {:>11}   dead letters: {:>5} {:>5} {:>5} {:>8} {:>8} {:>11}",
            "store",
            "acked",
            "found",
            "lost",
            "doubled",
            "altered",
            "unexpected",
            "acked",
            "found",
            "lost",
            "doubled",
            "altered",
            "unexpected"
        )?;
        for (store, j) in &self.judgements {
            let l = &j.letters;
            writeln!(
                out,
                "{:<14} {:>9} {:>9} {:>6} {:>8} {:>8} {:>11}   {:<13} {:>5} {:>5} {:>5} {:>8} {:>8} {:>11}",
                store.name(),
                j.acked,
                j.found,
                j.lost,
                j.doubled,
                j.altered,
                j.unexpected,
                if j.is_right() { "right" } else { "WRONG" },
                l.acked,
                l.found,
                l.lost,
                l.doubled,
                l.altered,
                l.unexpected
            )?;
        }
        for (store, j) in &self.judgements {
            j.examples.iter().try_for_each(|example| writeln!(out, "  {}: {example}", store.name()))?;
        }
        Ok(())
    }
}

impl Verdict {
    /// The figures, by store.
    #[must_use]
    pub fn figures(&self) -> Map<String, Value> {
        self.judgements.iter().map(|(store, j)| (Store::name(*store).to_owned(), json!(j))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Judgement;
    use super::*;

    #[test]
    fn a_wrong_store_is_seen_in_table_and_figures() {
        let wrong = Judgement { lost: 1, examples: vec!["lost: r1-3".to_owned()], ..Judgement::default() };
        let verdict =
            Verdict { judgements: vec![(Store::Kafka, Judgement::default()), (Store::Mysql, wrong)] };
        let table = verdict.to_string();
        assert!(table.contains("WRONG") && table.contains("mysql: lost: r1-3"), "{table}");
        assert_eq!(verdict.figures()["mysql"]["lost"], 1);
        assert_eq!(verdict.figures()["kafka"]["letters"]["lost"], 0);
        assert!(!verdict.is_right());
    }
}
