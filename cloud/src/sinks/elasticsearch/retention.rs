//! Deleting old indices: a policy of the server, where `retention_days` is set.
//!
//! Comes in: the configuration. Goes out: for Elasticsearch an ILM policy and templates that name it; for OpenSearch, whose
//! templates cannot, an ISM policy that names the indices.
//! Guarantees: no document goes before it is `retention_days` old. A server counts from when an index was made, so an index
//! gets the days on top that it is written to: one, or a month. Indices `…-outside` are written to for ever and never
//! deleted. With 0 nothing is put, and what an earlier `init` put for indices to come is taken away; indices that stand
//! keep the policy that they have.
//! On failure: a server that knows no such policies is refused with the way out: it would fill its disk in silence.

use elasticsearch::Elasticsearch as Client;
use elasticsearch::http::{Method, StatusCode};
use serde_json::{Value, json};
use weir_shared::supervise::Error;

use super::super::config::ElasticsearchConfig;
use super::super::{Failure, Refused};
use super::templates::{TEMPLATES, ask};
use crate::proposed;

const ILM: &str = include_str!("../../../../deploy/elasticsearch/ilm.json");
const ISM: &str = include_str!("../../../../deploy/elasticsearch/ism.json");
/// Where OpenSearch has its policies.
const ISM_PATH: &str = "/_plugins/_ism/policies";
/// Above the templates that name no policy.
const PRIORITY: u32 = 201;
/// Which indices, the kinds in them, and how many days each of them is written to.
const PERIODS: [(&str, &[&str], u64); 2] =
    [("by-day", &["readings", "rejected"], 1), ("by-month", &["aggregates", "losses", "alerts"], 31)];

/// One thing to be put.
#[derive(Debug, PartialEq, Eq)]
struct Put {
    path: String,
    body: String,
}

/// Puts the policies and what names them, or takes them away; with `dry_run` prints them.
pub(super) async fn init(client: &Client, config: &ElasticsearchConfig, dry_run: bool) -> Result<(), Error> {
    if dry_run && config.retention_days == 0 {
        return Ok(());
    }
    let opensearch = is_opensearch(client).await?;
    if config.retention_days == 0 {
        take_away(client, &config.prefix, opensearch).await?;
        return Ok(());
    }
    let puts = if opensearch { ism(config) } else { ilm(config) };
    for put in puts {
        if dry_run {
            proposed::show(format_args!("# would put {}:\n{}", put.path, put.body));
        } else {
            send(client, &put).await?;
        }
    }
    Ok(())
}

async fn is_opensearch(client: &Client) -> Result<bool, Failure> {
    let (_, text) = ask(client, Method::Get, "/", None).await?;
    let root: Value = serde_json::from_str(&text).unwrap_or_default();
    Ok(root["version"]["distribution"] == "opensearch")
}

async fn send(client: &Client, put: &Put) -> Result<(), Error> {
    let mut path = put.path.clone();
    if path.starts_with(ISM_PATH) {
        // It takes a change only from who names the version that stands.
        let (status, text) = ask(client, Method::Get, &path, None).await?;
        let stands: Value = serde_json::from_str(&text).unwrap_or_default();
        if status.is_success() {
            path =
                format!("{path}?if_seq_no={}&if_primary_term={}", stands["_seq_no"], stands["_primary_term"]);
        }
    }
    let (status, text) = ask(client, Method::Put, &path, Some(&put.body)).await?;
    if status.is_success() {
        return Ok(());
    }
    if is_unknown(status, &text) {
        let why = format!(
            "this server knows no policies that delete indices ({}): set sink.elasticsearch.retention_days = 0 and \
             delete old indices yourself, or use a distribution with ILM (OpenSearch: ISM)",
            put.path
        );
        return Err(Refused(why).into());
    }
    Err(format!("{}: {status}: {text}", put.path).into())
}

/// Whether the server has nothing at a path, as one without the module.
fn is_unknown(status: StatusCode, text: &str) -> bool {
    let client_error = matches!(status.as_u16(), 400 | 404 | 405);
    client_error && (text.contains("no handler found") || text.contains("Incorrect HTTP method"))
}

async fn take_away(client: &Client, prefix: &str, opensearch: bool) -> Result<(), Failure> {
    let of_period = |(name, kinds, _): &(&str, &[&str], u64)| -> Vec<String> {
        if opensearch {
            vec![format!("{ISM_PATH}/{prefix}-{name}")]
        } else {
            kinds.iter().map(|kind| template_path(prefix, kind)).collect()
        }
    };
    for path in PERIODS.iter().flat_map(of_period) {
        let (status, text) = ask(client, Method::Delete, &path, None).await?;
        let gone = status.is_success() || status == StatusCode::NOT_FOUND || is_unknown(status, &text);
        if !gone {
            return Err(Failure::Store(format!("taking away {path}: {status}: {text}")));
        }
    }
    Ok(())
}

fn template_path(prefix: &str, kind: &str) -> String {
    format!("/_index_template/{prefix}-{kind}-dated")
}

/// Those of indices with a date in their names, which begin with a year.
fn patterns(prefix: &str, kind: &str) -> [String; 2] {
    [format!("{prefix}-{kind}-1*"), format!("{prefix}-{kind}-2*")]
}

fn ilm(config: &ElasticsearchConfig) -> Vec<Put> {
    let mut puts = Vec::new();
    for (name, kinds, days) in PERIODS {
        let policy = format!("{}-{name}", config.prefix);
        let body = ILM.replace("{age_days}", &(config.retention_days + days).to_string());
        puts.push(Put { path: format!("/_ilm/policy/{policy}"), body });
        for (kind, template) in TEMPLATES.iter().filter(|(kind, _)| kinds.contains(kind)) {
            let text = super::templates::filled(template, config);
            let mut template: Value = serde_json::from_str(&text).expect("shipped templates are JSON");
            template["index_patterns"] = json!(patterns(&config.prefix, kind));
            template["priority"] = PRIORITY.into();
            template["template"]["settings"]["index.lifecycle.name"] = policy.as_str().into();
            puts.push(Put { path: template_path(&config.prefix, kind), body: format!("{template:#}\n") });
        }
    }
    puts
}

fn ism(config: &ElasticsearchConfig) -> Vec<Put> {
    let policy = |(name, kinds, days): &(&str, &[&str], u64)| {
        let patterns: Vec<String> = kinds.iter().flat_map(|kind| patterns(&config.prefix, kind)).collect();
        let body = ISM
            .replace("{age_days}", &(config.retention_days + days).to_string())
            .replace("{patterns}", &json!(patterns).to_string());
        Put { path: format!("{ISM_PATH}/{}-{name}", config.prefix), body }
    };
    PERIODS.iter().map(policy).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::super::config::Limits;
    use super::*;

    fn config() -> ElasticsearchConfig {
        ElasticsearchConfig {
            url: String::new(),
            user: String::new(),
            password: String::new(),
            tls: weir_shared::tls::Tls::default(),
            prefix: "p".to_owned(),
            replicas: 2,
            retention_days: 30,
            accepted_past_ms: 0,
            accepted_future_ms: 0,
            compression: false,
            bulk_bytes_max: 1,
            concurrency_max: 1,
            limits: Limits { rows_max: 1, bytes_max: 1, wait: Duration::ZERO },
        }
    }

    fn json(text: &str) -> Value {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn every_kind_of_index_has_a_template_that_names_a_policy_which_stands_before() {
        let puts = ilm(&config());
        for (kind, _) in TEMPLATES {
            let at = puts.iter().position(|put| put.path == template_path("p", kind)).expect(kind);
            let template = json(&puts[at].body);
            let settings = &template["template"]["settings"];
            assert_eq!(template["priority"], 201);
            assert_eq!(settings["number_of_replicas"], 2);
            let policy = format!("/_ilm/policy/{}", settings["index.lifecycle.name"].as_str().unwrap());
            let before = puts[..at].iter().find(|put| put.path == policy).expect("stands before");
            let days = if ["readings", "rejected"].contains(&kind) { "31d" } else { "61d" };
            assert_eq!(json(&before.body)["policy"]["phases"]["delete"]["min_age"], days);
            let wanted = json!([format!("p-{kind}-1*"), format!("p-{kind}-2*")]);
            assert_eq!(template["index_patterns"], wanted, "never those outside");
        }
    }

    #[test]
    fn opensearch_gets_policies_that_name_the_indices() {
        let puts = ism(&config());
        let [day, month] = [0, 1].map(|at: usize| json(&puts[at].body));
        assert_eq!(puts[0].path, "/_plugins/_ism/policies/p-by-day");
        let age = |policy: &Value| {
            policy["policy"]["states"][0]["transitions"][0]["conditions"]["min_index_age"].clone()
        };
        assert_eq!((age(&day), age(&month)), (json!("31d"), json!("61d")));
        let patterns = |policy: &Value| policy["policy"]["ism_template"][0]["index_patterns"].clone();
        assert_eq!(
            patterns(&day),
            json!(["p-readings-1*", "p-readings-2*", "p-rejected-1*", "p-rejected-2*"])
        );
        assert_eq!(patterns(&month).as_array().map(Vec::len), Some(6));
    }

    #[test]
    fn a_server_without_the_module_is_told_from_one_that_refuses() {
        let unknown = [
            (400, r#"{"error":"no handler found for uri [/_ilm/policy/p-by-day] and method [PUT]"}"#),
            (
                405,
                r#"{"error":"Incorrect HTTP method for uri [/_plugins/_ism/policies/p] and method [PUT]"}"#,
            ),
        ];
        for (status, text) in unknown {
            assert!(is_unknown(StatusCode::from_u16(status).unwrap(), text), "{text}");
        }
        assert!(!is_unknown(StatusCode::BAD_REQUEST, "invalid policy"));
        assert!(!is_unknown(StatusCode::FORBIDDEN, "no handler found"));
    }
}
