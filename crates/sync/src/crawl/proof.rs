//! What is asked before a thing is taken for gone.

use std::collections::HashSet;
use std::hash::Hash;

use futures::{StreamExt, stream};
use pve_client::ApiError;
use pvegraph_inventory::{Collector, Completeness};

use super::{ASKED_AT_ONCE, Crawl, Note, chain};

pub(super) fn guest_path(vmid: i64) -> String {
    format!("/vms/{vmid}")
}

pub(super) fn storage_path(name: &str) -> String {
    format!("/storage/{name}")
}

/// What PVE confirmed that the token would see, if it existed.
#[derive(Debug, Default)]
pub struct Confirmed {
    /// Guests by number.
    pub guests: HashSet<i64>,
    /// Storages by name.
    pub storages: HashSet<String>,
    /// What could not be asked.
    pub notes: Vec<Note>,
}

impl Crawl {
    /// Asks PVE itself whether the token would see these guests and storages, one request each: the list of permissions leaves
    /// out paths where all rights are taken away. What can't be confirmed is kept.
    ///
    /// Backup jobs have no rights of their own; see [`Crawl::jobs_gone`].
    pub async fn confirm(&self, guests: &[i64], storages: &[String]) -> Confirmed {
        let guests = stream::iter(guests.to_vec())
            .map(|vmid| async move { (vmid, self.has_right(&guest_path(vmid), "VM.Audit").await) })
            .buffer_unordered(ASKED_AT_ONCE)
            .collect::<Vec<_>>();
        let storages = stream::iter(storages.to_vec())
            .map(|name| async move {
                let right = self.has_right(&storage_path(&name), "Datastore.Audit").await;
                (name, right)
            })
            .buffer_unordered(ASKED_AT_ONCE)
            .collect::<Vec<_>>();
        let (guests, storages) = tokio::join!(guests, storages);
        let mut notes = Vec::new();
        Confirmed {
            guests: confirmed(guests, Collector::Guests, &mut notes),
            storages: confirmed(storages, Collector::Storages, &mut notes),
            notes,
        }
    }

    async fn has_right(&self, path: &str, privilege: &str) -> Result<bool, ApiError> {
        let read = self.client.permissions_on(path).await?;
        Ok(read.value.0.get(path).is_some_and(|rights| rights.contains_key(privilege)))
    }

    /// Asks for each of these backup jobs by name: only the one listing tells of them, and an empty one is as genuine as any.
    pub async fn jobs_gone(&self, jobs: &[String]) -> HashSet<String> {
        stream::iter(jobs.to_vec())
            .map(|job| async move {
                let gone = self.client.backup_job(&job).await.is_err_and(|error| error.is_not_found());
                gone.then_some(job)
            })
            .buffer_unordered(ASKED_AT_ONCE)
            .filter_map(|gone| async move { gone })
            .collect()
            .await
    }
}

fn confirmed<K: Eq + Hash>(
    answers: Vec<(K, Result<bool, ApiError>)>,
    collector: Collector,
    notes: &mut Vec<Note>,
) -> HashSet<K> {
    answers
        .into_iter()
        .filter_map(|(key, right)| match right {
            Ok(right) => right.then_some(key),
            Err(error) => {
                let reason =
                    format!("it is not known whether the token would see what is missing: {}", chain(&error));
                notes.push(Note::new(collector, None, Completeness::Partial, Some(reason), 0));
                None
            }
        })
        .collect()
}
