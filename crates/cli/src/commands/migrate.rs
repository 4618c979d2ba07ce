//! `pvegraph migrate`: the graph's schema, step by step.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use pvegraph_graph::dump::{
    DumpError, DumpSummary, Existing, check_file, dump_to_file, own_key, restore_file,
};
use pvegraph_graph::lease::{Holder, Lease};
use pvegraph_graph::migrate::{
    MigrateError, MigrateOptions, MigrateOutcome, MigrationState, MigrationStatus, Migrations,
};
use pvegraph_graph::{Rows, Statement, Store};
use pvegraph_sync::load::now;
use pvegraph_sync::run::RunError;
use serde_json::json;

use super::{Global, agreed};
use crate::connect::{self, Access, HostLock};
use crate::exit::{Exit, Failure};
use crate::render::Report;

/// What can be done with migrations.
#[derive(Debug, Subcommand)]
pub enum MigrateCommand {
    /// Apply what is pending
    Up(Up),
    /// Take back what is newer than a version; 0 takes back everything
    Down(Down),
    /// Show which migrations are applied
    Status,
    /// Write pvegraph's part of the graph to a file
    Backup(Backup),
    /// Replace pvegraph's part of the graph by what a backup holds
    Restore(Restore),
}

/// Options of `migrate backup`.
#[derive(Debug, Args)]
pub struct Backup {
    /// The backup
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Replace the file if it is there
    #[arg(long)]
    force: bool,
}

/// Options of `migrate restore`.
#[derive(Debug, Args)]
pub struct Restore {
    /// The backup
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Do not ask
    #[arg(long)]
    yes: bool,
}

/// Options of `migrate up`.
#[derive(Debug, Args)]
pub struct Up {
    /// Up to and with this version
    #[arg(long, value_name = "VERSION")]
    to: Option<u32>,

    /// Where the graph is written to before data changes
    #[arg(long, value_name = "DIRECTORY")]
    backup_dir: Option<PathBuf>,
}

/// Options of `migrate down`.
#[derive(Debug, Args)]
pub struct Down {
    /// Keep up to and with this version
    #[arg(long, value_name = "VERSION")]
    to: u32,

    /// Where the graph is written to before data changes
    #[arg(long, value_name = "DIRECTORY")]
    backup_dir: Option<PathBuf>,

    /// Do not ask
    #[arg(long)]
    yes: bool,
}

fn options(backup_dir: Option<PathBuf>) -> MigrateOptions {
    MigrateOptions { backup_dir, key_of: own_key }
}

impl MigrateCommand {
    /// Runs the command.
    ///
    /// # Errors
    /// Nobody agreed, the store can't be used, a sync is under way, or a migration fails.
    pub fn run(self, global: &Global) -> Result<Exit, Failure> {
        let settings = global.settings()?;
        let migrations = Migrations::embedded()?;
        connect::block_on(async {
            if let Self::Status = self {
                let store = connect::store(&settings, Access::Read).await?;
                global.print(&status(&migrations.status(&*store).await?))?;
                return Ok(Exit::Success);
            }
            let lock = HostLock::take(&settings)?;
            let store = connect::store(&settings, Access::Write).await?;
            self.agree(&*store)?;
            let lease = Lease::take(&*store, &lock.holder(), now()).await.map_err(RunError::from)?;
            let work = async {
                Ok::<_, Failure>(match self {
                    Self::Up(Up { to, backup_dir }) => {
                        ran(&migrations.up(&*store, to, &options(backup_dir)).await?)
                    }
                    Self::Down(Down { to, backup_dir, yes: _ }) => {
                        ran(&migrations.down(&*store, to, &options(backup_dir)).await?)
                    }
                    Self::Backup(Backup { file, force }) => {
                        let existing = if force { Existing::Replace } else { Existing::Keep };
                        counted(dump_to_file(&*store, own_key, &file, existing).await?)
                    }
                    Self::Restore(Restore { file, yes: _ }) => {
                        // It may have changed while somebody was asked.
                        check_file(&*store, own_key, &file)?;
                        // The backup says which migrations are applied, and a new database has none of them.
                        if all_pending(&migrations.status(&*store).await?) {
                            migrations.up(&*store, None, &options(None)).await?;
                        }
                        counted(restore_file(&*store, own_key, &file).await?)
                    }
                    Self::Status => status(&migrations.status(&*store).await?),
                })
            };
            let done = tokio::select! {
                done = work => done,
                never = lease.keep(&*store, now) => match never {},
            };
            // What the work says comes first: where the store went away, giving back fails as well.
            let released = lease.release(&*store).await;
            let done = done?;
            released?;
            store.checkpoint().await?;
            global.print(&done)?;
            Ok(Exit::Success)
        })
    }

    /// Asks before what can't be taken back.
    fn agree(&self, store: &dyn Store) -> Result<(), Failure> {
        let (yes, question) = match self {
            Self::Restore(Restore { file, yes }) => {
                let DumpSummary { nodes, relationships } = check_file(store, own_key, file)?;
                let question = format!(
                    "Replace pvegraph's part of {} by the {nodes} nodes and {relationships} relationships of {}?",
                    store.target(),
                    file.display()
                );
                (*yes, question)
            }
            Self::Down(Down { to, yes, .. }) => {
                (*yes, format!("Take back every migration of {} after {to}?", store.target()))
            }
            Self::Up(_) | Self::Status | Self::Backup(_) => return Ok(()),
        };
        if yes || agreed(&question)? { Ok(()) } else { Err(Failure::failed("nothing was changed")) }
    }
}

fn status(list: &[MigrationStatus]) -> Report {
    let columns = ["version", "name", "state", "applied_at"].map(str::to_owned).to_vec();
    let row = |one: &MigrationStatus| {
        let at = one.applied_at.and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
        vec![json!(one.version), json!(one.name), json!(one.state), json!(at.map(|at| at.to_string()))]
    };
    Report::new(Rows { columns, rows: list.iter().map(row).collect() })
}

fn ran(outcome: &MigrateOutcome) -> Report {
    if let Some(backup) = &outcome.recovered {
        tracing::warn!("an interrupted migration was undone first, from {}", backup.display());
    }
    let columns = ["version", "name", "backup"].map(str::to_owned).to_vec();
    let rows =
        outcome.ran.iter().map(|one| vec![json!(one.version), json!(one.name), json!(one.backup)]).collect();
    Report::new(Rows { columns, rows })
}

fn counted(summary: DumpSummary) -> Report {
    let DumpSummary { nodes, relationships } = summary;
    let columns = ["nodes", "relationships"].map(str::to_owned).to_vec();
    Report::new(Rows { columns, rows: vec![vec![json!(nodes), json!(relationships)]] })
}

impl From<DumpError> for Failure {
    fn from(error: DumpError) -> Self {
        match error {
            DumpError::Store(error) => error.into(),
            _ => Self::failed(error),
        }
    }
}

impl From<MigrateError> for Failure {
    fn from(error: MigrateError) -> Self {
        let exit = match &error {
            MigrateError::Store(error) if error.is_auth() => Exit::Auth,
            MigrateError::NoSuch { .. } => Exit::Config,
            _ => Exit::Store,
        };
        Self::new(exit, error)
    }
}

fn all_pending(list: &[MigrationStatus]) -> bool {
    list.iter().all(|one| one.state == MigrationState::Pending)
}

/// Refuses a graph whose migrations are not those of this program. A graph that has none yet gets them all, if it may be
/// written to, under the lease of this holder: a first sync needs no other command before it.
///
/// # Errors
/// Some are pending, edited, unknown or interrupted, or somebody else has the lease.
pub async fn ensure_migrated(store: &dyn Store, writer: Option<&Holder>) -> Result<(), Failure> {
    let migrations = Migrations::embedded()?;
    let list = migrations.status(store).await?;
    let of = |state| list.iter().filter(move |one| one.state == state);
    // A first run that was killed among the migrations leaves some of them, and no cluster.
    let sound = |one: &MigrationStatus| {
        !matches!(one.state, MigrationState::Edited | MigrationState::Unknown | MigrationState::Interrupted)
    };
    let is_begun = list.iter().all(sound) && of(MigrationState::Pending).next().is_some();
    if all_pending(&list) || (is_begun && never_synced(store).await?) {
        if let Some(holder) = writer {
            tracing::info!("the graph is new: applying its migrations");
            let lease = Lease::take(store, holder, now()).await.map_err(RunError::from)?;
            let migrated = migrations.up(store, None, &options(None)).await;
            let released = lease.release(store).await;
            migrated?;
            released?;
        }
        return Ok(());
    }
    let name = |one: &MigrationStatus| format!("{:04}_{}", one.version, one.name);
    let refuse = |one: &MigrationStatus, mend: &str| {
        Err(Failure::new(Exit::Store, format!("migration {} {mend}", name(one))))
    };
    if let Some(one) = of(MigrationState::Edited).next() {
        return refuse(
            one,
            "was changed after it was applied: use the program that applied it, or restore its files",
        );
    }
    if let Some(one) = of(MigrationState::Unknown).next() {
        return refuse(one, "was applied by a newer pvegraph: use that one");
    }
    if let Some(one) = of(MigrationState::Interrupted).next() {
        return refuse(
            one,
            "was interrupted: run `pvegraph migrate up`, which first restores what was before",
        );
    }
    if let Some(one) = of(MigrationState::Pending).next() {
        return refuse(one, "is pending: run `pvegraph migrate up`");
    }
    Ok(())
}

/// No sync has written a cluster yet.
async fn never_synced(store: &dyn Store) -> Result<bool, Failure> {
    let any = Statement::new("MATCH (c:ProxmoxCluster)\nRETURN c.cluster_id AS cluster_id\nLIMIT 1");
    Ok(store.read(any).await?.rows.is_empty())
}
