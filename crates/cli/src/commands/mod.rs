//! The commands: one file each, and one enum that names them.

pub mod adopt;
pub mod apply;
pub mod approve;
pub mod audit;
pub mod changes;
pub mod config_show;
pub mod desired;
pub mod discover;
pub mod doctor;
pub mod drift;
mod ground;
pub mod migrate;
pub mod plan;
pub mod policy;
pub mod query;
pub mod release;
pub mod report;
pub mod reset;
pub mod rollback;
pub mod scope;
mod secrets;
pub mod seed;
mod snapshot;
pub mod sync;
pub mod why;

use std::io::{self, BufRead, IsTerminal, Write};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use pvegraph_graph::Store;

use crate::config::{ConfigError, Settings};
use crate::exit::{self, Exit, Failure};
use crate::logging::{LogFormat, Verbosity};
use crate::render::{Output, Report};

/// The name of whoever runs the command, where the environment tells it.
pub fn user() -> Option<String> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
    variable("USER").or_else(|| variable("LOGNAME"))
}

const EXAMPLES: &str = "\
Examples:
  pvegraph demo
  pvegraph --config rig.toml doctor
  pvegraph --config rig.toml sync
  pvegraph --config rig.toml report run R1 -o csv";

/// Keeps a graph of Proxmox VE estates in Neo4j up to date, and answers questions from it.
#[derive(Debug, Parser)]
#[command(
    name = "pvegraph",
    version,
    after_help = EXAMPLES,
    after_long_help = format!("{EXAMPLES}\n\n{}", exit::HELP),
    max_term_width = 100,
    propagate_version = false
)]
pub struct Cli {
    /// Options that every command has.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options that every command has.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Configuration file [default: $PVEGRAPH_CONFIG, ./pvegraph.toml or /etc/pvegraph/pvegraph.toml]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Graph store, bolt://HOST:PORT, neo4j://HOST:PORT or embedded:PATH; overrides `uri` in [store]
    #[arg(long, global = true, value_name = "URI")]
    pub store: Option<String>,

    /// Form of the rows on standard output
    #[arg(short, long, global = true, value_enum, default_value_t, value_name = "FORM")]
    pub output: Output,

    /// Log more; twice for everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count, conflicts_with = "quiet")]
    pub verbose: u8,

    /// Log errors only; a sync that went well prints nothing, unless rows are asked for in another form
    #[arg(short, long, global = true)]
    pub quiet: bool,

    /// Form of the logs on standard error
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORM")]
    pub log_format: LogFormat,
}

impl Global {
    /// How much to log.
    pub fn verbosity(&self) -> Verbosity {
        Verbosity { verbose: self.verbose, quiet: self.quiet }
    }

    /// The effective configuration.
    ///
    /// # Errors
    /// It can't be read or is not valid.
    pub fn settings(&self) -> Result<Settings, ConfigError> {
        Settings::load(self.config.as_deref(), self.store.as_deref())
    }

    /// Prints rows in the form that was asked for.
    ///
    /// # Errors
    /// Standard output can't be written to.
    pub fn print(&self, report: &Report) -> Result<(), Failure> {
        Ok(report.print(self.output)?)
    }
}

/// Of a cluster that the graph does not know, with those that it does.
fn no_such_cluster<'a>(store: &dyn Store, cluster: &str, known: impl Iterator<Item = &'a str>) -> Failure {
    let known: Vec<&str> = known.collect();
    let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    Failure::failed(format!("there is no cluster {cluster} in {}; it knows: {known}", store.target()))
}

/// Asks on the terminal; without one nobody can agree.
fn agreed(question: &str) -> Result<bool, Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::new(
            Exit::Config,
            "there is no terminal to ask on: add --yes to go on without asking",
        ));
    }
    write!(io::stderr(), "{question} Type yes: ")?;
    io::stderr().flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(answer.trim() == "yes")
}

/// All commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Crawl the clusters and bring the graph up to date
    Sync(sync::Sync),
    /// Show what pvegraph does: a simulated cluster, synced into a local file, and its reports
    Demo(seed::Demo),
    /// Run a Cypher statement, read-only
    Query(query::Query),
    /// List and run the canned reports
    #[command(subcommand)]
    Report(report::ReportCommand),
    /// Show what syncs saw to change: guests that came, went, migrated or are configured otherwise
    Changes(changes::Changes),
    /// Apply and take back the graph's schema; back the graph up and restore it
    #[command(subcommand)]
    Migrate(migrate::MigrateCommand),
    /// Sync a simulated estate into the graph, to try things out on
    Seed(seed::Seed),
    /// Remove what syncs have written
    Reset(reset::Reset),
    /// Check everything that a sync needs, and say how to mend it
    Doctor(doctor::Doctor),
    /// Compare the desired state of guests with what the clusters have; change nothing
    Drift(drift::Drift),
    /// Show what would be done to bring guests to what is desired; do nothing of it
    Plan(plan::PlanCommand),
    /// Explain what the plan does to one guest, what that touches, and what blocks it
    Why(why::Why),
    /// Agree to a plan file
    Approve(approve::Approve),
    /// Say where guests may be touched, and what may be done there
    #[command(subcommand)]
    Scope(scope::ScopeCommand),
    /// Cypher that is asked about each plan, and may veto it
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
    /// Plan to take a snapshot of a guest, or to take it back to one
    #[command(subcommand)]
    Snapshot(snapshot::SnapshotCommand),
    /// Carry out a plan
    Apply(apply::Apply),
    /// Go on with a run that was cut off or paused
    Resume(apply::Resume),
    /// Let running and further applies send nothing more, until `resume`
    Pause(apply::Pause),
    /// Make a plan that brings back what was before a run
    Rollback(rollback::Rollback),
    /// Check the log of who changed what
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Write what a cluster has as the declarative document
    Discover(discover::Discover),
    /// Take live guests over as they are: desired state and binding, with nothing to change
    Adopt(adopt::Adopt),
    /// Bind guests that are gone no longer, so that a plan makes them anew
    Release(release::Release),
    /// Import and export the desired state of guests
    #[command(subcommand)]
    Desired(desired::DesiredCommand),
    /// Show the configuration
    #[command(subcommand)]
    Config(config_show::ConfigCommand),
}

impl Command {
    /// Runs the command.
    ///
    /// # Errors
    /// What ends it, with the exit code.
    pub fn run(self, global: &Global) -> Result<Exit, Failure> {
        match self {
            Self::Sync(command) => command.run(global),
            Self::Demo(command) => command.run(global),
            Self::Query(command) => command.run(global),
            Self::Report(command) => command.run(global),
            Self::Changes(command) => command.run(global),
            Self::Migrate(command) => command.run(global),
            Self::Seed(command) => command.run(global),
            Self::Reset(command) => command.run(global),
            Self::Doctor(command) => command.run(global),
            Self::Drift(command) => command.run(global),
            Self::Discover(command) => command.run(global),
            Self::Adopt(command) => command.run(global),
            Self::Release(command) => command.run(global),
            Self::Desired(command) => command.run(global),
            Self::Plan(command) => command.run(global),
            Self::Why(command) => command.run(global),
            Self::Approve(command) => command.run(global),
            Self::Scope(command) => command.run(global),
            Self::Policy(command) => command.run(global),
            Self::Snapshot(command) => command.run(global),
            Self::Apply(command) => command.run(global),
            Self::Rollback(command) => command.run(global),
            Self::Resume(command) => command.run(global),
            Self::Pause(command) => command.run(global),
            Self::Audit(command) => command.run(global),
            Self::Config(command) => command.run(global),
        }
    }
}
