//! Power states.

use super::act::{Act, fail};
use super::config_privileges::{require_on_guest, root_only};
use crate::answer::Answer;
use crate::world::config::is_numbered;
use crate::world::state::{Guest, GuestKind, Power, Task, Work};

/// How long HA takes to do what it was asked for, in milliseconds.
const HA_LAG: f64 = 10_000.0;

/// The guest of the path, if it is there: most verbs find out in their task that it is not.
fn found<'a>(act: &'a Act<'_>, kind: GuestKind) -> Option<&'a Guest> {
    let node = act.node().ok()?;
    let guest = act.state.guests.get(&act.number("vmid"))?;
    (guest.kind == kind && *guest.node == node).then_some(guest)
}

/// Whether HA moves the guest; one that it ignores is everybody's.
fn is_managed(act: &Act<'_>, kind: GuestKind) -> bool {
    found(act, kind).is_some_and(|guest| guest.ha.as_deref().is_some_and(|state| state != "ignored"))
}

fn fork(act: &mut Act<'_>, task: &str) -> Result<Answer, Answer> {
    let id = act.text("vmid").to_owned();
    act.node()?;
    act.fork(task, &id, &[])
}

/// Parameters that PVE's own migration uses are for the superuser.
const INTERNAL: [&str; 7] = [
    "stateuri",
    "skiplock",
    "migratedfrom",
    "migration_type",
    "migration_network",
    "targetstorage",
    "force-cpu",
];

pub fn start_vm(act: &mut Act<'_>) -> Result<Answer, Answer> {
    root_only(act, &INTERNAL)?;
    if act.given("targetstorage").is_some() && act.given("migratedfrom").is_none() {
        let text = "targetstorage can only by used with migratedfrom.";
        return Err(Answer::bad_parameter("targetstorage", text));
    }
    if is_managed(act, GuestKind::Qemu) && act.given("stateuri").is_none() {
        return ask_ha(act, "hastart");
    }
    fork(act, "qmstart")
}

pub fn stop_vm(act: &mut Act<'_>) -> Result<Answer, Answer> {
    root_only(act, &["skiplock", "keepActive", "migratedfrom"])?;
    if is_managed(act, GuestKind::Qemu) && act.given("migratedfrom").is_none() {
        check_overrule(act)?;
        return ask_ha(act, "hastop");
    }
    fork(act, "qmstop")
}

/// HA has no shut-downs to break off.
fn check_overrule(act: &Act<'_>) -> Result<(), Answer> {
    if act.flag("overrule-shutdown") {
        return Err(Answer::bad_parameter("overrule-shutdown", "Not applicable for HA resources."));
    }
    Ok(())
}

fn is_paused(act: &Act<'_>) -> bool {
    found(act, GuestKind::Qemu).is_some_and(|guest| guest.power == Power::Paused)
}

/// A paused VM would act on the request only later, when somebody resumes it.
pub fn shut_down_vm(act: &mut Act<'_>) -> Result<Answer, Answer> {
    root_only(act, &["skiplock", "keepActive"])?;
    if is_paused(act) && !act.flag("forceStop") {
        return fail("VM is paused - cannot shutdown");
    }
    if is_managed(act, GuestKind::Qemu) {
        return ask_ha(act, "hastop");
    }
    fork(act, "qmshutdown")
}

fn running_vm(act: &Act<'_>) -> Result<(), Answer> {
    if act.call().vm_on_node()? { Ok(()) } else { fail(format!("VM {} not running", act.text("vmid"))) }
}

pub fn reboot_vm(act: &mut Act<'_>) -> Result<Answer, Answer> {
    if is_paused(act) {
        return fail("VM is paused - cannot shutdown");
    }
    running_vm(act)?;
    fork(act, "qmreboot")
}

pub fn reset_vm(act: &mut Act<'_>) -> Result<Answer, Answer> {
    root_only(act, &["skiplock"])?;
    running_vm(act)?;
    fork(act, "qmreset")
}

/// To disk, it is a hibernation: HA does not know of those, and a device of the host cannot be saved.
pub fn suspend_vm(act: &mut Act<'_>) -> Result<Answer, Answer> {
    root_only(act, &["skiplock"])?;
    running_vm(act)?;
    if !act.flag("todisk") {
        return fork(act, "qmpause");
    }
    if is_managed(act, GuestKind::Qemu) {
        return fail("Cannot suspend HA managed VM to disk");
    }
    require_on_guest(act, act.number("vmid"), None, &["VM.Config.Disk"])?;
    let guest = act.call().guest(GuestKind::Qemu)?;
    if guest.config.iter().any(|(key, _)| is_numbered(key, "hostpci")) {
        return fail(
            "cannot suspend VM to disk due to passed-through PCI device(s), which lack the possibility to save/restore \
             their internal state",
        );
    }
    let own = guest.config.text("vmstatestorage").map(|storage| storage.into_owned());
    let of_disk = guest.drives().iter().find_map(|drive| drive.storage().map(str::to_owned));
    let storage = act.given("statestorage").map(str::to_owned).or(own).or(of_disk);
    let storage = storage.unwrap_or_else(|| "local".to_owned());
    act.require(&format!("/storage/{storage}"), &["Datastore.AllocateSpace"])?;
    fork(act, "qmsuspend")
}

/// A hibernated VM is resumed by starting it.
pub fn resume_vm(act: &mut Act<'_>) -> Result<Answer, Answer> {
    root_only(act, &["skiplock", "nocheck"])?;
    let hibernated = found(act, GuestKind::Qemu).and_then(Guest::lock).as_deref() == Some("suspended");
    if !hibernated {
        running_vm(act)?;
    }
    fork(act, "qmresume")
}

/// Unlike a VM's, a container's start finds out at once that it runs.
pub fn start_container(act: &mut Act<'_>) -> Result<Answer, Answer> {
    root_only(act, &["skiplock"])?;
    stopped_container(act)?;
    if is_managed(act, GuestKind::Lxc) {
        return ask_ha(act, "hastart");
    }
    fork(act, "vzstart")
}

fn stopped_container(act: &Act<'_>) -> Result<(), Answer> {
    if act.call().container_runs() {
        return fail(format!("CT {} already running", act.text("vmid")));
    }
    Ok(())
}

fn running_container(act: &Act<'_>, word: &str) -> Result<(), Answer> {
    if act.call().container_runs() {
        return Ok(());
    }
    fail(format!("{word} {} not running", act.text("vmid")))
}

pub fn stop_container(act: &mut Act<'_>) -> Result<Answer, Answer> {
    root_only(act, &["skiplock"])?;
    running_container(act, "CT")?;
    if is_managed(act, GuestKind::Lxc) {
        check_overrule(act)?;
        return ask_ha(act, "hastop");
    }
    fork(act, "vzstop")
}

pub fn shut_down_container(act: &mut Act<'_>) -> Result<Answer, Answer> {
    running_container(act, "CT")?;
    if is_managed(act, GuestKind::Lxc) {
        return ask_ha(act, "hastop");
    }
    fork(act, "vzshutdown")
}

pub fn suspend_container(act: &mut Act<'_>) -> Result<Answer, Answer> {
    running_container(act, "CT")?;
    fork(act, "vzsuspend")
}

pub fn resume_container(act: &mut Act<'_>) -> Result<Answer, Answer> {
    stopped_container(act)?;
    fork(act, "vzresume")
}

/// PVE calls the container a VM here.
pub fn reboot_container(act: &mut Act<'_>) -> Result<Answer, Answer> {
    running_container(act, "VM")?;
    fork(act, "vzreboot")
}

/// HA is told, and acts some seconds later.
pub fn ask_ha(act: &mut Act<'_>, kind: &str) -> Result<Answer, Answer> {
    let (vmid, target) = (act.number("vmid"), act.text("target").to_owned());
    let answer = act.fork(kind, &vmid.to_string(), &[])?;
    later(act, vmid, &target);
    Ok(answer)
}

/// HA's own action is a task that nobody sees.
pub fn later(act: &mut Act<'_>, vmid: u32, target: &str) {
    let arguments = [("vmid", vmid.to_string()), ("target", target.to_owned())];
    let arguments = arguments.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let due = act.milliseconds + (HA_LAG * act.scale) as u64 + act.state.ha_lag;
    let task = Task {
        upid: String::new(),
        node: String::new(),
        pid: 0,
        pstart: 0,
        start: act.now,
        kind: "ha".to_owned(),
        id: vmid.to_string(),
        user: String::new(),
        token: None,
        end: None,
        exit: None,
        log: Vec::new(),
        due,
        work: Some(Work { kind: "ha".to_owned(), arguments }),
    };
    act.state.tasks.push(task);
}
