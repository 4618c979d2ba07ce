//! Work on storages and nodes: uploads, removals, backups, a network's reload.

use super::{Log, Outcome};
use crate::world::state::{GuestKind, State, Volume, Work};

pub(super) fn delete_volume(state: &mut State, work: &Work, log: &mut Log) -> Outcome {
    let id = work.text("volid");
    match state.volumes.get(id) {
        Some(volume) if volume.protected => {
            Err(format!("cannot remove protected volume '{id}' on '{}'", work.text("storage")))
        }
        Some(_) => {
            state.volumes.remove(id);
            log.push(format!("Removed volume '{id}'"));
            Ok(())
        }
        None if super::disks::volume_exists(state, id) => {
            log.push(format!("Removed volume '{id}'"));
            Ok(())
        }
        None => Err(format!("volume '{id}' does not exist")),
    }
}

pub(super) fn upload(state: &mut State, work: &Work, log: &mut Log) -> Outcome {
    let (storage, content, name) = (work.text("storage"), work.text("content"), work.text("filename"));
    let format = name.rsplit_once('.').map_or("raw", |(_, end)| end).to_owned();
    let volume = Volume {
        content: content.to_owned(),
        size: work.text("size").parse().unwrap_or(1 << 20),
        format,
        time: work.text("time").parse().unwrap_or_default(),
        node: Some(work.text("node").to_owned()),
        ..Volume::default()
    };
    log.push(format!("target node: {}", work.text("node")));
    log.push("finished file import successfully".to_owned());
    state.volumes.insert(format!("{storage}:{content}/{name}"), volume);
    Ok(())
}

/// A backup of one guest or several. A guest that is not there fails the job, after the others had their turn.
pub(super) fn backup(state: &mut State, node: &str, work: &Work, log: &mut Log) -> Outcome {
    let storage = work.given("storage").unwrap_or("local").to_owned();
    let wanted: Vec<u32> = match work.given("vmid") {
        Some(list) => crate::schema::split_list(list).filter_map(|vmid| vmid.parse().ok()).collect(),
        None => {
            let here = state
                .guests_on(node)
                .filter(|guest| work.given("pool").is_none_or(|pool| guest.pool.as_deref() == Some(pool)));
            here.map(|guest| guest.vmid).collect()
        }
    };
    log.push(format!("INFO: starting new backup job: vzdump {}", work.text("vmid")));
    let now =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut failed = false;
    for vmid in wanted {
        let Some(guest) = state.guests.get(&vmid).filter(|guest| guest.node.as_ref() == node) else {
            log.push(format!("ERROR: Backup of VM {vmid} failed - unable to find VM '{vmid}'"));
            failed = true;
            continue;
        };
        if let Some(lock) = guest.lock() {
            let word = super::guest_word(guest.kind);
            log.push(format!("ERROR: Backup of VM {vmid} failed - {word} is locked ({lock})"));
            failed = true;
            continue;
        }
        let (kind, format) = match guest.kind {
            GuestKind::Qemu => ("qemu", "vma.zst"),
            GuestKind::Lxc => ("lxc", "tar.zst"),
        };
        let config: String =
            guest.config.iter().map(|(key, value)| format!("{key}: {}\n", value.to_text())).collect();
        let notes = work.given("notes-template").map(|text| text.replace("{{guestname}}", &guest.name()));
        let volume = Volume {
            content: "backup".to_owned(),
            size: guest.boot_disk_size() / 3,
            format: format.to_owned(),
            time: now,
            vmid: Some(vmid),
            notes,
            protected: work.flag("protected"),
            node: Some(node.to_owned()),
            config: Some(config),
            parent: None,
        };
        state.volumes.insert(format!("{storage}:backup/vzdump-{kind}-{vmid}-{now}.{format}"), volume);
        log.push(format!("INFO: Finished Backup of VM {vmid}"));
    }
    if failed { Err("job errors".to_owned()) } else { Ok(()) }
}

/// A reload applies everyone's staged edits.
pub(super) fn reload_network(state: &mut State, node: &str) -> Outcome {
    if let Some(staged) = state.staged_interfaces.remove(node) {
        state.interfaces.insert(node.to_owned(), staged);
    }
    Ok(())
}
