//! The cluster-wide facts: small, and held for the whole run.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use futures::{StreamExt, stream};
use pve_client::ApiError;
use pve_client::answers::{
    BackupJob as BackupJobRow, ClusterStatusRow, NodeRow, NodeStorage, Permissions, Resource,
    StorageDefinition,
};
use pve_client::wire::Read;
use pvegraph_inventory::{
    BackupJob, Cluster, ClusterId, Collector, Completeness, Guest, GuestType, Node, NodeStatus, Storage,
    build,
};

use super::proof::{guest_path, storage_path};
use super::{ASKED_AT_ONCE, Crawl, Note, OFFLINE, chain, listed, refused, take};
use crate::identity::{IdentityError, own_authority};

/// The cluster-wide facts of one run.
#[derive(Debug)]
pub struct Survey {
    /// The cluster.
    pub cluster: Cluster,
    /// Its nodes.
    pub nodes: Vec<Node>,
    /// Its storages, without what nodes say of them until [`Survey::enter_node_storages`].
    pub storages: Vec<Storage>,
    /// Its guests by number, as the cluster's listing has them.
    pub guests: Arc<BTreeMap<i64, Guest>>,
    /// Processors of containers by number: the default of those that set no limit.
    pub max_cpu: Arc<HashMap<i64, f64>>,
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

    fn note(&mut self, collector: Collector, status: Completeness, reason: &str) {
        self.notes.push(Note::new(collector, None, status, Some(reason.to_owned()), 0));
    }

    fn sees_all_storages(&self) -> bool {
        // No storage's name begins so (they begin with a letter).
        self.may("/storage/0", "Datastore.Audit")
    }

    /// Enters what nodes have of the storages.
    pub fn enter_node_storages(&mut self, answers: NodeStorages) {
        for (node, answer) in answers {
            let (status, reason, count) = match answer {
                None => (Completeness::Failed, Some(OFFLINE.to_owned()), 0),
                // Like the cluster's list of storages, it is filtered, never refused.
                Some(Err(error)) => (Completeness::Failed, Some(chain(&error)), 0),
                Some(Ok(read)) => {
                    let (rows, lost) = take(read, &mut self.odd);
                    build::storages_on(&node, &rows, &mut self.storages);
                    let (status, reason) = listed(lost);
                    (status, reason, rows.len())
                }
            };
            self.notes.push(Note::new(Collector::NodeStorages, Some(&node), status, reason, count));
        }
    }

    /// Enters how the scope of the backup jobs ended, and answers these; none where they could not be listed.
    pub fn enter_jobs(&mut self, jobs: Jobs) -> Vec<BackupJob> {
        let Jobs { jobs, found: Findings { notes, odd } } = jobs;
        self.odd.extend(odd);
        self.notes.extend(notes);
        if let (Some(_), Some(reason)) = (&jobs, self.guests_filtered()) {
            self.note(Collector::BackupJobs, Completeness::Filtered, &reason);
        }
        jobs.unwrap_or_default()
    }

    pub(super) fn guests_filtered(&self) -> Option<String> {
        // Rights that could not be read are told once, as a failure.
        let filtered = !self.rights_unknown() && !self.sees_all_guests();
        filtered.then(|| "the token has no VM.Audit on /vms: it sees only some guests".to_owned())
    }
}

/// What the cluster answered when it was asked for its backup jobs.
pub type JobListing = Result<Read<Vec<BackupJobRow>>, ApiError>;

/// What nodes answered when they were asked for their storages; nothing of those that are offline.
pub type NodeStorages = Vec<(String, Option<Result<Read<Vec<NodeStorage>>, ApiError>>)>;

/// Backup jobs with what they take.
#[derive(Debug)]
pub struct Jobs {
    /// `None` where they could not be listed.
    jobs: Option<Vec<BackupJob>>,
    found: Findings,
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
    /// Reads the cluster-wide facts, and lists the backup jobs: what these take is for [`Crawl::backup_jobs`].
    ///
    /// # Errors
    /// Where the cluster does not answer at all, refuses the credentials, or does not tell which it is.
    pub async fn survey(&self, configured: Option<ClusterId>) -> Result<(Survey, JobListing), SurveyError> {
        let client = &self.client;
        let mut found = Findings::default();
        // One request first: where it fails there is no use in asking more, and a wrong password is told once.
        let (version, _) = take(client.version().await?, &mut found.odd);

        let (status, resources, nodes, permissions, storages, jobs) = tokio::join!(
            client.cluster_status(),
            client.cluster_resources(),
            client.nodes(),
            client.permissions(),
            client.storages(),
            client.backup_jobs(),
        );
        let permissions = found.permissions(permissions);
        let status = found.status(status, configured.is_none(), client.endpoint())?;
        let cluster_row = status.as_deref().and_then(build::cluster_row);
        let id = match (configured, &status) {
            (Some(id), _) => id,
            (None, Some(rows)) => crate::identity::named_by(rows, client.endpoint())?,
            (None, None) => {
                return Err(IdentityError::Unknown { endpoint: client.endpoint().to_owned() }.into());
            }
        };
        let resources = found.resources(resources);
        let node_rows = found.nodes(nodes);
        let (guests, max_cpu) = listed_guests(&resources);
        let nodes = merge_nodes(&resources, &node_rows, status.as_deref().unwrap_or_default(), &guests);

        // The largest of all answers is not needed any more.
        drop(resources);

        let Findings { notes, odd } = found;
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
            guests: Arc::new(guests),
            max_cpu: Arc::new(max_cpu),
            notes,
            odd,
            permissions,
        };
        let filtered = survey.guests_filtered();
        if let Some(reason) = &filtered {
            survey.note(Collector::Guests, Completeness::Filtered, reason);
        }
        self.enter_storages(&mut survey, storages);
        let authority = own_authority(client, &survey.nodes).await;
        if authority.is_none() {
            let reason = "the cluster's certificate authority could not be read: it may be another cluster";
            survey.note(Collector::Cluster, Completeness::Partial, reason);
        }
        survey.cluster.ca_fingerprint = authority;
        Ok((survey, jobs))
    }

    fn enter_storages(&self, survey: &mut Survey, storages: Result<Read<Vec<StorageDefinition>>, ApiError>) {
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
                // PVE leaves out what the token may not see, and refuses nobody: a 403 here is a failure like any other.
                let (failed, reason) = (Completeness::Failed, Some(chain(&error)));
                survey.notes.push(Note::new(Collector::Storages, None, failed, reason, 0));
            }
        }
    }

    /// Asks what each listed backup job takes.
    pub async fn backup_jobs(&self, listing: JobListing) -> Jobs {
        let mut found = Findings::default();
        let rows = match listing {
            Ok(read) => {
                let (rows, lost) = take(read, &mut found.odd);
                let (_, reason) = listed(lost);
                let status = if lost { Completeness::Failed } else { Completeness::Complete };
                found.note(Collector::BackupJobs, (status, reason), rows.len());
                rows
            }
            Err(error) => {
                found.note(Collector::BackupJobs, refused(&error), 0);
                return Jobs { jobs: None, found };
            }
        };
        let answers: Vec<_> = stream::iter(rows)
            .map(|row| async move {
                let volumes = self.client.included_volumes(&row.id).await;
                (row, volumes)
            })
            .buffered(ASKED_AT_ONCE)
            .collect()
            .await;
        let mut jobs = Vec::new();
        for (row, volumes) in answers {
            let volumes = match volumes {
                Ok(read) => {
                    let (volumes, lost) = take(read, &mut found.odd);
                    // A volume that can't be told apart is an entry lost as well.
                    let lost = lost
                        || volumes
                            .children
                            .iter()
                            .flat_map(|guest| &guest.children)
                            .any(|volume| volume.disk().is_none());
                    if lost {
                        let reason = format!("job {}: entries of its volumes were not understood", row.id);
                        found.note(Collector::BackupJobs, (Completeness::Partial, Some(reason)), 0);
                    }
                    (!lost).then_some(volumes)
                }
                Err(error) => {
                    let reason = format!("job {}: {}", row.id, chain(&error));
                    found.note(Collector::BackupJobs, (Completeness::Partial, Some(reason)), 0);
                    None
                }
            };
            jobs.push(build::backup_job(&row, volumes.as_ref()));
        }
        Jobs { jobs: Some(jobs), found }
    }

    /// Asks each node that is not offline what it has of the storages.
    pub async fn node_storages(&self, nodes: &[Node]) -> NodeStorages {
        stream::iter(nodes)
            .map(|node| async move {
                if node.status == NodeStatus::Offline {
                    return (node.name.clone(), None);
                }
                let answer = self.client.node_storages(&node.name).await;
                (node.name.clone(), Some(answer))
            })
            .buffered(ASKED_AT_ONCE)
            .collect()
            .await
    }
}

/// What answers told besides their values.
#[derive(Debug, Default)]
struct Findings {
    notes: Vec<Note>,
    odd: Vec<String>,
}

impl Findings {
    fn note(&mut self, collector: Collector, (status, reason): (Completeness, Option<String>), count: usize) {
        self.notes.push(Note::new(collector, None, status, reason, count));
    }

    fn permissions(&mut self, answer: Result<Read<Permissions>, ApiError>) -> Option<Permissions> {
        match answer {
            Ok(read) => Some(take(read, &mut self.odd).0),
            Err(error) => {
                // What the token would have seen is not known: no guest and no storage is taken for gone.
                let reason = format!("the token's rights are not known: {}", chain(&error));
                for collector in [Collector::Guests, Collector::Storages] {
                    self.note(collector, (Completeness::Partial, Some(reason.clone())), 0);
                }
                None
            }
        }
    }

    /// The cluster and its members. `nameless`: it must tell its own name, because none is configured.
    fn status(
        &mut self,
        answer: Result<Read<Vec<ClusterStatusRow>>, ApiError>,
        nameless: bool,
        endpoint: &str,
    ) -> Result<Option<Vec<ClusterStatusRow>>, SurveyError> {
        let read = match answer {
            Ok(read) => read,
            Err(error) if nameless => return Err(IdentityError::unnamed(endpoint, error).into()),
            Err(error) => {
                self.note(Collector::Cluster, refused(&error), 0);
                return Ok(None);
            }
        };
        let (rows, lost) = take(read, &mut self.odd);
        if nameless && lost && build::cluster_row(&rows).is_none() {
            // What was left out may be the cluster's own row: a member would be taken for a cluster of its own.
            let odd = self.odd.pop().unwrap_or_default();
            return Err(IdentityError::Odd { endpoint: endpoint.to_owned(), odd }.into());
        }
        let ended = if build::cluster_row(&rows).is_some_and(|row| row.quorate.is_none()) {
            (Completeness::Partial, Some("it does not say whether there is a quorum".to_owned()))
        } else if !lost && build::members(&rows).next().is_none() {
            (Completeness::Failed, Some("it names no member, not even the one that answered".to_owned()))
        } else {
            listed(lost)
        };
        self.note(Collector::Cluster, ended, 1);
        Ok(Some(rows))
    }

    fn resources(&mut self, answer: Result<Read<Vec<Resource>>, ApiError>) -> Vec<Resource> {
        match answer {
            Ok(read) => {
                let (rows, lost) = take(read, &mut self.odd);
                let guests = rows.iter().filter(|row| row.guest().is_some()).count();
                self.note(Collector::Guests, listed_nodes(lost, has_nodes(&rows)), guests);
                rows
            }
            Err(error) => {
                // A listing is filtered, never refused: a 403 here is a failure like any other.
                self.note(Collector::Guests, (Completeness::Failed, Some(chain(&error))), 0);
                Vec::new()
            }
        }
    }

    fn nodes(&mut self, answer: Result<Read<Vec<NodeRow>>, ApiError>) -> Vec<NodeRow> {
        match answer {
            Ok(read) => {
                let (rows, lost) = take(read, &mut self.odd);
                self.note(Collector::Nodes, listed_nodes(lost, !rows.is_empty()), rows.len());
                rows
            }
            Err(error) => {
                self.note(Collector::Nodes, (Completeness::Failed, Some(chain(&error))), 0);
                Vec::new()
            }
        }
    }
}

/// How a listing that must have a node ends its scope.
fn listed_nodes(lost: bool, any: bool) -> (Completeness, Option<String>) {
    if lost || any {
        listed(lost)
    } else {
        (Completeness::Failed, Some("the listing has no node".to_owned()))
    }
}

/// The guests of the cluster's listing, and the processors of each, by number.
fn listed_guests(resources: &[Resource]) -> (BTreeMap<i64, Guest>, HashMap<i64, f64>) {
    let mut guests = BTreeMap::new();
    let mut max_cpu = HashMap::new();
    for row in resources {
        let kind = match row {
            Resource::Qemu(_) => GuestType::Qemu,
            Resource::Lxc(_) => GuestType::Lxc,
            Resource::Node(_)
            | Resource::Storage(_)
            | Resource::Pool(_)
            | Resource::Sdn(_)
            | Resource::Other(_) => continue,
        };
        if let Some(resource) = row.guest() {
            let guest = build::listed_guest(kind, resource);
            max_cpu.extend(resource.maxcpu.map(|cpus| (guest.vmid, cpus)));
            guests.insert(guest.vmid, guest);
        }
    }
    (guests, max_cpu)
}

/// Every node that any listing names, and every node that a guest is said to be on: no guest is without its node.
fn merge_nodes(
    resources: &[Resource],
    rows: &[NodeRow],
    status: &[ClusterStatusRow],
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
pub(super) fn has_nodes(rows: &[Resource]) -> bool {
    rows.iter().any(|row| matches!(row, Resource::Node(_)))
}

/// How many nodes are online, where any is known.
fn online(nodes: &[Node]) -> Option<i64> {
    let count = nodes.iter().filter(|node| node.status == NodeStatus::Online).count();
    if nodes.is_empty() { None } else { i64::try_from(count).ok() }
}
