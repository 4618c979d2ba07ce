//! The world that a recorded answer presupposes: what the request names exists, and what the answer says is so.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Recording;
use crate::schema::{self, split_list};
use crate::work::disks::is_drive;
use crate::world::access::{AclEntry, Principal, Privileges, ROOT, User};
use crate::world::config::{Config, parse_drive};
use crate::world::state::{
    Firewall, Guest, GuestKind, Node, Pool, Power, Snapshot, State, Storage, Task, Usage, Volume,
};

/// A world with what must be changed in the request.
pub(super) struct Prepared {
    pub state: State,
    /// Parameters that name what only the recorded cluster knew.
    pub changed: BTreeMap<String, String>,
    pub local_node: String,
}

/// A world on its way.
pub(super) struct Maker<'a> {
    pub state: State,
    pub recording: &'a Recording,
    pub template: &'a str,
    pub in_path: BTreeMap<String, String>,
    pub parameters: BTreeMap<String, String>,
    pub principal: Principal,
}

pub(super) fn prepare(recording: &Recording) -> Prepared {
    let inner = recording.unwrapped();
    let recording = &inner;
    let below = recording.below().unwrap_or_default();
    let declared = schema::find(&recording.method, &below);
    let (template, in_path) = match &declared {
        Some(declared) => (declared.template, declared.in_path.iter().cloned().collect()),
        None => ("", BTreeMap::new()),
    };
    let who = recording.auth.as_deref().unwrap_or_default();
    let id = who.strip_suffix(" (token)").or_else(|| who.strip_suffix(" (ticket)")).unwrap_or(ROOT);
    let mut state = State::empty();
    state.cluster_name = Some("rig".to_owned());
    // Where a genuine answer breaks PVE's schema, the answer wins.
    state.odd = true;
    let mut maker = Maker {
        state,
        recording,
        template,
        in_path,
        parameters: recording.parameters(),
        principal: Principal::parse(id),
    };
    if maker.data().get("console").is_none() && maker.ok() {
        maker.state.options.remove("console");
    }
    maker.nodes();
    maker.rights();
    maker.things();
    if recording.status == 200 {
        maker.answer();
    } else {
        maker.refusal();
    }
    let changed = maker.login();
    let local_node = maker.state.nodes.keys().next().cloned().unwrap_or_default();
    Prepared { state: maker.state, changed, local_node }
}

impl Maker<'_> {
    pub fn parameter(&self, name: &str) -> &str {
        self.parameters.get(name).or_else(|| self.in_path.get(name)).map_or("", String::as_str)
    }

    pub fn ok(&self) -> bool {
        self.recording.status == 200
    }

    pub fn data(&self) -> &Value {
        self.recording.json.get("data").unwrap_or(&Value::Null)
    }

    pub fn reason(&self) -> &str {
        &self.recording.reason
    }

    /// The node of the path, or the first there is.
    pub fn node_name(&self) -> String {
        let named = self.in_path.get("node").filter(|node| self.state.nodes.contains_key(*node));
        named.or_else(|| self.state.nodes.keys().next()).cloned().unwrap_or_default()
    }

    pub fn ensure_node(&mut self, name: &str) -> &mut Node {
        let id = u32::try_from(self.state.nodes.len()).unwrap_or_default() + 1;
        self.state.nodes.entry(name.to_owned()).or_insert_with(|| Node {
            name: name.into(),
            id,
            ip: format!("192.0.2.{id}"),
            online: true,
            forgotten: false,
            cpus: 2,
            cpu_load: 0.5,
            memory: Usage { total: 8 << 30, used: 4 << 30 },
            rootfs: Usage { total: 64 << 30, used: 8 << 30 },
            uptime: 4_000,
            description: None,
            fingerprint: "AA:BB".to_owned(),
            certificate: Some("-----BEGIN CERTIFICATE-----\n".to_owned()),
        })
    }

    /// The nodes that the request names are there, unless the answer says otherwise.
    fn nodes(&mut self) {
        self.state.ca_certificate = Some("-----BEGIN CERTIFICATE-----\n".to_owned());
        // The one asked is another than the one in the path, where that one cannot be reached.
        if self.recording.status == 595 {
            self.ensure_node("asked");
        }
        let unknown = self.reason().contains("hostname lookup");
        let named = self.in_path.get("node").cloned().filter(|_| !unknown);
        let name = named.unwrap_or_else(|| "asked".to_owned());
        self.ensure_node(&name);
        if self.recording.status == 595 {
            let reason = self.reason().to_owned();
            self.state.unreachable.insert(name, reason);
        }
        let no_such = self.reason().contains("no such cluster node");
        for parameter in ["target", "node", "nodes"] {
            let names: Vec<String> = self
                .parameters
                .get(parameter)
                .into_iter()
                .flat_map(|text| split_list(text))
                .map(|name| name.split(':').next().unwrap_or_default().to_owned())
                .collect();
            for name in names.into_iter().filter(|_| !no_such) {
                self.ensure_node(&name);
            }
        }
    }

    fn grant(&mut self, path: &str, set: Privileges, propagate: bool) {
        let role = format!("replayed-{}", self.state.access.roles.len());
        self.state.access.roles.insert(role.clone(), set);
        let mut who = vec![self.principal.user().to_owned()];
        if matches!(self.principal, Principal::Token(..)) {
            who.push(self.principal.id());
        }
        for who in who {
            let entries = self.state.access.acl.entry(path.to_owned()).or_default();
            entries.push(AclEntry { who, role: role.clone(), propagate });
        }
    }

    pub fn grant_named(&mut self, path: &str, names: &[&str]) {
        self.grant(path, Privileges::named(names), true);
    }

    pub fn grant_exactly(&mut self, path: &str, names: &[&str], propagate: bool) {
        self.grant(path, Privileges::named(names), propagate);
    }

    /// Whether rights filter what an answer lists.
    fn is_filtered(&self) -> bool {
        const FILTERED: [&str; 17] = [
            "/access/acl",
            "/access/groups",
            "/access/permissions",
            "/access/users",
            "/cluster/log",
            "/cluster/options",
            "/cluster/replication",
            "/cluster/resources",
            "/cluster/tasks",
            "/nodes",
            "/nodes/{node}/lxc",
            "/nodes/{node}/network",
            "/nodes/{node}/qemu",
            "/nodes/{node}/storage",
            "/nodes/{node}/tasks",
            "/pools",
            "/storage",
        ];
        self.recording.method == "GET" && FILTERED.contains(&self.template)
    }

    pub fn is_superuser(&self) -> bool {
        self.principal == Principal::User(ROOT.to_owned())
    }

    /// The caller exists and holds what the answer presupposes: all but what a refusal names; in a filtered list, only
    /// what its rows take.
    fn rights(&mut self) {
        if let Principal::Token(user, name) = self.principal.clone() {
            // Root's token has root's rights; another one's are its own, so that they can be told apart.
            let separated = user != ROOT;
            crate::world::insert_token(&mut self.state, &user, &name, separated);
        } else if !self.is_superuser() {
            let user = User { enabled: true, ..User::default() };
            self.state.access.users.insert(self.principal.user().to_owned(), user);
        }
        if self.principal.user() == ROOT {
            return;
        }
        if self.recording.status == 403 {
            let named =
                self.reason().rsplit_once(", ").map(|(_, names)| names.trim_end_matches(')').to_owned());
            let lacking: Vec<String> = match named {
                Some(names) => names.split('|').map(str::to_owned).collect(),
                None => self.alternatives(),
            };
            self.grant("/", Privileges::filter(|name| !lacking.iter().any(|lacking| lacking == name)), true);
        } else if !(self.ok() && self.is_filtered()) {
            self.grant("/", Privileges::ALL, true);
        }
    }

    /// The privileges among which a method wants one: a refusal of those names none.
    fn alternatives(&self) -> Vec<String> {
        fn collect(check: &Value, inside: bool, found: &mut Vec<String>) {
            let parts = check.as_array().map(Vec::as_slice).unwrap_or_default();
            let inside = inside || parts.first().is_some_and(|kind| kind == "or");
            for part in parts {
                match part {
                    Value::Array(_) => collect(part, inside, found),
                    Value::String(name) if inside && name.contains('.') => found.push(name.clone()),
                    _ => {}
                }
            }
        }
        let mut found = Vec::new();
        let below = self.recording.below().unwrap_or_default();
        if let Some(check) =
            schema::find(&self.recording.method, &below).and_then(|declared| declared.method.check.clone())
        {
            collect(&check, false, &mut found);
        }
        if found.is_empty() {
            found.push("VM.Allocate".to_owned());
        }
        found
    }

    /// A storage that takes everything; a directory, whose files are named after their guests.
    pub fn ensure_storage(&mut self, id: &str) -> &mut Storage {
        let properties = [("path".to_owned(), Value::from("/var/lib/vz"))].into_iter().collect();
        self.state.storages.entry(id.to_owned()).or_insert_with(|| Storage {
            id: id.to_owned(),
            kind: "dir".to_owned(),
            content: "images,rootdir,vztmpl,iso,backup,snippets,import".to_owned(),
            shared: false,
            nodes: None,
            disabled: false,
            properties,
            usage: Usage { total: 64 << 30, used: 8 << 30 },
            usage_on: BTreeMap::new(),
        })
    }

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

    pub fn path_kind(&self) -> GuestKind {
        if self.template.contains("/lxc") { GuestKind::Lxc } else { GuestKind::Qemu }
    }

    pub fn path_vmid(&self) -> Option<u32> {
        self.in_path.get("vmid")?.parse().ok()
    }

    /// The guest of the path, if there is one.
    pub fn path_guest(&mut self) -> Option<&mut Guest> {
        let vmid = self.path_vmid()?;
        self.state.guests.get_mut(&vmid)
    }

    /// What the request names, in its path or its parameters, is there.
    fn things(&mut self) {
        let missing = self.reason().contains("does not exist") || self.reason().starts_with("no such");
        let storage_missing = self.reason().contains("storage") && missing
            || self
                .recording
                .json
                .get("errors")
                .is_some_and(|errors| errors.to_string().contains("No such storage"));
        if !storage_missing
            || self.template.starts_with("/nodes/{node}/qemu")
            || self.template.contains("/lxc")
        {
            self.ensure_storage("local");
        }
        self.named_guest();
        self.named_storages(storage_missing);
        self.named_elements();
    }

    fn named_guest(&mut self) {
        let Some(vmid) = self.path_vmid().filter(|vmid| *vmid >= 100) else { return };
        if self.reason().contains("Configuration file") {
            return;
        }
        let (kind, node) = (self.path_kind(), self.node_name());
        let verb = self.template.rsplit('/').next().unwrap_or_default().to_owned();
        let (method, parameters, ok) = (self.recording.method.clone(), self.parameters.clone(), self.ok());
        let snapshot = ["snapname", "snapshot"]
            .iter()
            .find_map(|name| self.in_path.get(*name).or_else(|| parameters.get(*name)).cloned());
        let task = match self.data() {
            Value::String(upid) => Task::parse(upid).map(|task| task.kind),
            _ => None,
        };
        let template = self.template.to_owned();
        let guest = self.ensure_guest(kind, vmid, &node);
        let given = |name: &str| parameters.get(name).cloned();
        let flag = |name: &str| given(name).as_deref() == Some("1");
        guest.power = match verb.as_str() {
            "stop" | "shutdown" | "reset" | "suspend" | "reboot" | "monitor" | "vncproxy" | "sendkey" => {
                Power::Running
            }
            "resume" => Power::Paused,
            "migrate" if flag("online") || flag("restart") => Power::Running,
            _ => Power::Stopped,
        };
        match task.as_deref() {
            Some("hastart" | "hastop" | "hamigrate") => guest.ha = Some("started".into()),
            // A linked clone is one of a template.
            Some("qmclone" | "vzclone") if given("full").as_deref() == Some("0") => {
                guest.config.set("template", 1)
            }
            _ => {}
        }
        // What is to be removed, changed or put back was there.
        for key in ["delete", "idlist", "revert"] {
            for name in given(key)
                .iter()
                .flat_map(|text| split_list(text))
                .filter(|_| ok && template.ends_with("config") || key == "idlist")
            {
                if guest.config.get(name).is_none() {
                    let value = if is_drive(kind, name) || name.starts_with("unused") {
                        format!("local:{vmid}/vm-{vmid}-disk-9.qcow2,size=1G")
                    } else {
                        "x".to_owned()
                    };
                    guest.config.set(name.to_owned(), value);
                }
            }
        }
        for key in ["disk", "volume"].iter().filter_map(|name| given(name)).filter(|_| method != "GET") {
            if guest.config.get(&key).is_none() && is_drive(kind, &key) && ok {
                guest.config.set(key, format!("local:{vmid}/vm-{vmid}-disk-8.raw,size=1G"));
            }
        }
        // A disk that moves is on another storage before.
        if matches!(verb.as_str(), "move_disk" | "move_volume") && ok {
            let key = given("disk").or_else(|| given("volume")).unwrap_or_default();
            guest.config.set(key, format!("elsewhere:{vmid}/vm-{vmid}-disk-7.raw,size=1G"));
        }
        let taken = verb == "snapshot" && method == "POST";
        if let Some(name) = snapshot.filter(|_| !taken && ok) {
            let config = guest.config.clone();
            guest.snapshots.push(Self::snapshot(&name, &config));
            guest.config.set("parent", name);
        }
        if flag("todisk") {
            guest.power = Power::Running;
        }
        // Another node clones what it can see: the disks are on shared storage.
        if verb == "clone" && ok && given("target").is_some_and(|target| target != node) {
            self.ensure_storage("local").shared = true;
        }
        if matches!(verb.as_str(), "move_disk" | "move_volume") {
            self.ensure_storage("elsewhere");
        }
    }

    /// Storages and volumes that parameters name.
    fn named_storages(&mut self, missing: bool) {
        let mut storages: Vec<String> = Vec::new();
        let mut volumes: Vec<String> = Vec::new();
        let creates = self.template == "/storage" && self.recording.method == "POST";
        for name in ["storage", "targetstorage", "target-storage"] {
            storages.extend(
                self.parameters.get(name).into_iter().flat_map(|text| split_list(text)).map(str::to_owned),
            );
        }
        storages.extend(self.in_path.get("storage").cloned());
        let kind = self.path_kind();
        for (key, value) in self.parameters.iter().filter(|(key, _)| is_drive(kind, key)) {
            let drive = parse_drive(key, value);
            if let Some(storage) = drive.storage() {
                storages.push(storage.to_owned());
                volumes.push(drive.volume.clone());
            }
        }
        for name in ["ostemplate", "archive", "volume", "volid"] {
            volumes.extend(self.parameters.get(name).filter(|value| value.contains(':')).cloned());
        }
        let whole = self.in_path.get("volume").map(|volume| match volume.contains(':') {
            true => volume.clone(),
            false => format!("{}:{volume}", self.parameter("storage")),
        });
        volumes.extend(whole);
        for storage in storages.into_iter().filter(|_| !missing && !creates) {
            if !storage.is_empty() && !self.reason().contains(&format!("storage '{storage}' does not exist"))
            {
                self.ensure_storage(&storage);
            }
        }
        for volume in volumes {
            let allocates = volume
                .split_once(':')
                .is_none_or(|(_, name)| name.parse::<f64>().is_ok() || name == "cloudinit");
            if allocates {
                continue;
            }
            let content = ["iso", "vztmpl", "backup", "snippets"]
                .into_iter()
                .find(|content| volume.contains(&format!(":{content}/")))
                .unwrap_or("images");
            let vmid = volume
                .split([':', '/', '-', '_'])
                .find_map(|part| part.parse().ok().filter(|vmid| *vmid >= 100));
            let config = (content == "backup").then(|| "arch: amd64\nhostname: x\nmemory: 512\nostype: debian\nrootfs: local:1/vm-1-disk-0.raw,size=1G\n".to_owned());
            let format = volume.rsplit_once('.').map_or("raw", |(_, end)| end).to_owned();
            self.state.volumes.insert(
                volume,
                Volume {
                    content: content.to_owned(),
                    size: 1 << 30,
                    format,
                    vmid,
                    config,
                    ..Volume::default()
                },
            );
        }
    }

    fn rule() -> serde_json::Map<String, Value> {
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

    fn ensure_user(&mut self, id: &str) -> &mut User {
        let user = self.state.access.users.entry(id.to_owned()).or_default();
        user.enabled = true;
        user
    }

    /// Elements of collections that the path or parameters name. Creation finds them absent, and so do refusals that say so.
    fn named_elements(&mut self) {
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

    /// Who logs in is known by that password; tickets and digests of another cluster are replaced by this one's.
    fn login(&mut self) -> BTreeMap<String, String> {
        let mut changed = BTreeMap::new();
        if self.ok() && self.parameters.contains_key("digest") {
            let digest = self.path_guest().map(|guest| guest.digest());
            if let Some(digest) = digest {
                changed.insert("digest".to_owned(), digest);
            }
        }
        if self.template != "/access/ticket" || !self.ok() || self.recording.method != "POST" {
            return changed;
        }
        let mut given = self.parameters.clone();
        // A body in JSON has its parameters there.
        if let Some(Value::Object(body)) =
            self.recording.request_body.as_deref().and_then(|text| serde_json::from_str(text).ok())
        {
            given.extend(
                body.iter().filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))),
            );
        }
        let name = given.get("username").cloned().unwrap_or_default();
        let id = match given.get("realm") {
            Some(realm) if !name.contains('@') => format!("{name}@{realm}"),
            _ => name,
        };
        let password = given.get("password").cloned().unwrap_or_default();
        let second = self.data().get("NeedTFA").is_some();
        let user = self.ensure_user(&id);
        if let Some(code) = password.strip_prefix("totp:").filter(|_| given.contains_key("tfa-challenge")) {
            user.totp = Some(code.to_owned());
            changed.insert("tfa-challenge".to_owned(), format!("@challenge {id}"));
        } else if password.starts_with("PVE:") {
            changed.insert("password".to_owned(), format!("@ticket {id}"));
        } else {
            user.password = Some(password);
            user.totp = second.then(|| "000000".to_owned());
        }
        self.capabilities(&id);
        changed
    }

    /// The rights that a login's answer shows.
    fn capabilities(&mut self, id: &str) {
        if id == ROOT {
            return;
        }
        self.principal = Principal::User(id.to_owned());
        let caps = self.data().get("cap").cloned().unwrap_or_default();
        for (group, path) in [
            ("access", "/access"),
            ("dc", "/"),
            ("mapping", "/mapping"),
            ("nodes", "/nodes"),
            ("sdn", "/sdn"),
            ("storage", "/storage"),
            ("vms", "/vms"),
        ] {
            let names: Vec<&str> =
                caps[group].as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect();
            if !names.is_empty() {
                self.grant_exactly(path, &names, false);
            }
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
