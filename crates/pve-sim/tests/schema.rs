//! Every answer keeps to PVE's own schema, less the errors that genuine answers prove the schema to have.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use pve_sim::{Contract, Principal, World, WorldSpec};
use serde_json::Value;
use support::schema::schema as read_schema;
use support::{genuine_reads, recordings};

/// The schema's own errors, a line each.
fn listed_errors() -> BTreeSet<String> {
    let text = include_str!("schema-errors.txt");
    text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect()
}

/// Concrete paths of every template, over the nodes, guests, storages, pools and jobs of a world.
fn all_paths(world: &World) -> Vec<(&'static str, String)> {
    let mut paths = Vec::new();
    world.read(|state| {
        for template in pve_sim::templates() {
            let kind =
                if template.contains("/lxc/") { pve_sim::GuestKind::Lxc } else { pve_sim::GuestKind::Qemu };
            let mut open = vec![template.to_owned()];
            let mut fill = |name: &str, values: Vec<String>| {
                if template.contains(name) {
                    open = open
                        .iter()
                        .flat_map(|path| values.iter().map(|value| path.replace(name, value)))
                        .collect();
                }
            };
            if template.contains("{vmid}") {
                let guests = state.guests.values().filter(|guest| guest.kind == kind);
                let pairs: Vec<(String, String)> =
                    guests.map(|guest| (guest.node.to_string(), guest.vmid.to_string())).collect();
                let fill = |(node, vmid): &(String, String)| {
                    template.replace("{node}", node).replace("{vmid}", vmid)
                };
                open = pairs.iter().map(fill).collect();
            } else {
                fill("{node}", state.nodes.keys().cloned().collect());
            }
            let mut fill = |name: &str, values: Vec<String>| {
                if template.contains(name) {
                    open = open
                        .iter()
                        .flat_map(|path| values.iter().map(|value| path.replace(name, value)))
                        .collect();
                }
            };
            fill("{storage}", state.storages.keys().cloned().collect());
            fill("{poolid}", state.pools.keys().cloned().collect());
            if template.starts_with("/cluster/backup/") {
                fill("{id}", state.jobs.keys().cloned().collect());
            }
            fill("{userid}", state.access.users.keys().cloned().collect());
            fill("{roleid}", state.access.roles.keys().cloned().collect());
            // What no world has by itself (tasks, rules, aliases, …) has tests of its own.
            open.retain(|path| !path.contains('{'));
            // A backup's configuration takes a backup, a prune its options; no node has Ceph, a spare disk, a backup server,
            // a way to the Internet, or a VNC server.
            const REFUSED: [&str; 7] = [
                "/extractconfig",
                "/ceph/",
                "/prunebackups",
                "/disks/smart",
                "/file-restore/",
                "/query-url-metadata",
                "/vncwebsocket",
            ];
            if REFUSED.iter().any(|part| template.contains(part)) {
                continue;
            }
            for path in &mut open {
                path.push_str(match template.rsplit('/').next().unwrap() {
                    "schedule-analyze" => "?schedule=daily",
                    "rrddata" => "?timeframe=hour",
                    "rrd" => "?timeframe=hour&ds=cpu",
                    "lvmthin" if template.contains("/scan/") => "?vg=pve",
                    "feature" => "?feature=snapshot",
                    "dump" => "?type=user",
                    "exec-status" => "?pid=1",
                    "file-read" => "?file=/x",
                    "changelog" => "?name=pve-manager",
                    _ => "",
                });
            }
            paths.extend(open.into_iter().map(|path| (template, path)));
        }
    });
    paths.extend([
        ("/nodes/{node}/qemu", "/nodes/pve1/qemu?full=1".to_owned()),
        ("/nodes/{node}/storage", "/nodes/pve1/storage?enabled=1".to_owned()),
        ("/pools", "/pools?poolid=prod".to_owned()),
        ("/access/users", "/access/users?full=1".to_owned()),
        ("/cluster/resources", "/cluster/resources?type=vm".to_owned()),
        ("/cluster/nextid", "/cluster/nextid?vmid=77777".to_owned()),
    ]);
    paths
}

/// Worlds that together show every sort of answer: ordinary, demonstration, standalone, with an offline node.
fn worlds() -> Vec<(&'static str, World)> {
    let rig = World::generate(&WorldSpec::new("rig", 3, 90, 11));
    let first = rig.read(|state| *state.guests.keys().next().unwrap());
    rig.add_snapshot(first, "before", "before the change").unwrap();
    rig.add_snapshot(first, "after", "").unwrap();
    let lost = World::generate(&WorldSpec::new("lost", 3, 40, 12));
    lost.set_node_online("pve3", false).unwrap();
    lost.forget_offline("pve3").unwrap();
    vec![
        ("rig", rig),
        ("lost", lost),
        ("demo", World::generate(&WorldSpec::demo())),
        ("standalone", World::generate(&WorldSpec::standalone(20, 13))),
    ]
}

/// Problems of genuine answers as lines of the list, with the paths of the answers that have any.
fn genuine_problems(schema: &Contract, reads: &[support::Recorded]) -> (BTreeSet<String>, usize, usize) {
    let (mut lines, mut checked, mut disagreeing) = (BTreeSet::new(), 0, 0);
    for read in reads {
        let Some(template) = schema.template(&read.path) else { continue };
        let problems = schema.problems(&read.method, template, &read.json["data"]);
        checked += 1;
        disagreeing += usize::from(!problems.is_empty());
        lines.extend(problems.into_iter().map(|problem| Contract::line(&read.method, template, &problem)));
    }
    (lines, checked, disagreeing)
}

#[test]
fn answers_keep_to_the_schema() {
    let Some(folder) = recordings("answers_keep_to_the_schema") else { return };
    let schema = read_schema(&folder);
    let listed = listed_errors();
    let (mut unlisted, mut answers) = (BTreeMap::<String, String>::new(), 0);
    for (name, world) in worlds() {
        for principal in ["root@pam", "audit@pve!sim", "pool@pve!sim"] {
            let principal = Principal::parse(principal);
            for (template, path) in all_paths(&world) {
                let answer = world.get_as(&principal, &path);
                if !answer.is_ok() {
                    let expected = answer.status == 403 && principal.user() != "root@pam"
                        || answer.status == 595 && name == "lost"
                        || answer.status == 500 && name == "standalone" && path == "/cluster/config/join"
                        || answer.status == 500 && (path.contains("/agent/") || path.contains("/content"));
                    assert!(expected, "{name}: {path}: {answer:?}");
                    continue;
                }
                answers += 1;
                for problem in schema.problems("GET", template, &answer.body.to_json()["data"]) {
                    let line = format!("{template} {problem}");
                    if !listed.contains(&line) {
                        unlisted.insert(line, path.clone());
                    }
                }
            }
        }
    }
    println!("{answers} answers checked");
    assert!(unlisted.is_empty(), "{unlisted:#?}");
}

#[test]
fn every_listed_error_of_the_schema_is_contradicted_by_a_genuine_answer() {
    let test = "every_listed_error_of_the_schema_is_contradicted_by_a_genuine_answer";
    let Some(folder) = recordings(test) else { return };
    let schema = read_schema(&folder);
    let mut answers = genuine_reads(&folder);
    let mut writes = support::single_recordings(&folder);
    writes.retain(|write| write.method != "GET" && write.status == 200 && !write.json.is_null());
    answers.extend(writes);
    let (genuine, ..) = genuine_problems(&schema, &answers);
    let unproven: Vec<String> = listed_errors().difference(&genuine).cloned().collect();
    assert!(unproven.is_empty(), "no genuine answer contradicts the schema there: {unproven:#?}");
}

#[test]
fn the_checker_finds_what_genuine_answers_and_schema_disagree_about() {
    let test = "the_checker_finds_what_genuine_answers_and_schema_disagree_about";
    let Some(folder) = recordings(test) else { return };
    let schema = read_schema(&folder);
    let mut reads = support::estate(&folder, "root.jsonl");
    reads.retain(|read| read.status == 200);
    let (lines, checked, disagreeing) = genuine_problems(&schema, &reads);
    println!("{disagreeing} of {checked} genuine answers disagree with the schema");
    for line in &lines {
        println!("  {line}");
    }
    assert_eq!(checked, reads.len());
    // The number that the recordings are known to have: a change of the checker shows here.
    assert_eq!(disagreeing, 32);
}

/// The table that requests are checked by is what `compact.py` makes of this schema: the same paths, methods, parameters
/// and privileges.
#[test]
fn the_table_of_parameters_is_the_schemas() {
    let Some(folder) = recordings("the_table_of_parameters_is_the_schemas") else { return };
    let text = std::fs::read_to_string(folder.join("api-schema-8.4.json")).unwrap();
    let schema: Value = serde_json::from_str(&text).unwrap();
    let table: Value = serde_json::from_str(include_str!("../src/schema/params.json")).unwrap();
    let keys = |value: &Value| -> BTreeSet<String> {
        value.as_object().into_iter().flatten().map(|(key, _)| key.clone()).collect()
    };
    let paths: BTreeSet<String> = keys(&schema["paths"]);
    assert_eq!(keys(&table["paths"]), paths);
    for path in paths {
        let methods: BTreeSet<String> = keys(&schema["paths"][&path]);
        assert_eq!(keys(&table["paths"][&path]), methods, "{path}");
        for method in methods {
            let (have, want) = (&table["paths"][&path][&method], &schema["paths"][&path][&method]);
            let declared = &want["parameters"]["properties"];
            let names: BTreeSet<String> = keys(&have["p"]);
            assert_eq!(names, keys(declared), "{method} {path}");
            assert_eq!(have["check"], want["permissions"]["check"], "{method} {path}");
            for name in names {
                let kind = &table["types"][usize::try_from(have["p"][&name].as_u64().unwrap()).unwrap()];
                for key in ["type", "optional", "enum", "minimum", "maximum", "pattern", "maxLength"] {
                    assert_eq!(kind[key], declared[&name][key], "{method} {path} {name} {key}");
                }
            }
        }
    }
}

/// Every other test of the simulator is a test of this as well: the environment names the schema, so an answer that breaks it
/// ends the test that asked.
#[test]
fn the_environment_has_every_answer_checked() {
    if recordings("the_environment_has_every_answer_checked").is_none() {
        return;
    }
    assert!(std::env::var_os(pve_sim::SCHEMA_VARIABLE).is_some(), "cargo sets it, see .cargo/config.toml");
    let world = World::generate(&WorldSpec::new("rig", 1, 1, 1));
    let before = pve_sim::checked_answers();
    assert!(world.get("/version").is_ok());
    assert!(pve_sim::checked_answers() > before);
    // What breaks the schema does not come out.
    let sid = world.update(|state| {
        let guest = state.guests.values_mut().next().unwrap();
        guest.ha = Some("started".into());
        let kind = if guest.kind == pve_sim::GuestKind::Qemu { "vm" } else { "ct" };
        let sid = format!("{kind}:{}", guest.vmid);
        let odd = [("max_restart".to_owned(), Value::from("two"))].into_iter().collect();
        state.ha_settings.insert(sid.clone(), odd);
        sid
    });
    let read = || world.get(&format!("/cluster/ha/resources/{sid}"));
    let broken = std::panic::catch_unwind(std::panic::AssertUnwindSafe(read));
    assert!(broken.is_err(), "{broken:?}");
    // Unless a test puts in on purpose what no PVE would send.
    world.update(|state| state.odd = true);
    assert!(read().is_ok());
}
