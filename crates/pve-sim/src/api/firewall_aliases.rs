//! Firewall aliases: names for addresses and networks. Names differ by more than their case.

use serde_json::{Map, Value, json};

use super::Call;
use super::act::{Act, done};
use super::firewall::{check_digest, list_digest, of, of_mut, with_digest};
use crate::answer::{Answer, Rows};
use crate::world::state::Firewall;

/// An alias by its name in any case: the key it is kept by, and itself.
pub(super) fn find<'a>(firewall: &'a Firewall, name: &str) -> Option<(&'a String, &'a Map<String, Value>)> {
    firewall.aliases.iter().find(|(have, _)| have.eq_ignore_ascii_case(name))
}

fn digest(firewall: Option<&Firewall>) -> String {
    list_digest(firewall.into_iter().flat_map(|firewall| firewall.aliases.values()))
}

pub fn aliases(call: &Call<'_>) -> Result<Answer, Answer> {
    let firewall = of(call)?;
    let digest = digest(firewall);
    let mut rows = Rows::default();
    for alias in firewall.into_iter().flat_map(|firewall| firewall.aliases.values()) {
        rows.push(&Value::Object(with_digest(alias, &digest)));
    }
    Ok(Answer::rows(rows))
}

fn missing() -> Answer {
    Answer::bad_parameter("name", "no such alias")
}

pub fn alias(call: &Call<'_>) -> Result<Answer, Answer> {
    let found = of(call)?.and_then(|firewall| find(firewall, call.text("name")));
    found.map(|(_, alias)| Answer::ok(Value::Object(alias.clone()))).ok_or_else(missing)
}

/// What is written, and read again: a network of one address is that address.
fn alias_of(act: &Act<'_>, name: &str) -> Map<String, Value> {
    let cidr = act.text("cidr");
    let version = if cidr.contains(':') { 6 } else { 4 };
    let whole = if version == 4 { "/32" } else { "/128" };
    let mut alias = Map::new();
    alias.insert("name".to_owned(), json!(name));
    alias.insert("cidr".to_owned(), json!(cidr.strip_suffix(whole).unwrap_or(cidr)));
    alias.insert("ipversion".to_owned(), json!(version));
    if let Some(comment) = act.given("comment").filter(|comment| !comment.is_empty()) {
        alias.insert("comment".to_owned(), json!(comment));
    }
    alias
}

fn taken(name: &str) -> Answer {
    Answer::bad_parameter("name", &format!("alias '{name}' already exists"))
}

pub fn create(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let name = act.text("name").to_owned();
    let alias = alias_of(act, &name);
    let firewall = of_mut(act)?;
    if find(firewall, &name).is_some() {
        return Err(taken(&name));
    }
    firewall.aliases.insert(name, alias);
    done()
}

/// The whole alias is written anew: without a comment it has none.
pub fn update(act: &mut Act<'_>) -> Result<Answer, Answer> {
    check_digest(act, &digest(of(&act.call())?))?;
    let (name, renamed) = (act.text("name").to_owned(), act.given("rename").map(str::to_owned));
    let new = renamed.filter(|new| !new.eq_ignore_ascii_case(&name)).unwrap_or(name.clone());
    let alias = alias_of(act, &new);
    let firewall = of_mut(act)?;
    let Some(key) = find(firewall, &name).map(|(key, _)| key.clone()) else { return Err(missing()) };
    if !new.eq_ignore_ascii_case(&name) && find(firewall, &new).is_some() {
        return Err(taken(&new));
    }
    firewall.aliases.remove(&key);
    firewall.aliases.insert(new, alias);
    done()
}

/// One that there is not is gone already.
pub fn delete(act: &mut Act<'_>) -> Result<Answer, Answer> {
    check_digest(act, &digest(of(&act.call())?))?;
    let name = act.text("name").to_owned();
    of_mut(act)?.aliases.retain(|have, _| !have.eq_ignore_ascii_case(&name));
    done()
}
