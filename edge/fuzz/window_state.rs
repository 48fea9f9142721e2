//! What the target `window_state` does; the test of its corpus does the same.
//!
//! Comes in: any bytes. Checks: no panic; what is taken for an engine's state can be written down, read again and worked
//! with.

use weir_shared::reading::Reading;
use weir_shared::window::{Aggregate, Engine, Filter, Kind, Limits, Outputs, Rule, Span};

const LIMITS: Limits =
    Limits { keys_max: 100, windows_per_key_max: 100, devices_per_key_max: 100, keep_ms: 86_400_000 };
const START_MS: i64 = 1_790_000_000_000;

/// Entries of an engine, each as: length of the key (2 bytes, little-endian), length of the value, key, value.
pub(super) fn window_state(bytes: &[u8]) {
    let Some(entries) = entries(bytes) else { return };
    let Ok(mut engine) = Engine::restore(rules(), LIMITS, &all, entries) else { return };
    let written = engine.snapshot();
    let again = Engine::restore(rules(), LIMITS, &all, written.clone());
    assert_eq!(again.expect("an engine's own entries").snapshot(), written);
    let mut outputs = Outputs::default();
    for n in 0..4 {
        let time = START_MS + n * 30_000;
        let text =
            format!(r#"{{"device":"a","time":{time},"values":{{"t":{n}.5,"s":"x"}},"tags":{{"line":"1"}}}}"#);
        let mut reading = Reading::default();
        reading.parse(text.as_bytes()).expect("a reading");
        engine.reading(&reading, time, &mut outputs);
    }
    engine.tick(START_MS + 86_400_000, &mut outputs);
    let last = engine.deadline();
    engine.tick(last.unwrap_or(i64::MAX), &mut outputs);
}

fn entries(mut bytes: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let mut entries = Vec::new();
    while !bytes.is_empty() {
        let (lengths, rest) = bytes.split_first_chunk::<4>()?;
        let length = |at| usize::from(u16::from_le_bytes([lengths[at], lengths[at + 1]]));
        let (key, rest) = rest.split_at_checked(length(0))?;
        let (value, rest) = rest.split_at_checked(length(2))?;
        entries.push((key, value));
        bytes = rest;
    }
    Some(entries)
}

/// One of each kind.
fn rules() -> Vec<Rule> {
    let minute = Span::Ms(60_000);
    let plain = vec![Aggregate::Count, Aggregate::Mean, Aggregate::Stddev, Aggregate::Rate];
    let sketches =
        vec![Aggregate::Percentile(99_000), Aggregate::Distinct, Aggregate::First, Aggregate::Last];
    let line = vec!["line".to_owned()];
    let one = vec!["t".to_owned()];
    vec![
        Rule {
            aggregates: plain.clone(),
            lateness_ms: 60_000,
            ..Rule::new("tumbling", Kind::Tumbling { size: minute })
        },
        Rule {
            aggregates: sketches.clone(),
            key: line.clone(),
            zone: Some("Europe/Vienna".to_owned()),
            ..Rule::new("sliding", Kind::Sliding { size: minute, slide: Span::Ms(10_000) })
        },
        Rule {
            aggregates: plain,
            fields: one,
            ..Rule::new("session", Kind::Session { gap_ms: 30_000, length_ms_max: 600_000 })
        },
        Rule { aggregates: sketches, key: line, ..Rule::new("count", Kind::Count { n: 10 }) },
        Rule::new("sliding-count", Kind::SlidingCount { n: 10, slide: 2 }),
    ]
}

fn all(_: &str) -> Filter {
    Box::new(|_| true)
}
