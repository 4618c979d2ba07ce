//! `/cluster/ha`: resources, groups, and what HA is doing.

use serde_json::{Map, Value, json};

use super::Call;
use super::act::{Act, done, fail};
use super::firewall::digest_of;
use crate::answer::{Answer, Rows};
use crate::schema::split_list;
use crate::world::state::{Guest, GuestKind, State};

/// `vm:100` or `ct:100`.
fn sid_of(guest: &Guest) -> String {
    format!("{}:{}", if guest.kind == GuestKind::Qemu { "vm" } else { "ct" }, guest.vmid)
}

/// What the manager says of a guest: what is asked for, unless it is on its way to another node, or was given up.
pub fn shown<'a>(state: &'a State, guest: &'a Guest) -> Option<&'a str> {
    let asked = guest.ha.as_deref()?;
    let doing = state.ha_doing.get(&sid_of(guest)).map(String::as_str);
    Some(doing.filter(|doing| matches!(*doing, "error" | "migrate" | "relocate")).unwrap_or(asked))
}

/// A resource by its name, `vm:100`. A plain number stands for the guest of that number, which must be there.
fn parse_sid(call: &Call<'_>, given: &str) -> Result<(String, Option<u32>), Answer> {
    match given.split_once(':') {
        Some((_, name)) => Ok((given.to_owned(), name.parse().ok())),
        None => match given.parse().ok().and_then(|vmid: u32| call.state.guests.get(&vmid)) {
            Some(guest) => Ok((sid_of(guest), Some(guest.vmid))),
            None => fail(format!("unable do add resource - VM/CT {given} does not exist")),
        },
    }
}

/// The guest of a resource that HA manages.
fn managed_guest<'a>(call: &Call<'a>, sid: &str, vmid: Option<u32>) -> Option<&'a Guest> {
    let guest = call.state.guests.get(&vmid?)?;
    (guest.ha.is_some() && sid_of(guest) == sid).then_some(guest)
}

/// The digest of the file of all resources.
fn digest(call: &Call<'_>) -> String {
    let all: Vec<String> = call
        .state
        .guests
        .values()
        .filter_map(|guest| Some(format!("{} {}", sid_of(guest), guest.ha.as_deref()?)))
        .collect();
    digest_of(&json!([all, call.state.ha_settings.values().collect::<Vec<_>>()]))
}

const MODIFIED: &str = "detected modified configuration - file changed by other user? Try again.";

/// What is configured of a resource. A group that there is not is an error in the row, and no refusal.
fn resource_row(call: &Call<'_>, guest: &Guest, digest: &str) -> Map<String, Value> {
    let sid = sid_of(guest);
    let mut row = call.state.ha_settings.get(&sid).cloned().unwrap_or_default();
    let kind = if guest.kind == GuestKind::Qemu { "vm" } else { "ct" };
    row.insert("digest".to_owned(), json!(digest));
    row.insert("sid".to_owned(), json!(sid));
    row.insert("type".to_owned(), json!(kind));
    row.insert("state".to_owned(), json!(guest.ha.as_deref()));
    row
}

/// One resource.
pub fn resource(call: &Call<'_>) -> Result<Answer, Answer> {
    let (sid, vmid) = parse_sid(call, call.text("sid"))?;
    match managed_guest(call, &sid, vmid) {
        Some(guest) => Ok(Answer::ok(Value::Object(resource_row(call, guest, &digest(call))))),
        None => fail(format!("no such resource '{sid}'")),
    }
}

/// The resources as a list.
pub fn resources(call: &Call<'_>) -> Result<Answer, Answer> {
    let digest = digest(call);
    let mut rows = Rows::default();
    for guest in call.state.guests.values().filter(|guest| guest.ha.is_some()) {
        let mut row = resource_row(call, guest, &digest);
        if !matches!(call.text("type"), "") && row.get("type") != Some(&json!(call.text("type"))) {
            continue;
        }
        if let Some(group) = row.get("group").and_then(Value::as_str)
            && !call.state.ha_groups.contains_key(group)
        {
            let text = format!("group '{group}' does not exist");
            row.insert("errors".to_owned(), json!({"group": text}));
        }
        rows.push(&Value::Object(row));
    }
    Ok(Answer::rows(rows))
}

/// The type of a resource is in its name; one that is given besides must be the same.
fn check_type(act: &Act<'_>, kind: &str) -> Result<(), Answer> {
    match act.given("type") {
        Some(given) if given != kind => fail("types does not match"),
        _ => Ok(()),
    }
}

/// `POST /cluster/ha/resources`. HA then brings the guest into the state asked for.
pub fn add(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let (sid, vmid) = parse_sid(&act.call(), act.text("sid"))?;
    let (kind, name) = sid.split_once(':').unwrap_or_default();
    check_type(act, kind)?;
    if !matches!(kind, "vm" | "ct") {
        return fail(format!("unknown section type '{kind}'"));
    }
    let Some(vmid) = vmid.filter(|_| name.len() > 1 && !name.starts_with('0')) else {
        return fail("invalid VMID");
    };
    let Some(guest) = act.state.guests.get(&vmid) else {
        return fail(format!("resource '{sid}' does not exist in cluster"));
    };
    if sid_of(guest) != sid {
        let other = if kind == "vm" { "VM" } else { "container" };
        return fail(format!("resource '{sid}' - guest with ID {vmid} is not a {other}"));
    }
    if guest.ha.is_some() {
        return fail(format!("create resource failed: resource ID '{sid}' already defined"));
    }
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

fn settings(act: &Act<'_>) -> Map<String, Value> {
    let kept = act.settings(&["sid", "type", "state", "delete", "digest"]);
    kept.iter().map(|(name, value)| (name.clone(), act.typed(name, value))).collect()
}

/// A resource in `error` takes no request but to be disabled.
fn check_service_state(act: &Act<'_>, sid: &str, wanted: Option<&str>) -> Result<(), Answer> {
    let in_error = act.state.ha_doing.get(sid).is_some_and(|doing| doing == "error");
    if in_error && wanted != Some("disabled") {
        return fail(format!("service '{sid}' in error state, must be disabled and fixed first"));
    }
    Ok(())
}

/// What may be taken from a section: its options, less those that it cannot be without.
fn check_deletes(act: &Act<'_>, options: &[&str], required: &[&str], verb: &str) -> Result<(), Answer> {
    for key in split_list(act.text("delete")) {
        if required.contains(&key) {
            return fail(format!("{verb}: unable to delete required option '{key}'"));
        }
        if !options.contains(&key) {
            return fail(format!("{verb}: no such option '{key}'"));
        }
    }
    Ok(())
}

/// `PUT …/{sid}`: the state asked for, or settings.
pub fn update(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let (sid, vmid) = parse_sid(&act.call(), act.text("sid"))?;
    check_type(act, sid.split_once(':').unwrap_or_default().0)?;
    if let Some(group) = act.given("group")
        && !act.state.ha_groups.contains_key(group)
    {
        return fail(format!("HA group '{group}' does not exist"));
    }
    check_service_state(act, &sid, act.given("state"))?;
    if act.given("digest").is_some_and(|given| given != digest(&act.call())) {
        return fail(format!("update resource failed: {MODIFIED}"));
    }
    let Some(vmid) = managed_guest(&act.call(), &sid, vmid).map(|guest| guest.vmid) else {
        return fail(format!("update resource failed: no such resource '{sid}'"));
    };
    let options = ["comment", "group", "max_relocate", "max_restart", "state"];
    check_deletes(act, &options, &[], "update resource failed")?;
    let (changes, mut state) = (settings(act), act.given("state").map(str::to_owned));
    let deletes: Vec<String> = split_list(act.text("delete")).map(str::to_owned).collect();
    let settings = act.state.ha_settings.entry(sid.clone()).or_default();
    settings.extend(changes);
    for key in deletes {
        if key == "state" {
            state = Some("started".to_owned());
        }
        settings.remove(&key);
    }
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
    let (sid, vmid) = parse_sid(&act.call(), act.text("sid"))?;
    let Some(vmid) = managed_guest(&act.call(), &sid, vmid).map(|guest| guest.vmid) else {
        return fail(format!("cannot delete service '{sid}', not HA managed!"));
    };
    act.state.ha_settings.remove(&sid);
    act.state.ha_doing.remove(&sid);
    if let Some(guest) = act.state.guests.get_mut(&vmid) {
        guest.ha = None;
    }
    done()
}

/// `POST …/{sid}/migrate` and `…/relocate`: a request that HA follows later. Nobody looks whether there is such a node.
pub fn migrate(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let (sid, vmid) = parse_sid(&act.call(), act.text("sid"))?;
    let Some(vmid) = managed_guest(&act.call(), &sid, vmid).map(|guest| guest.vmid) else {
        return fail(format!("resource '{sid}' is not HA managed"));
    };
    check_service_state(act, &sid, None)?;
    let target = act.text("node").to_owned();
    if !act.state.nodes.contains_key(&target) {
        return done();
    }
    act.state.ha_doing.insert(sid, "migrate".to_owned());
    super::power::later(act, vmid, &target);
    done()
}

/// The digest of the file of all groups.
fn groups_digest(call: &Call<'_>) -> String {
    digest_of(&json!(call.state.ha_groups.iter().collect::<Vec<_>>()))
}

fn group_row(call: &Call<'_>, name: &str, group: &Map<String, Value>) -> Value {
    let mut row = group.clone();
    row.insert("digest".to_owned(), json!(groups_digest(call)));
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
    const FAILED: &str = "update ha group failed";
    if act.given("digest").is_some_and(|given| given != groups_digest(&act.call())) {
        return fail(format!("{FAILED}: {MODIFIED}"));
    }
    let (name, changes) = (act.text("group").to_owned(), group_settings(act));
    if !act.state.ha_groups.contains_key(&name) {
        return fail(format!("{FAILED}: no such ha group '{name}'"));
    }
    check_deletes(act, &["comment", "nodes", "nofailback", "restricted"], &["nodes"], FAILED)?;
    let deletes: Vec<String> = split_list(act.text("delete")).map(str::to_owned).collect();
    let group = act.state.ha_groups.entry(name).or_default();
    group.extend(changes);
    for key in deletes {
        group.remove(&key);
    }
    done()
}

/// A group that resources are in stays; one that there is not is gone already.
pub fn delete_group(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let name = act.text("group").to_owned();
    let user = act.state.ha_settings.iter().find(|(_, settings)| settings.get("group") == Some(&json!(name)));
    if let Some((sid, _)) = user {
        return fail(format!("delete ha group failed: ha group is used by service '{sid}'"));
    }
    act.state.ha_groups.remove(&name);
    done()
}

/// The node of the quorum row: the one asked.
fn quorum(call: &Call<'_>) -> Value {
    let quorate = call.state.quorate;
    let node = call.local_node;
    let status = if quorate { "OK".to_owned() } else { format!("No quorum on node '{node}'!") };
    json!({"id": "quorum", "node": node, "quorate": u8::from(quorate), "status": status, "type": "quorum"})
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
