//! Tasks: how they start, how long they take, and what they do when they end.
//!
//! A task's work has two halves. The first runs at the start: it looks at what must hold, and takes the lock that others
//! see while it runs. The second runs at the end and changes the state. Where tasks take no time both run at once.

mod clone;
mod config;
mod destroy;
pub mod disks;
mod guests;
mod migrate;
mod power;
pub(crate) mod snapshots;
mod storage;

pub(crate) use guests::{NO_CONFIG, template};
pub(crate) use migrate::local_drives;

use crate::world::state::{State, Task, Work};

/// How many tasks of one kind run at once on a node; further ones wait. PVE's own limit for its bulk actions.
const WORKERS: usize = 4;

/// A task's log while its work is done.
pub(crate) type Log = Vec<String>;

/// The result of a task's work: its exit status, or what went wrong.
pub(crate) type Outcome = Result<(), String>;

/// How long a task of a kind takes, in milliseconds.
fn duration(work: &Work) -> u64 {
    match work.kind.as_str() {
        "qmconfig" | "resize" | "hastart" | "hastop" | "hamigrate" => 500,
        "qmstart" | "qmsnapshot" | "vzsnapshot" | "qmdelsnapshot" | "vzdelsnapshot" => 2_000,
        "vzstart" | "qmstop" | "vzstop" | "qmdestroy" | "vzdestroy" | "qmtemplate" => 1_000,
        "qmclone" | "vzclone" | "qmmove" | "move_volume" | "qmrestore" | "vzrestore" => 10_000,
        "qmigrate" | "vzmigrate" => 8_000,
        "vzdump" => 15_000,
        "qmshutdown" | "vzshutdown" | "qmreboot" | "vzreboot" => 3_000,
        _ => 1_500,
    }
}

/// Starts a task and returns its UPID.
pub(crate) fn start(state: &mut State, mut task: Task, now: u64, scale: f64) -> String {
    let upid = task.upid.clone();
    let Some(work) = task.work.clone() else {
        state.tasks.push(task);
        return upid;
    };
    let takes = (duration(&work) as f64 * scale) as u64;
    if let Err(problem) = begin(state, &task.node, &work) {
        end(&mut task, Err(problem), now);
    } else if takes == 0 {
        finish(state, &mut task, &work, now);
    } else {
        let ahead =
            |other: &&Task| other.exit.is_none() && other.kind == task.kind && other.node == task.node;
        let mut running: Vec<u64> = state.tasks.iter().filter(ahead).map(|task| task.due).collect();
        running.sort_unstable_by(|one, other| other.cmp(one));
        // With every worker busy a task begins when the first of them is free.
        let free = running.get(WORKERS - 1).copied().unwrap_or(now).max(now);
        task.due = free + takes;
    }
    state.tasks.push(task);
    upid
}

/// Ends the tasks, and what HA was asked for, whose time has come.
pub(crate) fn settle(state: &mut State, now: u64) {
    while let Some(at) = next(state, now) {
        let Some(mut task) = state.tasks.get_mut(at).map(|task| task.clone()) else { return };
        if let Some(work) = task.work.take() {
            let due = task.due;
            finish(state, &mut task, &work, due);
        } else {
            end(&mut task, Ok(()), now);
        }
        if let Some(place) = state.tasks.get_mut(at) {
            *place = task;
        }
    }
}

fn next(state: &State, now: u64) -> Option<usize> {
    let due = state.tasks.iter().enumerate().filter(|(_, task)| task.exit.is_none() && task.due <= now);
    due.min_by_key(|(_, task)| task.due).map(|(at, _)| at)
}

fn finish(state: &mut State, task: &mut Task, work: &Work, now: u64) {
    let node = task.node.clone();
    let mut outcome = complete(state, &node, work, &mut task.log);
    // What was asked for beforehand: a warning, or a failure after the effect.
    if outcome.is_ok()
        && work.kind != "ha"
        && let Some(exit) = state.next_exit.take()
    {
        outcome = Err(exit);
    }
    end(task, outcome, now);
}

fn end(task: &mut Task, outcome: Outcome, now: u64) {
    let exit = match outcome {
        Ok(()) => {
            task.log.push("TASK OK".to_owned());
            "OK".to_owned()
        }
        Err(warnings) if warnings.starts_with("WARNINGS") => {
            task.log.push(format!("TASK {warnings}"));
            warnings
        }
        Err(problem) => {
            task.log.push(format!("TASK ERROR: {problem}"));
            problem
        }
    };
    task.exit = Some(exit);
    task.end = Some((now / 1000).max(task.start));
    task.work = None;
}

/// Breaks a running task off, as a signal does: its second half never runs, and the lock that it took stays.
pub(crate) fn interrupt(task: &mut Task, now: u64) {
    task.log.push("received interrupt".to_owned());
    task.exit = Some("unexpected status".to_owned());
    task.end = Some(now);
    task.work = None;
}

impl Work {
    pub(crate) fn text(&self, name: &str) -> &str {
        self.arguments.get(name).map_or("", String::as_str)
    }

    pub(crate) fn given(&self, name: &str) -> Option<&str> {
        self.arguments.get(name).map(String::as_str)
    }

    pub(crate) fn flag(&self, name: &str) -> bool {
        self.text(name) == "1"
    }

    pub(crate) fn vmid(&self) -> u32 {
        self.text("vmid").parse().unwrap_or_default()
    }
}

/// The lock that others see while a kind of task runs.
fn lock_of(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "qmigrate" | "vzmigrate" => "migrate",
        "qmsnapshot" | "vzsnapshot" => "snapshot",
        "qmdelsnapshot" | "vzdelsnapshot" => "snapshot-delete",
        "qmrollback" | "vzrollback" => "rollback",
        "vzdump" => "backup",
        "qmmove" | "move_volume" | "vzclone" => "disk",
        "qmsuspend" => "suspending",
        _ => return None,
    })
}

fn begin(state: &mut State, node: &str, work: &Work) -> Outcome {
    match work.kind.as_str() {
        "qmcreate" | "vzcreate" | "qmrestore" | "vzrestore" => guests::begin_create(state, node, work)?,
        "qmclone" | "vzclone" => clone::begin_clone(state, work)?,
        "qmstart" | "vzstart" => power::begin_start(state, node, work)?,
        "qmsnapshot" | "vzsnapshot" => snapshots::begin_snapshot(state, work)?,
        "qmrollback" | "vzrollback" | "qmdelsnapshot" | "vzdelsnapshot" => {
            snapshots::begin_snapshot_change(state, work)?;
        }
        "qmdestroy" | "vzdestroy" => destroy::begin_destroy(state, work)?,
        "resize" => disks::begin_resize(state, work)?,
        "qmigrate" | "vzmigrate" => migrate::begin(state, work)?,
        "qmstop" | "vzstop" | "qmshutdown" | "vzshutdown" | "qmreboot" | "vzreboot" | "qmpause"
        | "qmresume" | "qmreset" | "qmsuspend" | "qmtemplate" | "qmmove" | "move_volume"
            if !work.flag("skiplock") =>
        {
            check_lock(state, work)?;
        }
        _ => {}
    }
    if let Some(lock) = lock_of(&work.kind)
        && let Some(guest) = state.guests.get_mut(&work.vmid())
    {
        guest.config.set("lock", lock);
    }
    Ok(())
}

fn complete(state: &mut State, node: &str, work: &Work, log: &mut Log) -> Outcome {
    if lock_of(&work.kind).is_some()
        && let Some(guest) = state.guests.get_mut(&work.vmid())
    {
        guest.config.remove("lock");
    }
    match work.kind.as_str() {
        "qmcreate" | "vzcreate" | "qmrestore" | "vzrestore" => guests::create(state, node, work, log),
        "qmclone" | "vzclone" => clone::clone(state, work, log),
        "qmdestroy" | "vzdestroy" => destroy::destroy(state, work, log),
        "qmtemplate" => guests::template(state, work),
        "qmsnapshot" | "vzsnapshot" => snapshots::snapshot(state, work, log),
        "qmrollback" | "vzrollback" => snapshots::rollback(state, work),
        "qmdelsnapshot" | "vzdelsnapshot" => snapshots::delete_snapshot(state, work),
        "qmconfig" => config::configure(state, work, log),
        "resize" => disks::resize(state, work, log),
        "qmmove" | "move_volume" => disks::move_disk(state, work, log),
        "qmigrate" | "vzmigrate" => migrate::finish(state, work, log),
        "hastart" | "hastop" | "hamigrate" => power::ask_ha(state, work),
        "ha" => power::ha_acts(state, work),
        "qmstart" | "vzstart" | "qmstop" | "vzstop" | "qmshutdown" | "vzshutdown" | "qmreboot"
        | "vzreboot" | "qmpause" | "qmresume" | "qmreset" | "qmsuspend" | "vzsuspend" | "vzresume" => {
            power::change(state, node, work)
        }
        "imgdel" => storage::delete_volume(state, work, log),
        "imgcopy" => storage::upload(state, work, log),
        "vzdump" => storage::backup(state, node, work, log),
        "srvreload" => storage::reload_network(state, node),
        _ => Ok(()),
    }
}

/// A lock of another operation stops this one.
pub(crate) fn check_lock(state: &State, work: &Work) -> Outcome {
    let Some(guest) = state.guests.get(&work.vmid()) else {
        return Err(missing(state, work));
    };
    match guest.lock() {
        Some(lock) => Err(format!("{} is locked ({lock})", guest_word(guest.kind))),
        None => Ok(()),
    }
}

/// `VM` or `CT`.
pub(crate) fn guest_word(kind: crate::world::state::GuestKind) -> &'static str {
    if kind == crate::world::state::GuestKind::Qemu { "VM" } else { "CT" }
}

/// The text for a guest that is not there.
fn missing(state: &State, work: &Work) -> String {
    let node = match work.text("node") {
        "localhost" => state.nodes.keys().next().cloned().unwrap_or_default(),
        node => node.to_owned(),
    };
    let directory = if work.kind.starts_with("vz") { "lxc" } else { "qemu-server" };
    format!("Configuration file 'nodes/{node}/{directory}/{}.conf' does not exist", work.vmid())
}

/// Writes a configuration before the request is answered.
pub(crate) fn apply(state: &mut State, work: &Work) -> Outcome {
    config::apply(state, work, &mut Vec::new())
}
