//! The sweep: what the graph has and the run did not see is deleted where it is proven gone, and marked where it stays.

mod decide;

use std::collections::{BTreeMap, HashSet};

use pvegraph_graph::labels::{BACKUP_JOB, DISK, GUEST, Label, NIC, NODE, SNAPSHOT, STORAGE, guest_type};
use pvegraph_graph::{Rows, StoreError};
use pvegraph_inventory::{Collector, Completeness, NodeStatus};
use serde_json::Value;

pub use self::decide::{Evidence, GUARD_FROM, Guard, Kept, MAX_DELETE_PERCENT, StaleGuest, WHOLE_FROM};
use crate::crawl::{Crawl, Survey};
use crate::feed::Seen;
use crate::history::Of;
use crate::load::{Loader, Tally};

/// What a sweep did, besides its counts.
#[derive(Debug, Default)]
pub struct Swept {
    /// Why things that were not seen stay, and how many.
    pub kept: BTreeMap<&'static str, u64>,
    /// Why nothing was deleted, if the guard said so.
    pub blocked: Option<String>,
    /// What a listing lacks is gone, as far as the cluster goes: it has quorum, and is the one that the graph knows.
    pub quorate: bool,
}

/// The fates of one label's untouched nodes, by key.
struct Fates {
    of: Of,
    /// With the name that is told; without one, for what goes with its guest.
    delete: Vec<(Vec<Value>, Option<Value>)>,
    keep: Vec<Vec<Value>>,
}

impl Swept {
    /// Decides about each row, which begins with its key. `name` is what is told of one that goes.
    fn decide<T>(
        &mut self,
        label: &Label<T>,
        rows: &Rows,
        name: impl Fn(&[Value]) -> Option<Value>,
        decide: impl Fn(&[Value]) -> Result<(), Kept>,
    ) -> Fates {
        let mut fates = Fates { of: label.into(), delete: Vec::new(), keep: Vec::new() };
        for row in &rows.rows {
            let key = row.iter().take(label.key.len()).cloned().collect();
            match decide(row) {
                Ok(()) => fates.delete.push((key, name(row))),
                Err(why) => {
                    *self.kept.entry(why.as_str()).or_default() += 1;
                    fates.keep.push(key);
                }
            }
        }
        fates
    }
}

fn text(row: &[Value], at: usize) -> &str {
    row.get(at).and_then(Value::as_str).unwrap_or_default()
}

fn number(row: &[Value]) -> Option<i64> {
    row.first().and_then(Value::as_i64)
}

/// Which of these backup jobs, in no listing, PVE does not know either.
async fn jobs_gone(crawl: &Crawl, seen: &mut Seen, rows: &Rows) -> HashSet<String> {
    let answered = !matches!(
        seen.scopes.status(Collector::BackupJobs, None),
        None | Some(Completeness::Failed | Completeness::Filtered)
    );
    if !answered {
        return HashSet::new();
    }
    let unlisted: Vec<String> = rows.rows.iter().map(|row| text(row, 0).to_owned()).collect();
    let gone = crawl.jobs_gone(&unlisted).await;
    if let Some(job) = unlisted.iter().find(|job| !gone.contains(*job)) {
        let reason = format!("the listing lacks job {job}, and PVE does not say that it is gone");
        seen.scopes.note(Collector::BackupJobs, None, Completeness::Partial, Some(reason), 0);
    }
    gone
}

/// Deletes what is proven gone, and marks what stays unseen. Everything is decided before anything is deleted, because the guard
/// looks at all of it.
///
/// # Errors
/// The store failed. What is deleted by then is gone, and the next run deletes the rest.
pub async fn sweep(
    loader: Loader<'_>,
    tally: &mut Tally,
    crawl: &Crawl,
    survey: &Survey,
    seen: &mut Seen,
    guard: Guard,
) -> Result<Swept, StoreError> {
    let guest_rows = loader.untouched(tally, &GUEST, &["node", "type", "name"]).await?;
    let storage_rows = loader.untouched(tally, &STORAGE, &[]).await?;
    let job_rows = loader.untouched(tally, &BACKUP_JOB, &[]).await?;

    let unlisted: Vec<i64> = guest_rows
        .rows
        .iter()
        .filter_map(|row| number(row))
        .filter(|vmid| !seen.listed.contains(vmid) && survey.may_see_guest(*vmid))
        .collect();
    let storages: Vec<String> = storage_rows
        .rows
        .iter()
        .map(|row| text(row, 0).to_owned())
        .filter(|name| survey.may_see_storage(name))
        .collect();
    let confirmed = crawl.confirm(&unlisted, &storages).await;
    let may_see_guest = |vmid| confirmed.guests.contains(&vmid);
    let may_see_storage = |name: &str| confirmed.storages.contains(name);
    let jobs_gone = jobs_gone(crawl, seen, &job_rows).await;

    let node_names: HashSet<String> = survey.nodes.iter().map(|node| node.name.clone()).collect();
    // A token that may not ask for the quorum still sees which nodes are online: more than half of them are one. A question that
    // failed leaves it open.
    let online = survey.nodes.iter().filter(|node| node.status == NodeStatus::Online).count();
    let majority = online * 2 > survey.nodes.len();
    let quorum_unknown = seen.scopes.status(Collector::Cluster, None) >= Some(Completeness::Partial);
    let evidence = Evidence {
        scopes: &seen.scopes,
        quorate: survey.cluster.quorate.unwrap_or(majority) && !quorum_unknown,
        nodes: &node_names,
        listed: &seen.listed,
        may_see_guest: &may_see_guest,
        may_see_storage: &may_see_storage,
    };

    let mut swept = Swept { quorate: evidence.quorate, ..Swept::default() };
    let guests = swept.decide(
        &GUEST,
        &guest_rows,
        |row| row.get(3).cloned(),
        |row| {
            evidence.guest(&StaleGuest {
                vmid: number(row).unwrap_or_default(),
                node: text(row, 1).to_owned(),
                kind: guest_type(text(row, 2)),
            })
        },
    );
    let gone: HashSet<i64> = guests.delete.iter().filter_map(|(key, _)| number(key)).collect();
    let hosts_kept: HashSet<&str> = guest_rows
        .rows
        .iter()
        .filter(|row| number(row).is_none_or(|vmid| !gone.contains(&vmid)))
        .map(|row| text(row, 1))
        .collect();

    // What its guest's answer no longer names is gone; so is what belongs to a guest that is.
    let named_by = |understood: &HashSet<i64>, row: &[Value]| match number(row) {
        Some(vmid) if gone.contains(&vmid) || understood.contains(&vmid) => Ok(()),
        _ => Err(Kept::ScopeIncomplete),
    };
    let by_config = |row: &[Value]| named_by(&seen.understood, row);
    let of_guest =
        |row: &[Value]| number(row).is_none_or(|vmid| !gone.contains(&vmid)).then_some(Value::Null);
    let named = |row: &[Value]| of_guest(row).and_then(|_| row.get(1).cloned());
    let first = |row: &[Value]| row.first().cloned();
    let disks = swept.decide(&DISK, &loader.untouched(tally, &DISK, &[]).await?, of_guest, by_config);
    let nics = swept.decide(&NIC, &loader.untouched(tally, &NIC, &[]).await?, of_guest, by_config);
    let snapshots = swept.decide(&SNAPSHOT, &loader.untouched(tally, &SNAPSHOT, &[]).await?, named, |row| {
        named_by(&seen.snapshots_understood, row)
    });
    let jobs = swept.decide(
        &BACKUP_JOB,
        &job_rows,
        |_| Some(Value::Null),
        |row| {
            evidence.backup_job()?;
            if jobs_gone.contains(text(row, 0)) { Ok(()) } else { Err(Kept::ScopeIncomplete) }
        },
    );
    let storages = swept.decide(&STORAGE, &storage_rows, first, |row| evidence.storage(text(row, 0)));
    let nodes = swept.decide(&NODE, &loader.untouched(tally, &NODE, &[]).await?, first, |row| {
        evidence.node(hosts_kept.contains(text(row, 0)))
    });

    // After the decisions: what could be asked about stays decided.
    seen.note(confirmed.notes);

    // Children first: no committed state shows a volume without its guest, or a guest without its node.
    let all = [disks, nics, snapshots, guests, jobs, storages, nodes];
    let mut shares = Vec::new();
    for Fates { of, delete, .. } in &all {
        shares.push((of.label, delete.len() as u64, loader.total(of.label).await?));
    }
    let blocked = guard.check(&shares).err();
    for Fates { of, delete, keep } in &all {
        if blocked.is_some() {
            let stay: Vec<_> = delete.iter().map(|(key, _)| key.clone()).collect();
            loader.keep(tally, *of, &stay).await?;
        } else {
            loader.delete(tally, *of, delete).await?;
        }
        loader.keep(tally, *of, keep).await?;
    }
    swept.blocked = blocked;
    Ok(swept)
}
