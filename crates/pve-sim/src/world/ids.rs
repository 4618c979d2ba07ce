//! Identifiers that depend on the seed and on what they name, so that a world repeats exactly.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

fn hash(seed: u64, what: &str) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(seed.to_le_bytes());
    hash.update(what.as_bytes());
    hash.finalize().into()
}

/// A UUID for what is named; used for `smbios1`, `vmgenid` and token secrets.
pub fn uuid(seed: u64, what: &str) -> String {
    let mut bytes = hash(seed, what);
    if let Some(byte) = bytes.get_mut(6) {
        *byte = (*byte & 0x0f) | 0x40;
    }
    if let Some(byte) = bytes.get_mut(8) {
        *byte = (*byte & 0x3f) | 0x80;
    }
    let mut text = String::with_capacity(36);
    for (at, byte) in bytes.iter().take(16).enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// A MAC address with PVE's default prefix.
pub fn mac(seed: u64, what: &str) -> String {
    let [a, b, c, ..] = hash(seed, what);
    format!("BC:24:11:{a:02X}:{b:02X}:{c:02X}")
}

/// A SHA-256 fingerprint in PVE's spelling of these bytes.
pub fn fingerprint(bytes: &[u8]) -> String {
    let pairs: Vec<String> = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02X}")).collect();
    pairs.join(":")
}

/// A number from 0 up to 1 for a guest and a purpose, cheap enough for listings of many guests.
pub fn quick_fraction(seed: u64, vmid: u32, purpose: u32) -> f64 {
    // The finaliser of a well-known mixing function: neighbouring vmids come out unrelated.
    let mut bits = seed ^ (u64::from(vmid) << 32 | u64::from(purpose)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^= bits >> 31;
    (bits >> 11) as f64 / (1u64 << 53) as f64
}
