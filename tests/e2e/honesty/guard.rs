//! 10: the sweep guard stops a run that would delete more than its share, says why, and is passed by a named option.
//!
//! Seen failing with: `Guard::check` that always allows.

use pve_sim::{ROOT_TOKEN, SimOptions, SimServer, World, WorldSpec};
use pvegraph_testkit::emptied;
use serde_json::json;

use crate::support::{Graph, Rig};

const SEED: u64 = 20_261_132;

#[tokio::test(flavor = "multi_thread")]
async fn item_10_the_guard_stops_says_why_and_is_passed_by_an_option() {
    println!("seed {SEED}");
    let db = emptied().await;
    let world = World::generate(&WorldSpec::new("rig", 3, 30, SEED));
    let server = SimServer::start(world, SimOptions::default()).await.unwrap();
    let world = server.world().unwrap();
    let graph = Graph::Neo4j((*db).clone());
    let rig = Rig::new(&graph).cluster(None, &server, world.credential(ROOT_TOKEN).as_ref());
    rig.sync(0).await;
    let disks = rig.nodes("ProxmoxDisk").await.len();
    let vmids = world.read(|state| state.guests.keys().copied().collect::<Vec<_>>());
    let (gone, left) = vmids.split_at(12);
    gone.iter().for_each(|vmid| world.remove_guest(*vmid).unwrap());
    world.rename(left[0], "renamed").unwrap();

    // Two runs: a guarded one does not make the next one think better of it.
    for updated in [1, 0] {
        let ran =
            rig.sync(6).await.says(&["12 of 30 ProxmoxVM (40 %)", "more than 30 %", "--max-delete-percent"]);
        assert_eq!(ran.counts("ProxmoxVM"), [0, updated, 18 - updated, 0, 12]);
        assert_eq!(rig.nodes("ProxmoxDisk").await.len(), disks);
        let stale = "MATCH (v:ProxmoxVM) WHERE v.stale_since IS NOT NULL RETURN count(v) AS n";
        assert_eq!(rig.read(stale).await, [json!({ "n": 12 })]);
        let last = "MATCH (r:ProxmoxSyncRun) WITH r ORDER BY r.tag DESC LIMIT 1 \
                    RETURN r.status AS status, r.blocked CONTAINS '12 of 30 ProxmoxVM' AS said";
        assert_eq!(rig.read(last).await, [json!({ "status": "partial", "said": true })]);
        let renamed = "MATCH (v:ProxmoxVM) WHERE v.name = 'renamed' RETURN count(v) AS n";
        assert_eq!(rig.read(renamed).await, [json!({ "n": 1 })]);
    }
    let ran = rig.run(&["sync", "-o", "json", "--max-delete-percent", "50"]).await.ended(0);
    assert_eq!(ran.counts("ProxmoxVM"), [0, 0, 18, 12, 0]);
    assert_eq!(rig.nodes("ProxmoxVM").await.len(), 18);
    server.shutdown().await;
}
