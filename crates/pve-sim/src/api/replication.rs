//! `/cluster/replication` and the jobs' state on nodes.

use serde_json::{Map, Value, json};

use super::Call;
use super::act::{Act, done, fail};
use super::firewall::digest_of;
use crate::answer::{Answer, Rows};
use crate::schema::split_list;

fn row(id: &str, job: &Map<String, Value>) -> Map<String, Value> {
    let (guest, number) = id.split_once('-').unwrap_or((id, "0"));
    let mut row = job.clone();
    row.insert("id".to_owned(), json!(id));
    row.insert("guest".to_owned(), json!(guest.parse::<u32>().unwrap_or_default()));
    row.insert("jobnum".to_owned(), json!(number.parse::<u32>().unwrap_or_default()));
    row.insert("type".to_owned(), json!("local"));
    row
}

/// The guest in a job's name.
fn guest_of(id: &str) -> u32 {
    id.split('-').next().and_then(|vmid| vmid.parse().ok()).unwrap_or_default()
}

/// The digest of the file of all jobs.
fn digest(call: &Call<'_>) -> String {
    digest_of(&json!(call.state.replication.iter().collect::<Vec<_>>()))
}

/// The jobs of guests that the caller may see.
pub fn list(call: &Call<'_>) -> Result<Answer, Answer> {
    let mut rows = Rows::default();
    for (id, job) in &call.state.replication {
        let vmid = id.split('-').next().and_then(|vmid| vmid.parse().ok()).unwrap_or_default();
        if call.sees_guest(vmid) {
            rows.push(&Value::Object(row(id, job)));
        }
    }
    Ok(Answer::rows(rows))
}

pub fn get(call: &Call<'_>) -> Result<Answer, Answer> {
    let id = call.text("id");
    let Some(job) = call.state.replication.get(id) else {
        return fail(format!("no such replication job '{id}'"));
    };
    let vmid = guest_of(id);
    super::checks::require(call, &format!("/vms/{vmid}"), &["VM.Audit"], false)?;
    let mut row = row(id, job);
    row.insert("digest".to_owned(), json!(digest(call)));
    Ok(Answer::ok(Value::Object(row)))
}

/// A job needs a guest whose volumes can be replicated: ZFS alone can.
pub fn create(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let id = act.text("id").to_owned();
    let vmid: u32 = id.split('-').next().and_then(|vmid| vmid.parse().ok()).unwrap_or_default();
    let target = act.text("target").to_owned();
    let Some(guest) = act.state.guests.get(&vmid) else {
        return fail(format!("Guest '{vmid}' does not exists."));
    };
    if !act.state.nodes.contains_key(&target) {
        return fail(format!("Target '{target}' does not exists."));
    }
    let mut replicatable = false;
    for drive in guest.drives() {
        let Some(storage) = drive.storage().and_then(|storage| act.state.storages.get(storage)) else {
            continue;
        };
        let left_out =
            drive.is_cdrom() || drive.option("replicate") == Some("0") || drive.key.starts_with("unused");
        if !left_out && storage.kind != "zfspool" {
            return fail(format!("missing replicate feature on volume '{}'", drive.volume));
        }
        replicatable |= !left_out;
    }
    if !replicatable {
        return fail("No replicatable volumes found");
    }
    if act.state.replication.contains_key(&id) {
        return fail(format!("replication job '{id}' already exists"));
    }
    let settings = act.settings(&["id", "type"]);
    let job = settings.iter().map(|(name, value)| (name.clone(), act.typed(name, value))).collect();
    act.state.replication.insert(id, job);
    done()
}

pub fn update(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let id = act.text("id").to_owned();
    if act.given("digest").is_some_and(|given| given != digest(&act.call())) {
        return fail("detected modified configuration - file changed by other user? Try again.");
    }
    if !act.state.replication.contains_key(&id) {
        return fail(format!("no such job '{id}'"));
    }
    for key in split_list(act.text("delete")) {
        match key {
            "target" => return fail(format!("unable to delete required option '{key}'")),
            "comment" | "disable" | "rate" | "remove_job" | "schedule" | "source" => {}
            _ => return fail(format!("no such option '{key}'")),
        }
    }
    let settings = act.settings(&["id", "type", "delete", "digest"]);
    let changes: Vec<(String, Value)> =
        settings.iter().map(|(name, value)| (name.clone(), act.typed(name, value))).collect();
    let deletes: Vec<String> = split_list(act.text("delete")).map(str::to_owned).collect();
    let Some(job) = act.state.replication.get_mut(&id) else { return fail(format!("no such job '{id}'")) };
    for key in deletes {
        job.remove(&key);
    }
    job.extend(changes);
    done()
}

pub fn delete(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let id = act.text("id").to_owned();
    if act.state.replication.remove(&id).is_none() {
        return fail(format!("no such job '{id}'"));
    }
    done()
}

/// The jobs of a node's guests with their last run.
pub fn on_node(call: &Call<'_>) -> Result<Answer, Answer> {
    let node = call.node()?;
    let mut rows = Rows::default();
    for (id, job) in &call.state.replication {
        let vmid: u32 = id.split('-').next().and_then(|vmid| vmid.parse().ok()).unwrap_or_default();
        let here = call.state.guests.get(&vmid).is_some_and(|guest| guest.node == node.name);
        if here && call.sees_guest(vmid) {
            let mut row = row(id, job);
            row.insert("fail_count".to_owned(), json!(0));
            let kind = call.state.guests.get(&vmid).map_or("qemu", |guest| guest.kind.name());
            row.insert("vmtype".to_owned(), json!(kind));
            for key in ["duration", "last_sync", "last_try", "next_sync"] {
                row.insert(key.to_owned(), json!(0));
            }
            row.insert("source".to_owned(), json!(*node.name));
            rows.push(&Value::Object(row));
        }
    }
    Ok(Answer::rows(rows))
}

/// A job with its last run, on the node of its guest.
fn state_of<'a>(call: &Call<'a>) -> Result<(&'a str, Map<String, Value>), Answer> {
    let node = call.node()?;
    let id = call.text("id");
    let Some((id, job)) = call.state.replication.get_key_value(id) else {
        return fail(format!("no such replication job '{id}'"));
    };
    let vmid = guest_of(id);
    super::checks::require(call, &format!("/vms/{vmid}"), &["VM.Audit"], false)?;
    let mut row = row(id, job);
    let kind = call.state.guests.get(&vmid).map_or("qemu", |guest| guest.kind.name());
    for (key, value) in [("fail_count", json!(0)), ("source", json!(*node.name)), ("vmtype", json!(kind))] {
        row.insert(key.to_owned(), value);
    }
    for key in ["duration", "last_sync", "last_try", "next_sync"] {
        row.insert(key.to_owned(), json!(0));
    }
    Ok((id, row))
}

pub fn status(call: &Call<'_>) -> Result<Answer, Answer> {
    Ok(Answer::ok(Value::Object(state_of(call)?.1)))
}

/// A job that has not run has no log.
pub fn log(call: &Call<'_>) -> Result<Answer, Answer> {
    state_of(call)?;
    Ok(Answer::ok(json!([{"n": 1, "t": "no content"}])))
}

pub fn schedule_now(act: &mut Act<'_>) -> Result<Answer, Answer> {
    state_of(&act.call())?;
    done()
}
