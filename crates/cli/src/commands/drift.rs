//! `pvegraph drift`: what is desired, what the clusters have, and where the two differ. It only reads.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use clap::Args;
use pve_client::PveClient;
use pvegraph_graph::{Rows, Store};
use pvegraph_inventory::{ClusterId, InvalidClusterId};
use pvegraph_reconcile::desired::{Desired, Guest, Problem, Section, from_document};
use pvegraph_reconcile::diff::{self, Class, GuestDiff};
use pvegraph_reconcile::document::{self, Document, Form};
use pvegraph_reconcile::live::{self, Live, LiveError};
use pvegraph_reconcile::plan::Pending;
use pvegraph_reconcile::sent::Compared;
use pvegraph_reconcile::stored::{self, Binding, StoredError};
use pvegraph_sync::identity;
use serde_json::{Map, Value, json};

use super::sync::api_code;
use super::{Global, secrets};
use crate::config::{ClusterSettings, Settings};
use crate::connect::{self, Access};
use crate::exit::{Exit, Failure};
use crate::render::Report;

/// Options of `drift`.
#[derive(Debug, Args)]
#[command(after_help = "\
Ends with 5 where something differs, with 3 where nothing does and not all could be read. A token that may read is enough \
(PVEAuditor).

Examples:
  pvegraph drift
  pvegraph drift --file estate.json
  pvegraph drift --cluster rig --file estate.toml -o json")]
pub struct Drift {
    /// Compare with this document, JSON or TOML, instead of the desired state in the graph
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,

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
        let name = self.cluster.as_deref();
        let Some(file) = &self.file else { return connect::block_on(from_graph(&settings, name, global)) };
        let document = read_document(file)?;
        connect::block_on(async {
            let (id, client) = one_cluster(&settings, name).await?;
            let desired = desired_of(file, &document, &id)?;
            let found = compare(&client, &settings, &desired, &BTreeMap::new()).await?;
            global.print(&Report::new(columns(found.rows(&desired))).with_all(found.extra(&desired)))?;
            Ok(found.exit())
        })
    }
}

/// Compares every cluster that is chosen and of which the graph desires something.
async fn from_graph(settings: &Settings, name: Option<&str>, global: &Global) -> Result<Exit, Failure> {
    let store = connect::store(settings, Access::Read).await?;
    let known = stored::clusters(&*store).await?;
    let mut found = Vec::new();
    for cluster in settings.meant(name)? {
        let (id, client) = identified(settings, cluster, name).await?;
        if !known.contains(id.as_str()) {
            tracing::info!("{id}: nothing is desired");
            continue;
        }
        let stored = stored::read(&*store, &id).await?.with_numbers();
        found.push((compare(&client, settings, &stored.desired, &stored.bindings).await?, stored.desired));
    }
    if found.is_empty() {
        let text = "nothing is desired of the chosen clusters: begin with `pvegraph adopt --all`, or import a document with \
                    `pvegraph desired import FILE`";
        return Err(Failure::new(Exit::Config, text));
    }
    let rows = found.iter().flat_map(|(found, desired)| found.rows(desired)).collect();
    let all: Vec<Value> = found.iter().map(|(found, desired)| json!(found.extra(desired))).collect();
    let complete = found.iter().all(|(found, _)| found.unread.is_empty());
    global.print(&Report::new(columns(rows)).with_extra("clusters", all).with_extra("complete", complete))?;
    let exits = || found.iter().map(|(found, _)| found.exit());
    let worst = [Exit::Drift, Exit::Partial].into_iter().find(|exit| exits().any(|one| one == *exit));
    Ok(worst.unwrap_or(Exit::Success))
}

fn columns(rows: Vec<Vec<Value>>) -> Rows {
    let columns = ["cluster", "uid", "vmid", "field", "live", "desired", "class"];
    Rows { columns: columns.map(str::to_owned).to_vec(), rows }
}

impl From<StoredError> for Failure {
    fn from(error: StoredError) -> Self {
        match error {
            StoredError::Store(error) => error.into(),
            error @ StoredError::Problems(_) => Self::new(Exit::Config, error),
            error @ StoredError::Changed(_) => Self::new(Exit::Locked, error),
        }
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
    let clusters = settings.meant(name)?;
    let [cluster] = clusters.as_slice() else {
        let names: Vec<String> = clusters.iter().map(|cluster| cluster.label()).collect();
        let text = format!(
            "a document is about one cluster, and there are {}: choose one with --cluster",
            names.join(", ")
        );
        return Err(Failure::new(Exit::Config, text));
    };
    identified(settings, cluster, name).await
}

/// The same, where it is the cluster that the graph knows by this identifier: a restored copy of it has the same names and guests.
///
/// # Errors
/// Likewise, or it is another cluster, or does not prove which it is.
pub async fn proven_cluster(
    settings: &Settings,
    name: Option<&str>,
    store: &dyn Store,
) -> Result<(ClusterId, PveClient), Failure> {
    let (id, client) = one_cluster(settings, name).await?;
    identity::verify(&client, store, &id).await?;
    Ok((id, client))
}

/// A configured cluster's client, with its identifier. `asked`: the one that it has to be.
async fn identified(
    settings: &Settings,
    cluster: &ClusterSettings,
    asked: Option<&str>,
) -> Result<(ClusterId, PveClient), Failure> {
    let client = connect::client(settings, cluster)?;
    let id: ClusterId = match &cluster.name {
        Some(name) => name.parse().map_err(|error: InvalidClusterId| Failure::new(Exit::Config, error))?,
        None => live::cluster_id(&client).await?,
    };
    if let Some(asked) = asked.filter(|asked| *asked != id.as_str()) {
        let text = format!(
            "there is no cluster named {asked:?} in the configuration; the one that is there is {id}"
        );
        return Err(Failure::new(Exit::Config, text));
    }
    Ok((id, client))
}

impl From<LiveError> for Failure {
    fn from(error: LiveError) -> Self {
        let exit = match &error {
            LiveError::Api(error) => api_code(error),
            LiveError::Unnamed(_) | LiveError::BadName(_) => Exit::Config,
            LiveError::Odd(_) | LiveError::Unread(..) => Exit::Failed,
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
    /// What waits for a restart, by number, of the guests that differ.
    pub pending: BTreeMap<i64, Pending>,
    /// What came of comparing passwords.
    pub secrets: Compared,
    /// What was compared with.
    pub live: Live,
}

/// Reads a cluster and compares it.
///
/// # Errors
/// The cluster can't be read.
pub async fn compare(
    client: &PveClient,
    settings: &Settings,
    desired: &Desired,
    bindings: &BTreeMap<String, Binding>,
) -> Result<Found, Failure> {
    let wanted: BTreeSet<i64> = desired.guests.values().filter_map(|guest| guest.vmid).collect();
    // What new guests are copied from is looked at as well.
    let sources = desired.guests.values().filter_map(|guest| desired.source(guest.clone_of.as_ref()?));
    let read: BTreeSet<i64> = wanted.iter().copied().chain(sources).collect();
    let live = live::read(client, Some(&read)).await?;
    let mut found = Found {
        unmanaged: live.listed.keys().filter(|vmid| !wanted.contains(vmid)).count(),
        ..Found::default()
    };
    for guest in desired.guests.values() {
        if stored::is_done(bindings, guest) {
            found.diffs.push(GuestDiff { uid: guest.uid.clone(), vmid: guest.vmid, changes: Vec::new() });
            continue;
        }
        match guest_diff(client, &desired.cluster, guest, stored::bound_to(bindings, &guest.uid), &live).await
        {
            Ok((diff, pending)) => {
                if let (Some(vmid), Some(pending)) = (guest.vmid, pending) {
                    found.pending.insert(vmid, pending);
                }
                found.diffs.push(diff);
            }
            Err(reason) => drop(found.unread.insert(guest.label(), reason)),
        }
    }
    found.secrets = secrets::compare(settings, desired, &live, &mut found.diffs);
    for uid in &found.secrets.changed {
        let vmid = desired.guests.get(uid).and_then(|guest| guest.vmid);
        let Some(has) = vmid.and_then(|vmid| live.guests.get(&vmid)) else { continue };
        // Of guests that do not differ otherwise nothing was asked yet.
        if let Entry::Vacant(unasked) = found.pending.entry(has.vmid) {
            unasked.insert(live::pending(client, has).await.map_err(LiveError::from)?);
        }
    }
    found.live = live;
    Ok(found)
}

/// What there is to say of a guest that the token may not see.
pub fn unseen(vmid: i64) -> String {
    format!("the token has no VM.Audit on /vms/{vmid}: whether the guest is there is not known")
}

async fn guest_diff(
    client: &PveClient,
    cluster: &ClusterId,
    guest: &Guest,
    binding: Option<&Binding>,
    live: &Live,
) -> Result<(GuestDiff, Option<Pending>), String> {
    let Some(vmid) = guest.vmid else { return Ok((diff::missing(guest), None)) };
    if let Some(reason) = live.unread.get(&vmid) {
        return Err(reason.clone());
    }
    let Some(has) = live.guests.get(&vmid) else {
        let mut sees = live.would_see(vmid);
        // One that was there is asked for by itself. A new one's number is looked at by Proxmox VE when it is made.
        if sees && binding.is_some() {
            sees = live::sees(client, vmid).await.map_err(|error| error.to_string())?;
        }
        return if sees { Ok((diff::missing(guest), None)) } else { Err(unseen(vmid)) };
    };
    if let Some(bound) = binding.filter(|bound| !bound.is_of(cluster, has) && has.kind == guest.kind) {
        return Ok((diff::another(guest, bound.fingerprint.as_deref(), has.fingerprint().as_deref()), None));
    }
    let without = diff::diff(guest, has, &BTreeMap::new(), live.style);
    if without.noop() {
        return Ok((without, None));
    }
    // What waits for a restart only classifies what differs; without it all of it is drift.
    match live::pending(client, has).await {
        Ok(pending) => Ok((diff::diff(guest, has, &pending, live.style), Some(pending))),
        Err(error) => {
            tracing::warn!(guest = vmid, %error, "pending changes could not be read");
            Ok((without, None))
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

    /// One row for each field that differs. What rows can't tell is logged.
    pub fn rows(&self, desired: &Desired) -> Vec<Vec<Value>> {
        for (guest, reason) in &self.unread {
            tracing::warn!("{guest} was not compared: {reason}");
        }
        for place in not_managed(desired) {
            tracing::info!("{place}: stored, not managed yet");
        }
        let mut rows = Vec::new();
        for diff in &self.diffs {
            for change in &diff.changes {
                if let Class::Impossible(why) = &change.class {
                    tracing::warn!("{}: `{}`: {why}", diff.uid, change.field);
                }
                let (cluster, uid, vmid) =
                    (json!(desired.cluster.as_str()), json!(diff.uid), json!(diff.vmid));
                let (old, new) = (json!(change.old), json!(change.new));
                rows.push(vec![
                    cluster,
                    uid,
                    vmid,
                    json!(change.field),
                    old,
                    new,
                    json!(change.class.to_string()),
                ]);
            }
        }
        rows
    }

    /// The guests whose passwords were not compared.
    fn secrets_not_compared(&self) -> Vec<Value> {
        let never = self
            .secrets
            .never
            .iter()
            .map(|uid| json!({ "guest": uid, "reason": "never sent from this host" }));
        let unread =
            self.secrets.unread.iter().map(|one| json!({ "guest": one.subject, "reason": one.text }));
        never.chain(unread).collect()
    }

    /// The same cluster's further keys of the JSON.
    pub fn extra(&self, desired: &Desired) -> Map<String, Value> {
        let unread: Vec<Value> =
            self.unread.iter().map(|(guest, reason)| json!({ "guest": guest, "reason": reason })).collect();
        let extra = json!({
            "cluster_id": desired.cluster.as_str(),
            "guests": self.diffs.len(),
            "complete": self.unread.is_empty(),
            "not_compared": unread,
            "not_managed_yet": not_managed(desired),
            "secrets_not_compared": self.secrets_not_compared(),
            "unmanaged_guests": self.unmanaged,
        });
        extra.as_object().cloned().unwrap_or_default()
    }
}

/// What is stored and not managed yet: `storage/nfs-backup`, `web.ha`.
pub fn not_managed(desired: &Desired) -> Vec<String> {
    let sections = desired
        .sections
        .keys()
        .filter(|(section, _)| *section != Section::Templates)
        .map(|(section, name)| format!("{}/{name}", section.as_str()));
    let of_guests = desired
        .guests
        .values()
        .flat_map(|guest| guest.not_managed.keys().map(move |key| format!("{}.{key}", guest.uid)));
    sections.chain(of_guests).collect()
}
