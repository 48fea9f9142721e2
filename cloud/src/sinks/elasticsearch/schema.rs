//! What the template of a table of the user's own should be, and what mends indices that are not so.
//!
//! Comes in: a table, and the mapping of an index that stands. Goes out: the template, or the request for each difference.
//! Guarantees: pure; proposes, changes nothing. A field of an index never changes its type: then only another index helps.

use serde_json::{Map, Value, json};

use super::super::own::{OwnColumn, OwnKind, OwnTable};

/// Fields that an index may have, as in the shipped templates.
const FIELDS_MAX: usize = 2_000;
/// The server's own limit, where none is set.
const FIELDS_DEFAULT: u64 = 1_000;

/// Name of the template, and of the index of a table whose rows replace one another.
pub(super) fn name(prefix: &str, own: &OwnTable) -> String {
    format!("{prefix}-{}", own.name)
}

/// The indices of a table.
pub(super) fn pattern(prefix: &str, own: &OwnTable) -> String {
    let name = name(prefix, own);
    if own.is_latest() { name } else { format!("{name}-*") }
}

/// The template.
pub(super) fn template(prefix: &str, replicas: u64, own: &OwnTable) -> String {
    let settings = json!({
        "number_of_shards": 1, "number_of_replicas": replicas, "mapping.total_fields.limit": FIELDS_MAX,
    });
    let mappings = json!({ "dynamic": false, "date_detection": false, "properties": properties(own) });
    let of = format!("Weir: documents are rows of [[sink.table]] {}, made of {}", own.name, own.topic.name());
    let template = json!({
        "index_patterns": [pattern(prefix, own)],
        "priority": 200,
        "template": { "settings": settings, "mappings": mappings },
        "_meta": { "of": of },
    });
    format!("{template:#}")
}

fn properties(own: &OwnTable) -> Map<String, Value> {
    own.columns.iter().map(|column| (column.name.clone(), field(column))).collect()
}

fn field(column: &OwnColumn) -> Value {
    match column.kind {
        OwnKind::String => json!({ "type": "keyword" }),
        OwnKind::Text => json!({ "type": "text" }),
        OwnKind::Int64 => json!({ "type": "long" }),
        // What has more than 63 bits stands in the document and is not indexed.
        OwnKind::UInt64 => json!({ "type": "long", "ignore_malformed": true }),
        OwnKind::Float64 => json!({ "type": "double" }),
        OwnKind::Bool => json!({ "type": "boolean" }),
        OwnKind::Time => json!({ "type": "date", "format": "epoch_millis" }),
        OwnKind::Json => json!({ "type": "object", "enabled": false }),
    }
}

/// What keeps an index from holding the rows as they are described, given its `properties` and its limit of fields, with
/// the way out.
pub(super) fn differences(
    own: &OwnTable,
    index: &str,
    there: &Value,
    fields_max: Option<u64>,
) -> Vec<String> {
    let mut missing = Map::new();
    let mut differences = Vec::new();
    for column in &own.columns {
        let wanted = field(column);
        // Objects have no type in what a server answers.
        let kind = |field: &Value| field["type"].as_str().unwrap_or("object").to_owned();
        match there.get(&column.name) {
            None => drop(missing.insert(column.name.clone(), wanted)),
            Some(found) if kind(found) != kind(&wanted) => differences.push(format!(
                "index {index} has the field {} as {}, wanted {}: a field keeps its type; write to another table \
                 ([[sink.table]] name), or POST /_reindex into one and DELETE /{index}",
                column.name,
                kind(found),
                kind(&wanted)
            )),
            Some(_) => {}
        }
    }
    if missing.is_empty() {
        return differences;
    }
    let fields = there.as_object().map_or(0, Map::len) + missing.len();
    if fields as u64 > fields_max.unwrap_or(FIELDS_DEFAULT) {
        let settings = json!({ "index.mapping.total_fields.limit": fields.max(FIELDS_MAX) });
        differences
            .push(format!("index {index} may not have {fields} fields: PUT /{index}/_settings {settings}"));
    }
    let properties = json!({ "properties": missing });
    differences.push(format!("index {index} lacks fields: PUT /{index}/_mapping {properties}"));
    differences
}

#[cfg(test)]
mod tests {
    use super::super::super::SinkName;
    use super::super::super::own::tests::tables;
    use super::*;

    #[test]
    fn an_index_is_mended_by_the_request_that_is_named() {
        let own = tables().in_store(SinkName::Elasticsearch).next().unwrap();
        let template: Value = serde_json::from_str(&template("weir", 1, own)).unwrap();
        assert_eq!(template["index_patterns"], json!(["weir-power-*"]));
        let mut there = template["template"]["mappings"]["properties"].clone();
        assert_eq!(differences(own, "weir-power-2026.09", &there, None), Vec::<String>::new());
        there.as_object_mut().unwrap().remove("kw");
        let kw = r#"PUT /i/_mapping {"properties":{"kw":{"type":"double"}}}"#;
        assert_eq!(differences(own, "i", &there, None), [format!("index i lacks fields: {kw}")]);
        let limited = differences(own, "i", &there, Some(3));
        assert!(
            limited[0].contains(r#"PUT /i/_settings {"index.mapping.total_fields.limit":2000}"#),
            "{limited:?}"
        );
        there["kw"] = json!({ "type": "keyword" });
        let typed = differences(own, "i", &there, None);
        assert!(typed.len() == 1 && typed[0].contains("the field kw as keyword, wanted double"), "{typed:?}");
    }
}
