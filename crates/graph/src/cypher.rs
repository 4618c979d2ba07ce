//! The statements made from the label tables: pure text and parameters, no I/O.
//!
//! In Neo4j a node is merged by its composite key. The embedded engine owns a property `id` that can't be set later, so there
//! the joined key is merged as `id`, and the contract's value is in `contract_id`: the only place where the dialects differ.

use pvegraph_inventory::ClusterId;
use serde_json::{Map, Value};

use crate::labels::{End, Label, NodeRow, Relationship, RelationshipRow, joined_key};
use crate::store::{Dialect, Statement};

/// Writes rows of one cluster with one run's tag.
#[derive(Debug, Clone, Copy)]
pub struct Writer<'a> {
    /// The store's dialect.
    pub dialect: Dialect,
    /// The cluster that all rows belong to.
    pub cluster: &'a ClusterId,
    /// The run's tag: what `lastupdated` becomes, and `firstseen` of what is new. Epoch seconds.
    pub tag: i64,
}

/// Where a node's key is in a row: `row.vmid` (prefix empty) for a node's own row, `row.from_vmid` for an end of a relationship. Rows are
/// flat, because each map of its own costs memory on both sides.
fn pattern(dialect: Dialect, variable: &str, label: &str, key: &[&str], prefix: &str) -> String {
    match dialect {
        Dialect::Embedded => format!("({variable}:{label} {{id: row.{prefix}joined}})"),
        Dialect::Neo4j => {
            let mut text = format!("({variable}:{label} {{cluster_id: $cluster_id");
            for name in key {
                text.push_str(&format!(", {name}: row.{prefix}{name}"));
            }
            text.push_str("})");
            text
        }
    }
}

/// A MATCH of a node by its key. On an empty graph every index looks alike to Neo4j's planner, which then may take that of
/// `cluster_id` alone and look at the whole cluster for each row; the hint names the key's own.
fn lookup(dialect: Dialect, variable: &str, label: &str, key: &[&str], prefix: &str) -> String {
    looked_up(dialect, variable, label, key, prefix, "")
}

/// Likewise, with the rest of a path after the node.
fn looked_up(
    dialect: Dialect,
    variable: &str,
    label: &str,
    key: &[&str],
    prefix: &str,
    path: &str,
) -> String {
    let node = pattern(dialect, variable, label, key, prefix);
    match dialect {
        Dialect::Embedded => format!("MATCH {node}{path}"),
        Dialect::Neo4j => {
            let mut index = "cluster_id".to_owned();
            key.iter().for_each(|name| index.extend([", ", name]));
            format!("MATCH {node}{path}\nUSING INDEX SEEK {variable}:{label}({index})")
        }
    }
}

impl Writer<'_> {
    fn statement(&self, text: String, rows: Vec<Value>) -> Statement {
        Statement::new(text)
            .with("cluster_id", self.cluster.as_str())
            .with("tag", self.tag)
            .with("rows", Value::Array(rows))
    }

    /// A statement over the nodes of these keys.
    fn over(&self, text: String, names: &[&str], keys: &[Vec<Value>]) -> Statement {
        self.statement(text, keys.iter().map(|values| Value::Object(self.key(names, values))).collect())
    }

    /// The key of one node as a row.
    fn key(&self, names: &[&str], values: &[Value]) -> Map<String, Value> {
        let mut row = Map::new();
        self.enter_key(&mut row, "", names, values);
        row
    }

    fn enter_key(&self, row: &mut Map<String, Value>, prefix: &str, names: &[&str], values: &[Value]) {
        match self.dialect {
            Dialect::Embedded => {
                let joined = Value::String(joined_key(self.cluster, values));
                row.insert(format!("{prefix}joined"), joined);
            }
            Dialect::Neo4j => {
                row.extend(
                    names.iter().zip(values).map(|(name, value)| (format!("{prefix}{name}"), value.clone())),
                );
            }
        }
    }

    /// Creates or updates nodes. `firstseen` is set once; what was kept as stale is fresh again.
    pub fn upsert<T>(&self, label: &Label<T>, rows: Vec<NodeRow>) -> Statement {
        let (node, on_create) = match self.dialect {
            Dialect::Neo4j => (pattern(self.dialect, "n", label.name, label.key, ""), "n.firstseen = $tag"),
            // The engine checks the key's constraint quickly only where MERGE names the key's columns too. And it invents a name
            // for a node without one, until that is set to null.
            Dialect::Embedded => {
                let columns: String =
                    label.key.iter().map(|name| format!(", {name}: row.set.{name}")).collect();
                let node = format!("(n:{} {{id: row.joined, cluster_id: $cluster_id{columns}}})", label.name);
                (node, "n.firstseen = $tag, n.name = null")
            }
        };
        let text = format!(
            "UNWIND $rows AS row\nMERGE {node}\nON CREATE SET {on_create}\n\
             SET n += row.set, n.lastupdated = $tag, n.stale_since = null"
        );
        let rows = rows.into_iter().map(|NodeRow { key, mut set }| {
            let mut row = self.key(label.key, &key);
            if self.dialect == Dialect::Embedded
                && let Some(id) = set.remove("id")
            {
                set.insert("contract_id".to_owned(), id);
            }
            row.insert("set".to_owned(), Value::Object(set));
            Value::Object(row)
        });
        self.statement(text, rows.collect())
    }

    /// Creates or updates relationships between nodes that exist; one whose end is missing is left out.
    pub fn relate(&self, kind: &Relationship, rows: Vec<RelationshipRow>) -> Statement {
        let from = lookup(self.dialect, "a", kind.from, kind.from_key, "from_");
        let to = lookup(self.dialect, "b", kind.to, kind.to_key, "to_");
        let set = if kind.columns.is_empty() { "" } else { "r += row.set, " };
        let text = format!(
            "UNWIND $rows AS row\n{from}\n{to}\nMERGE (a)-[r:{}]->(b)\n\
             ON CREATE SET r.firstseen = $tag\nSET {set}r.lastupdated = $tag",
            kind.name
        );
        let rows = rows.into_iter().map(|RelationshipRow { from, to, set }| {
            let mut row = Map::new();
            self.enter_key(&mut row, "from_", kind.from_key, &from);
            self.enter_key(&mut row, "to_", kind.to_key, &to);
            if !kind.columns.is_empty() {
                row.insert("set".to_owned(), Value::Object(set));
            }
            Value::Object(row)
        });
        self.statement(text, rows.collect())
    }

    /// Removes the relationships of these owners that this run did not confirm: the old STORED_ON of a disk that moved.
    pub fn unrelate(&self, kind: &Relationship, owners: &[Vec<Value>]) -> Statement {
        self.unrelate_but(kind, owners, "vmid", &[])
    }

    /// Likewise, but for those to nodes whose `property` has one of these values.
    pub fn unrelate_but(
        &self,
        kind: &Relationship,
        owners: &[Vec<Value>],
        property: &str,
        values: &[Value],
    ) -> Statement {
        let (label, key) = match kind.owner {
            End::From => (kind.from, kind.from_key),
            End::To => (kind.to, kind.to_key),
        };
        let but = if values.is_empty() { String::new() } else { format!(" AND NOT e.{property} IN $values") };
        // Relationships of this name to other tools' nodes are theirs.
        let arrow = match kind.owner {
            End::From => format!("-[r:{}]->(e:{})", kind.name, kind.to),
            End::To => format!("<-[r:{}]-(e:{})", kind.name, kind.from),
        };
        let owner = looked_up(self.dialect, "o", label, key, "", &arrow);
        let text =
            format!("UNWIND $rows AS row\n{owner}\nWHERE coalesce(r.lastupdated, 0) < $tag{but}\nDELETE r");
        let statement = self.over(text, key, owners);
        if values.is_empty() { statement } else { statement.with("values", values.to_vec()) }
    }

    /// Deletes nodes by key, with their relationships.
    pub fn delete(&self, label: &str, key: &[&str], keys: &[Vec<Value>]) -> Statement {
        let node = lookup(self.dialect, "n", label, key, "");
        let text = format!("UNWIND $rows AS row\n{node}\nDETACH DELETE n");
        self.over(text, key, keys)
    }

    /// Marks nodes that are kept although this run did not see them. `lastupdated` stays the time when they were.
    pub fn mark_stale(&self, label: &str, key: &[&str], keys: &[Vec<Value>]) -> Statement {
        let node = lookup(self.dialect, "n", label, key, "");
        let text = format!("UNWIND $rows AS row\n{node}\nSET n.stale_since = coalesce(n.stale_since, $tag)");
        self.over(text, key, keys)
    }

    /// Reads what the graph has of these nodes: the columns of the label, in its order, `firstseen`, and for each type of `related` a
    /// column of its name: a list with the other end's key and the type's own columns for each relationship.
    pub fn read_back<T>(
        &self,
        label: &Label<T>,
        related: &[&Relationship],
        keys: &[Vec<Value>],
    ) -> Statement {
        let node = lookup(self.dialect, "n", label.name, label.key, "");
        let text = format!("UNWIND $rows AS row\n{node}\nRETURN {}", self.columns(label, related));
        self.over(text, label.key, keys)
    }

    /// Likewise the volumes, interfaces or snapshots of these guests; `of` is the relationship between the two.
    pub fn read_back_of_guests<T>(
        &self,
        label: &Label<T>,
        of: &Relationship,
        related: &[&Relationship],
        guests: &[Vec<Value>],
    ) -> Statement {
        let owner = Owner::of(label.name, of);
        let path = format!("{}(n:{})", owner.arrow(""), label.name);
        let guest = looked_up(self.dialect, "o", owner.label, owner.key, "", &path);
        let (own, columns) = (owner.own("n"), self.columns(label, related));
        let text = format!("UNWIND $rows AS row\n{guest}\nWHERE {own}\nRETURN {columns}");
        self.over(text, owner.key, guests)
    }

    /// Creates or updates nodes together with the relationship `of` to what has them, whose key theirs begins with. What has them
    /// must be there.
    pub fn upsert_owned<T>(&self, label: &Label<T>, of: &Relationship, rows: Vec<NodeRow>) -> Vec<Statement> {
        let owner = Owner::of(label.name, of);
        if self.dialect == Dialect::Embedded {
            let ends = rows.iter().map(|row| {
                let has = row.key.iter().take(owner.key.len()).cloned().collect();
                let (from, to) = if owner.is_start { (has, row.key.clone()) } else { (row.key.clone(), has) };
                RelationshipRow::new(from, to)
            });
            let ends = ends.collect();
            return vec![self.upsert(label, rows), self.relate(of, ends)];
        }
        // One statement instead of two, and one look at the index less for each row: a tenth of the time.
        let owned = self.upsert(label, rows);
        let has = lookup(self.dialect, "o", owner.label, owner.key, "");
        let text = owned.text.replacen("UNWIND $rows AS row\n", &format!("UNWIND $rows AS row\n{has}\n"), 1);
        let text = format!(
            "{text}\nMERGE (o){}(n)\nON CREATE SET r.firstseen = $tag\nSET r.lastupdated = $tag",
            owner.arrow("r")
        );
        vec![Statement { text: text.into(), ..owned }]
    }

    /// Stamps the volumes, interfaces or snapshots of these guests, and the relationships `of` to them, as seen by this run. Where all of
    /// a guest's are as the run saw them, this costs a third of writing them by their keys.
    pub fn confirm_owned<T>(&self, label: &Label<T>, of: &Relationship, guests: &[Vec<Value>]) -> Statement {
        let owner = Owner::of(label.name, of);
        let path = format!("{}(n:{})", owner.arrow("r"), label.name);
        let guest = looked_up(self.dialect, "o", owner.label, owner.key, "", &path);
        let own = owner.own("n");
        let text = format!(
            "UNWIND $rows AS row\n{guest}\nWHERE {own}\n\
             SET r.lastupdated = $tag, n.lastupdated = $tag, n.stale_since = null"
        );
        self.over(text, owner.key, guests)
    }

    /// Stamps the relationships of these nodes as seen by this run.
    pub fn confirm<T>(&self, label: &Label<T>, kind: &Relationship, nodes: &[Vec<Value>]) -> Statement {
        let (end, _) = kind.other_end(label.name);
        let path = format!("{}(e:{end})", arrow(kind, label.name, "r"));
        let node = looked_up(self.dialect, "o", label.name, label.key, "", &path);
        let text = format!(
            "UNWIND $rows AS row\n{node}\nWHERE e.cluster_id = $cluster_id\nSET r.lastupdated = $tag"
        );
        self.over(text, label.key, nodes)
    }

    /// Stamps the relationships of what these guests have, likewise.
    pub fn confirm_beyond<T>(
        &self,
        label: &Label<T>,
        of: &Relationship,
        kind: &Relationship,
        guests: &[Vec<Value>],
    ) -> Statement {
        let owner = Owner::of(label.name, of);
        let (end, _) = kind.other_end(label.name);
        let beyond = arrow(kind, label.name, "r");
        let path = format!("{}(n:{}){beyond}(e:{end})", owner.arrow(""), label.name);
        let guest = looked_up(self.dialect, "o", owner.label, owner.key, "", &path);
        let own = owner.own("n");
        let text = format!(
            "UNWIND $rows AS row\n{guest}\nWHERE {own} AND e.cluster_id = $cluster_id\nSET r.lastupdated = $tag"
        );
        self.over(text, owner.key, guests)
    }

    /// Reads the keys of this cluster's nodes of a label that this run did not touch.
    pub fn untouched(&self, label: &str, key: &[&str], more: &[&str]) -> Statement {
        let columns: Vec<_> = key.iter().chain(more).map(|name| format!("n.{name} AS {name}")).collect();
        // A key of the cluster alone leaves nothing else to return.
        let columns =
            if columns.is_empty() { "n.cluster_id AS cluster_id".to_owned() } else { columns.join(", ") };
        let text = format!(
            "MATCH (n:{label})\nWHERE n.cluster_id = $cluster_id AND n.lastupdated < $tag\nRETURN {columns}"
        );
        Statement::new(text).with("cluster_id", self.cluster.as_str()).with("tag", self.tag)
    }

    fn columns<T>(&self, label: &Label<T>, related: &[&Relationship]) -> String {
        let mut columns: Vec<String> = label
            .columns
            .iter()
            .map(|column| match (self.dialect, column.name) {
                (Dialect::Embedded, "id") => "n.contract_id AS id".to_owned(),
                (_, name) => format!("n.{name} AS {name}"),
            })
            .collect();
        columns.push("n.firstseen AS firstseen".to_owned());
        columns.extend(related.iter().map(|kind| {
            let (end, key) = kind.other_end(label.name);
            let values = key.iter().map(|name| format!("e.{name}"));
            let values: Vec<_> =
                values.chain(kind.columns.iter().map(|(name, ..)| format!("x.{name}"))).collect();
            let arrow = arrow(kind, label.name, "x");
            let values = values.join(", ");
            format!("[(n){arrow}(e:{end}) WHERE e.cluster_id = $cluster_id | [{values}]] AS {}", kind.name)
        }));
        columns.join(", ")
    }
}

/// A relationship as it looks from this end.
fn arrow(kind: &Relationship, end: &str, variable: &str) -> String {
    let name = kind.name;
    if kind.from == end { format!("-[{variable}:{name}]->") } else { format!("<-[{variable}:{name}]-") }
}

/// The end of a relationship that has the nodes of a label.
struct Owner {
    label: &'static str,
    key: &'static [&'static str],
    name: &'static str,
    /// The relationship starts there.
    is_start: bool,
}

impl Owner {
    fn of(label: &str, of: &Relationship) -> Self {
        if of.to == label {
            Self { label: of.from, key: of.from_key, name: of.name, is_start: true }
        } else {
            Self { label: of.to, key: of.to_key, name: of.name, is_start: false }
        }
    }

    /// What makes a node at the other end this one's: a relationship that somebody drew to another's must not keep that alive.
    fn own(&self, variable: &str) -> String {
        let same = |name: &&str| format!("{variable}.{name} = o.{name}");
        std::iter::once(&"cluster_id").chain(self.key).map(same).collect::<Vec<_>>().join(" AND ")
    }

    /// The relationship as it looks from there.
    fn arrow(&self, variable: &str) -> String {
        let name = self.name;
        if self.is_start { format!("-[{variable}:{name}]->") } else { format!("<-[{variable}:{name}]-") }
    }
}

/// The pattern of the cluster's own node `c`, whose identifier is `$cluster_id`.
pub(crate) fn cluster_node(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Neo4j => "(c:ProxmoxCluster {cluster_id: $cluster_id})",
        Dialect::Embedded => "(c:ProxmoxCluster {id: $cluster_id})",
    }
}

/// How many nodes of a label a cluster has.
pub fn count(cluster: &ClusterId, label: &str) -> Statement {
    Statement::new(format!("MATCH (n:{label})\nWHERE n.cluster_id = $cluster_id\nRETURN count(n) AS count"))
        .with("cluster_id", cluster.as_str())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::labels;

    fn writer(cluster: &ClusterId, dialect: Dialect) -> Writer<'_> {
        Writer { dialect, cluster, tag: 7 }
    }

    #[test]
    fn the_generated_text_is_pinned() {
        let cluster: ClusterId = "rig".parse().unwrap();
        let neo4j = writer(&cluster, Dialect::Neo4j);
        assert_eq!(
            neo4j.upsert(&labels::DISK, vec![]).text,
            "UNWIND $rows AS row\nMERGE (n:ProxmoxDisk {cluster_id: $cluster_id, vmid: row.vmid, disk_id: row.disk_id})\n\
             ON CREATE SET n.firstseen = $tag\nSET n += row.set, n.lastupdated = $tag, n.stale_since = null"
        );
        assert_eq!(
            neo4j.relate(&labels::STORED_ON, vec![]).text,
            "UNWIND $rows AS row\n\
             MATCH (a:ProxmoxDisk {cluster_id: $cluster_id, vmid: row.from_vmid, disk_id: row.from_disk_id})\n\
             USING INDEX SEEK a:ProxmoxDisk(cluster_id, vmid, disk_id)\n\
             MATCH (b:ProxmoxStorage {cluster_id: $cluster_id, name: row.to_name})\n\
             USING INDEX SEEK b:ProxmoxStorage(cluster_id, name)\n\
             MERGE (a)-[r:STORED_ON]->(b)\nON CREATE SET r.firstseen = $tag\nSET r.lastupdated = $tag"
        );
        assert_eq!(
            neo4j.unrelate(&labels::HOSTS_VM, &[]).text,
            "UNWIND $rows AS row\nMATCH (o:ProxmoxVM {cluster_id: $cluster_id, vmid: row.vmid})<-[r:HOSTS_VM]-(e:ProxmoxNode)\n\
             USING INDEX SEEK o:ProxmoxVM(cluster_id, vmid)\n\
             WHERE coalesce(r.lastupdated, 0) < $tag\nDELETE r"
        );
        assert_eq!(
            neo4j.upsert_owned(&labels::SNAPSHOT, &labels::SNAPSHOT_OF, vec![])[0].text,
            "UNWIND $rows AS row\nMATCH (o:ProxmoxVM {cluster_id: $cluster_id, vmid: row.vmid})\n\
             USING INDEX SEEK o:ProxmoxVM(cluster_id, vmid)\n\
             MERGE (n:ProxmoxSnapshot {cluster_id: $cluster_id, vmid: row.vmid, name: row.name})\n\
             ON CREATE SET n.firstseen = $tag\nSET n += row.set, n.lastupdated = $tag, n.stale_since = null\n\
             MERGE (o)<-[r:SNAPSHOT_OF]-(n)\nON CREATE SET r.firstseen = $tag\nSET r.lastupdated = $tag"
        );
        let embedded = writer(&cluster, Dialect::Embedded);
        assert_eq!(
            embedded.upsert(&labels::CLUSTER, vec![]).text,
            "UNWIND $rows AS row\nMERGE (n:ProxmoxCluster {id: row.joined, cluster_id: $cluster_id})\n\
             ON CREATE SET n.firstseen = $tag, n.name = null\n\
             SET n += row.set, n.lastupdated = $tag, n.stale_since = null"
        );
        assert_eq!(
            embedded.upsert(&labels::DISK, vec![]).text.lines().nth(1).unwrap(),
            "MERGE (n:ProxmoxDisk {id: row.joined, cluster_id: $cluster_id, vmid: row.set.vmid, disk_id: row.set.disk_id})"
        );
    }

    #[test]
    fn the_embedded_row_keeps_the_contracts_id_beside_the_engines() {
        let cluster: ClusterId = "rig".parse().unwrap();
        let row =
            NodeRow { key: vec![json!(100)], set: Map::from_iter([("id".to_owned(), json!("pve1:100"))]) };
        let statement = writer(&cluster, Dialect::Embedded).upsert(&labels::GUEST, vec![row]);
        assert_eq!(
            statement.params["rows"],
            json!([{ "joined": "rig/100", "set": { "contract_id": "pve1:100" } }])
        );
    }
}
