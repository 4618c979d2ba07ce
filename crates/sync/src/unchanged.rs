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
            let key = label.key_of(node);
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

#[cfg(test)]
mod tests {
    use pvegraph_graph::Rows;
    use serde_json::json;

    use super::*;

    fn node(key: &[&str], set: &Value) -> NodeRow {
        let Value::Object(set) = set else { panic!("an object") };
        NodeRow { key: key.iter().map(|name| set[*name].clone()).collect(), set: set.clone() }
    }

    fn to(from: Value, to: Value) -> RelationshipRow {
        let key = |value: Value| if let Value::Array(key) = value { key } else { vec![value] };
        RelationshipRow::new(key(from), key(to))
    }

    /// A batch of one guest, already reduced, with one of everything.
    fn batch() -> Batch {
        let mut included = to(json!("nightly"), json!([100, "scsi0"]));
        included.set = Map::from_iter([("included".into(), json!(true)), ("reason".into(), json!(null))]);
        Batch {
            guests: vec![node(GUEST.key, &json!({ "vmid": 100, "uptime": 9 }))],
            disks: vec![node(DISK.key, &json!({ "vmid": 100, "disk_id": "scsi0" }))],
            nics: vec![node(NIC.key, &json!({ "vmid": 100, "net_id": "net0" }))],
            snapshots: ["a", "b"]
                .map(|name| node(SNAPSHOT.key, &json!({ "vmid": 100, "name": name })))
                .into(),
            parents: vec![to(json!([100, "b"]), json!([100, "a"]))],
            chained: vec![],
            hosts: vec![to(json!("pve1"), json!(100))],
            stored: vec![to(json!([100, "scsi0"]), json!("local"))],
            covered: vec![to(json!("nightly"), json!(100))],
            included: vec![included],
        }
    }

    fn existing<T>(label: &Label<T>, nodes: &Value) -> Existing {
        let nodes = nodes.as_array().unwrap();
        let Some(first) = nodes.first().and_then(Value::as_object) else { return Existing::default() };
        let columns: Vec<String> = first.keys().cloned().collect();
        let rows = nodes.iter().map(|node| columns.iter().map(|name| node[name].clone()).collect()).collect();
        Existing::new(label, Rows { columns, rows })
    }

    /// The same in the graph, after a change.
    fn known(change: impl Fn(&mut Value)) -> Known {
        let mut graph = json!({
            "guests": [{ "vmid": 100, "uptime": 5, "HOSTS_VM": [["pve1"]], "BACKS_UP": [["nightly"]] }],
            "disks": [{ "vmid": 100, "disk_id": "scsi0", "STORED_ON": [["local"]], "INCLUDES_DISK": [["nightly", true, null]] }],
            "nics": [{ "vmid": 100, "net_id": "net0" }],
            "snapshots": [
                { "vmid": 100, "name": "b", "PARENT_SNAPSHOT": [[100, "a"]] },
                { "vmid": 100, "name": "a", "PARENT_SNAPSHOT": [] },
            ],
        });
        change(&mut graph);
        Known {
            guests: existing(&GUEST, &graph["guests"]),
            disks: existing(&DISK, &graph["disks"]),
            nics: existing(&NIC, &graph["nics"]),
            snapshots: existing(&SNAPSHOT, &graph["snapshots"]),
        }
    }

    #[test]
    fn a_guest_whose_metrics_alone_differ_is_only_stamped() {
        assert_eq!(unchanged(&batch(), &known(|_| {})), HashSet::from([100]));
        // What a job says of a volume that the configuration does not name is no difference.
        let mut batch = batch();
        batch.included.push(to(json!("nightly"), json!([100, "scsi7"])));
        assert_eq!(unchanged(&batch, &known(|_| {})), HashSet::from([100]));
    }

    #[test]
    fn whatever_else_differs_is_written() {
        for (place, now) in [
            ("/guests", json!([])),
            ("/guests/0/HOSTS_VM", json!([["pve2"]])),
            ("/guests/0/HOSTS_VM", json!([])),
            ("/guests/0/HOSTS_VM", json!([["pve1"], ["pve2"]])),
            ("/guests/0/BACKS_UP", json!([])),
            ("/guests/0/BACKS_UP", json!([["nightly"], ["weekly"]])),
            ("/disks", json!([])),
            ("/disks/0/disk_id", json!("scsi1")),
            ("/disks/0/STORED_ON", json!([["nfs"]])),
            ("/disks/0/INCLUDES_DISK", json!([["nightly", false, null]])),
            ("/disks/0/INCLUDES_DISK", json!([["nightly", true, "x"]])),
            ("/nics", json!([])),
            ("/nics/0/net_id", json!("net1")),
            ("/snapshots", json!([])),
            ("/snapshots/0/PARENT_SNAPSHOT", json!([])),
            ("/snapshots/1/PARENT_SNAPSHOT", json!([[100, "b"]])),
        ] {
            let known = known(|graph| *graph.pointer_mut(place).unwrap() = now.clone());
            assert!(unchanged(&batch(), &known).is_empty(), "{place} {now}");
        }
        // A property that is left after the reduction.
        for change in [
            |batch: &mut Batch| batch.disks[0].set.insert("size".into(), json!(1)),
            |batch: &mut Batch| batch.nics[0].set.insert("bridge".into(), json!("vmbr9")),
            |batch: &mut Batch| batch.snapshots[0].set.insert("parent".into(), json!("x")),
        ] {
            let mut batch = batch();
            change(&mut batch);
            assert!(unchanged(&batch, &known(|_| {})).is_empty());
        }
    }
}
