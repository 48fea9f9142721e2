//! Followers against real servers: the stack `test`, or the one that `WEIR_DIMENSIONS_MYSQL` names.
//!
//! Each test has tables of its own. What would disturb the others (a binlog that is reset, a server that restarts, a
//! statement in a row binlog) runs on a server of its own, in [`hostile`]. A server that is missing fails the tests.

mod hostile;
mod rig;
mod types;

use std::time::Duration;

use rig::{Rig, stack_url};
use weir_shared::clock::{instant, since};

const DEVICES: &str = "device VARCHAR(40) NOT NULL PRIMARY KEY, site VARCHAR(40), n INT NOT NULL DEFAULT 0";

#[test]
fn a_load_and_the_changes_behind_it() {
    let mut rig = Rig::new(&stack_url());
    rig.table("dim_basic", DEVICES, "INSERT INTO dim_basic VALUES ('a', 'Graz', 1), ('b', NULL, 2)");
    rig.start(&[("d", "dim_basic", "")]);
    rig.wait("d", "a", Some(r#"{"site":"Graz","n":1}"#));
    rig.wait("d", "b", Some(r#"{"site":null,"n":2}"#));
    let version = rig.version("d");
    rig.run("INSERT INTO dim_basic VALUES ('c', 'Wien', 3)");
    rig.wait("d", "c", Some(r#"{"site":"Wien","n":3}"#));
    assert!(rig.version("d") > version, "a later version is higher");
    rig.run("UPDATE dim_basic SET n = 9 WHERE device = 'a'");
    rig.wait("d", "a", Some(r#"{"site":"Graz","n":9}"#));
    rig.run("DELETE FROM dim_basic WHERE device = 'b'");
    rig.wait("d", "b", None);
    rig.run("UPDATE dim_basic SET device = 'A' WHERE device = 'a'");
    rig.wait("d", "A", Some(r#"{"site":"Graz","n":9}"#));
    assert_eq!(rig.row("d", "a"), None, "keys are compared byte by byte");
    rig.run("REPLACE INTO dim_basic VALUES ('c', 'Linz', 4)");
    rig.wait("d", "c", Some(r#"{"site":"Linz","n":4}"#));
    rig.run("BEGIN; UPDATE dim_basic SET n = 0; ROLLBACK; UPDATE dim_basic SET n = 5 WHERE device = 'c'");
    rig.wait("d", "c", Some(r#"{"site":"Linz","n":5}"#));
    rig.run("BEGIN; UPDATE dim_basic SET n = 6; SAVEPOINT s; DELETE FROM dim_basic; ROLLBACK TO s; COMMIT");
    rig.wait("d", "A", Some(r#"{"site":"Graz","n":6}"#));
    rig.wait("d", "c", Some(r#"{"site":"Linz","n":6}"#));
    rig.run("CREATE TABLE IF NOT EXISTS other_one (a INT); INSERT INTO other_one VALUES (1); DROP TABLE other_one");
    rig.run("UPDATE dim_basic SET n = 7 WHERE device = 'c'");
    rig.wait("d", "c", Some(r#"{"site":"Linz","n":7}"#));
    assert_eq!(rig.reloads().iter().filter(|r| **r != "savepoint").count(), 0, "{:?}", rig.reloads());
}

#[test]
fn a_version_goes_on_where_no_row_changes() {
    let mut rig = Rig::new(&stack_url());
    rig.table("dim_quiet", DEVICES, "INSERT INTO dim_quiet VALUES ('a', 'Graz', 1)");
    rig.table("beside_quiet", DEVICES, "");
    rig.start(&[("d", "dim_quiet", "")]);
    let version = rig.version("d");
    rig.run("INSERT INTO beside_quiet VALUES ('a', 'Graz', 1)");
    rig.until("the version goes on", |rig| rig.version("d") > version);
}

#[test]
fn a_transaction_is_seen_whole_or_not_at_all() {
    let mut rig = Rig::new(&stack_url());
    rig.table("dim_whole", DEVICES, "");
    let rows: Vec<String> = (0..1_000).map(|i| format!("('d{i}', 'x', 0)")).collect();
    rig.run(&format!("INSERT INTO dim_whole VALUES {}", rows.join(",")));
    rig.start(&[("d", "dim_whole", "")]);
    for round in 1..=20 {
        // Two statements, so that half of the rows come long before the others.
        let halves = [0, 1].map(|half| {
            format!(
                "UPDATE dim_whole SET n = {round} WHERE MOD(CAST(SUBSTR(device, 2) AS UNSIGNED), 2) = {half}"
            )
        });
        rig.spawn(&format!("BEGIN; {}; DO SLEEP(0.02); {}; COMMIT", halves[0], halves[1]));
        let (old, new) =
            (format!(r#"{{"site":"x","n":{}}}"#, round - 1), format!(r#"{{"site":"x","n":{round}}}"#));
        let mut looks = 0u32;
        rig.until("the transaction is seen", |rig| {
            let snapshot = rig.snapshot();
            let rows: Vec<_> = (0..1_000).map(|i| rig::row_of(&snapshot, "d", &format!("d{i}"))).collect();
            let count = |wanted: &String| rows.iter().filter(|row| row.as_ref() == Some(wanted)).count();
            looks += 1;
            assert!([(1_000, 0), (0, 1_000)].contains(&(count(&old), count(&new))), "half a transaction");
            count(&new) == 1_000
        });
        assert!(looks > 0);
        rig.join_spawned();
    }
    assert_eq!(rig.reloads().len(), 0, "{:?}", rig.reloads());
}

#[test]
fn composite_keys_projections_and_two_dimensions_of_one_table() {
    let mut rig = Rig::new(&stack_url());
    let columns =
        "unit INT NOT NULL, site VARCHAR(40) NOT NULL, a INT, b INT, PRIMARY KEY (site, unit), UNIQUE (unit)";
    rig.table("dim_pair", columns, "INSERT INTO dim_pair VALUES (1, 'Graz', 10, 20), (2, 'Wien', 30, 40)");
    let pair = "key = ['unit', 'site']\non = ['values.unit', 'tags.site']\ncolumns = ['b']";
    rig.start(&[("pair", "dim_pair", pair), ("unit", "dim_pair", "key = 'unit'\ncolumns = ['site', 'a']")]);
    rig.wait("pair", "1,Graz", Some(r#"{"b":20}"#));
    assert_eq!(rig.row("pair", "1,Wien"), None);
    rig.wait("unit", "2", Some(r#"{"site":"Wien","a":30}"#));
    rig.run("UPDATE dim_pair SET a = 31, b = 41 WHERE unit = 2");
    rig.wait("pair", "2,Wien", Some(r#"{"b":41}"#));
    rig.wait("unit", "2", Some(r#"{"site":"Wien","a":31}"#));
    rig.run("UPDATE dim_pair SET site = 'Linz' WHERE unit = 2");
    rig.wait("pair", "2,Linz", Some(r#"{"b":41}"#));
    assert_eq!(rig.row("pair", "2,Wien"), None);
    assert_eq!(rig.reloads().len(), 0, "{:?}", rig.reloads());
}

#[test]
fn definitions_that_change_are_loaded_afresh() {
    let mut rig = Rig::new(&stack_url());
    rig.table("dim_ddl", DEVICES, "INSERT INTO dim_ddl VALUES ('a', 'Graz', 1)");
    rig.start(&[("d", "dim_ddl", "")]);
    for (change, wanted) in [
        ("ALTER TABLE dim_ddl ADD COLUMN x INT NOT NULL DEFAULT 5", Some(r#"{"site":"Graz","n":1,"x":5}"#)),
        ("UPDATE dim_ddl SET x = 6", Some(r#"{"site":"Graz","n":1,"x":6}"#)),
        ("ALTER TABLE dim_ddl CHANGE x y INT NOT NULL", Some(r#"{"site":"Graz","n":1,"y":6}"#)),
        ("UPDATE dim_ddl SET y = 7", Some(r#"{"site":"Graz","n":1,"y":7}"#)),
        ("ALTER TABLE dim_ddl MODIFY y BIGINT NOT NULL", Some(r#"{"site":"Graz","n":1,"y":7}"#)),
        ("UPDATE dim_ddl SET y = 5000000000", Some(r#"{"site":"Graz","n":1,"y":5000000000}"#)),
        ("ALTER TABLE dim_ddl MODIFY n INT NOT NULL FIRST", Some(r#"{"n":1,"site":"Graz","y":5000000000}"#)),
        ("ALTER TABLE dim_ddl DROP COLUMN y", Some(r#"{"n":1,"site":"Graz"}"#)),
        ("UPDATE dim_ddl SET n = 8", Some(r#"{"n":8,"site":"Graz"}"#)),
        ("TRUNCATE TABLE dim_ddl", None),
        ("INSERT INTO dim_ddl VALUES (9, 'a', 'Wien')", Some(r#"{"n":9,"site":"Wien"}"#)),
    ] {
        rig.run(change);
        rig.wait("d", "a", wanted);
    }
    assert!(rig.reloads().iter().all(|reason| *reason == "ddl"), "{:?}", rig.reloads());
    assert!(rig.reloads().len() >= 6, "{:?}", rig.reloads());
    // Away: the old rows serve. Back: the new ones are there.
    rig.run("RENAME TABLE dim_ddl TO elsewhere_ddl; UPDATE elsewhere_ddl SET n = 10");
    rig.until("it was seen", |rig| rig.reloads().contains(&"refused"));
    assert_eq!(rig.row("d", "a").as_deref(), Some(r#"{"n":9,"site":"Wien"}"#));
    rig.run("RENAME TABLE elsewhere_ddl TO dim_ddl");
    rig.wait("d", "a", Some(r#"{"n":10,"site":"Wien"}"#));
}

#[test]
fn tables_that_cannot_be_followed_are_refused_and_polled() {
    let mut rig = Rig::new(&stack_url());
    rig.run("DROP TABLE IF EXISTS dim_child, dim_parent");
    rig.table("dim_parent", "id INT NOT NULL PRIMARY KEY", "INSERT INTO dim_parent VALUES (1), (2)");
    let child = "device VARCHAR(40) NOT NULL PRIMARY KEY, p INT, \
        FOREIGN KEY (p) REFERENCES dim_parent (id) ON DELETE CASCADE";
    rig.table("dim_child", child, "INSERT INTO dim_child VALUES ('a', 1), ('b', 2)");
    rig.table("dim_free", "device VARCHAR(40) NOT NULL, n INT, KEY (device)", "");
    rig.table("dim_null", "device VARCHAR(40), n INT, UNIQUE (device)", "");
    rig.table("dim_prefix", "device VARCHAR(40) NOT NULL, n INT, UNIQUE (device(10))", "");
    rig.table("dim_part", "device VARCHAR(40) NOT NULL, n INT NOT NULL, UNIQUE (device, n)", "");
    rig.run("DROP TABLE IF EXISTS dim_other; CREATE TABLE dim_other (device INT NOT NULL PRIMARY KEY) ENGINE=MyISAM");
    rig.table("dim_charset", "device INT NOT NULL PRIMARY KEY, x VARCHAR(9) CHARACTER SET cp1250", "");
    rig.table("dim_inexact", "device FLOAT NOT NULL PRIMARY KEY, n INT", "");
    for (table, more, part) in [
        ("dim_child", "", "ON DELETE CASCADE"),
        ("dim_inexact", "", "is not exact"),
        ("dim_inexact", "mode = 'poll'", "is not exact"),
        ("dim_free", "", "ADD UNIQUE (`device`)"),
        ("dim_null", "", "may be NULL"),
        ("dim_prefix", "", "has no unique index"),
        ("dim_part", "", "has no unique index"),
        ("dim_other", "", "kept by MyISAM"),
        ("dim_charset", "", "column x of"),
        ("dim_parent", "key = 'id'\ncolumns = ['x']", "has no column x"),
        ("dim_nowhere", "", "there is no table"),
    ] {
        let refused = rig.refusal(table, more);
        assert!(refused.contains(part), "{part:?} is not in {refused}");
    }
    rig.table(
        "dim_beside",
        "device VARCHAR(40) NOT NULL PRIMARY KEY, n INT",
        "INSERT INTO dim_beside VALUES ('a', 0)",
    );
    let polled = "mode = 'poll'\npoll_ms = 100";
    rig.start(&[("d", "dim_child", polled), ("beside", "dim_beside", polled)]);
    rig.wait("d", "b", Some(r#"{"p":2}"#));
    let version = rig.version("d");
    rig.run("DELETE FROM dim_parent WHERE id = 2");
    rig.wait("d", "b", None);
    let changed = rig.version("d");
    assert!(changed > version);
    for n in 1..=3 {
        rig.run(&format!("UPDATE dim_beside SET n = {n}"));
        rig.wait("beside", "a", Some(&format!(r#"{{"n":{n}}}"#)));
    }
    assert_eq!(rig.version("d"), changed, "a version is higher only where something changed");
}

#[test]
fn a_commit_is_seen_at_once() {
    let mut rig = Rig::new(&stack_url());
    rig.table("dim_fast", DEVICES, "INSERT INTO dim_fast VALUES ('a', 'Graz', 0)");
    rig.start(&[("d", "dim_fast", "")]);
    let mut took: Vec<Duration> = (1..=200)
        .map(|i| {
            rig.run(&format!("UPDATE dim_fast SET n = {i}"));
            let began = instant();
            rig.wait("d", "a", Some(&format!(r#"{{"site":"Graz","n":{i}}}"#)));
            instant().saturating_duration_since(began)
        })
        .collect();
    took.sort_unstable();
    eprintln!("commit to snapshot: p50 {:?}, p99 {:?}, longest {:?}", took[99], took[197], took[199]);
    assert!(took[197] < Duration::from_millis(100), "{:?}", took[197]);
}

/// 100,000 rows, or as many as `WEIR_DIMENSION_ROWS` says. Prints what it measured.
#[test]
fn a_large_table() {
    let mut rig = Rig::new(&stack_url());
    let rows: usize = std::env::var("WEIR_DIMENSION_ROWS").map_or(100_000, |text| text.parse().unwrap());
    let columns =
        "device VARCHAR(40) NOT NULL PRIMARY KEY, site VARCHAR(40), line INT, n INT NOT NULL DEFAULT 0";
    rig.table("dim_large", columns, "INSERT INTO dim_large VALUES ('device-0', 'site-0', 0, 0)");
    let mut there = 1;
    while there < rows {
        let more = there.min(rows - there);
        rig.run(&format!(
            "INSERT INTO dim_large SELECT CONCAT('device-', CAST(SUBSTR(device, 8) AS UNSIGNED) + {there}), \
             CONCAT('site-', line + {there}), line + {there}, 0 FROM dim_large WHERE line < {more}"
        ));
        there += more;
    }
    let (memory, began) = (rig::resident_bytes(), instant());
    rig.start(&[("d", "dim_large", "rows_max = 10000000")]);
    let (load, memory) = (since(began), rig::resident_bytes().saturating_sub(memory));
    rig.wait(
        "d",
        &format!("device-{}", rows - 1),
        Some(&format!(r#"{{"site":"site-{0}","line":{0},"n":0}}"#, rows - 1)),
    );
    let mut changes: Vec<Duration> = (1..=20)
        .map(|i| {
            rig.run(&format!("UPDATE dim_large SET n = {i} WHERE device = 'device-7'"));
            let began = instant();
            rig.wait("d", "device-7", Some(&format!(r#"{{"site":"site-7","line":7,"n":{i}}}"#)));
            since(began)
        })
        .collect();
    changes.sort_unstable();
    let began = instant();
    rig.run("UPDATE dim_large SET n = 100");
    rig.wait("d", "device-0", Some(r#"{"site":"site-0","line":0,"n":100}"#));
    let whole = since(began);
    let (snapshot, mut out, mut found) = (rig.snapshot(), Vec::new(), super::Found::default());
    let devices: Vec<String> = (0..rows).map(|i| format!("device-{}", i * 7_919 % rows)).collect();
    let began = instant();
    assert!(devices.iter().all(|device| snapshot.join_device(device, &mut out, &mut found)));
    let join = since(began) / u32::try_from(rows).unwrap();
    eprintln!(
        "{rows} rows: load {load:?}, {} MiB; one change p50 {:?}, longest {:?}; all changed {whole:?}; join {join:?}",
        memory >> 20,
        changes[9],
        changes[19]
    );
    assert_eq!(rig.reloads().len(), 0, "{:?}", rig.reloads());
}
