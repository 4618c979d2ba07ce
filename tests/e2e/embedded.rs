//! The embedded store through its public interface only. Its crate has no test binary of its own, because the engine is most of
//! what a binary takes to link.
//!
//! Tests that need another process start this very binary again with [`child`] and what to do in the
//! environment.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test's helpers fail by panicking")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use pvegraph_embedded_store::{EmbeddedStore, Mode, parse_uri};
use pvegraph_graph::store::{Dialect, Rows, SchemaKind, SchemaObject, Statement, Store, StoreError};
use serde_json::{Value, json};

const CHILD_ROLE: &str = "PVEGRAPH_TEST_CHILD_ROLE";
const CHILD_PATH: &str = "PVEGRAPH_TEST_CHILD_PATH";
/// Nodes that the child makes in each of its transactions.
const NODES_PER_TRANSACTION: u64 = 20;

fn writer(path: &Path) -> EmbeddedStore {
    EmbeddedStore::open(path, Mode::Write).unwrap()
}

async fn one(store: &EmbeddedStore, text: &'static str) -> Rows {
    store.write(vec![Statement::new(text)]).await.unwrap().remove(0)
}

async fn rows(store: &EmbeddedStore, text: &'static str) -> Vec<Vec<Value>> {
    store.read(Statement::new(text)).await.unwrap().rows
}

async fn cell(store: &EmbeddedStore, text: &'static str) -> Value {
    rows(store, text).await.remove(0).remove(0)
}

#[test]
fn the_uri_names_a_path() {
    assert_eq!(parse_uri("embedded:/var/lib/graph.kgl").as_deref(), Some(Path::new("/var/lib/graph.kgl")));
    assert_eq!(parse_uri("embedded:graph.kgl").as_deref(), Some(Path::new("graph.kgl")));
    assert_eq!(parse_uri("embedded:"), None);
    assert_eq!(parse_uri("bolt://localhost:7687"), None);
}

#[tokio::test]
async fn values_come_back_as_they_went_in() {
    let dir = tempfile::tempdir().unwrap();
    let store = writer(&dir.path().join("g.kgl"));
    let values = [
        json!(null),
        json!(true),
        json!(0),
        json!(-7),
        json!(i64::MAX),
        json!(i64::MIN),
        json!(1.0),
        json!(0.1),
        json!(-2.5e300),
        json!(""),
        json!("Grüße ' \" \\ \n $x"),
        json!([]),
        json!([1, 2, 3]),
        json!(["a", "b"]),
        json!([1.0, 2.0]),
    ];
    for value in &values {
        let returned = store.read(Statement::new("RETURN $v AS v").with("v", value.clone())).await.unwrap();
        assert_eq!(returned.get(0, "v"), Some(value));
        let stored =
            Statement::new("MERGE (n:T {id: 1}) SET n.v = $v RETURN n.v AS v").with("v", value.clone());
        assert_eq!(store.write(vec![stored]).await.unwrap()[0].get(0, "v"), Some(value));
        assert_eq!(cell(&store, "MATCH (n:T) RETURN n.v").await, *value, "read by another transaction");
    }
    let nested = json!({"a": [1, {"b": null, "c": [1.5]}], "$date": "not a date"});
    let returned = store.read(Statement::new("RETURN $v AS v").with("v", nested.clone())).await.unwrap();
    assert_eq!(returned.get(0, "v"), Some(&nested));
    assert!(returned.get(0, "v").unwrap()["a"][1]["c"][0].is_f64());
    assert!(cell(&store, "RETURN 1.0").await.is_f64());
    assert!(cell(&store, "RETURN 1").await.is_i64());

    let too_big = store.read(Statement::new("RETURN $size").with("size", u64::MAX)).await.unwrap_err();
    assert!(too_big.to_string().contains("$size"), "{too_big}");
    assert!(!too_big.to_string().contains("18446744073709551615"), "{too_big}");
}

#[tokio::test]
async fn temporal_values_are_iso_text() {
    let dir = tempfile::tempdir().unwrap();
    let store = writer(&dir.path().join("g.kgl"));
    let returned = rows(
        &store,
        "RETURN date('2026-01-02') AS a, datetime('2026-01-02T03:04:05Z') AS b, datetime('2026-01-02T03:04:05+01:00') AS c, \
         localdatetime('2026-01-02T03:04:05') AS d, [date('2026-01-02')] AS e, duration('P1M2DT3.5S') AS f, duration('P1D') AS g, \
         duration('PT0S') AS h, duration('PT-0.5S') AS i, duration('P-2D') AS j",
    )
    .await;
    assert_eq!(
        Value::from(returned[0].clone()),
        json!([
            "2026-01-02",
            "2026-01-02T03:04:05Z",
            "2026-01-02T03:04:05+01:00",
            "2026-01-02T03:04:05",
            ["2026-01-02"],
            "P1M2DT3.5S",
            "P1D",
            "PT0S",
            "PT-0.5S",
            "P-2D"
        ])
    );
}

#[tokio::test]
async fn nodes_relationships_and_paths_are_objects() {
    let dir = tempfile::tempdir().unwrap();
    let store = writer(&dir.path().join("g.kgl"));
    one(&store, "CREATE (:A {id: 'a', name: 'n'})-[:T {w: 1, gone: null}]->(:B {id: 'b', type: 'qemu', title: 'own'})").await;
    one(&store, "CREATE (:C {id: 'c', x: 1, name: null, gone: null})").await;
    let a = json!({"labels": ["A"], "properties": {"id": "a", "name": "n"}});
    let b = json!({"labels": ["B"], "properties": {"id": "b", "type": "qemu", "title": "own"}});
    let t = json!({"type": "T", "properties": {"w": 1}});
    let returned =
        rows(&store, "MATCH p = (a:A)-[r]->(b) RETURN a, r, b, p, collect(b) AS l").await.remove(0);
    assert_eq!(
        returned,
        [a.clone(), t.clone(), b.clone(), json!({"nodes": [a, b.clone()], "relationships": [t]}), json!([b])]
    );
    assert_eq!(
        cell(&store, "MATCH (c:C) RETURN c").await,
        json!({"labels": ["C"], "properties": {"id": "c", "x": 1}})
    );
    assert_eq!(cell(&store, "OPTIONAL MATCH (n:Nothing) RETURN n").await, Value::Null);
}

#[tokio::test]
async fn reading_refuses_statements_that_write() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("g.kgl");
    let store = writer(&path);
    one(&store, "CREATE (:A {id: 1})").await;
    for text in [
        "CREATE (:A {id: 2})",
        "MATCH (n:A) SET n.x = 1",
        "MATCH (n:A) SET n.x = 1 RETURN n",
        "MATCH (n:A) DETACH DELETE n",
        "MATCH (n:A) REMOVE n.id",
        "MERGE (:A {id: 3})",
        "UNWIND [1] AS i FOREACH (x IN [i] | CREATE (:A {id: 9}))",
        "CREATE INDEX i IF NOT EXISTS FOR (n:A) ON (n.x)",
        "CREATE CONSTRAINT c IF NOT EXISTS FOR (n:A) REQUIRE n.x IS UNIQUE",
        "DROP INDEX i IF EXISTS",
    ] {
        let refused = store.read(Statement::new(text)).await.unwrap_err();
        assert!(matches!(&refused, StoreError::ReadOnly { .. }), "{text}: {refused:?}");
        assert!(refused.to_string().contains(text), "{refused}");
    }
    assert_eq!(rows(&store, "MATCH (n) RETURN properties(n)").await, [[json!({"id": 1})]]);
    assert_eq!(store.schema_objects().await.unwrap(), []);

    let reader = EmbeddedStore::open(&path, Mode::Read).unwrap();
    for refused in [
        reader.write(vec![Statement::new("CREATE (:A)")]).await.map(|_| ()),
        reader.schema("CREATE INDEX i FOR (n:A) ON (n.x)").await,
        reader.checkpoint().await,
    ] {
        assert!(matches!(refused, Err(StoreError::ReadOnly { .. })), "{refused:?}");
    }
}

#[tokio::test]
async fn a_write_is_whole_in_order_and_answers_each_statement() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("g.kgl");
    let store = writer(&path);
    let answers = store
        .write(vec![
            Statement::new("CREATE (n:A {id: 1}) RETURN n.id AS made"),
            Statement::new("MATCH (n:A {id: 1}) SET n.x = $x").with("x", 5),
            Statement::new("MATCH (n:A) RETURN n.id AS id, n.x AS x"),
        ])
        .await
        .unwrap();
    assert_eq!(answers[0], Rows { columns: vec!["made".into()], rows: vec![vec![json!(1)]] });
    assert_eq!(answers[1].rows.len(), 0);
    assert_eq!(
        answers[2],
        Rows { columns: vec!["id".into(), "x".into()], rows: vec![vec![json!(1), json!(5)]] }
    );
    assert_eq!(store.write(Vec::new()).await.unwrap(), []);

    store.schema("CREATE CONSTRAINT k IF NOT EXISTS FOR (n:A) REQUIRE (n.c, n.v) IS UNIQUE").await.unwrap();
    one(&store, "CREATE (:A {id: 2, c: 'lab', v: 'secret-value'})").await;
    let failed = store
        .write(vec![
            Statement::new("MATCH (n:A {id: 1}) SET n.x = 6"),
            Statement::new("CREATE (:B {id: 1})"),
            Statement::new("CREATE (:A {id: 3, c: $c, v: $v})").with("c", "lab").with("v", "secret-value"),
        ])
        .await
        .unwrap_err();
    let StoreError::Statement { code, message } = &failed else { panic!("{failed:?}") };
    assert_eq!(code, "Neo.ClientError.Schema.ConstraintValidationFailed");
    assert!(message.contains("'v'") && !message.contains("secret-value"), "{message}");
    let unchanged = [[json!(1), json!(5)], [json!(2), json!(null)]];
    assert_eq!(rows(&store, "MATCH (n) RETURN n.id AS id, n.x ORDER BY id").await, unchanged);
    drop(store);
    assert_eq!(rows(&writer(&path), "MATCH (n) RETURN n.id AS id, n.x ORDER BY id").await, unchanged);
}

#[tokio::test]
async fn statements_that_the_engine_refuses_say_why() {
    let dir = tempfile::tempdir().unwrap();
    let store = writer(&dir.path().join("g.kgl"));
    for (text, code) in [
        ("MATCH (n:A RETURN n", "Neo.ClientError.Statement.SyntaxError"),
        ("RETURN $absent", "Neo.ClientError.Statement.ArgumentError"),
        ("MATCH (n:A) RETURN m.x", "Neo.ClientError.Statement.SyntaxError"),
        ("RETURN 1 / 0", "Neo.ClientError.Statement.ArgumentError"),
    ] {
        let refused = store.read(Statement::new(text)).await.unwrap_err();
        assert!(matches!(&refused, StoreError::Statement { code: said, .. } if said == code), "{refused:?}");
    }
}

#[tokio::test]
async fn a_guard_without_a_row_rolls_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = writer(&dir.path().join("g.kgl"));
    let create = Statement::new("CREATE (:A {id: 1})");
    let guard =
        |holds: bool| Statement::new("UNWIND $rows AS x RETURN x").with("rows", json!(vec![1; holds.into()]));
    let error = store.write(vec![create.clone(), guard(false).guarding()]).await.unwrap_err();
    assert!(error.is_lease_lost(), "{error:?}");
    assert_eq!(cell(&store, "MATCH (n:A) RETURN count(n)").await, json!(0));
    store.write(vec![guard(true).guarding(), create, guard(false)]).await.unwrap();
    assert_eq!(cell(&store, "MATCH (n:A) RETURN count(n)").await, json!(1));
}

#[tokio::test]
async fn a_property_that_no_node_has_had_finds_nothing_and_can_be_made() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("g.kgl");
    let store = writer(&path);
    one(&store, "CREATE (:A {id: 1, x: 1})").await;
    let never = "MATCH (n:A {y: 1})-[:T]->(:A {z: 1, x: 2}) RETURN n";
    assert_eq!(rows(&store, never).await.len(), 0);
    store.checkpoint().await.unwrap();
    let reader = EmbeddedStore::open(&path, Mode::Read).unwrap();
    assert_eq!(
        rows(&reader, "MATCH (n:A {v: 1}) WHERE EXISTS { MATCH (n)-->(:A {u: 1}) } RETURN n").await.len(),
        0
    );
    assert_eq!(one(&store, "MATCH (n:A {q: 1}) RETURN n").await.rows.len(), 0);
    one(&store, "CREATE (:A {id: 2, y: 1.5})-[:T]->(:A {id: 3, w: ['a']})").await;
    one(&store, "MERGE (:A {id: 4, v: true})").await;
    // A property may change its type, too, and stays so in the file.
    one(&store, "MATCH (n:A {id: 1}) SET n.x = 'one'").await;
    one(&store, "MATCH (n:A {id: 4}) SET n.x = 4.0, n.y = 7").await;
    drop(store);
    let question =
        "MATCH (n:A {y: 1.5})-[:T]->(m:A), (k:A {v: true}), (o:A {id: 1}) RETURN n.y, m.w, k.x, k.y, o.x";
    // The first opening reads the log, the second what the first folded into the file.
    for _ in 0..2 {
        let store = writer(&path);
        assert_eq!(
            rows(&store, question).await,
            [[json!(1.5), json!(["a"]), json!(4.0), json!(7), json!("one")]]
        );
    }
}

#[tokio::test]
async fn a_statement_ends_at_its_deadline() {
    let dir = tempfile::tempdir().unwrap();
    let store = writer(&dir.path().join("g.kgl")).with_timeout(Duration::from_millis(50));
    let endless =
        "UNWIND range(1, 3000) AS a UNWIND range(1, 3000) AS b WITH a, b WHERE a * b % 7 = 3 RETURN count(*)";
    let late = store.read(Statement::new(endless)).await.unwrap_err();
    assert!(
        matches!(late, StoreError::Timeout { operation: "read", .. }) && late.is_unreachable(),
        "{late:?}"
    );
    let endless = "UNWIND range(1, 3000) AS a UNWIND range(1, 3000) AS b CREATE (:N {id: a * 10000 + b})";
    let late = store.write(vec![Statement::new(endless)]).await.unwrap_err();
    assert!(matches!(late, StoreError::Timeout { operation: "write", .. }), "{late:?}");
    let store = store.with_timeout(Duration::from_secs(60));
    assert_eq!(cell(&store, "MATCH (n) RETURN count(n)").await, json!(0));
}

#[tokio::test]
async fn schema_statements_are_repeatable_and_listed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("g.kgl");
    let store = writer(&path);
    let unique = |label: &str, properties: &[&str]| SchemaObject {
        kind: SchemaKind::Unique,
        label: label.into(),
        properties: properties.iter().map(|property| (*property).to_owned()).collect(),
    };
    let index =
        |label: &str, property: &str| SchemaObject { kind: SchemaKind::Index, ..unique(label, &[property]) };
    for _ in 0..2 {
        for text in [
            "CREATE CONSTRAINT vm_key IF NOT EXISTS FOR (n:ProxmoxVM) REQUIRE (n.cluster_id, n.vmid) IS UNIQUE",
            "CREATE CONSTRAINT cluster_key IF NOT EXISTS FOR (n:ProxmoxCluster) REQUIRE n.cluster_id IS UNIQUE",
            "CREATE INDEX vm_name IF NOT EXISTS FOR (n:ProxmoxVM) ON (n.name)",
            "CREATE RANGE INDEX vm_cluster IF NOT EXISTS FOR (n:ProxmoxVM) ON (n.cluster_id)",
            "CREATE INDEX disk_storage IF NOT EXISTS FOR (n:ProxmoxDisk) ON (n.storage)",
            "CREATE INDEX hosts IF NOT EXISTS FOR ()-[r:HOSTS_VM]-() ON (r.lastupdated)",
            "DROP INDEX disk_storage IF EXISTS",
            "DROP CONSTRAINT no_such IF EXISTS",
        ] {
            store.schema(text).await.unwrap();
        }
    }
    let mut expected = vec![
        unique("ProxmoxCluster", &["cluster_id"]),
        unique("ProxmoxVM", &["cluster_id", "vmid"]),
        index("ProxmoxVM", "cluster_id"),
        index("ProxmoxVM", "name"),
    ];
    expected.sort();
    assert_eq!(store.schema_objects().await.unwrap(), expected);
    // It is durable without a checkpoint, and after one.
    drop(store);
    let store = writer(&path);
    assert_eq!(store.schema_objects().await.unwrap(), expected);
    store.checkpoint().await.unwrap();
    drop(store);
    let store = writer(&path);
    assert_eq!(store.schema_objects().await.unwrap(), expected);
    one(&store, "CREATE (:ProxmoxVM {id: 'a', cluster_id: 'lab', vmid: 1})").await;
    let twice = Statement::new("CREATE (:ProxmoxVM {id: 'b', cluster_id: 'lab', vmid: 1})");
    assert!(store.write(vec![twice]).await.is_err(), "the constraint is enforced");
    store.schema("DROP CONSTRAINT vm_key").await.unwrap();
    store.schema("DROP INDEX vm_name IF EXISTS").await.unwrap();
    let left = [unique("ProxmoxCluster", &["cluster_id"]), index("ProxmoxVM", "cluster_id")];
    assert_eq!(store.schema_objects().await.unwrap(), left);
    assert!(store.schema("DROP INDEX vm_name").await.is_err());
}

#[tokio::test]
async fn a_reopened_graph_has_everything() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("g.kgl");
    let store = writer(&path);
    assert!(path.is_file(), "opening for writing creates the file");
    assert_eq!(store.dialect(), Dialect::Embedded);
    assert_eq!(store.target(), format!("embedded:{}", path.display()));
    let info = store.info().await.unwrap();
    assert_eq!(info.product, "kglite");
    let locked =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../Cargo.lock")).unwrap();
    assert!(
        locked.contains(&format!("name = \"kglite\"\nversion = \"{}\"", info.version)),
        "{}",
        info.version
    );
    one(&store, "UNWIND range(1, 100) AS i CREATE (:A {id: i, tags: ['x', 'y'], f: 0.5, b: true})").await;
    one(&store, "MATCH (a:A {id: 1}), (b:A {id: 2}) CREATE (a)-[:T {w: 1}]->(b)").await;
    store.checkpoint().await.unwrap();
    one(&store, "MATCH (n:A {id: 3}) DETACH DELETE n").await;
    drop(store);
    for mode in [Mode::Read, Mode::Write, Mode::Read] {
        let store = EmbeddedStore::open(&path, mode).unwrap();
        assert_eq!(cell(&store, "MATCH (n:A) RETURN count(n)").await, json!(99), "{mode:?}");
        assert_eq!(
            rows(&store, "MATCH (n:A {id: 1})-[r:T]->(m) RETURN properties(n), r.w, m.id").await,
            [[json!({"id": 1, "tags": ["x", "y"], "f": 0.5, "b": true}), json!(1), json!(2)]],
            "{mode:?}"
        );
    }
}

#[tokio::test]
async fn a_reader_beside_a_writer_sees_the_last_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("g.kgl");
    let store = writer(&path);
    one(&store, "CREATE (:A {id: 1})").await;
    store.checkpoint().await.unwrap();
    one(&store, "CREATE (:A {id: 2})").await;
    let count = "MATCH (n:A) RETURN count(n)";
    let before = EmbeddedStore::open(&path, Mode::Read).unwrap();
    assert_eq!(cell(&before, count).await, json!(1));
    store.checkpoint().await.unwrap();
    assert_eq!(cell(&before, count).await, json!(1), "a reader is a snapshot");
    assert_eq!(cell(&EmbeddedStore::open(&path, Mode::Read).unwrap(), count).await, json!(2));
    one(&store, "CREATE (:A {id: 3})").await;
    drop(store);
    let names = || {
        let mut names: Vec<_> =
            std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let files = (names(), std::fs::read(&path).unwrap());
    assert_eq!(
        cell(&EmbeddedStore::open(&path, Mode::Read).unwrap(), count).await,
        json!(3),
        "nobody writes: all of it"
    );
    assert_eq!((names(), std::fs::read(&path).unwrap()), files, "a reader writes nothing");
}

#[tokio::test]
async fn only_one_handle_writes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("g.kgl");
    let first = writer(&path);
    let busy = EmbeddedStore::open(&path, Mode::Write).unwrap_err();
    assert!(busy.is_busy() && busy.to_string().contains("this very process"), "{busy}");
    let output = other_process("open", &path).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("busy: the graph store embedded:"), "{said}");
    assert!(said.contains(&format!("process {} is writing it", std::process::id())), "{said}");
    drop(first);

    let (mut child, mut lines) = Running::start("hold", &path);
    wait_for(&mut lines, "held");
    let busy = EmbeddedStore::open(&path, Mode::Write).unwrap_err();
    assert!(busy.is_busy() && busy.to_string().contains(&format!("process {}", child.0.id())), "{busy}");
    assert_eq!(
        cell(&EmbeddedStore::open(&path, Mode::Read).unwrap(), "MATCH (n) RETURN count(n)").await,
        json!(0)
    );
    child.kill();
    // What the killed process had committed is there for a reader, and the lease went with the process.
    assert_eq!(
        cell(&EmbeddedStore::open(&path, Mode::Read).unwrap(), "MATCH (n) RETURN count(n)").await,
        json!(1)
    );
    let second = writer(&path);
    // The writer folded the log in: a reader beside it does not go back in time.
    assert_eq!(
        cell(&EmbeddedStore::open(&path, Mode::Read).unwrap(), "MATCH (n) RETURN count(n)").await,
        json!(1)
    );
    drop(second);
}

#[tokio::test]
async fn a_killed_writer_leaves_whole_transactions_and_all_that_it_promised() {
    let dir = tempfile::tempdir().unwrap();
    let mut promised_before = 0;
    for (round, kill_after) in [1_u64, 2, 7, 13, 29].into_iter().enumerate() {
        let path = dir.path().join("g.kgl");
        let (mut child, mut lines) = Running::start("write", &path);
        let mut promised = 0;
        for _ in 0..kill_after {
            promised = promise(&mut lines).expect("the child writes until it is killed");
        }
        child.kill();
        // What it had said before it died counts too.
        while let Some(last) = promise(&mut lines) {
            promised = last;
        }
        assert!(promised > promised_before, "round {round}: {promised} after {promised_before}");
        for mode in [Mode::Read, Mode::Write] {
            let store = EmbeddedStore::open(&path, mode).unwrap();
            let counter = cell(&store, "MATCH (c:Counter {id: 'c'}) RETURN c.value").await.as_u64().unwrap();
            assert!(
                counter == promised || counter == promised + 1,
                "{counter} is there, {promised} was promised ({mode:?})"
            );
            let batches = rows(
                &store,
                "MATCH (n:Batch) RETURN n.batch AS b, count(n), collect(DISTINCT n.node)[0] ORDER BY b",
            )
            .await;
            let whole: Vec<_> = (1..=counter)
                .map(|batch| vec![json!(batch), json!(NODES_PER_TRANSACTION), json!("pve1")])
                .collect();
            assert_eq!(batches, whole, "round {round} {mode:?}");
            let edges = cell(&store, "MATCH (:Batch)-[r:OF]->(:Counter) RETURN count(r)").await;
            assert_eq!(edges, json!(counter * NODES_PER_TRANSACTION));
            assert_eq!(store.schema_objects().await.unwrap().len(), 2, "the schema is as durable");
        }
        promised_before = promised;
    }
}

#[tokio::test]
async fn unusable_files_are_refused_with_a_mend() {
    let dir = tempfile::tempdir().unwrap();
    let unusable = |path: &Path, mode| match EmbeddedStore::open(path, mode) {
        Err(StoreError::Unusable { target, reason }) => {
            assert_eq!(target, format!("embedded:{}", path.display()));
            reason
        }
        other => panic!("{other:?}"),
    };
    let absent = dir.path().join("absent.kgl");
    assert!(unusable(&absent, Mode::Read).contains("no such file"));
    assert!(!absent.exists());
    assert!(
        unusable(&dir.path().join("no/such/g.kgl"), Mode::Write).contains("does not exist: create it first")
    );
    assert!(unusable(dir.path(), Mode::Write).contains("is a directory"));

    let good = dir.path().join("good.kgl");
    let store = writer(&good);
    one(&store, "UNWIND range(1, 500) AS i CREATE (:A {id: i, x: 'some text ' + i})").await;
    store.checkpoint().await.unwrap();
    drop(store);
    let bytes = std::fs::read(&good).unwrap();
    let mut flipped = bytes.clone();
    let middle = flipped.len() / 2;
    flipped[middle..middle + 16].iter_mut().for_each(|byte| *byte ^= 0xff);
    for (name, content) in [
        ("empty", Vec::new()),
        ("foreign", b"[store]\nuri = \"bolt://localhost\"\n".to_vec()),
        ("truncated", bytes[..bytes.len() / 2].to_vec()),
        ("flipped", flipped),
    ] {
        let path = dir.path().join(format!("{name}.kgl"));
        std::fs::write(&path, &content).unwrap();
        for mode in [Mode::Read, Mode::Write] {
            let reason = unusable(&path, mode);
            assert!(reason.contains("Restore it from a backup"), "{name}: {reason}");
        }
        assert_eq!(std::fs::read(&path).unwrap(), content, "{name} stays as it was");
    }
}

#[tokio::test]
async fn nothing_is_printed() {
    let dir = tempfile::tempdir().unwrap();
    let output = other_process("noisy", &dir.path().join("g.kgl")).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    let said = String::from_utf8_lossy(&output.stdout);
    let engine: Vec<_> = said
        .lines()
        .filter(|line| line.to_lowercase().contains("warning") || line.contains("kglite"))
        .collect();
    assert!(said.contains("done") && engine.is_empty(), "{said}");
}

#[tokio::test]
async fn batches_of_the_sync_work() {
    let dir = tempfile::tempdir().unwrap();
    let store = writer(&dir.path().join("g.kgl"));
    for text in [
        "CREATE CONSTRAINT vm IF NOT EXISTS FOR (n:ProxmoxVM) REQUIRE (n.cluster_id, n.vmid) IS UNIQUE",
        "CREATE CONSTRAINT node IF NOT EXISTS FOR (n:ProxmoxNode) REQUIRE (n.cluster_id, n.name) IS UNIQUE",
        "CREATE INDEX vm_last IF NOT EXISTS FOR (n:ProxmoxVM) ON (n.lastupdated)",
    ] {
        store.schema(text).await.unwrap();
    }
    let upsert = "UNWIND $rows AS row MERGE (n:ProxmoxVM {id: row.key, cluster_id: row.props.cluster_id, vmid: row.props.vmid}) \
                  ON CREATE SET n.firstseen = $tag SET n += row.props, n.lastupdated = $tag";
    let hosts = "UNWIND $rows AS row MATCH (a:ProxmoxNode {id: row.a}) MATCH (b:ProxmoxVM {id: row.b}) \
                 MERGE (a)-[r:HOSTS_VM]->(b) ON CREATE SET r.firstseen = $tag SET r.lastupdated = $tag";
    let guest = |vmid: u64, status: &str| {
        json!({"key": format!("lab|{vmid}"), "props": {"cluster_id": "lab", "vmid": vmid, "name": format!("vm{vmid}"),
            "status": status, "tags": ["a", "b"], "cpu_sockets": null, "type": "qemu"}})
    };
    one(&store, "MERGE (n:ProxmoxNode {id: 'lab|pve1', cluster_id: 'lab', name: 'pve1'})").await;
    let guests: Vec<_> = (0..1000).map(|vmid| guest(vmid, "running")).collect();
    let edges: Vec<_> = (0..1000).map(|vmid| json!({"a": "lab|pve1", "b": format!("lab|{vmid}")})).collect();
    let batch = |guests: &[Value], edges: &[Value], tag: u64| {
        vec![
            Statement::new(upsert).with("rows", guests.to_vec()).with("tag", tag),
            Statement::new(hosts).with("rows", edges.to_vec()).with("tag", tag),
        ]
    };
    store.write(batch(&guests, &edges, 1000)).await.unwrap();
    let again: Vec<_> = (0..900).map(|vmid| guest(vmid, "stopped")).collect();
    store.write(batch(&again, &edges[..900], 2000)).await.unwrap();
    let summary = "MATCH (:ProxmoxNode)-[r:HOSTS_VM]->(n:ProxmoxVM) \
                   RETURN n.status AS s, count(n), min(n.firstseen), max(n.firstseen), min(n.lastupdated), min(r.firstseen), max(r.lastupdated) ORDER BY s";
    let expected = [
        [json!("running"), json!(100), json!(1000), json!(1000), json!(1000), json!(1000), json!(1000)],
        [json!("stopped"), json!(900), json!(1000), json!(1000), json!(2000), json!(1000), json!(2000)],
    ];
    assert_eq!(rows(&store, summary).await, expected);
    let sweep = Statement::new(
        "MATCH (n:ProxmoxVM) WHERE n.cluster_id = $c AND n.lastupdated < $tag WITH n LIMIT 60 DETACH DELETE n RETURN count(*) AS c",
    )
    .with("c", "lab")
    .with("tag", 2000);
    let mut swept = Vec::new();
    for _ in 0..3 {
        swept.push(store.write(vec![sweep.clone()]).await.unwrap()[0].get(0, "c").cloned());
    }
    assert_eq!(swept, [Some(json!(60)), Some(json!(40)), Some(json!(0))]);
    assert_eq!(rows(&store, summary).await, expected[1..]);
    let known = Statement::new("UNWIND $keys AS key OPTIONAL MATCH (n:ProxmoxVM {id: key}) RETURN key, n.status, n.tags, n.cpu_sockets")
        .with("keys", json!(["lab|1", "lab|999"]));
    assert_eq!(
        store.read(known).await.unwrap().rows,
        [
            [json!("lab|1"), json!("stopped"), json!(["a", "b"]), json!(null)],
            [json!("lab|999"), json!(null), json!(null), json!(null)]
        ]
    );
}

#[tokio::test]
async fn the_contract_queries_answer() {
    let dir = tempfile::tempdir().unwrap();
    let store = writer(&dir.path().join("g.kgl"));
    for text in WORLD {
        one(&store, text).await;
    }
    for (name, text, expected) in contract() {
        let answered = store.read(Statement::new(text)).await.unwrap();
        assert_eq!(Value::from_iter(answered.rows.into_iter().map(Value::from)), expected, "{name}");
    }
}

/// Two nodes; four guests: one running with an unprotected disk, one running and protected, one stopped, and
/// a template.
const WORLD: &[&str] = &[
    "CREATE (:ProxmoxCluster {id: 'lab', contract_id: 'lab', cluster_id: 'lab', name: 'lab'})",
    "UNWIND [['pve1', 0.9, 50], ['pve2', 0.1, 95], ['pve3', 0.5, 50]] AS r MATCH (c:ProxmoxCluster) \
     CREATE (c)-[:CONTAINS_NODE]->(:ProxmoxNode {id: 'lab|' + r[0], cluster_id: 'lab', name: r[0], cpu_usage: r[1], memory_used: r[2], \
     memory_total: 100, status: 'online'})",
    "UNWIND [[100, 'web', 'running', false, 2048, 2, ['production', 'web']], [101, 'db', 'running', false, 4096, 4, ['production']], \
     [102, 'old', 'stopped', false, 1024, 1, []], [900, 'tmpl', 'stopped', true, 512, 1, ['production']]] AS r MATCH (n:ProxmoxNode {name: 'pve1'}) \
     CREATE (n)-[:HOSTS_VM]->(:ProxmoxVM {id: 'lab|' + r[0], cluster_id: 'lab', vmid: r[0], node: 'pve1', name: r[1], status: r[2], \
     template: r[3], memory: r[4], cpu_cores: r[5], tags: r[6], type: 'qemu'})",
    "UNWIND [['local', 'dir', 100, 80, false], ['ceph', 'rbd', 1000, 300, true], ['empty', 'nfs', 0, 0, true]] AS r CREATE (:ProxmoxStorage \
     {id: 'lab|' + r[0], cluster_id: 'lab', name: r[0], type: r[1], total: r[2], used: r[3], shared: r[4]})",
    "UNWIND [[100, 'scsi1', 'ceph', false], [100, 'scsi0', 'local', false], [101, 'scsi0', 'ceph', true], [102, 'scsi0', 'local', false]] AS r \
     MATCH (v:ProxmoxVM {vmid: r[0]}) MATCH (s:ProxmoxStorage {name: r[2]}) \
     CREATE (d:ProxmoxDisk {id: 'lab|' + r[0] + '|' + r[1], cluster_id: 'lab', vmid: r[0], disk_id: r[1], name: null, size: 32, backup: r[3]}) \
     CREATE (v)-[:HAS_DISK]->(d) CREATE (d)-[:STORED_ON]->(s)",
    "UNWIND [[100, 'vmbr0'], [101, 'vmbr1'], [102, 'vmbr0']] AS r MATCH (v:ProxmoxVM {vmid: r[0]}) CREATE (v)-[:HAS_NETWORK_INTERFACE]->\
     (:ProxmoxNetworkInterface {id: 'lab|' + r[0] + '|net0', cluster_id: 'lab', vmid: r[0], net_id: 'net0', bridge: r[1], mac_address: 'BC:24:11:00:00:01'})",
];

/// The schema document's queries, word for word, and their rows of [`WORLD`].
fn contract() -> Vec<(&'static str, &'static str, Value)> {
    vec![
        (
            "running",
            "MATCH (v:ProxmoxVM)
WHERE v.status = 'running' AND v.template = false
RETURN v.name, v.node, v.memory, v.cpu_cores
ORDER BY v.memory DESC",
            json!([["db", "pve1", 4096, 4], ["web", "pve1", 2048, 2]]),
        ),
        (
            "internet-facing",
            "MATCH (v:ProxmoxVM)-[:HAS_NETWORK_INTERFACE]->(i:ProxmoxNetworkInterface)
WHERE i.bridge = 'vmbr0' AND v.status = 'running'
RETURN v.name, v.node, i.mac_address, i.bridge",
            json!([["web", "pve1", "BC:24:11:00:00:01", "vmbr0"]]),
        ),
        (
            "high usage",
            "MATCH (n:ProxmoxNode)
WHERE n.cpu_usage > 0.8 OR (n.memory_used * 1.0 / n.memory_total) > 0.9
RETURN n.name, n.cpu_usage,
       (n.memory_used * 100.0 / n.memory_total) as memory_percent,
       n.status
ORDER BY n.cpu_usage DESC",
            json!([["pve1", 0.9, 50.0, "online"], ["pve2", 0.1, 95.0, "online"]]),
        ),
        (
            "tag",
            "MATCH (v:ProxmoxVM)
WHERE 'production' IN v.tags
RETURN v.name, v.node, v.status, v.tags",
            json!([
                ["web", "pve1", "running", ["production", "web"]],
                ["db", "pve1", "running", ["production"]],
                ["tmpl", "pve1", "stopped", ["production"]]
            ]),
        ),
        (
            "storages",
            "MATCH (s:ProxmoxStorage)
WHERE s.total > 0
RETURN s.name, s.type,
       (s.used * 100.0 / s.total) as usage_percent,
       s.shared
ORDER BY usage_percent DESC",
            json!([["local", "dir", 80.0, false], ["ceph", "rbd", 30.0, true]]),
        ),
        (
            "disks",
            "MATCH (v:ProxmoxVM)-[:HAS_DISK]->(d:ProxmoxDisk)-[:STORED_ON]->(s:ProxmoxStorage)
RETURN v.name, d.disk_id, d.size, s.name as storage, s.type
ORDER BY v.name, d.disk_id",
            json!([
                ["db", "scsi0", 32, "ceph", "rbd"],
                ["old", "scsi0", 32, "local", "dir"],
                ["web", "scsi0", 32, "local", "dir"],
                ["web", "scsi1", 32, "ceph", "rbd"]
            ]),
        ),
        (
            "without backup",
            "MATCH (v:ProxmoxVM)
WHERE v.template = false
  AND NOT EXISTS {
    MATCH (v)-[:HAS_DISK]->(d:ProxmoxDisk)
    WHERE d.backup = true
  }
RETURN v.name, v.node, v.cluster_id",
            json!([["web", "pve1", "lab"], ["old", "pve1", "lab"]]),
        ),
        (
            "topology",
            "MATCH (c:ProxmoxCluster)-[:CONTAINS_NODE]->(n:ProxmoxNode)
OPTIONAL MATCH (n)-[:HOSTS_VM]->(v:ProxmoxVM)
WHERE v.template = false
RETURN c.name as cluster,
       n.name as node,
       count(v) as vm_count,
       n.status
ORDER BY c.name, n.name",
            json!([["lab", "pve1", 3, "online"], ["lab", "pve2", 0, "online"], ["lab", "pve3", 0, "online"]]),
        ),
    ]
}

/// Not a test by itself: what the other process does, when one of the tests above starts it.
#[tokio::test]
async fn child() {
    let Ok(role) = std::env::var(CHILD_ROLE) else { return };
    let path = std::path::PathBuf::from(std::env::var_os(CHILD_PATH).unwrap());
    match role.as_str() {
        "open" => match EmbeddedStore::open(&path, Mode::Write) {
            Ok(_) => println!("opened"),
            Err(error) if error.is_busy() => println!("busy: {error}"),
            Err(error) => println!("{error:?}"),
        },
        "hold" => {
            let store = writer(&path);
            one(&store, "CREATE (:A {id: 1})").await;
            println!("held");
            std::thread::sleep(Duration::from_secs(600));
        }
        "write" => write_until_killed(&path).await,
        "noisy" => {
            let store = writer(&path);
            one(&store, "CREATE (:A {id: 1, x: 1})").await;
            for text in [
                "MATCH (n:Unknown) RETURN n",
                "MATCH (n:Unknown)-[:UNKNOWN]->(m) RETURN m.unknown",
                "MATCH (n:A) WHERE n.unknown = 1 RETURN n",
                "MATCH (n:a) RETURN n",
                "OPTIONAL MATCH (n:Unknown {id: 1}) RETURN n.x",
            ] {
                store.read(Statement::new(text)).await.unwrap();
                one(&store, text).await;
            }
            one(&store, "MATCH (n:Unknown) SET n.x = 1").await;
            let _ = store.read(Statement::new("MATCH (n")).await;
            let _ = store.write(vec![Statement::new("CREATE (:A {id: 1})")]).await;
            store.checkpoint().await.unwrap();
            drop(store);
            rows(&EmbeddedStore::open(&path, Mode::Read).unwrap(), "MATCH (n:Unknown) RETURN n").await;
            println!("done");
        }
        other => panic!("no role {other}"),
    }
}

async fn write_until_killed(path: &Path) {
    let store = writer(path);
    store
        .schema("CREATE CONSTRAINT batch IF NOT EXISTS FOR (n:Batch) REQUIRE (n.batch, n.at) IS UNIQUE")
        .await
        .unwrap();
    store.schema("CREATE INDEX batch_node IF NOT EXISTS FOR (n:Batch) ON (n.node)").await.unwrap();
    let known =
        rows(&store, "OPTIONAL MATCH (c:Counter {id: 'c'}) RETURN c.value").await[0][0].as_u64().unwrap_or(0);
    for batch in known + 1.. {
        let with = |text: &'static str| {
            Statement::new(text).with("batch", batch).with("nodes", NODES_PER_TRANSACTION)
        };
        store
            .write(vec![
                with("MERGE (c:Counter {id: 'c'}) SET c.value = $batch"),
                with("UNWIND range(1, $nodes) AS at CREATE (:Batch {id: $batch * 1000 + at, batch: $batch, at: at, node: 'pve1'})"),
                with("MATCH (c:Counter {id: 'c'}) MATCH (n:Batch {batch: $batch}) CREATE (n)-[:OF]->(c)"),
            ])
            .await
            .unwrap();
        println!("promised {batch}");
        if batch % 5 == 0 {
            store.checkpoint().await.unwrap();
        }
    }
}

fn other_process(role: &str, path: &Path) -> Command {
    let name =
        module_path!().split_once("::").map_or("child".to_owned(), |(_, module)| format!("{module}::child"));
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", &name, "--nocapture"])
        .env(CHILD_ROLE, role)
        .env(CHILD_PATH, path)
        .stdin(Stdio::null());
    command
}

/// A process that works until it is killed, at the latest with this value.
struct Running(Child);

impl Running {
    fn start(role: &str, path: &Path) -> (Self, impl Iterator<Item = String> + use<>) {
        let mut child = other_process(role, path).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        (Self(child), lines)
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn wait_for(lines: &mut impl Iterator<Item = String>, text: &str) {
    assert!(lines.any(|line| line.contains(text)), "the child ended without saying {text}");
}

fn promise(lines: &mut impl Iterator<Item = String>) -> Option<u64> {
    lines.find_map(|line| line.split_once("promised ").and_then(|(_, batch)| batch.parse().ok()))
}
