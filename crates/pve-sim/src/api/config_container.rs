//! `PUT` of a container's configuration: all or nothing, unlike a VM's.

use super::act::{Act, fail};
use super::config::check_option_exists;
use super::config_privileges::check_container;
use super::{config, disks, volume_access};
use crate::answer::Answer;
use crate::schema::split_list;
use crate::world::config::{is_lxc_disk_key, is_numbered, parse_drive};
use crate::world::state::{Guest, GuestKind};

/// `PUT /nodes/{node}/lxc/{vmid}/config`. PVE's order: the file, its lock, its digest, rights, and then the options.
pub fn put(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let settings = config::settings(act);
    if settings.is_empty() && act.given("delete").is_none() && act.given("revert").is_none() {
        return fail("no options specified");
    }
    let guest = act.call().guest(GuestKind::Lxc)?.clone();
    if let Some(lock) = guest.lock() {
        return fail(format!("CT is locked ({lock})"));
    }
    if act.given("digest").is_some_and(|digest| digest != guest.digest()) {
        return fail(disks::MODIFIED);
    }
    let deletes: Vec<String> = split_list(act.text("delete")).map(str::to_owned).collect();
    let reverts: Vec<String> = split_list(act.text("revert")).map(str::to_owned).collect();
    let unprivileged = guest.config.int("unprivileged") == Some(1);
    let gone = deletes.iter().chain(&reverts).map(|key| (key.as_str(), None));
    check_container(act, guest.vmid, None, Some(&guest), unprivileged, gone)?;
    for key in &reverts {
        check_option_exists("revert", GuestKind::Lxc, key)?;
        if act.given(key).is_some() {
            let text = format!("you can't use '-{key}' and '-revert {key}' at the same time");
            return Err(Answer::bad_parameter("revert", &text));
        }
    }
    for key in &deletes {
        check_option_exists("delete", GuestKind::Lxc, key)?;
        if act.given(key).is_some() {
            let text = format!("you can't use '-{key}' and -delete {key}' at the same time");
            return Err(Answer::bad_parameter("delete", &text));
        }
        if reverts.contains(key) {
            let text = format!("you can't use '-delete {key}' and '-revert {key}' at the same time");
            return Err(Answer::bad_parameter("delete", &text));
        }
    }
    let written = settings.iter().map(|(key, value)| (key.as_str(), Some(value.as_str())));
    check_container(act, guest.vmid, None, Some(&guest), unprivileged, written)?;
    check_deletes(&guest, &deletes)?;
    check_settings(act, &guest, &settings)?;
    config::apply(act, act.parameters.clone())
}

/// What a container cannot be without stays, and so do the volumes of a protected one.
fn check_deletes(guest: &Guest, deletes: &[String]) -> Result<(), Answer> {
    for key in deletes.iter().filter(|key| guest.config_to_be().get(key).is_some()) {
        match key.as_str() {
            "memory" | "rootfs" | "ostype" => {
                return fail(format!("unable to delete required option '{key}'"));
            }
            "unprivileged" => return fail(format!("unable to delete read-only option: '{key}'")),
            key if is_numbered(key, "unused") || is_numbered(key, "mp") => {
                check_protection(guest, "remove", key)?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn check_protection(guest: &Guest, verb: &str, key: &str) -> Result<(), Answer> {
    if guest.config.int("protection") == Some(1) {
        let vmid = guest.vmid;
        return fail(format!("can't {verb} CT {vmid} drive '{key}' - protection mode enabled"));
    }
    Ok(())
}

fn check_settings(act: &Act<'_>, guest: &Guest, settings: &[(String, String)]) -> Result<(), Answer> {
    for (key, value) in settings {
        if key == "unprivileged" {
            return fail(format!("unable to modify read-only option: '{key}'"));
        }
        if !is_lxc_disk_key(key) {
            continue;
        }
        check_protection(guest, "update", key)?;
        let mount = parse_drive(key, value);
        let Some(storage) = mount.storage() else { continue };
        if !volume_access::has_content(volume_access::defined(act.state, storage)?, "rootdir") {
            return fail(format!("storage '{storage}' does not allow content type 'rootdir' (Container)"));
        }
    }
    Ok(())
}
