//! What the user may do.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use crate::malformed::quote;
use crate::wire::{Mismatch, Reader, Wire};

/// `/access/permissions`: path → privilege → is it passed on to the paths below?
///
/// PVE lists the paths that it knows of (top-level ones, those in access lists, pools and pools' members), and of these
/// only those where the user has any privilege. So a path where `NoAccess` takes all privileges away is missing from the
/// list, and [`Permissions::has`] takes it for one that inherits: for certainty on one path, ask PVE with `path=`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Permissions(pub BTreeMap<String, Arc<Privileges>>);

/// The privileges on one path: is each passed on to the paths below?
pub type Privileges = BTreeMap<String, bool>;

impl Permissions {
    /// Has the user this privilege on this path?
    ///
    /// The path's own entry counts whatever its flags are. Without one the nearest path above decides that passes
    /// anything on; entries that pass nothing on leave the paths below to what is further above.
    pub fn has(&self, path: &str, privilege: &str) -> bool {
        let path = path.trim_end_matches('/');
        let path = if path.is_empty() { "/" } else { path };
        if let Some(own) = self.0.get(path) {
            return own.contains_key(privilege);
        }
        let mut rest = path;
        while let Some((above, _)) = rest.rsplit_once('/') {
            let entry = self.0.get(if above.is_empty() { "/" } else { above });
            if let Some(entry) = entry.filter(|entry| entry.values().any(|passed_on| *passed_on)) {
                return entry.get(privilege).copied().unwrap_or(false);
            }
            rest = above;
        }
        false
    }
}

impl Wire for Permissions {
    /// Pools' members are paths of their own: ten thousand guests have a handful of different privileges, kept once each.
    fn read(value: &Value, reader: &mut Reader) -> Result<Self, Mismatch> {
        let object = value.as_object().ok_or_else(|| Mismatch::new("an object"))?;
        let mut kinds: Vec<Arc<Privileges>> = Vec::new();
        let mut read = BTreeMap::new();
        for (path, item) in object {
            let name = || quote(path).trim_matches('"').to_owned();
            let Some(privileges) = reader.entry::<Privileges>("{}", name, item) else { continue };
            let privileges = match kinds.iter().find(|kind| ***kind == privileges) {
                Some(kind) => Arc::clone(kind),
                None => {
                    let kind = Arc::new(privileges);
                    kinds.push(Arc::clone(&kind));
                    kind
                }
            };
            read.insert(path.clone(), privileges);
        }
        Ok(Self(read))
    }

    fn write(&self) -> Value {
        let write = |(path, privileges): (&String, &Arc<Privileges>)| (path.clone(), privileges.write());
        Value::Object(self.0.iter().map(write).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn has(list: Value, path: &str, privilege: &str) -> bool {
        crate::wire::read::<Permissions>("/access/permissions", &list).unwrap().value.has(path, privilege)
    }

    #[test]
    fn the_nearest_path_that_passes_on_decides() {
        let list = json!({"/": {"VM.Audit": 1, "Sys.Audit": 1}, "/vms": {"VM.Config.Disk": 1}, "/vms/100": {"VM.Audit": 0}});
        assert!(has(list.clone(), "/nodes/pve1", "Sys.Audit"));
        assert!(has(list.clone(), "/", "VM.Audit"));
        assert!(has(list.clone(), "/vms/100", "VM.Audit"), "its own entry counts though it is not passed on");
        assert!(!has(list.clone(), "/vms/100/x", "VM.Audit"), "/vms decides, which has it not");
        assert!(has(list.clone(), "/vms/100/x", "VM.Config.Disk"));
        assert!(!has(list.clone(), "/vms/101", "VM.Audit"), "/vms replaces what / passes on");
        assert!(!has(list, "/vmsx", "VM.Config.Disk"));
    }

    #[test]
    fn an_entry_that_passes_nothing_on_does_not_stop_what_is_above_it() {
        let list = json!({"/": {"VM.Audit": 1}, "/vms": {"VM.Config.Disk": 0}});
        assert!(!has(list.clone(), "/vms", "VM.Audit"));
        assert!(has(list.clone(), "/vms/100", "VM.Audit"));
        assert!(!has(list.clone(), "/vms/100", "VM.Config.Disk"));
        assert!(has(list, "/vms/100/", "VM.Audit"), "a slash at the end is none");
        assert!(!has(json!({}), "/", "VM.Audit"));
        assert!(!has(json!({"/": {"VM.Audit": 1}}), "vms", "VM.Audit"), "a path begins with a slash");
    }
}
