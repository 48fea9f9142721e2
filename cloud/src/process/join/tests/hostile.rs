//! What happens to the server itself: restarted, its binlog purged and reset, statements in it.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use weir_harness::places::Places;

use super::DEVICES;
use super::rig::{Rig, patiently};

/// A MariaDB for one test.
struct Server {
    folder: PathBuf,
    port: u16,
    child: Option<Child>,
}

impl Server {
    fn new(name: &str) -> Self {
        let folder = Places::find().unwrap().stack("dimensions").join(name);
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        let tables = format!("--datadir={}", folder.join("tables").display());
        let done = Command::new("mariadb-install-db")
            .args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"])
            .args(as_root())
            .arg(tables)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .expect("mariadb-install-db of the Debian package mariadb-server");
        assert!(done.success());
        // A port that nobody has now.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut server = Self { folder, port, child: None };
        server.start();
        server
    }

    fn start(&mut self) {
        let init = self.folder.join("init.sql");
        std::fs::write(
            &init,
            "SET SESSION sql_log_bin=0;\nCREATE DATABASE IF NOT EXISTS weir CHARACTER SET utf8mb4;\n\
             CREATE USER IF NOT EXISTS weir@'127.0.0.1' IDENTIFIED BY 'weir';\n\
             GRANT ALL ON *.* TO weir@'127.0.0.1';\n",
        )
        .unwrap();
        let sbin = PathBuf::from("/usr/sbin/mariadbd");
        let program = if sbin.exists() { sbin } else { PathBuf::from("mariadbd") };
        let child = Command::new(program)
            .current_dir(&self.folder)
            .args(["--no-defaults", "--bind-address=127.0.0.1", "--socket=m.sock", "--pid-file=m.pid"])
            .args(as_root())
            .args(["--server-id=1", "--log-bin=bin", "--binlog-format=ROW", "--skip-name-resolve"])
            .args(["--innodb-buffer-pool-size=32M", "--character-set-server=utf8mb4"])
            .arg(format!("--datadir={}", self.folder.join("tables").display()))
            .arg(format!("--port={}", self.port))
            .arg(format!("--init-file={}", init.display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("mariadbd of the Debian package mariadb-server");
        self.child = Some(child);
        patiently(|| {
            let connected = std::net::TcpStream::connect(("127.0.0.1", self.port));
            connected.map_err(|_| format!("mariadbd did not start in {}", self.folder.display()))
        });
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    fn url(&self) -> String {
        format!("mysql://weir:weir@127.0.0.1:{}/weir", self.port)
    }
}

/// What MariaDB wants to be told when root starts it.
fn as_root() -> Option<&'static str> {
    let me = std::fs::metadata("/proc/self").unwrap();
    (std::os::unix::fs::MetadataExt::uid(&me) == 0).then_some("--user=root")
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

#[test]
fn a_server_that_is_restarted_purged_and_reset() {
    let mut server = Server::new("hostile");
    let mut rig = Rig::new(&server.url());
    rig.table("dim_lived", DEVICES, "INSERT INTO dim_lived VALUES ('a', 'Graz', 1)");
    rig.start(&[("d", "dim_lived", "")]);
    let wanted = |n: u32| format!(r#"{{"site":"Graz","n":{n}}}"#);
    rig.wait("d", "a", Some(&wanted(1)));

    // The binlog goes on in another file.
    let before = rig.version("d");
    rig.run("FLUSH BINARY LOGS; UPDATE dim_lived SET n = 2");
    rig.wait("d", "a", Some(&wanted(2)));
    assert_eq!(rig.version("d") / 10_000_000_000, before / 10_000_000_000 + 1);
    assert_eq!(rig.reloads().len(), 0, "{:?}", rig.reloads());

    // Killed, changed while nobody follows, its old files purged.
    server.kill();
    rig.until("it is noticed", |rig| !rig.reloads().is_empty());
    assert_eq!(rig.row("d", "a"), Some(wanted(2)), "the old rows serve");
    server.start();
    rig.reconnect();
    rig.run(
        "FLUSH BINARY LOGS; UPDATE dim_lived SET n = 3; FLUSH BINARY LOGS; PURGE BINARY LOGS TO 'bin.000004'",
    );
    rig.wait("d", "a", Some(&wanted(3)));
    rig.run("UPDATE dim_lived SET n = 4");
    rig.wait("d", "a", Some(&wanted(4)));

    // Reset while it is followed.
    let reloads = rig.reloads().len();
    rig.run("RESET MASTER; UPDATE dim_lived SET n = 5");
    rig.wait("d", "a", Some(&wanted(5)));
    assert!(rig.reloads().len() > reloads);
    rig.run("UPDATE dim_lived SET n = 6");
    rig.wait("d", "a", Some(&wanted(6)));

    // Statements in the binlog of rows, of this table and of any other.
    rig.run("CREATE TABLE beside (a INT)");
    let mixed = |statement: &str| {
        format!("SET SESSION binlog_format = STATEMENT; {statement}; SET SESSION binlog_format = ROW")
    };
    rig.run_and_reload(&mixed("UPDATE dim_lived SET n = 7"), "statement");
    assert_eq!(rig.row("d", "a"), Some(wanted(7)));
    rig.run_and_reload(&mixed("INSERT INTO beside VALUES (1)"), "statement");

    // A connection that is killed.
    let connection = rig.binlog_connection();
    rig.run_and_reload(&format!("KILL {connection}"), "connection");

    // A transaction that was prepared before, and one in rows that are not whole.
    rig.run("XA START 'x'; UPDATE dim_lived SET n = 8; XA END 'x'; XA PREPARE 'x'");
    rig.run_and_reload("XA COMMIT 'x'", "xa");
    assert_eq!(rig.row("d", "a"), Some(wanted(8)));
    let partly = "SET SESSION binlog_row_image = MINIMAL; UPDATE dim_lived SET n = 9; SET SESSION binlog_row_image = FULL";
    rig.run_and_reload(partly, "row_image");
    assert_eq!(rig.row("d", "a"), Some(wanted(9)));

    // Settings that do not show every change.
    for (setting, back) in [
        ("binlog_format = MIXED", "binlog_format = ROW"),
        ("binlog_row_image = MINIMAL", "binlog_row_image = FULL"),
    ] {
        rig.run(&format!("SET GLOBAL {setting}"));
        let refused = rig.refusal("dim_lived", "");
        assert!(refused.contains("SHOW GLOBAL VARIABLES LIKE"), "{refused}");
        rig.run(&format!("SET GLOBAL {back}"));
    }
}
