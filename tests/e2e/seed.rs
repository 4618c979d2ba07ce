//! `pvegraph seed` and `pvegraph demo`: the simulated estate in either store, beside a cluster of one's own.

use pve_sim::{ROOT_TOKEN, SimOptions, SimServer, World, WorldSpec};
use serde_json::Value;

use crate::on_both_stores;
use crate::support::{Graph, LABELS, Rig};

const SEED: u64 = 20_261_129;
const ID: &str = "pvegraph-demo";

async fn serve(name: &str) -> SimServer {
    println!("seed {SEED}");
    let world = World::generate(&WorldSpec::new(name, 2, 10, SEED));
    SimServer::start(world, SimOptions::default()).await.unwrap()
}

/// The nodes of a label that belong to a cluster.
async fn count(rig: &Rig, label: &str, cluster: &str) -> usize {
    rig.nodes(label).await.iter().filter(|node| node["cluster_id"] == cluster).count()
}

/// A real cluster may be called as the simulated one calls itself.
async fn the_estate_lives_beside_a_cluster_of_the_same_name(graph: &Graph) {
    let server = serve("demo").await;
    let credential = server.world().unwrap().credential(ROOT_TOKEN);
    let rig = Rig::new(graph).cluster(None, &server, credential.as_ref());
    rig.sync(0).await;
    let before = rig.stable(&[]).await;

    let first = rig.run(&["seed", "-o", "json"]).await.ended(0);
    assert_eq!(first.counts("ProxmoxVM"), [24, 0, 0, 0, 0]);
    let clusters = rig.nodes("ProxmoxCluster").await;
    let seeded = clusters.iter().find(|cluster| cluster["cluster_id"] == ID).unwrap();
    assert_eq!(seeded["name"], "demo");
    let second = rig.run(&["seed", "demo", "-o", "json"]).await.ended(0);
    for label in LABELS {
        let [created, updated, unchanged, deleted, kept] = second.counts(label);
        // The simulator's authority is another one each time.
        let authority = u64::from(label == "ProxmoxCluster");
        assert_eq!([created, updated, deleted, kept], [0, authority, 0, 0], "{label}");
        assert_eq!((unchanged + updated) as usize, count(&rig, label, ID).await, "{label}");
    }

    rig.run(&["reset", "--cluster", ID, "--yes"]).await.ended(0);
    for label in LABELS {
        assert_eq!(count(&rig, label, ID).await, 0, "{label}");
    }
    assert_eq!(rig.stable(&[]).await, before);
    server.shutdown().await;
}
on_both_stores!(beside => the_estate_lives_beside_a_cluster_of_the_same_name);

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_has_the_estates_identifier_is_not_written_over() {
    let server = serve("mine").await;
    let credential = server.world().unwrap().credential(ROOT_TOKEN);
    let rig = Rig::new(&Graph::Embedded).cluster(Some(ID), &server, credential.as_ref());
    rig.sync(0).await;
    let before = rig.stable(&[]).await;
    rig.run(&["seed"]).await.ended(10).says(&[ID, "mine", "reset --cluster"]);
    assert_eq!(rig.stable(&[]).await, before);
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demonstration_ends_well_and_can_be_asked_further() {
    let rig = Rig::new(&Graph::Embedded);
    let ran = rig.run(&["demo", "--file", "demo.kgl"]).await.ended(0);
    for words in ["24 guests, 2 of them templates", "What next:", env!("CARGO_BIN_EXE_pvegraph")] {
        assert!(ran.out.contains(words), "{words:?} is not in: {}", ran.out);
    }
    for code in ["Q8", "R1", "R2", "R17", "R17b", "R18"] {
        let args = ["--store", "embedded:demo.kgl", "report", "run", code, "-o", "json"];
        assert!(!rig.run(&args).await.ended(0).rows().is_empty(), "{code} has no rows");
    }
    let query = "MATCH (v:ProxmoxVM) WHERE v.template RETURN count(v) AS n";
    let ran = rig.run(&["--store", "embedded:demo.kgl", "query", query, "-o", "json"]).await.ended(0);
    assert_eq!(ran.rows()[0]["n"], Value::from(2));
}
