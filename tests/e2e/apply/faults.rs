//! What goes wrong while a plan is applied, and what becomes of it.

use std::fs;

use pve_sim::{AUDIT_TOKEN, Fault, FaultRule, Power};
use pvegraph_testkit::{Neo4jServer, Settings};
use serde_json::{Value, json};

use super::Bench;
use crate::support::{Graph, Rig};

const CONFIG: &str = "/nodes/pve1/qemu/100/config";
const RESIZE: &str = "/nodes/pve1/qemu/100/resize";

fn status(status: u16, reason: &str) -> Fault {
    Fault::Status { status, reason: reason.to_owned() }
}

fn states(journal: &[Value]) -> Vec<&str> {
    journal.iter().map(|line| line["state"].as_str().unwrap()).collect()
}

/// The journal of the run that was put away last.
fn put_away(bench: &Bench) -> Vec<Value> {
    let mut runs: Vec<_> =
        fs::read_dir(bench.state().join("runs")).unwrap().map(|run| run.unwrap().path()).collect();
    runs.sort_by_key(|path| fs::metadata(path).unwrap().modified().unwrap());
    super::bench::lines(runs.last().unwrap())
}

/// Seen failing with: a client that never finds PVE busy.
#[tokio::test(flavor = "multi_thread")]
async fn each_write_is_done_once_whatever_the_answer() {
    let bench = Bench::new().await;
    let faults = bench.server.faults();
    let written = || bench.server.counters().writes("PUT", CONFIG);

    // A lock that is not to be had is tried again, after a look.
    bench.desire(&[(100, json!({ "tags": ["one"] }))]).await;
    bench.plan().await;
    let before = written();
    let busy = status(500, "can't lock file '/var/lock/qemu-server/lock-100.conf' - got timeout");
    faults.add(FaultRule::at(CONFIG, busy).method("PUT").times(1));
    bench.apply(&[]).await.ended(0);
    assert_eq!(written() - before, 2);
    let expected = ["begin", "intent", "busy", "intent", "dispatched", "verified", "end"];
    assert_eq!(states(&put_away(&bench)), expected);

    bench.desire(&[(100, json!({ "scsi0": { "size": "9G" } }))]).await;
    bench.plan().await;
    faults.add(FaultRule::at(RESIZE, status(500, "got no worker upid - start worker failed")).times(1));
    bench.apply(&[]).await.ended(0);
    assert_eq!(bench.tasks("resize", 100), 1);

    // Any other refusal is not.
    bench.desire(&[(100, json!({ "tags": ["two"] }))]).await;
    bench.plan().await;
    let before = written();
    faults.add(FaultRule::at(CONFIG, status(500, "something else")).method("PUT").times(1));
    bench.apply(&[]).await.ended(1).says(&["vm-100", "something else"]);
    faults.add(
        FaultRule::at(CONFIG, status(500, "checksum mismatch (file change by other user?)"))
            .method("PUT")
            .times(1),
    );
    bench.apply(&[]).await.ended(7).says(&["plan again"]);
    assert_eq!(written() - before, 2);

    // A lost answer is looked up: the work was done.
    let before = written();
    faults.add(FaultRule::at(CONFIG, Fault::LoseAnswer).method("PUT").times(1));
    bench.apply(&[]).await.ended(0);
    assert_eq!((written() - before, bench.option(100, "tags").as_str()), (1, "pvegraph;two"));
    bench.desire(&[(100, json!({ "scsi0": { "size": "10G" } }))]).await;
    bench.plan().await;
    faults.add(FaultRule::at(RESIZE, Fault::LoseAnswer).times(1));
    bench.apply(&[]).await.ended(0);
    assert_eq!(bench.tasks("resize", 100), 2);
    assert!(states(&put_away(&bench)).contains(&"task_done"), "its task was found");

    // Without the work done nobody knows, until a second look.
    bench.desire(&[(100, json!({ "tags": ["three"] }))]).await;
    bench.plan().await;
    let before = written();
    faults.add(
        FaultRule::at(CONFIG, Fault::BareStatus { status: 596, reason: "timed out".to_owned() })
            .method("PUT")
            .times(1),
    );
    bench.apply(&[]).await.ended(3).says(&["unknown", "pvegraph resume"]);
    assert_eq!(written() - before, 1);
    bench.apply(&[]).await.ended(6).says(&["pvegraph resume"]);
    bench.rig.run(&["resume"]).await.ended(0);
    assert_eq!((written() - before, bench.option(100, "tags").as_str()), (2, "pvegraph;three"));
    assert!(states(&put_away(&bench)).contains(&"not_done"));

    // What counts is the guest, not the task.
    for (size, exit) in [(11, "WARNINGS: 1"), (12, "some failure afterwards")] {
        bench.desire(&[(100, json!({ "scsi0": { "size": format!("{size}G") } }))]).await;
        bench.plan().await;
        bench.world().set_next_exit(exit);
        bench.apply(&[]).await.ended(0).says(&["vm-100", exit]);
    }
    assert_eq!(bench.plan().await.rows(), Vec::<Value>::new());
    bench.server.shutdown().await;
}

/// Seen failing with: a revert of every pending option.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_failed_change_leaves_waiting_is_taken_back_and_nothing_else() {
    let bench = Bench::new().await;
    // Somebody's own change waits already.
    bench
        .world()
        .edit_guest(102, |guest| guest.pending.push(("memory".to_owned(), Some("4096".into()))))
        .unwrap();
    bench.desire(&[(102, json!({ "cores": 4, "scsi1": { "storage": "nfs-vm", "size": "1G" } }))]).await;
    bench.plan().await;
    bench.world().edit_storage("nfs-vm", |storage| storage.disabled = true).unwrap();
    let ran = bench.apply(&[]).await.ended(1).says(&["is disabled", "cores", "taken back"]);
    assert!(!ran.err.contains("memory"), "{}", ran.err);
    let pending = bench.world().read(|state| state.guests[&102].pending.clone());
    assert_eq!(pending.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(), ["memory"]);
    assert_eq!(bench.option(102, "cores"), "2");
    bench.server.shutdown().await;
}

/// Somebody wants half of the same while ours is on its way, and PVE refuses ours: what waits is theirs.
///
/// Seen failing with: a revert after a call that PVE refused because of the digest.
#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_else_left_waiting_in_the_same_words_stays() {
    let bench = Bench::new().await;
    bench.desire(&[(104, json!({ "cores": 4, "memory": 4096 }))]).await;
    bench.plan().await;
    let late = Fault::Latency(std::time::Duration::from_secs(4));
    bench.server.faults().add(FaultRule::at("/nodes/pve1/qemu/104/config", late).method("PUT").times(1));
    let mut command = bench.rig.command(&["apply", "plan.json", "--auto-approve"]);
    let child = command.stderr(std::process::Stdio::piped()).spawn().unwrap();
    while !states(&bench.journal()).contains(&"intent") {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    bench
        .world()
        .edit_guest(104, |guest| guest.pending.push(("cores".to_owned(), Some("4".into()))))
        .unwrap();
    let ended = child.wait_with_output().await.unwrap();
    let err = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(7), "{err}");
    let pending = bench.world().read(|state| state.guests[&104].pending.clone());
    assert_eq!(pending.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(), ["cores"], "{err}");
    bench.server.shutdown().await;
}

/// Seen failing with: a guest that is not looked at before a call.
#[tokio::test(flavor = "multi_thread")]
async fn what_changed_since_the_plan_stops_it_before_anything_is_sent() {
    let bench = Bench::new().await;
    bench.desire(&[(100, json!({ "tags": ["one"] }))]).await;
    bench.plan().await;
    let plan = fs::read_to_string(bench.rig.dir.path().join("plan.json")).unwrap();
    let before = bench.guests();
    let world = bench.world();
    let again = async |code: i32, words: &[&str]| {
        let now = bench.guests();
        bench.apply(&[]).await.ended(code).says(words);
        assert_eq!(bench.guests(), now, "{words:?}");
    };

    // Somebody else changed it, locked it, put another guest in its place, moved it, or took the marker.
    world.set_config(100, "cores", 3).unwrap();
    again(7, &["vm-100", "`digest`", "plan again"]).await;
    world.set_config(100, "cores", 2).unwrap();
    world.set_config(100, "lock", "backup").unwrap();
    again(7, &["vm-100", "`lock`", "backup"]).await;
    world.delete_config(100, "lock").unwrap();
    let smbios = bench.option(100, "smbios1");
    world.set_config(100, "smbios1", "uuid=11111111-2222-3333-4444-555555555555").unwrap();
    again(7, &["vm-100", "identity conflict"]).await;
    world.set_config(100, "smbios1", smbios).unwrap();
    world.edit_guest(100, |guest| guest.pending.push(("memory".to_owned(), Some("4096".into())))).unwrap();
    again(7, &["vm-100", "digest"]).await;
    world.edit_guest(100, |guest| guest.pending.clear()).unwrap();
    let tags = bench.option(100, "tags");
    world.set_config(100, "tags", "other").unwrap();
    again(7, &["vm-100", "`marker`"]).await;
    world.set_config(100, "tags", tags).unwrap();
    world.migrate(100, "pve2").unwrap();
    again(7, &["vm-100", "`node`"]).await;
    world.migrate(100, "pve1").unwrap();
    world.edit_guest(100, |guest| guest.power = Power::Stopped).unwrap();
    again(7, &["vm-100", "`state`", "plan again"]).await;
    world.edit_guest(100, |guest| guest.power = Power::Running).unwrap();
    assert_eq!(bench.guests(), before);

    // The plan itself.
    let ran = bench.rig.run(&["apply", "plan.json"]).await.ended(7).says(&[
        "not approved",
        "pvegraph approve",
        "--auto-approve",
    ]);
    assert!(ran.out.is_empty());
    let put = |text: &str| fs::write(bench.rig.dir.path().join("plan.json"), text).unwrap();
    put(&plan.replace("one", "two"));
    again(7, &["edited"]).await;
    put("{}");
    again(10, &["plan.json"]).await;
    put(&plan.replace("\"version\":3", "\"version\":9"));
    again(7, &["version 9", "plan again"]).await;
    put(&plan);
    // By hand, which no generation tells.
    for (one, back) in [
        ("SET v.policy = 'observe'", "SET v.policy = 'manage'"),
        ("SET v.protected = true", "SET v.protected = null"),
    ] {
        let set = |clause: &str| format!("MATCH (v:DesiredVM {{uid: 'vm-100'}}) {clause}");
        bench.db().cypher(&set(one), json!({})).await;
        again(7, &["plan is stale", "plan again"]).await;
        bench.db().cypher(&set(back), json!({})).await;
    }
    // A scope that allows it no more.
    bench.rig.run(&["scope", "set", "all", "--pool", "lab"]).await.ended(0);
    again(6, &["vm-100", "pool lab"]).await;
    bench.rig.run(&["scope", "set", "all", "--pool", ""]).await.ended(0);
    bench.desire(&[(100, json!({ "tags": ["three"] }))]).await;
    again(7, &["what is desired was changed"]).await;
    bench.desire(&[(100, json!({ "tags": ["one"] }))]).await;
    bench.plan().await;

    // A token that may only read is told so before anything is sent.
    let credential = world.credential(AUDIT_TOKEN);
    let mut reader =
        Rig::new(&Graph::Neo4j(bench.db().clone())).cluster(Some("rig"), &bench.server, credential.as_ref());
    reader.settings = "\n[apply]\ndirectory = \"state\"\n".to_owned();
    fs::copy(bench.rig.dir.path().join("plan.json"), reader.dir.path().join("plan.json")).unwrap();
    let ran = reader.run(&["apply", "plan.json", "--auto-approve"]).await;
    ran.ended(12).says(&["VM.Config.Options on /vms/100", "privileges"]);
    assert_eq!(bench.guests(), before);

    // An approval is of this very plan, and stands in the log.
    bench.rig.run(&["approve", "plan.json", "--by", "somebody else"]).await.ended(0);
    bench.rig.run(&["apply", "plan.json"]).await.ended(0);
    let log = super::bench::lines(&bench.state().join("audit.jsonl"));
    assert_eq!(log.last().unwrap()["entry"]["approver"], "somebody else");
    assert!(log.last().unwrap()["entry"]["actor"].as_str().unwrap().contains("root@pam!"));
    bench.server.shutdown().await;
}

/// Seen failing with: a pause that is not asked for before a call.
#[tokio::test(flavor = "multi_thread")]
async fn a_paused_run_goes_on_and_a_lost_lease_stops_it() {
    let bench = Bench::new().await;
    let before = bench.guests();
    bench.desire(&[(100, json!({ "tags": ["one"] })), (101, json!({ "tags": ["one"] }))]).await;
    bench.plan().await;
    bench.rig.run(&["pause"]).await.ended(0);
    bench.apply(&[]).await.ended(6).says(&["paused", "pvegraph resume"]);
    assert_eq!(bench.guests(), before);
    bench.rig.run(&["resume"]).await.ended(0);
    bench.apply(&[]).await.ended(0);
    assert_eq!(
        (bench.option(100, "tags").as_str(), bench.option(101, "tags").as_str()),
        ("one;pvegraph", "one;pvegraph")
    );

    // In the middle of an operation: its task is followed, and nothing more is sent.
    bench.desire(&[(102, json!({ "tags": ["two"], "scsi0": { "size": "9G" } }))]).await;
    bench.plan().await;
    bench.world().set_time_scale(4.0);
    let mut command = bench.rig.command(&["apply", "plan.json", "--auto-approve"]);
    let child = command.stderr(std::process::Stdio::piped()).spawn().unwrap();
    while bench.tasks("resize", 102) == 0 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    bench.rig.run(&["pause"]).await.ended(0);
    let ended = child.wait_with_output().await.unwrap();
    bench.world().set_time_scale(0.0);
    assert_eq!(ended.status.code(), Some(3), "{}", String::from_utf8_lossy(&ended.stderr));
    assert!(bench.option(102, "scsi0").contains("size=9G"));
    assert_eq!(bench.option(102, "tags"), "pvegraph");
    bench.rig.run(&["resume"]).await.ended(0);
    assert_eq!(bench.option(102, "tags"), "pvegraph;two");

    // Somebody else's lease.
    let now =
        i64::try_from(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs())
            .unwrap();
    let other = "MATCH (l:PvegraphLease {id: 'apply:rig'}) SET l.holder = 'another host', l.lock = 'x', l.expires_at = $until, l.number = l.number + 1";
    let free =
        "MATCH (l:PvegraphLease {id: 'apply:rig'}) SET l.holder = null, l.lock = null, l.expires_at = null";
    bench.desire(&[(100, json!({ "tags": ["two"], "scsi0": { "size": "9G" } }))]).await;
    bench.plan().await;
    bench.db().cypher(other, json!({ "until": now + 600 })).await;
    bench.apply(&[]).await.ended(11).says(&["another host", "rig"]);
    bench.db().cypher(free, json!({})).await;

    // Lost in the middle of the first operation: its task is followed, and nothing more is sent.
    bench.world().set_time_scale(4.0);
    let mut command = bench.rig.command(&["apply", "plan.json", "--auto-approve"]);
    let child = command.stderr(std::process::Stdio::piped()).spawn().unwrap();
    while bench.tasks("resize", 100) == 0 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    bench.db().cypher(other, json!({ "until": now + 600 })).await;
    let ended = child.wait_with_output().await.unwrap();
    assert_eq!(ended.status.code(), Some(11), "{}", String::from_utf8_lossy(&ended.stderr));
    bench.world().set_time_scale(0.0);
    assert!(bench.option(100, "scsi0").contains("size=9G"));
    assert_eq!(bench.option(100, "tags"), "one;pvegraph");
    bench.db().cypher(free, json!({})).await;
    bench.rig.run(&["resume"]).await.ended(0);
    assert_eq!(bench.option(100, "tags"), "pvegraph;two");
    assert_eq!(bench.tasks("resize", 100), 1);
    bench.server.shutdown().await;
}

/// A run goes on only with what would let it begin; and what its journal has and the audit log has not, because the process was killed
/// between the two, is audited then.
///
/// Seen failing with: scopes that `resume` does not ask; results that are taken from the journal without a line in the log.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_goes_on_is_checked_and_audited_as_one_that_begins() {
    let bench = Bench::new().await;
    bench.desire(&[(102, json!({ "tags": ["two"], "scsi0": { "size": "9G" } }))]).await;
    bench.plan().await;
    bench.world().set_time_scale(4.0);
    let mut command = bench.rig.command(&["apply", "plan.json", "--auto-approve"]);
    let child = command.stderr(std::process::Stdio::piped()).spawn().unwrap();
    while bench.tasks("resize", 102) == 0 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    bench.rig.run(&["pause"]).await.ended(0);
    assert_eq!(child.wait_with_output().await.unwrap().status.code(), Some(3));
    bench.world().set_time_scale(0.0);

    // As if it had been killed after the journal's line.
    let log = bench.state().join("audit.jsonl");
    let whole = fs::read_to_string(&log).unwrap();
    let all: Vec<&str> = whole.split_inclusive('\n').collect();
    let began = all.iter().rposition(|line| line.contains("\"what\":\"begin\"")).unwrap();
    assert!(all[began + 1].contains("\"what\":\"operation\""), "{whole}");
    fs::write(&log, all[..=began].concat()).unwrap();
    let forget = "MATCH (l:PvegraphLease {id: 'apply:rig'}) REMOVE l.audit_entries, l.audit_hash";
    bench.db().cypher(forget, json!({})).await;

    bench.rig.run(&["scope", "set", "all", "--pause"]).await.ended(0);
    bench.rig.run(&["resume"]).await.ended(3).says(&["vm-102", "scope all is paused"]);
    assert_eq!(bench.option(102, "tags"), "pvegraph", "nothing more was sent");
    assert_eq!(bench.tasks("resize", 102), 1);
    let lines = super::bench::lines(&log);
    let operations: Vec<&Value> = lines[began..]
        .iter()
        .map(|line| &line["entry"])
        .filter(|entry| entry["what"] == "operation")
        .collect();
    assert_eq!(operations.len(), 1, "{operations:?}");
    assert_eq!((&operations[0]["action"], &operations[0]["result"]), (&json!("grow"), &json!("done")));
    assert!(operations[0]["upids"][0].as_str().unwrap().starts_with("UPID:"), "{operations:?}");
    bench.server.shutdown().await;
}

/// Neo4j may run on a guest that the run touches.
///
/// Seen failing with: a lease that is given up as soon as it can't be renewed.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_goes_on_while_the_graph_is_away() {
    let mut db = Neo4jServer::start_own(Settings::default()).await;
    let bench = Bench::on((*db).clone()).await;
    bench.desire(&[(100, json!({ "tags": ["one"], "scsi0": { "size": "9G" } }))]).await;
    bench.plan().await;
    bench.world().set_time_scale(6.0);
    let mut command = bench.rig.command(&["apply", "plan.json", "--auto-approve"]);
    let child = command.stderr(std::process::Stdio::piped()).spawn().unwrap();
    while bench.tasks("resize", 100) == 0 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    db.kill();
    let ended = child.wait_with_output().await.unwrap();
    let err = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(0), "{err}");
    assert!(err.contains("the lease could not be renewed"), "{err}");
    assert!(err.contains("the graph was not told how far the run"), "{err}");
    assert_eq!(bench.option(100, "tags"), "one;pvegraph");
    bench.world().set_time_scale(0.0);
    bench.apply(&[]).await.ended(14);
    db.start().await;
    // The next run of this host need not wait for the lease, and mirrors the head.
    bench.desire(&[(100, json!({ "tags": ["two"] }))]).await;
    bench.plan().await;
    bench.apply(&[]).await.ended(0);
    let ran = bench.rig.run(&["audit", "verify", "-o", "json"]).await.ended(0);
    assert_eq!(ran.rows()[0]["entries"], ran.rows()[0]["known_to_graph"]);
    bench.server.shutdown().await;
}

/// Endpoints may point at a restored copy: the same names, numbers, UUIDs and markers, under another authority.
///
/// Seen failing with: an authority that is not asked for before a plan is made or carried out.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_the_cluster_under_its_configured_name_is_refused() {
    let bench = Bench::new().await;
    bench.desire(&[(100, json!({ "tags": ["one"] }))]).await;
    bench.plan().await;
    let before = bench.guests();
    let known =
        "MATCH (c:ProxmoxCluster {cluster_id: 'rig'}) SET c.ca_fingerprint = $known + c.ca_fingerprint";
    bench.db().cypher(known, json!({ "known": "other " })).await;
    let words = ["the graph knows another cluster as \"rig\"", "certificate authority"];
    bench.apply(&[]).await.ended(10).says(&words);
    for args in [&["plan"][..], &["adopt", "100"], &["resume"]] {
        bench.rig.run(args).await.ended(10).says(&words);
    }
    assert_eq!(bench.guests(), before);

    // One that does not say proves nothing.
    let back = "MATCH (c:ProxmoxCluster {cluster_id: 'rig'}) SET c.ca_fingerprint = replace(c.ca_fingerprint, 'other ', '')";
    bench.db().cypher(back, json!({})).await;
    for node in ["pve1", "pve2"] {
        let path = format!("/nodes/{node}/certificates/info");
        bench.server.faults().add(FaultRule::at(&path, status(500, "no certificates")));
    }
    bench.apply(&[]).await.ended(10).says(&["does not tell its certificate authority"]);
    bench.server.faults().clear();
    bench.apply(&[]).await.ended(0);
    bench.server.shutdown().await;
}

/// Seen failing with: an audit log whose head is not compared.
#[tokio::test(flavor = "multi_thread")]
async fn an_audit_log_that_was_changed_or_cut_is_told() {
    let mut bench = Bench::new().await;
    bench.rig.settings.push_str("audit_key_file = \"audit.key\"\n");
    fs::write(bench.rig.dir.path().join("audit.key"), "hunter2\n").unwrap();
    bench.desire(&[(100, json!({ "tags": ["one"] }))]).await;
    bench.plan().await;
    // The log was begun without the key, and its lines prove nothing to whoever has one.
    bench.apply(&[]).await.ended(1).says(&["audit.jsonl", "no HMAC", "new log"]);
    let log = bench.state().join("audit.jsonl");
    fs::remove_file(&log).unwrap();
    let forget = "MATCH (l:PvegraphLease {id: 'apply:rig'}) REMOVE l.audit_entries, l.audit_hash";
    bench.db().cypher(forget, json!({})).await;
    bench.apply(&[]).await.ended(0);
    let whole = fs::read_to_string(&log).unwrap();
    assert!(!whole.contains("hunter2") && whole.contains("\"hmac\""));
    let last = super::bench::lines(&log).pop().unwrap();
    assert_eq!(last["entry"]["what"], "end");
    bench.rig.run(&["audit", "verify"]).await.ended(0);

    // Something has to be done, else the log is not asked for.
    bench.desire(&[(100, json!({ "tags": ["two"] }))]).await;
    let verify = async |text: &str, words: &[&str]| {
        fs::write(&log, text).unwrap();
        bench.rig.run(&["audit", "verify"]).await.ended(1).says(words);
        bench.plan().await;
        bench.apply(&[]).await.ended(1).says(words);
    };
    verify(&whole.replace("vm-100", "vm-101"), &["audit.jsonl", "damaged", "hash"]).await;
    let cut = whole.trim_end().rsplit_once('\n').unwrap().0;
    verify(&format!("{cut}\n"), &["audit.jsonl", "cut off"]).await;
    verify("", &["audit.jsonl", "cut off"]).await;
    fs::write(&log, &whole).unwrap();
    fs::write(bench.rig.dir.path().join("audit.key"), "other\n").unwrap();
    bench.rig.run(&["audit", "verify"]).await.ended(1).says(&["HMAC"]);
    bench.server.shutdown().await;
}
