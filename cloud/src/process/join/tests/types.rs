//! A row from the binlog has the same bytes as the same row loaded, whatever its columns are.

use super::rig::{Rig, stack_url};

/// Columns of every type that is followed: definition, values. A value that a server does not take is an error.
const COLUMNS: &[(&str, &[&str])] = &[
    ("TINYINT", &["-128", "0", "127"]),
    ("TINYINT UNSIGNED", &["0", "200", "255"]),
    ("SMALLINT", &["-32768", "-1", "32767"]),
    ("SMALLINT UNSIGNED", &["65535"]),
    ("MEDIUMINT", &["-8388608", "-1", "8388607"]),
    ("MEDIUMINT UNSIGNED", &["16777215"]),
    ("INT", &["-2147483648", "7"]),
    ("INT UNSIGNED", &["4294967295"]),
    ("INT(8) ZEROFILL", &["7", "123456789"]),
    ("BIGINT", &["-9223372036854775808", "9223372036854775807"]),
    ("BIGINT UNSIGNED", &["18446744073709551615"]),
    ("BOOLEAN", &["TRUE", "FALSE"]),
    (
        "FLOAT",
        &[
            "0",
            "-0e0",
            "1.1",
            "-3.14159265",
            "123456",
            "1234567",
            "16777216",
            "1e-5",
            "1.5e-30",
            "3.4e38",
            "1e15",
            "1e14",
            "0.3",
            "999999.5",
            "0.00012345678",
        ],
    ),
    ("FLOAT(7,2)", &["1.005", "-12345.67", "0"]),
    (
        "DOUBLE",
        &[
            "0",
            "0.1",
            "-1e0/3",
            "1e14",
            "1e15",
            "1e16",
            "123456789012345678",
            "1e-14",
            "1e-15",
            "1e-16",
            "1.7976931348623157e308",
            "2.2250738585072014e-308",
            "5e-324",
            "100",
            "1e22",
            "0.30000000000000004",
            "9007199254740993",
            "123456.7890625",
        ],
    ),
    ("DOUBLE(10,3)", &["1.0005", "-1234567.891", "0"]),
    ("DECIMAL(10,2)", &["0", "-0.01", "12345678.90", "-99999999.99"]),
    ("DECIMAL(30,10)", &["0.0000000001", "-12345678901234567890.0123456789", "1"]),
    ("DECIMAL(9,9)", &["0.123456789", "-0.000000001"]),
    ("DECIMAL(65,0)", &["0", "-99999999999999999999999999999999999999999999999999999999999999999"]),
    ("DECIMAL(5,3) UNSIGNED", &["99.999"]),
    ("YEAR", &["1901", "2026", "2155", "0"]),
    ("DATE", &["'2026-11-21'", "'1000-01-01'", "'9999-12-31'", "'0000-00-00'", "'2026-00-00'"]),
    ("TIME", &["'01:02:03'", "'-01:02:03'", "'838:59:59'", "'-838:59:59'", "'00:00:00'", "'-00:00:01'"]),
    ("TIME(1)", &["'01:02:03.4'", "'-00:00:00.1'"]),
    ("TIME(3)", &["'01:02:03.456'", "'-00:00:00.001'", "'-10:00:00.999'"]),
    ("TIME(6)", &["'01:02:03.456789'", "'-00:00:00.000001'", "'-838:59:58.999999'", "'00:00:00'"]),
    (
        "DATETIME",
        &["'2026-11-21 06:07:08'", "'0000-00-00 00:00:00'", "'9999-12-31 23:59:59'", "'1000-01-01'"],
    ),
    ("DATETIME(1)", &["'2026-11-21 06:07:08.9'"]),
    ("DATETIME(4)", &["'2026-11-21 06:07:08.0012'"]),
    ("DATETIME(6)", &["'2026-11-21 06:07:08.000001'", "'0000-00-00 00:00:00'"]),
    (
        "TIMESTAMP NULL",
        &[
            "'2026-11-21 06:07:08'",
            "'1970-01-01 00:00:01'",
            "'2038-01-19 03:14:07'",
            "'2024-02-29 23:59:59'",
            "'0000-00-00 00:00:00'",
            "'2000-03-01'",
        ],
    ),
    ("TIMESTAMP(2) NULL", &["'2026-11-21 06:07:08.98'"]),
    (
        "TIMESTAMP(6) NULL",
        &["'2026-11-21 06:07:08.000001'", "'0000-00-00 00:00:00'", "'1999-12-31 00:00:00'"],
    ),
    ("BIT", &["b'1'", "b'0'"]),
    ("BIT(12)", &["b'101000000001'", "1"]),
    ("BIT(64)", &["18446744073709551615", "1"]),
    ("CHAR(5)", &["'abc'", "''", "'ä€'", "'a b '", "'abcde'"]),
    ("CHAR(200)", &["REPEAT('ä', 200)", "'x'"]),
    ("CHAR(10) CHARACTER SET latin1", &["'äöü€'", "'x'"]),
    ("VARCHAR(20)", &["'abc '", "''", "'\u{1F600} \"q\\\\\\\\\"'", "'a\\nb\\tc'"]),
    ("VARCHAR(300)", &["REPEAT('é', 300)", "'x'"]),
    ("VARCHAR(20) CHARACTER SET latin1", &["'Größe €'", "_latin1 x'8081828E8F909D9FA0FF'"]),
    ("VARCHAR(20) CHARACTER SET utf8", &["'Größe €'"]),
    ("VARCHAR(20) CHARACTER SET ascii", &["'plain'"]),
    ("TINYTEXT", &["'t'", "''"]),
    ("TEXT", &["REPEAT('text ', 1000)", "'x'"]),
    ("MEDIUMTEXT", &["REPEAT('x', 70000)"]),
    ("LONGTEXT", &["'long'"]),
    ("TEXT CHARACTER SET latin1", &["'Größe €'"]),
    ("BINARY(4)", &["x'01020300'", "x'00'", "x''", "x'ff'"]),
    ("BINARY(255)", &["x'01'", "REPEAT('y', 255)"]),
    ("VARBINARY(9)", &["x'010000'", "x''"]),
    ("TINYBLOB", &["x'00ff'"]),
    ("BLOB", &["x'00ff00'", "REPEAT('z', 5000)"]),
    ("LONGBLOB", &["x'00'"]),
    ("ENUM('a','b''c','ä','x,y')", &["'a'", "'b''c'", "'ä'", "'x,y'", "''"]),
    ("ENUM('on','off') CHARACTER SET latin1", &["'on'", "'off'"]),
    ("SET('a','b','ü')", &["'a'", "'a,ü'", "''", "'b,a,ü'"]),
];

/// A table of one column: key, the column, and one that changes so that the row comes by the binlog.
fn table(rig: &mut Rig, name: &str, column: &str, values: &[&str]) {
    let rows: Vec<String> = values.iter().enumerate().map(|(i, v)| format!("({i}, {v}, 0)")).collect();
    let columns = format!("device INT NOT NULL PRIMARY KEY, v {column}, touched INT NOT NULL");
    rig.table(name, &columns, &format!("INSERT INTO {name} VALUES (999, NULL, 0), {}", rows.join(", ")));
}

#[test]
fn every_type_has_the_same_bytes_from_both() {
    let mut rig = Rig::new(&stack_url());
    let names: Vec<String> = (0..COLUMNS.len()).map(|i| format!("dim_type_{i:03}")).collect();
    for (name, (column, values)) in names.iter().zip(COLUMNS) {
        table(&mut rig, name, column, values);
    }
    let dimensions: Vec<(&str, &str, &str)> = names.iter().map(|n| (n.as_str(), n.as_str(), "")).collect();
    rig.start(&dimensions);
    for name in &names {
        rig.run(&format!("UPDATE {name} SET touched = 1"));
    }
    let last = names.last().unwrap();
    rig.until("the last change is there", |rig| rig.row(last, "999").is_some_and(|row| row.contains(":1}")));
    assert_eq!(rig.reloads().len(), 0, "the rows came by the binlog: {:?}", rig.reloads());
    let mut fresh = Rig::new(&stack_url());
    fresh.start(&dimensions);
    let mut differing = String::new();
    for (name, (column, values)) in names.iter().zip(COLUMNS) {
        for (i, value) in values.iter().enumerate().chain([(999, &"NULL")]) {
            let (followed, loaded) = (rig.row(name, &i.to_string()), fresh.row(name, &i.to_string()));
            let followed = followed.unwrap_or_default();
            assert!(followed.ends_with(r#","touched":1}"#), "{column} {value}: {followed}");
            if Some(&followed) != loaded.as_ref() {
                differing += &format!("{column} {value}: binlog {followed}, load {loaded:?}\n");
            }
        }
    }
    assert!(differing.is_empty(), "{differing}");
}

#[test]
fn many_floats_have_the_same_bytes_from_both() {
    let mut rig = Rig::new(&stack_url());
    let columns =
        "device INT NOT NULL PRIMARY KEY, f FLOAT, d DOUBLE, f2 FLOAT(10,3), d2 DOUBLE(15,4), n INT";
    rig.table("dim_floats", columns, "");
    // Magnitudes from 1e-37 to 1e37, by a generator whose numbers are the same each time.
    let mut state = 88_172_645_463_325_252u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as f64 / u64::MAX as f64
    };
    let rows: Vec<String> = (0..3_000)
        .map(|i| {
            let (m, e) = (random() * 2.0 - 1.0, (random() * 74.0 - 37.0).floor());
            let (small, value) = (random() * 1e6, format!("{m}e{e}"));
            format!("({i}, {value}, {value}, {small}, {small}, 0)")
        })
        .collect();
    rig.run(&format!("INSERT INTO dim_floats VALUES {}", rows.join(",")));
    rig.start(&[("d", "dim_floats", "")]);
    rig.run("UPDATE dim_floats SET n = 1");
    rig.until("the change is there", |rig| rig.row("d", "0").is_some_and(|row| row.ends_with(":1}")));
    assert_eq!(rig.reloads().len(), 0);
    let mut fresh = Rig::new(&stack_url());
    fresh.start(&[("d", "dim_floats", "")]);
    for i in 0..3_000 {
        assert_eq!(rig.row("d", &i.to_string()), fresh.row("d", &i.to_string()));
    }
}

#[test]
fn types_that_cannot_be_equal_are_refused() {
    let mut rig = Rig::new(&stack_url());
    for column in [
        "FLOAT ZEROFILL",
        "DECIMAL(10,2) ZEROFILL",
        "POINT",
        "VARCHAR(9) CHARACTER SET utf16",
        "ENUM('a\\\\\\\\b')",
    ] {
        rig.table("dim_refused", &format!("device INT NOT NULL PRIMARY KEY, v {column}, n INT"), "");
        let refused = rig.refusal("dim_refused", "");
        assert!(refused.contains("column v of"), "{column}: {refused}");
        // Left out, it does not stand in the way; and a table that is polled may have it.
        rig.start(&[("d", "dim_refused", "columns = ['n']"), ("p", "dim_refused", "mode = 'poll'")]);
        rig.run("INSERT INTO dim_refused (device, n) VALUES (1, 5)");
        rig.wait("d", "1", Some(r#"{"n":5}"#));
        assert_eq!(rig.reloads().len(), 0);
        rig = Rig::new(&stack_url());
    }
}
