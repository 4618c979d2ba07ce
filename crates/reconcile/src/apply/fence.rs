//! The lease, asked for before every call.
//!
//! The lease's node has a number that grows with each take-over; renewing it under our number is the fence. Where the graph does
//! not answer (Neo4j may run on a guest that the run touches) the lease is still ours until it would expire, less the time that a
//! call may take: nobody else can have it before.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use pvegraph_graph::apply_lease::AuditHead;
use pvegraph_graph::desired_labels::BINDING;
use pvegraph_graph::lease::{LEASE_SECONDS, Lease};
use pvegraph_graph::{Statement, Store};
use pvegraph_inventory::ClusterId;

use super::Clock;
use crate::audit::Head;

/// How long the graph is waited for before a call. It may be down for as long as the lease lasts.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long before its end the lease is no longer relied on, in seconds: longer than the time-out of a request.
const MARGIN: i64 = 60;
/// How often the lease is renewed beside the work.
const RENEWAL: Duration = Duration::from_secs(LEASE_SECONDS.unsigned_abs() / 6);

/// Why nothing more is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// Somebody paused applies.
    Paused,
    /// Whoever started the run ended it.
    Interrupted,
    /// The plan may not be gone by any more, and why.
    Expired(String),
    /// Somebody else has the lease, or it can't be renewed for too long.
    LeaseLost(String),
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Paused => f.write_str("applies are paused"),
            Self::Interrupted => f.write_str("the run was interrupted"),
            Self::Expired(why) | Self::LeaseLost(why) => f.write_str(why),
        }
    }
}

/// The lease of a run.
pub struct Fence<'a> {
    store: &'a dyn Store,
    lease: Lease,
    clock: Clock<'a>,
    state: Mutex<State>,
}

struct State {
    good_until: i64,
    head: Option<AuditHead>,
    stop: Option<Stop>,
}

impl<'a> Fence<'a> {
    /// Of a lease that was taken at `now`.
    pub fn new(store: &'a dyn Store, lease: Lease, clock: Clock<'a>) -> Self {
        let state = State { good_until: clock() + LEASE_SECONDS, head: None, stop: None };
        Self { store, lease, clock, state: Mutex::new(state) }
    }

    /// Notes the head of the audit log, which is mirrored with the next renewal.
    pub fn audited(&self, head: &Head) {
        let entries = i64::try_from(head.entries).unwrap_or(i64::MAX);
        self.state().head = Some(AuditHead { entries, hash: head.hash.clone() });
    }

    /// Lets nothing more be sent. What is under way is followed to its end.
    pub fn stop(&self, why: Stop) {
        self.state().stop.get_or_insert(why);
    }

    /// Says whether a call may be sent now.
    ///
    /// # Errors
    /// It may not.
    pub async fn may_send(&self) -> Result<(), Stop> {
        if let Some(stop) = &self.state().stop {
            return Err(stop.clone());
        }
        let now = (self.clock)();
        let head = self.state().head.clone();
        let renewed = tokio::time::timeout(PATIENCE, self.lease.renew(self.store, head.as_ref(), now)).await;
        let mut state = self.state();
        match renewed {
            Ok(Ok(paused)) => {
                state.good_until = now + LEASE_SECONDS;
                if paused { Err(Stop::Paused) } else { Ok(()) }
            }
            Ok(Err(error)) if error.is_lease_lost() => {
                let stop = Stop::LeaseLost("another process has taken the lease".to_owned());
                state.stop = Some(stop.clone());
                Err(stop)
            }
            Ok(Err(error)) => self.without_graph(&state, &error.to_string()),
            Err(_) => self.without_graph(&state, "the graph does not answer"),
        }
    }

    fn without_graph(&self, state: &State, why: &str) -> Result<(), Stop> {
        let left = state.good_until - (self.clock)();
        if left > MARGIN {
            tracing::warn!("the lease could not be renewed, and is ours for {left} s more: {why}");
            return Ok(());
        }
        Err(Stop::LeaseLost(format!("the lease could not be renewed in time: {why}")))
    }

    /// Renews the lease for as long as this is polled: a task may run for longer than the lease.
    pub async fn keep(&self) -> std::convert::Infallible {
        loop {
            tokio::time::sleep(RENEWAL).await;
            // What it says counts when the next call asks.
            if let Err(Stop::LeaseLost(why)) = self.may_send().await {
                tracing::warn!("{why}: nothing more will be sent");
            }
        }
    }

    /// Notes at the bindings of these guests that something was applied now. Without the graph that is left out.
    pub async fn applied(&self, cluster: &ClusterId, uids: &BTreeSet<&str>) {
        if uids.is_empty() {
            return;
        }
        let now = (self.clock)();
        let text = format!(
            "MATCH (b:{} {{cluster_id: $cluster_id}})\nWHERE b.uid IN $uids\nSET b.last_applied = $now",
            BINDING.name
        );
        let uids: Vec<&str> = uids.iter().copied().collect();
        let note =
            Statement::new(text).with("cluster_id", cluster.as_str()).with("uids", uids).with("now", now);
        let noted = self.store.write(vec![note, self.lease.guard(now)]);
        match tokio::time::timeout(PATIENCE, noted).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the graph was not told when guests were changed"),
            Err(_) => tracing::warn!("the graph was not told when guests were changed: it does not answer"),
        }
    }

    /// Mirrors the last head and gives the lease back. Without the graph it expires by itself, and the head is mirrored by the next run.
    pub async fn release(self) {
        let head = self.state().head.clone();
        let given = async {
            self.lease.renew(self.store, head.as_ref(), (self.clock)()).await?;
            self.lease.release(self.store).await
        };
        let why = match tokio::time::timeout(PATIENCE, given).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) if error.is_lease_lost() => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the graph does not answer".to_owned(),
        };
        tracing::warn!("the lease could not be given back, and expires by itself: {why}");
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
