//! From documents to desired states and back, and against live guests: all without a cluster.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::collections::BTreeMap;

use pvegraph_inventory::{ClusterId, GuestType};
use pvegraph_reconcile::canonical::{Canonical, TagStyle};
use pvegraph_reconcile::desired::{Desired, check, from_document, to_document};
use pvegraph_reconcile::diff::{Class, diff, missing};
use pvegraph_reconcile::discover::{Omit, guest_as_desired};
use pvegraph_reconcile::document::{Form, read};
use pvegraph_reconcile::live::LiveGuest;
use serde_json::{Value, json};

fn cluster() -> ClusterId {
    "rig".parse().unwrap()
}

fn estate(proxmox: Value) -> Result<Desired, String> {
    let text = json!({ "version": 1, "plugins": { "proxmox": proxmox } }).to_string();
    let document = read(&text, Form::Json).map_err(|error| error.to_string())?;
    from_document(&document, &cluster())
        .map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
}

fn vm(entry: Value) -> Result<Desired, String> {
    estate(json!({ "vms": [entry] }))
}

fn live(kind: GuestType, vmid: i64, config: &[(&str, &str)]) -> LiveGuest {
    LiveGuest {
        vmid,
        kind,
        node: "pve1".to_owned(),
        pool: None,
        ha: None,
        status: "running".to_owned(),
        config: config.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
    }
}

fn changes(entry: Value, live: &LiveGuest) -> Vec<String> {
    let list = if live.kind == GuestType::Qemu { "vms" } else { "containers" };
    let desired = estate(json!({ list: [entry] })).unwrap();
    let guest = desired.guests.values().next().unwrap();
    diff(guest, live, &BTreeMap::new(), TagStyle::default()).changes.iter().map(ToString::to_string).collect()
}

/// The shipped example, which has every section.
const EXAMPLE: &str = include_str!("../../../docs/desired.example.json");

#[test]
fn the_example_is_read_and_comes_back() {
    let document = read(EXAMPLE, Form::Json).unwrap();
    let desired = from_document(&document, &"prod-cluster".parse().unwrap()).unwrap();
    assert_eq!(desired.guests.keys().collect::<Vec<_>>(), ["ct-200", "mail", "vm-100", "vm-101"]);
    assert_eq!(desired.node.as_deref(), Some("pve"));
    let web = &desired.guests["vm-100"];
    assert_eq!(web.fields["scsi0"].to_string(), "size=20G,storage=local-lvm");
    assert_eq!(web.fields["net0"].to_string(), "bridge=vmbr0,model=virtio");
    assert_eq!(web.fields["memory"].to_string(), "current=2048");
    assert_eq!(desired.guests["ct-200"].fields["rootfs"].to_string(), "size=8G,storage=local-lvm");
    assert!(desired.guests["vm-101"].not_managed.contains_key("cpu_mitigations"));
    assert_eq!(desired.sections.len(), 1 + 2 + 2 + 1 + 1);
    // What is written is read as the same.
    let again = serde_json::to_string(&to_document(&desired)).unwrap();
    let again = from_document(&read(&again, Form::Json).unwrap(), &"prod-cluster".parse().unwrap()).unwrap();
    assert_eq!(again, desired);
}

/// Which of the two is meant, nobody knows.
///
/// Seen failing with: the last one taken.
#[test]
fn a_key_that_stands_twice_is_refused() {
    for guest in
        [r#"{"vmid": 100, "memory": 512, "memory": 4096}"#, r#"{"vmid": 100, "net0": {"tag": 1, "tag": 1}}"#]
    {
        let text = format!(r#"{{"version": 1, "plugins": {{"proxmox": {{"vms": [{guest}]}}}}}}"#);
        let error = read(&text, Form::Json).unwrap_err().to_string();
        assert!(error.contains("a key stands twice") && error.contains("line 1"), "{error}");
    }
    let whole = r#"{"version": 1, "plugins": {"proxmox": {"vms": [{"vmid": 100, "cpulimit": 1.5, "unset": [], "memory": 512}]}}}"#;
    assert!(read(whole, Form::Json).is_ok());
}

/// Seen failing with: values whose limits are not looked at.
#[test]
fn bad_documents_are_refused_with_guest_field_and_mend() {
    let cases: Vec<(Value, &[&str])> = vec![
        (
            json!({ "vms": [{ "vmid": 100, "cores": "four" }] }),
            &["vm-100 (guest 100)", "`cores`", "expected a whole number"],
        ),
        (json!({ "vms": [{ "vmid": 99 }] }), &["vm-99", "`vmid`", "use 100 to 999999999"]),
        (json!({ "vms": [{ "name": "x" }] }), &["vms[0]", "`uid`", "give it a `uid`"]),
        (
            json!({ "vms": [{ "vmid": 100 }, { "uid": "other", "vmid": 100 }] }),
            &["`vmid`", "desires the same guest", "keep one"],
        ),
        (
            json!({ "vms": [{ "vmid": 100 }], "containers": [{ "uid": "vm-100", "vmid": 200 }] }),
            &["`uid`", "give each guest its own"],
        ),
        (
            json!({ "vms": [
                { "uid": "a", "vmid": 100, "depends_on": ["b"] },
                { "uid": "b", "vmid": 101, "depends_on": ["c"] },
                { "uid": "c", "vmid": 102, "depends_on": ["a"] },
            ] }),
            &["`depends_on`", "wait for each other", "remove one"],
        ),
        (json!({ "vms": [{ "vmid": 100, "depends_on": ["nobody"] }] }), &["no desired guest nobody"]),
        (
            json!({ "vms": [{ "vmid": 100, "node": "a", "nodes": ["a", "b"] }] }),
            &[
                "vm-100 (guest 100)",
                "`nodes`: `node` says that it has to be on a and nowhere else",
                "keep one",
            ],
        ),
        (
            json!({ "vms": [{ "vmid": 100, "node": "a", "prefer": ["a"] }] }),
            &["vm-100 (guest 100)", "`prefer`: `node` says", "keep one"],
        ),
        (
            json!({ "vms": [{ "vmid": 100, "nodes": ["a", "b"], "prefer": ["b", "c"] }] }),
            &[
                "vm-100 (guest 100)",
                "`prefer`: c is none of its `nodes` (a, b)",
                "add it there, or remove it here",
            ],
        ),
        (
            json!({ "vms": [{ "vmid": 100, "nodes": [] }] }),
            &["vm-100 (guest 100)", "`nodes`: it names no node", "or remove it"],
        ),
        (
            json!({ "containers": [{ "vmid": 200, "prefer": [] }] }),
            &["ct-200 (guest 200)", "`prefer`: it names no node"],
        ),
        (json!({ "vms": [{ "vmid": 100, "nodes": "a" }] }), &["vms[0].nodes", "expected a sequence"]),
        (json!({ "vms": [{ "vmid": 100, "depends_on": ["vm-100"] }] }), &["the guest itself"]),
        (json!({ "vms": [{ "vmid": 100, "digest": "x" }] }), &["there is no key `digest`"]),
        (json!({ "vms": [{ "vmid": 100, "unset": ["lock"] }] }), &["`unset`", "`lock` can't be removed"]),
        (
            json!({ "vms": [{ "vmid": 100, "unset": ["net0.tag"], "net0": { "tag": 5 } }] }),
            &["desired as well"],
        ),
        (json!({ "vms": [{ "vmid": 100, "unset": ["frob"] }] }), &["no option `frob`"]),
        (
            json!({ "vms": [{ "vmid": 100, "scsi0": "local-lvm:32" }] }),
            &["`scsi0`", "new disk each time", r#"{"storage": "local-lvm", "size": "32G"}"#],
        ),
        (
            json!({ "vms": [{ "vmid": 100, "scsi1": { "storage": "lvm", "size": "4G", "import-from": "lvm:vm-999-disk-0" } }] }),
            &["scsi1.import-from`", "there is no key `import-from`"],
        ),
        (
            json!({ "vms": [{ "vmid": 100, "scsi1": { "volume": "local-lvm:vm-101-disk-0" } }] }),
            &["vm-100 (guest 100)", "`scsi1.volume`", "of the guest 101", "write `storage` and `size`"],
        ),
        (
            json!({ "vms": [{ "vmid": 100, "scsi1": "local:101/vm-101-disk-0.qcow2,iothread=1" }] }),
            &["`scsi1.volume`", "of the guest 101"],
        ),
        (
            json!({ "containers": [{ "vmid": 200, "mp0": { "volume": "zfs:subvol-201-disk-0", "mp": "/data" } }] }),
            &["ct-200 (guest 200)", "`mp0.volume`", "of the guest 201"],
        ),
        (
            json!({ "vms": [{ "vmid": 100, "scsi0": { "size": "large" } }] }),
            &["`scsi0`", "`size`: expected a size"],
        ),
        (
            json!({ "vms": [{ "vmid": 100, "disk": { "size": "1G" }, "scsi0": { "size": "1G" } }] }),
            &["`disk`", "same as"],
        ),
        (json!({ "vms": [{ "vmid": 100, "net0": { "bridge": "a,tag=5" } }] }), &["`bridge`", "comma"]),
        (json!({ "vms": [{ "vmid": 100, "cores": null }] }), &["`cores`", "name it in `unset`"]),
        (
            json!({ "vms": [{ "vmid": 100, "cores": -2 }] }),
            &["vm-100 (guest 100): `cores`: Proxmox VE does not take -2: use 1 or more"],
        ),
        (json!({ "vms": [{ "vmid": 100, "memory": 0 }] }), &["`memory.current`", "take 0: use 16 or more"]),
        (json!({ "vms": [{ "vmid": 100, "cpulimit": 128.5 }] }), &["`cpulimit`", "take 128.5: use 0 to 128"]),
        (
            json!({ "vms": [{ "vmid": 100, "net0": { "model": "virtoi", "tag": 5000 } }] }),
            &[
                "`net0.model`: Proxmox VE has no such word for it: use one of e1000, ",
                "vmxnet3\nvm-100 (guest 100): `net0.tag`: Proxmox VE does not take 5000: use 1 to 4094",
            ],
        ),
        (
            json!({ "vms": [{ "vmid": 100, "net1": "virtoi=BC:24:11:00:00:01,bridge=vmbr0" }] }),
            &["`net1.model`", "no such word"],
        ),
        (json!({ "vms": [{ "vmid": 100, "bios": "efi" }] }), &["`bios`", "use one of seabios, ovmf"]),
        (json!({ "vms": [{ "vmid": 100, "scsihw": "virtio" }] }), &["`scsihw`", "virtio-scsi-single"]),
        (json!({ "vms": [{ "vmid": 100, "ostype": "linux" }] }), &["`ostype`", "l26"]),
        (
            json!({ "vms": [{ "vmid": 100, "scsi1": { "cache": "fast" } }] }),
            &["`scsi1.cache`", "use one of none, writethrough"],
        ),
        (json!({ "containers": [{ "vmid": 200, "memory": 8 }] }), &["`memory`", "use 16 or more"]),
        (json!({ "containers": [{ "vmid": 200, "tty": 7 }] }), &["`tty`", "use 0 to 6"]),
        (
            json!({ "containers": [{ "vmid": 200, "net0": { "mtu": 63 } }] }),
            &["`net0.mtu`", "use 64 to 65535"],
        ),
        (json!({ "cluster": { "name": "other" } }), &["`cluster.name`", "\"other\"", "rig", "--cluster"]),
        (json!({ "vms": [{ "uid": "a/b", "vmid": 100 }] }), &["`uid`", "letters"]),
        (
            json!({ "containers": [{ "vmid": 200, "cipassword": { "file": "x" } }] }),
            &["there is no key `cipassword`"],
        ),
    ];
    for (proxmox, words) in cases {
        let text = estate(proxmox.clone()).unwrap_err();
        for word in words {
            assert!(text.contains(word), "{word:?} is not in {text:?}, of {proxmox}");
        }
    }
    // What is written by hand is not read from a document.
    let mut by_hand = vm(json!({ "vmid": 100, "scsi1": { "storage": "lvm", "size": "4G" } })).unwrap();
    let guest = by_hand.guests.get_mut("vm-100").unwrap();
    let Some(Canonical::Map(disk)) = guest.fields.get_mut("scsi1") else { panic!("a disk") };
    disk.insert("import-from".to_owned(), Canonical::Text("lvm:vm-999-disk-0".to_owned()));
    let told = check(&by_hand).iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    assert!(
        told.contains("vm-100 (guest 100): `scsi1.import-from`") && told.contains("as a copy (`clone`)"),
        "{told}"
    );
    // All of them at once.
    let two = estate(json!({ "vms": [{ "vmid": 100, "cores": "x", "onboot": "maybe" }, { "vmid": 1 }] }))
        .unwrap_err();
    assert_eq!(two.lines().count(), 3, "{two}");
    // What is its own, and what is nobody's.
    for own in [
        json!({ "scsi1": { "volume": "local-lvm:vm-100-disk-1" } }),
        json!({ "scsi1": { "volume": "local:9000/base-9000-disk-0.qcow2/100/vm-100-disk-0.qcow2" } }),
        json!({ "ide2": "local:iso/vm-101-tools.iso,media=cdrom" }),
        json!({ "ide2": "none,media=cdrom" }),
        json!({ "ide0": "local-lvm:cloudinit,media=cdrom" }),
        json!({ "scsi1": { "volume": "/dev/disk/by-id/ata-X" } }),
    ] {
        let mut entry = own.clone();
        entry["vmid"] = json!(100);
        assert!(vm(entry).is_ok(), "{own}");
    }
    // A secret in the wrong place is not quoted.
    for wrong in [json!({ "vmid": 100, "sshkeys": "hunter2" }), json!({ "vmid": 100, "cores": "hunter2" })] {
        assert!(!vm(wrong).unwrap_err().contains("hunter2"));
    }
}

/// Seen failing with: sections whose further keys nobody looks at.
#[test]
fn sections_take_their_own_keys_and_no_secrets() {
    let cases: [(Value, &[&str]); 8] = [
        (
            json!({ "storage": [{ "id": "nas", "type": "cifs", "password": "hunter2", "frobnicate": 1 }] }),
            &[
                "storage[0].password`: there is no key",
                "a secret never stands here",
                "`frobnicate`; remove it",
            ],
        ),
        (
            json!({ "storage": [{ "id": "pbs", "type": "pbs", "encryption-key": "hunter2" }] }),
            &["never stands here"],
        ),
        (
            json!({ "storage": [{ "id": "ceph", "type": "rbd", "keyring": "hunter2" }] }),
            &["never stands here"],
        ),
        (
            json!({ "storage": [{ "id": "nas", "type": "cifs", "options": "vers=3,password=hunter2" }] }),
            &["storage/nas: `options`: a secret never stands here"],
        ),
        (
            json!({ "storage": [{ "id": "nas", "type": "cifs", "conten": ["iso"] }] }),
            &["did you mean `content`?"],
        ),
        (
            json!({ "network": [{ "iface": "vmbr0", "wpa-psk": "hunter2" }] }),
            &["network[0].wpa-psk`", "remove it"],
        ),
        (
            json!({ "backups": [{ "storage": "nas", "retention": { "keep_daily": 7, "hunter": "hunter2" } }] }),
            &["backups[0].retention.hunter`", "no key"],
        ),
        (
            json!({ "ha": [{ "sid": "vm:100", "comment": { "x": "hunter2" } }] }),
            &["ha[0].comment.x`", "no key"],
        ),
    ];
    for (proxmox, words) in cases {
        let told = estate(proxmox.clone()).unwrap_err();
        assert!(words.iter().all(|word| told.contains(word)), "{proxmox}: {told}");
        assert!(!told.contains("hunter2"), "{told}");
    }
    // What a hand wrote into the graph is looked at as well.
    let mut desired =
        estate(json!({ "storage": [{ "id": "nas", "type": "cifs", "server": "192.0.2.1" }] })).unwrap();
    for spec in desired.sections.values_mut() {
        spec["password"] = json!("hunter2");
    }
    let told: Vec<String> =
        pvegraph_reconcile::desired::check(&desired).iter().map(ToString::to_string).collect();
    assert_eq!(told.len(), 1);
    assert!(told[0].starts_with("storage/nas: `password`: a secret never stands here"), "{told:?}");
}

#[test]
fn only_what_is_present_is_compared() {
    let guest = live(
        GuestType::Qemu,
        100,
        &[
            ("name", "web"),
            ("cores", "4"),
            ("memory", "2048"),
            ("tags", "prod;web"),
            ("net0", "virtio=BC:24:11:00:00:01,bridge=vmbr0,firewall=1"),
            ("scsi0", "local-lvm:vm-100-disk-0,iothread=1,size=32G"),
            ("new-option", "x"),
        ],
    );
    let none: [&str; 0] = [];
    assert_eq!(changes(json!({ "vmid": 100 }), &guest), none);
    let same = json!({
        "vmid": 100, "cores": 4, "memory": 2048, "tags": ["WEB", "prod"], "state": "running", "node": "pve1",
        "net0": { "bridge": "vmbr0", "firewall": true }, "scsi0": { "storage": "local-lvm", "size": "32768M" },
        // What the guest does not say, and PVE takes for granted.
        "onboot": false, "sockets": 1, "bios": "seabios", "agent": false, "unset": ["balloon", "net1", "net0.tag"],
    });
    assert_eq!(changes(same, &guest), none);
    let other = json!({
        "vmid": 100, "cores": 8, "onboot": true, "net0": { "bridge": "vmbr1", "tag": 5 }, "state": "stopped", "node": "pve2",
        "scsi0": { "storage": "ceph", "size": "16G" }, "scsi1": { "storage": "ceph", "size": "1G" },
        "unset": ["tags", "net0.firewall"], "description": "secret",
    });
    let shown = changes(other, &guest);
    assert_eq!(
        shown.iter().filter(|text| !text.starts_with("description")).collect::<Vec<_>>(),
        [
            "cores: 4 → 8",
            "net0.bridge: vmbr0 → vmbr1",
            "net0.firewall: 1 → (absent)",
            "net0.tag: (absent) → 5",
            "node: pve1 → pve2",
            "onboot: (absent) → 1",
            "scsi0.size: 32G → 16G [impossible: Proxmox VE can't shrink a volume; desire the size that it has, or move the data \
             to a new guest]",
            "scsi0.storage: local-lvm → ceph",
            "scsi1: (absent) → size=1G,storage=ceph",
            "state: running → stopped",
            "tags: prod;web → (absent)",
        ]
    );
    assert!(!shown.join(" ").contains("secret"), "{shown:?}");
}

#[test]
fn what_waits_for_a_restart_is_told_apart() {
    let guest = live(GuestType::Qemu, 100, &[("cores", "2"), ("memory", "512"), ("balloon", "0")]);
    let desired = vm(json!({ "vmid": 100, "cores": 4, "memory": 1024, "unset": ["balloon"] })).unwrap();
    let pending = BTreeMap::from([("cores".to_owned(), Some("4".to_owned())), ("balloon".to_owned(), None)]);
    let found = diff(&desired.guests["vm-100"], &guest, &pending, TagStyle::default());
    let classes: Vec<_> =
        found.changes.iter().map(|change| (change.field.as_str(), change.class.clone())).collect();
    assert_eq!(
        classes,
        [
            ("balloon", Class::PendingRestart),
            ("cores", Class::PendingRestart),
            ("memory.current", Class::Drift)
        ]
    );
    assert!(!found.noop());
}

#[test]
fn a_guest_that_is_gone_or_another_is_a_finding() {
    let desired = vm(json!({ "vmid": 100, "cores": 4 })).unwrap();
    let guest = &desired.guests["vm-100"];
    assert_eq!(missing(guest).changes[0].class, Class::Missing);
    let container = live(GuestType::Lxc, 100, &[("cores", "4")]);
    let found = diff(guest, &container, &BTreeMap::new(), TagStyle::default());
    assert_eq!(found.changes.len(), 1);
    assert_eq!(found.changes[0].class, Class::IdentityConflict);
    let gone = vm(json!({ "vmid": 100, "tombstone": true })).unwrap();
    assert!(missing(&gone.guests["vm-100"]).noop());
}

#[test]
fn the_datacenter_says_whether_the_case_of_tags_counts() {
    let guest = live(GuestType::Qemu, 100, &[("tags", "Web")]);
    let desired = vm(json!({ "vmid": 100, "tags": ["web"] })).unwrap();
    let noop = |case_sensitive| {
        diff(&desired.guests["vm-100"], &guest, &BTreeMap::new(), TagStyle { case_sensitive }).noop()
    };
    assert!(noop(false) && !noop(true));
}

#[test]
fn what_is_discovered_is_as_desired() {
    let machine = live(
        GuestType::Qemu,
        101,
        &[
            ("agent", "enabled=1,fstrim_cloned_disks=1"),
            ("boot", "order=scsi0;net0"),
            ("cipassword", "**********"),
            ("cpu", "host,flags=+aes"),
            ("description", "line one\nline two"),
            ("digest", "84f7"),
            ("efidisk0", "data:101/vm-101-disk-0.raw,efitype=4m,pre-enrolled-keys=0,size=528K"),
            ("ide0", "data:101/vm-101-cloudinit.qcow2,media=cdrom,size=4M"),
            ("ide2", "none,media=cdrom"),
            ("memory", "512"),
            ("net1", "e1000=AA:BB:CC:00:11:22,bridge=vmbr0,link_down=1,rate=12.5"),
            ("scsi0", "data:101/vm-101-disk-1.qcow2,backup=0,cache=writeback,size=1536M,ssd=1"),
            ("smbios1", "uuid=11111111-2222-3333-4444-555555555555"),
            ("sshkeys", "ssh-ed25519%20AAAA%2F%20a%40b%0Assh-rsa%20BBBB%20c%40d"),
            ("tags", " "),
            ("unknown", "x"),
            ("unused0", "data:101/vm-101-disk-2.raw"),
        ],
    );
    let container = live(
        GuestType::Lxc,
        200,
        &[
            ("description", "x\ny\n"),
            ("features", "nesting=1"),
            ("lxc", "[[\"lxc.a\",\"b\"]]"),
            ("mp0", "local:200/vm-200-disk-1.raw,mp=/data,backup=1,size=1G"),
            ("mp9", "/srv/shared,mp=/mnt/shared"),
            ("net0", "name=eth0,bridge=vmbr0,firewall=1,hwaddr=BC:24:11:16:67:69,ip=dhcp,type=veth"),
            ("rootfs", "local:200/vm-200-disk-0.raw,size=3G"),
        ],
    );
    for guest in [machine, container] {
        let (found, left_out) = guest_as_desired(&guest, Omit::default());
        let mut desired = Desired {
            cluster: cluster(),
            node: None,
            guests: BTreeMap::from([(found.uid.clone(), found)]),
            sections: BTreeMap::new(),
        };
        let document = serde_json::to_string(&to_document(&desired)).unwrap();
        assert!(!document.contains("****") && !document.contains("vm-101-disk"), "{document}");
        let read = from_document(&read(&document, Form::Json).unwrap(), &cluster()).unwrap();
        assert_eq!(read, desired, "{document}");
        let (_, same) = desired.guests.pop_first().unwrap();
        let none = diff(&same, &guest, &BTreeMap::new(), TagStyle::default());
        assert!(none.noop(), "{none}");
        assert!(!left_out.is_empty(), "what is left out is told");
    }
}

/// A guest of another version of Proxmox VE may have what this one refuses: it is told, and the document is read.
///
/// Seen failing with: discovered values that are not looked at.
#[test]
fn what_a_document_may_not_have_is_left_out_of_what_is_discovered() {
    let config = [("cores", "2"), ("ostype", "win12"), ("net0", "virtio=AA:BB:CC:00:11:22,tag=5000")];
    let (found, left_out) = guest_as_desired(&live(GuestType::Qemu, 100, &config), Omit::default());
    let refused = "has a value that Proxmox VE 8.4 refuses: it stays as it is";
    assert_eq!(left_out, [format!("`net0.tag` {refused}"), format!("`ostype` {refused}")]);
    let guests = BTreeMap::from([(found.uid.clone(), found)]);
    let desired = Desired { cluster: cluster(), node: None, guests, sections: BTreeMap::new() };
    assert_eq!(from_document(&to_document(&desired), &cluster()).as_ref(), Ok(&desired));
    let shown: Vec<String> =
        desired.guests["vm-100"].fields.iter().map(|(key, value)| format!("{key}: {value}")).collect();
    assert_eq!(shown, ["cores: 2", "net0: macaddr=AA:BB:CC:00:11:22,model=virtio"]);
}

#[test]
fn how_a_guest_is_copied_is_checked_and_comes_back() {
    let read_one = |clone: Value, more: Value| {
        let mut guest = json!({ "uid": "web", "clone": clone });
        for (key, value) in more.as_object().unwrap() {
            guest[key] = value.clone();
        }
        let text = json!({ "version": 1, "plugins": { "proxmox": {
            "templates": { "debian-12": { "vmid": 9000, "comment": "cloud image" } }, "vms": [guest],
        } } });
        from_document(&read(&text.to_string(), Form::Json).unwrap(), &cluster())
    };
    let desired =
        read_one(json!({ "from": "debian-12", "full": true, "storage": "lvm", "snapshot": "s" }), json!({}))
            .unwrap();
    let clone = desired.guests["web"].clone_of.as_ref().unwrap();
    assert_eq!(desired.source(clone), Some(9000));
    assert_eq!(from_document(&to_document(&desired), &cluster()).as_ref(), Ok(&desired));
    for (defaults, words) in [
        (json!({ "cores": "four" }), "templates/golden: `defaults.cores`: expected a whole number"),
        (json!({ "cipassword": "hunter2" }), "`defaults.cipassword`: a secret never stands here"),
        (json!({ "description": "hunter2" }), "`defaults.description`: a text is of one guest"),
        (json!({ "frobnicate": 1 }), "`defaults.frobnicate`: Proxmox VE has no such option"),
        (
            json!({ "sockets": 0 }),
            "templates/golden: `defaults.sockets`: Proxmox VE does not take 0: use 1 or more",
        ),
        (json!({ "net0": { "tag": 4095 } }), "`defaults.net0`: `net0.tag`: Proxmox VE does not take 4095"),
    ] {
        let with = |entries: &str, more: Value| {
            let templates = json!({ "golden": { "vmid": 9000, "defaults": defaults } });
            let mut all = json!({ "templates": templates });
            all[entries] = json!([more]);
            estate(all).unwrap_err()
        };
        let copied = json!({ "uid": "web", "clone": { "from": "golden" } });
        for told in [with("vms", copied), with("vms", json!({ "vmid": 100 }))] {
            assert!(told.contains(words) && !told.contains("hunter2"), "{told}");
        }
    }
    for (clone, more, words) in [
        (json!({ "from": "debian-13" }), json!({}), "`clone.from`: `templates` has no \"debian-13\""),
        (json!({ "from": 12 }), json!({}), "12 is no guest's number"),
        (json!({ "from": "9000" }), json!({}), "without quotation marks"),
        (json!({ "from": 9000 }), json!({ "vmid": 9000 }), "it is the guest itself"),
        (json!({ "from": 9000, "full": false, "storage": "lvm" }), json!({}), "`clone.storage`"),
    ] {
        let problems = read_one(clone, more).unwrap_err();
        assert!(problems.iter().any(|problem| problem.to_string().contains(words)), "{problems:?}");
        assert!(problems.iter().all(|problem| problem.subject.starts_with("web")), "{problems:?}");
    }
}
