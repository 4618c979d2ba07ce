//! Formats that the schema names without saying that they are property strings: their parts.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use serde_json::Value;

use super::table::{Parameter, parameter};

/// The parts, in the schema's own form.
const TEXT: &str = r#"{
  "pve-qm-boot": {
    "legacy": {"type": "string", "default_key": 1, "pattern": "[acdn]{1,4}", "optional": 1},
    "order": {"type": "string", "format": "pve-qm-bootdev-list", "optional": 1}
  },
  "pve-qm-ipconfig": {
    "ip": {"type": "string", "format": "pve-ipv4-config", "optional": 1},
    "gw": {"type": "string", "format": "ipv4", "optional": 1, "requires": "ip"},
    "ip6": {"type": "string", "format": "pve-ipv6-config", "optional": 1},
    "gw6": {"type": "string", "format": "ipv6", "optional": 1, "requires": "ip6"}
  },
  "pve-qm-smbios1": {
    "uuid": {"type": "string", "pattern": "[a-fA-F0-9]{8}(?:-[a-fA-F0-9]{4}){3}-[a-fA-F0-9]{12}", "optional": 1},
    "version": {"type": "string", "pattern": "[A-Za-z0-9+/]+={0,2}", "optional": 1},
    "serial": {"type": "string", "pattern": "[A-Za-z0-9+/]+={0,2}", "optional": 1},
    "manufacturer": {"type": "string", "pattern": "[A-Za-z0-9+/]+={0,2}", "optional": 1},
    "product": {"type": "string", "pattern": "[A-Za-z0-9+/]+={0,2}", "optional": 1},
    "sku": {"type": "string", "pattern": "[A-Za-z0-9+/]+={0,2}", "optional": 1},
    "family": {"type": "string", "pattern": "[A-Za-z0-9+/]+={0,2}", "optional": 1},
    "base64": {"type": "boolean", "optional": 1}
  },
  "pve-qm-cicustom": {
    "meta": {"type": "string", "format": "pve-volume-id", "optional": 1},
    "network": {"type": "string", "format": "pve-volume-id", "optional": 1},
    "user": {"type": "string", "format": "pve-volume-id", "optional": 1},
    "vendor": {"type": "string", "format": "pve-volume-id", "optional": 1}
  }
}"#;

/// The parts of a named format, if it is a property string.
pub fn named_parts(name: &str) -> Option<&'static BTreeMap<String, Parameter>> {
    static PARTS: OnceLock<BTreeMap<String, BTreeMap<String, Parameter>>> = OnceLock::new();
    let all = PARTS.get_or_init(|| {
        let formats: BTreeMap<String, BTreeMap<String, Value>> =
            serde_json::from_str(TEXT).unwrap_or_default();
        let parsed = formats.into_iter().map(|(name, parts)| {
            (name, parts.into_iter().map(|(part, declared)| (part, parameter(&declared))).collect())
        });
        parsed.collect()
    });
    all.get(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_named_property_string_has_parts() {
        for name in ["pve-qm-boot", "pve-qm-ipconfig", "pve-qm-smbios1", "pve-qm-cicustom"] {
            assert!(named_parts(name).is_some_and(|parts| !parts.is_empty()), "{name}");
        }
        assert!(named_parts("pve-vmid").is_none());
    }
}
