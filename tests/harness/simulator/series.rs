//! The real series that the simulated devices replay.
//!
//! Comes in: two files of the PyPI wheel `river` 0.26.1: NASA's shuttle (`shuttle.csv.gz`: `f1,…,f9,anomaly`, 49,097
//! rows) and a water meter (`water-flow.csv`: `Time,Water flow [l/s]`, 1,268 rows). Goes out: the rows, typed.
//! Guarantees: a number that is an integer in the file stays one. Looping is the reader's affair: row numbers wrap.
//! On failure: an error that names file and line.

use std::io::Read;
use std::path::Path;

use anyhow::{Context, bail, ensure};

/// How many values a row of the shuttle has.
pub const SHUTTLE_VALUES: usize = 9;

/// Both series, in memory.
#[derive(Debug)]
pub struct Series {
    shuttle: Vec<[i64; SHUTTLE_VALUES]>,
    water: Vec<WaterRow>,
}

/// One hour of the water meter.
#[derive(Clone, Debug, PartialEq)]
pub struct WaterRow {
    /// The time as the file has it, RFC 3339.
    pub time: String,
    /// Litres per second.
    pub flow: f64,
}

impl Series {
    /// Reads both files from the folder `data`.
    ///
    /// # Errors
    /// When a file is missing or is not what the wheel holds.
    pub fn read(data: &Path) -> anyhow::Result<Self> {
        let (shuttle, water) = (data.join("shuttle.csv.gz"), data.join("water-flow.csv"));
        let packed = std::fs::read(&shuttle).with_context(|| shuttle.display().to_string())?;
        let mut text = String::new();
        flate2::read::GzDecoder::new(packed.as_slice())
            .read_to_string(&mut text)
            .with_context(|| shuttle.display().to_string())?;
        let water_text = std::fs::read_to_string(&water).with_context(|| water.display().to_string())?;
        Ok(Self {
            shuttle: parse_shuttle(&text).with_context(|| shuttle.display().to_string())?,
            water: parse_water(&water_text).with_context(|| water.display().to_string())?,
        })
    }

    /// Row `n` of the shuttle, wrapping, with its number in the file (from 1).
    #[must_use]
    pub fn shuttle(&self, n: u64) -> (usize, &[i64; SHUTTLE_VALUES]) {
        let row = wrap(n, self.shuttle.len());
        (row + 1, &self.shuttle[row])
    }

    /// Row `n` of the water meter, wrapping.
    #[must_use]
    pub fn water(&self, n: u64) -> &WaterRow {
        &self.water[wrap(n, self.water.len())]
    }
}

fn wrap(n: u64, len: usize) -> usize {
    usize::try_from(n % len as u64).expect("a remainder below a length")
}

fn parse_shuttle(text: &str) -> anyhow::Result<Vec<[i64; SHUTTLE_VALUES]>> {
    let mut rows = Vec::new();
    for (line, content) in text.lines().enumerate().skip(1) {
        let mut row = [0; SHUTTLE_VALUES];
        let mut fields = content.split(',');
        for value in &mut row {
            let field = fields.next().with_context(|| format!("line {}: too few fields", line + 1))?;
            *value = field.parse().with_context(|| format!("line {}: {field:?}", line + 1))?;
        }
        rows.push(row);
    }
    ensure!(!rows.is_empty(), "no rows");
    Ok(rows)
}

fn parse_water(text: &str) -> anyhow::Result<Vec<WaterRow>> {
    let mut rows = Vec::new();
    for (line, content) in text.lines().enumerate().skip(1) {
        let Some((time, flow)) = content.split_once(',') else { bail!("line {}: no comma", line + 1) };
        let flow = flow.parse().with_context(|| format!("line {}: {flow:?}", line + 1))?;
        rows.push(WaterRow { time: time.to_owned(), flow });
    }
    ensure!(!rows.is_empty(), "no rows");
    Ok(rows)
}

#[cfg(test)]
impl Series {
    /// Two rows of each, for tests without the files.
    pub(crate) fn sample() -> Self {
        Self {
            shuttle: parse_shuttle("h\n50,21,77,0,28,0,27,48,22,1\n53,0,82,0,52,-5,29,30,2,0\n").unwrap(),
            water: parse_water("h\n2022-03-20T11:00:00+01:00,100.59\n2022-03-20T12:00:00+01:00,100.89\n")
                .unwrap(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_wrap_and_keep_their_numbers() {
        let series = Series::sample();
        assert_eq!(series.shuttle(3), (2, &[53, 0, 82, 0, 52, -5, 29, 30, 2]));
        assert_eq!(series.water(2).flow.to_bits(), 100.59f64.to_bits());
        assert_eq!(series.water(1).time, "2022-03-20T12:00:00+01:00");
    }

    #[test]
    fn a_damaged_file_names_its_line() {
        assert!(parse_shuttle("h\n1,2\n").unwrap_err().to_string().contains("line 2"));
        assert!(parse_water("h\na,b\n").unwrap_err().to_string().contains("line 2"));
        assert!(parse_water("h\n").is_err());
    }
}
