//! Imports and adoptions: what stays desired, and that one guest is desired once.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::collections::BTreeMap;

use pvegraph_inventory::GuestType;
use pvegraph_reconcile::adopt::{How, adopted};
use pvegraph_reconcile::desired::{Desired, check, from_document};
use pvegraph_reconcile::document::{Deletion, Document, Form, Policy, Reboot, read};
use pvegraph_reconcile::import::merged;
use pvegraph_reconcile::live::{Live, LiveGuest};
use pvegraph_reconcile::stored::{Binding, Stored, numbered};
use serde_json::{Value, json};

fn document(vms: Value) -> Document {
    let text = json!({ "version": 1, "plugins": { "proxmox": { "vms": vms } } }).to_string();
    read(&text, Form::Json).unwrap()
}

fn desired(vms: Value) -> Desired {
    from_document(&document(vms), &"rig".parse().unwrap()).unwrap()
}

fn machine(vmid: i64) -> LiveGuest {
    let config = [("cores", "2".to_owned()), ("smbios1", format!("uuid=11111111-2222-3333-4444-{vmid:012}"))];
    LiveGuest {
        vmid,
        kind: GuestType::Qemu,
        node: "pve1".to_owned(),
        status: "running".to_owned(),
        pool: None,
        ha: None,
        config: config.map(|(key, value)| (key.to_owned(), value)).into(),
    }
}

fn live(guest: &LiveGuest) -> Live {
    let mut live = Live::default();
    live.guests.insert(guest.vmid, guest.clone());
    live
}

/// What is desired, with each of these guests bound.
fn stored(desired: Desired, bound: &[(&str, &LiveGuest)]) -> Stored {
    let binding = |(uid, guest): &(&str, &LiveGuest)| {
        let (uid, kind, vmid, fingerprint) = ((*uid).to_owned(), guest.kind, guest.vmid, guest.fingerprint());
        let (last_applied, reserved_by, destroyed_at) = (None, None, None);
        (uid.clone(), Binding { uid, kind, vmid, fingerprint, last_applied, reserved_by, destroyed_at })
    };
    let bindings: BTreeMap<String, Binding> = bound.iter().map(binding).collect();
    Stored { desired, generation: 1, written_at: 1, bindings, sha256: String::new() }
}

/// Seen failing with: a guest that is adopted a second time, under its number; one that loses the number that it got when it was made.
#[test]
fn a_guest_that_was_made_without_a_number_is_adopted_as_itself() {
    let guest = machine(105);
    let from = stored(desired(json!([{ "uid": "web", "cores": 2 }])), &[("web", &guest)]);
    let found = adopted(&from, &live(&guest), How::default()).unwrap();
    assert_eq!(found.to.guests.keys().collect::<Vec<_>>(), ["web"]);
    assert_eq!((found.bind[0].uid.as_str(), found.bind[0].vmid), ("web", 105));
    let other = stored(desired(json!([{ "uid": "web", "cores": 8 }])), &[("web", &guest)]);
    assert!(adopted(&other, &live(&guest), How::default()).unwrap_err().contains("--replace"));
    let found = adopted(&other, &live(&guest), How { replace: true, ..How::default() }).unwrap();
    assert_eq!(found.to.guests.keys().collect::<Vec<_>>(), ["web"]);
    assert_eq!(found.to.guests["web"].fields["cores"].to_string(), "2");
    // What only has the name that it would get is another one.
    let taken = stored(desired(json!([{ "uid": "vm-105", "vmid": 200 }])), &[]);
    assert!(adopted(&taken, &live(&guest), How::default()).unwrap_err().contains("rename that one"));
}

/// Seen failing with: numbers of bindings that the check does not know.
#[test]
fn a_number_that_a_binding_has_is_not_desired_again() {
    let from = stored(desired(json!([{ "uid": "web" }])), &[("web", &machine(105))]);
    let document = document(json!([{ "vmid": 105, "cores": 4 }]));
    let wanted = from_document(&document, &"rig".parse().unwrap()).unwrap();
    let to = merged(&from.desired, &wanted, &document, false);
    let problems = check(&numbered(&from.bindings, &to));
    let [problem] = problems.as_slice() else { panic!("{problems:?}") };
    assert_eq!(
        problem.to_string(),
        "web (guest 105): `vmid`: vm-105 desires the same guest: keep one of the two"
    );
}

/// Seen failing with: the defaults in place of what a document does not say.
#[test]
fn a_document_that_is_silent_takes_no_protection_away() {
    let old = desired(json!([{
        "vmid": 100, "policy": "observe", "protected": true, "deletion": "destroy", "reboot": "allow", "local_disks": "migrate",
        "shutdown": "force", "cores": 2,
    }]));
    let import = |vms: Value, prune: bool| {
        let document = document(vms);
        let new = from_document(&document, &"rig".parse().unwrap()).unwrap();
        merged(&old, &new, &document, prune).guests["vm-100"].clone()
    };
    for prune in [false, true] {
        let guest = import(json!([{ "vmid": 100, "cores": 4 }]), prune);
        let cores = guest.fields["cores"].to_string();
        assert_eq!(cores, "4");
        let was = &old.guests["vm-100"];
        let expected = pvegraph_reconcile::desired::Guest { fields: guest.fields.clone(), ..was.clone() };
        assert_eq!(guest, expected);
    }
    let guest = import(
        json!([{ "uid": "vm-100", "vmid": 100, "protected": false, "policy": "manage", "deletion": "forbid", "reboot": "never" }]),
        false,
    );
    assert_eq!(
        (guest.protected, guest.policy, guest.deletion, guest.reboot),
        (false, Policy::Manage, Deletion::Forbid, Reboot::Never)
    );
    // A new guest has the defaults.
    let new = import(json!([{ "vmid": 100 }, { "vmid": 101 }]), false);
    assert!(new.protected);
}

/// Seen failing with: the policy that an import gave it.
#[test]
fn an_adopted_guest_is_only_observed_unless_somebody_says_otherwise() {
    let guest = machine(100);
    let from = stored(desired(json!([{ "vmid": 100, "cores": 2, "protected": true }])), &[]);
    assert_eq!(from.desired.guests["vm-100"].policy, Policy::Manage);
    let found = adopted(&from, &live(&guest), How::default()).unwrap();
    assert_eq!(found.to.guests["vm-100"].policy, Policy::Observe);
    assert!(found.to.guests["vm-100"].protected);
    let found = adopted(&from, &live(&guest), How { manage: true, ..How::default() }).unwrap();
    assert_eq!(found.to.guests["vm-100"].policy, Policy::Manage);
}

/// Seen failing with: nodes that are desired of a guest which is on none of them after it was adopted as it is.
#[test]
fn an_adopted_guest_keeps_the_nodes_that_it_may_be_on_where_it_is_on_one() {
    let guest = machine(100);
    let replaced = |nodes: Value, prefer: Value| {
        let from =
            stored(desired(json!([{ "vmid": 100, "cores": 8, "nodes": nodes, "prefer": prefer }])), &[]);
        assert!(adopted(&from, &live(&guest), How::default()).is_err());
        let found = adopted(&from, &live(&guest), How { replace: true, ..How::default() }).unwrap();
        assert_eq!(check(&found.to), []);
        let is = &found.to.guests["vm-100"];
        assert!(is.may_be_on("pve1"));
        let words =
            |names: &std::collections::BTreeSet<String>| names.iter().cloned().collect::<Vec<_>>().join(" ");
        (words(&is.nodes), words(&is.prefer))
    };
    let own = |nodes: &str, prefer: &str| (nodes.to_owned(), prefer.to_owned());
    assert_eq!(replaced(json!(["pve1", "pve2"]), json!(["pve2"])), own("pve1 pve2", "pve2"));
    assert_eq!(replaced(json!(["pve2"]), Value::Null), own("", ""));
    assert_eq!(replaced(json!(["pve2"]), json!(["pve2"])), own("", "pve2"));
    assert_eq!(replaced(Value::Null, json!(["pve2"])), own("", "pve2"));
}
