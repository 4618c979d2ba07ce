//! The desired state that a cluster already fulfils: what `discover` writes and `adopt` starts from.

use std::collections::BTreeMap;

use pvegraph_inventory::{ClusterId, GuestType};

use crate::canonical::{Canonical, Kind, Managed, TagStyle, find, is_disk, refused};
use crate::desired::{Desired, Guest, default_uid};
use crate::document::Power;
use crate::live::LiveGuest;

/// What is left out of what is discovered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Omit {
    /// Descriptions and `args`: they may hold secrets.
    pub free_text: bool,
    /// Whether guests run, and on which node.
    pub placement: bool,
}

/// The desired state of a cluster whose guests are these, and what could not be taken over: guest and option, with the reason.
pub fn discovered(
    cluster: &ClusterId,
    guests: &BTreeMap<i64, LiveGuest>,
    omit: Omit,
) -> (Desired, Vec<String>) {
    let mut left_out = Vec::new();
    let mut found = BTreeMap::new();
    for guest in guests.values() {
        let (desired, more) = guest_as_desired(guest, omit);
        left_out.extend(more.into_iter().map(|text| format!("guest {}: {text}", guest.vmid)));
        found.insert(desired.uid.clone(), desired);
    }
    let desired = Desired { cluster: cluster.clone(), node: None, guests: found, sections: BTreeMap::new() };
    (desired, left_out)
}

/// The desired guest that a live one already is, and what of it can't be desired here.
pub fn guest_as_desired(live: &LiveGuest, omit: Omit) -> (Guest, Vec<String>) {
    let mut guest = Guest::new(default_uid(live.kind, live.vmid), live.kind);
    let mut left_out = Vec::new();
    guest.vmid = Some(live.vmid);
    if !omit.placement {
        guest.node = Some(live.node.clone());
        guest.state = match live.status.as_str() {
            "running" => Some(Power::Running),
            "stopped" => Some(Power::Stopped),
            _ => None,
        };
    }
    guest.template = live.config.get("template").is_some_and(|value| value == "1");
    for key in live.config.keys() {
        let Some(option) = find(live.kind, key) else {
            left_out.push(format!("`{key}` is an option that this program does not know"));
            continue;
        };
        let kept = matches!(option.kind, Kind::Secret)
            || (omit.free_text && matches!(option.kind, Kind::Description));
        if option.managed != Managed::Yes {
            continue;
        }
        if kept {
            left_out.push(format!("`{key}` may be a secret"));
            continue;
        }
        match live.option(key, TagStyle::AS_WRITTEN) {
            None => {}
            Some(Canonical::Raw(_)) => left_out.push(format!("`{key}` was not understood")),
            Some(Canonical::Map(mut map)) => {
                let disk = is_disk(live.kind, key);
                // Told by the volume's name, and no option of its own where there is none of that name.
                if disk && option.kind.format().is_some_and(|format| format.sub("format").is_none()) {
                    map.remove("format");
                }
                let known = |sub: &str| {
                    disk && sub == "storage"
                        || option.kind.format().is_some_and(|format| format.sub(sub).is_some())
                };
                let (map, odd): (BTreeMap<_, _>, BTreeMap<_, _>) = map
                    .into_iter()
                    .partition(|(sub, value)| known(sub) && !matches!(value, Canonical::Raw(_)));
                left_out.extend(odd.into_keys().map(|sub| format!("`{key}.{sub}` was not understood")));
                let map = if disk { volume(live.kind, map) } else { map };
                guest.fields.insert(key.clone(), Canonical::Map(map));
            }
            Some(value) => {
                guest.fields.insert(key.clone(), value);
            }
        }
    }
    left_out.extend(without_refused(&mut guest));
    (guest, left_out)
}

/// Takes out what a document may not have, because Proxmox VE 8.4 refuses it: another version may have let the guest have it.
fn without_refused(guest: &mut Guest) -> Vec<String> {
    let kind = guest.kind;
    let fields: Vec<String> = guest
        .fields
        .iter()
        .flat_map(|(key, value)| refused(kind, key, value))
        .map(|(field, _)| field)
        .collect();
    for field in &fields {
        match field.split_once('.') {
            Some((key, sub)) => {
                if let Some(Canonical::Map(map)) = guest.fields.get_mut(key) {
                    map.remove(sub);
                }
            }
            None => drop(guest.fields.remove(field)),
        }
    }
    let told =
        |field: String| format!("`{field}` has a value that Proxmox VE 8.4 refuses: it stays as it is");
    fields.into_iter().map(told).collect()
}

/// A disk is desired by storage and size: its name is PVE's. What is in a CD-ROM drive is desired by name, and has no size.
fn volume(kind: GuestType, mut map: BTreeMap<String, Canonical>) -> BTreeMap<String, Canonical> {
    let of = |map: &BTreeMap<String, Canonical>, key: &str| map.get(key).map(ToString::to_string);
    let cdrom = kind == GuestType::Qemu && of(&map, "media").as_deref() == Some("cdrom");
    if cdrom {
        for key in ["storage", "format", "size"] {
            map.remove(key);
        }
    } else if map.contains_key("storage") {
        map.remove("volume");
    }
    map
}
