//! What was measured, as it goes into the JSON file. Every figure is a measured one; what the program does not tell is `None`.

use serde::{Deserialize, Serialize};

use crate::case::Estate;

/// What one process used, from its start until it was waited for.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// Seconds from start to end.
    pub wall_seconds: f64,
    /// Seconds of processor time, in user space and in the kernel.
    pub cpu_seconds: f64,
    /// The most memory that was resident, in bytes.
    pub peak_bytes: u64,
    /// The machine's load average over one minute when the process was started.
    pub load_average: f64,
}

/// One `pvegraph sync`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sync {
    /// What the process used.
    pub usage: Usage,
    /// Requests, as the simulators count them.
    pub requests: u64,
    /// From the start of each cluster's run until its last answer, summed over the clusters.
    pub crawl_seconds: Option<f64>,
    /// While at least one transaction or read-back was under way, likewise.
    pub load_seconds: Option<f64>,
    /// The exit code; 0 is success.
    pub exit_code: i32,
}

/// The same requests by a bare client.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct CrawlFloor {
    /// From the first request until the last answer.
    pub seconds: f64,
    /// Requests.
    pub requests: u64,
    /// Bytes of the answers' bodies.
    pub bytes: u64,
    /// Answers with another status than 200.
    pub refused: u64,
}

/// The same rows by bare `CREATE`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LoadFloor {
    /// From the first statement until the last commit.
    pub seconds: f64,
    /// Nodes created.
    pub nodes: u64,
    /// Relationships created.
    pub relationships: u64,
}

/// A floor with what its process used. The process of the load's floor also reads the rows back and deletes them, outside of the
/// floor's seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Floor<T> {
    /// What was done.
    pub floor: T,
    /// By this process.
    pub usage: Usage,
}

/// Both floors and both runs, one after the other on the same machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Round {
    /// `pvegraph migrate up` on the empty database.
    pub migrate: Usage,
    /// Into the empty database.
    pub first: Sync,
    /// Nothing changed since.
    pub second: Sync,
    /// The crawl's floor.
    pub crawl_floor: Floor<CrawlFloor>,
    /// The load's floor.
    pub load_floor: Floor<LoadFloor>,
}

/// One estate.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Measured {
    /// Its case.
    pub case: String,
    /// How large it is.
    pub estate: Estate,
    /// The seed of its first simulator; the next ones count on.
    pub seed: u64,
    /// The first sync after the server's start, with migrations: the server has compiled nothing yet.
    pub cold: Sync,
    /// The rounds after that.
    pub rounds: Vec<Round>,
}

impl Measured {
    /// The best of the rounds: noise only ever adds time.
    pub fn least(&self, of: impl Fn(&Round) -> f64) -> f64 {
        self.rounds.iter().map(of).fold(f64::INFINITY, f64::min)
    }

    /// The best of the rounds; none where a round does not tell.
    pub fn least_known(&self, of: impl Fn(&Round) -> Option<f64>) -> Option<f64> {
        self.rounds.iter().map(of).collect::<Option<Vec<_>>>()?.into_iter().min_by(f64::total_cmp)
    }

    /// The most memory that any sync had resident, in bytes.
    pub fn peak_bytes(&self) -> u64 {
        let of = |sync: &Sync| sync.usage.peak_bytes;
        self.rounds
            .iter()
            .flat_map(|round| [of(&round.first), of(&round.second)])
            .fold(of(&self.cold), u64::max)
    }

    /// Lowest and highest load average before any of the processes.
    pub fn load_average(&self) -> (f64, f64) {
        let of_round = |round: &Round| {
            let Round { migrate, first, second, crawl_floor, load_floor } = round;
            [migrate, &first.usage, &second.usage, &crawl_floor.usage, &load_floor.usage]
                .map(|u| u.load_average)
        };
        let all = self.rounds.iter().flat_map(of_round).chain([self.cold.usage.load_average]);
        all.fold((f64::INFINITY, 0.0), |(low, high), one| (low.min(one), high.max(one)))
    }
}

/// Plans of one estate.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plans {
    /// The estate.
    pub estate: Estate,
    /// The simulator's seed.
    pub seed: u64,
    /// Operations of each plan.
    pub operations: usize,
    /// The plans, one after the other; nothing changes between them.
    pub rounds: Vec<PlanRun>,
}

/// One `pvegraph plan`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PlanRun {
    /// What the process used.
    pub usage: Usage,
    /// Requests, as the simulator counts them.
    pub requests: u64,
    /// While the cluster was asked, as the program tells.
    pub cluster_seconds: f64,
}

impl PlanRun {
    /// What is not the cluster's: start, graph, comparison, plan, output.
    pub fn own_seconds(&self) -> f64 {
        self.usage.wall_seconds - self.cluster_seconds
    }
}

/// Applying to one estate.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Applies {
    /// The estate.
    pub estate: Estate,
    /// The simulator's seed.
    pub seed: u64,
    /// Operations of each plan.
    pub operations: usize,
    /// One after the other.
    pub rounds: Vec<ApplyRun>,
}

/// One `pvegraph apply`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ApplyRun {
    /// What the process used.
    pub usage: Usage,
    /// Requests, as the simulator counts them.
    pub requests: u64,
    /// Operations under way at once, at most.
    pub most: usize,
    /// The same on average, whenever one began in the middle of the run.
    pub mean: f64,
}

/// Everything that was measured.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Figures {
    /// Syncs.
    pub estates: Vec<Measured>,
    /// Plans.
    pub plan: Option<Plans>,
    /// Applying.
    pub apply: Option<Applies>,
    /// Starts.
    pub start: Option<Starts>,
}

/// Many starts of the program.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Starts {
    /// How many.
    pub count: usize,
    /// The middle one, from start to end, in seconds.
    pub median_seconds: f64,
    /// The fastest.
    pub least_seconds: f64,
    /// The machine's load average before.
    pub load_average: f64,
}

/// The middle of some values; the lower one of two.
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len().checked_sub(1)? / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_a_measured_value() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.0));
    }
}
