//! What the end-to-end tests share: a real Neo4j, and the recorded answers of a genuine estate.
//!
//! A test that needs a database to itself, which is most of them:
//!
//! ```no_run
//! # async fn test() {
//! let db = pvegraph_testkit::emptied().await; // the shared server without data; other tests wait until `db` is dropped
//! db.cypher("CREATE (:ProxmoxCluster {id: $id})", serde_json::json!({ "id": "rig" })).await;
//! let rows = db.cypher("MATCH (c:ProxmoxCluster) RETURN c.id AS id", serde_json::Value::Null).await;
//! assert_eq!(rows, [serde_json::json!({ "id": "rig" })]);
//! // for the program under test: db.bolt_uri, db.user, db.password
//! # }
//! ```
//!
//! A test that stops or kills its server, or needs settings of its own, starts one: [`Neo4jServer::start_own`].
//!
//! Where the server comes from, in this order: `PVEGRAPH_TEST_NEO4J_URI`, a container, the Community server from
//! Maven's jars. `docs/testing.md` has the variables. Without any of them the test fails and says what to install;
//! it is never skipped. Servers end with the test process, even after SIGKILL.

mod container;
mod driver;
mod jars;
mod process;
mod recordings;
mod server;

pub use driver::CypherError;
pub use recordings::recordings_dir;
pub use server::{Exclusive, How, Neo4jServer, OwnedServer, Settings, emptied, exclusive, fresh, neo4j};
