//! What the graph should have of a simulated cluster, taken from the simulator's world by other code than the program's.

use std::collections::{BTreeMap, BTreeSet};

use pve_sim::{Drive, Guest, GuestKind, Power, Selection, State};
use serde_json::{Value, json};

use super::graph::{HISTORY, Whole};

/// By label and by relationship type, then by key: the facts that are compared.
pub type Facts = BTreeMap<String, BTreeMap<String, Value>>;

/// The label of snapshots: compared from the day on which the program has it.
const SNAPSHOT: &str = "ProxmoxSnapshot";

/// The properties that are compared, by label. A relationship has no facts but its ends.
fn compared(kind: &str) -> &'static [&'static str] {
    match kind {
        "ProxmoxCluster" => &["name", "quorate", "nodes_online"],
        "ProxmoxNode" => &["name", "status"],
        "ProxmoxVM" => &[
            "id",
            "name",
            "node",
            "type",
            "status",
            "template",
            "tags",
            "pool",
            "cpu_cores",
            "cpu_sockets",
            "memory",
            "onboot",
            "lock",
            "disk_size",
        ],
        "ProxmoxDisk" => &["id", "storage", "volume", "size", "attached", "backup"],
        "ProxmoxNetworkInterface" => &["id", "bridge", "mac_address", "vlan_tag", "firewall", "model"],
        "ProxmoxStorage" => &["type", "shared", "enabled"],
        "ProxmoxBackupJob" => &["enabled", "schedule", "storage"],
        "INCLUDES_DISK" => &["included"],
        _ => &[],
    }
}

/// Whether the program collects snapshots.
pub fn has_snapshots() -> bool {
    pvegraph_graph::labels::labels().iter().any(|label| label.name == SNAPSHOT)
}

/// The same facts of a graph.
pub fn of_graph(whole: &Whole) -> Facts {
    let facts = |kind: &str, properties: &serde_json::Map<String, Value>| {
        let one = |name: &&str| {
            let value = properties.get(*name).cloned().unwrap_or(Value::Null);
            ((*name).to_owned(), if *name == "tags" { sorted(value) } else { value })
        };
        Value::Object(compared(kind).iter().map(one).collect())
    };
    let rows = |(kind, rows): (&String, &BTreeMap<String, _>)| {
        (kind.clone(), rows.iter().map(|(key, it)| (key.clone(), facts(kind, it))).collect())
    };
    whole.iter().filter(|(kind, _)| !HISTORY.contains(&kind.as_str())).map(rows).collect()
}

fn sorted(value: Value) -> Value {
    let Value::Array(mut list) = value else { return value };
    list.sort_by_key(Value::to_string);
    Value::Array(list)
}

/// What was seen of a guest when its node was last online.
#[derive(Clone)]
struct Known {
    facts: Value,
    disks: BTreeMap<String, Value>,
    nics: BTreeMap<String, Value>,
    snapshots: BTreeMap<String, Option<String>>,
}

/// The graph that should be there after each of a row of syncs: while a node is offline, nobody can ask for the configurations of
/// its guests, and they stay as they were.
///
/// # Assumptions
/// A guest does not go in the same step in which its node does.
#[derive(Default)]
pub struct Expected {
    known: BTreeMap<u32, Known>,
}

impl Expected {
    /// A sync of this world.
    pub fn after(&mut self, state: &State) -> Facts {
        self.known.retain(|vmid, _| state.guests.contains_key(vmid));
        for guest in state.guests.values() {
            let node = &state.nodes[guest.node.as_ref()];
            if node.online {
                self.known.insert(guest.vmid, look(guest, node.cpus));
                continue;
            }
            let known = self.known.entry(guest.vmid).or_insert_with(|| Known {
                facts: json!({ "cpu_cores": null, "cpu_sockets": null, "memory": null, "onboot": null, "lock": null,
                               "disk_size": null, "name": null, "template": null, "tags": null, "pool": null }),
                disks: BTreeMap::new(),
                nics: BTreeMap::new(),
                snapshots: BTreeMap::new(),
            });
            listed(guest, !node.forgotten, &mut known.facts);
        }
        self.facts(state)
    }

    fn facts(&self, state: &State) -> Facts {
        let mut facts = Facts::new();
        let mut put = |kind: &str, key: String, value: Value| {
            facts.entry(kind.to_owned()).or_default().insert(key, value);
        };
        let cluster = state.cluster_name.as_deref().unwrap();
        let online = state.nodes.values().filter(|node| node.online).count();
        put(
            "ProxmoxCluster",
            cluster.to_owned(),
            json!({ "name": cluster, "quorate": state.quorate, "nodes_online": online }),
        );
        for (name, node) in &state.nodes {
            let status = if node.online { "online" } else { "offline" };
            put("ProxmoxNode", name.clone(), json!({ "name": name, "status": status }));
            put("CONTAINS_NODE", format!("{cluster} -> {name}"), json!({}));
        }
        for (name, storage) in &state.storages {
            put(
                "ProxmoxStorage",
                name.clone(),
                json!({ "type": storage.kind, "shared": storage.shared, "enabled": !storage.disabled }),
            );
            for node in state.nodes.keys().filter(|node| storage.is_for_node(node)) {
                put("AVAILABLE_ON", format!("{name} -> {node}"), json!({}));
            }
        }
        for (vmid, known) in &self.known {
            put("ProxmoxVM", vmid.to_string(), known.facts.clone());
            put("HOSTS_VM", format!("{} -> {vmid}", state.guests[vmid].node), json!({}));
            for (key, disk) in &known.disks {
                put("ProxmoxDisk", format!("{vmid}:{key}"), disk.clone());
                put("HAS_DISK", format!("{vmid} -> {vmid}:{key}"), json!({}));
                if let Some(storage) =
                    disk["storage"].as_str().filter(|name| state.storages.contains_key(*name))
                {
                    put("STORED_ON", format!("{vmid}:{key} -> {storage}"), json!({}));
                }
            }
            for (key, nic) in &known.nics {
                put("ProxmoxNetworkInterface", format!("{vmid}:{key}"), nic.clone());
                put("HAS_NETWORK_INTERFACE", format!("{vmid} -> {vmid}:{key}"), json!({}));
            }
            for (name, parent) in known.snapshots.iter().filter(|_| has_snapshots()) {
                put(SNAPSHOT, format!("{vmid}:{name}"), json!({}));
                put("SNAPSHOT_OF", format!("{vmid}:{name} -> {vmid}"), json!({}));
                if let Some(parent) = parent {
                    put("PARENT_SNAPSHOT", format!("{vmid}:{name} -> {vmid}:{parent}"), json!({}));
                }
            }
        }
        for (id, job) in &state.jobs {
            put(
                "ProxmoxBackupJob",
                id.clone(),
                json!({ "enabled": job.enabled, "schedule": job.schedule, "storage": job.storage }),
            );
            if state.storages.contains_key(&job.storage) {
                put("BACKS_UP_TO", format!("{id} -> {}", job.storage), json!({}));
            }
            for guest in state.guests.values().filter(|guest| takes(&job.selection, guest)) {
                let vmid = guest.vmid;
                put("BACKS_UP", format!("{id} -> {vmid}"), json!({}));
                for drive in guest.drives().iter().filter(|drive| !drive.is_cdrom() && attached(drive)) {
                    if self.known[&vmid].disks.contains_key(drive.key) {
                        let included = json!({ "included": backed_up(guest.kind, drive) });
                        put("INCLUDES_DISK", format!("{id} -> {vmid}:{}", drive.key), included);
                    }
                }
            }
        }
        facts
    }
}

fn takes(selection: &Selection, guest: &Guest) -> bool {
    match selection {
        Selection::All { exclude } => !exclude.contains(&guest.vmid),
        Selection::Pool(pool) => guest.pool.as_deref() == Some(pool),
        Selection::Guests(vmids) => vmids.contains(&guest.vmid),
    }
}

fn attached(drive: &Drive<'_>) -> bool {
    !drive.key.starts_with("unused")
}

fn backed_up(kind: GuestKind, drive: &Drive<'_>) -> bool {
    match kind {
        _ if !attached(drive) => false,
        GuestKind::Qemu => drive.option("backup") != Some("0"),
        GuestKind::Lxc => {
            drive.key == "rootfs" || (drive.storage().is_some() && drive.option("backup") == Some("1"))
        }
    }
}

/// What the cluster's listing says of a guest; `whole`: its node's statistics have not expired.
fn listed(guest: &Guest, whole: bool, facts: &mut Value) {
    facts["id"] = json!(format!("{}:{}", guest.node, guest.vmid));
    facts["node"] = json!(*guest.node);
    facts["type"] = json!(guest.kind.name());
    // Only a guest's own node tells that it is paused.
    facts["status"] = json!(if whole { guest.status() } else { "unknown" });
    let tags: BTreeSet<String> = guest
        .config
        .text("tags")
        .map(|tags| tags.split(';').filter(|tag| !tag.is_empty()).map(str::to_owned).collect())
        .unwrap_or_default();
    if whole || !tags.is_empty() {
        facts["tags"] = json!(tags);
    }
    if whole {
        facts["name"] = json!(guest.name());
        facts["template"] = json!(guest.is_template());
        facts["pool"] = json!(guest.pool.as_deref());
    }
}

fn look(guest: &Guest, node_cpus: u32) -> Known {
    let vmid = guest.vmid;
    let qemu = guest.kind == GuestKind::Qemu;
    let int = |key: &str| guest.config.int(key);
    let drives = guest.drives();
    let volumes = || drives.iter().filter(|drive| !drive.is_cdrom());
    let size: u64 = volumes().filter(|drive| attached(drive)).filter_map(|drive| drive.size()).sum();
    let cores = if qemu { int("cores").unwrap_or(1) } else { int("cores").unwrap_or(node_cpus.into()) };
    let mut facts = json!({
        "cpu_cores": cores,
        "cpu_sockets": qemu.then(|| int("sockets").unwrap_or(1)),
        "memory": guest.memory(),
        "onboot": int("onboot") == Some(1),
        "lock": guest.lock(),
        "disk_size": size,
    });
    listed(guest, true, &mut facts);
    if guest.power == Power::Paused {
        facts["status"] = json!("paused");
    }
    let disk = |drive: &Drive<'_>| {
        let facts = json!({
            "id": format!("{vmid}:{}", drive.key),
            "storage": drive.storage(),
            "volume": drive.volume,
            "size": drive.size(),
            "attached": attached(drive),
            "backup": backed_up(guest.kind, drive),
        });
        (drive.key.to_owned(), facts)
    };
    let is_nic =
        |key: &str| key.strip_prefix("net").is_some_and(|n| !n.is_empty() && n.parse::<u32>().is_ok());
    let nics = guest.config.iter().filter(|(key, _)| is_nic(key));
    let parents = guest.parents();
    let snapshots = guest.snapshots.iter().zip(parents);
    Known {
        disks: volumes().map(disk).collect(),
        nics: nics.map(|(key, value)| (key.to_owned(), nic(vmid, key, &value.to_text()))).collect(),
        snapshots: snapshots.map(|(snapshot, parent)| (snapshot.name.clone(), parent)).collect(),
        facts,
    }
}

/// `virtio=MAC,bridge=vmbr0,tag=5` of a machine, `name=eth0,bridge=vmbr0,hwaddr=MAC,type=veth` of a container.
fn nic(vmid: u32, key: &str, text: &str) -> Value {
    let parts: Vec<(&str, &str)> = text.split(',').filter_map(|part| part.split_once('=')).collect();
    let of = |name: &str| parts.iter().find(|(have, _)| *have == name).map(|(_, value)| *value);
    let (model, mac) = match of("hwaddr") {
        Some(mac) => ("veth", mac),
        None => parts[0],
    };
    json!({
        "id": format!("{vmid}:{key}"),
        "bridge": of("bridge"),
        "mac_address": mac,
        "vlan_tag": of("tag").map(|tag| tag.parse::<u32>().unwrap()),
        "firewall": of("firewall") == Some("1"),
        "model": model,
    })
}
