//! The named demonstration estate, made by hand so that every canned report has something to say.

use std::collections::BTreeSet;

use serde_json::json;

use super::generate::job;
use super::ids;
use super::mutate::{create, lxc_nic, qemu_nic};
use super::snapshots;
use super::state::{GuestSpec, Power, Selection, State, Usage};

const GIB: u64 = 1 << 30;

/// Fills an empty cluster of three nodes.
pub fn furnish(state: &mut State) {
    nodes(state);
    for spec in guests(state.seed) {
        // The specifications name only nodes, storages and pools that every generated world has.
        let made = create(state, spec);
        debug_assert!(made.is_ok(), "{made:?}");
    }
    if let Some(pool) = state.pools.get_mut("prod") {
        pool.storages = BTreeSet::from(["ceph-vm".to_owned()]);
    }
    jobs(state);
    take_snapshots(state);
}

/// 120 has an old one that nobody took away, 110 one with its memory, and 140 a new one, which is in order.
fn take_snapshots(state: &mut State) {
    snapshots::chain(state, 120, &[("before-migration", 210, false), ("after-migration", 209, false)]);
    snapshots::chain(state, 110, &[("before-upgrade", 3, true)]);
    snapshots::chain(state, 140, &[("before-config", 2, false)]);
}

/// The second node is hot, and the third one's local storage is full.
fn nodes(state: &mut State) {
    for (name, cpu_load, memory_percent) in [("pve1", 0.21, 48), ("pve2", 0.93, 91), ("pve3", 0.12, 37)] {
        if let Some(node) = state.nodes.get_mut(name) {
            node.cpus = 16;
            node.memory = Usage { total: 128 * GIB, used: 128 * GIB / 100 * memory_percent };
            node.cpu_load = cpu_load;
        }
    }
    for (node, used) in [("pve1", 310), ("pve2", 402), ("pve3", 780)] {
        if let Some(storage) = state.storages.get_mut("local-lvm") {
            storage.usage_on.insert(node.to_owned(), Usage { total: 800 * GIB, used: used * GIB });
        }
    }
}

/// 120 is in no enabled job (only in the disabled one) and 131 in none at all; 110 and 143 leave a disk out.
fn jobs(state: &mut State) {
    let retention = json!({"keep-daily": "7", "keep-weekly": "4", "keep-monthly": "6"});
    let all = Selection::All { exclude: vec![120, 131, 900, 901] };
    let pool = Selection::Pool("prod".to_owned());
    for job in [
        job(
            "nightly",
            true,
            "02:30",
            all,
            json!({"mode": "snapshot", "compress": "zstd", "prune-backups": retention}),
        ),
        job(
            "weekly-prod",
            true,
            "sun 04:00",
            pool,
            json!({"mode": "snapshot", "notes-template": "{{guestname}}"}),
        ),
        job("old-weekly", false, "sat 05:00", Selection::Guests(vec![120]), json!({})),
    ] {
        state.jobs.insert(job.id.clone(), job);
    }
}

fn guests(seed: u64) -> Vec<GuestSpec> {
    let vm = |vmid: u32, name: &str, node: &str, cores: u32, gib: u32| {
        let nic = qemu_nic("virtio", &ids::mac(seed, &format!("{vmid} net0")), "vmbr0", "firewall=1");
        GuestSpec::qemu(vmid, name)
            .node(node)
            .power(Power::Running)
            .config("cores", cores)
            .config("memory", (gib * 1024).to_string())
            .config("agent", "1")
            .config("onboot", 1)
            .config("net0", nic)
    };
    let ct = |vmid: u32, name: &str, node: &str, mib: u32| {
        let nic = lxc_nic("eth0", &ids::mac(seed, &format!("{vmid} net0")), "vmbr0", "firewall=1,ip=dhcp");
        GuestSpec::lxc(vmid, name)
            .node(node)
            .power(Power::Running)
            .config("cores", 2)
            .config("memory", mib)
            .config("onboot", 1)
            .config("net0", nic)
    };
    let second_nic =
        |vmid: u32| qemu_nic("virtio", &ids::mac(seed, &format!("{vmid} net1")), "vmbr1", "tag=30");
    vec![
        vm(100, "web-01", "pve1", 4, 8)
            .disk("scsi0", "ceph-vm", 32, "discard=on,ssd=1")
            .pool("prod")
            .ha("started")
            .config("tags", "prod;web"),
        vm(101, "web-02", "pve2", 4, 8)
            .disk("scsi0", "ceph-vm", 32, "discard=on,ssd=1")
            .pool("prod")
            .ha("started")
            .config("tags", "prod;web"),
        vm(102, "web-03", "pve3", 4, 8)
            .disk("scsi0", "ceph-vm", 32, "discard=on,ssd=1")
            .pool("prod")
            .config("tags", "prod;web"),
        vm(110, "db-primary", "pve2", 8, 32)
            .disk("scsi0", "ceph-vm", 64, "cache=writeback,iothread=1")
            .disk("scsi1", "local-lvm", 256, "backup=0,iothread=1")
            .pool("prod")
            .cpu_load(0.94)
            .config("net1", second_nic(110))
            .config("tags", "db;prod")
            .config("description", "Primary database; scsi1 holds scratch tables"),
        vm(111, "db-replica", "pve1", 8, 32)
            .disk("scsi0", "ceph-vm", 64, "cache=writeback,iothread=1")
            .disk("scsi1", "local-lvm", 256, "iothread=1")
            .pool("prod")
            .config("net1", second_nic(111))
            .config("tags", "db;prod"),
        vm(112, "db-archive", "pve3", 2, 8)
            .disk("scsi0", "tank", 512, "")
            .power(Power::Stopped)
            .config("tags", "db;legacy"),
        vm(120, "billing", "pve3", 2, 4).disk("scsi0", "local-lvm", 120, "").config("tags", "prod"),
        vm(121, "crm", "pve1", 2, 4).disk("virtio0", "nfs-vm", 40, "").config("tags", "prod"),
        vm(130, "mail", "pve1", 2, 8)
            .disk("scsi0", "ceph-vm", 40, "")
            .disk("scsi1", "nfs-vm", 200, "")
            .pool("prod"),
        vm(131, "wiki", "pve2", 2, 4).disk("scsi0", "local-lvm", 60, ""),
        vm(132, "gitlab", "pve2", 8, 16)
            .disk("scsi0", "ceph-vm", 100, "")
            .disk("scsi1", "ceph-vm", 300, "")
            .cpu_load(0.88),
        vm(133, "ci-runner-01", "pve2", 8, 16)
            .disk("scsi0", "local-lvm", 80, "cache=unsafe")
            .cpu_load(0.97)
            .config("tags", "test"),
        vm(134, "ci-runner-02", "pve2", 8, 16)
            .disk("scsi0", "local-lvm", 80, "cache=unsafe")
            .cpu_load(0.96)
            .config("tags", "test"),
        vm(140, "windows-ad", "pve1", 4, 16)
            .disk("sata0", "ceph-vm", 80, "")
            .config("efidisk0", "ceph-vm:vm-140-disk-1,efitype=4m,pre-enrolled-keys=1,size=528K")
            .config("tpmstate0", "ceph-vm:vm-140-disk-2,size=4M,version=v2.0")
            .config("bios", "ovmf")
            .config("machine", "q35")
            .config("ostype", "win11"),
        vm(141, "staging", "pve3", 4, 8).disk("scsi0", "local-lvm", 64, "").pool("test").power(Power::Paused),
        vm(142, "old-erp", "pve3", 2, 4)
            .disk("ide0", "local-lvm", 40, "")
            .power(Power::Stopped)
            .config("tags", "legacy"),
        ct(143, "files", "pve3", 2048)
            .disk("rootfs", "local-lvm", 16, "")
            .disk("mp0", "tank", 2048, "mp=/srv/files")
            .disk("mp1", "tank", 128, "backup=1,mp=/srv/home")
            .config("tags", "prod"),
        ct(150, "dns-1", "pve1", 512).disk("rootfs", "local-lvm", 4, "").ha("started"),
        ct(151, "dns-2", "pve2", 512).disk("rootfs", "local-lvm", 4, "").ha("started"),
        ct(152, "proxy", "pve1", 1024).disk("rootfs", "ceph-vm", 8, "").pool("prod"),
        ct(153, "monitor", "pve3", 4096).disk("rootfs", "local-lvm", 80, ""),
        ct(154, "ldap", "pve1", 1024).disk("rootfs", "ceph-vm", 8, "").pool("prod"),
        vm(900, "debian-12-template", "pve1", 2, 2)
            .disk("scsi0", "ceph-vm", 8, "")
            .power(Power::Stopped)
            .config("template", 1),
        ct(901, "debian-12-ct-template", "pve1", 512)
            .disk("rootfs", "local-lvm", 4, "")
            .power(Power::Stopped)
            .config("template", 1),
    ]
}
