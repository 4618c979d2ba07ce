//! The value that an option is written with.

use std::collections::{BTreeMap, BTreeSet};

use pvegraph_inventory::{ClusterId, GuestType};

use super::guard::Forbidden;
use super::merge::merged;
use super::request::{FormValue, Hidden, Onto, Origin};
use crate::canonical::{Canonical, Kind, TagStyle, canonical, find, is_disk, is_nic};
use crate::desired::Guest;
use crate::live::LiveGuest;
use crate::marker;

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;

/// How options of one guest are written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Values<'a> {
    pub(super) cluster: &'a ClusterId,
    pub(super) guest: &'a Guest,
    pub(super) style: TagStyle,
    /// It has the marker, or gets it in this plan.
    pub(super) marked: bool,
    /// What the guest has is only foretold: what is written goes onto what it has then.
    pub(super) forecast: bool,
}

impl Values<'_> {
    fn trailer(&self) -> Option<String> {
        self.marked.then(|| marker::trailer(self.cluster, &self.guest.uid))
    }

    /// Tags with the marker's.
    pub(super) fn tags(&self, text: &str) -> FormValue {
        let tags = match canonical(self.guest.kind, "tags", text, self.style) {
            Canonical::Set(mut tags, by) => {
                if self.marked {
                    tags.insert(marker::TAG.to_owned());
                }
                Canonical::Set(tags, by)
            }
            other => other,
        };
        FormValue::Plain(tags.to_string())
    }

    /// The guest's own description, with the marker's line.
    pub(super) fn live_description(&self, live: &LiveGuest) -> FormValue {
        let text = live.config.get("description").map(String::as_str).unwrap_or_default();
        FormValue::Hidden(Hidden::new(Origin::Live, text, self.trailer()))
    }

    /// An option as a whole: there is none of its name yet, or it is no property string.
    pub(super) fn whole(&self, key: &str) -> Result<FormValue, Forbidden> {
        let Some(wanted) = self.guest.fields.get(key) else {
            return match &self.guest.cipassword {
                Some(secret) if key == "cipassword" => Ok(FormValue::Secret { secret: secret.clone() }),
                _ => Err((key.to_owned(), "it is not desired any more: plan again".to_owned())),
            };
        };
        let kind = find(self.guest.kind, key).map_or(Kind::Text, |option| option.kind);
        Ok(match wanted {
            Canonical::Set(..) if key == "tags" => self.tags(&wanted.to_string()),
            _ if matches!(kind, Kind::Description) => {
                let trailer = self.trailer().filter(|_| key == "description");
                FormValue::Hidden(Hidden::new(Origin::Desired, &wanted.to_string(), trailer))
            }
            Canonical::Map(map) if is_disk(self.guest.kind, key) => FormValue::Plain(disk(key, map)?),
            Canonical::Map(map) if is_nic(self.guest.kind, key) => {
                let needed = if self.guest.kind == GuestType::Qemu { "model" } else { "name" };
                if !map.contains_key(needed) {
                    let example = if needed == "model" { "virtio" } else { "eth0" };
                    let text = format!("a new network interface needs its `{needed}`: write {example:?}");
                    return Err((format!("{key}.{needed}"), text));
                }
                FormValue::Plain(wanted.to_string())
            }
            // As PVE writes it itself, and as versions take it that knew no other form: `2048`, not `current=2048`.
            Canonical::Map(map) if map.len() == 1 => {
                let alone = kind.format().and_then(|format| map.get(format.default?));
                FormValue::Plain(alone.unwrap_or(wanted).to_string())
            }
            wanted => FormValue::Plain(wanted.to_string()),
        })
    }

    /// An option of which some parts change; the live string keeps its others. `grown`: its volume has the desired size then.
    pub(super) fn changed(
        &self,
        key: &str,
        live: &str,
        set: &BTreeSet<&str>,
        remove: &BTreeSet<&str>,
        grown: bool,
    ) -> Result<FormValue, Forbidden> {
        let Some(Canonical::Map(wanted)) = self.guest.fields.get(key) else {
            if self.forecast {
                return Ok(FormValue::Onto(Onto::new(BTreeMap::new(), remove)));
            }
            let text = merged::<Canonical>(self.guest.kind, key, live, &BTreeMap::new(), remove);
            return text.map(FormValue::Plain).ok_or_else(|| not_understood(key));
        };
        let mut values: BTreeMap<&str, &Canonical> =
            set.iter().filter_map(|sub| Some((*sub, wanted.get(*sub)?))).collect();
        // A volume grows first; the size that is written back must not be the one that it had.
        if grown
            && is_disk(self.guest.kind, key)
            && let Some(size) = wanted.get("size")
        {
            values.insert("size", size);
        }
        if self.forecast {
            let texts = values.into_iter().map(|(sub, value)| (sub.to_owned(), value.to_string())).collect();
            return Ok(FormValue::Onto(Onto::new(texts, remove)));
        }
        let text = merged(self.guest.kind, key, live, &values, remove);
        text.map(FormValue::Plain).ok_or_else(|| not_understood(key))
    }
}

/// What is there and can't be read stays.
pub(super) fn not_understood(key: &str) -> Forbidden {
    let text =
        "what the guest has there was not understood, and is never written over: change it at Proxmox VE";
    (key.to_owned(), text.to_owned())
}

/// A new volume as Proxmox VE allocates it, or what is put into a CD-ROM drive.
fn disk(key: &str, map: &BTreeMap<String, Canonical>) -> Result<String, Forbidden> {
    let mut text = match (map.get("volume"), map.get("storage"), map.get("size")) {
        (Some(volume), ..) => volume.to_string(),
        (None, Some(storage), Some(Canonical::Bytes(bytes))) => {
            if *bytes == 0 || bytes % MIB != 0 {
                let text = "a new disk has a whole number of MiB: write such a size";
                return Err((format!("{key}.size"), text.to_owned()));
            }
            let (whole, rest) = (bytes / GIB, bytes % GIB / MIB);
            // PVE counts GiB; a MiB is exact in ten decimals.
            let decimals = format!("{:010}", rest * (10_000_000_000 / 1024));
            match decimals.trim_end_matches('0') {
                "" => format!("{storage}:{whole}"),
                decimals => format!("{storage}:{whole}.{decimals}"),
            }
        }
        _ => {
            let text = "a new disk needs `storage` and `size`: write both";
            return Err((key.to_owned(), text.to_owned()));
        }
    };
    for (sub, value) in map.iter().filter(|(sub, _)| !matches!(sub.as_str(), "volume" | "storage" | "size")) {
        text.push_str(&format!(",{sub}={value}"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_disk_is_allocated_in_gib() {
        let map = |size: u64| {
            BTreeMap::from([
                ("storage".to_owned(), Canonical::Text("lvm".to_owned())),
                ("size".to_owned(), Canonical::Bytes(size)),
                ("iothread".to_owned(), Canonical::Bool(true)),
            ])
        };
        for (size, text) in [(32 * GIB, "lvm:32"), (1536 * MIB, "lvm:1.5"), (MIB, "lvm:0.0009765625")] {
            assert_eq!(disk("scsi1", &map(size)), Ok(format!("{text},iothread=1")));
        }
        assert!(disk("scsi1", &map(MIB + 1)).unwrap_err().1.contains("whole number of MiB"));
        assert!(disk("scsi1", &BTreeMap::new()).unwrap_err().1.contains("`storage` and `size`"));
        let cdrom = BTreeMap::from([
            ("volume".to_owned(), Canonical::Text("none".to_owned())),
            ("media".to_owned(), Canonical::Text("cdrom".to_owned())),
        ]);
        assert_eq!(disk("ide2", &cdrom).unwrap(), "none,media=cdrom");
    }
}
