//! Guests that are deleted: what is asked before the one call that nothing takes back, and what shows that they are gone.

use futures::future::BoxFuture;
use pve_client::{ApiError, PveClient};
use pvegraph_inventory::GuestType;

use super::Run;
use super::look::{Look, look};
use crate::live::{self, LiveError};
use crate::plan::{FormValue, Method, Operation, Request};

/// Says whether the graph still has every key to a deletion: the field, and the mend, where it has not.
pub trait Keys: Sync {
    /// Whether the scope of this number is paused now: which one, and the mend. Asked before every call; where the graph does not answer,
    /// what it said last.
    fn paused(&self, vmid: i64) -> BoxFuture<'_, Option<String>>;

    /// Asks the graph now. What it does not answer is no.
    fn may_delete<'k>(&'k self, operation: &'k Operation) -> BoxFuture<'k, Result<(), String>>;
}

/// Does the call delete a guest?
pub(super) fn destroys(request: &Request) -> bool {
    let parts: Vec<&str> = request.path.split('/').collect();
    request.method == Method::Delete && matches!(parts.as_slice(), ["", "nodes", _, "qemu" | "lxc", _])
}

/// Does it delete nothing but what the guest's own configuration names? Volumes that only have its number, and what jobs say of it, stay.
pub(super) fn is_narrow(request: &Request) -> bool {
    let unreferenced = |value: &FormValue| matches!(value, FormValue::Plain(text) if text == "0");
    request.delete.is_empty()
        && request.set.iter().all(|(name, value)| name == "destroy-unreferenced-disks" && unreferenced(value))
}

/// Why the guest, as it is, may not be deleted.
fn kept(look: &Look) -> Option<(&'static str, String)> {
    if look.guest.config.get("protection").is_some_and(|value| value == "1") {
        return Some(("protection", "it is protected at Proxmox VE: take that away".to_owned()));
    }
    if look.guest.status != "stopped" {
        return Some(("state", format!("it is {}: stop it", look.guest.status)));
    }
    look.ha_managed.then(|| ("ha", "high availability manages it: take it out of that".to_owned()))
}

/// What there is of a guest that was deleted.
pub(super) enum Remains {
    /// Neither its node nor the cluster's listing has it, with quorum.
    Nothing,
    /// The number is another guest's now.
    Another,
    /// It is there.
    Itself(Box<Look>),
    /// It is somewhere: the listing has it, or there is no quorum.
    Somewhere(&'static str),
}

/// Looks for the guest that an operation deletes.
pub(super) async fn remains(
    client: &PveClient,
    run: &Run<'_>,
    operation: &Operation,
) -> Result<Remains, LiveError> {
    let Operation { kind, node, vmid, uid, fingerprint, .. } = operation;
    // What is still being deleted has a lock, and perhaps nothing else any more.
    let ours = |seen: &Look| {
        // A machine's UUID says enough, whatever became of its description; a root volume's name may be another guest's later.
        let signed = || *kind == GuestType::Qemu || seen.guest.is_signed(&run.setup.desired.cluster, uid);
        let same = seen.guest.fingerprint() == *fingerprint && signed();
        seen.lock().is_some() || same
    };
    if let Some(seen) = look(client, *kind, node, *vmid).await? {
        return Ok(if ours(&seen) { Remains::Itself(Box::new(seen)) } else { Remains::Another });
    }
    if !live::quorate(client).await? {
        return Ok(Remains::Somewhere("quorum"));
    }
    let Some(other) = live::holder(client, *vmid).await? else { return Ok(Remains::Nothing) };
    if other.kind != *kind {
        return Ok(Remains::Another);
    }
    Ok(match look(client, *kind, &other.node, *vmid).await? {
        Some(seen) if ours(&seen) => Remains::Somewhere("node"),
        Some(_) => Remains::Another,
        None => Remains::Somewhere("guest"),
    })
}

impl Run<'_> {
    /// Says whether the guest may be deleted at this moment: the field, and the mend.
    ///
    /// # Errors
    /// Proxmox VE does not say.
    pub(super) async fn may_destroy(
        &self,
        operation: &Operation,
        seen: &Look,
    ) -> Result<Result<(), String>, ApiError> {
        let Operation { uid, vmid, .. } = operation;
        let refuse = |field: &str, text: &str| {
            Ok(Err(format!("{uid} (guest {vmid}): `{field}`: {text}, and plan again")))
        };
        if let Some((field, text)) = kept(seen) {
            return refuse(field, &text);
        }
        let agreed = self.setup.desired.guests.get(uid).is_some_and(|guest| {
            guest.tombstone && !guest.protected && guest.deletion == crate::document::Deletion::Destroy
        });
        if !agreed {
            return refuse(
                "tombstone",
                "nobody desires its deletion: write `tombstone`, and `deletion: destroy`",
            );
        }
        if !live::quorate(self.setup.client).await? {
            return refuse("quorum", "the cluster has no quorum: wait for it");
        }
        let path = format!("/vms/{vmid}");
        if !self.setup.client.permissions_on(&path).await?.value.has(&path, "VM.Allocate") {
            return refuse("token", &format!("the account has no VM.Allocate on {path}: grant it"));
        }
        if live::replicated(self.setup.client).await?.contains(vmid) {
            return refuse("replication", "replication copies it: take its jobs away");
        }
        if live::is_base(&seen.guest) {
            match live::linked_clones(self.setup.client, &seen.guest).await {
                Ok(clones) if clones.is_empty() => {}
                Ok(clones) => {
                    let all = clones.iter().map(i64::to_string).collect::<Vec<_>>().join(", ");
                    return refuse(
                        "guest",
                        &format!("linked clones build on it ({all}): delete these first"),
                    );
                }
                Err(LiveError::Api(error)) => return Err(error),
                Err(error) => return refuse("guest", &error.to_string()),
            }
        }
        match self.setup.keys.may_delete(operation).await {
            Ok(()) => Ok(Ok(())),
            Err(why) => Ok(Err(format!("{uid} (guest {vmid}): {why}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deletion_is_of_one_guest_and_no_more_than_it() {
        let of = |path: &str| Request::new(Method::Delete, path);
        assert!(destroys(&of("/nodes/pve1/qemu/100")) && destroys(&of("/nodes/pve1/lxc/200")));
        for other in
            ["/nodes/pve1/qemu/100/snapshot/a", "/nodes/pve1/storage/local", "/cluster/ha/resources/vm:100"]
        {
            assert!(!destroys(&of(other)), "{other}");
        }
        assert!(!destroys(&Request::new(Method::Put, "/nodes/pve1/qemu/100")));
        assert!(is_narrow(&of("/").with("destroy-unreferenced-disks", "0")));
        assert!(!is_narrow(&of("/").with("destroy-unreferenced-disks", "1")));
        assert!(!is_narrow(&of("/").with("purge", "1")) && !is_narrow(&of("/").with("force", "1")));
    }
}
