//! `pvegraph apply` and `resume`: an approved plan is carried out, and a run that was cut off is gone on with.

mod events;
mod noted;
mod preflight;
mod run;

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::Args;
use jiff::Timestamp;
use pve_client::PveClient;
use pvegraph_graph::apply_lease;
use pvegraph_inventory::ClusterId;
use pvegraph_reconcile::apply::{Files, sources};
use pvegraph_reconcile::journal::Event;
use pvegraph_reconcile::lines::LinesError;
use pvegraph_reconcile::live::{self, Live};
use pvegraph_reconcile::plan::Plan;
use serde_json::Value;

use super::Global;
use super::approve::read_plan;
use super::drift::{one_cluster, proven_cluster};
use crate::config::Settings;
use crate::connect::{self, Access, HostLock};
use crate::exit::{Exit, Failure};
use run::{Ready, Start};
pub use run::{check_audit, of_lease};

/// For how long a run may read, at least: writes are never cut off, and tasks may take days.
const NO_DEADLINE: std::time::Duration = std::time::Duration::from_secs(30 * 24 * 3600);

/// Options of `apply`.
#[derive(Debug, Args)]
#[command(after_help = "\
The plan has to be approved (`pvegraph approve`), or --auto-approve says that nobody else need look at it. Just before each call the \
guest is looked at again. What happens is kept in a journal: after a crash, or with a call whose outcome is unknown, `pvegraph \
resume` goes on.

Ends with 0 where all is done, 8 where something waits for a restart, 3 where not all is done or an outcome is unknown, 6 where \
something forbids it, 7 where the plan is stale or not approved.

Examples:
  pvegraph plan --out plan.json
  pvegraph approve plan.json
  pvegraph apply plan.json")]
pub struct Apply {
    /// The plan, as `plan --out` wrote it
    #[arg(value_name = "PLANFILE")]
    plan: PathBuf,

    /// Go on without an approval; not with a plan that deletes guests, takes one back to a snapshot or makes one a template
    #[arg(long)]
    auto_approve: bool,

    #[command(flatten)]
    at: At,

    #[command(flatten)]
    show: Show,

    /// The cluster of this name
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
}

/// At which clusters.
#[derive(Debug, Args)]
pub struct At {
    /// Go on at a major version of Proxmox VE that this program does not know (it knows 8 and 9)
    #[arg(long)]
    any_version: bool,
}

/// How a run is shown.
#[derive(Debug, Args)]
pub struct Show {
    /// Write what happens as JSON lines to standard output, instead of a table at the end
    #[arg(long)]
    events: bool,
}

/// Options of `resume`.
#[derive(Debug, Args)]
#[command(after_help = "\
Looks up what became of the calls that were cut off, does what is left of the plan, and lets applies go on that were paused. What \
nobody knows is looked up and not sent again.

Examples:
  pvegraph resume")]
pub struct Resume {
    #[command(flatten)]
    at: At,

    #[command(flatten)]
    show: Show,

    /// The cluster of this name
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
}

/// Options of `pause`.
#[derive(Debug, Args)]
#[command(after_help = "\
A run that is under way sends nothing more and follows its tasks to their ends; none begins until `pvegraph resume`.

Examples:
  pvegraph pause")]
pub struct Pause {
    /// The cluster of this name
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
}

impl Apply {
    /// Runs the command.
    ///
    /// # Errors
    /// The plan can't be gone by, something forbids it, or cluster, store or journal can't be used.
    pub fn run(self, global: &Global) -> Result<Exit, Failure> {
        let settings = unhurried(global)?;
        connect::block_on(async {
            let now = Timestamp::now().as_second();
            let (text, plan) = read_plan(&self.plan, now)?;
            preflight::possible(&plan)?;
            if plan.operations.is_empty() {
                tracing::info!("{}: the plan is empty: there is nothing to do", plan.cluster);
                if !self.show.events {
                    global.print(&run::nothing(&plan))?;
                }
                return Ok(Exit::Success);
            }
            let store = connect::store(&settings, Access::Write).await?;
            let (id, client) = proven_cluster(&settings, self.cluster.as_deref(), &*store).await?;
            of_cluster(&plan, &id)?;
            preflight::known_version(&client, self.at.any_version).await??;
            let (files, lock) = locked(&settings, &id)?;
            if files.open_run()?.is_some() {
                let text = format!(
                    "a run at {id} was cut off, or the outcome of a call of it is unknown: run `pvegraph resume` first"
                );
                return Err(Failure::new(Exit::Blocked, text));
            }
            if apply_lease::paused(&*store, id.as_str()).await? {
                let text = format!(
                    "applies to {id} are paused, and nothing was changed: `pvegraph resume` lets them go on"
                );
                return Err(Failure::new(Exit::Blocked, text));
            }
            let live = guests_of(&client, &plan).await?;
            let (desired, refusal) = preflight::current(&*store, &id, &plan, &live).await?;
            let refusal = match refusal {
                None => preflight::as_desired(&files, &plan, &desired),
                refusal => refusal,
            };
            if let Some(refusal) = refusal {
                return Err(refusal.into());
            }
            let max_age = settings.apply.max_inventory_age;
            if let Some(refusal) = preflight::recent(&*store, &id, &plan, max_age, now).await? {
                return Err(refusal.into());
            }
            let keep_up = settings.keep_up(self.cluster.as_deref())?;
            if let Some(refusal) =
                preflight::permitted(&*store, &id, &plan, &desired, &live, &keep_up).await?
            {
                return Err(refusal.into());
            }
            if let Some(refusal) = preflight::readable(&plan) {
                return Err(refusal.into());
            }
            let (approver, until) =
                preflight::approver(&*store, &id, &plan, self.auto_approve, now).await??;
            preflight::allowed(&client, &plan, &live).await??;
            let start = Start::Anew { text, approver, until };
            let ready =
                Ready { settings: &settings, store: &*store, client, id, files, lock, plan, desired, live };
            ready.go(start, &self.show, global).await
        })
    }
}

impl Resume {
    /// Runs the command.
    ///
    /// # Errors
    /// Cluster, store or journal can't be used.
    pub fn run(self, global: &Global) -> Result<Exit, Failure> {
        let settings = unhurried(global)?;
        connect::block_on(async {
            let store = connect::store(&settings, Access::Write).await?;
            let (id, client) = proven_cluster(&settings, self.cluster.as_deref(), &*store).await?;
            let (files, lock) = locked(&settings, &id)?;
            let Some(record) = files.open_run()? else {
                run::unpaused(&*store, &id, &lock).await?;
                tracing::info!("{id}: there is no run to go on with");
                return Ok(Exit::Success);
            };
            let text = files.kept_plan()?;
            let plan = kept(&text).map_err(|why| {
                Failure::failed(format!(
                    "{why}; a run that an earlier program began is resumed with that, or look at the guests that the journal names and move it \
                     away ({})",
                    files.journal().display()
                ))
            })?;
            if plan.sha256() != record.plan {
                // It is written before the journal is begun: nothing was sent by this run.
                let text = format!(
                    "the plan beside the journal of {id} is another one than the run's: bring it back from a backup, or look at the \
                     guests that the journal names and move the journal away ({})",
                    files.journal().display()
                );
                return Err(Failure::failed(text));
            }
            of_cluster(&plan, &id)?;
            let now = Timestamp::now().as_second();
            let live = guests_of(&client, &plan).await?;
            let (desired, refusal) = preflight::current(&*store, &id, &plan, &live).await?;
            let approved = preflight::still_approved(&*store, &id, &plan, &record.approver, now).await?;
            let keep_up = settings.keep_up(self.cluster.as_deref())?;
            let max_age = settings.apply.max_inventory_age;
            let refusal = match refusal {
                None => preflight::recent(&*store, &id, &plan, max_age, now).await?,
                refusal => refusal,
            };
            let refusal = match refusal {
                None => preflight::as_desired(&files, &plan, &desired),
                refusal => refusal,
            };
            let refusal = match refusal {
                None => preflight::permitted(&*store, &id, &plan, &desired, &live, &keep_up).await?,
                refusal => refusal,
            };
            let refusal = match refusal {
                None => preflight::known_version(&client, self.at.any_version).await?.err(),
                refusal => refusal,
            };
            // Whatever forbids the rest: what was begun is followed to its end.
            let until = match (approved, refusal) {
                (Err(refusal), _) | (_, Some(refusal)) => Err(refusal.why),
                (Ok(until), None) => preflight::allowed(&client, &plan, &live)
                    .await?
                    .map(|()| until)
                    .map_err(|refusal| refusal.why),
            };
            let ready =
                Ready { settings: &settings, store: &*store, client, id, files, lock, plan, desired, live };
            ready.go(Start::Again { until }, &self.show, global).await
        })
    }
}

impl Pause {
    /// Runs the command.
    ///
    /// # Errors
    /// The store can't be written.
    pub fn run(self, global: &Global) -> Result<Exit, Failure> {
        let settings = global.settings()?;
        connect::block_on(async {
            let store = connect::store(&settings, Access::Write).await?;
            let (id, _) = one_cluster(&settings, self.cluster.as_deref()).await?;
            apply_lease::set_paused(&*store, id.as_str(), true).await?;
            tracing::info!("{id}: applies are paused until `pvegraph resume`");
            Ok(Exit::Success)
        })
    }
}

/// The settings, without the deadline that a crawl has.
fn unhurried(global: &Global) -> Result<Settings, Failure> {
    let mut settings = global.settings()?;
    settings.clusters.iter_mut().for_each(|cluster| cluster.run_timeout = NO_DEADLINE);
    Ok(settings)
}

/// The plan of a run that was begun while it was fresh.
///
/// # Errors
/// It is none, or was edited.
pub fn kept(text: &str) -> Result<Plan, String> {
    let value: Value = serde_json::from_str(text).unwrap_or_default();
    let made = value.pointer("/plan/made_at").and_then(Value::as_i64).unwrap_or_default();
    Plan::from_file(text, made).map_err(|error| format!("the plan of a run of this host: {error}"))
}

/// The guests of a plan, as they are.
async fn guests_of(client: &PveClient, plan: &Plan) -> Result<Live, Failure> {
    let mut numbers: BTreeSet<i64> = plan.operations.iter().map(|operation| operation.vmid).collect();
    numbers.extend(sources(plan));
    Ok(live::read(client, Some(&numbers)).await?)
}

fn of_cluster(plan: &Plan, id: &ClusterId) -> Result<(), Failure> {
    if plan.cluster == id.as_str() {
        return Ok(());
    }
    let text = format!(
        "the plan is for the cluster {}, and this one is {id}: choose it with --cluster",
        plan.cluster
    );
    Err(Failure::new(Exit::Config, text))
}

/// The cluster's files, held by this process alone.
///
/// # Errors
/// Those of [`files`], or another process of this host holds them.
pub fn locked(settings: &Settings, id: &ClusterId) -> Result<(Files, HostLock), Failure> {
    let files = files(settings, id)?;
    let mend = "set `directory` in [apply] to one that you can write to";
    let lock = HostLock::at(&files.lock(), &format!("changing the cluster {id}"), mend)?;
    Ok((files, lock))
}

/// The cluster's files.
///
/// # Errors
/// Nobody says where they are, or they can't be made.
pub fn files(settings: &Settings, id: &ClusterId) -> Result<Files, Failure> {
    let Some(directory) = settings.apply.directory() else {
        let text = "there is no place for the journal: set `directory` in [apply], or HOME";
        return Err(Failure::new(Exit::Config, text));
    };
    Ok(Files::of(&directory, id)?)
}

impl From<LinesError> for Failure {
    fn from(error: LinesError) -> Self {
        Self::failed(error)
    }
}

/// The journal's first line.
fn begin(run: &str, plan: &Plan, id: &ClusterId, approver: &str) -> Event {
    Event::Begin {
        run: run.to_owned(),
        plan: plan.sha256(),
        cluster: id.to_string(),
        approver: approver.to_owned(),
    }
}
