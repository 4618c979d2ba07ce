//! The firewalls of the cluster, nodes and guests: rules, options, aliases, sets, groups.

use serde_json::{Map, Value, json};

use super::Call;
use super::act::{Act, done, fail};
use crate::answer::{Answer, Rows};
use crate::schema::split_list;
use crate::world::config::Config;
use crate::world::state::{Firewall, GuestKind};

/// A digest of anything that an answer shows.
pub fn digest_of(value: &Value) -> String {
    let mut config = Config::default();
    config.set("all", value.to_string());
    config.digest()
}

/// The SHA-1 of nothing: what PVE shows of a file that is not there.
const EMPTY: &str = "da39a3ee5e6b4b0d3255bfef95601890afd80709";

/// Whose firewall a path is about. A guest must be there.
fn place(call: &Call<'_>) -> Result<String, Answer> {
    if !call.text("vmid").is_empty() {
        let vmid = call.text("vmid");
        let found = vmid.parse().ok().and_then(|vmid: u32| call.state.guests.get(&vmid));
        match found {
            Some(guest) => {
                let _ = call.guest(guest.kind)?;
            }
            None => drop(call.guest(GuestKind::Qemu)?),
        }
        return Ok(format!("guest/{vmid}"));
    }
    if !call.text("group").is_empty() {
        let group = call.text("group");
        let place = format!("group/{group}");
        if !call.state.firewalls.contains_key(&place) {
            return fail(format!("no such security group '{group}'"));
        }
        return Ok(place);
    }
    if !call.text("node").is_empty() {
        return Ok(format!("node/{}", call.node()?.name));
    }
    Ok("cluster".to_owned())
}

fn of<'a>(call: &Call<'a>) -> Result<Option<&'a Firewall>, Answer> {
    Ok(call.state.firewalls.get(&place(call)?))
}

fn of_mut<'a>(act: &'a mut Act<'_>) -> Result<&'a mut Firewall, Answer> {
    let place = place(&act.call())?;
    Ok(act.state.firewalls.entry(place).or_default())
}

fn digest(firewall: Option<&Firewall>) -> String {
    match firewall {
        Some(Firewall { options, rules, aliases, sets })
            if !(options.is_empty() && rules.is_empty() && aliases.is_empty() && sets.is_empty()) =>
        {
            digest_of(&json!([options, rules, aliases, format!("{sets:?}")]))
        }
        _ => EMPTY.to_owned(),
    }
}

pub fn options(call: &Call<'_>) -> Result<Answer, Answer> {
    let firewall = of(call)?;
    let mut data = firewall.map(|firewall| firewall.options.clone()).unwrap_or_default();
    data.insert("digest".to_owned(), json!(digest(firewall)));
    Ok(Answer::ok(Value::Object(data)))
}

pub fn set_options(act: &mut Act<'_>) -> Result<Answer, Answer> {
    check_digest(act)?;
    let deletes: Vec<String> = split_list(act.text("delete")).map(str::to_owned).collect();
    let settings = act.settings(&["delete", "digest"]);
    let typed: Vec<(String, Value)> =
        settings.iter().map(|(name, value)| (name.clone(), act.typed(name, value))).collect();
    let firewall = of_mut(act)?;
    for key in deletes {
        firewall.options.remove(&key);
    }
    firewall.options.extend(typed);
    done()
}

fn check_digest(act: &Act<'_>) -> Result<(), Answer> {
    let current = digest(of(&act.call())?);
    if act.given("digest").is_some_and(|digest| digest != current) {
        return fail("detected modified configuration - file changed by other user? Try again.");
    }
    Ok(())
}

fn rule_row(rule: &Map<String, Value>, digest: &str) -> Map<String, Value> {
    let mut row = rule.clone();
    row.insert("digest".to_owned(), json!(digest));
    row
}

/// Rules with their positions as numbers.
pub fn rules(call: &Call<'_>) -> Result<Answer, Answer> {
    let firewall = of(call)?;
    let digest = digest(firewall);
    let mut rows = Rows::default();
    for (pos, rule) in firewall.into_iter().flat_map(|firewall| &firewall.rules).enumerate() {
        let mut row = rule_row(rule, &digest);
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
    let mut row = rule_row(rule, &digest(firewall));
    row.insert("pos".to_owned(), json!(pos));
    Ok(Answer::ok(Value::Object(row)))
}

/// What a rule is made of, as answers type it. Whoever names addresses gets their family.
fn rule_of(act: &Act<'_>) -> Map<String, Value> {
    let settings = act.settings(&["pos", "digest", "moveto", "delete", "group"]);
    let mut rule: Map<String, Value> =
        settings.iter().map(|(name, value)| (name.clone(), act.typed(name, value))).collect();
    let family = |key: &str| {
        let text = rule.get(key)?.as_str()?;
        let first = text.split([',', '/', '-']).next()?;
        let address: std::net::IpAddr = first.parse().ok()?;
        Some(if address.is_ipv4() { 4 } else { 6 })
    };
    if let Some(version) = family("source").or_else(|| family("dest")) {
        rule.insert("ipversion".to_owned(), json!(version));
    }
    rule
}

fn check_group(act: &Act<'_>) -> Result<(), Answer> {
    let group = act.text("action");
    if act.text("type") == "group" && !act.state.firewalls.contains_key(&format!("group/{group}")) {
        let text = format!("security group '{group}' does not exist");
        return Err(Answer::bad_parameter("action", &text));
    }
    Ok(())
}

/// A new rule is the first one, unless a position is given, and off unless `enable` says otherwise.
pub fn add_rule(act: &mut Act<'_>) -> Result<Answer, Answer> {
    place(&act.call())?;
    check_digest(act)?;
    check_group(act)?;
    let mut rule = rule_of(act);
    rule.entry("enable").or_insert(json!(0));
    let pos = act.given("pos").and_then(|pos| pos.parse().ok()).unwrap_or(0usize);
    let firewall = of_mut(act)?;
    let pos = pos.min(firewall.rules.len());
    firewall.rules.insert(pos, rule);
    done()
}

/// `moveto` ignores whatever else is asked for.
pub fn update_rule(act: &mut Act<'_>) -> Result<Answer, Answer> {
    place(&act.call())?;
    check_digest(act)?;
    let pos: usize = act.text("pos").parse().unwrap_or_default();
    let target: Option<usize> = act.given("moveto").and_then(|to| to.parse().ok());
    let changes = rule_of(act);
    let deletes: Vec<String> = split_list(act.text("delete")).map(str::to_owned).collect();
    let firewall = of_mut(act)?;
    if pos >= firewall.rules.len() {
        return fail(format!("no rule at position {pos}"));
    }
    if let Some(target) = target {
        let rule = firewall.rules.remove(pos);
        let target = if target > pos { target - 1 } else { target };
        firewall.rules.insert(target.min(firewall.rules.len()), rule);
        return done();
    }
    if let Some(rule) = firewall.rules.get_mut(pos) {
        for key in deletes {
            rule.remove(&key);
        }
        rule.extend(changes);
    }
    done()
}

pub fn delete_rule(act: &mut Act<'_>) -> Result<Answer, Answer> {
    place(&act.call())?;
    check_digest(act)?;
    let pos: usize = act.text("pos").parse().unwrap_or_default();
    let firewall = of_mut(act)?;
    if pos >= firewall.rules.len() {
        return fail(format!("no rule at position {pos}"));
    }
    firewall.rules.remove(pos);
    done()
}

/// The security groups.
pub fn groups(call: &Call<'_>) -> Result<Answer, Answer> {
    let mut rows = Rows::default();
    for (place, group) in &call.state.firewalls {
        let Some(name) = place.strip_prefix("group/") else { continue };
        let mut row = group.options.clone();
        row.insert("digest".to_owned(), json!(digest_of(&json!(name))));
        row.insert("group".to_owned(), json!(name));
        rows.push(&Value::Object(row));
    }
    Ok(Answer::rows(rows))
}

pub fn create_group(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let name = act.text("group").to_owned();
    let place = format!("group/{name}");
    if let Some(old) = act.given("rename").map(|old| format!("group/{old}")) {
        let Some(group) = act.state.firewalls.remove(&old) else {
            return fail(format!("Security group '{}' does not exist", act.text("rename")));
        };
        act.state.firewalls.insert(place, group);
        return done();
    }
    if act.state.firewalls.contains_key(&place) {
        return fail(format!("Security group '{name}' already exists"));
    }
    let mut group = Firewall::default();
    if let Some(comment) = act.given("comment") {
        group.options.insert("comment".to_owned(), json!(comment));
    }
    act.state.firewalls.insert(place, group);
    done()
}

pub fn delete_group(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let place = place(&act.call())?;
    if act.state.firewalls.get(&place).is_some_and(|group| !group.rules.is_empty()) {
        return fail(format!("Security group '{}' is not empty", act.text("group")));
    }
    act.state.firewalls.remove(&place);
    done()
}

pub fn aliases(call: &Call<'_>) -> Result<Answer, Answer> {
    let firewall = of(call)?;
    let digest = digest(firewall);
    let mut rows = Rows::default();
    for alias in firewall.into_iter().flat_map(|firewall| firewall.aliases.values()) {
        rows.push(&Value::Object(rule_row(alias, &digest)));
    }
    Ok(Answer::rows(rows))
}

pub fn alias(call: &Call<'_>) -> Result<Answer, Answer> {
    let name = call.text("name");
    match of(call)?.and_then(|firewall| firewall.aliases.get(name)) {
        Some(alias) => Ok(Answer::ok(Value::Object(alias.clone()))),
        None => Err(Answer::bad_parameter("name", "no such alias")),
    }
}

fn alias_of(act: &Act<'_>) -> Map<String, Value> {
    let mut alias = Map::new();
    for key in ["name", "cidr", "comment"] {
        if let Some(value) = act.given(key) {
            alias.insert(key.to_owned(), json!(value));
        }
    }
    alias.insert("ipversion".to_owned(), json!(if act.text("cidr").contains(':') { 6 } else { 4 }));
    alias
}

pub fn create_alias(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let (name, alias) = (act.text("name").to_owned(), alias_of(act));
    let firewall = of_mut(act)?;
    if firewall.aliases.contains_key(&name) {
        return Err(Answer::bad_parameter("name", &format!("alias '{name}' already exists")));
    }
    firewall.aliases.insert(name, alias);
    done()
}

pub fn update_alias(act: &mut Act<'_>) -> Result<Answer, Answer> {
    check_digest(act)?;
    let (name, mut alias) = (act.text("name").to_owned(), alias_of(act));
    let renamed = act.given("rename").map(str::to_owned);
    let firewall = of_mut(act)?;
    if firewall.aliases.remove(&name).is_none() {
        return Err(Answer::bad_parameter("name", "no such alias"));
    }
    let name = renamed.unwrap_or(name);
    alias.insert("name".to_owned(), json!(name));
    firewall.aliases.insert(name, alias);
    done()
}

pub fn delete_alias(act: &mut Act<'_>) -> Result<Answer, Answer> {
    check_digest(act)?;
    let name = act.text("name").to_owned();
    of_mut(act)?.aliases.remove(&name);
    done()
}

pub fn sets(call: &Call<'_>) -> Result<Answer, Answer> {
    let firewall = of(call)?;
    let mut rows = Rows::default();
    for (name, (comment, entries)) in firewall.into_iter().flat_map(|firewall| &firewall.sets) {
        let mut row = json!({"digest": digest_of(&json!(entries)), "name": name});
        if let Some(comment) = comment {
            row["comment"] = json!(comment);
        }
        rows.push(&row);
    }
    Ok(Answer::rows(rows))
}

pub fn create_set(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let (name, comment) = (act.text("name").to_owned(), act.given("comment").map(str::to_owned));
    let renamed = act.given("rename").map(str::to_owned);
    let firewall = of_mut(act)?;
    if let Some(old) = renamed {
        let Some(set) = firewall.sets.remove(&old) else {
            return fail(format!("IPSet '{old}' does not exist"));
        };
        firewall.sets.insert(name, set);
        return done();
    }
    if firewall.sets.contains_key(&name) {
        return fail(format!("IPSet '{name}' already exists"));
    }
    firewall.sets.insert(name, (comment, Vec::new()));
    done()
}

pub fn delete_set(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let (name, force) = (act.text("name").to_owned(), act.flag("force"));
    let firewall = of_mut(act)?;
    match firewall.sets.get(&name) {
        Some((_, entries)) if !entries.is_empty() && !force => fail(format!("IPSet '{name}' is not empty")),
        Some(_) => {
            firewall.sets.remove(&name);
            done()
        }
        None => fail(format!("no such IPSet '{name}'")),
    }
}

pub fn entries(call: &Call<'_>) -> Result<Answer, Answer> {
    let name = call.text("name");
    let Some((_, entries)) = of(call)?.and_then(|firewall| firewall.sets.get(name)) else {
        return fail(format!("no such IPSet '{name}'"));
    };
    let digest = digest_of(&json!(entries));
    let mut rows = Rows::default();
    for entry in entries {
        rows.push(&Value::Object(rule_row(entry, &digest)));
    }
    Ok(Answer::rows(rows))
}

pub fn entry(call: &Call<'_>) -> Result<Answer, Answer> {
    let (name, cidr) = (call.text("name"), call.text("cidr"));
    let found = of(call)?.and_then(|firewall| firewall.sets.get(name));
    let entry =
        found.and_then(|(_, entries)| entries.iter().find(|entry| entry.get("cidr") == Some(&json!(cidr))));
    match entry {
        Some(entry) => Ok(Answer::ok(Value::Object(entry.clone()))),
        None => Err(Answer::bad_parameter("cidr", "no such IP/Network")),
    }
}

pub fn add_entry(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let (name, cidr) = (act.text("name").to_owned(), act.text("cidr").to_owned());
    let mut entry = Map::from_iter([("cidr".to_owned(), json!(cidr))]);
    for key in ["comment", "nomatch"] {
        if let Some(value) = act.given(key) {
            entry.insert(key.to_owned(), act.typed(key, value));
        }
    }
    let firewall = of_mut(act)?;
    let Some((_, entries)) = firewall.sets.get_mut(&name) else {
        return fail(format!("no such IPSet '{name}'"));
    };
    if entries.iter().any(|entry| entry.get("cidr") == Some(&json!(cidr))) {
        return Err(Answer::bad_parameter("cidr", &format!("address '{cidr}' already exists")));
    }
    entries.push(entry);
    done()
}

pub fn update_entry(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let (name, cidr) = (act.text("name").to_owned(), act.text("cidr").to_owned());
    let changes: Vec<(String, Value)> = ["comment", "nomatch"]
        .into_iter()
        .filter_map(|key| Some((key.to_owned(), act.typed(key, act.given(key)?))))
        .collect();
    let firewall = of_mut(act)?;
    let found = firewall
        .sets
        .get_mut(&name)
        .and_then(|(_, entries)| entries.iter_mut().find(|entry| entry.get("cidr") == Some(&json!(cidr))));
    match found {
        Some(entry) => entry.extend(changes),
        None => return Err(Answer::bad_parameter("cidr", "no such IP/Network")),
    }
    done()
}

pub fn delete_entry(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let (name, cidr) = (act.text("name").to_owned(), act.text("cidr").to_owned());
    if let Some((_, entries)) = of_mut(act)?.sets.get_mut(&name) {
        entries.retain(|entry| entry.get("cidr") != Some(&json!(cidr)));
    }
    done()
}

/// What rules can refer to: aliases and sets of the cluster, and of the guest itself.
pub fn refs(call: &Call<'_>) -> Result<Answer, Answer> {
    let own = if call.text("vmid").is_empty() { None } else { of(call)? };
    let cluster = call.state.firewalls.get("cluster");
    let mut rows = Rows::default();
    for (scope, firewall) in [("dc", cluster), ("guest", own)] {
        let Some(firewall) = firewall else { continue };
        let wanted = call.text("type");
        for (name, (comment, _)) in firewall.sets.iter().filter(|_| matches!(wanted, "" | "ipset")) {
            let mut row = json!({"name": name, "ref": format!("+{name}"), "scope": scope, "type": "ipset"});
            if let Some(comment) = comment {
                row["comment"] = json!(comment);
            }
            rows.push(&row);
        }
        for (name, alias) in firewall.aliases.iter().filter(|_| matches!(wanted, "" | "alias")) {
            let mut row = json!({"name": name, "ref": name, "scope": scope, "type": "alias"});
            if let Some(comment) = alias.get("comment") {
                row["comment"] = comment.clone();
            }
            rows.push(&row);
        }
    }
    Ok(Answer::rows(rows))
}

/// Some of the macros.
pub fn macros(_: &Call<'_>) -> Result<Answer, Answer> {
    let all = [
        ("DNS", "Domain Name System traffic (upd and tcp)"),
        ("HTTP", "Hypertext Transfer Protocol (WWW)"),
        ("HTTPS", "Hypertext Transfer Protocol (WWW) over SSL"),
        ("NTP", "Network Time Protocol (ntpd)"),
        ("Ping", "ICMP echo request"),
        ("SSH", "Secure shell traffic"),
        ("Web", "WWW traffic (HTTP and HTTPS)"),
    ];
    Ok(Answer::ok(all.iter().map(|(name, text)| json!({"descr": text, "macro": name})).collect()))
}

/// The firewall's log is empty.
pub fn log(call: &Call<'_>) -> Result<Answer, Answer> {
    place(call)?;
    Ok(Answer::ok(json!([{"n": 1, "t": "no content"}])))
}
