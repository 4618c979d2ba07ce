//! What a node does when it is told: its guests all at once, its power, its services, its block devices.

use serde_json::{Value, json};

use super::Call;
use super::act::{Act, done, fail};
use crate::answer::Answer;
use crate::schema::split_list;

/// Bulk actions need the right on everything, or on each guest that they name.
fn may_touch_all(act: &Act<'_>, privilege: &str) -> Result<(), Answer> {
    let call = act.call();
    if call.allows("/", &[privilege]) {
        return Ok(());
    }
    let named: Vec<&str> = split_list(act.text("vms")).collect();
    if named.is_empty() {
        return Err(Answer::forbidden("/", &[privilege]));
    }
    named.iter().try_for_each(|vmid| act.require(&format!("/vms/{vmid}"), &[privilege]))
}

fn bulk(act: &mut Act<'_>, task: &str, privilege: &str) -> Result<Answer, Answer> {
    may_touch_all(act, privilege)?;
    act.node()?;
    act.fork(task, "", &[])
}

pub fn start_all(act: &mut Act<'_>) -> Result<Answer, Answer> {
    bulk(act, "startall", "VM.PowerMgmt")
}

pub fn stop_all(act: &mut Act<'_>) -> Result<Answer, Answer> {
    bulk(act, "stopall", "VM.PowerMgmt")
}

pub fn suspend_all(act: &mut Act<'_>) -> Result<Answer, Answer> {
    bulk(act, "suspendall", "VM.PowerMgmt")
}

/// `POST /nodes/{node}/migrateall`: to another node that there is.
pub fn migrate_all(act: &mut Act<'_>) -> Result<Answer, Answer> {
    may_touch_all(act, "VM.Migrate")?;
    let target = act.text("target").to_owned();
    if target == act.node()? {
        return Err(Answer::bad_parameter("target", "target is local node."));
    }
    if !act.state.nodes.contains_key(&target) {
        return fail(format!("no such cluster node '{target}'"));
    }
    act.fork("migrateall", "", &[])
}

/// `POST /nodes/{node}/wakeonlan`: the address that the node's settings name.
pub fn wake(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let node = act.text("node").to_owned();
    if node == "localhost" || node == act.local_node {
        return fail(format!("'{node}' is local node, cannot wake my self!"));
    }
    if !act.state.nodes.contains_key(&node) {
        return fail(format!("no such cluster node '{node}'"));
    }
    let settings = act.state.node_settings.get(&node);
    let setting = settings.and_then(|settings| settings.get("wakeonlan")).and_then(Value::as_str);
    let parts = setting.unwrap_or_default().split(',').next().unwrap_or_default();
    match parts.strip_prefix("mac=").unwrap_or(parts) {
        "" => fail(format!("No wake on LAN MAC address defined for '{node}'!")),
        address => Ok(Answer::ok(json!(address.to_uppercase()))),
    }
}

/// `POST /nodes/{node}/services/{service}/…`: a task named after the verb.
fn service(act: &mut Act<'_>, task: &str) -> Result<Answer, Answer> {
    act.node()?;
    let service = act.text("service").to_owned();
    act.fork(task, &service, &[])
}

pub fn start_service(act: &mut Act<'_>) -> Result<Answer, Answer> {
    service(act, "srvstart")
}

pub fn stop_service(act: &mut Act<'_>) -> Result<Answer, Answer> {
    service(act, "srvstop")
}

pub fn restart_service(act: &mut Act<'_>) -> Result<Answer, Answer> {
    service(act, "srvrestart")
}

/// A reload of the network is another task with the same name, about something else.
pub fn reload_service(act: &mut Act<'_>) -> Result<Answer, Answer> {
    service(act, "srvreload")
}

/// Nodes here have no spare block devices: whatever a disk is asked for, there is none.
fn no_device<T>(path: &str) -> Result<T, Answer> {
    if !path.starts_with("/dev/") {
        return fail(format!("got unusual device path '{path}'"));
    }
    fail("not a valid block device")
}

/// `GET /nodes/{node}/disks/smart`.
pub fn smart(call: &Call<'_>) -> Result<Answer, Answer> {
    call.node()?;
    no_device(call.text("disk"))
}

/// `POST …/disks/initgpt`, `…/lvm`, `…/lvmthin`, `…/directory`, `…/zfs`, `PUT …/disks/wipedisk`.
pub fn use_disk(act: &mut Act<'_>) -> Result<Answer, Answer> {
    act.node()?;
    if act.flag("add_storage") {
        let name = act.text("name").to_owned();
        act.require("/storage", &["Datastore.Allocate"])?;
        if act.state.storages.contains_key(&name) {
            return fail(format!("storage ID '{name}' already defined"));
        }
    }
    let named = ["disk", "device", "devices"].iter().find_map(|name| act.given(name)).unwrap_or_default();
    let first = split_list(named).next().unwrap_or_default().to_owned();
    no_device(&first)
}

/// `DELETE …/disks/…/{name}`: a task, which fails where there is nothing by that name.
fn remove_pool(act: &mut Act<'_>, task: &str) -> Result<Answer, Answer> {
    act.node()?;
    let name = act.text("name").to_owned();
    let id = match act.given("volume-group") {
        Some(group) => format!("{group}/{name}"),
        None => name,
    };
    act.fork(task, &id, &[])
}

pub fn remove_directory(act: &mut Act<'_>) -> Result<Answer, Answer> {
    remove_pool(act, "dirremove")
}

pub fn remove_volume_group(act: &mut Act<'_>) -> Result<Answer, Answer> {
    remove_pool(act, "lvmremove")
}

pub fn remove_thin_pool(act: &mut Act<'_>) -> Result<Answer, Answer> {
    remove_pool(act, "lvmthinremove")
}

pub fn remove_zfs_pool(act: &mut Act<'_>) -> Result<Answer, Answer> {
    remove_pool(act, "zfsremove")
}

/// `POST` and `DELETE /nodes/{node}/subscription`: without a key there is nothing to check or to remove.
pub fn subscription(act: &mut Act<'_>) -> Result<Answer, Answer> {
    act.node()?;
    done()
}

/// `GET …/rrd`: a graph is a file on the node.
pub fn graph(call: &Call<'_>) -> Result<Answer, Answer> {
    let name = match (call.text("vmid"), call.text("storage"), call.text("node")) {
        ("", "", node) => format!("pve2-node_{node}"),
        ("", storage, node) => format!("pve2-storage_{node}_{storage}"),
        (vmid, ..) => format!("pve2-vm_{vmid}"),
    };
    let (frame, sources) = (call.text("timeframe"), call.text("ds").replace([',', ';', ' '], "_"));
    Ok(Answer::ok(json!({"filename": format!("/tmp/{name}_{frame}_{sources}.png")})))
}

/// `GET /nodes/{node}/query-url-metadata`: the simulated node has no way to the Internet.
pub fn url_metadata(call: &Call<'_>) -> Result<Answer, Answer> {
    call.node()?;
    let url = call.text("url");
    let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
    let host = rest.split('/').next().unwrap_or_default();
    let port = if scheme == "https" { 443 } else { 80 };
    let place = if host.contains(':') { host.to_owned() } else { format!("{host}:{port}") };
    fail(format!("invalid server response: '500 Can't connect to {place} (Name or service not known)'"))
}
