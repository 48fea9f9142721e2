//! MariaDB with a row binlog, so that changes of tables can be followed.
//!
//! In: folder and port. Out: its recipe. Guarantees: database and user of `addresses.rs` exist before the
//! first connection (`--init-file`); nobody logs in without a name. On failure: see `server.rs`.

use std::path::Path;

use anyhow::Result;

use super::{Recipe, text};
use crate::addresses::{
    HOST, MYSQL_ADMIN, MYSQL_DATABASE, MYSQL_PASSWORD, MYSQL_TLS_USER, MYSQL_USER, Ports,
};
use crate::certificates::{Certificates, Identity};
use crate::install;
use crate::readiness::Probe;

pub(super) fn recipe(data: &Path, ports: Ports) -> Result<Recipe> {
    server(data, "mariadb", 1, ports.mysql())
}

/// Another one, which can follow the first.
pub(super) fn replica(data: &Path, ports: Ports) -> Result<Recipe> {
    server(data, "mariadb-replica", 2, ports.mysql_replica())
}

fn server(data: &Path, name: &'static str, id: u32, port: u16) -> Result<Recipe> {
    let folder = data.join(name);
    let tables = format!("--datadir={}", text(&folder.join("tables")));
    // A server that starts removes the temporary tables of all others that share this folder.
    let temporary = format!("--tmpdir={}", text(&folder));
    let init = folder.join("init.sql");
    let mut prepare = vec![
        text(&install::program("mariadb-install-db")?),
        "--no-defaults".to_owned(),
        "--auth-root-authentication-method=normal".to_owned(),
        "--skip-test-db".to_owned(),
        "--skip-name-resolve".to_owned(),
        tables.clone(),
        temporary.clone(),
    ];
    let mut run = vec![
        text(&install::program("mariadbd")?),
        "--no-defaults".to_owned(),
        tables,
        temporary,
        format!("--port={port}"),
        format!("--bind-address={HOST}"),
        // Relative, so inside the data folder: a socket's path may not be long.
        "--socket=mariadb.sock".to_owned(),
        "--pid-file=mariadb.pid".to_owned(),
        format!("--init-file={}", text(&init)),
        format!("--server-id={id}"),
        "--log-bin=bin".to_owned(),
        "--log-slave-updates".to_owned(),
        "--binlog-format=ROW".to_owned(),
        "--binlog-row-image=FULL".to_owned(),
        "--binlog-row-metadata=FULL".to_owned(),
        "--binlog-expire-logs-seconds=86400".to_owned(),
        "--max-binlog-size=256M".to_owned(),
        "--innodb-buffer-pool-size=256M".to_owned(),
        "--max-allowed-packet=64M".to_owned(),
        "--max-connections=200".to_owned(),
        "--character-set-server=utf8mb4".to_owned(),
        "--skip-name-resolve".to_owned(),
        "--default-time-zone=+00:00".to_owned(),
    ];
    let certificates = Certificates::of(data);
    certificates.ensure()?;
    let Identity { certificate, key } = certificates.server();
    run.push(format!("--ssl-ca={}", text(&certificates.ca())));
    run.push(format!("--ssl-cert={}", text(&certificate)));
    run.push(format!("--ssl-key={}", text(&key)));
    if rustix::process::geteuid().is_root() {
        prepare.push("--user=root".to_owned());
        run.push("--user=root".to_owned());
    }
    Ok(Recipe {
        name,
        files: vec![(init, init_sql())],
        prepare: vec![prepare],
        run,
        ports: vec![port],
        probe: Probe::Mysql(Ports::mysql_url(port)),
        folder,
    })
}

/// Run by the server at every start, before it listens; says the same thing each time. One statement per
/// line, as `--init-file` wants it; not written to the binlog.
fn init_sql() -> String {
    let (user, admin) = (format!("'{MYSQL_USER}'@'%'"), format!("'{MYSQL_ADMIN}'@'%'"));
    format!(
        "SET SESSION sql_log_bin=0;\n\
         CREATE DATABASE IF NOT EXISTS {MYSQL_DATABASE} CHARACTER SET utf8mb4;\n\
         DELETE FROM mysql.global_priv WHERE User='';\n\
         FLUSH PRIVILEGES;\n\
         CREATE USER IF NOT EXISTS {user} IDENTIFIED BY '{MYSQL_PASSWORD}';\n\
         GRANT ALL PRIVILEGES ON {MYSQL_DATABASE}.* TO {user};\n\
         GRANT RELOAD, PROCESS, REPLICATION SLAVE, BINLOG MONITOR, REPLICATION SLAVE ADMIN, \
         SLAVE MONITOR, BINLOG ADMIN, CONNECTION ADMIN ON *.* TO {user};\n\
         CREATE USER IF NOT EXISTS '{MYSQL_TLS_USER}'@'%' IDENTIFIED BY '{MYSQL_PASSWORD}' REQUIRE X509;\n\
         GRANT ALL PRIVILEGES ON {MYSQL_DATABASE}.* TO '{MYSQL_TLS_USER}'@'%';\n\
         GRANT RELOAD, PROCESS, REPLICATION SLAVE, BINLOG MONITOR, CONNECTION ADMIN ON *.* TO '{MYSQL_TLS_USER}'@'%';\n\
         CREATE USER IF NOT EXISTS {admin} IDENTIFIED BY '{MYSQL_PASSWORD}';\n\
         GRANT ALL PRIVILEGES ON *.* TO {admin};\n"
    )
}
