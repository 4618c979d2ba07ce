//! What a graph store can do, whichever it is.
//!
//! There are two: [`Neo4jStore`](crate::neo4j::Neo4jStore), which the product is for, and the embedded store (a crate of its
//! own, because its engine is two thirds of the build). Everything above this trait (load, sweep, migrations, reports) is
//! written once; the one difference that reaches generated Cypher is [`Dialect`].
//!
//! Values are JSON on both sides: parameters are JSON, and rows come back as JSON. A node comes back as
//! `{"labels": [...], "properties": {...}}`, a relationship as `{"type": "...", "properties": {...}}`, a path as
//! `{"nodes": [...], "relationships": [...]}`, temporal values as their ISO 8601 text.

use std::borrow::Cow;
use std::time::Duration;

use async_trait::async_trait;
use serde::Serialize;
use serde_json::{Map, Value};

/// A statement with its parameters.
#[derive(Debug, Clone, PartialEq)]
pub struct Statement {
    /// Cypher, with `$name` for each parameter.
    pub text: Cow<'static, str>,
    /// The parameters by name, without the `$`.
    pub params: Map<String, Value>,
    /// In [`Store::write`]: where this statement answers no row, the whole transaction is rolled back with
    /// [`StoreError::Guard`]. That is how a writer that lost its lease is stopped inside the very transaction.
    pub guard: bool,
}

impl Statement {
    /// A statement without parameters.
    pub fn new(text: impl Into<Cow<'static, str>>) -> Self {
        Self { text: text.into(), params: Map::new(), guard: false }
    }

    /// The same statement as a guard of its transaction: see [`Statement::guard`].
    #[must_use]
    pub fn guarding(mut self) -> Self {
        self.guard = true;
        self
    }

    /// The same statement with one more parameter.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.params.insert(name.into(), value.into());
        self
    }
}

/// What a statement answered.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Rows {
    /// Column names in the statement's order.
    pub columns: Vec<String>,
    /// One value per column in each row.
    pub rows: Vec<Vec<Value>>,
}

impl Rows {
    /// The value of `column` in row `row`, if both are there.
    pub fn get(&self, row: usize, column: &str) -> Option<&Value> {
        let at = self.columns.iter().position(|name| name == column)?;
        self.rows.get(row)?.get(at)
    }
}

/// The store's dialect of Cypher, where generated statements differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// Cypher 5 of Neo4j. Nodes are merged by their composite key, and `id` is the contract's.
    Neo4j,
    /// The embedded engine. It owns a property `id` (unique per label, immutable): the joined key is merged there, and the
    /// contract's value is in `contract_id`.
    Embedded,
}

/// Which server, or engine, answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StoreInfo {
    /// The product's name, such as `Neo4j Kernel`.
    pub product: String,
    /// Its version, such as `5.26.16`.
    pub version: String,
    /// Its edition, such as `community`; empty where there are none.
    pub edition: String,
}

/// A constraint or an index, in the form in which both stores are compared with the label tables.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct SchemaObject {
    /// What it is.
    pub kind: SchemaKind,
    /// The label that it is on.
    pub label: String,
    /// Its properties, in their order.
    pub properties: Vec<String>,
}

/// The kinds of schema object that the project makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SchemaKind {
    /// A uniqueness constraint (with its index).
    Unique,
    /// A range index that no constraint owns.
    Index,
}

/// A graph store.
///
/// # Guarantees
/// - Every call ends within the store's time-outs, whatever the remote does.
/// - [`write`](Store::write) is one transaction: all statements or none. It is retried as a whole on transient errors, so
///   its statements must be idempotent.
/// - [`read`](Store::read) can't change the graph: a statement that writes is refused by the store itself.
/// - An error never carries a password or a parameter's value.
#[async_trait]
pub trait Store: Send + Sync {
    /// The dialect for generated statements.
    fn dialect(&self) -> Dialect;

    /// What to call this store in messages: its URI without credentials, or `embedded:PATH`.
    fn target(&self) -> &str;

    /// Asks the store what it is. The first call connects.
    async fn info(&self) -> Result<StoreInfo, StoreError>;

    /// Runs one statement in read mode.
    async fn read(&self, statement: Statement) -> Result<Rows, StoreError>;

    /// Runs the statements in one transaction and answers each one's rows.
    async fn write(&self, statements: Vec<Statement>) -> Result<Vec<Rows>, StoreError>;

    /// Runs one schema statement (`CREATE CONSTRAINT`, `DROP INDEX`, …) in a transaction of its own.
    async fn schema(&self, statement: &str) -> Result<(), StoreError>;

    /// The uniqueness constraints and the range indexes that exist, sorted.
    async fn schema_objects(&self) -> Result<Vec<SchemaObject>, StoreError>;

    /// Makes everything written so far durable. A server does that at each commit, and answers at once.
    async fn checkpoint(&self) -> Result<(), StoreError>;
}

/// Why a store's call failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// No connection, or it broke and retrying did not help.
    #[error(
        "the graph store {target} can't be reached: {reason}; check that it runs there, and `uri` in [store]"
    )]
    Unreachable {
        /// The store, without credentials.
        target: String,
        /// What the driver said.
        reason: String,
    },
    /// The store refused the credentials, or needs some.
    #[error(
        "the graph store {target} refused the credentials of user {user:?}: check `user` and `password_file` in [store]"
    )]
    Auth {
        /// The store, without credentials.
        target: String,
        /// The user that was tried.
        user: String,
    },
    /// A call did not end in its time. Whether a write took effect is unknown.
    #[error("the graph store {target} did not answer {operation} within {} s", after.as_secs())]
    Timeout {
        /// The store, without credentials.
        target: String,
        /// The call, such as `write`.
        operation: &'static str,
        /// How long it was given.
        after: Duration,
    },
    /// A statement that writes was given to [`Store::read`].
    #[error("only reading is allowed here, and the statement writes: {message}")]
    ReadOnly {
        /// What the store said.
        message: String,
    },
    /// The store refused a statement.
    #[error("the graph store refused a statement ({code}): {message}")]
    Statement {
        /// The store's code, such as `Neo.ClientError.Statement.SyntaxError`.
        code: String,
        /// Its message.
        message: String,
    },
    /// Another process holds the store (the embedded one has a single writer).
    #[error("the graph store {target} is in use by another process: {reason}")]
    Busy {
        /// The store.
        target: String,
        /// What is known of the holder.
        reason: String,
    },
    /// A statement with [`Statement::guard`] answered no row: nothing of its transaction was written. Never retried.
    #[error("nothing was written to {target}: the condition of this transaction no longer holds")]
    Guard {
        /// The store.
        target: String,
    },
    /// What is there can't be used: a version that is too old, a damaged or foreign file.
    #[error("the graph store {target} can't be used: {reason}")]
    Unusable {
        /// The store, without credentials.
        target: String,
        /// What is wrong and how to mend it.
        reason: String,
    },
}

impl StoreError {
    /// The store could not be reached, or did not answer in time.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Timeout { .. })
    }

    /// The credentials were refused.
    pub fn is_auth(&self) -> bool {
        matches!(self, Self::Auth { .. })
    }

    /// A guard of the transaction no longer held: this process lost its lease.
    pub fn is_lease_lost(&self) -> bool {
        matches!(self, Self::Guard { .. })
    }

    /// Another process holds the store.
    pub fn is_busy(&self) -> bool {
        matches!(self, Self::Busy { .. })
    }
}
