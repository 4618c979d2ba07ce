//! The way back: what was, as the desired state that a reverse plan is made of. Pure.
//!
//! A plan keeps what each field had before, where that is no secret and no free text. Made anew from that, the plan goes the same way
//! as any other: keys, limits, policies, approval.

use std::collections::{BTreeMap, BTreeSet};

use pvegraph_inventory::GuestType;

use crate::canonical::{Canonical, Kind, TagStyle, canonical, find, is_disk, is_nic};
use crate::desired::{Desired, Guest, Problem};
use crate::diff::{Change, Class, shown};
use crate::document::{Policy, Power};
use crate::live::LiveGuest;
use crate::plan::{Action, Effect, Operation, Pending, Plan, Remark};

/// What a reverse plan is made of.
#[derive(Debug, Clone, PartialEq)]
pub struct Reverse {
    /// Each guest of the plan as it was, and of every other one nothing.
    pub desired: Desired,
    /// What does not come back: guest, field, and why.
    pub left: Vec<Remark>,
}

/// What was before a plan's operations. `done`: of which something was sent, by their numbers; `desired`: what is desired now; `live` and
/// `pending`: the plan's guests, as they are.
pub fn reverse(
    plan: &Plan,
    done: &BTreeSet<usize>,
    desired: &Desired,
    live: &BTreeMap<i64, LiveGuest>,
    pending: &BTreeMap<i64, Pending>,
    style: TagStyle,
) -> Reverse {
    let mut back = desired.clone();
    back.guests.values_mut().for_each(|guest| *guest = nothing_of(guest));
    let mut left = Vec::new();
    let mut restored = BTreeSet::new();
    let none = Pending::new();
    for operation in plan.operations.iter().filter(|operation| done.contains(&operation.number)) {
        let subject = format!("{} (guest {})", operation.uid, operation.vmid);
        let mut leave = |field: &str, text: &str| left.push(Problem::new(&*subject, field, text).into());
        // What else is done to a guest that the plan makes goes where that goes.
        if operation.action != Action::Create && plan.makes(&operation.uid) {
            continue;
        }
        // One that was taken beforehand stays, and is no change of the guest.
        let others = |other: &Operation| other.uid == operation.uid && other.action != Action::Snapshot;
        if operation.action == Action::Snapshot && plan.operations.iter().any(others) {
            continue;
        }
        if let Some(text) = irreversible(operation.action) {
            leave("guest", text);
            continue;
        }
        let Some(guest) = back.guests.get_mut(&operation.uid).filter(|_| operation.action != Action::Mark)
        else {
            leave("guest", "it is not desired any more, or the marker was put on: that stays");
            continue;
        };
        let Some(has) = live.get(&operation.vmid) else {
            leave("guest", "it is not there any more");
            continue;
        };
        let waits = pending.get(&operation.vmid).unwrap_or(&none);
        // A restart that puts into force what waited has no way back, and needs none.
        if operation.action == Action::Power && operation.effect == Effect::Restart {
            continue;
        }
        for field in &operation.fields {
            let was =
                operation.before.get(field).ok_or("what it was is not kept: it is free text, or a secret");
            match was.and_then(|was| restore(guest, has, waits, field, was, style)) {
                Ok(()) => {
                    restored.insert(operation.uid.clone());
                }
                Err(why) => leave(field, why),
            }
        }
    }
    // Of the others nothing is desired, not even that they are there.
    for guest in back.guests.values_mut().filter(|guest| !restored.contains(&guest.uid)) {
        guest.policy = Policy::Observe;
    }
    left.sort_by(|a: &Remark, b: &Remark| (&a.subject, &a.field).cmp(&(&b.subject, &b.field)));
    Reverse { desired: back, left }
}

/// A field's value before and after.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Was {
    /// What it had; nothing where it had none.
    pub old: Option<String>,
    /// What it was given; nothing where it was removed.
    pub new: Option<String>,
}

/// Of what a plan changes, what it may keep: neither secrets nor free text.
pub fn is_kept(guest: &Guest, field: &str) -> bool {
    let key = field.split('.').next().unwrap_or_default();
    let plain = find(guest.kind, key)
        .is_none_or(|option| !matches!(option.kind, Kind::Description | Kind::Secret) && key != "sshkeys");
    plain && !matches!(field, "guest" | "marker" | "cipassword")
}

/// The guest, with what may be done to it, and nothing that is desired of it.
fn nothing_of(guest: &Guest) -> Guest {
    Guest {
        vmid: guest.vmid,
        policy: guest.policy,
        protected: guest.protected,
        reboot: guest.reboot,
        local_disks: guest.local_disks,
        shutdown: guest.shutdown,
        depends_on: guest.depends_on.clone(),
        anti_affinity: guest.anti_affinity.clone(),
        ..Guest::new(guest.uid.clone(), guest.kind)
    }
}

fn irreversible(action: Action) -> Option<&'static str> {
    match action {
        Action::Destroy => Some("it was deleted: restore it from a backup"),
        Action::Create => Some("it was made: desire its deletion (`tombstone`), which needs every key"),
        Action::Grow => Some("a volume became larger, and volumes don't shrink"),
        Action::Mark | Action::Move | Action::Configure | Action::Migrate | Action::Power => None,
        Action::Template => Some("it became a template, and is no guest again"),
        Action::Snapshot => Some("a snapshot was taken, and stays"),
        Action::RestoreSnapshot => Some("it was taken back to a snapshot, and what it had since is lost"),
    }
}

/// Does [`reverse`] bring back all that an operation changes of a guest that was there before? What waits for a restart comes back once that
/// is over.
pub fn comes_back(
    guest: &Guest,
    action: Action,
    fields: &[String],
    before: &BTreeMap<String, Was>,
    style: TagStyle,
) -> bool {
    let mut back = nothing_of(guest);
    // The volume of a new disk is Proxmox VE's, and stays where the disk goes.
    let is_new_disk = |field: &str, was: &Was| was.old.is_none() && is_disk(guest.kind, field);
    let comes = |field: &String| {
        before
            .get(field)
            .is_some_and(|was| !is_new_disk(field, was) && put_back(&mut back, field, was, style).is_ok())
    };
    action != Action::Mark && irreversible(action).is_none() && fields.iter().all(comes)
}

/// Lets the guest have what it had, if it has what it was given.
fn restore(
    guest: &mut Guest,
    live: &LiveGuest,
    pending: &Pending,
    field: &str,
    was: &Was,
    style: TagStyle,
) -> Result<(), &'static str> {
    let (key, sub) = field.split_once('.').map_or((field, None), |(key, sub)| (key, Some(sub)));
    if pending.contains_key(key) {
        return Err("it waits for its restart: take it back at Proxmox VE (revert), or restart it first");
    }
    let now = value(live, key, sub, style);
    if now == was.old {
        return Ok(());
    }
    if now != was.new && !is_as_given(guest.kind, field, was, now.as_deref(), style) {
        return Err("it was changed since: it stays as it is");
    }
    put_back(guest, field, was, style)?;
    guest.policy = Policy::Manage;
    Ok(())
}

/// Whether a network interface that was given is what it was given as: Proxmox VE adds its address.
fn is_as_given(kind: GuestType, field: &str, was: &Was, now: Option<&str>, style: TagStyle) -> bool {
    let (Some(new), Some(now), None) = (&was.new, now, &was.old) else { return false };
    let [new, now] = [new, now].map(|text| canonical(kind, field, text, style));
    match (new, now) {
        (Canonical::Map(new), Canonical::Map(now)) => {
            is_nic(kind, field) && new.iter().all(|(name, value)| now.get(name) == Some(value))
        }
        _ => false,
    }
}

/// Desires what a field was.
fn put_back(guest: &mut Guest, field: &str, was: &Was, style: TagStyle) -> Result<(), &'static str> {
    let (key, sub) = field.split_once('.').map_or((field, None), |(key, sub)| (key, Some(sub)));
    match (field, &was.old) {
        ("node", Some(node)) => guest.node = Some(node.clone()),
        ("state", Some(state)) => {
            guest.state = [Power::Running, Power::Stopped].into_iter().find(|power| power.as_str() == state);
        }
        (_, None) => drop(guest.unset.insert(field.to_owned())),
        (_, Some(_)) if sub.is_none() && is_disk(guest.kind, key) => {
            return Err("its volume was detached, and is one of `unused0`, …: attach it at Proxmox VE");
        }
        (_, Some(old)) => {
            let text = sub.map_or(old.clone(), |sub| format!("{sub}={old}"));
            let value = canonical(guest.kind, key, &text, style);
            match (value, sub) {
                (Canonical::Map(new), Some(_)) => match guest.fields.get_mut(key) {
                    Some(Canonical::Map(map)) => map.extend(new),
                    _ => drop(guest.fields.insert(key.to_owned(), Canonical::Map(new))),
                },
                (Canonical::Raw(_), _) | (_, Some(_)) => {
                    return Err("what it was is not understood: set it by hand");
                }
                (value, None) => drop(guest.fields.insert(key.to_owned(), value)),
            }
        }
    }
    Ok(())
}

/// A field of a live guest, as a difference shows it.
fn value(live: &LiveGuest, key: &str, sub: Option<&str>, style: TagStyle) -> Option<String> {
    match (key, sub) {
        ("node", None) => return Some(live.node.clone()),
        ("state", None) => return Some(live.status.clone()),
        _ => {}
    }
    let kind = find(live.kind, key).map_or(Kind::Text, |option| option.kind);
    let value = match (live.option(key, style), sub) {
        (Some(Canonical::Map(map)), Some(sub)) => map.get(sub).cloned(),
        (value, None) => value,
        _ => None,
    };
    value.map(|value| shown(kind, &value))
}

/// What changes, as far as it may be kept.
pub fn before(guest: &Guest, changes: &[&Change]) -> BTreeMap<String, Was> {
    let kept = changes.iter().filter(|change| change.class == Class::Drift && is_kept(guest, &change.field));
    kept.map(|change| (change.field.clone(), Was { old: change.old.clone(), new: change.new.clone() }))
        .collect()
}
