//! `pvegraph adopt`: live guests become desired ones as they are, bound to what they are now. Nothing is changed at the cluster.

use std::collections::BTreeSet;

use clap::Args;
use pvegraph_reconcile::adopt::{Adopted, How, adopted};
use pvegraph_reconcile::desired::check;
use pvegraph_reconcile::edits::edits;
use pvegraph_reconcile::live::{self, Live};
use pvegraph_reconcile::stored::{self, Binding, numbered};
use serde_json::json;

use super::Global;
use super::desired::{save, shown};
use super::drift::{proven_cluster, refused};
use super::migrate::ensure_migrated;
use crate::config::Settings;
use crate::connect::{self, Access, HostLock};
use crate::exit::{Exit, Failure};

/// Options of `adopt`.
#[derive(Debug, Args)]
#[command(after_help = "\
An adopted guest is only observed, unless --manage says otherwise, also one that was managed before. A guest that is desired already is bound to the live one only \
if it is what is desired; --replace takes the live configuration over instead.

Examples:
  pvegraph adopt 100 101
  pvegraph adopt --all --cluster rig")]
pub struct Adopt {
    /// The guests' numbers
    #[arg(value_name = "VMID", required_unless_present = "all", conflicts_with = "all")]
    vmids: Vec<i64>,

    /// All guests of the cluster
    #[arg(long)]
    all: bool,

    /// Let them be changed later; without it they are only compared
    #[arg(long)]
    manage: bool,

    /// Where something else is desired of a guest, desire what it is
    #[arg(long)]
    replace: bool,

    /// Take descriptions and `args` over too, which may hold secrets
    #[arg(long)]
    with_texts: bool,

    /// Show what would change; write nothing
    #[arg(long)]
    dry_run: bool,

    /// The cluster of this name
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
}

impl Adopt {
    /// Runs the command.
    ///
    /// # Errors
    /// The configuration is not valid, a guest is not there or can't be read, or the store can't be used.
    pub fn run(self, global: &Global) -> Result<Exit, Failure> {
        let settings = global.settings()?;
        connect::block_on(self.adopt(&settings, global))
    }

    async fn adopt(self, settings: &Settings, global: &Global) -> Result<Exit, Failure> {
        let lock = if self.dry_run { None } else { Some(HostLock::take(settings)?) };
        let (store, _directory) = if self.dry_run {
            connect::compared(settings).await?
        } else {
            (connect::store(settings, Access::Write).await?, None)
        };
        ensure_migrated(&*store, lock.as_ref().map(HostLock::holder).as_ref()).await?;
        let (id, client) = proven_cluster(settings, self.cluster.as_deref(), &*store).await?;
        let wanted: BTreeSet<i64> = self.vmids.iter().copied().collect();
        let live = live::read(&client, (!self.all).then_some(&wanted)).await?;
        self.all_there(&wanted, &live)?;
        let from = stored::read(&*store, &id).await?;
        let how = How { manage: self.manage, replace: self.replace, with_texts: self.with_texts };
        let Adopted { to, bind, left_out } =
            adopted(&from, &live, how).map_err(|text| Failure::new(Exit::Blocked, text))?;
        for (vmid, text) in left_out {
            tracing::info!("guest {vmid}: left out: {text}");
        }
        let problems = check(&numbered(&from.bindings, &to));
        if !problems.is_empty() {
            return Err(refused("the adoption", &problems));
        }
        let changes = edits(&from.desired, &to);
        let bound: Vec<&Binding> =
            bind.iter().filter(|one| from.bindings.get(&one.uid) != Some(*one)).collect();
        let nothing_new = changes.noop() && bound.is_empty();
        if !self.dry_run && !nothing_new {
            save(&*store, &from, &to, &bind).await?;
        }
        for (vmid, reason) in &live.unread {
            tracing::warn!("guest {vmid} was not adopted: {reason}");
        }
        let uids: Vec<_> = bound.iter().map(|one| json!(one.uid)).collect();
        global.print(&shown(&changes, &to, self.dry_run).with_extra("bound", uids))?;
        Ok(if live.unread.is_empty() { Exit::Success } else { Exit::Partial })
    }

    /// Refuses numbers that no guest has, or that can't be read: none of them is adopted then.
    fn all_there(&self, wanted: &BTreeSet<i64>, live: &Live) -> Result<(), Failure> {
        for vmid in wanted {
            if let Some(reason) = live.unread.get(vmid) {
                return Err(Failure::failed(format!(
                    "guest {vmid} can't be adopted, and nothing was changed: {reason}"
                )));
            }
            if !live.guests.contains_key(vmid) {
                let text = format!(
                    "there is no guest {vmid}, or the token may not see it (VM.Audit on /vms/{vmid}); nothing was changed"
                );
                return Err(Failure::new(Exit::Config, text));
            }
        }
        Ok(())
    }
}
