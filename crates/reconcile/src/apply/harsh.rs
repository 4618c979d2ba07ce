//! Whether guests are cut off and restarted only where that is desired, whatever a plan's file says. Pure.

use super::kinds::power;
use crate::desired::{Desired, Guest};
use crate::document::{Power, Reboot, Shutdown};
use crate::plan::{Operation, Plan, Request};

/// Why a plan does more to a guest than is desired: the operation, the field, and the mend.
pub fn harsh(plan: &Plan, desired: &Desired) -> Option<String> {
    plan.operations.iter().find_map(|operation| {
        let Operation { number, uid, vmid, requests, .. } = operation;
        let guest = desired.guests.get(uid)?;
        let back = plan.back_of.is_some();
        let what = requests
            .iter()
            .find_map(|request| harm(guest, request).or_else(|| unwanted(guest, request, back)))?;
        Some(format!("operation {number} ({uid}, guest {vmid}): {what}"))
    })
}

/// What a call does to the guest that nobody desires.
pub(super) fn harm(guest: &Guest, request: &Request) -> Option<&'static str> {
    let restarts =
        power(request) == Some("reboot") || request.target().is_some() && request.set.contains_key("restart");
    if guest.shutdown == Shutdown::Graceful && request.set.contains_key("forceStop") {
        Some("`shutdown`: it would be cut off, and has to shut down by itself: plan again")
    } else if guest.reboot == Reboot::Never && restarts {
        Some("`reboot`: it would restart, and is not to: plan again")
    } else {
        None
    }
}

/// What a call does that is not what the guest shall be. `back`: it is the way back from a plan, to what it was.
fn unwanted(guest: &Guest, request: &Request, back: bool) -> Option<&'static str> {
    if power(request) == Some("shutdown") && guest.state != Some(Power::Stopped) && !back {
        Some("`state`: it would be shut down, and is not to stop: plan again")
    } else if request.path.ends_with("/template") && !guest.template {
        Some("`template`: it would become a template, and is not to: plan again")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use pvegraph_inventory::GuestType;

    use super::*;
    use crate::plan::Method;

    /// Seen failing with: each of the two that is let through.
    #[test]
    fn a_guest_is_cut_off_or_restarted_only_where_that_is_desired() {
        let meek = Guest::new("web", GuestType::Qemu);
        let force = Guest { shutdown: Shutdown::Force, ..meek.clone() };
        let reboot = Guest { reboot: Reboot::Allow, ..meek.clone() };
        let post = |rest: &str| Request::new(Method::Post, format!("/nodes/pve1/qemu/100/{rest}"));
        let shutdown = post("status/shutdown").with("timeout", "180");
        for guest in [&meek, &force, &reboot] {
            assert_eq!(harm(guest, &shutdown), None);
            assert_eq!(harm(guest, &post("status/start")), None);
            assert_eq!(harm(guest, &post("migrate").with("target", "pve2").with("online", "1")), None);
        }
        let (runs, stops) = (&meek, &Guest { state: Some(Power::Stopped), ..meek.clone() });
        assert!(unwanted(runs, &shutdown, false).is_some_and(|told| told.starts_with("`state`")));
        assert_eq!([unwanted(runs, &shutdown, true), unwanted(stops, &shutdown, false)], [None, None]);
        assert!(unwanted(runs, &post("template"), true).is_some_and(|told| told.starts_with("`template`")));
        let cut_off = shutdown.with("forceStop", "1");
        assert_eq!(harm(&force, &cut_off), None);
        for guest in [&meek, &reboot] {
            assert!(harm(guest, &cut_off).is_some_and(|told| told.starts_with("`shutdown`")));
        }
        for restart in [post("status/reboot"), post("migrate").with("target", "pve2").with("restart", "1")] {
            assert_eq!(harm(&reboot, &restart), None);
            for guest in [&meek, &force] {
                assert!(harm(guest, &restart).is_some_and(|told| told.starts_with("`reboot`")), "{restart}");
            }
        }
    }
}
