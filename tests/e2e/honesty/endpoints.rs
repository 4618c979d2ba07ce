//! What a sync asks, and what follows where one of these questions is not answered. The table is made of the rules in
//! `docs/operations.md`, not of what the program was seen to do.

use serde_json::{Map, Value};

use super::estate::{Change, LIGHTER, MIDDLE, SNAPPED};
use crate::support::LABELS;

/// How a question is not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failing {
    /// With a 500 that no client knows.
    Unknown500,
    /// Never.
    TimeOut,
    /// With a body that breaks off.
    Truncated,
    /// With a 403.
    Forbidden,
}

/// One request of a sync: its path, and how many before it went to the same path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Below `/api2/json`.
    pub path: String,
    /// Requests to the same path that are answered.
    pub after: usize,
}

/// Every question that a sync asks.
pub fn questions() -> Vec<&'static str> {
    let mut all = vec![
        "/access/permissions",
        "/cluster/backup",
        "/cluster/backup/{id}",
        "/cluster/backup/{id}/included_volumes",
        "/cluster/resources",
        "/cluster/status",
        "/nodes",
        "/nodes/{node}/certificates/info",
        "/nodes/{node}/lxc",
        "/nodes/{node}/lxc/{vmid}/config",
        "/nodes/{node}/qemu",
        "/nodes/{node}/qemu/{vmid}/config",
        "/nodes/{node}/storage",
        "/storage",
        "/version",
    ];
    if snapshots() {
        all.extend(["/nodes/{node}/lxc/{vmid}/snapshot", "/nodes/{node}/qemu/{vmid}/snapshot"]);
    }
    all.sort_unstable();
    all
}

/// Snapshots are part of the graph.
fn snapshots() -> bool {
    LABELS.contains(&"ProxmoxSnapshot")
}

/// The question that a path is an instance of.
pub fn question(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').collect();
    let mut general = parts.clone();
    match parts.as_slice() {
        ["", "nodes", _, "qemu" | "lxc", _, ..] => (general[2], general[4]) = ("{node}", "{vmid}"),
        ["", "nodes", _, ..] => general[2] = "{node}",
        ["", "cluster", "backup", _, ..] => general[3] = "{id}",
        _ => {}
    }
    general.join("/")
}

/// What is to follow from a question that was not answered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expected {
    /// The program's exit code.
    pub exit: i32,
    /// The scopes that are not complete: collector, node, status.
    pub scopes: Vec<(String, String, String)>,
    /// Changes of the world that the run could not prove.
    pub held: Vec<Change>,
    /// The run failed before it wrote anything.
    pub refused: bool,
    /// What was not seen: a label, and what its nodes have to be like.
    pub unseen: Vec<Unseen>,
}

/// Nodes of the graph that a run did not see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unseen {
    label: &'static str,
    /// Only those of this node's machines, or of its containers.
    of_node: Option<(String, bool)>,
    of_guest: Option<u32>,
}

/// The guests' place is in their numbers: see `estate`.
fn is_machine(vmid: u32) -> bool {
    matches!(vmid % 100, 1 | 2 | 90)
}

impl Unseen {
    fn all(label: &'static str) -> Self {
        Self { label, of_node: None, of_guest: None }
    }

    /// Whether this node of the graph is one of them.
    pub fn has(&self, label: &str, node: &Map<String, Value>) -> bool {
        let vmid = || node["vmid"].as_u64().and_then(|vmid| u32::try_from(vmid).ok()).unwrap();
        let here = |(node, machines): &(String, bool)| {
            format!("pve{}", vmid() / 100) == *node && is_machine(vmid()) == *machines
        };
        label == self.label
            && self.of_node.as_ref().is_none_or(here)
            && self.of_guest.is_none_or(|guest| guest == vmid())
    }
}

impl Expected {
    fn scope(mut self, collector: &str, node: &str, status: &str) -> Self {
        self.scopes.push((collector.to_owned(), node.to_owned(), status.to_owned()));
        self.scopes.sort();
        if status != "filtered" {
            self.exit = 3;
        }
        self
    }

    fn held(mut self, changes: &[Change]) -> Self {
        self.held.extend(changes);
        self
    }

    fn unseen(mut self, what: impl IntoIterator<Item = Unseen>) -> Self {
        self.unseen.extend(what.into_iter().filter(|unseen| LABELS.contains(&unseen.label)));
        self
    }
}

/// What hangs on a guest.
const PARTS: [&str; 3] = ["ProxmoxDisk", "ProxmoxNetworkInterface", "ProxmoxSnapshot"];

/// What is to follow where this place is `failing`.
///
/// # Panics
/// For a question that is not listed.
pub fn expected(place: &Place, failing: Failing) -> Expected {
    let parts: Vec<&str> = place.path.split('/').collect();
    let node = parts.get(2).copied().unwrap_or_default();
    let vmid = || parts[4].parse::<u32>().unwrap();
    // What a token may not ask is its owner's choice: filtered, which is no failure. Where PVE had said that it may, it is one.
    let refused = if failing == Failing::Forbidden { "filtered" } else { "failed" };
    let none = Expected::default();
    match question(&place.path).as_str() {
        "/version" => Expected {
            exit: match failing {
                Failing::Unknown500 => 1,
                Failing::TimeOut | Failing::Truncated => 13,
                Failing::Forbidden => 12,
            },
            refused: true,
            ..none
        },
        // Without a quorum nothing is gone. Whoever may not ask for it counts the nodes that are online.
        "/cluster/status" if failing == Failing::Forbidden => none.scope("cluster", "", "filtered"),
        "/cluster/status" => {
            none.scope("cluster", "", "failed").held(&[Change::Guest, Change::Job, Change::Storage])
        }
        // Any token may ask for these two, and gets what it may see.
        "/cluster/resources" => none.scope("guests", "", "failed").held(&[Change::Guest]),
        "/nodes" => none.scope("nodes", "", "failed"),
        "/access/permissions" if place.after == 0 => none
            .scope("guests", "", "partial")
            .scope("storages", "", "partial")
            .held(&[Change::Guest, Change::Storage]),
        // The question about the one machine and the one storage that are missing; see `of_confirmation` for their order.
        "/access/permissions" => none
            .scope("guests", "", "partial")
            .scope("storages", "", "partial")
            .held(&[Change::Guest, Change::Storage]),
        "/storage" => none
            .scope("storages", "", refused)
            .held(&[Change::Storage])
            .unseen([Unseen::all("ProxmoxStorage")]),
        "/cluster/backup" => none
            .scope("backup_jobs", "", refused)
            .held(&[Change::Job])
            .unseen([Unseen::all("ProxmoxBackupJob")]),
        "/cluster/backup/{id}" => none.scope("backup_jobs", "", "partial").held(&[Change::Job]),
        "/cluster/backup/{id}/included_volumes" => none.scope("backup_jobs", "", "partial"),
        // Every other node has the same authority.
        "/nodes/{node}/certificates/info" => none,
        question @ ("/nodes/{node}/qemu" | "/nodes/{node}/lxc") => {
            let machines = question.ends_with("qemu");
            let all = |label| Unseen { label, of_node: Some((node.to_owned(), machines)), of_guest: None };
            let held: &[Change] = match (node == MIDDLE, machines) {
                (true, true) => &[Change::Guest, Change::Name, Change::Disk],
                (true, false) => &[Change::Snapshot],
                (false, _) => &[],
            };
            let it = none.scope(if machines { "qemu" } else { "lxc" }, node, "failed");
            let it = if snapshots() { it.scope("snapshots", node, "partial") } else { it };
            it.held(held).unseen(PARTS.into_iter().chain(["ProxmoxVM"]).map(all))
        }
        question @ ("/nodes/{node}/qemu/{vmid}/config" | "/nodes/{node}/lxc/{vmid}/config") => {
            let of = |label| Unseen { label, of_node: None, of_guest: Some(vmid()) };
            let held: &[Change] = match vmid() {
                LIGHTER => &[Change::Disk],
                SNAPPED => &[Change::Snapshot],
                _ => &[],
            };
            let it = none.scope(if question.contains("qemu") { "qemu" } else { "lxc" }, node, "partial");
            let it = if snapshots() { it.scope("snapshots", node, "partial") } else { it };
            it.held(held).unseen(PARTS.map(of))
        }
        "/nodes/{node}/qemu/{vmid}/snapshot" | "/nodes/{node}/lxc/{vmid}/snapshot" => {
            let of = Unseen { label: "ProxmoxSnapshot", of_node: None, of_guest: Some(vmid()) };
            let held: &[Change] = if vmid() == SNAPPED { &[Change::Snapshot] } else { &[] };
            none.scope("snapshots", node, "partial").held(held).unseen([of])
        }
        "/nodes/{node}/storage" => none.scope("node_storages", node, refused),
        other => panic!("{other} is asked and not listed here: say what follows where it fails"),
    }
}

/// Two things are missing, and each is asked for; which one first is left to chance. What of `expected` holds where only the second
/// of these questions failed, as the run's own record of its scopes tells.
pub fn of_confirmation(mut expected: Expected, incomplete: &[(String, String, String)]) -> Expected {
    assert_eq!(incomplete.len(), 1, "one of the two is not known: {incomplete:?}");
    let held = if incomplete[0].0 == "guests" { Change::Guest } else { Change::Storage };
    expected.scopes.retain(|scope| scope.0 == incomplete[0].0);
    expected.held.retain(|change| *change == held);
    expected
}
