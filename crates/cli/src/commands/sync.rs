//! `pvegraph sync`: crawl the clusters, load them into the graph, say what was seen and done.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};

use clap::Args;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use pvegraph_graph::lease::{Holder, LeaseError};
use pvegraph_graph::{Rows, Store};
use pvegraph_inventory::{ClusterId, Completeness};
use pvegraph_sync::chain;
use pvegraph_sync::history::Retention;
use pvegraph_sync::identity::{IdentityError, UnverifiedError};
use pvegraph_sync::run::{self, ClusterError, ClusterReport, Options, Progress, RunError, Target};
use pvegraph_sync::sweep::{Guard, Kept};
use serde_json::{Value, json};

use super::Global;
use super::migrate::ensure_migrated;
use crate::config::{OfflineNodes, Settings};
use crate::connect::{self, Access, HostLock};
use crate::exit::{Exit, Failure};
use crate::render::{Output, Report};

/// Options of `sync`.
#[derive(Debug, Args)]
#[command(after_help = "\
Nothing is taken for gone that the run could not prove gone: what a failed call or a missing right hides is kept.

Examples:
  pvegraph --config rig.toml sync
  pvegraph sync --cluster rig --dry-run
  pvegraph sync -o json | jq '.rows[] | select(.deleted > 0)'")]
pub struct Sync {
    /// Only the cluster of this name
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,

    /// Read and compare; write nothing
    #[arg(long)]
    dry_run: bool,

    /// Let this run delete up to this share of a cluster's nodes of one label, in percent
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=100))]
    max_delete_percent: Option<u8>,

    /// Accept that this cluster has another certificate authority than the graph knows
    #[arg(long, value_name = "CLUSTER_ID")]
    accept_new_authority: Vec<ClusterId>,
}

impl Sync {
    /// Runs the command.
    ///
    /// # Errors
    /// The configuration is not valid, the store or the lock can't be had, or every cluster failed.
    pub fn run(self, global: &Global) -> Result<Exit, Failure> {
        let settings = global.settings()?;
        connect::block_on(self.sync(&settings, global))
    }

    async fn sync(self, settings: &Settings, global: &Global) -> Result<Exit, Failure> {
        let clusters = settings.selected(self.cluster.as_deref())?;
        let mut targets = Vec::new();
        for cluster in clusters {
            let name = cluster.name.as_deref().map(str::parse).transpose();
            targets.push(Target {
                name: name.map_err(|error| Failure::new(Exit::Config, error))?,
                client: connect::client(settings, cluster)?,
            });
        }
        let lock = if self.dry_run { None } else { Some(HostLock::take(settings)?) };
        let holder = lock.as_ref().map_or(Holder { name: String::new(), lock: None }, HostLock::holder);
        // The directory outlives the store in it.
        let (store, _directory) = if self.dry_run {
            connect::compared(settings).await?
        } else {
            (connect::store(settings, Access::Write).await?, None)
        };
        ensure_migrated(&*store, (!self.dry_run).then_some(&holder)).await?;
        let percent = self.max_delete_percent.unwrap_or(settings.sync.max_delete_percent);
        let options = Options {
            dry_run: self.dry_run,
            guard: Guard { max_delete_percent: f64::from(percent), from: settings.sync.guard_from },
            offline_is_partial: settings.sync.offline_nodes == OfflineNodes::Partial,
            accept_new_authority: self.accept_new_authority,
            holder,
            history: Retention { days: settings.sync.history_days },
        };
        sync_and_report(&*store, &targets, &options, global).await
    }
}

/// Syncs, prints what was done, and says how it went.
pub async fn sync_and_report(
    store: &dyn Store,
    targets: &[Target],
    options: &Options,
    global: &Global,
) -> Result<Exit, Failure> {
    let bars = Bars::new();
    let outcome = run::run(store, targets, options, &bars).await;
    bars.clear();
    let outcome = outcome?;
    let reports: Vec<&ClusterReport> = outcome.iter().filter_map(|one| one.as_ref().ok()).collect();
    let failed: Vec<String> =
        outcome.iter().filter_map(|one| one.as_ref().err()).map(|error| chain(error)).collect();
    // A table of nothing would only hide the errors below it, and nobody reads that of a quiet run; a program still wants its document.
    if global.output != Output::Table || !(reports.is_empty() || global.quiet) {
        global.print(&summary(&reports, options.dry_run).with_extra("failed", failed.clone()))?;
    }
    reports.iter().for_each(|report| tell(report));
    failed.iter().for_each(|error| tracing::error!("{error}"));
    if lost_lease(&outcome) {
        tracing::error!("another run took over the lease of this graph, and this one ends: try again later");
    }
    ended(&outcome)
}

/// One row for each cluster and label.
fn summary(reports: &[&ClusterReport], dry_run: bool) -> Report {
    let columns = ["cluster", "label", "created", "updated", "unchanged", "deleted", "kept"];
    let rows = reports
        .iter()
        .flat_map(|report| {
            report.counts.iter().map(|(label, counts)| {
                vec![
                    json!(report.cluster_id),
                    json!(label),
                    json!(counts.created),
                    json!(counts.updated),
                    json!(counts.unchanged),
                    json!(counts.deleted),
                    json!(counts.kept),
                ]
            })
        })
        .collect();
    let clusters: Vec<Value> = reports
        .iter()
        .map(|report| {
            json!({
                "cluster_id": report.cluster_id,
                "tag": report.tag,
                "completeness": report.completeness,
                "scopes": report.scopes,
                "kept": report.kept,
                "odd": report.odd,
                "blocked": report.blocked,
                "requests": report.requests,
                "crawl_seconds": report.crawl_seconds,
                "load_seconds": report.load_seconds,
            })
        })
        .collect();
    Report::new(Rows { columns: columns.map(str::to_owned).to_vec(), rows })
        .with_extra("dry_run", dry_run)
        .with_extra("clusters", clusters)
}

/// Says what a person must know of one cluster's run.
fn tell(report: &ClusterReport) {
    let cluster = &report.cluster_id;
    for scope in report.scopes.iter().filter(|scope| scope.status != Completeness::Complete) {
        let collector = scope.collector.as_str();
        let status = scope.status.as_str();
        let reason = scope.reason.as_deref().unwrap_or("no reason given");
        let place = scope.node.as_deref().map(|node| format!(" on {node}")).unwrap_or_default();
        // What a token may not see is its owner's choice, told each night to nobody's use.
        if scope.status == Completeness::Filtered {
            tracing::info!("{cluster}: {collector}{place} {status}: {reason}");
        } else {
            tracing::warn!("{cluster}: {collector}{place} {status}: {reason}");
        }
    }
    for (reason, count) in &report.kept {
        // The same holds for what the token may not see any more, or never could.
        if *reason == Kept::NotPermitted.as_str() {
            tracing::info!("{cluster}: {count} things that were not seen are kept: {reason}");
        } else {
            tracing::warn!("{cluster}: {count} things that were not seen are kept: {reason}");
        }
    }
    for odd in &report.odd {
        tracing::warn!("{cluster}: {odd}");
    }
    if let Some(blocked) = &report.blocked {
        tracing::error!("{cluster}: {blocked}");
    }
}

fn lost_lease(outcome: &[Result<ClusterReport, ClusterError>]) -> bool {
    outcome.iter().any(|one| one.as_ref().is_err_and(ClusterError::is_lease_lost))
}

/// The exit code of a run: whether it lost the lease, then what failed as a whole, then what was blocked, then what was not seen.
fn ended(outcome: &[Result<ClusterReport, ClusterError>]) -> Result<Exit, Failure> {
    if lost_lease(outcome) {
        return Ok(Exit::Locked);
    }
    let failed: Vec<&ClusterError> = outcome.iter().filter_map(|one| one.as_ref().err()).collect();
    if failed.len() == outcome.len()
        && let Some(error) = failed.first()
    {
        // Each was told above; the first one's kind is the run's.
        return Ok(code(error));
    }
    let reports = || outcome.iter().filter_map(|one| one.as_ref().ok());
    if reports().any(|report| report.blocked.is_some()) {
        return Ok(Exit::Blocked);
    }
    let partial = !failed.is_empty() || reports().any(|report| report.completeness >= Completeness::Partial);
    Ok(if partial { Exit::Partial } else { Exit::Success })
}

fn code(error: &ClusterError) -> Exit {
    match error {
        ClusterError::Api { source, .. } => api_code(source),
        ClusterError::Identity(error) => identity_code(error),
        ClusterError::Store { source, .. } if source.is_auth() => Exit::Auth,
        ClusterError::Store { .. } => Exit::Store,
    }
}

/// The exit code of a cluster that is refused.
fn identity_code(error: &IdentityError) -> Exit {
    match error {
        IdentityError::Unnamed { source, .. } => api_code(source),
        _ => Exit::Config,
    }
}

impl From<UnverifiedError> for Failure {
    fn from(error: UnverifiedError) -> Self {
        match error {
            UnverifiedError::Store(error) => error.into(),
            UnverifiedError::Api(error) => Self::new(api_code(&error), error),
            UnverifiedError::Identity(error) => Self::new(identity_code(&error), error),
        }
    }
}

/// The exit code of an error at Proxmox VE's side.
pub fn api_code(error: &pve_client::ApiError) -> Exit {
    if error.is_unauthorized() || error.is_forbidden() || error.is_tfa() {
        Exit::Auth
    } else if error.is_config() {
        Exit::Config
    } else if error.status().is_some() {
        Exit::Failed
    } else {
        Exit::Unreachable
    }
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        match error {
            RunError::Lease(LeaseError::Store(error)) => error.into(),
            RunError::Lease(error @ LeaseError::Held { .. }) => Self::new(Exit::Locked, error),
        }
    }
}

/// Progress bars on a terminal, nothing otherwise.
struct Bars {
    shown: Option<MultiProgress>,
    bars: Mutex<HashMap<ClusterId, ProgressBar>>,
}

impl Bars {
    fn new() -> Self {
        let shown = std::io::stderr().is_terminal().then(MultiProgress::new);
        Self { shown, bars: Mutex::default() }
    }

    fn with(&self, cluster: &ClusterId, act: impl FnOnce(&ProgressBar)) {
        if let Some(bar) = self.bars.lock().unwrap_or_else(PoisonError::into_inner).get(cluster) {
            act(bar);
        }
    }

    fn clear(&self) {
        if let Some(shown) = &self.shown {
            // A terminal that is gone needs no clearing.
            let _ = shown.clear();
        }
    }
}

impl Progress for Bars {
    fn surveyed(&self, cluster: &ClusterId, guests: usize) {
        let Some(shown) = &self.shown else { return };
        let bar = shown.add(ProgressBar::new(guests as u64));
        if let Ok(style) = ProgressStyle::with_template("{msg:20} {bar:30} {pos}/{len} guests, {elapsed}") {
            bar.set_style(style);
        }
        bar.set_message(cluster.to_string());
        self.bars.lock().unwrap_or_else(PoisonError::into_inner).insert(cluster.clone(), bar);
    }

    fn loaded(&self, cluster: &ClusterId, guests: usize) {
        self.with(cluster, |bar| bar.inc(guests as u64));
    }

    fn finished(&self, cluster: &ClusterId) {
        self.with(cluster, ProgressBar::finish);
    }
}
