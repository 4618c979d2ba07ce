//! What a successful answer says is so.

use serde_json::{Map, Value};

use super::prepare::Maker;
use crate::schema::split_list;
use crate::world::config::{Config, ConfigValue};
use crate::world::state::{GuestKind, Pool, Power, Selection, Snapshot, Task, Usage, Volume};

pub(super) fn object(value: &Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap_or_default()
}

pub(super) fn text(row: &Value, key: &str) -> String {
    match &row[key] {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

pub(super) fn without(row: &Value, keys: &[&str]) -> Map<String, Value> {
    object(row).into_iter().filter(|(key, _)| !keys.contains(&key.as_str())).collect()
}

fn config_of(fields: &Map<String, Value>, left_out: &[&str]) -> Config {
    let mut config = Config::default();
    for (key, value) in fields.iter().filter(|(key, _)| !left_out.contains(&key.as_str())) {
        config.set(key.clone(), ConfigValue::from(value.clone()));
    }
    config
}

/// The numbers of a device in a status: `tap110i0` is `net0`.
fn net_key(tap: &str) -> String {
    format!("net{}", tap.rsplit('i').next().unwrap_or("0"))
}

impl Maker<'_> {
    pub(super) fn rows(&self) -> Vec<Value> {
        match self.data() {
            Value::Array(rows) => rows.clone(),
            Value::Null => Vec::new(),
            one => vec![one.clone()],
        }
    }

    /// Puts what the answer says into the world, by the path that it answers.
    pub(super) fn answer(&mut self) {
        if self.recording.method != "GET" {
            return;
        }
        let data = self.data().clone();
        let template = self.template;
        match template {
            "/cluster/resources" | "/nodes" => self.resources(),
            "/cluster/status" => self.status(),
            "/nodes/{node}/qemu" | "/nodes/{node}/lxc" => {
                let (kind, node) = (self.path_kind(), self.node_name());
                for row in self.rows() {
                    self.guest_row(kind, &node, &row);
                }
            }
            "/nodes/{node}/qemu/{vmid}/status/current" | "/nodes/{node}/lxc/{vmid}/status/current" => {
                let (kind, node) = (self.path_kind(), self.node_name());
                self.state.guests.clear();
                self.guest_row(kind, &node, &data);
                self.guest_state(&data);
            }
            "/nodes/{node}/qemu/{vmid}/config" | "/nodes/{node}/lxc/{vmid}/config" => {
                if !self.parameter("snapshot").is_empty() {
                    let name = self.parameter("snapshot").to_owned();
                    self.snapshot_config(&name, &data);
                } else if let Some(guest) = self.path_guest() {
                    guest.config = config_of(&object(&data), &["digest"]);
                }
            }
            "/nodes/{node}/qemu/{vmid}/pending"
            | "/nodes/{node}/lxc/{vmid}/pending"
            | "/nodes/{node}/qemu/{vmid}/cloudinit" => {
                self.pending();
            }
            "/nodes/{node}/qemu/{vmid}/snapshot" | "/nodes/{node}/lxc/{vmid}/snapshot" => self.snapshots(),
            "/nodes/{node}/qemu/{vmid}/snapshot/{snapname}/config"
            | "/nodes/{node}/lxc/{vmid}/snapshot/{snapname}/config" => {
                let name = self.parameter("snapname").to_owned();
                self.snapshot_config(&name, &data);
            }
            "/nodes/{node}/qemu/{vmid}/migrate" => self.preconditions(&data),
            "/nodes/{node}/lxc/{vmid}/interfaces" => self.interfaces(),
            "/cluster/tasks" | "/nodes/{node}/tasks" => self.tasks(),
            "/nodes/{node}/tasks/{upid}/status" => self.task(&data, None),
            "/nodes/{node}/tasks/{upid}/log" => {
                let lines = self.rows();
                self.task(&Value::Null, Some(&lines));
            }
            "/cluster/options" => self.options(&data),
            "/cluster/log" => self.state.log = self.rows().iter().map(object).collect(),
            "/cluster/backup" | "/cluster/backup/{id}" => self.jobs(),
            "/cluster/backup/{id}/included_volumes" => self.included(&data),
            "/cluster/backup-info/not-backed-up" => {
                for row in self.rows() {
                    let node = self.node_name();
                    let kind = if row["type"] == "lxc" { GuestKind::Lxc } else { GuestKind::Qemu };
                    let vmid =
                        row["vmid"].as_u64().and_then(|vmid| u32::try_from(vmid).ok()).unwrap_or_default();
                    self.ensure_guest(kind, vmid, &node);
                }
            }
            "/cluster/ha/resources" | "/cluster/ha/resources/{sid}" | "/cluster/ha/status/current" => {
                for row in self.rows() {
                    self.ha_row(&row);
                }
            }
            "/cluster/ha/status/manager_status" => self.manager(&data),
            "/cluster/ha/groups" | "/cluster/ha/groups/{group}" => {
                for row in self.rows() {
                    let group = without(&row, &["digest", "group", "type"]);
                    self.state.ha_groups.insert(text(&row, "group"), group);
                }
            }
            "/cluster/replication" | "/cluster/replication/{id}" => {
                for row in self.rows() {
                    let job = without(&row, &["id", "guest", "jobnum", "type", "digest"]);
                    self.state.replication.insert(text(&row, "id"), job);
                }
            }
            "/nodes/{node}/config" => {
                let node = self.node_name();
                self.state.node_settings.insert(node, without(&data, &["digest"]));
            }
            "/nodes/{node}/network" | "/nodes/{node}/network/{iface}" => self.network(),
            "/nodes/{node}/status" if data["boot-info"]["mode"] == "legacy-bios" => {
                let node = self.node_name();
                self.state.legacy_boot.insert(node);
            }
            "/nodes/{node}/dns" if data.get("search").is_some() => {
                let node = self.node_name();
                let search = [("search".to_owned(), data["search"].clone())].into_iter().collect();
                self.state.node_settings.insert(node, search);
            }
            "/storage" | "/storage/{storage}" => self.definitions(),
            "/nodes/{node}/storage" | "/nodes/{node}/storage/{storage}/status" => self.storage_states(),
            "/nodes/{node}/storage/{storage}/prunebackups" => {
                let id = self.parameter("storage").to_owned();
                self.ensure_storage(&id).properties.insert("prune-backups".to_owned(), "keep-all=1".into());
                self.content();
            }
            "/nodes/{node}/qemu/{vmid}/rrddata"
            | "/nodes/{node}/lxc/{vmid}/rrddata"
            | "/nodes/{node}/rrddata"
            | "/nodes/{node}/storage/{storage}/rrddata" => self.series(),
            "/nodes/{node}/storage/{storage}/content" => self.content(),
            "/nodes/{node}/storage/{storage}/content/{volume}" => self.volume(&data),
            "/pools" | "/pools/{poolid}" => self.pools(),
            _ if template.contains("/firewall") => self.firewall_answer(&data),
            _ if template.starts_with("/access") => self.access(&data),
            _ if template.starts_with("/cluster/") => self.collection(&data),
            _ => {}
        }
    }

    fn status(&mut self) {
        let rows = self.rows();
        self.state.nodes.clear();
        self.state.cluster_name = None;
        for row in rows {
            if row["type"] == "cluster" {
                self.state.cluster_name = Some(text(&row, "name"));
                self.state.quorate = row["quorate"] == 1;
            } else {
                let node = self.ensure_node(&text(&row, "name"));
                node.online = row["online"] == 1;
            }
        }
    }

    fn resources(&mut self) {
        self.state.storages.clear();
        let rows = self.rows();
        if rows.iter().any(|row| row["type"] == "node") {
            self.state.nodes.clear();
        }
        for row in &rows {
            match row["type"].as_str().unwrap_or_default() {
                "node" => {
                    let name = text(row, "node");
                    let node = self.ensure_node(&name);
                    node.online = row["status"] == "online";
                    node.forgotten = !node.online && row.get("maxcpu").is_none();
                    if row.get("maxcpu").is_some() && !self.is_superuser() {
                        self.grant_named(&format!("/nodes/{name}"), &["Sys.Audit"]);
                    }
                }
                "qemu" | "lxc" => {
                    let kind = if row["type"] == "lxc" { GuestKind::Lxc } else { GuestKind::Qemu };
                    let node = text(row, "node");
                    self.guest_row(kind, &node, row);
                    if row["status"] == "unknown" {
                        let node = self.ensure_node(&node);
                        node.forgotten = true;
                        node.online = false;
                    }
                }
                "storage" => {
                    let (id, node) = (text(row, "storage"), text(row, "node"));
                    self.ensure_node(&node);
                    let storage = self.ensure_storage(&id);
                    storage.nodes.get_or_insert_default().insert(node.clone());
                    storage.content = text(row, "content");
                    storage.shared = row["shared"] == 1;
                    storage.kind = text(row, "plugintype");
                    if row.get("maxdisk").is_none() {
                        self.ensure_node(&node).forgotten = true;
                    }
                    if !self.is_superuser() {
                        self.grant_named(&format!("/storage/{id}"), &["Datastore.Audit"]);
                    }
                }
                "pool" => {
                    let name = text(row, "pool");
                    self.state.pools.entry(name.clone()).or_default();
                    if row.get("maxcpu").is_some()
                        && !rows.iter().any(|row| {
                            row["pool"] == name.as_str()
                                && row["status"] == "running"
                                && row["type"] != "pool"
                        })
                    {
                        let node = text(
                            &rows.iter().find(|row| row["type"] == "node").cloned().unwrap_or_default(),
                            "node",
                        );
                        let hidden = self.ensure_guest(GuestKind::Qemu, 999_999_999, &node);
                        hidden.power = Power::Running;
                        hidden.pool = Some(name.as_str().into());
                    }
                    if !self.is_superuser() {
                        self.grant_named(&format!("/pool/{name}"), &["Pool.Audit"]);
                    }
                }
                "sdn" => {
                    self.ensure_node(&text(row, "node"));
                    if !self.is_superuser() {
                        self.grant_named("/sdn/zones/localnetwork", &["SDN.Audit"]);
                    }
                }
                _ => {}
            }
        }
        let managed = rows.iter().any(|row| row["type"] == "node" && row.get("hastate").is_some());
        if managed {
            self.state.ha_active = true;
        }
    }

    /// A guest as a row of any list shows it.
    pub(super) fn guest_row(&mut self, kind: GuestKind, node: &str, row: &Value) {
        let vmid = row["vmid"].as_u64().and_then(|vmid| u32::try_from(vmid).ok()).unwrap_or_default();
        if vmid == 0 {
            return;
        }
        if !self.is_superuser() {
            self.grant_named(&format!("/vms/{vmid}"), &["VM.Audit"]);
        }
        self.ensure_storage("local");
        if let Some(pool) = row["pool"].as_str() {
            self.state.pools.entry(pool.to_owned()).or_default();
        }
        let guest = self.ensure_guest(kind, vmid, node);
        guest.pool = row["pool"].as_str().map(Into::into);
        guest.power = match (row["status"].as_str(), row["qmpstatus"].as_str()) {
            (Some("running"), Some("paused")) => Power::Paused,
            (Some("running"), _) => Power::Running,
            _ => Power::Stopped,
        };
        guest.ha = row["hastate"].as_str().map(Into::into);
        for key in ["tags", "lock"] {
            if let Some(value) = row[key].as_str() {
                guest.config.set(key, value);
            }
        }
        if row["template"] == 1 {
            guest.config.set("template", 1);
        }
        if let Some(bytes) = row["balloon_min"].as_i64() {
            guest.config.set("balloon", bytes >> 20);
        }
        if let Some(shares) = row["shares"].as_i64() {
            guest.config.set("shares", shares);
        }
        if row["serial"] == 1 {
            guest.config.set("serial0", "socket");
        }
    }

    /// What one guest's state shows beyond a row.
    fn guest_state(&mut self, data: &Value) {
        let Some(vmid) = self.path_vmid() else { return };
        let ha = &data["ha"];
        if ha["managed"] == 1 {
            let sid = format!("{}:{vmid}", if self.path_kind() == GuestKind::Qemu { "vm" } else { "ct" });
            let settings = without(ha, &["managed", "state", "sid"])
                .into_iter()
                .filter(|(_, value)| !value.is_null())
                .collect();
            self.state.ha_settings.insert(sid, settings);
        }
        let Some(guest) = self.path_guest() else { return };
        if ha["managed"] == 1 {
            guest.ha = Some(ha["state"].as_str().unwrap_or("started").into());
        }
        if data["agent"] == 1 {
            guest.config.set("agent", "1");
        }
        if data["spice"] == 1 {
            guest.config.set("vga", "qxl");
        } else if data.get("clipboard").is_some() {
            guest.config.set("vga", "std");
        }
        for key in object(&data["blockstat"]).keys() {
            let value = if guest.config.get(key).is_none() { "none,media=cdrom" } else { continue };
            guest.config.set(key.clone(), value);
        }
        for tap in object(&data["nics"]).keys() {
            guest.config.set(net_key(tap), "virtio=BC:24:11:00:00:09,bridge=vmbr0");
        }
    }

    fn pending(&mut self) {
        let rows = self.rows();
        let Some(guest) = self.path_guest() else { return };
        guest.config = Config::default();
        for row in rows.iter().filter(|row| row["key"] != "digest") {
            let key = text(row, "key");
            if let Some(value) = row.get("value") {
                guest.config.set(key.clone(), ConfigValue::from(value.clone()));
            }
            if let Some(value) = row.get("pending") {
                guest.pending.push((key, Some(ConfigValue::from(value.clone()))));
            } else if row.get("delete").is_some() {
                guest.pending.push((key, None));
            }
        }
        if !guest.pending.is_empty() {
            guest.power = Power::Running;
        }
    }

    fn snapshots(&mut self) {
        let rows = self.rows();
        let Some(guest) = self.path_guest() else { return };
        let config = guest.config.clone();
        for row in &rows {
            if row["name"] == "current" {
                guest.power = if row["running"] == 1 { Power::Running } else { Power::Stopped };
                if let Some(parent) = row["parent"].as_str() {
                    guest.config.set("parent", parent);
                }
                continue;
            }
            guest.snapshots.push(Snapshot {
                name: text(row, "name"),
                description: text(row, "description"),
                time: row["snaptime"].as_u64().unwrap_or_default(),
                with_memory: row["vmstate"] == 1,
                parent: row["parent"].as_str().map(str::to_owned),
                config: Some(config.clone()),
            });
        }
    }

    fn snapshot_config(&mut self, name: &str, data: &Value) {
        let config = config_of(&object(data), &["snaptime", "parent", "description", "digest"]);
        let Some(guest) = self.path_guest() else { return };
        guest.snapshots = vec![Snapshot {
            name: name.to_owned(),
            description: text(data, "description"),
            time: data["snaptime"].as_u64().unwrap_or_default(),
            with_memory: data.get("vmstate").is_some(),
            parent: data["parent"].as_str().map(str::to_owned),
            config: Some(config),
        }];
    }

    fn preconditions(&mut self, data: &Value) {
        for key in ["allowed_nodes"] {
            for node in data[key].as_array().into_iter().flatten().filter_map(Value::as_str) {
                self.ensure_node(node);
            }
        }
        for node in object(&data["not_allowed_nodes"]).keys() {
            self.ensure_node(node);
        }
        let disks = data["local_disks"].as_array().cloned().unwrap_or_default();
        for disk in &disks {
            let storage = text(disk, "volid").split(':').next().unwrap_or_default().to_owned();
            self.ensure_storage(&storage);
        }
        let running = data["running"] == 1;
        let in_snapshots: std::collections::BTreeSet<String> = disks
            .iter()
            .flat_map(|disk| object(&disk["referenced_in_snapshot"]).into_iter().map(|(name, _)| name))
            .collect();
        let Some(guest) = self.path_guest() else { return };
        guest.power = if running { Power::Running } else { Power::Stopped };
        guest.config = Config::default();
        for (number, disk) in disks.iter().enumerate() {
            let key = disk["drivename"].as_str().map_or_else(|| format!("unused{number}"), str::to_owned);
            let mut value = text(disk, "volid");
            if let Some(size) = disk["size"].as_u64() {
                value.push_str(&format!(",size={}", crate::world::config::format_size(size)));
            }
            if disk["cdrom"] == 1 {
                value.push_str(",media=cdrom");
            }
            guest.config.set(key, value);
        }
        for name in in_snapshots {
            let config = guest.config.clone();
            guest.snapshots.push(Self::snapshot(&name, &config));
        }
    }

    fn interfaces(&mut self) {
        let rows = self.rows();
        let none = self.data().is_null();
        let Some(guest) = self.path_guest() else { return };
        guest.power = if none { Power::Stopped } else { Power::Running };
        for (number, row) in rows.iter().filter(|row| row["name"] != "lo").enumerate() {
            let value =
                format!("name={},hwaddr={},bridge=vmbr0,type=veth", text(row, "name"), text(row, "hwaddr"));
            guest.config.set(format!("net{number}"), value);
        }
    }

    fn task_of(row: &Value) -> Option<Task> {
        let mut task = Task::parse(row["upid"].as_str()?)?;
        task.end = row["endtime"].as_u64();
        task.exit = match (row["exitstatus"].as_str(), row["status"].as_str()) {
            (Some(exit), _) => Some(exit.to_owned()),
            (None, Some("running" | "RUNNING" | "stopped") | None) => None,
            (None, Some(status)) => Some(status.to_owned()),
        };
        if task.exit.is_some() {
            task.end = task.end.or(Some(task.start));
        }
        Some(task)
    }

    fn tasks(&mut self) {
        let mut rows = self.rows();
        rows.reverse();
        // A page of a list presupposes the rows before it.
        let before: usize = self.parameter("start").parse().unwrap_or_default();
        for row in &rows {
            let Some(task) = Self::task_of(row) else { continue };
            self.ensure_node(&task.node.clone());
            let own = task.user == self.principal.user();
            if !own && !self.is_superuser() {
                self.grant_named(&format!("/nodes/{}", task.node), &["Sys.Audit"]);
            }
            self.state.tasks.push(task);
        }
        if let Some(last) = self.state.tasks.last().cloned() {
            for number in 0..before {
                let mut filler = last.clone();
                filler.upid = format!("{}{number}", last.upid);
                self.state.tasks.push(filler);
            }
        }
    }

    fn task(&mut self, data: &Value, lines: Option<&[Value]>) {
        let upid = self.parameter("upid").to_owned();
        self.state.tasks.clear();
        // The log of a task that there never was is an object.
        if lines.is_some() && self.data().is_object() {
            return;
        }
        let Some(mut task) = Task::parse(&upid) else { return };
        if let Some(told) = Self::task_of(data) {
            task = told;
        }
        if let Some(lines) = lines {
            let texts = lines.iter().map(|line| text(line, "t")).filter(|line| line != "no content");
            task.log = texts.collect();
            task.exit = Some("OK".to_owned());
            task.end = Some(task.start);
        }
        self.state.tasks.push(task);
    }

    fn options(&mut self, data: &Value) {
        let registered: Vec<String> = data["registered-tags"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect();
        self.state.options = without(data, &["allowed-tags"]);
        let tags: Vec<&str> = data["allowed-tags"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .filter(|tag| !registered.iter().any(|have| have == tag))
            .collect();
        if !tags.is_empty() {
            let node = self.node_name();
            self.ensure_guest(GuestKind::Qemu, 100, &node).config.set("tags", tags.join(";"));
            self.grant_unless_root("/vms/100", &["VM.Audit"]);
        }
        if data.get("keyboard").is_some()
            || data.get("mac_prefix").is_some()
            || data.get("description").is_some()
        {
            self.grant_unless_root("/", &["Sys.Audit"]);
        }
    }

    pub(super) fn grant_unless_root(&mut self, path: &str, names: &[&str]) {
        if !self.is_superuser() {
            self.grant_exactly(path, names, false);
        }
    }

    fn jobs(&mut self) {
        for row in self.rows() {
            let id = text(&row, "id");
            let mut job = super::prepare::answers_job(&id);
            let vmids =
                |key: &str| split_list(&text(&row, key)).filter_map(|vmid| vmid.parse().ok()).collect();
            job.selection = if row.get("vmid").is_some() {
                Selection::Guests(vmids("vmid"))
            } else if row.get("pool").is_some() {
                Selection::Pool(text(&row, "pool"))
            } else {
                Selection::All { exclude: vmids("exclude") }
            };
            job.node = row["node"].as_str().map(str::to_owned);
            let own = [
                "id", "type", "enabled", "schedule", "storage", "node", "vmid", "pool", "all", "exclude",
                "next-run",
            ];
            job.properties = without(&row, &own);
            self.state.jobs.insert(id, job);
        }
    }

    fn included(&mut self, data: &Value) {
        let node = self.node_name();
        for child in data["children"].as_array().into_iter().flatten() {
            let kind = if child["type"] == "lxc" { GuestKind::Lxc } else { GuestKind::Qemu };
            let vmid = child["id"].as_u64().and_then(|vmid| u32::try_from(vmid).ok()).unwrap_or_default();
            let guest = self.ensure_guest(kind, vmid, &node);
            guest.config = Config::default();
            for volume in child["children"].as_array().into_iter().flatten() {
                let key = text(volume, "id").rsplit(':').next().unwrap_or_default().to_owned();
                let backup = if volume["included"] == 1 { "" } else { ",backup=0" };
                guest.config.set(key, format!("{}{backup},size=1G", text(volume, "name")));
            }
        }
    }

    /// A time series tells since when there are measurements, and whether a guest runs.
    fn series(&mut self) {
        let rows = self.rows();
        let empty = |row: &&Value| row.as_object().is_some_and(|row| row.len() == 1);
        let all = rows.iter().all(|row| empty(&row));
        self.state.unmeasured_points = if all {
            70
        } else if rows.iter().any(|row| empty(&row)) {
            60
        } else {
            0
        };
        let runs = rows.iter().any(|row| row.get("cpu").is_some());
        if let Some(guest) = self.path_guest() {
            guest.power = if runs { Power::Running } else { Power::Stopped };
        }
    }

    fn ha_row(&mut self, row: &Value) {
        if matches!(row["type"].as_str(), Some("master" | "lrm")) {
            self.state.ha_active = true;
        }
        if let Some(node) = row["node"].as_str() {
            self.ensure_node(node);
        }
        let sid = text(row, "sid");
        let Some(vmid) = sid.rsplit(':').next().and_then(|vmid| vmid.parse().ok()) else { return };
        let kind = if sid.starts_with("ct") { GuestKind::Lxc } else { GuestKind::Qemu };
        let node = row["node"].as_str().map_or_else(|| self.node_name(), str::to_owned);
        let asked = row["request_state"].as_str().or(row["state"].as_str()).unwrap_or("started").to_owned();
        if row.get("request_state").is_some() && row["state"] != asked.as_str() {
            self.state.ha_doing.insert(sid.clone(), text(row, "state"));
        }
        let left_out = [
            "sid",
            "type",
            "state",
            "digest",
            "errors",
            "id",
            "node",
            "request_state",
            "status",
            "crm_state",
        ];
        let settings = without(row, &left_out);
        if let (Some(group), None) = (settings.get("group").and_then(Value::as_str), row.get("errors")) {
            self.state.ha_groups.entry(group.to_owned()).or_default();
        }
        self.state.ha_settings.insert(sid, settings);
        self.ensure_guest(kind, vmid, &node).ha = Some(asked.as_str().into());
    }

    fn manager(&mut self, data: &Value) {
        for node in object(&data["manager_status"]["node_status"]).keys() {
            self.ensure_node(node);
        }
        for (sid, service) in object(&data["manager_status"]["service_status"]) {
            let mut row = service.clone();
            row["sid"] = Value::from(sid.clone());
            self.ha_row(&row);
            let vmid = sid.rsplit(':').next().and_then(|vmid| vmid.parse().ok()).unwrap_or_default();
            if let Some(guest) = self.state.guests.get_mut(&vmid) {
                guest.power = if service["running"] == 1 { Power::Running } else { Power::Stopped };
            }
        }
    }

    fn network(&mut self) {
        let node = self.node_name();
        let rows = self.rows();
        let single = self.in_path.get("iface").cloned();
        let mut interfaces = std::collections::BTreeMap::new();
        for row in &rows {
            let name = single.clone().unwrap_or_else(|| text(row, "iface"));
            interfaces.insert(name.clone(), without(row, &["iface"]));
            if row["type"] == "bridge" {
                self.grant_unless_root(&format!("/sdn/zones/localnetwork/{name}"), &["SDN.Audit"]);
            }
        }
        if self.recording.json.get("changes").is_some() {
            self.state.staged_interfaces.insert(node.clone(), interfaces.clone());
        }
        self.state.interfaces.insert(node, interfaces);
    }

    fn definitions(&mut self) {
        let single = self.in_path.contains_key("storage");
        self.state.storages.clear();
        for row in self.rows() {
            let id = if single { self.parameter("storage").to_owned() } else { text(&row, "storage") };
            let storage = self.ensure_storage(&id);
            storage.kind = text(&row, "type");
            storage.content = text(&row, "content");
            storage.shared = row.get("shared").is_some();
            storage.disabled = row.get("disable").is_some();
            storage.nodes = row["nodes"].as_str().map(|nodes| split_list(nodes).map(str::to_owned).collect());
            storage.properties =
                without(&row, &["storage", "type", "content", "shared", "disable", "nodes", "digest"]);
            self.grant_unless_root(&format!("/storage/{id}"), &["Datastore.Audit"]);
        }
    }

    fn storage_states(&mut self) {
        let single = self.in_path.get("storage").cloned();
        self.state.storages.clear();
        for row in self.rows() {
            let id = single.clone().unwrap_or_else(|| text(&row, "storage"));
            let storage = self.ensure_storage(&id);
            storage.kind = text(&row, "type");
            storage.content = text(&row, "content");
            storage.shared = row["shared"] == 1;
            // What is not active is for other nodes: a switched-off one would be left out where `enabled` is asked for.
            storage.nodes = (row["active"] == 0).then(|| ["elsewhere".to_owned()].into());
            storage.usage = Usage {
                total: row["total"].as_u64().unwrap_or_default(),
                used: row["used"].as_u64().unwrap_or_default(),
            };
            self.grant_unless_root(&format!("/storage/{id}"), &["Datastore.Audit"]);
        }
    }

    fn content(&mut self) {
        let kind_of = |row: &Value| row["content"].as_str().unwrap_or("backup").to_owned();
        self.state.volumes.clear();
        for row in self.rows() {
            let volume = Volume {
                content: kind_of(&row),
                size: row["size"].as_u64().unwrap_or_default(),
                format: text(&row, "format"),
                time: row["ctime"].as_u64().unwrap_or_default(),
                vmid: row["vmid"].as_u64().and_then(|vmid| u32::try_from(vmid).ok()),
                notes: row["notes"].as_str().map(str::to_owned),
                protected: row["protected"] == 1,
                node: None,
                config: None,
                parent: row["parent"].as_str().map(str::to_owned),
            };
            self.state.volumes.insert(text(&row, "volid"), volume);
        }
    }

    fn volume(&mut self, data: &Value) {
        for volume in self.state.volumes.values_mut() {
            volume.notes = data["notes"].as_str().map(str::to_owned);
            volume.protected = data["protected"] == 1;
            volume.format = text(data, "format");
        }
    }

    fn pools(&mut self) {
        self.state.pools.clear();
        let single = self.in_path.get("poolid").cloned();
        for row in self.rows() {
            let id = single.clone().unwrap_or_else(|| text(&row, "poolid"));
            let comment = row["comment"].as_str().map(str::to_owned);
            self.state.pools.insert(id.clone(), Pool { comment, ..Pool::default() });
            self.grant_unless_root(&format!("/pool/{id}"), &["Pool.Audit"]);
            for member in row["members"].as_array().cloned().unwrap_or_default() {
                let node = text(&member, "node");
                match member["type"].as_str() {
                    Some("storage") => {
                        let storage = text(&member, "storage");
                        self.ensure_node(&node);
                        self.ensure_storage(&storage);
                        if let Some(pool) = self.state.pools.get_mut(&id) {
                            pool.storages.insert(storage);
                        }
                    }
                    Some(kind) => {
                        let kind = if kind == "lxc" { GuestKind::Lxc } else { GuestKind::Qemu };
                        self.guest_row(kind, &node, &member);
                        let vmid = member["vmid"].as_u64().and_then(|vmid| u32::try_from(vmid).ok());
                        if let Some(guest) = vmid.and_then(|vmid| self.state.guests.get_mut(&vmid)) {
                            guest.pool = Some(id.as_str().into());
                        }
                    }
                    None => {}
                }
            }
        }
    }
}
