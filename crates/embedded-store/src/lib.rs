//! The graph in one local file, without a server: the [`Store`] trait over the embedded engine kglite.
//!
//! # Files
//! `graph.kgl` is the checkpoint, `graph.kgl-wal` the write-ahead log of what was committed since,
//! `graph.kgl.lock` and `graph.kgl.lock-owner` the writer's lease. A backup needs the first two.
//!
//! # Guarantees
//! - **Durable.** A [`write`](Store::write) that returned `Ok` was flushed to the log first: it survives
//!   `kill -9` and a power cut, and so does a schema statement. [`checkpoint`](Store::checkpoint) folds the
//!   log into the file, empties it, and shows the new state to readers; it is no precondition of durability.
//!   The log only grows until then, so a checkpoint belongs at the end of each sync.
//! - **Whole.** After a crash a reopened graph has each transaction whole or not at all.
//! - **One writer.** A second [`Mode::Write`] handle is refused with [`StoreError::Busy`], which names the
//!   holder. The lease is the operating system's and ends with the process.
//! - **Bounded.** Statements end at the call's deadline, or soon after their caller went away. Opening and the
//!   checkpoint take as long as the disk does.
//! - **Readers never wait.** A [`Mode::Read`] handle is a snapshot taken when it was opened: the last
//!   checkpoint while a writer is at work, else everything committed. It writes nothing at all, not even a
//!   lock.
//! - **Quiet.** The engine's warnings go to `tracing` at debug level. It prints by itself only when it finds
//!   a damaged log.
//!
//! The engine's dialect of Cypher is in `DIALECT.md` beside this crate's sources.

mod error;
mod schema;
mod value;

use std::collections::HashMap;
use std::convert::Infallible;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use kglite::api::cypher::{QueryWarningSink, with_query_warning_sink};
use kglite::api::durable::{DurabilityLevel, apply_frames, recover, wal_path};
use kglite::api::io::{GraphWriterLease, load_file};
use kglite::api::session::{
    CancelToken, CommitOutcome, ExecuteOptions, ExecuteOutcome, OpenSpec, QUERY_THREAD_STACK_SIZE, Session,
    execute_mut, execute_read, open_path,
};
use kglite::api::storage::StorageMode;
use kglite::api::{DirGraph, KgError, make_dir_graph_mut};
use pvegraph_graph::store::{Dialect, Rows, SchemaObject, Statement, Store, StoreError, StoreInfo};

/// How long one call may take, unless [`EmbeddedStore::with_timeout`] says otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(120);

/// How long a writer waits for the lease: a reader that looks whether somebody is writing holds it for a
/// moment.
const LEASE_WAIT: Duration = Duration::from_millis(500);

/// How many unknown properties of one statement are declared: more than any statement's patterns name.
const MOST_DECLARED: usize = 100;

/// The scheme of an embedded store's URI.
const SCHEME: &str = "embedded:";

/// What a handle may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Holds the writer's lease, and creates the file if there is none.
    Write,
    /// A snapshot of the file, which must exist.
    Read,
}

/// The path in `embedded:PATH`; `None` for every other text, and for an empty path.
pub fn parse_uri(uri: &str) -> Option<PathBuf> {
    uri.strip_prefix(SCHEME).filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// A graph in a file.
pub struct EmbeddedStore {
    target: String,
    path: PathBuf,
    mode: Mode,
    timeout: Duration,
    inner: Arc<Inner>,
}

struct Inner {
    session: Session,
    /// One writing call at a time: the engine refuses a commit that lost a race.
    writing: Mutex<()>,
    /// Released after the session, so that nobody writes while it is still being dropped.
    _lease: Option<GraphWriterLease>,
}

impl EmbeddedStore {
    /// Opens the graph at `path`, and creates it in [`Mode::Write`] if there is none. Blocks: call it before
    /// the first `await` or in `spawn_blocking`.
    ///
    /// # Errors
    /// - [`StoreError::Busy`]: another handle is writing (only [`Mode::Write`]).
    /// - [`StoreError::Unusable`]: the directory or (in [`Mode::Read`]) the file does not exist, its
    ///   permissions are wrong, or it is damaged or not a graph.
    pub fn open(path: &Path, mode: Mode) -> Result<Self, StoreError> {
        let target = format!("{SCHEME}{}", path.display());
        let unusable = |reason: String| StoreError::Unusable { target: target.clone(), reason };
        if path.to_str().is_none() {
            return Err(unusable("its path is not UTF-8: choose another".to_owned()));
        }
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if !parent.is_dir() {
            return Err(unusable(format!(
                "the directory {} does not exist: create it first",
                parent.display()
            )));
        }
        if path.is_dir() {
            return Err(unusable("it is a directory: name a file in it, such as graph.kgl".to_owned()));
        }
        let inner = with_engine(|| match mode {
            Mode::Write => open_writer(&target, path),
            Mode::Read => open_reader(&target, path),
        })?;
        Ok(Self { target, path: path.to_owned(), mode, timeout: DEFAULT_TIMEOUT, inner: Arc::new(inner) })
    }

    /// The same store with another limit for each call.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Runs `work` on a blocking thread. The engine looks at the deadline and at the token while it works,
    /// and the token is cancelled when the caller goes away, so no thread works on for nobody.
    async fn run<T, F>(&self, operation: &'static str, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Inner, Call) -> Result<T, StoreError> + Send + 'static,
    {
        let inner = Arc::clone(&self.inner);
        let token = CancelToken::new();
        let call = Call {
            target: self.target.clone(),
            operation,
            limit: self.timeout,
            started: Instant::now(),
            token: token.clone(),
        };
        let _on_drop = CancelOnDrop(token);
        let work = tokio::task::spawn_blocking(move || with_engine(|| work(&inner, call)));
        match work.await {
            Ok(result) => result,
            // The panic's own text is not repeated: it may quote a value.
            Err(_) => Err(StoreError::Unusable {
                target: self.target.clone(),
                reason: format!(
                    "the engine failed inside a {operation}: please report it with the statement"
                ),
            }),
        }
    }

    fn must_write(&self, what: &str) -> Result<(), StoreError> {
        match self.mode {
            Mode::Write => Ok(()),
            Mode::Read => Err(StoreError::ReadOnly {
                message: format!("{what} on {}, which is open for reading", self.target),
            }),
        }
    }
}

impl std::fmt::Debug for EmbeddedStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmbeddedStore")
            .field("target", &self.target)
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Store for EmbeddedStore {
    fn dialect(&self) -> Dialect {
        Dialect::Embedded
    }

    fn target(&self) -> &str {
        &self.target
    }

    async fn info(&self) -> Result<StoreInfo, StoreError> {
        Ok(StoreInfo {
            product: "kglite".to_owned(),
            version: ENGINE_VERSION.to_owned(),
            edition: String::new(),
        })
    }

    async fn read(&self, statement: Statement) -> Result<Rows, StoreError> {
        self.run("read", move |inner, call| {
            // Schema statements count as mutations too, and `execute_read` itself refuses what slips through.
            if kglite::api::cypher::parse_with_mutation_check(&statement.text).is_ok_and(|(_, writes)| writes)
            {
                return Err(StoreError::ReadOnly { message: beginning(&statement.text) });
            }
            call.read(&inner.session, &statement)
        })
        .await
    }

    async fn write(&self, statements: Vec<Statement>) -> Result<Vec<Rows>, StoreError> {
        self.must_write("writing")?;
        self.run("write", move |inner, call| {
            transaction(inner, &call, |graph| {
                let mut answers = Vec::with_capacity(statements.len());
                for statement in &statements {
                    let rows = call.write(graph, statement)?;
                    if statement.guard && rows.rows.is_empty() {
                        return Err(StoreError::Guard { target: call.target.clone() });
                    }
                    answers.push(rows);
                }
                Ok(answers)
            })
        })
        .await
    }

    async fn schema(&self, statement: &str) -> Result<(), StoreError> {
        self.must_write("a schema statement")?;
        let statement = Statement::new(statement.to_owned());
        self.run("schema", move |inner, call| {
            transaction(inner, &call, |graph| call.write(graph, &statement).map(|_| ()))
        })
        .await
    }

    async fn schema_objects(&self) -> Result<Vec<SchemaObject>, StoreError> {
        let constraints = self.read(Statement::new(schema::CONSTRAINTS)).await?;
        let indexes = self.read(Statement::new(schema::INDEXES)).await?;
        Ok(schema::objects(&constraints, &indexes))
    }

    async fn checkpoint(&self) -> Result<(), StoreError> {
        self.must_write("a checkpoint")?;
        let path = self.path.clone();
        self.run("checkpoint", move |inner, call| save(&call.target, &inner.session, &path)).await
    }
}

/// One call into the store: whose it is and how long it may take.
struct Call {
    target: String,
    operation: &'static str,
    limit: Duration,
    started: Instant,
    token: CancelToken,
}

impl Call {
    fn read(&self, session: &Session, statement: &Statement) -> Result<Rows, StoreError> {
        let params = value::params(&statement.params)?;
        let options = self.options(&params);
        let mut outcome = execute_read(&session.snapshot(), &statement.text, &options);
        for _ in 0..MOST_DECLARED {
            let Some(unknown) = schema::unknown_property(&outcome) else { break };
            let declared = session.apply_unlogged(|graph| {
                unknown.declare(graph);
                Ok::<_, Infallible>(())
            });
            if declared.is_err() {
                break;
            }
            outcome = execute_read(&session.snapshot(), &statement.text, &options);
        }
        self.rows(statement, outcome)
    }

    fn write(&self, graph: &mut DirGraph, statement: &Statement) -> Result<Rows, StoreError> {
        let params = value::params(&statement.params)?;
        let options = self.options(&params);
        let mut outcome = execute_mut(graph, &statement.text, &options);
        for _ in 0..MOST_DECLARED {
            let Some(unknown) = schema::unknown_property(&outcome) else { break };
            unknown.declare(graph);
            outcome = execute_mut(graph, &statement.text, &options);
        }
        self.rows(statement, outcome)
    }

    fn options<'a>(&self, params: &'a HashMap<String, kglite::api::Value>) -> ExecuteOptions<'a> {
        let mut options = ExecuteOptions::eager(params).with_hidden_structural_keys(true);
        options.deadline = Some(self.started + self.limit);
        options.deadline_origin = Some(self.started);
        options.cancel = Some(self.token.clone());
        options
    }

    fn rows(
        &self,
        statement: &Statement,
        outcome: Result<ExecuteOutcome, KgError>,
    ) -> Result<Rows, StoreError> {
        let result = outcome.map_err(|error| error::statement(self, &error, statement))?.result;
        for warning in result.diagnostics.iter().flat_map(|diagnostics| &diagnostics.warnings) {
            tracing::debug!(store = %self.target, warning, "the engine warns");
        }
        Ok(Rows {
            rows: result.rows.iter().map(|row| row.iter().map(value::to_json).collect()).collect(),
            columns: result.columns,
        })
    }
}

/// Runs `work` on a copy of the graph, and publishes it when all of it was well.
fn transaction<T>(
    inner: &Inner,
    call: &Call,
    work: impl FnOnce(&mut DirGraph) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let _one = inner.writing.lock().unwrap_or_else(PoisonError::into_inner);
    let failed = |message: String| StoreError::Statement {
        code: "Neo.DatabaseError.General.UnknownError".to_owned(),
        message,
    };
    let mut transaction = inner.session.begin();
    let graph = transaction.working_mut().map_err(|error| failed(error.to_string()))?;
    let value = work(graph)?;
    match inner.session.commit(transaction, true) {
        CommitOutcome::Committed { .. } | CommitOutcome::NoWritesNoOp => Ok(value),
        CommitOutcome::DurabilityFailed { error } => Err(StoreError::Unusable {
            target: call.target.clone(),
            reason: format!(
                "its log could not be written ({error}): check the free space; nothing of this write was kept"
            ),
        }),
        other => Err(failed(format!("the transaction was not committed: {other:?}"))),
    }
}

fn save(target: &str, session: &Session, path: &Path) -> Result<(), StoreError> {
    let unusable = |reason: String| StoreError::Unusable { target: target.to_owned(), reason };
    let text = path.to_str().ok_or_else(|| unusable("its path is not UTF-8: choose another".to_owned()))?;
    session.save(text, true).map_err(|error| {
        unusable(format!("the checkpoint could not be written ({error}): check the free space; what was committed is in the log"))
    })
}

fn open_writer(target: &str, path: &Path) -> Result<Inner, StoreError> {
    let spec = OpenSpec {
        durability: DurabilityLevel::Full,
        storage: Some(StorageMode::Memory),
        lease_timeout: Some(LEASE_WAIT),
        ..OpenSpec::writer()
    };
    let opened = open_path(path, &spec).map_err(|error| error::open(target, error))?;
    for advisory in &opened.advisories {
        tracing::warn!(store = target, code = %advisory.code, "the graph file's log was damaged: {advisory:?}");
    }
    // What a killed writer left in the log is folded in at once, so that a reader beside this writer does not
    // see an older state than one before it. It also creates the file.
    let log_is_empty = recover(&wal_path(path)).is_ok_and(|frames| frames.is_empty());
    if !log_is_empty || !path.exists() {
        save(target, &opened.session, path)?;
    }
    Ok(Inner { session: opened.session, writing: Mutex::new(()), _lease: opened.lease })
}

fn open_reader(target: &str, path: &Path) -> Result<Inner, StoreError> {
    // The log is read before the checkpoint: a checkpoint in between then only makes its frames superfluous.
    let frames = if writer_is_active(path) {
        Vec::new()
    } else {
        recover(&wal_path(path)).map_err(|error| error::file(target, &error))?
    };
    let mut graph = match load_file(path.to_string_lossy().as_ref()) {
        Ok(graph) => graph,
        Err(error) => return Err(error::file(target, &error)),
    };
    if !frames.is_empty() {
        let after = graph.checkpoint_lsn;
        apply_frames(make_dir_graph_mut(&mut graph), &frames, after).map_err(|reason| {
            StoreError::Unusable {
                target: target.to_owned(),
                reason: format!(
                    "its write-ahead log does not fit ({reason}): restore both files from the same backup"
                ),
            }
        })?;
    }
    Ok(Inner { session: Session::from_arc(graph), writing: Mutex::new(()), _lease: None })
}

/// Whether some handle, of this process or another, holds the writer's lease. A lock file that can't be read
/// belongs to nobody that this process could disturb.
fn writer_is_active(path: &Path) -> bool {
    let mut lock = path.as_os_str().to_owned();
    lock.push(".lock");
    File::open(PathBuf::from(lock))
        .is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// The first words of a statement, for a message.
fn beginning(text: &str) -> String {
    let line = text
        .lines()
        .map(str::trim)
        .find(|line| !line.is_empty() && !line.starts_with("//"))
        .unwrap_or_default();
    line.chars().take(80).collect()
}

/// The engine's surroundings: its own stack, because it recurses per level of a statement's nesting and a
/// runtime's thread has too little of it, and no warnings on standard error.
fn with_engine<T>(work: impl FnOnce() -> T) -> T {
    stacker::grow(QUERY_THREAD_STACK_SIZE, || with_query_warning_sink(QueryWarningSink::Silent, work))
}

/// The engine's version, as the workspace pins it.
const ENGINE_VERSION: &str = "0.21.5";

struct CancelOnDrop(CancelToken);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}
