//! What the catalogue of templates gives a new guest that is copied by a name in it.

use std::borrow::Cow;

use pvegraph_inventory::GuestType;
use serde_json::{Map, Value};

use super::{Desired, Guest, Problem, Section, entered};
use crate::canonical::{Kind, find, refused};
use crate::document::Source;

/// The default options of a template's entry.
fn options(spec: &Value) -> Option<&Map<String, Value>> {
    spec.get("defaults").and_then(Value::as_object)
}

impl Desired {
    /// The guest with what its template's entry gives a new one. What the guest names itself, or wants removed, is as it says.
    pub fn with_defaults<'a>(&self, guest: &'a Guest) -> Cow<'a, Guest> {
        let mut with = Cow::Borrowed(guest);
        let Some(Source::Name(name)) = guest.clone_of.as_ref().map(|clone| &clone.from) else { return with };
        let spec = self.sections.get(&(Section::Templates, name.clone()));
        for (key, value) in spec.and_then(options).into_iter().flatten() {
            let unset = guest.unset.iter().any(|unset| unset.split('.').next() == Some(key));
            if unset || guest.fields.contains_key(key) {
                continue;
            }
            // Of another kind of guest it was told by the check.
            if let Ok(value) = entered(guest.kind, key, value) {
                with.to_mut().fields.insert(key.clone(), value);
            }
        }
        with
    }
}

/// What is wrong with the default options of templates.
pub(super) fn check(desired: &Desired) -> Vec<Problem> {
    let mut problems = Vec::new();
    for ((section, name), spec) in &desired.sections {
        let Some(defaults) = options(spec).filter(|_| *section == Section::Templates) else { continue };
        // Who is copied from it says which kind of guest it is; where nobody is, it may be either.
        let kinds: Vec<GuestType> = desired
            .guests
            .values()
            .filter(
                |guest| matches!(&guest.clone_of, Some(clone) if clone.from == Source::Name(name.clone())),
            )
            .map(|guest| guest.kind)
            .collect();
        for (key, value) in defaults {
            let told =
                |text: String| Problem::new(format!("templates/{name}"), format!("defaults.{key}"), text);
            match problem(&kinds, key, value) {
                Some(text) => problems.push(told(text)),
                None => continue,
            }
        }
    }
    problems
}

fn problem(kinds: &[GuestType], key: &str, value: &Value) -> Option<String> {
    let both = [GuestType::Qemu, GuestType::Lxc];
    let is_text = |kind| matches!(find(kind, key), Some(option) if matches!(option.kind, Kind::Description));
    if both.into_iter().any(is_text) {
        return Some("a text is of one guest: write it there".to_owned());
    }
    if !kinds.is_empty() {
        return kinds.iter().find_map(|kind| usable(*kind, key, value).err());
    }
    // The words of the kind that has the option.
    let known = both.into_iter().filter(|kind| find(*kind, key).is_some());
    let mut told = None;
    for kind in known {
        match usable(kind, key, value) {
            Ok(()) => return None,
            Err(text) => told = Some(text),
        }
    }
    Some(told.unwrap_or_else(|| "Proxmox VE has no such option for a guest: remove it".to_owned()))
}

/// Can a guest of this kind have the value? The error is why not, with the mend.
fn usable(kind: GuestType, key: &str, value: &Value) -> Result<(), String> {
    let entered = entered(kind, key, value)?;
    let told = refused(kind, key, &entered).into_iter().next();
    told.map_or(Ok(()), |(field, text)| Err(if field == key { text } else { format!("`{field}`: {text}") }))
}
