//! A guest's configuration, kept small, and the property strings in it.

use std::borrow::Cow;
use std::fmt::Write as _;

use serde_json::{Map, Value};

/// One value of a guest's configuration, as PVE types it in answers.
///
/// `cores` is an integer and `memory` of a VM a string; the type is part of the datum.
#[derive(Clone, Debug, PartialEq)]
pub enum ConfigValue {
    /// An integer, and PVE's booleans (0 and 1).
    Int(i64),
    /// Anything else.
    Text(Box<str>),
    /// A value that no PVE would send, for tests of odd guests.
    Odd(Box<Value>),
}

impl ConfigValue {
    /// The value in an answer.
    pub fn to_json(&self) -> Value {
        match self {
            Self::Int(number) => Value::from(*number),
            Self::Text(text) => Value::from(text.as_ref()),
            Self::Odd(value) => value.as_ref().clone(),
        }
    }

    /// The value as the configuration file spells it.
    pub fn to_text(&self) -> Cow<'_, str> {
        match self {
            Self::Int(number) => Cow::Owned(number.to_string()),
            Self::Text(text) => Cow::Borrowed(text),
            Self::Odd(value) => Cow::Owned(value.to_string()),
        }
    }
}

macro_rules! from_integer {
    ($($integer:ty),*) => {$(
        impl From<$integer> for ConfigValue {
            fn from(value: $integer) -> Self {
                Self::Int(value.into())
            }
        }
    )*};
}
from_integer!(i64, i32, u32, u8);

impl From<&str> for ConfigValue {
    fn from(value: &str) -> Self {
        Self::Text(value.into())
    }
}

impl From<String> for ConfigValue {
    fn from(value: String) -> Self {
        Self::Text(value.into())
    }
}

impl From<Value> for ConfigValue {
    fn from(value: Value) -> Self {
        match value {
            Value::String(text) => Self::Text(text.into()),
            Value::Number(number) if number.is_i64() => Self::Int(number.as_i64().unwrap_or_default()),
            other => Self::Odd(Box::new(other)),
        }
    }
}

/// The keys and values of one guest's configuration file, sorted by key.
///
/// A sorted vector rather than a map: 100,000 guests with some 20 keys each stay far below a gigabyte.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config(Vec<(Cow<'static, str>, ConfigValue)>);

impl Config {
    fn position(&self, key: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(have, _)| have.as_ref().cmp(key))
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&ConfigValue> {
        self.position(key).ok().and_then(|at| self.0.get(at)).map(|(_, value)| value)
    }

    /// The value of `key` as text.
    pub fn text(&self, key: &str) -> Option<Cow<'_, str>> {
        self.get(key).map(ConfigValue::to_text)
    }

    /// The value of `key` as an integer, also where PVE keeps it as a string.
    pub fn int(&self, key: &str) -> Option<i64> {
        match self.get(key)? {
            ConfigValue::Int(number) => Some(*number),
            other => other.to_text().trim().parse().ok(),
        }
    }

    /// Sets `key`.
    pub fn set(&mut self, key: impl Into<Cow<'static, str>>, value: impl Into<ConfigValue>) {
        let key = key.into();
        match self.position(&key) {
            Ok(at) => {
                if let Some(entry) = self.0.get_mut(at) {
                    entry.1 = value.into();
                }
            }
            Err(at) => self.0.insert(at, (key, value.into())),
        }
    }

    /// Removes `key` and says whether it was there.
    pub fn remove(&mut self, key: &str) -> bool {
        match self.position(key) {
            Ok(at) => {
                self.0.remove(at);
                true
            }
            Err(_) => false,
        }
    }

    /// All keys and values, sorted by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &ConfigValue)> {
        self.0.iter().map(|(key, value)| (key.as_ref(), value))
    }

    /// The keys and values as an answer shows them, without the digest.
    pub fn to_json(&self) -> Map<String, Value> {
        self.iter().map(|(key, value)| (key.to_owned(), value.to_json())).collect()
    }

    /// The digest of the whole configuration: 40 hexadecimal digits, another one after every change.
    ///
    /// PVE takes the SHA-1 of the file; clients may only compare digests, so any hash will do here.
    pub fn digest(&self) -> String {
        use sha2::{Digest as _, Sha256};
        let mut hash = Sha256::new();
        for (key, value) in self.iter() {
            hash.update(key.as_bytes());
            hash.update(b": ");
            hash.update(value.to_text().as_bytes());
            hash.update(b"\n");
        }
        let mut text = String::with_capacity(40);
        for byte in hash.finalize().iter().take(20) {
            let _ = write!(text, "{byte:02x}");
        }
        text
    }
}

/// One volume or drive of a guest: the key it stands under and its property string taken apart.
#[derive(Clone, Debug, PartialEq)]
pub struct Drive<'a> {
    /// `scsi0`, `rootfs`, `mp1`, `unused0`, …
    pub key: &'a str,
    /// The first part of the property string: a volume id, `none`, or a path.
    pub volume: String,
    /// The options after it, in their order.
    pub options: Vec<(String, String)>,
}

impl Drive<'_> {
    /// The value of an option.
    pub fn option(&self, name: &str) -> Option<&str> {
        self.options.iter().find(|(have, _)| have == name).map(|(_, value)| value.as_str())
    }

    /// The storage that the volume lies on; `None` for `none`, host paths and devices.
    pub fn storage(&self) -> Option<&str> {
        if self.volume.starts_with('/') {
            return None;
        }
        self.volume.split_once(':').map(|(storage, _)| storage)
    }

    /// Whether it is a CD-ROM drive. A cloud-init drive is one, too.
    pub fn is_cdrom(&self) -> bool {
        self.option("media") == Some("cdrom")
    }

    /// The size in bytes, where the property string has one.
    pub fn size(&self) -> Option<u64> {
        parse_size(self.option("size")?)
    }

    /// The property string again.
    pub fn to_property_string(&self) -> String {
        let mut text = self.volume.clone();
        for (name, value) in &self.options {
            let _ = write!(text, ",{name}={value}");
        }
        text
    }
}

/// Takes a drive's property string apart: the volume first, sorted options after it.
pub fn parse_drive<'a>(key: &'a str, value: &str) -> Drive<'a> {
    let mut parts = value.split(',');
    let first = parts.next().unwrap_or_default();
    let volume = first.strip_prefix("file=").or_else(|| first.strip_prefix("volume=")).unwrap_or(first);
    let options = parts
        .map(|part| part.split_once('=').unwrap_or((part, "")))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    Drive { key, volume: volume.to_owned(), options }
}

/// Whether `key` is `prefix` followed by digits only.
pub fn is_numbered(key: &str, prefix: &str) -> bool {
    key.strip_prefix(prefix)
        .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Whether a QEMU guest keeps a drive or state volume under `key` (`unusedN` is not attached, hence not one).
pub fn is_qemu_disk_key(key: &str) -> bool {
    ["scsi", "virtio", "sata", "ide"].iter().any(|bus| is_numbered(key, bus))
        || key == "efidisk0"
        || key == "tpmstate0"
}

/// Whether a container keeps a volume or mount under `key`.
pub fn is_lxc_disk_key(key: &str) -> bool {
    key == "rootfs" || is_numbered(key, "mp")
}

/// A size such as `528K`, `1536M`, `32G` or plain bytes.
pub fn parse_size(text: &str) -> Option<u64> {
    let (digits, unit) = match text.find(|character: char| !character.is_ascii_digit()) {
        Some(at) => text.split_at(at),
        None => (text, ""),
    };
    let factor: u64 = match unit {
        "" => 1,
        "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        "T" => 1 << 40,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

/// PVE's spelling of a size in property strings: the largest unit that divides it.
pub fn format_size(bytes: u64) -> String {
    for (shift, unit) in [(40, "T"), (30, "G"), (20, "M"), (10, "K")] {
        if bytes > 0 && bytes.trailing_zeros() >= shift {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    bytes.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_round_trip_in_pve_spelling() {
        for text in ["528K", "4M", "1536M", "1G", "32G", "2T", "1000"] {
            assert_eq!(format_size(parse_size(text).unwrap()), text);
        }
        assert_eq!(parse_size("12X"), None);
        assert_eq!(parse_size("99999999999999T"), None);
    }

    #[test]
    fn a_config_is_sorted_and_its_digest_follows_every_change() {
        let mut config = Config::default();
        config.set("scsi0", "local:1/vm-1-disk-0.qcow2,size=1G");
        config.set("cores", 2);
        let before = config.digest();
        assert_eq!(before.len(), 40);
        config.set("cores", 4);
        assert_ne!(config.digest(), before);
        assert_eq!(config.iter().map(|(key, _)| key).collect::<Vec<_>>(), ["cores", "scsi0"]);
        assert!(config.remove("cores") && !config.remove("cores"));
    }

    #[test]
    fn drives_are_taken_apart_and_put_together() {
        let text = "data:101/vm-101-disk-1.qcow2,backup=0,cache=writeback,size=1536M";
        let drive = parse_drive("scsi0", text);
        assert_eq!(drive.storage(), Some("data"));
        assert_eq!(drive.size(), Some(1536 << 20));
        assert_eq!(drive.to_property_string(), text);
        assert!(parse_drive("ide2", "none,media=cdrom").is_cdrom());
        assert_eq!(parse_drive("mp0", "/mnt/x,mp=/x").storage(), None);
        assert!(is_qemu_disk_key("virtio12") && !is_qemu_disk_key("scsihw") && !is_qemu_disk_key("unused0"));
    }
}
