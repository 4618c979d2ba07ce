//! One call: looked at, written down, sent. What became of it is in `settle`.

use std::collections::BTreeMap;

use pve_client::{ApiError, TaskFilter, Upid};
use pvegraph_inventory::GuestType;

use super::conditions::{before, needless};
use super::fence::Stop;
use super::kinds::task_kinds;
use super::look::{Look, look};
use super::make::{Made, NotNow, free, made};
use super::outcome::Outcome;
use super::settle::Said;
use super::{Happened, Run};
use crate::desired::Guest;
use crate::journal::{Call, Event, Found, Reached};
use crate::lines::LinesError;
use crate::live::LiveError;
use crate::plan::{Method, Operation, Request};
use crate::sent;

/// By how many seconds a node's clock may be behind this host's.
const CLOCK_SKEW: i64 = 300;

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
pub(super) enum Known {
    /// It may be sent.
    MayBeSent,
    /// It has ended.
    Ended(End),
}

fn failed(reason: String) -> End {
    End::Other(Outcome::Failed { reason, refused: false })
}

/// One call on its way.
pub(super) struct Sending<'r, 'a> {
    pub(super) run: &'r Run<'a>,
    pub(super) at: Call,
    pub(super) operation: &'r Operation,
    pub(super) request: &'r Request,
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
                Known::MayBeSent if attempt > self.setup.patience.retries => {
                    let reason = format!(
                        "{} (guest {}): Proxmox VE was busy {attempt} times: apply again later",
                        operation.uid, operation.vmid
                    );
                    return sending.end(Outcome::Failed { reason, refused: false });
                }
                Known::MayBeSent => {
                    if attempt > 0 {
                        tokio::time::sleep(self.setup.patience.backoff * 2_u32.saturating_pow(attempt - 1))
                            .await;
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
        let Some(guest) = run.setup.desired.guests.get(&operation.uid) else {
            let reason = format!("{}: nobody desires it any more: plan again", operation.uid);
            return Ok(Known::Ended(self.end(Outcome::Stale { reason })?));
        };
        let (found, form) = match self.looked(guest).await {
            Ok(looked) => looked,
            Err(outcome) => return Ok(Known::Ended(self.end(outcome)?)),
        };
        if needless(operation, request, &found) {
            return self.not_needed(found);
        }
        // If the answer gets lost, the task that is there then and not now is this call's.
        let others = match self.tasks((run.setup.clock)()).await {
            Ok(others) => others.iter().map(ToString::to_string).collect(),
            Err(error) => return Ok(Known::Ended(self.end(self.failed_by(&error))?)),
        };
        if let Err(stop) = run.may_send(operation.vmid).await {
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
        if made(request).is_none()
            && !form.contains_key("digest")
            && let Err(outcome) = self.looked_last(&found).await
        {
            return Ok(Known::Ended(self.end(outcome)?));
        }
        if let Some(secret) = sent::of(request, &form) {
            run.state().sent.sending(&run.setup.desired.cluster, &operation.uid, secret)?;
        }
        let began = (run.setup.clock)();
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
            Method::Put => run.setup.client.put_task(&path, &pairs).await,
            Method::Post => run.setup.client.post_task(&path, &pairs).await,
            Method::Delete => run.setup.client.delete_task(&path, &pairs).await,
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

    /// There is no reason for the call any more: it counts as done.
    fn not_needed(&self, found: Found) -> Result<Known, LinesError> {
        let Self { run, at, operation, .. } = *self;
        tracing::info!("{}", self.told("nothing waits for its restart any more, and it is not restarted"));
        let after = Found { rest: None, ..found };
        run.note(Event::Needless { call: at, after: after.clone() })?;
        let mut state = run.state();
        state.touched.insert(at.op);
        state.last.insert(operation.vmid, after);
        drop(state);
        Ok(Known::Ended(End::Verified { waiting: Vec::new() }))
    }

    fn failed_by(&self, error: &ApiError) -> Outcome {
        let refused = error.is_forbidden() || error.is_unauthorized();
        Outcome::Failed { reason: self.told(&error.to_string()), refused }
    }

    /// Looks whether the call may be sent, and with what.
    async fn looked(&self, guest: &Guest) -> Result<(Found, BTreeMap<String, String>), Outcome> {
        let Self { run, operation, request, .. } = *self;
        if let Some(made) = made(request) {
            return self.looked_around(guest, &made).await;
        }
        let seen = self.look().await.map_err(|error| self.failed_by(&error))?;
        self.as_planned(seen.as_ref())?;
        let Some(seen) = seen else {
            return Err(Outcome::Stale { reason: format!("{} is gone", operation.uid) });
        };
        run.still(operation, request, &seen)
            .await
            .map_err(|error| self.failed_by(&error))?
            .map_err(|reason| Outcome::Stale { reason })?;
        let found = Found { rest: Some(seen.rest(request)), ..seen.found() };
        let form = request
            .form(found.digest.as_deref(), guest, Some(&seen.guest), run.setup.secrets)
            .map_err(|error| Outcome::Stale { reason: self.told(&error.to_string()) })?;
        Ok((found, form))
    }

    /// Is the guest the planned one, and as the plan or our last call knows it?
    fn as_planned(&self, seen: Option<&Look>) -> Result<(), Outcome> {
        let Self { run, at, operation, .. } = *self;
        let planned = Found {
            digest: operation.digest.clone(),
            pending: operation.pending_sha256.clone(),
            ..Found::default()
        };
        let last = run.state().last.get(&operation.vmid).cloned();
        let first = last.is_none();
        let expected = last.unwrap_or(planned);
        before(&run.setup.desired.cluster, operation, at.call, seen, &expected, first)
            .map_err(|reason| Outcome::Stale { reason })
    }

    /// Looks once more just before a call that does not say what it is for: with a digest PVE itself refuses it at another guest, or a
    /// changed one. What is asked between the first look and the call (for a deletion every guest's volumes) may take minutes.
    async fn looked_last(&self, found: &Found) -> Result<(), Outcome> {
        let seen = self.look().await.map_err(|error| self.failed_by(&error))?;
        self.as_planned(seen.as_ref())?;
        match seen {
            Some(seen) if seen.found().digest == found.digest && seen.found().status == found.status => {
                Ok(())
            }
            _ => Err(Outcome::Stale { reason: self.told("it was changed just now: plan again") }),
        }
    }

    /// The same of a guest that is made: its number has to be free.
    async fn looked_around(
        &self,
        guest: &Guest,
        made: &Made,
    ) -> Result<(Found, BTreeMap<String, String>), Outcome> {
        let Self { run, operation, request, .. } = *self;
        free(run.setup.client, operation).await.map_err(|why| match why {
            NotNow::Stale(reason) => Outcome::Stale { reason },
            NotNow::Live(LiveError::Api(error)) => self.failed_by(&error),
            NotNow::Live(error) => Outcome::Failed { reason: self.told(&error.to_string()), refused: false },
        })?;
        let source = self.source(made).await?;
        let form = request
            .form(None, guest, source.as_ref().map(|source| &source.guest), run.setup.secrets)
            .map_err(|error| Outcome::Stale { reason: self.told(&error.to_string()) })?;
        Ok((Found::default(), form))
    }

    /// The guest that is copied, as it was when the plan was made.
    async fn source(&self, made: &Made) -> Result<Option<Look>, Outcome> {
        let Some(vmid) = made.source else { return Ok(None) };
        let stale = |text: String| Outcome::Stale { reason: self.told(&format!("`clone.from`: {text}")) };
        let seen = look(self.run.setup.client, made.kind, &made.node, vmid).await;
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
    pub(super) fn dispatched(&self, upid: Option<&Upid>) -> Result<(), LinesError> {
        let upid = upid.map(ToString::to_string);
        self.run.note(Event::Dispatched { call: self.at, upid: upid.clone() })?;
        let mut state = self.run.state();
        state.touched.insert(self.at.op);
        state.upids.entry(self.at.op).or_default().extend(upid.clone());
        drop(state);
        self.run.setup.progress.tell(&Happened::Sent {
            operation: self.operation.number,
            request: format!("{} {}", self.request.method, self.request.path),
            upid: upid.as_deref(),
        });
        Ok(())
    }

    pub(super) fn task_kinds(&self) -> Vec<String> {
        task_kinds(self.request, self.operation.kind == GuestType::Lxc)
    }

    /// Tasks of ours of the kind that this call starts, from about `began` on.
    pub(super) async fn tasks(&self, began: i64) -> Result<Vec<Upid>, ApiError> {
        let Self { run, operation, request, .. } = *self;
        let kinds = self.task_kinds();
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
        let rows = run.setup.client.find_tasks(node, &filter).await?;
        let account = run.setup.client.account();
        let ours = |upid: &Upid| kinds.contains(&upid.worker_type) && upid.account() == account;
        Ok(rows.into_iter().map(|row| row.upid).filter(ours).collect())
    }

    pub(super) async fn look(&self) -> Result<Option<Look>, ApiError> {
        let Operation { kind, node, vmid, .. } = self.operation;
        look(self.run.setup.client, *kind, node, *vmid).await
    }

    pub(super) fn unknown(&self, reason: String) -> Result<Known, LinesError> {
        self.run.note(Event::Unknown { call: self.at, reason: reason.clone() })?;
        self.run.state().touched.insert(self.at.op);
        Ok(Known::Ended(End::Other(Outcome::Unknown { reason })))
    }

    pub(super) fn end(&self, outcome: Outcome) -> Result<End, LinesError> {
        let reason = outcome.reason().unwrap_or_default().to_owned();
        self.run.note(Event::Failed { call: self.at, reason })?;
        self.run.state().touched.insert(self.at.op);
        Ok(End::Other(outcome))
    }

    /// A text about this guest.
    pub(super) fn told(&self, text: &str) -> String {
        format!("{} (guest {}): {text}", self.operation.uid, self.operation.vmid)
    }
}
