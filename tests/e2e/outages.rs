//! A Neo4j that is slow, stands still, has no memory left, or may only be read: the run says so and ends, or goes on; what was there
//! stays, and the run after the outage leaves what an undisturbed run would.
//!
//! One that is killed and comes back is in `kills.rs`; one that never answers, or is not there, in `bad_input.rs` and `store.rs`.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use pve_sim::{ROOT_TOKEN, SimOptions, SimServer, World, WorldSpec};
use pvegraph_testkit::{Neo4jServer, Settings, emptied};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::kills::{Estate, GUESTS, Start, tag};
use crate::soak::changes::nothing_paused;
use crate::soak::expected::{self, Expected};
use crate::soak::{graph, seed, times};
use crate::support::{Graph, Rig};

/// A way to the server that is slow, or gives way no more.
struct Proxy {
    delay: Arc<AtomicU64>,
    still: Arc<AtomicBool>,
    server: Neo4jServer,
}

impl Proxy {
    async fn before(db: &Neo4jServer) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let target = db.bolt_uri.strip_prefix("bolt://").unwrap().to_owned();
        let (delay, still) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let settings = (Arc::clone(&delay), Arc::clone(&still));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(&target).await else { continue };
                let ((from, to), (back, out)) = (client.into_split(), server.into_split());
                for (mut read, mut write) in [(from, out), (back, to)] {
                    let (delay, still) = settings.clone();
                    tokio::spawn(async move {
                        let mut bytes = vec![0; 64 * 1024];
                        while let Ok(count @ 1..) = read.read(&mut bytes).await {
                            tokio::time::sleep(Duration::from_millis(delay.load(Ordering::Relaxed))).await;
                            while still.load(Ordering::Relaxed) {
                                tokio::time::sleep(Duration::from_millis(20)).await;
                            }
                            if write.write_all(&bytes[..count]).await.is_err() {
                                break;
                            }
                        }
                    });
                }
            }
        });
        let server = Neo4jServer { bolt_uri: format!("bolt://{address}"), ..db.clone() };
        Self { delay, still, server }
    }
}

/// A program beside another, with the same cluster and another way to the graph.
fn through(server: &Neo4jServer, estate: &Estate, settings: &str) -> Rig {
    let credential = estate.server.world().unwrap().credential(ROOT_TOKEN);
    let mut rig = Rig::new(&Graph::Neo4j(server.clone())).cluster(None, &estate.server, credential.as_ref());
    rig.settings = settings.to_owned();
    rig
}

/// Seen failing with: volumes that stay on their old storage as well.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_server_is_waited_for_and_one_that_stands_still_is_given_up() {
    let seed = seed();
    let db = emptied().await;
    let (estate, rig) = Estate::new(&db, seed, GUESTS).await;
    let before = estate.begin(&db, Start::Changed).await;
    rig.sync(0).await;
    let wanted = estate.end("undisturbed", &db, before, &[]).await;

    let proxy = Proxy::before(&db).await;
    proxy.delay.store(40, Ordering::Relaxed);
    let before = estate.begin(&db, Start::Changed).await;
    through(&proxy.server, &estate, "").run(&["sync", "-o", "json"]).await.ended(0);
    graph::same("slow", &estate.end("slow", &db, before, &[]).await, &wanted);

    // From the moment on at which it writes, nothing comes through any more.
    let before = estate.begin(&db, Start::Changed).await;
    let hasty = through(&proxy.server, &estate, "connect_timeout = \"3s\"\nrequest_timeout = \"3s\"\n");
    let run = tokio::spawn(async move { hasty.run(&["sync", "-o", "json"]).await });
    while tag(&db).await == before {
        assert!(!run.is_finished(), "PVEGRAPH_TEST_SEED={seed}: it ended before it began");
    }
    proxy.still.store(true, Ordering::Relaxed);
    let ran =
        tokio::time::timeout(Duration::from_secs(240), run).await.expect("the run does not end").unwrap();
    ran.ended(14).says(&["the graph store", "did not answer", "within 3 s"]);
    let cut = tag(&db).await;
    proxy.still.store(false, Ordering::Relaxed);
    // Another host can't tell that this run is dead: its lease is left to expire.
    let free = "MATCH (l:PvegraphLease) SET l.expires_at = 0";
    db.cypher(free, serde_json::Value::Null).await;
    rig.sync(0).await;
    graph::same("after it stood still", &estate.end("after", &db, before, &[cut]).await, &wanted);
    estate.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_memory_is_named_and_what_is_there_stays() {
    let seed = seed();
    // A heap of 512 MB, of which transactions may have little.
    let small = Settings::default().set("dbms.memory.transaction.total.max", "12m");
    let db = Neo4jServer::start_own(small).await;
    let world = World::generate(&WorldSpec::new("rig", 1, 20, seed));
    nothing_paused(&world);
    let server = SimServer::start(world, SimOptions::default()).await.unwrap();
    let world = server.world().unwrap();
    let rig =
        Rig::new(&Graph::Neo4j(db.clone())).cluster(None, &server, world.credential(ROOT_TOKEN).as_ref());
    rig.sync(0).await;
    let facts = async || expected::of_graph(&graph::read(&db).await);
    let before = facts().await;

    let more = world.grow(1_000);
    rig.run(&["sync"]).await.ended(14).says(&[
        "MemoryPoolOutOfMemoryError",
        "dbms.memory.transaction.total.max",
        "could not be written to the graph",
    ]);
    let after = facts().await;
    for (kind, rows) in &before {
        for key in rows.keys().filter(|_| kind != "BACKS_UP" && kind != "INCLUDES_DISK") {
            assert!(after[kind].contains_key(key), "PVEGRAPH_TEST_SEED={seed}: {kind} {key} is gone");
        }
    }
    // With less to do it is enough again.
    more.iter().for_each(|vmid| world.remove_guest(*vmid).unwrap());
    rig.run(&["sync", "--max-delete-percent", "100"]).await.ended(0);
    graph::same("afterwards", &facts().await, &world.read(|state| Expected::default().after(state)));
    server.shutdown().await;
}

/// With a heap of 512 MB and Neo4j's own limits an estate of any size is synced, because no transaction grows with it. That it could
/// be too large takes the long form: all of 20,000 guests in one transaction do not fit.
///
/// Seen failing with: batches without a bound (in the long form; Neo4j refuses them for want of memory).
#[tokio::test(flavor = "multi_thread")]
async fn a_large_estate_fits_through_a_small_server() {
    let seed = seed();
    let guests = times(600, 20_000);
    let db = emptied().await;
    // One node: as many guests in a listing as there can be.
    let world = World::generate(&WorldSpec::new("rig", 1, guests, seed));
    nothing_paused(&world);
    let server = SimServer::start(world, SimOptions::default()).await.unwrap();
    let world = server.world().unwrap();
    let rig =
        Rig::new(&Graph::Neo4j((*db).clone())).cluster(None, &server, world.credential(ROOT_TOKEN).as_ref());
    let ran = rig.sync(0).await;
    assert_eq!(ran.counts("ProxmoxVM")[0], guests as u64);
    let wanted = world.read(|state| Expected::default().after(state));
    let facts = expected::of_graph(&graph::read(&db).await);
    graph::same(&format!("PVEGRAPH_TEST_SEED={seed}"), &facts, &wanted);
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_may_only_be_read_is_named_and_stays_as_it_is() {
    let seed = seed();
    let mut db = Neo4jServer::start_own(Settings::default()).await;
    let (estate, rig) = Estate::new(&db, seed, GUESTS).await;
    let before = estate.begin(&db, Start::Changed).await;
    let then = graph::read(&db).await;
    db.configure("server.databases.read_only", "neo4j");
    db.restart().await;
    rig.run(&["sync"]).await.ended(14).says(&["read", "only"]);
    graph::same("read-only", &graph::read(&db).await, &then);
    // What only reads goes on.
    let rows = rig.run(&["report", "run", "Q1", "-o", "json"]).await.ended(0).rows();
    assert!(!rows.is_empty());

    db.configure("server.databases.read_only", "");
    db.restart().await;
    rig.sync(0).await;
    estate.end("writable again", &db, before, &[]).await;
    estate.server.shutdown().await;
}
