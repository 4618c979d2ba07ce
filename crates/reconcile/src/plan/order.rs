//! In which order operations are done, and who feels them.

use std::collections::{BTreeMap, BTreeSet};

use super::{Action, Effect, Operation};
use crate::desired::Desired;

/// Who depends on whom.
pub(super) struct Dependents<'a>(BTreeMap<&'a str, Vec<&'a str>>);

impl<'a> Dependents<'a> {
    pub(super) fn of(desired: &'a Desired) -> Self {
        let mut all: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for guest in desired.guests.values() {
            for needed in &guest.depends_on {
                all.entry(needed).or_default().push(&guest.uid);
            }
        }
        Self(all)
    }

    /// The guests that depend on this one directly.
    fn direct(&self, uid: &str) -> &[&'a str] {
        self.0.get(uid).map(Vec::as_slice).unwrap_or_default()
    }

    /// The guests that depend on this one, directly or through others.
    pub(super) fn all(&self, uid: &str) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        let mut open = vec![uid];
        while let Some(next) = open.pop() {
            for other in self.direct(next) {
                if *other != uid && found.insert((*other).to_owned()) {
                    open.push(other);
                }
            }
        }
        found
    }
}

/// How many guests have to come before each one. There are no cycles: the desired state was checked.
fn depths(desired: &Desired) -> BTreeMap<&str, i64> {
    let mut depths: BTreeMap<&str, i64> = desired.guests.keys().map(|uid| (uid.as_str(), 0)).collect();
    // The longest path has fewer steps than there are guests.
    for _ in 0..desired.guests.len() {
        let mut changed = false;
        for guest in desired.guests.values() {
            let below = guest
                .depends_on
                .iter()
                .filter_map(|uid| depths.get(uid.as_str()))
                .max()
                .map_or(0, |depth| depth + 1);
            if depths.get(guest.uid.as_str()) != Some(&below) {
                depths.insert(&guest.uid, below);
                changed = true;
            }
        }
        if !changed {
            break;
        }
    }
    depths
}

/// What goes down goes in the other order: who depends on others first.
fn down(operation: &Operation) -> bool {
    matches!(operation.effect, Effect::Stop | Effect::Delete)
}

/// A snapshot beside other operations is of the guest as it is before them; the marker is put on first, because nothing is done without it.
fn rank(action: Action) -> (bool, Action) {
    let before = matches!(action, Action::Create | Action::Mark);
    (!(before || action == Action::Snapshot), action)
}

/// Puts operations into their order and says of each which ones have to be done before.
pub(super) fn order(desired: &Desired, dependents: &Dependents<'_>, operations: &mut [Operation]) {
    let depth = depths(desired);
    operations.sort_by_cached_key(|operation| {
        let depth = depth.get(operation.uid.as_str()).copied().unwrap_or_default();
        let (up, depth) = if down(operation) { (false, -depth) } else { (true, depth) };
        (rank(operation.action), up, depth, operation.uid.clone())
    });
    let mut last: BTreeMap<String, usize> = BTreeMap::new();
    let mut same: BTreeMap<(Action, bool, String), usize> = BTreeMap::new();
    let mut copies: BTreeMap<i64, BTreeSet<usize>> = BTreeMap::new();
    for (at, operation) in operations.iter_mut().enumerate() {
        operation.number = at + 1;
        let mut after: BTreeSet<usize> = last.get(&operation.uid).copied().into_iter().collect();
        let down = down(operation);
        let others: Vec<&str> = if down {
            dependents.direct(&operation.uid).to_vec()
        } else {
            let needed = desired.guests.get(&operation.uid).map(|guest| &guest.depends_on);
            needed.into_iter().flatten().map(String::as_str).collect()
        };
        for other in others {
            after.extend(same.get(&(operation.action, down, other.to_owned())));
        }
        // What is copied stays as it is, and stays at all, until its copies are made.
        after.extend(copies.get(&operation.vmid).into_iter().flatten());
        if operation.action == Action::Create
            && let Some(source) = super::clone::copied(desired, &operation.uid)
        {
            copies.entry(source).or_default().insert(operation.number);
        }
        operation.after = after;
        last.insert(operation.uid.clone(), operation.number);
        same.insert((operation.action, down, operation.uid.clone()), operation.number);
    }
}
