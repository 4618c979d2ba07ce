//! Reading a document: its form, then its keys, then the types of its values. All wrong keys are told at once.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::{Document, VERSION, json_schema, sections};

/// How a document is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// JSON.
    Json,
    /// TOML.
    Toml,
}

/// Why a document can't be read. Values are never quoted: one may be a secret in the wrong place.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DocumentError {
    /// Not even the form is right.
    #[error("it is no valid {form}: {problem}")]
    Form {
        /// `JSON` or `TOML`.
        form: &'static str,
        /// Where and what.
        problem: String,
    },
    /// Keys that there are not, one on each line.
    #[error("{}", .0.join("\n"))]
    Keys(Vec<String>),
    /// A value of another type.
    #[error("{place}: {problem}; the keys and their types are in docs/desired.schema.json")]
    Value {
        /// The path of the value.
        place: String,
        /// What is wrong.
        problem: String,
    },
    /// Another version of the form.
    #[error("`version`: this program reads version {VERSION} of the document, and it says {0}")]
    Version(u32),
}

/// Reads a document.
///
/// # Errors
/// It is not of the form, has unknown keys, or values of other types.
pub fn read(text: &str, form: Form) -> Result<Document, DocumentError> {
    let value: Value = match form {
        Form::Json => serde_json::from_str(text)
            .map(|Once(value)| value)
            .map_err(|error| DocumentError::Form { form: "JSON", problem: place_only(&error) })?,
        Form::Toml => toml::from_str(text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            let problem = format!("{} in line {}", error.message(), before.lines().count().max(1));
            DocumentError::Form { form: "TOML", problem }
        })?,
    };
    let schema = json_schema();
    let mut unknown = Vec::new();
    keys(&schema, &schema, &value, "", &mut unknown);
    if !unknown.is_empty() {
        return Err(DocumentError::Keys(unknown));
    }
    let document: Document =
        serde_path_to_error::deserialize(value).map_err(|error| DocumentError::Value {
            place: format!("`{}`", error.path()),
            problem: without_value(&error.into_inner().to_string()),
        })?;
    if document.version != VERSION {
        return Err(DocumentError::Version(document.version));
    }
    Ok(document)
}

/// A value in whose objects no key stands twice. (JSON's readers take the last one.)
struct Once(Value);

impl<'de> Deserialize<'de> for Once {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }

            fn visit_unit<E: Error>(self) -> Result<Value, E> {
                Ok(Value::Null)
            }

            fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
                Ok(value.into())
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
                Ok(value.into())
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
                Ok(value.into())
            }

            fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
                Ok(value.into())
            }

            fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
                Ok(value.into())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
                let mut all = Vec::new();
                while let Some(Once(value)) = items.next_element()? {
                    all.push(value);
                }
                Ok(Value::Array(all))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
                let mut all = Map::new();
                while let Some((key, Once(value))) = entries.next_entry::<String, Once>()? {
                    if all.insert(key, value).is_some() {
                        return Err(A::Error::custom("a key stands twice"));
                    }
                }
                Ok(Value::Object(all))
            }
        }
        deserializer.deserialize_any(Any).map(Self)
    }
}

fn place_only(error: &serde_json::Error) -> String {
    let kind = match error {
        _ if error.is_eof() => "it ends too early",
        // The form was right.
        _ if error.is_data() => "a key stands twice in one object, and which is meant is not known:",
        _ => "it can't be parsed",
    };
    format!("{kind} at line {}, column {}", error.line(), error.column())
}

/// `invalid type: string "secret", expected u32` and ``unknown variant `secret`, expected …`` without what was found.
fn without_value(text: &str) -> String {
    let what = text.split([':', '`']).next().unwrap_or_default().trim();
    match text.rsplit_once("expected ") {
        Some((_, expected)) => format!("{what}, expected {expected}"),
        None => what.to_owned(),
    }
}

/// Lists the keys that the schema does not have.
fn keys(root: &Value, schema: &Value, value: &Value, place: &str, unknown: &mut Vec<String>) {
    let schema = resolved(root, schema);
    match value {
        Value::Object(object) => {
            let none = Map::new();
            let map = |name: &str| schema.get(name).and_then(Value::as_object).unwrap_or(&none);
            let (properties, numbered) = (map("properties"), map("patternProperties"));
            let closed = schema.get("additionalProperties") == Some(&Value::Bool(false));
            for (key, value) in object {
                let inside = if place.is_empty() { key.clone() } else { format!("{place}.{key}") };
                let of_family = || {
                    let family = key.trim_end_matches(|c: char| c.is_ascii_digit());
                    numbered.get(&format!("^{family}[0-9]+$")).filter(|_| family != key)
                };
                match properties.get(key).or_else(of_family) {
                    Some(schema) => keys(root, schema, value, &inside, unknown),
                    None if closed => unknown.push(refusal(&inside, key, properties.keys())),
                    None => {}
                }
            }
        }
        Value::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                let inside = format!("{place}[{at}]");
                keys(root, schema.get("items").unwrap_or(&Value::Null), item, &inside, unknown);
            }
        }
        _ => {}
    }
}

/// The schema behind references and beside `null`.
fn resolved<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
    if let Some(name) = schema.get("$ref").and_then(Value::as_str).and_then(|name| name.strip_prefix('#')) {
        return root.pointer(name).map_or(schema, |found| resolved(root, found));
    }
    let choices = schema.get("anyOf").and_then(Value::as_array);
    choices
        .and_then(|of| of.iter().find(|one| one.get("$ref").is_some()))
        .map_or(schema, |one| resolved(root, one))
}

fn refusal<'a>(place: &str, key: &str, known: impl Iterator<Item = &'a String>) -> String {
    if sections::is_secret(key) {
        return format!("`{place}`: there is no key `{key}`; {}", sections::NO_SECRETS);
    }
    let near = known
        .map(|name| (strsim::damerau_levenshtein(name, key), name))
        .min()
        .filter(|(distance, name)| *distance <= 1 + name.len() / 4);
    let mend = near.map_or_else(
        || "remove it; the keys are in docs/desired.schema.json".to_owned(),
        |(_, name)| format!("did you mean `{name}`?"),
    );
    format!("`{place}`: there is no key `{key}`; {mend}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Result<Document, DocumentError> {
        read(text, Form::Json)
    }

    fn with(guest: &str) -> Result<Document, DocumentError> {
        json(&format!(r#"{{"version": 1, "plugins": {{"proxmox": {{"vms": [{guest}]}}}}}}"#))
    }

    #[test]
    fn unknown_keys_are_all_told_with_a_mend() {
        let error =
            with(r#"{"vmid": 100, "coers": 2, "net0": {"brigde": "vmbr0"}, "frobnicate": 1}"#).unwrap_err();
        let text = error.to_string();
        for word in [
            "`plugins.proxmox.vms[0].coers`: there is no key `coers`; did you mean `cores`?",
            "net0.brigde`: there is no key `brigde`; did you mean `bridge`?",
            "no key `frobnicate`; remove it",
        ] {
            assert!(text.contains(word), "{text}");
        }
        assert!(json(r#"{"version": 1, "plugins": {"proxmox": {"vm": []}}}"#).is_err());
        assert!(
            json(r#"{"version": 1, "plugins": {"proxmox": {"containers": [{"cpu": "host"}]}}}"#).is_err()
        );
        assert!(
            with(r#"{"vmid": 100, "network": {"model": "virtio"}, "sata5": "none,media=cdrom"}"#).is_ok()
        );
    }

    #[test]
    fn values_are_never_quoted() {
        for bad in [
            r#"{"vmid": "hunter2"}"#,
            r#"{"vmid": 100, "cipassword": "hunter2"}"#,
            r#"{"vmid": 100, "state": "hunter2"}"#,
        ] {
            let text = with(bad).unwrap_err().to_string();
            assert!(!text.contains("hunter2"), "{text}");
            assert!(text.contains("vms[0]"), "{text}");
        }
        let text = json("{\"version\": 1, \"hunter2").unwrap_err().to_string();
        assert!(text.contains("line 1") && !text.contains("hunter2"), "{text}");
        let text = read("version = 1\n[plugins.proxmox]\nvms = hunter2", Form::Toml).unwrap_err().to_string();
        assert!(text.contains("line 3") && !text.contains("hunter2"), "{text}");
    }

    #[test]
    fn another_version_is_refused() {
        assert_eq!(json(r#"{"version": 2, "plugins": {"proxmox": {}}}"#), Err(DocumentError::Version(2)));
    }

    #[test]
    fn toml_says_the_same_as_json() {
        let toml = "version = 1\n[[plugins.proxmox.vms]]\nvmid = 100\ncores = 2\nunset = [\"balloon\"]\n\
                    disk = { storage = \"local-lvm\", size = \"20G\" }\n";
        let of_json = with(
            r#"{"vmid": 100, "cores": 2, "unset": ["balloon"], "disk": {"storage": "local-lvm", "size": "20G"}}"#,
        );
        assert_eq!(read(toml, Form::Toml), of_json);
    }
}
