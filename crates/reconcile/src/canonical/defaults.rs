//! What PVE takes an absent option for, where its API schema says so. Only comparisons use it: a guest that does not say
//! `onboot` is what `onboot: 0` desires. Nothing is ever written because of it.

use pvegraph_inventory::GuestType;

use super::{Canonical, TagStyle, find};

const QEMU: [(&str, &str); 23] = [
    ("acpi", "1"),
    ("agent", "enabled=0"),
    ("autostart", "0"),
    ("bios", "seabios"),
    ("ciupgrade", "1"),
    ("cores", "1"),
    ("cpulimit", "0"),
    ("description", ""),
    ("freeze", "0"),
    ("hotplug", "disk,network,usb"),
    ("keephugepages", "0"),
    ("kvm", "1"),
    ("localtime", "0"),
    ("memory", "512"),
    ("numa", "0"),
    ("onboot", "0"),
    ("protection", "0"),
    ("reboot", "1"),
    ("scsihw", "lsi"),
    ("shares", "1000"),
    ("sockets", "1"),
    ("tablet", "1"),
    ("tags", ""),
];

const LXC: [(&str, &str); 14] = [
    ("arch", "amd64"),
    ("cmode", "tty"),
    ("console", "1"),
    ("cpulimit", "0"),
    ("debug", "0"),
    ("description", ""),
    ("memory", "512"),
    ("onboot", "0"),
    ("protection", "0"),
    ("swap", "512"),
    ("tags", ""),
    ("tty", "2"),
    ("unprivileged", "0"),
    ("features", ""),
];

/// Options of devices.
const SUBS: [(&str, &str); 10] = [
    ("backup", "1"),
    ("firewall", "0"),
    ("iothread", "0"),
    ("link_down", "0"),
    ("media", "disk"),
    ("quota", "0"),
    ("replicate", "1"),
    ("ro", "0"),
    ("shared", "0"),
    ("ssd", "0"),
];

/// What an absent option stands for.
pub fn default_of(guest: GuestType, key: &str) -> Option<Canonical> {
    let table: &[(&str, &str)] = match guest {
        GuestType::Qemu => &QEMU,
        GuestType::Lxc => &LXC,
    };
    let text = table.iter().find(|(name, _)| *name == key).map(|(_, text)| *text)?;
    Some(find(guest, key)?.kind.read(text, TagStyle::default()))
}

/// What an absent option of a device or another property string stands for.
pub fn default_of_sub(guest: GuestType, key: &str, sub: &str) -> Option<Canonical> {
    // A container's further volumes are in no backup unless they say so.
    let text = match (guest, sub) {
        (GuestType::Lxc, "backup") => "0",
        _ => SUBS.iter().find(|(name, _)| *name == sub).map(|(_, text)| *text)?,
    };
    let sub = find(guest, key)?.kind.format()?.sub(sub)?;
    Some(sub.kind.read(text, TagStyle::default()))
}
