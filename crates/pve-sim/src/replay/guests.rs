//! Guests that a request names, and what its answer tells of them.

use super::prepare::Maker;
use crate::schema::split_list;
use crate::work::disks::is_drive;
use crate::world::config::{Config, is_numbered, parse_drive};
use crate::world::state::{Guest, GuestKind, Power, Snapshot, Task};

impl Maker<'_> {
    /// A stopped guest with a disk and a network card.
    pub fn ensure_guest(&mut self, kind: GuestKind, vmid: u32, node: &str) -> &mut Guest {
        let node = self.ensure_node(node).name.clone();
        let mut config = Config::default();
        match kind {
            GuestKind::Qemu => {
                config.set("name", format!("vm{vmid}"));
                config.set("memory", "512");
                config.set("cores", 1);
                config.set("scsi0", format!("local:{vmid}/vm-{vmid}-disk-0.qcow2,size=1G"));
                config.set("boot", "order=scsi0;net0");
                config.set("net0", "virtio=BC:24:11:00:00:01,bridge=vmbr0");
            }
            GuestKind::Lxc => {
                config.set("hostname", format!("ct{vmid}"));
                config.set("memory", 512);
                config.set("swap", 512);
                config.set("cores", 1);
                config.set("rootfs", format!("local:{vmid}/vm-{vmid}-disk-0.raw,size=1G"));
                config.set("net0", "name=eth0,bridge=vmbr0,hwaddr=BC:24:11:00:00:02,type=veth");
            }
        }
        self.state.guests.entry(vmid).or_insert_with(|| Guest {
            vmid,
            kind,
            node,
            power: Power::Stopped,
            config,
            pool: None,
            ha: None,
            snapshots: Vec::new(),
            cpu_load: None,
            pending: Vec::new(),
        })
    }

    /// A snapshot of the guest as it is.
    pub fn snapshot(name: &str, config: &Config) -> Snapshot {
        Snapshot {
            name: name.to_owned(),
            description: String::new(),
            time: 1_700_000_000,
            with_memory: false,
            parent: None,
            config: Some(config.clone()),
        }
    }

    /// Whether the answer says that the path's guest is not there.
    fn lacks_guest(&self) -> bool {
        let reason = self.reason();
        let texts = ["Configuration file", "unable to find configuration file", "RRD error"];
        texts.iter().any(|text| reason.contains(text))
    }

    /// The path's guest with all that the request names in it: what a refusal says was not there, was not.
    pub(super) fn named_guest(&mut self) {
        let Some(vmid) = self.path_vmid().filter(|vmid| *vmid >= 100) else {
            return self.overwritten_guest();
        };
        if self.lacks_guest() {
            return;
        }
        let (kind, node) = (self.path_kind(), self.node_name());
        let power = self.power_before();
        self.ensure_guest(kind, vmid, &node).power = power;
        self.named_drives(kind, vmid);
        self.named_options(kind, vmid);
        self.named_snapshot();
        self.named_others(kind, &node);
    }

    /// Restoring by force is over a guest that is there.
    fn overwritten_guest(&mut self) {
        let restores = !self.parameter("archive").is_empty() || self.parameter("restore") == "1";
        let vmid = self.parameter("vmid").parse().ok().filter(|vmid| *vmid >= 100);
        if let (Some(vmid), true, "1") = (vmid, restores, self.parameter("force")) {
            let (kind, node) = (self.path_kind(), self.node_name());
            self.ensure_guest(kind, vmid, &node);
        }
    }

    /// What a verb is for: a guest that runs is stopped, a stopped one started.
    fn power_before(&self) -> Power {
        let verb = self.template.rsplit('/').next().unwrap_or_default();
        let flag = |name: &str| self.parameter(name) == "1";
        match verb {
            "stop" | "shutdown" | "reset" | "suspend" | "reboot" | "monitor" | "vncproxy" | "sendkey"
            | "spiceproxy" => Power::Running,
            // A container is resumed from a checkpoint, when it does not run.
            "resume" if self.path_kind() == GuestKind::Qemu => Power::Paused,
            "migrate" if flag("online") || flag("restart") => Power::Running,
            _ if flag("todisk") => Power::Running,
            _ => Power::Stopped,
        }
    }

    /// The task that the answer names.
    fn task_kind(&self) -> Option<String> {
        Task::parse(self.data().as_str()?).map(|task| task.kind)
    }

    /// The drives that `disk` and `volume` name. A disk that moves is on another storage before.
    fn named_drives(&mut self, kind: GuestKind, vmid: u32) {
        let moves = self.template.ends_with("move_disk") || self.template.ends_with("move_volume");
        let absent =
            self.reason().contains("does not exist") && self.reason().to_lowercase().contains("disk '");
        let resizes = self.recording.method == "PUT" && self.template.ends_with("resize");
        let key =
            ["disk", "volume"].iter().map(|name| self.parameter(name).to_owned()).find(|key| !key.is_empty());
        let Some(key) = key.filter(|key| is_drive(kind, key) || is_numbered(key, "unused")) else { return };
        if absent || !(moves || resizes) {
            return;
        }
        let to_guest = !self.parameter("target-vmid").is_empty();
        let storage = if moves && !to_guest { "elsewhere" } else { "local" };
        self.ensure_storage(storage);
        let Some(guest) = self.path_guest() else { return };
        if moves || guest.config.get(&key).is_none() {
            guest.config.set(key, format!("{storage}:{vmid}/vm-{vmid}-disk-7.raw,size=1G"));
        }
    }

    /// What is to be deleted, taken off or put back was there, and a digest is that of the guest.
    fn named_options(&mut self, kind: GuestKind, vmid: u32) {
        let lists = ["delete", "idlist", "revert"].map(|name| self.parameter(name).to_owned());
        let Some(guest) = self.path_guest() else { return };
        for key in lists.iter().flat_map(|list| split_list(list)).filter(|key| key.parse::<u32>().is_err()) {
            if guest.config.get(key).is_none() {
                let volume = format!("local:{vmid}/vm-{vmid}-disk-9.qcow2");
                let value = match key {
                    key if is_drive(kind, key) => format!("{volume},size=1G"),
                    key if is_numbered(key, "unused") => volume,
                    _ => "x".to_owned(),
                };
                guest.config.set(key.to_owned(), value);
            }
        }
    }

    /// A snapshot that is named is there, unless it is to be made or the answer denies it.
    fn named_snapshot(&mut self) {
        let taken = self.recording.method == "POST" && self.template.ends_with("/snapshot");
        let denied = self.reason().contains("snapshot '") && self.reason().contains("does not exist");
        let failed_task = self.recording.status == 200 && self.task_kind().is_none() && taken;
        let name =
            ["snapname", "snapshot"].iter().map(|name| self.parameter(name)).find(|name| !name.is_empty());
        let Some(name) = name.map(str::to_owned).filter(|_| !(taken || denied || failed_task)) else {
            return;
        };
        let Some(guest) = self.path_guest() else { return };
        let config = guest.config.clone();
        guest.snapshots.push(Self::snapshot(&name, &config));
        guest.config.set("parent", name);
    }

    /// What else the request tells: a linked clone is one of a template, an HA task of a managed guest; what goes to another
    /// node as a clone is on shared storage, and who takes over a disk is there.
    fn named_others(&mut self, kind: GuestKind, node: &str) {
        let linked = self.parameter("full") == "0";
        match self.task_kind().as_deref() {
            Some("hastart" | "hastop" | "hamigrate") => {
                if let Some(guest) = self.path_guest() {
                    guest.ha = Some("started".into());
                }
            }
            Some("qmclone" | "vzclone") if linked => {
                if let Some(guest) = self.path_guest() {
                    guest.config.set("template", 1);
                    let keys: Vec<String> = guest.drives().iter().map(|drive| drive.key.to_owned()).collect();
                    for key in keys {
                        let value = guest.config.text(&key).unwrap_or_default().replace("/vm-", "/base-");
                        guest.config.set(key, value);
                    }
                }
            }
            _ => {}
        }
        let target = self.parameter("target").to_owned();
        if self.template.ends_with("/clone") && self.ok() && !target.is_empty() && target != node {
            self.ensure_storage("local").shared = true;
            let storage = self.parameter("storage").to_owned();
            if !storage.is_empty() {
                self.ensure_storage(&storage).shared = true;
            }
        }
        let other = self.parameter("target-vmid").parse().ok().filter(|vmid: &u32| *vmid >= 100);
        if let Some(other) = other.filter(|_| !self.reason().contains("could not find")) {
            self.ensure_guest(kind, other, node);
        }
    }

    /// Puts a drive of a guest onto a storage that only the answer names.
    pub(super) fn put_drive_on(&mut self, storage: &str) {
        let Some(guest) = self.path_guest() else { return };
        let first = guest.drives().first().map(|drive| {
            let (key, mut drive) = (drive.key.to_owned(), drive.clone());
            if let Some((_, name)) = drive.volume.split_once(':') {
                drive.volume = format!("{storage}:{name}");
            }
            (key, drive.to_property_string())
        });
        if let Some((key, value)) = first {
            guest.config.set(key, value);
        }
    }

    /// Puts a volume under a guest's key, now and in its snapshots.
    pub(super) fn put_volume(&mut self, key: &str, volume: &str) {
        let storage = parse_drive(key, volume).storage().map(str::to_owned);
        if let Some(storage) = storage {
            self.ensure_storage(&storage);
        }
        let Some(guest) = self.path_guest() else { return };
        let value = format!("{volume},size=1G");
        guest.config.set(key.to_owned(), value.clone());
        for config in guest.snapshots.iter_mut().filter_map(|snapshot| snapshot.config.as_mut()) {
            config.set(key.to_owned(), value.clone());
        }
    }
}
