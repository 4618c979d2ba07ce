//! `pvegraph config show`: every effective setting, and where it comes from.

use clap::{Args, Subcommand};
use pvegraph_graph::Rows;
use serde_json::{Value, json};

use super::Global;
use crate::config::Shown;
use crate::exit::{Exit, Failure};
use crate::render::Report;

/// What can be done with the configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print every effective setting; secrets are never printed
    #[command(after_help = "\
Settings are taken from the built-in defaults, then the file, then PVEGRAPH__ variables, then flags.

Examples:
  pvegraph config show --origin
  pvegraph config show --origin -o json | jq '.rows[] | select(.origin != \"default\")'
  PVEGRAPH__CLUSTERS__0__CONCURRENCY=16 pvegraph --config rig.toml config show --origin")]
    Show(Show),
}

/// Options of `config show`.
#[derive(Debug, Args)]
pub struct Show {
    /// Add a column that says where each value comes from: default, FILE:LINE, env VARIABLE or flag
    #[arg(long)]
    origin: bool,
}

impl ConfigCommand {
    /// Runs the command.
    ///
    /// # Errors
    /// The configuration is not valid, or standard output can't be written to.
    pub fn run(self, global: &Global) -> Result<Exit, Failure> {
        let Self::Show(Show { origin }) = self;
        let settings = global.settings()?;
        let mut columns = vec!["setting".to_owned(), "value".to_owned()];
        if origin {
            columns.push("origin".to_owned());
        }
        let row = |shown: &Shown| {
            let Shown { name, value, origin: from } = shown;
            let mut row: Vec<Value> = vec![json!(name), value.clone()];
            if origin {
                row.push(json!(from));
            }
            row
        };
        let rows = settings.shown().iter().map(row).collect();
        global.print(&Report::new(Rows { columns, rows }))?;
        Ok(Exit::Success)
    }
}
