//! How a guest is described that is to be added to a world.

use super::config::ConfigValue;
use super::guest::{GuestKind, Power};

/// A guest to be added: what is not given gets PVE's defaults.
#[derive(Clone, Debug)]
pub struct GuestSpec {
    pub(super) vmid: u32,
    pub(super) kind: GuestKind,
    pub(super) node: Option<String>,
    pub(super) power: Power,
    pub(super) pool: Option<String>,
    pub(super) ha: Option<String>,
    pub(super) cpu_load: Option<f64>,
    pub(super) disks: Vec<(String, String, u64, String)>,
    pub(super) config: Vec<(String, ConfigValue)>,
}

impl GuestSpec {
    fn new(kind: GuestKind, vmid: u32, name: &str) -> Self {
        let key = if kind == GuestKind::Qemu { "name" } else { "hostname" };
        Self {
            vmid,
            kind,
            node: None,
            power: Power::Stopped,
            pool: None,
            ha: None,
            cpu_load: None,
            disks: Vec::new(),
            config: vec![(key.to_owned(), name.into())],
        }
    }

    /// A virtual machine.
    pub fn qemu(vmid: u32, name: &str) -> Self {
        Self::new(GuestKind::Qemu, vmid, name)
    }

    /// A container.
    pub fn lxc(vmid: u32, name: &str) -> Self {
        Self::new(GuestKind::Lxc, vmid, name)
    }

    /// Puts it on a node; else it is on the first.
    pub fn node(mut self, node: &str) -> Self {
        self.node = Some(node.to_owned());
        self
    }

    /// Sets its power state; else it is stopped.
    pub fn power(mut self, power: Power) -> Self {
        self.power = power;
        self
    }

    /// Puts it in a pool, which must exist.
    pub fn pool(mut self, pool: &str) -> Self {
        self.pool = Some(pool.to_owned());
        self
    }

    /// Lets HA manage it.
    pub fn ha(mut self, state: &str) -> Self {
        self.ha = Some(state.to_owned());
        self
    }

    /// Sets the share of its CPUs that it uses, 0 to 1.
    pub fn cpu_load(mut self, load: f64) -> Self {
        self.cpu_load = Some(load);
        self
    }

    /// Adds a disk of `gib` GiB under `key` (`scsi0`, `rootfs`, `mp0`, …) with further options such as
    /// `backup=0,cache=writeback`; a mount point needs its `mp=` there.
    pub fn disk(mut self, key: &str, storage: &str, gib: u64, options: &str) -> Self {
        self.disks.push((key.to_owned(), storage.to_owned(), gib << 30, options.to_owned()));
        self
    }

    /// Sets a configuration key.
    pub fn config(mut self, key: &str, value: impl Into<ConfigValue>) -> Self {
        self.config.push((key.to_owned(), value.into()));
        self
    }
}
