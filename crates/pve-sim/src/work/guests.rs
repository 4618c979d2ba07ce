//! Work on guests: creation, and how values are stored.

use super::disks::{self, is_drive, place_drive};
use super::{Log, Outcome, guest_word};
use crate::schema::split_list;
use crate::world::config::{Config, ConfigValue, is_numbered, parse_drive};
use crate::world::ids;
use crate::world::state::{Guest, GuestKind, Power, State, Work};

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

pub(super) fn kind_of(work: &Work) -> GuestKind {
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

pub(super) fn fresh_uuid(state: &mut State, what: &str) -> String {
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

/// A template's disks become base images.
pub(crate) fn template(state: &mut State, work: &Work) -> Outcome {
    let Some(guest) = state.guests.get_mut(&work.vmid()) else { return Err(super::missing(state, work)) };
    let keys: Vec<String> = guest.config.iter().map(|(key, _)| key.to_owned()).collect();
    for key in keys.iter().filter(|key| is_drive(guest.kind, key)) {
        let value = guest.config.text(key).unwrap_or_default().into_owned();
        let disk = |prefix: &str| format!("{prefix}-{}-disk-", guest.vmid);
        let based = value.replace(&disk("vm"), &disk("base")).replace(&disk("subvol"), &disk("basevol"));
        guest.config.set(key.clone(), based);
    }
    guest.config.set("template", 1);
    Ok(())
}
