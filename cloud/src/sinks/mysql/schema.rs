//! What a table of MySQL should be, and what mends one that is not.
//!
//! Comes in: a table, and what the server says of the one that stands. Goes out: the statement that makes it, or one
//! `ALTER TABLE` for each difference. A type that holds more than is wanted is no difference.
//! Guarantees: pure; proposes, changes nothing. Where nothing is proposed every row goes in, and replaces another only
//! where it is meant to.

use super::super::own::{Keeps, OwnColumn, OwnKind, OwnTable, POSITION};
use super::standing::{Column, Index, Standing, Unsaid};

/// Where a row stood in Kafka, see [`POSITION`].
const POSITION_TYPES: [&str; 3] = ["VARCHAR(249) CHARACTER SET ascii COLLATE ascii_bin", "INT", "BIGINT"];
/// Collations that take two texts for one only where they are: others pass over the spaces at their ends, or the case. Those
/// of MariaDB, MySQL.
pub(super) const EXACT: [&str; 2] = ["utf8mb4_nopad_bin", "utf8mb4_0900_bin"];

/// How a text is kept in a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KeyText(Option<&'static str>);

impl KeyText {
    /// On a server that knows these of the [`EXACT`] collations.
    pub(super) fn on(known: &[String]) -> Self {
        Self(EXACT.into_iter().find(|exact| known.iter().any(|name| name == exact)))
    }

    /// On a server that is not asked.
    pub(super) const fn of_newest() -> Self {
        Self(Some(EXACT[1]))
    }

    /// Its type; bytes, where the server has no such collation.
    fn kind(self) -> String {
        let text = |collation| format!("VARCHAR(255) CHARACTER SET utf8mb4 COLLATE {collation}");
        self.0.map_or_else(|| "VARBINARY(1020)".to_owned(), text)
    }
}

/// The statement that makes a table.
pub(super) fn create(own: &OwnTable, key_text: KeyText) -> String {
    let columns = own.columns.iter().enumerate().map(|(place, column)| {
        format!("  `{}` {} {}", column.name, kind(own, place, key_text), null(column))
    });
    let position = POSITION.iter().zip(POSITION_TYPES);
    let position = position.map(|(name, kind)| format!("  `{name}` {kind} NOT NULL"));
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

fn kind(own: &OwnTable, place: usize, key_text: KeyText) -> String {
    let kind = match own.columns[place].kind {
        OwnKind::String if own.is_key(place) => return key_text.kind(),
        OwnKind::String => "VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
        OwnKind::Text => "TEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
        OwnKind::Int64 => "BIGINT",
        OwnKind::UInt64 => "BIGINT UNSIGNED",
        OwnKind::Float64 => "DOUBLE",
        OwnKind::Bool => "BOOLEAN",
        OwnKind::Time => "DATETIME(3)",
        OwnKind::Json => "JSON",
    };
    kind.to_owned()
}

fn null(column: &OwnColumn) -> &'static str {
    if column.is_nullable() { "NULL" } else { "NOT NULL" }
}

/// What mends a table of the user's own that stands; empty where it fits. Rows that are there have no values of what is
/// added: NULL is allowed in it.
pub(super) fn alters(own: &OwnTable, standing: &Standing, key_text: KeyText) -> Vec<String> {
    let table = &own.name;
    let mut alters = Vec::new();
    let mut compare =
        |name: &str, kind: &str, null: &str, fits: &dyn Fn(&Column) -> bool| match standing.column(name) {
            None => alters.push(format!("ALTER TABLE `{table}` ADD COLUMN `{name}` {kind} NULL")),
            Some(found) if !fits(found) || found.unsaid == Unsaid::Formula => {
                alters.push(format!("ALTER TABLE `{table}` MODIFY COLUMN `{name}` {kind} {null}"));
            }
            Some(_) => {}
        };
    for (place, column) in own.columns.iter().enumerate() {
        let fits = |found: &Column| holds(column, found, own.is_key(place));
        let mut wanted = kind(own, place, key_text);
        if let Some(found) = standing.column(&column.name).filter(|found| has_room(column, found)) {
            // Never narrower than it is: values that stand would be cut.
            let (_, rest) = wanted.split_once(" CHARACTER SET").unwrap_or_default();
            wanted = if rest.is_empty() {
                found.kind.clone()
            } else {
                format!("{} CHARACTER SET{rest}", found.kind)
            };
        }
        compare(&column.name, &wanted, null(column), &fits);
    }
    for (name, kind) in POSITION.iter().zip(POSITION_TYPES) {
        let wanted = kind.split(['(', ' ']).next().unwrap_or_default();
        compare(name, kind, "NOT NULL", &|found| bare(&found.kind).eq_ignore_ascii_case(wanted));
    }
    let unique = unique(own);
    let written: Vec<&str> = own.columns.iter().map(|column| column.name.as_str()).chain(POSITION).collect();
    alters.extend(obstacles(table, &written, Some(&unique), standing));
    if !standing.indexes.iter().any(|index| index.covers(&unique) && index.columns.len() == unique.len()) {
        alters.push(format!("ALTER TABLE `{table}` ADD UNIQUE KEY weir_unique ({})", listed(&unique)));
    }
    alters
}

/// What takes away what would refuse rows of a table, or let one replace another that it is not: `written` are the columns
/// that a row has, `unique` those of which no two rows have the same values.
pub(super) fn obstacles(
    table: &str,
    written: &[&str],
    unique: Option<&[&str]>,
    standing: &Standing,
) -> Vec<String> {
    let is_written = |name: &str| written.iter().any(|written| written.eq_ignore_ascii_case(name));
    // No two rows have the same there, or NULL, which is never the same.
    let is_apart = |column: &Column| {
        let is_null = column.is_nullable && column.unsaid == Unsaid::Nothing;
        !is_written(&column.name) && (is_null || column.unsaid == Unsaid::Counter)
    };
    let harms = |index: &&Index| {
        let mut columns = index.columns.iter().flatten().filter_map(|name| standing.column(name));
        !columns.any(is_apart) && !unique.is_some_and(|unique| index.covers(unique))
    };
    let drop = |index: &Index| match index.name.as_str() {
        "PRIMARY" => format!("ALTER TABLE `{table}` DROP PRIMARY KEY"),
        name => format!("ALTER TABLE `{table}` DROP INDEX {}", quoted(name)),
    };
    let dropped = standing.indexes.iter().filter(harms).map(drop);
    let is_missed = |column: &&Column| {
        !is_written(&column.name) && !column.is_nullable && column.unsaid == Unsaid::Nothing
    };
    let allowed = standing.columns.iter().filter(is_missed).map(|column| {
        let collation = column.collation.as_ref().map_or_else(String::new, |name| format!(" COLLATE {name}"));
        let (name, kind) = (quoted(&column.name), &column.kind);
        format!("ALTER TABLE `{table}` MODIFY COLUMN {name} {kind}{collation} NULL")
    });
    dropped.chain(allowed).collect()
}

/// A name that the user gave.
fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

impl Standing {
    fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name.eq_ignore_ascii_case(name))
    }
}

impl Index {
    /// Whether all of these are whole columns of it.
    fn covers(&self, unique: &[&str]) -> bool {
        let has = |name: &str| self.columns.iter().flatten().any(|column| column.eq_ignore_ascii_case(name));
        unique.iter().all(|name| has(name))
    }
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

/// Whether the type of the column that stands takes every value.
fn has_room(column: &OwnColumn, found: &Column) -> bool {
    let bare = bare(&found.kind);
    let is = |kinds: &[&str]| kinds.contains(&bare.as_str());
    match column.kind {
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
    }
}

/// Whether every value of a column goes into the one that stands, and stays as it is.
fn holds(column: &OwnColumn, found: &Column, is_key: bool) -> bool {
    let is_text = matches!(column.kind, OwnKind::String | OwnKind::Text);
    let collation = found.collation.as_deref().unwrap_or_default();
    // Another character set cannot hold every text.
    let text = !is_text || if is_key { EXACT.contains(&collation) } else { collation.starts_with("utf8mb4") };
    let bytes = is_key && is_text && bare(&found.kind) == "varbinary" && width(&found.kind) >= 1020;
    (has_room(column, found) && text || bytes) && (found.is_nullable || !column.is_nullable())
}

#[cfg(test)]
mod tests {
    use super::super::super::SinkName;
    use super::super::super::batch::Topic;
    use super::super::super::own::tests::tables;
    use super::*;

    const NOPAD: KeyText = KeyText(Some(EXACT[0]));

    fn own(name: &str) -> &'static OwnTable {
        tables().of(Topic::Enriched, SinkName::Mysql).find(|own| own.name == name).unwrap()
    }

    fn column(name: &str, kind: &str, collation: &str, unsaid: Unsaid) -> Column {
        let collation = Some(collation.to_owned()).filter(|name| !name.is_empty());
        Column { name: name.to_owned(), kind: kind.to_owned(), is_nullable: false, collation, unsaid }
    }

    fn index(name: &str, columns: &[&str]) -> Index {
        // An expression has no column.
        let whole = |name: &&str| Some((*name).to_owned()).filter(|name| !name.is_empty());
        Index { name: name.to_owned(), columns: columns.iter().map(whole).collect() }
    }

    /// `newest`, as [`create`] makes it.
    fn newest() -> Standing {
        let columns = vec![
            column("device", "varchar(255)", EXACT[0], Unsaid::Nothing),
            column("version", "datetime(3)", "", Unsaid::Nothing),
            column("all", "longtext", "utf8mb4_bin", Unsaid::Nothing),
            column(POSITION[0], "varchar(249)", "ascii_bin", Unsaid::Nothing),
            column(POSITION[1], "int(11)", "", Unsaid::Nothing),
            column(POSITION[2], "bigint(20)", "", Unsaid::Nothing),
        ];
        Standing { engine: "InnoDB".to_owned(), columns, indexes: vec![index("PRIMARY", &["device"])] }
    }

    #[test]
    fn a_key_tells_texts_apart_that_end_with_spaces() {
        let made = |known: &[&str]| {
            let known: Vec<String> = known.iter().map(|name| (*name).to_owned()).collect();
            create(own("newest"), KeyText::on(&known))
        };
        let text = "`device` VARCHAR(255) CHARACTER SET utf8mb4 COLLATE";
        assert!(made(&EXACT).contains(&format!("{text} utf8mb4_nopad_bin NOT NULL")));
        assert!(made(&EXACT[1..]).contains(&format!("{text} utf8mb4_0900_bin NOT NULL")));
        assert!(made(&[]).contains("`device` VARBINARY(1020) NOT NULL"));
        assert_eq!(alters(own("newest"), &newest(), NOPAD), Vec::<String>::new());
        // Never narrower than it stands.
        let mut padded = newest();
        padded.columns[0] = column("device", "varchar(400)", "utf8mb4_bin", Unsaid::Nothing);
        let wide = "`device` varchar(400) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin";
        assert_eq!(
            alters(own("newest"), &padded, NOPAD),
            [format!("ALTER TABLE `newest` MODIFY COLUMN {wide} NOT NULL")]
        );
        padded.columns[0] = column("device", "varbinary(1020)", "", Unsaid::Nothing);
        assert_eq!(alters(own("newest"), &padded, NOPAD), Vec::<String>::new());
    }

    #[test]
    fn what_is_added_to_rows_that_stand_may_be_null() {
        let mut lacks = newest();
        lacks.columns.retain(|column| column.name != "version");
        assert_eq!(
            alters(own("newest"), &lacks, NOPAD),
            ["ALTER TABLE `newest` ADD COLUMN `version` DATETIME(3) NULL"]
        );
    }

    #[test]
    fn an_index_that_lets_a_row_replace_another_is_dropped() {
        let altered = |index: Index| {
            let mut standing = newest();
            standing.columns.push(column("id", "bigint(20)", "", Unsaid::Counter));
            let mut note = column("a`b", "int", "", Unsaid::Nothing);
            note.is_nullable = true;
            standing.columns.push(note);
            standing.indexes.push(index);
            alters(own("newest"), &standing, NOPAD)
        };
        let dropped = ["ALTER TABLE `newest` DROP INDEX `one`"];
        for harmful in [&["version"][..], &[""], &["", "version"]] {
            assert_eq!(altered(index("one", harmful)), dropped, "{harmful:?}");
        }
        for harmless in [&["id"][..], &["a`b", "version"], &["version", "Device"], &["device", ""]] {
            assert_eq!(altered(index("one", harmless)), Vec::<String>::new(), "{harmless:?}");
        }
        let mut narrow = newest();
        narrow.indexes = vec![index("PRIMARY", &["version"])];
        assert_eq!(
            alters(own("newest"), &narrow, NOPAD),
            [
                "ALTER TABLE `newest` DROP PRIMARY KEY",
                "ALTER TABLE `newest` ADD UNIQUE KEY weir_unique (`device`)"
            ]
        );
    }

    #[test]
    fn a_column_that_wants_a_value_that_no_row_has_may_be_null() {
        let altered = |extra: Column| {
            let mut standing = newest();
            standing.columns.push(extra);
            alters(own("newest"), &standing, NOPAD)
        };
        let text = |unsaid| column("a`b", "varchar(9)", "latin1_bin", unsaid);
        assert_eq!(
            altered(text(Unsaid::Nothing)),
            ["ALTER TABLE `newest` MODIFY COLUMN `a``b` varchar(9) COLLATE latin1_bin NULL"]
        );
        assert_eq!(altered(text(Unsaid::Default)), Vec::<String>::new());
        let mut computed = newest();
        computed.columns[1].unsaid = Unsaid::Formula;
        assert_eq!(
            alters(own("newest"), &computed, NOPAD),
            ["ALTER TABLE `newest` MODIFY COLUMN `version` datetime(3) NOT NULL"]
        );
    }
}
