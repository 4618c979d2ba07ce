//! One estate, measured: simulators and a server are started, and everything on it runs one after the other.

use std::path::PathBuf;
use std::process::Command;

use pvegraph_testkit::{Neo4jServer, OwnedServer, Settings};
use tempfile::TempDir;

use crate::case::Estate;
use crate::figures::{Measured, Round, Starts, median};
use crate::floors::{crawl, load};
use crate::graph_program::{GraphProgram, Login};
use crate::problem::{Problem, While};
use crate::processes::{load_average, measure};
use crate::simulators::Simulator;

/// What all cases share.
#[derive(Debug)]
pub struct Bench {
    /// `pvegraph`.
    pub pvegraph: PathBuf,
    /// `pve-sim`.
    pub pve_sim: PathBuf,
    /// The server's heap, such as `2g`.
    pub heap: String,
    /// The server's page cache, such as `512m`.
    pub page_cache: String,
    /// Rounds after the cold one.
    pub runs: usize,
    /// Starts of the program.
    pub starts: usize,
    /// The seed of the first simulator of each case.
    pub seed: u64,
}

impl Bench {
    /// Measures an estate on a server of its own.
    ///
    /// # Errors
    /// Something does not start, or fails.
    pub async fn estate(&self, case: &str, estate: &Estate) -> Result<Measured, Problem> {
        estate.check().map_err(Problem::new)?;
        let directory = TempDir::with_prefix("pvegraph-bench-").when("a temporary directory")?;
        let place = directory.path();
        say(&format!("{case}: {estate}; seed {}; load average {:.2}", self.seed, load_average()));
        let mut simulators = Vec::new();
        for (cluster, seed) in (0..estate.clusters).zip(self.seed..) {
            simulators.push(Simulator::start(&self.pve_sim, place, estate, cluster, seed).await?);
        }
        let server = self.server().await;
        let login = Login {
            uri: server.bolt_uri.clone(),
            user: server.user.clone(),
            password: server.password.clone(),
        };
        let program = GraphProgram::new(&self.pvegraph, place, &login, &simulators)?;

        let cold = program.sync(&simulators).await?;
        say(&format!("  first sync after the server's start: {:.1} s", cold.usage.wall_seconds));
        let plan = crawl::record(place, &simulators)?;
        let mut rounds = Vec::new();
        for number in 1..=self.runs {
            empty(&server).await;
            let migrate = program.migrate()?;
            let first = program.sync(&simulators).await?;
            say(&format!("  round {number}: first run {:.1} s", first.usage.wall_seconds));
            let second = program.sync(&simulators).await?;
            say(&format!("  round {number}: second run {:.1} s", second.usage.wall_seconds));
            let crawl_floor = crawl::run(&plan)?;
            say(&format!("  round {number}: crawl's floor {:.1} s", crawl_floor.floor.seconds));
            let load_floor = load::run(place, &login)?;
            say(&format!("  round {number}: load's floor {:.1} s", load_floor.floor.seconds));
            rounds.push(Round { migrate, first, second, crawl_floor, load_floor });
        }
        Ok(Measured { case: case.to_owned(), estate: estate.clone(), seed: self.seed, cold, rounds })
    }

    /// A server of its own.
    pub async fn server(&self) -> OwnedServer {
        let settings = Settings::default()
            .heap(&self.heap)
            .set("server.memory.heap.initial_size", &self.heap)
            .set("server.memory.pagecache.size", &self.page_cache)
            .server_jvm();
        Neo4jServer::start_own(settings).await
    }

    /// Measures the start of the program.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(&self) -> Result<Starts, Problem> {
        let load_average = load_average();
        let mut seconds = Vec::new();
        for _ in 0..self.starts {
            let ended = measure(Command::new(&self.pvegraph).arg("--version"))?;
            seconds.push(ended.with_code("pvegraph --version", &[0])?.usage.wall_seconds);
        }
        let least_seconds = seconds.iter().copied().fold(f64::INFINITY, f64::min);
        let median_seconds = median(seconds).ok_or_else(|| Problem::new("--starts is at least 1"))?;
        Ok(Starts { count: self.starts, median_seconds, least_seconds, load_average })
    }
}

/// Takes everything out of the graph, constraints and indexes included.
async fn empty(server: &Neo4jServer) {
    server.wipe().await;
}

/// Says how far it is; figures go to standard output in the end.
pub fn say(words: &str) {
    eprintln!("{words}");
}
