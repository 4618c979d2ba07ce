//! `/pools`.

use serde_json::{Value, json};

use super::act::{Act, done, fail};
use super::{Call, checks, cluster, storage};
use crate::answer::{Answer, Rows};
use crate::schema::split_list;
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

/// `POST /pools`. A pool below another needs that one.
pub fn create(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let id = act.text("poolid").to_owned();
    if act.state.pools.contains_key(&id) {
        return fail(format!("create pool failed: pool '{id}' already exists"));
    }
    if let Some((parent, _)) = id.rsplit_once('/')
        && !act.state.pools.contains_key(parent)
    {
        return fail(format!("create pool failed: parent '{parent}' of pool '{id}' does not exist"));
    }
    let comment = act.given("comment").filter(|comment| !comment.is_empty()).map(str::to_owned);
    act.state.pools.insert(id, Pool { comment, ..Pool::default() });
    done()
}

/// `PUT /pools`, with the pool as a parameter or in the path. A guest of another pool comes only with `allow-move`. Nobody
/// looks whether there is such a guest or storage, and who changes the members needs rights on them. All of it or nothing
/// is written.
pub fn update(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let id = act.text("poolid").to_owned();
    let problem = |text: String| fail(format!("update pools failed: {text}"));
    // A refusal inside loses its status and keeps its text.
    let refused = |refusal: Answer| {
        Answer::error(500, format!("update pools failed: {} {}", refusal.status, refusal.reason))
    };
    let Some(have) = act.state.pools.get(&id) else {
        return problem(format!("pool '{id}' does not exist"));
    };
    let (delete, moves) = (act.flag("delete"), act.flag("allow-move"));
    let vmids: Vec<u32> = split_list(act.text("vms")).filter_map(|vmid| vmid.parse().ok()).collect();
    let storages: Vec<String> = split_list(act.text("storage")).map(str::to_owned).collect();
    let call = act.call();
    for vmid in &vmids {
        checks::modify(&call, &format!("/vms/{vmid}")).map_err(refused)?;
        let pool = act.state.guests.get(vmid).and_then(|guest| guest.pool.as_deref());
        match pool {
            Some(pool) if delete && pool == id => {}
            _ if delete => return problem(format!("VM {vmid} is not a pool member")),
            Some(pool) if pool == id => return problem(format!("VM {vmid} is already a pool member")),
            Some(pool) if !moves => {
                return problem(format!(
                    "VM {vmid} belongs already to pool '{pool}' and 'allow-move' is not set"
                ));
            }
            Some(pool) => {
                let path = format!("/pool/{pool}");
                checks::require(&call, &path, &["Pool.Allocate"], false).map_err(refused)?;
            }
            None => {}
        }
    }
    for storage in &storages {
        checks::modify(&call, &format!("/storage/{storage}")).map_err(refused)?;
        match have.storages.contains(storage) {
            false if delete => return problem(format!("Storage '{storage}' is not a pool member")),
            true if !delete => return problem(format!("Storage '{storage}' is already a pool member")),
            _ => {}
        }
    }
    for vmid in vmids {
        if let Some(guest) = act.state.guests.get_mut(&vmid) {
            guest.pool = if delete { None } else { Some(id.as_str().into()) };
        }
    }
    let comment = act.given("comment").map(str::to_owned);
    if let Some(pool) = act.state.pools.get_mut(&id) {
        for storage in storages {
            if delete {
                pool.storages.remove(&storage);
            } else {
                pool.storages.insert(storage);
            }
        }
        if let Some(comment) = comment {
            pool.comment = Some(comment).filter(|comment| !comment.is_empty());
        }
    }
    done()
}

/// `DELETE /pools`: only an empty pool goes.
pub fn delete(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let id = act.text("poolid").to_owned();
    let problem = |text: String| fail(format!("delete pool failed: {text}"));
    let Some(pool) = act.state.pools.get(&id) else { return problem(format!("pool '{id}' does not exist")) };
    let below = format!("{id}/");
    if let Some(child) = act.state.pools.keys().find(|name| name.starts_with(&below)) {
        return problem(format!("pool '{id}' is not empty (contains pool '{child}')"));
    }
    if let Some(guest) = act.state.guests.values().find(|guest| guest.pool.as_deref() == Some(&id)) {
        return problem(format!("pool '{id}' is not empty (contains VM {})", guest.vmid));
    }
    if let Some(storage) = pool.storages.iter().next() {
        return problem(format!("pool '{id}' is not empty (contains storage '{storage}')"));
    }
    act.state.pools.remove(&id);
    act.state.access.acl.remove(&format!("/pool/{id}"));
    done()
}
