//! The lease: at most one sync writes to a graph at a time, and at most one apply changes a cluster.
//!
//! It is a node with a holder, a number that grows with each take-over (the fencing number) and an expiry. The run's tag is
//! drawn under it, so that two runs never share one. Every transaction of the holder carries [`Lease::guard`]: a holder
//! that lost its lease writes nothing more, because the guard and the write are one transaction.
//!
//! # Assumptions
//! Clocks of hosts that work with one graph differ by less than [`LEASE_SECONDS`].

use std::convert::Infallible;
use std::time::Duration;

use crate::labels::LEASE;
use crate::store::{Statement, Store, StoreError};

/// How long a lease lasts without being renewed: longer than any single transaction may take to be given up, and short enough
/// that the next cron run after a crash is not locked out.
pub const LEASE_SECONDS: i64 = 120;

/// What a lease is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose<'a> {
    /// Syncing; one for each graph.
    Sync,
    /// Changing the cluster of this identifier.
    Apply(&'a str),
}

impl Purpose<'_> {
    /// The `id` of the lease's node.
    pub fn id(self) -> String {
        match self {
            Self::Sync => "sync".to_owned(),
            Self::Apply(cluster) => format!("apply:{cluster}"),
        }
    }
}

/// The name of the constraint that keeps it one.
pub(crate) const CONSTRAINT: &str = "pvegraph_lease_key";

/// A third of the lease's length: two renewals may be lost.
const RENEWAL: Duration = Duration::from_secs(LEASE_SECONDS.unsigned_abs() / 3);

/// Who wants the lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// What others read who find the lease taken: host and process. Unique to this process.
    pub name: String,
    /// The identity of a local lock that this process holds for as long as it lives. Where a lease is still held under the same
    /// lock, its holder must be dead, and the lease need not be waited for.
    pub lock: Option<String>,
}

/// A lease that is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    id: String,
    holder: String,
    number: i64,
    /// The tag of this run: later than every tag before, in epoch seconds.
    pub tag: i64,
}

/// Why a lease could not be had.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// Somebody else has it.
    #[error("another {} until {} unless it renews; try again later", doing(.id, .holder), at(*.expires_at))]
    Held {
        /// The lease, see [`Purpose::id`].
        id: String,
        /// Who, as they called themselves.
        holder: String,
        /// Epoch seconds.
        expires_at: i64,
    },
    /// The store failed.
    #[error("the lease could not be taken")]
    Store(#[from] StoreError),
}

/// The lease's node is one. A migration says so too: it is the same constraint then.
fn constraint() -> String {
    format!("CREATE CONSTRAINT {CONSTRAINT} IF NOT EXISTS FOR (l:{LEASE}) REQUIRE l.id IS UNIQUE")
}

fn doing(id: &str, holder: &str) -> String {
    match id.strip_prefix("apply:") {
        Some(cluster) => format!("apply is changing the cluster {cluster}: {holder},"),
        None => format!("sync is writing to this graph: {holder},"),
    }
}

fn at(epoch_seconds: i64) -> String {
    jiff::Timestamp::from_second(epoch_seconds).map_or_else(|_| "?".to_owned(), |time| time.to_string())
}

impl Lease {
    /// Takes the lease of syncs and draws the run's tag. `now` is in epoch seconds.
    ///
    /// # Errors
    /// Somebody else has it, or the store failed.
    pub async fn take(store: &dyn Store, holder: &Holder, now: i64) -> Result<Self, LeaseError> {
        Self::take_for(store, Purpose::Sync, holder, now).await
    }

    /// Takes a lease, likewise.
    ///
    /// # Errors
    /// Likewise.
    pub async fn take_for(
        store: &dyn Store,
        purpose: Purpose<'_>,
        holder: &Holder,
        now: i64,
    ) -> Result<Self, LeaseError> {
        let id = purpose.id();
        let Holder { name, lock } = holder;
        // Before the first migration nothing makes the node unique, and two that begin at once would each make one of their own.
        let known = Statement::new(format!("MATCH (l:{LEASE} {{id: $id}})\nRETURN l.id AS id"))
            .with("id", id.as_str());
        if store.read(known).await?.rows.is_empty() {
            store.schema(&constraint()).await?;
        }
        // Setting a property first takes the node's lock, so that what WHERE reads can't change before it is written. A retry after
        // a lost answer finds itself the holder, and draws one more tag.
        let take = Statement::new(format!(
            "MERGE (l:{LEASE} {{id: $id}})\nSET l.asked_at = $now\nWITH l\n\
             WHERE l.holder IS NULL OR l.holder = $holder OR l.expires_at < $now OR l.lock = $lock\n\
             SET l.holder = $holder, l.lock = $lock, l.number = coalesce(l.number, 0) + 1, l.expires_at = $now + $seconds,\n    \
             l.tag = CASE WHEN coalesce(l.tag, 0) < $now THEN $now ELSE l.tag + 1 END\n\
             RETURN l.number AS number, l.tag AS tag"
        ))
        .with("id", id.as_str())
        .with("holder", name.as_str())
        .with("lock", lock.as_deref().map_or(serde_json::Value::Null, Into::into))
        .with("now", now)
        .with("seconds", LEASE_SECONDS);
        let answer = store.write(vec![take]).await?;
        let got =
            |column| answer.first().and_then(|rows| rows.get(0, column)).and_then(serde_json::Value::as_i64);
        if let (Some(number), Some(tag)) = (got("number"), got("tag")) {
            return Ok(Self { id, holder: name.clone(), number, tag });
        }
        let who = Statement::new(format!(
            "MATCH (l:{LEASE} {{id: $id}})\nRETURN l.holder AS holder, l.expires_at AS expires_at"
        ))
        .with("id", id.as_str());
        let rows = store.read(who).await?;
        Err(LeaseError::Held {
            holder: rows.get(0, "holder").and_then(|value| value.as_str()).unwrap_or("unknown").to_owned(),
            expires_at: rows.get(0, "expires_at").and_then(serde_json::Value::as_i64).unwrap_or(now),
            id,
        })
    }

    /// The `id` of its node.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// The last statement of each of the holder's transactions: renews the lease, or stops the transaction where it is lost. Last,
    /// because it locks the lease's node until the commit, and parallel writers would queue there.
    pub fn guard(&self, now: i64) -> Statement {
        Statement::new(format!(
            "MATCH (l:{LEASE} {{id: $id}})\nWHERE l.holder = $holder AND l.number = $number\n\
             SET l.expires_at = CASE WHEN l.expires_at < $until THEN $until ELSE l.expires_at END\nRETURN l.number AS number"
        ))
        .with("id", self.id.as_str())
        .with("holder", self.holder.as_str())
        .with("number", self.number)
        .with("until", now + LEASE_SECONDS)
        .guarding()
    }

    /// Renews the lease for as long as this is polled: beside work that may go longer without a transaction of its own. Each
    /// transaction asks for the lease itself, so that a failure here is no more than noted. `clock` tells epoch seconds.
    pub async fn keep(&self, store: &dyn Store, clock: impl Fn() -> i64) -> Infallible {
        loop {
            tokio::time::sleep(RENEWAL).await;
            if let Err(error) = store.write(vec![self.guard(clock())]).await {
                tracing::warn!(%error, lease = self.id, "the lease could not be renewed");
            }
        }
    }

    /// Gives the lease back. One that was lost meanwhile is left alone.
    pub async fn release(self, store: &dyn Store) -> Result<(), StoreError> {
        let release = Statement::new(format!(
            "MATCH (l:{LEASE} {{id: $id}})\nWHERE l.holder = $holder AND l.number = $number\nSET l.holder = null, l.lock = null, l.expires_at = null"
        ))
        .with("id", self.id)
        .with("holder", self.holder)
        .with("number", self.number);
        store.write(vec![release]).await.map(drop)
    }
}
