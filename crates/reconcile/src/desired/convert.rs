//! From the document to the desired state. Everything wrong is told at once, each with its guest and key.

use std::collections::{BTreeMap, BTreeSet};

use pvegraph_inventory::{ClusterId, GuestType};
use serde_json::{Value, json};

use super::check::NO_NODES;
use super::{Desired, Guest, Problem, Section, default_uid};
use crate::canonical::{Canonical, Format, Kind, Managed, TagStyle, find, is_disk};
use crate::document::{self, Document};

/// The desired state that a document tells.
///
/// # Errors
/// All that is wrong with it.
pub fn from_document(document: &Document, cluster: &ClusterId) -> Result<Desired, Vec<Problem>> {
    let estate = &document.plugins.proxmox;
    let mut problems = Vec::new();
    let mut desired = Desired {
        cluster: cluster.clone(),
        node: estate.node.clone(),
        guests: BTreeMap::new(),
        sections: sections(estate),
    };
    let named = estate.cluster.as_ref().and_then(|section| section.name.as_deref());
    if let Some(name) = named.filter(|name| *name != cluster.as_str()) {
        problems.push(Problem::new(
            "the document",
            "cluster.name",
            format!(
                "it is about the cluster {name:?}, and was given for {cluster}: choose it with --cluster"
            ),
        ));
    }
    let lists = [(GuestType::Qemu, &estate.vms), (GuestType::Lxc, &estate.containers)];
    for (kind, entries) in lists {
        for (at, entry) in entries.iter().enumerate() {
            let Some(guest) = guest(kind, at, entry, &mut problems) else { continue };
            let label = guest.label();
            if let Some(other) = desired.guests.insert(guest.uid.clone(), guest) {
                let text = format!("{} has the same: give each guest its own", other.label());
                problems.push(Problem::new(label, "uid", text));
            }
        }
    }
    problems.extend(super::check(&desired));
    if problems.is_empty() { Ok(desired) } else { Err(problems) }
}

fn sections(estate: &document::Estate) -> BTreeMap<(Section, String), Value> {
    let mut all = BTreeMap::new();
    let mut put = |section, name: String, value: Value| {
        // Two of one name stay two.
        let mut unique = name.clone();
        let mut number = 2;
        while all.contains_key(&(section, unique.clone())) {
            unique = format!("{name}#{number}");
            number += 1;
        }
        all.insert((section, unique), value);
    };
    for (name, one) in &estate.templates {
        put(Section::Templates, name.clone(), json!(one));
    }
    for one in &estate.storage {
        put(Section::Storage, one.id.clone(), json!(one));
    }
    for one in &estate.network {
        let name =
            one.node.as_ref().map_or_else(|| one.iface.clone(), |node| format!("{node}/{}", one.iface));
        put(Section::Network, name, json!(one));
    }
    if let Some(one) = &estate.cluster {
        put(Section::Cluster, "cluster".to_owned(), json!(one));
    }
    for (at, one) in estate.backups.iter().enumerate() {
        let id = one.rest.get("id").and_then(Value::as_str);
        put(Section::Backups, id.map_or_else(|| format!("{:03}", at + 1), str::to_owned), json!(one));
    }
    for one in &estate.ha {
        put(Section::Ha, one.sid.clone(), json!(one));
    }
    all
}

fn guest(kind: GuestType, at: usize, entry: &document::Guest, problems: &mut Vec<Problem>) -> Option<Guest> {
    let list = match kind {
        GuestType::Qemu => "vms",
        GuestType::Lxc => "containers",
    };
    let Some(uid) = entry.uid.clone().or_else(|| Some(default_uid(kind, entry.vmid?))) else {
        let text = "it has neither `uid` nor `vmid`: give it a `uid`";
        problems.push(Problem::new(format!("{list}[{at}]"), "uid", text));
        return None;
    };
    let mut guest = Guest {
        vmid: entry.vmid,
        node: entry.node.clone(),
        nodes: entry.nodes.clone().unwrap_or_default(),
        prefer: entry.prefer.clone().unwrap_or_default(),
        state: entry.state,
        policy: entry.policy.unwrap_or_default(),
        protected: entry.protected.unwrap_or_default(),
        deletion: entry.deletion.unwrap_or_default(),
        reboot: entry.reboot.unwrap_or_default(),
        local_disks: entry.local_disks.unwrap_or_default(),
        shutdown: entry.shutdown.unwrap_or_default(),
        tombstone: entry.tombstone,
        template: entry.template,
        unset: entry.unset.clone(),
        cipassword: entry.cipassword.clone(),
        password: entry.password.clone(),
        depends_on: entry.depends_on.clone(),
        anti_affinity: entry.anti_affinity.clone(),
        clone_of: entry.clone.clone(),
        ostemplate: entry.ostemplate.clone(),
        comment: entry.comment.clone(),
        ..Guest::new(uid, kind)
    };
    for (key, nodes) in [("nodes", &entry.nodes), ("prefer", &entry.prefer)] {
        if nodes.as_ref().is_some_and(BTreeSet::is_empty) {
            problems.push(Problem::new(guest.label(), key, NO_NODES));
        }
    }
    if let Some(ha) = &entry.ha {
        guest.not_managed.insert("ha".to_owned(), json!(ha));
    }
    if let Some(word) = &entry.cpu_mitigations {
        guest.not_managed.insert("cpu_mitigations".to_owned(), json!(word));
    }
    let first = match kind {
        GuestType::Qemu => "scsi0",
        GuestType::Lxc => "rootfs",
    };
    let sugar = [("disk", first, &entry.disk), ("network", "net0", &entry.network)];
    for (key, slot, value) in sugar {
        let Some(value) = value else { continue };
        if entry.options.contains_key(slot) {
            let text = format!("it is the same as `{slot}`, which is given as well: keep one of them");
            problems.push(Problem::new(guest.label(), key, text));
            continue;
        }
        let whole = match value {
            // A machine's network interface that is new needs a model; one that exists keeps its own.
            Value::String(_) | Value::Object(_) => value,
            _ => {
                problems.push(Problem::new(
                    guest.label(),
                    key,
                    "expected an object such as {\"bridge\": \"vmbr0\"}",
                ));
                continue;
            }
        };
        enter(&mut guest, slot, whole, problems);
    }
    for (key, value) in &entry.options {
        enter(&mut guest, key, value, problems);
    }
    Some(guest)
}

fn enter(guest: &mut Guest, key: &str, value: &Value, problems: &mut Vec<Problem>) {
    match entered(guest.kind, key, value) {
        Ok(value) => {
            guest.fields.insert(key.to_owned(), value);
        }
        Err(text) => problems.push(Problem::new(guest.label(), key, text)),
    }
}

/// The canonical form of an option's value in the document.
///
/// # Errors
/// What is wrong with it and how to mend it. The value is not quoted: it may be a secret in the wrong place.
pub fn entered(guest: GuestType, key: &str, value: &Value) -> Result<Canonical, String> {
    let Some(option) = find(guest, key) else {
        return Err("Proxmox VE has no such option for this kind of guest: remove it".to_owned());
    };
    if let Managed::No(why) = option.managed {
        return Err(format!("it can't be desired, because {why}: remove it"));
    }
    if matches!(option.kind, Kind::Secret) {
        return Err("a secret never stands here: name its file, {\"file\": \"PATH\"}, or variable, {\"env\": \"NAME\"}".to_owned());
    }
    let disk = is_disk(guest, key);
    let read = match (value, option.kind.format()) {
        (Value::Null, _) => return Err("it has no value: remove it, or name it in `unset`".to_owned()),
        (Value::Object(object), Some(format)) => {
            let mut map = BTreeMap::new();
            for (name, value) in object {
                let (name, value) = suboption(format, disk, name, value)?;
                if map.insert(name.clone(), value).is_some() {
                    return Err(format!("`{name}` is given twice, under two names: keep one"));
                }
            }
            Canonical::Map(map)
        }
        (Value::Object(_), None) => return Err(format!("expected {}", option.kind.expected())),
        _ => option.kind.read(&text(option.kind, value)?, TagStyle::AS_WRITTEN),
    };
    understood(&read).map_err(|inner| match inner {
        Some(name) => {
            let kind = option.kind.format().and_then(|format| format.sub(&name)).map(|sub| sub.kind);
            format!("`{name}`: expected {}", kind.map_or("a text", Kind::expected))
        }
        None => format!("expected {}", option.kind.expected()),
    })?;
    if let (Canonical::Map(map), Some(format)) = (&read, option.kind.format())
        && let Some(name) =
            map.keys().find(|name| format.sub(name).is_none() && !(disk && *name == "storage"))
    {
        return Err(format!("there is no option `{name}`: remove it"));
    }
    match read {
        Canonical::Map(map) if disk => volume(map).map(Canonical::Map),
        read => Ok(read),
    }
}

fn suboption(format: &Format, disk: bool, name: &str, value: &Value) -> Result<(String, Canonical), String> {
    let sub = format.sub(name);
    if sub.is_none() && !(disk && name == "storage") {
        return Err(format!("there is no option `{name}`: remove it"));
    }
    let kind = sub.map_or(Kind::Text, |sub| sub.kind);
    let text = text(kind, value).map_err(|error| format!("`{name}`: {error}"))?;
    if text.contains([',', '\n']) {
        return Err(format!("`{name}`: its value holds a comma or a line feed, which ends it: remove that"));
    }
    Ok((sub.map_or(name, |sub| sub.name).to_owned(), kind.read(&text, TagStyle::AS_WRITTEN)))
}

/// A value of the document as the API spells it.
fn text(kind: Kind, value: &Value) -> Result<String, String> {
    let words = |by: &str, items: &[Value]| {
        let words: Option<Vec<String>> = items
            .iter()
            .map(|item| match item {
                Value::String(text) => Some(text.clone()),
                Value::Number(number) => Some(number.to_string()),
                _ => None,
            })
            .collect();
        words.map(|words| words.join(by)).ok_or_else(|| format!("expected {}", kind.expected()))
    };
    match (value, kind) {
        (Value::String(text), _) => Ok(text.clone()),
        (Value::Bool(yes), _) => Ok(if *yes { "1" } else { "0" }.to_owned()),
        (Value::Number(number), _) => Ok(number.to_string()),
        (Value::Array(items), Kind::SshKeys) => words("\n", items),
        (Value::Array(items), Kind::Tags) => words(";", items),
        (Value::Array(items), Kind::Hotplug) => words(",", items),
        (Value::Array(items), Kind::Set(by) | Kind::List(by)) => words(&by.to_string(), items),
        _ => Err(format!("expected {}", kind.expected())),
    }
}

/// Says whether a value is of its kind; the error names the option of a property string, if it is one of them that is not.
fn understood(value: &Canonical) -> Result<(), Option<String>> {
    match value {
        Canonical::Raw(_) => Err(None),
        Canonical::Map(map) => match map.iter().find(|(_, value)| matches!(value, Canonical::Raw(_))) {
            Some((name, _)) => Err(Some(name.clone())),
            None => Ok(()),
        },
        _ => Ok(()),
    }
}

/// A volume is desired by its storage and size. What would allocate a new disk each time it is written is refused.
fn volume(map: BTreeMap<String, Canonical>) -> Result<BTreeMap<String, Canonical>, String> {
    let Some(Canonical::Text(volume)) = map.get("volume") else { return Ok(map) };
    if map.contains_key("storage") {
        return Err(
            "`storage` and `volume` are both given: keep `storage` for a disk, `volume` for a CD-ROM"
                .to_owned(),
        );
    }
    if let Some((storage, name)) = volume.split_once(':')
        && !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
    {
        return Err(format!(
            "Proxmox VE takes this for a new disk each time: write {{\"storage\": {storage:?}, \"size\": \"{name}G\"}}"
        ));
    }
    Ok(map)
}
