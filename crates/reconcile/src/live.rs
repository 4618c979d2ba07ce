//! What a cluster has: guests with their configurations, read for comparing. Read-only.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, stream};
use pve_client::answers::{GuestResource, Permissions, Resource};
use pve_client::{ApiError, ApiPath, PveClient};
use pvegraph_inventory::{ClusterId, GuestType, InvalidClusterId, build};
use serde_json::{Map, Value};

use crate::canonical::{Canonical, TagStyle, canonical, is_disk};
use crate::marker;
use crate::plan::Migration;

/// Configurations that are asked for at once; the client's own limits decide when they go out.
const AT_ONCE: usize = 64;

/// A guest as it is.
#[derive(Debug, Clone, PartialEq)]
pub struct LiveGuest {
    /// Its number.
    pub vmid: i64,
    /// Machine or container.
    pub kind: GuestType,
    /// The node that it is on.
    pub node: String,
    /// `running`, `stopped` or `unknown`.
    pub status: String,
    /// Its pool.
    pub pool: Option<String>,
    /// The state that high availability keeps it in, where that manages it.
    pub ha: Option<String>,
    /// Its options by name, in PVE's own spelling: what is in force, without pending changes.
    pub config: BTreeMap<String, String>,
}

impl LiveGuest {
    /// A guest with the configuration that PVE answered.
    pub fn new(kind: GuestType, row: &GuestResource, config: &Map<String, Value>) -> Self {
        Self {
            vmid: i64::from(row.vmid.get()),
            kind,
            node: row.node.clone(),
            status: row.status.clone().unwrap_or_else(|| "unknown".to_owned()),
            pool: row.pool.clone(),
            ha: row.hastate.clone().filter(|state| state != "ignored"),
            config: texts(config),
        }
    }

    /// An option in canonical form, as it is compared: a volume also by its storage and format, tags and description without
    /// the marker.
    pub fn option(&self, key: &str, style: TagStyle) -> Option<Canonical> {
        let text = self.config.get(key)?;
        if key == "description" && marker::trailer_of(text).is_some() {
            let own = marker::without_trailer(text);
            return (!own.is_empty()).then(|| canonical(self.kind, key, own, style));
        }
        let value = canonical(self.kind, key, text, style);
        Some(match value {
            Canonical::Set(mut tags, by) if key == "tags" => {
                if tags.remove(marker::TAG) && tags.is_empty() {
                    return None;
                }
                Canonical::Set(tags, by)
            }
            Canonical::Map(map) if is_disk(self.kind, key) => Canonical::Map(with_storage(map)),
            value => value,
        })
    }

    /// What it is called.
    pub fn name(&self) -> Option<&str> {
        let key = match self.kind {
            GuestType::Qemu => "name",
            GuestType::Lxc => "hostname",
        };
        self.config.get(key).map(String::as_str)
    }

    /// Has it the marker of this desired guest?
    pub fn is_marked(&self, cluster: &ClusterId, uid: &str) -> bool {
        let tags = self.config.get("tags").map(String::as_str).unwrap_or_default();
        tags.split([';', ',', ' ']).any(|tag| tag == marker::TAG) && self.is_signed(cluster, uid)
    }

    /// Has it the marker's last line of the description?
    pub fn is_signed(&self, cluster: &ClusterId, uid: &str) -> bool {
        let description = self.config.get("description").map(String::as_str).unwrap_or_default();
        marker::trailer_of(description) == Some(&*marker::trailer(cluster, uid))
    }

    /// What tells it from another guest of its number: a machine's SMBIOS UUID, a container's root volume.
    pub fn fingerprint(&self) -> Option<String> {
        let (key, sub) = match self.kind {
            GuestType::Qemu => ("smbios1", "uuid"),
            GuestType::Lxc => ("rootfs", "volume"),
        };
        match canonical(self.kind, key, self.config.get(key)?, TagStyle::default()) {
            Canonical::Map(map) => map.get(sub).map(ToString::to_string),
            _ => None,
        }
    }
}

/// A configuration's options as texts.
pub fn texts(config: &Map<String, Value>) -> BTreeMap<String, String> {
    let present = config.iter().filter(|(_, value)| !value.is_null());
    present.map(|(key, value)| (key.clone(), text(value))).collect()
}

/// A scalar of PVE's JSON as its configuration file spells it.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Bool(yes) => if *yes { "1" } else { "0" }.to_owned(),
        other => other.to_string(),
    }
}

/// Adds what the volume's name says. A cloud-init image is known by its kind, not by its name.
pub(crate) fn with_storage(mut map: BTreeMap<String, Canonical>) -> BTreeMap<String, Canonical> {
    let Some(Canonical::Text(text)) = map.get("volume").cloned() else { return map };
    let Ok(volume) = text.parse::<pve_client::property::Volume>() else { return map };
    let Some(storage) = volume.storage().map(str::to_owned) else { return map };
    if volume.is_cloud_init() {
        map.insert("volume".to_owned(), Canonical::Text(format!("{storage}:cloudinit")));
    }
    let ending = text.rsplit_once('.').map(|(_, ending)| ending);
    if let Some(format) = ending.filter(|ending| matches!(*ending, "raw" | "qcow2" | "vmdk" | "subvol")) {
        map.entry("format".to_owned()).or_insert_with(|| Canonical::Text(format.to_owned()));
    }
    map.insert("storage".to_owned(), Canonical::Text(storage));
    map
}

/// A guest as the cluster's listing has it, whether it is desired or not.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed {
    /// Machine or container.
    pub kind: GuestType,
    /// The node that it is on.
    pub node: String,
    /// Its name.
    pub name: Option<String>,
    /// `running`, `stopped` or `unknown`.
    pub status: String,
    /// Memory in bytes.
    pub memory: Option<u64>,
    /// Processors.
    pub cores: Option<f64>,
    /// It is a template.
    pub template: bool,
    /// Its pool.
    pub pool: Option<String>,
}

/// A node as the cluster's listing has it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LiveNode {
    /// Whether it is online.
    pub online: bool,
    /// Memory in bytes; nothing where the token may not see it.
    pub memory: Option<u64>,
    /// Processors, likewise.
    pub cores: Option<u64>,
}

impl Listed {
    fn new(kind: GuestType, row: &GuestResource) -> Self {
        Self {
            kind,
            node: row.node.clone(),
            name: row.name.clone(),
            status: row.status.clone().unwrap_or_else(|| "unknown".to_owned()),
            memory: row.maxmem,
            cores: row.maxcpu,
            template: row.template.unwrap_or_default(),
            pool: row.pool.clone(),
        }
    }
}

/// What was read of a cluster.
#[derive(Debug, Clone, Default)]
pub struct Live {
    /// How tags are spelled there.
    pub style: TagStyle,
    /// Guests whose configuration was read.
    pub guests: BTreeMap<i64, LiveGuest>,
    /// Guests that are there, and why their configuration could not be read.
    pub unread: BTreeMap<i64, String>,
    /// All guests of the cluster's listing, by number.
    pub listed: BTreeMap<i64, Listed>,
    /// Nodes by name.
    pub nodes: BTreeMap<String, LiveNode>,
    /// Storages by node.
    pub storages: BTreeMap<String, BTreeSet<String>>,
    /// The storages that are the same on all nodes.
    pub shared: BTreeSet<String>,
    /// Types of storages by name, where they are told.
    pub storage_types: BTreeMap<String, String>,
    permissions: Permissions,
}

impl Live {
    /// What is not listed and would be seen is not there, as far as the list of permissions tells: it leaves out paths without any right, so
    /// that a guest with `NoAccess` of its own seems to inherit. See [`sees`].
    pub fn would_see(&self, vmid: i64) -> bool {
        self.permissions.has(&format!("/vms/{vmid}"), "VM.Audit")
    }
}

/// Would the token see this guest? Asked of Proxmox VE for this very guest, whose absence is to prove something.
///
/// # Errors
/// The request's.
pub async fn sees(client: &PveClient, vmid: i64) -> Result<bool, ApiError> {
    let path = format!("/vms/{vmid}");
    Ok(client.permissions_on(&path).await?.value.has(&path, "VM.Audit"))
}

/// Why a cluster could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    /// It does not answer, or refuses.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// It has no name.
    #[error(
        "the cluster behind {0} names neither itself nor one single node: set `name` under its [[clusters]]"
    )]
    Unnamed(String),
    /// Its own name can't be an identifier.
    #[error("a cluster's own name can't be its identifier: set `name` under its [[clusters]]")]
    BadName(#[from] InvalidClusterId),
    /// A guest can't be read.
    #[error("guest {0} can't be read, so that nobody knows whether its volumes build on others: {1}")]
    Unread(i64, String),
    /// An answer is not of its form.
    #[error("cannot read the listing of {0}: entries of it were not understood, so that it proves nothing")]
    Odd(String),
}

/// The identifier of a cluster without a configured name: its own, or `standalone-<node>`.
///
/// # Errors
/// It does not answer, or does not say.
pub async fn cluster_id(client: &PveClient) -> Result<ClusterId, LiveError> {
    let rows = client.cluster_status().await?.value;
    if let Some(row) = build::cluster_row(&rows) {
        return Ok(row.name.parse()?);
    }
    let mut members = build::members(&rows);
    match (members.next(), members.next()) {
        (Some(node), None) => Ok(format!("standalone-{}", node.name).parse()?),
        _ => Err(LiveError::Unnamed(client.endpoint().to_owned())),
    }
}

/// Reads the guests of a cluster that are `wanted`, or all of them. What one guest lacks never hides the others.
///
/// # Errors
/// The cluster does not answer, or its listing was not understood.
pub async fn read(client: &PveClient, wanted: Option<&BTreeSet<i64>>) -> Result<Live, LiveError> {
    let listing = client.cluster_resources().await?;
    if listing.oddities.iter().any(|oddity| oddity.lost != pve_client::wire::Lost::Field) {
        return Err(LiveError::Odd(client.endpoint().to_owned()));
    }
    let permissions = client.permissions().await?.value;
    let mut live = Live { style: tag_style(client).await, permissions, ..Live::default() };
    let mut rows = Vec::new();
    for row in &listing.value {
        let kind = match row {
            Resource::Qemu(_) => GuestType::Qemu,
            Resource::Lxc(_) => GuestType::Lxc,
            Resource::Node(node) => {
                let online = node.status.as_deref() == Some("online");
                let row = LiveNode { online, memory: node.maxmem, cores: node.maxcpu };
                live.nodes.insert(node.node.clone(), row);
                continue;
            }
            Resource::Storage(storage) => {
                if let Some(kind) = &storage.plugintype {
                    live.storage_types.insert(storage.storage.clone(), kind.clone());
                }
                if storage.shared.unwrap_or_default() {
                    live.shared.insert(storage.storage.clone());
                }
                live.storages.entry(storage.node.clone()).or_default().insert(storage.storage.clone());
                continue;
            }
            _ => continue,
        };
        let Some(guest) = row.guest() else { continue };
        let vmid = i64::from(guest.vmid.get());
        live.listed.insert(vmid, Listed::new(kind, guest));
        if wanted.is_none_or(|wanted| wanted.contains(&vmid)) {
            rows.push((kind, guest));
        }
    }
    // What PVE answered is larger than what is kept of it, so it goes at once.
    let mut guests = stream::iter(rows)
        .map(|(kind, row)| async move {
            let config = config(client, kind, row).await;
            (i64::from(row.vmid.get()), config.map(|config| LiveGuest::new(kind, row, &config)))
        })
        .buffer_unordered(AT_ONCE);
    while let Some((vmid, guest)) = guests.next().await {
        match guest {
            Ok(guest) => drop(live.guests.insert(vmid, guest)),
            Err(reason) => drop(live.unread.insert(vmid, reason)),
        }
    }
    Ok(live)
}

fn guest_path(operation: &'static str, kind: GuestType, node: &str, vmid: i64) -> ApiPath {
    ApiPath::new(operation).node(node).fixed(kind.as_str()).segment(vmid)
}

async fn config(
    client: &PveClient,
    kind: GuestType,
    row: &GuestResource,
) -> Result<Map<String, Value>, String> {
    let path = guest_path("read guest config", kind, &row.node, i64::from(row.vmid.get()))
        .fixed("config")
        .query("current", 1);
    match client.get(&path).await {
        Ok(Value::Object(config)) => Ok(config),
        Ok(_) => Err(format!("{path}: expected an object")),
        Err(error) => Err(error.to_string()),
    }
}

/// The options of a guest that wait for a restart: the value that comes, or nothing where the option goes.
///
/// # Errors
/// The request's.
pub async fn pending(
    client: &PveClient,
    guest: &LiveGuest,
) -> Result<BTreeMap<String, Option<String>>, ApiError> {
    let path = guest_path("read pending changes", guest.kind, &guest.node, guest.vmid).fixed("pending");
    let answer = client.get(&path).await?;
    let rows = answer.as_array().map(Vec::as_slice).unwrap_or_default();
    Ok(rows
        .iter()
        .filter_map(|row| {
            let key = row.get("key")?.as_str()?.to_owned();
            match row.get("pending") {
                Some(value) => Some((key, Some(text(value)))),
                None => row.get("delete").map(|_| (key, None)),
            }
        })
        .collect())
}

/// The bridges of a node.
///
/// # Errors
/// The request's.
pub async fn bridges(client: &PveClient, node: &str) -> Result<BTreeSet<String>, ApiError> {
    let path = ApiPath::new("list bridges").node(node).fixed("network").query("type", "any_bridge");
    let answer = client.get(&path).await?;
    let rows = answer.as_array().map(Vec::as_slice).unwrap_or_default();
    Ok(rows.iter().filter_map(|row| row.get("iface")?.as_str().map(str::to_owned)).collect())
}

/// A snapshot that a guest has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Its name.
    pub name: String,
    /// When it was taken, in epoch seconds.
    pub time: Option<i64>,
    /// It holds the machine's memory.
    pub with_memory: bool,
}

/// The snapshots of a guest, the oldest first.
///
/// # Errors
/// The request's.
pub async fn snapshots(client: &PveClient, guest: &LiveGuest) -> Result<Vec<Snapshot>, ApiError> {
    let path = guest_path("list snapshots", guest.kind, &guest.node, guest.vmid).fixed("snapshot");
    let answer = client.get(&path).await?;
    let rows = answer.as_array().map(Vec::as_slice).unwrap_or_default();
    let mut all: Vec<Snapshot> = rows
        .iter()
        .filter_map(|row| {
            let name = row.get("name")?.as_str().filter(|name| *name != "current")?.to_owned();
            let with_memory = row.get("vmstate").is_some_and(|value| text(value) == "1");
            Some(Snapshot { name, time: row.get("snaptime").and_then(Value::as_i64), with_memory })
        })
        .collect();
    all.sort_by(|a, b| (a.time, &a.name).cmp(&(b.time, &b.name)));
    Ok(all)
}

/// The volumes that a guest's snapshots are of.
///
/// # Errors
/// The request's.
pub async fn snapshotted(client: &PveClient, guest: &LiveGuest) -> Result<BTreeSet<String>, ApiError> {
    let mut all = BTreeSet::new();
    for taken in snapshots(client, guest).await? {
        let Some(config) = snapshot(client, guest, &taken.name).await? else { continue };
        let then = LiveGuest { config, ..guest.clone() };
        all.extend(volumes(&then).map(str::to_owned));
    }
    Ok(all)
}

/// The options of a guest's snapshot; nothing where there is no such snapshot.
///
/// # Errors
/// The request's.
pub async fn snapshot(
    client: &PveClient,
    guest: &LiveGuest,
    name: &str,
) -> Result<Option<BTreeMap<String, String>>, ApiError> {
    let path = guest_path("read a snapshot", guest.kind, &guest.node, guest.vmid);
    match client.get(&path.fixed("snapshot").segment(name).fixed("config")).await {
        Ok(Value::Object(config)) => Ok(Some(texts(&config))),
        Ok(_) => Ok(None),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// The templates of containers that a node has on a storage, by volume.
///
/// # Errors
/// The request's.
pub async fn templates(client: &PveClient, node: &str, storage: &str) -> Result<BTreeSet<String>, ApiError> {
    let path = ApiPath::new("list templates").node(node).fixed("storage").segment(storage);
    let answer = client.get(&path.fixed("content").query("content", "vztmpl")).await?;
    let rows = answer.as_array().map(Vec::as_slice).unwrap_or_default();
    Ok(rows.iter().filter_map(|row| row.get("volid")?.as_str().map(str::to_owned)).collect())
}

/// What Proxmox VE says of a machine's migration, to the `target` where that is decided; it says nothing of containers (PVE 8).
///
/// # Errors
/// The request's.
pub async fn migration(
    client: &PveClient,
    guest: &LiveGuest,
    target: Option<&str>,
) -> Result<Option<Migration>, ApiError> {
    if guest.kind == GuestType::Lxc {
        return Ok(None);
    }
    let path = guest_path("read migration preconditions", guest.kind, &guest.node, guest.vmid);
    let path = path.fixed("migrate");
    let path = match target {
        Some(target) => path.query("target", target),
        None => path,
    };
    let answer = client.get(&path).await?;
    let list = |key: &str| answer.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let is = |row: &Value, key: &str| row.get(key).is_some_and(|value| text(value) == "1");
    let words = |rows: &[Value]| -> Vec<String> { rows.iter().map(text).collect() };
    // A cloud-init image is made anew where the guest goes.
    let image = format!("vm-{}-cloudinit", guest.vmid);
    let generated =
        |row: &&Value| row.get("volid").and_then(Value::as_str).is_some_and(|volume| volume.contains(&image));
    let (media, disks): (Vec<&Value>, Vec<&Value>) =
        list("local_disks").iter().filter(|row| !generated(row)).partition(|row| is(row, "cdrom"));
    let mut ties = words(list("local_resources"));
    ties.extend(media.iter().filter_map(|row| row.get("volid")?.as_str().map(str::to_owned)));
    let allowed = answer.get("allowed_nodes").map(|_| words(list("allowed_nodes")).into_iter().collect());
    let carries = words(list("dependent-ha-resources"));
    Ok(Some(Migration { allowed, local_disks: !disks.is_empty(), ties, carries }))
}

/// How the datacenter spells tags. Whoever may not ask gets PVE's default.
async fn tag_style(client: &PveClient) -> TagStyle {
    let path = ApiPath::new("read datacenter options").fixed("/cluster/options");
    let options = client.get(&path).await.unwrap_or_default();
    let case_sensitive = match options.get("tag-style") {
        Some(Value::Object(style)) => {
            style.get("case-sensitive").is_some_and(|value| matches!(text(value).as_str(), "1" | "true"))
        }
        Some(Value::String(style)) => style.split(',').any(|part| part == "case-sensitive=1"),
        _ => false,
    };
    TagStyle { case_sensitive }
}

/// Whether the cluster can be written to; a standalone node always can.
///
/// # Errors
/// The request's.
pub async fn quorate(client: &PveClient) -> Result<bool, ApiError> {
    let rows = client.cluster_status().await?.value;
    Ok(build::cluster_row(&rows).is_none_or(|row| row.quorate == Some(true)))
}

/// The guest that has a number, anywhere in the cluster, as its listing says now.
///
/// # Errors
/// The cluster does not answer, or its listing was not understood, so that it proves nothing.
pub async fn holder(client: &PveClient, vmid: i64) -> Result<Option<Listed>, LiveError> {
    let listing = client.cluster_resources().await?;
    if listing.oddities.iter().any(|oddity| oddity.lost != pve_client::wire::Lost::Field) {
        return Err(LiveError::Odd(client.endpoint().to_owned()));
    }
    Ok(listing.value.iter().find_map(|row| {
        let kind = match row {
            Resource::Qemu(_) => GuestType::Qemu,
            Resource::Lxc(_) => GuestType::Lxc,
            _ => return None,
        };
        let guest = row.guest().filter(|guest| i64::from(guest.vmid.get()) == vmid)?;
        Some(Listed::new(kind, guest))
    }))
}

/// The numbers of the guests that replication copies, as far as the user may see them.
///
/// # Errors
/// The request's.
pub async fn replicated(client: &PveClient) -> Result<BTreeSet<i64>, ApiError> {
    let answer = client.get(&ApiPath::new("list replication jobs").fixed("/cluster/replication")).await?;
    let rows = answer.as_array().map(Vec::as_slice).unwrap_or_default();
    // A job is named by its guest: `100-0`.
    let of = |row: &Value| row.get("id")?.as_str()?.split('-').next()?.parse().ok();
    Ok(rows.iter().filter_map(of).collect())
}

/// Can linked clones build on its volumes?
pub fn is_base(guest: &LiveGuest) -> bool {
    guest.config.get("template").is_some_and(|value| value == "1")
        || volumes(guest).any(|name| name.contains("base-"))
}

/// The volumes that its configuration names.
pub fn volumes(guest: &LiveGuest) -> impl Iterator<Item = &str> {
    let own = |(key, _): &(&String, &String)| is_disk(guest.kind, key) || key.starts_with("unused");
    guest.config.iter().filter(own).filter_map(|(_, text)| volume(text))
}

/// The volume that a drive's property string names; a medium in a drive is none.
pub fn volume(text: &str) -> Option<&str> {
    let first = text.split(',').next()?;
    let first = first.strip_prefix("file=").or_else(|| first.strip_prefix("volume=")).unwrap_or(first);
    (first.contains(':') && !text.contains("media=cdrom")).then_some(first)
}

/// The guests whose volumes build on this one's.
///
/// # Errors
/// The cluster can't be read, or one of its guests can't.
pub async fn linked_clones(client: &PveClient, guest: &LiveGuest) -> Result<Vec<i64>, LiveError> {
    let mut all = read(client, None).await?;
    // A guest that was deleted, or went to another node, after it was listed is not where it was looked for: it is listed once more.
    if !all.unread.is_empty() {
        let again = read(client, Some(&all.unread.keys().copied().collect())).await?;
        all.guests.extend(again.guests);
        all.unread = again.unread;
    }
    if let Some((vmid, why)) = all.unread.iter().next() {
        return Err(LiveError::Unread(*vmid, why.clone()));
    }
    let bases: Vec<String> = volumes(guest).map(|volume| format!("{volume}/")).collect();
    let builds = |other: &&LiveGuest| {
        other.vmid != guest.vmid
            && volumes(other).any(|volume| bases.iter().any(|base| volume.starts_with(base)))
    };
    Ok(all.guests.values().filter(builds).map(|other| other.vmid).collect())
}
