//! The simulated cluster: its state in one place behind a lock, and what tests may do to it.

pub mod access;
pub mod config;
mod demo;
mod file;
mod generate;
mod guest;
mod guest_spec;
pub(crate) mod ids;
mod mutate;
mod parts;
mod snapshots;
mod spec;
pub mod state;
pub mod volname;

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use file::WorldFileError;
pub use generate::{AUDIT_TOKEN, POOL_TOKEN, ROOT_TOKEN, TFA_USER};
pub(crate) use ids::{fingerprint, quick_fraction};
pub(crate) use mutate::insert_token;
pub use spec::WorldSpec;
use state::{EPOCH, State};

/// Why the world cannot be changed as asked.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum WorldError {
    /// No such guest.
    #[error("the simulated cluster has no guest {0}; add it first")]
    NoGuest(u32),
    /// The vmid is taken.
    #[error("the simulated cluster already has a guest {0}; choose another vmid or remove it first")]
    GuestExists(u32),
    /// No such node.
    #[error("the simulated cluster has no node {0:?}")]
    NoNode(String),
    /// No such storage.
    #[error("the simulated cluster has no storage {0:?}; add it first")]
    NoStorage(String),
    /// No such pool.
    #[error("the simulated cluster has no pool {0:?}; add it first")]
    NoPool(String),
    /// No such backup job.
    #[error("the simulated cluster has no backup job {0:?}")]
    NoJob(String),
    /// No such user.
    #[error("the simulated cluster has no user {0:?}; add it first")]
    NoUser(String),
    /// No such role.
    #[error("the simulated cluster has no role {0:?}; use one of PVE's built-in roles or add it first")]
    NoRole(String),
    /// The guest has no disk under that key.
    #[error("guest {vmid} has no disk {key:?}")]
    NoDisk {
        /// The guest.
        vmid: u32,
        /// The key asked for.
        key: String,
    },
}

/// A token's id and secret, to be put into a client's configuration.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    /// `user@realm!name`.
    pub id: String,
    /// The secret, a UUID.
    pub secret: String,
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Credential").field("id", &self.id).finish_non_exhaustive()
    }
}

/// A simulated cluster.
///
/// Its methods are for tests; clients talk to it over HTTPS through [`SimServer`](crate::SimServer). Every method takes
/// the lock for its own duration only, and a panic of another holder does not spoil it.
#[derive(Debug)]
pub struct World {
    state: RwLock<State>,
    live: AtomicBool,
    clock_skew: AtomicI64,
    /// The factor for the time that tasks take, as the bits of a float.
    time_scale: AtomicU64,
    /// The millisecond at which the next running task ends.
    next_due: AtomicU64,
}

impl World {
    /// A world with exactly this state.
    pub fn from_state(state: State) -> Self {
        Self {
            state: RwLock::new(state),
            live: AtomicBool::new(false),
            clock_skew: AtomicI64::new(0),
            time_scale: AtomicU64::new(0f64.to_bits()),
            next_due: AtomicU64::new(u64::MAX),
        }
    }

    /// A generated world; the same specification gives the same world.
    pub fn generate(spec: &WorldSpec) -> Self {
        Self::from_state(generate::generate(spec))
    }

    /// Reads the state.
    pub fn read<R>(&self, look: impl FnOnce(&State) -> R) -> R {
        look(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the state as a whole; the other methods cover what tests usually need.
    pub fn update<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let done = change(&mut state);
        self.note_due(&state);
        done
    }

    /// Lets numbers such as `cpu`, `mem` and `uptime` vary with time. Off at first, so that answers repeat exactly.
    pub fn set_live_metrics(&self, live: bool) {
        self.live.store(live, Ordering::Relaxed);
    }

    /// Moves the cluster's clock by so many seconds; tickets and `/nodes/{n}/time` follow it.
    pub fn advance_clock(&self, seconds: i64) {
        self.clock_skew.fetch_add(seconds, Ordering::Relaxed);
    }

    /// The cluster's time in seconds since 1970: the machine's, moved by [`World::advance_clock`].
    pub fn now(&self) -> u64 {
        let machine = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
        machine.saturating_add_signed(self.clock_skew.load(Ordering::Relaxed))
    }

    /// The cluster's time in milliseconds since 1970.
    pub(crate) fn now_in_milliseconds(&self) -> u64 {
        let machine = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_millis();
        let skew = self.clock_skew.load(Ordering::Relaxed).saturating_mul(1000);
        u64::try_from(machine).unwrap_or(u64::MAX).saturating_add_signed(skew)
    }

    /// Sets how long tasks take: 0 lets each end before its request is answered, 1 lets them take a genuine time.
    pub fn set_time_scale(&self, scale: f64) {
        self.time_scale.store(scale.max(0.0).to_bits(), Ordering::Relaxed);
    }

    pub(crate) fn time_scale(&self) -> f64 {
        f64::from_bits(self.time_scale.load(Ordering::Relaxed))
    }

    /// Ends the running tasks whose time has come.
    pub(crate) fn settle(&self) {
        let now = self.now_in_milliseconds();
        if self.next_due.load(Ordering::Acquire) <= now {
            self.update(|state| crate::work::settle(state, now));
        }
    }

    /// Remembers when the next task ends, so that reading need not look.
    fn note_due(&self, state: &State) {
        let running = state.tasks.iter().rev().filter(|task| task.exit.is_none()).map(|task| task.due);
        self.next_due.store(running.min().unwrap_or(u64::MAX), Ordering::Release);
    }

    /// The moment that metrics are computed for: none unless they are live.
    pub(crate) fn metrics_time(&self) -> Option<u64> {
        self.live.load(Ordering::Relaxed).then(|| self.now().saturating_sub(EPOCH))
    }
}
