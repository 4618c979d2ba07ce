//! At most one sync writes to a graph: real processes, of one host and of several.
//!
//! A host is a directory for lock files. A process is held where a test wants it by a simulated cluster that answers 503, which
//! is asked again for a quarter of a minute at least, until the test lets it go on.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use pve_sim::{Fault, FaultRule, ROOT_TOKEN, SimOptions, SimServer, World, WorldSpec};
use pvegraph_graph::labels::{LEASE, MIGRATION};
use pvegraph_testkit::fresh;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::contract::{neo4j, whole};
use crate::support::{Graph, Ran, Rig};

const SEED: u64 = 20_261_121;
const GUESTS: usize = 40;

async fn serve() -> SimServer {
    println!("seed {SEED}");
    let world = World::generate(&WorldSpec::new("rig", 3, GUESTS, SEED));
    SimServer::start(world, SimOptions::default()).await.unwrap()
}

fn rig(graph: &Graph, servers: &[(&str, &SimServer)]) -> Rig {
    servers.iter().fold(Rig::new(graph), |rig, (name, server)| {
        let credential = server.world().unwrap().credential(ROOT_TOKEN);
        rig.cluster(Some(name), server, credential.as_ref())
    })
}

/// Holds every request for a path that begins so.
fn hold(server: &SimServer, path: &str) {
    let fault = Fault::BareStatus { status: 503, reason: "Service Unavailable".to_owned() };
    server.faults().add(FaultRule::below(path, fault));
}

fn command(rig: &Rig, host: &Path, args: &[&str]) -> Command {
    let mut command = rig.command(args);
    command.env("XDG_RUNTIME_DIR", host).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn start(rig: &Rig, host: &Path, args: &[&str]) -> Child {
    command(rig, host, args).spawn().unwrap()
}

/// One process on each host, at once: the configuration, which a command writes, is there before either reads it.
fn start_together(rig: &Rig, hosts: &[TempDir; 2], args: &[&str]) -> [Child; 2] {
    hosts.each_ref().map(|host| command(rig, host.path(), args)).map(|mut command| command.spawn().unwrap())
}

async fn end(child: Child) -> Ran {
    let output = child.wait_with_output().await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

async fn run(rig: &Rig, host: &Path, args: &[&str]) -> Ran {
    end(start(rig, host, args)).await
}

/// Waits for what must come true, much longer than it takes.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(120);
    while !holds().await {
        assert!(Instant::now() < end, "{what} did not come about");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Whether requests below this path were sent.
fn asked(server: &SimServer, path: &str) -> bool {
    server.counters().by_path().keys().any(|asked| asked.starts_with(path))
}

fn ids(rows: &[Value]) -> Vec<&str> {
    rows.iter().map(|row| row["id"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_hosts_that_start_together_one_works() {
    let db = fresh().await;
    let server = serve().await;
    let rig = rig(&Graph::Neo4j((*db).clone()), &[("rig", &server)]);
    let hosts = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    // The first round begins with an empty database, which both would migrate.
    for round in 0..3 {
        hold(&server, "/");
        let [one, other] =
            start_together(&rig, &hosts, &["sync", "-o", "json"]).map(|child| Box::pin(end(child)));
        let (loser, winner) = match futures::future::select(one, other).await {
            futures::future::Either::Left(ended) => ended,
            futures::future::Either::Right((loser, winner)) => (loser, winner),
        };
        loser.ended(11).says(&["another sync is writing to this graph", "try again later"]);
        if round == 0 {
            until("the other one asks", async || asked(&server, "/")).await;
            let labels = "MATCH (n) UNWIND labels(n) AS id RETURN DISTINCT id ORDER BY id";
            let rows = db.cypher(labels, json!({})).await;
            assert_eq!(ids(&rows), [LEASE, MIGRATION], "neither has written anything else");
        }
        server.faults().clear();
        let winner = winner.await.ended(0);
        let [created, updated, unchanged, deleted, kept] = winner.counts("ProxmoxVM");
        assert_eq!([updated, deleted, kept], [0; 3]);
        assert_eq!(if round == 0 { created } else { unchanged }, GUESTS as u64);
    }
    let runs = db
        .cypher(
            "MATCH (r:ProxmoxSyncRun) WHERE r.status = 'complete' RETURN r.id AS id, r.tag AS tag",
            json!({}),
        )
        .await;
    assert_eq!(runs.len(), 3, "{runs:?}");
    let leases = db.cypher("MATCH (l:PvegraphLease) RETURN l.id AS id, l.holder AS holder", json!({})).await;
    assert_eq!(leases, [json!({ "id": "sync", "holder": null })]);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_hosts_that_migrate_together_none_does_harm() {
    let db = fresh().await;
    let rig = Rig::new(&Graph::Neo4j((*db).clone()));
    let hosts = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    for _ in 0..4 {
        db.wipe().await;
        let started = start_together(&rig, &hosts, &["migrate", "up"]);
        let ended = futures::future::join_all(started.map(end)).await;
        let codes: Vec<_> = ended.iter().map(|ran| ran.code).collect();
        assert!(
            codes.contains(&Some(0)) && codes.iter().all(|code| matches!(code, Some(0 | 11))),
            "{ended:?}"
        );
        let leases =
            db.cypher("MATCH (l:PvegraphLease) RETURN l.id AS id, l.holder AS holder", json!({})).await;
        assert_eq!(leases, [json!({ "id": "sync", "holder": null })]);
        let status = rig.run(&["migrate", "status", "-o", "json"]).await.ended(0).rows();
        assert!(status.iter().all(|one| one["state"] == "applied"), "{status:?}");
    }
}

/// On one host the lock file stops the second before it asks anybody, whichever the store.
async fn on_one_host_the_second_is_refused(graph: &Graph) {
    let server = serve().await;
    let rig = rig(graph, &[("rig", &server)]);
    let host = TempDir::new().unwrap();
    hold(&server, "/");
    let first = start(&rig, host.path(), &["sync", "-o", "json"]);
    until("the first asks", async || asked(&server, "/")).await;
    for args in [&["sync"][..], &["migrate", "up"], &["migrate", "down", "--to", "0", "--yes"]] {
        run(&rig, host.path(), args).await.ended(11).says(&[
            "another pvegraph on this host",
            "lock file",
            "try again later",
        ]);
    }
    let elsewhere = TempDir::new().unwrap();
    let refused = run(&rig, elsewhere.path(), &["sync"]).await.ended(11);
    match graph {
        Graph::Neo4j(_) => refused.says(&["another sync is writing to this graph"]),
        Graph::Embedded => refused.says(&["graph.kgl is in use by another process"]),
    };
    // Whoever only reads is let.
    run(&rig, host.path(), &["migrate", "status"]).await.ended(0);
    run(&rig, host.path(), &["report", "run", "Q1"]).await.ended(0);
    server.faults().clear();
    assert_eq!(end(first).await.ended(0).counts("ProxmoxVM")[0], GUESTS as u64);
    run(&rig, host.path(), &["sync"]).await.ended(0);
}
crate::on_both_stores!(one_host => on_one_host_the_second_is_refused);

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_sync_does_not_stop_the_next_of_its_host() {
    let db = fresh().await;
    let server = serve().await;
    let rig = rig(&Graph::Neo4j((*db).clone()), &[("rig", &server)]);
    let (host, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    hold(&server, "/nodes/pve2/qemu/");
    let mut killed = start(&rig, host.path(), &["sync"]);
    // In the middle: some guests are there, and others are still asked for.
    let guests = "MATCH (v:ProxmoxVM) RETURN count(v) AS n";
    until("half of it is there", async || {
        asked(&server, "/nodes/pve2/qemu/") && db.cypher(guests, json!({})).await[0]["n"].as_i64() > Some(0)
    })
    .await;
    killed.kill().await.unwrap();
    let there = db.cypher(guests, json!({})).await[0]["n"].as_u64().unwrap();
    assert!((1..GUESTS as u64).contains(&there), "{there}");
    let lost = "MATCH (v:ProxmoxVM) WHERE NOT EXISTS { (:ProxmoxNode)-[:HOSTS_VM]->(v) } RETURN v.id AS id";
    assert_eq!(db.cypher(lost, json!({})).await, Vec::<Value>::new(), "no guest without its node");
    server.faults().clear();

    // Another host can't know that it is dead, and waits for the lease to end.
    run(&rig, other.path(), &["sync"]).await.ended(11).says(&["another sync is writing to this graph"]);
    let ran = run(&rig, host.path(), &["sync", "-o", "json"]).await.ended(0);
    assert_eq!(ran.counts("ProxmoxVM"), [GUESTS as u64 - there, 0, there, 0, 0]);
    run(&rig, other.path(), &["sync"]).await.ended(0);
    let runs = db.cypher("MATCH (r:ProxmoxSyncRun) RETURN r.status AS id ORDER BY r.tag", json!({})).await;
    assert_eq!(ids(&runs), ["running", "complete", "complete"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_that_lost_its_lease_writes_nothing_more() {
    let db = fresh().await;
    let (first, second) = (serve().await, serve().await);
    // One cluster, then two: what is done with the first must not hide that the lease was lost in the second.
    for clusters in [&[("held", &second)][..], &[("whole", &first), ("held", &second)]] {
        db.wipe().await;
        let rig = rig(&Graph::Neo4j((*db).clone()), clusters);
        let host = TempDir::new().unwrap();
        hold(&second, "/nodes/pve2/qemu/");
        let loser = start(&rig, host.path(), &["sync", "-o", "json"]);
        let guests = "MATCH (v:ProxmoxVM) WHERE v.cluster_id = 'held' RETURN count(v) AS n";
        until("half of it is there", async || {
            asked(&second, "/nodes/pve2/qemu/")
                && db.cypher(guests, json!({})).await[0]["n"].as_i64() > Some(0)
        })
        .await;
        let taken =
            "MATCH (l:PvegraphLease) SET l.number = l.number + 1, l.holder = 'a thief' RETURN l.holder AS id";
        assert_eq!(ids(&db.cypher(taken, json!({})).await), ["a thief"]);
        let store = neo4j(&db);
        let then = whole(&store, &[]).await;
        second.faults().clear();
        end(loser).await.ended(11).says(&["nothing was written"]);
        assert_eq!(whole(&store, &[]).await, then, "it wrote when its lease was lost");

        // The thief is gone, and the lock that this lease was taken under is free again.
        run(&rig, host.path(), &["sync"]).await.ended(0);
        assert_eq!(db.cypher(guests, json!({})).await, [json!({ "n": GUESTS })]);
    }
}
