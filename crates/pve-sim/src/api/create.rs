//! Creating, cloning and destroying guests.

use super::act::{Act, fail};
use super::{checks, config};
use crate::answer::Answer;
use crate::work::NO_CONFIG;
use crate::world::state::GuestKind;

/// Who creates a guest holds `VM.Allocate` on it or on its pool.
fn may_allocate(act: &Act<'_>, vmid: &str) -> Result<(), Answer> {
    let pool = act.given("pool").map(|pool| format!("/pool/{pool}"));
    let here = act.call().allows(&format!("/vms/{vmid}"), &["VM.Allocate"]);
    let in_pool = pool.is_some_and(|path| act.call().allows(&path, &["VM.Allocate"]));
    if here || in_pool { Ok(()) } else { Err(checks::plain()) }
}

fn check_pool(act: &Act<'_>) -> Result<(), Answer> {
    match act.given("pool") {
        Some(pool) if !act.state.pools.contains_key(pool) => fail(format!("pool '{pool}' does not exist")),
        _ => Ok(()),
    }
}

fn settings(act: &Act<'_>) -> Vec<(String, String)> {
    act.settings(&NO_CONFIG).into_iter().collect()
}

/// In a pool, the rights on the pool count for its guests from the start.
fn check_new_options(act: &Act<'_>, kind: GuestKind, settings: &[(String, String)]) -> Result<(), Answer> {
    let vmid = act.number("vmid");
    if act.given("pool").is_none() {
        return config::check_options(act, kind, vmid, settings.iter().map(|(key, _)| key.as_str()));
    }
    Ok(())
}

/// `POST /nodes/{node}/qemu`: creation or restoration. A number that is taken and an unknown storage fail at once, other
/// problems of storages in the task.
pub fn qemu(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let vmid = act.text("vmid").to_owned();
    let restores = act.given("archive").is_some();
    may_allocate(act, &vmid)?;
    check_pool(act)?;
    let settings = settings(act);
    if !restores {
        check_new_options(act, GuestKind::Qemu, &settings)?;
    }
    config::check_storages(act, GuestKind::Qemu, &settings)?;
    check_balloon(act)?;
    let taken = act.state.guests.get(&act.number("vmid")).filter(|_| !(restores && act.flag("force")));
    if let Some(other) = taken {
        let word = crate::work::guest_word(other.kind);
        let node = &other.node;
        let verb = if restores { "restore" } else { "create" };
        return fail(format!("unable to {verb} VM {vmid} - {word} {vmid} already exists on node '{node}'"));
    }
    act.fork(if restores { "qmrestore" } else { "qmcreate" }, &vmid, &[])
}

fn check_balloon(act: &Act<'_>) -> Result<(), Answer> {
    let number = |name: &str| act.given(name).and_then(|text| text.parse::<u64>().ok());
    if number("balloon").unwrap_or_default() > number("memory").unwrap_or(512) {
        return fail("balloon value too large (must be smaller than assigned memory)");
    }
    Ok(())
}

/// `POST /nodes/{node}/lxc`: creation from a template, or restoration.
pub fn lxc(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let vmid = act.text("vmid").to_owned();
    may_allocate(act, &vmid)?;
    check_pool(act)?;
    if let Some(other) = act.state.guests.get(&act.number("vmid")).filter(|_| !act.flag("force")) {
        let word = crate::work::guest_word(other.kind);
        let node = &other.node;
        return fail(format!("{word} {vmid} already exists on node '{node}'"));
    }
    let restores = act.flag("restore");
    let settings = settings(act);
    if !restores {
        check_new_options(act, GuestKind::Lxc, &settings)?;
    }
    config::check_storages(act, GuestKind::Lxc, &settings)?;
    if let Some(storage) = act.given("storage").filter(|storage| !act.state.storages.contains_key(*storage)) {
        return fail(format!("storage '{storage}' does not exist"));
    }
    act.fork(if restores { "vzrestore" } else { "vzcreate" }, &vmid, &[])
}

/// `POST …/clone`, on the source's node. Without `full` a template is cloned linked, anything else whole.
pub fn clone_guest(act: &mut Act<'_>, kind: GuestKind) -> Result<Answer, Answer> {
    let source = act.call().guest(kind)?.clone();
    let (vmid, new) = (source.vmid, act.number("newid"));
    check_pool(act)?;
    let word = crate::work::guest_word(kind);
    if let Some(lock) = source.lock() {
        return fail(format!("{word} is locked ({lock})"));
    }
    if let Some(target) = act.given("target")
        && !act.state.nodes.contains_key(target)
    {
        return fail(format!("no such cluster node '{target}'"));
    }
    if let Some(storage) = act.given("storage").filter(|storage| !act.state.storages.contains_key(*storage)) {
        return fail(format!("storage '{storage}' does not exist"));
    }
    let linked = match act.given("full") {
        Some(full) => full == "0",
        None => source.is_template(),
    };
    if linked {
        for name in ["storage", "format"] {
            if act.given(name).is_some() {
                let text = format!("parameter '{name}' not allowed for linked clones");
                return Err(Answer::bad_parameter(name, &text));
            }
        }
    }
    if let Some(name) = act.given("snapname")
        && !source.snapshots.iter().any(|snapshot| snapshot.name == name)
    {
        return fail(format!("snapshot '{name}' does not exist"));
    }
    if act.state.guests.contains_key(&new) {
        return fail(format!("unable to create {word} {new}: config file already exists"));
    }
    let target = act.given("target").filter(|target| *target != source.node.as_ref());
    let is_local = |storage: &str| act.state.storages.get(storage).is_some_and(|storage| !storage.shared);
    for drive in source.drives() {
        let Some(storage) = drive.storage().filter(|_| !drive.is_cdrom() && !drive.key.starts_with("unused"))
        else {
            continue;
        };
        if let Some(target) = target.filter(|_| is_local(storage)) {
            return fail(format!("can't clone {word} to node '{target}' ({word} uses local storage)"));
        }
        if linked && !source.is_template() {
            return fail(match kind {
                GuestKind::Qemu => {
                    format!("Linked clone feature is not supported for '{}' ({})", drive.volume, drive.key)
                }
                GuestKind::Lxc => "linked clone not possible - container is not a template".to_owned(),
            });
        }
    }
    if kind == GuestKind::Lxc && source.is_running() && act.given("snapname").is_none() {
        return fail("Cannot do full clones on a running container without snapshots");
    }
    let task = if kind == GuestKind::Qemu { "qmclone" } else { "vzclone" };
    act.fork(task, &vmid.to_string(), &[])
}

pub fn clone_qemu(act: &mut Act<'_>) -> Result<Answer, Answer> {
    clone_guest(act, GuestKind::Qemu)
}

pub fn clone_lxc(act: &mut Act<'_>) -> Result<Answer, Answer> {
    clone_guest(act, GuestKind::Lxc)
}

/// `DELETE …/{vmid}`: a protected, running, HA-managed or replicated guest is refused at once; a lock fails the task.
pub fn destroy(act: &mut Act<'_>, kind: GuestKind) -> Result<Answer, Answer> {
    let guest = act.call().guest(kind)?.clone();
    let vmid = guest.vmid;
    let word = crate::work::guest_word(kind);
    if act.flag("skiplock") && !act.is_root() {
        return Err(Answer::bad_parameter("skiplock", "Only root may use this option."));
    }
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
