//! The store in a real Neo4j: values, access modes, time-outs, retries.
#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests may fail as tests do

use std::sync::Arc;
use std::time::{Duration, Instant};

use pvegraph_graph::neo4j::{
    DEFAULT_MAX_CONNECTIONS, Neo4jConfig, Neo4jStore, StoreTimeouts, require_supported,
};
use pvegraph_graph::{SchemaKind, SchemaObject, Statement, Store, StoreError};
use pvegraph_testkit::{Neo4jServer, Settings, fresh};
use serde_json::{Value, json};

/// Enough for a server on this machine, however busy, and short enough to wait for.
const TIMEOUTS: StoreTimeouts =
    StoreTimeouts { connect: Duration::from_secs(20), statement: Duration::from_secs(60) };

/// With credentials that only matter where somebody answers.
fn config(uri: &str) -> Neo4jConfig {
    Neo4jConfig {
        uri: uri.to_owned(),
        user: "neo4j".to_owned(),
        password: "t0p-secret".into(),
        database: None,
        max_connections: DEFAULT_MAX_CONNECTIONS,
        timeouts: TIMEOUTS,
    }
}

fn config_of(db: &Neo4jServer) -> Neo4jConfig {
    Neo4jConfig { user: db.user.clone(), password: db.password.clone().into(), ..config(&db.bolt_uri) }
}

fn store(db: &Neo4jServer) -> Neo4jStore {
    Neo4jStore::connect(config_of(db)).unwrap()
}

async fn one(store: &Neo4jStore, text: &'static str) -> Value {
    store.read(Statement::new(text)).await.unwrap().rows.remove(0).remove(0)
}

/// The store's own answer to one statement, written.
async fn write(store: &Neo4jStore, text: &'static str) -> Value {
    let answers = store.write(vec![Statement::new(text)]).await.unwrap();
    answers[0].rows.first().and_then(|row| row.first()).cloned().unwrap_or_default()
}

#[tokio::test]
async fn parameters_come_back_as_they_were_sent() {
    let db = fresh().await;
    let store = store(&db);
    let sent = json!({
        "null": null, "bool": true, "int": 7, "big": i64::MAX, "float": 7.0, "exact": 0.1_f64 + 0.2, "text": "ä`'\"\n",
        "empty": "", "list": [1, 2.5, "x", null, [true]], "map": { "deep": { "er": [] } },
    });
    let rows = store.read(Statement::new("RETURN $sent AS sent").with("sent", sent.clone())).await.unwrap();
    assert_eq!(rows.rows, [[sent]]);
    // The same through a property, where the server keeps it.
    let kept = store
        .write(vec![
            Statement::new("CREATE (n:StoreTestValue {int: $int, float: $float, list: $list}) RETURN n.int, n.float, n.list")
                .with("int", 1)
                .with("float", 1.0)
                .with("list", json!([1.0, 2.0])),
        ])
        .await
        .unwrap();
    assert_eq!(serde_json::to_string(&kept[0].rows).unwrap(), "[[1,1.0,[1.0,2.0]]]");
    assert_eq!(kept[0].columns, ["n.int", "n.float", "n.list"]);
}

#[tokio::test]
async fn every_type_of_the_server_has_its_json() {
    let db = fresh().await;
    let store = store(&db);
    for (expression, expected) in [
        ("RETURN 0.0/0.0", json!("NaN")),
        ("RETURN 1.0/0.0", json!("Infinity")),
        ("RETURN -1.0/0.0", json!("-Infinity")),
        ("RETURN date('2024-02-29')", json!("2024-02-29")),
        ("RETURN localtime('12:50:35.556')", json!("12:50:35.556")),
        ("RETURN time('12:50:35+02:00')", json!("12:50:35+02:00")),
        ("RETURN localdatetime('2024-02-29T12:50:35')", json!("2024-02-29T12:50:35")),
        ("RETURN datetime('2024-02-29T12:50:35Z')", json!("2024-02-29T12:50:35+00:00")),
        (
            "RETURN datetime('2024-02-29T12:50:35[Europe/Paris]')",
            json!("2024-02-29T12:50:35+01:00[Europe/Paris]"),
        ),
        ("RETURN duration('P1Y2M3DT4H5M6.7S')", json!("P1Y2M3DT4H5M6.7S")),
        ("RETURN toString(duration('P1Y2M3DT4H5M6.7S'))", json!("P1Y2M3DT4H5M6.7S")),
        ("RETURN point({x: 1, y: 2.5})", json!({ "srid": 7203, "x": 1.0, "y": 2.5 })),
        ("RETURN point({x: 1, y: 2, z: 3})", json!({ "srid": 9157, "x": 1.0, "y": 2.0, "z": 3.0 })),
        ("RETURN {a: [1, null], b: {}}", json!({ "a": [1, null], "b": {} })),
    ] {
        assert_eq!(one(&store, expression).await, expected, "{expression}");
    }
    let path = write(
        &store,
        "CREATE p = (:StoreTestPath {n: 1})-[:TO {r: 1}]->(:StoreTestPath {n: 2})<-[:TO {r: 2}]-(:StoreTestPath {n: 3})
         RETURN {path: p, node: nodes(p)[0], relationship: relationships(p)[0]} AS it",
    )
    .await;
    let node = |n| json!({ "labels": ["StoreTestPath"], "properties": { "n": n } });
    let to = |r| json!({ "type": "TO", "properties": { "r": r } });
    assert_eq!(
        path,
        json!({
            "node": node(1), "relationship": to(1),
            "path": { "nodes": [node(1), node(2), node(3)], "relationships": [to(1), to(2)] },
        })
    );
}

#[tokio::test]
async fn columns_are_in_the_statement_s_order() {
    let db = fresh().await;
    let store = store(&db);
    let text =
        "UNWIND [1, 2] AS z RETURN z, z * 2 AS y, {k: z} AS x, count(*), 'RETURN' AS a ORDER BY z DESC";
    let rows = store.read(Statement::new(text)).await.unwrap();
    assert_eq!(rows.columns, ["z", "y", "x", "count(*)", "a"]);
    assert_eq!(rows.rows[0], [json!(2), json!(4), json!({ "k": 2 }), json!(1), json!("RETURN")]);
    assert_eq!(rows.get(1, "y"), Some(&json!(2)));
    let none = store.read(Statement::new("UNWIND [] AS z RETURN z, 1 AS a")).await.unwrap();
    assert_eq!((none.columns, none.rows.len()), (vec!["z".to_owned(), "a".to_owned()], 0));
}

#[tokio::test]
async fn more_rows_than_one_request_answers_come_whole() {
    let db = fresh().await;
    let rows = store(&db).read(Statement::new("UNWIND range(1, 5001) AS x RETURN x")).await.unwrap();
    assert_eq!((rows.rows.len(), rows.rows[5000][0].clone()), (5001, json!(5001)));
}

#[tokio::test]
async fn a_read_that_writes_is_refused_by_the_server() {
    let db = fresh().await;
    let store = store(&db);
    for text in [
        "CREATE (n:StoreTestRefused) RETURN n",
        "CALL { CREATE (n:StoreTestRefused) RETURN n } RETURN count(*) AS c",
        "CALL { CREATE (n:StoreTestRefused) } IN TRANSACTIONS RETURN 1",
        "UNWIND [1] AS x FOREACH (y IN [x] | CREATE (:StoreTestRefused))",
        "MATCH (n) SET n.refused = true",
        "CREATE INDEX store_test_refused IF NOT EXISTS FOR (n:StoreTestRefused) ON (n.x)",
        "CALL db.createLabel('StoreTestRefused')",
    ] {
        let error = store.read(Statement::new(text)).await.unwrap_err();
        assert!(matches!(error, StoreError::ReadOnly { .. }), "{text}: {error:?}");
    }
    assert_eq!(one(&store, "MATCH (n:StoreTestRefused) RETURN count(n)").await, json!(0));
}

#[tokio::test]
async fn an_error_after_the_first_rows_is_an_error() {
    let db = fresh().await;
    let error = store(&db).read(Statement::new("UNWIND [2, 1, 0] AS x RETURN 1 / x")).await.unwrap_err();
    assert!(
        matches!(&error, StoreError::Statement { code, .. } if code == "Neo.ClientError.Statement.ArithmeticError"),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_write_is_whole_or_nothing_and_names_the_first_error() {
    let db = fresh().await;
    let store = store(&db);
    let error = store
        .write(vec![
            Statement::new("CREATE (:StoreTestAtom {x: 1})"),
            Statement::new("RETURN 1 /"),
            Statement::new("CREATE (:StoreTestAtom {x: 3})"),
        ])
        .await
        .unwrap_err();
    assert!(
        matches!(&error, StoreError::Statement { code, .. } if code == "Neo.ClientError.Statement.SyntaxError"),
        "{error:?}"
    );
    assert_eq!(one(&store, "MATCH (n:StoreTestAtom) RETURN count(n)").await, json!(0));
}

#[tokio::test]
async fn a_guard_without_a_row_rolls_back() {
    let db = fresh().await;
    let store = store(&db);
    let create = Statement::new("CREATE (:StoreTestGuard)");
    let guard =
        |holds: bool| Statement::new("UNWIND $rows AS x RETURN x").with("rows", json!(vec![1; holds.into()]));
    let error = store.write(vec![create.clone(), guard(false).guarding()]).await.unwrap_err();
    assert!(matches!(error, StoreError::Guard { .. }), "{error:?}");
    assert_eq!(one(&store, "MATCH (n:StoreTestGuard) RETURN count(n)").await, json!(0));
    let delete = Statement::new("MATCH (n:StoreTestGuard) DELETE n RETURN count(*) AS c");
    let answers = store.write(vec![guard(true).guarding(), create, guard(false), delete]).await.unwrap();
    assert_eq!(answers[3].rows, [[json!(1)]]);
}

#[tokio::test]
async fn an_error_does_not_repeat_a_parameter() {
    let db = fresh().await;
    let store = store(&db);
    store
        .schema(
            "CREATE CONSTRAINT store_test_secret IF NOT EXISTS FOR (n:StoreTestSecret) REQUIRE n.v IS UNIQUE",
        )
        .await
        .unwrap();
    let create = Statement::new("CREATE (:StoreTestSecret {v: $v})").with("v", "s3cret value");
    store.write(vec![create.clone()]).await.unwrap();
    let error = store.write(vec![create]).await.unwrap_err().to_string();
    assert!(error.contains("ConstraintValidationFailed") && error.contains("StoreTestSecret"), "{error}");
    assert!(!error.contains("s3cret"), "{error}");
}

/// Each transaction holds its first lock while it waits for the other's: one of the two is ended by the server each time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_that_deadlock_both_arrive() {
    let db = fresh().await;
    let store = Arc::new(store(&db));
    write(&store, "UNWIND [1, 2] AS i CREATE (:StoreTestLock {i: i, n: 0})").await;
    let touch = |i: i64| Statement::new("MATCH (n:StoreTestLock {i: $i}) SET n.n = n.n + 1").with("i", i);
    // Long enough for both to have their first lock.
    let wait = || Statement::new("UNWIND range(1, 3000000) AS x RETURN sum(x)");
    for _ in 0..3 {
        let run = |first, second| {
            let (store, batch) = (Arc::clone(&store), vec![touch(first), wait(), touch(second)]);
            tokio::spawn(async move { store.write(batch).await.map(drop) })
        };
        let (one, other) = (run(1, 2), run(2, 1));
        one.await.unwrap().unwrap();
        other.await.unwrap().unwrap();
    }
    let sums = one(&store, "MATCH (n:StoreTestLock) RETURN collect(n.n)").await;
    assert_eq!(sums, json!([6, 6]));
}

/// Writes over connections of its own, so that nobody's pool is tidied by it. A lock would hold it until it times out.
async fn not_locked(db: &Neo4jServer, text: &'static str) {
    let mut config = config_of(db);
    config.timeouts.statement = Duration::from_secs(20);
    write(&Neo4jStore::connect(config).unwrap(), text).await;
}

#[tokio::test]
async fn a_transaction_that_times_out_gives_its_locks_back() {
    let db = fresh().await;
    write(&store(&db), "CREATE (:StoreTestSlow {n: 0})").await;
    let mut config = config_of(&db);
    config.timeouts.statement = Duration::from_secs(2);
    let slow = Neo4jStore::connect(config).unwrap();
    let error = slow
        .write(vec![
            Statement::new("MATCH (n:StoreTestSlow) SET n.n = 1"),
            Statement::new("UNWIND range(1, 1000000) AS x UNWIND range(1, 1000000) AS y RETURN sum(x * y)"),
        ])
        .await
        .unwrap_err();
    assert!(matches!(error, StoreError::Timeout { operation: "write", .. }), "{error:?}");
    not_locked(&db, "MATCH (n:StoreTestSlow) SET n.other = true").await;
    assert_eq!(one(&slow, "MATCH (n:StoreTestSlow) RETURN n.n").await, json!(0));
    let error = slow
        .read(Statement::new("UNWIND range(1, 1000000) AS x UNWIND range(1, 1000000) AS y RETURN sum(x * y)"))
        .await;
    assert!(error.unwrap_err().is_unreachable());
}

#[tokio::test]
async fn a_caller_that_stops_waiting_leaves_no_lock() {
    let db = fresh().await;
    let store = store(&db);
    write(&store, "CREATE (:StoreTestCancel {n: 0})").await;
    let long = store.write(vec![
        Statement::new("MATCH (n:StoreTestCancel) SET n.n = 1"),
        Statement::new("UNWIND range(1, 1000000) AS x UNWIND range(1, 1000000) AS y RETURN sum(x * y)"),
    ]);
    assert!(tokio::time::timeout(Duration::from_secs(3), long).await.is_err());
    not_locked(&db, "MATCH (n:StoreTestCancel) SET n.other = true").await;
    assert_eq!(
        write(&store, "MATCH (n:StoreTestCancel) WITH n, n.n AS was DELETE n RETURN was").await,
        json!(0)
    );
}

/// A refused statement ends its transaction on the server although the connection stays open.
#[tokio::test]
async fn a_statement_that_fails_gives_its_locks_back() {
    let db = fresh().await;
    let store = store(&db);
    write(&store, "CREATE (:StoreTestFailed)").await;
    for _ in 0..3 {
        let failed =
            vec![Statement::new("MATCH (n:StoreTestFailed) SET n.n = 1"), Statement::new("RETURN 1 / 0")];
        store.write(failed).await.unwrap_err();
        not_locked(&db, "MATCH (n:StoreTestFailed) SET n.other = true").await;
    }
}

#[tokio::test]
async fn a_wrong_password_is_told_soon_and_not_repeated() {
    let db = fresh().await;
    for uri in [db.bolt_uri.clone(), db.bolt_uri.replace("bolt://", "neo4j://")] {
        let mut config = config_of(&db);
        config.uri = uri.clone();
        config.password = "wr0ng-password".into();
        let begun = Instant::now();
        let error = Neo4jStore::connect(config).unwrap().info().await.unwrap_err();
        assert!(error.is_auth(), "{uri}: {error:?}");
        assert!(begun.elapsed() < TIMEOUTS.connect, "{uri}: {:?}", begun.elapsed());
        assert!(!format!("{error} {error:?}").contains("wr0ng"), "{error:?}");
    }
}

#[tokio::test]
async fn a_closed_port_is_unreachable_at_once() {
    // Bound and dropped: nobody listens there.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for scheme in ["bolt", "neo4j"] {
        let store = Neo4jStore::connect(config(&format!("{scheme}://127.0.0.1:{port}"))).unwrap();
        let error = store.write(vec![Statement::new("RETURN 1")]).await.unwrap_err();
        assert!(matches!(error, StoreError::Unreachable { .. }), "{error:?}");
        assert!(error.to_string().contains(&port.to_string()), "{error}");
    }
}

#[tokio::test]
async fn a_server_that_never_answers_is_given_up() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let held = tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((socket, _)) = listener.accept().await {
            held.push(socket);
        }
    });
    for scheme in ["bolt", "neo4j"] {
        let mut config = config(&format!("{scheme}://127.0.0.1:{port}"));
        config.timeouts.connect = Duration::from_secs(1);
        let store = Neo4jStore::connect(config).unwrap();
        let error =
            tokio::time::timeout(Duration::from_secs(30), store.read(Statement::new("RETURN 1"))).await;
        let error = error.expect("the store waits for ever").unwrap_err();
        assert!(matches!(error, StoreError::Timeout { operation: "connect", .. }), "{error:?}");
    }
    held.abort();
}

#[tokio::test]
async fn another_protocol_on_the_port_is_not_retried() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let http = tokio::spawn(async move {
        use tokio::io::AsyncWriteExt;
        while let Ok((mut socket, _)) = listener.accept().await {
            let _ = socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let error =
        Neo4jStore::connect(config(&format!("bolt://127.0.0.1:{port}"))).unwrap().info().await.unwrap_err();
    http.abort();
    assert!(matches!(error, StoreError::Unusable { .. }), "{error:?}");
}

#[tokio::test]
async fn the_server_says_what_it_is_also_through_routing() {
    let db = fresh().await;
    for uri in [db.bolt_uri.clone(), db.bolt_uri.replace("bolt://", "neo4j://")] {
        let store = Neo4jStore::connect(Neo4jConfig { uri, ..config_of(&db) }).unwrap();
        let info = store.info().await.unwrap();
        assert_eq!((info.product.as_str(), info.edition.as_str()), ("Neo4j Kernel", "community"));
        require_supported(&info, store.target()).unwrap();
        assert_eq!(write(&store, "RETURN 1").await, json!(1));
    }
}

#[tokio::test]
async fn a_database_that_is_not_there_is_named() {
    let db = fresh().await;
    let mut config = config_of(&db);
    config.database = Some("nowhere".to_owned());
    let store = Neo4jStore::connect(config).unwrap();
    for error in [
        store.read(Statement::new("RETURN 1")).await.unwrap_err(),
        store.write(vec![Statement::new("RETURN 1")]).await.unwrap_err(),
    ] {
        assert!(
            matches!(error, StoreError::Unusable { .. }) && error.to_string().contains("nowhere"),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn schema_objects_are_those_made() {
    let db = fresh().await;
    let store = store(&db);
    for statement in [
        "CREATE CONSTRAINT store_test_key IF NOT EXISTS FOR (n:StoreTestSchema) REQUIRE (n.b, n.a) IS UNIQUE",
        "CREATE INDEX store_test_range IF NOT EXISTS FOR (n:StoreTestSchema) ON (n.name)",
        "CREATE TEXT INDEX store_test_text IF NOT EXISTS FOR (n:StoreTestSchema) ON (n.text)",
        "CREATE INDEX store_test_rel IF NOT EXISTS FOR ()-[r:STORE_TEST]-() ON (r.name)",
    ] {
        store.schema(statement).await.unwrap();
        store.schema(statement).await.unwrap();
    }
    let mut objects = store.schema_objects().await.unwrap();
    // Of what another test's server was asked for by programs that were killed some may come late.
    objects.retain(|object| object.label == "StoreTestSchema");
    for name in [
        "CONSTRAINT store_test_key",
        "INDEX store_test_range",
        "INDEX store_test_text",
        "INDEX store_test_rel",
    ] {
        store.schema(&format!("DROP {name} IF EXISTS")).await.unwrap();
    }
    let object = |kind, properties: &[&str]| SchemaObject {
        kind,
        label: "StoreTestSchema".to_owned(),
        properties: properties.iter().map(|it| (*it).to_owned()).collect(),
    };
    assert_eq!(objects, [object(SchemaKind::Unique, &["b", "a"]), object(SchemaKind::Index, &["name"])]);
}

/// The server is killed while a writer is at work, and is away for the seconds of a start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_the_server_is_waited_for() {
    let mut db = Neo4jServer::start_own(Settings::default()).await;
    let store = Arc::new(store(&db));
    write(&store, "CREATE (:StoreTestRestart {n: 0})").await;
    let touch = || vec![Statement::new("MATCH (n:StoreTestRestart) SET n.seen = true RETURN n.n AS n")];
    let during = {
        let store = Arc::clone(&store);
        let long = vec![
            touch().remove(0),
            Statement::new(
                "UNWIND range(1, 3000000) AS x WITH sum(x) AS all MATCH (n:StoreTestRestart) SET n.n = 1",
            ),
        ];
        tokio::spawn(async move { store.write(long).await.map(drop) })
    };
    tokio::time::sleep(Duration::from_millis(300)).await;
    db.kill();
    let after = {
        let store = Arc::clone(&store);
        tokio::spawn(async move { store.write(touch()).await.map(drop) })
    };
    db.start().await;
    after.await.unwrap().unwrap();
    during.await.unwrap().unwrap();
    assert_eq!(one(&store, "MATCH (n:StoreTestRestart) RETURN [n.n, n.seen]").await, json!([1, true]));
}

/// The server makes a constraint in two steps, first its index, and stops between them for a program that was killed.
/// Seen failing with: an index of that name taken for somebody else's at once; what is half made waited for in vain.
#[tokio::test(flavor = "multi_thread")]
async fn a_constraint_that_a_killed_program_left_half_made_is_waited_for() {
    let db = fresh().await;
    let (store, other) = (store(&db), store(&db));
    let create =
        "CREATE CONSTRAINT store_test_half IF NOT EXISTS FOR (n:StoreTestHalf) REQUIRE (n.a, n.b) IS UNIQUE";
    let drop = "DROP CONSTRAINT store_test_half IF EXISTS";
    let begun = Instant::now();
    other.schema(create).await.unwrap();
    let took = begun.elapsed();
    for part in 0..20 {
        store.schema(drop).await.unwrap();
        // Whoever stops waiting closes the connection, as a killed program does.
        let _ = tokio::time::timeout(took * part / 20, other.schema(create)).await;
        store.schema(create).await.unwrap();
    }
    // What was left alone may still wait for its turn, and would make it after it is dropped.
    let left = "SHOW TRANSACTIONS YIELD currentQuery WHERE currentQuery STARTS WITH 'CREATE CONSTRAINT' RETURN count(*)";
    while one(&store, left).await != json!(0) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    store.schema(drop).await.unwrap();
}

/// Seen failing with: any index of that name taken for what was left.
#[tokio::test(flavor = "multi_thread")]
async fn an_index_of_a_constraint_s_name_that_is_somebody_s_own_stays_and_is_told() {
    let db = fresh().await;
    let store = store(&db);
    store.schema("CREATE INDEX store_test_own FOR (n:StoreTestOwn) ON (n.other)").await.unwrap();
    let create =
        "CREATE CONSTRAINT store_test_own IF NOT EXISTS FOR (n:StoreTestOwn) REQUIRE (n.a, n.b) IS UNIQUE";
    let error = store.schema(create).await.unwrap_err().to_string();
    assert!(error.contains("store_test_own"), "{error}");
    store.schema("DROP INDEX store_test_own").await.unwrap();
}
