//! PVE's own schema of its answers, and whether an answer keeps to it.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

/// The schema of all paths.
pub struct Schema(Value);

impl Schema {
    pub fn read(folder: &Path) -> Self {
        let text = std::fs::read_to_string(folder.join("api-schema-8.4.json")).unwrap();
        let schema: Value = serde_json::from_str(&text).unwrap();
        Self(schema["paths"].clone())
    }

    /// The declaration of `GET` on a template.
    pub fn get(&self, template: &str) -> &Value {
        &self.0[template]["GET"]
    }

    /// The template of a concrete path. Fixed segments win over parameters.
    pub fn template(&self, path: &str) -> Option<&str> {
        let path = path.split('?').next().unwrap().trim_end_matches('/');
        let have: Vec<&str> = path.split('/').collect();
        let fits = |template: &&String| {
            let want: Vec<&str> = template.split('/').collect();
            want.len() == have.len()
                && want.iter().zip(&have).all(|(want, have)| want.starts_with('{') || want == have)
        };
        let templates = self.0.as_object().unwrap().keys().filter(fits);
        templates.min_by_key(|template| template.matches('{').count()).map(String::as_str)
    }

    /// What is wrong with the `data` of a path's answer: each place and problem once, without indices and values.
    pub fn check(&self, template: &str, data: &Value) -> BTreeSet<String> {
        let mut problems = BTreeSet::new();
        let returns = &self.get(template)["returns"];
        if returns.is_object() {
            check(returns, data, "$", &mut problems);
        }
        problems
    }

    /// Whether the schema knows a key of the rows or object that a path returns.
    pub fn knows_key(&self, template: &str, key: &str) -> bool {
        let returns = &self.get(template)["returns"];
        let row = if returns["type"] == "array" { &returns["items"] } else { returns };
        row["properties"].as_object().is_some_and(|properties| property(properties, key).is_some())
    }
}

/// Where the schema wants a type: PVE's booleans are 0 and 1.
fn has_type(wanted: &str, value: &Value) -> bool {
    match wanted {
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.as_i64().is_some_and(|number| number == 0 || number == 1) || value.is_boolean(),
        "object" => value.is_object(),
        "array" => value.is_array(),
        "null" => value.is_null(),
        "any" => true,
        other => panic!("the schema has a type {other:?} that the checker does not know"),
    }
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true/false",
        Value::Number(number) if number.is_f64() => "fraction",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// `net0` is declared as `net[n]`.
fn property<'a>(properties: &'a serde_json::Map<String, Value>, key: &str) -> Option<&'a Value> {
    let stem = key.trim_end_matches(|character: char| character.is_ascii_digit());
    properties.get(key).or_else(|| properties.get(&format!("{stem}[n]")))
}

fn check(schema: &Value, value: &Value, place: &str, problems: &mut BTreeSet<String>) {
    let Some(wanted) = schema["type"].as_str() else { return };
    if !has_type(wanted, value) {
        problems.insert(format!("{place} wants {wanted}, got {}", type_of(value)));
        return;
    }
    if let (Some(allowed), true) = (schema["enum"].as_array(), value.is_string())
        && !allowed.contains(value)
    {
        problems.insert(format!("{place} has a value outside its enumeration"));
    }
    if let Value::Array(items) = value {
        for item in items {
            check(&schema["items"], item, &format!("{place}[]"), problems);
        }
    }
    let (Value::Object(object), Some(properties)) = (value, schema["properties"].as_object()) else { return };
    for (name, declared) in properties {
        if declared["optional"].as_i64() != Some(1) && !object.contains_key(name) && !name.ends_with("[n]") {
            problems.insert(format!("{place}.{name} is missing"));
        }
    }
    for (name, value) in object {
        match property(properties, name) {
            Some(declared) => check(declared, value, &format!("{place}.{name}"), problems),
            None if schema["additionalProperties"].as_i64() == Some(0) => {
                problems.insert(format!("{place}.{name} is not declared"));
            }
            None => {}
        }
    }
}
