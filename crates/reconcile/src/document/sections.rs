//! The keys of the sections that are stored and not managed yet. Everything else is refused, so that no secret comes in with a key that
//! nobody looks at.

use serde_json::{Map, Value, json};

use crate::desired::Section;

/// A storage: what `POST /storage` takes but secrets, with `id` for its name.
const STORAGE: &[&str] = &[
    "id",
    "type",
    "authsupported",
    "base",
    "blocksize",
    "bwlimit",
    "comstar_hg",
    "comstar_tg",
    "content",
    "content-dirs",
    "create-base-path",
    "create-subdirs",
    "data-pool",
    "datastore",
    "disable",
    "domain",
    "export",
    "fingerprint",
    "format",
    "fs-name",
    "fuse",
    "is_mountpoint",
    "iscsiprovider",
    "krbd",
    "lio_tpg",
    "max-protected-backups",
    "maxfiles",
    "mkdir",
    "monhost",
    "mountpoint",
    "namespace",
    "nocow",
    "nodes",
    "nowritecache",
    "options",
    "path",
    "pool",
    "port",
    "portal",
    "preallocation",
    "prune-backups",
    "saferemove",
    "saferemove_throughput",
    "server",
    "server2",
    "share",
    "shared",
    "skip-cert-verification",
    "smbversion",
    "snapshot-as-volume-chain",
    "sparse",
    "subdir",
    "tagged_only",
    "target",
    "thinpool",
    "transport",
    "username",
    "vgname",
    "volume",
    "zfs-base-path",
];

/// A network interface: what `POST /nodes/{node}/network` takes and `GET` answers, but lines of the node's own file. `comment` is a word for
/// readers.
const NETWORK: &[&str] = &[
    "iface",
    "node",
    "type",
    "comment",
    "address",
    "address6",
    "autostart",
    "bond-primary",
    "bond_mode",
    "bond_xmit_hash_policy",
    "bridge-access",
    "bridge-arp-nd-suppress",
    "bridge-learning",
    "bridge-multicast-flood",
    "bridge-unicast-flood",
    "bridge_fd",
    "bridge_ports",
    "bridge_stp",
    "bridge_vids",
    "bridge_vlan_aware",
    "cidr",
    "cidr6",
    "comments",
    "comments6",
    "gateway",
    "gateway6",
    "link-type",
    "method",
    "method6",
    "mtu",
    "netmask",
    "netmask6",
    "ovs_bonds",
    "ovs_bridge",
    "ovs_options",
    "ovs_ports",
    "ovs_tag",
    "slaves",
    "uplink-id",
    "vlan-id",
    "vlan-protocol",
    "vlan-raw-device",
    "vxlan-id",
    "vxlan-local-tunnelip",
    "vxlan-physdev",
    "vxlan-svcnodeip",
];

/// A backup job: what `POST /cluster/backup` takes, and the document's own words `compression`, `containers`, `retention`, `time` and `vms`.
const BACKUPS: &[&str] = &[
    "all",
    "bwlimit",
    "comment",
    "compress",
    "compression",
    "containers",
    "dow",
    "dumpdir",
    "enabled",
    "exclude",
    "exclude-path",
    "fleecing",
    "id",
    "ionice",
    "lockwait",
    "mailnotification",
    "mailto",
    "maxfiles",
    "mode",
    "node",
    "notes-template",
    "notification-mode",
    "notification-policy",
    "notification-target",
    "pbs-change-detection-mode",
    "performance",
    "pigz",
    "pool",
    "protected",
    "prune-backups",
    "quiet",
    "remove",
    "repeat-missed",
    "retention",
    "schedule",
    "script",
    "starttime",
    "stdexcludes",
    "stop",
    "stopwait",
    "storage",
    "time",
    "tmpdir",
    "type",
    "vmid",
    "vms",
    "zstd",
];

/// A high-availability resource: what `POST /cluster/ha/resources` takes, also of later versions.
const HA: &[&str] = &["sid", "comment", "failback", "group", "max_relocate", "max_restart", "state", "type"];

/// How many backups are kept.
const KEEP: &[&str] = &[
    "keep-all",
    "keep-last",
    "keep-hourly",
    "keep-daily",
    "keep-weekly",
    "keep-monthly",
    "keep-yearly",
    "keep_all",
    "keep_last",
    "keep_hourly",
    "keep_daily",
    "keep_weekly",
    "keep_monthly",
    "keep_yearly",
];

/// The keys whose value may be an object, and its keys.
const OBJECTS: &[(&str, &[&str])] = &[
    ("prune-backups", KEEP),
    ("retention", KEEP),
    ("fleecing", &["enabled", "storage"]),
    ("performance", &["max-workers", "pbs-entries-max"]),
];

/// The names of the sections' types.
pub(super) const TYPES: [(&str, Section); 4] = [
    ("StorageSection", Section::Storage),
    ("NetworkSection", Section::Network),
    ("BackupSection", Section::Backups),
    ("HaSection", Section::Ha),
];

/// The keys of a section; nothing where its type knows them all.
pub fn keys(section: Section) -> Option<&'static [&'static str]> {
    match section {
        Section::Storage => Some(STORAGE),
        Section::Network => Some(NETWORK),
        Section::Backups => Some(BACKUPS),
        Section::Ha => Some(HA),
        Section::Templates | Section::Cluster => None,
    }
}

/// What is said of a secret.
pub(super) const NO_SECRETS: &str = "a secret never stands here: keep it at Proxmox VE alone, and remove it from the document and wherever that is kept";

/// Is the value of this key a secret? PVE keeps these apart from a storage's other options.
pub(super) fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    let whole = ["keyring", "encryption-key", "master-pubkey"];
    let parts = ["passw", "passphrase", "secret", "token", "private"];
    whole.contains(&key.as_str()) || parts.iter().any(|part| key.contains(part))
}

/// What is wrong with an entry of a section: the key, and the mend. No value is quoted.
pub fn problems(section: Section, entry: &Value) -> Vec<(String, String)> {
    let (Some(known), Value::Object(entry)) = (keys(section), entry) else { return Vec::new() };
    let mut found = Vec::new();
    check(known, entry, "", &mut found);
    found
}

fn check(known: &[&str], entry: &Map<String, Value>, place: &str, found: &mut Vec<(String, String)>) {
    for (key, value) in entry {
        let inside = format!("{place}{key}");
        if is_secret(key) {
            found.push((inside, NO_SECRETS.to_owned()));
            continue;
        }
        if !known.contains(&key.as_str()) {
            let text = "there is no such key: remove it; the keys are in docs/desired.schema.json";
            found.push((inside, text.to_owned()));
            continue;
        }
        let of_object = OBJECTS.iter().find(|(name, _)| name == key).filter(|_| place.is_empty());
        match (value, of_object) {
            (Value::Object(value), Some((_, keys))) => check(keys, value, &format!("{inside}."), found),
            (Value::Array(items), _) if items.iter().all(|item| is_plain(item, &inside, found)) => {}
            (Value::Object(_) | Value::Array(_), _) => {
                found.push((inside, "expected a text, a number, or a list of these".to_owned()));
            }
            (value, _) => drop(is_plain(value, &inside, found)),
        }
    }
}

/// Says whether it is no object and no list, and tells of a password within a text, such as among the options of a mount.
fn is_plain(value: &Value, place: &str, found: &mut Vec<(String, String)>) -> bool {
    if let Value::String(text) = value {
        let text = text.to_ascii_lowercase();
        if ["password=", "pass=", "passwd="].iter().any(|word| text.contains(word)) {
            found.push((place.to_owned(), NO_SECRETS.to_owned()));
        }
    }
    !matches!(value, Value::Object(_) | Value::Array(_))
}

/// The types of values that the schemas of sections refer to: the name, and the schema.
pub(super) fn types() -> Vec<(String, Value)> {
    let mut types = vec![(VALUE.to_owned(), plain(&[]))];
    types.extend(OBJECTS.iter().map(|(key, keys)| (format!("{VALUE}.{key}"), plain(keys))));
    types
}

/// The name of the type of values.
const VALUE: &str = "SectionValue";

/// Closes the schema of a section's type: its keys, and no others.
pub(super) fn close(schema: &mut Value, known: &[&str]) {
    let Some(schema) = schema.as_object_mut() else { return };
    let properties = schema.entry("properties").or_insert_with(|| json!({}));
    if let Some(properties) = properties.as_object_mut() {
        for key in known {
            let is_object = OBJECTS.iter().any(|(name, _)| name == key);
            let name = if is_object { format!("{VALUE}.{key}") } else { VALUE.to_owned() };
            properties.entry(*key).or_insert_with(|| json!({ "$ref": format!("#/$defs/{name}") }));
        }
    }
    schema.insert("additionalProperties".to_owned(), json!(false));
}

/// The schema of a value: a scalar, a list of them, or an object of these keys.
fn plain(keys: &[&str]) -> Value {
    let mut types = vec!["string", "number", "boolean", "array"];
    let scalar = json!({ "type": ["string", "number", "boolean"], "additionalProperties": false });
    if !keys.is_empty() {
        types.push("object");
    }
    let properties: Map<String, Value> = keys
        .iter()
        .map(|key| ((*key).to_owned(), json!({ "type": ["integer", "string", "boolean"] })))
        .collect();
    json!({ "type": types, "items": scalar, "properties": properties, "additionalProperties": false })
}
