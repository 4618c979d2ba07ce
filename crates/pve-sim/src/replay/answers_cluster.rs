//! What answers about the cluster say is so: nodes, resources, tasks, jobs, HA, pools.

use serde_json::Value;

use super::answers::{object, text, without};
use super::prepare::Maker;
use crate::schema::split_list;
use crate::world::config::Config;
use crate::world::state::{GuestKind, Pool, Power, Selection, Task};

impl Maker<'_> {
    pub(super) fn status(&mut self) {
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

    pub(super) fn resources(&mut self) {
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

    pub(super) fn task_of(row: &Value) -> Option<Task> {
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

    pub(super) fn tasks(&mut self) {
        let mut rows = self.rows();
        rows.reverse();
        // A page of a list presupposes the rows before it.
        let before: usize = self.parameter("start").parse().unwrap_or_default();
        for row in &rows {
            let Some(task) = Self::task_of(row) else { continue };
            self.ensure_node(&task.node.clone());
            if task.exit.is_none() && row.get("saved").is_some() {
                self.state.announced_tasks.insert(task.upid.clone());
            }
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

    pub(super) fn task(&mut self, data: &Value, lines: Option<&[Value]>) {
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

    pub(super) fn options(&mut self, data: &Value) {
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

    pub(super) fn jobs(&mut self) {
        for row in self.rows() {
            let id = text(&row, "id");
            let mut job = super::elements::answers_job(&id);
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

    pub(super) fn included(&mut self, data: &Value) {
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

    pub(super) fn ha_row(&mut self, row: &Value) {
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

    pub(super) fn manager(&mut self, data: &Value) {
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

    pub(super) fn pools(&mut self) {
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
