//! The privileges that a plan's calls need, asked for before anything is sent.

use std::collections::{BTreeMap, BTreeSet};

use pve_client::answers::Permissions;
use pve_client::{ApiError, PveClient};
use pvegraph_inventory::GuestType;

use super::destroy::destroys;
use super::limits::allocated;
use super::make::{NO_OPTIONS, made};
use crate::canonical::{is_disk, is_nic};
use crate::plan::{FormValue, Operation, Request};

/// A privilege that is needed: the path, and the privileges of which one is enough.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Needed {
    /// The path of the access list.
    pub path: String,
    /// One of these.
    pub any: Vec<&'static str>,
    /// Another path that is as good: the pool that a new guest comes into.
    pub or: Option<String>,
}

/// What a guest has that is copied with it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Copied {
    /// The storages of its disks.
    pub storages: BTreeSet<String>,
    /// Its network interfaces as Proxmox VE writes them: copies are on the same bridges.
    pub interfaces: Vec<String>,
}

/// Tells what a guest has.
pub type Sources<'a> = &'a dyn Fn(i64) -> Copied;

/// What the operations need. `sources` is asked about guests that are copied.
pub fn needed(operations: &[Operation], sources: Sources<'_>) -> BTreeSet<Needed> {
    let mut all = BTreeSet::new();
    // What a pool allows is allowed at a guest from its first moment on.
    let pools: BTreeMap<i64, String> = operations
        .iter()
        .flat_map(|operation| operation.requests.iter().map(move |request| (operation.vmid, request)))
        .filter_map(|(vmid, request)| match (made(request), request.set.get("pool")) {
            (Some(_), Some(FormValue::Plain(pool))) => Some((vmid, format!("/pool/{pool}"))),
            _ => None,
        })
        .collect();
    for operation in operations {
        for request in &operation.requests {
            of_call(operation, request, pools.get(&operation.vmid), sources, &mut all);
        }
    }
    all
}

fn of_call(
    operation: &Operation,
    request: &Request,
    pool: Option<&String>,
    sources: Sources<'_>,
    all: &mut BTreeSet<Needed>,
) {
    let guest = format!("/vms/{}", operation.vmid);
    let mut need = |path: &str, any: &[&'static str]| {
        let or = pool.filter(|_| path == guest).cloned();
        all.insert(Needed { path: path.to_owned(), any: any.to_vec(), or });
    };
    need(&guest, &["VM.Audit"]);
    if request.path.starts_with("/cluster/ha/") {
        return need("/", &["Sys.Console"]);
    }
    let makes = made(request);
    if let Some(made) = &makes {
        need(&guest, &["VM.Allocate"]);
        if let Some(source) = made.source {
            need(&format!("/vms/{source}"), &["VM.Audit"]);
            need(&format!("/vms/{source}"), &["VM.Clone"]);
            let Copied { storages, interfaces } = sources(source);
            let wanted = request.set.get("storage").map(|storage| BTreeSet::from([storage.to_string()]));
            for storage in wanted.unwrap_or(storages) {
                need(&format!("/storage/{storage}"), &["Datastore.AllocateSpace"]);
            }
            for bridge in interfaces.iter().filter_map(|interface| bridge(interface)) {
                need(&bridge, &["SDN.Use"]);
            }
        }
    }
    if let Some(FormValue::Plain(volume)) = request.set.get("ostemplate")
        && let Some((storage, _)) = volume.split_once(':')
    {
        need(&format!("/storage/{storage}"), &["Datastore.AllocateSpace", "Datastore.Audit"]);
    }
    if destroys(request) {
        // What is allowed at the guest alone goes with it, and nobody could see then that it is gone.
        need("/vms", &["VM.Audit"]);
        return need(&guest, &["VM.Allocate"]);
    }
    match request.path.rsplit('/').next().unwrap_or_default() {
        "snapshot" => need(&guest, &["VM.Snapshot"]),
        "rollback" => need(&guest, &["VM.Snapshot", "VM.Snapshot.Rollback"]),
        "template" => need(&guest, &["VM.Allocate"]),
        "move_disk" | "move_volume" => {
            need(&guest, &["VM.Config.Disk"]);
            if let Some(storage) = request.set.get("storage") {
                need(&format!("/storage/{storage}"), &["Datastore.AllocateSpace"]);
            }
        }
        "resize" => need(&guest, &["VM.Config.Disk"]),
        "config" | "qemu" | "lxc" => {
            let options = request.set.keys().chain(&request.delete);
            for key in options.filter(|key| makes.is_none() || !NO_OPTIONS.contains(&key.as_str())) {
                let value = match request.set.get(key) {
                    Some(value @ (FormValue::Plain(_) | FormValue::Onto(_))) => value.to_string(),
                    _ => String::new(),
                };
                let value = value.as_str();
                if let Some(privileges) = of_option(operation.kind, key, value) {
                    need(&guest, privileges);
                }
                if key == "startup" {
                    need("/", &["Sys.Modify"]);
                }
                if let Some(bridge) = bridge(value).filter(|_| is_nic(operation.kind, key)) {
                    need(&bridge, &["SDN.Use"]);
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

/// The path of a network interface's bridge, or of its VLAN there. Networks of other zones have names of their own, whose zones only PVE
/// knows.
fn bridge(value: &str) -> Option<String> {
    let part = |name: &str| value.split(',').find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
    let bridge = part("bridge").filter(|bridge| bridge.starts_with("vmbr"))?;
    let path = format!("/sdn/zones/localnetwork/{bridge}");
    Some(part("tag").map_or(path.clone(), |tag| format!("{path}/{tag}")))
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

/// The paths of which one is enough.
fn paths(need: &Needed) -> impl Iterator<Item = &String> {
    [Some(&need.path), need.or.as_ref()].into_iter().flatten()
}

/// The privileges that the account lacks.
///
/// # Errors
/// PVE does not say what it may do.
pub async fn missing(client: &PveClient, needed: BTreeSet<Needed>) -> Result<Vec<Needed>, ApiError> {
    let all = client.permissions().await?.value;
    let has = |permissions: &Permissions, path: &str, need: &Needed| {
        need.any.iter().any(|privilege| permissions.has(path, privilege))
    };
    let mut own: BTreeMap<String, Permissions> = BTreeMap::new();
    let mut missing = Vec::new();
    for need in needed {
        if paths(&need).any(|path| has(&all, path, &need)) {
            continue;
        }
        // The list has no paths that nobody named: for certainty PVE is asked for this one.
        let mut lacks = true;
        for path in paths(&need) {
            if !own.contains_key(path) {
                own.insert(path.clone(), client.permissions_on(path).await?.value);
            }
            lacks &= !own.get(path).is_some_and(|permissions| has(permissions, path, &need));
        }
        if lacks {
            missing.push(need);
        }
    }
    Ok(missing)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;
    use crate::plan::Method;

    fn told(kind: &str, requests: &[Request]) -> Vec<String> {
        let operation = serde_json::from_value(serde_json::json!({
            "number": 1, "after": [], "uid": "web", "vmid": 100, "kind": kind, "node": "pve1", "action": "create",
            "effect": "create", "reversible": true, "fields": [], "reasons": [], "affects": [], "blast": 1,
            "fingerprint": null, "digest": null, "pending_sha256": null, "status": null, "requests": requests,
        }));
        let sources = |vmid: i64| Copied {
            storages: BTreeSet::from([format!("of-{vmid}")]),
            interfaces: vec![
                "virtio=BC:24:11:00:00:01,bridge=vmbr1,tag=7".to_owned(),
                "virtio=BC:24:11:00:00:02,bridge=vnet0".to_owned(),
            ],
        };
        let needs = needed(&[operation.unwrap()], &sources);
        needs
            .iter()
            .map(|need| {
                format!(
                    "{} {}{}",
                    need.path,
                    need.any.join("|"),
                    need.or.as_deref().map(|or| format!(" or {or}")).unwrap_or_default()
                )
            })
            .collect()
    }

    fn post(path: &str, set: &[(&str, &str)]) -> Request {
        set.iter().fold(Request::new(Method::Post, path), |request, (name, value)| {
            request.with(name, value.to_owned())
        })
    }

    #[test]
    fn a_new_guest_takes_what_its_options_take_in_its_pool_as_well() {
        let set = [
            ("vmid", "100"),
            ("cores", "2"),
            ("smbios1", "uuid=x"),
            ("scsi0", "lvm:8"),
            ("net0", "virtio,bridge=vmbr0,tag=5"),
        ];
        assert_eq!(
            told("qemu", &[post("/nodes/pve1/qemu", &set)]),
            [
                "/sdn/zones/localnetwork/vmbr0/5 SDN.Use",
                "/storage/lvm Datastore.AllocateSpace",
                "/vms/100 VM.Allocate",
                "/vms/100 VM.Audit",
                "/vms/100 VM.Config.CPU",
                "/vms/100 VM.Config.Disk",
                "/vms/100 VM.Config.HWType",
                "/vms/100 VM.Config.Network",
            ]
        );
        let set =
            [("vmid", "100"), ("pool", "lab"), ("ostemplate", "local:vztmpl/x.tar.zst"), ("password", "x")];
        let start = post("/nodes/pve1/lxc/100/status/start", &[]);
        assert_eq!(
            told("lxc", &[post("/nodes/pve1/lxc", &set), start]),
            [
                "/storage/local Datastore.AllocateSpace|Datastore.Audit",
                "/vms/100 VM.Allocate or /pool/lab",
                "/vms/100 VM.Audit or /pool/lab",
                "/vms/100 VM.PowerMgmt or /pool/lab",
            ]
        );
    }

    #[test]
    fn a_copy_takes_the_right_to_clone_and_room_where_it_comes_to_be() {
        let clone = |set: &[(&str, &str)]| told("qemu", &[post("/nodes/pve1/qemu/9000/clone", set)]);
        let expected = |storage: &str| {
            [
                "/sdn/zones/localnetwork/vmbr1/7 SDN.Use".to_owned(),
                format!("/storage/{storage} Datastore.AllocateSpace"),
                "/vms/100 VM.Allocate".to_owned(),
                "/vms/100 VM.Audit".to_owned(),
                "/vms/9000 VM.Audit".to_owned(),
                "/vms/9000 VM.Clone".to_owned(),
            ]
        };
        assert_eq!(clone(&[("newid", "100"), ("storage", "nfs")]), expected("nfs"));
        assert_eq!(clone(&[("newid", "100")]), expected("of-9000"));
    }

    #[test]
    fn moves_snapshots_and_templates_take_their_own() {
        let of = |rest: &str, set: &[(&str, &str)]| {
            told("qemu", &[post(&format!("/nodes/pve1/qemu/100/{rest}"), set)])
        };
        let moved = of("move_disk", &[("disk", "scsi0"), ("storage", "nfs")]);
        assert_eq!(
            moved,
            ["/storage/nfs Datastore.AllocateSpace", "/vms/100 VM.Audit", "/vms/100 VM.Config.Disk"]
        );
        assert_eq!(of("snapshot", &[("snapname", "x")]), ["/vms/100 VM.Audit", "/vms/100 VM.Snapshot"]);
        assert_eq!(
            of("snapshot/x/rollback", &[]),
            ["/vms/100 VM.Audit", "/vms/100 VM.Snapshot|VM.Snapshot.Rollback"]
        );
        assert_eq!(of("template", &[]), ["/vms/100 VM.Allocate", "/vms/100 VM.Audit"]);
    }
}
