//! When a failed read is repeated, and when a failing node has had its share of patience.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBuilder};

/// Repeats of one read. With the delays below they cover 15 to 31 s: a restart of the API daemons takes a few
/// seconds, a pause of the cluster file system about ten.
const MAX_RETRIES: usize = 5;
/// The first delay; each next one is twice as long, and jitter adds up to as much again.
const MIN_DELAY: Duration = Duration::from_millis(500);
/// The longest delay before jitter.
const MAX_DELAY: Duration = Duration::from_secs(8);
/// How long a node may fail without one good answer before its requests are no longer repeated. Two of PVE's
/// own 30 s proxy time-outs: what has not come back by then will not come back during the run.
const NODE_DEADLINE: Duration = Duration::from_secs(60);

/// When reads are repeated: on 502, 503, 504, 595, 596, 599, connection errors and time-outs. Any other answer,
/// a 500 above all, is an answer. Writes are not repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Repeats of one read, after its first try.
    pub max_retries: usize,
    /// The first delay.
    pub min_delay: Duration,
    /// The longest delay, before jitter.
    pub max_delay: Duration,
    /// How long a node may fail without one good answer before each of its requests gets one try only.
    pub node_deadline: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            max_retries: MAX_RETRIES,
            min_delay: MIN_DELAY,
            max_delay: MAX_DELAY,
            node_deadline: NODE_DEADLINE,
        }
    }
}

impl RetryPolicy {
    /// The delays before the repeats of one read.
    pub(crate) fn delays(&self) -> impl Iterator<Item = Duration> + Send + use<> {
        ExponentialBuilder::new()
            .with_min_delay(self.min_delay)
            .with_max_delay(self.max_delay)
            .with_max_times(self.max_retries)
            .with_jitter()
            .build()
    }

    /// For about how long one read is repeated, where each try takes as long as `each`: delays with half of what jitter may add.
    pub(crate) fn patience(&self, each: Duration) -> Duration {
        let mut left = u32::try_from(self.max_retries).unwrap_or(u32::MAX);
        let mut whole = each.saturating_mul(left);
        let mut delay = self.min_delay.min(self.max_delay);
        // Until it grows no more.
        while left > 0 && !delay.is_zero() && delay < self.max_delay {
            whole = whole.saturating_add(delay).saturating_add(delay / 2);
            delay = delay.saturating_mul(2).min(self.max_delay);
            left -= 1;
        }
        let rest = delay.saturating_add(delay / 2).saturating_mul(left);
        whole.saturating_add(rest).min(self.node_deadline)
    }
}

/// How long a node, or the way to the cluster, has been failing without one good answer.
#[derive(Debug, Default)]
pub(crate) struct Trouble(Mutex<Option<Since>>);

#[derive(Debug, Clone, Copy)]
struct Since {
    began: Instant,
    // Kept apart from the clock: a shorter delay must not revive a deadline that is spent.
    spent: bool,
}

impl Trouble {
    /// Notes a failed try and says whether another one after `delay` keeps within `deadline`.
    pub(crate) fn may_retry(&self, try_began: Instant, delay: Duration, deadline: Duration) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let since = state.get_or_insert(Since { began: try_began, spent: false });
        if since.began.elapsed() + delay > deadline {
            since.spent = true;
        }
        !since.spent
    }

    /// Notes that an answer came.
    pub(crate) fn clear(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_and_end() {
        let delays: Vec<Duration> = RetryPolicy::default().delays().collect();
        assert_eq!(delays.len(), MAX_RETRIES);
        for (delay, least) in delays.iter().zip([500, 1000, 2000, 4000, 8000]) {
            let least = Duration::from_millis(least);
            assert!(*delay >= least && *delay <= 2 * least, "{delay:?} for {least:?}");
        }
    }

    /// Seen failing with: the longest delay counted once.
    #[test]
    fn patience_is_about_what_the_delays_add_up_to() {
        let policy = RetryPolicy::default();
        assert_eq!(policy.patience(Duration::ZERO), Duration::from_millis(23_250));
        let longer = RetryPolicy { max_retries: 7, ..policy };
        assert_eq!(longer.patience(Duration::from_secs(1)), Duration::from_millis(54_250));
        assert_eq!(policy.patience(Duration::from_secs(10)), NODE_DEADLINE);
        // As many as there can be are counted in no time.
        for min_delay in [Duration::ZERO, Duration::from_nanos(1)] {
            let endless = RetryPolicy { max_retries: usize::MAX, min_delay, ..policy };
            assert!(endless.patience(Duration::ZERO) <= NODE_DEADLINE);
        }
    }

    #[test]
    fn two_requests_draw_different_jitter() {
        let policy = RetryPolicy { max_retries: 20, ..RetryPolicy::default() };
        assert_ne!(policy.delays().collect::<Vec<_>>(), policy.delays().collect::<Vec<_>>());
    }

    #[test]
    fn a_spent_deadline_stays_spent_until_an_answer_comes() {
        let trouble = Trouble::default();
        let now = Instant::now();
        let hour = Duration::from_secs(3600);
        assert!(trouble.may_retry(now, Duration::ZERO, hour));
        assert!(!trouble.may_retry(now, 2 * hour, hour));
        assert!(!trouble.may_retry(now, Duration::ZERO, hour));
        trouble.clear();
        assert!(trouble.may_retry(now, Duration::ZERO, hour));
    }
}
