//! Snapshots of guests.

use serde_json::{Map, Value, json};

use super::Call;
use super::act::{Act, done, fail};
use crate::answer::Answer;
use crate::world::state::GuestKind;

/// `POST …/snapshot`: two names are reserved; a name that is taken fails in the task.
fn snapshot(act: &mut Act<'_>, kind: GuestKind) -> Result<Answer, Answer> {
    let name = act.text("snapname").to_owned();
    if name == "current" || name.eq_ignore_ascii_case("pending") {
        let reserved = if name == "current" { "current" } else { "pending" };
        return fail(format!("unable to use snapshot name '{reserved}' (reserved name)"));
    }
    act.node()?;
    // Of a VM the configuration is read, for what cannot be saved with its memory.
    if kind == GuestKind::Qemu {
        let config = &act.call().guest(kind)?.config;
        let mut blockers = Vec::new();
        if config.get("amd-sev").is_some() {
            blockers.push("amd-sev");
        }
        if config.iter().any(|(key, _)| crate::world::config::is_numbered(key, "virtiofs")) {
            blockers.push("virtiofs");
        }
        if act.flag("vmstate") && !blockers.is_empty() {
            let text = "Cannot live-migrate, snapshot (with RAM), or hibernate a VM with";
            return fail(format!("{text}: {}", blockers.join(", ")));
        }
    }
    let id = act.text("vmid").to_owned();
    act.fork(if kind == GuestKind::Qemu { "qmsnapshot" } else { "vzsnapshot" }, &id, &[])
}

pub fn snapshot_qemu(act: &mut Act<'_>) -> Result<Answer, Answer> {
    snapshot(act, GuestKind::Qemu)
}

pub fn snapshot_lxc(act: &mut Act<'_>) -> Result<Answer, Answer> {
    snapshot(act, GuestKind::Lxc)
}

fn on_snapshot(act: &mut Act<'_>, task: &str) -> Result<Answer, Answer> {
    act.node()?;
    let id = act.text("vmid").to_owned();
    act.fork(task, &id, &[])
}

pub fn rollback_qemu(act: &mut Act<'_>) -> Result<Answer, Answer> {
    on_snapshot(act, "qmrollback")
}

pub fn rollback_lxc(act: &mut Act<'_>) -> Result<Answer, Answer> {
    on_snapshot(act, "vzrollback")
}

pub fn delete_snapshot_qemu(act: &mut Act<'_>) -> Result<Answer, Answer> {
    on_snapshot(act, "qmdelsnapshot")
}

pub fn delete_snapshot_lxc(act: &mut Act<'_>) -> Result<Answer, Answer> {
    on_snapshot(act, "vzdelsnapshot")
}

/// `PUT …/snapshot/{snapname}/config`: its description. Without one PVE does not even look whether the snapshot exists.
fn describe_snapshot(act: &mut Act<'_>, kind: GuestKind) -> Result<Answer, Answer> {
    let Some(description) = act.given("description").map(str::to_owned) else { return done() };
    let name = act.text("snapname").to_owned();
    let guest = act.guest(kind)?;
    if let Some(lock) = guest.lock() {
        return fail(format!("{} is locked ({lock})", crate::work::guest_word(kind)));
    }
    let Some(snapshot) = guest.snapshots.iter_mut().find(|snapshot| snapshot.name == name) else {
        return fail(format!("snapshot '{name}' does not exist"));
    };
    snapshot.description = description;
    done()
}

pub fn describe_snapshot_qemu(act: &mut Act<'_>) -> Result<Answer, Answer> {
    describe_snapshot(act, GuestKind::Qemu)
}

pub fn describe_snapshot_lxc(act: &mut Act<'_>) -> Result<Answer, Answer> {
    describe_snapshot(act, GuestKind::Lxc)
}

/// `GET …/snapshot/{snapname}/config`.
fn snapshot_config(call: &Call<'_>, kind: GuestKind) -> Result<Answer, Answer> {
    let guest = call.guest(kind)?;
    let name = call.text("snapname");
    let Some(at) = guest.snapshots.iter().position(|snapshot| snapshot.name == name) else {
        return fail(format!("snapshot '{name}' does not exist"));
    };
    let Some(snapshot) = guest.snapshots.get(at) else { return fail("snapshot vanished") };
    let config = snapshot.config.as_ref().unwrap_or(&guest.config);
    let mut data: Map<String, Value> = config.to_json();
    data.remove("parent");
    data.remove("description");
    if !snapshot.description.is_empty() {
        data.insert("description".to_owned(), json!(snapshot.description));
    }
    data.insert("snaptime".to_owned(), json!(snapshot.time));
    if let Some(parent) = guest.parents().get(at).cloned().flatten() {
        data.insert("parent".to_owned(), json!(parent));
    }
    Ok(Answer::ok(Value::Object(data)))
}

pub fn snapshot_config_qemu(call: &Call<'_>) -> Result<Answer, Answer> {
    snapshot_config(call, GuestKind::Qemu)
}

pub fn snapshot_config_lxc(call: &Call<'_>) -> Result<Answer, Answer> {
    snapshot_config(call, GuestKind::Lxc)
}
