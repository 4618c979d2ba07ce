//! `pvegraph`: keeps a graph of Proxmox VE estates in Neo4j up to date, and answers questions from it.
//!
//! This file parses, dispatches and maps the end to an exit code. Each command is a file in `commands`.

mod commands;
mod config;
mod connect;
mod exit;
mod logging;
mod render;
mod secret;

use std::process::ExitCode;

use clap::Parser;

use commands::Cli;
use exit::{Exit, Failure};

/// A sync makes and drops many small values on several threads: with glibc's allocator it takes a quarter more CPU and 10 MB more.
/// `.cargo/config.toml` sets how many arenas there are.
#[cfg(unix)]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let Cli { global, command } = Cli::parse();
    // Two crates of the tree speak TLS; the process has one provider for both. Only a second call fails.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let logging = logging::init(global.verbosity(), global.log_format);
    let ended =
        logging.map_err(|error| Failure::new(Exit::Config, error)).and_then(|()| command.run(&global));
    match ended {
        Ok(exit) => exit.into(),
        Err(failure) => {
            failure.report();
            failure.exit().into()
        }
    }
}
