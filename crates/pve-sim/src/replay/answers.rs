//! What a successful answer says is so.

use serde_json::{Map, Value};

use super::prepare::Maker;
use crate::world::config::{Config, ConfigValue};
use crate::world::state::GuestKind;

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

pub(super) fn config_of(fields: &Map<String, Value>, left_out: &[&str]) -> Config {
    let mut config = Config::default();
    for (key, value) in fields.iter().filter(|(key, _)| !left_out.contains(&key.as_str())) {
        config.set(key.clone(), ConfigValue::from(value.clone()));
    }
    config
}

/// The numbers of a device in a status: `tap110i0` is `net0`.
pub(super) fn net_key(tap: &str) -> String {
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

    pub(super) fn grant_unless_root(&mut self, path: &str, names: &[&str]) {
        if !self.is_superuser() {
            self.grant_exactly(path, names, false);
        }
    }
}
