//! A request that changes something, on its way through its handler.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Call, checks};
use crate::answer::Answer;
use crate::schema;
use crate::world::access::Principal;
use crate::world::state::{Guest, GuestKind, State, Task, Work};

/// A request with the state that it may change.
pub(crate) struct Act<'a> {
    pub state: &'a mut State,
    pub method: &'a crate::schema::Method,
    pub principal: &'a Principal,
    pub parameters: &'a BTreeMap<String, String>,
    pub local_node: &'a str,
    pub lxc_path: bool,
    pub moment: Option<u64>,
    pub now: u64,
    pub milliseconds: u64,
    /// The factor for the time that tasks take.
    pub scale: f64,
}

/// What a write answers that has nothing to say.
pub(crate) fn done() -> Result<Answer, Answer> {
    Ok(Answer::ok(Value::Null))
}

/// 500 with a text.
pub(crate) fn fail<T>(text: impl Into<String>) -> Result<T, Answer> {
    Err(Answer::error(500, text))
}

impl Act<'_> {
    /// The same request, for reading.
    pub fn call(&self) -> Call<'_> {
        Call {
            state: self.state,
            principal: self.principal,
            parameters: self.parameters,
            local_node: self.local_node,
            moment: self.moment,
            now: self.now,
        }
    }

    /// A parameter, empty where it is absent.
    pub fn text(&self, name: &str) -> &str {
        self.parameters.get(name).map_or("", String::as_str)
    }

    /// A parameter that was given.
    pub fn given(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str)
    }

    /// Whether a boolean parameter is set.
    pub fn flag(&self, name: &str) -> bool {
        self.text(name) == "1"
    }

    /// A number; 0 where it is absent.
    pub fn number(&self, name: &str) -> u32 {
        self.text(name).parse().unwrap_or_default()
    }

    /// The node that the path names.
    pub fn node(&self) -> Result<String, Answer> {
        self.call().node().map(|node| node.name.to_string())
    }

    /// The guest that the path names.
    pub fn guest(&mut self, kind: GuestKind) -> Result<&mut Guest, Answer> {
        let vmid = self.call().guest(kind)?.vmid;
        self.state.guests.get_mut(&vmid).ok_or_else(|| Answer::error(500, "guest vanished"))
    }

    /// 403 unless the caller holds all of these.
    pub fn require(&self, path: &str, privileges: &[&str]) -> Result<(), Answer> {
        checks::require(&self.call(), path, privileges, false)
    }

    /// Whether the caller is the superuser itself; a token of it is not.
    pub fn is_root(&self) -> bool {
        matches!(self.principal, Principal::User(user) if user == crate::world::access::ROOT)
    }

    /// The parameters that are neither in the path nor among `left_out`.
    pub fn settings(&self, left_out: &[&str]) -> BTreeMap<String, String> {
        let ours = |name: &str| !left_out.contains(&name) && !matches!(name, "node" | "vmid");
        self.parameters
            .iter()
            .filter(|(name, _)| ours(name))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    }

    /// A value as an answer types it: integers and booleans as numbers.
    pub fn typed(&self, name: &str, value: &str) -> Value {
        typed(self.method, name, value)
    }

    /// Starts a task and answers with its UPID. What it does is done when it ends, at once where tasks take no time.
    pub fn fork(&mut self, kind: &str, id: &str, arguments: &[(&str, &str)]) -> Result<Answer, Answer> {
        let node = self.node().unwrap_or_else(|_| self.local_node.to_owned());
        let mut given = self.parameters.clone();
        given.extend(arguments.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let work = Work { kind: kind.to_owned(), arguments: given };
        let task = self.new_task(&node, kind, id, work);
        let upid = crate::work::start(self.state, task, self.milliseconds, self.scale);
        Ok(Answer::ok(Value::from(upid)))
    }

    fn new_task(&mut self, node: &str, kind: &str, id: &str, work: Work) -> Task {
        self.state.processes += 1;
        let pid = 4_000 + self.state.processes % 4_000_000;
        let pstart = u32::try_from((self.milliseconds / 10) % 0xffff_ffff).unwrap_or_default();
        let who = self.principal.id();
        let upid = format!("UPID:{node}:{pid:08X}:{pstart:08X}:{:08X}:{kind}:{id}:{who}:", self.now);
        let token = match self.principal {
            Principal::Token(_, name) => Some(name.clone()),
            Principal::User(_) => None,
        };
        Task {
            upid,
            node: node.to_owned(),
            pid,
            pstart,
            start: self.now,
            kind: kind.to_owned(),
            id: id.to_owned(),
            user: self.principal.user().to_owned(),
            token,
            end: None,
            exit: None,
            log: Vec::new(),
            due: u64::MAX,
            work: Some(work),
        }
    }
}

/// A value as an answer types it, by the declaration of the parameter that set it.
pub(crate) fn typed(method: &schema::Method, name: &str, value: &str) -> Value {
    match schema::kind(method, name) {
        Some(schema::Kind::Integer | schema::Kind::Boolean) => {
            value.parse::<i64>().map_or_else(|_| Value::from(value), Value::from)
        }
        // A parameter that may be repeated arrives as its values with a zero byte between them.
        Some(schema::Kind::List) => value.split('\0').map(Value::from).collect(),
        Some(schema::Kind::Number) => value.parse::<f64>().map_or_else(|_| Value::from(value), Value::from),
        _ => Value::from(value),
    }
}
