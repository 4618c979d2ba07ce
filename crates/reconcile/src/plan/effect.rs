//! What a change does to a guest while it runs. Where PVE's behaviour is not known for certain, a restart is expected.

use std::fmt;

use pvegraph_inventory::GuestType;
use serde::{Deserialize, Serialize};

use super::Action;
use crate::canonical::{is_disk, is_nic};
use crate::diff::Change;
use crate::live::LiveGuest;

/// What an operation does to a guest, from the least to the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// Nothing that it would notice.
    Hot,
    /// It is made.
    Create,
    /// It stays as it is until its next start, because it must not be restarted.
    Pending,
    /// It goes elsewhere while it runs.
    Move,
    /// It is stopped and started.
    Restart,
    /// It is stopped.
    Stop,
    /// It is gone for good.
    Delete,
}

impl Effect {
    /// Does the guest stop serving others?
    pub fn interrupts(self) -> bool {
        matches!(self, Self::Restart | Self::Stop | Self::Delete)
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hot => "hot",
            Self::Create => "create",
            Self::Pending => "pending until restart",
            Self::Move => "move",
            Self::Restart => "restart",
            Self::Stop => "stop",
            Self::Delete => "delete",
        })
    }
}

/// The operation that changes this field.
pub(super) fn action_of(guest: GuestType, field: &str) -> Action {
    match (field, field.split_once('.')) {
        ("node", _) => Action::Migrate,
        ("state", _) => Action::Power,
        ("template", _) => Action::Template,
        (_, Some((key, "size"))) if is_disk(guest, key) => Action::Grow,
        (_, Some((key, "storage" | "format"))) if is_disk(guest, key) => Action::Move,
        _ => Action::Configure,
    }
}

/// Options of machines that never need a restart.
const HOT_QEMU: [&str; 19] = [
    "name",
    "description",
    "tags",
    "onboot",
    "protection",
    "startup",
    "hookscript",
    "shares",
    "cicustom",
    "cipassword",
    "citype",
    "ciupgrade",
    "ciuser",
    "sshkeys",
    "nameserver",
    "searchdomain",
    "cpuunits",
    "cpulimit",
    "boot",
];

/// Options of containers that never need a restart.
const HOT_LXC: [&str; 10] = [
    "description",
    "tags",
    "onboot",
    "protection",
    "startup",
    "hookscript",
    "cpuunits",
    "cpulimit",
    "cores",
    "memory",
];

/// Parts of a drive that the running machine takes, as long as its disks may be plugged.
const HOT_DRIVE: [&str; 14] = [
    "backup",
    "replicate",
    "bps",
    "bps_rd",
    "bps_wr",
    "iops",
    "iops_rd",
    "iops_wr",
    "iops_max",
    "iops_rd_max",
    "iops_wr_max",
    "mbps",
    "mbps_rd",
    "mbps_wr",
];

/// What this change does to the guest.
pub(super) fn of(live: &LiveGuest, action: Action, change: &Change) -> Effect {
    let field = change.field.as_str();
    match action {
        Action::Create => return Effect::Create,
        Action::Destroy => return Effect::Delete,
        Action::Mark | Action::Grow | Action::Move | Action::Snapshot | Action::Template => {
            return Effect::Hot;
        }
        Action::RestoreSnapshot => return Effect::Restart,
        Action::Migrate if live.status != "running" => return Effect::Hot,
        // A container can't move while it runs.
        Action::Migrate if live.kind == GuestType::Lxc => return Effect::Restart,
        Action::Migrate => return Effect::Move,
        Action::Power if live.status == "running" => return Effect::Stop,
        Action::Power => return Effect::Hot,
        Action::Configure => {}
    }
    if live.status != "running" {
        return Effect::Hot;
    }
    let (key, part) = field.split_once('.').map_or((field, None), |(key, part)| (key, Some(part)));
    let hot = match live.kind {
        GuestType::Qemu => {
            HOT_QEMU.contains(&key)
                || key.starts_with("ipconfig")
                || key == "balloon" && balloons(live, change)
                || is_nic(live.kind, key) && plugs(live, "network") && part != Some("model")
                || is_disk(live.kind, key) && drive(live, key, part)
        }
        // A volume is mounted while the container runs where there is none, and only taken away at its next start.
        GuestType::Lxc if is_disk(live.kind, key) => {
            key != "rootfs" && change.new.is_some() && !live.config.contains_key(key)
        }
        GuestType::Lxc => HOT_LXC.contains(&key) || key == "swap" || is_nic(live.kind, key),
    };
    if hot { Effect::Hot } else { Effect::Restart }
}

/// Does the running machine take this change of a drive? SCSI and VirtIO disks come and go; IDE and SATA ones, EFI disks and TPMs don't. A
/// medium is changed in any drive.
fn drive(live: &LiveGuest, key: &str, part: Option<&str>) -> bool {
    let is = |family: &str| key.strip_prefix(family).is_some_and(|rest| rest.parse::<u8>().is_ok());
    let cdrom =
        live.config.get(key).is_some_and(|text| text.split(',').any(|option| option == "media=cdrom"));
    if part == Some("volume") && cdrom {
        return true;
    }
    let plugged = (is("scsi") || is("virtio")) && plugs(live, "disk");
    plugged && part.is_none_or(|part| part == "volume" || HOT_DRIVE.contains(&part))
}

/// The balloon's device stays: its target can be set, and neither was it off nor shall it be.
fn balloons(live: &LiveGuest, change: &Change) -> bool {
    let off = |value: Option<&String>| value.is_some_and(|value| value == "0");
    !off(live.config.get("balloon")) && !off(change.new.as_ref())
}

/// Can devices of this kind be plugged while the machine runs?
fn plugs(live: &LiveGuest, what: &str) -> bool {
    match live.config.get("hotplug").map(String::as_str) {
        None | Some("1") => true,
        Some(words) => words.split([',', ';', ' ']).any(|word| word == what),
    }
}
