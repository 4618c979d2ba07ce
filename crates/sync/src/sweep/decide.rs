//! What to do with things that are in the graph and were not seen: a pure decision, made before anything is deleted.

use std::collections::HashSet;

use pvegraph_inventory::{Collector, Completeness, GuestType, Scopes};

/// A guest that the graph has and this run did not touch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaleGuest {
    /// Its number.
    pub vmid: i64,
    /// The node that it was on.
    pub node: String,
    /// Its type, as far as the graph knows.
    pub kind: Option<GuestType>,
}

/// What one run knows, as far as it decides about absent things.
pub struct Evidence<'a> {
    /// How each scope ended.
    pub scopes: &'a Scopes,
    /// The cluster has quorum: without it a node's view of the cluster may be old.
    pub quorate: bool,
    /// The nodes of the cluster.
    pub nodes: &'a HashSet<String>,
    /// The guests that a listing showed, loaded or not.
    pub listed: &'a HashSet<i64>,
    /// The token would see this guest if it existed.
    pub may_see_guest: &'a dyn Fn(i64) -> bool,
    /// The token would see this storage if it existed.
    pub may_see_storage: &'a dyn Fn(&str) -> bool,
}

/// Why something that was not seen stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kept {
    /// Its scope did not end complete.
    ScopeIncomplete,
    /// The token might not be allowed to see it.
    NotPermitted,
    /// The cluster has no quorum.
    NoQuorum,
    /// It still carries something that stays.
    InUse,
}

impl Kept {
    /// In words, for a report.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ScopeIncomplete => "the crawl of its scope was not complete",
            Self::NotPermitted => "the token may lack the right to see it",
            Self::NoQuorum => "the cluster has no quorum, or could not be asked",
            Self::InUse => "guests that are kept are on it",
        }
    }
}

impl Evidence<'_> {
    /// A listing that answered whole, or all that the token may see of it.
    fn answered(&self, collector: Collector, node: Option<&str>) -> bool {
        matches!(self.scopes.status(collector, node), Some(Completeness::Complete | Completeness::Filtered))
    }

    /// Whether a guest is gone.
    pub fn guest(&self, guest: &StaleGuest) -> Result<(), Kept> {
        if self.listed.contains(&guest.vmid) {
            return Err(Kept::ScopeIncomplete);
        }
        if !self.quorate {
            return Err(Kept::NoQuorum);
        }
        if !self.answered(Collector::Guests, None) {
            return Err(Kept::ScopeIncomplete);
        }
        // A node that left the cluster has no listing of its own any more; the cluster's listing is the proof then.
        if self.nodes.contains(&guest.node) {
            let listings = match guest.kind {
                Some(GuestType::Qemu) => &[Collector::Qemu][..],
                Some(GuestType::Lxc) => &[Collector::Lxc],
                None => &[Collector::Qemu, Collector::Lxc],
            };
            // A partial listing answered: what failed in it is a configuration of a guest that was listed.
            let listed = |collector: &Collector| {
                !matches!(
                    self.scopes.status(*collector, Some(&guest.node)),
                    None | Some(Completeness::Failed)
                )
            };
            if !listings.iter().all(listed) {
                return Err(Kept::ScopeIncomplete);
            }
        }
        if (self.may_see_guest)(guest.vmid) { Ok(()) } else { Err(Kept::NotPermitted) }
    }

    /// Whether a storage is gone.
    pub fn storage(&self, name: &str) -> Result<(), Kept> {
        if !self.quorate {
            return Err(Kept::NoQuorum);
        }
        if !self.answered(Collector::Storages, None) {
            return Err(Kept::ScopeIncomplete);
        }
        if (self.may_see_storage)(name) { Ok(()) } else { Err(Kept::NotPermitted) }
    }

    /// Whether a node is gone. `hosts_kept`: a guest that stays in the graph is on it, and no guest is without its node.
    pub fn node(&self, hosts_kept: bool) -> Result<(), Kept> {
        if !self.quorate {
            return Err(Kept::NoQuorum);
        }
        if !self.answered(Collector::Nodes, None) {
            return Err(Kept::ScopeIncomplete);
        }
        if hosts_kept { Err(Kept::InUse) } else { Ok(()) }
    }

    /// Whether a backup job is gone. The listing needs a right on the whole cluster, so it is whole or refused.
    pub fn backup_job(&self) -> Result<(), Kept> {
        if !self.quorate {
            return Err(Kept::NoQuorum);
        }
        // The listing itself answered; what failed, if anything, is one job's volumes.
        match self.scopes.status(Collector::BackupJobs, None) {
            Some(Completeness::Complete | Completeness::Partial) => Ok(()),
            Some(Completeness::Filtered) => Err(Kept::NotPermitted),
            Some(Completeness::Failed) | None => Err(Kept::ScopeIncomplete),
        }
    }
}

/// Bounds what one run may delete.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Guard {
    /// The largest share of a cluster's nodes of one label, in percent.
    pub max_delete_percent: f64,
    /// Labels with fewer nodes are not guarded: half of two is one.
    pub from: u64,
}

/// 30 % of a cluster does not vanish between two runs; a listing that says so is more likely wrong.
pub const MAX_DELETE_PERCENT: f64 = 30.0;
/// Below this many objects single deletions would trip the guard.
pub const GUARD_FROM: u64 = 20;

/// From this many objects on, all of them going at once is guarded as well, however few they are: the estate of a home has a dozen
/// guests, and a listing that came back empty takes them all.
pub const WHOLE_FROM: u64 = 3;

impl Default for Guard {
    fn default() -> Self {
        Self { max_delete_percent: MAX_DELETE_PERCENT, from: GUARD_FROM }
    }
}

impl Guard {
    /// Refuses a sweep that takes more than its share of any label (label, to be deleted, in the graph); the text says of which and
    /// how to allow it.
    ///
    /// # Errors
    /// What would be deleted, in words.
    pub fn check(&self, labels: &[(&'static str, u64, u64)]) -> Result<(), String> {
        let beyond: Vec<String> = labels
            .iter()
            .filter_map(|(label, deleted, total)| {
                #[allow(clippy::cast_precision_loss)] // counts of nodes stay far below 2^52
                let percent = *deleted as f64 * 100.0 / (*total).max(1) as f64;
                let all = deleted == total && *total >= WHOLE_FROM;
                ((*total >= self.from || all) && percent > self.max_delete_percent)
                    .then(|| format!("{deleted} of {total} {label} ({percent:.0} %)"))
            })
            .collect();
        if beyond.is_empty() {
            return Ok(());
        }
        Err(format!(
            "{} would be deleted, more than {} %: none of them was deleted; if they are really gone, run once with \
             --max-delete-percent 100",
            beyond.join(", "),
            self.max_delete_percent
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole() -> Scopes {
        let mut scopes = Scopes::default();
        for collector in [Collector::Guests, Collector::Nodes, Collector::Storages, Collector::BackupJobs] {
            scopes.note(collector, None, Completeness::Complete, None, 0);
        }
        for collector in [Collector::Qemu, Collector::Lxc] {
            scopes.note(collector, Some("a"), Completeness::Complete, None, 0);
        }
        scopes
    }

    struct World {
        scopes: Scopes,
        quorate: bool,
        listed: HashSet<i64>,
        may_see: bool,
    }

    impl World {
        fn new() -> Self {
            Self { scopes: whole(), quorate: true, listed: HashSet::new(), may_see: true }
        }

        fn ask<T>(&self, question: impl FnOnce(&Evidence<'_>) -> T) -> T {
            let nodes = HashSet::from(["a".to_owned()]);
            question(&Evidence {
                scopes: &self.scopes,
                quorate: self.quorate,
                nodes: &nodes,
                listed: &self.listed,
                may_see_guest: &|_| self.may_see,
                may_see_storage: &|_| self.may_see,
            })
        }

        fn guest(&self, node: &str, kind: GuestType) -> Result<(), Kept> {
            self.ask(|evidence| {
                evidence.guest(&StaleGuest { vmid: 100, node: node.into(), kind: Some(kind) })
            })
        }
    }

    #[test]
    fn a_guest_is_gone_when_everything_proves_it() {
        assert_eq!(World::new().guest("a", GuestType::Lxc), Ok(()));
    }

    #[test]
    fn a_failed_listing_of_its_node_and_type_keeps_a_guest() {
        let mut world = World::new();
        world.scopes.note(Collector::Lxc, Some("a"), Completeness::Failed, None, 0);
        assert_eq!(world.guest("a", GuestType::Lxc), Err(Kept::ScopeIncomplete));
        assert_eq!(world.guest("a", GuestType::Qemu), Ok(()));
    }

    #[test]
    fn a_failed_listing_of_the_cluster_keeps_every_guest() {
        let mut world = World::new();
        world.scopes.note(Collector::Guests, None, Completeness::Failed, None, 0);
        assert_eq!(world.guest("a", GuestType::Qemu), Err(Kept::ScopeIncomplete));
        assert_eq!(world.guest("gone", GuestType::Qemu), Err(Kept::ScopeIncomplete));
    }

    #[test]
    fn a_token_that_would_not_see_it_proves_nothing() {
        let mut world = World::new();
        world.may_see = false;
        assert_eq!(world.guest("a", GuestType::Qemu), Err(Kept::NotPermitted));
        assert_eq!(world.ask(|evidence| evidence.storage("s")), Err(Kept::NotPermitted));
    }

    #[test]
    fn without_quorum_nothing_is_gone() {
        let mut world = World::new();
        world.quorate = false;
        assert_eq!(world.guest("a", GuestType::Qemu), Err(Kept::NoQuorum));
        assert_eq!(world.ask(|evidence| evidence.storage("s")), Err(Kept::NoQuorum));
        assert_eq!(world.ask(|evidence| evidence.node(false)), Err(Kept::NoQuorum));
        assert_eq!(world.ask(|evidence| evidence.backup_job()), Err(Kept::NoQuorum));
    }

    #[test]
    fn a_listed_guest_is_never_gone() {
        let mut world = World::new();
        world.listed.insert(100);
        assert_eq!(world.guest("a", GuestType::Qemu), Err(Kept::ScopeIncomplete));
    }

    #[test]
    fn a_guest_of_a_node_that_left_is_gone_by_the_clusters_listing() {
        assert_eq!(World::new().guest("left", GuestType::Qemu), Ok(()));
    }

    #[test]
    fn a_node_stays_while_a_kept_guest_is_on_it() {
        let world = World::new();
        assert_eq!(world.ask(|evidence| evidence.node(true)), Err(Kept::InUse));
        assert_eq!(world.ask(|evidence| evidence.node(false)), Ok(()));
    }

    #[test]
    fn refused_backup_jobs_are_kept() {
        let mut world = World::new();
        world.scopes.note(Collector::BackupJobs, None, Completeness::Filtered, None, 0);
        assert_eq!(world.ask(|evidence| evidence.backup_job()), Err(Kept::NotPermitted));
    }

    #[test]
    fn the_guard_counts_by_label_and_leaves_small_ones_alone() {
        let guard = Guard::default();
        let check = |deleted, total| guard.check(&[("ProxmoxVM", deleted, total)]);
        assert_eq!(check(30, 100), Ok(()));
        assert!(check(31, 100).unwrap_err().contains("31 of 100 ProxmoxVM (31 %)"));
        assert_eq!(check(18, 19), Ok(()));
        assert!(check(19, 19).is_err());
        assert!(check(3, 3).is_err());
        assert_eq!(check(2, 2), Ok(()));
        assert!(check(20, 20).is_err());
    }
}
