//! What a run tells the graph's history: which rows came, went or changed, told in the transaction that writes them.

use std::collections::BTreeMap;

use pvegraph_graph::changes::{self, Change, ChangeType, follows};
use pvegraph_graph::cypher::Writer;
use pvegraph_graph::labels::{
    BACKUP_JOB, CHANGE, CLUSTER, DISK, GUEST, Label, NIC, NODE, NodeRow, Relationship, RelationshipRow,
    SNAPSHOT, STORAGE,
};
use pvegraph_graph::{Statement, Store, StoreError};
use serde_json::{Map, Value};

use crate::load::Loader;

/// Changes of a cluster that are kept at least: more are pruned by their age alone.
const KEPT: u64 = 5_000;
/// Or as many for each of its guests, where that is more.
const KEPT_PER_GUEST: u64 = 20;
/// Changes pruned in one transaction.
const PRUNED: usize = 5_000;
const SECONDS_PER_DAY: i64 = 86_400;

/// How long the history is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Changes that are older than this many days are pruned.
    pub days: u32,
}

impl Default for Retention {
    fn default() -> Self {
        Self { days: 180 }
    }
}

/// Properties that no observation tells to be absent: one that the graph lacks was not seen before, which is no change.
const SEEN_LATE: [&str; 10] = [
    "ca_fingerprint",
    "cpu_count",
    "ip",
    "name",
    "nodes_online",
    "onboot",
    "quorate",
    "tags",
    "template",
    "version",
];

/// Whether a guest's configuration was read before: it says in each case whether the guest starts with its node.
pub fn was_read(guest: &Map<String, Value>) -> bool {
    guest.get("onboot").is_some_and(|value| !value.is_null())
}

/// A label and its key.
#[derive(Debug, Clone, Copy)]
pub struct Of {
    /// The label.
    pub label: &'static str,
    /// The properties of its key, without the cluster.
    pub key: &'static [&'static str],
}

impl<T> From<&Label<T>> for Of {
    fn from(label: &Label<T>) -> Self {
        Self { label: label.name, key: label.key }
    }
}

/// The changes of one transaction.
#[derive(Debug)]
pub struct Told {
    at: i64,
    /// Nothing is told: a dry run, or a cluster's first run.
    is_silent: bool,
    rows: Vec<NodeRow>,
    ends: BTreeMap<&'static str, Vec<RelationshipRow>>,
}

impl Told {
    /// Nothing yet. `at` is the run's tag.
    pub fn new(at: i64, is_silent: bool) -> Self {
        Self { at, is_silent, rows: Vec::new(), ends: BTreeMap::new() }
    }

    fn tell(&mut self, label: Of, key: &[Value], name: Option<&Value>, change: What) {
        if self.is_silent {
            return;
        }
        let Of { label, key: names } = label;
        let vmid = names.first().filter(|name| **name == "vmid").and_then(|_| key.first()?.as_i64());
        let What { kind, field, old, new } = change;
        let name = name.and_then(Value::as_str).map(str::to_owned);
        let change = Change { at: self.at, kind, label, key: key.to_vec(), vmid, name, field, old, new };
        self.rows.push(changes::row(&change));
        if kind != ChangeType::Deleted {
            self.ends.entry(label).or_default().push(changes::end(&change));
        }
    }

    /// A thing is in the graph from now on.
    pub fn created<T>(&mut self, label: &Label<T>, row: &NodeRow) {
        self.tell(label.into(), &row.key, row.set.get("name"), What::of(ChangeType::Created));
    }

    /// A thing was proven gone; `name` is what it was called.
    pub fn deleted(&mut self, label: Of, key: &[Value], name: Option<&Value>) {
        self.tell(label, key, name, What::of(ChangeType::Deleted));
    }

    /// A thing was `before`, and is as the row says.
    pub fn updated<T>(&mut self, label: &Label<T>, before: &Map<String, Value>, row: &NodeRow) {
        if self.is_silent {
            return;
        }
        let is_new_to_us = label.name == GUEST.name && !was_read(before);
        for column in
            label.columns.iter().filter(|column| !column.metric && !follows(label.name, column.name))
        {
            let Some(new) = row.set.get(column.name) else { continue };
            let old = before.get(column.name).unwrap_or(&Value::Null);
            let is_first_look = old.is_null() && (is_new_to_us || SEEN_LATE.contains(&column.name));
            if old == new || is_first_look {
                continue;
            }
            let migrated = label.name == GUEST.name && column.name == "node";
            let kind = if migrated { ChangeType::Migrated } else { ChangeType::Updated };
            let name = row.set.get("name").or_else(|| before.get("name"));
            let what = What { kind, field: Some(column.name), old: old.clone(), new: new.clone() };
            self.tell(label.into(), &row.key, name, what);
        }
    }

    /// Writes them. The things themselves are written before, in the same transaction.
    pub fn statements(self, writer: Writer<'_>) -> Vec<Statement> {
        if self.rows.is_empty() {
            return Vec::new();
        }
        let mut statements = vec![writer.upsert(&CHANGE, self.rows)];
        let ends = self.ends.into_iter();
        statements.extend(ends.filter_map(|(label, rows)| Some(writer.relate(&to(label)?, rows))));
        statements
    }
}

/// What is told of a thing.
struct What {
    kind: ChangeType,
    field: Option<&'static str>,
    old: Value,
    new: Value,
}

impl What {
    fn of(kind: ChangeType) -> Self {
        Self { kind, field: None, old: Value::Null, new: Value::Null }
    }
}

/// The relationship to what changed, by its label.
fn to(label: &str) -> Option<Relationship> {
    let all = [
        changes::changed(&CLUSTER),
        changes::changed(&NODE),
        changes::changed(&STORAGE),
        changes::changed(&GUEST),
        changes::changed(&DISK),
        changes::changed(&NIC),
        changes::changed(&SNAPSHOT),
        changes::changed(&BACKUP_JOB),
    ];
    all.into_iter().find(|kind| kind.to == label)
}

/// Whether a cluster was synced to the end before: what a first run finds is no change.
///
/// # Errors
/// The store failed.
pub async fn is_known(store: &dyn Store, writer: Writer<'_>) -> Result<bool, StoreError> {
    let rows = store.read(changes::seen_before(writer.cluster)).await?;
    Ok(rows.get(0, "seen").and_then(Value::as_bool).unwrap_or(false))
}

/// Deletes what is older than is kept, and says on the cluster since when its changes are known. Those of this run stay.
///
/// # Errors
/// The store failed; the next run prunes the rest.
pub async fn prune(loader: Loader<'_>, retention: Retention) -> Result<(), StoreError> {
    let Writer { dialect, cluster, tag } = loader.writer;
    if loader.lease.is_none() {
        return Ok(());
    }
    loader.write(vec![changes::known_since(dialect, cluster, tag)]).await?;
    let kept = KEPT.max(KEPT_PER_GUEST * loader.total(GUEST.name).await?);
    let beyond = loader.store.read(changes::beyond(cluster, kept)).await?;
    let beyond = beyond.get(0, "at").and_then(Value::as_i64).map_or(i64::MIN, |at| at.saturating_add(1));
    let before = tag.saturating_sub(i64::from(retention.days) * SECONDS_PER_DAY).max(beyond).min(tag);
    loop {
        let pruned = loader.store.read(changes::any_before(cluster, before)).await?;
        if pruned.rows.is_empty() {
            return Ok(());
        }
        loader
            .write(vec![
                changes::forgotten_before(dialect, cluster, before),
                changes::prune(cluster, before, PRUNED),
            ])
            .await?;
    }
}
