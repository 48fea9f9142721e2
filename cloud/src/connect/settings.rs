//! What settings of brokers and topics mean to us. Pure.
//!
//! Comes in: a way to look a setting up. Goes out: findings. A setting that a server does not show is passed over.

use weir_shared::doctor::Finding;

/// Largest record that the processor produces, with its key and headers (see `process::outputs`).
const RECORD_BYTES: i64 = 1_000_000;
/// Session time-out of our group members.
const SESSION_MS: i64 = 6_000;
/// Time-out of our transactions.
const TRANSACTION_MS: i64 = 6_000;
/// Longest time between two looks of a broker for transactions that timed out.
const SCAN_MS: i64 = 1_000;
/// How many brokers' settings must hold a transaction or an offset, where there are as many.
const COPIES: i64 = 3;

/// The setting that says how often a broker looks for transactions that timed out.
pub(super) const SCAN: &str = "transaction.abort.timed.out.transaction.cleanup.interval.ms";

/// Looks a setting up.
pub(super) type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

fn number(of: Lookup<'_>, name: &str) -> Option<i64> {
    of(name).and_then(|value| value.parse().ok())
}

/// How long records of a killed worker may hold up what comes behind them; `None` when that is short, or unknown.
pub(super) fn slow_scan(of: Lookup<'_>) -> Option<i64> {
    number(of, SCAN).filter(|ms| *ms > SCAN_MS)
}

/// The settings of one broker among `brokers`.
pub(super) fn broker(id: i32, brokers: usize, of: Lookup<'_>) -> Vec<Finding> {
    let what = |name: &str| format!("broker {id} {name}");
    let mut found = Vec::new();
    if let Some(ms) = slow_scan(of) {
        let detail = format!("{ms}: what a worker that died had open holds readers up for so long");
        found.push(Finding::warn(what(SCAN), detail, format!("set it to {SCAN_MS}")));
    }
    let limits = [
        ("group.min.session.timeout.ms", SESSION_MS, false),
        ("group.max.session.timeout.ms", SESSION_MS, true),
        ("transaction.max.timeout.ms", TRANSACTION_MS, true),
        ("message.max.bytes", RECORD_BYTES, true),
        ("replica.fetch.response.max.bytes", RECORD_BYTES, true),
    ];
    for (name, limit, at_least) in limits {
        let value = number(of, name);
        let wrong = value.filter(|value| if at_least { *value < limit } else { *value > limit });
        if let Some(value) = wrong {
            let (than, word) = if at_least { ("less", "at least") } else { ("more", "at most") };
            let detail = format!("{value}, {than} than the {limit} that weir-cloud works with");
            found.push(Finding::fail(what(name), detail, format!("set it to {word} {limit}")));
        }
    }
    let wanted = i64::try_from(brokers).unwrap_or(COPIES).min(COPIES);
    for name in ["transaction.state.log.replication.factor", "offsets.topic.replication.factor"] {
        if let Some(copies) = number(of, name).filter(|copies| *copies < wanted) {
            let detail =
                format!("{copies} of {brokers} brokers: losing one may lose what exactly-once stands on");
            let way_out =
                format!("set it to {wanted}, and raise the replicas of the topic if it stands already");
            found.push(Finding::warn(what(name), detail, way_out));
        }
    }
    let (isr, copies) =
        (number(of, "transaction.state.log.min.isr"), number(of, "transaction.state.log.replication.factor"));
    if let (Some(isr), Some(copies)) = (isr, copies)
        && isr > copies
    {
        let name = "transaction.state.log.min.isr";
        let detail = format!("{isr} of {copies} replicas: no transaction can ever begin");
        found.push(Finding::fail(what(name), detail, format!("set it to at most {copies}")));
    }
    if found.is_empty() {
        found.push(Finding::ok(format!("broker {id} settings"), "fit"));
    }
    found
}

/// A topic with so many partitions and replicas, that must be compacted or not.
pub(super) fn topic(
    name: &str,
    partitions: usize,
    replicas: usize,
    compacted: bool,
    of: Lookup<'_>,
) -> Vec<Finding> {
    let what = format!("topic {name}");
    let mut found = Vec::new();
    if let Some(policy) = of("cleanup.policy") {
        let is = policy.split(',').any(|word| word.trim() == "compact");
        let deletes = policy.split(',').any(|word| word.trim() == "delete");
        if compacted && (!is || deletes) {
            let detail = format!("cleanup.policy is {policy}: state that is still needed would be deleted");
            found.push(Finding::fail(&what, detail, "set cleanup.policy=compact"));
        } else if !compacted && is {
            let detail = format!("cleanup.policy is {policy}: only the last record of each key is kept");
            found.push(Finding::fail(&what, detail, "set cleanup.policy=delete"));
        }
    }
    if let Some(bytes) = number(of, "max.message.bytes").filter(|bytes| *bytes < RECORD_BYTES) {
        let detail = format!("max.message.bytes is {bytes}: records have up to {RECORD_BYTES}");
        found.push(Finding::fail(&what, detail, "raise it to 1048588, Kafka's default"));
    }
    let replicas = i64::try_from(replicas).unwrap_or(i64::MAX);
    match number(of, "min.insync.replicas") {
        Some(isr) if isr > replicas => {
            let detail = format!(
                "min.insync.replicas is {isr}, but there are {replicas} replicas: no record is taken"
            );
            found.push(Finding::fail(&what, detail, format!("set it to at most {replicas}")));
        }
        Some(1) if replicas > 1 => {
            let detail =
                format!("min.insync.replicas is 1 of {replicas}: acknowledged records stand on one disk");
            found.push(Finding::warn(&what, detail, "set it to 2"));
        }
        Some(isr) if isr == replicas && replicas > 1 => {
            let detail = format!("min.insync.replicas is all {replicas}: one broker away stops everything");
            found.push(Finding::warn(&what, detail, format!("set it to {}", replicas - 1)));
        }
        _ => {}
    }
    if !compacted && of("message.timestamp.type").is_some_and(|kind| kind == "CreateTime") {
        let detail = "message.timestamp.type is CreateTime: retention goes by the clocks of the edges";
        found.push(Finding::warn(&what, detail, "set it to LogAppendTime"));
    }
    if found.is_empty() {
        let word = if replicas == 1 { "replica" } else { "replicas" };
        found.push(Finding::ok(&what, format!("{partitions} partitions, {replicas} {word}")));
    }
    found
}

#[cfg(test)]
mod tests {
    use weir_shared::doctor::Grade;

    use super::*;

    fn lookup<'a>(settings: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<String> + 'a {
        |name| settings.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned())
    }

    fn grades(found: &[Finding]) -> Vec<Grade> {
        found.iter().map(|finding| finding.grade).collect()
    }

    #[test]
    fn a_broker_is_measured_by_what_we_need() {
        let of = |settings: &[(&str, &str)], brokers| grades(&broker(1, brokers, &lookup(settings)));
        assert_eq!(of(&[], 3), [Grade::Ok], "what is not shown is no finding");
        assert_eq!(of(&[(SCAN, "1000"), ("message.max.bytes", "1048588")], 1), [Grade::Ok]);
        assert_eq!(of(&[(SCAN, "10000")], 1), [Grade::Warn]);
        assert_eq!(of(&[("group.min.session.timeout.ms", "6001")], 1), [Grade::Fail]);
        assert_eq!(of(&[("group.max.session.timeout.ms", "5999")], 1), [Grade::Fail]);
        assert_eq!(of(&[("message.max.bytes", "999999")], 1), [Grade::Fail]);
        let one = ("transaction.state.log.replication.factor", "1");
        assert_eq!(of(&[one], 1), [Grade::Ok]);
        assert_eq!(of(&[one], 2), [Grade::Warn]);
        assert_eq!(of(&[one, ("transaction.state.log.min.isr", "2")], 1), [Grade::Fail]);
    }

    #[test]
    fn a_topic_is_kept_as_its_records_need_it() {
        let of = |settings: &[(&str, &str)], replicas, compacted| {
            grades(&topic("t", 4, replicas, compacted, &lookup(settings)))
        };
        assert_eq!(of(&[("cleanup.policy", "delete"), ("min.insync.replicas", "1")], 1, false), [Grade::Ok]);
        assert_eq!(of(&[("cleanup.policy", "compact")], 1, true), [Grade::Ok]);
        assert_eq!(of(&[("cleanup.policy", "compact")], 1, false), [Grade::Fail]);
        assert_eq!(of(&[("cleanup.policy", "delete")], 1, true), [Grade::Fail]);
        assert_eq!(of(&[("cleanup.policy", "compact,delete")], 1, true), [Grade::Fail]);
        assert_eq!(of(&[("min.insync.replicas", "2")], 3, false), [Grade::Ok]);
        assert_eq!(of(&[("min.insync.replicas", "1")], 3, false), [Grade::Warn]);
        assert_eq!(of(&[("min.insync.replicas", "3")], 3, false), [Grade::Warn]);
        assert_eq!(of(&[("min.insync.replicas", "2")], 1, false), [Grade::Fail]);
        assert_eq!(of(&[("max.message.bytes", "10000")], 1, false), [Grade::Fail]);
        let times = [("message.timestamp.type", "CreateTime")];
        assert_eq!(of(&times, 1, false), [Grade::Warn]);
        assert_eq!(of(&times, 1, true), [Grade::Ok]);
    }
}
