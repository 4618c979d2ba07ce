//! Managed scopes: ranges of numbers in which guests may be touched, and what may be done there.

use std::collections::BTreeSet;

use crate::desired::Problem;
use crate::plan::{Action, Effect, Operation};

/// A scope. A guest belongs to the one that its number lies in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// Its name.
    pub name: String,
    /// The first number.
    pub vmid_min: i64,
    /// The last number.
    pub vmid_max: i64,
    /// Its guests have to be in this pool, and new ones come into it.
    pub pool: Option<String>,
    /// What may be done there.
    pub allow: BTreeSet<Action>,
    /// How many guests one plan may delete there.
    pub max_deletes: i64,
    /// How many guests one plan may restart there; nothing leaves that to the estate's limit.
    pub max_restarts: Option<i64>,
    /// Nothing may be done there now.
    pub paused: bool,
}

impl Scope {
    /// A scope in which everything may be done that can be brought back: no deletions, no templates, and no going back to snapshots.
    pub fn new(name: impl Into<String>, vmid_min: i64, vmid_max: i64) -> Self {
        Self {
            name: name.into(),
            vmid_min,
            vmid_max,
            pool: None,
            allow: Action::ALL.into_iter().filter(|action| !action.is_final()).collect(),
            max_deletes: 0,
            max_restarts: None,
            paused: false,
        }
    }

    /// May this be done there? Marking is configuring.
    pub fn allows(&self, action: Action) -> bool {
        self.allow.contains(&if action == Action::Mark { Action::Configure } else { action })
    }

    /// The limits of what one plan may do in it: field, limit, how many guests these operations count for, and what they would do.
    pub fn limits(&self, operations: &[Operation]) -> [(&'static str, Option<i64>, i64, &'static str); 2] {
        let here = |vmid: i64| self.has(vmid);
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        [
            ("max_deletes", Some(self.max_deletes), number(deleted(operations, here)), "be deleted"),
            ("max_restarts", self.max_restarts, number(down(operations, here)), "go down"),
        ]
    }

    /// Does this number lie in it?
    pub fn has(&self, vmid: i64) -> bool {
        (self.vmid_min..=self.vmid_max).contains(&vmid)
    }
}

/// How many guests are stopped or restarted.
pub fn down(operations: &[Operation], of: impl Fn(i64) -> bool) -> usize {
    count(operations, of, &[Effect::Restart, Effect::Stop])
}

/// How many guests are deleted.
pub fn deleted(operations: &[Operation], of: impl Fn(i64) -> bool) -> usize {
    count(operations, of, &[Effect::Delete])
}

fn count(operations: &[Operation], of: impl Fn(i64) -> bool, effects: &[Effect]) -> usize {
    let is = |one: &&Operation| effects.contains(&one.effect) && of(one.vmid);
    let guests: BTreeSet<&str> = operations.iter().filter(is).map(|one| one.uid.as_str()).collect();
    guests.len()
}

/// The scope of a number.
pub fn of(scopes: &[Scope], vmid: i64) -> Option<&Scope> {
    scopes.iter().find(|scope| scope.has(vmid))
}

/// Why nothing may be done with this number for now, and the mend.
pub fn paused(scopes: &[Scope], vmid: i64) -> Option<String> {
    let scope = of(scopes, vmid).filter(|scope| scope.paused)?;
    let name = &scope.name;
    Some(format!("its scope {name} is paused: `pvegraph scope set {name} --resume`"))
}

/// Why operations that were planned may not be done any more, as scopes are now: the guest, and the mend. `pool_of` tells the pool of a live
/// guest; nothing where the guest was not read, which the look before its first call tells.
pub fn forbidden(
    scopes: &[Scope],
    operations: &[Operation],
    pool_of: impl Fn(i64) -> Option<Option<String>>,
) -> Option<String> {
    for operation in operations {
        let subject = format!("{} (guest {})", operation.uid, operation.vmid);
        let Some(scope) = of(scopes, operation.vmid) else {
            return Some(format!(
                "{subject}: its number is in no scope any more: `pvegraph scope set NAME --vmids FIRST-LAST`, or desire another number"
            ));
        };
        let name = &scope.name;
        if let Some(why) = paused(scopes, operation.vmid) {
            return Some(format!("{subject}: {why}"));
        }
        let restarts = operation.effect == Effect::Restart
            || operation.requests.iter().any(|request| request.path.ends_with("/status/reboot"));
        let power = restarts.then_some(Action::Power);
        if let Some(action) =
            [operation.action].into_iter().chain(power).find(|action| !scope.allows(*action))
        {
            let action = action.as_str();
            return Some(format!(
                "{subject}: its scope {name} does not allow to {action}: add it to its `allow`"
            ));
        }
        if let (Some(pool), Some(has)) = (&scope.pool, pool_of(operation.vmid))
            && has.as_ref() != Some(pool)
        {
            return Some(format!(
                "{subject}: the guests of its scope {name} are in the pool {pool}, and this one is not: add it there"
            ));
        }
    }
    scopes.iter().find_map(|scope| {
        let limits = scope.limits(operations);
        let (field, limit, count, word) = limits.into_iter().find_map(|(field, limit, count, word)| {
            limit.filter(|limit| count > *limit).map(|limit| (field, limit, count, word))
        })?;
        Some(format!(
            "scope {}: {count} guests would {word}, and `{field}` is {limit}: do fewer at once",
            scope.name
        ))
    })
}

/// What is wrong with scopes by themselves.
pub fn check(scopes: &[Scope]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (at, scope) in scopes.iter().enumerate() {
        let mut tell = |field: &str, text: String| {
            problems.push(Problem::new(format!("scope {}", scope.name), field, text));
        };
        if scope.vmid_min > scope.vmid_max || scope.vmid_min < 100 {
            tell(
                "vmid_min",
                format!("{} to {} is no range of numbers from 100 on", scope.vmid_min, scope.vmid_max),
            );
        }
        if scope.max_deletes < 0 || scope.max_restarts.is_some_and(|count| count < 0) {
            tell("max_deletes", "a limit is below 0: write 0 or more".to_owned());
        }
        for other in scopes.iter().skip(at + 1) {
            if scope.vmid_min <= other.vmid_max && other.vmid_min <= scope.vmid_max {
                tell(
                    "vmid_min",
                    format!("it and the scope {} have numbers in common: part them", other.name),
                );
            }
        }
    }
    problems
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_ranges_without_common_numbers() {
        let scopes = [Scope::new("a", 100, 199), Scope::new("b", 200, 299)];
        assert_eq!(check(&scopes), []);
        assert_eq!(of(&scopes, 199).map(|scope| &*scope.name), Some("a"));
        assert_eq!(of(&scopes, 300), None);
        let told =
            |scopes: &[Scope]| check(scopes).iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        assert!(
            told(&[Scope::new("a", 100, 200), Scope::new("b", 200, 299)])
                .contains("scope b have numbers in common")
        );
        assert!(told(&[Scope::new("a", 200, 100)]).contains("no range"));
        assert!(told(&[Scope::new("a", 1, 100)]).contains("no range"));
        let negative = Scope { max_deletes: -1, ..Scope::new("a", 100, 200) };
        assert!(told(&[negative]).contains("`max_deletes`"));
        assert!(!Scope::new("a", 100, 200).allow.contains(&Action::Destroy));
    }

    fn configure(effect: &str, path: &str) -> Operation {
        serde_json::from_value(serde_json::json!({
            "number": 1, "after": [], "uid": "web", "vmid": 100, "kind": "qemu", "node": "pve1", "action": "configure",
            "effect": effect, "reversible": true, "fields": [], "reasons": [], "affects": [], "blast": 1,
            "fingerprint": null, "digest": null, "pending_sha256": null, "status": null,
            "requests": [{ "method": "POST", "path": path, "set": {}, "delete": [], "with_digest": true }],
        }))
        .unwrap()
    }

    #[test]
    fn scopes_that_were_changed_since_forbid_what_they_no_longer_allow() {
        let hot = [configure("hot", "/nodes/pve1/qemu/100/config")];
        let restart = [configure("restart", "/nodes/pve1/qemu/100/status/reboot")];
        let scope = || Scope::new("a", 100, 199);
        let told = |scope: Scope, operations: &[Operation], pool: Option<&str>| {
            forbidden(&[scope], operations, |_| Some(pool.map(str::to_owned))).unwrap_or_default()
        };
        assert_eq!(told(scope(), &hot, None), "");
        assert_eq!(told(scope(), &restart, None), "");
        assert!(forbidden(&[], &hot, |_| None).unwrap().contains("no scope any more"));
        assert!(told(Scope { paused: true, ..scope() }, &hot, None).contains("--resume"));
        let mut without = scope();
        without.allow.remove(&Action::Power);
        assert_eq!(told(without.clone(), &hot, None), "");
        assert!(told(without, &restart, None).contains("does not allow to power"));
        let mut without = scope();
        without.allow.remove(&Action::Configure);
        assert!(told(without, &hot, None).contains("does not allow to configure"));
        let pool = Scope { pool: Some("lab".to_owned()), ..scope() };
        assert_eq!(told(pool.clone(), &hot, Some("lab")), "");
        assert!(told(pool.clone(), &hot, Some("other")).contains("are in the pool lab"));
        assert!(told(pool, &hot, None).contains("pool lab"));
        let few = Scope { max_restarts: Some(0), ..scope() };
        assert_eq!(told(few.clone(), &hot, None), "");
        assert!(told(few, &restart, None).contains("`max_restarts` is 0"));
    }
}
