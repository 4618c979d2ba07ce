//! Tasks: how one is followed to its end, and how one is found whose answer got lost.

use std::time::{Duration, Instant};

use crate::answers::TaskRow;
use crate::client::PveClient;
use crate::error::ApiError;
use crate::path::ApiPath;
use crate::upid::Upid;

/// The wait before a task is first asked for again; each next one is half as long again. Most changes of a configuration
/// take less than half a second.
const FIRST_POLL: Duration = Duration::from_millis(200);
/// The longest wait between two questions.
const LAST_POLL: Duration = Duration::from_secs(3);
/// For how long a task may be unknown after it was started: PVE answers with its identifier a moment before others see it.
const UNKNOWN: Duration = Duration::from_secs(10);
/// How many lines of a log are read for a reason.
const LOG_LINES: u64 = 500;
/// How many of them are told.
const TOLD: usize = 3;

/// Which of a node's tasks are wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TaskFilter<'a> {
    /// About this guest.
    pub vmid: Option<i64>,
    /// Of this kind, such as `qmconfig`.
    pub kind: Option<&'a str>,
    /// Of users whose name holds this.
    pub user: Option<&'a str>,
    /// Started at this time of the node's clock or later, in epoch seconds.
    pub since: Option<i64>,
}

impl TaskFilter<'_> {
    pub(crate) fn path(&self, node: &str) -> ApiPath {
        let Self { vmid, kind, user, since } = self;
        // Running ones too; `archive` is the default, which has only those that ended.
        let mut path = ApiPath::new("list tasks").node(node).fixed("tasks").query("source", "all");
        if let Some(vmid) = vmid {
            path = path.query("vmid", vmid);
        }
        if let Some(kind) = kind {
            path = path.query("typefilter", kind);
        }
        if let Some(user) = user {
            path = path.query("userfilter", user);
        }
        if let Some(since) = since {
            path = path.query("since", since);
        }
        path
    }
}

/// How a task ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskEnd {
    /// PVE's word: `OK`, `WARNINGS: n`, or the error.
    pub exit: String,
    /// Whether it succeeded, with or without warnings.
    pub success: bool,
    /// The last lines of its log where it is not simply `OK`: what PVE says of the failure or the warnings.
    pub log: Vec<String>,
}

impl TaskEnd {
    /// It succeeded, and PVE has something to say about it.
    #[must_use]
    pub fn warned(&self) -> bool {
        self.success && self.exit != "OK"
    }
}

impl PveClient {
    /// Waits for the end of a task, however long that takes.
    ///
    /// # Errors
    /// Its state can't be read: the node is gone, the token may not see it, or PVE does not know it. What the task does goes on.
    pub async fn follow(&self, upid: &Upid) -> Result<TaskEnd, ApiError> {
        let began = Instant::now();
        let mut wait = FIRST_POLL;
        loop {
            match self.task_status(upid).await {
                Ok(read) => {
                    let status = read.value;
                    if status.status != "running" {
                        let success = status.succeeded().unwrap_or(false);
                        let exit = status.exitstatus.unwrap_or_else(|| "unexpected status".to_owned());
                        let log = if exit == "OK" { Vec::new() } else { self.last_lines(upid).await };
                        return Ok(TaskEnd { exit, success, log });
                    }
                }
                Err(error) if error.is_not_found() && began.elapsed() < UNKNOWN => {}
                Err(error) => return Err(error),
            }
            tokio::time::sleep(wait).await;
            wait = (wait + wait / 2).min(LAST_POLL);
        }
    }

    /// What the log ends with; nothing where it can't be read.
    async fn last_lines(&self, upid: &Upid) -> Vec<String> {
        match self.task_log(upid, LOG_LINES).await {
            Ok(read) => {
                let lines: Vec<String> = read.value.into_iter().filter_map(|line| line.text).collect();
                lines.into_iter().rev().take(TOLD).rev().collect()
            }
            Err(error) => {
                tracing::debug!(%error, "the task's log could not be read");
                Vec::new()
            }
        }
    }

    /// The tasks of one kind about one guest that started at `since` or later, the oldest first: for finding a task whose
    /// identifier never arrived. Tasks of others are among them where the token may see them.
    ///
    /// # Errors
    /// The list can't be read.
    pub async fn find_tasks(&self, node: &str, filter: &TaskFilter<'_>) -> Result<Vec<TaskRow>, ApiError> {
        let mut rows = self.node_tasks(node, filter).await?.value;
        rows.sort_by_key(|row| row.upid.starttime);
        Ok(rows)
    }
}
