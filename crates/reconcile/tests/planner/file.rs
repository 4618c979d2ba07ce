//! The plan file.

use pvegraph_reconcile::plan::{FileError, Plan};
use serde_json::{Value, json};

use crate::estate::{Estate, desired, live};

fn plan() -> Plan {
    estate().plan()
}

fn estate() -> Estate {
    let guests = [live(100, "running", &[("cores", "2"), ("digest", "abc")])];
    Estate::new(desired(vec![json!({ "vmid": 100, "cores": 4, "description": "hunter2" })]), &guests)
}

/// A plan is for one run, and known by its hash: two that were made in one second of the same are two.
///
/// Seen failing with: a nonce that does not come into the plan.
#[test]
fn two_plans_of_the_same_in_one_second_have_two_hashes() {
    let (one, other) = (estate().plan(), Estate { nonce: "other", ..estate() }.plan());
    assert_ne!(one.sha256(), other.sha256());
    assert_eq!(one.sha256(), estate().plan().sha256());
    assert_eq!(Plan { nonce: one.nonce.clone(), ..other }, one);
}

/// Of two new machines that were planned for in one second each is known by a UUID of its own.
///
/// Seen failing with: a UUID of number, time and generation.
#[test]
fn two_plans_of_one_second_make_two_machines() {
    let new = || {
        let new = json!({ "vmid": 300, "node": "pve1", "scsi0": { "storage": "local-lvm", "size": "4G" } });
        Estate::new(desired(vec![new]), &[])
    };
    let (one, other) = (new().plan(), Estate { nonce: "other", ..new() }.plan());
    assert_eq!(crate::estate::blocked(&one), "");
    assert!(one.operations[0].fingerprint.is_some());
    assert_ne!(one.operations[0].fingerprint, other.operations[0].fingerprint);
}

#[test]
fn a_file_comes_back_as_it_was_written() {
    let plan = plan();
    assert_eq!(plan.operations.len(), 1);
    let text = plan.to_file();
    assert_eq!(Plan::from_file(&text, 1_000).unwrap(), plan);
    assert_eq!(Plan::from_file(&text, plan.expires_at - 1).unwrap(), plan);
    assert!(!text.contains("hunter2") && !text.contains("\": ") && !text.contains('\n'), "{text}");
    // Its form is nobody's matter, as long as it says the same.
    let value: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(Plan::from_file(&serde_json::to_string_pretty(&value).unwrap(), 1_000).unwrap(), plan);
    assert_eq!(value["sha256"], plan.sha256());
}

#[test]
fn a_stale_plan_file_is_refused() {
    let plan = plan();
    let error = Plan::from_file(&plan.to_file(), plan.expires_at + 7).unwrap_err();
    assert_eq!(error, FileError::Stale { ago: 7 });
    assert!(error.to_string().contains("plan again"));
    assert_eq!(Plan::from_file(&plan.to_file(), 800).unwrap_err(), FileError::Future { ahead: 200 });
}

#[test]
fn an_edited_plan_file_is_refused_whatever_was_edited() {
    let whole: Value = serde_json::from_str(&plan().to_file()).unwrap();
    let edits: [(&str, Value); 5] = [
        ("/plan/operations/0/vmid", json!(101)),
        ("/plan/operations/0/requests/0/set/cores", json!("8")),
        ("/plan/operations/0/digest", json!(null)),
        ("/plan/expires_at", json!(9_999_999)),
        ("/sha256", json!("0")),
    ];
    for (pointer, value) in edits {
        let mut edited = whole.clone();
        *edited.pointer_mut(pointer).unwrap() = value;
        let error = Plan::from_file(&edited.to_string(), 1_000).unwrap_err();
        assert!(matches!(error, FileError::Edited { .. }), "{pointer}: {error}");
        assert!(error.to_string().contains("plan again"));
    }
}

#[test]
fn a_plan_file_of_another_version_and_what_is_none_are_refused() {
    let mut whole: Value = serde_json::from_str(&plan().to_file()).unwrap();
    whole["version"] = json!(2);
    let error = Plan::from_file(&whole.to_string(), 1_000).unwrap_err();
    assert_eq!(error, FileError::Version { found: 2 });
    for text in ["", "hunter2", "{}", "[]", "{\"format\":\"pvegraph-plan\",\"version\":3}"] {
        let error = Plan::from_file(text, 1_000).unwrap_err();
        assert!(matches!(error, FileError::NoPlan(_)), "{text}: {error}");
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}
