//! The configuration of guests.

use std::fmt;
use std::str::FromStr;

use crate::malformed::Malformed;
use crate::property::{
    Agent, Boot, ContainerNic, CreationMeta, Drive, Features, IpConfig, Memory, MountPoint, Nic, Smbios,
    Startup,
};
use crate::tags::Tags;
use crate::wire::{Slot, answer};

/// The number behind a key's name. PVE writes no leading zeros; it has at most 256 devices of one kind, so a number of
/// more than three digits is no device's.
fn number_after(key: &str, name: &str) -> Option<u16> {
    let number = key.strip_prefix(name)?;
    let plain = matches!(number.len(), 1..=3) && number.bytes().all(|byte| byte.is_ascii_digit());
    (plain && (number == "0" || !number.starts_with('0'))).then(|| number.parse().ok()).flatten()
}

macro_rules! numbered_slot {
    ($(#[$meta:meta])* $name:ident = $prefix:literal) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u16);

        impl Slot for $name {
            fn of(key: &str) -> Option<Self> {
                number_after(key, $prefix).map(Self)
            }
        }

        impl FromStr for $name {
            type Err = Malformed;

            fn from_str(key: &str) -> Result<Self, Malformed> {
                let malformed = || Malformed::new(concat!("a key such as `", $prefix, "0`"), key);
                Self::of(key).ok_or_else(malformed)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
    };
}

numbered_slot! {
    /// The key of a network interface: `net0`.
    NetSlot = "net"
}

numbered_slot! {
    /// The key of an interface's addresses for cloud-init: `ipconfig0` belongs to `net0`.
    IpConfigSlot = "ipconfig"
}

/// What a virtual machine's drive is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DiskBus {
    /// IDE.
    Ide,
    /// SATA.
    Sata,
    /// SCSI.
    Scsi,
    /// Virtio block.
    Virtio,
    /// The firmware's variables.
    EfiDisk,
    /// The state of the trusted platform module.
    TpmState,
    /// Attached to nothing.
    Unused,
}

impl DiskBus {
    const ALL: [Self; 7] =
        [Self::Ide, Self::Sata, Self::Scsi, Self::Virtio, Self::EfiDisk, Self::TpmState, Self::Unused];

    /// The name in keys, such as `scsi`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ide => "ide",
            Self::Sata => "sata",
            Self::Scsi => "scsi",
            Self::Virtio => "virtio",
            Self::EfiDisk => "efidisk",
            Self::TpmState => "tpmstate",
            Self::Unused => "unused",
        }
    }
}

/// The key of a virtual machine's drive: `scsi0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DiskSlot {
    /// What it is attached to.
    pub bus: DiskBus,
    /// The number on that bus.
    pub index: u16,
}

impl Slot for DiskSlot {
    fn of(key: &str) -> Option<Self> {
        DiskBus::ALL.into_iter().find_map(|bus| Some(Self { bus, index: number_after(key, bus.name())? }))
    }
}

impl FromStr for DiskSlot {
    type Err = Malformed;

    fn from_str(key: &str) -> Result<Self, Malformed> {
        Self::of(key).ok_or_else(|| Malformed::new("a drive's key such as `scsi0`", key))
    }
}

impl fmt::Display for DiskSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.bus.name(), self.index)
    }
}

/// The key of a container's volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MountSlot {
    /// `rootfs`.
    RootFs,
    /// `mp0`.
    MountPoint(u16),
    /// `unused0`: attached to nothing.
    Unused(u16),
}

impl Slot for MountSlot {
    fn of(key: &str) -> Option<Self> {
        if key == "rootfs" {
            return Some(Self::RootFs);
        }
        let mount = number_after(key, "mp").map(Self::MountPoint);
        mount.or_else(|| number_after(key, "unused").map(Self::Unused))
    }
}

impl FromStr for MountSlot {
    type Err = Malformed;

    fn from_str(key: &str) -> Result<Self, Malformed> {
        Self::of(key).ok_or_else(|| Malformed::new("a volume's key such as `rootfs` or `mp0`", key))
    }
}

impl fmt::Display for MountSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RootFs => f.write_str("rootfs"),
            Self::MountPoint(number) => write!(f, "mp{number}"),
            Self::Unused(number) => write!(f, "unused{number}"),
        }
    }
}

answer! {
    /// `/nodes/{node}/qemu/{vmid}/config` (`current=1` for the values in force, else pending ones count as applied), and
    /// `…/snapshot/{name}/config`. `cipassword` and `sshkeys` are never kept.
    #[derive(Default)]
    pub struct QemuConfig {
        optional {
            /// The name.
            name: String = "name",
            /// Free text of the user; may hold secrets.
            description: String = "description",
            /// The tags.
            tags: Tags = "tags",
            /// SHA-1 of the file, snapshots and pending changes included.
            digest: String = "digest",
            /// Is it a template?
            template: bool = "template",
            /// Is it started with its node?
            onboot: bool = "onboot",
            /// The order of starts.
            startup: Startup = "startup",
            /// Is it protected from removal, it and its disks?
            protection: bool = "protection",
            /// The lock it is under.
            lock: String = "lock",
            /// How it came to be.
            meta: CreationMeta = "meta",
            /// What the firmware says of the hardware; its UUID names the guest.
            smbios1: Smbios = "smbios1",
            /// The identifier that changes with each clone and rollback.
            vmgenid: String = "vmgenid",
            /// Cores of each socket; absent is 1.
            cores: u64 = "cores",
            /// Sockets; absent is 1.
            sockets: u64 = "sockets",
            /// Processors that are plugged in at the start.
            vcpus: u64 = "vcpus",
            /// The limit of processor use, in processors; 0 is none.
            cpulimit: f64 = "cpulimit",
            /// The weight in sharing processors.
            cpuunits: u64 = "cpuunits",
            /// The emulated processor.
            cpu: String = "cpu",
            /// The host's processors that it may use.
            affinity: String = "affinity",
            /// Non-uniform memory.
            numa: bool = "numa",
            /// Memory in MiB; absent is 512.
            memory: Memory = "memory",
            /// The least memory in MiB; 0 is no balloon.
            balloon: u64 = "balloon",
            /// The weight in sharing memory.
            shares: u64 = "shares",
            /// The kind of operating system.
            ostype: String = "ostype",
            /// The machine.
            machine: String = "machine",
            /// The processor's architecture.
            arch: String = "arch",
            /// `seabios` or `ovmf`.
            bios: String = "bios",
            /// The boot order.
            boot: Boot = "boot",
            /// The guest agent.
            agent: Agent = "agent",
            /// The SCSI controller.
            scsihw: String = "scsihw",
            /// What can be plugged while it runs.
            hotplug: String = "hotplug",
            /// Hardware virtualisation.
            kvm: bool = "kvm",
            /// ACPI.
            acpi: bool = "acpi",
            /// A pointing device with absolute positions.
            tablet: bool = "tablet",
            /// The display.
            vga: String = "vga",
            /// A random number generator.
            rng0: String = "rng0",
            /// A serial port.
            serial0: String = "serial0",
            /// A watchdog.
            watchdog: String = "watchdog",
            /// A script that is run at starts and stops.
            hookscript: String = "hookscript",
            /// The kind of cloud-init drive.
            citype: String = "citype",
            /// The user that cloud-init makes.
            ciuser: String = "ciuser",
            /// The name servers for cloud-init.
            nameserver: String = "nameserver",
            /// The search domain for cloud-init.
            searchdomain: String = "searchdomain",
            /// The snapshot it came after.
            parent: String = "parent",
            /// When the snapshot was made.
            snaptime: u64 = "snaptime",
            /// The volume with the memory of the snapshot, or of a hibernated guest.
            vmstate: String = "vmstate",
            /// The machine of that memory.
            runningmachine: String = "runningmachine",
            /// The processor of that memory.
            runningcpu: String = "runningcpu",
        }
        slots {
            /// Drives by their keys, CD-ROMs, EFI disks, TPM states and unused ones too.
            disks: DiskSlot => Drive,
            /// Network interfaces by their keys.
            nics: NetSlot => Nic,
            /// Addresses for cloud-init by their keys.
            ip_configs: IpConfigSlot => IpConfig,
        }
    }
}

answer! {
    /// `/nodes/{node}/lxc/{vmid}/config`, and `…/snapshot/{name}/config`.
    #[derive(Default)]
    pub struct LxcConfig {
        optional {
            /// The hostname.
            hostname: String = "hostname",
            /// Free text of the user, ending with a line feed; may hold secrets.
            description: String = "description",
            /// The tags.
            tags: Tags = "tags",
            /// SHA-1 of the file, snapshots and pending changes included.
            digest: String = "digest",
            /// Is it a template?
            template: bool = "template",
            /// Is it started with its node?
            onboot: bool = "onboot",
            /// The order of starts.
            startup: Startup = "startup",
            /// Is it protected from removal, it and its disks?
            protection: bool = "protection",
            /// The lock it is under.
            lock: String = "lock",
            /// Cores; absent means all of the node's.
            cores: u64 = "cores",
            /// The limit of processor use, in processors; 0 is none.
            cpulimit: f64 = "cpulimit",
            /// The weight in sharing processors.
            cpuunits: u64 = "cpuunits",
            /// Memory in MiB; absent is 512.
            memory: u64 = "memory",
            /// Swap in MiB; absent is 512.
            swap: u64 = "swap",
            /// The distribution.
            ostype: String = "ostype",
            /// The processor's architecture.
            arch: String = "arch",
            /// Are its users others than the host's?
            unprivileged: bool = "unprivileged",
            /// What it may do.
            features: Features = "features",
            /// Has it a console?
            console: bool = "console",
            /// Terminals.
            tty: u64 = "tty",
            /// The time zone, or `host`.
            timezone: String = "timezone",
            /// The name servers.
            nameserver: String = "nameserver",
            /// The search domain.
            searchdomain: String = "searchdomain",
            /// A script that is run at starts and stops.
            hookscript: String = "hookscript",
            /// The snapshot it came after.
            parent: String = "parent",
            /// When the snapshot was made.
            snaptime: u64 = "snaptime",
        }
        slots {
            /// Volumes by their keys: `rootfs`, mount points, unused ones.
            mounts: MountSlot => MountPoint,
            /// Network interfaces by their keys.
            nics: NetSlot => ContainerNic,
        }
    }
}
