//! What is asked again when a plan is applied, and how a run is stopped.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use pve_sim::{Fault, FaultRule, Power};
use pvegraph_reconcile::plan::Plan;
use serde_json::json;

use super::Bench;

/// Seen failing with: journals that nobody looks at, and a graph that nobody asks: the second run sent it again.
#[tokio::test(flavor = "multi_thread")]
async fn a_plan_is_for_one_run() {
    let bench = Bench::new().await;
    bench.desire(&[(100, json!({ "tags": ["web"] }))]).await;
    bench.plan().await;
    bench.rig.run(&["approve", "plan.json", "--by", "kim"]).await.ended(0);
    let tags = bench.option(100, "tags");
    bench.rig.run(&["apply", "plan.json"]).await.ended(0);

    // All that the plan knows of the guest is true again.
    bench.world().set_config(100, "tags", tags.as_str()).unwrap();
    let before = bench.guests();
    bench.rig.run(&["apply", "plan.json"]).await.ended(7).says(&["applied already (run 2", "plan again"]);
    bench.apply(&[]).await.ended(7);
    // The graph knows it too.
    let (here, away) = (bench.state().join("runs"), bench.state().join("elsewhere"));
    fs::rename(&here, &away).unwrap();
    fs::create_dir(&here).unwrap();
    bench.apply(&[]).await.ended(7).says(&["applied already"]);
    // And where it does not, the journals do.
    fs::remove_dir_all(&here).unwrap();
    fs::rename(&away, &here).unwrap();
    bench.db().cypher("MATCH (r:Run) DETACH DELETE r", json!({})).await;
    bench.apply(&[]).await.ended(7).says(&["applied already"]);
    assert_eq!(bench.guests(), before);

    bench.plan().await;
    bench.apply(&[]).await.ended(0);
    assert!(bench.option(100, "tags").contains("web"));
    bench.server.shutdown().await;
}

/// All of them are told at once, before anything is sent.
///
/// Seen failing with: secrets that are read when they are sent: the first guest was changed by then.
#[tokio::test(flavor = "multi_thread")]
async fn secrets_that_are_not_there_are_told_before_anything_is_sent() {
    let bench = Bench::new().await;
    let password = bench.rig.dir.path().join("absent");
    let template = "local:vztmpl/debian-12.tar.zst";
    bench.world().add_container_template(template, Some("pve1"));
    bench
        .import(
            &[
                (100, json!({ "tags": ["web"] })),
                (106, json!({ "cipassword": { "file": password } })),
                (107, json!({ "cipassword": { "env": "ABSENT_PASSWORD" } })),
            ],
            &[(300, json!({ "node": "pve1", "ostemplate": template,
                            "rootfs": { "storage": "local-lvm", "size": "4G" }, "password": { "env": "EMPTY_PASSWORD" } }))],
        )
        .await;
    bench.plan().await;
    let before = bench.guests();
    let apply = async |file: Option<&str>| {
        let mut command = bench.rig.command(&["apply", "plan.json", "--auto-approve", "-o", "json"]);
        command.env("EMPTY_PASSWORD", file.unwrap_or_default());
        if let Some(secret) = file {
            fs::write(&password, secret).unwrap();
            command.env("ABSENT_PASSWORD", secret);
        }
        let output = command.output().await.unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        crate::support::Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    };
    let file = format!("vm-106 (guest 106): `cipassword`: the file {}", password.display());
    apply(None).await.ended(6).says(&[
        "nothing was changed",
        "or desire another place",
        "ct-300 (guest 300): `password`: the variable EMPTY_PASSWORD is empty",
        &file,
        "vm-107 (guest 107): `cipassword`: the variable ABSENT_PASSWORD is not set",
    ]);
    assert_eq!(bench.guests(), before);
    assert!(!bench.state().join("journal.jsonl").exists(), "no run was begun");
    let ran = apply(Some("swordfish")).await.ended(0);
    assert!(!ran.out.contains("swordfish") && !ran.err.contains("swordfish"));
    assert!(!bench.option(106, "cipassword").is_empty() && !bench.option(107, "cipassword").is_empty());
    bench.server.shutdown().await;
}

/// They are as alike as two plans can be, and the second one is applied as well.
///
/// Seen failing with: plans without a nonce: the second one had been applied already.
#[tokio::test(flavor = "multi_thread")]
async fn two_plans_of_one_second_are_two_plans() {
    let bench = Bench::new().await;
    bench.desire(&[(100, json!({ "tags": ["web"] }))]).await;
    let plans = loop {
        let mut both = ["plan.json", "second.json"].map(|file| bench.rig.command(&["plan", "--out", file]));
        let [one, other] = &mut both;
        let (one, other) = tokio::join!(one.output(), other.output());
        assert!(one.unwrap().status.success() && other.unwrap().status.success());
        let read = |file: &str| -> serde_json::Value {
            serde_json::from_str(&fs::read_to_string(bench.rig.dir.path().join(file)).unwrap()).unwrap()
        };
        let plans = [read("plan.json"), read("second.json")];
        if plans[0]["plan"]["made_at"] == plans[1]["plan"]["made_at"] {
            break plans;
        }
    };
    assert_eq!(plans[0]["plan"]["operations"], plans[1]["plan"]["operations"]);
    let tags = bench.option(100, "tags");
    bench.apply(&[]).await.ended(0);
    // All that the plans know of the guest is true again.
    bench.world().set_config(100, "tags", tags.as_str()).unwrap();
    bench.apply(&[]).await.ended(7).says(&["applied already"]);
    bench.rig.run(&["apply", "second.json", "--auto-approve"]).await.ended(0);
    assert!(bench.option(100, "tags").contains("web"));
    bench.server.shutdown().await;
}

/// Seen failing with: policies of which only the text is compared.
#[tokio::test(flavor = "multi_thread")]
async fn policies_are_asked_of_the_estate_as_it_is_by_then() {
    let bench = Bench::new().await;
    let policy = "// Machine 106 stays off\n// name: off\n// severity: deny\n// mend: stop it\n\
                  UNWIND $guests AS g\nWITH g\nWHERE g.vmid = 106 AND g.running\nRETURN g.vmid AS running\n";
    fs::write(bench.rig.dir.path().join("off.cypher"), policy).unwrap();
    bench.rig.run(&["policy", "import", "off.cypher"]).await.ended(0);
    bench.desire(&[(100, json!({ "tags": ["web"] }))]).await;
    bench.plan().await;
    bench.world().set_power(106, Power::Running).unwrap();
    let before = bench.guests();
    bench.apply(&[]).await.ended(6).says(&["policy off", "running 106", "stop it", "nothing was changed"]);
    assert_eq!(bench.guests(), before);
    bench.world().set_power(106, Power::Stopped).unwrap();
    bench.apply(&[]).await.ended(0);
    bench.server.shutdown().await;
}

/// Seen failing with: versions that are held against the oldest one alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_is_not_known_is_refused() {
    let bench = Bench::new().await;
    bench.desire(&[(100, json!({ "tags": ["web"] }))]).await;
    let before = bench.guests();
    let says = |version: &str| {
        bench.server.faults().clear();
        let told = Fault::Replace { pointer: "/data/version".to_owned(), value: json!(version) };
        bench.server.faults().add(FaultRule::at("/version", told));
    };
    for (version, mend) in [("7.4-17", "update the cluster"), ("10.0.1", "newer")] {
        says(version);
        bench.plan().await.says(&["the cluster: `version`", version, mend]);
        bench.apply(&[]).await.ended(6).says(&[version, mend, "--any-version", "nothing was changed"]);
    }
    assert_eq!(bench.guests(), before);
    says("9.0.3");
    assert!(!bench.plan().await.err.contains("version"));
    says("10.0.1");
    bench.apply(&["--any-version"]).await.ended(0).says(&["10.0.1"]);
    assert!(bench.option(100, "tags").contains("web"));
    bench.server.shutdown().await;
}

/// Policies read the graph, which has the estate as the last sync saw it. Without policies nothing is asked of it.
///
/// Seen failing with: an age that is counted from the wrong end.
#[tokio::test(flavor = "multi_thread")]
async fn policies_are_not_asked_of_a_graph_that_is_too_old() {
    let mut bench = Bench::new().await;
    bench.rig.settings.push_str("max_inventory_age = \"2h\"\n");
    bench.desire(&[(100, json!({ "tags": ["web"] }))]).await;
    let aged = "MATCH (r:ProxmoxSyncRun) SET r.started_at = r.started_at - 10800";
    bench.db().cypher(aged, json!({})).await;
    let words = ["3 h ago", "`max_inventory_age` in [apply] is 2 h", "pvegraph sync"];
    bench.plan().await.says(&words).says(&["the cluster: `sync`"]);
    bench.apply(&[]).await.ended(0).says(&words);

    bench.rig.run(&["policy", "import", "anti-affinity"]).await.ended(0);
    bench.desire(&[(100, json!({ "tags": ["db"] }))]).await;
    bench.plan().await.says(&words);
    let before = bench.guests();
    bench.apply(&[]).await.ended(7).says(&words).says(&["policies", "nothing was changed"]);
    // One that did not see all of it proves nothing; nor does none.
    let fault = Fault::Status { status: 500, reason: "got timeout".to_owned() };
    bench.server.faults().add(FaultRule::at("/nodes/pve1/lxc", fault));
    bench.rig.sync(3).await;
    bench.server.faults().clear();
    bench.apply(&[]).await.ended(7).says(&words);
    bench.db().cypher("MATCH (r:ProxmoxSyncRun) DETACH DELETE r", json!({})).await;
    bench.apply(&[]).await.ended(7).says(&["no sync", "pvegraph sync"]);
    assert_eq!(bench.guests(), before);
    bench.rig.sync(0).await;
    bench.apply(&[]).await.ended(0);
    assert!(bench.option(100, "tags").contains("db"));
    bench.server.shutdown().await;
}

/// Seen failing with: guests of which nobody asks whether they are needed.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_graph_runs_on_is_not_taken_down() {
    let mut bench = Bench::new().await;
    bench.desire(&[(100, json!({ "cores": 4, "reboot": "allow" })), (102, json!({ "tags": ["web"] }))]).await;
    bench.plan().await;
    let before = bench.guests();
    let bad =
        bench.rig.command(&["plan"]).env("PVEGRAPH__CLUSTERS__0__KEEP_UP", "100,10").output().await.unwrap();
    let err = String::from_utf8_lossy(&bad.stderr);
    assert!(
        bad.status.code() == Some(10) && err.contains("numbers of guests") && err.contains("\"10\""),
        "{err}"
    );
    bench.rig.cluster_lines("keep_up = [\"100\", \"102\"]\n");
    let words = ["vm-100 (guest 100)", "`keep_up`", "by hand"];
    bench.apply(&[]).await.ended(6).says(&words);
    bench.rig.run(&["plan"]).await.ended(6).says(&words);
    assert_eq!(bench.guests(), before);
    // What leaves it up may be done.
    bench.desire(&[(100, json!({ "cores": 2, "tags": ["db"] }))]).await;
    bench.plan().await;
    bench.apply(&[]).await.ended(0);
    assert!(bench.option(102, "tags").contains("web") && bench.option(100, "tags").contains("db"));
    bench.server.shutdown().await;
}

/// Seen failing with: a process that dies of it (no exit code).
#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_told_to_end_follows_what_it_sent_and_can_be_gone_on_with() {
    let bench = Bench::new().await;
    // One after the other: they are of one guest.
    bench.desire(&[(100, json!({ "scsi0": { "size": "9G" }, "tags": ["one"] }))]).await;
    bench.plan().await;
    let slow = Fault::Latency(Duration::from_secs(4));
    bench.server.faults().add(FaultRule::at("/nodes/pve1/qemu/100/resize", slow).method("PUT").times(1));
    let mut command = bench.rig.command(&["apply", "plan.json", "--auto-approve"]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    while !bench.journal().iter().any(|line| line["state"] == "intent") {
        assert_eq!(child.try_wait().unwrap(), None, "the run ended");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let pid = child.id().unwrap().to_string();
    let sent = std::process::Command::new("sh").args(["-c", "kill -TERM \"$0\"", &pid]).status().unwrap();
    assert!(sent.success());
    let ended = child.wait_with_output().await.unwrap();
    let err = String::from_utf8_lossy(&ended.stderr);
    assert!(err.contains("nothing more is sent") && err.contains("pvegraph resume"), "{err}");
    bench.rig.run(&["resume"]).await.ended(0);
    assert!(bench.option(100, "tags").contains("one") && bench.option(100, "scsi0").contains("size=9G"));
    bench.server.shutdown().await;
}

/// A plan is held against the limits as they are when it is applied: a scope's may be lower by then, and a file can be written without
/// what blocked it.
///
/// Seen failing with: limits that are the plan's alone.
#[tokio::test(flavor = "multi_thread")]
async fn limits_are_asked_again() {
    let bench = Bench::new().await;
    let restarts = |vmid: i64| (vmid, json!({ "cores": 4, "reboot": "allow" }));
    bench.desire(&[restarts(100)]).await;
    bench.plan().await;
    let before = bench.guests();
    bench.rig.run(&["scope", "set", "all", "--max-restarts", "0"]).await.ended(0);
    bench.apply(&[]).await.ended(6).says(&["scope all", "`max_restarts`", "nothing was changed"]);
    bench.rig.run(&["scope", "set", "all", "--max-restarts", "9"]).await.ended(0);

    bench.desire(&[restarts(102), restarts(104)]).await;
    bench.rig.run(&["plan", "--out", "plan.json"]).await.ended(6).says(&["3 of 14 guests would go down"]);
    let path = bench.rig.dir.path().join("plan.json");
    let text = fs::read_to_string(&path).unwrap();
    let made: serde_json::Value = serde_json::from_str(&text).unwrap();
    let mut forged = Plan::from_file(&text, made["plan"]["made_at"].as_i64().unwrap()).unwrap();
    forged.blocked.clear();
    fs::write(&path, forged.to_file()).unwrap();
    bench.apply(&[]).await.ended(6).says(&["3 of 14 guests would go down", "at most 1 may"]);
    assert_eq!(bench.guests(), before);
    bench.server.shutdown().await;
}

/// Seen failing with: scopes that are read once for a run.
#[tokio::test(flavor = "multi_thread")]
async fn a_scope_that_is_paused_in_mid_run_stops_it() {
    let bench = Bench::new().await;
    bench.desire(&[(100, json!({ "scsi0": { "size": "9G" }, "tags": ["one"] }))]).await;
    bench.plan().await;
    let tags = bench.option(100, "tags");
    // Longer than what was read of scopes counts.
    bench.world().set_time_scale(10.0);
    let mut command = bench.rig.command(&["apply", "plan.json", "--auto-approve"]);
    let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    while bench.tasks("resize", 100) == 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    bench.db().cypher("MATCH (s:ManagedScope) SET s.paused = true", json!({})).await;
    let ended = child.wait_with_output().await.unwrap();
    let err = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(3), "{err}");
    for word in ["guest 100", "scope all is paused", "pvegraph resume"] {
        assert!(err.contains(word), "{word}: {err}");
    }
    assert!(bench.option(100, "scsi0").contains("size=9G"), "what was sent is followed to its end");
    assert_eq!(bench.option(100, "tags"), tags, "nothing more was sent");
    bench.world().set_time_scale(0.0);
    bench.rig.run(&["resume"]).await.ended(3).says(&["scope all is paused"]);
    bench.server.shutdown().await;
}
