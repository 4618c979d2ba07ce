//! `pvegraph policy`: Cypher that is asked about each plan, and may veto it.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use jiff::Timestamp;
use pvegraph_graph::{Rows, Store};
use pvegraph_inventory::ClusterId;
use pvegraph_reconcile::after::Estate;
use pvegraph_reconcile::policy::{self, Policy};
use pvegraph_reconcile::stored;
use serde_json::{Value, json};

use super::Global;
use super::desired::cluster;
use super::migrate::ensure_migrated;
use super::scope::OfCluster;
use crate::connect::{self, Access, HostLock};
use crate::exit::{Exit, Failure};
use crate::render::Report;

/// The commands of policies.
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// List the policies: those that are asked, and those that come with the program
    List(OfCluster),
    /// Let a policy be asked about each plan: one of the program's by name, or a file
    #[command(after_help = "\
The file begins with comments: `// Title`, `// name: NAME`, `// severity: deny` or `warn`, `// mend: WHAT TO DO`. The statement gets $cluster_id, \
$operations, $guests and $nodes (see docs/reconcile.md). It is asked once at once, with nothing in them, and refused where it fails.

Examples:
  pvegraph policy import anti-affinity
  pvegraph policy import ./no-restarts.cypher --cluster rig")]
    Import(Import),
    /// Ask a policy no more
    Remove(Remove),
}

/// Options of `policy import`.
#[derive(Debug, Args)]
pub struct Import {
    /// The name of a policy of the program's, or a file
    #[arg(value_name = "NAME|FILE")]
    policy: PathBuf,

    #[command(flatten)]
    of: OfCluster,
}

/// Options of `policy remove`.
#[derive(Debug, Args)]
pub struct Remove {
    /// The policy's name
    name: String,

    #[command(flatten)]
    of: OfCluster,
}

impl PolicyCommand {
    /// Runs the command.
    ///
    /// # Errors
    /// The configuration or the policy is not valid, or the store can't be used.
    pub fn run(self, global: &Global) -> Result<Exit, Failure> {
        let settings = global.settings()?;
        connect::block_on(async {
            if let Self::List(of) = self {
                let store = connect::store(&settings, Access::Read).await?;
                let id = cluster(&*store, &settings, of.cluster, None).await?;
                return list(&*store, &id, global).await;
            }
            let lock = HostLock::take(&settings)?;
            let store = connect::store(&settings, Access::Write).await?;
            ensure_migrated(&*store, Some(lock.holder()).as_ref()).await?;
            match self {
                Self::List(_) => Ok(Exit::Success),
                Self::Import(Import { policy, of }) => {
                    let policy = found(&policy)?;
                    let id = cluster(&*store, &settings, of.cluster, None).await?;
                    let asked = store.read(policy.statement(id.as_str(), &[], &Estate::default())).await;
                    asked.map_err(crate::exit::of_statement)?;
                    stored::put_policy(&*store, &id, &policy, Timestamp::now().as_second()).await?;
                    list(&*store, &id, global).await
                }
                Self::Remove(Remove { name, of }) => {
                    let id = cluster(&*store, &settings, of.cluster, None).await?;
                    stored::remove_policy(&*store, &id, &name).await?;
                    list(&*store, &id, global).await
                }
            }
        })
    }
}

/// The policy of this name, or of this file.
fn found(named: &Path) -> Result<Policy, Failure> {
    let shipped = policy::shipped().map_err(Failure::failed)?;
    let names: Vec<String> = shipped.iter().map(|policy| policy.name.clone()).collect();
    if let Some(policy) = shipped.into_iter().find(|policy| Path::new(&policy.name) == named) {
        return Ok(policy);
    }
    let text = std::fs::read_to_string(named).map_err(|error| {
        let text = format!(
            "{}: {error}; name a file, or one of the program's policies: {}",
            named.display(),
            names.join(", ")
        );
        Failure::new(Exit::Config, text)
    })?;
    Policy::parse(&named.display().to_string(), &text).map_err(|error| Failure::new(Exit::Config, error))
}

async fn list(store: &dyn Store, id: &ClusterId, global: &Global) -> Result<Exit, Failure> {
    let asked = stored::policies(store, id).await?;
    let shipped = policy::shipped().map_err(Failure::failed)?;
    let row = |policy: &Policy, is_asked: bool| -> Vec<Value> {
        let severity = policy.severity.as_str();
        vec![json!(policy.name), json!(severity), json!(is_asked), json!(policy.title), json!(policy.mend)]
    };
    let others = shipped.iter().filter(|policy| !asked.iter().any(|one| one.name == policy.name));
    let rows =
        asked.iter().map(|policy| row(policy, true)).chain(others.map(|policy| row(policy, false))).collect();
    let columns = ["name", "severity", "asked", "title", "mend"].map(str::to_owned).to_vec();
    global.print(&Report::new(Rows { columns, rows }).with_extra("cluster_id", id.as_str()))?;
    Ok(Exit::Success)
}
