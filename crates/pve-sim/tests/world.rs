//! Generated worlds: the same specification gives the same answers, the mix is realistic, and backups follow PVE's rules.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::collections::{BTreeMap, BTreeSet};

use pve_sim::{BackupJob, GuestKind, GuestSpec, Power, Selection, World, WorldSpec, parse_drive};
use serde_json::{Value, json};

fn read(world: &World, path: &str) -> Value {
    let answer = world.get(path);
    assert!(answer.is_ok(), "{path}: {answer:?}");
    answer.body.to_json()["data"].clone()
}

#[test]
fn the_same_specification_gives_the_same_world() {
    let make = |seed| World::generate(&WorldSpec::new("rig", 4, 200, seed));
    let (one, two, other) = (make(7), make(7), make(8));
    assert_eq!(one.read(Clone::clone), two.read(Clone::clone));
    for path in ["/cluster/resources", "/nodes/pve2/qemu?full=1", "/nodes", "/storage", "/cluster/backup"] {
        assert_eq!(one.get(path), two.get(path), "{path}");
        assert_eq!(one.get(path), one.get(path), "{path}");
    }
    assert_ne!(one.get("/cluster/resources"), other.get("/cluster/resources"));
    one.set_live_metrics(true);
    assert_ne!(one.get("/cluster/resources"), two.get("/cluster/resources"));
    one.set_live_metrics(false);
    assert_eq!(one.get("/cluster/resources"), two.get("/cluster/resources"));
}

#[test]
fn a_world_has_the_asked_size_and_a_realistic_mix() {
    let mut spec = WorldSpec::new("rig", 5, 500, 7);
    spec.storages = 9;
    let world = World::generate(&spec);
    world.read(|state| {
        assert_eq!((state.nodes.len(), state.guests.len(), state.storages.len()), (5, 500, 9));
        let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
        let mut count = |name| *kinds.entry(name).or_default() += 1;
        for guest in state.guests.values() {
            count(guest.kind.name());
            count(match guest.power {
                Power::Running => "running",
                Power::Stopped => "stopped",
                Power::Paused => "paused",
            });
            for (wanted, name) in [
                (guest.is_template(), "template"),
                (guest.pool.is_some(), "pool"),
                (guest.ha.is_some(), "ha"),
                (guest.config.get("tags").is_some(), "tags"),
                (guest.config.get("efidisk0").is_some(), "efi"),
                (guest.config.get("tpmstate0").is_some(), "tpm"),
                (guest.config.get("unused0").is_some(), "unused"),
                (guest.config.get("ide0").is_some(), "cloud-init"),
                (guest.config.get("net2").is_some(), "three cards"),
                (guest.drives().iter().any(|drive| drive.option("backup") == Some("0")), "excluded disk"),
                (guest.drives().iter().any(|drive| drive.option("cache").is_some()), "cache"),
                (guest.drives().iter().any(|drive| drive.volume.starts_with('/')), "bind mount"),
            ] {
                if wanted {
                    count(name);
                }
            }
            let storages: BTreeSet<_> =
                guest.drives().iter().filter_map(|drive| drive.storage().map(str::to_owned)).collect();
            assert!(storages.iter().all(|storage| state.storages.contains_key(storage)), "{storages:?}");
            if storages.len() > 1 {
                count("several storages");
            }
        }
        println!("{kinds:?}");
        assert_eq!(kinds.len(), 18, "{kinds:?}");
        assert!(kinds.values().all(|count| *count >= 3), "{kinds:?}");
        assert!(state.storages["old-nfs"].disabled && state.storages["scratch"].nodes.is_some());
    });
    assert_eq!(world.grow(5).len(), 5);
    assert_eq!(read(&world, "/cluster/resources?type=vm").as_array().unwrap().len(), 505);
}

#[test]
fn a_standalone_node_is_in_no_cluster() {
    let world = World::generate(&WorldSpec::standalone(3, 1));
    let rows = read(&world, "/cluster/status");
    assert_eq!(rows.as_array().unwrap().len(), 1);
    assert_eq!(
        (&rows[0]["type"], &rows[0]["nodeid"], &rows[0]["local"]),
        (&json!("node"), &json!(0), &json!(1))
    );
    let cluster = World::generate(&WorldSpec::new("rig", 2, 0, 1));
    cluster.set_quorum(false);
    let row = &read(&cluster, "/cluster/status")[0];
    assert_eq!((&row["name"], &row["quorate"], &row["nodes"]), (&json!("rig"), &json!(0), &json!(2)));
}

/// A small world whose every guest the test knows.
fn small() -> World {
    let world = World::generate(&WorldSpec::new("rig", 2, 0, 1));
    world.update(|state| state.jobs.clear());
    let disks = GuestSpec::qemu(100, "db")
        .disk("scsi0", "local-lvm", 32, "backup=0")
        .disk("scsi1", "nfs-vm", 32, "backup=1")
        .disk("scsi2", "nfs-vm", 8, "")
        .config("efidisk0", "local-lvm:vm-100-disk-5,efitype=4m,size=528K")
        .config("ide2", "local:iso/x.iso,media=cdrom,size=1M")
        .config("ide0", "local-lvm:vm-100-cloudinit,media=cdrom,size=4M")
        .config("unused0", "local-lvm:vm-100-disk-6");
    world.add_guest(disks).unwrap();
    let mounts = GuestSpec::lxc(200, "ct")
        .node("pve2")
        .pool("prod")
        .disk("rootfs", "local-lvm", 4, "")
        .disk("mp0", "local-lvm", 4, "mp=/a,backup=1")
        .disk("mp1", "local-lvm", 4, "mp=/b")
        .config("mp2", "/srv/x,mp=/c,backup=1");
    world.add_guest(mounts).unwrap();
    world.add_guest(GuestSpec::qemu(101, "bare")).unwrap();
    world
}

fn job(id: &str, selection: Selection) -> BackupJob {
    BackupJob {
        id: id.to_owned(),
        enabled: true,
        schedule: "daily".to_owned(),
        storage: "local".to_owned(),
        selection,
        node: None,
        properties: serde_json::Map::new(),
    }
}

fn taken(world: &World, job: &str) -> Vec<u64> {
    let data = read(world, &format!("/cluster/backup/{job}/included_volumes"));
    data["children"].as_array().unwrap().iter().map(|guest| guest["id"].as_u64().unwrap()).collect()
}

#[test]
fn a_backup_job_takes_the_volumes_that_pve_takes() {
    let world = small();
    world.add_backup_job(job("all", Selection::All { exclude: vec![101] }));
    let data = read(&world, "/cluster/backup/all/included_volumes");
    let mut volumes = BTreeMap::new();
    for guest in data["children"].as_array().unwrap() {
        for volume in guest["children"].as_array().unwrap() {
            volumes.insert(
                volume["id"].as_str().unwrap(),
                (volume["included"].as_u64().unwrap(), volume["reason"].as_str().unwrap()),
            );
        }
    }
    let expected = BTreeMap::from([
        ("100:efidisk0", (1, "backup=yes")),
        ("100:scsi0", (0, "backup=no")),
        ("100:scsi1", (1, "backup=no")),
        ("100:scsi2", (1, "backup=yes")),
        ("200:mp0", (1, "enabled")),
        ("200:mp1", (0, "disabled")),
        ("200:mp2", (0, "not a volume")),
        ("200:rootfs", (1, "rootfs")),
    ]);
    assert_eq!(volumes, expected);
}

#[test]
fn jobs_select_by_all_pool_list_and_node_and_disabled_ones_still_cover() {
    let world = small();
    world.add_backup_job(job("pool", Selection::Pool("prod".into())));
    world.add_backup_job(job("list", Selection::Guests(vec![101, 999])));
    world.add_backup_job(BackupJob {
        node: Some("pve1".into()),
        ..job("node", Selection::All { exclude: vec![100] })
    });
    assert_eq!(
        (taken(&world, "pool"), taken(&world, "list"), taken(&world, "node")),
        (vec![200], vec![101], vec![101])
    );
    assert_eq!(
        read(&world, "/cluster/backup-info/not-backed-up"),
        json!([{"name": "db", "type": "qemu", "vmid": 100}])
    );
    world.add_backup_job(BackupJob { enabled: false, ..job("off", Selection::Guests(vec![100])) });
    assert_eq!(read(&world, "/cluster/backup-info/not-backed-up"), json!([]));
    let rows = read(&world, "/cluster/backup");
    let row = |id: &str| rows.as_array().unwrap().iter().find(|row| row["id"] == id).unwrap().clone();
    assert_eq!((row("off")["enabled"].clone(), row("list")["vmid"].clone()), (json!(0), json!("101,999")));
    assert!(row("off")["next-run"].is_u64() && read(&world, "/cluster/backup/off").get("next-run").is_none());
}

#[test]
fn what_happens_to_a_guest_shows_in_the_answers() {
    let world = small();
    world.migrate(100, "pve2").unwrap();
    world.rename(100, "db-new").unwrap();
    world.set_tags(100, &["b", "a"]).unwrap();
    world.set_power(100, Power::Paused).unwrap();
    assert_eq!(world.get("/nodes/pve1/qemu/100/config").status, 500);
    let status = read(&world, "/nodes/pve2/qemu/100/status/current");
    assert_eq!((&status["status"], &status["qmpstatus"]), (&json!("running"), &json!("paused")));
    let rows = read(&world, "/cluster/resources?type=vm");
    let row = rows.as_array().unwrap().iter().find(|row| row["vmid"] == 100).unwrap();
    assert_eq!((&row["node"], &row["name"], &row["tags"]), (&json!("pve2"), &json!("db-new"), &json!("b;a")));
    world.set_config(100, "lock", "suspended").unwrap();
    world.set_power(100, Power::Stopped).unwrap();
    let status = read(&world, "/nodes/pve2/qemu/100/status/current");
    assert_eq!(
        (&status["status"], &status["lock"], &status["uptime"]),
        (&json!("stopped"), &json!("suspended"), &json!(0))
    );
    world.set_config(100, "memory", json!({"odd": true})).unwrap();
    assert_eq!(read(&world, "/nodes/pve2/qemu/100/config")["memory"], json!({"odd": true}));
    world.remove_guest(100).unwrap();
    assert_eq!(read(&world, "/cluster/nextid"), "100");
}

#[test]
fn the_demonstration_estate_has_something_for_every_report() {
    let world = World::generate(&WorldSpec::demo());
    world.read(|state| {
        assert_eq!((state.nodes.len(), state.guests.len()), (3, 24));
        let covered: BTreeSet<u32> = state
            .jobs
            .values()
            .filter(|job| job.enabled)
            .flat_map(|job| state.guests_of_job(job).map(|guest| guest.vmid))
            .collect();
        let bare: Vec<u32> = state
            .guests
            .values()
            .filter(|guest| !guest.is_template() && !covered.contains(&guest.vmid))
            .map(|guest| guest.vmid)
            .collect();
        assert_eq!(bare, [120, 131]);
        let excluded =
            |guest: &&pve_sim::Guest| guest.drives().iter().any(|drive| drive.option("backup") == Some("0"));
        assert_eq!(state.guests.values().filter(excluded).count(), 1);
        assert!(state.nodes["pve2"].cpu_load > 0.9);
        let full = state.storages["local-lvm"].usage_for("pve3");
        assert!(full.used * 100 / full.total >= 95);
    });
    let rows = read(&world, "/cluster/backup-info/not-backed-up");
    let names: Vec<&str> = rows.as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["wiki", "debian-12-template", "debian-12-ct-template"]);
}

#[test]
fn a_guest_keeps_its_digest_until_it_changes() {
    let world = small();
    let digest = || read(&world, "/nodes/pve1/qemu/100/config")["digest"].as_str().unwrap().to_owned();
    let before = digest();
    assert_eq!(digest(), before);
    world.grow_disk(100, "scsi2", 1).unwrap();
    assert_ne!(digest(), before);
    let value = read(&world, "/nodes/pve1/qemu/100/config")["scsi2"].as_str().unwrap().to_owned();
    assert_eq!(parse_drive("scsi2", &value).size(), Some(9 << 30));
    let kind = world.read(|state| state.guests[&200].kind);
    assert_eq!(kind, GuestKind::Lxc);
}
