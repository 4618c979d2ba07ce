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
    let mut row = row(id, job);
    row.insert("digest".to_owned(), json!(digest_of(&json!(job))));
    Ok(Answer::ok(Value::Object(row)))
}

/// A job needs a guest whose volumes can be replicated: ZFS alone can.
pub fn create(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let id = act.text("id").to_owned();
    let vmid: u32 = id.split('-').next().and_then(|vmid| vmid.parse().ok()).unwrap_or_default();
    let target = act.text("target").to_owned();
    if act.state.replication.contains_key(&id) {
        return fail(format!("replication job '{id}' already exists"));
    }
    let Some(guest) = act.state.guests.get(&vmid) else {
        return fail(format!("guest '{vmid}' does not exist"));
    };
    if !act.state.nodes.contains_key(&target) {
        return fail(format!("no such cluster node '{target}'"));
    }
    if guest.node.as_ref() == target {
        return fail("source and target node must be different");
    }
    for drive in guest.drives() {
        let Some(storage) = drive.storage().and_then(|storage| act.state.storages.get(storage)) else {
            continue;
        };
        let left_out =
            drive.is_cdrom() || drive.option("replicate") == Some("0") || drive.key.starts_with("unused");
        if !left_out && storage.kind != "zfspool" {
            return fail(format!("missing replicate feature on volume '{}'", drive.volume));
        }
    }
    let settings = act.settings(&["id", "type"]);
    let job = settings.iter().map(|(name, value)| (name.clone(), act.typed(name, value))).collect();
    act.state.replication.insert(id, job);
    done()
}

pub fn update(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let id = act.text("id").to_owned();
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
            row.insert("vmtype".to_owned(), json!("qemu"));
            row.insert("source".to_owned(), json!(*node.name));
            rows.push(&Value::Object(row));
        }
    }
    Ok(Answer::rows(rows))
}
