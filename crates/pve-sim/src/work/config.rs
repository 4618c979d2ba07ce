//! Work on a guest's configuration: what is written at once, and what waits for the next start.

use super::disks::{self, attach, is_drive, place_drive};
use super::guests::{NO_CONFIG, stored};
use super::{Log, Outcome};
use crate::schema::split_list;
use crate::world::config::{ConfigValue, is_numbered, parse_drive};
use crate::world::state::{Guest, GuestKind, State, Work};

/// The second half of `POST …/config`: the same as a PUT, in a task.
pub(super) fn configure(state: &mut State, work: &Work, log: &mut Log) -> Outcome {
    let shown: Vec<String> = work
        .arguments
        .iter()
        .filter(|(key, _)| {
            !matches!(key.as_str(), "node" | "vmid" | "digest" | "skiplock" | "background_delay" | "problem")
        })
        .map(|(key, value)| match key.as_str() {
            "cipassword" => format!("-{key} <hidden>"),
            _ => format!("-{key} {value}"),
        })
        .collect();
    log.push(format!("update VM {}: {}", work.vmid(), shown.join(" ")));
    // What the request already showed to fail, fails here.
    if let Some(problem) = work.given("problem").filter(|problem| !problem.is_empty()) {
        return Err(problem.to_owned());
    }
    apply(state, work, log)
}

/// Keys that a running VM takes at once. Everything else waits for its next start.
fn is_hot(kind: GuestKind, key: &str) -> bool {
    const ALWAYS: [&str; 25] = [
        "name",
        "description",
        "tags",
        "onboot",
        "protection",
        "startup",
        "hookscript",
        "shares",
        "cpuunits",
        "cpulimit",
        "lock",
        "template",
        "vmgenid-force",
        "citype",
        "ciuser",
        "cipassword",
        "cicustom",
        "sshkeys",
        "nameserver",
        "searchdomain",
        "ciupgrade",
        "bootdisk",
        "migrate_speed",
        "migrate_downtime",
        "balloon",
    ];
    match kind {
        GuestKind::Qemu => ALWAYS.contains(&key) || is_numbered(key, "ipconfig"),
        GuestKind::Lxc => {
            !matches!(key, "features" | "hostname" | "arch" | "cmode" | "console" | "tty" | "ostype")
                && !is_numbered(key, "dev")
        }
    }
}

fn hotplugs(guest: &Guest, what: &str) -> bool {
    let text = guest.config.text("hotplug").unwrap_or_else(|| "network,disk,usb".into());
    text == "1" || split_list(&text).any(|one| one == what)
}

/// Whether a drive or card may come and go while the guest runs.
fn is_hot_device(guest: &Guest, key: &str) -> bool {
    match guest.kind {
        GuestKind::Lxc => is_numbered(key, "net") || is_numbered(key, "mp") || is_numbered(key, "unused"),
        GuestKind::Qemu => {
            is_numbered(key, "unused")
                || is_numbered(key, "net") && hotplugs(guest, "network")
                || (is_numbered(key, "scsi") || is_numbered(key, "virtio")) && hotplugs(guest, "disk")
                || is_numbered(key, "usb") && hotplugs(guest, "usb")
        }
    }
}

/// Writes a configuration option by option: what came before an option that fails stays.
pub(crate) fn apply(state: &mut State, work: &Work, log: &mut Log) -> Outcome {
    let vmid = work.vmid();
    let Some(guest) = state.guests.get_mut(&vmid) else { return Err(super::missing(state, work)) };
    let (kind, node) = (guest.kind, guest.node.to_string());
    for key in split_list(work.text("revert")) {
        guest.pending.retain(|(have, _)| have != key);
    }
    for key in split_list(work.text("delete")) {
        let key = if key == "cdrom" { "ide2" } else { key };
        guest.pending.retain(|(have, _)| have != key);
        if guest.config.get(key).is_none() {
            log.push(format!("cannot delete '{key}' - not set in current configuration!"));
            continue;
        }
        let running = guest.is_running();
        let device = is_drive(kind, key) || is_numbered(key, "net") || is_numbered(key, "unused");
        let now =
            !running || is_hot_device(guest, key) || !device && is_hot(kind, key) || key == "description";
        // A container's mount points go with its next start.
        let now = now && !(kind == GuestKind::Lxc && running && is_numbered(key, "mp"));
        if !now {
            guest.pending.push((key.to_owned(), None));
        } else if device {
            disks::detach(guest, key, work.flag("force"));
        } else {
            guest.config.remove(key);
        }
    }
    let settings: Vec<(String, String)> = work
        .arguments
        .iter()
        .filter(|(key, _)| !NO_CONFIG.contains(&key.as_str()))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    for (key, value) in settings {
        let value = if is_drive(kind, &key) {
            place_drive(state, kind, vmid, &node, &key, &value, log)?.into()
        } else {
            stored(state, kind, &key, &value)
        };
        let Some(guest) = state.guests.get_mut(&vmid) else { return Ok(()) };
        let is_empty = value.to_text().is_empty();
        let device = is_drive(kind, &key) || is_numbered(&key, "net");
        let now = !guest.is_running()
            || if device {
                is_hot_device(guest, &key) || is_media_change(guest, &key)
            } else {
                is_hot(kind, &key)
            };
        guest.pending.retain(|(have, _)| *have != key);
        if !now {
            if guest.config.get(&key).map(ConfigValue::to_text) != Some(value.to_text()) {
                guest.pending.push((key, Some(value)));
            }
        } else if is_drive(kind, &key) {
            attach(guest, &key, &value.to_text());
        } else if is_empty && key == "description" {
            guest.config.remove(&key);
        } else {
            guest.config.set(key, value);
        }
    }
    Ok(())
}

/// A CD can be changed at any time.
fn is_media_change(guest: &Guest, key: &str) -> bool {
    guest.config.text(key).is_some_and(|text| parse_drive(key, &text).is_cdrom())
}

/// What waited for the guest's next start.
pub(crate) fn apply_pending(guest: &mut Guest) {
    for (key, value) in std::mem::take(&mut guest.pending) {
        match value {
            Some(value) if is_drive(guest.kind, &key) => attach(guest, &key, &value.to_text()),
            Some(value) => guest.config.set(key, value),
            None => disks::detach(guest, &key, false),
        }
    }
}
