//! `pvegraph approve`: somebody agrees to a plan file, for as long as it holds.

use std::path::{Path, PathBuf};

use clap::Args;
use jiff::Timestamp;
use pvegraph_graph::Rows;
use pvegraph_inventory::{ClusterId, InvalidClusterId};
use pvegraph_reconcile::plan::{FileError, Plan};
use pvegraph_reconcile::stored::{self, Approval};
use serde_json::{Value, json};

use super::Global;
use super::migrate::ensure_migrated;
use crate::connect::{self, Access, HostLock};
use crate::exit::{Exit, Failure};
use crate::render::Report;

/// Options of `approve`.
#[derive(Debug, Args)]
#[command(after_help = "\
The approval binds to the SHA-256 of the plan and ends with it, at the latest. Ends with 7 where the file was edited or is stale, and \
with 6 where something forbids the plan. Who approves is their own word: the graph's password is what keeps others out.

Examples:
  pvegraph approve plan.json
  pvegraph approve plan.json --by kim --minutes 10")]
pub struct Approve {
    /// The plan, as `plan --out` wrote it
    #[arg(value_name = "PLANFILE")]
    file: PathBuf,

    /// Who approves it [default: the user of this session]
    #[arg(long, value_name = "NAME")]
    by: Option<String>,

    /// For how many minutes it is approved
    #[arg(long, value_name = "MINUTES", default_value_t = 60, value_parser = clap::value_parser!(i64).range(1..=60))]
    minutes: i64,
}

/// Reads a plan file; answers its text as well.
///
/// # Errors
/// It can't be read, is none, was edited, or is stale.
pub fn read_plan(path: &Path, now: i64) -> Result<(String, Plan), Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Failure::new(Exit::Config, format!("the plan {} can't be read: {error}", path.display()))
    })?;
    let plan = Plan::from_file(&text, now).map_err(|error| {
        let exit = if matches!(error, FileError::NoPlan(_)) { Exit::Config } else { Exit::Stale };
        Failure::new(exit, format!("{}: {error}", path.display()))
    })?;
    Ok((text, plan))
}

impl Approve {
    /// Runs the command.
    ///
    /// # Errors
    /// The file is no plan to go by, something forbids the plan, or the store can't be used.
    pub fn run(self, global: &Global) -> Result<Exit, Failure> {
        let settings = global.settings()?;
        let now = Timestamp::now().as_second();
        let (_, plan) = read_plan(&self.file, now)?;
        let of_file = |text: String| format!("{}: {text}", self.file.display());
        if !plan.blocked.is_empty() {
            let told: Vec<String> = plan.blocked.iter().map(|one| format!("  {one}")).collect();
            let text = of_file(format!(
                "something forbids this plan, and it was not approved:\n{}",
                told.join("\n")
            ));
            return Err(Failure::new(Exit::Blocked, text));
        }
        if plan.operations.is_empty() {
            tracing::info!("{}", of_file("it has no operations: there is nothing to approve".to_owned()));
            global.print(&told(&plan.cluster, Vec::new()))?;
            return Ok(Exit::Success);
        }
        let approver = self.by.or_else(super::user).filter(|name| !name.trim().is_empty());
        let Some(approver) = approver else {
            return Err(Failure::new(Exit::Config, "who approves it is not known: say it with --by NAME"));
        };
        let id: ClusterId =
            plan.cluster.parse().map_err(|error: InvalidClusterId| Failure::new(Exit::Config, error))?;
        connect::block_on(async {
            let lock = HostLock::take(&settings)?;
            let store = connect::store(&settings, Access::Write).await?;
            ensure_migrated(&*store, Some(lock.holder()).as_ref()).await?;
            let stored = stored::read(&*store, &id).await?.with_numbers();
            let generation = stored.generation;
            if generation != plan.generation {
                let text = format!(
                    "it was made of generation {} of what is desired, which is at {generation} now: plan again",
                    plan.generation
                );
                return Err(Failure::new(Exit::Stale, of_file(text)));
            }
            // What is written by hand in Cypher does not raise the generation.
            if stored.sha256 != plan.desired_sha256 {
                let text = "what is desired was changed by hand since it was made: plan again".to_owned();
                return Err(Failure::new(Exit::Stale, of_file(text)));
            }
            let expires_at = plan.expires_at.min(now + self.minutes * 60);
            let approval = Approval { approver, at: now, expires_at };
            stored::approve(&*store, &id, &plan, &stored.desired, &approval).await?;
            let expires = Timestamp::from_second(expires_at).map(|at| at.to_string()).unwrap_or_default();
            let row = vec![
                json!(plan.sha256()),
                json!(plan.operations.len()),
                json!(plan.restarts),
                json!(plan.deletes),
                json!(plan.blast),
                json!(approval.approver),
                json!(expires),
            ];
            global.print(&told(id.as_str(), vec![row]))?;
            Ok(Exit::Success)
        })
    }
}

fn told(cluster: &str, rows: Vec<Vec<Value>>) -> Report {
    let columns = ["sha256", "operations", "restarts", "deletes", "blast", "approver", "expires_at"];
    let columns = columns.map(str::to_owned).to_vec();
    Report::new(Rows { columns, rows }).with_extra("cluster_id", cluster)
}
