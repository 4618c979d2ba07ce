//! Makes a world from a seed: a realistic mix of guests, storages, pools and backup jobs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Value, json};

use super::mutate::{create, insert_token, lxc_nic, qemu_nic};
use super::spec::WorldSpec;
use super::state::{BackupJob, GuestSpec, Node, Pool, Power, Selection, State, Storage, Usage};
use super::{demo, ids, snapshots};

/// A token that every generated world has: `root@pam`'s, without privilege separation.
pub const ROOT_TOKEN: &str = "root@pam!sim";
/// A token that every generated world has: `PVEAuditor` on everything.
pub const AUDIT_TOKEN: &str = "audit@pve!sim";
/// A token that every generated world has: `PVEAuditor` on `/pool/prod` alone.
pub const POOL_TOKEN: &str = "pool@pve!sim";
/// A user that every generated world has, and of whom the login asks a second factor.
pub const TFA_USER: &str = "tfa@pve";

const GIB: u64 = 1 << 30;

/// The bridges that generated nodes have.
pub const BRIDGES: [&str; 2] = ["vmbr0", "vmbr1"];

/// Makes the world that `spec` asks for.
pub fn generate(spec: &WorldSpec) -> State {
    let mut state = State::empty();
    state.cluster_name.clone_from(&spec.cluster_name);
    state.seed = spec.seed;
    let mut random = ChaCha8Rng::seed_from_u64(spec.seed);
    let count = if spec.cluster_name.is_some() { spec.nodes.max(1) } else { 1 };
    for number in 1..=count {
        let node = node(&mut random, spec, number);
        state.nodes.insert(node.name.to_string(), node);
    }
    storages(&mut state, &mut random, spec.storages.max(2));
    access(&mut state);
    for (name, comment) in [("prod", Some("production")), ("test", None)] {
        let pool = Pool { comment: comment.map(str::to_owned), storages: BTreeSet::new() };
        state.pools.insert(name.to_owned(), pool);
    }
    if spec.demo {
        demo::furnish(&mut state);
        return state;
    }
    if let Some(pool) = state.pools.get_mut("prod") {
        pool.storages.insert("local-lvm".to_owned());
    }
    populate(&mut state, &mut random, spec.guests);
    jobs(&mut state);
    state
}

/// Adds `count` guests to a world.
pub fn more_guests(state: &mut State, count: usize) -> Vec<u32> {
    let mut random = ChaCha8Rng::seed_from_u64(state.seed ^ state.created);
    populate(state, &mut random, count)
}

fn node(random: &mut ChaCha8Rng, spec: &WorldSpec, number: usize) -> Node {
    let name: Arc<str> = format!("pve{number}").into();
    let number = u32::try_from(number).unwrap_or(u32::MAX);
    let cpus = [16, 32, 64].get(random.random_range(0..3)).copied().unwrap_or(16);
    let memory = u64::from(cpus) * 8 * GIB;
    let described = random.random_bool(0.3);
    Node {
        id: if spec.cluster_name.is_some() { number } else { 0 },
        // Loopback-only documentation addresses: nobody's machines.
        ip: format!("192.0.2.{}", 10 + number % 240),
        online: true,
        forgotten: false,
        cpus,
        cpu_load: random.random_range(0.05..0.6),
        memory: Usage { total: memory, used: memory / 100 * random.random_range(20..75) },
        rootfs: Usage { total: 94 * GIB, used: random.random_range(8..40) * GIB },
        uptime: random.random_range(86_400..20_000_000),
        description: described.then(|| format!("Rack {number}\n")),
        fingerprint: ids::fingerprint(format!("{} {name}", spec.seed).as_bytes()),
        certificate: None,
        name,
    }
}

struct StorageKind {
    id: &'static str,
    kind: &'static str,
    content: &'static str,
    shared: bool,
}

/// The storages in the order in which they come: the first two always, the others as far as the count goes.
const STORAGES: [StorageKind; WorldSpec::DEFAULT_STORAGES] = [
    StorageKind { id: "local", kind: "dir", content: "backup,iso,snippets,vztmpl", shared: false },
    StorageKind { id: "local-lvm", kind: "lvmthin", content: "images,rootdir", shared: false },
    StorageKind { id: "nfs-vm", kind: "nfs", content: "backup,images,iso,rootdir", shared: true },
    StorageKind { id: "ceph-vm", kind: "rbd", content: "images,rootdir", shared: true },
    StorageKind { id: "tank", kind: "zfspool", content: "images,rootdir", shared: false },
    StorageKind { id: "old-nfs", kind: "nfs", content: "images", shared: true },
    StorageKind { id: "scratch", kind: "dir", content: "images,rootdir", shared: false },
];

fn storages(state: &mut State, random: &mut ChaCha8Rng, count: usize) {
    let nodes: Vec<String> = state.nodes.keys().cloned().collect();
    for number in 0..count {
        let further = StorageKind { id: "nfs", kind: "nfs", content: "backup,images,rootdir", shared: true };
        let kind = STORAGES.get(number).unwrap_or(&further);
        let id = if number < STORAGES.len() { kind.id.to_owned() } else { format!("nfs-{}", number + 1) };
        let total = random.random_range(1..20) * 512 * GIB;
        let usage = Usage { total, used: total / 100 * random.random_range(10..70) };
        let mut usage_on = BTreeMap::new();
        if !kind.shared {
            for node in &nodes {
                usage_on
                    .insert(node.clone(), Usage { total, used: total / 100 * random.random_range(10..70) });
            }
        }
        let storage = Storage {
            properties: properties(kind.kind, &id),
            kind: kind.kind.to_owned(),
            content: kind.content.to_owned(),
            shared: kind.shared,
            nodes: (id == "scratch").then(|| nodes.last().cloned().into_iter().collect()),
            disabled: id == "old-nfs",
            usage,
            usage_on,
            id: id.clone(),
        };
        state.storages.insert(id, storage);
    }
}

/// The keys that a storage of this type has besides those that all have.
fn properties(kind: &str, id: &str) -> Map<String, Value> {
    let value = match (kind, id) {
        ("dir", "local") => json!({"path": "/var/lib/vz", "prune-backups": "keep-all=1"}),
        ("dir", _) => json!({"path": format!("/srv/{id}")}),
        ("lvmthin", _) => json!({"vgname": "pve", "thinpool": "data"}),
        ("nfs", _) => json!({
            "server": "192.0.2.250", "export": format!("/export/{id}"), "path": format!("/mnt/pve/{id}"),
        }),
        ("rbd", _) => {
            json!({"pool": id, "monhost": "192.0.2.251 192.0.2.252", "krbd": 0, "username": "admin"})
        }
        ("zfspool", _) => json!({"pool": id, "sparse": 1, "mountpoint": format!("/{id}")}),
        _ => Value::Null,
    };
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// The users and tokens that every generated world has.
fn access(state: &mut State) {
    for (user, role, path) in [
        ("root@pam", None, "/"),
        ("admin@pve", Some("Administrator"), "/"),
        (TFA_USER, Some("PVEAuditor"), "/"),
        ("audit@pve", Some("PVEAuditor"), "/"),
        ("pool@pve", Some("PVEAuditor"), "/pool/prod"),
    ] {
        let password = ids::uuid(state.seed, &format!("password {user}"));
        let entry = state.access.users.entry(user.to_owned()).or_default();
        entry.enabled = true;
        entry.password = Some(password);
        entry.totp = (user == TFA_USER).then(|| "206483".to_owned());
        if let Some(role) = role {
            state.access.grant(user, role, path, true);
        }
    }
    for user in ["root@pam", "audit@pve", "pool@pve"] {
        insert_token(state, user, "sim", false);
    }
}

/// The storages that generated disks go to, as far as the world has them.
fn disk_storages(state: &State) -> Vec<String> {
    let usable = |storage: &&Storage| {
        !storage.disabled && storage.nodes.is_none() && storage.content.contains("images")
    };
    state.storages.values().filter(usable).map(|storage| storage.id.clone()).collect()
}

const ROLES: [&str; 12] =
    ["web", "db", "cache", "mail", "ci", "proxy", "monitor", "backup", "build", "ldap", "dns", "app"];
const TAGS: [&str; 6] = ["prod", "test", "web", "db", "linux", "legacy"];

fn pick<'a, T: ?Sized>(random: &mut ChaCha8Rng, from: &[&'a T]) -> Option<&'a T> {
    if from.is_empty() { None } else { from.get(random.random_range(0..from.len())).copied() }
}

fn populate(state: &mut State, random: &mut ChaCha8Rng, count: usize) -> Vec<u32> {
    let nodes: Vec<String> = state.nodes.keys().cloned().collect();
    let storages = disk_storages(state);
    let mut made = Vec::with_capacity(count);
    // Ids rise with gaps, as where guests come and go.
    let mut vmid = state.guests.keys().next_back().map_or(99, |last| *last);
    for _ in 0..count {
        vmid += if random.random_bool(0.1) { random.random_range(2..6) } else { 1 };
        let Some(node) = nodes.get(random.random_range(0..nodes.len().max(1))) else { break };
        let spec = guest(state.seed, random, vmid, node, &storages);
        if create(state, spec).is_ok() {
            snapshots::some(state, vmid);
            made.push(vmid);
        }
    }
    made
}

fn guest(seed: u64, random: &mut ChaCha8Rng, vmid: u32, node: &str, storages: &[String]) -> GuestSpec {
    let is_container = random.random_bool(0.3);
    let name = format!("{}-{vmid}", pick(random, &ROLES).unwrap_or("vm"));
    let spec = if is_container { GuestSpec::lxc(vmid, &name) } else { GuestSpec::qemu(vmid, &name) };
    let mut spec = spec.node(node);
    let template = random.random_bool(0.04);
    let power = match random.random_range(0..100) {
        _ if template => Power::Stopped,
        0..70 => Power::Running,
        70..73 if !is_container => Power::Paused,
        _ => Power::Stopped,
    };
    spec = spec.power(power);
    if template {
        spec = spec.config("template", 1);
    }
    if random.random_bool(0.35) {
        spec = spec.pool(if random.random_bool(0.6) { "prod" } else { "test" });
    }
    if !template && random.random_bool(0.08) {
        spec = spec.ha("started");
    }
    let mut tags: Vec<&str> = (0..random.random_range(0..3)).filter_map(|_| pick(random, &TAGS)).collect();
    tags.sort_unstable();
    tags.dedup();
    if !tags.is_empty() {
        spec = spec.config("tags", tags.join(";"));
    }
    if random.random_bool(0.2) {
        let end = if is_container { "\n" } else { "" };
        spec = spec.config("description", format!("{name}\nruns since the last move{end}"));
    }
    if random.random_bool(0.7) {
        spec = spec.config("onboot", 1);
    }
    if is_container {
        container(seed, random, spec, vmid, storages)
    } else {
        machine(seed, random, spec, vmid, storages)
    }
}

fn storage<'a>(random: &mut ChaCha8Rng, storages: &'a [String]) -> &'a str {
    storages.get(random.random_range(0..storages.len().max(1))).map_or("local-lvm", String::as_str)
}

fn nic_options(random: &mut ChaCha8Rng) -> String {
    let mut options = Vec::new();
    if random.random_bool(0.6) {
        options.push("firewall=1".to_owned());
    }
    if random.random_bool(0.4) {
        options.push(format!("tag={}", random.random_range(2..200)));
    }
    options.join(",")
}

/// Most network cards hang on the first bridge.
fn bridge(random: &mut ChaCha8Rng, nic: usize) -> &'static str {
    let at = usize::from(nic > 0 && random.random_bool(0.6));
    BRIDGES.get(at).copied().unwrap_or("vmbr0")
}

fn machine(
    seed: u64,
    random: &mut ChaCha8Rng,
    mut spec: GuestSpec,
    vmid: u32,
    storages: &[String],
) -> GuestSpec {
    let bus = pick(random, &["scsi", "scsi", "scsi", "virtio", "sata"]).unwrap_or("scsi");
    for disk in 0..random.random_range(1..=3) {
        let mut options = Vec::new();
        if disk > 0 && random.random_bool(0.15) {
            options.push("backup=0");
        }
        options.extend(pick(random, &["cache=writeback", "cache=none", "", "", ""]));
        options.extend(
            pick(random, &["discard=on,iothread=1,ssd=1", "iothread=1", "", ""]).filter(|_| bus != "sata"),
        );
        let size = pick(random, &[&8, &16, &32, &64, &128]).copied().unwrap_or(32);
        spec = spec.disk(&format!("{bus}{disk}"), storage(random, storages), size, &options.join(","));
    }
    let first = storage(random, storages);
    if random.random_bool(0.25) {
        spec = spec
            .config("bios", "ovmf")
            .config("machine", "q35")
            .config("efidisk0", format!("{first}:vm-{vmid}-disk-7,efitype=4m,pre-enrolled-keys=1,size=528K"));
        if random.random_bool(0.5) {
            spec = spec.config("tpmstate0", format!("{first}:vm-{vmid}-disk-8,size=4M,version=v2.0"));
        }
    }
    if random.random_bool(0.3) {
        spec = spec
            .config("ide0", format!("{first}:vm-{vmid}-cloudinit,media=cdrom,size=4M"))
            .config("ciuser", "admin")
            .config("cipassword", "**********")
            .config("ipconfig0", format!("ip=198.51.100.{}/24,gw=198.51.100.1", 2 + vmid % 250));
    }
    if random.random_bool(0.4) {
        let cdrom = if random.random_bool(0.3) {
            "local:iso/debian-12.iso,media=cdrom,size=632M"
        } else {
            "none,media=cdrom"
        };
        spec = spec.config("ide2", cdrom);
    }
    if random.random_bool(0.06) {
        spec = spec.config("unused0", format!("{first}:vm-{vmid}-disk-9"));
    }
    for nic in 0..random.random_range(1..=3) {
        let model = pick(random, &["virtio", "virtio", "virtio", "e1000e"]).unwrap_or("virtio");
        let mac = ids::mac(seed, &format!("{vmid} net{nic}"));
        let value = qemu_nic(model, &mac, bridge(random, nic), &nic_options(random));
        spec = spec.config(&format!("net{nic}"), value);
    }
    if random.random_bool(0.6) {
        spec = spec.config("agent", "1");
    }
    if random.random_bool(0.3) {
        spec = spec.config("sockets", random.random_range(1..=2));
    }
    if random.random_bool(0.5) {
        spec = spec.config("cpu", "host");
    }
    let gib: u32 = 1 << random.random_range(0..6);
    spec.config("cores", 1_i64 << random.random_range(0..4)).config("memory", (gib * 1024).to_string())
}

fn container(
    seed: u64,
    random: &mut ChaCha8Rng,
    mut spec: GuestSpec,
    vmid: u32,
    storages: &[String],
) -> GuestSpec {
    spec = spec.disk("rootfs", storage(random, storages), random.random_range(4..32), "");
    for mount in 0..random.random_range(0..3) {
        let backup = if random.random_bool(0.5) { "backup=1," } else { "" };
        let options = format!("{backup}mp=/srv/data{mount}");
        spec = spec.disk(
            &format!("mp{mount}"),
            storage(random, storages),
            random.random_range(8..256),
            &options,
        );
    }
    if random.random_bool(0.05) {
        spec = spec.config("mp9", "/srv/shared,mp=/mnt/shared");
    }
    for nic in 0..random.random_range(1..=2) {
        let mac = ids::mac(seed, &format!("{vmid} net{nic}"));
        let mut options = nic_options(random);
        options.push_str(",ip=dhcp");
        let value = lxc_nic(&format!("eth{nic}"), &mac, bridge(random, nic), &options);
        spec = spec.config(&format!("net{nic}"), value);
    }
    if random.random_bool(0.8) {
        spec = spec.config("cores", random.random_range(1..=4));
    }
    if random.random_bool(0.4) {
        spec = spec.config("features", "nesting=1");
    }
    spec.config("memory", 512_i64 << random.random_range(0..4))
}

/// One backup job of each sort: all with exceptions, a pool, a list, and one that is switched off.
fn jobs(state: &mut State) {
    let vmids: Vec<u32> = state.guests.keys().copied().collect();
    let every = |step: usize| vmids.iter().copied().step_by(step).collect::<Vec<_>>();
    let retention = json!({"keep-daily": "7", "keep-weekly": "4"});
    let pool = Selection::Pool("prod".to_owned());
    for job in [
        job("nightly", true, "02:00", Selection::All { exclude: every(7) }, json!({"mode": "snapshot"})),
        job("weekly-prod", true, "sun 03:00", pool, json!({"mode": "snapshot", "prune-backups": retention})),
        job("some", true, "mon..fri 22:30", Selection::Guests(every(14)), json!({"compress": "zstd"})),
        job("off-job", false, "sat 04:00", Selection::Guests(every(5)), json!({})),
    ] {
        state.jobs.insert(job.id.clone(), job);
    }
}

/// A backup job that stores to `local`.
pub(super) fn job(
    id: &str,
    enabled: bool,
    schedule: &str,
    selection: Selection,
    properties: Value,
) -> BackupJob {
    let properties = match properties {
        Value::Object(map) => map,
        _ => Map::new(),
    };
    BackupJob {
        id: id.to_owned(),
        enabled,
        schedule: schedule.to_owned(),
        storage: "local".to_owned(),
        selection,
        node: None,
        properties,
    }
}
