//! Work that changes whether a guest runs, and what HA does on its own.

use super::{Outcome, check_lock};
use crate::world::state::{GuestKind, Power, State, Work};

pub(super) fn begin_start(state: &mut State, _node: &str, work: &Work) -> Outcome {
    let Some(guest) = state.guests.get(&work.vmid()) else { return Err(super::missing(state, work)) };
    let word = super::guest_word(guest.kind);
    // A hibernated VM is locked, and starting it is the way out.
    if guest.lock().as_deref() != Some("suspended") && !work.flag("skiplock") {
        check_lock(state, work)?;
    }
    if guest.is_template() {
        return Err(match guest.kind {
            GuestKind::Qemu => "you can't start a vm if it's a template".to_owned(),
            GuestKind::Lxc => "you can't start a CT if it's a template".to_owned(),
        });
    }
    if guest.is_running() {
        return Err(format!("{word} {} already running", guest.vmid));
    }
    Ok(())
}

pub(super) fn change(state: &mut State, _node: &str, work: &Work) -> Outcome {
    let vmid = work.vmid();
    let asked = matches!(work.kind.as_str(), "qmshutdown" | "vzshutdown" | "qmreboot" | "vzreboot");
    if asked && state.deaf.contains(&vmid) && !work.flag("forceStop") {
        return Err("VM quit/powerdown failed - got timeout".to_owned());
    }
    let Some(guest) = state.guests.get_mut(&vmid) else { return Err(super::missing(state, work)) };
    match work.kind.as_str() {
        "qmstart" | "vzstart" => {
            if guest.lock().as_deref() == Some("suspended") {
                guest.config.remove("lock");
                guest.config.remove("vmstate");
            }
            super::config::apply_pending(guest);
            guest.power = Power::Running;
        }
        "qmstop" | "vzstop" | "qmshutdown" | "vzshutdown" => {
            guest.power = Power::Stopped;
            super::config::apply_pending(guest);
        }
        "qmreboot" | "vzreboot" => super::config::apply_pending(guest),
        "qmpause" | "vzsuspend" => guest.power = Power::Paused,
        "qmresume" | "vzresume" => guest.power = Power::Running,
        "qmsuspend" => {
            guest.power = Power::Stopped;
            guest.config.set("lock", "suspended");
            let storage = guest.drives().iter().find_map(|drive| drive.storage().map(str::to_owned));
            let volume = format!("{}:{vmid}/vm-{vmid}-state-suspend.raw", storage.unwrap_or_default());
            guest.config.set("vmstate", volume);
        }
        _ => {}
    }
    Ok(())
}

/// A start, stop or migration of a guest that HA manages only tells HA what is wanted: the task ends before the guest
/// moves.
pub(super) fn ask_ha(state: &mut State, work: &Work) -> Outcome {
    let vmid = work.vmid();
    let Some(guest) = state.guests.get_mut(&vmid) else { return Err(super::missing(state, work)) };
    let sid = format!("{}:{vmid}", if guest.kind == GuestKind::Qemu { "vm" } else { "ct" });
    let doing = match work.kind.as_str() {
        "hastart" => {
            guest.ha = Some("started".into());
            "request_start"
        }
        "hastop" => {
            guest.ha = Some("stopped".into());
            "request_stop"
        }
        _ => "migrate",
    };
    state.ha_doing.insert(sid, doing.to_owned());
    Ok(())
}

/// What HA does by itself, some seconds after it was asked.
pub(super) fn ha_acts(state: &mut State, work: &Work) -> Outcome {
    let vmid = work.vmid();
    let target = work.text("target").to_owned();
    let known = state.nodes.get(&target).filter(|node| node.online).map(|node| node.name.clone());
    let Some(guest) = state.guests.get_mut(&vmid) else { return Ok(()) };
    let sid = format!("{}:{vmid}", if guest.kind == GuestKind::Qemu { "vm" } else { "ct" });
    state.ha_doing.remove(&sid);
    if let Some(node) = known {
        guest.node = node;
        return Ok(());
    }
    guest.power = match guest.ha.as_deref() {
        Some("started" | "enabled") => Power::Running,
        Some("stopped" | "disabled") => Power::Stopped,
        _ => guest.power,
    };
    Ok(())
}
