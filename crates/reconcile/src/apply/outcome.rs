//! What came of a run.

use serde::Serialize;

use super::fence::Stop;

/// What came of one operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum Outcome {
    /// The guest is as it was meant.
    Done {
        /// Options that wait for its next start.
        waiting: Vec<String>,
    },
    /// Something is otherwise than the plan says: it has to be made anew. Nothing was sent for what is told.
    Stale {
        /// What, and the mend.
        reason: String,
    },
    /// It failed.
    Failed {
        /// Why.
        reason: String,
        /// The credentials, or a privilege, were refused.
        refused: bool,
    },
    /// Nobody knows what came of it.
    Unknown {
        /// Why.
        reason: String,
    },
    /// Some of its calls were done, and the others were not.
    HalfDone {
        /// What was not, and why.
        reason: String,
    },
    /// It was not begun, because one before it was not done.
    Skipped,
    /// It was not begun, because the run was stopped.
    NotBegun,
}

impl Outcome {
    /// The words of those with which something was done, or may have been.
    pub const DID: [&'static str; 4] = ["done", "pending restart", "unknown", "half done"];

    /// Its word.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Done { waiting } if waiting.is_empty() => "done",
            Self::Done { .. } => "pending restart",
            Self::Stale { .. } => "stale",
            Self::Failed { .. } => "failed",
            Self::Unknown { .. } => "unknown",
            Self::HalfDone { .. } => "half done",
            Self::Skipped => "skipped",
            Self::NotBegun => "not begun",
        }
    }

    /// What there is to say of it.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Stale { reason }
            | Self::Failed { reason, .. }
            | Self::Unknown { reason }
            | Self::HalfDone { reason } => Some(reason),
            _ => None,
        }
    }
}

/// Whether what came of an operation has to be written into the audit log. `touched`: something became known of it in this process;
/// `told`: what the log says of it so far. A process may have been killed between the journal's line and the log's.
pub fn untold(outcome: &Outcome, touched: bool, begun: bool, told: Option<&str>) -> bool {
    let settled = matches!(told, Some("done" | "pending restart" | "stale" | "failed"));
    touched || begun && !settled && told != Some(outcome.word())
}

/// How a run ended, with the program's exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// All is done.
    Applied,
    /// Nothing was done.
    Failed,
    /// Some of it is done, or the outcome of something is unknown.
    Partial,
    /// Nothing was done, because the plan is stale.
    Stale,
    /// All is done, and something waits for a restart.
    PendingRestart,
    /// The lease was lost.
    LeaseLost,
    /// Nothing was done, because credentials or a privilege were refused.
    Refused,
}

impl Ended {
    /// The exit code.
    pub fn code(self) -> u8 {
        match self {
            Self::Applied => 0,
            Self::Failed => 1,
            Self::Partial => 3,
            Self::Stale => 7,
            Self::PendingRestart => 8,
            Self::LeaseLost => 11,
            Self::Refused => 12,
        }
    }

    /// Of these outcomes, in a run that was perhaps stopped.
    pub fn of(outcomes: &[Outcome], stop: Option<&Stop>) -> Self {
        if let Some(Stop::LeaseLost(_)) = stop {
            return Self::LeaseLost;
        }
        let any = |is: fn(&Outcome) -> bool| outcomes.iter().any(is);
        let done = |outcome: &Outcome| matches!(outcome, Outcome::Done { .. });
        if outcomes.iter().all(done) {
            let waits = any(|outcome| matches!(outcome, Outcome::Done { waiting } if !waiting.is_empty()));
            return if waits { Self::PendingRestart } else { Self::Applied };
        }
        let stopped = matches!(stop, Some(Stop::Paused | Stop::ScopePaused(_) | Stop::Interrupted));
        let some = |outcome: &Outcome| {
            matches!(outcome, Outcome::Done { .. } | Outcome::Unknown { .. } | Outcome::HalfDone { .. })
        };
        if any(some) || stopped {
            return Self::Partial;
        }
        if any(|outcome| matches!(outcome, Outcome::Failed { refused: true, .. })) {
            return Self::Refused;
        }
        if any(|outcome| matches!(outcome, Outcome::Failed { .. })) {
            return Self::Failed;
        }
        Self::Stale
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes() {
        let done = Outcome::Done { waiting: Vec::new() };
        let waits = Outcome::Done { waiting: vec!["cores".to_owned()] };
        let stale = Outcome::Stale { reason: String::new() };
        let failed = Outcome::Failed { reason: String::new(), refused: false };
        let refused = Outcome::Failed { reason: String::new(), refused: true };
        let unknown = Outcome::Unknown { reason: String::new() };
        let code = |outcomes: &[&Outcome]| {
            let outcomes: Vec<Outcome> = outcomes.iter().map(|one| (*one).clone()).collect();
            Ended::of(&outcomes, None).code()
        };
        assert_eq!(code(&[]), 0);
        assert_eq!(code(&[&done, &done]), 0);
        assert_eq!(code(&[&done, &waits]), 8);
        assert_eq!(code(&[&done, &failed]), 3);
        assert_eq!(code(&[&waits, &stale]), 3);
        assert_eq!(code(&[&stale, &stale, &Outcome::Skipped]), 7);
        assert_eq!(code(&[&failed, &stale]), 1);
        assert_eq!(code(&[&refused]), 12);
        assert_eq!(code(&[&unknown]), 3);
        let half = Outcome::HalfDone { reason: String::new() };
        assert_eq!(code(&[&half]), 3);
        assert_eq!(code(&[&half, &failed]), 3);
        assert_eq!(Ended::of(&[done.clone(), Outcome::NotBegun], Some(&Stop::Paused)).code(), 3);
        assert_eq!(Ended::of(&[Outcome::NotBegun], Some(&Stop::Paused)).code(), 3);
        assert_eq!(Ended::of(&[Outcome::NotBegun], Some(&Stop::Expired(String::new()))).code(), 7);
        assert_eq!(Ended::of(&[done], Some(&Stop::LeaseLost(String::new()))).code(), 11);
    }

    #[test]
    fn what_the_journal_has_and_the_audit_log_has_not_is_told_after_a_crash() {
        let done = Outcome::Done { waiting: Vec::new() };
        let unknown = Outcome::Unknown { reason: String::new() };
        assert!(untold(&done, false, true, None), "killed between the two");
        assert!(untold(&done, false, true, Some("unknown")) && untold(&done, false, true, Some("half done")));
        assert!(!untold(&done, false, true, Some("done")), "and no more than once");
        assert!(!untold(&unknown, false, true, Some("unknown")));
        assert!(!untold(&Outcome::Skipped, false, false, None), "nothing was done of it");
        assert!(untold(&unknown, true, true, Some("unknown")));
        // The journal has one word for both.
        let failed = Outcome::Failed { reason: String::new(), refused: false };
        assert!(!untold(&failed, false, true, Some("stale")));
    }
}
