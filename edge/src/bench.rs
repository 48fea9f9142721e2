//! `weir-edge bench-decode`: decoding and windows alone, on one core, without disk and network.
//!
//! Comes in: 150-byte JSON messages of a thousand devices, made beforehand. Goes out: readings per second through the
//! decoder, the parser of the windows stage and a 10 s window per device, as JSON. Guarantees: every reading is counted
//! in a window, or the figure says so.

use std::time::Duration;

use weir_shared::clock::{self, Now};
use weir_shared::reading::Reading;
use weir_shared::window::{Aggregate, Engine, Filter, Kind, Limits, Output, Outputs, Rule, Span};

use crate::config;
use crate::decode::{Decoded, Input};
use crate::sources::Origin;

const DEVICES: u64 = 1000;
const MESSAGES: u64 = 100_000;
const START_MS: i64 = 1_790_000_000_000;

/// Runs for so long and gives the figures.
pub(crate) fn decode_and_window(seconds: u64) -> String {
    let decoder = match config::check("bench", "name = 'bench'") {
        Ok(config) => config.decoder,
        Err(problems) => return problems.to_string(),
    };
    let messages: Vec<_> = (0..MESSAGES).map(message).collect();
    let Ok(mut engine) = engine() else { return "the rule is wrong\n".to_owned() };
    let mut spare = Reading::default();
    let mut outputs = Outputs::default();
    let (mut readings, mut results) = (0_u64, 0_usize);
    let (mut decoding, started) = (Duration::ZERO, clock::instant());
    let mut decoded = Vec::with_capacity(1000);
    while clock::since(started) < Duration::from_secs(seconds) {
        for chunk in messages.chunks(1000) {
            let begun = clock::instant();
            for payload in chunk {
                let now = Now { wall_ms: START_MS, mono_ns: 0, trusted: false };
                let input = Input { topic: "sensors/a", payload, arrived: now, origin: Origin::Mqtt };
                decoder.decode(&input, |d| decoded.push(d));
            }
            decoding += clock::since(begun);
            for decoded in decoded.drain(..) {
                let Decoded::Reading(reading) = decoded else { continue };
                let mut parsed = spare.recycled();
                if parsed.parse(&reading.value).is_ok() {
                    engine.reading(&parsed, START_MS, &mut outputs);
                    readings += 1;
                }
                spare = parsed.recycled();
            }
            results += outputs.iter().filter(|output| matches!(output, Output::Window { .. })).count();
            outputs.clear();
        }
        let Ok(new) = self::engine() else { break };
        engine = new;
    }
    let all = clock::since(started).as_secs_f64();
    let decode = decoding.as_secs_f64();
    let per_second = |seconds: f64| (readings as f64 / seconds).round();
    format!(
        "{}\n",
        serde_json::json!({
            "readings": readings, "results": results, "seconds": (all * 100.0).round() / 100.0,
            "readings_per_second": per_second(all), "decode_only_per_second": per_second(decode),
            "parse_and_window_only_per_second": per_second(all - decode),
        })
    )
}

fn engine() -> Result<Engine, String> {
    let all = |_: &str| -> Filter { Box::new(|_| true) };
    Engine::new(vec![rule()], Limits::default(), &all)
}

fn rule() -> Rule {
    let aggregates =
        vec![Aggregate::Count, Aggregate::Mean, Aggregate::Min, Aggregate::Max, Aggregate::Stddev];
    Rule { aggregates, ..Rule::new("bench", Kind::Tumbling { size: Span::Ms(10_000) }) }
}

/// As the benchmark of the whole edge sends them: one a second and device.
fn message(n: u64) -> Vec<u8> {
    let (device, at) = (n % DEVICES, START_MS + (n / DEVICES * 1000).cast_signed());
    let speed = 1400 + n % 200;
    let values = format!(r#"{{"t":{}.{},"p":1.0135,"rpm":{speed},"on":true}}"#, 20 + n % 10, n % 97);
    let mut text = format!(r#"{{"device":"pump-{device:04}","ts":{at},"values":{values},"tags":{{"line":""#)
        .into_bytes();
    text.resize(147, b'3');
    text.extend_from_slice(br#""}}"#);
    text
}
