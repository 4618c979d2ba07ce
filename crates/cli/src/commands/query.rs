//! `pvegraph query`: any Cypher, read-only.

use clap::Args;
use pvegraph_graph::Statement;
use serde_json::Value;

use super::Global;
use crate::connect::{self, Access};
use crate::exit::{Exit, Failure};
use crate::render::Report;

/// Options of `query`.
#[derive(Debug, Args)]
#[command(after_help = "\
The statement runs in read mode: the store itself refuses to write. A parameter's value is JSON where it is valid JSON, and text otherwise.

Examples:
  pvegraph query 'MATCH (v:ProxmoxVM) RETURN v.name, v.node, v.status ORDER BY v.name'
  pvegraph query 'MATCH (v:ProxmoxVM) WHERE $tag IN v.tags RETURN v.name' --param tag=production -o csv")]
pub struct Query {
    /// The statement
    #[arg(value_name = "CYPHER")]
    statement: String,

    /// A parameter, as NAME=VALUE; may be given more than once
    #[arg(short, long = "param", value_name = "NAME=VALUE", value_parser = param)]
    params: Vec<(String, Value)>,
}

/// Parses `name=value`.
pub fn param(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text
        .split_once('=')
        .filter(|(name, _)| !name.is_empty())
        .ok_or("expected NAME=VALUE, such as tag=production")?;
    let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
    Ok((name.trim_start_matches('$').to_owned(), value))
}

impl Query {
    /// Runs the command.
    ///
    /// # Errors
    /// The store can't be used, or refuses the statement.
    pub fn run(self, global: &Global) -> Result<Exit, Failure> {
        let settings = global.settings()?;
        connect::block_on(async {
            let store = connect::store(&settings, Access::Read).await?;
            let mut statement = Statement::new(self.statement);
            statement.params.extend(self.params);
            let rows = store.read(statement).await.map_err(crate::exit::of_statement)?;
            global.print(&Report::new(rows))?;
            Ok(Exit::Success)
        })
    }
}
