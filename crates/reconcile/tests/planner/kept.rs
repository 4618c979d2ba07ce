//! What a plan must not lose: disks of protected guests, devices that are not understood, sources of copies.

use pvegraph_reconcile::plan::{Action, Plan};
use serde_json::{Value, json};

use crate::estate::{Estate, blocked, desired, live, unmarked, whole};

fn calls(plan: &Plan) -> Vec<String> {
    assert_eq!(blocked(plan), "");
    plan.operations.iter().flat_map(|op| op.requests.iter().map(ToString::to_string)).collect()
}

/// Seen failing with: only whole devices of protected guests that are kept.
#[test]
fn a_protected_guest_keeps_its_disk_where_another_volume_is_desired() {
    let disk = ("scsi0", "local-lvm:vm-100-disk-0,size=8G");
    let entry = |more: Value| {
        let mut entry = json!({ "vmid": 100, "scsi0": { "volume": "local-lvm:vm-100-disk-7" } });
        entry.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        desired(vec![entry])
    };
    let mut estate = Estate::new(entry(json!({})), &[live(100, "stopped", &[disk])]);
    assert!(calls(&estate.plan())[0].contains("scsi0=local-lvm:vm-100-disk-7"));
    estate.desired = entry(json!({ "protected": true }));
    let plan = estate.plan();
    assert!(plan.operations.is_empty());
    assert!(blocked(&plan).contains("`scsi0.volume`: the guest is protected, and keeps its disks"));
    estate.desired = entry(json!({}));
    estate.guests[0].config.insert("protection".to_owned(), "1".to_owned());
    assert!(blocked(&estate.plan()).contains("`scsi0.volume`: the guest is protected"));
    // What is in a drive is no disk of the guest.
    let drive = ("ide2", "local:iso/old.iso,media=cdrom");
    let entry = json!({ "vmid": 100, "protected": true, "ide2": { "volume": "local:iso/new.iso" } });
    let plan = Estate::new(desired(vec![entry]), &[live(100, "stopped", &[drive])]).plan();
    assert!(calls(&plan)[0].contains("ide2=local:iso/new.iso,media=cdrom"));
}

/// Seen failing with: a device of which something is desired that is written as a whole, where the live one was not understood.
#[test]
fn a_device_that_is_not_understood_is_never_written_over() {
    for (key, odd, wanted) in [
        ("scsi0", "local-lvm:vm-100-disk-0,size=8G,size=9G", json!({ "storage": "local-lvm", "size": "8G" })),
        (
            "net0",
            "virtio=BC:24:11:00:00:01,bridge=vmbr0,bridge=vmbr1",
            json!({ "model": "virtio", "bridge": "vmbr0" }),
        ),
    ] {
        let entry = json!({ "vmid": 100, key: wanted });
        let plan = Estate::new(desired(vec![entry]), &[live(100, "stopped", &[(key, odd)])]).plan();
        assert!(plan.operations.is_empty(), "{key}");
        let told = blocked(&plan);
        assert!(told.contains(&format!("`{key}`: what the guest has there was not understood")), "{told}");
        assert!(told.contains("change it at Proxmox VE"), "{told}");
    }
}

/// A template that shall go, of which a copy is made.
fn outgoing(full: bool) -> Estate {
    let gone = json!({ "vmid": 900, "tombstone": true, "deletion": "destroy" });
    let copy = json!({ "uid": "web", "vmid": 101, "clone": { "from": 900, "full": full } });
    let config = [("template", "1"), ("name", "golden"), ("scsi0", "lvm:base-900-disk-0,size=4G")];
    let mut estate = Estate::new(desired(vec![gone, copy]), &[live(900, "stopped", &config)]);
    estate.scopes[0].allow.insert(Action::Destroy);
    estate.scopes[0].max_deletes = 1;
    estate.consent.delete.insert("vm-900".to_owned());
    estate
}

/// Seen failing with: a deletion that waits for no copy; a source that is deleted under linked copies.
#[test]
fn what_is_copied_goes_only_after_its_copies() {
    let plan = outgoing(true).plan();
    assert_eq!(blocked(&plan), "");
    let numbers = |action: Action| plan.operations.iter().find(|op| op.action == action).unwrap();
    let (copy, gone) = (numbers(Action::Create), numbers(Action::Destroy));
    assert!(gone.after.contains(&copy.number), "{:?}", gone.after);
    let told = blocked(&outgoing(false).plan());
    assert!(
        told.contains("vm-900 (guest 900): `tombstone`: web is made as a copy that builds on it"),
        "{told}"
    );
}

/// Seen failing with: a deletion without the marker, which no apply does.
#[test]
fn a_guest_without_the_marker_gets_it_before_it_is_deleted() {
    let entry = json!({ "vmid": 100, "tombstone": true, "deletion": "destroy" });
    let smbios = ("smbios1", "uuid=11111111-2222-3333-4444-000000000100");
    let mut estate = Estate::new(desired(vec![entry]), &[unmarked(100, "stopped", &[smbios])]);
    estate.scopes[0].allow.insert(Action::Destroy);
    estate.scopes[0].max_deletes = 1;
    estate.consent.delete.insert("vm-100".to_owned());
    assert!(blocked(&estate.plan()).contains("plan with --mark vm-100"));
    estate.consent.mark.insert("vm-100".to_owned());
    let plan = estate.plan();
    assert_eq!(blocked(&plan), "");
    let actions: Vec<Action> = plan.operations.iter().map(|op| op.action).collect();
    assert_eq!(actions, [Action::Mark, Action::Destroy]);
    assert_eq!(plan.operations[1].after, [1].into());
    // A copy that broke off is signed, and has no tag yet.
    estate.consent.mark.clear();
    estate.guests[0].config.insert("description".to_owned(), "[pvegraph:rig/vm-100]".to_owned());
    estate.bindings.get_mut("vm-100").unwrap().reserved_by = Some("r1".to_owned());
    let plan = estate.plan();
    let actions: Vec<Action> = plan.operations.iter().map(|op| op.action).collect();
    assert_eq!(actions, [Action::Mark, Action::Destroy], "{}", blocked(&plan));
    estate.scopes[0].allow.remove(&Action::Configure);
    assert!(blocked(&estate.plan()).contains("does not allow to configure"));
}

/// Seen failing with: the node that it has left.
#[test]
fn a_guest_becomes_a_template_where_it_migrates_to() {
    let entry = json!({ "vmid": 100, "node": "pve2", "template": true });
    let mut estate = Estate::new(desired(vec![entry]), &[live(100, "stopped", &[])]);
    estate.scopes[0].allow.insert(Action::Template);
    let plan = estate.plan();
    let calls = calls(&plan);
    assert!(calls[0].starts_with("POST /nodes/pve1/qemu/100/migrate"), "{calls:?}");
    assert_eq!(calls[1], "POST /nodes/pve2/qemu/100/template");
    assert_eq!(plan.operations[1].node, "pve2");
    assert_eq!(pvegraph_reconcile::apply::odd(&plan), None);
}

/// Seen failing with: adopting as the one advice.
#[test]
fn a_taken_number_is_told_with_the_guest_that_has_it() {
    let estate =
        whole(json!({ "containers": [{ "vmid": 300, "cores": 2 }], "vms": [{ "vmid": 100, "cores": 2 }] }));
    let mut stranger = live(100, "running", &[("name", "payroll")]);
    stranger.config.remove("tags");
    let mut estate =
        Estate::new(estate, &[stranger, crate::estate::container(300, "running", &[("hostname", "dns")])]);
    estate.bindings.clear();
    let told = blocked(&estate.plan());
    for (vmid, name) in [(100, "payroll"), (300, "dns")] {
        let words =
            format!("the guest {vmid} ({name}) is there already and not bound: desire another number, or");
        assert!(told.contains(&words), "{told}");
        assert!(told.contains(&format!("`pvegraph adopt {vmid}`")), "{told}");
    }
}

/// Seen failing with: names that are looked at only where the desired guest names its number.
#[test]
fn no_guest_gets_the_disk_of_another() {
    let entry = json!({ "uid": "web", "scsi1": { "volume": "local-lvm:vm-101-disk-0" } });
    let mut estate = Estate::new(desired(vec![entry]), &[]);
    let new = blocked(&estate.plan());
    assert!(new.contains("web: `scsi1.volume`: this volume is of the guest 101"), "{new}");
    // Its binding has given it a number.
    let mut guest = live(100, "stopped", &[("scsi0", "local-lvm:vm-100-disk-0,size=8G")]);
    guest.config.insert("description".to_owned(), "[pvegraph:rig/web]".to_owned());
    let mut binding = crate::estate::bound(&[guest.clone()]).remove("vm-100").unwrap();
    binding.uid = "web".to_owned();
    estate.bindings.insert("web".to_owned(), binding);
    estate.guests = vec![guest];
    estate.desired.guests.get_mut("web").unwrap().vmid = Some(100);
    let plan = estate.plan();
    assert!(plan.operations.is_empty());
    assert!(blocked(&plan).contains("web (guest 100): `scsi1.volume`: this volume is of the guest 101"));
}
