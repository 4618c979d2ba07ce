//! Nodes.

use crate::wire::answer;

answer! {
    /// A row of `/nodes`. An offline node, or one that the user may not audit, has no measurements.
    pub struct NodeRow {
        required {
            /// The node's name.
            node: String = "node",
        }
        optional {
            /// `node/` and the name.
            id: String = "id",
            /// Always `node`.
            kind: String = "type",
            /// `online`, `offline` or `unknown`.
            status: String = "status",
            /// The subscription's level, empty without one.
            level: String = "level",
            /// SHA-256 of the certificate that its API shows.
            ssl_fingerprint: String = "ssl_fingerprint",
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
    /// `/nodes/{node}/status`.
    pub struct NodeStatus {
        optional {
            /// PVE's version as `pve-manager/8.4.21/…`.
            pveversion: String = "pveversion",
            /// The kernel in one line.
            kversion: String = "kversion",
            /// The kernel in parts.
            current_kernel: Kernel = "current-kernel",
            /// How it was started.
            boot_info: BootInfo = "boot-info",
            /// The processors.
            cpuinfo: CpuInfo = "cpuinfo",
            /// Processor use, 1 being all processors.
            cpu: f64 = "cpu",
            /// Share of time waiting for input and output.
            wait: f64 = "wait",
            /// Idle time; PVE 8 always says 0.
            idle: f64 = "idle",
            /// Load averages over 1, 5 and 15 minutes, as texts.
            loadavg: Vec<String> = "loadavg",
            /// Memory.
            memory: MemoryUse = "memory",
            /// Swap.
            swap: MemoryUse = "swap",
            /// The root file system.
            rootfs: RootFs = "rootfs",
            /// Merged memory pages.
            ksm: Ksm = "ksm",
            /// Seconds since the start.
            uptime: u64 = "uptime",
        }
    }
}

answer! {
    /// A node's kernel.
    pub struct Kernel {
        optional {
            /// `Linux`.
            sysname: String = "sysname",
            /// The release, as of `uname -r`.
            release: String = "release",
            /// The version, as of `uname -v`.
            version: String = "version",
            /// The architecture.
            machine: String = "machine",
        }
    }
}

answer! {
    /// How a node was started.
    pub struct BootInfo {
        optional {
            /// `efi` or `legacy-bios`.
            mode: String = "mode",
            /// Is secure boot on?
            secureboot: bool = "secureboot",
        }
    }
}

answer! {
    /// A node's processors.
    pub struct CpuInfo {
        optional {
            /// The model.
            model: String = "model",
            /// Cores of all sockets.
            cores: u64 = "cores",
            /// Threads of all sockets.
            cpus: u64 = "cpus",
            /// Sockets.
            sockets: u64 = "sockets",
            /// The clock in MHz, as a text.
            mhz: String = "mhz",
        }
    }
}

answer! {
    /// Memory or swap in use.
    pub struct MemoryUse {
        optional {
            /// All of it.
            total: u64 = "total",
            /// In use.
            used: u64 = "used",
            /// Not in use.
            free: u64 = "free",
            /// What a new process could have (PVE 9).
            available: u64 = "available",
        }
    }
}

answer! {
    /// A node's root file system.
    pub struct RootFs {
        optional {
            /// All of it.
            total: u64 = "total",
            /// In use.
            used: u64 = "used",
            /// Not in use, the superuser's reserve included.
            free: u64 = "free",
            /// What everyone can use.
            avail: u64 = "avail",
        }
    }
}

answer! {
    /// Memory pages merged by the kernel.
    pub struct Ksm {
        optional {
            /// Bytes saved.
            shared: u64 = "shared",
        }
    }
}

answer! {
    /// `/nodes/{node}/time`.
    pub struct NodeTime {
        required {
            /// Now.
            time: u64 = "time",
        }
        optional {
            /// Now, moved by the time zone's offset.
            localtime: i64 = "localtime",
            /// The time zone's name.
            timezone: String = "timezone",
        }
    }
}

answer! {
    /// `/nodes/{node}/version`.
    pub struct NodeVersion {
        required {
            /// The version, such as `8.4.21`.
            version: String = "version",
        }
        optional {
            /// The release, such as `8.4`.
            release: String = "release",
            /// The commit of PVE's manager.
            repoid: String = "repoid",
        }
    }
}

answer! {
    /// A row of `/nodes/{node}/certificates/info`.
    pub struct Certificate {
        required {
            /// The file: `pve-root-ca.pem` is the cluster's own authority, `pve-ssl.pem` the node's certificate,
            /// `pveproxy-ssl.pem` one that the user put there.
            filename: String = "filename",
        }
        optional {
            /// SHA-256 of the certificate.
            fingerprint: String = "fingerprint",
            /// Who signed it.
            issuer: String = "issuer",
            /// Whose it is.
            subject: String = "subject",
            /// Valid from.
            notbefore: i64 = "notbefore",
            /// Valid until.
            notafter: i64 = "notafter",
            /// The certificate itself, in PEM.
            pem: String = "pem",
            /// Bits of the public key.
            public_key_bits: u64 = "public-key-bits",
            /// The kind of the public key.
            public_key_type: String = "public-key-type",
            /// Names and addresses that it is valid for.
            san: Vec<String> = "san",
        }
    }
}
