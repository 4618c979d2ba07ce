//! What is checked before anything is sent.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use pve_client::PveClient;
use pvegraph_graph::Statement;
use pvegraph_graph::Store;
use pvegraph_inventory::ClusterId;
use pvegraph_reconcile::apply::{Copied, Files, Outcome, harsh, is_known, misplaced, missing, needed, odd};
use pvegraph_reconcile::canonical::is_nic;
use pvegraph_reconcile::desired::Desired;
use pvegraph_reconcile::document::Policy;
use pvegraph_reconcile::live::{Live, LiveGuest};
use pvegraph_reconcile::plan::{FormValue, Plan, too_many};
use pvegraph_reconcile::stored::Approval;
use pvegraph_reconcile::{after, own, policy, scope, stored, versions};

use crate::commands::ground::this_machine;
use crate::commands::secrets;
use crate::commands::sync::api_code;
use crate::exit::{Exit, Failure};

/// Refuses a plan that something forbids, or that has operations which can't be applied yet.
pub fn possible(plan: &Plan) -> Result<(), Failure> {
    if !plan.blocked.is_empty() {
        let lines: Vec<String> = plan.blocked.iter().map(|one| format!("  {one}")).collect();
        let text = format!("something forbids the plan, and nothing was changed:\n{}", lines.join("\n"));
        return Err(Failure::new(Exit::Blocked, text));
    }
    for operation in &plan.operations {
        if !operation.requests.iter().all(is_known) {
            let text = format!(
                "operation {} ({} of {}): this program plans it and can't apply it yet; nothing was changed: take it out of what is \
                 desired for now",
                operation.number,
                operation.action.as_str(),
                operation.uid
            );
            return Err(Failure::new(Exit::Blocked, text));
        }
    }
    match odd(plan) {
        Some(what) => Err(Failure::new(Exit::Blocked, format!("{what}; nothing was changed"))),
        None => Ok(()),
    }
}

/// What is desired, and why nothing of the plan may be begun: what the graph has is not what it was made of, or scopes do not allow it any
/// more. `live`: the plan's guests.
///
/// # Errors
/// The store's, or what is there is not valid.
pub async fn current(
    store: &dyn Store,
    id: &ClusterId,
    plan: &Plan,
    live: &Live,
) -> Result<(Desired, Option<Refusal>), Failure> {
    let stored = stored::read(store, id).await?.with_numbers();
    let scopes = stored::scopes(store, id).await?;
    let why = match changed(store, id, plan, &stored).await? {
        Some(why) => Some(Refusal { exit: Exit::Stale, why: format!("the plan is stale: {why}") }),
        None => {
            let pool = |vmid: i64| live.guests.get(&vmid).map(|guest| guest.pool.clone());
            let why = scope::forbidden(&scopes, &plan.operations, pool)
                .or_else(|| too_many(stored.desired.guests.len(), &plan.operations));
            why.map(|why| Refusal { exit: Exit::Blocked, why })
        }
    };
    Ok((stored.desired, why))
}

/// Why a plan takes guests where nobody desires them, or does more to them than is desired. The way back from a run of this host takes
/// them to where that found them.
pub fn as_desired(files: &Files, plan: &Plan, desired: &Desired) -> Option<Refusal> {
    let undone = plan.back_of.as_ref().map(|sha256| undone_by(files, sha256)).transpose();
    let why = match undone {
        Ok(undone) => misplaced(plan, desired, undone.as_ref()).or_else(|| harsh(plan, desired)),
        Err(why) => Some(format!("it is a way back, and {why}: plan again")),
    };
    why.map(|why| Refusal { exit: Exit::Blocked, why })
}

/// The plan of this hash that a run of this host has applied.
fn undone_by(files: &Files, sha256: &str) -> Result<Plan, String> {
    let runs = files.runs().map_err(|error| error.to_string())?;
    let Some(run) = runs.into_iter().find(|record| record.plan == *sha256) else {
        return Err("what it takes back was never applied from this host".to_owned());
    };
    let text = files.plan_of(&run.run).map_err(|error| error.to_string())?;
    let plan = super::kept(&text)?;
    if plan.sha256() != sha256 {
        return Err("the plan that is kept of that run is another one".to_owned());
    }
    Ok(plan)
}

/// Why nothing of a plan may be begun.
pub struct Refusal {
    /// The code to end with.
    pub exit: Exit,
    /// The guest, and the mend.
    pub why: String,
}

impl From<Refusal> for Failure {
    fn from(Refusal { exit, why }: Refusal) -> Self {
        Self::new(exit, format!("nothing was changed: {why}"))
    }
}

/// Why the plan is not of what the graph has.
async fn changed(
    store: &dyn Store,
    id: &ClusterId,
    plan: &Plan,
    stored: &stored::Stored,
) -> Result<Option<String>, Failure> {
    if stored.generation != plan.generation {
        return Ok(Some("what is desired was changed since it was made: plan again".to_owned()));
    }
    // What is written by hand in Cypher does not raise the generation.
    for operation in &plan.operations {
        let managed =
            stored.desired.guests.get(&operation.uid).is_some_and(|guest| guest.policy == Policy::Manage);
        if !managed {
            return Ok(Some(format!("{} is not managed any more: plan again", operation.uid)));
        }
    }
    if stored.sha256 != plan.desired_sha256 {
        return Ok(Some("what is desired was changed by hand since it was made: plan again".to_owned()));
    }
    for operation in &plan.operations {
        let bound = stored::bound_to(&stored.bindings, &operation.uid);
        let made = plan.makes(&operation.uid);
        let same = bound.map_or(made, |bound| {
            bound.vmid == operation.vmid
                && bound.kind == operation.kind
                // Of what is being made the number alone is known.
                && (made || bound.reserved_by.is_some() || bound.fingerprint == operation.fingerprint)
        });
        if !same {
            return Ok(Some(format!("{} is bound to another guest since: plan again", operation.uid)));
        }
    }
    let policies: BTreeMap<String, String> = stored::policies(store, id)
        .await?
        .iter()
        .map(|policy| (policy.name.clone(), policy.sha256()))
        .collect();
    Ok((policies != plan.policies).then(|| "a policy was changed since it was made: plan again".to_owned()))
}

/// Refuses a version of Proxmox VE of which nobody knows what calls do there. `any`: whoever applies knows better.
///
/// # Errors
/// The cluster does not tell its version.
pub async fn known_version(client: &PveClient, any: bool) -> Result<Result<(), Refusal>, Failure> {
    let version = client.version().await.map_err(|error| Failure::new(api_code(&error), error))?;
    let Some(why) = versions::unknown(&version.value.version) else { return Ok(Ok(())) };
    if any {
        tracing::warn!("{why}");
        return Ok(Ok(()));
    }
    Ok(Err(Refusal { exit: Exit::Blocked, why: format!("{why}, or say --any-version") }))
}

/// Why policies can't be asked: the graph has the estate as it was too long ago. Without policies nothing is asked of it.
///
/// # Errors
/// The store's.
pub async fn recent(
    store: &dyn Store,
    id: &ClusterId,
    plan: &Plan,
    limit: Duration,
    now: i64,
) -> Result<Option<Refusal>, Failure> {
    let Some(why) = stored::outdated(stored::synced_at(store, id).await?, now, limit) else {
        return Ok(None);
    };
    if plan.policies.is_empty() {
        tracing::warn!("{id}: {why}");
        return Ok(None);
    }
    let why = format!("policies are asked of the estate as the graph has it: {why}");
    Ok(Some(Refusal { exit: Exit::Stale, why }))
}

/// Why policies forbid it now, or what everything stands on does: nodes and guests may be others than when it was made. What policies only
/// warn of is told. `live`: all guests of the cluster's listing. `keep_up`: see [`own::forbidden`].
///
/// # Errors
/// The store's.
pub async fn permitted(
    store: &dyn Store,
    id: &ClusterId,
    plan: &Plan,
    desired: &Desired,
    live: &Live,
    keep_up: &BTreeSet<i64>,
) -> Result<Option<Refusal>, Failure> {
    let policies = stored::policies(store, id).await?;
    let mut asked = Plan { blocked: Vec::new(), warnings: Vec::new(), ..plan.clone() };
    policy::enter(store, &policies, &after::estate(live, desired, plan), &mut asked).await;
    for one in asked.warnings.iter().filter(|one| !plan.warnings.contains(one)) {
        tracing::warn!("{one}");
    }
    asked.blocked.extend(own::forbidden(plan, live, keep_up, this_machine().as_deref()));
    let lines: Vec<String> = asked.blocked.iter().map(|one| format!("  {one}")).collect();
    let why = || format!("something forbids the plan by now:\n{}", lines.join("\n"));
    Ok((!lines.is_empty()).then(|| Refusal { exit: Exit::Blocked, why: why() }))
}

/// Why a plan is not for another run: one of it has done something, or may have. What a call does may be as possible a second time (a
/// restart, the way back to a snapshot), and nobody has agreed to that.
///
/// # Errors
/// The journals of this host, or the store, can't be read.
pub async fn used(
    store: &dyn Store,
    id: &ClusterId,
    files: &Files,
    plan: &Plan,
) -> Result<Option<Refusal>, Failure> {
    let sha256 = plan.sha256();
    let here = files.runs()?.into_iter().find(|record| record.plan == sha256 && record.did_something());
    let text = "MATCH (r:Run)\nWHERE r.cluster_id = $cluster_id AND r.sha256 = $sha256\n\
                AND (r.ended_at IS NULL OR [(r)-[d:DID]->() WHERE d.result IN $did | 1] <> [])\nRETURN r.run AS run LIMIT 1";
    let asked = Statement::new(text)
        .with("cluster_id", id.as_str())
        .with("sha256", sha256)
        .with("did", Outcome::DID.to_vec());
    let rows = store.read(asked).await?;
    let noted = rows.get(0, "run").and_then(|run| run.as_str()).map(str::to_owned);
    Ok(here.map(|record| record.run).or(noted).map(|run| {
        let why = format!("the plan was applied already (run {run}): plan again for what is left");
        Refusal { exit: Exit::Stale, why }
    }))
}

/// What the journal has in place of an approver where nobody approved the plan.
pub const NOBODY: &str = "nobody (--auto-approve)";

/// Who approved the plan, and until when it may be gone by, in epoch seconds. `auto`: nobody else need look at it.
///
/// # Errors
/// The store's, or it is not approved.
pub async fn approver(
    store: &dyn Store,
    id: &ClusterId,
    plan: &Plan,
    auto: bool,
    now: i64,
) -> Result<Result<(String, i64), Refusal>, Failure> {
    let sha256 = plan.sha256();
    let approval = stored::approval(store, id, &sha256).await?;
    let why = match (Approval::holds(approval.as_ref(), &sha256, now), approval) {
        (Ok(()), Some(approval)) => {
            return Ok(Ok((approval.approver, plan.expires_at.min(approval.expires_at))));
        }
        (Ok(()), None) => "the plan is not approved: `pvegraph approve FILE`".to_owned(),
        (Err(why), _) => why.to_string(),
    };
    if auto && !plan.loses() {
        return Ok(Ok((NOBODY.to_owned(), plan.expires_at)));
    }
    let mend = if auto {
        "a plan that deletes guests, takes one back to a snapshot or makes one a template is not for --auto-approve"
    } else {
        "or add --auto-approve where nobody else need look at it"
    };
    Ok(Err(Refusal { exit: Exit::Stale, why: format!("{why}; {mend}") }))
}

/// For a run that goes on, by whose word: until when, or why nothing more of the plan may be begun.
///
/// # Errors
/// The store's.
pub async fn still_approved(
    store: &dyn Store,
    id: &ClusterId,
    plan: &Plan,
    by: &str,
    now: i64,
) -> Result<Result<i64, Refusal>, Failure> {
    if let Err(error) = plan.fresh(now) {
        return Ok(Err(Refusal { exit: Exit::Stale, why: format!("the plan: {error}") }));
    }
    let approved = approver(store, id, plan, by == NOBODY, now).await?;
    Ok(approved.map(|(_, until)| until))
}

/// Why secrets that the plan sends can't be read here: each with its guest and field. What is in them is not told.
pub fn readable(plan: &Plan) -> Option<Refusal> {
    let mut lines = BTreeSet::new();
    for operation in &plan.operations {
        for (field, value) in operation.requests.iter().flat_map(|request| &request.set) {
            let FormValue::Secret { secret } = value else { continue };
            if let Err(why) = secrets::read(secret) {
                lines.insert(format!("  {} (guest {}): `{field}`: {why}", operation.uid, operation.vmid));
            }
        }
    }
    let lines: Vec<String> = lines.into_iter().collect();
    let why = || {
        format!(
            "secrets that the plan sends can't be read on this host; put each where it is looked for, or desire another place:\n{}",
            lines.join("\n")
        )
    };
    (!lines.is_empty()).then(|| Refusal { exit: Exit::Blocked, why: why() })
}

/// Asks Proxmox VE whether the account may do all of it.
///
/// # Errors
/// It does not say.
pub async fn allowed(client: &PveClient, plan: &Plan, live: &Live) -> Result<Result<(), Refusal>, Failure> {
    let all = super::run::storages(live);
    let sources = |vmid: i64| Copied {
        storages: all.get(&vmid).into_iter().flat_map(BTreeMap::values).cloned().collect(),
        interfaces: live.guests.get(&vmid).map(interfaces).unwrap_or_default(),
    };
    let lacking = missing(client, needed(&plan.operations, &sources)).await;
    let lacking = lacking.map_err(|error| Failure::new(api_code(&error), error))?;
    if lacking.is_empty() {
        return Ok(Ok(()));
    }
    let lines: Vec<String> =
        lacking.iter().map(|need| format!("  {} on {}", need.any.join(" or "), need.path)).collect();
    let text = format!(
        "{} lacks privileges for this plan; grant them, to the token as well where it has privileges of its own:\n{}",
        client.account(),
        lines.join("\n")
    );
    Ok(Err(Refusal { exit: Exit::Auth, why: text }))
}

/// A guest's network interfaces, as Proxmox VE writes them.
fn interfaces(guest: &LiveGuest) -> Vec<String> {
    let of = guest.config.iter().filter(|(key, _)| is_nic(guest.kind, key));
    of.map(|(_, value)| value.clone()).collect()
}

#[cfg(test)]
mod tests {
    use pvegraph_inventory::GuestType;

    use super::*;

    /// Seen failing with: disks that are taken for interfaces.
    #[test]
    fn a_guests_interfaces_are_all_that_copies_of_it_are_connected_by() {
        let option = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
        let config = [
            ("net0", "virtio=BC:24:11:00:00:01,bridge=vmbr0"),
            ("net1", "e1000,bridge=vmbr1"),
            ("scsi0", "lvm:x"),
        ];
        let guest = LiveGuest {
            vmid: 9_000,
            kind: GuestType::Qemu,
            node: "pve1".to_owned(),
            status: "stopped".to_owned(),
            pool: None,
            ha: None,
            config: config.map(option).into(),
        };
        assert_eq!(interfaces(&guest), ["virtio=BC:24:11:00:00:01,bridge=vmbr0", "e1000,bridge=vmbr1"]);
    }
}
