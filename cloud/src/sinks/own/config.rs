//! The `[[sink.table]]` tables of the configuration.
//!
//! Comes in: the section `[sink]` and the topics of routes. Goes out: checked tables; the reference describes every key.
//! Guarantees: pure; expressions are compiled here, once. On failure: problems with their places.

use weir_shared::config::{Literal, Section};
use weir_shared::expr::{Expression, Names, Program, Scope, Wanted, nearest};
use weir_shared::reading::Value;

use super::super::SinkName;
use super::super::batch::{Routed, Topic};
use super::super::table::{Cell, table as described};
use super::decode::{Inputs, Paths, fit};
use super::{Keeps, Origin, OwnAbsent, OwnColumn, OwnKind, OwnTable, OwnTables};

/// Every key of one `[[sink.table]]` with its default.
const ITEM: &str = "name = ''\ntopic = ''\nstores = []\nrows = 'append'\nkey = []\nversion = ''\ntime = ''\nwhen = ''\n\
    [[column]]\n";
/// Every key of one `[[sink.table.column]]` with its default.
const COLUMN: &str = "name = ''\ntype = 'string'\nfrom = ''\nvalue = ''\ndefault = ''\nnull = false\n";

/// Most tables.
const TABLES_MAX: usize = 64;
/// Most columns of a table: an index of Elasticsearch takes 1,000 fields by default.
const COLUMNS_MAX: usize = 500;
/// Most columns of type `string`: a row of MySQL has 65,535 bytes, and each takes 1,022.
const STRINGS_MAX: usize = 60;
/// Most columns of a key.
const KEY_COLUMNS_MAX: usize = 8;
/// Most of them of type `string`: a key of MySQL has 3,072 bytes, and each takes 1,022.
const KEY_STRINGS_MAX: usize = 2;
/// Longest name of a table or column, in bytes.
const IDENTIFIER_BYTES_MAX: usize = 60;
/// What indices of Weir are called after the prefix.
const INDICES: [&str; 5] = ["readings", "rejected", "aggregates", "losses", "alerts"];

impl OwnTables {
    /// Reads all `[[sink.table]]`; `routed` are the topics that routes may name.
    pub(in crate::sinks) fn read(sink: &Section<'_>, routed: &[String]) -> Self {
        let mut topics = Vec::new();
        let mut names = Vec::new();
        let tables = sink.each("table", ITEM, |item| {
            let topic = topic(item, routed, &mut topics);
            let name = table_name(item, &names);
            names.push(name.clone());
            if names.len() == TABLES_MAX + 1 {
                item.problem("name", &format!("is one more than the {TABLES_MAX} tables that there may be"));
            }
            table(item, name, topic)
        });
        // The configuration is read once: what is left here is left once.
        Self(Box::leak(tables.into_boxed_slice()))
    }
}

fn topic(item: &Section<'_>, routed: &[String], known: &mut Vec<&'static Routed>) -> Topic {
    let name = item.required("topic", "an output topic of Weir, or one of rules.topics");
    if let Some(topic) = Topic::ALL.into_iter().find(|topic| topic.name() == name) {
        return topic;
    }
    if let Some(topic) = known.iter().find(|topic| topic.name == name) {
        return Topic::Routed(topic);
    }
    if !routed.contains(&name) {
        if !name.is_empty() {
            let words = Topic::ALL.map(Topic::name).into_iter().chain(routed.iter().map(String::as_str));
            let why = format!("{name:?} is neither an output topic of Weir nor one of rules.topics");
            item.problem("topic", &format!("{why}; {}", nearest(&name, words)));
        }
        return Topic::Enriched;
    }
    // As the tables are: see above.
    let topic = Box::leak(Box::new(Routed { index: known.len(), name }));
    known.push(topic);
    Topic::Routed(topic)
}

/// Whether a name can stand in statements and in names of indices.
fn is_identifier(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(fits)
        && name.len() <= IDENTIFIER_BYTES_MAX
}

fn table_name(item: &Section<'_>, names: &[String]) -> String {
    let name = item.required("name", "the name of the table");
    if name.is_empty() {
        return name;
    }
    if !is_identifier(&name) {
        let why = format!(
            "must be at most {IDENTIFIER_BYTES_MAX} lower-case letters, digits and _, beginning with a letter"
        );
        item.problem("name", &why);
    } else if name.starts_with("weir_") || INDICES.contains(&name.as_str()) {
        item.problem("name", &format!("{name:?} is a name of Weir's own; choose another"));
    } else if names.contains(&name) {
        item.problem("name", &format!("{name:?} is there twice"));
    }
    name
}

/// The members that records of a topic have, beside those in objects.
fn members(topic: Topic) -> Vec<&'static str> {
    let Some(table) = described(topic) else {
        return vec!["weir", "dims", "device", "time", "received", "clock", "values", "tags"];
    };
    let root = |path: &'static str| path.split('.').next().unwrap_or(path);
    let mut members: Vec<&str> = table.columns.iter().map(|column| root(column.member)).collect();
    if topic == Topic::Rejected {
        members.extend(["tables", "partly"]);
    }
    members.sort_unstable();
    members.dedup();
    members
}

/// What is needed to compile expressions and to find members.
struct Making {
    topic: Topic,
    paths: Paths,
    names: Names,
    scope: Scope,
    computes: bool,
}

impl Making {
    fn compile(
        &mut self,
        section: &Section<'_>,
        key: &str,
        text: &str,
        wanted: Wanted,
    ) -> Option<Box<Program>> {
        match Expression::compile_in(text, &self.scope, wanted) {
            Ok(expression) => {
                self.computes = true;
                Some(Box::new(Program::new(expression, &mut self.names)))
            }
            Err(problem) => {
                section.problem(key, &problem.to_string());
                None
            }
        }
    }
}

fn table(item: &Section<'_>, name: String, topic: Topic) -> OwnTable {
    let scope = Scope { dims: Vec::new(), any: true };
    let paths = Paths::new(topic.has_readings());
    let mut making = Making { topic, paths, names: Names::default(), scope, computes: false };
    let when = item.string("when");
    let when = if when.is_empty() { None } else { making.compile(item, "when", &when, Wanted::Bool) };
    let mut columns: Vec<OwnColumn> = Vec::new();
    item.each("column", COLUMN, |section| {
        let column = column(section, &columns, &mut making);
        columns.push(column);
    });
    if columns.is_empty() || columns.len() > COLUMNS_MAX {
        item.problem("column", &format!("must have 1 to {COLUMNS_MAX} columns: [[sink.table.column]]"));
    }
    if columns.iter().filter(|column| column.kind == OwnKind::String).count() > STRINGS_MAX {
        let way = "make the others \"text\"";
        item.problem("column", &format!("has more than {STRINGS_MAX} columns of type \"string\"; {way}"));
    }
    let keeps = keeps(item, &columns);
    let inputs = making.computes.then(|| {
        let (device, time) = match topic {
            Topic::Aggregates => ("key.device", "start"),
            Topic::Rejected => ("device", "received"),
            Topic::Losses => ("device", "noticed"),
            Topic::Enriched | Topic::Alerts | Topic::Routed(_) => ("device", "time"),
        };
        Inputs::new(&mut making.paths, device, time)
    });
    let Making { paths, names, .. } = making;
    OwnTable { name, topic, stores: stores(item), columns, keeps, when, paths, inputs, names }
}

fn stores(item: &Section<'_>) -> Vec<SinkName> {
    let words = item.one_or_more("stores");
    if words.is_empty() {
        return SinkName::ALL.to_vec();
    }
    let store = |word: &String| {
        let found = SinkName::parse(word);
        found.map_err(|why| item.problem("stores", &format!("{word:?} {why}"))).ok()
    };
    words.iter().filter_map(store).collect()
}

fn column(section: &Section<'_>, others: &[OwnColumn], making: &mut Making) -> OwnColumn {
    let name = section.required("name", "the name of the column");
    if !name.is_empty() && !is_identifier(&name) {
        let why = format!(
            "must be at most {IDENTIFIER_BYTES_MAX} lower-case letters, digits and _, beginning with a letter"
        );
        section.problem("name", &why);
    } else if others.iter().any(|other| other.name == name) {
        section.problem("name", &format!("{name:?} is there twice"));
    }
    let kind = OwnKind::ALL[section.choice("type", &OwnKind::ALL.map(|(word, _)| word))].1;
    let (from, value) = (section.string("from"), section.string("value"));
    let made_of = match (from.as_str(), value.as_str()) {
        ("", "") => name.clone(),
        (from, "") => from.to_owned(),
        (_, value) => value.to_owned(),
    };
    if !from.is_empty() && !value.is_empty() {
        section.problem("value", "only one of from and value can be set");
    }
    if made_of.split('.').any(str::is_empty) && value.is_empty() && !name.is_empty() {
        section
            .problem("from", "must be a member of the record, for example device, values.power, weir.edge");
    }
    let root = made_of.split('.').next().unwrap_or_default();
    let known = members(making.topic);
    if value.is_empty() && !root.is_empty() && !known.contains(&root) {
        let (topic, hint) = (making.topic.name(), nearest(root, known.iter().copied()));
        section.problem("from", &format!("records of {topic} have no member {root:?}; {hint}"));
    }
    if !value.is_empty() && kind == OwnKind::Json {
        section.problem("value", "an expression gives no JSON; use from");
    }
    let wanted = match kind {
        OwnKind::Bool => Wanted::Bool,
        OwnKind::Float64 => Wanted::Number,
        _ => Wanted::Scalar,
    };
    let program = if value.is_empty() { None } else { making.compile(section, "value", &value, wanted) };
    let origin = program.map_or_else(|| Origin::Member(making.paths.slot(&made_of)), Origin::Computed);
    OwnColumn { name, kind, absent: absent(section, kind), origin, made_of }
}

fn absent(section: &Section<'_>, kind: OwnKind) -> OwnAbsent {
    let null = section.boolean("null");
    let Some(literal) = section.literal("default") else {
        return if null { OwnAbsent::Null } else { OwnAbsent::Refused };
    };
    if null {
        section.problem("null", "only one of default and null can be set");
    }
    if let (OwnKind::Json, Literal::Text(text)) = (kind, &literal)
        && serde_json::from_str::<serde_json::Value>(text).is_ok()
    {
        return OwnAbsent::Default(Cell::Text(text.clone().into()));
    }
    let value = match literal {
        Literal::Text(text) => Some(Value::Text(text.into())),
        Literal::Flag(flag) => Some(Value::Bool(flag)),
        Literal::Float(n) => Some(Value::Float(n)).filter(|_| n.is_finite()),
        Literal::Integer(n) => {
            u64::try_from(n).map(Value::Unsigned).or_else(|_| i64::try_from(n).map(Value::Signed)).ok()
        }
    };
    match value.map(|value| fit(kind, value)) {
        Some(Ok(cell)) => OwnAbsent::Default(cell),
        Some(Err(error)) => {
            section.problem("default", &error.detail);
            OwnAbsent::Refused
        }
        None => {
            section.problem("default", "must be a number that columns can hold");
            OwnAbsent::Refused
        }
    }
}

fn keeps(item: &Section<'_>, columns: &[OwnColumn]) -> Keeps {
    let (key, version, time) = (item.one_or_more("key"), item.string("version"), item.string("time"));
    let place = |setting: &str, name: &str, kinds: &[OwnKind]| {
        let Some(place) = columns.iter().position(|column| column.name == name) else {
            let hint = nearest(name, columns.iter().map(|column| column.name.as_str()));
            item.problem(setting, &format!("there is no column {name:?}; {hint}"));
            return 0;
        };
        if columns[place].is_nullable() {
            item.problem(
                setting,
                &format!("the column {name:?} can be NULL; give it a default, or leave out null"),
            );
        }
        if !kinds.contains(&columns[place].kind) {
            let words = OwnKind::ALL.iter().filter(|(_, kind)| kinds.contains(kind)).map(|(word, _)| *word);
            let words: Vec<&str> = words.collect();
            item.problem(setting, &format!("the column {name:?} must be of type {}", words.join(", ")));
        }
        place
    };
    if item.choice("rows", &["append", "latest"]) == 0 {
        for (setting, is_set) in [("key", !key.is_empty()), ("version", !version.is_empty())] {
            if is_set {
                item.problem(setting, "is only for rows = \"latest\"");
            }
        }
        let time = if time.is_empty() { "time" } else { &time };
        return Keeps::All { time: place("time", time, &[OwnKind::Time]) };
    }
    if !time.is_empty() {
        let why =
            "is only for rows = \"append\": a row that is replaced stays in one partition and one index";
        item.problem("time", why);
    }
    if key.is_empty() || key.len() > KEY_COLUMNS_MAX {
        item.problem("key", &format!("must name 1 to {KEY_COLUMNS_MAX} columns"));
    }
    let kinds = [OwnKind::String, OwnKind::Int64, OwnKind::UInt64, OwnKind::Bool, OwnKind::Time];
    let mut places: Vec<usize> = key.iter().map(|name| place("key", name, &kinds)).collect();
    if places.iter().filter(|place| columns.get(**place).is_some_and(|c| c.kind == OwnKind::String)).count()
        > KEY_STRINGS_MAX
    {
        item.problem("key", &format!("can have {KEY_STRINGS_MAX} columns of type \"string\" at most"));
    }
    places.sort_unstable();
    places.dedup();
    if (1..key.len()).any(|place| key[..place].contains(&key[place])) {
        item.problem("key", "names a column twice");
    }
    let version = if version.is_empty() {
        item.problem(
            "version",
            "must be set: the column by which a row replaces another, the higher one stays",
        );
        0
    } else {
        place("version", &version, &[OwnKind::Int64, OwnKind::UInt64, OwnKind::Time])
    };
    if places.contains(&version) && !columns.is_empty() && !key.is_empty() {
        item.problem("version", "is a column of the key");
    }
    Keeps::Latest { key: places, version }
}
