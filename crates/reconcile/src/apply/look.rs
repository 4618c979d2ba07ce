//! One guest as it is at this moment: what is looked at before and after each call.

use std::collections::BTreeMap;

use pve_client::{ApiError, ApiPath, PveClient};
use pvegraph_inventory::GuestType;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::canonical::hex;
use crate::journal::Found;
use crate::live::{self, LiveGuest};
use crate::plan::{FormValue, Request, pending_sha256};

/// Options that PVE writes by itself: the digest, what a replaced volume becomes, locks.
const OF_PVE: [&str; 6] = ["digest", "unused", "lock", "vmgenid", "meta", "parent"];

/// A guest as it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Look {
    /// Configuration and power.
    pub guest: LiveGuest,
    /// What waits for a restart: the value that comes, or nothing where the option goes.
    pub pending: BTreeMap<String, Option<String>>,
    /// Whether high availability manages it.
    pub ha_managed: bool,
}

impl Look {
    /// What the next call has to find.
    pub fn found(&self) -> Found {
        Found {
            digest: self.guest.config.get("digest").cloned(),
            pending: Some(pending_sha256(&self.pending)),
            rest: None,
            waiting: self.pending.keys().cloned().collect(),
            status: Some(self.guest.status.clone()),
            fingerprint: self.guest.fingerprint(),
        }
    }

    /// Our hash of the options in force that a call does not write.
    pub fn rest(&self, request: &Request) -> String {
        let disk = match request.set.get("disk").or(request.set.get("volume")) {
            Some(FormValue::Plain(disk)) => disk.as_str(),
            _ => "",
        };
        let written = |key: &str| {
            request.set.contains_key(key)
                || request.delete.contains(key)
                || key == disk
                // What waited comes into force with a restart.
                || self.pending.contains_key(key)
                || OF_PVE.iter().any(|own| key.starts_with(own))
        };
        let mut hasher = Sha256::new();
        for (key, value) in self.guest.config.iter().filter(|(key, _)| !written(key)) {
            hasher.update(format!("{}:{key}={}:{value};", key.len(), value.len()));
        }
        hex(&hasher.finalize())
    }

    /// High availability does nothing more with it.
    pub fn is_given_up(&self) -> bool {
        self.ha_managed && self.guest.ha.as_deref() == Some("error")
    }

    /// The lock that it is under.
    pub fn lock(&self) -> Option<&str> {
        self.guest.config.get("lock").map(String::as_str)
    }
}

/// Looks at a guest; nothing where it is not on that node.
///
/// # Errors
/// It can't be read.
pub async fn look(
    client: &PveClient,
    kind: GuestType,
    node: &str,
    vmid: i64,
) -> Result<Option<Look>, ApiError> {
    let path = |rest: &str| {
        ApiPath::new("look at the guest").node(node).fixed(kind.as_str()).segment(vmid).fixed(rest)
    };
    // One after the other: what is read last is the youngest, and the digest tells whether the others belong to it.
    let status = match client.get(&path("status/current")).await {
        Ok(status) => status,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(error),
    };
    let text = |key: &str| status.get(key).and_then(Value::as_str).map(str::to_owned);
    let ha_managed = status.pointer("/ha/managed").is_some_and(|value| *value == 1 || *value == true);
    let mut guest = LiveGuest {
        vmid,
        kind,
        node: node.to_owned(),
        status: text("status").unwrap_or_else(|| "unknown".to_owned()),
        pool: None,
        ha: status.pointer("/ha/state").and_then(Value::as_str).map(str::to_owned),
        config: BTreeMap::new(),
    };
    let pending = match live::pending(client, &guest).await {
        Ok(pending) => pending,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(error),
    };
    match client.get(&path("config").query("current", 1)).await {
        Ok(Value::Object(config)) => guest.config = live::texts(&config),
        Ok(_) => {}
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(error),
    }
    Ok(Some(Look { guest, pending, ha_managed }))
}
