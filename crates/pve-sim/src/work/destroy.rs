//! The end of a guest.

use super::disks::{self};
use super::{Log, Outcome, check_lock, guest_word};
use crate::world::state::{Guest, State, Work};

/// A guest whose images others build on cannot go, nor a locked one.
pub(super) fn begin_destroy(state: &State, work: &Work) -> Outcome {
    if !work.flag("skiplock") {
        check_lock(state, work)?;
    }
    let Some(guest) = state.guests.get(&work.vmid()) else { return Ok(()) };
    for volume in disks::volumes_of(guest) {
        let base = format!("{volume}/");
        let child = |other: &Guest| disks::volumes_of(other).iter().any(|volume| volume.starts_with(&base));
        if state.guests.values().any(|other| other.vmid != guest.vmid && child(other)) {
            return Err(format!("base volume '{volume}' is still in use by linked cloned"));
        }
    }
    Ok(())
}

/// Destroys a guest with its rights and firewall; with `purge` also where jobs, HA and replication name it.
pub(super) fn destroy(state: &mut State, work: &Work, log: &mut Log) -> Outcome {
    let vmid = work.vmid();
    let Some(guest) = state.guests.remove(&vmid) else { return Err(super::missing(state, work)) };
    state.access.acl.remove(&format!("/vms/{vmid}"));
    state.firewalls.remove(&format!("guest/{vmid}"));
    if work.flag("purge") {
        log.push(format!("purging {} {vmid} from related configurations..", guest_word(guest.kind)));
        for job in state.jobs.values_mut() {
            match &mut job.selection {
                crate::world::state::Selection::Guests(vmids) => vmids.retain(|have| *have != vmid),
                crate::world::state::Selection::All { exclude } => exclude.retain(|have| *have != vmid),
                crate::world::state::Selection::Pool(_) => {}
            }
        }
        let empty = |job: &crate::world::state::BackupJob| matches!(&job.selection, crate::world::state::Selection::Guests(vmids) if vmids.is_empty());
        state.jobs.retain(|_, job| !empty(job));
        state.ha_settings.retain(|sid, _| sid.rsplit(':').next() != Some(&vmid.to_string()));
        state.replication.retain(|id, _| id.split('-').next() != Some(&vmid.to_string()));
    }
    Ok(())
}
