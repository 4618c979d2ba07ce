//! Whether two answers say the same: status, reason phrase, and the shape and types of the body.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use regex::Regex;
use serde_json::Value;

use super::Recording;
use crate::answer::Answer;

/// Fields whose keys are names of things rather than fields.
const NAMED: [&str; 10] = [
    "referenced_in_snapshot",
    "blockstat",
    "lrm_status",
    "nics",
    "node_status",
    "not_allowed_nodes",
    "results",
    "service_status",
    "tokens",
    "interface",
];

fn replaced(cell: &'static OnceLock<Option<Regex>>, pattern: &str, text: &str, by: &str) -> String {
    match cell.get_or_init(|| Regex::new(pattern).ok()) {
        Some(regex) => regex.replace_all(text, by).into_owned(),
        None => text.to_owned(),
    }
}

/// A text without what differs from cluster to cluster: numbers and quoted names.
pub(super) fn normal(text: &str) -> String {
    static QUOTED: OnceLock<Option<Regex>> = OnceLock::new();
    static NUMBER: OnceLock<Option<Regex>> = OnceLock::new();
    // An apostrophe inside a word is no quotation mark.
    let text = replaced(&QUOTED, r"\B'[^']*'", text, "'x'");
    replaced(&NUMBER, r"\d+", &text, "0")
}

/// What differs, a line each; none where the answers agree.
pub(super) fn compare(recording: &Recording, answer: &Answer) -> Vec<String> {
    let mut problems = Vec::new();
    if recording.status != answer.status {
        problems.push(format!(
            "status {} ({}), recorded {} ({})",
            answer.status, answer.reason, recording.status, recording.reason
        ));
        let errors = answer.body.to_json();
        if !errors["errors"].is_null() {
            problems.push(format!("errors {}", errors["errors"]));
        }
        return problems;
    }
    if normal(&recording.reason) != normal(&answer.reason) {
        problems.push(format!("reason {:?}, recorded {:?}", answer.reason, recording.reason));
    }
    // A recording without JSON had another type of body, or none.
    if recording.json.is_null() {
        return problems;
    }
    let (mut have, mut want) = (BTreeSet::new(), BTreeSet::new());
    shape(&answer.body.to_json(), "", &mut have);
    shape(&recording.json, "", &mut want);
    problems.extend(want.difference(&have).map(|missing| format!("missing {missing}")));
    problems.extend(have.difference(&want).map(|extra| format!("too much: {extra}")));
    problems
}

/// The one-line shape of a value: its keys and types.
fn signature(value: &Value, key: &str) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) => "boolean".to_owned(),
        Value::Number(_) => "number".to_owned(),
        Value::String(text) => match text.split(':').nth(5).filter(|_| text.starts_with("UPID:")) {
            Some(kind) => format!("UPID of {kind}"),
            None => "string".to_owned(),
        },
        Value::Array(items) => {
            let kinds: BTreeSet<String> = items.iter().map(|item| signature(item, "")).collect();
            format!("[{}]", kinds.into_iter().collect::<Vec<_>>().join("|"))
        }
        Value::Object(fields) if is_named(key, value) => {
            let kinds: BTreeSet<String> = fields.values().map(|value| signature(value, "")).collect();
            format!("{{*: {}}}", kinds.into_iter().collect::<Vec<_>>().join("|"))
        }
        Value::Object(fields) => {
            let shown = |key: &str, value: &Value| match key {
                // PVE itself has it as text in one row and as a number in the next.
                "saved" => "0 or 1".to_owned(),
                key => signature(value, key),
            };
            let fields: Vec<String> =
                fields.iter().map(|(key, value)| format!("{key}: {}", shown(key, value))).collect();
            format!("{{{}}}", fields.join(", "))
        }
    }
}

/// An object of things by name: one of the known ones, or one whose keys are paths.
fn is_named(key: &str, value: &Value) -> bool {
    NAMED.contains(&key)
        || value.as_object().is_some_and(|fields| fields.keys().any(|key| key.starts_with('/')))
}

/// The places of a value with their shapes: rows of a list by the shape of each, fields of an object one by one.
fn shape(value: &Value, place: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) if place.is_empty() || place == ".data" && !is_named("", value) => {
            found.insert(format!("{place} is an object"));
            for (key, value) in fields {
                if key == "errors" && place.is_empty() {
                    for (name, text) in value.as_object().into_iter().flatten() {
                        found.insert(format!(
                            "error of {name}: {}",
                            normal(text.as_str().unwrap_or_default())
                        ));
                    }
                } else if key == "message" && place.is_empty() {
                    found.insert(format!("message {}", normal(value.as_str().unwrap_or_default())));
                } else {
                    shape(value, &format!("{place}.{key}"), found);
                }
            }
        }
        Value::Array(items) => {
            found.insert(format!("{place} is a list"));
            found.extend(items.iter().map(|item| format!("{place}[] {}", signature(item, ""))));
        }
        other => {
            let key = place.rsplit('.').next().unwrap_or_default();
            found.insert(format!("{place} {}", signature(other, key)));
        }
    }
}
