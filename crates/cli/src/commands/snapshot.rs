//! `pvegraph snapshot`: a plan that takes a snapshot of a guest, or takes the guest back to one. It does nothing of it: `approve` and
//! `apply` do.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use pve_client::PveClient;
use pvegraph_graph::Store;
use pvegraph_reconcile::desired::Guest;
use pvegraph_reconcile::live::{self, LiveError, LiveGuest, Snapshot};
use pvegraph_reconcile::plan::{Around, Ask, Consent, Input, Plan, snapshot_plan};
use pvegraph_reconcile::stored::Stored;

use super::Global;
use super::ground::{Ground, nonce};
use super::plan::told;
use crate::config::Settings;
use crate::connect::{self, Access};
use crate::exit::{Exit, Failure};

/// The commands of snapshots.
#[derive(Debug, Subcommand)]
pub enum SnapshotCommand {
    /// Plan to take a snapshot of a guest
    #[command(after_help = "\
Examples:
  pvegraph snapshot take vm-100 before-upgrade --out plan.json
  pvegraph apply plan.json --auto-approve")]
    Take(Take),
    /// Plan to take a guest back to a snapshot, and show what would be lost
    #[command(after_help = "\
Everything that was written to its disks since then is lost, and its options become what they were; so the plan has to be approved. The \
scope has to allow `restore-snapshot`. A new guest from a snapshot is a copy: `clone` with `snapshot` in what is desired.

Examples:
  pvegraph snapshot rollback vm-100 before-upgrade --out plan.json
  pvegraph approve plan.json
  pvegraph apply plan.json")]
    Rollback(Rollback),
}

/// Options of `snapshot take`.
#[derive(Debug, Args)]
pub struct Take {
    #[command(flatten)]
    of: Of,

    /// Keep the memory of a running machine too: going back starts it where it was
    #[arg(long)]
    memory: bool,

    /// Words for readers, and no secret: the plan's file has them as they are
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
}

/// Options of `snapshot rollback`.
#[derive(Debug, Args)]
pub struct Rollback {
    #[command(flatten)]
    of: Of,
}

/// Of what.
#[derive(Debug, Args)]
struct Of {
    /// The desired guest
    uid: String,

    /// The snapshot
    name: String,

    /// Write the plan to this file, for `approve` and `apply`
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,

    /// The cluster of this name
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
}

impl SnapshotCommand {
    /// Runs the command.
    ///
    /// # Errors
    /// There is no such desired guest, or the cluster or the store can't be read.
    pub fn run(self, global: &Global) -> Result<Exit, Failure> {
        let settings = global.settings()?;
        connect::block_on(async {
            let store = connect::store(&settings, Access::Read).await?;
            let (of, asked) = match &self {
                Self::Take(Take { of, memory, description }) => (
                    of,
                    Some(Ask::Take {
                        name: of.name.clone(),
                        memory: *memory,
                        description: description.clone(),
                    }),
                ),
                Self::Rollback(Rollback { of }) => (of, None),
            };
            let plan = of.planned(&settings, &*store, asked).await?;
            told(&plan, Vec::new(), None, of.out.as_deref(), global)?;
            Ok(if plan.blocked.is_empty() { Exit::Success } else { Exit::Blocked })
        })
    }
}

impl Of {
    /// Makes the plan. Without `asked` the guest goes back.
    async fn planned(
        &self,
        settings: &Settings,
        store: &dyn Store,
        asked: Option<Ask>,
    ) -> Result<Plan, Failure> {
        let ground = Ground::of(settings, self.cluster.as_deref(), store).await?;
        let Ground { client, stored, scopes, .. } = &ground;
        let guest = wanted(stored, &self.uid)?;
        let numbers: BTreeSet<i64> = guest.vmid.into_iter().collect();
        let live = live::read(client, Some(&numbers)).await?;
        let mut around = Around::of(&live);
        let mut taken = Vec::new();
        let has = guest.vmid.and_then(|vmid| live.guests.get(&vmid));
        if let Some(has) = has {
            around.pending.insert(has.vmid, live::pending(client, has).await.map_err(LiveError::from)?);
            taken = live::snapshots(client, has).await.map_err(LiveError::from)?;
        }
        let ask = match asked {
            Some(ask) => ask,
            None => {
                Ask::Rollback { name: self.name.clone(), config: then(client, has, &taken, &self.name).await }
            }
        };
        let input = Input {
            desired: &stored.desired,
            generation: stored.generation,
            bindings: &stored.bindings,
            scopes,
            live: &live.guests,
            diffs: &[],
            unread: &BTreeMap::new(),
            around: &around,
            consent: &Consent::default(),
            now: Timestamp::now().as_second(),
            nonce: &nonce(),
        };
        let mut plan = snapshot_plan(&input, guest, &taken, &ask);
        ground.passed(&mut plan, &live, ground.quorate().await).await;
        Ok(plan)
    }
}

/// The desired guest of this name.
fn wanted<'a>(stored: &'a Stored, uid: &str) -> Result<&'a Guest, Failure> {
    stored.desired.guests.get(uid).ok_or_else(|| {
        let text = format!(
            "there is no desired guest {uid:?} in {}: write the `uid` of one",
            stored.desired.cluster
        );
        Failure::new(Exit::Config, text)
    })
}

/// The options that the guest had in a snapshot.
async fn then(
    client: &PveClient,
    has: Option<&LiveGuest>,
    taken: &[Snapshot],
    name: &str,
) -> Option<BTreeMap<String, String>> {
    let has = has.filter(|_| taken.iter().any(|snapshot| snapshot.name == name))?;
    match live::snapshot(client, has, name).await {
        Ok(config) => config,
        Err(error) => {
            tracing::warn!(guest = has.vmid, name, %error, "the snapshot's options could not be read");
            None
        }
    }
}
