//! The contract of the two stores: whatever the program writes into one is what it writes into the other, and whatever it asks
//! has the same answer. The same worlds are synced into a real Neo4j and into a file, and the two graphs are compared whole.
//!
//! The two differ in one thing, which is settled here and nowhere else: in the file, `id` is the joined key and `contract_id` the
//! contract's `id`.

mod statements;

use std::collections::{BTreeMap, BTreeSet};

use pve_sim::{
    Fault, FaultRule, GuestSpec, Power, ROOT_TOKEN, RecordedEstate, SimOptions, SimServer, Usage, World,
    WorldSpec,
};
use pvegraph_embedded_store::{EmbeddedStore, Mode};
use pvegraph_graph::labels::key_of;
use pvegraph_graph::neo4j::{DEFAULT_MAX_CONNECTIONS, Neo4jConfig, Neo4jStore, StoreTimeouts};
use pvegraph_graph::reports::{self, Report};
use pvegraph_graph::{Dialect, Rows, Statement, Store};
use pvegraph_testkit::{Neo4jServer, emptied, recordings_dir};
use serde_json::{Map, Value, json};

use crate::support::{Graph, LABELS, Ran, Rig};

/// Opens the server's graph as the program does.
pub fn neo4j(db: &Neo4jServer) -> Neo4jStore {
    Neo4jStore::connect(Neo4jConfig {
        uri: db.bolt_uri.clone(),
        user: db.user.clone(),
        password: db.password.clone().into(),
        database: None,
        max_connections: DEFAULT_MAX_CONNECTIONS,
        timeouts: StoreTimeouts::default(),
    })
    .unwrap()
}

/// The file that a rig's program writes to.
pub fn embedded(rig: &Rig, mode: Mode) -> EmbeddedStore {
    EmbeddedStore::open(&rig.dir.path().join("graph.kgl"), mode).unwrap()
}

/// `PVEGRAPH_TEST_SEED`, or always the same.
fn seed() -> u64 {
    let seed = std::env::var("PVEGRAPH_TEST_SEED").map_or(20_261_121, |seed| seed.parse().unwrap());
    println!("PVEGRAPH_TEST_SEED={seed}");
    seed
}

/// All nodes and relationships of a graph, by label and by type, in a stable order, in the terms of the contract.
pub type Whole = BTreeMap<String, Vec<Value>>;

/// Reads everything that is in the store. `runs`: the tags of the runs so far, which stand in the graph as stamps; each becomes its
/// place in the list, because two stores have different ones.
pub async fn whole(store: &dyn Store, runs: &[i64]) -> Whole {
    let mut whole = Whole::new();
    let nodes = store.read(Statement::new("MATCH (n) RETURN n")).await.unwrap();
    for row in nodes.rows {
        let (label, properties) = node(&row[0], store.dialect(), runs);
        whole.entry(label).or_default().push(Value::Object(properties));
    }
    let relationships = store.read(Statement::new("MATCH (a)-[r]->(b) RETURN a, r, b")).await.unwrap();
    for row in relationships.rows {
        let end = |value: &Value| {
            let (label, properties) = node(value, store.dialect(), runs);
            json!([label, properties.get("cluster_id"), properties.get("id")])
        };
        let kind = row[1]["type"].as_str().unwrap().to_owned();
        let mut properties = row[1]["properties"].as_object().unwrap().clone();
        settle(&mut properties, runs);
        whole.entry(kind).or_default().push(json!([end(&row[0]), end(&row[2]), properties]));
    }
    whole.values_mut().for_each(|list| list.sort_by_key(Value::to_string));
    whole
}

/// One node's label, and its properties in the terms of the contract.
fn node(node: &Value, dialect: Dialect, runs: &[i64]) -> (String, Map<String, Value>) {
    let labels = node["labels"].as_array().unwrap();
    assert_eq!(labels.len(), 1, "{node}");
    let label = labels[0].as_str().unwrap();
    let mut properties = node["properties"].as_object().unwrap().clone();
    if dialect == Dialect::Embedded && (LABELS.contains(&label) || label == "ProxmoxChange") {
        let part = |name: &&str| {
            properties[*name].as_str().map_or_else(|| properties[*name].to_string(), str::to_owned)
        };
        let joined: Vec<_> = key_of(label).iter().map(part).collect();
        assert_eq!(properties.remove("id"), Some(json!(joined.join("/"))), "{node}");
        if let Some(id) = properties.remove("contract_id") {
            properties.insert("id".to_owned(), id);
        }
    }
    settle(&mut properties, runs);
    (label.to_owned(), properties)
}

/// Takes the times out: stamps become the number of their run, moments of a clock one word.
fn settle(properties: &mut Map<String, Value>, runs: &[i64]) {
    properties.retain(|_, value| !value.is_null());
    let number = |tag: i64| runs.iter().position(|run| *run == tag);
    for (name, value) in properties.iter_mut() {
        let Some(now) = value.as_i64() else { continue };
        match (name.as_str(), number(now)) {
            ("firstseen" | "lastupdated" | "stale_since" | "history_since" | "at" | "tag", Some(run)) => {
                *value = json!(format!("run {run}"))
            }
            ("started_at" | "finished_at" | "applied_at" | "asked_at", _) if now > 1_700_000_000 => {
                *value = json!("a time")
            }
            _ => {}
        }
    }
    let run = properties.get("id").and_then(Value::as_str).and_then(|id| id.rsplit_once('/'));
    if let Some((cluster, Some(run))) = run.map(|(cluster, tag)| (cluster, tag.parse().ok().and_then(number)))
    {
        let id = json!(format!("{cluster}/run {run}"));
        properties.insert("id".to_owned(), id);
    }
    // A change's begins with its run.
    let run = properties.get("id").and_then(Value::as_str).and_then(|id| id.split_once('/'));
    if let Some((Some(run), rest)) = run.map(|(tag, rest)| (tag.parse().ok().and_then(number), rest)) {
        let id = json!(format!("run {run}/{rest}"));
        properties.insert("id".to_owned(), id);
    }
}

/// Fails with what differs, and not with two whole graphs.
fn assert_same(what: &str, [neo4j, embedded]: [&Whole; 2]) {
    let names: BTreeSet<_> = neo4j.keys().chain(embedded.keys()).collect();
    let none = Vec::new();
    let mut differing = Vec::new();
    for name in names {
        let [a, b] = [neo4j, embedded].map(|whole| whole.get(name).unwrap_or(&none));
        differing.extend(
            a.iter().filter(|one| !b.contains(one)).map(|one| format!("{name}, only in Neo4j: {one}")),
        );
        differing.extend(
            b.iter().filter(|one| !a.contains(one)).map(|one| format!("{name}, only in the file: {one}")),
        );
        if a.len() != b.len() {
            differing.push(format!("{name}: {} in Neo4j, {} in the file", a.len(), b.len()));
        }
    }
    assert!(differing.is_empty(), "{what}:\n{}", differing.join("\n"));
}

/// How a report's rows are ordered: by all of a row's identity, or by these columns alone and by chance within ties.
fn ordered_by(report: &Report) -> Option<&'static [&'static str]> {
    match report.code.as_str() {
        "Q8" | "R1" | "R2" | "R17" | "R18" | "R17b" => None,
        "Q1" => Some(&["v.memory"]),
        "Q2" | "Q4" | "Q7" => Some(&[]),
        "Q3" => Some(&["n.cpu_usage"]),
        "Q5" => Some(&["usage_percent"]),
        "Q6" => Some(&["v.name", "d.disk_id"]),
        other => panic!("say here how the rows of the new report {other} are ordered"),
    }
}

/// Parameters to run a report with: its defaults, and others, whole numbers and null among them.
fn parameters(report: &Report) -> Vec<Value> {
    let others = match report.code.as_str() {
        "R17" => vec![
            json!({ "cpu": 0.3, "memory": 0.5, "idle": 0.05 }),
            json!({ "cpu": 2, "memory": 2, "idle": 1 }),
            json!({ "cpu": null, "idle": 0.3 }),
        ],
        "R17b" => vec![json!({ "full": 0.5 }), json!({ "full": 0 }), json!({ "full": null })],
        "R18" => vec![
            json!({ "days": 0, "chain": 0 }),
            json!({ "days": 1.5 }),
            json!({ "chain": 1, "days": null }),
        ],
        _ => Vec::new(),
    };
    assert_eq!(report.params.is_empty(), others.is_empty(), "give {} other parameters here", report.code);
    std::iter::once(json!({})).chain(others).collect()
}

/// Asserts that two answers to one report are the same rows.
fn assert_same_rows(what: &str, report: &Report, [neo4j, embedded]: [&Rows; 2]) {
    let embedded = &same_day(neo4j, embedded);
    assert_eq!(neo4j.columns, embedded.columns, "{what}");
    let Some(columns) = ordered_by(report) else {
        assert_eq!(neo4j.rows, embedded.rows, "{what}");
        return;
    };
    let order = |rows: &Rows| -> Vec<Vec<Value>> {
        (0..rows.rows.len())
            .map(|row| columns.iter().map(|name| rows.get(row, name).unwrap().clone()).collect())
            .collect()
    };
    assert_eq!(order(neo4j), order(embedded), "{what}: the order");
    assert_eq!(bag(neo4j), bag(embedded), "{what}");
}

/// The two stores were synced one after the other, and midnight may have been between: an age in days may differ by one.
fn same_day(neo4j: &Rows, embedded: &Rows) -> Rows {
    let mut same = embedded.clone();
    let Some(at) = same.columns.iter().position(|name| name == "age_days") else { return same };
    for (ours, theirs) in same.rows.iter_mut().zip(&neo4j.rows) {
        if let (Some(a), Some(b)) = (ours[at].as_i64(), theirs[at].as_i64())
            && a.abs_diff(b) <= 1
        {
            ours[at] = theirs[at].clone();
        }
    }
    same
}

fn bag(rows: &Rows) -> Vec<String> {
    let mut rows: Vec<_> = rows.rows.iter().map(|row| Value::from(row.clone()).to_string()).collect();
    rows.sort();
    rows
}

/// Runs every report on both stores with all its parameters. Answers how many rows each had with each.
async fn assert_same_reports(what: &str, stores: [&dyn Store; 2]) -> BTreeMap<(String, String), usize> {
    let mut sizes = BTreeMap::new();
    for report in reports::reports().unwrap() {
        for given in parameters(&report) {
            let what = format!("{what}: {} {given}", report.code);
            let given_map = given.as_object().unwrap();
            let mut answers = Vec::new();
            for store in stores {
                let answer = reports::run(store, &report, given_map).await;
                answers.push(answer.unwrap_or_else(|error| panic!("{what} on {}: {error}", store.target())));
            }
            assert_same_rows(&what, &report, [&answers[0].rows, &answers[1].rows]);
            assert_eq!(answers[0].unseen, answers[1].unseen, "{what}: what was not seen");
            sizes.insert((report.code.clone(), given.to_string()), answers[0].rows.rows.len());
        }
    }
    sizes
}

/// The program with the same clusters on both stores.
struct Pair {
    db: pvegraph_testkit::Exclusive,
    rigs: [Rig; 2],
    runs: [Vec<i64>; 2],
    rows: BTreeMap<(String, String), usize>,
}

impl Pair {
    async fn new() -> Self {
        let db = emptied().await;
        let rigs = [Rig::new(&Graph::Neo4j((*db).clone())), Rig::new(&Graph::Embedded)];
        Self { db, rigs, runs: Default::default(), rows: BTreeMap::new() }
    }

    fn with(mut self, clusters: &[(Option<&str>, &SimServer)]) -> Self {
        self.rigs = self.rigs.map(|rig| {
            clusters.iter().fold(rig.without_clusters(), |rig, (name, server)| {
                let credential = server.world().and_then(|world| world.credential(ROOT_TOKEN));
                rig.cluster(*name, server, credential.as_ref())
            })
        });
        self
    }

    /// Syncs into both, and compares what the program says, the whole graphs, and all reports.
    async fn agree(&mut self, what: &str, code: i32) -> Whole {
        println!("{what}");
        let mut said = Vec::new();
        for (rig, runs) in self.rigs.iter().zip(&mut self.runs) {
            let ran = rig.sync(code).await;
            let mut answer = ran.json();
            let clusters = answer["clusters"].as_array_mut().unwrap();
            for cluster in clusters.iter_mut() {
                for time in ["crawl_seconds", "load_seconds"] {
                    assert!(cluster[time].take().is_f64(), "{what}: {time}");
                }
            }
            let tags: BTreeSet<i64> =
                clusters.iter_mut().map(|cluster| cluster["tag"].take().as_i64().unwrap()).collect();
            assert_eq!(tags.len(), 1, "{what}: one run has one tag");
            runs.extend(&tags);
            said.push(answer);
        }
        assert_eq!(said[0], said[1], "{what}: what the program says");
        let neo4j = neo4j(&self.db);
        let embedded = embedded(&self.rigs[1], Mode::Read);
        let graphs = [whole(&neo4j, &self.runs[0]).await, whole(&embedded, &self.runs[1]).await];
        assert_same(what, graphs.each_ref());
        for (key, size) in assert_same_reports(what, [&neo4j, &embedded]).await {
            let most = self.rows.entry(key).or_default();
            *most = size.max(*most);
        }
        let [graph, _] = graphs;
        graph
    }

    async fn run(&self, args: &[&str]) -> [Ran; 2] {
        let [a, b] = &self.rigs;
        [a.run(args).await.ended(0), b.run(args).await.ended(0)]
    }
}

fn rows_of(ran: &Ran) -> Rows {
    let answer = ran.json();
    let columns: Vec<String> =
        answer["columns"].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect();
    let cells = |row: &Value| columns.iter().map(|name| row[name].clone()).collect();
    let rows = answer["rows"].as_array().unwrap().iter().map(cells).collect();
    Rows { columns, rows }
}

fn nodes_of<'a>(whole: &'a Whole, label: &str, cluster: &str) -> Vec<&'a Value> {
    whole[label].iter().filter(|node| node["cluster_id"] == cluster).collect()
}

fn guest<'a>(whole: &'a Whole, cluster: &str, vmid: u32) -> Option<&'a Value> {
    nodes_of(whole, "ProxmoxVM", cluster).into_iter().find(|guest| guest["vmid"] == vmid)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_clusters_with_the_same_names_are_the_same_graph_in_both_stores() {
    let first = World::generate(&WorldSpec::demo());
    let second = World::generate(&WorldSpec::new("second", 3, 40, seed()));
    let names = |world: &World| {
        world.read(|state| {
            let nodes: BTreeSet<_> = state.nodes.keys().cloned().collect();
            let storages: BTreeSet<_> = state.storages.keys().cloned().collect();
            (nodes, storages, state.guests.keys().copied().collect::<BTreeSet<_>>())
        })
    };
    let (a, b) = (names(&first), names(&second));
    assert_eq!((&a.0, &a.1), (&b.0, &b.1));
    assert!(a.2.intersection(&b.2).count() > 5, "{:?} and {:?}", a.2, b.2);

    let first = SimServer::start(first, SimOptions::default()).await.unwrap();
    let second = SimServer::start(second, SimOptions::default()).await.unwrap();
    let mut pair = Pair::new().await.with(&[(None, &first), (Some("2nd"), &second)]);
    let begin = pair.agree("the first run", 0).await;
    assert_eq!(nodes_of(&begin, "ProxmoxVM", "demo").len(), 24);
    assert_eq!(nodes_of(&begin, "ProxmoxVM", "2nd").len(), 40);
    pair.agree("nothing happened", 0).await;

    // What happens to an estate, some of it with the same vmid in the other one.
    let world = first.world().unwrap();
    world.migrate(130, "pve2").unwrap();
    world.recreate(GuestSpec::lxc(131, "another").node("pve3").disk("rootfs", "local-lvm", 8, "")).unwrap();
    world.move_disk(110, "scsi1", "nfs-vm").unwrap();
    world.remove_guest(142).unwrap();
    world.set_job_enabled("nightly", false).unwrap();
    world.remove_backup_job("old-weekly").unwrap();
    world.rename(121, "CRM").unwrap();
    world.set_tags(100, &["web", "production"]).unwrap();
    world.set_tags(120, &[]).unwrap();
    world.set_config(120, "scsi0", "local-lvm:vm-120-disk-0,backup=0,size=120G").unwrap();
    world.set_power(112, Power::Running).unwrap();
    world.set_pool(130, None).unwrap();
    world.grow_disk(132, "scsi1", 10).unwrap();
    world.delete_config(111, "net1").unwrap();
    world.delete_config(111, "scsi1").unwrap();
    world.set_config(111, "net0", "virtio=BC:24:11:00:00:01,bridge=vmbr1").unwrap();
    // Volumes are left on a storage that is no more.
    world.remove_storage("tank").unwrap();
    // What queries divide by.
    second
        .world()
        .unwrap()
        .update(|state| state.nodes.get_mut("pve2").unwrap().memory = Usage { total: 0, used: 0 });
    let changed = pair.agree("much happened", 0).await;
    let stamp = |graph: &Whole, vmid| guest(graph, "demo", vmid).unwrap()["firstseen"].clone();
    assert_eq!((stamp(&changed, 130), stamp(&changed, 131)), (json!("run 0"), json!("run 2")));
    assert!(guest(&changed, "demo", 142).is_none());
    assert_eq!(nodes_of(&changed, "ProxmoxStorage", "demo").len(), 6);

    // What a run does not see stays, and is marked.
    world.remove_guest(150).unwrap();
    world.set_node_load("pve1", 0.5, 0.6).unwrap();
    let refusal = || Fault::Status { status: 500, reason: "got timeout".to_owned() };
    let faults = first.faults();
    faults.add(FaultRule::at("/nodes/pve1/lxc", refusal()));
    faults.add(FaultRule::at("/nodes/pve2/qemu/101/config", refusal()));
    faults.add(FaultRule::below("/nodes/pve3/storage", refusal()));
    second.world().unwrap().set_node_online("pve3", false).unwrap();
    let partial = pair.agree("some of it failed", 3).await;
    assert_eq!(guest(&partial, "demo", 150).unwrap()["stale_since"], "run 3");
    pair.agree("it failed again", 3).await;
    second.world().unwrap().forget_offline("pve3").unwrap();
    faults.clear();
    second.faults().add(FaultRule::at("/cluster/backup", refusal()));
    pair.agree("other things failed", 3).await;

    second.faults().clear();
    second.world().unwrap().set_node_online("pve3", true).unwrap();
    let end = pair.agree("all is well again", 0).await;
    assert!(guest(&end, "demo", 150).is_none());
    assert!(LABELS.iter().flat_map(|label| &end[*label]).all(|node| node.get("stale_since").is_none()));

    for ((code, given), rows) in &pair.rows {
        assert!(*rows > 0, "{code} {given} never had a row");
    }
    // The same through the program.
    for report in reports::reports().unwrap() {
        for given in parameters(&report) {
            let params: Vec<String> = given
                .as_object()
                .unwrap()
                .iter()
                .map(|(name, value)| format!("--param={name}={value}"))
                .collect();
            let mut args = vec!["report", "run", &report.code, "-o", "json"];
            args.extend(params.iter().map(String::as_str));
            let [neo4j, embedded] = pair.run(&args).await;
            assert_same_rows(&format!("{args:?}"), &report, [&rows_of(&neo4j), &rows_of(&embedded)]);
            assert_eq!(neo4j.json()["complete"], true);
            assert_eq!(embedded.json()["complete"], true);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_recorded_estate_is_the_same_graph_in_both_stores() {
    let test = "the_recorded_estate_is_the_same_graph_in_both_stores";
    let Some(directory) = recordings_dir(test) else { return };
    let serve = |view: &str| {
        let estate =
            RecordedEstate::read(&directory.join("estate-8.4").join(format!("{view}.jsonl"))).unwrap();
        SimServer::start_recorded(estate, SimOptions::default())
    };
    let mut pair = Pair::new().await;
    for view in ["root", "auditor", "pool-limited", "root"] {
        let server = serve(view).await.unwrap();
        pair = pair.with(&[(Some("rig"), &server)]);
        let graph = pair.agree(view, 0).await;
        assert_eq!(graph["ProxmoxVM"].len(), 11, "{view}");
        server.shutdown().await;
    }
}

/// Values that no ordinary estate has: what a report divides by, compares with or sorts by is zero, absent, or odd.
#[tokio::test]
async fn reports_agree_on_odd_values() {
    let db = emptied().await;
    let rig = Rig::new(&Graph::Embedded);
    let stores: [Box<dyn Store>; 2] = [Box::new(neo4j(&db)), Box::new(embedded(&rig, Mode::Write))];
    for store in &stores {
        statements::migrate(&**store).await;
        statements::odd_estate(&**store).await;
    }
    let stores = [&*stores[0], &*stores[1]];
    assert_same("odd values", [&whole(stores[0], &[]).await, &whole(stores[1], &[]).await]);
    let sizes = assert_same_reports("odd values", stores).await;
    assert!(sizes.values().all(|rows| *rows > 0), "{sizes:?}");
}

#[test]
#[should_panic(
    expected = "ProxmoxVM, only in the file: 2\nProxmoxVM, only in the file: 3\nProxmoxVM: 2 in Neo4j, 3 in the file"
)]
fn a_difference_is_told() {
    let whole =
        |list: &[i64]| Whole::from([("ProxmoxVM".to_owned(), list.iter().map(|n| json!(n)).collect())]);
    assert_same("equal", [&whole(&[1, 1]), &whole(&[1, 1])]);
    assert_same("different", [&whole(&[1, 1]), &whole(&[1, 2, 3])]);
}
