//! Migrations, and what must hold before one.

use serde_json::{Map, Value, json};

use super::act::{Act, fail};
use super::config_privileges::root_only;
use super::{Call, checks, volume_access};
use crate::answer::Answer;
use crate::world::config::{is_numbered, parse_size};
use crate::world::state::{Guest, GuestKind};

/// `GET …/migrate`: the nodes that could take the VM, and what stands in the way.
pub fn preconditions(call: &Call<'_>) -> Result<Answer, Answer> {
    let guest = call.guest(GuestKind::Qemu)?;
    if let Some(lock) = guest.lock() {
        return fail(format!("VM is locked ({lock})"));
    }
    let mut disks = Vec::new();
    for drive in crate::work::local_drives(call.state, guest) {
        let unused = is_numbered(drive.key, "unused");
        let mut row = json!({
            "cdrom": u8::from(drive.is_cdrom()), "is_attached": u8::from(!unused),
            "is_tpmstate": u8::from(drive.key == "tpmstate0"), "is_unused": u8::from(unused), "is_vmstate": 0,
            "replicate": u8::from(drive.option("replicate") != Some("0")), "shared": 0, "volid": drive.volume,
        });
        if !unused {
            row["drivename"] = json!(drive.key);
        }
        let holds = |snapshot: &&crate::world::state::Snapshot| {
            snapshot.config.as_ref().is_some_and(|config| {
                config.iter().any(|(_, value)| value.to_text().split(',').next() == Some(&drive.volume))
            })
        };
        let snapshots: Map<String, Value> =
            guest.snapshots.iter().filter(holds).map(|snapshot| (snapshot.name.clone(), json!(1))).collect();
        if !snapshots.is_empty() {
            row["referenced_in_snapshot"] = Value::Object(snapshots);
        }
        if let Some(size) = drive.option("size").and_then(parse_size) {
            row["size"] = json!(size);
        }
        disks.push(row);
    }
    let others: Vec<&String> =
        call.state.nodes.keys().filter(|name| name.as_str() != guest.node.as_ref()).collect();
    let mut data = json!({
        "local_disks": disks, "local_resources": [], "mapped-resource-info": {}, "mapped-resources": [],
        "running": u8::from(guest.is_running()),
    });
    {
        let lacks = |node: &str| -> Vec<String> {
            let drives = guest.drives();
            let storages = drives.iter().filter_map(|drive| call.state.storages.get(drive.storage()?));
            let mut missing: Vec<String> = storages
                .filter(|storage| !storage.is_active_on(node))
                .map(|storage| storage.id.clone())
                .collect();
            missing.dedup();
            missing
        };
        let mut blocked = Map::new();
        let mut allowed = Vec::new();
        for node in others {
            let missing = lacks(node);
            if missing.is_empty() {
                allowed.push(node.clone());
                blocked.insert(node.clone(), json!({}));
            } else {
                blocked.insert(node.clone(), json!({"unavailable_storages": missing}));
            }
        }
        data["allowed_nodes"] = json!(allowed);
        data["not_allowed_nodes"] = Value::Object(blocked);
    }
    Ok(Answer::ok(data))
}

/// Whether a target is another node that there is.
fn check_target(act: &Act<'_>) -> Result<String, Answer> {
    let target = act.text("target").to_owned();
    if target == act.node()? {
        return Err(Answer::bad_parameter("target", "target is local node."));
    }
    if !act.state.nodes.contains_key(&target) {
        return fail(format!("no such cluster node '{target}'"));
    }
    Ok(target)
}

fn is_managed(guest: &Guest) -> bool {
    guest.ha.as_deref().is_some_and(|state| state != "ignored")
}

/// `POST …/migrate` of a VM: a running one must be told to, and its storages must be there, before the task starts.
pub fn qemu(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let target = check_target(act)?;
    root_only(act, &["force", "migration_type", "migration_network"])?;
    let guest = act.call().guest(GuestKind::Qemu)?.clone();
    if let Some(lock) = guest.lock() {
        return fail(format!("VM is locked ({lock})"));
    }
    if guest.is_running() && !act.flag("online") {
        return fail("can't migrate running VM without --online");
    }
    check_replication(act, &guest, &target)?;
    match act.given("targetstorage") {
        Some(map) => check_target_storages(act, &guest, map, &target)?,
        None => check_availability(act, &guest, &target)?,
    }
    if is_managed(&guest) {
        return super::power::ask_ha(act, "hamigrate");
    }
    act.fork("qmigrate", &guest.vmid.to_string(), &[])
}

/// A replicated VM goes live only to where its replicas are.
fn check_replication(act: &Act<'_>, guest: &Guest, target: &str) -> Result<(), Answer> {
    let own: Vec<_> = act
        .state
        .replication
        .iter()
        .filter(|(id, _)| id.split('-').next() == Some(guest.vmid.to_string().as_str()))
        .collect();
    let there = own.iter().any(|(_, job)| job.get("target").and_then(Value::as_str) == Some(target));
    if guest.is_running() && !own.is_empty() && !there && !act.flag("force") {
        return fail(format!(
            "Cannot live-migrate replicated VM to node '{target}' - not a replication target. Use 'force' to override."
        ));
    }
    Ok(())
}

/// Each storage of the VM's volumes must be usable here and on the target, and be for what is on it.
fn check_availability(act: &Act<'_>, guest: &Guest, target: &str) -> Result<(), Answer> {
    for drive in guest.drives().iter().filter(|drive| !is_numbered(drive.key, "unused")) {
        let Some(id) = drive.storage() else { continue };
        let storage = volume_access::enabled(act.state, id, &guest.node)?;
        volume_access::enabled(act.state, id, target)?;
        if drive.volume.contains("cloudinit") {
            continue;
        }
        let (_, volume) = volume_access::parse(act.state, &drive.volume)?;
        if !volume_access::has_content(storage, volume.content) {
            let (volume, content) = (&drive.volume, volume.content);
            return fail(format!("{volume}: content type '{content}' is not available on storage '{id}'"));
        }
    }
    Ok(())
}

/// `1` is every storage to itself, `a` all to `a`, `a:b,c:d` some to others.
fn check_target_storages(act: &Act<'_>, guest: &Guest, map: &str, target: &str) -> Result<(), Answer> {
    if map == "1" {
        return check_availability(act, guest, target);
    }
    super::config_privileges::require_on_guest(act, guest.vmid, None, &["VM.Config.Disk"])?;
    for entry in crate::schema::split_list(map) {
        let id = entry.rsplit(':').next().unwrap_or(entry);
        volume_access::enabled(act.state, id, &guest.node)?;
        checks::require(&act.call(), &format!("/storage/{id}"), &["Datastore.AllocateSpace"], false)?;
        let storage = volume_access::enabled(act.state, id, target)?;
        let content = if guest.kind == GuestKind::Qemu { "images" } else { "rootdir" };
        if !volume_access::has_content(storage, content) {
            let what = if guest.kind == GuestKind::Qemu { "vm images" } else { "CT rootdirs" };
            return fail(format!("storage '{id}' does not support {what}"));
        }
    }
    Ok(())
}

/// `POST …/migrate` of a container: a lock is found out in the task.
pub fn lxc(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let target = check_target(act)?;
    let guest = act.call().guest(GuestKind::Lxc)?.clone();
    if guest.is_running() && !act.flag("online") && !act.flag("restart") {
        return fail("can't migrate running container without --online or --restart");
    }
    if let Some(map) = act.given("target-storage") {
        check_target_storages(act, &guest, map, &target)?;
    }
    if is_managed(&guest) {
        return super::power::ask_ha(act, "hamigrate");
    }
    act.fork("vzmigrate", &guest.vmid.to_string(), &[])
}

/// `POST …/remote_migrate`: what is checked here is; the other cluster is out of reach.
fn remote(act: &mut Act<'_>, kind: GuestKind) -> Result<Answer, Answer> {
    let guest = act.call().guest(kind)?;
    let word = crate::work::guest_word(kind);
    if let Some(lock) = guest.lock() {
        return fail(format!("{word} is locked ({lock})"));
    }
    if kind == GuestKind::Lxc && guest.is_running() && !act.flag("online") && !act.flag("restart") {
        return fail("can't migrate running container without --online or --restart");
    }
    if guest.ha.is_some() {
        let text = format!("cannot remote-migrate {word} that is configured for HA");
        return Err(Answer::bad_parameter("vmid", &text));
    }
    let part = |name: &str| {
        let parts = act.text("target-endpoint").split(',');
        parts.filter_map(|part| part.split_once('=')).find(|(key, _)| *key == name).map(|(_, value)| value)
    };
    let (host, port) = (part("host").unwrap_or_default(), part("port").unwrap_or("8006"));
    fail(format!("500 Can't connect to {host}:{port} (No route to host)"))
}

pub fn remote_qemu(act: &mut Act<'_>) -> Result<Answer, Answer> {
    remote(act, GuestKind::Qemu)
}

pub fn remote_lxc(act: &mut Act<'_>) -> Result<Answer, Answer> {
    remote(act, GuestKind::Lxc)
}
