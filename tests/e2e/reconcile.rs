//! Desired state end to end: discovered, compared, imported, exported, adopted.

mod plans;
mod policies;
mod stored;

use std::collections::BTreeMap;
use std::fs;

use pve_sim::{
    AUDIT_TOKEN, Fault, FaultRule, POOL_TOKEN, ROOT_TOKEN, RecordedEstate, SimOptions, SimServer, World,
    WorldSpec,
};
use pvegraph_testkit::recordings_dir;
use serde_json::{Value, json};

use crate::support::{Graph, Rig};

const SEED: u64 = 20_261_121;

async fn serve(guests: usize, seed: u64) -> SimServer {
    println!("seed {seed}");
    let world = World::generate(&WorldSpec::new("rig", 3, guests, seed));
    SimServer::start(world, SimOptions::default()).await.unwrap()
}

fn with_token(rig: Rig, server: &SimServer, token: &str) -> Rig {
    let credential = server.world().unwrap().credential(token);
    rig.cluster(Some("rig"), server, credential.as_ref())
}

fn document(rig: &Rig) -> Value {
    serde_json::from_str(&fs::read_to_string(rig.dir.path().join("estate.json")).unwrap()).unwrap()
}

fn put(rig: &Rig, name: &str, document: &Value) {
    fs::write(rig.dir.path().join(name), document.to_string()).unwrap();
}

/// `uid field` → (live, desired, class).
fn differing(rows: &[Value]) -> BTreeMap<String, (Value, Value, String)> {
    rows.iter()
        .map(|row| {
            let text = |name: &str| row[name].as_str().unwrap().to_owned();
            let key = format!("{} {}", text("uid"), text("field"));
            (key, (row["live"].clone(), row["desired"].clone(), text("class")))
        })
        .collect()
}

/// The world as the simulator keeps it: every guest's configuration and power.
fn whole(server: &SimServer) -> BTreeMap<u32, String> {
    server.world().unwrap().read(|state| {
        state
            .guests
            .iter()
            .map(|(vmid, guest)| (*vmid, format!("{:?} {:?}", guest.config, guest.power)))
            .collect()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_discovered_estate_does_not_drift_and_a_changed_one_does() {
    for seed in [SEED, 1, 2] {
        let server = serve(60, seed).await;
        let before = whole(&server);
        // A token that may only read is enough.
        let rig = with_token(Rig::new(&Graph::Embedded), &server, AUDIT_TOKEN);
        rig.run(&["discover", "--export", "--to", "estate.json"]).await.ended(0);
        let ran = rig.run(&["drift", "--file", "estate.json", "-o", "json"]).await.ended(0);
        assert_eq!(ran.rows(), Vec::<Value>::new());
        assert_eq!(ran.json()["guests"], 60);
        assert_eq!(ran.json()["unmanaged_guests"], 0);
        assert_eq!(whole(&server), before);
        server.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn drift_tells_each_field_and_ends_with_5() {
    let server = serve(60, SEED).await;
    let rig = with_token(Rig::new(&Graph::Embedded), &server, AUDIT_TOKEN);
    rig.run(&["discover", "--export", "--to", "estate.json"]).await.ended(0);
    let world = server.world().unwrap();
    let (machine, node) = world.read(|state| {
        let guest =
            state.guests.values().find(|guest| guest.kind.name() == "qemu" && guest.is_running()).unwrap();
        (guest.vmid, guest.node.to_string())
    });
    let other = ["pve1", "pve2", "pve3"].into_iter().find(|name| *name != node).unwrap();
    world.set_config(machine, "cores", 7).unwrap();
    world.set_config(machine, "description", "hunter2").unwrap();
    world.set_config(machine, "args", "-password hunter2").unwrap();
    world.migrate(machine, other).unwrap();
    let gone = world.read(|state| *state.guests.keys().next_back().unwrap());
    world.remove_guest(gone).unwrap();
    world.add_guest(pve_sim::GuestSpec::qemu(9_999, "stray")).unwrap();

    let ran = rig.run(&["drift", "--file", "estate.json", "-o", "json"]).await.ended(5);
    let rows = differing(&ran.rows());
    let uid = format!("vm-{machine}");
    assert_eq!(rows[&format!("{uid} cores")].0, "7");
    assert_eq!(rows[&format!("{uid} cores")].2, "drift");
    assert_eq!(rows[&format!("{uid} node")].0, other);
    assert!(
        rows.iter().any(|(key, (.., class))| key.contains(&gone.to_string()) && class == "missing"),
        "{rows:?}"
    );
    assert_eq!(ran.json()["unmanaged_guests"], 1);
    assert!(!format!("{}{}", ran.out, ran.err).contains("hunter2"));
    // Nobody desires `args`: an absent field is left alone.
    assert!(!rows.keys().any(|key| key.ends_with("args")), "{rows:?}");

    // The same table for people.
    let table = rig.run(&["drift", "--file", "estate.json"]).await.ended(5);
    assert!(table.out.contains("cores") && table.out.contains("missing"), "{}", table.out);
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_read_is_not_compared_and_never_missing() {
    let server = serve(30, SEED).await;
    let rig = with_token(Rig::new(&Graph::Embedded), &server, AUDIT_TOKEN);
    rig.run(&["discover", "--export", "--to", "estate.json"]).await.ended(0);
    let estate = fs::read(rig.dir.path().join("estate.json")).unwrap();

    // A token for one pool: guests of others are not gone.
    let limited = with_token(Rig::new(&Graph::Embedded), &server, POOL_TOKEN);
    fs::write(limited.dir.path().join("estate.json"), &estate).unwrap();
    let ran = limited
        .run(&["drift", "--file", "estate.json", "-o", "json"])
        .await
        .ended(3)
        .says(&["VM.Audit on /vms/"]);
    assert_eq!(ran.rows(), Vec::<Value>::new());
    assert_eq!(ran.json()["complete"], false);

    // One guest's configuration fails.
    let (vmid, node, kind) = server.world().unwrap().read(|state| {
        let guest = state.guests.values().next().unwrap();
        (guest.vmid, guest.node.to_string(), guest.kind.name())
    });
    let reason = "can't lock file\n".to_owned();
    let path = format!("/nodes/{node}/{kind}/{vmid}/config");
    server.faults().add(FaultRule::at(&path, Fault::Status { status: 500, reason }));
    let ran = rig.run(&["drift", "--file", "estate.json", "-o", "json"]).await.ended(3);
    assert_eq!(ran.rows(), Vec::<Value>::new());
    assert!(ran.json()["not_compared"].to_string().contains(&vmid.to_string()));
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_documents_end_with_10_before_anything_is_asked() {
    let server = serve(3, SEED).await;
    let rig = with_token(Rig::new(&Graph::Embedded), &server, ROOT_TOKEN);
    let one = |guest: Value| json!({ "version": 1, "plugins": { "proxmox": { "vms": [guest] } } });
    for (name, text, words) in [
        ("absent.json", None, &["absent.json"][..]),
        ("form.json", Some("{\"version\": hunter2".to_owned()), &["form.json", "line 1"]),
        ("form.toml", Some("version = hunter2".to_owned()), &["form.toml", "line 1"]),
        (
            "key.json",
            Some(one(json!({ "vmid": 100, "coers": 2 })).to_string()),
            &["`plugins.proxmox.vms[0].coers`", "`cores`"],
        ),
        (
            "type.json",
            Some(one(json!({ "vmid": 100, "cores": "hunter2" })).to_string()),
            &["vm-100", "`cores`", "whole number"],
        ),
        (
            "password.json",
            Some(one(json!({ "vmid": 100, "cipassword": "hunter2" })).to_string()),
            &["vms[0]", "desired.schema.json"],
        ),
        (
            "version.json",
            Some(json!({ "version": 9, "plugins": { "proxmox": {} } }).to_string()),
            &["version 1"],
        ),
    ] {
        if let Some(text) = text {
            fs::write(rig.dir.path().join(name), text).unwrap();
        }
        let ran = rig.run(&["drift", "--file", name]).await.ended(10).says(words);
        assert!(!ran.err.contains("hunter2"), "{}", ran.err);
    }
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_genuine_estate_does_not_drift_from_itself() {
    let Some(recordings) = recordings_dir("the_genuine_estate_does_not_drift_from_itself") else { return };
    for view in ["root", "auditor"] {
        let estate =
            RecordedEstate::read(&recordings.join("estate-8.4").join(format!("{view}.jsonl"))).unwrap();
        let server = SimServer::start_recorded(estate, SimOptions::default()).await.unwrap();
        let rig = Rig::new(&Graph::Embedded).cluster(None, &server, None);
        rig.run(&["discover", "--export", "--to", "estate.json"]).await.ended(0);
        let estate = document(&rig);
        let proxmox = &estate["plugins"]["proxmox"];
        let count = |key: &str| proxmox[key].as_array().map_or(0, Vec::len);
        assert_eq!(count("vms") + count("containers"), 11);
        assert_eq!(proxmox["cluster"]["name"], "rig");
        assert!(count("storage") > 0 && count("network") > 0 && count("backups") > 0);
        assert!(!estate.to_string().contains("****"));
        let ran = rig.run(&["drift", "--file", "estate.json", "-o", "json"]).await.ended(0);
        assert_eq!(ran.rows(), Vec::<Value>::new());

        // One option of the machine that has nearly all of them.
        let mut changed = estate.clone();
        let machines = changed["plugins"]["proxmox"]["vms"].as_array_mut().unwrap();
        let full = machines.iter_mut().find(|machine| machine["vmid"] == 101).unwrap();
        full["net2"]["trunks"] = json!(["5", "7"]);
        full["scsi0"]["size"] = json!("1G");
        put(&rig, "changed.json", &changed);
        let ran = rig.run(&["drift", "--file", "changed.json", "-o", "json"]).await.ended(5);
        let rows = differing(&ran.rows());
        assert_eq!(rows.keys().collect::<Vec<_>>(), ["vm-101 net2.trunks", "vm-101 scsi0.size"]);
        assert_eq!(rows["vm-101 net2.trunks"].0, "10-20;5;7");
        assert_eq!(rows["vm-101 scsi0.size"].2, "impossible");
        server.shutdown().await;
    }
}
