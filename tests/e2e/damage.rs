//! The oracle seen failing: in each real store one row of the run is dropped, one doubled, one altered, and the oracle
//! must name exactly that store and that kind, after each step. The verdict of the run itself was taken before.
//! `weir-cloud verify` must find all right before, and the same damage after the last step, while other tests send.

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use weir_harness::oracle::{Oracle, Store, Verdict};
use weir_harness::programs::{Program, Programs};

use crate::first_light::{FirstLight, READINGS, first_light};

/// What is wrong in a store: lost, doubled, altered, unexpected.
type Wrong = [u64; 4];

/// One way to damage a row in one store.
struct Step {
    store: Store,
    name: &'static str,
    /// What the oracle must count once more.
    adds: Wrong,
    damage: fn(&Oracle, &str) -> anyhow::Result<()>,
}

const LOST: Wrong = [1, 0, 0, 0];
const DOUBLED: Wrong = [0, 1, 0, 0];
const ALTERED: Wrong = [0, 0, 1, 0];

const STEPS: [Step; 9] = [
    Step { store: Store::Mysql, name: "drop", adds: LOST, damage: mysql_drop },
    Step { store: Store::Mysql, name: "double", adds: DOUBLED, damage: mysql_double },
    Step { store: Store::Mysql, name: "alter", adds: ALTERED, damage: mysql_alter },
    Step { store: Store::Elasticsearch, name: "drop", adds: LOST, damage: elasticsearch_drop },
    Step { store: Store::Elasticsearch, name: "double", adds: DOUBLED, damage: elasticsearch_double },
    Step { store: Store::Elasticsearch, name: "alter", adds: ALTERED, damage: elasticsearch_alter },
    Step { store: Store::Clickhouse, name: "drop", adds: LOST, damage: clickhouse_drop },
    Step { store: Store::Clickhouse, name: "double", adds: DOUBLED, damage: clickhouse_double },
    Step { store: Store::Clickhouse, name: "alter", adds: ALTERED, damage: clickhouse_alter },
];

#[test]
fn the_oracle_names_the_store_and_the_kind() {
    let run = first_light();
    assert!(run.verdict.is_right(), "\n{}", run.verdict);
    let oracle = Oracle::new(&run.stack.addresses()).unwrap();
    let ids = shuttle_ids(&oracle, run).unwrap();
    assert_eq!(
        verified(run).unwrap(),
        [("mysql", [0; 3]), ("elasticsearch", [0; 3]), ("clickhouse", [0; 3])]
    );
    let mut wanted: Vec<(Store, Wrong)> = Store::ALL.map(|store| (store, [0; 4])).to_vec();
    for (step, id) in STEPS.iter().zip(&ids) {
        (step.damage)(&oracle, id)
            .unwrap_or_else(|e| panic!("{} in {}: {e:#}", step.name, step.store.name()));
        let damaged = wanted.iter_mut().find(|(store, _)| *store == step.store).unwrap();
        damaged.1.iter_mut().zip(step.adds).for_each(|(n, more)| *n += more);
        let verdict = oracle.judge(&run.killed.issued).unwrap();
        assert_eq!(
            wrong(&verdict),
            wanted,
            "after {} of {id} in {}:\n{verdict}",
            step.name,
            step.store.name()
        );
        assert!(!verdict.is_right());
    }
    // The double in Elasticsearch has an id that Weir never gives: nobody would look for it.
    let wanted = [("mysql", [1, 1, 1]), ("elasticsearch", [1, 0, 1]), ("clickhouse", [1, 1, 1])];
    assert_eq!(verified(run).unwrap(), wanted);
}

/// What `weir-cloud verify --deep` counts in each store: lost, doubled, altered.
fn verified(run: &FirstLight) -> anyhow::Result<Vec<(&'static str, [u64; 3])>> {
    let programs = Programs::new(&run.stack)?;
    let done = programs.command(Program::Cloud, &["verify", "--deep", "--json"]).output()?;
    let report: Value = serde_json::from_slice(&done.stdout)
        .with_context(|| format!("verify: {}", String::from_utf8_lossy(&done.stderr)))?;
    ensure!(report["ok"] == done.status.success(), "{report}: {}", done.status);
    let all = report["topics"].as_array().context("topics")?;
    let stored: u64 = all.iter().filter_map(|topic| topic["stored"].as_u64()).sum();
    ensure!(stored >= 3 * READINGS, "only {stored} were found: {report}");
    let of = |store: &'static str| {
        let topics = all.iter().filter(|topic| topic["store"] == store);
        let sum = |what| topics.clone().filter_map(|topic| topic[what].as_u64()).sum();
        (store, ["lost", "doubled", "altered"].map(sum))
    };
    Ok(["mysql", "elasticsearch", "clickhouse"].map(of).to_vec())
}

fn wrong(verdict: &Verdict) -> Vec<(Store, Wrong)> {
    let counts = |(store, j): &(Store, weir_harness::oracle::Judgement)| {
        let l = j.letters;
        assert_eq!([l.lost, l.doubled, l.altered, l.unexpected], [0; 4], "dead letters in {}", store.name());
        (*store, [j.lost, j.doubled, j.altered, j.unexpected])
    };
    verdict.judgements.iter().map(counts).collect()
}

/// As many ids as there are steps, of readings that have the value `f1`.
fn shuttle_ids(oracle: &Oracle, run: &FirstLight) -> anyhow::Result<Vec<String>> {
    let answer = oracle.in_clickhouse(&format!(
        "SELECT tags['id'] AS id FROM weir_readings WHERE tags['run'] = '{}' AND startsWith(device, 'shuttle') \
         ORDER BY id LIMIT {} FORMAT TabSeparated",
        run.killed.issued.run,
        STEPS.len()
    ))?;
    let ids: Vec<String> = answer.lines().map(str::to_owned).collect();
    ensure!(ids.len() == STEPS.len(), "only {} ids", ids.len());
    Ok(ids)
}

fn one_row_in_mysql(oracle: &Oracle, statement: &str) -> anyhow::Result<()> {
    let rows = oracle.in_mysql(statement)?;
    ensure!(rows == 1, "{statement}: {rows} rows");
    Ok(())
}

fn mysql_drop(oracle: &Oracle, id: &str) -> anyhow::Result<()> {
    one_row_in_mysql(oracle, &format!("DELETE FROM weir_readings WHERE JSON_VALUE(tags, '$.id') = '{id}'"))
}

fn mysql_double(oracle: &Oracle, id: &str) -> anyhow::Result<()> {
    let columns = "stream, stream_partition, number, edge, device, time, received, clock, `values`, tags, dims, versions, joined";
    let row = format!("SELECT {columns} FROM weir_readings WHERE JSON_VALUE(tags, '$.id') = '{id}'");
    one_row_in_mysql(oracle, &format!("INSERT INTO weir_readings ({columns}) {row}"))
}

fn mysql_alter(oracle: &Oracle, id: &str) -> anyhow::Result<()> {
    one_row_in_mysql(
        oracle,
        &format!(
            "UPDATE weir_readings SET `values` = JSON_SET(`values`, '$.f1', 123456) \
             WHERE JSON_VALUE(tags, '$.id') = '{id}'"
        ),
    )
}

fn document(oracle: &Oracle, id: &str) -> anyhow::Result<(String, String, Value)> {
    let query = json!({"query": {"term": {"tags.id": id}}});
    let answer = oracle.in_elasticsearch("weir-readings-*/_search", &query)?;
    let hit = &answer["hits"]["hits"][0];
    let text =
        |value: &Value| value.as_str().map(str::to_owned).with_context(|| format!("no document: {answer}"));
    Ok((text(&hit["_index"])?, text(&hit["_id"])?, hit["_source"].clone()))
}

fn elasticsearch_drop(oracle: &Oracle, id: &str) -> anyhow::Result<()> {
    let (index, key, _) = document(oracle, id)?;
    oracle.delete_in_elasticsearch(&index, &key)
}

fn elasticsearch_double(oracle: &Oracle, id: &str) -> anyhow::Result<()> {
    let (index, _, source) = document(oracle, id)?;
    let answer = oracle.in_elasticsearch(&format!("{index}/_doc/doubled-{id}?refresh=true"), &source)?;
    ensure!(answer["result"] == "created", "{answer}");
    Ok(())
}

fn elasticsearch_alter(oracle: &Oracle, id: &str) -> anyhow::Result<()> {
    let (index, key, _) = document(oracle, id)?;
    let change = json!({"doc": {"values": {"f1": 123_456}}});
    let answer = oracle.in_elasticsearch(&format!("{index}/_update/{key}?refresh=true"), &change)?;
    ensure!(answer["result"] == "updated", "{answer}");
    Ok(())
}

fn clickhouse_drop(oracle: &Oracle, id: &str) -> anyhow::Result<()> {
    mutation(oracle, &format!("DELETE WHERE tags['id'] = '{id}'"))
}

fn clickhouse_double(oracle: &Oracle, id: &str) -> anyhow::Result<()> {
    let row = format!("SELECT * FROM weir_readings WHERE tags['id'] = '{id}'");
    oracle.in_clickhouse(&format!("INSERT INTO weir_readings {row}")).map(drop)
}

fn clickhouse_alter(oracle: &Oracle, id: &str) -> anyhow::Result<()> {
    mutation(
        oracle,
        &format!("UPDATE numbers = mapUpdate(numbers, map('f1', 123456.0)) WHERE tags['id'] = '{id}'"),
    )
}

fn mutation(oracle: &Oracle, change: &str) -> anyhow::Result<()> {
    oracle.in_clickhouse(&format!("ALTER TABLE weir_readings {change} SETTINGS mutations_sync = 2")).map(drop)
}
