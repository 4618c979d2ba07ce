//! The label tables and the migrations agree: a migrated graph has exactly the constraints and indexes that the tables demand.

use std::collections::BTreeSet;

use pvegraph_embedded_store::Mode;
use pvegraph_graph::desired_labels;
use pvegraph_graph::labels::{LEASE, MIGRATION, SYNC_RUN, labels};
use pvegraph_graph::{SchemaKind, SchemaObject, Statement, Store};
use serde_json::{Value, json};

use crate::contract::{embedded, neo4j};
use crate::on_both_stores;
use crate::support::{Graph, Rig};

/// What the tables demand, and the three labels that have none.
fn demanded() -> BTreeSet<SchemaObject> {
    let object = |kind, label: &str, properties: &[&str]| SchemaObject {
        kind,
        label: label.to_owned(),
        properties: properties.iter().map(|name| (*name).to_owned()).collect(),
    };
    let mut all = BTreeSet::new();
    for label in labels().into_iter().chain(desired_labels::labels()) {
        all.insert(object(SchemaKind::Unique, label.name, &label.key));
        all.extend(label.indexed.iter().map(|name| object(SchemaKind::Index, label.name, &[name])));
    }
    all.extend([SYNC_RUN, LEASE, MIGRATION].map(|label| object(SchemaKind::Unique, label, &["id"])));
    all.insert(object(SchemaKind::Index, SYNC_RUN, &["cluster_id"]));
    all
}

/// `ProxmoxVM` → `proxmox_vm`.
fn snake(label: &str) -> String {
    let mut snake = String::new();
    let mut after_small = false;
    for letter in label.chars() {
        if letter.is_ascii_uppercase() && after_small {
            snake.push('_');
        }
        after_small = letter.is_ascii_lowercase();
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}

fn store(graph: &Graph, rig: &Rig) -> Box<dyn Store> {
    match graph {
        Graph::Neo4j(server) => Box::new(neo4j(server)),
        Graph::Embedded => Box::new(embedded(rig, Mode::Read)),
    }
}

/// The store's own listings, whole: name, kind, label, properties. Not through [`Store::schema_objects`], which may overlook some.
async fn shown(store: &dyn Store) -> BTreeSet<(String, SchemaObject)> {
    let mut all = BTreeSet::new();
    for (kind, text) in [
        (
            SchemaKind::Unique,
            "SHOW CONSTRAINTS YIELD name, type, entityType, labelsOrTypes, properties RETURN name, type, entityType, labelsOrTypes, properties",
        ),
        (
            SchemaKind::Index,
            "SHOW INDEXES YIELD name, type, entityType, labelsOrTypes, properties, owningConstraint \
             RETURN name, type, entityType, labelsOrTypes, properties, owningConstraint",
        ),
    ] {
        let rows = store.read(Statement::new(text)).await.unwrap();
        for at in 0..rows.rows.len() {
            let cell = |column| rows.get(at, column).cloned().unwrap_or_default();
            // Each Neo4j database is made with two of these; the rest belong to constraints.
            if cell("type") == "LOOKUP" || !cell("owningConstraint").is_null() {
                continue;
            }
            let kinds = match kind {
                SchemaKind::Unique => ["UNIQUENESS", "NODE_PROPERTY_UNIQUENESS"],
                // The embedded engine lists one index under both.
                SchemaKind::Index => ["RANGE", "PROPERTY"],
            };
            let row = &rows.rows[at];
            assert!(
                kinds.contains(&cell("type").as_str().unwrap()) && cell("entityType") == "NODE",
                "{row:?}"
            );
            let texts = |value: Value| -> Vec<String> {
                value.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
            };
            let mut labels = texts(cell("labelsOrTypes"));
            assert_eq!(labels.len(), 1, "{row:?}");
            let object =
                SchemaObject { kind, label: labels.remove(0), properties: texts(cell("properties")) };
            all.insert((cell("name").as_str().unwrap().to_owned(), object));
        }
    }
    all
}

async fn is_demanded(graph: &Graph, rig: &Rig) {
    let store = store(graph, rig);
    let listed = store.schema_objects().await.unwrap();
    assert_eq!(listed.iter().cloned().collect::<BTreeSet<_>>(), demanded());
    assert_eq!(listed.len(), demanded().len(), "nothing is listed twice");
    let shown = shown(&*store).await;
    assert_eq!(shown.iter().map(|(_, object)| object.clone()).collect::<BTreeSet<_>>(), demanded());
    if let Graph::Neo4j(server) = graph {
        for (name, object) in &shown {
            let property = if object.kind == SchemaKind::Unique { "key" } else { &object.properties[0] };
            assert_eq!(*name, format!("{}_{property}", snake(&object.label)), "{object:?}");
        }
        let states = server.cypher("SHOW INDEXES YIELD state RETURN DISTINCT state", json!({})).await;
        assert_eq!(states, [json!({ "state": "ONLINE" })]);
    }
}

async fn status(rig: &Rig) -> Vec<(u64, String, bool)> {
    let rows = rig.run(&["migrate", "status", "-o", "json"]).await.ended(0).rows();
    rows.iter()
        .map(|row| {
            let at = &row["applied_at"];
            assert!(at.is_null() || at.as_str().unwrap().starts_with("20"), "{row}");
            (row["version"].as_u64().unwrap(), row["state"].as_str().unwrap().to_owned(), !at.is_null())
        })
        .collect()
}

fn all(state: &str, applied: bool) -> Vec<(u64, String, bool)> {
    let files = concat!(env!("CARGO_MANIFEST_DIR"), "/../../schema");
    let count = std::fs::read_dir(files).unwrap().count() as u64 / 2;
    (1..=count).map(|version| (version, state.to_owned(), applied)).collect()
}

async fn migrations_make_what_the_tables_demand(graph: &Graph) {
    let rig = Rig::new(graph);
    match graph {
        // Not even the schema of the test before.
        Graph::Neo4j(server) => server.wipe().await,
        Graph::Embedded => {
            // A file that is not there is no graph, and reading does not make it one.
            rig.run(&["migrate", "status"]).await.ended(14).says(&["graph.kgl", "there is no such file"]);
            rig.run(&["migrate", "down", "--to", "0", "--yes"]).await.ended(0);
        }
    }
    assert_eq!(status(&rig).await, all("pending", false));
    for _ in 0..2 {
        let ran = rig.run(&["migrate", "up", "-o", "json"]).await.ended(0).rows();
        assert_eq!(ran.len(), all("", true).len());
        assert_eq!(status(&rig).await, all("applied", true));
        is_demanded(graph, &rig).await;
        // Nothing is left to do.
        assert_eq!(rig.run(&["migrate", "up", "-o", "json"]).await.ended(0).rows(), Vec::<Value>::new());
        is_demanded(graph, &rig).await;

        let ran = rig.run(&["migrate", "down", "--to", "0", "--yes", "-o", "json"]).await.ended(0).rows();
        assert_eq!(ran.len(), all("", true).len());
        assert_eq!(status(&rig).await, all("pending", false));
        let store = store(graph, &rig);
        assert_eq!(store.schema_objects().await.unwrap(), []);
        assert_eq!(shown(&*store).await, BTreeSet::new());
    }
    // What is not there can't be asked for.
    rig.run(&["migrate", "up", "--to", "9999"]).await.ended(10).says(&["there is no migration 9999"]);
}
on_both_stores!(schema => migrations_make_what_the_tables_demand);
