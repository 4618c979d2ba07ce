//! Which values Proxmox VE takes for an option, as far as its API schema says so in numbers or words. Data: an option or word that is missing is a
//! line here.
//!
//! Facts: `POST /nodes/{node}/qemu` and `/lxc` of the API schema of PVE 8.4; `PUT` of `config` says the same. A test compares all of it with the
//! schema. What has no entry is left to Proxmox VE.

use std::fmt;

use pve_client::property::Nic;
use pvegraph_inventory::GuestType;

use super::{Canonical, find};

/// What a value may be. Numbers are in the option's own unit: MiB of memory, cores, bytes or operations a second, …
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    /// A number, this or more.
    From(u32),
    /// A number, one of these two or between them.
    Between(u32, u32),
    /// One of these words.
    Words(&'static [&'static str]),
}

use Limit::{Between, From, Words};

/// Options of virtual machines.
static QEMU: &[(&str, Limit)] = &[
    ("arch", Words(&["x86_64", "aarch64"])),
    ("balloon", From(0)),
    ("bios", Words(&["seabios", "ovmf"])),
    ("citype", Words(&["configdrive2", "nocloud", "opennebula"])),
    ("cores", From(1)),
    ("cpulimit", Between(0, 128)),
    ("cpuunits", Between(1, 262_144)),
    ("hugepages", Words(&["any", "2", "1024"])),
    (
        "keyboard",
        Words(&[
            "de", "de-ch", "da", "en-gb", "en-us", "es", "fi", "fr", "fr-be", "fr-ca", "fr-ch", "hu", "is",
            "it", "ja", "lt", "mk", "nl", "no", "pl", "pt", "pt-br", "sv", "sl", "tr",
        ]),
    ),
    ("migrate_downtime", From(0)),
    ("migrate_speed", From(0)),
    (
        "ostype",
        Words(&[
            "other", "wxp", "w2k", "w2k3", "w2k8", "wvista", "win7", "win8", "win10", "win11", "l24", "l26",
            "solaris",
        ]),
    ),
    ("scsihw", Words(&["lsi", "lsi53c810", "virtio-scsi-pci", "virtio-scsi-single", "megasas", "pvscsi"])),
    ("shares", Between(0, 50_000)),
    ("sockets", From(1)),
    ("vcpus", From(1)),
];

/// Options of containers.
static LXC: &[(&str, Limit)] = &[
    ("arch", Words(&["amd64", "i386", "arm64", "armhf", "riscv32", "riscv64"])),
    ("cmode", Words(&["shell", "console", "tty"])),
    ("cores", Between(1, 8192)),
    ("cpulimit", Between(0, 8192)),
    ("cpuunits", Between(0, 500_000)),
    ("memory", From(16)),
    (
        "ostype",
        Words(&[
            "debian",
            "devuan",
            "ubuntu",
            "centos",
            "fedora",
            "opensuse",
            "archlinux",
            "alpine",
            "gentoo",
            "nixos",
            "unmanaged",
        ]),
    ),
    ("swap", From(0)),
    ("tty", Between(0, 6)),
];

/// Options of property strings: the name of the format, the option's, and what it may be.
static SUBS: &[(&str, &str, Limit)] = &[
    ("AGENT", "type", Words(&["virtio", "isa"])),
    ("AUDIO", "device", Words(&["ich9-intel-hda", "intel-hda", "AC97"])),
    ("AUDIO", "driver", Words(&["spice", "none"])),
    ("DEVICE", "gid", From(0)),
    ("DEVICE", "uid", From(0)),
    ("DRIVE", "aio", Words(&["native", "threads", "io_uring"])),
    ("DRIVE", "bps_max_length", From(1)),
    ("DRIVE", "bps_rd_max_length", From(1)),
    ("DRIVE", "bps_wr_max_length", From(1)),
    ("DRIVE", "cache", Words(&["none", "writethrough", "writeback", "unsafe", "directsync"])),
    ("DRIVE", "discard", Words(&["ignore", "on"])),
    ("DRIVE", "efitype", Words(&["2m", "4m"])),
    ("DRIVE", "format", Words(&["raw", "qcow", "qed", "qcow2", "vmdk", "cloop"])),
    ("DRIVE", "iops_max_length", From(1)),
    ("DRIVE", "iops_rd_max_length", From(1)),
    ("DRIVE", "iops_wr_max_length", From(1)),
    ("DRIVE", "media", Words(&["cdrom", "disk"])),
    ("DRIVE", "ms-cert", Words(&["2011", "2023", "2023w", "2023k"])),
    ("DRIVE", "queues", From(2)),
    ("DRIVE", "rerror", Words(&["ignore", "report", "stop"])),
    ("DRIVE", "trans", Words(&["none", "lba", "auto"])),
    ("DRIVE", "version", Words(&["v1.2", "v2.0"])),
    ("DRIVE", "werror", Words(&["enospc", "ignore", "report", "stop"])),
    ("IVSHMEM", "size", From(1)),
    ("MACHINE", "viommu", Words(&["intel", "virtio"])),
    ("MEMORY", "current", From(16)),
    ("NIC", "model", Words(&Nic::MODELS)),
    ("NIC", "mtu", Between(1, 65_520)),
    ("NIC", "queues", Between(0, 64)),
    ("NIC", "rate", From(0)),
    ("NIC", "tag", Between(1, 4094)),
    ("NUMA", "policy", Words(&["preferred", "bind", "interleave"])),
    ("SPICE", "videostreaming", Words(&["off", "all", "filter"])),
    ("VETH", "mtu", Between(64, 65_535)),
    ("VETH", "tag", Between(1, 4094)),
    ("VETH", "type", Words(&["veth"])),
    ("VGA", "clipboard", Words(&["vnc"])),
    ("VGA", "memory", Between(4, 512)),
    (
        "VGA",
        "type",
        Words(&[
            "cirrus",
            "qxl",
            "qxl2",
            "qxl3",
            "qxl4",
            "none",
            "serial0",
            "serial1",
            "serial2",
            "serial3",
            "std",
            "virtio",
            "virtio-gl",
            "vmware",
        ]),
    ),
    ("VIRTIOFS", "cache", Words(&["auto", "always", "metadata", "never"])),
];

impl fmt::Display for Limit {
    /// The mend.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            From(least) => write!(f, "use {least} or more"),
            Between(least, most) => write!(f, "use {least} to {most}"),
            Words([word]) => write!(f, "use {word}"),
            Words(words) => write!(f, "use one of {}", words.join(", ")),
        }
    }
}

impl Limit {
    /// Why a value is refused, and the mend. A word is not quoted: it may be a secret in the wrong place.
    fn refusal(self, value: &Canonical) -> Option<String> {
        let fits = match (self, value) {
            (From(least), Canonical::Integer(number)) => *number >= i64::from(least),
            (Between(least, most), Canonical::Integer(number)) => {
                (i64::from(least)..=i64::from(most)).contains(number)
            }
            // What a float rounds is far from any limit.
            (From(least), Canonical::Decimal(text)) => {
                text.parse::<f64>().is_ok_and(|number| number >= f64::from(least))
            }
            (Between(least, most), Canonical::Decimal(text)) => {
                let inside = |number| (f64::from(least)..=f64::from(most)).contains(&number);
                text.parse::<f64>().is_ok_and(inside)
            }
            (Words(words), Canonical::Text(word)) => words.contains(&word.as_str()),
            // What is not of its option's kind is told elsewhere.
            _ => true,
        };
        let what = match self {
            Words(_) => "Proxmox VE has no such word for it".to_owned(),
            From(_) | Between(..) => format!("Proxmox VE does not take {value}"),
        };
        (!fits).then(|| format!("{what}: {self}"))
    }
}

fn limit_of(guest: GuestType, key: &str) -> Option<Limit> {
    let table = match guest {
        GuestType::Qemu => QEMU,
        GuestType::Lxc => LXC,
    };
    table.iter().find(|(name, _)| *name == key).map(|(_, limit)| *limit)
}

fn limit_of_sub(format: &str, sub: &str) -> Option<Limit> {
    SUBS.iter().find(|(of, name, _)| (*of, *name) == (format, sub)).map(|(_, _, limit)| *limit)
}

/// What of an option's value Proxmox VE refuses: the field (`cores`, `net0.tag`), and why with the mend.
pub(crate) fn refused(guest: GuestType, key: &str, value: &Canonical) -> Vec<(String, String)> {
    let whole = limit_of(guest, key).and_then(|limit| limit.refusal(value));
    let mut all: Vec<_> = whole.into_iter().map(|text| (key.to_owned(), text)).collect();
    if let (Canonical::Map(map), Some(format)) =
        (value, find(guest, key).and_then(|option| option.kind.format()))
    {
        all.extend(map.iter().filter_map(|(sub, value)| {
            let text = limit_of_sub(format.name, sub)?.refusal(value)?;
            Some((format!("{key}.{sub}"), text))
        }));
    }
    all
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]
mod tests {
    use std::collections::BTreeSet;

    use pve_sim::{Contract, schema_file};
    use serde_json::Value;

    use super::*;
    use crate::canonical::{Managed, options};

    /// The limit that a declaration of the schema states.
    fn stated(declared: &Value) -> Option<String> {
        // The schema has some bounds as texts.
        let bound = |name: &str| match &declared[name] {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            number => Some(number.to_string()),
        };
        if let Some(words) = declared["enum"].as_array() {
            return Some(format!(
                "{:?}",
                words.iter().map(|word| word.as_str().unwrap()).collect::<Vec<_>>()
            ));
        }
        let (least, most) = (bound("minimum"), bound("maximum"));
        (least.is_some() || most.is_some()).then(|| format!("{least:?} {most:?}"))
    }

    /// The same of an entry of the tables.
    fn entered(limit: Limit) -> String {
        let some = |number: u32| Some(number.to_string());
        match limit {
            Words(words) => format!("{words:?}"),
            From(least) => format!("{:?} {:?}", some(least), None::<String>),
            Between(least, most) => format!("{:?} {:?}", some(least), some(most)),
        }
    }

    /// Of each managed option and each option of property strings whose format the schema spells out: what it states and what the tables have
    /// is the same, and the tables have nothing else.
    ///
    /// Seen failing with: a tag up to 4095; a word of `ostype` too few; no entry for `swap`; an entry for `console`, which has no limits, or for an option that there is not.
    #[test]
    fn the_tables_say_what_the_schema_says() {
        let file = schema_file().expect("PVE_SIM_SCHEMA names no file: see .cargo/config.toml");
        if !file.is_file() && std::env::var("CI").as_deref() != Ok("true") {
            println!("not run: the_tables_say_what_the_schema_says: {} is absent", file.display());
            return;
        }
        let contract = Contract::read(&file).unwrap();
        let mut compared = BTreeSet::new();
        for (guest, table, paths) in [
            (
                GuestType::Qemu,
                QEMU,
                [("POST", "/nodes/{node}/qemu"), ("PUT", "/nodes/{node}/qemu/{vmid}/config")],
            ),
            (
                GuestType::Lxc,
                LXC,
                [("POST", "/nodes/{node}/lxc"), ("PUT", "/nodes/{node}/lxc/{vmid}/config")],
            ),
        ] {
            for (method, path) in paths {
                let declared = &contract.declaration(method, path)["parameters"]["properties"];
                for option in options(guest).iter().filter(|option| option.managed == Managed::Yes) {
                    let name = option
                        .count
                        .map_or_else(|| option.name.to_owned(), |_| format!("{}[n]", option.name));
                    let declared = &declared[&name];
                    let place = format!("{method} {path}: {name}");
                    assert_eq!(limit_of(guest, &name).map(entered), stated(declared), "{place}");
                    compared.insert((guest.as_str(), name.clone()));
                    let (Some(format), Some(subs)) = (option.kind.format(), declared["format"].as_object())
                    else {
                        continue;
                    };
                    for (sub, declared) in subs {
                        // Another name of an option is entered as that option.
                        let Some(known) = format.sub(sub).filter(|known| known.name == sub) else { continue };
                        let has = limit_of_sub(format.name, known.name).map(entered);
                        assert_eq!(has, stated(declared), "{place}: {sub}");
                        compared.insert((format.name, sub.clone()));
                    }
                }
            }
            for (name, _) in table {
                assert!(compared.contains(&(guest.as_str(), (*name).to_owned())), "{name} is in no schema");
            }
        }
        for (format, sub, _) in SUBS {
            assert!(compared.contains(&(*format, (*sub).to_owned())), "{format} {sub} is in no schema");
        }
    }
}
