//! `pvegraph drift`: what is desired, what the clusters have, and where the two differ. It only reads.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use clap::Args;
use pve_client::PveClient;
use pvegraph_graph::Rows;
use pvegraph_inventory::ClusterId;
use pvegraph_reconcile::desired::{Desired, Problem, from_document};
use pvegraph_reconcile::diff::{self, Class, GuestDiff};
use pvegraph_reconcile::document::{self, Document, Form};
use pvegraph_reconcile::live::{self, Live, LiveError};
use serde_json::{Value, json};

use super::Global;
use super::sync::api_code;
use crate::config::Settings;
use crate::connect;
use crate::exit::{Exit, Failure};
use crate::render::Report;

/// Options of `drift`.
#[derive(Debug, Args)]
#[command(after_help = "\
Ends with 5 where something differs, with 3 where nothing does and not all could be read. A token that may read is enough \
(PVEAuditor).

Examples:
  pvegraph drift --file estate.json
  pvegraph drift --cluster rig --file estate.toml -o json")]
pub struct Drift {
    /// The document with the desired state, JSON or TOML
    #[arg(long, value_name = "FILE")]
    file: PathBuf,

    /// Only the cluster of this name
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
}

impl Drift {
    /// Runs the command.
    ///
    /// # Errors
    /// The configuration or the document is not valid, or a cluster can't be read.
    pub fn run(self, global: &Global) -> Result<Exit, Failure> {
        let settings = global.settings()?;
        let document = read_document(&self.file)?;
        connect::block_on(async {
            let (id, client) = one_cluster(&settings, self.cluster.as_deref()).await?;
            let desired = desired_of(&self.file, &document, &id)?;
            let found = compare(&client, &desired).await?;
            global.print(&found.report(&desired))?;
            Ok(found.exit())
        })
    }
}

/// Reads a document from a file; its ending tells the form.
///
/// # Errors
/// It can't be read, or is no document.
pub fn read_document(path: &Path) -> Result<Document, Failure> {
    let invalid = |error: String| Failure::new(Exit::Config, format!("{}: {error}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| invalid(error.to_string()))?;
    let toml = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("toml"));
    document::read(&text, if toml { Form::Toml } else { Form::Json })
        .map_err(|error| invalid(error.to_string()))
}

/// The desired state of a document, or all its problems.
///
/// # Errors
/// It has problems.
pub fn desired_of(path: &Path, document: &Document, id: &ClusterId) -> Result<Desired, Failure> {
    from_document(document, id).map_err(|problems| refused(&path.display().to_string(), &problems))
}

/// The failure that tells every problem, one on each line.
pub fn refused(subject: &str, problems: &[Problem]) -> Failure {
    let lines: Vec<String> = problems.iter().map(|problem| format!("  {problem}")).collect();
    Failure::new(
        Exit::Config,
        format!("{subject} is refused, and nothing was changed:\n{}", lines.join("\n")),
    )
}

/// The one configured cluster that is meant, with its identifier.
///
/// # Errors
/// There are several, or it does not answer.
pub async fn one_cluster(settings: &Settings, name: Option<&str>) -> Result<(ClusterId, PveClient), Failure> {
    let clusters = settings.selected(name)?;
    let [cluster] = clusters.as_slice() else {
        let names: Vec<String> = clusters.iter().map(|cluster| cluster.label()).collect();
        let text = format!(
            "a document is about one cluster, and there are {}: choose one with --cluster",
            names.join(", ")
        );
        return Err(Failure::new(Exit::Config, text));
    };
    let client = connect::client(settings, cluster)?;
    let id = match &cluster.name {
        Some(name) => name
            .parse()
            .map_err(|error: pvegraph_inventory::InvalidClusterId| Failure::new(Exit::Config, error))?,
        None => live::cluster_id(&client).await?,
    };
    Ok((id, client))
}

impl From<LiveError> for Failure {
    fn from(error: LiveError) -> Self {
        let exit = match &error {
            LiveError::Api(error) => api_code(error),
            LiveError::Unnamed(_) | LiveError::BadName(_) => Exit::Config,
            LiveError::Odd(_) => Exit::Failed,
        };
        Self::new(exit, error)
    }
}

/// What a comparison gave.
#[derive(Debug, Default)]
pub struct Found {
    /// What differs, guest by guest; guests that are as desired are there too.
    pub diffs: Vec<GuestDiff>,
    /// Guests that could not be compared, and why.
    pub unread: BTreeMap<String, String>,
    /// Guests of the cluster that nobody desires.
    pub unmanaged: usize,
}

/// Reads a cluster and compares it.
///
/// # Errors
/// The cluster can't be read.
pub async fn compare(client: &PveClient, desired: &Desired) -> Result<Found, Failure> {
    let wanted: BTreeSet<i64> = desired.guests.values().filter_map(|guest| guest.vmid).collect();
    let live = live::read(client, Some(&wanted)).await?;
    let mut found = Found { unmanaged: live.listed.difference(&wanted).count(), ..Found::default() };
    for guest in desired.guests.values() {
        match guest_diff(client, guest, &live).await {
            Ok(diff) => found.diffs.push(diff),
            Err(reason) => drop(found.unread.insert(guest.label(), reason)),
        }
    }
    Ok(found)
}

async fn guest_diff(
    client: &PveClient,
    guest: &pvegraph_reconcile::desired::Guest,
    live: &Live,
) -> Result<GuestDiff, String> {
    let Some(vmid) = guest.vmid else { return Ok(diff::missing(guest)) };
    if let Some(reason) = live.unread.get(&vmid) {
        return Err(reason.clone());
    }
    let Some(has) = live.guests.get(&vmid) else {
        return if live.would_see(vmid) {
            Ok(diff::missing(guest))
        } else {
            Err(format!("the token has no VM.Audit on /vms/{vmid}: whether the guest is there is not known"))
        };
    };
    let without = diff::diff(guest, has, &BTreeMap::new(), live.style);
    if without.noop() {
        return Ok(without);
    }
    // What waits for a restart only classifies what differs; without it all of it is drift.
    match live::pending(client, has).await {
        Ok(pending) => Ok(diff::diff(guest, has, &pending, live.style)),
        Err(error) => {
            tracing::warn!(guest = vmid, %error, "pending changes could not be read");
            Ok(without)
        }
    }
}

impl Found {
    /// Something differs.
    pub fn differs(&self) -> bool {
        self.diffs.iter().any(|diff| !diff.noop())
    }

    /// The exit code.
    pub fn exit(&self) -> Exit {
        if self.differs() {
            Exit::Drift
        } else if !self.unread.is_empty() {
            Exit::Partial
        } else {
            Exit::Success
        }
    }

    /// One row for each field that differs.
    pub fn report(&self, desired: &Desired) -> Report {
        let columns = ["uid", "vmid", "field", "live", "desired", "class"];
        let mut rows = Vec::new();
        for diff in &self.diffs {
            for change in &diff.changes {
                rows.push(vec![
                    json!(diff.uid),
                    json!(diff.vmid),
                    json!(change.field),
                    json!(change.old),
                    json!(change.new),
                    json!(change.class.to_string()),
                ]);
                if let Class::Impossible(why) = &change.class {
                    tracing::warn!("{}: `{}`: {why}", diff.uid, change.field);
                }
            }
        }
        for (guest, reason) in &self.unread {
            tracing::warn!("{guest} was not compared: {reason}");
        }
        let not_managed = not_managed(desired);
        for place in &not_managed {
            tracing::info!("{place}: stored, not managed yet");
        }
        let unread: Vec<Value> =
            self.unread.iter().map(|(guest, reason)| json!({ "guest": guest, "reason": reason })).collect();
        Report::new(Rows { columns: columns.map(str::to_owned).to_vec(), rows })
            .with_extra("cluster_id", desired.cluster.as_str())
            .with_extra("guests", self.diffs.len())
            .with_extra("complete", self.unread.is_empty())
            .with_extra("not_compared", unread)
            .with_extra("not_managed_yet", not_managed)
            .with_extra("unmanaged_guests", self.unmanaged)
    }
}

/// What is stored and not managed yet: `storage/nfs-backup`, `web.ha`.
pub fn not_managed(desired: &Desired) -> Vec<String> {
    let sections = desired.sections.keys().map(|(section, name)| format!("{}/{name}", section.as_str()));
    let of_guests = desired
        .guests
        .values()
        .flat_map(|guest| guest.not_managed.keys().map(move |key| format!("{}.{key}", guest.uid)));
    sections.chain(of_guests).collect()
}
