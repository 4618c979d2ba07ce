//! A simulated cluster of 3 nodes and 100 guests, changed between runs, on both stores.

use std::collections::BTreeMap;

use pve_sim::{Fault, FaultRule, GuestSpec, ROOT_TOKEN, SimOptions, SimServer, World, WorldSpec};
use pvegraph_testkit::emptied;
use serde_json::{Map, Value, json};

use crate::on_both_stores;
use crate::support::{Graph, LABELS, METRICS, Rig};

const SEED: u64 = 20_261_121;

async fn serve(name: &str, guests: usize) -> SimServer {
    println!("seed {SEED}");
    let world = World::generate(&WorldSpec::new(name, 3, guests, SEED));
    SimServer::start(world, SimOptions::default()).await.unwrap()
}

fn rig(graph: &Graph, servers: &[(Option<&str>, &SimServer)]) -> Rig {
    servers.iter().fold(Rig::new(graph), |rig, (name, server)| {
        let credential = server.world().unwrap().credential(ROOT_TOKEN);
        rig.cluster(*name, server, credential.as_ref())
    })
}

async fn guest(rig: &Rig, vmid: u32) -> Map<String, Value> {
    rig.nodes("ProxmoxVM").await.into_iter().find(|guest| guest["vmid"] == vmid).unwrap()
}

/// The volumes of a guest: key, storage, firstseen, and the storages that STORED_ON leads to.
async fn disks(rig: &Rig, vmid: u32) -> Vec<Value> {
    rig.read(&format!(
        "MATCH (v:ProxmoxVM)-[:HAS_DISK]->(d:ProxmoxDisk) WHERE v.vmid = {vmid} \
         OPTIONAL MATCH (d)-[:STORED_ON]->(s:ProxmoxStorage) \
         WITH d.disk_id AS disk_id, d.storage AS storage, d.firstseen AS firstseen, s.name AS place ORDER BY place \
         RETURN disk_id, storage, firstseen, collect(place) AS stored_on ORDER BY disk_id"
    ))
    .await
}

/// A machine with an attached disk on a storage that others have too, and where that disk can move.
fn movable(world: &World) -> (u32, String, String) {
    world.read(|state| {
        for guest in state.guests.values() {
            for (key, value) in guest.config.iter() {
                let text = value.to_text();
                let on =
                    |storage: &str| text.starts_with(&format!("{storage}:")) && !text.contains("media=cdrom");
                if key.starts_with("scsi") && on("local-lvm") {
                    return (guest.vmid, key.to_owned(), "local".to_owned());
                }
            }
        }
        panic!("no guest of this world has a disk on local-lvm");
    })
}

async fn a_migrated_guest_stays_the_same_node(graph: &Graph) {
    let server = serve("rig", 100).await;
    let rig = rig(graph, &[(None, &server)]);
    assert_eq!(rig.sync(0).await.counts("ProxmoxVM")[0], 100);
    let world = server.world().unwrap();
    let (vmid, ..) = movable(world);
    let before = guest(&rig, vmid).await;
    let disks_before = disks(&rig, vmid).await;
    assert!(!disks_before.is_empty());
    let nodes = world.read(|state| state.nodes.keys().cloned().collect::<Vec<_>>());
    let target = nodes.iter().find(|name| before["node"] != name.as_str()).unwrap();
    world.migrate(vmid, target).unwrap();

    let ran = rig.sync(0).await;
    assert_eq!(ran.counts("ProxmoxVM"), [0, 1, 99, 0, 0]);
    let after = guest(&rig, vmid).await;
    assert_eq!(after["node"], target.as_str());
    assert_eq!(after["id"], format!("{target}:{vmid}"));
    assert_eq!(after["firstseen"], before["firstseen"]);
    assert!(after["lastupdated"].as_i64() > before["lastupdated"].as_i64());
    assert_eq!(disks(&rig, vmid).await, disks_before);
    let hosts = rig
        .read(&format!(
            "MATCH (n:ProxmoxNode)-[:HOSTS_VM]->(v:ProxmoxVM) WHERE v.vmid = {vmid} RETURN n.name AS node"
        ))
        .await;
    assert_eq!(hosts, [json!({ "node": target })]);
    server.shutdown().await;
}
on_both_stores!(migrated => a_migrated_guest_stays_the_same_node);

async fn a_reused_vmid_is_another_node(graph: &Graph) {
    let server = serve("rig", 100).await;
    let rig = rig(graph, &[(None, &server)]);
    rig.sync(0).await;
    let world = server.world().unwrap();
    let (vmid, ..) = movable(world);
    let before = guest(&rig, vmid).await;
    let disks_before = disks(&rig, vmid).await.len() as u64;

    // Another machine: another UUID and creation time.
    let spec =
        GuestSpec::qemu(vmid, "reborn").node(before["node"].as_str().unwrap()).disk("scsi5", "local", 3, "");
    world.recreate(spec).unwrap();
    let ran = rig.sync(0).await;
    assert_eq!(ran.counts("ProxmoxVM"), [1, 0, 99, 1, 0]);
    assert_eq!(ran.counts("ProxmoxDisk")[0], 1);
    assert_eq!(ran.counts("ProxmoxDisk")[3], disks_before);
    let reborn = guest(&rig, vmid).await;
    assert_eq!(reborn["name"], "reborn");
    assert!(reborn["firstseen"].as_i64() > before["firstseen"].as_i64());
    let left = disks(&rig, vmid).await;
    assert_eq!(left.iter().map(|disk| &disk["disk_id"]).collect::<Vec<_>>(), ["scsi5"]);

    // A container: another type.
    world.recreate(GuestSpec::lxc(vmid, "container").disk("rootfs", "local", 2, "")).unwrap();
    let ran = rig.sync(0).await;
    assert_eq!(ran.counts("ProxmoxVM"), [1, 0, 99, 1, 0]);
    let container = guest(&rig, vmid).await;
    assert_eq!(
        (&container["type"], container.get("smbios_uuid").unwrap_or(&Value::Null)),
        (&json!("lxc"), &Value::Null)
    );
    assert!(container["firstseen"].as_i64() > reborn["firstseen"].as_i64());
    server.shutdown().await;
}
on_both_stores!(reused => a_reused_vmid_is_another_node);

/// A guest of which everything is as it was is only stamped: what somebody removed or changed by hand must be noticed first. To see it
/// fail: let `unchanged` in `sync/src/unchanged.rs` compare nothing, so that every known guest is one.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_removed_by_hand_comes_back() {
    let db = emptied().await;
    let server = serve("rig", 100).await;
    let rig = rig(&Graph::Neo4j((*db).clone()), &[(None, &server)]);
    rig.sync(0).await;
    // For cron.
    let quiet = rig.run(&["-q", "sync"]).await.ended(0);
    assert_eq!((&*quiet.out, &*quiet.err), ("", ""));
    let leave_out = [&METRICS[..], &["firstseen"]].concat();
    let before = rig.stable(&leave_out).await;
    let kinds = [
        "HOSTS_VM",
        "HAS_DISK",
        "HAS_NETWORK_INTERFACE",
        "SNAPSHOT_OF",
        "PARENT_SNAPSHOT",
        "STORED_ON",
        "BACKS_UP",
    ];
    for kind in kinds.iter().chain(&["INCLUDES_DISK"]) {
        let removed = format!("MATCH ()-[r:{kind}]->() WITH r LIMIT 3 DELETE r RETURN count(*) AS removed");
        assert_eq!(db.cypher(&removed, json!({})).await, [json!({ "removed": 3 })]);
        assert_ne!(rig.stable(&leave_out).await, before, "{kind}");
        rig.sync(0).await;
        assert_eq!(rig.stable(&leave_out).await, before, "{kind}");
    }
    for changed in [
        "MATCH (d:ProxmoxDisk) WITH d LIMIT 3 DETACH DELETE d",
        "MATCH (n:ProxmoxNetworkInterface) WITH n LIMIT 3 SET n.bridge = 'vmbr99'",
        "MATCH (s:ProxmoxSnapshot) WITH s LIMIT 3 SET s.current = NOT s.current",
        "MATCH (v:ProxmoxVM) WITH v LIMIT 3 SET v.name = 'by hand'",
        "MATCH ()-[r:INCLUDES_DISK]->() WITH r LIMIT 3 SET r.included = NOT r.included, r.reason = 'by hand'",
        "MATCH (v:ProxmoxVM)-[:HAS_DISK]->(:ProxmoxDisk)-[s:STORED_ON]->(o) WITH v, s, o LIMIT 3 \
         MATCH (n:ProxmoxStorage) WHERE n.name <> o.name WITH v, s, head(collect(n)) AS n \
         MATCH (v)-[:HAS_DISK]->(d)-[s]->() CREATE (d)-[:STORED_ON]->(n) DELETE s DETACH DELETE v",
        "MATCH (v:ProxmoxVM)<-[h:HOSTS_VM]-(n) WITH v, h, n LIMIT 3 DELETE h \
         WITH v, n MATCH (m:ProxmoxNode) WHERE m.name <> n.name WITH v, head(collect(m)) AS m CREATE (m)-[:HOSTS_VM]->(v)",
    ] {
        db.cypher(changed, json!({})).await;
        assert_ne!(rig.stable(&leave_out).await, before, "{changed}");
        rig.sync(0).await;
        assert_eq!(rig.stable(&leave_out).await, before, "{changed}");
    }
    // What another tool drew to or from our nodes stays as it is, whether the guest is stamped or written.
    db.cypher(
        "MATCH (v:ProxmoxVM)-[:HAS_DISK]->(d) WITH v, d LIMIT 1 CREATE (:Rack)-[:HOSTS_VM]->(v), (d)-[:STORED_ON]->(:Lun)",
        json!({}),
    )
    .await;
    rig.sync(0).await;
    db.cypher("MATCH (:Rack)-->(v:ProxmoxVM) SET v.name = 'by hand'", json!({})).await;
    db.cypher("MATCH (:Lun)<--(d)<-[h:HAS_DISK]-() SET d.size = 1", json!({})).await;
    rig.sync(0).await;
    let theirs = "MATCH (a)-[r]->(b) WHERE a:Rack OR b:Lun RETURN type(r) AS type, r.lastupdated AS stamp ORDER BY type";
    let kept = ["HOSTS_VM", "STORED_ON"].map(|kind| json!({ "type": kind, "stamp": null }));
    assert_eq!(rig.read(theirs).await, kept);
    db.cypher("MATCH (n) WHERE n:Rack OR n:Lun DETACH DELETE n", json!({})).await;

    // Another's volume is not kept alive by a guest that it does not belong to.
    let stray = "MATCH (v:ProxmoxVM)-[:HAS_DISK]->(d) WITH v, d ORDER BY v.vmid LIMIT 1 \
                 MATCH (o:ProxmoxVM) WHERE o.vmid <> v.vmid WITH d, o LIMIT 1 CREATE (o)-[:HAS_DISK]->(d) \
                 RETURN d.vmid AS vmid";
    let vmid = db.cypher(stray, json!({})).await[0]["vmid"]
        .as_u64()
        .and_then(|vmid| u32::try_from(vmid).ok())
        .unwrap();
    server.world().unwrap().remove_guest(vmid).unwrap();
    rig.sync(0).await;
    let left = format!("MATCH (d:ProxmoxDisk) WHERE d.vmid = {vmid} RETURN count(d) AS left");
    assert_eq!(rig.read(&left).await, [json!({ "left": 0 })]);
    // Nothing of it was kept alive by the stamps: all of it is of the last run.
    let old = "MATCH (c:ProxmoxCluster) MATCH ()-[r]->(b) WHERE r.lastupdated < c.lastupdated AND NOT type(r) IN ['COLLECTED', 'CHANGED'] \
               RETURN count(r) AS old";
    assert_eq!(rig.read(old).await, [json!({ "old": 0 })]);
    server.shutdown().await;
}

async fn a_moved_disk_has_one_place(graph: &Graph) {
    let server = serve("rig", 100).await;
    let rig = rig(graph, &[(None, &server)]);
    rig.sync(0).await;
    let world = server.world().unwrap();
    let (vmid, key, storage) = movable(world);
    let of = |disks: Vec<Value>| disks.into_iter().find(|disk| disk["disk_id"] == key.as_str()).unwrap();
    let before = of(disks(&rig, vmid).await);
    assert_eq!(before["stored_on"], json!(["local-lvm"]));
    world.move_disk(vmid, &key, &storage).unwrap();
    rig.sync(0).await;
    let after = of(disks(&rig, vmid).await);
    assert_eq!(after["storage"], storage.as_str());
    assert_eq!(after["stored_on"], json!([storage]));
    assert_eq!(after["firstseen"], before["firstseen"]);
    server.shutdown().await;
}
on_both_stores!(moved => a_moved_disk_has_one_place);

async fn what_is_gone_is_swept_and_what_changed_is_updated(graph: &Graph) {
    let server = serve("rig", 100).await;
    let rig = rig(graph, &[(None, &server)]);
    rig.sync(0).await;
    let world = server.world().unwrap();
    let (vmid, key, _) = movable(world);
    let all = world.read(|state| state.guests.keys().copied().collect::<Vec<_>>());
    let gone: Vec<u32> = all.iter().copied().filter(|other| *other != vmid).take(3).collect();
    gone.iter().for_each(|vmid| world.remove_guest(*vmid).unwrap());
    world.delete_config(vmid, &key).unwrap();
    world.grow(2);
    world.set_tags(vmid, &["one", "two"]).unwrap();
    let expected = world.read(|state| state.guests.len());

    // A dry run says what would be done, and does nothing.
    let before = rig.stable(&[]).await;
    let dry = rig.run(&["sync", "--dry-run", "-o", "json"]).await.ended(0);
    assert_eq!(dry.counts("ProxmoxVM"), [2, 1, 96, 3, 0]);
    assert_eq!(rig.stable(&[]).await, before);

    let ran = rig.sync(0).await;
    assert_eq!(ran.counts("ProxmoxVM"), [2, 1, 96, 3, 0]);
    let guests = rig.nodes("ProxmoxVM").await;
    assert_eq!(guests.len(), expected);
    assert!(guests.iter().all(|guest| !gone.iter().any(|vmid| guest["vmid"] == *vmid)));
    assert_eq!(guest(&rig, vmid).await["tags"], json!(["one", "two"]));
    assert!(disks(&rig, vmid).await.iter().all(|disk| disk["disk_id"] != key.as_str()));
    for label in ["ProxmoxDisk", "ProxmoxNetworkInterface"] {
        let orphans = rig
            .read(&format!(
                "MATCH (n:{label}) WHERE NOT EXISTS {{ (:ProxmoxVM)-->(n) }} RETURN n.vmid AS vmid"
            ))
            .await;
        assert_eq!(orphans, Vec::<Value>::new(), "{label}");
    }
    server.shutdown().await;
}
on_both_stores!(swept => what_is_gone_is_swept_and_what_changed_is_updated);

async fn two_clusters_that_share_every_name_live_side_by_side(graph: &Graph) {
    // The same seed: the same node names, storage names and vmids.
    let (one, two) = (serve("one", 40).await, serve("two", 40).await);
    let rig = rig(graph, &[(None, &one), (None, &two)]);
    rig.sync(0).await;
    let count = |nodes: Vec<Map<String, Value>>| {
        nodes.iter().fold(BTreeMap::<String, usize>::new(), |mut count, node| {
            *count.entry(node["cluster_id"].as_str().unwrap().to_owned()).or_default() += 1;
            count
        })
    };
    for label in LABELS {
        let count = count(rig.nodes(label).await);
        assert_eq!(count.keys().collect::<Vec<_>>(), ["one", "two"], "{label}");
        assert_eq!(count["one"], count["two"], "{label}");
    }
    let crossing = rig
        .read(
            "MATCH (a)-[r]->(b) WHERE a.cluster_id IS NOT NULL AND b.cluster_id IS NOT NULL AND a.cluster_id <> b.cluster_id \
             RETURN count(r) AS crossing",
        )
        .await;
    assert_eq!(crossing, [json!({ "crossing": 0 })]);

    // A run of one alone touches nothing of the other, even where everything of it is gone.
    let of_one = |graph: BTreeMap<String, Vec<Map<String, Value>>>| {
        graph
            .into_iter()
            .map(|(kind, rows)| {
                (kind, rows.into_iter().filter(|row| row["cluster_id"] == "one").collect::<Vec<_>>())
            })
            .collect::<BTreeMap<_, _>>()
    };
    let before = of_one(rig.stable(&[]).await);
    let world = two.world().unwrap();
    let vmids = world.read(|state| state.guests.keys().copied().collect::<Vec<_>>());
    vmids.iter().for_each(|vmid| world.remove_guest(*vmid).unwrap());
    let rig = rig.without_clusters().cluster(None, &two, world.credential(ROOT_TOKEN).as_ref());
    rig.sync(6).await.says(&["40 of 40 ProxmoxVM", "--max-delete-percent 100"]);
    assert_eq!(rig.nodes("ProxmoxVM").await.len(), 80);
    let ran = rig.run(&["sync", "-o", "json", "--max-delete-percent", "100"]).await.ended(0);
    assert_eq!(ran.counts("ProxmoxVM")[3], 40);
    assert_eq!(rig.nodes("ProxmoxVM").await.len(), 40);
    assert_eq!(of_one(rig.stable(&[]).await), before);
    one.shutdown().await;
    two.shutdown().await;
}
on_both_stores!(side_by_side => two_clusters_that_share_every_name_live_side_by_side);

async fn a_second_cluster_under_the_firsts_name_is_refused(graph: &Graph) {
    let (one, two) = (serve("rig", 20).await, serve("rig", 30).await);
    let rig = rig(graph, &[(None, &one)]);
    rig.sync(0).await;
    let before = rig.stable(&[]).await;
    let credential = two.world().unwrap().credential(ROOT_TOKEN);
    let rig = rig.without_clusters().cluster(None, &two, credential.as_ref());
    rig.run(&["sync"]).await.ended(10).says(&[
        "knows another cluster as",
        "rig",
        "--accept-new-authority rig",
    ]);
    assert_eq!(rig.stable(&[]).await, before);
    // Under a name of its own it is welcome.
    let rig = rig.without_clusters().cluster(Some("rig2"), &two, credential.as_ref());
    rig.sync(0).await;
    assert_eq!(rig.nodes("ProxmoxVM").await.len(), 50);
    // Two of one run as well.
    let first = one.world().unwrap().credential(ROOT_TOKEN);
    let rig = rig.without_clusters().cluster(None, &one, first.as_ref()).cluster(None, &one, first.as_ref());
    rig.run(&["sync"]).await.ended(3).says(&["two of the configured clusters are"]);
    one.shutdown().await;
    two.shutdown().await;
}
on_both_stores!(same_name => a_second_cluster_under_the_firsts_name_is_refused);

async fn an_offline_node_loses_nothing(graph: &Graph) {
    let server = serve("rig", 60).await;
    let rig = rig(graph, &[(None, &server)]);
    rig.sync(0).await;
    let world = server.world().unwrap();
    let node = world.read(|state| state.nodes.keys().nth(1).unwrap().clone());
    let left_out: Vec<&str> = METRICS.into_iter().chain(["status", "stale_since", "nodes_online"]).collect();
    let before = rig.stable(&left_out).await;
    world.set_node_online(&node, false).unwrap();
    rig.sync(3).await.says(&["the node is offline"]);
    assert_eq!(rig.stable(&left_out).await, before);
    // After some minutes PVE has forgotten their names.
    world.forget_offline(&node).unwrap();
    rig.sync(3).await;
    assert_eq!(rig.stable(&left_out).await, before);
    let unknown =
        rig.read("MATCH (v:ProxmoxVM) WHERE v.status = 'unknown' RETURN DISTINCT v.node AS node").await;
    assert_eq!(unknown, [json!({ "node": node })]);
    // As configured, that is a success.
    let mut rig = rig;
    rig.settings = "\n[sync]\noffline_nodes = \"ok\"\n".to_owned();
    rig.sync(0).await;
    world.set_node_online(&node, true).unwrap();
    rig.sync(0).await;
    assert_eq!(rig.stable(&METRICS).await.get("ProxmoxDisk"), before.get("ProxmoxDisk"));
    assert_eq!(
        rig.read("MATCH (n) WHERE n.stale_since IS NOT NULL RETURN count(n) AS n").await,
        [json!({ "n": 0 })]
    );
    server.shutdown().await;
}
on_both_stores!(offline => an_offline_node_loses_nothing);

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_under_a_new_name_is_not_taken_for_another() {
    let server = serve("rig", 20).await;
    let rig = rig(&Graph::Embedded, &[(None, &server)]);
    rig.sync(0).await;
    let before = rig.stable(&[]).await;
    let credential = server.world().unwrap().credential(ROOT_TOKEN);
    let rig = rig.without_clusters().cluster(Some("other"), &server, credential.as_ref());
    rig.run(&["sync"]).await.ended(10).says(&["set name = \"rig\"", "reset --cluster rig"]);
    assert_eq!(rig.stable(&[]).await, before);
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_can_not_be_told_from_another_is_not_swept() {
    let server = serve("rig", 20).await;
    let rig = rig(&Graph::Embedded, &[(None, &server)]);
    rig.sync(0).await;
    let world = server.world().unwrap();
    for node in world.read(|state| state.nodes.keys().cloned().collect::<Vec<_>>()) {
        let path = format!("/nodes/{node}/certificates/info");
        server.faults().add(FaultRule::at(&path, Fault::Status { status: 500, reason: "no".into() }));
    }
    let gone = world.read(|state| *state.guests.keys().next().unwrap());
    world.remove_guest(gone).unwrap();
    let ran = rig.sync(3).await.says(&["certificate authority could not be read"]);
    assert_eq!(ran.counts("ProxmoxVM")[3], 0);
    server.faults().clear();
    assert_eq!(rig.sync(0).await.counts("ProxmoxVM")[3], 1);
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_could_not_reach_its_cluster_is_recorded() {
    let server = serve("rig", 20).await;
    let rig = rig(&Graph::Embedded, &[(Some("rig"), &server)]);
    rig.sync(0).await;
    server.shutdown().await;
    rig.run(&["sync"]).await.ended(13);
    let runs = rig
        .read("MATCH (r:ProxmoxSyncRun) RETURN r.status AS status, r.reason AS reason, r.finished_at AS at ORDER BY r.tag")
        .await;
    assert_eq!(runs.len(), 2);
    assert_eq!((&runs[0]["status"], &runs[1]["status"]), (&json!("complete"), &json!("failed")));
    assert!(runs[1]["reason"].as_str().unwrap().contains("cannot connect"), "{runs:?}");
    assert!(runs[1]["at"].as_i64() > runs[0]["at"].as_i64());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_node_does_not_shrink_a_storage() {
    let server = serve("rig", 20).await;
    let rig = rig(&Graph::Embedded, &[(None, &server)]);
    rig.sync(0).await;
    let total = || rig.read("MATCH (s:ProxmoxStorage) WHERE s.name = 'local' RETURN s.total AS total");
    let before = total().await;
    assert!(before[0]["total"].as_i64().unwrap() > 0);
    let fault = Fault::Status { status: 500, reason: "got timeout".into() };
    server.faults().add(FaultRule::at("/nodes/pve2/storage", fault));
    rig.sync(3).await;
    assert_eq!(total().await, before);
    server.shutdown().await;
}

/// A token without `Sys.Audit` can't ask for the quorum; that most nodes are offline it sees.
#[tokio::test(flavor = "multi_thread")]
async fn a_limited_token_in_a_minority_deletes_nothing() {
    let server = serve("rig", 30).await;
    let world = server.world().unwrap();
    let rig = rig(&Graph::Embedded, &[(None, &server)]);
    rig.sync(0).await;
    let token = world.add_token("vms@pve", "limited", "PVEVMAdmin", "/vms").unwrap();
    let rig = rig.without_clusters().cluster(Some("rig"), &server, Some(&token));
    let nodes = world.read(|state| state.nodes.keys().cloned().collect::<Vec<_>>());
    let gone = world.read(|state| {
        state.guests.values().find(|guest| *guest.node == *nodes[0]).map(|guest| guest.vmid).unwrap()
    });
    world.remove_guest(gone).unwrap();
    for node in &nodes[1..] {
        world.set_node_online(node, false).unwrap();
    }
    let ran = rig.run(&["sync", "-o", "json"]).await.ended(3);
    assert_eq!(ran.counts("ProxmoxVM")[3], 0);
    assert_eq!(guest(&rig, gone).await["vmid"], gone);
    // With the others back, the same token proves it gone.
    for node in &nodes[1..] {
        world.set_node_online(node, true).unwrap();
    }
    assert_eq!(rig.sync(0).await.counts("ProxmoxVM")[3], 1);
    server.shutdown().await;
}
