//! The books balance: what the programs count is what was published, and nothing disappears between two counters.

use weir_harness::programs::Samples;
use weir_shared::wire;

use crate::first_light::first_light;

fn count(samples: &Samples, name: &str, label: &str) -> u64 {
    assert!(samples.named(name).next().is_some(), "there is no metric {name}");
    samples.sum(name, label).round() as u64
}

#[test]
fn of_the_edge() {
    let run = first_light();
    let readings = run.quiet.issued.readings.len() as u64;
    let letters = run.quiet.issued.broken.len() as u64;
    let edge = |name, label: &str| count(&run.edge, name, label);
    let topic = |topic: &str| format!("topic=\"{topic}\"");
    let received = edge("weir_edge_messages_received_total", "");
    assert_eq!(received, run.quiet.counts.messages_acked);
    assert_eq!(edge("weir_edge_messages_redelivered_total", ""), 0);
    assert_eq!(edge("weir_edge_messages_acknowledged_total", ""), received);
    assert_eq!(edge("weir_edge_records_journaled_total", &topic(wire::READINGS)), readings);
    assert_eq!(edge("weir_edge_records_journaled_total", &topic(wire::EDGE_REJECTED)), letters);
    assert_eq!(edge("weir_edge_rejected_total", ""), letters);
    assert_eq!(edge("weir_edge_records_forwarded_total", &topic(wire::READINGS)), readings);
    assert_eq!(edge("weir_edge_records_forwarded_total", &topic(wire::EDGE_REJECTED)), letters);
    for kind in weir_harness::simulator::broken::Kind::ALL {
        let reason = kind.reason();
        let issued =
            run.quiet.issued.broken.iter().filter(|m| m.broken.kind.reason() == reason).count() as u64;
        assert_eq!(edge("weir_edge_rejected_total", &format!("reason=\"{reason}\"")), issued, "{reason}");
    }
}

#[test]
fn of_the_processor() {
    let run = first_light();
    let readings = run.quiet.issued.readings.len() as u64;
    let letters = run.quiet.issued.broken.len() as u64;
    let cloud = |name, label: &str| count(&run.cloud, name, label);
    let received = cloud("weir_cloud_process_received_total", "");
    let enriched = cloud("weir_cloud_process_enriched_total", "");
    let rejected = cloud("weir_cloud_process_rejected_total", "");
    let repeats = cloud("weir_cloud_process_repeats_total", "");
    let controls = cloud("weir_cloud_process_controls_total", "");
    assert_eq!(received, enriched + rejected + repeats + controls, "received, where it went");
    assert_eq!((enriched, rejected), (readings, letters));
    assert_eq!(
        cloud("weir_cloud_process_missing_total", ""),
        0,
        "numbers that were never announced as missing"
    );
}

#[test]
fn of_the_sinks() {
    let run = first_light();
    let readings = run.quiet.issued.readings.len() as u64;
    let letters = run.quiet.issued.broken.len() as u64;
    for sink in ["mysql", "elasticsearch", "clickhouse"] {
        let rows = |topic: &str| {
            let samples = run.cloud.named("weir_cloud_sink_rows_total");
            let of_sink = samples.filter(|s| s.labels.contains(&format!("sink=\"{sink}\"")));
            of_sink.filter(|s| s.labels.contains(&format!("topic=\"{topic}\""))).map(|s| s.value).sum::<f64>()
        };
        assert_eq!(
            (rows(wire::ENRICHED).round() as u64, rows(wire::REJECTED).round() as u64),
            (readings, letters)
        );
    }
    assert_eq!(count(&run.cloud, "weir_cloud_sink_dead_letters_total", ""), 0);
}
