//! What no plan does, whatever is desired, and what no plan file makes this program do: the cluster's own things are not managed, and
//! some parameters of Proxmox VE's do more than anybody desires.

use pvegraph_reconcile::apply::{is_known, odd};
use pvegraph_reconcile::plan::{Action, FormValue, Method, Plan};
use serde_json::{Value, json};

use crate::estate::{Estate, blocked, container, desired, live, whole};

/// Parameters that allocate over, take over, restore, free or go past a lock; `bpg#1763` for the third.
const NEVER: [&str; 11] = [
    "archive",
    "background_delay",
    "destroy-unreferenced-disks",
    "force",
    "import-from",
    "purge",
    "revert",
    "skiplock",
    "target-disk",
    "target-vmid",
    "unique",
];

/// Nothing of these is in the plan's calls, nor is `lock` set or removed, nor anything but a guest asked.
fn harmless(plan: &Plan) {
    assert_eq!(odd(plan), None);
    for request in plan.operations.iter().flat_map(|operation| &operation.requests) {
        for (name, value) in &request.set {
            let off = *value == FormValue::Plain("0".to_owned());
            assert!(!NEVER.contains(&name.as_str()) || off, "{request}");
            assert!(name != "lock" && !value.to_string().contains("import-from"), "{request}");
        }
        assert!(!request.delete.contains("lock"), "{request}");
        let of_guest = ["/qemu", "/lxc"].iter().any(|kind| request.path.contains(kind));
        assert!(of_guest || request.path.starts_with("/cluster/ha/resources/"), "{request}");
    }
}

fn everything(config: &[(&str, &str)], status: &str, entry: Value) -> Plan {
    let mut entry = entry;
    entry["vmid"] = json!(100);
    let mut estate = Estate::new(desired(vec![entry]), &[live(100, status, config)]);
    estate.scopes[0].allow.extend(Action::ALL);
    estate.scopes[0].max_deletes = 1;
    estate
        .consent
        .delete
        .extend(estate.desired.guests.values().filter(|one| one.tombstone).map(|one| one.uid.clone()));
    estate.plan()
}

/// Seen failing with: a deletion that asks for unreferenced disks too; a container that is configured by POST.
#[test]
fn no_plan_does_more_than_is_desired() {
    let has: &[(&str, &str)] = &[
        ("digest", "abc"),
        ("cores", "2"),
        ("net0", "virtio=BC:24:11:00:00:01,bridge=vmbr0"),
        ("scsi0", "lvm:vm-100-disk-0,size=8G"),
        ("scsi1", "lvm:vm-100-disk-1,size=8G"),
    ];
    let cases = [
        (
            "running",
            json!({ "scsi0": { "size": "9G", "storage": "ceph" }, "unset": ["scsi1"], "tags": ["a"], "net0": { "tag": 5 } }),
        ),
        ("running", json!({ "node": "pve2", "local_disks": "migrate", "cores": 4, "reboot": "allow" })),
        ("running", json!({ "state": "stopped" })),
        ("stopped", json!({ "state": "running", "scsi2": { "storage": "lvm", "size": "4G" } })),
        ("stopped", json!({ "template": true })),
        ("stopped", json!({ "tombstone": true, "deletion": "destroy" })),
    ];
    for (status, entry) in cases {
        let plan = everything(has, status, entry.clone());
        assert!(blocked(&plan).is_empty() && !plan.operations.is_empty(), "{entry}: {}", blocked(&plan));
        harmless(&plan);
    }
    // New ones, and a container.
    let new = json!({
        "vms": [{ "uid": "new", "node": "pve1", "scsi0": { "storage": "lvm", "size": "4G" }, "net0": { "model": "virtio", "bridge": "vmbr0" } }],
        "containers": [{ "vmid": 200, "hostname": "web", "memory": 1024 }],
    });
    let plan = Estate::new(whole(new), &[container(200, "running", &[("hostname", "ct")])]).plan();
    assert_eq!((blocked(&plan).as_str(), plan.operations.len()), ("", 2));
    harmless(&plan);
    // A container's configuration is not written by POST, which it has not.
    let configures = |one: &&pvegraph_reconcile::plan::Operation| one.action == Action::Configure;
    assert_eq!(plan.operations.iter().find(configures).unwrap().requests[0].method, Method::Put);
}

/// Node networks, firewalls, pools and backup jobs are not managed: a file that says otherwise is refused.
///
/// Seen failing with: calls that are taken wherever they go, and whatever they are.
#[test]
fn no_plan_file_reaches_beyond_its_guests() {
    let plan = everything(&[("digest", "abc"), ("cores", "2")], "running", json!({ "cores": 4 }));
    assert_eq!(odd(&plan), None);
    for (method, path) in [
        (Method::Put, "/nodes/pve1/network"),
        (Method::Put, "/nodes/pve1/network/vmbr0"),
        (Method::Delete, "/nodes/pve1/network"),
        (Method::Post, "/nodes/pve1/qemu/100/firewall/rules"),
        (Method::Delete, "/nodes/pve1/qemu/100/firewall/rules/0"),
        (Method::Post, "/cluster/firewall/rules"),
        (Method::Put, "/pools"),
        (Method::Put, "/pools/lab"),
        (Method::Put, "/cluster/backup/jobs"),
        (Method::Delete, "/cluster/backup/jobs"),
        (Method::Delete, "/cluster/ha/resources/vm:100"),
        (Method::Put, "/cluster/ha/rules/apart"),
        (Method::Put, "/nodes/pve1/qemu/100/unlink"),
        (Method::Delete, "/nodes/pve1/qemu/100/snapshot/before"),
        (Method::Put, "/access/acl"),
    ] {
        let mut forged = plan.clone();
        forged.operations[0].requests[0].method = method;
        forged.operations[0].requests[0].path = path.to_owned();
        // Either of the two ends the command before anything is sent.
        assert!(!is_known(&forged.operations[0].requests[0]), "{method} {path}");
        if !path.starts_with("/cluster/ha/resources/") {
            assert!(odd(&forged).is_some_and(|told| told.contains("vm-100, guest 100")), "{method} {path}");
        }
    }
}
