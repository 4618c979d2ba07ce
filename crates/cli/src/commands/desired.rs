//! `pvegraph desired import` and `export`: the desired state in the graph, and the document that says the same.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use pvegraph_graph::{Rows, Store};
use pvegraph_inventory::ClusterId;
use pvegraph_reconcile::desired::{Desired, Guest, to_document};
use pvegraph_reconcile::document::Document;
use pvegraph_reconcile::edits::{Edits, edits};
use pvegraph_reconcile::import::merged;
use pvegraph_reconcile::stored::{self, Binding, Change, Stored, THE_DOCUMENT};
use serde_json::json;

use super::Global;
use super::discover::write;
use super::drift::{desired_of, not_managed, read_document, refused};
use super::migrate::ensure_migrated;
use crate::config::Settings;
use crate::connect::{self, Access, HostLock};
use crate::exit::{Exit, Failure};
use crate::render::Report;

/// The commands of the desired state.
#[derive(Debug, Subcommand)]
pub enum DesiredCommand {
    /// Bring the desired state in the graph to what a document says; no cluster is asked or changed
    Import(Import),
    /// Write the desired state in the graph as a document
    Export(Export),
}

/// Options of `desired import`.
#[derive(Debug, Args)]
#[command(after_help = "\
All of the document is imported, or nothing. What it does not say of a guest's protection and leave (`policy`, `protected`, `deletion`, \
`reboot`, `local_disks`, `shutdown`) stays as it is desired. The keys are described by docs/desired.schema.json.

Examples:
  pvegraph desired import estate.json --dry-run
  pvegraph desired import estate.toml --cluster rig")]
pub struct Import {
    /// The document, JSON or TOML
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// The identifier of the cluster that it is about
    #[arg(long, value_name = "CLUSTER_ID")]
    cluster: Option<ClusterId>,

    /// Show what would change; write nothing
    #[arg(long)]
    dry_run: bool,

    /// Desire nothing any more of guests and sections that the document does not name; the guests themselves stay
    #[arg(long)]
    prune: bool,
}

/// Options of `desired export`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pvegraph desired export --to estate.json")]
pub struct Export {
    /// Write it to this file instead of standard output
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,

    /// The identifier of the cluster
    #[arg(long, value_name = "CLUSTER_ID")]
    cluster: Option<ClusterId>,
}

impl DesiredCommand {
    /// Runs the command.
    ///
    /// # Errors
    /// The configuration or the document is not valid, or the store can't be used.
    pub fn run(self, global: &Global) -> Result<Exit, Failure> {
        let settings = global.settings()?;
        match self {
            Self::Import(command) => {
                let document = read_document(&command.file)?;
                connect::block_on(command.import(&document, &settings, global))
            }
            Self::Export(command) => connect::block_on(command.export(&settings)),
        }
    }
}

impl Import {
    async fn import(
        self,
        document: &Document,
        settings: &Settings,
        global: &Global,
    ) -> Result<Exit, Failure> {
        let lock = if self.dry_run { None } else { Some(HostLock::take(settings)?) };
        let (store, _directory) = if self.dry_run {
            connect::compared(settings).await?
        } else {
            (connect::store(settings, Access::Write).await?, None)
        };
        let holder = lock.as_ref().map(HostLock::holder);
        ensure_migrated(&*store, holder.as_ref()).await?;
        let named = document.plugins.proxmox.cluster.as_ref().and_then(|section| section.name.clone());
        let given = self.cluster.is_some();
        let id = cluster(&*store, settings, self.cluster, named).await?;
        let mut document = document.clone();
        if let Some(name) =
            document.plugins.proxmox.cluster.as_mut().and_then(|section| section.name.as_mut())
            && given
            && name != id.as_str()
        {
            tracing::warn!("the document is about the cluster {name:?}, and is imported for {id}");
            *name = id.to_string();
        }
        let wanted = desired_of(&self.file, &document, &id)?;
        let inventory = stored::inventory(&*store, &id).await?;
        let from = stored::read(&*store, &id).await?;
        let to = merged(&from.desired, &wanted, &document, self.prune);
        // A guest that was made without a number has its binding's.
        let whole = stored::numbered(&from.bindings, &to);
        // What stands in the graph already is not this document's fault.
        let (mut problems, older): (Vec<_>, Vec<_>) =
            inventory.check(&whole).into_iter().partition(|problem| {
                let stays = |guest: &&Guest| !wanted.guests.contains_key(&guest.uid);
                let of_guest =
                    whole.guests.values().filter(stays).any(|guest| guest.label() == problem.subject);
                let of_estate = problem.subject == THE_DOCUMENT && wanted.node.is_none();
                !(of_guest || of_estate)
            });
        for problem in older {
            tracing::warn!("desired in the graph already, and not in this document: {problem}");
        }
        // A guest that stays because the document does not name it may want the same as one that it names.
        problems.extend(pvegraph_reconcile::desired::check(&whole));
        if !problems.is_empty() {
            return Err(refused(&self.file.display().to_string(), &problems));
        }
        let changes = edits(&from.desired, &to);
        if !self.dry_run && !changes.noop() {
            save(&*store, &from, &to, &[]).await?;
        }
        for (uid, guest) in &to.guests {
            if !wanted.guests.contains_key(uid) {
                tracing::info!(
                    "{} is not in the document and stays desired; --prune ends that",
                    guest.label()
                );
            }
        }
        global.print(&shown(&changes, &to, self.dry_run))?;
        Ok(Exit::Success)
    }
}

/// Writes a change of the desired state.
///
/// # Errors
/// The store's, or somebody else wrote meanwhile.
pub async fn save(store: &dyn Store, from: &Stored, to: &Desired, bind: &[Binding]) -> Result<(), Failure> {
    let name = format!("{:032x}", rand::random::<u128>());
    let now = Timestamp::now().as_second();
    stored::write(store, &Change { from, to, bind, name: &name, now }).await?;
    Ok(store.checkpoint().await?)
}

/// The rows of a change.
pub fn shown(changes: &Edits, to: &Desired, dry_run: bool) -> Report {
    let columns = ["change", "subject", "field", "old", "new"];
    let rows = changes
        .0
        .iter()
        .map(|edit| {
            let change = match (&edit.old, &edit.new) {
                (None, _) => "added",
                (_, None) => "removed",
                _ => "changed",
            };
            vec![json!(change), json!(edit.subject), json!(edit.field), json!(edit.old), json!(edit.new)]
        })
        .collect();
    Report::new(Rows { columns: columns.map(str::to_owned).to_vec(), rows })
        .with_extra("cluster_id", to.cluster.as_str())
        .with_extra("dry_run", dry_run)
        .with_extra("guests", to.guests.len())
        .with_extra("not_managed_yet", not_managed(to))
}

impl Export {
    async fn export(self, settings: &Settings) -> Result<Exit, Failure> {
        let store = connect::store(settings, Access::Read).await?;
        let id = cluster(&*store, settings, self.cluster, None).await?;
        let stored = stored::read(&*store, &id).await?;
        if stored.generation == 0 && stored.desired.guests.is_empty() {
            return Err(Failure::new(
                Exit::Config,
                format!("nothing is desired of {id}: import a document, or adopt guests"),
            ));
        }
        let document = to_document(&stored.desired);
        write(self.to.as_deref(), &serde_json::to_string_pretty(&document).map_err(Failure::failed)?)?;
        Ok(Exit::Success)
    }
}

/// The cluster that is meant: the one that is given, the one that the document names, or the only one that there is.
pub async fn cluster(
    store: &dyn Store,
    settings: &Settings,
    given: Option<ClusterId>,
    named: Option<String>,
) -> Result<ClusterId, Failure> {
    let invalid = |error: pvegraph_inventory::InvalidClusterId| Failure::new(Exit::Config, error);
    let mut known = stored::clusters(store).await?;
    let rows = store
        .read(pvegraph_graph::Statement::new("MATCH (c:ProxmoxCluster) RETURN c.cluster_id AS id"))
        .await?;
    known.extend(rows.rows.iter().filter_map(|row| row.first()?.as_str().map(str::to_owned)));
    known.extend(settings.clusters.iter().filter_map(|cluster| cluster.name.clone()));
    if let Some(id) = given {
        // Where none is known yet, this is how the first gets its name.
        if known.is_empty() || known.contains(id.as_str()) {
            return Ok(id);
        }
        let list = known.into_iter().collect::<Vec<_>>().join(", ");
        let text = format!(
            "neither the graph nor the configuration knows a cluster {id} (they know: {list}): write one of these, or sync it first, or give \
             it this `name` in the configuration"
        );
        return Err(Failure::new(Exit::Config, text));
    }
    match named {
        Some(name) if known.contains(&name) => return name.parse().map_err(invalid),
        Some(name) => {
            let list = known.into_iter().collect::<Vec<_>>().join(", ");
            let text = format!(
                "`cluster.name` of the document is {name:?}, and neither the graph nor the configuration knows it (they know: \
                 {list}): say with --cluster which one is meant"
            );
            return Err(Failure::new(Exit::Config, text));
        }
        None => {}
    }
    match known.len() {
        1 => known.into_iter().next().unwrap_or_default().parse().map_err(invalid),
        0 => {
            Err(Failure::new(Exit::Config, "no cluster is known yet: sync first, or name one with --cluster"))
        }
        _ => {
            let list = known.into_iter().collect::<Vec<_>>().join(", ");
            Err(Failure::new(
                Exit::Config,
                format!("several clusters are known ({list}): choose one with --cluster"),
            ))
        }
    }
}
