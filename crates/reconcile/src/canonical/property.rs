//! Property strings in canonical form.

use std::collections::BTreeMap;

use pve_client::property::{Nic, Property, PropertyString};

use super::{Canonical, Format, Kind, TagStyle};

/// Reads a property string; `None` where it is none of this format.
pub(super) fn read(format: &Format, text: &str, style: TagStyle) -> Option<Canonical> {
    let options: PropertyString = text.parse().ok()?;
    let mut map = BTreeMap::new();
    for (key, value) in options.iter() {
        let key = match key {
            Some(key) => key,
            None => format.default?,
        };
        enter(format, &mut map, key, value, style)?;
    }
    Some(Canonical::Map(map))
}

/// The same, where `virtio=MAC` stands for `model=virtio,macaddr=MAC`.
pub(super) fn read_nic(format: &Format, text: &str, style: TagStyle) -> Option<Canonical> {
    let (nic, _) = match Nic::read_leniently(text) {
        Ok(read) => read,
        // One that names no model says something of the others.
        Err(_) => return read(format, text, style),
    };
    let options = nic.options();
    if options.get_default("model").is_some() {
        return read(format, text, style);
    }
    let mut map = BTreeMap::new();
    for (key, value) in options.iter() {
        let key = key?;
        if key == nic.model() {
            enter(format, &mut map, "model", key, style)?;
            enter(format, &mut map, "macaddr", value, style)?;
        } else {
            enter(format, &mut map, key, value, style)?;
        }
    }
    Some(Canonical::Map(map))
}

/// Enters one option; `None` where it is there already under another name.
fn enter(
    format: &Format,
    map: &mut BTreeMap<String, Canonical>,
    key: &str,
    value: &str,
    style: TagStyle,
) -> Option<()> {
    let sub = format.sub(key);
    let name = sub.map_or(key, |sub| sub.name);
    let value = sub.map_or(Kind::Text, |sub| sub.kind).read(value, style);
    map.insert(name.to_owned(), value).is_none().then_some(())
}
