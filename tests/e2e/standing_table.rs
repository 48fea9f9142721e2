//! A table that stands in the database already and does not fit: refused, and mended by the statements that are proposed.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

use std::process::{Command, Output};

use weir_harness::oracle::Oracle;
use weir_harness::programs::{Program, Programs};

use crate::alone;
use crate::first_light::first_light;

const TABLE: &str = "e2e_standing";
const CONFIG: &str = r#"
[[sink.table]]
name = "e2e_standing"
topic = "weir.enriched"
stores = "mysql"
rows = "latest"
key = "device"
version = "time"
[[sink.table.column]]
name = "device"
[[sink.table.column]]
name = "time"
type = "time"
[[sink.table.column]]
name = "power"
type = "float64"
from = "values.power"
"#;

/// Nearly all that can be wrong: a key that passes over spaces, a type that rounds, a column that lacks, indexes that would
/// let rows of other devices replace each other, and columns that want a value.
const STANDING: &str = "CREATE TABLE e2e_standing (id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY, \
    device VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL, power FLOAT NOT NULL, site INT NOT NULL, \
    label VARCHAR(9) CHARACTER SET latin1 NOT NULL, area INT NOT NULL DEFAULT 7, \
    double_area INT AS (2 * area) STORED, UNIQUE KEY short (device(4)), UNIQUE KEY per_site (site, label), \
    UNIQUE KEY device_and_more (device, label))";

fn run(command: &mut Command) -> (Output, String) {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    (output, text)
}

/// Drops the table, also when the test fails.
struct Table<'a>(&'a Oracle);

impl Drop for Table<'_> {
    fn drop(&mut self) {
        self.0.in_mysql(&format!("DROP TABLE IF EXISTS {TABLE}")).expect("it is ours");
    }
}

#[test]
fn a_table_that_stands_is_refused_and_what_is_proposed_mends_it() {
    let first = first_light();
    let _alone = alone();
    let programs = Programs::new(&first.stack).unwrap();
    let oracle = Oracle::new(&first.stack.addresses()).unwrap();
    let text = std::fs::read_to_string(programs.config(Program::Cloud)).unwrap();
    let config = std::env::temp_dir().join(format!("weir-e2e-standing-{}.toml", std::process::id()));
    std::fs::write(&config, text + CONFIG).unwrap();
    let cloud = programs.command(Program::Cloud, &[]);
    let init = |more: &[&str]| {
        run(Command::new(cloud.get_program()).arg("init").args(more).arg("--config").arg(&config))
    };

    let table = Table(&oracle);
    oracle.in_mysql(STANDING).unwrap();
    oracle
        .in_mysql(&format!("INSERT INTO {TABLE} (device, power, site, label) VALUES ('a', 1, 2, 'b')"))
        .unwrap();
    let (output, said) = init(&["--dry-run"]);
    assert!(output.status.success() && said.contains("this mends it: "), "{said}");
    let (output, said) = init(&[]);
    assert!(!output.status.success(), "{said}");
    let line = said.lines().find(|line| line.contains("this mends it: ")).expect(&said);
    assert!(line.contains(&format!("table {TABLE} is not as it must be")), "{line}");
    let (_, statements) = line.split_once("this mends it: ").unwrap();
    let (statements, _) = statements.rsplit_once(';').unwrap();
    for statement in statements.split("; ") {
        oracle.in_mysql(statement).unwrap_or_else(|error| panic!("{statement}: {error:#}"));
    }
    for part in
        ["DROP INDEX `short`", "DROP INDEX `per_site`", "`site` int(11) NULL", "latin1_swedish_ci NULL"]
    {
        assert!(statements.contains(part), "{part}: {statements}");
    }
    for part in ["PRIMARY", "device_and_more", "area", "`id`"] {
        assert!(!statements.contains(part), "{part}: {statements}");
    }
    let (output, said) = init(&[]);
    assert!(output.status.success(), "{said}");
    drop(table);
    std::fs::remove_file(&config).unwrap();
}
