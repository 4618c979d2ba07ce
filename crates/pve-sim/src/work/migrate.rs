//! Migrations.

use super::{Log, Outcome, check_lock};
use crate::world::config::parse_drive;
use crate::world::state::{Guest, State, Work};

/// The drives of a guest that only its node can see.
pub(crate) fn local_drives<'a>(state: &State, guest: &'a Guest) -> Vec<crate::world::config::Drive<'a>> {
    let is_local = |storage: &str| state.storages.get(storage).is_some_and(|storage| !storage.shared);
    guest
        .drives()
        .into_iter()
        .filter(|drive| drive.storage().is_some_and(is_local) && !drive.volume.contains(":iso/"))
        .collect()
}

pub(super) fn begin(state: &mut State, work: &Work) -> Outcome {
    check_lock(state, work)?;
    let Some(guest) = state.guests.get(&work.vmid()) else { return Ok(()) };
    let target = work.text("target");
    if state.unreachable.contains_key(target) || state.nodes.get(target).is_none_or(|node| !node.online) {
        let text = "Can't connect to destination address using public key";
        return Err(format!("migration aborted (duration 00:00:00): {text}"));
    }
    for drive in guest.drives() {
        let Some(storage) = drive.storage().and_then(|storage| state.storages.get(storage)) else { continue };
        if !storage.is_for_node(target) {
            let id = &storage.id;
            return Err(format!(
                "migration aborted (duration 00:00:00): storage '{id}' is not available on node '{target}'"
            ));
        }
    }
    let local = local_drives(state, guest);
    if guest.is_running() && !local.is_empty() && !work.flag("with-local-disks") && work.kind == "qmigrate" {
        let volume = local.first().map(|drive| drive.volume.clone()).unwrap_or_default();
        return Err(format!(
            "migration aborted (duration 00:00:00): can't migrate local disk '{volume}': can't live migrate attached local disks without with-local-disks option"
        ));
    }
    Ok(())
}

/// The guest is on the other node; local volumes went along, to another storage if so asked.
pub(super) fn finish(state: &mut State, work: &Work, log: &mut Log) -> Outcome {
    let target = work.text("target");
    let Some(node) = state.nodes.get(target).map(|node| node.name.clone()) else {
        return Err(format!("no such cluster node '{target}'"));
    };
    let storage = work
        .given("targetstorage")
        .or(work.given("target-storage"))
        .filter(|name| state.storages.contains_key(*name));
    let moved: Vec<String> = match state.guests.get(&work.vmid()) {
        Some(guest) => local_drives(state, guest).iter().map(|drive| drive.key.to_owned()).collect(),
        None => return Err(super::missing(state, work)),
    };
    let storage = storage.map(str::to_owned);
    if let Some(guest) = state.guests.get_mut(&work.vmid()) {
        for key in moved {
            let value = guest.config.text(&key).unwrap_or_default().into_owned();
            let drive = parse_drive(&key, &value);
            if let (Some(new), Some((_, rest))) = (&storage, value.split_once(':')) {
                let text = format!("{new}:{rest}");
                log.push(format!("copied {} to storage '{new}'", drive.volume));
                guest.config.set(key, text);
            }
        }
        log.push(format!(
            "starting migration of {} {} to node '{target}'",
            super::guest_word(guest.kind),
            guest.vmid
        ));
        guest.node = node;
        log.push("migration finished successfully (duration 00:00:03)".to_owned());
    }
    Ok(())
}
