//! The estate as it would be after a plan: what policies are asked with.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::canonical::Canonical;
use crate::desired::{Desired, Guest};
use crate::document::Power;
use crate::live::Live;
use crate::plan::{Action, Plan};

/// The guests and nodes of a cluster, each a map.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Estate {
    /// `vmid`, `uid` (null where nobody desires it), `name`, `type`, `node`, `running`, `template`, `memory` (bytes), `cores`, `pool`.
    pub guests: Vec<Value>,
    /// `name`, `online`, `memory` (bytes), `cores`.
    pub nodes: Vec<Value>,
}

const MIB: i64 = 1 << 20;

/// The estate after the plan. Guests that the plan does not touch are as the cluster lists them.
pub fn estate(live: &Live, desired: &Desired, plan: &Plan) -> Estate {
    let uids: BTreeMap<i64, &str> =
        desired.guests.values().filter_map(|guest| Some((guest.vmid?, guest.uid.as_str()))).collect();
    let mut guests: BTreeMap<i64, Map<String, Value>> = live
        .listed
        .iter()
        .map(|(vmid, guest)| {
            let map = json!({
                "vmid": vmid, "uid": uids.get(vmid), "name": guest.name, "type": guest.kind.as_str(), "node": guest.node,
                "running": guest.status == "running", "template": guest.template, "memory": guest.memory, "cores": guest.cores,
                "pool": guest.pool,
            });
            (*vmid, map.as_object().cloned().unwrap_or_default())
        })
        .collect();
    for operation in &plan.operations {
        let Some(wanted) = desired.guests.get(&operation.uid) else { continue };
        if operation.action == Action::Destroy {
            guests.remove(&operation.vmid);
            continue;
        }
        let source = wanted.clone_of.as_ref().and_then(|clone| live.listed.get(&desired.source(clone)?));
        let memory = source.and_then(|source| source.memory).unwrap_or(512 << 20);
        let cores = source.and_then(|source| source.cores).unwrap_or(1.0);
        let guest = guests.entry(operation.vmid).or_insert_with(|| {
            let map = json!({
                "vmid": operation.vmid, "uid": operation.uid, "name": null, "type": operation.kind.as_str(),
                "node": operation.node, "running": false, "template": false, "memory": memory, "cores": cores, "pool": null,
            });
            map.as_object().cloned().unwrap_or_default()
        });
        let mut put = |name: &str, value: Value| drop(guest.insert(name.to_owned(), value));
        match operation.action {
            Action::Migrate => put("node", json!(operation.target())),
            Action::Power => {
                if let Some(state) = wanted.state {
                    put("running", json!(state == Power::Running));
                }
            }
            Action::Create | Action::Configure => {
                for (name, value) in resources(wanted) {
                    put(name, value);
                }
            }
            Action::Template => put("template", json!(true)),
            Action::Mark
            | Action::Grow
            | Action::Move
            | Action::Snapshot
            | Action::RestoreSnapshot
            | Action::Destroy => {}
        }
    }
    let nodes = live
        .nodes
        .iter()
        .map(|(name, node)| {
            json!({ "name": name, "online": node.online, "memory": node.memory, "cores": node.cores })
        })
        .collect();
    Estate { guests: guests.into_values().map(Value::Object).collect(), nodes }
}

/// What is desired of memory, cores and name.
fn resources(guest: &Guest) -> Vec<(&'static str, Value)> {
    let mut all = Vec::new();
    let number = |key: &str| match guest.fields.get(key)? {
        Canonical::Integer(number) => Some(*number),
        Canonical::Map(map) => match map.get("current")? {
            Canonical::Integer(number) => Some(*number),
            _ => None,
        },
        _ => None,
    };
    if let Some(mib) = number("memory") {
        all.push(("memory", json!(mib.saturating_mul(MIB))));
    }
    match (number("cores"), number("sockets")) {
        (None, None) => {}
        (cores, sockets) => {
            all.push(("cores", json!(cores.unwrap_or(1).saturating_mul(sockets.unwrap_or(1)))));
        }
    }
    for key in ["name", "hostname"] {
        if let Some(Canonical::Text(name)) = guest.fields.get(key) {
            all.push(("name", json!(name)));
        }
    }
    all
}
