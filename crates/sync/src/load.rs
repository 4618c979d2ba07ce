//! Loading: collected rows become the graph's, in transactions that leave no committed state in between.
//!
//! # Guarantees
//! - A guest, its place, its volumes and interfaces are one transaction: no committed state shows a guest without its node, or a
//!   volume without its guest.
//! - Each transaction ends with the lease's guard: a run that lost its lease writes nothing more. It comes last, because it locks
//!   the lease's node until the commit, and parallel writers would queue there.
//! - All statements are idempotent, so that a transaction whose answer was lost can be sent again.

use std::collections::{BTreeMap, HashSet};
use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures::stream::{self, TryStreamExt};
use pvegraph_graph::cypher::{self, Writer};
use pvegraph_graph::labels::{
    self, BACKS_UP, BACKS_UP_TO, BACKUP_JOB, CLUSTER, CONTAINS_NODE, DISK, GUEST, HAS_DISK,
    HAS_NETWORK_INTERFACE, HOSTS_VM, INCLUDES_DISK, Label, NIC, NODE, NodeRow, PARENT_SNAPSHOT,
    RelationshipRow, SNAPSHOT, SNAPSHOT_OF, STORAGE, STORED_ON,
};
use pvegraph_graph::lease::Lease;
use pvegraph_graph::runs::Counts;
use pvegraph_graph::{Rows, Statement, Store, StoreError};
use pvegraph_inventory::{BackupJob, Cluster, Guest, Node, Observed, Storage};
use serde_json::{Map, Value, json};

use crate::diff::{Change, Existing, is_another_guest};

/// Rows in one statement. 500 cost twice the time on Neo4j 5.26, and all rows at once cost its memory.
pub const BATCH_ROWS: usize = 5_000;
/// Transactions under way at once: more are no faster on Neo4j 5.26.
pub const WRITERS: usize = 4;

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

/// What loading did.
#[derive(Debug, Default)]
pub struct Tally {
    counts: BTreeMap<&'static str, Counts>,
    /// What a dry run would have touched: the graph can't tell.
    pretended: HashSet<String>,
}

impl Tally {
    /// What was counted, by label.
    pub fn counts(&self) -> &BTreeMap<&'static str, Counts> {
        &self.counts
    }

    /// All counts together.
    pub fn total(&self) -> Counts {
        let mut total = Counts::default();
        self.counts.values().for_each(|counts| total.add(*counts));
        total
    }

    fn count(&mut self, label: &'static str) -> &mut Counts {
        self.counts.entry(label).or_default()
    }

    /// Adds what was done elsewhere.
    pub fn add(&mut self, other: Self) {
        let Self { counts, pretended } = other;
        for (label, counts) in counts {
            self.count(label).add(counts);
        }
        self.pretended.extend(pretended);
    }

    fn row<T>(&mut self, label: &Label<T>, change: Change) {
        let counts = self.count(label.name);
        match change {
            Change::Created => counts.created += 1,
            Change::Updated => counts.updated += 1,
            Change::Unchanged => counts.unchanged += 1,
        }
    }
}

/// How long the store was at work: while at least one call was under way.
#[derive(Debug, Default)]
pub struct Busy(Mutex<BusyState>);

#[derive(Debug, Default)]
struct BusyState {
    calls: usize,
    since: Option<Instant>,
    total: Duration,
}

impl Busy {
    fn state(&self) -> MutexGuard<'_, BusyState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn during<T>(&self, call: impl Future<Output = T>) -> T {
        {
            let mut state = self.state();
            state.calls += 1;
            state.since.get_or_insert_with(Instant::now);
        }
        let answer = call.await;
        let mut state = self.state();
        state.calls -= 1;
        if state.calls == 0
            && let Some(since) = state.since.take()
        {
            state.total += since.elapsed();
        }
        answer
    }

    /// The time so far, without calls that are under way.
    pub fn total(&self) -> Duration {
        self.state().total
    }
}

/// A statement over no row does nothing.
fn is_empty(statement: &Statement) -> bool {
    statement.params.get("rows").and_then(Value::as_array).is_some_and(Vec::is_empty)
}

/// Writes one cluster's rows, or only counts what it would write.
#[derive(Clone, Copy)]
pub struct Loader<'a> {
    /// The store.
    pub store: &'a dyn Store,
    /// Makes the statements.
    pub writer: Writer<'a>,
    /// The lease of this run; `None` for a dry run, which writes nothing.
    pub lease: Option<&'a Lease>,
    /// Measures how long the store works.
    pub busy: &'a Busy,
}

impl Loader<'_> {
    /// Sends one transaction, under the lease.
    pub async fn write(&self, mut statements: Vec<Statement>) -> Result<(), StoreError> {
        let Some(lease) = self.lease else { return Ok(()) };
        statements.push(lease.guard(now()));
        self.busy.during(self.store.write(statements)).await.map(drop)
    }

    async fn read(&self, statement: Statement) -> Result<Rows, StoreError> {
        self.busy.during(self.store.read(statement)).await
    }

    /// Counts rows against what the graph has.
    async fn compare<T>(
        &self,
        tally: &mut Tally,
        label: &Label<T>,
        rows: &[NodeRow],
    ) -> Result<(), StoreError> {
        let keys: Vec<_> = rows.iter().map(|row| row.key.clone()).collect();
        let existing = Existing::new(label, self.read(self.writer.read_back(label, &keys)).await?);
        for row in rows {
            self.tally(tally, label, row, existing.change(label, row));
        }
        Ok(())
    }

    fn tally<T>(&self, tally: &mut Tally, label: &Label<T>, row: &NodeRow, change: Change) {
        if self.lease.is_none() {
            tally.pretended.insert(named(label.name, &row.key));
        }
        tally.row(label, change);
    }

    /// Loads the cluster, its nodes and its storages: what everything else hangs on. `before` goes into the first transaction.
    /// `all_nodes`: these are all nodes, so that a storage that names none of the others is not there.
    pub async fn cluster(
        &self,
        tally: &mut Tally,
        before: Vec<Statement>,
        cluster: &Cluster,
        (nodes, all_nodes): (&[Node], bool),
        storages: &[Storage],
    ) -> Result<(), StoreError> {
        let cluster_rows = vec![CLUSTER.row(cluster)];
        self.compare(tally, &CLUSTER, &cluster_rows).await?;
        let node_rows: Vec<_> = nodes.iter().map(|node| NODE.row(node)).collect();
        self.compare(tally, &NODE, &node_rows).await?;
        let storage_rows: Vec<_> = storages.iter().map(|storage| STORAGE.row(storage)).collect();
        self.compare(tally, &STORAGE, &storage_rows).await?;

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
    pub async fn guests(&self, guests: &[Guest]) -> Result<Tally, StoreError> {
        let mut tally = Tally::default();
        let writer = self.writer;
        let rows: Vec<_> = guests.iter().map(|guest| GUEST.row(guest)).collect();
        let keys: Vec<_> = rows.iter().map(|row| row.key.clone()).collect();
        // Of guests without a configuration too: a replaced one loses what its predecessor had.
        let (before, old_disks, old_nics, old_snapshots) = tokio::try_join!(
            self.read(writer.read_back(&GUEST, &keys)),
            self.read(writer.read_back_of_guests(&DISK, &HAS_DISK, &keys)),
            self.read(writer.read_back_of_guests(&NIC, &HAS_NETWORK_INTERFACE, &keys)),
            self.read(writer.read_back_of_guests(&SNAPSHOT, &SNAPSHOT_OF, &keys)),
        )?;
        let before = Existing::new(&GUEST, before);
        let replaced: Vec<Vec<Value>> = rows
            .iter()
            .filter(|row| before.get(&row.key).is_some_and(|known| is_another_guest(known, row)))
            .map(|row| row.key.clone())
            .collect();
        for row in &rows {
            if replaced.contains(&row.key) {
                tally.count(GUEST.name).deleted += 1;
                self.tally(&mut tally, &GUEST, row, Change::Created);
            } else {
                self.tally(&mut tally, &GUEST, row, before.change(&GUEST, row));
            }
        }
        drop(before);

        let configs = || guests.iter().filter_map(|guest| guest.config.as_ref());
        let disks: Vec<_> = configs().flat_map(|config| &config.disks).collect();
        let nics: Vec<_> = configs().flat_map(|config| &config.nics).collect();
        let snapshots: Vec<_> =
            guests.iter().filter_map(|guest| guest.snapshots.as_ref()).flatten().collect();
        let disk_rows: Vec<_> = disks.iter().map(|disk| DISK.row(disk)).collect();
        let nic_rows: Vec<_> = nics.iter().map(|nic| NIC.row(nic)).collect();
        let snapshot_rows: Vec<_> = snapshots.iter().map(|snapshot| SNAPSHOT.row(snapshot)).collect();
        let gone_disks = self.tally_children(&mut tally, &DISK, old_disks, &disk_rows, &replaced);
        let gone_nics = self.tally_children(&mut tally, &NIC, old_nics, &nic_rows, &replaced);
        let gone_snapshots =
            self.tally_children(&mut tally, &SNAPSHOT, old_snapshots, &snapshot_rows, &replaced);

        let parents = snapshots
            .iter()
            .filter_map(|snapshot| {
                let key = |name: &str| vec![json!(snapshot.vmid), json!(name)];
                Some(RelationshipRow::new(key(&snapshot.name), key(snapshot.parent.as_ref()?)))
            })
            .collect();
        let disk_keys: Vec<_> = disk_rows.iter().map(|row| row.key.clone()).collect();
        let chained: Vec<_> = snapshots
            .iter()
            .filter(|snapshot| !snapshot.is_unseen("parent"))
            .map(|snapshot| vec![json!(snapshot.vmid), json!(snapshot.name)])
            .collect();
        // Nodes and storages are shared with the other writers, whose MERGE waits for their locks until the commit. So what hangs on
        // them comes last, in one order for all writers: then nobody waits long, and no two for each other.
        let mut hosts: Vec<_> = guests.iter().map(|guest| (guest.node.as_str(), guest.vmid)).collect();
        hosts.sort_unstable();
        let hosts = hosts
            .into_iter()
            .map(|(node, vmid)| RelationshipRow::new(vec![json!(node)], vec![json!(vmid)]))
            .collect();
        let mut stored: Vec<_> = disks
            .iter()
            .filter_map(|disk| Some((disk.storage.as_ref()?, disk.vmid, &disk.disk_id)))
            .collect();
        stored.sort_unstable();
        let stored = stored
            .into_iter()
            .map(|(storage, vmid, disk)| {
                RelationshipRow::new(vec![json!(vmid), json!(disk)], vec![json!(storage)])
            })
            .collect();

        let mut statements = Vec::new();
        if !replaced.is_empty() {
            statements.extend([
                writer.delete(DISK.name, DISK.key, &gone_disks),
                writer.delete(NIC.name, NIC.key, &gone_nics),
                writer.delete(SNAPSHOT.name, SNAPSHOT.key, &gone_snapshots),
                writer.delete(GUEST.name, GUEST.key, &replaced),
            ]);
        }
        statements.push(writer.upsert(&GUEST, rows));
        statements.extend(writer.upsert_owned(&DISK, &HAS_DISK, disk_rows));
        statements.extend(writer.upsert_owned(&NIC, &HAS_NETWORK_INTERFACE, nic_rows));
        statements.extend(writer.upsert_owned(&SNAPSHOT, &SNAPSHOT_OF, snapshot_rows));
        statements.extend([
            writer.relate(&PARENT_SNAPSHOT, parents),
            writer.unrelate(&PARENT_SNAPSHOT, &chained),
            writer.relate(&HOSTS_VM, hosts),
            writer.unrelate(&HOSTS_VM, &keys),
            writer.relate(&STORED_ON, stored),
            writer.unrelate(&STORED_ON, &disk_keys),
        ]);
        statements.retain(|statement| !is_empty(statement));
        self.write(statements).await?;
        Ok(tally)
    }

    /// Counts what hangs on guests, and answers the keys of what belongs to replaced ones.
    fn tally_children<T>(
        &self,
        tally: &mut Tally,
        label: &Label<T>,
        before: Rows,
        rows: &[NodeRow],
        replaced: &[Vec<Value>],
    ) -> Vec<Vec<Value>> {
        let before = Existing::new(label, before);
        let is_replaced = |vmid: Option<&Value>| {
            vmid.is_some_and(|vmid| replaced.iter().any(|key| key[..] == [vmid.clone()]))
        };
        for row in rows {
            let change =
                if is_replaced(row.key.first()) { Change::Created } else { before.change(label, row) };
            self.tally(tally, label, row, change);
        }
        let gone: Vec<Vec<Value>> = before
            .iter()
            .filter(|node| is_replaced(node.get("vmid")))
            .map(|node| {
                label.key.iter().map(|name| node.get(*name).cloned().unwrap_or(Value::Null)).collect()
            })
            .collect();
        tally.count(label.name).deleted += gone.len() as u64;
        gone
    }

    /// Loads backup jobs. `whole`: the token sees every guest, so that what a job's answer lacks is really not covered.
    pub async fn backup_jobs(
        &self,
        tally: &mut Tally,
        jobs: &[BackupJob],
        whole: bool,
    ) -> Result<(), StoreError> {
        let writer = self.writer;
        let rows: Vec<_> = jobs.iter().map(|job| BACKUP_JOB.row(job)).collect();
        self.compare(tally, &BACKUP_JOB, &rows).await?;
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

        stream::iter(jobs.iter().map(Ok))
            .try_for_each_concurrent(WRITERS, |job| async move { self.coverage(job, whole).await })
            .await
    }

    /// Loads what one job covers. What is new first, in as many transactions as it takes, then what is old is removed: no reader sees
    /// a job cover less than it did or does.
    async fn coverage(&self, job: &BackupJob, whole: bool) -> Result<(), StoreError> {
        let (Some(guests), Some(volumes)) = (&job.guests, &job.volumes) else { return Ok(()) };
        let writer = self.writer;
        let id = || vec![json!(job.job_id)];
        for guests in guests.chunks(BATCH_ROWS) {
            let covers = guests.iter().map(|vmid| RelationshipRow::new(id(), vec![json!(vmid)]));
            self.write(vec![writer.relate(&BACKS_UP, covers.collect())]).await?;
        }
        for volumes in volumes.chunks(BATCH_ROWS) {
            let takes = volumes.iter().map(|volume| RelationshipRow {
                from: id(),
                to: vec![json!(volume.vmid), json!(volume.disk_id)],
                set: Map::from_iter([
                    ("included".to_owned(), json!(volume.included)),
                    ("reason".to_owned(), json!(volume.reason)),
                ]),
            });
            self.write(vec![writer.relate(&INCLUDES_DISK, takes.collect())]).await?;
        }
        if whole {
            let old = vec![writer.unrelate(&BACKS_UP, &[id()]), writer.unrelate(&INCLUDES_DISK, &[id()])];
            self.write(old).await?;
        }
        Ok(())
    }

    /// The nodes of a label that this run did not touch: key columns, then `more`.
    pub async fn untouched<T>(
        &self,
        tally: &Tally,
        label: &Label<T>,
        more: &[&str],
    ) -> Result<Rows, StoreError> {
        let mut rows = self.read(self.writer.untouched(label.name, label.key, more)).await?;
        if self.lease.is_none() {
            let width = label.key.len();
            rows.rows.retain(|row| {
                !tally.pretended.contains(&named(label.name, row.get(..width).unwrap_or_default()))
            });
        }
        Ok(rows)
    }

    /// How many nodes of a label the cluster has.
    pub async fn total(&self, label: &str) -> Result<u64, StoreError> {
        let rows = self.read(cypher::count(self.writer.cluster, label)).await?;
        Ok(rows.get(0, "count").and_then(Value::as_u64).unwrap_or(0))
    }

    /// Deletes nodes that are gone, by key.
    pub async fn delete(
        &self,
        tally: &mut Tally,
        label: &'static str,
        key: &[&str],
        keys: &[Vec<Value>],
    ) -> Result<(), StoreError> {
        for batch in keys.chunks(BATCH_ROWS) {
            self.write(vec![self.writer.delete(label, key, batch)]).await?;
        }
        tally.count(label).deleted += keys.len() as u64;
        Ok(())
    }

    /// Marks nodes that stay although this run did not see them, by key.
    pub async fn keep(
        &self,
        tally: &mut Tally,
        label: &'static str,
        key: &[&str],
        keys: &[Vec<Value>],
    ) -> Result<(), StoreError> {
        for batch in keys.chunks(BATCH_ROWS) {
            self.write(vec![self.writer.mark_stale(label, key, batch)]).await?;
        }
        tally.count(label).kept += keys.len() as u64;
        Ok(())
    }
}
