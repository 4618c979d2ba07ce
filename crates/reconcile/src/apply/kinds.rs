//! What kind of call a planned one is: which task it starts, how long it is waited for, and what it is about.

use pvegraph_inventory::GuestType;

use super::Patience;
use super::destroy::destroys;
use super::make::made as makes;
use crate::plan::{FormValue, Method, Operation, Request};

/// The last part of a path that changes power: `start`, `stop`, `shutdown`, `reboot`.
pub(super) fn power(request: &Request) -> Option<&str> {
    let (before, action) = request.path.rsplit_once('/')?;
    (request.method == Method::Post && before.ends_with("/status")).then_some(action)
}

/// The state that high availability is asked for.
pub(super) fn ha_state(request: &Request) -> Option<&'static str> {
    let resource = request.path.strip_prefix("/cluster/ha/resources/")?;
    let asked = match request.set.get("state") {
        Some(FormValue::Plain(state)) if request.method == Method::Put && !resource.is_empty() => {
            state.as_str()
        }
        _ => return None,
    };
    match asked {
        "started" => Some("running"),
        "stopped" => Some("stopped"),
        _ => None,
    }
}

/// How often the guest is looked at until it shows what this call does. `ha`: high availability manages it.
pub(super) fn looks(request: &Request, patience: &Patience, ha: bool) -> u32 {
    // Under high availability the task ends before the guest moves.
    if ha_state(request).is_some() || ha && request.target().is_some() {
        patience.ha_looks
    } else if power(request) == Some("reboot") || goes_back(request) {
        patience.restart_looks
    } else {
        patience.looks
    }
}

/// What kind of thing a call is.
pub(super) fn last_part(request: &Request) -> &str {
    request.path.rsplit('/').next().unwrap_or_default()
}

/// Whether this program knows how to tell that such a call was done.
pub fn is_known(request: &Request) -> bool {
    makes(request).is_some()
        || moves(request).is_some()
        || snapshot(request).is_some()
        || converts(request)
        || matches!(last_part(request), "config" | "resize") && request.method != Method::Delete
        || matches!(power(request), Some("start" | "stop" | "shutdown" | "reboot"))
        || ha_state(request).is_some()
        || request.target().is_some()
        || destroys(request)
}

/// The kinds of task that such a call starts; none where it starts none. Under high availability they are only requests.
pub(super) fn task_kinds(request: &Request, lxc: bool) -> Vec<String> {
    let of = |word: &str| if lxc { format!("vz{word}") } else { format!("qm{word}") };
    match makes(request).map(|made| made.source) {
        Some(None) => return vec![of("create")],
        Some(Some(_)) => return vec![of("clone")],
        None => {}
    }
    if converts(request) {
        // A container is one before the call is answered.
        return if lxc { Vec::new() } else { vec!["qmtemplate".to_owned()] };
    }
    match snapshot(request) {
        Some((_, true)) => return vec![of("rollback")],
        Some((_, false)) => return vec![of("snapshot")],
        None => {}
    }
    match (power(request), last_part(request), request.method) {
        (Some(word @ ("start" | "stop")), ..) => vec![of(word), format!("ha{word}")],
        (Some("shutdown"), ..) => vec![of("shutdown"), "hastop".to_owned()],
        (Some(word), ..) => vec![of(word)],
        (None, "config", Method::Post) => vec![of("config")],
        (None, "resize", _) => vec!["resize".to_owned()],
        _ if destroys(request) => vec![of("destroy")],
        (None, "migrate", Method::Post) => {
            vec![if lxc { "vzmigrate" } else { "qmigrate" }.to_owned(), "hamigrate".to_owned()]
        }
        (None, "move_disk", _) => vec!["qmmove".to_owned()],
        (None, "move_volume", _) => vec!["move_volume".to_owned()],
        _ => Vec::new(),
    }
}

/// The snapshot that a call takes, or goes back to (true).
pub(super) fn snapshot(request: &Request) -> Option<(&str, bool)> {
    if request.method != Method::Post {
        return None;
    }
    if last_part(request) == "snapshot" {
        return match request.set.get("snapname") {
            Some(FormValue::Plain(name)) => Some((name, false)),
            _ => None,
        };
    }
    let (_, rest) = request.path.split_once("/snapshot/")?;
    rest.strip_suffix("/rollback").filter(|name| !name.contains('/')).map(|name| (name, true))
}

/// Does the call make a template of the guest?
pub(super) fn converts(request: &Request) -> bool {
    request.method == Method::Post && last_part(request) == "template"
}

/// May the call give a container's root volume, by which it is known, another name?
pub(super) fn renames(operation: &Operation, request: &Request) -> bool {
    let root = moves(request) == Some("rootfs") || converts(request) || request.target().is_some();
    operation.kind == GuestType::Lxc && root
}

/// The disk that a call moves to another storage.
pub(super) fn moves(request: &Request) -> Option<&str> {
    let name = match last_part(request) {
        "move_disk" => "disk",
        "move_volume" => "volume",
        _ => return None,
    };
    match request.set.get(name) {
        Some(FormValue::Plain(disk)) if request.method == Method::Post => Some(disk),
        _ => None,
    }
}

/// Does the call take a guest back to a snapshot?
pub(super) fn goes_back(request: &Request) -> bool {
    matches!(snapshot(request), Some((_, true)))
}
