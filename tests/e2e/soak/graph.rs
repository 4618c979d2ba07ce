//! The graph of one cluster as a whole, read by a driver of the tests' own, and what is different between two of them.

use std::collections::BTreeMap;

use pvegraph_graph::labels::key_of;
use pvegraph_testkit::Neo4jServer;
use serde_json::{Map, Value, json};

/// What crawls have written, by label and by relationship type, then by key: the properties. Without run records, migrations and
/// the lease, which are about runs and not about the cluster.
pub type Whole = BTreeMap<String, BTreeMap<String, Map<String, Value>>>;

/// The stamps of nodes and relationships.
const STAMPS: [&str; 5] = ["firstseen", "lastupdated", "stale_since", "history_since", "at"];

/// What tells of changes, and is not what a cluster is now.
pub const HISTORY: [&str; 2] = ["ProxmoxChange", "CHANGED"];

const NODES: &str = "MATCH (n) WHERE NOT n:ProxmoxSyncRun AND NOT n:PvegraphMigration AND NOT n:PvegraphLease \
                     RETURN labels(n) AS labels, properties(n) AS it";

/// Of the ends their keys alone: a large estate's whole properties would be read many times over.
const RELATIONSHIPS: &str = "MATCH (a)-[r]->(b) WHERE NOT a:ProxmoxSyncRun AND NOT b:ProxmoxSyncRun \
                             RETURN type(r) AS type, properties(r) AS it, \
                             labels(a) AS a_labels, a {.cluster_id, .name, .vmid, .disk_id, .net_id, .job_id, .at, .change_id} AS a, \
                             labels(b) AS b_labels, b {.cluster_id, .name, .vmid, .disk_id, .net_id, .job_id} AS b";

/// A node's label and its key in that label. The cluster is left out: there is one.
fn name(labels: &Value, properties: &Value) -> (String, String) {
    let labels = labels.as_array().unwrap();
    assert_eq!(labels.len(), 1, "a node with several labels: {labels:?} {properties}");
    let label = labels[0].as_str().unwrap();
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let key = key_of(label);
    let parts: Vec<String> =
        key.iter().filter(|name| **name != "cluster_id").map(|name| text(&properties[*name])).collect();
    assert!(!parts.iter().any(|part| part == "null"), "a node without its key: {labels:?} {properties}");
    let key = if parts.is_empty() { text(&properties["cluster_id"]) } else { parts.join(":") };
    (label.to_owned(), key)
}

/// Reads the graph.
///
/// # Panics
/// Where it has something twice.
pub async fn read(db: &Neo4jServer) -> Whole {
    let mut whole = Whole::new();
    let mut put = |kind: String, key: String, properties: Value| {
        let Value::Object(properties) = properties else { panic!("no properties: {properties}") };
        let before = whole.entry(kind.clone()).or_default().insert(key.clone(), properties);
        assert!(before.is_none(), "there are two of {kind} {key}");
    };
    for mut row in db.cypher(NODES, json!({})).await {
        let (label, key) = name(&row["labels"], &row["it"]);
        put(label, key, row["it"].take());
    }
    for mut row in db.cypher(RELATIONSHIPS, json!({})).await {
        let (_, from) = name(&row["a_labels"], &row["a"]);
        let (_, to) = name(&row["b_labels"], &row["b"]);
        let kind = row["type"].as_str().unwrap().to_owned();
        put(kind, format!("{from} -> {to}"), row["it"].take());
    }
    whole
}

/// Puts a word for each stamp that `word` has one for. What was told once is never touched again, so that its `lastupdated` is as its
/// `firstseen`.
pub fn stamps(whole: &mut Whole, word: impl Fn(&str, i64) -> Option<&'static str>) {
    for (kind, properties) in
        whole.iter_mut().flat_map(|(kind, rows)| rows.values_mut().map(move |row| (kind, row)))
    {
        let is_told = HISTORY.contains(&kind.as_str());
        for name in STAMPS {
            let Some(stamp) = properties.get(name).and_then(Value::as_i64) else { continue };
            if let Some(word) = word(if is_told { "firstseen" } else { name }, stamp) {
                properties.insert(name.to_owned(), json!(word));
            }
        }
    }
    // A change's key begins with a stamp.
    for kind in HISTORY {
        let Some(rows) = whole.get_mut(kind) else { continue };
        let named = std::mem::take(rows).into_iter().map(|(key, mut properties)| {
            // Both parts of it are there beside it.
            properties.remove("id");
            let (at, rest) = key.split_once(':').unwrap();
            let at = word("at", at.parse().unwrap()).unwrap_or(at);
            (format!("{at}:{rest}"), properties)
        });
        for (key, properties) in named {
            assert!(rows.insert(key.clone(), properties).is_none(), "{kind} {key} is told by two runs");
        }
    }
}

/// What is in one and not in the other, or not the same, one line each; `seen` is the graph in question.
pub fn differences<T: PartialEq + std::fmt::Debug>(
    seen: &BTreeMap<String, BTreeMap<String, T>>,
    wanted: &BTreeMap<String, BTreeMap<String, T>>,
) -> Vec<String> {
    let none = BTreeMap::new();
    let kinds: std::collections::BTreeSet<&String> = seen.keys().chain(wanted.keys()).collect();
    let mut lines = Vec::new();
    for kind in kinds {
        let (seen, wanted) = (seen.get(kind).unwrap_or(&none), wanted.get(kind).unwrap_or(&none));
        for (key, it) in seen {
            match wanted.get(key) {
                None => lines.push(format!("{kind} {key} is there and should not be")),
                Some(other) if other != it => {
                    lines.push(format!("{kind} {key} is\n      {it:?}\n  and not\n      {other:?}"));
                }
                Some(_) => {}
            }
        }
        let missing = wanted.keys().filter(|key| !seen.contains_key(*key));
        lines.extend(missing.map(|key| format!("{kind} {key} is missing")));
    }
    lines
}

/// Asserts that there is no difference.
pub fn same<T: PartialEq + std::fmt::Debug>(
    what: &str,
    seen: &BTreeMap<String, BTreeMap<String, T>>,
    wanted: &BTreeMap<String, BTreeMap<String, T>>,
) {
    let lines = differences(seen, wanted);
    let shown: Vec<&String> = lines.iter().take(12).collect();
    assert!(lines.is_empty(), "{what}: {} differences, of which {shown:#?}", lines.len());
}
