//! What happens to a cluster: random changes of the simulator's world, the same for the same seed.

use std::collections::BTreeSet;

use pve_sim::{
    BackupJob, ConfigValue, Guest, GuestKind, GuestSpec, Power, Selection, State, Storage, Usage, World,
};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// The storages that every generated world has for disks.
const STORAGES: [&str; 3] = ["local-lvm", "nfs-vm", "ceph-vm"];

/// Changes a world at random.
///
/// # Guarantees
/// - In one step a guest is touched once, and no node goes in a step in which guests change: a cluster seen between two such
///   steps is one that the program can know everything of, but for what is on offline nodes.
/// - Most nodes stay online, so that there is a quorum; of the guests of an offline node only the place changes.
/// - The number of guests stays near what it was.
pub struct Changes {
    random: StdRng,
    guests: usize,
    serial: u32,
}

impl Changes {
    /// `guests`: how many there are, about, at any time.
    pub fn new(seed: u64, guests: usize) -> Self {
        Self { random: StdRng::seed_from_u64(seed), guests, serial: 0 }
    }

    /// One step: some changes, which are told.
    pub fn step(&mut self, world: &World) -> Vec<String> {
        if self.random.random_bool(0.15)
            && let Some(done) = self.nodes(world)
        {
            return vec![done];
        }
        let mut touched = BTreeSet::new();
        let count = self.random.random_range(1..=6);
        (0..count).filter_map(|_| self.one(world, &mut touched)).collect()
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> Option<T> {
        if from.is_empty() { None } else { from.get(self.random.random_range(0..from.len())).cloned() }
    }

    /// A node goes, is forgotten, or comes back.
    fn nodes(&mut self, world: &World) -> Option<String> {
        let offline: Vec<(String, bool)> = world.read(|state| {
            let nodes = state.nodes.values().filter(|node| !node.online);
            nodes.map(|node| (node.name.to_string(), node.forgotten)).collect()
        });
        let nodes: Vec<String> = world.read(|state| state.nodes.keys().cloned().collect());
        if let Some((name, forgotten)) = offline.first() {
            if !forgotten && self.random.random_bool(0.4) {
                world.forget_offline(name).unwrap();
                return Some(format!("{name} is forgotten"));
            }
            world.set_node_online(name, true).unwrap();
            return Some(format!("{name} is back"));
        }
        // The first node is the one that answers.
        let name = self.pick(nodes.get(1..).unwrap_or_default())?;
        world.set_node_online(&name, false).unwrap();
        Some(format!("{name} goes offline"))
    }

    /// A guest of an online node that nothing has happened to yet in this step.
    fn guest(&mut self, world: &World, touched: &mut BTreeSet<u32>) -> Option<Guest> {
        let all: Vec<u32> = world.read(|state| {
            let here =
                |guest: &&Guest| state.nodes[guest.node.as_ref()].online && !touched.contains(&guest.vmid);
            state.guests.values().filter(here).map(|guest| guest.vmid).collect()
        });
        let vmid = self.pick(&all)?;
        touched.insert(vmid);
        world.read(|state| state.guests.get(&vmid).cloned())
    }

    fn online(&mut self, world: &World) -> Option<String> {
        let online = |state: &State| {
            state
                .nodes
                .values()
                .filter(|node| node.online)
                .map(|node| node.name.to_string())
                .collect::<Vec<_>>()
        };
        self.pick(&world.read(online))
    }

    fn spec(&mut self, vmid: u32, node: &str) -> GuestSpec {
        self.serial += 1;
        let name = format!("new-{}", self.serial);
        let storage = self.pick(&STORAGES).unwrap_or("local-lvm");
        let mac = format!("BC:24:11:00:{:02X}:{:02X}", self.serial / 256 % 256, self.serial % 256);
        if self.random.random_bool(0.4) {
            let nic = format!("name=eth0,bridge=vmbr0,hwaddr={mac},type=veth");
            GuestSpec::lxc(vmid, &name).node(node).disk("rootfs", storage, 8, "").config("net0", nic)
        } else {
            let nic = format!("virtio={mac},bridge=vmbr1,firewall=1");
            let spec = GuestSpec::qemu(vmid, &name).node(node).disk("scsi0", storage, 16, "cache=none");
            spec.disk("scsi1", "local-lvm", 4, "backup=0").config("net0", nic).power(Power::Running)
        }
    }

    fn one(&mut self, world: &World, touched: &mut BTreeSet<u32>) -> Option<String> {
        let count = world.read(|state| state.guests.len());
        // Towards the number that there should be.
        let (create, destroy) = if count < self.guests { (8, 3) } else { (3, 8) };
        match self.random.random_range(0..100) {
            n if n < create => self.create(world, touched),
            n if n < create + destroy => {
                let guest = self.guest(world, touched)?;
                world.remove_guest(guest.vmid).unwrap();
                Some(format!("{} is destroyed", guest.vmid))
            }
            11..16 => {
                let guest = self.guest(world, touched)?;
                let spec = self.spec(guest.vmid, &guest.node);
                world.recreate(spec).unwrap();
                Some(format!("{} is another guest", guest.vmid))
            }
            16..28 => self.migrate(world, touched),
            28..33 => self.recover(world, touched),
            33..40 => {
                let guest = self.guest(world, touched)?;
                self.serial += 1;
                world.rename(guest.vmid, &format!("renamed-{}", self.serial)).unwrap();
                Some(format!("{} is renamed", guest.vmid))
            }
            40..50 => self.settings(world, touched),
            50..66 => self.disks(world, touched),
            66..76 => self.nics(world, touched),
            76..86 => self.snapshots(world, touched),
            86..96 => self.jobs(world),
            _ => self.storages(world),
        }
    }

    fn create(&mut self, world: &World, touched: &mut BTreeSet<u32>) -> Option<String> {
        // The lowest free number: often one that a guest had.
        let vmid = world.read(State::next_vmid);
        let node = self.online(world)?;
        let spec = self.spec(vmid, &node);
        world.add_guest(spec).unwrap();
        touched.insert(vmid);
        Some(format!("{vmid} is created on {node}"))
    }

    fn migrate(&mut self, world: &World, touched: &mut BTreeSet<u32>) -> Option<String> {
        let guest = self.guest(world, touched)?;
        let node = self.online(world)?;
        world.migrate(guest.vmid, &node).unwrap();
        Some(format!("{} migrates to {node}", guest.vmid))
    }

    /// HA starts a guest of an offline node elsewhere.
    fn recover(&mut self, world: &World, touched: &mut BTreeSet<u32>) -> Option<String> {
        let lost: Vec<u32> = world.read(|state| {
            let lost =
                |guest: &&Guest| !state.nodes[guest.node.as_ref()].online && !touched.contains(&guest.vmid);
            state.guests.values().filter(lost).map(|guest| guest.vmid).collect()
        });
        let vmid = self.pick(&lost)?;
        touched.insert(vmid);
        let node = self.online(world)?;
        world.migrate(vmid, &node).unwrap();
        Some(format!("{vmid} is recovered to {node}"))
    }

    fn settings(&mut self, world: &World, touched: &mut BTreeSet<u32>) -> Option<String> {
        let guest = self.guest(world, touched)?;
        let vmid = guest.vmid;
        let what = self.random.random_range(0..7);
        match what {
            0 => {
                world.set_tags(vmid, &["soak", "web"][..self.random.random_range(0..=2)]).unwrap();
            }
            1 => {
                let pool = self.pick(&[None, Some("prod"), Some("test")]).flatten();
                world.set_pool(vmid, pool).unwrap();
            }
            2 => world.set_config(vmid, "cores", self.random.random_range(1..9)).unwrap(),
            3 => {
                let memory = 512_i64 << self.random.random_range(0..4);
                let value: ConfigValue = match guest.kind {
                    GuestKind::Qemu => memory.to_string().into(),
                    GuestKind::Lxc => memory.into(),
                };
                world.set_config(vmid, "memory", value).unwrap();
            }
            4 => {
                let states = [Power::Running, Power::Stopped, Power::Paused];
                let states =
                    if guest.kind == GuestKind::Qemu { &states[..] } else { states.get(..2).unwrap() };
                world.set_power(vmid, self.pick(states)?).unwrap();
            }
            5 => world.set_config(vmid, "onboot", self.random.random_range(0..=1)).unwrap(),
            _ if guest.lock().is_some() => world.delete_config(vmid, "lock").unwrap(),
            _ => world.set_config(vmid, "lock", "backup").unwrap(),
        }
        Some(format!("setting {what} of {vmid} changes"))
    }

    fn disks(&mut self, world: &World, touched: &mut BTreeSet<u32>) -> Option<String> {
        let guest = self.guest(world, touched)?;
        let vmid = guest.vmid;
        let is_free = |key: &String| guest.config.get(key).is_none();
        let new = |prefix: &str| (0..9).map(|n| format!("{prefix}{n}")).find(is_free);
        let mut own: Vec<String> = guest
            .drives()
            .iter()
            .filter(|drive| !drive.is_cdrom() && drive.storage().is_some() && drive.size().is_some())
            .map(|drive| drive.key.to_owned())
            .collect();
        own.retain(|key| ["scsi", "virtio", "sata", "mp", "rootfs"].iter().any(|kind| key.starts_with(kind)));
        let storage = self.pick(&STORAGES)?;
        match self.random.random_range(0..5) {
            0 => {
                let (key, options) = match guest.kind {
                    GuestKind::Qemu => (new("scsi")?, ""),
                    GuestKind::Lxc => (new("mp")?, "mp=/srv/new,backup=1,"),
                };
                let volume = format!("{storage}:vm-{vmid}-disk-n{key}");
                world.set_config(vmid, &key, format!("{volume},{options}size=5G")).unwrap();
                Some(format!("{vmid} gets {key}"))
            }
            1 => {
                let key = self.pick(&own)?;
                world.move_disk(vmid, &key, storage).unwrap();
                Some(format!("{key} of {vmid} moves to {storage}"))
            }
            2 => {
                let key = self.pick(&own)?;
                world.grow_disk(vmid, &key, 1).unwrap();
                Some(format!("{key} of {vmid} grows"))
            }
            n => {
                own.retain(|key| key != "rootfs");
                let key = self.pick(&own)?;
                let volume = guest.config.text(&key)?.split(',').next()?.to_owned();
                world.delete_config(vmid, &key).unwrap();
                if n == 3 {
                    let unused = new("unused")?;
                    world.set_config(vmid, &unused, volume).unwrap();
                    return Some(format!("{key} of {vmid} becomes {unused}"));
                }
                Some(format!("{key} of {vmid} goes"))
            }
        }
    }

    fn nics(&mut self, world: &World, touched: &mut BTreeSet<u32>) -> Option<String> {
        let guest = self.guest(world, touched)?;
        let vmid = guest.vmid;
        let key = format!("net{}", self.random.random_range(0..4));
        if guest.config.get(&key).is_some() && self.random.random_bool(0.5) {
            world.delete_config(vmid, &key).unwrap();
            return Some(format!("{key} of {vmid} goes"));
        }
        self.serial += 1;
        let mac = format!("BC:24:11:01:{:02X}:{:02X}", self.serial / 256 % 256, self.serial % 256);
        let tag = self.random.random_range(2..200);
        let nic = match guest.kind {
            GuestKind::Qemu => format!("e1000e={mac},bridge=vmbr1,tag={tag}"),
            GuestKind::Lxc => {
                format!("name=eth{tag},bridge=vmbr1,firewall=1,hwaddr={mac},tag={tag},type=veth")
            }
        };
        world.set_config(vmid, &key, nic).unwrap();
        Some(format!("{key} of {vmid} is new"))
    }

    fn snapshots(&mut self, world: &World, touched: &mut BTreeSet<u32>) -> Option<String> {
        let guest = self.guest(world, touched)?;
        let vmid = guest.vmid;
        if guest.snapshots.len() > 2 || (!guest.snapshots.is_empty() && self.random.random_bool(0.4)) {
            // The last one: those after it would need another parent.
            let name = guest.snapshots.last()?.name.clone();
            let changed = world.edit_guest(vmid, |guest| {
                guest.snapshots.pop();
                match guest.snapshots.last().map(|snapshot| snapshot.name.clone()) {
                    Some(parent) => guest.config.set("parent", parent),
                    None => drop(guest.config.remove("parent")),
                }
            });
            changed.unwrap();
            return Some(format!("snapshot {name} of {vmid} goes"));
        }
        self.serial += 1;
        let name = format!("s{}", self.serial);
        world.add_snapshot(vmid, &name, "before the change").unwrap();
        Some(format!("{vmid} gets snapshot {name}"))
    }

    fn jobs(&mut self, world: &World) -> Option<String> {
        let (ids, vmids) = world.read(|state| {
            (state.jobs.keys().cloned().collect::<Vec<_>>(), state.guests.keys().copied().collect::<Vec<_>>())
        });
        let some = |random: &mut StdRng| -> Vec<u32> {
            vmids.iter().copied().filter(|_| random.random_bool(0.3)).collect()
        };
        match self.random.random_range(0..4) {
            0 if ids.len() < 6 => {
                self.serial += 1;
                let job = BackupJob {
                    id: format!("job-{}", self.serial),
                    enabled: true,
                    schedule: "04:30".to_owned(),
                    storage: self.pick(&["local", "nfs-vm"])?.to_owned(),
                    selection: Selection::Guests(some(&mut self.random)),
                    node: None,
                    properties: serde_json::Map::new(),
                };
                let told = format!("{} is new", job.id);
                world.add_backup_job(job);
                Some(told)
            }
            1 if ids.len() > 2 => {
                let id = self.pick(&ids)?;
                world.remove_backup_job(&id).unwrap();
                Some(format!("{id} goes"))
            }
            2 => {
                let id = self.pick(&ids)?;
                let enabled = self.random.random_bool(0.5);
                world.set_job_enabled(&id, enabled).unwrap();
                Some(format!("{id} is enabled: {enabled}"))
            }
            _ => {
                let id = self.pick(&ids)?;
                let selection = match self.random.random_range(0..3) {
                    0 => Selection::All { exclude: some(&mut self.random) },
                    1 => Selection::Pool("prod".to_owned()),
                    _ => Selection::Guests(some(&mut self.random)),
                };
                let told = format!("{id} takes {selection:?}");
                world.update(|state| state.jobs.get_mut(&id).unwrap().selection = selection);
                Some(told)
            }
        }
    }

    fn storages(&mut self, world: &World) -> Option<String> {
        let added: Vec<String> =
            world.read(|state| state.storages.keys().filter(|id| id.starts_with("soak-")).cloned().collect());
        if added.len() > 2
            && let Some(id) = self.pick(&added)
        {
            world.remove_storage(&id).unwrap();
            return Some(format!("storage {id} goes"));
        }
        self.serial += 1;
        let id = format!("soak-{}", self.serial);
        world.add_storage(Storage {
            id: id.clone(),
            kind: "nfs".to_owned(),
            content: "images,backup".to_owned(),
            shared: true,
            nodes: None,
            disabled: self.random.random_bool(0.3),
            properties: serde_json::Map::new(),
            usage: Usage { total: 1 << 40, used: 1 << 39 },
            usage_on: std::collections::BTreeMap::new(),
        });
        Some(format!("storage {id} is new"))
    }
}
