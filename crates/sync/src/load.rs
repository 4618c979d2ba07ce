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

use pvegraph_graph::cypher::{self, Writer};
use pvegraph_graph::labels::{
    self, BACKS_UP, BACKS_UP_TO, BACKUP_JOB, CLUSTER, CONTAINS_NODE, DISK, GUEST, HAS_DISK,
    HAS_NETWORK_INTERFACE, HOSTS_VM, INCLUDES_DISK, Label, NIC, NODE, NodeRow, PARENT_SNAPSHOT, Relationship,
    RelationshipRow, SNAPSHOT, SNAPSHOT_OF, STORAGE, STORED_ON,
};
use pvegraph_graph::lease::Lease;
use pvegraph_graph::runs::Counts;
use pvegraph_graph::{Rows, Statement, Store, StoreError};
use pvegraph_inventory::{BackupJob, Cluster, Collector, Guest, Node, Observed, Storage};
use serde_json::{Value, json};

use crate::batch::Batch;
use crate::coverage::Coverage;
use crate::diff::{Change, Existing, is_another_guest};
use crate::history::{Of, Told, came_later, past_their_last};
use crate::unchanged::{self, Known, OF_DISKS, OF_GUESTS, OF_SNAPSHOTS};

/// Rows in one statement. 500 cost twice the time on Neo4j 5.26, and all rows at once cost its memory.
pub const BATCH_ROWS: usize = 5_000;
/// Transactions under way at once: on Neo4j 5.26 four take as long as two, which wait for each other's locks less and need less
/// memory.
pub const WRITERS: usize = 2;

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

/// Guests of which a job's answer does not tell all.
#[derive(Debug, Default)]
pub struct Untold {
    /// They stay although this run did not see them: PVE may have left them out of its answer as well.
    pub unseen: Vec<Value>,
    /// Their configurations could not be read, nor by PVE perhaps: their volumes stay as they are.
    pub unread: Vec<Value>,
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
    /// What was seen of the cluster before, by collector: nothing in its first run, which tells no changes.
    pub seen_before: &'a HashSet<String>,
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

    /// The changes of a transaction, none yet.
    fn told(&self) -> Told {
        Told::new(self.writer.tag, self.seen_before.is_empty() || self.lease.is_none())
    }

    /// Counts rows against what the graph has, and tells what they change; `of` collects them.
    async fn compare<T>(
        &self,
        (tally, told): (&mut Tally, &mut Told),
        (label, of): (&Label<T>, Collector),
        rows: &[NodeRow],
    ) -> Result<(), StoreError> {
        let keys: Vec<_> = rows.iter().map(|row| row.key.clone()).collect();
        let existing = Existing::new(label, self.read(self.writer.read_back(label, &[], &keys)).await?);
        for row in rows {
            self.tally(tally, label, row, existing.change(label, row));
            match existing.get(&row.key) {
                Some(before) => told.updated(label, before, row, false),
                None if self.seen_before.contains(of.as_str()) => told.created(label, row),
                None => {}
            }
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
        let mut told = self.told();
        let cluster_rows = vec![CLUSTER.row(cluster)];
        self.compare((tally, &mut told), (&CLUSTER, Collector::Cluster), &cluster_rows).await?;
        let node_rows: Vec<_> = nodes.iter().map(|node| NODE.row(node)).collect();
        self.compare((tally, &mut told), (&NODE, Collector::Nodes), &node_rows).await?;
        let storage_rows: Vec<_> = storages.iter().map(|storage| STORAGE.row(storage)).collect();
        self.compare((tally, &mut told), (&STORAGE, Collector::Storages), &storage_rows).await?;

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
        statements.extend(told.statements(writer));
        self.write(statements).await
    }

    /// Loads guests with what hangs on them, all in one transaction.
    pub async fn guests(&self, guests: &[Guest], coverage: &Coverage) -> Result<Tally, StoreError> {
        let mut tally = Tally::default();
        let writer = self.writer;
        let mut batch = Batch::new(guests, coverage);
        let keys: Vec<_> = batch.guests.iter().map(|row| row.key.clone()).collect();
        let known = self.known(&keys).await?;
        let replaced: Vec<Vec<Value>> = batch
            .guests
            .iter()
            .filter(|row| known.guests.get(&row.key).is_some_and(|known| is_another_guest(known, row)))
            .map(|row| row.key.clone())
            .collect();
        tally.count(GUEST.name).deleted += replaced.len() as u64;
        let mut told = self.told();
        for key in &replaced {
            let before = known.guests.get(key);
            told.deleted((&GUEST).into(), key, before.and_then(|before| before.get("name")));
        }
        let guests = &known.guests;
        self.reduce((&mut tally, &mut told), &GUEST, (guests, guests), &mut batch.guests, &replaced);
        let gone_disks =
            self.reduce((&mut tally, &mut told), &DISK, (&known.disks, guests), &mut batch.disks, &replaced);
        let gone_nics =
            self.reduce((&mut tally, &mut told), &NIC, (&known.nics, guests), &mut batch.nics, &replaced);
        let gone_snapshots = self.reduce(
            (&mut tally, &mut told),
            &SNAPSHOT,
            (&known.snapshots, guests),
            &mut batch.snapshots,
            &replaced,
        );
        for (label, gone) in
            [(DISK.name, &gone_disks), (NIC.name, &gone_nics), (SNAPSHOT.name, &gone_snapshots)]
        {
            tally.count(label).deleted += gone.len() as u64;
            if self.lease.is_none() {
                // Nothing is deleted: the sweep must not count it once more.
                tally.pretended.extend(gone.iter().map(|key| named(label, key)));
            }
        }
        let mut unchanged = unchanged::unchanged(&batch, &known);
        unchanged
            .retain(|vmid| !replaced.iter().any(|key| key.first().and_then(Value::as_i64) == Some(*vmid)));
        let is_unchanged =
            |key: &[Value]| key.first().and_then(Value::as_i64).is_some_and(|vmid| unchanged.contains(&vmid));
        batch.retain(|key| !is_unchanged(key));
        let (stamped, mut moved): (Vec<_>, Vec<_>) = keys.into_iter().partition(|key| is_unchanged(key));
        let mut disk_keys: Vec<_> = batch.disks.iter().map(|row| row.key.clone()).collect();
        if known.guests.is_empty() {
            // A first run: nothing has an old place.
            moved.clear();
            disk_keys.clear();
            batch.chained.clear();
        }
        drop(known);

        let Batch { guests, disks, nics, snapshots, parents, hosts, stored, chained, covered, included } =
            batch;
        let mut statements = vec![
            writer.delete(DISK.name, DISK.key, &gone_disks),
            writer.delete(NIC.name, NIC.key, &gone_nics),
            writer.delete(SNAPSHOT.name, SNAPSHOT.key, &gone_snapshots),
            writer.delete(GUEST.name, GUEST.key, &replaced),
            writer.upsert(&GUEST, guests),
            writer.confirm_owned(&DISK, &HAS_DISK, &stamped),
            writer.confirm_owned(&NIC, &HAS_NETWORK_INTERFACE, &stamped),
            writer.confirm_owned(&SNAPSHOT, &SNAPSHOT_OF, &stamped),
            writer.confirm_beyond(&SNAPSHOT, &SNAPSHOT_OF, &PARENT_SNAPSHOT, &stamped),
        ];
        statements.extend(writer.upsert_owned(&DISK, &HAS_DISK, disks));
        statements.extend(writer.upsert_owned(&NIC, &HAS_NETWORK_INTERFACE, nics));
        statements.extend(writer.upsert_owned(&SNAPSHOT, &SNAPSHOT_OF, snapshots));
        statements.extend(told.statements(writer));
        // What is shared with other writers comes last, so that nobody waits long.
        statements.extend([
            writer.relate(&PARENT_SNAPSHOT, parents),
            writer.unrelate(&PARENT_SNAPSHOT, &chained),
            writer.confirm(&GUEST, &HOSTS_VM, &stamped),
            writer.relate(&HOSTS_VM, hosts),
            writer.unrelate(&HOSTS_VM, &moved),
            writer.confirm_beyond(&DISK, &HAS_DISK, &STORED_ON, &stamped),
            writer.relate(&STORED_ON, stored),
            writer.unrelate(&STORED_ON, &disk_keys),
            writer.confirm(&GUEST, &BACKS_UP, &stamped),
            writer.relate(&BACKS_UP, covered),
            writer.confirm_beyond(&DISK, &HAS_DISK, &INCLUDES_DISK, &stamped),
            writer.relate(&INCLUDES_DISK, included),
        ]);
        statements.retain(|statement| !is_empty(statement));
        self.write(statements).await?;
        Ok(tally)
    }

    /// What the graph has of these guests.
    async fn known(&self, keys: &[Vec<Value>]) -> Result<Known, StoreError> {
        let guests = self.writer.read_back(&GUEST, &OF_GUESTS, keys);
        let guests = Existing::new(&GUEST, self.read(guests).await?);
        // A guest that the graph does not know has nothing in it. One without a configuration may: a replaced guest loses what its
        // predecessor had.
        let old: Vec<_> = keys.iter().filter(|key| guests.get(key).is_some()).cloned().collect();
        let (disks, nics, snapshots) = tokio::try_join!(
            self.read_children(&DISK, &HAS_DISK, &OF_DISKS, &old),
            self.read_children(&NIC, &HAS_NETWORK_INTERFACE, &[], &old),
            self.read_children(&SNAPSHOT, &SNAPSHOT_OF, &OF_SNAPSHOTS, &old),
        )?;
        Ok(Known { guests, disks, nics, snapshots })
    }

    async fn read_children<T>(
        &self,
        label: &Label<T>,
        of: &Relationship,
        related: &[&Relationship],
        guests: &[Vec<Value>],
    ) -> Result<Existing, StoreError> {
        if guests.is_empty() {
            return Ok(Existing::default());
        }
        Ok(Existing::new(
            label,
            self.read(self.writer.read_back_of_guests(label, of, related, guests)).await?,
        ))
    }

    /// Counts rows against what the graph has, tells what they change, and leaves in them what differs: a second run sends little.
    /// Answers the keys of what belongs to replaced guests, which is created anew.
    fn reduce<T>(
        &self,
        (tally, told): (&mut Tally, &mut Told),
        label: &Label<T>,
        (before, guests): (&Existing, &Existing),
        rows: &mut [NodeRow],
        replaced: &[Vec<Value>],
    ) -> Vec<Vec<Value>> {
        let is_replaced = |vmid: Option<&Value>| {
            vmid.is_some_and(|vmid| replaced.iter().any(|key| key.first() == Some(vmid)))
        };
        let is_guest = label.name == GUEST.name;
        let moved_on = past_their_last(label, before, rows);
        for row in rows {
            let vmid = row.key.first();
            if is_replaced(vmid) {
                self.tally(tally, label, row, Change::Created);
                if is_guest {
                    told.created(label, row);
                }
                continue;
            }
            self.tally(tally, label, row, before.change(label, row));
            let is_news = if is_guest {
                self.seen_before.contains(Collector::Guests.as_str())
            } else {
                let guest = vmid.and_then(|vmid| guests.get(std::slice::from_ref(vmid)));
                guest.is_some_and(|guest| came_later(label, guest))
            };
            match before.get(&row.key) {
                Some(before) => {
                    let went_back =
                        !vmid.and_then(Value::as_i64).is_some_and(|vmid| moved_on.contains(&vmid));
                    told.updated(label, before, row, went_back);
                }
                None if is_news => told.created(label, row),
                None => {}
            }
            before.reduce(label, row);
        }
        if replaced.is_empty() {
            return Vec::new();
        }
        before.iter().filter(|node| is_replaced(node.get("vmid"))).map(|node| label.key_of(node)).collect()
    }

    /// Loads backup jobs and where they write.
    pub async fn backup_jobs(&self, tally: &mut Tally, jobs: &[BackupJob]) -> Result<(), StoreError> {
        let writer = self.writer;
        let rows: Vec<_> = jobs.iter().map(|job| BACKUP_JOB.row(job)).collect();
        let mut told = self.told();
        self.compare((tally, &mut told), (&BACKUP_JOB, Collector::BackupJobs), &rows).await?;
        let placed = || jobs.iter().filter(|job| !job.is_unseen("storage"));
        let to = placed()
            .filter_map(|job| {
                Some(RelationshipRow::new(vec![json!(job.job_id)], vec![json!(job.storage.as_ref()?)]))
            })
            .collect();
        let owners: Vec<_> = placed().map(|job| vec![json!(job.job_id)]).collect();
        let mut statements = vec![
            writer.upsert(&BACKUP_JOB, rows),
            writer.relate(&BACKS_UP_TO, to),
            writer.unrelate(&BACKS_UP_TO, &owners),
        ];
        statements.extend(told.statements(writer));
        self.write(statements).await
    }

    /// Loads what jobs cover besides the guests that came in batches, then removes what they do not cover any more: no reader sees a
    /// job cover less than it did or does. `untold`: what is not covered any more could be told, but for these guests.
    pub async fn coverage(
        &self,
        coverage: &Coverage,
        loaded: &HashSet<i64>,
        untold: Option<Untold>,
    ) -> Result<(), StoreError> {
        let writer = self.writer;
        let others = coverage.others(loaded);
        for (kind, mut rows) in
            [(&BACKS_UP, coverage.guests(&others)), (&INCLUDES_DISK, coverage.volumes(&others))]
        {
            while !rows.is_empty() {
                let batch = rows.split_off(rows.len().saturating_sub(BATCH_ROWS));
                self.write(vec![writer.relate(kind, batch)]).await?;
            }
        }
        if let Some(Untold { unseen, unread }) = untold {
            let neither = [&unseen[..], &unread].concat();
            for job in coverage.jobs().chunks(1) {
                let old = vec![
                    writer.unrelate_but(&BACKS_UP, job, "vmid", &unseen),
                    writer.unrelate_but(&INCLUDES_DISK, job, "vmid", &neither),
                ];
                self.write(old).await?;
            }
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

    /// Deletes nodes that are gone. With a name, or null where it has none, that is told; without, it goes with what has it.
    pub async fn delete(
        &self,
        tally: &mut Tally,
        of: Of,
        gone: &[(Vec<Value>, Option<Value>)],
    ) -> Result<(), StoreError> {
        for batch in gone.chunks(BATCH_ROWS) {
            let keys: Vec<_> = batch.iter().map(|(key, _)| key.clone()).collect();
            let mut told = self.told();
            for (key, name) in batch.iter().filter_map(|(key, name)| Some((key, name.as_ref()?))) {
                told.deleted(of, key, Some(name));
            }
            let mut statements = vec![self.writer.delete(of.label, of.key, &keys)];
            statements.extend(told.statements(self.writer));
            self.write(statements).await?;
        }
        tally.count(of.label).deleted += gone.len() as u64;
        Ok(())
    }

    /// Marks nodes that stay although this run did not see them, by key.
    pub async fn keep(&self, tally: &mut Tally, of: Of, keys: &[Vec<Value>]) -> Result<(), StoreError> {
        for batch in keys.chunks(BATCH_ROWS) {
            self.write(vec![self.writer.mark_stale(of.label, of.key, batch)]).await?;
        }
        tally.count(of.label).kept += keys.len() as u64;
        Ok(())
    }
}
