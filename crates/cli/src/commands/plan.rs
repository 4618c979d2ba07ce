//! `pvegraph plan`: what would be done to bring a cluster's guests to what is desired. It does nothing of it.

use std::collections::BTreeSet;
use std::collections::btree_map::Entry;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use futures::{StreamExt, stream};
use jiff::Timestamp;
use pve_client::PveClient;
use pvegraph_graph::{Rows, Store, apply_lease};
use pvegraph_inventory::GuestType;
use pvegraph_reconcile::desired::Desired;
use pvegraph_reconcile::document::Policy;
use pvegraph_reconcile::live::{self, LiveError, LiveGuest};
use pvegraph_reconcile::plan::{Around, Consent, Input, Plan, Remark, places, plan};
use pvegraph_reconcile::stored::Stored;
use serde_json::{Value, json};

use super::Global;
use super::discover::write;
use super::drift::{Found, compare, not_managed};
use super::ground::{Ground, nonce};
use crate::config::Settings;
use crate::connect::{self, Access};
use crate::exit::{Exit, Failure};
use crate::render::{Output, Report};

/// Options of `plan`.
#[derive(Debug, Args)]
#[command(after_help = "\
Ends with 6 where something forbids the plan. Of the guests that are there only those that are bound (`pvegraph adopt`) and managed are \
ever in it; new ones are those that are desired and not there. A token that may read is enough to make it.

Examples:
  pvegraph plan
  pvegraph plan --cluster rig --out plan.json --exit-code")]
pub struct PlanCommand {
    /// Write the plan to this file, for `approve`
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,

    /// End with 5 where the plan is not empty
    #[arg(long)]
    exit_code: bool,

    #[command(flatten)]
    of: Of,
}

/// What is planned, and what is agreed to.
#[derive(Debug, Args)]
pub struct Of {
    /// Agree to the deletion of this guest, for this plan; may be given more than once
    #[arg(long, value_name = "UID")]
    allow_delete: Vec<String>,

    /// Put the marker of a managed guest on this one; may be given more than once
    #[arg(long, value_name = "UID")]
    mark: Vec<String>,

    /// Send this guest's password anew, which may have changed where it is kept; may be given more than once
    #[arg(long, value_name = "UID")]
    resend_secrets: Vec<String>,

    /// Take a snapshot of each guest before what restarts it or has no way back, where its storages can
    #[arg(long)]
    snapshot_before: bool,

    /// The cluster of this name
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
}

/// A plan, with what it was made of.
pub struct Planned {
    /// The plan.
    pub plan: Plan,
    /// What is desired.
    pub stored: Stored,
    /// How long the cluster was asked, in seconds.
    pub cluster_seconds: f64,
}

impl Of {
    /// Makes the plan.
    ///
    /// # Errors
    /// Nothing is desired, or the cluster or the store can't be read.
    pub async fn planned(&self, settings: &Settings, store: &dyn Store) -> Result<Planned, Failure> {
        self.planned_on(settings, Ground::of(settings, self.cluster.as_deref(), store).await?).await
    }

    /// Nothing is agreed to.
    pub fn nothing_agreed() -> Self {
        Self {
            allow_delete: Vec::new(),
            mark: Vec::new(),
            resend_secrets: Vec::new(),
            snapshot_before: false,
            cluster: None,
        }
    }

    /// Makes the plan on this ground. Where something else is put there than what the graph desires (the way back), it holds for as long as
    /// what the graph desires stays.
    ///
    /// # Errors
    /// The cluster can't be read.
    pub async fn planned_on(&self, settings: &Settings, ground: Ground<'_>) -> Result<Planned, Failure> {
        let Ground { client, stored, scopes, .. } = &ground;
        let began = Instant::now();
        let found = compare(client, settings, &stored.desired, &stored.bindings).await?;
        let consent = Consent {
            delete: self.allow_delete.iter().cloned().collect(),
            mark: self.mark.iter().cloned().collect(),
            resend: self.resend_secrets.iter().cloned().collect(),
            snapshot: self.snapshot_before,
        };
        let mut around = Around { pending: found.pending.clone(), ..Around::of(&found.live) };
        surveyed(client, &stored.desired, &found, &mut around).await;
        let made = stored.bindings.values().filter(|binding| binding.reserved_by.is_some());
        for uid in consent.mark.iter().chain(&consent.resend).chain(made.map(|binding| &binding.uid)) {
            let vmid = stored.desired.guests.get(uid).and_then(|guest| guest.vmid);
            // Of guests that do not differ nothing was asked yet.
            let Some(live) = vmid.and_then(|vmid| found.live.guests.get(&vmid)) else { continue };
            if let Entry::Vacant(unasked) = around.pending.entry(live.vmid) {
                unasked.insert(live::pending(client, live).await.map_err(LiveError::from)?);
            }
        }
        let quorate = ground.quorate().await;
        let cluster_seconds = began.elapsed().as_secs_f64();
        let mut plan = plan(&Input {
            desired: &stored.desired,
            generation: stored.generation,
            bindings: &stored.bindings,
            scopes,
            live: &found.live.guests,
            diffs: &found.diffs,
            unread: &found.unread,
            around: &around,
            consent: &consent,
            now: Timestamp::now().as_second(),
            nonce: &nonce(),
        });
        ground.passed(&mut plan, &found.live, quorate).await;
        Ok(Planned { plan, stored: ground.stored, cluster_seconds })
    }
}

impl PlanCommand {
    /// Runs the command.
    ///
    /// # Errors
    /// The configuration is not valid, nothing is desired, or the cluster or the store can't be read.
    pub fn run(self, global: &Global) -> Result<Exit, Failure> {
        let settings = global.settings()?;
        connect::block_on(async {
            let store = connect::store(&settings, Access::Read).await?;
            let Planned { plan, stored, cluster_seconds } = self.of.planned(&settings, &*store).await?;
            if apply_lease::paused(&*store, &plan.cluster).await? {
                tracing::warn!("applies to {} are paused: `pvegraph resume` lets them go on", plan.cluster);
            }
            told(&plan, not_managed(&stored.desired), Some(cluster_seconds), self.out.as_deref(), global)?;
            Ok(match (plan.blocked.is_empty(), plan.operations.is_empty()) {
                (false, _) => Exit::Blocked,
                (true, false) if self.exit_code => Exit::Drift,
                (true, _) => Exit::Success,
            })
        })
    }
}

/// Writes a plan to its file, and tells it. `not_managed`: what of the desired state no plan is of yet. `cluster_seconds`: how long the
/// cluster was asked, where that is told.
///
/// # Errors
/// The file, or standard output, can't be written.
pub fn told(
    plan: &Plan,
    not_managed: Vec<String>,
    cluster_seconds: Option<f64>,
    out: Option<&Path>,
    global: &Global,
) -> Result<(), Failure> {
    if out.is_some() {
        write(out, &plan.to_file())?;
    }
    let report = report(plan, not_managed);
    global.print(&match cluster_seconds {
        Some(seconds) => report.with_extra("cluster_seconds", seconds),
        None => report,
    })?;
    for one in &plan.blocked {
        tracing::error!("blocked: {one}");
    }
    if !plan.observed.is_empty() {
        tracing::warn!("only observed, differing, and left alone: {}", plan.observed.join(", "));
    }
    for one in &plan.warnings {
        tracing::warn!("{one}");
    }
    for one in &plan.postponed {
        tracing::warn!("postponed: {one}");
    }
    if global.output == Output::Table {
        use std::io::Write;
        let Plan { restarts, deletes, blast, .. } = plan;
        // A reader that went away needs no sum.
        let _ = writeln!(std::io::stdout(), "restarts: {restarts}  deletes: {deletes}  blast: {blast}");
    }
    Ok(())
}

/// Asks the cluster what only some plans need: bridges and templates where guests are made or change, and which way guests may move.
/// What it does not say stays unknown.
async fn surveyed(client: &PveClient, desired: &Desired, found: &Found, around: &mut Around) {
    let mut bridges: BTreeSet<&str> = BTreeSet::new();
    let mut templates: BTreeSet<(&str, &str)> = BTreeSet::new();
    let mut moving: Vec<(&LiveGuest, Option<&str>)> = Vec::new();
    let mut copied: Vec<(&LiveGuest, &str)> = Vec::new();
    let mut relocated: Vec<&LiveGuest> = Vec::new();
    for diff in found.diffs.iter().filter(|diff| !diff.noop()) {
        let Some(guest) = desired.guests.get(&diff.uid).filter(|guest| guest.policy == Policy::Manage) else {
            continue;
        };
        let live = guest.vmid.and_then(|vmid| found.live.guests.get(&vmid));
        let Some(live) = live else {
            let source = guest.clone_of.as_ref().and_then(|clone| {
                Some((found.live.guests.get(&desired.source(clone)?)?, clone.snapshot.as_deref()))
            });
            let on = source.map(|(source, _)| source.node.as_str());
            let places = places(desired, guest, on, found.live.nodes.keys());
            bridges.extend(&places);
            copied.extend(source.and_then(|(source, snapshot)| Some((source, snapshot?))));
            let volume = guest.ostemplate.as_deref().and_then(|volume| Some(volume.split_once(':')?.0));
            templates
                .extend(volume.iter().flat_map(|volume| places.iter().map(move |node| (*node, *volume))));
            continue;
        };
        // A container's volumes all stay where one of them is of a snapshot.
        let elsewhere = |field: &str| field.ends_with(".storage") || field.ends_with(".format");
        if live.kind == GuestType::Qemu
            && live.config.contains_key("parent")
            && diff.changes.iter().any(|change| elsewhere(&change.field))
        {
            relocated.push(live);
        }
        if diff.changes.iter().any(|change| change.field.starts_with("net")) {
            bridges.insert(&live.node);
        }
        if diff.changes.iter().any(|change| change.field == "node") {
            // Where it may go.
            bridges.extend(places(desired, guest, None, found.live.nodes.keys()));
            moving.push((live, guest.node.as_deref()));
        }
    }
    let doomed: Vec<&LiveGuest> = desired
        .guests
        .values()
        .filter(|guest| guest.tombstone && guest.policy == Policy::Manage)
        .filter_map(|guest| found.live.guests.get(&guest.vmid?))
        .collect();
    if !doomed.is_empty() {
        match live::replicated(client).await {
            Ok(numbers) => around.replicated = numbers,
            Err(error) => tracing::info!(%error, "which guests replication copies is not known"),
        }
    }
    for guest in doomed.into_iter().filter(|guest| live::is_base(guest)) {
        match live::linked_clones(client, guest).await {
            Ok(clones) => drop(around.clones.insert(guest.vmid, clones)),
            Err(error) => tracing::info!(guest = guest.vmid, %error, "its linked clones are not known"),
        }
    }
    let known = |node: &&str| found.live.nodes.get(*node).is_some_and(|node| node.online);
    for node in bridges.into_iter().filter(known) {
        match live::bridges(client, node).await {
            Ok(names) => drop(around.bridges.insert(node.to_owned(), names)),
            Err(error) => tracing::info!(node, %error, "bridges are not known"),
        }
    }
    for (node, storage) in templates.into_iter().filter(|(node, _)| known(node)) {
        match live::templates(client, node, storage).await {
            Ok(names) => around.templates.entry(node.to_owned()).or_default().extend(names),
            Err(error) => tracing::info!(node, storage, %error, "templates are not known"),
        }
    }
    for (source, name) in copied {
        match live::snapshot(client, source, name).await {
            Ok(config) => drop(around.snapshots.insert((source.vmid, name.to_owned()), config)),
            Err(error) => tracing::info!(guest = source.vmid, name, %error, "the snapshot is not known"),
        }
    }
    for guest in relocated {
        match live::snapshotted(client, guest).await {
            Ok(volumes) => drop(around.snapshotted.insert(guest.vmid, volumes)),
            Err(error) => {
                tracing::info!(guest = guest.vmid, %error, "what its snapshots are of is not known")
            }
        }
    }
    let asked: Vec<_> = stream::iter(moving)
        .map(|(live, target)| async move { (live.vmid, live::migration(client, live, target).await) })
        .buffered(AT_ONCE)
        .collect()
        .await;
    for (vmid, answer) in asked {
        match answer {
            Ok(Some(migration)) => drop(around.migrations.insert(vmid, migration)),
            Ok(None) => {}
            Err(error) => tracing::info!(guest = vmid, %error, "where it may move is not known"),
        }
    }
}

/// Questions about migrations that are asked at once; the client's own limits decide when they go out.
const AT_ONCE: usize = 64;

/// A plan as it is shown.
fn report(plan: &Plan, not_managed: Vec<String>) -> Report {
    let columns = ["number", "uid", "vmid", "action", "effect", "blast", "why"].map(str::to_owned).to_vec();
    let rows = plan
        .operations
        .iter()
        .map(|op| {
            let (action, effect) = (json!(op.action.as_str()), json!(op.effect.to_string()));
            let (number, blast) = (json!(op.number), json!(op.blast));
            vec![number, json!(op.uid), json!(op.vmid), action, effect, blast, json!(op.reasons)]
        })
        .collect();
    let told = |remarks: &[Remark]| -> Vec<Value> { remarks.iter().map(|one| json!(one)).collect() };
    Report::new(Rows { columns, rows })
        .with_extra("cluster_id", plan.cluster.as_str())
        .with_extra("generation", plan.generation)
        .with_extra("expires_at", plan.expires_at)
        .with_extra("sha256", plan.sha256())
        .with_extra("blocked", told(&plan.blocked))
        .with_extra("warnings", told(&plan.warnings))
        .with_extra("postponed", told(&plan.postponed))
        .with_extra("observed", plan.observed.clone())
        .with_extra("restarts", plan.restarts)
        .with_extra("deletes", plan.deletes)
        .with_extra("blast", plan.blast)
        .with_extra("not_managed_yet", not_managed)
}
