//! Property strings of a guest that are no devices.

use std::net::IpAddr;

use super::{IpSetting, property};

property! {
    /// Addresses for cloud-init (`ipconfig0`): `ip=192.0.2.10/24,gw=192.0.2.1`.
    pub struct IpConfig {
        copy {
            /// How the interface gets its IPv4 address.
            ip: IpSetting = "ip",
            /// How the interface gets its IPv6 address.
            ip6: IpSetting = "ip6",
            /// The IPv4 gateway.
            gw: IpAddr = "gw",
            /// The IPv6 gateway.
            gw6: IpAddr = "gw6",
        }
    }
}

property! {
    /// What the firmware tells the guest about its hardware (`smbios1`).
    pub struct Smbios {
        copy {
            /// Are the texts base64? The UUID never is.
            base64: bool = "base64",
        }
        kept {
            /// The UUID; PVE gives a new one to each clone.
            uuid: String = "uuid",
            /// The manufacturer, as stored.
            manufacturer: String = "manufacturer",
            /// The product, as stored.
            product: String = "product",
            /// The version, as stored.
            version: String = "version",
            /// The serial number, as stored.
            serial: String = "serial",
            /// The stock number, as stored.
            sku: String = "sku",
            /// The family, as stored.
            family: String = "family",
        }
    }
}

property! {
    /// How the guest came to be (`meta`): `creation-qemu=7.2.22,ctime=1795242170`.
    pub struct CreationMeta {
        copy {
            /// The creation in epoch seconds.
            ctime: u64 = "ctime",
        }
        kept {
            /// The QEMU of that time.
            creation_qemu: String = "creation-qemu",
        }
    }
}

property! {
    /// The guest agent's options (`agent`): `1`, or `enabled=1,fstrim_cloned_disks=1`.
    pub struct Agent {
        default {
            /// Does PVE talk to an agent in the guest?
            enabled: bool = "enabled",
        }
        copy {
            /// Are file systems frozen for backups? Absent is `true`.
            freeze_fs_on_backup: bool = "freeze-fs-on-backup",
            /// Is trim run after a disk was moved or the guest migrated?
            fstrim_cloned_disks: bool = "fstrim_cloned_disks",
        }
        kept {
            /// The device: `virtio` or `isa`.
            kind: String = "type",
        }
    }
}

property! {
    /// The memory of a QEMU guest (`memory`): `512`, or `current=512`.
    pub struct Memory {
        must {
            /// Mebibytes.
            current: u64 = "current",
        }
    }
}

property! {
    /// The boot order (`boot`): `order=scsi0;net0`, or letters in older configurations: `cdn`.
    pub struct Boot {
        default {
            /// `a` floppy, `c` disk, `d` CD-ROM, `n` network.
            legacy: String = "legacy",
        }
        kept {
            /// Devices separated by `;`.
            order: String = "order",
        }
    }
}

impl Boot {
    /// The devices in their order; none where the old form with letters is used.
    pub fn devices(&self) -> impl Iterator<Item = &str> {
        self.order().into_iter().flat_map(|order| order.split(';')).filter(|device| !device.is_empty())
    }
}

property! {
    /// When the guest starts with its node (`startup`): `order=2,up=30,down=60`.
    pub struct Startup {
        default {
            /// The place in the order; shutdown is reversed.
            order: u32 = "order",
        }
        copy {
            /// Seconds until the next guest is started.
            up: u64 = "up",
            /// Seconds that a shutdown may take.
            down: u64 = "down",
        }
    }
}

property! {
    /// What a container may do (`features`): `nesting=1,keyctl=1`.
    pub struct Features {
        copy {
            /// Containers within the container.
            nesting: bool = "nesting",
            /// The `keyctl` system call.
            keyctl: bool = "keyctl",
            /// FUSE file systems.
            fuse: bool = "fuse",
            /// Some device nodes may be made.
            mknod: bool = "mknod",
            /// `/sys` is writable.
            force_rw_sys: bool = "force_rw_sys",
        }
        kept {
            /// File systems that may be mounted, separated by `;`.
            mount: String = "mount",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::property::{ContainerNic, Drive, MountPoint, Nic, Property};
    use proptest::prelude::*;

    #[test]
    fn both_forms_with_a_default_key() {
        assert_eq!("1".parse::<Agent>().unwrap().enabled(), Some(&true));
        assert_eq!(
            "enabled=1,fstrim_cloned_disks=1".parse::<Agent>().unwrap().fstrim_cloned_disks(),
            Some(true)
        );
        assert_eq!("512".parse::<Memory>().unwrap().current(), &512);
        assert_eq!("current=512".parse::<Memory>().unwrap().current(), &512);
        assert!("".parse::<Memory>().is_err() && "lots".parse::<Memory>().is_err());
        assert_eq!("3,up=4".parse::<Startup>().unwrap().order(), Some(&3));
        assert_eq!("order=2,up=30,down=60".parse::<Startup>().unwrap().down(), Some(60));
    }

    #[test]
    fn boot_orders() {
        let boot: Boot = "order=scsi0;ide2;net0".parse().unwrap();
        assert_eq!(boot.devices().collect::<Vec<_>>(), ["scsi0", "ide2", "net0"]);
        let old: Boot = "cdn".parse().unwrap();
        assert_eq!((old.legacy().map(String::as_str), old.devices().count()), (Some("cdn"), 0));
    }

    #[test]
    fn others() {
        let meta: CreationMeta = "creation-qemu=7.2.22,ctime=1795242170".parse().unwrap();
        assert_eq!(
            (meta.ctime(), meta.to_string().as_str()),
            (Some(1_795_242_170), "creation-qemu=7.2.22,ctime=1795242170")
        );
        let smbios: Smbios =
            "uuid=11111111-2222-3333-4444-555555555555,base64=1,serial=QUI9".parse().unwrap();
        assert_eq!((smbios.base64(), smbios.uuid().map(String::len)), (Some(true), Some(36)));
        let ip: IpConfig = "ip=10.0.0.5/24,gw=10.0.0.1,ip6=auto".parse().unwrap();
        assert_eq!((ip.ip6(), ip.gw()), (Some(IpSetting::Auto), Some("10.0.0.1".parse().unwrap())));
        assert_eq!("nesting=1".parse::<Features>().unwrap().nesting(), Some(true));
    }

    fn holds<T: Property + PartialEq + std::fmt::Debug>(text: &str) {
        if let Ok((value, odd)) = T::read_leniently(text) {
            let written = value.to_string();
            assert_eq!(T::read_leniently(&written), Ok((value, odd)), "{text:?} → {written:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(
            text in "\\PC*|(((virtio|file|volume|ip|gw|order|size|enabled|current|model|mp|tag|base64)=)?[a-z0-9:/.; -]{0,12},?){0,5}"
        ) {
            holds::<Drive>(&text);
            holds::<MountPoint>(&text);
            holds::<Nic>(&text);
            holds::<ContainerNic>(&text);
            holds::<IpConfig>(&text);
            holds::<Smbios>(&text);
            holds::<CreationMeta>(&text);
            holds::<Agent>(&text);
            holds::<Memory>(&text);
            holds::<Boot>(&text);
            holds::<Startup>(&text);
            holds::<Features>(&text);
        }
    }
}
