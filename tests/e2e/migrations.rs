//! Migrations, dump and restore. Every test runs on a Neo4j and on the embedded store.
#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests may fail as tests do

mod backup;

use std::collections::BTreeSet;
use std::fs;
use std::future::Future;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use pvegraph_embedded_store::{EmbeddedStore, Mode};
use pvegraph_graph::dump::{self, DumpError, DumpSummary, Existing, KeyOf, own_key};
use pvegraph_graph::lease::{Holder, Lease};
use pvegraph_graph::migrate::{MigrateError, MigrateOptions, MigrationState, Migrations};
use pvegraph_graph::neo4j::{DEFAULT_MAX_CONNECTIONS, Neo4jConfig, Neo4jStore, StoreTimeouts};
use pvegraph_graph::{Dialect, SchemaObject, Statement, Store};
use pvegraph_testkit::{Neo4jServer, fresh};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The labels of the tables, and those that the migrations and damages of these tests make.
const KEY_OF: KeyOf = |label| match label {
    "ProxmoxNew" | "DesiredNew" | "ProxmoxTemplate" | "ProxmoxThing" | "ProxmoxJunk" => Some(vec!["id"]),
    _ => own_key(label),
};

/// Runs a test on both stores, each empty but for a foreign node that must survive everything.
async fn on_both<F: Future<Output = ()>>(test: impl Fn(Box<dyn Store>) -> F) {
    let directory = TempDir::new().unwrap();
    let embedded = EmbeddedStore::open(&directory.path().join("graph.kgl"), Mode::Write).unwrap();
    let db = fresh().await;
    let neo4j = neo4j_store(&db);
    for store in [Box::new(neo4j) as Box<dyn Store>, Box::new(embedded)] {
        eprintln!("on {}", store.target());
        write(&*store, "CREATE (:App {id: 'mine', name: 'mine'})").await;
        test(store).await;
    }
}

fn neo4j_store(server: &Neo4jServer) -> Neo4jStore {
    Neo4jStore::connect(Neo4jConfig {
        uri: server.bolt_uri.clone(),
        user: server.user.clone(),
        password: server.password.clone().into(),
        database: None,
        max_connections: DEFAULT_MAX_CONNECTIONS,
        timeouts: StoreTimeouts::default(),
    })
    .unwrap()
}

async fn write(store: &dyn Store, text: &str) {
    store.write(vec![Statement::new(text.to_owned())]).await.unwrap();
}

async fn value(store: &dyn Store, text: &str) -> Value {
    store.read(Statement::new(text.to_owned())).await.unwrap().rows.remove(0).remove(0)
}

/// The dump's lines without the header, which has the time.
async fn dumped(store: &dyn Store) -> Vec<String> {
    let mut out = Vec::new();
    let summary = dump::dump(store, KEY_OF, &mut out).await.unwrap();
    let text = String::from_utf8(out).unwrap();
    let lines: Vec<String> = text.lines().skip(1).map(str::to_owned).collect();
    assert_eq!(lines.len() as u64, summary.nodes + summary.relationships + 1);
    lines
}

/// Two nodes and three guests with every type of property, and what other tools have to do with them.
async fn estate(store: &dyn Store) {
    for constraint in [
        "CREATE CONSTRAINT vm_key IF NOT EXISTS FOR (n:ProxmoxVM) REQUIRE (n.cluster_id, n.vmid) IS UNIQUE",
        "CREATE CONSTRAINT node_key IF NOT EXISTS FOR (n:ProxmoxNode) REQUIRE (n.cluster_id, n.name) IS UNIQUE",
    ] {
        store.schema(constraint).await.unwrap();
    }
    // In the embedded store `id` is the joined key.
    let nodes = json!([
        { "id": "c/pve1", "cluster_id": "c", "name": "pve1", "uptime": 7, "cpu_usage": 0.1_f64 + 0.2, "online": true },
        { "id": "c/pve2", "cluster_id": "c", "name": "pve2", "uptime": i64::MAX, "cpu_usage": 1.0, "online": false },
    ]);
    let guests = json!([
        { "id": "c/100", "cluster_id": "c", "vmid": 100, "name": "ä`'\"\\\n", "tags": ["b", "a"], "disk": 0, "load": 1e300 },
        { "id": "c/99", "cluster_id": "c", "vmid": 99, "name": "", "tags": [], "numbers": [3, 1], "floats": [1.0, 0.5] },
        { "id": "d/99", "cluster_id": "d", "vmid": 99, "load": 5e-324, "flags": [true, false] },
    ]);
    let run = json!([{ "id": "run", "finished_at": 1_700_000_000 }]);
    let create = |label: &str, rows: Value| {
        let key = if label == "ProxmoxNode" { "name" } else { "vmid" };
        let key = match label {
            "ProxmoxSyncRun" => String::new(),
            _ => format!(", cluster_id: row.cluster_id, {key}: row.{key}"),
        };
        Statement::new(format!("UNWIND $rows AS row MERGE (n:{label} {{id: row.id{key}}}) SET n += row"))
            .with("rows", rows)
    };
    store
        .write(vec![create("ProxmoxNode", nodes), create("ProxmoxVM", guests), create("ProxmoxSyncRun", run)])
        .await
        .unwrap();
    write(store, "MATCH (n:ProxmoxNode {name: 'pve1'}) MATCH (v:ProxmoxVM {vmid: 100}) MERGE (n)-[r:HOSTS_VM]->(v) SET r.firstseen = 1, r.share = 0.1").await;
    write(store, "MATCH (n:ProxmoxNode {name: 'pve2'}) MATCH (v:ProxmoxVM {vmid: 99}) MERGE (n)-[r:HOSTS_VM]->(v) SET r.firstseen = 2").await;
    write(
        store,
        "MATCH (v:ProxmoxVM {vmid: 99}) MATCH (w:ProxmoxVM {vmid: 100}) MERGE (v)-[:DEPENDS_ON]->(w)",
    )
    .await;
    write(store, "MATCH (v:ProxmoxVM {vmid: 100}) MATCH (a:App {id: 'mine'}) MERGE (a)-[r:RUNS_ON]->(v) SET r.since = 3").await;
}

#[tokio::test]
async fn a_restored_graph_dumps_to_the_same_bytes() {
    on_both(|store| async move {
        let store = &*store;
        estate(store).await;
        let before = dumped(store).await;
        let end: Value = serde_json::from_str(before.last().unwrap()).unwrap();
        assert_eq!(end, json!({ "end": { "nodes": 6, "relationships": 5 } }), "{before:#?}");
        assert_eq!(dumped(store).await, before, "two dumps of one graph differ");
        let mut file = Vec::new();
        dump::dump(store, KEY_OF, &mut file).await.unwrap();

        for damage in [
            // Nothing happened at all.
            "MATCH (n:ProxmoxVM) RETURN count(n)",
            "MATCH (n:ProxmoxVM) DETACH DELETE n",
            "MATCH (n:ProxmoxVM {vmid: 100}) SET n.tags = ['x'], n.new = 1, n.load = 1, n.disk = 0.5",
            "MATCH ()-[r:HOSTS_VM]->() DELETE r",
            "MATCH (a:ProxmoxNode) MATCH (b:ProxmoxVM) MERGE (a)-[r:HOSTS_VM]->(b) SET r.firstseen = 9",
            "CREATE (:ProxmoxVM {id: 'c/101', cluster_id: 'c', vmid: 101, name: 'new'})",
            "CREATE (:ProxmoxNew {id: 'x', name: 'x'})-[:NEW]->(:DesiredNew {id: 'y', name: 'y'})",
            "MATCH (n:ProxmoxVM {cluster_id: 'd'}) SET n:ProxmoxTemplate",
            "MATCH (n) WHERE any(label IN labels(n) WHERE label STARTS WITH 'Proxmox') DETACH DELETE n",
        ] {
            write(store, damage).await;
            let summary = dump::restore(store, KEY_OF, &mut Cursor::new(&file)).await.unwrap();
            assert_eq!(summary, DumpSummary { nodes: 6, relationships: 5 });
            assert_eq!(dumped(store).await, before, "after {damage}");
            assert_eq!(value(store, "MATCH (n:App) RETURN count(n)").await, json!(1), "after {damage}");
        }
    })
    .await;
}

/// Several of one type between two nodes: different ones, two that are the same, and more than a page in all.
#[tokio::test]
async fn parallel_relationships_come_back_as_many() {
    on_both(|store| async move {
        let store = &*store;
        estate(store).await;
        let scopes = |from: i64, to: i64| {
            let rows = (from..to).map(|n| json!({ "collector": "guests", "node": format!("pve{n}"), "count": n }));
            Value::Array(rows.collect())
        };
        let guest = |vmid: i64, rows: Value| {
            Statement::new(
                "UNWIND $rows AS row MATCH (r:ProxmoxSyncRun {id: 'run'}) MATCH (v:ProxmoxVM {cluster_id: 'c', vmid: $vmid})
                 CREATE (r)-[:COLLECTED {collector: row.collector, node: row.node, count: row.count}]->(v)",
            )
            .with("rows", rows)
            .with("vmid", vmid)
        };
        let twins = json!([{ "collector": "cluster" }, { "collector": "cluster" }]);
        for statement in
            [guest(99, scopes(0, 40)), guest(99, twins.clone()), guest(100, scopes(0, 5_200)), guest(100, twins)]
        {
            store.write(vec![statement]).await.unwrap();
        }
        let before = dumped(store).await;
        let of = |lines: &[String]| lines.iter().filter(|line| line.contains("COLLECTED")).count();
        assert_eq!(of(&before), 42 + 5_202);
        assert_eq!(before.iter().filter(|line| line.contains("{\"collector\":\"cluster\"")).count(), 4);
        for end in [r#"["c",99]},"properties":{"c"#, r#"["c",100]},"properties":{"c"#] {
            assert!(before.iter().filter(|line| line.contains(end)).is_sorted(), "{end}");
        }
        let mut file = Vec::new();
        dump::dump(store, KEY_OF, &mut file).await.unwrap();

        let collected = "MATCH (:ProxmoxSyncRun)-[r:COLLECTED]->(:ProxmoxVM)";
        for damage in [
            "RETURN count(r)",
            "WHERE r.collector = 'cluster' DELETE r",
            "WHERE r.count % 2 = 1 DELETE r",
            "SET r.count = 7",
            "DELETE r",
        ] {
            write(store, &format!("{collected} {damage}")).await;
            dump::restore(store, KEY_OF, &mut Cursor::new(&file)).await.unwrap();
            assert!(dumped(store).await == before, "the graph differs after {damage}");
        }
    })
    .await;
}

/// Who restores holds it.
#[tokio::test]
async fn the_lease_is_neither_dumped_nor_removed() {
    on_both(|store| async move {
        let store = &*store;
        estate(store).await;
        let mut file = Vec::new();
        dump::dump(store, KEY_OF, &mut file).await.unwrap();
        let holder = Holder { name: "test".to_owned(), lock: None };
        let lease = Lease::take(store, &holder, 1_000).await.unwrap();
        let mut again = Vec::new();
        dump::dump(store, KEY_OF, &mut again).await.unwrap();
        assert!(!String::from_utf8_lossy(&again).contains("PvegraphLease"));
        dump::restore(store, KEY_OF, &mut Cursor::new(&file)).await.unwrap();
        store.write(vec![lease.guard(1_001)]).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn other_tools_relationships_survive_a_restore() {
    on_both(|store| async move {
        let store = &*store;
        estate(store).await;
        let mut file = Vec::new();
        dump::dump(store, KEY_OF, &mut file).await.unwrap();
        assert!(!String::from_utf8_lossy(&file).contains("RUNS_ON"));
        write(store, "MATCH (v:ProxmoxVM) SET v.tags = ['damaged'], v.load = null").await;
        dump::restore(store, KEY_OF, &mut Cursor::new(&file)).await.unwrap();
        assert_eq!(
            value(store, "MATCH (:App)-[r:RUNS_ON]->(:ProxmoxVM {vmid: 100}) RETURN r.since").await,
            json!(3)
        );
    })
    .await;
}

#[tokio::test]
async fn nodes_of_other_tools_survive_whatever_their_labels_begin_with() {
    on_both(|store| async move {
        let store = &*store;
        estate(store).await;
        write(store, "CREATE (:ProxmoxBackup {id: 'old', n: 1})-[:OF]->(:DesiredState {id: 'old', n: 1})")
            .await;
        let mut file = Vec::new();
        dump::dump(store, own_key, &mut file).await.unwrap();
        let text = String::from_utf8_lossy(&file);
        assert!(!text.contains("ProxmoxBackup") && !text.contains("DesiredState"), "{text}");
        write(store, "MATCH (n:ProxmoxBackup) SET n.n = 2").await;
        write(store, "CREATE (:PvegraphNotes {id: 'new', n: 3})").await;
        write(store, "CREATE (:ProxmoxVM {id: 'c/101', cluster_id: 'c', vmid: 101})").await;
        dump::restore(store, own_key, &mut Cursor::new(&file)).await.unwrap();
        for (found, expected) in [
            ("MATCH (n:ProxmoxBackup)-[:OF]->(:DesiredState) RETURN n.n", 2),
            ("MATCH (n:PvegraphNotes) RETURN n.n", 3),
            ("MATCH (n:ProxmoxVM) RETURN count(n)", 3),
        ] {
            assert_eq!(value(store, found).await, json!(expected), "{found}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_graph_larger_than_a_page_comes_back_whole() {
    on_both(|store| async move {
        let store = &*store;
        estate(store).await;
        let rows: Vec<Value> = (0..5_100)
            .map(|vmid| json!({ "id": format!("big/{vmid}"), "cluster_id": "big", "vmid": vmid, "name": format!("g{vmid}") }))
            .collect();
        let merge = "UNWIND $rows AS row MERGE (n:ProxmoxVM {id: row.id, cluster_id: row.cluster_id, vmid: row.vmid}) SET n += row";
        store.write(vec![Statement::new(merge).with("rows", rows.clone())]).await.unwrap();
        let relate = "UNWIND $rows AS row MATCH (a:ProxmoxNode {id: 'c/pve1', cluster_id: 'c', name: 'pve1'})
                      MATCH (n:ProxmoxVM {id: row.id, cluster_id: row.cluster_id, vmid: row.vmid})
                      MERGE (a)-[r:HOSTS_VM]->(n) SET r.n = row.vmid";
        store.write(vec![Statement::new(relate).with("rows", rows)]).await.unwrap();
        let before = dumped(store).await;
        assert_eq!(before.len(), 6 + 5 + 2 * 5_100 + 1);
        assert_eq!(before.iter().collect::<BTreeSet<_>>().len(), before.len());
        let mut file = Vec::new();
        dump::dump(store, KEY_OF, &mut file).await.unwrap();
        write(store, "MATCH (n:ProxmoxVM) WHERE n.vmid % 2 = 0 DETACH DELETE n").await;
        dump::restore(store, KEY_OF, &mut Cursor::new(&file)).await.unwrap();
        assert!(dumped(store).await == before, "the graph differs after its restore");
    })
    .await;
}

#[tokio::test]
async fn a_damaged_dump_changes_nothing() {
    on_both(|store| async move {
        let store = &*store;
        estate(store).await;
        let before = dumped(store).await;
        let mut file = Vec::new();
        dump::dump(store, KEY_OF, &mut file).await.unwrap();
        let text = String::from_utf8(file).unwrap();
        let cut = text.lines().take(4).collect::<Vec<_>>().join("\n");
        let other = match store.dialect() {
            Dialect::Neo4j => text.replace("\"dialect\":\"neo4j\"", "\"dialect\":\"embedded\""),
            Dialect::Embedded => text.replace("\"dialect\":\"embedded\"", "\"dialect\":\"neo4j\""),
        };
        for text in [cut, other, String::new()] {
            let error = dump::restore(store, KEY_OF, &mut Cursor::new(text)).await.unwrap_err();
            assert!(matches!(error, DumpError::Damaged { .. }), "{error:?}");
        }
        assert_eq!(dumped(store).await, before);
    })
    .await;
}

#[tokio::test]
async fn keys_that_do_not_identify_are_told() {
    on_both(|store| async move {
        let store = &*store;
        write(store, "CREATE (:ProxmoxThing {id: 'a', name: null})").await;
        let twin = store.write(vec![Statement::new("CREATE (:ProxmoxThing {id: 'a', n: 1})")]).await;
        if store.dialect() == Dialect::Embedded {
            // That engine keeps `id` unique, and invents one where there is none.
            assert!(twin.is_err());
            return;
        }
        let error = dump::dump(store, KEY_OF, &mut Vec::new()).await.unwrap_err();
        assert!(matches!(&error, DumpError::Duplicate { what, .. } if what == "ProxmoxThing"), "{error:?}");
        write(store, "MATCH (n:ProxmoxThing {n: 1}) SET n.id = null").await;
        let error = dump::dump(store, KEY_OF, &mut Vec::new()).await.unwrap_err();
        assert!(matches!(&error, DumpError::NoKey { what, .. } if what == "ProxmoxThing"), "{error:?}");
    })
    .await;
}

#[tokio::test]
async fn a_dump_s_file_is_whole_and_private() {
    use std::os::unix::fs::PermissionsExt;
    on_both(|store| async move {
        let store = &*store;
        estate(store).await;
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("dump.jsonl");
        fs::write(&path, "old").unwrap();
        let refused = dump::dump_to_file(store, KEY_OF, &path, Existing::Keep).await.unwrap_err();
        assert!(matches!(refused, DumpError::Exists { .. }), "{refused:?}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        dump::dump_to_file(store, KEY_OF, &path, Existing::Replace).await.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(dump::restore_file(store, KEY_OF, &path).await.unwrap().nodes, 6);
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1, "a temporary file is left");
        let nowhere =
            dump::dump_to_file(store, KEY_OF, &directory.path().join("absent/dump"), Existing::Keep)
                .await
                .unwrap_err();
        assert!(matches!(nowhere, DumpError::File { .. }), "{nowhere:?}");
    })
    .await;
}

/// A directory of migrations and one for backups.
struct Files {
    directory: TempDir,
    backups: TempDir,
}

impl Files {
    fn new(migrations: &[(&str, &str, &str)]) -> Self {
        let files = Self { directory: TempDir::new().unwrap(), backups: TempDir::new().unwrap() };
        for (name, up, down) in migrations {
            files.put(name, up, down);
        }
        files
    }

    fn put(&self, name: &str, up: &str, down: &str) {
        fs::write(self.directory.path().join(format!("{name}.up.cypher")), up).unwrap();
        fs::write(self.directory.path().join(format!("{name}.down.cypher")), down).unwrap();
    }

    fn remove(&self, name: &str) {
        for way in ["up", "down"] {
            fs::remove_file(self.directory.path().join(format!("{name}.{way}.cypher"))).unwrap();
        }
    }

    fn read(&self) -> Migrations {
        Migrations::from_dir(self.directory.path()).unwrap()
    }

    fn options(&self) -> MigrateOptions {
        MigrateOptions { backup_dir: Some(self.backups.path().to_owned()), key_of: KEY_OF }
    }

    fn backups(&self) -> Vec<PathBuf> {
        let mut list: Vec<PathBuf> =
            fs::read_dir(&self.backups).unwrap().map(|it| it.unwrap().path()).collect();
        list.sort();
        list
    }
}

const SCHEMA: (&str, &str, &str) = (
    "0001_keys",
    "// Keys.\nCREATE CONSTRAINT vm_key IF NOT EXISTS\nFOR (n:ProxmoxVM) REQUIRE (n.cluster_id, n.vmid) IS UNIQUE;\n",
    "DROP CONSTRAINT vm_key IF EXISTS;\n",
);
const DATA: (&str, &str, &str) = (
    "0002_rename",
    "// data: true\nMATCH (n:ProxmoxVM) SET n.labels = n.tags, n.tags = null;\n\
     MATCH (n:ProxmoxVM) SET n.renamed = true;\n\
     CREATE CONSTRAINT vm_id IF NOT EXISTS FOR (n:ProxmoxVM) REQUIRE n.id IS UNIQUE;\n",
    "// data: true\nDROP CONSTRAINT vm_id IF EXISTS;\n\
     MATCH (n:ProxmoxVM) SET n.tags = n.labels, n.labels = null, n.renamed = null;\n",
);

async fn schema_of(store: &dyn Store) -> Vec<SchemaObject> {
    let mut objects = store.schema_objects().await.unwrap();
    objects.retain(|object| object.label == "ProxmoxVM");
    objects
}

async fn states(migrations: &Migrations, store: &dyn Store) -> Vec<(u32, MigrationState)> {
    let list = migrations.status(store).await.unwrap();
    assert!(
        list.iter().all(|it| it.applied_at.is_none()
            == matches!(it.state, MigrationState::Pending | MigrationState::Interrupted)),
        "{list:?}"
    );
    list.into_iter().map(|it| (it.version, it.state)).collect()
}

/// The dump's lines but for the records of migrations.
async fn data(store: &dyn Store) -> Vec<String> {
    let mut lines = dumped(store).await;
    lines.retain(|line| !line.contains("PvegraphMigration") && !line.starts_with("{\"end\""));
    lines
}

#[tokio::test]
async fn up_and_down_again_is_where_it_began() {
    use MigrationState::{Applied, Pending};
    on_both(|store| async move {
        let store = &*store;
        estate(store).await;
        store.schema("DROP CONSTRAINT vm_key IF EXISTS").await.unwrap();
        let files = Files::new(&[SCHEMA, DATA]);
        let (migrations, options) = (files.read(), files.options());
        let (before, schema) = (data(store).await, schema_of(store).await);
        assert_eq!(states(&migrations, store).await, [(1, Pending), (2, Pending)]);
        assert_eq!(data(store).await, before, "asking for the status wrote");

        let outcome = migrations.up(store, Some(1), &options).await.unwrap();
        assert_eq!(
            outcome.ran.iter().map(|it| (it.version, it.backup.is_some())).collect::<Vec<_>>(),
            [(1, false)]
        );
        assert_eq!(states(&migrations, store).await, [(1, Applied), (2, Pending)]);
        assert_eq!(schema_of(store).await.len(), schema.len() + 1);

        let outcome = migrations.up(store, None, &options).await.unwrap();
        assert_eq!(outcome.ran.len(), 1);
        assert_eq!(outcome.ran[0].backup.iter().cloned().collect::<Vec<_>>(), files.backups());
        assert_eq!(states(&migrations, store).await, [(1, Applied), (2, Applied)]);
        assert_eq!(value(store, "MATCH (n:ProxmoxVM) WHERE n.renamed RETURN count(n)").await, json!(3));
        assert!(migrations.up(store, None, &options).await.unwrap().ran.is_empty());

        let outcome = migrations.down(store, 0, &options).await.unwrap();
        assert_eq!(outcome.ran.iter().map(|it| it.version).collect::<Vec<_>>(), [2, 1]);
        assert_eq!(states(&migrations, store).await, [(1, Pending), (2, Pending)]);
        assert_eq!(data(store).await, before);
        assert_eq!(schema_of(store).await, schema);
        assert_eq!(files.backups().len(), 2);
    })
    .await;
}

/// Its data part succeeds and does harm, and its last step can't succeed.
#[tokio::test]
async fn a_migration_that_damages_data_is_undone() {
    let damage = "DROP CONSTRAINT vm_key IF EXISTS;\n\
        MATCH (n:ProxmoxVM {cluster_id: 'd'}) DETACH DELETE n;\n\
        MATCH (n:ProxmoxVM) SET n.vmid = 1, n.tags = ['gone'], n.load = 1;\n\
        MATCH (:ProxmoxNode)-[r:HOSTS_VM]->(:ProxmoxVM) DELETE r;\n\
        CREATE (:ProxmoxJunk {id: 'junk', name: 'junk'});\n\
        CREATE CONSTRAINT junk_key IF NOT EXISTS FOR (n:ProxmoxJunk) REQUIRE n.id IS UNIQUE;\n";
    let back = "// data: true\nDROP CONSTRAINT junk_key IF EXISTS;\n\
        CREATE CONSTRAINT vm_key IF NOT EXISTS FOR (n:ProxmoxVM) REQUIRE (n.cluster_id, n.vmid) IS UNIQUE;\n\
        MATCH (n:ProxmoxVM) SET n.undone = true;\n";
    // Two guests have vmid 1 by then; and a statement that no store understands.
    for last in [
        "CREATE CONSTRAINT vm_other IF NOT EXISTS FOR (n:ProxmoxVM) REQUIRE n.vmid IS UNIQUE;",
        "MATCH (n:ProxmoxVM) SET n.x = ;",
    ] {
        on_both(|store| async move {
            let store = &*store;
            estate(store).await;
            let files =
                Files::new(&[SCHEMA, ("0002_harm", &format!("// data: true\n{damage}{last}\n"), back)]);
            let (migrations, options) = (files.read(), files.options());
            migrations.up(store, Some(1), &options).await.unwrap();
            let (before, schema) = (dumped(store).await, store.schema_objects().await.unwrap());

            let error = migrations.up(store, None, &options).await.unwrap_err();
            let MigrateError::Failed { version: 2, restored: Some(backup), .. } = &error else {
                panic!("{error:?}")
            };
            assert!(error.to_string().contains(&backup.display().to_string()), "{error}");
            assert_eq!(dumped(store).await, before);
            assert_eq!(store.schema_objects().await.unwrap(), schema);
            assert_eq!(
                states(&migrations, store).await,
                [(1, MigrationState::Applied), (2, MigrationState::Pending)]
            );
            assert_eq!(files.backups(), std::slice::from_ref(backup), "the backup stays");
            // It is the same once more, from its own file.
            write(store, "MATCH (n:ProxmoxVM) DETACH DELETE n").await;
            dump::restore_file(store, KEY_OF, backup).await.unwrap();
            assert_eq!(dumped(store).await, before);
        })
        .await;
    }
}

#[tokio::test]
async fn data_without_a_place_for_its_dump_is_refused() {
    on_both(|store| async move {
        let store = &*store;
        estate(store).await;
        let files = Files::new(&[SCHEMA, DATA]);
        let migrations = files.read();
        let before = data(store).await;
        let options = MigrateOptions { backup_dir: None, key_of: KEY_OF };
        let error = migrations.up(store, None, &options).await.unwrap_err();
        assert!(matches!(error, MigrateError::NoBackupDir { version: 2, .. }), "{error:?}");
        let absent = MigrateOptions { backup_dir: Some(files.backups.path().join("absent")), key_of: KEY_OF };
        let error = migrations.up(store, None, &absent).await.unwrap_err();
        assert!(matches!(error, MigrateError::Backup { version: 2, .. }), "{error:?}");
        assert_eq!(data(store).await, before);
        assert_eq!(states(&migrations, store).await[1].1, MigrationState::Pending);
    })
    .await;
}

#[tokio::test]
async fn an_applied_migration_that_was_edited_is_named() {
    on_both(|store| async move {
        let store = &*store;
        let files = Files::new(&[SCHEMA, DATA]);
        files.read().up(store, None, &files.options()).await.unwrap();
        files.put(SCHEMA.0, SCHEMA.1, &format!("// edited\n{}", SCHEMA.2));
        let edited = files.read();
        assert_eq!(states(&edited, store).await, [(1, MigrationState::Edited), (2, MigrationState::Applied)]);
        for error in [
            edited.up(store, None, &files.options()).await.unwrap_err(),
            edited.down(store, 0, &files.options()).await.unwrap_err(),
        ] {
            assert!(
                matches!(error, MigrateError::Edited { version: 1, .. }) && error.is_mismatch(),
                "{error:?}"
            );
            assert!(error.to_string().contains("0001_keys"), "{error}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_newer_program_s_migration_and_a_gap_are_refused() {
    on_both(|store| async move {
        let store = &*store;
        let files = Files::new(&[SCHEMA, DATA]);
        files.read().up(store, None, &files.options()).await.unwrap();
        files.remove(DATA.0);
        let older = files.read();
        assert_eq!(states(&older, store).await, [(1, MigrationState::Applied), (2, MigrationState::Unknown)]);
        for error in [
            older.up(store, None, &files.options()).await.unwrap_err(),
            older.down(store, 0, &files.options()).await.unwrap_err(),
        ] {
            assert!(
                matches!(&error, MigrateError::Unknown { version: 2, name } if name == "rename"),
                "{error:?}"
            );
        }
        files.put(DATA.0, DATA.1, DATA.2);
        write(store, "MATCH (m:PvegraphMigration {id: '0001'}) DELETE m").await;
        let error = files.read().up(store, None, &files.options()).await.unwrap_err();
        assert!(matches!(error, MigrateError::Gap { applied: 2, missing: 1 }), "{error:?}");
        let error = files.read().up(store, Some(3), &files.options()).await.unwrap_err();
        assert!(matches!(error, MigrateError::NoSuch { version: 3, newest: 2 }), "{error:?}");
    })
    .await;
}

/// A killed program leaves its record `running` and part of its work: what it leaves is made here by hand.
#[tokio::test]
async fn a_migration_that_was_killed_is_undone_by_the_next_run() {
    on_both(|store| async move {
        let store = &*store;
        estate(store).await;
        let files = Files::new(&[SCHEMA, DATA]);
        let migrations = files.read();
        migrations.up(store, Some(1), &files.options()).await.unwrap();
        let before = data(store).await;
        let backup = files.backups.path().join("before.jsonl");
        dump::dump_to_file(store, KEY_OF, &backup, Existing::Keep).await.unwrap();
        let running = |backup: &Path| {
            Statement::new(
                "MERGE (m:PvegraphMigration {id: '0002'}) SET m.version = 2, m.name = 'rename', m.checksum = $checksum,
                 m.state = 'running up', m.backup = $backup",
            )
            .with("checksum", migrations.get(2).unwrap().checksum.clone())
            .with("backup", backup.display().to_string())
        };
        store.write(vec![running(&files.backups.path().join("lost.jsonl"))]).await.unwrap();
        write(store, "MATCH (n:ProxmoxVM) SET n.labels = n.tags, n.tags = null").await;
        assert_eq!(states(&migrations, store).await[1].1, MigrationState::Interrupted);
        // Without its dump nothing is done.
        let error = migrations.up(store, None, &files.options()).await.unwrap_err();
        assert!(matches!(&error, MigrateError::NotRestored { backup, .. } if backup.ends_with("lost.jsonl")), "{error:?}");

        store.write(vec![running(&backup)]).await.unwrap();
        let outcome = migrations.down(store, 1, &files.options()).await.unwrap();
        assert_eq!((outcome.recovered, outcome.ran.len()), (Some(backup), 0));
        assert_eq!(data(store).await, before);
        migrations.up(store, None, &files.options()).await.unwrap();
        assert_eq!(value(store, "MATCH (n:ProxmoxVM) WHERE n.renamed RETURN count(n)").await, json!(3));
    })
    .await;
}
