//! `/cluster/backup`: the jobs and what they take.

use serde_json::{Map, Value, json};

use super::Call;
use crate::answer::{Answer, Rows};
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
