//! `docs/schema.md`, made from the label tables.

use std::fmt::Write;

use crate::desired_labels;
use crate::labels::{LabelSchema, PropertyType, Relationship, labels, relationships};

fn type_name(kind: PropertyType) -> &'static str {
    match kind {
        PropertyType::Text => "text",
        PropertyType::Integer => "integer",
        PropertyType::Float => "float",
        PropertyType::Boolean => "boolean",
        PropertyType::TextList => "list of text",
        PropertyType::IntegerList => "list of integers",
    }
}

const INTRODUCTION: &str = "# Schema

Made from the label tables (`crates/graph/src/labels.rs`); a test compares it.

Every node has `cluster_id`, `firstseen` and `lastupdated`; every relationship has `firstseen` and `lastupdated`. Stamps are epoch
seconds, one value for each run. `firstseen` is set once. A node that a run did not see, and that stays because that proves
nothing, has `stale_since`: the run that missed it first. Metrics change by themselves and do not count as an update.

Sizes, memory and capacities are bytes. Booleans are booleans.

The *key* is what identifies a node. It is stable: a guest that migrates changes its `id` and stays the same node. In Neo4j it is
a uniqueness constraint; the embedded store keeps the joined key (`cluster/vmid/disk_id`) in its own property `id`, and the value
of `id` as documented here in `contract_id`.
";

const DESIRED: &str = "
# Desired state

What guests shall be: written by `desired import` and `adopt`, or by hand in Cypher; no sync writes or sweeps it. Relationships to
observed nodes go when those go; `storage` and `node` are what counts where they are set. See [reconcile.md](reconcile.md).
";

const BOOKKEEPING: &str = "
## Bookkeeping

| label | what it is |
| --- | --- |
| ProxmoxSyncRun | One run of one cluster: `id`, `cluster_id`, `tag`, `started_at`, `finished_at` (absent: it was cut off), `status` (`running`, or the worst of its scopes), `blocked` (why nothing was deleted), `created`, `updated`, `unchanged`, `deleted`, `kept`, `version` of the program. |
| PvegraphLease | Which sync may write, and which run may change a cluster (`apply:CLUSTER`); whether that is `paused`, and the head of its audit log. |
| PvegraphMigration | Which migrations were applied. |

`(:ProxmoxSyncRun)-[:COLLECTED {collector, node, status, reason, count}]->(:ProxmoxCluster)`: one for each scope of the run. `status` is
`complete`, `filtered` (all that the token may see), `partial` or `failed`. Only a complete scope can prove that something is gone.

`(:ProxmoxChange)-[:CHANGED]->()`: to the thing of any label above that changed.
";

/// The page's text.
pub fn schema_page() -> String {
    let mut page = INTRODUCTION.to_owned();
    tables(&mut page, &labels());
    page.push_str("\n## Relationships\n\n");
    arrows(&mut page, &relationships());
    page.push_str(DESIRED);
    tables(&mut page, &desired_labels::labels());
    page.push_str("\n## Relationships of the desired state\n\n");
    arrows(&mut page, &desired_labels::relationships());
    page.push_str(BOOKKEEPING);
    page
}

fn tables(page: &mut String, labels: &[LabelSchema]) {
    for label in labels {
        // Writing to a String can't fail.
        let _ =
            write!(page, "\n## {}\n\n{}\n\nKey: `{}`.\n\n", label.name, label.doc, label.key.join("`, `"));
        page.push_str("| property | type | meaning |\n| --- | --- | --- |\n");
        for (name, kind, metric, doc) in &label.columns {
            let metric = if *metric { " (metric)" } else { "" };
            let _ = writeln!(page, "| {name} | {}{metric} | {doc} |", type_name(*kind));
        }
    }
}

fn arrows(page: &mut String, relationships: &[&Relationship]) {
    page.push_str("| relationship | meaning | properties |\n| --- | --- | --- |\n");
    for kind in relationships {
        let columns: Vec<_> = kind
            .columns
            .iter()
            .map(|(name, kind, doc)| format!("`{name}` ({}): {doc}", type_name(*kind)))
            .collect();
        let _ = writeln!(
            page,
            "| `(:{})-[:{}]->(:{})` | {} | {} |",
            kind.from,
            kind.name,
            kind.to,
            kind.doc,
            columns.join("; ")
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docs_schema_md_is_what_the_tables_make() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/schema.md");
        if std::env::var_os("PVEGRAPH_WRITE_DOCS").is_some() {
            std::fs::write(path, schema_page()).unwrap();
        }
        let page = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            page == schema_page(),
            "docs/schema.md is old: PVEGRAPH_WRITE_DOCS=1 cargo test -p pvegraph-graph"
        );
    }
}
