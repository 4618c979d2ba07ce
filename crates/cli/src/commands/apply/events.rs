//! What happens in a run, as lines for people or as JSON lines.

use std::io::Write;

use jiff::Timestamp;
use pvegraph_reconcile::apply::{Happened, Outcome, Progress};
use serde::Serialize;
use serde_json::{Value, json};

/// The version of the events' form.
const VERSION: u32 = 1;

/// Tells people on standard error and, if asked for, programs on standard output.
pub struct Telling {
    /// JSON lines are wanted.
    pub events: bool,
}

impl Telling {
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
        self.line(event);
    }
}
