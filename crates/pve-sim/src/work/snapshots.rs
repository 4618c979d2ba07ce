//! Snapshots of guests: taken, gone back to, removed.

use super::{Log, Outcome, check_lock};
use crate::world::config::is_numbered;
use crate::world::state::{Guest, Power, Snapshot, State, Work};

/// Whether a guest's disks can be snapshotted: images of files must be qcow2, some storages cannot at all.
pub(crate) fn can_snapshot(state: &State, guest: &Guest) -> bool {
    guest.drives().iter().filter(|drive| !drive.key.starts_with("unused") && !drive.is_cdrom()).all(|drive| {
        let storage = drive.storage().and_then(|storage| state.storages.get(storage));
        match storage.map(|storage| storage.kind.as_str()) {
            Some("dir" | "nfs" | "cifs" | "glusterfs") => drive.volume.ends_with(".qcow2"),
            Some("lvm" | "iscsi" | "iscsidirect") => false,
            // A host directory is left out; an unknown storage is not this rule's matter.
            _ => true,
        }
    })
}

pub(super) fn begin_snapshot(state: &State, work: &Work) -> Outcome {
    check_lock(state, work)?;
    let Some(guest) = state.guests.get(&work.vmid()) else { return Ok(()) };
    let name = work.text("snapname");
    if guest.snapshots.iter().any(|snapshot| snapshot.name == name) {
        return Err(format!("snapshot name '{name}' already used"));
    }
    if guest.is_template() {
        return Err("you can't take a snapshot if it's a template".to_owned());
    }
    if !can_snapshot(state, guest) {
        return Err("snapshot feature is not available".to_owned());
    }
    Ok(())
}

pub(super) fn snapshot(state: &mut State, work: &Work, log: &mut Log) -> Outcome {
    let now =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs();
    let Some(guest) = state.guests.get_mut(&work.vmid()) else { return Err(super::missing(state, work)) };
    let name = work.text("snapname");
    let with_memory = work.flag("vmstate") && guest.power == Power::Running;
    let mut config = guest.config.clone();
    config.remove("parent");
    if with_memory {
        let storage =
            guest.drives().iter().find_map(|drive| drive.storage().map(str::to_owned)).unwrap_or_default();
        config.set("vmstate", format!("{storage}:{0}/vm-{0}-state-{name}.raw", guest.vmid));
        config.set("runningmachine", "pc-i440fx-9.2+pve1");
        config.set("runningcpu", "kvm64,enforce,+kvm_pv_eoi,+kvm_pv_unhalt,+lahf_lm,+sep");
    }
    for drive in guest.drives().iter().filter(|drive| !drive.is_cdrom() && drive.storage().is_some()) {
        log.push(format!("snapshotting 'drive-{}' ({})", drive.key, drive.volume));
    }
    let parent = guest.config.text("parent").map(|parent| parent.into_owned());
    let description = work.text("description").to_owned();
    guest.snapshots.push(Snapshot {
        name: name.to_owned(),
        description,
        time: now,
        with_memory,
        parent,
        config: Some(config),
    });
    guest.config.set("parent", name);
    Ok(())
}

pub(super) fn begin_snapshot_change(state: &State, work: &Work) -> Outcome {
    let Some(guest) = state.guests.get(&work.vmid()) else { return Err(super::missing(state, work)) };
    let name = work.text("snapname");
    let Some(at) = guest.snapshots.iter().position(|snapshot| snapshot.name == name) else {
        return Err(format!("snapshot '{name}' does not exist"));
    };
    check_lock(state, work)?;
    if work.kind.ends_with("rollback") {
        // ZFS goes back to its newest snapshot alone.
        let on_zfs = guest.drives().iter().any(|drive| {
            drive
                .storage()
                .and_then(|storage| state.storages.get(storage))
                .is_some_and(|storage| storage.kind == "zfspool")
        });
        if on_zfs && at + 1 != guest.snapshots.len() {
            let newest = guest.snapshots.last().map_or("", |snapshot| snapshot.name.as_str());
            return Err(format!("can't rollback, '{name}' is not most recent snapshot on '{newest}'"));
        }
    }
    Ok(())
}

/// Rolling back brings the old configuration but for description and unused disks, which stay, and starts the VM if the snapshot holds its memory.
pub(super) fn rollback(state: &mut State, work: &Work) -> Outcome {
    let Some(guest) = state.guests.get_mut(&work.vmid()) else { return Err(super::missing(state, work)) };
    let name = work.text("snapname");
    let Some(snapshot) = guest.snapshots.iter().find(|snapshot| snapshot.name == name) else {
        return Err(format!("snapshot '{name}' does not exist"));
    };
    let with_memory = snapshot.with_memory;
    if let Some(mut config) = snapshot.config.clone() {
        let stays = |key: &str| key == "description" || is_numbered(key, "unused");
        let old: Vec<String> =
            config.iter().map(|(key, _)| key.to_owned()).filter(|key| stays(key)).collect();
        for key in &old {
            config.remove(key);
        }
        for (key, value) in guest.config.iter().filter(|(key, _)| stays(key)) {
            config.set(key.to_owned(), value.clone());
        }
        guest.config = config;
        for key in ["vmstate", "runningmachine", "runningcpu"] {
            guest.config.remove(key);
        }
    }
    guest.config.set("parent", name);
    guest.pending.clear();
    guest.power = if with_memory || work.flag("start") { Power::Running } else { Power::Stopped };
    Ok(())
}

pub(super) fn delete_snapshot(state: &mut State, work: &Work) -> Outcome {
    let Some(guest) = state.guests.get_mut(&work.vmid()) else { return Err(super::missing(state, work)) };
    let name = work.text("snapname");
    let at = guest.snapshots.iter().position(|snapshot| snapshot.name == name);
    let parents = guest.parents();
    if let Some(at) = at {
        let parent = parents.get(at).cloned().flatten();
        guest.snapshots.remove(at);
        for snapshot in guest.snapshots.iter_mut().filter(|snapshot| snapshot.parent.as_deref() == Some(name))
        {
            snapshot.parent.clone_from(&parent);
        }
        if guest.config.text("parent").as_deref() == Some(name) {
            match parent {
                Some(parent) => guest.config.set("parent", parent),
                None => {
                    guest.config.remove("parent");
                }
            }
        }
    }
    Ok(())
}
