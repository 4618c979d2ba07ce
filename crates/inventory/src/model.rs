//! The nouns of an estate, as the graph keeps them: units, enums and defaults are settled.
//!
//! Two kinds of absence meet here and must not be mixed up. What the crawl *did not see* (a token without the right, an
//! offline node) must leave what the graph knows alone; what it saw *to be absent* must clear it. The rule is by field, and
//! is written where the field becomes a column (`pvegraph-graph`, `labels`). What was there and was not understood counts as
//! not seen: see [`Observed`].

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A cluster's identity in the graph: its configured name, its own, or `standalone-<node>`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClusterId(String);

/// A cluster id that can't be one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} can't name a cluster: use 1 to 63 letters, digits, `-`, `_` and `.`")]
pub struct InvalidClusterId(String);

impl FromStr for ClusterId {
    type Err = InvalidClusterId;

    /// PVE allows letters, digits and `-` in a cluster's name, and a node name likewise; a configured name may be freer, but
    /// not so free that joined keys (`cluster/vmid/disk`) become ambiguous.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fits = (1..=63).contains(&text.len())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
        if fits { Ok(Self(text.to_owned())) } else { Err(InvalidClusterId(text.to_owned())) }
    }
}

impl ClusterId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A thing that a run saw.
pub trait Observed {
    /// Whether PVE's answer had something for this property that was not understood, so that the field's value stands for
    /// nothing and the graph keeps what it has.
    fn is_unseen(&self, _property: &str) -> bool {
        false
    }
}

/// Names of properties; see [`Observed`].
pub type Unseen = Vec<&'static str>;

impl Observed for Cluster {}

impl Observed for Node {}

impl Observed for Guest {
    fn is_unseen(&self, property: &str) -> bool {
        self.config.as_ref().is_some_and(|config| config.unseen.contains(&property))
    }
}

macro_rules! observed {
    ($($name:ident),*) => {$(
        impl Observed for $name {
            fn is_unseen(&self, property: &str) -> bool {
                self.unseen.contains(&property)
            }
        }
    )*};
}

observed!(Disk, Nic, Snapshot, Storage, BackupJob);

/// A cluster, or a standalone node taken as one.
#[derive(Debug, Clone, PartialEq)]
pub struct Cluster {
    /// Its identity.
    pub id: ClusterId,
    /// Its own name; the id where it has none.
    pub name: String,
    /// The release of the endpoint that answered (`/version`), such as `8.4.21`.
    pub version: Option<String>,
    /// It has quorum. `None`: `/cluster/status` was not readable.
    pub quorate: Option<bool>,
    /// Nodes that are online. `None`: no listing named a node.
    pub nodes_online: Option<i64>,
    /// SHA-256 of its own certificate authority: tells two clusters of one name apart.
    pub ca_fingerprint: Option<String>,
}

/// What PVE says of a node or guest that runs or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeStatus {
    /// Reached by the cluster's status daemon.
    Online,
    /// Not reached.
    Offline,
    /// PVE does not say.
    Unknown,
}

/// A node.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Its name, unique in its cluster.
    pub name: String,
    /// Its address (`/cluster/status`).
    pub ip: Option<String>,
    /// Whether it is there.
    pub status: NodeStatus,
    /// Seconds since it started.
    pub uptime: Option<i64>,
    /// Logical processors.
    pub cpu_count: Option<i64>,
    /// Share of them in use, 0 to 1.
    pub cpu_usage: Option<f64>,
    /// Memory in bytes.
    pub memory_total: Option<i64>,
    /// Memory in use, in bytes.
    pub memory_used: Option<i64>,
    /// Size of its root file system, in bytes.
    pub disk_total: Option<i64>,
    /// Used of that, in bytes.
    pub disk_used: Option<i64>,
}

/// The two kinds of guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GuestType {
    /// A virtual machine.
    Qemu,
    /// A container.
    Lxc,
}

impl GuestType {
    /// PVE's own word, as it stands in paths.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Qemu => "qemu",
            Self::Lxc => "lxc",
        }
    }
}

/// What a guest is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum GuestStatus {
    /// Running.
    Running,
    /// Not running; hibernated guests are stopped with a lock.
    Stopped,
    /// Its processors are halted (`qmpstatus`).
    Paused,
    /// PVE does not say: its node is offline.
    Unknown,
}

/// A guest, as far as one run saw it.
#[derive(Debug, Clone, PartialEq)]
pub struct Guest {
    /// PVE's number, unique in the cluster.
    pub vmid: i64,
    /// Machine or container.
    pub kind: GuestType,
    /// The node that it is on.
    pub node: String,
    /// What it is doing.
    pub status: GuestStatus,
    /// Name, or hostname of a container. `None`: not seen.
    pub name: Option<String>,
    /// It is a template. `None`: not seen.
    pub template: Option<bool>,
    /// Tags in PVE's order. `None`: not seen; an untagged guest has an empty list.
    pub tags: Option<Vec<String>>,
    /// Seconds since it started. `None`: not seen.
    pub uptime: Option<i64>,
    /// The pool that it is in, if any. `None`: not seen.
    pub pool: Option<Option<String>>,
    /// What its configuration says. `None`: it could not be read, and what the graph knows stays.
    pub config: Option<GuestConfig>,
    /// Its snapshots. `None`: they could not be read, and what the graph knows stays.
    pub snapshots: Option<Vec<Snapshot>>,
}

/// What a guest's configuration says, with PVE's defaults filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct GuestConfig {
    /// Cores (per socket, for machines).
    pub cpu_cores: Option<i64>,
    /// Sockets; `None` for containers.
    pub cpu_sockets: Option<i64>,
    /// Memory in bytes.
    pub memory: Option<i64>,
    /// Starts with its node.
    pub onboot: bool,
    /// PVE's word for the operating system.
    pub os_type: Option<String>,
    /// PVE's lock on it (`backup`, `migrate`, …).
    pub lock: Option<String>,
    /// A machine's SMBIOS UUID: a part of what makes it the same guest.
    pub smbios_uuid: Option<String>,
    /// When it was created (epoch seconds, `meta`): likewise.
    pub created_at: Option<i64>,
    /// Its volumes.
    pub disks: Vec<Disk>,
    /// Its network interfaces.
    pub nics: Vec<Nic>,
    /// Properties that were not understood; see [`Observed`].
    pub unseen: Unseen,
}

impl GuestConfig {
    /// The sum over attached volumes whose size is known, in bytes.
    pub fn disk_size(&self) -> i64 {
        self.disks
            .iter()
            .filter(|disk| disk.attached)
            .filter_map(|disk| disk.size)
            .fold(0, i64::saturating_add)
    }
}

/// What a volume is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DiskKind {
    /// A machine's disk.
    Disk,
    /// A machine's EFI variables.
    Efi,
    /// A machine's TPM state.
    Tpm,
    /// A container's root file system.
    Rootfs,
    /// A container's further mount.
    Mount,
    /// A volume that the guest owns and does not use.
    Unused,
}

/// A volume of a guest.
#[derive(Debug, Clone, PartialEq)]
pub struct Disk {
    /// The guest that owns it.
    pub vmid: i64,
    /// PVE's key: `scsi0`, `rootfs`, `mp0`, `unused0`, …
    pub disk_id: String,
    /// What it is for.
    pub kind: DiskKind,
    /// The guest uses it.
    pub attached: bool,
    /// The storage; `None` for a device or directory of the node.
    pub storage: Option<String>,
    /// PVE's volume id, or the path of a device or directory.
    pub volume: String,
    /// Size in bytes; `None` where the configuration does not say.
    pub size: Option<i64>,
    /// A backup job that covers the guest takes it.
    pub backup: bool,
    /// Cache mode; `None` for containers.
    pub cache: Option<String>,
    /// Properties that were not understood; see [`Observed`].
    pub unseen: Unseen,
}

/// A network interface of a guest.
#[derive(Debug, Clone, PartialEq)]
pub struct Nic {
    /// The guest that has it.
    pub vmid: i64,
    /// PVE's key: `net0`.
    pub net_id: String,
    /// The bridge that it is on.
    pub bridge: Option<String>,
    /// Its hardware address, in upper case.
    pub mac_address: Option<String>,
    /// The adapter's model; `veth` for containers.
    pub model: Option<String>,
    /// PVE's firewall filters it (where the guest's and the cluster's are on).
    pub firewall: bool,
    /// Its VLAN.
    pub vlan_tag: Option<i64>,
    /// Properties that were not understood; see [`Observed`].
    pub unseen: Unseen,
}

/// A snapshot of a guest. Its description is left out: what people write there may hold secrets.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// The guest that it is of.
    pub vmid: i64,
    /// Its name, unique among the guest's.
    pub name: String,
    /// The snapshot that it came after; `None` for the first of a chain.
    pub parent: Option<String>,
    /// When it was made, in epoch seconds; `None` where PVE does not say.
    pub created_at: Option<i64>,
    /// It holds the machine's memory. A container's never does.
    pub with_memory: bool,
    /// The guest as it is now came from it: the last one taken or rolled back to.
    pub current: bool,
    /// Properties that were not understood; see [`Observed`].
    pub unseen: Unseen,
}

/// A storage, as defined for the cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct Storage {
    /// Its name, unique in its cluster.
    pub name: String,
    /// PVE's type: `dir`, `nfs`, `lvmthin`, `rbd`, …
    pub kind: String,
    /// What it may hold, sorted.
    pub content_types: Vec<String>,
    /// All its nodes see the same.
    pub shared: bool,
    /// Its definition is not disabled.
    pub enabled: bool,
    /// The nodes that its definition allows.
    pub nodes: StorageNodes,
    /// What nodes said of it.
    pub on_nodes: Vec<StorageOnNode>,
    /// Properties that were not understood; see [`Observed`]. `nodes` among them: where it is allowed is not known.
    pub unseen: Unseen,
}

/// The nodes that a storage's definition allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StorageNodes {
    /// All of the cluster.
    All,
    /// These.
    Only(Vec<String>),
}

impl StorageNodes {
    /// Whether the definition allows this node.
    pub fn allows(&self, node: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(names) => names.iter().any(|name| name == node),
        }
    }
}

/// A storage on one node.
#[derive(Debug, Clone, PartialEq)]
pub struct StorageOnNode {
    /// The node.
    pub node: String,
    /// The node is offline, and can't say.
    pub offline: bool,
    /// It is mounted and answers there. `None`: the node did not say.
    pub active: Option<bool>,
    /// Capacity there.
    pub capacity: Option<Capacity>,
}

/// How full a storage is, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// All of it.
    pub total: i64,
    /// Used.
    pub used: i64,
    /// Left for use.
    pub available: i64,
}

impl Storage {
    /// The storage's capacity, each byte counted once: a shared storage's as the first node by name has it where it is active, a
    /// local one's as the sum over the nodes where it is active. `None` where it is active nowhere, or no node could say.
    pub fn capacity(&self) -> Option<Capacity> {
        let mut active: Vec<_> = self.on_nodes.iter().filter(|on| on.active == Some(true)).collect();
        active.sort_by(|a, b| a.node.cmp(&b.node));
        let mut known = active.iter().filter_map(|on| on.capacity);
        if self.shared {
            return known.next();
        }
        known.reduce(|sum, one| Capacity {
            total: sum.total.saturating_add(one.total),
            used: sum.used.saturating_add(one.used),
            available: sum.available.saturating_add(one.available),
        })
    }
}

/// A backup job.
#[derive(Debug, Clone, PartialEq)]
pub struct BackupJob {
    /// PVE's id.
    pub job_id: String,
    /// It runs.
    pub enabled: bool,
    /// Its calendar event.
    pub schedule: Option<String>,
    /// Where it writes.
    pub storage: Option<String>,
    /// `snapshot`, `suspend` or `stop`.
    pub mode: Option<String>,
    /// It covers every guest that is not excluded.
    pub all: bool,
    /// The guests that it names.
    pub vmids: Vec<i64>,
    /// The guests that it leaves out.
    pub exclude: Vec<i64>,
    /// The pool that it covers.
    pub pool: Option<String>,
    /// Only guests on this node.
    pub node: Option<String>,
    /// Its comment.
    pub comment: Option<String>,
    /// What it takes; `None` where that could not be read.
    pub volumes: Option<Vec<BackupVolume>>,
    /// The guests that it covers, those without any volume too.
    pub guests: Option<Vec<i64>>,
    /// Properties that were not understood; see [`Observed`].
    pub unseen: Unseen,
}

/// A volume of a covered guest, taken or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupVolume {
    /// The guest.
    pub vmid: i64,
    /// The guest's key for it.
    pub disk_id: String,
    /// The job takes it. The `reason` may say otherwise and is not to be trusted.
    pub included: bool,
    /// PVE's words.
    pub reason: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on(node: &str, active: bool, total: i64) -> StorageOnNode {
        let capacity = Some(Capacity { total, used: total / 2, available: total - total / 2 });
        StorageOnNode { node: node.into(), offline: false, active: Some(active), capacity }
    }

    fn storage(shared: bool, on_nodes: Vec<StorageOnNode>) -> Storage {
        Storage {
            name: "s".into(),
            kind: "dir".into(),
            content_types: vec![],
            shared,
            enabled: true,
            nodes: StorageNodes::All,
            on_nodes,
            unseen: vec![],
        }
    }

    #[test]
    fn a_local_storage_is_the_sum_over_its_active_nodes() {
        let capacity =
            storage(false, vec![on("b", true, 10), on("a", true, 30), on("c", false, 50)]).capacity();
        assert_eq!(capacity, Some(Capacity { total: 40, used: 20, available: 20 }));
    }

    #[test]
    fn a_shared_storage_is_counted_once_as_its_first_active_node_has_it() {
        let capacity =
            storage(true, vec![on("b", true, 10), on("a", false, 30), on("c", true, 50)]).capacity();
        assert_eq!(capacity, Some(Capacity { total: 10, used: 5, available: 5 }));
    }

    #[test]
    fn a_storage_that_is_active_nowhere_has_no_capacity() {
        assert_eq!(storage(false, vec![on("a", false, 30)]).capacity(), None);
    }

    #[test]
    fn a_cluster_id_is_a_plain_name() {
        assert!("rig".parse::<ClusterId>().is_ok());
        assert!("standalone-pve.home".parse::<ClusterId>().is_ok());
        for bad in ["", "a/b", "a b", &"x".repeat(64), "ü"] {
            assert!(bad.parse::<ClusterId>().is_err(), "{bad:?}");
        }
    }
}
