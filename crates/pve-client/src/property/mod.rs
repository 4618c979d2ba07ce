//! Property strings: `virtio=BC:24:11:83:ED:32,bridge=vmbr0,tag=12`. PVE packs the options of one device into one value.
//!
//! [`PropertyString`] is the form alone. The types in the modules below it know the options of one kind of device; each
//! keeps the string that it was read from, so that options it does not know are written back untouched.

mod drive;
mod nic;
mod settings;
mod value;

pub use drive::{Drive, MountPoint};
pub use nic::{ContainerNic, Nic};
pub use settings::{Agent, Boot, CreationMeta, Features, IpConfig, Memory, Smbios, Startup};
pub use value::{IpSetting, MacAddr, Volume};

pub(crate) use value::PropertyValue;

use std::fmt;
use std::str::FromStr;

use crate::malformed::Malformed;

/// The options of a property string, in their order. One value may stand without a key: the type that reads it knows
/// which key it has by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PropertyString {
    parts: Vec<(Option<String>, String)>,
}

impl PropertyString {
    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.iter().find(|(found, _)| *found == Some(key)).map(|(_, value)| value)
    }

    /// The value that stands without a key.
    pub fn bare(&self) -> Option<&str> {
        self.iter().find(|(key, _)| key.is_none()).map(|(_, value)| value)
    }

    /// The value of `key` where that is the default key, which is mostly left out.
    pub fn get_default(&self, key: &str) -> Option<&str> {
        self.bare().or_else(|| self.get(key))
    }

    /// All options in their order; at most one is without a key.
    pub fn iter(&self) -> impl Iterator<Item = (Option<&str>, &str)> {
        self.parts.iter().map(|(key, value)| (key.as_deref(), value.as_str()))
    }
}

impl FromStr for PropertyString {
    type Err = Malformed;

    /// # Errors
    /// A key stands twice, two values are without a key, or a key is empty. PVE's own reader refuses the same.
    fn from_str(text: &str) -> Result<Self, Malformed> {
        let mut whole = Self::default();
        for part in text.split(',') {
            if part.trim().is_empty() {
                continue;
            }
            let (key, value) = match part.split_once('=') {
                Some(("", _)) => return Err(Malformed::new("options with a key each", text)),
                Some((key, value)) => (Some(key.to_owned()), value.to_owned()),
                None => (None, part.to_owned()),
            };
            if whole.parts.iter().any(|(earlier, _)| *earlier == key) {
                return Err(Malformed::new("each option once", text));
            }
            whole.parts.push((key, value));
        }
        Ok(whole)
    }
}

impl fmt::Display for PropertyString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (key, value)) in self.iter().enumerate() {
            if place > 0 {
                f.write_str(",")?;
            }
            if let Some(key) = key {
                write!(f, "{key}=")?;
            }
            f.write_str(value)?;
        }
        Ok(())
    }
}

/// One option that is not what its type asks for; the rest of its property string was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OddOption {
    /// The option's key.
    pub key: &'static str,
    /// What was expected and found.
    pub problem: Malformed,
}

/// A property string whose options have types.
pub trait Property: Sized + fmt::Display {
    /// Reads what can be read: an odd option is absent in the value and listed beside it.
    ///
    /// # Errors
    /// The text has not even the form of a property string, or says nothing about the one thing it must name.
    fn read_leniently(text: &str) -> Result<(Self, Vec<OddOption>), Malformed>;

    /// The string as it was read, for options that have no type of their own.
    fn options(&self) -> &PropertyString;
}

/// Reads the value of one option, noting it in `odd` where it is not of its type.
pub(crate) fn option<T: PropertyValue>(
    key: &'static str,
    text: Option<&str>,
    odd: &mut Vec<OddOption>,
) -> Option<T> {
    let text = text?;
    let value = T::from_option(text);
    if value.is_none() {
        odd.push(OddOption { key, problem: Malformed::new(T::EXPECTED, text) });
    }
    value
}

/// Makes a type of a table of options. `default` names the one whose key may be left out, with the other names PVE
/// accepts for it. `copy` options are returned by value, `kept` ones by reference.
macro_rules! property {
    (
        $(#[$meta:meta])*
        pub struct $name:ident {
            $(default { $(#[$dm:meta])* $d:ident : $dt:ty = $dk:literal $(| $alias:literal)*, })?
            $(must { $(#[$mm:meta])* $m:ident : $mt:ty = $mk:literal $(| $malias:literal)*, })?
            $(copy { $($(#[$cm:meta])* $c:ident : $ct:ty = $ck:literal,)* })?
            $(kept { $($(#[$km:meta])* $k:ident : $kt:ty = $kk:literal,)* })?
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name {
            options: $crate::property::PropertyString,
            $($d: Option<$dt>,)?
            $($m: $mt,)?
            $($($c: Option<$ct>,)*)?
            $($($k: Option<$kt>,)*)?
        }

        impl $name {
            $($(#[$dm])* pub fn $d(&self) -> Option<&$dt> { self.$d.as_ref() })?
            $($(#[$mm])* pub fn $m(&self) -> &$mt { &self.$m })?
            $($($(#[$cm])* pub fn $c(&self) -> Option<$ct> { self.$c })*)?
            $($($(#[$km])* pub fn $k(&self) -> Option<&$kt> { self.$k.as_ref() })*)?
        }

        impl $crate::property::Property for $name {
            fn read_leniently(
                text: &str,
            ) -> Result<(Self, Vec<$crate::property::OddOption>), $crate::malformed::Malformed> {
                let options: $crate::property::PropertyString = text.parse()?;
                #[allow(unused_mut, reason = "a type whose only option must be there has no odd ones")]
                let mut odd = Vec::new();
                $(
                    let text_of_default = options.get_default($dk)$(.or_else(|| options.get($alias)))*;
                    let $d = $crate::property::option::<$dt>($dk, text_of_default, &mut odd);
                )?
                $(
                    let must = options.get_default($mk)$(.or_else(|| options.get($malias)))*;
                    let expected = <$mt as $crate::property::PropertyValue>::EXPECTED;
                    let $m = must
                        .and_then(<$mt as $crate::property::PropertyValue>::from_option)
                        .ok_or_else(|| $crate::malformed::Malformed::new(expected, must.unwrap_or(text)))?;
                )?
                $($(let $c = $crate::property::option::<$ct>($ck, options.get($ck), &mut odd);)*)?
                $($(let $k = $crate::property::option::<$kt>($kk, options.get($kk), &mut odd);)*)?
                Ok((Self { options, $($d,)? $($m,)? $($($c,)*)? $($($k,)*)? }, odd))
            }

            fn options(&self) -> &$crate::property::PropertyString {
                &self.options
            }
        }

        $crate::property::strict_text!($name);
    };
}

/// `FromStr` that refuses what [`Property::read_leniently`] would note as odd, and `Display`.
macro_rules! strict_text {
    ($name:ident) => {
        impl std::str::FromStr for $name {
            type Err = $crate::malformed::Malformed;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let (value, odd) = <Self as $crate::property::Property>::read_leniently(text)?;
                match odd.into_iter().next() {
                    Some(first) => Err(first.problem),
                    None => Ok(value),
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.options.fmt(f)
            }
        }

        impl $crate::wire::Wire for $name {
            fn read(
                value: &serde_json::Value,
                reader: &mut $crate::wire::Reader,
            ) -> Result<Self, $crate::wire::Mismatch> {
                $crate::wire::read_property(value, reader)
            }

            fn write(&self) -> serde_json::Value {
                serde_json::Value::String(self.to_string())
            }
        }
    };
}

pub(crate) use {property, strict_text};

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn keys_order_and_values_with_equal_signs_are_kept() {
        let text = "local:100/vm.raw,z=1,a=b=c,empty=";
        let whole: PropertyString = text.parse().unwrap();
        assert_eq!(whole.bare(), Some("local:100/vm.raw"));
        assert_eq!(whole.get("a"), Some("b=c"));
        assert_eq!(whole.get("empty"), Some(""));
        assert_eq!(whole.get("b"), None);
        assert_eq!(whole.get_default("file"), Some("local:100/vm.raw"));
        assert_eq!(whole.to_string(), text);
        assert_eq!("a=1,, ,b=2,".parse::<PropertyString>().unwrap().to_string(), "a=1,b=2");
    }

    #[test]
    fn what_pve_refuses_is_refused() {
        for bad in ["a=1,a=2", "x,y", "=1", "a=1,=2"] {
            assert!(bad.parse::<PropertyString>().is_err(), "{bad:?} was read");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC*|[a-c=, ]{0,20}") {
            if let Ok(whole) = text.parse::<PropertyString>() {
                let written = whole.to_string();
                prop_assert_eq!(written.parse::<PropertyString>().unwrap(), whole);
            }
        }
    }
}
