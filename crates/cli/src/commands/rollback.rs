//! `pvegraph rollback`: the way back from a plan that was applied, as a plan.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use clap::Args;
use pvegraph_reconcile::live::{self, LiveError};
use pvegraph_reconcile::rollback::reverse;

use super::Global;
use super::apply::{files, kept};
use super::drift::not_managed;
use super::ground::Ground;
use super::plan::{Of, Planned, told};
use crate::connect::{self, Access};
use crate::exit::{Exit, Failure};

/// Options of `rollback`.
#[derive(Debug, Args)]
#[command(after_help = "\
Makes a plan that brings back what guests had before a run, for `approve` and `apply` as any other. What is desired stays as it is, and \
the plan after it would do the same again: desire what you want to keep. Deletions, new guests, larger volumes, free text and secrets do not \
come back; without --partial nothing does then, and the command ends with 6.

Examples:
  pvegraph rollback plan.json --out back.json
  pvegraph rollback 20260301T120000Z-0a1b2c3d --out back.json --partial")]
pub struct Rollback {
    /// The run, or the plan that was applied
    #[arg(value_name = "RUN|PLANFILE")]
    of: String,

    /// Write the plan to this file, for `approve`
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,

    /// Leave out what does not come back
    #[arg(long)]
    partial: bool,

    /// The cluster of this name
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
}

impl Rollback {
    /// Runs the command.
    ///
    /// # Errors
    /// There was no such run, or the cluster or the store can't be read.
    pub fn run(self, global: &Global) -> Result<Exit, Failure> {
        let settings = global.settings()?;
        connect::block_on(async {
            let store = connect::store(&settings, Access::Read).await?;
            let mut ground = Ground::of(&settings, self.cluster.as_deref(), &*store).await?;
            let (id, client, stored) = (&ground.id, &ground.client, &ground.stored);
            let files = files(&settings, id)?;
            let (plan, record) = match std::fs::read_to_string(&self.of) {
                Ok(text) => {
                    let plan = kept(&text).map_err(Failure::failed)?;
                    let sha256 = plan.sha256();
                    let runs = files.runs()?;
                    let record = runs.into_iter().rev().find(|record| record.plan == sha256);
                    let text = "this plan was never applied from this host: there is nothing to bring back";
                    (plan, record.ok_or_else(|| Failure::new(Exit::Config, text))?)
                }
                Err(_) => {
                    let record = files.runs()?.into_iter().find(|record| record.run == self.of);
                    let text = format!("{} is neither a plan that can be read nor a run of {id}", self.of);
                    let record = record.ok_or_else(|| Failure::new(Exit::Config, text))?;
                    (kept(&files.plan_of(&record.run)?).map_err(Failure::failed)?, record)
                }
            };
            let done: BTreeSet<usize> = record.calls.keys().map(|call| call.op + 1).collect();
            let numbers: BTreeSet<i64> = plan.operations.iter().map(|operation| operation.vmid).collect();
            let live = live::read(client, Some(&numbers)).await?;
            let mut pending = BTreeMap::new();
            for guest in live.guests.values() {
                let waits = live::pending(client, guest).await.map_err(LiveError::from)?;
                pending.insert(guest.vmid, waits);
            }
            let back = reverse(&plan, &done, &stored.desired, &live.guests, &pending, live.style);
            ground.stored.desired = back.desired;
            let back_of = Some(plan.sha256());
            let Planned { mut plan, stored, cluster_seconds } =
                Of::nothing_agreed().planned_on(&settings, ground).await?;
            plan.back_of = back_of;
            if self.partial {
                plan.postponed.extend(back.left);
            } else {
                let text = "say --partial to bring the rest back without it";
                for mut left in back.left {
                    left.text = format!("{}; {text}", left.text);
                    plan.blocked.push(left);
                }
            }
            if plan.operations.is_empty() && plan.blocked.is_empty() {
                tracing::info!("{}: everything is as it was before already", plan.cluster);
            }
            told(&plan, not_managed(&stored.desired), Some(cluster_seconds), self.out.as_deref(), global)?;
            Ok(if plan.blocked.is_empty() { Exit::Success } else { Exit::Blocked })
        })
    }
}
