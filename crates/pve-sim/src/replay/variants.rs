//! States that a recorded answer may have presupposed and that nothing in it tells: whether the guest ran, whether it was a
//! template, what its disks were made of. An answer that PVE's rules give in one of them is one that the simulator gives.

use crate::world::config::parse_drive;
use crate::world::state::{Guest, Power, State};

/// One thing that a state may differ in from the one that was prepared first.
type Change = fn(&mut State);

/// The states to try, the likelier ones first. The empty one is the state as prepared.
pub(super) fn all() -> Vec<Vec<Change>> {
    let powers: [Option<Change>; 4] = [None, Some(running), Some(stopped), Some(paused)];
    let disks: [Option<Change>; 4] = [None, Some(raw_disks), Some(shared_storages), Some(block_storages)];
    let kinds: [Option<Change>; 4] = [None, Some(template), Some(managed), Some(without_device)];
    let mut found: Vec<Vec<Change>> = Vec::new();
    for disk in disks {
        for kind in kinds {
            for power in powers {
                found.push([power, kind, disk].into_iter().flatten().collect());
            }
        }
    }
    found.sort_by_key(Vec::len);
    found.push(vec![fewer_rights]);
    found
}

fn each(state: &mut State, change: impl Fn(&mut Guest)) {
    state.guests.values_mut().for_each(change);
}

/// The caller has no rights on everything: what an answer leaves out without a word takes some.
fn fewer_rights(state: &mut State) {
    state.access.acl.remove("/");
}

fn running(state: &mut State) {
    each(state, |guest| guest.power = Power::Running);
}

fn stopped(state: &mut State) {
    each(state, |guest| guest.power = Power::Stopped);
}

fn paused(state: &mut State) {
    each(state, |guest| guest.power = Power::Paused);
}

fn template(state: &mut State) {
    each(state, |guest| guest.config.set("template", 1));
}

fn managed(state: &mut State) {
    each(state, |guest| guest.ha = Some("started".into()));
}

/// The last drive of each guest is gone.
fn without_device(state: &mut State) {
    each(state, |guest| {
        let last = guest.drives().last().map(|drive| drive.key.to_owned());
        if let Some(key) = last {
            guest.config.remove(&key);
        }
    });
}

fn raw_disks(state: &mut State) {
    each(state, |guest| {
        let drives: Vec<(String, String)> = guest
            .drives()
            .into_iter()
            .map(|drive| (drive.key.to_owned(), drive.to_property_string().replace(".qcow2", ".raw")))
            .collect();
        for (key, value) in drives {
            guest.config.set(key, value);
        }
    });
}

fn shared_storages(state: &mut State) {
    for storage in state.storages.values_mut() {
        storage.shared = true;
        storage.kind = "nfs".to_owned();
    }
}

/// Storages of thin volumes, which have no files and no formats.
fn block_storages(state: &mut State) {
    for storage in state.storages.values_mut() {
        storage.kind = "lvmthin".to_owned();
        storage.properties.remove("path");
    }
    each(state, |guest| {
        let drives: Vec<(String, String)> = guest
            .drives()
            .into_iter()
            .filter(|drive| drive.storage().is_some() && !drive.is_cdrom())
            .map(|drive| (drive.key.to_owned(), bare(&drive.to_property_string(), drive.key)))
            .collect();
        for (key, value) in drives {
            guest.config.set(key, value);
        }
    });
}

/// `a:100/vm-100-disk-0.qcow2,size=1G` as `a:vm-100-disk-0,size=1G`.
fn bare(value: &str, key: &str) -> String {
    let mut drive = parse_drive(key, value);
    if let Some((storage, name)) = drive.volume.split_once(':') {
        let name = name.rsplit('/').next().unwrap_or(name);
        let name = name.split('.').next().unwrap_or(name);
        drive.volume = format!("{storage}:{name}");
    }
    drive.to_property_string()
}
