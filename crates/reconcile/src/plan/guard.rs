//! What forbids operations: ownership, scopes, protection, locks, limits.

use std::collections::BTreeMap;

use super::{Action, Input, Operation, Plan};
use crate::desired::{Guest, Problem};
use crate::diff::{Change, Class, GuestDiff};
use crate::document::{Deletion, Policy};
use crate::live::LiveGuest;
use crate::marker;
use crate::scope::{self, Scope};
use crate::stored::{Binding, bound_to};

/// A plan that restarts or deletes more guests than this is refused, whatever share of the estate they are.
pub const MAX_FELLED: usize = 5;
/// A plan that restarts or deletes more than one in this many guests is refused, where that is more than one guest.
pub const FELLED_ONE_IN: usize = 10;

/// The field, and the mend.
pub(super) type Forbidden = (String, String);

fn forbidden(field: &str, text: impl Into<String>) -> Forbidden {
    (field.to_owned(), text.into())
}

/// What no operation can mend, whichever it would be.
pub(super) fn hopeless(diff: &GuestDiff, binding: Option<&Binding>) -> Option<Forbidden> {
    let is = |class: &dyn Fn(&Class) -> bool| diff.changes.iter().find(|change| class(&change.class));
    if let Some(change) = is(&|class| *class == Class::IdentityConflict) {
        let text = if let Some(run) = reserved(binding) {
            format!(
                "its number was kept for it, and what has it now is not known to be this guest: where the run {run} is making it just now, wait; where that was cut off, `pvegraph resume`; else it is another guest: run `pvegraph release {}`, and plan again",
                diff.uid
            )
        } else {
            "the live guest is another one: look at it, and adopt it with --replace if it is meant".to_owned()
        };
        return Some(forbidden(&change.field, text));
    }
    diff.changes.iter().find_map(|Change { field, class, .. }| match class {
        Class::Impossible(why) => Some(forbidden(field, *why)),
        _ => None,
    })
}

/// A guest that is not there: absence never makes a second guest of one that was there.
pub(super) fn gone(binding: Option<&Binding>) -> Option<Forbidden> {
    // A number that was kept for a guest which was never made is still kept.
    binding.filter(|binding| binding.reserved_by.is_none()).map(|binding| {
        let mend = format!(
            "it was adopted or made before and is gone: look for it, and run `pvegraph release {}` to have it made anew",
            binding.uid
        );
        forbidden("guest", mend)
    })
}

/// The run that makes, or made, this guest, and has not bound it yet.
pub(super) fn reserved(binding: Option<&Binding>) -> Option<&str> {
    binding?.reserved_by.as_deref()
}

/// The four keys, in the order in which they are mended: binding and fingerprint (a difference of its own before), scope, marker.
pub(super) fn keys<'a>(input: &Input<'a>, guest: &Guest, live: &LiveGuest) -> Result<&'a Scope, Forbidden> {
    if bound_to(input.bindings, &guest.uid).is_none() {
        let text = format!(
            "the guest {} ({}) is there already and not bound: desire another number, or, if it is this very guest that is meant, \
             run `pvegraph adopt {}`",
            live.vmid,
            live.name().unwrap_or("without a name"),
            live.vmid
        );
        return Err(forbidden("guest", text));
    }
    if live.fingerprint().is_none() {
        let text = "it has neither an SMBIOS UUID nor a root volume, so that nothing tells it from another guest: give it one \
                    (`smbios1`) at Proxmox VE, and adopt it again";
        return Err(forbidden("identity", text));
    }
    let scope = scope_of(input.scopes, live.vmid)?;
    if let Some(pool) = scope.pool.as_ref().filter(|pool| live.pool.as_ref() != Some(pool)) {
        let text = format!(
            "the guests of scope {} are in the pool {pool}, and this one is not: add it there, or desire \
             another number",
            scope.name
        );
        return Err(forbidden("pool", text));
    }
    let marks =
        input.consent.mark.contains(&guest.uid) || reserved(bound_to(input.bindings, &guest.uid)).is_some();
    if !live.is_marked(&input.desired.cluster, &guest.uid) && !marks {
        let other = live.config.get("description").and_then(|text| marker::trailer_of(text));
        let text = match other.filter(|line| *line != marker::trailer(&input.desired.cluster, &guest.uid)) {
            Some(line) => format!(
                "identity conflict: it says that it is {line}, as a clone of that one does: if it is meant, plan with --mark {}",
                guest.uid
            ),
            None => format!(
                "it has not the marker of a managed guest (tag `{}`, last line of the description): plan with --mark {} to put \
                 it on",
                marker::TAG,
                guest.uid
            ),
        };
        return Err(forbidden("marker", text));
    }
    Ok(scope)
}

/// The scope of a number, if anything may be done there.
pub(super) fn scope_of(scopes: &[Scope], vmid: i64) -> Result<&Scope, Forbidden> {
    let Some(scope) = scope::of(scopes, vmid) else {
        let text = format!(
            "{vmid} is in no scope in which guests may be touched: `pvegraph scope set NAME --vmids FIRST-LAST`"
        );
        return Err(forbidden("vmid", text));
    };
    if scope.paused {
        let text =
            format!("the scope {} is paused: `pvegraph scope set {} --resume`", scope.name, scope.name);
        return Err(forbidden("scope", text));
    }
    Ok(scope)
}

/// Whether the scope allows the operation.
pub(super) fn allowed(scope: &Scope, action: Action) -> Result<(), Forbidden> {
    let needed = if action == Action::Mark { Action::Configure } else { action };
    if scope.allow.contains(&needed) {
        return Ok(());
    }
    let text =
        format!("the scope {} does not allow to {}: add it to its `allow`", scope.name, needed.as_str());
    Err(forbidden("scope", text))
}

/// No volume of another guest is attached: the number of a guest that names none is known only now.
pub(super) fn own_volumes(guest: &Guest) -> Result<(), Forbidden> {
    crate::desired::foreign(guest).map_or(Ok(()), Err)
}

/// A guest that Proxmox VE has locked.
pub(super) fn locked(live: &LiveGuest) -> Result<(), Forbidden> {
    match live.config.get("lock") {
        Some(lock) => {
            Err(forbidden("lock", format!("Proxmox VE has it locked ({lock}): wait for that to end")))
        }
        None => Ok(()),
    }
}

/// Neither the guest nor its disks may go.
pub fn protected(guest: &Guest, live: &LiveGuest) -> bool {
    guest.protected || live.config.get("protection").is_some_and(|value| value == "1")
}

/// Which key to a deletion is absent.
pub(super) fn deletion(
    input: &Input<'_>,
    guest: &Guest,
    live: &LiveGuest,
    scope: &Scope,
) -> Result<(), Forbidden> {
    let absent = |text: String| Err(forbidden("tombstone", text));
    if protected(guest, live) {
        return absent(
            "it is protected: take `protected` here and `protection` at the guest away first".to_owned(),
        );
    }
    if guest.deletion != Deletion::Destroy {
        return absent("its `deletion` is `forbid`: write `destroy`".to_owned());
    }
    allowed(scope, Action::Destroy)?;
    if scope.max_deletes == 0 {
        return absent(format!("the scope {} allows 0 deletions (`max_deletes`): raise that", scope.name));
    }
    if !input.consent.delete.contains(&guest.uid) {
        return absent(format!("nobody agreed to it for this plan: plan with --allow-delete {}", guest.uid));
    }
    if live.status != "stopped" {
        return Err(forbidden(
            "state",
            format!("it is {}: stop it first, then plan its deletion", live.status),
        ));
    }
    if live.ha.is_some() {
        return Err(forbidden("ha", "high availability manages it: take it out of that first"));
    }
    if input.around.replicated.contains(&live.vmid) {
        return Err(forbidden("replication", "replication copies it: take its jobs away first"));
    }
    if let Some(clones) = input.around.clones.get(&live.vmid).filter(|clones| !clones.is_empty()) {
        let all = clones.iter().map(i64::to_string).collect::<Vec<_>>().join(", ");
        return Err(forbidden("guest", format!("linked clones build on it ({all}): delete these first")));
    }
    Ok(())
}

/// Why these operations are too many for one plan of an estate of so many guests: for how many of them it is out of service.
pub fn too_many(guests: usize, operations: &[Operation]) -> Option<String> {
    let share = (guests / FELLED_ONE_IN).clamp(1, MAX_FELLED);
    let (down, deletes) = (scope::down(operations, |_| true), scope::deleted(operations, |_| true));
    (down + deletes > share).then(|| {
        format!(
            "{down} of {guests} guests would go down and {deletes} be deleted, and at most {share} may in one plan: change fewer at once, \
             or let fewer restart (`reboot`)"
        )
    })
}

/// The limits of the estate and of each scope.
pub(super) fn limits(input: &Input<'_>, plan: &Plan) -> Vec<Problem> {
    let mut problems = Vec::new();
    if let Some(text) = too_many(input.desired.guests.len(), &plan.operations) {
        problems.push(Problem::new("the estate", "reboot", text));
    }
    for scope in input.scopes {
        for (field, limit, count, word) in scope.limits(&plan.operations) {
            if let Some(limit) = limit.filter(|limit| count > *limit) {
                let text =
                    format!("{count} guests would {word}, and the scope allows {limit}: do fewer at once");
                problems.push(Problem::new(format!("scope {}", scope.name), field, text));
            }
        }
    }
    problems
}

/// A guest that this very plan makes linked copies of can't be deleted by it.
pub(super) fn copied_from(input: &Input<'_>, plan: &Plan) -> Vec<Problem> {
    let of = |action: Action| plan.operations.iter().filter(move |operation| operation.action == action);
    let linked: BTreeMap<i64, &str> = of(Action::Create)
        .filter(|operation| super::clone::is_linked(operation))
        .filter_map(|operation| Some((super::clone::copied(input.desired, &operation.uid)?, &*operation.uid)))
        .collect();
    let destroyed = of(Action::Destroy).filter_map(|operation| {
        let uid = linked.get(&operation.vmid)?;
        let text = format!(
            "{uid} is made as a copy that builds on it: let that be a whole copy (`clone.full: true`), or keep this one"
        );
        Some(Problem::new(format!("{} (guest {})", operation.uid, operation.vmid), "tombstone", text))
    });
    destroyed.collect()
}

/// Consent to what is not there is a slip of the pen.
pub(super) fn unknown_consent(input: &Input<'_>) -> Vec<Problem> {
    let mut problems = Vec::new();
    let kinds: BTreeMap<&str, _> = BTreeMap::from([
        ("--allow-delete", &input.consent.delete),
        ("--mark", &input.consent.mark),
        ("--resend-secrets", &input.consent.resend),
    ]);
    for (option, uids) in kinds {
        for uid in uids {
            let text = match input.desired.guests.get(uid) {
                None => "there is no such desired guest: write the `uid` of one",
                Some(guest) if guest.policy == Policy::Observe => {
                    "it is only observed: desire `policy: manage` of it first (`pvegraph adopt --manage`)"
                }
                Some(guest) if option == "--allow-delete" && !guest.tombstone => {
                    "nobody desires its deletion: write `tombstone: true`, or leave the option out"
                }
                Some(guest) if option == "--resend-secrets" && guest.cipassword.is_none() => {
                    "no password is desired of it: write its `cipassword`, or leave the option out"
                }
                Some(_) => continue,
            };
            problems.push(Problem::new(uid, option, text));
        }
    }
    problems
}
