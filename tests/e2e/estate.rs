//! The genuine estate: recorded from a real Proxmox VE 8.4 cluster, served over HTTPS, synced, and compared value by value with
//! what an independent script (`tests/expected/expected_graph.py`) makes of the raw recordings.

use std::collections::BTreeMap;
use std::fs;

use pve_sim::{RecordedEstate, SimOptions, SimServer};
use pvegraph_testkit::recordings_dir;
use serde_json::{Map, Value, json};

use crate::on_both_stores;
use crate::support::{Graph, LABELS, METRICS, RELATIONSHIPS, Rig};

async fn serve(test: &str, view: &str) -> Option<SimServer> {
    let path = recordings_dir(test)?.join("estate-8.4").join(format!("{view}.jsonl"));
    let estate = RecordedEstate::read(&path).unwrap();
    Some(SimServer::start_recorded(estate, SimOptions::default()).await.unwrap())
}

fn expected(view: &str) -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/expected/");
    serde_json::from_str(&fs::read_to_string(format!("{path}{view}.json")).unwrap()).unwrap()
}

/// Whether two values are the same; `1` and `1.0` are, because JSON does not tell them apart everywhere.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        _ => a == b,
    }
}

/// Compares every expected property of every node and relationship; returns how many values were compared.
async fn compare(rig: &Rig, expected: &Value, count_metrics: bool) -> usize {
    let mut compared = 0;
    let mut differing = Vec::new();
    for label in LABELS {
        let wanted = expected["nodes"][label].as_array().unwrap();
        let found: BTreeMap<String, Map<String, Value>> = rig
            .nodes(label)
            .await
            .into_iter()
            .map(|node| (node["id"].as_str().unwrap().to_owned(), node))
            .collect();
        assert_eq!(found.len(), wanted.len(), "{label}: {:?}", found.keys());
        for node in wanted {
            let id = node["id"].as_str().unwrap();
            let real =
                found.get(id).unwrap_or_else(|| panic!("no {label} {id}; there are {:?}", found.keys()));
            for stamp in ["firstseen", "lastupdated"] {
                assert!(real[stamp].as_i64().unwrap() > 1_700_000_000, "{label} {id} {stamp}");
            }
            for (name, value) in node.as_object().unwrap() {
                if METRICS.contains(&name.as_str()) && !count_metrics {
                    continue;
                }
                compared += 1;
                let now = real.get(name).unwrap_or(&Value::Null);
                if !same(value, now) {
                    differing.push(format!("{label} {id} {name}: expected {value}, found {now}"));
                }
            }
        }
    }
    for (kind, from, to) in RELATIONSHIPS {
        let id = rig.id();
        let rows = rig
            .read(&format!("MATCH (a:{from})-[r:{kind}]->(b:{to}) RETURN a.{id} AS a, b.{id} AS b, r AS r"))
            .await;
        let found: BTreeMap<(String, String), Value> = rows
            .into_iter()
            .map(|row| {
                let text = |name: &str| row[name].as_str().unwrap().to_owned();
                let properties = row["r"].get("properties").unwrap_or(&row["r"]).clone();
                ((text("a"), text("b")), properties)
            })
            .collect();
        let wanted = expected["relationships"][kind].as_array().unwrap();
        assert_eq!(found.len(), wanted.len(), "{kind}: {:?}", found.keys());
        for relationship in wanted {
            let ends = [&relationship[0], &relationship[1]].map(|end| end.as_str().unwrap().to_owned());
            let real = &found.get(&ends.clone().into()).unwrap_or_else(|| panic!("no {kind} {ends:?}"));
            for stamp in ["firstseen", "lastupdated"] {
                assert!(real[stamp].as_i64().unwrap() > 1_700_000_000, "{kind} {ends:?} {stamp}");
            }
            for (name, value) in relationship[2].as_object().unwrap() {
                compared += 1;
                let now = real.get(name).unwrap_or(&Value::Null);
                if !same(value, now) {
                    differing.push(format!("{kind} {ends:?} {name}: expected {value}, found {now}"));
                }
            }
        }
    }
    assert!(differing.is_empty(), "{} of {compared} differ:\n{}", differing.len(), differing.join("\n"));
    compared
}

/// Rows as a multiset: where the order is not told, or ties are in it, they come in any.
fn bag(rows: &[Value]) -> Vec<String> {
    let mut rows: Vec<String> = rows
        .iter()
        .map(|row| {
            let sorted: BTreeMap<&String, String> = row
                .as_object()
                .unwrap()
                .iter()
                .map(|(name, value)| {
                    (name, value.as_f64().map_or_else(|| value.to_string(), |n| format!("{n:.9e}")))
                })
                .collect();
            format!("{sorted:?}")
        })
        .collect();
    rows.sort();
    rows
}

async fn the_graph_is_what_the_recordings_say(graph: &Graph) {
    let Some(server) = serve("the_graph_is_what_the_recordings_say", "root").await else { return };
    let rig = Rig::new(graph).cluster(None, &server, None);
    let ran = rig.sync(0).await;
    assert_eq!(ran.counts("ProxmoxVM"), [11, 0, 0, 0, 0]);
    let expected = expected("root");
    let compared = compare(&rig, &expected, true).await;
    println!("{compared} values compared");
    assert!(compared > 500, "{compared}");

    for number in 1..=8 {
        let rows = rig.run(&["report", "run", &format!("Q{number}"), "-o", "json"]).await.ended(0);
        assert_eq!(rows.json()["complete"], true);
        let wanted = expected["queries"][number.to_string()].as_array().unwrap();
        assert_eq!(bag(&rows.rows()), bag(wanted), "Q{number}");
    }
    let order = |code: &'static str, column: &'static str| {
        let rig = &rig;
        async move {
            let rows = rig.run(&["report", "run", code, "-o", "json"]).await.ended(0).rows();
            rows.iter().map(|row| row[column].clone()).collect::<Vec<_>>()
        }
    };
    for (code, column) in [("Q1", "v.memory"), ("Q3", "n.cpu_usage"), ("Q5", "usage_percent")] {
        let values: Vec<f64> =
            order(code, column).await.iter().map(|value| value.as_f64().unwrap()).collect();
        assert!(values.windows(2).all(|pair| pair[0] >= pair[1]), "{code}: {values:?}");
    }
    assert_eq!(order("Q8", "node").await, [json!("pve1"), json!("pve2")]);

    let reports = &expected["queries"]["reports"];
    let pick = |rows: Vec<Value>, columns: &[&str]| -> Vec<Value> {
        rows.iter()
            .map(|row| columns.iter().map(|name| ((*name).to_owned(), row[*name].clone())).collect())
            .collect()
    };
    let columns = ["name", "node", "vmid", "cluster_id"];
    let rows = rig.run(&["report", "run", "R1", "-o", "json"]).await.ended(0).rows();
    assert_eq!(
        bag(&pick(rows, &columns)),
        bag(&pick(reports["backupless"].as_array().unwrap().clone(), &columns))
    );
    let columns = ["name", "node", "vmid", "cluster_id", "disk_id", "storage", "size"];
    let rows = rig.run(&["report", "run", "R2", "-o", "json"]).await.ended(0).rows();
    assert_eq!(
        bag(&pick(rows, &columns)),
        bag(&pick(reports["excluded-disks"].as_array().unwrap().clone(), &columns))
    );
    server.shutdown().await;
}
on_both_stores!(whole => the_graph_is_what_the_recordings_say);

async fn a_second_run_changes_only_stamps(graph: &Graph) {
    let Some(server) = serve("a_second_run_changes_only_stamps", "root").await else { return };
    let rig = Rig::new(graph).cluster(None, &server, None);
    rig.sync(0).await;
    let before = rig.stable(&["lastupdated"]).await;
    let ran = rig.sync(0).await;
    for label in LABELS {
        let [created, updated, unchanged, deleted, kept] = ran.counts(label);
        assert_eq!([created, updated, deleted, kept], [0; 4], "{label}");
        assert!(unchanged > 0, "{label}");
    }
    assert_eq!(rig.stable(&["lastupdated"]).await, before);
    server.shutdown().await;
}
on_both_stores!(again => a_second_run_changes_only_stamps);

async fn an_auditor_after_root_deletes_nothing(graph: &Graph) {
    let Some(server) = serve("an_auditor_after_root_deletes_nothing", "root").await else { return };
    let rig = Rig::new(graph).cluster(None, &server, None);
    rig.sync(0).await;
    let before = rig.stable(&METRICS).await;
    server.shutdown().await;
    let server = serve("an_auditor_after_root_deletes_nothing", "auditor").await.unwrap();
    let rig = rig.without_clusters().cluster(None, &server, None);
    let ran = rig.sync(0).await;
    for label in LABELS {
        let [created, updated, _, deleted, kept] = ran.counts(label);
        assert_eq!([created, updated, deleted, kept], [0; 4], "{label}");
    }
    assert_eq!(rig.stable(&METRICS).await, before);
    compare(&rig, &expected("auditor"), true).await;
    server.shutdown().await;
}
on_both_stores!(auditor => an_auditor_after_root_deletes_nothing);

async fn a_pools_auditor_after_root_deletes_nothing(graph: &Graph) {
    let Some(server) = serve("a_pools_auditor_after_root_deletes_nothing", "root").await else { return };
    let rig = Rig::new(graph).cluster(None, &server, None);
    rig.sync(0).await;
    let unseen_metrics: Vec<&str> = METRICS.into_iter().chain(["stale_since"]).collect();
    let before = rig.stable(&unseen_metrics).await;
    server.shutdown().await;
    let server = serve("a_pools_auditor_after_root_deletes_nothing", "pool-limited").await.unwrap();

    // Without a configured name it is not known which cluster this is.
    let rig = rig.without_clusters().cluster(None, &server, None);
    rig.run(&["sync"]).await.ended(12).says(&["set `name` under its [[clusters]]", "Sys.Audit"]);
    assert_eq!(rig.stable(&unseen_metrics).await, before);

    let rig = rig.without_clusters().cluster(Some("rig"), &server, None);
    let ran = rig.run(&["sync", "-o", "json", "-v"]).await.ended(0).says(&["guests filtered", "VM.Audit"]);
    for label in LABELS {
        assert_eq!(ran.counts(label)[3], 0, "{label}: deleted");
    }
    assert_eq!(ran.counts("ProxmoxVM"), [0, 0, 2, 0, 9]);
    assert_eq!(ran.counts("ProxmoxStorage"), [0, 0, 1, 0, 4]);
    assert_eq!(ran.counts("ProxmoxBackupJob"), [0, 0, 0, 0, 3]);
    // What it could not see keeps its values, metrics of nodes among them.
    assert_eq!(rig.stable(&unseen_metrics).await, before);
    let nodes = rig
        .read("MATCH (n:ProxmoxNode) WHERE n.memory_total > 0 AND n.ip IS NOT NULL RETURN n.name AS name")
        .await;
    assert_eq!(nodes.len(), 2);
    let stale = rig.read("MATCH (v:ProxmoxVM) WHERE v.stale_since IS NOT NULL RETURN v.vmid AS vmid").await;
    assert_eq!(stale.len(), 9);
    // The report says what it rests on.
    let report = rig.run(&["report", "run", "R1", "-o", "json"]).await.ended(0).says(&["may be incomplete"]);
    assert_eq!(report.json()["complete"], false);
    server.shutdown().await;
}
on_both_stores!(pool => a_pools_auditor_after_root_deletes_nothing);
