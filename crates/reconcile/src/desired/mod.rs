//! The desired state, as the graph and the planner have it: each option in canonical form.

mod check;
mod convert;
mod defaults;
mod export;
mod volume;

use std::collections::{BTreeMap, BTreeSet};

use pvegraph_inventory::{ClusterId, GuestType};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::canonical::{Canonical, hex};
use crate::document::{CloneOf, Deletion, LocalDisks, Policy, Power, Reboot, SecretRef, Shutdown, Source};
use crate::plan::canonical_json;

pub(crate) use check::{IMPORT, NO_NODES};
pub use check::{Problem, check};
pub use convert::{entered, from_document};
pub use export::{guest_entry, to_document};
pub use volume::foreign;
pub(crate) use volume::foreign_volume;

/// The desired state of one cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct Desired {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node for new guests that name none.
    pub node: Option<String>,
    /// Guests by `uid`.
    pub guests: BTreeMap<String, Guest>,
    /// What is stored and not managed yet, by section and name.
    pub sections: BTreeMap<(Section, String), Value>,
}

impl Desired {
    /// The number of what a guest is copied from; nothing where the catalogue has no such name.
    pub fn source(&self, clone: &CloneOf) -> Option<i64> {
        match &clone.from {
            Source::Number(vmid) => Some(*vmid),
            Source::Name(name) => {
                self.sections.get(&(Section::Templates, name.clone()))?.get("vmid")?.as_i64()
            }
        }
    }

    /// SHA-256 of what the document tells of it: a line of canonical JSON for all that is no guest, and one for each guest after its kind.
    /// They are made one by one, because those of ten thousand guests would take a hundred megabytes.
    pub fn sha256(&self) -> String {
        let mut sha256 = Sha256::new();
        let mut line = |kind: &str, entry: serde_json::Result<Value>| {
            sha256.update(format!("{kind} {}\n", canonical_json(&entry.unwrap_or_default())));
        };
        let Self { cluster, node, sections, .. } = self;
        let (cluster, node, sections) = (cluster.clone(), node.clone(), sections.clone());
        let rest = Self { cluster, node, sections, guests: BTreeMap::new() };
        line("estate", serde_json::to_value(to_document(&rest)));
        for guest in self.guests.values() {
            line(guest.kind.as_str(), serde_json::to_value(guest_entry(guest)));
        }
        hex(&sha256.finalize())
    }
}

/// A part of the document that is not managed yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Section {
    /// `templates`. It is used, and nothing of it is managed.
    Templates,
    /// `storage`.
    Storage,
    /// `network`.
    Network,
    /// `cluster`.
    Cluster,
    /// `backups`.
    Backups,
    /// `ha`.
    Ha,
}

impl Section {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Templates, Self::Storage, Self::Network, Self::Cluster, Self::Backups, Self::Ha];

    /// Its key in the document.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Templates => "templates",
            Self::Storage => "storage",
            Self::Network => "network",
            Self::Cluster => "cluster",
            Self::Backups => "backups",
            Self::Ha => "ha",
        }
    }
}

/// A desired guest.
#[derive(Debug, Clone, PartialEq)]
pub struct Guest {
    /// What identifies it, for as long as it is desired.
    pub uid: String,
    /// Machine or container.
    pub kind: GuestType,
    /// Its number.
    pub vmid: Option<i64>,
    /// The node that it has to be on.
    pub node: Option<String>,
    /// The nodes that it may be on; empty where it may be on any.
    pub nodes: BTreeSet<String>,
    /// The nodes that it is rather put on where there is a choice: some of `nodes`, where that names any.
    pub prefer: BTreeSet<String>,
    /// Whether it runs.
    pub state: Option<Power>,
    /// Whether it is only watched.
    pub policy: Policy,
    /// It is never deleted.
    pub protected: bool,
    /// Whether a tombstone may delete it.
    pub deletion: Deletion,
    /// Whether a change may restart it.
    pub reboot: Reboot,
    /// Whether volumes that only its node has are copied when it migrates.
    pub local_disks: LocalDisks,
    /// What is done where it does not shut down in time.
    pub shutdown: Shutdown,
    /// It shall be gone.
    pub tombstone: bool,
    /// It is a template.
    pub template: bool,
    /// Options to remove: `balloon`, `net0.tag`.
    pub unset: BTreeSet<String>,
    /// Options by PVE's names. A property string has only the options that are desired.
    pub fields: BTreeMap<String, Canonical>,
    /// Where cloud-init's password is.
    pub cipassword: Option<SecretRef>,
    /// Where the superuser's password of a new container is.
    pub password: Option<SecretRef>,
    /// Guests that have to run before it.
    pub depends_on: BTreeSet<String>,
    /// Guests that must not be on its node.
    pub anti_affinity: BTreeSet<String>,
    /// What a new guest is copied from.
    pub clone_of: Option<CloneOf>,
    /// The template of a new container.
    pub ostemplate: Option<String>,
    /// Words for readers.
    pub comment: Option<String>,
    /// What is stored and not managed yet, by key.
    pub not_managed: BTreeMap<String, Value>,
}

impl Guest {
    /// A guest of which nothing is desired.
    pub fn new(uid: impl Into<String>, kind: GuestType) -> Self {
        Self {
            uid: uid.into(),
            kind,
            vmid: None,
            node: None,
            nodes: BTreeSet::new(),
            prefer: BTreeSet::new(),
            state: None,
            policy: Policy::default(),
            protected: false,
            deletion: Deletion::default(),
            reboot: Reboot::default(),
            local_disks: LocalDisks::default(),
            shutdown: Shutdown::default(),
            tombstone: false,
            template: false,
            unset: BTreeSet::new(),
            fields: BTreeMap::new(),
            cipassword: None,
            password: None,
            depends_on: BTreeSet::new(),
            anti_affinity: BTreeSet::new(),
            clone_of: None,
            ostemplate: None,
            comment: None,
            not_managed: BTreeMap::new(),
        }
    }

    /// May it be on this node?
    pub fn may_be_on(&self, node: &str) -> bool {
        self.node.as_ref().is_none_or(|pinned| pinned == node)
            && (self.nodes.is_empty() || self.nodes.contains(node))
    }

    /// Where it has to be, as differences show it: a node, or several of which one is enough. Nothing where it may be anywhere.
    pub fn place(&self) -> Option<String> {
        let nodes = || self.nodes.iter().map(String::as_str).collect::<Vec<_>>().join(" or ");
        self.node.clone().or_else(|| Some(nodes()).filter(|nodes| !nodes.is_empty()))
    }

    /// What to call it in messages: `web (guest 100)`.
    pub fn label(&self) -> String {
        match self.vmid {
            Some(vmid) => format!("{} (guest {vmid})", self.uid),
            None => self.uid.clone(),
        }
    }
}

/// The identifier of a guest that names none.
pub fn default_uid(kind: GuestType, vmid: i64) -> String {
    match kind {
        GuestType::Qemu => format!("vm-{vmid}"),
        GuestType::Lxc => format!("ct-{vmid}"),
    }
}
