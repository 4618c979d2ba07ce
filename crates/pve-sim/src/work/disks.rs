//! Volumes of guests: their names, allocation, growth and moves.

use std::collections::BTreeMap;

use super::{Log, Outcome};
use crate::schema;
use crate::world::config::{Config, format_size, is_numbered, parse_drive, parse_size};
use crate::world::state::{Guest, GuestKind, State, Storage, Work};

/// Whether a key of a guest's configuration holds a drive or mount.
pub(crate) fn is_drive(kind: GuestKind, key: &str) -> bool {
    use crate::world::config::{is_lxc_disk_key, is_qemu_disk_key};
    match kind {
        GuestKind::Qemu => is_qemu_disk_key(key),
        GuestKind::Lxc => is_lxc_disk_key(key),
    }
}

/// The declaration of a guest's configuration.
pub(crate) fn config_method(kind: GuestKind) -> Option<&'static schema::Method> {
    let path = match kind {
        GuestKind::Qemu => "/nodes/n/qemu",
        GuestKind::Lxc => "/nodes/n/lxc",
    };
    schema::find("POST", path).map(|declared| declared.method)
}

/// A property string in PVE's order.
pub(crate) fn in_order(kind: GuestKind, key: &str, value: &str) -> String {
    let sorted = config_method(kind).and_then(|method| schema::normalize(method, key, value));
    sorted.unwrap_or_else(|| value.to_owned())
}

/// Every volume that a guest's configuration and snapshots mention.
pub(crate) fn volumes_of(guest: &Guest) -> Vec<String> {
    let mut volumes: Vec<String> = guest.drives().into_iter().map(|drive| drive.volume).collect();
    for snapshot in guest.snapshots.iter().filter_map(|snapshot| snapshot.config.as_ref()) {
        for (key, value) in snapshot.iter() {
            if is_drive(guest.kind, key) || key == "vmstate" {
                volumes.push(parse_drive(key, &value.to_text()).volume);
            }
        }
    }
    volumes
}

/// Whether a volume exists: a guest mentions it, or it is kept by itself.
pub(crate) fn volume_exists(state: &State, volume: &str) -> bool {
    state.volumes.contains_key(volume)
        || state.guests.values().any(|guest| volumes_of(guest).iter().any(|have| have == volume))
}

/// A storage that a node may use.
pub(crate) fn usable<'a>(state: &'a State, storage: &str, node: &str) -> Result<&'a Storage, String> {
    let found = state.storages.get(storage).ok_or_else(|| format!("storage '{storage}' does not exist"))?;
    if found.disabled {
        return Err(format!("storage '{storage}' is disabled"));
    }
    if !found.is_for_node(node) {
        return Err(format!("storage '{storage}' is not available on node '{node}'"));
    }
    Ok(found)
}

/// Whether a storage keeps files, whose names have formats.
fn has_files(storage: &Storage) -> bool {
    matches!(storage.kind.as_str(), "dir" | "nfs" | "cifs" | "glusterfs" | "cephfs" | "btrfs")
}

/// A name for a new volume that nobody has.
pub(crate) fn new_volume(
    state: &State,
    storage: &Storage,
    kind: GuestKind,
    vmid: u32,
    format: &str,
) -> String {
    let taken: Vec<String> = state.guests.get(&vmid).map(volumes_of).unwrap_or_default();
    let name = |disk: usize| {
        let id = &storage.id;
        if has_files(storage) {
            let format = if format.is_empty() { "raw" } else { format };
            format!("{id}:{vmid}/vm-{vmid}-disk-{disk}.{format}")
        } else {
            storage.volume_id(kind, vmid, disk)
        }
    };
    let stem = |volume: &str| volume.rsplit_once('.').map_or(volume.to_owned(), |(stem, _)| stem.to_owned());
    let is_free = |volume: &String| {
        let same = |have: &String| have == volume || has_files(storage) && stem(have) == stem(volume);
        !taken.iter().any(same) && !state.volumes.keys().any(same)
    };
    (0..).map(name).find(is_free).unwrap_or_default()
}

/// What a drive's value becomes: `store:32` is a new volume of 32 GiB, anything else stays what it is.
pub(crate) fn place_drive(
    state: &State,
    kind: GuestKind,
    vmid: u32,
    node: &str,
    key: &str,
    value: &str,
    log: &mut Log,
) -> Result<String, String> {
    let method = config_method(kind).ok_or("no declaration")?;
    let mut parts = schema::properties(method, key, value).unwrap_or_default();
    let name = if kind == GuestKind::Qemu { "file" } else { "volume" };
    let Some(volume) = parts.remove(name) else { return Ok(value.to_owned()) };
    let format = parts.remove("format").unwrap_or_default();
    let rebuilt = |volume: &str, parts: &BTreeMap<String, String>| {
        let rest: String = parts.iter().map(|(key, value)| format!(",{key}={value}")).collect();
        in_order(kind, key, &format!("{volume}{rest}"))
    };
    if matches!(volume.as_str(), "none" | "cdrom") || volume.starts_with('/') {
        return Ok(rebuilt(&volume, &parts));
    }
    let (storage, name) =
        volume.split_once(':').ok_or_else(|| format!("unable to parse volume ID '{volume}'"))?;
    let target = usable(state, storage, node)?;
    let imported = parts.remove("import-from");
    let gib: Option<f64> = name.parse().ok();
    if name == "cloudinit" {
        let new = if has_files(target) {
            format!("{storage}:{vmid}/vm-{vmid}-cloudinit.qcow2")
        } else {
            format!("{storage}:vm-{vmid}-cloudinit")
        };
        parts.insert("media".to_owned(), "cdrom".to_owned());
        return Ok(rebuilt(&new, &parts));
    }
    let Some(gib) = gib else {
        let lost = parts.get("media").is_none_or(|media| media != "cdrom") && !volume_exists(state, &volume);
        if lost {
            return Err(format!("volume '{volume}' does not exist"));
        }
        if !parts.contains_key("size")
            && let Some(known) = state.volumes.get(&volume).filter(|known| known.content == "images")
        {
            parts.insert("size".to_owned(), format_size(known.size));
        }
        return Ok(rebuilt(&volume, &parts));
    };
    let wanted = if kind == GuestKind::Qemu { "images" } else { "rootdir" };
    if !target.content.split(',').any(|content| content == wanted) {
        return Err(format!("storage '{storage}' does not support content-type '{wanted}'"));
    }
    // Firmware variables and TPM state have a size of their own.
    let size = match key {
        "efidisk0" => 528 << 10,
        "tpmstate0" => 4 << 20,
        _ if imported.is_some() => 8 << 30,
        _ => (gib * f64::from(1 << 30)) as u64,
    };
    let new = new_volume(state, target, kind, vmid, &format);
    parts.insert("size".to_owned(), format_size(size));
    let value = rebuilt(&new, &parts);
    log.push(format!("{key}: successfully created disk '{value}'"));
    Ok(value)
}

/// Puts a value under a drive's key. An old volume there becomes `unusedN`, and an `unusedN` that comes back goes.
pub(crate) fn attach(guest: &mut Guest, key: &str, value: &str) {
    let new = parse_drive(key, value).volume;
    if let Some(old) = guest.config.text(key).map(|old| old.into_owned()) {
        let drive = parse_drive(key, &old);
        if drive.volume != new && !drive.is_cdrom() && drive.storage().is_some() {
            keep_as_unused(&mut guest.config, &drive.volume);
        }
    }
    let back: Vec<String> = guest
        .config
        .iter()
        .filter(|(key, value)| is_numbered(key, "unused") && value.to_text() == new)
        .map(|(key, _)| key.to_owned())
        .collect();
    for unused in back {
        guest.config.remove(&unused);
    }
    guest.config.set(key.to_owned(), value);
}

/// Takes a drive off. Its volume becomes `unusedN`, unless it is to be freed or is no disk.
pub(crate) fn detach(guest: &mut Guest, key: &str, free: bool) {
    let Some(old) = guest.config.text(key).map(|old| old.into_owned()) else { return };
    guest.config.remove(key);
    let drive = parse_drive(key, &old);
    // `virtio=BC:24:…` is no volume.
    let is_disk = is_drive(guest.kind, key) && !drive.is_cdrom() && drive.storage().is_some();
    if !free && is_disk && !is_numbered(key, "unused") {
        keep_as_unused(&mut guest.config, &drive.volume);
    }
}

pub(crate) fn keep_as_unused(config: &mut Config, volume: &str) {
    let free = (0..256).map(|number| format!("unused{number}")).find(|key| config.get(key).is_none());
    if let Some(key) = free {
        config.set(key, volume);
    }
}

fn drive_of(state: &State, work: &Work, key: &str) -> Result<String, String> {
    let guest = state.guests.get(&work.vmid()).ok_or_else(|| super::missing(state, work))?;
    match guest.config.text(key) {
        Some(value) => Ok(value.into_owned()),
        None => Err(format!("disk '{key}' does not exist")),
    }
}

/// What a resize must find: the disk, which is one, and no lock.
pub(super) fn begin_resize(state: &State, work: &Work) -> Outcome {
    let guest = state.guests.get(&work.vmid()).ok_or_else(|| super::missing(state, work))?;
    if !work.flag("skiplock") {
        super::check_lock(state, work)?;
    }
    if work.given("digest").is_some_and(|digest| digest != guest.digest()) {
        return Err("checksum mismatch (file change by other user?)".to_owned());
    }
    let key = work.text("disk");
    let volume = drive_of(state, work, key)?;
    if !guest.snapshots.is_empty() && volume.split(',').next().is_some_and(|name| name.ends_with(".qcow2")) {
        return Err(format!("can't resize volume: {key} if snapshot exists"));
    }
    new_size(state, work).map(drop)
}

/// Disks only grow. A container's refuses its own size again, a VM's does not.
fn new_size(state: &State, work: &Work) -> Result<(String, u64), String> {
    let key = work.text("disk");
    let value = drive_of(state, work, key)?;
    let drive = parse_drive(key, &value);
    if drive.storage().is_none() {
        return Err(format!("unable to parse volume ID '{}'", drive.volume));
    }
    let old = drive.size().unwrap_or_default();
    let size = work.text("size");
    let parse = |text: &str| -> u64 {
        let number = text.trim_end_matches(|unit: char| unit.is_ascii_alphabetic());
        match number.split_once('.') {
            None => parse_size(text).unwrap_or_default(),
            Some(_) => {
                let unit = parse_size(&format!("1{}", text.strip_prefix(number).unwrap_or_default()));
                (number.parse::<f64>().unwrap_or_default() * unit.unwrap_or(1) as f64) as u64
            }
        }
    };
    let new = match size.strip_prefix('+') {
        Some(more) => old + parse(more),
        None => parse(size),
    };
    let is_lxc = state.guests.get(&work.vmid()).is_some_and(|guest| guest.kind == GuestKind::Lxc);
    if new < old {
        let text = if is_lxc { "unable to shrink disk size" } else { "shrinking disks is not supported" };
        return Err(text.to_owned());
    }
    if is_lxc && new == old {
        return Err("disk is already at specified size".to_owned());
    }
    Ok((value, new))
}

pub(super) fn resize(state: &mut State, work: &Work, log: &mut Log) -> Outcome {
    let (value, size) = new_size(state, work)?;
    let key = work.text("disk");
    if let Some(guest) = state.guests.get_mut(&work.vmid()) {
        let drive = parse_drive(key, &value);
        let rest = drive.options.iter().filter(|(name, _)| name != "size");
        let rest: String = rest.map(|(name, value)| format!(",{name}={value}")).collect();
        let text = in_order(guest.kind, key, &format!("{},size={}{rest}", drive.volume, format_size(size)));
        guest.config.set(key.to_owned(), text);
        if !guest.is_running() {
            log.push("Image resized.".to_owned());
        }
    }
    Ok(())
}

pub(super) fn move_disk(state: &mut State, work: &Work, log: &mut Log) -> Outcome {
    let key = if work.kind == "qmmove" { work.text("disk") } else { work.text("volume") };
    let value = drive_of(state, work, key)?;
    let drive = parse_drive(key, &value);
    let guest = state.guests.get(&work.vmid()).ok_or_else(|| super::missing(state, work))?;
    let storage = usable(state, work.text("storage"), &guest.node)?;
    let new = new_volume(state, storage, guest.kind, guest.vmid, work.text("format"));
    log.push(format!("create full clone of drive {key} ({})", drive.volume));
    let rest: String = drive.options.iter().map(|(name, value)| format!(",{name}={value}")).collect();
    let text = in_order(guest.kind, key, &format!("{new}{rest}"));
    let old = drive.volume.clone();
    if let Some(guest) = state.guests.get_mut(&work.vmid()) {
        guest.config.set(key.to_owned(), text);
        if !work.flag("delete") {
            keep_as_unused(&mut guest.config, &old);
        }
    }
    Ok(())
}
