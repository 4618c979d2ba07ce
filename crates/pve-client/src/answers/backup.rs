//! Backup jobs and what they cover.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::malformed::Malformed;
use crate::property::PropertyString;
use crate::vmid::Vmid;
use crate::wire::{CommaList, Mismatch, Reader, Wire, answer};

/// Which backups are kept: counts by `keep-last`, `keep-daily` and so on, and `keep-all=1`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// The counts by their keys, without their `keep-`.
    pub keep: BTreeMap<String, u64>,
}

impl Retention {
    /// Is nothing ever removed?
    pub fn keeps_all(&self) -> bool {
        self.keep.get("all").is_some_and(|count| *count > 0)
    }
}

impl FromStr for Retention {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let malformed = || Malformed::new("a retention such as `keep-last=3,keep-weekly=2`", text);
        let options: PropertyString = text.parse()?;
        let mut keep = BTreeMap::new();
        for (key, count) in options.iter() {
            let key = key.and_then(|key| key.strip_prefix("keep-")).ok_or_else(malformed)?;
            keep.insert(key.to_owned(), count.parse().map_err(|_| malformed())?);
        }
        Ok(Self { keep })
    }
}

impl fmt::Display for Retention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (key, count)) in self.keep.iter().enumerate() {
            let comma = if place > 0 { "," } else { "" };
            write!(f, "{comma}keep-{key}={count}")?;
        }
        Ok(())
    }
}

impl Wire for Retention {
    fn read(value: &Value, reader: &mut Reader) -> Result<Self, Mismatch> {
        let text = String::read(value, reader)?;
        text.parse().map_err(|problem: Malformed| Mismatch::new(problem.expected))
    }

    fn write(&self) -> Value {
        Value::String(self.to_string())
    }
}

/// A retention where PVE writes it as an object whose counts are texts; a text is read too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RetentionTable(pub Retention);

impl Wire for RetentionTable {
    fn read(value: &Value, reader: &mut Reader) -> Result<Self, Mismatch> {
        if value.is_string() {
            return Retention::read(value, reader).map(Self);
        }
        let table: BTreeMap<String, u64> = Wire::read(value, reader)?;
        let keep = table
            .into_iter()
            .map(|(key, count)| (key.strip_prefix("keep-").map_or(key.clone(), str::to_owned), count))
            .collect();
        Ok(Self(Retention { keep }))
    }

    fn write(&self) -> Value {
        let texts =
            self.0.keep.iter().map(|(key, count)| (format!("keep-{key}"), Value::from(count.to_string())));
        Value::Object(texts.collect())
    }
}

answer! {
    /// A row of `/cluster/backup`, and `/cluster/backup/{id}`. Which guests it covers is one of `all` (less `exclude`), `pool`
    /// and `vmid`.
    pub struct BackupJob {
        required {
            /// The job's name.
            id: String = "id",
        }
        optional {
            /// Does it run? Where it is absent PVE takes it for `true`.
            enabled: bool = "enabled",
            /// Always `vzdump`.
            kind: String = "type",
            /// When it runs, as a calendar event.
            schedule: String = "schedule",
            /// When it runs next; absent for a single job.
            next_run: u64 = "next-run",
            /// Days, in jobs of before PVE 7.1.
            dow: String = "dow",
            /// The time of day, in jobs of before PVE 7.1.
            starttime: String = "starttime",
            /// The storage it writes to.
            storage: String = "storage",
            /// The node it is limited to.
            node: String = "node",
            /// All guests?
            all: bool = "all",
            /// Guests left out of `all`.
            exclude: CommaList<Vmid> = "exclude",
            /// These guests.
            vmid: CommaList<Vmid> = "vmid",
            /// The guests of this pool.
            pool: String = "pool",
            /// `snapshot`, `suspend` or `stop`.
            mode: String = "mode",
            /// The compression.
            compress: String = "compress",
            /// The backups that are kept.
            prune_backups: RetentionTable = "prune-backups",
            /// A comment.
            comment: String = "comment",
            /// When mail is sent.
            mailnotification: String = "mailnotification",
            /// Whom to.
            mailto: String = "mailto",
            /// Which way to notify.
            notification_mode: String = "notification-mode",
            /// The note that each backup gets.
            notes_template: String = "notes-template",
            /// Are its backups protected?
            protected: bool = "protected",
            /// Is a missed run made up for?
            repeat_missed: bool = "repeat-missed",
        }
    }
}

/// `/cluster/backup/{id}/included_volumes`.
#[derive(Clone, Debug, PartialEq)]
pub struct IncludedVolumes {
    /// The guests.
    pub children: Vec<IncludedGuest>,
}

/// A job may cover every guest: they are read one by one.
impl Wire for IncludedVolumes {
    fn read(value: &Value, reader: &mut Reader) -> Result<Self, Mismatch> {
        let object = value.as_object().ok_or_else(|| Mismatch::new("an object"))?;
        let children = reader.required(object, "children")?;
        reader.note_unread(object, |key| key == "children");
        Ok(Self { children })
    }

    fn read_text(json: &str, reader: &mut Reader) -> Result<Self, Mismatch> {
        let object: BTreeMap<String, &RawValue> =
            serde_json::from_str(json).map_err(|_| Mismatch::new("an object"))?;
        let Some(children) = object.get("children") else {
            return Self::read(&Value::Object(Map::new()), reader);
        };
        let children =
            reader.step(Cow::Borrowed("children").into(), |reader| Vec::read_text(children.get(), reader))?;
        Ok(Self { children })
    }

    fn write(&self) -> Value {
        json!({ "children": self.children.write() })
    }
}

answer! {
    /// A guest of a backup job.
    pub struct IncludedGuest {
        required {
            /// The guest's number.
            id: Vmid = "id",
            /// Its volumes.
            children: Vec<IncludedVolume> = "children",
        }
        optional {
            /// Its name.
            name: String = "name",
            /// `qemu`, `lxc`, or `unknown` for a guest that is gone.
            kind: String = "type",
            /// Always false.
            leaf: bool = "leaf",
        }
    }
}

answer! {
    /// A volume of a guest of a backup job.
    pub struct IncludedVolume {
        required {
            /// The vmid, `:`, and the configuration's key, such as `120:scsi0`.
            id: String = "id",
            /// Is it in the backup? This, not `reason`, tells.
            included: bool = "included",
        }
        optional {
            /// The volume.
            name: String = "name",
            /// Why, as PVE words it.
            reason: String = "reason",
            /// Always true.
            leaf: bool = "leaf",
        }
    }
}

impl IncludedVolume {
    /// The configuration's key, such as `scsi0`.
    pub fn disk(&self) -> Option<&str> {
        self.id.split_once(':').map(|(_, disk)| disk)
    }
}

answer! {
    /// A row of `/cluster/backup-info/not-backed-up`: a guest in no job. PVE counts disabled jobs too.
    pub struct NotBackedUp {
        required {
            /// The guest's number.
            vmid: Vmid = "vmid",
        }
        optional {
            /// Its name.
            name: String = "name",
            /// `qemu` or `lxc`.
            kind: String = "type",
        }
    }
}
