//! Approved plans in the graph.

use pvegraph_graph::cypher::Writer;
use pvegraph_graph::desired_labels::PLAN;
use pvegraph_graph::{Statement, Store, StoreError};
use pvegraph_inventory::ClusterId;
use serde_json::{Value, json};

use super::history;
use super::read::{columns, objects};
use super::write::keyed;
use crate::desired::Desired;
use crate::plan::Plan;

/// Who agreed to a plan, and until when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approval {
    /// Who: the word of whoever ran the command.
    pub approver: String,
    /// When, in epoch seconds.
    pub at: i64,
    /// Until when it holds, in epoch seconds.
    pub expires_at: i64,
}

/// Why a plan may not be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotApproved {
    /// Nobody approved it.
    #[error("plan {0} is not approved: `pvegraph approve FILE`")]
    Never(String),
    /// The approval no longer holds.
    #[error(
        "the approval of plan {sha256} by {approver} expired {ago} s ago: approve it again, or plan again"
    )]
    Expired {
        /// The plan, shortened.
        sha256: String,
        /// Who approved it.
        approver: String,
        /// For how many seconds.
        ago: i64,
    },
}

impl Approval {
    /// Whether this approval of the plan holds now.
    ///
    /// # Errors
    /// There is none, or it expired.
    pub fn holds(approval: Option<&Self>, sha256: &str, now: i64) -> Result<(), NotApproved> {
        let brief = || sha256.get(..12).unwrap_or(sha256).to_owned();
        match approval {
            None => Err(NotApproved::Never(brief())),
            Some(one) if now >= one.expires_at => Err(NotApproved::Expired {
                sha256: brief(),
                approver: one.approver.clone(),
                ago: now - one.expires_at,
            }),
            Some(_) => Ok(()),
        }
    }
}

/// Writes an approval, with the plan and its operations.
///
/// # Errors
/// The store's.
pub async fn approve(
    store: &dyn Store,
    cluster: &ClusterId,
    plan: &Plan,
    desired: &Desired,
    approval: &Approval,
) -> Result<(), StoreError> {
    let writer = Writer { dialect: store.dialect(), cluster, tag: approval.at };
    let mut statements = history::plan(&writer, plan, desired);
    let approved = keyed(&[
        ("sha256", json!(plan.sha256())),
        ("approver", json!(approval.approver)),
        ("approved_at", json!(approval.at)),
        ("approval_expires_at", json!(approval.expires_at)),
    ]);
    statements.push(writer.upsert(&PLAN, vec![history::part(&PLAN, &approved)]));
    store.write(statements).await?;
    store.checkpoint().await
}

/// The approval of a plan, by its SHA-256.
///
/// # Errors
/// The store's.
pub async fn approval(
    store: &dyn Store,
    cluster: &ClusterId,
    sha256: &str,
) -> Result<Option<Approval>, StoreError> {
    let text = format!(
        "MATCH (n:{})\nWHERE n.cluster_id = $cluster_id AND n.sha256 = $sha256\nRETURN {}",
        PLAN.name,
        columns(&PLAN)
    );
    let statement = Statement::new(text).with("cluster_id", cluster.as_str()).with("sha256", sha256);
    let rows = store.read(statement).await?;
    Ok(objects(rows).find_map(|row| {
        Some(Approval {
            approver: row.get("approver").and_then(Value::as_str)?.to_owned(),
            at: row.get("approved_at").and_then(Value::as_i64)?,
            expires_at: row.get("approval_expires_at").and_then(Value::as_i64)?,
        })
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expired_approval_is_refused() {
        let approval = Approval { approver: "kim".to_owned(), at: 100, expires_at: 200 };
        let sha256 = "0123456789abcdef";
        assert_eq!(Approval::holds(Some(&approval), sha256, 199), Ok(()));
        let error = Approval::holds(Some(&approval), sha256, 205).unwrap_err().to_string();
        assert!(error.contains("0123456789ab by kim expired 5 s ago: approve it again"), "{error}");
        let error = Approval::holds(None, sha256, 100).unwrap_err().to_string();
        assert!(error.contains("not approved") && error.contains("pvegraph approve"), "{error}");
    }
}
