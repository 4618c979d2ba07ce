//! What must hold before a call, and what must hold after it. Pure.
//!
//! Whether a call has done its work is read off the guest, never off the task: a task can fail after its work was done, and end well
//! without it.

use std::collections::BTreeMap;

use pve_client::Size;
use pvegraph_inventory::ClusterId;
use sha2::{Digest, Sha256};

use super::kinds::{converts, ha_state, last_part, moves, power, snapshot};
use super::limits::allocated;
use super::look::Look;
use super::make::{NO_OPTIONS, made as makes};
use crate::canonical::{Canonical, TagStyle, canonical, hex, is_disk};
use crate::diff::has_own_size;
use crate::journal::Found;
use crate::live::with_storage;
use crate::plan::{Action, FormValue, Operation, Request};

/// Why a call must not be sent: the field, and the mend.
pub type Stale = String;

/// Says whether the call may be sent to this guest. `expected`: digest and pending changes, the plan's before the first call of a
/// guest, later those after our own call before. `first`: no call of this run has changed the guest yet.
///
/// # Errors
/// It may not.
pub fn before(
    cluster: &ClusterId,
    operation: &Operation,
    call: usize,
    look: Option<&Look>,
    expected: &Found,
    first: bool,
) -> Result<(), Stale> {
    let Operation { uid, vmid, node, .. } = operation;
    let refuse = |field: &str, text: &str| Err(format!("{uid} (guest {vmid}): `{field}`: {text}"));
    let Some(look) = look else {
        return refuse("node", &format!("it is not on {node} any more, or gone: plan again"));
    };
    let fingerprint = look.guest.fingerprint();
    // Of what this run has made nobody knew it before, and a container's is another one after its root volume was moved.
    let wanted = expected.fingerprint.as_ref().or(operation.fingerprint.as_ref());
    if wanted.is_none() || fingerprint.as_ref() != wanted {
        return refuse(
            "identity",
            "identity conflict: another guest has this number now: look at it, and plan again",
        );
    }
    // A call before this one, of this very operation, may have put it on.
    let marks = operation.action == Action::Mark || operation.action == Action::Create;
    // A copy gets the last line when it is made, and the tag with the next call.
    let signed = operation.action != Action::Create || look.guest.is_signed(cluster, uid);
    if !marks && !look.guest.is_marked(cluster, uid) || !signed {
        return refuse(
            "marker",
            "identity conflict: its marker is gone (tag, last line of the description): plan again",
        );
    }
    if let Some(lock) = look.lock() {
        return refuse(
            "lock",
            &format!("Proxmox VE has it locked ({lock}): wait for that to end, and plan again"),
        );
    }
    let found = look.found();
    if expected.digest.is_some() && found.digest != expected.digest {
        return refuse("digest", "somebody changed its configuration since: plan again");
    }
    if expected.pending.is_some() && found.pending != expected.pending {
        return refuse("pending", "what waits for its restart was changed since: plan again");
    }
    // The digest tells nothing of it, and what a change does to a guest depends on whether it runs.
    let status = if first { operation.status.as_ref() } else { expected.status.as_ref() };
    if let Some(planned) =
        status.filter(|status| matches!(&***status, "running" | "stopped") && **status != look.guest.status)
    {
        return refuse("state", &format!("it was {planned}, and is {} now: plan again", look.guest.status));
    }
    let request = operation.requests.get(call);
    // A restart is not undone: the guest runs before and after it.
    let undone = |request: &Request| {
        power(request).is_some_and(|action| action != "reboot")
            || snapshot(request).is_some_and(|(_, back)| back)
    };
    if look.ha_managed && request.is_some_and(undone) {
        return refuse("ha", "high availability manages it, which would undo this: set its HA state");
    }
    if request.is_some_and(|request| ha_state(request).is_some()) {
        if !look.ha_managed {
            return refuse("ha", "high availability does not manage it any more: plan again");
        }
        if look.is_given_up() {
            return refuse(
                "ha",
                "high availability has given it up (error) since: set its state to `disabled` there, and plan again",
            );
        }
    }
    Ok(())
}

/// Is this a restart for what waited alone, and nothing of that waits any more? A change before it may have put all of it into force. Where a
/// restart follows a change in its own operation it is sent in any case: not all that needs one waits where it can be seen.
pub fn needless(operation: &Operation, request: &Request, found: &Found) -> bool {
    let mut keys = operation.fields.iter().map(|field| field.split('.').next().unwrap_or_default());
    operation.action == Action::Power
        && power(request) == Some("reboot")
        && !operation.fields.is_empty()
        && keys.all(|key| !found.waiting.iter().any(|waits| waits == key))
}

/// What became of a call, as the guest shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum After {
    /// The guest is as the call wants it. These options wait for its next start.
    Holds {
        /// Options that wait.
        waiting: Vec<String>,
        /// Something of it can't be read back, a password for example.
        blind: bool,
    },
    /// It is not: these options are otherwise.
    Not(Vec<String>),
}

/// Whether the guest is as the call wants it.
pub fn after(operation: &Operation, request: &Request, look: &Look, style: TagStyle) -> After {
    if let Some(made) = makes(request) {
        return match look.lock() {
            // PVE is still at it.
            Some(_) => After::Not(vec!["lock".to_owned()]),
            None if made.source.is_some() => copied(operation, request, look, style),
            None => configured(operation, request, look, style),
        };
    }
    if converts(request) {
        return match look.guest.config.get("template").map(String::as_str) {
            Some("1") => After::Holds { waiting: Vec::new(), blind: false },
            _ => After::Not(vec!["template".to_owned()]),
        };
    }
    if let Some((name, back)) = snapshot(request) {
        return stands_on(request, look, name, back);
    }
    if let Some(action) = power(request) {
        return match action {
            "start" => state(look, "running"),
            "stop" | "shutdown" => state(look, "stopped"),
            // What waited is in force after it.
            _ => match restarted(operation, look) {
                After::Holds { .. } => state(look, "running"),
                not => not,
            },
        };
    }
    if let Some(wanted) = ha_state(request) {
        return state(look, wanted);
    }
    match last_part(request) {
        "resize" => resized(operation, request, look, style),
        "move_disk" | "move_volume" => moved(request, look, style),
        "config" => configured(operation, request, look, style),
        other => After::Not(vec![other.to_owned()]),
    }
}

/// Whether a guest has come to the node that a call takes it to, and is what it was `before`.
pub fn migrated(target: &str, before: &Found, look: &Look) -> After {
    let mut not = Vec::new();
    let mut tell = |otherwise: bool, field: &str| {
        if otherwise {
            not.push(field.to_owned());
        }
    };
    tell(look.guest.node != target, "node");
    tell(look.lock().is_some(), "lock");
    tell(before.status.as_ref().is_some_and(|status| *status != look.guest.status), "state");
    tell(look.ha_managed && look.guest.ha.as_deref().is_some_and(|state| !SETTLED.contains(&state)), "ha");
    if not.is_empty() { After::Holds { waiting: Vec::new(), blind: false } } else { After::Not(not) }
}

/// The states in which high availability does nothing more with a guest.
const SETTLED: [&str; 5] = ["started", "enabled", "stopped", "disabled", "ignored"];

fn state(look: &Look, wanted: &str) -> After {
    if look.guest.status == wanted {
        After::Holds { waiting: Vec::new(), blind: false }
    } else {
        After::Not(vec!["state".to_owned()])
    }
}

fn restarted(operation: &Operation, look: &Look) -> After {
    let key = |field: &String| field.split('.').next().unwrap_or_default().to_owned();
    let waiting: Vec<String> =
        operation.fields.iter().map(key).filter(|key| look.pending.contains_key(key)).collect();
    if waiting.is_empty() { After::Holds { waiting, blind: false } } else { After::Not(waiting) }
}

fn resized(operation: &Operation, request: &Request, look: &Look, style: TagStyle) -> After {
    let plain = |name: &str| match request.set.get(name) {
        Some(FormValue::Plain(text)) => text.as_str(),
        _ => "",
    };
    let disk = plain("disk");
    let has = match look.guest.config.get(disk).map(|text| canonical(operation.kind, disk, text, style)) {
        Some(Canonical::Map(map)) => map.get("size").cloned(),
        _ => None,
    };
    let wanted = plain("size").parse::<Size>().ok().map(|size| Canonical::Bytes(size.bytes()));
    if wanted.is_some() && has == wanted {
        After::Holds { waiting: Vec::new(), blind: false }
    } else {
        After::Not(vec![format!("{disk}.size")])
    }
}

/// A copy has the text that is sent with the call, and whatever else its source had.
fn copied(operation: &Operation, request: &Request, look: &Look, style: TagStyle) -> After {
    let text = look.guest.config.get("description");
    let signed = request
        .set
        .get("description")
        .is_some_and(|sent| matches(operation, "description", sent, text, style));
    match signed {
        true => After::Holds { waiting: Vec::new(), blind: false },
        false => After::Not(vec!["description".to_owned()]),
    }
}

/// A guest comes from the snapshot that was taken last, or that it went back to.
fn stands_on(request: &Request, look: &Look, name: &str, back: bool) -> After {
    if look.lock().is_some() {
        return After::Not(vec!["lock".to_owned()]);
    }
    if look.guest.config.get("parent").map(String::as_str) != Some(name) {
        return After::Not(vec!["snapshot".to_owned()]);
    }
    if request.set.contains_key("start") && look.guest.status != "running" {
        return After::Not(vec!["state".to_owned()]);
    }
    // It may have come from this snapshot before: whether it went back, its task alone knows.
    After::Holds { waiting: Vec::new(), blind: back }
}

fn moved(request: &Request, look: &Look, style: TagStyle) -> After {
    let disk = moves(request).unwrap_or_default();
    let has = match look.guest.option(disk, style) {
        Some(Canonical::Map(has)) => has,
        _ => BTreeMap::new(),
    };
    let is = |name: &str| match request.set.get(name) {
        Some(FormValue::Plain(wanted)) => has.get(name).is_some_and(|has| has.to_string() == *wanted),
        _ => true,
    };
    match ["storage", "format"].into_iter().find(|name| !is(name)) {
        None => After::Holds { waiting: Vec::new(), blind: false },
        Some(name) => After::Not(vec![format!("{disk}.{name}")]),
    }
}

fn configured(operation: &Operation, request: &Request, look: &Look, style: TagStyle) -> After {
    let (mut waiting, mut not, mut blind) = (Vec::new(), Vec::new(), false);
    let of_call = |key: &str| makes(request).is_some() && NO_OPTIONS.contains(&key);
    for (key, value) in request.set.iter().filter(|(key, _)| !of_call(key)) {
        let now = look.guest.config.get(key);
        let matches = |text: Option<&String>| matches(operation, key, value, text, style);
        if let FormValue::Secret { .. } = value {
            blind = true;
        }
        match look.pending.get(key) {
            Some(coming) if matches(coming.as_ref()) => waiting.push(key.clone()),
            Some(_) => not.push(key.clone()),
            None if matches(now) => {}
            None => not.push(key.clone()),
        }
    }
    for key in &request.delete {
        match (look.pending.get(key), look.guest.config.contains_key(key)) {
            (Some(None), _) => waiting.push(key.clone()),
            (None, false) => {}
            _ => not.push(key.clone()),
        }
    }
    if not.is_empty() { After::Holds { waiting, blind } } else { After::Not(not) }
}

/// Whether the guest's text of an option is what was sent.
fn matches(
    operation: &Operation,
    key: &str,
    sent: &FormValue,
    has: Option<&String>,
    style: TagStyle,
) -> bool {
    let kind = operation.kind;
    match sent {
        // Nobody can read it back.
        FormValue::Secret { .. } => has.is_some(),
        FormValue::Onto(onto) => {
            let Some(has) = has else { return false };
            let form = |text: &str| canonical(kind, key, text, style);
            onto.written(kind, key, has).is_some_and(|text| form(&text) == form(has))
        }
        FormValue::Hidden(hidden) => {
            let text = has.map(String::as_str).unwrap_or_default();
            let cut = text.trim_end_matches('\n');
            // A container's description comes back with a line feed at its end.
            [text, cut, &format!("{cut}\n")]
                .iter()
                .any(|text| hex(&Sha256::digest(text.as_bytes())) == hidden.sha256)
        }
        FormValue::Plain(sent) => {
            let Some(has) = has else { return sent.trim().is_empty() };
            let has = match canonical(kind, key, has, style) {
                // A cloud-init image has a name of PVE's own.
                Canonical::Map(map) if is_disk(kind, key) => Canonical::Map(with_storage(map)),
                has => has,
            };
            if let Some((storage, size)) = allocated(sent).filter(|_| is_disk(kind, key)) {
                return made(operation, key, (storage, size, sent), &has, style);
            }
            match (canonical(kind, key, sent, style), &has) {
                // PVE adds what nobody wrote: a hardware address, a size.
                (Canonical::Map(sent), Canonical::Map(has)) => {
                    sent.iter().all(|(sub, value)| has.get(sub) == Some(value))
                }
                (sent, has) => sent == *has,
            }
        }
    }
}

/// Whether a volume was made as it was asked for: its name is PVE's.
fn made(
    operation: &Operation,
    key: &str,
    (storage, size, sent): (&str, &str, &str),
    has: &Canonical,
    style: TagStyle,
) -> bool {
    let Canonical::Map(has) = has else { return false };
    let volume = has.get("volume").map(ToString::to_string).unwrap_or_default();
    let gib = size.parse::<f64>().unwrap_or_default();
    let bytes = (gib * f64::from(1 << 30)).round();
    let size = has_own_size(key)
        || matches!(has.get("size"), Some(Canonical::Bytes(has)) if (*has as f64 - bytes).abs() < 1.0);
    let options = match sent.split_once(',') {
        Some((_, options)) => match canonical(operation.kind, key, options, style) {
            Canonical::Map(map) => map,
            _ => BTreeMap::new(),
        },
        None => BTreeMap::new(),
    };
    volume.starts_with(&format!("{storage}:"))
        && size
        && options.iter().all(|(sub, value)| has.get(sub) == Some(value))
}

/// The options that a failed call has left waiting, with what it sent, and that did not wait before: these alone are taken back. What
/// somebody else has written meanwhile is theirs.
pub fn to_revert(
    operation: &Operation,
    request: &Request,
    waited_before: &[String],
    look: &Look,
    style: TagStyle,
) -> Vec<String> {
    let ours = |key: &String| match (look.pending.get(key), request.set.get(key)) {
        (Some(Some(coming)), Some(sent)) => matches(operation, key, sent, Some(coming), style),
        (Some(None), None) => request.delete.contains(key),
        _ => false,
    };
    let written = request.set.keys().chain(&request.delete);
    written.filter(|key| ours(key) && !waited_before.contains(key)).cloned().collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use std::collections::BTreeSet;

    use pvegraph_inventory::GuestType;

    use super::super::Patience;
    use super::super::kinds::{is_known, looks};
    use super::*;
    use crate::document::SecretRef;
    use crate::live::LiveGuest;
    use crate::plan::{Effect, Hidden, Method, Origin, pending_sha256};

    const UUID: &str = "11111111-2222-3333-4444-555555555555";

    fn seen(config: &[(&str, &str)], pending: &[(&str, Option<&str>)]) -> Look {
        let own = |text: &str| text.to_owned();
        let mut guest = LiveGuest {
            vmid: 100,
            kind: GuestType::Qemu,
            node: own("pve1"),
            status: own("running"),
            pool: None,
            ha: None,
            config: config.iter().map(|(key, value)| (own(key), own(value))).collect(),
        };
        guest.config.insert(own("smbios1"), format!("uuid={UUID}"));
        guest.config.entry(own("tags")).or_insert(own("pvegraph"));
        guest.config.entry(own("description")).or_insert(own("[pvegraph:rig/web]"));
        guest.config.entry(own("digest")).or_insert(own("d1"));
        let pending = pending.iter().map(|(key, value)| (own(key), value.map(own))).collect();
        Look { guest, pending, ha_managed: false }
    }

    fn operation(request: &Request) -> Operation {
        Operation {
            number: 1,
            after: BTreeSet::new(),
            uid: "web".to_owned(),
            vmid: 100,
            kind: GuestType::Qemu,
            node: "pve1".to_owned(),
            action: Action::Configure,
            effect: Effect::Hot,
            reversible: true,
            fields: vec!["cores".to_owned()],
            reasons: Vec::new(),
            affects: BTreeSet::new(),
            blast: 1,
            fingerprint: Some(UUID.to_owned()),
            digest: Some("d1".to_owned()),
            pending_sha256: None,
            before: BTreeMap::new(),
            status: Some("running".to_owned()),
            requests: vec![request.clone()],
        }
    }

    fn config(key: &str, value: &str) -> Request {
        Request::new(Method::Put, "/nodes/pve1/qemu/100/config").with(key, value).guarded()
    }

    fn after_of(request: &Request, look: &Look) -> After {
        after(&operation(request), request, look, TagStyle::default())
    }

    fn holds(waiting: &[&str]) -> After {
        After::Holds { waiting: waiting.iter().map(|key| (*key).to_owned()).collect(), blind: false }
    }

    #[test]
    fn what_pve_adds_or_spells_otherwise_is_no_difference() {
        for (key, sent, has) in [
            ("tags", "b;a", "a;b"),
            ("onboot", "1", "1"),
            ("net0", "virtio,bridge=vmbr0", "virtio=BC:24:11:00:00:01,bridge=vmbr0"),
            ("scsi0", "lvm:vm-100-disk-0,discard=on", "lvm:vm-100-disk-0,discard=on,size=8G"),
            ("scsi1", "lvm:1.5,iothread=1", "lvm:vm-100-disk-1,iothread=1,size=1536M"),
            ("ide2", "none,media=cdrom", "none,media=cdrom"),
        ] {
            assert_eq!(after_of(&config(key, sent), &seen(&[(key, has)], &[])), holds(&[]), "{key}={sent}");
        }
        for (key, sent, has) in [
            ("tags", "b;a", "a"),
            ("net0", "virtio=BC:24:11:00:00:01,bridge=vmbr0", "virtio=BC:24:11:00:00:02,bridge=vmbr0"),
            ("net0", "virtio,bridge=vmbr0,tag=5", "virtio=BC:24:11:00:00:01,bridge=vmbr0"),
            ("scsi1", "lvm:2", "zfs:vm-100-disk-1,size=2G"),
            ("scsi1", "lvm:2", "lvm:vm-100-disk-1,size=1G"),
            ("scsi1", "lvm:2,iothread=1", "lvm:vm-100-disk-1,size=2G"),
        ] {
            let not = After::Not(vec![key.to_owned()]);
            assert_eq!(after_of(&config(key, sent), &seen(&[(key, has)], &[])), not, "{key}={sent}");
        }
        assert_eq!(after_of(&config("cores", "4"), &seen(&[], &[])), After::Not(vec!["cores".to_owned()]));
    }

    #[test]
    fn what_waits_for_a_restart_is_done_and_told() {
        let request = config("cores", "4");
        assert_eq!(after_of(&request, &seen(&[("cores", "2")], &[("cores", Some("4"))])), holds(&["cores"]));
        let other = seen(&[("cores", "4")], &[("cores", Some("8"))]);
        assert_eq!(after_of(&request, &other), After::Not(vec!["cores".to_owned()]));
        let mut request = Request::new(Method::Put, "/nodes/pve1/qemu/100/config");
        request.delete.insert("balloon".to_owned());
        assert_eq!(after_of(&request, &seen(&[], &[])), holds(&[]));
        assert_eq!(after_of(&request, &seen(&[("balloon", "1")], &[("balloon", None)])), holds(&["balloon"]));
        assert!(matches!(after_of(&request, &seen(&[("balloon", "1")], &[])), After::Not(_)));
        let reboot = Request::new(Method::Post, "/nodes/pve1/qemu/100/status/reboot");
        assert_eq!(after_of(&reboot, &seen(&[("cores", "4")], &[])), holds(&[]));
        assert!(matches!(after_of(&reboot, &seen(&[], &[("cores", Some("4"))])), After::Not(_)));
    }

    #[test]
    fn texts_are_compared_by_their_hash_and_secrets_can_not_be() {
        let mut request = Request::new(Method::Put, "/nodes/pve1/qemu/100/config");
        let text = Hidden::new(Origin::Desired, "hunter2", Some("[pvegraph:rig/web]".to_owned()));
        request.set.insert("description".to_owned(), FormValue::Hidden(text));
        for has in ["hunter2\n\n[pvegraph:rig/web]", "hunter2\n\n[pvegraph:rig/web]\n"] {
            assert_eq!(after_of(&request, &seen(&[("description", has)], &[])), holds(&[]), "{has:?}");
        }
        assert!(matches!(after_of(&request, &seen(&[("description", "hunter")], &[])), After::Not(_)));
        let mut request = Request::new(Method::Put, "/nodes/pve1/qemu/100/config");
        request
            .set
            .insert("cipassword".to_owned(), FormValue::Secret { secret: SecretRef::Env("X".to_owned()) });
        let blind = After::Holds { waiting: Vec::new(), blind: true };
        assert_eq!(after_of(&request, &seen(&[("cipassword", "**********")], &[])), blind);
    }

    #[test]
    fn a_volume_has_the_size_and_a_guest_the_state() {
        let grow =
            Request::new(Method::Put, "/nodes/pve1/qemu/100/resize").with("disk", "scsi0").with("size", "2G");
        assert_eq!(after_of(&grow, &seen(&[("scsi0", "lvm:vm-100-disk-0,size=2048M")], &[])), holds(&[]));
        assert!(matches!(
            after_of(&grow, &seen(&[("scsi0", "lvm:vm-100-disk-0,size=1G")], &[])),
            After::Not(_)
        ));
        let start = Request::new(Method::Post, "/nodes/pve1/qemu/100/status/start");
        assert_eq!(after_of(&start, &seen(&[], &[])), holds(&[]));
        let ha = Request::new(Method::Put, "/cluster/ha/resources/vm:100").with("state", "stopped");
        let patience = Patience::default();
        assert_eq!(looks(&ha, &patience, true), patience.ha_looks, "high availability takes minutes");
        assert!(looks(&start, &patience, true) < looks(&ha, &patience, true));
        assert!(is_known(&ha) && matches!(after_of(&ha, &seen(&[], &[])), After::Not(_)));
        let delete = Request::new(Method::Delete, "/nodes/pve1/qemu/100");
        assert!(is_known(&delete) && is_known(&start) && is_known(&grow));
        assert!(is_known(&Request::new(Method::Post, "/nodes/pve1/qemu")));
        assert!(!is_known(&Request::new(Method::Post, "/nodes/pve1/storage")));
    }

    #[test]
    fn each_thing_that_changed_is_a_reason_not_to_send() {
        let request = config("cores", "4");
        let pending = Some(pending_sha256(&BTreeMap::new()));
        let expected = Found { digest: Some("d1".to_owned()), pending, ..Found::default() };
        let cluster = "rig".parse().unwrap();
        let told = |look: Option<&Look>| before(&cluster, &operation(&request), 0, look, &expected, true);
        assert_eq!(told(Some(&seen(&[], &[]))), Ok(()));
        assert!(told(None).unwrap_err().contains("`node`"));
        for (look, field) in [
            (seen(&[("digest", "d2")], &[]), "digest"),
            (seen(&[("lock", "backup")], &[]), "lock"),
            (seen(&[("tags", "x")], &[]), "marker"),
            (seen(&[("description", "[pvegraph:rig/other]")], &[]), "marker"),
            (seen(&[], &[("cores", Some("9"))]), "pending"),
        ] {
            let error = told(Some(&look)).unwrap_err();
            assert!(error.contains("web (guest 100)") && error.contains(&format!("`{field}`")), "{error}");
        }
        let mut stopped = seen(&[], &[]);
        stopped.guest.status = "stopped".to_owned();
        let error = told(Some(&stopped)).unwrap_err();
        assert!(error.contains("`state`") && error.contains("plan again"), "{error}");
        let ours = before(&cluster, &operation(&request), 0, Some(&stopped), &expected, false);
        assert_eq!(ours, Ok(()), "a call of this run may have stopped it");
        let mut other = seen(&[], &[]);
        other
            .guest
            .config
            .insert("smbios1".to_owned(), "uuid=99999999-2222-3333-4444-555555555555".to_owned());
        assert!(told(Some(&other)).unwrap_err().contains("identity conflict"));
        let start = Request::new(Method::Post, "/nodes/pve1/qemu/100/status/start");
        let managed = Look { ha_managed: true, ..seen(&[], &[]) };
        let error = before(&cluster, &operation(&start), 0, Some(&managed), &expected, true).unwrap_err();
        assert!(error.contains("`ha`"), "{error}");
        // A restart undoes nothing of what high availability wants.
        let reboot = Request::new(Method::Post, "/nodes/pve1/qemu/100/status/reboot");
        assert_eq!(before(&cluster, &operation(&reboot), 0, Some(&managed), &expected, true), Ok(()));
    }

    #[test]
    fn only_what_this_call_left_waiting_is_taken_back() {
        let mut request = config("cores", "4").with("memory", "4096").with("sockets", "2");
        request.delete.extend(["balloon".to_owned(), "shares".to_owned()]);
        let look = seen(
            &[],
            &[
                ("cores", Some("4")),
                ("memory", Some("4096")),
                ("bios", Some("ovmf")),
                // Somebody else's, written while ours was on its way.
                ("sockets", Some("1")),
                ("balloon", None),
                ("shares", Some("9")),
            ],
        );
        let waited = ["memory".to_owned()];
        let taken_back = to_revert(&operation(&request), &request, &waited, &look, TagStyle::default());
        assert_eq!(taken_back, ["cores", "balloon"]);
    }

    /// Seen failing with: a restart that is sent whatever waits; one that is left out after a change of its own operation.
    #[test]
    fn a_restart_for_what_waited_is_needless_where_nothing_of_it_waits() {
        let reboot = Request::new(Method::Post, "/nodes/pve1/qemu/100/status/reboot");
        let restart = Operation {
            action: Action::Power,
            fields: vec!["net0.bridge".to_owned(), "cores".to_owned()],
            ..operation(&reboot)
        };
        let waits = |keys: &[&str]| {
            let pending: Vec<_> = keys.iter().map(|key| (*key, None)).collect();
            seen(&[], &pending).found()
        };
        assert!(needless(&restart, &reboot, &waits(&[])));
        assert!(needless(&restart, &reboot, &waits(&["memory"])), "what nobody desires");
        assert!(
            !needless(&restart, &reboot, &waits(&["cores"]))
                && !needless(&restart, &reboot, &waits(&["net0"]))
        );
        let configures = Operation { action: Action::Configure, ..restart.clone() };
        assert!(!needless(&configures, &reboot, &waits(&[])));
        let start = Request::new(Method::Post, "/nodes/pve1/qemu/100/status/start");
        assert!(!needless(&restart, &start, &waits(&[])));
    }
}
