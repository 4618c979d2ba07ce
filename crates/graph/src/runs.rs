//! Run records: `ProxmoxSyncRun`, one for each cluster and run, with what it could see as COLLECTED relationships.
//!
//! A record without `finished_at` is a run that was cut off: what it wrote is in the graph, and the next run completes it.

use pvegraph_inventory::{ClusterId, Completeness, Scopes};
use serde_json::{Value, json};

use crate::cypher::cluster_node;
use crate::labels::SYNC_RUN;
use crate::store::{Dialect, Statement};

/// How many runs of a cluster are kept: half a year of nightly runs, a week of hourly ones.
pub const RUNS_KEPT: usize = 180;

/// What a run did, by its counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// Not in the graph before.
    pub created: u64,
    /// Something other than a metric differs from before.
    pub updated: u64,
    /// Nothing but metrics differs.
    pub unchanged: u64,
    /// Seen to be gone, and removed.
    pub deleted: u64,
    /// Not seen, and kept because that proves nothing.
    pub kept: u64,
}

impl Counts {
    /// The sum of both.
    pub fn add(&mut self, other: Self) {
        let Self { created, updated, unchanged, deleted, kept } = other;
        self.created += created;
        self.updated += updated;
        self.unchanged += unchanged;
        self.deleted += deleted;
        self.kept += kept;
    }
}

/// The run of one cluster.
#[derive(Debug, Clone, Copy)]
pub struct Run<'a> {
    /// The cluster.
    pub cluster: &'a ClusterId,
    /// The run's tag.
    pub tag: i64,
}

impl Run<'_> {
    fn id(&self) -> String {
        format!("{}/{}", self.cluster, self.tag)
    }

    /// Records that the run began, in epoch seconds.
    pub fn begin(&self, started_at: i64) -> Statement {
        Statement::new(format!(
            "MERGE (r:{SYNC_RUN} {{id: $id}})\nON CREATE SET r.firstseen = $tag\n\
             SET r.cluster_id = $cluster_id, r.tag = $tag, r.started_at = $started_at, r.status = 'running',\n    \
             r.version = $version, r.lastupdated = $tag"
        ))
        .with("id", self.id())
        .with("cluster_id", self.cluster.as_str())
        .with("tag", self.tag)
        .with("started_at", started_at)
        .with("version", env!("CARGO_PKG_VERSION"))
    }

    /// Records a run that could not read its cluster at all, where the graph knows that cluster.
    pub fn fail(&self, at: i64, reason: &str) -> Statement {
        Statement::new(format!(
            "MATCH (c:ProxmoxCluster)\nWHERE c.cluster_id = $cluster_id\n\
             MERGE (r:{SYNC_RUN} {{id: $id}})\nON CREATE SET r.firstseen = $tag, r.started_at = $at\n\
             SET r.cluster_id = $cluster_id, r.tag = $tag, r.finished_at = $at, r.status = 'failed', r.reason = $reason,\n    \
             r.version = $version, r.lastupdated = $tag"
        ))
        .with("id", self.id())
        .with("cluster_id", self.cluster.as_str())
        .with("tag", self.tag)
        .with("at", at)
        .with("reason", reason)
        .with("version", env!("CARGO_PKG_VERSION"))
    }

    /// Records how the run ended: what it saw, how far it understood that, what it did. The statements belong into one
    /// transaction.
    pub fn finish(
        &self,
        dialect: Dialect,
        finished_at: i64,
        (scopes, understood): (&Scopes, Completeness),
        blocked: Option<&str>,
        counts: Counts,
    ) -> Vec<Statement> {
        let Counts { created, updated, unchanged, deleted, kept } = counts;
        let seen = scopes.worst().max(understood);
        let status = if blocked.is_some() { Completeness::Partial.max(seen) } else { seen };
        let finish = Statement::new(format!(
            "MATCH (r:{SYNC_RUN} {{id: $id}})\n\
             SET r.finished_at = $finished_at, r.status = $status, r.blocked = $blocked, r.created = $created,\n    \
             r.updated = $updated, r.unchanged = $unchanged, r.deleted = $deleted, r.kept = $kept"
        ))
        .with("id", self.id())
        .with("finished_at", finished_at)
        .with("status", status.as_str())
        .with("blocked", blocked.map_or(Value::Null, Value::from))
        .with("created", created)
        .with("updated", updated)
        .with("unchanged", unchanged)
        .with("deleted", deleted)
        .with("kept", kept);

        // Deleted and made anew, so that a repeated transaction leaves one of each.
        let forget = Statement::new(format!("MATCH (r:{SYNC_RUN} {{id: $id}})-[c:COLLECTED]->()\nDELETE c"))
            .with("id", self.id());
        let cluster = cluster_node(dialect);
        let rows: Vec<Value> = scopes
            .iter()
            .map(|scope| {
                json!({
                    "collector": scope.collector.as_str(),
                    "node": scope.node,
                    "status": scope.status.as_str(),
                    "reason": scope.reason,
                    "count": scope.count,
                })
            })
            .collect();
        let collected = Statement::new(format!(
            "UNWIND $rows AS row\nMATCH (r:{SYNC_RUN} {{id: $id}})\nMATCH {cluster}\n\
             CREATE (r)-[:COLLECTED {{collector: row.collector, node: row.node, status: row.status,\n    \
             reason: row.reason, count: row.count, firstseen: $tag, lastupdated: $tag}}]->(c)"
        ))
        .with("id", self.id())
        .with("cluster_id", self.cluster.as_str())
        .with("tag", self.tag)
        .with("rows", rows);

        let prune = Statement::new(format!(
            "MATCH (r:{SYNC_RUN})\nWHERE r.cluster_id = $cluster_id\nWITH r ORDER BY r.tag DESC SKIP {RUNS_KEPT}\nDETACH DELETE r"
        ))
        .with("cluster_id", self.cluster.as_str());
        vec![finish, forget, collected, prune]
    }
}
