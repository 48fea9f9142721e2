//! The index templates: making them, and checking that they are there; `init` also puts what [`super::retention`] wants.
//!
//! On failure: `init` may be called again; a missing template is named with what makes it, and the sink waits: an
//! index made without it would map numbers by the first value it sees.

use elasticsearch::Elasticsearch as Client;
use elasticsearch::http::Method;
use elasticsearch::http::StatusCode;
use elasticsearch::http::headers::HeaderMap;

use weir_shared::supervise::Error;

use super::super::config::ElasticsearchConfig;
use super::super::own::OwnTables;
use super::super::{Failure, Probe, Refused, SinkName};
use super::bulk::unreachable;
use super::{retention, schema};
use crate::proposed;

/// What indices are called after the prefix, and their templates.
pub(super) const TEMPLATES: [(&str, &str); 5] = [
    ("readings", include_str!("../../../../deploy/elasticsearch/readings.json")),
    ("rejected", include_str!("../../../../deploy/elasticsearch/rejected.json")),
    ("aggregates", include_str!("../../../../deploy/elasticsearch/aggregates.json")),
    ("losses", include_str!("../../../../deploy/elasticsearch/losses.json")),
    ("alerts", include_str!("../../../../deploy/elasticsearch/alerts.json")),
];

/// Makes or renews the templates; with `dry_run` prints them, and what would mend the indices of the user's own tables.
pub(in crate::sinks) async fn init(
    config: &ElasticsearchConfig,
    own: OwnTables,
    dry_run: bool,
) -> Result<(), Error> {
    let client = super::client(config)?;
    let prefix = &config.prefix;
    let shipped =
        TEMPLATES.iter().map(|(name, template)| (format!("{prefix}-{name}"), filled(template, config)));
    let own_tables = own.in_store(SinkName::Elasticsearch);
    let own_tables =
        own_tables.map(|own| (schema::name(prefix, own), schema::template(prefix, config.replicas, own)));
    for (name, template) in shipped.chain(own_tables) {
        if dry_run {
            proposed::show(format_args!("# would put the index template {name}:\n{template}"));
            continue;
        }
        let (status, text) = ask(&client, Method::Put, &path_of(&name), Some(&template)).await?;
        if !status.is_success() {
            return Err(format!("index template {name}: {status}: {text}").into());
        }
    }
    retention::init(&client, config, dry_run).await?;
    let standing = differences(&client, prefix, own).await;
    if dry_run {
        match standing {
            Ok(standing) => standing.iter().for_each(|why| tracing::info!("Elasticsearch: {why}")),
            Err(away) => tracing::warn!("Elasticsearch: the indices that stand are not compared: {away}"),
        }
        return Ok(());
    }
    match standing? {
        standing if standing.is_empty() => Ok(()),
        standing => Err(Refused(standing.join("; ")).into()),
    }
}

/// What keeps the indices that stand from holding the rows of the user's own tables.
async fn differences(client: &Client, prefix: &str, own: OwnTables) -> Result<Vec<String>, Failure> {
    let mut all = Vec::new();
    for own in own.in_store(SinkName::Elasticsearch) {
        let pattern = schema::pattern(prefix, own);
        let read = async |what: &str| {
            let path = format!("/{pattern}/{what}?ignore_unavailable=true");
            let (status, text) = ask(client, Method::Get, &path, None).await?;
            if status == StatusCode::NOT_FOUND {
                return Ok(serde_json::json!({}));
            }
            if !status.is_success() {
                return Err(Failure::Store(format!("{path}: {status}: {text}")));
            }
            serde_json::from_str::<serde_json::Value>(&text)
                .map_err(|e| Failure::Store(format!("{path}: {e}")))
        };
        let (mappings, settings) = (read("_mapping").await?, read("_settings").await?);
        for (index, mapping) in mappings.as_object().into_iter().flatten() {
            let limit = &settings[index]["settings"]["index"]["mapping"]["total_fields"]["limit"];
            let limit = limit.as_str().and_then(|digits| digits.parse().ok());
            all.extend(schema::differences(own, index, &mapping["mappings"]["properties"], limit));
        }
    }
    Ok(all)
}

fn path_of(template: &str) -> String {
    format!("/_index_template/{template}")
}

/// A template with what is configured.
pub(super) fn filled(template: &str, config: &ElasticsearchConfig) -> String {
    template.replace("{prefix}", &config.prefix).replace("{replicas}", &config.replicas.to_string())
}

/// Asks without changing anything.
pub(in crate::sinks) async fn probe(config: &ElasticsearchConfig, own: OwnTables) -> Result<Probe, Failure> {
    #[derive(serde::Deserialize)]
    struct Root {
        version: Version,
    }
    #[derive(serde::Deserialize)]
    struct Version {
        number: String,
    }
    let client = super::client(config).map_err(|e| Failure::Store(e.to_string()))?;
    let (status, text) = ask(&client, Method::Get, "/", None).await?;
    let root: Root = serde_json::from_str(&text)
        .map_err(|_| Failure::Store(format!("{}: {status}: not an answer of Elasticsearch", config.url)))?;
    let tables = check(&client, &config.prefix, own).await.map_err(|e| e.to_string());
    Ok(Probe { at: config.url.clone(), version: root.version.number, tables, grants: None })
}

/// Whether all templates are there, and those of the user's own tables are as described, as are their indices.
pub(super) async fn check(client: &Client, prefix: &str, own: OwnTables) -> Result<(), Failure> {
    for (name, _) in TEMPLATES {
        template_there(client, &format!("{prefix}-{name}")).await?;
    }
    for own in own.in_store(SinkName::Elasticsearch) {
        let name = schema::name(prefix, own);
        let text = template_there(client, &name).await?;
        let answer: serde_json::Value =
            serde_json::from_str(&text).map_err(|e| Failure::Store(format!("index template {name}: {e}")))?;
        let template = &answer["index_templates"][0]["index_template"];
        let is_for = template["index_patterns"] == serde_json::json!([schema::pattern(prefix, own)]);
        let there = &template["template"]["mappings"]["properties"];
        if !is_for || !schema::differences(own, &name, there, None).is_empty() {
            let why = format!("index template {name} is not as [[sink.table]] says: run `weir-cloud init`");
            return Err(Failure::Store(why));
        }
    }
    let standing = differences(client, prefix, own).await?;
    if standing.is_empty() { Ok(()) } else { Err(Failure::Store(standing.join("; "))) }
}

/// The template of a name, which must be there.
async fn template_there(client: &Client, name: &str) -> Result<String, Failure> {
    let (status, text) = ask(client, Method::Get, &path_of(name), None).await?;
    if status == StatusCode::NOT_FOUND {
        let missing = format!("index template {name} is missing: run `weir-cloud init`");
        return Err(Failure::Store(missing));
    }
    if !status.is_success() {
        return Err(Failure::Store(format!("index template {name}: {status}: {text}")));
    }
    Ok(text)
}

/// Status and text of an answer.
pub(super) async fn ask(
    client: &Client,
    method: Method,
    path: &str,
    body: Option<&str>,
) -> Result<(StatusCode, String), Failure> {
    let sent = client.transport().send(method, path, HeaderMap::new(), None::<&()>, body, None).await;
    let response = sent.map_err(|e| unreachable(&e))?;
    let status = response.status_code();
    let text = response.text().await.map_err(|e| unreachable(&e))?;
    Ok((status, text))
}
