//! Plans of their own: a snapshot that is taken, and a guest that goes back to one. They come from a command and not from what is
//! desired, and go the same way as every other plan: into a file, approved, applied.

use std::collections::{BTreeMap, BTreeSet};

use pvegraph_inventory::GuestType;

use super::guard::{self, Forbidden};
use super::operations::One;
use super::order::Dependents;
use super::request::{Method, Request};
use super::values::Values;
use super::{Action, Effect, Input, Operation, Plan};
use crate::canonical::{Canonical, is_disk};
use crate::desired::{Guest, Problem};
use crate::document::Policy;
use crate::live::{LiveGuest, Snapshot};

/// What is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// A snapshot is taken.
    Take {
        /// Its name.
        name: String,
        /// With the machine's memory, so that going back to it starts the machine where it was.
        memory: bool,
        /// Words for readers.
        description: Option<String>,
    },
    /// The guest goes back to a snapshot.
    Rollback {
        /// The snapshot's name.
        name: String,
        /// The options that the guest had then; nothing where they could not be read.
        config: Option<BTreeMap<String, String>>,
    },
}

/// The longest name (`pve-configid`, at most 40).
const MAX_NAME: usize = 40;

/// Options that say nothing of what is lost: PVE's own, and the description, which stays.
const OF_PVE: [&str; 9] = [
    "description",
    "digest",
    "lock",
    "parent",
    "runningcpu",
    "runningmachine",
    "snaptime",
    "vmgenid",
    "vmstate",
];

/// Storages of these types go back to their newest snapshot alone.
const NEWEST_ONLY: [&str; 2] = ["zfs", "zfspool"];

/// The plan of what is wanted of one guest. `taken`: the snapshots that it has, the oldest first.
pub fn snapshot_plan(input: &Input<'_>, guest: &Guest, taken: &[Snapshot], ask: &Ask) -> Plan {
    let mut plan = Plan::empty(input);
    match operation(input, guest, taken, ask) {
        Ok(mut operation) => {
            operation.number = 1;
            operation.affects.insert(guest.uid.clone());
            if operation.effect.interrupts() {
                operation.affects.extend(Dependents::of(input.desired).all(&guest.uid));
            }
            operation.blast = operation.affects.len();
            plan.blast = operation.blast;
            plan.restarts = usize::from(operation.effect == Effect::Restart);
            plan.operations.push(operation);
        }
        Err((field, text)) => plan.blocked.push(Problem::new(guest.label(), field, text).into()),
    }
    plan.blocked.extend(guard::limits(input, &plan).into_iter().map(Into::into));
    plan
}

fn forbidden<T>(field: &str, text: impl Into<String>) -> Result<T, Forbidden> {
    Err((field.to_owned(), text.into()))
}

fn operation(
    input: &Input<'_>,
    guest: &Guest,
    taken: &[Snapshot],
    ask: &Ask,
) -> Result<Operation, Forbidden> {
    let Some(live) = guest.vmid.and_then(|vmid| input.live.get(&vmid)) else {
        return forbidden("guest", "it is not there, or could not be read");
    };
    let bound = input.bindings.get(&guest.uid);
    if bound.is_some_and(|bound| !bound.is_of(&input.desired.cluster, live)) {
        return forbidden(
            "identity",
            "identity conflict: the live guest is another one than was bound: look at it",
        );
    }
    if guest.policy == Policy::Observe {
        return forbidden("policy", "it is only observed: write `policy: manage`");
    }
    if guest.tombstone {
        return forbidden("tombstone", "it shall be gone: take `tombstone` away");
    }
    let scope = guard::keys(input, guest, live)?;
    guard::locked(live)?;
    if live.config.get("template").is_some_and(|value| value == "1") {
        return forbidden("template", "it is a template, which has no snapshots");
    }
    let cluster = &input.desired.cluster;
    let values = Values { cluster, guest, style: input.around.style, marked: true, forecast: false };
    let one = One { input, guest, live, values };
    let path = format!("/nodes/{}/{}/{}/snapshot", live.node, live.kind.as_str(), live.vmid);
    let mut made = match ask {
        Ask::Take { name, memory, description } => {
            let request = take(live, taken, path, name, *memory, description.as_deref())?;
            let mut made = one.made(Action::Snapshot, Effect::Hot, &[], vec![request]);
            made.reasons.push(format!("a snapshot {name}{}", if *memory { " with its memory" } else { "" }));
            made
        }
        Ask::Rollback { name, config } => {
            if guard::protected(guest, live) {
                return forbidden(
                    "protected",
                    "it is protected, and would lose what was written since: take `protected` here and `protection` at the guest away first",
                );
            }
            let at = position(taken, name)?;
            newest(input, live, taken, at)?;
            if live.ha.is_some() {
                return forbidden(
                    "ha",
                    "high availability manages it, and would start it meanwhile: set its HA state to `ignored` first",
                );
            }
            let mut request = Request::new(Method::Post, format!("{path}/{name}/rollback"));
            let with_memory = with_memory(taken, name);
            let runs = live.status == "running";
            if runs && !with_memory {
                request = request.with("start", "1");
            }
            let effect = if runs { Effect::Restart } else { Effect::Hot };
            let mut made = one.made(Action::RestoreSnapshot, effect, &[], vec![request]);
            made.reasons = lost(input, live, taken, at, config.as_ref());
            if with_memory && !runs {
                made.reasons.push("the snapshot holds its memory: it will run afterwards".to_owned());
            }
            made
        }
    };
    made.fields = vec!["snapshot".to_owned()];
    guard::allowed(scope, made.action)?;
    let wakes = matches!(ask, Ask::Rollback { name, .. } if with_memory(taken, name));
    if made.effect == Effect::Restart || wakes {
        guard::allowed(scope, Action::Power)?;
    }
    Ok(made)
}

fn take(
    live: &LiveGuest,
    taken: &[Snapshot],
    path: String,
    name: &str,
    memory: bool,
    description: Option<&str>,
) -> Result<Request, Forbidden> {
    let first = name.starts_with(|c: char| c.is_ascii_alphabetic());
    let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
    let reserved = matches!(&*name.to_ascii_lowercase(), "current" | "pending");
    if !first || !plain || reserved || !(2..=MAX_NAME).contains(&name.len()) {
        let text = format!(
            "{name:?} is no name for a snapshot: use 2 to {MAX_NAME} letters, digits, `-` and `_`, a letter first, and neither `current` nor \
             `pending`"
        );
        return forbidden("name", text);
    }
    if taken.iter().any(|snapshot| snapshot.name == name) {
        return forbidden("name", format!("it has a snapshot {name} already: write another name"));
    }
    let mut request = Request::new(Method::Post, path).with("snapname", name);
    if memory {
        if live.kind == GuestType::Lxc {
            return forbidden("memory", "a container's memory can't be kept: leave that out");
        }
        if live.status != "running" {
            return forbidden("memory", "it does not run, and has no memory to keep: leave that out");
        }
        request = request.with("vmstate", "1");
    }
    if let Some(description) = description {
        request = request.with("description", description);
    }
    Ok(request)
}

/// Going back to such a snapshot starts the machine.
fn with_memory(taken: &[Snapshot], name: &str) -> bool {
    taken.iter().any(|snapshot| snapshot.name == name && snapshot.with_memory)
}

fn position(taken: &[Snapshot], name: &str) -> Result<usize, Forbidden> {
    taken.iter().position(|snapshot| snapshot.name == name).ok_or_else(|| {
        let names: Vec<&str> = taken.iter().map(|snapshot| snapshot.name.as_str()).collect();
        let known = if names.is_empty() {
            "it has none".to_owned()
        } else {
            format!("write one of {}", names.join(", "))
        };
        ("name".to_owned(), format!("it has no snapshot {name:?}: {known}"))
    })
}

/// Some storages keep nothing that came after the snapshot to which they go back, and refuse.
fn newest(input: &Input<'_>, live: &LiveGuest, taken: &[Snapshot], at: usize) -> Result<(), Forbidden> {
    let Some(last) = taken.last().filter(|_| at + 1 < taken.len()) else { return Ok(()) };
    for key in live.config.keys().filter(|key| is_disk(live.kind, key)) {
        let Some(Canonical::Map(parts)) = live.option(key, input.around.style) else { continue };
        let Some(storage) = parts.get("storage").map(ToString::to_string) else { continue };
        let kind = input.around.storage_types.get(&storage).map(String::as_str).unwrap_or_default();
        if NEWEST_ONLY.contains(&kind) {
            let text = format!(
                "the disk {key} is on {storage} ({kind}), which goes back to its newest snapshot alone, {}: remove the newer ones first, or \
                 copy the snapshot to a new guest (`clone` with `snapshot`)",
                last.name
            );
            return forbidden("name", text);
        }
    }
    Ok(())
}

/// What would be lost, in words; values that may be secret are not among them.
fn lost(
    input: &Input<'_>,
    live: &LiveGuest,
    taken: &[Snapshot],
    at: usize,
    config: Option<&BTreeMap<String, String>>,
) -> Vec<String> {
    let mut lost = Vec::new();
    let Some(snapshot) = taken.get(at) else { return lost };
    let age = snapshot.time.map_or_else(
        || "since then".to_owned(),
        |time| format!("in the {} s since then", input.now.saturating_sub(time).max(0)),
    );
    lost.push(format!("back to {}: lost is all that was written to its disks {age}", snapshot.name));
    if live.status == "running" {
        lost.push("what it does now is cut off, and its memory is lost".to_owned());
    }
    let newer: Vec<&str> = taken.iter().skip(at + 1).map(|snapshot| snapshot.name.as_str()).collect();
    if !newer.is_empty() {
        lost.push(format!("it stands before {} then", newer.join(", ")));
    }
    let Some(then) = config else {
        lost.push("which options change is not known: the snapshot's could not be read".to_owned());
        return lost;
    };
    let own = |key: &&String| !OF_PVE.contains(&key.as_str()) && !key.starts_with("unused");
    let keys: BTreeSet<&String> = live.config.keys().chain(then.keys()).filter(own).collect();
    let text = |config: &BTreeMap<String, String>, key: &str| {
        config.get(key).map(|text| text.trim_end_matches('\n').to_owned())
    };
    let changed: Vec<&str> = keys
        .into_iter()
        .filter(|key| text(&live.config, key) != text(then, key))
        .map(String::as_str)
        .collect();
    if !changed.is_empty() {
        lost.push(format!("options that become what they were: {}", changed.join(", ")));
    }
    lost
}
