//! All dimension tables as they are in force during one cycle.
//!
//! Comes in: a reading. Goes out: the member `dims`, and the rows found, for rules. Guarantees: never changes; a join
//! is one lookup and one copy for each table, without allocation. Pure.

use std::io::Write as _;
use std::sync::Arc;

use weir_shared::expr::Columns;
use weir_shared::reading::{Reading, Value};

use super::config::{DimensionConfig, Missing, Mode, Part};
use super::measures::Measures;
use super::rows;
use super::table::{Row, Table};

/// What a dimension is, whatever its rows.
#[derive(Debug)]
pub(super) struct Dimension {
    pub(super) name: Box<str>,
    /// `"name":`
    member: Box<[u8]>,
    on: Vec<Part>,
    missing: Missing,
    /// Its versions are times of this process's clock.
    polled: bool,
    pub(super) measures: Measures,
}

impl Dimension {
    /// As configured.
    pub(super) fn new(config: &DimensionConfig) -> Self {
        Self {
            name: config.name.as_str().into(),
            member: format!("\"{}\":", config.name).into_bytes().into(),
            on: config.on.clone(),
            missing: config.missing,
            polled: matches!(config.mode, Mode::Poll(_)),
            measures: Measures::new(&config.name),
        }
    }
}

/// The rows of a dimension at one moment.
#[derive(Clone, Debug)]
pub(super) struct Content {
    pub(super) table: Table,
    /// Columns of each row's JSON, in its order.
    pub(super) columns: Arc<[Box<str>]>,
    /// See [`super`].
    pub(super) version: u64,
}

/// All tables, each as it stood in one moment.
#[derive(Debug)]
pub(in crate::process) struct Snapshot {
    tables: Vec<(Arc<Dimension>, Content)>,
    /// JSON: name → version.
    versions: Vec<u8>,
    numbers: Vec<(Box<str>, u64)>,
}

impl Default for Snapshot {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

impl Snapshot {
    /// Of all dimensions, in the order of the configuration.
    pub(super) fn new(tables: Vec<(Arc<Dimension>, Content)>) -> Self {
        let mut versions = vec![b'{'];
        let mut numbers = Vec::with_capacity(tables.len());
        for (dimension, content) in &tables {
            if versions.len() > 1 {
                versions.push(b',');
            }
            versions.extend_from_slice(&dimension.member);
            versions.extend_from_slice(itoa::Buffer::new().format(content.version).as_bytes());
            if !dimension.polled {
                numbers.push((dimension.name.clone(), content.version));
            }
        }
        versions.push(b'}');
        Self { tables, versions, numbers }
    }

    /// One table joined by device as it stood at a version: rows by key, each a JSON object.
    pub(in crate::process) fn one<'r>(
        name: &str,
        version: u64,
        rows: impl IntoIterator<Item = (&'r str, &'r str)>,
    ) -> Self {
        let mut table = Table::default();
        for (key, row) in rows {
            table.put(Row::new(key.as_bytes(), row.as_bytes()));
        }
        let dimension = Dimension {
            name: name.into(),
            member: format!("\"{name}\":").into_bytes().into(),
            on: vec![Part::Device],
            missing: Missing::Emit,
            polled: false,
            measures: Measures::new(name),
        };
        Self::new(vec![(Arc::new(dimension), Content { table, columns: Arc::default(), version })])
    }

    /// Number of tables.
    pub(in crate::process) fn len(&self) -> usize {
        self.tables.len()
    }

    /// Whether there is none.
    pub(in crate::process) fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    /// JSON object: name → version.
    pub(in crate::process) fn versions(&self) -> &[u8] {
        &self.versions
    }

    /// The same as numbers, of those whose versions say the same to every process: not of those in poll mode, since
    /// another process may have loaded the same rows at an earlier time.
    pub(in crate::process) fn numbers(&self) -> &[(Box<str>, u64)] {
        &self.numbers
    }

    /// Each dimension and the columns of its rows.
    pub(in crate::process) fn schema(&self) -> Vec<(String, Vec<String>)> {
        let columns = |c: &Content| c.columns.iter().map(|name| name.to_string()).collect();
        self.tables.iter().map(|(d, content)| (d.name.to_string(), columns(content))).collect()
    }

    /// Writes the `dims` object of a reading (`{"name":{…},…}`) and notes the rows found; true when every table had one.
    pub(in crate::process) fn join<'s>(
        &'s self,
        reading: &Reading<'_>,
        out: &mut Vec<u8>,
        found: &mut Found<'s>,
    ) -> bool {
        out.clear();
        out.push(b'{');
        found.start(self);
        let mut joined = true;
        for (i, (dimension, content)) in self.tables.iter().enumerate() {
            let key = key(&dimension.on, reading, &mut found.key);
            let (row, has_key) = (key.and_then(|key| content.table.get(key)), key.is_some());
            found.rows.push(row);
            let (hits, misses) = &mut found.looked_up[i];
            if let Some(row) = row {
                *hits += 1;
                if out.len() > 1 {
                    out.push(b',');
                }
                out.extend_from_slice(&dimension.member);
                out.extend_from_slice(row.json());
            } else {
                *misses += 1;
                joined = false;
                // For a reading without a key no row can come.
                let missing = if has_key { dimension.missing } else { Missing::Emit };
                found.missing = found.missing.max(Some(missing));
            }
        }
        out.push(b'}');
        joined
    }

    /// [`Snapshot::join`] of a reading of which only the device is known.
    pub(in crate::process) fn join_device<'s>(
        &'s self,
        device: &str,
        out: &mut Vec<u8>,
        found: &mut Found<'s>,
    ) -> bool {
        self.join(&Reading { device: device.into(), ..Reading::default() }, out, found)
    }
}

/// Rows found for one reading, and how often rows were found and not; made once for a cycle.
#[derive(Debug, Default)]
pub(in crate::process) struct Found<'s> {
    snapshot: Option<&'s Snapshot>,
    rows: Vec<Option<&'s Row>>,
    missing: Option<Missing>,
    /// Found and not found, for each table.
    looked_up: Vec<(u64, u64)>,
    /// For keys that do not stand in the reading as they are.
    key: Vec<u8>,
}

impl<'s> Found<'s> {
    fn start(&mut self, snapshot: &'s Snapshot) {
        self.rows.clear();
        self.missing = None;
        if !self.snapshot.is_some_and(|s| std::ptr::eq(s, snapshot)) {
            self.snapshot = Some(snapshot);
            self.looked_up.clear();
            self.looked_up.resize(snapshot.len(), (0, 0));
        }
    }

    /// What becomes of the reading when rows are missing: the strictest of the dimensions that lack one.
    pub(in crate::process) fn missing(&self) -> Option<Missing> {
        self.missing
    }

    /// A column of the row that was found in a dimension; `None` where there is no row, no such column, or NULL.
    pub(in crate::process) fn column(&self, dimension: &str, column: &str) -> Option<Value<'s>> {
        let snapshot = self.snapshot?;
        let i = snapshot.tables.iter().position(|(d, _)| &*d.name == dimension)?;
        let place = snapshot.tables[i].1.columns.iter().position(|name| &**name == column)?;
        rows::column((*self.rows.get(i)?)?.json(), place)
    }

    /// The cycle is committed: shows how often rows were found. One that is taken back is only dropped.
    pub(in crate::process) fn count(&mut self) {
        let Some(snapshot) = self.snapshot else { return };
        for ((dimension, _), (hits, misses)) in snapshot.tables.iter().zip(&mut self.looked_up) {
            dimension.measures.hits.increment(std::mem::take(hits));
            dimension.measures.misses.increment(std::mem::take(misses));
        }
    }
}

impl Columns for Found<'_> {
    fn column(&self, dimension: &str, column: &str) -> Option<Value<'_>> {
        Found::column(self, dimension, column)
    }
}

/// The key of a reading; `None` when it lacks a part.
fn key<'k>(on: &'k [Part], reading: &'k Reading<'_>, room: &'k mut Vec<u8>) -> Option<&'k [u8]> {
    if let [part] = on {
        match part {
            Part::Device => return Some(reading.device.as_bytes()),
            Part::Tag(name) => return reading.tag(name).map(str::as_bytes),
            Part::Value(_) => {}
        }
    }
    room.clear();
    for (i, part) in on.iter().enumerate() {
        let is_last = i + 1 == on.len();
        let start = rows::begin_part(room, is_last);
        match part {
            Part::Device => room.extend_from_slice(reading.device.as_bytes()),
            Part::Tag(name) => room.extend_from_slice(reading.tag(name)?.as_bytes()),
            Part::Value(name) => write_value(room, reading.value(name)?),
        }
        rows::end_part(room, start, is_last);
    }
    Some(room)
}

/// A value as the text that MySQL shows for the same number; true is 1.
fn write_value(out: &mut Vec<u8>, value: &Value<'_>) {
    match value {
        Value::Bool(yes) => out.push(if *yes { b'1' } else { b'0' }),
        Value::Unsigned(n) => out.extend_from_slice(itoa::Buffer::new().format(*n).as_bytes()),
        Value::Signed(n) => out.extend_from_slice(itoa::Buffer::new().format(*n).as_bytes()),
        Value::Float(n) => write!(out, "{n}").expect("memory takes every write"),
        Value::Text(text) => out.extend_from_slice(text.as_bytes()),
    }
}

#[cfg(test)]
impl Snapshot {
    /// Tables of one row each, joined by device, for tests: name, device, JSON of the row.
    pub(in crate::process) fn of(tables: &[(&str, &str, &str)]) -> Self {
        let table = |(name, key, row): &(&str, &str, &str)| {
            table(name, &[(*key, *row)], &[Part::Device], Missing::Emit)
        };
        Self::new(tables.iter().map(table).collect())
    }

    /// One table "devices" with `missing = "hold"`, for tests: device, JSON of its row.
    pub(in crate::process) fn holding(rows: &[(&str, &str)]) -> Self {
        Self::new(vec![table("devices", rows, &[Part::Device], Missing::Hold)])
    }
}

#[cfg(test)]
fn table(name: &str, rows: &[(&str, &str)], on: &[Part], missing: Missing) -> (Arc<Dimension>, Content) {
    let mut table = Table::default();
    let mut columns: Arc<[Box<str>]> = Arc::default();
    for (key, row) in rows {
        table.put(Row::new(key.as_bytes(), row.as_bytes()));
        let members: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(row).expect("the row of a test is JSON");
        columns = members.keys().map(|column| column.as_str().into()).collect();
    }
    let dimension = Dimension {
        name: name.into(),
        member: format!("\"{name}\":").into_bytes().into(),
        on: on.to_vec(),
        missing,
        polled: false,
        measures: Measures::new(name),
    };
    (Arc::new(dimension), Content { table, columns, version: 7 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(text: &str) -> Reading<'_> {
        let mut reading = Reading::default();
        reading.parse(text.as_bytes()).unwrap();
        reading
    }

    #[test]
    fn joined_only_when_every_table_has_the_device() {
        let dims = Snapshot::of(&[("a", "d", r#"{"x":1}"#), ("b", "d", "{}"), ("c", "e", "{}")]);
        let (mut out, mut found) = (Vec::new(), Found::default());
        assert!(!dims.join_device("d", &mut out, &mut found));
        assert_eq!(out, br#"{"a":{"x":1},"b":{}}"#);
        assert_eq!(found.column("a", "x"), Some(Value::Unsigned(1)));
        assert_eq!(
            (found.column("a", "y"), found.column("c", "x"), found.column("z", "x")),
            (None, None, None)
        );
        assert!(!dims.join_device("nobody", &mut out, &mut found));
        assert_eq!(out, b"{}");
        assert_eq!(found.column("a", "x"), None, "the row of the reading before");
        assert_eq!(found.missing(), Some(Missing::Emit));
        assert_eq!(found.looked_up, [(1, 1), (1, 1), (0, 2)]);
        found.count();
        assert_eq!(found.looked_up, [(0, 0); 3]);
        assert_eq!(dims.versions(), br#"{"a":7,"b":7,"c":7}"#);
        assert_eq!(dims.numbers()[2], ("c".into(), 7));
        assert_eq!(dims.schema()[0], ("a".to_owned(), vec!["x".to_owned()]));
        assert!(!dims.is_empty() && Snapshot::of(&[]).is_empty());
        let none = Snapshot::default();
        assert!(none.join_device("d", &mut out, &mut found));
        assert_eq!((none.versions(), out.as_slice()), (b"{}".as_slice(), b"{}".as_slice()));
    }

    #[test]
    fn the_strictest_of_those_that_lack_a_row_counts() {
        let table = |name, key, missing| super::table(name, &[(key, "{}")], &[Part::Device], missing);
        let dims = Snapshot::new(vec![
            table("a", "d", Missing::Hold),
            table("b", "e", Missing::Hold),
            table("c", "f", Missing::Emit),
        ]);
        let (mut out, mut found) = (Vec::new(), Found::default());
        dims.join_device("d", &mut out, &mut found);
        assert_eq!(found.missing(), Some(Missing::Hold));
        let dims = Snapshot::new(vec![table("a", "d", Missing::Hold), table("c", "f", Missing::Emit)]);
        let (mut out, mut found) = (Vec::new(), Found::default());
        dims.join_device("d", &mut out, &mut found);
        assert_eq!(found.missing(), Some(Missing::Emit), "only the row of the lenient one is missing");
    }

    #[test]
    fn versions_of_polled_tables_are_told_and_not_compared() {
        let (mut dimension, content) = super::table("a", &[("d", "{}")], &[Part::Device], Missing::Emit);
        Arc::get_mut(&mut dimension).unwrap().polled = true;
        let dims = Snapshot::new(vec![(dimension, content)]);
        assert_eq!((dims.versions(), dims.numbers()), (&br#"{"a":7}"#[..], &[][..]));
    }

    #[test]
    fn keys_come_from_device_tags_and_values() {
        let text = r#"{"device":"d","time":1,"values":{"n":7,"b":true},"tags":{"site":"Graz"}}"#;
        for (on, key) in [
            (vec![Part::Tag("site".into())], "Graz"),
            (vec![Part::Value("n".into())], "7"),
            (vec![Part::Value("b".into())], "1"),
            (vec![Part::Device, Part::Value("n".into())], "\u{1}\0\0\0d7"),
        ] {
            let dims = Snapshot::new(vec![super::table("a", &[(key, "{}")], &on, Missing::Hold)]);
            let (mut out, mut found) = (Vec::new(), Found::default());
            assert!(dims.join(&reading(text), &mut out, &mut found), "{on:?}");
            assert!(!dims.join(&reading(r#"{"device":"d","time":1,"values":{}}"#), &mut out, &mut found));
            assert_eq!(found.missing(), Some(Missing::Emit), "without a key no row can come");
        }
    }
}
