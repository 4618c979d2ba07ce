//! The rows that a batch of guests makes: the guests, what hangs on them, and what they hang on.

use std::collections::{HashMap, HashSet};

use pvegraph_graph::labels::{DISK, GUEST, NIC, NodeRow, RelationshipRow, SNAPSHOT};
use pvegraph_inventory::{BackupJob, BackupVolume, Guest, Observed};
use serde_json::{Map, Value, json};

/// Which backup jobs cover which guests, and what they take of each.
#[derive(Debug, Default)]
pub struct Coverage<'a>(HashMap<i64, Vec<(&'a str, Vec<&'a BackupVolume>)>>);

impl<'a> Coverage<'a> {
    /// The coverage by these jobs, as far as it could be read.
    pub fn of(jobs: &'a [BackupJob]) -> Self {
        let mut of_guests: HashMap<i64, Vec<(&str, Vec<&BackupVolume>)>> = HashMap::new();
        for job in jobs {
            let (Some(guests), Some(volumes)) = (&job.guests, &job.volumes) else { continue };
            for vmid in guests {
                of_guests.entry(*vmid).or_default().push((&job.job_id, Vec::new()));
            }
            for volume in volumes {
                let jobs = of_guests.get_mut(&volume.vmid).into_iter().flatten();
                for (_, volumes) in jobs.filter(|(id, _)| *id == job.job_id) {
                    volumes.push(volume);
                }
            }
        }
        Self(of_guests)
    }

    /// The guests in the order of their numbers, without these.
    pub fn without(&self, loaded: &HashSet<i64>) -> Vec<i64> {
        let mut left: Vec<i64> = self.0.keys().filter(|vmid| !loaded.contains(vmid)).copied().collect();
        left.sort_unstable();
        left
    }

    /// The relationships of jobs to these guests, and to their volumes, in the order of the jobs.
    pub fn rows(&self, guests: &[i64]) -> (Vec<RelationshipRow>, Vec<RelationshipRow>) {
        let mut found: Vec<_> = guests
            .iter()
            .flat_map(|vmid| {
                self.0.get(vmid).into_iter().flatten().map(move |(job, volumes)| (job, vmid, volumes))
            })
            .collect();
        found.sort_unstable_by_key(|(job, vmid, _)| (*job, *vmid));
        let covers =
            found.iter().map(|(job, vmid, _)| RelationshipRow::new(vec![json!(job)], vec![json!(vmid)]));
        let takes = found.iter().flat_map(|(job, _, volumes)| {
            volumes.iter().map(move |volume| RelationshipRow {
                from: vec![json!(job)],
                to: vec![json!(volume.vmid), json!(volume.disk_id)],
                set: Map::from_iter([
                    ("included".to_owned(), json!(volume.included)),
                    ("reason".to_owned(), json!(volume.reason)),
                ]),
            })
        });
        (covers.collect(), takes.collect())
    }
}

/// The rows of a batch of guests.
///
/// Nodes, storages and jobs are shared with the other writers, whose MERGE waits for their locks until the commit. So what hangs on
/// them is in one order for all writers: no two wait for each other.
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
}

impl Batch {
    /// The rows of these guests.
    pub fn new(guests: &[Guest]) -> Self {
        let configs = || guests.iter().filter_map(|guest| guest.config.as_ref());
        let disks = || configs().flat_map(|config| &config.disks);
        let snapshots = || guests.iter().filter_map(|guest| guest.snapshots.as_ref()).flatten();
        let snapshot_key = |vmid: i64, name: &str| vec![json!(vmid), json!(name)];
        let mut places: Vec<_> = guests.iter().map(|guest| (guest.node.as_str(), guest.vmid)).collect();
        places.sort_unstable();
        let mut stored: Vec<_> =
            disks().filter_map(|disk| Some((disk.storage.as_ref()?, disk.vmid, &disk.disk_id))).collect();
        stored.sort_unstable();
        Self {
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
}
