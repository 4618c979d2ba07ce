//! Guests that lack the marker when they shall be deleted.

use pvegraph_reconcile::plan::Action;
use serde_json::json;

use crate::rig::{Rig, machine, words};

/// Seen failing with: a plan of the deletion alone, which no apply does.
#[tokio::test]
async fn a_guest_without_the_marker_is_marked_and_then_deleted() {
    let mut rig =
        Rig::new(vec![machine(100, "pve1").disk("scsi0", "local-lvm", 4, ""), machine(101, "pve1")]).await;
    rig.scopes[0].allow.insert(Action::Destroy);
    rig.scopes[0].max_deletes = 1;
    rig.consent.delete.insert("vm-100".to_owned());
    rig.consent.mark.insert("vm-100".to_owned());
    rig.desire(
        vec![json!({ "vmid": 100, "tombstone": true, "deletion": "destroy" }), json!({ "vmid": 101 })],
        vec![],
    );
    rig.world().set_config(100, "tags", "others").unwrap();
    let plan = rig.planned().await;
    let actions: Vec<Action> = plan.operations.iter().map(|op| op.action).collect();
    assert_eq!(actions, [Action::Mark, Action::Destroy]);
    assert_eq!(words(&rig.apply_and_note(&plan).await), ["done", "done"]);
    assert!(!rig.world().read(|state| state.guests.contains_key(&100)));
    assert!(rig.planned().await.noop());
}
