//! What writers of Proxmox VE trip over, rule by rule; `docs/testing.md` has the list. The rest of it is in `writes.rs`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use pve_sim::{GuestSpec, Power, World, WorldSpec};
use serde_json::{Value, json};

#[path = "support/calls.rs"]
mod calls;

use calls::{ROOT, call, ok};

const VM: &str = "/nodes/pve1/qemu/100";
const CT: &str = "/nodes/pve1/lxc/200";

fn world() -> World {
    let world = World::generate(&WorldSpec::new("rig", 2, 0, 3));
    let spec = GuestSpec::qemu(100, "web").node("pve1").disk("scsi0", "local-lvm", 8, "");
    let spec = spec.config("net0", "virtio=BC:24:11:00:00:01,bridge=vmbr0");
    world.add_guest(spec.config("tags", "prod").config("description", "a text")).unwrap();
    let spec = GuestSpec::lxc(200, "ct").node("pve1").disk("rootfs", "local-lvm", 4, "");
    world.add_guest(spec.config("unprivileged", 1)).unwrap();
    world
}

fn refused(world: &World, method: &str, path: &str, parameters: &[(&str, &str)]) -> (u16, String) {
    let answer = call(world, ROOT, method, path, parameters);
    assert!(!answer.is_ok(), "{method} {path}: {answer:?}");
    (answer.status, answer.reason)
}

/// The kind and the exit status of the task that an answer names.
fn task(world: &World, method: &str, path: &str, parameters: &[(&str, &str)]) -> (String, String) {
    let upid = ok(world, method, path, parameters);
    let parts: Vec<&str> = upid.as_str().unwrap().split(':').collect();
    let status =
        ok(world, "GET", &format!("/nodes/{}/tasks/{}/status", parts[1], upid.as_str().unwrap()), &[]);
    (parts[5].to_owned(), status["exitstatus"].as_str().unwrap_or("running").to_owned())
}

fn done(world: &World, method: &str, path: &str, parameters: &[(&str, &str)]) {
    let (kind, exit) = task(world, method, path, parameters);
    assert_eq!(exit, "OK", "{kind}");
}

fn config(world: &World, guest: &str) -> Value {
    ok(world, "GET", &format!("{guest}/config"), &[("current", "1")])
}

fn set(world: &World, parameters: &[(&str, &str)]) {
    ok(world, "PUT", &format!("{VM}/config"), parameters);
}

#[test]
fn a_put_is_done_when_it_is_answered_and_a_post_is_a_task() {
    let world = world();
    assert_eq!(ok(&world, "PUT", &format!("{VM}/config"), &[("cores", "2")]), Value::Null);
    let (kind, exit) = task(&world, "POST", &format!("{VM}/config"), &[("cores", "4")]);
    assert_eq!((kind.as_str(), exit.as_str()), ("qmconfig", "OK"));
    assert_eq!(config(&world, VM)["cores"], 4);
    assert_eq!(ok(&world, "PUT", &format!("{CT}/config"), &[("cores", "2")]), Value::Null);
}

#[test]
fn a_machines_update_is_half_done_and_a_containers_is_not() {
    let world = world();
    let path = format!("{VM}/config");
    // In the order of their names; the second one fails.
    let (_, exit) = task(&world, "POST", &path, &[("cores", "4"), ("scsi1", "local-lvm:vm-100-disk-9")]);
    assert_ne!(exit, "OK");
    assert_eq!(config(&world, VM)["cores"], 4, "what came before stays");
    let before = config(&world, CT);
    refused(
        &world,
        "PUT",
        &format!("{CT}/config"),
        &[("cores", "4"), ("mp0", "nowhere:vm-200-disk-9,mp=/x")],
    );
    assert_eq!(config(&world, CT), before);
}

#[test]
fn one_key_is_not_set_and_deleted_and_what_is_not_there_may_be_deleted() {
    let world = world();
    let path = format!("{VM}/config");
    let both = call(&world, ROOT, "PUT", &path, &[("cores", "2"), ("delete", "cores")]);
    assert_eq!(both.status, 400, "{both:?}");
    let before = config(&world, VM);
    set(&world, &[("delete", "balloon")]);
    assert_eq!(config(&world, VM), before);
}

#[test]
fn what_waits_for_a_restart_changes_the_digest() {
    let world = world();
    world.set_power(100, Power::Running).unwrap();
    let before = config(&world, VM);
    set(&world, &[("memory", "4096")]);
    let after = config(&world, VM);
    assert_eq!(before["memory"], after["memory"]);
    assert_ne!(before["digest"], after["digest"]);
}

#[test]
fn a_device_that_can_not_be_unplugged_waits_for_the_restart() {
    let world = world();
    set(&world, &[("sata0", "local-lvm:1"), ("efidisk0", "local-lvm:1"), ("tpmstate0", "local-lvm:1")]);
    world.set_power(100, Power::Running).unwrap();
    set(&world, &[("delete", "sata0,efidisk0,tpmstate0,scsi0,net0")]);
    let now = config(&world, VM);
    for key in ["sata0", "efidisk0", "tpmstate0"] {
        assert!(now.get(key).is_some(), "{key}");
    }
    for key in ["scsi0", "net0"] {
        assert!(now.get(key).is_none(), "{key} is hot");
    }
    assert_eq!(task(&world, "POST", &format!("{VM}/status/stop"), &[]).1, "OK");
    assert!(config(&world, VM).get("sata0").is_none());
}

#[test]
fn force_frees_what_is_detached() {
    let world = world();
    set(&world, &[("delete", "scsi0"), ("force", "1")]);
    let config = config(&world, VM);
    assert!(config.get("scsi0").is_none() && config.get("unused0").is_none(), "{config}");
}

#[test]
fn a_waiting_change_of_a_disk_undoes_a_resize() {
    let world = world();
    set(&world, &[("sata0", "local-lvm:1")]);
    world.set_power(100, Power::Running).unwrap();
    let disk = config(&world, VM)["sata0"].as_str().unwrap().to_owned();
    set(&world, &[("sata0", &format!("{disk},discard=on"))]);
    done(&world, "PUT", &format!("{VM}/resize"), &[("disk", "sata0"), ("size", "2G")]);
    assert!(config(&world, VM)["sata0"].as_str().unwrap().ends_with("size=2G"));
    done(&world, "POST", &format!("{VM}/status/stop"), &[]);
    let then = config(&world, VM)["sata0"].clone();
    assert!(
        then.as_str().unwrap().contains("size=1G") && then.as_str().unwrap().contains("discard=on"),
        "{then}"
    );
}

#[test]
fn a_disk_of_a_snapshot_is_not_moved_away_or_to_another_guest() {
    let world = world();
    world.add_guest(GuestSpec::qemu(101, "other").node("pve1")).unwrap();
    done(&world, "POST", &format!("{VM}/snapshot"), &[("snapname", "one")]);
    let shared = world.read(|state| {
        let usable = |storage: &&pve_sim::Storage| {
            storage.id != "local-lvm"
                && !storage.disabled
                && storage.content.split(',').any(|kind| kind == "images")
        };
        state
            .storages
            .values()
            .find(|storage| usable(storage) && storage.is_for_node("pve1"))
            .unwrap()
            .id
            .clone()
    });
    let path = format!("{VM}/move_disk");
    let to = [("disk", "scsi0"), ("storage", shared.as_str())];
    let text = "you can't move a disk with snapshots and delete the source";
    assert_eq!(refused(&world, "POST", &path, &[to[0], to[1], ("delete", "1")]).1, text);
    assert_eq!(
        refused(&world, "POST", &path, &[("disk", "scsi0"), ("target-vmid", "101")]).1,
        "Can't move disk used by a snapshot to another VM"
    );
    done(&world, "POST", &path, &to);
    // What others take over is neither a template's nor one that runs.
    set(&world, &[("scsi1", "local-lvm:1")]);
    world.set_power(100, Power::Running).unwrap();
    assert_eq!(
        refused(&world, "POST", &path, &[("disk", "scsi1"), ("target-vmid", "101")]).1,
        "Cannot move disk to another VM while the source VM is running - detach first"
    );
}

#[test]
fn keys_and_passwords_come_back_otherwise_than_they_were_sent() {
    let world = world();
    let key = "ssh-ed25519 AAAA a@b";
    let sent = key.replace(' ', "%20").replace('@', "%40");
    set(&world, &[("sshkeys", &sent), ("cipassword", "hunter2")]);
    let config = config(&world, VM);
    assert_eq!(config["sshkeys"], sent.as_str(), "still encoded");
    assert_eq!(config["cipassword"], "**********");
}

#[test]
fn the_next_number_is_kept_for_nobody() {
    let world = world();
    let next = || ok(&world, "GET", "/cluster/nextid", &[]);
    let (one, other) = (next(), next());
    assert_eq!(one, other);
    let vmid = one.as_str().unwrap().to_owned();
    done(&world, "POST", "/nodes/pve1/qemu", &[("vmid", &vmid)]);
    let (status, text) = refused(&world, "POST", "/nodes/pve1/qemu", &[("vmid", &vmid)]);
    assert!(status == 500 && text.contains("already exists"), "{text}");
    assert_ne!(next(), one);
}

#[test]
fn a_copy_goes_to_another_node_through_shared_storage_alone() {
    let world = world();
    let text = refused(
        &world,
        "POST",
        &format!("{VM}/clone"),
        &[("newid", "101"), ("full", "1"), ("target", "pve2")],
    )
    .1;
    assert_eq!(text, "can't clone VM to node 'pve2' (VM uses local storage)");
    // The node that it goes to can't be asked.
    let (status, text) = refused(&world, "POST", "/nodes/pve2/qemu/100/clone", &[("newid", "101")]);
    assert_eq!(status, 500, "{text}");
    ok(&world, "POST", &format!("{VM}/template"), &[]);
    for (name, value) in [("storage", "local-lvm"), ("format", "raw")] {
        let text = refused(&world, "POST", &format!("{VM}/clone"), &[("newid", "101"), (name, value)]).1;
        assert_eq!(text, format!("parameter '{name}' not allowed for linked clones"));
    }
}

#[test]
fn a_copy_has_the_texts_and_tags_of_its_source_and_another_identity() {
    let world = world();
    done(&world, "POST", &format!("{VM}/clone"), &[("newid", "101"), ("full", "1")]);
    let (source, copy) = (config(&world, VM), config(&world, "/nodes/pve1/qemu/101"));
    for key in ["tags", "description"] {
        assert_eq!(copy[key], source[key], "{key}");
    }
    for key in ["smbios1", "net0", "scsi0"] {
        assert_ne!(copy[key], source[key], "{key}");
    }
}

#[test]
fn a_snapshot_with_memory_starts_the_machine() {
    let world = world();
    world.set_power(100, Power::Running).unwrap();
    done(&world, "POST", &format!("{VM}/snapshot"), &[("snapname", "ram"), ("vmstate", "1")]);
    world.set_power(100, Power::Stopped).unwrap();
    done(&world, "POST", &format!("{VM}/snapshot"), &[("snapname", "cold")]);
    let runs = || ok(&world, "GET", &format!("{VM}/status/current"), &[])["status"].clone();
    done(&world, "POST", &format!("{VM}/snapshot/ram/rollback"), &[]);
    assert_eq!(runs(), "running");
    done(&world, "POST", &format!("{VM}/snapshot/cold/rollback"), &[]);
    assert_eq!(runs(), "stopped");
}

#[test]
fn zfs_goes_back_to_its_newest_snapshot_alone() {
    let world = world();
    world.edit_storage("local-lvm", |storage| storage.kind = "zfspool".to_owned()).unwrap();
    for name in ["old", "new"] {
        done(&world, "POST", &format!("{VM}/snapshot"), &[("snapname", name)]);
    }
    let (_, exit) = task(&world, "POST", &format!("{VM}/snapshot/old/rollback"), &[]);
    assert!(exit.contains("is not most recent snapshot"), "{exit}");
    done(&world, "POST", &format!("{VM}/snapshot/new/rollback"), &[]);
}

#[test]
fn only_a_stopped_guest_becomes_a_template_and_once() {
    let world = world();
    world.set_power(100, Power::Running).unwrap();
    let template = || refused(&world, "POST", &format!("{VM}/template"), &[]).1;
    assert_eq!(template(), "you can't convert a VM to template if VM is running");
    world.set_power(100, Power::Stopped).unwrap();
    done(&world, "POST", &format!("{VM}/template"), &[]);
    assert_eq!(template(), "you can't convert a template to a template");
}

#[test]
fn a_guest_that_is_destroyed_takes_its_rights_and_its_firewall_along() {
    let world = world();
    world.add_user("op@pve", "operator-pw");
    world.grant("op@pve", "PVEVMUser", "/vms/100", true).unwrap();
    let rules = format!("{VM}/firewall/rules");
    ok(&world, "POST", &rules, &[("type", "in"), ("action", "ACCEPT")]);
    done(&world, "DELETE", VM, &[]);
    let acl = ok(&world, "GET", "/access/acl", &[]);
    assert!(!acl.as_array().unwrap().iter().any(|entry| entry["path"] == "/vms/100"), "{acl}");
    done(&world, "POST", "/nodes/pve1/qemu", &[("vmid", "100")]);
    assert_eq!(ok(&world, "GET", &rules, &[]), json!([]));
}

#[test]
fn going_past_a_lock_is_roots_alone() {
    let world = world();
    world.set_config(100, "lock", "backup").unwrap();
    let token = pve_sim::ROOT_TOKEN;
    let answer = call(&world, token, "PUT", &format!("{VM}/config"), &[("cores", "2"), ("skiplock", "1")]);
    assert_eq!((answer.status, config(&world, VM)["lock"].clone()), (400, json!("backup")), "{answer:?}");
    assert_eq!(answer.body.to_json()["errors"]["skiplock"], "Only root may use this option.");
}

#[test]
fn a_container_has_options_of_its_own() {
    let world = world();
    let path = format!("{CT}/config");
    assert_eq!(refused(&world, "POST", &path, &[("cores", "2")]).0, 501);
    assert_eq!(refused(&world, "PUT", &path, &[("name", "web")]).0, 400);
    ok(&world, "PUT", &path, &[("hostname", "web")]);
    let text = refused(&world, "PUT", &path, &[("unprivileged", "0")]).1;
    assert_eq!(text, "unable to modify read-only option: 'unprivileged'");
    let token = pve_sim::ROOT_TOKEN;
    let of_token = |parameters: &[(&str, &str)]| call(&world, token, "PUT", &path, parameters);
    assert!(of_token(&[("features", "nesting=1")]).is_ok());
    for (name, value) in [
        ("features", "nesting=1,mount=nfs"),
        ("mp0", "/srv/data,mp=/data"),
        ("dev0", "/dev/kvm"),
        ("hookscript", "local:snippets/x.pl"),
    ] {
        let answer = of_token(&[(name, value)]);
        assert!(
            answer.status == 403 && answer.reason.contains("only allowed for root@pam"),
            "{name}: {answer:?}"
        );
    }
}

#[test]
fn an_operator_of_a_pool_names_it_with_a_new_guest() {
    let world = world();
    ok(&world, "POST", "/pools", &[("poolid", "lab")]);
    world.add_user("op@pve", "operator-pw");
    world.grant("op@pve", "PVEVMAdmin", "/pool/lab", true).unwrap();
    let make = |parameters: &[(&str, &str)]| call(&world, "op@pve", "POST", "/nodes/pve1/qemu", parameters);
    assert_eq!(make(&[("vmid", "101")]).status, 403);
    let made = make(&[("vmid", "101"), ("pool", "lab")]);
    assert!(made.is_ok(), "{made:?}");
}

#[test]
fn rules_move_up_when_one_before_them_is_deleted() {
    let world = world();
    let path = format!("{VM}/firewall/rules");
    for comment in ["third", "second", "first"] {
        ok(&world, "POST", &path, &[("type", "in"), ("action", "ACCEPT"), ("comment", comment)]);
    }
    let digest = ok(&world, "GET", &path, &[])[0]["digest"].clone();
    ok(&world, "DELETE", &format!("{path}/0"), &[("digest", digest.as_str().unwrap())]);
    let left = ok(&world, "GET", &path, &[]);
    assert_eq!((&left[0]["comment"], &left[0]["pos"]), (&json!("second"), &json!(0)));
    // Whoever goes on by the positions that it had read deletes another rule: from the end none moves. The digest tells.
    let stale = call(&world, ROOT, "DELETE", &format!("{path}/1"), &[("digest", digest.as_str().unwrap())]);
    assert_eq!(stale.status, 500, "{stale:?}");
}

#[test]
fn a_job_for_named_guests_is_for_no_others_any_more() {
    let world = world();
    let all = [("id", "jobs"), ("all", "1"), ("exclude", "200"), ("schedule", "daily"), ("storage", "local")];
    ok(&world, "POST", "/cluster/backup", &[&all[..], &[("prune-backups", "keep-last=3")]].concat());
    let job = || ok(&world, "GET", "/cluster/backup/jobs", &[]);
    let before = job();
    assert_eq!(before["prune-backups"], json!({ "keep-last": "3" }), "a text in, an object out");
    assert!(before.get("digest").is_none() && before["exclude"] == "200", "{before}");
    ok(&world, "PUT", "/cluster/backup/jobs", &[("vmid", "100")]);
    let after = job();
    assert_eq!(after["vmid"], "100");
    for key in ["all", "exclude", "pool"] {
        assert!(after.get(key).is_none(), "{key}: {after}");
    }
}

#[test]
fn a_reload_takes_everybodys_edits_into_force() {
    let world = world();
    let path = "/nodes/pve1/network";
    for (iface, address) in [("vmbr7", "10.7.0.1/24"), ("vmbr8", "10.8.0.1/24")] {
        ok(&world, "POST", path, &[("iface", iface), ("type", "bridge"), ("cidr", address)]);
    }
    let before = ok(&world, "GET", &format!("{path}/vmbr7"), &[]);
    assert!(before.get("digest").is_none(), "nothing tells that somebody else edits: {before}");
    done(&world, "PUT", path, &[]);
    // Nothing takes it back.
    ok(&world, "DELETE", path, &[]);
    for iface in ["vmbr7", "vmbr8"] {
        assert_eq!(ok(&world, "GET", &format!("{path}/{iface}"), &[])["method"], "static", "{iface}");
    }
}

/// Every test that the list of traps names is there.
///
/// Seen failing with: a name that no test has.
#[test]
fn the_list_of_traps_names_tests_that_there_are() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let page = std::fs::read_to_string(root.join("docs/testing.md")).unwrap();
    let list = page.split("## Traps of Proxmox VE").nth(1).unwrap().split("\n## ").next().unwrap();
    let text = |path: &str| std::fs::read_to_string(root.join(path)).unwrap_or_default();
    let mut units = String::new();
    let mut folders = vec![root.join("crates/reconcile/src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => units.push_str(&std::fs::read_to_string(path).unwrap()),
            }
        }
    }
    let named: Vec<&str> = list.split('`').filter(|word| word.contains("::")).collect();
    assert!(named.len() > 60, "{named:?}");
    for name in named {
        let parts: Vec<&str> = name.split("::").collect();
        let source = match parts[..] {
            ["traps" | "writes" | "http" | "control" | "cluster_wide", _] => {
                text(&format!("crates/pve-sim/tests/{}.rs", parts[0]))
            }
            ["transport", _] => text("crates/pve-client/tests/transport.rs"),
            ["desired", _] => text("crates/reconcile/tests/desired.rs"),
            ["planner" | "applying", file, _] => {
                text(&format!("crates/reconcile/tests/{}/{file}.rs", parts[0]))
            }
            ["apply", file, _] => text(&format!("tests/e2e/apply/{file}.rs")),
            ["unit", _] => units.clone(),
            _ => String::new(),
        };
        let test = parts.last().unwrap();
        assert!(source.contains(&format!("fn {test}(")), "docs/testing.md names {name}, which there is not");
    }
}
