//! The control endpoint: what tests in other languages and people with `curl` do to a running simulator.
//!
//! It lies beside PVE's API, answers to loopback alone, and asks for no rights: whoever may start a simulator may spoil
//! its world.
//!
//! | request | does |
//! |---|---|
//! | `GET /sim/counters` | requests by path, highest concurrency, connections |
//! | `GET /sim/faults` | the rules in force, by number |
//! | `POST /sim/faults` | adds a rule: `{"path": "/nodes/pve1", "fault": "status", "status": 500, "reason": "x", "times": 2}` |
//! | `DELETE /sim/faults`, `DELETE /sim/faults/3` | removes all rules, or one |
//! | `POST /sim/world` | `{"node": "pve2", "online": false}`, `{"vmid": 100, "lock": "backup"}`, `{"clock": 60}`, `{"ha_lag": 5000}`, `{"next_exit": "WARNINGS: 1"}`, `{"time_scale": 0.1}` |
//!
//! A rule's `fault` is one of `latency` and `jitter` (`milliseconds`), `status` and `bare-status` (`status`, `reason`),
//! `drop`, `truncate` (`bytes`), `html`, `hang`, `lose-answer`, `take-vmid`. With `"exact": true` it strikes its path alone,
//! with `"method": "POST"` only that verb, with `"after": 3` not before the fourth request.

use std::time::Duration;

use serde_json::{Value, json};

use crate::answer::Answer;
use crate::counters::Counters;
use crate::faults::{Fault, FaultRule, Faults};
use crate::world::{World, WorldError};

/// A request that the control endpoint cannot follow.
fn refuse(text: impl std::fmt::Display) -> Answer {
    Answer::error(400, text.to_string())
}

/// Answers a request below `/sim`.
pub(crate) fn answer(
    method: &str,
    path: &str,
    body: &[u8],
    faults: &Faults,
    counters: &Counters,
    world: Option<&World>,
) -> Answer {
    let asked: Value =
        if body.is_empty() { Value::Null } else { serde_json::from_slice(body).unwrap_or_default() };
    match (method, path.trim_end_matches('/')) {
        ("GET", "/sim/counters") => Answer::ok(json!({
            "by-path": counters.by_path(), "connections": counters.connections(),
            "highest-concurrency": counters.highest_concurrency(), "total": counters.total(),
        })),
        ("GET", "/sim/faults") => {
            let row = |(id, rule): (u64, FaultRule)| json!({"id": id, "rule": format!("{rule:?}")});
            Answer::ok(faults.list().into_iter().map(row).collect())
        }
        ("POST", "/sim/faults") => match rule(&asked) {
            Ok(rule) => Answer::ok(json!({"id": faults.add(rule)})),
            Err(problem) => refuse(problem),
        },
        ("DELETE", "/sim/faults") => {
            faults.clear();
            Answer::ok(Value::Null)
        }
        ("DELETE", path) => match path.strip_prefix("/sim/faults/").and_then(|id| id.parse().ok()) {
            Some(id) => {
                faults.remove(id);
                Answer::ok(Value::Null)
            }
            None => Answer::not_implemented(method, path),
        },
        ("POST", "/sim/world") => match world {
            Some(world) => match change(world, &asked) {
                Ok(()) => Answer::ok(Value::Null),
                Err(problem) => refuse(problem),
            },
            None => refuse("a recording is served, which has no world"),
        },
        (method, path) => Answer::not_implemented(method, path),
    }
}

fn rule(asked: &Value) -> Result<FaultRule, String> {
    let number = |key: &str| asked[key].as_u64().ok_or_else(|| format!("{key} is missing or no number"));
    let text = |key: &str| asked[key].as_str().unwrap_or_default().to_owned();
    let status =
        || number("status").and_then(|status| u16::try_from(status).map_err(|error| error.to_string()));
    let fault = match asked["fault"].as_str().unwrap_or_default() {
        "latency" => Fault::Latency(Duration::from_millis(number("milliseconds")?)),
        "jitter" => Fault::Jitter(Duration::from_millis(number("milliseconds")?)),
        "status" => Fault::Status { status: status()?, reason: text("reason") },
        "bare-status" => Fault::BareStatus { status: status()?, reason: text("reason") },
        "drop" => Fault::Drop,
        "truncate" => Fault::Truncate(usize::try_from(number("bytes")?).unwrap_or(usize::MAX)),
        "html" => Fault::Html,
        "hang" => Fault::Hang,
        "lose-answer" => Fault::LoseAnswer,
        "take-vmid" => Fault::TakeVmid,
        other => return Err(format!("there is no fault {other:?}")),
    };
    let Some(path) = asked["path"].as_str() else { return Err("path is missing".to_owned()) };
    let mut rule = match asked["exact"].as_bool() {
        Some(true) => FaultRule::at(path, fault),
        _ => FaultRule::below(path, fault),
    };
    if let Some(times) = asked["times"].as_u64() {
        rule = rule.times(usize::try_from(times).unwrap_or(usize::MAX));
    }
    if let Some(spared) = asked["after"].as_u64() {
        rule = rule.after(usize::try_from(spared).unwrap_or(usize::MAX));
    }
    if let Some(method) = asked["method"].as_str() {
        rule = rule.method(method);
    }
    Ok(rule)
}

fn change(world: &World, asked: &Value) -> Result<(), String> {
    let explain = |error: WorldError| error.to_string();
    let mut known = false;
    if let (Some(node), Some(online)) = (asked["node"].as_str(), asked["online"].as_bool()) {
        world.set_node_online(node, online).map_err(explain)?;
        known = true;
    }
    if let Some(vmid) = asked["vmid"].as_u64().and_then(|vmid| u32::try_from(vmid).ok()) {
        match asked["lock"].as_str() {
            Some(lock) => world.set_config(vmid, "lock", lock).map_err(explain)?,
            None => world.delete_config(vmid, "lock").map_err(explain)?,
        }
        known = true;
    }
    if let Some(seconds) = asked["clock"].as_i64() {
        world.advance_clock(seconds);
        known = true;
    }
    if let Some(milliseconds) = asked["ha_lag"].as_u64() {
        world.update(|state| state.ha_lag = milliseconds);
        known = true;
    }
    if let Some(exit) = asked["next_exit"].as_str() {
        world.set_next_exit(exit);
        known = true;
    }
    if let Some(scale) = asked["time_scale"].as_f64() {
        world.set_time_scale(scale);
        known = true;
    }
    if known {
        Ok(())
    } else {
        Err("nothing to change: node with online, vmid, clock, ha_lag, next_exit or time_scale".to_owned())
    }
}
