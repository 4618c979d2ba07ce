//! What the end-to-end tests share: the program as a process, its configuration, and a look into either store.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use pve_sim::{Credential, SimServer};
use pvegraph_testkit::Neo4jServer;
use serde_json::{Map, Value, json};
use tempfile::TempDir;

fn write_secret(path: &Path, secret: &str) {
    fs::write(path, secret).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// A store to test on.
#[derive(Debug, Clone)]
pub enum Graph {
    /// The shared server.
    Neo4j(Neo4jServer),
    /// A file in the rig's own directory.
    Embedded,
}

/// A configuration in a directory of its own, and the program started with it.
pub struct Rig {
    pub dir: TempDir,
    graph: Graph,
    clusters: String,
    pub settings: String,
    count: usize,
}

/// What a run of the program gave.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Ran {
    /// Asserts the exit code.
    pub fn ended(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout: {}\nstderr: {}", self.out, self.err);
        assert!(!self.err.contains("panicked"), "{}", self.err);
        self
    }

    /// Asserts that standard error has all of these words.
    pub fn says(self, words: &[&str]) -> Self {
        for word in words {
            assert!(self.err.contains(word), "{word:?} is not in: {}", self.err);
        }
        self
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}\n{}", self.out, self.err))
    }

    pub fn rows(&self) -> Vec<Value> {
        self.json()["rows"].as_array().unwrap().clone()
    }

    /// The counts of one label in a sync's answer: created, updated, unchanged, deleted, kept.
    pub fn counts(&self, label: &str) -> [u64; 5] {
        let mut sum = [0; 5];
        for row in self.rows().iter().filter(|row| row["label"] == label) {
            for (at, name) in ["created", "updated", "unchanged", "deleted", "kept"].into_iter().enumerate() {
                sum[at] += row[name].as_u64().unwrap();
            }
        }
        sum
    }
}

impl Rig {
    pub fn new(graph: &Graph) -> Self {
        Self {
            dir: TempDir::new().unwrap(),
            graph: graph.clone(),
            clusters: String::new(),
            settings: String::new(),
            count: 0,
        }
    }

    /// Adds a cluster. Without a credential any token does.
    pub fn cluster(
        mut self,
        name: Option<&str>,
        server: &SimServer,
        credential: Option<&Credential>,
    ) -> Self {
        let n = self.count;
        self.count += 1;
        let file = |what: &str| self.dir.path().join(format!("{n}.{what}"));
        let secret = credential.map_or("11111111-2222-3333-4444-555555555555", |c| c.secret.as_str());
        let id = credential.map_or("root@pam!test", |c| c.id.as_str());
        write_secret(&file("token"), secret);
        fs::write(file("ca.pem"), server.ca_pem()).unwrap();
        let endpoints: Vec<_> = server.urls();
        let text = &mut self.clusters;
        text.push_str("\n[[clusters]]\n");
        if let Some(name) = name {
            writeln!(text, "name = {name:?}").unwrap();
        }
        writeln!(text, "endpoints = {endpoints:?}\ntoken_id = {id:?}\ntoken_secret_file = \"{n}.token\"\nca_file = \"{n}.ca.pem\"")
            .unwrap();
        self
    }

    /// Adds lines to the cluster that was added last.
    pub fn cluster_lines(&mut self, lines: &str) {
        self.clusters.push_str(lines);
    }

    /// The same store with other clusters.
    pub fn without_clusters(mut self) -> Self {
        self.clusters.clear();
        self
    }

    pub fn config(&self) -> PathBuf {
        let path = self.dir.path().join("pvegraph.toml");
        let store = match &self.graph {
            Graph::Neo4j(server) => {
                write_secret(&self.dir.path().join("neo4j.password"), &server.password);
                format!(
                    "[store]\nuri = {:?}\nuser = {:?}\npassword_file = \"neo4j.password\"\n",
                    server.bolt_uri, server.user
                )
            }
            Graph::Embedded => "[store]\nuri = \"embedded:graph.kgl\"\n".to_owned(),
        };
        fs::write(&path, format!("{store}{}{}", self.settings, self.clusters)).unwrap();
        path
    }

    /// The program, to be started with these arguments.
    pub fn command(&self, args: &[&str]) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_pvegraph"));
        command
            .env_clear()
            .env("XDG_RUNTIME_DIR", self.dir.path())
            .arg("--config")
            .arg(self.config())
            .args(args)
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Runs the program to its end.
    pub async fn run(&self, args: &[&str]) -> Ran {
        let output = self.command(args).output().await.unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }

    /// Syncs, and asserts the exit code.
    pub async fn sync(&self, code: i32) -> Ran {
        self.run(&["sync", "-o", "json"]).await.ended(code)
    }

    /// Reads from the store: from Neo4j by a driver of the tests' own, from the file through the program.
    pub async fn read(&self, statement: &str) -> Vec<Value> {
        match &self.graph {
            Graph::Neo4j(server) => server.cypher(statement, json!({})).await,
            Graph::Embedded => self.run(&["query", "-o", "json", statement]).await.ended(0).rows(),
        }
    }

    /// The name of the property with the contract's `id`.
    pub fn id(&self) -> &'static str {
        match self.graph {
            Graph::Neo4j(_) => "id",
            Graph::Embedded => "contract_id",
        }
    }

    /// All nodes of a label: their properties, with the contract's `id` as `id`.
    pub async fn nodes(&self, label: &str) -> Vec<Map<String, Value>> {
        let rows = match &self.graph {
            Graph::Neo4j(_) => self.read(&format!("MATCH (n:{label}) RETURN properties(n) AS n")).await,
            Graph::Embedded => self.read(&format!("MATCH (n:{label}) RETURN n AS n")).await,
        };
        rows.into_iter()
            .map(|mut row| {
                let node = row["n"].take();
                let node = if node.get("labels").is_some() { node["properties"].clone() } else { node };
                let Value::Object(mut node) = node else { panic!("no node: {node}") };
                if let Some(id) = node.remove("contract_id") {
                    node.insert("id".to_owned(), id);
                }
                node
            })
            .collect()
    }

    /// The whole graph that syncs write, without stamps, metrics and run records: for comparing one state with another.
    pub async fn stable(&self, leave_out: &[&str]) -> BTreeMap<String, Vec<Map<String, Value>>> {
        let mut graph = BTreeMap::new();
        for label in LABELS {
            let mut nodes = self.nodes(label).await;
            for node in &mut nodes {
                node.retain(|name, value| !leave_out.contains(&name.as_str()) && !value.is_null());
            }
            nodes.sort_by_key(|node| format!("{:?}", (node.get("cluster_id"), node.get("id"))));
            graph.insert(label.to_owned(), nodes);
        }
        for (kind, from, to) in RELATIONSHIPS {
            let id = self.id();
            let rows = self
                .read(&format!(
                    "MATCH (a:{from})-[r:{kind}]->(b:{to}) RETURN a.cluster_id AS cluster_id, a.{id} AS id, b.{id} AS to, \
                     r.firstseen AS firstseen, r.lastupdated AS lastupdated, r.included AS included, r.reason AS reason"
                ))
                .await;
            let mut rows: Vec<Map<String, Value>> = rows
                .into_iter()
                .map(|row| {
                    let Value::Object(mut row) = row else { panic!("no row") };
                    row.retain(|name, _| !leave_out.contains(&name.as_str()));
                    row
                })
                .collect();
            rows.sort_by_key(|row| format!("{:?}", (row.get("cluster_id"), row.get("id"), row.get("to"))));
            graph.insert(kind.to_owned(), rows);
        }
        graph
    }
}

/// The labels that a crawl fills.
pub const LABELS: [&str; 8] = [
    "ProxmoxCluster",
    "ProxmoxNode",
    "ProxmoxVM",
    "ProxmoxDisk",
    "ProxmoxNetworkInterface",
    "ProxmoxSnapshot",
    "ProxmoxStorage",
    "ProxmoxBackupJob",
];

/// The relationship types between them, with their ends.
pub const RELATIONSHIPS: [(&str, &str, &str); 11] = [
    ("CONTAINS_NODE", "ProxmoxCluster", "ProxmoxNode"),
    ("HOSTS_VM", "ProxmoxNode", "ProxmoxVM"),
    ("HAS_DISK", "ProxmoxVM", "ProxmoxDisk"),
    ("HAS_NETWORK_INTERFACE", "ProxmoxVM", "ProxmoxNetworkInterface"),
    ("SNAPSHOT_OF", "ProxmoxSnapshot", "ProxmoxVM"),
    ("PARENT_SNAPSHOT", "ProxmoxSnapshot", "ProxmoxSnapshot"),
    ("STORED_ON", "ProxmoxDisk", "ProxmoxStorage"),
    ("AVAILABLE_ON", "ProxmoxStorage", "ProxmoxNode"),
    ("BACKS_UP", "ProxmoxBackupJob", "ProxmoxVM"),
    ("BACKS_UP_TO", "ProxmoxBackupJob", "ProxmoxStorage"),
    ("INCLUDES_DISK", "ProxmoxBackupJob", "ProxmoxDisk"),
];

/// What changes by itself from run to run, besides stamps.
pub const METRICS: [&str; 10] = [
    "uptime",
    "snapshot_count",
    "cpu_usage",
    "memory_used",
    "disk_total",
    "disk_used",
    "total",
    "used",
    "available",
    "lastupdated",
];

/// Both stores: the shared server, emptied and kept for the caller, and a file.
#[macro_export]
macro_rules! on_both_stores {
    ($(#[$meta:meta])* $name:ident => $test:path) => {
        mod $name {
            use super::*;
            $(#[$meta])*
            #[tokio::test(flavor = "multi_thread")]
            async fn on_neo4j() {
                let db = pvegraph_testkit::emptied().await;
                $test(&$crate::support::Graph::Neo4j((*db).clone())).await;
            }
            $(#[$meta])*
            #[tokio::test(flavor = "multi_thread")]
            async fn on_the_embedded_store() {
                $test(&$crate::support::Graph::Embedded).await;
            }
        }
    };
}
