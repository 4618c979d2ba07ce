//! The journal of a run: what was about to be sent, what was sent, and what came of it, each on the disk before the next step.
//!
//! For each call of an operation: `intent` (before it is sent) → `dispatched` (PVE has answered, with a task or without) →
//! `task_done` (the task's end) → `verified` | `failed` | `unknown`; `needless` where it need not be sent. A call that has an intent and no end when the file is
//! opened was cut off: [`crate::apply`] looks for what came of it. The graph is not needed for any of this, because Neo4j may
//! run on a guest that the run touches.
//!
//! A line names the parameters that are sent, never their values: secrets and texts are not in it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::lines::{self, Lines, LinesError, MEND};

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Counts the lines, from 1.
    pub n: u64,
    /// When, in epoch seconds of this host's clock.
    pub at: i64,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// Which call of which operation: positions in the plan, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Call {
    /// The operation.
    pub op: usize,
    /// The call within it.
    pub call: usize,
}

/// The guest's configuration as it was read after a call: what the next one has to find.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Found {
    /// PVE's digest of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Our hash of what waits for a restart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<String>,
    /// Before a call, our hash of what the call does not write: if it is another one after it, somebody else has written too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rest: Option<String>,
    /// The names of the options that wait.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting: Vec<String>,
    /// Whether it runs: `running`, `stopped`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// What tells the guest from another one of its number: of what a run makes it is known only now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Event {
    /// A run began.
    Begin {
        /// The run.
        run: String,
        /// SHA-256 of its plan.
        plan: String,
        /// The cluster.
        cluster: String,
        /// Who approved the plan.
        approver: String,
    },
    /// A run that was cut off goes on.
    Resumed,
    /// A call is about to be sent.
    Intent {
        /// Which.
        #[serde(flatten)]
        call: Call,
        /// The desired guest.
        uid: String,
        /// Its number.
        vmid: i64,
        /// The node that is asked.
        node: String,
        /// Verb and path.
        request: String,
        /// The names of its parameters.
        keys: Vec<String>,
        /// Tasks of this kind that were there before: none of them is this call's.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        others: Vec<String>,
        /// What the guest's configuration is before it.
        #[serde(default)]
        before: Found,
    },
    /// PVE has answered.
    Dispatched {
        /// Which.
        #[serde(flatten)]
        call: Call,
        /// The task; without one it is done.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        upid: Option<String>,
    },
    /// The task has ended.
    TaskDone {
        /// Which.
        #[serde(flatten)]
        call: Call,
        /// How.
        exit: String,
    },
    /// PVE was busy and has changed nothing; the call will be sent again after a new intent.
    Busy {
        /// Which.
        #[serde(flatten)]
        call: Call,
        /// What it said.
        reason: String,
    },
    /// What a failed call has left waiting is about to be taken back.
    Revert {
        /// Which.
        #[serde(flatten)]
        call: Call,
        /// The options.
        keys: Vec<String>,
    },
    /// It is proven that nothing came of the call.
    NotDone {
        /// Which.
        #[serde(flatten)]
        call: Call,
    },
    /// The guest is as the call wants it.
    Verified {
        /// Which.
        #[serde(flatten)]
        call: Call,
        /// What waits for the guest's next start.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        waiting: Vec<String>,
        /// What the guest's configuration is now.
        #[serde(default)]
        after: Found,
    },
    /// The call is not sent, because there is no reason for it any more: it counts as done.
    Needless {
        /// Which.
        #[serde(flatten)]
        call: Call,
        /// What the guest's configuration is.
        #[serde(default)]
        after: Found,
    },
    /// It failed. What it had written is reverted, or told.
    Failed {
        /// Which.
        #[serde(flatten)]
        call: Call,
        /// Why.
        reason: String,
    },
    /// Nobody knows what came of it.
    Unknown {
        /// Which.
        #[serde(flatten)]
        call: Call,
        /// Why.
        reason: String,
    },
    /// The run has ended.
    End {
        /// The exit code.
        exit: u8,
    },
}

/// How far a call came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reached {
    /// It may have been sent.
    Intent {
        /// When it was about to be.
        at: i64,
        /// What the guest's configuration was before it.
        before: Found,
    },
    /// It was answered.
    Dispatched {
        /// When it was about to be sent.
        at: i64,
        /// What the guest's configuration was before it.
        before: Found,
        /// The task.
        upid: Option<String>,
    },
    /// It was not done, and may be sent.
    NotDone,
    /// It is done.
    Verified {
        /// What waits for the guest's next start.
        waiting: Vec<String>,
        /// What the guest's configuration was then.
        after: Found,
    },
    /// It failed.
    Failed(String),
    /// Nobody knows.
    Unknown {
        /// When it was about to be sent.
        at: i64,
        /// What the guest's configuration was before it.
        before: Found,
        /// The task, where it is known.
        upid: Option<String>,
        /// Why nobody knows.
        reason: String,
    },
}

/// What a journal says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// The run.
    pub run: String,
    /// SHA-256 of its plan.
    pub plan: String,
    /// The cluster.
    pub cluster: String,
    /// Who approved the plan.
    pub approver: String,
    /// How far each call came that was begun.
    pub calls: BTreeMap<Call, Reached>,
    /// The calls that count as done and were not sent, because there was no reason for them any more.
    pub needless: BTreeSet<Call>,
    /// Tasks that are known, ours and those that were there before: a search for a lost one leaves them out.
    pub upids: Vec<String>,
    /// The tasks of each operation, by its position.
    pub tasks: BTreeMap<usize, Vec<String>>,
    /// The exit code, where the run has ended.
    pub exit: Option<u8>,
    lines: u64,
}

impl Record {
    /// Has a call done something, or may it have? What was refused has not.
    pub fn did_something(&self) -> bool {
        self.calls.values().any(|reached| !matches!(reached, Reached::NotDone | Reached::Failed(_)))
    }

    fn read(path: &Path, lines: &[String]) -> Result<Self, LinesError> {
        let mut record = Self::default();
        for (at, line) in lines.iter().enumerate() {
            let damaged =
                |why: String| LinesError::Damaged { path: path.to_owned(), line: at + 1, why, mend: MEND };
            let entry: Entry = serde_json::from_str(line).map_err(|error| damaged(error.to_string()))?;
            // A key that is not ours would be lost without a word.
            if serde_json::to_string(&entry).ok().as_ref() != Some(line) {
                return Err(damaged("it is not as pvegraph writes it".to_owned()));
            }
            if entry.n != record.lines + 1 {
                return Err(damaged(format!("it says that it is line {}", entry.n)));
            }
            record.take(&entry).map_err(damaged)?;
        }
        Ok(record)
    }

    /// Adds what a line says.
    fn take(&mut self, entry: &Entry) -> Result<(), String> {
        if self.lines == 0 && !matches!(entry.event, Event::Begin { .. }) {
            return Err("a journal begins with `begin`".to_owned());
        }
        if self.exit.is_some() && !matches!(entry.event, Event::Resumed) {
            return Err("it comes after the run's end".to_owned());
        }
        match &entry.event {
            Event::Begin { run, plan, cluster, approver } => {
                if self.lines > 0 {
                    return Err("a second `begin`".to_owned());
                }
                (self.run, self.plan) = (run.clone(), plan.clone());
                (self.cluster, self.approver) = (cluster.clone(), approver.clone());
            }
            Event::Resumed => self.exit = None,
            Event::Intent { call, before, others, .. } => {
                if !matches!(self.calls.get(call), None | Some(Reached::NotDone)) {
                    return Err("an intent for a call that was sent already".to_owned());
                }
                self.upids.extend(others.iter().cloned());
                self.calls.insert(*call, Reached::Intent { at: entry.at, before: before.clone() });
            }
            Event::Dispatched { call, upid } => {
                let (at, before) = self.begun(*call)?;
                self.upids.extend(upid.clone());
                self.tasks.entry(call.op).or_default().extend(upid.clone());
                self.calls.insert(*call, Reached::Dispatched { at, before, upid: upid.clone() });
            }
            Event::TaskDone { call, .. } | Event::Revert { call, .. } => {
                self.begun(*call)?;
            }
            Event::Busy { call, .. } | Event::NotDone { call } => {
                self.begun(*call)?;
                self.calls.insert(*call, Reached::NotDone);
            }
            Event::Verified { call, waiting, after } => {
                self.begun(*call)?;
                let (waiting, after) = (waiting.clone(), after.clone());
                self.calls.insert(*call, Reached::Verified { waiting, after });
            }
            Event::Needless { call, after } => {
                if !matches!(self.calls.get(call), None | Some(Reached::NotDone)) {
                    return Err("a call that was sent already is said to be needless".to_owned());
                }
                self.needless.insert(*call);
                self.calls.insert(*call, Reached::Verified { waiting: Vec::new(), after: after.clone() });
            }
            // A call that fails before it is sent has no intent.
            Event::Failed { call, reason } => {
                self.calls.insert(*call, Reached::Failed(reason.clone()));
            }
            Event::Unknown { call, reason } => {
                let upid = match self.calls.get(call) {
                    Some(Reached::Dispatched { upid, .. } | Reached::Unknown { upid, .. }) => upid.clone(),
                    _ => None,
                };
                let (at, before) = self.begun(*call)?;
                self.calls.insert(*call, Reached::Unknown { at, before, upid, reason: reason.clone() });
            }
            Event::End { exit } => self.exit = Some(*exit),
        }
        self.lines += 1;
        Ok(())
    }

    fn begun(&self, call: Call) -> Result<(i64, Found), String> {
        match self.calls.get(&call) {
            Some(
                Reached::Intent { at, before }
                | Reached::Dispatched { at, before, .. }
                | Reached::Unknown { at, before, .. },
            ) => Ok((*at, before.clone())),
            _ => Err("a state of a call without its intent".to_owned()),
        }
    }
}

/// The journal of one run, open for writing.
#[derive(Debug)]
pub struct Journal {
    lines: Lines,
    record: Record,
    path: PathBuf,
}

impl Journal {
    /// Opens a journal; what it says is in [`Journal::record`]. A torn last line is cut off.
    ///
    /// # Errors
    /// It can't be read or made, or is damaged otherwise.
    pub fn open(path: &Path) -> Result<Self, LinesError> {
        let (lines, text) = Lines::open(path)?;
        Ok(Self { lines, record: Record::read(path, &text)?, path: path.to_owned() })
    }

    /// What it says by now.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds what happens at `now`. It is on the disk when this comes back.
    ///
    /// # Errors
    /// It can't be written; nothing may be sent then, and nothing more added.
    pub fn add(&mut self, now: i64, event: Event) -> Result<(), LinesError> {
        let entry = Entry { n: self.record.lines + 1, at: now, event };
        let damaged = |why: String| LinesError::Damaged { path: self.path.clone(), line: 0, why, mend: MEND };
        let line = serde_json::to_string(&entry).map_err(|error| damaged(error.to_string()))?;
        // What could not be read back is never written.
        self.record.take(&entry).map_err(damaged)?;
        self.lines.add(&line)
    }
}

/// Reads a journal without touching it. Nothing where there is none.
///
/// # Errors
/// It can't be read, or is damaged otherwise than by a torn last line.
pub fn read(path: &Path) -> Result<Option<Record>, LinesError> {
    match lines::read(path)? {
        Some(lines) if !lines.is_empty() => Record::read(path, &lines).map(Some),
        _ => Ok(None),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;
    use std::fs;

    fn begin() -> Event {
        let [run, plan, cluster, approver] = ["r1", "abc", "rig", "root"].map(str::to_owned);
        Event::Begin { run, plan, cluster, approver }
    }

    fn intent(call: Call) -> Event {
        Event::Intent {
            call,
            uid: "web".to_owned(),
            vmid: 100,
            node: "pve1".to_owned(),
            request: "PUT /nodes/pve1/qemu/100/config".to_owned(),
            keys: vec!["tags".to_owned()],
            others: Vec::new(),
            before: Found { digest: Some("d1".to_owned()), pending: None, ..Found::default() },
        }
    }

    const CALL: Call = Call { op: 0, call: 0 };

    #[test]
    fn a_torn_last_line_is_cut_off_and_everything_before_it_is_kept() {
        let directory = tempfile::TempDir::new().unwrap();
        let path = directory.path().join("journal.jsonl");
        let mut journal = Journal::open(&path).unwrap();
        journal.add(1, begin()).unwrap();
        journal.add(2, intent(CALL)).unwrap();
        journal.add(3, Event::Dispatched { call: CALL, upid: Some("UPID:x".to_owned()) }).unwrap();
        assert_eq!(journal.record().tasks[&0], ["UPID:x"]);
        let whole = fs::read(&path).unwrap();
        let last = whole.iter().rposition(|byte| *byte == b'{').unwrap();
        for cut in [last + 1, whole.len() - 1] {
            fs::write(&path, &whole[..cut]).unwrap();
            let mut journal = Journal::open(&path).unwrap();
            let before = Found { digest: Some("d1".to_owned()), pending: None, ..Found::default() };
            assert_eq!(journal.record().calls[&CALL], Reached::Intent { at: 2, before }, "cut at {cut}");
            assert!(journal.record().tasks.is_empty());
            // It goes on in a line of its own.
            journal.add(4, Event::NotDone { call: CALL }).unwrap();
            assert_eq!(read(&path).unwrap().unwrap().calls[&CALL], Reached::NotDone);
        }
    }

    #[test]
    fn any_other_damage_is_refused_with_the_line_and_the_mend() {
        let directory = tempfile::TempDir::new().unwrap();
        let path = directory.path().join("journal.jsonl");
        let mut journal = Journal::open(&path).unwrap();
        journal.add(1, begin()).unwrap();
        journal.add(2, intent(CALL)).unwrap();
        journal.add(3, Event::Failed { call: CALL, reason: "x".to_owned() }).unwrap();
        let whole = fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = whole.lines().collect();
        for (damaged, line) in [
            (format!("{}\n{}\n", lines[0], lines[2]), 2),
            (format!("{}\n{}\n{}\n", lines[0], &lines[1][..20], lines[2]), 2),
            (format!("{}\n{}\n{}\n", lines[1], lines[0], lines[2]), 1),
            (format!("{}\n{}\n{}\n", lines[0], lines[1].replace("intent", "intend"), lines[2]), 2),
            (whole.replace("\"n\":3", "\"n\":4"), 3),
            (whole.replace("\"web\"", "\"web\",\"more\":1"), 2),
        ] {
            fs::write(&path, &damaged).unwrap();
            let error = Journal::open(&path).unwrap_err().to_string();
            assert!(error.contains(&format!("line {line} ")) && error.contains("backup"), "{damaged}{error}");
            assert_eq!(fs::read_to_string(&path).unwrap(), damaged, "it is left as it is");
        }
    }

    #[test]
    fn states_come_in_their_order() {
        let directory = tempfile::TempDir::new().unwrap();
        let mut journal = Journal::open(&directory.path().join("journal.jsonl")).unwrap();
        assert!(journal.add(1, Event::Resumed).is_err());
        journal.add(1, begin()).unwrap();
        assert!(journal.add(1, Event::Dispatched { call: CALL, upid: None }).is_err());
        journal.add(1, intent(CALL)).unwrap();
        assert!(journal.add(1, intent(CALL)).is_err(), "nothing is sent twice");
        journal.add(1, Event::Busy { call: CALL, reason: "lock".to_owned() }).unwrap();
        journal.add(1, intent(CALL)).unwrap();
        journal.add(1, Event::Unknown { call: CALL, reason: "lost".to_owned() }).unwrap();
        assert!(journal.add(1, intent(CALL)).is_err(), "nor is what nobody knows");
        journal.add(1, Event::End { exit: 3 }).unwrap();
        assert!(journal.add(1, Event::NotDone { call: CALL }).is_err());
        journal.add(1, Event::Resumed).unwrap();
        journal.add(1, Event::NotDone { call: CALL }).unwrap();
        assert_eq!(journal.record().calls[&CALL], Reached::NotDone);
    }
}
