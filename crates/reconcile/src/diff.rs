//! What differs between a desired guest and the live one: a value that prints itself.

use std::collections::BTreeMap;
use std::fmt;

use sha2::{Digest, Sha256};

use crate::canonical::{Canonical, Kind, TagStyle, canonical, default_of, default_of_sub, find};
use crate::desired::Guest;
use crate::live::LiveGuest;

/// What stands behind a difference.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// The live guest is not what is desired.
    Drift,
    /// It will be at the next start: the change is pending.
    PendingRestart,
    /// No change can bring it there; the words say why and what to do.
    Impossible(&'static str),
    /// There is no such guest.
    Missing,
    /// The guest of that number is another one.
    IdentityConflict,
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Drift => "drift",
            Self::PendingRestart => "pending restart",
            Self::Impossible(_) => "impossible",
            Self::Missing => "missing",
            Self::IdentityConflict => "identity conflict",
        })
    }
}

/// One field that differs. Values are as they may be shown: secrets and free text are not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The field: `cores`, `net0.bridge`.
    pub field: String,
    /// What the guest has; nothing where it has none.
    pub old: Option<String>,
    /// What is desired; nothing where it shall be removed.
    pub new: Option<String>,
    /// What stands behind it.
    pub class: Class,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "(absent)".to_owned());
        write!(f, "{}: {} → {}", self.field, shown(&self.old), shown(&self.new))?;
        match &self.class {
            Class::Drift => Ok(()),
            Class::Impossible(why) => write!(f, " [impossible: {why}]"),
            class => write!(f, " [{class}]"),
        }
    }
}

/// What differs of one guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestDiff {
    /// The desired guest.
    pub uid: String,
    /// Its number.
    pub vmid: Option<i64>,
    /// The fields that differ, in their order.
    pub changes: Vec<Change>,
}

impl GuestDiff {
    /// Nothing differs.
    pub fn noop(&self) -> bool {
        self.changes.is_empty()
    }

    /// The same where it goes to this one of the nodes that it may be on.
    #[must_use]
    pub fn placed(&self, node: &str) -> Self {
        let mut placed = self.clone();
        for change in placed.changes.iter_mut().filter(|change| change.field == "node") {
            change.new = Some(node.to_owned());
        }
        placed
    }

    /// The same with the password among what differs: whether it does can't be seen.
    #[must_use]
    pub fn with_secrets_anew(&self) -> Self {
        self.with_secret("(a secret, sent anew)")
    }

    /// The same where it does, because it was changed where it is kept: see [`crate::sent`].
    #[must_use]
    pub fn with_changed_secret(&self) -> Self {
        self.with_secret("(a secret, changed where it is kept)")
    }

    fn with_secret(&self, new: &str) -> Self {
        let mut with = self.clone();
        if with.changes.iter().all(|change| change.field != "cipassword") {
            with.changes.push(Change {
                field: "cipassword".to_owned(),
                old: Some("(a secret)".to_owned()),
                new: Some(new.to_owned()),
                class: Class::Drift,
            });
            with.changes.sort_by(|a, b| a.field.cmp(&b.field));
        }
        with
    }
}

impl fmt::Display for GuestDiff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.vmid {
            Some(vmid) => write!(f, "{} (guest {vmid})", self.uid)?,
            None => f.write_str(&self.uid)?,
        }
        if self.noop() {
            return f.write_str(": as desired");
        }
        self.changes.iter().try_for_each(|change| write!(f, "\n  {change}"))
    }
}

/// Why a volume can't be made smaller.
const SHRINK: &str =
    "Proxmox VE can't shrink a volume; desire the size that it has, or move the data to a new guest";
/// Why a container can't change its privileges.
const PRIVILEGES: &str =
    "a container's privileges are set when it is made; back it up and restore it the other way";

/// A guest that is not there.
pub fn missing(guest: &Guest) -> GuestDiff {
    let change = Change {
        field: "guest".to_owned(),
        old: None,
        new: Some(guest.kind.as_str().to_owned()),
        class: Class::Missing,
    };
    // What shall be gone and is gone is as desired.
    let changes = if guest.tombstone { Vec::new() } else { vec![change] };
    GuestDiff { uid: guest.uid.clone(), vmid: guest.vmid, changes }
}

/// A guest that is another one than was bound: `old` and `new` are the fingerprints. Nothing else of it is compared.
pub fn another(guest: &Guest, bound: Option<&str>, live: Option<&str>) -> GuestDiff {
    let change = Change {
        field: "identity".to_owned(),
        old: live.map(str::to_owned),
        new: bound.map(str::to_owned),
        class: Class::IdentityConflict,
    };
    GuestDiff { uid: guest.uid.clone(), vmid: guest.vmid, changes: vec![change] }
}

/// What differs between the desired guest and the live one. `pending`: what waits for a restart there, see
/// [`crate::live::pending`]. Only what is desired is compared.
pub fn diff(
    guest: &Guest,
    live: &LiveGuest,
    pending: &BTreeMap<String, Option<String>>,
    style: TagStyle,
) -> GuestDiff {
    let mut changes = Vec::new();
    let mut found = |field: String, old: Option<String>, new: Option<String>, class: Class| {
        changes.push(Change { field, old, new, class });
    };
    if live.kind != guest.kind {
        let word = |kind: pvegraph_inventory::GuestType| Some(kind.as_str().to_owned());
        found("type".to_owned(), word(live.kind), word(guest.kind), Class::IdentityConflict);
        return GuestDiff { uid: guest.uid.clone(), vmid: guest.vmid, changes };
    }
    if guest.tombstone {
        found("guest".to_owned(), Some(guest.kind.as_str().to_owned()), None, Class::Drift);
        return GuestDiff { uid: guest.uid.clone(), vmid: guest.vmid, changes };
    }
    if !guest.may_be_on(&live.node) {
        found("node".to_owned(), Some(live.node.clone()), guest.place(), Class::Drift);
    }
    if let Some(state) = guest.state.filter(|state| state.as_str() != live.status) {
        found("state".to_owned(), Some(live.status.clone()), Some(state.as_str().to_owned()), Class::Drift);
    }
    if guest.template && live.config.get("template").is_none_or(|value| value != "1") {
        found("template".to_owned(), None, Some("1".to_owned()), Class::Drift);
    }
    if guest.cipassword.is_some() && !live.config.contains_key("cipassword") {
        found("cipassword".to_owned(), None, Some("(a secret)".to_owned()), Class::Drift);
    }
    for (key, wanted) in &guest.fields {
        let has = live.option(key, style);
        let styled;
        let wanted = match wanted {
            // The datacenter says whether their case counts.
            Canonical::Set(..) if key == "tags" => {
                styled = canonical(guest.kind, key, &wanted.to_string(), style);
                &styled
            }
            wanted => wanted,
        };
        let coming =
            pending.get(key).map(|text| text.as_ref().map(|text| canonical(guest.kind, key, text, style)));
        let kind = find(guest.kind, key).map_or(Kind::Text, |option| option.kind);
        match (wanted, &has) {
            (Canonical::Map(wanted), Some(Canonical::Map(has))) => {
                for (sub, wanted) in wanted {
                    if sub == "size" && has_own_size(key) {
                        continue;
                    }
                    let old = has.get(sub);
                    let is = old.cloned().or_else(|| default_of_sub(guest.kind, key, sub));
                    if is.as_ref() == Some(wanted) {
                        continue;
                    }
                    let comes = coming.as_ref().is_some_and(|coming| match coming {
                        Some(Canonical::Map(map)) => map.get(sub) == Some(wanted),
                        _ => false,
                    });
                    let class = class(comes, || match (wanted, old) {
                        (Canonical::Bytes(wanted), Some(Canonical::Bytes(old))) if wanted < old => {
                            Some(SHRINK)
                        }
                        _ => None,
                    });
                    found(
                        format!("{key}.{sub}"),
                        old.map(|old| shown(kind, old)),
                        Some(shown(kind, wanted)),
                        class,
                    );
                }
            }
            (wanted, has) => {
                let default = has.is_none().then(|| default_of(guest.kind, key)).flatten();
                if has.as_ref().or(default.as_ref()) == Some(wanted) || contained(wanted, default.as_ref()) {
                    continue;
                }
                let comes = matches!(&coming, Some(Some(coming)) if coming == wanted);
                let class = class(comes, || (key == "unprivileged").then_some(PRIVILEGES));
                found(
                    key.clone(),
                    has.as_ref().map(|has| shown(kind, has)),
                    Some(shown(kind, wanted)),
                    class,
                );
            }
        }
    }
    for key in &guest.unset {
        let (option, sub) =
            key.split_once('.').map_or((key.as_str(), None), |(option, sub)| (option, Some(sub)));
        let kind = find(guest.kind, option).map_or(Kind::Text, |option| option.kind);
        let has = live.option(option, style);
        let old = match (has, sub) {
            (Some(Canonical::Map(map)), Some(sub)) => map.get(sub).cloned(),
            (has, None) => has,
            _ => None,
        };
        if let Some(old) = old {
            let comes = sub.is_none() && matches!(pending.get(option), Some(None));
            found(key.clone(), Some(shown(kind, &old)), None, class(comes, || None));
        }
    }
    changes.sort_by(|a, b| a.field.cmp(&b.field));
    GuestDiff { uid: guest.uid.clone(), vmid: guest.vmid, changes }
}

/// Proxmox VE makes these disks as large as they have to be, whatever it is asked for.
pub(crate) fn has_own_size(key: &str) -> bool {
    matches!(key, "efidisk0" | "tpmstate0")
}

/// The desired options of an absent property string are all what it has by default.
fn contained(wanted: &Canonical, default: Option<&Canonical>) -> bool {
    match (wanted, default) {
        (Canonical::Map(wanted), Some(Canonical::Map(default))) => {
            wanted.iter().all(|(key, value)| default.get(key) == Some(value))
        }
        _ => false,
    }
}

fn class(comes: bool, impossible: impl FnOnce() -> Option<&'static str>) -> Class {
    match impossible() {
        Some(why) => Class::Impossible(why),
        None if comes => Class::PendingRestart,
        None => Class::Drift,
    }
}

/// A value as it may be shown: free text may hold secrets, and keys are long.
pub fn shown(kind: Kind, value: &Canonical) -> String {
    let brief = |text: &str| {
        let hash = crate::canonical::hex(&Sha256::digest(text.as_bytes()));
        format!("sha256 {}", hash.get(..12).unwrap_or_default())
    };
    match (kind, value) {
        (Kind::Description, value) => {
            let text = value.to_string();
            format!("(a text of {} characters, {})", text.chars().count(), brief(&text))
        }
        (_, Canonical::Keys(keys)) => format!("({} keys, {})", keys.len(), brief(&value.to_string())),
        (_, Canonical::Secret(_)) => "(a secret)".to_owned(),
        (_, value) => value.to_string(),
    }
}
