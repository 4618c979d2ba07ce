//! What a desired guest names and the cluster has to have. What is not known is let through: Proxmox VE says it then.

use super::Around;
use super::guard::Forbidden;
use crate::canonical::{Canonical, is_disk, is_nic};
use crate::desired::Guest;

fn listed<'a>(names: impl IntoIterator<Item = &'a String>) -> String {
    let names: Vec<_> = names.into_iter().map(String::as_str).collect();
    if names.is_empty() { "those that it gets (it has none)".to_owned() } else { names.join(", ") }
}

/// The node is there and online.
pub(super) fn node(around: &Around, field: &str, name: &str) -> Result<(), Forbidden> {
    if around.nodes.is_empty() {
        return Ok(());
    }
    let text = match around.nodes.get(name) {
        Some(true) => return Ok(()),
        Some(false) => format!("the node {name} is offline: wait for it, or desire another one"),
        None => {
            format!("the cluster has no node {name:?}: write one of {}", listed(around.nodes.keys()))
        }
    };
    Err((field.to_owned(), text))
}

/// The node has the storage.
pub(super) fn storage(around: &Around, field: &str, node: &str, name: &str) -> Result<(), Forbidden> {
    match around.storages.get(node) {
        Some(names) if !names.contains(name) => {
            let text = format!(
                "the node {node} has no storage {name:?}, or the token may not see it: write one of {}",
                listed(names)
            );
            Err((field.to_owned(), text))
        }
        _ => Ok(()),
    }
}

/// The node has the bridge.
pub(super) fn bridge(around: &Around, field: &str, node: &str, name: &str) -> Result<(), Forbidden> {
    match around.bridges.get(node) {
        Some(names) if !names.contains(name) => {
            let text = format!(
                "the node {node} has no bridge {name:?}, or the token may not see it: write one of {}",
                listed(names)
            );
            Err((field.to_owned(), text))
        }
        _ => Ok(()),
    }
}

/// The storages and bridges that an option names are there.
pub(super) fn option(around: &Around, guest: &Guest, key: &str, node: &str) -> Result<(), Forbidden> {
    let Some(Canonical::Map(map)) = guest.fields.get(key) else { return Ok(()) };
    if let Some(name) = map.get("storage").filter(|_| is_disk(guest.kind, key)) {
        storage(around, &format!("{key}.storage"), node, &name.to_string())?;
    }
    if let Some(name) = map.get("bridge").filter(|_| is_nic(guest.kind, key)) {
        bridge(around, &format!("{key}.bridge"), node, &name.to_string())?;
    }
    Ok(())
}

/// The node can reach the template.
pub(super) fn template(around: &Around, node: &str, name: &str) -> Result<(), Forbidden> {
    match around.templates.get(node) {
        Some(names) if !names.contains(name) => {
            let text = format!(
                "the node {node} has no template {name:?}, or the token may not see it: write one of {}",
                listed(names)
            );
            Err(("ostemplate".to_owned(), text))
        }
        _ => Ok(()),
    }
}
