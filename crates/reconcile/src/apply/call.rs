//! One call: looked at, written down, sent, followed, and shown to be done, or not.

use std::collections::BTreeMap;

use pve_client::{ApiError, FailureClass, TaskEnd, TaskFilter, Upid};
use pvegraph_inventory::GuestType;

use super::conditions::{After, after, before, migrated, to_revert};
use super::destroy::{Remains, destroys, remains};
use super::fence::Stop;
use super::kinds::{goes_back, looks, moves, renames, target, task_kinds};
use super::look::{Look, look};
use super::make::{Made, NotNow, free, is_foreign, made, taken};
use super::outcome::Outcome;
use super::{Happened, Run};
use crate::desired::Guest;
use crate::journal::{Call, Event, Found, Reached};
use crate::lines::LinesError;
use crate::live::LiveError;
use crate::plan::{Action, FormValue, Method, Operation, Request};

/// By how many seconds a node's clock may be behind this host's.
const CLOCK_SKEW: i64 = 300;

/// Stands for a digest that is not only of our own writing.
const FOREIGN: &str = "changed by somebody else";

/// How a call ended.
pub(super) enum End {
    /// The guest is as the call wants it.
    Verified {
        /// Options that wait for its next start.
        waiting: Vec<String>,
    },
    /// It did not get there.
    Other(Outcome),
    /// It was not sent, because the run was stopped.
    Stopped(Stop),
}

/// What is known of a call so far.
enum Known {
    /// It may be sent.
    MayBeSent,
    /// It has ended.
    Ended(End),
}

/// What PVE said to a call.
enum Said {
    /// It is done.
    Done,
    /// Its task has ended.
    Task(TaskEnd),
    /// It was refused.
    Refused(ApiError),
}

impl Said {
    fn is_good(&self) -> bool {
        match self {
            Self::Done => true,
            Self::Task(end) => end.success,
            Self::Refused(_) => false,
        }
    }

    /// PVE was too busy, and has changed nothing.
    fn is_busy(&self) -> bool {
        match self {
            Self::Done => false,
            Self::Task(end) => !end.success && FailureClass::of_text(&end.exit).is_busy(),
            Self::Refused(error) => error.is_busy(),
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Done => "the call was taken".to_owned(),
            Self::Task(end) if end.success => format!("the task ended with {}", end.exit),
            Self::Task(end) => format!("the task failed: {}", end.exit),
            Self::Refused(error) => error.to_string(),
        }
    }
}

/// Why the guest does not show anything.
#[derive(Debug)]
struct Unseen {
    why: String,
    /// The next look may tell.
    passes: bool,
}

impl Unseen {
    fn for_good(why: impl Into<String>) -> Self {
        Self { why: why.into(), passes: false }
    }
}

/// What is sent with a call and must not be told: PVE repeats values in some of its messages.
#[derive(Debug, Default)]
struct Withheld {
    /// By the names of the parameters.
    values: BTreeMap<String, String>,
    /// They can't be read any more: nothing that PVE says is told then.
    unreadable: bool,
}

impl Withheld {
    /// A foreign text without it.
    fn redacted(&self, text: &str) -> String {
        if self.unreadable {
            return "(what Proxmox VE says is left out: it may repeat a secret or a text that can't be looked up any more)".to_owned();
        }
        let mut text = text.to_owned();
        for (key, value) in self.values.iter().filter(|(_, value)| !value.is_empty()) {
            text = text.replace(value, &format!("({key})"));
        }
        text
    }
}

fn failed(reason: String) -> End {
    End::Other(Outcome::Failed { reason, refused: false })
}

/// One call on its way.
struct Sending<'r, 'a> {
    run: &'r Run<'a>,
    at: Call,
    operation: &'r Operation,
    request: &'r Request,
}

impl<'a> Run<'a> {
    /// Does one call, or finds out what became of it.
    pub(super) async fn call(
        &self,
        at: Call,
        operation: &Operation,
        request: &Request,
    ) -> Result<End, LinesError> {
        let sending = Sending { run: self, at, operation, request };
        let reached = self.state().journal.record().calls.get(&at).cloned();
        let mut known = match reached {
            Some(reached) => sending.resumed(reached).await?,
            None => Known::MayBeSent,
        };
        let mut attempt = 0;
        loop {
            match known {
                Known::Ended(end) => return Ok(end),
                Known::MayBeSent if attempt > self.patience.retries => {
                    let reason = format!(
                        "{} (guest {}): Proxmox VE was busy {attempt} times: apply again later",
                        operation.uid, operation.vmid
                    );
                    return sending.end(Outcome::Failed { reason, refused: false });
                }
                Known::MayBeSent => {
                    if attempt > 0 {
                        tokio::time::sleep(self.patience.backoff * 2_u32.saturating_pow(attempt - 1)).await;
                    }
                    attempt += 1;
                    known = sending.send().await?;
                }
            }
        }
    }
}

impl Sending<'_, '_> {
    /// What is known of a call that a process before this one began.
    async fn resumed(&self, reached: Reached) -> Result<Known, LinesError> {
        let hidden = &self.withheld_again().await;
        match reached {
            Reached::NotDone => Ok(Known::MayBeSent),
            Reached::Verified { waiting, .. } => Ok(Known::Ended(End::Verified { waiting })),
            Reached::Failed(reason) => Ok(Known::Ended(failed(reason))),
            Reached::Dispatched { before, upid: None, .. } => {
                self.conclude(&before, Said::Done, hidden).await
            }
            Reached::Dispatched { before, upid: Some(upid), .. }
            | Reached::Unknown { before, upid: Some(upid), .. } => match upid.parse::<Upid>() {
                Ok(upid) => self.followed(&before, &upid, hidden).await,
                Err(error) => self.unknown(self.told(&format!("{error}: look at the guest"))),
            },
            Reached::Intent { at, before } | Reached::Unknown { at, before, upid: None, .. } => {
                self.find_out(at, &before, "the process was cut off", true, hidden).await
            }
        }
    }

    /// Looks, writes down, sends.
    async fn send(&self) -> Result<Known, LinesError> {
        let Self { run, at, operation, request } = *self;
        let Some(guest) = run.desired.guests.get(&operation.uid) else {
            let reason = format!("{}: nobody desires it any more: plan again", operation.uid);
            return Ok(Known::Ended(self.end(Outcome::Stale { reason })?));
        };
        let (found, form) = match self.looked(guest).await {
            Ok(looked) => looked,
            Err(outcome) => return Ok(Known::Ended(self.end(outcome)?)),
        };
        // If the answer gets lost, the task that is there then and not now is this call's.
        let others = match self.tasks((run.clock)()).await {
            Ok(others) => others.iter().map(ToString::to_string).collect(),
            Err(error) => return Ok(Known::Ended(self.end(self.failed_by(&error))?)),
        };
        if let Err(stop) = run.may_send().await {
            return Ok(Known::Ended(End::Stopped(stop)));
        }
        if made(request).is_some()
            && let Err(why) = run.reserve(operation).await
        {
            let reason = format!(
                "{} (guest {}): its number can't be kept for it, and nothing was sent: {why}: apply again later",
                operation.uid, operation.vmid
            );
            return Ok(Known::Ended(self.end(Outcome::Failed { reason, refused: false })?));
        }
        let began = (run.clock)();
        run.note(Event::Intent {
            call: at,
            uid: operation.uid.clone(),
            vmid: operation.vmid,
            node: operation.node.clone(),
            request: format!("{} {}", request.method, request.path),
            keys: form.keys().cloned().collect(),
            others,
            before: found.clone(),
        })?;
        run.state().touched.insert(at.op);
        let path = request.api_path(operation.action.as_str());
        let pairs: Vec<(&str, &str)> = form.iter().map(|(key, value)| (&**key, &**value)).collect();
        let answer = match request.method {
            Method::Put => run.client.put_task(&path, &pairs).await,
            Method::Post => run.client.post_task(&path, &pairs).await,
            Method::Delete => run.client.delete_task(&path, &pairs).await,
        };
        let hidden = self.hidden(&form);
        match answer {
            Ok(upid) => {
                self.dispatched(upid.as_ref())?;
                match upid {
                    Some(upid) => self.followed(&found, &upid, &hidden).await,
                    None => self.conclude(&found, Said::Done, &hidden).await,
                }
            }
            Err(error) if error.outcome_unknown() => {
                self.find_out(began, &found, &hidden.redacted(&error.to_string()), false, &hidden).await
            }
            Err(error) => self.conclude(&found, Said::Refused(error), &hidden).await,
        }
    }

    fn failed_by(&self, error: &ApiError) -> Outcome {
        let refused = error.is_forbidden() || error.is_unauthorized();
        Outcome::Failed { reason: self.told(&error.to_string()), refused }
    }

    /// Looks whether the call may be sent, and with what.
    async fn looked(&self, guest: &Guest) -> Result<(Found, BTreeMap<String, String>), Outcome> {
        let Self { run, at, operation, request } = *self;
        if let Some(made) = made(request) {
            return self.looked_around(guest, &made).await;
        }
        let seen = self.look().await.map_err(|error| self.failed_by(&error))?;
        let planned = Found {
            digest: operation.digest.clone(),
            pending: operation.pending_sha256.clone(),
            ..Found::default()
        };
        let expected = run.state().last.get(&operation.vmid).cloned().unwrap_or(planned);
        let first = !run.state().last.contains_key(&operation.vmid);
        before(&run.desired.cluster, operation, at.call, seen.as_ref(), &expected, first)
            .map_err(|reason| Outcome::Stale { reason })?;
        let Some(seen) = seen else {
            return Err(Outcome::Stale { reason: format!("{} is gone", operation.uid) });
        };
        run.still(operation, request, &seen)
            .await
            .map_err(|error| self.failed_by(&error))?
            .map_err(|reason| Outcome::Stale { reason })?;
        let found = Found { rest: Some(seen.rest(request)), ..seen.found() };
        let form = request
            .form(found.digest.as_deref(), guest, Some(&seen.guest), run.secrets)
            .map_err(|error| Outcome::Stale { reason: self.told(&error.to_string()) })?;
        Ok((found, form))
    }

    /// The same of a guest that is made: its number has to be free.
    async fn looked_around(
        &self,
        guest: &Guest,
        made: &Made,
    ) -> Result<(Found, BTreeMap<String, String>), Outcome> {
        let Self { run, operation, request, .. } = *self;
        free(run.client, operation).await.map_err(|why| match why {
            NotNow::Stale(reason) => Outcome::Stale { reason },
            NotNow::Live(LiveError::Api(error)) => self.failed_by(&error),
            NotNow::Live(error) => Outcome::Failed { reason: self.told(&error.to_string()), refused: false },
        })?;
        let source = self.source(made).await?;
        let form = request
            .form(None, guest, source.as_ref().map(|source| &source.guest), run.secrets)
            .map_err(|error| Outcome::Stale { reason: self.told(&error.to_string()) })?;
        Ok((Found::default(), form))
    }

    /// The guest that is copied, as it was when the plan was made.
    async fn source(&self, made: &Made) -> Result<Option<Look>, Outcome> {
        let Some(vmid) = made.source else { return Ok(None) };
        let stale = |text: String| Outcome::Stale { reason: self.told(&format!("`clone.from`: {text}")) };
        let seen = look(self.run.client, made.kind, &made.node, vmid).await;
        let Some(seen) = seen.map_err(|error| self.failed_by(&error))? else {
            return Err(stale(format!("the guest {vmid} is not on {} any more: plan again", made.node)));
        };
        if let Some(lock) = seen.lock() {
            let text = format!(
                "Proxmox VE has the guest {vmid} locked ({lock}): wait for that to end, and plan again"
            );
            return Err(stale(text));
        }
        if self.operation.digest.is_some() && seen.found().digest != self.operation.digest {
            return Err(stale(format!("the guest {vmid} was changed since: plan again")));
        }
        Ok(Some(seen))
    }

    /// PVE has answered.
    fn dispatched(&self, upid: Option<&Upid>) -> Result<(), LinesError> {
        let upid = upid.map(ToString::to_string);
        self.run.note(Event::Dispatched { call: self.at, upid: upid.clone() })?;
        let mut state = self.run.state();
        state.touched.insert(self.at.op);
        state.upids.entry(self.at.op).or_default().extend(upid.clone());
        drop(state);
        self.run.progress.tell(&Happened::Sent {
            operation: self.operation.number,
            request: format!("{} {}", self.request.method, self.request.path),
            upid: upid.as_deref(),
        });
        Ok(())
    }

    /// Follows a task to its end.
    async fn followed(&self, before: &Found, upid: &Upid, hidden: &Withheld) -> Result<Known, LinesError> {
        match self.run.client.follow(upid).await {
            Ok(end) => {
                let exit = hidden.redacted(&end.exit);
                self.run.note(Event::TaskDone { call: self.at, exit })?;
                if end.warned() {
                    let text = hidden.redacted(&end.log.join("; "));
                    tracing::warn!(
                        "{} (guest {}): {}: {text}",
                        self.operation.uid,
                        self.operation.vmid,
                        hidden.redacted(&end.exit)
                    );
                }
                self.conclude(before, Said::Task(end), hidden).await
            }
            // The guest tells what the task does not.
            Err(error) => match self.shown(before).await {
                Ok((After::Holds { waiting, blind: false }, seen)) => {
                    self.verified(before, waiting, seen.as_ref())
                }
                _ => self.unknown(
                    self.told(&format!("its task {upid} can't be followed: {error}: look at the guest")),
                ),
            },
        }
    }

    /// Settles a call to which PVE has said something.
    async fn conclude(&self, before: &Found, said: Said, hidden: &Withheld) -> Result<Known, LinesError> {
        let Self { run, at, operation, request } = *self;
        // A task of these may have done its part before it waited for a lock: the guest tells.
        let goes_far = made(request).is_some()
            || destroys(request)
            || target(request).is_some()
            || moves(request).is_some();
        if said.is_busy() && !(goes_far && matches!(said, Said::Task(_))) {
            let reason = hidden.redacted(&said.text());
            run.progress.tell(&Happened::Busy { operation: operation.number, reason: &reason });
            run.note(Event::Busy { call: at, reason })?;
            return Ok(Known::MayBeSent);
        }
        let (mut looked, mut ha, mut given_up) = (0, false, false);
        let (after, seen) = loop {
            looked += 1;
            let shown = self.shown(before).await;
            if let Ok((_, Some(seen))) = &shown {
                (ha, given_up) = (seen.ha_managed, seen.is_given_up());
            }
            match shown {
                Ok((After::Holds { waiting, blind }, seen)) => {
                    // What can't be read back counts as done only where PVE said so.
                    if !blind || said.is_good() {
                        if !said.is_good() {
                            tracing::warn!(
                                "{} (guest {}): it is as it was meant, although {}",
                                operation.uid,
                                operation.vmid,
                                hidden.redacted(&said.text())
                            );
                        }
                        return self.verified(before, waiting, seen.as_ref());
                    }
                    break (Vec::new(), seen);
                }
                Ok((After::Not(_), _))
                    if said.is_good() && !given_up && looked < looks(request, &run.patience, ha) =>
                {
                    tokio::time::sleep(run.patience.between).await;
                }
                Ok((After::Not(fields), seen)) => break (fields, seen),
                // A node may be silent for a moment while the guest comes to it.
                Err(Unseen { passes: true, .. })
                    if said.is_good() && looked < looks(request, &run.patience, ha) =>
                {
                    tokio::time::sleep(run.patience.between).await;
                }
                Err(Unseen { why, .. }) => {
                    let said = hidden.redacted(&said.text());
                    return self.unknown(
                        self.told(&format!("{said}, and the guest can't be looked at: {why}: look at it")),
                    );
                }
            }
        };
        let mut reason =
            format!("{} (guest {}): {}", operation.uid, operation.vmid, hidden.redacted(&said.text()));
        if let Said::Task(end) = &said
            && !end.success
        {
            let log: Vec<&String> = end.log.iter().filter(|line| !line.starts_with("update ")).collect();
            if let Some(last) = log.last().filter(|last| !last.contains(&end.exit)) {
                reason.push_str(&format!(" ({})", hidden.redacted(last)));
            }
        }
        if !said.is_good() && request.path.ends_with("/status/shutdown") {
            reason.push_str(
                ": look why it does not shut down, or desire `shutdown: force` to have it cut off then",
            );
        }
        if said.is_good() {
            reason.push_str(&format!(", and it is not as it was meant: {}", after.join(", ")));
        }
        let (refused, conflict, answered) = match &said {
            Said::Refused(error) => (
                error.is_forbidden() || error.is_unauthorized(),
                error.class() == Some(FailureClass::Conflict),
                error.answer().is_some(),
            ),
            _ => (false, false, true),
        };
        // Nothing of ours was written: what waits is somebody else's.
        if conflict {
            reason.push_str("; somebody changed its configuration since: plan again");
            return Ok(Known::Ended(self.end(Outcome::Stale { reason })?));
        }
        if made(request).is_some() {
            return self.not_made(reason, refused, seen.as_ref()).await.map(Known::Ended);
        }
        if let Some(seen) = seen.as_ref().filter(|_| answered) {
            reason.push_str(&self.taken_back(before, seen).await?);
        }
        Ok(Known::Ended(self.end(Outcome::Failed { reason, refused })?))
    }

    /// After a call without an answer: what became of it? `resumed`: the process that sent it is gone.
    async fn find_out(
        &self,
        began: i64,
        before: &Found,
        why: &str,
        resumed: bool,
        hidden: &Withheld,
    ) -> Result<Known, LinesError> {
        let Self { run, at, operation, request } = *self;
        let guarded = request.with_digest && before.digest.is_some();
        let goes_back = goes_back(request);
        let (mut last, mut ha) = (String::new(), false);
        let mut looked = 0;
        loop {
            let enough = if resumed && guarded { 1 } else { looks(request, &run.patience, ha) };
            if looked >= enough {
                break;
            }
            if looked > 0 {
                tokio::time::sleep(run.patience.between).await;
            }
            looked += 1;
            match self.lost_task(began).await {
                Ok(Some(upid)) => {
                    self.dispatched(Some(&upid))?;
                    return self.followed(before, &upid, hidden).await;
                }
                Ok(None) => {}
                Err(error) => {
                    last = format!("its tasks can't be listed: {error}");
                    continue;
                }
            }
            match self.shown(before).await {
                Ok((After::Holds { waiting, .. }, None)) => return self.verified(before, waiting, None),
                // What is made can come yet.
                Ok((_, None)) => last = "it is not there so far".to_owned(),
                Ok((After::Not(_), Some(seen))) if made(request).is_some() && self.is_foreign(&seen) => {
                    let reason =
                        self.told(&taken(seen.guest.config.get("name").map(String::as_str), &operation.node));
                    run.unreserve(operation).await;
                    return Ok(Known::Ended(self.end(Outcome::Stale { reason })?));
                }
                Ok((after, Some(seen))) => {
                    ha = seen.ha_managed;
                    let unchanged = same(before, &seen.found());
                    match after {
                        // A guest may stand on the snapshot already that it is to go back to: only its task tells.
                        After::Holds { waiting, blind } if !blind || !unchanged && !goes_back => {
                            return self.verified(before, waiting, Some(&seen));
                        }
                        _ if unchanged => last = "the guest is unchanged so far".to_owned(),
                        _ => last = "the guest was changed, and not into what was sent".to_owned(),
                    }
                    // Of two calls with this digest PVE takes one at most, so that sending it now does nothing twice.
                    if unchanged && resumed && guarded {
                        run.note(Event::NotDone { call: at })?;
                        return Ok(Known::MayBeSent);
                    }
                }
                Err(Unseen { why, .. }) => last = why,
            }
        }
        self.unknown(format!("{} (guest {}): {why}; {last}", operation.uid, operation.vmid))
    }

    /// The task that this call may have started and that nobody knows of yet.
    async fn lost_task(&self, began: i64) -> Result<Option<Upid>, ApiError> {
        let known = self.run.state().journal.record().upids.clone();
        let tasks = self.tasks(began).await?;
        Ok(tasks.into_iter().rfind(|upid| !known.contains(&upid.to_string())))
    }

    /// Tasks of ours of the kind that this call starts, from about `began` on.
    async fn tasks(&self, began: i64) -> Result<Vec<Upid>, ApiError> {
        let Self { run, operation, request, .. } = *self;
        let kinds = task_kinds(request, operation.kind == GuestType::Lxc);
        if kinds.is_empty() {
            return Ok(Vec::new());
        }
        let since = Some(began - CLOCK_SKEW);
        // The task of a copy is its source's.
        let made = made(request);
        let (node, vmid) = match &made {
            Some(Made { node, source: Some(source), .. }) => (node, *source),
            _ => (&operation.node, operation.vmid),
        };
        let filter = TaskFilter { vmid: Some(vmid), since, ..TaskFilter::default() };
        let rows = run.client.find_tasks(node, &filter).await?;
        let account = run.client.account();
        let ours = |upid: &Upid| kinds.contains(&upid.worker_type) && upid.account() == account;
        Ok(rows.into_iter().map(|row| row.upid).filter(ours).collect())
    }

    async fn look(&self) -> Result<Option<Look>, ApiError> {
        let Operation { kind, node, vmid, .. } = self.operation;
        look(self.run.client, *kind, node, *vmid).await
    }

    /// The guest where it is after the call.
    async fn look_again(&self) -> Result<Option<Look>, ApiError> {
        match (self.look().await?, target(self.request)) {
            // It goes one way: what is not here any more is there.
            (None, Some(target)) => {
                look(self.run.client, self.operation.kind, target, self.operation.vmid).await
            }
            (seen, _) => Ok(seen),
        }
    }

    /// What the guest shows of the call.
    async fn shown(&self, before: &Found) -> Result<(After, Option<Look>), Unseen> {
        let makes = made(self.request).is_some();
        if destroys(self.request) {
            return self.destroyed().await.map_err(Unseen::for_good);
        }
        let to = target(self.request);
        match self.look_again().await {
            Ok(Some(seen)) if makes && self.is_foreign(&seen) => {
                Ok((After::Not(vec!["marker".to_owned()]), Some(seen)))
            }
            Ok(Some(seen)) => {
                let bound = self.found_before().or_else(|| self.operation.fingerprint.clone());
                let (cluster, uid) = (&self.run.desired.cluster, &self.operation.uid);
                // The name of a container's root volume may be another one's by now.
                let signs = self.operation.kind == GuestType::Qemu || self.operation.action == Action::Mark;
                let same = if renames(self.operation, self.request) {
                    seen.guest.is_marked(cluster, uid)
                } else {
                    bound.is_none()
                        || seen.guest.fingerprint() == bound && (signs || seen.guest.is_signed(cluster, uid))
                };
                if !makes && !same {
                    return Err(Unseen::for_good("identity conflict: another guest has this number now"));
                }
                let after = match to {
                    Some(target) => migrated(target, before, &seen),
                    None => after(self.operation, self.request, &seen, self.run.style),
                };
                Ok((after, Some(seen)))
            }
            Ok(None) if makes => Ok((After::Not(vec!["guest".to_owned()]), None)),
            // The nodes learn one after the other where it is.
            Ok(None) if to.is_some() => Ok((After::Not(vec!["node".to_owned()]), None)),
            Ok(None) => Err(Unseen::for_good("it is not there any more")),
            Err(error) => {
                let passes = error.is_unreachable() || error.is_node_unreachable() || error.outcome_unknown();
                Err(Unseen { why: error.to_string(), passes })
            }
        }
    }

    /// The fingerprint that the guest had after our last call.
    fn found_before(&self) -> Option<String> {
        self.run.state().last.get(&self.operation.vmid).and_then(|found| found.fingerprint.clone())
    }

    /// Is it another guest than the one that this call makes?
    fn is_foreign(&self, seen: &Look) -> bool {
        let signed = seen.guest.is_signed(&self.run.desired.cluster, &self.operation.uid);
        is_foreign(self.operation, signed, seen)
    }

    /// A guest was not made, or not as it was meant.
    async fn not_made(
        &self,
        mut reason: String,
        refused: bool,
        seen: Option<&Look>,
    ) -> Result<End, LinesError> {
        let Self { run, operation, .. } = *self;
        if let Some(seen) = seen.filter(|seen| !self.is_foreign(seen)) {
            let state = seen.lock().map_or_else(String::new, |lock| format!(", locked ({lock})"));
            reason.push_str(&format!(
                "; it is there, half made{state}, and its number is kept for it: look at it, and plan again to finish it"
            ));
            return self.end(Outcome::Failed { reason, refused });
        }
        run.unreserve(operation).await;
        // PVE's own words name the node where the guest is.
        let exists = FailureClass::of_text(&reason) == FailureClass::AlreadyExists;
        if exists || seen.is_some() {
            reason
                .push_str("; that guest is left alone: plan again for another number, or desire a free one");
            return self.end(Outcome::Stale { reason });
        }
        self.end(Outcome::Failed { reason, refused })
    }

    /// What there is of a guest that was deleted.
    async fn destroyed(&self) -> Result<(After, Option<Look>), String> {
        let not = |field: &str| After::Not(vec![field.to_owned()]);
        match remains(self.run.client, self.run, self.operation).await.map_err(|error| error.to_string())? {
            Remains::Itself(seen) => Ok((not("guest"), Some(*seen))),
            Remains::Somewhere(field) => Ok((not(field), None)),
            Remains::Another => {
                tracing::warn!(
                    "{} (guest {}): somebody else's guest has the number now, and is left alone",
                    self.operation.uid,
                    self.operation.vmid
                );
                Ok((After::Holds { waiting: Vec::new(), blind: false }, None))
            }
            Remains::Nothing => Ok((After::Holds { waiting: Vec::new(), blind: false }, None)),
        }
    }

    /// Takes back what a failed call has left waiting, and tells what of it stays.
    async fn taken_back(&self, before: &Found, seen: &Look) -> Result<String, LinesError> {
        let Self { run, at, operation, request } = *self;
        if operation.kind != GuestType::Qemu || !request.path.ends_with("/config") {
            return Ok(String::new());
        }
        let keys = to_revert(operation, request, &before.waiting, seen, run.style);
        if keys.is_empty() {
            return Ok(String::new());
        }
        let told = format!("; {} now waits for its restart", keys.join(", "));
        if run.fence.may_send().await.is_err() {
            return Ok(told);
        }
        run.note(Event::Revert { call: at, keys: keys.clone() })?;
        let digest = seen.found().digest.unwrap_or_default();
        let joined = keys.join(",");
        let form = [("revert", joined.as_str()), ("digest", digest.as_str())];
        let reverted = run.client.put_qemu_config(&operation.node, operation.vmid, &form).await;
        // Whatever was said: the guest tells.
        match self.look().await {
            Ok(Some(now)) if keys.iter().all(|key| !now.pending.contains_key(key)) => {
                Ok(format!("; {joined}, which had been left waiting, was taken back"))
            }
            _ => {
                if let Err(error) = reverted {
                    tracing::warn!("{}: {error}", operation.uid);
                }
                Ok(told)
            }
        }
    }

    fn verified(
        &self,
        before: &Found,
        waiting: Vec<String>,
        seen: Option<&Look>,
    ) -> Result<Known, LinesError> {
        let mut found = seen.map(Look::found).unwrap_or_default();
        // A rollback brings back all options; a template's volumes, and those that are copied, may have other names.
        let path = &self.request.path;
        let others = path.contains("/status/")
            || ["/rollback", "/template"].iter().any(|end| path.ends_with(end))
            || target(self.request).is_some();
        if let Some(seen) = seen.filter(|_| !others)
            && before.rest.as_ref().is_some_and(|rest| *rest != seen.rest(self.request))
        {
            tracing::warn!(
                "{} (guest {}): somebody else has changed it at the same time",
                self.operation.uid,
                self.operation.vmid
            );
            // No digest is like this one: what comes next of this guest needs another plan.
            found.digest = Some(FOREIGN.to_owned());
        }
        self.run.note(Event::Verified { call: self.at, waiting: waiting.clone(), after: found.clone() })?;
        let mut state = self.run.state();
        state.touched.insert(self.at.op);
        state.last.insert(self.operation.vmid, found);
        drop(state);
        Ok(Known::Ended(End::Verified { waiting }))
    }

    fn unknown(&self, reason: String) -> Result<Known, LinesError> {
        self.run.note(Event::Unknown { call: self.at, reason: reason.clone() })?;
        self.run.state().touched.insert(self.at.op);
        Ok(Known::Ended(End::Other(Outcome::Unknown { reason })))
    }

    fn end(&self, outcome: Outcome) -> Result<End, LinesError> {
        let reason = outcome.reason().unwrap_or_default().to_owned();
        self.run.note(Event::Failed { call: self.at, reason })?;
        self.run.state().touched.insert(self.at.op);
        Ok(End::Other(outcome))
    }

    /// What is sent and must not be told.
    fn hidden(&self, form: &BTreeMap<String, String>) -> Withheld {
        let secret = |key: &String| {
            !matches!(self.request.set.get(key), None | Some(FormValue::Plain(_) | FormValue::Onto(_)))
        };
        let values = form
            .iter()
            .filter(|(key, _)| secret(key))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        Withheld { values, unreadable: false }
    }

    /// The same of a call that a process before this one has sent.
    async fn withheld_again(&self) -> Withheld {
        let Self { run, operation, request, .. } = *self;
        if request.set.values().all(|value| matches!(value, FormValue::Plain(_) | FormValue::Onto(_))) {
            return Withheld::default();
        }
        let seen = self.look().await.ok().flatten();
        let form = run.desired.guests.get(&operation.uid).and_then(|guest| {
            request.form(None, guest, seen.as_ref().map(|seen| &seen.guest), run.secrets).ok()
        });
        match form {
            Some(form) => self.hidden(&form),
            None => Withheld { values: BTreeMap::new(), unreadable: true },
        }
    }

    /// A text about this guest.
    fn told(&self, text: &str) -> String {
        format!("{} (guest {}): {text}", self.operation.uid, self.operation.vmid)
    }
}

/// Digest and pending changes are the same.
fn same(one: &Found, other: &Found) -> bool {
    one.digest == other.digest && one.pending == other.pending
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_must_not_be_told_is_taken_out_of_what_pve_says() {
        let values = BTreeMap::from([("cipassword".to_owned(), "hunter2".to_owned())]);
        let known = Withheld { values, unreadable: false };
        assert_eq!(known.redacted("bad value 'hunter2'"), "bad value '(cipassword)'");
        let unknown = Withheld { values: BTreeMap::new(), unreadable: true };
        assert!(!unknown.redacted("bad value 'hunter2'").contains("hunter2"));
    }
}
