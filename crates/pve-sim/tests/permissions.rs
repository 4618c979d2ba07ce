//! Who sees what: listings are filtered silently, single objects refused, and pools give rights.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod support;

use pve_sim::{GuestSpec, Pool, Power, Principal, ROOT, State, Storage, Usage, World, WorldSpec};
use serde_json::{Value, json};

fn read(world: &World, who: &str, path: &str) -> Value {
    let answer = world.get_as(&Principal::parse(who), path);
    assert!(answer.is_ok(), "{who} {path}: {answer:?}");
    answer.body.to_json()["data"].clone()
}

fn refusal(world: &World, who: &str, path: &str) -> String {
    let answer = world.get_as(&Principal::parse(who), path);
    assert_eq!(answer.status, 403, "{who} {path}: {answer:?}");
    answer.reason
}

/// The estate that the pool-limited recording was made of, as far as rights go.
fn rig() -> World {
    let world = World::generate(&WorldSpec::new("rig", 2, 0, 1));
    for (vmid, node) in [(100, "pve1"), (120, "pve1"), (121, "pve1"), (101, "pve2")] {
        let spec =
            GuestSpec::qemu(vmid, &format!("vm{vmid}")).node(node).power(Power::Running).config("tags", "x");
        world.add_guest(spec.disk("scsi0", "local-lvm", 8, "")).unwrap();
    }
    world.add_guest(GuestSpec::lxc(200, "ct1").disk("rootfs", "local-lvm", 4, "")).unwrap();
    world.add_pool("prod", Pool { comment: None, storages: ["nfs-vm".to_owned()].into() });
    world.set_pool(120, Some("prod")).unwrap();
    world.set_pool(121, Some("prod")).unwrap();
    world.add_token("tenant@pve", "t", "PVEAuditor", "/pool/prod").unwrap();
    world
}

const TENANT: &str = "tenant@pve!t";

#[test]
fn a_role_on_a_pool_counts_on_its_members_without_propagating() {
    let world = rig();
    let audit = |flag: u8| {
        let names = ["Datastore.Audit", "Mapping.Audit", "Pool.Audit", "SDN.Audit", "Sys.Audit", "VM.Audit"];
        names.map(|name| (name.to_owned(), json!(flag))).into_iter().collect::<serde_json::Map<_, _>>()
    };
    let expected = json!({
        "/pool/prod": audit(1), "/storage/nfs-vm": audit(0), "/vms/120": audit(0), "/vms/121": audit(0),
    });
    assert_eq!(read(&world, TENANT, "/access/permissions"), expected);
}

#[test]
fn listings_are_filtered_and_nodes_keep_their_base_fields() {
    let world = rig();
    let rows = read(&world, TENANT, "/cluster/resources");
    let ids: Vec<&str> = rows.as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap()).collect();
    let expected = [
        "/pool/prod",
        "qemu/120",
        "qemu/121",
        "node/pve1",
        "node/pve2",
        "storage/pve1/nfs-vm",
        "storage/pve2/nfs-vm",
    ];
    assert_eq!(ids, expected);
    let keys = |row: &Value| row.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&rows[3]), ["cgroup-mode", "id", "level", "node", "status", "type"]);
    let nodes = read(&world, TENANT, "/nodes");
    assert_eq!(keys(&nodes[0]), ["id", "level", "node", "ssl_fingerprint", "status", "type"]);
    let vmids = |path: &str| {
        let rows = read(&world, TENANT, path);
        rows.as_array().unwrap().iter().map(|row| row["vmid"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(vmids("/nodes/pve1/qemu"), [120, 121]);
    assert_eq!(vmids("/nodes/pve1/qemu?full=1"), [120, 121]);
    assert!(vmids("/nodes/pve2/qemu").is_empty() && vmids("/nodes/pve1/lxc").is_empty());
    let storages = |path: &str| {
        let rows = read(&world, TENANT, path);
        rows.as_array()
            .unwrap()
            .iter()
            .map(|row| row["storage"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(storages("/storage"), ["nfs-vm"]);
    assert_eq!(storages("/nodes/pve1/storage"), ["nfs-vm"]);
    assert_eq!(read(&world, TENANT, "/pools").as_array().unwrap().len(), 1);
    // Only the index of a pool by parameter forgets to ask.
    assert_eq!(read(&world, TENANT, "/pools?poolid=test")[0]["poolid"], "test");
    let interfaces = read(&world, TENANT, "/nodes/pve1/network");
    assert!(interfaces.as_array().unwrap().iter().all(|row| row["type"] == "eth"), "{interfaces}");
}

#[test]
fn refusals_name_path_and_privilege_even_where_there_is_nothing() {
    let world = rig();
    for (path, text) in [
        ("/cluster/status", "(/, Sys.Audit)"),
        ("/cluster/backup", "(/, Sys.Audit)"),
        ("/cluster/backup-info/not-backed-up", "(/, Sys.Audit)"),
        ("/nodes/pve1/status", "(/nodes/pve1, Sys.Audit)"),
        ("/nodes/pve1/qemu/100/config", "(/vms/100, VM.Audit)"),
        ("/nodes/pve1/qemu/99999/config", "(/vms/99999, VM.Audit)"),
        ("/nodes/pve1/lxc/200/config", "(/vms/200, VM.Audit)"),
        ("/storage/nfs-vm", "(/storage/nfs-vm, Datastore.Allocate)"),
        ("/nodes/pve1/storage/local/status", "(/storage/local, Datastore.Audit|Datastore.AllocateSpace)"),
        ("/pools/test", "(/pool/test, Pool.Audit)"),
    ] {
        assert_eq!(refusal(&world, TENANT, path), format!("Permission check failed {text}"), "{path}");
    }
    assert_eq!(read(&world, TENANT, "/nodes/pve1/qemu/120/config")["name"], "vm120");
    assert_eq!(world.get("/nodes/pve1/qemu/99999/config").status, 500);
    // Rights are asked for before the way to the node: an offline node gives 403, not 595.
    world.set_node_online("pve2", false).unwrap();
    refusal(&world, TENANT, "/nodes/pve2/qemu/101/config");
}

#[test]
fn a_separated_token_holds_what_both_it_and_its_user_hold() {
    let world = rig();
    world.add_user("op@pve", "pw");
    world.grant("op@pve", "PVEVMAdmin", "/vms/100", true).unwrap();
    world.add_full_token("op@pve", "full");
    world.add_full_token("op@pve", "sep");
    world.set_privilege_separation("op@pve", "sep", true).unwrap();
    let names = |who: &str| {
        let rights = read(&world, who, "/access/permissions");
        rights["/vms/100"].as_object().map(|rights| rights.len()).unwrap_or_default()
    };
    assert_eq!((names("op@pve"), names("op@pve!full"), names("op@pve!sep")), (18, 18, 0));
    world.grant("op@pve!sep", "PVEAuditor", "/", true).unwrap();
    assert_eq!(names("op@pve!sep"), 1);
    assert_eq!(read(&world, "op@pve!sep", "/cluster/resources?type=vm")[0]["vmid"], 100);
    refusal(&world, "op@pve!sep", "/cluster/status");
    assert_eq!(
        refusal(&world, "op@pve", "/access/permissions?userid=root@pam"),
        "Permission check failed (/access, Sys.Audit)"
    );
    assert_eq!(
        read(&world, ROOT, "/access/permissions?userid=op@pve!sep&path=/vms/100"),
        json!({"/vms/100": {"VM.Audit": 1}})
    );
}

#[test]
fn root_holds_all_42_privileges_at_every_path() {
    let world = rig();
    let rights = read(&world, ROOT, "/access/permissions");
    assert!(rights.as_object().unwrap().values().all(|rights| rights.as_object().unwrap().len() == 42));
    assert!(
        rights["/vms/120"].is_object()
            && rights["/access/groups"].is_object()
            && rights["/vms/100"].is_null()
    );
}

#[test]
fn an_auditor_sees_no_disk_images() {
    let world = rig();
    let path = "/nodes/pve1/storage/local-lvm/content";
    assert_eq!(read(&world, "audit@pve!sim", path), json!([]));
    assert_eq!(read(&world, ROOT, path).as_array().unwrap().len(), 4);
    assert_eq!(read(&world, "audit@pve!sim", "/cluster/resources"), read(&world, ROOT, "/cluster/resources"));
}

#[test]
fn a_storage_may_be_for_some_nodes_or_disabled() {
    let world = rig();
    let usage = Usage { total: 100, used: 25 };
    let storage = |id: &str| Storage {
        id: id.to_owned(),
        kind: "dir".to_owned(),
        content: "images".to_owned(),
        shared: false,
        nodes: None,
        disabled: false,
        properties: serde_json::Map::new(),
        usage,
        usage_on: Default::default(),
    };
    world.update(|state: &mut State| state.storages.clear());
    world.add_storage(storage("all"));
    world.add_storage(Storage { nodes: Some(["pve2".to_owned()].into()), ..storage("only2") });
    world.add_storage(Storage { disabled: true, ..storage("off") });
    let names = |path: &str| {
        let rows = read(&world, ROOT, path);
        rows.as_array()
            .unwrap()
            .iter()
            .map(|row| row["storage"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(names("/nodes/pve1/storage"), ["all", "off", "only2"]);
    assert_eq!(names("/nodes/pve1/storage?enabled=1"), ["all", "only2"]);
    let only2 = read(&world, ROOT, "/nodes/pve1/storage/only2/status");
    assert_eq!((&only2["active"], &only2["enabled"], &only2["total"]), (&json!(0), &json!(0), &json!(0)));
    assert_eq!(names("/cluster/resources?type=storage"), ["all", "all", "only2"]);
    assert_eq!(world.get("/nodes/pve1/storage/off/content").reason, "storage 'off' is disabled");
    assert_eq!(
        world.get("/nodes/pve1/storage/only2/content").reason,
        "storage 'only2' is not available on node 'pve1'"
    );
    assert_eq!(read(&world, ROOT, "/nodes/pve2/storage?storage=all")[0]["used_fraction"], 0.25);
}

#[test]
fn the_builtin_roles_are_the_genuine_ones() {
    let Some(folder) = support::recordings("the_builtin_roles_are_the_genuine_ones") else { return };
    let genuine =
        support::estate(&folder, "root.jsonl").into_iter().find(|read| read.path == "/access/roles").unwrap();
    let roles = |rows: &Value| {
        let builtin = rows.as_array().unwrap().iter().filter(|row| row["special"] == 1);
        builtin
            .map(|row| (row["roleid"].to_string(), row["privs"].clone()))
            .collect::<std::collections::BTreeMap<_, _>>()
    };
    assert_eq!(roles(&read(&rig(), ROOT, "/access/roles")), roles(&genuine.json["data"]));
}
