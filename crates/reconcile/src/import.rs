//! What is desired after a document was imported: the document's word, and what stays because it says nothing of it.

use crate::desired::{Desired, default_uid};
use crate::document::Document;
use pvegraph_inventory::GuestType;

/// The document's word (`new`, see [`crate::desired::from_document`]) for a desired state that it replaces. What it does not name stays:
/// guests and sections unless `prune`, and in any case what protects a guest that was desired before, so that a document that is silent of
/// it takes no protection away.
pub fn merged(old: &Desired, new: &Desired, document: &Document, prune: bool) -> Desired {
    let mut merged = new.clone();
    keep_leave(old, &mut merged, document);
    if !prune {
        for (uid, guest) in &old.guests {
            merged.guests.entry(uid.clone()).or_insert_with(|| guest.clone());
        }
        for (key, spec) in &old.sections {
            merged.sections.entry(key.clone()).or_insert_with(|| spec.clone());
        }
        merged.node = merged.node.or_else(|| old.node.clone());
    }
    merged
}

/// Takes over what may be done to a guest, where its entry does not say it.
fn keep_leave(old: &Desired, merged: &mut Desired, document: &Document) {
    let estate = &document.plugins.proxmox;
    let machines = estate.vms.iter().map(|entry| (GuestType::Qemu, entry));
    let containers = estate.containers.iter().map(|entry| (GuestType::Lxc, entry));
    for (kind, entry) in machines.chain(containers) {
        let uid = entry.uid.clone().or_else(|| Some(default_uid(kind, entry.vmid?)));
        let Some(uid) = uid else { continue };
        let (Some(was), Some(guest)) = (old.guests.get(&uid), merged.guests.get_mut(&uid)) else { continue };
        guest.policy = entry.policy.unwrap_or(was.policy);
        guest.protected = entry.protected.unwrap_or(was.protected);
        guest.deletion = entry.deletion.unwrap_or(was.deletion);
        guest.reboot = entry.reboot.unwrap_or(was.reboot);
        guest.local_disks = entry.local_disks.unwrap_or(was.local_disks);
        guest.shutdown = entry.shutdown.unwrap_or(was.shutdown);
    }
}
