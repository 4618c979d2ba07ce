//! Smaller parts of the cluster's state: tasks, firewalls, volumes.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// What a task does when it ends: a kind of work with its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Work {
    /// The kind of work; mostly the task's type.
    pub kind: String,
    /// The request's parameters, those of the path included.
    pub arguments: BTreeMap<String, String>,
}

/// A task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// `UPID:node:pid:pstart:starttime:type:id:user:`.
    pub upid: String,
    /// The node it runs on.
    pub node: String,
    /// Its process.
    pub pid: u32,
    /// When its process started, in hundredths of a second since the node did.
    pub pstart: u32,
    /// Seconds since 1970.
    pub start: u64,
    /// `qmstart`, `vzdump`, …
    pub kind: String,
    /// What it is about, mostly a vmid.
    pub id: String,
    /// `user@realm`.
    pub user: String,
    /// The token's name, of a task started with one.
    pub token: Option<String>,
    /// Seconds since 1970, once it has ended.
    pub end: Option<u64>,
    /// Its exit status, once it has ended: `OK`, `WARNINGS: n` or what went wrong.
    pub exit: Option<String>,
    /// The lines of its log.
    pub log: Vec<String>,
    /// Milliseconds since 1970 at which a running one ends.
    pub due: u64,
    /// What a running one does at its end.
    pub work: Option<Work>,
}

impl Task {
    /// Takes a UPID apart: the fields that it holds, of a task that has not ended. `None` where it is none.
    pub fn parse(upid: &str) -> Option<Self> {
        let mut parts = upid.split(':');
        let hex = |text: Option<&str>| u32::from_str_radix(text?, 16).ok();
        if parts.next()? != "UPID" {
            return None;
        }
        let node = parts.next().filter(|node| !node.is_empty())?.to_owned();
        let (pid, pstart, start) = (hex(parts.next())?, hex(parts.next())?, hex(parts.next())?);
        let kind = parts.next().filter(|kind| !kind.is_empty())?.to_owned();
        let rest: Vec<&str> = parts.collect();
        // The thing may hold colons itself; the user never does, and the last part is empty.
        let (last, before) = rest.split_last()?;
        let (user, id) = before.split_last()?;
        if !last.is_empty() || user.is_empty() {
            return None;
        }
        let (user, token) = match user.split_once('!') {
            Some((user, token)) => (user, Some(token.to_owned())),
            None => (*user, None),
        };
        Some(Self {
            upid: upid.to_owned(),
            node,
            pid,
            pstart,
            start: start.into(),
            kind,
            id: id.join(":"),
            user: user.to_owned(),
            token,
            end: None,
            exit: None,
            log: Vec::new(),
            due: u64::MAX,
            work: None,
        })
    }

    /// Whether it failed; `WARNINGS` is success.
    pub fn has_failed(&self) -> bool {
        self.exit.as_deref().is_some_and(|exit| exit != "OK" && !exit.starts_with("WARNINGS"))
    }
}

/// A set of addresses: its comment and its entries.
pub type AddressSet = (Option<String>, Vec<Map<String, Value>>);

/// The firewall of the cluster, a node, a guest, or the rules of a group.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Firewall {
    /// The options.
    pub options: Map<String, Value>,
    /// The rules, the first one first.
    pub rules: Vec<Map<String, Value>>,
    /// Aliases by name.
    pub aliases: BTreeMap<String, Map<String, Value>>,
    /// Sets by name: a comment, and the entries.
    pub sets: BTreeMap<String, AddressSet>,
}

/// A volume that no guest's configuration mentions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Volume {
    /// `images`, `iso`, `vztmpl`, `backup`, …
    pub content: String,
    /// Bytes.
    pub size: u64,
    /// `raw`, `qcow2`, `iso`, `tar.zst`, …
    pub format: String,
    /// Seconds since 1970.
    pub time: u64,
    /// The guest it belongs to.
    pub vmid: Option<u32>,
    /// What a backup's maker wrote.
    pub notes: Option<String>,
    /// Whether a backup must not be removed.
    pub protected: bool,
    /// The node that has it, where the storage is not shared.
    pub node: Option<String>,
    /// The configuration inside a backup.
    pub config: Option<String>,
    /// The base image that a linked clone's image builds on.
    pub parent: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upids_are_taken_apart() {
        let task = Task::parse("UPID:pve1:00001688:0003BBAA:6B013B4D:qmstart:999:root@pam!ci:").unwrap();
        assert_eq!((task.pid, task.kind.as_str(), task.id.as_str()), (0x1688, "qmstart", "999"));
        assert_eq!((task.user.as_str(), task.token.as_deref()), ("root@pam", Some("ci")));
        assert_eq!(Task::parse("UPID:bad"), None);
        assert_eq!(Task::parse("UPID:a:1:2:3:imgdel:100@local:u@pve:").unwrap().id, "100@local");
    }
}
