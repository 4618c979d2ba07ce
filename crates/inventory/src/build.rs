//! From PVE's answers to the model: meaning, units and defaults. Nothing here asks for anything.

use std::collections::HashMap;

use pve_client::answers::{
    self, ClusterStatusRow, DiskBus, DiskSlot, GuestResource, IncludedVolumes, LxcConfig, LxcRow, MemberRow,
    MountSlot, NodeResource, NodeRow, NodeStorage, QemuConfig, QemuRow, StorageDefinition,
};
use pve_client::property::Volume;

use crate::model::{
    BackupJob, BackupVolume, Capacity, Disk, DiskKind, Guest, GuestConfig, GuestStatus, GuestType, Nic, Node,
    NodeStatus, Snapshot, Storage, StorageNodes, StorageOnNode, Unseen,
};

/// PVE's default memory of a guest, in MiB, machine or container (API schema 8.4).
const DEFAULT_MEMORY_MIB: u64 = 512;
/// What PVE calls a machine's disk without a cache mode.
const DEFAULT_CACHE: &str = "none";
/// A container's interface, where the configuration does not say: it has no other kind.
const CONTAINER_NIC: &str = "veth";

/// A number that the graph can hold; PVE's are far below its limit.
fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn mib(number: u64) -> i64 {
    integer(number.saturating_mul(1 << 20))
}

fn is_odd(odd: &[String], key: &str) -> bool {
    odd.iter().any(|odd| odd == key)
}

/// The properties whose keys in PVE's answer were odd.
fn unseen(odd: &[String], properties: &[(&str, &'static str)]) -> Unseen {
    properties.iter().filter(|(key, _)| is_odd(odd, key)).map(|(_, property)| *property).collect()
}

/// The properties of an odd property string that have no value: whether that is so because they are absent or because they were
/// not understood is not told apart.
fn valueless(odd: &[String], slot: &str, properties: &[(bool, &'static str)]) -> Unseen {
    if !is_odd(odd, slot) {
        return Unseen::new();
    }
    properties.iter().filter(|(has_value, _)| !has_value).map(|(_, property)| *property).collect()
}

/// What PVE calls the cluster itself, and its members; a standalone node has no such row.
pub fn cluster_row(status: &[ClusterStatusRow]) -> Option<&answers::ClusterRow> {
    status.iter().find_map(|row| match row {
        ClusterStatusRow::Cluster(cluster) => Some(cluster),
        ClusterStatusRow::Node(_) | ClusterStatusRow::Other(_) => None,
    })
}

/// The members of a cluster, or the standalone node.
pub fn members(status: &[ClusterStatusRow]) -> impl Iterator<Item = &MemberRow> {
    status.iter().filter_map(|row| match row {
        ClusterStatusRow::Node(member) => Some(member),
        ClusterStatusRow::Cluster(_) | ClusterStatusRow::Other(_) => None,
    })
}

fn node_status(word: Option<&str>) -> NodeStatus {
    match word {
        Some("online") => NodeStatus::Online,
        Some("offline") => NodeStatus::Offline,
        _ => NodeStatus::Unknown,
    }
}

/// A node from whatever listings name it. Measurements are those of `/cluster/resources`, else of `/nodes`.
pub fn node(
    name: &str,
    resource: Option<&NodeResource>,
    row: Option<&NodeRow>,
    member: Option<&MemberRow>,
) -> Node {
    let status = [resource.and_then(|r| r.status.as_deref()), row.and_then(|r| r.status.as_deref())];
    let member_status = member.and_then(|m| m.online).map(|online| if online { "online" } else { "offline" });
    // Without quorum, or for a node that has just left, `/nodes` says `unknown` where the membership still knows.
    let word = status.into_iter().flatten().find(|word| *word != "unknown").or(member_status);
    macro_rules! measured {
        ($field:ident) => {
            resource.and_then(|r| r.$field).or_else(|| row.and_then(|r| r.$field))
        };
    }
    Node {
        name: name.to_owned(),
        ip: member.and_then(|m| m.ip.clone()),
        status: node_status(word),
        uptime: measured!(uptime).map(integer),
        cpu_count: measured!(maxcpu).map(integer),
        cpu_usage: measured!(cpu),
        // No machine has none: a 0 was not measured, and queries divide by it.
        memory_total: measured!(maxmem).filter(|total| *total > 0).map(integer),
        memory_used: measured!(mem).map(integer),
        disk_total: measured!(maxdisk).map(integer),
        disk_used: measured!(disk).map(integer),
    }
}

/// A guest as the cluster's listing has it. After its node was offline for some minutes only `vmid`, `node`, `status` and tags are
/// left of it, and no name: what is missing there was not seen, rather than absent.
pub fn listed_guest(kind: GuestType, resource: &GuestResource) -> Guest {
    let GuestResource { vmid, node, name, status, template, tags, pool, uptime, odd, .. } = resource;
    let whole = name.is_some() || uptime.is_some();
    let absent = |key| whole && !is_odd(odd, key);
    Guest {
        vmid: i64::from(vmid.get()),
        kind,
        node: node.clone(),
        status: guest_status(status.as_deref(), None),
        name: name.clone(),
        template: template.or(absent("template").then_some(false)),
        tags: tags.clone().map(answers_tags).or(absent("tags").then(Vec::new)),
        uptime: uptime.map(integer),
        pool: absent("pool").then(|| pool.clone()),
        config: None,
        snapshots: None,
    }
}

fn answers_tags(tags: pve_client::Tags) -> Vec<String> {
    tags.into_vec()
}

fn guest_status(status: Option<&str>, qmpstatus: Option<&str>) -> GuestStatus {
    match (status, qmpstatus) {
        (Some("running"), Some("paused")) => GuestStatus::Paused,
        (Some("running"), _) => GuestStatus::Running,
        (Some("stopped"), _) => GuestStatus::Stopped,
        (Some("paused"), _) => GuestStatus::Paused,
        _ => GuestStatus::Unknown,
    }
}

/// A guest's own node knows it best: where it is, and what it does. `listed` is the cluster's view, which may lack a guest that
/// was just created.
pub fn qemu_guest(node: &str, row: &QemuRow, listed: Option<Guest>) -> Guest {
    let QemuRow { vmid, name, status, qmpstatus, template, tags, uptime, odd, .. } = row;
    let status = guest_status(status.as_deref(), qmpstatus.as_deref());
    own(node, i64::from(vmid.get()), GuestType::Qemu, status, (name, template, tags, uptime, odd), listed)
}

/// A container, likewise.
pub fn lxc_guest(node: &str, row: &LxcRow, listed: Option<Guest>) -> Guest {
    let LxcRow { vmid, name, status, template, tags, uptime, odd, .. } = row;
    let status = guest_status(status.as_deref(), None);
    own(node, i64::from(vmid.get()), GuestType::Lxc, status, (name, template, tags, uptime, odd), listed)
}

type Listed<'a> =
    (&'a Option<String>, &'a Option<bool>, &'a Option<pve_client::Tags>, &'a Option<u64>, &'a [String]);

fn own(
    node: &str,
    vmid: i64,
    kind: GuestType,
    status: GuestStatus,
    (name, template, tags, uptime, odd): Listed<'_>,
    listed: Option<Guest>,
) -> Guest {
    // A listing of another type under the same number is of a guest that is gone.
    let listed = listed.filter(|guest| guest.kind == kind);
    let cluster = listed.as_ref();
    Guest {
        vmid,
        kind,
        node: node.to_owned(),
        status: cluster.map(|g| g.status).filter(|_| status == GuestStatus::Unknown).unwrap_or(status),
        name: cluster.and_then(|g| g.name.clone()).or_else(|| name.clone()),
        template: cluster
            .and_then(|g| g.template)
            .or(*template)
            .or((!is_odd(odd, "template")).then_some(false)),
        tags: cluster
            .and_then(|g| g.tags.clone())
            .or_else(|| tags.clone().map(answers_tags))
            .or_else(|| (!is_odd(odd, "tags")).then(Vec::new)),
        uptime: cluster.and_then(|g| g.uptime).or(uptime.map(integer)),
        pool: cluster.and_then(|g| g.pool.clone()),
        config: None,
        snapshots: None,
    }
}

fn volume_of(volume: &Volume) -> (Option<String>, String) {
    (volume.storage().map(str::to_owned), volume.to_string())
}

/// Whether the sum of the volumes' sizes is not known: a volume, or its size, was not understood.
fn size_unseen<'a>(
    odd: &[String],
    is_volume: impl Fn(&str) -> bool,
    disks: impl Iterator<Item = &'a Disk>,
) -> Option<&'static str> {
    let sized: Vec<&str> =
        disks.filter(|disk| disk.size.is_some()).map(|disk| disk.disk_id.as_str()).collect();
    let unknown = |key: &String| is_volume(key) && !sized.contains(&key.as_str());
    odd.iter().any(unknown).then_some("disk_size")
}

/// A machine's configuration.
pub fn qemu_config(vmid: i64, config: &QemuConfig) -> GuestConfig {
    let odd = &config.odd;
    let disks = config.disks.iter().filter(|(_, drive)| !drive.is_cdrom() && !drive.is_cloud_init()).map(
        |(slot, drive)| {
            let (storage, volume) = volume_of(drive.volume());
            let attached = slot.bus != DiskBus::Unused;
            Disk {
                vmid,
                disk_id: slot.to_string(),
                kind: match slot.bus {
                    DiskBus::EfiDisk => DiskKind::Efi,
                    DiskBus::TpmState => DiskKind::Tpm,
                    DiskBus::Unused => DiskKind::Unused,
                    DiskBus::Ide | DiskBus::Sata | DiskBus::Scsi | DiskBus::Virtio => DiskKind::Disk,
                },
                attached,
                storage,
                volume,
                size: drive.size().map(|size| integer(size.bytes())),
                backup: attached && drive.backup().unwrap_or(true),
                cache: Some(drive.cache().map_or(DEFAULT_CACHE, String::as_str).to_owned()),
                unseen: valueless(
                    odd,
                    &slot.to_string(),
                    &[
                        (drive.size().is_some(), "size"),
                        (drive.backup().is_some(), "backup"),
                        (drive.cache().is_some(), "cache"),
                    ],
                ),
            }
        },
    );
    let nics = config.nics.iter().map(|(slot, nic)| Nic {
        vmid,
        net_id: slot.to_string(),
        bridge: nic.bridge().map(str::to_owned),
        mac_address: nic.mac().map(|mac| mac.to_string()),
        model: Some(nic.model().to_owned()),
        firewall: nic.firewall().unwrap_or(false),
        vlan_tag: nic.tag().map(i64::from),
        unseen: valueless(
            odd,
            &slot.to_string(),
            &[
                (nic.bridge().is_some(), "bridge"),
                (nic.mac().is_some(), "mac_address"),
                (nic.firewall().is_some(), "firewall"),
                (nic.tag().is_some(), "vlan_tag"),
            ],
        ),
    });
    let disks: Vec<Disk> = disks.collect();
    let mut unseen = unseen(
        odd,
        &[
            ("cores", "cpu_cores"),
            ("sockets", "cpu_sockets"),
            ("memory", "memory"),
            ("onboot", "onboot"),
            ("ostype", "os_type"),
            ("lock", "lock"),
            ("smbios1", "smbios_uuid"),
            ("meta", "created_at"),
        ],
    );
    unseen.extend(size_unseen(odd, |key| key.parse::<DiskSlot>().is_ok(), disks.iter()));
    GuestConfig {
        cpu_cores: Some(integer(config.cores.unwrap_or(1))),
        cpu_sockets: Some(integer(config.sockets.unwrap_or(1))),
        memory: Some(mib(config.memory.as_ref().map_or(DEFAULT_MEMORY_MIB, |memory| *memory.current()))),
        onboot: config.onboot.unwrap_or(false),
        os_type: config.ostype.clone(),
        lock: config.lock.clone(),
        smbios_uuid: config.smbios1.as_ref().and_then(|smbios| smbios.uuid()).map(|uuid| uuid.to_lowercase()),
        created_at: config.meta.as_ref().and_then(|meta| meta.ctime()).map(integer),
        disks,
        nics: nics.collect(),
        unseen,
    }
}

/// A container's configuration. `max_cpu`: what the listing says it may use, which is all of the node's where the
/// configuration sets no limit.
pub fn lxc_config(vmid: i64, config: &LxcConfig, max_cpu: Option<f64>) -> GuestConfig {
    let odd = &config.odd;
    let disks = config.mounts.iter().map(|(slot, mount)| {
        let (storage, volume) = volume_of(mount.volume());
        let host_path = mount.is_host_path();
        Disk {
            vmid,
            disk_id: slot.to_string(),
            kind: match slot {
                MountSlot::RootFs => DiskKind::Rootfs,
                MountSlot::MountPoint(_) => DiskKind::Mount,
                MountSlot::Unused(_) => DiskKind::Unused,
            },
            attached: !matches!(slot, MountSlot::Unused(_)),
            storage,
            volume,
            size: mount.size().map(|size| integer(size.bytes())),
            // PVE never takes a directory or device of the host, whatever its flag says.
            backup: match slot {
                MountSlot::RootFs => true,
                MountSlot::MountPoint(_) => !host_path && mount.backup().unwrap_or(false),
                MountSlot::Unused(_) => false,
            },
            cache: None,
            unseen: valueless(
                odd,
                &slot.to_string(),
                &[(mount.size().is_some(), "size"), (mount.backup().is_some(), "backup")],
            ),
        }
    });
    let nics = config.nics.iter().map(|(slot, nic)| Nic {
        vmid,
        net_id: slot.to_string(),
        bridge: nic.bridge().cloned(),
        mac_address: nic.mac().map(|mac| mac.to_string()),
        model: Some(nic.kind().map_or(CONTAINER_NIC, String::as_str).to_owned()),
        firewall: nic.firewall().unwrap_or(false),
        vlan_tag: nic.tag().map(i64::from),
        unseen: valueless(
            odd,
            &slot.to_string(),
            &[
                (nic.bridge().is_some(), "bridge"),
                (nic.mac().is_some(), "mac_address"),
                (nic.kind().is_some(), "model"),
                (nic.firewall().is_some(), "firewall"),
                (nic.tag().is_some(), "vlan_tag"),
            ],
        ),
    });
    #[allow(clippy::cast_possible_truncation)] // a number of processors
    let all = max_cpu.filter(|cpus| cpus.is_finite()).map(|cpus| cpus as i64);
    let disks: Vec<Disk> = disks.collect();
    let mut unseen = unseen(
        odd,
        &[
            ("cores", "cpu_cores"),
            ("memory", "memory"),
            ("onboot", "onboot"),
            ("ostype", "os_type"),
            ("lock", "lock"),
        ],
    );
    unseen.extend(size_unseen(odd, |key| key.parse::<MountSlot>().is_ok(), disks.iter()));
    if config.cores.is_none() && all.is_none() {
        // It may use all of the node's, and the listing that says how many was not understood.
        unseen.push("cpu_cores");
    }
    GuestConfig {
        cpu_cores: config.cores.map(integer).or(all),
        cpu_sockets: None,
        memory: Some(mib(config.memory.unwrap_or(DEFAULT_MEMORY_MIB))),
        onboot: config.onboot.unwrap_or(false),
        os_type: config.ostype.clone(),
        lock: config.lock.clone(),
        smbios_uuid: None,
        created_at: None,
        disks,
        nics: nics.collect(),
        unseen,
    }
}

/// A guest's snapshots. The row `current` is none; its parent is the one that the guest as it is came from.
pub fn snapshots(vmid: i64, rows: &[answers::Snapshot]) -> Vec<Snapshot> {
    let now = rows.iter().find(|row| row.is_current()).filter(|row| !is_odd(&row.odd, "parent"));
    let snapshot = |row: &answers::Snapshot| {
        let answers::Snapshot { name, parent, snaptime, vmstate, odd, .. } = row;
        let mut unseen =
            unseen(odd, &[("parent", "parent"), ("snaptime", "created_at"), ("vmstate", "with_memory")]);
        if now.is_none() {
            unseen.push("current");
        }
        Snapshot {
            vmid,
            name: name.clone(),
            parent: parent.clone().filter(|parent| !parent.is_empty()),
            // PVE writes 0 where the configuration has no time.
            created_at: snaptime.filter(|time| *time > 0).map(integer),
            with_memory: vmstate.unwrap_or(false),
            current: now.and_then(|now| now.parent.as_deref()) == Some(name.as_str()),
            unseen,
        }
    };
    rows.iter().filter(|row| !row.is_current()).map(snapshot).collect()
}

/// A storage from its definition, with a place for each of the cluster's nodes that the definition allows.
pub fn storage(definition: &StorageDefinition, nodes: &[Node]) -> Storage {
    let StorageDefinition { storage, kind, content, nodes: only, shared, disable, odd, .. } = definition;
    let mut content_types = content.as_ref().map(|list| list.0.clone()).unwrap_or_default();
    content_types.sort();
    let allowed = only.as_ref().map_or(StorageNodes::All, |list| StorageNodes::Only(list.0.clone()));
    let on_nodes = nodes
        .iter()
        .filter(|node| allowed.allows(&node.name))
        .map(|node| StorageOnNode {
            node: node.name.clone(),
            offline: node.status == NodeStatus::Offline,
            active: None,
            capacity: None,
        })
        .collect();
    Storage {
        name: storage.clone(),
        kind: kind.clone().unwrap_or_else(|| "unknown".to_owned()),
        content_types,
        shared: shared.unwrap_or(false),
        enabled: !disable.unwrap_or(false),
        nodes: allowed,
        on_nodes,
        unseen: unseen(
            odd,
            &[
                ("type", "type"),
                ("content", "content_types"),
                ("shared", "shared"),
                // How the nodes' numbers add up depends on it.
                ("shared", "total"),
                ("shared", "used"),
                ("shared", "available"),
                ("disable", "enabled"),
                ("nodes", "nodes"),
            ],
        ),
    }
}

/// Enters what a node says of the storages.
pub fn storages_on(node: &str, rows: &[NodeStorage], storages: &mut [Storage]) {
    let rows: HashMap<&str, &NodeStorage> =
        rows.iter().filter_map(|row| Some((row.storage.as_deref()?, row))).collect();
    for storage in storages {
        let Some(row) = rows.get(storage.name.as_str()) else { continue };
        if ["active", "total", "used", "avail"].iter().any(|key| is_odd(&row.odd, key)) {
            storage.unseen.extend(["total", "used", "available"]);
            continue;
        }
        let Some(on) = storage.on_nodes.iter_mut().find(|on| on.node == node) else { continue };
        on.active = Some(row.active.unwrap_or(false));
        on.capacity = match (row.total, row.used, row.avail) {
            (Some(total), Some(used), Some(available)) => {
                Some(Capacity { total: integer(total), used: integer(used), available: integer(available) })
            }
            _ => None,
        };
    }
}

/// A backup job and what it takes.
pub fn backup_job(job: &answers::BackupJob, volumes: Option<&IncludedVolumes>) -> BackupJob {
    let vmids = |list: &Option<pve_client::wire::CommaList<pve_client::Vmid>>| {
        list.iter().flat_map(|list| &list.0).map(|vmid| i64::from(vmid.get())).collect()
    };
    BackupJob {
        job_id: job.id.clone(),
        enabled: job.enabled.unwrap_or(true),
        schedule: job.schedule.clone(),
        storage: job.storage.clone(),
        mode: job.mode.clone(),
        all: job.all.unwrap_or(false),
        vmids: vmids(&job.vmid),
        exclude: vmids(&job.exclude),
        pool: job.pool.clone(),
        node: job.node.clone(),
        comment: job.comment.clone(),
        guests: volumes
            .map(|volumes| volumes.children.iter().map(|guest| i64::from(guest.id.get())).collect()),
        volumes: volumes.map(|volumes| {
            volumes
                .children
                .iter()
                .flat_map(|guest| {
                    guest.children.iter().filter_map(|volume| {
                        Some(BackupVolume {
                            vmid: i64::from(guest.id.get()),
                            disk_id: volume.disk()?.to_owned(),
                            included: volume.included,
                            reason: volume.reason.clone(),
                        })
                    })
                })
                .collect()
        }),
        unseen: unseen(
            &job.odd,
            &[
                ("enabled", "enabled"),
                ("schedule", "schedule"),
                ("storage", "storage"),
                ("mode", "mode"),
                ("all", "all"),
                ("vmid", "vmids"),
                ("exclude", "exclude"),
                ("pool", "pool"),
                ("node", "node"),
                ("comment", "comment"),
            ],
        ),
    }
}
