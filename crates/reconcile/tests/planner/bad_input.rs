//! Bad input, each refused with guest, field and mend, before anything is planned for it.

use std::collections::{BTreeMap, BTreeSet};

use pvegraph_inventory::GuestType;
use pvegraph_reconcile::desired::from_document;
use pvegraph_reconcile::document::{Form, read};
use pvegraph_reconcile::live::Listed;
use serde_json::{Value, json};

use crate::estate::{Estate, blocked, container, desired, live, whole};

fn refused(estate: &Estate, words: &[&str]) {
    let plan = estate.plan();
    assert!(plan.operations.is_empty(), "{:?}", plan.operations);
    for word in words {
        assert!(blocked(&plan).contains(word), "{word} is not in {}", blocked(&plan));
    }
}

fn document(proxmox: Value) -> String {
    let text = json!({ "version": 1, "plugins": { "proxmox": proxmox } }).to_string();
    let read = read(&text, Form::Json).map_err(|error| error.to_string());
    let desired = read.and_then(|document| {
        from_document(&document, &"rig".parse().unwrap())
            .map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    });
    desired.unwrap_err()
}

/// A new guest in a cluster with one node, its storages and bridges.
fn new(mut entry: Value) -> Estate {
    let container = entry.get("ostemplate").is_some();
    entry["uid"] = json!("web");
    entry["vmid"] = entry.get("vmid").cloned().unwrap_or(json!(300));
    let list = if container { "containers" } else { "vms" };
    let mut estate = Estate::new(whole(json!({ list: [entry] })), &[]);
    let names =
        |names: &[&str]| -> BTreeSet<String> { names.iter().map(|name| (*name).to_owned()).collect() };
    estate.around.nodes = BTreeMap::from([("pve1".to_owned(), true), ("pve2".to_owned(), false)]);
    estate.around.storages.insert("pve1".to_owned(), names(&["lvm"]));
    estate.around.bridges.insert("pve1".to_owned(), names(&["vmbr0"]));
    estate.around.templates.insert("pve1".to_owned(), names(&["local:vztmpl/debian.tar.zst"]));
    estate
}

#[test]
fn a_taken_number_is_refused() {
    let mut estate = new(json!({ "node": "pve1" }));
    estate.guests = vec![live(300, "running", &[])];
    refused(&estate, &[]);
    estate.desired = whole(json!({ "vms": [{ "uid": "web", "vmid": 300, "cores": 4 }] }));
    refused(&estate, &["web (guest 300): `guest`", "there already and not bound", "pvegraph adopt 300"]);
    estate.guests = vec![container(300, "running", &[])];
    refused(&estate, &["web (guest 300): `type`", "another one"]);
    // One that is listed and could not be read is there as well.
    let mut estate = new(json!({ "node": "pve1" }));
    let other = Listed {
        kind: GuestType::Qemu,
        node: "pve1".to_owned(),
        name: Some("db".to_owned()),
        status: "running".to_owned(),
        memory: None,
        cores: None,
        template: false,
        pool: None,
    };
    estate.around.listed.insert(300, other);
    refused(&estate, &["web (guest 300): `vmid`", "taken", "db", "another number"]);
}

#[test]
fn an_unknown_node_is_refused() {
    refused(&new(json!({ "node": "pve9" })), &["web (guest 300): `node`", "no node \"pve9\"", "pve1"]);
    refused(&new(json!({ "node": "pve2" })), &["`node`", "offline", "another one"]);
    refused(&new(json!({})), &["`node`", "write one"]);
    let mut estate =
        Estate::new(desired(vec![json!({ "vmid": 100, "node": "pve9" })]), &[live(100, "running", &[])]);
    estate.around.nodes = BTreeMap::from([("pve1".to_owned(), true)]);
    refused(&estate, &["vm-100 (guest 100): `node`", "pve9"]);
}

#[test]
fn an_unknown_storage_is_refused() {
    let disk = json!({ "storage": "floppy", "size": "8G" });
    refused(
        &new(json!({ "node": "pve1", "scsi0": disk })),
        &["`scsi0.storage`", "no storage \"floppy\"", "lvm"],
    );
    let guests = [live(100, "running", &[("scsi0", "lvm:vm-100-disk-0,size=8G")])];
    for entry in
        [json!({ "vmid": 100, "scsi0": { "storage": "floppy" } }), json!({ "vmid": 100, "scsi1": disk })]
    {
        let mut estate = Estate::new(desired(vec![entry]), &guests);
        estate.around.storages.insert("pve1".to_owned(), BTreeSet::from(["lvm".to_owned()]));
        refused(&estate, &["vm-100 (guest 100): `scsi", ".storage`", "no storage \"floppy\""]);
    }
}

#[test]
fn an_unknown_bridge_is_refused() {
    let nic = json!({ "model": "virtio", "bridge": "vmbr9" });
    refused(&new(json!({ "node": "pve1", "net0": nic })), &["`net0.bridge`", "no bridge \"vmbr9\"", "vmbr0"]);
    let guests = [live(100, "running", &[("net0", "virtio=BC:24:11:00:00:01,bridge=vmbr0")])];
    let mut estate =
        Estate::new(desired(vec![json!({ "vmid": 100, "net0": { "bridge": "vmbr9" } })]), &guests);
    estate.around.bridges.insert("pve1".to_owned(), BTreeSet::from(["vmbr0".to_owned()]));
    refused(&estate, &["vm-100 (guest 100): `net0.bridge`", "vmbr9"]);
}

#[test]
fn an_unknown_template_is_refused() {
    let entry = json!({ "node": "pve1", "ostemplate": "local:vztmpl/none.tar.zst" });
    refused(&new(entry), &["web (guest 300): `ostemplate`", "no template", "debian.tar.zst"]);
    let mut estate = new(json!({ "node": "pve1", "ostemplate": "local:vztmpl/debian.tar.zst" }));
    estate.desired.guests.get_mut("web").unwrap().ostemplate = None;
    refused(&estate, &["`ostemplate`", "made from a template"]);
}

#[test]
fn a_shrink_is_refused() {
    let guests = [live(100, "running", &[("scsi0", "lvm:vm-100-disk-0,size=8G")])];
    let estate = Estate::new(desired(vec![json!({ "vmid": 100, "scsi0": { "size": "4G" } })]), &guests);
    refused(&estate, &["vm-100 (guest 100): `scsi0.size`", "can't shrink", "desire the size that it has"]);
}

#[test]
fn an_unsupported_option_is_refused() {
    assert!(document(json!({ "vms": [{ "vmid": 100, "coers": 2 }] })).contains("`cores`"));
    let told = document(json!({ "vms": [{ "vmid": 100, "vmgenid": "1" }] }));
    assert!(told.contains("vmgenid"), "{told}");
    let guests = [container(200, "running", &[("unprivileged", "1")])];
    let estate =
        Estate::new(whole(json!({ "containers": [{ "vmid": 200, "unprivileged": false }] })), &guests);
    refused(&estate, &["ct-200 (guest 200): `unprivileged`", "back it up"]);
    let estate = Estate::new(
        desired(vec![json!({ "vmid": 100, "net1": { "bridge": "vmbr0" } })]),
        &[live(100, "running", &[])],
    );
    refused(&estate, &["vm-100 (guest 100): `net1.model`", "\"virtio\""]);
    let estate = Estate::new(
        desired(vec![json!({ "vmid": 100, "scsi1": { "iothread": true } })]),
        &[live(100, "running", &[])],
    );
    refused(&estate, &["vm-100 (guest 100): `scsi1`", "`storage` and `size`"]);
}

#[test]
fn a_cycle_of_dependencies_is_refused() {
    let told = document(
        json!({ "vms": [{ "vmid": 100, "depends_on": ["vm-101"] }, { "vmid": 101, "depends_on": ["vm-100"] }] }),
    );
    assert!(told.contains("`depends_on`") && told.contains("wait for each other: remove one"), "{told}");
}

#[test]
fn two_desired_nodes_for_one_guest_are_refused() {
    let told = document(json!({ "vms": [{ "uid": "a", "vmid": 100 }, { "uid": "b", "vmid": 100 }] }));
    assert!(told.contains("b (guest 100): `vmid`") && told.contains("keep one of the two"), "{told}");
    let told = document(json!({ "vms": [{ "uid": "a", "vmid": 100 }, { "uid": "a", "vmid": 101 }] }));
    assert!(told.contains("`uid`") && told.contains("give each guest its own"), "{told}");
}

#[test]
fn a_locked_guest_is_refused() {
    let guests = [live(100, "running", &[("lock", "backup")])];
    let estate = Estate::new(desired(vec![json!({ "vmid": 100, "cores": 4 })]), &guests);
    refused(&estate, &["vm-100 (guest 100): `lock`", "(backup)", "wait"]);
}

#[test]
fn a_guest_that_runs_where_it_must_be_stopped_is_refused() {
    let mut estate = Estate::new(
        desired(vec![json!({ "vmid": 100, "tombstone": true, "deletion": "destroy" })]),
        &[live(100, "running", &[])],
    );
    estate.scopes[0].allow.insert(pvegraph_reconcile::plan::Action::Destroy);
    estate.scopes[0].max_deletes = 1;
    estate.consent.delete.insert("vm-100".to_owned());
    refused(&estate, &["vm-100 (guest 100): `state`", "running", "stop it first"]);
    for (entry, field) in [
        (json!({ "node": "pve2" }), "`node`"),
        (json!({ "rootfs": { "storage": "ceph" } }), "`rootfs.storage`"),
    ] {
        let mut entry = entry;
        entry["vmid"] = json!(200);
        let estate = Estate::new(whole(json!({ "containers": [entry] })), &[container(200, "running", &[])]);
        refused(&estate, &["ct-200 (guest 200)", field, "stop it first"]);
    }
}

#[test]
fn a_guest_that_is_gone_is_refused() {
    let mut estate =
        Estate::new(desired(vec![json!({ "vmid": 100, "node": "pve1" })]), &[live(100, "running", &[])]);
    estate.guests.clear();
    refused(&estate, &["vm-100 (guest 100): `guest`", "is gone", "pvegraph release vm-100"]);
}
