//! What a refusal's text presupposes.

use std::sync::OnceLock;

use regex::Regex;

use super::prepare::Maker;
use crate::world::state::GuestKind;

/// The first groups of a pattern in a text.
pub(super) fn groups(pattern: &str, text: &str) -> Option<Vec<String>> {
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
        self.guest_refusal(&reason);
        self.storage_refusal(&format!("{reason}\n{errors}"));
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
            self.state.jobs.insert(job.clone(), super::elements::answers_job(&job));
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
