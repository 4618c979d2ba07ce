//! Writing the desired state: one transaction, which does nothing where somebody else wrote meanwhile.

use std::collections::BTreeSet;

use pvegraph_graph::cypher::Writer;
use pvegraph_graph::desired_labels::{
    ANTI_AFFINITY, BINDING, BINDS, CLONED_FROM, DEPENDS_ON, DESIRED_DISK, DESIRED_ESTATE, DESIRED_HAS_DISK,
    DESIRED_NIC, DESIRED_VM, DESIRES, HAS_NIC, MAY_RUN_ON, ON_STORAGE, Row,
};
use pvegraph_graph::labels::{Label, NodeRow, RelationshipRow};
use pvegraph_graph::{Dialect, Statement, Store, StoreError};
use pvegraph_inventory::{ClusterId, GuestType};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::read::section_label;
use super::rows::{GuestRows, rows};
use super::{Binding, Stored, StoredError};
use crate::canonical::hex;
use crate::desired::{Desired, to_document};

/// What is to be written.
#[derive(Debug)]
pub struct Change<'a> {
    /// What was read before.
    pub from: &'a Stored,
    /// What shall be desired.
    pub to: &'a Desired,
    /// Bindings that are new or changed.
    pub bind: &'a [Binding],
    /// Names this change; another one than any before, so that a transaction that is sent twice counts once.
    pub name: &'a str,
    /// Now, in epoch seconds.
    pub now: i64,
}

/// Writes it.
///
/// # Errors
/// The store's, or somebody else wrote since it was read.
pub async fn write(store: &dyn Store, change: &Change<'_>) -> Result<(), StoredError> {
    let statements = statements(store.dialect(), change);
    match store.write(statements).await {
        Ok(_) => Ok(()),
        Err(StoreError::Guard { .. }) => Err(StoredError::Changed(change.to.cluster.clone())),
        Err(error) => Err(error.into()),
    }
}

pub(super) fn row(label: &Label<Row>, row: &Row) -> NodeRow {
    label.row(row)
}

/// A node of the key alone.
pub(super) fn keyed(pairs: &[(&str, Value)]) -> Row {
    Row(pairs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect::<Map<_, _>>())
}

fn statements(dialect: Dialect, change: &Change<'_>) -> Vec<Statement> {
    let Change { from, to, bind, name, now } = change;
    let cluster: &ClusterId = &to.cluster;
    let tag = (*now).max(from.written_at + 1);
    let writer = Writer { dialect, cluster, tag };
    let mut all = vec![guard(dialect, cluster, from.generation, name, tag)];

    let document = serde_json::to_string(&to_document(to)).unwrap_or_default();
    let estate = keyed(&[
        ("generation", json!(from.generation + 1)),
        ("spec_sha256", json!(hex(&Sha256::digest(document.as_bytes())))),
        ("change", json!(name)),
        ("node", json!(to.node)),
    ]);
    all.push(writer.upsert(&DESIRED_ESTATE, vec![row(&DESIRED_ESTATE, &estate)]));

    let old = &from.desired;
    let changed: Vec<_> =
        to.guests.values().filter(|guest| old.guests.get(&guest.uid) != Some(*guest)).collect();
    let gone: Vec<_> = old.guests.values().filter(|guest| !to.guests.contains_key(&guest.uid)).collect();
    let made: Vec<GuestRows> = changed.iter().map(|guest| rows(guest)).collect();
    let slot = |row: &Row| {
        [row.0.get("uid"), row.0.get("slot")].map(|value| value.cloned().unwrap_or_default()).to_vec()
    };
    // What a guest had and has no more; a guest that is gone has nothing.
    let kept: BTreeSet<String> = made
        .iter()
        .flat_map(|rows| rows.disks.iter().chain(&rows.nics))
        .map(|row| format!("{:?}", slot(row)))
        .collect();
    let before: Vec<GuestRows> = changed
        .iter()
        .filter_map(|guest| old.guests.get(&guest.uid))
        .chain(gone.iter().copied())
        .map(rows)
        .collect();
    let vanished = |of: fn(&GuestRows) -> &Vec<Row>| -> Vec<Vec<Value>> {
        before.iter().flat_map(of).map(slot).filter(|key| !kept.contains(&format!("{key:?}"))).collect()
    };
    for (label, keys) in
        [(&DESIRED_DISK, vanished(|rows| &rows.disks)), (&DESIRED_NIC, vanished(|rows| &rows.nics))]
    {
        if !keys.is_empty() {
            all.push(writer.delete(label.name, label.key, &keys));
        }
    }
    if !gone.is_empty() {
        let keys: Vec<_> = gone.iter().map(|guest| vec![json!(guest.uid)]).collect();
        all.push(writer.delete(BINDING.name, BINDING.key, &keys));
        all.push(writer.delete(DESIRED_VM.name, DESIRED_VM.key, &keys));
    }
    if !made.is_empty() {
        all.push(writer.upsert(&DESIRED_VM, made.iter().map(|rows| row(&DESIRED_VM, &rows.guest)).collect()));
        let of = |label: &Label<Row>, of: fn(&GuestRows) -> &Vec<Row>| -> Vec<NodeRow> {
            made.iter().flat_map(of).map(|one| row(label, one)).collect()
        };
        all.push(writer.upsert(&DESIRED_DISK, of(&DESIRED_DISK, |rows| &rows.disks)));
        all.push(writer.upsert(&DESIRED_NIC, of(&DESIRED_NIC, |rows| &rows.nics)));
        let uids: Vec<Vec<Value>> = changed.iter().map(|guest| vec![json!(guest.uid)]).collect();
        let plain = |from: Vec<Value>, to: Vec<Value>| RelationshipRow::new(from, to);
        all.push(writer.relate(&DESIRES, uids.iter().map(|uid| plain(vec![], uid.clone())).collect()));
        let owned = |of: fn(&GuestRows) -> &Vec<Row>| -> Vec<RelationshipRow> {
            made.iter()
                .flat_map(of)
                .map(|row| plain(vec![row.0.get("uid").cloned().unwrap_or_default()], slot(row)))
                .collect()
        };
        all.push(writer.relate(&DESIRED_HAS_DISK, owned(|rows| &rows.disks)));
        all.push(writer.relate(&HAS_NIC, owned(|rows| &rows.nics)));
        let disks = || made.iter().flat_map(|rows| &rows.disks);
        let on = disks().filter_map(|row| {
            Some(plain(slot(row), vec![row.0.get("storage").filter(|name| !name.is_null())?.clone()]))
        });
        all.push(writer.relate(&ON_STORAGE, on.collect()));
        all.push(writer.unrelate(&ON_STORAGE, &disks().map(slot).collect::<Vec<_>>()));
        let places = changed.iter().flat_map(|guest| {
            super::place::modes(guest).into_iter().map(|(node, mode)| {
                let set = Map::from_iter([("mode".to_owned(), json!(mode))]);
                RelationshipRow { from: vec![json!(guest.uid)], to: vec![json!(node)], set }
            })
        });
        all.push(writer.relate(&MAY_RUN_ON, places.collect()));
        all.push(writer.unrelate(&MAY_RUN_ON, &uids));
        let copied = changed.iter().filter_map(|guest| {
            Some(plain(vec![json!(guest.uid)], vec![json!(to.source(guest.clone_of.as_ref()?)?)]))
        });
        all.push(writer.relate(&CLONED_FROM, copied.collect()));
        all.push(writer.unrelate(&CLONED_FROM, &uids));
        for (kind, others) in [
            (&DEPENDS_ON, (|guest| &guest.depends_on) as fn(&crate::desired::Guest) -> &BTreeSet<String>),
            (&ANTI_AFFINITY, |guest| &guest.anti_affinity),
        ] {
            let pairs = changed.iter().flat_map(|guest| {
                others(guest).iter().map(|other| plain(vec![json!(guest.uid)], vec![json!(other)]))
            });
            all.push(writer.relate(kind, pairs.collect()));
            all.push(writer.unrelate(kind, &uids));
        }
    }
    for (section, name) in old.sections.keys().filter(|key| !to.sections.contains_key(key)) {
        let label = section_label(*section);
        all.push(writer.delete(label.name, label.key, &[vec![json!(name)]]));
    }
    for ((section, name), spec) in
        to.sections.iter().filter(|(key, spec)| old.sections.get(key) != Some(*spec))
    {
        let label = section_label(*section);
        let one = keyed(&[("name", json!(name)), ("spec", json!(spec.to_string()))]);
        all.push(writer.upsert(label, vec![row(label, &one)]));
    }
    all.extend(bindings(&writer, bind));
    all
}

fn bindings(writer: &Writer<'_>, bind: &[Binding]) -> Vec<Statement> {
    if bind.is_empty() {
        return Vec::new();
    }
    let ends = bind.iter().map(|one| RelationshipRow::new(vec![json!(one.uid)], vec![json!(one.uid)]));
    vec![
        writer.upsert(&BINDING, bind.iter().map(|one| row(&BINDING, &binding(one))).collect()),
        writer.relate(&BINDS, ends.collect()),
    ]
}

/// The statements that write bindings of desired guests, and nothing else. `now` is in epoch seconds.
pub fn bound(dialect: Dialect, cluster: &ClusterId, bind: &[Binding], now: i64) -> Vec<Statement> {
    bindings(&Writer { dialect, cluster, tag: now }, bind)
}

/// The statement that gives a number back that was kept for a guest which was not made.
pub fn unreserved(cluster: &ClusterId, uid: &str, vmid: i64) -> Statement {
    let text = format!(
        "MATCH (b:{} {{cluster_id: $cluster_id, uid: $uid, vmid: $vmid}})\nWHERE b.reserved_by IS NOT NULL\nDETACH DELETE b",
        BINDING.name
    );
    Statement::new(text).with("cluster_id", cluster.as_str()).with("uid", uid).with("vmid", vmid)
}

/// The statement that takes the bindings of these away: whatever they bound is gone.
pub fn released(cluster: &ClusterId, uids: &[&str]) -> Statement {
    let text = format!(
        "MATCH (b:{} {{cluster_id: $cluster_id}})\nWHERE b.uid IN $uids\nDETACH DELETE b",
        BINDING.name
    );
    Statement::new(text).with("cluster_id", cluster.as_str()).with("uids", uids.to_vec())
}

/// Goes on only where the estate is as it was read, or this very change was written already.
fn guard(dialect: Dialect, cluster: &ClusterId, generation: i64, name: &str, tag: i64) -> Statement {
    // The property that is set first takes the node's lock, so that two writers can't both pass.
    let node = match dialect {
        Dialect::Neo4j => "{cluster_id: $cluster_id}",
        Dialect::Embedded => "{id: $cluster_id, cluster_id: $cluster_id}",
    };
    Statement::new(format!(
        "MERGE (e:DesiredEstate {node})\nON CREATE SET e.firstseen = $tag\n\
         SET e.lastupdated = coalesce(e.lastupdated, 0), e.name = null\nWITH e\n\
         WHERE coalesce(e.generation, 0) = $generation OR e.change = $change\nRETURN e.cluster_id AS cluster_id"
    ))
    .with("cluster_id", cluster.as_str())
    .with("generation", generation)
    .with("change", name)
    .with("tag", tag)
    .guarding()
}

fn binding(binding: &Binding) -> Row {
    let (machine, container) = match binding.kind {
        GuestType::Qemu => (json!(binding.fingerprint), Value::Null),
        GuestType::Lxc => (Value::Null, json!(binding.fingerprint)),
    };
    keyed(&[
        ("uid", json!(binding.uid)),
        ("type", json!(binding.kind.as_str())),
        ("vmid", json!(binding.vmid)),
        ("smbios_uuid", machine),
        ("lxc_rootfs_volid", container),
        ("last_applied", json!(binding.last_applied)),
        ("reserved_by", json!(binding.reserved_by)),
        ("destroyed_at", json!(binding.destroyed_at)),
    ])
}
