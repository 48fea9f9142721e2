//! The dimension table of the demo and the tests: some of the simulated devices, so that others are unknown.
//!
//! Comes in: the table's name. Goes out: SQL that can be run again and again. Pure.

use std::fmt::Write as _;

/// Devices that stand in the table; `shuttle-15` to `shuttle-19`, `water-03` and `water-04` do not.
pub fn known() -> impl Iterator<Item = String> {
    (0..15).map(|n| format!("shuttle-{n:02}")).chain((0..3).map(|n| format!("water-{n:02}")))
}

/// The statement that makes the table.
#[must_use]
pub fn create(table: &str) -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS {table} (device VARCHAR(255) NOT NULL PRIMARY KEY, site VARCHAR(64) NOT NULL, \
         line INT NOT NULL, area_m2 DECIMAL(8,2) NULL, commissioned DATE NOT NULL) \
         ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin"
    )
}

/// The statement that fills it.
#[must_use]
pub fn fill(table: &str) -> String {
    let mut sql = format!("REPLACE INTO {table} (device, site, line, area_m2, commissioned) VALUES ");
    for (n, device) in known().enumerate() {
        let comma = if n == 0 { "" } else { ", " };
        let site = ["Graz", "Zürich", "Gent"][n % 3];
        let area = if n % 4 == 0 { "NULL".to_owned() } else { format!("{}.25", 100 + n) };
        write!(sql, "{comma}('{device}', '{site}', {n}, {area}, '2021-03-{:02}')", 1 + n)
            .expect("a String takes everything");
    }
    sql
}
