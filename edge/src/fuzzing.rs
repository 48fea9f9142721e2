//! What the fuzz targets and the corpus tests call: entry points that take any bytes.
//!
//! Guarantees: no panic, memory bounded by the input.

use std::sync::LazyLock;

use weir_shared::clock::Now;

use crate::config;
use crate::decode::{Decoded, Decoder, Input};
use crate::journal;
use crate::sources::Origin;
use crate::sources::file::Mark;

/// One decoder for each format, with rules.
const CONFIG: &str = r#"
name = "fuzz"
[decode]
message_bytes_max = 65536
[[clean]]
when = "has(values.t)"
filter = "values.t < 1000.0"
types = ["t=number"]
set = ["f=(values.t - 32.0) / 1.8"]
ranges = ["t=-50..200 clamp"]
rename = ["x=y"]
[[file]]
path = "/fuzz/*.csv"
time_zone = "Europe/Vienna"
[[file]]
path = "/fuzz/*.jsonl"
format = "json_lines"
values_field = "values"
"#;

/// Any bytes as a message of MQTT, a CSV file and a file of JSON lines.
///
/// # Panics
/// When a message gives nothing, or a reading that the windows stage could not read.
pub fn decode(bytes: &[u8]) {
    static DECODER: LazyLock<Decoder> = LazyLock::new(|| match config::check("fuzz", CONFIG) {
        Ok(config) => config.decoder,
        Err(problems) => panic!("{problems}"),
    });
    let mark = Mark { file: 1, offset: 0, row: 0 };
    let file = |format| Origin::File { format, first_row: 1, mark };
    for origin in [Origin::Mqtt, file(0), file(1)] {
        let now = Now { wall_ms: 1_790_000_000_000, mono_ns: 1, trusted: true };
        let mut count = 0;
        DECODER.decode(&Input { topic: "fuzz/a", payload: bytes, arrived: now, origin }, |decoded| {
            count += 1;
            if let Decoded::Reading(reading) = decoded {
                let mut parsed = weir_shared::reading::Reading::default();
                if let Err(why) = parsed.parse(&reading.value) {
                    panic!("{why}: {}", String::from_utf8_lossy(&reading.value));
                }
            }
        });
        assert!(count > 0, "a message became nothing");
    }
}

/// Any bytes as a segment of the journal.
pub fn journal(bytes: &[u8]) {
    journal::fuzz(bytes);
}
