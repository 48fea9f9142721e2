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
use super::super::{Failure, Probe};
use super::bulk::unreachable;
use super::retention;

/// What indices are called after the prefix, and their templates.
pub(super) const TEMPLATES: [(&str, &str); 5] = [
    ("readings", include_str!("../../../../deploy/elasticsearch/readings.json")),
    ("rejected", include_str!("../../../../deploy/elasticsearch/rejected.json")),
    ("aggregates", include_str!("../../../../deploy/elasticsearch/aggregates.json")),
    ("losses", include_str!("../../../../deploy/elasticsearch/losses.json")),
    ("alerts", include_str!("../../../../deploy/elasticsearch/alerts.json")),
];

/// Makes or renews the templates; with `dry_run` prints them.
pub(in crate::sinks) async fn init(config: &ElasticsearchConfig, dry_run: bool) -> Result<(), Error> {
    let client = super::client(config)?;
    for (name, template) in TEMPLATES {
        let name = format!("{}-{name}", config.prefix);
        let template = filled(template, config);
        if dry_run {
            tracing::info!("would put the index template {name}:\n{template}");
            continue;
        }
        let (status, text) = ask(&client, Method::Put, &path_of(&name), Some(&template)).await?;
        if !status.is_success() {
            return Err(format!("index template {name}: {status}: {text}").into());
        }
    }
    retention::init(&client, config, dry_run).await
}

fn path_of(template: &str) -> String {
    format!("/_index_template/{template}")
}

/// A template with what is configured.
pub(super) fn filled(template: &str, config: &ElasticsearchConfig) -> String {
    template.replace("{prefix}", &config.prefix).replace("{replicas}", &config.replicas.to_string())
}

/// Asks without changing anything.
pub(in crate::sinks) async fn probe(config: &ElasticsearchConfig) -> Result<Probe, Failure> {
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
    let tables = check(&client, &config.prefix).await.map_err(|e| e.to_string());
    Ok(Probe { at: config.url.clone(), version: root.version.number, tables, grants: None })
}

/// Whether all templates are there.
pub(super) async fn check(client: &Client, prefix: &str) -> Result<(), Failure> {
    for (name, _) in TEMPLATES {
        let name = format!("{prefix}-{name}");
        let (status, text) = ask(client, Method::Get, &path_of(&name), None).await?;
        if status == StatusCode::NOT_FOUND {
            let missing = format!("index template {name} is missing: run `weir-cloud init`");
            return Err(Failure::Store(missing));
        }
        if !status.is_success() {
            return Err(Failure::Store(format!("index template {name}: {status}: {text}")));
        }
    }
    Ok(())
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
