//! What a table of MySQL should be, and what mends one that is not.
//!
//! Comes in: a table of the user's own, and what the server says of the one that stands. Goes out: the statement that makes
//! it, or one `ALTER TABLE` for each difference. A type that holds more than is wanted is no difference.
//! Guarantees: pure; proposes, changes nothing.

use super::super::own::{Keeps, OwnColumn, OwnKind, OwnTable, POSITION};

/// Where a row stood in Kafka, see [`POSITION`].
const POSITION_TYPES: [&str; 3] =
    ["VARCHAR(249) CHARACTER SET ascii COLLATE ascii_bin NOT NULL", "INT NOT NULL", "BIGINT NOT NULL"];

/// A column that stands.
#[derive(Clone, Debug)]
pub(super) struct Standing {
    pub(super) name: String,
    /// As `information_schema` has it, for example `bigint(20) unsigned`.
    pub(super) kind: String,
    pub(super) is_nullable: bool,
    pub(super) collation: Option<String>,
}

/// The statement that makes a table.
pub(super) fn create(own: &OwnTable) -> String {
    let columns = own.columns.iter().map(|column| format!("  {}", defined(column)));
    let position = POSITION.iter().zip(POSITION_TYPES).map(|(name, kind)| format!("  `{name}` {kind}"));
    let mut lines: Vec<String> = columns.chain(position).collect();
    lines.push(format!("  PRIMARY KEY ({})", listed(&unique(own))));
    if let Keeps::All { time } = own.keeps {
        lines.push(format!("  KEY weir_time (`{}`)", own.columns[time].name));
    }
    let (name, lines) = (&own.name, lines.join(",\n"));
    format!("CREATE TABLE IF NOT EXISTS `{name}` (\n{lines}\n) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4")
}

/// The columns of which no two rows have the same values.
fn unique(own: &OwnTable) -> Vec<&str> {
    match &own.keeps {
        Keeps::All { .. } => POSITION.to_vec(),
        Keeps::Latest { key, .. } => key.iter().map(|place| own.columns[*place].name.as_str()).collect(),
    }
}

fn listed(names: &[&str]) -> String {
    format!("`{}`", names.join("`, `"))
}

fn defined(column: &OwnColumn) -> String {
    let kind = match column.kind {
        OwnKind::String => "VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
        OwnKind::Text => "TEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
        OwnKind::Int64 => "BIGINT",
        OwnKind::UInt64 => "BIGINT UNSIGNED",
        OwnKind::Float64 => "DOUBLE",
        OwnKind::Bool => "BOOLEAN",
        OwnKind::Time => "DATETIME(3)",
        OwnKind::Json => "JSON",
    };
    let null = if column.is_nullable() { "NULL" } else { "NOT NULL" };
    format!("`{}` {kind} {null}", column.name)
}

/// What mends a table that stands; empty where it fits. `indices` are the columns of each unique index.
pub(super) fn alters(own: &OwnTable, standing: &[Standing], indices: &[Vec<String>]) -> Vec<String> {
    let table = &own.name;
    let find = |name: &str| standing.iter().find(|column| column.name.eq_ignore_ascii_case(name));
    let unique = unique(own);
    let mut alters = Vec::new();
    for column in &own.columns {
        match find(&column.name) {
            None => alters.push(format!("ALTER TABLE `{table}` ADD COLUMN {}", defined(column))),
            Some(found) if !holds(column, found, unique.contains(&column.name.as_str())) => {
                alters.push(format!("ALTER TABLE `{table}` MODIFY COLUMN {}", defined(column)));
            }
            Some(_) => {}
        }
    }
    for (name, kind) in POSITION.iter().zip(POSITION_TYPES) {
        let wanted = kind.split(['(', ' ']).next().unwrap_or_default();
        match find(name) {
            None => alters.push(format!("ALTER TABLE `{table}` ADD COLUMN `{name}` {kind}")),
            Some(found) if !bare(&found.kind).eq_ignore_ascii_case(wanted) => {
                alters.push(format!("ALTER TABLE `{table}` MODIFY COLUMN `{name}` {kind}"));
            }
            Some(_) => {}
        }
    }
    let is_unique = |index: &Vec<String>| {
        index.len() == unique.len() && index.iter().all(|name| unique.contains(&name.as_str()))
    };
    if !indices.iter().any(is_unique) {
        alters.push(format!("ALTER TABLE `{table}` ADD UNIQUE KEY weir_unique ({})", listed(&unique)));
    }
    alters
}

/// A type without its width: `bigint(20) unsigned` is `bigint unsigned`.
fn bare(kind: &str) -> String {
    match (kind.split_once('('), kind.split_once(')')) {
        (Some((before, _)), Some((_, after))) => format!("{before}{after}"),
        _ => kind.to_owned(),
    }
    .to_ascii_lowercase()
}

/// What stands in the brackets of a type.
fn width(kind: &str) -> u64 {
    let inner = kind.split_once('(').and_then(|(_, rest)| rest.split_once(')'));
    inner.and_then(|(digits, _)| digits.parse().ok()).unwrap_or(0)
}

/// Whether every value of a column fits into the one that stands.
fn holds(column: &OwnColumn, found: &Standing, is_unique: bool) -> bool {
    let bare = bare(&found.kind);
    let is = |kinds: &[&str]| kinds.contains(&bare.as_str());
    let kind = match column.kind {
        OwnKind::String => {
            bare == "varchar" && width(&found.kind) >= 255 || is(&["text", "mediumtext", "longtext"])
        }
        OwnKind::Text => is(&["text", "mediumtext", "longtext"]),
        OwnKind::Int64 => is(&["bigint"]),
        OwnKind::UInt64 => is(&["bigint unsigned"]),
        OwnKind::Float64 => is(&["double"]),
        OwnKind::Bool => is(&["tinyint"]),
        OwnKind::Time => bare == "datetime" && width(&found.kind) >= 3,
        // MariaDB has no type of its own for it.
        OwnKind::Json => is(&["json", "longtext"]),
    };
    let is_text = matches!(column.kind, OwnKind::String | OwnKind::Text);
    let collation = found.collation.as_deref().unwrap_or_default();
    // Another collation takes keys for equal that differ; another character set cannot hold every text.
    let text =
        !is_text || if is_unique { collation == "utf8mb4_bin" } else { collation.starts_with("utf8mb4") };
    kind && text && (found.is_nullable || !column.is_nullable())
}
