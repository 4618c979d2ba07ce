//! Migrations of the graph's schema and data, over any store.
//!
//! An applied migration is a node `(:PvegraphMigration {id, version, name, checksum, state, applied_at})`. Schema statements and
//! data statements run in separate transactions, so a migration as a whole is no transaction. Instead:
//! - one that only changes the schema can be run again after a failure, because its statements say `IF [NOT] EXISTS`;
//! - before one that changes data, a dump is written, and a record in the state `running` names it. When a step fails, the
//!   schema goes back by the other file's schema statements, and the data from the dump. When the program is killed in
//!   between, the next [`Migrations::up`] or [`Migrations::down`] does that first.
//!
//! # Assumptions
//! Nobody else writes meanwhile: the caller holds the sync's lease.

mod files;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

pub use self::files::{Migration, Migrations};
use self::files::{Script, Step, id};
use crate::dump::{DumpError, Existing, KeyOf, dump_to_file, restore_file};
use crate::labels::MIGRATION;
use crate::store::{Statement, Store, StoreError};

/// How migrations are run.
#[derive(Debug, Clone)]
pub struct MigrateOptions {
    /// Where dumps are written before data changes. Without it a migration that changes data is refused.
    pub backup_dir: Option<PathBuf>,
    /// What is dumped, and what identifies its nodes: [`own_key`](crate::dump::own_key).
    pub key_of: KeyOf,
}

/// Where one migration stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MigrationStatus {
    /// Its number.
    pub version: u32,
    /// Its name.
    pub name: String,
    /// Whether it is applied.
    pub state: MigrationState,
    /// When it was, in epoch seconds.
    pub applied_at: Option<i64>,
}

/// What a migration can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MigrationState {
    /// Applied as it is in this program.
    Applied,
    /// Not applied.
    Pending,
    /// Applied, and it was another text then.
    Edited,
    /// Applied by a newer program: this one does not know it.
    Unknown,
    /// Begun and not ended: the program was killed. The next run restores what was before.
    Interrupted,
}

/// What a run did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct MigrateOutcome {
    /// The dump that was restored first, because an earlier run had been killed.
    pub recovered: Option<PathBuf>,
    /// The migrations that were applied or taken back, in that order.
    pub ran: Vec<Ran>,
}

/// One migration that was run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Ran {
    /// Its number.
    pub version: u32,
    /// Its name.
    pub name: String,
    /// The dump of the graph before it, where it changes data. It stays.
    pub backup: Option<PathBuf>,
}

/// Why migrations did not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MigrateError {
    /// A migration's file can't be read.
    #[error("{} can't be read", path.display())]
    Read {
        /// The file or the directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A migration's file is not as it must be.
    #[error("migration file {file}: {reason}")]
    File {
        /// Its name.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// The store failed before a migration was begun.
    #[error("the migrations of the graph could not be read or recorded")]
    Store(#[from] StoreError),
    /// There is no such migration.
    #[error("there is no migration {version:04}: the newest is {newest:04}")]
    NoSuch {
        /// What was asked for.
        version: u32,
        /// The newest one.
        newest: u32,
    },
    /// An applied migration is another text now.
    #[error(
        "migration {version:04}_{name} was changed after it was applied: restore its files, or take it back \
         (`migrate down`) with the program that applied it"
    )]
    Edited {
        /// Its number.
        version: u32,
        /// Its name.
        name: String,
    },
    /// The graph was migrated by a newer program.
    #[error(
        "the graph has migration {version:04}_{name}, which this program does not know: use the newer program"
    )]
    Unknown {
        /// Its number.
        version: u32,
        /// Its name, as recorded.
        name: String,
    },
    /// One is applied and one before it is not.
    #[error(
        "migration {applied:04} is applied and {missing:04} is not: restore the graph from a backup, or its record of {missing:04}"
    )]
    Gap {
        /// The applied one.
        applied: u32,
        /// The one that is not.
        missing: u32,
    },
    /// A migration that changes data needs a place for the dump.
    #[error(
        "migration {version:04}_{name} changes data, and there is no directory for the dump before it: name one"
    )]
    NoBackupDir {
        /// Its number.
        version: u32,
        /// Its name.
        name: String,
    },
    /// The dump before a migration could not be written. Nothing was changed.
    #[error("migration {version:04}_{name} was not begun: the dump before it failed")]
    Backup {
        /// Its number.
        version: u32,
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: DumpError,
    },
    /// A step failed.
    #[error("migration {version:04}_{name} failed, and {}", after(restored.as_deref()))]
    Failed {
        /// Its number.
        version: u32,
        /// Its name.
        name: String,
        /// The dump from which the graph is again what it was; `None` where only the schema was to change.
        restored: Option<PathBuf>,
        /// Why.
        #[source]
        source: StoreError,
    },
    /// A step failed, or a run was killed, and the graph could not be brought back.
    #[error(
        "migration {version:04} failed, and the graph could not be restored from {}: mend the cause and run the migration \
         again, which restores first; keep that file",
        backup.display()
    )]
    NotRestored {
        /// Its number.
        version: u32,
        /// The dump.
        backup: PathBuf,
        /// Why restoring failed.
        #[source]
        source: DumpError,
    },
}

fn after(restored: Option<&Path>) -> String {
    match restored {
        Some(backup) => format!("the graph is again as it was before, restored from {}", backup.display()),
        None => "it can be run again: what it did is only schema, and is not done twice".to_owned(),
    }
}

impl MigrateError {
    /// The graph and the program do not fit each other: a person must decide.
    pub fn is_mismatch(&self) -> bool {
        matches!(self, Self::Edited { .. } | Self::Unknown { .. } | Self::Gap { .. })
    }
}

/// A migration's record in the graph.
#[derive(Debug)]
struct Record {
    name: String,
    checksum: String,
    applied_at: Option<i64>,
    running: Option<Running>,
}

/// What a killed run left.
#[derive(Debug)]
struct Running {
    down: bool,
    backup: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Up,
    Down,
}

impl Migrations {
    /// Where every migration stands, those that only the graph knows at the end. Changes nothing.
    ///
    /// # Errors
    /// [`MigrateError::Store`].
    pub async fn status(&self, store: &dyn Store) -> Result<Vec<MigrationStatus>, MigrateError> {
        let mut records = records(store).await?;
        let mut list = Vec::new();
        for migration in self.all() {
            let record = records.remove(&migration.version);
            let state = match &record {
                None => MigrationState::Pending,
                Some(Record { running: Some(_), .. }) => MigrationState::Interrupted,
                Some(record) if record.checksum != migration.checksum => MigrationState::Edited,
                Some(_) => MigrationState::Applied,
            };
            list.push(MigrationStatus {
                version: migration.version,
                name: migration.name.clone(),
                state,
                applied_at: record.and_then(|record| record.applied_at),
            });
        }
        list.extend(records.into_iter().map(|(version, record)| MigrationStatus {
            version,
            name: record.name,
            state: MigrationState::Unknown,
            applied_at: record.applied_at,
        }));
        Ok(list)
    }

    /// Applies what is pending, up to and with `to`, or all.
    ///
    /// # Errors
    /// See [`MigrateError`]. Migrations before the one that failed stay applied.
    pub async fn up(
        &self,
        store: &dyn Store,
        to: Option<u32>,
        options: &MigrateOptions,
    ) -> Result<MigrateOutcome, MigrateError> {
        let to = to.unwrap_or(self.newest());
        if to > self.newest() {
            return Err(MigrateError::NoSuch { version: to, newest: self.newest() });
        }
        let (mut outcome, records) = self.begin(store, options).await?;
        for migration in self.all().iter().filter(|it| it.version <= to && !records.contains_key(&it.version))
        {
            outcome.ran.push(run(store, migration, Way::Up, options).await?);
        }
        Ok(outcome)
    }

    /// Takes back what is applied and newer than `to`, the newest first. 0 takes back everything.
    ///
    /// # Errors
    /// See [`MigrateError`]. Migrations that were taken back before the one that failed stay so.
    pub async fn down(
        &self,
        store: &dyn Store,
        to: u32,
        options: &MigrateOptions,
    ) -> Result<MigrateOutcome, MigrateError> {
        if to > self.newest() {
            return Err(MigrateError::NoSuch { version: to, newest: self.newest() });
        }
        let (mut outcome, records) = self.begin(store, options).await?;
        for migration in
            self.all().iter().rev().filter(|it| it.version > to && records.contains_key(&it.version))
        {
            outcome.ran.push(run(store, migration, Way::Down, options).await?);
        }
        if to == 0 {
            // No migration made these, so none takes them back.
            for name in [CONSTRAINT, crate::lease::CONSTRAINT] {
                store.schema(&format!("DROP CONSTRAINT {name} IF EXISTS")).await?;
            }
        }
        Ok(outcome)
    }

    /// Ends what a killed run left, and refuses a graph that does not fit.
    async fn begin(
        &self,
        store: &dyn Store,
        options: &MigrateOptions,
    ) -> Result<(MigrateOutcome, BTreeMap<u32, Record>), MigrateError> {
        let mut outcome = MigrateOutcome::default();
        let mut found = records(store).await?;
        let running = found.iter().find_map(|(version, record)| Some((*version, record.running.as_ref()?)));
        if let Some((version, Running { down, backup })) = running {
            let name = || found.get(&version).map(|record| record.name.clone()).unwrap_or_default();
            let migration =
                self.get(version).ok_or_else(|| MigrateError::Unknown { version, name: name() })?;
            // The record's checksum is that of the text whose statements ran: only that one's schema can be taken back.
            if found.get(&version).is_some_and(|record| record.checksum != migration.checksum) {
                return Err(MigrateError::Edited { version, name: name() });
            }
            let back = if *down { &migration.up } else { &migration.down };
            let backup = backup.clone();
            undo(store, back, &backup, options).await.map_err(|source| MigrateError::NotRestored {
                version,
                backup: backup.clone(),
                source,
            })?;
            outcome.recovered = Some(backup);
            found = records(store).await?;
        }
        for (version, record) in &found {
            let (version, name) = (*version, record.name.clone());
            match self.get(version) {
                None => return Err(MigrateError::Unknown { version, name }),
                Some(migration) if migration.checksum != record.checksum => {
                    return Err(MigrateError::Edited { version, name });
                }
                Some(_) => {}
            }
            if let Some(missing) = (1..version).find(|before| !found.contains_key(before)) {
                return Err(MigrateError::Gap { applied: version, missing });
            }
        }
        Ok((outcome, found))
    }
}

async fn run(
    store: &dyn Store,
    migration: &Migration,
    way: Way,
    options: &MigrateOptions,
) -> Result<Ran, MigrateError> {
    let (version, name) = (migration.version, migration.name.clone());
    let (script, back) = match way {
        Way::Up => (&migration.up, &migration.down),
        Way::Down => (&migration.down, &migration.up),
    };
    store.schema(&constraint()).await?;
    let backup = match (script.data, &options.backup_dir) {
        (false, _) => None,
        (true, None) => return Err(MigrateError::NoBackupDir { version, name }),
        (true, Some(directory)) => {
            let path = backup_path(directory, migration, way);
            let dumped = dump_to_file(store, options.key_of, &path, Existing::Keep).await;
            dumped.map_err(|source| MigrateError::Backup { version, name: name.clone(), source })?;
            Some(path)
        }
    };
    tracing::info!(target: "pvegraph::migrate", store = store.target(), version, name, ?way, ?backup, "migrating");
    let result = steps(store, migration, script, way, backup.as_deref()).await;
    let Err(source) = result else { return Ok(Ran { version, name, backup }) };
    let Some(backup) = backup else {
        return Err(MigrateError::Failed { version, name, restored: None, source });
    };
    tracing::warn!(target: "pvegraph::migrate", store = store.target(), version, name, error = %source, backup = %backup.display(),
        "the migration failed: restoring");
    match undo(store, back, &backup, options).await {
        Ok(()) => Err(MigrateError::Failed { version, name, restored: Some(backup), source }),
        Err(source) => Err(MigrateError::NotRestored { version, backup, source }),
    }
}

async fn steps(
    store: &dyn Store,
    migration: &Migration,
    script: &Script,
    way: Way,
    backup: Option<&Path>,
) -> Result<(), StoreError> {
    if let Some(backup) = backup {
        store.write(vec![mark_running(migration, way, backup)]).await?;
    }
    for step in &script.steps {
        match step {
            Step::Schema(statement) => store.schema(statement).await?,
            Step::Data(statements) => {
                store.write(statements.iter().cloned().map(Statement::new).collect()).await?;
            }
        }
    }
    store
        .write(vec![match way {
            Way::Up => record_applied(migration),
            Way::Down => Statement::new(format!("MATCH (m:{MIGRATION} {{id: $id}}) DETACH DELETE m"))
                .with("id", migration.id()),
        }])
        .await?;
    store.checkpoint().await
}

/// Takes back a migration that changed data: `back` is the file of the other direction, of which the schema statements are
/// used. Its data statements are not: the dump has what they would compute.
async fn undo(
    store: &dyn Store,
    back: &Script,
    backup: &Path,
    options: &MigrateOptions,
) -> Result<(), DumpError> {
    // What was created goes before the old data comes back, which need not fit it; what was dropped comes after, because the
    // damaged data need not fit that.
    let is_drop = |statement: &&String| statement.get(..4).is_some_and(|it| it.eq_ignore_ascii_case("drop"));
    let statements = || {
        back.steps.iter().filter_map(|step| match step {
            Step::Schema(statement) => Some(statement),
            Step::Data(_) => None,
        })
    };
    for statement in statements().filter(is_drop) {
        store.schema(statement).await?;
    }
    restore_file(store, options.key_of, backup).await?;
    for statement in statements().filter(|it| !is_drop(it)) {
        store.schema(statement).await?;
    }
    store.checkpoint().await?;
    Ok(())
}

fn mark_running(migration: &Migration, way: Way, backup: &Path) -> Statement {
    let text = format!(
        "MERGE (m:{MIGRATION} {{id: $id}})\n\
         SET m.version = $version, m.name = $name, m.checksum = $checksum, m.state = $state, m.backup = $backup"
    );
    let state = match way {
        Way::Up => "running up",
        Way::Down => "running down",
    };
    recorded(text, migration).with("state", state).with("backup", backup.display().to_string())
}

fn record_applied(migration: &Migration) -> Statement {
    let text = format!(
        "MERGE (m:{MIGRATION} {{id: $id}})\n\
         SET m.version = $version, m.name = $name, m.checksum = $checksum, m.state = 'applied', m.backup = null,\n    \
         m.applied_at = $now"
    );
    recorded(text, migration).with("now", jiff::Timestamp::now().as_second())
}

fn recorded(text: String, migration: &Migration) -> Statement {
    Statement::new(text)
        .with("id", migration.id())
        .with("version", migration.version)
        .with("name", migration.name.as_str())
        .with("checksum", migration.checksum.as_str())
}

/// The name of the constraint on migrations' records.
const CONSTRAINT: &str = "pvegraph_migration_key";

/// Records are unique by `id`, in both dialects. A migration may say so too: it is the same constraint then.
fn constraint() -> String {
    format!("CREATE CONSTRAINT {CONSTRAINT} IF NOT EXISTS FOR (m:{MIGRATION}) REQUIRE m.id IS UNIQUE")
}

async fn records(store: &dyn Store) -> Result<BTreeMap<u32, Record>, StoreError> {
    let text = format!(
        "MATCH (m:{MIGRATION}) RETURN m.version AS version, m.name AS name, m.checksum AS checksum, m.state AS state,\n    \
         m.backup AS backup, m.applied_at AS applied_at ORDER BY version"
    );
    let rows = store.read(Statement::new(text)).await?;
    let mut records = BTreeMap::new();
    for at in 0..rows.rows.len() {
        let text = |column| rows.get(at, column).and_then(Value::as_str).unwrap_or_default().to_owned();
        let number = |column| rows.get(at, column).and_then(Value::as_i64);
        let version = number("version").and_then(|it| u32::try_from(it).ok()).unwrap_or_default();
        let running = text("state")
            .strip_prefix("running ")
            .map(|way| Running { down: way == "down", backup: PathBuf::from(text("backup")) });
        let record = Record {
            name: text("name"),
            checksum: text("checksum"),
            applied_at: number("applied_at"),
            running,
        };
        records.insert(version, record);
    }
    Ok(records)
}

/// Sorts by time, and says what it is for.
fn backup_path(directory: &Path, migration: &Migration, way: Way) -> PathBuf {
    let now = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%S%3f");
    let way = match way {
        Way::Up => "up",
        Way::Down => "down",
    };
    // The record names it for a later run, which may be started elsewhere.
    let directory = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
    directory.join(format!("pvegraph-{now}Z-before-{}-{}-{way}.jsonl", id(migration.version), migration.name))
}
