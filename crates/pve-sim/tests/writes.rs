//! Writes as PVE does them: each test is one of its rules.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use pve_sim::{GuestSpec, Power, World, WorldSpec};
use serde_json::{Value, json};

#[path = "support/calls.rs"]
mod calls;

use calls::{ROOT, call, ok};

fn world() -> World {
    let world = World::generate(&WorldSpec::new("rig", 2, 0, 3));
    let spec = GuestSpec::qemu(100, "web").node("pve1").disk("scsi0", "nfs-vm", 8, "");
    world
        .add_guest(spec.config("net0", "virtio=BC:24:11:00:00:01,bridge=vmbr0").config("tags", "prod"))
        .unwrap();
    world.add_guest(GuestSpec::lxc(200, "ct").node("pve1").disk("rootfs", "local-lvm", 4, "")).unwrap();
    world
}

fn refused(world: &World, method: &str, path: &str, parameters: &[(&str, &str)]) -> (u16, String) {
    let answer = call(world, ROOT, method, path, parameters);
    (answer.status, answer.reason)
}

/// The exit status of the task that an answer names.
fn exit(world: &World, upid: &Value) -> String {
    let upid = upid.as_str().unwrap();
    let node = upid.split(':').nth(1).unwrap();
    let status = ok(world, "GET", &format!("/nodes/{node}/tasks/{upid}/status"), &[]);
    status["exitstatus"].as_str().unwrap_or("running").to_owned()
}

fn task(world: &World, method: &str, path: &str, parameters: &[(&str, &str)]) -> String {
    exit(world, &ok(world, method, path, parameters))
}

const VM: &str = "/nodes/pve1/qemu/100";

fn config(world: &World) -> Value {
    ok(world, "GET", &format!("{VM}/config"), &[("current", "1")])
}

#[test]
fn a_guest_is_created_cloned_configured_and_destroyed() {
    let world = world();
    let made = [
        ("vmid", "101"),
        ("name", "new"),
        ("scsi0", "local-lvm:4"),
        ("net0", "virtio,bridge=vmbr0"),
        ("cores", "2"),
    ];
    assert_eq!(task(&world, "POST", "/nodes/pve1/qemu", &made), "OK");
    let config = ok(&world, "GET", "/nodes/pve1/qemu/101/config", &[]);
    assert_eq!((&config["cores"], &config["boot"]), (&json!(2), &json!("order=scsi0;net0")));
    assert_eq!(config["scsi0"], "local-lvm:vm-101-disk-0,size=4G");
    assert!(config["net0"].as_str().unwrap().starts_with("virtio=BC:24:11:"), "{config}");
    let text = "unable to create VM 101 - VM 101 already exists on node 'pve1'";
    assert_eq!(refused(&world, "POST", "/nodes/pve1/qemu", &made), (500, text.to_owned()));

    let clone = [("newid", "102"), ("full", "1"), ("name", "copy")];
    assert_eq!(task(&world, "POST", "/nodes/pve1/qemu/101/clone", &clone), "OK");
    let copy = ok(&world, "GET", "/nodes/pve1/qemu/102/config", &[]);
    assert_eq!((&copy["name"], &copy["cores"]), (&json!("copy"), &json!(2)));
    for key in ["net0", "smbios1", "vmgenid", "scsi0"] {
        assert_ne!(copy[key], config[key], "{key}");
    }
    assert_eq!(task(&world, "DELETE", "/nodes/pve1/qemu/102", &[]), "OK");
    let gone = "Configuration file 'nodes/pve1/qemu-server/102.conf' does not exist";
    assert_eq!(refused(&world, "GET", "/nodes/pve1/qemu/102/config", &[]), (500, gone.to_owned()));
}

#[test]
fn a_stale_digest_is_refused_and_every_change_makes_another() {
    let world = world();
    let digest = config(&world)["digest"].as_str().unwrap().to_owned();
    ok(&world, "PUT", &format!("{VM}/config"), &[("cores", "4"), ("digest", &digest)]);
    let stale = refused(&world, "PUT", &format!("{VM}/config"), &[("cores", "2"), ("digest", &digest)]);
    assert_eq!(stale, (500, "checksum mismatch (file change by other user?)".to_owned()));
    let before = config(&world)["digest"].clone();
    ok(&world, "POST", &format!("{VM}/snapshot"), &[("snapname", "one")]);
    assert_ne!(config(&world)["digest"], before, "a snapshot changes the file");
}

#[test]
fn a_running_vm_keeps_what_is_not_hot_for_its_next_start() {
    let world = world();
    world.set_power(100, Power::Running).unwrap();
    ok(&world, "PUT", &format!("{VM}/config"), &[("cores", "4"), ("description", "now"), ("tags", "B,a;b")]);
    let now = config(&world);
    assert_eq!((&now["cores"], &now["description"], &now["tags"]), (&json!(1), &json!("now"), &json!("a;b")));
    assert_eq!(ok(&world, "GET", &format!("{VM}/config"), &[])["cores"], 4, "shown as if it were applied");
    let pending = ok(&world, "GET", &format!("{VM}/pending"), &[]);
    assert!(
        pending.as_array().unwrap().contains(&json!({"key": "cores", "pending": 4, "value": 1})),
        "{pending}"
    );
    assert_eq!(task(&world, "POST", &format!("{VM}/status/stop"), &[]), "OK");
    assert_eq!(config(&world)["cores"], 4);
}

#[test]
fn a_detached_disk_becomes_unused_and_comes_back() {
    let world = world();
    let volume = config(&world)["scsi0"].as_str().unwrap().split(',').next().unwrap().to_owned();
    ok(&world, "PUT", &format!("{VM}/config"), &[("delete", "scsi0")]);
    assert_eq!(config(&world)["unused0"], volume.as_str());
    ok(&world, "PUT", &format!("{VM}/config"), &[("virtio1", &volume)]);
    let config = config(&world);
    assert!(
        config.get("unused0").is_none() && config["virtio1"].as_str().unwrap().starts_with(&volume),
        "{config}"
    );
}

#[test]
fn allocating_over_a_disk_keeps_the_old_one_as_unused() {
    let world = world();
    let old = config(&world)["scsi0"].as_str().unwrap().split(',').next().unwrap().to_owned();
    ok(&world, "PUT", &format!("{VM}/config"), &[("scsi0", "nfs-vm:32")]);
    let config = config(&world);
    assert_eq!(config["unused0"], old.as_str());
    assert_eq!(config["scsi0"], "nfs-vm:100/vm-100-disk-1.raw,size=32G");
}

#[test]
fn a_card_without_an_address_gets_a_new_one() {
    let world = world();
    let old = config(&world)["net0"].clone();
    ok(&world, "PUT", &format!("{VM}/config"), &[("net0", "virtio,bridge=vmbr0")]);
    assert_ne!(config(&world)["net0"], old);
    // A card is no volume: nothing of it stays.
    ok(&world, "PUT", &format!("{VM}/config"), &[("delete", "net0")]);
    let config = config(&world);
    assert!(config.get("net0").is_none() && config.get("unused0").is_none(), "{config}");
}

#[test]
fn updates_are_refused_as_pve_refuses_them() {
    let world = world();
    let path = format!("{VM}/config");
    let errors = |parameters: &[(&str, &str)]| {
        let answer = call(&world, ROOT, "PUT", &path, parameters);
        (answer.status, answer.body.to_json()["errors"].clone())
    };
    assert_eq!(refused(&world, "PUT", &path, &[]), (500, "no options specified".to_owned()));
    assert_eq!(errors(&[("delete", "nosuch")]), (400, json!({"delete": "unknown option 'nosuch'"})));
    assert_eq!(errors(&[("onboot", "yes")]).1["onboot"], "type check ('boolean') failed - got 'yes'");
    assert_eq!(errors(&[("include_ram", "1")]).0, 400);
    ok(&world, "PUT", &path, &[("lock", "backup")]);
    assert_eq!(refused(&world, "PUT", &path, &[("cores", "2")]), (500, "VM is locked (backup)".to_owned()));
    assert_eq!(task(&world, "POST", &format!("{VM}/status/start"), &[]), "VM is locked (backup)");
    assert_eq!(call(&world, ROOT, "POST", "/nodes/pve1/lxc/200/config", &[("cores", "1")]).status, 501);
}

#[test]
fn disks_only_grow() {
    let world = world();
    let resize =
        |size: &str| task(&world, "PUT", &format!("{VM}/resize"), &[("disk", "scsi0"), ("size", size)]);
    assert_eq!(resize("+1G"), "OK");
    assert_eq!(resize("9G"), "OK", "a VM's disk takes its own size again");
    assert_eq!(resize("4G"), "shrinking disks is not supported");
    assert!(config(&world)["scsi0"].as_str().unwrap().ends_with("size=9G"));
    let size = [("disk", "rootfs"), ("size", "4G")];
    assert_ne!(task(&world, "PUT", "/nodes/pve1/lxc/200/resize", &size), "OK", "a container's does not");
}

#[test]
fn snapshots_bring_back_the_old_configuration() {
    let world = world();
    ok(&world, "PUT", &format!("{VM}/config"), &[("scsi0", "nfs-vm:8,format=qcow2"), ("delete", "unused0")]);
    assert_eq!(task(&world, "POST", &format!("{VM}/snapshot"), &[("snapname", "one")]), "OK");
    let taken = task(&world, "POST", &format!("{VM}/snapshot"), &[("snapname", "one")]);
    assert_eq!(taken, "snapshot name 'one' already used");
    ok(
        &world,
        "PUT",
        &format!("{VM}/config"),
        &[("tags", "later"), ("cores", "8"), ("description", "stays")],
    );
    assert_eq!(task(&world, "POST", &format!("{VM}/snapshot/one/rollback"), &[]), "OK");
    assert_eq!(config(&world)["description"], "stays");
    assert_eq!((&config(&world)["tags"], &config(&world)["cores"]), (&json!("prod"), &json!(1)));
    let template = refused(&world, "POST", &format!("{VM}/template"), &[]);
    assert_eq!(template, (500, "unable to create template, because VM contains snapshots".to_owned()));
    assert_eq!(task(&world, "DELETE", &format!("{VM}/snapshot/one"), &[]), "OK");
    assert_eq!(task(&world, "POST", &format!("{VM}/template"), &[]), "OK");
    let start = task(&world, "POST", &format!("{VM}/status/start"), &[]);
    assert_eq!(start, "you can't start a vm if it's a template");
}

#[test]
fn a_linked_clone_keeps_its_template() {
    let world = world();
    ok(&world, "POST", &format!("{VM}/template"), &[]);
    assert_eq!(
        call(&world, ROOT, "POST", &format!("{VM}/clone"), &[("newid", "101"), ("storage", "nfs-vm")]).status,
        500
    );
    assert_eq!(task(&world, "POST", &format!("{VM}/clone"), &[("newid", "101")]), "OK");
    let exit = task(&world, "DELETE", VM, &[]);
    assert!(exit.starts_with("base volume 'nfs-vm:100/base-100-disk-0"), "{exit}");
}

#[test]
fn destruction_refuses_protected_running_and_managed_guests() {
    let world = world();
    ok(&world, "PUT", &format!("{VM}/config"), &[("protection", "1")]);
    assert_eq!(refused(&world, "DELETE", VM, &[]).1, "can't remove VM 100 - protection mode enabled");
    ok(&world, "PUT", &format!("{VM}/config"), &[("protection", "0")]);
    world.set_power(100, Power::Running).unwrap();
    assert_eq!(refused(&world, "DELETE", VM, &[]).1, "VM 100 is running - destroy failed");
    world.set_power(100, Power::Stopped).unwrap();
    ok(&world, "POST", "/cluster/ha/resources", &[("sid", "vm:100"), ("state", "stopped")]);
    let managed = "unable to remove VM 100 - used in HA resources and purge parameter not set.";
    assert_eq!(refused(&world, "DELETE", VM, &[]).1, managed);
    ok(
        &world,
        "POST",
        "/cluster/backup",
        &[("id", "jobs"), ("vmid", "100,200"), ("schedule", "daily"), ("storage", "local")],
    );
    assert_eq!(task(&world, "DELETE", VM, &[("purge", "1")]), "OK");
    assert_eq!(ok(&world, "GET", "/cluster/backup/jobs", &[])["vmid"], "200");
}

#[test]
fn ha_takes_orders_and_follows_them_later() {
    let world = world();
    world.set_ha(100, Some("stopped")).unwrap();
    world.set_time_scale(1.0);
    let upid = ok(&world, "POST", &format!("{VM}/status/start"), &[]);
    assert!(upid.as_str().unwrap().contains(":hastart:"));
    let status = || ok(&world, "GET", &format!("{VM}/status/current"), &[])["status"].clone();
    world.advance_clock(2);
    assert_eq!(
        (exit(&world, &upid).as_str(), status()),
        ("OK", json!("stopped")),
        "the task ends before the guest moves"
    );
    world.advance_clock(20);
    assert_eq!(status(), "running");
}

#[test]
fn a_task_takes_its_time_and_locks() {
    let world = world();
    world.set_time_scale(1.0);
    let upid = ok(&world, "POST", "/nodes/pve1/vzdump", &[("vmid", "100"), ("storage", "local")]);
    assert_eq!(exit(&world, &upid), "running");
    assert_eq!(config(&world)["lock"], "backup");
    let active = ok(&world, "GET", "/nodes/pve1/tasks", &[("source", "active")]);
    assert_eq!(active[0]["status"], "RUNNING");
    assert_eq!(refused(&world, "PUT", &format!("{VM}/config"), &[("cores", "2")]).1, "VM is locked (backup)");
    world.advance_clock(60);
    assert_eq!(exit(&world, &upid), "OK");
    assert!(config(&world).get("lock").is_none());
    let backups = ok(&world, "GET", "/nodes/pve1/storage/local/content", &[("content", "backup")]);
    assert_eq!(backups[0]["vmid"], 100);
    let stopped = ok(&world, "POST", "/nodes/pve1/vzdump", &[("vmid", "100"), ("storage", "local")]);
    ok(&world, "DELETE", &format!("/nodes/pve1/tasks/{}", stopped.as_str().unwrap()), &[]);
    assert_eq!(exit(&world, &stopped), "unexpected status");
    assert_eq!(config(&world)["lock"], "backup", "a lock whose task was broken off stays");
}

#[test]
fn migrations_need_a_way() {
    let world = world();
    let go = |parameters: &[(&str, &str)]| call(&world, ROOT, "POST", &format!("{VM}/migrate"), parameters);
    assert_eq!(go(&[("target", "pve1")]).body.to_json()["errors"]["target"], "target is local node.");
    assert_eq!(go(&[("target", "pve9")]).reason, "no such cluster node 'pve9'");
    world.set_power(100, Power::Running).unwrap();
    assert_eq!(go(&[("target", "pve2")]).reason, "can't migrate running VM without --online");
    assert_eq!(task(&world, "POST", &format!("{VM}/migrate"), &[("target", "pve2"), ("online", "1")]), "OK");
    assert_eq!(ok(&world, "GET", "/nodes/pve2/qemu/100/status/current", &[])["status"], "running");
}

#[test]
fn new_firewall_rules_come_first_and_off() {
    let world = world();
    let path = format!("{VM}/firewall/rules");
    ok(&world, "POST", &path, &[("type", "in"), ("action", "ACCEPT"), ("comment", "old"), ("enable", "1")]);
    ok(&world, "POST", &path, &[("type", "out"), ("action", "DROP")]);
    let rules = ok(&world, "GET", &path, &[]);
    assert_eq!(
        (&rules[0]["action"], &rules[0]["enable"], &rules[0]["pos"]),
        (&json!("DROP"), &json!(0), &json!(0))
    );
    assert_eq!(ok(&world, "GET", &format!("{path}/1"), &[])["pos"], "1", "text, for a single rule");
    ok(&world, "PUT", &format!("{path}/0"), &[("moveto", "2"), ("comment", "ignored")]);
    let moved = ok(&world, "GET", &path, &[]);
    assert_eq!(moved[0]["comment"], "old");
    assert!(moved[1].get("comment").is_none());
    assert_ne!(moved[0]["digest"], rules[0]["digest"]);
}

#[test]
fn network_edits_wait_together_and_a_missing_address_makes_an_interface_manual() {
    let world = world();
    let path = "/nodes/pve1/network";
    ok(&world, "PUT", &format!("{path}/vmbr0"), &[("type", "bridge"), ("bridge_ports", "eno1")]);
    assert_eq!(ok(&world, "GET", &format!("{path}/vmbr0"), &[])["method"], "manual");
    ok(&world, "DELETE", path, &[]);
    assert_eq!(ok(&world, "GET", &format!("{path}/vmbr0"), &[])["method"], "static");
    ok(&world, "POST", path, &[("iface", "vmbr7"), ("type", "bridge"), ("cidr", "10.7.0.1/24")]);
    assert_eq!(task(&world, "PUT", path, &[]), "OK");
    ok(&world, "DELETE", path, &[]);
    assert_eq!(
        ok(&world, "GET", &format!("{path}/vmbr7"), &[])["netmask"],
        "24",
        "a reload cannot be undone"
    );
}

#[test]
fn rights_are_asked_for_option_by_option() {
    let world = world();
    world.add_user("op@pve", "operator-pw");
    world.grant("op@pve", "PVEVMUser", "/vms/100", true).unwrap();
    let put = |parameters: &[(&str, &str)]| {
        let answer = call(&world, "op@pve", "PUT", &format!("{VM}/config"), parameters);
        (answer.status, answer.reason)
    };
    assert_eq!(
        put(&[("memory", "300")]),
        (403, "Permission check failed (/vms/100, VM.Config.Memory)".to_owned())
    );
    assert_eq!(put(&[("ciuser", "deb")]).0, 200);
    let delete = call(&world, "op@pve", "DELETE", VM, &[]);
    assert_eq!(delete.reason, "Permission check failed (/vms/100, VM.Allocate)");
    ok(&world, "POST", "/access/groups", &[("groupid", "ops")]);
    ok(&world, "PUT", "/access/users/op@pve", &[("groups", "ops")]);
    ok(&world, "PUT", "/access/acl", &[("path", "/vms/200"), ("roles", "PVEVMAdmin"), ("groups", "ops")]);
    let container = call(&world, "op@pve", "PUT", "/nodes/pve1/lxc/200/config", &[("memory", "600")]);
    assert!(container.is_ok(), "a group's right counts: {container:?}");
}

#[test]
fn a_new_token_shows_its_secret_once() {
    let world = world();
    let made = ok(&world, "POST", "/access/users/root@pam/token/ci", &[("privsep", "0")]);
    let secret = made["value"].as_str().unwrap();
    assert_eq!(world.credential("root@pam!ci").unwrap().secret, secret);
    assert!(ok(&world, "GET", "/access/users/root@pam/token/ci", &[]).get("value").is_none());
    let again = call(&world, ROOT, "POST", "/access/users/root@pam/token/ci", &[]);
    assert_eq!(again.body.to_json()["errors"], json!({"tokenid": "Token already exists."}));
}

#[test]
fn pools_give_their_guests_up_only_if_told_so() {
    let world = world();
    ok(&world, "POST", "/pools", &[("poolid", "a")]);
    ok(&world, "POST", "/pools", &[("poolid", "b")]);
    ok(&world, "PUT", "/pools", &[("poolid", "a"), ("vms", "100")]);
    let text = "update pools failed: VM 100 belongs already to pool 'a' and 'allow-move' is not set";
    assert_eq!(refused(&world, "PUT", "/pools", &[("poolid", "b"), ("vms", "100")]).1, text);
    ok(&world, "PUT", "/pools", &[("poolid", "b"), ("vms", "100"), ("allow-move", "1")]);
    assert_eq!(refused(&world, "DELETE", "/pools", &[("poolid", "b")]).0, 500);
    ok(&world, "DELETE", "/pools", &[("poolid", "a")]);
}

#[test]
fn collections_keep_what_is_written() {
    let world = world();
    ok(&world, "POST", "/cluster/sdn/zones", &[("zone", "lab"), ("type", "simple")]);
    assert_eq!(ok(&world, "GET", "/cluster/sdn/zones/lab", &[])["type"], "simple");
    ok(&world, "PUT", "/cluster/sdn/zones/lab", &[("mtu", "1450")]);
    assert_eq!(ok(&world, "GET", "/cluster/sdn/zones", &[])[0]["mtu"], 1450);
    assert_eq!(refused(&world, "POST", "/cluster/sdn/zones", &[("zone", "lab"), ("type", "simple")]).0, 500);
    ok(&world, "DELETE", "/cluster/sdn/zones/lab", &[]);
    assert_eq!(ok(&world, "GET", "/cluster/sdn/zones", &[]), json!([]));
}

#[test]
fn a_task_can_warn_and_can_fail_after_its_effect() {
    let world = world();
    world.set_next_exit("WARNINGS: 1");
    let resize =
        |size: &str| task(&world, "PUT", &format!("{VM}/resize"), &[("disk", "scsi0"), ("size", size)]);
    assert_eq!(resize("1G"), "shrinking disks is not supported", "a failure of its own comes first");
    assert_eq!(resize("+1G"), "WARNINGS: 1");
    world.set_next_exit("start failed: got timeout");
    assert_eq!(task(&world, "POST", &format!("{VM}/status/start"), &[]), "start failed: got timeout");
    assert_eq!(ok(&world, "GET", &format!("{VM}/status/current"), &[])["status"], "running");
    let failed = ok(&world, "GET", "/nodes/pve1/tasks", &[("errors", "1")]);
    let kinds: Vec<&Value> = failed.as_array().unwrap().iter().map(|task| &task["type"]).collect();
    assert_eq!(kinds, [&json!("qmstart"), &json!("resize")], "a warning is no error");
}
