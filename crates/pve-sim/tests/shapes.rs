//! Simulated rows look like genuine ones: no key that PVE does not send, the same JSON types, and no key missing that
//! every genuine row of the sort has.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use pve_sim::{Contract, World, WorldSpec};
use serde_json::Value;
use support::schema::schema as read_schema;
use support::{genuine_reads, recordings};

/// A place in a row and its JSON type. Keys that name things rather than fields are `*`.
fn places(value: &Value, place: &str, found: &mut BTreeSet<(String, &'static str)>) {
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "true/false",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    found.insert((place.to_owned(), kind));
    match value {
        Value::Object(object) => {
            let named = matches!(place, "blockstat" | "nics" | "/");
            for (key, value) in object {
                let key = if named && place != "/" { "*" } else { key };
                let below = if place == "/" { key.to_owned() } else { format!("{place}.{key}") };
                places(value, &below, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| places(item, &format!("{place}[]"), found)),
        _ => {}
    }
}

/// The rows of an answer: its elements, or itself where it is an object.
fn rows(data: &Value) -> Vec<&Value> {
    match data {
        Value::Array(rows) => rows.iter().collect(),
        other => vec![other],
    }
}

/// Rows of one sort have the same keys: what kind of thing it is, whether it runs, whether QEMU was asked.
fn sort(template: &str, row: &Value) -> String {
    let text = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
    let full = row.get("qmpstatus").is_some();
    let current = row["name"] == "current";
    format!(
        "{template} type={} status={} full={full} current={current} {}",
        text("type"),
        text("status"),
        text("method")
    )
}

#[derive(Default)]
struct Seen {
    any: BTreeMap<String, BTreeSet<&'static str>>,
    always: BTreeMap<String, BTreeSet<String>>,
}

fn observe(reads: &[(String, Value)], schema: &Contract) -> Seen {
    let mut seen = Seen::default();
    for (path, json) in reads {
        let Some(template) = schema.template(path) else { continue };
        for row in rows(&json["data"]) {
            let mut found = BTreeSet::new();
            places(row, "/", &mut found);
            for (place, kind) in &found {
                seen.any.entry(format!("{template} {place}")).or_default().insert(kind);
            }
            let keys: BTreeSet<String> =
                row.as_object().into_iter().flat_map(|row| row.keys().cloned()).collect();
            let always = seen.always.entry(sort(template, row)).or_insert_with(|| keys.clone());
            *always = always.intersection(&keys).cloned().collect();
        }
    }
    seen
}

/// Storage definitions have the keys of their type and configurations their owner's: neither has a sort.
fn is_free_form(template: &str) -> bool {
    template.starts_with("/storage") || template.ends_with("/config") || template.ends_with("/permissions")
}

#[test]
fn simulated_rows_look_like_genuine_ones() {
    let Some(folder) = recordings("simulated_rows_look_like_genuine_ones") else { return };
    let schema = read_schema(&folder);
    let reads: Vec<(String, Value)> =
        genuine_reads(&folder).into_iter().map(|read| (read.path, read.json)).collect();
    let genuine = observe(&reads, &schema);
    let mut root = support::estate(&folder, "root.jsonl");
    root.retain(|read| read.status == 200);
    let healthy = observe(&root.into_iter().map(|read| (read.path, read.json)).collect::<Vec<_>>(), &schema);

    let world = World::generate(&WorldSpec::new("rig", 3, 120, 21));
    let vmid = |kind| {
        world.read(|state| {
            let all = state.guests.values().filter(|guest| guest.kind == kind);
            all.map(|guest| (guest.node.to_string(), guest.vmid)).collect::<Vec<_>>()
        })
    };
    let mut paths: Vec<String> =
        ["/version", "/cluster/status", "/cluster/resources", "/cluster/ha/resources"]
            .into_iter()
            .chain(["/cluster/backup", "/cluster/backup/nightly", "/cluster/backup/nightly/included_volumes"])
            .chain([
                "/cluster/backup-info/not-backed-up",
                "/cluster/options",
                "/nodes",
                "/nodes/pve1",
                "/nodes/pve1/qemu",
            ])
            .chain([
                "/nodes/pve1/qemu?full=1",
                "/nodes/pve1/lxc",
                "/nodes/pve1/status",
                "/nodes/pve1/time",
                "/storage",
            ])
            .chain([
                "/nodes/pve1/version",
                "/nodes/pve1/network",
                "/nodes/pve1/storage",
                "/nodes/pve1/certificates/info",
            ])
            .chain([
                "/nodes/pve1/storage/local/status",
                "/nodes/pve1/storage/nfs-vm/content",
                "/nodes/pve1/subscription",
            ])
            .chain([
                "/pools",
                "/pools/prod",
                "/pools?poolid=prod",
                "/access/users",
                "/access/roles",
                "/access/acl",
            ])
            .map(str::to_owned)
            .collect();
    for (kind, name) in [(pve_sim::GuestKind::Qemu, "qemu"), (pve_sim::GuestKind::Lxc, "lxc")] {
        for (node, vmid) in vmid(kind) {
            for what in ["config", "config?current=1", "status/current", "snapshot", "pending"] {
                paths.push(format!("/nodes/{node}/{name}/{vmid}/{what}"));
            }
        }
    }
    let (mut strange, mut missing, mut rows_seen) = (BTreeSet::new(), BTreeSet::new(), 0);
    for path in paths {
        let answer = world.get(&path);
        assert!(answer.is_ok(), "{path}: {answer:?}");
        let template = schema.template(&path).unwrap();
        let json = answer.body.to_json();
        for row in rows(&json["data"]) {
            rows_seen += 1;
            let mut found = BTreeSet::new();
            places(row, "/", &mut found);
            for (place, kind) in found {
                let key = format!("{template} {place}");
                let known = genuine.any.get(&key).is_some_and(|kinds| kinds.contains(kind));
                let top = place.split(['.', '[']).next().unwrap();
                let declared = schema.knows_key(template, top)
                    || template == "/storage"
                    || template == "/storage/{storage}";
                if !known && !declared && !UNRECORDED.contains(&key.as_str()) {
                    strange.insert(format!("{key} {kind}"));
                }
            }
            if is_free_form(template) {
                continue;
            }
            let keys: BTreeSet<String> =
                row.as_object().into_iter().flat_map(|row| row.keys().cloned()).collect();
            for key in healthy
                .always
                .get(&sort(template, row))
                .into_iter()
                .flat_map(|always| always.difference(&keys))
            {
                missing.insert(format!("{} {key}", sort(template, row)));
            }
        }
    }
    println!("{rows_seen} simulated rows compared");
    assert!(strange.is_empty(), "PVE sends no such key or type: {strange:#?}");
    missing.retain(|line| {
        !MAY_BE_MISSING.iter().any(|(start, end)| line.starts_with(start) && line.ends_with(end))
    });
    assert!(missing.is_empty(), "every genuine row has these: {missing:#?}");
}

/// What PVE sends and no recording has: the estate's containers have no snapshots, and `parent` names the last one, as it does for
/// a machine.
const UNRECORDED: &[&str] =
    &["/nodes/{node}/lxc/{vmid}/config /parent", "/nodes/{node}/lxc/{vmid}/config parent"];

/// Keys that the few genuine rows have by chance of their configuration: start and end of the line.
const MAY_BE_MISSING: &[(&str, &str)] = &[
    ("/", " tags"),
    ("/pools ", " comment"),
    ("/cluster/ha/resources ", " comment"),
    ("/cluster/ha/resources ", " max_relocate"),
    ("/cluster/options ", " description"),
    ("/cluster/options ", " tag-style"),
    // There once a server runs.
    ("/nodes/{node}/certificates/info ", " pem"),
];
