//! From the desired state back to the document.

use serde_json::{Map, Value, json};

use super::{Desired, Guest, Section, default_uid};
use crate::canonical::{Canonical, find};
use crate::document::{self, Document, VERSION};
use pvegraph_inventory::GuestType;

/// The document that tells this desired state.
pub fn to_document(desired: &Desired) -> Document {
    let guests =
        |kind| desired.guests.values().filter(move |guest| guest.kind == kind).map(guest_entry).collect();
    let mut estate = document::Estate {
        node: desired.node.clone(),
        vms: guests(GuestType::Qemu),
        containers: guests(GuestType::Lxc),
        ..document::Estate::default()
    };
    for ((section, name), value) in &desired.sections {
        // What was stored came from these types; what a hand changed in the graph may not fit them any more.
        let fits = match section {
            Section::Templates => serde_json::from_value(value.clone())
                .map(|one| estate.templates.insert(name.clone(), one))
                .is_ok(),
            Section::Storage => push(&mut estate.storage, value),
            Section::Network => push(&mut estate.network, value),
            Section::Backups => push(&mut estate.backups, value),
            Section::Ha => push(&mut estate.ha, value),
            Section::Cluster => {
                serde_json::from_value(value.clone()).map(|one| estate.cluster = Some(one)).is_ok()
            }
        };
        if !fits {
            tracing::warn!(section = section.as_str(), name, "left out: it is not of the document's form");
        }
    }
    Document { version: VERSION, plugins: document::Plugins { proxmox: estate } }
}

fn push<T: serde::de::DeserializeOwned>(list: &mut Vec<T>, value: &Value) -> bool {
    serde_json::from_value(value.clone()).map(|one| list.push(one)).is_ok()
}

/// A guest's entry.
pub fn guest_entry(guest: &Guest) -> document::Guest {
    let usual = guest.vmid.map(|vmid| default_uid(guest.kind, vmid));
    let entry = |key: &str| guest.not_managed.get(key).cloned();
    document::Guest {
        uid: (usual.as_ref() != Some(&guest.uid)).then(|| guest.uid.clone()),
        vmid: guest.vmid,
        node: guest.node.clone(),
        nodes: Some(guest.nodes.clone()).filter(|nodes| !nodes.is_empty()),
        prefer: Some(guest.prefer.clone()).filter(|nodes| !nodes.is_empty()),
        state: guest.state,
        policy: guest.policy.unusual(),
        protected: guest.protected.then_some(true),
        deletion: guest.deletion.unusual(),
        reboot: guest.reboot.unusual(),
        local_disks: guest.local_disks.unusual(),
        shutdown: guest.shutdown.unusual(),
        tombstone: guest.tombstone,
        template: guest.template,
        unset: guest.unset.clone(),
        depends_on: guest.depends_on.clone(),
        anti_affinity: guest.anti_affinity.clone(),
        disk: None,
        network: None,
        clone: guest.clone_of.clone(),
        ostemplate: guest.ostemplate.clone(),
        cipassword: guest.cipassword.clone(),
        password: guest.password.clone(),
        comment: guest.comment.clone(),
        ha: entry("ha").and_then(|value| serde_json::from_value(value).ok()),
        cpu_mitigations: entry("cpu_mitigations").and_then(|value| serde_json::from_value(value).ok()),
        options: guest
            .fields
            .iter()
            .map(|(key, value)| (key.clone(), option_value(guest.kind, key, value)))
            .collect(),
    }
}

/// An option's value as the document has it. A property string of which only the default option is desired is that option.
fn option_value(guest: GuestType, key: &str, value: &Canonical) -> Value {
    let default = find(guest, key).and_then(|option| option.kind.format()).and_then(|format| format.default);
    match (value, default) {
        (Canonical::Map(map), Some(default))
            if map.len() == 1 && map.contains_key(default) && default != "volume" =>
        {
            map.get(default).map_or(Value::Null, plain)
        }
        _ => plain(value),
    }
}

fn plain(value: &Canonical) -> Value {
    match value {
        Canonical::Bool(yes) => json!(yes),
        Canonical::Integer(number) => json!(number),
        Canonical::Decimal(text) => match text.parse::<f64>() {
            // Only where nothing is lost on the way.
            Ok(number) if number.to_string() == *text => json!(number),
            _ => json!(text),
        },
        Canonical::Bytes(_) | Canonical::Text(_) | Canonical::Raw(_) | Canonical::Secret(_) => {
            json!(value.to_string())
        }
        Canonical::List(words, _) => json!(words),
        Canonical::Set(words, _) => json!(words),
        Canonical::Keys(keys) => json!(keys),
        Canonical::Map(map) => {
            Value::Object(map.iter().map(|(key, value)| (key.clone(), plain(value))).collect::<Map<_, _>>())
        }
    }
}
