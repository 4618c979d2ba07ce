//! The store in a Neo4j server, over Bolt.
//!
//! What the driver leaves to its user is settled here: every call has a time-out (its TLS and Bolt handshakes have none); a
//! transaction that could be neither committed nor rolled back takes its connection with it, because the server keeps its
//! locks for as long as the connection lives; and a batch is retried as a whole, because a transaction that failed once only
//! answers `Ignored`.

mod columns;
mod errors;
mod schema;
mod values;

use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use backon::{ExponentialBuilder, Retryable};
use neo4rs::{ConfigBuilder, Graph, Query, Row, Txn};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use tokio::sync::{OnceCell, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};
use url::Url;

use self::errors::Failure;
use crate::store::{Dialect, Rows, SchemaKind, SchemaObject, Statement, Store, StoreError, StoreInfo};

/// Connections at most, unless configured. Four writers are the fastest, and reports need a few beside them.
pub const DEFAULT_MAX_CONNECTIONS: usize = 8;

/// The oldest server that is supported, as (major, minor): the first with scope clauses, `CALL (n) { … }`, which generated
/// statements use. (Composite uniqueness constraints and `SHOW … YIELD` are older.)
pub const MIN_VERSION: (u32, u32) = (5, 23);

/// The driver's own time-out. It is also its read time-out, and would report a slow statement as failed while the server
/// commits it; so it stays out of the way, and [`StoreTimeouts`] decide.
const DRIVER_TIMEOUT: Duration = Duration::from_secs(600);

/// Rows for each request to the server: the driver's 200 cost a round trip each.
const FETCH_SIZE: usize = 2_000;

/// Retries of one call: about 20 s with these delays, which outlasts a deadlock by far and a restart of the server mostly.
const MAX_RETRIES: usize = 12;
const FIRST_DELAY: Duration = Duration::from_millis(20);
const LONGEST_DELAY: Duration = Duration::from_secs(3);

/// The port where a URI names none.
const BOLT_PORT: u16 = 7687;

/// How long a store's calls may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreTimeouts {
    /// For a connection with its handshakes and log-in.
    pub connect: Duration,
    /// For a transaction: its statements with their rows, and the commit.
    pub statement: Duration,
}

impl Default for StoreTimeouts {
    /// 10 s to connect, which is long for a network and short for a person; 100 s for a transaction, because the largest
    /// batches and sweeps take seconds, and because a sync's lease outlasts it (120 s).
    fn default() -> Self {
        Self { connect: Duration::from_secs(10), statement: Duration::from_secs(100) }
    }
}

/// Where the server is and how to log in.
#[derive(Debug, Clone)]
pub struct Neo4jConfig {
    /// `bolt://`, `bolt+s://` (TLS), `bolt+ssc://` (TLS without checking the certificate), `neo4j://` or `neo4j+s://` (a
    /// cluster, with routing), then host and port (7687 where none is given). No credentials and no database in it.
    ///
    /// With TLS the process must have installed a default `rustls` provider before.
    pub uri: String,
    /// The user.
    pub user: String,
    /// The user's password.
    pub password: SecretString,
    /// The database; the user's home database where it is `None`.
    pub database: Option<String>,
    /// Connections at most, see [`DEFAULT_MAX_CONNECTIONS`].
    pub max_connections: usize,
    /// The time-outs.
    pub timeouts: StoreTimeouts,
}

/// A store in a Neo4j server.
///
/// # Guarantees
/// - A server that was never reached is not waited for: the first call fails at once, or within `timeouts.connect`.
/// - A connection that breaks later is retried for about 20 s, like transient errors. A time-out is not retried.
pub struct Neo4jStore {
    config: Neo4jConfig,
    target: String,
    pool: Mutex<Arc<Pool>>,
    /// The driver's pool waits for a free connection without a limit, so it is never asked for one that it does not have.
    free: Semaphore,
    reached: AtomicBool,
}

/// The driver's connections, and whether one of them is known to work.
struct Pool {
    graph: Graph,
    checked: OnceCell<()>,
}

impl fmt::Debug for Neo4jStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Neo4jStore").field("target", &self.target).finish_non_exhaustive()
    }
}

impl Neo4jStore {
    /// Makes the store. No connection is made before the first call.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] where the configuration can't be right.
    pub fn connect(config: Neo4jConfig) -> Result<Self, StoreError> {
        let target = target(&config.uri)?;
        let free = Semaphore::new(config.max_connections.max(1));
        let graph = driver(&config, &config.uri, &target)?;
        Ok(Self {
            pool: Mutex::new(Arc::new(Pool { graph, checked: OnceCell::new() })),
            config,
            target,
            free,
            reached: AtomicBool::new(false),
        })
    }

    fn pool(&self) -> Arc<Pool> {
        Arc::clone(&self.pool.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Drops the connections of `pool`, so that the server ends whatever still runs on them. Transactions of other callers
    /// keep theirs until they end.
    fn discard(&self, pool: &Arc<Pool>) {
        let mut current = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        if Arc::ptr_eq(&current, pool)
            && let Ok(graph) = driver(&self.config, &self.config.uri, &self.target)
        {
            *current = Arc::new(Pool { graph, checked: OnceCell::new() });
        }
    }

    /// The pool, once a connection of it has worked.
    async fn checked_pool(&self) -> Result<Arc<Pool>, Failure> {
        let pool = self.pool();
        let check = pool.checked.get_or_try_init(|| async {
            if is_routed(&self.config.uri) {
                // With routing a refused password ends as "no server available", after a long time: ask one server first.
                let direct = self.config.uri.replacen("neo4j", "bolt", 1);
                let one = driver(&self.config, &direct, &self.target)?;
                self.check(one.start_txn()).await?;
            }
            self.check(pool.graph.start_txn()).await
        });
        let connect = self.config.timeouts.connect;
        match timeout(connect, check).await {
            Ok(Ok(())) => {
                self.reached.store(true, Ordering::Relaxed);
                Ok(pool)
            }
            Ok(Err(failure)) => Err(failure),
            Err(_) => {
                self.discard(&pool);
                Err(self.timed_out("connect", connect))
            }
        }
    }

    async fn check(&self, begin: impl Future<Output = neo4rs::Result<Txn>>) -> Result<(), Failure> {
        let txn = begin.await.map_err(|error| self.failure(error, &[]))?;
        txn.rollback().await.map_err(|error| self.failure(error, &[]))
    }

    fn timed_out(&self, operation: &'static str, after: Duration) -> Failure {
        StoreError::Timeout { target: self.target.clone(), operation, after }.into()
    }

    fn failure(&self, error: neo4rs::Error, statements: &[Statement]) -> Failure {
        errors::failure(error, &self.target, &self.config, statements)
    }

    /// Runs `attempt` until it succeeds, fails for good, or has been retried often enough.
    async fn retried<T, F>(
        &self,
        operation: &'static str,
        attempt: impl FnMut() -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, Failure>> + Send,
    {
        let delays = ExponentialBuilder::default()
            .with_min_delay(FIRST_DELAY)
            .with_max_delay(LONGEST_DELAY)
            .with_max_times(MAX_RETRIES)
            .with_jitter();
        attempt
            .retry(delays)
            .sleep(tokio::time::sleep)
            // A server that never answered is more likely named wrongly than restarting. One that refuses credentials which it took
            // before is short of memory, or starting.
            .when(|failure| {
                let reached = self.reached.load(Ordering::Relaxed);
                let may_pass = !failure.error.is_unreachable() || reached;
                (failure.retry && may_pass) || (failure.error.is_auth() && reached)
            })
            .notify(|failure, after| {
                tracing::debug!(target: "pvegraph::store", store = self.target, operation, error = %failure.error,
                    after_ms = after.as_millis(), "retrying");
            })
            .await
            .map_err(|failure| failure.error)
    }

    /// A free connection's permit.
    async fn permit(&self, operation: &'static str) -> Result<tokio::sync::SemaphorePermit<'_>, Failure> {
        let after = self.config.timeouts.statement;
        match timeout(after, self.free.acquire()).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => Err(self.timed_out(operation, after)),
        }
    }

    async fn write_once(&self, statements: &[Statement]) -> Result<Vec<Rows>, Failure> {
        const OPERATION: &str = "write";
        let StoreTimeouts { connect, statement: limit } = self.config.timeouts;
        let _permit = self.permit(OPERATION).await?;
        let pool = self.checked_pool().await?;
        // From BEGIN to the end of COMMIT or ROLLBACK, leaving in any other way (a time-out, or a caller that stops waiting)
        // costs the connections.
        let mut open = Open { store: self, pool: &pool, open: true };
        let mut txn = match timeout(connect, pool.graph.start_txn()).await {
            Ok(begun) => match begun {
                Ok(txn) => txn,
                Err(error) => {
                    open.open = false;
                    return Err(self.failure(error, &[]));
                }
            },
            Err(_) => return Err(self.timed_out("connect", connect)),
        };
        let deadline = Instant::now() + limit;
        let mut answers = Vec::with_capacity(statements.len());
        for statement in statements {
            // Made one by one: a batch's parameters are large, and the driver's form of them is larger.
            let run = async {
                let query = query(statement).map_err(Ended::Value)?;
                run(&mut txn, &statement.text, query).await
            };
            let failure = match timeout_at(deadline, run).await {
                Ok(Ok(rows)) if statement.guard && rows.rows.is_empty() => {
                    StoreError::Guard { target: self.target.clone() }.into()
                }
                Ok(Ok(rows)) => {
                    answers.push(rows);
                    continue;
                }
                Ok(Err(Ended::Driver(error))) => self.failure(error, statements),
                Ok(Err(Ended::Value(failure))) => failure,
                Err(_) => return Err(self.timed_out(OPERATION, limit)),
            };
            // After an error of the server the transaction is already gone there, and the answer is only `Ignored`.
            open.open = timeout(connect, txn.rollback()).await.is_err();
            return Err(failure);
        }
        match timeout_at(deadline, txn.commit()).await {
            Ok(committed) => {
                open.open = false;
                committed.map(|_| answers).map_err(|error| self.failure(error, statements))
            }
            Err(_) => Err(self.timed_out(OPERATION, limit)),
        }
    }

    /// Runs one statement in a transaction of its own. Only so can the access mode be chosen: the driver names it with the
    /// statement and never with `BEGIN`, where the server would look for it in an explicit transaction.
    async fn alone_once(
        &self,
        operation: &'static str,
        statement: &Statement,
        read: bool,
    ) -> Result<Rows, Failure> {
        let limit = self.config.timeouts.statement;
        let millis = i64::try_from(limit.as_millis()).unwrap_or(i64::MAX);
        let query = query(statement)?.extra("tx_timeout", millis);
        let _permit = self.permit(operation).await?;
        let pool = self.checked_pool().await?;
        let mut open = Open { store: self, pool: &pool, open: true };
        let all = async {
            let mut stream =
                if read { pool.graph.execute_read(query).await? } else { pool.graph.execute(query).await? };
            let mut rows = Collector::new(&statement.text);
            while let Some(row) = stream.next().await? {
                rows.push(row)?;
            }
            Ok(rows.finish())
        };
        let ended = timeout(limit, all).await;
        open.open = ended.is_err();
        match ended {
            Ok(Ok(rows)) => Ok(rows),
            Ok(Err(Ended::Driver(error))) => Err(self.failure(error, std::slice::from_ref(statement))),
            Ok(Err(Ended::Value(failure))) => Err(failure),
            Err(_) => Err(self.timed_out(operation, limit)),
        }
    }
}

#[async_trait]
impl Store for Neo4jStore {
    fn dialect(&self) -> Dialect {
        Dialect::Neo4j
    }

    fn target(&self) -> &str {
        &self.target
    }

    async fn info(&self) -> Result<StoreInfo, StoreError> {
        let text = "CALL dbms.components() YIELD name, versions, edition RETURN name, versions[0] AS version, edition";
        let rows = self.read(Statement::new(text)).await?;
        let text = |column| rows.get(0, column).and_then(Value::as_str).unwrap_or_default().to_owned();
        Ok(StoreInfo { product: text("name"), version: text("version"), edition: text("edition") })
    }

    async fn read(&self, statement: Statement) -> Result<Rows, StoreError> {
        self.retried("read", || self.alone_once("read", &statement, true)).await
    }

    async fn write(&self, statements: Vec<Statement>) -> Result<Vec<Rows>, StoreError> {
        self.retried("write", || self.write_once(&statements)).await
    }

    async fn schema(&self, statement: &str) -> Result<(), StoreError> {
        schema::make(self, statement).await
    }

    async fn schema_objects(&self) -> Result<Vec<SchemaObject>, StoreError> {
        let constraints = self.read(Statement::new(
            "SHOW CONSTRAINTS YIELD type, entityType, labelsOrTypes, properties
             RETURN type, entityType, labelsOrTypes[0] AS label, properties",
        ));
        let indexes = self.read(Statement::new(
            "SHOW INDEXES YIELD type, entityType, labelsOrTypes, properties, owningConstraint
             WHERE owningConstraint IS NULL
             RETURN type, entityType, labelsOrTypes[0] AS label, properties",
        ));
        let mut objects = Vec::new();
        for rows in [constraints.await?, indexes.await?] {
            for at in 0..rows.rows.len() {
                let text = |column| rows.get(at, column).and_then(Value::as_str).unwrap_or_default();
                let kind = match text("type") {
                    // The first is the name from 5.0 on, the second from 2025.01 on.
                    "UNIQUENESS" | "NODE_PROPERTY_UNIQUENESS" => SchemaKind::Unique,
                    "RANGE" if text("entityType") == "NODE" => SchemaKind::Index,
                    _ => continue,
                };
                let properties = rows.get(at, "properties").and_then(Value::as_array);
                let properties = properties.into_iter().flatten().filter_map(Value::as_str);
                objects.push(SchemaObject {
                    kind,
                    label: text("label").to_owned(),
                    properties: properties.map(str::to_owned).collect(),
                });
            }
        }
        objects.sort();
        Ok(objects)
    }

    async fn checkpoint(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// Refuses a server that is older than [`MIN_VERSION`]. `target` names it in the message.
///
/// # Errors
/// [`StoreError::Unusable`], with both versions.
pub fn require_supported(info: &StoreInfo, target: &str) -> Result<(), StoreError> {
    let mut parts = info.version.split(['.', '-']).map(str::parse::<u32>);
    let version = match (parts.next(), parts.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor),
        _ => (0, 0),
    };
    if version >= MIN_VERSION {
        return Ok(());
    }
    Err(StoreError::Unusable {
        target: target.to_owned(),
        reason: format!(
            "{} {:?} is too old or unknown: Neo4j {}.{} or later is needed",
            info.product, info.version, MIN_VERSION.0, MIN_VERSION.1
        ),
    })
}

/// A transaction that the server may hold open. Dropped in that state, it takes the pool's connections with it.
struct Open<'a> {
    store: &'a Neo4jStore,
    pool: &'a Arc<Pool>,
    open: bool,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        if self.open {
            self.store.discard(self.pool);
        }
    }
}

/// Why a statement's rows ended early.
enum Ended {
    Driver(neo4rs::Error),
    Value(Failure),
}

impl From<neo4rs::Error> for Ended {
    fn from(error: neo4rs::Error) -> Self {
        Self::Driver(error)
    }
}

async fn run(txn: &mut Txn, text: &str, query: Query) -> Result<Rows, Ended> {
    let mut stream = txn.execute(query).await?;
    let mut rows = Collector::new(text);
    while let Some(row) = stream.next(txn.handle()).await? {
        rows.push(row)?;
    }
    Ok(rows.finish())
}

/// Rows of the driver, on their way to [`Rows`].
struct Collector<'a> {
    text: &'a str,
    rows: Rows,
}

impl<'a> Collector<'a> {
    fn new(text: &'a str) -> Self {
        Self { text, rows: Rows::default() }
    }

    fn push(&mut self, row: Row) -> Result<(), Ended> {
        if self.rows.columns.is_empty() {
            let names = row.keys().into_iter().map(|name| name.value.clone()).collect();
            self.rows.columns = columns::ordered(self.text, names);
        }
        let mut values = Vec::with_capacity(self.rows.columns.len());
        for column in &self.rows.columns {
            let value = row.get(column).map_err(neo4rs::Error::from)?;
            values.push(values::to_json(value).map_err(|error| Ended::Value(errors::value(&error)))?);
        }
        self.rows.rows.push(values);
        Ok(())
    }

    fn finish(mut self) -> Rows {
        if self.rows.rows.is_empty() {
            self.rows.columns = columns::stated(self.text).unwrap_or_default();
        }
        self.rows
    }
}

fn query(statement: &Statement) -> Result<Query, Failure> {
    let params = values::to_bolt_map(&statement.params).map_err(|error| errors::value(&error))?;
    Ok(Query::new(statement.text.to_string()).with_params(params))
}

fn is_routed(uri: &str) -> bool {
    uri.starts_with("neo4j")
}

/// The URI's scheme, host and port, once everything else is known to be absent.
fn target(uri: &str) -> Result<String, StoreError> {
    // The URI itself is in no message: it may be the one that carries a password.
    let refuse = |reason: String| StoreError::Unusable { target: "of [store]".to_owned(), reason };
    let url = Url::parse(uri).map_err(|error| refuse(format!("`uri` is not a URI: {error}")))?;
    let scheme = url.scheme();
    if !["bolt", "bolt+s", "bolt+ssc", "neo4j", "neo4j+s"].contains(&scheme) {
        return Err(refuse(format!(
            "the scheme {scheme:?} of `uri` is not known: use bolt://, bolt+s://, bolt+ssc://, neo4j:// or neo4j+s://"
        )));
    }
    let Some(host) = url.host_str().filter(|host| !host.is_empty()) else {
        return Err(refuse("`uri` names no host".to_owned()));
    };
    if !url.username().is_empty() || url.password().is_some() {
        return Err(refuse("`uri` contains credentials: use `user` and `password_file`".to_owned()));
    }
    if !matches!(url.path(), "" | "/") || url.fragment().is_some() {
        return Err(refuse("`uri` goes on after the port: name the database in `database`".to_owned()));
    }
    Ok(format!("{scheme}://{host}:{}", url.port().unwrap_or(BOLT_PORT)))
}

fn driver(config: &Neo4jConfig, uri: &str, target: &str) -> Result<Graph, StoreError> {
    let unusable = |error: neo4rs::Error| StoreError::Unusable {
        target: target.to_owned(),
        reason: format!("the driver refuses its configuration: {error}"),
    };
    // `max_lifetime` and `idle_timeout` stay unset: the driver uses them as its pool's wait and recycle time-outs.
    let mut builder = ConfigBuilder::default()
        .uri(uri)
        .user(config.user.as_str())
        .password(config.password.expose_secret())
        .fetch_size(FETCH_SIZE)
        .max_connections(config.max_connections.max(1))
        .connection_timeout(DRIVER_TIMEOUT);
    if let Some(database) = &config.database {
        builder = builder.db(database.as_str());
    }
    Graph::connect(builder.build().map_err(unusable)?).map_err(unusable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_becomes_a_target_without_secrets() {
        for (uri, expected) in [
            ("bolt://db.example", "bolt://db.example:7687"),
            ("bolt+ssc://127.0.0.1:17687/", "bolt+ssc://127.0.0.1:17687"),
            ("neo4j+s://[::1]:1", "neo4j+s://[::1]:1"),
        ] {
            assert_eq!(target(uri).unwrap(), expected);
        }
    }

    #[test]
    fn a_uri_that_can_not_be_right_is_refused_and_not_repeated() {
        for (uri, reason) in [
            ("http://db.example:7474", "the scheme \"http\""),
            ("db.example:7687", "the scheme \"db.example\""),
            ("bolt://neo4j:hunter2@db.example", "contains credentials"),
            ("bolt://hunter2@db.example", "contains credentials"),
            ("bolt://db.example/hunter2", "goes on after the port"),
            ("bolt://", "names no host"),
            ("hunter2", "is not a URI"),
        ] {
            let message = target(uri).unwrap_err().to_string();
            assert!(message.contains(reason), "{uri}: {message}");
            assert!(!message.contains("hunter2"), "{message}");
        }
    }

    #[test]
    fn the_oldest_supported_version_is_a_floor() {
        let info = |version: &str| StoreInfo {
            product: "Neo4j Kernel".to_owned(),
            version: version.to_owned(),
            edition: "community".to_owned(),
        };
        for version in ["5.23.0", "5.26.16", "5.27-aura", "2025.01.0"] {
            assert!(require_supported(&info(version), "bolt://x:1").is_ok(), "{version}");
        }
        for version in ["4.4.40", "5.22.0", "", "unknown"] {
            let message = require_supported(&info(version), "bolt://x:1").unwrap_err().to_string();
            assert!(message.contains(version) && message.contains("5.23"), "{message}");
        }
    }
}
