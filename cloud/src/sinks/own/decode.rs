//! From a record to the cells of a table of the user's own.
//!
//! Comes in: the JSON of one record. Goes out: one cell for each column, borrowed from the JSON where it has no escapes.
//! Guarantees: the record is walked over once for each table, and only objects of which a member is wanted are opened;
//! without expressions no reading is made of it. Pure.
//! On failure: a [`RowError`] that names the column.

use std::borrow::Cow;
use std::collections::HashMap;

use weir_shared::expr::{Columns, Failure, Filled, Program, Record as Seen, Row as Room};
use weir_shared::reading::{Reading, Value};
use weir_shared::record::{Identity, NAME_BYTES_MAX, StreamId};

use super::super::SinkName;
use super::super::row::{RowError, goes_to, parse, short, time, wrong};
use super::super::table::{Cell, TEXT_BYTES_MAX, text};
use super::{Keeps, Origin, OwnAbsent, OwnColumn, OwnKind, OwnTable};

/// Largest integer up to which a double holds every one.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
/// Highest version: that of a document is one more, and has 63 bits.
const VERSION_MAX: u64 = i64::MAX.unsigned_abs() - 1;

/// Which members of a record are wanted: a tree of its objects.
#[derive(Debug)]
pub(super) struct Paths {
    /// The first is the record itself.
    objects: Vec<HashMap<String, Take>>,
    slots: usize,
    stores: usize,
    /// Stream, partition and number, where the record is a reading.
    identity: Option<[usize; 3]>,
}

/// What is done with a member.
#[derive(Debug, Default)]
struct Take {
    slot: Option<usize>,
    object: Option<usize>,
}

impl Paths {
    pub(super) fn new(has_readings: bool) -> Self {
        let mut paths = Self { objects: vec![HashMap::new()], slots: 0, stores: 0, identity: None };
        paths.stores = paths.slot("weir.stores");
        if has_readings {
            paths.identity =
                Some(["weir.stream", "weir.partition", "weir.number"].map(|path| paths.slot(path)));
        }
        paths
    }

    /// The place of a member: `values.power` is the member `power` of the object `values`.
    pub(super) fn slot(&mut self, path: &str) -> usize {
        let (mut object, mut rest) = (0, path);
        while let Some((name, inner)) = rest.split_once('.') {
            let next = self.objects.len();
            let take = self.objects[object].entry(name.to_owned()).or_default();
            object = *take.object.get_or_insert(next);
            if object == next {
                self.objects.push(HashMap::new());
            }
            rest = inner;
        }
        let take = self.objects[object].entry(rest.to_owned()).or_default();
        let slot = *take.slot.get_or_insert(self.slots);
        self.slots = self.slots.max(slot + 1);
        slot
    }

    /// The JSON of each wanted member that is there and not null.
    fn collect<'a>(&self, json: &'a [u8]) -> Result<Vec<Option<&'a str>>, RowError> {
        // The walk does not look behind the last brace; this does.
        parse::<sonic_rs::LazyValue<'_>>(json)?;
        let json = std::str::from_utf8(json).map_err(|e| wrong("row_malformed", &e.to_string()))?;
        let mut raws = vec![None; self.slots];
        self.walk(0, json, &mut raws)?;
        Ok(raws)
    }

    fn walk<'a>(&self, object: usize, json: &'a str, raws: &mut [Option<&'a str>]) -> Result<(), RowError> {
        members(json, |name, raw| {
            let Some(take) = self.objects[object].get(name) else { return Ok(()) };
            if let Some(slot) = take.slot.filter(|_| raw != "null") {
                // Of two with the same name the first counts.
                raws[slot].get_or_insert(raw);
            }
            match take.object {
                Some(inner) if raw.starts_with('{') => self.walk(inner, raw, raws),
                _ => Ok(()),
            }
        })
    }
}

/// Walks over the members of an object.
fn members<'a>(
    json: &'a str,
    mut each: impl FnMut(&str, &'a str) -> Result<(), RowError>,
) -> Result<(), RowError> {
    for member in sonic_rs::to_object_iter(json) {
        let (name, lazy) = member.map_err(|e| wrong("row_malformed", &e.to_string()))?;
        // A lazy value that was read from a text borrows from it.
        let Cow::Borrowed(raw) = lazy.as_raw_cow() else { return Err(wrong("row_malformed", &name)) };
        each(&name, raw)?;
    }
    Ok(())
}

/// The members of a record that expressions see, by their places in [`Paths`].
#[derive(Debug)]
pub(super) struct Inputs {
    device: usize,
    time: usize,
    received: usize,
    values: usize,
    tags: usize,
    dims: usize,
}

impl Inputs {
    /// `device` and `time` are called otherwise in some topics.
    pub(super) fn new(paths: &mut Paths, device: &str, time: &str) -> Self {
        let mut slot = |path: &str| paths.slot(path);
        Self {
            device: slot(device),
            time: slot(time),
            received: slot("received"),
            values: slot("values"),
            tags: slot("tags"),
            dims: slot("dims"),
        }
    }

    /// What expressions see. What has no place in a reading is left out: expressions then miss it.
    fn reading<'a>(&self, raws: &[Option<&'a str>]) -> Reading<'a> {
        let mut reading = Reading::default();
        let scalar = |slot: usize| raws[slot].and_then(value);
        let integer = |slot: usize| match scalar(slot) {
            Some(Value::Unsigned(n)) => i64::try_from(n).unwrap_or_default(),
            Some(Value::Signed(n)) => n,
            _ => 0,
        };
        if let Some(Value::Text(device)) = scalar(self.device) {
            reading.device = device;
        }
        (reading.time, reading.received) = (integer(self.time), integer(self.received));
        each_member(raws[self.values], |name, raw| match value(raw) {
            Some(value) => reading.values.push((name.to_owned().into(), value)),
            // A window result has an object for each value: values['t.mean'].
            None => each_member(Some(raw), |inner, raw| {
                let flat = value(raw).map(|value| (format!("{name}.{inner}").into(), value));
                reading.values.extend(flat);
            }),
        });
        each_member(raws[self.tags], |name, raw| {
            if let Some(Value::Text(tag)) = value(raw) {
                reading.tags.push((name.to_owned().into(), tag));
            }
        });
        reading
    }
}

/// The same for an object that may be none.
fn each_member<'a>(json: Option<&'a str>, mut each: impl FnMut(&str, &'a str)) {
    let Some(json) = json.filter(|json| json.starts_with('{')) else { return };
    let walked = members(json, |name, raw| {
        each(name, raw);
        Ok(())
    });
    debug_assert!(walked.is_ok(), "the whole record was parsed before");
}

/// The business data of a record.
struct Dims<'a>(Option<&'a str>);

impl Columns for Dims<'_> {
    fn column(&self, dimension: &str, column: &str) -> Option<Value<'_>> {
        let (mut row, mut found) = (None, None);
        each_member(self.0, |name, raw| row = row.or((name == dimension).then_some(raw)));
        each_member(row, |name, raw| found = found.or((name == column).then_some(raw)));
        found.and_then(value)
    }
}

/// A number, bool or text.
fn value(raw: &str) -> Option<Value<'_>> {
    match raw.as_bytes().first()? {
        b'"' => text("", raw).ok().map(Value::Text),
        b't' => Some(Value::Bool(true)),
        b'f' => Some(Value::Bool(false)),
        b'-' | b'0'..=b'9' => {
            let whole = raw.parse().map(Value::Unsigned).or_else(|_| raw.parse().map(Value::Signed));
            let number = whole.or_else(|_| raw.parse().map(Value::Float)).ok()?;
            number.number().is_some_and(f64::is_finite).then_some(number)
        }
        _ => None,
    }
}

/// A row.
#[derive(Debug, PartialEq)]
pub(in crate::sinks) struct OwnRow<'a> {
    /// In the order of the table's columns.
    pub(in crate::sinks) cells: Vec<Cell<'a>>,
    /// Of the reading that it was made of.
    pub(in crate::sinks) identity: Option<Identity>,
}

impl OwnRow<'_> {
    /// The time that decides where it goes, ms since 1970; none where a row stays in one place.
    pub(in crate::sinks) fn time(&self, table: &OwnTable) -> Option<i64> {
        match (&table.keeps, &self.cells[..]) {
            (Keeps::All { time }, cells) => match cells[*time] {
                Cell::Time(ms) => Some(ms),
                _ => None,
            },
            (Keeps::Latest { .. }, _) => None,
        }
    }

    /// The version of what it replaces and is replaced by.
    pub(in crate::sinks) fn version(&self, table: &OwnTable) -> Option<u64> {
        let Keeps::Latest { version, .. } = table.keeps else { return None };
        match self.cells[version] {
            Cell::Int(n) | Cell::Time(n) => u64::try_from(n).ok(),
            Cell::UInt(n) => Some(n),
            _ => None,
        }
    }
}

/// Makes rows of one table; keeps room for it.
#[derive(Debug)]
pub(in crate::sinks) struct Decoder {
    pub(in crate::sinks) table: &'static OwnTable,
    room: Room,
}

impl Decoder {
    pub(in crate::sinks) fn new(table: &'static OwnTable) -> Self {
        Self { table, room: Room::default() }
    }

    /// Takes a record apart; `None` for one that goes only to other stores, or is none that the table wants.
    pub(in crate::sinks) fn decode<'a>(
        &mut self,
        json: &'a [u8],
        which: SinkName,
    ) -> Result<Option<OwnRow<'a>>, RowError> {
        let table = self.table;
        let raws = table.paths.collect(json)?;
        if let Some(raw) = raws[table.paths.stores] {
            let stores: Vec<Cow<'_, str>> = parse(raw.as_bytes())?;
            if !goes_to(Some(&stores), which) {
                return Ok(None);
            }
        }
        let Some(inputs) = &table.inputs else {
            let cells = table.columns.iter().map(|column| column.cell(&raws, None));
            return table.checked(cells.collect::<Result<_, _>>()?, &raws).map(Some);
        };
        let reading = inputs.reading(&raws);
        let dims = Dims(raws[inputs.dims]);
        let record = Seen { reading: &reading, derived: &[], dims: &dims };
        let filled = self.room.fill(&table.names, &record);
        let made = table.make(&raws, &filled, &record);
        self.room.recycle(filled);
        made
    }
}

impl OwnTable {
    fn make<'a>(
        &self,
        raws: &[Option<&'a str>],
        filled: &Filled<'_>,
        record: &Seen<'_>,
    ) -> Result<Option<OwnRow<'a>>, RowError> {
        match self.when.as_ref().map(|when| when.boolean(filled, record)) {
            None | Some(Ok(true)) => {}
            Some(Ok(false) | Err(Failure::Missing)) => return Ok(None),
            Some(Err(Failure::Wrong(why))) => return Err(wrong("value_wrong_type", &format!("when: {why}"))),
        }
        let cells = self.columns.iter().map(|column| column.cell(raws, Some((filled, record))));
        self.checked(cells.collect::<Result<_, _>>()?, raws).map(Some)
    }

    fn checked<'a>(&self, cells: Vec<Cell<'a>>, raws: &[Option<&'a str>]) -> Result<OwnRow<'a>, RowError> {
        let row = OwnRow { cells, identity: self.paths.identity.and_then(|slots| identity(slots, raws)) };
        if let Keeps::Latest { version, .. } = self.keeps
            && row.version(self).is_none_or(|version| version > VERSION_MAX)
        {
            let detail =
                format!("column {}: a version must be from 0 to {VERSION_MAX}", self.columns[version].name);
            return Err(wrong("version_out_of_range", &detail));
        }
        Ok(row)
    }
}

fn identity(slots: [usize; 3], raws: &[Option<&str>]) -> Option<Identity> {
    let [stream, partition, number] = slots.map(|slot| raws[slot].and_then(value));
    let (Value::Text(stream), Value::Unsigned(partition), Value::Unsigned(number)) =
        (stream?, partition?, number?)
    else {
        return None;
    };
    let stream = StreamId::from_hex(stream.as_bytes())?;
    Some(Identity { stream, partition: i32::try_from(partition).ok()?, number })
}

impl OwnColumn {
    fn cell<'a>(
        &self,
        raws: &[Option<&'a str>],
        seen: Option<(&Filled<'_>, &Seen<'_>)>,
    ) -> Result<Cell<'a>, RowError> {
        let made = match (&self.origin, seen) {
            (Origin::Member(slot), _) => raws[*slot].map(|raw| member(self.kind, raw)).transpose(),
            (Origin::Computed(program), Some((filled, record))) => {
                computed(self.kind, program, filled, record)
            }
            (Origin::Computed(_), None) => unreachable!("a table with expressions has inputs"),
        };
        let named = |e: RowError| wrong(e.reason, &format!("column {}: {}", self.name, e.detail));
        match (made.map_err(named)?, &self.absent) {
            (Some(cell), _) => Ok(cell),
            (None, OwnAbsent::Null) => Ok(Cell::Null),
            (None, OwnAbsent::Default(cell)) => Ok(cell.clone()),
            (None, OwnAbsent::Refused) => {
                Err(named(wrong("value_missing", &format!("{} is missing", self.made_of))))
            }
        }
    }
}

fn member(kind: OwnKind, raw: &str) -> Result<Cell<'_>, RowError> {
    if kind == OwnKind::Json {
        return Ok(Cell::Text(raw.into()));
    }
    match value(raw) {
        Some(value) => fit(kind, value),
        None => Err(wrong("value_wrong_type", "is not a number (a finite one), bool or string")),
    }
}

fn computed(
    kind: OwnKind,
    program: &Program,
    filled: &Filled<'_>,
    record: &Seen<'_>,
) -> Result<Option<Cell<'static>>, RowError> {
    match program.value(filled, record) {
        Ok(value) => fit(kind, value).map(Some),
        Err(Failure::Missing) => Ok(None),
        Err(Failure::Wrong(why)) => Err(wrong("value_wrong_type", &why)),
    }
}

/// A value as the cell of a column.
pub(super) fn fit(kind: OwnKind, value: Value<'_>) -> Result<Cell<'_>, RowError> {
    let whole = match value {
        Value::Unsigned(n) => Some(i128::from(n)),
        Value::Signed(n) => Some(i128::from(n)),
        Value::Float(n) if n.fract() == 0.0 && n.abs() <= EXACT_MAX => Some(n as i128),
        _ => None,
    };
    let refused = |wanted: &str| wrong("value_wrong_type", &format!("is not {wanted}"));
    match (kind, value) {
        (OwnKind::String, Value::Text(text)) => short("it", text, NAME_BYTES_MAX).map(Cell::Text),
        (OwnKind::Text, Value::Text(text)) => short("it", text, TEXT_BYTES_MAX).map(Cell::Text),
        (OwnKind::String | OwnKind::Text, _) => Err(refused("a string")),
        (OwnKind::Bool, Value::Bool(flag)) => Ok(Cell::Flag(flag)),
        (OwnKind::Bool, _) => Err(refused("true or false")),
        (OwnKind::Float64, value) => value.number().map(Cell::Float).ok_or_else(|| refused("a number")),
        (OwnKind::Int64, _) => {
            let n = whole.and_then(|n| i64::try_from(n).ok());
            n.map(Cell::Int).ok_or_else(|| refused("an integer of 64 bits"))
        }
        (OwnKind::UInt64, _) => {
            let n = whole.and_then(|n| u64::try_from(n).ok());
            n.map(Cell::UInt).ok_or_else(|| refused("an integer of 64 bits from 0 on"))
        }
        (OwnKind::Time, _) => {
            let n = whole.and_then(|n| i64::try_from(n).ok());
            time("it", n.ok_or_else(|| refused("a time in ms since 1970"))?).map(Cell::Time)
        }
        (OwnKind::Json, _) => Err(refused("JSON of the record")),
    }
}
