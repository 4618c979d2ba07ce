//! PVE's named formats. Each refusal is the text that PVE has for it, without the newline at its end.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::OnceLock;

use regex::Regex;

use crate::world::access::PRIVILEGES;

/// Takes a list apart as PVE does: commas, semicolons and blanks separate.
pub fn split_list(text: &str) -> impl Iterator<Item = &str> {
    text.split([',', ';', ' ', '\t', '\n', '\0']).filter(|part| !part.is_empty())
}

/// A compiled expression that stays; an invalid one matches nothing.
fn matches(cell: &OnceLock<Option<Regex>>, pattern: &str, text: &str) -> bool {
    cell.get_or_init(|| Regex::new(pattern).ok()).as_ref().is_some_and(|regex| regex.is_match(text))
}

macro_rules! is {
    ($pattern:literal, $text:expr) => {{
        static CELL: OnceLock<Option<Regex>> = OnceLock::new();
        matches(&CELL, $pattern, $text)
    }};
}

fn cidr(value: &str) -> Option<(IpAddr, u8)> {
    let (address, bits) = value.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let bits: u8 = bits.parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    (bits <= most).then_some((address, bits))
}

fn is_dns_name(value: &str) -> bool {
    is!(r"^([a-zA-Z0-9]([a-zA-Z0-9\-]*[a-zA-Z0-9])?)(\.([a-zA-Z0-9]([a-zA-Z0-9\-]*[a-zA-Z0-9])?))*$", value)
}

fn is_volume_id(value: &str) -> bool {
    is!(r"(?i)^[a-z][a-z0-9\-_.]*[a-z0-9]:.+$", value)
}

/// A calendar event, loosely: what PVE's parser surely refuses is refused.
fn calendar_event(value: &str) -> Result<(), String> {
    const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
    const NAMED: [&str; 9] = [
        "minutely",
        "hourly",
        "daily",
        "weekly",
        "monthly",
        "yearly",
        "annually",
        "quarterly",
        "semiannually",
    ];
    let lower = value.trim().to_lowercase();
    if NAMED.contains(&lower.as_str()) || lower == "semi-annually" {
        return Ok(());
    }
    for word in lower.split_whitespace() {
        let days = word.split([',', '.']).filter(|part| !part.is_empty());
        let all_days = days.clone().all(|day| DAYS.iter().any(|known| day.starts_with(known)));
        let time = is!(r"^[0-9*/.,:\-]+$", word);
        if !all_days && !time {
            let word = value.split_whitespace().find(|have| have.to_lowercase() == word).unwrap_or(value);
            return Err(format!(
                "invalid calendar event '{value}' - unable to parse calendar event at '{word}' - Context(\"weekday\")\n"
            ));
        }
    }
    Ok(())
}

/// Addresses of a firewall rule: addresses, networks, ranges, lists of them, aliases, and sets after a `+`.
fn firewall_addresses(value: &str) -> Result<(), String> {
    if is!(r"^\+?(dc/|guest/)?[A-Za-z][A-Za-z0-9\-_]+$", value) {
        return Ok(());
    }
    for part in value.split(',') {
        let one = part.trim();
        let range = one
            .split_once('-')
            .is_some_and(|(from, to)| from.parse::<IpAddr>().is_ok() && to.parse::<IpAddr>().is_ok());
        if !(range || one.parse::<IpAddr>().is_ok() || cidr(one).is_some()) {
            return Err(format!("invalid IP address: Invalid chars in IP {value}"));
        }
    }
    Ok(())
}

fn firewall_ports(value: &str) -> Result<(), String> {
    for part in value.split(',') {
        let fits = |port: &str| match port.parse::<u32>() {
            Ok(number) => number <= 65535,
            Err(_) => is!(r"^[a-zA-Z][a-zA-Z0-9\-]*$", port),
        };
        if let Some((from, to)) = part.split_once(':') {
            if !(fits(from) && fits(to)) {
                return Err(format!("invalid port '{value}'"));
            }
        } else if part.is_empty() {
            return Err("value is empty".to_owned());
        } else if !fits(part) {
            return Err(match part.parse::<u64>() {
                Ok(_) => format!("invalid port '{part}'"),
                Err(_) => format!("unknown service or invalid port '{part}'"),
            });
        }
    }
    Ok(())
}

/// A processor: one of QEMU's, or one of the cluster's own with a prefix. The names are PVE's list in short.
fn processor(value: &str) -> Result<(), String> {
    const FAMILIES: [&str; 30] = [
        "486",
        "Broadwell",
        "Cascadelake",
        "Conroe",
        "Cooperlake",
        "EPYC",
        "GraniteRapids",
        "Haswell",
        "Icelake",
        "IvyBridge",
        "KnightsMill",
        "Nehalem",
        "Opteron_G",
        "Penryn",
        "SandyBridge",
        "SapphireRapids",
        "SierraForest",
        "Skylake",
        "Westmere",
        "athlon",
        "core2duo",
        "coreduo",
        "host",
        "kvm32",
        "kvm64",
        "max",
        "pentium",
        "phenom",
        "qemu",
        "x86-64-v",
    ];
    let mut parts = value.split(',').map(|part| part.split_once('=').unwrap_or(("cputype", part)));
    let model = parts.find(|(key, _)| *key == "cputype").map(|(_, model)| model);
    match model {
        Some(model)
            if !model.starts_with("custom-") && !FAMILIES.iter().any(|known| model.starts_with(known)) =>
        {
            Err(format!("Built-in cputype '{model}' is not defined (missing 'custom-' prefix?)"))
        }
        _ => Ok(()),
    }
}

/// Whether `value` has the named format; formats that this table lacks accept everything.
pub fn check(name: &str, value: &str) -> Result<(), String> {
    if name == "pve-priv-list" {
        return match split_list(value).find(|one| !PRIVILEGES.contains(one)) {
            Some(one) => Err(format!("invalid privilege '{one}'")),
            None => Ok(()),
        };
    }
    if let Some(one) = name.strip_suffix("-list") {
        return split_list(value).try_for_each(|part| check(one, part));
    }
    if let Some(one) = name.strip_suffix("-opt") {
        return if value.is_empty() { Ok(()) } else { check(one, value) };
    }
    let refuse = |fits: bool, text: String| if fits { Ok(()) } else { Err(text) };
    let looks = |fits: bool, like: &str| refuse(fits, format!("value does not look like a valid {like}"));
    match name {
        "pve-vmid" => looks(is!(r"^[1-9][0-9]{2,8}$", value), "VM ID"),
        "pve-node" => looks(is!(r"^[a-zA-Z0-9]([a-zA-Z0-9\-]*[a-zA-Z0-9])?$", value), "node name"),
        "pve-configid" => {
            refuse(is!(r"(?i)^[a-z][a-z0-9_-]+$", value), format!("invalid configuration ID '{value}'"))
        }
        "pve-storage-id" => refuse(
            is!(r"(?i)^[a-z][a-z0-9\-_.]*[a-z0-9]$", value),
            format!("storage ID '{value}' contains illegal characters"),
        ),
        "pve-storage-content" => refuse(
            ["images", "rootdir", "vztmpl", "iso", "backup", "snippets", "import", "none"].contains(&value),
            format!("invalid content type '{value}'"),
        ),
        "pve-storage-path" => looks(value.starts_with('/'), "absolute path"),
        "pve-storage-server" => {
            looks(is_dns_name(value) || value.parse::<IpAddr>().is_ok(), "server name or IP address")
        }
        "pve-poolid" => refuse(
            is!(r"^[A-Za-z0-9.\-_]+(/[A-Za-z0-9.\-_]+){0,2}$", value),
            format!("pool name '{value}' contains invalid characters"),
        ),
        "pve-userid" => refuse(
            is!(r"^[^\s:/]+@[A-Za-z][A-Za-z0-9.\-_]+$", value),
            format!("value '{value}' does not look like a valid user name"),
        ),
        "pve-tokenid" => refuse(
            is!(r"^[^\s:/]+@[A-Za-z][A-Za-z0-9.\-_]+![A-Za-z][A-Za-z0-9.\-_]+$", value),
            format!("value '{value}' does not look like a valid token ID"),
        ),
        "pve-realm" => looks(is!(r"^[A-Za-z][A-Za-z0-9.\-_]+$", value), "realm"),
        "pve-groupid" => refuse(
            is!(r"^[A-Za-z0-9.\-_]+$", value),
            format!("group name '{value}' contains invalid characters"),
        ),
        "pve-roleid" => refuse(
            is!(r"^[A-Za-z0-9.\-_]+$", value),
            format!("role name '{value}' contains invalid characters"),
        ),
        "dns-name" => looks(is_dns_name(value), "DNS name"),
        "ip" => looks(value.parse::<IpAddr>().is_ok(), "IP address"),
        "ipv4" => looks(value.parse::<Ipv4Addr>().is_ok(), "IPv4 address"),
        "ipv6" => looks(value.parse::<Ipv6Addr>().is_ok(), "IPv6 address"),
        "ipv4mask" => looks(value.parse::<Ipv4Addr>().is_ok() || value.parse::<u8>().is_ok(), "netmask"),
        "CIDR" => looks(cidr(value).is_some(), "CIDR network"),
        "CIDRv4" => looks(cidr(value).is_some_and(|(address, _)| address.is_ipv4()), "IPv4/CIDR network"),
        "CIDRv6" => looks(cidr(value).is_some_and(|(address, _)| address.is_ipv6()), "IPv6/CIDR network"),
        "IPorCIDR" => {
            looks(value.parse::<IpAddr>().is_ok() || cidr(value).is_some(), "IP address or CIDR network")
        }
        "IPorCIDRorAlias" => looks(
            value.parse::<IpAddr>().is_ok()
                || cidr(value).is_some()
                || is!(r"^(dc/|guest/)?[A-Za-z][A-Za-z0-9\-_]+$", value),
            "IP address or CIDR network",
        ),
        "pve-ipv4-config" => looks(
            matches!(value, "dhcp" | "manual") || cidr(value).is_some_and(|(address, _)| address.is_ipv4()),
            "ipv4 network configuration",
        ),
        "pve-ipv6-config" => looks(
            matches!(value, "auto" | "dhcp" | "manual")
                || cidr(value).is_some_and(|(address, _)| address.is_ipv6()),
            "ipv6 network configuration",
        ),
        "address" => refuse(
            is_dns_name(value) || value.parse::<IpAddr>().is_ok(),
            format!("value does not look like a valid address: {value}"),
        ),
        "mac-addr" => looks(is!(r"(?i)^[a-f0-9][02468ace](:[a-f0-9]{2}){5}$", value), "unicast MAC address"),
        "pve-volume-id" => refuse(is_volume_id(value), format!("unable to parse volume ID '{value}'")),
        "pve-volume-id-or-qm-path" => refuse(
            matches!(value, "none" | "cdrom") || value.starts_with('/') || is_volume_id(value),
            format!("unable to parse volume ID '{value}'"),
        ),
        "pve-volume-id-or-absolute-path" | "pve-lxc-mp-string" => refuse(
            value.starts_with('/') || is_volume_id(value),
            format!("unable to parse volume ID '{value}'"),
        ),
        "pve-tag" => {
            refuse(is!(r"(?i)^[a-z0-9_][a-z0-9_\-+.]*$", value), "invalid characters in tag".to_owned())
        }
        "email" => looks(is!(r"^[\w+\-~.]+@[a-zA-Z0-9\-.]+$", value), "email address"),
        "pve-calendar-event" => calendar_event(value),
        "pve-fw-addr-spec" => firewall_addresses(value),
        "pve-fw-sport-spec" | "pve-fw-dport-spec" => firewall_ports(value),
        "pve-iface" => refuse(
            is!(r"(?i)^[a-z][a-z0-9_]{1,20}([:.]\d+)?$", value),
            format!("invalid network interface name '{value}'"),
        ),
        "disk-size" => refuse(
            is!(r"^\d+(\.\d+)?[KMGT]?$", value),
            format!("value does not look like a valid disk size: {value}"),
        ),
        "urlencoded" => {
            refuse(is!(r"^[-%a-zA-Z0-9_.!~*'()]*$", value), format!("invalid urlencoded string: {value}"))
        }
        "pve-qm-bootdev" => refuse(
            is!(r"^((net|usb|hostpci|ide|sata|scsi|virtio)\d+|efidisk0|tpmstate0)$", value),
            format!("invalid boot device '{value}'"),
        ),
        "pve-qm-bootdisk" => {
            refuse(is!(r"^(ide|sata|scsi|virtio)\d+$", value), format!("invalid boot disk '{value}'"))
        }
        "pve-vm-cpu-conf" => processor(value),
        "pve-startup-order" => refuse(
            is!(r"^(order=)?\d+(,up=\d+)?(,down=\d+)?$|^(up|down)=\d+(,(up|down)=\d+)?$", value),
            "unable to parse startup options".to_owned(),
        ),
        "pve-hotplug-features" => refuse(
            matches!(value, "0" | "1")
                || split_list(value)
                    .all(|one| ["network", "disk", "cpu", "memory", "usb", "cloudinit"].contains(&one)),
            "unable to parse hotplug option".to_owned(),
        ),
        "pve-ha-resource-or-vm-id" => looks(is!(r"^([a-z]+:\S+|\d+)$", value), "ha resource id"),
        "pve-ha-group-node" => {
            looks(is!(r"^[a-zA-Z0-9]([a-zA-Z0-9\-]*[a-zA-Z0-9])?(:\d+)?$", value), "ha group node")
        }
        "pve-sdn-zone-id" => refuse(
            is!(r"(?i)^[a-z][a-z0-9]*[a-z0-9]$", value),
            format!("zone ID '{value}' contains illegal characters"),
        ),
        "pve-bridge-id" => refuse(is!(r"^[-_.\w\d]+$", value), "invalid bridge".to_owned()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_accept_and_refuse_as_pve_does() {
        for (name, good, bad) in [
            ("pve-vmid", "100", "99"),
            ("mac-addr", "BC:24:11:00:00:01", "01:00:00:00:00:01"),
            ("pve-volume-id-or-qm-path", "local:32", "local"),
            ("pve-calendar-event", "sat 03:00", "never ever"),
            ("pve-calendar-event", "*/30", "foo"),
            ("pve-tag-list", "a;b, c", "bad tag!"),
            ("pve-poolid", "a/b", "a b"),
            ("pve-fw-addr-spec", "10.0.0.0/8", "not an ip"),
            ("pve-fw-dport-spec", "22,80:90", "0:700000"),
            ("email-opt", "", "x"),
            ("pve-priv-list", "VM.Audit VM.Clone", "VM.Nope"),
        ] {
            assert_eq!(check(name, good), Ok(()), "{name} {good}");
            assert!(check(name, bad).is_err(), "{name} {bad}");
        }
    }
}
