//! The guests that everything else stands on: those that the graph's database and this program run on. A plan that takes one of them down
//! can't be followed to its end.

use std::collections::BTreeSet;

use crate::live::Live;
use crate::plan::{Action, Plan, Remark};

/// What a plan must not do: stop, restart, take back or delete a guest of `keep_up`, or the machine of this SMBIOS UUID, on which this
/// program runs itself.
pub fn forbidden(plan: &Plan, live: &Live, keep_up: &BTreeSet<i64>, machine: Option<&str>) -> Vec<Remark> {
    let runs_on = |vmid: i64| {
        let uuid = live.guests.get(&vmid).and_then(|guest| guest.fingerprint());
        machine.zip(uuid).is_some_and(|(machine, uuid)| machine.eq_ignore_ascii_case(&uuid))
    };
    let mut remarks = Vec::new();
    for operation in &plan.operations {
        let down = operation.effect.interrupts()
            || matches!(operation.action, Action::Destroy | Action::RestoreSnapshot);
        if !down {
            continue;
        }
        let text = if keep_up.contains(&operation.vmid) {
            "`keep_up` of the cluster's settings has it, because the graph or this program needs it: do this by hand, or take it out there"
        } else if runs_on(operation.vmid) {
            "this program runs on it, and would not see what becomes of it: run it somewhere else"
        } else {
            continue;
        };
        remarks.push(Remark {
            subject: format!("{} (guest {})", operation.uid, operation.vmid),
            field: operation.action.as_str().to_owned(),
            text: text.to_owned(),
        });
    }
    remarks
}
