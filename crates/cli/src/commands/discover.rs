//! `pvegraph discover`: what a cluster has, as the declarative document.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use pvegraph_graph::Rows;
use pvegraph_inventory::InvalidClusterId;
use pvegraph_reconcile::desired::{Desired, to_document};
use pvegraph_reconcile::discover::{Omit, discovered};
use pvegraph_reconcile::document::Document;
use pvegraph_reconcile::recorded::{self, Recorded};
use pvegraph_reconcile::{live, surroundings};
use serde_json::json;

use super::Global;
use super::drift::one_cluster;
use crate::config::Settings;
use crate::connect::{self, Access};
use crate::exit::{Exit, Failure};
use crate::render::Report;

/// Options of `discover`.
#[derive(Debug, Args)]
#[command(after_help = "\
The document holds no passwords: Proxmox VE does not tell them. It does hold descriptions, which may hold secrets; \
leave them out with --without-texts.

Examples:
  pvegraph discover --export --to estate.json
  pvegraph discover --export --from-graph --to estate.json
  pvegraph discover --cluster rig")]
pub struct Discover {
    /// Write the document; without it, only list what it would hold
    #[arg(long)]
    export: bool,

    /// Write it to this file instead of standard output
    #[arg(long, value_name = "FILE", requires = "export")]
    to: Option<PathBuf>,

    /// Take what the last sync recorded in the graph, and ask no cluster: for one that is lost
    ///
    /// The graph has the guests' names, processors, memory, tags, volumes and interfaces, and none of their other options.
    #[arg(long)]
    from_graph: bool,

    /// Leave out descriptions and `args`
    #[arg(long)]
    without_texts: bool,

    /// The cluster of this name
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
}

/// What was found: the document, what it lacks, and the guests that could not be read.
struct Found {
    desired: Desired,
    document: Document,
    left_out: Vec<String>,
    unread: BTreeMap<i64, String>,
}

impl Discover {
    /// Runs the command.
    ///
    /// # Errors
    /// The configuration is not valid, the cluster or the graph can't be read, or the file can't be written.
    pub fn run(self, global: &Global) -> Result<Exit, Failure> {
        let settings = global.settings()?;
        connect::block_on(async {
            let Found { desired, mut document, left_out, unread } =
                if self.from_graph { self.recorded(&settings).await? } else { self.asked(&settings).await? };
            // The name that the document is imported under.
            document.plugins.proxmox.cluster.get_or_insert_default().name = Some(desired.cluster.to_string());
            for text in &left_out {
                tracing::warn!("left out: {text}");
            }
            for (vmid, reason) in &unread {
                tracing::warn!("guest {vmid} is left out: {reason}");
            }
            if self.export {
                let text = serde_json::to_string_pretty(&document).map_err(Failure::failed)?;
                write(self.to.as_deref(), &text)?;
            } else {
                let columns = ["uid", "vmid", "type", "node", "options"].map(str::to_owned).to_vec();
                let rows = desired
                    .guests
                    .values()
                    .map(|guest| {
                        let (uid, vmid, kind) =
                            (json!(guest.uid), json!(guest.vmid), json!(guest.kind.as_str()));
                        vec![uid, vmid, kind, json!(guest.node), json!(guest.fields.len())]
                    })
                    .collect();
                global.print(&Report::new(Rows { columns, rows }).with_extra("left_out", left_out))?;
            }
            Ok(if unread.is_empty() { Exit::Success } else { Exit::Partial })
        })
    }

    fn omit(&self) -> Omit {
        Omit { free_text: self.without_texts, placement: false }
    }

    /// What the cluster has.
    async fn asked(&self, settings: &Settings) -> Result<Found, Failure> {
        let (id, client) = one_cluster(settings, self.cluster.as_deref()).await?;
        let live = live::read(&client, None).await?;
        let (desired, mut left_out) = discovered(&id, &live.guests, self.omit());
        let mut document = to_document(&desired);
        left_out.extend(surroundings::enter(&client, &mut document.plugins.proxmox).await);
        Ok(Found { desired, document, left_out, unread: live.unread })
    }

    /// What the graph has of it. The cluster is not asked.
    async fn recorded(&self, settings: &Settings) -> Result<Found, Failure> {
        let given = self.cluster.as_deref().map(str::parse).transpose();
        let given = given.map_err(|error: InvalidClusterId| Failure::new(Exit::Config, error))?;
        let store = connect::store(settings, Access::Read).await?;
        let id = super::desired::cluster(&*store, settings, given, None).await?;
        let Recorded { guests, lacking, unread } = recorded::read(&*store, &id).await?;
        if guests.is_empty() && unread.is_empty() {
            let text =
                format!("the graph has no guests of {id}: sync it first, or name another with --cluster");
            return Err(Failure::new(Exit::Config, text));
        }
        let (desired, left_out) = discovered(&id, &guests, self.omit());
        let left_out = lacking.into_iter().chain(left_out).collect();
        Ok(Found { document: to_document(&desired), desired, left_out, unread })
    }
}

/// A file for its owner alone: descriptions may hold what is nobody else's business. One that is there keeps its rights.
fn private(path: &Path) -> std::io::Result<std::fs::File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

/// Writes a document to a file of its owner's, or to standard output.
///
/// # Errors
/// It can't be written.
pub fn write(to: Option<&Path>, text: &str) -> Result<(), Failure> {
    match to {
        Some(path) => private(path)
            .and_then(|mut file| writeln!(file, "{text}"))
            .map_err(|error| Failure::failed(format!("{} can't be written: {error}", path.display()))),
        None => match writeln!(std::io::stdout(), "{text}") {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            written => Ok(written?),
        },
    }
}
