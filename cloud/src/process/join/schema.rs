//! What the server says of a dimension table, and whether it can be used.
//!
//! Comes in: a connection and a `[[dimension]]`. Goes out: its columns, and what each means in a row event.
//! Guarantees: refused are, with the statement that shows it and the way out: a key that is not unique, since a
//! reading could then have two rows, or not exact; and in binlog mode everything that would not be seen in the binlog, or not with
//! the same bytes as a `SELECT` shows.
//! On failure: [`Error::Refused`]; the caller tries again, since the table may be mended meanwhile.

use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use super::config::{DimensionConfig, quote};
use super::image::Meaning;
use super::load::{Error, answered};

/// A table as it is.
#[derive(Clone, Debug)]
pub(super) struct Schema {
    /// As the server writes it.
    pub(super) database: String,
    /// As the server writes it.
    pub(super) table: String,
    /// All columns in their order.
    pub(super) columns: Vec<Column>,
    /// What each means in a row event; in binlog mode.
    pub(super) meanings: Vec<Meaning>,
}

/// A column.
#[derive(Clone, Debug)]
pub(super) struct Column {
    pub(super) name: String,
    data_type: String,
    column_type: String,
    charset: Option<String>,
    bytes_max: Option<u64>,
    scale: Option<u64>,
    extra: String,
    nullable: bool,
}

/// One row of `information_schema.COLUMNS`.
type Described = (String, String, String, Option<String>, Option<u64>, Option<u64>, String, String);

impl Schema {
    /// Reads what the server says.
    pub(super) async fn read(conn: &mut Conn, config: &DimensionConfig) -> Result<Self, Error> {
        let (database, table) = (config.database.as_str(), config.table.as_str());
        let statement = "SELECT TABLE_SCHEMA, TABLE_NAME, TABLE_TYPE, IFNULL(ENGINE, '') \
            FROM information_schema.TABLES WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ?";
        let found: Option<(String, String, String, String)> =
            answered(conn.exec_first(statement, (database, table))).await?;
        let Some((database, table, kind, engine)) = found else {
            return Err(Error::Refused(format!(
                "there is no table {}, or no right to read it",
                config.quoted()
            )));
        };
        let statement = "SELECT COLUMN_NAME, DATA_TYPE, CAST(COLUMN_TYPE AS CHAR), CHARACTER_SET_NAME, \
            CHARACTER_OCTET_LENGTH, NUMERIC_SCALE, EXTRA, IS_NULLABLE FROM information_schema.COLUMNS \
            WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ? ORDER BY ORDINAL_POSITION";
        let columns: Vec<Described> = answered(conn.exec(statement, (&database, &table))).await?;
        let columns = columns
            .into_iter()
            .map(|(name, data_type, column_type, charset, bytes_max, scale, extra, nullable)| Column {
                name,
                data_type: data_type.to_lowercase(),
                column_type,
                charset,
                bytes_max,
                scale,
                extra: extra.to_uppercase(),
                nullable: nullable == "YES",
            })
            .collect();
        let mut schema = Self { database, table, columns, meanings: Vec::new() };
        schema.check_unique(conn, config).await?;
        if matches!(config.mode, super::config::Mode::Binlog) {
            schema.check_followable(conn, config, &kind, &engine).await?;
            schema.meanings = schema.columns.iter().map(|_| Meaning::Unused).collect();
        }
        Ok(schema)
    }

    /// Place of a column; names are compared as MySQL does.
    fn place(&self, config: &DimensionConfig, name: &str) -> Result<usize, Error> {
        let is_it = |c: &Column| c.name.to_lowercase() == name.to_lowercase();
        self.columns.iter().position(is_it).ok_or_else(|| {
            let table = config.quoted();
            Error::Refused(format!("{table} has no column {name}; `SHOW COLUMNS FROM {table}` shows them"))
        })
    }

    /// Places of the key's columns, and of those that are shown.
    pub(super) fn places(&self, config: &DimensionConfig) -> Result<(Vec<usize>, Vec<usize>), Error> {
        let all = |names: &[String]| -> Result<Vec<usize>, Error> {
            names.iter().map(|name| self.place(config, name)).collect()
        };
        let key = all(&config.key)?;
        let shown = if config.columns.is_empty() {
            let is_shown = |i: &usize| !key.contains(i) && !self.columns[*i].extra.contains("INVISIBLE");
            (0..self.columns.len()).filter(is_shown).collect()
        } else {
            all(&config.columns)?
        };
        Ok((key, shown))
    }

    /// In binlog mode: what the used columns mean.
    pub(super) fn learn(&mut self, config: &DimensionConfig, used: &[usize]) -> Result<(), Error> {
        for i in used {
            let column = &self.columns[*i];
            self.meanings[*i] = column.meaning().map_err(|why| {
                Error::Refused(format!(
                    "column {} of {}, {} ({}), {why}; leave it out of columns, or set mode = \"poll\"",
                    column.name,
                    config.quoted(),
                    column.column_type,
                    column.charset.as_deref().unwrap_or("no character set"),
                ))
            })?;
        }
        Ok(())
    }

    /// Refuses a key without a unique index of its own over its whole length, one that may be NULL, and one of numbers
    /// that are not exact.
    async fn check_unique(&self, conn: &mut Conn, config: &DimensionConfig) -> Result<(), Error> {
        let statement = "SELECT INDEX_NAME, COLUMN_NAME, NON_UNIQUE, SUB_PART FROM information_schema.STATISTICS \
            WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ?";
        let parts: Vec<(String, Option<String>, u64, Option<u64>)> =
            answered(conn.exec(statement, (&self.database, &self.table))).await?;
        let mut key = Vec::new();
        for name in &config.key {
            key.push(self.place(config, name)?);
        }
        let place = |name: &Option<String>| self.columns.iter().position(|c| Some(&c.name) == name.as_ref());
        let fits = |index: &str| {
            let mut columns = Vec::new();
            for (_, column, non_unique, part) in parts.iter().filter(|(name, ..)| name == index) {
                match place(column) {
                    Some(i) if *non_unique == 0 && part.is_none() && key.contains(&i) => columns.push(i),
                    _ => return false,
                }
            }
            columns.len() == key.len() && key.iter().all(|i| columns.contains(i))
        };
        let (names, table) = (config.key.join(", "), config.quoted());
        if let Some(column) = key.iter().map(|i| &self.columns[*i]).find(|column| column.is_inexact()) {
            let (name, kind) = (quote(&column.name), &column.column_type);
            return Err(Error::Refused(format!(
                "the key {names} of {table} has {name}, {kind}: the text of such a number is not exact, so a reading \
                 could miss its row or meet another one; `SHOW COLUMNS FROM {table}` shows it, a key of INT, DECIMAL or \
                 VARCHAR mends it"
            )));
        }
        if !parts.iter().any(|(index, ..)| fits(index)) {
            let quoted: Vec<String> = config.key.iter().map(|name| quote(name)).collect();
            return Err(Error::Refused(format!(
                "the key {names} of {table} has no unique index, so a reading could have two rows; \
                 `SHOW INDEX FROM {table}` shows it, `ALTER TABLE {table} ADD UNIQUE ({})` mends it",
                quoted.join(", ")
            )));
        }
        if let Some(column) = key.iter().map(|i| &self.columns[*i]).find(|column| column.nullable) {
            let (name, kind) = (quote(&column.name), &column.column_type);
            return Err(Error::Refused(format!(
                "the key {names} of {table} may be NULL, and a unique index allows NULL many times; \
                 `SHOW COLUMNS FROM {table}` shows it, `ALTER TABLE {table} MODIFY {name} {kind} NOT NULL` mends it"
            )));
        }
        Ok(())
    }

    /// Refuses a table whose changes do not all come as row events.
    async fn check_followable(
        &self,
        conn: &mut Conn,
        config: &DimensionConfig,
        kind: &str,
        engine: &str,
    ) -> Result<(), Error> {
        let table = config.quoted();
        let refuse = |what: &str, shows: &str| {
            Err(Error::Refused(format!("{table} {what}; `{shows} {table}` shows it; set mode = \"poll\"")))
        };
        if kind != "BASE TABLE" {
            let what = format!("is a {kind}, whose rows are not in the binlog as they are");
            return refuse(&what, "SHOW CREATE TABLE");
        }
        if engine != "InnoDB" {
            let what =
                format!("is kept by {engine}: only InnoDB gives rows and binlog position of one moment");
            return refuse(&what, "SHOW CREATE TABLE");
        }
        if let Some(column) = self.columns.iter().find(|c| c.extra.contains("VIRTUAL")) {
            let what = format!("has the virtual column {}, which is not in the binlog", column.name);
            return refuse(&what, "SHOW CREATE TABLE");
        }
        let created: Option<(String, String)> =
            answered(conn.query_first(format!("SHOW CREATE TABLE {table}"))).await?;
        let created = created.map(|(_, statement)| statement).unwrap_or_default();
        match created.lines().find(|line| cascades(line)) {
            Some(line) => {
                let what = format!(
                    "is changed by a foreign key, and such changes are not in the binlog ({})",
                    line.trim().trim_end_matches(',')
                );
                refuse(&what, "SHOW CREATE TABLE")
            }
            None => Ok(()),
        }
    }
}

/// Whether a line of `SHOW CREATE TABLE` is a foreign key that changes rows of this table.
fn cascades(line: &str) -> bool {
    let changes = [" CASCADE", " SET NULL", " SET DEFAULT"];
    line.trim_start().starts_with("CONSTRAINT ")
        && line.contains(" FOREIGN KEY (")
        && line.split(" ON ").skip(1).any(|rule| changes.iter().any(|change| rule.contains(change)))
}

impl Column {
    /// Whether several of its numbers may have one text.
    fn is_inexact(&self) -> bool {
        matches!(self.data_type.as_str(), "float" | "double")
    }

    /// What it means in a row event, or why its text cannot be made from one.
    fn meaning(&self) -> Result<Meaning, &'static str> {
        let has = |word: &str| self.column_type.contains(word);
        if has("/*") {
            return Err("is stored in a form of its own");
        }
        let zerofill = has("zerofill");
        let text = || match self.charset.as_deref() {
            Some("utf8mb4" | "utf8mb3" | "utf8" | "ascii") => Ok(Meaning::Utf8),
            Some("latin1") => Ok(Meaning::Latin1),
            _ => Err("has a character set that is not read from the binlog"),
        };
        Ok(match self.data_type.as_str() {
            "tinyint" | "smallint" | "mediumint" | "int" | "bigint" => {
                Meaning::Integer { unsigned: has("unsigned") }
            }
            "float" | "double" | "decimal" if zerofill => return Err("has leading zeros"),
            "float" | "double" => Meaning::Float(self.scale.and_then(|n| usize::try_from(n).ok())),
            "decimal" => Meaning::Decimal,
            "year" if has("(2)") => return Err("has two digits"),
            "year" => Meaning::Year,
            "date" => Meaning::Date,
            "time" => Meaning::Time,
            "datetime" => Meaning::DateTime,
            "timestamp" => Meaning::Timestamp,
            "bit" => Meaning::Bit,
            "char" | "varchar" | "tinytext" | "text" | "mediumtext" | "longtext" => text()?,
            "binary" => {
                let fill = self.bytes_max.and_then(|n| usize::try_from(n).ok());
                Meaning::Bytes { fill: fill.ok_or("has no length")? }
            }
            "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" => Meaning::Bytes { fill: 0 },
            "enum" | "set" => {
                text()?;
                let names =
                    names(&self.column_type).ok_or("has names that the schema does not show as they are")?;
                if self.data_type == "enum" { Meaning::One(names) } else { Meaning::Some(names) }
            }
            _ => return Err("has a type that is not read from the binlog"),
        })
    }
}

/// Names of `enum('a','b''c')`; `None` where the server may have written one in another way than it is.
fn names(column_type: &str) -> Option<Vec<String>> {
    let list = column_type.split_once('(')?.1.rsplit_once(')')?.0;
    // A backslash escapes, depending on a mode; a question mark may stand for what utf8mb3 does not hold.
    if list.contains(['\\', '?']) {
        return None;
    }
    let mut names = Vec::new();
    let mut rest = list;
    loop {
        let mut name = String::new();
        rest = rest.strip_prefix('\'')?;
        loop {
            let (part, after) = rest.split_once('\'')?;
            name.push_str(part);
            match after.strip_prefix('\'') {
                Some(more) => {
                    name.push('\'');
                    rest = more;
                }
                None => {
                    rest = after;
                    break;
                }
            }
        }
        names.push(name);
        match rest.strip_prefix(',') {
            Some(more) => rest = more,
            None => return rest.is_empty().then_some(names),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_an_enum() {
        assert_eq!(names("enum('a','b''c',',')").unwrap(), ["a", "b'c", ","]);
        assert_eq!(names("set('')").unwrap(), [""]);
        assert_eq!(names("enum('a\\\\b')"), None);
        assert_eq!(names("enum('a"), None);
    }

    #[test]
    fn cascades_are_seen() {
        let line = |rest: &str| format!("  CONSTRAINT `f` FOREIGN KEY (`a`) REFERENCES `p` (`a`){rest},");
        assert!(cascades(&line(" ON DELETE CASCADE")));
        assert!(cascades(&line(" ON DELETE SET NULL")));
        assert!(cascades(&line(" ON DELETE NO ACTION ON UPDATE CASCADE")));
        assert!(!cascades(&line("")));
        assert!(!cascades(&line(" ON UPDATE NO ACTION")));
        assert!(!cascades("  `a` int COMMENT 'FOREIGN KEY ( ON DELETE CASCADE',"));
    }
}
