//! What became of a call: its task is followed, the guest is looked at, and a call whose answer got lost is looked for.

use pve_client::{ApiError, FailureClass, TaskEnd, Upid};
use pvegraph_inventory::GuestType;

use super::Happened;
use super::call::{End, Known, Sending};
use super::conditions::{After, after, migrated, to_revert};
use super::destroy::{Remains, destroys, remains};
use super::kinds::{goes_back, looks, moves, power, renames};
use super::look::{Look, look};
use super::make::{is_foreign, made, taken};
use super::outcome::Outcome;
use super::withheld::Withheld;
use crate::journal::{Event, Found};
use crate::lines::LinesError;
use crate::plan::Action;
use crate::sent;

/// Stands for a digest that is not only of our own writing.
const FOREIGN: &str = "changed by somebody else";

/// What PVE said to a call.
pub(super) enum Said {
    /// It is done.
    Done,
    /// Its task has ended.
    Task(TaskEnd),
    /// A task has ended that may be this call's or another one's: nothing in it names the guest that is made.
    Found(TaskEnd),
    /// It was refused.
    Refused(ApiError),
}

impl Said {
    fn is_good(&self) -> bool {
        match self {
            Self::Done => true,
            Self::Task(end) | Self::Found(end) => end.success,
            Self::Refused(_) => false,
        }
    }

    /// PVE was too busy, and has changed nothing.
    fn is_busy(&self) -> bool {
        match self {
            Self::Done | Self::Found(_) => false,
            Self::Task(end) => !end.success && FailureClass::of_text(&end.exit).is_busy(),
            Self::Refused(error) => error.is_busy(),
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Done => "the call was taken".to_owned(),
            Self::Task(end) if end.success => format!("the task ended with {}", end.exit),
            Self::Found(end) => format!("a task that may be this call's ended with {}", end.exit),
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

impl Sending<'_, '_> {
    /// Follows a task to its end.
    pub(super) async fn followed(
        &self,
        before: &Found,
        upid: &Upid,
        hidden: &Withheld,
    ) -> Result<Known, LinesError> {
        match self.telling(upid).await {
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

    /// Follows a task, and tells every now and then that it goes on.
    async fn telling(&self, upid: &Upid) -> Result<TaskEnd, ApiError> {
        let setup = &self.run.setup;
        let began = tokio::time::Instant::now();
        let mut end = std::pin::pin!(setup.client.follow(upid));
        loop {
            match tokio::time::timeout(setup.patience.told, &mut end).await {
                Ok(end) => return end,
                Err(_) => setup.progress.tell(&Happened::Follows {
                    operation: self.operation.number,
                    upid: &upid.to_string(),
                    seconds: began.elapsed().as_secs(),
                }),
            }
        }
    }

    /// Settles a call to which PVE has said something.
    pub(super) async fn conclude(
        &self,
        before: &Found,
        said: Said,
        hidden: &Withheld,
    ) -> Result<Known, LinesError> {
        let Self { run, at, operation, request } = *self;
        // A task of these may have done its part before it waited for a lock: the guest tells.
        let goes_far = made(request).is_some()
            || destroys(request)
            || request.target().is_some()
            || moves(request).is_some();
        let in_task = matches!(said, Said::Task(_));
        if said.is_busy() && !(in_task && (goes_far || self.has_changed(before).await)) {
            if !in_task && let Some(known) = self.done_all_the_same(before, &said, hidden).await? {
                return Ok(known);
            }
            let reason = hidden.redacted(&said.text());
            run.setup.progress.tell(&Happened::Busy { operation: operation.number, reason: &reason });
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
                            self.is_as_meant(&said, hidden);
                        }
                        return self.verified(before, waiting, seen.as_ref());
                    }
                    break (Vec::new(), seen);
                }
                Ok((After::Not(_), _))
                    if said.is_good() && !given_up && looked < looks(request, &run.setup.patience, ha) =>
                {
                    tokio::time::sleep(run.setup.patience.after(looked)).await;
                }
                Ok((After::Not(fields), seen)) => break (fields, seen),
                // A node may be silent for a moment while the guest comes to it.
                Err(Unseen { passes: true, .. })
                    if said.is_good() && looked < looks(request, &run.setup.patience, ha) =>
                {
                    tokio::time::sleep(run.setup.patience.after(looked)).await;
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
        // Where it was another call's task, this one may be under way yet, and its number is not free.
        if matches!(said, Said::Found(_)) && seen.as_ref().is_none_or(|seen| !self.is_foreign(seen)) {
            return self.unknown(format!("{reason}: its number is kept for it: look at the guest"));
        }
        if made(request).is_some() {
            return self.not_made(reason, refused, seen.as_ref()).await.map(Known::Ended);
        }
        if let Some(seen) = seen.as_ref().filter(|_| answered) {
            reason.push_str(&self.taken_back(before, seen).await?);
        }
        Ok(Known::Ended(self.end(Outcome::Failed { reason, refused })?))
    }

    /// May the task of a guarded call have written before it waited for a lock? A change to several volumes waits for each one's storage.
    async fn has_changed(&self, before: &Found) -> bool {
        if !self.request.with_digest {
            return false;
        }
        match self.look().await {
            Ok(Some(seen)) => !same(before, &seen.found()),
            Ok(None) | Err(_) => true,
        }
    }

    /// Did a call do its work that was refused because PVE was busy? A new digest, or another state, in which the guest is as it was meant.
    /// Whatever else is there by now is seen before the call is sent again. What is made is looked for by its number then.
    async fn done_all_the_same(
        &self,
        before: &Found,
        said: &Said,
        hidden: &Withheld,
    ) -> Result<Option<Known>, LinesError> {
        if made(self.request).is_some() {
            return Ok(None);
        }
        let Ok((After::Holds { waiting, blind: false }, seen)) = self.shown(before).await else {
            return Ok(None);
        };
        let changed = |now: Found| !same(before, &now) || before.status != now.status;
        if !seen.as_ref().is_none_or(|seen| changed(seen.found())) {
            return Ok(None);
        }
        self.is_as_meant(said, hidden);
        self.verified(before, waiting, seen.as_ref()).map(Some)
    }

    /// Tells that the guest is as it was meant, whatever PVE said.
    fn is_as_meant(&self, said: &Said, hidden: &Withheld) {
        let Self { operation, .. } = *self;
        let text = hidden.redacted(&said.text());
        tracing::warn!(
            "{} (guest {}): it is as it was meant, although {text}",
            operation.uid,
            operation.vmid
        );
    }

    /// After a call without an answer: what became of it? `resumed`: the process that sent it is gone.
    pub(super) async fn find_out(
        &self,
        began: i64,
        before: &Found,
        why: &str,
        resumed: bool,
        hidden: &Withheld,
    ) -> Result<Known, LinesError> {
        let Self { run, at, operation, request } = *self;
        let guarded = request.with_digest && before.digest.is_some();
        // Of a restart nothing shows either, where nothing waited for it.
        let only_its_task_tells = goes_back(request) || power(request) == Some("reboot");
        // What starts a task is found by it, however long that takes then.
        let starts = !self.task_kinds().is_empty();
        let enough = |ha: bool| match ha || !starts {
            true => looks(request, &run.setup.patience, ha),
            false => run.setup.patience.looks,
        };
        let (mut last, mut ha) = (String::new(), false);
        let mut looked = 0;
        loop {
            let enough = if resumed && guarded { 1 } else { enough(ha) };
            if looked >= enough {
                break;
            }
            if looked > 0 {
                tokio::time::sleep(run.setup.patience.after(looked)).await;
            }
            looked += 1;
            match self.lost_task(began).await {
                // A copy's task is its source's, and does not tell which copy it makes: it is only waited for.
                Ok(Some(upid)) if made(request).is_some_and(|made| made.source.is_some()) => {
                    return match self.telling(&upid).await {
                        Ok(end) => self.conclude(before, Said::Found(end), hidden).await,
                        Err(error) => {
                            let text = format!(
                                "a task that may be its own, {upid}, can't be followed: {error}: look at the guest"
                            );
                            self.unknown(self.told(&text))
                        }
                    };
                }
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
                        After::Holds { waiting, blind } if !(only_its_task_tells || blind && unchanged) => {
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

    /// The guest where it is after the call.
    async fn look_again(&self) -> Result<Option<Look>, ApiError> {
        match (self.look().await?, self.request.target()) {
            // It goes one way: what is not here any more is there.
            (None, Some(target)) => {
                look(self.run.setup.client, self.operation.kind, target, self.operation.vmid).await
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
        let to = self.request.target();
        match self.look_again().await {
            Ok(Some(seen)) if makes && self.is_foreign(&seen) => {
                Ok((After::Not(vec!["marker".to_owned()]), Some(seen)))
            }
            Ok(Some(seen)) => {
                let bound = self.found_before().or_else(|| self.operation.fingerprint.clone());
                let (cluster, uid) = (&self.run.setup.desired.cluster, &self.operation.uid);
                // The name of a container's root volume may be another one's by now.
                let has_uuid =
                    self.operation.kind == GuestType::Qemu || self.operation.action == Action::Mark;
                let same = if renames(self.operation, self.request) {
                    seen.guest.is_marked(cluster, uid)
                } else {
                    bound.is_none()
                        || seen.guest.fingerprint() == bound
                            && (has_uuid || seen.guest.is_signed(cluster, uid))
                };
                if !makes && !same {
                    return Err(Unseen::for_good("identity conflict: another guest has this number now"));
                }
                let after = match to {
                    Some(target) => migrated(target, before, &seen),
                    None => after(self.operation, self.request, &seen, self.run.setup.style),
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
        let signed = seen.guest.is_signed(&self.run.setup.desired.cluster, &self.operation.uid);
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
        match remains(self.run.setup.client, self.run, self.operation)
            .await
            .map_err(|error| error.to_string())?
        {
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
        let keys = to_revert(operation, request, &before.waiting, seen, run.setup.style);
        if keys.is_empty() {
            return Ok(String::new());
        }
        let told = format!("; {} now waits for its restart", keys.join(", "));
        if run.setup.fence.may_send().await.is_err() {
            return Ok(told);
        }
        run.note(Event::Revert { call: at, keys: keys.clone() })?;
        let digest = seen.found().digest.unwrap_or_default();
        let joined = keys.join(",");
        let form = [("revert", joined.as_str()), ("digest", digest.as_str())];
        let reverted = run.setup.client.put_qemu_config(&operation.node, operation.vmid, &form).await;
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
            || self.request.target().is_some();
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
        if let Some(seen) = seen.filter(|_| sent::sends(self.request)) {
            self.run.state().sent.taken(&self.operation.uid, &seen.guest)?;
        }
        if goes_back(self.request) || destroys(self.request) {
            self.run.state().sent.forget(&self.operation.uid)?;
        }
        self.run.note(Event::Verified { call: self.at, waiting: waiting.clone(), after: found.clone() })?;
        let mut state = self.run.state();
        state.touched.insert(self.at.op);
        state.last.insert(self.operation.vmid, found);
        drop(state);
        Ok(Known::Ended(End::Verified { waiting }))
    }
}

/// Digest and pending changes are the same.
fn same(one: &Found, other: &Found) -> bool {
    one.digest == other.digest && one.pending == other.pending
}
