//! Which guests of a batch the graph already has as the run saw them, with all that hangs on them: these are only stamped, which
//! costs a third of writing them.

use std::collections::{HashMap, HashSet};

use pvegraph_graph::labels::{
    BACKS_UP, DISK, GUEST, HOSTS_VM, INCLUDES_DISK, Label, NIC, NodeRow, PARENT_SNAPSHOT, Relationship,
    RelationshipRow, SNAPSHOT, STORED_ON,
};
use serde_json::{Map, Value};

use crate::batch::Batch;
use crate::diff::Existing;

/// Relationships of guests that are read back with them.
pub const OF_GUESTS: [&Relationship; 2] = [&HOSTS_VM, &BACKS_UP];
/// Likewise of volumes.
pub const OF_DISKS: [&Relationship; 2] = [&STORED_ON, &INCLUDES_DISK];
/// Likewise of snapshots.
pub const OF_SNAPSHOTS: [&Relationship; 1] = [&PARENT_SNAPSHOT];

/// What the graph has of a batch's guests.
#[derive(Debug, Default)]
pub struct Known {
    /// The guests.
    pub guests: Existing,
    /// Their volumes.
    pub disks: Existing,
    /// Their interfaces.
    pub nics: Existing,
    /// Their snapshots.
    pub snapshots: Existing,
}

/// What is there of each guest, in one form for both sides.
#[derive(Debug, Default)]
struct Facts(HashMap<i64, Vec<String>>);

impl Facts {
    fn node(&mut self, label: &str, key: &[Value]) {
        self.enter(key.first(), serde_json::to_string(&(label, key)));
    }

    fn relationship(&mut self, kind: &Relationship, row: &RelationshipRow) {
        let vmid = if kind.from_key.first() == Some(&"vmid") { row.from.first() } else { row.to.first() };
        self.enter(vmid, serde_json::to_string(&(kind.name, &row.from, &row.to, &row.set)));
    }

    fn enter(&mut self, vmid: Option<&Value>, fact: serde_json::Result<String>) {
        if let (Some(vmid), Ok(fact)) = (vmid.and_then(Value::as_i64), fact) {
            self.0.entry(vmid).or_default().push(fact);
        }
    }

    fn nodes<T>(&mut self, label: &Label<T>, rows: &[NodeRow]) {
        rows.iter().for_each(|row| self.node(label.name, &row.key));
    }

    fn relationships(&mut self, kind: &Relationship, rows: &[RelationshipRow]) {
        rows.iter().for_each(|row| self.relationship(kind, row));
    }

    fn existing<T>(&mut self, label: &Label<T>, related: &[&Relationship], existing: &Existing) {
        for node in existing.iter() {
            let key: Vec<Value> =
                label.key.iter().map(|name| node.get(*name).cloned().unwrap_or_default()).collect();
            self.node(label.name, &key);
            for kind in related {
                let rows = node.get(kind.name).and_then(Value::as_array).into_iter().flatten();
                for values in rows.filter_map(Value::as_array) {
                    self.relationship(kind, &relationship(kind, label.name, &key, values));
                }
            }
        }
    }

    fn sorted(mut self) -> HashMap<i64, Vec<String>> {
        self.0.values_mut().for_each(|facts| facts.sort_unstable());
        self.0
    }
}

/// A relationship as it was read back with the node of one end: the other end's key, then the type's own columns.
fn relationship(kind: &Relationship, label: &str, key: &[Value], values: &[Value]) -> RelationshipRow {
    let (_, other) = kind.other_end(label);
    let (other, set) = values.split_at(other.len().min(values.len()));
    let set: Map<String, Value> =
        kind.columns.iter().map(|(name, ..)| (*name).to_owned()).zip(set.iter().cloned()).collect();
    let (from, to) = if kind.from == label { (key, other) } else { (other, key) };
    RelationshipRow { from: from.to_vec(), to: to.to_vec(), set }
}

/// The guests of a batch that need no more than a stamp. The rows of what hangs on them are already reduced to what differs.
pub fn unchanged(batch: &Batch, known: &Known) -> HashSet<i64> {
    let mut seen = Facts::default();
    seen.nodes(&GUEST, &batch.guests);
    seen.nodes(&DISK, &batch.disks);
    seen.nodes(&NIC, &batch.nics);
    seen.nodes(&SNAPSHOT, &batch.snapshots);
    seen.relationships(&HOSTS_VM, &batch.hosts);
    seen.relationships(&BACKS_UP, &batch.covered);
    seen.relationships(&STORED_ON, &batch.stored);
    seen.relationships(&PARENT_SNAPSHOT, &batch.parents);
    // A job may name a volume that the guest's configuration does not.
    let disks: HashSet<&[Value]> = batch.disks.iter().map(|row| row.key.as_slice()).collect();
    for row in batch.included.iter().filter(|row| disks.contains(row.to.as_slice())) {
        seen.relationship(&INCLUDES_DISK, row);
    }
    let mut there = Facts::default();
    there.existing(&GUEST, &OF_GUESTS, &known.guests);
    there.existing(&DISK, &OF_DISKS, &known.disks);
    there.existing(&NIC, &[], &known.nics);
    there.existing(&SNAPSHOT, &OF_SNAPSHOTS, &known.snapshots);

    let hanging = [(&batch.disks, DISK.key), (&batch.nics, NIC.key), (&batch.snapshots, SNAPSHOT.key)];
    let differs: HashSet<i64> = hanging
        .into_iter()
        .flat_map(|(rows, key)| {
            rows.iter().filter(move |row| row.set.keys().any(|name| !key.contains(&name.as_str())))
        })
        .filter_map(|row| row.key.first()?.as_i64())
        .collect();
    let there = there.sorted();
    seen.sorted()
        .into_iter()
        .filter(|(vmid, facts)| !differs.contains(vmid) && there.get(vmid) == Some(facts))
        .map(|(vmid, _)| vmid)
        .collect()
}
