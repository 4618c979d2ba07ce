//! What stands in the way of a migration.

use pvegraph_inventory::GuestType;

use super::guard::Forbidden;
use super::{Around, Migration, known};
use crate::canonical::{Canonical, is_disk, is_nic};
use crate::desired::Guest;
use crate::document::{LocalDisks, Reboot};
use crate::live::LiveGuest;

/// Why a guest may not go to this node, as far as its configuration and the cluster's listing tell.
pub(super) fn check(around: &Around, guest: &Guest, live: &LiveGuest, target: &str) -> Result<(), Forbidden> {
    let forbidden = |field: &str, text: String| Err((field.to_owned(), text));
    known::node(around, "node", target)?;
    if !matches!(live.status.as_str(), "running" | "stopped") {
        return forbidden(
            "node",
            "what it does is not known, as its node is offline: wait for the node".to_owned(),
        );
    }
    if live.ha.as_deref() == Some("error") {
        return forbidden("ha", HA_ERROR.to_owned());
    }
    let lxc = live.kind == GuestType::Lxc;
    if lxc && live.status == "running" && guest.reboot == Reboot::Never {
        return forbidden(
            "node",
            "a container moves only while it is stopped: stop it first, or let it restart (`reboot`: `allow`)".to_owned(),
        );
    }
    for key in live.config.keys().filter(|key| is_disk(live.kind, key)) {
        let Some(Canonical::Map(map)) = live.option(key, around.style) else { continue };
        let text = |name: &str| map.get(name).map(ToString::to_string);
        let Some(storage) = text("storage") else {
            // A directory of the node, mounted as it is.
            let bound = lxc && text("volume").is_some_and(|volume| volume.starts_with('/'));
            if bound && text("shared").as_deref() != Some("1") {
                return forbidden(
                    "node",
                    format!(
                        "the directory at `{key}` ties it to the node {}: take that out first",
                        live.node
                    ),
                );
            }
            continue;
        };
        known::storage(around, "node", target, &storage)?;
        let local = around.shared.as_ref().is_some_and(|shared| !shared.contains(&storage));
        if lxc && local && guest.local_disks == LocalDisks::Stay {
            return forbidden("local_disks", stays(&live.node));
        }
    }
    // Proxmox VE does not ask for them, and the guest would not start there.
    for key in live.config.keys().filter(|key| is_nic(live.kind, key)) {
        let Some(Canonical::Map(map)) = live.option(key, around.style) else { continue };
        let Some(bridge) = map.get("bridge").map(ToString::to_string) else { continue };
        if around.bridges.get(target).is_some_and(|names| !names.contains(&bridge)) {
            return forbidden(
                "node",
                format!(
                    "`{key}` is on the bridge {bridge}, which {target} has not: make it there, or desire another node or bridge first"
                ),
            );
        }
    }
    match around.migrations.get(&live.vmid) {
        Some(says) => forbids(says, &live.node, target, guest.local_disks).map_or(Ok(()), Err),
        None => Ok(()),
    }
}

/// What Proxmox VE holds against a machine's migration: field and mend.
pub fn forbids(
    says: &Migration,
    node: &str,
    target: &str,
    local_disks: LocalDisks,
) -> Option<(String, String)> {
    let forbidden = |field: &str, text: String| Some((field.to_owned(), text));
    if let Some(first) = says.ties.first() {
        return forbidden("node", format!("{first} ties it to the node {node}: take that out first"));
    }
    if says.allowed.as_ref().is_some_and(|allowed| !allowed.contains(target)) {
        return forbidden(
            "node",
            format!(
                "Proxmox VE does not let it go to {target}: the storages and bridges that it uses have to be there"
            ),
        );
    }
    if let Some(first) = says.carries.first() {
        return forbidden(
            "ha",
            format!("high availability would move {first} with it: take its rule away first"),
        );
    }
    (says.local_disks && local_disks == LocalDisks::Stay).then(|| ("local_disks".to_owned(), stays(node)))
}

/// What a guest in HA's `error` needs first.
pub(super) const HA_ERROR: &str =
    "high availability has given it up (error): set its state to `disabled` there first";

fn stays(node: &str) -> String {
    format!(
        "it has volumes that only {node} has: desire `local_disks: migrate` to have them copied, or move them to a shared storage first"
    )
}
