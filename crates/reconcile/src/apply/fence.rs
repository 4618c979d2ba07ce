//! The lease, asked for before every call.
//!
//! The lease's node has a number that grows with each take-over; renewing it under our number is the fence. Where the graph does
//! not answer (Neo4j may run on a guest that the run touches) the lease is still ours until it would expire, less the time that a
//! call may take: nobody else can have it before.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use pvegraph_graph::apply_lease::AuditHead;
use pvegraph_graph::desired_labels::BINDING;
use pvegraph_graph::lease::{LEASE_SECONDS, Lease};
use pvegraph_graph::{Statement, Store};
use pvegraph_inventory::ClusterId;

use super::Clock;
use crate::audit::Head;
use crate::stored::{self, Binding};

/// How long the graph is waited for before a call. It may be down for as long as the lease lasts.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long before its end the lease is no longer relied on, in seconds: at least that, and longer than the time-out of a request.
const MARGIN: u64 = 60;
/// By how many seconds it is longer.
const BEYOND_REQUEST: u64 = 20;
/// How often the lease is renewed beside the work.
const RENEWAL: Duration = Duration::from_secs(LEASE_SECONDS.unsigned_abs() / 6);

/// Why nothing more is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// Somebody paused applies.
    Paused,
    /// Somebody paused the scope that a guest is in.
    ScopePaused(String),
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
            Self::ScopePaused(why) | Self::Expired(why) | Self::LeaseLost(why) => f.write_str(why),
        }
    }
}

/// The lease of a run.
pub struct Fence<'a> {
    store: &'a dyn Store,
    lease: Lease,
    clock: Clock<'a>,
    margin: Duration,
    kept_at: Option<String>,
    state: Mutex<State>,
}

struct State {
    good: Good,
    head: Option<AuditHead>,
    stop: Option<Stop>,
}

/// When the lease was ours for certain: just before it was asked for. By two clocks, because the host's time may be set, and the other
/// one stands still while the host sleeps.
#[derive(Debug, Clone, Copy)]
pub struct Good {
    instant: Instant,
    epoch_seconds: i64,
}

impl Good {
    /// Now, before the lease is asked for. `now` is in epoch seconds.
    pub fn since(now: i64) -> Self {
        Self { instant: Instant::now(), epoch_seconds: now }
    }

    /// For how much longer nobody else can have it.
    fn left(self, instant: Instant, now: i64) -> Duration {
        let whole = Duration::from_secs(LEASE_SECONDS.unsigned_abs());
        let went = u64::try_from(now.saturating_sub(self.epoch_seconds)).unwrap_or_default();
        let went = instant.saturating_duration_since(self.instant).max(Duration::from_secs(went));
        whole.saturating_sub(went)
    }
}

impl<'a> Fence<'a> {
    /// Of a lease that was taken after `good`. `request`: how long a call to PVE may take.
    pub fn new(store: &'a dyn Store, lease: Lease, clock: Clock<'a>, good: Good, request: Duration) -> Self {
        let state = State { good, head: None, stop: None };
        Self { store, lease, clock, margin: margin(request), kept_at: None, state: Mutex::new(state) }
    }

    /// Mirrors with the audit log's head where it is kept: the host, and the directory there.
    #[must_use]
    pub fn with_log_at(self, kept_at: String) -> Self {
        Self { kept_at: Some(kept_at), ..self }
    }

    /// Notes the head of the audit log, which is mirrored with the next renewal.
    pub fn audited(&self, head: &Head) {
        let entries = i64::try_from(head.entries).unwrap_or(i64::MAX);
        self.state().head =
            Some(AuditHead { entries, hash: head.hash.clone(), kept_at: self.kept_at.clone() });
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
        let asked = Good::since(now);
        let head = self.state().head.clone();
        let renewed = tokio::time::timeout(PATIENCE, self.lease.renew(self.store, head.as_ref(), now)).await;
        let mut state = self.state();
        match renewed {
            Ok(Ok(paused)) => {
                state.good = asked;
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
        let left = state.good.left(Instant::now(), (self.clock)());
        if left > self.margin {
            tracing::warn!(
                "the lease could not be renewed, and is ours for {} s more: {why}",
                left.as_secs()
            );
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

    /// Writes bindings.
    ///
    /// # Errors
    /// The graph does not answer, or the lease is lost; in words.
    pub async fn bound(&self, cluster: &ClusterId, bindings: &[Binding]) -> Result<(), String> {
        if bindings.is_empty() {
            return Ok(());
        }
        self.written(stored::bound(self.store.dialect(), cluster, bindings, (self.clock)())).await
    }

    /// Notes that the guests of these were deleted.
    ///
    /// # Errors
    /// Likewise.
    pub async fn destroyed(&self, cluster: &ClusterId, uids: &BTreeSet<&str>) -> Result<(), String> {
        if uids.is_empty() {
            return Ok(());
        }
        let now = (self.clock)();
        let text = format!(
            "MATCH (b:{} {{cluster_id: $cluster_id}})\nWHERE b.uid IN $uids\nSET b.destroyed_at = coalesce(b.destroyed_at, $now)",
            BINDING.name
        );
        let uids: Vec<&str> = uids.iter().copied().collect();
        let note =
            Statement::new(text).with("cluster_id", cluster.as_str()).with("uids", uids).with("now", now);
        self.written(vec![note]).await
    }

    /// Gives a number back that was kept for a guest.
    ///
    /// # Errors
    /// Likewise.
    pub async fn unreserved(&self, cluster: &ClusterId, uid: &str, vmid: i64) -> Result<(), String> {
        self.written(vec![stored::unreserved(cluster, uid, vmid)]).await
    }

    /// Writes as long as the lease is ours.
    async fn written(&self, mut statements: Vec<Statement>) -> Result<(), String> {
        statements.push(self.lease.guard((self.clock)()));
        match tokio::time::timeout(PATIENCE, self.store.write(statements)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("the graph does not answer".to_owned()),
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

/// How long before the lease's end nothing is sent any more where a request may take so long.
fn margin(request: Duration) -> Duration {
    (request + Duration::from_secs(BEYOND_REQUEST)).max(Duration::from_secs(MARGIN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lease_is_ours_by_both_clocks_or_not_at_all() {
        let good = Good::since(1_000);
        let at =
            |seconds: u64, now: i64| good.left(good.instant + Duration::from_secs(seconds), now).as_secs();
        assert_eq!(at(0, 1_000), 120);
        assert_eq!(at(30, 1_030), 90);
        assert_eq!(at(30, 400), 90, "the host's time was set back");
        assert_eq!(at(1, 1_100), 20, "the host slept");
        assert_eq!(at(500, 1_500), 0);
    }

    #[test]
    fn a_request_ends_before_the_lease() {
        assert_eq!(margin(Duration::from_secs(10)), Duration::from_secs(60));
        assert_eq!(margin(Duration::from_secs(90)), Duration::from_secs(110));
    }
}
