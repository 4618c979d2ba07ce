//! What several test binaries share: the genuine recordings, PVE's schema with a checker, and a client.

#![allow(dead_code, reason = "every test binary uses its own part")]

#[macro_use]
pub mod facts;
pub mod schema;

use std::collections::BTreeMap;
use std::path::PathBuf;

use pve_sim::{Credential, SimServer};
use serde_json::Value;

/// One recorded answer.
#[derive(Clone, Debug)]
pub struct Recorded {
    pub method: String,
    /// Below `/api2/json`, with its query.
    pub path: String,
    pub status: u16,
    pub reason: String,
    pub json: Value,
}

/// The folder of genuine recordings: `PVEGRAPH_RECORDINGS`, or beside the workspace. `None` where it is absent, which fails
/// in CI and is said elsewhere.
pub fn recordings(test: &str) -> Option<PathBuf> {
    let folder = match std::env::var_os("PVEGRAPH_RECORDINGS") {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/pve"),
    };
    if folder.join("recordings.jsonl").is_file() {
        return Some(folder);
    }
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{test}: {} is absent", folder.display());
    println!("not run: {test}: {} is absent", folder.display());
    None
}

/// The lines of an estate file, in their order.
pub fn estate(folder: &std::path::Path, name: &str) -> Vec<Recorded> {
    let text = std::fs::read_to_string(folder.join("estate-8.4").join(name)).unwrap();
    text.lines().map(|line| recorded(&serde_json::from_str(line).unwrap(), "")).collect()
}

/// All successful reads: of the three estate files and of the single recordings.
pub fn genuine_reads(folder: &std::path::Path) -> Vec<Recorded> {
    let mut all: Vec<Recorded> = Vec::new();
    for name in ["root.jsonl", "auditor.jsonl", "pool-limited.jsonl"] {
        all.extend(estate(folder, name));
    }
    all.extend(single_recordings(folder));
    all.retain(|read| read.method == "GET" && read.status == 200 && !read.json.is_null());
    all
}

/// The single recordings whose path is below `/api2/json`.
pub fn single_recordings(folder: &std::path::Path) -> Vec<Recorded> {
    let text = std::fs::read_to_string(folder.join("recordings.jsonl")).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines
        .filter(|line| line["path"].as_str().unwrap().starts_with("/api2/json/"))
        .map(|line| recorded(&line, "/api2/json"))
        .collect()
}

fn recorded(line: &Value, prefix: &str) -> Recorded {
    Recorded {
        method: line["method"].as_str().unwrap_or("GET").to_owned(),
        path: line["path"].as_str().unwrap().strip_prefix(prefix).unwrap().to_owned(),
        status: line["status"].as_u64().unwrap().try_into().unwrap(),
        reason: line["reason"].as_str().unwrap().to_owned(),
        json: line["json"].clone(),
    }
}

/// A client that trusts the server's authority alone.
pub fn client(server: &SimServer) -> reqwest::Client {
    let provider = rustls::crypto::ring::default_provider();
    // A second test of the same process finds it installed.
    let _ = provider.install_default();
    let ca = reqwest::Certificate::from_pem(server.ca_pem().as_bytes()).unwrap();
    reqwest::Client::builder().tls_certs_only([ca]).no_proxy().build().unwrap()
}

/// An answer as the client got it.
#[derive(Debug)]
pub struct Got {
    pub status: u16,
    pub reason: String,
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

impl Got {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    pub fn data(&self) -> Value {
        self.json()["data"].clone()
    }
}

/// Sends a request and reads the reason phrase, which the client keeps as an extension.
pub async fn send(request: reqwest::RequestBuilder) -> Got {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let headers = response
        .headers()
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
        .collect();
    let phrase = response.extensions().get::<hyper::ext::ReasonPhrase>();
    let reason = match phrase {
        Some(phrase) => String::from_utf8(phrase.as_bytes().to_vec()).unwrap(),
        None => response.status().canonical_reason().unwrap_or_default().to_owned(),
    };
    Got { status, reason, headers, body: response.text().await.unwrap() }
}

/// The `Authorization` header of a token.
pub fn token(credential: &Credential) -> String {
    format!("PVEAPIToken={}={}", credential.id, credential.secret)
}

/// Reads a path with a token.
pub async fn get(server: &SimServer, credential: &Credential, path: &str) -> Got {
    let request = client(server).get(format!("{}/api2/json{path}", server.url()));
    send(request.header("Authorization", token(credential))).await
}
