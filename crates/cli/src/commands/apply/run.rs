//! One run: lease, journal and audit log around the work.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use jiff::Timestamp;
use pve_client::PveClient;
use pvegraph_graph::apply_lease::{self, AuditHead};
use pvegraph_graph::lease::{Lease, LeaseError, Purpose};
use pvegraph_graph::{Rows, Store};
use pvegraph_inventory::ClusterId;
use pvegraph_reconcile::apply::{Ended, Fence, Files, Good, Keys, Outcome, Patience, Run, Setup, Stop, Who};
use pvegraph_reconcile::audit::{self, Audit, Head};
use pvegraph_reconcile::canonical::{Canonical, is_disk};
use pvegraph_reconcile::desired::Desired;
use pvegraph_reconcile::document::SecretRef;
use pvegraph_reconcile::journal::{Event, Journal};
use pvegraph_reconcile::live::Live;
use pvegraph_reconcile::plan::{Operation, Plan};
use pvegraph_reconcile::scope::{self, Scope};
use pvegraph_reconcile::sent::Sent;
use pvegraph_reconcile::stored::{self, EndOf};
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

use super::Show;
use super::events::Telling;
use super::noted::{Noted, RUN_BEGINS_WITH};
use super::preflight;
use crate::commands::{Global, secrets};
use crate::config::Settings;
use crate::connect::HostLock;
use crate::exit::{Exit, Failure};
use crate::render::Report;

/// All that a run needs, checked.
pub struct Ready<'a> {
    pub settings: &'a Settings,
    pub store: &'a dyn Store,
    pub client: PveClient,
    pub id: ClusterId,
    pub files: Files,
    pub lock: HostLock,
    pub plan: Plan,
    pub desired: Desired,
    /// The plan's guests.
    pub live: Live,
}

/// Where a run starts.
pub enum Start {
    /// At the plan's beginning.
    Anew {
        /// The plan's file.
        text: String,
        /// Who approved it.
        approver: String,
        /// Until when it may be gone by, in epoch seconds.
        until: i64,
    },
    /// Where its journal ends.
    Again {
        /// The same, or why nothing more of the plan may be begun.
        until: Result<i64, String>,
    },
}

fn now() -> i64 {
    Timestamp::now().as_second()
}

impl Ready<'_> {
    /// Carries the plan out.
    pub async fn go(self, start: Start, show: &Show, global: &Global) -> Result<Exit, Failure> {
        let Self { settings, store, client, id, files, lock, plan, desired, live: seen } = self;
        let resumed = matches!(start, Start::Again { .. });
        let audit = open_audit(settings, store, &id, &files).await?;
        let sent = Sent::open(&files.secrets())?;
        let good = Good::since(now());
        let lease = Lease::take_for(store, Purpose::Apply(id.as_str()), &lock.holder(), now()).await;
        let lease = lease.map_err(of_lease)?;
        let request =
            settings.clusters.iter().map(|cluster| cluster.request_timeout).max().unwrap_or_default();
        let fence = Fence::new(store, lease, &now, good, request).with_log_at(kept_at(&files));
        if let Start::Anew { .. } = &start
            && let Some(refusal) = preflight::used(store, &id, &files, &plan).await?
        {
            fence.release().await;
            return Err(refusal.into());
        }
        let (journal, approver, valid_until) = match start {
            Start::Anew { text, approver, until } => {
                let run =
                    format!("{}-{:08x}", Timestamp::now().strftime(RUN_BEGINS_WITH), rand::random::<u32>());
                files.keep_plan(&text)?;
                let mut journal = Journal::open(&files.journal())?;
                journal.add(now(), super::begin(&run, &plan, &id, &approver))?;
                (journal, approver, until)
            }
            Start::Again { until } => {
                let mut journal = Journal::open(&files.journal())?;
                journal.add(now(), Event::Resumed)?;
                // Nobody else can begin from here on.
                apply_lease::set_paused(store, id.as_str(), false).await?;
                let until = until.unwrap_or_else(|why| {
                    fence.stop(Stop::Expired(why));
                    plan.expires_at
                });
                let approver = journal.record().approver.clone();
                (journal, approver, until)
            }
        };
        let run_id = journal.record().run.clone();
        let told = audit::results(&files.audit(), &run_id)?;
        let telling = Telling::new(show.events, plan.operations.len());
        telling.line(&json!({
            "event": "run_begins", "run": run_id, "plan": plan.sha256(), "cluster_id": id.as_str(),
            "operations": plan.operations.len(), "resumed": resumed,
        }));
        let actor = actor(&client);
        let noted = Noted::of(store, &id, &run_id, &plan, &desired, (&actor, &approver), resumed);
        noted.begins().await;
        let kept = |from: &SecretRef| secrets::read(from);
        let auto = approver == preflight::NOBODY;
        let keys = Asked { store, id: &id, plan: &plan, live: &seen, auto, scopes: Default::default() };
        let setup = Setup {
            client: &client,
            plan: &plan,
            desired: &desired,
            style: seen.style,
            storages: storages(&seen),
            fence: &fence,
            progress: &telling,
            keys: &keys,
            secrets: &kept,
            clock: &now,
            patience: Patience::default(),
            who: Who { actor: actor.clone(), approver: approver.clone() },
            valid_until,
            told,
        };
        let run = Run::new(setup, journal, audit, sent);
        run.audited(
            json!({ "what": if resumed { "resume" } else { "begin" }, "operations": plan.operations.len() }),
        )?;
        let went = tokio::select! {
            went = run.go() => went,
            never = fence.keep() => match never {},
            never = interrupts(&fence) => match never {},
        };
        telling.done();
        let (outcomes, stop) = went?;
        let bindings = run.to_bind(&outcomes);
        let bound = match fence.bound(&id, &bindings).await {
            Ok(()) => fence.destroyed(&id, &run.to_forget(&outcomes)).await,
            error => error,
        };
        if let Err(why) = &bound {
            tracing::error!(
                "{id}: what was made or deleted could not be noted at its bindings in the graph: {why}"
            );
        }
        let ended = match Ended::of(&outcomes, stop.as_ref()) {
            Ended::Applied | Ended::PendingRestart if bound.is_err() => Ended::Partial,
            ended => ended,
        };
        run.audited(
            json!({ "what": "end", "exit": ended.code(), "stopped": stop.as_ref().map(ToString::to_string) }),
        )?;
        // Its journal alone knows then what was made.
        let open = is_open(&outcomes, stop.as_ref(), resumed) || bound.is_err();
        if !open {
            run.note(Event::End { exit: ended.code() })?;
        }
        drop(run);
        let done: BTreeSet<&str> = plan
            .operations
            .iter()
            .zip(&outcomes)
            .filter(|(_, outcome)| matches!(outcome, Outcome::Done { .. }))
            .map(|(operation, _)| operation.uid.as_str())
            .collect();
        fence.applied(&id, &done).await;
        let stopped = stop.as_ref().map(ToString::to_string);
        noted.ends(&EndOf { outcomes: &outcomes, ended, open, stopped: stopped.as_deref() }).await;
        fence.release().await;
        if !open {
            files.close_run(&run_id)?;
        }
        if let Some(stop) = &stop {
            tracing::error!("{id}: {stop}");
        }
        if open {
            tracing::warn!("{id}: run `pvegraph resume` to go on with it");
        }
        telling.line(&json!({ "event": "run_ends", "run": run_id, "exit": ended.code(), "open": open }));
        if !show.events {
            global.print(&report(&plan, &outcomes, &run_id, ended))?;
        }
        Ok(exit(ended))
    }
}

/// For how long scopes count as they were read.
const SCOPES_HOLD: Duration = Duration::from_secs(3);
/// How long they are waited for: Neo4j may run on a guest that the run touches.
const SCOPES_WAIT: Duration = Duration::from_secs(5);

/// Asks the graph once more just before a deletion.
struct Asked<'a> {
    store: &'a dyn Store,
    id: &'a ClusterId,
    plan: &'a Plan,
    live: &'a Live,
    /// Nobody approved the plan.
    auto: bool,
    /// The scopes as they were read last, and when.
    scopes: tokio::sync::Mutex<Option<(Instant, Vec<Scope>)>>,
}

impl Keys for Asked<'_> {
    fn paused(&self, vmid: i64) -> BoxFuture<'_, Option<String>> {
        Box::pin(async move {
            let mut known = self.scopes.lock().await;
            if known.as_ref().is_none_or(|(read, _)| read.elapsed() >= SCOPES_HOLD) {
                match tokio::time::timeout(SCOPES_WAIT, stored::scopes(self.store, self.id)).await {
                    Ok(Ok(scopes)) => *known = Some((Instant::now(), scopes)),
                    Ok(Err(error)) => {
                        tracing::warn!(%error, "scopes can't be read: whether one was paused is not known")
                    }
                    Err(_) => tracing::warn!("scopes can't be read: the graph does not answer"),
                }
            }
            let why = scope::paused(&known.as_ref()?.1, vmid)?;
            Some(format!("guest {vmid}: {why}; what was begun is not gone on with"))
        })
    }

    fn may_delete<'k>(&'k self, _: &'k Operation) -> BoxFuture<'k, Result<(), String>> {
        Box::pin(async move {
            let Self { store, id, plan, live, auto, .. } = *self;
            let (_, refusal) = preflight::current(store, id, plan, live)
                .await
                .map_err(|failure| failure.error().to_string())?;
            if let Some(refusal) = refusal {
                return Err(refusal.why);
            }
            let approved = preflight::approver(store, id, plan, auto, now()).await;
            approved.map_err(|failure| failure.error().to_string())?.map(drop).map_err(|refusal| refusal.why)
        })
    }
}

/// Lets applies go on where no run of this host waits: while nobody holds the lease.
pub async fn unpaused(store: &dyn Store, id: &ClusterId, lock: &HostLock) -> Result<(), Failure> {
    let lease = Lease::take_for(store, Purpose::Apply(id.as_str()), &lock.holder(), now()).await;
    let lease = lease.map_err(of_lease)?;
    apply_lease::set_paused(store, id.as_str(), false).await?;
    Ok(lease.release(store).await?)
}

/// The storages of guests' disks, by number and key; media in a drive are none.
pub fn storages(seen: &Live) -> BTreeMap<i64, BTreeMap<String, String>> {
    let mut all: BTreeMap<i64, BTreeMap<String, String>> = BTreeMap::new();
    for (vmid, guest) in &seen.guests {
        for key in guest.config.keys().filter(|key| is_disk(guest.kind, key)) {
            if let Some(Canonical::Map(parts)) = guest.option(key, seen.style)
                && parts.get("media").is_none_or(|media| media.to_string() != "cdrom")
                && let Some(storage) = parts.get("storage")
            {
                all.entry(*vmid).or_default().insert(key.clone(), storage.to_string());
            }
        }
    }
    all
}

/// Does the run wait for a `resume`? Something was left, or nobody knows. A second look settles: what is unknown then stays so, and the
/// next plan sees what there is.
fn is_open(outcomes: &[Outcome], stop: Option<&Stop>, resumed: bool) -> bool {
    let unknown = outcomes.iter().any(|outcome| matches!(outcome, Outcome::Unknown { .. }));
    let stopped =
        matches!(stop, Some(Stop::Paused | Stop::ScopePaused(_) | Stop::Interrupted | Stop::LeaseLost(_)));
    stopped || unknown && !resumed
}

/// The exit code.
fn exit(ended: Ended) -> Exit {
    match ended {
        Ended::Applied => Exit::Success,
        Ended::Failed => Exit::Failed,
        Ended::Partial => Exit::Partial,
        Ended::Stale => Exit::Stale,
        Ended::PendingRestart => Exit::PendingRestart,
        Ended::LeaseLost => Exit::Locked,
        Ended::Refused => Exit::Auth,
    }
}

/// Why the lease could not be taken.
pub fn of_lease(error: LeaseError) -> Failure {
    match error {
        LeaseError::Store(error) => error.into(),
        error @ LeaseError::Held { .. } => Failure::new(Exit::Locked, error),
    }
}

/// The audit log, if it is a continuation of what the graph knows of it.
async fn open_audit(
    settings: &Settings,
    store: &dyn Store,
    id: &ClusterId,
    files: &Files,
) -> Result<Audit, Failure> {
    let key = settings.audit_key()?;
    check_audit(store, id, files, key.as_ref()).await?;
    Ok(Audit::open(&files.audit(), key)?)
}

/// Goes through the log's chain and compares its head with the graph's. Answers the log's head, and the graph's.
pub async fn check_audit(
    store: &dyn Store,
    id: &ClusterId,
    files: &Files,
    key: Option<&SecretString>,
) -> Result<(audit::Verified, Option<Head>), Failure> {
    let path = files.audit();
    let found = audit::verify(&path, key)?.unwrap_or_default();
    let mirrored = apply_lease::audit_head(store, id.as_str()).await?;
    let Some(AuditHead { entries, hash, kept_at: there }) = mirrored else { return Ok((found, None)) };
    let head = Head { entries: u64::try_from(entries).unwrap_or_default(), hash };
    let same = found.agrees(&path, &head);
    same.map_err(|error| Failure::failed(error.seen_from(&kept_at(files), there.as_deref())))?;
    Ok((found, Some(head)))
}

/// Where the audit log is kept, as other hosts read it.
fn kept_at(files: &Files) -> String {
    let log = files.audit();
    let path = std::path::absolute(&log).unwrap_or(log);
    format!("{}:{}", host(), path.parent().unwrap_or(&path).display())
}

fn host() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_else(|_| "a host".to_owned());
    host.trim().to_owned()
}

/// Lets a run stop in good order: on Ctrl-C, and on SIGTERM, with which services and containers are stopped.
async fn interrupts(fence: &Fence<'_>) -> std::convert::Infallible {
    let mut terminated = signal(SignalKind::terminate()).ok();
    let mut interrupted = signal(SignalKind::interrupt()).ok();
    loop {
        let told = tokio::select! {
            Some(told) = async { Some(terminated.as_mut()?.recv().await) } => told,
            Some(told) = async { Some(interrupted.as_mut()?.recv().await) } => told,
            else => None,
        };
        if told.is_none() {
            std::future::pending::<()>().await;
        }
        tracing::warn!("nothing more is sent; what is under way is followed to its end");
        fence.stop(Stop::Interrupted);
    }
}

/// Who applies.
fn actor(client: &PveClient) -> String {
    let uid = || format!("uid {}", rustix::process::getuid().as_raw());
    let user = crate::commands::user().unwrap_or_else(uid);
    format!("{user} on {} as {}", host(), client.account())
}

/// What is told of a plan of nothing.
pub fn nothing(plan: &Plan) -> Report {
    report(plan, &[], "", Ended::Applied)
}

fn report(plan: &Plan, outcomes: &[Outcome], run: &str, ended: Ended) -> Report {
    let columns =
        ["number", "uid", "vmid", "action", "result", "waiting", "reason"].map(str::to_owned).to_vec();
    let rows = plan
        .operations
        .iter()
        .zip(outcomes)
        .map(|(operation, outcome)| {
            let waiting: Vec<Value> = match outcome {
                Outcome::Done { waiting } => waiting.iter().map(|key| json!(key)).collect(),
                _ => Vec::new(),
            };
            vec![
                json!(operation.number),
                json!(operation.uid),
                json!(operation.vmid),
                json!(operation.action.as_str()),
                json!(outcome.word()),
                json!(waiting),
                json!(outcome.reason()),
            ]
        })
        .collect();
    Report::new(Rows { columns, rows })
        .with_extra("cluster_id", plan.cluster.as_str())
        .with_extra("plan", plan.sha256())
        .with_extra("run", Some(run).filter(|run| !run.is_empty()))
        .with_extra("exit", ended.code())
}
