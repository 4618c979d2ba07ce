//! Clones of guests.

use super::act::{Act, fail};
use super::create::{check_pool, require_images, taken};
use super::volume_access;
use crate::answer::Answer;
use crate::world::config::is_numbered;
use crate::world::state::{Guest, GuestKind};
use crate::world::volname::{self, Feature};

/// What a request to clone asks for, its source looked at.
struct Wanted {
    /// Another node than the source's.
    target: Option<String>,
    /// Whether the disks only build on the source's.
    linked: bool,
    /// Whether it is one of the source's snapshots that is cloned.
    of_snapshot: bool,
}

/// The target must be known, and so must the storage, here and there. Clones go to another node through shared storage.
fn check_places(act: &Act<'_>, kind: GuestKind) -> Result<Option<String>, Answer> {
    check_pool(act)?;
    let here = act.node()?;
    let target = act.given("target").filter(|target| *target != here && *target != "localhost");
    if let Some(target) = target.filter(|target| !act.state.nodes.contains_key(*target)) {
        return fail(format!("no such cluster node '{target}'"));
    }
    if let Some(id) = act.given("storage") {
        let storage = volume_access::enabled(act.state, id, &here)?;
        if kind == GuestKind::Qemu {
            require_images(act, id)?;
        }
        if let Some(target) = target {
            volume_access::enabled(act.state, id, target)?;
            if !storage.shared {
                return fail(format!("can't clone to non-shared storage '{id}'"));
            }
        }
    }
    Ok(target.map(str::to_owned))
}

fn check_lock(source: &Guest) -> Result<(), Answer> {
    match source.lock() {
        Some(lock) => fail(format!("{} is locked ({lock})", crate::work::guest_word(source.kind))),
        None => Ok(()),
    }
}

/// A snapshot that is named must be there.
fn check_snapshot(act: &Act<'_>, source: &Guest) -> Result<(), Answer> {
    let known = |name: &str| source.snapshots.iter().any(|snapshot| snapshot.name == name);
    match act.given("snapname").filter(|name| !known(name)) {
        Some(name) => fail(format!("snapshot '{name}' does not exist")),
        None => Ok(()),
    }
}

/// Without `full` a template is cloned linked, anything else whole. Linked clones stay where their base is.
fn is_linked(act: &Act<'_>, source: &Guest) -> Result<bool, Answer> {
    let linked = act.given("full").map_or_else(|| source.is_template(), |full| full == "0");
    for name in ["storage", "format"] {
        if linked && act.given(name).is_some() {
            return fail(format!("parameter '{name}' not allowed for linked clones"));
        }
    }
    Ok(linked)
}

/// `POST /nodes/{node}/qemu/{vmid}/clone`.
pub fn qemu(act: &mut Act<'_>) -> Result<Answer, Answer> {
    act.call().vm_on_node()?;
    let target = check_places(act, GuestKind::Qemu)?;
    let source = act.call().guest(GuestKind::Qemu)?.clone();
    check_lock(&source)?;
    check_snapshot(act, &source)?;
    let linked = is_linked(act, &source)?;
    let wanted = Wanted { target, linked, of_snapshot: act.given("snapname").is_some() };
    check_vm_storages(act, &source, &wanted)?;
    let new = act.number("newid");
    // PVE looks for the file that it would write; another kind's, or another node's, it finds only in the task.
    let file_exists = |other: &Guest| other.kind == GuestKind::Qemu && other.node == source.node;
    if act.state.guests.get(&new).is_some_and(file_exists) {
        return fail(format!("unable to create VM {new}: config file already exists"));
    }
    check_vm_features(act, &source, &wanted)?;
    act.fork("qmclone", &source.vmid.to_string(), &[])
}

/// Space must be the caller's to take, and what goes to another node on shared storage.
fn check_vm_storages(act: &Act<'_>, source: &Guest, wanted: &Wanted) -> Result<(), Answer> {
    let mut all_shared = true;
    for drive in source.drives().iter().filter(|drive| !is_numbered(drive.key, "unused")) {
        let Some(id) = drive.storage() else { continue };
        all_shared &= volume_access::defined(act.state, id)?.shared;
        if !drive.is_cdrom() {
            let place = format!("/storage/{}", act.given("storage").unwrap_or(id));
            act.require(&place, &["Datastore.AllocateSpace"])?;
        }
    }
    let cards: Vec<(String, String)> =
        source.config.iter().map(|(key, value)| (key.to_owned(), value.to_text().into_owned())).collect();
    let cards = cards.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    volume_access::check_bridges(&act.call(), cards)?;
    match &wanted.target {
        Some(target) if !all_shared => {
            fail(format!("can't clone VM to node '{target}' (VM uses local storage)"))
        }
        _ => Ok(()),
    }
}

/// Each disk's storage must be able to copy it, or to build on it.
fn check_vm_features(act: &Act<'_>, source: &Guest, wanted: &Wanted) -> Result<(), Answer> {
    for drive in source.drives() {
        if drive.is_cdrom() && !drive.volume.contains("cloudinit") || is_numbered(drive.key, "unused") {
            continue;
        }
        let Ok((storage, volume)) = volume_access::parse(act.state, &drive.volume) else { continue };
        let whole = !wanted.linked || drive.volume.contains("cloudinit") || drive.key == "tpmstate0";
        let (word, feature) = if whole { ("Full", Feature::Copy) } else { ("Linked", Feature::Clone) };
        if !volname::has_feature(&storage.kind, feature, &volume, wanted.of_snapshot) {
            let of = if wanted.of_snapshot { " a snapshot of" } else { "" };
            let (volume, key) = (&drive.volume, drive.key);
            return fail(format!("{word} clone feature is not supported for{of} '{volume}' ({key})"));
        }
    }
    Ok(())
}

/// `POST /nodes/{node}/lxc/{vmid}/clone`. PVE locks the source and makes the new file before it looks at the volumes.
pub fn lxc(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let target = check_places(act, GuestKind::Lxc)?;
    let source = act.call().guest(GuestKind::Lxc)?.clone();
    check_lock(&source)?;
    if let Some(other) = act.state.guests.get(&act.number("newid")) {
        return fail(taken(other));
    }
    let linked = is_linked(act, &source)?;
    check_snapshot(act, &source)?;
    let of_snapshot = act.given("snapname").is_some();
    let mut all_shared = true;
    for drive in source.drives().iter().filter(|drive| !is_numbered(drive.key, "unused")) {
        let (volume, key) = (&drive.volume, drive.key);
        let Some(own) = drive.storage() else {
            return fail(format!("unable to clone mountpoint '{key}' (type bind)"));
        };
        let id = act.given("storage").unwrap_or(own);
        all_shared &= volume_access::defined(act.state, id)?.shared;
        act.require(&format!("/storage/{id}"), &["Datastore.AllocateSpace"])?;
        if !linked && source.is_running() && !of_snapshot {
            return fail("Cannot do full clones on a running container without snapshots");
        }
        if let (true, Ok((storage, parsed))) = (linked, volume_access::parse(act.state, volume))
            && !volname::has_feature(&storage.kind, Feature::Clone, &parsed, of_snapshot)
        {
            return fail(format!("Linked clone feature for '{volume}' is not available"));
        }
    }
    if let Some(target) = target.filter(|_| !all_shared) {
        return fail(format!("can't clone CT to node '{target}' (CT uses local storage)"));
    }
    act.fork("vzclone", &source.vmid.to_string(), &[])
}
