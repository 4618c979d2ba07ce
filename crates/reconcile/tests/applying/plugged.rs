//! Devices come and go while guests run.

use pve_sim::Power;
use serde_json::json;

use crate::rig::{Rig, container, machine, words};

/// Seen failing with: disks that count as a restart.
#[tokio::test]
async fn disks_of_running_guests_are_added_and_detached_without_a_restart() {
    let running = machine(100, "pve1").power(Power::Running);
    let mut rig = Rig::new(vec![
        running,
        container(200, "pve1").disk("rootfs", "local-lvm", 4, "").power(Power::Running),
    ])
    .await;
    let disk = json!({ "storage": rig.shared, "size": "1G" });
    let has = |rig: &Rig, vmid: u32, key: &str| {
        rig.world().read(|state| state.guests[&vmid].config.get(key).is_some())
    };
    rig.desire(vec![json!({ "vmid": 100, "scsi5": disk, "balloon": 1024, "reboot": "allow" })], vec![]);
    let plan = rig.planned().await;
    assert_eq!(plan.restarts, 0, "{plan:?}");
    assert_eq!(words(&rig.apply(&plan).await), ["done"]);
    assert!(has(&rig, 100, "scsi5") && rig.planned().await.noop());
    rig.desire(vec![json!({ "vmid": 100, "unset": ["scsi5"], "reboot": "allow" })], vec![]);
    assert_eq!(words(&rig.apply(&rig.planned().await).await), ["done"]);
    assert!(!has(&rig, 100, "scsi5") && rig.planned().await.noop());
    assert_eq!((rig.tasks("qmreboot", 100), rig.place(100).1), (0, true));
    // One that is not plugged comes with the restart.
    rig.desire(vec![json!({ "vmid": 100, "sata3": disk, "reboot": "allow" })], vec![]);
    let plan = rig.planned().await;
    assert_eq!((words(&rig.apply(&plan).await), plan.restarts), (vec!["done"], 1));
    assert!(has(&rig, 100, "sata3"));
    assert_eq!((rig.tasks("qmreboot", 100), rig.place(100).1), (1, true));
    // A container's volume comes at once, and goes with a restart.
    let volume = json!({ "storage": "local-lvm", "size": "1G", "mp": "/srv" });
    rig.desire(vec![], vec![json!({ "vmid": 200, "mp0": volume, "reboot": "allow" })]);
    assert_eq!(words(&rig.apply(&rig.planned().await).await), ["done"]);
    assert_eq!((has(&rig, 200, "mp0"), rig.tasks("vzreboot", 200)), (true, 0));
    rig.desire(vec![], vec![json!({ "vmid": 200, "unset": ["mp0"], "reboot": "allow" })]);
    assert_eq!(words(&rig.apply(&rig.planned().await).await), ["done"]);
    assert_eq!((has(&rig, 200, "mp0"), rig.tasks("vzreboot", 200)), (false, 1));
}
