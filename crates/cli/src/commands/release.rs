//! `pvegraph release`: bound guests that are gone are bound no longer, so that a plan may make them anew.

use std::collections::BTreeSet;

use clap::Args;
use jiff::Timestamp;
use pvegraph_graph::lease::{Lease, Purpose};
use pvegraph_graph::{Rows, Store};
use pvegraph_inventory::ClusterId;
use pvegraph_reconcile::live::{self, LiveError};
use pvegraph_reconcile::stored::{self, Binding};
use serde_json::json;

use super::Global;
use super::apply::{locked, of_lease};
use super::drift::{proven_cluster, unseen};
use crate::config::Settings;
use crate::connect::{self, Access, HostLock};
use crate::exit::{Exit, Failure};
use crate::render::Report;

/// Options of `release`.
#[derive(Debug, Args)]
#[command(after_help = "\
A guest that was bound and is gone blocks the plan, because absence never makes a second one. This takes its Binding away, and the plan \
makes it anew where it is still desired. A guest that is there, or can't be read, stays bound. Nothing is changed at the cluster.

Examples:
  pvegraph release vm-100 db
  pvegraph release --all --cluster rig")]
pub struct Release {
    /// The `uid`s of the guests
    #[arg(value_name = "UID", required_unless_present = "all", conflicts_with = "all")]
    uids: Vec<String>,

    /// All guests that were bound and are gone
    #[arg(long)]
    all: bool,

    /// Show which; write nothing
    #[arg(long)]
    dry_run: bool,

    /// The cluster of this name
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
}

impl Release {
    /// Runs the command.
    ///
    /// # Errors
    /// A guest is not bound, is there, or can't be read; a run is open; or cluster or store can't be used.
    pub fn run(self, global: &Global) -> Result<Exit, Failure> {
        let settings = global.settings()?;
        connect::block_on(self.release(&settings, global))
    }

    async fn release(self, settings: &Settings, global: &Global) -> Result<Exit, Failure> {
        let access = if self.dry_run { Access::Read } else { Access::Write };
        let store = connect::store(settings, access).await?;
        let (id, client) = proven_cluster(settings, self.cluster.as_deref(), &*store).await?;
        let (files, lock) = locked(settings, &id)?;
        if files.open_run()?.is_some() {
            let text = format!(
                "a run at {id} was cut off, or the outcome of a call of it is unknown, and nothing was released: run `pvegraph resume` \
                 first"
            );
            return Err(Failure::new(Exit::Blocked, text));
        }
        let stored = stored::read(&*store, &id).await?;
        let bound: Vec<&Binding> =
            stored.bindings.values().filter(|binding| binding.destroyed_at.is_none()).collect();
        let wanted: BTreeSet<&str> = self.uids.iter().map(String::as_str).collect();
        if let Some(uid) = wanted.iter().find(|uid| !bound.iter().any(|binding| binding.uid == **uid)) {
            let text = format!(
                "{uid} is not bound at {id}, and nothing was released: write the `uid` of a bound guest"
            );
            return Err(Failure::new(Exit::Config, text));
        }
        let numbers = bound.iter().map(|binding| binding.vmid).collect();
        let live = live::read(&client, Some(&numbers)).await?;
        let mut gone = Vec::new();
        for binding in bound.into_iter().filter(|binding| self.all || wanted.contains(&*binding.uid)) {
            let Binding { uid, vmid, .. } = binding;
            let absent = !live.guests.contains_key(vmid) && !live.unread.contains_key(vmid);
            // Without it nothing would keep a second guest from being made.
            let hidden = absent
                && !(live.would_see(*vmid) && live::sees(&client, *vmid).await.map_err(LiveError::from)?);
            let stays = match (live.guests.get(vmid), live.unread.get(vmid)) {
                (Some(guest), _) if binding.is_of(&id, guest) => Some("it is there".to_owned()),
                (_, Some(reason)) => Some(format!("it can't be read: {reason}")),
                (None, None) if hidden => Some(unseen(*vmid)),
                _ => None,
            };
            match stays {
                None => gone.push(binding),
                Some(_) if self.all => {}
                Some(why) => {
                    let text = format!("{uid} (guest {vmid}) stays bound, and nothing was released: {why}");
                    return Err(Failure::new(Exit::Blocked, text));
                }
            }
        }
        if !self.dry_run && !gone.is_empty() {
            let uids: Vec<&str> = gone.iter().map(|binding| binding.uid.as_str()).collect();
            released(&*store, &id, &lock, &uids).await?;
        }
        let columns = ["uid", "vmid", "fingerprint"].map(str::to_owned).to_vec();
        let rows = gone
            .iter()
            .map(|binding| vec![json!(binding.uid), json!(binding.vmid), json!(binding.fingerprint)])
            .collect();
        let report = Report::new(Rows { columns, rows }).with_extra("cluster_id", id.as_str());
        global.print(&report.with_extra("dry_run", self.dry_run))?;
        Ok(Exit::Success)
    }
}

fn now() -> i64 {
    Timestamp::now().as_second()
}

/// Takes the bindings away while no run, of any host, has the lease.
async fn released(store: &dyn Store, id: &ClusterId, lock: &HostLock, uids: &[&str]) -> Result<(), Failure> {
    let lease = Lease::take_for(store, Purpose::Apply(id.as_str()), &lock.holder(), now()).await;
    let lease = lease.map_err(of_lease)?;
    let written = store.write(vec![stored::released(id, uids), lease.guard(now())]).await;
    lease.release(store).await?;
    written?;
    Ok(store.checkpoint().await?)
}
