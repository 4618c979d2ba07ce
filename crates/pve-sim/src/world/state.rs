//! Everything that the simulated cluster is, as plain data.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Map, Value};

use super::access::Access;
use super::config::{self, Config, ConfigValue, Drive};
pub use super::parts::{Firewall, Task, Volume, Work};

/// The second since 1970 at which generated worlds stand (21 November 2026): creation times and next runs refer to it.
pub const EPOCH: u64 = 1_795_247_800;

/// What kind of guest it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum GuestKind {
    /// A virtual machine.
    Qemu,
    /// A container.
    Lxc,
}

impl GuestKind {
    /// The kind in paths and answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Qemu => "qemu",
            Self::Lxc => "lxc",
        }
    }

    /// The directory of the node's configuration files; error texts show it.
    pub fn config_directory(self) -> &'static str {
        match self {
            Self::Qemu => "qemu-server",
            Self::Lxc => "lxc",
        }
    }
}

/// Whether a guest runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Power {
    /// It runs.
    Running,
    /// It does not.
    Stopped,
    /// A VM that is paused: `status` is `running` and only `qmpstatus` says `paused`.
    Paused,
}

/// A snapshot of a guest.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// Its name.
    pub name: String,
    /// What its maker wrote.
    pub description: String,
    /// Seconds since 1970.
    pub time: u64,
    /// Whether it holds the memory.
    pub with_memory: bool,
    /// The snapshot it was taken after; `None` is the one before it in the list.
    pub parent: Option<String>,
    /// The configuration at that time; `None` is the present one.
    pub config: Option<Config>,
}

/// A guest.
#[derive(Clone, Debug, PartialEq)]
pub struct Guest {
    /// Its number.
    pub vmid: u32,
    /// What it is.
    pub kind: GuestKind,
    /// The node it is on.
    pub node: Arc<str>,
    /// Whether it runs.
    pub power: Power,
    /// Its configuration file, without snapshots.
    pub config: Config,
    /// The pool it is in.
    pub pool: Option<Arc<str>>,
    /// The state that HA keeps it in (`started`, `stopped`, `ignored`, …), if HA manages it.
    pub ha: Option<Arc<str>>,
    /// Its snapshots, oldest first; each is the parent of the next.
    pub snapshots: Vec<Snapshot>,
    /// The share of its CPUs in use (0 to 1); `None` derives one from the vmid.
    pub cpu_load: Option<f64>,
    /// What changes at the next start: a value, or `None` for a key that goes.
    pub pending: Vec<(String, Option<ConfigValue>)>,
}

impl Guest {
    /// The digest of the whole file: pending changes and snapshots are part of it.
    pub fn digest(&self) -> String {
        if self.pending.is_empty() && self.snapshots.is_empty() {
            return self.config.digest();
        }
        let mut whole = self.config.clone();
        for (key, value) in &self.pending {
            whole.set(format!("[pending]{key}"), value.clone().unwrap_or_else(|| "delete".into()));
        }
        for snapshot in &self.snapshots {
            let Snapshot { name, description, time, with_memory, parent, config } = snapshot;
            let taken = config.as_ref().map(Config::digest).unwrap_or_default();
            let text = format!("{description}{time}{with_memory}{parent:?}{taken}");
            whole.set(format!("[{name}]"), text);
        }
        whole.digest()
    }

    /// The configuration with the pending changes as if they were applied: what PVE shows unless asked otherwise.
    pub fn config_to_be(&self) -> Config {
        let mut config = self.config.clone();
        for (key, value) in &self.pending {
            match value {
                Some(value) => config.set(key.clone(), value.clone()),
                None => {
                    config.remove(key);
                }
            }
        }
        config
    }

    /// The parent of each snapshot: the one it says, or the one before it.
    pub fn parents(&self) -> Vec<Option<String>> {
        let before = |at: usize| at.checked_sub(1).and_then(|at| self.snapshots.get(at));
        let parent = |(at, snapshot): (usize, &Snapshot)| {
            let told = snapshot.config.is_some() || snapshot.parent.is_some();
            if told { snapshot.parent.clone() } else { before(at).map(|before| before.name.clone()) }
        };
        self.snapshots.iter().enumerate().map(parent).collect()
    }

    /// The lock that an operation holds.
    pub fn lock(&self) -> Option<Cow<'_, str>> {
        self.config.text("lock")
    }

    /// `name` of a VM, `hostname` of a container; PVE makes one up where it is unset.
    pub fn name(&self) -> Cow<'_, str> {
        let (key, made_up) = match self.kind {
            GuestKind::Qemu => ("name", "VM"),
            GuestKind::Lxc => ("hostname", "CT"),
        };
        self.config.text(key).unwrap_or_else(|| Cow::Owned(format!("{made_up} {}", self.vmid)))
    }

    /// Whether it is a template.
    pub fn is_template(&self) -> bool {
        self.config.int("template") == Some(1)
    }

    /// Whether PVE's `status` says `running`; a paused VM does.
    pub fn is_running(&self) -> bool {
        self.power != Power::Stopped
    }

    /// PVE's `status`.
    pub fn status(&self) -> &'static str {
        if self.is_running() { "running" } else { "stopped" }
    }

    /// The CPUs it has: cores × sockets of a VM (1 unless set, or `vcpus`), `cores` of a container or all of the node's.
    pub fn cpus(&self, node_cpus: u32) -> i64 {
        match self.kind {
            GuestKind::Qemu => self.config.int("vcpus").unwrap_or_else(|| {
                let cores = self.config.int("cores").unwrap_or(1);
                cores.saturating_mul(self.config.int("sockets").unwrap_or(1))
            }),
            GuestKind::Lxc => self.config.int("cores").unwrap_or(node_cpus.into()),
        }
    }

    /// The memory it may use, in bytes (512 MiB unless set).
    pub fn memory(&self) -> u64 {
        u64::try_from(self.config.int("memory").unwrap_or(512)).unwrap_or_default() << 20
    }

    /// Every volume, drive and mount, sorted by key; `unusedN` too.
    pub fn drives(&self) -> Vec<Drive<'_>> {
        let is_drive = |key: &str| match self.kind {
            GuestKind::Qemu => config::is_qemu_disk_key(key) || config::is_numbered(key, "unused"),
            GuestKind::Lxc => config::is_lxc_disk_key(key) || config::is_numbered(key, "unused"),
        };
        self.config
            .iter()
            .filter(|(key, _)| is_drive(key))
            .map(|(key, value)| config::parse_drive(key, &value.to_text()))
            .collect()
    }

    /// The size that PVE shows as the guest's disk: the first boot disk of a VM, the root file system of a container.
    pub fn boot_disk_size(&self) -> u64 {
        let size_of = |key: &str| {
            let value = self.config.text(key)?;
            let drive = config::parse_drive(key, &value);
            if drive.is_cdrom() { None } else { drive.size() }
        };
        match self.kind {
            GuestKind::Lxc => size_of("rootfs").unwrap_or_default(),
            GuestKind::Qemu => {
                let boot = self.config.text("boot").unwrap_or_default();
                let order = boot.strip_prefix("order=").unwrap_or_default();
                order
                    .split(';')
                    .filter(|key| config::is_qemu_disk_key(key))
                    .find_map(size_of)
                    .unwrap_or_default()
            }
        }
    }
}

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

/// A guest to be added: what is not given gets PVE's defaults.
#[derive(Clone, Debug)]
pub struct GuestSpec {
    pub(super) vmid: u32,
    pub(super) kind: GuestKind,
    pub(super) node: Option<String>,
    pub(super) power: Power,
    pub(super) pool: Option<String>,
    pub(super) ha: Option<String>,
    pub(super) cpu_load: Option<f64>,
    pub(super) disks: Vec<(String, String, u64, String)>,
    pub(super) config: Vec<(String, ConfigValue)>,
}

impl GuestSpec {
    fn new(kind: GuestKind, vmid: u32, name: &str) -> Self {
        let key = if kind == GuestKind::Qemu { "name" } else { "hostname" };
        Self {
            vmid,
            kind,
            node: None,
            power: Power::Stopped,
            pool: None,
            ha: None,
            cpu_load: None,
            disks: Vec::new(),
            config: vec![(key.to_owned(), name.into())],
        }
    }

    /// A virtual machine.
    pub fn qemu(vmid: u32, name: &str) -> Self {
        Self::new(GuestKind::Qemu, vmid, name)
    }

    /// A container.
    pub fn lxc(vmid: u32, name: &str) -> Self {
        Self::new(GuestKind::Lxc, vmid, name)
    }

    /// Puts it on a node; else it is on the first.
    pub fn node(mut self, node: &str) -> Self {
        self.node = Some(node.to_owned());
        self
    }

    /// Sets its power state; else it is stopped.
    pub fn power(mut self, power: Power) -> Self {
        self.power = power;
        self
    }

    /// Puts it in a pool, which must exist.
    pub fn pool(mut self, pool: &str) -> Self {
        self.pool = Some(pool.to_owned());
        self
    }

    /// Lets HA manage it.
    pub fn ha(mut self, state: &str) -> Self {
        self.ha = Some(state.to_owned());
        self
    }

    /// Sets the share of its CPUs that it uses, 0 to 1.
    pub fn cpu_load(mut self, load: f64) -> Self {
        self.cpu_load = Some(load);
        self
    }

    /// Adds a disk of `gib` GiB under `key` (`scsi0`, `rootfs`, `mp0`, …) with further options such as
    /// `backup=0,cache=writeback`; a mount point needs its `mp=` there.
    pub fn disk(mut self, key: &str, storage: &str, gib: u64, options: &str) -> Self {
        self.disks.push((key.to_owned(), storage.to_owned(), gib << 30, options.to_owned()));
        self
    }

    /// Sets a configuration key.
    pub fn config(mut self, key: &str, value: impl Into<ConfigValue>) -> Self {
        self.config.push((key.to_owned(), value.into()));
        self
    }
}
