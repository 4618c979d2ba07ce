//! Making a guest that is not there.

use std::collections::BTreeSet;

use pvegraph_inventory::GuestType;
use sha2::{Digest, Sha256};

use super::clone::{clone, source};
use super::guard::{self, Forbidden};
use super::request::{FormValue, Hidden, Method, Origin, Request};
use super::values::Values;
use super::{Action, Effect, Input, Operation, known};
use crate::canonical::{Canonical, hex};
use crate::desired::Guest;
use crate::diff::GuestDiff;
use crate::document::Power;
use crate::marker;
use crate::scope::Scope;

/// The operations that make it. Its number is entered into `taken`.
pub(super) fn create(
    input: &Input<'_>,
    guest: &Guest,
    diff: &GuestDiff,
    taken: &mut BTreeSet<i64>,
) -> Result<Vec<Operation>, Forbidden> {
    let (vmid, scope) = number(input, guest, taken)?;
    let guest = &*input.desired.with_defaults(guest);
    guard::allowed(scope, Action::Create)?;
    guard::own_volumes(&Guest { vmid: Some(vmid), ..guest.clone() })?;
    let source = match &guest.clone_of {
        Some(clone) => Some((clone, source(input, clone, guest)?)),
        None => None,
    };
    let places = [guest.node.as_ref(), source.map(|(_, source)| &source.node), input.desired.node.as_ref()];
    let Some(node) = places.into_iter().flatten().next() else {
        return Err(("node".to_owned(), "a new guest needs the node that makes it: write one".to_owned()));
    };
    known::node(input.around, "node", node)?;
    for key in guest.fields.keys() {
        known::option(input.around, guest, key, node)?;
    }
    if let Some((of, source)) = source {
        let operations = clone(input, guest, of, source, (vmid, scope, node), diff)?;
        taken.insert(vmid);
        return Ok(operations);
    }
    let values = Values {
        cluster: &input.desired.cluster,
        guest,
        style: input.around.style,
        marked: true,
        forecast: false,
    };
    let kind = guest.kind.as_str();
    let mut request =
        Request::new(Method::Post, format!("/nodes/{node}/{kind}")).with("vmid", vmid.to_string());
    if let Some(pool) = &scope.pool {
        request = request.with("pool", pool);
    }
    if guest.kind == GuestType::Lxc {
        let Some(template) = &guest.ostemplate else {
            let text = "a new container is made from a template: write its volume, such as local:vztmpl/debian-12.tar.zst";
            return Err(("ostemplate".to_owned(), text.to_owned()));
        };
        known::template(input.around, node, template)?;
        request = request.with("ostemplate", template);
    }
    for key in guest.fields.keys() {
        request.set.insert(key.clone(), values.whole(key)?);
    }
    if guest.cipassword.is_some() {
        request.set.insert("cipassword".to_owned(), values.whole("cipassword")?);
    }
    let fingerprint = match guest.kind {
        GuestType::Qemu => Some(identified(input, guest, vmid, &mut request)),
        GuestType::Lxc => None,
    };
    if let Some(secret) = guest.password.as_ref().filter(|_| guest.kind == GuestType::Lxc) {
        request.set.insert("password".to_owned(), FormValue::Secret { secret: secret.clone() });
    }
    request.set.entry("tags".to_owned()).or_insert_with(|| FormValue::Plain(marker::TAG.to_owned()));
    let trailer = marker::trailer(&input.desired.cluster, &guest.uid);
    let empty = || FormValue::Hidden(Hidden::new(Origin::Desired, "", Some(trailer)));
    request.set.entry("description".to_owned()).or_insert_with(empty);
    taken.insert(vmid);
    let operation = |action, effect, fields: Vec<String>, reasons, request| Operation {
        number: 0,
        after: BTreeSet::new(),
        uid: guest.uid.clone(),
        vmid,
        kind: guest.kind,
        node: node.clone(),
        action,
        effect,
        reversible: false,
        fields,
        reasons,
        affects: BTreeSet::new(),
        blast: 1,
        fingerprint: fingerprint.clone(),
        digest: None,
        pending_sha256: None,
        before: Default::default(),
        status: None,
        requests: vec![request],
    };
    let why = diff.changes.iter().map(ToString::to_string).collect();
    let mut operations =
        vec![operation(Action::Create, Effect::Create, vec!["guest".to_owned()], why, request)];
    if guest.state == Some(Power::Running) {
        guard::allowed(scope, Action::Power)?;
        let start = Request::new(Method::Post, format!("/nodes/{node}/{kind}/{vmid}/status/start"));
        let why = vec!["state: stopped → running".to_owned()];
        operations.push(operation(Action::Power, Effect::Hot, vec!["state".to_owned()], why, start));
    }
    if guest.template {
        guard::allowed(scope, Action::Template)?;
        let convert = Request::new(Method::Post, format!("/nodes/{node}/{kind}/{vmid}/template"));
        let why = vec!["template: (absent) → 1".to_owned()];
        operations.push(operation(Action::Template, Effect::Hot, vec!["template".to_owned()], why, convert));
    }
    Ok(operations)
}

/// Gives a new machine the SMBIOS UUID by which it is known from its first moment on: the desired one, or one of its own.
fn identified(input: &Input<'_>, guest: &Guest, vmid: i64, request: &mut Request) -> String {
    let wanted = guest.fields.get("smbios1");
    if let Some(Canonical::Map(map)) = wanted
        && let Some(uuid) = map.get("uuid")
    {
        return uuid.to_string();
    }
    let (cluster, uid, made_at, nonce, generation) =
        (&input.desired.cluster, &guest.uid, input.now, input.nonce, input.generation);
    let seed = format!("pvegraph smbios {cluster}/{uid} {vmid} {made_at} {nonce} {generation}");
    let uuid = uuid_of(&Sha256::digest(seed.as_bytes()));
    let others = wanted.map(|text| format!(",{text}")).unwrap_or_default();
    request.set.insert("smbios1".to_owned(), FormValue::Plain(format!("uuid={uuid}{others}")));
    uuid
}

/// A UUID of version 8 (RFC 9562) of the first bytes of a hash.
fn uuid_of(hash: &[u8]) -> String {
    let mut bytes: Vec<u8> = hash.iter().take(16).copied().collect();
    if let Some(version) = bytes.get_mut(6) {
        *version = *version & 0x0f | 0x80;
    }
    if let Some(variant) = bytes.get_mut(8) {
        *variant = *variant & 0x3f | 0x80;
    }
    let text = hex(&bytes);
    let part = |from: usize, to: usize| text.get(from..to).unwrap_or_default();
    format!("{}-{}-{}-{}-{}", part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32))
}

/// The guest's number, or the next free one of the scope in which guests may be made.
fn number<'a>(
    input: &Input<'a>,
    guest: &Guest,
    taken: &BTreeSet<i64>,
) -> Result<(i64, &'a Scope), Forbidden> {
    let forbidden = |text: String| Err(("vmid".to_owned(), text));
    if let Some(vmid) = guest.vmid {
        if let Some(other) = input.around.listed.get(&vmid) {
            let name = other.name.as_deref().unwrap_or("without a name");
            return forbidden(format!(
                "{vmid} is taken by a guest that could not be compared ({name}): desire another number"
            ));
        }
        return Ok((vmid, guard::scope_of(input.scopes, vmid)?));
    }
    let mut open = input.scopes.iter().filter(|scope| !scope.paused && scope.allow.contains(&Action::Create));
    let scope = match (open.next(), open.next()) {
        (Some(scope), None) => scope,
        (None, _) => {
            return forbidden(
                "no scope allows to create guests: write its number, or `pvegraph scope set NAME --vmids FIRST-LAST`".to_owned(),
            );
        }
        (Some(one), Some(other)) => {
            return forbidden(format!(
                "the scopes {} and {} allow to create guests: write its number",
                one.name, other.name
            ));
        }
    };
    match (scope.vmid_min..=scope.vmid_max).find(|vmid| !taken.contains(vmid)) {
        Some(vmid) => Ok((vmid, scope)),
        None => forbidden(format!("the scope {} has no free number: widen it", scope.name)),
    }
}
