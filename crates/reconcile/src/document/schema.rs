//! The document's JSON Schema, made of its types and of the tables of options.

use pvegraph_inventory::GuestType;
use serde_json::{Map, Value, json};

use super::{Document, sections};
use crate::canonical::{Format, Kind, Managed, Opt, is_disk, options};
use crate::desired::IMPORT;

/// The JSON Schema of the document.
pub fn json_schema() -> Value {
    let mut schema = schemars::schema_for!(Document).to_value();
    let guest = schema.pointer_mut("/$defs/Guest").map(Value::take).unwrap_or_default();
    if let Some(defs) = schema.get_mut("$defs").and_then(Value::as_object_mut) {
        defs.remove("Guest");
        for (name, kind) in [("Machine", GuestType::Qemu), ("Container", GuestType::Lxc)] {
            defs.insert(name.to_owned(), with_options(guest.clone(), kind));
            for option in options(kind) {
                if let Some(format) = option.kind.format() {
                    let disk = is_disk(kind, &first_key(option));
                    defs.entry(format.name).or_insert_with(|| property(format, disk));
                }
            }
        }
    }
    for (name, section) in sections::TYPES {
        if let (Some(schema), Some(known)) =
            (schema.pointer_mut(&format!("/$defs/{name}")), sections::keys(section))
        {
            sections::close(schema, known);
        }
    }
    if let Some(defs) = schema.get_mut("$defs").and_then(Value::as_object_mut) {
        defs.extend(sections::types());
    }
    for (list, name) in [("vms", "Machine"), ("containers", "Container")] {
        if let Some(items) = schema.pointer_mut(&format!("/$defs/Estate/properties/{list}/items")) {
            *items = json!({ "$ref": format!("#/$defs/{name}") });
        }
    }
    schema
}

/// The schema of a guest with its options beside the keys of the type.
fn with_options(mut schema: Value, guest: GuestType) -> Value {
    let mut numbered = Map::new();
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        // The first disk and the first network interface have a name of their own.
        let first = match guest {
            GuestType::Qemu => "scsi0",
            GuestType::Lxc => "rootfs",
        };
        properties.insert("disk".to_owned(), device(guest, first));
        properties.insert("network".to_owned(), device(guest, "net0"));
        let only_of = match guest {
            GuestType::Qemu => &["ostemplate", "password"][..],
            GuestType::Lxc => &["cipassword", "cpu_mitigations"][..],
        };
        properties.retain(|key, _| !only_of.contains(&key.as_str()));
        for option in options(guest) {
            if option.managed != Managed::Yes
                || properties.contains_key(option.name) && option.count.is_none()
            {
                continue;
            }
            let value = value(option.kind);
            match option.count {
                None => properties.insert(option.name.to_owned(), value),
                Some(_) => numbered.insert(format!("^{}[0-9]+$", option.name), value),
            };
        }
    }
    if let Some(schema) = schema.as_object_mut() {
        schema.insert("patternProperties".to_owned(), Value::Object(numbered));
        schema.insert("additionalProperties".to_owned(), Value::Bool(false));
    }
    schema
}

fn device(guest: GuestType, key: &str) -> Value {
    let option = crate::canonical::find(guest, key);
    option.map_or(Value::Bool(true), |option| value(option.kind))
}

/// The key of the first option of a family.
fn first_key(option: &Opt) -> String {
    option.count.map_or_else(|| option.name.to_owned(), |_| format!("{}0", option.name))
}

/// The schema of an option's value.
fn value(kind: Kind) -> Value {
    match kind {
        Kind::Bool => json!({ "type": ["boolean", "integer", "string"] }),
        Kind::Integer => json!({ "type": ["integer", "string"] }),
        Kind::Decimal => json!({ "type": ["number", "string"] }),
        Kind::Size => json!({ "type": ["string", "integer"] }),
        Kind::Text | Kind::Description | Kind::Mac => json!({ "type": ["string", "number", "boolean"] }),
        Kind::Tags | Kind::Set(_) | Kind::List(_) | Kind::Hotplug | Kind::SshKeys => {
            json!({ "type": ["array", "string", "integer"], "items": { "type": ["string", "integer"] } })
        }
        Kind::Secret => json!({ "$ref": "#/$defs/SecretRef" }),
        Kind::Property(format) | Kind::Nic(format) => json!({ "$ref": format!("#/$defs/{}", format.name) }),
    }
}

/// The schema of a property string: an object of its options, or PVE's text for it.
fn property(format: &Format, disk: bool) -> Value {
    let mut properties: Map<String, Value> = format
        .subs
        .iter()
        .filter(|sub| sub.name != IMPORT)
        .map(|sub| (sub.name.to_owned(), value(sub.kind)))
        .collect();
    if disk {
        properties.insert("storage".to_owned(), json!({ "type": "string" }));
    }
    json!({
        "type": ["object", "string", "integer", "boolean"],
        "properties": properties,
        "additionalProperties": false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_schema_is_what_the_types_make() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/desired.schema.json");
        let made = format!("{}\n", serde_json::to_string_pretty(&json_schema()).unwrap());
        if std::env::var_os("PVEGRAPH_WRITE_DOCS").is_some() {
            std::fs::write(path, &made).unwrap();
        }
        let shipped = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            shipped == made,
            "docs/desired.schema.json is old: PVEGRAPH_WRITE_DOCS=1 cargo test -p pvegraph-reconcile"
        );
    }

    #[test]
    fn every_managed_option_is_in_it() {
        let schema = json_schema();
        for (name, guest) in [("Machine", GuestType::Qemu), ("Container", GuestType::Lxc)] {
            let schema = &schema["$defs"][name];
            // `template` is a key of the guest, beside its options.
            for option in options(guest).iter().filter(|option| option.name != "template") {
                let place = match option.count {
                    None => &schema["properties"][option.name],
                    Some(_) => &schema["patternProperties"][format!("^{}[0-9]+$", option.name)],
                };
                assert_eq!(place.is_null(), option.managed != Managed::Yes, "{name} {}", option.name);
            }
        }
    }
}
