//! What is checked before anything is sent.

use std::collections::BTreeMap;

use pve_client::PveClient;
use pvegraph_graph::Store;
use pvegraph_inventory::ClusterId;
use pvegraph_reconcile::apply::{is_known, missing, needed};
use pvegraph_reconcile::desired::Desired;
use pvegraph_reconcile::plan::Plan;
use pvegraph_reconcile::stored::Approval;
use pvegraph_reconcile::{scope, stored};

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
    Ok(())
}

/// What is desired, if it is still what the plan was made of.
pub async fn current(store: &dyn Store, id: &ClusterId, plan: &Plan) -> Result<Desired, Failure> {
    let stored = stored::read(store, id).await?;
    if let Some(why) = changed(store, id, plan, &stored).await? {
        return Err(Failure::new(Exit::Stale, format!("the plan is stale, and nothing was changed: {why}")));
    }
    let blocked = |text: String| Failure::new(Exit::Blocked, format!("{text}; nothing was changed"));
    let scopes = stored::scopes(store, id).await?;
    for operation in &plan.operations {
        let subject = format!("{} (guest {})", operation.uid, operation.vmid);
        match scope::of(&scopes, operation.vmid) {
            None => return Err(blocked(format!("{subject}: it is in no scope any more: plan again"))),
            Some(scope) if scope.paused => {
                return Err(blocked(format!("{subject}: its scope {} is paused", scope.name)));
            }
            Some(scope) if !scope.allows(operation.action) => {
                let action = operation.action.as_str();
                return Err(blocked(format!(
                    "{subject}: its scope {} does not allow to {action} any more",
                    scope.name
                )));
            }
            Some(_) => {}
        }
    }
    Ok(stored.desired)
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
    for operation in &plan.operations {
        let bound = stored.bindings.get(&operation.uid);
        let same = bound.is_some_and(|bound| {
            bound.vmid == operation.vmid
                && bound.kind == operation.kind
                && bound.fingerprint == operation.fingerprint
        });
        if operation.fingerprint.is_some() && !same {
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

/// For a run that goes on: what is desired, and why nothing of the plan may be begun any more.
pub async fn for_resume(
    store: &dyn Store,
    id: &ClusterId,
    plan: &Plan,
    now: i64,
) -> Result<(Desired, Option<String>), Failure> {
    let stored = stored::read(store, id).await?;
    let why = match plan.fresh(now) {
        Err(error) => Some(format!("the plan: {error}")),
        Ok(()) => changed(store, id, plan, &stored).await?,
    };
    Ok((stored.desired, why))
}

/// Who approved the plan.
pub async fn approver(
    store: &dyn Store,
    id: &ClusterId,
    plan: &Plan,
    auto: bool,
    now: i64,
) -> Result<String, Failure> {
    let sha256 = plan.sha256();
    let approval = stored::approval(store, id, &sha256).await?;
    let why = match Approval::holds(approval.as_ref(), &sha256, now) {
        Ok(()) => return Ok(approval.map(|approval| approval.approver).unwrap_or_default()),
        Err(why) => why,
    };
    if auto && plan.deletes == 0 {
        return Ok("nobody (--auto-approve)".to_owned());
    }
    let mend = if auto {
        "a plan that deletes guests is not for --auto-approve"
    } else {
        "or add --auto-approve where nobody else need look at it"
    };
    Err(Failure::new(Exit::Stale, format!("{why}; {mend}; nothing was changed")))
}

/// Asks Proxmox VE whether the account may do all of it.
pub async fn allowed(client: &PveClient, plan: &Plan) -> Result<(), Failure> {
    let lacking = missing(client, needed(&plan.operations)).await;
    let lacking = lacking.map_err(|error| Failure::new(api_code(&error), error))?;
    if lacking.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> =
        lacking.iter().map(|need| format!("  {} on {}", need.any.join(" or "), need.path)).collect();
    let text = format!(
        "{} lacks privileges for this plan, and nothing was changed; grant them, to the token as well where it has privileges of \
         its own:\n{}",
        client.account(),
        lines.join("\n")
    );
    Err(Failure::new(Exit::Auth, text))
}
