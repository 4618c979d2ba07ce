//! Guests: lists, states, snapshots, pending changes.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::tags::Tags;
use crate::vmid::Vmid;
use crate::wire::{Mismatch, Object, Reader, Wire, answer, may_hold_secret, read_whole};

answer! {
    /// A row of `/nodes/{node}/qemu`; with `full=1` also what QEMU itself says of running guests.
    pub struct QemuRow {
        required {
            /// The guest's number.
            vmid: Vmid = "vmid",
        }
        optional {
            /// The name.
            name: String = "name",
            /// `running` or `stopped`.
            status: String = "status",
            /// QEMU's own state, `paused` for instance; only with `full=1`.
            qmpstatus: String = "qmpstatus",
            /// Is it a template?
            template: bool = "template",
            /// The tags.
            tags: Tags = "tags",
            /// The lock it is under.
            lock: String = "lock",
            /// QEMU's process id.
            pid: u64 = "pid",
            /// Virtual processors.
            cpus: f64 = "cpus",
            /// Processor use, 1 being all of `cpus`.
            cpu: f64 = "cpu",
            /// Memory in use.
            mem: u64 = "mem",
            /// Memory.
            maxmem: u64 = "maxmem",
            /// Memory of the host in use (PVE 9).
            memhost: u64 = "memhost",
            /// The memory that the balloon leaves the guest.
            balloon: u64 = "balloon",
            /// The least memory that the balloon leaves the guest.
            balloon_min: u64 = "balloon_min",
            /// The weight in sharing memory.
            shares: u64 = "shares",
            /// Always 0.
            disk: u64 = "disk",
            /// Size of the first disk of the boot order.
            maxdisk: u64 = "maxdisk",
            /// Bytes read since the start.
            diskread: u64 = "diskread",
            /// Bytes written since the start.
            diskwrite: u64 = "diskwrite",
            /// Bytes received since the start.
            netin: u64 = "netin",
            /// Bytes sent since the start.
            netout: u64 = "netout",
            /// Counters per interface of the host.
            nics: BTreeMap<String, NicCounters> = "nics",
            /// Seconds since the start.
            uptime: u64 = "uptime",
            /// The machine it runs as.
            running_machine: String = "running-machine",
            /// The QEMU it runs on.
            running_qemu: String = "running-qemu",
            /// Has it a serial terminal?
            serial: bool = "serial",
        }
    }
}

answer! {
    /// What went through one interface of the host.
    pub struct NicCounters {
        optional {
            /// Bytes received.
            netin: u64 = "netin",
            /// Bytes sent.
            netout: u64 = "netout",
        }
    }
}

answer! {
    /// `/nodes/{node}/qemu/{vmid}/status/current`.
    pub struct QemuStatus {
        required {
            /// The guest's number.
            vmid: Vmid = "vmid",
        }
        optional {
            /// The name.
            name: String = "name",
            /// `running` or `stopped`.
            status: String = "status",
            /// QEMU's own state, such as `paused`.
            qmpstatus: String = "qmpstatus",
            /// Is it a template?
            template: bool = "template",
            /// The tags.
            tags: Tags = "tags",
            /// The lock it is under.
            lock: String = "lock",
            /// Is the guest agent enabled? It need not run.
            agent: bool = "agent",
            /// High availability.
            ha: HaStatus = "ha",
            /// QEMU's process id.
            pid: u64 = "pid",
            /// Virtual processors.
            cpus: f64 = "cpus",
            /// Processor use, 1 being all of `cpus`.
            cpu: f64 = "cpu",
            /// Memory in use.
            mem: u64 = "mem",
            /// Memory.
            maxmem: u64 = "maxmem",
            /// Memory of the host in use (PVE 9).
            memhost: u64 = "memhost",
            /// The memory that the balloon leaves the guest.
            balloon: u64 = "balloon",
            /// The least memory that the balloon leaves the guest.
            balloon_min: u64 = "balloon_min",
            /// The weight in sharing memory.
            shares: u64 = "shares",
            /// Always 0.
            disk: u64 = "disk",
            /// Size of the first disk of the boot order.
            maxdisk: u64 = "maxdisk",
            /// Bytes read since the start.
            diskread: u64 = "diskread",
            /// Bytes written since the start.
            diskwrite: u64 = "diskwrite",
            /// Bytes received since the start.
            netin: u64 = "netin",
            /// Bytes sent since the start.
            netout: u64 = "netout",
            /// Counters per interface of the host.
            nics: BTreeMap<String, NicCounters> = "nics",
            /// Seconds since the start.
            uptime: u64 = "uptime",
            /// The machine it runs as.
            running_machine: String = "running-machine",
            /// The QEMU it runs on.
            running_qemu: String = "running-qemu",
            /// Has it a serial terminal?
            serial: bool = "serial",
            /// Does it offer SPICE?
            spice: bool = "spice",
            /// The kind of clipboard.
            clipboard: String = "clipboard",
        }
    }
}

answer! {
    /// A guest under high availability.
    pub struct HaStatus {
        optional {
            /// Does high availability care for it?
            managed: bool = "managed",
            /// The state it is to be in.
            state: String = "state",
            /// Its group (until PVE 8).
            group: String = "group",
        }
    }
}

answer! {
    /// A row of `/nodes/{node}/lxc`.
    pub struct LxcRow {
        required {
            /// The guest's number.
            vmid: Vmid = "vmid",
        }
        optional {
            /// The hostname.
            name: String = "name",
            /// Always `lxc`.
            kind: String = "type",
            /// `running` or `stopped`.
            status: String = "status",
            /// Is it a template?
            template: bool = "template",
            /// The tags.
            tags: Tags = "tags",
            /// The lock it is under.
            lock: String = "lock",
            /// The process id of its first process on the host.
            pid: u64 = "pid",
            /// Processors.
            cpus: f64 = "cpus",
            /// Processor use, 1 being all of `cpus`.
            cpu: f64 = "cpu",
            /// Memory in use.
            mem: u64 = "mem",
            /// Memory.
            maxmem: u64 = "maxmem",
            /// Swap in use.
            swap: u64 = "swap",
            /// Swap.
            maxswap: u64 = "maxswap",
            /// Root file system in use.
            disk: u64 = "disk",
            /// Root file system.
            maxdisk: u64 = "maxdisk",
            /// Bytes read since the start.
            diskread: u64 = "diskread",
            /// Bytes written since the start.
            diskwrite: u64 = "diskwrite",
            /// Bytes received since the start.
            netin: u64 = "netin",
            /// Bytes sent since the start.
            netout: u64 = "netout",
            /// Seconds since the start.
            uptime: u64 = "uptime",
        }
    }
}

answer! {
    /// `/nodes/{node}/lxc/{vmid}/status/current`.
    pub struct LxcStatus {
        required {
            /// The guest's number.
            vmid: Vmid = "vmid",
        }
        optional {
            /// The hostname.
            name: String = "name",
            /// Always `lxc`.
            kind: String = "type",
            /// `running` or `stopped`.
            status: String = "status",
            /// Is it a template?
            template: bool = "template",
            /// The tags.
            tags: Tags = "tags",
            /// The lock it is under.
            lock: String = "lock",
            /// High availability.
            ha: HaStatus = "ha",
            /// The process id of its first process on the host.
            pid: u64 = "pid",
            /// Processors.
            cpus: f64 = "cpus",
            /// Processor use, 1 being all of `cpus`.
            cpu: f64 = "cpu",
            /// Memory in use.
            mem: u64 = "mem",
            /// Memory.
            maxmem: u64 = "maxmem",
            /// Swap in use.
            swap: u64 = "swap",
            /// Swap.
            maxswap: u64 = "maxswap",
            /// Root file system in use.
            disk: u64 = "disk",
            /// Root file system.
            maxdisk: u64 = "maxdisk",
            /// Bytes read since the start.
            diskread: u64 = "diskread",
            /// Bytes written since the start.
            diskwrite: u64 = "diskwrite",
            /// Bytes received since the start.
            netin: u64 = "netin",
            /// Bytes sent since the start.
            netout: u64 = "netout",
            /// Seconds since the start.
            uptime: u64 = "uptime",
        }
    }
}

answer! {
    /// A row of `/nodes/{node}/{qemu,lxc}/{vmid}/snapshot`. The row named `current` is no snapshot but the guest as it is,
    /// with a `digest`.
    pub struct Snapshot {
        required {
            /// The snapshot's name.
            name: String = "name",
        }
        optional {
            /// The description.
            description: String = "description",
            /// The snapshot it came after.
            parent: String = "parent",
            /// When it was made.
            snaptime: u64 = "snaptime",
            /// Does it hold the memory?
            vmstate: bool = "vmstate",
            /// Is the guest running? Only of `current`.
            running: bool = "running",
            /// SHA-1 of the configuration. Only of `current`.
            digest: String = "digest",
        }
    }
}

impl Snapshot {
    /// Is it the guest as it is, rather than a snapshot?
    pub fn is_current(&self) -> bool {
        self.name == "current"
    }
}

/// What stands for a secret, in PVE's answers and in ours.
pub const SECRET_MASK: &str = "**********";

/// A row of `/nodes/{node}/{qemu,lxc}/{vmid}/pending`: a key's value now, and what it becomes at the next start. Secrets
/// and SSH keys are replaced by [`SECRET_MASK`].
#[derive(Clone, Debug, PartialEq)]
pub struct PendingEntry {
    /// The key.
    pub key: String,
    /// The value now: a text or a number.
    pub value: Option<Value>,
    /// The value to come.
    pub pending: Option<Value>,
    /// 1 if the key is to be deleted, 2 if by force.
    pub delete: Option<u64>,
}

answer! {
    /// The row as it came.
    pub struct RawPending {
        required {
            /// The key.
            key: String = "key",
        }
        optional {
            /// The value now.
            value: Value = "value",
            /// The value to come.
            pending: Value = "pending",
            /// To be deleted?
            delete: u64 = "delete",
        }
    }
}

impl Wire for PendingEntry {
    fn read(value: &Value, reader: &mut Reader) -> Result<Self, Mismatch> {
        let RawPending { key, value, pending, delete, .. } = read_whole(value, reader)?;
        // A description is kept here as it is in the configuration; what may hold a key or a password is not.
        let secret = may_hold_secret(&key) && key != "description";
        let mask =
            |value: Option<Value>| value.map(|value| if secret { Value::from(SECRET_MASK) } else { value });
        Ok(Self { value: mask(value), pending: mask(pending), key, delete })
    }

    fn write(&self) -> Value {
        let Self { key, value, pending, delete } = self.clone();
        Value::Object(RawPending { key, value, pending, delete, odd: Vec::new() }.write_object())
    }
}
