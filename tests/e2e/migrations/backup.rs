//! `pvegraph migrate backup` and `restore` by the program itself, of what its syncs wrote.

use std::fs;

use pve_sim::{ROOT_TOKEN, SimOptions, SimServer, World, WorldSpec};
use pvegraph_embedded_store::{EmbeddedStore, Mode};
use pvegraph_graph::Store;
use pvegraph_graph::labels::LEASE;
use pvegraph_testkit::fresh;
use serde_json::{Value, json};

use super::neo4j_store;
use crate::on_both_stores;
use crate::support::{Graph, LABELS, Rig};

const SEED: u64 = 20_261_127;

/// A cluster of 3 nodes and 40 guests, which two syncs wrote.
async fn synced(graph: &Graph) -> (SimServer, Rig) {
    println!("seed {SEED}");
    let world = World::generate(&WorldSpec::new("rig", 3, 40, SEED));
    let server = SimServer::start(world, SimOptions::default()).await.unwrap();
    let credential = server.world().unwrap().credential(ROOT_TOKEN);
    let rig = Rig::new(graph).cluster(None, &server, credential.as_ref());
    rig.sync(0).await;
    rig.sync(0).await;
    (server, rig)
}

/// Has the program write a backup, and answers its lines without the header, which has the time.
async fn backup(rig: &Rig, file: &str) -> Vec<String> {
    let said = rig.run(&["migrate", "backup", file, "--force", "-o", "json"]).await.ended(0).rows();
    let text = fs::read_to_string(rig.dir.path().join(file)).unwrap();
    let lines: Vec<String> = text.lines().skip(1).map(str::to_owned).collect();
    let end: Value = serde_json::from_str(lines.last().unwrap()).unwrap();
    assert_eq!(said, [end["end"].clone()]);
    lines
}

/// Asserts equality without printing thousands of lines.
#[track_caller]
fn same(after: &[String], before: &[String]) {
    let differ = after.iter().zip(before).find(|(one, other)| one != other);
    assert!(
        differ.is_none() && after.len() == before.len(),
        "{} and {}: {differ:#?}",
        after.len(),
        before.len()
    );
}

async fn restored(rig: &Rig, file: &str) {
    rig.run(&["migrate", "restore", file, "--yes"]).await.ended(0);
}

async fn a_restored_backup_is_the_graph_it_was_taken_from(graph: &Graph) {
    let (server, rig) = synced(graph).await;
    let before = rig.stable(&[]).await;
    let lines = backup(&rig, "before.jsonl").await;
    let scopes = "MATCH (:ProxmoxSyncRun)-[r:COLLECTED]->(:ProxmoxCluster) RETURN count(r) AS n";
    let collected = lines.iter().filter(|line| line.contains("\"type\":\"COLLECTED\"")).count();
    assert!(collected > 2, "no run has two scopes");
    assert_eq!(rig.read(scopes).await, [json!({ "n": collected })]);
    same(&backup(&rig, "twice.jsonl").await, &lines);

    rig.run(&["reset", "--yes"]).await.ended(0);
    assert_eq!(rig.nodes("ProxmoxVM").await.len(), 0);
    restored(&rig, "before.jsonl").await;
    same(&backup(&rig, "after.jsonl").await, &lines);
    assert_eq!(rig.stable(&[]).await, before);

    // Changed, removed and added.
    let world = server.world().unwrap();
    let state = world.read(Clone::clone);
    let vmids: Vec<u32> = state.guests.keys().copied().collect();
    world.remove_guest(vmids[0]).unwrap();
    world.set_tags(vmids[1], &["damaged"]).unwrap();
    world.grow(2);
    rig.sync(0).await;
    assert_ne!(rig.stable(&[]).await, before);
    restored(&rig, "before.jsonl").await;
    same(&backup(&rig, "after.jsonl").await, &lines);
    assert_eq!(rig.stable(&[]).await, before);

    world.update(|now| *now = state);
    let ran = rig.sync(0).await;
    for label in LABELS {
        let [created, updated, unchanged, deleted, kept] = ran.counts(label);
        assert_eq!([created, updated, deleted, kept], [0; 4], "{label}");
        assert_eq!(unchanged as usize, before[label].len(), "{label}");
    }
    server.shutdown().await;
}
on_both_stores!(round_trip => a_restored_backup_is_the_graph_it_was_taken_from);

async fn a_backup_restores_into_a_new_database(graph: &Graph) {
    let (server, rig) = synced(graph).await;
    let before = rig.stable(&[]).await;
    let lines = backup(&rig, "before.jsonl").await;
    let path = rig.dir.path().join("graph.kgl");
    let schema = async || match graph {
        Graph::Neo4j(server) => neo4j_store(server).schema_objects().await.unwrap(),
        Graph::Embedded => EmbeddedStore::open(&path, Mode::Read).unwrap().schema_objects().await.unwrap(),
    };
    let objects = schema().await;
    assert!(!objects.is_empty());
    match graph {
        Graph::Neo4j(server) => server.wipe().await,
        Graph::Embedded => fs::remove_file(&path).unwrap(),
    }
    // A file that is none leaves even the schema alone.
    fs::write(rig.dir.path().join("cut.jsonl"), lines.join("\n")).unwrap();
    rig.run(&["migrate", "restore", "cut.jsonl", "--yes"]).await.ended(1).says(&["not a header"]);
    if let Graph::Neo4j(_) = graph {
        assert!(schema().await.iter().all(|object| object.label == LEASE));
    }
    restored(&rig, "before.jsonl").await;
    assert_eq!(schema().await, objects);
    same(&backup(&rig, "after.jsonl").await, &lines);
    assert_eq!(rig.stable(&[]).await, before);
    assert_eq!(rig.sync(0).await.counts("ProxmoxVM"), [0, 0, 40, 0, 0]);
    server.shutdown().await;
}
on_both_stores!(new_database => a_backup_restores_into_a_new_database);

async fn a_truncated_backup_changes_nothing(graph: &Graph) {
    let (server, rig) = synced(graph).await;
    let before = rig.stable(&[]).await;
    let lines = backup(&rig, "whole.jsonl").await;
    let text = fs::read_to_string(rig.dir.path().join("whole.jsonl")).unwrap();
    let half = text.lines().take(lines.len() / 2).collect::<Vec<_>>().join("\n");
    let without_its_end = text.lines().take(lines.len()).collect::<Vec<_>>().join("\n");
    let header = text.lines().next().unwrap().to_owned();
    for (cut, reason) in [
        (half, "the dump is cut off after it"),
        (without_its_end, "the dump is cut off after it"),
        (header, "the dump is cut off after it"),
        (text[..text.len() / 2].trim_end().to_owned() + "{", "is not a line of a dump"),
        (String::new(), "the dump is cut off after it"),
    ] {
        fs::write(rig.dir.path().join("cut.jsonl"), cut).unwrap();
        rig.run(&["migrate", "restore", "cut.jsonl", "--yes"])
            .await
            .ended(1)
            .says(&[reason, "Nothing was restored"]);
    }
    rig.run(&["migrate", "restore", "absent.jsonl", "--yes"]).await.ended(1).says(&["absent.jsonl"]);
    same(&backup(&rig, "after.jsonl").await, &lines);
    assert_eq!(rig.stable(&[]).await, before);
    server.shutdown().await;
}
on_both_stores!(truncated => a_truncated_backup_changes_nothing);

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_taken_back_needs_a_yes() {
    let (server, rig) = synced(&Graph::Embedded).await;
    let before = rig.stable(&[]).await;
    rig.run(&["migrate", "backup", "one.jsonl"]).await.ended(0);
    let file = rig.dir.path().join("one.jsonl");
    let text = fs::read_to_string(&file).unwrap();
    rig.run(&["migrate", "backup", "one.jsonl"])
        .await
        .ended(1)
        .says(&["one.jsonl is there already", "--force"]);
    assert_eq!(fs::read_to_string(&file).unwrap(), text);
    rig.run(&["migrate", "restore", "one.jsonl"]).await.ended(10).says(&["--yes"]);
    rig.run(&["migrate", "down", "--to", "0"]).await.ended(10).says(&["--yes"]);
    assert_eq!(rig.stable(&[]).await, before);
    let pending = rig.run(&["migrate", "status", "-o", "json"]).await.ended(0).rows();
    assert!(pending.iter().all(|one| one["state"] == "applied"), "{pending:?}");
    rig.run(&["migrate", "down", "--to", "0", "--yes"]).await.ended(0);
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_the_other_store_is_refused() {
    let db = fresh().await;
    let (one, neo4j) = synced(&Graph::Neo4j((*db).clone())).await;
    let (two, embedded) = synced(&Graph::Embedded).await;
    for (from, to, said) in [
        (&neo4j, &embedded, "it comes from the neo4j store, whose keys are not those of the embedded store"),
        (&embedded, &neo4j, "it comes from the embedded store, whose keys are not those of the neo4j store"),
    ] {
        backup(from, "other.jsonl").await;
        let lines = backup(to, "before.jsonl").await;
        let file = from.dir.path().join("other.jsonl");
        to.run(&["migrate", "restore", file.to_str().unwrap(), "--yes"]).await.ended(1).says(&[
            said,
            "restore it there",
            "Nothing was restored",
        ]);
        same(&backup(to, "after.jsonl").await, &lines);
    }
    one.shutdown().await;
    two.shutdown().await;
}
