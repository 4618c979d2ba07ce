//! The operations of one guest, with the calls that they are.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use pvegraph_inventory::GuestType;
use sha2::{Digest, Sha256};

use super::create::create;
use super::guard::{self, Forbidden};
use super::request::{Method, Request};
use super::values::{Values, not_understood};
use super::{
    Action, Effect, Input, Operation, Pending, Remark, beforehand, canonical_json, effect, known, migrate,
};
use crate::canonical::{Canonical, hex, is_disk, is_nic};
use crate::desired::{Guest, Problem};
use crate::diff::{self, Change, Class, GuestDiff};
use crate::document::{Power, Reboot, Shutdown};
use crate::live::{self, LiveGuest};
use crate::marker;
use crate::rollback;
use crate::stored::bound_to;

/// How long a guest may take to shut down. PVE's own time-out for a migration that restarts a container.
const SHUTDOWN_SECONDS: u32 = 180;

/// Why a disk stays where it is.
const KEEPS_DISKS: &str = "the guest is protected, and keeps its disks: take `protected` here and `protection` at the guest away first";

/// What was found for one guest.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) operations: Vec<Operation>,
    pub(super) postponed: Vec<Remark>,
    pub(super) warnings: Vec<Remark>,
}

/// SHA-256 of what waits for a restart.
pub fn pending_sha256(pending: &Pending) -> String {
    let json = canonical_json(&serde_json::to_value(pending).unwrap_or_default());
    hex(&Sha256::digest(json.as_bytes()))
}

/// The operations of a guest that differs, or what forbids them. A number that a new guest gets is entered into `taken`.
pub(super) fn of(
    input: &Input<'_>,
    guest: &Guest,
    diff: &GuestDiff,
    taken: &mut BTreeSet<i64>,
) -> Result<Found, Forbidden> {
    if let Some(forbidden) = guard::hopeless(diff, bound_to(input.bindings, &guest.uid)) {
        return Err(forbidden);
    }
    let Some(live) = guest.vmid.and_then(|vmid| input.live.get(&vmid)) else {
        if diff.noop() {
            return Ok(Found::default());
        }
        if let Some(forbidden) = guard::gone(bound_to(input.bindings, &guest.uid)) {
            return Err(forbidden);
        }
        if let Some(text) = super::clone::waits(input, guest) {
            let postponed = vec![Problem::new(guest.label(), "clone.from", text).into()];
            return Ok(Found { postponed, ..Found::default() });
        }
        return Ok(Found { operations: create(input, guest, diff, taken)?, ..Found::default() });
    };
    guard::own_volumes(guest)?;
    let marked = live.is_marked(&input.desired.cluster, &guest.uid);
    let made_by = guard::reserved(bound_to(input.bindings, &guest.uid));
    let marks = !marked && input.consent.mark.contains(&guest.uid) || made_by.is_some();
    if let Some(of) = guest.clone_of.as_ref().filter(|_| made_by.is_some()) {
        super::clone::whole(input, of, guest, live)?;
    }
    // What a run has made and not finished still gets what a new guest gets.
    let (with_defaults, differs);
    let (guest, diff) = match made_by.map(|_| input.desired.with_defaults(guest)) {
        Some(Cow::Owned(more)) => {
            let none = Pending::new();
            let pending = input.around.pending.get(&live.vmid).unwrap_or(&none);
            with_defaults = more;
            differs = diff::diff(&with_defaults, live, pending, input.around.style);
            if let Some(forbidden) = guard::hopeless(&differs, bound_to(input.bindings, &guest.uid)) {
                return Err(forbidden);
            }
            (&with_defaults, &differs)
        }
        _ => (guest, diff),
    };
    // A copy that is not finished has its source's password, as far as anybody knows.
    let anew;
    let diff = if made_by.is_some() && guest.clone_of.is_some() && guest.cipassword.is_some() {
        anew = diff.with_secrets_anew();
        &anew
    } else {
        diff
    };
    let drifts = diff.changes.iter().any(|change| change.class == Class::Drift);
    let waits = diff.changes.iter().any(|change| change.class == Class::PendingRestart);
    let restarts = waits && guest.reboot == Reboot::Allow && live.status == "running";
    if !(marks || drifts || restarts) {
        return Ok(Found::default());
    }
    let scope = guard::keys(input, guest, live)?;
    guard::locked(live)?;
    let style = input.around.style;
    let one = One {
        input,
        guest,
        live,
        values: Values {
            cluster: &input.desired.cluster,
            guest,
            style,
            marked: marked || marks,
            forecast: false,
        },
    };
    let mut found = Found::default();
    if guest.tombstone {
        guard::deletion(input, guest, live, scope)?;
    }
    if marks {
        found.operations.push(one.mark(made_by));
    }
    if guest.tombstone {
        // Only a guest with the marker is deleted, so that it gets that first where it has none.
        if marks {
            guard::allowed(scope, Action::Mark)?;
        }
        found.operations.push(one.destroy(diff));
        if input.consent.snapshot {
            beforehand::enter(&one, scope, &mut found);
        }
        return Ok(found);
    }
    let mut by_action: BTreeMap<Action, Vec<&Change>> = BTreeMap::new();
    // What is pending already needs no writing; it only waits.
    for change in diff.changes.iter().filter(|change| change.class == Class::Drift) {
        by_action.entry(effect::action_of(guest.kind, &change.field)).or_default().push(change);
    }
    one.postpone(&mut by_action, &mut found.postponed);
    for (action, changes) in by_action {
        found.operations.push(one.operation(action, &changes)?);
    }
    let is_down = |op: &Operation| matches!(op.effect, Effect::Restart | Effect::Stop);
    if restarts && !found.operations.iter().any(is_down) {
        found.operations.push(one.restart(diff));
    }
    for operation in &found.operations {
        guard::allowed(scope, operation.action)?;
        if operation.effect == Effect::Restart {
            guard::allowed(scope, Action::Power)?;
        }
    }
    if input.consent.snapshot {
        beforehand::enter(&one, scope, &mut found);
    }
    Ok(found)
}

/// One guest that is there.
pub(super) struct One<'a> {
    pub(super) input: &'a Input<'a>,
    pub(super) guest: &'a Guest,
    pub(super) live: &'a LiveGuest,
    pub(super) values: Values<'a>,
}

impl One<'_> {
    fn path(&self, rest: &str) -> String {
        let LiveGuest { node, kind, vmid, .. } = self.live;
        format!("/nodes/{node}/{}/{vmid}{rest}", kind.as_str())
    }

    pub(super) fn made(
        &self,
        action: Action,
        effect: Effect,
        changes: &[&Change],
        requests: Vec<Request>,
    ) -> Operation {
        let pending = self.input.around.pending.get(&self.live.vmid);
        let fields: Vec<String> = changes.iter().map(|change| change.field.clone()).collect();
        let before = rollback::before(self.guest, changes);
        Operation {
            number: 0,
            after: BTreeSet::new(),
            uid: self.guest.uid.clone(),
            vmid: self.live.vmid,
            kind: self.live.kind,
            node: self.live.node.clone(),
            action,
            effect,
            reversible: rollback::comes_back(self.guest, action, &fields, &before, self.input.around.style),
            fields,
            reasons: changes.iter().map(ToString::to_string).collect(),
            affects: BTreeSet::new(),
            blast: 1,
            fingerprint: self.live.fingerprint(),
            digest: self.live.config.get("digest").cloned(),
            pending_sha256: pending.map(pending_sha256),
            before,
            status: Some(self.live.status.clone())
                .filter(|status| matches!(&**status, "running" | "stopped")),
            requests,
        }
    }

    fn mark(&self, made_by: Option<&str>) -> Operation {
        let mut request = Request::new(Method::Put, self.path("/config")).guarded();
        let tags = self.live.config.get("tags").map(String::as_str).unwrap_or_default();
        request.set.insert("tags".to_owned(), self.values.tags(tags));
        request.set.insert("description".to_owned(), self.values.live_description(self.live));
        let mut operation = self.made(Action::Mark, Effect::Hot, &[], vec![request]);
        operation.fields.push("marker".to_owned());
        operation.reasons.push(match made_by {
            Some(run) => format!("binding: the run {run} has made it, and did not finish"),
            None => format!("marker: (absent) → {}", marker::trailer(self.values.cluster, &self.guest.uid)),
        });
        operation
    }

    fn destroy(&self, diff: &GuestDiff) -> Operation {
        // Only what its configuration names: a volume of its number may be somebody's.
        let request = Request::new(Method::Delete, self.path("")).with("destroy-unreferenced-disks", "0");
        let changes: Vec<&Change> = diff.changes.iter().collect();
        let mut operation = self.made(Action::Destroy, Effect::Delete, &changes, vec![request]);
        operation
            .reasons
            .extend(live::volumes(self.live).map(|volume| format!("volume: {volume} → (deleted)")));
        operation
    }

    fn restart(&self, diff: &GuestDiff) -> Operation {
        let waiting = |change: &&Change| change.class == Class::PendingRestart;
        let changes: Vec<&Change> = diff.changes.iter().filter(waiting).collect();
        // A migration comes before it.
        let kind = self.live.kind.as_str();
        let path = format!("/nodes/{}/{kind}/{}/status/reboot", self.place(), self.live.vmid);
        let mut operation =
            self.made(Action::Power, Effect::Restart, &changes, vec![Request::new(Method::Post, path)]);
        operation.node = self.place().to_owned();
        operation
    }

    fn reboot(&self) -> Request {
        Request::new(Method::Post, self.path("/status/reboot"))
    }

    /// Takes out what would undo, or be undone by, another change of the same volume, and what would tie the guest to the node that it leaves.
    fn postpone(&self, by_action: &mut BTreeMap<Action, Vec<&Change>>, postponed: &mut Vec<Remark>) {
        let key = |change: &Change| change.field.split('.').next().unwrap_or_default().to_owned();
        let mut tell = |change: &Change, text: &str| {
            postponed.push(Problem::new(self.guest.label(), &*change.field, text).into());
        };
        if by_action.contains_key(&Action::Migrate) {
            let text = format!(
                "it goes to {} first, where a volume that only one node has is not in its way: plan again after that",
                self.place()
            );
            for action in [Action::Move, Action::Configure] {
                let Some(changes) = by_action.get_mut(&action) else { continue };
                changes.retain(|change| {
                    let ties = self.becomes_local(&key(change), &change.field);
                    if ties {
                        tell(change, &text);
                    }
                    !ties
                });
            }
        }
        let mut configured = by_action.get(&Action::Configure).into_iter().flatten();
        let freed = self.keeps_volumes() && configured.any(|change| change.field == "protection");
        let moved: BTreeSet<String> =
            by_action.get(&Action::Move).into_iter().flatten().map(|change| key(change)).collect();
        let pending = self.input.around.pending.get(&self.live.vmid);
        let waits = |key: &str| pending.is_some_and(|pending| pending.contains_key(key));
        by_action.retain(|action, changes| {
            changes.retain(|change| {
                let text = match action {
                    Action::Configure if freed && is_disk(self.live.kind, &key(change)) => {
                        "its `protection` is taken away first: plan again after that"
                    }
                    Action::Configure if moved.contains(&key(change)) => {
                        "its volume moves first, and has another name then: plan again after that"
                    }
                    Action::Grow | Action::Move if waits(&key(change)) => {
                        "a change of the same volume waits for a restart, which would undo it: restart the guest first"
                    }
                    _ => return true,
                };
                tell(change, text);
                false
            });
            !changes.is_empty()
        });
    }

    /// Does Proxmox VE refuse every change of its volumes' options? Of a container that it protects.
    fn keeps_volumes(&self) -> bool {
        self.live.kind == GuestType::Lxc
            && self.live.config.get("protection").is_some_and(|value| value == "1")
    }

    /// Does this change put a volume on a storage that only one node has?
    fn becomes_local(&self, key: &str, field: &str) -> bool {
        let places =
            field == key || [".storage", ".format", ".volume"].iter().any(|part| field.ends_with(part));
        let Some(Canonical::Map(wanted)) =
            self.guest.fields.get(key).filter(|_| is_disk(self.guest.kind, key))
        else {
            return false;
        };
        let shared = self.input.around.shared.as_ref();
        let local = |storage: &Canonical| shared.is_some_and(|shared| !shared.contains(&storage.to_string()));
        // What is in a CD-ROM drive is desired by its volume alone.
        let of_volume = || {
            let volume = wanted.get("volume")?.to_string();
            Some(Canonical::Text(volume.split_once(':')?.0.to_owned()))
        };
        places && wanted.get("storage").cloned().or_else(of_volume).as_ref().is_some_and(local)
    }

    pub(super) fn operation(&self, action: Action, changes: &[&Change]) -> Result<Operation, Forbidden> {
        let effects = changes.iter().map(|change| effect::of(self.live, action, change));
        let effect = match effects.max().unwrap_or(Effect::Hot) {
            Effect::Restart if self.guest.reboot == Reboot::Never => Effect::Pending,
            effect => effect,
        };
        let requests = match action {
            Action::Grow => self.grow(changes)?,
            Action::Move => self.moved(changes)?,
            Action::Migrate => vec![self.migrate()?],
            Action::Power => vec![self.power()?],
            Action::Template => vec![self.template()?],
            _ => {
                let mut requests = vec![self.configure(changes)?];
                if effect == Effect::Restart {
                    requests.push(self.reboot());
                }
                requests
            }
        };
        let mut operation = self.made(action, effect, changes, requests);
        // A migration comes before these.
        if matches!(action, Action::Power | Action::Template) {
            operation.node = self.place().to_owned();
        }
        Ok(operation)
    }

    /// The node that it is on when it is started or stopped, or becomes a template.
    fn place(&self) -> &str {
        self.guest.node.as_deref().unwrap_or(&self.live.node)
    }

    fn grow(&self, changes: &[&Change]) -> Result<Vec<Request>, Forbidden> {
        let mut requests = Vec::new();
        for change in changes {
            let (key, _) = change.field.split_once('.').unwrap_or((&change.field, ""));
            let Some(Canonical::Map(map)) = self.guest.fields.get(key) else { continue };
            let Some(size) = map.get("size") else { continue };
            if self.live.config.contains_key("parent") && self.is_qcow2(key) {
                let text = "the guest has snapshots, and Proxmox VE does not resize a qcow2 image with any: remove them first";
                return Err((change.field.clone(), text.to_owned()));
            }
            // The size itself, never a difference: once more gives the same.
            let request = Request::new(Method::Put, self.path("/resize"));
            requests.push(request.with("disk", key).with("size", size.to_string()).guarded());
        }
        Ok(requests)
    }

    /// Is the volume an image of this format?
    pub(super) fn is_qcow2(&self, key: &str) -> bool {
        let volume = self.live.config.get(key).and_then(|text| text.split(',').next());
        volume.is_some_and(|volume| volume.ends_with(".qcow2"))
    }

    fn moved(&self, changes: &[&Change]) -> Result<Vec<Request>, Forbidden> {
        let lxc = self.live.kind == GuestType::Lxc;
        let keys: BTreeSet<&str> =
            changes.iter().filter_map(|change| Some(change.field.split_once('.')?.0)).collect();
        let mut requests = Vec::new();
        for key in keys {
            if lxc && self.live.status != "stopped" {
                let text = "a container's volume moves only while it is stopped: stop it first";
                return Err((format!("{key}.storage"), text.to_owned()));
            }
            if key == "tpmstate0" && self.live.status != "stopped" {
                let text = "a TPM's state moves only while the machine is stopped: stop it first";
                return Err((format!("{key}.storage"), text.to_owned()));
            }
            // Of a protected guest the source stays.
            let deletes = !guard::protected(self.guest, self.live);
            if deletes && self.is_of_a_snapshot(key) {
                let text = "the guest has snapshots, and Proxmox VE does not delete what they are of after it was moved: remove them \
                            first, or desire the storage that it is on";
                return Err((format!("{key}.storage"), text.to_owned()));
            }
            known::option(self.input.around, self.guest, key, &self.live.node)?;
            let Some(Canonical::Map(wanted)) = self.guest.fields.get(key) else { continue };
            let has = self.live.option(key, self.input.around.style);
            let has = match &has {
                Some(Canonical::Map(has)) => has.get("storage"),
                _ => None,
            };
            let Some(storage) = wanted.get("storage").or(has) else { continue };
            let (call, what) = if lxc { ("/move_volume", "volume") } else { ("/move_disk", "disk") };
            let mut request = Request::new(Method::Post, self.path(call)).guarded();
            request = request.with(what, key).with("storage", storage.to_string());
            if let Some(format) = wanted.get("format").filter(|_| !lxc) {
                request = request.with("format", format.to_string());
            }
            // Else what was copied stays, and fills the old storage.
            if deletes {
                request = request.with("delete", "1");
            }
            requests.push(request);
        }
        Ok(requests)
    }

    /// Is a snapshot of this volume? Where nobody asked: has the guest any?
    fn is_of_a_snapshot(&self, key: &str) -> bool {
        let known = self.input.around.snapshotted.get(&self.live.vmid);
        let volume = self.live.config.get(key).and_then(|text| live::volume(text));
        match known.zip(volume) {
            Some((volumes, volume)) => volumes.contains(volume),
            None => self.live.config.contains_key("parent"),
        }
    }

    fn migrate(&self) -> Result<Request, Forbidden> {
        let target = self.place();
        migrate::check(self.input.around, self.guest, self.live, target)?;
        let mut request = Request::new(Method::Post, self.path("/migrate")).with("target", target);
        if self.live.status == "running" {
            let lxc = self.live.kind == GuestType::Lxc;
            request = request.with(if lxc { "restart" } else { "online" }, "1");
            // Only asked for where it is desired, and there are such.
            let says = self.input.around.migrations.get(&self.live.vmid);
            if !lxc && says.is_some_and(|says| says.local_disks) {
                request = request.with("with-local-disks", "1");
            }
        }
        Ok(request)
    }

    fn template(&self) -> Result<Request, Forbidden> {
        let forbidden = |text: &str| Err(("template".to_owned(), text.to_owned()));
        if self.live.status != "stopped" {
            return forbidden(
                "it runs, and only stopped guests become templates: stop it first, and plan again",
            );
        }
        if self.live.config.contains_key("parent") {
            return forbidden("it has snapshots, which a template can't have: remove them first");
        }
        if self.live.ha.is_some() {
            return forbidden("high availability manages it: take it out of that first");
        }
        let (kind, vmid) = (self.live.kind.as_str(), self.live.vmid);
        Ok(Request::new(Method::Post, format!("/nodes/{}/{kind}/{vmid}/template", self.place())))
    }

    fn power(&self) -> Result<Request, Forbidden> {
        let forbidden = |field: &str, text: &str| Err((field.to_owned(), text.to_owned()));
        let start = self.guest.state == Some(Power::Running);
        if self.live.config.get("template").is_some_and(|value| value == "1") {
            return forbidden("state", "it is a template, which never runs: do not desire its `state`");
        }
        if !matches!(self.live.status.as_str(), "running" | "stopped") {
            return forbidden(
                "state",
                "what it does is not known, as its node is offline: wait for the node",
            );
        }
        let vmid = self.live.vmid;
        if let Some(state) = &self.live.ha {
            if state == "error" {
                return forbidden("ha", migrate::HA_ERROR);
            }
            let sid = if self.live.kind == GuestType::Qemu { "vm" } else { "ct" };
            let request = Request::new(Method::Put, format!("/cluster/ha/resources/{sid}:{vmid}"));
            return Ok(request.with("state", if start { "started" } else { "stopped" }));
        }
        let word = if start { "start" } else { "shutdown" };
        let kind = self.live.kind.as_str();
        let path = format!("/nodes/{}/{kind}/{vmid}/status/{word}", self.place());
        let mut request = Request::new(Method::Post, path);
        if !start {
            request = request.with("timeout", SHUTDOWN_SECONDS.to_string());
            if self.guest.shutdown == Shutdown::Force {
                request = request.with("forceStop", "1");
            }
        }
        Ok(request)
    }

    fn configure(&self, changes: &[&Change]) -> Result<Request, Forbidden> {
        let kind = self.live.kind;
        let mut parts: BTreeMap<&str, (BTreeSet<&str>, BTreeSet<&str>)> = BTreeMap::new();
        let mut wholes: BTreeMap<&str, bool> = BTreeMap::new();
        for change in changes {
            match change.field.split_once('.') {
                Some((key, sub)) => {
                    let (set, remove) = parts.entry(key).or_default();
                    if change.new.is_some() {
                        set.insert(sub)
                    } else {
                        remove.insert(sub)
                    };
                }
                None => drop(wholes.insert(&change.field, change.new.is_some())),
            }
        }
        let keys = || parts.keys().chain(wholes.keys());
        if let Some(key) = keys().find(|key| self.keeps_volumes() && is_disk(kind, key)) {
            let text = "Proxmox VE protects the container, and changes nothing of its volumes then: take `protection` at the guest away first";
            return Err(((*key).to_owned(), text.to_owned()));
        }
        let devices = keys().any(|key| is_disk(kind, key) || is_nic(kind, key));
        // Disks and hot-plugging take a task; a container's options are always written at once.
        let method = if kind == GuestType::Qemu && devices { Method::Post } else { Method::Put };
        let mut request = Request::new(method, self.path("/config")).guarded();
        for (key, (set, remove)) in &parts {
            if set.contains("volume") || remove.contains("volume") {
                self.keeps_disk(key)?;
            }
            if set.contains("bridge") {
                known::option(self.input.around, self.guest, key, &self.live.node)?;
            }
            // What waits for a restart is not taken back.
            let waiting = self.input.around.pending.get(&self.live.vmid).and_then(|all| all.get(*key));
            let value = match (waiting, self.live.config.get(*key)) {
                (Some(Some(text)), _) => self.values.changed(key, text, set, remove, false)?,
                (_, Some(text)) => self.values.changed(key, text, set, remove, true)?,
                (_, None) => self.values.whole(key)?,
            };
            request.set.insert((*key).to_owned(), value);
        }
        for (key, sets) in wholes {
            match (sets, key) {
                (true, _) => {
                    self.understood(key)?;
                    known::option(self.input.around, self.guest, key, &self.live.node)?;
                    request.set.insert(key.to_owned(), self.values.whole(key)?);
                }
                // The marker stays.
                (false, "tags") if self.values.marked => {
                    request.set.insert(key.to_owned(), self.values.tags(""));
                }
                (false, "description") if self.values.marked => {
                    let trailer = marker::trailer(self.values.cluster, &self.guest.uid);
                    request = request.with(key, trailer);
                }
                (false, _) => {
                    if is_disk(kind, key) && guard::protected(self.guest, self.live) {
                        return Err((key.to_owned(), KEEPS_DISKS.to_owned()));
                    }
                    request.delete.insert(key.to_owned());
                }
            }
        }
        Ok(request)
    }

    /// Another volume in a disk's place takes the disk out: a protected guest keeps it. What is in a CD-ROM drive is no disk of the guest.
    fn keeps_disk(&self, key: &str) -> Result<(), Forbidden> {
        let cdrom = match self.live.option(key, self.input.around.style) {
            Some(Canonical::Map(has)) => has.get("media").is_some_and(|media| media.to_string() == "cdrom"),
            _ => false,
        };
        let there = self.live.config.contains_key(key) && is_disk(self.live.kind, key) && !cdrom;
        if there && guard::protected(self.guest, self.live) {
            return Err((format!("{key}.volume"), KEEPS_DISKS.to_owned()));
        }
        Ok(())
    }

    /// A device written as a whole is a new one: a new volume, another hardware address. So what the guest has there and is not understood
    /// is never written over.
    fn understood(&self, key: &str) -> Result<(), Forbidden> {
        let device = is_disk(self.live.kind, key) || is_nic(self.live.kind, key);
        match self.live.option(key, self.input.around.style) {
            Some(has) if device && !matches!(has, Canonical::Map(_)) => Err(not_understood(key)),
            _ => Ok(()),
        }
    }
}
