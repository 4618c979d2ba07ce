//! Names of volumes, as the storage types spell them, and what a volume of a type can do.

/// What a volume's name tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeName {
    /// `images`, `rootdir`, `iso`, `vztmpl`, `backup`, `snippets` or `import`.
    pub content: &'static str,
    /// The guest it belongs to.
    pub owner: Option<u32>,
    /// `raw`, `qcow2`, …
    pub format: String,
    /// Whether it is the base image of a template.
    pub is_base: bool,
}

/// The storage and the name of a volume id, if it is one.
pub fn split_volume_id(id: &str) -> Option<(&str, &str)> {
    let (storage, name) = id.split_once(':')?;
    let mut letters = storage.bytes();
    let fits = letters.next().is_some_and(|first| first.is_ascii_alphabetic())
        && storage.len() > 1
        && storage.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    (fits && !name.is_empty()).then_some((storage, name))
}

/// Whether a storage type keeps files in a directory.
pub fn keeps_files(kind: &str) -> bool {
    matches!(kind, "dir" | "nfs" | "cifs" | "glusterfs" | "cephfs" | "btrfs")
}

/// Takes a volume's name apart by the rules of its storage's type.
///
/// # Errors
/// A name that the type does not know, in PVE's words.
pub fn parse(kind: &str, name: &str) -> Result<VolumeName, String> {
    if keeps_files(kind) { in_directory(name) } else { in_block_storage(kind, name) }
}

fn in_directory(name: &str) -> Result<VolumeName, String> {
    let unknown = || format!("unable to parse directory volume name '{name}'");
    let plain = |content, format: &str| VolumeName {
        content,
        owner: None,
        format: format.to_owned(),
        is_base: false,
    };
    let parts: Vec<&str> = name.split('/').collect();
    match parts.as_slice() {
        [owner, file] if is_number(owner) => {
            let (format, is_base) = image_file(file)?;
            Ok(VolumeName { content: "images", owner: owner.parse().ok(), format, is_base })
        }
        // A linked clone: its base, then itself.
        [base_owner, base, owner, file] if is_number(base_owner) && is_number(owner) => {
            image_file(base)?;
            let (format, is_base) = image_file(file)?;
            Ok(VolumeName { content: "images", owner: owner.parse().ok(), format, is_base })
        }
        ["iso", file] if ends_in(file, &[".iso", ".img"]) => Ok(plain("iso", "raw")),
        ["vztmpl", file] if is_container_template(file) => Ok(plain("vztmpl", "raw")),
        ["backup", file] if is_backup(file) => {
            Ok(VolumeName { owner: backup_owner(file), ..plain("backup", "raw") })
        }
        ["snippets", file] if !file.is_empty() => Ok(plain("snippets", "raw")),
        ["import", file] if ends_in(file, &[".ova", ".qcow2", ".raw", ".vmdk"]) => {
            Ok(plain("import", file.rsplit('.').next().unwrap_or("raw")))
        }
        _ => Err(unknown()),
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn ends_in(file: &str, endings: &[&str]) -> bool {
    let lower = file.to_lowercase();
    endings.iter().any(|ending| lower.len() > ending.len() && lower.ends_with(ending))
}

/// Whether a file can be a template for containers.
pub fn is_container_template(file: &str) -> bool {
    ends_in(file, &[".tar", ".tar.gz", ".tar.xz", ".tar.zst", ".tar.bz2", ".tgz"])
}

fn is_backup(file: &str) -> bool {
    const ENDINGS: [&str; 9] =
        [".tgz", ".tar", ".tar.gz", ".tar.lzo", ".tar.zst", ".vma", ".vma.gz", ".vma.lzo", ".vma.zst"];
    ends_in(file, &ENDINGS)
}

/// The guest in the name of a backup that PVE made.
fn backup_owner(file: &str) -> Option<u32> {
    let rest = file.strip_prefix("vzdump-")?;
    let (_, rest) = ["openvz-", "lxc-", "qemu-"]
        .iter()
        .find_map(|kind| rest.strip_prefix(kind).map(|rest| (kind, rest)))?;
    rest.split('-').next()?.parse().ok()
}

/// The format of an image's file, and whether it is a base.
///
/// # Errors
/// A name without a known ending, in PVE's words.
pub fn image_file(file: &str) -> Result<(String, bool), String> {
    let blank = file.contains(|character: char| character.is_whitespace() || character == '/');
    match file.rsplit_once('.') {
        Some((stem, format @ ("raw" | "qcow2" | "vmdk" | "subvol"))) if !stem.is_empty() && !blank => {
            Ok((format.to_owned(), stem.starts_with("base-")))
        }
        _ => Err(format!("unable to parse volume filename '{file}'")),
    }
}

fn in_block_storage(kind: &str, name: &str) -> Result<VolumeName, String> {
    let word = match kind {
        "zfspool" => "zfs",
        "lvmthin" => "lvm",
        "pbs" => "PBS",
        other => other,
    };
    let unknown = || format!("unable to parse {word} volume name '{name}'");
    if kind == "pbs" {
        let rest = name.strip_prefix("backup/").ok_or_else(unknown)?;
        let owner = rest.split('/').nth(1).and_then(|owner| owner.parse().ok());
        return Ok(VolumeName { content: "backup", owner, format: "pbs".to_owned(), is_base: false });
    }
    // A linked clone's name starts with its base's.
    let own = name.rsplit('/').next().unwrap_or(name);
    let (prefix, rest) = own.split_once('-').ok_or_else(unknown)?;
    let owner = rest.split('-').next().unwrap_or_default();
    let known = matches!(prefix, "vm" | "base")
        || matches!(prefix, "subvol" | "basevol") && matches!(kind, "zfspool" | "btrfs");
    if !(known && is_number(owner) && rest.contains('-')) {
        return Err(unknown());
    }
    let of_container = matches!(prefix, "subvol" | "basevol");
    Ok(VolumeName {
        content: "images",
        owner: owner.parse().ok(),
        format: if of_container { "subvol" } else { "raw" }.to_owned(),
        is_base: prefix.starts_with("base"),
    })
}

/// What a volume is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// Be kept as it is under a name.
    Snapshot,
    /// Be the base of a linked clone.
    Clone,
    /// Be copied whole.
    Copy,
    /// Belong to another guest under another name.
    Rename,
}

/// Whether volumes of a storage type can do it: as they are, as a base image, or as one of their snapshots.
pub fn has_feature(kind: &str, feature: Feature, volume: &VolumeName, of_snapshot: bool) -> bool {
    let raw = volume.format != "subvol";
    let state = (of_snapshot, volume.is_base);
    match (kind, feature) {
        (_, Feature::Snapshot) => match kind {
            "lvmthin" | "zfspool" | "rbd" | "btrfs" => true,
            _ if keeps_files(kind) => volume.format == "qcow2",
            _ => false,
        },
        (_, Feature::Clone) => match kind {
            "lvmthin" | "rbd" => of_snapshot || volume.is_base,
            "zfspool" => volume.is_base,
            "btrfs" => true,
            _ if keeps_files(kind) => state == (false, true) && raw,
            _ => false,
        },
        (_, Feature::Copy) => match kind {
            "lvm" | "iscsi" | "iscsidirect" | "zfspool" => !of_snapshot,
            _ if keeps_files(kind) => raw && (!of_snapshot || volume.format == "qcow2"),
            _ => true,
        },
        (_, Feature::Rename) => !volume.is_base && !matches!(kind, "iscsi" | "iscsidirect" | "pbs"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directory_names_are_images_or_lie_in_a_directory_of_their_content() {
        let image = parse("dir", "100/vm-100-disk-0.qcow2").unwrap();
        assert_eq!((image.content, image.owner, image.format.as_str()), ("images", Some(100), "qcow2"));
        let linked = parse("nfs", "103/base-103-disk-0.qcow2/105/vm-105-disk-0.qcow2").unwrap();
        assert_eq!((linked.owner, linked.is_base), (Some(105), false));
        assert_eq!(parse("dir", "iso/a.iso").unwrap().content, "iso");
        let backup = parse("dir", "backup/vzdump-lxc-204-2026_11_21-07_01_48.tar.zst").unwrap();
        assert_eq!((backup.content, backup.owner), ("backup", Some(204)));
        for bad in ["foo", "iso/a.txt", "vm-100-disk-9.qcow2", "backup/x"] {
            let text = format!("unable to parse directory volume name '{bad}'");
            assert_eq!(parse("dir", bad).unwrap_err(), text);
        }
        assert_eq!(parse("dir", "100/foo").unwrap_err(), "unable to parse volume filename 'foo'");
    }

    #[test]
    fn block_storages_name_their_volumes_after_the_guest() {
        assert_eq!(parse("lvmthin", "vm-100-disk-0").unwrap().owner, Some(100));
        assert!(parse("zfspool", "base-9000-disk-0/vm-100-disk-1").is_ok_and(|volume| !volume.is_base));
        assert_eq!(parse("zfspool", "subvol-200-disk-0").unwrap().format, "subvol");
        assert_eq!(parse("lvm", "x").unwrap_err(), "unable to parse lvm volume name 'x'");
        assert_eq!(split_volume_id("local:iso/a.iso"), Some(("local", "iso/a.iso")));
        assert_eq!(split_volume_id("/dev/sda"), None);
    }

    #[test]
    fn what_a_volume_can_do_depends_on_storage_format_and_state() {
        let raw = parse("dir", "100/vm-100-disk-0.raw").unwrap();
        let base = parse("dir", "100/base-100-disk-0.qcow2").unwrap();
        assert!(!has_feature("dir", Feature::Snapshot, &raw, false));
        assert!(has_feature("dir", Feature::Clone, &base, false));
        assert!(!has_feature("dir", Feature::Clone, &raw, false));
        assert!(
            !has_feature("dir", Feature::Copy, &raw, true) && has_feature("dir", Feature::Copy, &raw, false)
        );
        let thin = parse("lvmthin", "vm-100-disk-0").unwrap();
        assert!(has_feature("lvmthin", Feature::Clone, &thin, true));
    }
}
