//! Requests to a world without a server in between.

use pve_sim::{Answer, Principal, World};
use serde_json::Value;

pub const ROOT: &str = "root@pam";

pub fn call(world: &World, who: &str, method: &str, path: &str, parameters: &[(&str, &str)]) -> Answer {
    world.request(&Principal::parse(who), method, path, parameters)
}

/// The data of an answer that is none but a success.
pub fn ok(world: &World, method: &str, path: &str, parameters: &[(&str, &str)]) -> Value {
    let answer = call(world, ROOT, method, path, parameters);
    assert!(answer.is_ok(), "{method} {path}: {answer:?}");
    answer.body.to_json()["data"].clone()
}
