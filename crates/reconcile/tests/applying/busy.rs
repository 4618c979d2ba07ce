//! Tasks that take long, and tasks of which Proxmox VE says that it was busy when they had done their work already.

use pve_sim::{Fault, FaultRule, GuestSpec, Power};
use serde_json::json;

use crate::rig::{Rig, container, machine, words};

/// A task of these may have done its part before it waited for a lock: the guest tells, and nothing is sent again.
///
/// Seen failing with: a call that is sent again whenever Proxmox VE was busy; the same of a configuration alone.
#[tokio::test]
async fn a_busy_task_of_a_far_going_call_is_looked_at_and_not_sent_again() {
    type Prepare = fn(&mut Rig);
    let vm = || machine(100, "pve1").disk("scsi0", "nfs-vm", 4, "");
    let ct = || container(200, "pve1").disk("rootfs", "nfs-vm", 4, "");
    let cases: [(GuestSpec, &str, &str, Prepare); 8] = [
        (vm(), "POST", "/nodes/pve1/qemu/100/move_disk", |rig| {
            rig.desire(vec![json!({ "vmid": 100, "scsi0": { "storage": "local-lvm" } })], vec![]);
        }),
        (ct(), "POST", "/nodes/pve1/lxc/200/move_volume", |rig| {
            rig.desire(vec![], vec![json!({ "vmid": 200, "rootfs": { "storage": "local-lvm" } })]);
        }),
        (vm().power(Power::Running), "POST", "/nodes/pve1/qemu/100/migrate", |rig| {
            rig.desire(vec![json!({ "vmid": 100, "node": "pve2" })], vec![]);
        }),
        (ct(), "POST", "/nodes/pve1/lxc/200/migrate", |rig| {
            rig.desire(vec![], vec![json!({ "vmid": 200, "node": "pve2" })]);
        }),
        (vm(), "POST", "/nodes/pve1/qemu/100/config", |rig| {
            rig.desire(
                vec![json!({ "vmid": 100, "scsi1": { "storage": "local-lvm", "size": "4G" } })],
                vec![],
            );
        }),
        (vm(), "POST", "/nodes/pve1/qemu", |rig| {
            rig.desire(vec![json!({ "vmid": 300, "node": "pve1", "cores": 2 })], vec![]);
        }),
        (vm(), "POST", "/nodes/pve1/qemu/100/clone", |rig| {
            let clone = json!({ "from": 100, "full": true });
            rig.desire(vec![json!({ "vmid": 300, "node": "pve1", "clone": clone })], vec![]);
        }),
        (ct(), "DELETE", "/nodes/pve1/lxc/200", |rig| {
            rig.scopes[0].allow.insert(pvegraph_reconcile::plan::Action::Destroy);
            rig.scopes[0].max_deletes = 1;
            rig.consent.delete.insert("ct-200".to_owned());
            rig.desire(vec![], vec![json!({ "vmid": 200, "tombstone": true, "deletion": "destroy" })]);
        }),
    ];
    for (guest, method, path, prepare) in cases {
        let mut rig = Rig::new(vec![guest]).await;
        prepare(&mut rig);
        let plan = rig.planned().await;
        rig.world().set_next_exit("can't lock file '/var/lock/x.conf' - got timeout");
        let outcomes = rig.apply(&plan).await;
        assert!(words(&outcomes).iter().all(|word| *word == "done"), "{path}: {outcomes:?}");
        assert_eq!(rig.server.counters().writes(method, path), 1, "{path}");
        rig.noted();
        assert!(rig.planned().await.noop(), "{path}");
    }
}

/// The same of calls without a task, which Proxmox VE refuses at once: the guest tells first.
///
/// Seen failing with: refusals that nobody looks at the guest after: what the call had done was taken for somebody else's work.
#[tokio::test]
async fn a_busy_refusal_is_looked_at_before_it_is_sent_again() {
    type Prepare = fn(&mut Rig);
    let ct = || container(200, "pve1").disk("rootfs", "nfs-vm", 4, "");
    let vm = || machine(100, "pve1").disk("scsi0", "nfs-vm", 4, "");
    let cases: [(GuestSpec, &str, &str, Prepare); 4] = [
        (ct(), "PUT", "/nodes/pve1/lxc/200/config", |rig| {
            rig.desire(vec![], vec![json!({ "vmid": 200, "cores": 2, "tags": ["a"] })]);
        }),
        (vm(), "PUT", "/nodes/pve1/qemu/100/config", |rig| {
            rig.desire(vec![json!({ "vmid": 100, "cores": 4 })], vec![]);
        }),
        (vm(), "PUT", "/nodes/pve1/qemu/100/resize", |rig| {
            rig.desire(vec![json!({ "vmid": 100, "scsi0": { "size": "6G" } })], vec![]);
        }),
        (vm(), "POST", "/nodes/pve1/qemu/100/status/start", |rig| {
            rig.desire(vec![json!({ "vmid": 100, "state": "running" })], vec![]);
        }),
    ];
    for (guest, method, path, prepare) in cases {
        for after in [true, false] {
            let mut rig = Rig::new(vec![guest.clone()]).await;
            prepare(&mut rig);
            let plan = rig.planned().await;
            let (status, reason) = (500, "can't lock file '/var/lock/x.conf' - got timeout".to_owned());
            let fault =
                if after { Fault::StatusAfter { status, reason } } else { Fault::Status { status, reason } };
            rig.server.faults().add(FaultRule::at(path, fault).method(method).times(1));
            let outcomes = rig.apply(&plan).await;
            assert!(words(&outcomes).iter().all(|word| *word == "done"), "{path} {after}: {outcomes:?}");
            assert_eq!(rig.server.counters().writes(method, path), if after { 1 } else { 2 }, "{path}");
            rig.noted();
            assert!(rig.planned().await.noop(), "{path} {after}");
        }
    }
}

/// Copies and migrations may take hours.
///
/// Seen failing with: a task that is followed in silence.
#[tokio::test]
async fn that_a_task_goes_on_is_told_every_now_and_then() {
    let mut rig = Rig::new(vec![machine(100, "pve1").disk("scsi0", "nfs-vm", 4, "")]).await;
    rig.desire(vec![json!({ "vmid": 100, "scsi0": { "storage": "local-lvm" } })], vec![]);
    let plan = rig.planned().await;
    rig.world().set_time_scale(0.2);
    assert_eq!(words(&rig.apply(&plan).await), ["done"]);
    let told = rig.told.0.lock().unwrap().clone();
    let follows: Vec<_> = told.iter().filter(|event| event["event"] == "follows").collect();
    assert!(!follows.is_empty(), "{told:?}");
    let upid = follows[0]["upid"].as_str().unwrap();
    assert!(
        upid.contains("move") && follows[0]["operation"] == 1 && follows[0]["seconds"].is_u64(),
        "{follows:?}"
    );
}
