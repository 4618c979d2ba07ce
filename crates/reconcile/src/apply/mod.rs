//! Applying a plan: its operations in their order, as many at once as may be, each looked at before and after.
//!
//! # Guarantees
//! - Nothing is sent before its intent is on the disk, and nothing that may have been sent is sent again, unless it is proven that nothing
//!   came of it and the call carries the digest that lets only one of two be taken.
//! - Just before each call the lease is asked for, and the guest is looked at: identity, marker, lock, digest, pending changes.
//! - A call is done when the guest shows it, whatever its task said.
//! - A run that was cut off anywhere is gone on with from its journal.
//!
//! - A guest is made under a number that the graph keeps for it, and bound when it is there.
//!
//! A further kind of operation needs its calls in [`crate::plan`], what they are in `kinds`, what shows that they are done in `conditions`, and what it
//! holds meanwhile in `limits`; the rest is the same for all.

mod call;
mod carried;
mod conditions;
mod destroy;
mod fence;
mod files;
mod genuine;
mod harsh;
mod kinds;
mod limits;
mod look;
mod make;
mod outcome;
mod placed;
mod privileges;
mod settle;
mod still;
mod withheld;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use pve_client::PveClient;
use serde::Serialize;
use serde_json::{Map, Value, json};

pub use destroy::Keys;
pub use fence::{Fence, Good, Stop};
pub use files::Files;
pub use genuine::odd;
pub use harsh::harsh;
pub use kinds::is_known;
pub use limits::{Needs, PER_CLUSTER, PER_NODE, groups};
pub use look::{Look, look};
pub use make::sources;
pub use outcome::{Ended, Outcome, untold};
pub use placed::misplaced;
pub use privileges::{Copied, Needed, Sources, missing, needed};

use crate::audit::Audit;
use crate::canonical::TagStyle;
use crate::desired::Desired;
use crate::document::SecretRef;
use crate::journal::{Call, Event, Found, Journal, Reached};
use crate::lines::LinesError;
use crate::plan::{Action, Operation, Plan};
use crate::sent::Sent;
use crate::stored::Binding;

/// Tells epoch seconds.
pub type Clock<'a> = &'a (dyn Fn() -> i64 + Send + Sync);

/// Reads a secret.
pub type Secrets<'a> = &'a (dyn Fn(&SecretRef) -> Result<String, String> + Send + Sync);

/// Something that happens in a run.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Happened<'a> {
    /// An operation begins.
    Begins {
        /// Its number.
        operation: usize,
        /// The desired guest.
        uid: &'a str,
        /// Its number.
        vmid: i64,
        /// What is done.
        action: &'a str,
    },
    /// A call was answered.
    Sent {
        /// The operation's number.
        operation: usize,
        /// The call: verb and path.
        request: String,
        /// The task that it started.
        upid: Option<&'a str>,
    },
    /// A task goes on; told every now and then.
    Follows {
        /// The operation's number.
        operation: usize,
        /// The task.
        upid: &'a str,
        /// For how long it has been followed, in seconds.
        seconds: u64,
    },
    /// PVE is busy; the call is sent again after a while.
    Busy {
        /// The operation's number.
        operation: usize,
        /// What PVE says.
        reason: &'a str,
    },
    /// An operation has ended.
    Ends {
        /// Its number.
        operation: usize,
        /// The desired guest.
        uid: &'a str,
        /// Its number.
        vmid: i64,
        /// What was done.
        action: &'a str,
        /// What came of it.
        #[serde(flatten)]
        outcome: &'a Outcome,
    },
}

/// Is told what happens.
pub trait Progress: Sync {
    /// Something happens now.
    fn tell(&self, event: &Happened<'_>);
}

/// How long things are waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// How often a call is sent again that PVE was too busy for.
    pub retries: u32,
    /// The wait before the first of them; each next one is twice as long.
    pub backoff: Duration,
    /// The wait between the first two looks at a guest; each next one is twice as long, up to `between`.
    pub first: Duration,
    /// How often a guest is looked at until it shows what was done, or is taken for unchanged.
    pub looks: u32,
    /// The same for a restart.
    pub restart_looks: u32,
    /// The same for a state that high availability was asked for: it shuts guests down itself.
    pub ha_looks: u32,
    /// The longest wait between two looks.
    pub between: Duration,
    /// How often it is told that a task goes on: copies and migrations may take hours.
    pub told: Duration,
}

impl Default for Patience {
    /// PVE waits ten seconds for a guest's lock itself; HA's states lag by up to ten.
    fn default() -> Self {
        Self {
            retries: 7,
            backoff: Duration::from_millis(250),
            first: Duration::from_millis(100),
            looks: 10,
            restart_looks: 34,
            ha_looks: 154,
            between: Duration::from_secs(2),
            told: Duration::from_secs(10),
        }
    }
}

impl Patience {
    /// The wait after so many looks.
    fn after(&self, looks: u32) -> Duration {
        let doubled = 2_u32.saturating_pow(looks.saturating_sub(1));
        self.first.saturating_mul(doubled).min(self.between)
    }
}

/// Who applies, for the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Who {
    /// The account at PVE, and the user and host of the process.
    pub actor: String,
    /// Who approved the plan.
    pub approver: String,
}

/// What a run works with.
pub struct Run<'a> {
    setup: Setup<'a>,
    state: Mutex<State>,
}

struct State {
    journal: Journal,
    audit: Audit,
    sent: Sent,
    /// What each guest was like after our last call.
    last: BTreeMap<i64, Found>,
    /// The tasks of each operation.
    upids: BTreeMap<usize, Vec<String>>,
    /// Operations of which something new became known.
    touched: std::collections::BTreeSet<usize>,
}

/// What a run is made of.
pub struct Setup<'a> {
    /// The cluster.
    pub client: &'a PveClient,
    /// What is done.
    pub plan: &'a Plan,
    /// What is desired, of the plan's generation.
    pub desired: &'a Desired,
    /// How tags are spelled there.
    pub style: TagStyle,
    /// The storages of guests' disks, by number and key, where they are known: of the plan's guests, and of those that are copied.
    pub storages: BTreeMap<i64, BTreeMap<String, String>>,
    /// The lease.
    pub fence: &'a Fence<'a>,
    /// Is told what happens.
    pub progress: &'a dyn Progress,
    /// Asks the graph for the keys to a deletion, and for scopes that are paused.
    pub keys: &'a dyn Keys,
    /// Reads secrets.
    pub secrets: Secrets<'a>,
    /// Tells the time.
    pub clock: Clock<'a>,
    /// How long things are waited for.
    pub patience: Patience,
    /// Who applies.
    pub who: Who,
    /// When the plan or its approval ends, whichever is first, in epoch seconds: nothing is sent from then on.
    pub valid_until: i64,
    /// What the audit log says of the run's operations already; see [`crate::audit::results`].
    pub told: BTreeMap<usize, String>,
}

impl<'a> Run<'a> {
    /// A run that begins, or goes on where its journal ends. `journal` is the run's, begun; `audit` the audit log.
    /// `sent`: what guests were sent, for [`crate::sent::compare`].
    pub fn new(setup: Setup<'a>, journal: Journal, audit: Audit, sent: Sent) -> Self {
        let mut last = BTreeMap::new();
        for (call, reached) in &journal.record().calls {
            if let (Reached::Verified { after, .. }, Some(operation)) =
                (reached, setup.plan.operations.get(call.op))
            {
                last.insert(operation.vmid, after.clone());
            }
        }
        let upids = journal.record().tasks.clone();
        let state = Mutex::new(State { journal, audit, sent, last, upids, touched: Default::default() });
        Self { setup, state }
    }

    /// Does the plan's operations, and answers what came of each, and what stopped the run.
    ///
    /// # Errors
    /// The journal or the audit log can't be written: nothing more is sent then.
    pub async fn go(&self) -> Result<(Vec<Outcome>, Option<Stop>), LinesError> {
        let operations = &self.setup.plan.operations;
        let groups = groups(self.setup.desired);
        let storage = |vmid: i64| self.setup.storages.get(&vmid).cloned().unwrap_or_default();
        let needs: Vec<Needs> =
            operations.iter().map(|operation| Needs::of(operation, &groups, storage)).collect();
        let mut outcomes: Vec<Option<Outcome>> = vec![None; operations.len()];
        let mut begun = vec![false; operations.len()];
        let mut running = FuturesUnordered::new();
        let mut active: BTreeMap<usize, &Needs> = BTreeMap::new();
        let (mut stop, mut broken) = (None, None);
        loop {
            for at in 0..operations.len() {
                let (Some(operation), Some(needs)) = (operations.get(at), needs.get(at)) else { continue };
                if begun.get(at).copied().unwrap_or(true) {
                    continue;
                }
                let before = || operation.after.iter().map(|number| outcomes.get(number.saturating_sub(1)));
                let hopeless = before().any(|outcome| {
                    outcome
                        .and_then(Option::as_ref)
                        .is_some_and(|outcome| !matches!(outcome, Outcome::Done { .. }))
                });
                let ready = before().all(|outcome| matches!(outcome, Some(Some(Outcome::Done { .. }))));
                let ended = if hopeless {
                    Some(Outcome::Skipped)
                } else if (stop.is_some() || broken.is_some()) && !self.was_begun(at) {
                    Some(Outcome::NotBegun)
                } else {
                    None
                };
                if ended.is_some() {
                    mark(&mut begun, at);
                    set(&mut outcomes, at, ended);
                } else if ready && needs.fits(active.values().copied()) {
                    mark(&mut begun, at);
                    active.insert(at, needs);
                    running.push(async move { (at, self.operation(at, operation).await) });
                }
            }
            let Some((at, ended)) = running.next().await else {
                // Nothing runs, and nothing could be begun: the rest waits for what will not come.
                if begun.iter().all(|begun| *begun) {
                    break;
                }
                for (at, begun) in begun.iter_mut().enumerate().filter(|(_, begun)| !**begun) {
                    *begun = true;
                    set(&mut outcomes, at, Some(Outcome::Skipped));
                }
                continue;
            };
            active.remove(&at);
            match ended {
                Ok((outcome, stopped)) => {
                    stop = stop.or(stopped);
                    if let Some(operation) = operations.get(at)
                        && let Err(error) = self.ended(at, operation, &outcome)
                    {
                        broken = broken.or(Some(error));
                    }
                    set(&mut outcomes, at, Some(outcome));
                }
                Err(error) => {
                    set(&mut outcomes, at, Some(Outcome::NotBegun));
                    broken = broken.or(Some(error));
                }
            }
        }
        match broken {
            Some(error) => Err(error),
            None => Ok((outcomes.into_iter().map(|one| one.unwrap_or(Outcome::NotBegun)).collect(), stop)),
        }
    }

    /// One operation: its calls, one after the other.
    async fn operation(
        &self,
        at: usize,
        operation: &Operation,
    ) -> Result<(Outcome, Option<Stop>), LinesError> {
        self.setup.progress.tell(&Happened::Begins {
            operation: operation.number,
            uid: &operation.uid,
            vmid: operation.vmid,
            action: operation.action.as_str(),
        });
        let mut waits: Vec<String> = Vec::new();
        for (number, request) in operation.requests.iter().enumerate() {
            match self.call(Call { op: at, call: number }, operation, request).await? {
                call::End::Verified { waiting } => {
                    // A restart leaves nothing of before waiting.
                    if request.path.ends_with("/status/reboot") {
                        waits.clear();
                    }
                    waits.extend(waiting);
                }
                call::End::Other(outcome) => return Ok((half_done(number, operation, outcome), None)),
                call::End::Stopped(stop) => {
                    let outcome = match number {
                        0 => Outcome::NotBegun,
                        _ => half_done(number, operation, Outcome::Stale { reason: stop.to_string() }),
                    };
                    return Ok((outcome, Some(stop)));
                }
            }
        }
        waits.sort();
        waits.dedup();
        Ok((Outcome::Done { waiting: waits }, None))
    }

    /// An operation has ended: it is told, and audited if something new is known of it.
    fn ended(&self, at: usize, operation: &Operation, outcome: &Outcome) -> Result<(), LinesError> {
        let Operation { number, uid, vmid, action, .. } = operation;
        let (number, vmid, action) = (*number, *vmid, action.as_str());
        self.setup.progress.tell(&Happened::Ends { operation: number, uid, vmid, action, outcome });
        let (upids, needless) = {
            let mut state = self.state();
            let (touched, begun) = (state.touched.remove(&at), has_begun(&state, at));
            if !untold(outcome, touched, begun, self.setup.told.get(&operation.number).map(String::as_str)) {
                return Ok(());
            }
            let needless = state.journal.record().needless.clone();
            (state.upids.remove(&at).unwrap_or_default(), needless)
        };
        let (mut requests, mut spared) = (Vec::new(), Vec::new());
        for (call, request) in operation.requests.iter().enumerate() {
            let place = if needless.contains(&Call { op: at, call }) { &mut spared } else { &mut requests };
            place.push(format!("{} {}", request.method, request.path));
        }
        let not_needed =
            (!spared.is_empty()).then(|| format!("not needed any more, and not sent: {}", spared.join(", ")));
        let reasons: Vec<&str> = outcome.reason().into_iter().chain(not_needed.as_deref()).collect();
        self.audited(json!({
            "what": "operation", "operation": number, "uid": uid, "vmid": vmid, "action": action,
            "fields": operation.fields, "requests": requests, "upids": upids, "result": outcome.word(),
            "reason": (!reasons.is_empty()).then(|| reasons.join("; ")),
        }))
    }

    /// Adds an entry to the audit log.
    ///
    /// # Errors
    /// It can't be written.
    pub fn audited(&self, entry: Value) -> Result<(), LinesError> {
        let mut whole: Map<String, Value> = entry.as_object().cloned().unwrap_or_default();
        whole.retain(|_, value| !value.is_null());
        let mut state = self.state();
        let run = state.journal.record().run.clone();
        for (key, value) in [
            ("run", json!(run)),
            ("plan", json!(self.setup.plan.sha256())),
            ("cluster", json!(self.setup.plan.cluster)),
            ("actor", json!(self.setup.who.actor)),
            ("approver", json!(self.setup.who.approver)),
        ] {
            whole.insert(key.to_owned(), value);
        }
        let now = (self.setup.clock)();
        let head = state.audit.add(now, whole)?.clone();
        drop(state);
        self.setup.fence.audited(&head);
        Ok(())
    }

    /// The guests that are to be bound: those that were made, and those that have the marker now. A second time is no harm.
    pub fn to_bind(&self, outcomes: &[Outcome]) -> Vec<Binding> {
        let state = self.state();
        let mut all: Vec<Binding> = Vec::new();
        for (operation, outcome) in self.setup.plan.operations.iter().zip(outcomes) {
            // A container is told by its root volume, which has another name after it was moved or became a template's.
            let binds = matches!(
                operation.action,
                Action::Create | Action::Mark | Action::Move | Action::Migrate | Action::Template
            );
            // What was renamed by a call that is verified stays so, whatever became of the others.
            let renamed = matches!(operation.action, Action::Move | Action::Migrate | Action::Template)
                && state.last.contains_key(&operation.vmid);
            if !binds || !(renamed || matches!(outcome, Outcome::Done { .. })) {
                continue;
            }
            let found = state.last.get(&operation.vmid).and_then(|found| found.fingerprint.clone());
            let Some(fingerprint) = found.or_else(|| operation.fingerprint.clone()) else { continue };
            let Operation { uid, kind, vmid, .. } = operation;
            all.push(Binding {
                uid: uid.clone(),
                kind: *kind,
                vmid: *vmid,
                fingerprint: Some(fingerprint),
                last_applied: Some((self.setup.clock)()),
                reserved_by: None,
                destroyed_at: None,
            });
        }
        all
    }

    /// The desired guests whose deletion is done: what the graph keeps of it makes the next plan leave them alone.
    pub fn to_forget(&self, outcomes: &[Outcome]) -> BTreeSet<&str> {
        let done = |(operation, outcome): &(&Operation, &Outcome)| {
            operation.action == Action::Destroy && matches!(outcome, Outcome::Done { .. })
        };
        let all = self.setup.plan.operations.iter().zip(outcomes).filter(done);
        all.map(|(operation, _)| operation.uid.as_str()).collect()
    }

    /// Keeps the number of a guest that is about to be made.
    async fn reserve(&self, operation: &Operation) -> Result<(), String> {
        let Operation { uid, kind, vmid, .. } = operation;
        let run = self.state().journal.record().run.clone();
        let (uid, kind, vmid) = (uid.clone(), *kind, *vmid);
        let binding = Binding {
            uid,
            kind,
            vmid,
            // A machine that is made from scratch has the UUID that the plan gave it.
            fingerprint: operation.fingerprint.clone(),
            last_applied: None,
            reserved_by: Some(run),
            destroyed_at: None,
        };
        self.setup.fence.bound(&self.setup.desired.cluster, &[binding]).await
    }

    /// Gives it back: nothing was made. Where the graph is away it stays kept, for the next plan.
    async fn unreserve(&self, operation: &Operation) {
        let Operation { uid, vmid, .. } = operation;
        if let Err(why) = self.setup.fence.unreserved(&self.setup.desired.cluster, uid, *vmid).await {
            tracing::warn!("{uid}: its number {vmid} stays kept for it: {why}");
        }
    }

    /// Adds to the journal.
    ///
    /// # Errors
    /// It can't be written.
    pub fn note(&self, event: Event) -> Result<(), LinesError> {
        let now = (self.setup.clock)();
        self.state().journal.add(now, event)
    }

    /// Was something of it begun, by the process before this one perhaps?
    fn was_begun(&self, at: usize) -> bool {
        has_begun(&self.state(), at)
    }

    /// May a call about this guest be sent now?
    async fn may_send(&self, vmid: i64) -> Result<(), Stop> {
        if let Some(stop) = expired((self.setup.clock)(), self.setup.valid_until) {
            self.setup.fence.stop(stop);
        }
        self.setup.fence.may_send().await?;
        self.setup.keys.paused(vmid).await.map_or(Ok(()), |why| Err(Stop::ScopePaused(why)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn expired(now: i64, valid_until: i64) -> Option<Stop> {
    let why = "the plan, or its approval, has expired meanwhile: plan again for what is left";
    (now >= valid_until).then(|| Stop::Expired(why.to_owned()))
}

fn has_begun(state: &State, at: usize) -> bool {
    state.journal.record().calls.keys().any(|call| call.op == at)
}

/// What came of an operation of whose calls the first `done` were done.
fn half_done(done: usize, operation: &Operation, outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Stale { reason } | Outcome::Failed { reason, .. } if done > 0 => {
            let all = operation.requests.len();
            Outcome::HalfDone { reason: format!("{done} of its {all} calls were done: {reason}") }
        }
        other => other,
    }
}

fn mark(begun: &mut [bool], at: usize) {
    if let Some(place) = begun.get_mut(at) {
        *place = true;
    }
}

fn set(outcomes: &mut [Option<Outcome>], at: usize, outcome: Option<Outcome>) {
    if let Some(place) = outcomes.get_mut(at) {
        *place = outcome;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_come_quickly_first_and_waits_stay_as_long() {
        let patience = Patience::default();
        assert_eq!(patience.after(1), Duration::from_millis(100));
        assert_eq!((patience.after(3), patience.after(200)), (Duration::from_millis(400), patience.between));
        let whole = |looks: u32| (1..looks).map(|looks| patience.after(looks)).sum::<Duration>().as_secs();
        // A lock is waited for by PVE itself for as long.
        assert!((10..13).contains(&whole(patience.looks)), "{}", whole(patience.looks));
        assert!((58..62).contains(&whole(patience.restart_looks)), "{}", whole(patience.restart_looks));
        assert!((298..310).contains(&whole(patience.ha_looks)), "{}", whole(patience.ha_looks));
        let tries = (0..patience.retries).map(|retry| patience.backoff * 2_u32.pow(retry));
        assert!((30..40).contains(&tries.sum::<Duration>().as_secs()));
    }

    #[test]
    fn nothing_is_sent_once_plan_or_approval_have_ended() {
        assert_eq!(expired(99, 100), None);
        assert!(matches!(expired(100, 100), Some(Stop::Expired(_))));
    }

    #[test]
    fn an_operation_of_which_some_calls_were_done_is_half_done() {
        let operation: Result<Operation, _> = serde_json::from_value(json!({
            "number": 1, "after": [], "uid": "web", "vmid": 100, "kind": "qemu", "node": "pve1", "action": "configure",
            "effect": "restart", "reversible": true, "fields": [], "reasons": [], "affects": [], "blast": 1,
            "fingerprint": null, "digest": null, "pending_sha256": null, "status": null, "requests": [],
        }));
        let Ok(operation) = operation else { panic!("{operation:?}") };
        let stale = Outcome::Stale { reason: "x".to_owned() };
        assert_eq!(half_done(0, &operation, stale.clone()), stale);
        assert_eq!(half_done(1, &operation, stale).word(), "half done");
        let unknown = Outcome::Unknown { reason: "x".to_owned() };
        assert_eq!(half_done(1, &operation, unknown.clone()), unknown);
    }
}
