//! The other search servers: Elasticsearch 8 and OpenSearch 2, on a stack of their own with a Kafka of its own.
//!
//! Into each goes a run of records of all five topics, in small compressed requests; the sink is killed in mid-stream. Every
//! document must be there once, of a window result the highest revision; a record that the server cannot map must be a dead
//! letter; and `weir-cloud verify --deep` must find the same. A server that knows no policies for old indices must be refused
//! when they are asked for.

use std::process::Output;

use serde_json::Value;
use weir_harness::addresses::{Addresses, SEARCH};
use weir_harness::stack::Stack;
use weir_shared::clock;

use super::records::Record;
use super::*;

/// Readings in the server at which the sink is killed.
const KILL_AT: usize = 200;
/// What the servers call a document that does not fit.
const REFUSED: [&str; 3] =
    ["mapper_parsing_exception", "document_parsing_exception", "illegal_argument_exception"];

/// Taken down at the end, also after a failure.
struct Own(Stack);

impl Drop for Own {
    fn drop(&mut self) {
        let _down_or_told = self.0.down();
    }
}

#[test]
fn elasticsearch_8_and_opensearch_have_every_topic_once_although_the_sink_was_killed() {
    let own = Own(Stack::up(SEARCH, true, &mut |line| eprintln!("{line}")).unwrap());
    let (stack, ports) = (&own.0, own.0.ports());
    let programs = Programs::new(stack).unwrap();
    for port in [ports.elasticsearch(), ports.opensearch()] {
        let url = format!("http://127.0.0.1:{port}");
        let addresses = Addresses { elasticsearch_url: url, ..stack.addresses() };
        store_a_run(&programs, &addresses);
    }
}

fn store_a_run(programs: &Programs<'_>, addresses: &Addresses) {
    let url = &addresses.elasticsearch_url;
    let oracle = Oracle::new(addresses).unwrap();
    std::fs::write(programs.config(Program::Cloud), config(addresses, "")).unwrap();
    programs.init().unwrap();
    programs.start_role(&["sink", "elasticsearch"]).unwrap();
    programs.wait_ready(Program::Cloud).unwrap();

    let begun_ms = clock::wall_ms();
    let mut records = Records::new(&new_run_name());
    records.all.push(unmappable(&records.run));
    let stream = MidStream::new(2 * TRANSACTION_EVERY);
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| send(&addresses.kafka, &records.all, &stream));
        let has_enough = || found(&oracle, &records)[&Table::Readings].len() >= KILL_AT;
        stream.kill_when(has_enough, || programs.kill(Program::Cloud).unwrap());
        sender.join().unwrap();
    });

    let wanted = wanted(&records);
    // What is missing is said below.
    let _all = holds_within(STORED, LOOK_EVERY, || Ok(found(&oracle, &records) == wanted)).unwrap();
    assert_eq!(programs.stop_one(Program::Cloud).unwrap(), Some(0));
    for (table, found) in found(&oracle, &records) {
        compare(&format!("{table:?} in {url}"), &found, &wanted[&table]);
    }
    is_refused_for_what_is_in_it(&oracle);
    verify(programs, begun_ms, records.all.len() as u64);
    knows_no_policies(programs, addresses);
}

/// What it must hold: of the letters those of the only sink that ran, and that of the record that cannot be mapped.
fn wanted(records: &Records) -> Rows {
    let mut wanted = records.wanted(Store::Elasticsearch);
    let letters = wanted.entry(Table::Letters).or_default();
    letters.retain(|letter| letter.starts_with("sink.elasticsearch|"));
    letters.push("sink.elasticsearch|\"unmappable\"".to_owned());
    letters.sort();
    wanted
}

fn found(oracle: &Oracle, records: &Records) -> Rows {
    stores::rows(oracle, Store::Elasticsearch, &records.run).unwrap()
}

/// A window result with a value that is a number and an object.
fn unmappable(run: &str) -> Record {
    let weir = format!(
        r#"{{"stream":"ffffffffffffffffffffffffffffffff","partition":1,"number":1,"edge":"{run}","joined":true}}"#
    );
    let json = format!(
        r#"{{"weir":{weir},"dims":{{}},"broken":"unmappable","rule":"odd","key":{{"device":"d0"}},"start":1790000000000,"end":1790000010000,"revision":0,"count":1,"values":{{"odd":1,"odd.odd":2}}}}"#
    );
    Record { topic: wire::AGGREGATES, key: "d0".to_owned(), json }
}

/// One letter names what the server says of a document.
fn is_refused_for_what_is_in_it(oracle: &Oracle) {
    let query = serde_json::json!({"query": {"terms": {"reason": REFUSED}}});
    let answer = oracle.in_elasticsearch("weir-rejected-*/_search", &query).unwrap();
    let letters = answer["hits"]["hits"].as_array().unwrap();
    assert_eq!(letters.len(), 1, "{answer}");
    let letter = &letters[0]["_source"];
    assert_eq!(letter["stage"], "sink.elasticsearch");
    assert!(letter["detail"].as_str().is_some_and(|detail| detail.contains("odd")), "{letter}");
}

/// `weir-cloud verify --deep` over what came since then: `sent` records, and dead letters.
fn verify(programs: &Programs<'_>, since_ms: i64, sent: u64) {
    let from = jiff::Timestamp::from_millisecond(since_ms).unwrap().to_string();
    let words = ["verify", "--deep", "--json", "--store", "elasticsearch", "--from", &from];
    let Output { status, stdout, stderr } = programs.command(Program::Cloud, &words).output().unwrap();
    let report: Value =
        serde_json::from_slice(&stdout).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&stderr)));
    let sum = |what: &str| -> u64 {
        report["topics"].as_array().unwrap().iter().filter_map(|topic| topic[what].as_u64()).sum()
    };
    assert_eq!(["lost", "doubled", "altered"].map(sum), [0; 3], "{report}");
    let accounted: u64 = ["stored", "elsewhere", "refused", "replaced"].map(sum).iter().sum();
    assert!(accounted > sent, "{accounted} of {sent}, and the dead letters: {report}");
    assert!(status.success() && report["ok"] == true, "{status}: {report}");
}

/// The embedded servers lack the module: `init --dry-run` shows what would be put, and `init` names the way out.
fn knows_no_policies(programs: &Programs<'_>, addresses: &Addresses) {
    std::fs::write(programs.config(Program::Cloud), config(addresses, "retention_days = 30")).unwrap();
    let shown = programs.command(Program::Cloud, &["init", "--dry-run"]).output().unwrap();
    let text = String::from_utf8_lossy(&shown.stdout) + String::from_utf8_lossy(&shown.stderr);
    assert!(shown.status.success() && text.contains("31d") && text.contains("61d"), "{text}");
    let refused = programs.command(Program::Cloud, &["init"]).output().unwrap();
    let text = String::from_utf8_lossy(&refused.stdout) + String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && text.contains("retention_days = 0"), "{text}");
}

fn config(addresses: &Addresses, more: &str) -> String {
    format!(
        "slot = \"search\"\n[admin]\nlisten = \"{}\"\n[kafka]\nbrokers = \"{}\"\n[sink.elasticsearch]\nenabled = true\n\
         url = \"{}\"\ncompression = true\nbulk_bytes_max = 16384\nconcurrency_max = 4\n{more}\n",
        addresses.cloud_admin, addresses.kafka, addresses.elasticsearch_url
    )
}
