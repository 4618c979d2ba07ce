//! The cluster as a whole.

use crate::tags::Tags;
use crate::vmid::Vmid;
use crate::wire::{CommaList, answer, rows_by_type};

answer! {
    /// `/version`.
    pub struct Version {
        required {
            /// The version, such as `8.4.21`.
            version: String = "version",
        }
        optional {
            /// The release, such as `8.4`.
            release: String = "release",
            /// The commit of PVE's manager.
            repoid: String = "repoid",
            /// The console that the datacenter prefers.
            console: String = "console",
        }
    }
}

rows_by_type! {
    /// A row of `/cluster/status`. A standalone node has no [`ClusterStatusRow::Cluster`]. Needs `Sys.Audit` on `/`.
    pub enum ClusterStatusRow {
        /// The cluster.
        Cluster(ClusterRow) = "cluster",
        /// A member.
        Node(MemberRow) = "node",
    }
}

answer! {
    /// The cluster in `/cluster/status`.
    pub struct ClusterRow {
        required {
            /// The cluster's name.
            name: String = "name",
        }
        optional {
            /// Always `cluster`.
            id: String = "id",
            /// The number of members.
            nodes: u64 = "nodes",
            /// Has it a quorum?
            quorate: bool = "quorate",
            /// Counts changes of the cluster's configuration; it is not PVE's version.
            version: u64 = "version",
        }
    }
}

answer! {
    /// A member in `/cluster/status`.
    pub struct MemberRow {
        required {
            /// The node's name.
            name: String = "name",
        }
        optional {
            /// `node/` and the name.
            id: String = "id",
            /// The node's address in the cluster network.
            ip: String = "ip",
            /// The subscription's level, empty without one.
            level: String = "level",
            /// Is it the node that answered?
            local: bool = "local",
            /// The node's number; 0 on a standalone node.
            nodeid: u64 = "nodeid",
            /// Is it a member now?
            online: bool = "online",
        }
    }
}

rows_by_type! {
    /// A row of `/cluster/resources`, or of `/pools/{id}`. PVE leaves out what the user may not see.
    pub enum Resource {
        /// A virtual machine.
        Qemu(GuestResource) = "qemu",
        /// A container.
        Lxc(GuestResource) = "lxc",
        /// A node.
        Node(NodeResource) = "node",
        /// A storage on one node.
        Storage(StorageResource) = "storage",
        /// A pool.
        Pool(PoolResource) = "pool",
        /// A zone of software-defined networking on one node.
        Sdn(SdnResource) = "sdn",
    }
}

impl Resource {
    /// The guest, be it a virtual machine or a container.
    pub fn guest(&self) -> Option<&GuestResource> {
        match self {
            Self::Qemu(guest) | Self::Lxc(guest) => Some(guest),
            Self::Node(_) | Self::Storage(_) | Self::Pool(_) | Self::Sdn(_) | Self::Other(_) => None,
        }
    }
}

answer! {
    /// A guest in `/cluster/resources`. When its node has been offline for some minutes, only `id`, `node`, `vmid`, `tags`
    /// and `status` (`unknown`) are left.
    pub struct GuestResource {
        required {
            /// The guest's number.
            vmid: Vmid = "vmid",
            /// The node that holds its configuration.
            node: String = "node",
        }
        optional {
            /// `qemu/` or `lxc/` and the vmid.
            id: String = "id",
            /// The name, for containers the hostname.
            name: String = "name",
            /// `running`, `stopped` or `unknown`.
            status: String = "status",
            /// Is it a template?
            template: bool = "template",
            /// The tags.
            tags: Tags = "tags",
            /// The pool it belongs to.
            pool: String = "pool",
            /// The lock it is under.
            lock: String = "lock",
            /// The state that high availability keeps it in.
            hastate: String = "hastate",
            /// Processor use, 1 being all of `maxcpu`.
            cpu: f64 = "cpu",
            /// Virtual processors.
            maxcpu: f64 = "maxcpu",
            /// Memory in use.
            mem: u64 = "mem",
            /// Memory.
            maxmem: u64 = "maxmem",
            /// Memory of the host in use (PVE 9).
            memhost: u64 = "memhost",
            /// Disk in use; 0 for virtual machines.
            disk: u64 = "disk",
            /// Size of the root disk.
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
    /// A node in `/cluster/resources`. Without `Sys.Audit` it shows only its name and status.
    pub struct NodeResource {
        required {
            /// The node's name.
            node: String = "node",
        }
        optional {
            /// `node/` and the name.
            id: String = "id",
            /// `online`, `offline` or `unknown`.
            status: String = "status",
            /// The subscription's level, empty without one.
            level: String = "level",
            /// The state that high availability sees it in.
            hastate: String = "hastate",
            /// The version of the control groups.
            cgroup_mode: u64 = "cgroup-mode",
            /// Processor use, 1 being all of `maxcpu`.
            cpu: f64 = "cpu",
            /// Processors.
            maxcpu: u64 = "maxcpu",
            /// Memory in use.
            mem: u64 = "mem",
            /// Memory.
            maxmem: u64 = "maxmem",
            /// Root file system in use.
            disk: u64 = "disk",
            /// Root file system.
            maxdisk: u64 = "maxdisk",
            /// Seconds since the start.
            uptime: u64 = "uptime",
        }
    }
}

answer! {
    /// A storage on one node in `/cluster/resources`.
    pub struct StorageResource {
        required {
            /// The storage's name.
            storage: String = "storage",
            /// The node.
            node: String = "node",
        }
        optional {
            /// `storage/`, the node, `/` and the storage.
            id: String = "id",
            /// `available` or `unknown`.
            status: String = "status",
            /// The storage's type, such as `dir`.
            plugintype: String = "plugintype",
            /// What it may hold.
            content: CommaList<String> = "content",
            /// Is it the same on all nodes?
            shared: bool = "shared",
            /// Bytes in use.
            disk: u64 = "disk",
            /// Capacity.
            maxdisk: u64 = "maxdisk",
        }
    }
}

answer! {
    /// A pool in `/cluster/resources`; its numbers are sums over its running guests.
    pub struct PoolResource {
        required {
            /// The pool's name.
            pool: String = "pool",
        }
        optional {
            /// `/pool/` and the name.
            id: String = "id",
            /// Processor use.
            cpu: f64 = "cpu",
            /// Virtual processors.
            maxcpu: f64 = "maxcpu",
            /// Memory in use.
            mem: u64 = "mem",
            /// Memory.
            maxmem: u64 = "maxmem",
            /// Disk in use.
            disk: u64 = "disk",
            /// Disk.
            maxdisk: u64 = "maxdisk",
            /// The longest time in seconds that a guest of it has run.
            uptime: u64 = "uptime",
        }
    }
}

answer! {
    /// A zone on one node in `/cluster/resources`.
    pub struct SdnResource {
        required {
            /// The zone's name.
            sdn: String = "sdn",
            /// The node.
            node: String = "node",
        }
        optional {
            /// `sdn/`, the node, `/` and the zone.
            id: String = "id",
            /// `ok` or what is wrong.
            status: String = "status",
        }
    }
}
