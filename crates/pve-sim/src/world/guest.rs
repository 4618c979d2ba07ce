//! Guests and their snapshots.

use std::borrow::Cow;
use std::sync::Arc;

use super::config::{self, Config, ConfigValue, Drive};

/// What kind of guest it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum GuestKind {
    /// A virtual machine.
    Qemu,
    /// A container.
    Lxc,
}

impl GuestKind {
    /// The kind in paths and answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Qemu => "qemu",
            Self::Lxc => "lxc",
        }
    }

    /// The directory of the node's configuration files; error texts show it.
    pub fn config_directory(self) -> &'static str {
        match self {
            Self::Qemu => "qemu-server",
            Self::Lxc => "lxc",
        }
    }
}

/// Whether a guest runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Power {
    /// It runs.
    Running,
    /// It does not.
    Stopped,
    /// A VM that is paused: `status` is `running` and only `qmpstatus` says `paused`.
    Paused,
}

/// A snapshot of a guest.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// Its name.
    pub name: String,
    /// What its maker wrote.
    pub description: String,
    /// Seconds since 1970.
    pub time: u64,
    /// Whether it holds the memory.
    pub with_memory: bool,
    /// The snapshot it was taken after; `None` is the one before it in the list.
    pub parent: Option<String>,
    /// The configuration at that time; `None` is the present one.
    pub config: Option<Config>,
}

/// A guest.
#[derive(Clone, Debug, PartialEq)]
pub struct Guest {
    /// Its number.
    pub vmid: u32,
    /// What it is.
    pub kind: GuestKind,
    /// The node it is on.
    pub node: Arc<str>,
    /// Whether it runs.
    pub power: Power,
    /// Its configuration file, without snapshots.
    pub config: Config,
    /// The pool it is in.
    pub pool: Option<Arc<str>>,
    /// The state that HA keeps it in (`started`, `stopped`, `ignored`, …), if HA manages it.
    pub ha: Option<Arc<str>>,
    /// Its snapshots, oldest first; each is the parent of the next.
    pub snapshots: Vec<Snapshot>,
    /// The share of its CPUs in use (0 to 1); `None` derives one from the vmid.
    pub cpu_load: Option<f64>,
    /// What changes at the next start: a value, or `None` for a key that goes.
    pub pending: Vec<(String, Option<ConfigValue>)>,
}

impl Guest {
    /// The digest of the whole file: pending changes and snapshots are part of it.
    pub fn digest(&self) -> String {
        if self.pending.is_empty() && self.snapshots.is_empty() {
            return self.config.digest();
        }
        let mut whole = self.config.clone();
        for (key, value) in &self.pending {
            whole.set(format!("[pending]{key}"), value.clone().unwrap_or_else(|| "delete".into()));
        }
        for snapshot in &self.snapshots {
            let Snapshot { name, description, time, with_memory, parent, config } = snapshot;
            let taken = config.as_ref().map(Config::digest).unwrap_or_default();
            let text = format!("{description}{time}{with_memory}{parent:?}{taken}");
            whole.set(format!("[{name}]"), text);
        }
        whole.digest()
    }

    /// The configuration with the pending changes as if they were applied: what PVE shows unless asked otherwise.
    pub fn config_to_be(&self) -> Config {
        let mut config = self.config.clone();
        for (key, value) in &self.pending {
            match value {
                Some(value) => config.set(key.clone(), value.clone()),
                None => {
                    config.remove(key);
                }
            }
        }
        config
    }

    /// The parent of each snapshot: the one it says, or the one before it.
    pub fn parents(&self) -> Vec<Option<String>> {
        let before = |at: usize| at.checked_sub(1).and_then(|at| self.snapshots.get(at));
        let parent = |(at, snapshot): (usize, &Snapshot)| {
            let told = snapshot.config.is_some() || snapshot.parent.is_some();
            if told { snapshot.parent.clone() } else { before(at).map(|before| before.name.clone()) }
        };
        self.snapshots.iter().enumerate().map(parent).collect()
    }

    /// The lock that an operation holds.
    pub fn lock(&self) -> Option<Cow<'_, str>> {
        self.config.text("lock")
    }

    /// `name` of a VM, `hostname` of a container; PVE makes one up where it is unset.
    pub fn name(&self) -> Cow<'_, str> {
        let (key, made_up) = match self.kind {
            GuestKind::Qemu => ("name", "VM"),
            GuestKind::Lxc => ("hostname", "CT"),
        };
        self.config.text(key).unwrap_or_else(|| Cow::Owned(format!("{made_up} {}", self.vmid)))
    }

    /// Whether it is a template.
    pub fn is_template(&self) -> bool {
        self.config.int("template") == Some(1)
    }

    /// Whether PVE's `status` says `running`; a paused VM does.
    pub fn is_running(&self) -> bool {
        self.power != Power::Stopped
    }

    /// PVE's `status`.
    pub fn status(&self) -> &'static str {
        if self.is_running() { "running" } else { "stopped" }
    }

    /// The CPUs it has: cores × sockets of a VM (1 unless set, or `vcpus`), `cores` of a container or all of the node's.
    pub fn cpus(&self, node_cpus: u32) -> i64 {
        match self.kind {
            GuestKind::Qemu => self.config.int("vcpus").unwrap_or_else(|| {
                let cores = self.config.int("cores").unwrap_or(1);
                cores.saturating_mul(self.config.int("sockets").unwrap_or(1))
            }),
            GuestKind::Lxc => self.config.int("cores").unwrap_or(node_cpus.into()),
        }
    }

    /// The memory it may use, in bytes (512 MiB unless set).
    pub fn memory(&self) -> u64 {
        u64::try_from(self.config.int("memory").unwrap_or(512)).unwrap_or_default() << 20
    }

    /// Every volume, drive and mount, sorted by key; `unusedN` too.
    pub fn drives(&self) -> Vec<Drive<'_>> {
        let is_drive = |key: &str| match self.kind {
            GuestKind::Qemu => config::is_qemu_disk_key(key) || config::is_numbered(key, "unused"),
            GuestKind::Lxc => config::is_lxc_disk_key(key) || config::is_numbered(key, "unused"),
        };
        self.config
            .iter()
            .filter(|(key, _)| is_drive(key))
            .map(|(key, value)| config::parse_drive(key, &value.to_text()))
            .collect()
    }

    /// The size that PVE shows as the guest's disk: the first boot disk of a VM, the root file system of a container.
    pub fn boot_disk_size(&self) -> u64 {
        let size_of = |key: &str| {
            let value = self.config.text(key)?;
            let drive = config::parse_drive(key, &value);
            if drive.is_cdrom() { None } else { drive.size() }
        };
        match self.kind {
            GuestKind::Lxc => size_of("rootfs").unwrap_or_default(),
            GuestKind::Qemu => {
                let boot = self.config.text("boot").unwrap_or_default();
                let order = boot.strip_prefix("order=").unwrap_or_default();
                order
                    .split(';')
                    .filter(|key| config::is_qemu_disk_key(key))
                    .find_map(size_of)
                    .unwrap_or_default()
            }
        }
    }
}
