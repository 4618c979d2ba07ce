//! `pvegraph audit`: whether the audit log is what was written.

use clap::{Args, Subcommand};
use pvegraph_graph::Rows;
use serde_json::json;

use super::Global;
use super::apply::{check_audit, files};
use super::drift::one_cluster;
use crate::connect::{self, Access};
use crate::exit::{Exit, Failure};
use crate::render::Report;

/// Commands of `audit`.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Check that the audit log was neither changed nor cut
    Verify(Verify),
}

/// Options of `audit verify`.
#[derive(Debug, Args)]
#[command(after_help = "\
Each line is chained to the one before by its hash, and its end is compared with what the graph knows. Without a key \
(`audit_key_file` in [apply]) whoever may write both file and graph could have written a new log.

Ends with 1 where the log is not what was written, with 3 where the graph knows nothing of it.

Examples:
  pvegraph audit verify --cluster rig")]
pub struct Verify {
    /// The cluster of this name
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
}

impl AuditCommand {
    /// Runs the command.
    ///
    /// # Errors
    /// The log is not what was written, or can't be read.
    pub fn run(self, global: &Global) -> Result<Exit, Failure> {
        let Self::Verify(verify) = self;
        let settings = global.settings()?;
        connect::block_on(async {
            let store = connect::store(&settings, Access::Read).await?;
            let (id, _) = one_cluster(&settings, verify.cluster.as_deref()).await?;
            let files = files(&settings, &id)?;
            let key = settings.audit_key()?;
            let (found, mirrored) = check_audit(&*store, &id, &files, key.as_ref()).await?;
            let known = mirrored.as_ref().map(|head| head.entries);
            if key.is_none() {
                tracing::info!("no key is given: HMACs were not checked");
            }
            let columns = ["log", "entries", "hash", "hmacs", "known_to_graph"].map(str::to_owned).to_vec();
            let path = files.audit().display().to_string();
            let rows = vec![vec![
                json!(path),
                json!(found.head.entries),
                json!(found.head.hash),
                json!(found.keyed),
                json!(known),
            ]];
            global.print(&Report::new(Rows { columns, rows }).with_extra("cluster_id", id.as_str()))?;
            if known.is_none() && found.head.entries > 0 {
                tracing::warn!(
                    "{id}: the graph knows nothing of this log: whether its end was cut off can't be told"
                );
                return Ok(Exit::Partial);
            }
            Ok(Exit::Success)
        })
    }
}
