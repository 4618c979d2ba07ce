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
    let (wanted, digest) = (call.text("type"), digest(call));
    for storage in call.state.storages.values() {
        if (wanted.is_empty() || wanted == storage.kind) && call.sees_storage(&storage.id) {
            rows.push(&definition_row(storage, &digest));
        }
    }
    Ok(Answer::rows(rows))
}

/// One definition; it needs `Datastore.Allocate`, so an auditor has only the list.
pub fn definition(call: &Call<'_>) -> Result<Answer, Answer> {
    let id = call.text("storage");
    let missing = || Answer::error(500, format!("storage '{id}' does not exist"));
    let row = |storage| Answer::ok(definition_row(storage, &digest(call)));
    call.state.storages.get(id).map(row).ok_or_else(missing)
}

fn definition_row(storage: &Storage, digest: &str) -> Value {
    let mut row = storage.properties.clone();
    let mut set = |key: &str, value: Value| drop(row.insert(key.to_owned(), value));
    set("content", json!(storage.content));
    set("digest", json!(digest));
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

/// The digest of the file of all definitions.
fn digest(call: &Call<'_>) -> String {
    let one = |storage: &Storage| {
        let Storage { id, kind, content, shared, nodes, disabled, properties, usage: _, usage_on: _ } =
            storage;
        json!([id, kind, content, shared, nodes, disabled, properties])
    };
    digest_of(&call.state.storages.values().map(one).collect())
}

/// What each type of storage cannot be without, and what of that (and besides) cannot be changed later.
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
        "zfs" => &["blocksize", "iscsiprovider", "pool", "portal", "target"],
        _ => &[],
    }
}

/// What only some types of storage have; what is not here, all have.
const OF_TYPES: [(&str, &[&str]); 15] = [
    ("datastore", &["pbs"]),
    ("export", &["nfs"]),
    ("iscsiprovider", &["zfs"]),
    ("krbd", &["rbd"]),
    ("monhost", &["cephfs", "rbd"]),
    ("path", &["btrfs", "cephfs", "cifs", "dir", "glusterfs", "nfs"]),
    ("pool", &["rbd", "zfs", "zfspool"]),
    ("portal", &["iscsi", "iscsidirect", "zfs"]),
    ("server", &["cifs", "esxi", "glusterfs", "nfs", "pbs"]),
    ("share", &["cifs"]),
    ("sparse", &["zfs", "zfspool"]),
    ("target", &["iscsi", "iscsidirect", "zfs"]),
    ("thinpool", &["lvmthin"]),
    ("vgname", &["lvm", "lvmthin"]),
    ("volume", &["glusterfs"]),
];

/// What can be stored on a type of storage, and what is where nobody says.
fn contents(kind: &str) -> (&'static [&'static str], &'static str) {
    const FILES: &[&str] = &["images", "rootdir", "vztmpl", "iso", "backup", "snippets", "import", "none"];
    match kind {
        "cephfs" => (&["vztmpl", "iso", "backup", "snippets", "import"], "backup"),
        "cifs" | "nfs" | "glusterfs" => (FILES, "images"),
        "esxi" => (&["import"], "import"),
        "iscsi" => (&["images", "none"], "images"),
        "iscsidirect" | "zfs" => (&["images"], "images"),
        "lvm" | "rbd" => (&["images", "rootdir"], "images"),
        "lvmthin" | "zfspool" => (&["images", "rootdir"], "images,rootdir"),
        "pbs" => (&["backup", "none"], "backup"),
        _ => (FILES, "images,rootdir"),
    }
}

/// What a definition of a type may have.
fn check(act: &Act<'_>, kind: &str) -> Result<(), String> {
    for (key, kinds) in OF_TYPES {
        if act.given(key).is_some() && !kinds.contains(&kind) {
            return Err(format!("unexpected property '{key}'"));
        }
    }
    let (valid, _) = contents(kind);
    match split_list(act.text("content")).find(|content| !valid.contains(content)) {
        Some(content) => Err(format!("storage does not support content type '{content}'")),
        None => Ok(()),
    }
}

/// Keys of a definition that this world keeps by themselves.
const OWN: [&str; 8] = ["storage", "type", "content", "shared", "nodes", "disable", "delete", "digest"];

/// What goes into a file of its own, and is never shown.
const SECRET: [&str; 4] = ["encryption-key", "keyring", "master-pubkey", "password"];

fn properties(act: &Act<'_>) -> Map<String, Value> {
    let settings = act.settings(&OWN).into_iter().filter(|(name, _)| !SECRET.contains(&name.as_str()));
    settings.map(|(name, value)| (name.clone(), act.typed(&name, &value))).collect()
}

/// A list of nodes; an empty one is none.
fn nodes(act: &Act<'_>) -> Option<std::collections::BTreeSet<String>> {
    let nodes = act.given("nodes").filter(|nodes| !nodes.is_empty())?;
    Some(split_list(nodes).map(str::to_owned).collect())
}

/// `POST /storage`. What is missing or unknown is found before the file is locked, so its text stands alone.
pub fn create(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let (id, kind) = (act.text("storage").to_owned(), act.text("type").to_owned());
    check(act, &kind).or_else(fail)?;
    if let Some(missing) = required(&kind).iter().find(|name| act.given(name).is_none()) {
        return fail(format!("missing value for required option '{missing}'"));
    }
    if act.state.storages.contains_key(&id) {
        return fail(format!("create storage failed: storage ID '{id}' already defined"));
    }
    let by_nature = matches!(
        kind.as_str(),
        "nfs" | "cifs" | "rbd" | "cephfs" | "pbs" | "iscsi" | "glusterfs" | "iscsidirect" | "zfs"
    );
    let storage = Storage {
        id: id.clone(),
        kind: kind.clone(),
        content: act.given("content").unwrap_or(contents(&kind).1).to_owned(),
        shared: by_nature || act.flag("shared"),
        nodes: nodes(act),
        disabled: act.flag("disable"),
        properties: properties(act),
        usage: crate::world::state::Usage { total: 100 << 30, used: 10 << 30 },
        usage_on: Default::default(),
    };
    act.state.storages.insert(id.clone(), storage);
    Ok(Answer::ok(json!({"storage": id, "type": kind})))
}

/// `PUT /storage/{storage}`. What makes a storage what it is cannot be changed.
pub fn update(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let problem = |text: String| fail(format!("update storage failed: {text}"));
    let id = act.text("storage").to_owned();
    if act.given("digest").is_some_and(|given| given != digest(&act.call())) {
        return problem(
            "detected modified configuration - file changed by other user? Try again.".to_owned(),
        );
    }
    let Some(storage) = act.state.storages.get(&id) else {
        return problem(format!("storage '{id}' does not exist"));
    };
    let kind = storage.kind.clone();
    if let Some(fixed) = required(&kind).iter().find(|name| act.given(name).is_some()) {
        return problem(format!("can't change value of fixed parameter '{fixed}'"));
    }
    if let Err(text) = check(act, &kind) {
        return problem(text);
    }
    for key in split_list(act.text("delete")) {
        let of_other = OF_TYPES.iter().any(|(name, kinds)| *name == key && !kinds.contains(&kind.as_str()));
        let declared = crate::schema::kind(act.method, key).is_some() || key == "path";
        if of_other || !declared || matches!(key, "storage" | "digest" | "delete") {
            return problem(format!("no such option '{key}'"));
        }
        if required(&kind).contains(&key) {
            // They are fixed as well, but that they are required is found first.
            return problem(format!("unable to delete required option '{key}'"));
        }
        if act.given(key).is_some() {
            return problem(format!("cannot set and delete property '{key}' at the same time!"));
        }
    }
    let (changes, nodes) = (properties(act), nodes(act));
    let (content, shared, disable) = (
        act.given("content").map(str::to_owned),
        act.given("shared").map(|flag| flag == "1"),
        act.given("disable").map(|flag| flag == "1"),
    );
    let deletes: Vec<String> = split_list(act.text("delete")).map(str::to_owned).collect();
    let Some(storage) = act.state.storages.get_mut(&id) else { return done() };
    for key in deletes {
        match key.as_str() {
            "content" => storage.content = contents(&kind).1.to_owned(),
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

/// `DELETE /storage/{storage}`: the definition goes with its entries, what is on it stays. One that others are built on stays.
pub fn delete(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let id = act.text("storage").to_owned();
    if !act.state.storages.contains_key(&id) {
        return fail(format!("delete storage failed: storage '{id}' does not exist"));
    }
    let base = |storage: &Storage| {
        let base = storage.properties.get("base").and_then(Value::as_str).unwrap_or_default();
        base.split_once(':').is_some_and(|(storage, _)| storage == id)
    };
    if act.state.storages.values().any(base) {
        let text = "can't remove storage - storage is used as base of another storage";
        return fail(format!("delete storage failed: {text}"));
    }
    act.state.storages.remove(&id);
    for pool in act.state.pools.values_mut() {
        pool.storages.remove(&id);
    }
    act.state.access.acl.remove(&format!("/storage/{id}"));
    done()
}
