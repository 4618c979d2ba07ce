//! Firewall rules: their places in the list, and what a rule may say.

use std::net::IpAddr;

use serde_json::{Map, Value, json};

use super::Call;
use super::act::{Act, done, fail};
use super::firewall::{MACROS, check_digest, list_digest, of, of_mut, place, with_digest};
use crate::answer::{Answer, Rows};
use crate::schema::split_list;
use crate::world::state::Firewall;

type Rule = Map<String, Value>;

fn digest(firewall: Option<&Firewall>) -> String {
    list_digest(firewall.into_iter().flat_map(|firewall| &firewall.rules))
}

/// Rules with their positions as numbers.
pub fn rules(call: &Call<'_>) -> Result<Answer, Answer> {
    let firewall = of(call)?;
    let digest = digest(firewall);
    let mut rows = Rows::default();
    for (pos, rule) in firewall.into_iter().flat_map(|firewall| &firewall.rules).enumerate() {
        let mut row = with_digest(rule, &digest);
        row.insert("pos".to_owned(), json!(pos));
        rows.push(&Value::Object(row));
    }
    Ok(Answer::rows(rows))
}

/// One rule; its position is text here.
pub fn rule(call: &Call<'_>) -> Result<Answer, Answer> {
    let firewall = of(call)?;
    let pos = call.text("pos");
    let found = pos.parse::<usize>().ok().and_then(|pos| firewall?.rules.get(pos));
    let Some(rule) = found else { return fail(format!("no rule at position {pos}")) };
    let mut row = with_digest(rule, &digest(firewall));
    row.insert("pos".to_owned(), json!(pos));
    Ok(Answer::ok(Value::Object(row)))
}

/// Parameters that are no properties of a rule.
const NO_PROPERTY: [&str; 6] = ["pos", "digest", "moveto", "delete", "group", "vnet"];

/// Copies what was given into a rule; what is empty or a dash is taken away.
fn copy(act: &Act<'_>, rule: &mut Rule) {
    for (name, value) in act.settings(&NO_PROPERTY) {
        if matches!(value.as_str(), "" | "-") {
            rule.remove(&name);
        } else {
            let typed = act.typed(&name, &value);
            rule.insert(name, typed);
        }
    }
}

/// Protocols with ports, by name and number.
const WITH_PORTS: [&str; 10] = ["17", "132", "136", "33", "6", "dccp", "sctp", "tcp", "udp", "udplite"];

/// Whether a text is the name of an alias, with or without its scope.
fn is_alias(value: &str) -> bool {
    let name = value.strip_prefix("dc/").or_else(|| value.strip_prefix("guest/")).unwrap_or(value);
    name.len() > 1
        && name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.chars().all(|one| one.is_ascii_alphanumeric() || matches!(one, '-' | '_'))
}

fn family(address: &str) -> Option<u8> {
    let first = address.split([',', '/', '-']).next()?.trim();
    Some(if first.parse::<IpAddr>().ok()?.is_ipv4() { 4 } else { 6 })
}

/// What a rule must be, beyond the types of its parameters: the first problem is the answer.
fn verify(call: &Call<'_>, place: &str, rule: &mut Rule) -> Result<(), Answer> {
    let refuse = |name: &str, problem: String| Err(Answer::bad_parameter(name, &problem));
    let text =
        |rule: &Rule, name: &str| rule.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let given = |rule: &Rule, name: &str| Some(text(rule, name)).filter(|value| !value.is_empty());
    let (kind, action) = (text(rule, "type"), text(rule, "action"));
    for (name, value) in [("type", &kind), ("action", &action)] {
        if value.is_empty() {
            return refuse(name, "missing property".to_owned());
        }
    }
    if kind != "group" && !matches!(action.as_str(), "ACCEPT" | "DROP" | "REJECT") {
        return refuse("action", format!("unknown action '{action}'"));
    }
    if kind == "group" && place.starts_with("group/") {
        return refuse("type", "security groups not allowed".to_owned());
    }
    if kind == "group" && !call.state.firewalls.contains_key(&format!("group/{action}")) {
        return refuse("action", format!("security group '{action}' does not exist"));
    }
    if let Some(interface) = given(rule, "iface") {
        if place.starts_with("group/") {
            return refuse("type", "parameter -i not allowed for this rule type".to_owned());
        }
        let of_guest = interface.strip_prefix("net").and_then(|number| number.parse::<u32>().ok());
        if place.starts_with("guest/") && of_guest.is_none() {
            return refuse("iface", "value does not match the regex pattern 'net\\d+'".to_owned());
        }
    }
    if let Some(name) = given(rule, "macro") {
        match MACROS.iter().find(|known| known.eq_ignore_ascii_case(&name)) {
            Some(known) => drop(rule.insert("macro".to_owned(), json!(known))),
            None => return refuse("macro", format!("unknown macro '{name}'")),
        }
    }
    let proto = text(rule, "proto");
    for port in ["dport", "sport"] {
        if given(rule, port).is_none() {
            continue;
        }
        if proto.is_empty() {
            return refuse("proto", format!("missing property - '{port}' requires this property"));
        }
        let icmp = port == "dport" && matches!(proto.as_str(), "icmp" | "icmpv6");
        if !icmp && !WITH_PORTS.contains(&proto.as_str()) {
            return refuse(port, format!("protocol '{proto}' does not support ports"));
        }
    }
    if given(rule, "icmp-type").is_some() && !matches!(proto.as_str(), "icmp" | "icmpv6" | "ipv6-icmp") {
        return refuse("proto", "missing property - 'icmp-type' requires this property".to_owned());
    }
    let mut version = match proto.as_str() {
        "icmp" => Some(4),
        "icmpv6" | "ipv6-icmp" => Some(6),
        _ => None,
    };
    let (cluster, own) = (call.state.firewalls.get("cluster"), call.state.firewalls.get(place));
    for name in ["source", "dest"] {
        let Some(value) = given(rule, name) else { continue };
        let known = |has: &dyn Fn(&Firewall) -> bool| [cluster, own].into_iter().flatten().any(has);
        if let Some(set) = value.strip_prefix('+') {
            let short = set.strip_prefix("dc/").or_else(|| set.strip_prefix("guest/")).unwrap_or(set);
            if !known(&|firewall| firewall.sets.contains_key(short)) {
                return refuse(name, format!("no such ipset '{short}'"));
            }
        } else if is_alias(&value) {
            let short = value.strip_prefix("dc/").or_else(|| value.strip_prefix("guest/")).unwrap_or(&value);
            if !known(&|firewall| super::firewall_aliases::find(firewall, short).is_some()) {
                return refuse(name, format!("no such alias '{value}'"));
            }
        } else if let Some(found) = family(&value) {
            if version.is_some_and(|version| version != found) {
                return refuse(name, "detected mixed ipv4/ipv6 addresses in rule".to_owned());
            }
            version = Some(found);
        }
    }
    match version {
        Some(version) => drop(rule.insert("ipversion".to_owned(), json!(version))),
        None => drop(rule.remove("ipversion")),
    }
    Ok(())
}

/// A new rule is always the first one, and off unless `enable` says otherwise.
pub fn add(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let place = place(&act.call())?;
    let mut rule = Rule::new();
    copy(act, &mut rule);
    verify(&act.call(), &place, &mut rule)?;
    rule.entry("enable").or_insert(json!(0));
    of_mut(act)?.rules.insert(0, rule);
    done()
}

/// The position, if there is a rule.
fn position(act: &Act<'_>, firewall: Option<&Firewall>) -> Result<usize, Answer> {
    let pos = act.text("pos");
    let found = pos.parse().ok().filter(|pos: &usize| firewall.is_some_and(|one| *pos < one.rules.len()));
    found.ok_or_else(|| Answer::error(500, format!("no rule at position {pos}")))
}

/// `moveto` another place ignores whatever else is asked for.
pub fn update(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let place = place(&act.call())?;
    let call = act.call();
    let firewall = of(&call)?;
    check_digest(act, &digest(firewall))?;
    let pos = position(act, firewall)?;
    let target: Option<usize> = act.given("moveto").and_then(|to| to.parse().ok());
    if let Some(target) = target.filter(|target| *target != pos) {
        let firewall = of_mut(act)?;
        let rule = firewall.rules.remove(pos);
        let target = if target > pos { target - 1 } else { target };
        firewall.rules.insert(target.min(firewall.rules.len()), rule);
        return done();
    }
    let mut rule = firewall.and_then(|firewall| firewall.rules.get(pos)).cloned().unwrap_or_default();
    copy(act, &mut rule);
    for key in split_list(act.text("delete")) {
        if crate::schema::kind(act.method, key).is_none() || NO_PROPERTY.contains(&key) {
            return Err(Answer::bad_parameter("delete", &format!("no such property '{key}'")));
        }
        rule.remove(key);
    }
    verify(&act.call(), &place, &mut rule)?;
    if let Some(have) = of_mut(act)?.rules.get_mut(pos) {
        *have = rule;
    }
    done()
}

pub fn delete(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let call = act.call();
    let firewall = of(&call)?;
    check_digest(act, &digest(firewall))?;
    let pos = position(act, firewall)?;
    of_mut(act)?.rules.remove(pos);
    done()
}
