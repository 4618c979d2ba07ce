//! What holds of every plan, over random estates.

use std::collections::BTreeMap;

use proptest::prelude::*;
use pvegraph_reconcile::canonical::TagStyle;
use pvegraph_reconcile::diff;
use pvegraph_reconcile::live::LiveGuest;
use pvegraph_reconcile::plan::{Action, Plan};
use serde_json::{Value, json};

use crate::estate::{Estate, bound, desired, live, unmarked};

/// One guest: what is desired of it and what it has.
fn guest() -> impl Strategy<Value = (Value, Vec<(&'static str, String)>, [bool; 8])> {
    let entry = (
        prop::option::of(1..5_i64),
        prop::option::of(prop::sample::select(vec!["vmbr0", "vmbr1"])),
        prop::option::of(8..12_u32),
        prop::option::of("[a-z]{1,4}"),
        prop::option::of("[a-z]{0,6}"),
    );
    let live = (1..5_i64, prop::sample::select(vec!["vmbr0", "vmbr1"]), 8..10_u32, prop::bool::ANY);
    (entry, live, prop::array::uniform8(prop::bool::weighted(0.7))).prop_map(|(entry, live, flags)| {
        let mut wanted = json!({});
        let (cores, bridge, size, tag, text) = entry;
        if let Some(cores) = cores {
            wanted["cores"] = json!(cores);
        }
        if let Some(bridge) = bridge {
            wanted["net0"] = json!({ "bridge": bridge, "model": "virtio" });
        }
        if let Some(size) = size {
            wanted["scsi0"] = json!({ "storage": "lvm", "size": format!("{size}G") });
        }
        if let Some(tag) = tag {
            wanted["tags"] = json!([tag]);
        }
        if let Some(text) = text {
            wanted["description"] = json!(text);
        }
        let (cores, bridge, size, odd) = live;
        let odd = if odd { ",odd=x" } else { "" };
        let has = vec![
            ("cores", cores.to_string()),
            ("net0", format!("virtio=BC:24:11:00:00:01,bridge={bridge}{odd}")),
            ("scsi0", format!("lvm:disk-0,iothread=1,size={size}G")),
            ("unknown", "left alone".to_owned()),
        ];
        (wanted, has, flags)
    })
}

/// The guest after the plan's calls, as Proxmox VE would have it.
fn applied(estate: &Estate, plan: &Plan) -> Vec<LiveGuest> {
    let mut guests: BTreeMap<i64, LiveGuest> =
        estate.guests.iter().map(|guest| (guest.vmid, guest.clone())).collect();
    for operation in &plan.operations {
        let wanted = &estate.desired.guests[&operation.uid];
        if operation.action == Action::Destroy {
            guests.remove(&operation.vmid);
            continue;
        }
        let Some(guest) = guests.get_mut(&operation.vmid) else { continue };
        for request in &operation.requests {
            let before = guest.clone();
            let form = request.form(None, wanted, Some(&before), |_| Err("none".to_owned())).unwrap();
            for (name, value) in &form {
                match (operation.action, name.as_str()) {
                    (Action::Grow, "disk") => {
                        let text = &guest.config[value];
                        let (head, _) = text.rsplit_once("size=").unwrap();
                        let grown = format!("{head}size={}", form["size"]);
                        guest.config.insert(value.clone(), grown);
                    }
                    (Action::Grow, _) => {}
                    (_, "delete") => value.split(',').for_each(|key| drop(guest.config.remove(key))),
                    _ => drop(guest.config.insert(name.clone(), value.clone())),
                }
            }
        }
    }
    guests.into_values().collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    /// Applying a plan leaves nothing to plan; guests without all keys are byte-identical, and so is what nobody desires.
    #[test]
    fn a_plan_brings_what_is_desired_and_touches_nothing_else(guests in prop::collection::vec(guest(), 1..6)) {
        let mut entries = Vec::new();
        let mut has = Vec::new();
        let mut unbound = Vec::new();
        for (at, (mut entry, config, [bound, marked, scoped, managed, alone, dead, deletable, agreed])) in guests.into_iter().enumerate() {
            let vmid = if scoped { 100 } else { 1_000 } + i64::try_from(at).unwrap();
            let config: Vec<(&str, &str)> = config.iter().map(|(key, value)| (*key, value.as_str())).collect();
            has.push(if marked { live(vmid, "stopped", &config) } else { unmarked(vmid, "stopped", &config) });
            entry["vmid"] = json!(vmid);
            entry["policy"] = json!(if managed { "manage" } else { "observe" });
            entry["tombstone"] = json!(!dead);
            entry["deletion"] = json!(if deletable { "destroy" } else { "forbid" });
            entry["protected"] = json!(!agreed);
            if alone {
                entries.push(entry);
            }
            if !bound {
                unbound.push(format!("vm-{vmid}"));
            }
        }
        prop_assume!(!entries.is_empty());
        let mut estate = Estate::new(desired(entries), &has);
        for uid in &unbound {
            estate.bindings.remove(uid);
        }
        estate.scopes[0].allow.insert(Action::Destroy);
        estate.scopes[0].max_deletes = 100;
        estate.consent.delete = estate.desired.guests.values().filter(|guest| guest.tombstone).map(|guest| guest.uid.clone()).collect();
        let plan = estate.plan();
        prop_assert_eq!(&Plan::from_file(&plan.to_file(), 1_000).unwrap(), &plan);
        let after = applied(&estate, &plan);
        for guest in &estate.guests {
            let wanted = estate.desired.guests.values().find(|wanted| wanted.vmid == Some(guest.vmid));
            let keys = estate.bindings.contains_key(&format!("vm-{}", guest.vmid))
                && guest.is_marked(&"rig".parse().unwrap(), &format!("vm-{}", guest.vmid))
                && estate.scopes[0].has(guest.vmid)
                && wanted.is_some_and(|wanted| wanted.policy == pvegraph_reconcile::document::Policy::Manage);
            match after.iter().find(|one| one.vmid == guest.vmid) {
                Some(one) if !keys => prop_assert_eq!(one, guest),
                Some(one) => {
                    prop_assert_eq!(&one.config["unknown"], "left alone");
                    let is_marked = one.is_marked(&"rig".parse().unwrap(), &format!("vm-{}", guest.vmid));
                    prop_assert!(is_marked);
                    prop_assert!(one.config["net0"].contains("BC:24:11:00:00:01"));
                    prop_assert_eq!(one.config["net0"].contains("odd=x"), guest.config["net0"].contains("odd=x"));
                    prop_assert!(one.config["scsi0"].starts_with("lvm:disk-0,iothread=1"));
                    let blocked = plan.blocked.iter().any(|remark| remark.subject.starts_with(&format!("vm-{} ", guest.vmid)));
                    if !blocked {
                        let left = diff::diff(wanted.unwrap(), one, &BTreeMap::new(), TagStyle::default());
                        prop_assert!(left.noop(), "{}", left);
                    }
                }
                None => {
                    let wanted = wanted.unwrap();
                    prop_assert!(keys && wanted.tombstone && !wanted.protected);
                    prop_assert_eq!(wanted.deletion.as_str(), "destroy");
                }
            }
        }
        let estate = Estate { guests: after, ..estate };
        let again = estate.plan();
        prop_assert!(again.operations.is_empty(), "{:?}", again.operations);
    }
}

/// A machine, where it is and shall be, and a copy that is made of one.
#[derive(Debug, Clone)]
struct Placed {
    storage: usize,
    node: bool,
    flags: [bool; 4],
    wants: (Option<usize>, Option<bool>, Option<bool>, Option<i64>, bool, bool),
}

/// The first is on one node only.
const STORAGES: [&str; 3] = ["lvm", "nfs", "ceph"];

fn placed() -> impl Strategy<Value = Placed> {
    let wants = (
        prop::option::weighted(0.4, 0..STORAGES.len()),
        prop::option::weighted(0.4, prop::bool::ANY),
        prop::option::weighted(0.4, prop::bool::ANY),
        prop::option::of(1..5_i64),
        prop::bool::ANY,
        prop::bool::weighted(0.15),
    );
    (0..STORAGES.len(), prop::bool::ANY, prop::array::uniform4(prop::bool::weighted(0.4)), wants)
        .prop_map(|(storage, node, flags, wants)| Placed { storage, node, flags, wants })
}

fn node(second: bool) -> &'static str {
    if second { "pve2" } else { "pve1" }
}

impl Placed {
    fn live(&self, vmid: i64) -> LiveGuest {
        let [runs, snapshot, template, _] = self.flags;
        let disk = format!("{}:vm-{vmid}-disk-0,iothread=1,size=4G", STORAGES[self.storage]);
        let mut config = vec![("scsi0", disk.as_str()), ("cores", "2"), ("digest", "d")];
        if template {
            config.push(("template", "1"));
        } else if snapshot {
            config.push(("parent", "before"));
        }
        let mut guest = live(vmid, if runs && !template { "running" } else { "stopped" }, &config);
        guest.node = node(self.node).to_owned();
        guest
    }

    fn entry(&self, vmid: i64) -> Value {
        let (storage, on, state, cores, grow, template) = self.wants;
        let mut entry = json!({ "vmid": vmid, "reboot": "allow" });
        let mut disk = json!({});
        if let Some(storage) = storage {
            disk["storage"] = json!(STORAGES[storage]);
        }
        if grow {
            disk["size"] = json!("6G");
        }
        if disk != json!({}) {
            entry["scsi0"] = disk;
        }
        if let Some(on) = on {
            entry["node"] = json!(node(on));
        }
        if let Some(runs) = state.filter(|_| !template) {
            entry["state"] = json!(if runs { "running" } else { "stopped" });
        }
        if let Some(cores) = cores {
            entry["cores"] = json!(cores);
        }
        if template {
            entry["template"] = json!(true);
        }
        entry
    }
}

/// The guests after a plan's calls, as Proxmox VE would have them: moved, migrated, copied, started, made templates.
fn carried_out(estate: &Estate, plan: &Plan) -> Vec<LiveGuest> {
    let mut guests: BTreeMap<i64, LiveGuest> =
        estate.guests.iter().map(|guest| (guest.vmid, guest.clone())).collect();
    for operation in &plan.operations {
        let wanted = &estate.desired.guests[&operation.uid];
        for request in &operation.requests {
            let of: i64 = request.path.split('/').nth(4).unwrap().parse().unwrap();
            let has = guests[&of].clone();
            assert_eq!(request.path.split('/').nth(2), Some(&*has.node), "{request}");
            let form = request.form(None, wanted, Some(&has), |_| Err("none".to_owned())).unwrap();
            let disk = |storage: &str, text: &str| {
                format!("{storage}:vm-{}-disk-9,{}", operation.vmid, text.split_once(',').unwrap().1)
            };
            let guest = guests.get_mut(&of).unwrap();
            match request.path.rsplit('/').next().unwrap() {
                "move_disk" => {
                    let moved = disk(&form["storage"], &has.config[&form["disk"]]);
                    guest.config.insert(form["disk"].clone(), moved);
                }
                "migrate" => guest.node.clone_from(&form["target"]),
                "start" | "reboot" => guest.status = "running".to_owned(),
                "shutdown" => guest.status = "stopped".to_owned(),
                "template" => drop(guest.config.insert("template".to_owned(), "1".to_owned())),
                "resize" => {
                    let (head, _) = has.config[&form["disk"]].rsplit_once("size=").unwrap();
                    guest.config.insert(form["disk"].clone(), format!("{head}size={}", form["size"]));
                }
                "clone" => {
                    let number: i64 = form["newid"].parse().unwrap();
                    assert!(!guests.contains_key(&number), "{number} is there already");
                    let mut copy = live(number, "stopped", &[]);
                    let own = copy.config["smbios1"].clone();
                    copy.config.clone_from(&has.config);
                    for key in ["template", "parent"] {
                        copy.config.remove(key);
                    }
                    copy.node = form.get("target").unwrap_or(&has.node).clone();
                    let text = &has.config["scsi0"];
                    let own_storage = text.split(':').next().unwrap();
                    let storage = form.get("storage").map_or(own_storage, String::as_str);
                    copy.config.insert("scsi0".to_owned(), disk(storage, text));
                    copy.config.insert("smbios1".to_owned(), own);
                    copy.config.insert("description".to_owned(), form["description"].clone());
                    guests.insert(number, copy);
                }
                "config" => {
                    for (key, value) in form.iter().filter(|(key, _)| *key != "digest") {
                        guest.config.insert(key.clone(), value.clone());
                    }
                }
                other => panic!("{other}"),
            }
        }
    }
    guests.into_values().collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// What was planned of moves, migrations, copies and templates and carried out is not planned again, but for what was postponed; nothing else is
    /// touched, what is copied neither.
    ///
    /// Seen failing with: a copy that is taken to stay on its source's storage; a start on the node that the guest has left.
    #[test]
    fn what_moves_and_what_is_copied_is_planned_once(
        guests in prop::collection::vec(placed(), 1..5),
        copies in prop::collection::vec((0..8_usize, prop::option::of(prop::bool::ANY), prop::option::weighted(0.3, 0..STORAGES.len()), placed()), 0..3),
    ) {
        let number = |at: usize| 100 + i64::try_from(at).unwrap();
        let has: Vec<LiveGuest> = guests.iter().enumerate().map(|(at, one)| one.live(number(at))).collect();
        let managed = |at: usize| !guests[at].flags[3];
        let mut entries: Vec<Value> =
            guests.iter().enumerate().filter(|(at, _)| managed(*at)).map(|(at, one)| one.entry(number(at))).collect();
        for (at, (of, full, storage, one)) in copies.iter().enumerate() {
            let of = of % (guests.len() + at);
            let mut entry = one.entry(200 + i64::try_from(at).unwrap());
            entry["clone"] = json!({ "from": if of < guests.len() { number(of) } else { 200 + i64::try_from(of - guests.len()).unwrap() } });
            if let Some(full) = full {
                entry["clone"]["full"] = json!(full);
            }
            if let Some(storage) = storage.filter(|_| *full != Some(false)) {
                entry["clone"]["storage"] = json!(STORAGES[storage]);
            }
            entries.push(entry);
        }
        prop_assume!(!entries.is_empty());
        entries.extend((800..830).map(|vmid| json!({ "vmid": vmid, "policy": "observe" })));
        let mut estate = Estate::new(desired(entries), &has);
        estate.scopes[0].allow.insert(Action::Template);
        estate.around.shared = Some(STORAGES[1..].iter().map(|name| (*name).to_owned()).collect());
        estate.around.nodes = [("pve1".to_owned(), true), ("pve2".to_owned(), true)].into();
        let mut postponed: Option<Vec<String>> = None;
        let mut touched = std::collections::BTreeSet::new();
        for round in 0.. {
            prop_assert!(round < 30, "there is always something to do");
            for guest in &estate.guests {
                estate.around.listed.insert(guest.vmid, listed(guest));
            }
            let plan = estate.plan();
            if let Some(postponed) = &postponed {
                let new = plan.operations.iter().find(|operation| !postponed.contains(&operation.uid));
                prop_assert!(new.is_none(), "{:?}", new);
            }
            if !plan.blocked.is_empty() {
                let uid = |subject: &str| subject.split(' ').next().unwrap_or_default().to_owned();
                let mut named: Vec<String> = plan.blocked.iter().map(|remark| uid(&remark.subject)).collect();
                named.retain(|uid| estate.desired.guests.contains_key(uid));
                if named.is_empty() {
                    named.extend(plan.operations.last().map(|operation| operation.uid.clone()));
                }
                prop_assert!(!named.is_empty(), "{:?}", plan.blocked);
                for uid in named {
                    estate.desired.guests.get_mut(&uid).unwrap().policy = pvegraph_reconcile::document::Policy::Observe;
                }
                continue;
            }
            if plan.operations.is_empty() {
                break;
            }
            prop_assert_eq!(&Plan::from_file(&plan.to_file(), 1_000).unwrap(), &plan);
            prop_assert_eq!(pvegraph_reconcile::apply::odd(&plan), None);
            touched.extend(plan.operations.iter().map(|operation| operation.vmid));
            postponed = Some(plan.postponed.iter().map(|remark| remark.subject.split(' ').next().unwrap().to_owned()).collect());
            estate.guests = carried_out(&estate, &plan);
            for (uid, binding) in bound(&estate.guests) {
                estate.bindings.entry(uid).or_insert(binding);
            }
        }
        for guest in &has {
            let at = usize::try_from(guest.vmid - 100).unwrap();
            let now = estate.guests.iter().find(|one| one.vmid == guest.vmid);
            if !(managed(at) && touched.contains(&guest.vmid)) {
                prop_assert_eq!(now, Some(guest));
            }
        }
    }
}

fn listed(guest: &LiveGuest) -> pvegraph_reconcile::live::Listed {
    pvegraph_reconcile::live::Listed {
        kind: guest.kind,
        node: guest.node.clone(),
        name: None,
        status: guest.status.clone(),
        memory: None,
        cores: None,
        template: guest.config.contains_key("template"),
        pool: None,
    }
}
