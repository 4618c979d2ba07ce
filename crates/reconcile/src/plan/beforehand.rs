//! A snapshot before what restarts a guest or has no way back, where whoever plans asks for one.

use super::operations::{Found, One};
use super::request::{Method, Request};
use super::{Action, Effect, Operation};
use crate::canonical::{Canonical, is_disk};
use crate::desired::Problem;
use crate::scope::Scope;

/// Storages that take snapshots of whatever is on them.
const SNAPSHOTS: [&str; 5] = ["btrfs", "cephfs", "lvmthin", "rbd", "zfspool"];

/// Storages of files, which take snapshots of images of this format.
const FILES: [&str; 3] = ["cifs", "dir", "nfs"];
const FORMAT: &str = ".qcow2";

/// Enters the snapshot before the guest's other operations, or tells why there is none.
pub(super) fn enter(one: &One<'_>, scope: &Scope, found: &mut Found) {
    if !found.operations.iter().any(is_risky) {
        return;
    }
    match forbids(one, scope, &found.operations) {
        None => found.operations.push(taken(one)),
        Some(why) => {
            let text = format!("no snapshot is taken before it: {why}");
            found.warnings.push(Problem::new(one.guest.label(), "snapshot", text).into());
        }
    }
}

/// Does it restart the guest, or has it no way back? The marker changes nothing of what the guest is.
fn is_risky(operation: &Operation) -> bool {
    operation.effect == Effect::Restart || operation.action != Action::Mark && !operation.reversible
}

fn taken(one: &One<'_>) -> Operation {
    // No other plan has this name, so that it is free.
    let name: String = "before-".chars().chain(one.input.nonce.chars().take(8)).collect();
    let path = format!("/nodes/{}/{}/{}/snapshot", one.live.node, one.live.kind.as_str(), one.live.vmid);
    let request = Request::new(Method::Post, path).with("snapname", name.as_str());
    let mut operation = one.made(Action::Snapshot, Effect::Hot, &[], vec![request]);
    operation.fields = vec!["snapshot".to_owned()];
    operation.reasons = vec![format!("a snapshot {name} before what restarts it or has no way back")];
    operation
}

/// Why there can be none.
fn forbids(one: &One<'_>, scope: &Scope, operations: &[Operation]) -> Option<String> {
    for operation in operations {
        let why = match operation.action {
            Action::Move => "Proxmox VE deletes no disk after it was moved that a snapshot is of",
            Action::Migrate => "disks of its node alone may not migrate with snapshots",
            Action::Grow if operation.fields.iter().any(|field| grows_image(one, field)) => {
                "Proxmox VE does not resize a qcow2 image with snapshots"
            }
            Action::Template => "a template can't have snapshots",
            Action::Destroy => "it would be deleted with the guest: a backup stays",
            _ => continue,
        };
        return Some(why.to_owned());
    }
    if one.live.config.get("template").is_some_and(|value| value == "1") {
        return Some("a template can't have snapshots".to_owned());
    }
    if !scope.allows(Action::Snapshot) {
        return Some(format!("the scope {} does not allow to snapshot: add it to its `allow`", scope.name));
    }
    unable(one)
}

fn grows_image(one: &One<'_>, field: &str) -> bool {
    field.split_once('.').is_some_and(|(key, _)| one.is_qcow2(key))
}

/// The disk of which no snapshot can be taken, as far as is known: Proxmox VE takes one of all of them or none.
fn unable(one: &One<'_>) -> Option<String> {
    let One { input, live, .. } = one;
    for (key, text) in live.config.iter().filter(|(key, _)| is_disk(live.kind, key)) {
        let parts = match live.option(key, input.around.style) {
            Some(Canonical::Map(parts)) => parts,
            _ => return Some(format!("the disk {key} is not understood")),
        };
        if parts.get("media").is_some_and(|media| media.to_string() == "cdrom") {
            continue;
        }
        let Some(storage) = parts.get("storage").map(ToString::to_string) else {
            return Some(format!("{key} is on no storage"));
        };
        let Some(kind) = input.around.storage_types.get(&storage) else {
            return Some(format!("the disk {key} is on {storage}, whose type is not known"));
        };
        let volume = text.split(',').next().unwrap_or_default();
        let image = FILES.contains(&&**kind) && volume.ends_with(FORMAT);
        if !(image || SNAPSHOTS.contains(&&**kind)) {
            return Some(format!(
                "the disk {key} is on {storage} ({kind}), which takes none of such a volume, as far as is known"
            ));
        }
    }
    None
}
