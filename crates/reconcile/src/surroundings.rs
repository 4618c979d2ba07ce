//! What a cluster has besides guests, for the document's sections that are not managed yet.

use pve_client::wire::may_hold_secret;
use pve_client::{ApiPath, PveClient};
use serde_json::{Map, Value, json};

use crate::desired::Section;
use crate::document::{Estate, sections};

/// What PVE computes or counts, and nobody desires.
const COMPUTED: [&str; 7] =
    ["digest", "active", "priority", "exists", "families", "next-run", "repeat-missed"];

/// Enters the sections into the estate. What could not be read is told, and left out.
pub async fn enter(client: &PveClient, estate: &mut Estate) -> Vec<String> {
    let mut left_out = Vec::new();
    let list =
        async |what: &'static str, path: ApiPath, left_out: &mut Vec<String>| match client.get(&path).await {
            Ok(Value::Array(rows)) => rows,
            Ok(_) => {
                left_out.push(format!("{what}: the answer is no list"));
                Vec::new()
            }
            Err(error) => {
                left_out.push(format!("{what}: {error}"));
                Vec::new()
            }
        };
    let path = |operation: &'static str, path: &str| ApiPath::new(operation).fixed(path);
    for row in list("storage", path("list storages", "/storage"), &mut left_out).await {
        let mut row = desirable(row);
        if let Some(name) = row.remove("storage") {
            row.insert("id".to_owned(), name);
        }
        if let Some(Value::String(content)) = row.get("content").cloned() {
            let mut kinds: Vec<&str> = content.split(',').collect();
            kinds.sort_unstable();
            row.insert("content".to_owned(), json!(kinds));
        }
        put(&mut estate.storage, Section::Storage, row, &mut left_out);
    }
    for row in list("backups", path("list backup jobs", "/cluster/backup"), &mut left_out).await {
        put(&mut estate.backups, Section::Backups, desirable(row), &mut left_out);
    }
    for row in list("ha", path("list HA resources", "/cluster/ha/resources"), &mut left_out).await {
        put(&mut estate.ha, Section::Ha, desirable(row), &mut left_out);
    }
    let status = list("cluster", path("read cluster status", "/cluster/status"), &mut left_out).await;
    let text = |row: &Value, key: &str| row.get(key).and_then(Value::as_str).map(str::to_owned);
    let of_type = |kind: &'static str| status.iter().filter(move |row| row.get("type") == Some(&json!(kind)));
    if let Some(row) = of_type("cluster").next() {
        let mut section = crate::document::ClusterSection {
            enabled: Some(true),
            name: text(row, "name"),
            ..Default::default()
        };
        for row in of_type("node") {
            let name = text(row, "name").unwrap_or_default();
            section.nodes.push(crate::document::ClusterNode { name, ip: text(row, "ip") });
        }
        section.nodes.sort_by(|a, b| a.name.cmp(&b.name));
        estate.cluster = Some(section);
    }
    for row in of_type("node") {
        let Some(node) = text(row, "name") else { continue };
        if row.get("online") == Some(&json!(0)) {
            left_out.push(format!("network of {node}: the node is offline"));
            continue;
        }
        let path = ApiPath::new("list network interfaces").node(&node).fixed("network");
        for row in list("network", path, &mut left_out).await {
            let mut row = desirable(row);
            row.insert("node".to_owned(), json!(node));
            put(&mut estate.network, Section::Network, row, &mut left_out);
        }
    }
    // PVE's order is random.
    estate.storage.sort_by(|a, b| a.id.cmp(&b.id));
    estate.network.sort_by(|a, b| (&a.node, &a.iface).cmp(&(&b.node, &b.iface)));
    estate.ha.sort_by(|a, b| a.sid.cmp(&b.sid));
    estate.backups.sort_by_key(|job| job.rest.get("id").map(Value::to_string));
    left_out
}

/// A row without what is computed, and without what may be a secret.
fn desirable(row: Value) -> Map<String, Value> {
    let Value::Object(mut row) = row else { return Map::new() };
    row.retain(|key, value| !COMPUTED.contains(&key.as_str()) && !may_hold_secret(key) && !value.is_null());
    row
}

fn put<T: serde::de::DeserializeOwned>(
    list: &mut Vec<T>,
    section: Section,
    mut row: Map<String, Value>,
    left_out: &mut Vec<String>,
) {
    // A document that has it would be refused.
    for (field, _) in sections::problems(section, &Value::Object(row.clone())) {
        let key = field.split_once('.').map_or(&*field, |(key, _)| key);
        if row.remove(key).is_some() {
            left_out.push(format!("{}: the key `{key}` is none of a document", section.as_str()));
        }
    }
    match serde_json::from_value(Value::Object(row)) {
        Ok(one) => list.push(one),
        Err(error) => left_out.push(format!("an entry is not of the document's form: {error}")),
    }
}
