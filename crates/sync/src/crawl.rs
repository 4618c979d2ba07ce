//! The crawl of one cluster: what is asked, in which order, and how each scope ends. It fetches; meaning is given by the
//! inventory's builder, and nothing here knows the graph.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use pve_client::answers::{BackupJob as BackupJobRow, LxcRow, Permissions, QemuRow, Resource};
use pve_client::wire::{Lost, Oddity, Read};
use pve_client::{ApiError, PveClient};
use pvegraph_inventory::{
    BackupJob, Cluster, ClusterId, Collector, Completeness, Guest, GuestType, Node, NodeStatus, Storage,
    build,
};
use tokio::sync::mpsc;

use crate::identity::{IdentityError, own_authority};

/// Guests in one unit of work: crawled, compared, loaded and released together, so that memory is bounded by the units in
/// flight.
const UNIT_GUESTS: usize = 1_000;
/// Nodes that are crawled at once: with eight requests each, twice what the cluster's own limit lets through.
const NODES_AT_ONCE: usize = 16;
/// Units that wait for the loader.
const UNITS_WAITING: usize = 2;
/// Requests that a unit has ready for the client, whose own limits decide when they go out.
const CONFIGS_AT_ONCE: usize = 64;
/// How long PVE may ask each machine of a node for its own state: a hung one makes it wait for seconds.
const FULL_LISTING: Duration = Duration::from_secs(5);
/// Why the scopes of a node that is offline failed.
const OFFLINE: &str = "the node is offline";

/// How a scope ended, as a crawl tells it; see [`pvegraph_inventory::Scopes::note`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// What was collected.
    pub collector: Collector,
    /// On which node.
    pub node: Option<String>,
    /// How much of it was seen.
    pub status: Completeness,
    /// Why not all of it.
    pub reason: Option<String>,
    /// How many things were seen.
    pub count: usize,
}

impl Note {
    fn new(
        collector: Collector,
        node: Option<&str>,
        status: Completeness,
        reason: Option<String>,
        count: usize,
    ) -> Self {
        Self { collector, node: node.map(str::to_owned), status, reason, count }
    }
}

/// The cluster-wide facts of one run.
#[derive(Debug)]
pub struct Survey {
    /// The cluster.
    pub cluster: Cluster,
    /// Its nodes.
    pub nodes: Vec<Node>,
    /// Its storages, without what nodes say of them; see [`Crawl::node_storages`].
    pub storages: Vec<Storage>,
    /// Its guests by number, as the cluster's listing has them.
    pub guests: BTreeMap<i64, Guest>,
    /// Processors of containers by number: the default of those that set no limit.
    pub max_cpu: HashMap<i64, f64>,
    /// Its backup jobs; `None` where they could not be listed.
    pub backup_jobs: Option<Vec<BackupJob>>,
    /// How the scopes ended.
    pub notes: Vec<Note>,
    /// What was odd in the answers.
    pub odd: Vec<String>,
    permissions: Option<Permissions>,
}

impl Survey {
    fn may(&self, path: &str, privilege: &str) -> bool {
        self.permissions.as_ref().is_some_and(|permissions| permissions.has(path, privilege))
    }

    /// The token would see this guest, as far as the list of permissions tells. The list leaves out paths without any right, so
    /// that what is to be deleted is asked for by [`Crawl::confirm`] as well.
    pub fn may_see_guest(&self, vmid: i64) -> bool {
        self.may(&guest_path(vmid), "VM.Audit")
    }

    /// The token would see this storage, likewise.
    pub fn may_see_storage(&self, name: &str) -> bool {
        self.may(&storage_path(name), "Datastore.Audit")
    }

    /// The token sees every guest that it is not expressly denied.
    pub fn sees_all_guests(&self) -> bool {
        // A number that no guest has: only an inherited right counts.
        self.may("/vms/0", "VM.Audit")
    }

    /// What the token may see could not be asked.
    fn rights_unknown(&self) -> bool {
        self.permissions.is_none()
    }

    /// The listing of nodes answered whole: there is no other node.
    pub fn all_nodes_seen(&self) -> bool {
        let mut of_nodes = self.notes.iter().filter(|note| note.collector == Collector::Nodes);
        of_nodes.all(|note| note.status == Completeness::Complete)
    }

    fn sees_all_storages(&self) -> bool {
        // No storage's name begins so (they begin with a letter).
        self.may("/storage/0", "Datastore.Audit")
    }

    fn guests_filtered(&self) -> Option<String> {
        // Rights that could not be read are told once, as a failure.
        let filtered = !self.rights_unknown() && !self.sees_all_guests();
        filtered.then(|| "the token has no VM.Audit on /vms: it sees only some guests".to_owned())
    }
}

fn guest_path(vmid: i64) -> String {
    format!("/vms/{vmid}")
}

fn storage_path(name: &str) -> String {
    format!("/storage/{name}")
}

/// Guests of one node that were crawled together.
#[derive(Debug, Default)]
pub struct Unit {
    /// The guests, with their configurations where these could be read.
    pub guests: Vec<Guest>,
    /// Guests whose configuration was read without anything odd: what it does not name is gone.
    pub understood: Vec<i64>,
    /// Guests that a listing showed.
    pub listed: Vec<i64>,
    /// Guests that a listing showed and that were gone by the time their configuration was read.
    pub gone: Vec<i64>,
    /// How the scopes ended.
    pub notes: Vec<Note>,
    /// What was odd in the answers.
    pub odd: Vec<String>,
}

/// A crawl of one cluster.
#[derive(Clone)]
pub struct Crawl {
    client: PveClient,
}

/// Takes the value of an answer, and notes what was odd in it. True: whole entries of a list were lost, so that it proves nothing.
fn take<T>(read: Read<T>, odd: &mut Vec<String>) -> (T, bool) {
    let lost = read.oddities.iter().any(|oddity| oddity.lost != Lost::Field);
    odd.extend(read.oddities.iter().map(Oddity::to_string));
    (read.value, lost)
}

/// The text of an error with its causes, on one line.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        // Some errors repeat their cause.
        if !text.ends_with(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text.lines().map(str::trim).collect::<Vec<_>>().join(" ")
}

/// How a listing that was answered ends its scope. `lost`: whole entries of it were.
fn listed(lost: bool) -> (Completeness, Option<String>) {
    if lost {
        (Completeness::Partial, Some("entries of the listing were not understood".to_owned()))
    } else {
        (Completeness::Complete, None)
    }
}

/// How a refused or failed listing ends its scope. A 403 is PVE's word that the token may not: filtered, not failed.
fn refused(error: &ApiError) -> (Completeness, Option<String>) {
    let status = if error.is_forbidden() { Completeness::Filtered } else { Completeness::Failed };
    (status, Some(chain(error)))
}

/// Why a survey failed.
#[derive(Debug, thiserror::Error)]
pub enum SurveyError {
    /// The cluster could not be asked.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// It is not known which cluster it is.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

impl Crawl {
    /// A crawl through this client.
    pub fn new(client: PveClient) -> Self {
        Self { client }
    }

    /// Reads the cluster-wide facts.
    ///
    /// # Errors
    /// Where the cluster does not answer at all, refuses the credentials, or does not tell which it is.
    pub async fn survey(&self, configured: Option<ClusterId>) -> Result<Survey, SurveyError> {
        let client = &self.client;
        let mut notes = Vec::new();
        let mut odd = Vec::new();
        // One request first: where it fails there is no use in asking more, and a wrong password is told once.
        let (version, _) = take(client.version().await?, &mut odd);

        let (status, resources, nodes, permissions, storages, jobs) = tokio::join!(
            client.cluster_status(),
            client.cluster_resources(),
            client.nodes(),
            client.permissions(),
            client.storages(),
            client.backup_jobs(),
        );
        let permissions = match permissions {
            Ok(read) => Some(take(read, &mut odd).0),
            Err(error) => {
                // What the token would have seen is not known: no guest and no storage is taken for gone.
                let reason = format!("the token's rights are not known: {}", chain(&error));
                for collector in [Collector::Guests, Collector::Storages] {
                    notes.push(Note::new(collector, None, Completeness::Partial, Some(reason.clone()), 0));
                }
                None
            }
        };
        let status = match status {
            Ok(read) => {
                let (rows, lost) = take(read, &mut odd);
                let (mut whole, mut reason) = listed(lost);
                if configured.is_none() && lost && build::cluster_row(&rows).is_none() {
                    // What was left out may be the cluster's own row: a member would be taken for a cluster of its own.
                    let odd = odd.pop().unwrap_or_default();
                    return Err(IdentityError::Odd { endpoint: client.endpoint().to_owned(), odd }.into());
                }
                if !lost && build::members(&rows).next().is_none() {
                    (whole, reason) = (
                        Completeness::Failed,
                        Some("it names no member, not even the one that answered".to_owned()),
                    );
                }
                if build::cluster_row(&rows).is_some_and(|row| row.quorate.is_none()) {
                    (whole, reason) =
                        (Completeness::Partial, Some("it does not say whether there is a quorum".to_owned()));
                }
                notes.push(Note::new(Collector::Cluster, None, whole, reason, 1));
                Some(rows)
            }
            Err(error) => {
                let (status, reason) = refused(&error);
                notes.push(Note::new(Collector::Cluster, None, status, reason, 0));
                if configured.is_none() {
                    return Err(IdentityError::unnamed(client.endpoint(), error).into());
                }
                None
            }
        };
        let cluster_row = status.as_deref().and_then(build::cluster_row);
        let id = match (&configured, &status) {
            (Some(id), _) => id.clone(),
            (None, Some(rows)) => crate::identity::named_by(rows, client.endpoint())?,
            (None, None) => {
                return Err(IdentityError::Unknown { endpoint: client.endpoint().to_owned() }.into());
            }
        };

        let resources = match resources {
            Ok(read) => {
                let (rows, lost) = take(read, &mut odd);
                let (mut status, mut reason) = listed(lost);
                if !lost && !has_nodes(&rows) {
                    (status, reason) = (Completeness::Failed, Some("the listing has no node".to_owned()));
                }
                let guests = rows.iter().filter(|row| row.guest().is_some()).count();
                notes.push(Note::new(Collector::Guests, None, status, reason, guests));
                rows
            }
            Err(error) => {
                // A listing is filtered, never refused: a 403 here is a failure like any other.
                notes.push(Note::new(Collector::Guests, None, Completeness::Failed, Some(chain(&error)), 0));
                Vec::new()
            }
        };
        let node_rows = match nodes {
            Ok(read) => {
                let (rows, lost) = take(read, &mut odd);
                let (mut status, mut reason) = listed(lost);
                if !lost && rows.is_empty() {
                    (status, reason) = (Completeness::Failed, Some("the listing has no node".to_owned()));
                }
                notes.push(Note::new(Collector::Nodes, None, status, reason, rows.len()));
                rows
            }
            Err(error) => {
                notes.push(Note::new(Collector::Nodes, None, Completeness::Failed, Some(chain(&error)), 0));
                Vec::new()
            }
        };

        let mut guests = BTreeMap::new();
        let mut max_cpu = HashMap::new();
        for row in &resources {
            let kind = match row {
                Resource::Qemu(_) => GuestType::Qemu,
                Resource::Lxc(_) => GuestType::Lxc,
                Resource::Node(_)
                | Resource::Storage(_)
                | Resource::Pool(_)
                | Resource::Sdn(_)
                | Resource::Other(_) => {
                    continue;
                }
            };
            if let Some(resource) = row.guest() {
                let guest = build::listed_guest(kind, resource);
                max_cpu.extend(resource.maxcpu.map(|cpus| (guest.vmid, cpus)));
                guests.insert(guest.vmid, guest);
            }
        }
        let nodes = merge_nodes(&resources, &node_rows, status.as_deref().unwrap_or_default(), &guests);

        let mut survey = Survey {
            cluster: Cluster {
                name: cluster_row.map_or_else(|| id.to_string(), |row| row.name.clone()),
                version: Some(version.version),
                // A standalone node is its own quorum; without a status it is not known.
                quorate: match cluster_row {
                    Some(row) => row.quorate,
                    None => status.as_deref().and_then(|rows| build::members(rows).next()).map(|_| true),
                },
                nodes_online: online(&nodes),
                ca_fingerprint: None,
                id,
            },
            nodes,
            storages: Vec::new(),
            guests,
            max_cpu,
            backup_jobs: None,
            notes,
            odd,
            permissions,
        };
        if let Some(reason) = survey.guests_filtered() {
            survey.notes.push(Note::new(Collector::Guests, None, Completeness::Filtered, Some(reason), 0));
        }
        self.enter_storages(&mut survey, storages);
        let (jobs, authority) = tokio::join!(self.volumes_of(jobs), own_authority(client, &survey.nodes));
        if authority.is_none() {
            let reason =
                "the cluster's certificate authority could not be read: it may be another cluster".to_owned();
            survey.notes.push(Note::new(Collector::Cluster, None, Completeness::Partial, Some(reason), 0));
        }
        survey.cluster.ca_fingerprint = authority;
        let filtered = survey.guests_filtered();
        let (jobs, notes, odd) = jobs;
        survey.backup_jobs = jobs;
        survey.odd.extend(odd);
        survey.notes.extend(notes);
        if survey.backup_jobs.is_some()
            && let Some(reason) = filtered
        {
            survey.notes.push(Note::new(
                Collector::BackupJobs,
                None,
                Completeness::Filtered,
                Some(reason),
                0,
            ));
        }
        Ok(survey)
    }

    fn enter_storages(
        &self,
        survey: &mut Survey,
        storages: Result<Read<Vec<pve_client::answers::StorageDefinition>>, ApiError>,
    ) {
        match storages {
            Ok(read) => {
                let (rows, lost) = take(read, &mut survey.odd);
                let (mut status, mut reason) = listed(lost);
                if !lost && !survey.rights_unknown() {
                    if !survey.sees_all_storages() {
                        status = Completeness::Filtered;
                        reason = Some(
                            "the token has no Datastore.Audit on /storage: it sees only some storages"
                                .to_owned(),
                        );
                    } else if rows.is_empty() {
                        // PVE always has `local`, configured or not.
                        (status, reason) =
                            (Completeness::Failed, Some("the listing has no storage".to_owned()));
                    }
                }
                survey.storages = rows.iter().map(|row| build::storage(row, &survey.nodes)).collect();
                survey.notes.push(Note::new(Collector::Storages, None, status, reason, rows.len()));
            }
            Err(error) => {
                let (status, reason) = refused(&error);
                survey.notes.push(Note::new(Collector::Storages, None, status, reason, 0));
            }
        }
    }

    /// What each backup job takes.
    async fn volumes_of(
        &self,
        jobs: Result<Read<Vec<BackupJobRow>>, ApiError>,
    ) -> (Option<Vec<BackupJob>>, Vec<Note>, Vec<String>) {
        let mut notes = Vec::new();
        let mut odd = Vec::new();
        let rows = match jobs {
            Ok(read) => {
                let (rows, lost) = take(read, &mut odd);
                let (_, reason) = listed(lost);
                let status = if lost { Completeness::Failed } else { Completeness::Complete };
                notes.push(Note::new(Collector::BackupJobs, None, status, reason, rows.len()));
                rows
            }
            Err(error) => {
                let (status, reason) = refused(&error);
                notes.push(Note::new(Collector::BackupJobs, None, status, reason, 0));
                return (None, notes, odd);
            }
        };
        let answers: Vec<_> = stream::iter(rows)
            .map(|row| async move {
                let volumes = self.client.included_volumes(&row.id).await;
                (row, volumes)
            })
            .buffered(CONFIGS_AT_ONCE)
            .collect()
            .await;
        let mut jobs = Vec::new();
        for (row, volumes) in answers {
            let volumes = match volumes {
                Ok(read) => {
                    let (volumes, lost) = take(read, &mut odd);
                    if lost {
                        let reason = format!("job {}: entries of its volumes were not understood", row.id);
                        notes.push(Note::new(
                            Collector::BackupJobs,
                            None,
                            Completeness::Partial,
                            Some(reason),
                            0,
                        ));
                    }
                    (!lost).then_some(volumes)
                }
                Err(error) => {
                    let reason = format!("job {}: {}", row.id, chain(&error));
                    notes.push(Note::new(
                        Collector::BackupJobs,
                        None,
                        Completeness::Partial,
                        Some(reason),
                        0,
                    ));
                    None
                }
            };
            jobs.push(build::backup_job(&row, volumes.as_ref()));
        }
        (Some(jobs), notes, odd)
    }

    /// Asks each node that is not offline what it has of the storages.
    pub async fn node_storages(&self, survey: &mut Survey) {
        let answers: Vec<_> = stream::iter(survey.nodes.clone())
            .map(|node| async move {
                if node.status == NodeStatus::Offline {
                    return (node.name, None);
                }
                let answer = self.client.node_storages(&node.name).await;
                (node.name, Some(answer))
            })
            .buffered(CONFIGS_AT_ONCE)
            .collect()
            .await;
        for (node, answer) in answers {
            let (status, reason, count) = match answer {
                None => (Completeness::Failed, Some(OFFLINE.to_owned()), 0),
                Some(Err(error)) => {
                    let (status, reason) = refused(&error);
                    (status, reason, 0)
                }
                Some(Ok(read)) => {
                    let (rows, lost) = take(read, &mut survey.odd);
                    build::storages_on(&node, &rows, &mut survey.storages);
                    let (status, reason) = listed(lost);
                    (status, reason, rows.len())
                }
            };
            survey.notes.push(Note::new(Collector::NodeStorages, Some(&node), status, reason, count));
        }
    }

    /// Crawls the guests, node by node, unit by unit. The units come as they are ready; dropping the receiver ends the crawl.
    pub fn guests(&self, survey: &Survey) -> mpsc::Receiver<Unit> {
        let (sender, receiver) = mpsc::channel(UNITS_WAITING);
        let mut listed: HashMap<String, Vec<Guest>> = HashMap::new();
        for guest in survey.guests.values() {
            listed.entry(guest.node.clone()).or_default().push(guest.clone());
        }
        let plan = Plan {
            crawl: self.clone(),
            filtered: survey.guests_filtered(),
            max_cpu: survey.max_cpu.clone(),
            everywhere: survey.guests.clone(),
        };
        let plan = Arc::new(plan);
        let nodes = survey.nodes.clone();
        tokio::spawn(async move {
            let work = stream::iter(nodes).for_each_concurrent(NODES_AT_ONCE, |node| {
                let here = listed.remove(&node.name).unwrap_or_default();
                let plan = plan.clone();
                let sender = sender.clone();
                async move { plan.node(&node, here, &sender).await }
            });
            tokio::select! {
                () = work => {}
                // The loader failed: nobody wants the rest.
                () = sender.closed() => {}
            }
        });
        receiver
    }

    /// Looks once more for guests that were gone from where a listing showed them: one that migrated meanwhile is elsewhere.
    /// Those that are in no listing any more are gone.
    pub async fn find_again(&self, survey: &Survey, vmids: &[i64]) -> Unit {
        let mut unit = Unit::default();
        let listing = match self.client.cluster_resources().await {
            Ok(read) => read,
            Err(error) => {
                let reason = format!("guests that vanished could not be looked for: {}", chain(&error));
                unit.notes.push(Note::new(Collector::Guests, None, Completeness::Partial, Some(reason), 0));
                unit.listed.extend(vmids);
                return unit;
            }
        };
        let (rows, lost) = take(listing, &mut unit.odd);
        let lost = lost || !has_nodes(&rows);
        let mut places: HashMap<i64, Guest> = rows
            .iter()
            .filter_map(|row| {
                let kind = if matches!(row, Resource::Qemu(_)) { GuestType::Qemu } else { GuestType::Lxc };
                row.guest().map(|resource| build::listed_guest(kind, resource))
            })
            .map(|guest| (guest.vmid, guest))
            .collect();
        let plan = Plan {
            crawl: self.clone(),
            filtered: None,
            max_cpu: survey.max_cpu.clone(),
            everywhere: BTreeMap::new(),
        };
        for vmid in vmids {
            let Some(guest) = places.remove(vmid) else {
                if lost {
                    unit.listed.push(*vmid)
                } else {
                    unit.gone.push(*vmid)
                }
                continue;
            };
            let (node, kind) = (guest.node.clone(), guest.kind);
            if !survey.nodes.iter().any(|known| known.name == node) {
                // No guest is loaded without its node; the next run will know this one.
                unit.listed.push(*vmid);
                let reason = format!("guest {vmid} moved to {node}, which joined during the run");
                unit.notes.push(Note::new(Collector::Guests, None, Completeness::Partial, Some(reason), 0));
                continue;
            }
            let found = plan.read(vec![guest]).await;
            let still_gone = !found.gone.is_empty();
            unit.guests.extend(found.guests);
            unit.understood.extend(found.understood);
            unit.odd.extend(found.odd);
            unit.notes.extend(found.notes);
            unit.listed.push(*vmid);
            if still_gone {
                let reason = format!("guest {vmid} is listed on {node}, which does not know it");
                unit.notes.push(Note::new(
                    collector(kind),
                    Some(&node),
                    Completeness::Partial,
                    Some(reason),
                    0,
                ));
            }
        }
        unit
    }

    /// Asks PVE itself whether the token would see these guests and storages, one request each: the list of permissions leaves
    /// out paths where all rights are taken away. What can't be confirmed is kept.
    ///
    /// Backup jobs have no rights of their own; see [`Crawl::jobs_gone`].
    pub async fn confirm(&self, guests: &[i64], storages: &[String]) -> (HashSet<i64>, HashSet<String>) {
        let confirmed = |path: String, privilege: &'static str| async move {
            match self.client.permissions_on(&path).await {
                Ok(read) => read.value.0.get(&path).is_some_and(|rights| rights.contains_key(privilege)),
                Err(error) => {
                    tracing::warn!(%path, error = %chain(&error), "rights could not be confirmed; what is there stays");
                    false
                }
            }
        };
        let guests = stream::iter(guests.to_vec())
            .map(|vmid| async move { confirmed(guest_path(vmid), "VM.Audit").await.then_some(vmid) })
            .buffer_unordered(CONFIGS_AT_ONCE)
            .filter_map(|found| async move { found })
            .collect();
        let storages = stream::iter(storages.to_vec())
            .map(
                |name| async move { confirmed(storage_path(&name), "Datastore.Audit").await.then_some(name) },
            )
            .buffer_unordered(CONFIGS_AT_ONCE)
            .filter_map(|found| async move { found })
            .collect();
        tokio::join!(guests, storages)
    }

    /// Asks for each of these backup jobs by name: only the one listing tells of them, and an empty one is as genuine as any.
    pub async fn jobs_gone(&self, jobs: &[String]) -> HashSet<String> {
        stream::iter(jobs.to_vec())
            .map(|job| async move {
                let gone = self.client.backup_job(&job).await.is_err_and(|error| error.is_not_found());
                gone.then_some(job)
            })
            .buffer_unordered(CONFIGS_AT_ONCE)
            .filter_map(|gone| async move { gone })
            .collect()
            .await
    }
}

fn collector(kind: GuestType) -> Collector {
    match kind {
        GuestType::Qemu => Collector::Qemu,
        GuestType::Lxc => Collector::Lxc,
    }
}

/// Every node that any listing names, and every node that a guest is said to be on: no guest is without its node.
fn merge_nodes(
    resources: &[Resource],
    rows: &[pve_client::answers::NodeRow],
    status: &[pve_client::answers::ClusterStatusRow],
    guests: &BTreeMap<i64, Guest>,
) -> Vec<Node> {
    let of_resources: HashMap<&str, _> = resources
        .iter()
        .filter_map(|row| match row {
            Resource::Node(node) => Some((node.node.as_str(), node)),
            _ => None,
        })
        .collect();
    let of_rows: HashMap<&str, _> = rows.iter().map(|row| (row.node.as_str(), row)).collect();
    let members: HashMap<&str, _> =
        build::members(status).map(|member| (member.name.as_str(), member)).collect();
    let names: BTreeSet<&str> = of_resources
        .keys()
        .chain(of_rows.keys())
        .chain(members.keys())
        .copied()
        .chain(guests.values().map(|guest| guest.node.as_str()))
        .collect();
    names
        .into_iter()
        .map(|name| {
            build::node(
                name,
                of_resources.get(name).copied(),
                of_rows.get(name).copied(),
                members.get(name).copied(),
            )
        })
        .collect()
}

/// Every token sees the nodes in the cluster's listing: without one it is not PVE's.
fn has_nodes(rows: &[Resource]) -> bool {
    rows.iter().any(|row| matches!(row, Resource::Node(_)))
}

/// How many nodes are online, where any is known.
fn online(nodes: &[Node]) -> Option<i64> {
    let count = nodes.iter().filter(|node| node.status == NodeStatus::Online).count();
    if nodes.is_empty() { None } else { i64::try_from(count).ok() }
}

/// What the crawl of one node needs to know of the cluster.
struct Plan {
    crawl: Crawl,
    filtered: Option<String>,
    max_cpu: HashMap<i64, f64>,
    everywhere: BTreeMap<i64, Guest>,
}

impl Plan {
    /// Crawls one node. `here`: the guests that the cluster's listing has on it.
    async fn node(&self, node: &Node, here: Vec<Guest>, sender: &mpsc::Sender<Unit>) {
        let name = node.name.as_str();
        let mut first = Unit { listed: here.iter().map(|guest| guest.vmid).collect(), ..Unit::default() };
        if node.status == NodeStatus::Offline {
            // PVE still says what it knows of its guests; their configurations stay as the graph has them.
            for collector in [Collector::Qemu, Collector::Lxc] {
                let reason = Some(OFFLINE.to_owned());
                first.notes.push(Note::new(collector, Some(name), Completeness::Failed, reason, 0));
            }
            first.guests = here;
            let _ = sender.send(first).await;
            return;
        }
        let (qemu, lxc) = tokio::join!(self.qemu_listing(name), self.crawl.client.lxc_guests(name));
        let mut todo = Vec::new();
        let mut here: HashMap<i64, Guest> = here.into_iter().map(|guest| (guest.vmid, guest)).collect();
        let mut listed = |vmid: i64| here.remove(&vmid).or_else(|| self.everywhere.get(&vmid).cloned());

        let machines = |rows: Vec<QemuRow>, listed: &mut dyn FnMut(i64) -> Option<Guest>| -> Vec<Guest> {
            rows.iter().map(|row| build::qemu_guest(name, row, listed(i64::from(row.vmid.get())))).collect()
        };
        let containers = |rows: Vec<LxcRow>, listed: &mut dyn FnMut(i64) -> Option<Guest>| -> Vec<Guest> {
            rows.iter().map(|row| build::lxc_guest(name, row, listed(i64::from(row.vmid.get())))).collect()
        };
        let qemu =
            self.enter(Collector::Qemu, name, qemu, &mut first).map(|rows| machines(rows, &mut listed));
        let lxc = self.enter(Collector::Lxc, name, lxc, &mut first).map(|rows| containers(rows, &mut listed));
        let answered = |kind| if kind == GuestType::Qemu { qemu.is_some() } else { lxc.is_some() };
        // The cluster's listing has it here and the node's has not: it may be moving. Its configuration tells. Where the node's
        // listing failed, the guests stay as they are.
        let left: Vec<Guest> = here.into_values().filter(|guest| answered(guest.kind)).collect();
        todo.extend(left);
        for guests in [qemu, lxc].into_iter().flatten() {
            first.listed.extend(guests.iter().map(|guest| guest.vmid));
            todo.extend(guests);
        }
        todo.sort_by_key(|guest| guest.vmid);

        if sender.send(first).await.is_err() {
            return;
        }
        let mut todo = todo.into_iter().peekable();
        while todo.peek().is_some() {
            let unit = self.read(todo.by_ref().take(UNIT_GUESTS).collect()).await;
            if sender.send(unit).await.is_err() {
                return;
            }
        }
    }

    /// A node's machines with QEMU's own states, or without them where that takes too long.
    async fn qemu_listing(&self, node: &str) -> Result<Read<Vec<QemuRow>>, ApiError> {
        let client = &self.crawl.client;
        match tokio::time::timeout(FULL_LISTING, client.qemu_guests(node, true)).await {
            Ok(Ok(read)) => Ok(read),
            Ok(Err(error)) if error.is_node_unreachable() || error.is_unreachable() => Err(error),
            Ok(Err(_)) | Err(_) => client.qemu_guests(node, false).await,
        }
    }

    fn enter<T>(
        &self,
        collector: Collector,
        node: &str,
        listing: Result<Read<Vec<T>>, ApiError>,
        unit: &mut Unit,
    ) -> Option<Vec<T>> {
        match listing {
            Ok(read) => {
                let (rows, lost) = take(read, &mut unit.odd);
                let (status, reason) = match &self.filtered {
                    Some(reason) if !lost => (Completeness::Filtered, Some(reason.clone())),
                    _ => listed(lost),
                };
                unit.notes.push(Note::new(collector, Some(node), status, reason, rows.len()));
                Some(rows)
            }
            Err(error) => {
                let reason = Some(chain(&error));
                unit.notes.push(Note::new(collector, Some(node), Completeness::Failed, reason, 0));
                None
            }
        }
    }

    /// Reads the configurations of guests that were listed.
    async fn read(&self, guests: Vec<Guest>) -> Unit {
        let client = &self.crawl.client;
        let answers: Vec<_> = stream::iter(guests)
            .map(|mut guest| async move {
                let read = match guest.kind {
                    GuestType::Qemu => client.qemu_config(&guest.node, guest.vmid).await.map(|read| {
                        let config = build::qemu_config(guest.vmid, &read.value);
                        (config, read.oddities)
                    }),
                    GuestType::Lxc => client.lxc_config(&guest.node, guest.vmid).await.map(|read| {
                        let max_cpu = self.max_cpu.get(&guest.vmid).copied();
                        let config = build::lxc_config(guest.vmid, &read.value, max_cpu);
                        (config, read.oddities)
                    }),
                };
                let read = read.map(|(config, oddities)| {
                    guest.config = Some(config);
                    oddities
                });
                (guest, read)
            })
            .buffered(CONFIGS_AT_ONCE)
            .collect()
            .await;
        let mut unit = Unit::default();
        for (guest, read) in answers {
            let partial = |reason: String| {
                let reason = Some(format!("guest {}: {reason}", guest.vmid));
                Note::new(collector(guest.kind), Some(&guest.node), Completeness::Partial, reason, 0)
            };
            match read {
                Ok(oddities) if oddities.is_empty() => unit.understood.push(guest.vmid),
                // A volume whose text is not understood is not gone: what is not named stays.
                Ok(oddities) => {
                    unit.notes.push(partial(format!("{} values were not understood", oddities.len())));
                    unit.odd.extend(oddities.iter().map(Oddity::to_string));
                }
                Err(error) if error.is_not_found() => {
                    unit.gone.push(guest.vmid);
                    continue;
                }
                Err(error) => unit.notes.push(partial(chain(&error))),
            }
            unit.guests.push(guest);
        }
        unit
    }
}
