//! Guests are started and stopped.

use pve_sim::{Fault, FaultRule, Power};
use pvegraph_reconcile::apply::{Ended, Outcome, Stop};
use serde_json::json;

use crate::rig::{Rig, blocked, machine, reasons, words};

/// Seen failing with: a shutdown that always cuts off.
#[tokio::test]
async fn a_guest_that_does_not_shut_down_is_cut_off_only_where_that_is_desired() {
    let mut rig = Rig::new(vec![machine(100, "pve1").power(Power::Running)]).await;
    rig.world().update(|state| state.deaf.insert(100));
    rig.desire(vec![json!({ "vmid": 100, "state": "stopped" })], vec![]);
    let outcomes = rig.apply(&rig.planned().await).await;
    assert!(matches!(outcomes[0], Outcome::Failed { .. }), "{outcomes:?}");
    for word in ["vm-100 (guest 100)", "powerdown failed", "`shutdown: force`"] {
        assert!(reasons(&outcomes).contains(word), "{outcomes:?}");
    }
    assert!(rig.place(100).1);
    rig.desire(vec![json!({ "vmid": 100, "state": "stopped", "shutdown": "force" })], vec![]);
    let plan = rig.planned().await;
    assert_eq!(
        plan.operations[0].requests[0].to_string(),
        "POST /nodes/pve1/qemu/100/status/shutdown forceStop=1 timeout=180"
    );
    assert_eq!(words(&rig.apply(&plan).await), ["done"]);
    assert!(!rig.place(100).1);
    assert!(rig.planned().await.noop());
}

/// Seen failing with: power that is changed although high availability manages the guest; a wait of the usual length; one of the usual
/// length after a lost answer.
#[tokio::test]
async fn under_high_availability_its_state_is_set_and_waited_for() {
    let path = "/cluster/ha/resources/vm:100";
    for lost in [false, true] {
        let mut rig = Rig::new(vec![machine(100, "pve1").power(Power::Running).ha("started")]).await;
        rig.world().update(|state| state.ha_lag = 300);
        if lost {
            rig.server.faults().add(FaultRule::at(path, Fault::LoseAnswer).method("PUT").times(1));
        }
        for (state, runs) in [("stopped", false), ("running", true)] {
            rig.desire(vec![json!({ "vmid": 100, "state": state })], vec![]);
            let plan = rig.planned().await;
            assert_eq!(plan.operations[0].requests[0].path, path);
            assert_eq!(words(&rig.apply(&plan).await), ["done"], "{lost}");
            assert_eq!(rig.place(100).1, runs);
            assert!(rig.planned().await.noop());
        }
        assert_eq!(rig.server.counters().writes("PUT", path), 2);
        assert_eq!(rig.tasks("qmshutdown", 100) + rig.tasks("hastop", 100), 0);
    }
}

/// Seen failing with: a plan that sets a state which PVE refuses.
#[tokio::test]
async fn a_guest_that_high_availability_has_given_up_is_disabled_first() {
    let path = "/cluster/ha/resources/vm:100";
    let mut rig = Rig::new(vec![machine(100, "pve1").ha("started")]).await;
    let doing = |rig: &Rig, doing: &str| {
        rig.world().update(|state| drop(state.ha_doing.insert("vm:100".to_owned(), doing.to_owned())));
    };
    doing(&rig, "error");
    rig.desire(vec![json!({ "vmid": 100, "state": "running" })], vec![]);
    let told = blocked(&rig.plan().await);
    assert!(told.contains("vm-100 (guest 100): `ha`") && told.contains("`disabled`"), "{told}");
    // Given up between plan and apply: nothing is sent.
    rig.world().update(|state| drop(state.ha_doing.remove("vm:100")));
    let plan = rig.planned().await;
    doing(&rig, "error");
    let outcomes = rig.apply(&plan).await;
    assert!(matches!(&outcomes[0], Outcome::Stale { reason } if reason.contains("`ha`")), "{outcomes:?}");
    assert_eq!(rig.server.counters().writes("PUT", path), 0);
    // Whoever mended it disables it, and then it starts.
    let api = pve_client::ApiPath::new("disable").fixed(path);
    rig.client.put(&api, &[("state", "disabled")]).await.unwrap();
    rig.world().update(|state| drop(state.ha_doing.remove("vm:100")));
    assert_eq!(words(&rig.apply(&rig.planned().await).await), ["done"]);
    assert!(rig.place(100).1);
}

/// Seen failing with: a guest that is managed since the plan, and whose power is changed all the same.
#[tokio::test]
async fn a_guest_that_came_under_high_availability_since_the_plan_is_left_alone() {
    let mut rig = Rig::new(vec![machine(100, "pve1")]).await;
    rig.desire(vec![json!({ "vmid": 100, "state": "running" })], vec![]);
    let plan = rig.planned().await;
    rig.world().set_ha(100, Some("stopped")).unwrap();
    let outcomes = rig.apply(&plan).await;
    assert!(reasons(&outcomes).contains("`ha`"), "{outcomes:?}");
    assert!(!rig.place(100).1);
}

/// Seen failing with: a restart that counts as a change of power which high availability undoes.
#[tokio::test]
async fn a_guest_under_high_availability_restarts() {
    let mut rig = Rig::new(vec![machine(100, "pve1").power(Power::Running).ha("started")]).await;
    rig.desire(vec![json!({ "vmid": 100, "cores": 4, "reboot": "allow" })], vec![]);
    assert_eq!(words(&rig.apply(&rig.planned().await).await), ["done"]);
    assert_eq!((rig.tasks("qmreboot", 100), rig.place(100).1), (1, true));
    assert!(rig.planned().await.noop());
}

/// Whatever stops guests counts as what restarts them does.
///
/// Seen failing with: limits that count restarts only.
#[tokio::test]
async fn guests_that_go_down_are_counted_by_the_limits() {
    let running = |vmid: u32| machine(vmid, "pve1").power(Power::Running);
    let mut rig = Rig::new((100..103).map(running).collect()).await;
    let stop = |vmid: u32| json!({ "vmid": vmid, "state": "stopped" });
    rig.desire(vec![stop(100), stop(101), json!({ "vmid": 102 })], vec![]);
    let told = blocked(&rig.plan().await);
    assert!(told.contains("2 of 3 guests would go down"), "{told}");
    rig.desire(vec![stop(100), json!({ "vmid": 101 }), json!({ "vmid": 102 })], vec![]);
    rig.scopes[0].max_restarts = Some(0);
    let told = blocked(&rig.plan().await);
    assert!(told.contains("scope lab") && told.contains("`max_restarts`"), "{told}");
    rig.scopes[0].max_restarts = Some(1);
    assert_eq!(words(&rig.apply(&rig.planned().await).await), ["done"]);
}

/// Seen failing with: scopes that are only read before a run.
#[tokio::test]
async fn a_scope_that_is_paused_meanwhile_stops_what_is_in_it_and_the_run_is_gone_on_with() {
    let guest = machine(100, "pve1").power(Power::Running).disk("scsi0", "nfs-vm", 4, "");
    let mut rig = Rig::new(vec![guest]).await;
    rig.desire(vec![json!({ "vmid": 100, "cores": 4, "reboot": "allow" })], vec![]);
    let plan = rig.planned().await;
    rig.keys.paused = vec![100];
    let (outcomes, stop) = rig.run(&plan).await;
    assert!(matches!(&stop, Some(Stop::ScopePaused(why)) if why.contains("lab is paused")), "{stop:?}");
    assert_eq!(words(&outcomes), ["half done"]);
    assert_eq!(Ended::of(&outcomes, stop.as_ref()), Ended::Partial);
    assert_eq!(rig.server.counters().writes("POST", "/nodes/pve1/qemu/100/status/reboot"), 0);
    rig.keys.paused.clear();
    assert_eq!(words(&rig.resume(&plan).await), ["done"]);
}

/// A file's hash does not show who wrote it.
///
/// Seen failing with: whatever the file says of how a guest goes down.
#[tokio::test]
async fn a_file_cuts_no_guest_off_and_restarts_none_where_that_is_not_desired() {
    let mut rig = Rig::new(vec![machine(100, "pve1").power(Power::Running)]).await;
    rig.world().edit_guest(100, |guest| guest.pending.push(("cores".to_owned(), Some(4.into())))).unwrap();
    rig.desire(vec![json!({ "vmid": 100, "state": "stopped", "shutdown": "force" })], vec![]);
    let forced = rig.planned().await;
    rig.desire(vec![json!({ "vmid": 100, "cores": 4, "reboot": "allow" })], vec![]);
    let restarted = rig.planned().await;
    let before = rig.guests();
    rig.desire(vec![json!({ "vmid": 100, "state": "stopped", "cores": 4 })], vec![]);
    for (plan, told) in
        [(forced, "`shutdown`: it would be cut off"), (restarted, "`reboot`: it would restart")]
    {
        let outcomes = rig.apply(&plan).await;
        assert_eq!(words(&outcomes), ["stale"]);
        assert!(reasons(&outcomes).starts_with(&format!("vm-100 (guest 100): {told}")), "{outcomes:?}");
        assert_eq!(rig.guests(), before);
    }
}

/// What waited came into force with the change before.
///
/// Seen failing with: a restart that is sent whatever waits; a journal that does not know of calls that are not sent; an audit log that
/// names the restart as every other call.
#[tokio::test]
async fn a_guest_is_not_restarted_for_what_does_not_wait_any_more() {
    let net = |bridge: &str| format!("virtio=BC:24:11:00:00:01,bridge={bridge}");
    let mut rig =
        Rig::new(vec![machine(100, "pve1").power(Power::Running).config("net0", net("vmbr0"))]).await;
    let waits = ("net0".to_owned(), Some(net("vmbr1").into()));
    rig.world().edit_guest(100, |guest| guest.pending.push(waits)).unwrap();
    let entry = json!({ "vmid": 100, "net0": { "bridge": "vmbr1", "tag": 5 }, "reboot": "allow" });
    rig.desire(vec![entry], vec![]);
    let plan = rig.planned().await;
    let [change, restart] = plan.operations.as_slice() else { panic!("{plan:?}") };
    assert_eq!(
        (change.fields.join(" "), restart.fields.join(" ")),
        ("net0.tag".into(), "net0.bridge".into())
    );
    assert_eq!(words(&rig.apply(&plan).await), ["done", "done"]);
    assert_eq!((rig.tasks("qmreboot", 100), rig.tasks("qmconfig", 100)), (0, 1));
    // It says that it was not sent, also where a process was killed before it wrote the log.
    let told = || {
        let line = rig.audited().into_iter().find(|line| line["fields"] == json!(["net0.bridge"])).unwrap();
        (line["requests"].clone(), line["reason"].clone(), line["result"].clone())
    };
    let reason = "not needed any more, and not sent: POST /nodes/pve1/qemu/100/status/reboot";
    assert_eq!(told(), (json!([]), json!(reason), json!("done")));
    rig.without_audit();
    assert_eq!(words(&rig.resume(&plan).await), ["done", "done"], "the journal says so");
    assert_eq!(told(), (json!([]), json!(reason), json!("done")));
    assert!(rig.planned().await.noop());
}
