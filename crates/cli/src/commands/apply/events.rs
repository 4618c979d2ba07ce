//! What happens in a run, as lines for people or as JSON lines.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use jiff::Timestamp;
use pvegraph_reconcile::apply::{Happened, Outcome, Progress};
use serde::Serialize;
use serde_json::{Value, json};

/// The version of the events' form.
const VERSION: u32 = 1;

/// Tells people on standard error and, if asked for, programs on standard output.
pub struct Telling {
    /// JSON lines are wanted.
    events: bool,
    /// On a terminal: what is under way, and how much is done.
    bar: Option<ProgressBar>,
    under_way: Mutex<BTreeMap<usize, String>>,
}

impl Telling {
    /// Of a run of so many operations. `events`: JSON lines are wanted.
    pub fn new(events: bool, operations: usize) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(operations as u64);
            if let Ok(style) =
                ProgressStyle::with_template("{bar:30} {pos}/{len} operations, {elapsed}  {wide_msg}")
            {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_secs(1));
            bar
        });
        Self { events, bar, under_way: Mutex::default() }
    }

    /// The run has ended: the table comes.
    pub fn done(&self) {
        self.bar.iter().for_each(ProgressBar::finish_and_clear);
    }

    /// What is under way, as the event changes it.
    fn show(&self, event: &Happened<'_>) {
        let Some(bar) = &self.bar else { return };
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Happened::Begins { operation, uid, action, .. } => {
                under_way.insert(*operation, format!("{action} {uid}"));
            }
            Happened::Ends { operation, .. } if under_way.remove(operation).is_some() => bar.inc(1),
            _ => {}
        }
        bar.set_message(under_way.values().cloned().collect::<Vec<_>>().join(", "));
    }

    /// Writes one event as a JSON line.
    pub fn line(&self, event: &impl Serialize) {
        if !self.events {
            return;
        }
        let mut line = json!(event);
        if let Value::Object(line) = &mut line {
            line.insert("version".to_owned(), json!(VERSION));
            line.insert("at".to_owned(), json!(Timestamp::now().as_second()));
        }
        // A reader that went away does not stop a run.
        let _ = writeln!(std::io::stdout(), "{line}");
    }
}

impl Progress for Telling {
    fn tell(&self, event: &Happened<'_>) {
        match event {
            Happened::Begins { operation, uid, vmid, action } => {
                tracing::info!("{operation}: {action} of {uid} (guest {vmid})");
            }
            Happened::Sent { operation, request, upid } => {
                tracing::debug!("{operation}: {request} was answered: {}", upid.unwrap_or("done"));
            }
            Happened::Follows { operation, upid, seconds } => {
                tracing::info!("{operation}: its task goes on after {seconds} s: {upid}");
            }
            Happened::Busy { operation, reason } => {
                tracing::warn!("{operation}: Proxmox VE is busy, trying again in a while: {reason}");
            }
            Happened::Ends { operation, uid, vmid, action, outcome } => match outcome {
                Outcome::Done { waiting } if !waiting.is_empty() => tracing::warn!(
                    "{operation}: {action} of {uid} (guest {vmid}): done; {} waits for its restart",
                    waiting.join(", ")
                ),
                Outcome::Done { .. } => tracing::info!("{operation}: {action} of {uid} (guest {vmid}): done"),
                outcome => tracing::error!(
                    "{operation}: {action} of {uid} (guest {vmid}): {}{}",
                    outcome.word(),
                    outcome.reason().map(|reason| format!(": {reason}")).unwrap_or_default()
                ),
            },
        }
        self.show(event);
        self.line(event);
    }
}
