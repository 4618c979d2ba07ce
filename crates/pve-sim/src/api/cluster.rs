//! `/cluster`: status, resources, the next vmid.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::metrics::{measure, node_cpu, node_uptime, number};
use super::{Call, storage};
use crate::answer::{Answer, Rows};
use crate::world::state::{Guest, Node};

/// The cluster and its nodes; a standalone node shows itself alone, with the number 0. A node's address is only here.
pub fn status(call: &Call<'_>) -> Result<Answer, Answer> {
    let mut rows = Rows::default();
    let state = call.state;
    if let Some(name) = &state.cluster_name {
        rows.push(&json!({
            "id": "cluster", "name": name, "nodes": state.nodes.len(), "quorate": u8::from(state.quorate),
            "type": "cluster", "version": state.nodes.len(),
        }));
    }
    for node in state.nodes.values() {
        rows.push(&json!({
            "id": format!("node/{}", node.name), "ip": node.ip, "level": "",
            "local": u8::from(node.name.as_ref() == call.local_node), "name": *node.name, "nodeid": node.id,
            "online": u8::from(node.online), "type": "node",
        }));
    }
    Ok(Answer::rows(rows))
}

/// The lowest free vmid, as a string although the schema says integer. It reserves nothing.
pub fn next_id(call: &Call<'_>) -> Result<Answer, Answer> {
    let asked = call.text("vmid");
    if asked.is_empty() {
        let limit = |name: &str| -> Option<u32> {
            call.state.options.get("next-id")?.get(name)?.as_str()?.parse().ok()
        };
        let (lower, upper) = (limit("lower").unwrap_or(100), limit("upper").unwrap_or(1_000_000));
        let free = (lower..upper).find(|vmid| !call.state.guests.contains_key(vmid));
        return match free {
            Some(vmid) => Ok(Answer::ok(Value::from(vmid.to_string()))),
            None => Err(Answer::error(
                500,
                format!("unable to get any free VMID in range [{lower}, {}]", upper - 1),
            )),
        };
    }
    let taken = asked.parse().is_ok_and(|vmid: u32| call.state.guests.contains_key(&vmid));
    if taken {
        return Err(Answer::bad_parameter("vmid", &format!("VM {asked} already exists")));
    }
    Ok(Answer::ok(Value::from(asked)))
}

/// Datacenter options. Without `Sys.Audit` on `/` only those that the web interface needs, and of the tags those that
/// the caller's guests have.
pub fn options(call: &Call<'_>) -> Result<Answer, Answer> {
    let mut tags = BTreeSet::new();
    for guest in call.state.guests.values() {
        let Some(text) = guest.config.text("tags") else { continue };
        if call.sees_guest(guest.vmid) {
            tags.extend(text.split(';').filter(|tag| !tag.trim().is_empty()).map(str::to_owned));
        }
    }
    let all = call.allows("/", &["Sys.Audit"]);
    if all && let Some(registered) = call.state.options.get("registered-tags").and_then(Value::as_array) {
        tags.extend(registered.iter().filter_map(Value::as_str).map(str::to_owned));
    }
    let shown = |key: &str| all || matches!(key, "console" | "tag-style");
    let options = call.state.options.iter().filter(|(key, _)| shown(key));
    let mut data: Map<String, Value> = options.map(|(key, value)| (key.clone(), value.clone())).collect();
    data.insert("allowed-tags".to_owned(), json!(tags));
    Ok(Answer::ok(Value::Object(data)))
}

/// Everything there is, filtered silently: guests by `VM.Audit`, storages by `Datastore.Audit`, pools by `Pool.Audit`, and
/// every node, without its numbers where the caller lacks `Sys.Audit` on it.
pub fn resources(call: &Call<'_>) -> Result<Answer, Answer> {
    let wanted = call.text("type");
    let all = ["vm", "storage", "node", "sdn"];
    if !wanted.is_empty() && !all.contains(&wanted) {
        let text = format!("value '{wanted}' does not have a value in the enumeration '{}'", all.join(", "));
        return Err(Answer::bad_parameter("type", &text));
    }
    let wants = |kind: &str| wanted.is_empty() || wanted == kind;
    let state = call.state;
    let mut rows = Rows::default();
    // Pools come with everything only; there is no type to ask for them alone.
    if wanted.is_empty() {
        for name in state.pools.keys().filter(|name| call.allows(&format!("/pool/{name}"), &["Pool.Audit"])) {
            rows.push(&pool_row(call, name));
        }
    }
    if wants("vm") {
        for guest in state.guests.values().filter(|guest| call.sees_guest(guest.vmid)) {
            rows.push(&guest_row(call, guest));
        }
    }
    if wants("node") {
        let any_ha = state.ha_active || state.guests.values().any(|guest| guest.ha.is_some());
        for node in state.nodes.values() {
            let mut row = node_row(call, node);
            row["cgroup-mode"] = json!(2);
            if any_ha {
                // It lags behind: a node that has just gone offline still says `online`.
                row["hastate"] = json!(if node.forgotten { "unknown" } else { "online" });
            }
            rows.push(&row);
        }
    }
    if wants("storage") {
        for storage in
            state.storages.values().filter(|storage| !storage.disabled && call.sees_storage(&storage.id))
        {
            for node in state.nodes.values().filter(|node| storage.is_for_node(&node.name)) {
                rows.push(&storage::resource_row(node, storage));
            }
        }
    }
    if wants("sdn") && call.allows("/sdn/zones/localnetwork", &["SDN.Audit", "SDN.Use"]) {
        for node in state.nodes.values() {
            let id = format!("sdn/{}/localnetwork", node.name);
            let zone = "localnetwork";
            rows.push(&json!({"id": id, "node": *node.name, "sdn": zone, "status": "ok", "type": "sdn"}));
        }
    }
    Ok(Answer::rows(rows))
}

/// A pool's row sums up its running guests, whoever may see those.
fn pool_row(call: &Call<'_>, name: &str) -> Value {
    let mut row = json!({"id": format!("/pool/{name}"), "pool": name, "type": "pool"});
    let (mut cpus, mut busy, mut mem, mut maxmem, mut uptime) = (0i64, 0.0, 0, 0, 0);
    let running = |guest: &&Guest| guest.pool.as_deref() == Some(name) && guest.is_running();
    for guest in call.state.guests.values().filter(running) {
        let measured = measure(call, guest);
        let own = cpus_of(call, guest);
        cpus += own;
        busy += measured.cpu * own as f64;
        mem += measured.mem;
        maxmem += guest.memory();
        uptime = measured.uptime.max(uptime);
    }
    if cpus > 0 {
        row["cpu"] = number(busy / cpus as f64);
        row["maxcpu"] = json!(cpus);
        row["mem"] = json!(mem);
        row["maxmem"] = json!(maxmem);
        row["uptime"] = json!(uptime);
    }
    row
}

/// The CPUs of a guest on its node.
pub fn cpus_of(call: &Call<'_>, guest: &Guest) -> i64 {
    let node_cpus = call.state.nodes.get(guest.node.as_ref()).map_or(1, |node| node.cpus);
    guest.cpus(node_cpus)
}

/// A guest among the resources. While its node is offline it keeps its last numbers; once those have expired, only the
/// base row is left, without a name and with the status `unknown`.
pub fn guest_row(call: &Call<'_>, guest: &Guest) -> Value {
    let mut row = member_row(call, guest);
    if let Some(tags) = guest.config.text("tags") {
        row["tags"] = json!(tags);
    }
    if let Some(lock) = guest.config.text("lock") {
        row["lock"] = json!(lock);
    }
    if let Some(pool) = &guest.pool {
        row["pool"] = json!(**pool);
    }
    if let Some(ha) = super::ha::shown(call.state, guest) {
        row["hastate"] = json!(ha);
    }
    row
}

/// A guest among a pool's members: the same row without tags, lock, pool and HA state.
pub fn member_row(call: &Call<'_>, guest: &Guest) -> Value {
    let id = format!("{}/{}", guest.kind.name(), guest.vmid);
    let mut row = json!({
        "id": id, "node": *guest.node, "status": "unknown", "type": guest.kind.name(), "vmid": guest.vmid,
    });
    if call.state.nodes.get(guest.node.as_ref()).is_none_or(|node| node.forgotten) {
        return row;
    }
    let measured = measure(call, guest);
    row["cpu"] = number(measured.cpu);
    row["disk"] = json!(measured.disk);
    row["diskread"] = json!(measured.disk_read);
    row["diskwrite"] = json!(measured.disk_write);
    row["maxcpu"] = json!(cpus_of(call, guest));
    row["maxdisk"] = json!(guest.boot_disk_size());
    row["maxmem"] = json!(guest.memory());
    row["mem"] = json!(measured.mem);
    row["name"] = json!(guest.name());
    row["netin"] = json!(measured.net_in);
    row["netout"] = json!(measured.net_out);
    row["status"] = json!(guest.status());
    row["template"] = json!(u8::from(guest.is_template()));
    row["uptime"] = json!(measured.uptime);
    row
}

/// A node among the resources and in `/nodes`: base fields for everyone, numbers with `Sys.Audit` on the node. An offline
/// node keeps only its maxima, and loses those when its statistics expire.
pub fn node_row(call: &Call<'_>, node: &Node) -> Value {
    let mut row = json!({
        "id": format!("node/{}", node.name), "level": "", "node": *node.name,
        "status": if node.online { "online" } else { "offline" }, "type": "node",
    });
    if node.forgotten || !call.allows(&format!("/nodes/{}", node.name), &["Sys.Audit"]) {
        return row;
    }
    row["maxcpu"] = json!(node.cpus);
    row["maxdisk"] = json!(node.rootfs.total);
    row["maxmem"] = json!(node.memory.total);
    if node.online {
        row["cpu"] = number(node_cpu(call, node));
        row["disk"] = json!(node.rootfs.used);
        row["mem"] = json!(node.memory.used);
        row["uptime"] = json!(node_uptime(call, node));
    }
    row
}
