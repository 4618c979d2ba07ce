//! Elements of collections that a request names: users, pools, jobs, rules, …

use serde_json::Value;

use super::prepare::Maker;
use crate::schema::split_list;
use crate::world::access::{Principal, User};
use crate::world::state::{Firewall, GuestKind, Pool, Task};

impl Maker<'_> {
    pub(super) fn rule() -> serde_json::Map<String, Value> {
        [("action", Value::from("ACCEPT")), ("enable", Value::from(1)), ("type", Value::from("in"))]
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value))
            .collect()
    }

    /// Whose firewall the path is about.
    pub fn firewall(&mut self) -> &mut Firewall {
        let place = if let Some(vmid) = self.in_path.get("vmid") {
            format!("guest/{vmid}")
        } else if let Some(group) = self.in_path.get("group") {
            format!("group/{group}")
        } else if self.in_path.contains_key("node") {
            format!("node/{}", self.node_name())
        } else {
            "cluster".to_owned()
        };
        self.state.firewalls.entry(place).or_default()
    }

    pub(super) fn ensure_user(&mut self, id: &str) -> &mut User {
        let user = self.state.access.users.entry(id.to_owned()).or_default();
        user.enabled = true;
        user
    }

    /// Elements of collections that the path or parameters name. Creation finds them absent, and so do refusals that say so.
    pub(super) fn named_elements(&mut self) {
        let creates = self.recording.method == "POST";
        let absent = !self.ok()
            && ["does not exist", "no such", "No such", "no rule at", "not HA managed"]
                .iter()
                .any(|text| self.reason().contains(text))
            || self
                .recording
                .json
                .get("message")
                .and_then(Value::as_str)
                .is_some_and(|text| text.contains("No such"))
            || self.recording.json.get("errors").is_some_and(|errors| {
                errors.to_string().contains("does not exist") || errors.to_string().contains("No such")
            });
        let template = self.template.to_owned();
        let text = |maker: &Self, name: &str| maker.parameter(name).to_owned();
        let in_path = self.in_path.clone();
        let has = |name: &str| in_path.get(name).cloned();
        if template.contains("/firewall") {
            if let Some(group) = has("group").filter(|_| !absent) {
                self.state.firewalls.entry(format!("group/{group}")).or_default();
            }
            if self.parameter("type") == "group" && self.ok() {
                let group = text(self, "action");
                self.state.firewalls.entry(format!("group/{group}")).or_default();
            }
            if let Some(pos) = has("pos").and_then(|pos| pos.parse::<usize>().ok()).filter(|_| !absent) {
                let rules = vec![Self::rule(); pos + 2];
                self.firewall().rules = rules;
            }
            if let Some(name) = has("name").filter(|_| !absent) {
                let entry = [("cidr".to_owned(), Value::from(text(self, "cidr")))].into_iter().collect();
                let adds = creates;
                if template.contains("ipset") {
                    // What is removed as a whole was empty.
                    let whole = self.recording.method == "DELETE" && template.ends_with("{name}");
                    let entries = if adds || whole { Vec::new() } else { vec![entry] };
                    self.firewall().sets.insert(name, (None, entries));
                } else {
                    self.firewall().aliases.insert(name, entry);
                }
            }
            return;
        }
        if let Some(user) = has("userid").filter(|_| !absent || template.contains("token")) {
            self.ensure_user(&user);
            if let Some(token) = has("tokenid").filter(|_| !absent && (!creates)) {
                crate::world::insert_token(&mut self.state, &user, &token, true);
            }
        }
        if template == "/access/password" || template == "/access/permissions" {
            let user = text(self, "userid");
            if !user.is_empty() {
                self.ensure_user(&user);
            }
        }
        // Who changes passwords and second factors confirmed with the own password.
        let confirmed = if template == "/access/password" { "confirmation-password" } else { "password" };
        let confirms = template == "/access/password" || template.starts_with("/access/tfa/");
        let password = text(self, confirmed);
        if confirms && self.ok() && !password.is_empty() {
            let caller = self.principal.user().to_owned();
            self.ensure_user(&caller).password = Some(password);
        }
        for group in split_list(&text(self, "groups")).filter(|_| !absent) {
            self.state.access.groups.insert(group.to_owned(), None);
        }
        if let Some(group) = has("groupid").filter(|_| !absent) {
            self.state.access.groups.insert(group, None);
        }
        if let Some(role) = has("roleid").filter(|_| !absent) {
            self.state.access.roles.entry(role).or_default();
        }
        if template == "/access/acl" && self.recording.method == "PUT" {
            for user in split_list(&text(self, "users")) {
                self.ensure_user(user);
            }
            for token in split_list(&text(self, "tokens")) {
                if let Principal::Token(user, name) = Principal::parse(token) {
                    crate::world::insert_token(&mut self.state, &user, &name, true);
                }
            }
            for role in split_list(&text(self, "roles")).filter(|_| !absent) {
                self.state.access.roles.entry(role.to_owned()).or_default();
            }
        }
        let pool = if creates { text(self, "pool") } else { text(self, "poolid") };
        let pool_missing = absent && self.reason().contains("pool '");
        if !(pool.is_empty() || pool_missing)
            && (template.starts_with("/pools") || template.starts_with("/nodes"))
        {
            self.state.pools.insert(pool.clone(), Pool::default());
        }
        if creates
            && template == "/pools"
            && let Some((parent, _)) = text(self, "poolid").rsplit_once('/')
        {
            self.state.pools.insert(parent.to_owned(), Pool::default());
        }
        let node = self.node_name();
        for vmid in split_list(&text(self, "vms")).filter_map(|vmid| vmid.parse().ok()) {
            if self.reason().contains(&format!("VM {vmid} does not exist")) {
                continue;
            }
            let member = (self.parameter("delete") == "1").then(|| pool.as_str().into());
            self.ensure_guest(GuestKind::Qemu, vmid, &node).pool = member;
        }
        if template.contains("/ha/") {
            let sid = text(self, "sid");
            let vmid: Option<u32> = sid.rsplit(':').next().and_then(|vmid| vmid.parse().ok());
            let kind = if sid.starts_with("ct") { GuestKind::Lxc } else { GuestKind::Qemu };
            let of_group = self.reason().contains("ha group");
            if let Some(vmid) = vmid.filter(|_| !absent || of_group) {
                let managed = has("sid").is_some();
                let guest = self.ensure_guest(kind, vmid, &node);
                guest.ha = managed.then(|| "started".into());
            }
            let group = text(self, "group");
            let is_new = creates && template.ends_with("groups");
            if !(group.is_empty() || absent || is_new) {
                self.state.ha_groups.insert(group, serde_json::Map::new());
            }
        }
        // No other interface has what one is given.
        if template.starts_with("/nodes/{node}/network") && self.recording.method != "GET" && self.ok() {
            let interfaces = self.state.interfaces.entry(node.clone()).or_default();
            for interface in interfaces.values_mut() {
                for key in ["gateway", "gateway6", "bridge_ports", "slaves"] {
                    interface.remove(key);
                }
            }
        }
        if template.starts_with("/cluster/replication") {
            let id = text(self, "id");
            let vmid = id.split('-').next().and_then(|vmid| vmid.parse().ok());
            if let Some(vmid) = vmid {
                self.ensure_guest(GuestKind::Qemu, vmid, &node);
            }
            if has("id").is_some() && !absent {
                self.state.replication.insert(id, serde_json::Map::new());
            }
        }
        if template.starts_with("/cluster/backup/{id}") && !absent {
            let job = answers_job(&text(self, "id"));
            self.state.jobs.insert(job.id.clone(), job);
        }
        for name in ["zone", "vnet", "controller", "ipam", "dns", "id", "name"] {
            let base = template.strip_suffix(&format!("/{{{name}}}"));
            if let (Some(base), Some(id)) = (base, has(name).filter(|_| !absent)) {
                let entry = serde_json::json!({});
                self.state.collections.entry(base.to_owned()).or_default().insert(id, entry);
            }
        }
        if let Some(name) = has("iface").filter(|_| !absent) {
            let row = [("type", "bridge"), ("method", "manual")]
                .map(|(key, value)| (key.to_owned(), Value::from(value)));
            self.state.interfaces.entry(node.clone()).or_default().insert(name, row.into_iter().collect());
        }
        // What a request asks to stop or to look at runs, unless the answer tells.
        if let Some(mut task) = has("upid")
            .and_then(|upid| Task::parse(&upid))
            .filter(|_| !absent && !self.reason().contains("Parameter"))
        {
            task.log = vec!["x".to_owned()];
            self.state.tasks.push(task);
        }
    }
}

/// A job that takes everything.
pub(super) fn answers_job(id: &str) -> crate::world::state::BackupJob {
    crate::world::state::BackupJob {
        id: id.to_owned(),
        enabled: true,
        schedule: "daily".to_owned(),
        storage: "local".to_owned(),
        selection: crate::world::state::Selection::All { exclude: Vec::new() },
        node: None,
        properties: serde_json::Map::new(),
    }
}
