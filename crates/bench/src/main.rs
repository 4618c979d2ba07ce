//! `pvegraph-bench`: runs simulated clusters, a real Neo4j and `pvegraph` as separate processes, measures what each run takes,
//! and holds it against what is physically needed, measured beside it. See `docs/bench.md`.

mod applies;
mod case;
mod desired_estate;
mod figures;
mod floors;
mod graph_program;
mod plans;
mod problem;
mod processes;
mod rounds;
#[cfg(test)]
mod samples;
mod simulators;
mod table;
mod verdict;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use serde_json::json;

use case::{Case, Estate};
use figures::Figures;
use problem::{Problem, While};
use rounds::Bench;
use table::Format;

/// Measures pvegraph against simulated clusters and a real Neo4j, beside the floors of the same work.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    child: Option<Child>,
    /// What is measured, one after the other
    #[arg(value_enum, default_values = ["start", "standard"])]
    cases: Vec<Case>,
    /// Clusters, instead of the case's own
    #[arg(long)]
    clusters: Option<usize>,
    /// Nodes of all clusters together, likewise
    #[arg(long)]
    nodes: Option<usize>,
    /// Guests of all clusters together, likewise
    #[arg(long)]
    guests: Option<usize>,
    /// How long each answer of Proxmox VE is held back, likewise
    #[arg(long)]
    latency_ms: Option<u64>,
    /// Rounds of each case after a cold run; the best counts
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    runs: u16,
    /// Starts of `pvegraph --version`
    #[arg(long, default_value_t = 101, value_parser = clap::value_parser!(u16).range(1..))]
    starts: u16,
    /// The seed of the simulated estates; a random one without it
    #[arg(long)]
    seed: Option<u32>,
    /// Neo4j's heap
    #[arg(long, default_value = "2g")]
    heap: String,
    /// Neo4j's page cache
    #[arg(long, default_value = "512m")]
    page_cache: String,
    /// Where to write all figures
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// How tables are printed
    #[arg(long, value_enum, default_value_t)]
    out: Format,
    /// The program, if it is not beside this one
    #[arg(long, value_name = "FILE")]
    pvegraph: Option<PathBuf>,
    /// The simulator, likewise
    #[arg(long, value_name = "FILE")]
    pve_sim: Option<PathBuf>,
}

/// What this program does as a measured process of its own.
#[derive(Debug, Subcommand)]
#[command(hide = true)]
enum Child {
    /// Keep what the simulators were asked
    #[command(hide = true)]
    RecordRequests { job: PathBuf },
    /// Ask it again
    #[command(hide = true)]
    FloorCrawl { job: PathBuf },
    /// Create the graph's rows again
    #[command(hide = true)]
    FloorLoad { job: PathBuf },
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // Two crates of the tree speak TLS; the process has one provider for both. Only a second call fails.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let ended = match &arguments.child {
        Some(Child::RecordRequests { job }) => floors::crawl::recording(job).await,
        Some(Child::FloorCrawl { job }) => floors::crawl::measured(job).await,
        Some(Child::FloorLoad { job }) => floors::load::measured(job).await,
        None => bench(&arguments).await,
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("pvegraph-bench: {problem}");
            ExitCode::FAILURE
        }
    }
}

async fn bench(arguments: &Arguments) -> Result<(), Problem> {
    let bench = Bench {
        pvegraph: processes::program("pvegraph", arguments.pvegraph.as_ref())?,
        pve_sim: processes::program("pve-sim", arguments.pve_sim.as_ref())?,
        heap: arguments.heap.clone(),
        page_cache: arguments.page_cache.clone(),
        runs: usize::from(arguments.runs),
        starts: usize::from(arguments.starts),
        seed: u64::from(arguments.seed.unwrap_or_else(rand::random)),
    };
    let mut figures = Figures::default();
    for case in &arguments.cases {
        match Estate::of(*case) {
            None => figures.start = Some(bench.start()?),
            Some(estate) if *case == Case::Plan => {
                figures.plan = Some(bench.plans(&arguments.changed(estate)).await?);
            }
            Some(estate) if *case == Case::Apply => {
                figures.apply = Some(bench.applies(&arguments.changed(estate)).await?);
            }
            Some(estate) => {
                let name = clap::ValueEnum::to_possible_value(case)
                    .map_or(String::new(), |it| it.get_name().to_owned());
                figures.estates.push(bench.estate(&name, &arguments.changed(estate)).await?);
            }
        }
        // What was measured is kept, whatever comes later.
        if let Some(file) = &arguments.json {
            write(file, &figures)?;
        }
    }
    let out = arguments.out;
    println!("Measured. Times are best of the rounds, memory is the worst.\n");
    if !figures.estates.is_empty() {
        println!("{}\n", table::figures(&figures.estates, out));
    }
    println!("{}\n", table::verdicts(&verdict::verdicts(&figures), out));
    println!("{}", table::notes(&figures));
    Ok(())
}

fn write(file: &Path, figures: &Figures) -> Result<(), Problem> {
    let mut all = json!(figures);
    all["version"] = json!(env!("CARGO_PKG_VERSION"));
    all["verdicts"] = json!(verdict::verdicts(figures));
    let text = serde_json::to_string_pretty(&all).when("the figures")?;
    std::fs::write(file, text + "\n").when(&file.display().to_string())
}

impl Arguments {
    /// An estate as the options want it.
    fn changed(&self, estate: Estate) -> Estate {
        Estate {
            clusters: self.clusters.unwrap_or(estate.clusters),
            nodes: self.nodes.unwrap_or(estate.nodes),
            guests: self.guests.unwrap_or(estate.guests),
            latency_ms: self.latency_ms.unwrap_or(estate.latency_ms),
        }
    }
}
