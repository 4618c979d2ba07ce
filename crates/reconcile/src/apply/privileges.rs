//! The privileges that a plan's calls need, asked for before anything is sent.

use std::collections::{BTreeMap, BTreeSet};

use pve_client::answers::Permissions;
use pve_client::{ApiError, PveClient};
use pvegraph_inventory::GuestType;

use super::limits::allocated;
use crate::canonical::{is_disk, is_nic};
use crate::plan::{FormValue, Operation, Request};

/// A privilege that is needed: the path, and the privileges of which one is enough.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Needed {
    /// The path of the access list.
    pub path: String,
    /// One of these.
    pub any: Vec<&'static str>,
}

/// What the operations need.
pub fn needed(operations: &[Operation]) -> BTreeSet<Needed> {
    let mut all = BTreeSet::new();
    for operation in operations {
        for request in &operation.requests {
            of_call(operation, request, &mut all);
        }
    }
    all
}

fn of_call(operation: &Operation, request: &Request, all: &mut BTreeSet<Needed>) {
    let guest = format!("/vms/{}", operation.vmid);
    let mut need = |path: &str, any: &[&'static str]| {
        all.insert(Needed { path: path.to_owned(), any: any.to_vec() });
    };
    need(&guest, &["VM.Audit"]);
    if request.path.starts_with("/cluster/ha/") {
        return need("/", &["Sys.Console"]);
    }
    match request.path.rsplit('/').next().unwrap_or_default() {
        "resize" => need(&guest, &["VM.Config.Disk"]),
        "config" => {
            for key in request.set.keys().chain(&request.delete) {
                let value = match request.set.get(key) {
                    Some(FormValue::Plain(text)) => text.as_str(),
                    _ => "",
                };
                if let Some(privileges) = of_option(operation.kind, key, value) {
                    need(&guest, privileges);
                }
                if key == "startup" {
                    need("/", &["Sys.Modify"]);
                }
                if let Some((storage, _)) = allocated(value).filter(|_| is_disk(operation.kind, key)) {
                    need(&format!("/storage/{storage}"), &["Datastore.AllocateSpace"]);
                }
            }
        }
        "start" | "stop" | "shutdown" | "reboot" => need(&guest, &["VM.PowerMgmt"]),
        "migrate" => need(&guest, &["VM.Migrate"]),
        _ => {}
    }
}

/// What an option takes; nothing where only PVE itself knows.
fn of_option(guest: GuestType, key: &str, value: &str) -> Option<&'static [&'static str]> {
    let base = key.trim_end_matches(|character: char| character.is_ascii_digit());
    if is_disk(guest, key) {
        let cdrom = value.split(',').any(|part| part == "media=cdrom");
        return Some(if cdrom { &["VM.Config.CDROM"] } else { &["VM.Config.Disk"] });
    }
    if is_nic(guest, key) {
        return Some(&["VM.Config.Network"]);
    }
    Some(match (guest, base) {
        (_, "cores" | "cpu" | "cpulimit" | "cpuunits" | "numa" | "sockets" | "vcpus") => &["VM.Config.CPU"],
        (_, "memory" | "balloon" | "shares" | "swap") => &["VM.Config.Memory"],
        (_, "tags" | "description" | "onboot" | "protection" | "startup") => &["VM.Config.Options"],
        (GuestType::Lxc, "hostname" | "nameserver" | "searchdomain") => &["VM.Config.Network"],
        (GuestType::Lxc, _) => &["VM.Config.Options"],
        (
            _,
            "acpi" | "hotplug" | "kvm" | "machine" | "scsihw" | "smbios" | "tablet" | "vga" | "watchdog"
            | "audio",
        ) => &["VM.Config.HWType"],
        (_, "boot" | "bootdisk" | "vmstatestorage") => &["VM.Config.Disk"],
        (
            _,
            "cicustom" | "cipassword" | "citype" | "ciuser" | "ciupgrade" | "nameserver" | "searchdomain"
            | "sshkeys" | "ipconfig",
        ) => &["VM.Config.Cloudinit", "VM.Config.Network"],
        (_, "agent" | "autostart" | "bios" | "keyboard" | "localtime" | "name" | "ostype" | "tdf") => {
            &["VM.Config.Options"]
        }
        _ => return None,
    })
}

/// The privileges that the account lacks.
///
/// # Errors
/// PVE does not say what it may do.
pub async fn missing(client: &PveClient, needed: BTreeSet<Needed>) -> Result<Vec<Needed>, ApiError> {
    let all = client.permissions().await?.value;
    let has = |permissions: &Permissions, need: &Needed| {
        need.any.iter().any(|privilege| permissions.has(&need.path, privilege))
    };
    let mut own: BTreeMap<String, Permissions> = BTreeMap::new();
    let mut missing = Vec::new();
    for need in needed {
        if has(&all, &need) {
            continue;
        }
        // The list has no paths that nobody named: for certainty PVE is asked for this one.
        if !own.contains_key(&need.path) {
            own.insert(need.path.clone(), client.permissions_on(&need.path).await?.value);
        }
        if !own.get(&need.path).is_some_and(|permissions| has(permissions, &need)) {
            missing.push(need);
        }
    }
    Ok(missing)
}
