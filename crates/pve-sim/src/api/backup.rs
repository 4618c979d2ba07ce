//! `/cluster/backup`: the jobs and what they take.

use serde_json::{Map, Value, json};

use super::Call;
use super::act::{Act, done, fail};
use crate::answer::{Answer, Rows};
use crate::schema::split_list;
use crate::world::config::Drive;
use crate::world::state::{BackupJob, EPOCH, Guest, GuestKind, Selection};

/// All jobs. Only the list has `next-run`, disabled jobs included.
pub fn jobs(call: &Call<'_>) -> Result<Answer, Answer> {
    let mut rows = Rows::default();
    for (number, job) in (1u64..).zip(call.state.jobs.values()) {
        let mut row = row(job);
        row.insert("next-run".to_owned(), json!(EPOCH + number * 36_000));
        rows.push(&Value::Object(row));
    }
    Ok(Answer::rows(rows))
}

/// One job.
pub fn job(call: &Call<'_>) -> Result<Answer, Answer> {
    known(call).map(|job| Answer::ok(Value::Object(row(job))))
}

fn known<'a>(call: &Call<'a>) -> Result<&'a BackupJob, Answer> {
    let id = call.text("id");
    call.state.jobs.get(id).ok_or_else(|| Answer::bad_parameter("id", &format!("No such job '{id}'")))
}

fn row(job: &BackupJob) -> Map<String, Value> {
    let mut row = job.properties.clone();
    let mut set = |key: &str, value: Value| drop(row.insert(key.to_owned(), value));
    set("id", json!(job.id));
    set("type", json!("vzdump"));
    set("enabled", json!(u8::from(job.enabled)));
    set("schedule", json!(job.schedule));
    set("storage", json!(job.storage));
    if let Some(node) = &job.node {
        set("node", json!(node));
    }
    let list = |vmids: &[u32]| json!(vmids.iter().map(u32::to_string).collect::<Vec<_>>().join(","));
    match &job.selection {
        Selection::All { exclude } => {
            set("all", json!(1));
            if !exclude.is_empty() {
                set("exclude", list(exclude));
            }
        }
        Selection::Pool(pool) => set("pool", json!(pool)),
        Selection::Guests(vmids) => set("vmid", list(vmids)),
    }
    row
}

/// The guests that a job takes, with their volumes and whether each is in the backup. Guests are filtered by `VM.Audit`.
pub fn included_volumes(call: &Call<'_>) -> Result<Answer, Answer> {
    let job = known(call)?;
    let visible = call.state.guests_of_job(job).filter(|guest| call.sees_guest(guest.vmid));
    let children: Vec<Value> = visible
        .map(|guest| {
            json!({
                "children": volumes(guest), "id": guest.vmid, "leaf": 0, "name": guest.name(), "type": guest.kind.name(),
            })
        })
        .collect();
    Ok(Answer::ok(json!({"children": children})))
}

fn volumes(guest: &Guest) -> Vec<Value> {
    let attached = guest.drives().into_iter().filter(|drive| !drive.key.starts_with("unused"));
    attached
        .filter_map(|drive| {
            let (included, reason) = match guest.kind {
                GuestKind::Qemu if drive.is_cdrom() => return None,
                GuestKind::Qemu => qemu_disk_in_backup(&drive),
                GuestKind::Lxc => lxc_volume_in_backup(&drive),
            };
            Some(json!({
                "id": format!("{}:{}", guest.vmid, drive.key), "included": u8::from(included), "leaf": 1,
                "name": drive.volume, "reason": reason,
            }))
        })
        .collect()
}

/// A VM's disk is in the backup unless `backup=0`. The reason is `backup=no` wherever `backup=` is spelt out, even as
/// `backup=1`: PVE's text is wrong there, and clients must go by `included`.
fn qemu_disk_in_backup(drive: &Drive<'_>) -> (bool, &'static str) {
    match drive.option("backup") {
        None => (true, "backup=yes"),
        Some(value) => (value != "0", "backup=no"),
    }
}

/// A container's root file system is always in the backup, a mount point only with `backup=1`, and a host directory or
/// device never.
fn lxc_volume_in_backup(drive: &Drive<'_>) -> (bool, &'static str) {
    if drive.key == "rootfs" {
        (true, "rootfs")
    } else if drive.storage().is_none() {
        (false, "not a volume")
    } else if drive.option("backup") == Some("1") {
        (true, "enabled")
    } else {
        (false, "disabled")
    }
}

/// The guests in no job at all. Disabled jobs count, so this is not the list of unprotected guests.
pub fn not_backed_up(call: &Call<'_>) -> Result<Answer, Answer> {
    let jobs = call.state.jobs.values();
    let covered: std::collections::BTreeSet<u32> =
        jobs.flat_map(|job| call.state.guests_of_job(job).map(|guest| guest.vmid)).collect();
    let mut rows = Rows::default();
    for guest in call.state.guests.values() {
        if !covered.contains(&guest.vmid) && call.sees_guest(guest.vmid) {
            rows.push(&json!({"name": guest.name(), "type": guest.kind.name(), "vmid": guest.vmid}));
        }
    }
    Ok(Answer::rows(rows))
}

/// A problem that PVE says as a 500 with a 400's text inside.
fn nested<T>(name: &str, problem: &str) -> Result<T, Answer> {
    let mut answer = Answer::error(500, "400 Parameter verification failed.");
    let text = format!("400 Parameter verification failed.\n{name}: {problem}\n");
    answer.body = crate::answer::Body::Json(json!({"data": null, "message": text}));
    Err(answer)
}

/// Keys of a job that this world keeps by themselves.
const OWN: [&str; 11] =
    ["id", "enabled", "schedule", "storage", "vmid", "all", "exclude", "pool", "node", "delete", "digest"];

/// `prune-backups` and its like are strings in and objects out.
fn properties(act: &Act<'_>) -> Map<String, Value> {
    let settings = act.parameters.iter().filter(|(name, _)| !OWN.contains(&name.as_str()));
    let shown = |name: &str, value: &str| match name {
        "prune-backups" | "fleecing" | "performance" => {
            let parts = value.split(',').filter_map(|part| part.split_once('='));
            Value::Object(parts.map(|(key, value)| (key.to_owned(), json!(value))).collect())
        }
        _ => act.typed(name, value),
    };
    settings.map(|(name, value)| (name.clone(), shown(name, value))).collect()
}

fn selection(act: &Act<'_>) -> Option<Selection> {
    let list = |name: &str| split_list(act.text(name)).filter_map(|vmid| vmid.parse().ok()).collect();
    if act.given("vmid").is_some() {
        return Some(Selection::Guests(list("vmid")));
    }
    if let Some(pool) = act.given("pool") {
        return Some(Selection::Pool(pool.to_owned()));
    }
    (act.flag("all") || act.given("exclude").is_some()).then(|| Selection::All { exclude: list("exclude") })
}

/// `POST /cluster/backup`. Without a name it gets one.
pub fn create(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let id = match act.given("id") {
        Some(id) => id.to_owned(),
        None => {
            act.state.created += 1;
            crate::world::ids::uuid(act.state.seed, &format!("job {}", act.state.created))
        }
    };
    if act.state.jobs.contains_key(&id) {
        return fail(format!("Job '{id}' already exists"));
    }
    let storage = act.given("storage").unwrap_or("local").to_owned();
    if act.given("dumpdir").is_none() && !act.state.storages.contains_key(&storage) {
        return fail(format!("storage '{storage}' does not exist"));
    }
    let Some(selection) = selection(act) else { return nested("vmid", "property is missing") };
    let job = BackupJob {
        id: id.clone(),
        enabled: act.given("enabled").is_none_or(|flag| flag == "1"),
        schedule: act.text("schedule").to_owned(),
        storage,
        selection,
        node: act.given("node").map(str::to_owned),
        properties: properties(act),
    };
    act.state.jobs.insert(id, job);
    done()
}

/// `PUT /cluster/backup/{id}`: a new selection drops the old one.
pub fn update(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let id = act.text("id").to_owned();
    if !act.state.jobs.contains_key(&id) {
        return nested("id", &format!("No such job '{id}'"));
    }
    let (changes, selection) = (properties(act), selection(act));
    let text = |name: &str| act.given(name).map(str::to_owned);
    let (enabled, schedule, storage, node) =
        (text("enabled"), text("schedule"), text("storage"), text("node"));
    let deletes: Vec<String> = split_list(act.text("delete")).map(str::to_owned).collect();
    let Some(job) = act.state.jobs.get_mut(&id) else { return done() };
    for key in deletes {
        match key.as_str() {
            "node" => job.node = None,
            "exclude" => job.selection = Selection::All { exclude: Vec::new() },
            key => drop(job.properties.remove(key)),
        }
    }
    job.properties.extend(changes);
    if let Some(selection) = selection {
        job.selection = selection;
    }
    job.enabled = enabled.map_or(job.enabled, |flag| flag == "1");
    job.schedule = schedule.unwrap_or(std::mem::take(&mut job.schedule));
    job.storage = storage.unwrap_or(std::mem::take(&mut job.storage));
    job.node = node.or(job.node.take());
    done()
}

/// `DELETE /cluster/backup/{id}`.
pub fn delete(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let id = act.text("id").to_owned();
    if act.state.jobs.remove(&id).is_none() {
        return nested("id", &format!("No such job '{id}'"));
    }
    done()
}
