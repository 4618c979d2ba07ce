//! How the program ends: one table of exit codes, and one report of an error.

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;

use pvegraph_graph::store::StoreError;

use crate::config::ConfigError;
use crate::secret::SecretError;

/// Every exit code of the program. 2 is the usage error of the argument parser; an unknown code means failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// In sync, applied, answered.
    Success = 0,
    /// Failed, for a reason that has no code of its own.
    Failed = 1,
    /// Partial, or the outcome of some operation is unknown.
    Partial = 3,
    /// A report has findings at or above `--fail-on`.
    Findings = 4,
    /// A cluster is not what is desired: changes, or drift.
    Drift = 5,
    /// Blocked by a policy or a guard, the sweep guard among them.
    Blocked = 6,
    /// A plan is stale, was edited, or is not approved.
    Stale = 7,
    /// Applied, and a restart is pending.
    PendingRestart = 8,
    /// The configuration is not valid.
    Config = 10,
    /// Another run holds the lock.
    Locked = 11,
    /// Authentication or permission, at Proxmox VE or Neo4j.
    Auth = 12,
    /// No cluster could be reached: network or TLS.
    Unreachable = 13,
    /// The graph store could not be reached, or failed.
    Store = 14,
}

/// The table of exit codes as `--help` prints it.
pub const HELP: &str = "\
Exit codes:
   0  in sync, applied, answered
   1  failed
   2  wrong usage
   3  partial, or the outcome of some operation is unknown
   4  a report has findings at or above --fail-on
   5  a cluster is not what is desired: drift
   6  blocked by a policy or a guard
   7  a plan is stale, was edited, or is not approved
   8  applied; a restart is pending
  10  configuration not valid
  11  lock held
  12  authentication or permission, at Proxmox VE or Neo4j
  13  no cluster could be reached (network, TLS)
  14  the graph store could not be reached or failed";

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An error at the program's edge: what went wrong, and the code to end with.
#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    source: Box<dyn Error + Send + Sync>,
}

impl Failure {
    /// A failure with this code.
    pub fn new(exit: Exit, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { exit, source: source.into() }
    }

    /// A failure that has no code of its own.
    pub fn failed(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(Exit::Failed, source)
    }

    /// The code to end with.
    pub fn exit(&self) -> Exit {
        self.exit
    }

    /// The error itself.
    pub fn error(&self) -> &(dyn Error + 'static) {
        &*self.source
    }

    /// Writes the error and its causes to standard error, once. The text is escaped: it may quote a remote.
    pub fn report(&self) {
        let mut stderr = io::stderr().lock();
        // Where standard error is closed there is nobody left to tell; the exit code still says it.
        let _ = writeln!(stderr, "error: {}", one_line(&*self.source));
        let mut cause = self.source.source();
        while let Some(error) = cause {
            let _ = writeln!(stderr, "  caused by: {}", one_line(error));
            cause = error.source();
        }
    }
}

fn one_line(error: &dyn Error) -> String {
    // Line feeds stay: a list of problems has one on each line.
    let lines: Vec<String> = error.to_string().lines().map(crate::render::escaped).collect();
    lines.join("\n")
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::new(Exit::Config, error)
    }
}

impl From<SecretError> for Failure {
    fn from(error: SecretError) -> Self {
        Self::new(Exit::Config, error)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let exit = if error.is_auth() {
            Exit::Auth
        } else if error.is_busy() {
            Exit::Locked
        } else {
            Exit::Store
        };
        Self::new(exit, error)
    }
}

/// Writing the output failed. A reader that went away is no failure, and is settled in [`crate::render`].
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::failed(error)
    }
}

/// A statement of the user's was refused: that is no fault of the store.
pub fn of_statement(error: StoreError) -> Failure {
    match error {
        StoreError::Statement { .. } | StoreError::ReadOnly { .. } => Failure::failed(error),
        _ => error.into(),
    }
}
