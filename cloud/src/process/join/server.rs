//! What is asked of a database server itself: its settings, and where its binlog stands.
//!
//! Guarantees: a server whose binlog does not show every change of a table is refused, with the statement that shows
//! it and the way out.

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row};

use super::load::{Error, answered};

/// Settings that a binlog must have to be followed.
const SETTINGS: [(&str, &[&str]); 6] = [
    ("log_bin", &["ON", "1"]),
    ("binlog_format", &["ROW"]),
    ("binlog_row_image", &["FULL"]),
    ("log_bin_compress", &["OFF", "0"]),
    ("binlog_transaction_compression", &["OFF", "0"]),
    ("binlog_row_value_options", &[""]),
];

/// Refuses a server whose binlog cannot be followed.
pub(super) async fn check(conn: &mut Conn) -> Result<(), Error> {
    for (name, wanted) in SETTINGS {
        let asked = conn.query_first(format!("SHOW GLOBAL VARIABLES LIKE '{name}'"));
        let found: Option<(String, String)> = answered(asked).await?;
        // A setting that the server does not know does not stand in the way.
        if let Some((_, value)) = found
            && !wanted.contains(&value.to_uppercase().as_str())
        {
            return Err(Error::Refused(format!(
                "the server's {name} is {value:?}, not {}; `SHOW GLOBAL VARIABLES LIKE '{name}'` shows it; change it, \
                 or set mode = \"poll\"",
                wanted[0]
            )));
        }
    }
    Ok(())
}

/// File and offset where the binlog ends.
pub(super) async fn end(conn: &mut Conn) -> Result<(String, u64), Error> {
    // The old name went with MySQL 8.4.
    let row: Option<Row> = match answered(conn.query_first("SHOW MASTER STATUS")).await {
        Err(Error::Server(mysql_async::Error::Server(error))) if error.code == SYNTAX => {
            answered(conn.query_first("SHOW BINARY LOG STATUS")).await?
        }
        row => row?,
    };
    let row = row.ok_or_else(|| {
        Error::Refused(
            "the server has no binlog; `SHOW MASTER STATUS` shows it; set mode = \"poll\"".to_owned(),
        )
    })?;
    for filter in ["Binlog_Do_DB", "Binlog_Ignore_DB"] {
        let value: Option<String> = row.get_opt(filter).and_then(Result::ok);
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            return Err(Error::Refused(format!(
                "the server's binlog leaves changes out ({filter} is {value:?}); `SHOW MASTER STATUS` shows it; set \
                 mode = \"poll\""
            )));
        }
    }
    match (row.get_opt(0).and_then(Result::ok), row.get_opt(1).and_then(Result::ok)) {
        (Some(file), Some(offset)) => Ok((file, offset)),
        _ => Err(Error::Refused(
            "`SHOW MASTER STATUS` gives no file and position; set mode = \"poll\"".to_owned(),
        )),
    }
}

/// MySQL's error for a statement that it cannot read.
const SYNTAX: u16 = 1064;

/// File and offset of the binlog at the moment of the consistent snapshot that is open; only MariaDB tells.
pub(super) async fn snapshot_position(conn: &mut Conn) -> Result<Option<(String, u64)>, Error> {
    let rows: Vec<(String, String)> =
        answered(conn.query("SHOW STATUS LIKE 'binlog\\_snapshot\\_%'")).await?;
    let value = |name: &str| {
        let found = rows.iter().find(|(n, _)| n.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.clone()).filter(|value| !value.is_empty())
    };
    let offset = value("Binlog_snapshot_position").and_then(|text| text.parse().ok());
    Ok(value("Binlog_snapshot_file").zip(offset))
}
