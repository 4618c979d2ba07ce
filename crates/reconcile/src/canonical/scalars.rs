//! Values that are no property strings.

use std::collections::BTreeSet;

use percent_encoding::percent_decode_str;
use sha2::{Digest, Sha256};

use super::{Canonical, HASHED, MASKED, TagStyle};

/// PVE's words for yes and no, in any case (`parse_boolean` of its JSON schema).
pub(super) fn boolean(text: &str) -> Option<Canonical> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "on" | "yes" | "true" => Some(Canonical::Bool(true)),
        "0" | "off" | "no" | "false" => Some(Canonical::Bool(false)),
        _ => None,
    }
}

pub(super) fn integer(text: &str) -> Option<Canonical> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten().map(Canonical::Integer)
}

/// Digits, a point at most. What a float would round keeps its digits, so that two different texts stay different.
pub(super) fn decimal(text: &str) -> Option<Canonical> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || (whole.is_empty() && fraction.is_empty()) {
        return None;
    }
    let whole = whole.trim_start_matches('0');
    let fraction = fraction.trim_end_matches('0');
    let whole = if whole.is_empty() { "0" } else { whole };
    Some(Canonical::Decimal(if fraction.is_empty() {
        whole.to_owned()
    } else {
        format!("{whole}.{fraction}")
    }))
}

/// Words apart at blanks, commas and semicolons, as PVE's `split_list` does it.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| c.is_whitespace() || matches!(c, ',' | ';' | '\0')).filter(|word| !word.is_empty())
}

pub(super) fn set(text: &str, by: char) -> Canonical {
    Canonical::Set(words(text).map(str::to_owned).collect(), by)
}

pub(super) fn list(text: &str, by: char) -> Canonical {
    Canonical::List(words(text).map(str::to_owned).collect(), by)
}

pub(super) fn tags(text: &str, style: TagStyle) -> Canonical {
    let tag = |word: &str| if style.case_sensitive { word.to_owned() } else { word.to_lowercase() };
    Canonical::Set(words(text).map(tag).collect(), ';')
}

/// `1` stands for what PVE plugs by default, `0` for nothing.
pub(super) fn hotplug(text: &str) -> Canonical {
    let mut of = words(text);
    match (of.next(), of.next()) {
        (Some("1"), None) => set("disk,network,usb", ','),
        (Some("0"), None) => Canonical::Text("0".to_owned()),
        _ => set(text, ','),
    }
}

/// SSH keys, percent-encoded; a text with a blank in it never was, and is taken as it stands.
pub(super) fn keys(text: &str) -> Option<Canonical> {
    let decoded = if text.contains(char::is_whitespace) {
        text.to_owned()
    } else {
        percent_decode_str(text).decode_utf8().ok()?.into_owned()
    };
    let keys: BTreeSet<String> =
        decoded.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
    // A line without a blank is no key, and would be decoded once more at the next reading.
    keys.iter().all(|key| key.contains(' ')).then_some(Canonical::Keys(keys))
}

/// PVE's files end a container's description with a line feed, and a machine's not.
pub(super) fn description(text: &str) -> Canonical {
    Canonical::Text(text.trim_end_matches('\n').to_owned())
}

pub(super) fn secret(text: &str) -> Canonical {
    if text == MASKED {
        return Canonical::Secret(None);
    }
    let hashed = text.strip_prefix(HASHED).filter(|hash| {
        hash.len() == 64 && hash.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    });
    let hash = hashed.map_or_else(|| hex(&Sha256::digest(text.as_bytes())), str::to_owned);
    Canonical::Secret(Some(hash))
}

/// Bytes in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
