//! What may be done at once. Pure: which of the operations that are ready can join those that run.

use std::collections::{BTreeMap, BTreeSet};

use super::make::made;
use crate::desired::Desired;
use crate::plan::{Action, FormValue, Operation};

/// Operations at once on one node. A task of PVE's may take a whole disk's bandwidth.
pub const PER_NODE: usize = 2;
/// Operations at once in a cluster.
pub const PER_CLUSTER: usize = 8;

/// What an operation holds while it runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs {
    /// The guest's number.
    pub vmid: i64,
    /// The nodes that work.
    pub nodes: BTreeSet<String>,
    /// The storages on which room is allocated.
    pub storages: BTreeSet<String>,
    /// The guest that is cloned.
    pub source: Option<i64>,
    /// The group of guests of which only one may be down, where this one goes down.
    pub down_in: Option<usize>,
}

impl Needs {
    /// What an operation needs. `groups`: see [`groups`]; `storages_of` tells the storages of a guest's disks by their keys.
    pub fn of(
        operation: &Operation,
        groups: &BTreeMap<String, usize>,
        storages_of: impl Fn(i64) -> BTreeMap<String, String>,
    ) -> Self {
        let mut needs = Self { vmid: operation.vmid, ..Self::default() };
        needs.nodes.insert(operation.node.clone());
        for request in &operation.requests {
            let plain = |name: &str| match request.set.get(name) {
                Some(FormValue::Plain(text)) => Some(text.as_str()),
                _ => None,
            };
            needs.nodes.extend(plain("target").map(str::to_owned));
            if matches!(operation.action, Action::Create | Action::Move) {
                needs.storages.extend(plain("storage").map(str::to_owned));
            }
            if operation.action == Action::Grow {
                needs
                    .storages
                    .extend(plain("disk").and_then(|disk| storages_of(operation.vmid).remove(disk)));
            }
            if let Some(made) = made(request) {
                needs.source = needs.source.or(made.source);
                needs.nodes.insert(made.node);
                // Where no storage is named, copies come to be where the source's volumes are.
                if plain("storage").is_none() {
                    needs
                        .storages
                        .extend(made.source.into_iter().flat_map(|source| storages_of(source).into_values()));
                }
            }
            // `local-lvm:32` makes a new volume.
            for value in request.set.values() {
                if let FormValue::Plain(text) = value {
                    needs.storages.extend(allocated(text).map(|(storage, _)| storage.to_owned()));
                }
            }
        }
        if operation.effect.interrupts() {
            needs.down_in = groups.get(&operation.uid).copied();
        }
        needs
    }

    /// Can it run beside these?
    pub fn fits<'a>(&self, running: impl Iterator<Item = &'a Self> + Clone) -> bool {
        let on = |node: &String| running.clone().filter(|other| other.nodes.contains(node)).count();
        running.clone().count() < PER_CLUSTER
            && self.nodes.iter().all(|node| on(node) < PER_NODE)
            && running.clone().all(|other| {
                let clones = self.source.is_some() && self.source == other.source;
                let down = self.down_in.is_some() && self.down_in == other.down_in;
                // While it is copied it stays as it is: what builds on it can't be seen before the copy is whole.
                let copied = self.source == Some(other.vmid) || other.source == Some(self.vmid);
                self.vmid != other.vmid
                    && self.storages.is_disjoint(&other.storages)
                    && !clones
                    && !copied
                    && !down
            })
    }
}

/// Storage and size (GiB) of a volume that a value allocates.
pub(super) fn allocated(value: &str) -> Option<(&str, &str)> {
    let first = value.split(',').next()?;
    let first = first.strip_prefix("file=").or_else(|| first.strip_prefix("volume=")).unwrap_or(first);
    let (storage, size) = first.split_once(':')?;
    let is_size = !size.is_empty() && size.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    (is_size && !storage.is_empty()).then_some((storage, size))
}

/// Guests that depend on each other, or must not be on one node, in one group each: two of a group are never down at once.
pub fn groups(desired: &Desired) -> BTreeMap<String, usize> {
    let mut group: BTreeMap<String, usize> =
        desired.guests.keys().enumerate().map(|(at, uid)| (uid.clone(), at)).collect();
    for guest in desired.guests.values() {
        for other in guest.depends_on.iter().chain(&guest.anti_affinity) {
            let (Some(one), Some(other)) = (group.get(&guest.uid).copied(), group.get(other).copied()) else {
                continue;
            };
            group.values_mut().filter(|group| **group == other).for_each(|group| *group = one);
        }
    }
    group
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needs(vmid: i64, node: &str) -> Needs {
        Needs { vmid, nodes: BTreeSet::from([node.to_owned()]), ..Needs::default() }
    }

    fn on(storage: &str, vmid: i64, node: &str) -> Needs {
        Needs { storages: BTreeSet::from([storage.to_owned()]), ..needs(vmid, node) }
    }

    #[test]
    fn the_limits_of_guest_node_and_cluster() {
        let node = |at: i64| format!("pve{}", at % 20);
        let eight: Vec<Needs> = (0..8).map(|at| needs(at, &node(at))).collect();
        assert!(needs(100, "x").fits(eight.iter().take(7)));
        assert!(!needs(100, "x").fits(eight.iter()), "eight in the cluster");
        let two = [needs(1, "a"), needs(2, "a")];
        assert!(needs(3, "a").fits(two.iter().take(1)));
        assert!(!needs(3, "a").fits(two.iter()), "two on the node");
        assert!(needs(3, "b").fits(two.iter()));
        assert!(!needs(2, "b").fits(two.iter()), "one for the guest");
    }

    #[test]
    fn the_limits_of_storages_sources_and_groups() {
        let running = [on("lvm", 1, "a")];
        assert!(!on("lvm", 2, "b").fits(running.iter()) && on("zfs", 2, "b").fits(running.iter()));
        let clone = |vmid, source| Needs { source: Some(source), ..needs(vmid, "b") };
        assert!(!clone(2, 9).fits([clone(3, 9)].iter()) && clone(2, 8).fits([clone(3, 9)].iter()));
        assert!(!clone(2, 9).fits([needs(9, "a")].iter()), "what is copied is worked on");
        assert!(!needs(9, "a").fits([clone(2, 9)].iter()), "what is worked on is copied");
        let down = |vmid, group| Needs { down_in: Some(group), ..needs(vmid, "b") };
        assert!(!down(2, 0).fits([down(3, 0)].iter()) && down(2, 1).fits([down(3, 0)].iter()));
        assert!(needs(2, "b").fits([down(3, 0)].iter()), "what stays up may go on");
    }

    #[test]
    fn volumes_that_are_made_are_told_from_those_that_are_there() {
        assert_eq!(allocated("local-lvm:32,iothread=1"), Some(("local-lvm", "32")));
        assert_eq!(allocated("file=a:0.5"), Some(("a", "0.5")));
        for other in [
            "local-lvm:vm-100-disk-0,size=32G",
            "virtio=BC:24:11:00:00:01,bridge=vmbr0",
            "none,media=cdrom",
            "4",
        ] {
            assert_eq!(allocated(other), None, "{other}");
        }
    }
}
