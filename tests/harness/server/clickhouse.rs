//! The ClickHouse engine behind `clickhouse_front.py`.
//!
//! In: folders and port. Out: its recipe. Guarantees: the front only forwards (its own doc says how).
//! On failure: see `server.rs`.

use std::path::Path;

use super::{Recipe, text};
use crate::addresses::{HOST, Ports};
use crate::readiness::Probe;

const FRONT: &str = include_str!("../clickhouse_front.py");

pub(super) fn recipe(data: &Path, dist: &Path, ports: Ports) -> Recipe {
    let folder = data.join("clickhouse");
    let front = folder.join("clickhouse_front.py");
    Recipe {
        name: "clickhouse",
        run: vec![
            text(&dist.join("python/bin/python")),
            "-u".to_owned(),
            text(&front),
            format!("--host={HOST}"),
            format!("--port={}", ports.clickhouse()),
            format!("--data={}", text(&folder)),
        ],
        files: vec![(front, FRONT.to_owned())],
        prepare: Vec::new(),
        ports: vec![ports.clickhouse()],
        probe: Probe::Clickhouse(format!("http://{HOST}:{}", ports.clickhouse())),
        folder,
    }
}
