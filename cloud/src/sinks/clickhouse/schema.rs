//! What a table of ClickHouse should be, and what mends one that is not.
//!
//! Comes in: a table, and the columns of the one that stands. Goes out: the statement that makes it, or one `ALTER TABLE`
//! for each difference. Columns of the older types of the same bytes ([`super::older`]) are no difference.
//! Guarantees: pure; proposes, changes nothing.

use super::super::own::{Keeps, OwnTable, Target};
use super::columns::columns;
use super::older::older_type;

/// Settings of every table: see `deploy/sql/clickhouse.sql`.
const SETTINGS: &str =
    "SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1";

/// The statement that makes a table of the user's own, laid out as those in `deploy/sql/clickhouse.sql`.
pub(super) fn create(own: &'static OwnTable) -> String {
    let columns = columns(Target::Own(own));
    let lines: Vec<String> = columns.iter().map(|(name, kind)| format!("  `{name}` {kind}")).collect();
    let (name, lines) = (&own.name, lines.join(",\n"));
    let column = |place: usize| format!("`{}`", own.columns[place].name);
    let rest = match &own.keeps {
        Keeps::All { time } => {
            let time = column(*time);
            format!("ENGINE = MergeTree\nPARTITION BY toYYYYMM({time})\nORDER BY ({time})")
        }
        // Rows are only replaced within a partition: there is one.
        Keeps::Latest { key, version } => {
            let (key, version) = (key.iter().map(|place| column(*place)), column(*version));
            let key = key.collect::<Vec<_>>().join(", ");
            format!("ENGINE = ReplacingMergeTree({version})\nORDER BY ({key})")
        }
    };
    format!(
        "CREATE TABLE IF NOT EXISTS `{name}` (\n{lines},\n  INDEX weir_position (_weir_partition, _weir_offset) \
         TYPE minmax GRANULARITY 1\n) {rest}\n{SETTINGS};\n"
    )
}

/// How the columns of a table that stands differ from what they should be.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Columns {
    /// Whether some are of older types.
    pub(super) is_older: bool,
    /// What mends them; empty where they fit.
    pub(super) alters: Vec<String>,
    /// Which column of a table of Weir's takes other bytes.
    pub(super) unfit: Option<String>,
}

/// Compares the columns of a table that stands, given their names and types.
pub(super) fn compare(target: Target, standing: &[(&str, &str)]) -> Columns {
    let table = target.name();
    let type_of = |column: &str| standing.iter().find(|(name, _)| *name == column).map(|(_, kind)| *kind);
    let wanted = columns(target);
    let mut found = Columns {
        is_older: wanted.iter().any(|(name, kind)| {
            type_of(name).is_some_and(|there| there != *kind && there == older_type(kind))
        }),
        ..Columns::default()
    };
    for (name, newer) in wanted {
        let older = older_type(newer);
        let kind = if found.is_older { &older } else { newer };
        match type_of(name) {
            None => found.alters.push(format!("ALTER TABLE {table} ADD COLUMN `{name}` {kind}")),
            Some(there) if there == newer || there == older => {}
            Some(_) if target.own().is_some() => {
                found.alters.push(format!("ALTER TABLE {table} MODIFY COLUMN `{name}` {kind}"));
            }
            Some(there) => {
                found.unfit.get_or_insert_with(|| {
                    format!(
                        "table {table}: {name} is a {there} and must be {newer} or {older}: make the column or the \
                         table anew (`weir-cloud init --dry-run` prints the statements)"
                    )
                });
            }
        }
    }
    found
}

/// Why a table cannot keep the latest row of each key, given its engine as the server writes it out; with the way out.
pub(super) fn unfit_latest(own: &OwnTable, engine: &str, full: &str) -> Option<String> {
    let Keeps::Latest { key, version } = &own.keeps else { return None };
    let (table, version) = (&own.name, &own.columns[*version].name);
    let full = full.replace('`', "");
    let anew = format!("rename it and run `weir-cloud init`, which makes a ReplacingMergeTree({version})");
    if !["ReplacingMergeTree", "ReplicatedReplacingMergeTree", "SharedReplacingMergeTree"].contains(&engine) {
        return Some(format!("table {table} has the engine {engine}, which replaces no rows: {anew}"));
    }
    let arguments =
        full.split_once('(').and_then(|(_, rest)| rest.split_once(')')).map_or("", |(inner, _)| inner);
    let is_by_version = arguments.rsplit(", ").next() == Some(version);
    let order = full.split_once(" ORDER BY ").map_or("", |(_, rest)| rest);
    let order = order.split(" SETTINGS ").next().unwrap_or_default();
    let mut order: Vec<&str> = order.trim_matches(['(', ')']).split(", ").collect();
    let mut wanted: Vec<&str> = key.iter().map(|place| own.columns[*place].name.as_str()).collect();
    order.sort_unstable();
    wanted.sort_unstable();
    (!is_by_version || order != wanted).then(|| {
        let wanted = wanted.join(", ");
        format!("table {table} keeps other rows than the highest {version} of each {wanted}: {anew}")
    })
}

#[cfg(test)]
mod tests {
    use super::super::super::SinkName;
    use super::super::super::batch::Topic;
    use super::super::super::own::tests::tables;
    use super::super::older::older_statements;
    use super::*;

    #[test]
    fn a_table_is_made_and_mended_as_it_is_described() {
        let own: Vec<_> = tables().in_store(SinkName::Clickhouse).collect();
        let append = create(own[0]);
        assert!(append.starts_with("CREATE TABLE IF NOT EXISTS `power` (\n  `device` String,\n"), "{append}");
        assert!(
            append.contains("\n  `kw` Float64,\n") && append.contains("\n  `note` Nullable(String),\n"),
            "{append}"
        );
        assert!(
            append.contains(
                "\n) ENGINE = MergeTree\nPARTITION BY toYYYYMM(`time`)\nORDER BY (`time`)\nSETTINGS "
            )
        );
        let latest = create(own[1]);
        assert!(
            latest.contains(") ENGINE = ReplacingMergeTree(`version`)\nORDER BY (`device`)\n"),
            "{latest}"
        );
        let target = Target::Own(own[0]);
        let mut standing = columns(target);
        assert_eq!(compare(target, &standing), Columns::default());
        let kw = standing.iter().position(|(name, _)| *name == "kw").unwrap();
        standing[kw].1 = "Float32";
        standing.retain(|(name, _)| *name != "note");
        let wanted = [
            "ALTER TABLE power MODIFY COLUMN `kw` Float64",
            "ALTER TABLE power ADD COLUMN `note` Nullable(String)",
        ];
        assert_eq!(compare(target, &standing).alters, wanted);
    }

    #[test]
    fn columns_are_of_either_age_and_of_no_other_width() {
        let target = Target::Fixed(Topic::Enriched);
        let newer = columns(target);
        let but = |column: &str, kind: &'static str| -> Vec<(&str, &str)> {
            newer.iter().map(|(name, there)| (*name, if *name == column { kind } else { *there })).collect()
        };
        assert_eq!(compare(target, &newer), Columns::default());
        assert_eq!(compare(target, &but("time", "Int64")), Columns { is_older: true, ..Columns::default() });
        let refused = compare(target, &but("time", "DateTime")).unfit.unwrap();
        assert!(
            refused.contains("weir_readings: time is a DateTime and must be DateTime64(3, 'UTC') or Int64")
        );
        let less: Vec<_> = newer.iter().copied().filter(|(name, _)| *name != "rules").collect();
        assert_eq!(compare(target, &less).alters, ["ALTER TABLE weir_readings ADD COLUMN `rules` UInt64"]);
    }

    #[test]
    fn a_table_of_the_users_own_on_an_older_server_has_the_same_bytes() {
        let own: Vec<_> = tables().in_store(SinkName::Clickhouse).collect();
        let append = older_statements(&create(own[0]));
        for part in [
            "  `time` Int64,\n",
            "  `_weir_topic` String,\n",
            "  `_weir_offset` Int64\n) ENGINE = MergeTree\n",
            "\nPARTITION BY toYYYYMM(toDateTime(intDiv(`time`, 1000), 'UTC'))\nORDER BY (`time`);\n",
        ] {
            assert!(append.contains(part), "{part:?} is not in\n{append}");
        }
        let latest = older_statements(&create(own[1]));
        assert!(
            latest.ends_with(") ENGINE = ReplacingMergeTree(`version`)\nORDER BY (`device`);\n"),
            "{latest}"
        );
        let older: Vec<(&str, String)> =
            columns(Target::Own(own[0])).into_iter().map(|(name, kind)| (name, older_type(kind))).collect();
        let mut older: Vec<(&str, &str)> = older.iter().map(|(name, kind)| (*name, kind.as_str())).collect();
        let target = Target::Own(own[0]);
        assert_eq!(compare(target, &older), Columns { is_older: true, ..Columns::default() });
        older.retain(|(name, _)| *name != "time");
        assert_eq!(compare(target, &older).alters, ["ALTER TABLE power ADD COLUMN `time` Int64"]);
    }

    #[test]
    fn only_a_table_that_keeps_the_highest_version_of_each_key_is_fit() {
        let own = tables().in_store(SinkName::Clickhouse).nth(1).unwrap();
        let unfit = |engine: &str, full: &str| unfit_latest(own, engine, full);
        let right = "ReplacingMergeTree(version) ORDER BY device SETTINGS index_granularity = 8192";
        assert_eq!(unfit("ReplacingMergeTree", right), None);
        let replicated = "ReplicatedReplacingMergeTree('/p', '{r}', version) ORDER BY (device)";
        assert_eq!(unfit("ReplicatedReplacingMergeTree", replicated), None);
        assert!(unfit("MergeTree", "MergeTree ORDER BY device").unwrap().contains("replaces no rows"));
        for wrong in
            ["ReplacingMergeTree ORDER BY device", "ReplacingMergeTree(version) ORDER BY (device, site)"]
        {
            assert!(unfit("ReplacingMergeTree", wrong).unwrap().contains("keeps other rows"), "{wrong}");
        }
    }
}
