//! Storages and what they hold.

use super::backup::Retention;
use crate::vmid::Vmid;
use crate::wire::{CommaList, answer};

answer! {
    /// A row of `/storage`, and `/storage/{storage}`: how a storage is defined for the whole cluster. Keys beyond the
    /// common ones belong to a storage's type; none of them is a secret, for PVE keeps those in files of their own.
    pub struct StorageDefinition {
        required {
            /// The storage's name.
            storage: String = "storage",
        }
        optional {
            /// The type, such as `dir`, `lvmthin`, `zfspool`, `rbd`, `pbs`, or one that a plugin brings.
            kind: String = "type",
            /// What it may hold.
            content: CommaList<String> = "content",
            /// The nodes that may use it; absent means all.
            nodes: CommaList<String> = "nodes",
            /// Is it the same on all nodes?
            shared: bool = "shared",
            /// Is it turned off?
            disable: bool = "disable",
            /// SHA-1 of the file of all definitions.
            digest: String = "digest",
            /// The backups that are kept.
            prune_backups: Retention = "prune-backups",
            /// How many backups of a guest may be protected.
            max_protected_backups: i64 = "max-protected-backups",
            /// A directory.
            path: String = "path",
            /// Is the directory made if it is absent?
            mkdir: bool = "mkdir",
            /// `yes`, `no`, or a path that must be mounted.
            is_mountpoint: String = "is_mountpoint",
            /// The image format for new volumes.
            format: String = "format",
            /// How new images are allocated.
            preallocation: String = "preallocation",
            /// A server.
            server: String = "server",
            /// An NFS export.
            export: String = "export",
            /// An SMB share.
            share: String = "share",
            /// A directory in a share.
            subdir: String = "subdir",
            /// Mount options.
            options: String = "options",
            /// A volume group.
            vgname: String = "vgname",
            /// A thin pool.
            thinpool: String = "thinpool",
            /// A ZFS or Ceph pool.
            pool: String = "pool",
            /// Ceph's monitors.
            monhost: String = "monhost",
            /// Does the kernel map Ceph images?
            krbd: bool = "krbd",
            /// A data store of a backup server.
            datastore: String = "datastore",
            /// A namespace of a backup server or of Ceph.
            namespace: String = "namespace",
            /// The user at the server.
            username: String = "username",
            /// The fingerprint of the server's certificate.
            fingerprint: String = "fingerprint",
            /// An iSCSI portal.
            portal: String = "portal",
            /// An iSCSI target.
            target: String = "target",
        }
    }
}

answer! {
    /// A row of `/nodes/{node}/storage`, and `/nodes/{node}/storage/{storage}/status`, which has no name.
    pub struct NodeStorage {
        optional {
            /// The storage's name; absent where the request named it.
            storage: String = "storage",
            /// The type.
            kind: String = "type",
            /// What it may hold.
            content: CommaList<String> = "content",
            /// Is it the same on all nodes?
            shared: bool = "shared",
            /// May this node use it?
            enabled: bool = "enabled",
            /// Is it there now?
            active: bool = "active",
            /// Capacity.
            total: u64 = "total",
            /// In use.
            used: u64 = "used",
            /// Not in use.
            avail: u64 = "avail",
            /// `used` by `total`.
            used_fraction: f64 = "used_fraction",
        }
    }
}

answer! {
    /// A row of `/nodes/{node}/storage/{storage}/content`. PVE leaves out what the user may not see.
    pub struct VolumeRow {
        required {
            /// The storage's name, `:`, and the volume's.
            volid: String = "volid",
        }
        optional {
            /// `images`, `rootdir`, `iso`, `vztmpl`, `backup`, `snippets` or `import`.
            content: String = "content",
            /// The format.
            format: String = "format",
            /// The size that the guest sees.
            size: u64 = "size",
            /// What it takes.
            used: u64 = "used",
            /// The guest it belongs to.
            vmid: Vmid = "vmid",
            /// When it was made.
            ctime: u64 = "ctime",
            /// The volume it is a clone of.
            parent: String = "parent",
            /// A note.
            notes: String = "notes",
            /// Is the backup protected?
            protected: bool = "protected",
            /// The kind of guest in a backup.
            subtype: String = "subtype",
            /// Is it encrypted? A fingerprint, or 1.
            encrypted: String = "encrypted",
        }
    }
}
