//! Clones of guests.

use super::disks::{self, is_drive};
use super::guests::{fresh_uuid, kind_of, stored, with_mac};
use super::{Log, Outcome, check_lock, guest_word};
use crate::world::config::{Config, is_numbered, parse_drive};
use crate::world::state::{GuestKind, Power, State, Work};

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
    copy.config.set("lock", if copy.kind == GuestKind::Qemu { "clone" } else { "create" });
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
