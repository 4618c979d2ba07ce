//! Logins: who they are of, and what of a request only its own cluster understood.

use std::collections::BTreeMap;

use super::prepare::Maker;
use crate::world::access::{Principal, ROOT};

impl Maker<'_> {
    /// Who logs in is known by that password; tickets of another cluster are replaced by this one's, and digests that were
    /// right there left out.
    pub(super) fn login(&mut self) -> BTreeMap<String, String> {
        let mut changed = BTreeMap::new();
        let stale = ["checksum mis", "detected modified configuration", "Parameter verification failed"];
        if self.parameters.contains_key("digest") && !stale.iter().any(|text| self.reason().contains(text)) {
            changed.insert("digest".to_owned(), super::REMOVED.to_owned());
        }
        if self.template != "/access/ticket" || !self.ok() || self.recording.method != "POST" {
            return changed;
        }
        let given = self.parameters.clone();
        let name = given.get("username").cloned().unwrap_or_default();
        let id = match given.get("realm") {
            Some(realm) if !name.contains('@') => format!("{name}@{realm}"),
            _ => name,
        };
        let password = given.get("password").cloned().unwrap_or_default();
        let second = self.data().get("NeedTFA").is_some();
        let user = self.ensure_user(&id);
        if let Some(code) = password.strip_prefix("totp:").filter(|_| given.contains_key("tfa-challenge")) {
            user.totp = Some(code.to_owned());
            changed.insert("tfa-challenge".to_owned(), format!("@challenge {id}"));
        } else if password.starts_with("PVE:") {
            changed.insert("password".to_owned(), format!("@ticket {id}"));
        } else {
            user.password = Some(password);
            user.totp = second.then(|| "000000".to_owned());
        }
        self.capabilities(&id);
        changed
    }

    /// The rights that a login's answer shows.
    fn capabilities(&mut self, id: &str) {
        if id == ROOT {
            return;
        }
        self.principal = Principal::User(id.to_owned());
        let caps = self.data().get("cap").cloned().unwrap_or_default();
        for (group, path) in [
            ("access", "/access"),
            ("dc", "/"),
            ("mapping", "/mapping"),
            ("nodes", "/nodes"),
            ("sdn", "/sdn"),
            ("storage", "/storage"),
            ("vms", "/vms"),
        ] {
            let names: Vec<&str> =
                caps[group].as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect();
            if !names.is_empty() {
                self.grant_exactly(path, &names, false);
            }
        }
    }
}
