//! The crawl's floor: the requests that a sync made, sent again at the same concurrency by a client that reads each answer to
//! its end and throws it away.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use futures::future::join_all;
use reqwest::Client;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::{Mutex, Semaphore};

use super::{job, tell};
use crate::figures::{CrawlFloor, Floor};
use crate::problem::{Problem, While};
use crate::processes::{measure, own_path};
use crate::simulators::{Simulator, client};

/// Requests in flight to one cluster, as `concurrency` of the configuration has it by default.
const PER_CLUSTER: usize = 64;
/// Requests in flight about one node, likewise `per_node_concurrency`.
const PER_NODE: usize = 8;

/// Where the requests go.
#[derive(Debug, Serialize, Deserialize)]
struct Job {
    clusters: Vec<Cluster>,
    /// The requests of each cluster, recorded by [`record`].
    plan: PathBuf,
}

#[derive(Debug, Serialize, Deserialize)]
struct Cluster {
    url: String,
    ca_file: PathBuf,
    token_id: String,
    secret_file: PathBuf,
}

/// How often each path was asked for.
type Paths = BTreeMap<String, u64>;

/// Keeps what the simulators have been asked so far, which is to be one sync, as the plan of [`run`].
///
/// # Errors
/// A simulator does not answer, or a file can't be written.
pub fn record(directory: &Path, simulators: &[Simulator]) -> Result<PathBuf, Problem> {
    let of = |simulator: &Simulator| Cluster {
        url: simulator.url.clone(),
        ca_file: simulator.ca_file.clone(),
        token_id: simulator.token_id.clone(),
        secret_file: simulator.secret_file.clone(),
    };
    let todo = Job { clusters: simulators.iter().map(of).collect(), plan: directory.join("plan.json") };
    let file = directory.join("crawl-floor.json");
    std::fs::write(&file, serde_json::to_vec(&todo).when("the crawl's floor")?)
        .when(&file.display().to_string())?;
    // In another process: the plan of a large estate would make this one large, see `measure`.
    measure(Command::new(own_path()?).arg("record-requests").arg(&file))?
        .with_code("the crawl's plan", &[0])?;
    Ok(file)
}

/// Measures the floor.
///
/// # Errors
/// An answer is missing.
pub fn run(job: &Path) -> Result<Floor<CrawlFloor>, Problem> {
    let ended = measure(Command::new(own_path()?).arg("floor-crawl").arg(job))?
        .with_code("the crawl's floor", &[0])?;
    Ok(Floor { floor: serde_json::from_str(&ended.out).when("the crawl's floor")?, usage: ended.usage })
}

/// The hidden command of [`record`].
///
/// # Errors
/// A simulator does not answer, or the plan can't be written.
pub async fn recording(file: &Path) -> Result<(), Problem> {
    let todo: Job = job(file)?;
    let mut plan: Vec<Paths> = Vec::new();
    for cluster in &todo.clusters {
        let counters = client(&cluster.ca_file)?.get(format!("{}/sim/counters", cluster.url)).send().await;
        let mut counters = counters
            .when("the simulator's counters")?
            .json::<Value>()
            .await
            .when("the simulator's counters")?;
        plan.push(
            serde_json::from_value(counters["data"]["by-path"].take()).when("the simulator's counters")?,
        );
    }
    std::fs::write(&todo.plan, serde_json::to_vec(&plan).when("the plan")?)
        .when(&todo.plan.display().to_string())
}

#[derive(Default)]
struct Counted {
    requests: AtomicU64,
    bytes: AtomicU64,
    refused: AtomicU64,
}

/// The hidden command of [`run`].
///
/// # Errors
/// An answer is missing.
pub async fn measured(file: &Path) -> Result<(), Problem> {
    let todo: Job = job(file)?;
    let plan: Vec<Paths> = job(&todo.plan)?;
    let counted = Counted::default();
    let mut work = Vec::new();
    for (cluster, paths) in todo.clusters.iter().zip(plan) {
        let secret = std::fs::read_to_string(&cluster.secret_file).when("the token's secret")?;
        let token = format!("PVEAPIToken={}={}", cluster.token_id, secret.trim());
        work.push((client(&cluster.ca_file)?, &cluster.url, token, by_node(paths)));
    }
    let began = Instant::now();
    // One cluster after the other, as a sync does it.
    for (client, url, token, nodes) in work {
        let permits = Semaphore::new(PER_CLUSTER);
        let sender = Sender { client: &client, url, token: &token, permits: &permits, counted: &counted };
        let ended = join_all(nodes.into_values().map(|targets| sender.node(targets))).await;
        ended.into_iter().collect::<Result<(), Problem>>()?;
    }
    let seconds = began.elapsed().as_secs_f64();
    let Counted { requests, bytes, refused } = counted;
    tell(&CrawlFloor {
        seconds,
        requests: requests.into_inner(),
        bytes: bytes.into_inner(),
        refused: refused.into_inner(),
    })
}

/// The paths by the node that they are about, each as often as it was asked for; the cluster's own have none.
fn by_node(paths: Paths) -> BTreeMap<String, Vec<String>> {
    let mut nodes: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (path, times) in paths {
        let node = path.strip_prefix("/nodes/").and_then(|rest| rest.split('/').next()).unwrap_or_default();
        let node = node.to_owned();
        let targets = nodes.entry(node).or_default();
        for _ in 0..times {
            targets.push(query(&path));
        }
    }
    nodes
}

/// The simulator counts paths without their queries; these make an answer another one.
fn query(path: &str) -> String {
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    match parts[..] {
        ["nodes", _, "qemu"] => format!("{path}?full=1"),
        ["nodes", _, "qemu" | "lxc", _, "config"] => format!("{path}?current=1"),
        _ => path.to_owned(),
    }
}

struct Sender<'a> {
    client: &'a Client,
    url: &'a str,
    token: &'a str,
    permits: &'a Semaphore,
    counted: &'a Counted,
}

impl Sender<'_> {
    /// Sends what is to be asked about one node.
    async fn node(&self, targets: Vec<String>) -> Result<(), Problem> {
        let targets = Arc::new(Mutex::new(targets.into_iter()));
        let workers = (0..PER_NODE).map(|_| async {
            loop {
                let Some(target) = targets.lock().await.next() else { return Ok(()) };
                // The semaphore is never closed.
                let _permit = self.permits.acquire().await.ok();
                self.send(&target).await?;
            }
        });
        join_all(workers).await.into_iter().collect()
    }

    async fn send(&self, target: &str) -> Result<(), Problem> {
        let Counted { requests, bytes, refused } = self.counted;
        let request =
            self.client.get(format!("{}/api2/json{target}", self.url)).header("Authorization", self.token);
        let mut response = request.send().await.when(target)?;
        if !response.status().is_success() {
            refused.fetch_add(1, Ordering::Relaxed);
        }
        while let Some(chunk) = response.chunk().await.when(target)? {
            bytes.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        }
        requests.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_asked_as_often_as_they_were_and_by_node() {
        let paths = Paths::from([
            ("/version".to_owned(), 1),
            ("/cluster/resources".to_owned(), 2),
            ("/nodes/a/qemu".to_owned(), 1),
            ("/nodes/a/qemu/100/config".to_owned(), 1),
            ("/nodes/b/lxc/7/snapshot".to_owned(), 1),
        ]);
        let nodes = by_node(paths);
        assert_eq!(nodes[""], ["/cluster/resources", "/cluster/resources", "/version"]);
        assert_eq!(nodes["a"], ["/nodes/a/qemu?full=1", "/nodes/a/qemu/100/config?current=1"]);
        assert_eq!(nodes["b"], ["/nodes/b/lxc/7/snapshot"]);
    }
}
