//! The canonical form of guest options: two spellings that mean the same to PVE become equal values.
//!
//! # Guarantees
//! - Reading the text of a canonical value gives that value again.
//! - What is not of its option's kind, and an option that the tables do not know, stays as it is, byte for byte.

mod allowed;
mod defaults;
mod form;
mod options;
mod property;
mod scalars;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use pve_client::Size;
use pvegraph_inventory::GuestType;

pub(crate) use allowed::refused;
pub use defaults::{default_of, default_of_sub};
pub use form::{Format, Kind, Sub};
pub use options::{Managed, Opt, find, is_disk, is_nic, options};
pub(crate) use scalars::hex;

/// An option's value in canonical form.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Canonical {
    /// Yes or no.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// A number with decimals, in its shortest spelling.
    Decimal(String),
    /// A size in bytes.
    Bytes(u64),
    /// A text whose spelling matters.
    Text(String),
    /// Words whose order matters, with what separates them.
    List(Vec<String>, char),
    /// Words whose order does not matter, with what separates them.
    Set(BTreeSet<String>, char),
    /// SSH public keys; on the wire they are percent-encoded lines.
    Keys(BTreeSet<String>),
    /// A property string: its options by name, the default one's name spelled out.
    Map(BTreeMap<String, Canonical>),
    /// A secret: SHA-256 of it in hexadecimal, or `None` where PVE shows asterisks.
    Secret(Option<String>),
    /// Not of its option's kind, or of an unknown option: as it was.
    Raw(String),
}

/// What PVE shows in place of a secret.
pub const MASKED: &str = "**********";

/// What a hashed secret begins with.
const HASHED: &str = "sha256:";

/// What PVE leaves as it is in percent-encoded keys.
const IN_KEYS: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// How the datacenter spells tags (`tag-style` of `/cluster/options`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TagStyle {
    /// `Web` and `web` are two tags.
    pub case_sensitive: bool,
}

impl TagStyle {
    /// Tags keep their case: for what is desired, which is compared in the datacenter's style when that is known.
    pub const AS_WRITTEN: Self = Self { case_sensitive: true };
}

/// The canonical form of one option's value, as PVE's API has it.
pub fn canonical(guest: GuestType, key: &str, text: &str, style: TagStyle) -> Canonical {
    match options::find(guest, key) {
        Some(option) => option.kind.read(text, style),
        None => Canonical::Raw(text.to_owned()),
    }
}

impl fmt::Display for Canonical {
    /// In PVE's own spelling, as the API takes it. A hashed secret is shown as its hash.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let joined = |f: &mut fmt::Formatter<'_>, words: &mut dyn Iterator<Item = &String>, by: char| {
            for (place, word) in words.enumerate() {
                if place > 0 {
                    write!(f, "{by}")?;
                }
                f.write_str(word)?;
            }
            Ok(())
        };
        match self {
            Self::Bool(yes) => f.write_str(if *yes { "1" } else { "0" }),
            Self::Integer(number) => number.fmt(f),
            Self::Decimal(text) | Self::Text(text) | Self::Raw(text) => f.write_str(text),
            Self::Bytes(bytes) => Size::from_bytes(*bytes).fmt(f),
            Self::List(words, by) => joined(f, &mut words.iter(), *by),
            Self::Set(words, by) => joined(f, &mut words.iter(), *by),
            Self::Keys(keys) => {
                let lines: Vec<&str> = keys.iter().map(String::as_str).collect();
                utf8_percent_encode(&lines.join("\n"), IN_KEYS).fmt(f)
            }
            Self::Map(map) => {
                for (place, (key, value)) in map.iter().enumerate() {
                    if place > 0 {
                        f.write_str(",")?;
                    }
                    write!(f, "{key}={value}")?;
                }
                Ok(())
            }
            Self::Secret(None) => f.write_str(MASKED),
            Self::Secret(Some(hash)) => write!(f, "{HASHED}{hash}"),
        }
    }
}
