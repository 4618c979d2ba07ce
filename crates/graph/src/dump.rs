//! Logical backup: our nodes and relationships as JSON lines, and back.
//!
//! A dump is taken before a migration that changes data, and is read back when that migration fails. The first line is a
//! header, then one line for each node and each relationship, then a line with both counts, without which a file is
//! refused. Nodes are sorted by label and key, relationships by type and the keys of both ends, so two dumps of the same
//! graph are equal but for the header.
//!
//! # Assumptions
//! - Nobody writes while a dump is taken or read back. A dump checks its counts and fails where that was not so.
//! - A label's key is set and unique. Between two nodes there is one relationship of a type at most.
//! - Properties are strings, integers, finite floats, booleans and lists of them: what a store's JSON says in a string
//!   (temporal values, points, NaN) would come back as one.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::store::{Dialect, Rows, Statement, Store, StoreError, StoreInfo};

/// Labels that begin so are ours; everything else belongs to other tools and is neither dumped nor touched.
pub const OWN_PREFIXES: [&str; 3] = ["Proxmox", "Pvegraph", "Desired"];

/// The properties that identify a node of a label: [`labels::key_of`](crate::labels::key_of). In the embedded store each
/// label's `id` does, whatever this says.
pub type KeyOf = fn(&str) -> Vec<&'static str>;

/// Nodes or relationships for each statement, in both directions: a few megabytes at most.
const PAGE: usize = 5_000;

const FORMAT: &str = "pvegraph-dump";
const VERSION: u32 = 1;

/// Set on the nodes that a restore keeps, and gone with their old properties.
const MARK: &str = "pvegraph_restoring";

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
    /// The graph did not hold still, or a key is absent or not unique.
    #[error(
        "{what}: {counted} counted, {read} read: either something writes to the graph, which must rest, or the key \
         ({key}) is missing on some or not unique"
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
    /// Two nodes with one key, or two relationships of a type between the same nodes: one of them would be lost.
    #[error("{what}: two have the same key ({key}): remove one of them")]
    Duplicate {
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

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Line {
    Header(Header),
    Node(Node),
    Relationship(Relationship),
    End(DumpSummary),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    format: String,
    version: u32,
    dialect: String,
    /// Product, version and edition, for people.
    store: [String; 3],
    /// Epoch seconds.
    created: i64,
}

/// Sorted, so that equal properties are equal text.
type Properties = BTreeMap<String, Value>;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Node {
    labels: Vec<String>,
    properties: Properties,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Relationship {
    #[serde(rename = "type")]
    kind: String,
    from: End,
    to: End,
    properties: Properties,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct End {
    label: String,
    key: Vec<Value>,
}

/// Whether nodes with this label are ours.
pub fn is_ours(label: &str) -> bool {
    OWN_PREFIXES.iter().any(|prefix| label.starts_with(prefix))
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

/// Writes a dump to a file that only its owner can read. The file appears when it is whole and on disk; one that is there is
/// replaced.
///
/// # Errors
/// As [`dump`], or the file can't be written.
pub async fn dump_to_file(store: &dyn Store, key_of: KeyOf, path: &Path) -> Result<DumpSummary, DumpError> {
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
    temporary.persist(path).map_err(|error| failed("renaming it into place")(error.error))?;
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
    let summary = check(dialect(store), input)?;
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
    let file = fs::File::open(path).map_err(|source| DumpError::File {
        path: path.to_owned(),
        action: "opening it",
        source,
    })?;
    restore(store, key_of, &mut BufReader::new(file)).await
}

/// A store with the keys of its labels.
struct Graph<'a> {
    store: &'a dyn Store,
    key_of: KeyOf,
}

impl Graph<'_> {
    /// What nodes of a label are identified by, here.
    fn key(&self, label: &str) -> Vec<&'static str> {
        match self.store.dialect() {
            Dialect::Neo4j => (self.key_of)(label),
            Dialect::Embedded => vec!["id"],
        }
    }

    async fn read(&self, text: String) -> Result<Rows, StoreError> {
        self.store.read(Statement::new(text)).await
    }

    /// Our labels with the number of nodes that are dumped under each: a node with several counts for the first of them.
    async fn labels(&self) -> Result<BTreeMap<String, u64>, StoreError> {
        let rows = self.read("MATCH (n) RETURN labels(n) AS labels, count(*) AS n".to_owned()).await?;
        let mut labels = BTreeMap::new();
        for at in 0..rows.rows.len() {
            if let Some(label) = first_of_ours(rows.get(at, "labels")) {
                *labels.entry(label).or_default() += count(rows.get(at, "n"));
            }
        }
        Ok(labels)
    }

    /// The relationships between our nodes: type, label of the start, label of the end, and how many.
    async fn relationship_types(&self) -> Result<BTreeMap<(String, String, String), u64>, StoreError> {
        let text = "MATCH (a)-[r]->(b) RETURN labels(a) AS a, type(r) AS type, labels(b) AS b, count(*) AS n";
        let rows = self.read(text.to_owned()).await?;
        let mut types = BTreeMap::new();
        for at in 0..rows.rows.len() {
            let kind = rows.get(at, "type").and_then(Value::as_str);
            let ends = (first_of_ours(rows.get(at, "a")), first_of_ours(rows.get(at, "b")));
            if let (Some(kind), (Some(from), Some(to))) = (kind, ends) {
                *types.entry((kind.to_owned(), from, to)).or_default() += count(rows.get(at, "n"));
            }
        }
        Ok(types)
    }

    async fn dump_nodes(&self, label: &str, out: &mut (impl Write + Send)) -> Result<u64, DumpError> {
        let key = self.key(label);
        let fields: Vec<String> = key.iter().map(|name| format!("n.{}", quoted(name))).collect();
        let mut written = 0;
        let mut last: Option<Vec<Value>> = None;
        loop {
            let text = format!(
                "MATCH (n:{}) {}\nRETURN n, {} ORDER BY {} LIMIT $limit",
                quoted(label),
                after(&fields, last.is_some()),
                aliased(&fields),
                ordered(&fields),
            );
            let rows = self.store.read(page(text, last.as_deref())).await?;
            for row in &rows.rows {
                let keys = row.get(1..).unwrap_or_default();
                unlike(label, &key, &mut last, keys)?;
                let node: Node = match row.first().map(|node| serde_json::from_value(node.clone())) {
                    Some(Ok(node)) => node,
                    _ => continue,
                };
                let Node { mut labels, properties } = node;
                labels.sort();
                if labels.iter().find(|it| is_ours(it)).map(String::as_str) == Some(label) {
                    put(out, &Line::Node(Node { labels, properties }))?;
                    written += 1;
                }
            }
            if rows.rows.len() < PAGE {
                return Ok(written);
            }
        }
    }

    async fn dump_relationships(
        &self,
        kind: &str,
        from: &str,
        to: &str,
        out: &mut (impl Write + Send),
    ) -> Result<u64, DumpError> {
        let (from_key, to_key) = (self.key(from), self.key(to));
        let fields: Vec<String> = (from_key.iter().map(|name| format!("a.{}", quoted(name))))
            .chain(to_key.iter().map(|name| format!("b.{}", quoted(name))))
            .collect();
        let mut written = 0;
        let mut last: Option<Vec<Value>> = None;
        loop {
            let text = format!(
                "MATCH (a:{})-[r:{}]->(b:{}) {}\nRETURN labels(a) AS la, labels(b) AS lb, r, {} ORDER BY {} LIMIT $limit",
                quoted(from),
                quoted(kind),
                quoted(to),
                after(&fields, last.is_some()),
                aliased(&fields),
                ordered(&fields),
            );
            let rows = self.store.read(page(text, last.as_deref())).await?;
            for row in &rows.rows {
                let [from_labels, to_labels, relationship, keys @ ..] = row.as_slice() else { continue };
                unlike(kind, &fields, &mut last, keys)?;
                if first_of_ours(Some(from_labels)).as_deref() != Some(from)
                    || first_of_ours(Some(to_labels)).as_deref() != Some(to)
                {
                    continue;
                }
                let (from_values, to_values) = keys.split_at(from_key.len().min(keys.len()));
                let properties = relationship.get("properties").and_then(Value::as_object);
                let properties = properties.into_iter().flatten().map(|(k, v)| (k.clone(), v.clone()));
                put(
                    out,
                    &Line::Relationship(Relationship {
                        kind: kind.to_owned(),
                        from: End { label: from.to_owned(), key: from_values.to_vec() },
                        to: End { label: to.to_owned(), key: to_values.to_vec() },
                        properties: properties.collect(),
                    }),
                )?;
                written += 1;
            }
            if rows.rows.len() < PAGE {
                return Ok(written);
            }
        }
    }

    async fn delete_relationships(&self) -> Result<(), StoreError> {
        for (kind, from, to) in self.relationship_types().await?.into_keys() {
            let text = format!(
                "MATCH (:{})-[r:{}]->(:{}) WITH r LIMIT $limit DELETE r RETURN count(*) AS n",
                quoted(&from),
                quoted(&kind),
                quoted(&to)
            );
            self.until_none(&Statement::new(text)).await?;
        }
        Ok(())
    }

    async fn delete_unmarked(&self, mark: &str) -> Result<(), StoreError> {
        for label in self.labels().await?.into_keys() {
            let text = format!(
                "MATCH (n:{}) WHERE n.{MARK} IS NULL OR n.{MARK} <> $mark WITH n LIMIT $limit\n\
                 DETACH DELETE n RETURN count(*) AS n",
                quoted(&label)
            );
            self.until_none(&Statement::new(text).with("mark", mark)).await?;
        }
        Ok(())
    }

    async fn until_none(&self, statement: &Statement) -> Result<(), StoreError> {
        loop {
            let statement = statement.clone().with("limit", PAGE);
            let answers = self.store.write(vec![statement]).await?;
            if answers.first().is_none_or(|rows| count(rows.get(0, "n")) == 0) {
                return Ok(());
            }
        }
    }

    /// Marks the nodes that are in the dump, and strips them to their keys: what is left of a damaged graph then stands in
    /// no constraint's way.
    async fn mark(&self, nodes: &[Node], mark: &str) -> Result<(), StoreError> {
        let Some((labels, key)) = self.kind(nodes) else { return Ok(()) };
        let rows: Vec<Value> = nodes
            .iter()
            .map(|node| {
                let mut row: Properties =
                    key.iter().map(|name| ((*name).to_owned(), value(node, name))).collect();
                row.insert(MARK.to_owned(), Value::from(mark));
                json!(row)
            })
            .collect();
        let text = format!(
            "UNWIND $rows AS row MATCH (n:{} {})\n\
             WHERE size(labels(n)) = {} AND all(label IN $labels WHERE label IN labels(n))\nSET n = row",
            quoted(labels.iter().find(|label| is_ours(label)).map_or("", String::as_str)),
            pattern("row", &key),
            labels.len(),
        );
        let statement = Statement::new(text).with("rows", rows).with("labels", json!(labels));
        self.store.write(vec![statement]).await.map(drop)
    }

    async fn restore_nodes(&self, nodes: Vec<Node>) -> Result<(), StoreError> {
        let Some((labels, mut merged)) = self.kind(&nodes) else { return Ok(()) };
        let first = labels.iter().find(|label| is_ours(label)).cloned().unwrap_or_default();
        let embedded = self.store.dialect() == Dialect::Embedded;
        if embedded {
            // That engine checks a composite constraint for every node when its properties come after the MERGE.
            let own = (self.key_of)(&first).into_iter();
            merged.extend(
                own.filter(|name| *name != "id" && nodes.iter().all(|node| !value(node, name).is_null())),
            );
        }
        let text = format!(
            "UNWIND $rows AS row MERGE (n:{} {})\nSET n = row{}",
            quoted(&first),
            pattern("row", &merged),
            labels
                .iter()
                .filter(|label| **label != first)
                .map(|label| format!(" SET n:{}", quoted(label)))
                .collect::<String>(),
        );
        let rows = nodes.into_iter().map(|mut node| {
            if embedded {
                // It invents a name where none was ever given.
                node.properties.entry("name".to_owned()).or_insert(Value::Null);
            }
            json!(node.properties)
        });
        self.store.write(vec![Statement::new(text).with("rows", rows.collect::<Vec<_>>())]).await.map(drop)
    }

    async fn restore_relationships(&self, relationships: Vec<Relationship>) -> Result<(), DumpError> {
        let Some(Relationship { kind, from, to, .. }) = relationships.first() else { return Ok(()) };
        let end = |end: &End| -> Properties {
            self.key(&end.label).into_iter().map(str::to_owned).zip(end.key.iter().cloned()).collect()
        };
        let text = format!(
            "UNWIND $rows AS row MATCH (a:{} {}) MATCH (b:{} {})\n\
             MERGE (a)-[r:{}]->(b) SET r = row.properties RETURN count(r) AS n",
            quoted(&from.label),
            pattern("row.from", &self.key(&from.label)),
            quoted(&to.label),
            pattern("row.to", &self.key(&to.label)),
            quoted(kind),
        );
        let rows: Vec<Value> = relationships
            .iter()
            .map(|it| json!({ "from": end(&it.from), "to": end(&it.to), "properties": it.properties }))
            .collect();
        let expected = rows.len() as u64;
        let answers = self.store.write(vec![Statement::new(text).with("rows", rows)]).await?;
        let made = answers.first().map_or(0, |rows| count(rows.get(0, "n")));
        match made == expected {
            true => Ok(()),
            false => Err(DumpError::EndMissing { kind: kind.clone(), expected, made }),
        }
    }

    /// The labels that all these nodes have, and the key of the first of ours.
    fn kind<'n>(&self, nodes: &'n [Node]) -> Option<(&'n [String], Vec<&'static str>)> {
        let labels = nodes.first()?.labels.as_slice();
        let first = labels.iter().find(|label| is_ours(label))?;
        Some((labels, self.key(first)))
    }
}

fn dialect(store: &dyn Store) -> &'static str {
    match store.dialect() {
        Dialect::Neo4j => "neo4j",
        Dialect::Embedded => "embedded",
    }
}

fn put(out: &mut impl Write, line: &Line) -> Result<(), DumpError> {
    serde_json::to_writer(&mut *out, line)
        .map_err(io::Error::from)
        .and_then(|()| out.write_all(b"\n"))
        .map_err(|source| DumpError::File { path: PathBuf::new(), action: "writing the dump", source })
}

fn even(what: &str, key: &[&str], counted: u64, read: u64) -> Result<(), DumpError> {
    match counted == read {
        true => Ok(()),
        false => Err(DumpError::Uneven { what: what.to_owned(), key: key.join(", "), counted, read }),
    }
}

/// Rows come sorted by key, so equal ones are neighbours.
fn unlike(
    what: &str,
    names: &[impl AsRef<str>],
    last: &mut Option<Vec<Value>>,
    keys: &[Value],
) -> Result<(), DumpError> {
    if last.as_deref() == Some(keys) {
        let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
        return Err(DumpError::Duplicate { what: what.to_owned(), key: names.join(", ") });
    }
    *last = Some(keys.to_vec());
    Ok(())
}

fn count(value: Option<&Value>) -> u64 {
    value.and_then(Value::as_u64).unwrap_or_default()
}

fn value(node: &Node, name: &str) -> Value {
    node.properties.get(name).cloned().unwrap_or_default()
}

fn first_of_ours(labels: Option<&Value>) -> Option<String> {
    labels?
        .as_array()?
        .iter()
        .filter_map(Value::as_str)
        .filter(|label| is_ours(label))
        .min()
        .map(str::to_owned)
}

/// A name from the graph or from a file, as an identifier that can't be anything else.
fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// `{a: row.a, b: row.b}`
fn pattern(row: &str, names: &[&str]) -> String {
    let fields: Vec<String> =
        names.iter().map(|name| quoted(name)).map(|name| format!("{name}: {row}.{name}")).collect();
    format!("{{{}}}", fields.join(", "))
}

fn aliased(fields: &[String]) -> String {
    let aliased: Vec<String> =
        fields.iter().enumerate().map(|(at, field)| format!("{field} AS k{at}")).collect();
    aliased.join(", ")
}

fn ordered(fields: &[String]) -> String {
    let names: Vec<String> = (0..fields.len()).map(|at| format!("k{at}")).collect();
    names.join(", ")
}

/// The condition for what comes after the last row of the page before: `a > $k0 OR (a = $k0 AND b > $k1)`.
fn after(fields: &[String], any: bool) -> String {
    if !any {
        return String::new();
    }
    let steps: Vec<String> = (0..fields.len())
        .map(|step| {
            let equal =
                fields.iter().take(step).enumerate().map(|(at, field)| format!("{field} = $k{at} AND "));
            let greater = fields.get(step).map(|field| format!("{field} > $k{step}")).unwrap_or_default();
            format!("({}{greater})", equal.collect::<String>())
        })
        .collect();
    format!("WHERE {}", steps.join(" OR "))
}

fn page(text: String, last: Option<&[Value]>) -> Statement {
    let mut statement = Statement::new(text).with("limit", PAGE);
    for (at, value) in last.unwrap_or_default().iter().enumerate() {
        statement = statement.with(format!("k{at}"), value.clone());
    }
    statement
}

/// Reads the whole dump once, without keeping it.
fn check<R: BufRead + Seek>(dialect: &str, input: &mut R) -> Result<DumpSummary, DumpError> {
    let mut found = DumpSummary::default();
    let mut end = None;
    let mut number = 0;
    let damaged = |line, reason: String| DumpError::Damaged { line, reason };
    for line in lines(input)? {
        number += 1;
        let line = line?;
        if end.is_some() {
            return Err(damaged(number, "there is more after its end".to_owned()));
        }
        match line {
            Line::Header(header) if number == 1 => {
                if header.format != FORMAT || header.version != VERSION {
                    let reason =
                        format!("it is {} {}, not {FORMAT} {VERSION}", header.format, header.version);
                    return Err(damaged(number, reason));
                }
                if header.dialect != dialect {
                    return Err(damaged(
                        number,
                        format!(
                            "it comes from the {} store, whose keys are not those of the {dialect} store: restore it there",
                            header.dialect
                        ),
                    ));
                }
            }
            _ if number == 1 => return Err(damaged(number, "it is not a header".to_owned())),
            Line::Header(_) => return Err(damaged(number, "it is a second header".to_owned())),
            Line::Node(node) if found.relationships == 0 && node.labels.iter().any(|it| is_ours(it)) => {
                found.nodes += 1;
            }
            Line::Node(_) => {
                return Err(damaged(number, "it is a node that is not ours, or too late".to_owned()));
            }
            Line::Relationship(it) if is_ours(&it.from.label) && is_ours(&it.to.label) => {
                found.relationships += 1
            }
            Line::Relationship(_) => return Err(damaged(number, "one of its ends is not ours".to_owned())),
            Line::End(summary) => end = Some(summary),
        }
    }
    match end {
        Some(end) if end == found => Ok(found),
        Some(end) => Err(damaged(
            number,
            format!(
                "it counts {} nodes and {} relationships, and {} and {} are there",
                end.nodes, end.relationships, found.nodes, found.relationships
            ),
        )),
        None => Err(damaged(number, "the dump is cut off after it".to_owned())),
    }
}

/// The dump's lines from its beginning.
fn lines<R: BufRead + Seek>(
    input: &mut R,
) -> Result<impl Iterator<Item = Result<Line, DumpError>>, DumpError> {
    let failed = |source| DumpError::File { path: PathBuf::new(), action: "reading the dump", source };
    input.seek(SeekFrom::Start(0)).map_err(failed)?;
    Ok(input.lines().enumerate().map(move |(at, line)| {
        let line = line.map_err(failed)?;
        // The parser's message may repeat the line, which is data.
        serde_json::from_str(&line).map_err(|error| DumpError::Damaged {
            line: at + 1,
            reason: format!(
                "it is not a line of a dump ({:?} in column {})",
                error.classify(),
                error.column()
            ),
        })
    }))
}

trait Batched: Sized {
    /// Whether both can go into one statement.
    fn like(&self, other: &Self) -> bool;
    fn of(line: Line) -> Option<Self>;
}

impl Batched for Node {
    fn like(&self, other: &Self) -> bool {
        self.labels == other.labels
    }

    fn of(line: Line) -> Option<Self> {
        match line {
            Line::Node(node) => Some(node),
            _ => None,
        }
    }
}

impl Batched for Relationship {
    fn like(&self, other: &Self) -> bool {
        self.kind == other.kind && self.from.label == other.from.label && self.to.label == other.to.label
    }

    fn of(line: Line) -> Option<Self> {
        match line {
            Line::Relationship(relationship) => Some(relationship),
            _ => None,
        }
    }
}

/// The dump's nodes, or its relationships, in batches that each fit one statement.
fn batches<T: Batched, R: BufRead + Seek>(
    input: &mut R,
) -> Result<impl Iterator<Item = Result<Vec<T>, DumpError>>, DumpError> {
    let mut items = lines(input)?
        .filter_map(|line| match line {
            Ok(line) => T::of(line).map(Ok),
            Err(error) => Some(Err(error)),
        })
        .peekable();
    Ok(std::iter::from_fn(move || {
        let mut batch = match items.next()? {
            Ok(first) => vec![first],
            Err(error) => return Some(Err(error)),
        };
        while batch.len() < PAGE
            && let Some(next) = items.next_if(|next| match (next, batch.first()) {
                (Ok(next), Some(first)) => first.like(next),
                _ => false,
            })
        {
            match next {
                Ok(next) => batch.push(next),
                Err(error) => return Some(Err(error)),
            }
        }
        Some(Ok(batch))
    }))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    const HEADER: &str = r#"{"header":{"format":"pvegraph-dump","version":1,"dialect":"neo4j","store":["","",""],"created":1}}"#;
    const NODE: &str =
        r#"{"node":{"labels":["ProxmoxVM"],"properties":{"cpu":0.30000000000000004,"n":1,"x":1.0}}}"#;

    fn checked(lines: &[&str]) -> Result<DumpSummary, String> {
        check("neo4j", &mut Cursor::new(lines.join("\n"))).map_err(|error| error.to_string())
    }

    #[test]
    fn a_whole_dump_is_counted() {
        let relationship = r#"{"relationship":{"type":"T","from":{"label":"ProxmoxVM","key":[1]},"to":{"label":"DesiredVM","key":["a",2]},"properties":{}}}"#;
        let end = r#"{"end":{"nodes":1,"relationships":1}}"#;
        assert_eq!(
            checked(&[HEADER, NODE, relationship, end]),
            Ok(DumpSummary { nodes: 1, relationships: 1 })
        );
    }

    #[test]
    fn what_is_no_whole_dump_is_refused_and_not_repeated() {
        let end = r#"{"end":{"nodes":1,"relationships":0}}"#;
        let embedded = HEADER.replace(r#""dialect":"neo4j""#, r#""dialect":"embedded""#);
        let foreign = NODE.replace("ProxmoxVM", "Person");
        for (lines, reason) in [
            (vec![HEADER, NODE], "line 2 of the dump: the dump is cut off"),
            (vec![HEADER, end], "counts 1 nodes"),
            (vec![HEADER, NODE, NODE, end], "2 and 0 are there"),
            (vec![HEADER, NODE, end, NODE], "more after its end"),
            (vec![NODE, end], "line 1 of the dump: it is not a header"),
            (vec![HEADER, HEADER], "second header"),
            (vec![&embedded], "comes from the embedded store"),
            (vec![HEADER, &foreign, end], "not ours"),
            (
                vec![HEADER, r#"{"node":{"labels":["ProxmoxVM"],"properties":"hunter2"}}"#],
                "line 2 of the dump: it is not a line",
            ),
            (vec![HEADER, r#"{"node":"#], "not a line of a dump"),
            (vec![""], "line 0"),
        ] {
            let error = checked(&lines).unwrap_err();
            assert!(error.contains(reason), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_node_s_line_is_the_same_after_reading_it() {
        let Line::Node(node) = serde_json::from_str(NODE).unwrap() else { panic!("no node") };
        assert_eq!(serde_json::to_string(&Line::Node(node)).unwrap(), NODE);
    }

    #[test]
    fn a_batch_holds_what_one_statement_can_write() {
        let other = NODE.replace("ProxmoxVM", "ProxmoxNode");
        let mut lines = vec![HEADER, &other];
        lines.extend(vec![NODE; PAGE + 1]);
        let mut input = Cursor::new(lines.join("\n"));
        let sizes: Vec<usize> =
            batches::<Node, _>(&mut input).unwrap().map(|batch| batch.unwrap().len()).collect();
        assert_eq!(sizes, [1, PAGE, 1]);
    }

    #[test]
    fn names_can_not_leave_their_place() {
        assert_eq!(quoted("a` DELETE n //"), "`a`` DELETE n //`");
        assert_eq!(
            pattern("row", &["cluster_id", "vmid"]),
            "{`cluster_id`: row.`cluster_id`, `vmid`: row.`vmid`}"
        );
    }

    #[test]
    fn a_page_goes_on_after_the_last_key() {
        let fields = ["n.a".to_owned(), "n.b".to_owned()];
        assert_eq!(after(&fields, true), "WHERE (n.a > $k0) OR (n.a = $k0 AND n.b > $k1)");
        assert_eq!(after(&fields, false), "");
    }
}
