//! One run: lease → for each cluster: crawl → load → sweep → record.

use std::collections::{BTreeMap, HashMap, HashSet};

use pve_client::{ApiError, PveClient};
use pvegraph_graph::cypher::Writer;
use pvegraph_graph::labels::{BACKUP_JOB, DISK, GUEST, NIC, NODE, STORAGE, guest_type};
use pvegraph_graph::lease::{Holder, Lease, LeaseError};
use pvegraph_graph::runs::{Counts, Run};
use pvegraph_graph::{Rows, Statement, Store, StoreError};
use pvegraph_inventory::{ClusterId, Collector, Completeness, NodeStatus, Scope, Scopes};
use serde::Serialize;
use serde_json::Value;

use crate::crawl::{Crawl, Note, Survey, SurveyError, Unit, chain};
use crate::identity::{self, IdentityError};
use crate::load::{Loader, now};
use crate::sweep::{Evidence, Guard, Kept, StaleGuest};

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
    let started_at = now();
    let name =
        || target.name.as_ref().map_or_else(|| target.client.endpoint().to_owned(), ToString::to_string);
    let graph = |source| ClusterError::Store { name: name(), source };

    let crawl = Crawl::new(target.client.clone());
    let mut survey = crawl.survey(target.name.clone()).await.map_err(|error| match error {
        SurveyError::Api(source) => ClusterError::Api { name: name(), source },
        SurveyError::Identity(error) => error.into(),
    })?;
    let cluster_id = survey.cluster.id.clone();
    let known = known_authorities(store).await.map_err(graph)?;
    if !options.accept_new_authority.contains(&cluster_id) {
        identity::check(&survey.cluster, &known)?;
    }
    if !seen.insert(cluster_id.clone()) {
        return Err(IdentityError::Twice { id: cluster_id }.into());
    }
    progress.surveyed(&cluster_id, survey.guests.len());

    // A dry run is compared with what is there, and its tag must be later than all of that.
    let tag = lease.map_or(i64::MAX, |lease| lease.tag);
    let run = Run { cluster: &cluster_id, tag };
    let writer = Writer { dialect: store.dialect(), cluster: &cluster_id, tag };
    let mut loader = Loader::new(store, writer, lease);

    // The guests' configurations are on their way while the cluster-wide facts, which they hang on, are completed and loaded.
    let mut units = crawl.guests(&survey);
    crawl.node_storages(&mut survey).await;
    loader
        .cluster(
            vec![run.begin(started_at)],
            &survey.cluster,
            (&survey.nodes, survey.all_nodes_seen()),
            &survey.storages,
        )
        .await
        .map_err(graph)?;

    let mut seen = Seen::default();
    seen.note(std::mem::take(&mut survey.notes));
    while let Some(unit) = units.recv().await {
        load(&mut loader, &mut seen, unit, &cluster_id, progress).await.map_err(graph)?;
    }
    let vanished: Vec<i64> = seen.gone.drain().filter(|vmid| !seen.loaded.contains(vmid)).collect();
    if !vanished.is_empty() {
        let unit = crawl.find_again(&survey, &vanished).await;
        seen.listed.retain(|vmid| !vanished.contains(vmid));
        load(&mut loader, &mut seen, unit, &cluster_id, progress).await.map_err(graph)?;
    }

    if let Some(jobs) = &survey.backup_jobs {
        // A guest that this run did not see, PVE may have left out of the job as well.
        let all_seen = loader.untouched(&GUEST, &[]).await.map_err(graph)?.rows.is_empty();
        loader.backup_jobs(jobs, survey.sees_all_guests() && all_seen).await.map_err(graph)?;
    }

    let swept = sweep(&mut loader, &crawl, &survey, &mut seen, options).await.map_err(graph)?;
    let mut total = Counts::default();
    loader.counts().values().for_each(|counts| total.add(*counts));
    let mut odd = survey.odd;
    odd.extend(seen.odd);
    // An answer that is read again says the same again.
    let mut told = HashSet::new();
    odd.retain(|one| told.insert(one.clone()));
    // What was left out of an answer leaves the graph as it was there, wherever the answer was from.
    let understood = if odd.is_empty() { Completeness::Complete } else { Completeness::Partial };
    let finish =
        run.finish(store.dialect(), now(), (&seen.scopes, understood), swept.blocked.as_deref(), total);
    loader.write(finish).await.map_err(graph)?;
    progress.finished(&cluster_id);

    let offline: HashSet<&str> = survey
        .nodes
        .iter()
        .filter(|node| node.status == NodeStatus::Offline && !options.offline_is_partial)
        .map(|node| node.name.as_str())
        .collect();
    let counts = |scope: &&Scope| scope.node.as_deref().is_none_or(|node| !offline.contains(node));
    let completeness = seen.scopes.iter().filter(counts).map(|scope| scope.status).max();
    Ok(ClusterReport {
        cluster_id: cluster_id.clone(),
        tag: lease.map(|lease| lease.tag),
        counts: loader.counts().clone(),
        completeness: completeness.map_or(understood, |worst| worst.max(understood)),
        scopes: seen.scopes.iter().cloned().collect(),
        kept: swept.kept,
        odd,
        blocked: swept.blocked,
    })
}

/// What the units of a run have told so far.
#[derive(Default)]
struct Seen {
    scopes: Scopes,
    /// Guests that were loaded.
    loaded: HashSet<i64>,
    /// Guests whose configuration was understood to the last value.
    understood: HashSet<i64>,
    /// Guests that a listing showed.
    listed: HashSet<i64>,
    /// Guests that were gone when their configuration was read.
    gone: HashSet<i64>,
    odd: Vec<String>,
}

impl Seen {
    fn note(&mut self, notes: Vec<Note>) {
        for Note { collector, node, status, reason, count } in notes {
            self.scopes.note(collector, node.as_deref(), status, reason, count);
        }
    }
}

async fn load(
    loader: &mut Loader<'_>,
    seen: &mut Seen,
    unit: Unit,
    cluster: &ClusterId,
    progress: &dyn Progress,
) -> Result<(), StoreError> {
    let Unit { mut guests, understood, listed, gone, notes, odd } = unit;
    // A guest that migrated during the crawl may be in the listings of two nodes. It is in one place: the first that was loaded, and
    // the next run's.
    guests.retain(|guest| !seen.loaded.contains(&guest.vmid));
    seen.note(notes);
    seen.understood.extend(understood);
    seen.listed.extend(listed);
    seen.gone.extend(gone);
    seen.odd.extend(odd);
    if !guests.is_empty() {
        loader.guests(&guests).await?;
        progress.loaded(cluster, guests.len());
        seen.loaded.extend(guests.iter().map(|guest| guest.vmid));
    }
    Ok(())
}

/// The certificate authorities that the graph knows clusters by.
async fn known_authorities(store: &dyn Store) -> Result<BTreeMap<String, String>, StoreError> {
    let statement = Statement::new(
        "MATCH (c:ProxmoxCluster)\nWHERE c.ca_fingerprint IS NOT NULL\n\
         RETURN c.cluster_id AS cluster_id, c.ca_fingerprint AS ca_fingerprint",
    );
    let rows = store.read(statement).await?;
    let text = |row: &[Value], at: usize| row.get(at).and_then(Value::as_str).map(str::to_owned);
    Ok(rows.rows.iter().filter_map(|row| Some((text(row, 0)?, text(row, 1)?))).collect())
}

#[derive(Default)]
struct Swept {
    kept: BTreeMap<&'static str, u64>,
    blocked: Option<String>,
}

/// The fates of one label's untouched nodes.
struct Fates {
    delete: Vec<Vec<Value>>,
    keep: Vec<Vec<Value>>,
}

impl Swept {
    /// Decides about each row; the first `width` columns are its key.
    fn decide(&mut self, rows: &Rows, width: usize, decide: impl Fn(&[Value]) -> Result<(), Kept>) -> Fates {
        let mut fates = Fates { delete: Vec::new(), keep: Vec::new() };
        for row in &rows.rows {
            let key = row.iter().take(width).cloned().collect();
            match decide(row) {
                Ok(()) => fates.delete.push(key),
                Err(why) => {
                    *self.kept.entry(why.as_str()).or_default() += 1;
                    fates.keep.push(key);
                }
            }
        }
        fates
    }
}

/// Which of these backup jobs, in no listing, PVE does not know either.
async fn jobs_gone(crawl: &Crawl, seen: &mut Seen, rows: &Rows) -> HashSet<String> {
    let answered = !matches!(
        seen.scopes.status(Collector::BackupJobs, None),
        None | Some(Completeness::Failed | Completeness::Filtered)
    );
    if !answered {
        return HashSet::new();
    }
    let unlisted: Vec<String> =
        rows.rows.iter().filter_map(|row| row.first()?.as_str().map(str::to_owned)).collect();
    let gone = crawl.jobs_gone(&unlisted).await;
    if let Some(job) = unlisted.iter().find(|job| !gone.contains(*job)) {
        let reason = format!("the listing lacks job {job}, and PVE does not say that it is gone");
        seen.scopes.note(Collector::BackupJobs, None, Completeness::Partial, Some(reason), 0);
    }
    gone
}

/// Deletes what is proven gone, and marks what stays unseen. Everything is decided before anything is deleted, because the guard
/// looks at all of it.
async fn sweep(
    loader: &mut Loader<'_>,
    crawl: &Crawl,
    survey: &Survey,
    seen: &mut Seen,
    options: &Options,
) -> Result<Swept, StoreError> {
    let text = |row: &[Value], at: usize| row.get(at).and_then(Value::as_str).unwrap_or_default().to_owned();
    let number = |row: &[Value]| row.first().and_then(Value::as_i64);
    let guest_rows = loader.untouched(&GUEST, &["node", "type"]).await?;
    let storage_rows = loader.untouched(&STORAGE, &[]).await?;
    let unlisted: Vec<i64> = guest_rows
        .rows
        .iter()
        .filter_map(|row| number(row))
        .filter(|vmid| !seen.listed.contains(vmid) && survey.may_see_guest(*vmid))
        .collect();
    let storages: Vec<String> = storage_rows
        .rows
        .iter()
        .map(|row| text(row, 0))
        .filter(|name| survey.may_see_storage(name))
        .collect();
    let (seen_guests, seen_storages) = crawl.confirm(&unlisted, &storages).await;
    let may_see_guest = |vmid| seen_guests.contains(&vmid);
    let may_see_storage = |name: &str| seen_storages.contains(name);

    let node_names: HashSet<String> = survey.nodes.iter().map(|node| node.name.clone()).collect();
    // A token that may not ask for the quorum still sees which nodes are online: more than half of them are one. A question that
    // failed leaves it open.
    let online = survey.nodes.iter().filter(|node| node.status == NodeStatus::Online).count();
    let majority = online * 2 > survey.nodes.len();
    let quorum_unknown = seen.scopes.status(Collector::Cluster, None) >= Some(Completeness::Partial);
    let job_rows = loader.untouched(&BACKUP_JOB, &[]).await?;
    let jobs_gone = jobs_gone(crawl, seen, &job_rows).await;
    let evidence = Evidence {
        scopes: &seen.scopes,
        quorate: survey.cluster.quorate.unwrap_or(majority) && !quorum_unknown,
        nodes: &node_names,
        listed: &seen.listed,
        may_see_guest: &may_see_guest,
        may_see_storage: &may_see_storage,
    };
    let mut swept = Swept::default();

    let guests = swept.decide(&guest_rows, 1, |row| {
        evidence.guest(&StaleGuest {
            vmid: number(row).unwrap_or_default(),
            node: text(row, 1),
            kind: guest_type(&text(row, 2)),
        })
    });
    let gone: HashSet<i64> = guests.delete.iter().filter_map(|key| key.first()?.as_i64()).collect();
    let mut hosts_kept: HashMap<String, u64> = HashMap::new();
    for row in guest_rows.rows.iter().filter(|row| number(row).is_none_or(|vmid| !gone.contains(&vmid))) {
        *hosts_kept.entry(text(row, 1)).or_default() += 1;
    }

    // A volume or interface that its guest's configuration no longer names is gone; so is one whose guest is.
    let of_guest = |row: &[Value]| match number(row) {
        Some(vmid) if gone.contains(&vmid) || seen.understood.contains(&vmid) => Ok(()),
        _ => Err(Kept::ScopeIncomplete),
    };
    let disks = swept.decide(&loader.untouched(&DISK, &[]).await?, 2, of_guest);
    let nics = swept.decide(&loader.untouched(&NIC, &[]).await?, 2, of_guest);
    let jobs = swept.decide(&job_rows, 1, |row| {
        evidence.backup_job()?;
        if jobs_gone.contains(&text(row, 0)) { Ok(()) } else { Err(Kept::ScopeIncomplete) }
    });
    let storages = swept.decide(&storage_rows, 1, |row| evidence.storage(&text(row, 0)));
    let nodes = swept.decide(&loader.untouched(&NODE, &[]).await?, 1, |row| {
        evidence.node(hosts_kept.contains_key(&text(row, 0)))
    });

    let shares = [
        (GUEST.name, guests.delete.len() as u64, loader.total(&GUEST).await?),
        (DISK.name, disks.delete.len() as u64, loader.total(&DISK).await?),
        (NIC.name, nics.delete.len() as u64, loader.total(&NIC).await?),
        (BACKUP_JOB.name, jobs.delete.len() as u64, loader.total(&BACKUP_JOB).await?),
        (STORAGE.name, storages.delete.len() as u64, loader.total(&STORAGE).await?),
        (NODE.name, nodes.delete.len() as u64, loader.total(&NODE).await?),
    ];
    match options.guard.check(&shares) {
        Err(blocked) => {
            swept.blocked = Some(blocked);
            loader.keep(&GUEST, &guests.delete).await?;
            loader.keep(&DISK, &disks.delete).await?;
            loader.keep(&NIC, &nics.delete).await?;
            loader.keep(&BACKUP_JOB, &jobs.delete).await?;
            loader.keep(&STORAGE, &storages.delete).await?;
            loader.keep(&NODE, &nodes.delete).await?;
        }
        Ok(()) => {
            // Children first: no committed state shows a volume without its guest, or a guest without its node.
            loader.delete(&DISK, &disks.delete).await?;
            loader.delete(&NIC, &nics.delete).await?;
            loader.delete(&GUEST, &guests.delete).await?;
            loader.delete(&BACKUP_JOB, &jobs.delete).await?;
            loader.delete(&STORAGE, &storages.delete).await?;
            loader.delete(&NODE, &nodes.delete).await?;
        }
    }
    loader.keep(&GUEST, &guests.keep).await?;
    loader.keep(&DISK, &disks.keep).await?;
    loader.keep(&NIC, &nics.keep).await?;
    loader.keep(&BACKUP_JOB, &jobs.keep).await?;
    loader.keep(&STORAGE, &storages.keep).await?;
    loader.keep(&NODE, &nodes.keep).await?;
    Ok(swept)
}
