//! The guests: each node's listings, then each guest's configuration and snapshots.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::stream;
use futures::stream::{FuturesOrdered, StreamExt};
use pve_client::answers::{LxcRow, QemuRow, Resource};
use pve_client::wire::{Oddity, Read};
use pve_client::{ApiError, PveClient};
use pvegraph_inventory::{Collector, Completeness, Guest, GuestType, Node, NodeStatus, build};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::survey::has_nodes;
use super::{Crawl, Note, OFFLINE, Survey, chain, collector, listed, take};

/// Guests in one unit. Small, so that the loader has work from the first second to the last, and many nodes that are equally far don't
/// all wait for it at once; it puts units together.
const UNIT_GUESTS: usize = 10;
/// Guests of one node that are being asked for at once: twice what the client lets through to one node, so that it never waits
/// for work.
const GUESTS_AT_ONCE: usize = 16;
/// Nodes that are crawled at once. The client's limit is the cluster's; many nodes at once share it evenly, so that no node is
/// left to the end, where its own limit would leave the cluster's unused.
const NODES_AT_ONCE: usize = 64;
/// Units that wait for the loader: as many guests as one of its batches has.
const UNITS_WAITING: usize = 50;
/// How long PVE may ask each machine of a node for its own state: a hung one makes it wait for seconds.
const FULL_LISTING: Duration = Duration::from_secs(5);

/// Guests of one node that were crawled together.
#[derive(Debug, Default)]
pub struct Unit {
    /// The guests, with their configurations and snapshots where these could be read.
    pub guests: Vec<Guest>,
    /// Guests whose configuration was read without anything odd: what it does not name is gone.
    pub understood: Vec<i64>,
    /// Guests whose configuration was asked for and is not among these.
    pub unread: Vec<i64>,
    /// Guests whose snapshots were read without anything odd, likewise.
    pub snapshots_understood: Vec<i64>,
    /// Guests that a listing showed.
    pub listed: Vec<i64>,
    /// Guests that a listing showed and that were gone by the time their configuration was read.
    pub gone: Vec<i64>,
    /// How the scopes ended.
    pub notes: Vec<Note>,
    /// What was odd in the answers.
    pub odd: Vec<String>,
}

/// The units of a crawl, as they become ready. Dropping it ends the crawl.
#[derive(Debug)]
pub struct Units {
    receiver: mpsc::Receiver<Unit>,
    crawl: JoinHandle<()>,
}

impl Units {
    /// The next unit; `None` at the end of the crawl.
    pub async fn next(&mut self) -> Option<Unit> {
        let unit = self.receiver.recv().await;
        if unit.is_none()
            && let Err(error) = (&mut self.crawl).await
            && error.is_panic()
        {
            // A crawl that broke off must not look like one that is done.
            std::panic::resume_unwind(error.into_panic());
        }
        unit
    }
}

impl Drop for Units {
    fn drop(&mut self) {
        self.crawl.abort();
    }
}

impl Crawl {
    /// Crawls the guests of all nodes.
    pub fn guests(&self, survey: &Survey) -> Units {
        let (sender, receiver) = mpsc::channel(UNITS_WAITING);
        let mut listed: HashMap<String, Vec<i64>> = HashMap::new();
        for guest in survey.guests.values() {
            listed.entry(guest.node.clone()).or_default().push(guest.vmid);
        }
        let plan = Plan {
            client: self.client.clone(),
            filtered: survey.guests_filtered(),
            max_cpu: Arc::clone(&survey.max_cpu),
            everywhere: Arc::clone(&survey.guests),
        };
        let nodes = survey.nodes.clone();
        let crawl = tokio::spawn(async move {
            let plan = &plan;
            let sender = &sender;
            stream::iter(nodes)
                .for_each_concurrent(NODES_AT_ONCE, |node| {
                    let here = listed.remove(&node.name).unwrap_or_default();
                    async move { plan.node(&node, here, sender).await }
                })
                .await;
        });
        Units { receiver, crawl }
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
            client: self.client.clone(),
            filtered: None,
            max_cpu: Arc::clone(&survey.max_cpu),
            everywhere: Arc::default(),
        };
        for vmid in vmids {
            let Some(guest) = places.remove(vmid) else {
                if lost {
                    unit.listed.push(*vmid);
                } else {
                    unit.gone.push(*vmid);
                }
                continue;
            };
            let (node, kind) = (guest.node.clone(), guest.kind);
            unit.listed.push(*vmid);
            if !survey.nodes.iter().any(|known| known.name == node) {
                // No guest is loaded without its node; the next run will know this one.
                let reason = format!("guest {vmid} moved to {node}, which joined during the run");
                unit.notes.push(Note::new(Collector::Guests, None, Completeness::Partial, Some(reason), 0));
                continue;
            }
            let told = plan.ask(guest).await;
            if told.is_gone() {
                let reason = format!("guest {vmid} is listed on {node}, which does not know it");
                unit.notes.push(Note::new(
                    collector(kind),
                    Some(&node),
                    Completeness::Partial,
                    Some(reason),
                    0,
                ));
            } else {
                unit.enter(told);
            }
        }
        unit
    }
}

/// What the crawl of one node needs to know of the cluster.
struct Plan {
    client: PveClient,
    filtered: Option<String>,
    max_cpu: Arc<HashMap<i64, f64>>,
    everywhere: Arc<BTreeMap<i64, Guest>>,
}

/// What PVE told of one guest.
struct Told {
    guest: Guest,
    config: Result<Vec<Oddity>, ApiError>,
    /// `None`: not asked, because the configuration could not be read.
    snapshots: Option<Result<Vec<Oddity>, ApiError>>,
}

impl Told {
    /// The node that should have it does not know it.
    fn is_gone(&self) -> bool {
        let gone = |ended: &Result<Vec<Oddity>, ApiError>| ended.as_ref().is_err_and(ApiError::is_not_found);
        gone(&self.config) || self.snapshots.as_ref().is_some_and(gone)
    }
}

impl Plan {
    /// Crawls one node. `here`: the guests that the cluster's listing has on it.
    async fn node(&self, node: &Node, here: Vec<i64>, sender: &mpsc::Sender<Unit>) {
        let name = node.name.as_str();
        let mut first = Unit { listed: here.clone(), ..Unit::default() };
        let known = |vmid: i64| self.everywhere.get(&vmid).cloned();
        if node.status == NodeStatus::Offline {
            // PVE still says what it knows of its guests; their configurations stay as the graph has them.
            for collector in [Collector::Qemu, Collector::Lxc, Collector::Snapshots] {
                let reason = Some(OFFLINE.to_owned());
                first.notes.push(Note::new(collector, Some(name), Completeness::Failed, reason, 0));
            }
            first.guests = here.into_iter().filter_map(known).collect();
            let _ = sender.send(first).await;
            return;
        }
        let (qemu, lxc) = tokio::join!(self.qemu_listing(name), self.client.lxc_guests(name));
        let qemu = self.enter(Collector::Qemu, name, qemu, &mut first).map(|rows| {
            let guest = |row: &QemuRow| build::qemu_guest(name, row, known(i64::from(row.vmid.get())));
            rows.iter().map(guest).collect::<Vec<_>>()
        });
        let lxc = self.enter(Collector::Lxc, name, lxc, &mut first).map(|rows| {
            let guest = |row: &LxcRow| build::lxc_guest(name, row, known(i64::from(row.vmid.get())));
            rows.iter().map(guest).collect::<Vec<_>>()
        });
        let answered = |kind| if kind == GuestType::Qemu { qemu.is_some() } else { lxc.is_some() };
        let (status, reason) = match (&qemu, &lxc) {
            (Some(_), Some(_)) => match &self.filtered {
                Some(reason) => (Completeness::Filtered, Some(reason.clone())),
                None => (Completeness::Complete, None),
            },
            _ => (Completeness::Partial, Some("guests of the node could not be listed".to_owned())),
        };
        first.notes.push(Note::new(Collector::Snapshots, Some(name), status, reason, 0));
        let rows: HashSet<i64> =
            [&qemu, &lxc].into_iter().flatten().flatten().map(|guest| guest.vmid).collect();
        // The cluster's listing has it here and the node's has not: it may be moving. Its configuration tells. Where the node's
        // listing failed, the guests stay as they are.
        let mut todo: Vec<Guest> = here
            .into_iter()
            .filter(|vmid| !rows.contains(vmid))
            .filter_map(known)
            .filter(|guest| answered(guest.kind))
            .collect();
        first.listed.extend(rows);
        todo.extend([qemu, lxc].into_iter().flatten().flatten());
        todo.sort_by_key(|guest| guest.vmid);
        self.ask_all(first, todo, sender).await;
    }

    /// A node's machines with QEMU's own states, or without them where that takes too long.
    async fn qemu_listing(&self, node: &str) -> Result<Read<Vec<QemuRow>>, ApiError> {
        match tokio::time::timeout(FULL_LISTING, self.client.qemu_guests(node, true)).await {
            Ok(Ok(read)) => Ok(read),
            Ok(Err(error)) if error.is_node_unreachable() || error.is_unreachable() => Err(error),
            Ok(Err(_)) | Err(_) => self.client.qemu_guests(node, false).await,
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

    /// Asks for guests that were listed, and sends them on unit by unit, the first of them with what the listings told. While the
    /// loader is behind nothing new is asked, but what is under way is read to its end: an answer that nobody takes would run
    /// into its time-out.
    async fn ask_all(&self, first: Unit, todo: Vec<Guest>, sender: &mpsc::Sender<Unit>) {
        let mut todo = todo.into_iter();
        let mut asked = FuturesOrdered::new();
        let mut unit = Some(first);
        let mut held = 0;
        loop {
            while asked.len() < GUESTS_AT_ONCE && asked.len() + held < UNIT_GUESTS + GUESTS_AT_ONCE {
                let Some(guest) = todo.next() else { break };
                asked.push_back(self.ask(guest));
            }
            let is_last = asked.is_empty();
            if is_last && unit.is_none() {
                return;
            }
            tokio::select! {
                biased;
                permit = sender.reserve(), if is_last || held >= UNIT_GUESTS => {
                    let Ok(permit) = permit else { return };
                    permit.send(unit.take().unwrap_or_default());
                    held = 0;
                }
                Some(told) = asked.next() => {
                    held += 1;
                    unit.get_or_insert_default().enter(told);
                }
            }
        }
    }

    /// Reads a guest's configuration and snapshots.
    async fn ask(&self, mut guest: Guest) -> Told {
        let Self { client, max_cpu, .. } = self;
        let config = match guest.kind {
            GuestType::Qemu => client.qemu_config(&guest.node, guest.vmid).await.map(|read| {
                guest.config = Some(build::qemu_config(guest.vmid, &read.value));
                read.oddities
            }),
            GuestType::Lxc => client.lxc_config(&guest.node, guest.vmid).await.map(|read| {
                let max_cpu = max_cpu.get(&guest.vmid).copied();
                guest.config = Some(build::lxc_config(guest.vmid, &read.value, max_cpu));
                read.oddities
            }),
        };
        let mut snapshots = None;
        if config.is_ok() {
            let read = match guest.kind {
                GuestType::Qemu => client.qemu_snapshots(&guest.node, guest.vmid).await,
                GuestType::Lxc => client.lxc_snapshots(&guest.node, guest.vmid).await,
            };
            snapshots = Some(read.map(|read| {
                guest.snapshots = Some(build::snapshots(guest.vmid, &read.value));
                read.oddities
            }));
        }
        Told { guest, config, snapshots }
    }
}

impl Unit {
    fn enter(&mut self, told: Told) {
        if told.is_gone() {
            self.gone.push(told.guest.vmid);
            return;
        }
        let Told { guest, config, snapshots } = told;
        let vmid = guest.vmid;
        let mut partial = |collector, reason: String| {
            let reason = Some(format!("guest {vmid}: {reason}"));
            self.notes.push(Note::new(collector, Some(&guest.node), Completeness::Partial, reason, 0));
        };
        // A volume or a snapshot whose text is not understood is not gone: what is not named stays.
        let odd = |oddities: &[Oddity]| format!("{} values were not understood", oddities.len());
        match config {
            Ok(oddities) if oddities.is_empty() => self.understood.push(vmid),
            Ok(oddities) => {
                self.unread.push(vmid);
                partial(collector(guest.kind), odd(&oddities));
                self.odd.extend(oddities.iter().map(Oddity::to_string));
            }
            Err(error) => {
                self.unread.push(vmid);
                partial(collector(guest.kind), chain(&error));
            }
        }
        match snapshots {
            None => partial(Collector::Snapshots, "its configuration could not be read".to_owned()),
            Some(Ok(oddities)) => {
                if oddities.is_empty() {
                    self.snapshots_understood.push(vmid);
                } else {
                    partial(Collector::Snapshots, odd(&oddities));
                    self.odd.extend(oddities.iter().map(Oddity::to_string));
                }
                let count = guest.snapshots.as_ref().map_or(0, Vec::len);
                if count > 0 {
                    let complete = Completeness::Complete;
                    self.notes.push(Note::new(
                        Collector::Snapshots,
                        Some(&guest.node),
                        complete,
                        None,
                        count,
                    ));
                }
            }
            Some(Err(error)) => partial(Collector::Snapshots, chain(&error)),
        }
        self.guests.push(guest);
    }
}
