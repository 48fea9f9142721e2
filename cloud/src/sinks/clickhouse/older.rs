//! What a server that lacks newer types (before 21.12) holds in place of our columns.
//!
//! Comes in: types and statements as `deploy/sql/clickhouse.sql` has them. Goes out: those that an older server takes.
//! Guarantees: a value of the older type has the same bytes in RowBinary, so that rows are written and compared in one
//! way: `DateTime64(3)` is its Int64 of ms, `Bool` a UInt8, `LowCardinality` its inner type, and a `Map` a list of pairs,
//! in a tuple of one, as a list of pairs alone would be stored as two columns. Pure.

/// Where a server says which types it knows, and the newest of those that we use.
pub(super) const NEWEST_TYPE: &str = "SELECT name FROM system.data_type_families WHERE name = 'Bool'";

/// The type of the same bytes that an older server knows.
pub(super) fn older_type(kind: &str) -> String {
    let plain = kind
        .replace("LowCardinality(String)", "String")
        .replace("LowCardinality(Nullable(String))", "Nullable(String)")
        .replace("DateTime64(3, 'UTC')", "Int64")
        .replace("Bool", "UInt8");
    match plain.strip_prefix("Map(") {
        Some(pair) => format!("Tuple(Array(Tuple({pair}))"),
        None => plain,
    }
}

/// The shipped statements for an older server: no index on the position, no setting of a table, nothing to be added to
/// tables of earlier releases, which no such server has.
pub(super) fn older_statements(sql: &str) -> String {
    let mut older = String::with_capacity(sql.len());
    for line in sql.lines() {
        if line.starts_with("  INDEX ") {
            end_with(&mut older, "");
        } else if line.starts_with("SETTINGS ") {
            end_with(&mut older, ";");
        } else if let Some((name, kind)) = line.strip_prefix("  `").and_then(|line| line.split_once("` ")) {
            let (kind, comma) = kind.strip_suffix(',').map_or((kind, ""), |kind| (kind, ","));
            older += &format!("  `{name}` {}{comma}", older_type(kind));
        } else if let Some(time) = line.strip_prefix("PARTITION BY toYYYYMM(") {
            older += &format!(
                "PARTITION BY toYYYYMM(toDateTime(intDiv({}, 1000), 'UTC'))",
                time.trim_end_matches(')')
            );
        } else if !line.starts_with("ALTER TABLE ") {
            older += line;
        }
        if !older.ends_with('\n') {
            older.push('\n');
        }
    }
    older
}

/// Lets the last line end with `end`, in place of a comma.
fn end_with(text: &mut String, end: &str) {
    text.truncate(text.trim_end_matches(['\n', ',']).len());
    text.push_str(end);
}

#[cfg(test)]
mod tests {
    use super::super::super::batch::Topic;
    use super::super::super::own::Target;
    use super::super::columns::columns;
    use super::*;

    #[test]
    fn statements_hold_the_older_types_and_nothing_newer() {
        let older = older_statements(include_str!("../../../../deploy/sql/clickhouse.sql"));
        for topic in Topic::ALL {
            let target = Target::Fixed(topic);
            let (_, text) = older.split_once(&format!("EXISTS {} (\n", target.name())).unwrap();
            let (text, rest) =
                text.split_once("\n) ENGINE = MergeTree\nPARTITION BY toYYYYMM(toDateTime(").unwrap();
            let wanted: Vec<String> = columns(target)
                .iter()
                .map(|(name, kind)| format!("  `{name}` {}", older_type(kind)))
                .collect();
            assert_eq!(text, wanted.join(",\n"));
            let (order, _) = rest.split_once(";\n").unwrap();
            assert!(order.contains("\nORDER BY (") && order.ends_with(')'), "{order}");
        }
        let statements: Vec<&str> = older.lines().filter(|line| !line.starts_with("--")).collect();
        for newer in ["LowCardinality", "Map", "Bool", "DateTime64", "INDEX", "SETTINGS", "ALTER"] {
            assert!(!statements.iter().any(|line| line.contains(newer)), "{newer}");
        }
        assert!(older.contains("AS latest\n  FROM weir_aggregates\n"), "the view is the same");
    }

    #[test]
    fn types_of_the_same_bytes() {
        for (newer, older) in [
            ("Map(LowCardinality(String), Bool)", "Tuple(Array(Tuple(String, UInt8)))"),
            ("Nullable(DateTime64(3, 'UTC'))", "Nullable(Int64)"),
            ("LowCardinality(Nullable(String))", "Nullable(String)"),
            ("FixedString(16)", "FixedString(16)"),
        ] {
            assert_eq!(older_type(newer), older);
        }
    }
}
