use super::*;
use crate::answers::{LxcConfig, PendingEntry, QemuConfig, QemuRow, Resource, StorageDefinition};
use crate::vmid::Vmid;
use proptest::prelude::*;
use serde_json::json;

fn one<T: Wire>(value: Value) -> Option<T> {
    T::read(&value, &mut Reader::default()).ok()
}

#[test]
fn booleans_and_numbers_in_all_their_spellings() {
    for value in [json!(1), json!("1"), json!(true)] {
        assert_eq!(one::<bool>(value), Some(true));
    }
    for value in [json!(0), json!("0"), json!(""), json!(false)] {
        assert_eq!(one::<bool>(value), Some(false));
    }
    for value in [json!(2), json!("yes"), json!(-1), json!(0.5), json!([]), json!(null)] {
        assert_eq!(one::<bool>(value.clone()), None, "{value}");
    }
    assert_eq!(one::<u64>(json!("18446744073709551615")), Some(u64::MAX));
    assert_eq!(one::<u64>(json!(4.0)), Some(4));
    assert_eq!(one::<u64>(json!(u64::MAX)), Some(u64::MAX));
    for value in [json!(-1), json!(1.5), json!("1.5"), json!(""), json!(1e30), json!({})] {
        assert_eq!(one::<u64>(value.clone()), None, "{value}");
    }
    assert_eq!(one::<f64>(json!("0.25")), Some(0.25));
    assert_eq!(one::<f64>(json!("nan")), None);
    assert_eq!(one::<i64>(json!("-5")), Some(-5));
    assert_eq!(one::<String>(json!(100)).as_deref(), Some("100"));
    assert_eq!(one::<String>(json!(true)), None);
    assert_eq!((1.0_f64.write(), 0.5_f64.write(), true.write()), (json!(1), json!(0.5), json!(1)));
}

#[test]
fn one_odd_field_leaves_its_guest_and_one_odd_guest_its_list() {
    let data = json!([
        {"vmid": 100, "name": "a", "status": "running"},
        {"vmid": 101, "name": "b", "cpus": "two", "status": "stopped"},
        {"name": "without a number"},
        {"vmid": "x", "name": "c"},
        "no row",
        {"vmid": "104", "name": "d", "template": ""},
    ]);
    let read = read::<Vec<QemuRow>>("/nodes/pve1/qemu", &data).unwrap();
    let seen: Vec<u32> = read.value.iter().map(|row| row.vmid.get()).collect();
    assert_eq!(seen, [100, 101, 104]);
    assert_eq!((read.value[1].cpus, read.value[1].status.as_deref()), (None, Some("stopped")));
    assert_eq!(read.value[2].template, Some(false));
    let said: Vec<String> = read.oddities.iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        [
            "/nodes/pve1/qemu, [vmid=101], key `cpus`: expected a number, found the text \"two\"; the value is left out",
            "/nodes/pve1/qemu, [name=without a number]: expected the key `vmid`, found no such key; the entry is left out",
            "/nodes/pve1/qemu, [vmid=x]: expected in `vmid` a vmid from 100 to 999999999, found the text \"x\"; the entry is \
             left out",
            "/nodes/pve1/qemu, [4]: expected an object, found the text \"no row\"; the entry is left out",
        ]
    );
}

#[test]
fn an_answer_of_another_kind_is_refused_whole() {
    for data in [json!({}), json!(null), json!("<html>")] {
        let oddity = read::<Vec<QemuRow>>("/nodes/pve1/qemu", &data).unwrap_err();
        assert_eq!(oddity.lost, Lost::Answer);
    }
}

#[test]
fn odd_property_strings_cost_only_themselves() {
    let data = json!({
        "name": "web", "cores": "x", "net0": "bridge=vmbr0", "net1": "virtio=BC:24:11:00:00:01,tag=many,bridge=vmbr1",
        "net01": "not a slot", "scsi0": "local:1/a.raw,size=1G", "scsi1": ["a"], "numa0": "cpus=0", "brand-new": 1, "null-key": null,
    });
    let read = read::<QemuConfig>("/nodes/pve1/qemu/100/config", &data).unwrap();
    let config = &read.value;
    assert_eq!((config.name.as_deref(), config.cores), (Some("web"), None));
    let nics: Vec<String> = config.nics.keys().map(ToString::to_string).collect();
    assert_eq!(nics, ["net1"]);
    let nic = config.nics.values().next().unwrap();
    assert_eq!((nic.tag(), nic.bridge()), (None, Some("vmbr1")));
    assert_eq!(config.disks.len(), 1);
    let keys: BTreeSet<(&str, Option<&str>)> =
        read.oddities.iter().map(|odd| (odd.place.as_str(), odd.key.as_deref())).collect();
    let expected = [("", Some("cores")), ("", Some("net0")), ("net1", Some("tag")), ("", Some("scsi1"))];
    assert_eq!(keys, BTreeSet::from(expected));
    let unread = unread::<QemuConfig>("/nodes/pve1/qemu/100/config", &data).unwrap();
    assert_eq!(unread.iter().map(String::as_str).collect::<Vec<_>>(), ["brand-new", "net01", "numa0"]);
}

#[test]
fn secrets_are_neither_kept_nor_said() {
    let data = json!({"name": "web", "cipassword": "hunter2", "sshkeys": "ssh-ed25519 AAAA", "description": ["hunter2"]});
    let config = read::<QemuConfig>("/nodes/pve1/qemu/100/config", &data).unwrap();
    assert_eq!(config.oddities.len(), 1);
    let pending =
        json!([{"key": "cipassword", "value": "hunter2", "pending": "hunter2"}, {"key": {"a": "hunter2"}}]);
    let rows = read::<Vec<PendingEntry>>("/nodes/pve1/qemu/100/pending", &pending).unwrap();
    assert_eq!(rows.value.len(), 1);
    let text = json!({"password": "hunter2"});
    let mut reader = Reader::default();
    assert_eq!(reader.optional::<bool>(text.as_object().unwrap(), "password"), None);
    for said in [format!("{config:?}"), format!("{rows:?}"), format!("{reader:?}")] {
        assert!(!said.contains("hunter2") && !said.contains("AAAA"), "{said}");
    }
    assert!(!may_hold_secret("hotplug") && !may_hold_secret("net0") && may_hold_secret("cipassword"));
}

#[test]
fn rows_of_unknown_types_are_kept() {
    let data =
        json!([{"type": "network", "id": "network/x"}, {"id": "y"}, {"type": "qemu", "id": "qemu/100"}]);
    let read = read::<Vec<Resource>>("/cluster/resources", &data).unwrap();
    assert!(matches!(read.value.as_slice(), [Resource::Other(row)] if row["id"] == "network/x"));
    assert_eq!(read.oddities.len(), 2);
    assert_eq!(read.value.write(), json!([{"type": "network", "id": "network/x"}]));
}

#[test]
fn guests_of_an_offline_node_are_rows_too() {
    let data = json!([{"id": "qemu/100", "node": "pve2", "type": "qemu", "vmid": 100, "tags": "a", "status": "unknown"}]);
    let read = read::<Vec<Resource>>("/cluster/resources", &data).unwrap();
    let guest = read.value.first().and_then(Resource::guest).unwrap();
    assert_eq!((guest.vmid, guest.name.clone()), (Vmid::new(100).unwrap(), None));
    assert!(read.oddities.is_empty());
    assert!(unread::<Vec<Resource>>("/cluster/resources", &data).unwrap().is_empty());
}

#[test]
fn unknown_storage_types_and_keys_are_read_as_far_as_known() {
    let data =
        json!({"storage": "odd", "type": "plugin-x", "content": "images,rootdir", "plugin-key": {"a": 1}});
    let read = read::<StorageDefinition>("/storage/odd", &data).unwrap();
    assert_eq!(read.value.kind.as_deref(), Some("plugin-x"));
    assert_eq!(read.value.content.map(|list| list.0), Some(vec!["images".to_owned(), "rootdir".to_owned()]));
    assert!(read.oddities.is_empty());
    assert!(unread::<StorageDefinition>("/storage/odd", &data).unwrap().contains("plugin-key"));
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,12}|[0-9.]{0,5}|local:[a-z0-9/]{1,9}(,size=[0-9]{1,3}[KMG])?".prop_map(Value::from),
    ];
    let key = "vmid|node|type|id|name|net0|scsi1|rootfs|mp0|tags|memory|smbios1|meta|key|value|[a-z]{1,4}";
    leaf.prop_recursive(3, 24, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map(key, inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn settles<T: Wire>(data: &Value) {
    if let Ok(first) = read::<T>("/x", data) {
        let second = read::<T>("/x", &first.value.write()).expect("what was written is read");
        // Not the values: what was odd is not written, so only the first knows of it.
        assert_eq!(second.value.write(), first.value.write());
    }
}

proptest! {
    #[test]
    fn any_json_is_read_or_refused(data in any_json()) {
        settles::<QemuConfig>(&data);
        settles::<LxcConfig>(&data);
        settles::<Vec<Resource>>(&data);
        settles::<Vec<PendingEntry>>(&data);
        settles::<Vec<StorageDefinition>>(&data);
        settles::<crate::answers::Permissions>(&data);
        settles::<crate::answers::IncludedVolumes>(&data);
    }
}
