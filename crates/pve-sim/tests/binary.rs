//! The program: what it prints, what it serves, how it stops.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

struct Running {
    child: Child,
    said: BTreeMap<String, String>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts the program and reads what it prints up to `last`.
fn start(arguments: &[&str], last: &str) -> Running {
    let mut child = Command::new(env!("CARGO_BIN_EXE_pve-sim"))
        .args(["--listen", "127.0.0.1:0"])
        .args(arguments)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BTreeMap::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        let (name, value) = line.split_once(' ').unwrap();
        said.insert(name.to_owned(), value.to_owned());
        if name == last {
            break;
        }
    }
    Running { child, said }
}

fn read(running: &Running, token: &str, path: &str) -> (u16, serde_json::Value) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let url = running.said["url"].split(' ').next().unwrap().to_owned();
    let ca = std::fs::read(&running.said["ca-file"]).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let ca = reqwest::Certificate::from_pem(&ca).unwrap();
        let client = reqwest::Client::builder().tls_certs_only([ca]).no_proxy().build().unwrap();
        let request = client
            .get(format!("{url}/api2/json{path}"))
            .header("Authorization", format!("PVEAPIToken={token}"));
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    })
}

#[test]
fn it_prints_what_a_client_needs_and_stops_cleanly() {
    for signal in ["-TERM", "-INT"] {
        let mut running = start(&["--nodes", "2", "--guests", "9", "--seed", "7"], "token-secret-file");
        let secret_file = PathBuf::from(&running.said["token-secret-file"]);
        let secret = std::fs::read_to_string(&secret_file).unwrap();
        let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&secret_file).unwrap());
        assert_eq!(mode & 0o777, 0o600);
        let token = format!("{}={}", running.said["token-id"], secret.trim());
        let (status, body) = read(&running, &token, "/cluster/resources?type=vm");
        assert_eq!((status, body["data"].as_array().unwrap().len()), (200, 9));
        assert!(!format!("{:?}", running.said).contains(secret.trim()));
        assert!(
            Command::new("kill").arg(signal).arg(running.child.id().to_string()).status().unwrap().success()
        );
        assert!(running.child.wait().unwrap().success());
        assert!(!secret_file.exists() && !secret_file.parent().unwrap().exists());
    }
}

#[test]
fn it_serves_a_recording() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("estate.jsonl");
    std::fs::write(
        &file,
        r#"{"path":"/version","status":200,"reason":"OK","json":{"data":{"version":"8.4.1"}}}"#,
    )
    .unwrap();
    let running = start(&["--recorded", file.to_str().unwrap()], "ca-file");
    assert_eq!(read(&running, "any@pve!x=y", "/version").1["data"]["version"], "8.4.1");
    let failed = Command::new(env!("CARGO_BIN_EXE_pve-sim"))
        .args(["--recorded", "/nowhere/x.jsonl"])
        .output()
        .unwrap();
    let text = String::from_utf8(failed.stderr).unwrap();
    assert!(
        !failed.status.success() && text.contains("/nowhere/x.jsonl") && text.lines().count() == 1,
        "{text}"
    );
}

#[test]
fn it_refuses_to_listen_for_others() {
    let refused =
        Command::new(env!("CARGO_BIN_EXE_pve-sim")).args(["--listen", "0.0.0.0:0"]).output().unwrap();
    let text = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && text.contains("0.0.0.0 is not a loopback address"), "{text}");
}
