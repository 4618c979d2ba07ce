//! `/storage` and `/nodes/{node}/storage`: definitions, and the room that each node sees.

use serde_json::{Map, Value, json};

use super::Call;
use super::act::{Act, done, fail};
use super::firewall::digest_of;
use crate::answer::{Answer, Rows};
use crate::schema::split_list;
use crate::world::state::{EPOCH, GuestKind, Node, Storage};

/// A storage among the resources: only of nodes that it is for, and never a disabled one. Its numbers expire with its
/// node's, and then its status is `unknown`.
pub fn resource_row(node: &Node, storage: &Storage) -> Value {
    let mut row = json!({
        "content": storage.content, "id": format!("storage/{}/{}", node.name, storage.id), "node": *node.name,
        "plugintype": storage.kind, "shared": u8::from(storage.shared), "status": "unknown", "storage": storage.id,
        "type": "storage",
    });
    if !node.forgotten {
        let usage = storage.usage_for(&node.name);
        row["status"] = json!("available");
        row["disk"] = json!(usage.used);
        row["maxdisk"] = json!(usage.total);
    }
    row
}

/// The definitions that the caller may see.
pub fn definitions(call: &Call<'_>) -> Result<Answer, Answer> {
    let mut rows = Rows::default();
    let wanted = call.text("type");
    for storage in call.state.storages.values() {
        if (wanted.is_empty() || wanted == storage.kind) && call.sees_storage(&storage.id) {
            rows.push(&definition_row(storage));
        }
    }
    Ok(Answer::rows(rows))
}

/// One definition; it needs `Datastore.Allocate`, so an auditor has only the list.
pub fn definition(call: &Call<'_>) -> Result<Answer, Answer> {
    let id = call.text("storage");
    let missing = || Answer::error(500, format!("storage '{id}' does not exist"));
    call.state.storages.get(id).map(|storage| Answer::ok(definition_row(storage))).ok_or_else(missing)
}

fn definition_row(storage: &Storage) -> Value {
    let mut row = storage.properties.clone();
    let mut set = |key: &str, value: Value| drop(row.insert(key.to_owned(), value));
    set("content", json!(storage.content));
    set("digest", json!(digest(storage)));
    set("storage", json!(storage.id));
    set("type", json!(storage.kind));
    if storage.shared {
        set("shared", json!(1));
    }
    if storage.disabled {
        set("disable", json!(1));
    }
    if let Some(nodes) = &storage.nodes {
        set("nodes", json!(nodes.iter().map(String::as_str).collect::<Vec<_>>().join(",")));
    }
    Value::Object(row)
}

/// The storages as a node sees them. `enabled=1` leaves out the disabled ones, but not those of other nodes.
pub fn on_node(call: &Call<'_>) -> Result<Answer, Answer> {
    let node = call.node()?;
    let mut rows = Rows::default();
    for storage in call.state.storages.values() {
        let wanted_id = call.text("storage");
        if call.flag("enabled") && storage.disabled
            || !wanted_id.is_empty() && wanted_id != storage.id
            || !has_content(storage, call.text("content"))
            || !call.sees_storage(&storage.id)
        {
            continue;
        }
        let mut row = status_row(node, storage);
        row["storage"] = json!(storage.id);
        let usage = storage.usage_for(&node.name);
        if storage.is_active_on(&node.name) && usage.total > 0 {
            row["used_fraction"] = json!(usage.used as f64 / usage.total as f64);
        }
        rows.push(&row);
    }
    Ok(Answer::rows(rows))
}

fn has_content(storage: &Storage, wanted: &str) -> bool {
    wanted.is_empty() || wanted.split(',').any(|kind| storage.content.split(',').any(|have| have == kind))
}

/// One storage as a node sees it.
pub fn status(call: &Call<'_>) -> Result<Answer, Answer> {
    Ok(Answer::ok(status_row(call.node()?, known(call)?)))
}

/// An unknown storage below a node is a bad parameter, unlike below `/storage`.
fn known<'a>(call: &Call<'a>) -> Result<&'a Storage, Answer> {
    let found = call.state.storages.get(call.text("storage"));
    found.ok_or_else(|| Answer::bad_parameter("storage", "No such storage."))
}

/// A storage that is disabled or not for the node shows zeros, and `enabled: 0` in both cases.
fn status_row(node: &Node, storage: &Storage) -> Value {
    let active = storage.is_active_on(&node.name);
    let usage = if active { storage.usage_for(&node.name) } else { Default::default() };
    json!({
        "active": u8::from(active), "avail": usage.total.saturating_sub(usage.used), "content": storage.content,
        "enabled": u8::from(active), "shared": u8::from(storage.shared), "total": usage.total, "type": storage.kind,
        "used": usage.used,
    })
}

/// The disk images on a storage. Without `VM.Config.Disk` on the guest or `Datastore.Allocate` here they are left out
/// silently, so an auditor sees an empty list.
pub fn content(call: &Call<'_>) -> Result<Answer, Answer> {
    let node = call.node()?;
    let storage = super::volume_access::enabled(call.state, call.text("storage"), &node.name)?;
    let owner = call.text("vmid").parse::<u32>().ok();
    let may_see_all = call.allows(&format!("/storage/{}", storage.id), &["Datastore.Allocate"]);
    let mut rows = Rows::default();
    super::volumes::rows(call, storage, &node.name, &mut rows);
    for guest in call.state.guests.values() {
        let elsewhere = !storage.shared && guest.node != node.name;
        let kind = if guest.kind == GuestKind::Qemu { "images" } else { "rootdir" };
        if elsewhere || owner.is_some_and(|vmid| vmid != guest.vmid) || !matches(call.text("content"), kind) {
            continue;
        }
        if !may_see_all && !call.allows(&format!("/vms/{}", guest.vmid), &["VM.Config.Disk"]) {
            continue;
        }
        for drive in guest.drives().into_iter().filter(|drive| drive.storage() == Some(&storage.id)) {
            if drive.volume.contains(":iso/") {
                continue;
            }
            rows.push(&json!({
                "content": kind, "ctime": EPOCH, "format": format_of(&drive.volume), "parent": base_of(&drive.volume),
                "size": drive.size().unwrap_or(1 << 30), "used": drive.size().unwrap_or_default() / 3,
                "vmid": guest.vmid, "volid": drive.volume,
            }));
        }
    }
    Ok(Answer::rows(rows))
}

/// The base image in the name of a linked clone's image: `103/base-103-disk-0.qcow2/105/vm-105-disk-0.qcow2`.
fn base_of(volume: &str) -> Option<&str> {
    let (_, name) = volume.split_once(':')?;
    let end = name.find("/vm-")?;
    let base = name.get(..end)?;
    let base = base
        .rsplit_once('/')
        .filter(|(before, _)| before.contains("base-"))
        .map_or(base, |(before, _)| before);
    base.contains("base-").then_some(base)
}

fn matches(wanted: &str, kind: &str) -> bool {
    wanted.is_empty() || wanted == kind
}

fn format_of(volume: &str) -> &str {
    match volume.rsplit_once('.') {
        Some((_, extension @ ("qcow2" | "vmdk"))) => extension,
        _ => "raw",
    }
}

/// A definition's digest. PVE's is that of the whole file; a client can tell only that it changes.
fn digest(storage: &Storage) -> String {
    let Storage { id, kind, content, shared, nodes, disabled, properties, usage: _, usage_on: _ } = storage;
    digest_of(&json!([id, kind, content, shared, nodes, disabled, properties]))
}

/// What each type of storage cannot be without.
fn required(kind: &str) -> &'static [&'static str] {
    match kind {
        "dir" | "btrfs" => &["path"],
        "nfs" => &["server", "export"],
        "cifs" => &["server", "share"],
        "lvm" => &["vgname"],
        "lvmthin" => &["vgname", "thinpool"],
        "zfspool" => &["pool"],
        "pbs" => &["server", "datastore"],
        "glusterfs" => &["volume"],
        "iscsi" | "iscsidirect" => &["portal", "target"],
        "esxi" => &["server", "username"],
        _ => &[],
    }
}

/// Keys of a definition that this world keeps by themselves.
const OWN: [&str; 8] = ["storage", "type", "content", "shared", "nodes", "disable", "delete", "digest"];

fn property(act: &Act<'_>, name: &str, value: &str) -> Value {
    act.typed(name, value)
}

/// `POST /storage`.
pub fn create(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let (id, kind) = (act.text("storage").to_owned(), act.text("type").to_owned());
    if act.state.storages.contains_key(&id) {
        return fail(format!("create storage failed: storage ID '{id}' already defined"));
    }
    if let Some(missing) = required(&kind).iter().find(|name| act.given(name).is_none()) {
        return fail(format!("missing value for required option '{missing}'"));
    }
    let properties: Map<String, Value> =
        act.settings(&OWN).iter().map(|(name, value)| (name.clone(), property(act, name, value))).collect();
    let by_nature = matches!(
        kind.as_str(),
        "nfs" | "cifs" | "rbd" | "cephfs" | "pbs" | "iscsi" | "glusterfs" | "iscsidirect" | "zfs"
    );
    let default = if kind == "pbs" { "backup" } else { "images,rootdir" };
    let storage = Storage {
        id: id.clone(),
        kind: kind.clone(),
        content: act.given("content").unwrap_or(default).to_owned(),
        shared: by_nature || act.flag("shared"),
        nodes: act.given("nodes").map(|nodes| split_list(nodes).map(str::to_owned).collect()),
        disabled: act.flag("disable"),
        properties,
        usage: crate::world::state::Usage { total: 100 << 30, used: 10 << 30 },
        usage_on: Default::default(),
    };
    act.state.storages.insert(id.clone(), storage);
    Ok(Answer::ok(json!({"storage": id, "type": kind})))
}

/// `PUT /storage/{storage}`. What makes a storage what it is cannot be changed.
pub fn update(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let id = act.text("storage").to_owned();
    let Some(storage) = act.state.storages.get(&id) else {
        return fail(format!("update storage failed: storage '{id}' does not exist"));
    };
    if act.given("digest").is_some_and(|given| given != digest(storage)) {
        return fail(
            "update storage failed: detected modified configuration - file changed by other user? Try again.",
        );
    }
    let kind = storage.kind.clone();
    let changes: Vec<(String, Value)> =
        act.settings(&OWN).iter().map(|(name, value)| (name.clone(), property(act, name, value))).collect();
    let (content, shared, disable, nodes) = (
        act.given("content").map(str::to_owned),
        act.given("shared").map(|flag| flag == "1"),
        act.given("disable").map(|flag| flag == "1"),
        act.given("nodes").map(|nodes| split_list(nodes).map(str::to_owned).collect()),
    );
    let deletes: Vec<String> = split_list(act.text("delete")).map(str::to_owned).collect();
    if let Some(fixed) = deletes.iter().find(|key| required(&kind).contains(&key.as_str())) {
        return fail(format!("update storage failed: unable to delete required option '{fixed}'"));
    }
    let Some(storage) = act.state.storages.get_mut(&id) else { return done() };
    for key in deletes {
        match key.as_str() {
            "disable" => storage.disabled = false,
            "nodes" => storage.nodes = None,
            "shared" => storage.shared = false,
            key => drop(storage.properties.remove(key)),
        }
    }
    storage.properties.extend(changes);
    storage.content = content.unwrap_or(std::mem::take(&mut storage.content));
    storage.shared = shared.unwrap_or(storage.shared);
    storage.disabled = disable.unwrap_or(storage.disabled);
    storage.nodes = nodes.or(storage.nodes.take());
    Ok(Answer::ok(json!({"storage": id, "type": kind})))
}

/// `DELETE /storage/{storage}`: the definition goes, what is on it stays.
pub fn delete(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let id = act.text("storage").to_owned();
    if act.state.storages.remove(&id).is_none() {
        return fail(format!("delete storage failed: storage '{id}' does not exist"));
    }
    for pool in act.state.pools.values_mut() {
        pool.storages.remove(&id);
    }
    done()
}
