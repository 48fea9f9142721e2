//! The `[[file]]` tables: which files, and what their lines hold.
//!
//! Comes in: the root section. Goes out: for each table the source's part and the decoder's, at the same index, or
//! problems with their places. Pure.

use weir_shared::config::Section;

use super::folder::Pattern;
use super::{FileConfig, Mode};
use crate::decode::csv::Columns;
use crate::decode::json::Mapping;
use crate::decode::times::Times;
use crate::decode::{Form, Format};

/// Every key of one table with its default.
const ITEM: &str = "path = ''\nformat = 'csv'\nmode = 'whole'\ndevice = ''\ndevice_field = 'device'\n\
     time_field = 'time'\ntime_unit = 'ms'\ntime_zone = 'UTC'\nvalue_fields = []\ntag_fields = []\n\
     columns = []\ndelimiter = ','\nvalues_field = ''\ntags_field = ''\ntime_past_max_s = 0\n\
     time_future_max_s = 0\ntime_out_of_range = 'reject'\n";

/// Takes the `[[file]]` tables; a line is bounded as a message is.
pub(crate) fn read(root: &Section<'_>, line_bytes_max: usize) -> Vec<(FileConfig, Form)> {
    let mut patterns: Vec<Pattern> = Vec::new();
    let files = root.each("file", ITEM, |s| {
        let text = s.required("path", "an absolute path; its last part may hold * and ?");
        let pattern = Pattern::new(&text);
        match &pattern {
            None if !text.is_empty() => {
                s.problem("path", "must be absolute, with * and ? in its last part only");
            }
            Some(pattern) if patterns.contains(pattern) => {
                s.problem("path", "stands in another [[file]] too");
            }
            Some(pattern) => {
                let overlaps = |other: &&Pattern| other.covers(pattern) || pattern.covers(other);
                if let Some(other) = patterns.iter().find(overlaps) {
                    let other = other.shown();
                    s.problem("path", &format!("its files would be read twice: {other} is another [[file]]"));
                }
            }
            None => {}
        }
        patterns.extend(pattern.clone());
        let mode = [Mode::Whole, Mode::Tail][s.choice("mode", &["whole", "tail"])];
        let format = match s.choice("format", &["csv", "json_lines"]) {
            0 => Format::Csv(Columns { device_name: s.string("device"), ..Columns::read(s) }),
            _ => Format::JsonLines(Mapping { device_name: s.string("device"), ..Mapping::read(s) }),
        };
        let header = matches!(&format, Format::Csv(columns) if columns.names.is_empty());
        if s.string("device").is_empty() && s.string("device_field").is_empty() {
            s.problem("device", "or device_field must say whose readings they are");
        }
        let form = Form { format, times: Times::read(s) };
        pattern.map(|pattern| (FileConfig { pattern, mode, header, line_bytes_max }, form))
    });
    files.into_iter().flatten().collect()
}
