//! Which privilege each option of a guest's configuration takes.

use super::checks;
use crate::answer::Answer;
use crate::api::Act;
use crate::schema::split_list;
use crate::work::disks::is_drive;
use crate::world::access::Principal;
use crate::world::config::is_numbered;
use crate::world::state::{Guest, GuestKind};

use super::act::fail;

/// The privileges that a VM's option takes, any of them; `None` is for `root@pam` alone. What an option of a drive, a
/// serial port, a USB device or a tag takes depends on its value, and is asked for elsewhere.
fn for_vm(key: &str) -> Option<&'static [&'static str]> {
    let base = key.trim_end_matches(|character: char| character.is_ascii_digit());
    Some(match base {
        _ if is_drive(GuestKind::Qemu, key) || key == "cdrom" => &[],
        "unused" | "serial" | "usb" | "hostpci" if base != key => &[],
        "tags" => &["VM.Config.Options"],
        "cores" | "cpu" | "cpulimit" | "cpuunits" | "numa" | "smp" | "sockets" | "vcpus" => {
            &["VM.Config.CPU"]
        }
        "memory" | "balloon" | "shares" => &["VM.Config.Memory"],
        "acpi" | "hotplug" | "kvm" | "machine" | "scsihw" | "smbios" | "tablet" | "vga" | "watchdog"
        | "audio" => &["VM.Config.HWType"],
        "agent" | "autostart" | "bios" | "description" | "keyboard" | "localtime" | "migrate_downtime"
        | "migrate_speed" | "name" | "onboot" | "ostype" | "protection" | "reboot" | "startdate"
        | "startup" | "tdf" | "template" => &["VM.Config.Options"],
        "freeze" => &["VM.PowerMgmt"],
        "boot" | "bootdisk" | "vmstatestorage" => &["VM.Config.Disk"],
        "net" if base != key => &["VM.Config.Network"],
        "cicustom" | "cipassword" | "citype" | "ciuser" | "ciupgrade" | "nameserver" | "searchdomain"
        | "sshkeys" | "ipconfig" => &["VM.Config.Cloudinit", "VM.Config.Network"],
        _ => return None,
    })
}

/// 403 unless the caller holds one of these on the guest or, of a guest that is made in a pool, on the pool.
pub fn require_on_guest(
    act: &Act<'_>,
    vmid: u32,
    pool: Option<&str>,
    privileges: &[&str],
) -> Result<(), Answer> {
    let call = act.call();
    if pool.is_some_and(|pool| call.allows(&format!("/pool/{pool}"), privileges)) {
        return Ok(());
    }
    checks::require(&call, &format!("/vms/{vmid}"), privileges, true)
}

/// Every option of a VM needs its own privilege.
pub fn check_vm<'k>(
    act: &Act<'_>,
    vmid: u32,
    pool: Option<&str>,
    keys: impl Iterator<Item = &'k str>,
) -> Result<(), Answer> {
    if act.is_root() {
        return Ok(());
    }
    for key in keys {
        match for_vm(key) {
            Some([]) => {}
            Some(privileges) => require_on_guest(act, vmid, pool, privileges)?,
            None => return fail(format!("only root can set '{key}' config")),
        }
        // The order of starting concerns the whole node.
        if key == "startup" {
            act.require("/", &["Sys.Modify"])?;
        }
    }
    Ok(())
}

/// What drives, serial ports and devices of the host take, of an option that is written or deleted.
pub fn check_device(act: &Act<'_>, guest: Option<&Guest>, vmid: u32, key: &str) -> Result<(), Answer> {
    if act.is_root() {
        return Ok(());
    }
    let old = guest.and_then(|guest| guest.config.text(key)).unwrap_or_default().into_owned();
    let new = act.given(key);
    if is_drive(GuestKind::Qemu, key) || is_numbered(key, "unused") {
        let is_cdrom = |value: &str| value.split(',').any(|part| part == "media=cdrom");
        for value in [Some(old.as_str()).filter(|old| !old.is_empty()), new].into_iter().flatten() {
            let privilege = if is_cdrom(value) { "VM.Config.CDROM" } else { "VM.Config.Disk" };
            require_on_guest(act, vmid, None, &[privilege])?;
        }
    } else if is_numbered(key, "serial") {
        let socket = |value: &str| value.is_empty() || value == "socket";
        if !(socket(&old) && socket(new.unwrap_or_default())) {
            let verb = if new.is_some() { "modify" } else { "delete" };
            return fail(format!("only root can {verb} '{key}' config for real devices"));
        }
        require_on_guest(act, vmid, None, &["VM.Config.HWType"])?;
    } else if is_numbered(key, "usb") || is_numbered(key, "hostpci") {
        let value = new.unwrap_or(&old);
        let spice = value.split(',').any(|part| matches!(part, "spice" | "host=spice"));
        if !spice && !value.contains("mapping=") {
            return fail(format!("only root can set '{key}' config for real devices"));
        }
        require_on_guest(act, vmid, None, &["VM.Config.HWType"])?;
    }
    Ok(())
}

/// Every option of a container needs its own privilege. `unprivileged` says what the container is or will be.
pub fn check_container<'k>(
    act: &Act<'_>,
    vmid: u32,
    pool: Option<&str>,
    old: Option<&Guest>,
    unprivileged: bool,
    keys: impl Iterator<Item = (&'k str, Option<&'k str>)>,
) -> Result<(), Answer> {
    if act.is_root() {
        return Ok(());
    }
    let root_only = |what: &str| {
        Err(Answer::error(403, format!("Permission check failed ({what} is only allowed for root@pam)")))
    };
    for (key, value) in keys {
        let base = key.trim_end_matches(|character: char| character.is_ascii_digit());
        match base {
            "cores" | "cpuunits" | "cpulimit" => require_on_guest(act, vmid, pool, &["VM.Config.CPU"])?,
            "rootfs" | "mp" => {
                require_on_guest(act, vmid, pool, &["VM.Config.Disk"])?;
                let Some(value) = value else { continue };
                let volume = value.split(',').next().unwrap_or_default();
                let volume = volume.strip_prefix("volume=").unwrap_or(volume);
                if volume.starts_with("/dev/") {
                    return root_only("mount point type device");
                }
                if volume.starts_with('/') {
                    return root_only("mount point type bind");
                }
                match volume.split_once(':') {
                    Some((storage, size)) if size.parse::<f64>().is_ok() => {
                        act.require(&format!("/storage/{storage}"), &["Datastore.AllocateSpace"])?;
                    }
                    Some(_) => super::volume_access::check(&act.call(), Some(vmid), volume, Some("rootdir"))?,
                    None => {}
                }
            }
            "memory" | "swap" => require_on_guest(act, vmid, pool, &["VM.Config.Memory"])?,
            "net" => {
                require_on_guest(act, vmid, pool, &["VM.Config.Network"])?;
                let card = value.into_iter().map(|value| (key, value));
                super::volume_access::check_bridges(&act.call(), card)?;
            }
            "dev" => return root_only("configuring device passthrough"),
            "nameserver" | "searchdomain" | "hostname" => {
                require_on_guest(act, vmid, pool, &["VM.Config.Network"])?;
            }
            "features" => {
                if !unprivileged {
                    return root_only("changing feature flags for privileged container");
                }
                let before = old.and_then(|guest| guest.config.text(key)).unwrap_or_default().into_owned();
                let others = |text: &str| {
                    let mut all: Vec<String> = split_list(text)
                        .filter(|one| !one.starts_with("nesting="))
                        .map(str::to_owned)
                        .collect();
                    all.sort();
                    all
                };
                if others(&before) != others(value.unwrap_or_default()) {
                    return root_only("changing feature flags (except nesting)");
                }
                require_on_guest(act, vmid, pool, &["VM.Allocate"])?;
            }
            "hookscript" => return root_only("changing the hookscript"),
            _ => require_on_guest(act, vmid, pool, &["VM.Config.Options"])?,
        }
    }
    Ok(())
}

/// 400 for an option that PVE keeps for `root@pam`, not for its tokens.
pub fn root_only(act: &Act<'_>, names: &[&str]) -> Result<(), Answer> {
    let is_root = matches!(act.principal, Principal::User(user) if user == crate::world::access::ROOT);
    match names.iter().find(|name| !is_root && act.given(name).is_some_and(|value| value != "0")) {
        Some(name) => Err(Answer::bad_parameter(name, "Only root may use this option.")),
        None => Ok(()),
    }
}
