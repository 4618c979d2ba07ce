//! `pvegraph plan`: what would be done to bring a cluster's guests to what is desired. It does nothing of it.

use std::path::PathBuf;

use clap::Args;
use jiff::Timestamp;
use pve_client::PveClient;
use pvegraph_graph::Rows;
use pvegraph_inventory::build;
use pvegraph_reconcile::desired::Problem;
use pvegraph_reconcile::plan::{Input, Plan, plan};
use pvegraph_reconcile::stored;
use serde_json::{Value, json};

use super::Global;
use super::discover::write;
use super::drift::{compare, not_managed, one_cluster};
use crate::connect::{self, Access};
use crate::exit::{Exit, Failure};
use crate::render::{Output, Report};

/// Options of `plan`.
#[derive(Debug, Args)]
#[command(after_help = "\
Ends with 6 where something forbids the plan. Only guests that are bound (`pvegraph adopt`) and managed are ever in it, and a token \
that may read is enough to make it.

Examples:
  pvegraph plan
  pvegraph plan --cluster rig --out plan.json --exit-code")]
pub struct PlanCommand {
    /// Write the plan to this file, with its SHA-256
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,

    /// End with 5 where the plan is not empty
    #[arg(long)]
    exit_code: bool,

    /// The cluster of this name
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
}

impl PlanCommand {
    /// Runs the command.
    ///
    /// # Errors
    /// The configuration is not valid, nothing is desired, or the cluster or the store can't be read.
    pub fn run(self, global: &Global) -> Result<Exit, Failure> {
        let settings = global.settings()?;
        connect::block_on(async {
            let store = connect::store(&settings, Access::Read).await?;
            let (id, client) = one_cluster(&settings, self.cluster.as_deref()).await?;
            let stored = stored::read(&*store, &id).await?;
            let found = compare(&client, &stored.desired, &stored.bindings).await?;
            let mut plan = plan(&Input {
                desired: &stored.desired,
                generation: stored.generation,
                bindings: &stored.bindings,
                live: &found.live.guests,
                diffs: &found.diffs,
                unread: &found.unread,
                now: Timestamp::now().as_second(),
            });
            if !quorate(&client).await {
                let text = "the cluster has no quorum, or does not say: wait for it, or let the token read it (Sys.Audit on /)";
                plan.blocked.push(Problem::new("the cluster", "quorum", text).into());
            }
            if let Some(file) = &self.out {
                let whole = json!({ "plan": plan, "sha256": plan.sha256() });
                write(Some(file), &whole.to_string())?;
            }
            global.print(&report(&plan, not_managed(&stored.desired)))?;
            for one in &plan.blocked {
                tracing::error!("blocked: {one}");
            }
            if global.output == Output::Table {
                use std::io::Write;
                let Plan { restarts, deletes, blast, .. } = &plan;
                // A reader that went away needs no sum.
                let _ =
                    writeln!(std::io::stdout(), "restarts: {restarts}  deletes: {deletes}  blast: {blast}");
            }
            Ok(match (plan.blocked.is_empty(), plan.ops.is_empty()) {
                (false, _) => Exit::Blocked,
                (true, false) if self.exit_code => Exit::Drift,
                (true, _) => Exit::Success,
            })
        })
    }
}

/// Whether the cluster can be written to; a standalone node always can.
async fn quorate(client: &PveClient) -> bool {
    match client.cluster_status().await {
        Ok(read) => build::cluster_row(&read.value).is_none_or(|row| row.quorate == Some(true)),
        Err(error) => {
            tracing::warn!(%error, "the cluster's quorum is not known");
            false
        }
    }
}

fn report(plan: &Plan, not_managed: Vec<String>) -> Report {
    let columns = ["uid", "vmid", "action", "effect", "blast", "why"].map(str::to_owned).to_vec();
    let rows = plan
        .ops
        .iter()
        .map(|op| {
            let (action, effect) = (json!(op.action.as_str()), json!(op.effect.to_string()));
            vec![json!(op.uid), json!(op.vmid), action, effect, json!(op.blast), json!(op.reasons)]
        })
        .collect();
    let blocked: Vec<Value> = plan.blocked.iter().map(|one| json!(one)).collect();
    Report::new(Rows { columns, rows })
        .with_extra("cluster_id", plan.cluster.as_str())
        .with_extra("generation", plan.generation)
        .with_extra("expires_at", plan.expires_at)
        .with_extra("sha256", plan.sha256())
        .with_extra("blocked", blocked)
        .with_extra("observed", plan.observed.clone())
        .with_extra("restarts", plan.restarts)
        .with_extra("deletes", plan.deletes)
        .with_extra("blast", plan.blast)
        .with_extra("not_managed_yet", not_managed)
}
