//! Logs go to standard error; standard output is for data.

use std::env;
use std::io::{self, IsTerminal};

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::fmt;

/// Variables that hold a filter, in the form of `RUST_LOG`. The first that is set counts.
const FILTER_VARIABLES: [&str; 2] = ["PVEGRAPH_LOG", "RUST_LOG"];

/// Logs as an error what the call's own error says as well, and says better.
const DOUBLED: &str = "rustls_platform_verifier";

/// A form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum LogFormat {
    /// Lines for people
    #[default]
    Text,
    /// One JSON object on each line
    Json,
}

/// What the flags ask for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Verbosity {
    /// How often `-v` was given.
    pub verbose: u8,
    /// Whether `-q` was given.
    pub quiet: bool,
}

/// A filter that can't be read.
#[derive(Debug, thiserror::Error)]
#[error("{variable} is not a log filter, such as `info` or `pve_client=debug`")]
pub struct LogFilterError {
    variable: &'static str,
    source: ParseError,
}

/// Starts logging for the whole process.
///
/// # Errors
/// A variable that holds a filter which can't be read.
pub fn init(verbosity: Verbosity, format: LogFormat) -> Result<(), LogFilterError> {
    let terminal = io::stderr().is_terminal();
    let filter = filter(verbosity, terminal)?;
    let builder = fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(terminal);
    // A subscriber that is set already is a caller's choice, and not a failure.
    let _ = match format {
        // A person sees when a line appears; a file or journal must say so.
        LogFormat::Text if terminal => builder.with_target(false).without_time().try_init(),
        LogFormat::Text => builder.with_target(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).with_ansi(false).try_init(),
    };
    Ok(())
}

/// Flags, then variables, then what suits the place: quiet in a timer's journal, talkative on a terminal.
fn filter(verbosity: Verbosity, terminal: bool) -> Result<EnvFilter, LogFilterError> {
    let Verbosity { verbose, quiet } = verbosity;
    if verbose == 0 && !quiet {
        for variable in FILTER_VARIABLES {
            if let Some(text) = env::var(variable).ok().filter(|text| !text.is_empty()) {
                // Who names the target there means it.
                let text = if text.contains(DOUBLED) { text } else { format!("{text},{DOUBLED}=off") };
                return EnvFilter::try_new(text).map_err(|source| LogFilterError { variable, source });
            }
        }
    }
    let levels = match (verbose, quiet) {
        (_, true) => "error",
        // Libraries stay at `warn`, because their details may hold what a header holds. Whoever wants them sets RUST_LOG.
        (0, _) if terminal => "warn,pvegraph=info,pve_client=info,pve_sim=info",
        (0, _) => "warn",
        (1, _) => "warn,pvegraph=debug,pve_client=debug,pve_sim=debug",
        (_, _) => "warn,pvegraph=trace,pve_client=trace,pve_sim=trace",
    };
    Ok(EnvFilter::new(format!("{levels},{DOUBLED}=off")))
}
