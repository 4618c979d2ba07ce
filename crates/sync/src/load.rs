//! Loading: collected rows become the graph's, in transactions that leave no committed state in between.
//!
//! # Guarantees
//! - A guest, its place, its volumes and interfaces are one transaction: no committed state shows a guest without its node, or a
//!   volume without its guest.
//! - Each transaction ends with the lease's guard: a run that lost its lease writes nothing more. It comes last, because it locks
//!   the lease's node until the commit, and parallel writers would queue there.
//! - All statements are idempotent, so that a transaction whose answer was lost can be sent again.

use std::collections::{BTreeMap, HashSet};
use std::time::{SystemTime, UNIX_EPOCH};

use pvegraph_graph::cypher::{self, Writer};
use pvegraph_graph::labels::{
    self, BACKS_UP, BACKS_UP_TO, BACKUP_JOB, CLUSTER, CONTAINS_NODE, DISK, GUEST, HAS_DISK,
    HAS_NETWORK_INTERFACE, HOSTS_VM, INCLUDES_DISK, Label, NIC, NODE, NodeRow, RelationshipRow, STORAGE,
    STORED_ON,
};
use pvegraph_graph::lease::Lease;
use pvegraph_graph::runs::Counts;
use pvegraph_graph::{Rows, Statement, Store, StoreError};
use pvegraph_inventory::{BackupJob, Cluster, Guest, Node, Observed, Storage};
use serde_json::{Map, Value, json};

use crate::diff::{Change, Existing, is_another_guest};

/// Rows in one statement. 500 cost twice the time on Neo4j 5.26, and all rows at once cost its memory.
pub const BATCH_ROWS: usize = 5_000;

/// Seconds since the epoch, by this machine's clock.
pub fn now() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|since| i64::try_from(since.as_secs()).ok())
        .unwrap_or(0)
}

fn named(label: &str, key: &[Value]) -> String {
    format!("{label}{}", Value::Array(key.to_vec()))
}

/// Writes one cluster's rows, or only counts what it would write.
pub struct Loader<'a> {
    /// The store.
    pub store: &'a dyn Store,
    /// Makes the statements.
    pub writer: Writer<'a>,
    /// The lease of this run; `None` for a dry run, which writes nothing.
    pub lease: Option<&'a Lease>,
    counts: BTreeMap<&'static str, Counts>,
    /// What a dry run would have touched: the graph can't tell.
    pretended: HashSet<String>,
}

impl<'a> Loader<'a> {
    /// A loader without counts.
    pub fn new(store: &'a dyn Store, writer: Writer<'a>, lease: Option<&'a Lease>) -> Self {
        Self { store, writer, lease, counts: BTreeMap::new(), pretended: HashSet::new() }
    }

    /// What was counted, by label.
    pub fn counts(&self) -> &BTreeMap<&'static str, Counts> {
        &self.counts
    }

    /// The counts of one label, to add to.
    pub fn count(&mut self, label: &'static str) -> &mut Counts {
        self.counts.entry(label).or_default()
    }

    /// Sends one transaction, under the lease.
    pub async fn write(&self, mut statements: Vec<Statement>) -> Result<(), StoreError> {
        let Some(lease) = self.lease else { return Ok(()) };
        statements.push(lease.guard(now()));
        self.store.write(statements).await.map(drop)
    }

    /// Counts rows against what the graph has.
    async fn compare<T>(&mut self, label: &Label<T>, rows: &[NodeRow]) -> Result<Existing, StoreError> {
        let keys: Vec<_> = rows.iter().map(|row| row.key.clone()).collect();
        let existing = Existing::new(label, self.store.read(self.writer.read_back(label, &keys)).await?);
        for row in rows {
            self.tally(label, row, existing.change(label, row));
        }
        Ok(existing)
    }

    fn tally<T>(&mut self, label: &Label<T>, row: &NodeRow, change: Change) {
        if self.lease.is_none() {
            self.pretended.insert(named(label.name, &row.key));
        }
        let counts = self.count(label.name);
        match change {
            Change::Created => counts.created += 1,
            Change::Updated => counts.updated += 1,
            Change::Unchanged => counts.unchanged += 1,
        }
    }

    /// Loads the cluster, its nodes and its storages: what everything else hangs on. `before` goes into the first transaction.
    /// `all_nodes`: these are all nodes, so that a storage that names none of the others is not there.
    pub async fn cluster(
        &mut self,
        before: Vec<Statement>,
        cluster: &Cluster,
        (nodes, all_nodes): (&[Node], bool),
        storages: &[Storage],
    ) -> Result<(), StoreError> {
        let cluster_rows = vec![CLUSTER.row(cluster)];
        self.compare(&CLUSTER, &cluster_rows).await?;
        let node_rows: Vec<_> = nodes.iter().map(|node| NODE.row(node)).collect();
        self.compare(&NODE, &node_rows).await?;
        let storage_rows: Vec<_> = storages.iter().map(|storage| STORAGE.row(storage)).collect();
        self.compare(&STORAGE, &storage_rows).await?;

        let contains =
            nodes.iter().map(|node| RelationshipRow::new(vec![], vec![json!(node.name)])).collect();
        let placed: Vec<&Storage> = storages.iter().filter(|storage| !storage.is_unseen("nodes")).collect();
        let available: Vec<_> = placed
            .iter()
            .flat_map(|storage| {
                storage.on_nodes.iter().filter(|on| storage.nodes.allows(&on.node)).map(|on| {
                    RelationshipRow {
                        from: vec![json!(storage.name)],
                        to: vec![json!(on.node)],
                        set: labels::available_on(on),
                    }
                })
            })
            .collect();
        let owners: Vec<_> =
            placed.iter().filter(|_| all_nodes).map(|storage| vec![json!(storage.name)]).collect();

        let writer = self.writer;
        let mut statements = before;
        statements.extend([
            writer.upsert(&CLUSTER, cluster_rows),
            writer.upsert(&NODE, node_rows),
            writer.relate(&CONTAINS_NODE, contains),
            writer.upsert(&STORAGE, storage_rows),
            writer.relate(&labels::AVAILABLE_ON, available),
            writer.unrelate(&labels::AVAILABLE_ON, &owners),
        ]);
        self.write(statements).await
    }

    /// Loads guests with what hangs on them, all in one transaction.
    pub async fn guests(&mut self, guests: &[Guest]) -> Result<(), StoreError> {
        let writer = self.writer;
        let rows: Vec<_> = guests.iter().map(|guest| GUEST.row(guest)).collect();
        let keys: Vec<_> = rows.iter().map(|row| row.key.clone()).collect();
        let before = Existing::new(&GUEST, self.store.read(writer.read_back(&GUEST, &keys)).await?);
        let replaced: Vec<Vec<Value>> = rows
            .iter()
            .filter(|row| before.get(&row.key).is_some_and(|known| is_another_guest(known, row)))
            .map(|row| row.key.clone())
            .collect();
        for row in &rows {
            if replaced.contains(&row.key) {
                self.count(GUEST.name).deleted += 1;
                self.tally(&GUEST, row, Change::Created);
            } else {
                self.tally(&GUEST, row, before.change(&GUEST, row));
            }
        }

        let configs = || guests.iter().filter_map(|guest| Some((guest, guest.config.as_ref()?)));
        let disks: Vec<_> = configs().flat_map(|(_, config)| &config.disks).collect();
        let nics: Vec<_> = configs().flat_map(|(_, config)| &config.nics).collect();
        let disk_rows: Vec<_> = disks.iter().map(|disk| DISK.row(disk)).collect();
        let nic_rows: Vec<_> = nics.iter().map(|nic| NIC.row(nic)).collect();
        // Also of guests without a configuration: a replaced one loses what its predecessor had.
        let vmids: Vec<_> = rows.iter().filter_map(|row| row.key.first().cloned()).collect();
        let old_disks = self.read_children(&DISK, &HAS_DISK, &vmids).await?;
        let old_nics = self.read_children(&NIC, &HAS_NETWORK_INTERFACE, &vmids).await?;
        let gone_disks = self.tally_children(&DISK, &old_disks, &disk_rows, &replaced);
        let gone_nics = self.tally_children(&NIC, &old_nics, &nic_rows, &replaced);

        let hosts = guests
            .iter()
            .map(|guest| RelationshipRow::new(vec![json!(guest.node)], vec![json!(guest.vmid)]))
            .collect();
        let has_disk = disks
            .iter()
            .map(|d| RelationshipRow::new(vec![json!(d.vmid)], vec![json!(d.vmid), json!(d.disk_id)]))
            .collect();
        let stored = disks
            .iter()
            .filter_map(|d| {
                let storage = d.storage.as_ref()?;
                Some(RelationshipRow::new(vec![json!(d.vmid), json!(d.disk_id)], vec![json!(storage)]))
            })
            .collect();
        let has_nic = nics
            .iter()
            .map(|n| RelationshipRow::new(vec![json!(n.vmid)], vec![json!(n.vmid), json!(n.net_id)]))
            .collect();
        let disk_keys: Vec<_> = disk_rows.iter().map(|row| row.key.clone()).collect();

        let mut statements = Vec::new();
        if !replaced.is_empty() {
            statements.extend([
                writer.delete(DISK.name, DISK.key, &gone_disks),
                writer.delete(NIC.name, NIC.key, &gone_nics),
                writer.delete(GUEST.name, GUEST.key, &replaced),
            ]);
        }
        statements.extend([
            writer.upsert(&GUEST, rows),
            writer.relate(&HOSTS_VM, hosts),
            writer.unrelate(&HOSTS_VM, &keys),
            writer.upsert(&DISK, disk_rows),
            writer.relate(&HAS_DISK, has_disk),
            writer.relate(&STORED_ON, stored),
            writer.unrelate(&STORED_ON, &disk_keys),
            writer.upsert(&NIC, nic_rows),
            writer.relate(&HAS_NETWORK_INTERFACE, has_nic),
        ]);
        self.write(statements).await
    }

    async fn read_children<T>(
        &self,
        label: &Label<T>,
        has: &labels::Relationship,
        vmids: &[Value],
    ) -> Result<Existing, StoreError> {
        let rows = self.store.read(self.writer.read_back_of_guests(label, has, vmids)).await?;
        Ok(Existing::new(label, rows))
    }

    /// Counts volumes or interfaces, and answers the keys of those that belong to replaced guests.
    fn tally_children<T>(
        &mut self,
        label: &Label<T>,
        before: &Existing,
        rows: &[NodeRow],
        replaced: &[Vec<Value>],
    ) -> Vec<Vec<Value>> {
        let is_replaced = |vmid: Option<&Value>| {
            vmid.is_some_and(|vmid| replaced.iter().any(|key| key[..] == [vmid.clone()]))
        };
        for row in rows {
            let change =
                if is_replaced(row.key.first()) { Change::Created } else { before.change(label, row) };
            self.tally(label, row, change);
        }
        let gone: Vec<Vec<Value>> = before
            .iter()
            .filter(|node| is_replaced(node.get("vmid")))
            .map(|node| {
                label.key.iter().map(|name| node.get(*name).cloned().unwrap_or(Value::Null)).collect()
            })
            .collect();
        self.count(label.name).deleted += gone.len() as u64;
        gone
    }

    /// Loads backup jobs. `whole`: the token sees every guest, so that what a job's answer lacks is really not covered.
    pub async fn backup_jobs(&mut self, jobs: &[BackupJob], whole: bool) -> Result<(), StoreError> {
        let writer = self.writer;
        let rows: Vec<_> = jobs.iter().map(|job| BACKUP_JOB.row(job)).collect();
        self.compare(&BACKUP_JOB, &rows).await?;
        let id = |job: &BackupJob| vec![json!(job.job_id)];
        let placed = || jobs.iter().filter(|job| !job.is_unseen("storage"));
        let to = placed()
            .filter_map(|job| Some(RelationshipRow::new(id(job), vec![json!(job.storage.as_ref()?)])))
            .collect();
        let owners: Vec<_> = placed().map(id).collect();
        self.write(vec![
            writer.upsert(&BACKUP_JOB, rows),
            writer.relate(&BACKS_UP_TO, to),
            writer.unrelate(&BACKS_UP_TO, &owners),
        ])
        .await?;

        for job in jobs {
            let (Some(guests), Some(volumes)) = (&job.guests, &job.volumes) else { continue };
            let covers: Vec<_> =
                guests.iter().map(|vmid| RelationshipRow::new(id(job), vec![json!(vmid)])).collect();
            let takes: Vec<_> = volumes
                .iter()
                .map(|volume| RelationshipRow {
                    from: id(job),
                    to: vec![json!(volume.vmid), json!(volume.disk_id)],
                    set: Map::from_iter([
                        ("included".to_owned(), json!(volume.included)),
                        ("reason".to_owned(), json!(volume.reason)),
                    ]),
                })
                .collect();
            // Old and new relationships of one job in one transaction, so that no reader sees it cover nothing.
            let mut statements: Vec<_> =
                covers.chunks(BATCH_ROWS).map(|rows| writer.relate(&BACKS_UP, rows.to_vec())).collect();
            statements
                .extend(takes.chunks(BATCH_ROWS).map(|rows| writer.relate(&INCLUDES_DISK, rows.to_vec())));
            if whole {
                statements.extend([
                    writer.unrelate(&BACKS_UP, &[id(job)]),
                    writer.unrelate(&INCLUDES_DISK, &[id(job)]),
                ]);
            }
            self.write(statements).await?;
        }
        Ok(())
    }

    /// The nodes of a label that this run did not touch: key columns, then `more`.
    pub async fn untouched<T>(&self, label: &Label<T>, more: &[&str]) -> Result<Rows, StoreError> {
        let mut rows = self.store.read(self.writer.untouched(label.name, label.key, more)).await?;
        if self.lease.is_none() {
            let width = label.key.len();
            rows.rows.retain(|row| {
                !self.pretended.contains(&named(label.name, row.get(..width).unwrap_or_default()))
            });
        }
        Ok(rows)
    }

    /// How many nodes of a label the cluster has.
    pub async fn total<T>(&self, label: &Label<T>) -> Result<u64, StoreError> {
        let rows = self.store.read(cypher::count(self.writer.cluster, label.name)).await?;
        Ok(rows.get(0, "count").and_then(Value::as_u64).unwrap_or(0))
    }

    /// Deletes nodes that are gone.
    pub async fn delete<T>(&mut self, label: &Label<T>, keys: &[Vec<Value>]) -> Result<(), StoreError> {
        for batch in keys.chunks(BATCH_ROWS) {
            self.write(vec![self.writer.delete(label.name, label.key, batch)]).await?;
        }
        self.count(label.name).deleted += keys.len() as u64;
        Ok(())
    }

    /// Marks nodes that stay although this run did not see them.
    pub async fn keep<T>(&mut self, label: &Label<T>, keys: &[Vec<Value>]) -> Result<(), StoreError> {
        for batch in keys.chunks(BATCH_ROWS) {
            self.write(vec![self.writer.mark_stale(label.name, label.key, batch)]).await?;
        }
        self.count(label.name).kept += keys.len() as u64;
        Ok(())
    }
}
