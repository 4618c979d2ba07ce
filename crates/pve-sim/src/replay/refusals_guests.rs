//! What refusals about guests and storages presuppose: each text says what stood in the way, and that is put there.

use super::prepare::Maker;
use super::refusals::groups;
use crate::world::config::is_numbered;
use crate::world::state::{GuestKind, Power};

fn kind_of(word: &str) -> GuestKind {
    if word == "CT" { GuestKind::Lxc } else { GuestKind::Qemu }
}

/// Texts of a guest that runs.
const RUNS: [&str; 10] = [
    "is running",
    "running VM without",
    "running container",
    "while VM is running",
    "while the source VM is running",
    "if VM is running",
    "if the CT is running",
    "already running",
    "agent is not running",
    "container is running",
];

impl Maker<'_> {
    pub(super) fn guest_refusal(&mut self, reason: &str) {
        let first = |pattern: &str| groups(pattern, reason).and_then(|groups| groups.into_iter().next());
        let node = self.node_name();
        if let Some(found) = groups(r"(VM|CT) (\d+) already exists on node '([^']*)'", reason)
            && let [word, vmid, node] = found.as_slice()
        {
            self.ensure_guest(kind_of(word), vmid.parse().unwrap_or_default(), node);
        }
        if let Some(found) = groups(r"unable to create (VM|CT) (\d+): config file already exists", reason)
            && let [word, vmid] = found.as_slice()
        {
            self.ensure_guest(kind_of(word), vmid.parse().unwrap_or_default(), &node);
        }
        if let Some(lock) = first(r"(?:VM|CT) is locked \(([a-z-]+)\)")
            && let Some(guest) = self.named_or_path_guest()
        {
            guest.config.set("lock", lock);
        }
        self.protected_guest(reason);
        self.power_of_refusal(reason);
        if reason.contains("contains snapshots") || reason.contains("with snapshots and delete") {
            self.take_snapshot();
        }
        if (reason.contains("a template to a template") || reason.contains("a template"))
            && !reason.contains("to template")
            && !reason.contains("create template")
            && let Some(guest) = self.path_guest()
        {
            guest.config.set("template", 1);
        }
        if (reason.contains("used in HA resources")
            || reason.contains("HA managed")
            || reason.contains("for HA"))
            && let Some(guest) = self.path_guest()
        {
            guest.ha = Some("started".into());
        }
        if let Some(found) = groups(
            r"clone feature (?:is not supported )?for(?: a snapshot of)? '([^']*)'[^(]*(?:\((\w+)\))?",
            reason,
        ) && let [volume, key] = found.as_slice()
        {
            let root = if self.path_kind() == GuestKind::Lxc { "rootfs" } else { "scsi0" };
            let key = if key.is_empty() { root } else { key.as_str() };
            self.put_volume(key, volume);
        }
        if let Some(found) =
            groups(r"Target (?:disk|volume) key '([^']*)' is already in use for \w+ '(\d+)'", reason)
            && let [key, vmid] = found.as_slice()
        {
            let kind = self.path_kind();
            let guest = self.ensure_guest(kind, vmid.parse().unwrap_or_default(), &node);
            guest.config.set(key.clone(), format!("local:{vmid}/vm-{vmid}-disk-5.raw,size=1G"));
        }
        if reason.contains("a cdrom") || reason.contains("CD drive contents") {
            let key = self.parameter("disk").to_owned();
            if let Some(guest) = self.path_guest().filter(|_| !key.is_empty()) {
                guest.config.set(key, "none,media=cdrom");
            }
        }
        if reason.contains("you can't move to the same storage") {
            let (storage, key) = (self.parameter("storage").to_owned(), self.parameter("disk").to_owned());
            self.put_volume(&key, &format!("{storage}:1/vm-1-disk-0.raw"));
        }
        if reason.contains("passed-through PCI")
            && let Some(guest) = self.path_guest()
        {
            guest.config.set("hostpci0", "0000:01:00.0");
        }
    }

    /// The guest of the path, or the one that a parameter names.
    fn named_or_path_guest(&mut self) -> Option<&mut crate::world::state::Guest> {
        let vmid = self.path_vmid().or_else(|| self.parameter("vmid").parse().ok())?;
        self.state.guests.get_mut(&vmid)
    }

    /// A protected guest, with what it protects.
    fn protected_guest(&mut self, reason: &str) {
        if !reason.contains("protection mode enabled") {
            return;
        }
        let drive = groups(r"(?:drive|mountpoint) '([a-z]+\d*)'", reason)
            .and_then(|groups| groups.into_iter().next());
        let Some(guest) = self.named_or_path_guest() else { return };
        guest.config.set("protection", 1);
        if let Some(key) = drive.filter(|key| guest.config.get(key).is_none()) {
            let kept = if is_numbered(&key, "mp") { ",mp=/a" } else { "" };
            guest.config.set(key, format!("local:1/vm-1-disk-1.raw{kept},size=1G"));
        }
    }

    fn take_snapshot(&mut self) {
        if let Some(guest) = self.path_guest() {
            let config = guest.config.clone();
            guest.snapshots.push(Self::snapshot("one", &config));
        }
    }

    fn power_of_refusal(&mut self, reason: &str) {
        let stopped = groups(r"(?:VM|CT) \d+ (?:is )?not running", reason).is_some();
        let by_agent = groups(r"VM \d+ is not running", reason).is_some();
        let runs = RUNS.iter().any(|text| reason.contains(text)) && !stopped;
        let paused = reason.contains("is paused");
        let Some(guest) = self.named_or_path_guest() else { return };
        if paused {
            guest.power = Power::Paused;
        } else if runs {
            guest.power = Power::Running;
        } else if stopped {
            guest.power = Power::Stopped;
        }
        // What the agent is asked for is switched on, where that is not what is refused.
        if reason.contains("guest agent is not running") || by_agent {
            guest.config.set("agent", "1");
        }
    }

    pub(super) fn storage_refusal(&mut self, text: &str) {
        if text.contains("zfsutils-linux not installed") {
            self.state.without_zfs = true;
        }
        let first = |pattern: &str| groups(pattern, text).and_then(|groups| groups.into_iter().next());
        if let Some(storage) = first(r"storage '([^']*)' is disabled") {
            self.ensure_storage(&storage).disabled = true;
            self.drive_elsewhere(&storage);
        }
        if let Some(found) = groups(r"storage '([^']*)' is not available on node '([^']*)'", text)
            && let [storage, lacking] = found.as_slice()
        {
            self.ensure_node("elsewhere");
            let others = self.state.nodes.keys().filter(|node| *node != lacking).cloned().collect();
            self.ensure_storage(storage).nodes = Some(others);
            self.drive_elsewhere(storage);
        }
        let content =
            r"storage '([^']*)' (?:does not support|does not allow content|is not configured for content)";
        if let Some(storage) = first(content) {
            self.ensure_storage(&storage).content = "none".to_owned();
        }
        if let Some(storage) = first(r"can't clone to non-shared storage '([^']*)'") {
            self.ensure_storage(&storage).shared = false;
        }
        if first(r"disk image '([^']*)' already exists").is_some() {
            let (storage, name) =
                (self.parameter("storage").to_owned(), self.parameter("filename").to_owned());
            let vmid = self.parameter("vmid").to_owned();
            let volume = crate::world::state::Volume { content: "images".to_owned(), ..Default::default() };
            self.state.volumes.insert(format!("{storage}:{vmid}/{name}"), volume);
        }
        if let Some(kind) = first(r"storage type '([^']*)'") {
            let storage = self.parameter("storage").to_owned();
            let found = self.ensure_storage(&storage);
            found.kind = kind;
            found.properties.remove("path");
        }
    }

    /// A storage that the request does not name is one of the guest's.
    fn drive_elsewhere(&mut self, storage: &str) {
        let named = self.parameters.values().any(|value| value.split([':', ',']).any(|part| part == storage));
        if !named && self.parameter("storage") != storage {
            self.put_drive_on(storage);
        }
    }
}
