//! What a row changes, compared with what the graph has: the counts of a run, and which guests are other guests than before.

use std::collections::HashMap;

use pvegraph_graph::Rows;
use pvegraph_graph::labels::{Label, NodeRow};
use serde_json::{Map, Value};

/// What writing a row does to its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It is not there yet.
    Created,
    /// A property that is no metric differs.
    Updated,
    /// Only metrics differ, or nothing.
    Unchanged,
}

/// The nodes of one label that the graph has, by key.
#[derive(Debug, Default)]
pub struct Existing(HashMap<String, Map<String, Value>>);

/// A key as one text.
pub fn by_key(key: &[Value]) -> String {
    Value::Array(key.to_vec()).to_string()
}

impl Existing {
    /// Takes rows of a read-back.
    pub fn new<T>(label: &Label<T>, rows: Rows) -> Self {
        let Rows { columns, rows } = rows;
        let nodes = rows.into_iter().map(|row| {
            let node: Map<String, Value> = columns.iter().cloned().zip(row).collect();
            (by_key(&label.key_of(&node)), node)
        });
        Self(nodes.collect())
    }

    /// The properties that the graph has of this node.
    pub fn get(&self, key: &[Value]) -> Option<&Map<String, Value>> {
        self.0.get(&by_key(key))
    }

    /// The graph has none of them.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The properties of every node.
    pub fn iter(&self) -> impl Iterator<Item = &Map<String, Value>> {
        self.0.values()
    }

    /// What writing this row does.
    pub fn change<T>(&self, label: &Label<T>, row: &NodeRow) -> Change {
        let Some(before) = self.get(&row.key) else { return Change::Created };
        let differs = row
            .set
            .iter()
            .any(|(name, now)| !label.is_metric(name) && before.get(name).unwrap_or(&Value::Null) != now);
        if differs { Change::Updated } else { Change::Unchanged }
    }

    /// Leaves in a row what differs from what the graph has, and its key.
    pub fn reduce<T>(&self, label: &Label<T>, row: &mut NodeRow) {
        let Some(before) = self.get(&row.key) else { return };
        row.set.retain(|name, now| {
            label.key.contains(&name.as_str()) || before.get(name).unwrap_or(&Value::Null) != now
        });
    }
}

/// The properties that tell a guest from another one under the same number.
const GUEST_IDENTITY: [&str; 3] = ["type", "smbios_uuid", "created_at"];

/// Whether this row is another guest than the one that had its number: PVE gives the number of a destroyed guest to the next
/// one. What either side does not know decides nothing.
pub fn is_another_guest(before: &Map<String, Value>, row: &NodeRow) -> bool {
    GUEST_IDENTITY.iter().any(|name| match (before.get(*name), row.set.get(*name)) {
        (Some(before), Some(now)) => !before.is_null() && !now.is_null() && before != now,
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use pvegraph_graph::labels::GUEST;
    use serde_json::json;

    use super::*;

    fn existing(properties: &Value) -> Existing {
        let Value::Object(node) = properties else { panic!("an object") };
        let columns = node.keys().cloned().collect();
        Existing::new(&GUEST, Rows { columns, rows: vec![node.values().cloned().collect()] })
    }

    fn row(properties: &Value) -> NodeRow {
        let Value::Object(set) = properties else { panic!("an object") };
        NodeRow { key: vec![set["vmid"].clone()], set: set.clone() }
    }

    #[test]
    fn metrics_do_not_count_as_an_update() {
        let before = existing(&json!({ "vmid": 100, "name": "a", "uptime": 5 }));
        let change = |now: Value| before.change(&GUEST, &row(&now));
        assert_eq!(change(json!({ "vmid": 100, "name": "a", "uptime": 9 })), Change::Unchanged);
        assert_eq!(change(json!({ "vmid": 100, "name": "b", "uptime": 5 })), Change::Updated);
        assert_eq!(change(json!({ "vmid": 101, "name": "a", "uptime": 5 })), Change::Created);
        // What this run did not see is not compared.
        assert_eq!(change(json!({ "vmid": 100 })), Change::Unchanged);
        // Null clears, which is a change only where something was.
        assert_eq!(change(json!({ "vmid": 100, "name": null })), Change::Updated);
        assert_eq!(change(json!({ "vmid": 100, "lock": null })), Change::Unchanged);
    }

    #[test]
    fn what_the_graph_has_is_not_sent_again() {
        let before = existing(&json!({ "vmid": 100, "name": "a", "uptime": 5, "lock": null }));
        let reduced = |now: Value| {
            let mut row = row(&now);
            before.reduce(&GUEST, &mut row);
            Value::Object(row.set)
        };
        assert_eq!(
            reduced(json!({ "vmid": 100, "name": "a", "uptime": 9, "lock": null })),
            json!({ "vmid": 100, "uptime": 9 })
        );
        assert_eq!(reduced(json!({ "vmid": 100, "name": null })), json!({ "vmid": 100, "name": null }));
        let another = json!({ "vmid": 101, "name": "a" });
        assert_eq!(reduced(another.clone()), another);
    }

    #[test]
    fn another_guest_is_told_by_type_uuid_or_creation() {
        let before = json!({ "type": "qemu", "smbios_uuid": "u1", "created_at": 5 });
        let before = before.as_object().unwrap();
        let another = |now: Value| is_another_guest(before, &row(&now));
        assert!(!another(json!({ "vmid": 1, "type": "qemu", "smbios_uuid": "u1", "created_at": 5 })));
        assert!(another(json!({ "vmid": 1, "type": "lxc" })));
        assert!(another(json!({ "vmid": 1, "type": "qemu", "smbios_uuid": "u2" })));
        assert!(another(json!({ "vmid": 1, "type": "qemu", "created_at": 6 })));
        assert!(!another(json!({ "vmid": 1, "type": "qemu" })));
        assert!(!another(json!({ "vmid": 1, "type": "qemu", "smbios_uuid": null })));
    }
}
