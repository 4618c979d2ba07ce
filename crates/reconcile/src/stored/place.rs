//! Where a desired guest may be, in the graph: `MAY_RUN_ON` with a mode, and the same in the guest's own properties, which stay where the
//! graph does not have the node. Either may have been written by hand.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::rows::Properties;
use crate::desired::{Guest, NO_NODES};

/// The mode of the relationship to each node. Of one that is allowed and preferred it is `prefer`.
pub(super) fn modes(guest: &Guest) -> BTreeMap<&str, &'static str> {
    let Guest { node, nodes, prefer, .. } = guest;
    let mut modes = BTreeMap::new();
    modes.extend(nodes.iter().map(|node| (node.as_str(), "allow")));
    modes.extend(prefer.iter().map(|node| (node.as_str(), "prefer")));
    modes.extend(node.iter().map(|node| (node.as_str(), "pin")));
    modes
}

/// Enters what a row's relationships say into its properties `node`, `nodes` and `prefer`.
///
/// # Errors
/// The field, and the mend. What is not understood, or said in two ways, is never passed over: the guest would go, or stay, where nobody
/// wants it.
pub(super) fn enter(row: &mut Properties) -> Result<(), (&'static str, String)> {
    let (mut pinned, mut allowed, mut preferred) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for pair in row.get("may_run_on").and_then(Value::as_array).into_iter().flatten() {
        let word = |at: usize| pair.get(at).and_then(Value::as_str).unwrap_or_default();
        let to = word(1).to_owned();
        match word(0) {
            "pin" => pinned.insert(to),
            "allow" => allowed.insert(to),
            "prefer" => preferred.insert(to),
            other => {
                let text = format!(
                    "its mode to {to} is {other:?}: SET m.mode = 'pin' (there and nowhere else), 'allow' (there, or on another one of \
                     these) or 'prefer' (rather there, where there is a choice), or delete the relationship"
                );
                return Err(("MAY_RUN_ON", text));
            }
        };
    }
    let mut node = row.get("node").and_then(Value::as_str).map(str::to_owned);
    for to in pinned {
        if let Some(other) = node.replace(to.clone()).filter(|other| *other != to) {
            let text =
                format!("it is pinned to {other} and to {to}: keep one of the two, and the same in `node`");
            return Err(("MAY_RUN_ON", text));
        }
    }
    let nodes = match listed(row, "nodes")? {
        Some(nodes) => {
            if let Some(to) = allowed.difference(&nodes).next() {
                let text =
                    format!("MAY_RUN_ON allows {to} as well: add it here, or delete that relationship");
                return Err(("nodes", text));
            }
            nodes
        }
        // What is preferred is allowed with the others.
        None if !allowed.is_empty() => allowed.union(&preferred).cloned().collect(),
        None => BTreeSet::new(),
    };
    let prefer = match listed(row, "prefer")? {
        Some(prefer) => {
            if let Some(to) = preferred.difference(&prefer).next() {
                let text =
                    format!("MAY_RUN_ON prefers {to} as well: add it here, or SET m.mode = 'allow' there");
                return Err(("prefer", text));
            }
            if let Some(to) = allowed.difference(&preferred).find(|to| prefer.contains(*to)) {
                let text =
                    format!("MAY_RUN_ON only allows {to}: take it out here, or SET m.mode = 'prefer' there");
                return Err(("prefer", text));
            }
            prefer
        }
        None => preferred,
    };
    for (name, value) in [("node", json!(node)), ("nodes", json!(nodes)), ("prefer", json!(prefer))] {
        row.insert(name.to_owned(), value);
    }
    Ok(())
}

/// A property that lists nodes; nothing where it is absent.
fn listed(row: &Properties, name: &'static str) -> Result<Option<BTreeSet<String>>, (&'static str, String)> {
    let Some(value) = row.get(name).filter(|value| !value.is_null()) else { return Ok(None) };
    let names: Option<BTreeSet<String>> =
        value.as_array().and_then(|names| names.iter().map(|name| Some(name.as_str()?.to_owned())).collect());
    match names {
        Some(names) if names.is_empty() => Err((name, NO_NODES.to_owned())),
        Some(names) => Ok(Some(names)),
        None => Err((name, "it is no list of names: write ['pve1', 'pve2']".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use pvegraph_inventory::GuestType;

    use super::*;

    /// `node`, `nodes` and `prefer` of a row, or what it is refused with.
    fn said(row: Value) -> Result<[Value; 3], String> {
        let mut row = row.as_object().unwrap().clone();
        let entered = enter(&mut row);
        entered.map_err(|(field, text)| format!("{field}: {text}"))?;
        Ok(["node", "nodes", "prefer"].map(|name| row[name].clone()))
    }

    /// Seen failing with: modes other than `pin`, and all pins but one, that are passed over.
    #[test]
    fn a_guest_is_pinned_to_one_node_and_nothing_else_is_passed_over() {
        let pinned = |row: Value| said(row).map(|[node, ..]| node);
        assert_eq!(pinned(json!({ "may_run_on": [] })), Ok(Value::Null));
        assert_eq!(pinned(json!({ "may_run_on": [["pin", "pve1"]] })), Ok(json!("pve1")));
        assert_eq!(pinned(json!({ "node": "pve1", "may_run_on": [["pin", "pve1"]] })), Ok(json!("pve1")));
        for (row, words) in [
            (json!({ "may_run_on": [["alow", "pve2"]] }), "MAY_RUN_ON: its mode to pve2 is \"alow\""),
            (json!({ "may_run_on": [["pin", "pve1"], ["x", "pve2"]] }), "SET m.mode = 'pin'"),
            (json!({ "may_run_on": [[null, "pve2"]] }), "its mode to pve2 is \"\""),
            (
                json!({ "may_run_on": [["pin", "pve1"], ["pin", "pve2"]] }),
                "pinned to pve1 and to pve2: keep one",
            ),
            (json!({ "node": "pve1", "may_run_on": [["pin", "pve2"]] }), "and the same in `node`"),
        ] {
            let told = pinned(row).unwrap_err();
            assert!(told.contains(words), "{told}");
        }
    }

    /// Seen failing with: preferred nodes that are none of those that are allowed; a property that is believed whatever the relationships say.
    #[test]
    fn allowed_and_preferred_nodes_are_said_by_relationships_properties_or_both() {
        let (one, both) = (json!(["pve1"]), json!(["pve1", "pve2"]));
        let relations = json!([["allow", "pve2"], ["prefer", "pve1"]]);
        let agreed = Ok([Value::Null, both.clone(), one.clone()]);
        for row in [
            json!({ "may_run_on": relations }),
            json!({ "may_run_on": [["allow", "pve2"], ["prefer", "pve1"], ["allow", "pve1"]] }),
            json!({ "nodes": both, "prefer": one, "may_run_on": relations }),
            // The graph does not have the nodes.
            json!({ "nodes": both, "prefer": one, "may_run_on": [] }),
            json!({ "nodes": both, "may_run_on": [["prefer", "pve1"]] }),
        ] {
            assert_eq!(said(row.clone()), agreed, "{row}");
        }
        let alone = said(json!({ "may_run_on": [["prefer", "pve1"]] }));
        assert_eq!(alone, Ok([Value::Null, json!([]), one.clone()]), "it may be on any");
        for (row, words) in [
            (json!({ "nodes": one, "may_run_on": [["allow", "pve2"]] }), "nodes: MAY_RUN_ON allows pve2"),
            (json!({ "prefer": one, "may_run_on": [["prefer", "pve2"]] }), "prefer: MAY_RUN_ON prefers pve2"),
            (
                json!({ "nodes": both, "prefer": one, "may_run_on": [["allow", "pve1"]] }),
                "prefer: MAY_RUN_ON only allows pve1: take it out here, or SET",
            ),
            (json!({ "nodes": [] }), "nodes: it names no node: write the names"),
            (json!({ "prefer": "pve1" }), "prefer: it is no list of names: write ['pve1', 'pve2']"),
        ] {
            let told = said(row).unwrap_err();
            assert!(told.contains(words), "{told}");
        }
    }

    /// Seen failing with: preferences that are not written.
    #[test]
    fn what_is_written_is_what_is_read() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        for (node, nodes, prefer) in [
            (None, &[][..], &[][..]),
            (Some("pve1"), &[], &[]),
            (None, &["pve1", "pve2"], &["pve2"]),
            (None, &["pve1"], &["pve1"]),
            (None, &[], &["pve1", "pve2"]),
        ] {
            let (node, nodes, prefer) = (node.map(str::to_owned), names(nodes), names(prefer));
            let guest = Guest { node, nodes, prefer, ..Guest::new("web", GuestType::Qemu) };
            let relations: Vec<_> = modes(&guest).into_iter().map(|(node, mode)| [mode, node]).collect();
            let mut row = super::super::rows::rows(&guest).guest.0;
            row.insert("may_run_on".to_owned(), json!(relations));
            let read = said(Value::Object(row));
            assert_eq!(read, Ok([json!(guest.node), json!(guest.nodes), json!(guest.prefer)]));
        }
    }
}
