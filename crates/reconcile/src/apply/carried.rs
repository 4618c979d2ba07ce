//! What a call of a plan may carry, and what it does at least to the guest, whatever the file says of it. Pure.

use super::destroy::destroys;
use super::kinds::{goes_back, ha_state, power};
use super::make::{NO_OPTIONS, made};
use crate::canonical::{Canonical, TagStyle, canonical, find, is_disk};
use crate::desired::foreign_volume;
use crate::plan::{Action, Effect, FormValue, Method, Operation, Plan, Request};

/// Parameters of a configuration's call that are no options: what goes past locks, frees volumes, or writes over others.
const NO_FIELDS: [&str; 14] = [
    "archive",
    "background_delay",
    "bwlimit",
    "delete",
    "digest",
    "force",
    "import-working-storage",
    "lock",
    "node",
    "parent",
    "revert",
    "skiplock",
    "unique",
    "vmid",
];

/// What a copy is made with. Everything else of it is written when it is there.
const OF_CLONES: [&str; 9] =
    ["description", "full", "hostname", "name", "newid", "pool", "snapname", "storage", "target"];

/// The only parameters that are secrets. Anywhere else they could be read back.
const SECRETS: [&str; 2] = ["cipassword", "password"];

/// What a call carries that this program would not have planned for this operation. `rest`: what comes after the guest's own path.
pub(super) fn odd(operation: &Operation, request: &Request, rest: &str) -> Option<String> {
    if let Some(name) = request.set.keys().find(|name| !may_carry(operation, request, rest, name)) {
        return Some(format!("has the parameter {name}"));
    }
    let removes = |name: &&String| rest != "/config" || !is_field(operation, name);
    if let Some(name) = request.delete.iter().find(removes) {
        return Some(format!("removes {name}"));
    }
    request.set.iter().find_map(|(name, value)| odd_value(operation, name, value))
}

/// The same of a call that makes a guest.
pub(super) fn odd_making(operation: &Operation, request: &Request) -> Option<String> {
    let copies = made(request).is_some_and(|made| made.source.is_some());
    let may = |name: &str| match copies {
        true => OF_CLONES.contains(&name),
        false => {
            NO_OPTIONS.contains(&name)
                || !NO_FIELDS.contains(&name)
                    && !name.starts_with("unused")
                    && find(operation.kind, name).is_some()
        }
    };
    if let Some(name) = request.set.keys().find(|name| !may(name)) {
        return Some(format!("has the parameter {name}"));
    }
    if let Some(name) = request.delete.first() {
        return Some(format!("removes {name}"));
    }
    request.set.iter().find_map(|(name, value)| odd_value(operation, name, value))
}

fn may_carry(operation: &Operation, request: &Request, rest: &str, name: &str) -> bool {
    let allowed: &[&str] = match rest {
        "/config" => match operation.action {
            Action::Mark => &["description", "tags"],
            Action::Create => &["tags"],
            _ => return is_field(operation, name),
        },
        "/resize" => &["disk", "size"],
        "/move_disk" | "/move_volume" => &["disk", "volume", "storage", "format", "delete"],
        "/migrate" => &["target", "online", "restart", "with-local-disks"],
        "/snapshot" => &["snapname", "vmstate", "description"],
        "/status/shutdown" => &["timeout", "forceStop"],
        "" if destroys(request) => &["destroy-unreferenced-disks"],
        "" => &["state"],
        _ if goes_back(request) => &["start"],
        _ => &[],
    };
    allowed.contains(&name)
}

/// Is it an option that the operation says it changes? Volumes that are left over are freed by removing their options: nobody desires that.
fn is_field(operation: &Operation, name: &str) -> bool {
    operation.fields.iter().any(|field| field.split('.').next() == Some(name))
        && !NO_FIELDS.contains(&name)
        && !name.starts_with("unused")
}

/// A value that takes what is not this guest's.
fn odd_value(operation: &Operation, name: &str, value: &FormValue) -> Option<String> {
    match value {
        FormValue::Secret { .. } if !SECRETS.contains(&name) => Some(format!("has a secret as its {name}")),
        FormValue::Plain(size) if name == "size" && size.starts_with('+') => {
            Some("grows a volume by a difference".to_owned())
        }
        FormValue::Plain(text) if is_disk(operation.kind, name) => {
            if text.contains("import-from") {
                return Some(format!("imports a volume as {name}"));
            }
            let Canonical::Map(map) = canonical(operation.kind, name, text, TagStyle::default()) else {
                return None;
            };
            let owner = foreign_volume(operation.vmid, map.get("volume")?)?;
            Some(format!("has a volume of the guest {owner} as {name}"))
        }
        FormValue::Onto(onto) if is_disk(operation.kind, name) => ["volume", "file", "import-from"]
            .iter()
            .find(|part| onto.onto.contains_key(**part))
            .map(|_| format!("has another volume as {name}")),
        _ => None,
    }
}

/// Is this the way in which such a call is made?
pub(super) fn is_method(operation: &Operation, request: &Request, rest: &str) -> bool {
    match rest {
        "/config" if operation.kind.as_str() == "qemu" => request.method != Method::Delete,
        "/config" | "/resize" => request.method == Method::Put,
        "" => destroys(request) || ha_state(request).is_some(),
        _ => request.method == Method::Post,
    }
}

/// What an operation does to its guest at least, by its calls. Whether the guest runs is looked at before the first of them.
pub(super) fn least_effect(plan: &Plan, operation: &Operation) -> Effect {
    let of_guest = plan.operations.iter().filter(|other| other.vmid == operation.vmid);
    let stopped = of_guest.into_iter().all(|other| other.status.as_deref() == Some("stopped"));
    let effects = operation.requests.iter().map(|request| match power(request) {
        Some("reboot") => Effect::Restart,
        Some("start") => Effect::Hot,
        Some(_) => Effect::Stop,
        None if destroys(request) => Effect::Delete,
        None if ha_state(request) == Some("stopped") && !stopped => Effect::Stop,
        None if goes_back(request) && !stopped => Effect::Restart,
        None if request.path.ends_with("/migrate") && request.set.contains_key("restart") => Effect::Restart,
        None => Effect::Hot,
    });
    effects.max().unwrap_or(Effect::Hot)
}
