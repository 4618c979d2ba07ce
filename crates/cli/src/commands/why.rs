//! `pvegraph why`: why the plan does what it does to one guest, what that touches, and what blocks it.

use clap::Args;
use pvegraph_graph::Rows;
use pvegraph_inventory::ClusterId;
use pvegraph_reconcile::why;
use serde_json::json;

use super::Global;
use super::plan::{Of, Planned};
use crate::connect::{self, Access};
use crate::exit::{Exit, Failure};
use crate::render::Report;

/// Options of `why`.
#[derive(Debug, Args)]
#[command(after_help = "\
The plan is made anew. What a guest stands on (volumes, storages, node, backup jobs) is as the last sync saw it.

Examples:
  pvegraph why web
  pvegraph why vm-100 --mark vm-100 -o json")]
pub struct Why {
    /// The desired guest
    uid: String,

    #[command(flatten)]
    of: Of,
}

impl Why {
    /// Runs the command.
    ///
    /// # Errors
    /// There is no such desired guest, or the cluster or the store can't be read.
    pub fn run(self, global: &Global) -> Result<Exit, Failure> {
        let settings = global.settings()?;
        connect::block_on(async {
            let store = connect::store(&settings, Access::Read).await?;
            let Planned { plan, stored, .. } = self.of.planned(&settings, &*store).await?;
            let desired = &stored.desired;
            let Some(guest) = desired.guests.get(&self.uid) else {
                let score = |uid: &&String| (strsim::jaro_winkler(uid, &self.uid) * 1_000.0) as i64;
                let mend = match desired.guests.keys().max_by_key(score) {
                    Some(near) => format!("did you mean {near}?"),
                    None => "nothing is desired".to_owned(),
                };
                let text = format!("there is no desired guest {:?} in {}: {mend}", self.uid, desired.cluster);
                return Err(Failure::new(Exit::Config, text));
            };
            let number = plan.operations.iter().find(|op| op.uid == guest.uid).map(|op| op.vmid);
            let cluster: &ClusterId = &desired.cluster;
            let edges = match guest.vmid.or(number) {
                Some(vmid) => why::edges(&*store, cluster, vmid).await?,
                None => why::Edges::default(),
            };
            let rows = why::lines(desired, guest, &edges, &plan)
                .into_iter()
                .map(|line| {
                    vec![json!(line.operation), json!(line.what), json!(line.subject), json!(line.text)]
                })
                .collect();
            let columns = ["operation", "what", "subject", "text"].map(str::to_owned).to_vec();
            let report = Report::new(Rows { columns, rows })
                .with_extra("cluster_id", plan.cluster.as_str())
                .with_extra("uid", guest.uid.as_str());
            global.print(&report)?;
            Ok(Exit::Success)
        })
    }
}
