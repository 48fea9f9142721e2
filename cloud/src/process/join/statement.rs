//! Statements in a binlog: what they can do to the tables that are followed.
//!
//! Comes in: the text of a QUERY event. Goes out: a [`Statement`]. Guarantees: fails closed: what is not known to be
//! harmless is [`Statement::Suspect`]. A binlog in ROW format holds statements for what is not rows: transactions,
//! definitions, accounts. A definition is harmless when it names none of the tables, nor, where it could be about a whole
//! database, one of theirs; names are looked for anywhere in the text, so that no spelling hides them. Changes by
//! statement are never harmless, whatever table they name, since a trigger may carry them on. Pure.

/// What a statement does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Statement {
    /// A transaction begins.
    Begin,
    /// It ends, and counts.
    Commit,
    /// It ends, and does not.
    Rollback,
    /// Nothing of interest within a transaction, or an end of one that holds no rows.
    Harmless,
    /// Perhaps something of interest; the reason as metrics show it.
    Suspect(&'static str),
}

/// Reads a statement. `names` are the tables, `databases` their databases, in lower case without backticks.
pub(super) fn classify(text: &[u8], names: &[String], databases: &[String]) -> Statement {
    let text = String::from_utf8_lossy(text).replace('`', "").to_lowercase();
    let mut words = words(&text);
    let first = words.next().unwrap_or_default();
    let second = words.next().unwrap_or_default();
    match (first, second) {
        ("begin", _) | ("start", "transaction") | ("xa", "start" | "begin") => Statement::Begin,
        ("commit", _) => Statement::Commit,
        ("rollback", "to") => Statement::Suspect("savepoint"),
        ("rollback", _) | ("xa", "rollback") => Statement::Rollback,
        // The rows of a prepared transaction came before, perhaps before the load.
        ("xa", "commit") => Statement::Suspect("xa"),
        // No word at all is a comment alone.
        ("" | "savepoint" | "release" | "flush" | "grant" | "revoke" | "optimize" | "repair", _)
        | ("xa", "end")
        | ("set", "password" | "default")
        // Before any other word MariaDB executes what it analyzes.
        | ("analyze", "table" | "local" | "no_write_to_binlog") => Statement::Harmless,
        ("create" | "alter" | "drop" | "rename" | "truncate", _) => {
            // Letters outside ASCII may be written in other ways.
            let named = |name: &String| !name.is_ascii() || text.contains(name.as_str());
            let whole = text.contains("database") || text.contains("schema");
            let touches = names.iter().any(named) || (whole && databases.iter().any(named));
            if touches { Statement::Suspect("ddl") } else { Statement::Harmless }
        }
        _ => Statement::Suspect("statement"),
    }
}

/// Words of a statement, without comments before and between them. What is no word comes as one character; nothing comes
/// only where nothing is left.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        loop {
            rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == ';' || c == '(');
            if let Some(comment) = rest.strip_prefix("/*") {
                // What stands in /*!50003 … */ or /*M!100100 … */ is executed.
                let body = comment.strip_prefix("m!").or_else(|| comment.strip_prefix('!'));
                rest = match body {
                    Some(body) => body.trim_start_matches(|c: char| c.is_ascii_digit()),
                    None => comment.split_once("*/").map_or("", |(_, rest)| rest),
                };
            } else if let Some(end) = rest.strip_prefix("*/") {
                rest = end;
            } else if rest.starts_with('#') || is_dashed(rest) {
                rest = rest.split_once('\n').map_or("", |(_, rest)| rest);
            } else {
                break;
            }
        }
        let first = rest.chars().next()?;
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        let (word, after) = rest.split_at(end.max(first.len_utf8()));
        rest = after;
        Some(word)
    })
}

/// Whether a comment begins here: `--` and then a space, a control character or the end.
fn is_dashed(text: &str) -> bool {
    let after = text.strip_prefix("--").map(|rest| rest.chars().next());
    after.is_some_and(|next| next.is_none_or(|c| c == ' ' || c.is_ascii_control()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_touch_the_tables_is_suspect() {
        let names = ["devices".to_owned()];
        let databases = ["weir".to_owned()];
        for (text, wanted) in [
            ("BEGIN", Statement::Begin),
            ("begin /* x */", Statement::Begin),
            ("START TRANSACTION", Statement::Begin),
            ("COMMIT", Statement::Commit),
            ("ROLLBACK", Statement::Rollback),
            ("ROLLBACK TO `s`", Statement::Suspect("savepoint")),
            ("SAVEPOINT `s`", Statement::Harmless),
            ("# Dummy event replacing event type 160 that slave cannot handle.", Statement::Harmless),
            ("#x\nDROP TABLE devices", Statement::Suspect("ddl")),
            ("ALTER TABLE other ADD x INT", Statement::Harmless),
            ("alter table `weir`.`Devices` add x int", Statement::Suspect("ddl")),
            ("/*!40000 ALTER TABLE devices DISABLE KEYS */", Statement::Suspect("ddl")),
            ("/*M!100100 ALTER TABLE devices ADD x INT */", Statement::Suspect("ddl")),
            ("/* note */ TRUNCATE devices", Statement::Suspect("ddl")),
            ("RENAME TABLE x TO devices", Statement::Suspect("ddl")),
            ("DROP DATABASE IF EXISTS weir", Statement::Suspect("ddl")),
            ("CREATE OR REPLACE DATABASE weir", Statement::Suspect("ddl")),
            ("DROP DATABASE other", Statement::Harmless),
            ("CREATE TABLE t (a INT)", Statement::Harmless),
            ("GRANT SELECT ON weir.devices TO u", Statement::Harmless),
            ("INSERT INTO other VALUES (1)", Statement::Suspect("statement")),
            ("UPDATE devices SET a = 1", Statement::Suspect("statement")),
            ("LOAD DATA INFILE 'x' INTO TABLE t", Statement::Suspect("statement")),
            ("SET STATEMENT a=1 FOR DELETE FROM devices", Statement::Suspect("statement")),
            ("XA COMMIT X'61',X'',1", Statement::Suspect("xa")),
            ("XA END X'61',X'',1", Statement::Harmless),
            ("nonsense", Statement::Suspect("statement")),
            // Words of comments and parts of names say nothing of what is meant.
            ("-- schema 12\nALTER TABLE devices ADD x INT", Statement::Suspect("ddl")),
            ("/* schema v2 */ ALTER TABLE devices MODIFY x INT", Statement::Suspect("ddl")),
            ("RENAME TABLE schema_new TO devices", Statement::Suspect("ddl")),
            ("DROP TABLE schema_x, devices", Statement::Suspect("ddl")),
            ("TRUNCATE TABLE schema_devices", Statement::Suspect("ddl")),
            ("/* ApplicationName=DBeaver 23 */ DROP DATABASE weir", Statement::Suspect("ddl")),
            ("DROP/**/SCHEMA weir", Statement::Suspect("ddl")),
            ("ALTER TABLE weir.other ADD x INT", Statement::Harmless),
            // A comment is what MySQL takes for one.
            ("--\nTRUNCATE TABLE devices", Statement::Suspect("ddl")),
            ("--\tx\r\nDROP TABLE devices", Statement::Suspect("ddl")),
            ("--\u{1}x\nDROP TABLE devices", Statement::Suspect("ddl")),
            ("--x\nCOMMIT", Statement::Suspect("statement")),
            ("--", Statement::Harmless),
            ("-- x", Statement::Harmless),
            ("", Statement::Harmless),
            ("\"x\"", Statement::Suspect("statement")),
            ("ANALYZE UPDATE devices SET a = 1", Statement::Suspect("statement")),
            ("ANALYZE FORMAT=JSON DELETE FROM devices", Statement::Suspect("statement")),
            ("ANALYZE NO_WRITE_TO_BINLOG TABLE devices", Statement::Harmless),
            ("ANALYZE /* x */ TABLE devices", Statement::Harmless),
        ] {
            assert_eq!(classify(text.as_bytes(), &names, &databases), wanted, "{text}");
        }
        assert_eq!(classify(b"DROP TABLE x", &["geräte".to_owned()], &databases), Statement::Suspect("ddl"));
    }
}
