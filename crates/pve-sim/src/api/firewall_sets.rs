//! Firewall IP sets and their entries.

use serde_json::{Map, Value, json};

use super::Call;
use super::act::{Act, done, fail};
use super::firewall::{check_digest, list_digest, of, of_mut, with_digest};
use crate::answer::{Answer, Rows};
use crate::world::state::Firewall;

type Entry = Map<String, Value>;

fn set_entries(firewall: Option<&Firewall>) -> Vec<Entry> {
    let row = |(name, (comment, _)): (&String, &(Option<String>, Vec<Entry>))| {
        let mut row = Entry::from_iter([("name".to_owned(), json!(name))]);
        if let Some(comment) = comment {
            row.insert("comment".to_owned(), json!(comment));
        }
        row
    };
    firewall.into_iter().flat_map(|firewall| &firewall.sets).map(row).collect()
}

pub fn sets(call: &Call<'_>) -> Result<Answer, Answer> {
    let entries = set_entries(of(call)?);
    let digest = list_digest(&entries);
    let mut rows = Rows::default();
    for entry in &entries {
        rows.push(&Value::Object(with_digest(entry, &digest)));
    }
    Ok(Answer::rows(rows))
}

/// A new set, or with `rename` another name or comment for one.
pub fn create_set(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let name = act.text("name").to_owned();
    let refuse = |text: String| Err(Answer::bad_parameter("name", &text));
    let (comment, renamed) =
        (act.given("comment").map(str::to_owned), act.given("rename").map(str::to_owned));
    if renamed.is_some() {
        check_digest(act, &list_digest(&set_entries(of(&act.call())?)))?;
    }
    let firewall = of_mut(act)?;
    let taken = firewall.sets.contains_key(&name);
    let (mut have, entries) = match renamed {
        Some(old) if !firewall.sets.contains_key(&old) => {
            return refuse(format!("IPSet '{old}' does not exists"));
        }
        Some(old) if taken && old != name => return refuse(format!("IPSet '{name}' does already exist")),
        Some(old) => firewall.sets.remove(&old).unwrap_or_default(),
        None if taken => return refuse(format!("IPSet '{name}' already exists")),
        None => (None, Vec::new()),
    };
    if let Some(comment) = comment {
        have = Some(comment).filter(|comment| !comment.is_empty());
    }
    firewall.sets.insert(name, (have, entries));
    done()
}

/// The entries of the set that the path names.
fn set<'a>(firewall: Option<&'a Firewall>, name: &str) -> Result<&'a Vec<Entry>, Answer> {
    let found = firewall.and_then(|firewall| firewall.sets.get(name));
    found.map(|(_, entries)| entries).ok_or_else(|| Answer::error(500, format!("no such IPSet '{name}'")))
}

fn set_mut<'a>(act: &'a mut Act<'_>) -> Result<&'a mut Vec<Entry>, Answer> {
    let name = act.text("name").to_owned();
    let found = of_mut(act)?.sets.get_mut(&name).map(|(_, entries)| entries);
    found.ok_or_else(|| Answer::error(500, format!("no such IPSet '{name}'")))
}

pub fn delete_set(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let (name, force) = (act.text("name").to_owned(), act.flag("force"));
    if !set(of(&act.call())?, &name)?.is_empty() && !force {
        return fail(format!("IPSet '{name}' is not empty"));
    }
    of_mut(act)?.sets.remove(&name);
    done()
}

pub fn entries(call: &Call<'_>) -> Result<Answer, Answer> {
    let entries = set(of(call)?, call.text("name"))?;
    let digest = list_digest(entries);
    let mut rows = Rows::default();
    for entry in entries {
        rows.push(&Value::Object(with_digest(entry, &digest)));
    }
    Ok(Answer::rows(rows))
}

fn is_for(entry: &Entry, cidr: &str) -> bool {
    entry.get("cidr").and_then(Value::as_str) == Some(cidr)
}

fn missing() -> Answer {
    Answer::bad_parameter("cidr", "no such IP/Network")
}

pub fn entry(call: &Call<'_>) -> Result<Answer, Answer> {
    let entries = set(of(call)?, call.text("name"))?;
    let found = entries.iter().find(|entry| is_for(entry, call.text("cidr")));
    let digest = list_digest(entries);
    found.map(|entry| Answer::ok(Value::Object(with_digest(entry, &digest)))).ok_or_else(missing)
}

/// What is not set is not there.
fn flags(act: &Act<'_>, entry: &mut Entry) {
    entry.remove("comment");
    entry.remove("nomatch");
    if act.flag("nomatch") {
        entry.insert("nomatch".to_owned(), json!(1));
    }
    if let Some(comment) = act.given("comment").filter(|comment| !comment.is_empty()) {
        entry.insert("comment".to_owned(), json!(comment));
    }
}

/// A new entry is the first one. One for everything is refused, and an alias must be there.
pub fn add_entry(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let cidr = act.text("cidr").to_owned();
    let call = act.call();
    let own = of(&call)?;
    if set(own, act.text("name"))?.iter().any(|entry| is_for(entry, &cidr)) {
        return Err(Answer::bad_parameter("cidr", &format!("address '{cidr}' already exists")));
    }
    let prefix = cidr.rsplit_once('/').map(|(_, bits)| bits);
    if prefix.is_some_and(|bits| bits.chars().all(|digit| digit == '0')) {
        return Err(Answer::bad_parameter("cidr", "a zero prefix is not allowed in ipset entries"));
    }
    if prefix.is_none() && cidr.parse::<std::net::IpAddr>().is_err() {
        let known = |firewall: &Firewall| super::firewall_aliases::find(firewall, &cidr).is_some();
        if ![own, act.state.firewalls.get("cluster")].into_iter().flatten().any(known) {
            return fail(format!("no such alias '{cidr}'"));
        }
    }
    let mut entry = Entry::from_iter([("cidr".to_owned(), json!(cidr))]);
    flags(act, &mut entry);
    set_mut(act)?.insert(0, entry);
    done()
}

/// Comment and `nomatch` are written anew: what is not given is gone.
pub fn update_entry(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let cidr = act.text("cidr").to_owned();
    check_digest(act, &list_digest(set(of(&act.call())?, act.text("name"))?))?;
    let mut changed = Entry::from_iter([("cidr".to_owned(), json!(cidr))]);
    flags(act, &mut changed);
    match set_mut(act)?.iter_mut().find(|entry| is_for(entry, &cidr)) {
        Some(entry) => *entry = changed,
        None => return Err(missing()),
    }
    done()
}

/// One that there is not is gone already.
pub fn delete_entry(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let cidr = act.text("cidr").to_owned();
    check_digest(act, &list_digest(set(of(&act.call())?, act.text("name"))?))?;
    set_mut(act)?.retain(|entry| !is_for(entry, &cidr));
    done()
}
