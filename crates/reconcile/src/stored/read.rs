//! Reading the desired state.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::try_join_all;
use futures::try_join;
use pvegraph_graph::desired_labels::{
    BINDING, DESIRED_BACKUP_JOB, DESIRED_CLUSTER, DESIRED_DISK, DESIRED_HA_RESOURCE, DESIRED_NETWORK,
    DESIRED_NIC, DESIRED_STORAGE, DESIRED_TEMPLATE, DESIRED_VM, Row,
};
use pvegraph_graph::labels::{Label, guest_type};
use pvegraph_graph::{Rows, Statement, Store, StoreError};
use pvegraph_inventory::ClusterId;
use serde_json::Value;

use super::place;
use super::rows::{self, Properties};
use super::{Binding, Inventory, Stored, StoredError};
use crate::desired::{Desired, Guest, Problem, Section, check};

/// The label of a section.
pub(super) fn section_label(section: Section) -> &'static Label<Row> {
    match section {
        Section::Templates => &DESIRED_TEMPLATE,
        Section::Storage => &DESIRED_STORAGE,
        Section::Network => &DESIRED_NETWORK,
        Section::Cluster => &DESIRED_CLUSTER,
        Section::Backups => &DESIRED_BACKUP_JOB,
        Section::Ha => &DESIRED_HA_RESOURCE,
    }
}

/// The clusters of which something is desired.
///
/// # Errors
/// The store's.
pub async fn clusters(store: &dyn Store) -> Result<BTreeSet<String>, StoreError> {
    let mut found = BTreeSet::new();
    // What was written by hand may lack the estate's node.
    for label in ["DesiredEstate", DESIRED_VM.name] {
        let rows = store
            .read(Statement::new(format!("MATCH (n:{label})\nRETURN DISTINCT n.cluster_id AS id")))
            .await?;
        found.extend(rows.rows.iter().filter_map(|row| row.first()?.as_str().map(str::to_owned)));
    }
    Ok(found)
}

/// Reads the desired state of a cluster, and checks it: it may have been written by hand.
///
/// # Errors
/// The store's, or all that is wrong with what is there.
pub async fn read(store: &dyn Store, cluster: &ClusterId) -> Result<Stored, StoredError> {
    let of = |text: String| store.read(Statement::new(text).with("cluster_id", cluster.as_str()));
    let estate = of("MATCH (e:DesiredEstate)\nWHERE e.cluster_id = $cluster_id\n\
                     RETURN e.generation AS generation, e.node AS node, e.lastupdated AS lastupdated"
        .to_owned());
    let vms = of(format!(
        "MATCH (n:{vm})\nWHERE n.cluster_id = $cluster_id\n\
         RETURN {columns}, [(n)-[m:MAY_RUN_ON]->(p:ProxmoxNode) | [m.mode, p.name]] AS may_run_on,\n    \
         [(n)-[:DEPENDS_ON]->(o:{vm}) | o.uid] AS depends_on, [(n)-[:ANTI_AFFINITY]->(o:{vm}) | o.uid] AS anti_affinity,\n    \
         [(n)-[:CLONED_FROM]->(s:ProxmoxVM) | s.vmid] AS cloned_from",
        vm = DESIRED_VM.name,
        columns = columns(&DESIRED_VM),
    ));
    let place = ", [(n)-[:ON_STORAGE]->(s:ProxmoxStorage) | s.name] AS on_storage";
    let devices = [(&DESIRED_DISK, "HAS_DISK", place), (&DESIRED_NIC, "HAS_NIC", "")];
    let devices = devices.map(|(label, has, place)| {
        of(format!(
            "MATCH (v:{})-[:{has}]->(n:{})\nWHERE v.cluster_id = $cluster_id\nRETURN v.uid AS owner, {}{place}",
            DESIRED_VM.name,
            label.name,
            columns(label)
        ))
    });
    let specs = Section::ALL.map(|section| {
        of(format!(
            "MATCH (n:{})\nWHERE n.cluster_id = $cluster_id\nRETURN n.name AS name, n.spec AS spec",
            section_label(section).name
        ))
    });
    let bindings = of(format!(
        "MATCH (n:{})\nWHERE n.cluster_id = $cluster_id\nRETURN {}",
        BINDING.name,
        columns(&BINDING)
    ));
    let (estate, vms, devices, specs, bindings) =
        try_join!(estate, vms, try_join_all(devices), try_join_all(specs), bindings)?;

    let mut problems = Vec::new();
    let mut guests: BTreeMap<String, Guest> = BTreeMap::new();
    for mut row in objects(vms) {
        // Where it may be is said by properties and relationships.
        if let Err((field, text)) = place::enter(&mut row) {
            let uid = row.get("uid").and_then(Value::as_str).unwrap_or("a DesiredVM");
            problems.push(Problem::new(uid, field, text));
        }
        let Some(guest) = rows::guest(&row, &mut problems) else { continue };
        let label = guest.label();
        if guests.insert(guest.uid.clone(), guest).is_some() {
            problems.push(Problem::new(label, "uid", "two nodes have it: delete one of them"));
        }
    }
    for (rows, disk) in devices.into_iter().zip([true, false]) {
        for mut row in objects(rows) {
            let storage = row.get("on_storage").and_then(|list| list.get(0)).cloned();
            // A disk by hand may say its storage by the relationship alone; a CD-ROM has none.
            if let Some(storage) = storage.filter(|_| is_null(&row, "storage") && is_null(&row, "volume")) {
                row.insert("storage".to_owned(), storage);
            }
            let owner = row.get("owner").and_then(Value::as_str).and_then(|uid| guests.get_mut(uid));
            if let Some(guest) = owner {
                rows::enter_device(guest, &row, disk, &mut problems);
            }
        }
    }
    let mut sections = BTreeMap::new();
    for (section, rows) in Section::ALL.into_iter().zip(specs) {
        for row in objects(rows) {
            let word = |name: &str| row.get(name).and_then(Value::as_str).unwrap_or_default();
            match serde_json::from_str(word("spec")) {
                Ok(spec) => drop(sections.insert((section, word("name").to_owned()), spec)),
                Err(_) => {
                    let subject = format!("{}/{}", section.as_str(), word("name"));
                    problems.push(Problem::new(subject, "spec", "it is no JSON: import the document again"));
                }
            }
        }
    }
    let bindings: BTreeMap<String, Binding> = objects(bindings).filter_map(|row| binding(&row)).collect();
    let number = |name: &str| estate.get(0, name).and_then(Value::as_i64).unwrap_or_default();
    let node = estate.get(0, "node").and_then(Value::as_str).map(str::to_owned);
    let desired = Desired { cluster: cluster.clone(), node, guests, sections };
    problems.extend(check(&super::numbered(&bindings, &desired)));
    if !problems.is_empty() {
        return Err(StoredError::Problems(problems));
    }
    let sha256 = desired.sha256();
    Ok(Stored {
        desired,
        generation: number("generation"),
        written_at: number("lastupdated"),
        bindings,
        sha256,
    })
}

pub(super) fn columns(label: &Label<Row>) -> String {
    label.columns.iter().map(|column| format!("n.{0} AS {0}", column.name)).collect::<Vec<_>>().join(", ")
}

pub(super) fn objects(rows: Rows) -> impl Iterator<Item = Properties> {
    let Rows { columns, rows } = rows;
    rows.into_iter().map(move |row| columns.iter().cloned().zip(row).collect())
}

fn is_null(row: &Properties, name: &str) -> bool {
    row.get(name).is_none_or(Value::is_null)
}

fn binding(row: &Properties) -> Option<(String, Binding)> {
    let text = |name: &str| row.get(name).and_then(Value::as_str).map(str::to_owned);
    let uid = text("uid")?;
    let binding = Binding {
        uid: uid.clone(),
        kind: guest_type(&text("type")?)?,
        vmid: row.get("vmid")?.as_i64()?,
        fingerprint: text("smbios_uuid").or_else(|| text("lxc_rootfs_volid")),
        last_applied: row.get("last_applied").and_then(Value::as_i64),
        reserved_by: text("reserved_by"),
        destroyed_at: row.get("destroyed_at").and_then(Value::as_i64),
    };
    Some((uid, binding))
}

/// What the graph knows of a cluster.
///
/// # Errors
/// The store's.
pub async fn inventory(store: &dyn Store, cluster: &ClusterId) -> Result<Inventory, StoreError> {
    let names = async |label: &str| {
        let text = format!(
            "MATCH (n:{label})\nWHERE n.cluster_id = $cluster_id\nRETURN n.name AS name ORDER BY name"
        );
        let rows = store.read(Statement::new(text).with("cluster_id", cluster.as_str())).await?;
        Ok::<Vec<String>, StoreError>(
            rows.rows.iter().filter_map(|row| row.first()?.as_str().map(str::to_owned)).collect(),
        )
    };
    let text = "MATCH (n:ProxmoxVM)\nWHERE n.cluster_id = $cluster_id\nRETURN n.vmid AS vmid, n.type AS type";
    let guests = store.read(Statement::new(text).with("cluster_id", cluster.as_str())).await?;
    Ok(Inventory {
        nodes: names("ProxmoxNode").await?,
        storages: names("ProxmoxStorage").await?,
        guests: guests
            .rows
            .iter()
            .filter_map(|row| Some((row.first()?.as_i64()?, row.get(1)?.as_str()?.to_owned())))
            .collect(),
    })
}
