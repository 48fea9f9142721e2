//! `weir-edge replay`: the windows over a whole journal, computed again.
//!
//! Comes in: the journals of a stopped edge (or copies). Goes out: one line per result: topic, key, value. Guarantees:
//! the same bytes as the edge gave, where the journal still holds everything from its beginning (`retain_bytes`).
//! On failure: the journal's errors; damage is stepped over, and marked in the results.

use std::io::Write;

use anyhow::Result;
use weir_shared::timeline::Mending;

use crate::clocks::Clocks;
use crate::config::Config;
use crate::journal::reader::{Step, Why};
use crate::journal::{Reader, Segments, recover};
use crate::windows::driver::{Done, Driver};

/// Writes the results of all flows.
///
/// # Errors
/// A journal that cannot be read, or an output that takes no more.
pub(crate) fn run(config: &Config, out: &mut impl Write) -> Result<()> {
    for flow in &config.flows {
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
