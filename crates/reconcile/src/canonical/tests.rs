use proptest::prelude::*;

use super::*;
use GuestType::{Lxc, Qemu};

fn of(guest: GuestType, key: &str, text: &str) -> Canonical {
    canonical(guest, key, text, TagStyle::default())
}

#[test]
fn spellings_of_one_value_are_equal() {
    let cases: &[(GuestType, &str, &[&str])] = &[
        (Qemu, "onboot", &["1", "on", "yes", "true", "YES"]),
        (Qemu, "onboot", &["0", "off", "no", "false"]),
        (Qemu, "cores", &["4", "04"]),
        (Qemu, "memory", &["512", "current=512", "current=0512"]),
        (Qemu, "cpulimit", &["1.5", "1.50", "01.5"]),
        (Qemu, "cpulimit", &["0", "0.0", "00"]),
        (Qemu, "agent", &["1", "enabled=1", "enabled=on", "yes"]),
        (Qemu, "startup", &["2,up=30", "up=30,order=2"]),
        (Qemu, "tags", &["prod;web", "web;prod", "web,prod", "Web prod", ";web;;prod;web"]),
        (Qemu, "tags", &["", " "]),
        (Qemu, "description", &["note", "note\n", "note\n\n"]),
        (Lxc, "description", &["a\nb\n", "a\nb"]),
        (Qemu, "hotplug", &["1", "network,disk,usb", "usb;disk;network"]),
        (Qemu, "nameserver", &["192.0.2.1 192.0.2.2", "192.0.2.2,192.0.2.1"]),
        (Qemu, "cpu", &["host,flags=+aes;-pcid", "cputype=host,flags=-pcid;+aes"]),
        (
            Qemu,
            "net0",
            &[
                "virtio=bc:24:11:00:00:01,bridge=vmbr0,firewall=1",
                "model=virtio,macaddr=BC:24:11:00:00:01,firewall=on,bridge=vmbr0",
                "virtio,bridge=vmbr0,macaddr=BC:24:11:00:00:01,firewall=yes",
            ],
        ),
        (
            Lxc,
            "net0",
            &[
                "name=eth0,hwaddr=bc:24:11:00:00:01,trunks=5;7",
                "trunks=7;5,hwaddr=BC:24:11:00:00:01,name=eth0",
            ],
        ),
        (
            Qemu,
            "scsi0",
            &[
                "local:100/vm.raw,size=1G,ssd=1",
                "file=local:100/vm.raw,ssd=on,size=1024M",
                "volume=local:100/vm.raw,size=1073741824,ssd=yes",
            ],
        ),
        (Lxc, "rootfs", &["local:1/x.raw,size=1G", "size=1024M,volume=local:1/x.raw"]),
        (
            Qemu,
            "sshkeys",
            &[
                "ssh-ed25519%20AAAA%20a%40b%0Assh-rsa%20BBBB%2Bc",
                "ssh-rsa%20BBBB%2Bc%0D%0A%0Assh-ed25519%20AAAA%20a%40b%0A",
                "ssh-rsa BBBB+c\nssh-ed25519 AAAA a@b\n",
            ],
        ),
    ];
    for (guest, key, texts) in cases {
        let first = of(*guest, key, texts[0]);
        assert!(!matches!(first, Canonical::Raw(_)), "{key}: {first:?}");
        for text in *texts {
            assert_eq!(of(*guest, key, text), first, "{key}: {text}");
        }
    }
}

#[test]
fn what_differs_stays_different() {
    for (guest, key, one, other) in [
        (Qemu, "boot", "order=scsi0;net0", "order=net0;scsi0"),
        (Qemu, "net0", "virtio=BC:24:11:00:00:01", "e1000=BC:24:11:00:00:01"),
        (Qemu, "description", "a\nb", "b\na"),
        (Qemu, "cpulimit", "0.30000000000000001", "0.3"),
        (Lxc, "mp0", "/srv/a,mp=/a", "/srv/a,mp=/b"),
        (Qemu, "hotplug", "0", "1"),
    ] {
        assert_ne!(of(guest, key, one), of(guest, key, other), "{key}");
    }
    let tags = |text, case_sensitive| canonical(Qemu, "tags", text, TagStyle { case_sensitive });
    assert_ne!(tags("Web", true), tags("web", true));
    assert_eq!(tags("Web", false), tags("web", false));
}

#[test]
fn what_is_not_understood_stays_as_it_is() {
    for (guest, key, text) in [
        (Qemu, "new-option", " on,B=2,a=1 "),
        (Lxc, "name", "YES"),
        (Qemu, "net32", "virtio=bc:24:11:00:00:01"),
        (Qemu, "net01", "virtio=bc:24:11:00:00:01"),
        (Qemu, "cores", "four"),
        (Qemu, "onboot", "maybe"),
        (Qemu, "scsi0", "a=1,a=2"),
        (Qemu, "scsi0", "x:1,file=x:2"),
        (Lxc, "net0", "eth0"),
        (Qemu, "sshkeys", "%ff"),
    ] {
        assert_eq!(of(guest, key, text), Canonical::Raw(text.to_owned()), "{key}");
    }
    // Inside of a property string too.
    let Canonical::Map(map) = of(Qemu, "scsi0", "local:1,size=large,new=Yes") else { panic!("no map") };
    assert_eq!(map["size"], Canonical::Raw("large".to_owned()));
    assert_eq!(map["new"], Canonical::Text("Yes".to_owned()));
}

#[test]
fn a_secret_is_never_kept() {
    let secret = of(Qemu, "cipassword", "hunter2");
    assert!(!format!("{secret} {secret:?}").contains("hunter2"));
    assert_eq!(of(Qemu, "cipassword", &secret.to_string()), secret);
    assert_ne!(of(Qemu, "cipassword", "hunter3"), secret);
    assert_eq!(of(Qemu, "cipassword", MASKED), Canonical::Secret(None));
}

/// Keys of every option of the tables, and some that are in none.
fn keys() -> impl Strategy<Value = (GuestType, String)> {
    let mut all = Vec::new();
    for guest in [Qemu, Lxc] {
        for option in options(guest) {
            match option.count {
                None => all.push((guest, option.name.to_owned())),
                Some(count) => {
                    all.extend([0, count - 1].map(|number| (guest, format!("{}{number}", option.name))));
                }
            }
        }
        all.extend(["unknown", "net999"].map(|key| (guest, key.to_owned())));
    }
    prop::sample::select(all)
}

/// Texts that come close to something: words of PVE's, sizes, options, and anything at all.
fn texts() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "1",
        "0",
        "on",
        "OFF",
        "yes",
        "512",
        "007",
        "1.50",
        "32G",
        "1024M",
        "local:100/vm-1.raw",
        "none",
        "virtio",
        "bc:24:11:00:00:01",
        "vmbr0",
        "scsi0;net0",
        "+aes;-x",
        "a b",
        "%20",
        "ssh-rsa%20A",
        "sha256:x",
        "ä",
        "",
        "\n",
    ]);
    let key = prop::sample::select(vec![
        "", "size=", "file=", "volume=", "model=", "virtio=", "macaddr=", "bridge=", "order=", "enabled=",
        "flags=", "trunks=", "current=", "hwaddr=", "new=", " ",
    ]);
    prop_oneof![
        prop::collection::vec((key, word), 0..5).prop_map(|parts| {
            parts.into_iter().map(|(key, word)| format!("{key}{word}")).collect::<Vec<_>>().join(",")
        }),
        "\\PC*",
        "[0-9.KMGT%;:, =a-zA-Z\n-]{0,24}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, ..ProptestConfig::default() })]

    #[test]
    fn the_text_of_a_canonical_value_is_read_as_that_value((guest, key) in keys(), text in texts(), case: bool) {
        let style = TagStyle { case_sensitive: case };
        let once = canonical(guest, &key, &text, style);
        let again = canonical(guest, &key, &once.to_string(), style);
        prop_assert_eq!(&again, &once);
        prop_assert_eq!(again.to_string(), once.to_string());
        if find(guest, &key).is_none() {
            prop_assert_eq!(once, Canonical::Raw(text));
        }
    }

    #[test]
    fn the_order_and_the_names_of_options_mean_nothing(
        mut parts in prop::sample::subsequence(
            vec!["size=8G", "ssd=1", "iothread=0", "cache=none", "backup=1", "mbps=1.5", "new=x"], 0..7),
        named: bool,
        seed in 0_usize..7,
    ) {
        let plain = format!("local:1/vm.raw,{}", parts.join(","));
        if !parts.is_empty() {
            let at = seed % parts.len();
            parts.rotate_left(at);
        }
        let volume = if named { "file=local:1/vm.raw" } else { "volume=local:1/vm.raw" };
        let other = format!("{},{volume}", parts.join(","));
        prop_assert_eq!(of(Qemu, "scsi0", &plain), of(Qemu, "scsi0", &other));
    }
}
