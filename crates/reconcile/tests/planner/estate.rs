//! Small estates: what is desired, what is there, and the plan of it.

use std::collections::BTreeMap;

use pvegraph_inventory::GuestType;
use pvegraph_reconcile::canonical::TagStyle;
use pvegraph_reconcile::desired::{Desired, from_document};
use pvegraph_reconcile::diff::{self, GuestDiff};
use pvegraph_reconcile::document::{Form, read};
use pvegraph_reconcile::live::{LiveGuest, Snapshot};
use pvegraph_reconcile::plan::{Around, Ask, Consent, Input, Pending, Plan, plan, snapshot_plan};
use pvegraph_reconcile::scope::Scope;
use pvegraph_reconcile::stored::Binding;
use serde_json::{Value, json};

pub fn desired(vms: Vec<Value>) -> Desired {
    whole(json!({ "vms": vms }))
}

pub fn whole(proxmox: Value) -> Desired {
    let text = json!({ "version": 1, "plugins": { "proxmox": proxmox } }).to_string();
    from_document(&read(&text, Form::Json).unwrap(), &"rig".parse().unwrap()).unwrap()
}

/// A machine with the marker of `vm-<vmid>`.
pub fn live(vmid: i64, status: &str, config: &[(&str, &str)]) -> LiveGuest {
    let uuid = format!("uuid=11111111-2222-3333-4444-{vmid:012}");
    let mut guest = unmarked(vmid, status, config);
    guest.config.insert("smbios1".to_owned(), uuid);
    guest.config.insert("tags".to_owned(), "pvegraph".to_owned());
    guest.config.insert("description".to_owned(), format!("[pvegraph:rig/vm-{vmid}]"));
    guest
}

/// A container with the marker of `ct-<vmid>`.
pub fn container(vmid: i64, status: &str, config: &[(&str, &str)]) -> LiveGuest {
    let mut guest = unmarked(vmid, status, config);
    guest.kind = GuestType::Lxc;
    guest.config.insert("rootfs".to_owned(), format!("local-lvm:vm-{vmid}-disk-0,size=8G"));
    guest.config.insert("tags".to_owned(), "pvegraph".to_owned());
    guest.config.insert("description".to_owned(), format!("[pvegraph:rig/ct-{vmid}]\n"));
    guest
}

/// Every configuration that Proxmox VE gives has a digest: here `of-<vmid>` where `config` names none.
pub fn unmarked(vmid: i64, status: &str, config: &[(&str, &str)]) -> LiveGuest {
    let mut all = BTreeMap::from([("digest".to_owned(), format!("of-{vmid}"))]);
    all.extend(config.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
    LiveGuest {
        vmid,
        kind: GuestType::Qemu,
        node: "pve1".to_owned(),
        status: status.to_owned(),
        pool: None,
        ha: None,
        config: all,
    }
}

pub fn bound(guests: &[LiveGuest]) -> BTreeMap<String, Binding> {
    let binding = |guest: &LiveGuest| {
        let uid = pvegraph_reconcile::desired::default_uid(guest.kind, guest.vmid);
        let fingerprint = guest.fingerprint();
        Binding {
            uid,
            kind: guest.kind,
            vmid: guest.vmid,
            fingerprint,
            last_applied: None,
            reserved_by: None,
            destroyed_at: None,
        }
    };
    guests.iter().map(binding).map(|binding| (binding.uid.clone(), binding)).collect()
}

/// All that a plan is made of.
pub struct Estate {
    pub desired: Desired,
    pub guests: Vec<LiveGuest>,
    pub bindings: BTreeMap<String, Binding>,
    pub scopes: Vec<Scope>,
    pub around: Around,
    pub consent: Consent,
    pub nonce: &'static str,
}

impl Estate {
    /// Bound guests in one scope.
    pub fn new(desired: Desired, guests: &[LiveGuest]) -> Self {
        Self {
            desired,
            guests: guests.to_vec(),
            bindings: bound(guests),
            scopes: vec![Scope::new("lab", 100, 999)],
            around: Around::default(),
            consent: Consent::default(),
            nonce: "estate",
        }
    }

    pub fn pending(mut self, vmid: i64, pending: &[(&str, Option<&str>)]) -> Self {
        let pending: Pending =
            pending.iter().map(|(key, value)| ((*key).to_owned(), value.map(str::to_owned))).collect();
        self.around.pending.insert(vmid, pending);
        self
    }

    pub fn plan(&self) -> Plan {
        let live: BTreeMap<i64, LiveGuest> =
            self.guests.iter().map(|guest| (guest.vmid, guest.clone())).collect();
        let style = TagStyle::default();
        let none = BTreeMap::new();
        let diffs: Vec<GuestDiff> = self
            .desired
            .guests
            .values()
            .map(|guest| match guest.vmid.and_then(|vmid| live.get(&vmid)) {
                Some(has) => {
                    let bound = self
                        .bindings
                        .get(&guest.uid)
                        .filter(|bound| !bound.is_of(&self.desired.cluster, has));
                    match bound.filter(|_| has.kind == guest.kind) {
                        Some(bound) => {
                            let is = has.fingerprint();
                            diff::another(guest, bound.fingerprint.as_deref(), is.as_deref())
                        }
                        None => {
                            let pending = self.around.pending.get(&has.vmid).unwrap_or(&none);
                            diff::diff(guest, has, pending, style)
                        }
                    }
                }
                None => diff::missing(guest),
            })
            .collect();
        plan(&Input {
            desired: &self.desired,
            generation: 1,
            bindings: &self.bindings,
            scopes: &self.scopes,
            live: &live,
            diffs: &diffs,
            unread: &BTreeMap::new(),
            around: &self.around,
            consent: &self.consent,
            now: 1_000,
            nonce: self.nonce,
        })
    }
}

impl Estate {
    /// The plan of a snapshot of `vm-100`.
    pub fn snapshot(&self, taken: &[Snapshot], ask: &Ask) -> Plan {
        let live: BTreeMap<i64, LiveGuest> =
            self.guests.iter().map(|guest| (guest.vmid, guest.clone())).collect();
        let input = Input {
            desired: &self.desired,
            generation: 1,
            bindings: &self.bindings,
            scopes: &self.scopes,
            live: &live,
            diffs: &[],
            unread: &BTreeMap::new(),
            around: &self.around,
            consent: &self.consent,
            now: 1_000,
            nonce: self.nonce,
        };
        snapshot_plan(&input, &self.desired.guests["vm-100"], taken, ask)
    }
}

pub fn planned(desired: &Desired, guests: &[LiveGuest], bindings: &BTreeMap<String, Binding>) -> Plan {
    let bindings = bindings.clone();
    Estate { bindings, ..Estate::new(desired.clone(), guests) }.plan()
}

pub fn blocked(plan: &Plan) -> String {
    plan.blocked.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
