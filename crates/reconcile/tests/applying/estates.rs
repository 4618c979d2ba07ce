//! Random estates: guests as they are, whose they are, and what is desired of them and of guests that are not there.

use std::collections::BTreeSet;

use proptest::collection::{btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use pve_sim::{Guest, GuestSpec, Power, Snapshot, World};
use serde_json::{Value, json};

use crate::rig::{container, machine};

/// A guest, whose it is, and what is desired of it.
#[derive(Debug, Clone)]
pub struct One {
    pub is: Is,
    pub managed: bool,
    pub wants: Wants,
    pub placed: Placed,
    pub doom: Doom,
}

/// What a guest is before anything is planned.
#[derive(Debug, Clone)]
pub struct Is {
    pub machine: bool,
    pub runs: bool,
    node: usize,
    storage: usize,
    second: bool,
    pub ha: bool,
    pub template: bool,
    snapshots: usize,
}

/// What options shall be.
#[derive(Debug, Clone)]
pub struct Wants {
    pub cores: Option<u8>,
    pub memory: Option<u16>,
    pub tags: Option<BTreeSet<String>>,
    named: bool,
    grow: bool,
    unset: bool,
    reboot: bool,
    network: bool,
    second: Option<Second>,
}

/// What becomes of the second disk.
#[derive(Debug, Clone, Copy)]
pub enum Second {
    /// It is detached.
    Detached,
    /// It is on this storage, and is made there where it is not.
    On(usize),
}

/// Where it shall be, and what it shall do there.
#[derive(Debug, Clone)]
pub struct Placed {
    pub node: Option<usize>,
    /// Where no one node is desired: it may be on these.
    pub nodes: BTreeSet<usize>,
    prefers: bool,
    pub state: Option<bool>,
    pub storage: Option<usize>,
    local_disks: bool,
    force: bool,
    pub template: bool,
}

/// The keys to a deletion.
#[derive(Debug, Clone)]
pub struct Doom {
    pub tombstone: bool,
    deletion: bool,
    pub consent: bool,
    protected: bool,
    protection: bool,
}

/// A guest that is desired and not there.
#[derive(Debug, Clone)]
pub struct New {
    numbered: bool,
    pub copy: Option<Copy>,
    pub wants: Wants,
    pub placed: Placed,
}

/// What it is a copy of.
#[derive(Debug, Clone)]
pub struct Copy {
    /// One of the guests that are there, or of the new ones before it.
    of: usize,
    full: Option<bool>,
    storage: Option<usize>,
    snapshot: bool,
}

/// What is done to a guest when all is as desired.
#[derive(Debug, Clone, Copy)]
pub struct Later {
    pub guest: usize,
    /// It goes back to what was kept, after somebody changed it.
    pub back: bool,
}

#[derive(Debug, Clone)]
pub struct Estate {
    pub guests: Vec<One>,
    pub made: Vec<New>,
    pub allows_destroy: bool,
    pub max_deletes: i64,
    pub later: Option<Later>,
}

/// Two that only one node has, and two that are the same everywhere.
const STORAGES: [&str; 4] = ["local-lvm", "nfs-vm", "ceph-vm", "tank"];

fn wants() -> impl Strategy<Value = Wants> {
    let values = (option::of(1_u8..4), option::of(1_u16..4), option::of(btree_set("[a-c]", 0..3)));
    let second = option::weighted(
        0.25,
        prop_oneof![1 => Just(Second::Detached), 2 => (0..STORAGES.len()).prop_map(Second::On)],
    );
    let flags = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>(), proptest::bool::weighted(0.3));
    (values, flags, second).prop_map(
        |((cores, memory, tags), (named, grow, unset, reboot, network), second)| Wants {
            cores,
            memory,
            tags,
            named,
            grow,
            unset,
            reboot,
            network,
            second,
        },
    )
}

fn placed() -> impl Strategy<Value = Placed> {
    (
        option::weighted(0.3, 0_usize..3),
        (prop_oneof![3 => Just(BTreeSet::new()), 1 => btree_set(0_usize..3, 1..3)], any::<bool>()),
        option::weighted(0.4, any::<bool>()),
        option::weighted(0.3, 0..STORAGES.len()),
        any::<bool>(),
        any::<bool>(),
        proptest::bool::weighted(0.1),
    )
        .prop_map(|(node, (nodes, prefers), state, storage, local_disks, force, template)| Placed {
            node,
            nodes: if node.is_some() { BTreeSet::new() } else { nodes },
            prefers,
            // A template never runs, and a document that says so is refused.
            state: state.filter(|runs| !(template && *runs)),
            storage,
            local_disks,
            force,
            template,
        })
}

fn doom() -> impl Strategy<Value = Doom> {
    // Most have every key or none, so that some guests go.
    prop_oneof![
        6 => Just([false; 5]),
        2 => Just([true, true, true, false, false]),
        2 => Just([true, true, true, true, false]),
        1 => any::<[bool; 5]>(),
    ]
    .prop_map(|[tombstone, deletion, consent, protected, protection]| Doom {
        tombstone,
        deletion,
        consent,
        protected,
        protection,
    })
}

fn one() -> impl Strategy<Value = One> {
    let flags = (any::<bool>(), any::<bool>(), proptest::bool::weighted(0.3), proptest::bool::weighted(0.15));
    let rest = (proptest::bool::weighted(0.25), 0_usize..3, 0..STORAGES.len(), 0_usize..3);
    let is =
        (flags, rest).prop_map(|((machine, runs, second, ha), (template, node, storage, snapshots))| Is {
            machine,
            runs: runs && !template,
            node,
            storage,
            second,
            ha: ha && !template,
            template,
            snapshots: if template { 0 } else { snapshots },
        });
    (is, proptest::bool::weighted(0.75), wants(), placed(), doom())
        .prop_map(|(is, managed, wants, placed, doom)| One { is, managed, wants, placed, doom })
}

fn new() -> impl Strategy<Value = New> {
    let copy = (any::<usize>(), option::of(any::<bool>()), option::weighted(0.3, 0..STORAGES.len()))
        .prop_flat_map(|(of, full, storage)| {
            proptest::bool::weighted(0.3).prop_map(move |snapshot| Copy {
                of,
                full,
                // A linked copy has no storage of its own, and a document that says so is refused.
                storage: storage.filter(|_| full != Some(false)),
                snapshot,
            })
        });
    (any::<bool>(), option::weighted(0.8, copy), wants(), placed())
        .prop_map(|(numbered, copy, wants, placed)| New { numbered, copy, wants, placed })
}

pub fn estates() -> impl Strategy<Value = Estate> {
    let later = (0_usize..6, any::<bool>()).prop_map(|(guest, back)| Later { guest, back });
    (
        vec(one(), 1..5),
        vec(new(), 0..3),
        proptest::bool::weighted(0.8),
        select(vec![0_i64, 1, 1, 2]),
        option::weighted(0.3, later),
    )
        .prop_map(|(guests, made, allows_destroy, max_deletes, later)| Estate {
            guests,
            made,
            allows_destroy,
            max_deletes,
            later,
        })
}

pub fn node(at: usize) -> String {
    format!("pve{}", at + 1)
}

pub fn vmid(at: usize) -> u32 {
    100 + u32::try_from(at).unwrap()
}

fn disks(machine: bool) -> (&'static str, &'static str) {
    if machine { ("scsi0", "scsi1") } else { ("rootfs", "mp0") }
}

impl Doom {
    pub fn all(&self) -> bool {
        self.tombstone && self.deletion && self.consent && !self.protected && !self.protection
    }
}

impl One {
    pub fn uid(&self, at: usize) -> String {
        format!("{}-{}", if self.is.machine { "vm" } else { "ct" }, vmid(at))
    }

    pub fn spec(&self, at: usize) -> GuestSpec {
        let Is { machine: is_machine, runs, node: on, storage, second, ha, .. } = self.is;
        let (vmid, node) = (vmid(at), node(on));
        let spec = if is_machine { machine(vmid, &node) } else { container(vmid, &node) };
        let (first, other) = disks(is_machine);
        let mut spec = spec.disk(first, STORAGES[storage], 4, "").config("onboot", 1);
        if second {
            let options = if is_machine { "" } else { "mp=/srv" };
            spec = spec.disk(other, STORAGES[(storage + 1) % STORAGES.len()], 1, options);
        }
        if self.doom.protection {
            spec = spec.config("protection", 1);
        }
        if ha {
            spec = spec.ha(if runs { "started" } else { "stopped" });
        }
        spec.power(if runs { Power::Running } else { Power::Stopped })
    }

    /// What a guest's making does not say of it: what was kept of it, when it had more processors, and that it is a template.
    pub fn finish(&self, world: &World, at: usize) {
        let vmid = vmid(at);
        let is_machine = self.is.machine;
        // Of files only qcow2 keeps any.
        let keeps_none = world.read(|state| {
            let config = &state.guests[&vmid].config;
            let text = |key| config.text(key).map(std::borrow::Cow::into_owned).unwrap_or_default();
            <[&str; 2]>::from(disks(is_machine))
                .into_iter()
                .map(text)
                .any(|text| text.starts_with("nfs-vm:") && !text.contains(".qcow2"))
        });
        for number in 0..if keeps_none { 0 } else { self.is.snapshots } {
            world
                .edit_guest(vmid, |guest| {
                    let mut then = guest.config.clone();
                    then.set("cores", 8);
                    let parent = then.text("parent").map(std::borrow::Cow::into_owned);
                    then.remove("parent");
                    let name = format!("snap{number}");
                    guest.config.set("parent", name.clone());
                    guest.snapshots.push(Snapshot {
                        name,
                        description: String::new(),
                        time: 1_700_000_000 + number as u64,
                        with_memory: false,
                        parent,
                        config: Some(then),
                    });
                })
                .unwrap();
        }
        if self.is.template {
            world
                .edit_guest(vmid, |guest| {
                    for key in <[&str; 2]>::from(disks(is_machine)) {
                        let Some(text) = guest.config.text(key) else { continue };
                        let disk = |prefix: &str| format!("{prefix}-{vmid}-disk");
                        let base = text.replace(&disk("vm"), &disk("base"));
                        guest.config.set(key, base.replace(&disk("subvol"), &disk("basevol")));
                    }
                    guest.config.set("template", 1);
                })
                .unwrap();
        }
    }

    pub fn entry(&self, at: usize) -> Value {
        let doom = &self.doom;
        let mut entry = json!({
            "vmid": vmid(at), "protected": doom.protected, "tombstone": doom.tombstone,
            "deletion": if doom.deletion { "destroy" } else { "forbid" },
        });
        self.wants.put(&mut entry, self.is.machine, at, self.placed.storage);
        self.placed.put(&mut entry);
        entry
    }
}

impl Wants {
    fn put(&self, entry: &mut Value, machine: bool, at: usize, storage: Option<usize>) {
        let Self { cores, memory, tags, named, grow, unset, reboot, network, second } = self;
        let (first, other) = disks(machine);
        let mut put = |key: &str, value: Value| entry[key] = value;
        put("reboot", json!(if *reboot { "allow" } else { "never" }));
        if let Some(cores) = cores {
            put("cores", json!(cores));
        }
        if let Some(memory) = memory {
            put("memory", json!(i64::from(*memory) * 512));
        }
        if let Some(tags) = tags {
            put("tags", json!(tags));
        }
        if *named {
            put(if machine { "name" } else { "hostname" }, json!(format!("named{at}")));
        }
        if *network {
            let key = if machine { "model" } else { "name" };
            put("net0", json!({ key: if machine { "virtio" } else { "eth0" }, "bridge": "vmbr0" }));
        }
        let mut disk = json!({});
        if *grow {
            disk["size"] = json!("6G");
        }
        if let Some(storage) = storage {
            disk["storage"] = json!(STORAGES[storage]);
        }
        if disk != json!({}) {
            put(first, disk);
        }
        let mut removed = Vec::new();
        if *unset {
            removed.push("onboot");
        }
        match second {
            Some(Second::Detached) => removed.push(other),
            Some(Second::On(storage)) => {
                let mut disk = json!({ "storage": STORAGES[*storage], "size": "1G" });
                if !machine {
                    disk["mp"] = json!("/srv");
                }
                put(other, disk);
            }
            None => {}
        }
        if !removed.is_empty() {
            put("unset", json!(removed));
        }
    }
}

impl Placed {
    fn put(&self, entry: &mut Value) {
        let Self { node: on, nodes, prefers, state, storage: _, local_disks, force, template } = self;
        let mut put = |key: &str, value: Value| entry[key] = value;
        put("local_disks", json!(if *local_disks { "migrate" } else { "stay" }));
        if *force {
            put("shutdown", json!("force"));
        }
        if let Some(target) = on {
            put("node", json!(node(*target)));
        }
        if let Some(last) = nodes.last() {
            put("nodes", json!(nodes.iter().map(|at| node(*at)).collect::<Vec<_>>()));
            if *prefers {
                put("prefer", json!([node(*last)]));
            }
        }
        if let Some(runs) = state {
            put("state", json!(if *runs { "running" } else { "stopped" }));
        }
        if *template {
            put("template", json!(true));
        }
    }
}

/// What of a guest is not as it is desired, waiting changes included. Nothing of the program is asked.
pub fn wrong(guest: &Guest, machine: bool, wants: &Wants, placed: &Placed) -> Option<String> {
    let config = guest.config_to_be();
    let text = |key: &str| config.text(key).map(std::borrow::Cow::into_owned).unwrap_or_default();
    let (first, other) = disks(machine);
    let on = |key: &str, storage: usize| text(key).starts_with(&format!("{}:", STORAGES[storage]));
    let tags: BTreeSet<String> = text("tags").split(';').map(str::to_owned).collect();
    let has_second = match wants.second {
        Some(Second::Detached) => text(other).is_empty(),
        Some(Second::On(storage)) => on(other, storage),
        None => true,
    };
    let all = [
        ("node", placed.node.is_none_or(|at| *guest.node == node(at))),
        ("nodes", placed.nodes.is_empty() || placed.nodes.iter().any(|at| *guest.node == node(*at))),
        ("state", placed.state.is_none_or(|runs| guest.is_running() == runs)),
        ("template", !placed.template || guest.is_template()),
        ("storage", placed.storage.is_none_or(|storage| on(first, storage))),
        ("size", !wants.grow || text(first).contains("size=6G")),
        ("second", has_second),
        // A machine without any has one.
        (
            "cores",
            wants.cores.is_none_or(|cores| {
                text("cores") == cores.to_string() || machine && cores == 1 && text("cores").is_empty()
            }),
        ),
        ("tags", wants.tags.as_ref().is_none_or(|wanted| wanted.is_subset(&tags))),
        ("onboot", !wants.unset || text("onboot").is_empty()),
    ];
    let wrong = all.into_iter().find(|(_, right)| !right);
    wrong.map(|(field, _)| format!("{field}: {config:?} on {}", guest.node))
}

impl Estate {
    /// A new guest's `uid`.
    pub fn new_uid(at: usize) -> String {
        format!("new-{at}")
    }

    /// The kind of a new guest is that of what it is copied from.
    pub fn is_machine(&self, at: usize) -> bool {
        let new = &self.made[at];
        match &new.copy {
            None => true,
            Some(copy) => {
                let of = copy.of % (self.guests.len() + at);
                self.guests
                    .get(of)
                    .map_or_else(|| self.is_machine(of - self.guests.len()), |one| one.is.machine)
            }
        }
    }

    /// What is desired of a new guest, and whether it is a machine.
    pub fn new_entry(&self, at: usize) -> (bool, Value) {
        let new = &self.made[at];
        let machine = self.is_machine(at);
        let mut entry = json!({ "uid": Self::new_uid(at) });
        let number = |at: usize| 300 + at;
        let of = new.copy.as_ref().map(|copy| copy.of % (self.guests.len() + at));
        // What is copied by its number has one.
        let copied = (at + 1..self.made.len()).any(|later| {
            let later = (&self.made[later].copy, later);
            later
                .0
                .as_ref()
                .is_some_and(|copy| copy.of % (self.guests.len() + later.1) == self.guests.len() + at)
        });
        if new.numbered || copied {
            entry["vmid"] = json!(number(at));
        }
        new.wants.put(&mut entry, machine, 50 + at, new.placed.storage);
        new.placed.put(&mut entry);
        match (&new.copy, of) {
            (Some(copy), Some(of)) => {
                let from = if of < self.guests.len() {
                    usize::try_from(vmid(of)).unwrap()
                } else {
                    number(of - self.guests.len())
                };
                let mut clone = json!({ "from": from });
                if let Some(full) = copy.full {
                    clone["full"] = json!(full);
                }
                if let Some(storage) = copy.storage {
                    clone["storage"] = json!(STORAGES[storage]);
                }
                if copy.snapshot {
                    clone["snapshot"] = json!("snap0");
                }
                entry["clone"] = clone;
            }
            _ => {
                let storage = STORAGES[new.placed.storage.unwrap_or(1)];
                entry["scsi0"] =
                    json!({ "storage": storage, "size": if new.wants.grow { "6G" } else { "1G" } });
                if entry.get("node").is_none() && entry.get("nodes").is_none() {
                    entry["node"] = json!("pve1");
                }
            }
        }
        (machine, entry)
    }
}
