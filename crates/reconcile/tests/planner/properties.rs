//! What holds of every plan, over random estates.

use std::collections::BTreeMap;

use proptest::prelude::*;
use pvegraph_reconcile::canonical::TagStyle;
use pvegraph_reconcile::diff;
use pvegraph_reconcile::live::LiveGuest;
use pvegraph_reconcile::plan::{Action, Plan};
use serde_json::{Value, json};

use crate::estate::{Estate, desired, live, unmarked};

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
