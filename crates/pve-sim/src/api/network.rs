//! A node's interfaces: edits wait in one file per node until a reload applies everyone's.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::Call;
use super::act::{Act, done, fail};
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
        "" | "include_sdn" => true,
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
        let sees = !matches!(kind, "bridge" | "OVSBridge") || call.allows(&path, &["SDN.Audit", "SDN.Use"]);
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

/// An address and its length stand together or apart, never both.
fn check_addresses(act: &Act<'_>) -> Result<(), Answer> {
    for (whole, parts) in [("cidr", ["address", "netmask"]), ("cidr6", ["address6", "netmask6"])] {
        if act.given(whole).is_none_or(str::is_empty) {
            continue;
        }
        if let Some(part) =
            parts.into_iter().find(|part| act.given(part).is_some_and(|text| !text.is_empty()))
        {
            return Err(Answer::bad_parameter(part, &format!("{part} conflicts with {whole}")));
        }
    }
    Ok(())
}

/// There is one default gateway of each family, and a port is in one bridge or bond.
fn check_duplicates(act: &Act<'_>, name: &str, interfaces: &Interfaces) -> Result<(), Answer> {
    let others = || interfaces.iter().filter(|(other, _)| *other != name);
    let text = |one: &Map<String, Value>, key: &str| {
        one.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    for (key, what) in [("gateway", "Default gateway"), ("gateway6", "Default ipv6 gateway")] {
        if act.given(key).is_none_or(str::is_empty) {
            continue;
        }
        if let Some((other, _)) = others().find(|(_, one)| !text(one, key).is_empty()) {
            let text = format!("{what} already exists on interface '{other}'.");
            return Err(Answer::bad_parameter(key, &text));
        }
    }
    const PORTS: [&str; 4] = ["bridge_ports", "ovs_ports", "slaves", "ovs_bonds"];
    for key in PORTS {
        for port in split_list(act.text(key)) {
            let has = |one: &Map<String, Value>| {
                PORTS.iter().any(|key| split_list(&text(one, key)).any(|have| have == port))
            };
            if let Some((other, _)) = others().find(|(_, one)| has(one)) {
                let text = format!("{port} is already used on interface '{other}'.");
                return Err(Answer::bad_parameter(key, &text));
            }
        }
    }
    Ok(())
}

/// Writes what was given into an interface. Without an address its method is `manual`, whatever it was.
fn write_into(act: &Act<'_>, interface: &mut Map<String, Value>) {
    for key in ["address", "netmask", "cidr", "gateway", "address6", "netmask6", "cidr6", "gateway6"] {
        interface.remove(key);
    }
    for (name, value) in act.settings(&["iface", "delete"]) {
        let value = match name.as_str() {
            "comments" => json!(format!("{}\n", value.trim_end_matches('\n'))),
            "netmask" => json!(value),
            "bridge_vids" => json!(split_list(&value).collect::<Vec<_>>().join(" ")),
            _ => act.typed(&name, &value),
        };
        interface.insert(name, value);
    }
    for (cidr, address, netmask) in [("cidr", "address", "netmask"), ("cidr6", "address6", "netmask6")] {
        if let Some((one, bits)) = act.text(cidr).split_once('/') {
            interface.insert(address.to_owned(), json!(one));
            interface.insert(netmask.to_owned(), if cidr == "cidr" { json!(bits) } else { number(bits) });
        } else if let (Some(one), Some(bits)) = (act.given(address), act.given(netmask)) {
            interface.insert(cidr.to_owned(), json!(format!("{one}/{bits}")));
        }
    }
    let method = |has: bool| json!(if has { "static" } else { "manual" });
    let (four, six) = (interface.contains_key("address"), interface.contains_key("address6"));
    let mut families = Vec::new();
    if four || !six {
        families.push("inet");
    }
    if six {
        families.push("inet6");
    }
    interface.insert("families".to_owned(), json!(families));
    interface.insert("method".to_owned(), method(four));
    interface.insert("method6".to_owned(), method(six));
    if act.text("type") == "bridge" {
        for (key, value) in [("bridge_fd", "0"), ("bridge_ports", ""), ("bridge_stp", "off")] {
            interface.entry(key).or_insert(json!(value));
        }
        if interface.get("bridge_vlan_aware") == Some(&json!(1)) {
            interface.entry("bridge_vids").or_insert(json!("2-4094"));
        }
    }
}

fn number(text: &str) -> Value {
    text.parse::<i64>().map_or_else(|_| json!(text), Value::from)
}

fn stage(act: &mut Act<'_>, change: impl FnOnce(&mut Interfaces)) -> Result<Answer, Answer> {
    let name = act.node()?;
    let call = act.call();
    let mut interfaces = with_edits(&call, call.node()?);
    change(&mut interfaces);
    act.state.staged_interfaces.insert(name, interfaces);
    done()
}

/// `POST …/network`. Open vSwitch is not installed.
pub fn create(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let name = act.text("iface").to_owned();
    let call = act.call();
    let interfaces = with_edits(&call, call.node()?);
    if interfaces.contains_key(&name) {
        return Err(Answer::bad_parameter("iface", "interface already exists"));
    }
    check_duplicates(act, &name, &interfaces)?;
    check_addresses(act)?;
    if act.text("type").starts_with("OVS") {
        return fail("Open VSwitch is not installed (need package 'openvswitch-switch')");
    }
    let mut interface = Map::new();
    write_into(act, &mut interface);
    interface.insert("priority".to_owned(), json!(interfaces.len() as u64 + 2));
    stage(act, |interfaces| drop(interfaces.insert(name, interface)))
}

/// `PUT …/network/{iface}`: what is not given stays, but for addresses.
pub fn update(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let name = act.text("iface").to_owned();
    let call = act.call();
    let interfaces = with_edits(&call, call.node()?);
    let Some(mut interface) = interfaces.get(&name).cloned() else {
        return Err(Answer::bad_parameter("iface", "interface does not exist"));
    };
    check_addresses(act)?;
    check_duplicates(act, &name, &interfaces)?;
    for key in split_list(act.text("delete")) {
        interface.remove(key);
    }
    write_into(act, &mut interface);
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
