//! What a sync should tell of its changes, worked out from the graph before and after it by other code than the program's.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::graph::Whole;
use crate::support::{LABELS, METRICS};

/// What belongs to a guest, and is told with it where the guest comes or goes.
const OF_GUESTS: [&str; 3] = ["ProxmoxDisk", "ProxmoxNetworkInterface", "ProxmoxSnapshot"];

/// What is no change of its own: stamps, and what follows from other changes.
const ASIDE: [&str; 8] =
    ["cluster_id", "disk_size", "current", "firstseen", "history_since", "id", "lastupdated", "stale_since"];

/// What is seen late, but never absent.
const SEEN_LATE: [&str; 9] =
    ["ca_fingerprint", "cpu_count", "ip", "name", "nodes_online", "quorate", "tags", "template", "version"];

/// The changes by their id: type, field, old and new.
pub type Told = BTreeMap<String, Value>;

fn text(value: Option<&Value>) -> Value {
    match value {
        None | Some(Value::Null) => Value::Null,
        Some(Value::String(text)) => json!(text),
        Some(other) => json!(other.to_string()),
    }
}

/// What the run that led from one graph to the other should have told.
pub fn between(before: &Whole, after: &Whole) -> Told {
    let none = BTreeMap::new();
    let guest = |whole: &Whole, key: &str| -> Option<Map<String, Value>> {
        whole.get("ProxmoxVM")?.get(key.split(':').next()?).cloned()
    };
    // Guests that are the same ones before and after.
    let stays = |key: &str| match (guest(before, key), guest(after, key)) {
        (Some(before), Some(after)) => before["firstseen"] == after["firstseen"],
        _ => false,
    };
    let was_read = |key: &str| guest(before, key).is_some_and(|guest| guest.contains_key("onboot"));
    let was_listed = |key: &str| guest(before, key).is_some_and(|guest| guest.contains_key("snapshot_count"));
    let mut told = Told::new();
    for label in LABELS {
        let is_part = OF_GUESTS.contains(&label);
        let is_guest = label == "ProxmoxVM";
        let (before, after) = (before.get(label).unwrap_or(&none), after.get(label).unwrap_or(&none));
        let keys: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        for key in keys {
            let object = if label == "ProxmoxCluster" { "" } else { key.as_str() };
            let mut tell = |last: &str, kind: &str, field: Value, old: Value, new: Value| {
                told.insert(format!("{label}/{object}/{last}"), json!([kind, field, old, new]));
            };
            let mut whole = |kind: &str| tell(kind, kind, Value::Null, Value::Null, Value::Null);
            let (was, is) = (before.get(key), after.get(key));
            if is_part && !stays(key) {
                continue;
            }
            let is_another = is_guest && was.is_some() && is.is_some() && !stays(key);
            if (was.is_some() && is.is_none()) || is_another {
                whole("deleted");
            }
            let was_open = if label == "ProxmoxSnapshot" { was_listed(key) } else { was_read(key) };
            if (was.is_none() && is.is_some() && (!is_part || was_open)) || is_another {
                whole("created");
            }
            let (Some(was), Some(is)) = (was, is) else { continue };
            if is_another {
                continue;
            }
            let fields: BTreeSet<&String> = was.keys().chain(is.keys()).collect();
            for field in fields {
                let is_aside = ASIDE.contains(&field.as_str()) || METRICS.contains(&field.as_str());
                let (old, new) = (text(was.get(field)), text(is.get(field)));
                let is_first_look = old.is_null()
                    && (SEEN_LATE.contains(&field.as_str()) || is_guest && !was.contains_key("onboot"));
                // Where a guest went back to a snapshot, the one that it was at is there still.
                let was_at = before.iter().find(|(other, it)| {
                    other.split(':').next() == key.split(':').next()
                        && it.get("current") == Some(&json!(true))
                });
                let is_echo = field == "current"
                    && (new == "false" || was_at.is_some_and(|(other, _)| !after.contains_key(other)));
                if is_aside || old == new || is_first_look || is_echo {
                    continue;
                }
                let kind = if is_guest && field == "node" { "migrated" } else { "updated" };
                tell(field, kind, json!(field), old, new);
            }
        }
    }
    told
}

/// What a run told, by its tag.
pub fn of_run(whole: &Whole, tag: i64) -> Told {
    let all = whole.get("ProxmoxChange").into_iter().flatten();
    all.filter(|(_, change)| change["at"] == tag)
        .map(|(_, change)| {
            let value = |name: &str| change.get(name).cloned().unwrap_or(Value::Null);
            let id = change["change_id"].as_str().unwrap().to_owned();
            (id, json!([value("change_type"), value("field"), value("old"), value("new")]))
        })
        .collect()
}
