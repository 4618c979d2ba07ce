//! The declarative document: what a file in Git says of an estate.
//!
//! A guest's options stand beside its other keys, under Proxmox VE's own names; [`crate::canonical`] knows them. So the JSON
//! Schema is made of both: the types here, and the tables there.

mod read;
mod schema;
pub mod sections;

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use read::{DocumentError, Form, read};
pub use schema::json_schema;

/// The version of the document's form.
pub const VERSION: u32 = 1;

/// A document.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Document {
    /// The version of this form: 1.
    pub version: u32,
    /// What it is about; `proxmox` is the one thing that this program knows.
    pub plugins: Plugins,
}

/// What a document is about.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Plugins {
    /// An estate of Proxmox VE.
    pub proxmox: Estate,
}

/// The desired state of one cluster, or standalone node.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Estate {
    /// The node for new guests that name none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Virtual machines.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub vms: Vec<Guest>,
    /// Containers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub containers: Vec<Guest>,
    /// Names of templates that guests can be copied from.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub templates: BTreeMap<String, Template>,
    /// Storage definitions. Not managed yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub storage: Vec<StorageSection>,
    /// Network interfaces of nodes. Not managed yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub network: Vec<NetworkSection>,
    /// The cluster itself. Only its name is used: it must be the cluster that the document is imported for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterSection>,
    /// Backup jobs. Not managed yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backups: Vec<BackupSection>,
    /// High-availability resources. Not managed yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ha: Vec<HaSection>,
}

/// A guest. Beside these keys stand its options under Proxmox VE's own names (`cores`, `memory`, `scsi0`, `net0`, …). What is
/// present is managed, what `unset` names is removed, and everything else is left as it is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Guest {
    /// What identifies it here, for as long as it is desired; `vm-<vmid>` or `ct-<vmid>` where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// Its number. Without one a new guest gets the next free number of its scope.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vmid: Option<i64>,
    /// The node that it has to be on; any node where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The nodes that it may be on, in place of `node`: on another one it migrates to one of these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<BTreeSet<String>>,
    /// The nodes that it is rather put on where there is a choice. It never migrates because of them alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefer: Option<BTreeSet<String>>,
    /// Whether it runs; left as it is where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<Power>,
    /// Whether it is only watched, or changed as well; `manage` for a new one. An import leaves this and the next five as they are where
    /// they are absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<Policy>,
    /// It and its disks are never deleted, also after it went missing here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protected: Option<bool>,
    /// Whether a tombstone may delete it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion: Option<Deletion>,
    /// Whether a change may restart it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reboot: Option<Reboot>,
    /// Whether volumes that only its node has are copied when it migrates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_disks: Option<LocalDisks>,
    /// What is done where it does not shut down in time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shutdown: Option<Shutdown>,
    /// It shall be gone. Deletes it only together with `deletion`, the scope's permission and `--allow-delete`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tombstone: bool,
    /// Options to remove: `balloon`, or `net0.tag` for one option of a device.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub unset: BTreeSet<String>,
    /// It is a template. A guest becomes one for good, while it is stopped and has no snapshots.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub template: bool,
    /// Guests (by `uid`) that have to run before it does.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub depends_on: BTreeSet<String>,
    /// Guests (by `uid`) that must not be on its node.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub anti_affinity: BTreeSet<String>,
    /// Its first disk: `scsi0` of a machine. A container's is `rootfs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<Value>,
    /// Its first network interface: `net0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Value>,
    /// The guest that a new one is copied from, a template as a rule. It is used when the guest is made, and never later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clone: Option<CloneOf>,
    /// The template that a new container is made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ostemplate: Option<String>,
    /// Where cloud-init's password is to be read from. The password itself never stands here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cipassword: Option<SecretRef>,
    /// Where the password of a new container's superuser is to be read from. It is used when the container is made, and never later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<SecretRef>,
    /// Words for readers of the document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// High availability. Not managed yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ha: Option<GuestHa>,
    /// Mitigations in the guest's kernel. Not managed: Proxmox VE has no such option.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_mitigations: Option<String>,
    /// Options under Proxmox VE's names.
    #[serde(flatten)]
    pub options: BTreeMap<String, Value>,
}

/// Whether a guest runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Power {
    /// It runs.
    Running,
    /// It does not.
    Stopped,
}

impl Power {
    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Stopped => "stopped",
        }
    }
}

macro_rules! choice {
    ($(#[$meta:meta])* $name:ident { $(#[$dm:meta])* $default:ident = $dw:literal, $(#[$om:meta])* $other:ident = $ow:literal }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "lowercase")]
        pub enum $name {
            $(#[$dm])*
            #[default]
            $default,
            $(#[$om])*
            $other,
        }

        impl $name {
            /// Its word.
            pub fn as_str(self) -> &'static str {
                match self {
                    Self::$default => $dw,
                    Self::$other => $ow,
                }
            }

            /// The choice of this word.
            pub fn of(word: &str) -> Option<Self> {
                [Self::$default, Self::$other].into_iter().find(|choice| choice.as_str() == word)
            }

            /// The choice, where it is not the usual one: what need not be said.
            pub fn unusual(self) -> Option<Self> {
                (self != Self::default()).then_some(self)
            }
        }
    };
}

choice! {
    /// What may be done with a guest.
    Policy {
        /// It is changed to what is desired.
        Manage = "manage",
        /// It is only compared.
        Observe = "observe"
    }
}

choice! {
    /// Whether a guest may be deleted.
    Deletion {
        /// Never.
        Forbid = "forbid",
        /// By a tombstone, where everything else agrees.
        Destroy = "destroy"
    }
}

choice! {
    /// Whether a change may restart a guest.
    Reboot {
        /// Never: what needs a restart stays pending.
        Never = "never",
        /// Where the change needs it.
        Allow = "allow"
    }
}

choice! {
    /// Whether volumes that only one node has go along with a guest.
    LocalDisks {
        /// They stay, and the guest does not migrate.
        Stay = "stay",
        /// They are copied to the other node, and deleted here.
        Migrate = "migrate"
    }
}

choice! {
    /// How a guest is stopped.
    Shutdown {
        /// It shuts down by itself, or goes on running.
        Graceful = "graceful",
        /// Where it has not shut down in time it is cut off.
        Force = "force"
    }
}

/// Where a secret is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum SecretRef {
    /// The file that holds it.
    File(String),
    /// The variable of the environment that holds it.
    Env(String),
}

impl std::fmt::Display for SecretRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => write!(f, "file:{path}"),
            Self::Env(name) => write!(f, "env:{name}"),
        }
    }
}

impl SecretRef {
    /// From the text that [`Display`](std::fmt::Display) makes.
    pub fn of(text: &str) -> Option<Self> {
        let file = text.strip_prefix("file:").map(|path| Self::File(path.to_owned()));
        file.or_else(|| text.strip_prefix("env:").map(|name| Self::Env(name.to_owned())))
    }
}

/// A template's entry in the catalogue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Template {
    /// Its number.
    pub vmid: i64,
    /// Words for readers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Options under Proxmox VE's names that a guest gets when it is copied from it by this name, where it does not name them itself. They
    /// are not compared later.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub defaults: Map<String, Value>,
}

/// How a new guest is copied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CloneOf {
    /// A number, or a name in `templates`.
    pub from: Source,
    /// Whether the volumes are copied, or build on the template's; absent: they build on a template's, and are copied of other guests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub full: Option<bool>,
    /// The storage that whole copies go to; absent: the source's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<String>,
    /// The snapshot that is copied; absent: the guest as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
}

/// What is copied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Source {
    /// The guest of this number.
    Number(i64),
    /// The template of this name in the catalogue.
    Name(String),
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number(vmid) => vmid.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl Source {
    /// From the text that [`Display`](std::fmt::Display) makes.
    pub fn of(text: &str) -> Self {
        text.parse().map_or_else(|_| Self::Name(text.to_owned()), Self::Number)
    }
}

/// A guest's high availability.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GuestHa {
    /// It is kept running.
    #[serde(default)]
    pub enabled: bool,
    /// The group of nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// How often it may be moved after failed starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_relocate: Option<u32>,
    /// How often it may be restarted on its node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_restart: Option<u32>,
}

/// A storage definition, with further keys under Proxmox VE's names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StorageSection {
    /// Its name.
    pub id: String,
    /// Its type, such as `lvmthin`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its other keys.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// A network interface of nodes, with further keys under Proxmox VE's names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct NetworkSection {
    /// Its name.
    pub iface: String,
    /// The node that has it; the estate's where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Its other keys.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// The cluster itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClusterSection {
    /// Whether the nodes are one cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<ClusterNode>,
}

/// A node of the cluster.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClusterNode {
    /// Its name.
    pub name: String,
    /// Its address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
}

/// A backup job, with further keys under Proxmox VE's names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BackupSection {
    /// When it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
    /// Its other keys.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// A high-availability resource, with further keys under Proxmox VE's names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HaSection {
    /// `vm:100` or `ct:200`.
    pub sid: String,
    /// Its other keys.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}
