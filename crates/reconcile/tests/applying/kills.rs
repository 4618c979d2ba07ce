//! Killed at each state of the journal, with each fault: nothing is made or sent twice, nobody else's guest is touched, and the run is gone
//! on with.
//!
//! A run within this process is looked at after each of its steps: what journal, graph and cluster are then is what a killed process leaves
//! behind. Each such moment is put back, and another run goes on there. After an `intent` there are two: before the call is sent, and when
//! Proxmox VE has done it. Of every twelfth such moment the run that goes on is killed as well, at one of its own moments, another one each
//! time, and a third run has to end it. `tests/e2e/apply/kills.rs` kills processes.
//!
//! Seen failing with: an intent that is sent again without a look; a lost task that nobody looks for; a busy migration that is sent again
//! after its work; what was made and is not bound; another guest that is taken for the one that was planned for; a container that is told
//! by its root volume alone; a state of high availability that is set again while the guest is on its way there; a run that
//! goes on and writes no intents (second kills alone).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use pve_sim::{Fault, FaultRule, GuestKind, GuestSpec, Power, State};
use pvegraph_reconcile::apply::Outcome;
use pvegraph_reconcile::plan::{Action, Ask, Plan};
use pvegraph_reconcile::stored::Binding;
use serde_json::{Value, json};

use crate::rig::{Rig, blocked, container, machine, reasons, words};

/// What is done to which guest.
struct Case {
    guests: Vec<GuestSpec>,
    /// The guest that it is about.
    vmid: u32,
    prepare: fn(&mut Rig),
    ask: Option<Wanted>,
}

/// A snapshot that is asked for, and what shows that it is there, or that the guest went back to it.
type Wanted = (Ask, fn(&Rig) -> bool);

/// What goes wrong besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wrong {
    Nothing,
    /// The first answer to each call gets lost, and its work is done.
    AnswerLost,
    /// The same, and the task still runs when the next run looks for it.
    TaskRuns,
    /// The first task ends with warnings.
    Warnings,
    /// A lock is not to be had when a call is sent first.
    Locked,
    /// The first task says so, after its work.
    LockedLate,
    /// Proxmox VE says of each first call that the digest is not its own.
    Digest,
    /// The node does not answer the other one, and nothing is done, the first time of each call.
    Status596,
    /// Somebody else changes the guest while nobody watches.
    Foreign,
    /// Somebody else's guest has the number when the run goes on.
    Reused,
}

use Wrong::*;

const ALL: [Wrong; 10] =
    [Nothing, AnswerLost, TaskRuns, Warnings, Locked, LockedLate, Digest, Status596, Foreign, Reused];

/// How often each call was heard, by verb and path.
type Heard = BTreeMap<(String, String), usize>;

/// What a killed run leaves behind.
struct Moment {
    journal: String,
    world: State,
    kept: BTreeMap<String, Binding>,
    /// The calls that were heard.
    heard: Heard,
    /// Those of them that a fault refused.
    refused: Heard,
    /// One of them after the journal's last line.
    answers: bool,
    /// What came of a call that was sent nobody can tell since the kill before.
    untold: bool,
}

/// The second kill is of every so many different moments.
const TWICE_EACH: usize = 12;

impl Wrong {
    fn faults(self, rig: &Rig, plan: &Plan) {
        let fault = match self {
            AnswerLost | TaskRuns => Fault::LoseAnswer,
            Locked => {
                let reason = "can't lock file '/var/lock/qemu-server/lock-100.conf' - got timeout".to_owned();
                Fault::Status { status: 500, reason }
            }
            Digest => {
                let reason = "checksum mismatch (file change by other user?)".to_owned();
                Fault::Status { status: 500, reason }
            }
            Status596 => Fault::BareStatus { status: 596, reason: "Connection timed out".to_owned() },
            Warnings => return rig.world().set_next_exit("WARNINGS: 1"),
            LockedLate => {
                let exit = "can't lock file '/var/lock/qemu-server/lock-100.conf' - got timeout";
                return rig.world().set_next_exit(exit);
            }
            Nothing | Foreign | Reused => return,
        };
        if self == TaskRuns {
            rig.world().set_time_scale(0.03);
        }
        for (method, path) in calls(plan).keys() {
            rig.server.faults().add(FaultRule::at(path, fault.clone()).method(method).times(1));
        }
    }

    /// The first of each call does nothing.
    fn refuses(self) -> bool {
        matches!(self, Locked | Digest | Status596)
    }

    /// Once it is over it is as if it had not been.
    fn is_mended(self) -> bool {
        matches!(self, Nothing | AnswerLost | TaskRuns | Warnings | Locked)
    }

    /// What happens while nobody watches.
    fn meanwhile(self, rig: &Rig, vmid: u32) {
        let seen = rig.world().read(|state| {
            state.guests.get(&vmid).map(|guest| (guest.kind == GuestKind::Qemu, guest.node.to_string()))
        });
        match (self, seen) {
            (Foreign, Some(_)) => rig.world().set_config(vmid, "startup", "order=7").unwrap(),
            (Reused, Some((machine, node))) => {
                rig.world().recreate(other(machine, vmid, &node)).unwrap();
            }
            (Reused, None) => drop(rig.world().add_guest(other(true, vmid, "pve1")).unwrap()),
            _ => {}
        }
    }
}

/// Somebody else's guest under a number.
fn other(machine: bool, vmid: u32, node: &str) -> GuestSpec {
    let spec = if machine { GuestSpec::qemu(vmid, "other") } else { GuestSpec::lxc(vmid, "other") };
    let disk = if machine { "scsi0" } else { "rootfs" };
    spec.node(node).disk(disk, "nfs-vm", 4, "").config("cores", 1)
}

/// How often each call is in a plan.
fn calls(plan: &Plan) -> BTreeMap<(String, String), usize> {
    let mut all = BTreeMap::new();
    for request in plan.operations.iter().flat_map(|operation| &operation.requests) {
        *all.entry((request.method.to_string(), request.path.clone())).or_default() += 1;
    }
    all
}

impl Moment {
    fn lines(&self) -> Vec<Value> {
        self.journal.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Whether the call was sent, and what came of it, nobody can tell: it carries no digest, and left nothing.
    fn is_untold(&self, plan: &Plan, wrong: Wrong) -> bool {
        if self.untold {
            return true;
        }
        let last = self.lines().pop().unwrap();
        let at = |name: &str| usize::try_from(last[name].as_u64().unwrap()).unwrap();
        last["state"] == "intent"
            && (!self.answers || wrong.refuses())
            && !plan.operations[at("op")].requests[at("call")].with_digest
    }

    /// All of it that a run that goes on can tell from another moment.
    fn text(&self) -> String {
        let mut calls: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for mut line in self.lines() {
            let state = line["state"].clone();
            let call = calls.entry(format!("{} {}", line["op"], line["call"])).or_default();
            if state == "intent" || state == "busy" {
                call.clear();
            }
            if state == "busy" {
                continue;
            }
            let line = line.as_object_mut().unwrap();
            ["n", "at", "others", "upid", "reason", "exit"].iter().for_each(|name| drop(line.remove(*name)));
            call.push(json!(line).to_string());
        }
        calls.retain(|_, lines| !lines.is_empty());
        // How a task ended is asked of the last call's alone.
        let asks =
            self.lines().pop().is_some_and(|last| last["state"] == "intent" || last["state"] == "dispatched");
        let exit =
            |task: &pve_sim::Task| task.exit.clone().map(|exit| if asks { exit } else { String::new() });
        let tasks: Vec<_> = self.world.tasks.iter().map(|task| (&task.kind, &task.id, exit(task))).collect();
        let (guests, doing) = (&self.world.guests, &self.world.ha_doing);
        format!("{calls:?} {tasks:?} {guests:?} {doing:?} {:?} {}", self.kept, self.answers)
    }
}

fn done(outcomes: &[Outcome]) -> bool {
    outcomes.iter().all(|one| matches!(one, Outcome::Done { .. }))
}

/// Does the plan leave options alone that it does not name?
fn others_stay(plan: &Plan) -> bool {
    plan.operations.iter().all(|operation| operation.action != Action::RestoreSnapshot)
}

fn heard(rig: &Rig, plan: &Plan) -> Heard {
    let writes = |(method, path): &(String, String)| rig.server.counters().writes(method, path);
    calls(plan).into_keys().map(|call| (call.clone(), writes(&call))).collect()
}

/// The moments of a run that nobody cuts off: from its beginning, or from where one `before` it was killed.
async fn moments(rig: &Rig, plan: &Plan, wrong: Wrong, before: Option<&Moment>) -> Vec<Moment> {
    let base = heard(rig, plan);
    let earlier = |call: &(String, String)| before.map_or(0, |before| before.heard[call]);
    let untold = before.is_some_and(|before| before.is_untold(plan, wrong));
    let mut lines = before.map_or(0, |before| before.lines().len());
    let mut answered: usize = before.map_or(0, |before| before.heard.values().sum());
    let mut all: Vec<Moment> = Vec::new();
    if before.is_none() {
        wrong.faults(rig, plan);
    }
    let went = rig.watched(plan, |journal| {
        let heard: Heard = heard(rig, plan)
            .into_iter()
            .map(|(call, count)| (call.clone(), count - base[&call] + earlier(&call)))
            .collect();
        let (now, answers) = (journal.lines().count(), heard.values().sum());
        let refused = match before {
            Some(before) => before.refused.clone(),
            None if wrong.refuses() => {
                heard.iter().map(|(call, count)| (call.clone(), *count.min(&1))).collect()
            }
            None => Heard::new(),
        };
        let mut moment = |lines: usize, answers| {
            let journal = journal.split_inclusive('\n').take(lines).collect();
            let (world, kept) = (rig.world().read(State::clone), rig.kept());
            let (heard, refused) = (heard.clone(), refused.clone());
            all.push(Moment { journal, world, kept, heard, refused, answers, untold });
        };
        if now == lines && answers > answered {
            moment(now, true);
        }
        // Several lines may come in one step: each is on the disk before the next one.
        (lines + 1..=now).for_each(|lines| moment(lines, false));
        (lines, answered) = (now, answers);
    });
    went.await;
    rig.server.faults().clear();
    rig.world().set_time_scale(0.0);
    all
}

/// Waits until high availability does nothing more: a guest on its way can't be planned for.
async fn at_rest(rig: &Rig) {
    while rig.world().read(|state| !state.ha_doing.is_empty()) {
        tokio::time::sleep(rig.patience.between).await;
        rig.client.nodes().await.unwrap();
    }
}

/// In milliseconds since 1970.
fn now() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    u64::try_from(now.as_millis()).unwrap()
}

impl Case {
    async fn rig(&self) -> Rig {
        let mut guests = self.guests.clone();
        guests.push(GuestSpec::qemu(900, "theirs").node("pve1").disk("scsi0", "nfs-vm", 4, ""));
        guests.push(machine(901, "pve1").disk("scsi0", "nfs-vm", 4, "").power(Power::Running));
        guests.push(container(902, "pve2").disk("rootfs", "nfs-vm", 4, ""));
        let mut rig = Rig::new(guests).await;
        rig.patience.between = Duration::from_millis(2);
        rig.patience.ha_looks = 60;
        rig.scopes[0].allow.extend(Action::ALL);
        rig.scopes[0].max_deletes = 1;
        (self.prepare)(&mut rig);
        rig
    }

    async fn plan(&self, rig: &Rig) -> Plan {
        match &self.ask {
            Some((_, is_there)) if is_there(rig) => rig.plan().await,
            Some((ask, _)) => rig.asked(rig.desired.guests.keys().next().unwrap(), ask).await,
            None => rig.plan().await,
        }
    }

    fn others(&self, rig: &Rig) -> BTreeMap<u32, String> {
        rig.guests().into_iter().filter(|(vmid, _)| *vmid != self.vmid).collect()
    }

    /// All faults, and all the moments that runs with them have.
    async fn check(self) {
        let mut rig = self.rig().await;
        let plan = self.plan(&rig).await;
        assert_eq!(blocked(&plan), "");
        assert!(!plan.operations.is_empty());
        let (world, kept, others) = (rig.world().read(State::clone), rig.kept(), self.others(&rig));
        let (mut known, mut all, mut twice) = (BTreeSet::new(), 0, 0);
        for wrong in ALL {
            rig.world().update(|state| state.clone_from(&world));
            rig.put_back(&plan, "", &kept);
            for moment in moments(&rig, &plan, wrong, None).await {
                all += 1;
                let other = match wrong {
                    TaskRuns if moment.world.tasks.iter().all(|task| task.exit.is_some()) => continue,
                    Foreign | Reused => format!("{wrong:?}"),
                    _ => String::new(),
                };
                if !known.insert(format!("{other} {}", moment.text())) {
                    continue;
                }
                let untouched = |rig: &Rig, moment: &Moment| {
                    assert_eq!(
                        self.others(rig),
                        others,
                        "{wrong:?}: nobody else is touched: {}",
                        moment.journal
                    );
                };
                self.killed(&mut rig, &plan, wrong, &moment, true).await;
                untouched(&rig, &moment);
                if known.len() % TWICE_EACH != 0 {
                    continue;
                }
                self.back(&mut rig, &plan, &moment);
                self.meanwhile(&rig, wrong).await;
                let mut later = moments(&rig, &plan, wrong, Some(&moment)).await;
                // Another one each time.
                let again = later.swap_remove(known.len() / TWICE_EACH % later.len());
                self.killed(&mut rig, &plan, wrong, &again, false).await;
                untouched(&rig, &again);
                twice += 1;
            }
        }
        println!("{all} moments, {} of them different, {twice} of them with a second kill", known.len());
        rig.server.shutdown().await;
    }

    /// Puts all back as a killed run left it.
    fn back(&self, rig: &mut Rig, plan: &Plan, moment: &Moment) {
        rig.put_back(plan, &moment.journal, &moment.kept);
        rig.world().update(|state| {
            state.clone_from(&moment.world);
            state.next_exit = None;
            // They run for a little while yet.
            let due = now() + 30;
            state.tasks.iter_mut().filter(|task| task.exit.is_none()).for_each(|task| task.due = due);
        });
    }

    async fn meanwhile(&self, rig: &Rig, wrong: Wrong) {
        if wrong == Reused {
            at_rest(rig).await;
        }
        wrong.meanwhile(rig, self.vmid);
    }

    /// A run goes on where another was killed. `first`: nobody has gone on before.
    async fn killed(&self, rig: &mut Rig, plan: &Plan, wrong: Wrong, moment: &Moment, first: bool) {
        let last = moment.lines().pop().unwrap();
        let answers = if moment.answers { ", answered" } else { "" };
        let kill = if first { "" } else { "second kill: " };
        let mut what =
            format!("{kill}{wrong:?} at {} {} {}{answers}", last["state"], last["op"], last["call"]);
        self.back(rig, plan, moment);
        let base = heard(rig, plan);
        self.meanwhile(rig, wrong).await;
        let is_theirs =
            |rig: &Rig| rig.guests().get(&self.vmid).is_some_and(|guest| guest.contains("order=7"));
        let foreign = is_theirs(rig);
        let newcomer = rig.guests().get(&self.vmid).cloned().filter(|_| wrong == Reused);

        let mut outcomes = rig.resume(plan).await;
        what = format!("{what}: {:?} {}", words(&outcomes), reasons(&outcomes));
        if foreign && others_stay(plan) && rig.guests().contains_key(&self.vmid) {
            assert!(is_theirs(rig), "{what}: it is theirs, and stays");
        }
        if wrong.is_mended() && !moment.is_untold(plan, wrong) {
            assert!(done(&outcomes), "{what}");
        }
        let verified = moment.lines().iter().filter(|line| line["state"] == "verified").count();
        if newcomer.is_some() && verified < calls(plan).values().sum() && plan.deletes == 0 {
            assert!(!done(&outcomes), "{what}: it is another guest");
        }
        if outcomes.iter().any(|one| matches!(one, Outcome::Unknown { .. })) {
            outcomes = rig.resume(plan).await;
        }
        let now = heard(rig, plan);
        for (call, planned) in calls(plan) {
            let refused = moment.refused.get(&call).copied().unwrap_or_default();
            let taken = moment.heard[&call] + now[&call] - base[&call] - refused;
            assert!(taken <= planned, "{what}: {call:?} was sent {taken} times");
        }
        rig.noted();
        at_rest(rig).await;
        // Whatever is left is the next plan's.
        let mut rest = self.plan(rig).await;
        assert!(rest.noop() || !done(&outcomes) || newcomer.is_some(), "{what}: {:?}", rest.operations);
        for _ in 0..3 {
            if rest.operations.is_empty() || newcomer.is_some() && !rest.blocked.is_empty() {
                break;
            }
            assert_eq!(blocked(&rest), "", "{what}");
            let next = rig.apply(&rest).await;
            assert!(done(&next) || newcomer.is_some(), "{what}: {:?} {}", words(&next), reasons(&next));
            rig.noted();
            rest = self.plan(rig).await;
        }
        match newcomer {
            Some(_) => assert_eq!(rig.guests().get(&self.vmid), newcomer.as_ref(), "{what}: it is theirs"),
            None => self.is_done(rig, &rest, &what),
        }
    }

    /// There is nothing left to do.
    fn is_done(&self, rig: &Rig, rest: &Plan, what: &str) {
        assert!(rest.noop(), "{what}: {:?} {}", rest.operations, blocked(rest));
        if let Some((_, is_there)) = &self.ask {
            assert!(is_there(rig), "{what}");
        }
        let kinds = |kind: &str| rig.tasks(kind, self.vmid);
        for kind in ["qmcreate", "vzcreate", "qmsnapshot", "vzsnapshot", "qmdestroy", "vzdestroy"] {
            assert!(kinds(kind) <= 1, "{what}: {} of {kind}", kinds(kind));
        }
        let numbers: BTreeSet<u32> = rig.guests().into_keys().collect();
        let mut expected: BTreeSet<u32> = self.others(rig).into_keys().collect();
        expected.insert(self.vmid);
        if rig.desired.guests.values().any(|guest| guest.tombstone) {
            expected.remove(&self.vmid);
        }
        assert_eq!(numbers, expected, "{what}");
    }
}

fn vm(vmid: u32) -> GuestSpec {
    machine(vmid, "pve1").disk("scsi0", "nfs-vm", 4, "")
}

fn ct(vmid: u32) -> GuestSpec {
    container(vmid, "pve1").disk("rootfs", "nfs-vm", 4, "")
}

fn of(vmid: u32, guest: GuestSpec, prepare: fn(&mut Rig)) -> Case {
    Case { vmid, guests: vec![guest], prepare, ask: None }
}

fn lag(rig: &Rig) {
    rig.world().update(|state| state.ha_lag = 40);
}

macro_rules! killed {
    ($($name:ident: $case:expr;)*) => { $(
        #[tokio::test]
        async fn $name() {
            $case.check().await;
        }
    )* };
}

killed! {
    a_mark: of(100, GuestSpec::qemu(100, "web").node("pve1").disk("scsi0", "nfs-vm", 4, ""), |rig| {
        rig.desire(vec![json!({ "vmid": 100 })], vec![]);
        rig.consent.mark.insert("vm-100".to_owned());
    });
    options: of(100, vm(100), |rig| {
        rig.desire(vec![json!({ "vmid": 100, "tags": ["a"], "name": "web" })], vec![]);
    });
    a_containers_options: of(200, ct(200), |rig| {
        rig.desire(vec![], vec![json!({ "vmid": 200, "tags": ["a"], "cores": 2 })]);
    });
    a_disk_that_is_made: of(100, vm(100), |rig| {
        rig.desire(vec![json!({ "vmid": 100, "scsi1": { "storage": "nfs-vm", "size": "1G" } })], vec![]);
    });
    a_restart: of(100, vm(100).power(Power::Running), |rig| {
        rig.desire(vec![json!({ "vmid": 100, "cores": 4, "reboot": "allow" })], vec![]);
    });
    a_larger_disk: of(100, vm(100), |rig| {
        rig.desire(vec![json!({ "vmid": 100, "tags": ["a"], "scsi0": { "size": "6G" } })], vec![]);
    });
    a_containers_larger_disk: of(200, ct(200), |rig| {
        rig.desire(vec![], vec![json!({ "vmid": 200, "rootfs": { "size": "6G" } })]);
    });
    a_move: of(100, vm(100), |rig| {
        rig.desire(vec![json!({ "vmid": 100, "tags": ["a"], "scsi0": { "storage": "local-lvm" } })], vec![]);
    });
    a_containers_move: of(200, ct(200), |rig| {
        rig.desire(vec![], vec![json!({ "vmid": 200, "cores": 2, "rootfs": { "storage": "local-lvm" } })]);
    });
    a_migration: of(100, vm(100).power(Power::Running), |rig| {
        rig.desire(vec![json!({ "vmid": 100, "tags": ["a"], "node": "pve2" })], vec![]);
    });
    a_containers_migration: of(200, ct(200).power(Power::Running), |rig| {
        rig.desire(vec![], vec![json!({ "vmid": 200, "node": "pve2", "reboot": "allow" })]);
    });
    a_migration_under_high_availability: of(100, vm(100).power(Power::Running).ha("started"), |rig| {
        lag(rig);
        rig.desire(vec![json!({ "vmid": 100, "node": "pve2" })], vec![]);
    });
    a_start: of(100, vm(100), |rig| rig.desire(vec![json!({ "vmid": 100, "state": "running" })], vec![]));
    a_shutdown: of(200, ct(200).power(Power::Running), |rig| {
        rig.desire(vec![], vec![json!({ "vmid": 200, "state": "stopped" })]);
    });
    a_state_of_high_availability: of(100, vm(100).power(Power::Running).ha("started"), |rig| {
        lag(rig);
        rig.desire(vec![json!({ "vmid": 100, "state": "stopped" })], vec![]);
    });
    a_new_machine: Case { guests: vec![], vmid: 300, ask: None, prepare: |rig| {
        let new = json!({
            "vmid": 300, "node": "pve1", "cores": 2, "state": "running", "scsi0": { "storage": "nfs-vm", "size": "1G" },
        });
        rig.desire(vec![new], vec![]);
    } };
    a_new_container: Case { guests: vec![], vmid: 300, ask: None, prepare: |rig| {
        let template = "local:vztmpl/debian-12.tar.zst";
        rig.world().add_container_template(template, None);
        let new = json!({
            "vmid": 300, "node": "pve1", "cores": 2, "ostemplate": template, "rootfs": { "storage": "nfs-vm", "size": "1G" },
        });
        rig.desire(vec![], vec![new]);
    } };
    a_copy: Case { guests: vec![vm(800)], vmid: 300, ask: None, prepare: |rig| {
        let new = json!({ "vmid": 300, "node": "pve1", "clone": { "from": 800, "full": true }, "cores": 4, "state": "running" });
        rig.desire(vec![new], vec![]);
    } };
    a_linked_copy: Case { guests: vec![vm(800)], vmid: 300, ask: None, prepare: |rig| {
        let base = rig.world().read(|state| state.guests[&800].config.text("scsi0").unwrap().into_owned());
        rig.world().set_config(800, "scsi0", base.replace("vm-800", "base-800")).unwrap();
        rig.world().set_config(800, "template", 1).unwrap();
        rig.desire(vec![json!({ "vmid": 300, "node": "pve1", "clone": { "from": 800 }, "tags": ["a"] })], vec![]);
    } };
    a_containers_copy: Case { guests: vec![ct(800)], vmid: 300, ask: None, prepare: |rig| {
        let new = json!({ "vmid": 300, "node": "pve1", "clone": { "from": 800, "full": true }, "cores": 4 });
        rig.desire(vec![], vec![new]);
    } };
    a_snapshot: Case {
        ask: Some((Ask::Take { name: "one".to_owned(), memory: false, description: None }, |rig| has_snapshot(rig, 100))),
        ..of(100, vm(100), |rig| rig.desire(vec![json!({ "vmid": 100 })], vec![]))
    };
    a_containers_snapshot: Case {
        ask: Some((Ask::Take { name: "one".to_owned(), memory: false, description: None }, |rig| has_snapshot(rig, 200))),
        ..of(200, container(200, "pve1").disk("rootfs", "local-lvm", 4, ""), |rig| {
            rig.desire(vec![], vec![json!({ "vmid": 200 })]);
        })
    };
    a_way_back_to_a_snapshot: Case {
        ask: Some((Ask::Rollback { name: "one".to_owned(), config: None }, |rig| cores(rig, 100) == "2")),
        ..of(100, vm(100).power(Power::Running), |rig| {
            rig.world().add_snapshot(100, "one", "").unwrap();
            let then = rig.world().read(|state| state.guests[&100].config.clone());
            rig.world().edit_guest(100, |guest| guest.snapshots[0].config = Some(then)).unwrap();
            rig.world().set_config(100, "cores", 4).unwrap();
            rig.desire(vec![json!({ "vmid": 100 })], vec![]);
        })
    };
    a_template: of(100, vm(100), |rig| rig.desire(vec![json!({ "vmid": 100, "template": true })], vec![]));
    a_containers_template: of(200, ct(200), |rig| rig.desire(vec![], vec![json!({ "vmid": 200, "template": true })]));
    a_deletion: of(100, vm(100), |rig| {
        rig.desire(vec![json!({ "vmid": 100, "tombstone": true, "deletion": "destroy" })], vec![]);
        rig.consent.delete.insert("vm-100".to_owned());
    });
    a_containers_deletion: of(200, ct(200), |rig| {
        rig.desire(vec![], vec![json!({ "vmid": 200, "tombstone": true, "deletion": "destroy" })]);
        rig.consent.delete.insert("ct-200".to_owned());
    });
}

fn cores(rig: &Rig, vmid: u32) -> String {
    rig.world().read(|state| state.guests[&vmid].config.text("cores").unwrap_or_default().into_owned())
}

fn has_snapshot(rig: &Rig, vmid: u32) -> bool {
    rig.world().read(|state| state.guests[&vmid].snapshots.iter().any(|snapshot| snapshot.name == "one"))
}
