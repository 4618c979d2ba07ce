//! Work on guests: creation, clones, destruction, snapshots, configuration.

use super::disks::{self, is_drive, place_drive};
use super::{Log, Outcome, check_lock, guest_word};
use crate::schema::split_list;
use crate::world::config::{Config, ConfigValue, is_numbered, parse_drive};
use crate::world::ids;
use crate::world::state::{Guest, GuestKind, Power, Snapshot, State, Work};

/// Keys of a request that are no configuration.
pub(crate) const NO_CONFIG: [&str; 29] = [
    "node",
    "vmid",
    "start",
    "unique",
    "force",
    "pool",
    "storage",
    "archive",
    "live-restore",
    "bwlimit",
    "import-working-storage",
    "ostemplate",
    "restore",
    "password",
    "ssh-public-keys",
    "ignore-unpack-errors",
    "digest",
    "delete",
    "revert",
    "skiplock",
    "background_delay",
    "rootfs-size",
    "skip_cloud_init",
    "purge",
    "destroy-unreferenced-disks",
    "timeout",
    "template-storage",
    "problem",
    "ha-managed",
];

fn kind_of(work: &Work) -> GuestKind {
    if work.kind.starts_with("vz") { GuestKind::Lxc } else { GuestKind::Qemu }
}

/// `web`, `Web;db` → PVE's form: sorted, each once, `;` between. Nothing is stored as one blank, which is no tag.
pub(crate) fn tags(text: &str) -> String {
    let mut all: Vec<String> = split_list(text).map(str::to_lowercase).collect();
    all.sort_unstable();
    all.dedup();
    if all.is_empty() { " ".to_owned() } else { all.join(";") }
}

/// The value of a key that is no drive, as PVE stores it.
pub(crate) fn stored(state: &mut State, kind: GuestKind, key: &str, value: &str) -> ConfigValue {
    if key == "tags" {
        return tags(value).into();
    }
    if kind == GuestKind::Lxc && key == "description" {
        return format!("{}\n", value.trim_end_matches('\n')).into();
    }
    if kind == GuestKind::Qemu && key == "description" {
        return value.trim_end_matches('\n').into();
    }
    if is_numbered(key, "net") {
        return with_mac(state, kind, key, value).into();
    }
    if key == "vmgenid" && value == "1" {
        return fresh_uuid(state, "vmgenid").into();
    }
    let typed = disks::config_method(kind).map(|method| crate::api::typed(method, key, value));
    match typed {
        Some(serde_json::Value::Number(number)) if number.is_i64() => {
            number.as_i64().unwrap_or_default().into()
        }
        _ => value.into(),
    }
}

fn fresh_uuid(state: &mut State, what: &str) -> String {
    state.created += 1;
    ids::uuid(state.seed, &format!("{what} {}", state.created))
}

/// A network card without an address gets one of its own.
pub(crate) fn with_mac(state: &mut State, kind: GuestKind, key: &str, value: &str) -> String {
    let method = disks::config_method(kind);
    let parts = method.and_then(|method| crate::schema::properties(method, key, value)).unwrap_or_default();
    let address = if kind == GuestKind::Qemu { "macaddr" } else { "hwaddr" };
    let mut text = value.to_owned();
    if !parts.contains_key(address) {
        state.created += 1;
        let mac = ids::mac(state.seed, &format!("{key} {}", state.created));
        text.push_str(&format!(",{address}={mac}"));
    }
    if kind == GuestKind::Lxc && !parts.contains_key("type") {
        text.push_str(",type=veth");
    }
    let text = disks::in_order(kind, key, &text);
    match kind {
        // `virtio,macaddr=X` and `virtio=X` are the same.
        GuestKind::Qemu => text,
        GuestKind::Lxc => text,
    }
}

/// The guest's number must be free, for the other kind as well.
pub(super) fn begin_create(state: &mut State, node: &str, work: &Work) -> Outcome {
    let (kind, vmid) = (kind_of(work), work.vmid());
    let word = guest_word(kind);
    if let Some(other) = state.guests.get(&vmid).filter(|_| !work.flag("force")) {
        let other_word = guest_word(other.kind);
        let node = &other.node;
        return Err(format!(
            "unable to create {word} {vmid} - {other_word} {vmid} already exists on node '{node}'"
        ));
    }
    let template = work.text("ostemplate");
    if kind == GuestKind::Lxc && !template.starts_with("/") && !disks::volume_exists(state, template) {
        return Err(format!("unable to create CT {vmid} - volume '{template}' does not exist"));
    }
    // What will be created already counts, so that a second creation of the number fails.
    let power = Power::Stopped;
    let mut config = Config::default();
    config.set("lock", "create");
    let guest = Guest {
        vmid,
        kind,
        node: node.into(),
        power,
        config,
        pool: work.given("pool").map(Into::into),
        ha: None,
        snapshots: Vec::new(),
        cpu_load: None,
        pending: Vec::new(),
    };
    state.guests.insert(vmid, guest);
    if let Err(problem) = new_config(state, node, work, &mut Vec::new()) {
        state.guests.remove(&vmid);
        return Err(format!("unable to create {word} {vmid} - {problem}"));
    }
    Ok(())
}

/// The configuration of a new guest: what was asked for, and what PVE adds by itself.
fn new_config(state: &mut State, node: &str, work: &Work, log: &mut Log) -> Result<Config, String> {
    let (kind, vmid) = (kind_of(work), work.vmid());
    if let Some(archive) = restored(state, work)? {
        return Ok(archive);
    }
    let mut config = Config::default();
    // Disks are allocated one after another, so each is named with the ones before it in mind.
    let mut settings: Vec<(&String, &String)> =
        work.arguments.iter().filter(|(key, _)| !NO_CONFIG.contains(&key.as_str())).collect();
    settings.sort();
    for (key, value) in settings {
        if is_drive(kind, key) {
            let value = place_drive(state, kind, vmid, node, key, value, log)?;
            config.set(key.clone(), value.clone());
            if let Some(guest) = state.guests.get_mut(&vmid) {
                guest.config.set(key.clone(), value);
            }
        } else {
            let value = stored(state, kind, key, value);
            config.set(key.clone(), value);
        }
    }
    match kind {
        GuestKind::Qemu => qemu_defaults(state, &mut config),
        GuestKind::Lxc => {
            for (key, value) in [("arch", "amd64"), ("ostype", "debian")] {
                if config.get(key).is_none() {
                    config.set(key, value);
                }
            }
            for key in ["memory", "swap"] {
                if config.get(key).is_none() {
                    config.set(key, 512);
                }
            }
            if config.get("hostname").is_none() {
                config.set("hostname", format!("CT{vmid}"));
            }
            if config.get("rootfs").is_none() {
                let storage = work.given("storage").unwrap_or("local");
                let value = place_drive(state, kind, vmid, node, "rootfs", &format!("{storage}:4"), log)?;
                config.set("rootfs", value);
            }
        }
    }
    Ok(config)
}

fn qemu_defaults(state: &mut State, config: &mut Config) {
    if config.get("boot").is_none() {
        let disk = |key: &&str| {
            let text = config.text(key).unwrap_or_default().into_owned();
            !parse_drive(key, &text).is_cdrom()
        };
        let keys: Vec<&str> = config.iter().map(|(key, _)| key).collect();
        let buses = ["ide", "scsi", "virtio", "sata"];
        let on_bus = |key: &&&str| buses.iter().any(|bus| is_numbered(key, bus));
        let first = keys.iter().filter(on_bus).copied().find(|key| disk(key));
        let cdrom = keys.iter().filter(on_bus).copied().find(|key| !disk(key));
        let net = keys.iter().copied().find(|key| is_numbered(key, "net"));
        let order: Vec<&str> = first.into_iter().chain(cdrom).chain(net).collect();
        config.set("boot", format!("order={}", order.join(";")));
    }
    let now =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs();
    if config.get("meta").is_none() {
        config.set("meta", format!("creation-qemu=9.2.0,ctime={now}"));
    }
    if config.get("smbios1").is_none() {
        let uuid = fresh_uuid(state, "smbios");
        config.set("smbios1", format!("uuid={uuid}"));
    }
    if config.get("vmgenid").is_none() {
        let uuid = fresh_uuid(state, "vmgenid");
        config.set("vmgenid", uuid);
    }
}

/// The configuration in a backup, if one is restored.
fn restored(state: &State, work: &Work) -> Result<Option<Config>, String> {
    let restores = work.given("archive").is_some() || work.flag("restore");
    let archive = work.given("archive").unwrap_or(work.text("ostemplate"));
    if !restores {
        return Ok(None);
    }
    let Some(volume) = state.volumes.get(archive) else {
        return Err(format!("volume '{archive}' does not exist"));
    };
    let mut config = Config::default();
    let text = volume.config.clone().unwrap_or_default();
    for (key, value) in text.lines().filter_map(|line| line.split_once(": ")) {
        let old = volume.vmid.unwrap_or_default();
        let value = value.replace(&format!("-{old}-"), &format!("-{}-", work.vmid()));
        let value = value.replace(&format!(":{old}/"), &format!(":{}/", work.vmid()));
        match value.parse::<i64>() {
            Ok(number) if kind_of(work) == GuestKind::Lxc => config.set(key.to_owned(), number),
            _ => config.set(key.to_owned(), value),
        }
    }
    Ok(Some(config))
}

pub(super) fn create(state: &mut State, node: &str, work: &Work, log: &mut Log) -> Outcome {
    let vmid = work.vmid();
    if let Some(guest) = state.guests.get_mut(&vmid) {
        guest.config = Config::default();
    }
    let config = match new_config(state, node, work, log) {
        Ok(config) => config,
        Err(problem) => {
            state.guests.remove(&vmid);
            return Err(format!("unable to create {} {vmid} - {problem}", guest_word(kind_of(work))));
        }
    };
    if let Some(guest) = state.guests.get_mut(&vmid) {
        guest.config = config;
        if work.flag("start") {
            guest.power = Power::Running;
        }
    }
    Ok(())
}

/// The new guest is there from the start, locked; the source is unchanged.
pub(super) fn begin_clone(state: &mut State, work: &Work) -> Outcome {
    check_lock(state, work)?;
    let new: u32 = work.text("newid").parse().unwrap_or_default();
    let word = guest_word(kind_of(work));
    if state.guests.contains_key(&new) {
        return Err(format!("unable to create {word} {new}: config file already exists"));
    }
    let Some(source) = state.guests.get(&work.vmid()) else { return Ok(()) };
    let mut copy = source.clone();
    copy.vmid = new;
    copy.power = Power::Stopped;
    copy.config = Config::default();
    copy.config.set("lock", "clone");
    copy.snapshots.clear();
    copy.pending.clear();
    copy.ha = None;
    copy.pool = work.given("pool").map(Into::into);
    if let Some(target) = work.given("target") {
        copy.node = target.into();
    }
    state.guests.insert(new, copy);
    Ok(())
}

/// A clone copies description and tags; UUIDs and network addresses are its own.
pub(super) fn clone(state: &mut State, work: &Work, log: &mut Log) -> Outcome {
    let new: u32 = work.text("newid").parse().unwrap_or_default();
    let source = state.guests.get(&work.vmid()).cloned().ok_or_else(|| super::missing(state, work))?;
    let kind = source.kind;
    let taken = work
        .given("snapname")
        .and_then(|name| source.snapshots.iter().find(|snapshot| snapshot.name == name)?.config.clone());
    let mut config = taken.unwrap_or_else(|| source.config.clone());
    let gone: Vec<String> = config
        .iter()
        .map(|(key, _)| key.to_owned())
        .filter(|key| {
            is_numbered(key, "unused")
                || matches!(key.as_str(), "lock" | "parent" | "template" | "vmstate" | "snaptime")
        })
        .collect();
    for key in &gone {
        config.remove(key);
    }
    let linked = source.is_template() && !work.flag("full");
    let keys: Vec<String> = config.iter().map(|(key, _)| key.to_owned()).collect();
    for key in keys {
        let value = config.text(&key).unwrap_or_default().into_owned();
        if is_drive(kind, &key) {
            let drive = parse_drive(&key, &value);
            let Some(storage) = drive.storage().map(str::to_owned).filter(|_| !value.contains("media=cdrom"))
            else {
                continue;
            };
            let wanted = if linked { storage.as_str() } else { work.given("storage").unwrap_or(&storage) };
            let target =
                state.storages.get(wanted).ok_or_else(|| format!("storage '{wanted}' does not exist"))?;
            let format = work
                .given("format")
                .unwrap_or_else(|| drive.volume.rsplit_once('.').map_or("", |(_, end)| end));
            let mut volume = disks::new_volume(state, target, kind, new, format);
            if linked && let Some((_, name)) = volume.split_once(':') {
                volume = format!("{}/{name}", drive.volume);
            }
            let mode = if linked { "linked" } else { "full" };
            log.push(format!("create {mode} clone of drive {key} ({})", drive.volume));
            let rest: String = drive.options.iter().map(|(name, value)| format!(",{name}={value}")).collect();
            let text = disks::in_order(kind, &key, &format!("{volume}{rest}"));
            config.set(key.clone(), text.clone());
            if let Some(copy) = state.guests.get_mut(&new) {
                copy.config.set(key, text);
            }
        } else if is_numbered(&key, "net") {
            config.set(key.clone(), another_mac(state, kind, &key, &value));
        }
    }
    if kind == GuestKind::Qemu {
        let uuid = fresh_uuid(state, "smbios");
        config.set("smbios1", format!("uuid={uuid}"));
        let uuid = fresh_uuid(state, "vmgenid");
        config.set("vmgenid", uuid);
        let name = work.given("name").map_or_else(|| format!("Copy-of-VM-{}", source.name()), str::to_owned);
        config.set("name", name);
    } else {
        let name =
            work.given("hostname").map_or_else(|| format!("Copy-of-CT-{}", source.name()), str::to_owned);
        config.set("hostname", name);
    }
    if let Some(text) = work.given("description") {
        let text = stored(state, kind, "description", text);
        config.set("description", text);
    }
    if let Some(copy) = state.guests.get_mut(&new) {
        copy.config = config;
    }
    Ok(())
}

fn another_mac(state: &mut State, kind: GuestKind, key: &str, value: &str) -> String {
    let method = disks::config_method(kind);
    let mut parts =
        method.and_then(|method| crate::schema::properties(method, key, value)).unwrap_or_default();
    parts.remove("macaddr");
    parts.remove("hwaddr");
    let text: Vec<String> = parts.iter().map(|(key, value)| format!("{key}={value}")).collect();
    with_mac(state, kind, key, &text.join(","))
}

/// A guest whose images others build on cannot go, nor a locked one.
pub(super) fn begin_destroy(state: &State, work: &Work) -> Outcome {
    if !work.flag("skiplock") {
        check_lock(state, work)?;
    }
    let Some(guest) = state.guests.get(&work.vmid()) else { return Ok(()) };
    for volume in disks::volumes_of(guest) {
        let base = format!("{volume}/");
        let child = |other: &Guest| disks::volumes_of(other).iter().any(|volume| volume.starts_with(&base));
        if state.guests.values().any(|other| other.vmid != guest.vmid && child(other)) {
            return Err(format!("base volume '{volume}' is still in use by linked cloned"));
        }
    }
    Ok(())
}

/// Destroys a guest with its rights and firewall; with `purge` also where jobs, HA and replication name it.
pub(super) fn destroy(state: &mut State, work: &Work, log: &mut Log) -> Outcome {
    let vmid = work.vmid();
    let Some(guest) = state.guests.remove(&vmid) else { return Err(super::missing(state, work)) };
    state.access.acl.remove(&format!("/vms/{vmid}"));
    state.firewalls.remove(&format!("guest/{vmid}"));
    if work.flag("purge") {
        log.push(format!("purging {} {vmid} from related configurations..", guest_word(guest.kind)));
        for job in state.jobs.values_mut() {
            match &mut job.selection {
                crate::world::state::Selection::Guests(vmids) => vmids.retain(|have| *have != vmid),
                crate::world::state::Selection::All { exclude } => exclude.retain(|have| *have != vmid),
                crate::world::state::Selection::Pool(_) => {}
            }
        }
        let empty = |job: &crate::world::state::BackupJob| matches!(&job.selection, crate::world::state::Selection::Guests(vmids) if vmids.is_empty());
        state.jobs.retain(|_, job| !empty(job));
        state.ha_settings.retain(|sid, _| sid.rsplit(':').next() != Some(&vmid.to_string()));
        state.replication.retain(|id, _| id.split('-').next() != Some(&vmid.to_string()));
    }
    Ok(())
}

/// A template's disks become base images.
pub(crate) fn template(state: &mut State, work: &Work) -> Outcome {
    let Some(guest) = state.guests.get_mut(&work.vmid()) else { return Err(super::missing(state, work)) };
    let keys: Vec<String> = guest.config.iter().map(|(key, _)| key.to_owned()).collect();
    for key in keys.iter().filter(|key| is_drive(guest.kind, key)) {
        let value = guest.config.text(key).unwrap_or_default().into_owned();
        let disk = format!("vm-{}-disk-", guest.vmid);
        let based = value.replace(&disk, &disk.replacen("vm-", "base-", 1));
        guest.config.set(key.clone(), based);
    }
    guest.config.set("template", 1);
    Ok(())
}

/// Whether a guest's disks can be snapshotted: images of files must be qcow2, some storages cannot at all.
pub(crate) fn can_snapshot(state: &State, guest: &Guest) -> bool {
    guest.drives().iter().filter(|drive| !drive.key.starts_with("unused") && !drive.is_cdrom()).all(|drive| {
        let storage = drive.storage().and_then(|storage| state.storages.get(storage));
        match storage.map(|storage| storage.kind.as_str()) {
            Some("dir" | "nfs" | "cifs" | "glusterfs") => drive.volume.ends_with(".qcow2"),
            Some("lvm" | "iscsi" | "iscsidirect") => false,
            // A host directory is left out; an unknown storage is not this rule's matter.
            _ => true,
        }
    })
}

pub(super) fn begin_snapshot(state: &State, work: &Work) -> Outcome {
    check_lock(state, work)?;
    let Some(guest) = state.guests.get(&work.vmid()) else { return Ok(()) };
    let name = work.text("snapname");
    if guest.snapshots.iter().any(|snapshot| snapshot.name == name) {
        return Err(format!("snapshot name '{name}' already used"));
    }
    if guest.is_template() {
        return Err("you can't take a snapshot if it's a template".to_owned());
    }
    if !can_snapshot(state, guest) {
        return Err("snapshot feature is not available".to_owned());
    }
    Ok(())
}

pub(super) fn snapshot(state: &mut State, work: &Work, log: &mut Log) -> Outcome {
    let now =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs();
    let Some(guest) = state.guests.get_mut(&work.vmid()) else { return Err(super::missing(state, work)) };
    let name = work.text("snapname");
    let with_memory = work.flag("vmstate") && guest.power == Power::Running;
    let mut config = guest.config.clone();
    config.remove("parent");
    if with_memory {
        let storage =
            guest.drives().iter().find_map(|drive| drive.storage().map(str::to_owned)).unwrap_or_default();
        config.set("vmstate", format!("{storage}:{0}/vm-{0}-state-{name}.raw", guest.vmid));
        config.set("runningmachine", "pc-i440fx-9.2+pve1");
        config.set("runningcpu", "kvm64,enforce,+kvm_pv_eoi,+kvm_pv_unhalt,+lahf_lm,+sep");
    }
    for drive in guest.drives().iter().filter(|drive| !drive.is_cdrom() && drive.storage().is_some()) {
        log.push(format!("snapshotting 'drive-{}' ({})", drive.key, drive.volume));
    }
    let parent = guest.config.text("parent").map(|parent| parent.into_owned());
    let description = work.text("description").to_owned();
    guest.snapshots.push(Snapshot {
        name: name.to_owned(),
        description,
        time: now,
        with_memory,
        parent,
        config: Some(config),
    });
    guest.config.set("parent", name);
    Ok(())
}

pub(super) fn begin_snapshot_change(state: &State, work: &Work) -> Outcome {
    let Some(guest) = state.guests.get(&work.vmid()) else { return Err(super::missing(state, work)) };
    let name = work.text("snapname");
    let Some(at) = guest.snapshots.iter().position(|snapshot| snapshot.name == name) else {
        return Err(format!("snapshot '{name}' does not exist"));
    };
    check_lock(state, work)?;
    if work.kind.ends_with("rollback") {
        // ZFS goes back to its newest snapshot alone.
        let on_zfs = guest.drives().iter().any(|drive| {
            drive
                .storage()
                .and_then(|storage| state.storages.get(storage))
                .is_some_and(|storage| storage.kind == "zfspool")
        });
        if on_zfs && at + 1 != guest.snapshots.len() {
            let newest = guest.snapshots.last().map_or("", |snapshot| snapshot.name.as_str());
            return Err(format!("can't rollback, '{name}' is not most recent snapshot on '{newest}'"));
        }
    }
    Ok(())
}

/// Rolling back brings the old configuration, and starts the VM if the snapshot holds its memory.
pub(super) fn rollback(state: &mut State, work: &Work) -> Outcome {
    let Some(guest) = state.guests.get_mut(&work.vmid()) else { return Err(super::missing(state, work)) };
    let name = work.text("snapname");
    let Some(snapshot) = guest.snapshots.iter().find(|snapshot| snapshot.name == name) else {
        return Err(format!("snapshot '{name}' does not exist"));
    };
    let with_memory = snapshot.with_memory;
    if let Some(config) = snapshot.config.clone() {
        guest.config = config;
        for key in ["vmstate", "runningmachine", "runningcpu"] {
            guest.config.remove(key);
        }
    }
    guest.config.set("parent", name);
    guest.pending.clear();
    guest.power = if with_memory || work.flag("start") { Power::Running } else { Power::Stopped };
    Ok(())
}

pub(super) fn delete_snapshot(state: &mut State, work: &Work) -> Outcome {
    let Some(guest) = state.guests.get_mut(&work.vmid()) else { return Err(super::missing(state, work)) };
    let name = work.text("snapname");
    let at = guest.snapshots.iter().position(|snapshot| snapshot.name == name);
    let parents = guest.parents();
    if let Some(at) = at {
        let parent = parents.get(at).cloned().flatten();
        guest.snapshots.remove(at);
        for snapshot in guest.snapshots.iter_mut().filter(|snapshot| snapshot.parent.as_deref() == Some(name))
        {
            snapshot.parent.clone_from(&parent);
        }
        if guest.config.text("parent").as_deref() == Some(name) {
            match parent {
                Some(parent) => guest.config.set("parent", parent),
                None => {
                    guest.config.remove("parent");
                }
            }
        }
    }
    Ok(())
}
