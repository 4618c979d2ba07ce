//! The kinds of value that an option can have.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::malformed::Malformed;
use crate::size::Size;

/// A type that one option of a property string can have.
pub(crate) trait PropertyValue: Sized {
    /// What is expected, as a noun with its article.
    const EXPECTED: &'static str;
    /// The value, if the text is one.
    fn from_option(text: &str) -> Option<Self>;
}

impl PropertyValue for String {
    const EXPECTED: &'static str = "a text";

    fn from_option(text: &str) -> Option<Self> {
        Some(text.to_owned())
    }
}

/// In property strings, unlike elsewhere, PVE takes words for booleans too.
impl PropertyValue for bool {
    const EXPECTED: &'static str = "1 or 0";

    fn from_option(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().as_str() {
            "1" | "on" | "yes" | "true" => Some(true),
            "0" | "off" | "no" | "false" => Some(false),
            _ => None,
        }
    }
}

macro_rules! parsed {
    ($($ty:ty = $expected:literal,)*) => {$(
        impl PropertyValue for $ty {
            const EXPECTED: &'static str = $expected;

            fn from_option(text: &str) -> Option<Self> {
                text.parse().ok()
            }
        }
    )*};
}

parsed! {
    u16 = "a whole number up to 65535",
    u32 = "a whole number",
    u64 = "a whole number",
    Size = "a size such as `528K`, `1536M` or `1G`",
    MacAddr = "a MAC address",
    IpAddr = "an IP address",
    IpSetting = "an address with its prefix length, `dhcp`, `auto` or `manual`",
    Volume = "a volume such as `local-lvm:vm-100-disk-0`, an absolute path, `none` or `cdrom`",
}

impl PropertyValue for f64 {
    const EXPECTED: &'static str = "a number";

    fn from_option(text: &str) -> Option<Self> {
        text.parse().ok().filter(|number: &f64| number.is_finite())
    }
}

/// A hardware address, written in upper case with colons as PVE does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddr([u8; 6]);

impl MacAddr {
    /// The address of these bytes.
    pub const fn from_bytes(bytes: [u8; 6]) -> Self {
        Self(bytes)
    }

    /// The bytes of the address.
    pub const fn bytes(self) -> [u8; 6] {
        self.0
    }
}

impl FromStr for MacAddr {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let malformed = || Malformed::new(Self::EXPECTED, text);
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().ok_or_else(malformed)?;
            // `from_str_radix` alone takes a sign.
            if part.len() != 2 || !part.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return Err(malformed());
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| malformed())?;
        }
        if parts.next().is_some() { Err(malformed()) } else { Ok(Self(bytes)) }
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02X}:{b:02X}:{c:02X}:{d:02X}:{e:02X}:{g:02X}")
    }
}

/// How an interface gets its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IpSetting {
    /// `dhcp`.
    Dhcp,
    /// `auto`: IPv6 stateless auto-configuration.
    Auto,
    /// `manual`: the guest cares for itself.
    Manual,
    /// A fixed address.
    Static {
        /// The address.
        address: IpAddr,
        /// The length of the network's prefix in bits.
        prefix: u8,
    },
}

impl FromStr for IpSetting {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        match text {
            "dhcp" => Ok(Self::Dhcp),
            "auto" => Ok(Self::Auto),
            "manual" => Ok(Self::Manual),
            _ => read_cidr(text).ok_or_else(|| Malformed::new(Self::EXPECTED, text)),
        }
    }
}

fn read_cidr(text: &str) -> Option<IpSetting> {
    let (address, prefix) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let longest = if address.is_ipv4() { 32 } else { 128 };
    let digits = !prefix.is_empty() && prefix.bytes().all(|byte| byte.is_ascii_digit());
    let prefix = digits.then(|| prefix.parse::<u8>().ok()).flatten().filter(|prefix| *prefix <= longest)?;
    Some(IpSetting::Static { address, prefix })
}

impl fmt::Display for IpSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dhcp => f.write_str("dhcp"),
            Self::Auto => f.write_str("auto"),
            Self::Manual => f.write_str("manual"),
            Self::Static { address, prefix } => write!(f, "{address}/{prefix}"),
        }
    }
}

/// What a drive or a mount point shows to its guest.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Volume {
    /// `none`: an empty CD-ROM drive.
    Empty,
    /// `cdrom`: the host's own CD-ROM drive.
    HostCdrom,
    /// A device, file or directory of the host by its absolute path; it belongs to no storage.
    HostPath(String),
    /// A volume of a storage.
    OnStorage {
        /// The storage's name.
        storage: String,
        /// The name within the storage, such as `100/vm-100-disk-0.qcow2`; a linked clone's holds its base's too.
        name: String,
    },
}

impl Volume {
    /// The name of the storage that holds the volume.
    pub fn storage(&self) -> Option<&str> {
        match self {
            Self::OnStorage { storage, .. } => Some(storage),
            Self::Empty | Self::HostCdrom | Self::HostPath(_) => None,
        }
    }

    /// Is it the image that PVE makes for cloud-init? PVE knows it by its name alone: `cloudinit` or
    /// `vm-100-cloudinit`, with or without a format's ending.
    pub fn is_cloud_init(&self) -> bool {
        let (Self::OnStorage { name, .. } | Self::HostPath(name)) = self else {
            return false;
        };
        let file = name.rsplit('/').next().unwrap_or(name);
        let own = file.strip_prefix("vm-").and_then(|rest| rest.split_once('-'));
        let stem = match own {
            Some((vmid, stem)) if !vmid.is_empty() && vmid.bytes().all(|byte| byte.is_ascii_digit()) => stem,
            _ => file,
        };
        match stem.strip_prefix("cloudinit") {
            Some("") => true,
            Some(ending) => {
                matches!(ending, ".raw" | ".qcow" | ".qcow2" | ".qed" | ".vmdk" | ".cloop")
            }
            None => false,
        }
    }
}

impl FromStr for Volume {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        match text {
            "none" => return Ok(Self::Empty),
            "cdrom" => return Ok(Self::HostCdrom),
            _ if text.starts_with('/') => return Ok(Self::HostPath(text.to_owned())),
            _ => {}
        }
        match text.split_once(':') {
            Some((storage, name)) if is_storage_name(storage) && !name.is_empty() => {
                Ok(Self::OnStorage { storage: storage.to_owned(), name: name.to_owned() })
            }
            _ => Err(Malformed::new(Self::EXPECTED, text)),
        }
    }
}

fn is_storage_name(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

impl fmt::Display for Volume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("none"),
            Self::HostCdrom => f.write_str("cdrom"),
            Self::HostPath(path) => f.write_str(path),
            Self::OnStorage { storage, name } => write!(f, "{storage}:{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn volumes() {
        let volume: Volume = "local:103/base-103-disk-0.qcow2/105/vm-105-disk-0.qcow2".parse().unwrap();
        assert_eq!(volume.storage(), Some("local"));
        assert!(!volume.is_cloud_init());
        assert_eq!("/dev/disk/by-id/x:y".parse::<Volume>().unwrap().storage(), None);
        assert_eq!("none".parse::<Volume>().unwrap(), Volume::Empty);
        for bad in ["", "1G", ":x", "local:", "9x:y", "lo cal:y"] {
            assert!(bad.parse::<Volume>().is_err(), "{bad:?} was read");
        }
    }

    #[test]
    fn cloud_init_images_are_known_by_name() {
        for yes in [
            "data:101/vm-101-cloudinit.qcow2",
            "lvm:vm-101-cloudinit",
            "local:cloudinit",
            "x:7/cloudinit.raw",
        ] {
            assert!(yes.parse::<Volume>().unwrap().is_cloud_init(), "{yes}");
        }
        for no in [
            "data:101/vm-101-disk-0.raw",
            "local:iso/cloudinit.iso",
            "l:my-cloudinit",
            "l:vm-x-cloudinit",
            "none",
        ] {
            assert!(!no.parse::<Volume>().unwrap().is_cloud_init(), "{no}");
        }
    }

    #[test]
    fn addresses() {
        let mac: MacAddr = "bc:24:11:aa:00:01".parse().unwrap();
        assert_eq!(mac.to_string(), "BC:24:11:AA:00:01");
        for bad in ["", "bc:24:11:aa:00", "bc:24:11:aa:00:01:02", "bc-24-11-aa-00-01", "+c:24:11:aa:00:01"] {
            assert!(bad.parse::<MacAddr>().is_err(), "{bad:?} was read");
        }
        for good in ["192.0.2.10/24", "2001:db8::1/64", "dhcp", "auto", "manual"] {
            assert_eq!(good.parse::<IpSetting>().unwrap().to_string(), good);
        }
        for bad in
            ["192.0.2.10", "192.0.2.10/33", "2001:db8::1/129", "192.0.2.10/+4", "192.0.2.300/24", "/24"]
        {
            assert!(bad.parse::<IpSetting>().is_err(), "{bad:?} was read");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC*|[0-9a-f:./]{0,24}|[a-z0-9:/.-]{0,24}") {
            if let Ok(volume) = text.parse::<Volume>() {
                prop_assert_eq!(volume.to_string(), text.clone());
                volume.is_cloud_init();
            }
            if let Ok(mac) = text.parse::<MacAddr>() {
                prop_assert_eq!(mac.to_string().parse::<MacAddr>().unwrap(), mac);
            }
            if let Ok(ip) = text.parse::<IpSetting>() {
                prop_assert_eq!(ip.to_string().parse::<IpSetting>().unwrap(), ip);
            }
        }
    }
}
