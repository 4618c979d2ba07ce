//! Guests go to other nodes.

use pve_sim::{Fault, FaultRule, Power};
use pvegraph_reconcile::apply::Outcome;
use serde_json::json;

use crate::rig::{Rig, blocked, container, machine, reasons, words};

/// Two machines and a container that run on the first node, on a storage that all nodes have.
async fn rig() -> Rig {
    Rig::new(vec![
        machine(100, "pve1").power(Power::Running),
        machine(101, "pve1"),
        container(200, "pve1").disk("rootfs", "nfs-vm", 4, "").power(Power::Running),
    ])
    .await
}

/// Seen failing with: a guest that is looked for where it was; a restart that is sent to the node that it was on.
#[tokio::test]
async fn a_guest_migrates_and_what_comes_after_goes_to_the_new_node() {
    let mut rig = rig().await;
    rig.desire(
        vec![
            json!({ "vmid": 100, "node": "pve2", "tags": ["a"], "cores": 4, "reboot": "allow" }),
            json!({ "vmid": 101, "node": "pve3", "state": "running" }),
        ],
        vec![],
    );
    // What waits for a restart already is in force after it, there.
    rig.world().edit_guest(100, |guest| guest.pending.push(("cores".to_owned(), Some(4.into())))).unwrap();
    let plan = rig.planned().await;
    let outcomes = rig.apply(&plan).await;
    assert!(words(&outcomes).iter().all(|word| *word == "done"), "{outcomes:?}");
    assert_eq!((rig.place(100), rig.place(101)), (("pve2".to_owned(), true), ("pve3".to_owned(), true)));
    assert_eq!((rig.tasks("qmigrate", 100), rig.tasks("qmreboot", 100)), (1, 1));
    assert_eq!(rig.world().read(|state| state.guests[&100].config.text("cores").unwrap().into_owned()), "4");
    assert!(rig.planned().await.noop());
}

/// Seen failing with: a container that is migrated as a machine is.
#[tokio::test]
async fn a_running_container_restarts_on_the_other_node_where_it_may() {
    let mut rig = rig().await;
    rig.desire(vec![], vec![json!({ "vmid": 200, "node": "pve2" })]);
    let told = blocked(&rig.plan().await);
    assert!(told.contains("ct-200 (guest 200): `node`") && told.contains("`reboot`: `allow`"), "{told}");
    rig.desire(vec![], vec![json!({ "vmid": 200, "node": "pve2", "reboot": "allow" })]);
    let plan = rig.planned().await;
    assert_eq!(plan.restarts, 1);
    assert_eq!(
        plan.operations[0].requests[0].to_string(),
        "POST /nodes/pve1/lxc/200/migrate restart=1 target=pve2"
    );
    assert_eq!(words(&rig.apply(&plan).await), ["done"]);
    assert_eq!(rig.place(200), ("pve2".to_owned(), true));
    assert!(rig.planned().await.noop());
}

/// Seen failing with: volumes of one node that are copied without being asked for.
#[tokio::test]
async fn volumes_that_only_one_node_has_go_along_where_that_is_desired() {
    let local = |guest: pve_sim::GuestSpec, key: &str| guest.disk(key, "local-lvm", 4, "");
    let mut rig = Rig::new(vec![
        local(machine(100, "pve1"), "scsi0").power(Power::Running),
        local(container(200, "pve1"), "rootfs"),
    ])
    .await;
    let both = |local_disks: &str| {
        let guest = |vmid: u32| json!({ "vmid": vmid, "node": "pve2", "local_disks": local_disks });
        (vec![guest(100)], vec![guest(200)])
    };
    let (vms, containers) = both("stay");
    rig.desire(vms, containers);
    let told = blocked(&rig.plan().await);
    for guest in ["vm-100 (guest 100)", "ct-200 (guest 200)"] {
        assert!(
            told.contains(&format!("{guest}: `local_disks`: it has volumes that only pve1 has")),
            "{told}"
        );
    }
    let (vms, containers) = both("migrate");
    rig.desire(vms, containers);
    let plan = rig.planned().await;
    let calls: Vec<String> = plan.operations.iter().map(|one| one.requests[0].to_string()).collect();
    assert_eq!(
        calls,
        [
            "POST /nodes/pve1/lxc/200/migrate target=pve2",
            "POST /nodes/pve1/qemu/100/migrate online=1 target=pve2 with-local-disks=1"
        ]
    );
    assert_eq!(words(&rig.apply(&plan).await), ["done", "done"]);
    assert!(rig.planned().await.noop());
}

/// Seen failing with: a plan that is believed without asking again.
#[tokio::test]
async fn what_ties_a_guest_since_the_plan_stops_its_migration_before_it_is_sent() {
    let mut rig = Rig::new(vec![
        machine(100, "pve1").power(Power::Running),
        machine(101, "pve1").power(Power::Running),
    ])
    .await;
    rig.desire(vec![json!({ "vmid": 100, "node": "pve2" })], vec![]);
    let plan = rig.planned().await;
    rig.world().set_node_online("pve2", false).unwrap();
    let outcomes = rig.apply(&plan).await;
    assert!(
        matches!(&outcomes[0], Outcome::Stale { reason } if reason.contains("pve2 is not online")),
        "{outcomes:?}"
    );
    rig.world().set_node_online("pve2", true).unwrap();
    // A storage that the other node can't reach any more, which the digest does not tell.
    let shared = rig.shared.clone();
    rig.world().set_config(100, "scsi0", format!("{shared}:100/vm-100-disk-0.raw,size=4G")).unwrap();
    let plan = rig.planned().await;
    rig.world().edit_storage(&shared, |storage| storage.nodes = Some(["pve1".to_owned()].into())).unwrap();
    let outcomes = rig.apply(&plan).await;
    assert!(
        reasons(&outcomes).contains("vm-100 (guest 100): `node`: Proxmox VE does not let it go to pve2"),
        "{outcomes:?}"
    );
    assert_eq!((rig.place(100), rig.tasks("qmigrate", 100)), (("pve1".to_owned(), true), 0));
    let told = blocked(&rig.plan().await);
    assert!(told.contains("`node`: the node pve2 has no storage"), "{told}");
    // Somebody else was faster.
    rig.world().edit_storage(&shared, |storage| storage.nodes = None).unwrap();
    let plan = rig.planned().await;
    rig.world().migrate(100, "pve2").unwrap();
    let outcomes = rig.apply(&plan).await;
    assert!(reasons(&outcomes).contains("it is not on pve1 any more"), "{outcomes:?}");
}

/// The task ends before the guest moves: it is waited for.
///
/// Seen failing with: a wait that does not know of high availability.
#[tokio::test]
async fn under_high_availability_the_guest_is_waited_for_until_it_is_there() {
    let mut rig = Rig::new(vec![machine(100, "pve1").power(Power::Running).ha("started")]).await;
    rig.world().update(|state| state.ha_lag = 300);
    rig.desire(vec![json!({ "vmid": 100, "node": "pve2" })], vec![]);
    let plan = rig.planned().await;
    assert_eq!(words(&rig.apply(&plan).await), ["done"]);
    assert_eq!(rig.place(100), ("pve2".to_owned(), true));
    assert_eq!((rig.tasks("hamigrate", 100), rig.tasks("qmigrate", 100)), (1, 0));
    assert!(rig.planned().await.noop());
}

#[tokio::test]
async fn a_guest_that_high_availability_has_given_up_is_not_moved() {
    let mut rig = Rig::new(vec![machine(100, "pve1").ha("started")]).await;
    rig.world().update(|state| drop(state.ha_doing.insert("vm:100".to_owned(), "error".to_owned())));
    rig.desire(vec![json!({ "vmid": 100, "node": "pve2" })], vec![]);
    let told = blocked(&rig.plan().await);
    assert!(told.contains("`ha`") && told.contains("`disabled`"), "{told}");
}

/// Seen failing with: an answer that got lost and is sent again.
#[tokio::test]
async fn after_a_lost_answer_the_guest_is_looked_for_and_nothing_is_sent_again() {
    let path = "/nodes/pve1/qemu/100/migrate";
    let lost = || FaultRule::at(path, Fault::LoseAnswer).method("POST").times(1);
    for managed in [false, true] {
        let guest = machine(100, "pve1").power(Power::Running);
        let mut rig = Rig::new(vec![if managed { guest.ha("started") } else { guest }]).await;
        rig.world().update(|state| state.ha_lag = 300);
        rig.desire(vec![json!({ "vmid": 100, "node": "pve2" })], vec![]);
        let plan = rig.planned().await;
        rig.server.faults().add(lost());
        assert_eq!(words(&rig.apply(&plan).await), ["done"]);
        assert_eq!(rig.place(100), ("pve2".to_owned(), true));
        assert_eq!(rig.server.counters().writes("POST", path), 1);
    }
    // Where nothing came of it nobody knows that, and it is never sent again.
    let mut rig = Rig::new(vec![machine(100, "pve1")]).await;
    rig.desire(vec![json!({ "vmid": 100, "node": "pve2" })], vec![]);
    let plan = rig.planned().await;
    let away = Fault::BareStatus { status: 596, reason: "timed out".to_owned() };
    rig.server.faults().add(FaultRule::at(path, away).method("POST").times(1));
    assert_eq!(words(&rig.apply(&plan).await), ["unknown"]);
    assert_eq!(words(&rig.resume(&plan).await), ["unknown"]);
    assert_eq!(rig.server.counters().writes("POST", path), 1);
    assert_eq!(rig.place(100).0, "pve1");
    // The next plan sees what there is.
    assert_eq!(words(&rig.apply(&rig.planned().await).await), ["done"]);
}

/// A node may be silent for a moment while the guest comes to it: that is waited for, and is no reason to know nothing.
///
/// Seen failing with: a silence that ends the wait.
#[tokio::test]
async fn a_node_that_is_silent_for_a_moment_ends_no_wait() {
    for reason in ["Connection timed out", "No route to host"] {
        let mut rig = Rig::new(vec![machine(100, "pve1").power(Power::Running)]).await;
        rig.give_up_soon();
        rig.desire(vec![json!({ "vmid": 100, "node": "pve2" })], vec![]);
        let plan = rig.planned().await;
        let silent = Fault::BareStatus { status: 595, reason: reason.to_owned() };
        rig.server.faults().add(FaultRule::below("/nodes/pve2/qemu/100/", silent).times(2));
        assert_eq!(words(&rig.apply(&plan).await), ["done"]);
        // For good it is one.
        rig.desire(vec![json!({ "vmid": 100, "node": "pve3" })], vec![]);
        let plan = rig.planned().await;
        let silent = Fault::BareStatus { status: 595, reason: reason.to_owned() };
        rig.server.faults().add(FaultRule::below("/nodes/pve3/qemu/100/", silent));
        let outcomes = rig.apply(&plan).await;
        assert_eq!(words(&outcomes), ["unknown"]);
        rig.server.faults().clear();
        assert_eq!(words(&rig.resume(&plan).await), ["done"]);
        assert_eq!(rig.tasks("qmigrate", 100), 2);
    }
}

/// Seen failing with: allowed nodes that nothing goes to; a destination that apply does not look at.
#[tokio::test]
async fn a_guest_outside_of_its_nodes_goes_to_the_preferred_one_and_nowhere_else() {
    let mut rig = rig().await;
    let entry = |nodes: [&str; 2]| json!({ "vmid": 100, "nodes": nodes, "prefer": ["pve3"] });
    rig.desire(
        vec![entry(["pve2", "pve3"])],
        vec![json!({ "vmid": 200, "nodes": ["pve1", "pve2"], "prefer": ["pve2"] })],
    );
    let before = rig.guests();
    let plan = rig.planned().await;
    let [migrates] = plan.operations.as_slice() else { panic!("{plan:?}") };
    assert_eq!(migrates.requests[0].to_string(), "POST /nodes/pve1/qemu/100/migrate online=1 target=pve3");
    // Its file says another node.
    let mut forged = plan.clone();
    forged.operations[0].requests[0] = pvegraph_reconcile::plan::Request::new(
        pvegraph_reconcile::plan::Method::Post,
        "/nodes/pve1/qemu/100/migrate",
    )
    .with("online", "1")
    .with("target", "pve1");
    let told = "vm-100 (guest 100): `node`: it goes to pve1, and is desired on pve2 or pve3: plan again";
    assert_eq!(reasons(&rig.apply(&forged).await), told);
    assert_eq!(words(&rig.apply(&plan).await), ["done"]);
    assert_eq!((rig.place(100), rig.place(200)), (("pve3".to_owned(), true), ("pve1".to_owned(), true)));
    assert!(rig.planned().await.noop());
    // High availability, or somebody, moves it among them: that is no difference.
    rig.world().migrate(100, "pve2").unwrap();
    assert!(rig.planned().await.noop());
    rig.world().migrate(100, "pve3").unwrap();
    let (back, left) = rig.back(&plan).await;
    assert_eq!((blocked(&back), left), (String::new(), vec![]));
    assert_eq!(words(&rig.apply(&back).await), ["done"]);
    assert_eq!(rig.guests(), before);
}

/// Seen failing with: allowed nodes that nothing goes to.
#[tokio::test]
async fn proxmox_ve_says_which_of_the_nodes_are_possible() {
    let mut rig = Rig::new(vec![machine(100, "pve1").power(Power::Running).ha("started")]).await;
    let shared = rig.shared.clone();
    rig.world().set_config(100, "scsi0", format!("{shared}:100/vm-100-disk-0.raw,size=4G")).unwrap();
    rig.world()
        .edit_storage(&shared, |storage| storage.nodes = Some(["pve1".to_owned(), "pve3".to_owned()].into()))
        .unwrap();
    rig.desire(vec![json!({ "vmid": 100, "nodes": ["pve2", "pve3"], "prefer": ["pve2"] })], vec![]);
    let plan = rig.planned().await;
    assert!(
        plan.operations[0]
            .reasons
            .join("\n")
            .contains("place: pve3, as no other is possible; not pve2, `node`")
    );
    assert_eq!(words(&rig.apply(&plan).await), ["done"]);
    assert_eq!(rig.place(100), ("pve3".to_owned(), true));
    assert_eq!((rig.tasks("hamigrate", 100), rig.tasks("qmigrate", 100)), (1, 0));
    assert!(rig.planned().await.noop());
}
