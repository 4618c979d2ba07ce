//! What is physically needed: the same requests by a client that throws the answers away, and the same rows by bare `CREATE`.
//!
//! Each floor is a process of its own, this program with a hidden command, so that its use of processor and memory is
//! accounted as the program's is. A job comes in a file and the figures go to standard output, both as JSON.

pub mod crawl;
pub mod load;
mod partition;

use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::problem::{Problem, While};

/// Reads a job.
fn job<T: DeserializeOwned>(file: &Path) -> Result<T, Problem> {
    let place = file.display().to_string();
    serde_json::from_slice(&std::fs::read(file).when(&place)?).when(&place)
}

/// Tells the figures.
fn tell(figures: &impl Serialize) -> Result<(), Problem> {
    println!("{}", serde_json::to_string(figures).when("the figures")?);
    Ok(())
}
