//! What a dump asks of a store, and what a restore tells it.

use std::collections::BTreeMap;
use std::io::Write;

use serde_json::{Value, json};

use super::lines::{Batched as _, End, Line, Node, Properties, Relationship, put};
use super::{DumpError, KeyOf, PAGE};
use crate::store::{Dialect, Rows, Statement, Store, StoreError};

/// Set on the nodes that a restore keeps, and gone with their old properties.
const MARK: &str = "pvegraph_restoring";

/// A store with the keys of its labels.
pub(super) struct Graph<'a> {
    pub(super) store: &'a dyn Store,
    pub(super) key_of: KeyOf,
}

impl Graph<'_> {
    /// What nodes of a label are identified by, here.
    pub(super) fn key(&self, label: &str) -> Vec<&'static str> {
        match self.store.dialect() {
            // Only labels of ours get here.
            Dialect::Neo4j => (self.key_of)(label).unwrap_or_default(),
            Dialect::Embedded => vec!["id"],
        }
    }

    fn is_ours(&self, label: &str) -> bool {
        (self.key_of)(label).is_some()
    }

    fn first_of_ours(&self, labels: Option<&Value>) -> Option<String> {
        let names = labels?.as_array()?.iter().filter_map(Value::as_str);
        names.filter(|label| self.is_ours(label)).min().map(str::to_owned)
    }

    async fn read(&self, text: String) -> Result<Rows, StoreError> {
        self.store.read(Statement::new(text)).await
    }

    /// Our labels with the number of nodes that are dumped under each: a node with several counts for the first of them.
    pub(super) async fn labels(&self) -> Result<BTreeMap<String, u64>, StoreError> {
        let rows = self.read("MATCH (n) RETURN labels(n) AS labels, count(*) AS n".to_owned()).await?;
        let mut labels = BTreeMap::new();
        for at in 0..rows.rows.len() {
            if let Some(label) = self.first_of_ours(rows.get(at, "labels")) {
                *labels.entry(label).or_default() += count(rows.get(at, "n"));
            }
        }
        Ok(labels)
    }

    /// The relationships between our nodes: type, label of the start, label of the end, and how many.
    pub(super) async fn relationship_types(
        &self,
    ) -> Result<BTreeMap<(String, String, String), u64>, StoreError> {
        let text = "MATCH (a)-[r]->(b) RETURN labels(a) AS a, type(r) AS type, labels(b) AS b, count(*) AS n";
        let rows = self.read(text.to_owned()).await?;
        let mut types = BTreeMap::new();
        for at in 0..rows.rows.len() {
            let kind = rows.get(at, "type").and_then(Value::as_str);
            let ends = (self.first_of_ours(rows.get(at, "a")), self.first_of_ours(rows.get(at, "b")));
            if let (Some(kind), (Some(from), Some(to))) = (kind, ends) {
                *types.entry((kind.to_owned(), from, to)).or_default() += count(rows.get(at, "n"));
            }
        }
        Ok(types)
    }

    pub(super) async fn dump_nodes(
        &self,
        label: &str,
        out: &mut (impl Write + Send),
    ) -> Result<u64, DumpError> {
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
            let rows = self.store.read(page(text, last.as_deref(), PAGE)).await?;
            for row in &rows.rows {
                let keys = row.get(1..).unwrap_or_default();
                unlike(label, &key, &mut last, keys)?;
                let node: Node = match row.first().map(|node| serde_json::from_value(node.clone())) {
                    Some(Ok(node)) => node,
                    _ => continue,
                };
                let Node { mut labels, properties } = node;
                labels.sort();
                if labels.iter().find(|it| self.is_ours(it)).map(String::as_str) == Some(label) {
                    put(out, &Line::Node(Node { labels, properties }))?;
                    written += 1;
                }
            }
            if rows.rows.len() < PAGE {
                return Ok(written);
            }
        }
    }

    /// Pair of ends by pair of ends, because what is between two nodes has no order that a store could go on after. A page's
    /// last pair may go on beyond it, and is read again.
    pub(super) async fn dump_relationships(
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
        let mut limit = PAGE;
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
            let rows = self.store.read(page(text, last.as_deref(), limit)).await?.rows;
            let whole = whole_pairs(&rows, limit);
            if whole.is_empty() && !rows.is_empty() {
                limit *= 2;
                continue;
            }
            for pair in whole.chunk_by(|one, other| keys_of(one) == keys_of(other)) {
                let keys = pair.first().map(|row| keys_of(row)).unwrap_or_default();
                known(kind, &fields, keys)?;
                let (from_values, to_values) = keys.split_at(from_key.len().min(keys.len()));
                let mut lines = Vec::new();
                for row in pair {
                    let [from_labels, to_labels, relationship, ..] = row.as_slice() else { continue };
                    if self.first_of_ours(Some(from_labels)).as_deref() != Some(from)
                        || self.first_of_ours(Some(to_labels)).as_deref() != Some(to)
                    {
                        continue;
                    }
                    let properties = relationship.get("properties").and_then(Value::as_object);
                    let properties: Properties =
                        properties.into_iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
                    lines.push((json!(properties).to_string(), properties));
                }
                lines.sort_by(|one, other| one.0.cmp(&other.0));
                for (_, properties) in lines {
                    put(
                        out,
                        &Line::Relationship(Relationship {
                            kind: kind.to_owned(),
                            from: End { label: from.to_owned(), key: from_values.to_vec() },
                            to: End { label: to.to_owned(), key: to_values.to_vec() },
                            properties,
                        }),
                    )?;
                    written += 1;
                }
                last = Some(keys.to_vec());
            }
            if rows.len() < limit {
                return Ok(written);
            }
            limit = PAGE;
        }
    }

    pub(super) async fn delete_relationships(&self) -> Result<(), StoreError> {
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

    pub(super) async fn delete_unmarked(&self, mark: &str) -> Result<(), StoreError> {
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
    pub(super) async fn mark(&self, nodes: &[Node], mark: &str) -> Result<(), StoreError> {
        let Some(Kind { first, labels, key }) = self.kind(nodes) else { return Ok(()) };
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
            quoted(first),
            pattern("row", &key),
            labels.len(),
        );
        let statement = Statement::new(text).with("rows", rows).with("labels", json!(labels));
        self.store.write(vec![statement]).await.map(drop)
    }

    pub(super) async fn restore_nodes(&self, nodes: Vec<Node>) -> Result<(), StoreError> {
        let Some(Kind { first, labels, key }) = self.kind(&nodes) else { return Ok(()) };
        let others = labels.iter().filter(|label| *label != first);
        let text = format!(
            "UNWIND $rows AS row MERGE (n:{} {})\nSET n = row{}",
            quoted(first),
            pattern("row", &key),
            others.map(|label| format!(" SET n:{}", quoted(label))).collect::<String>(),
        );
        let rows = nodes.iter().map(|node| {
            let mut row = json!(node.properties);
            if self.store.dialect() == Dialect::Embedded && !node.properties.contains_key("name") {
                // It invents a name where none was ever given.
                row["name"] = Value::Null;
            }
            row
        });
        self.store.write(vec![Statement::new(text).with("rows", rows.collect::<Vec<_>>())]).await.map(drop)
    }

    pub(super) async fn restore_relationships(
        &self,
        relationships: Vec<Relationship>,
    ) -> Result<(), DumpError> {
        let Some(Relationship { kind, from, to, .. }) = relationships.first() else { return Ok(()) };
        let end = |end: &End| -> Properties {
            self.key(&end.label).into_iter().map(str::to_owned).zip(end.key.iter().cloned()).collect()
        };
        let ends = format!(
            "UNWIND $rows AS row MATCH (a:{} {}) MATCH (b:{} {})",
            quoted(&from.label),
            pattern("row.from", &self.key(&from.label)),
            quoted(&to.label),
            pattern("row.to", &self.key(&to.label)),
        );
        let kind_name = quoted(kind);
        let pairs: Vec<Value> = relationships
            .chunk_by(|one, other| one.inseparable(other))
            .filter_map(|pair| pair.first())
            .map(|it| json!({ "from": end(&it.from), "to": end(&it.to) }))
            .collect();
        let rows: Vec<Value> = relationships
            .iter()
            .map(|it| json!({ "from": end(&it.from), "to": end(&it.to), "properties": it.properties }))
            .collect();
        let expected = rows.len() as u64;
        // There is nothing to delete, unless this transaction was committed before and its answer lost.
        let delete = Statement::new(format!("{ends}\nMATCH (a)-[r:{kind_name}]->(b) DELETE r"));
        let create = Statement::new(format!(
            "{ends}\nCREATE (a)-[r:{kind_name}]->(b) SET r = row.properties RETURN count(r) AS n"
        ));
        let answers = self.store.write(vec![delete.with("rows", pairs), create.with("rows", rows)]).await?;
        let made = answers.get(1).map_or(0, |rows| count(rows.get(0, "n")));
        match made == expected {
            true => Ok(()),
            false => Err(DumpError::EndMissing { kind: kind.clone(), expected, made }),
        }
    }

    /// What all these nodes have in common.
    fn kind<'n>(&self, nodes: &'n [Node]) -> Option<Kind<'n>> {
        let labels = nodes.first()?.labels.as_slice();
        let first = labels.iter().find(|label| self.is_ours(label))?;
        let mut key = self.key(first);
        if self.store.dialect() == Dialect::Embedded {
            // Where such a property is set after the MERGE, that engine looks at every other node for the constraint's sake.
            let more = (self.key_of)(first).into_iter().flatten();
            let known = |name: &&str| nodes.iter().all(|node| !value(node, name).is_null());
            key.extend(more.filter(|name| *name != "id").filter(known));
        }
        Some(Kind { first, labels, key })
    }
}

/// Nodes that one statement can write.
struct Kind<'n> {
    /// The first of our labels.
    first: &'n str,
    /// All of them, sorted.
    labels: &'n [String],
    /// What they are merged by.
    key: Vec<&'static str>,
}

/// That a row has a key, and another one than the row before: rows come sorted by it.
fn unlike(
    what: &str,
    names: &[impl AsRef<str>],
    last: &mut Option<Vec<Value>>,
    keys: &[Value],
) -> Result<(), DumpError> {
    known(what, names, keys)?;
    if last.as_deref() == Some(keys) {
        return Err(DumpError::Duplicate { what: what.to_owned(), key: joined(names) });
    }
    *last = Some(keys.to_vec());
    Ok(())
}

/// That a row has a key.
fn known(what: &str, names: &[impl AsRef<str>], keys: &[Value]) -> Result<(), DumpError> {
    match keys.iter().any(Value::is_null) {
        true => Err(DumpError::NoKey { what: what.to_owned(), key: joined(names) }),
        false => Ok(()),
    }
}

fn joined(names: &[impl AsRef<str>]) -> String {
    names.iter().map(AsRef::as_ref).collect::<Vec<&str>>().join(", ")
}

/// The keys of both ends in a row of relationships.
fn keys_of(row: &[Value]) -> &[Value] {
    row.get(3..).unwrap_or_default()
}

/// The rows of a page without those of its last pair, if that may go on after it.
fn whole_pairs(rows: &[Vec<Value>], limit: usize) -> &[Vec<Value>] {
    let cut = rows.last().filter(|_| rows.len() >= limit).map(|row| keys_of(row));
    let whole = rows.iter().rposition(|row| Some(keys_of(row)) != cut).map_or(0, |at| at + 1);
    rows.get(..whole).unwrap_or_default()
}

fn count(value: Option<&Value>) -> u64 {
    value.and_then(Value::as_u64).unwrap_or_default()
}

fn value(node: &Node, name: &str) -> Value {
    node.properties.get(name).cloned().unwrap_or_default()
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

fn page(text: String, last: Option<&[Value]>, limit: usize) -> Statement {
    let mut statement = Statement::new(text).with("limit", limit);
    for (at, value) in last.unwrap_or_default().iter().enumerate() {
        statement = statement.with(format!("k{at}"), value.clone());
    }
    statement
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_can_not_leave_their_place() {
        assert_eq!(quoted("a` DELETE n //"), "`a`` DELETE n //`");
        assert_eq!(
            pattern("row", &["cluster_id", "vmid"]),
            "{`cluster_id`: row.`cluster_id`, `vmid`: row.`vmid`}"
        );
    }

    #[test]
    fn a_full_page_ends_with_a_whole_pair() {
        let row = |key: i64| vec![Value::Null, Value::Null, Value::Null, json!(key)];
        let rows = [row(1), row(2), row(2)];
        assert_eq!(whole_pairs(&rows, 4).len(), 3);
        assert_eq!(whole_pairs(&rows, 3).len(), 1);
        assert!(whole_pairs(&rows[1..], 2).is_empty());
        assert!(whole_pairs(&[], 2).is_empty());
    }

    #[test]
    fn a_page_goes_on_after_the_last_key() {
        let fields = ["n.a".to_owned(), "n.b".to_owned()];
        assert_eq!(after(&fields, true), "WHERE (n.a > $k0) OR (n.a = $k0 AND n.b > $k1)");
        assert_eq!(after(&fields, false), "");
    }
}
