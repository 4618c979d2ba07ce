//! What a guest's snapshots become.
#![allow(clippy::unwrap_used, reason = "an answer that is none ends the test")]

use pve_client::answers;
use pve_client::wire;
use pvegraph_inventory::{Observed, Snapshot, build};
use serde_json::{Value, json};

fn snapshots(answer: Value) -> Vec<Snapshot> {
    let rows = wire::read::<Vec<answers::Snapshot>>("/nodes/pve1/qemu/100/snapshot", &answer).unwrap().value;
    build::snapshots(100, &rows)
}

fn named<'a>(snapshots: &'a [Snapshot], name: &str) -> &'a Snapshot {
    snapshots.iter().find(|snapshot| snapshot.name == name).unwrap()
}

#[test]
fn a_rolled_back_chain_says_where_the_guest_is() {
    let all = snapshots(json!([
        { "name": "s2", "parent": "s1", "snaptime": 1_795_243_217_u64, "vmstate": 1, "description": "a secret" },
        { "name": "s1", "snaptime": 1_795_243_171_u64, "vmstate": 0, "description": "first" },
        { "name": "current", "parent": "s1", "running": 0, "description": "You are here!", "digest": "cb0f44" },
    ]));
    assert_eq!(all.len(), 2);
    let (one, two) = (named(&all, "s1"), named(&all, "s2"));
    assert_eq!((one.parent.as_deref(), one.current, one.with_memory), (None, true, false));
    assert_eq!((two.parent.as_deref(), two.current, two.with_memory), (Some("s1"), false, true));
    assert_eq!((two.vmid, two.created_at), (100, Some(1_795_243_217)));
    assert!(!format!("{all:?}").contains("secret"));
}

#[test]
fn a_guest_without_snapshots_has_none() {
    assert_eq!(snapshots(json!([{ "name": "current", "running": 1, "description": "You are here!" }])), []);
}

/// A container's rows have no `vmstate`, and a configuration without a time is told as 0.
#[test]
fn what_pve_does_not_say_is_not_made_up() {
    let all = snapshots(
        json!([{ "name": "s", "snaptime": 0, "description": "" }, { "name": "current", "parent": "s" }]),
    );
    let one = named(&all, "s");
    assert_eq!((one.created_at, one.with_memory, one.current), (None, false, true));
    assert_eq!(one.unseen, Vec::<&str>::new());
}

#[test]
fn what_is_not_understood_is_unseen() {
    let all = snapshots(json!([
        { "name": "a", "parent": [7], "snaptime": "soon", "vmstate": "perhaps" },
        { "name": "b", "parent": "a", "snaptime": 1, "vmstate": 0 },
        { "name": "current", "parent": { "name": "b" } },
    ]));
    let unseen = |snapshot: &Snapshot| {
        ["parent", "created_at", "with_memory", "current"].map(|property| snapshot.is_unseen(property))
    };
    assert_eq!(unseen(named(&all, "a")), [true; 4]);
    assert_eq!(unseen(named(&all, "b")), [false, false, false, true]);
    // Without its row it is not known where the guest is.
    let all = snapshots(json!([{ "name": "b", "snaptime": 1 }]));
    assert_eq!(unseen(named(&all, "b")), [false, false, false, true]);
}
