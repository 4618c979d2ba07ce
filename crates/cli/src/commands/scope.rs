//! `pvegraph scope`: where guests may be touched, and what may be done there.

use clap::{Args, Subcommand};
use jiff::Timestamp;
use pvegraph_graph::{Rows, Store};
use pvegraph_inventory::ClusterId;
use pvegraph_reconcile::plan::Action;
use pvegraph_reconcile::scope::{self, Scope};
use pvegraph_reconcile::stored;
use serde_json::json;

use super::Global;
use super::desired::cluster;
use super::drift::refused;
use super::migrate::ensure_migrated;
use crate::connect::{self, Access, HostLock};
use crate::exit::{Exit, Failure};
use crate::render::Report;

/// The commands of managed scopes.
#[derive(Debug, Subcommand)]
pub enum ScopeCommand {
    /// List the scopes
    List(OfCluster),
    /// Make a scope, or change one: what is not given stays
    #[command(after_help = "\
A guest is touched only where its number lies in a scope. A new scope allows everything but `restore-snapshot`, `template` and \
`destroy`, and no deletions.

Examples:
  pvegraph scope set lab --vmids 100-199
  pvegraph scope set lab --allow configure,power --max-restarts 1
  pvegraph scope set lab --pause")]
    Set(Box<Set>),
    /// Remove a scope: nothing is touched there any more
    Remove(Remove),
}

/// The cluster.
#[derive(Debug, Args)]
pub struct OfCluster {
    /// The identifier of the cluster
    #[arg(long, value_name = "CLUSTER_ID")]
    pub cluster: Option<ClusterId>,
}

/// Options of `scope set`.
#[derive(Debug, Args)]
pub struct Set {
    /// The scope's name
    name: String,

    /// Its numbers
    #[arg(long, value_name = "FIRST-LAST", value_parser = range)]
    vmids: Option<(i64, i64)>,

    /// Its guests have to be in this pool; empty for any
    #[arg(long)]
    pool: Option<String>,

    /// What may be done there: create, grow, move, configure, migrate, power, snapshot, restore-snapshot (to go back to one), template, destroy
    #[arg(long, value_name = "ACTIONS", value_delimiter = ',', value_parser = action)]
    allow: Option<Vec<Action>>,

    /// How many guests one plan may delete
    #[arg(long, value_name = "COUNT")]
    max_deletes: Option<u32>,

    /// How many guests one plan may restart or stop
    #[arg(long, value_name = "COUNT")]
    max_restarts: Option<u32>,

    /// Nothing may be done there now
    #[arg(long, conflicts_with = "resume")]
    pause: bool,

    /// It may again
    #[arg(long)]
    resume: bool,

    #[command(flatten)]
    of: OfCluster,
}

/// Options of `scope remove`.
#[derive(Debug, Args)]
pub struct Remove {
    /// The scope's name
    name: String,

    #[command(flatten)]
    of: OfCluster,
}

fn range(text: &str) -> Result<(i64, i64), String> {
    let parsed =
        text.split_once('-').and_then(|(first, last)| Some((first.parse().ok()?, last.parse().ok()?)));
    parsed.ok_or_else(|| "expected FIRST-LAST, such as 100-199".to_owned())
}

fn action(text: &str) -> Result<Action, String> {
    Action::of(text).ok_or_else(|| {
        let words: Vec<&str> = Action::ALL.iter().map(|action| action.as_str()).collect();
        format!("expected one of {}", words.join(", "))
    })
}

impl ScopeCommand {
    /// Runs the command.
    ///
    /// # Errors
    /// The configuration or the scope is not valid, or the store can't be used.
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
            let of = match &self {
                Self::Set(set) => set.of.cluster.clone(),
                Self::Remove(Remove { of, .. }) | Self::List(of) => of.cluster.clone(),
            };
            let id = cluster(&*store, &settings, of, None).await?;
            let mut all = stored::scopes(&*store, &id).await?;
            match self {
                Self::Set(set) => {
                    let at = all.iter().position(|scope| scope.name == set.name);
                    let scope = set.onto(at.map(|at| all.remove(at)))?;
                    all.push(scope.clone());
                    let problems = scope::check(&all);
                    if !problems.is_empty() {
                        return Err(refused("the scope", &problems));
                    }
                    stored::put_scope(&*store, &id, &scope, Timestamp::now().as_second()).await?;
                }
                Self::Remove(Remove { name, .. }) => {
                    if !all.iter().any(|scope| scope.name == name) {
                        let names: Vec<&str> = all.iter().map(|scope| scope.name.as_str()).collect();
                        let text = format!("{id} has no scope {name:?}; it has: {}", names.join(", "));
                        return Err(Failure::new(Exit::Config, text));
                    }
                    stored::remove_scope(&*store, &id, &name).await?;
                }
                Self::List(_) => {}
            }
            list(&*store, &id, global).await
        })
    }
}

impl Set {
    fn onto(self, old: Option<Scope>) -> Result<Scope, Failure> {
        let mut scope = match (old, self.vmids) {
            (Some(scope), _) => scope,
            (None, Some((first, last))) => Scope::new(self.name, first, last),
            (None, None) => {
                let text =
                    format!("there is no scope {:?} yet, and a new one needs --vmids FIRST-LAST", self.name);
                return Err(Failure::new(Exit::Config, text));
            }
        };
        if let Some(vmids) = self.vmids {
            (scope.vmid_min, scope.vmid_max) = vmids;
        }
        if let Some(pool) = self.pool {
            scope.pool = Some(pool).filter(|pool| !pool.is_empty());
        }
        if let Some(allow) = self.allow {
            scope.allow = allow.into_iter().collect();
        }
        if let Some(count) = self.max_deletes {
            scope.max_deletes = i64::from(count);
        }
        if let Some(count) = self.max_restarts {
            scope.max_restarts = Some(i64::from(count));
        }
        scope.paused = (scope.paused || self.pause) && !self.resume;
        Ok(scope)
    }
}

async fn list(store: &dyn Store, id: &ClusterId, global: &Global) -> Result<Exit, Failure> {
    let columns = ["name", "vmids", "pool", "allow", "max_deletes", "max_restarts", "paused"];
    let rows = stored::scopes(store, id)
        .await?
        .into_iter()
        .map(|scope| {
            let allow: Vec<&str> = scope.allow.iter().map(|action| action.as_str()).collect();
            let vmids = format!("{}-{}", scope.vmid_min, scope.vmid_max);
            let (deletes, restarts) = (json!(scope.max_deletes), json!(scope.max_restarts));
            vec![
                json!(scope.name),
                json!(vmids),
                json!(scope.pool),
                json!(allow),
                deletes,
                restarts,
                json!(scope.paused),
            ]
        })
        .collect();
    let columns = columns.map(str::to_owned).to_vec();
    global.print(&Report::new(Rows { columns, rows }).with_extra("cluster_id", id.as_str()))?;
    Ok(Exit::Success)
}
