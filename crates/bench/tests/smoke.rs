//! The bench from end to end, on an estate that takes no time. Nothing here asserts how long anything takes.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// The programs that are measured lie beside the bench. `cargo test --workspace` has built them; a test of this package alone has not.
fn built(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_pvegraph-bench")).with_file_name(name);
    if !path.is_file() {
        let built =
            Command::new(env!("CARGO")).args(["build", "--quiet", "--bin", name, "-p", name]).status();
        assert!(built.unwrap().success() && path.is_file(), "{} could not be built", path.display());
    }
    path
}

/// What the bench prints and the figures that it writes.
fn bench(cases: &[&str]) -> (String, String, Value) {
    let directory = tempfile::tempdir().unwrap();
    let json = directory.path().join("figures.json");
    let output = Command::new(env!("CARGO_BIN_EXE_pvegraph-bench"))
        .args(cases)
        .args(["--out", "docs-table", "--heap", "512m", "--page-cache", "64m"])
        .arg("--pvegraph")
        .arg(built("pvegraph"))
        .arg("--pve-sim")
        .arg(built("pve-sim"))
        .arg("--json")
        .arg(&json)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
    (out, err, serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap())
}

#[test]
fn a_small_estate_is_measured_with_its_floors() {
    let (out, err, figures) = bench(&["small", "start", "--runs", "1", "--starts", "3", "--latency-ms", "1"]);
    let estate = &figures["estates"][0];
    let seed = estate["seed"].as_u64().unwrap();
    assert!(err.contains(&format!("seed {seed}")) && out.contains(&format!("seed {seed}")), "{out}\n{err}");
    assert_eq!(estate["estate"]["latency_ms"], 1, "an option goes before the case's own");
    let round = &estate["rounds"][0];
    let requests = round["first"]["requests"].as_u64().unwrap();
    assert!(requests > 60, "one for each guest at least: {requests}");
    assert_eq!(round["crawl_floor"]["floor"]["requests"], round["first"]["requests"]);
    assert_eq!(round["crawl_floor"]["floor"]["refused"], 0, "the token sees everything");
    let load = &round["load_floor"]["floor"];
    assert!(load["nodes"].as_u64().unwrap() > 60 && load["relationships"].as_u64().unwrap() > 60, "{load}");
    for process in ["first", "second", "crawl_floor", "load_floor"] {
        let peak = round[process]["usage"]["peak_bytes"].as_u64().unwrap();
        assert!(peak > 1_000_000, "{process}: {peak}");
    }
    assert_eq!(figures["start"]["count"], 3);
    for words in ["| small", "first run, round 1", "second run, round 1", "pvegraph --version"] {
        assert!(out.contains(words), "{words:?} is not in: {out}");
    }
}

#[test]
fn plans_and_applying_to_a_small_estate_are_measured() {
    let (out, _, figures) = bench(&["plan", "apply", "--nodes", "5", "--guests", "120", "--runs", "2"]);
    let plan = &figures["plan"];
    assert_eq!((&plan["operations"], plan["rounds"].as_array().unwrap().len()), (&1.into(), 2));
    let run = &plan["rounds"][0];
    assert!(run["requests"].as_u64().unwrap() > 120, "one for each guest at least: {run}");
    assert!(run["usage"]["peak_bytes"].as_u64().unwrap() > 1_000_000);
    let apply = &figures["apply"];
    assert_eq!((&apply["operations"], apply["rounds"].as_array().unwrap().len()), (&24.into(), 2));
    let run = &apply["rounds"][0];
    let most = run["most"].as_u64().unwrap();
    assert!((1..=8).contains(&most) && run["mean"].as_f64().unwrap() <= 8.0, "{run}");
    assert!(run["requests"].as_u64().unwrap() > 24, "{run}");
    assert!(
        out.contains("apply, round 2")
            && out.contains("plan, round 2")
            && out.contains("peak memory ≤ 300 MB"),
        "{out}"
    );
}
