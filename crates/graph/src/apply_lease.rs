//! What the graph keeps on the lease's node of a cluster's applies: whether they are paused, and the head of the audit log.

use serde_json::Value;

use crate::labels::LEASE;
use crate::lease::{Lease, Purpose};
use crate::store::{Rows, Statement, Store, StoreError};

/// The head of an audit log, as the graph has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditHead {
    /// How many entries the log has at least.
    pub entries: i64,
    /// The hash of the last of them.
    pub hash: String,
    /// The host and the directory where the log is kept, if they are known.
    pub kept_at: Option<String>,
}

impl Lease {
    /// Renews the lease, mirrors the head of the audit log, and says whether applies are paused. All of it only while the lease is held.
    ///
    /// # Errors
    /// The lease is lost ([`StoreError::is_lease_lost`]), or the store failed.
    pub async fn renew(
        &self,
        store: &dyn Store,
        head: Option<&AuditHead>,
        now: i64,
    ) -> Result<bool, StoreError> {
        let mut statements = vec![paused_statement(self.id())];
        if let Some(AuditHead { entries, hash, kept_at }) = head {
            // It never goes back: what is known of the log stays known.
            let mirror = Statement::new(format!(
                "MATCH (l:{LEASE} {{id: $id}})\nWHERE coalesce(l.audit_entries, 0) <= $entries\n\
                 SET l.audit_entries = $entries, l.audit_hash = $hash, l.audit_kept_at = $kept_at"
            ));
            let kept_at = kept_at.as_deref().map_or(Value::Null, Value::from);
            let mirror = mirror.with("id", self.id()).with("entries", *entries);
            statements.push(mirror.with("hash", hash.as_str()).with("kept_at", kept_at));
        }
        statements.push(self.guard(now));
        let answers = store.write(statements).await?;
        Ok(answers.first().is_some_and(is_paused))
    }
}

fn paused_statement(id: &str) -> Statement {
    let text = format!("MATCH (l:{LEASE} {{id: $id}})\nRETURN coalesce(l.paused, false) AS paused");
    Statement::new(text).with("id", id)
}

fn is_paused(rows: &Rows) -> bool {
    rows.get(0, "paused").and_then(Value::as_bool).unwrap_or(false)
}

/// Whether applies to this cluster are paused.
///
/// # Errors
/// The store failed.
pub async fn paused(store: &dyn Store, cluster: &str) -> Result<bool, StoreError> {
    Ok(is_paused(&store.read(paused_statement(&Purpose::Apply(cluster).id())).await?))
}

/// Pauses applies to this cluster, or lets them go on. A running one stops before its next call.
///
/// # Errors
/// The store failed.
pub async fn set_paused(store: &dyn Store, cluster: &str, paused: bool) -> Result<(), StoreError> {
    let text = format!("MERGE (l:{LEASE} {{id: $id}})\nSET l.paused = $paused");
    let statement = Statement::new(text).with("id", Purpose::Apply(cluster).id()).with("paused", paused);
    store.write(vec![statement]).await.map(drop)
}

/// The head of the audit log that was mirrored last.
///
/// # Errors
/// The store failed.
pub async fn audit_head(store: &dyn Store, cluster: &str) -> Result<Option<AuditHead>, StoreError> {
    let text = format!(
        "MATCH (l:{LEASE} {{id: $id}})\nWHERE l.audit_entries IS NOT NULL\n\
         RETURN l.audit_entries AS entries, l.audit_hash AS hash, l.audit_kept_at AS kept_at"
    );
    let rows = store.read(Statement::new(text).with("id", Purpose::Apply(cluster).id())).await?;
    let entries = rows.get(0, "entries").and_then(Value::as_i64);
    let hash = rows.get(0, "hash").and_then(Value::as_str).map(str::to_owned);
    let kept_at = rows.get(0, "kept_at").and_then(Value::as_str).map(str::to_owned);
    Ok(entries.zip(hash).map(|(entries, hash)| AuditHead { entries, hash, kept_at }))
}
