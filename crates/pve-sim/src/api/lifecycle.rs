//! Power states, snapshots, templates and migrations.

use serde_json::{Map, Value, json};

use super::Call;
use super::act::{Act, done, fail};
use crate::answer::Answer;
use crate::world::state::{Guest, GuestKind, Power, Task, Work};

/// How long HA takes to do what it was asked for, in milliseconds.
const HA_LAG: f64 = 10_000.0;

/// What a verb of `…/status/…` does: the task of a VM and of a container, and whether it refuses a guest that does not
/// run.
struct Verb {
    qemu: &'static str,
    lxc: &'static str,
    needs_running: bool,
}

fn power(act: &mut Act<'_>, kind: GuestKind, verb: &Verb) -> Result<Answer, Answer> {
    let (vmid, node) = (act.number("vmid"), act.node()?);
    // A guest that is not there is found out in the task, unless the verb asks whether it runs.
    let found = act.state.guests.get(&vmid).filter(|guest| guest.kind == kind && guest.node.as_ref() == node);
    if act.flag("skiplock") && !act.is_root() {
        return Err(Answer::bad_parameter("skiplock", "Only root may use this option."));
    }
    if verb.needs_running {
        let word = crate::work::guest_word(kind);
        let runs = act.call().guest(kind)?.is_running();
        let hibernated = found.and_then(Guest::lock).as_deref() == Some("suspended");
        let may = runs || hibernated && verb.qemu == "qmresume";
        if !may {
            return fail(format!("{word} {vmid} not running"));
        }
    }
    let managed = found.is_some_and(|guest| guest.ha.as_deref().is_some_and(|state| state != "ignored"));
    let task = match kind {
        GuestKind::Qemu => verb.qemu,
        GuestKind::Lxc => verb.lxc,
    };
    let id = vmid.to_string();
    match task {
        "qmstart" | "vzstart" if managed => ask_ha(act, "hastart", vmid),
        "qmstop" | "vzstop" | "qmshutdown" | "vzshutdown" if managed => ask_ha(act, "hastop", vmid),
        "qmpause" if act.flag("todisk") => act.fork("qmsuspend", &id, &[]),
        task => act.fork(task, &id, &[]),
    }
}

/// HA is told, and acts some seconds later.
fn ask_ha(act: &mut Act<'_>, kind: &str, vmid: u32) -> Result<Answer, Answer> {
    let target = act.text("target").to_owned();
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

macro_rules! verbs {
    ($($name:ident $kind:ident $qemu:literal $lxc:literal $needs_running:literal;)*) => {$(
        pub fn $name(act: &mut Act<'_>) -> Result<Answer, Answer> {
            power(act, GuestKind::$kind, &Verb { qemu: $qemu, lxc: $lxc, needs_running: $needs_running })
        }
    )*};
}
verbs! {
    start_qemu Qemu "qmstart" "vzstart" false;
    stop_qemu Qemu "qmstop" "vzstop" false;
    shutdown_qemu Qemu "qmshutdown" "vzshutdown" false;
    reboot_qemu Qemu "qmreboot" "vzreboot" true;
    reset_qemu Qemu "qmreset" "vzreset" true;
    suspend_qemu Qemu "qmpause" "vzsuspend" true;
    resume_qemu Qemu "qmresume" "vzresume" true;
    start_lxc Lxc "qmstart" "vzstart" false;
    stop_lxc Lxc "qmstop" "vzstop" true;
    shutdown_lxc Lxc "qmshutdown" "vzshutdown" true;
    reboot_lxc Lxc "qmreboot" "vzreboot" true;
    suspend_lxc Lxc "qmpause" "vzsuspend" true;
    resume_lxc Lxc "qmresume" "vzresume" true;
}

/// `POST …/snapshot`: two names are reserved; a name that is taken fails in the task.
fn snapshot(act: &mut Act<'_>, kind: GuestKind) -> Result<Answer, Answer> {
    let name = act.text("snapname").to_owned();
    if matches!(name.as_str(), "current" | "pending") {
        return fail(format!("unable to use snapshot name '{name}' (reserved name)"));
    }
    act.node()?;
    let id = act.text("vmid").to_owned();
    act.fork(if kind == GuestKind::Qemu { "qmsnapshot" } else { "vzsnapshot" }, &id, &[])
}

pub fn snapshot_qemu(act: &mut Act<'_>) -> Result<Answer, Answer> {
    snapshot(act, GuestKind::Qemu)
}

pub fn snapshot_lxc(act: &mut Act<'_>) -> Result<Answer, Answer> {
    snapshot(act, GuestKind::Lxc)
}

fn on_snapshot(act: &mut Act<'_>, task: &str) -> Result<Answer, Answer> {
    act.node()?;
    let id = act.text("vmid").to_owned();
    act.fork(task, &id, &[])
}

pub fn rollback_qemu(act: &mut Act<'_>) -> Result<Answer, Answer> {
    on_snapshot(act, "qmrollback")
}

pub fn rollback_lxc(act: &mut Act<'_>) -> Result<Answer, Answer> {
    on_snapshot(act, "vzrollback")
}

pub fn delete_snapshot_qemu(act: &mut Act<'_>) -> Result<Answer, Answer> {
    on_snapshot(act, "qmdelsnapshot")
}

pub fn delete_snapshot_lxc(act: &mut Act<'_>) -> Result<Answer, Answer> {
    on_snapshot(act, "vzdelsnapshot")
}

/// `PUT …/snapshot/{snapname}/config`: its description.
fn describe_snapshot(act: &mut Act<'_>, kind: GuestKind) -> Result<Answer, Answer> {
    let (name, description) = (act.text("snapname").to_owned(), act.given("description").map(str::to_owned));
    let guest = act.guest(kind)?;
    let Some(snapshot) = guest.snapshots.iter_mut().find(|snapshot| snapshot.name == name) else {
        return fail(format!("snapshot '{name}' does not exist"));
    };
    if let Some(description) = description {
        snapshot.description = description;
    }
    done()
}

pub fn describe_snapshot_qemu(act: &mut Act<'_>) -> Result<Answer, Answer> {
    describe_snapshot(act, GuestKind::Qemu)
}

pub fn describe_snapshot_lxc(act: &mut Act<'_>) -> Result<Answer, Answer> {
    describe_snapshot(act, GuestKind::Lxc)
}

/// `GET …/snapshot/{snapname}/config`.
fn snapshot_config(call: &Call<'_>, kind: GuestKind) -> Result<Answer, Answer> {
    let guest = call.guest(kind)?;
    let name = call.text("snapname");
    let Some(at) = guest.snapshots.iter().position(|snapshot| snapshot.name == name) else {
        return fail(format!("snapshot '{name}' does not exist"));
    };
    let Some(snapshot) = guest.snapshots.get(at) else { return fail("snapshot vanished") };
    let config = snapshot.config.as_ref().unwrap_or(&guest.config);
    let mut data: Map<String, Value> = config.to_json();
    data.remove("parent");
    data.remove("description");
    if !snapshot.description.is_empty() {
        data.insert("description".to_owned(), json!(snapshot.description));
    }
    data.insert("snaptime".to_owned(), json!(snapshot.time));
    if let Some(parent) = guest.parents().get(at).cloned().flatten() {
        data.insert("parent".to_owned(), json!(parent));
    }
    Ok(Answer::ok(Value::Object(data)))
}

pub fn snapshot_config_qemu(call: &Call<'_>) -> Result<Answer, Answer> {
    snapshot_config(call, GuestKind::Qemu)
}

pub fn snapshot_config_lxc(call: &Call<'_>) -> Result<Answer, Answer> {
    snapshot_config(call, GuestKind::Lxc)
}

/// What keeps a guest from becoming a template.
fn check_template(act: &Act<'_>, kind: GuestKind) -> Result<(), Answer> {
    let guest = act.call().guest(kind)?;
    let word = crate::work::guest_word(kind);
    if !guest.snapshots.is_empty() {
        return fail(format!("unable to create template, because {word} contains snapshots"));
    }
    if guest.is_template() {
        return fail("you can't convert a template to a template");
    }
    if guest.is_running() {
        return fail(match kind {
            GuestKind::Qemu => "you can't convert a VM to template if VM is running".to_owned(),
            GuestKind::Lxc => "you can't convert a CT to template if the CT is running".to_owned(),
        });
    }
    if let Some(lock) = guest.lock() {
        return fail(format!("{word} is locked ({lock})"));
    }
    Ok(())
}

pub fn template_qemu(act: &mut Act<'_>) -> Result<Answer, Answer> {
    check_template(act, GuestKind::Qemu)?;
    let id = act.text("vmid").to_owned();
    act.fork("qmtemplate", &id, &[])
}

/// A container becomes a template before it is answered: no task.
pub fn template_lxc(act: &mut Act<'_>) -> Result<Answer, Answer> {
    check_template(act, GuestKind::Lxc)?;
    let work = Work { kind: "vztemplate".to_owned(), arguments: act.parameters.clone() };
    crate::work::template(act.state, &work).map_err(|problem| Answer::error(500, problem))?;
    done()
}

/// `POST …/migrate`: the target must be another known node, and a running guest needs to be told how.
fn migrate(act: &mut Act<'_>, kind: GuestKind) -> Result<Answer, Answer> {
    let guest = act.call().guest(kind)?.clone();
    let target = act.text("target").to_owned();
    if target == guest.node.as_ref() {
        return Err(Answer::bad_parameter("target", "target is local node."));
    }
    if !act.state.nodes.contains_key(&target) {
        return fail(format!("no such cluster node '{target}'"));
    }
    if let Some(lock) = guest.lock() {
        return fail(format!("{} is locked ({lock})", crate::work::guest_word(kind)));
    }
    if guest.is_running() && !act.flag("online") && !(kind == GuestKind::Lxc && act.flag("restart")) {
        return fail(match kind {
            GuestKind::Qemu => "can't migrate running VM without --online",
            GuestKind::Lxc => "can't migrate running container without --online or --restart",
        });
    }
    if guest.ha.as_deref().is_some_and(|state| state != "ignored") {
        return ask_ha(act, "hamigrate", guest.vmid);
    }
    let task = if kind == GuestKind::Qemu { "qmigrate" } else { "vzmigrate" };
    act.fork(task, &guest.vmid.to_string(), &[])
}

pub fn migrate_qemu(act: &mut Act<'_>) -> Result<Answer, Answer> {
    migrate(act, GuestKind::Qemu)
}

pub fn migrate_lxc(act: &mut Act<'_>) -> Result<Answer, Answer> {
    migrate(act, GuestKind::Lxc)
}

/// `POST …/vncproxy`, `…/termproxy`: a ticket for the console.
fn console(act: &mut Act<'_>, kind: GuestKind, task: &str) -> Result<Answer, Answer> {
    let vmid = act.call().guest(kind)?.vmid;
    let cert = act.state.ca_certificate.clone().unwrap_or_else(|| "-----BEGIN CERTIFICATE-----\n".to_owned());
    let answer = act.fork(task, &vmid.to_string(), &[])?;
    let mut data = json!({
        "cert": cert, "port": "5900", "ticket": "PVEVNC:00000000::c2ltdWxhdGVk", "upid": answer.body.to_json()["data"],
        "user": act.principal.id(),
    });
    if act.flag("generate-password") || act.flag("websocket") {
        data["password"] = json!("simulated");
    }
    if task.ends_with("termproxy") || task == "vncshell" {
        data.as_object_mut().map(|data| data.remove("cert"));
    }
    Ok(Answer::ok(data))
}

pub fn vnc_qemu(act: &mut Act<'_>) -> Result<Answer, Answer> {
    console(act, GuestKind::Qemu, "vncproxy")
}

pub fn vnc_lxc(act: &mut Act<'_>) -> Result<Answer, Answer> {
    console(act, GuestKind::Lxc, "vncproxy")
}

pub fn term_qemu(act: &mut Act<'_>) -> Result<Answer, Answer> {
    console(act, GuestKind::Qemu, "vncproxy-termproxy")
}

/// `POST …/monitor`: QEMU's own words.
pub fn monitor(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let guest = act.call().guest(GuestKind::Qemu)?;
    let text = match (act.text("command"), guest.power) {
        (_, Power::Stopped) => format!("ERROR: VM {} not running", guest.vmid),
        ("info status", Power::Paused) => "VM status: paused\r\n".to_owned(),
        ("info status", Power::Running) => "VM status: running\r\n".to_owned(),
        (command, _) => format!("unknown command: '{command}'\r\n"),
    };
    Ok(Answer::ok(json!(text)))
}

/// `PUT …/sendkey`.
pub fn send_key(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let guest = act.call().guest(GuestKind::Qemu)?;
    if !guest.is_running() {
        return fail(format!("VM {} not running", guest.vmid));
    }
    done()
}

/// `POST …/agent/…`: no guest's agent ever runs here.
pub fn agent(act: &mut Act<'_>) -> Result<Answer, Answer> {
    super::guests::agent(&act.call())
}
