//! `/pools`.

use serde_json::{Value, json};

use super::{Call, cluster, storage};
use crate::answer::{Answer, Rows};
use crate::world::state::Pool;

/// The pools that the caller may see; with `poolid` that pool with its members, whose privileges PVE 8.4 does not ask for.
pub fn list(call: &Call<'_>) -> Result<Answer, Answer> {
    let mut rows = Rows::default();
    let id = call.text("poolid");
    if id.is_empty() {
        for (name, pool) in &call.state.pools {
            if call.allows(&format!("/pool/{name}"), &["Pool.Audit"]) {
                rows.push(&row(name, pool));
            }
        }
    } else {
        rows.push(&with_members(call, id)?);
    }
    Ok(Answer::rows(rows))
}

/// One pool with its members.
pub fn pool(call: &Call<'_>) -> Result<Answer, Answer> {
    with_members(call, call.text("poolid")).map(Answer::ok)
}

fn row(name: &str, pool: &Pool) -> Value {
    let mut row = json!({"poolid": name});
    if let Some(comment) = &pool.comment {
        row["comment"] = json!(comment);
    }
    row
}

/// A storage is a member once, on the first node that has it.
fn with_members(call: &Call<'_>, id: &str) -> Result<Value, Answer> {
    let pools = &call.state.pools;
    let pool = pools.get(id).ok_or_else(|| Answer::error(500, format!("pool '{id}' does not exist")))?;
    let wanted = call.text("type");
    let wants = |kind: &str| wanted.is_empty() || wanted == kind;
    let mut members = Vec::new();
    for guest in call.state.guests.values().filter(|guest| guest.pool.as_deref() == Some(id)) {
        if wants(guest.kind.name()) {
            members.push(cluster::member_row(call, guest));
        }
    }
    for storage in
        pool.storages.iter().filter_map(|name| call.state.storages.get(name)).filter(|_| wants("storage"))
    {
        let node = call.state.nodes.values().find(|node| storage.is_active_on(&node.name));
        members.extend(node.map(|node| storage::resource_row(node, storage)));
    }
    let mut row = row(id, pool);
    row["members"] = Value::Array(members);
    Ok(row)
}
