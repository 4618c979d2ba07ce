//! What no desired state may be, wherever it comes from: a document, or Cypher written by hand.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::{Desired, Section};
use crate::canonical::{Canonical, Managed, find, refused};
use crate::document::{Power, Source};

/// Something wrong with a desired state: which guest, which field, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The guest.
    pub subject: String,
    /// The field.
    pub field: String,
    /// What is wrong, and the mend.
    pub text: String,
}

impl Problem {
    /// A problem.
    pub fn new(subject: impl Into<String>, field: impl Into<String>, text: impl Into<String>) -> Self {
        Self { subject: subject.into(), field: field.into(), text: text.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: `{}`: {}", self.subject, self.field, self.text)
    }
}

/// PVE's own range of numbers (`pve-vmid` of its API schema).
const VMIDS: std::ops::RangeInclusive<i64> = 100..=999_999_999;

/// The longest `uid`: it becomes a part of keys and messages.
const MAX_UID: usize = 100;

/// The option of a disk that PVE takes once, when the disk is made, and does not keep.
pub(crate) const IMPORT: &str = "import-from";

/// What is wrong with an empty list of nodes.
pub(crate) const NO_NODES: &str = "it names no node: write the names of some, or remove it";

/// Everything that is wrong with it by itself.
pub fn check(desired: &Desired) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut by_vmid: BTreeMap<i64, &str> = BTreeMap::new();
    for guest in desired.guests.values() {
        let mut tell = |field: &str, text: String| problems.push(Problem::new(guest.label(), field, text));
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if guest.uid.is_empty() || guest.uid.len() > MAX_UID || !guest.uid.chars().all(plain) {
            tell("uid", format!("use 1 to {MAX_UID} letters, digits, `-`, `_` and `.`"));
        }
        if let Some(vmid) = guest.vmid {
            if !VMIDS.contains(&vmid) {
                tell(
                    "vmid",
                    format!("{vmid} is no guest's number: use {} to {}", VMIDS.start(), VMIDS.end()),
                );
            }
            if let Some(other) = by_vmid.insert(vmid, &guest.uid) {
                tell("vmid", format!("{other} desires the same guest: keep one of the two"));
            }
        }
        for key in &guest.unset {
            let (option, _) = key.split_once('.').unwrap_or((key, ""));
            match find(guest.kind, option).map(|option| option.managed) {
                None => tell(
                    "unset",
                    format!("Proxmox VE has no option `{option}` for this kind of guest: remove it"),
                ),
                Some(Managed::No(why)) => {
                    tell("unset", format!("`{option}` can't be removed, because {why}"))
                }
                Some(Managed::Yes) if desired_too(guest, key) => {
                    tell("unset", format!("`{key}` is desired as well: remove it from one of the two"));
                }
                Some(Managed::Yes) => {}
            }
        }
        for (key, value) in &guest.fields {
            if matches!(value, Canonical::Map(map) if map.contains_key(IMPORT)) {
                let text = "disks are not filled from others' volumes: desire the guest as a copy (`clone`), or import it at Proxmox VE and \
                            adopt it";
                tell(&format!("{key}.{IMPORT}"), text.to_owned());
            }
        }
        for (field, text) in guest.fields.iter().flat_map(|(key, value)| refused(guest.kind, key, value)) {
            tell(&field, text);
        }
        if let Some((field, text)) = super::foreign(guest) {
            tell(&field, text);
        }
        for (field, text) in place_problems(guest) {
            tell(field, text);
        }
        if guest.template && guest.state == Some(Power::Running) {
            tell("template", "a template never runs: remove `template`, or `state`".to_owned());
        }
        for (field, text) in clone_problems(desired, guest) {
            tell(field, text);
        }
        for (field, others) in [("depends_on", &guest.depends_on), ("anti_affinity", &guest.anti_affinity)] {
            for other in others {
                if *other == guest.uid {
                    tell(field, "it names the guest itself: remove that".to_owned());
                } else if !desired.guests.contains_key(other) {
                    tell(field, format!("there is no desired guest {other}: write the `uid` of one"));
                }
            }
        }
    }
    problems.extend(super::defaults::check(desired));
    for ((section, name), entry) in &desired.sections {
        let subject = format!("{}/{name}", section.as_str());
        let found = crate::document::sections::problems(*section, entry);
        problems.extend(found.into_iter().map(|(field, text)| Problem::new(subject.clone(), field, text)));
    }
    problems.extend(cycle(desired));
    problems
}

/// What is wrong with where a guest may be.
fn place_problems(guest: &super::Guest) -> Vec<(&'static str, String)> {
    let mut problems = Vec::new();
    if let Some(node) = &guest.node {
        for (field, nodes) in [("nodes", &guest.nodes), ("prefer", &guest.prefer)] {
            if !nodes.is_empty() {
                let text =
                    format!("`node` says that it has to be on {node} and nowhere else: keep one of the two");
                problems.push((field, text));
            }
        }
    }
    if let Some(other) =
        guest.prefer.iter().find(|node| !guest.nodes.is_empty() && !guest.nodes.contains(*node))
    {
        let nodes = guest.nodes.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        let text = format!("{other} is none of its `nodes` ({nodes}): add it there, or remove it here");
        problems.push(("prefer", text));
    }
    problems
}

/// What is wrong with how a guest is copied.
fn clone_problems(desired: &Desired, guest: &super::Guest) -> Vec<(&'static str, String)> {
    let Some(clone) = &guest.clone_of else { return Vec::new() };
    let mut problems = Vec::new();
    if let Source::Name(name) = &clone.from
        && name.parse::<i64>().is_ok()
    {
        return vec![("clone.from", format!("{name} is a number: write it without quotation marks"))];
    }
    match desired.source(clone) {
        None => {
            let names = desired.sections.keys().filter(|(section, _)| *section == Section::Templates);
            let names: Vec<&str> = names.map(|(_, name)| name.as_str()).collect();
            let known = if names.is_empty() { "there are none".to_owned() } else { names.join(", ") };
            let text = format!(
                "`templates` has no {:?} with a `vmid`: write a number, or one of its names ({known})",
                clone.from.to_string()
            );
            problems.push(("clone.from", text));
        }
        Some(vmid) if !VMIDS.contains(&vmid) => {
            let text = format!("{vmid} is no guest's number: use {} to {}", VMIDS.start(), VMIDS.end());
            problems.push(("clone.from", text));
        }
        Some(vmid) if guest.vmid == Some(vmid) => {
            problems.push(("clone.from", "it is the guest itself: write another guest's number".to_owned()));
        }
        Some(_) => {}
    }
    if clone.full == Some(false) && clone.storage.is_some() {
        let text = "a copy that builds on its template stays on the template's storage: remove `storage`, or write `full: true`";
        problems.push(("clone.storage", text.to_owned()));
    }
    if guest.ostemplate.is_some() {
        problems
            .push(("clone", "`ostemplate` says otherwise how it is made: keep one of the two".to_owned()));
    }
    problems
}

fn desired_too(guest: &super::Guest, key: &str) -> bool {
    match key.split_once('.') {
        None => guest.fields.contains_key(key),
        Some((option, sub)) => match guest.fields.get(option) {
            Some(Canonical::Map(map)) => map.contains_key(sub),
            _ => false,
        },
    }
}

/// A cycle of guests that wait for each other. One is told; the next one shows when it is gone.
fn cycle(desired: &Desired) -> Option<Problem> {
    let mut done = BTreeSet::new();
    for start in desired.guests.keys() {
        // Depth first; the path is what the cycle is told by.
        let mut path: Vec<(&str, Vec<&str>)> = Vec::new();
        let next = |uid: &str| -> Vec<&str> {
            desired
                .guests
                .get(uid)
                .map_or_else(Vec::new, |guest| guest.depends_on.iter().map(String::as_str).collect())
        };
        path.push((start, next(start)));
        while let Some((uid, open)) = path.last_mut() {
            let uid = *uid;
            match open.pop() {
                // A guest that names itself was told above.
                Some(other) if other == uid || done.contains(other) => {}
                Some(other) => {
                    if let Some(at) = path.iter().position(|(seen, _)| *seen == other) {
                        let mut names: Vec<&str> = path.iter().skip(at).map(|(seen, _)| *seen).collect();
                        names.push(other);
                        let text = format!("{} wait for each other: remove one of them", names.join(" → "));
                        return Some(Problem::new(other, "depends_on", text));
                    }
                    path.push((other, next(other)));
                }
                None => {
                    done.insert(uid);
                    path.pop();
                }
            }
        }
    }
    None
}
