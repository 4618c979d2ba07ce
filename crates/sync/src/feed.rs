//! From the crawl to the loader: units become batches, and batches are loaded by several writers while the crawl goes on.

use std::collections::{BTreeSet, HashSet};
use std::time::{Duration, Instant};

use futures::stream::{FuturesUnordered, StreamExt};
use pvegraph_graph::StoreError;
use pvegraph_inventory::{Guest, Scopes};

use crate::coverage::Coverage;
use crate::crawl::{Note, Unit, Units};
use crate::load::{Loader, Tally, WRITERS};

/// Guests in one transaction, with what hangs on them some 5,000 rows: smaller ones cost Neo4j time, larger ones cost Neo4j memory,
/// and this program. A writer waits for as many while the crawl goes on.
const BATCH_GUESTS: usize = 500;

/// How long guests wait for more while the store is idle: what was read is not to wait for what is slow.
const PATIENCE: Duration = Duration::from_millis(700);

/// What the units of a run have told so far.
#[derive(Debug, Default)]
pub struct Seen {
    /// How the scopes ended.
    pub scopes: Scopes,
    /// Guests that were loaded.
    pub loaded: HashSet<i64>,
    /// Guests whose configuration was understood to the last value.
    pub understood: HashSet<i64>,
    /// Guests whose configuration was asked for and could not be read, or not to the last value.
    pub unread: BTreeSet<i64>,
    /// Guests whose snapshots were.
    pub snapshots_understood: HashSet<i64>,
    /// Guests that a listing showed.
    pub listed: HashSet<i64>,
    /// Guests that were gone when their configuration was read.
    pub gone: HashSet<i64>,
    /// What was odd in the answers.
    pub odd: Vec<String>,
}

impl Seen {
    /// Enters how scopes ended.
    pub fn note(&mut self, notes: Vec<Note>) {
        for Note { collector, node, status, reason, count } in notes {
            self.scopes.note(collector, node.as_deref(), status, reason, count);
        }
    }

    /// Enters what a unit tells, and answers the guests that are to be loaded. A guest that migrated during the crawl may be in the
    /// listings of two nodes. It is in one place: the first that was told, and the next run's.
    fn enter(&mut self, unit: Unit) -> impl Iterator<Item = Guest> {
        let Unit { guests, understood, unread, snapshots_understood, listed, gone, notes, odd } = unit;
        self.note(notes);
        self.understood.extend(understood);
        self.unread.extend(unread);
        self.snapshots_understood.extend(snapshots_understood);
        self.listed.extend(listed);
        self.gone.extend(gone);
        self.odd.extend(odd);
        guests.into_iter().filter(|guest| self.loaded.insert(guest.vmid))
    }
}

/// Loads all that a crawl tells of guests, and answers when the crawl was done. `loaded` is told of each batch's size.
///
/// # Errors
/// The first transaction that failed ends it, and those under way are given up.
pub async fn load_all(
    loader: Loader<'_>,
    tally: &mut Tally,
    seen: &mut Seen,
    units: &mut Units,
    coverage: &Coverage,
    loaded: impl Fn(usize),
) -> Result<Instant, StoreError> {
    let mut waiting: Vec<Guest> = Vec::new();
    let mut loading = FuturesUnordered::new();
    let mut crawled_at = None;
    let mut is_overdue = false;
    let mut idle_since = None;
    loop {
        let least = if is_overdue || crawled_at.is_some() { 1 } else { BATCH_GUESTS };
        while loading.len() < WRITERS && waiting.len() >= least {
            let rest = waiting.split_off(waiting.len().min(BATCH_GUESTS));
            let batch = std::mem::replace(&mut waiting, rest);
            loading.push(async move { (batch.len(), loader.guests(&batch, coverage).await) });
        }
        is_overdue = false;
        let is_idle = loading.is_empty() && !waiting.is_empty();
        idle_since = is_idle.then(|| idle_since.unwrap_or_else(tokio::time::Instant::now));
        let late = idle_since.unwrap_or_else(tokio::time::Instant::now) + PATIENCE;
        tokio::select! {
            unit = units.next(), if crawled_at.is_none() && waiting.len() < BATCH_GUESTS => match unit {
                Some(unit) => waiting.extend(seen.enter(unit)),
                None => crawled_at = Some(Instant::now()),
            },
            Some((guests, done)) = loading.next() => {
                tally.add(done?);
                loaded(guests);
            }
            () = tokio::time::sleep_until(late), if is_idle => is_overdue = true,
            // Nothing is under way, nothing waits, and the crawl is done.
            else => return Ok(crawled_at.unwrap_or_else(Instant::now)),
        }
    }
}

/// Loads what one unit tells, in one transaction.
///
/// # Errors
/// The transaction failed.
pub async fn load_one(
    loader: Loader<'_>,
    tally: &mut Tally,
    seen: &mut Seen,
    unit: Unit,
    coverage: &Coverage,
    loaded: impl Fn(usize),
) -> Result<(), StoreError> {
    let guests: Vec<Guest> = seen.enter(unit).collect();
    if !guests.is_empty() {
        tally.add(loader.guests(&guests, coverage).await?);
        loaded(guests.len());
    }
    Ok(())
}
