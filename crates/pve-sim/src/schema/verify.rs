//! Whether parameters are what a method declares, and which are not.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::formats;
use super::named_parts::named_parts;
use super::table::{Format, Kind, Method, Parameter};
use crate::answer::Answer;

const UNKNOWN: &str = "property is not defined in schema and the schema does not allow additional properties";
const MISSING: &str = "property is missing and it is not optional";

/// How many keys a numbered parameter has, where PVE does not count on without end.
fn numbered_limit(base: &str) -> u32 {
    match base {
        "ide" => 4,
        "sata" => 6,
        "virtio" | "hostpci" => 16,
        "scsi" => 31,
        "net" | "ipconfig" => 32,
        "serial" => 4,
        "parallel" => 3,
        "numa" | "link" => 8,
        "usb" => 14,
        "acmedomain" => 6,
        _ => 256,
    }
}

/// The declaration of a parameter: by its name, or `net[n]` for `net7`.
pub fn declaration<'a>(method: &'a Method, name: &str) -> Option<&'a Parameter> {
    if let Some(found) = method.parameters.get(name) {
        return Some(found);
    }
    let base = name.trim_end_matches(|character: char| character.is_ascii_digit());
    let number: u32 = name.strip_prefix(base)?.parse().ok()?;
    if number >= numbered_limit(base) {
        return None;
    }
    method.parameters.get(&format!("{base}[n]")).copied()
}

/// The type of a parameter.
pub fn kind(method: &Method, name: &str) -> Option<Kind> {
    declaration(method, name).map(|declared| declared.kind)
}

/// 400 with every parameter that is at fault.
pub fn verify(method: &Method, parameters: &BTreeMap<String, String>) -> Result<(), Answer> {
    let mut errors = Map::new();
    for (name, declared) in &method.parameters {
        if !declared.optional && !parameters.contains_key(name) {
            errors.insert(name.clone(), Value::from(MISSING));
        }
    }
    for (name, value) in parameters {
        let Some(declared) = declaration(method, name) else {
            if !method.open {
                errors.insert(name.clone(), Value::from(UNKNOWN));
            }
            continue;
        };
        if let Err(problem) = check(declared, name, value) {
            errors.insert(name.clone(), Value::from(problem));
        } else if let Some(other) =
            declared.requires.as_ref().filter(|other| !parameters.contains_key(*other))
        {
            errors.insert(
                other.clone(),
                Value::from(format!("missing property - '{name}' requires this property")),
            );
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(Answer::bad_parameters(errors)) }
}

/// One value. The order of the checks is PVE's: type, format, pattern, lengths, limits, enumeration.
fn check(declared: &Parameter, path: &str, value: &str) -> Result<(), String> {
    let of_type = |fits: bool, kind: &str| {
        if fits { Ok(()) } else { Err(format!("type check ('{kind}') failed - got '{value}'")) }
    };
    match declared.kind {
        Kind::Boolean => of_type(matches!(value, "0" | "1"), "boolean")?,
        Kind::Integer => of_type(value.parse::<i64>().is_ok(), "integer")?,
        Kind::Number => of_type(value.parse::<f64>().is_ok(), "number")?,
        Kind::Text | Kind::List => {}
    }
    match &declared.format {
        Some(Format::Named(name)) => {
            if let Some(parts) = named_parts(name) {
                return property_string(parts, path, value);
            }
            formats::check(name, value).map_err(|problem| format!("invalid format - {problem}\n"))?;
        }
        Some(Format::Parts(parts)) => property_string(parts, path, value)?,
        None => {}
    }
    if let Some(pattern) = &declared.pattern
        && !pattern.is_match(value)
    {
        return Err("value does not match the regex pattern".to_owned());
    }
    let length = value.chars().count();
    if let Some(most) = declared.max_length.filter(|most| length > *most) {
        return Err(format!("value may only be {most} characters long"));
    }
    if let Some(least) = declared.min_length.filter(|least| length < *least) {
        return Err(format!("value must be at least {least} characters long"));
    }
    if matches!(declared.kind, Kind::Integer | Kind::Number) {
        let number: f64 = value.parse().unwrap_or_default();
        if let Some(most) = declared.maximum.filter(|most| number > *most) {
            return Err(format!("value must have a maximum value of {most}"));
        }
        if let Some(least) = declared.minimum.filter(|least| number < *least) {
            return Err(format!("value must have a minimum value of {least}"));
        }
    }
    if let Some(values) = declared.values.as_ref().filter(|values| !values.iter().any(|one| one == value)) {
        let all = values.join(", ");
        return Err(format!("value '{value}' does not have a value in the enumeration '{all}'"));
    }
    Ok(())
}

/// A property string taken apart: names and values, aliases resolved.
fn parts_of(parts: &BTreeMap<String, Parameter>, text: &str) -> Result<BTreeMap<String, String>, String> {
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    let twice = |key: &str| format!("duplicate key in comma-separated list property: {key}");
    for part in text.split(',').filter(|part| !part.trim().is_empty()) {
        match part.split_once('=') {
            Some((key, value)) if !key.is_empty() && !value.is_empty() => {
                let mut key = key.to_owned();
                if let Some(alias) = parts.get(&key).and_then(|declared| declared.alias.clone()) {
                    if let Some(other) = parts.get(&key).and_then(|declared| declared.key_alias.clone()) {
                        found.insert(other, key.clone());
                    }
                    key = alias;
                }
                let flag = parts.get(&key).is_some_and(|declared| declared.kind == Kind::Boolean);
                // Inside property strings booleans may be words.
                let value = match value.to_lowercase().as_str() {
                    "on" | "yes" | "true" if flag => "1".to_owned(),
                    "off" | "no" | "false" if flag => "0".to_owned(),
                    _ => value.to_owned(),
                };
                if found.insert(key.clone(), value).is_some() {
                    return Err(twice(&key));
                }
            }
            Some(_) => return Err("missing key in comma-separated list property".to_owned()),
            None => {
                let default = parts.iter().find(|(_, declared)| declared.default_key);
                let Some((key, declared)) = default else {
                    return Err("value without key, but schema does not define a default key".to_owned());
                };
                // A default key may itself stand for another: `virtio` is a model.
                let key = declared.alias.clone().unwrap_or_else(|| key.clone());
                if found.insert(key.clone(), part.to_owned()).is_some() {
                    return Err(twice(&key));
                }
            }
        }
    }
    Ok(found)
}

fn property_string(parts: &BTreeMap<String, Parameter>, path: &str, text: &str) -> Result<(), String> {
    let found = parts_of(parts, text).map_err(|problem| format!("invalid format - {problem}\n"))?;
    let mut errors = BTreeMap::new();
    for (key, declared) in parts {
        if declared.alias.is_none() && !declared.optional && !found.contains_key(key) {
            errors.insert(key.clone(), MISSING.to_owned());
        }
    }
    for (key, value) in &found {
        match parts.get(key) {
            None => drop(errors.insert(key.clone(), UNKNOWN.to_owned())),
            Some(declared) => {
                if let Err(problem) = check(declared, key, value) {
                    errors.insert(key.clone(), problem);
                } else if let Some(other) =
                    declared.requires.as_ref().filter(|other| !found.contains_key(*other))
                {
                    errors
                        .insert(other.clone(), format!("missing property - '{key}' requires this property"));
                }
            }
        }
    }
    if errors.is_empty() {
        return Ok(());
    }
    let lines: String = errors.iter().map(|(key, problem)| format!("{path}.{key}: {problem}\n")).collect();
    Err(format!("invalid format - format error\n{lines}"))
}

/// The parts of a property string of a parameter, aliases resolved; `None` where it is none.
pub fn properties(method: &Method, name: &str, value: &str) -> Option<BTreeMap<String, String>> {
    match &declaration(method, name)?.format {
        Some(Format::Parts(parts)) => parts_of(parts, value).ok(),
        _ => None,
    }
}

/// A property string as PVE writes it back: the default key first and without its name, aliases as the first word, then the
/// keys that must be there, then the others, each sorted.
pub fn normalize(method: &Method, name: &str, value: &str) -> Option<String> {
    let Some(Format::Parts(parts)) = &declaration(method, name)?.format else { return None };
    let mut found = parts_of(parts, value).ok()?;
    let mut words = Vec::new();
    // `model` and `macaddr` are written as `virtio=MAC`.
    let alias =
        parts.values().find_map(|declared| Some((declared.key_alias.clone()?, declared.alias.clone()?)));
    if let Some((key, target)) = alias
        && let Some(model) = found.remove(&key)
    {
        match found.remove(&target) {
            Some(mac) => words.push(format!("{model}={mac}")),
            None => words.push(model),
        }
    }
    let default = parts.iter().find(|(_, declared)| declared.default_key);
    if let Some((key, declared)) = default {
        let key = declared.alias.as_ref().unwrap_or(key);
        if let Some(value) = found.remove(key) {
            words.push(value);
        }
    }
    let optional = |key: &str| parts.get(key).is_none_or(|declared| declared.optional);
    let mut rest: Vec<(String, String)> = found.into_iter().collect();
    rest.sort_by_key(|(key, _)| (optional(key), key.clone()));
    words.extend(rest.into_iter().map(|(key, value)| format!("{key}={value}")));
    Some(words.join(","))
}

#[cfg(test)]
mod tests {
    use super::super::find;
    use super::*;

    fn refusals(path: &str, parameters: &[(&str, &str)]) -> Value {
        let declared = find("POST", path).unwrap();
        let mut given: BTreeMap<String, String> = declared.in_path.into_iter().collect();
        given.extend(parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        match verify(declared.method, &given) {
            Ok(()) => Value::Null,
            Err(answer) => answer.body.to_json()["errors"].clone(),
        }
    }

    #[test]
    fn every_parameter_at_fault_is_named() {
        let errors = refusals(
            "/nodes/pve1/qemu",
            &[
                ("cores", "abc"),
                ("foo", "1"),
                ("memory", "8"),
                ("onboot", "maybe"),
                ("scsi0", "local"),
                ("vmid", "150"),
            ],
        );
        assert_eq!(errors["cores"], "type check ('integer') failed - got 'abc'");
        assert_eq!(errors["foo"], UNKNOWN);
        assert_eq!(
            errors["memory"],
            "invalid format - format error\nmemory.current: value must have a minimum value of 16\n"
        );
        assert_eq!(errors["onboot"], "type check ('boolean') failed - got 'maybe'");
        assert_eq!(
            errors["scsi0"],
            "invalid format - format error\nscsi0.file: invalid format - unable to parse volume ID 'local'\n\n"
        );
        assert_eq!(refusals("/nodes/pve1/qemu", &[]), serde_json::json!({"vmid": MISSING}));
    }

    #[test]
    fn numbered_keys_end_somewhere() {
        assert_eq!(refusals("/nodes/p/qemu", &[("vmid", "100"), ("ide4", "none")])["ide4"], UNKNOWN);
        assert_eq!(refusals("/nodes/p/qemu", &[("vmid", "100"), ("ide3", "none")]), Value::Null);
    }
}
