//! The genuine recordings, sent to the simulator: it agrees with all but those listed, each of which has its reason.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod support;

use std::collections::BTreeSet;

use pve_sim::replay::{Recording, Verdict, judge, replay};
use support::recordings;

/// Line and request of each exception.
fn exceptions() -> BTreeSet<String> {
    let lines = include_str!("replay-exceptions.txt").lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (request, reason) = line.split_once(" | ").unwrap_or_else(|| panic!("no reason: {line}"));
            assert!(reason.len() > 10, "{line}");
            request.to_owned()
        })
        .collect()
}

#[test]
fn genuine_answers_are_agreed_with() {
    let Some(folder) = recordings("genuine_answers_are_agreed_with") else { return };
    let report = replay(&folder.join("recordings.jsonl")).unwrap();
    let (agreed, differing, not_covered) = report.counts();
    println!("{report}");
    let listed = exceptions();
    let found: BTreeSet<String> = report
        .verdicts
        .iter()
        .filter(|(.., verdict)| *verdict != Verdict::Agrees)
        .map(|(number, name, _)| format!("{number} {}", name.rsplit_once("] ").unwrap().1))
        .collect();
    assert_eq!(found, listed, "left: what does not agree; right: what is listed");
    assert!(agreed + differing >= 600 && not_covered == 0);
}

/// The comparison would see a wrong status, a wrong reason and a wrong type.
#[test]
fn a_changed_recording_is_not_agreed_with() {
    let line = |status: u16, reason: &str, json: serde_json::Value| {
        let text = serde_json::json!({
            "auth": "root@pam (ticket)", "method": "GET", "path": "/api2/json/nodes/a/qemu/100/config", "params": null,
            "request_body": null, "status": status, "reason": reason, "json": json,
        });
        judge(&serde_json::from_value::<Recording>(text).unwrap())
    };
    let config = serde_json::json!({"data": {"cores": 2, "digest": "x", "name": "a"}});
    assert_eq!(line(200, "OK", config.clone()), Verdict::Agrees);
    assert!(matches!(line(403, "Permission check failed (/vms/100, VM.Audit)", config), Verdict::Differs(_)));
    let typed = serde_json::json!({"data": {"cores": 2, "digest": 7, "name": "a"}});
    assert!(matches!(line(200, "OK", typed), Verdict::Differs(_)));
    let text = "Configuration file 'nodes/a/qemu-server/100.conf' does not exist";
    let body = serde_json::json!({"data": null, "message": format!("{text}\n")});
    assert_eq!(line(500, text, body.clone()), Verdict::Agrees);
    assert!(matches!(
        line(500, "something else does not exist, a Configuration file", body),
        Verdict::Differs(_)
    ));
}

/// The same estate as three callers see it: at least 95 of 100 answers agree. What differs hangs on what was measured, such
/// as how busy a disk has been.
#[test]
fn recorded_estates_are_agreed_with() {
    let Some(folder) = recordings("recorded_estates_are_agreed_with") else { return };
    let callers = [
        ("root.jsonl", "root@pam (ticket)"),
        ("auditor.jsonl", "audit@pve!tk (token)"),
        ("pool-limited.jsonl", "tenant@pve!tk (token)"),
    ];
    for (file, caller) in callers {
        let (mut all, mut agreed) = (0, 0);
        for read in support::estate(&folder, file) {
            let (path, query) = read.path.split_once('?').unwrap_or((&read.path, ""));
            let parameters: serde_json::Map<String, serde_json::Value> = query
                .split('&')
                .filter_map(|pair| pair.split_once('='))
                .map(|(name, value)| (name.to_owned(), value.into()))
                .collect();
            let line = serde_json::json!({
                "auth": caller, "method": "GET", "path": format!("/api2/json{path}"), "params": parameters,
                "request_body": null, "status": read.status, "reason": read.reason, "json": read.json,
            });
            let verdict = judge(&serde_json::from_value::<Recording>(line).unwrap());
            all += 1;
            if verdict == Verdict::Agrees {
                agreed += 1;
            } else {
                println!("{file} {}: {verdict:?}", read.path);
            }
        }
        assert!(agreed * 100 >= all * 95, "{file}: {agreed} of {all} agree");
    }
}
