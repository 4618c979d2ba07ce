//! `/cluster/ha`: resources, groups, and what HA is doing.

use serde_json::{Map, Value, json};

use super::Call;
use super::act::{Act, done, fail};
use super::firewall::digest_of;
use crate::answer::{Answer, Rows};
use crate::schema::split_list;
use crate::world::state::{Guest, GuestKind};

/// `vm:100` or `ct:100`.
fn sid_of(guest: &Guest) -> String {
    format!("{}:{}", if guest.kind == GuestKind::Qemu { "vm" } else { "ct" }, guest.vmid)
}

/// A resource by its name; a plain number stands for the guest of that number.
fn guest_of<'a>(call: &Call<'a>, sid: &str) -> Option<&'a Guest> {
    let vmid: u32 = sid.rsplit(':').next()?.parse().ok()?;
    call.state.guests.get(&vmid).filter(|guest| !sid.contains(':') || sid_of(guest) == sid)
}

fn digest(call: &Call<'_>) -> String {
    let all: Vec<String> =
        call.state.guests.values().filter(|guest| guest.ha.is_some()).map(sid_of).collect();
    digest_of(&json!([all, call.state.ha_settings.values().collect::<Vec<_>>()]))
}

/// One resource.
pub fn resource(call: &Call<'_>) -> Result<Answer, Answer> {
    let sid = call.text("sid");
    let Some(guest) = guest_of(call, sid).filter(|guest| guest.ha.is_some()) else {
        return fail(format!("no such resource '{sid}'"));
    };
    let sid = sid_of(guest);
    let mut row = call.state.ha_settings.get(&sid).cloned().unwrap_or_default();
    let kind = if guest.kind == GuestKind::Qemu { "vm" } else { "ct" };
    row.insert("digest".to_owned(), json!(digest(call)));
    row.insert("sid".to_owned(), json!(sid));
    row.insert("type".to_owned(), json!(kind));
    row.insert("state".to_owned(), json!(guest.ha.as_deref()));
    Ok(Answer::ok(Value::Object(row)))
}

/// `POST /cluster/ha/resources`. HA then brings the guest into the state asked for.
pub fn add(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let given = act.text("sid").to_owned();
    let call = act.call();
    let Some(guest) = guest_of(&call, &given) else {
        return fail(format!("resource '{given}' does not exist in cluster"));
    };
    let (sid, vmid, managed) = (sid_of(guest), guest.vmid, guest.ha.is_some());
    if managed {
        return fail(format!("create resource failed: resource ID '{sid}' already defined"));
    }
    check_group(act)?;
    let settings = settings(act);
    act.state.ha_settings.insert(sid.clone(), settings);
    let state = act.given("state").unwrap_or("started").to_owned();
    act.state.ha_doing.insert(sid, "queued".to_owned());
    if let Some(guest) = act.state.guests.get_mut(&vmid) {
        guest.ha = Some(state.as_str().into());
    }
    super::power::later(act, vmid, "");
    done()
}

fn check_group(act: &Act<'_>) -> Result<(), Answer> {
    match act.given("group") {
        Some(group) if !act.state.ha_groups.contains_key(group) => {
            fail(format!("ha group '{group}' does not exist"))
        }
        _ => Ok(()),
    }
}

fn settings(act: &Act<'_>) -> Map<String, Value> {
    let kept = act.settings(&["sid", "type", "state", "delete", "digest"]);
    kept.iter().map(|(name, value)| (name.clone(), act.typed(name, value))).collect()
}

fn managed(act: &Act<'_>, verb: &str) -> Result<(String, u32), Answer> {
    let sid = act.text("sid");
    match guest_of(&act.call(), sid).filter(|guest| guest.ha.is_some()) {
        Some(guest) => Ok((sid_of(guest), guest.vmid)),
        None if verb == "delete" => fail(format!("cannot delete service '{sid}', not HA managed!")),
        None => fail(format!("no such resource '{sid}'")),
    }
}

/// `PUT …/{sid}`: the state asked for, or settings. A resource in `error` must be `disabled` first.
pub fn update(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let (sid, vmid) = managed(act, "update")?;
    check_group(act)?;
    if act.given("digest").is_some_and(|given| given != digest(&act.call())) {
        return fail(
            "update resource failed: detected modified configuration - file changed by other user? Try again.",
        );
    }
    let (changes, state) = (settings(act), act.given("state").map(str::to_owned));
    let deletes: Vec<String> = split_list(act.text("delete")).map(str::to_owned).collect();
    let settings = act.state.ha_settings.entry(sid.clone()).or_default();
    for key in deletes {
        settings.remove(&key);
    }
    settings.extend(changes);
    if let Some(state) = state {
        let doing =
            if matches!(state.as_str(), "stopped" | "disabled") { "request_stop" } else { "request_start" };
        act.state.ha_doing.insert(sid, doing.to_owned());
        if let Some(guest) = act.state.guests.get_mut(&vmid) {
            guest.ha = Some(state.as_str().into());
        }
        super::power::later(act, vmid, "");
    }
    done()
}

pub fn delete(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let (sid, vmid) = managed(act, "delete")?;
    act.state.ha_settings.remove(&sid);
    act.state.ha_doing.remove(&sid);
    if let Some(guest) = act.state.guests.get_mut(&vmid) {
        guest.ha = None;
    }
    done()
}

/// `POST …/{sid}/migrate` and `…/relocate`: a request that HA follows later.
pub fn migrate(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let (sid, vmid) = managed(act, "migrate")?;
    let target = act.text("node").to_owned();
    if !act.state.nodes.contains_key(&target) {
        return fail(format!("no such cluster node '{target}'"));
    }
    act.state.ha_doing.insert(sid, "migrate".to_owned());
    super::power::later(act, vmid, &target);
    done()
}

fn group_row(call: &Call<'_>, name: &str, group: &Map<String, Value>) -> Value {
    let mut row = group.clone();
    row.insert(
        "digest".to_owned(),
        json!(digest_of(&json!(call.state.ha_groups.values().collect::<Vec<_>>()))),
    );
    row.insert("group".to_owned(), json!(name));
    row.insert("type".to_owned(), json!("group"));
    Value::Object(row)
}

pub fn groups(call: &Call<'_>) -> Result<Answer, Answer> {
    let rows = call.state.ha_groups.iter().map(|(name, group)| group_row(call, name, group));
    Ok(Answer::ok(rows.collect()))
}

pub fn group(call: &Call<'_>) -> Result<Answer, Answer> {
    let name = call.text("group");
    match call.state.ha_groups.get(name) {
        Some(group) => Ok(Answer::ok(group_row(call, name, group))),
        None => fail(format!("no such ha group '{name}'")),
    }
}

fn group_settings(act: &Act<'_>) -> Map<String, Value> {
    let kept = act.settings(&["group", "type", "delete", "digest"]);
    kept.iter().map(|(name, value)| (name.clone(), act.typed(name, value))).collect()
}

pub fn create_group(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let name = act.text("group").to_owned();
    if act.state.ha_groups.contains_key(&name) {
        return fail(format!("create ha group failed: ha group ID '{name}' already defined"));
    }
    let settings = group_settings(act);
    act.state.ha_groups.insert(name, settings);
    done()
}

pub fn update_group(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let (name, changes) = (act.text("group").to_owned(), group_settings(act));
    let deletes: Vec<String> = split_list(act.text("delete")).map(str::to_owned).collect();
    let Some(group) = act.state.ha_groups.get_mut(&name) else {
        return fail(format!("no such ha group '{name}'"));
    };
    for key in deletes {
        group.remove(&key);
    }
    group.extend(changes);
    done()
}

pub fn delete_group(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let name = act.text("group").to_owned();
    let user = act.state.ha_settings.iter().find(|(_, settings)| settings.get("group") == Some(&json!(name)));
    if user.is_some() {
        return fail("delete group failed: ha group is used by service");
    }
    if act.state.ha_groups.remove(&name).is_none() {
        return fail(format!("delete group failed: no such ha group '{name}'"));
    }
    done()
}

/// The node of the quorum row: the one asked.
fn quorum(call: &Call<'_>) -> Value {
    let quorate = call.state.quorate;
    let status = if quorate { "OK" } else { "No quorum on node!" };
    json!({"id": "quorum", "node": call.local_node, "quorate": u8::from(quorate), "status": status, "type": "quorum"})
}

/// `GET /cluster/ha/status/current`. Master and node agents show once HA has begun its work.
pub fn current(call: &Call<'_>) -> Result<Answer, Answer> {
    let mut rows = vec![quorum(call)];
    let services: Vec<&Guest> = call.state.guests.values().filter(|guest| guest.ha.is_some()).collect();
    if call.state.ha_active {
        let mut online = call.state.nodes.values().filter(|node| node.online);
        if let Some(master) = online.next_back().or_else(|| call.state.nodes.values().next()) {
            rows.push(json!({
                "id": "master", "node": *master.name, "status": format!("{} (active)", master.name),
                "timestamp": call.now, "type": "master",
            }));
        }
        for node in call.state.nodes.values() {
            rows.push(json!({
                "id": format!("lrm:{}", node.name), "node": *node.name, "status": format!("{} (idle)", node.name),
                "timestamp": call.now, "type": "lrm",
            }));
        }
    }
    for guest in services {
        let sid = sid_of(guest);
        let asked = guest.ha.as_deref().unwrap_or_default();
        let doing = call.state.ha_doing.get(&sid).map_or(asked, String::as_str);
        let mut row =
            Map::from_iter([("max_relocate".to_owned(), json!(1)), ("max_restart".to_owned(), json!(1))]);
        row.extend(call.state.ha_settings.get(&sid).cloned().unwrap_or_default());
        for (key, value) in [
            ("id", json!(format!("service:{sid}"))),
            ("node", json!(*guest.node)),
            ("request_state", json!(asked)),
            ("sid", json!(sid)),
            ("state", json!(doing)),
            ("status", json!(format!("{sid} ({}, {doing})", guest.node))),
            ("type", json!("service")),
        ] {
            row.insert(key.to_owned(), value);
        }
        // What HA has not looked at yet, or is told to ignore, it has no state of its own for.
        if doing != "queued" && asked != "ignored" {
            row.insert("crm_state".to_owned(), json!(doing));
        }
        rows.push(Value::Object(row));
    }
    Ok(Answer::ok(Value::Array(rows)))
}

/// `GET /cluster/ha/status/manager_status`.
pub fn manager(call: &Call<'_>) -> Result<Answer, Answer> {
    let nodes = call.state.nodes.values();
    let mut services = Map::new();
    let mut results: std::collections::BTreeMap<&str, Map<String, Value>> = Default::default();
    for guest in call.state.guests.values() {
        let Some(asked) = guest.ha.as_deref().filter(|asked| *asked != "ignored") else { continue };
        let sid = sid_of(guest);
        let doing = call.state.ha_doing.get(&sid).map_or(asked, String::as_str);
        let uid = digest_of(&json!([sid, doing]));
        services.insert(sid.clone(), {
            let mut service = json!({"node": *guest.node, "state": doing, "uid": uid});
            // A node agent reports only what runs.
            if guest.is_running() {
                service["running"] = json!(1);
            }
            service
        });
        let result = json!({"exit_code": 0, "sid": sid, "state": doing});
        results.entry(&guest.node).or_default().insert(uid, result);
    }
    let lrm: Map<String, Value> = nodes
        .clone()
        .map(|node| {
            let own = results.get(node.name.as_ref()).cloned().unwrap_or_default();
            let state = if own.is_empty() { "wait_for_agent_lock" } else { "active" };
            let row = json!({"mode": "active", "results": own, "state": state, "timestamp": call.now});
            (node.name.to_string(), row)
        })
        .collect();
    let status: Map<String, Value> = nodes
        .clone()
        .map(|node| (node.name.to_string(), json!(if node.online { "online" } else { "unknown" })))
        .collect();
    let master = call.state.nodes.values().rfind(|node| node.online).map(|node| node.name.to_string());
    Ok(Answer::ok(json!({
        "lrm_status": lrm,
        "manager_status": {
            "master_node": master, "node_status": status, "service_status": services, "timestamp": call.now,
        },
        "quorum": {"node": call.local_node, "quorate": if call.state.quorate { "1" } else { "0" }},
    })))
}

/// The resources as a list.
pub fn resources(call: &Call<'_>) -> Result<Answer, Answer> {
    let mut rows = Rows::default();
    for guest in call.state.guests.values() {
        let kind = if guest.kind == GuestKind::Qemu { "vm" } else { "ct" };
        let Some(state) = guest.ha.as_deref().filter(|_| matches!(call.text("type"), "" | "vm" | "ct"))
        else {
            continue;
        };
        if matches!(call.text("type"), "vm" | "ct") && call.text("type") != kind {
            continue;
        }
        let sid = sid_of(guest);
        let mut row = call.state.ha_settings.get(&sid).cloned().unwrap_or_default();
        for (key, value) in [
            ("sid", json!(sid)),
            ("type", json!(kind)),
            ("state", json!(state)),
            ("digest", json!(crate::world::config::Config::default().digest())),
        ] {
            row.insert(key.to_owned(), value);
        }
        rows.push(&Value::Object(row));
    }
    Ok(Answer::rows(rows))
}
