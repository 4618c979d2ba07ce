//! `pvegraph doctor`: looks at everything that a sync needs, and says how to mend what is wrong. It writes nothing anywhere,
//! and no check keeps the others from being made.

mod cluster;
mod endpoint;
mod file;
mod rights;
mod store;

use std::error::Error;
use std::io::{self, Write};

use clap::Args;
use futures::future::join_all;
use pvegraph_graph::Rows;
use pvegraph_sync::chain;
use serde_json::json;

use super::Global;
use crate::config::{ClusterSettings, ConfigError, Settings};
use crate::connect;
use crate::exit::{Exit, Failure};
use crate::render::{Output, Report, escaped};

/// Options of `doctor`.
#[derive(Debug, Args)]
#[command(after_help = "\
Each row is a check: ok, warning, failed, or skipped because another one failed. Warnings leave the exit code 0; it is that of
the first kind that failed: 10 configuration, 12 authentication or permission, 13 cluster, 14 graph store, 1 anything else.

Examples:
  pvegraph --config rig.toml doctor
  pvegraph doctor --cluster rig -o json | jq -r '.rows[] | select(.result == \"failed\") | .mend'")]
pub struct Doctor {
    /// Only the cluster of this name, beside the graph store
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Ok,
    Warning,
    Failed(Exit),
    Skipped,
}

impl Outcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed(_) => "failed",
            Self::Skipped => "skipped",
        }
    }
}

/// One check's result.
#[derive(Debug, Clone)]
struct Finding {
    check: &'static str,
    outcome: Outcome,
    detail: String,
    mend: Option<String>,
}

/// The results for one subject, in the order of the checks.
#[derive(Debug)]
struct Findings {
    subject: String,
    list: Vec<Finding>,
}

impl Findings {
    fn new(subject: impl Into<String>) -> Self {
        Self { subject: subject.into(), list: Vec::new() }
    }

    fn add(
        &mut self,
        check: &'static str,
        outcome: Outcome,
        detail: impl Into<String>,
        mend: Option<String>,
    ) {
        self.list.push(Finding { check, outcome, detail: detail.into(), mend });
    }

    fn ok(&mut self, check: &'static str, detail: impl Into<String>) {
        self.add(check, Outcome::Ok, detail, None);
    }

    fn warn(&mut self, check: &'static str, detail: impl Into<String>, mend: impl Into<String>) {
        self.add(check, Outcome::Warning, detail, Some(mend.into()));
    }

    fn fail(&mut self, check: &'static str, exit: Exit, detail: impl Into<String>, mend: impl Into<String>) {
        self.add(check, Outcome::Failed(exit), detail, Some(mend.into()));
    }

    /// The mend is part of the error's own words.
    fn fail_as_told(&mut self, check: &'static str, exit: Exit, error: &(dyn Error + 'static)) {
        self.add(check, Outcome::Failed(exit), chain(error), None);
    }

    fn skip(&mut self, checks: &[&'static str], why: &str) {
        for check in checks {
            self.add(check, Outcome::Skipped, why, None);
        }
    }
}

impl Doctor {
    /// Runs the command.
    ///
    /// # Errors
    /// The rows can't be printed. What is found to be wrong is a row and an exit code.
    pub fn run(self, global: &Global) -> Result<Exit, Failure> {
        let mut configuration = Findings::new("configuration");
        let settings = match global.settings() {
            Ok(settings) => settings,
            Err(error) => {
                refused(&mut configuration, &error);
                return ended(global, &[configuration]);
            }
        };
        let file = settings.file.as_ref().map_or_else(
            || "no file: only defaults, environment and flags".to_owned(),
            |file| file.display().to_string(),
        );
        configuration.ok("settings", file);
        let clusters = match settings.selected(self.cluster.as_deref()) {
            Ok(clusters) => clusters,
            // A host that only runs reports has none.
            Err(error @ ConfigError::NoClusters { .. }) if self.cluster.is_none() => {
                configuration.add("clusters", Outcome::Warning, chain(&error), None);
                Vec::new()
            }
            Err(error) => {
                configuration.fail_as_told("clusters", Exit::Config, &error);
                Vec::new()
            }
        };
        let mut all = vec![configuration];
        all.extend(connect::block_on(async { Ok(examine(&settings, &clusters).await) })?);
        ended(global, &all)
    }
}

/// One row for each problem: a list of many lines is no cell of a table.
fn refused(findings: &mut Findings, error: &ConfigError) {
    match error {
        ConfigError::Invalid { problems } => {
            for problem in problems {
                findings.add("settings", Outcome::Failed(Exit::Config), problem.to_string(), None);
            }
        }
        _ => findings.fail_as_told("settings", Exit::Config, error),
    }
}

async fn examine(settings: &Settings, clusters: &[&ClusterSettings]) -> Vec<Findings> {
    let of_clusters = join_all(clusters.iter().map(|cluster| cluster::check(settings, cluster)));
    let ((store, known), mut examined) = tokio::join!(store::check(settings), of_clusters);
    cluster::compare(&mut examined, known.as_ref());
    std::iter::once(store).chain(examined.into_iter().flat_map(|one| one.findings)).collect()
}

/// Prints each mend as one line, for a person to copy.
fn mends<'a>(found: impl Iterator<Item = (&'a String, &'a Finding)>) -> io::Result<()> {
    let mut lines = String::new();
    for (subject, finding) in found {
        if let Some(mend) = &finding.mend {
            let place = escaped(&format!("{subject}/{}", finding.check));
            lines.push_str(&format!("{place}: {}\n", escaped(mend)));
        }
    }
    if lines.is_empty() {
        return Ok(());
    }
    match write!(io::stdout().lock(), "\n{lines}") {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// Prints the rows, and gives the exit code.
fn ended(global: &Global, all: &[Findings]) -> Result<Exit, Failure> {
    let mut columns = ["subject", "check", "result", "detail", "mend"].map(str::to_owned).to_vec();
    let found = || all.iter().flat_map(|one| one.list.iter().map(move |finding| (&one.subject, finding)));
    let row = |(subject, finding): (&String, &Finding)| {
        let Finding { check, outcome, detail, mend } = finding;
        vec![json!(subject), json!(check), json!(outcome.as_str()), json!(detail), json!(mend)]
    };
    let mut rows: Vec<_> = found().map(row).collect();
    if global.output == Output::Table {
        // A command or a fingerprint that is broken into a column's lines can't be copied.
        columns.pop();
        rows.iter_mut().for_each(|row| row.truncate(columns.len()));
    }
    global.print(&Report::new(Rows { columns, rows }))?;
    if global.output == Output::Table {
        mends(found())?;
    }
    let failed: Vec<Exit> = found()
        .filter_map(|(_, finding)| match finding.outcome {
            Outcome::Failed(exit) => Some(exit),
            Outcome::Ok | Outcome::Warning | Outcome::Skipped => None,
        })
        .collect();
    let kinds = [Exit::Config, Exit::Auth, Exit::Unreachable, Exit::Store];
    let first = kinds.into_iter().find(|kind| failed.contains(kind)).or_else(|| failed.first().copied());
    Ok(first.unwrap_or(Exit::Success))
}
