//! Reports as a program reads them: an empty answer is clean only where everything it rests on was seen.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use pve_sim::{Fault, FaultRule, POOL_TOKEN, ROOT_TOKEN, SimOptions, SimServer, World, WorldSpec};
use serde_json::{Value, json};

use crate::on_both_stores;
use crate::support::{Graph, Ran, Rig};

const SEED: u64 = 20_261_122;

async fn serve(spec: &WorldSpec) -> SimServer {
    println!("seed {SEED}");
    SimServer::start(World::generate(spec), SimOptions::default()).await.unwrap()
}

fn rig(server: &SimServer, token: &str) -> Rig {
    let credential = server.world().unwrap().credential(token);
    Rig::new(&Graph::Embedded).cluster(Some("rig"), server, credential.as_ref())
}

async fn r17(rig: &Rig, more: &[&str]) -> Ran {
    let args = ["report", "run", "R17", "-o", "json", "--fail-on", "warning"];
    rig.run(&[&args, more].concat()).await
}

/// No node is hot, and none is idle.
const NOTHING: [&str; 6] = ["-p", "cpu=9", "-p", "memory=9", "-p", "idle=-1"];
/// Each node is hot.
const EVERYTHING: [&str; 4] = ["-p", "cpu=0", "-p", "memory=0"];

/// `collector: status` of what an answer lacks, each once.
fn incomplete(ran: &Ran) -> Vec<String> {
    let document = ran.json();
    let list = document["incomplete"].as_array().unwrap();
    assert_eq!(document["complete"], list.is_empty());
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let mut all: Vec<String> =
        list.iter().map(|one| format!("{}: {}", text(&one["collector"]), text(&one["status"]))).collect();
    all.dedup();
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn findings_end_with_4_and_a_clean_answer_with_0() {
    let server = serve(&WorldSpec::new("rig", 3, 20, SEED)).await;
    let rig = rig(&server, ROOT_TOKEN);
    rig.sync(0).await;
    let ran = r17(&rig, &EVERYTHING).await.ended(4);
    assert_eq!(ran.rows().len(), 3);
    let ran = r17(&rig, &NOTHING).await.ended(0);
    assert_eq!((ran.rows().len(), incomplete(&ran).len(), ran.err.as_str()), (0, 0, ""));
    // The end of the run, to the second.
    let runs = rig.read("MATCH (r:ProxmoxSyncRun) RETURN r.finished_at AS at").await;
    let at: jiff::Timestamp = ran.json()["as_of"]["rig"].as_str().unwrap().parse().unwrap();
    assert_eq!(runs, [json!({ "at": at.as_second() })]);
    // Rows of a report that only informs are no warning.
    rig.run(&["report", "run", "R17b", "--fail-on", "warning"]).await.ended(0);
    rig.run(&["report", "run", "R17b", "--fail-on", "info"]).await.ended(4);
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_graph_without_clusters_is_not_clean() {
    let rig = Rig::new(&Graph::Embedded);
    rig.run(&["migrate", "up"]).await.ended(0);
    let ran = r17(&rig, &[]).await.ended(3).says(&["(none): nodes never", "no cluster has been synced"]);
    assert_eq!((ran.rows().len(), incomplete(&ran)), (0, vec!["nodes: never".to_owned()]));
    assert_eq!(ran.json()["as_of"], json!({}));
    // Without the flag it is an answer like another.
    rig.run(&["report", "run", "R17"]).await.ended(0).says(&["no cluster has been synced"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_token_may_not_see_is_not_clean() {
    let server = serve(&WorldSpec::new("rig", 3, 20, SEED)).await;
    let rig = rig(&server, POOL_TOKEN);
    rig.run(&["sync"]).await;
    let args = ["report", "run", "R17b", "-o", "json", "--fail-on", "warning"];
    let ran = rig.run(&args).await.ended(3);
    assert!(incomplete(&ran).iter().any(|one| one.ends_with(": filtered")), "{}", ran.out);
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_failed_is_not_clean_until_it_is_seen_again() {
    let server = serve(&WorldSpec::new("rig", 3, 20, SEED)).await;
    let rig = rig(&server, ROOT_TOKEN);
    let args = ["report", "run", "R17b", "-o", "json", "-p", "full=9", "--fail-on", "warning"];
    rig.sync(0).await;
    rig.run(&args).await.ended(0);
    let fault = Fault::Status { status: 500, reason: "no such storage".to_owned() };
    let node = server.world().unwrap().read(|state| state.nodes.keys().next().unwrap().clone());
    let rule = server.faults().add(FaultRule::at(&format!("/nodes/{node}/storage"), fault));
    rig.sync(3).await;
    let ran = rig.run(&args).await.ended(3).says(&["node_storages", node.as_str()]);
    assert_eq!(incomplete(&ran), ["node_storages: failed"]);
    server.faults().remove(rule);
    rig.sync(0).await;
    rig.run(&args).await.ended(0);

    // A run that could not read the cluster at all, after one that saw it whole.
    let before = rig.run(&args).await.json()["as_of"].clone();
    server.faults().add(FaultRule::below("/", Fault::Drop));
    rig.run(&["sync"]).await.ended(13);
    let ran = rig.run(&args).await.ended(3).says(&["rig: cluster failed"]);
    assert_eq!(incomplete(&ran), ["cluster: failed"]);
    assert_eq!(ran.json()["as_of"], before);
    server.shutdown().await;
}

const DAY: u64 = 86_400;

/// Gives a guest a chain of snapshots of one age, in seconds before now.
fn snapshots(world: &World, vmid: u32, names: &[&str], age: u64, with_memory: bool) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    for name in names {
        world.add_snapshot(vmid, name, "pa55word").unwrap();
    }
    world.update(|state| {
        for snapshot in &mut state.guests.get_mut(&vmid).unwrap().snapshots {
            (snapshot.time, snapshot.with_memory) = (now - age, with_memory);
        }
    });
}

async fn snapshots_that_are_old_deep_or_hold_memory_are_told(graph: &Graph) {
    let server = serve(&WorldSpec::new("rig", 2, 20, SEED)).await;
    let world = server.world().unwrap();
    let vmids = world.update(|state| {
        for guest in state.guests.values_mut() {
            guest.snapshots.clear();
            guest.config.remove("parent");
        }
        let machines = state.guests.values().filter(|guest| guest.kind == pve_sim::GuestKind::Qemu);
        machines.map(|guest| guest.vmid).take(4).collect::<Vec<_>>()
    });
    let [fresh, old, deep, memory] = vmids[..] else { panic!("{vmids:?}") };
    // An hour more than forty days: a sync lasts less.
    snapshots(&world, fresh, &["fresh"], 0, false);
    snapshots(&world, old, &["old"], 40 * DAY + 3_600, false);
    snapshots(&world, deep, &["1", "2", "3", "4", "5", "6"], 0, false);
    snapshots(&world, memory, &["memory"], 0, true);
    let credential = world.credential(ROOT_TOKEN);
    let rig = Rig::new(graph).cluster(Some("rig"), &server, credential.as_ref());
    rig.sync(0).await;
    let args = ["report", "run", "R18", "-o", "json", "--fail-on", "warning"];
    let told = |ran: &Ran| -> Vec<Value> {
        let mut rows = ran.rows();
        rows.sort_by_key(|row| row["vmid"].as_u64());
        rows.iter().map(|row| json!([row["vmid"], row["snapshot"], row["age_days"], row["depth"]])).collect()
    };
    let ran = rig.run(&args).await.ended(4);
    assert_eq!(
        told(&ran),
        [json!([old, "old", 40, 1]), json!([deep, "6", 0, 6]), json!([memory, "memory", 0, 1])]
    );
    // What people write into descriptions may be secret.
    assert!(!format!("{:?}", rig.stable(&[]).await).contains("pa55word"));

    // The one that holds memory is taken away, and the rest is accepted.
    world.update(|state| state.guests.get_mut(&memory).unwrap().snapshots.clear());
    rig.sync(0).await;
    let accepted = [&args[..], &["-p", "days=41", "-p", "chain=6"]].concat();
    assert_eq!(told(&rig.run(&accepted).await.ended(0)), Vec::<Value>::new());

    // A guest whose snapshots could not be read is not clean.
    let fault = Fault::Status { status: 500, reason: "got timeout".to_owned() };
    let node = world.read(|state| state.guests[&fresh].node.to_string());
    server.faults().add(FaultRule::at(&format!("/nodes/{node}/qemu/{fresh}/snapshot"), fault));
    rig.sync(3).await;
    let ran = rig.run(&accepted).await.ended(3).says(&["snapshots", node.as_str()]);
    assert_eq!(incomplete(&ran), ["snapshots: partial"]);
    server.shutdown().await;
}
on_both_stores!(old_snapshots => snapshots_that_are_old_deep_or_hold_memory_are_told);

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_report_or_parameter_is_refused() {
    let rig = Rig::new(&Graph::Embedded);
    rig.run(&["migrate", "up"]).await.ended(0);
    let run = |args: &'static [&'static str]| rig.run(args);
    let ran = run(&["report", "run", "R99"]).await.ended(1).says(&["no report \"R99\"", "R17b"]);
    assert_eq!(ran.out, "");
    run(&["report", "run", "R17", "-p", "cpuu=1"])
        .await
        .ended(1)
        .says(&["no parameter \"cpuu\"", "cpu, idle"]);
    let ran = run(&["report", "run", "R17", "-p", "cpu=hot"]).await.ended(1);
    assert_eq!(
        ran.err,
        "error: parameter \"cpu\" of report R17 is a number, such as 0.8, and not the text \"hot\"\n"
    );
    run(&["report", "run", "R17", "-p", "cpu=[1]"]).await.ended(1).says(&["not the list [1]"]);
    run(&["report", "run", "R17", "-p", "cpu=null"]).await.ended(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_comes_from_the_credentials_directory() {
    let server = serve(&WorldSpec::new("rig", 2, 10, SEED)).await;
    let rig = rig(&server, ROOT_TOKEN);
    let text = fs::read_to_string(rig.config()).unwrap();
    let without = text.replace("token_secret_file = \"0.token\"\n", "");
    assert_ne!(text, without);
    let path = rig.dir.path().join("credentials.toml");
    fs::write(&path, without).unwrap();
    let directory = rig.dir.path().join("credentials");
    fs::create_dir(&directory).unwrap();
    fs::rename(rig.dir.path().join("0.token"), directory.join("rig.token")).unwrap();
    let command = || {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_pvegraph"));
        command.env_clear().env("XDG_RUNTIME_DIR", rig.dir.path()).current_dir(rig.dir.path());
        command.arg("--config").arg(&path).args(["sync", "-o", "json"]).kill_on_drop(true);
        command
    };
    let missing = command().output().await.unwrap();
    let err = String::from_utf8(missing.stderr).unwrap();
    assert!(missing.status.code() == Some(10) && err.contains("systemd credential `rig.token`"), "{err}");
    let found = command().env("CREDENTIALS_DIRECTORY", &directory).output().await.unwrap();
    assert_eq!(found.status.code(), Some(0), "{}", String::from_utf8_lossy(&found.stderr));
    assert_eq!(rig.nodes("ProxmoxVM").await.len(), 10);
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_compares_with_a_file_that_is_not_there() {
    let server = serve(&WorldSpec::new("rig", 2, 10, SEED)).await;
    let rig = rig(&server, ROOT_TOKEN);
    let ran = rig.run(&["sync", "--dry-run", "-o", "json"]).await.ended(0);
    assert_eq!(ran.counts("ProxmoxVM"), [10, 0, 0, 0, 0]);
    assert!(!rig.dir.path().join("graph.kgl").exists());
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_of_an_unknown_cluster_names_the_known_ones() {
    let server = serve(&WorldSpec::new("rig", 2, 10, SEED)).await;
    let rig = rig(&server, ROOT_TOKEN);
    rig.sync(0).await;
    let ran = rig.run(&["reset", "--cluster", "nosuch", "--yes"]).await.ended(1);
    assert!(
        ran.out.is_empty() && ran.err.contains("nosuch") && ran.err.contains("it knows: rig"),
        "{}",
        ran.err
    );
    rig.run(&["reset", "--cluster", "rig", "--yes"]).await.ended(0);
    assert!(rig.nodes("ProxmoxVM").await.is_empty());
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_sync_prints_one_error_and_no_table() {
    let (server, other) =
        (serve(&WorldSpec::new("rig", 2, 10, SEED)).await, serve(&WorldSpec::new("rig", 2, 10, SEED)).await);
    let rig = rig(&server, ROOT_TOKEN);
    fs::write(rig.dir.path().join("0.ca.pem"), other.ca_pem()).unwrap();
    let ran = rig.run(&["sync"]).await.ended(13);
    assert_eq!((ran.out.as_str(), ran.err.matches("ERROR").count()), ("", 1), "{}", ran.err);
    // A program still reads a document.
    assert_eq!(rig.run(&["sync", "-o", "json"]).await.ended(13).rows().len(), 0);
    server.shutdown().await;
    other.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_doctor_has_its_mends_below_it() {
    let rig = Rig::new(&Graph::Embedded);
    rig.run(&["migrate", "up"]).await.ended(0);
    fs::remove_file(rig.dir.path().join("graph.kgl")).unwrap();
    let rows = rig.run(&["doctor", "-o", "json"]).await.rows();
    let mends: Vec<&Value> = rows.iter().filter(|row| !row["mend"].is_null()).collect();
    assert!(!mends.is_empty(), "{rows:?}");
    let table = rig.run(&["doctor"]).await.out;
    assert!(!table.lines().next().unwrap().contains("mend"), "{table}");
    for row in mends {
        let text = |name: &str| row[name].as_str().unwrap();
        let line = format!("{}/{}: {}", text("subject"), text("check"), text("mend"));
        assert!(table.lines().any(|have| have == line), "{line:?} is not in: {table}");
    }
}
