//! Drives of virtual machines, volumes of containers.

use super::{Volume, property};
use crate::size::Size;

property! {
    /// A drive of a QEMU guest (`ide0`, `sata0`, `scsi0`, `virtio0`, `efidisk0`, `tpmstate0`, `unused0`):
    /// `local:100/vm-100-disk-0.qcow2,iothread=1,size=32G`.
    pub struct Drive {
        must {
            /// What is in the drive.
            volume: Volume = "file" | "volume",
        }
        copy {
            /// The size that PVE noted; a resize outside of PVE does not change it.
            size: Size = "size",
            /// Is it part of backups? Where it is absent PVE takes it for `true`.
            backup: bool = "backup",
            /// Is it part of replication? Absent is `true`.
            replicate: bool = "replicate",
            /// Read-only.
            ro: bool = "ro",
            /// Present it as a solid-state disk.
            ssd: bool = "ssd",
            /// An I/O thread of its own.
            iothread: bool = "iothread",
            /// On a path that all nodes have.
            shared: bool = "shared",
            /// Do snapshots include it?
            snapshot: bool = "snapshot",
            /// Throughput limit, MB/s.
            mbps: f64 = "mbps",
            /// Read limit, MB/s.
            mbps_rd: f64 = "mbps_rd",
            /// Write limit, MB/s.
            mbps_wr: f64 = "mbps_wr",
            /// Operations limit per second.
            iops: u64 = "iops",
            /// Read operations limit per second.
            iops_rd: u64 = "iops_rd",
            /// Write operations limit per second.
            iops_wr: u64 = "iops_wr",
            /// With keys of Microsoft's and of distributions (EFI disks).
            pre_enrolled_keys: bool = "pre-enrolled-keys",
        }
        kept {
            /// `disk` or `cdrom`.
            media: String = "media",
            /// The cache mode; absent is `none`.
            cache: String = "cache",
            /// `ignore` or `on`: are trim requests passed on?
            discard: String = "discard",
            /// How the host does asynchronous I/O.
            aio: String = "aio",
            /// The image's format where its name does not tell.
            format: String = "format",
            /// The serial number, percent-encoded.
            serial: String = "serial",
            /// `2m` or `4m` (EFI disks).
            efitype: String = "efitype",
            /// `v1.2` or `v2.0` (TPM states).
            version: String = "version",
        }
    }
}

impl Drive {
    /// Is it a CD-ROM drive, with or without a disc? A cloud-init drive is one too.
    pub fn is_cdrom(&self) -> bool {
        self.media().is_some_and(|media| media == "cdrom")
            || matches!(self.volume(), Volume::Empty | Volume::HostCdrom)
    }

    /// Is it the drive that PVE fills for cloud-init?
    pub fn is_cloud_init(&self) -> bool {
        self.volume().is_cloud_init()
    }
}

property! {
    /// A volume of a container (`rootfs`, `mp0`, `unused0`): `local:200/vm-200-disk-1.raw,mp=/data,backup=1,size=1G`.
    pub struct MountPoint {
        must {
            /// What is mounted: a volume, or for a bind mount a path of the host.
            volume: Volume = "volume",
        }
        copy {
            /// The size that PVE noted. Bind mounts and some subvolumes have none.
            size: Size = "size",
            /// Is it part of backups? Absent is `false`, but `rootfs` is always part of them.
            backup: bool = "backup",
            /// Is it part of replication? Absent is `true`.
            replicate: bool = "replicate",
            /// Read-only.
            ro: bool = "ro",
            /// Access control lists.
            acl: bool = "acl",
            /// User quotas.
            quota: bool = "quota",
            /// On a path that all nodes have.
            shared: bool = "shared",
        }
        kept {
            /// The path in the container; `rootfs` has none.
            mp: String = "mp",
            /// Options of mount, separated by `;`.
            mount_options: String = "mountoptions",
        }
    }
}

impl MountPoint {
    /// Does it show a directory or device of the host, which belongs to no storage and is in no backup?
    pub fn is_host_path(&self) -> bool {
        matches!(self.volume(), Volume::HostPath(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::property::Property;

    #[test]
    fn genuine_drives_are_written_as_read() {
        for text in [
            "data:101/vm-101-disk-1.qcow2,backup=0,cache=writeback,discard=on,iothread=1,size=1536M,ssd=1",
            "data:101/vm-101-disk-0.raw,efitype=4m,pre-enrolled-keys=0,size=528K",
            "data:101/vm-101-disk-3.raw,size=4M,version=v2.0",
            "data:101/vm-101-cloudinit.qcow2,media=cdrom,size=4M",
            "local:101/vm-101-disk-1.qcow2,replicate=0,ro=1,serial=ABC123,size=1G",
            "none,media=cdrom",
            "cdrom",
            "/dev/disk/by-id/ata-x,size=500G",
            "file=local:1/x.raw,future=option",
        ] {
            assert_eq!(text.parse::<Drive>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn options_have_types() {
        let drive: Drive =
            "data:101/vm-101-disk-1.qcow2,backup=0,cache=writeback,size=1536M,mbps_rd=10.5".parse().unwrap();
        assert_eq!(drive.volume().storage(), Some("data"));
        assert_eq!(drive.size().map(Size::bytes), Some(1536 << 20));
        assert_eq!(drive.backup(), Some(false));
        assert_eq!(drive.cache().map(String::as_str), Some("writeback"));
        assert_eq!(drive.mbps_rd(), Some(10.5));
        assert!(!drive.is_cdrom() && !drive.is_cloud_init());
        let cloud: Drive = "volume=data:101/vm-101-cloudinit.qcow2,media=cdrom".parse().unwrap();
        assert!(cloud.is_cdrom() && cloud.is_cloud_init());
    }

    #[test]
    fn one_odd_option_leaves_the_others() {
        let text = "local:1/x.raw,size=big,ssd=1";
        assert_eq!(text.parse::<Drive>().unwrap_err().found, "\"big\"");
        let (drive, odd) = Drive::read_leniently(text).unwrap();
        assert_eq!((drive.size(), drive.ssd()), (None, Some(true)));
        assert_eq!(odd.iter().map(|odd| odd.key).collect::<Vec<_>>(), ["size"]);
        assert_eq!(drive.to_string(), text);
        assert!(Drive::read_leniently("size=1G").is_err(), "a drive without a volume was read");
    }

    #[test]
    fn volumes_of_containers() {
        for text in [
            "local:200/vm-200-disk-1.raw,mp=/data,backup=1,size=1G",
            "local-zfs:subvol-200-disk-0,size=8G",
            "/srv/share,mp=/mnt/share,ro=1",
            "local:201/vm-201-disk-1.raw",
        ] {
            assert_eq!(text.parse::<MountPoint>().unwrap().to_string(), text);
        }
        let bind: MountPoint = "/srv/share,mp=/mnt/share,ro=1".parse().unwrap();
        assert!(bind.is_host_path());
        assert_eq!((bind.ro(), bind.volume().storage()), (Some(true), None));
        assert_eq!(bind.mp().map(String::as_str), Some("/mnt/share"));
    }
}
