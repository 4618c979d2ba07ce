//! Logical backup: our nodes and relationships as JSON lines, and back.
//!
//! A dump is taken before a migration that changes data, and is read back when that migration fails. The first line is a
//! header, then one line for each node and each relationship, then a line with both counts, without which a file is
//! refused. Nodes are sorted by label and key, relationships by type, the keys of both ends and their own properties, so
//! two dumps of the same graph are equal but for the header. Relationships have no key: any number of one type can be
//! between two nodes, and as many come back.
//!
//! The lease is left alone in both directions: it belongs to the process that runs, often the very one that restores.
//!
//! # Assumptions
//! - Nobody writes while a dump is taken or read back. A dump checks its counts and fails where that was not so.
//! - A label's key is set and unique.
//! - The relationships of one type between two nodes fit into memory, however many pages they are.
//! - Properties are strings, integers, finite floats, booleans and lists of them: what a store's JSON says in a string
//!   (temporal values, points, NaN) would come back as one.

mod graph;
mod lines;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use self::graph::Graph;
use self::lines::{FORMAT, Header, Line, Node, Relationship, VERSION, batches, check, put};
use crate::desired_labels;
use crate::labels::{MIGRATION, SYNC_RUN, key_of, labels};
use crate::store::{Dialect, Store, StoreError, StoreInfo};

/// Which labels are ours, and the properties that identify a node of each: [`own_key`]. Where it answers nothing, the label
/// belongs to another tool, and its nodes are neither dumped nor touched. In the embedded store each label's `id` identifies,
/// whatever this says.
pub type KeyOf = fn(&str) -> Option<Vec<&'static str>>;

static OWN: LazyLock<BTreeMap<&'static str, Vec<&'static str>>> = LazyLock::new(|| {
    let filled = labels().into_iter().chain(desired_labels::labels()).map(|table| table.name);
    filled.chain([SYNC_RUN, MIGRATION]).map(|label| (label, key_of(label))).collect()
});

/// The key of a label that pvegraph itself writes, by its exact name: other tools have labels that begin alike. The lease is
/// none of them: it is the state of a running process.
pub fn own_key(label: &str) -> Option<Vec<&'static str>> {
    OWN.get(label).cloned()
}

/// Nodes or relationships for each statement, in both directions: a few megabytes at most.
const PAGE: usize = 5_000;

/// What a dump holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DumpSummary {
    /// How many nodes.
    pub nodes: u64,
    /// How many relationships.
    pub relationships: u64,
}

/// Why a dump could not be taken or read back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DumpError {
    /// The store failed.
    #[error("the graph could not be dumped or restored")]
    Store(#[from] StoreError),
    /// The file could not be read or written.
    #[error("{}: {action} failed", path.display())]
    File {
        /// The file, or its directory; empty where it is not a file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The file is there and is to stay.
    #[error("{} is there already: name another file, or replace it with --force", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The graph did not hold still.
    #[error(
        "{what}: {counted} counted, {read} read by {key}: something writes to the graph, which must rest meanwhile"
    )]
    Uneven {
        /// The label or relationship type.
        what: String,
        /// What identifies it.
        key: String,
        /// As counted by the store.
        counted: u64,
        /// As read page by page.
        read: u64,
    },
    /// Two nodes with one key: one of them would be lost.
    #[error("{what}: two have the same key ({key}): remove one of them")]
    Duplicate {
        /// The label.
        what: String,
        /// What should identify it.
        key: String,
    },
    /// A node without its key: it could not be found again.
    #[error("{what}: one lacks its key ({key}): set it, or remove that node")]
    NoKey {
        /// The label or relationship type.
        what: String,
        /// What should identify it.
        key: String,
    },
    /// Not a whole dump of this format. Nothing was changed.
    #[error("line {line} of the dump: {reason}. Nothing was restored")]
    Damaged {
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// A relationship's end was not found again: the dump contradicts itself.
    #[error("{expected} relationships {kind} were to be restored and only {made} have both their nodes")]
    EndMissing {
        /// The relationship type.
        kind: String,
        /// In the dump.
        expected: u64,
        /// Made.
        made: u64,
    },
}

/// Writes our part of the graph to `out`, a page at a time.
///
/// # Errors
/// See [`DumpError`]. What was written until then is no dump: its last line is missing.
pub async fn dump<W>(store: &dyn Store, key_of: KeyOf, out: &mut W) -> Result<DumpSummary, DumpError>
where
    W: Write + Send,
{
    let StoreInfo { product, version, edition } = store.info().await?;
    let graph = Graph { store, key_of };
    put(
        out,
        &Line::Header(Header {
            format: FORMAT.to_owned(),
            version: VERSION,
            dialect: dialect(store).to_owned(),
            store: [product, version, edition],
            created: jiff::Timestamp::now().as_second(),
        }),
    )?;
    let mut summary = DumpSummary::default();
    for (label, counted) in graph.labels().await? {
        let read = graph.dump_nodes(&label, out).await?;
        even(&label, &graph.key(&label), counted, read)?;
        summary.nodes += read;
    }
    for ((kind, from, to), counted) in graph.relationship_types().await? {
        let read = graph.dump_relationships(&kind, &from, &to, out).await?;
        even(&format!("({from})-[{kind}]->({to})"), &graph.key(&to), counted, read)?;
        summary.relationships += read;
    }
    put(out, &Line::End(summary))?;
    Ok(summary)
}

/// What becomes of a file that has the dump's name already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// It stays, and there is no dump.
    Keep,
    /// It is replaced when the dump is whole.
    Replace,
}

/// Writes a dump to a file that only its owner can read. The file appears when it is whole and on disk.
///
/// # Errors
/// As [`dump`], or the file is there and stays, or it can't be written.
pub async fn dump_to_file(
    store: &dyn Store,
    key_of: KeyOf,
    path: &Path,
    existing: Existing,
) -> Result<DumpSummary, DumpError> {
    // Told before the work as well as after it, when somebody else may have made the file.
    if existing == Existing::Keep && path.symlink_metadata().is_ok() {
        return Err(DumpError::Exists { path: path.to_owned() });
    }
    let failed = |action| move |source: io::Error| DumpError::File { path: path.to_owned(), action, source };
    let directory = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    // A temporary file of this library is readable by its owner only, and gone unless it is kept.
    let mut temporary = tempfile::NamedTempFile::new_in(directory).map_err(failed("creating it"))?;
    let mut out = BufWriter::new(temporary.as_file_mut());
    let summary = dump(store, key_of, &mut out).await?;
    out.flush().map_err(failed("writing"))?;
    drop(out);
    temporary.as_file().sync_all().map_err(failed("writing"))?;
    let kept = match existing {
        Existing::Keep => temporary.persist_noclobber(path),
        Existing::Replace => temporary.persist(path),
    };
    kept.map_err(|error| match error.error.kind() {
        io::ErrorKind::AlreadyExists => DumpError::Exists { path: path.to_owned() },
        _ => failed("renaming it into place")(error.error),
    })?;
    File::open(directory).and_then(|it| it.sync_all()).map_err(failed("writing its directory"))?;
    Ok(summary)
}

/// Makes our part of the graph equal to the dump. The whole dump is checked before anything is changed.
///
/// Nodes that are in both are changed in place, so that other tools' relationships to them stay. It is no single
/// transaction: after a failure the graph is neither the one nor the other, and reading the same dump again mends it.
///
/// # Errors
/// See [`DumpError`].
pub async fn restore<R>(store: &dyn Store, key_of: KeyOf, input: &mut R) -> Result<DumpSummary, DumpError>
where
    R: BufRead + Seek + Send,
{
    let graph = Graph { store, key_of };
    let summary = check(dialect(store), key_of, input)?;
    graph.delete_relationships().await?;
    let mark = jiff::Timestamp::now().as_nanosecond().to_string();
    for nodes in batches::<Node, R>(input)? {
        graph.mark(&nodes?, &mark).await?;
    }
    graph.delete_unmarked(&mark).await?;
    for nodes in batches::<Node, R>(input)? {
        graph.restore_nodes(nodes?).await?;
    }
    for relationships in batches::<Relationship, R>(input)? {
        graph.restore_relationships(relationships?).await?;
    }
    store.checkpoint().await?;
    Ok(summary)
}

/// [`restore`] from a file.
///
/// # Errors
/// As [`restore`], or the file can't be read.
pub async fn restore_file(store: &dyn Store, key_of: KeyOf, path: &Path) -> Result<DumpSummary, DumpError> {
    restore(store, key_of, &mut open(path)?).await
}

/// Whether a file is a whole dump of this kind of store, and what it holds. Changes nothing.
///
/// # Errors
/// It is none, or it can't be read.
pub fn check_file(store: &dyn Store, key_of: KeyOf, path: &Path) -> Result<DumpSummary, DumpError> {
    check(dialect(store), key_of, &mut open(path)?)
}

fn open(path: &Path) -> Result<BufReader<File>, DumpError> {
    let failed = |source| DumpError::File { path: path.to_owned(), action: "opening it", source };
    File::open(path).map(BufReader::new).map_err(failed)
}

fn dialect(store: &dyn Store) -> &'static str {
    match store.dialect() {
        Dialect::Neo4j => "neo4j",
        Dialect::Embedded => "embedded",
    }
}

fn even(what: &str, key: &[&str], counted: u64, read: u64) -> Result<(), DumpError> {
    match counted == read {
        true => Ok(()),
        false => Err(DumpError::Uneven { what: what.to_owned(), key: key.join(", "), counted, read }),
    }
}
