//! The label tables of the desired state: the same tables as [`crate::labels`], and never written by a sync.
//!
//! Rows are made by the crate that knows what is desired, so a row is a map of properties here.

use pvegraph_inventory::Observed;
use serde_json::{Map, Value};

use crate::labels::{
    Cell, Column, End, GUEST, Label, LabelSchema, NODE, PropertyType, Relationship, STORAGE,
};

/// The properties of one desired node. What is not among them is absent in the graph too.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Row(pub Map<String, Value>);

impl Observed for Row {}

macro_rules! columns {
    ($($name:literal $kind:ident $doc:literal;)*) => {
        &[$(Column {
            name: $name,
            kind: PropertyType::$kind,
            metric: false,
            doc: $doc,
            get: |row: &Row| Cell::Is(row.0.get($name).cloned().unwrap_or(Value::Null)),
        }),*]
    };
}

/// `DesiredEstate`.
pub static DESIRED_ESTATE: Label<Row> = Label {
    name: "DesiredEstate",
    doc: "The desired state of one cluster.",
    key: &[],
    columns: columns! {
        "generation" Integer "Counts its imports and adoptions";
        "spec_sha256" Text "SHA-256 of the document that it exports";
        "change" Text "Names the last write, so that one that was sent twice counts once";
        "node" Text "The node for new guests that name none";
    },
    indexed: &[],
};

/// `DesiredVM`.
pub static DESIRED_VM: Label<Row> = Label {
    name: "DesiredVM",
    doc: "A desired guest. A property that is there is managed, what `unset` names is removed, and everything else of the guest is \
          left as it is.",
    key: &["uid"],
    columns: columns! {
        "uid" Text "What identifies it, for as long as it is desired";
        "type" Text "`qemu` or `lxc`";
        "vmid" Integer "Its number; null for a new guest that gets the next free one";
        "node" Text "The node that it has to be on";
        "nodes" TextList "The nodes that it may be on; null: any";
        "prefer" TextList "The nodes that it is rather put on where there is a choice";
        "state" Text "`running` or `stopped`; null leaves it as it is";
        "policy" Text "`manage`, or `observe`: only compared";
        "protected" Boolean "It and its disks are never deleted";
        "deletion" Text "`forbid`, or `destroy`: a tombstone may delete it";
        "reboot" Text "`never`, or `allow`: a change may restart it";
        "local_disks" Text "`stay`, or `migrate`: volumes that only its node has are copied when it migrates";
        "shutdown" Text "`graceful`, or `force`: it is cut off where it does not shut down in time";
        "tombstone" Boolean "It shall be gone";
        "template" Boolean "It is, or becomes, a template";
        "unset" TextList "Options to remove: `balloon`, `net0.tag`";
        "name" Text "Name, or a container's hostname";
        "cores" Integer "Cores";
        "sockets" Integer "Sockets of a machine";
        "memory" Integer "Memory in bytes, whole MiB";
        "onboot" Boolean "It starts with its node";
        "tags" TextList "Tags; null leaves them as they are, an empty list removes them";
        "description" Text "Free text";
        "options" TextList "Its other options as Proxmox VE spells them: `cpu=host`, `agent=enabled=1`";
        "cipassword_ref" Text "Where cloud-init's password is: `file:PATH` or `env:NAME`; never the password";
        "password_ref" Text "Where the password of a new container's superuser is, likewise";
        "ostemplate" Text "The template of a new container";
        "clone_from" Text "What a new guest is copied from: a number, or the name of a `DesiredTemplate`";
        "clone_full" Boolean "Whether its volumes are copied (true) or build on the template's (false); null: PVE's own choice";
        "clone_storage" Text "The storage that whole copies go to; null: the source's";
        "clone_snapshot" Text "The snapshot that is copied; null: the guest as it is";
        "comment" Text "Words for readers";
        "not_managed" Text "JSON of what is stored and not managed yet";
    },
    indexed: &["vmid"],
};

/// `DesiredDisk`.
pub static DESIRED_DISK: Label<Row> = Label {
    name: "DesiredDisk",
    doc: "A desired disk of a guest.",
    key: &["uid", "slot"],
    columns: columns! {
        "uid" Text "The desired guest";
        "slot" Text "The guest's key for it: `scsi0`, `rootfs`";
        "storage" Text "The storage";
        "size" Integer "Size in bytes";
        "volume" Text "What is in a CD-ROM drive or mounted, by name; null for a disk, whose name is Proxmox VE's";
        "options" TextList "Its other options: `iothread=1`";
    },
    indexed: &[],
};

/// `DesiredNetworkInterface`.
pub static DESIRED_NIC: Label<Row> = Label {
    name: "DesiredNetworkInterface",
    doc: "A desired network interface of a guest.",
    key: &["uid", "slot"],
    columns: columns! {
        "uid" Text "The desired guest";
        "slot" Text "The guest's key for it: `net0`";
        "bridge" Text "The bridge";
        "model" Text "Adapter model of a machine";
        "mac_address" Text "Hardware address; null keeps the one it has";
        "vlan_tag" Integer "VLAN";
        "firewall" Boolean "The firewall filters it";
        "options" TextList "Its other options: `mtu=1400`";
    },
    indexed: &[],
};

/// `Binding`.
pub static BINDING: Label<Row> = Label {
    name: "Binding",
    doc: "Ties a desired guest to the live one. Without it, or where the fingerprint is another, the guest is never touched.",
    key: &["uid"],
    columns: columns! {
        "uid" Text "The desired guest";
        "type" Text "`qemu` or `lxc`";
        "vmid" Integer "The live guest's number";
        "smbios_uuid" Text "A machine's SMBIOS UUID";
        "lxc_rootfs_volid" Text "A container's root volume";
        "destroyed_at" Integer "When its guest was deleted, in epoch seconds: it binds nothing any more";
        "reserved_by" Text "The run that makes it under this number; null once it is made, or was there before";
        "last_applied" Integer "When a change was applied last, in epoch seconds";
    },
    indexed: &["vmid"],
};

/// `ManagedScope`.
pub static MANAGED_SCOPE: Label<Row> = Label {
    name: "ManagedScope",
    doc: "A range of numbers in which guests may be touched, and what may be done there. Ranges have no numbers in common.",
    key: &["name"],
    columns: columns! {
        "name" Text "Its name";
        "vmid_min" Integer "The first number";
        "vmid_max" Integer "The last number";
        "pool" Text "Its guests have to be in this pool, and new ones come into it; null for any";
        "allow" TextList "What may be done: `create`, `grow`, `move`, `configure`, `migrate`, `power`, `snapshot`, `restore-snapshot`, `template`, `destroy`";
        "max_deletes" Integer "How many guests one plan may delete; null is 0";
        "max_restarts" Integer "How many guests one plan may restart or stop; null leaves that to the estate's limit";
        "paused" Boolean "Nothing may be done there now";
    },
    indexed: &[],
};

/// `Policy`.
pub static POLICY: Label<Row> = Label {
    name: "Policy",
    doc: "A Cypher statement that is asked about each plan, in read mode: a row of it is something that must not be.",
    key: &["name"],
    columns: columns! {
        "name" Text "Its name";
        "title" Text "What it is about";
        "cypher" Text "The statement";
        "severity" Text "`deny`: a row blocks the plan; `warn`: a row is shown";
        "mend" Text "What to do about a row";
    },
    indexed: &[],
};

/// `Plan`.
pub static PLAN: Label<Row> = Label {
    name: "Plan",
    doc: "A plan that was approved, and who did; or one that was applied without.",
    key: &["sha256"],
    columns: columns! {
        "sha256" Text "SHA-256 of the plan's canonical JSON";
        "generation" Integer "The desired state's";
        "made_at" Integer "When it was made, in epoch seconds";
        "expires_at" Integer "When it is stale, in epoch seconds";
        "operations" Integer "How many operations it has";
        "restarts" Integer "Guests that restart or stop";
        "deletes" Integer "Guests that are deleted";
        "blast" Integer "Guests that feel something";
        "approver" Text "Who approved it: the word of whoever ran the command; null where nobody did";
        "approved_at" Integer "When, in epoch seconds";
        "approval_expires_at" Integer "Until when the approval holds, in epoch seconds";
    },
    indexed: &[],
};

/// `PlanOp`.
pub static PLAN_OP: Label<Row> = Label {
    name: "PlanOp",
    doc: "One operation of a plan. It stays when its guest goes.",
    key: &["sha256", "number"],
    columns: columns! {
        "sha256" Text "The plan";
        "number" Integer "Its place in the plan, from 1";
        "uid" Text "The desired guest";
        "vmid" Integer "Its number";
        "node" Text "The node that is asked";
        "action" Text "`create`, `mark`, `grow`, `move`, `configure`, `migrate`, `power`, `snapshot`, `restore-snapshot`, `template`, `destroy`";
        "effect" Text "What it does to the guest while it runs";
        "reversible" Boolean "Another plan can bring back what was";
        "reasons" TextList "The fields that differ";
        "requests" TextList "The calls; what may be secret is not in them";
    },
    indexed: &[],
};

/// `Run`.
pub static RUN: Label<Row> = Label {
    name: "Run",
    doc: "A run that applied a plan. The journal and the audit log of the host that ran it are the truth; this is what it could tell the \
          graph.",
    key: &["run"],
    columns: columns! {
        "run" Text "Its name, as `rollback`, the journal and the audit log have it";
        "sha256" Text "The plan";
        "actor" Text "Who ran it: user, host and account at Proxmox VE";
        "approver" Text "By whose word";
        "started_at" Integer "When it began, in epoch seconds";
        "resumed_at" Integer "When it was gone on with last, in epoch seconds";
        "resumed_by" Text "Who went on with it";
        "ended_at" Integer "When it ended last, in epoch seconds; null while it runs, and where it was cut off";
        "state" Text "`running`, `applied`, `pending_restart`, `partial`, `failed`, `stale`, `refused` or `lease_lost`";
        "exit" Integer "The exit code";
        "open" Boolean "`resume` has to go on with it";
        "stopped" Text "Why it was stopped";
        "operations" Integer "How many operations its plan has";
        "done" Integer "Done; those that wait for a restart as well";
        "waiting" Integer "Done, and something waits for a restart";
        "failed" Integer "Failed or half done";
        "unknown" Integer "Nobody knows what came of them";
        "left" Integer "Not begun, or nothing was sent as the guest was otherwise than planned";
    },
    indexed: &[],
};

macro_rules! sections {
    ($($const:ident $name:literal $doc:literal;)*) => {
        $(#[doc = concat!("`", $name, "`.")]
        pub static $const: Label<Row> = Label {
            name: $name,
            doc: $doc,
            key: &["name"],
            columns: columns! {
                "name" Text "What identifies it in its section of the document";
                "spec" Text "Its entry in the document, as JSON";
            },
            indexed: &[],
        };)*
    };
}

sections! {
    DESIRED_TEMPLATE "DesiredTemplate" "A name for a template that guests are copied from: its `vmid` is in `spec`.";
    DESIRED_STORAGE "DesiredStorage" "A desired storage definition: stored, not managed yet.";
    DESIRED_NETWORK "DesiredNetwork" "A desired network interface of a node: stored, not managed yet.";
    DESIRED_CLUSTER "DesiredCluster" "What is desired of the cluster itself: stored, not managed yet.";
    DESIRED_BACKUP_JOB "DesiredBackupJob" "A desired backup job: stored, not managed yet.";
    DESIRED_HA_RESOURCE "DesiredHAResource" "A desired high-availability resource: stored, not managed yet.";
}

macro_rules! relationships {
    ($($const:ident $name:literal $from:ident -> $to:ident $doc:literal [$($column:expr),*];)*) => {
        $(#[doc = concat!("`", $name, "`: ", $doc)]
        pub static $const: Relationship = Relationship {
            name: $name,
            from: $from.name,
            from_key: $from.key,
            to: $to.name,
            to_key: $to.key,
            columns: &[$($column),*],
            owner: End::From,
            doc: $doc,
        };)*
        /// Every relationship type of the desired state.
        pub fn relationships() -> Vec<&'static Relationship> {
            vec![$(&$const),*]
        }
    };
}

relationships! {
    DESIRES "DESIRES" DESIRED_ESTATE -> DESIRED_VM "An estate desires a guest." [];
    DESIRED_HAS_DISK "HAS_DISK" DESIRED_VM -> DESIRED_DISK "A desired guest has a disk." [];
    HAS_NIC "HAS_NIC" DESIRED_VM -> DESIRED_NIC "A desired guest has a network interface." [];
    ON_STORAGE "ON_STORAGE" DESIRED_DISK -> STORAGE "A desired disk is on a storage." [];
    MAY_RUN_ON "MAY_RUN_ON" DESIRED_VM -> NODE "A desired guest may run on a node." [
        ("mode", PropertyType::Text, "`pin`: there and nowhere else; `allow`: there, or on another one of these; `prefer`: rather there, where there is a choice")
    ];
    DEPENDS_ON "DEPENDS_ON" DESIRED_VM -> DESIRED_VM "A desired guest needs another one to run first." [];
    ANTI_AFFINITY "ANTI_AFFINITY" DESIRED_VM -> DESIRED_VM "Two desired guests must not be on one node." [];
    CLONED_FROM "CLONED_FROM" DESIRED_VM -> GUEST "A desired guest is, or will be, a copy of a guest." [];
    BINDS "BINDS" BINDING -> DESIRED_VM "A binding is of a desired guest." [];
    HAS_OP "HAS_OP" PLAN -> PLAN_OP "A plan has an operation." [];
    AFFECTS "AFFECTS" PLAN_OP -> DESIRED_VM "A guest feels an operation: its own, or one of a guest that it depends on." [];
    AFFECTS_GUEST "AFFECTS" PLAN_OP -> GUEST "Likewise the live guest, where the graph had it." [];
    OF_PLAN "OF_PLAN" RUN -> PLAN "A run applied a plan." [];
    DID "DID" RUN -> PLAN_OP "What a run made of an operation." [
        ("result", PropertyType::Text, "`done`, `pending restart`, `stale`, `failed`, `half done`, `unknown`, `skipped`, `not begun`"),
        ("reason", PropertyType::Text, "why, where it is not done")
    ];
}

/// Every label of the desired state, parents first.
pub fn labels() -> Vec<LabelSchema> {
    vec![
        DESIRED_ESTATE.schema(),
        DESIRED_VM.schema(),
        DESIRED_DISK.schema(),
        DESIRED_NIC.schema(),
        BINDING.schema(),
        DESIRED_TEMPLATE.schema(),
        DESIRED_STORAGE.schema(),
        DESIRED_NETWORK.schema(),
        DESIRED_CLUSTER.schema(),
        DESIRED_BACKUP_JOB.schema(),
        DESIRED_HA_RESOURCE.schema(),
        MANAGED_SCOPE.schema(),
        POLICY.schema(),
        PLAN.schema(),
        PLAN_OP.schema(),
        RUN.schema(),
    ]
}
