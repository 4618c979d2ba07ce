//! Secrets that were changed where they are kept.

use serde_json::json;

use crate::rig::{Rig, blocked, machine, words};

/// Proxmox VE never tells a password, so that nobody sees that another one is meant now.
///
/// Seen failing with: a plan that leaves the option out of account.
#[tokio::test]
async fn a_changed_password_is_sent_anew_when_that_is_asked_for() {
    let mut rig = Rig::new(vec![machine(100, "pve1"), machine(101, "pve1")]).await;
    let has = |rig: &Rig| {
        let text = |state: &pve_sim::State| {
            state.guests[&100].config.text("cipassword").unwrap_or_default().into_owned()
        };
        rig.world().read(text)
    };
    rig.desire(
        vec![json!({ "vmid": 100, "cipassword": { "file": "/run/password" } }), json!({ "vmid": 101 })],
        vec![],
    );
    rig.secret = Some("swordfish".to_owned());
    assert_eq!(words(&rig.apply(&rig.planned().await).await), ["done"]);
    let first = has(&rig);
    rig.secret = Some("hunter2".to_owned());
    assert!(rig.planned().await.noop(), "it can't be seen");
    rig.consent.resend = ["vm-100".to_owned()].into();
    let plan = rig.planned().await;
    assert_eq!((plan.operations.len(), plan.restarts, plan.operations[0].reversible), (1, 0, false));
    assert!(!plan.to_file().contains("hunter2"));
    assert_eq!(words(&rig.apply(&plan).await), ["done"]);
    assert_ne!(has(&rig), first);
    rig.consent.resend = ["vm-101".to_owned()].into();
    assert!(blocked(&rig.plan().await).contains("no password is desired of it"));
}
