//! What is measured: estates by name, and the start of the program.

use std::fmt;
use std::time::Duration;

use clap::ValueEnum;
use serde::Serialize;

/// A named measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Case {
    /// 3 nodes, 60 guests: whether the bench works
    Small,
    /// 50 nodes, 10,000 guests, 20 ms
    Standard,
    /// 10 clusters of 50 nodes and 10,000 guests, 20 ms
    Large,
    /// `pvegraph --version`
    Start,
    /// `pvegraph plan`: 50 nodes, 10,000 desired guests, no latency
    Plan,
    /// `pvegraph apply` of 200 changes: 20 nodes, 1,000 desired guests, 20 ms
    Apply,
}

/// A simulated estate. Nodes and guests are those of all clusters together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Estate {
    /// Clusters, each with a simulator of its own.
    pub clusters: usize,
    /// Nodes.
    pub nodes: usize,
    /// Guests.
    pub guests: usize,
    /// How long each answer is held back, in milliseconds.
    pub latency_ms: u64,
}

impl Estate {
    /// The estate of a case; none for the start of the program.
    pub fn of(case: Case) -> Option<Self> {
        let (clusters, nodes, guests, latency_ms) = match case {
            Case::Small => (2, 4, 60, 2),
            Case::Standard => (1, 50, 10_000, 20),
            Case::Large => (10, 500, 100_000, 20),
            Case::Plan => (1, 50, 10_000, 0),
            Case::Apply => (1, 20, 1_000, 20),
            Case::Start => return None,
        };
        Some(Self { clusters, nodes, guests, latency_ms })
    }

    /// Nodes and guests of the cluster of this number: the first ones take what does not divide evenly.
    pub fn share(&self, cluster: usize) -> (usize, usize) {
        let of = |all: usize| all / self.clusters + usize::from(cluster < all % self.clusters);
        (of(self.nodes), of(self.guests))
    }

    /// The delay of one answer.
    pub fn latency(&self) -> Duration {
        Duration::from_millis(self.latency_ms)
    }

    /// Whether it can be simulated.
    ///
    /// # Errors
    /// A sentence that names the options.
    pub fn check(&self) -> Result<(), String> {
        if self.clusters == 0 {
            return Err("--clusters is at least 1".to_owned());
        }
        if self.nodes < self.clusters {
            return Err(format!(
                "--nodes {} is too few: each of {} clusters has one",
                self.nodes, self.clusters
            ));
        }
        Ok(())
    }
}

impl fmt::Display for Estate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { clusters, nodes, guests, latency_ms } = self;
        write!(f, "{clusters} × cluster, {nodes} nodes, {guests} guests, {latency_ms} ms")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clusters_share_nodes_and_guests_without_loss() {
        let estate = Estate { clusters: 3, nodes: 7, guests: 100, latency_ms: 0 };
        let shares: Vec<_> = (0..3).map(|cluster| estate.share(cluster)).collect();
        assert_eq!(shares, [(3, 34), (2, 33), (2, 33)]);
    }

    #[test]
    fn a_cluster_without_nodes_is_refused() {
        let estate = Estate { clusters: 3, nodes: 2, guests: 1, latency_ms: 0 };
        assert!(estate.check().unwrap_err().contains("--nodes 2"));
        assert!(Estate { clusters: 0, ..estate }.check().unwrap_err().contains("--clusters"));
    }
}
