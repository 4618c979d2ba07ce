//! Every recorded genuine answer of an endpoint that has a type is read without an oddity and written back equal.
//!
//! "Equal" is after sorting lists, whose order PVE shuffles; a key whose value is `null` counts as absent. Keys that the
//! types do not read are listed in `ignored-keys.txt`, and that list is checked both ways.

#![allow(clippy::unwrap_used, reason = "a recording that is no recording ends the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use pve_client::answers::*;
use pve_client::wire::{self, Oddity, Wire};
use pve_client::{Tags, Upid};
use serde_json::Value;

/// What reading and writing an answer gave.
struct Checked {
    written: Value,
    oddities: Vec<Oddity>,
    unread: BTreeSet<String>,
}

type Check = fn(&str, &Value) -> Result<Checked, Oddity>;

fn check<T: Wire>(subject: &str, data: &Value) -> Result<Checked, Oddity> {
    let read = wire::read::<T>(subject, data)?;
    let unread = wire::unread::<T>(subject, data)?;
    Ok(Checked { written: read.value.write(), oddities: read.oddities, unread })
}

const ENDPOINTS: [(&str, Check); 35] = [
    ("/version", check::<Version>),
    ("/cluster/status", check::<Vec<ClusterStatusRow>>),
    ("/cluster/resources", check::<Vec<Resource>>),
    ("/nodes", check::<Vec<NodeRow>>),
    ("/nodes/{node}/status", check::<NodeStatus>),
    ("/nodes/{node}/time", check::<NodeTime>),
    ("/nodes/{node}/version", check::<NodeVersion>),
    ("/nodes/{node}/certificates/info", check::<Vec<Certificate>>),
    ("/nodes/{node}/qemu", check::<Vec<QemuRow>>),
    ("/nodes/{node}/qemu/{vmid}/config", check::<QemuConfig>),
    ("/nodes/{node}/qemu/{vmid}/status/current", check::<QemuStatus>),
    ("/nodes/{node}/qemu/{vmid}/pending", check::<Vec<PendingEntry>>),
    ("/nodes/{node}/qemu/{vmid}/snapshot", check::<Vec<Snapshot>>),
    ("/nodes/{node}/qemu/{vmid}/snapshot/{name}/config", check::<QemuConfig>),
    ("/nodes/{node}/lxc", check::<Vec<LxcRow>>),
    ("/nodes/{node}/lxc/{vmid}/config", check::<LxcConfig>),
    ("/nodes/{node}/lxc/{vmid}/status/current", check::<LxcStatus>),
    ("/nodes/{node}/lxc/{vmid}/pending", check::<Vec<PendingEntry>>),
    ("/nodes/{node}/lxc/{vmid}/snapshot", check::<Vec<Snapshot>>),
    ("/nodes/{node}/lxc/{vmid}/snapshot/{name}/config", check::<LxcConfig>),
    ("/nodes/{node}/storage", check::<Vec<NodeStorage>>),
    ("/nodes/{node}/storage/{storage}/status", check::<NodeStorage>),
    ("/nodes/{node}/storage/{storage}/content", check::<Vec<VolumeRow>>),
    ("/nodes/{node}/tasks", check::<Vec<TaskRow>>),
    ("/nodes/{node}/tasks/{upid}/status", check::<TaskStatus>),
    ("/storage", check::<Vec<StorageDefinition>>),
    ("/storage/{storage}", check::<StorageDefinition>),
    ("/access/permissions", check::<Permissions>),
    ("/cluster/backup", check::<Vec<BackupJob>>),
    ("/cluster/backup/{id}", check::<BackupJob>),
    ("/cluster/backup/{id}/included_volumes", check::<IncludedVolumes>),
    ("/cluster/backup-info/not-backed-up", check::<Vec<NotBackedUp>>),
    ("/pools", check::<Vec<PoolRow>>),
    ("/pools/{poolid}", check::<PoolDetail>),
    ("/cluster/tasks", check::<Vec<TaskRow>>),
];

fn endpoint(path: &str) -> Option<&'static (&'static str, Check)> {
    let path = path.split('?').next().unwrap_or(path).trim_end_matches('/');
    ENDPOINTS.iter().find(|(pattern, _)| {
        let (pattern, path) = (pattern.split('/').collect::<Vec<_>>(), path.split('/').collect::<Vec<_>>());
        pattern.len() == path.len()
            && pattern.iter().zip(&path).all(|(want, have)| want.starts_with('{') || want == have)
    })
}

/// A successful GET with its answer.
struct Recording {
    source: String,
    path: String,
    data: Value,
}

fn recordings_in(file: &Path) -> Vec<Recording> {
    let text = std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line: Value = serde_json::from_str(line).unwrap();
        let get = line.get("method").and_then(Value::as_str).unwrap_or("GET") == "GET";
        let path = line["path"].as_str().unwrap();
        // The estates' paths begin below the prefix. Other formats, such as /api2/extjs, are not ours.
        let path = path.strip_prefix("/api2/json").unwrap_or(path);
        let body = &line["json"];
        if get && line["status"] == 200 && body.is_object() && !path.starts_with("/api2/") {
            found.push(Recording {
                source: format!("{name}:{}", number + 1),
                path: path.to_owned(),
                data: body["data"].clone(),
            });
        }
    }
    found
}

/// Where the recordings are, or `None` with a word to the user; in CI they must be there.
fn recordings(test: &str) -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/pve");
    let folder = std::env::var_os("PVEGRAPH_RECORDINGS").map_or(beside, PathBuf::from);
    if folder.is_dir() {
        return Some(folder);
    }
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{test}: {} is absent", folder.display());
    println!("not run: {test}: {} is absent", folder.display());
    None
}

/// Sorts lists and drops nulls, so that equal answers are equal.
fn canonical(value: &Value) -> Value {
    match value {
        Value::Array(items) => {
            let mut items: Vec<Value> = items.iter().map(canonical).collect();
            items.sort_by_key(Value::to_string);
            Value::Array(items)
        }
        Value::Object(object) => Value::Object(
            object
                .iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(key, value)| (key.clone(), canonical(value)))
                .collect(),
        ),
        other => other.clone(),
    }
}

/// Removes the keys that a pattern such as `[].blockstat` names.
fn without(value: &mut Value, pattern: &[&str]) {
    match (pattern, value) {
        (["[]", rest @ ..], Value::Array(items)) => items.iter_mut().for_each(|item| without(item, rest)),
        (["{}", rest @ ..], Value::Object(object)) => {
            object.values_mut().for_each(|item| without(item, rest))
        }
        ([key], Value::Object(object)) => {
            object.remove(*key);
        }
        ([key, rest @ ..], Value::Object(object)) => {
            if let Some(inner) = object.get_mut(*key) {
                without(inner, rest);
            }
        }
        _ => {}
    }
}

/// Pending rows of keys that are never kept.
fn mask_secrets(value: &mut Value) {
    for row in value.as_array_mut().into_iter().flatten() {
        let secret = matches!(row["key"].as_str(), Some("sshkeys" | "cipassword"));
        for key in ["value", "pending"] {
            if secret && row.get(key).is_some() {
                row[key] = Value::from(SECRET_MASK);
            }
        }
    }
}

/// What checking many recordings gave.
#[derive(Default)]
struct Outcome {
    /// The number of answers with a type, by endpoint.
    covered: BTreeMap<&'static str, usize>,
    /// The keys that were not read.
    ignored: BTreeSet<String>,
    /// Oddities, and answers that did not come back equal.
    problems: Vec<String>,
}

fn check_all(recordings: &[Recording]) -> Outcome {
    let Outcome { mut covered, mut ignored, mut problems } = Outcome::default();
    for Recording { source, path, data } in recordings {
        let Some((pattern, check)) = endpoint(path) else { continue };
        *covered.entry(*pattern).or_default() += 1;
        match check(path, data) {
            Err(oddity) => problems.push(format!("{source}: {oddity}")),
            Ok(Checked { written, oddities, unread }) => {
                problems.extend(oddities.iter().map(|oddity| format!("{source}: {oddity}")));
                let mut expected = data.clone();
                if pattern.ends_with("/pending") {
                    mask_secrets(&mut expected);
                }
                for key in &unread {
                    without(&mut expected, &key.split('.').collect::<Vec<_>>());
                    ignored.insert(format!("{pattern} {key}"));
                }
                let (expected, written) = (canonical(&expected), canonical(&written));
                if expected != written {
                    problems.push(format!("{source}: {path}\n  recorded {expected}\n  written  {written}"));
                }
            }
        }
    }
    Outcome { covered, ignored, problems }
}

fn ignored_keys() -> BTreeSet<String> {
    let list = include_str!("ignored-keys.txt");
    list.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect()
}

const ESTATES: [&str; 3] =
    ["estate-8.4/root.jsonl", "estate-8.4/auditor.jsonl", "estate-8.4/pool-limited.jsonl"];

#[test]
fn recorded_answers_come_back_equal() {
    let Some(folder) = recordings("recorded_answers_come_back_equal") else { return };
    let mut all = recordings_in(&folder.join("recordings.jsonl"));
    for estate in ESTATES {
        all.extend(recordings_in(&folder.join(estate)));
    }
    let Outcome { covered, ignored, problems } = check_all(&all);
    assert!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
    let listed = ignored_keys();
    let unlisted: Vec<_> = ignored.difference(&listed).collect();
    let stale: Vec<_> = listed.difference(&ignored).collect();
    assert!(unlisted.is_empty(), "not read, and not in ignored-keys.txt: {unlisted:#?}");
    assert!(stale.is_empty(), "in ignored-keys.txt, but read or not recorded: {stale:#?}");
    let count: usize = covered.values().sum();
    println!(
        "{count} recorded answers of {} endpoints came back equal, of {} in all",
        covered.len(),
        all.len()
    );
    for (pattern, count) in &covered {
        println!("{count:5} {pattern}");
    }
    assert!(count >= FLOOR, "only {count} answers were covered");
}

/// Fewer than this means that the table of endpoints, or the reading of the files, has lost some.
const FLOOR: usize = 550;

#[test]
fn kept_answers_come_back_equal() {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/answers.jsonl");
    let Outcome { covered, ignored, problems } = check_all(&recordings_in(&kept));
    assert!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
    assert!(covered.len() >= 30, "only {} endpoints are kept", covered.len());
    let listed = ignored_keys();
    assert!(ignored.is_subset(&listed), "not listed: {:#?}", ignored.difference(&listed));
}

/// Hides nothing: an altered answer must not pass.
#[test]
fn an_answer_that_is_read_wrongly_is_noticed() {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/answers.jsonl");
    let mut all = recordings_in(&kept);
    for recording in &mut all {
        if recording.path.ends_with("/qemu") {
            for row in recording.data.as_array_mut().into_iter().flatten() {
                row["cpus"] = Value::from("many");
            }
        }
    }
    let problems = check_all(&all).problems;
    assert!(problems.iter().any(|problem| problem.contains("key `cpus`")), "{problems:#?}");
}

#[test]
fn every_recorded_upid_comes_back() {
    let Some(folder) = recordings("every_recorded_upid_comes_back") else { return };
    let mut upids = BTreeSet::new();
    for file in std::iter::once("recordings.jsonl").chain(ESTATES) {
        let text = std::fs::read_to_string(folder.join(file)).unwrap();
        for piece in text.split("UPID:").skip(1) {
            // A UPID has eight fields behind its mark; a test request's made-up ones have fewer.
            let end = piece.find(|c: char| "\"/\\ <".contains(c)).unwrap_or(piece.len());
            let fields = piece[..end].split(':').count();
            if fields >= 8 {
                let whole = piece[..end].rfind(':').map_or(&piece[..end], |colon| &piece[..=colon]);
                upids.insert(format!("UPID:{whole}"));
            }
        }
    }
    for text in &upids {
        let upid: Upid = text.parse().unwrap();
        assert_eq!(upid.to_string(), *text);
    }
    println!("{} UPIDs came back", upids.len());
    assert!(upids.len() > 100, "only {} UPIDs were found", upids.len());
}

#[test]
fn permissions_follow_the_three_views() {
    let Some(folder) = recordings("permissions_follow_the_three_views") else { return };
    let view = |estate: &str| {
        let all = recordings_in(&folder.join(estate));
        let answer = all.iter().find(|recording| recording.path == "/access/permissions").unwrap();
        wire::read::<Permissions>(&answer.path, &answer.data).unwrap().value
    };
    let [root, auditor, pool] = ESTATES.map(view);
    for path in ["/", "/vms/101", "/vms/100", "/vms/99999", "/storage/any", "/nodes/pve1", "/pool/prod/sub"] {
        assert!(root.has(path, "VM.Allocate") && root.has(path, "Sys.Modify"), "root, {path}");
        assert!(auditor.has(path, "VM.Audit") && auditor.has(path, "Datastore.Audit"), "auditor, {path}");
        assert!(
            !auditor.has(path, "VM.Allocate") && !auditor.has(path, "Datastore.Allocate"),
            "auditor, {path}"
        );
    }
    // Members' entries do not propagate, but are their own.
    for path in ["/pool/prod", "/vms/120", "/vms/121", "/storage/data", "/pool/prod/sub"] {
        assert!(pool.has(path, "VM.Audit"), "pool-limited, {path}");
    }
    for path in [
        "/",
        "/vms",
        "/vms/100",
        "/vms/12",
        "/vms/1200",
        "/storage/local",
        "/storage/data/x",
        "/nodes/pve1",
        "/pool",
    ] {
        assert!(!pool.has(path, "VM.Audit") && !pool.has(path, "Datastore.Audit"), "pool-limited, {path}");
    }
    // What the lists of each view show must be what its permissions promise.
    for (estate, permissions) in [(ESTATES[0], &root), (ESTATES[1], &auditor), (ESTATES[2], &pool)] {
        let all = recordings_in(&folder.join(estate));
        let answer = all.iter().find(|recording| recording.path == "/cluster/resources").unwrap();
        let rows = wire::read::<Vec<Resource>>(&answer.path, &answer.data).unwrap().value;
        let seen: BTreeSet<u32> =
            rows.iter().filter_map(Resource::guest).map(|guest| guest.vmid.get()).collect();
        let known: BTreeSet<u32> = [100, 101, 102, 103, 104, 105, 110, 120, 121, 200, 201, 204, 205].into();
        assert!(!seen.is_empty());
        for vmid in seen.union(&known) {
            if seen.contains(vmid) {
                assert!(permissions.has(&format!("/vms/{vmid}"), "VM.Audit"), "{estate}: {vmid} was seen");
            } else if estate == ESTATES[2] {
                assert!(
                    !permissions.has(&format!("/vms/{vmid}"), "VM.Audit"),
                    "{estate}: {vmid} was not seen"
                );
            }
        }
    }
}

#[test]
fn blank_tags_are_none() {
    let row: Value = serde_json::json!([{"vmid": 100, "tags": " "}]);
    let rows = wire::read::<Vec<QemuRow>>("/nodes/pve1/qemu", &row).unwrap().value;
    assert_eq!(rows[0].tags, Some(Tags::default()));
}
