//! Managed scopes: ranges of numbers in which guests may be touched, and what may be done there.

use std::collections::BTreeSet;

use crate::desired::Problem;
use crate::plan::Action;

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
    /// A scope in which everything but deletions may be done.
    pub fn new(name: impl Into<String>, vmid_min: i64, vmid_max: i64) -> Self {
        Self {
            name: name.into(),
            vmid_min,
            vmid_max,
            pool: None,
            allow: Action::ALL.into_iter().filter(|action| *action != Action::Destroy).collect(),
            max_deletes: 0,
            max_restarts: None,
            paused: false,
        }
    }

    /// May this be done there? Marking is configuring.
    pub fn allows(&self, action: Action) -> bool {
        self.allow.contains(&if action == Action::Mark { Action::Configure } else { action })
    }

    /// Does this number lie in it?
    pub fn has(&self, vmid: i64) -> bool {
        (self.vmid_min..=self.vmid_max).contains(&vmid)
    }
}

/// The scope of a number.
pub fn of(scopes: &[Scope], vmid: i64) -> Option<&Scope> {
    scopes.iter().find(|scope| scope.has(vmid))
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
}
