//! What a refusal's text presupposes.

use std::sync::OnceLock;

use regex::Regex;

use super::prepare::Maker;
use crate::world::state::{GuestKind, Power};

/// The first groups of a pattern in a text.
fn groups(pattern: &str, text: &str) -> Option<Vec<String>> {
    static CACHE: OnceLock<std::sync::Mutex<std::collections::HashMap<String, Option<Regex>>>> =
        OnceLock::new();
    let mut cache =
        CACHE.get_or_init(Default::default).lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let regex = cache.entry(pattern.to_owned()).or_insert_with(|| Regex::new(pattern).ok()).as_ref()?;
    let found = regex.captures(text)?;
    Some(
        found
            .iter()
            .skip(1)
            .map(|group| group.map_or(String::new(), |group| group.as_str().to_owned()))
            .collect(),
    )
}

impl Maker<'_> {
    /// Refusals say what stood in the way; each pattern puts that there.
    pub(super) fn refusal(&mut self) {
        let reason = self.reason().to_owned();
        let errors = self.recording.json.get("errors").map(|errors| errors.to_string()).unwrap_or_default();
        let first = |pattern: &str| groups(pattern, &reason).and_then(|groups| groups.into_iter().next());
        let node = self.node_name();
        if let Some(found) = groups(r"(VM|CT) (\d+) already exists on node '([^']*)'", &reason)
            && let [word, vmid, node] = found.as_slice()
        {
            let kind = if word == "CT" { GuestKind::Lxc } else { GuestKind::Qemu };
            self.ensure_guest(kind, vmid.parse().unwrap_or_default(), node);
        }
        if let Some(vmid) = first(r"unable to create (?:VM|CT) (\d+): config file already exists") {
            let kind = self.path_kind();
            self.ensure_guest(kind, vmid.parse().unwrap_or_default(), &node);
        }
        if let Some(lock) = first(r"(?:VM|CT) is locked \(([a-z-]+)\)")
            && let Some(guest) = self.path_guest()
        {
            guest.config.set("lock", lock);
        }
        if reason.contains("protection mode enabled")
            && let Some(guest) = self.path_guest()
        {
            guest.config.set("protection", 1);
            guest.config.set("scsi0", "local:1/vm-1-disk-0.qcow2,size=1G");
            if let Some(key) = first(r"can't remove (?:drive|unused disk|mountpoint) '([^']*)'")
                && let Some(guest) = self.path_guest()
            {
                guest.config.set(key, "local:1/vm-1-disk-1.qcow2,size=1G");
            }
        }
        let runs = [
            "is running",
            "running VM without",
            "running container without",
            "while VM is running",
            "if VM is running",
            "already running",
            "agent is not running",
        ];
        if runs.iter().any(|text| reason.contains(text))
            && groups(r"VM \d+ is not running", &reason).is_none()
            && let Some(guest) = self.path_guest()
        {
            guest.power = Power::Running;
        }
        if (reason.ends_with("not running"))
            && let Some(guest) = self.path_guest()
            && !reason.contains("agent")
        {
            guest.power = Power::Stopped;
        }
        if (reason.contains("guest agent is not running")
            || groups(r"VM \d+ is not running", &reason).is_some())
            && let Some(guest) = self.path_guest()
        {
            guest.config.set("agent", "1");
        }
        if reason.contains("contains snapshots")
            && let Some(guest) = self.path_guest()
        {
            let config = guest.config.clone();
            guest.snapshots.push(Self::snapshot("one", &config));
        }
        if (reason.contains("a template to a template") || reason.contains("if it's a template"))
            && let Some(guest) = self.path_guest()
        {
            guest.config.set("template", 1);
        }
        if reason.contains("used in HA resources")
            && let Some(guest) = self.path_guest()
        {
            guest.ha = Some("started".into());
        }
        if let Some(found) =
            groups(r"Linked clone feature is not supported for '([^']*)' \(([a-z0-9]+)\)", &reason)
            && let [volume, key] = found.as_slice()
        {
            let storage = volume.split(':').next().unwrap_or_default().to_owned();
            self.ensure_storage(&storage);
            if let Some(guest) = self.path_guest() {
                guest.config.set(key.clone(), format!("{volume},size=1G"));
            }
        }
        if let Some(storage) = first(r"storage '([^']*)' is disabled") {
            self.ensure_storage(&storage).disabled = true;
        }
        if let Some(storage) = first(r"storage '([^']*)' is not available on node") {
            self.ensure_node("elsewhere");
            self.ensure_storage(&storage).nodes = Some(["elsewhere".to_owned()].into());
        }
        if let Some(storage) = first(r"storage '([^']*)' does not support") {
            self.ensure_storage(&storage).content = "none".to_owned();
        }
        if let Some(storage) = first(r"storage ID '([^']*)' already defined") {
            self.ensure_storage(&storage);
        }
        if reason.contains("detected modified configuration") || reason.contains("update storage failed") {
            let storage = self.parameter("storage").to_owned();
            if !reason.contains("does not exist") {
                self.ensure_storage(&storage);
            }
        }
        if let Some(pool) = first(r"create pool failed: pool '([^']*)' already exists") {
            self.state.pools.entry(pool).or_default();
        }
        if let Some(found) = groups(r"VM (\d+) belongs already to pool '([^']*)'", &reason)
            && let [vmid, pool] = found.as_slice()
        {
            self.state.pools.entry(pool.clone()).or_default();
            self.ensure_guest(GuestKind::Qemu, vmid.parse().unwrap_or_default(), &node).pool =
                Some(pool.as_str().into());
        }
        if let Some(vmid) = first(r"VM (\d+) is (?:not|already) a pool member") {
            let pool = self.parameter("poolid").to_owned();
            let member = reason.contains("already").then(|| pool.as_str().into());
            self.ensure_guest(GuestKind::Qemu, vmid.parse().unwrap_or_default(), &node).pool = member;
        }
        if let Some(found) =
            groups(r"pool '([^']*)' is not empty \(contains (pool|VM|storage) '?([^')]*)'?\)", &reason)
            && let [pool, kind, what] = found.as_slice()
        {
            self.state.pools.entry(pool.clone()).or_default();
            match kind.as_str() {
                "pool" => drop(self.state.pools.entry(what.clone()).or_default()),
                "VM" => {
                    self.ensure_guest(GuestKind::Qemu, what.parse().unwrap_or_default(), &node).pool =
                        Some(pool.as_str().into());
                }
                _ => {
                    self.ensure_storage(what);
                    self.state.pools.entry(pool.clone()).or_default().storages.insert(what.clone());
                }
            }
        }
        if let Some(job) = first(r"Job '([^']*)' already exists") {
            self.state.jobs.insert(job.clone(), super::prepare::answers_job(&job));
        }
        if let Some(sid) = first(r"resource ID '([^']*)' already defined") {
            let vmid = sid.rsplit(':').next().and_then(|vmid| vmid.parse().ok()).unwrap_or_default();
            let kind = if sid.starts_with("ct") { GuestKind::Lxc } else { GuestKind::Qemu };
            self.ensure_guest(kind, vmid, &node).ha = Some("started".into());
        }
        if let Some(set) = first(r"IPSet '([^']*)' is not empty") {
            let entry = [("cidr".to_owned(), "192.0.2.1".into())].into_iter().collect();
            self.firewall().sets.insert(set, (None, vec![entry]));
        }
        if let Some(group) = first(r"[Ss]ecurity group '([^']*)' is not empty") {
            let rule = [("type".to_owned(), "in".into())].into_iter().collect();
            self.state.firewalls.entry(format!("group/{group}")).or_default().rules.push(rule);
        }
        if let Some(set) = first(r"IPSet '([^']*)' already exists") {
            self.firewall().sets.insert(set, (None, Vec::new()));
        }
        if let Some(group) = first(r"[Ss]ecurity group '([^']*)' already exists") {
            self.state.firewalls.entry(format!("group/{group}")).or_default();
        }
        if let Some(user) = first(r"user '([^']*)' already exists") {
            self.state.access.users.entry(user).or_default();
        }
        if let Some(role) = first(r"role '([^']*)' already exists") {
            self.state.access.roles.entry(role).or_default();
        }
        if let Some(group) = first(r"(?:create|add) (?:group|ha group) failed: .*'([^']*)' already") {
            self.state.access.groups.entry(group.clone()).or_default();
            self.state.ha_groups.entry(group).or_default();
        }
        if let Some(volume) = first(r"missing replicate feature on volume '([^']*)'") {
            let storage = volume.split(':').next().unwrap_or_default().to_owned();
            self.ensure_storage(&storage);
            let vmid =
                self.parameter("id").split('-').next().and_then(|vmid| vmid.parse().ok()).unwrap_or_default();
            self.ensure_guest(GuestKind::Qemu, vmid, &node).config.set("scsi0", format!("{volume},size=1G"));
            let target = self.parameter("target").to_owned();
            self.ensure_node(&target);
        }
        if let Some(vmid) =
            groups(r"(?:VM|CT) (\d+) already exists", &errors).and_then(|found| found.into_iter().next())
        {
            self.ensure_guest(GuestKind::Qemu, vmid.parse().unwrap_or_default(), &node);
        }
        if reason.contains("you can't move to the same storage") {
            let storage = self.parameter("storage").to_owned();
            let key = self.parameter("disk").to_owned();
            self.ensure_storage(&storage);
            if let Some(guest) = self.path_guest() {
                guest.config.set(key, format!("{storage}:1/vm-1-disk-0.raw,size=1G"));
            }
        }
        if errors.contains("Token already exists") {
            let (user, token) = (self.parameter("userid").to_owned(), self.parameter("tokenid").to_owned());
            crate::world::insert_token(&mut self.state, &user, &token, true);
        }
        if errors.contains("interface already exists") {
            let name = self.parameter("iface").to_owned();
            self.state.interfaces.entry(node).or_default().insert(name, serde_json::Map::new());
        }
    }
}
