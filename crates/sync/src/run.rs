//! One run: lease → for each cluster: crawl → load → sweep → record.

use std::collections::{BTreeMap, HashSet};
use std::time::Instant;

use pve_client::{ApiError, PveClient};
use pvegraph_graph::changes;
use pvegraph_graph::cypher::Writer;
use pvegraph_graph::labels::GUEST;
use pvegraph_graph::lease::{Holder, Lease, LeaseError};
use pvegraph_graph::runs::{Counts, Run};
use pvegraph_graph::{Store, StoreError};
use pvegraph_inventory::{ClusterId, Completeness, NodeStatus, Scope, Scopes};
use serde::Serialize;
use serde_json::Value;

use crate::coverage::Coverage;
use crate::crawl::{Crawl, Survey, SurveyError, chain};
use crate::feed::{self, Seen};
use crate::history::{self, Retention};
use crate::identity::{self, IdentityError};
use crate::load::{Busy, Loader, Tally, Untold, now};
use crate::sweep::{Guard, sweep};

/// A cluster to sync.
pub struct Target {
    /// Its configured name, if it has one.
    pub name: Option<ClusterId>,
    /// Asks it.
    pub client: PveClient,
}

/// How to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Read and compare, write nothing.
    pub dry_run: bool,
    /// What a sweep may delete.
    pub guard: Guard,
    /// A node that is offline makes the run partial.
    pub offline_is_partial: bool,
    /// Clusters whose certificate authority may be another one than the graph knows.
    pub accept_new_authority: Vec<ClusterId>,
    /// This process, for others that want the lease.
    pub holder: Holder,
    /// How long changes are kept.
    pub history: Retention,
}

/// What happens during a run, for whoever shows it.
pub trait Progress: Send + Sync {
    /// A cluster was surveyed: so many guests are to be read.
    fn surveyed(&self, cluster: &ClusterId, guests: usize);
    /// So many more guests were loaded.
    fn loaded(&self, cluster: &ClusterId, guests: usize);
    /// A cluster is done.
    fn finished(&self, cluster: &ClusterId);
}

/// Shows nothing.
pub struct Silent;

impl Progress for Silent {
    fn surveyed(&self, _: &ClusterId, _: usize) {}
    fn loaded(&self, _: &ClusterId, _: usize) {}
    fn finished(&self, _: &ClusterId) {}
}

/// How one cluster's sync ended.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClusterReport {
    /// The cluster.
    pub cluster_id: ClusterId,
    /// The run's tag; `None` for a dry run.
    pub tag: Option<i64>,
    /// What was done, by label.
    pub counts: BTreeMap<&'static str, Counts>,
    /// What was seen.
    pub scopes: Vec<Scope>,
    /// How complete the run was, all scopes taken together; nodes that are offline count as configured.
    pub completeness: Completeness,
    /// Why things that were not seen stay, and how many.
    pub kept: BTreeMap<&'static str, u64>,
    /// Odd things in PVE's answers, which were read as far as they are understood.
    pub odd: Vec<String>,
    /// Why nothing was deleted, if the guard said so.
    pub blocked: Option<String>,
    /// Requests that the crawl began, repeats among them.
    pub requests: u64,
    /// From the first request until the last guest was read, in seconds.
    pub crawl_seconds: f64,
    /// While the store had something to do for this cluster, in seconds; crawl and load overlap.
    pub load_seconds: f64,
}

/// Why a cluster's sync failed as a whole.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// It could not be asked.
    #[error("cluster {name} could not be read")]
    Api {
        /// Its configured name, or where it is.
        name: String,
        /// Why.
        #[source]
        source: ApiError,
    },
    /// It is not known which cluster it is, or it is not the one that the graph knows by that name.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The store failed.
    #[error("cluster {name} could not be written to the graph")]
    Store {
        /// The cluster.
        name: String,
        /// Why.
        #[source]
        source: StoreError,
    },
}

impl ClusterError {
    /// Another run took the lease meanwhile.
    pub fn is_lease_lost(&self) -> bool {
        matches!(self, Self::Store { source, .. } if source.is_lease_lost())
    }
}

/// Why a run failed before any cluster.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Another run is under way, or the store failed.
    #[error(transparent)]
    Lease(#[from] LeaseError),
}

/// How a run ended, cluster by cluster in the order of the targets; those that were not asked any more are missing.
pub type Outcome = Vec<Result<ClusterReport, ClusterError>>;

/// Syncs the clusters, one after the other. One that fails does not stop the next, unless the lease is lost: then nothing more
/// can be written, and the rest is not asked.
///
/// # Errors
/// Where the lease can't be had, nothing is read or written.
pub async fn run(
    store: &dyn Store,
    targets: &[Target],
    options: &Options,
    progress: &dyn Progress,
) -> Result<Outcome, RunError> {
    if options.dry_run {
        return Ok(all(store, targets, None, options, progress).await);
    }
    let lease = Lease::take(store, &options.holder, now()).await?;
    let outcome = tokio::select! {
        outcome = all(store, targets, Some(&lease), options, progress) => outcome,
        never = lease.keep(store, now) => match never {},
    };
    if let Err(error) = lease.release(store).await {
        // It expires by itself.
        tracing::warn!(%error, "the sync lease could not be given back");
    }
    store.checkpoint().await.map_err(LeaseError::from)?;
    Ok(outcome)
}

async fn all(
    store: &dyn Store,
    targets: &[Target],
    lease: Option<&Lease>,
    options: &Options,
    progress: &dyn Progress,
) -> Outcome {
    let mut outcome = Vec::new();
    let mut seen = HashSet::new();
    for target in targets {
        let ended = cluster(store, target, lease, options, progress, &mut seen).await;
        let is_over = ended.as_ref().is_err_and(ClusterError::is_lease_lost);
        if let (Err(error), Some(id), Some(lease)) = (&ended, &target.name, lease) {
            record_failure(store, id, lease, error).await;
        }
        outcome.push(ended);
        if is_over {
            break;
        }
    }
    outcome
}

/// Records that a cluster that the graph knows could not be synced, so that its reports do not look as fresh as the run before.
/// Without a configured name it is not known which cluster it is.
async fn record_failure(store: &dyn Store, id: &ClusterId, lease: &Lease, error: &ClusterError) {
    if matches!(error, ClusterError::Store { .. }) {
        return;
    }
    let fail = Run { cluster: id, tag: lease.tag }.fail(now(), &chain(error));
    if let Err(error) = store.write(vec![fail, lease.guard(now())]).await {
        tracing::warn!(cluster = %id, error = %chain(&error), "the failed run could not be recorded");
    }
}

async fn cluster(
    store: &dyn Store,
    target: &Target,
    lease: Option<&Lease>,
    options: &Options,
    progress: &dyn Progress,
    seen: &mut HashSet<ClusterId>,
) -> Result<ClusterReport, ClusterError> {
    let (started_at, began) = (now(), Instant::now());
    let requests_before = target.client.stats().requests;
    let name =
        || target.name.as_ref().map_or_else(|| target.client.endpoint().to_owned(), ToString::to_string);
    let graph = |source| ClusterError::Store { name: name(), source };

    let crawl = Crawl::new(target.client.clone());
    let (mut survey, job_listing) = crawl.survey(target.name.clone()).await.map_err(|error| match error {
        SurveyError::Api(source) => ClusterError::Api { name: name(), source },
        SurveyError::Identity(error) => error.into(),
    })?;
    let cluster_id = survey.cluster.id.clone();
    let known = identity::known_authorities(store).await.map_err(graph)?;
    if !options.accept_new_authority.contains(&cluster_id) {
        identity::check(&survey.cluster, &known)?;
    }
    if !seen.insert(cluster_id.clone()) {
        return Err(IdentityError::Twice { id: cluster_id }.into());
    }
    progress.surveyed(&cluster_id, survey.guests.len());
    let phase =
        |done| tracing::debug!(cluster = %cluster_id, seconds = began.elapsed().as_secs_f64(), "{done}");
    phase("surveyed");

    // A dry run is compared with what is there, and its tag must be later than all of that.
    let tag = lease.map_or(i64::MAX, |lease| lease.tag);
    let run = Run { cluster: &cluster_id, tag };
    let writer = Writer { dialect: store.dialect(), cluster: &cluster_id, tag };
    let busy = Busy::default();
    let seen_before = history::seen_before(store, writer).await.map_err(graph)?;
    let loader = Loader { store, writer, lease, busy: &busy, seen_before: &seen_before };
    let mut tally = Tally::default();

    // What the guests hang on is asked for first, and they are on their way while it is loaded.
    let (storages, mut units) =
        futures::join!(crawl.node_storages(&survey.nodes), async { crawl.guests(&survey) });
    survey.enter_node_storages(storages);
    let begin = vec![run.begin(started_at)];
    let ((), jobs) = tokio::try_join!(
        loader.cluster(
            &mut tally,
            begin,
            &survey.cluster,
            (&survey.nodes, survey.all_nodes_seen()),
            &survey.storages,
        ),
        async { Ok(crawl.backup_jobs(job_listing).await) },
    )
    .map_err(graph)?;
    let mut jobs = survey.enter_jobs(jobs);
    let coverage = Coverage::take(&mut jobs);
    if !jobs.is_empty() {
        loader.backup_jobs(&mut tally, &jobs).await.map_err(graph)?;
    }
    phase("cluster-wide facts loaded");

    let mut seen = Seen::default();
    seen.note(std::mem::take(&mut survey.notes));
    let loaded = |guests| progress.loaded(&cluster_id, guests);
    let crawled_at =
        feed::load_all(loader, &mut tally, &mut seen, &mut units, &coverage, loaded).await.map_err(graph)?;
    let vanished: Vec<i64> = seen.gone.drain().filter(|vmid| !seen.loaded.contains(vmid)).collect();
    if !vanished.is_empty() {
        let unit = crawl.find_again(&survey, &vanished).await;
        seen.listed.retain(|vmid| !vanished.contains(vmid));
        feed::load_one(loader, &mut tally, &mut seen, unit, &coverage, loaded).await.map_err(graph)?;
    }

    phase("guests loaded");
    let swept = sweep(loader, &mut tally, &crawl, &survey, &mut seen, options.guard).await.map_err(graph)?;
    phase("swept");
    // What a job lacks is no longer covered under the conditions under which what a listing lacks is gone.
    let told = if survey.sees_all_guests() && swept.quorate && swept.blocked.is_none() {
        // After the sweep: what is untouched then, stays.
        let untouched = loader.untouched(&tally, &GUEST, &[]).await.map_err(graph)?;
        let unseen = untouched.rows.into_iter().filter_map(|row| row.into_iter().next()).collect();
        Some(Untold { unseen, unread: seen.unread.iter().map(|vmid| Value::from(*vmid)).collect() })
    } else {
        None
    };
    loader.coverage(&coverage, &seen.loaded, told).await.map_err(graph)?;

    phase("coverage loaded");
    let mut odd = std::mem::take(&mut survey.odd);
    odd.append(&mut seen.odd);
    // An answer that is read again says the same again.
    let mut told = HashSet::new();
    odd.retain(|one| told.insert(one.clone()));
    // What was left out of an answer leaves the graph as it was there, wherever the answer was from.
    let understood = if odd.is_empty() { Completeness::Complete } else { Completeness::Partial };
    let mut finish = run.finish(
        store.dialect(),
        now(),
        (&seen.scopes, understood),
        swept.blocked.as_deref(),
        tally.total(),
    );
    finish.push(changes::known_since(store.dialect(), &cluster_id, tag));
    loader.write(finish).await.map_err(graph)?;
    if let Err(error) = history::prune(loader, options.history).await {
        tracing::warn!(cluster = %cluster_id, error = %chain(&error), "old changes could not be pruned: the next run does it");
    }
    progress.finished(&cluster_id);

    Ok(ClusterReport {
        cluster_id: cluster_id.clone(),
        tag: lease.map(|lease| lease.tag),
        counts: tally.counts().clone(),
        completeness: completeness(&survey, &seen.scopes, options).max(understood),
        scopes: seen.scopes.iter().cloned().collect(),
        kept: swept.kept,
        odd,
        blocked: swept.blocked,
        requests: target.client.stats().requests - requests_before,
        crawl_seconds: crawled_at.duration_since(began).as_secs_f64(),
        load_seconds: busy.total().as_secs_f64(),
    })
}

/// The worst of the scopes. Those of a node that is offline count as configured.
fn completeness(survey: &Survey, scopes: &Scopes, options: &Options) -> Completeness {
    let offline: HashSet<&str> = survey
        .nodes
        .iter()
        .filter(|node| node.status == NodeStatus::Offline && !options.offline_is_partial)
        .map(|node| node.name.as_str())
        .collect();
    let counts = |scope: &&Scope| scope.node.as_deref().is_none_or(|node| !offline.contains(node));
    scopes.iter().filter(counts).map(|scope| scope.status).max().unwrap_or(Completeness::Complete)
}
