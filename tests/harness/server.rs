//! The five servers: what each needs on disk, how it is started, how one knows that it answers.
//!
//! In: the stack's folder and ports. Out: one [`Recipe`] per server, in start order.
//! Guarantees: data and configuration below the stack's folder; loopback only; no server daemonises.
//! On failure: nothing runs here, so nothing fails but a missing program, which `install` should have
//! brought: an error that names it.

mod clickhouse;
mod clickhouse_old;
pub(crate) mod elasticsearch;
mod kafka;
mod kafka_cluster;
mod mariadb;
mod mosquitto;
mod search;

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::addresses::{CHAOS, CHAOS_CLOUD, CHAOS_SINKS, OLD_CLICKHOUSE, Ports, SEARCH};
use crate::places::Places;
use crate::readiness::Probe;

/// How to run one server.
#[derive(Clone, Debug)]
pub(crate) struct Recipe {
    /// Its name in requests, logs and folders.
    pub(crate) name: &'static str,
    /// Its data folder. Wiped and made anew unless a finished preparation is marked in it.
    pub(crate) folder: PathBuf,
    /// Files written before every start.
    pub(crate) files: Vec<(PathBuf, String)>,
    /// Commands that make the data folder, run once, one after the other; each must exit 0.
    pub(crate) prepare: Vec<Vec<String>>,
    /// The server itself.
    pub(crate) run: Vec<String>,
    /// Must be free before a start.
    pub(crate) ports: Vec<u16>,
    /// The question it answers when it is ready.
    pub(crate) probe: Probe,
}

/// All five, or those that a fault suite or a test needs. The order is also that of `status`.
pub(crate) fn recipes(places: &Places, name: &str) -> Result<Vec<Recipe>> {
    let ports = Ports::of(name)?;
    let data = places.stack(name).join("data");
    let dist = places.dist();
    if name == CHAOS_CLOUD {
        let mut recipes = kafka_cluster::recipes(&data, &dist, ports)?;
        recipes.push(mariadb::recipe(&data, ports)?);
        return Ok(recipes);
    }
    if name == SEARCH {
        return Ok(short_lived([
            kafka::recipe(&data, &dist, ports)?,
            search::elasticsearch_8(&data, &dist, ports)?,
            search::opensearch(&data, &dist, ports)?,
        ]));
    }
    if name == CHAOS_SINKS {
        return Ok(short_lived([
            kafka::recipe(&data, &dist, ports)?,
            mariadb::recipe(&data, ports)?,
            mariadb::replica(&data, ports)?,
            elasticsearch::recipe(&data, &dist, ports)?,
            clickhouse::recipe(&data, &dist, ports),
        ]));
    }
    if name == OLD_CLICKHOUSE {
        return Ok(short_lived([kafka::recipe(&data, &dist, ports)?, clickhouse_old::recipe(&data, ports)?]));
    }
    let mut recipes = vec![mosquitto::recipe(&data, ports)?, kafka::recipe(&data, &dist, ports)?];
    if name == CHAOS {
        return Ok(recipes);
    }
    recipes.extend([
        mariadb::recipe(&data, ports)?,
        elasticsearch::recipe(&data, &dist, ports)?,
        clickhouse::recipe(&data, &dist, ports),
    ]);
    Ok(recipes)
}

/// Servers that live for minutes and are not timed: a JVM that compiles quickly, not well, spares them the first minutes,
/// in which it would compile more than it works.
fn short_lived<const N: usize>(mut recipes: [Recipe; N]) -> Vec<Recipe> {
    for recipe in &mut recipes {
        if recipe.run.first().is_some_and(|program| program.ends_with("/java")) {
            recipe.run.insert(1, "-XX:TieredStopAtLevel=1".to_owned());
        }
    }
    recipes.into()
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
