//! What world to generate.

/// The size and seed of a generated world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorldSpec {
    /// The cluster's name; `None` makes a standalone node.
    pub cluster_name: Option<String>,
    /// Nodes, at least one; a standalone node is always alone.
    pub nodes: usize,
    /// Guests.
    pub guests: usize,
    /// Storages, at least `local` and `local-lvm`; then come NFS, RBD, ZFS, one that is disabled, one that is limited to
    /// the last node, and further NFS shares.
    pub storages: usize,
    /// The seed; the same specification always gives the same world.
    pub seed: u64,
    /// Whether to make the named demonstration estate, whatever the other numbers say.
    pub(super) demo: bool,
}

impl WorldSpec {
    /// Storages of a world that does not say how many: one of each kind.
    pub const DEFAULT_STORAGES: usize = 7;

    /// A cluster of that many nodes and guests.
    pub fn new(cluster_name: &str, nodes: usize, guests: usize, seed: u64) -> Self {
        Self {
            cluster_name: Some(cluster_name.to_owned()),
            nodes,
            guests,
            storages: Self::DEFAULT_STORAGES,
            seed,
            demo: false,
        }
    }

    /// A node that is in no cluster.
    pub fn standalone(guests: usize, seed: u64) -> Self {
        Self { cluster_name: None, ..Self::new("", 1, guests, seed) }
    }

    /// The named demonstration estate: 3 nodes and 24 guests, made by hand so that every canned report has rows: a guest
    /// in no backup job, an excluded disk, a hot node, a full local storage, and ordinary guests around them.
    pub fn demo() -> Self {
        Self { demo: true, ..Self::new("demo", 3, 24, 1) }
    }
}
