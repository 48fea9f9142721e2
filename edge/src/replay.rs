//! `weir-edge replay`: the windows over a whole journal, computed again.
//!
//! Comes in: the journals of a stopped edge (or copies); beside a running one it is refused, as reading tidies up what a
//! crash left, which a running edge may just be writing. Goes out: one line per result: topic, key, value. Guarantees:
//! the same bytes as the edge gave, where the journal still holds everything from its beginning (`retain_bytes`).
//! On failure: the journal's errors; damage is stepped over, and marked in the results.

use std::io::Write;
use std::time::Duration;

use anyhow::Result;
use weir_shared::timeline::Mending;

use crate::clocks::Clocks;
use crate::config::Config;
use crate::journal::lock::Lock;
use crate::journal::reader::{Step, Why};
use crate::journal::{Reader, Segments, recover};
use crate::windows::driver::{Done, Driver};

/// Writes the results of all flows.
///
/// # Errors
/// A journal that cannot be read, or an output that takes no more.
pub(crate) fn run(config: &Config, out: &mut impl Write) -> Result<()> {
    for flow in &config.flows {
        let _lock = Lock::take(&flow.dir, Duration::ZERO)?;
        let segments = Segments::open(&flow.dir)?;
        let found = recover(&segments)?;
        let clocks = Clocks::default();
        for c in &found.controls.corrections {
            clocks.settle(c.boot, Mending { known: c.known, offset_ms: c.offset_ms });
        }
        let mut driver = Driver::default();
        let mut reader = Reader::new(segments, found.first_position);
        while let Some(step) = reader.next(found.end())? {
            let batch = match step {
                Step::Batch(batch) => batch,
                Step::Skipped { why: Why::GivenUp, .. } => continue,
                Step::Skipped { .. } => {
                    driver.skipped();
                    continue;
                }
            };
            let Done::Made(made) = driver.batch(&batch, &clocks) else { continue };
            for (kind, key, value) in made {
                out.write_all(kind.topic().as_bytes())?;
                out.write_all(b"\t")?;
                out.write_all(&key)?;
                out.write_all(b"\t")?;
                out.write_all(&value)?;
                out.write_all(b"\n")?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beside_a_running_edge_it_is_refused_and_changes_nothing() {
        let dir = std::env::temp_dir().join(format!("weir-replay-{}", std::process::id()));
        let text = format!("name = 'gw'\n[journal]\ndir = '{}'\n", dir.display());
        let config = crate::config::check("e", &text).unwrap();
        let running = Lock::take(&dir, Duration::ZERO).unwrap();
        let unfinished = dir.join("00000000000000000000.new");
        std::fs::write(&unfinished, "being written").unwrap();
        let mut out = Vec::new();
        let shown = run(&config, &mut out).unwrap_err().to_string();
        assert!(shown.contains("another weir-edge works on it") && out.is_empty(), "{shown}");
        assert!(unfinished.exists());
        drop(running);
        run(&config, &mut out).unwrap();
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
