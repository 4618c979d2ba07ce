//! Guests that are made: what their calls are, and what must hold before one is sent.
//!
//! Numbers are what keeps a guest from being made twice: one is kept for it in the graph (a `Binding` of the run) before the call is
//! sent, the next plan uses the same one, and PVE gives no number to two guests.

use std::collections::BTreeSet;

use pve_client::PveClient;
use pvegraph_inventory::GuestType;

use super::look::Look;
use crate::live::{self, LiveError};
use crate::plan::{Method, Operation, Plan, Request};

/// A call that makes a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Made {
    /// Machine or container.
    pub(super) kind: GuestType,
    /// The node that is asked.
    pub(super) node: String,
    /// The guest that is copied; nothing where it is made from scratch.
    pub(super) source: Option<i64>,
}

/// What a call makes; nothing where it makes no guest.
pub(super) fn made(request: &Request) -> Option<Made> {
    if request.method != Method::Post {
        return None;
    }
    let parts: Vec<&str> = request.path.strip_prefix("/nodes/")?.split('/').collect();
    let (node, kind, source) = match parts.as_slice() {
        [node, kind] => (node, kind, None),
        [node, kind, source, "clone"] => (node, kind, Some(source.parse().ok()?)),
        _ => return None,
    };
    let kind = match *kind {
        "qemu" => GuestType::Qemu,
        "lxc" => GuestType::Lxc,
        _ => return None,
    };
    Some(Made { kind, node: (*node).to_owned(), source })
}

/// The guests that a plan copies.
pub fn sources(plan: &Plan) -> BTreeSet<i64> {
    let calls = plan.operations.iter().flat_map(|operation| &operation.requests);
    calls.filter_map(|request| made(request)?.source).collect()
}

/// Parameters of these calls that are no options of the guest.
pub(super) const NO_OPTIONS: [&str; 4] = ["ostemplate", "password", "pool", "vmid"];

/// Why a guest can't be made now.
pub(super) enum NotNow {
    /// Something is otherwise than the plan says.
    Stale(String),
    /// The cluster can't be asked.
    Live(LiveError),
}

impl From<LiveError> for NotNow {
    fn from(error: LiveError) -> Self {
        Self::Live(error)
    }
}

/// Says whether the number is free, in a cluster that can be written to.
pub(super) async fn free(client: &PveClient, operation: &Operation) -> Result<(), NotNow> {
    let Operation { uid, vmid, .. } = operation;
    let stale = |field: &str, text: String| NotNow::Stale(format!("{uid} (guest {vmid}): `{field}`: {text}"));
    if !live::quorate(client).await.map_err(LiveError::from)? {
        return Err(stale("quorum", "the cluster has no quorum: wait for it, and plan again".to_owned()));
    }
    match live::holder(client, *vmid).await? {
        None => Ok(()),
        Some(other) => Err(stale("vmid", taken(other.name.as_deref(), &other.node))),
    }
}

/// What there is to say of a number that a guest has already.
pub(super) fn taken(name: Option<&str>, node: &str) -> String {
    format!(
        "the number is taken by now, by {} on {node}, which is left alone: plan again for another number, or desire a free one",
        name.unwrap_or("a guest without a name")
    )
}

/// Is it another guest than the one that the call makes? What PVE is still making has a lock, and not yet all of it.
pub(super) fn is_foreign(operation: &Operation, signed: bool, look: &Look) -> bool {
    let other = operation.fingerprint.is_some() && look.guest.fingerprint() != operation.fingerprint;
    look.lock().is_none() && (other || !signed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_that_make_guests_are_told_from_others() {
        let of = |path: &str| made(&Request::new(Method::Post, path));
        let made = |kind, source| Some(Made { kind, node: "pve1".to_owned(), source });
        assert_eq!(of("/nodes/pve1/qemu"), made(GuestType::Qemu, None));
        assert_eq!(of("/nodes/pve1/lxc"), made(GuestType::Lxc, None));
        assert_eq!(of("/nodes/pve1/qemu/100/clone"), made(GuestType::Qemu, Some(100)));
        for other in ["/nodes/pve1/qemu/100/config", "/nodes/pve1/storage", "/cluster/ha/resources/vm:100"] {
            assert_eq!(of(other), None, "{other}");
        }
        assert_eq!(super::made(&Request::new(Method::Put, "/nodes/pve1/qemu")), None);
    }
}
