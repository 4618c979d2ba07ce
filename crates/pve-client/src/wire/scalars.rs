//! The values of which answers are made.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use super::{Lost, Mismatch, Reader, Wire};
use crate::malformed::quote;

impl Wire for String {
    /// A number is taken too: Perl writes a name made of digits as one.
    fn read(value: &Value, _: &mut Reader) -> Result<Self, Mismatch> {
        match value {
            Value::String(text) => Ok(text.clone()),
            Value::Number(number) => Ok(number.to_string()),
            _ => Err(Mismatch::new("a text")),
        }
    }

    fn write(&self) -> Value {
        Value::String(self.clone())
    }
}

impl Wire for bool {
    fn read(value: &Value, _: &mut Reader) -> Result<Self, Mismatch> {
        match value {
            Value::Bool(truth) => Ok(*truth),
            Value::Number(number) if number.as_u64() == Some(1) => Ok(true),
            Value::Number(number) if number.as_u64() == Some(0) => Ok(false),
            Value::String(text) if text == "1" => Ok(true),
            Value::String(text) if text == "0" || text.is_empty() => Ok(false),
            _ => Err(Mismatch::new("1 or 0")),
        }
    }

    fn write(&self) -> Value {
        Value::from(u8::from(*self))
    }
}

impl Wire for u64 {
    fn read(value: &Value, _: &mut Reader) -> Result<Self, Mismatch> {
        let read = match value {
            Value::Number(number) => number.as_u64().or_else(|| number.as_f64().and_then(whole)),
            Value::String(text) => text.parse().ok(),
            _ => None,
        };
        read.ok_or_else(|| Mismatch::new("a whole number of at least 0"))
    }

    fn write(&self) -> Value {
        Value::from(*self)
    }
}

/// Perl turns a large sum into a float; up to 2⁵³ it is still exact.
fn whole(number: f64) -> Option<u64> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    // The range is looked at before the number is used.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    (number.fract() == 0.0 && (0.0..=EXACT).contains(&number)).then_some(number as u64)
}

impl Wire for i64 {
    fn read(value: &Value, _: &mut Reader) -> Result<Self, Mismatch> {
        let read = match value {
            Value::Number(number) => number.as_i64(),
            Value::String(text) => text.parse().ok(),
            _ => None,
        };
        read.ok_or_else(|| Mismatch::new("a whole number"))
    }

    fn write(&self) -> Value {
        Value::from(*self)
    }
}

impl Wire for f64 {
    fn read(value: &Value, _: &mut Reader) -> Result<Self, Mismatch> {
        let read = match value {
            Value::Number(number) => number.as_f64(),
            Value::String(text) => text.parse().ok(),
            _ => None,
        };
        read.filter(|number: &f64| number.is_finite()).ok_or_else(|| Mismatch::new("a number"))
    }

    /// Perl writes a float that is whole as an integer.
    fn write(&self) -> Value {
        whole(*self).map_or_else(|| Value::from(*self), Value::from)
    }
}

/// As it came.
impl Wire for Value {
    fn read(value: &Value, _: &mut Reader) -> Result<Self, Mismatch> {
        Ok(value.clone())
    }

    fn write(&self) -> Value {
        self.clone()
    }
}

/// Entry by entry: an odd one is noted and left out.
impl<T: Wire> Wire for Vec<T> {
    fn read(value: &Value, reader: &mut Reader) -> Result<Self, Mismatch> {
        let items = value.as_array().ok_or_else(|| Mismatch::new("a list"))?;
        let mut read = Vec::with_capacity(items.len());
        for (place, item) in items.iter().enumerate() {
            read.extend(reader.entry("[]", || name_of(place, item), item));
        }
        Ok(read)
    }

    fn write(&self) -> Value {
        self.iter().map(Wire::write).collect()
    }
}

/// Names an entry by what it calls itself, since PVE's lists come in random order.
fn name_of(place: usize, item: &Value) -> String {
    const NAMES: [&str; 9] = ["vmid", "upid", "volid", "id", "poolid", "storage", "key", "name", "node"];
    for key in NAMES {
        match item.get(key) {
            Some(Value::String(text)) => return format!("[{key}={}]", quote(text).trim_matches('"')),
            Some(Value::Number(number)) => return format!("[{key}={number}]"),
            _ => {}
        }
    }
    format!("[{place}]")
}

/// Entry by entry, like a list.
impl<T: Wire> Wire for BTreeMap<String, T> {
    fn read(value: &Value, reader: &mut Reader) -> Result<Self, Mismatch> {
        let object = value.as_object().ok_or_else(|| Mismatch::new("an object"))?;
        let mut read = Self::new();
        for (key, item) in object {
            if let Some(value) = reader.entry("{}", || quote(key).trim_matches('"').to_owned(), item) {
                read.insert(key.clone(), value);
            }
        }
        Ok(read)
    }

    fn write(&self) -> Value {
        Value::Object(self.iter().map(|(key, value)| (key.clone(), value.write())).collect())
    }
}

/// Texts separated by commas, such as a storage's `content`. PVE shuffles some of them; the order is kept as it came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommaList<T>(pub Vec<T>);

impl<T: std::str::FromStr + fmt::Display> Wire for CommaList<T> {
    fn read(value: &Value, reader: &mut Reader) -> Result<Self, Mismatch> {
        let text = String::read(value, reader)?;
        let mut list = Vec::new();
        for part in text.split([',', ';', ' ']).filter(|part| !part.is_empty()) {
            match part.parse() {
                Ok(item) => list.push(item),
                Err(_) => reader.odd(
                    None,
                    &Value::from(part),
                    Mismatch::new("entries that are all of one kind"),
                    Lost::Entry,
                ),
            }
        }
        Ok(Self(list))
    }

    fn write(&self) -> Value {
        Value::String(self.0.iter().map(ToString::to_string).collect::<Vec<_>>().join(","))
    }
}

/// Writes the types of this crate that have a text form of their own.
macro_rules! text_wire {
    ($($ty:ty, $expected:literal;)*) => {$(
        impl Wire for $ty {
            fn read(value: &Value, reader: &mut Reader) -> Result<Self, Mismatch> {
                String::read(value, reader)?.parse().map_err(|_| Mismatch::new($expected))
            }

            fn write(&self) -> Value {
                Value::String(self.to_string())
            }
        }
    )*};
}

text_wire! {
    crate::upid::Upid, "a UPID";
    crate::property::Volume, "a volume such as `local-lvm:vm-100-disk-0`";
}

impl Wire for crate::vmid::Vmid {
    fn read(value: &Value, reader: &mut Reader) -> Result<Self, Mismatch> {
        String::read(value, reader)?.parse().map_err(|_| Mismatch::new("a vmid from 100 to 999999999"))
    }

    fn write(&self) -> Value {
        Value::from(self.get())
    }
}

impl Wire for crate::tags::Tags {
    fn read(value: &Value, reader: &mut Reader) -> Result<Self, Mismatch> {
        let Ok(tags) = String::read(value, reader)?.parse();
        Ok(tags)
    }

    /// PVE keeps one blank where all tags were removed.
    fn write(&self) -> Value {
        Value::String(if self.is_empty() { " ".to_owned() } else { self.to_string() })
    }
}
