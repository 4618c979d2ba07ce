//! `pvegraph` as a process: its configuration, its commands, and what its report says of times.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use crate::applies::under_way;
use crate::figures::{ApplyRun, PlanRun, Sync, Usage};
use crate::problem::{Problem, While};
use crate::processes::measure;
use crate::simulators::Simulator;

/// Success, and success with parts missing: a simulated estate may have a node that is offline.
const WORKED: [i32; 2] = [0, 3];

/// The program with a configuration.
#[derive(Debug)]
pub struct GraphProgram {
    program: PathBuf,
    directory: PathBuf,
    config: PathBuf,
}

/// Where the graph is.
#[derive(Debug, Clone)]
pub struct Login {
    /// `bolt://HOST:PORT`.
    pub uri: String,
    /// The user.
    pub user: String,
    /// The user's password.
    pub password: String,
}

/// Writes what only its owner may read.
///
/// # Errors
/// The file can't be written.
pub fn write_secret(path: &Path, text: &str) -> Result<(), Problem> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let place = path.display().to_string();
    std::io::Write::write_all(&mut options.open(path).when(&place)?, text.as_bytes()).when(&place)
}

impl GraphProgram {
    /// Configures the program for these clusters and this graph.
    ///
    /// # Errors
    /// The files can't be written.
    pub fn new(
        program: &Path,
        directory: &Path,
        login: &Login,
        simulators: &[Simulator],
    ) -> Result<Self, Problem> {
        write_secret(&directory.join("neo4j.password"), &login.password)?;
        let mut text = format!(
            "[store]\nuri = {:?}\nuser = {:?}\npassword_file = \"neo4j.password\"\n\n\
             [apply]\ndirectory = \"state\"\n",
            login.uri, login.user
        );
        for simulator in simulators {
            let Simulator { name, url, ca_file, token_id, secret_file, .. } = simulator;
            let _ = write!(
                text,
                "\n[[clusters]]\nname = {name:?}\nendpoints = [{url:?}]\ntoken_id = {token_id:?}\n\
                 token_secret_file = {secret_file:?}\nca_file = {ca_file:?}\n"
            );
        }
        let config = directory.join("pvegraph.toml");
        fs::write(&config, text).when(&config.display().to_string())?;
        Ok(Self { program: program.to_owned(), directory: directory.to_owned(), config })
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .env_clear()
            .env("XDG_RUNTIME_DIR", &self.directory)
            .arg("--config")
            .arg(&self.config)
            .args(arguments)
            .current_dir(&self.directory);
        // The one variable that says what is printed to standard error, for a look at where time goes.
        if let Some(filter) = std::env::var_os("RUST_LOG") {
            command.env("RUST_LOG", filter);
        }
        command
    }

    /// `pvegraph migrate up`.
    ///
    /// # Errors
    /// It does not start, or fails.
    pub fn migrate(&self) -> Result<Usage, Problem> {
        Ok(measure(&mut self.command(&["migrate", "up"]))?.with_code("pvegraph migrate up", &[0])?.usage)
    }

    /// Another command, which is not measured.
    ///
    /// # Errors
    /// It does not start, or fails.
    pub fn run(&self, arguments: &[&str]) -> Result<(), Problem> {
        let what = format!("pvegraph {}", arguments.join(" "));
        measure(&mut self.command(arguments))?.with_code(&what, &[0])?;
        Ok(())
    }

    /// `pvegraph plan`, with the number of its operations.
    ///
    /// # Errors
    /// It does not start, fails, something forbids the plan, or its requests can't be counted.
    pub async fn plan(&self, simulators: &[Simulator]) -> Result<(PlanRun, usize), Problem> {
        let before = requests(simulators).await?;
        let ended = measure(&mut self.command(&["plan", "--out", "plan.json", "-o", "json"]))?;
        let ended = ended.with_code("pvegraph plan", &[0])?;
        let requests = requests(simulators).await? - before;
        let told: ToldPlan = serde_json::from_str(&ended.out).when("the answer of pvegraph plan")?;
        let run = PlanRun { usage: ended.usage, requests, cluster_seconds: told.cluster_seconds };
        Ok((run, told.rows.len()))
    }

    /// `pvegraph apply` of the last plan.
    ///
    /// # Errors
    /// It does not start, fails, or what it tells or asked can't be counted.
    pub async fn apply(&self, simulators: &[Simulator]) -> Result<ApplyRun, Problem> {
        let before = requests(simulators).await?;
        let ended = measure(&mut self.command(&["apply", "plan.json", "--auto-approve", "--events"]))?;
        let ended = ended.with_code("pvegraph apply", &[0])?;
        let requests = requests(simulators).await? - before;
        let (most, mean) = under_way(&ended.out)?;
        Ok(ApplyRun { usage: ended.usage, requests, most, mean })
    }

    /// `pvegraph sync`.
    ///
    /// # Errors
    /// It does not start, fails, or its requests can't be counted.
    pub async fn sync(&self, simulators: &[Simulator]) -> Result<Sync, Problem> {
        let before = requests(simulators).await?;
        let ended =
            measure(&mut self.command(&["sync", "-o", "json"]))?.with_code("pvegraph sync", &WORKED)?;
        let requests = requests(simulators).await? - before;
        let told: Told = serde_json::from_str(&ended.out).when("the report of pvegraph sync")?;
        Ok(Sync {
            usage: ended.usage,
            requests,
            crawl_seconds: told.sum(|cluster| cluster.crawl_seconds),
            load_seconds: told.sum(|cluster| cluster.load_seconds),
            exit_code: ended.code,
        })
    }
}

/// What `plan` tells.
#[derive(Debug, Deserialize)]
struct ToldPlan {
    rows: Vec<serde::de::IgnoredAny>,
    cluster_seconds: f64,
}

/// Requests to all simulators so far.
async fn requests(simulators: &[Simulator]) -> Result<u64, Problem> {
    let mut sum = 0;
    for simulator in simulators {
        sum += simulator.requests().await?;
    }
    Ok(sum)
}

/// What the report of a sync says of times, cluster by cluster; a program that does not tell is measured from outside alone.
#[derive(Debug, Deserialize)]
struct Told {
    clusters: Vec<ToldCluster>,
}

#[derive(Debug, Deserialize)]
struct ToldCluster {
    crawl_seconds: Option<f64>,
    load_seconds: Option<f64>,
}

impl Told {
    fn sum(&self, of: impl Fn(&ToldCluster) -> Option<f64>) -> Option<f64> {
        if self.clusters.is_empty() {
            return None;
        }
        self.clusters.iter().map(of).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_summed_and_unknown_where_one_is() {
        let told = |text: &str| serde_json::from_str::<Told>(text).unwrap();
        let both = told(
            r#"{"clusters": [{"crawl_seconds": 1.5, "load_seconds": 1}, {"crawl_seconds": 2, "tag": 5}]}"#,
        );
        assert_eq!(both.sum(|cluster| cluster.crawl_seconds), Some(3.5));
        assert_eq!(both.sum(|cluster| cluster.load_seconds), None);
        assert_eq!(told(r#"{"clusters": []}"#).sum(|cluster| cluster.load_seconds), None);
    }
}
