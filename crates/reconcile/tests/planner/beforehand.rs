//! Snapshots before what restarts a guest or has no way back.

use pvegraph_inventory::GuestType;
use pvegraph_reconcile::apply::odd;
use pvegraph_reconcile::plan::{Action, Effect, Plan};
use serde_json::{Value, json};

use crate::estate::{Estate, blocked, container, desired, live, whole};

fn estate(entry: Value, config: &[(&str, &str)]) -> Estate {
    let mut all = vec![("digest", "abc"), ("cores", "2"), ("scsi0", "lvm:vm-100-disk-0,size=8G")];
    all.extend_from_slice(config);
    with(Estate::new(desired(vec![entry]), &[live(100, "running", &all)]))
}

/// Asked for, with storages of all kinds.
fn with(mut estate: Estate) -> Estate {
    let kinds =
        [("lvm", "lvmthin"), ("tank", "zfspool"), ("files", "dir"), ("share", "nfs"), ("thick", "lvm")];
    estate.around.storage_types = kinds.map(|(name, kind)| (name.to_owned(), kind.to_owned())).into();
    estate.consent.snapshot = true;
    estate.nonce = "0123456789abcdef";
    estate
}

fn actions(plan: &Plan) -> Vec<Action> {
    assert_eq!(blocked(plan), "");
    plan.operations.iter().map(|operation| operation.action).collect()
}

fn warned(plan: &Plan) -> String {
    plan.warnings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// Seen failing with: snapshots that come in the order of their action, after what they are there for.
#[test]
fn a_snapshot_comes_before_what_restarts_a_guest_or_has_no_way_back() {
    let restarts = json!({ "vmid": 100, "cores": 4, "reboot": "allow" });
    let plan = estate(restarts.clone(), &[]).plan();
    assert_eq!(actions(&plan), [Action::Snapshot, Action::Configure]);
    let [snapshot, change] = plan.operations.as_slice() else { panic!("{plan:?}") };
    let call = snapshot.requests[0].to_string();
    assert_eq!(call, "POST /nodes/pve1/qemu/100/snapshot snapname=before-01234567");
    assert_eq!(
        (snapshot.effect, snapshot.digest.as_deref(), change.effect),
        (Effect::Hot, Some("abc"), Effect::Restart)
    );
    assert_eq!(change.after, [1].into(), "it waits for the snapshot");
    assert_eq!((plan.restarts, warned(&plan).as_str(), odd(&plan)), (1, "", None));

    // A larger volume has no way back, and what is marked is marked first.
    let mut grows = estate(json!({ "vmid": 100, "scsi0": { "size": "9G" }, "tags": ["web"] }), &[]);
    assert_eq!(actions(&grows.plan()), [Action::Snapshot, Action::Grow, Action::Configure]);
    grows.guests[0].config.remove("tags");
    grows.consent.mark.insert("vm-100".to_owned());
    let plan = grows.plan();
    assert_eq!(actions(&plan), [Action::Mark, Action::Snapshot, Action::Grow, Action::Configure]);
    let back: Vec<bool> = plan.operations.iter().map(|operation| operation.reversible).collect();
    assert_eq!(back, [false, false, false, true], "snapshot and marker stay");
    // A restart of what waits already.
    let waits = estate(restarts, &[]).pending(100, &[("cores", Some("4"))]);
    assert_eq!(actions(&waits.plan())[0], Action::Snapshot);
}

/// Seen failing with: snapshots before every change; one before the marker.
#[test]
fn there_is_none_where_nobody_asks_or_nothing_needs_it() {
    let entry = json!({ "vmid": 100, "cores": 4, "reboot": "allow" });
    let mut unasked = estate(entry, &[]);
    unasked.consent.snapshot = false;
    assert_eq!(actions(&unasked.plan()), [Action::Configure]);
    let hot = estate(json!({ "vmid": 100, "tags": ["web"] }), &[]).plan();
    assert_eq!((actions(&hot), warned(&hot).as_str()), (vec![Action::Configure], ""));
    let mut marked = estate(json!({ "vmid": 100, "tags": ["web"] }), &[]);
    marked.guests[0].config.remove("tags");
    marked.consent.mark.insert("vm-100".to_owned());
    assert_eq!(actions(&marked.plan()), [Action::Mark, Action::Configure]);
    // What waits for a restart that is not allowed restarts nothing.
    let pending = estate(json!({ "vmid": 100, "cores": 4 }), &[]).plan();
    assert_eq!(actions(&pending), [Action::Configure]);
}

/// What has none is done all the same, and told.
///
/// Seen failing with: storages of which nothing is known that are taken for able.
#[test]
fn it_is_told_why_there_is_none() {
    let entry = || json!({ "vmid": 100, "cores": 4, "reboot": "allow" });
    for (key, volume, able) in [
        ("scsi1", "tank:vm-100-disk-1,size=8G", true),
        ("scsi1", "share:100/vm-100-disk-1.qcow2,size=8G", true),
        ("ide2", "files:iso/debian.iso,media=cdrom", true),
        ("scsi1", "files:100/vm-100-disk-1.raw,size=8G", false),
        ("scsi1", "thick:vm-100-disk-1,size=8G", false),
        ("efidisk0", "files:100/vm-100-disk-1.raw,size=528K", false),
        ("scsi1", "elsewhere:vm-100-disk-1.qcow2,size=8G", false),
        ("scsi1", "/dev/sdb,size=8G", false),
    ] {
        let plan = estate(entry(), &[(key, volume)]).plan();
        let snapshot = actions(&plan).contains(&Action::Snapshot);
        assert_eq!(snapshot, able, "{volume}");
        assert!(actions(&plan).contains(&Action::Configure));
        let told = warned(&plan);
        assert_eq!(
            told.contains("vm-100 (guest 100): `snapshot`: no snapshot is taken before it")
                && told.contains(key),
            !able,
            "{told}"
        );
    }
    let mut closed = estate(entry(), &[]);
    closed.scopes[0].allow.remove(&Action::Snapshot);
    assert_eq!(actions(&closed.plan()), [Action::Configure]);
    assert!(warned(&closed.plan()).contains("the scope lab does not allow to snapshot"));
    // A directory of the node is on no storage.
    let ct = json!({ "containers": [{ "vmid": 200, "hostname": "new", "reboot": "allow" }] });
    let mut guest =
        container(200, "running", &[("hostname", "old"), ("rootfs", "lvm:vm-200-disk-0,size=8G")]);
    guest.config.insert("rootfs".to_owned(), "lvm:vm-200-disk-0,size=8G".to_owned());
    let plan = with(Estate::new(whole(ct.clone()), &[guest.clone()])).plan();
    assert_eq!(actions(&plan), [Action::Snapshot, Action::Configure]);
    assert_eq!(plan.operations[0].kind, GuestType::Lxc);
    guest.config.insert("mp0".to_owned(), "/srv,mp=/srv".to_owned());
    let plan = with(Estate::new(whole(ct), &[guest])).plan();
    assert_eq!(actions(&plan), [Action::Configure]);
    assert!(warned(&plan).contains("mp0"), "{}", warned(&plan));
}

/// Proxmox VE would refuse what comes after it.
///
/// Seen failing with: snapshots that ask for the storages alone.
#[test]
fn there_is_none_before_what_snapshots_are_in_the_way_of() {
    let restarts = |mut entry: Value| {
        entry["vmid"] = json!(100);
        entry["cores"] = json!(4);
        entry["reboot"] = json!("allow");
        entry
    };
    for (entry, word) in [
        (restarts(json!({ "scsi0": { "storage": "tank" } })), "moved"),
        (restarts(json!({ "node": "pve2" })), "migrate"),
    ] {
        let plan = estate(entry, &[]).plan();
        assert!(!actions(&plan).contains(&Action::Snapshot), "{word}");
        assert!(warned(&plan).contains(word), "{word}: {}", warned(&plan));
    }
    let mut stopped = estate(json!({ "vmid": 100, "template": true }), &[]);
    stopped.guests[0].status = "stopped".to_owned();
    stopped.scopes[0].allow.insert(Action::Template);
    assert_eq!(actions(&stopped.plan()), [Action::Template]);
    assert!(warned(&stopped.plan()).contains("template"));
    // One that is a template already.
    stopped.desired = desired(vec![json!({ "vmid": 100, "scsi0": { "size": "9G" } })]);
    stopped.guests[0].config.insert("template".to_owned(), "1".to_owned());
    assert_eq!(actions(&stopped.plan()), [Action::Grow]);
    assert!(warned(&stopped.plan()).contains("template"));
    let mut gone = estate(json!({ "vmid": 100, "tombstone": true, "deletion": "destroy" }), &[]);
    gone.guests[0].status = "stopped".to_owned();
    gone.scopes[0].allow.insert(Action::Destroy);
    gone.scopes[0].max_deletes = 1;
    gone.consent.delete.insert("vm-100".to_owned());
    assert_eq!(actions(&gone.plan()), [Action::Destroy]);
    assert!(warned(&gone.plan()).contains("deleted"));
}
