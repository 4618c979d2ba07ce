//! Sizes as PVE writes them in property strings: `528K`, `1536M`, `1G`.

use std::fmt;
use std::str::FromStr;

use crate::malformed::Malformed;

/// A size in bytes. Written with the largest of `K`, `M`, `G`, `T` (powers of 1024) that divides it, as PVE does; read
/// also with a fraction (`1.5G`), whose part of a byte is cut off. A number without a unit counts bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(u64);

impl Size {
    /// The size of this many bytes.
    pub const fn from_bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// The number of bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

/// Fraction digits that can still make a byte of difference at the largest unit; more are cut off.
const FRACTION_DIGITS: usize = 18;

impl FromStr for Size {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        read(text).map(Self).ok_or_else(|| Malformed::new("a size such as `528K`, `1536M` or `1G`", text))
    }
}

fn read(text: &str) -> Option<u64> {
    let (number, shift) = match text.as_bytes().last()? {
        b'K' => (text.strip_suffix('K')?, 10),
        b'M' => (text.strip_suffix('M')?, 20),
        b'G' => (text.strip_suffix('G')?, 30),
        b'T' => (text.strip_suffix('T')?, 40),
        _ => (text, 0),
    };
    let (whole, fraction) = match number.split_once('.') {
        Some((whole, fraction)) => (digits(whole)?, digits(fraction)?),
        None => (digits(number)?, "0"),
    };
    let unit = 1_u128 << shift;
    let whole = u128::from(whole.parse::<u64>().ok()?).checked_mul(unit)?;
    let kept = fraction.get(..FRACTION_DIGITS.min(fraction.len()))?;
    let scale = 10_u128.checked_pow(u32::try_from(kept.len()).ok()?)?;
    let part = u128::from(kept.parse::<u64>().ok()?).checked_mul(unit)?.checked_div(scale)?;
    u64::try_from(whole.checked_add(part)?).ok()
}

fn digits(text: &str) -> Option<&str> {
    (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())).then_some(text)
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0");
        }
        for (shift, unit) in [(40, 'T'), (30, 'G'), (20, 'M'), (10, 'K')] {
            if self.0.trailing_zeros() >= shift {
                return write!(f, "{}{unit}", self.0 >> shift);
            }
        }
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_of_genuine_guests() {
        for (text, bytes) in [
            ("528K", 540_672),
            ("4M", 4 << 20),
            ("1536M", 1536 << 20),
            ("1G", 1 << 30),
            ("32", 32),
            ("2T", 2 << 40),
        ] {
            let size: Size = text.parse().unwrap();
            assert_eq!(size.bytes(), bytes, "{text}");
            assert_eq!(size.to_string(), text);
        }
    }

    #[test]
    fn fractions_and_other_spellings_are_read() {
        assert_eq!("1.5G".parse::<Size>().unwrap().to_string(), "1536M");
        assert_eq!("1024K".parse::<Size>().unwrap().to_string(), "1M");
        assert_eq!("0.5".parse::<Size>().unwrap().bytes(), 0);
        assert_eq!("0T".parse::<Size>().unwrap().to_string(), "0");
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for bad in [
            "",
            "G",
            "1g",
            "1GB",
            "-1",
            "1.",
            ".5G",
            "1.5.5G",
            "1 G",
            "99999999999999999999",
            "16777216T",
            "१G",
        ] {
            assert!(bad.parse::<Size>().is_err(), "{bad:?} was read");
        }
        assert_eq!("16777215T".parse::<Size>().unwrap().bytes(), 16_777_215 << 40);
    }

    proptest! {
        #[test]
        fn every_size_comes_back(bytes: u64, shift in 0_u32..50) {
            let size = Size::from_bytes(bytes >> shift << shift);
            prop_assert_eq!(size.to_string().parse::<Size>().unwrap(), size);
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC*|[0-9.KMGT]{1,30}") {
            if let Ok(size) = text.parse::<Size>() {
                prop_assert_eq!(size.to_string().parse::<Size>().unwrap(), size);
            }
        }
    }
}
