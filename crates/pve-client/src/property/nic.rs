//! Network interfaces of guests.

use std::net::IpAddr;

use super::{
    IpSetting, MacAddr, OddOption, Property, PropertyString, PropertyValue, option, property, strict_text,
};
use crate::malformed::Malformed;

/// The options that are no models, so that a `key=MAC` of a model that this version does not know can be told apart.
const NOT_MODELS: [&str; 10] =
    ["model", "macaddr", "bridge", "firewall", "tag", "trunks", "link_down", "mtu", "queues", "rate"];

/// A network interface of a QEMU guest: `virtio=BC:24:11:83:ED:32,bridge=vmbr0,firewall=1,tag=12`, or in the long form
/// `model=virtio,macaddr=…`.
#[derive(Clone, Debug, PartialEq)]
pub struct Nic {
    options: PropertyString,
    model: String,
    mac: Option<MacAddr>,
    bridge: Option<String>,
    firewall: Option<bool>,
    tag: Option<u16>,
    trunks: Option<String>,
    link_down: Option<bool>,
    mtu: Option<u32>,
    queues: Option<u32>,
    rate: Option<f64>,
}

impl Nic {
    /// The emulated hardware, such as `virtio` or `e1000`.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// The hardware address.
    pub fn mac(&self) -> Option<MacAddr> {
        self.mac
    }

    /// The bridge or virtual network it is attached to; absent means user-mode networking.
    pub fn bridge(&self) -> Option<&str> {
        self.bridge.as_deref()
    }

    /// Do the guest's firewall rules apply? Absent is `false`.
    pub fn firewall(&self) -> Option<bool> {
        self.firewall
    }

    /// The VLAN of untagged packets.
    pub fn tag(&self) -> Option<u16> {
        self.tag
    }

    /// The VLANs that may pass tagged: numbers and ranges, separated by `;`.
    pub fn trunks(&self) -> Option<&str> {
        self.trunks.as_deref()
    }

    /// Is the cable pulled?
    pub fn link_down(&self) -> Option<bool> {
        self.link_down
    }

    /// The largest packet in bytes; 1 means the bridge's.
    pub fn mtu(&self) -> Option<u32> {
        self.mtu
    }

    /// The number of packet queues.
    pub fn queues(&self) -> Option<u32> {
        self.queues
    }

    /// The limit in megabytes per second.
    pub fn rate(&self) -> Option<f64> {
        self.rate
    }
}

impl Property for Nic {
    fn read_leniently(text: &str) -> Result<(Self, Vec<OddOption>), Malformed> {
        const EXPECTED: &str = "a network interface such as `virtio=BC:24:11:00:00:01,bridge=vmbr0`";
        let options: PropertyString = text.parse()?;
        let mut odd = Vec::new();
        let (model, mac) = match options.get_default("model") {
            Some(model) => (model, options.get("macaddr")),
            None => options
                .iter()
                .find_map(|(key, value)| Some((key.filter(|key| is_model(key, value))?, Some(value))))
                .ok_or_else(|| Malformed::new(EXPECTED, text))?,
        };
        let (model, mac) = (model.to_owned(), option("macaddr", mac, &mut odd));
        let nic = Self {
            model,
            mac,
            bridge: option("bridge", options.get("bridge"), &mut odd),
            firewall: option("firewall", options.get("firewall"), &mut odd),
            tag: option("tag", options.get("tag"), &mut odd),
            trunks: option("trunks", options.get("trunks"), &mut odd),
            link_down: option("link_down", options.get("link_down"), &mut odd),
            mtu: option("mtu", options.get("mtu"), &mut odd),
            queues: option("queues", options.get("queues"), &mut odd),
            rate: option("rate", options.get("rate"), &mut odd),
            options,
        };
        Ok((nic, odd))
    }

    fn options(&self) -> &PropertyString {
        &self.options
    }
}

strict_text!(Nic);

impl Nic {
    /// The models that PVE knows: QEMU's names for network cards.
    pub const MODELS: [&'static str; 14] = [
        "e1000",
        "e1000-82540em",
        "e1000-82544gc",
        "e1000-82545em",
        "e1000e",
        "i82551",
        "i82557b",
        "i82559er",
        "ne2k_isa",
        "ne2k_pci",
        "pcnet",
        "rtl8139",
        "virtio",
        "vmxnet3",
    ];
}

/// PVE's models; an unknown key counts as one too if its value is a MAC address.
fn is_model(key: &str, value: &str) -> bool {
    Nic::MODELS.contains(&key) || (!NOT_MODELS.contains(&key) && MacAddr::from_option(value).is_some())
}

property! {
    /// A network interface of a container: `name=eth0,bridge=vmbr0,hwaddr=BC:24:11:16:67:69,ip=dhcp,type=veth`.
    pub struct ContainerNic {
        copy {
            /// The hardware address.
            mac: MacAddr = "hwaddr",
            /// Do the guest's firewall rules apply? Absent is `false`.
            firewall: bool = "firewall",
            /// The VLAN of untagged packets.
            tag: u16 = "tag",
            /// Is the cable pulled?
            link_down: bool = "link_down",
            /// The largest packet in bytes.
            mtu: u32 = "mtu",
            /// The limit in megabytes per second.
            rate: f64 = "rate",
            /// How it gets its IPv4 address.
            ip: IpSetting = "ip",
            /// How it gets its IPv6 address.
            ip6: IpSetting = "ip6",
            /// The IPv4 gateway.
            gw: IpAddr = "gw",
            /// The IPv6 gateway.
            gw6: IpAddr = "gw6",
        }
        kept {
            /// The interface's name in the container.
            name: String = "name",
            /// The bridge or virtual network it is attached to.
            bridge: String = "bridge",
            /// The VLANs that may pass tagged, separated by `;`.
            trunks: String = "trunks",
            /// The kind of interface: `veth`.
            kind: String = "type",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn genuine_interfaces_are_written_as_read() {
        for text in [
            "virtio=BC:24:11:83:ED:32,bridge=vmbr0,firewall=1,tag=12",
            "e1000=AA:BB:CC:00:11:22,bridge=vmbr0,link_down=1,rate=12.5",
            "virtio=BC:24:11:DC:B8:3C,bridge=vmbr0,mtu=1400,queues=2,trunks=5;7;10-20",
            "model=virtio,macaddr=BC:24:11:DC:B8:3C,bridge=vmbr0",
            "virtio,bridge=vmbr0",
        ] {
            let nic: Nic = text.parse().unwrap();
            assert_eq!(nic.to_string(), text);
        }
    }

    #[test]
    fn all_forms_name_the_model() {
        let mac: MacAddr = "BC:24:11:DC:B8:3C".parse().unwrap();
        for (text, model) in [
            ("virtio=BC:24:11:DC:B8:3C,bridge=vmbr0", "virtio"),
            ("bridge=vmbr0,e1000e=bc:24:11:dc:b8:3c", "e1000e"),
            ("model=vmxnet3,macaddr=BC:24:11:DC:B8:3C", "vmxnet3"),
            ("rtl8139,macaddr=BC:24:11:DC:B8:3C", "rtl8139"),
            ("newcard=BC:24:11:DC:B8:3C,x=y", "newcard"),
        ] {
            let nic: Nic = text.parse().unwrap();
            assert_eq!((nic.model(), nic.mac()), (model, Some(mac)), "{text}");
        }
        for bad in [
            "",
            "bridge=vmbr0",
            "macaddr=BC:24:11:DC:B8:3C",
            "virtio=nonsense",
            "virtio=BC:24:11:DC:B8:3C,tag=x",
        ] {
            assert!(bad.parse::<Nic>().is_err(), "{bad:?} was read");
        }
    }

    #[test]
    fn interfaces_of_containers() {
        let text = "name=eth0,bridge=vmbr0,firewall=1,hwaddr=BC:24:11:16:67:69,ip=192.0.2.7/24,gw=192.0.2.1,ip6=auto,type=veth";
        let nic: ContainerNic = text.parse().unwrap();
        assert_eq!(nic.to_string(), text);
        assert_eq!(nic.name().map(String::as_str), Some("eth0"));
        assert_eq!(nic.ip().map(|ip| ip.to_string()).as_deref(), Some("192.0.2.7/24"));
        assert_eq!((nic.ip6(), nic.firewall()), (Some(IpSetting::Auto), Some(true)));
        assert_eq!(nic.kind().map(String::as_str), Some("veth"));
        let (odd, list) = ContainerNic::read_leniently("name=eth0,ip=somewhere,bridge=vmbr0").unwrap();
        assert_eq!((odd.ip(), odd.bridge().is_some(), list.len()), (None, true, 1));
    }
}
