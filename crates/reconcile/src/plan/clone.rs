//! Making a guest as a copy of another one: the copy, its identity, and what it has to be besides.
//!
//! What the copy will be like is told beforehand, from what its source is like: what differs then from what is desired becomes the
//! operations that come after. Hardware addresses and volumes of a copy are PVE's, so that devices are written onto what the copy has then.

use std::collections::BTreeMap;

use pvegraph_inventory::GuestType;

use super::guard::{self, Forbidden};
use super::operations::One;
use super::request::{FormValue, Hidden, Method, Origin, Request};
use super::values::Values;
use super::{Action, Effect, Input, Operation, effect, known};
use crate::canonical::{Canonical, is_disk, is_nic};
use crate::desired::{Desired, Guest};
use crate::diff::{Change, Class, GuestDiff, diff};
use crate::document::{CloneOf, Policy};
use crate::live::LiveGuest;
use crate::marker;
use crate::scope::Scope;

/// What PVE gives a copy anew, or leaves behind.
const NOT_COPIED: [&str; 8] =
    ["digest", "lock", "meta", "parent", "smbios1", "template", "vmgenid", "vmstate"];

/// Types of storages on whose volumes nothing builds.
const NO_BASES: [&str; 3] = ["iscsi", "iscsidirect", "lvm"];
/// Types of storages that copy a machine's volume only as it is.
const CURRENT_ONLY: [&str; 5] = ["iscsi", "iscsidirect", "lvm", "zfs", "zfspool"];
/// Types of storages whose volumes are files, of which only qcow2 keeps snapshots.
const OF_FILES: [&str; 5] = ["cephfs", "cifs", "dir", "glusterfs", "nfs"];

fn forbidden<T>(field: &str, text: impl Into<String>) -> Result<T, Forbidden> {
    Err((field.to_owned(), text.into()))
}

/// The number of what a desired guest is copied from.
pub(super) fn copied(desired: &Desired, uid: &str) -> Option<i64> {
    desired.source(desired.guests.get(uid)?.clone_of.as_ref()?)
}

/// Does this operation make a copy that builds on its source?
pub(super) fn is_linked(operation: &Operation) -> bool {
    let calls = operation.requests.iter().filter(|request| request.path.ends_with("/clone"));
    calls.filter_map(|request| request.set.get("full")).any(|full| full.to_string() == "0")
}

/// Why a copy waits for another plan: the guest that it is copied from is desired, and not there yet. One that is only observed is made by
/// no plan.
pub(super) fn waits(input: &Input<'_>, guest: &Guest) -> Option<String> {
    let vmid = input.desired.source(guest.clone_of.as_ref()?)?;
    let made =
        |other: &&Guest| other.vmid == Some(vmid) && !other.tombstone && other.policy == Policy::Manage;
    let source = input.desired.guests.values().find(made)?;
    let is_there = input.around.listed.contains_key(&vmid);
    (!is_there).then(|| format!("{} is made first: plan again after that", source.label()))
}

/// The guest that is copied.
pub(super) fn source<'a>(
    input: &Input<'a>,
    clone: &CloneOf,
    guest: &Guest,
) -> Result<&'a LiveGuest, Forbidden> {
    let Some(vmid) = input.desired.source(clone) else {
        return forbidden(
            "clone.from",
            format!("`templates` has no {:?}: write one of its names", clone.from.to_string()),
        );
    };
    let Some(source) = input.live.get(&vmid) else {
        return match input.around.listed.get(&vmid) {
            Some(_) => forbidden(
                "clone.from",
                format!(
                    "the guest {vmid} could not be read: let the token read it (VM.Audit on /vms/{vmid})"
                ),
            ),
            None => forbidden(
                "clone.from",
                format!(
                    "the cluster has no guest {vmid}, or the token may not see it: write the number of a template, or mend `templates`"
                ),
            ),
        };
    };
    if source.kind != guest.kind {
        let text = format!(
            "the guest {vmid} is of another kind ({}): copy a guest of the same kind",
            source.kind.as_str()
        );
        return forbidden("clone.from", text);
    }
    if let Some(lock) = source.config.get("lock") {
        return forbidden(
            "clone.from",
            format!("Proxmox VE has the guest {vmid} locked ({lock}): wait for that to end"),
        );
    }
    Ok(source)
}

/// The operations that copy it and make it what is desired.
pub(super) fn clone(
    input: &Input<'_>,
    guest: &Guest,
    clone: &CloneOf,
    source: &LiveGuest,
    (vmid, scope, node): (i64, &Scope, &str),
    why: &GuestDiff,
) -> Result<Vec<Operation>, Forbidden> {
    let config = copied_config(input, clone, source)?;
    let is_template = source.config.get("template").is_some_and(|value| value == "1");
    if let Some(Canonical::Map(map)) = guest.fields.get("smbios1")
        && map.contains_key("uuid")
    {
        let text = "a copy's UUID is what Proxmox VE gives it, and what tells it from other guests: leave `uuid` out";
        return forbidden("smbios1.uuid", text);
    }
    let linked = clone.full.map_or(is_template, |full| !full);
    if linked && !is_template {
        let text = format!(
            "only copies of templates build on them, and the guest {} is none: write `full: true`",
            source.vmid
        );
        return forbidden("clone.full", text);
    }
    let is_container = source.kind == GuestType::Lxc;
    if !linked && is_container && clone.snapshot.is_none() && source.status != "stopped" {
        let text = format!(
            "the container {} runs, and is copied only while it is stopped, or from a `snapshot`",
            source.vmid
        );
        return forbidden("clone.from", text);
    }
    let is_bind = |(key, value): (&String, &String)| key.starts_with("mp") && value.starts_with('/');
    if let Some((key, _)) = config.iter().find(|(key, value)| is_container && is_bind((key, value))) {
        let text = format!(
            "{key} of the container {} is a directory of its node: copies can't have it",
            source.vmid
        );
        return forbidden("clone.from", text);
    }
    if linked && clone.storage.is_some() {
        return forbidden(
            "clone.storage",
            "a copy that builds on its template stays on its storage: write `full: true`",
        );
    }
    if let Some(storage) = &clone.storage {
        known::storage(input.around, "clone.storage", node, storage)?;
    }
    if node != source.node {
        reachable(input, clone, source, &config, node)?;
    }
    copyable(input, source, &config, linked, clone.snapshot.as_deref())?;
    let kind = guest.kind.as_str();
    let style = input.around.style;
    let cluster = &input.desired.cluster;
    let values = Values { cluster, guest, style, marked: true, forecast: true };

    // The source is asked, wherever the copy goes.
    let mut request =
        Request::new(Method::Post, format!("/nodes/{}/{kind}/{}/clone", source.node, source.vmid));
    request = request.with("newid", vmid.to_string()).with("full", if linked { "0" } else { "1" });
    if node != source.node {
        request = request.with("target", node);
    }
    for (name, value) in [("storage", &clone.storage), ("snapname", &clone.snapshot), ("pool", &scope.pool)] {
        if let Some(value) = value {
            request = request.with(name, value);
        }
    }
    let name_key = if guest.kind == GuestType::Qemu { "name" } else { "hostname" };
    if let Some(Canonical::Text(name)) = guest.fields.get(name_key) {
        request = request.with(name_key, name);
    }
    let text = match guest.fields.get("description") {
        Some(_) => values.whole("description")?,
        // A snapshot's text is about the snapshot.
        None if clone.snapshot.is_some() => {
            FormValue::Hidden(Hidden::new(Origin::Desired, "", Some(marker::trailer(cluster, &guest.uid))))
        }
        None => {
            let text = config.get("description").map(String::as_str).unwrap_or_default();
            FormValue::Hidden(Hidden::new(Origin::Live, text, Some(marker::trailer(cluster, &guest.uid))))
        }
    };
    request.set.insert("description".to_owned(), text);

    let tags = match guest.fields.get("tags") {
        Some(_) => values.whole("tags")?,
        None => values.tags(config.get("tags").map(String::as_str).unwrap_or_default()),
    };
    let path = format!("/nodes/{node}/{kind}/{vmid}/config");
    let mut identity = Request::new(Method::Put, path).guarded();
    identity.set.insert("tags".to_owned(), tags.clone());

    let copy = forecast(guest, clone, config, (vmid, node), &tags);
    let placed = Guest { vmid: Some(vmid), node: None, ..guest.clone() };
    let differs = diff(&placed, &copy, &BTreeMap::new(), style);
    if let Some(forbidden) = guard::hopeless(&differs, None) {
        return Err(forbidden);
    }
    let one = One { input, guest: &placed, live: &copy, values: Values { guest: &placed, ..values } };
    let mut made = one.made(Action::Create, Effect::Create, &[], vec![request, identity]);
    made.fields = vec!["guest".to_owned()];
    made.reasons = why.changes.iter().map(ToString::to_string).collect();
    made.reasons.push(format!(
        "{} copy of {} ({})",
        if linked { "linked" } else { "full" },
        source.vmid,
        source.config.get(name_key).map_or("without a name", String::as_str)
    ));
    // The source must still be what was looked at.
    made.digest = source.config.get("digest").cloned();
    let mut operations = vec![made];
    let mut by_action: BTreeMap<Action, Vec<&Change>> = BTreeMap::new();
    for change in differs.changes.iter().filter(|change| change.class == Class::Drift) {
        by_action.entry(effect::action_of(guest.kind, &change.field)).or_default().push(change);
    }
    for (action, changes) in by_action {
        operations.push(Operation { digest: None, ..one.operation(action, &changes)? });
    }
    for operation in &mut operations {
        guard::allowed(scope, operation.action)?;
        // What was made has no way back.
        operation.reversible = false;
        // They are known when the copy is there.
        operation.fingerprint = None;
        operation.pending_sha256 = None;
        operation.status = None;
    }
    Ok(operations)
}

/// A copy that broke off may lack disks of its source: new and empty ones in their place are not what is desired.
pub(super) fn whole(
    input: &Input<'_>,
    clone: &CloneOf,
    guest: &Guest,
    live: &LiveGuest,
) -> Result<(), Forbidden> {
    let config = copied_config(input, clone, source(input, clone, guest)?)?;
    let disk = |key: &&String| is_disk(guest.kind, key) && !key.starts_with("unused");
    match config
        .keys()
        .filter(disk)
        .find(|key| !live.config.contains_key(*key) && !guest.unset.contains(*key))
    {
        Some(key) => forbidden(
            key,
            format!(
                "the copy broke off before it had this disk: delete the guest {} at Proxmox VE, and plan again to copy it anew",
                live.vmid
            ),
        ),
        None => Ok(()),
    }
}

/// The options that are copied: the guest's, or its snapshot's.
fn copied_config(
    input: &Input<'_>,
    clone: &CloneOf,
    source: &LiveGuest,
) -> Result<BTreeMap<String, String>, Forbidden> {
    let Some(snapshot) = &clone.snapshot else { return Ok(source.config.clone()) };
    match input.around.snapshots.get(&(source.vmid, snapshot.clone())) {
        Some(Some(config)) => Ok(config.clone()),
        Some(None) => forbidden(
            "clone.snapshot",
            format!("the guest {} has no snapshot {snapshot:?}: write the name of one", source.vmid),
        ),
        None => forbidden(
            "clone.snapshot",
            format!("the snapshot {snapshot:?} of {} could not be read", source.vmid),
        ),
    }
}

/// Copies go to another node only where all their storages are the same there.
fn reachable(
    input: &Input<'_>,
    clone: &CloneOf,
    source: &LiveGuest,
    config: &BTreeMap<String, String>,
    node: &str,
) -> Result<(), Forbidden> {
    let Some(shared) = &input.around.shared else { return Ok(()) };
    let local = |storage: &str| !shared.contains(storage);
    if let Some(storage) = clone.storage.as_deref().filter(|storage| local(storage)) {
        let text = format!(
            "{storage} is not the same on {node} as on {}, where the source is: write a shared storage, or desire the node {}",
            source.node, source.node
        );
        return forbidden("clone.storage", text);
    }
    let like = LiveGuest { config: config.clone(), ..source.clone() };
    for key in config.keys().filter(|key| is_disk(source.kind, key)) {
        let Some(Canonical::Map(parts)) = like.option(key, input.around.style) else { continue };
        let Some(storage) = parts.get("storage").map(ToString::to_string).filter(|storage| local(storage))
        else {
            continue;
        };
        let text = format!(
            "the disk {key} of the source {} is on {storage}, which is not the same on {node}: desire the node {}, where the source is",
            source.vmid, source.node
        );
        return forbidden("node", text);
    }
    Ok(())
}

/// Not every storage lets copies build on its volumes, and not every one copies what a snapshot of a machine kept (`volume_has_feature` of
/// PVE's storages: `clone` and `copy`). A container's snapshot is mounted and copied file by file.
fn copyable(
    input: &Input<'_>,
    source: &LiveGuest,
    config: &BTreeMap<String, String>,
    linked: bool,
    snapshot: Option<&str>,
) -> Result<(), Forbidden> {
    let like = LiveGuest { config: config.clone(), ..source.clone() };
    for key in config.keys().filter(|key| is_disk(source.kind, key)) {
        let Some(Canonical::Map(parts)) = like.option(key, input.around.style) else { continue };
        if parts.get("media").is_some_and(|media| media.to_string() == "cdrom") {
            continue;
        }
        let Some(storage) = parts.get("storage").map(ToString::to_string) else { continue };
        let Some(kind) = input.around.storage_types.get(&storage) else { continue };
        let vmid = source.vmid;
        if linked && NO_BASES.contains(&kind.as_str()) {
            let text = format!(
                "the disk {key} of the template {vmid} is on {storage} ({kind}), on whose volumes no copies build: write `full: true`"
            );
            return forbidden("clone.full", text);
        }
        let Some(name) = snapshot.filter(|_| !linked && source.kind == GuestType::Qemu) else { continue };
        let qcow2 = parts.get("format").is_some_and(|format| format.to_string() == "qcow2");
        if CURRENT_ONLY.contains(&kind.as_str()) || OF_FILES.contains(&kind.as_str()) && !qcow2 {
            let text = format!(
                "the disk {key} of the snapshot {name} of {vmid} is on {storage} ({kind}), which copies no snapshots: go back to it first, \
                 and copy the guest as it is then"
            );
            return forbidden("clone.snapshot", text);
        }
    }
    Ok(())
}

/// The copy as PVE will make it.
fn forecast(
    guest: &Guest,
    clone: &CloneOf,
    mut config: BTreeMap<String, String>,
    (vmid, node): (i64, &str),
    tags: &FormValue,
) -> LiveGuest {
    config.retain(|key, _| !NOT_COPIED.contains(&key.as_str()) && !key.starts_with("unused"));
    for (key, value) in &mut config {
        if is_disk(guest.kind, key)
            && let Some(storage) = &clone.storage
            && value.contains(':')
            && !value.contains("media=cdrom")
        {
            let rest = value.find(',').and_then(|at| value.get(at..)).unwrap_or_default();
            *value = format!("{storage}:vm-{vmid}-copy{rest}");
        }
        if is_nic(guest.kind, key) {
            *value = without_address(value);
        }
    }
    for key in ["name", "hostname", "description"] {
        if let Some(wanted) = guest.fields.get(key) {
            config.insert(key.to_owned(), wanted.to_string());
        }
    }
    // The copy has its source's password, and gets its own.
    if guest.cipassword.is_some() {
        config.remove("cipassword");
    }
    config.insert("tags".to_owned(), tags.to_string());
    LiveGuest {
        vmid,
        kind: guest.kind,
        node: node.to_owned(),
        status: "stopped".to_owned(),
        pool: None,
        ha: None,
        config,
    }
}

/// A network interface without its hardware address: `virtio=BC:24:…,bridge=vmbr0` → `virtio,bridge=vmbr0`.
fn without_address(value: &str) -> String {
    let parts = value.split(',').filter_map(|part| match part.split_once('=') {
        Some(("macaddr" | "hwaddr", _)) => None,
        Some((model, address)) if is_address(address) => Some(format!("model={model}")),
        _ => Some(part.to_owned()),
    });
    parts.collect::<Vec<_>>().join(",")
}

fn is_address(text: &str) -> bool {
    text.len() == 17 && text.split(':').count() == 6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copys_hardware_addresses_are_its_own() {
        assert_eq!(
            without_address("virtio=BC:24:11:00:00:01,bridge=vmbr0,tag=5"),
            "model=virtio,bridge=vmbr0,tag=5"
        );
        assert_eq!(without_address("model=e1000,macaddr=BC:24:11:00:00:01"), "model=e1000");
        assert_eq!(without_address("name=eth0,hwaddr=BC:24:11:00:00:01,ip=dhcp"), "name=eth0,ip=dhcp");
    }
}
