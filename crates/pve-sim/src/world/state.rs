//! Everything that the simulated cluster is, as plain data.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Map, Value};

use super::access::Access;
pub use super::guest::{Guest, GuestKind, Power, Snapshot};
pub use super::guest_spec::GuestSpec;
pub use super::parts::{Firewall, Task, Volume, Work};

/// The second since 1970 at which generated worlds stand (21 November 2026): creation times and next runs refer to it.
pub const EPOCH: u64 = 1_795_247_800;

/// Room on a storage or file system, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// All of it.
    pub total: u64,
    /// What is taken.
    pub used: u64,
}

/// A node.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Its name.
    pub name: Arc<str>,
    /// Its number in the cluster, from 1; 0 on a standalone node.
    pub id: u32,
    /// Its address.
    pub ip: String,
    /// Whether the cluster sees it.
    pub online: bool,
    /// Whether so long an offline node's statistics have expired that only base rows are left.
    pub forgotten: bool,
    /// Logical CPUs.
    pub cpus: u32,
    /// Share of the CPUs in use, 0 to 1.
    pub cpu_load: f64,
    /// Memory.
    pub memory: Usage,
    /// The root file system.
    pub rootfs: Usage,
    /// Seconds since it started.
    pub uptime: u64,
    /// What its administrator wrote.
    pub description: Option<String>,
    /// The SHA-256 fingerprint of its certificate; a server sets it to the one that it really presents.
    pub fingerprint: String,
    /// The certificate that it presents, once a server runs.
    pub certificate: Option<String>,
}

/// A storage definition with its room.
#[derive(Clone, Debug, PartialEq)]
pub struct Storage {
    /// Its name.
    pub id: String,
    /// `dir`, `lvmthin`, `nfs`, `rbd`, `zfspool`, …
    pub kind: String,
    /// The kinds of content, comma separated.
    pub content: String,
    /// Whether all nodes see the same content.
    pub shared: bool,
    /// The nodes it is limited to.
    pub nodes: Option<BTreeSet<String>>,
    /// Whether it is switched off.
    pub disabled: bool,
    /// The keys of its type: `path`, `server`, `export`, `vgname`, …
    pub properties: Map<String, Value>,
    /// Room where no node has its own.
    pub usage: Usage,
    /// Room per node, of storages that are not shared.
    pub usage_on: BTreeMap<String, Usage>,
}

impl Storage {
    /// Whether a node may use it: `nodes` names that node or is absent. A disabled storage is another matter.
    pub fn is_for_node(&self, node: &str) -> bool {
        self.nodes.as_ref().is_none_or(|nodes| nodes.contains(node))
    }

    /// Whether a node uses it.
    pub fn is_active_on(&self, node: &str) -> bool {
        !self.disabled && self.is_for_node(node)
    }

    /// The room that a node sees.
    pub fn usage_for(&self, node: &str) -> Usage {
        self.usage_on.get(node).copied().unwrap_or(self.usage)
    }

    /// The volume id of a guest's disk in the spelling of the storage's type: files of a `dir` or `nfs` lie in the
    /// guest's directory, other types have bare volumes.
    pub fn volume_id(&self, kind: GuestKind, vmid: u32, disk: usize) -> String {
        let id = &self.id;
        match (self.kind.as_str(), kind) {
            ("dir" | "nfs" | "cifs", GuestKind::Qemu) => format!("{id}:{vmid}/vm-{vmid}-disk-{disk}.qcow2"),
            ("dir" | "nfs" | "cifs", GuestKind::Lxc) => format!("{id}:{vmid}/vm-{vmid}-disk-{disk}.raw"),
            ("zfspool", GuestKind::Lxc) => format!("{id}:subvol-{vmid}-disk-{disk}"),
            _ => format!("{id}:vm-{vmid}-disk-{disk}"),
        }
    }
}

/// A pool; its guests say themselves that they are in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pool {
    /// What its administrator wrote.
    pub comment: Option<String>,
    /// The storages in it.
    pub storages: BTreeSet<String>,
}

/// The guests that a backup job takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// All but these.
    All {
        /// The vmids left out.
        exclude: Vec<u32>,
    },
    /// Those in a pool.
    Pool(String),
    /// These.
    Guests(Vec<u32>),
}

/// A backup job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupJob {
    /// Its name.
    pub id: String,
    /// Whether it runs.
    pub enabled: bool,
    /// A calendar event.
    pub schedule: String,
    /// Where the backups go.
    pub storage: String,
    /// Which guests it takes.
    pub selection: Selection,
    /// The only node whose guests it takes.
    pub node: Option<String>,
    /// Further keys: `mode`, `compress`, `prune-backups`, …
    pub properties: Map<String, Value>,
}

/// All of the cluster's state.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// The cluster's name; `None` is a standalone node.
    pub cluster_name: Option<String>,
    /// The seed that the world was made from.
    pub seed: u64,
    /// Guests ever created; UUIDs and creation times come from it, so that a reused vmid is another guest.
    pub created: u64,
    /// Whether the cluster has quorum.
    pub quorate: bool,
    /// Nodes by name.
    pub nodes: BTreeMap<String, Node>,
    /// Guests by vmid.
    pub guests: BTreeMap<u32, Guest>,
    /// Storages by name.
    pub storages: BTreeMap<String, Storage>,
    /// Pools by name.
    pub pools: BTreeMap<String, Pool>,
    /// Backup jobs by name.
    pub jobs: BTreeMap<String, BackupJob>,
    /// Users, tokens, roles, access control.
    pub access: Access,
    /// The cluster's certification authority, once a server runs.
    pub ca_certificate: Option<String>,
    /// Tasks, the oldest first.
    pub tasks: Vec<Task>,
    /// Process numbers given to tasks so far.
    pub processes: u32,
    /// Datacenter options as answers show them.
    pub options: Map<String, Value>,
    /// Firewalls by place: `cluster`, `node/NAME`, `guest/VMID`, `group/NAME`.
    pub firewalls: BTreeMap<String, Firewall>,
    /// What HA knows of its resources beside their state, by `vm:100` or `ct:100`.
    pub ha_settings: BTreeMap<String, Map<String, Value>>,
    /// What HA does at the moment, by resource; a resource that is absent is in the state asked for.
    pub ha_doing: BTreeMap<String, String>,
    /// The exit status of the next task that would succeed: it does its work all the same.
    pub next_exit: Option<String>,
    /// Milliseconds that HA takes longer than it should.
    pub ha_lag: u64,
    /// Guests that do not shut down when they are asked to.
    pub deaf: BTreeSet<u32>,
    /// Whether HA's manager has begun its work: then its master and node agents show.
    pub ha_active: bool,
    /// HA groups by name.
    pub ha_groups: BTreeMap<String, Map<String, Value>>,
    /// Replication jobs by name, `100-0`.
    pub replication: BTreeMap<String, Map<String, Value>>,
    /// Nodes' own settings: `description`, `wakeonlan`, …
    pub node_settings: BTreeMap<String, Map<String, Value>>,
    /// Interfaces of nodes whose network is not the generated one.
    pub interfaces: BTreeMap<String, BTreeMap<String, Map<String, Value>>>,
    /// Edits of a node's network that wait for a reload: one shared file per node.
    pub staged_interfaces: BTreeMap<String, BTreeMap<String, Map<String, Value>>>,
    /// Volumes that no guest's configuration mentions: images, ISO files, templates, backups.
    pub volumes: BTreeMap<String, Volume>,
    /// Nodes that are listed online and yet cannot be reached, with the reason that a request to them gives.
    pub unreachable: BTreeMap<String, String>,
    /// Lines of the cluster's log.
    pub log: Vec<Map<String, Value>>,
    /// Collections that the simulator only keeps, by the path of their list: entries by name.
    pub collections: BTreeMap<String, Map<String, Value>>,
    /// How many of the points of a time series lie before the first measurement.
    pub unmeasured_points: u64,
    /// Running VMs whose monitor does not answer in time: their full status lacks what it would say.
    pub silent_monitors: BTreeSet<u32>,
    /// Drives of a VM that its guest has read or written since it started; of a VM that is not here, the first one.
    pub touched_drives: BTreeMap<u32, BTreeSet<String>>,
    /// What was measured at each point of a time series, where that is known: the fields of its rows, the oldest first.
    pub measured_fields: Option<Vec<BTreeSet<String>>>,
    /// Whether nodes lack the programs for ZFS, which PVE installs but does not need.
    pub without_zfs: bool,
    /// Running tasks that their nodes have told the others of: the cluster's list says of them that they are not saved yet.
    pub announced_tasks: BTreeSet<String>,
    /// Nodes that start from a BIOS rather than from EFI.
    pub legacy_boot: BTreeSet<String>,
    /// Whether a test has put in what no PVE would send: then answers are not held to PVE's schema.
    pub odd: bool,
}

impl State {
    /// A world with nothing in it but `root@pam` and the built-in roles.
    pub fn empty() -> Self {
        Self {
            cluster_name: None,
            seed: 0,
            created: 0,
            quorate: true,
            nodes: BTreeMap::new(),
            guests: BTreeMap::new(),
            storages: BTreeMap::new(),
            pools: BTreeMap::new(),
            jobs: BTreeMap::new(),
            access: Access::fresh(),
            ca_certificate: None,
            tasks: Vec::new(),
            processes: 0,
            options: Map::from_iter(
                [("console", "html5"), ("keyboard", "en-us"), ("mac_prefix", "BC:24:11")]
                    .map(|(key, value)| (key.to_owned(), Value::from(value))),
            ),
            firewalls: BTreeMap::new(),
            ha_settings: BTreeMap::new(),
            ha_doing: BTreeMap::new(),
            next_exit: None,
            ha_lag: 0,
            deaf: BTreeSet::new(),
            ha_active: false,
            ha_groups: BTreeMap::new(),
            replication: BTreeMap::new(),
            node_settings: BTreeMap::new(),
            interfaces: BTreeMap::new(),
            staged_interfaces: BTreeMap::new(),
            volumes: BTreeMap::new(),
            unreachable: BTreeMap::new(),
            log: Vec::new(),
            collections: BTreeMap::new(),
            unmeasured_points: 60,
            silent_monitors: BTreeSet::new(),
            touched_drives: BTreeMap::new(),
            measured_fields: None,
            without_zfs: false,
            announced_tasks: BTreeSet::new(),
            legacy_boot: BTreeSet::new(),
            odd: false,
        }
    }

    /// The guests on a node, sorted by vmid.
    pub fn guests_on<'a>(&'a self, node: &'a str) -> impl Iterator<Item = &'a Guest> {
        self.guests.values().filter(move |guest| guest.node.as_ref() == node)
    }

    /// The lowest free vmid from 100 on.
    pub fn next_vmid(&self) -> u32 {
        let mut next = 100;
        for vmid in self.guests.range(next..).map(|(vmid, _)| *vmid) {
            if vmid != next {
                break;
            }
            next += 1;
        }
        next
    }

    /// The guests that a backup job takes, sorted by vmid.
    pub fn guests_of_job<'a>(&'a self, job: &'a BackupJob) -> impl Iterator<Item = &'a Guest> {
        self.guests.values().filter(move |guest| {
            let selected = match &job.selection {
                Selection::All { exclude } => !exclude.contains(&guest.vmid),
                Selection::Pool(pool) => guest.pool.as_deref() == Some(pool),
                Selection::Guests(vmids) => vmids.contains(&guest.vmid),
            };
            selected && job.node.as_deref().is_none_or(|node| node == guest.node.as_ref())
        })
    }
}
