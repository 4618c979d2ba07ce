//! What a run tells the graph's history: which rows came, went or changed, told in the transaction that writes them.

use std::collections::{BTreeMap, HashSet};

use pvegraph_graph::changes::{self, Change, ChangeType, follows};
use pvegraph_graph::cypher::Writer;
use pvegraph_graph::labels::{CHANGE, GUEST, Label, NodeRow, Relationship, RelationshipRow, SNAPSHOT};
use pvegraph_graph::{Statement, Store, StoreError};
use serde_json::{Map, Value};

use crate::diff::{Existing, by_key};
use crate::load::Loader;

/// The latest changes of a cluster that are kept, whatever their age allows.
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
    "memory_total",
    "name",
    "nodes_online",
    "quorate",
    "tags",
    "template",
    "version",
];

/// Whether a guest's configuration was read before: each one tells these, unless Proxmox VE's word for one was not understood.
pub fn was_read(guest: &Map<String, Value>) -> bool {
    ["onboot", "disk_size"].iter().any(|name| guest.get(*name).is_some_and(|value| !value.is_null()))
}

/// Whether a thing that is new to the graph came since `guest`, which has it, was looked into. What hangs on a guest that is new, or that
/// nobody could look into before, came with it.
pub fn came_later<T>(label: &Label<T>, guest: &Map<String, Value>) -> bool {
    if label.name == SNAPSHOT.name {
        return guest.get("snapshot_count").is_some_and(|value| !value.is_null());
    }
    was_read(guest)
}

/// Guests whose last snapshot is gone: the one before it is their last then, and they did not go back to it.
pub fn past_their_last<T>(label: &Label<T>, before: &Existing, rows: &[NodeRow]) -> HashSet<i64> {
    if label.name != SNAPSHOT.name {
        return HashSet::new();
    }
    let there: HashSet<String> = rows.iter().map(|row| by_key(&row.key)).collect();
    let last = before.iter().filter(|node| node.get("current").is_some_and(|value| *value == true));
    last.filter(|node| !there.contains(&by_key(&label.key_of(node))))
        .filter_map(|node| node.get("vmid")?.as_i64())
        .collect()
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
    /// What leads to the things, by their label.
    ends: BTreeMap<&'static str, (Relationship, Vec<RelationshipRow>)>,
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
        self.rows.push(CHANGE.row(&change));
        if kind != ChangeType::Deleted {
            let ends = self.ends.entry(label).or_insert_with(|| (changes::changed(label, names), Vec::new()));
            ends.1.push(changes::end(&change));
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

    /// A thing was `before`, and is as the row says. `back`: where it is a snapshot that the guest is at now and was not, the guest went
    /// back to it; else what it was at is gone, or was taken after it.
    pub fn updated<T>(&mut self, label: &Label<T>, before: &Map<String, Value>, row: &NodeRow, back: bool) {
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
            let is_echo = label.name == SNAPSHOT.name && column.name == "current" && !(back && *new == true);
            if old == new || is_first_look || is_echo {
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
        statements.extend(self.ends.into_values().map(|(kind, rows)| writer.relate(&kind, rows)));
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

/// What was seen of a cluster before: what is seen for the first time is no change.
///
/// # Errors
/// The store failed.
pub async fn seen_before(store: &dyn Store, writer: Writer<'_>) -> Result<HashSet<String>, StoreError> {
    let rows = store.read(changes::seen_before(writer.cluster)).await?;
    let names = rows.rows.into_iter().filter_map(|row| Some(row.first()?.as_str()?.to_owned()));
    Ok(names.collect())
}

/// Changes before this moment go: those that are older than is kept, and all but the latest ones. `beyond` is when the first one was seen
/// that is too many; its run stays whole, and so does the present one.
fn first_kept(tag: i64, retention: Retention, beyond: Option<i64>) -> i64 {
    let old = tag.saturating_sub(i64::from(retention.days).saturating_mul(SECONDS_PER_DAY));
    old.max(beyond.unwrap_or(i64::MIN)).min(tag)
}

/// Deletes what is older than is kept, and says on the cluster since when its changes are known.
///
/// # Errors
/// The store failed; the next run prunes the rest.
pub async fn prune(loader: Loader<'_>, retention: Retention) -> Result<(), StoreError> {
    let Writer { dialect, cluster, tag } = loader.writer;
    if loader.lease.is_none() {
        return Ok(());
    }
    let kept = KEPT.max(KEPT_PER_GUEST.saturating_mul(loader.total(GUEST.name).await?));
    let mut beyond = None;
    if loader.total(CHANGE.name).await? > kept {
        let rows = loader.store.read(changes::beyond(cluster, kept)).await?;
        beyond = rows.get(0, "at").and_then(Value::as_i64);
    }
    let before = first_kept(tag, retention, beyond);
    while !loader.store.read(changes::any_before(cluster, before)).await?.rows.is_empty() {
        let forgotten = changes::forgotten_before(dialect, cluster, before);
        loader.write(vec![forgotten, changes::prune(cluster, before, PRUNED)]).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use pvegraph_graph::labels::{CLUSTER, DISK, NIC, NODE};
    use pvegraph_inventory::{Cluster, Node, NodeStatus, Observed};
    use serde_json::json;

    use super::*;

    /// Seen failing with: the run of the first one that is too many pruned in part or whole.
    #[test]
    fn the_latest_changes_stay_with_their_whole_run() {
        let kept = |days, beyond| first_kept(1_000_000, Retention { days }, beyond);
        assert_eq!(kept(10, None), 136_000);
        assert_eq!(kept(10, Some(5)), 136_000);
        assert_eq!(kept(10, Some(900_000)), 900_000);
        assert_eq!(kept(10, Some(1_000_000)), 1_000_000, "the present run's stay, however many they are");
        assert_eq!(kept(36_500, None), 1_000_000 - 36_500 * 86_400);
    }

    /// The properties that an item of which nobody saw more than its name leaves out.
    fn unseen<T: Observed>(label: &Label<T>, item: &T) -> Vec<&'static str> {
        let row = label.row(item);
        let all = label.columns.iter().filter(|column| !column.metric && column.name != "history_since");
        all.map(|column| column.name).filter(|name| !row.set.contains_key(*name)).collect()
    }

    /// Seen failing with: a list without `memory_total`.
    #[test]
    fn what_may_be_unseen_is_no_change_when_it_is_seen() {
        let cluster = Cluster {
            id: "rig".parse().unwrap(),
            name: "rig".into(),
            version: None,
            quorate: None,
            nodes_online: None,
            ca_fingerprint: None,
        };
        let node = Node {
            name: "pve1".into(),
            ip: None,
            status: NodeStatus::Offline,
            uptime: None,
            cpu_count: None,
            cpu_usage: None,
            memory_total: None,
            memory_used: None,
            disk_total: None,
            disk_used: None,
        };
        for name in [unseen(&CLUSTER, &cluster), unseen(&NODE, &node)].concat() {
            assert!(SEEN_LATE.contains(&name), "{name}");
        }
    }

    /// Seen failing with: whatever `current` says told, or nothing of it.
    #[test]
    fn going_back_to_a_snapshot_is_told() {
        let map = |value: Value| value.as_object().unwrap().clone();
        let told = |was: bool, is: bool, back: bool| {
            let before = map(json!({ "vmid": 100, "name": "a", "parent": null, "current": was }));
            let set = map(json!({ "vmid": 100, "name": "a", "parent": null, "current": is }));
            let mut told = Told::new(7, false);
            told.updated(&SNAPSHOT, &before, &NodeRow { key: vec![json!(100), json!("a")], set }, back);
            told.rows.iter().map(|row| row.set["change_id"].clone()).collect::<Vec<_>>()
        };
        assert_eq!(told(false, true, true), ["ProxmoxSnapshot/100:a/current"]);
        assert_eq!(told(true, false, true), [""; 0]);
        assert_eq!(told(false, true, false), [""; 0]);
    }

    /// Seen failing with: snapshots that are told when their listing is first read.
    #[test]
    fn what_a_guest_had_before_it_was_looked_into_is_not_told() {
        let guest = |value: Value| value.as_object().unwrap().clone();
        let whole = guest(json!({ "vmid": 100, "onboot": false, "snapshot_count": 0 }));
        assert!(came_later(&SNAPSHOT, &whole) && came_later(&DISK, &whole));
        let listed = guest(json!({ "vmid": 100, "disk_size": 5, "onboot": null, "snapshot_count": null }));
        assert!(!came_later(&SNAPSHOT, &listed) && came_later(&NIC, &listed));
        let unread = guest(json!({ "vmid": 100, "onboot": null, "disk_size": null, "snapshot_count": 2 }));
        assert!(came_later(&SNAPSHOT, &unread) && !came_later(&DISK, &unread));
    }
}
