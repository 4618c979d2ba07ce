//! Guests as the last sync recorded them in the graph, in the words of their configuration: all that is left of a cluster that
//! can't be asked any more.

use std::collections::BTreeMap;

use pve_client::Size;
use pvegraph_graph::{Rows, Statement, Store, StoreError};
use pvegraph_inventory::{ClusterId, GuestType};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::live::LiveGuest;

/// What the graph has of a cluster's guests.
#[derive(Debug, Default)]
pub struct Recorded {
    /// Guests by number, with those of their options that the graph has.
    pub guests: BTreeMap<i64, LiveGuest>,
    /// What it lacks, and what has to be written by hand before a guest can be made of it.
    pub lacking: Vec<String>,
    /// Guests whose configuration no sync has read, by number.
    pub unread: BTreeMap<i64, String>,
}

#[derive(Deserialize)]
struct Guest {
    vmid: i64,
    kind: String,
    name: Option<String>,
    node: String,
    status: String,
    template: Option<bool>,
    cpu_cores: Option<i64>,
    cpu_sockets: Option<i64>,
    memory: Option<u64>,
    tags: Option<Vec<String>>,
    pool: Option<String>,
    onboot: Option<bool>,
    os_type: Option<String>,
    smbios_uuid: Option<String>,
    node_cpus: Option<i64>,
}

#[derive(Deserialize)]
struct Disk {
    vmid: i64,
    disk_id: String,
    kind: String,
    volume: String,
    size: Option<u64>,
    backup: bool,
    cache: Option<String>,
}

#[derive(Deserialize)]
struct Nic {
    vmid: i64,
    net_id: String,
    bridge: Option<String>,
    mac: Option<String>,
    model: Option<String>,
    firewall: bool,
    vlan_tag: Option<i64>,
}

/// Reads a cluster's guests from the graph.
///
/// # Errors
/// The store's.
pub async fn read(store: &dyn Store, cluster: &ClusterId) -> Result<Recorded, StoreError> {
    let of = |text: &str| store.read(Statement::new(text.to_owned()).with("cluster_id", cluster.as_str()));
    let guests = of(
        "MATCH (v:ProxmoxVM)\nWHERE v.cluster_id = $cluster_id\nOPTIONAL MATCH (n:ProxmoxNode)-[:HOSTS_VM]->(v)\n\
         RETURN v.vmid AS vmid, v.type AS kind, v.name AS name, v.node AS node, v.status AS status, v.template AS template,\n\
         v.cpu_cores AS cpu_cores, v.cpu_sockets AS cpu_sockets, v.memory AS memory, v.tags AS tags, v.pool AS pool,\n\
         v.onboot AS onboot, v.os_type AS os_type, v.smbios_uuid AS smbios_uuid, n.cpu_count AS node_cpus",
    )
    .await?;
    let disks = of("MATCH (d:ProxmoxDisk)\nWHERE d.cluster_id = $cluster_id AND d.attached = true\n\
         RETURN d.vmid AS vmid, d.disk_id AS disk_id, d.kind AS kind, d.volume AS volume, d.size AS size, d.backup AS backup, d.cache AS cache")
    .await?;
    let nics = of("MATCH (i:ProxmoxNetworkInterface)\nWHERE i.cluster_id = $cluster_id\n\
         RETURN i.vmid AS vmid, i.net_id AS net_id, i.bridge AS bridge, i.mac_address AS mac, i.model AS model,\n\
         i.firewall AS firewall, i.vlan_tag AS vlan_tag")
    .await?;

    let mut recorded = Recorded::default();
    for guest in each::<Guest>(guests) {
        let vmid = guest.vmid;
        match guest.told(&mut recorded.lacking) {
            Some(guest) => drop(recorded.guests.insert(vmid, guest)),
            None => {
                let text = "no sync has read its configuration yet: sync with a token that may see it";
                recorded.unread.insert(vmid, text.to_owned());
            }
        }
    }
    let Recorded { guests, lacking, .. } = &mut recorded;
    for disk in each::<Disk>(disks) {
        let Some(guest) = guests.get_mut(&disk.vmid) else { continue };
        if disk.kind == "mount" {
            let at =
                format!("guest {}: `{}`: where it is mounted is not in the graph", disk.vmid, disk.disk_id);
            lacking.push(at);
            continue;
        }
        let value = disk.told(guest.kind);
        guest.config.insert(disk.disk_id, value);
    }
    for nic in each::<Nic>(nics) {
        let Some(guest) = guests.get_mut(&nic.vmid) else { continue };
        if guest.kind == GuestType::Lxc {
            let at =
                format!("guest {}: `{}.name` is not in the graph, nor is its `ip`", nic.vmid, nic.net_id);
            lacking.push(at);
        }
        let value = nic.told(guest.kind);
        guest.config.insert(nic.net_id, value);
    }
    if guests.values().any(|guest| guest.kind == GuestType::Qemu) {
        lacking.push(
            "machines: CD-ROM drives, cloud-init, `bios`, `machine`, `scsihw`, `cpu` and all other options are not in the graph".to_owned(),
        );
    }
    lacking.sort();
    Ok(recorded)
}

/// The rows as values; what somebody changed by hand so that it is none is passed over.
fn each<T: DeserializeOwned>(rows: Rows) -> impl Iterator<Item = T> {
    let Rows { columns, rows } = rows;
    rows.into_iter().filter_map(move |row| {
        let object: Map<String, Value> = columns.iter().cloned().zip(row).collect();
        serde_json::from_value(Value::Object(object))
            .inspect_err(|error| tracing::warn!("a row of the graph is not as a sync writes it: {error}"))
            .ok()
    })
}

impl Guest {
    /// The guest with its own options; nothing where its configuration was never read.
    fn told(self, lacking: &mut Vec<String>) -> Option<LiveGuest> {
        let kind = match self.kind.as_str() {
            "lxc" => GuestType::Lxc,
            _ => GuestType::Qemu,
        };
        let lxc = kind == GuestType::Lxc;
        let memory = self.memory?;
        let cores = self.cpu_cores?;
        if lxc {
            lacking.push(format!(
                "guest {}: `unprivileged` is not in the graph: made anew without it the container is privileged, for good",
                self.vmid
            ));
        }
        let mut config = BTreeMap::new();
        let mut set = |key: &str, value: Option<String>| {
            if let Some(value) = value {
                config.insert(key.to_owned(), value);
            }
        };
        // PVE's listing makes up a name for a guest that has none.
        let made_up = ["VM ", "CT", "CT "].map(|word| format!("{word}{}", self.vmid));
        set(if lxc { "hostname" } else { "name" }, self.name.filter(|name| !made_up.contains(name)));
        set("memory", Some((memory >> 20).to_string()));
        // A container without a limit of its own is recorded with its node's processors.
        if lxc && self.node_cpus.is_none_or(|all| cores >= all) {
            lacking.push(format!("guest {}: whether `cores` limits it is not in the graph", self.vmid));
        } else {
            set("cores", Some(cores.to_string()));
        }
        set("sockets", self.cpu_sockets.map(|sockets| sockets.to_string()));
        set("tags", self.tags.filter(|tags| !tags.is_empty()).map(|tags| tags.join(";")));
        set("onboot", self.onboot.filter(|on| *on).map(|_| "1".to_owned()));
        set("template", self.template.filter(|is| *is).map(|_| "1".to_owned()));
        set("ostype", self.os_type);
        set("smbios1", self.smbios_uuid.map(|uuid| format!("uuid={uuid}")));
        Some(LiveGuest {
            vmid: self.vmid,
            kind,
            node: self.node,
            status: self.status,
            pool: self.pool,
            ha: None,
            config,
        })
    }
}

impl Disk {
    fn told(&self, guest: GuestType) -> String {
        let mut value = self.volume.clone();
        if let Some(size) = self.size {
            value.push_str(&format!(",size={}", Size::from_bytes(size)));
        }
        // A container's root volume is always in a backup.
        if guest == GuestType::Qemu {
            if !self.backup {
                value.push_str(",backup=0");
            }
            if let Some(cache) = self.cache.as_deref().filter(|cache| *cache != "none") {
                value.push_str(&format!(",cache={cache}"));
            }
        }
        value
    }
}

impl Nic {
    fn told(&self, guest: GuestType) -> String {
        let mut parts = Vec::new();
        match guest {
            GuestType::Qemu => {
                let model = self.model.as_deref().unwrap_or("virtio");
                parts
                    .push(self.mac.as_ref().map_or_else(|| model.to_owned(), |mac| format!("{model}={mac}")));
            }
            GuestType::Lxc => {
                parts.extend(self.model.as_ref().map(|kind| format!("type={kind}")));
                parts.extend(self.mac.as_ref().map(|mac| format!("hwaddr={mac}")));
            }
        }
        parts.extend(self.bridge.as_ref().map(|bridge| format!("bridge={bridge}")));
        parts.extend(self.firewall.then(|| "firewall=1".to_owned()));
        parts.extend(self.vlan_tag.map(|tag| format!("tag={tag}")));
        parts.join(",")
    }
}
