//! What Proxmox VE and the graph are asked once more just before calls that can't be taken back by another one.

use pve_client::ApiError;

use super::Run;
use super::destroy::destroys;
use super::harsh::harm;
use super::kinds::goes_back;
use super::look::Look;
use super::placed::{elsewhere, goes};
use crate::live;
use crate::plan::{Operation, Request, is_protected, migration_forbidden};

impl Run<'_> {
    /// Says whether what the plan found out by questions of its own still holds: the field, and the mend.
    ///
    /// # Errors
    /// Proxmox VE does not say.
    pub(super) async fn still(
        &self,
        operation: &Operation,
        request: &Request,
        seen: &Look,
    ) -> Result<Result<(), String>, ApiError> {
        let Operation { uid, vmid, .. } = operation;
        if let Some(what) = self.setup.desired.guests.get(uid).and_then(|guest| harm(guest, request)) {
            return Ok(Err(format!("{uid} (guest {vmid}): {what}")));
        }
        match request.target() {
            Some(target) => self.may_migrate(operation, target, seen).await,
            None if destroys(request) => self.may_destroy(operation, seen).await,
            None if goes_back(request) => Ok(self.may_go_back(operation, seen)),
            None => Ok(Ok(())),
        }
    }

    fn may_go_back(&self, operation: &Operation, seen: &Look) -> Result<(), String> {
        let Operation { uid, vmid, .. } = operation;
        let protected =
            self.setup.desired.guests.get(uid).is_some_and(|guest| is_protected(guest, &seen.guest));
        if protected {
            return Err(format!(
                "{uid} (guest {vmid}): `protected`: it is protected since: take that away, and plan again"
            ));
        }
        Ok(())
    }

    async fn may_migrate(
        &self,
        operation: &Operation,
        target: &str,
        seen: &Look,
    ) -> Result<Result<(), String>, ApiError> {
        let Operation { uid, vmid, node, .. } = operation;
        let refuse = |field: &str, text: &str| Ok(Err(format!("{uid} (guest {vmid}): `{field}`: {text}")));
        let guest = self.setup.desired.guests.get(uid);
        // The way back goes to where the guest was, which was looked up when the run began.
        if let Some(guest) = guest.filter(|guest| self.setup.plan.back_of.is_none() && !goes(guest, target)) {
            return refuse("node", &format!("{}: plan again", elsewhere(guest, target)));
        }
        let nodes = self.setup.client.nodes().await?.value;
        let online = |row: &&pve_client::answers::NodeRow| row.status.as_deref() == Some("online");
        if !nodes.iter().filter(online).any(|row| row.node == target) {
            return refuse(
                "node",
                &format!("the node {target} is not online any more: wait for it, and plan again"),
            );
        }
        if seen.is_given_up() {
            return refuse(
                "ha",
                "high availability has given it up (error) since: set its state to `disabled` there, and plan again",
            );
        }
        let allowed = guest.map(|guest| guest.local_disks).unwrap_or_default();
        if let Some(says) = live::migration(self.setup.client, &seen.guest, Some(target)).await?
            && let Some((field, text)) = migration_forbidden(&says, node, target, allowed)
        {
            return refuse(&field, &format!("{text}, and plan again"));
        }
        Ok(Ok(()))
    }
}
