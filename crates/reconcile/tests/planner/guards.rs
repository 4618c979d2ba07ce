//! Ownership, scopes, deletions, limits.

use std::collections::BTreeMap;

use pvegraph_reconcile::live::LiveGuest;
use pvegraph_reconcile::plan::{Action, Effect};
use pvegraph_reconcile::scope::Scope;
use serde_json::{Value, json};

use crate::estate::{Estate, blocked, bound, desired, live, planned, unmarked};

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
        (
            json!({ "tombstone": true, "deletion": "destroy" }),
            running(&[]),
            true,
            &["`scope`", "does not allow to destroy"],
        ),
    ];
    for (mut entry, guest, is_bound, words) in cases {
        entry["vmid"] = json!(100);
        let guests = [guest];
        let bindings = if is_bound { bound(&guests) } else { BTreeMap::new() };
        let plan = planned(&desired(vec![entry.clone()]), &guests, &bindings);
        assert_eq!((plan.operations.len(), plan.deletes), (0, 0), "{entry}");
        for word in words {
            assert!(blocked(&plan).contains(word), "{word} is not in {}", blocked(&plan));
        }
    }
    assert!(blocked(&planned(&desired(vec![]), &[], &BTreeMap::new())).contains("empty estate"));
}

/// A guest that has every key to its deletion.
fn doomed() -> Estate {
    let entry = json!({ "vmid": 100, "tombstone": true, "deletion": "destroy" });
    let mut estate = Estate::new(desired(vec![entry]), &[live(100, "stopped", &[])]);
    estate.scopes[0].allow.insert(Action::Destroy);
    estate.scopes[0].max_deletes = 1;
    estate.consent.delete.insert("vm-100".to_owned());
    estate
}

#[test]
fn a_deletion_needs_every_key() {
    let plan = doomed().plan();
    assert_eq!(blocked(&plan), "");
    assert_eq!((plan.deletes, plan.operations.len(), plan.operations[0].action), (1, 1, Action::Destroy));
    assert_eq!((plan.operations[0].effect, plan.operations[0].reversible), (Effect::Delete, false));
    assert_eq!(
        plan.operations[0].requests[0].to_string(),
        "DELETE /nodes/pve1/qemu/100 destroy-unreferenced-disks=0"
    );
    type Loss = fn(&mut Estate);
    fn guest(estate: &mut Estate) -> &mut pvegraph_reconcile::desired::Guest {
        estate.desired.guests.get_mut("vm-100").unwrap()
    }
    let losses: [(&str, Loss, &str); 17] = [
        ("tombstone", |e| guest(e).tombstone = false, "nobody desires its deletion"),
        ("deletion", |e| guest(e).deletion = Default::default(), "`deletion` is `forbid`"),
        ("protected", |e| guest(e).protected = true, "protected"),
        (
            "protection",
            |e| drop(e.guests[0].config.insert("protection".to_owned(), "1".to_owned())),
            "protected",
        ),
        (
            "allow",
            |e| e.scopes[0].allow.retain(|action| *action != Action::Destroy),
            "does not allow to destroy",
        ),
        ("max_deletes", |e| e.scopes[0].max_deletes = 0, "allows 0 deletions"),
        ("consent", |e| e.consent.delete.clear(), "--allow-delete vm-100"),
        ("binding", |e| e.bindings.clear(), "not bound"),
        (
            "fingerprint",
            |e| e.bindings.get_mut("vm-100").unwrap().fingerprint = Some("other".to_owned()),
            "another one",
        ),
        (
            "no fingerprint at all",
            |e| {
                e.guests[0].config.remove("smbios1");
                e.bindings = bound(&e.guests);
            },
            "`identity`",
        ),
        ("tag", |e| drop(e.guests[0].config.remove("tags")), "`marker`"),
        ("trailer", |e| drop(e.guests[0].config.remove("description")), "`marker`"),
        ("scope", |e| e.scopes.clear(), "is in no scope"),
        ("paused", |e| e.scopes[0].paused = true, "paused"),
        ("pool", |e| e.scopes[0].pool = Some("lab".to_owned()), "are in the pool lab"),
        ("stopped", |e| e.guests[0].status = "running".to_owned(), "stop it first"),
        ("ha", |e| e.guests[0].ha = Some("stopped".to_owned()), "high availability"),
    ];
    for (name, lose, words) in losses {
        let mut estate = doomed();
        lose(&mut estate);
        let plan = estate.plan();
        assert_eq!((plan.deletes, plan.operations.len()), (0, 0), "{name}");
        assert!(blocked(&plan).contains(words), "{name}: {}", blocked(&plan));
    }
    let mut estate = doomed();
    guest(&mut estate).policy = pvegraph_reconcile::document::Policy::Observe;
    assert_eq!(estate.plan().deletes, 0);
}

#[test]
fn a_scope_limits_deletions_and_so_does_the_estate() {
    let many = |count: i64, max_deletes: i64| {
        let guests: Vec<LiveGuest> = (100..100 + count).map(|vmid| live(vmid, "stopped", &[])).collect();
        let entry =
            |guest: &LiveGuest| json!({ "vmid": guest.vmid, "tombstone": true, "deletion": "destroy" });
        // Enough others that a tenth of them is more than the limit.
        let others = (500..600).map(|vmid| json!({ "vmid": vmid, "policy": "observe" }));
        let mut estate = Estate::new(desired(guests.iter().map(entry).chain(others).collect()), &guests);
        estate.scopes[0].allow.insert(Action::Destroy);
        estate.scopes[0].max_deletes = max_deletes;
        estate.consent.delete = guests.iter().map(|guest| format!("vm-{}", guest.vmid)).collect();
        estate.plan()
    };
    assert_eq!(blocked(&many(2, 2)), "");
    assert!(blocked(&many(3, 2)).contains("scope lab: `max_deletes`: 3 guests would be deleted"));
    assert_eq!(blocked(&many(5, 5)), "");
    assert!(blocked(&many(6, 6)).contains("6 be deleted, and at most 5"));
}

#[test]
fn a_scope_allows_each_kind_of_operation_by_itself() {
    let guests = [live(100, "running", &[("cores", "2")])];
    let entry = json!({ "vmid": 100, "cores": 4, "state": "stopped" });
    let mut estate = Estate::new(desired(vec![entry]), &guests);
    assert_eq!(estate.plan().operations.len(), 2);
    estate.scopes[0].allow.remove(&Action::Power);
    let plan = estate.plan();
    assert!(plan.operations.is_empty(), "half of what a guest needs is not done either");
    assert!(blocked(&plan).contains("`scope`: the scope lab does not allow to power"));
    estate.scopes = vec![Scope { max_restarts: Some(0), ..Scope::new("lab", 100, 199) }];
    estate.desired = desired(vec![json!({ "vmid": 100, "cores": 4, "reboot": "allow" })]);
    assert!(blocked(&estate.plan()).contains("1 guests would go down, and the scope allows 0"));
}

#[test]
fn managing_needs_the_marker_which_is_put_on_by_agreement() {
    let mut guest = unmarked(100, "running", &[("cores", "2"), ("tags", "web"), ("description", "hunter2")]);
    guest.config.insert("smbios1".to_owned(), "uuid=1".to_owned());
    let mut estate = Estate::new(desired(vec![json!({ "vmid": 100 })]), &[guest.clone()]);
    assert!(estate.plan().noop(), "adopting gives a plan of nothing");
    estate.desired = desired(vec![json!({ "vmid": 100, "cores": 4, "tags": ["web"] })]);
    let plan = estate.plan();
    assert!(plan.operations.is_empty());
    assert!(
        blocked(&plan).contains("`marker`") && blocked(&plan).contains("--mark vm-100"),
        "{}",
        blocked(&plan)
    );

    estate.consent.mark.insert("vm-100".to_owned());
    let plan = estate.plan();
    assert_eq!(blocked(&plan), "");
    let actions: Vec<_> = plan.operations.iter().map(|op| op.action).collect();
    assert_eq!(actions, [Action::Mark, Action::Configure]);
    assert_eq!(plan.operations[1].after, [1].into());
    let form = plan.operations[0].requests[0]
        .form(Some("abc"), &estate.desired.guests["vm-100"], Some(&guest), |_| unreachable!())
        .unwrap();
    assert_eq!(form["tags"], "pvegraph;web");
    assert_eq!(form["description"], "hunter2\n\n[pvegraph:rig/vm-100]");
    assert_eq!(form["digest"], "abc");
    assert!(!plan.to_file().contains("hunter2"));

    // With the marker on it is as desired, and marking it once more is nothing.
    for key in ["tags", "description"] {
        guest.config.insert(key.to_owned(), form[key].clone());
    }
    guest.config.insert("cores".to_owned(), "4".to_owned());
    estate.guests = vec![guest.clone()];
    assert!(estate.plan().noop(), "{:?}", estate.plan());

    // A clone has the marker of what it was cloned from.
    let mut clone = guest;
    clone.vmid = 101;
    let mut estate = Estate::new(desired(vec![json!({ "vmid": 101, "cores": 8 })]), &[clone]);
    assert!(blocked(&estate.plan()).contains("identity conflict: it says that it is [pvegraph:rig/vm-100]"));
    estate.consent.mark.insert("vm-101".to_owned());
    let plan = estate.plan();
    assert_eq!(blocked(&plan), "");
    assert!(plan.operations[0].reasons[0].contains("[pvegraph:rig/vm-101]"));
    assert!(plan.operations[0].requests[0].set["tags"].to_string().contains("pvegraph;web"));
}

#[test]
fn a_restart_needs_leave_for_power_too_and_protection_keeps_disks() {
    let disk = ("scsi1", "lvm:vm-100-disk-1,size=8G");
    let guests = [live(100, "running", &[("cores", "2"), disk])];
    let mut estate =
        Estate::new(desired(vec![json!({ "vmid": 100, "cores": 4, "reboot": "allow" })]), &guests);
    estate.scopes[0].allow.remove(&Action::Power);
    assert!(blocked(&estate.plan()).contains("does not allow to power"));
    estate.desired = desired(vec![json!({ "vmid": 100, "unset": ["scsi1"] })]);
    assert_eq!(
        estate.plan().operations[0].requests[0].to_string(),
        "POST /nodes/pve1/qemu/100/config -scsi1"
    );
    estate.desired = desired(vec![json!({ "vmid": 100, "unset": ["scsi1"], "protected": true })]);
    assert!(blocked(&estate.plan()).contains("vm-100 (guest 100): `scsi1`: the guest is protected"));
}

#[test]
fn consent_to_what_is_not_there_is_told() {
    let mut estate = Estate::new(
        desired(vec![json!({ "vmid": 100 }), json!({ "vmid": 101, "policy": "observe" })]),
        &[live(100, "running", &[])],
    );
    estate.consent.delete.extend(["vm-100".to_owned(), "vm-999".to_owned()]);
    estate.consent.mark.insert("vm-101".to_owned());
    let told = blocked(&estate.plan());
    for words in [
        "vm-100: `--allow-delete`: nobody desires",
        "vm-999: `--allow-delete`: there is no such",
        "vm-101: `--mark`: it is only",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
}
