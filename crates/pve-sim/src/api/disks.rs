//! Disks of guests: resize, move, unlink.

use super::act::{Act, fail};
use super::config_privileges::{require_on_guest, root_only};
use super::volume_access;
use crate::answer::Answer;
use crate::schema::split_list;
use crate::work::disks::volumes_of;
use crate::world::config::{is_numbered, parse_drive};
use crate::world::state::{Guest, GuestKind, Snapshot};
use crate::world::volname::{self, Feature};

/// What PVE says where a guest's file is another one than a caller believes; a VM's configuration has words of its own.
pub const MODIFIED: &str = "detected modified configuration - file changed by other user? Try again.";

fn check_lock(guest: &Guest) -> Result<(), Answer> {
    match guest.lock() {
        Some(lock) => fail(format!("{} is locked ({lock})", crate::work::guest_word(guest.kind))),
        None => Ok(()),
    }
}

fn check_digest(guest: &Guest, digest: Option<&str>) -> Result<(), Answer> {
    match digest.filter(|digest| *digest != guest.digest()) {
        Some(_) => fail(MODIFIED),
        None => Ok(()),
    }
}

/// `PUT …/unlink`: drives are taken off, `force` frees their volumes.
pub fn unlink(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let keys = act.text("idlist").to_owned();
    let guest = act.call().guest(GuestKind::Qemu)?.clone();
    check_lock(&guest)?;
    let mut arguments = act.parameters.clone();
    arguments.remove("idlist");
    for key in split_list(&keys) {
        super::config::check_option_exists("delete", GuestKind::Qemu, key)?;
    }
    arguments.insert("delete".to_owned(), keys);
    super::config::apply(act, arguments)
}

/// `PUT …/resize`: a task, in which everything that can go wrong does.
pub fn resize(act: &mut Act<'_>) -> Result<Answer, Answer> {
    root_only(act, &["skiplock"])?;
    act.node()?;
    let id = act.text("vmid").to_owned();
    act.fork("resize", &id, &[])
}

/// Whether a snapshot of the guest holds a volume.
fn in_snapshot(guest: &Guest, volume: &str) -> bool {
    let holds = |snapshot: &Snapshot| {
        snapshot.config.as_ref().is_some_and(|config| {
            config.iter().any(|(key, value)| parse_drive(key, &value.to_text()).volume == volume)
        })
    };
    guest.snapshots.iter().any(holds)
}

/// 400 for two parameters of which one must be there.
fn either(text: &str) -> Result<Answer, Answer> {
    let errors = ["storage", "target-vmid"].map(|name| (name.to_owned(), text.into()));
    Err(Answer::bad_parameters(errors.into_iter().collect()))
}

/// `POST …/move_disk`: to another storage, or to another VM.
pub fn move_qemu(act: &mut Act<'_>) -> Result<Answer, Answer> {
    match (act.given("storage"), act.given("target-vmid")) {
        (Some(_), Some(_)) => either("either set 'storage' or 'target-vmid', but not both"),
        (None, None) => either("both 'storage' and 'target-vmid' missing, either needs to be set"),
        (None, Some(_)) => reassign_disk(act),
        (Some(_), None) => move_to_storage(act),
    }
}

fn move_to_storage(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let storage = act.text("storage").to_owned();
    act.require(&format!("/storage/{storage}"), &["Datastore.AllocateSpace"])?;
    let guest = act.call().guest(GuestKind::Qemu)?.clone();
    check_lock(&guest)?;
    check_digest(&guest, act.given("digest"))?;
    let key = act.text("disk");
    let Some(value) = guest.config.text(key) else { return fail(format!("disk '{key}' does not exist")) };
    let drive = parse_drive(key, &value);
    if drive.is_cdrom() && !drive.volume.contains("cloudinit") {
        return fail("you can't move a cdrom");
    }
    let (_, volume) = volume_access::parse(act.state, &drive.volume)?;
    if drive.storage() == Some(&storage) && act.given("format").is_none_or(|wanted| wanted == volume.format) {
        return fail("you can't move to the same storage with same format");
    }
    let target = volume_access::enabled(act.state, &storage, &guest.node)?;
    if !volume_access::has_content(target, "images") {
        return no_images(&storage);
    }
    if act.flag("delete") && in_snapshot(&guest, &drive.volume) {
        return fail("you can't move a disk with snapshots and delete the source");
    }
    let id = act.text("vmid").to_owned();
    act.fork("qmmove", &id, &[])
}

/// 400 for a storage that is not for disk images of VMs.
pub fn no_images<T>(storage: &str) -> Result<T, Answer> {
    Err(Answer::bad_parameter("storage", &format!("storage '{storage}' does not support vm images")))
}

/// Another guest takes a volume over: both on one node, stopped, no templates, and no snapshot holds it.
fn reassign_disk(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let (vmid, target) = (act.number("vmid"), act.number("target-vmid"));
    require_on_guest(act, target, None, &["VM.Config.Disk"])?;
    if vmid == target {
        return Err(Answer::bad_parameter(
            "target-vmid",
            "must be different than source VMID to reassign disk",
        ));
    }
    let key = act.text("disk").to_owned();
    let new_key = act.given("target-disk").unwrap_or(&key).to_owned();
    let find = |vmid: u32, what: &str| match act.state.guests.get(&vmid) {
        Some(guest) => Ok(guest),
        None => fail(format!("could not find {what}VM {vmid}")),
    };
    let (from, to) = (find(vmid, "")?, find(target, "target ")?);
    if from.node != to.node {
        return fail(format!("Both VMs need to be on the same node ({} != {})", from.node, to.node));
    }
    let from = act.call().guest(GuestKind::Qemu)?;
    check_lock(from)?;
    if to.kind != GuestKind::Qemu {
        return fail(format!(
            "Configuration file 'nodes/{}/qemu-server/{target}.conf' does not exist",
            to.node
        ));
    }
    check_lock(to)?;
    if from.is_template() || to.is_template() {
        return fail("Can't move disks from or to template VMs");
    }
    if act.given("digest").is_some_and(|digest| digest != from.digest()) {
        return fail(format!("VM {vmid}: {MODIFIED}"));
    }
    if act.given("target-digest").is_some_and(|digest| digest != to.digest()) {
        return fail(format!("VM {target}: {MODIFIED}"));
    }
    let Some(value) = from.config.text(&key) else {
        return fail(format!("Disk '{key}' for VM '{vmid}' does not exist"));
    };
    if to.config.get(&new_key).is_some() {
        return fail(format!("Target disk key '{new_key}' is already in use for VM '{target}'"));
    }
    let drive = parse_drive(&key, &value);
    if drive.is_cdrom() {
        return fail("CD drive contents can't be moved to another VM");
    }
    let Some(storage) = drive.storage().map(str::to_owned) else {
        return fail(format!("Volume '{}' not managed by PVE", drive.volume));
    };
    if in_snapshot(from, &drive.volume) {
        return fail("Can't move disk used by a snapshot to another VM");
    }
    let (kept_on, volume) = volume_access::parse(act.state, &drive.volume)?;
    if !volname::has_feature(&kept_on.kind, Feature::Rename, &volume, false) {
        return fail("Storage does not support moving of this disk to another VM");
    }
    if from.is_running() && !is_numbered(&key, "unused") {
        return fail("Cannot move disk to another VM while the source VM is running - detach first");
    }
    act.require(&format!("/storage/{storage}"), &["Datastore.AllocateSpace"])?;
    act.fork("qmmove", &format!("{vmid}-{key}>{target}-{new_key}"), &[("target-disk", &new_key)])
}

/// `POST …/move_volume` of a container: to another storage, or to another container.
pub fn move_lxc(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let (key, target) = (act.text("volume").to_owned(), act.given("target-vmid").map(str::to_owned));
    if target.is_some() && act.given("storage").is_some() {
        return fail("either set storage or target-vmid, but not both");
    }
    let Some(target) = target else { return move_container_volume(act, &key) };
    let vmid = act.number("vmid");
    let new_key = act.given("target-volume").unwrap_or(&key).to_owned();
    let number: u32 = target.parse().unwrap_or_default();
    require_on_guest(act, number, None, &["VM.Config.Disk"])?;
    if vmid == number {
        return fail("must be different than source VMID to move disk to another container");
    }
    let guest = act.call().guest(GuestKind::Lxc)?;
    check_lock(guest)?;
    check_digest(guest, act.given("digest"))?;
    let Some(other) = act.state.guests.get(&number).filter(|other| other.node == guest.node) else {
        return fail(format!("Both containers need to be on the same node as {target}"));
    };
    check_lock(other)?;
    if other.config.get(&new_key).is_some() {
        return fail(format!("Target volume key '{new_key}' is already in use for container '{target}'"));
    }
    if guest.is_running() {
        return fail("Cannot move volumes of a running container");
    }
    act.fork("move_volume", &format!("{vmid}-{key}>{target}-{new_key}"), &[("target-volume", &new_key)])
}

fn move_container_volume(act: &mut Act<'_>, key: &str) -> Result<Answer, Answer> {
    let storage = act.text("storage").to_owned();
    if storage.is_empty() {
        return either("both 'storage' and 'target-vmid' missing, either needs to be set");
    }
    act.require(&format!("/storage/{storage}"), &["Datastore.AllocateSpace"])?;
    let guest = act.call().guest(GuestKind::Lxc)?.clone();
    check_lock(&guest)?;
    if guest.is_running() {
        return fail("cannot move volumes of a running container");
    }
    if is_numbered(key, "unused") {
        let text = "only configured volumes can be moved to another storage";
        return fail(format!("cannot move volume '{key}', {text}"));
    }
    if guest.config.get(key).is_none() {
        return fail(format!("volume '{key}' does not exist"));
    }
    let volumes = volumes_of(&guest);
    if act.flag("delete") && volumes.iter().any(|volume| in_snapshot(&guest, volume)) {
        return fail("you can't move a volume with snapshots and delete the source");
    }
    check_digest(&guest, act.given("digest"))?;
    let id = act.text("vmid").to_owned();
    act.fork("move_volume", &id, &[])
}
