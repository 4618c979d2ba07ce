//! The desired state in the graph: reading it, also where it was written by hand, and writing it in one transaction.

mod approval;
mod history;
mod permission;
mod place;
mod read;
mod rows;
mod synced;
mod write;

use std::borrow::Cow;
use std::collections::BTreeMap;

use pvegraph_graph::StoreError;
use pvegraph_inventory::{ClusterId, GuestType};

pub use approval::{Approval, NotApproved, approval, approve};
pub use history::{EndOf, RunOf};
pub use permission::{policies, put_policy, put_scope, remove_policy, remove_scope, scopes};
pub use read::{clusters, inventory, read};
pub use synced::{outdated, synced_at};
pub use write::{Change, bound, released, unreserved, write};

use crate::desired::{Desired, Guest, Problem};
use crate::live::LiveGuest;

/// What the graph has of one cluster's desired state.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored {
    /// The desired state.
    pub desired: Desired,
    /// Counts the writes; 0 where nothing was written yet.
    pub generation: i64,
    /// When it was written last, in epoch seconds; 0 likewise.
    pub written_at: i64,
    /// Bindings by `uid`.
    pub bindings: BTreeMap<String, Binding>,
    /// SHA-256 of the desired state as it was written: numbers that bindings give are not in it. See [`Desired::sha256`].
    pub sha256: String,
}

impl Stored {
    /// The same, where a desired guest without a number has the one that it was made with or bound to.
    #[must_use]
    pub fn with_numbers(mut self) -> Self {
        if let Cow::Owned(desired) = numbered(&self.bindings, &self.desired) {
            self.desired = desired;
        }
        self
    }
}

/// A desired guest's number: the one that it names, or that of its binding.
pub fn number(bindings: &BTreeMap<String, Binding>, guest: &Guest) -> Option<i64> {
    guest.vmid.or_else(|| bound_to(bindings, &guest.uid).map(|binding| binding.vmid))
}

/// A desired state in which each guest has its [`number`].
pub fn numbered<'a>(bindings: &BTreeMap<String, Binding>, desired: &'a Desired) -> Cow<'a, Desired> {
    let mut numbered = Cow::Borrowed(desired);
    for guest in desired.guests.values().filter(|guest| guest.vmid.is_none()) {
        let Some(vmid) = number(bindings, guest) else { continue };
        if let Some(guest) = numbered.to_mut().guests.get_mut(&guest.uid) {
            guest.vmid = Some(vmid);
        }
    }
    numbered
}

/// What ties a desired guest to the live one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// The desired guest.
    pub uid: String,
    /// Machine or container.
    pub kind: GuestType,
    /// The live guest's number.
    pub vmid: i64,
    /// A machine's SMBIOS UUID, a container's root volume.
    pub fingerprint: Option<String>,
    /// When a change was applied last, in epoch seconds.
    pub last_applied: Option<i64>,
    /// The run that makes the guest: its number is kept for it, and the guest is not there yet, or not finished.
    pub reserved_by: Option<String>,
    /// When the guest was deleted, in epoch seconds: it binds nothing any more.
    pub destroyed_at: Option<i64>,
}

/// What binds a desired guest; nothing where its guest was deleted.
pub fn bound_to<'a>(bindings: &'a BTreeMap<String, Binding>, uid: &str) -> Option<&'a Binding> {
    bindings.get(uid).filter(|binding| binding.destroyed_at.is_none())
}

/// Was this guest deleted as it was desired? Whatever has its number now is somebody else's.
pub fn is_done(bindings: &BTreeMap<String, Binding>, guest: &crate::desired::Guest) -> bool {
    guest.tombstone && bindings.get(&guest.uid).is_some_and(|binding| binding.destroyed_at.is_some())
}

impl Binding {
    /// Is this guest the one that was bound, or the one that a run has made under the number that was kept for it? The last line of the
    /// description comes with the call that makes a guest, so that it is there from the start.
    pub fn is_of(&self, cluster: &ClusterId, guest: &LiveGuest) -> bool {
        let same = match &self.reserved_by {
            Some(_) => {
                let told = self.fingerprint.is_none() || self.fingerprint == guest.fingerprint();
                told && guest.is_signed(cluster, &self.uid)
            }
            None => self.fingerprint == guest.fingerprint(),
        };
        self.kind == guest.kind && self.vmid == guest.vmid && same
    }
}

/// The subject of problems that are no guest's.
pub const THE_DOCUMENT: &str = "the document";

/// What the graph knows of the cluster itself, to check a desired state against. Empty where it was never synced.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inventory {
    /// Names of nodes.
    pub nodes: Vec<String>,
    /// Names of storages.
    pub storages: Vec<String>,
    /// Kinds of guests by number.
    pub guests: BTreeMap<i64, String>,
}

impl Inventory {
    /// What can't be, as far as the last sync saw the cluster. A storage that the document itself desires is let through.
    pub fn check(&self, desired: &Desired) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.nodes.is_empty() {
            return problems;
        }
        let unknown = |subject: String, field: &str, what: &str, name: &str, known: &[String]| {
            let text = format!(
                "the cluster has no {what} {name:?}: write one of {}, or sync first if it is new",
                known.join(", ")
            );
            Problem::new(subject, field, text)
        };
        if let Some(node) = desired.node.as_ref().filter(|node| !self.nodes.contains(node)) {
            problems.push(unknown(THE_DOCUMENT.to_owned(), "node", "node", node, &self.nodes));
        }
        for guest in desired.guests.values() {
            let places = guest.node.iter().map(|node| ("node", node));
            let places = places.chain(guest.nodes.iter().map(|node| ("nodes", node)));
            for (field, node) in places.chain(guest.prefer.iter().map(|node| ("prefer", node))) {
                if !self.nodes.contains(node) {
                    problems.push(unknown(guest.label(), field, "node", node, &self.nodes));
                }
            }
            problems.extend(self.taken(guest));
            if self.storages.is_empty() {
                continue;
            }
            for (key, storage) in storages(guest) {
                let desired_too = desired
                    .sections
                    .keys()
                    .any(|(section, name)| *section == crate::desired::Section::Storage && *name == storage);
                if !self.storages.contains(&storage) && !desired_too {
                    problems.push(unknown(
                        guest.label(),
                        &format!("{key}.storage"),
                        "storage",
                        &storage,
                        &self.storages,
                    ));
                }
            }
        }
        problems
    }

    fn taken(&self, guest: &Guest) -> Option<Problem> {
        let has = self.guests.get(&guest.vmid?).filter(|kind| *kind != guest.kind.as_str())?;
        let word = |kind: &str| if kind == "lxc" { "a container" } else { "a virtual machine" };
        let text = format!(
            "{} has this number already, and {} is desired: give it another one",
            word(has),
            word(guest.kind.as_str())
        );
        Some(Problem::new(guest.label(), "vmid", text))
    }
}

/// The storages that a guest's disks are desired on, by the disks' keys.
fn storages(guest: &Guest) -> impl Iterator<Item = (&String, String)> {
    guest.fields.iter().filter_map(|(key, value)| match value {
        crate::canonical::Canonical::Map(map) => Some((key, map.get("storage")?.to_string())),
        _ => None,
    })
}

/// Why the desired state could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoredError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What is in the graph can't be a desired state.
    #[error("the desired state in the graph can't be used:\n{}", .0.iter().map(|problem| format!("  {problem}")).collect::<Vec<_>>().join("\n"))]
    Problems(Vec<Problem>),
    /// Somebody else wrote meanwhile.
    #[error(
        "the desired state of {0} was changed by somebody else meanwhile, and nothing was written: run the command again"
    )]
    Changed(pvegraph_inventory::ClusterId),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_without_a_number_has_its_bindings() {
        let cluster: pvegraph_inventory::ClusterId = "rig".parse().unwrap();
        let guest = |uid: &str, vmid| {
            let guest = Guest { vmid, ..Guest::new(uid, GuestType::Qemu) };
            (uid.to_owned(), guest)
        };
        let guests = BTreeMap::from([guest("new", None), guest("made", None), guest("told", Some(100))]);
        let desired = Desired { cluster, node: None, guests, sections: BTreeMap::new() };
        let bound = |uid: &str, vmid| {
            let kind = GuestType::Qemu;
            (
                uid.to_owned(),
                Binding {
                    uid: uid.to_owned(),
                    kind,
                    vmid,
                    fingerprint: None,
                    last_applied: None,
                    reserved_by: None,
                    destroyed_at: None,
                },
            )
        };
        let bindings = BTreeMap::from([bound("made", 101), bound("told", 999)]);
        let stored =
            Stored { desired, generation: 1, written_at: 1, bindings, sha256: String::new() }.with_numbers();
        let vmids: Vec<_> = stored.desired.guests.values().map(|guest| guest.vmid).collect();
        assert_eq!(vmids, [Some(101), None, Some(100)]);
    }
}
