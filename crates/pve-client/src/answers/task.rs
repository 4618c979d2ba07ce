//! Tasks.

use crate::upid::Upid;
use crate::wire::answer;

answer! {
    /// A row of `/nodes/{node}/tasks`. Without `Sys.Audit` the user's own only.
    pub struct TaskRow {
        required {
            /// The task's identifier.
            upid: Upid = "upid",
        }
        optional {
            /// The node.
            node: String = "node",
            /// The process id.
            pid: u64 = "pid",
            /// The start of the process in clock ticks since boot.
            pstart: u64 = "pstart",
            /// When it started.
            starttime: u64 = "starttime",
            /// When it ended.
            endtime: u64 = "endtime",
            /// The kind of work.
            kind: String = "type",
            /// What is worked on.
            id: String = "id",
            /// Who started it.
            user: String = "user",
            /// The API token that was used.
            tokenid: String = "tokenid",
            /// How it ended: `OK`, `WARNINGS: n`, or the error; absent while it runs.
            status: String = "status",
        }
    }
}

impl TaskRow {
    /// Did it succeed? `None` while it runs.
    pub fn succeeded(&self) -> Option<bool> {
        self.status.as_deref().map(is_success)
    }
}

answer! {
    /// `/nodes/{node}/tasks/{upid}/status`.
    pub struct TaskStatus {
        required {
            /// The task's identifier.
            upid: Upid = "upid",
            /// `running` or `stopped`.
            status: String = "status",
        }
        optional {
            /// How it ended: `OK`, `WARNINGS: n`, or the error; absent while it runs.
            exitstatus: String = "exitstatus",
            /// The node.
            node: String = "node",
            /// The process id.
            pid: u64 = "pid",
            /// The start of the process in clock ticks since boot.
            pstart: u64 = "pstart",
            /// When it started.
            starttime: u64 = "starttime",
            /// The kind of work.
            kind: String = "type",
            /// What is worked on.
            id: String = "id",
            /// Who started it.
            user: String = "user",
            /// The API token that was used.
            tokenid: String = "tokenid",
        }
    }
}

impl TaskStatus {
    /// Did it succeed? `None` while it runs.
    pub fn succeeded(&self) -> Option<bool> {
        self.exitstatus.as_deref().map(is_success)
    }
}

answer! {
    /// A row of `/nodes/{node}/tasks/{upid}/log`.
    pub struct LogLine {
        required {
            /// The line's number, from 1.
            number: u64 = "n",
        }
        optional {
            /// Its text.
            text: String = "t",
        }
    }
}

/// `OK` and `WARNINGS: n` are successes, everything else is a failure, `unexpected status` too.
fn is_success(status: &str) -> bool {
    status == "OK" || status.starts_with("WARNINGS: ")
}
