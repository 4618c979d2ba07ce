//! What an error answer says, and what PVE means by it.
//!
//! PVE answers most failures with status 500 and puts the text into the HTTP reason phrase, so the text is
//! what tells a permanent fact (the guest has no agent) from an accident. [`FailureClass`] is that reading.

use std::collections::BTreeMap;
use std::fmt;

use crate::error::printable;

/// An HTTP answer that is not a success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusAnswer {
    /// The HTTP status, PVE's own 595, 596 and 599 among them.
    pub status: u16,
    /// The reason phrase, where PVE puts its error text. Where the phrase is empty (or not ASCII: the HTTP
    /// parser drops those), the JSON body's `message`; where that lacks too, the status's standard name.
    pub reason: String,
    /// The JSON body's `message` without its trailing newline. Absent before PVE 8.3's API server of January 2025.
    pub message: Option<String>,
    /// Parameter name to complaint, as a 400 gives them. Values may hold newlines.
    pub errors: BTreeMap<String, String>,
}

/// What an error status means for whoever reads an inventory, read off its reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FailureClass {
    /// The object is not there, or no longer.
    NotFound,
    /// The caller lacks a permission (403).
    Forbidden,
    /// The credentials are refused (401).
    Unauthorized,
    /// PVE has no such path or method (501).
    NotImplemented,
    /// The node that should answer is unknown, offline, or did not answer the node that was asked.
    NodeUnreachable,
    /// The guest is locked by a backup, migration or the like.
    Locked,
    /// A lock of a file was not to be had in time. Nothing was changed.
    LockTimeout,
    /// PVE could not start a worker. Nothing was changed.
    NoWorker,
    /// The guest's configuration does not enable the agent.
    AgentNotConfigured,
    /// The guest's agent is enabled but does not answer.
    AgentNotRunning,
    /// The question makes sense only for a running guest.
    GuestNotRunning,
    /// The storage is disabled in the configuration.
    StorageDisabled,
    /// The storage is not for this node.
    StorageNotOnNode,
    /// The storage is configured and enabled but cannot be reached just now.
    StorageOffline,
    /// The storage has no such ability, or nothing is configured for it.
    Unsupported,
    /// The node lacks the program that the question needs (ceph, ZFS).
    NotInstalled,
    /// A name or id is taken.
    AlreadyExists,
    /// Somebody else changed the configuration in between.
    Conflict,
    /// The request itself is wrong (400).
    BadRequest,
    /// A proxy or server that may do better in a moment (502, 503, 504).
    Unavailable,
    /// Anything else: to be treated as a failure.
    Unknown,
}

/// Texts of PVE's 500s and what they mean, the more telling ones first; compared without regard to case.
const CLASSES: &[(&str, FailureClass)] = &[
    ("hostname lookup '", FailureClass::NodeUnreachable),
    ("is locked (", FailureClass::Locked),
    ("can't lock file '", FailureClass::LockTimeout),
    ("got lock request timeout", FailureClass::LockTimeout),
    ("got no worker upid", FailureClass::NoWorker),
    ("no qemu guest agent configured", FailureClass::AgentNotConfigured),
    ("guest agent is not running", FailureClass::AgentNotRunning),
    ("qga command '", FailureClass::AgentNotRunning),
    ("checksum mismatch", FailureClass::Conflict),
    ("detected modified configuration", FailureClass::Conflict),
    ("already exists", FailureClass::AlreadyExists),
    ("already defined", FailureClass::AlreadyExists),
    ("is not available on node", FailureClass::StorageNotOnNode),
    ("' is disabled", FailureClass::StorageDisabled),
    ("' is not online", FailureClass::StorageOffline),
    ("does not support backups", FailureClass::Unsupported),
    ("no prune-backups options configured", FailureClass::Unsupported),
    ("not installed", FailureClass::NotInstalled),
    ("does not exist", FailureClass::NotFound),
    ("no such ", FailureClass::NotFound),
    ("no rule at position", FailureClass::NotFound),
    ("not ha managed", FailureClass::NotFound),
    ("unable to find configuration file", FailureClass::NotFound),
    // Last: other texts end like this too.
    ("not running", FailureClass::GuestNotRunning),
];

impl StatusAnswer {
    /// What the answer means.
    #[must_use]
    pub fn class(&self) -> FailureClass {
        match self.status {
            401 => FailureClass::Unauthorized,
            403 => FailureClass::Forbidden,
            404 => FailureClass::NotFound,
            501 => FailureClass::NotImplemented,
            595 | 596 | 599 => FailureClass::NodeUnreachable,
            502..=504 => FailureClass::Unavailable,
            // An unknown task or job is a complaint about its parameter.
            400 => match self.errors.values().find_map(|text| by_text(text)) {
                Some(class @ (FailureClass::NotFound | FailureClass::AlreadyExists)) => class,
                _ => FailureClass::BadRequest,
            },
            500 => by_text(&self.reason)
                .or_else(|| self.message.as_deref().and_then(by_text))
                .unwrap_or(FailureClass::Unknown),
            _ => FailureClass::Unknown,
        }
    }
}

impl fmt::Display for StatusAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HTTP {}", self.status)?;
        if !self.reason.is_empty() {
            write!(f, " {}", printable(&self.reason))?;
        }
        for (parameter, complaint) in &self.errors {
            write!(f, "; {}: {}", printable(parameter), printable(complaint))?;
        }
        if (300..400).contains(&self.status) {
            f.write_str(" (a redirect; is the endpoint a PVE API, https://host:8006?)")?;
        }
        Ok(())
    }
}

fn by_text(text: &str) -> Option<FailureClass> {
    let text = text.to_lowercase();
    CLASSES.iter().find(|(needle, _)| text.contains(needle)).map(|(_, class)| *class)
}

impl FailureClass {
    /// What the text of a failure means, of a task's exit status for example.
    #[must_use]
    pub fn of_text(text: &str) -> Self {
        by_text(text).unwrap_or(Self::Unknown)
    }

    /// Whether PVE has changed nothing and may do it in a moment.
    #[must_use]
    pub fn is_busy(self) -> bool {
        matches!(self, Self::LockTimeout | Self::NoWorker)
    }

    /// Whether a second read, today, would say the same: a fact about the estate rather than an accident.
    #[must_use]
    pub fn is_permanent(self) -> bool {
        match self {
            Self::NotFound
            | Self::Forbidden
            | Self::Unauthorized
            | Self::NotImplemented
            | Self::AgentNotConfigured
            | Self::AgentNotRunning
            | Self::GuestNotRunning
            | Self::StorageDisabled
            | Self::StorageNotOnNode
            | Self::Unsupported
            | Self::NotInstalled
            | Self::AlreadyExists
            | Self::BadRequest => true,
            Self::NodeUnreachable
            | Self::Locked
            | Self::LockTimeout
            | Self::NoWorker
            | Self::StorageOffline
            | Self::Conflict
            | Self::Unavailable
            | Self::Unknown => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, reason: &str) -> StatusAnswer {
        StatusAnswer { status, reason: reason.to_owned(), message: None, errors: BTreeMap::new() }
    }

    #[test]
    fn reasons_are_classified() {
        use FailureClass::*;
        let cases = [
            ("Configuration file 'nodes/pve1/qemu-server/999.conf' does not exist", NotFound),
            ("no such user ('zz@pve')", NotFound),
            (
                "hostname lookup 'nosuch' failed - failed to get address info for: nosuch: Name or service not known",
                NodeUnreachable,
            ),
            ("VM is locked (backup)", Locked),
            ("can't lock file '/var/lock/qemu-server/lock-100.conf' - got timeout", LockTimeout),
            ("cfs-lock 'file-replication_cfg' error: got lock request timeout", LockTimeout),
            ("got no worker upid - start worker failed", NoWorker),
            ("VM 100 qmp command 'device_del' failed - got timeout", Unknown),
            ("No QEMU guest agent configured", AgentNotConfigured),
            ("QEMU guest agent is not running", AgentNotRunning),
            ("VM 100 qga command 'guest-get-osinfo' failed - got timeout", AgentNotRunning),
            ("VM 101 is not running", GuestNotRunning),
            ("CT 200 not running", GuestNotRunning),
            ("storage 'off' is disabled", StorageDisabled),
            ("storage 'only2' is not available on node 'pve1'", StorageNotOnNode),
            ("storage 'nfs' is not online", StorageOffline),
            ("storage 'data' does not support backups", Unsupported),
            ("no prune-backups options configured for storage 'share'", Unsupported),
            ("binary not installed: /usr/bin/ceph-mon", NotInstalled),
            ("zfsutils-linux not installed", NotInstalled),
            ("unable to create VM 100: config file already exists", AlreadyExists),
            ("checksum mismatch (file change by other user?)", Conflict),
            ("something nobody has seen", Unknown),
        ];
        for (reason, class) in cases {
            assert_eq!(answer(500, reason).class(), class, "{reason}");
        }
        // Only a 500's text decides: a 403 that quotes a name stays a 403.
        assert_eq!(answer(403, "no such luck").class(), Forbidden);
        for status in [595, 596, 599] {
            assert_eq!(answer(status, "").class(), NodeUnreachable, "{status}");
        }
        for status in [502, 503, 504] {
            assert_eq!(answer(status, "").class(), Unavailable, "{status}");
        }
    }

    #[test]
    fn an_unknown_task_is_not_found_and_a_bad_value_is_not() {
        let mut unknown_task = answer(400, "Parameter verification failed.");
        unknown_task.errors.insert("upid".into(), "no such task".into());
        assert_eq!(unknown_task.class(), FailureClass::NotFound);
        unknown_task.errors.insert("upid".into(), "unable to parse worker upid".into());
        assert_eq!(unknown_task.class(), FailureClass::BadRequest);
    }
}
