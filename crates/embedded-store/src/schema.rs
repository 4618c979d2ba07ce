//! The schema: as the engine lists it, and where it must be told of a property.

use kglite::api::session::ExecuteOutcome;
use kglite::api::{DirGraph, KgError};
use kglite::error::SchemaErrorKindRepr;
use pvegraph_graph::store::{Rows, SchemaKind, SchemaObject};
use serde_json::Value;

/// Lists the constraints.
pub(crate) const CONSTRAINTS: &str = "SHOW CONSTRAINTS YIELD type, entityType, labelsOrTypes, properties \
     RETURN type, entityType, labelsOrTypes, properties";
/// Lists the indexes, those that a constraint owns included.
pub(crate) const INDEXES: &str = "SHOW INDEXES YIELD type, entityType, labelsOrTypes, properties, owningConstraint \
     RETURN type, entityType, labelsOrTypes, properties, owningConstraint";

/// The uniqueness constraints and range indexes of nodes in the two listings, sorted. The engine lists one
/// range index twice, as `PROPERTY` (its hash) and as `RANGE` (its order).
pub(crate) fn objects(constraints: &Rows, indexes: &Rows) -> Vec<SchemaObject> {
    let unique = of_kind(constraints, SchemaKind::Unique, &["UNIQUENESS", "NODE_KEY"]);
    let index = of_kind(indexes, SchemaKind::Index, &["RANGE", "PROPERTY"]);
    let mut all: Vec<_> = unique.chain(index).collect();
    all.sort();
    all.dedup();
    all
}

fn of_kind<'a>(
    rows: &'a Rows,
    kind: SchemaKind,
    types: &'a [&'a str],
) -> impl Iterator<Item = SchemaObject> + 'a {
    (0..rows.rows.len()).filter_map(move |at| {
        let text = |column| rows.get(at, column).and_then(Value::as_str);
        let owned = rows.get(at, "owningConstraint").is_some_and(|owner| !owner.is_null());
        if owned || text("entityType") != Some("NODE") || !types.contains(&text("type")?) {
            return None;
        }
        let label = rows.get(at, "labelsOrTypes")?.get(0)?.as_str()?.to_owned();
        let properties = rows.get(at, "properties")?.as_array()?;
        let properties = properties.iter().filter_map(Value::as_str).map(str::to_owned).collect();
        Some(SchemaObject { kind, label, properties })
    })
}

/// A property in a pattern that no node of the label has had.
pub(crate) struct UnknownProperty {
    label: String,
    property: String,
}

impl UnknownProperty {
    /// Makes the property known. Its type is only the engine's note of what it has seen, and is corrected by
    /// the first value.
    pub(crate) fn declare(&self, graph: &mut DirGraph) {
        let known = graph.node_type_metadata_mut().entry(self.label.clone()).or_default();
        known.entry(self.property.clone()).or_insert_with(|| "String".to_owned());
    }
}

/// The property that the engine refused a statement for. It takes `(n:L {p: 1})` for a slip of the pen when
/// no node of `L` has had `p` so far; Neo4j finds no row, or makes the node, and so shall this store. Nothing
/// was executed yet at that point. The engine says the names in its message only, `Unknown property 'p' on
/// L.`
pub(crate) fn unknown_property(outcome: &Result<ExecuteOutcome, KgError>) -> Option<UnknownProperty> {
    let Err(KgError::Schema { kind: SchemaErrorKindRepr::UnknownProperty, message }) = outcome else {
        return None;
    };
    let (property, rest) = message.strip_prefix("Unknown property '")?.split_once("' on ")?;
    let (label, _) = rest.split_once('.')?;
    Some(UnknownProperty { label: label.to_owned(), property: property.to_owned() })
}
