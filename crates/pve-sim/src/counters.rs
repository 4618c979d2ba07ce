//! What the server counts.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Counts of requests and connections since the server started.
#[derive(Debug, Default)]
pub struct Counters {
    by_path: Mutex<BTreeMap<String, usize>>,
    writes: Mutex<BTreeMap<(String, String), usize>>,
    total: AtomicUsize,
    now: AtomicUsize,
    highest: AtomicUsize,
    connections: AtomicUsize,
}

impl Counters {
    /// All requests.
    pub fn total(&self) -> usize {
        self.total.load(Ordering::Relaxed)
    }

    /// The requests of one path below `/api2/json`, whatever their query.
    pub fn of(&self, path: &str) -> usize {
        self.by_path.lock().unwrap_or_else(PoisonError::into_inner).get(path).copied().unwrap_or_default()
    }

    /// The requests by path.
    pub fn by_path(&self) -> BTreeMap<String, usize> {
        self.by_path.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The requests of one path that were not to read: with this method, `PUT` for example.
    pub fn writes(&self, method: &str, path: &str) -> usize {
        let writes = self.writes.lock().unwrap_or_else(PoisonError::into_inner);
        writes.get(&(method.to_owned(), path.to_owned())).copied().unwrap_or_default()
    }

    /// The most requests that were in progress at once.
    pub fn highest_concurrency(&self) -> usize {
        self.highest.load(Ordering::Relaxed)
    }

    /// The connections that were accepted, TLS or not.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    pub(crate) fn connected(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a request in progress until the guard is dropped.
    pub(crate) fn begin(&self, method: &str, path: &str) -> InProgress<'_> {
        if method != "GET" {
            let mut writes = self.writes.lock().unwrap_or_else(PoisonError::into_inner);
            *writes.entry((method.to_owned(), path.to_owned())).or_default() += 1;
        }
        let mut by_path = self.by_path.lock().unwrap_or_else(PoisonError::into_inner);
        match by_path.get_mut(path) {
            Some(count) => *count += 1,
            None => drop(by_path.insert(path.to_owned(), 1)),
        }
        drop(by_path);
        self.total.fetch_add(1, Ordering::Relaxed);
        let now = self.now.fetch_add(1, Ordering::Relaxed) + 1;
        self.highest.fetch_max(now, Ordering::Relaxed);
        InProgress(self)
    }
}

/// A request in progress.
pub(crate) struct InProgress<'a>(&'a Counters);

impl Drop for InProgress<'_> {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::Relaxed);
    }
}
