//! A small estate, the change that the next run is to bring, and a look at what the graph has of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use pve_client::{Auth, ClientConfig, PveClient, RetryPolicy, Trust};
use pve_sim::{
    BackupJob, ConfigValue, Guest, GuestSpec, Power, ROOT_TOKEN, Selection, SimOptions, SimServer, Storage,
    Usage, World, WorldSpec,
};
use pvegraph_graph::neo4j::Neo4jStore;
use pvegraph_testkit::{Exclusive, emptied};
use serde_json::{Map, Value, json};

use crate::contract::neo4j;
use crate::support::{Graph, METRICS, Rig};

const SEED: u64 = 20_261_130;

/// The node that most of the changes are on; between the first and the last.
pub const MIDDLE: &str = "pve2";
/// The machine that goes.
pub const GONE: u32 = 290;
/// The machine that is renamed.
pub const RENAMED: u32 = 201;
/// The machine that loses a disk.
pub const LIGHTER: u32 = 202;
/// The container that loses a snapshot.
pub const SNAPPED: u32 = 204;
/// The backup job that goes.
pub const GONE_JOB: &str = "gone-job";
/// The storage that goes.
pub const GONE_STORAGE: &str = "gone-nfs";
const GONE_DISK: &str = "scsi1";
const GONE_SNAPSHOT: &str = "gone-snap";

/// One thing that is another in the world than it was at the last good run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// A machine is gone.
    Guest,
    /// A machine has another name.
    Name,
    /// A disk is gone from a machine that is still there.
    Disk,
    /// A snapshot is gone from a container that is still there.
    Snapshot,
    /// A backup job is gone.
    Job,
    /// A storage is gone.
    Storage,
}

/// All of them.
pub const CHANGES: [Change; 6] =
    [Change::Guest, Change::Name, Change::Disk, Change::Snapshot, Change::Job, Change::Storage];

impl Change {
    /// Whether this value of the graph is one that the change makes another.
    pub fn has(self, key: &str) -> bool {
        let any = |test: &dyn Fn(&str) -> bool| key.split(' ').any(test);
        match self {
            Self::Guest => any(&|word| word == "pve2:290" || word.starts_with("290:")),
            Self::Name => key == "ProxmoxVM pve2:201 name",
            // The machine's size is the sum of its disks.
            Self::Disk => any(&|word| word == "202:scsi1") || key == "ProxmoxVM pve2:202 disk_size",
            // What was below the one that goes is the current one again.
            Self::Snapshot => {
                any(&|word| word == "204:gone-snap") || key == "ProxmoxSnapshot 204:kept-snap current"
            }
            Self::Job => any(&|word| word == GONE_JOB),
            Self::Storage => any(&|word| word == GONE_STORAGE),
        }
    }
}

/// The graph of one moment, node by node and relationship by relationship.
pub type Whole = BTreeMap<String, Vec<Map<String, Value>>>;
/// The same, value by value, without stamps and metrics; what was first seen when is a value.
pub type Flat = BTreeMap<String, Value>;

/// The values of a graph.
pub fn flat(graph: &Whole) -> Flat {
    let left_out = |name: &str| METRICS.contains(&name) || name == "stale_since";
    let mut values = BTreeMap::new();
    for (label, rows) in graph {
        for row in rows {
            let id = row.get("id").and_then(Value::as_str).unwrap_or_default();
            if let Some(to) = row.get("to").and_then(Value::as_str) {
                values.insert(format!("{label} {id} {to}"), json!(true));
                continue;
            }
            for (name, value) in row.iter().filter(|(name, _)| !left_out(name)) {
                values.insert(format!("{label} {id} {name}"), value.clone());
            }
        }
    }
    values
}

/// What is another in `after` than in `before`.
pub fn differences(before: &Flat, after: &Flat) -> Vec<String> {
    let keys: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let show = |value: Option<&Value>| value.map_or_else(|| "-".to_owned(), Value::to_string);
    keys.into_iter()
        .filter(|key| before.get(*key) != after.get(*key))
        .map(|key| format!("{key}: {} -> {}", show(before.get(key)), show(after.get(key))))
        .collect()
}

/// The graph that is to be where all changes but the held ones have come. `old` and `new`: the graphs before and after all of them.
pub fn with_changes(old: &Flat, new: &Flat, held: &[Change]) -> Flat {
    let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    keys.into_iter()
        .filter_map(|key| {
            let mut touching = CHANGES.iter().filter(|change| change.has(key)).peekable();
            let came = touching.peek().is_some() && touching.any(|change| !held.contains(change));
            let value = if came { new.get(key) } else { old.get(key) };
            value.map(|value| (key.clone(), value.clone()))
        })
        .collect()
}

/// How the last recorded run saw its scopes: collector and node, status, reason.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// The run's tag.
    pub tag: i64,
    /// How it ended.
    pub status: String,
    /// Why it failed, if it did as a whole.
    pub reason: Option<String>,
    /// Status and reason by collector and node; the node is empty for the whole cluster.
    pub scopes: BTreeMap<(String, String), (String, Option<String>)>,
}

impl Recorded {
    /// The scopes that are not complete; asserts that each says why and that no other claims a reason.
    pub fn incomplete(&self) -> Vec<(String, String, String)> {
        let mut scopes = Vec::new();
        for ((collector, node), (status, reason)) in &self.scopes {
            let said = reason.as_deref().is_some_and(|reason| !reason.trim().is_empty());
            assert_eq!(said, status != "complete", "{collector} {node} {status}: {reason:?}");
            if status != "complete" {
                scopes.push((collector.clone(), node.clone(), status.clone()));
            }
        }
        scopes
    }
}

/// The estate, served, and the graph of it.
pub struct Estate {
    _db: Exclusive,
    /// The cluster.
    pub server: SimServer,
    /// The program with its configuration.
    pub rig: Rig,
    /// The graph, for runs inside this process.
    pub store: Neo4jStore,
    guest: Guest,
    disk: ConfigValue,
    job: BackupJob,
    storage: Storage,
}

/// 3 nodes with 2 machines and 2 containers each, and what is going to go. `101` is on pve1, `203` on pve2.
fn world() -> World {
    println!("seed {SEED}");
    let world = World::generate(&WorldSpec::new("rig", 3, 0, SEED));
    for node in 1..=3_u32 {
        let name = format!("pve{node}");
        let mac = |vmid: u32| format!("BC:24:11:00:{:02X}:{:02X}", vmid / 100, vmid % 100);
        let machine = |vmid: u32| {
            GuestSpec::qemu(vmid, &format!("machine{vmid}"))
                .node(&name)
                .power(Power::Running)
                .config("cores", 2)
                .config("memory", "2048")
                .config("tags", "prod")
                .disk("scsi0", "local-lvm", 8, "")
                .disk("scsi1", "nfs-vm", 4, "backup=0")
                .config("net0", format!("virtio={},bridge=vmbr0,tag=12", mac(vmid)))
        };
        let container = |vmid: u32| {
            GuestSpec::lxc(vmid, &format!("container{vmid}"))
                .node(&name)
                .power(Power::Running)
                .config("memory", 1024)
                .disk("rootfs", "local-lvm", 8, "")
                .config("net0", format!("name=eth0,bridge=vmbr0,hwaddr={},type=veth", mac(vmid)))
        };
        for at in [1, 2] {
            world.add_guest(machine(node * 100 + at)).unwrap();
            world.add_guest(container(node * 100 + 2 + at)).unwrap();
        }
        if name == MIDDLE {
            world.add_guest(machine(GONE)).unwrap();
        }
    }
    world.set_pool(101, Some("prod")).unwrap();
    for vmid in [101, SNAPPED] {
        world.add_snapshot(vmid, "kept-snap", "").unwrap();
    }
    let job = |id: &str, vmids: &[u32]| BackupJob {
        id: id.to_owned(),
        enabled: true,
        schedule: "02:00".to_owned(),
        storage: "local".to_owned(),
        selection: Selection::Guests(vmids.to_vec()),
        node: None,
        properties: Map::new(),
    };
    world.add_backup_job(job("kept-job", &[101, LIGHTER, GONE]));
    world.add_backup_job(job(GONE_JOB, &[101, 103]));
    let properties = json!({ "server": "nas", "export": "/gone", "path": "/mnt/pve/gone-nfs" });
    world.add_storage(Storage {
        id: GONE_STORAGE.to_owned(),
        kind: "nfs".to_owned(),
        content: "backup".to_owned(),
        shared: true,
        nodes: None,
        disabled: false,
        properties: properties.as_object().unwrap().clone(),
        usage: Usage { total: 1 << 40, used: 1 << 30 },
        usage_on: BTreeMap::new(),
    });
    world
}

impl Estate {
    /// The estate as it is before the changes, synced by the program.
    pub async fn new() -> Self {
        Self::named(Some("rig")).await
    }

    /// The same under this configured name, or none.
    pub async fn named(name: Option<&str>) -> Self {
        let db = emptied().await;
        let server = SimServer::start(world(), SimOptions::default()).await.unwrap();
        let world = server.world().unwrap();
        let (guest, disk, job, storage) = world.read(|state| {
            (
                state.guests[&GONE].clone(),
                state.guests[&LIGHTER].config.get(GONE_DISK).unwrap().clone(),
                state.jobs[GONE_JOB].clone(),
                state.storages[GONE_STORAGE].clone(),
            )
        });
        let rig = Rig::new(&Graph::Neo4j((*db).clone())).cluster(
            name,
            &server,
            world.credential(ROOT_TOKEN).as_ref(),
        );
        let store = neo4j(&db);
        let it = Self { _db: db, server, rig, store, guest, disk, job, storage };
        it.restore();
        it.rig.sync(0).await;
        it
    }

    /// The cluster's world.
    pub fn world(&self) -> &World {
        self.server.world().unwrap()
    }

    /// The world as it was before the changes.
    pub fn restore(&self) {
        let world = self.world();
        world.update(|state| {
            state.guests.insert(GONE, self.guest.clone());
            state.jobs.insert(GONE_JOB.to_owned(), self.job.clone());
            state.storages.insert(GONE_STORAGE.to_owned(), self.storage.clone());
        });
        world.rename(RENAMED, "old-name").unwrap();
        world.set_config(LIGHTER, GONE_DISK, self.disk.clone()).unwrap();
        self.remove_snapshot();
        world.add_snapshot(SNAPPED, GONE_SNAPSHOT, "").unwrap();
    }

    /// All changes at once.
    pub fn change(&self) {
        let world = self.world();
        world.remove_guest(GONE).unwrap();
        world.rename(RENAMED, "new-name").unwrap();
        world.delete_config(LIGHTER, GONE_DISK).unwrap();
        world.remove_backup_job(GONE_JOB).unwrap();
        world.remove_storage(GONE_STORAGE).unwrap();
        self.remove_snapshot();
    }

    fn remove_snapshot(&self) {
        let remove = |guest: &mut Guest| {
            guest.snapshots.retain(|snapshot| snapshot.name != GONE_SNAPSHOT);
            guest.config.set("parent", "kept-snap");
        };
        self.world().edit_guest(SNAPPED, remove).unwrap();
    }

    /// The graph of this moment.
    pub async fn whole(&self) -> Whole {
        self.rig.stable(&[]).await
    }

    /// The last recorded run.
    pub async fn recorded(&self) -> Recorded {
        let rows = self
            .rig
            .read(
                "MATCH (r:ProxmoxSyncRun) WITH r ORDER BY r.tag DESC LIMIT 1 \
                 OPTIONAL MATCH (r)-[c:COLLECTED]->(:ProxmoxCluster) \
                 RETURN r.tag AS tag, r.status AS status, r.reason AS reason, \
                 collect(properties(c)) AS scopes",
            )
            .await;
        let row = &rows[0];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let scopes = row["scopes"].as_array().unwrap().iter();
        Recorded {
            tag: row["tag"].as_i64().unwrap(),
            status: text(&row["status"]),
            reason: row["reason"].as_str().map(str::to_owned),
            scopes: scopes
                .map(|scope| {
                    let reason = scope["reason"].as_str().map(str::to_owned);
                    let place = (text(&scope["collector"]), text(&scope["node"]));
                    (place, (text(&scope["status"]), reason))
                })
                .collect(),
        }
    }

    /// A client of the cluster that has little patience, so that time-outs take no time.
    pub fn client(&self) -> PveClient {
        let credential = self.world().credential(ROOT_TOKEN).unwrap();
        let auth = Auth::Token { id: credential.id.parse().unwrap(), secret: credential.secret.into() };
        let trust = Trust::Fingerprint(vec![self.server.fingerprint().parse().unwrap()]);
        let mut config = ClientConfig::new(vec![self.server.url().parse().unwrap()], auth, trust);
        config.timeouts.request = Duration::from_millis(800);
        let delay = Duration::from_millis(1);
        config.retry =
            RetryPolicy { max_retries: 1, min_delay: delay, max_delay: delay, ..RetryPolicy::default() };
        PveClient::new(config).unwrap()
    }

    /// What the world answers to this path.
    pub async fn answer(&self, path: &str) -> Value {
        let asked = pve_client::ApiPath::new("read").fixed(path.to_owned().leak());
        // As a crawl asks for machines: without it a paused one is running.
        let asked = if path.ends_with("/qemu") { asked.query("full", 1) } else { asked };
        self.client().get(&asked).await.unwrap()
    }
}
