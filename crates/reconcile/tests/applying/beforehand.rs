//! A snapshot before a restart: it changes the digest, and what comes after it goes by the new one.

use pve_sim::Power;
use serde_json::json;

use crate::rig::{Rig, machine, words};

/// Seen failing with: a snapshot after which the guest has to have the plan's digest.
#[tokio::test]
async fn a_snapshot_is_taken_and_what_comes_after_it_is_done() {
    let guest = machine(100, "pve1").disk("scsi0", "local-lvm", 4, "").power(Power::Running);
    let mut rig = Rig::new(vec![guest]).await;
    rig.consent.snapshot = true;
    rig.desire(
        vec![json!({ "vmid": 100, "cores": 4, "reboot": "allow", "scsi0": { "size": "6G" } })],
        vec![],
    );
    let plan = rig.planned().await;
    assert_eq!(
        plan.operations.iter().map(|one| one.action.as_str()).collect::<Vec<_>>(),
        ["snapshot", "grow", "configure"]
    );
    let outcomes = rig.apply(&plan).await;
    assert_eq!(words(&outcomes), ["done"; 3], "{outcomes:?}");
    let (names, then, now) = rig.world().read(|state| {
        let guest = &state.guests[&100];
        let cores = |config: &pve_sim::Config| config.text("cores").unwrap().into_owned();
        let names: Vec<String> = guest.snapshots.iter().map(|snapshot| snapshot.name.clone()).collect();
        (names, guest.snapshots[0].config.as_ref().map(cores), cores(&guest.config))
    });
    assert_eq!(names, ["before-rig"]);
    assert_eq!((then.as_deref(), &*now), (Some("2"), "4"), "it is of the guest as it was");
    rig.noted();
    assert!(rig.planned().await.noop());

    // The way back leaves the snapshot there; a volume does not shrink.
    rig.consent.snapshot = false;
    let (back, left) = rig.back(&plan).await;
    assert_eq!(back.operations.iter().map(|one| one.action.as_str()).collect::<Vec<_>>(), ["configure"]);
    assert!(left.len() == 1 && left[0].contains("don't shrink"), "{left:?}");
}
