//! What a run could see: completeness per scope, and what follows for things that it did not find.
//!
//! A peer wiped inventories because one call failed, or because a token with fewer rights ran after one with more. Here a thing
//! is only taken for gone where its scope was complete and the token would have seen it.

use std::collections::BTreeMap;

use serde::Serialize;

/// What is collected, one kind of thing each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Collector {
    /// The cluster itself: name, quorum, release.
    Cluster,
    /// Its nodes.
    Nodes,
    /// The definitions of storages.
    Storages,
    /// What one node has of each storage.
    NodeStorages,
    /// The cluster-wide listing of guests.
    Guests,
    /// One node's listing of its machines, and their configurations.
    Qemu,
    /// One node's listing of its containers, and their configurations.
    Lxc,
    /// The snapshots of one node's guests.
    Snapshots,
    /// Backup jobs and what they take.
    BackupJobs,
}

impl Collector {
    /// Its name in the graph and in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cluster => "cluster",
            Self::Nodes => "nodes",
            Self::Storages => "storages",
            Self::NodeStorages => "node_storages",
            Self::Guests => "guests",
            Self::Qemu => "qemu",
            Self::Lxc => "lxc",
            Self::Snapshots => "snapshots",
            Self::BackupJobs => "backup_jobs",
        }
    }
}

/// How much of a scope was seen, from best to worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Completeness {
    /// All of it.
    Complete,
    /// All that the token may see, which is less.
    Filtered,
    /// Some of it; the rest failed.
    Partial,
    /// Nothing of it.
    Failed,
}

impl Completeness {
    /// Its name in the graph and in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Filtered => "filtered",
            Self::Partial => "partial",
            Self::Failed => "failed",
        }
    }
}

/// How one scope ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Scope {
    /// What was collected.
    pub collector: Collector,
    /// On which node; `None` for the whole cluster.
    pub node: Option<String>,
    /// How much of it was seen.
    pub status: Completeness,
    /// Why not all of it.
    pub reason: Option<String>,
    /// How many things were seen.
    pub count: u64,
}

/// All scopes of one cluster's run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scopes(BTreeMap<(Collector, Option<String>), Scope>);

impl Scopes {
    /// Notes how a scope ended. Said twice, the worse counts, and the counts add up.
    pub fn note(
        &mut self,
        collector: Collector,
        node: Option<&str>,
        status: Completeness,
        reason: Option<String>,
        count: usize,
    ) {
        let node = node.map(str::to_owned);
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        let scope = self.0.entry((collector, node.clone())).or_insert_with(|| Scope {
            collector,
            node,
            status: Completeness::Complete,
            reason: None,
            count: 0,
        });
        scope.count = scope.count.saturating_add(count);
        if status > scope.status || (status == scope.status && scope.reason.is_none()) {
            scope.status = status;
            scope.reason = reason;
        }
    }

    /// How a scope ended; `None` where it was not part of the run.
    pub fn status(&self, collector: Collector, node: Option<&str>) -> Option<Completeness> {
        self.0.get(&(collector, node.map(str::to_owned))).map(|scope| scope.status)
    }

    /// The scopes in a stable order.
    pub fn iter(&self) -> impl Iterator<Item = &Scope> {
        self.0.values()
    }

    /// The worst of all.
    pub fn worst(&self) -> Completeness {
        self.iter().map(|scope| scope.status).max().unwrap_or(Completeness::Complete)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worse_counts_and_keeps_its_reason() {
        let mut scopes = Scopes::default();
        scopes.note(Collector::Qemu, Some("pve1"), Completeness::Complete, None, 3);
        scopes.note(Collector::Qemu, Some("pve1"), Completeness::Partial, Some("guest 100: no".into()), 1);
        scopes.note(Collector::Qemu, Some("pve1"), Completeness::Filtered, Some("rights".into()), 0);
        let scope = scopes.iter().next().unwrap();
        assert_eq!((scope.status, scope.count), (Completeness::Partial, 4));
        assert_eq!(scope.reason.as_deref(), Some("guest 100: no"));
        assert_eq!(scopes.worst(), Completeness::Partial);
        assert_eq!(scopes.status(Collector::Lxc, Some("pve1")), None);
    }
}
