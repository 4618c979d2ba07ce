//! Scopes and policies in the graph. They may have been written by hand.

use std::collections::BTreeSet;

use pvegraph_graph::cypher::Writer;
use pvegraph_graph::desired_labels::{MANAGED_SCOPE, POLICY};
use pvegraph_graph::{Statement, Store, StoreError};
use pvegraph_inventory::ClusterId;
use serde_json::{Value, json};

use super::StoredError;
use super::read::{columns, objects};
use super::rows::Properties;
use super::write::{keyed, row};
use crate::desired::Problem;
use crate::plan::Action;
use crate::policy::{Policy, Severity};
use crate::scope::{self, Scope};

fn text(row: &Properties, name: &str) -> Option<String> {
    row.get(name).and_then(Value::as_str).map(str::to_owned)
}

async fn rows(store: &dyn Store, cluster: &ClusterId, text: String) -> Result<Vec<Properties>, StoreError> {
    let rows = store.read(Statement::new(text).with("cluster_id", cluster.as_str())).await?;
    Ok(objects(rows).collect())
}

/// The scopes of a cluster, in the order of their numbers.
///
/// # Errors
/// The store's, or what is wrong with what is there.
pub async fn scopes(store: &dyn Store, cluster: &ClusterId) -> Result<Vec<Scope>, StoredError> {
    let label = &MANAGED_SCOPE;
    let text =
        format!("MATCH (n:{})\nWHERE n.cluster_id = $cluster_id\nRETURN {}", label.name, columns(label));
    let mut problems = Vec::new();
    let mut scopes: Vec<Scope> =
        rows(store, cluster, text).await?.iter().filter_map(|row| scope(row, &mut problems)).collect();
    scopes.sort_by_key(|scope| scope.vmid_min);
    problems.extend(scope::check(&scopes));
    if problems.is_empty() { Ok(scopes) } else { Err(StoredError::Problems(problems)) }
}

fn scope(row: &Properties, problems: &mut Vec<Problem>) -> Option<Scope> {
    let name = text(row, "name").unwrap_or_default();
    let mut tell =
        |field: &str, text: &str| problems.push(Problem::new(format!("scope {name}"), field, text));
    if name.is_empty() {
        tell("name", "it has none: SET s.name = '…', or delete the node");
    }
    // A word that is not understood must not become a permission, nor vanish.
    let mut allow = BTreeSet::new();
    for word in row.get("allow").and_then(Value::as_array).into_iter().flatten() {
        match word.as_str().and_then(Action::of) {
            Some(action) => drop(allow.insert(action)),
            None => {
                let words = Action::ALL.map(Action::as_str).join(", ");
                tell("allow", &format!("write words of {words}"));
            }
        }
    }
    let mut whole = |field: &str| match row.get(field) {
        None | Some(Value::Null) => None,
        Some(value) => {
            if value.as_i64().is_none() {
                tell(field, "write a whole number");
            }
            value.as_i64()
        }
    };
    let (min, max) = (whole("vmid_min"), whole("vmid_max"));
    let (max_deletes, max_restarts) = (whole("max_deletes").unwrap_or_default(), whole("max_restarts"));
    let paused = match row.get("paused") {
        None | Some(Value::Null) => false,
        Some(Value::Bool(paused)) => *paused,
        Some(_) => {
            tell("paused", "write true or false");
            true
        }
    };
    let (Some(vmid_min), Some(vmid_max)) = (min, max) else {
        tell("vmid_min", "it needs `vmid_min` and `vmid_max`");
        return None;
    };
    Some(Scope {
        vmid_min,
        vmid_max,
        pool: text(row, "pool"),
        allow,
        max_deletes,
        max_restarts,
        paused,
        name,
    })
}

/// Writes a scope.
///
/// # Errors
/// The store's.
pub async fn put_scope(
    store: &dyn Store,
    cluster: &ClusterId,
    scope: &Scope,
    now: i64,
) -> Result<(), StoreError> {
    let allow: Vec<&str> = scope.allow.iter().map(|action| action.as_str()).collect();
    let one = keyed(&[
        ("name", json!(scope.name)),
        ("vmid_min", json!(scope.vmid_min)),
        ("vmid_max", json!(scope.vmid_max)),
        ("pool", json!(scope.pool)),
        ("allow", json!(allow)),
        ("max_deletes", json!(scope.max_deletes)),
        ("max_restarts", json!(scope.max_restarts)),
        ("paused", json!(scope.paused)),
    ]);
    let writer = Writer { dialect: store.dialect(), cluster, tag: now };
    store.write(vec![writer.upsert(&MANAGED_SCOPE, vec![row(&MANAGED_SCOPE, &one)])]).await?;
    store.checkpoint().await
}

/// Removes a scope: nothing may be touched there any more.
///
/// # Errors
/// The store's.
pub async fn remove_scope(store: &dyn Store, cluster: &ClusterId, name: &str) -> Result<(), StoreError> {
    remove(store, cluster, MANAGED_SCOPE.name, MANAGED_SCOPE.key, name).await
}

/// The policies of a cluster, by name.
///
/// # Errors
/// The store's, or what is wrong with what is there: a policy that is not understood must not be passed over.
pub async fn policies(store: &dyn Store, cluster: &ClusterId) -> Result<Vec<Policy>, StoredError> {
    let statement =
        format!("MATCH (n:{})\nWHERE n.cluster_id = $cluster_id\nRETURN {}", POLICY.name, columns(&POLICY));
    let mut problems = Vec::new();
    let mut policies = Vec::new();
    for row in rows(store, cluster, statement).await? {
        let name = text(&row, "name").unwrap_or_default();
        let mut tell =
            |field: &str, text: &str| problems.push(Problem::new(format!("policy {name}"), field, text));
        if name.is_empty() {
            tell("name", "it has none: SET p.name = '…', or delete the node");
        }
        let severity = text(&row, "severity").as_deref().and_then(Severity::of);
        if severity.is_none() {
            tell("severity", "write 'deny' or 'warn'");
        }
        let cypher = text(&row, "cypher").unwrap_or_default();
        if cypher.trim().is_empty() {
            tell("cypher", "it has no statement: write one, or delete the node");
        }
        let Some(severity) = severity else { continue };
        policies.push(Policy {
            title: text(&row, "title"),
            mend: text(&row, "mend"),
            severity,
            cypher,
            name,
        });
    }
    policies.sort_by(|a, b| a.name.cmp(&b.name));
    if problems.is_empty() { Ok(policies) } else { Err(StoredError::Problems(problems)) }
}

/// Writes a policy.
///
/// # Errors
/// The store's.
pub async fn put_policy(
    store: &dyn Store,
    cluster: &ClusterId,
    policy: &Policy,
    now: i64,
) -> Result<(), StoreError> {
    let one = keyed(&[
        ("name", json!(policy.name)),
        ("title", json!(policy.title)),
        ("cypher", json!(policy.cypher)),
        ("severity", json!(policy.severity.as_str())),
        ("mend", json!(policy.mend)),
    ]);
    let writer = Writer { dialect: store.dialect(), cluster, tag: now };
    store.write(vec![writer.upsert(&POLICY, vec![row(&POLICY, &one)])]).await?;
    store.checkpoint().await
}

/// Removes a policy.
///
/// # Errors
/// The store's.
pub async fn remove_policy(store: &dyn Store, cluster: &ClusterId, name: &str) -> Result<(), StoreError> {
    remove(store, cluster, POLICY.name, POLICY.key, name).await
}

async fn remove(
    store: &dyn Store,
    cluster: &ClusterId,
    label: &str,
    key: &[&str],
    name: &str,
) -> Result<(), StoreError> {
    let writer = Writer { dialect: store.dialect(), cluster, tag: 0 };
    store.write(vec![writer.delete(label, key, &[vec![json!(name)]])]).await?;
    store.checkpoint().await
}
