//! Creating and destroying guests.

use super::act::{Act, fail};
use super::config_privileges::{check_container, check_vm, root_only};
use super::{checks, config, disks, volume_access};
use crate::answer::Answer;
use crate::work::NO_CONFIG;
use crate::work::disks::is_drive;
use crate::world::access::Principal;
use crate::world::config::{is_lxc_disk_key, parse_drive};
use crate::world::state::{Guest, GuestKind};

/// Who creates a guest holds `VM.Allocate` on it or on its pool; who restores over one, `VM.Backup` on it.
fn may_allocate(act: &Act<'_>, restores_over: bool) -> Result<(), Answer> {
    let here = format!("/vms/{}", act.text("vmid"));
    let call = act.call();
    let in_pool =
        act.given("pool").is_some_and(|pool| call.allows(&format!("/pool/{pool}"), &["VM.Allocate"]));
    if call.allows(&here, &["VM.Allocate"]) || in_pool || restores_over && call.allows(&here, &["VM.Backup"])
    {
        return Ok(());
    }
    Err(checks::plain())
}

/// 500 for a pool that there is not.
pub fn check_pool(act: &Act<'_>) -> Result<(), Answer> {
    match act.given("pool") {
        Some(pool) if !act.state.pools.contains_key(pool) => fail(format!("pool '{pool}' does not exist")),
        _ => Ok(()),
    }
}

/// The text for a number that is taken.
pub fn taken(other: &Guest) -> String {
    let word = crate::work::guest_word(other.kind);
    format!("{word} {} already exists on node '{}'", other.vmid, other.node)
}

fn settings(act: &Act<'_>) -> Vec<(String, String)> {
    act.settings(&NO_CONFIG).into_iter().collect()
}

/// `POST /nodes/{node}/qemu`: creation or restoration. A number that is taken, an unknown storage and one that is not for
/// images fail at once, other problems of storages in the task.
pub fn qemu(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let (vmid, pool) = (act.number("vmid"), act.given("pool").map(str::to_owned));
    let archive = act.given("archive").map(str::to_owned);
    check_pool(act)?;
    if let Some(storage) = act.given("storage") {
        act.require(&format!("/storage/{storage}"), &["Datastore.AllocateSpace"])?;
    }
    let overwrites = archive.is_some() && act.flag("force");
    may_allocate(act, overwrites && act.state.guests.contains_key(&vmid))?;
    let settings = settings(act);
    if let Some(archive) = &archive {
        if let Some((key, _)) = settings.iter().find(|(key, _)| is_drive(GuestKind::Qemu, key)) {
            return Err(Answer::bad_parameter(key, "option conflicts with option 'archive'"));
        }
        if archive == "-" {
            return fail("pipe requires cli environment");
        }
        volume_access::check(&act.call(), Some(vmid), archive, Some("backup"))?;
    }
    config::check_storages(act, &settings, act.given("storage"))?;
    check_vm(act, vmid, pool.as_deref(), settings.iter().map(|(key, _)| key.as_str()))?;
    let cards = settings.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    volume_access::check_bridges(&act.call(), cards)?;
    let verb = if archive.is_some() { "restore" } else { "create" };
    if let Some(other) = act.state.guests.get(&vmid) {
        let same = other.kind == GuestKind::Qemu && other.node.as_ref() == act.node()?;
        if !(overwrites && same) {
            return fail(format!("unable to {verb} VM {vmid} - {}", taken(other)));
        }
        if let Some(lock) = other.lock() {
            return fail(format!("unable to {verb} VM {vmid} - VM is locked ({lock})"));
        }
    }
    act.fork(if archive.is_some() { "qmrestore" } else { "qmcreate" }, &vmid.to_string(), &[])
}

/// `POST /nodes/{node}/lxc`: creation from a template, or restoration. Unlike a VM's, all storages are looked at before
/// the task starts.
pub fn lxc(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let (vmid, node, pool) = (act.number("vmid"), act.node()?, act.given("pool").map(str::to_owned));
    let restores = act.flag("restore");
    let mut over = false;
    if let Some(other) = act.state.guests.get(&vmid) {
        over = other.kind == GuestKind::Lxc && *other.node == node && restores && act.flag("force");
        if !over {
            return fail(taken(other));
        }
        if other.is_running() {
            return fail("can't overwrite running container");
        }
        if other.config.int("protection") == Some(1) {
            return fail(format!("unable to restore CT {vmid} - protection mode enabled"));
        }
    }
    check_pool(act)?;
    may_allocate(act, over)?;
    let settings = settings(act);
    let unprivileged = act.flag("unprivileged");
    let written = settings.iter().map(|(key, value)| (key.as_str(), Some(value.as_str())));
    check_container(act, vmid, pool.as_deref(), None, unprivileged, written)?;
    let template = act.text("ostemplate").to_owned();
    if template == "-" {
        return fail("pipe requires cli environment");
    }
    let content = if restores { "backup" } else { "vztmpl" };
    volume_access::check(&act.call(), Some(vmid), &template, Some(content))?;
    check_container_storages(act, &node, &settings)?;
    act.fork(if restores { "vzrestore" } else { "vzcreate" }, &vmid.to_string(), &[])
}

/// Each storage of a new container is switched on, here, and for containers; without a root file system of its own that
/// goes to the default storage.
fn check_container_storages(act: &Act<'_>, node: &str, settings: &[(String, String)]) -> Result<(), Answer> {
    let default = act.given("storage").unwrap_or("local");
    let check = |storage: &str| {
        let found = volume_access::enabled(act.state, storage, node)?;
        if !volume_access::has_content(found, "rootdir") {
            let text = format!("storage '{storage}' does not support container directories");
            return Err(Answer::bad_parameter("storage", &text));
        }
        act.require(&format!("/storage/{storage}"), &["Datastore.AllocateSpace"])
    };
    let mounts: Vec<_> = settings.iter().filter(|(key, _)| is_lxc_disk_key(key)).collect();
    let has_root = mounts.iter().any(|(key, _)| key == "rootfs");
    if !mounts.is_empty() && !has_root {
        return fail("mount points configured, but 'rootfs' not set - aborting");
    }
    for (key, value) in mounts {
        let mount = parse_drive(key, value);
        if mount.volume.starts_with('/') {
            if *act.principal != Principal::User(crate::world::access::ROOT.to_owned()) {
                return fail("Only root can pass arbitrary filesystem paths.");
            }
            continue;
        }
        // A size alone goes to the default storage.
        check(mount.storage().unwrap_or(default))?;
    }
    if has_root { Ok(()) } else { check(default) }
}

/// `DELETE …/{vmid}`: a protected, HA-managed, replicated or running guest is refused at once; a lock fails the task.
pub fn destroy(act: &mut Act<'_>, kind: GuestKind) -> Result<Answer, Answer> {
    root_only(act, &["skiplock"])?;
    let guest = act.call().guest(kind)?.clone();
    let vmid = guest.vmid;
    let word = crate::work::guest_word(kind);
    if guest.config.int("protection") == Some(1) {
        return fail(format!("can't remove {word} {vmid} - protection mode enabled"));
    }
    if guest.ha.is_some() && !act.flag("purge") {
        return fail(format!(
            "unable to remove {word} {vmid} - used in HA resources and purge parameter not set."
        ));
    }
    if !act.flag("purge")
        && let Some(job) =
            act.state.replication.keys().find(|id| id.split('-').next() == Some(&vmid.to_string()))
    {
        return fail(format!(
            "There is a replication job '{job}' for guest '{vmid}' - Please remove that first."
        ));
    }
    if guest.is_running() && !(kind == GuestKind::Lxc && act.flag("force")) {
        return fail(match kind {
            GuestKind::Qemu => format!("VM {vmid} is running - destroy failed"),
            GuestKind::Lxc => format!("unable to destroy CT {vmid} - container is running"),
        });
    }
    let task = if kind == GuestKind::Qemu { "qmdestroy" } else { "vzdestroy" };
    act.fork(task, &vmid.to_string(), &[])
}

pub fn destroy_qemu(act: &mut Act<'_>) -> Result<Answer, Answer> {
    destroy(act, GuestKind::Qemu)
}

pub fn destroy_lxc(act: &mut Act<'_>) -> Result<Answer, Answer> {
    destroy(act, GuestKind::Lxc)
}

/// 400 for a storage that cannot take images; kept beside creation, whose text it is.
pub fn require_images(act: &Act<'_>, storage: &str) -> Result<(), Answer> {
    if volume_access::has_content(volume_access::defined(act.state, storage)?, "images") {
        return Ok(());
    }
    disks::no_images(storage)
}
