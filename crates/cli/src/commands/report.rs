//! `pvegraph report`: the canned reports.

use clap::{Args, Subcommand, ValueEnum};
use pvegraph_graph::Rows;
use pvegraph_graph::reports::{self, Report as Canned};
use serde_json::{Map, Value, json};

use super::Global;
use super::query::param;
use crate::connect::{self, Access};
use crate::exit::{Exit, Failure};
use crate::render::Report;

/// What can be done with reports.
#[derive(Debug, Subcommand)]
pub enum ReportCommand {
    /// List the reports with their questions
    List,
    /// Run a report
    #[command(after_help = "\
What the last sync could not see whole is told on standard error, and in `incomplete` of the JSON: then an empty answer is no \
clean bill. `as_of` of the JSON has the end of each cluster's last run that saw it.

Examples:
  pvegraph report run R1
  pvegraph report run R17 --param cpu=0.5 -o json
  pvegraph report run R1 --fail-on warning")]
    Run(Run),
}

/// Options of `report run`.
#[derive(Debug, Args)]
pub struct Run {
    /// The report's code, as `report list` shows it
    code: String,

    /// A parameter, as NAME=VALUE; may be given more than once
    #[arg(short, long = "param", value_name = "NAME=VALUE", value_parser = param)]
    params: Vec<(String, Value)>,

    /// End with exit code 4 if a report of at least this severity has rows, and with 3 if its inputs were not seen whole
    #[arg(long, value_name = "SEVERITY")]
    fail_on: Option<Severity>,
}

/// How bad a row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum Severity {
    /// An answer.
    Info,
    /// A finding.
    Warning,
}

impl ReportCommand {
    /// Runs the command.
    ///
    /// # Errors
    /// There is no such report or parameter, or the store can't be used.
    pub fn run(self, global: &Global) -> Result<Exit, Failure> {
        let all = reports::reports().map_err(Failure::failed)?;
        match self {
            Self::List => {
                global.print(&list(&all))?;
                Ok(Exit::Success)
            }
            Self::Run(run) => run.run(&all, global),
        }
    }
}

fn list(all: &[Canned]) -> Report {
    let row = |report: &Canned| {
        let params: Vec<String> =
            report.params.iter().map(|(name, value)| format!("{name}={value}")).collect();
        vec![
            json!(report.code),
            json!(report.title),
            json!(report.question),
            json!(report.severity),
            json!(params),
        ]
    };
    let columns = ["code", "title", "question", "severity", "parameters"].map(str::to_owned).to_vec();
    Report::new(Rows { columns, rows: all.iter().map(row).collect() })
}

impl Run {
    fn run(self, all: &[Canned], global: &Global) -> Result<Exit, Failure> {
        let report =
            all.iter().find(|report| report.code.eq_ignore_ascii_case(&self.code)).ok_or_else(|| {
                let codes: Vec<_> = all.iter().map(|report| report.code.as_str()).collect();
                Failure::failed(format!("there is no report {:?}; there are {}", self.code, codes.join(", ")))
            })?;
        let given: Map<String, Value> = self.params.iter().cloned().collect();
        if let Some(unknown) = given.keys().find(|name| !report.params.contains_key(*name)) {
            let known: Vec<_> = report.params.keys().map(String::as_str).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            let text = format!("report {} has no parameter {unknown:?}; it has: {known}", report.code);
            return Err(Failure::failed(text));
        }
        report.check(&given).map_err(Failure::failed)?;
        let settings = global.settings()?;
        connect::block_on(async {
            let store = connect::store(&settings, Access::Read).await?;
            let found = print(&*store, report, &given, global).await?;
            Ok(match self.fail_on {
                Some(least) if found.rows > 0 && severity(report) >= least => Exit::Findings,
                Some(_) if !found.whole => Exit::Partial,
                _ => Exit::Success,
            })
        })
    }
}

fn severity(report: &Canned) -> Severity {
    if report.severity == "warning" { Severity::Warning } else { Severity::Info }
}

/// What a report found.
pub struct Found {
    /// Its rows.
    pub rows: usize,
    /// Its inputs were seen whole.
    pub whole: bool,
}

/// Runs a report and prints it, with what its inputs lack.
///
/// # Errors
/// The store fails, or standard output can't be written to.
pub async fn print(
    store: &dyn pvegraph_graph::Store,
    report: &Canned,
    given: &Map<String, Value>,
    global: &Global,
) -> Result<Found, Failure> {
    let answer = reports::run(store, report, given).await.map_err(crate::exit::of_statement)?;
    for unseen in &answer.unseen {
        tracing::warn!("this answer may be incomplete: {unseen}");
    }
    let as_of: Map<String, Value> = answer
        .as_of
        .iter()
        .filter_map(|(cluster, at)| {
            Some((cluster.clone(), jiff::Timestamp::from_second(*at).ok()?.to_string().into()))
        })
        .collect();
    let found = Found { rows: answer.rows.rows.len(), whole: answer.unseen.is_empty() };
    let printed = Report::new(answer.rows)
        .with_bytes(report.byte_columns())
        .with_extra("report", json!(report))
        .with_extra("complete", found.whole)
        .with_extra("incomplete", json!(answer.unseen))
        .with_extra("as_of", as_of);
    global.print(&printed)?;
    Ok(found)
}
