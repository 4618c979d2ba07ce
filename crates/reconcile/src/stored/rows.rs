//! From a desired guest to rows of the label tables, and back. Rows may have been written by hand.

use std::collections::{BTreeMap, BTreeSet};

use pvegraph_graph::desired_labels::Row;
use pvegraph_inventory::GuestType;
use serde_json::{Map, Value, json};

use crate::canonical::{Canonical, is_disk, is_nic};
use crate::desired::{Guest, Problem, entered};
use crate::document::{CloneOf, Deletion, LocalDisks, Policy, Power, Reboot, SecretRef, Shutdown, Source};

const MIB: i64 = 1 << 20;

/// The rows of one guest: its own, its disks', its network interfaces'.
#[derive(Debug, Default)]
pub(super) struct GuestRows {
    pub(super) guest: Row,
    pub(super) disks: Vec<Row>,
    pub(super) nics: Vec<Row>,
}

/// The guest's option that is its name.
fn name_key(kind: GuestType) -> &'static str {
    match kind {
        GuestType::Qemu => "name",
        GuestType::Lxc => "hostname",
    }
}

/// The options of a disk or network interface that have a property of their own: the option's name, the property's.
const DISK_COLUMNS: [(&str, &str); 3] = [("storage", "storage"), ("size", "size"), ("volume", "volume")];
const NIC_COLUMNS: [(&str, &str); 6] = [
    ("bridge", "bridge"),
    ("model", "model"),
    ("macaddr", "mac_address"),
    ("hwaddr", "mac_address"),
    ("tag", "vlan_tag"),
    ("firewall", "firewall"),
];

pub(super) fn rows(guest: &Guest) -> GuestRows {
    let mut set = Map::new();
    let mut rows = GuestRows::default();
    let mut options = Vec::new();
    for (key, value) in &guest.fields {
        match value {
            Canonical::Map(map) if is_disk(guest.kind, key) => {
                rows.disks.push(device(&guest.uid, key, map, &DISK_COLUMNS));
            }
            Canonical::Map(map) if is_nic(guest.kind, key) => {
                rows.nics.push(device(&guest.uid, key, map, &NIC_COLUMNS));
            }
            value => match property(guest.kind, key, value) {
                Some((name, value)) => drop(set.insert(name.to_owned(), value)),
                None => options.push(format!("{key}={value}")),
            },
        }
    }
    let list = |words: &mut dyn Iterator<Item = &String>| json!(words.collect::<Vec<_>>());
    let nodes = |names: &BTreeSet<String>| if names.is_empty() { Value::Null } else { json!(names) };
    for (name, value) in [
        ("uid", json!(guest.uid)),
        ("type", json!(guest.kind.as_str())),
        ("vmid", json!(guest.vmid)),
        ("node", json!(guest.node)),
        ("nodes", nodes(&guest.nodes)),
        ("prefer", nodes(&guest.prefer)),
        ("state", json!(guest.state.map(Power::as_str))),
        ("policy", json!(guest.policy.as_str())),
        ("protected", json!(guest.protected)),
        ("deletion", json!(guest.deletion.as_str())),
        ("reboot", json!(guest.reboot.as_str())),
        ("local_disks", json!(guest.local_disks.as_str())),
        ("shutdown", json!(guest.shutdown.as_str())),
        ("tombstone", json!(guest.tombstone)),
        ("template", json!(guest.template)),
        ("unset", list(&mut guest.unset.iter())),
        ("options", list(&mut options.iter())),
        ("cipassword_ref", json!(guest.cipassword.as_ref().map(ToString::to_string))),
        ("password_ref", json!(guest.password.as_ref().map(ToString::to_string))),
        ("ostemplate", json!(guest.ostemplate)),
        ("clone_from", json!(guest.clone_of.as_ref().map(|clone| clone.from.to_string()))),
        ("clone_full", json!(guest.clone_of.as_ref().and_then(|clone| clone.full))),
        ("clone_storage", json!(guest.clone_of.as_ref().and_then(|clone| clone.storage.as_ref()))),
        ("clone_snapshot", json!(guest.clone_of.as_ref().and_then(|clone| clone.snapshot.as_ref()))),
        ("comment", json!(guest.comment)),
        (
            "not_managed",
            if guest.not_managed.is_empty() {
                Value::Null
            } else {
                json!(json!(guest.not_managed).to_string())
            },
        ),
    ] {
        set.insert(name.to_owned(), value);
    }
    rows.guest = Row(set);
    rows
}

/// The property of an option that has one of its own.
fn property(kind: GuestType, key: &str, value: &Canonical) -> Option<(&'static str, Value)> {
    let own = |map: &BTreeMap<String, Canonical>| match (map.len(), map.get("current")) {
        (1, Some(Canonical::Integer(mib))) => mib.checked_mul(MIB),
        _ => None,
    };
    Some(match (key, value) {
        (key, Canonical::Text(text)) if key == name_key(kind) => ("name", json!(text)),
        ("cores", Canonical::Integer(number)) => ("cores", json!(number)),
        ("sockets", Canonical::Integer(number)) => ("sockets", json!(number)),
        ("memory", Canonical::Integer(mib)) => ("memory", json!(mib.checked_mul(MIB)?)),
        ("memory", Canonical::Map(map)) => ("memory", json!(own(map)?)),
        ("onboot", Canonical::Bool(yes)) => ("onboot", json!(yes)),
        ("tags", Canonical::Set(tags, _)) => ("tags", json!(tags)),
        ("description", Canonical::Text(text)) => ("description", json!(text)),
        _ => return None,
    })
}

fn device(uid: &str, slot: &str, map: &BTreeMap<String, Canonical>, columns: &[(&str, &str)]) -> Row {
    let mut set = Map::from_iter([("uid".to_owned(), json!(uid)), ("slot".to_owned(), json!(slot))]);
    let mut options = Vec::new();
    for (sub, value) in map {
        let own = columns.iter().find(|(name, _)| name == sub).map(|(_, property)| *property);
        let value = match (own, value) {
            (Some(property), Canonical::Bytes(bytes)) => {
                i64::try_from(*bytes).ok().map(|bytes| (property, json!(bytes)))
            }
            (Some(property), Canonical::Integer(number)) => Some((property, json!(number))),
            (Some(property), Canonical::Bool(yes)) => Some((property, json!(yes))),
            (Some(property), value) => Some((property, json!(value.to_string()))),
            (None, _) => None,
        }
        .ok_or_else(|| format!("{sub}={value}"));
        match value {
            Ok((property, value)) => drop(set.insert(property.to_owned(), value)),
            Err(option) => options.push(option),
        }
    }
    set.insert("options".to_owned(), json!(options));
    Row(set)
}

/// The properties of a row that was read.
pub(super) type Properties = Map<String, Value>;

fn text(row: &Properties, name: &str) -> Option<String> {
    row.get(name).and_then(Value::as_str).map(str::to_owned)
}

fn texts<C: FromIterator<String>>(row: &Properties, name: &str) -> C {
    let list = row.get(name).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn flag(row: &Properties, name: &str) -> bool {
    row.get(name).and_then(Value::as_bool).unwrap_or_default()
}

/// The guest of a row of `DesiredVM`, without its devices.
pub(super) fn guest(row: &Properties, problems: &mut Vec<Problem>) -> Option<Guest> {
    let Some(uid) = text(row, "uid") else {
        problems.push(Problem::new("a DesiredVM", "uid", "it has none: SET v.uid = '…', or delete the node"));
        return None;
    };
    let kind = match row.get("type").and_then(Value::as_str) {
        Some("qemu") => GuestType::Qemu,
        Some("lxc") => GuestType::Lxc,
        _ => {
            problems.push(Problem::new(uid, "type", "write 'qemu' or 'lxc'"));
            return None;
        }
    };
    let mut guest = Guest::new(uid, kind);
    guest.vmid = row.get("vmid").and_then(Value::as_i64);
    guest.node = text(row, "node");
    guest.nodes = texts(row, "nodes");
    guest.prefer = texts(row, "prefer");
    guest.protected = flag(row, "protected");
    guest.tombstone = flag(row, "tombstone");
    guest.template = flag(row, "template");
    guest.unset = texts(row, "unset");
    guest.depends_on = texts(row, "depends_on");
    guest.anti_affinity = texts(row, "anti_affinity");
    guest.ostemplate = text(row, "ostemplate");
    guest.comment = text(row, "comment");
    // By hand the relationship alone may say it.
    let source = row.get("cloned_from").and_then(|list| list.get(0)).and_then(Value::as_i64);
    let from = text(row, "clone_from").map(|from| Source::of(&from)).or(source.map(Source::Number));
    guest.clone_of = from.map(|from| CloneOf {
        from,
        full: row.get("clone_full").and_then(Value::as_bool),
        storage: text(row, "clone_storage"),
        snapshot: text(row, "clone_snapshot"),
    });
    let label = guest.label();
    let mut tell = |field: &str, text: &str| problems.push(Problem::new(&*label, field, text));
    match text(row, "state").as_deref() {
        None => {}
        Some("running") => guest.state = Some(Power::Running),
        Some("stopped") => guest.state = Some(Power::Stopped),
        Some(_) => tell("state", "write 'running' or 'stopped'"),
    }
    // A word that is not understood must not become the default: 'obsreve' is no leave to change the guest.
    match text(row, "policy").map(|word| Policy::of(&word)) {
        Some(Some(policy)) => guest.policy = policy,
        Some(None) => tell("policy", "write 'manage' or 'observe'"),
        None => {}
    }
    match text(row, "deletion").map(|word| Deletion::of(&word)) {
        Some(Some(deletion)) => guest.deletion = deletion,
        Some(None) => tell("deletion", "write 'forbid' or 'destroy'"),
        None => {}
    }
    match text(row, "reboot").map(|word| Reboot::of(&word)) {
        Some(Some(reboot)) => guest.reboot = reboot,
        Some(None) => tell("reboot", "write 'never' or 'allow'"),
        None => {}
    }
    match text(row, "local_disks").map(|word| LocalDisks::of(&word)) {
        Some(Some(local_disks)) => guest.local_disks = local_disks,
        Some(None) => tell("local_disks", "write 'stay' or 'migrate'"),
        None => {}
    }
    match text(row, "shutdown").map(|word| Shutdown::of(&word)) {
        Some(Some(shutdown)) => guest.shutdown = shutdown,
        Some(None) => tell("shutdown", "write 'graceful' or 'force'"),
        None => {}
    }
    for (name, place) in [("cipassword_ref", &mut guest.cipassword), ("password_ref", &mut guest.password)] {
        let Some(word) = text(row, name) else { continue };
        *place = SecretRef::of(&word);
        if place.is_none() {
            tell(name, "write 'file:PATH' or 'env:NAME', never the password itself");
        }
    }
    if let Some(json) = text(row, "not_managed") {
        match serde_json::from_str(&json) {
            Ok(map) => guest.not_managed = map,
            Err(_) => tell("not_managed", "it is no JSON object: import the document again"),
        }
    }
    let mut options: Vec<(String, Value)> = Vec::new();
    for (property, key) in [
        ("name", name_key(kind)),
        ("cores", "cores"),
        ("sockets", "sockets"),
        ("onboot", "onboot"),
        ("tags", "tags"),
        ("description", "description"),
    ] {
        if let Some(value) = row.get(property).filter(|value| !value.is_null()) {
            options.push((key.to_owned(), value.clone()));
        }
    }
    match row.get("memory") {
        None | Some(Value::Null) => {}
        Some(value) => match value.as_i64().filter(|bytes| bytes % MIB == 0) {
            Some(bytes) => options.push(("memory".to_owned(), json!(bytes / MIB))),
            None => {
                tell("memory", "it is not a whole number of MiB: write bytes, such as 2048 * 1024 * 1024")
            }
        },
    }
    for option in texts::<Vec<_>>(row, "options") {
        match option.split_once('=') {
            Some((key, value)) => options.push((key.to_owned(), json!(value))),
            None => tell("options", "an entry has no `=`: write each as 'option=value'"),
        }
    }
    enter(&mut guest, options, problems);
    Some(guest)
}

fn enter(guest: &mut Guest, options: Vec<(String, Value)>, problems: &mut Vec<Problem>) {
    for (key, value) in options {
        match entered(guest.kind, &key, &value) {
            Ok(value) => {
                if guest.fields.insert(key.clone(), value).is_some() {
                    problems.push(Problem::new(guest.label(), key, "it is there twice: keep one of the two"));
                }
            }
            Err(text) => problems.push(Problem::new(guest.label(), key, text)),
        }
    }
}

/// Enters a row of `DesiredDisk` or `DesiredNetworkInterface`.
pub(super) fn enter_device(guest: &mut Guest, row: &Properties, disk: bool, problems: &mut Vec<Problem>) {
    let Some(slot) = text(row, "slot") else {
        problems.push(Problem::new(
            guest.label(),
            "slot",
            "a disk or network interface has none: SET d.slot = 'scsi0'",
        ));
        return;
    };
    let fits = if disk { is_disk(guest.kind, &slot) } else { is_nic(guest.kind, &slot) };
    if !fits {
        let what = if disk { "disk" } else { "network interface" };
        problems.push(Problem::new(
            guest.label(),
            &*slot,
            format!("it is no {what} of this kind of guest: rename its `slot`"),
        ));
        return;
    }
    let columns: &[(&str, &str)] = if disk { &DISK_COLUMNS } else { &NIC_COLUMNS };
    let other_mac = match guest.kind {
        GuestType::Qemu => "hwaddr",
        GuestType::Lxc => "macaddr",
    };
    let mut object = Map::new();
    for (sub, property) in columns.iter().filter(|(sub, _)| *sub != other_mac) {
        if let Some(value) = row.get(*property).filter(|value| !value.is_null()) {
            object.insert((*sub).to_owned(), value.clone());
        }
    }
    for option in texts::<Vec<_>>(row, "options") {
        if let Some((sub, value)) = option.split_once('=') {
            object.insert(sub.to_owned(), json!(value));
        }
    }
    enter(guest, vec![(slot, Value::Object(object))], problems);
}
