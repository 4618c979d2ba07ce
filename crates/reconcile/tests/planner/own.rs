//! What everything stands on is not taken down.

use std::collections::BTreeSet;

use pvegraph_reconcile::live::Live;
use pvegraph_reconcile::own::forbidden;
use pvegraph_reconcile::plan::{Action, Ask, Plan};
use serde_json::{Value, json};

use crate::estate::{Estate, blocked, container, desired, live, whole};

/// The SMBIOS UUID of the machine 100, as the kernel tells it there.
const MACHINE: &str = "abcdef01-2222-3333-4444-000000000100";

fn estate(entry: Value) -> Estate {
    let config = [("cores", "2"), ("digest", "abc"), ("name", "web")];
    let mut guest = live(100, "running", &config);
    guest.config.insert("smbios1".to_owned(), format!("uuid={MACHINE}"));
    Estate::new(desired(vec![entry]), &[guest, live(101, "running", &config)])
}

fn there(estate: &Estate) -> Live {
    let mut live = Live::default();
    live.guests.extend(estate.guests.iter().map(|guest| (guest.vmid, guest.clone())));
    live
}

/// What is told of a plan where the program runs on this machine.
fn told(estate: &Estate, plan: &Plan, machine: Option<&str>) -> Vec<String> {
    assert_eq!(blocked(plan), "");
    assert!(!plan.operations.is_empty());
    let live = there(estate);
    forbidden(plan, &live, &BTreeSet::new(), machine).iter().map(ToString::to_string).collect()
}

/// Seen failing with: a UUID that is compared with its case.
#[test]
fn the_machine_that_the_program_runs_on_is_not_taken_down() {
    let restarts = json!({ "cores": 4, "reboot": "allow" });
    for (change, action) in [(restarts, "configure"), (json!({ "state": "stopped" }), "power")] {
        let mut entry = change;
        entry["vmid"] = json!(100);
        let mut estate = estate(entry);
        // One of one guest may go down.
        let plan = estate.plan();
        for machine in [MACHINE.to_owned(), MACHINE.to_uppercase()] {
            let told = told(&estate, &plan, Some(&machine));
            let words = ["vm-100 (guest 100)", &format!("`{action}`"), "this program runs on it"];
            assert!(told.len() == 1 && words.iter().all(|word| told[0].contains(word)), "{told:?}");
        }
        // Another machine, or none that is known.
        let other = MACHINE.replace("0100", "0101");
        assert!(told(&estate, &plan, Some(&other)).is_empty());
        assert!(told(&estate, &plan, None).is_empty());
        // What has no UUID is not known by none.
        estate.guests[0].config.remove("smbios1");
        assert!(told(&estate, &plan, Some(MACHINE)).is_empty());
    }
    // What leaves it up may be done.
    let hot = estate(json!({ "vmid": 100, "name": "db" }));
    assert!(told(&hot, &hot.plan(), Some(MACHINE)).is_empty());
}

/// Nor does it go back to a snapshot, or vanish: a stopped one is not where the program runs, and is told all the same.
///
/// Seen failing with: operations that are looked at by their effect alone.
#[test]
fn it_neither_goes_back_to_a_snapshot_nor_is_deleted() {
    let mut back = estate(json!({ "vmid": 100 }));
    back.scopes[0].allow.insert(Action::RestoreSnapshot);
    let snapshot =
        pvegraph_reconcile::live::Snapshot { name: "one".to_owned(), time: Some(1), with_memory: false };
    let ask = Ask::Rollback { name: "one".to_owned(), config: None };
    for status in ["running", "stopped"] {
        back.guests[0].status = status.to_owned();
        let plan = back.snapshot(std::slice::from_ref(&snapshot), &ask);
        let told = told(&back, &plan, Some(MACHINE));
        assert!(told.len() == 1 && told[0].contains("`restore-snapshot`"), "{status}: {told:?}");
    }
    let mut gone = estate(json!({ "vmid": 100, "tombstone": true, "deletion": "destroy" }));
    gone.guests[0].status = "stopped".to_owned();
    gone.scopes[0].allow.insert(Action::Destroy);
    gone.scopes[0].max_deletes = 1;
    gone.consent.delete.insert("vm-100".to_owned());
    let told = told(&gone, &gone.plan(), Some(MACHINE));
    assert!(told.len() == 1 && told[0].contains("`destroy`"), "{told:?}");
}

/// A container shares its node's kernel, which tells no UUID of its own: its root volume is never taken for one.
///
/// Seen failing with: a `keep_up` that nobody looks at.
#[test]
fn a_container_is_kept_up_by_its_number() {
    let entry = json!({ "containers": [{ "vmid": 200, "state": "stopped" }] });
    let estate = Estate::new(whole(entry), &[container(200, "running", &[])]);
    let plan = estate.plan();
    assert!(told(&estate, &plan, Some(MACHINE)).is_empty());
    let live = there(&estate);
    let kept = forbidden(&plan, &live, &[200].into(), None);
    assert!(kept.len() == 1 && kept[0].text.contains("`keep_up`"), "{kept:?}");
}
