//! The simulated clusters, each a process of its own.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use reqwest::{Certificate, Client};
use serde::Deserialize;
use serde_json::json;

use crate::case::Estate;
use crate::problem::{Problem, While};

/// A simulator that runs until it is dropped.
#[derive(Debug)]
pub struct Simulator {
    _process: Running,
    /// Its cluster's name.
    pub name: String,
    /// `https://HOST:PORT`.
    pub url: String,
    /// The certificate authority.
    pub ca_file: PathBuf,
    /// The id of a token that sees everything.
    pub token_id: String,
    /// The file with its secret.
    pub secret_file: PathBuf,
    client: Client,
}

#[derive(Deserialize)]
struct Counted {
    total: u64,
}

#[derive(Deserialize)]
struct Answer<T> {
    data: T,
}

/// A client that trusts this authority and speaks HTTP/1.1, as PVE does.
///
/// # Errors
/// The file is no certificate.
pub fn client(ca_file: &Path) -> Result<Client, Problem> {
    let place = ca_file.display().to_string();
    let pem = std::fs::read(ca_file).when(&place)?;
    let authority = Certificate::from_pem(&pem).when(&place)?;
    Client::builder().tls_certs_only([authority]).http1_only().no_proxy().build().when("the HTTP client")
}

impl Simulator {
    /// Starts the simulator of one cluster of an estate and lets it hold back each answer.
    ///
    /// # Errors
    /// It does not start, or does not answer.
    pub async fn start(
        program: &Path,
        directory: &Path,
        estate: &Estate,
        cluster: usize,
        seed: u64,
    ) -> Result<Self, Problem> {
        let name = format!("bench{cluster}");
        let out = directory.join(&name);
        let (nodes, guests) = estate.share(cluster);
        let process = Command::new(program)
            .args(["--listen", "127.0.0.1:0", "--name", &name])
            .args(["--nodes", &nodes.to_string(), "--guests", &guests.to_string()])
            .args(["--seed", &seed.to_string()])
            .arg("--out")
            .arg(&out)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .when(&program.display().to_string())?;
        let mut process = Running(process);
        let told = process.0.stdout.take().map(|out| Announced::read(BufReader::new(out)));
        let Some(Announced {
            url: Some(url),
            ca_file: Some(ca_file),
            token_id: Some(token_id),
            secret_file: Some(secret_file),
        }) = told
        else {
            return Err(Problem::new(format!("{} did not say where it listens", program.display())));
        };
        let (ca_file, secret_file) = (PathBuf::from(ca_file), PathBuf::from(secret_file));
        let client = client(&ca_file)?;
        let simulator = Self { _process: process, name, url, ca_file, token_id, secret_file, client };
        if estate.latency_ms > 0 {
            simulator.hold_back(estate).await?;
        }
        Ok(simulator)
    }

    async fn hold_back(&self, estate: &Estate) -> Result<(), Problem> {
        let milliseconds = u64::try_from(estate.latency().as_millis()).unwrap_or(u64::MAX);
        let rule = json!({ "path": "", "fault": "latency", "milliseconds": milliseconds });
        let answer = self.client.post(format!("{}/sim/faults", self.url)).json(&rule).send().await;
        answer.and_then(reqwest::Response::error_for_status).when("the simulator's latency").map(drop)
    }

    /// Puts the marker of a managed guest on a machine, through the API.
    ///
    /// # Errors
    /// It does not answer, or refuses.
    pub async fn mark(&self, node: &str, vmid: i64) -> Result<(), Problem> {
        let secret = std::fs::read_to_string(&self.secret_file).when("the token's secret")?;
        let description = format!("[pvegraph:{}/vm-{vmid}]", self.name);
        let form = [("tags", "pvegraph"), ("description", &description)];
        let answer = self
            .client
            .put(format!("{}/api2/json/nodes/{node}/qemu/{vmid}/config", self.url))
            .header("Authorization", format!("PVEAPIToken={}={}", self.token_id, secret.trim()))
            .form(&form)
            .send()
            .await;
        answer.and_then(reqwest::Response::error_for_status).when("a guest's marker").map(drop)
    }

    /// Requests since it started, its own control requests aside.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn requests(&self) -> Result<u64, Problem> {
        let answer = self
            .client
            .get(format!("{}/sim/counters", self.url))
            .send()
            .await
            .when("the simulator's counters")?;
        Ok(answer.json::<Answer<Counted>>().await.when("the simulator's counters")?.data.total)
    }
}

/// A process that ends when this is dropped.
#[derive(Debug)]
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a simulator prints when it listens.
#[derive(Debug, Default, PartialEq)]
struct Announced {
    url: Option<String>,
    ca_file: Option<String>,
    token_id: Option<String>,
    secret_file: Option<String>,
}

impl Announced {
    fn read(lines: impl BufRead) -> Self {
        let mut told = Self::default();
        for line in lines.lines().map_while(Result::ok) {
            match line.split_once(' ') {
                Some(("url", rest)) => told.url = rest.split(' ').next().map(str::to_owned),
                Some(("ca-file", path)) => told.ca_file = Some(path.to_owned()),
                Some(("token-id", id)) => told.token_id = Some(id.to_owned()),
                // The last line.
                Some(("token-secret-file", path)) => {
                    told.secret_file = Some(path.to_owned());
                    break;
                }
                _ => {}
            }
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_announcement_is_read_up_to_its_last_line() {
        let told = "url https://127.0.0.1:1 node pve1 fingerprint AA\nca-file /a b/ca.pem\nuser-id admin@pve\n\
                    token-id root@pam!x\ntoken-secret-file /a b/token.secret\nurl never\n";
        let announced = Announced::read(told.as_bytes());
        assert_eq!(announced.url.as_deref(), Some("https://127.0.0.1:1"));
        assert_eq!(announced.ca_file.as_deref(), Some("/a b/ca.pem"));
        assert_eq!(announced.token_id.as_deref(), Some("root@pam!x"));
        assert_eq!(announced.secret_file.as_deref(), Some("/a b/token.secret"));
        assert_eq!(Announced::read("url https://x\n".as_bytes()).secret_file, None);
    }
}
