//! The rows that a batch of guests makes: the guests, what hangs on them, and what they hang on.

use pvegraph_graph::labels::{DISK, GUEST, NIC, NodeRow, RelationshipRow, SNAPSHOT};
use pvegraph_inventory::{Guest, Observed};
use serde_json::{Value, json};

use crate::coverage::Coverage;

/// The rows of a batch of guests.
///
/// Nodes, storages and jobs are shared with the other writers, whose MERGE waits for their locks until the commit. So what hangs on
/// them is in one order for all writers: two rarely wait for each other, and the store repeats what the server gives up then.
#[derive(Debug)]
pub struct Batch {
    /// The guests.
    pub guests: Vec<NodeRow>,
    /// Their volumes.
    pub disks: Vec<NodeRow>,
    /// Their interfaces.
    pub nics: Vec<NodeRow>,
    /// Their snapshots.
    pub snapshots: Vec<NodeRow>,
    /// The chains of their snapshots.
    pub parents: Vec<RelationshipRow>,
    /// The snapshots whose parent is known, if they have one.
    pub chained: Vec<Vec<Value>>,
    /// Where the guests are, in the order of the nodes.
    pub hosts: Vec<RelationshipRow>,
    /// Where the volumes are, in the order of the storages.
    pub stored: Vec<RelationshipRow>,
    /// Which jobs cover the guests, in the order of the jobs.
    pub covered: Vec<RelationshipRow>,
    /// What these do with the volumes, likewise.
    pub included: Vec<RelationshipRow>,
}

impl Batch {
    /// The rows of these guests.
    pub fn new(guests: &[Guest], coverage: &Coverage) -> Self {
        let configs = || guests.iter().filter_map(|guest| guest.config.as_ref());
        let disks = || configs().flat_map(|config| &config.disks);
        let snapshots = || guests.iter().filter_map(|guest| guest.snapshots.as_ref()).flatten();
        let snapshot_key = |vmid: i64, name: &str| vec![json!(vmid), json!(name)];
        let mut places: Vec<_> = guests.iter().map(|guest| (guest.node.as_str(), guest.vmid)).collect();
        places.sort_unstable();
        let mut stored: Vec<_> =
            disks().filter_map(|disk| Some((disk.storage.as_ref()?, disk.vmid, &disk.disk_id))).collect();
        stored.sort_unstable();
        let vmids: Vec<i64> = guests.iter().map(|guest| guest.vmid).collect();
        Self {
            covered: coverage.guests(&vmids),
            included: coverage.volumes(&vmids),
            guests: guests.iter().map(|guest| GUEST.row(guest)).collect(),
            disks: disks().map(|disk| DISK.row(disk)).collect(),
            nics: configs().flat_map(|config| &config.nics).map(|nic| NIC.row(nic)).collect(),
            snapshots: snapshots().map(|snapshot| SNAPSHOT.row(snapshot)).collect(),
            parents: snapshots()
                .filter_map(|snapshot| {
                    let key = |name: &str| snapshot_key(snapshot.vmid, name);
                    Some(RelationshipRow::new(key(&snapshot.name), key(snapshot.parent.as_ref()?)))
                })
                .collect(),
            chained: snapshots()
                .filter(|snapshot| !snapshot.is_unseen("parent"))
                .map(|snapshot| snapshot_key(snapshot.vmid, &snapshot.name))
                .collect(),
            hosts: places
                .into_iter()
                .map(|(node, vmid)| RelationshipRow::new(vec![json!(node)], vec![json!(vmid)]))
                .collect(),
            stored: stored
                .into_iter()
                .map(|(storage, vmid, disk)| {
                    RelationshipRow::new(vec![json!(vmid), json!(disk)], vec![json!(storage)])
                })
                .collect(),
        }
    }
    /// Leaves out what hangs on guests that need no more than a stamp: `written` is told the key of what has the guest's number first.
    /// The guests themselves stay: their metrics differ from one run to the next.
    pub fn retain(&mut self, written: impl Fn(&[Value]) -> bool) {
        self.disks.retain(|row| written(&row.key));
        self.nics.retain(|row| written(&row.key));
        self.snapshots.retain(|row| written(&row.key));
        self.chained.retain(|key| written(key));
        self.parents.retain(|row| written(&row.from));
        self.stored.retain(|row| written(&row.from));
        self.hosts.retain(|row| written(&row.to));
        self.covered.retain(|row| written(&row.to));
        self.included.retain(|row| written(&row.to));
    }
}
