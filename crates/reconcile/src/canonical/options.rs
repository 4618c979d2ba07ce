//! The tables of options: which there are, of what kind, and which are managed (API schema of PVE 8.4).

use pvegraph_inventory::GuestType;

use super::{Format, Kind, Sub};

/// What may be done with an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Managed {
    /// It can be desired.
    Yes,
    /// PVE keeps it itself, or an action of its own changes it; the words say which.
    No(&'static str),
}

/// One option of a guest, or a numbered family of them.
#[derive(Debug)]
pub struct Opt {
    /// Its name; the name without the number where there are several.
    pub name: &'static str,
    /// How many there are, where they are numbered: the first number that is too large.
    pub count: Option<u16>,
    /// The kind of its value.
    pub kind: Kind,
    /// Whether it can be desired.
    pub managed: Managed,
}

macro_rules! subs {
    ($($name:literal $(| $alias:literal)? : $kind:ident $(($by:literal))?),* $(,)?) => {
        &[$(Sub { name: $name, kind: Kind::$kind $(($by))?, alias: subs!(@alias $($alias)?) }),*]
    };
    (@alias) => { None };
    (@alias $alias:literal) => { Some($alias) };
}

macro_rules! formats {
    ($($const:ident = $default:expr => { $($subs:tt)* })*) => {
        $(static $const: Format = Format { name: stringify!($const), default: $default, subs: subs! { $($subs)* } };)*
    };
}

formats! {
    AGENT = Some("enabled") => {
        "enabled": Bool, "freeze-fs-on-backup": Bool, "fstrim_cloned_disks": Bool, "type": Text,
    }
    SEV = Some("type") => {
        "type": Text, "allow-smt": Bool, "kernel-hashes": Bool, "no-debug": Bool, "no-key-sharing": Bool,
    }
    AUDIO = None => { "device": Text, "driver": Text }
    BOOT = Some("legacy") => { "legacy": Text, "order": List(';') }
    CICUSTOM = None => { "meta": Text, "network": Text, "user": Text, "vendor": Text }
    CPU = Some("cputype") => {
        "cputype": Text, "flags": Set(';'), "hidden": Bool, "hv-vendor-id": Text, "phys-bits": Text, "reported-model": Text,
    }
    DRIVE = Some("volume") => {
        "volume" | "file": Text, "aio": Text, "backup": Bool, "bps": Integer, "bps_rd": Integer, "bps_wr": Integer,
        "bps_max_length": Integer, "bps_rd_max_length" | "bps_rd_length": Integer,
        "bps_wr_max_length" | "bps_wr_length": Integer, "cache": Text, "cyls": Integer, "detect_zeroes": Bool,
        "discard": Text, "efitype": Text, "format": Text, "heads": Integer, "import-from": Text, "iops": Integer,
        "iops_max": Integer, "iops_max_length": Integer, "iops_rd": Integer, "iops_rd_max": Integer,
        "iops_rd_max_length" | "iops_rd_length": Integer, "iops_wr": Integer, "iops_wr_max": Integer,
        "iops_wr_max_length" | "iops_wr_length": Integer, "iothread": Bool, "mbps": Decimal, "mbps_max": Decimal,
        "mbps_rd": Decimal, "mbps_rd_max": Decimal, "mbps_wr": Decimal, "mbps_wr_max": Decimal, "media": Text,
        "model": Text, "ms-cert": Text, "pre-enrolled-keys": Bool, "product": Text, "queues": Integer,
        "replicate": Bool, "rerror": Text, "ro": Bool, "scsiblock": Bool, "secs": Integer, "serial": Text,
        "shared": Bool, "size": Size, "snapshot": Bool, "ssd": Bool, "trans": Text, "vendor": Text, "version": Text,
        "werror": Text, "wwn": Text,
    }
    HOSTPCI = Some("host") => {
        "host": Text, "device-id": Text, "legacy-igd": Bool, "mapping": Text, "mdev": Text, "pcie": Bool,
        "rombar": Bool, "romfile": Text, "sub-device-id": Text, "sub-vendor-id": Text, "vendor-id": Text, "x-vga": Bool,
    }
    IPCONFIG = None => { "gw": Text, "gw6": Text, "ip": Text, "ip6": Text }
    IVSHMEM = None => { "name": Text, "size": Integer }
    MACHINE = Some("type") => { "type": Text, "enable-s3": Bool, "enable-s4": Bool, "viommu": Text }
    MEMORY = Some("current") => { "current": Integer }
    NIC = Some("model") => {
        "model": Text, "macaddr": Mac, "bridge": Text, "firewall": Bool, "link_down": Bool, "mtu": Integer,
        "queues": Integer, "rate": Decimal, "tag": Integer, "trunks": Set(';'),
    }
    NUMA = None => { "cpus": Text, "hostnodes": Text, "memory": Decimal, "policy": Text }
    RNG = Some("source") => { "source": Text, "max_bytes": Integer, "period": Integer }
    SMBIOS = None => {
        "base64": Bool, "family": Text, "manufacturer": Text, "product": Text, "serial": Text, "sku": Text,
        "uuid": Text, "version": Text,
    }
    SPICE = None => { "foldersharing": Bool, "videostreaming": Text }
    STARTUP = Some("order") => { "order": Integer, "up": Integer, "down": Integer }
    USB = Some("host") => { "host": Text, "mapping": Text, "usb3": Bool }
    VGA = Some("type") => { "type": Text, "clipboard": Text, "memory": Integer }
    VIRTIOFS = Some("dirid") => {
        "dirid": Text, "cache": Text, "direct-io": Bool, "expose-acl": Bool, "expose-xattr": Bool,
    }
    WATCHDOG = Some("model") => { "model": Text, "action": Text }
    DEVICE = Some("path") => { "path": Text, "deny-write": Bool, "gid": Integer, "mode": Text, "uid": Integer }
    FEATURES = None => {
        "force_rw_sys": Bool, "fuse": Bool, "keyctl": Bool, "mknod": Bool, "mount": Set(';'), "nesting": Bool,
    }
    MOUNT = Some("volume") => {
        "volume": Text, "acl": Bool, "backup": Bool, "mountoptions": Set(';'), "mp": Text, "quota": Bool,
        "replicate": Bool, "ro": Bool, "shared": Bool, "size": Size,
    }
    VETH = None => {
        "name": Text, "bridge": Text, "firewall": Bool, "gw": Text, "gw6": Text, "hwaddr": Mac, "ip": Text, "ip6": Text,
        "link_down": Bool, "mtu": Integer, "rate": Decimal, "tag": Integer, "trunks": Set(';'), "type": Text,
    }
}

const KEPT: Managed = Managed::No("Proxmox VE keeps it itself");
const SNAPSHOT: Managed = Managed::No("it belongs to a snapshot");
const UNUSED: Managed = Managed::No("it is what a detached volume leaves behind");
const TEMPLATE: Managed =
    Managed::No("a template is made by converting a guest, and never becomes a guest again");

macro_rules! options {
    ($(#[$meta:meta])* $const:ident: $($name:literal $([$count:literal])? $kind:ident $(($arg:expr))? $(not $why:ident)?;)*) => {
        $(#[$meta])*
        static $const: &[Opt] = &[$(Opt {
            name: $name,
            count: options!(@count $($count)?),
            kind: options!(@kind $kind $(($arg))?),
            managed: options!(@managed $($why)?),
        }),*];
    };
    (@count) => { None };
    (@count $count:literal) => { Some($count) };
    (@kind Property($format:expr)) => { Kind::Property(&$format) };
    (@kind Nic($format:expr)) => { Kind::Nic(&$format) };
    (@kind $kind:ident) => { Kind::$kind };
    (@kind $kind:ident($by:expr)) => { Kind::$kind($by) };
    (@managed) => { Managed::Yes };
    (@managed $why:ident) => { $why };
}

options! {
    /// Options of virtual machines.
    QEMU:
    "acpi" Bool;
    "affinity" Text;
    "agent" Property(AGENT);
    "amd-sev" Property(SEV);
    "arch" Text;
    "args" Description;
    "audio0" Property(AUDIO);
    "autostart" Bool;
    "balloon" Integer;
    "bios" Text;
    "boot" Property(BOOT);
    "bootdisk" Text;
    "cicustom" Property(CICUSTOM);
    "cipassword" Secret;
    "citype" Text;
    "ciupgrade" Bool;
    "ciuser" Text;
    "cores" Integer;
    "cpu" Property(CPU);
    "cpulimit" Decimal;
    "cpuunits" Integer;
    "description" Description;
    "digest" Text not KEPT;
    "efidisk0" Property(DRIVE);
    "freeze" Bool;
    "hookscript" Text;
    "hostpci"[16] Property(HOSTPCI);
    "hotplug" Hotplug;
    "hugepages" Text;
    "ide"[4] Property(DRIVE);
    "ipconfig"[32] Property(IPCONFIG);
    "ivshmem" Property(IVSHMEM);
    "keephugepages" Bool;
    "keyboard" Text;
    "kvm" Bool;
    "localtime" Bool;
    "lock" Text not KEPT;
    "machine" Property(MACHINE);
    "memory" Property(MEMORY);
    "meta" Text not KEPT;
    "migrate_downtime" Decimal;
    "migrate_speed" Integer;
    "name" Text;
    "nameserver" Set(' ');
    "net"[32] Nic(NIC);
    "numa" Bool;
    "numa"[8] Property(NUMA);
    "onboot" Bool;
    "ostype" Text;
    "parallel"[3] Text;
    "parent" Text not SNAPSHOT;
    "protection" Bool;
    "reboot" Bool;
    "rng0" Property(RNG);
    "runningcpu" Text not SNAPSHOT;
    "runningmachine" Text not SNAPSHOT;
    "sata"[6] Property(DRIVE);
    "scsi"[31] Property(DRIVE);
    "scsihw" Text;
    "searchdomain" Set(' ');
    "serial"[4] Text;
    "shares" Integer;
    "smbios1" Property(SMBIOS);
    "snaptime" Integer not SNAPSHOT;
    "sockets" Integer;
    "spice_enhancements" Property(SPICE);
    "sshkeys" SshKeys;
    "startdate" Text;
    "startup" Property(STARTUP);
    "tablet" Bool;
    "tags" Tags;
    "tdf" Bool;
    "template" Bool not TEMPLATE;
    "tpmstate0" Property(DRIVE);
    "unused"[256] Property(DRIVE) not UNUSED;
    "usb"[14] Property(USB);
    "vcpus" Integer;
    "vga" Property(VGA);
    "virtio"[16] Property(DRIVE);
    "virtiofs"[10] Property(VIRTIOFS);
    "vmgenid" Text not KEPT;
    "vmstate" Text not SNAPSHOT;
    "vmstatestorage" Text;
    "watchdog" Property(WATCHDOG);
}

options! {
    /// Options of containers.
    LXC:
    "arch" Text;
    "cmode" Text;
    "console" Bool;
    "cores" Integer;
    "cpulimit" Decimal;
    "cpuunits" Integer;
    "debug" Bool;
    "description" Description;
    "dev"[256] Property(DEVICE);
    "digest" Text not KEPT;
    "features" Property(FEATURES);
    "hookscript" Text;
    "hostname" Text;
    "lock" Text not KEPT;
    "memory" Integer;
    "mp"[256] Property(MOUNT);
    "nameserver" Set(' ');
    "net"[32] Property(VETH);
    "onboot" Bool;
    "ostype" Text;
    "parent" Text not SNAPSHOT;
    "protection" Bool;
    "rootfs" Property(MOUNT);
    "searchdomain" Set(' ');
    "snaptime" Integer not SNAPSHOT;
    "startup" Property(STARTUP);
    "swap" Integer;
    "tags" Tags;
    "template" Bool not TEMPLATE;
    "timezone" Text;
    "tty" Integer;
    "unprivileged" Bool;
    "unused"[256] Property(MOUNT) not UNUSED;
}

/// All options of a kind of guest.
pub fn options(guest: GuestType) -> &'static [Opt] {
    match guest {
        GuestType::Qemu => QEMU,
        GuestType::Lxc => LXC,
    }
}

/// The option of this key: `cores`, or for `net0` the family of network interfaces.
pub fn find(guest: GuestType, key: &str) -> Option<&'static Opt> {
    options(guest).iter().find(|option| match option.count {
        None => option.name == key,
        Some(count) => number_after(key, option.name).is_some_and(|number| number < count),
    })
}

/// The number behind a family's name, as PVE writes it: without leading zeros.
fn number_after(key: &str, name: &str) -> Option<u16> {
    let digits = key.strip_prefix(name)?;
    let plain = matches!(digits.len(), 1..=3) && digits.bytes().all(|byte| byte.is_ascii_digit());
    (plain && (digits == "0" || !digits.starts_with('0'))).then(|| digits.parse().ok()).flatten()
}

/// Is it the key of a drive or of a container's volume?
pub fn is_disk(guest: GuestType, key: &str) -> bool {
    let format = find(guest, key).and_then(|option| option.kind.format());
    format.is_some_and(|format| std::ptr::eq(format, &DRIVE) || std::ptr::eq(format, &MOUNT))
}

/// Is it the key of a network interface?
pub fn is_nic(guest: GuestType, key: &str) -> bool {
    let format = find(guest, key).and_then(|option| option.kind.format());
    format.is_some_and(|format| std::ptr::eq(format, &NIC) || std::ptr::eq(format, &VETH))
}
