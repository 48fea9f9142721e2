//! The `[[dimension]]` tables of the configuration.
//!
//! Comes in: the root section. Goes out: a checked [`DimensionConfig`] each; the reference describes every key.
//! Guarantees: pure. On failure: problems with their places.

use std::time::Duration;

use weir_shared::config::Section;

use crate::database::{self, Server};

/// Every key of one `[[dimension]]` with its default.
const ITEM: &str = "name = ''\nurl = ''\ntable = ''\nkey = 'device'\non = 'device'\ncolumns = []\n\
    mode = 'binlog'\npoll_ms = 1000\nmissing = 'emit'\nrows_max = 2000000\nbytes_max = 1073741824\n\
    [tls]\nenabled = false\nca_file = ''\ncertificate_file = ''\nkey_file = ''\n";
/// Columns of a composite key.
const KEY_COLUMNS_MAX: usize = 8;

/// One `[[dimension]]`.
#[derive(Clone, Debug)]
pub(crate) struct DimensionConfig {
    /// Name under `dims`.
    pub(crate) name: String,
    /// Server, user and database.
    pub(crate) server: Server,
    /// Database of the table.
    pub(crate) database: String,
    /// Its name there.
    pub(crate) table: String,
    /// Columns that are unique together.
    pub(crate) key: Vec<String>,
    /// What of a reading is compared with them, in the same order.
    pub(crate) on: Vec<Part>,
    /// Columns to add; empty: all but the key.
    pub(crate) columns: Vec<String>,
    /// How changes are seen.
    pub(crate) mode: Mode,
    /// What becomes of a reading whose row is missing.
    pub(crate) missing: Missing,
    /// More rows than this are refused.
    pub(crate) rows_max: usize,
    /// More bytes of keys and JSON than this are refused.
    pub(crate) bytes_max: usize,
}

/// A part of a reading that is compared with a key column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// The device.
    Device,
    /// The tag with this name.
    Tag(String),
    /// The value with this name.
    Value(String),
}

/// How changes of a table are seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Row events of the server's binlog.
    Binlog,
    /// Loaded again and again.
    Poll(Duration),
}

/// What becomes of a reading whose row is missing; the strictest last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Missing {
    /// It goes on, unjoined and marked.
    Emit,
    /// It waits, and with it all later ones of its device.
    Hold,
}

impl DimensionConfig {
    /// Reads all `[[dimension]]` of the root section.
    pub(crate) fn read_all(root: &Section<'_>) -> Vec<Self> {
        let mut names = Vec::new();
        root.each("dimension", ITEM, |item| {
            let name = name(item, &mut names);
            let server = Server::read(item, &item.required("url", database::FORM)).unwrap_or_default();
            let (database, table) = table(item, server.database());
            let (key, on) = (item.one_or_more("key"), item.one_or_more("on"));
            if key.is_empty() || key.len() > KEY_COLUMNS_MAX || key.iter().any(String::is_empty) {
                item.problem("key", &format!("must name 1 to {KEY_COLUMNS_MAX} columns"));
            }
            if key.len() != on.len() {
                item.problem("on", "must have one part of the reading for each column of key");
            }
            let poll = item.millis("poll_ms", 100..=86_400_000);
            let size =
                |key: &str, max: u64| usize::try_from(item.integer(key, 1..=max)).unwrap_or(usize::MAX);
            Self {
                name,
                server,
                database,
                table,
                key,
                on: on.iter().map(|text| part(item, text)).collect(),
                columns: item.strings("columns"),
                mode: if item.choice("mode", &["binlog", "poll"]) == 0 {
                    Mode::Binlog
                } else {
                    Mode::Poll(poll)
                },
                missing: missing(item),
                rows_max: size("rows_max", 100_000_000),
                bytes_max: size("bytes_max", 1 << 40),
            }
        })
    }

    /// The table as statements name it.
    pub(crate) fn quoted(&self) -> String {
        format!("{}.{}", quote(&self.database), quote(&self.table))
    }
}

/// A name in backticks.
pub(crate) fn quote(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

fn name(item: &Section<'_>, names: &mut Vec<String>) -> String {
    let name = item.required("name", "the name under \"dims\"");
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !name.chars().all(fits) || name.len() > 60 {
        item.problem("name", "must be at most 60 letters, digits, _ and -");
    }
    if !name.is_empty() && names.contains(&name) {
        item.problem("name", &format!("{name:?} is there twice"));
    }
    names.push(name.clone());
    name
}

fn table(item: &Section<'_>, database: Option<&str>) -> (String, String) {
    let table = item.required("table", "the table, or database.table");
    let mut parts = table.split('.');
    match (parts.next(), parts.next(), parts.next(), database) {
        (Some(table), None, None, Some(database)) => (database.to_owned(), table.to_owned()),
        (Some(database), Some(table), None, _) => (database.to_owned(), table.to_owned()),
        _ => {
            item.problem("table", "must be database.table, or a table of the database that the url names");
            (String::new(), String::new())
        }
    }
}

fn missing(item: &Section<'_>) -> Missing {
    match item.choice("missing", &["emit", "hold", "correct"]) {
        0 => Missing::Emit,
        1 => Missing::Hold,
        _ => {
            let why = "\"correct\" would send a reading once more when its row has come, but readings are append-only: \
                MySQL and ClickHouse would keep it twice; use \"hold\" (it waits for its row) or \"emit\"";
            item.problem("missing", why);
            Missing::Emit
        }
    }
}

fn part(item: &Section<'_>, text: &str) -> Part {
    match text.split_once('.') {
        Some(("tags", name)) if !name.is_empty() => Part::Tag(name.to_owned()),
        Some(("values", name)) if !name.is_empty() => Part::Value(name.to_owned()),
        None if text == "device" => Part::Device,
        _ => {
            item.problem("on", &format!("{text:?} must be device, tags.<name> or values.<name>"));
            Part::Device
        }
    }
}
