//! Writing one option of a property string: what the live one has besides stays, in its place and spelling.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use pve_client::property::{Nic, Property, PropertyString};
use pvegraph_inventory::GuestType;

use crate::canonical::{Kind, find};

/// The live property string with these options set and those removed.
///
/// Nothing where it is not understood: it is never written back then.
pub(super) fn merged<T: Display>(
    guest: GuestType,
    key: &str,
    live: &str,
    set: &BTreeMap<&str, &T>,
    remove: &BTreeSet<&str>,
) -> Option<String> {
    let option = find(guest, key)?;
    let format = option.kind.format()?;
    let options: PropertyString = live.parse().ok()?;
    let mut parts: Vec<(Option<String>, String)> =
        options.iter().map(|(key, value)| (key.map(str::to_owned), value.to_owned())).collect();
    // `virtio=BC:24:…` is model and hardware address in one.
    let model = match option.kind {
        Kind::Nic(_) if options.get_default("model").is_none() => {
            Some(Nic::read_leniently(live).ok()?.0.model().to_owned())
        }
        _ => None,
    };
    let place = |parts: &[(Option<String>, String)], name: &str| {
        let sub = format.sub(name);
        parts.iter().position(|(key, _)| match key {
            None => format.default == Some(name),
            Some(key) => key == name || sub.is_some_and(|sub| sub.name == key || sub.alias == Some(key)),
        })
    };
    for (name, value) in set {
        let both = model.as_ref().and_then(|model| {
            parts.iter().position(|(key, _)| key.as_ref() == Some(model)).map(|at| (at, *name))
        });
        match (both, place(&parts, name)) {
            (Some((at, "model")), _) => parts.get_mut(at)?.0 = Some(value.to_string()),
            (Some((at, "macaddr")), _) => parts.get_mut(at)?.1 = value.to_string(),
            (_, Some(at)) => parts.get_mut(at)?.1 = value.to_string(),
            (_, None) => parts.push((Some((*name).to_owned()), value.to_string())),
        }
    }
    for name in remove {
        if let Some(at) = place(&parts, name) {
            parts.remove(at);
        }
    }
    let text = |(key, value): &(Option<String>, String)| match key {
        Some(key) => format!("{key}={value}"),
        None => value.clone(),
    };
    Some(parts.iter().map(text).collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::canonical::{Canonical, TagStyle, canonical};

    fn with(key: &str, live: &str, set: &[(&str, &str)], remove: &[&str]) -> String {
        let format = find(GuestType::Qemu, key).unwrap().kind.format().unwrap();
        let values: Vec<(&str, Canonical)> = set
            .iter()
            .map(|(name, text)| {
                (*name, format.sub(name).map_or(Kind::Text, |s| s.kind).read(text, TagStyle::default()))
            })
            .collect();
        let set = values.iter().map(|(name, value)| (*name, value)).collect();
        merged(GuestType::Qemu, key, live, &set, &remove.iter().copied().collect()).unwrap()
    }

    #[test]
    fn what_nobody_desires_stays() {
        let nic = "virtio=BC:24:11:00:00:01,bridge=vmbr0,firewall=1,odd=x,tag=5";
        assert_eq!(
            with("net0", nic, &[("bridge", "vmbr1")], &["tag"]),
            "virtio=BC:24:11:00:00:01,bridge=vmbr1,firewall=1,odd=x"
        );
        assert_eq!(
            with("net0", nic, &[("model", "e1000")], &[]),
            "e1000=BC:24:11:00:00:01,bridge=vmbr0,firewall=1,odd=x,tag=5"
        );
        assert_eq!(
            with("net0", nic, &[("macaddr", "bc:24:11:00:00:02"), ("mtu", "1400")], &[]),
            "virtio=BC:24:11:00:00:02,bridge=vmbr0,firewall=1,odd=x,tag=5,mtu=1400"
        );
        let long = "model=virtio,macaddr=BC:24:11:00:00:01,bridge=vmbr0";
        assert_eq!(
            with("net0", long, &[("model", "e1000"), ("bridge", "vmbr1")], &[]),
            "model=e1000,macaddr=BC:24:11:00:00:01,bridge=vmbr1"
        );
        let disk = "local-lvm:vm-100-disk-0,discard=on,size=32G";
        assert_eq!(
            with("scsi0", disk, &[("iothread", "1"), ("size", "64G")], &["discard"]),
            "local-lvm:vm-100-disk-0,size=64G,iothread=1"
        );
        let long = "file=local-lvm:vm-100-disk-0,size=32G";
        assert_eq!(with("scsi0", long, &[("volume", "none")], &[]), "file=none,size=32G");
        assert_eq!(with("cpu", "host,flags=+aes", &[("cputype", "kvm64")], &[]), "kvm64,flags=+aes");
        assert_eq!(with("cpu", "flags=+aes", &[("cputype", "kvm64")], &[]), "flags=+aes,cputype=kvm64");
        assert_eq!(
            merged::<String>(GuestType::Qemu, "net0", "a,b", &BTreeMap::new(), &BTreeSet::new()),
            None
        );
    }

    proptest! {
        /// Reading what was merged gives what was there, with what was set; and setting the same again changes nothing.
        #[test]
        fn merging_sets_and_nothing_else(
            tag in 1..4000_i64, bridge in "vmbr[0-9]{1,3}", firewall: bool, long: bool, more in "[a-z]{2,8}", value in "[a-z0-9]{1,8}",
        ) {
            prop_assume!(find(GuestType::Qemu, "net0").unwrap().kind.format().unwrap().sub(&more).is_none());
            let head = if long { "model=virtio,macaddr=BC:24:11:00:00:01" } else { "virtio=BC:24:11:00:00:01" };
            let live = format!("{head},bridge=vmbr0,{more}={value},firewall={}", u8::from(firewall));
            let set = [("bridge", &*bridge), ("tag", &*tag.to_string())];
            let once = with("net0", &live, &set, &[]);
            prop_assert_eq!(&with("net0", &once, &set, &[]), &once);
            let read = |text: &str| match canonical(GuestType::Qemu, "net0", text, TagStyle::default()) {
                Canonical::Map(map) => map,
                other => panic!("{other}"),
            };
            let mut expected = read(&live);
            expected.insert("bridge".to_owned(), Canonical::Text(bridge));
            expected.insert("tag".to_owned(), Canonical::Integer(tag));
            prop_assert_eq!(read(&once), expected);
        }
    }
}
