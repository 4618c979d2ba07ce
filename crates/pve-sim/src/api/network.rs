//! A node's interfaces: edits wait in one file per node until a reload applies everyone's.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::Call;
use super::act::{Act, done};
use crate::answer::{Answer, Body, Rows};
use crate::schema::split_list;
use crate::world::state::Node;

type Interfaces = BTreeMap<String, Map<String, Value>>;

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        _ => Map::new(),
    }
}

/// The interfaces of a node whose network nobody changed.
fn generated(node: &Node) -> Interfaces {
    let port = |priority: u8| {
        object(json!({
            "active": 1, "exists": 1, "families": ["inet"], "method": "manual", "method6": "manual",
            "priority": priority, "type": "eth",
        }))
    };
    Interfaces::from([
        ("eno1".to_owned(), port(2)),
        ("eno2".to_owned(), port(3)),
        (
            "vmbr0".to_owned(),
            object(json!({
                "active": 1, "address": node.ip, "autostart": 1, "bridge_fd": "0", "bridge_ports": "eno1",
                "bridge_stp": "off", "cidr": format!("{}/24", node.ip), "families": ["inet"], "method": "static",
                "method6": "manual", "netmask": "24", "gateway": "192.0.2.1", "priority": 4, "type": "bridge",
            })),
        ),
        (
            "vmbr1".to_owned(),
            object(json!({
                "active": 1, "autostart": 1, "bridge_fd": "0", "bridge_ports": "eno2", "bridge_stp": "off",
                "bridge_vids": "2-4094", "bridge_vlan_aware": 1, "families": ["inet"], "method": "manual",
                "method6": "manual", "priority": 5, "type": "bridge",
            })),
        ),
    ])
}

fn applied(call: &Call<'_>, node: &Node) -> Interfaces {
    call.state.interfaces.get(node.name.as_ref()).cloned().unwrap_or_else(|| generated(node))
}

/// The interfaces with the edits that wait.
fn with_edits(call: &Call<'_>, node: &Node) -> Interfaces {
    let staged = call.state.staged_interfaces.get(node.name.as_ref());
    staged.cloned().unwrap_or_else(|| applied(call, node))
}

/// Whether a row is of a kind that was asked for.
fn is_wanted(wanted: &str, kind: &str) -> bool {
    match wanted {
        "" => true,
        "any_bridge" | "any_local_bridge" => matches!(kind, "bridge" | "OVSBridge"),
        wanted => wanted == kind,
    }
}

/// A node's interfaces. Bridges are listed for who holds `SDN.Audit` or `SDN.Use` on them. Edits that wait show as a diff
/// beside the list.
pub fn list(call: &Call<'_>) -> Result<Answer, Answer> {
    let node = call.node()?;
    let mut rows = Rows::default();
    for (name, interface) in with_edits(call, node) {
        let kind = interface.get("type").and_then(Value::as_str).unwrap_or_default();
        let path = format!("/sdn/zones/localnetwork/{name}");
        let sees = kind != "bridge" || call.allows(&path, &["SDN.Audit", "SDN.Use"]);
        if sees && is_wanted(call.text("type"), kind) {
            let mut row = interface.clone();
            row.insert("iface".to_owned(), json!(name));
            rows.push(&Value::Object(row));
        }
    }
    let mut answer = Answer::rows(rows);
    if call.state.staged_interfaces.contains_key(node.name.as_ref()) {
        let mut body = answer.body.to_json();
        body["changes"] = json!("--- /etc/network/interfaces\n+++ /etc/network/interfaces.new\n");
        answer.body = Body::Json(body);
    }
    Ok(answer)
}

pub fn get(call: &Call<'_>) -> Result<Answer, Answer> {
    let node = call.node()?;
    match with_edits(call, node).remove(call.text("iface")) {
        Some(interface) => Ok(Answer::ok(Value::Object(interface))),
        None => Err(Answer::bad_parameter("iface", "interface does not exist")),
    }
}

/// What an interface is made of. Without an address its method is `manual`, whatever it was.
fn interface_of(act: &Act<'_>, priority: u64) -> Map<String, Value> {
    let mut interface = Map::new();
    for (name, value) in act.settings(&["iface", "delete"]) {
        let value = match name.as_str() {
            "comments" => json!(format!("{}\n", value.trim_end_matches('\n'))),
            "netmask" => json!(value),
            _ => act.typed(&name, &value),
        };
        interface.insert(name, value);
    }
    if let Some((address, bits)) = act.text("cidr").split_once('/') {
        interface.insert("address".to_owned(), json!(address));
        interface.insert("netmask".to_owned(), json!(bits));
    } else if let (Some(address), Some(bits)) = (act.given("address"), act.given("netmask")) {
        interface.insert("cidr".to_owned(), json!(format!("{address}/{bits}")));
    }
    let method = |has: bool| json!(if has { "static" } else { "manual" });
    let (four, six) = (
        interface.contains_key("address"),
        interface.contains_key("address6") || interface.contains_key("cidr6"),
    );
    let mut families = vec!["inet"];
    if six {
        families.push("inet6");
    }
    interface.insert("families".to_owned(), json!(families));
    interface.insert("method".to_owned(), method(four));
    interface.insert("method6".to_owned(), method(six));
    interface.insert("priority".to_owned(), json!(priority));
    if act.text("type") == "bridge" {
        for (key, value) in [("bridge_fd", "0"), ("bridge_ports", ""), ("bridge_stp", "off")] {
            interface.entry(key).or_insert(json!(value));
        }
        if act.flag("bridge_vlan_aware") {
            interface.entry("bridge_vids").or_insert(json!("2-4094"));
        }
    }
    interface
}

fn stage(act: &mut Act<'_>, change: impl FnOnce(&mut Interfaces)) -> Result<Answer, Answer> {
    let name = act.node()?;
    let call = act.call();
    let mut interfaces = with_edits(&call, call.node()?);
    change(&mut interfaces);
    act.state.staged_interfaces.insert(name, interfaces);
    done()
}

pub fn create(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let name = act.text("iface").to_owned();
    let call = act.call();
    let interfaces = with_edits(&call, call.node()?);
    if interfaces.contains_key(&name) {
        return Err(Answer::bad_parameter("iface", "interface already exists"));
    }
    let interface = interface_of(act, interfaces.len() as u64 + 2);
    stage(act, |interfaces| drop(interfaces.insert(name, interface)))
}

pub fn update(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let name = act.text("iface").to_owned();
    let call = act.call();
    let interfaces = with_edits(&call, call.node()?);
    let Some(old) = interfaces.get(&name) else {
        return Err(Answer::bad_parameter("iface", "interface does not exist"));
    };
    let deletes: Vec<String> = split_list(act.text("delete")).map(str::to_owned).collect();
    let mut interface = interface_of(act, old.get("priority").and_then(Value::as_u64).unwrap_or(2));
    for key in ["active", "exists", "comments", "bridge_ports", "autostart"] {
        if let Some(value) = old
            .get(key)
            .filter(|_| !interface.contains_key(key) || key == "bridge_ports" && act.given(key).is_none())
        {
            interface.insert(key.to_owned(), value.clone());
        }
    }
    for key in deletes {
        interface.remove(&key);
    }
    stage(act, |interfaces| drop(interfaces.insert(name, interface)))
}

pub fn delete(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let name = act.text("iface").to_owned();
    let call = act.call();
    if !with_edits(&call, call.node()?).contains_key(&name) {
        return Err(Answer::bad_parameter("iface", "interface does not exist"));
    }
    stage(act, |interfaces| drop(interfaces.remove(&name)))
}

/// `DELETE …/network`: everyone's edits are gone.
pub fn revert(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let node = act.node()?;
    act.state.staged_interfaces.remove(&node);
    done()
}

/// `PUT …/network`: everyone's edits come into force, in a task.
pub fn reload(act: &mut Act<'_>) -> Result<Answer, Answer> {
    act.node()?;
    act.fork("srvreload", "networking", &[])
}
