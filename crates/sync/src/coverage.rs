//! What the backup jobs of a cluster cover, by guest: each batch of guests takes its share along, so that nothing of it is left for
//! the end.

use std::collections::{HashMap, HashSet};

use pvegraph_graph::labels::RelationshipRow;
use pvegraph_inventory::{BackupJob, BackupVolume};
use serde_json::{Map, Value, json};

/// What the jobs cover whose answers could be read.
#[derive(Debug, Default)]
pub struct Coverage {
    /// In their own order.
    jobs: Vec<String>,
    guests: HashMap<i64, Covered>,
}

/// What covers one guest; jobs by their place.
#[derive(Debug, Default)]
struct Covered {
    jobs: Vec<usize>,
    volumes: Vec<(usize, BackupVolume)>,
}

impl Coverage {
    /// Takes it out of the jobs.
    pub fn take(jobs: &mut [BackupJob]) -> Self {
        jobs.sort_by(|one, other| one.job_id.cmp(&other.job_id));
        let mut coverage = Self::default();
        for job in jobs {
            let (Some(guests), Some(volumes)) = (job.guests.take(), job.volumes.take()) else { continue };
            let at = coverage.jobs.len();
            coverage.jobs.push(job.job_id.clone());
            for vmid in guests {
                coverage.guests.entry(vmid).or_default().jobs.push(at);
            }
            for volume in volumes {
                coverage.guests.entry(volume.vmid).or_default().volumes.push((at, volume));
            }
        }
        coverage
    }

    /// The keys of the jobs.
    pub fn jobs(&self) -> Vec<Vec<Value>> {
        self.jobs.iter().map(|id| vec![json!(id)]).collect()
    }

    /// The guests that are covered and not among these.
    pub fn others(&self, than: &HashSet<i64>) -> Vec<i64> {
        self.guests.keys().copied().filter(|vmid| !than.contains(vmid)).collect()
    }

    /// Which jobs cover these guests, in the order of the jobs.
    pub fn guests(&self, vmids: &[i64]) -> Vec<RelationshipRow> {
        let of = |vmid: &i64| self.guests.get(vmid).map(|covered| (*vmid, covered));
        let mut rows: Vec<(usize, i64)> = vmids
            .iter()
            .filter_map(of)
            .flat_map(|(vmid, covered)| covered.jobs.iter().map(move |job| (*job, vmid)))
            .collect();
        rows.sort_unstable();
        rows.into_iter()
            .filter_map(|(job, vmid)| Some(RelationshipRow::new(vec![self.id(job)?], vec![json!(vmid)])))
            .collect()
    }

    /// What the jobs do with the volumes of these guests, likewise.
    pub fn volumes(&self, vmids: &[i64]) -> Vec<RelationshipRow> {
        let mut rows: Vec<&(usize, BackupVolume)> = vmids
            .iter()
            .filter_map(|vmid| self.guests.get(vmid))
            .flat_map(|covered| &covered.volumes)
            .collect();
        rows.sort_by_key(|(job, volume)| (*job, volume.vmid));
        rows.into_iter()
            .filter_map(|(job, volume)| {
                Some(RelationshipRow {
                    from: vec![self.id(*job)?],
                    to: vec![json!(volume.vmid), json!(volume.disk_id)],
                    set: Map::from_iter([
                        ("included".to_owned(), json!(volume.included)),
                        ("reason".to_owned(), json!(volume.reason)),
                    ]),
                })
            })
            .collect()
    }

    fn id(&self, job: usize) -> Option<Value> {
        self.jobs.get(job).map(|id| json!(id))
    }
}
