//! The caller, and the rights that an answer to it presupposes.

use serde_json::Value;

use super::prepare::Maker;
use crate::schema;
use crate::world::access::{AclEntry, Principal, Privileges, ROOT, User};

impl Maker<'_> {
    pub(super) fn grant(&mut self, path: &str, set: Privileges, propagate: bool) {
        let role = format!("replayed-{}", self.state.access.roles.len());
        self.state.access.roles.insert(role.clone(), set);
        let mut who = vec![self.principal.user().to_owned()];
        if matches!(self.principal, Principal::Token(..)) {
            who.push(self.principal.id());
        }
        for who in who {
            let entries = self.state.access.acl.entry(path.to_owned()).or_default();
            entries.push(AclEntry { who, role: role.clone(), propagate });
        }
    }

    pub fn grant_named(&mut self, path: &str, names: &[&str]) {
        self.grant(path, Privileges::named(names), true);
    }

    pub fn grant_exactly(&mut self, path: &str, names: &[&str], propagate: bool) {
        self.grant(path, Privileges::named(names), propagate);
    }

    /// Whether rights filter what an answer lists.
    pub(super) fn is_filtered(&self) -> bool {
        const FILTERED: [&str; 17] = [
            "/access/acl",
            "/access/groups",
            "/access/permissions",
            "/access/users",
            "/cluster/log",
            "/cluster/options",
            "/cluster/replication",
            "/cluster/resources",
            "/cluster/tasks",
            "/nodes",
            "/nodes/{node}/lxc",
            "/nodes/{node}/network",
            "/nodes/{node}/qemu",
            "/nodes/{node}/storage",
            "/nodes/{node}/tasks",
            "/pools",
            "/storage",
        ];
        self.recording.method == "GET" && FILTERED.contains(&self.template)
    }

    pub fn is_superuser(&self) -> bool {
        self.principal == Principal::User(ROOT.to_owned())
    }

    /// The caller exists and holds what the answer presupposes: all but what a refusal names; in a filtered list, only
    /// what its rows take.
    pub(super) fn rights(&mut self) {
        if let Principal::Token(user, name) = self.principal.clone() {
            // Root's token has root's rights; another one's are its own, so that they can be told apart.
            let separated = user != ROOT;
            crate::world::insert_token(&mut self.state, &user, &name, separated);
        } else if !self.is_superuser() {
            let user = User { enabled: true, ..User::default() };
            self.state.access.users.insert(self.principal.user().to_owned(), user);
        }
        if self.principal.user() == ROOT {
            return;
        }
        if self.recording.status == 403 {
            let named =
                self.reason().rsplit_once(", ").map(|(_, names)| names.trim_end_matches(')').to_owned());
            let lacking: Vec<String> = match named {
                Some(names) => names.split('|').map(str::to_owned).collect(),
                None => self.alternatives(),
            };
            self.grant("/", Privileges::filter(|name| !lacking.iter().any(|lacking| lacking == name)), true);
        } else if !(self.ok() && self.is_filtered()) {
            self.grant("/", Privileges::ALL, true);
        }
    }

    /// The privileges among which a method wants one: a refusal of those names none.
    pub(super) fn alternatives(&self) -> Vec<String> {
        fn collect(check: &Value, inside: bool, found: &mut Vec<String>) {
            let parts = check.as_array().map(Vec::as_slice).unwrap_or_default();
            let inside = inside || parts.first().is_some_and(|kind| kind == "or");
            for part in parts {
                match part {
                    Value::Array(_) => collect(part, inside, found),
                    Value::String(name) if inside && name.contains('.') => found.push(name.clone()),
                    _ => {}
                }
            }
        }
        let mut found = Vec::new();
        let below = self.recording.below().unwrap_or_default();
        if let Some(check) =
            schema::find(&self.recording.method, &below).and_then(|declared| declared.method.check.clone())
        {
            collect(&check, false, &mut found);
        }
        if found.is_empty() {
            found.push("VM.Allocate".to_owned());
        }
        found
    }
}
