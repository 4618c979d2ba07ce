//! The history: `ProxmoxChange`, one for each thing that a sync saw come or go and for each property that it saw change.
//!
//! A change is written in the transaction that makes it. What a cluster had when it was synced first is no change: that it was
//! there is known, and since when is not. Metrics change all the time and are left out, and so is what follows from other changes
//! ([`follows`]).

use pvegraph_inventory::{ClusterId, Observed};
use serde_json::Value;

use crate::cypher::cluster_node;
use crate::labels::{CHANGE, End, Relationship, RelationshipRow, SYNC_RUN};
use crate::store::{Dialect, Statement};

/// What happened to a thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeType {
    /// It was not in the graph before.
    Created,
    /// A property of it is another than before.
    Updated,
    /// It was proven gone.
    Deleted,
    /// A guest is on another node.
    Migrated,
}

impl ChangeType {
    /// All, as `pvegraph changes --type` takes them.
    pub const ALL: [Self; 4] = [Self::Created, Self::Updated, Self::Deleted, Self::Migrated];

    /// The type of this word.
    pub fn of(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }

    /// The word in the graph.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Updated => "updated",
            Self::Deleted => "deleted",
            Self::Migrated => "migrated",
        }
    }
}

/// One change, as a run saw it.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The run's tag, when it began, in epoch seconds: it happened since the run before, or while this one was at work.
    pub at: i64,
    /// What happened.
    pub kind: ChangeType,
    /// The label of the thing.
    pub label: &'static str,
    /// The key of the thing, without its cluster.
    pub key: Vec<Value>,
    /// The guest that it is, or that it belongs to.
    pub vmid: Option<i64>,
    /// What it was called.
    pub name: Option<String>,
    /// The property, of what was updated or migrated.
    pub field: Option<&'static str>,
    /// Its value before.
    pub old: Value,
    /// Its value since.
    pub new: Value,
}

impl Observed for Change {}

impl Change {
    /// The thing's key as one text: `100`, `100:scsi0`, `pve1`; empty for the cluster itself.
    pub fn object(&self) -> String {
        self.key
            .iter()
            .filter_map(|part| text(part).as_str().map(str::to_owned))
            .collect::<Vec<_>>()
            .join(":")
    }

    /// What identifies it among the changes of its run.
    pub fn id(&self) -> String {
        let last = self.field.unwrap_or(self.kind.as_str());
        format!("{}/{}/{last}", self.label, self.object())
    }
}

/// A value as text, which a property of any type can be told in: text as it is, lists as JSON.
pub fn text(value: &Value) -> Value {
    match value {
        Value::Null | Value::String(_) => value.clone(),
        other => Value::String(other.to_string()),
    }
}

/// Whether a property follows from others, whose changes are told: a guest's `id` from its node, the sum of its volumes from these.
pub fn follows(label: &str, property: &str) -> bool {
    property == "id" || (label, property) == ("ProxmoxVM", "disk_size")
}

/// From a change to what changed, a node of this label with this key, while that is there.
pub fn changed(label: &'static str, key: &'static [&'static str]) -> Relationship {
    Relationship {
        name: "CHANGED",
        from: CHANGE.name,
        from_key: CHANGE.key,
        to: label,
        to_key: key,
        columns: &[],
        owner: End::From,
        doc: "What changed, while it is there.",
    }
}

/// A change's relationship to what changed.
pub fn end(change: &Change) -> RelationshipRow {
    RelationshipRow::new(vec![change.at.into(), change.id().into()], change.key.clone())
}

/// What earlier runs that came to their end have seen of this cluster: a column `collector`, and no row before the first of them. What is
/// seen for the first time is no change. What a token may not see at all counts as not seen.
pub fn seen_before(cluster: &ClusterId) -> Statement {
    // A run that could not read the cluster at all has collected nothing, and no counts.
    Statement::new(format!(
        "MATCH (r:{SYNC_RUN})\nWHERE r.cluster_id = $cluster_id AND r.finished_at IS NOT NULL AND r.created IS NOT NULL\n\
         MATCH (r)-[c:COLLECTED]->(:ProxmoxCluster)\n\
         WHERE c.node IS NULL AND c.status <> 'failed' AND (c.status <> 'filtered' OR c.count > 0)\n\
         RETURN DISTINCT c.collector AS collector"
    ))
    .with("cluster_id", cluster.as_str())
}

/// When the latest change was seen but for the `kept` last ones: a column `at`, or no row.
pub fn beyond(cluster: &ClusterId, kept: u64) -> Statement {
    Statement::new(format!(
        "MATCH (h:{})\nWHERE h.cluster_id = $cluster_id\nRETURN h.at AS at ORDER BY at DESC SKIP {kept} LIMIT 1",
        CHANGE.name
    ))
    .with("cluster_id", cluster.as_str())
}

/// Whether there are changes before a moment: a row if there are.
pub fn any_before(cluster: &ClusterId, before: i64) -> Statement {
    Statement::new(format!(
        "MATCH (h:{})\nWHERE h.cluster_id = $cluster_id AND h.at < $before\nRETURN h.at AS at LIMIT 1",
        CHANGE.name
    ))
    .with("cluster_id", cluster.as_str())
    .with("before", before)
}

/// Deletes changes before a moment, `rows` at most.
pub fn prune(cluster: &ClusterId, before: i64, rows: usize) -> Statement {
    Statement::new(format!(
        "MATCH (h:{})\nWHERE h.cluster_id = $cluster_id AND h.at < $before\nWITH h LIMIT {rows}\nDETACH DELETE h",
        CHANGE.name
    ))
    .with("cluster_id", cluster.as_str())
    .with("before", before)
}

/// Says on the cluster that its changes are known from this run on, where it is not said yet. For the transaction that ends the run: after
/// one that is cut off the next is the first again.
pub fn known_since(dialect: Dialect, cluster: &ClusterId, since: i64) -> Statement {
    say_known_since(dialect, cluster, since, "c.history_since IS NULL")
}

/// Says on the cluster that earlier changes are not kept.
pub fn forgotten_before(dialect: Dialect, cluster: &ClusterId, since: i64) -> Statement {
    say_known_since(dialect, cluster, since, "c.history_since < $since")
}

fn say_known_since(dialect: Dialect, cluster: &ClusterId, since: i64, condition: &str) -> Statement {
    let node = cluster_node(dialect);
    Statement::new(format!("MATCH {node}\nWHERE {condition}\nSET c.history_since = $since"))
        .with("cluster_id", cluster.as_str())
        .with("since", since)
}

/// Which changes are asked for.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// Seen at this moment or later, in epoch seconds.
    pub since: i64,
    /// Of this cluster.
    pub cluster: Option<String>,
    /// Of this guest and what belongs to it.
    pub vmid: Option<i64>,
    /// Of these types; empty for all.
    pub kinds: Vec<ChangeType>,
    /// As many, the latest.
    pub limit: usize,
}

/// Reads changes, the latest first; within a run by cluster, guest and thing.
pub fn read(asked: &Asked) -> Statement {
    let kinds: Vec<Value> = asked.kinds.iter().map(|kind| kind.as_str().into()).collect();
    Statement::new(format!(
        "MATCH (h:{})\nWHERE h.at >= $since AND ($cluster_id IS NULL OR h.cluster_id = $cluster_id)\n  \
         AND ($vmid IS NULL OR h.vmid = $vmid) AND (size($kinds) = 0 OR h.change_type IN $kinds)\n\
         RETURN h.at AS at, h.cluster_id AS cluster_id, h.change_type AS change_type, h.label AS label,\n       \
         h.object AS object, h.name AS name, h.field AS field, h.old AS old, h.new AS new\n\
         ORDER BY at DESC, cluster_id, h.vmid, h.change_id\nLIMIT {}",
        CHANGE.name, asked.limit
    ))
    .with("since", asked.since)
    .with("cluster_id", asked.cluster.clone().map_or(Value::Null, Value::from))
    .with("vmid", asked.vmid.map_or(Value::Null, Value::from))
    .with("kinds", kinds)
}

/// From when on the changes of each cluster are known: columns `cluster_id` and `since`, which is null before the first whole run.
pub fn known() -> Statement {
    Statement::new(
        "MATCH (c:ProxmoxCluster)\nRETURN c.cluster_id AS cluster_id, c.history_since AS since ORDER BY cluster_id",
    )
}
