//! The number of a guest.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::malformed::Malformed;

/// The number of a guest, unique in its cluster among QEMU and LXC guests, from 100 to 999,999,999.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u32")]
pub struct Vmid(u32);

impl Vmid {
    /// The smallest number that PVE gives to a guest; those below are kept for PVE's own use.
    pub const MIN: u32 = 100;
    /// The largest number that PVE accepts.
    pub const MAX: u32 = 999_999_999;
    const EXPECTED: &'static str = "a vmid from 100 to 999999999";

    /// The vmid of this number.
    ///
    /// # Errors
    /// The number is outside [`Self::MIN`]`..=`[`Self::MAX`].
    pub fn new(number: u64) -> Result<Self, Malformed> {
        match u32::try_from(number) {
            Ok(small) if (Self::MIN..=Self::MAX).contains(&small) => Ok(Self(small)),
            _ => Err(Malformed::new(Self::EXPECTED, &number.to_string())),
        }
    }

    /// The number.
    pub fn get(self) -> u32 {
        self.0
    }
}

impl FromStr for Vmid {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        // PVE refuses signs and leading zeros, and so must we, or `0100` and `100` would be two spellings.
        if text.starts_with('0') || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(Malformed::new(Self::EXPECTED, text));
        }
        let number: u64 = text.parse().map_err(|_| Malformed::new(Self::EXPECTED, text))?;
        Self::new(number)
    }
}

impl fmt::Display for Vmid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl TryFrom<u64> for Vmid {
    type Error = Malformed;

    fn try_from(number: u64) -> Result<Self, Malformed> {
        Self::new(number)
    }
}

impl From<Vmid> for u32 {
    fn from(vmid: Vmid) -> u32 {
        vmid.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_bounds_are_those_of_pve() {
        for good in ["100", "101", "999999999"] {
            assert_eq!(good.parse::<Vmid>().unwrap().to_string(), good);
        }
        for bad in
            ["", "99", "0", "-1", "+100", "0100", "1000000000", "100 ", "1e3", "18446744073709551616", "१००"]
        {
            assert!(bad.parse::<Vmid>().is_err(), "{bad:?} was read");
        }
    }

    #[test]
    fn json_is_a_number() {
        let vmid = Vmid::new(204).unwrap();
        assert_eq!(serde_json::to_string(&vmid).unwrap(), "204");
        assert_eq!(serde_json::from_str::<Vmid>("204").unwrap(), vmid);
        assert!(serde_json::from_str::<Vmid>("99").is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC*") {
            if let Ok(vmid) = text.parse::<Vmid>() {
                prop_assert_eq!(vmid.to_string(), text);
            }
        }
    }
}
