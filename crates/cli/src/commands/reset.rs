//! `pvegraph reset`: removes what syncs have written.

use std::collections::BTreeSet;

use clap::Args;
use pvegraph_graph::labels::{SYNC_RUN, labels};
use pvegraph_graph::lease::Lease;
use pvegraph_graph::{Rows, Statement, Store};
use pvegraph_inventory::ClusterId;
use pvegraph_sync::load::now;
use pvegraph_sync::run::RunError;
use serde_json::{Value, json};

use super::{Global, agreed, no_such_cluster};
use crate::connect::{self, Access, HostLock};
use crate::exit::{Exit, Failure};
use crate::render::Report;

/// Nodes deleted in one transaction; more would need the server's whole memory.
const BATCH: u32 = 5_000;

/// Options of `reset`.
#[derive(Debug, Args)]
#[command(after_help = "\
Only nodes with pvegraph's labels are removed, with their relationships; the schema stays (`pvegraph migrate down --to 0` removes \
it). What was seen first, and when, and what changed since is lost: a new sync starts anew.

Examples:
  pvegraph reset
  pvegraph reset --cluster pvegraph-demo --yes")]
pub struct Reset {
    /// Only this cluster, by its `cluster_id`
    #[arg(long, value_name = "CLUSTER_ID")]
    cluster: Option<ClusterId>,

    /// Do not ask
    #[arg(long)]
    yes: bool,
}

impl Reset {
    /// Runs the command.
    ///
    /// # Errors
    /// Nobody agreed, there is no such cluster, or the store can't be used.
    pub fn run(self, global: &Global) -> Result<Exit, Failure> {
        let settings = global.settings()?;
        connect::block_on(async {
            let lock = HostLock::take(&settings)?;
            let store = connect::store(&settings, Access::Write).await?;
            if let Some(cluster) = &self.cluster {
                known(&*store, cluster).await?;
            }
            let what =
                self.cluster.as_ref().map_or_else(|| "everything".to_owned(), |id| format!("cluster {id}"));
            if !self.yes && !agreed(&format!("Remove {what} from {}?", store.target()))? {
                return Err(Failure::failed("nothing was removed"));
            }
            let lease = Lease::take(&*store, &lock.holder(), now()).await.map_err(RunError::from)?;
            let removed = tokio::select! {
                removed = remove(&*store, &lease, self.cluster.as_ref()) => removed,
                never = lease.keep(&*store, now) => match never {},
            };
            // What the work says comes first: where the store went away, giving back fails as well.
            let released = lease.release(&*store).await;
            let removed = removed?;
            released?;
            store.checkpoint().await?;
            global.print(&Report::new(removed))?;
            Ok(Exit::Success)
        })
    }
}

/// Refuses a cluster of which the graph knows nothing: a misspelt name must not look like one that is removed.
async fn known(store: &dyn Store, cluster: &ClusterId) -> Result<(), Failure> {
    let mut known = BTreeSet::new();
    // A run that was cut off early has left its record alone.
    for label in ["ProxmoxCluster", SYNC_RUN] {
        let text = format!("MATCH (n:{label}) RETURN DISTINCT n.cluster_id AS cluster_id");
        let rows = store.read(Statement::new(text)).await?.rows;
        known.extend(rows.iter().filter_map(|row| row.first()?.as_str().map(str::to_owned)));
    }
    if known.contains(cluster.as_str()) {
        return Ok(());
    }
    Err(no_such_cluster(store, cluster.as_str(), known.iter().map(String::as_str)))
}

/// Removes batch by batch, children first.
async fn remove(store: &dyn Store, lease: &Lease, cluster: Option<&ClusterId>) -> Result<Rows, Failure> {
    let mut names: Vec<&str> = labels().iter().map(|label| label.name).collect();
    names.reverse();
    names.insert(0, SYNC_RUN);
    let mut rows = Vec::new();
    for label in names {
        let scope = if cluster.is_some() { "WHERE n.cluster_id = $cluster_id\n" } else { "" };
        let text = format!(
            "MATCH (n:{label})\n{scope}WITH n LIMIT {BATCH}\nDETACH DELETE n\nRETURN count(*) AS removed"
        );
        let mut removed = 0;
        loop {
            let mut statement = Statement::new(text.clone());
            if let Some(cluster) = cluster {
                statement = statement.with("cluster_id", cluster.as_str());
            }
            let answer = store.write(vec![statement, lease.guard(now())]).await?;
            let batch =
                answer.first().and_then(|rows| rows.get(0, "removed")).and_then(Value::as_u64).unwrap_or(0);
            removed += batch;
            if batch < u64::from(BATCH) {
                break;
            }
        }
        rows.push(vec![json!(label), json!(removed)]);
    }
    Ok(Rows { columns: vec!["label".to_owned(), "removed".to_owned()], rows })
}
