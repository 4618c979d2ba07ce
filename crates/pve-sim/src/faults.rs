//! Faults on demand: what goes wrong, on which paths, how often.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;

/// What goes wrong with a request.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The answer comes that much later.
    Latency(Duration),
    /// An error instead of the answer, with PVE's JSON body.
    Status {
        /// The HTTP status.
        status: u16,
        /// The reason phrase, and the body's message.
        reason: String,
    },
    /// An error without a body, such as 595.
    BareStatus {
        /// The HTTP status.
        status: u16,
        /// The reason phrase.
        reason: String,
    },
    /// The connection is closed without an answer.
    Drop,
    /// The body ends after that many bytes although its length promises more, and the connection is closed.
    Truncate(usize),
    /// An HTML page with status 200 instead of the answer, as from a proxy or a login portal.
    Html,
    /// These bytes instead of the body, with status 200 and PVE's content type.
    Body(Vec<u8>),
    /// A value of the answer is replaced.
    Replace {
        /// A JSON pointer into the body, such as `/data/memory` or `/data/0/vmid`. A key that is absent is added to its
        /// object; where there is no such object or element, nothing happens.
        pointer: String,
        /// The new value.
        value: Value,
    },
    /// The answer never comes.
    Hang,
    /// The answer comes up to that much later, each time by another share of it.
    Jitter(Duration),
    /// The request is done, and then the connection is closed without an answer.
    LoseAnswer,
    /// The request is done, and then an error is answered instead, with PVE's JSON body.
    StatusAfter {
        /// The HTTP status.
        status: u16,
        /// The reason phrase, and the body's message.
        reason: String,
    },
    /// Just before the request is looked at, somebody else takes the number that it asks for (`newid`, else `vmid`).
    TakeVmid,
}

/// A fault with the paths that it strikes and the number of times.
#[derive(Clone, Debug)]
pub struct FaultRule {
    path: String,
    exact: bool,
    method: Option<String>,
    fault: Fault,
    spared: usize,
    left: Option<usize>,
}

impl FaultRule {
    /// Strikes every path below `/api2/json` that starts with `prefix`, for ever.
    pub fn below(prefix: &str, fault: Fault) -> Self {
        Self { path: prefix.to_owned(), exact: false, method: None, fault, spared: 0, left: None }
    }

    /// Strikes this path alone, whatever its query, for ever.
    pub fn at(path: &str, fault: Fault) -> Self {
        Self { exact: true, ..Self::below(path, fault) }
    }

    /// Strikes only that many times.
    pub fn times(mut self, times: usize) -> Self {
        self.left = Some(times);
        self
    }

    /// Spares that many requests that it would strike, and strikes from the next one on.
    pub fn after(mut self, spared: usize) -> Self {
        self.spared = spared;
        self
    }

    /// Strikes only requests of this method.
    pub fn method(mut self, method: &str) -> Self {
        self.method = Some(method.to_owned());
        self
    }

    fn strikes(&self, method: &str, path: &str) -> bool {
        let here = if self.exact { path == self.path } else { path.starts_with(&self.path) };
        here && self.left != Some(0) && self.method.as_deref().is_none_or(|wanted| wanted == method)
    }
}

/// The rules in force. Every rule that strikes a request does so, in the order in which they were added.
#[derive(Debug, Default)]
pub struct Faults {
    rules: Mutex<Vec<(u64, FaultRule)>>,
}

impl Faults {
    /// Adds a rule and returns a number to remove it by.
    pub fn add(&self, rule: FaultRule) -> u64 {
        let mut rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        let id = rules.last().map_or(0, |(id, _)| id + 1);
        rules.push((id, rule));
        id
    }

    /// Removes a rule; one that is gone already is no error.
    pub fn remove(&self, id: u64) {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner).retain(|(have, _)| *have != id);
    }

    /// Removes all rules. Requests that hang already go on hanging.
    pub fn clear(&self) {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The rules in force with their numbers.
    pub(crate) fn list(&self) -> Vec<(u64, FaultRule)> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The faults that strike this request; each counts as one time of its rule.
    pub(crate) fn strike(&self, method: &str, path: &str) -> Vec<Fault> {
        let mut rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        let mut faults = Vec::new();
        for (_, rule) in rules.iter_mut().filter(|(_, rule)| rule.strikes(method, path)) {
            if rule.spared > 0 {
                rule.spared -= 1;
                continue;
            }
            rule.left = rule.left.map(|left| left - 1);
            faults.push(rule.fault.clone());
        }
        faults
    }
}

/// Puts `value` where `pointer` points to.
pub(crate) fn replace(body: &mut Value, pointer: &str, value: Value) {
    if let Some(place) = body.pointer_mut(pointer) {
        *place = value;
        return;
    }
    let Some((parent, key)) = pointer.rsplit_once('/') else { return };
    if let Some(Value::Object(object)) = body.pointer_mut(parent) {
        object.insert(key.replace("~1", "/").replace("~0", "~"), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rules_strike_their_paths_and_run_out() {
        let faults = Faults::default();
        faults.add(FaultRule::below("/nodes/pve1", Fault::Hang).times(2));
        let id = faults.add(FaultRule::at("/nodes/pve1/qemu", Fault::Drop).method("GET"));
        assert_eq!(faults.strike("GET", "/nodes/pve1/qemu").len(), 2);
        assert_eq!(faults.strike("POST", "/nodes/pve1/qemu").len(), 1);
        assert_eq!(faults.strike("GET", "/nodes/pve1/qemu/100/config").len(), 0);
        faults.remove(id);
        assert_eq!(faults.strike("GET", "/nodes/pve1/qemu").len(), 0);
        faults.add(FaultRule::at("/nodes", Fault::Drop).after(2).times(1));
        let struck = [(); 4].map(|()| faults.strike("GET", "/nodes").len());
        assert_eq!(struck, [0, 0, 1, 0]);
    }

    #[test]
    fn values_are_replaced_and_added_but_never_out_of_nothing() {
        let mut body = json!({"data": [{"vmid": 1}]});
        replace(&mut body, "/data/0/vmid", json!("x"));
        replace(&mut body, "/data/0/a~1b", json!(null));
        replace(&mut body, "/data/7/vmid", json!(2));
        assert_eq!(body, json!({"data": [{"vmid": "x", "a/b": null}]}));
    }
}
