//! Whose volume it is, by its name: what Proxmox VE allocates for a guest has the guest's number in it.

use super::Guest;
use crate::canonical::{Canonical, is_disk};

/// Where Proxmox VE keeps files that are no guest's, whatever they are called.
const NO_GUESTS: [&str; 5] = ["iso/", "vztmpl/", "snippets/", "backup/", "import/"];

/// What the names of volumes begin with that Proxmox VE allocates.
const ALLOCATED: [&str; 4] = ["vm-", "base-", "subvol-", "basevol-"];

/// The guests that a volume is of, by its name: `local:101/vm-101-disk-0.raw`, `lvm:base-9000-disk-0/vm-100-disk-0`. A linked copy is the
/// copy's, not its source's.
fn owners(volume: &str) -> Vec<i64> {
    let name = match (volume.strip_prefix('/'), volume.split_once(':')) {
        // Of a node's own paths only those are told that lead to what a storage has.
        (Some(path), _) if path.starts_with("dev/") || path.contains("/images/") => path,
        (Some(_), _) | (None, None) => return Vec::new(),
        (None, Some((_, name))) => name,
    };
    if NO_GUESTS.iter().any(|folder| name.starts_with(folder)) {
        return Vec::new();
    }
    let mut parts = name.rsplit('/');
    let last = parts.next().unwrap_or_default();
    let number = |text: &str| text.parse::<i64>().ok();
    let of_name = ALLOCATED
        .iter()
        .find_map(|begin| last.strip_prefix(begin))
        .and_then(|rest| number(rest.split(['-', '.']).next().unwrap_or_default()));
    // A storage of files has a folder for each guest.
    let of_folder = parts.next().and_then(number);
    [of_name, of_folder].into_iter().flatten().collect()
}

/// The other guest that a volume is of, by its name.
pub(crate) fn foreign_volume(vmid: i64, volume: &Canonical) -> Option<i64> {
    owners(&volume.to_string()).into_iter().find(|owner| *owner != vmid)
}

/// The first disk that would take another guest's volume: its key, and the mend. A guest whose number is not known yet has none so far.
pub fn foreign(guest: &Guest) -> Option<(String, String)> {
    let of_others = |volume: &Canonical| foreign_volume(guest.vmid?, volume);
    guest.fields.iter().filter(|(key, _)| is_disk(guest.kind, key)).find_map(|(key, value)| {
        let Canonical::Map(map) = value else { return None };
        let owner = of_others(map.get("volume")?)?;
        let text = format!(
            "this volume is of the guest {owner} by its name, and two guests that write one volume destroy it: write `storage` and `size` \
             for a disk of its own, or give the volume to this guest at Proxmox VE first"
        );
        Some((format!("{key}.volume"), text))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volumes_name_tells_whose_it_is() {
        let cases: [(&str, &[i64]); 18] = [
            ("local-lvm:vm-101-disk-0", &[101]),
            ("local-lvm:base-101-disk-0", &[101]),
            ("zfs:subvol-101-disk-0", &[101]),
            ("zfs:basevol-101-disk-0", &[101]),
            ("zfs:vm-101-cloudinit", &[101]),
            ("local:101/vm-101-disk-0.qcow2", &[101, 101]),
            ("local:101/anything.raw", &[101]),
            ("local:100/vm-101-disk-0.qcow2", &[101, 100]),
            ("lvm:base-9000-disk-0/vm-100-disk-0", &[100]),
            ("local:9000/base-9000-disk-0.qcow2/100/vm-100-disk-0.qcow2", &[100, 100]),
            ("/dev/pve/vm-101-disk-0", &[101]),
            ("/var/lib/vz/images/101/vm-101-disk-0.raw", &[101, 101]),
            ("local:iso/vm-101-tools.iso", &[]),
            ("local-lvm:cloudinit", &[]),
            ("none", &[]),
            ("cdrom", &[]),
            ("/dev/disk/by-id/ata-X", &[]),
            ("/srv/vm-101-data", &[]),
        ];
        for (volume, of) in cases {
            assert_eq!(owners(volume), of, "{volume}");
        }
    }
}
