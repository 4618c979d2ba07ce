//! The label tables: one declaration per label makes its upsert, its sweep, its constraint, its indexes and its part of
//! `docs/schema.md`. A column's getter is the only place where a field of the model becomes a property.

use pvegraph_inventory as inventory;
use pvegraph_inventory::{ClusterId, DiskKind, GuestConfig, GuestStatus, GuestType, NodeStatus, Observed};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::changes::{self, Change};

/// The type of a property.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PropertyType {
    /// Text.
    Text,
    /// A 64-bit integer.
    Integer,
    /// A 64-bit float.
    Float,
    /// True or false.
    Boolean,
    /// A list of texts; never null.
    TextList,
    /// A list of integers; never null.
    IntegerList,
}

/// What one run has to say of one property.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// Nothing: the graph keeps what it has.
    Unseen,
    /// This; null clears it.
    Is(Value),
}

/// A property of a label.
pub struct Column<T> {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub kind: PropertyType,
    /// It changes by itself from run to run (load, uptime, use): not counted as an update.
    pub metric: bool,
    /// What it means, with its unit.
    pub doc: &'static str,
    /// Its value.
    pub get: fn(&T) -> Cell,
}

/// A label: what identifies a node of it, and its properties.
pub struct Label<T: 'static> {
    /// The label itself.
    pub name: &'static str,
    /// What a node of it stands for.
    pub doc: &'static str,
    /// The properties that MERGE and the uniqueness constraint use, after `cluster_id`, which is in every key.
    pub key: &'static [&'static str],
    /// The properties, those of the key among them; `cluster_id` and the stamps, which every label has, are not repeated.
    pub columns: &'static [Column<T>],
    /// Properties with an index of their own, besides `cluster_id` and `lastupdated`: a composite index does not serve one of
    /// its properties alone.
    pub indexed: &'static [&'static str],
}

/// One node to upsert.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeRow {
    /// The values of the label's key, in its order, without the cluster.
    pub key: Vec<Value>,
    /// The properties to set; absent ones stay as they are.
    pub set: Map<String, Value>,
}

/// A label's table without its model type, for whatever reads all of them: constraints, dump, documentation.
#[derive(Debug, Clone)]
pub struct LabelSchema {
    /// The label.
    pub name: &'static str,
    /// What a node of it stands for.
    pub doc: &'static str,
    /// All properties of the key, in the constraint's order.
    pub key: Vec<&'static str>,
    /// Name, type, metric, meaning.
    pub columns: Vec<(&'static str, PropertyType, bool, &'static str)>,
    /// Properties with an index of their own.
    pub indexed: Vec<&'static str>,
}

impl<T: Observed> Label<T> {
    /// The row of one thing: what the run saw of it.
    pub fn row(&self, item: &T) -> NodeRow {
        let mut set = Map::new();
        for column in self.columns.iter().filter(|column| !item.is_unseen(column.name)) {
            if let Cell::Is(value) = (column.get)(item) {
                set.insert(column.name.to_owned(), value);
            }
        }
        NodeRow { key: self.key_of(&set), set }
    }
}

impl<T> Label<T> {
    /// The key of a node with these properties, in the key's order, without the cluster.
    pub fn key_of(&self, properties: &Map<String, Value>) -> Vec<Value> {
        self.key.iter().map(|name| properties.get(*name).cloned().unwrap_or(Value::Null)).collect()
    }

    /// The table without its model type.
    pub fn schema(&self) -> LabelSchema {
        let mut key = vec!["cluster_id"];
        key.extend_from_slice(self.key);
        let mut indexed = self.indexed.to_vec();
        indexed.push("lastupdated");
        if key.len() > 1 {
            indexed.push("cluster_id");
        }
        LabelSchema {
            name: self.name,
            doc: self.doc,
            key,
            columns: self.columns.iter().map(|c| (c.name, c.kind, c.metric, c.doc)).collect(),
            indexed,
        }
    }

    /// Whether a change of this property makes a node count as updated.
    pub fn is_metric(&self, property: &str) -> bool {
        self.columns.iter().any(|column| column.metric && column.name == property)
    }
}

/// The key of a thing as one text: what the embedded store merges by.
pub fn joined_key(cluster: &ClusterId, key: &[Value]) -> String {
    let mut joined = cluster.as_str().to_owned();
    for part in key {
        joined.push('/');
        match part {
            Value::String(text) => joined.push_str(text),
            other => joined.push_str(&other.to_string()),
        }
    }
    joined
}

fn is(value: impl Into<Value>) -> Cell {
    Cell::Is(value.into())
}

/// Absent means that it is not there.
fn or_null<V: Clone + Into<Value>>(value: &Option<V>) -> Cell {
    Cell::Is(value.clone().map_or(Value::Null, Into::into))
}

/// Absent means that this run did not see it.
fn if_seen<V: Clone + Into<Value>>(value: &Option<V>) -> Cell {
    value.clone().map_or(Cell::Unseen, |value| Cell::Is(value.into()))
}

/// A property that only the guest's configuration tells.
fn config(guest: &inventory::Guest, get: fn(&GuestConfig) -> Cell) -> Cell {
    guest.config.as_ref().map_or(Cell::Unseen, get)
}

macro_rules! columns {
    ($($name:literal $kind:ident $(($metric:ident))? $doc:literal = $get:expr;)*) => {
        &[$(Column {
            name: $name,
            kind: PropertyType::$kind,
            metric: columns!(@metric $($metric)?),
            doc: $doc,
            get: $get,
        }),*]
    };
    (@metric) => { false };
    (@metric metric) => { true };
}

/// `ProxmoxCluster`.
pub static CLUSTER: Label<inventory::Cluster> = Label {
    name: "ProxmoxCluster",
    doc: "A Proxmox VE cluster, or a standalone node taken as one.",
    key: &[],
    columns: columns! {
        "id" Text "Cluster identifier: the configured name, the cluster's own, or `standalone-<node>`" = |c| is(c.id.as_str());
        "name" Text "The cluster's own name; its identifier where it has none" = |c| is(c.name.as_str());
        "version" Text "Proxmox VE release of the endpoint that answered" = |c| if_seen(&c.version);
        "quorate" Boolean "It has quorum; true for a standalone node" = |c| if_seen(&c.quorate);
        "nodes_online" Integer "Nodes that are online" = |c| if_seen(&c.nodes_online);
        "ca_fingerprint" Text "SHA-256 of the cluster's own certificate authority; another cluster under this identifier is refused"
            = |c| if_seen(&c.ca_fingerprint);
        "history_since" Integer "Its changes are known from then on, in epoch seconds; null before a run has told any" = |_| Cell::Unseen;
    },
    indexed: &["id", "name"],
};

/// `ProxmoxNode`.
pub static NODE: Label<inventory::Node> = Label {
    name: "ProxmoxNode",
    doc: "A node of a cluster.",
    key: &["name"],
    columns: columns! {
        "id" Text "Node name" = |n| is(n.name.as_str());
        "name" Text "Node name, unique in its cluster" = |n| is(n.name.as_str());
        "ip" Text "Management address (`/cluster/status`)" = |n| if_seen(&n.ip);
        "status" Text "`online`, `offline` or `unknown`" = |n| is(match n.status {
            NodeStatus::Online => "online",
            NodeStatus::Offline => "offline",
            NodeStatus::Unknown => "unknown",
        });
        "uptime" Integer (metric) "Seconds since it started" = |n| if_seen(&n.uptime);
        "cpu_count" Integer "Logical processors" = |n| if_seen(&n.cpu_count);
        "cpu_usage" Float (metric) "Share of the processors in use, 0.0 to 1.0" = |n| if_seen(&n.cpu_usage);
        "memory_total" Integer "Memory in bytes" = |n| if_seen(&n.memory_total);
        "memory_used" Integer (metric) "Memory in use, in bytes" = |n| if_seen(&n.memory_used);
        "disk_total" Integer (metric) "Size of the root file system in bytes; on ZFS it varies with its use" = |n| if_seen(&n.disk_total);
        "disk_used" Integer (metric) "Used of it, in bytes" = |n| if_seen(&n.disk_used);
    },
    indexed: &["id", "name"],
};

/// `ProxmoxVM`.
pub static GUEST: Label<inventory::Guest> = Label {
    name: "ProxmoxVM",
    doc: "A guest: a QEMU virtual machine or an LXC container.",
    key: &["vmid"],
    columns: columns! {
        "id" Text "`node:vmid`; changes when the guest migrates" = |g| is(format!("{}:{}", g.node, g.vmid));
        "vmid" Integer "The guest's number, unique in its cluster" = |g| is(g.vmid);
        "name" Text "Name, or a container's hostname" = |g| if_seen(&g.name);
        "node" Text "Name of the node that it is on" = |g| is(g.node.as_str());
        "type" Text "`qemu` or `lxc`" = |g| is(g.kind.as_str());
        "status" Text "`running`, `stopped`, `paused` or `unknown`" = |g| is(match g.status {
            GuestStatus::Running => "running",
            GuestStatus::Stopped => "stopped",
            GuestStatus::Paused => "paused",
            GuestStatus::Unknown => "unknown",
        });
        "template" Boolean "It is a template" = |g| if_seen(&g.template);
        "cpu_cores" Integer "Cores (per socket for a machine; what it may use for a container)" = |g| config(g, |c| or_null(&c.cpu_cores));
        "cpu_sockets" Integer "Sockets; null for a container" = |g| config(g, |c| or_null(&c.cpu_sockets));
        "memory" Integer "Configured memory in bytes" = |g| config(g, |c| or_null(&c.memory));
        "disk_size" Integer "Sum of its attached volumes in bytes" = |g| config(g, |c| is(c.disk_size()));
        "snapshot_count" Integer (metric) "Its snapshots; null where they could not be read yet"
            = |g| g.snapshots.as_ref().map_or(Cell::Unseen, |all| is(all.len()));
        "uptime" Integer (metric) "Seconds since it started" = |g| if_seen(&g.uptime);
        "tags" TextList "Its tags; empty where it has none" = |g| if_seen(&g.tags);
        "pool" Text "The pool that it is in" = |g| g.pool.as_ref().map_or(Cell::Unseen, or_null);
        "onboot" Boolean "It starts with its node" = |g| config(g, |c| is(c.onboot));
        "os_type" Text "PVE's word for its operating system" = |g| config(g, |c| or_null(&c.os_type));
        "lock" Text "PVE's lock on it, such as `backup`" = |g| config(g, |c| or_null(&c.lock));
        "smbios_uuid" Text "A machine's SMBIOS UUID; another one is another guest" = |g| config(g, |c| or_null(&c.smbios_uuid));
        "created_at" Integer "When it was created, in epoch seconds; another time is another guest" = |g| config(g, |c| or_null(&c.created_at));
    },
    indexed: &["id", "name", "vmid"],
};

/// `ProxmoxDisk`.
pub static DISK: Label<inventory::Disk> = Label {
    name: "ProxmoxDisk",
    doc: "A volume of a guest. CD-ROMs and cloud-init drives are none.",
    key: &["vmid", "disk_id"],
    columns: columns! {
        "id" Text "`vmid:disk_id`" = |d| is(format!("{}:{}", d.vmid, d.disk_id));
        "disk_id" Text "The guest's key for it: `scsi0`, `rootfs`, `mp0`, `unused0`" = |d| is(d.disk_id.as_str());
        "vmid" Integer "The guest that owns it" = |d| is(d.vmid);
        "kind" Text "`disk`, `efi`, `tpm`, `rootfs`, `mount` or `unused`" = |d| is(match d.kind {
            DiskKind::Disk => "disk",
            DiskKind::Efi => "efi",
            DiskKind::Tpm => "tpm",
            DiskKind::Rootfs => "rootfs",
            DiskKind::Mount => "mount",
            DiskKind::Unused => "unused",
        });
        "attached" Boolean "The guest uses it" = |d| is(d.attached);
        "storage" Text "The storage; null for a device or directory of the node" = |d| or_null(&d.storage);
        "volume" Text "PVE's volume id, or the path of a device or directory" = |d| is(d.volume.as_str());
        "size" Integer "Size in bytes; null where the configuration does not say" = |d| or_null(&d.size);
        "backup" Boolean "A backup job that covers the guest takes it" = |d| is(d.backup);
        "cache" Text "Cache mode; null for a container" = |d| or_null(&d.cache);
    },
    indexed: &["id"],
};

/// `ProxmoxNetworkInterface`.
pub static NIC: Label<inventory::Nic> = Label {
    name: "ProxmoxNetworkInterface",
    doc: "A network interface of a guest.",
    key: &["vmid", "net_id"],
    columns: columns! {
        "id" Text "`vmid:net_id`" = |n| is(format!("{}:{}", n.vmid, n.net_id));
        "net_id" Text "The guest's key for it: `net0`" = |n| is(n.net_id.as_str());
        "vmid" Integer "The guest that has it" = |n| is(n.vmid);
        "bridge" Text "The bridge that it is on" = |n| or_null(&n.bridge);
        "mac_address" Text "Hardware address in upper case" = |n| or_null(&n.mac_address);
        "model" Text "Adapter model; `veth` for a container" = |n| or_null(&n.model);
        "firewall" Boolean "The firewall filters it, where the cluster's and the guest's are on" = |n| is(n.firewall);
        "vlan_tag" Integer "VLAN; null where there is none" = |n| or_null(&n.vlan_tag);
    },
    indexed: &["id", "mac_address"],
};

/// `ProxmoxSnapshot`.
pub static SNAPSHOT: Label<inventory::Snapshot> = Label {
    name: "ProxmoxSnapshot",
    doc: "A snapshot of a guest. Its description, which may hold secrets, is not kept.",
    key: &["vmid", "name"],
    columns: columns! {
        "id" Text "`vmid:name`" = |s| is(format!("{}:{}", s.vmid, s.name));
        "name" Text "Name, unique among the guest's snapshots" = |s| is(s.name.as_str());
        "vmid" Integer "The guest that it is of" = |s| is(s.vmid);
        "parent" Text "Name of the snapshot that it came after; null for the first" = |s| or_null(&s.parent);
        "created_at" Integer "When it was made, in epoch seconds; null where PVE does not say" = |s| or_null(&s.created_at);
        "with_memory" Boolean "It holds the machine's memory; false for a container" = |s| is(s.with_memory);
        "current" Boolean "The guest as it is now came from it: the last one taken or rolled back to" = |s| is(s.current);
    },
    indexed: &["id"],
};

/// `ProxmoxStorage`.
pub static STORAGE: Label<inventory::Storage> = Label {
    name: "ProxmoxStorage",
    doc: "A storage, one node per definition; what each Proxmox node has of it is on AVAILABLE_ON.",
    key: &["name"],
    columns: columns! {
        "id" Text "Storage name" = |s| is(s.name.as_str());
        "name" Text "Storage name, unique in its cluster" = |s| is(s.name.as_str());
        "type" Text "PVE's type: `dir`, `nfs`, `lvmthin`, `rbd`" = |s| is(s.kind.as_str());
        "content_types" TextList "What it may hold, sorted" = |s| is(s.content_types.clone());
        "shared" Boolean "All its nodes see the same" = |s| is(s.shared);
        "enabled" Boolean "Its definition is not disabled" = |s| is(s.enabled);
        "total" Integer (metric) "Capacity in bytes: of the first active node by name where shared, summed over the active nodes where local"
            = |s| storage_capacity(s, |c| c.total);
        "used" Integer (metric) "Used of it, in bytes" = |s| storage_capacity(s, |c| c.used);
        "available" Integer (metric) "Left of it, in bytes" = |s| storage_capacity(s, |c| c.available);
    },
    indexed: &["id", "name"],
};

/// A capacity is unknown, not null, where a node that should have said it did not answer: a sum without it would be too small. A
/// shared storage needs one node only. An offline node's share is not there to be used.
fn storage_capacity(storage: &inventory::Storage, part: fn(&inventory::Capacity) -> i64) -> Cell {
    let silent = storage.on_nodes.iter().any(|on| on.active.is_none() && !on.offline);
    match storage.capacity() {
        Some(capacity) if storage.shared || !silent => is(part(&capacity)),
        Some(_) => Cell::Unseen,
        None if storage.on_nodes.iter().any(|on| on.active.is_none()) => Cell::Unseen,
        None => Cell::Is(Value::Null),
    }
}

/// `ProxmoxBackupJob`.
pub static BACKUP_JOB: Label<inventory::BackupJob> = Label {
    name: "ProxmoxBackupJob",
    doc: "A backup job of the cluster.",
    key: &["job_id"],
    columns: columns! {
        "id" Text "PVE's id of the job" = |j| is(j.job_id.as_str());
        "job_id" Text "PVE's id of the job, unique in its cluster" = |j| is(j.job_id.as_str());
        "enabled" Boolean "It runs by its schedule" = |j| is(j.enabled);
        "schedule" Text "Calendar event" = |j| or_null(&j.schedule);
        "storage" Text "Where it writes" = |j| or_null(&j.storage);
        "mode" Text "`snapshot`, `suspend` or `stop`" = |j| or_null(&j.mode);
        "all" Boolean "It covers every guest that is not excluded" = |j| is(j.all);
        "vmids" IntegerList "The guests that it names; empty where it names none" = |j| is(j.vmids.clone());
        "exclude" IntegerList "The guests that it leaves out" = |j| is(j.exclude.clone());
        "pool" Text "The pool that it covers" = |j| or_null(&j.pool);
        "node" Text "Only guests on this node" = |j| or_null(&j.node);
        "comment" Text "Its comment" = |j| or_null(&j.comment);
    },
    indexed: &["id"],
};

/// `ProxmoxChange`; see [`changes`].
pub static CHANGE: Label<Change> = Label {
    name: "ProxmoxChange",
    doc: "What a sync saw to change: a thing that came or went, or one property of it. What a cluster had when it was synced first, and \
          metrics, are none. `CHANGED` leads to the thing while it is there.",
    key: &["at", "change_id"],
    columns: columns! {
        "id" Text "`at/change_id`" = |c| is(format!("{}/{}", c.at, c.id()));
        "change_id" Text "`label/object/field`, or the type in place of the field; unique among the changes of a run" = |c| is(c.id());
        "at" Integer "When the run began that saw it, in epoch seconds: it happened since the run before, or during this one" = |c| is(c.at);
        "change_type" Text "`created`, `updated`, `deleted` or `migrated`" = |c| is(c.kind.as_str());
        "label" Text "The label of the thing" = |c| is(c.label);
        "object" Text "The thing's key: `100`, `100:scsi0`, `pve1`; empty for the cluster" = |c| is(c.object());
        "vmid" Integer "The guest that it is or belongs to; null for others" = |c| or_null(&c.vmid);
        "name" Text "What it was called" = |c| or_null(&c.name);
        "field" Text "The property; null for what came or went" = |c| or_null(&c.field);
        "old" Text "Its value before, as text; lists as JSON" = |c| Cell::Is(changes::text(&c.old));
        "new" Text "Its value since, likewise" = |c| Cell::Is(changes::text(&c.new));
    },
    indexed: &["at", "vmid"],
};

/// A relationship type.
#[derive(Debug, Clone, Copy)]
pub struct Relationship {
    /// Its name.
    pub name: &'static str,
    /// Where it starts.
    pub from: &'static str,
    /// The key of the start, after `cluster_id`.
    pub from_key: &'static [&'static str],
    /// Where it ends.
    pub to: &'static str,
    /// The key of the end, after `cluster_id`.
    pub to_key: &'static [&'static str],
    /// Its properties besides the stamps: name, type, meaning.
    pub columns: &'static [(&'static str, PropertyType, &'static str)],
    /// The end whose relationships of this type one observation tells completely: what it no longer tells is removed.
    pub owner: End,
    /// What it says.
    pub doc: &'static str,
}

impl Relationship {
    /// The label and the key of the end that is not this one.
    pub fn other_end(&self, label: &str) -> (&'static str, &'static [&'static str]) {
        if self.from == label { (self.to, self.to_key) } else { (self.from, self.from_key) }
    }
}

/// One end of a relationship.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Where it starts.
    From,
    /// Where it ends.
    To,
}

/// One relationship to upsert.
#[derive(Debug, Clone, PartialEq)]
pub struct RelationshipRow {
    /// The key of the start, without the cluster.
    pub from: Vec<Value>,
    /// The key of the end, without the cluster.
    pub to: Vec<Value>,
    /// Its properties.
    pub set: Map<String, Value>,
}

impl RelationshipRow {
    /// A relationship without properties of its own.
    pub fn new(from: Vec<Value>, to: Vec<Value>) -> Self {
        Self { from, to, set: Map::new() }
    }
}

macro_rules! relationships {
    ($($const:ident $name:literal $from:ident -> $to:ident, owned by $owner:ident $doc:literal [$($column:expr),*];)*) => {
        $(#[doc = concat!("`", $name, "`: ", $doc)]
        pub static $const: Relationship = Relationship {
            name: $name,
            from: $from.name,
            from_key: $from.key,
            to: $to.name,
            to_key: $to.key,
            columns: &[$($column),*],
            owner: End::$owner,
            doc: $doc,
        };)*
        /// Every relationship type between the labels of the tables.
        pub fn relationships() -> Vec<&'static Relationship> {
            vec![$(&$const),*]
        }
    };
}

relationships! {
    CONTAINS_NODE "CONTAINS_NODE" CLUSTER -> NODE, owned by To "A cluster contains a node." [];
    HOSTS_VM "HOSTS_VM" NODE -> GUEST, owned by To "A node hosts a guest." [];
    HAS_DISK "HAS_DISK" GUEST -> DISK, owned by To "A guest has a volume." [];
    HAS_NETWORK_INTERFACE "HAS_NETWORK_INTERFACE" GUEST -> NIC, owned by To "A guest has a network interface." [];
    SNAPSHOT_OF "SNAPSHOT_OF" SNAPSHOT -> GUEST, owned by From "A snapshot is of a guest." [];
    PARENT_SNAPSHOT "PARENT_SNAPSHOT" SNAPSHOT -> SNAPSHOT, owned by From "A snapshot came after another of the same guest." [];
    STORED_ON "STORED_ON" DISK -> STORAGE, owned by From "A volume is on a storage." [];
    AVAILABLE_ON "AVAILABLE_ON" STORAGE -> NODE, owned by From "A storage's definition allows a node." [
        ("active", PropertyType::Boolean, "It is mounted and answers there"),
        ("total", PropertyType::Integer, "Capacity there, in bytes"),
        ("used", PropertyType::Integer, "Used there, in bytes"),
        ("available", PropertyType::Integer, "Left there, in bytes")
    ];
    BACKS_UP "BACKS_UP" BACKUP_JOB -> GUEST, owned by From "A job covers a guest." [];
    BACKS_UP_TO "BACKS_UP_TO" BACKUP_JOB -> STORAGE, owned by From "A job writes to a storage." [];
    INCLUDES_DISK "INCLUDES_DISK" BACKUP_JOB -> DISK, owned by From "What a job does with a volume of a guest that it covers." [
        ("included", PropertyType::Boolean, "The job takes it; `reason` may say otherwise and is not to be trusted"),
        ("reason", PropertyType::Text, "PVE's words")
    ];
}

/// Every label that a sync fills, parents first.
pub fn labels() -> Vec<LabelSchema> {
    vec![
        CLUSTER.schema(),
        NODE.schema(),
        STORAGE.schema(),
        GUEST.schema(),
        DISK.schema(),
        NIC.schema(),
        SNAPSHOT.schema(),
        BACKUP_JOB.schema(),
        CHANGE.schema(),
    ]
}

/// The label of run records; see [`crate::runs`].
pub const SYNC_RUN: &str = "ProxmoxSyncRun";
/// The label of the lease; see [`crate::lease`].
pub const LEASE: &str = "PvegraphLease";
/// The label of applied migrations; see [`crate::migrate`].
pub const MIGRATION: &str = "PvegraphMigration";

/// What identifies a node of one of our labels, as a dump refers to it. Labels that are not in the tables have `id`.
pub fn key_of(label: &str) -> Vec<&'static str> {
    let mut tables = labels().into_iter().chain(crate::desired_labels::labels());
    tables.find(|table| table.name == label).map_or_else(|| vec!["id"], |table| table.key)
}

/// The properties of an AVAILABLE_ON relationship.
pub fn available_on(on: &inventory::StorageOnNode) -> Map<String, Value> {
    let mut set = Map::new();
    let Some(active) = on.active else { return set };
    set.insert("active".into(), active.into());
    let capacity = on.capacity.filter(|_| active);
    set.insert("total".into(), json!(capacity.map(|c| c.total)));
    set.insert("used".into(), json!(capacity.map(|c| c.used)));
    set.insert("available".into(), json!(capacity.map(|c| c.available)));
    set
}

/// PVE's word for a guest's type; exported for rows that are read back.
pub fn guest_type(word: &str) -> Option<GuestType> {
    [GuestType::Qemu, GuestType::Lxc].into_iter().find(|kind| kind.as_str() == word)
}
