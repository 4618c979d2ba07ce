//! Making a guest that is not there.

use std::collections::BTreeSet;

use pvegraph_inventory::GuestType;

use super::guard::{self, Forbidden};
use super::request::{FormValue, Hidden, Method, Origin, Request};
use super::values::Values;
use super::{Action, Effect, Input, Operation, known};
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
    guard::allowed(scope, Action::Create)?;
    let Some(node) = guest.node.as_ref().or(input.desired.node.as_ref()) else {
        return Err(("node".to_owned(), "a new guest needs the node that makes it: write one".to_owned()));
    };
    known::node(input.around, "node", node)?;
    for key in guest.fields.keys() {
        known::option(input.around, guest, key, node)?;
    }
    let values = Values { cluster: &input.desired.cluster, guest, style: input.around.style, marked: true };
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
        reversible: true,
        fields,
        reasons,
        affects: BTreeSet::new(),
        blast: 1,
        fingerprint: None,
        digest: None,
        pending_sha256: None,
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
    Ok(operations)
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
