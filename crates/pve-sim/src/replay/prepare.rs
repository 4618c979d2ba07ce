//! The world that a recorded answer presupposes: what the request names exists, and what the answer says is so.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Recording;
use crate::schema::{self, split_list};
use crate::world::access::{Principal, ROOT};
use crate::world::state::{Guest, GuestKind, Node, State, Usage};

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
        self.ensure_storage("local");
        self.named_guest();
        self.named_storages();
        self.named_elements();
    }
}
