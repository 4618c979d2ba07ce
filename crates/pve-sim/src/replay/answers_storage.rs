//! What answers about storages, their contents and networks say is so.

use serde_json::Value;

use super::answers::{text, without};
use super::prepare::Maker;
use crate::schema::split_list;
use crate::world::state::{Usage, Volume};

impl Maker<'_> {
    pub(super) fn definitions(&mut self) {
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

    pub(super) fn storage_states(&mut self) {
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

    pub(super) fn content(&mut self) {
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

    pub(super) fn volume(&mut self, data: &Value) {
        for volume in self.state.volumes.values_mut() {
            volume.notes = data["notes"].as_str().map(str::to_owned);
            volume.protected = data["protected"] == 1;
            volume.format = text(data, "format");
        }
    }

    pub(super) fn network(&mut self) {
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
}
