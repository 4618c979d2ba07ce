//! Plans of small estates: operations, effects, and what forbids them.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::collections::BTreeMap;

use pvegraph_inventory::GuestType;
use pvegraph_reconcile::canonical::TagStyle;
use pvegraph_reconcile::desired::{Desired, from_document};
use pvegraph_reconcile::diff::{self, GuestDiff};
use pvegraph_reconcile::document::{Form, read};
use pvegraph_reconcile::live::LiveGuest;
use pvegraph_reconcile::plan::{Action, Effect, Input, Plan, plan};
use pvegraph_reconcile::stored::Binding;
use serde_json::{Value, json};

fn desired(vms: Vec<Value>) -> Desired {
    let text = json!({ "version": 1, "plugins": { "proxmox": { "vms": vms } } }).to_string();
    from_document(&read(&text, Form::Json).unwrap(), &"rig".parse().unwrap()).unwrap()
}

fn live(vmid: i64, status: &str, config: &[(&str, &str)]) -> LiveGuest {
    let uuid = format!("uuid=11111111-2222-3333-4444-{vmid:012}");
    let mut guest = LiveGuest {
        vmid,
        kind: GuestType::Qemu,
        node: "pve1".to_owned(),
        status: status.to_owned(),
        config: config.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
    };
    guest.config.insert("smbios1".to_owned(), uuid);
    guest
}

fn bound(guests: &[LiveGuest]) -> BTreeMap<String, Binding> {
    let binding = |guest: &LiveGuest| Binding {
        uid: format!("vm-{}", guest.vmid),
        kind: guest.kind,
        vmid: guest.vmid,
        fingerprint: guest.fingerprint(),
        last_applied: None,
    };
    guests.iter().map(|guest| (format!("vm-{}", guest.vmid), binding(guest))).collect()
}

fn planned(desired: &Desired, guests: &[LiveGuest], bindings: &BTreeMap<String, Binding>) -> Plan {
    let live: BTreeMap<i64, LiveGuest> = guests.iter().map(|guest| (guest.vmid, guest.clone())).collect();
    let diffs: Vec<GuestDiff> = desired
        .guests
        .values()
        .map(|guest| match guest.vmid.and_then(|vmid| live.get(&vmid)) {
            Some(has) => diff::diff(guest, has, &BTreeMap::new(), TagStyle::default()),
            None => diff::missing(guest),
        })
        .collect();
    let unread = BTreeMap::new();
    plan(&Input { desired, generation: 1, bindings, live: &live, diffs: &diffs, unread: &unread, now: 1_000 })
}

fn blocked(plan: &Plan) -> String {
    plan.blocked.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[test]
fn what_is_as_desired_plans_nothing() {
    let guests = [live(100, "running", &[("cores", "2")])];
    let plan = planned(&desired(vec![json!({ "vmid": 100, "cores": 2 })]), &guests, &bound(&guests));
    assert!(plan.noop(), "{plan:?}");
    assert_eq!((plan.restarts, plan.deletes, plan.blast, plan.expires_at), (0, 0, 0, 4_600));
}

#[test]
fn each_change_has_its_operation_and_effect() {
    let has: &[(&str, &str)] = &[
        ("cores", "2"),
        ("digest", "abc"),
        ("net0", "virtio=BC:24:11:00:00:01,bridge=vmbr0"),
        ("scsi0", "local-lvm:vm-100-disk-0,size=8G"),
    ];
    let cases = [
        (json!({ "tags": ["a"], "net0": { "bridge": "vmbr1" } }), vec![(Action::Configure, Effect::Hot)]),
        (json!({ "cores": 4, "reboot": "allow" }), vec![(Action::Configure, Effect::Restart)]),
        (json!({ "cores": 4 }), vec![(Action::Configure, Effect::Pending)]),
        (
            json!({ "net0": { "model": "e1000" }, "reboot": "allow" }),
            vec![(Action::Configure, Effect::Restart)],
        ),
        (json!({ "scsi0": { "size": "16G" } }), vec![(Action::Grow, Effect::Hot)]),
        (
            json!({ "scsi0": { "size": "16G", "storage": "ceph" } }),
            vec![(Action::Grow, Effect::Hot), (Action::Move, Effect::Hot)],
        ),
        (json!({ "node": "pve2" }), vec![(Action::Migrate, Effect::Move)]),
        (json!({ "state": "stopped" }), vec![(Action::Power, Effect::Stop)]),
    ];
    let guests = [live(100, "running", has)];
    for (mut entry, expected) in cases {
        entry["vmid"] = json!(100);
        let plan = planned(&desired(vec![entry.clone()]), &guests, &bound(&guests));
        let ops: Vec<_> = plan.ops.iter().map(|op| (op.action, op.effect)).collect();
        assert_eq!(ops, expected, "{entry}");
        assert_eq!(blocked(&plan), "", "{entry}");
        assert_eq!(plan.ops[0].digest.as_deref(), Some("abc"));
        assert!(plan.ops[0].fingerprint.is_some() && !plan.ops[0].reasons.is_empty());
    }
    // A stopped guest is never restarted.
    let stopped = [live(100, "stopped", has)];
    let plan = planned(
        &desired(vec![json!({ "vmid": 100, "cores": 4, "reboot": "allow" })]),
        &stopped,
        &bound(&stopped),
    );
    assert_eq!((plan.ops[0].effect, plan.restarts), (Effect::Hot, 0));
}

#[test]
fn what_may_not_be_touched_is_blocked_with_a_mend() {
    let running = |config: &[(&str, &str)]| live(100, "running", config);
    let disk = ("scsi0", "local-lvm:vm-100-disk-0,size=8G");
    let cases: Vec<(Value, LiveGuest, bool, &[&str])> = vec![
        (json!({ "cores": 4 }), running(&[]), false, &["`guest`", "not bound", "pvegraph adopt 100"]),
        (json!({ "cores": 4 }), running(&[("lock", "backup")]), true, &["`lock`", "(backup)", "wait"]),
        (json!({ "scsi0": { "size": "1G" } }), running(&[disk]), true, &["`scsi0.size`", "can't shrink"]),
        (json!({ "tombstone": true }), running(&[]), true, &["`deletion` is `forbid`"]),
        (
            json!({ "tombstone": true, "protected": true, "deletion": "destroy" }),
            running(&[]),
            true,
            &["protected"],
        ),
        (
            json!({ "tombstone": true, "deletion": "destroy" }),
            running(&[("protection", "1")]),
            true,
            &["protected"],
        ),
        (json!({ "tombstone": true, "deletion": "destroy" }), running(&[]), true, &["`max_deletes` is 0"]),
    ];
    for (mut entry, guest, is_bound, words) in cases {
        entry["vmid"] = json!(100);
        let guests = [guest];
        let bindings = if is_bound { bound(&guests) } else { BTreeMap::new() };
        let plan = planned(&desired(vec![entry.clone()]), &guests, &bindings);
        assert_eq!((plan.ops.len(), plan.deletes), (0, 0), "{entry}");
        for word in words {
            assert!(blocked(&plan).contains(word), "{word} is not in {}", blocked(&plan));
        }
    }
    assert!(blocked(&planned(&desired(vec![]), &[], &BTreeMap::new())).contains("empty estate"));
}

#[test]
fn a_missing_guest_is_made_once_and_never_a_second_time() {
    let estate = desired(vec![json!({ "vmid": 100, "cores": 4 })]);
    let plan = planned(&estate, &[], &BTreeMap::new());
    assert_eq!(plan.ops[0].action, Action::Create);
    let was = [live(100, "running", &[])];
    let plan = planned(&estate, &[], &bound(&was));
    assert!(plan.ops.is_empty());
    assert!(blocked(&plan).contains("is gone"), "{}", blocked(&plan));
}

#[test]
fn observed_guests_are_left_alone() {
    let guests = [live(100, "running", &[])];
    let estate = desired(vec![json!({ "vmid": 100, "cores": 4, "policy": "observe" })]);
    let plan = planned(&estate, &guests, &bound(&guests));
    assert!(plan.noop());
    assert_eq!(plan.observed, ["vm-100"]);
}

#[test]
fn the_blast_is_who_depends_and_the_order_is_theirs() {
    let guests: Vec<_> = (100..104).map(|vmid| live(vmid, "running", &[])).collect();
    let estate = desired(vec![
        json!({ "vmid": 100, "depends_on": ["vm-101"], "onboot": true }),
        json!({ "vmid": 101, "depends_on": ["vm-102"], "onboot": true }),
        json!({ "vmid": 102, "cores": 4, "reboot": "allow" }),
        json!({ "vmid": 103, "tags": ["x"] }),
    ]);
    let plan = planned(&estate, &guests, &bound(&guests));
    assert_eq!((plan.restarts, plan.blast), (1, 4));
    let ops: Vec<_> = plan.ops.iter().map(|op| (op.uid.as_str(), op.blast)).collect();
    assert_eq!(ops, [("vm-102", 3), ("vm-103", 1), ("vm-101", 1), ("vm-100", 1)]);
    // Two restarts of four guests are too many.
    let estate = desired(vec![
        json!({ "vmid": 100, "cores": 4, "reboot": "allow" }),
        json!({ "vmid": 101, "cores": 4, "reboot": "allow" }),
    ]);
    assert!(blocked(&planned(&estate, &guests, &bound(&guests))).contains("2 of 2 guests would restart"));
}

#[test]
fn equal_plans_have_equal_hashes() {
    let guests = [live(100, "running", &[])];
    let of = |cores: u32| {
        planned(&desired(vec![json!({ "vmid": 100, "cores": cores })]), &guests, &bound(&guests)).sha256()
    };
    assert_eq!(of(4), of(4));
    assert_ne!(of(4), of(5));
}
