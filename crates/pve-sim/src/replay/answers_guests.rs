//! What answers about guests say is so.

use serde_json::Value;

use super::answers::{config_of, net_key, object, text, without};
use super::prepare::Maker;
use crate::world::config::{Config, ConfigValue};
use crate::world::state::{GuestKind, Power, Snapshot};

impl Maker<'_> {
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
        let full = row.get("qmpstatus").is_some() && row["status"] == "running";
        if full && row.get("blockstat").is_none() {
            self.state.silent_monitors.insert(vmid);
        }
        let touched = object(&row["blockstat"]).into_iter();
        let touched = touched.filter(|(_, statistics)| statistics.get("idle_time_ns").is_some());
        let touched = touched.map(|(drive, _)| drive).collect();
        if full {
            self.state.touched_drives.insert(vmid, touched);
        }
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
        self.devices(vmid, row);
    }

    /// What one guest's state shows beyond a row.
    pub(super) fn guest_state(&mut self, data: &Value) {
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
    }

    /// The drives and cards that a running VM shows are the ones that it has.
    pub(super) fn devices(&mut self, vmid: u32, row: &Value) {
        let Some(guest) = self.state.guests.get_mut(&vmid) else { return };
        if let Some(shown) = row["blockstat"].as_object() {
            let mine: Vec<String> = guest.drives().iter().map(|drive| drive.key.to_owned()).collect();
            for key in mine.iter().filter(|key| !shown.contains_key(*key)) {
                guest.config.remove(key);
            }
            for key in shown.keys().filter(|key| !mine.contains(key)) {
                guest.config.set(key.clone(), "none,media=cdrom");
            }
        }
        if let Some(shown) = row["nics"].as_object() {
            guest.config.remove("net0");
            for tap in shown.keys() {
                guest.config.set(net_key(tap), "virtio=BC:24:11:00:00:09,bridge=vmbr0");
            }
        }
    }

    pub(super) fn pending(&mut self) {
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

    pub(super) fn snapshots(&mut self) {
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

    pub(super) fn snapshot_config(&mut self, name: &str, data: &Value) {
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

    pub(super) fn preconditions(&mut self, data: &Value) {
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

    pub(super) fn interfaces(&mut self) {
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

    /// A time series tells what was measured at each of its points, and whether a guest runs.
    pub(super) fn series(&mut self) {
        let rows = self.rows();
        let fields =
            |row: &Value| object(row).into_iter().map(|(name, _)| name).filter(|name| name != "time");
        self.state.measured_fields = Some(rows.iter().map(|row| fields(row).collect()).collect());
        let runs = rows.last().is_some_and(|row| row.get("cpu").is_some());
        if let Some(guest) = self.path_guest() {
            guest.power = if runs { Power::Running } else { Power::Stopped };
        }
    }
}
