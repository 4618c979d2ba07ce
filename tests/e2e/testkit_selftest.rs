//! The test kit itself: what it promises about servers is what every other test here relies on.

use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use pvegraph_testkit::{How, Neo4jServer, Settings, exclusive, fresh, neo4j};
use serde_json::{Value, json};

const WHO: &str = "testkit_selftest::a_process_that_waits_to_be_killed";

#[tokio::test]
async fn the_shared_server_answers_with_values() {
    let db = exclusive().await;
    let given = json!({ "i": 9_007_199_254_740_993_i64, "f": 0.5, "s": "ü'\"`", "b": true, "n": null, "l": [1, [2]] });
    let rows = db.cypher("RETURN $i AS i, $f AS f, $s AS s, $b AS b, $n AS n, $l AS l", given.clone()).await;
    assert_eq!(rows, [given]);
    let rows = db.cypher("CALL dbms.components() YIELD versions, edition RETURN *", Value::Null).await;
    assert_eq!(rows[0]["edition"], "community");
    assert!(rows[0]["versions"][0].as_str().unwrap().starts_with("5."), "{rows:?}");
    assert!(std::ptr::eq(neo4j(), neo4j()), "one server per process");
}

#[tokio::test]
async fn a_wrong_password_is_refused_every_time() {
    let wrong = Neo4jServer { password: "not-the-password".to_owned(), ..neo4j().clone() };
    // a server of our own never locks a user out; a provided one may, after three refusals
    let times = if wrong.how == How::Provided { 2 } else { 5 };
    for _ in 0..times {
        let error = wrong.try_cypher("RETURN 1", Value::Null).await.unwrap_err();
        assert!(error.is_login_refused(), "{error}");
        assert!(!error.to_string().contains("not-the-password"), "{error}");
    }
    neo4j().cypher("RETURN 1", Value::Null).await;
}

#[tokio::test]
async fn a_refused_statement_is_an_error_with_its_code() {
    let error = neo4j().try_cypher("RETURN 1/0 AS x", Value::Null).await.unwrap_err();
    assert_eq!(error.code.as_deref(), Some("Neo.ClientError.Statement.ArithmeticError"), "{error}");
    let error = neo4j().try_cypher("RETURN $x AS x", json!([1])).await.unwrap_err();
    assert!(error.message.contains("object"), "{error}");
}

#[tokio::test]
async fn a_wipe_leaves_a_fresh_database() {
    let db = fresh().await;
    let schema = "SHOW INDEXES YIELD name, type RETURN name, type ORDER BY name";
    let fresh_schema = db.cypher(schema, Value::Null).await;
    for statement in [
        "CREATE CONSTRAINT `odd ``name` FOR (n:A) REQUIRE (n.x, n.y) IS UNIQUE",
        "CREATE INDEX FOR (n:B) ON (n.x)",
        "UNWIND range(1, 25000) AS i CREATE (:A {x: i, y: i})-[:R]->(:B {x: i})",
    ] {
        db.cypher(statement, Value::Null).await;
    }
    db.wipe().await;
    assert_eq!(db.cypher("MATCH (n) RETURN count(n) AS n", Value::Null).await, [json!({ "n": 0 })]);
    assert_eq!(db.cypher("SHOW CONSTRAINTS", Value::Null).await, Vec::<Value>::new());
    assert_eq!(db.cypher(schema, Value::Null).await, fresh_schema);
}

#[tokio::test]
async fn an_own_server_keeps_its_data_and_port_over_kill_and_restart() {
    let mut own = Neo4jServer::start_own(Settings::default().heap("256m")).await;
    let heap = "CALL dbms.listConfig('server.memory.heap.max_size') YIELD value RETURN value";
    assert_eq!(own.cypher(heap, Value::Null).await[0]["value"], "256.00MiB");

    own.cypher("CREATE (:Kept {n: 1})", Value::Null).await;
    own.kill();
    let error = own.try_cypher("RETURN 1", Value::Null).await.unwrap_err();
    assert!(!error.is_login_refused(), "{error}");
    own.start().await;
    own.cypher("CREATE (:Kept {n: 2})", Value::Null).await;
    own.restart().await;
    let rows = own.cypher("MATCH (k:Kept) RETURN k.n AS n ORDER BY n", Value::Null).await;
    assert_eq!(rows, [json!({ "n": 1 }), json!({ "n": 2 })]);

    let address = own.bolt_uri.trim_start_matches("bolt://").to_owned();
    TcpStream::connect(&address).unwrap();
    drop(own);
    assert!(TcpStream::connect(&address).is_err(), "a dropped server has ended");
}

/// The other half of the next test, which runs it as a process.
#[tokio::test]
#[ignore = "run by a_server_ends_with_a_killed_test_process"]
async fn a_process_that_waits_to_be_killed() {
    let own = Neo4jServer::start_own(Settings::default()).await;
    println!("\nserver {}", own.bolt_uri);
    std::thread::sleep(Duration::from_secs(600));
}

#[test]
fn a_server_ends_with_a_killed_test_process() {
    let temp = tempfile::tempdir().unwrap();
    let mut process = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", WHO, "--ignored", "--nocapture"])
        .env("TMPDIR", temp.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let address = BufReader::new(process.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok)
        .find_map(|line| line.strip_prefix("server bolt://").map(str::to_owned));
    let answered = address.as_ref().is_some_and(|address| TcpStream::connect(address).is_ok());
    process.kill().unwrap(); // SIGKILL
    process.wait().unwrap();
    let address = address.expect("the process prints its server's address");
    assert!(answered, "{address}");

    let left = || std::fs::read_dir(temp.path()).unwrap().count();
    let end = Instant::now() + Duration::from_secs(60);
    while TcpStream::connect(&address).is_ok() || left() > 0 {
        assert!(Instant::now() < end, "{address} still listens, or its data is still there");
        std::thread::sleep(Duration::from_millis(50));
    }
}
