//! `PUT` and `POST` of a VM's configuration.

use std::collections::BTreeMap;

use super::act::{Act, done, fail};
use super::config_privileges::{check_device, check_vm, root_only};
use super::{disks, volume_access};
use crate::answer::Answer;
use crate::schema::split_list;
use crate::work::disks::is_drive;
use crate::world::config::{is_numbered, parse_drive};
use crate::world::state::{Guest, GuestKind, Work};

/// The parameters of an update that are no options.
const CONTROL: [&str; 8] = [
    "delete",
    "revert",
    "force",
    "digest",
    "skiplock",
    "background_delay",
    "skip_cloud_init",
    "import-working-storage",
];

/// Options that updates know although creation has no such parameter.
const FURTHER: [&str; 8] =
    ["cdrom", "meta", "vmstate", "parent", "lock", "template", "runningmachine", "runningcpu"];

/// Whether a guest of that kind can have such an option.
fn option_exists(kind: GuestKind, key: &str) -> bool {
    const NO_OPTIONS: [&str; 8] = ["vmid", "node", "start", "pool", "storage", "force", "archive", "unique"];
    let known = crate::work::disks::config_method(kind)
        .is_some_and(|method| crate::schema::kind(method, key).is_some());
    known && !NO_OPTIONS.contains(&key) || FURTHER.contains(&key) || is_numbered(key, "unused")
}

/// 400 for an option that there is not.
pub fn check_option_exists(parameter: &str, kind: GuestKind, key: &str) -> Result<(), Answer> {
    if option_exists(kind, key) {
        return Ok(());
    }
    Err(Answer::bad_parameter(parameter, &format!("unknown option '{key}'")))
}

/// The options that a request sets.
pub fn settings(act: &Act<'_>) -> Vec<(String, String)> {
    act.settings(&CONTROL).into_iter().collect()
}

/// Every storage that a VM's drives name must be known and for images, its space the caller's to take, and every volume
/// the caller's to use. `default` is where sizes without a storage go.
pub fn check_storages(
    act: &Act<'_>,
    settings: &[(String, String)],
    default: Option<&str>,
) -> Result<(), Answer> {
    for (key, value) in settings.iter().filter(|(key, _)| is_drive(GuestKind::Qemu, key)) {
        let drive = parse_drive(key, value);
        let volume = drive.volume.as_str();
        let (storage, name) = match volume.split_once(':') {
            Some((storage, name)) => (Some(storage), name),
            None => (None, volume),
        };
        let is_size = !name.is_empty() && name.parse::<f64>().is_ok();
        if volume == "none" || name == "cloudinit" {
            continue;
        }
        if drive.is_cdrom() && volume == "cdrom" {
            act.require("/", &["Sys.Console"])?;
        } else if is_size && !drive.is_cdrom() {
            let Some(storage) = storage.or(default) else {
                return fail("no storage ID specified (and no default storage)");
            };
            act.require(&format!("/storage/{storage}"), &["Datastore.AllocateSpace"])?;
            if !volume_access::has_content(volume_access::defined(act.state, storage)?, "images") {
                return disks::no_images(storage);
            }
        } else {
            volume_access::check(&act.call(), Some(act.number("vmid")), volume, None)?;
            if storage.is_some() && !volume.starts_with('/') {
                let (_, parsed) = volume_access::parse(act.state, volume)?;
                if !matches!(parsed.content, "images" | "iso") {
                    return Err(Answer::bad_parameter(key, "content type needs to be 'images' or 'iso'"));
                }
            }
        }
    }
    if let Some((_, storage)) = settings.iter().find(|(key, _)| key == "vmstatestorage") {
        act.require(&format!("/storage/{storage}"), &["Datastore.AllocateSpace"])?;
    }
    Ok(())
}

/// `PUT /nodes/{node}/qemu/{vmid}/config`: done before it is answered.
pub fn put(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let guest = checked_update(act)?;
    check_changes(act, &guest)?;
    apply(act, act.parameters.clone())
}

/// `POST …/config`: checked at once, done in a task. Who waits for it and sees it end gets no UPID.
pub fn post(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let guest = checked_update(act)?;
    let id = act.text("vmid").to_owned();
    let problem = check_changes(act, &guest).err().map(|refusal| refusal.reason).unwrap_or_default();
    let answer = act.fork("qmconfig", &id, &[("problem", &problem)])?;
    let ended = act.state.tasks.last().and_then(|task| task.exit.clone());
    match ended.filter(|_| act.given("background_delay").is_some()) {
        Some(exit) if exit == "OK" || exit.starts_with("WARNINGS") => done(),
        Some(exit) => fail(format!("failed to update VM {id}: {exit}")),
        None => Ok(answer),
    }
}

/// Writes a configuration at once.
pub fn apply(act: &mut Act<'_>, arguments: BTreeMap<String, String>) -> Result<Answer, Answer> {
    let work = Work { kind: String::new(), arguments };
    crate::work::apply(act.state, &work).map_err(|problem| Answer::error(500, problem))?;
    done()
}

/// What both ways of updating check before they touch anything, in PVE's order: all that the request alone can have wrong,
/// then the guest's file, its digest and its lock.
fn checked_update(act: &mut Act<'_>) -> Result<Guest, Answer> {
    root_only(act, &["skiplock"])?;
    let settings = settings(act);
    if settings.is_empty() && act.text("delete").is_empty() && act.text("revert").is_empty() {
        return fail("no options specified");
    }
    let reverts: Vec<String> = split_list(act.text("revert")).map(str::to_owned).collect();
    for key in &reverts {
        check_option_exists("revert", GuestKind::Qemu, key)?;
        if act.given(key).is_some() {
            let text = format!("you can't use '-{key}' and -revert {key}' at the same time");
            return Err(Answer::bad_parameter("delete", &text));
        }
    }
    let deletes: Vec<String> = split_list(act.text("delete"))
        .map(|key| if key == "cdrom" { "ide2" } else { key }.to_owned())
        .collect();
    for key in &deletes {
        if act.given(key).is_some() {
            let text = format!("you can't use '-{key}' and -delete {key}' at the same time");
            return Err(Answer::bad_parameter("delete", &text));
        }
        if reverts.contains(key) {
            let text = format!("you can't use '-delete {key}' and -revert {key}' at the same time");
            return Err(Answer::bad_parameter("revert", &text));
        }
        check_option_exists("delete", GuestKind::Qemu, key)?;
    }
    let vmid = act.number("vmid");
    let keys = deletes.iter().chain(&reverts).chain(settings.iter().map(|(key, _)| key));
    check_vm(act, vmid, None, keys.map(String::as_str))?;
    check_storages(act, &settings, None)?;
    let cards = settings.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    volume_access::check_bridges(&act.call(), cards)?;
    let guest = act.call().guest(GuestKind::Qemu)?.clone();
    if act.given("digest").is_some_and(|digest| digest != guest.digest()) {
        return fail("checksum mismatch (file change by other user?)");
    }
    // What hibernation left behind may be thrown away, which unlocks.
    let ends_hibernation = deletes.iter().any(|key| key == "vmstate");
    if let Some(lock) = guest.lock().filter(|_| !act.flag("skiplock"))
        && !(ends_hibernation && lock == "suspended")
    {
        return fail(format!("VM is locked ({lock})"));
    }
    check_balloon(act, &guest)?;
    Ok(guest)
}

/// Memory that a VM gives back must be less than what it has.
fn check_balloon(act: &Act<'_>, guest: &Guest) -> Result<(), Answer> {
    let given = |name: &str| act.given(name).and_then(|text| text.parse::<i64>().ok());
    if given("memory").is_none() && given("balloon").is_none() {
        return Ok(());
    }
    let to_be = guest.config_to_be();
    let memory = given("memory").or_else(|| to_be.int("memory")).unwrap_or(512);
    let balloon = given("balloon").or_else(|| to_be.int("balloon")).unwrap_or_default();
    if balloon > memory {
        return fail("balloon value too large (must be smaller than assigned memory)");
    }
    Ok(())
}

/// What stops a change half-way: protected disks, devices that the caller may not touch, and boot devices that there are
/// not. A POST finds it in its task.
fn check_changes(act: &Act<'_>, guest: &Guest) -> Result<(), Answer> {
    let deletes: Vec<&str> = split_list(act.text("delete")).collect();
    for key in deletes.iter().filter(|key| guest.config.get(key).is_some()) {
        if guest.config.int("protection") == Some(1) {
            if is_numbered(key, "unused") {
                let volume = guest.config.text(key).unwrap_or_default();
                return fail(format!("can't remove unused disk '{volume}' - protection mode enabled"));
            }
            if is_drive(GuestKind::Qemu, key) {
                return fail(format!("can't remove drive '{key}' - protection mode enabled"));
            }
        }
        check_device(act, Some(guest), guest.vmid, key)?;
    }
    for (key, _) in settings(act) {
        check_device(act, Some(guest), guest.vmid, &key)?;
    }
    let order = act.text("boot").split(',').find_map(|part| part.strip_prefix("order=")).unwrap_or_default();
    for device in split_list(order) {
        let to_be = guest.config_to_be();
        let there = to_be.get(device).is_some() || act.given(device).is_some();
        if !there || deletes.contains(&device) {
            return fail(format!("invalid bootorder: device '{device}' does not exist'"));
        }
    }
    Ok(())
}
