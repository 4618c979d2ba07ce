//! Live guests become desired ones as they are, bound to what they are now. Nothing is read or written here.

use std::collections::{BTreeMap, BTreeSet};

use crate::desired::{Desired, Guest};
use crate::diff;
use crate::discover::{Omit, guest_as_desired};
use crate::document::Policy;
use crate::live::Live;
use crate::stored::{Binding, Stored, bound_to, number};

/// How guests are adopted.
#[derive(Debug, Clone, Copy, Default)]
pub struct How {
    /// They may be changed later; without it they are only observed, also where they were managed before.
    pub manage: bool,
    /// Where something else is desired of a guest, what it is takes its place.
    pub replace: bool,
    /// Descriptions and `args`, which may hold secrets, are taken over too.
    pub with_texts: bool,
}

/// What is desired afterwards, and what binds it.
#[derive(Debug, Clone)]
pub struct Adopted {
    /// The desired state.
    pub to: Desired,
    /// The binding of each adopted guest.
    pub bind: Vec<Binding>,
    /// What was left out, by guest.
    pub left_out: Vec<(i64, String)>,
}

/// Adopts the guests that were read.
///
/// # Errors
/// Why not, and the mend: something else is desired of a guest, its `uid` is another's, or another guest has its number now.
pub fn adopted(from: &Stored, live: &Live, how: How) -> Result<Adopted, String> {
    let mut all = Adopted { to: from.desired.clone(), bind: Vec::new(), left_out: Vec::new() };
    // A guest that was made without a number is known by the one that its binding has.
    let by_vmid: BTreeMap<i64, String> = all
        .to
        .guests
        .values()
        .filter_map(|guest| Some((number(&from.bindings, guest)?, guest.uid.clone())))
        .collect();
    for has in live.guests.values() {
        let (mut guest, left_out) =
            guest_as_desired(has, Omit { free_text: !how.with_texts, placement: true });
        all.left_out.extend(left_out.into_iter().map(|text| (has.vmid, text)));
        let policy = if how.manage { Policy::Manage } else { Policy::Observe };
        guest.policy = policy;
        if let Some(known) = by_vmid.get(&has.vmid).and_then(|uid| from.desired.guests.get(uid)) {
            let differs = diff::diff(known, has, &BTreeMap::new(), live.style);
            if differs.noop() {
                // It is desired as it is; the rest is nobody's wish.
                guest = Guest { policy, ..known.clone() };
            } else if how.replace {
                guest = replaced(known, guest, &has.node);
            } else {
                return Err(format!(
                    "something else is desired of it, and nothing was changed: align them first, or take over what it is with \
                     --replace\n{differs}"
                ));
            }
        } else if all.to.guests.contains_key(&guest.uid) {
            return Err(format!(
                "guest {}: the `uid` {} is another desired guest's: rename that one; nothing was changed",
                has.vmid, guest.uid
            ));
        }
        let before = bound_to(&from.bindings, &guest.uid);
        if !how.replace && before.is_some_and(|before| !before.is_of(&all.to.cluster, has)) {
            return Err(format!(
                "guest {} is another one than was adopted as {}: look at it, and adopt it again with --replace; nothing was changed",
                has.vmid, guest.uid
            ));
        }
        all.bind.push(Binding {
            uid: guest.uid.clone(),
            kind: has.kind,
            vmid: has.vmid,
            fingerprint: has.fingerprint(),
            last_applied: before.and_then(|before| before.last_applied),
            reserved_by: None,
            destroyed_at: None,
        });
        all.to.guests.insert(guest.uid.clone(), guest);
    }
    Ok(all)
}

/// What the guest is, with what was desired of it and is not of the guest itself. `on`: the node that it is on.
fn replaced(known: &Guest, is: Guest, on: &str) -> Guest {
    Guest {
        uid: known.uid.clone(),
        vmid: known.vmid,
        protected: known.protected,
        deletion: known.deletion,
        reboot: known.reboot,
        local_disks: known.local_disks,
        shutdown: known.shutdown,
        nodes: if known.nodes.contains(on) { known.nodes.clone() } else { BTreeSet::new() },
        prefer: known.prefer.clone(),
        depends_on: known.depends_on.clone(),
        anti_affinity: known.anti_affinity.clone(),
        comment: known.comment.clone(),
        not_managed: known.not_managed.clone(),
        ..is
    }
}
