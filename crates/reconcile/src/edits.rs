//! What an import or an adoption changes in the desired state: a value that prints itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::canonical::{Canonical, Kind, find};
use crate::desired::{Desired, Guest, Section};
use crate::diff::shown;
use crate::document::CloneOf;

/// One change of the desired state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    /// The guest's `uid`, or the section's name.
    pub subject: String,
    /// The field; nothing where the whole of it comes or goes.
    pub field: Option<String>,
    /// What was desired.
    pub old: Option<String>,
    /// What is desired now.
    pub new: Option<String>,
}

impl fmt::Display for Edit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { subject, field, old, new } = self;
        let sign = match (old, new) {
            (None, _) => '+',
            (_, None) => '-',
            _ => '~',
        };
        write!(f, "{sign} {subject}")?;
        if let Some(field) = field {
            write!(f, " {field}")?;
        }
        match (old, new) {
            (Some(old), Some(new)) => write!(f, ": {old} → {new}"),
            (Some(one), None) | (None, Some(one)) if field.is_some() => write!(f, ": {one}"),
            _ => Ok(()),
        }
    }
}

/// The changes from one desired state to the next, in their order; empty where there are none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Edits(pub Vec<Edit>);

impl Edits {
    /// Nothing changes.
    pub fn noop(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Edits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|edit| writeln!(f, "{edit}"))
    }
}

/// What has to change.
pub fn edits(old: &Desired, new: &Desired) -> Edits {
    let mut all = Vec::new();
    let estate =
        |desired: &Desired| BTreeMap::from_iter(desired.node.clone().map(|node| ("node".to_owned(), node)));
    fields("estate", &estate(old), &estate(new), &mut all);
    for uid in old.guests.keys().chain(new.guests.keys()).collect::<BTreeSet<_>>() {
        match (old.guests.get(uid), new.guests.get(uid)) {
            (Some(old), Some(new)) => fields(uid, &flat(old), &flat(new), &mut all),
            (old, new) => {
                let word = |guest: Option<&Guest>| guest.map(|guest| guest.kind.as_str().to_owned());
                all.push(Edit { subject: uid.clone(), field: None, old: word(old), new: word(new) });
            }
        }
    }
    for key in old.sections.keys().chain(new.sections.keys()).collect::<BTreeSet<_>>() {
        let (old, new) = (old.sections.get(key), new.sections.get(key));
        if old != new {
            let stored = if key.0 == Section::Templates { "" } else { " (not managed yet)" };
            let subject = format!("{}/{}{stored}", key.0.as_str(), key.1);
            // What is in it may be anything: it is not shown.
            let word = |spec: Option<_>| spec.map(|_: &serde_json::Value| "changed".to_owned());
            all.push(Edit { subject, field: None, old: word(old), new: word(new) });
        }
    }
    Edits(all)
}

fn fields(
    subject: &str,
    old: &BTreeMap<String, String>,
    new: &BTreeMap<String, String>,
    all: &mut Vec<Edit>,
) {
    for field in old.keys().chain(new.keys()).collect::<BTreeSet<_>>() {
        let (old, new) = (old.get(field).cloned(), new.get(field).cloned());
        if old != new {
            all.push(Edit { subject: subject.to_owned(), field: Some(field.clone()), old, new });
        }
    }
}

/// A guest's fields as they may be shown.
fn flat(guest: &Guest) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut put = |key: &str, value: Option<String>| {
        if let Some(value) = value {
            all.insert(key.to_owned(), value);
        }
    };
    let list = |words: &BTreeSet<String>| {
        (!words.is_empty()).then(|| words.iter().map(String::as_str).collect::<Vec<_>>().join(", "))
    };
    put("type", Some(guest.kind.as_str().to_owned()));
    put("vmid", guest.vmid.map(|vmid| vmid.to_string()));
    put("node", guest.node.clone());
    put("nodes", list(&guest.nodes));
    put("prefer", list(&guest.prefer));
    put("state", guest.state.map(|state| state.as_str().to_owned()));
    put("policy", Some(guest.policy.as_str().to_owned()));
    put("protected", Some(guest.protected.to_string()));
    put("deletion", Some(guest.deletion.as_str().to_owned()));
    put("reboot", Some(guest.reboot.as_str().to_owned()));
    put("local_disks", Some(guest.local_disks.as_str().to_owned()));
    put("shutdown", Some(guest.shutdown.as_str().to_owned()));
    put("tombstone", Some(guest.tombstone.to_string()));
    put("template", guest.template.then(|| "true".to_owned()));
    put("unset", list(&guest.unset));
    put("depends_on", list(&guest.depends_on));
    put("anti_affinity", list(&guest.anti_affinity));
    if let Some(CloneOf { from, full, storage, snapshot }) = &guest.clone_of {
        put("clone.from", Some(from.to_string()));
        put("clone.full", full.map(|full| full.to_string()));
        put("clone.storage", storage.clone());
        put("clone.snapshot", snapshot.clone());
    }
    put("ostemplate", guest.ostemplate.clone());
    put("cipassword", guest.cipassword.as_ref().map(ToString::to_string));
    put("password", guest.password.as_ref().map(ToString::to_string));
    put("comment", guest.comment.clone());
    for (key, value) in &guest.not_managed {
        put(key, Some(format!("{value} (not managed yet)")));
    }
    for (key, value) in &guest.fields {
        let kind = find(guest.kind, key).map_or(Kind::Text, |option| option.kind);
        match value {
            Canonical::Map(map) if !map.is_empty() => {
                for (sub, value) in map {
                    put(&format!("{key}.{sub}"), Some(shown(kind, value)));
                }
            }
            value => put(key, Some(shown(kind, value))),
        }
    }
    all
}
