//! A world from a file: a generated one, or an empty one, with what the file adds.
//!
//! ```toml
//! cluster = "lab"            # without it the node stands alone
//! nodes = ["alpha", "beta"]
//! seed = 7
//!
//! [[storage]]
//! id = "fast"
//! type = "lvmthin"
//! content = "images,rootdir"
//! gib = 500
//!
//! [[pool]]
//! id = "prod"
//!
//! [[guest]]
//! vmid = 100
//! type = "qemu"
//! name = "web"
//! node = "alpha"
//! running = true
//! pool = "prod"
//! ha = "started"
//! disks = ["scsi0 fast 32", "scsi1 fast 8 backup=0"]
//! config = { cores = 2, memory = "2048", tags = "prod;web" }
//! snapshots = ["before-upgrade"]
//!
//! [[job]]
//! id = "nightly"
//! schedule = "02:00"
//! storage = "fast"
//! pool = "prod"              # or guests = [100], or exclude = [101]
//!
//! [[user]]
//! id = "ops@pve"
//! password = "operations"
//! role = "PVEAuditor"
//! path = "/"
//! ```

use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::config::ConfigValue;
use super::state::{BackupJob, GuestSpec, Pool, Power, Selection, Storage, Usage};
use super::{World, WorldError, WorldSpec};

/// Why a file makes no world.
#[derive(Debug, thiserror::Error)]
pub enum WorldFileError {
    /// The file cannot be read.
    #[error("cannot read the world file {path}: check that it is there and readable")]
    Read {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is not TOML of the expected form.
    #[error("the world file is not of the expected form")]
    Toml(#[from] toml::de::Error),
    /// It is not JSON of the expected form.
    #[error("the world file is not of the expected form")]
    Json(#[from] serde_json::Error),
    /// A disk is not spelt as `key storage GiB [options]`.
    #[error("disk {disk:?} of guest {vmid} is not spelt as \"scsi0 storage 32 [options]\"")]
    Disk {
        /// The guest.
        vmid: u32,
        /// The disk.
        disk: String,
    },
    /// What it names does not fit together.
    #[error("the world file contradicts itself")]
    World(#[from] WorldError),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    cluster: Option<String>,
    nodes: Vec<String>,
    #[serde(default)]
    seed: u64,
    #[serde(default)]
    storage: Vec<StorageEntry>,
    #[serde(default)]
    pool: Vec<PoolEntry>,
    #[serde(default)]
    guest: Vec<GuestEntry>,
    #[serde(default)]
    job: Vec<JobEntry>,
    #[serde(default)]
    user: Vec<UserEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StorageEntry {
    id: String,
    r#type: String,
    #[serde(default = "images")]
    content: String,
    #[serde(default)]
    shared: bool,
    #[serde(default = "some_gib")]
    gib: u64,
    #[serde(default)]
    used_gib: u64,
    nodes: Option<Vec<String>>,
    #[serde(default)]
    disabled: bool,
    #[serde(default)]
    properties: Map<String, Value>,
}

fn images() -> String {
    "images,rootdir".to_owned()
}

fn some_gib() -> u64 {
    100
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PoolEntry {
    id: String,
    comment: Option<String>,
    #[serde(default)]
    storages: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GuestEntry {
    vmid: u32,
    r#type: String,
    name: String,
    node: Option<String>,
    #[serde(default)]
    running: bool,
    pool: Option<String>,
    ha: Option<String>,
    #[serde(default)]
    disks: Vec<String>,
    #[serde(default)]
    config: Map<String, Value>,
    #[serde(default)]
    snapshots: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JobEntry {
    id: String,
    schedule: String,
    storage: String,
    #[serde(default = "yes")]
    enabled: bool,
    pool: Option<String>,
    guests: Option<Vec<u32>>,
    #[serde(default)]
    exclude: Vec<u32>,
}

fn yes() -> bool {
    true
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UserEntry {
    id: String,
    password: String,
    role: Option<String>,
    #[serde(default = "root_path")]
    path: String,
}

fn root_path() -> String {
    "/".to_owned()
}

impl World {
    /// A world from a file: JSON if its name ends so, else TOML.
    ///
    /// # Errors
    /// A file that cannot be read, has another form, or names what it does not define.
    pub fn from_file(path: &Path) -> Result<Self, WorldFileError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| WorldFileError::Read { path: path.display().to_string(), source })?;
        match path.extension().is_some_and(|end| end == "json") {
            true => build(serde_json::from_str(&text)?),
            false => Self::from_toml(&text),
        }
    }

    /// A world from TOML.
    ///
    /// # Errors
    /// Another form, or names that are not defined.
    pub fn from_toml(text: &str) -> Result<Self, WorldFileError> {
        build(toml::from_str(text)?)
    }
}

fn build(file: File) -> Result<World, WorldFileError> {
    let File { cluster, nodes, seed, storage, pool, guest, job, user } = file;
    let mut spec = WorldSpec::new(cluster.as_deref().unwrap_or_default(), nodes.len().max(1), 0, seed);
    spec.cluster_name = cluster;
    let world = World::generate(&spec);
    // The generated nodes, users and tokens stay, under the names that the file has; the rest is the file's.
    world.update(|state| {
        let made = std::mem::take(&mut state.nodes);
        for (mut node, name) in made.into_values().zip(&nodes) {
            node.name = name.as_str().into();
            state.nodes.insert(name.clone(), node);
        }
        state.storages.clear();
        state.jobs.clear();
        state.pools.clear();
    });
    for entry in storage {
        let StorageEntry { id, r#type, content, shared, gib, used_gib, nodes, disabled, properties } = entry;
        world.add_storage(Storage {
            id,
            kind: r#type,
            content,
            shared,
            nodes: nodes.map(|nodes| nodes.into_iter().collect()),
            disabled,
            properties,
            usage: Usage { total: gib << 30, used: used_gib << 30 },
            usage_on: Default::default(),
        });
    }
    for PoolEntry { id, comment, storages } in pool {
        world.add_pool(&id, Pool { comment, storages: storages.into_iter().collect() });
    }
    for entry in guest {
        let GuestEntry { vmid, r#type, name, node, running, pool, ha, disks, config, snapshots } = entry;
        let mut spec = match r#type.as_str() {
            "lxc" => GuestSpec::lxc(vmid, &name),
            _ => GuestSpec::qemu(vmid, &name),
        };
        spec = node.iter().fold(spec, |spec, node| spec.node(node));
        spec = pool.iter().fold(spec, |spec, pool| spec.pool(pool));
        spec = ha.iter().fold(spec, |spec, ha| spec.ha(ha));
        spec = spec.power(if running { Power::Running } else { Power::Stopped });
        for disk in disks {
            let parts: Vec<&str> = disk.split_whitespace().collect();
            let (&[key, storage, gib], options) =
                parts.split_first_chunk::<3>().map_or((&["", "", ""], &[][..]), |found| found);
            let Ok(gib) = gib.parse() else { return Err(WorldFileError::Disk { vmid, disk }) };
            spec = spec.disk(key, storage, gib, options.first().copied().unwrap_or_default());
        }
        for (key, value) in config {
            spec = spec.config(&key, ConfigValue::from(value));
        }
        world.add_guest(spec)?;
        for snapshot in snapshots {
            world.add_snapshot(vmid, &snapshot, "")?;
        }
    }
    for JobEntry { id, schedule, storage, enabled, pool, guests, exclude } in job {
        let selection = match (pool, guests) {
            (Some(pool), _) => Selection::Pool(pool),
            (None, Some(guests)) => Selection::Guests(guests),
            (None, None) => Selection::All { exclude },
        };
        world.add_backup_job(BackupJob {
            id,
            enabled,
            schedule,
            storage,
            selection,
            node: None,
            properties: Map::new(),
        });
    }
    for UserEntry { id, password, role, path } in user {
        world.add_user(&id, &password);
        if let Some(role) = role {
            world.grant(&id, &role, &path, true)?;
        }
    }
    Ok(world)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAB: &str = r#"
        cluster = "lab"
        nodes = ["alpha", "beta"]
        [[storage]]
        id = "fast"
        type = "lvmthin"
        [[pool]]
        id = "prod"
        [[guest]]
        vmid = 100
        type = "qemu"
        name = "web"
        node = "beta"
        running = true
        pool = "prod"
        disks = ["scsi0 fast 32 backup=0"]
        config = { cores = 2, memory = "4096" }
        snapshots = ["one"]
        [[job]]
        id = "nightly"
        schedule = "02:00"
        storage = "fast"
        pool = "prod"
        [[user]]
        id = "ops@pve"
        password = "operations"
        role = "PVEAuditor"
    "#;

    #[test]
    fn a_file_makes_a_world() {
        let world = World::from_toml(LAB).unwrap();
        let config = world.get("/nodes/beta/qemu/100/config").body.to_json()["data"].clone();
        assert_eq!(config["scsi0"], "fast:vm-100-disk-0,backup=0,size=32G");
        assert_eq!((&config["cores"], &config["memory"]), (&2.into(), &"4096".into()));
        let names: Vec<String> = world.read(|state| state.nodes.keys().cloned().collect());
        assert_eq!(names, ["alpha", "beta"]);
        assert_eq!(world.password("ops@pve").as_deref(), Some("operations"));
        assert_eq!(world.get("/cluster/backup/nightly").body.to_json()["data"]["pool"], "prod");
    }

    #[test]
    fn a_file_that_contradicts_itself_is_refused() {
        let error = World::from_toml(&LAB.replace("scsi0 fast 32", "scsi0 nowhere 32")).unwrap_err();
        assert!(matches!(error, WorldFileError::World(WorldError::NoStorage(_))), "{error:?}");
        let error = World::from_toml(&LAB.replace("scsi0 fast 32", "scsi0 fast")).unwrap_err();
        assert!(matches!(error, WorldFileError::Disk { vmid: 100, .. }), "{error:?}");
        assert!(matches!(World::from_toml("nodes = []\nnonsense = 1"), Err(WorldFileError::Toml(_))));
    }
}
