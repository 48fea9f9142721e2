//! The metrics of one section of the file source, by its path.

use metrics::{Counter, Gauge, counter, gauge};

pub(super) struct Measures {
    pub(super) bytes: Counter,
    pub(super) rows: Counter,
    pub(super) errors: Counter,
    pub(super) finished: Counter,
    pub(super) truncated: Counter,
    /// Files left to another section.
    pub(super) overlaps: Counter,
    files: Gauge,
    behind: Gauge,
}

impl Measures {
    pub(super) fn new(path: &str) -> Self {
        let path = path.to_owned();
        let measures = Self {
            bytes: counter!("weir_edge_file_bytes_total", "path" => path.clone()),
            rows: counter!("weir_edge_file_rows_total", "path" => path.clone()),
            errors: counter!("weir_edge_file_errors_total", "path" => path.clone()),
            finished: counter!("weir_edge_file_finished_total", "path" => path.clone()),
            truncated: counter!("weir_edge_file_truncated_total", "path" => path.clone()),
            overlaps: counter!("weir_edge_file_overlaps_total", "path" => path.clone()),
            files: gauge!("weir_edge_file_files", "path" => path.clone()),
            behind: gauge!("weir_edge_file_behind_bytes", "path" => path),
        };
        let Self { bytes, rows, errors, finished, truncated, overlaps, .. } = &measures;
        for zero in [bytes, rows, errors, finished, truncated, overlaps] {
            zero.increment(0);
        }
        measures
    }

    /// How many files there are, and how much of them is not read yet.
    pub(super) fn standing(&self, files: usize, behind_bytes: u64) {
        self.files.set(files as f64);
        self.behind.set(behind_bytes as f64);
    }
}
