//! JSON to the engine's values and back, as the store's contract has them.

use std::collections::HashMap;

use kglite::api::param::kglite_value_to_json;
use kglite::api::{NodeValue, PropMap, RelValue, Value as Engine};
use pvegraph_graph::store::StoreError;
use serde_json::{Map, Number, Value as Json, json};

/// A statement's parameters as the engine takes them.
///
/// # Errors
/// A whole number outside the 64-bit signed range, which neither store can hold.
pub(crate) fn params(from: &Map<String, Json>) -> Result<HashMap<String, Engine>, StoreError> {
    from.iter().map(|(name, value)| Ok((name.clone(), to_engine(name, value)?))).collect()
}

fn to_engine(name: &str, value: &Json) -> Result<Engine, StoreError> {
    Ok(match value {
        Json::Null => Engine::Null,
        Json::Bool(value) => Engine::Boolean(*value),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => Engine::Int64(whole),
            (None, Some(float)) if number.is_f64() => Engine::Float64(float),
            _ => {
                return Err(StoreError::Statement {
                    code: "Neo.ClientError.Statement.ArgumentError".into(),
                    message: format!(
                        "parameter ${name} holds a whole number outside the 64-bit signed range"
                    ),
                });
            }
        },
        Json::String(text) => Engine::String(text.clone()),
        Json::Array(items) => {
            Engine::List(items.iter().map(|item| to_engine(name, item)).collect::<Result<_, _>>()?)
        }
        Json::Object(map) => Engine::Map(
            map.iter()
                .map(|(key, item)| Ok((key.clone(), to_engine(name, item)?)))
                .collect::<Result<PropMap, StoreError>>()?,
        ),
    })
}

/// A value of a row as JSON. A float that JSON has no spelling for (NaN, infinity) is null.
pub(crate) fn to_json(value: &Engine) -> Json {
    match value {
        Engine::Null => Json::Null,
        Engine::Boolean(value) => Json::Bool(*value),
        Engine::Int64(whole) => json!(whole),
        Engine::UniqueId(whole) | Engine::NodeRef(whole) => json!(whole),
        Engine::Float64(float) => Number::from_f64(*float).map_or(Json::Null, Json::Number),
        Engine::String(text) => Json::String(text.clone()),
        Engine::List(items) => Json::Array(items.iter().map(to_json).collect()),
        Engine::Map(map) => Json::Object(properties(map)),
        Engine::Node(node) => node_json(node),
        Engine::Relationship(relationship) => relationship_json(relationship),
        Engine::Path(path) => json!({
            "nodes": path.nodes.iter().map(node_json).collect::<Vec<_>>(),
            "relationships": path.rels.iter().map(relationship_json).collect::<Vec<_>>(),
        }),
        Engine::Point { lat, lon } => json!({ "latitude": lat, "longitude": lon }),
        // The engine renders these as ISO 8601.
        Engine::DateTime(_)
        | Engine::Timestamp(_)
        | Engine::LocalTime(_)
        | Engine::Time { .. }
        | Engine::ZonedDateTime { .. } => kglite_value_to_json(value),
        Engine::Duration { months, days, seconds, nanos } => {
            Json::String(iso_duration(*months, *days, *seconds, *nanos))
        }
    }
}

/// `P1M2DT3.5S`. The engine keeps the sign of a part of a second in `seconds` and `nanos` positive.
fn iso_duration(months: i32, days: i32, seconds: i64, nanos: i32) -> String {
    let total = i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
    let mut text = String::from("P");
    if months != 0 {
        text.push_str(&format!("{months}M"));
    }
    if days != 0 {
        text.push_str(&format!("{days}D"));
    }
    if total != 0 || text == "P" {
        let sign = if total < 0 { "-" } else { "" };
        let (whole, part) = (total.abs() / 1_000_000_000, total.abs() % 1_000_000_000);
        let fraction = format!("{part:09}");
        let fraction = fraction.trim_end_matches('0');
        let point = if fraction.is_empty() { "" } else { "." };
        text.push_str(&format!("T{sign}{whole}{point}{fraction}S"));
    }
    text
}

fn properties(map: &PropMap) -> Map<String, Json> {
    map.iter().map(|(key, value)| (key.to_owned(), to_json(value))).collect()
}

/// A node without what the engine adds to every node: a `title` that is the name or made of label and id, a
/// `type` that is the label, and nulls. `id` stays: it is the key that the node was merged by.
fn node_json(node: &NodeValue) -> Json {
    let mut properties = properties(&node.properties);
    properties.retain(|_, value| !value.is_null());
    let label = node.labels.first().map_or("", String::as_str);
    if properties.get("type").and_then(Json::as_str) == Some(label) {
        properties.remove("type");
    }
    if properties.get("title").is_some_and(|title| is_invented(title, label, &properties)) {
        properties.remove("title");
    }
    json!({ "labels": node.labels, "properties": properties })
}

fn is_invented(title: &Json, label: &str, properties: &Map<String, Json>) -> bool {
    let id = match properties.get("id") {
        Some(Json::String(id)) => id.clone(),
        Some(id) => id.to_string(),
        None => String::new(),
    };
    let minted = title.as_str().is_some_and(|title| title == id || title == format!("{label}_{id}"));
    minted || properties.get("name") == Some(title)
}

fn relationship_json(relationship: &RelValue) -> Json {
    let mut properties = properties(&relationship.properties);
    properties.retain(|_, value| !value.is_null());
    json!({ "type": relationship.rel_type, "properties": properties })
}
