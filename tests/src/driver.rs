//! Cypher straight through the driver, so that what the program wrote is read back by something else.

use std::time::Duration;

use neo4rs::{BoltMap, BoltString, BoltType, ConfigBuilder, Error, Graph, Query};
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};

use crate::Neo4jServer;

/// Longer than any statement of a test takes; what exceeds it hangs.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(120);

/// Nodes deleted in one transaction of a wipe: fits a heap of 512 MB many times over.
const WIPE_BATCH: i64 = 10_000;

/// What the server, or the way to it, answered instead of rows.
#[derive(Debug, thiserror::Error)]
#[error("{}{message} (statement: {statement})", code.as_deref().map(|c| format!("{c}: ")).unwrap_or_default())]
pub struct CypherError {
    /// The server's status code, such as `Neo.ClientError.Statement.SyntaxError`; none where there is no server, and
    /// none for a refused login, whose code the driver keeps to itself.
    pub code: Option<String>,
    /// The server's or the driver's words.
    pub message: String,
    /// The statement, without its parameters.
    pub statement: String,
    login: bool,
}

impl CypherError {
    fn new(statement: &str, error: &Error) -> Self {
        let (code, message) = match error {
            Error::Neo4j(e) => (Some(e.code().to_owned()), e.message().to_owned()),
            e => (None, e.to_string()),
        };
        let login = matches!(error, Error::AuthenticationError(_));
        Self { code, message, statement: statement.to_owned(), login }
    }

    /// The server says that the same may work a moment later: a deadlock, a lock that was not got.
    pub fn is_transient(&self) -> bool {
        self.code.as_deref().is_some_and(|code| code.starts_with("Neo.TransientError."))
    }

    /// The server refused name and password.
    pub fn is_login_refused(&self) -> bool {
        self.login
    }
}

impl Neo4jServer {
    /// Runs one auto-commit statement and returns its rows, each an object by column name.
    ///
    /// `params` is an object, or null for none. Nodes and relationships come as objects of their properties.
    /// Every call makes its own connection, so that calls from several test runtimes never share one.
    ///
    /// # Errors
    /// What the server refuses, an unreachable server, and no end within two minutes.
    pub async fn try_cypher(&self, statement: &str, params: Value) -> Result<Vec<Value>, CypherError> {
        match timeout(STATEMENT_TIMEOUT, self.rows(statement, params)).await {
            Ok(rows) => rows,
            Err(_) => Err(CypherError {
                code: None,
                message: format!("no end within {STATEMENT_TIMEOUT:?}"),
                statement: statement.to_owned(),
                login: false,
            }),
        }
    }

    async fn rows(&self, statement: &str, params: Value) -> Result<Vec<Value>, CypherError> {
        let failed = |e: Error| CypherError::new(statement, &e);
        let config = ConfigBuilder::default()
            .uri(self.bolt_uri.as_str())
            .user(self.user.as_str())
            .password(self.password.as_str())
            .max_connections(1)
            .connection_timeout(STATEMENT_TIMEOUT)
            .build()
            .map_err(failed)?;
        let graph = Graph::connect(config).map_err(failed)?;
        let query = Query::new(statement.to_owned()).with_params(bolt_params(params).map_err(failed)?);
        let mut stream = graph.execute(query).await.map_err(failed)?;
        let mut rows = Vec::new();
        while let Some(row) = stream.next().await.map_err(failed)? {
            rows.push(row.to::<Value>().map_err(|e| failed(e.into()))?);
        }
        Ok(rows)
    }

    /// [`try_cypher`](Self::try_cypher) for statements that have to work.
    ///
    /// # Panics
    /// On any error, with the statement.
    pub async fn cypher(&self, statement: &str, params: Value) -> Vec<Value> {
        match self.try_cypher(statement, params).await {
            Ok(rows) => rows,
            Err(e) => panic!("{e}"),
        }
    }

    /// Deletes every node and relationship. Hold [`exclusive`](crate::exclusive) on the shared server meanwhile.
    ///
    /// # Panics
    /// When the server refuses.
    pub async fn delete_all(&self) {
        let batch = serde_json::json!({ "batch": WIPE_BATCH });
        // Relationships first: a node may have more of them than a transaction holds.
        for delete in [
            "MATCH ()-[r]->() WITH r LIMIT $batch DELETE r RETURN count(*) AS deleted",
            "MATCH (n) WITH n LIMIT $batch DETACH DELETE n RETURN count(*) AS deleted",
        ] {
            while self.deleted(delete, batch.clone()).await != Some(0) {}
        }
    }

    /// Deletes a batch; again where the transaction of a program that was just killed is still in the way.
    async fn deleted(&self, delete: &str, batch: Value) -> Option<i64> {
        let end = Instant::now() + STATEMENT_TIMEOUT;
        loop {
            match self.try_cypher(delete, batch.clone()).await {
                Ok(rows) => return rows[0]["deleted"].as_i64(),
                Err(error) if error.is_transient() && Instant::now() < end => {
                    sleep(Duration::from_millis(100)).await;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Makes the database fresh: [`delete_all`](Self::delete_all), and drops every constraint and every index but the two that each
    /// database is made with.
    ///
    /// # Panics
    /// When the server refuses.
    pub async fn wipe(&self) {
        self.delete_all().await;
        for (kind, list) in [
            ("CONSTRAINT", "SHOW CONSTRAINTS YIELD name"),
            ("INDEX", "SHOW INDEXES YIELD name, type WHERE type <> 'LOOKUP'"),
        ] {
            for row in self.cypher(list, Value::Null).await {
                let name = row["name"].as_str().unwrap_or_default().replace('`', "``");
                self.cypher(&format!("DROP {kind} `{name}` IF EXISTS"), Value::Null).await;
            }
        }
    }
}

fn bolt_params(params: Value) -> Result<BoltMap, Error> {
    let mut map = BoltMap::default();
    match params {
        Value::Null => {}
        Value::Object(fields) => {
            for (key, value) in fields {
                map.put(BoltString::from(key), BoltType::try_from(value)?);
            }
        }
        other => return Err(Error::UnknownType(format!("parameters are an object, not {other}"))),
    }
    Ok(map)
}
