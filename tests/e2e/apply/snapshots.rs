//! Snapshots: taken, gone back to, copied to a new guest; and guests that become templates.

use pve_sim::{Fault, FaultRule, Power};
use serde_json::{Value, json};

use super::Bench;
use crate::support::Ran;

impl Bench {
    async fn snapshot(&self, args: &[&str]) -> Ran {
        let mut all = vec!["snapshot"];
        all.extend_from_slice(args);
        all.extend(["--out", "plan.json", "-o", "json"]);
        self.rig.run(&all).await
    }

    async fn allow(&self, more: &str) {
        let words = format!("create,grow,move,configure,power,snapshot,{more}");
        self.rig.run(&["scope", "set", "all", "--allow", &words]).await.ended(0);
    }

    fn runs(&self, vmid: u32) -> bool {
        self.world().read(|state| state.guests[&vmid].is_running())
    }
}

fn reasons(ran: &Ran) -> String {
    ran.rows()[0]["why"].to_string()
}

/// Seen failing with: a rollback that needs no approval; one that counts as done because the guest came from that snapshot before.
#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_taken_the_guest_broken_and_taken_back() {
    let bench = Bench::new().await;
    let before = bench.guests();
    bench.snapshot(&["take", "vm-100", "before", "--description", "hunter"]).await.ended(0);
    bench.apply(&[]).await.ended(0);
    let parent = |vmid: u32| bench.option(vmid, "parent");
    assert_eq!((parent(100), bench.tasks("qmsnapshot", 100)), ("before".to_owned(), 1));
    assert_eq!(bench.plan().await.rows(), Vec::<Value>::new(), "a snapshot is no difference");
    bench
        .snapshot(&["take", "vm-100", "before"])
        .await
        .ended(6)
        .says(&["vm-100 (guest 100): `name`", "already"]);
    bench.snapshot(&["take", "vm-100", "current"]).await.ended(6).says(&["`name`", "no name for a snapshot"]);
    bench.snapshot(&["take", "vm-105", "ram", "--memory"]).await.ended(6).says(&["`memory`", "does not run"]);
    bench.snapshot(&["take", "nobody", "x1"]).await.ended(10).says(&["no desired guest \"nobody\""]);

    bench.desire(&[(100, json!({ "tags": ["broken"], "net0": { "tag": 7 } }))]).await;
    bench.plan().await;
    bench.apply(&[]).await.ended(0);
    // What is final is allowed where a scope says so.
    bench
        .snapshot(&["rollback", "vm-100", "before"])
        .await
        .ended(6)
        .says(&["`scope`", "does not allow to restore-snapshot"]);
    bench.allow("restore-snapshot").await;
    bench.snapshot(&["rollback", "vm-100", "never"]).await.ended(6).says(&[
        "`name`",
        "no snapshot \"never\"",
        "before",
    ]);
    let ran = bench.snapshot(&["rollback", "vm-100", "before"]).await.ended(0);
    let told = reasons(&ran);
    for word in ["lost is all that was written", "cut off", "net0, tags"] {
        assert!(told.contains(word), "{told}");
    }
    bench.apply(&[]).await.ended(7).says(&["not approved", "back to a snapshot"]);
    assert_eq!(bench.option(100, "tags"), "broken;pvegraph");
    bench.rig.run(&["approve", "plan.json", "--by", "somebody"]).await.ended(0);
    bench.apply(&[]).await.ended(0);
    assert_eq!((bench.option(100, "tags"), bench.tasks("qmrollback", 100)), ("pvegraph".to_owned(), 1));
    assert!(bench.runs(100) && !bench.option(100, "net0").contains("tag=7"));
    bench.only_changed(&before, &[100]);
    // What is desired is another matter: the next plan would bring it again.
    assert_eq!(bench.plan().await.rows().len(), 1);

    // It comes from this snapshot already: what counts is the task.
    for (fault, code) in [
        (Some(Fault::LoseAnswer), 0),
        (Some(Fault::BareStatus { status: 596, reason: "Connection timed out".to_owned() }), 3),
    ] {
        // One that is made of the same in the same second is the same plan, and that was applied.
        tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
        bench.snapshot(&["rollback", "vm-100", "before"]).await.ended(0);
        bench.rig.run(&["approve", "plan.json", "--by", "somebody"]).await.ended(0);
        let path = "/nodes/pve1/qemu/100/snapshot/before/rollback";
        fault.map(|fault| bench.server.faults().add(FaultRule::at(path, fault).times(1)));
        bench.apply(&[]).await.ended(code);
    }
    assert_eq!(bench.tasks("qmrollback", 100), 2, "what nobody knows is not sent again");
    bench.rig.run(&["resume"]).await.ended(3);
    assert_eq!(bench.tasks("qmrollback", 100), 2);

    // With its memory it runs afterwards, whatever it did before.
    bench.snapshot(&["take", "vm-102", "ram", "--memory"]).await.ended(0);
    bench.apply(&[]).await.ended(0);
    bench.world().set_power(102, Power::Stopped).unwrap();
    let ran = bench.snapshot(&["rollback", "vm-102", "ram"]).await.ended(0);
    assert!(reasons(&ran).contains("it will run afterwards"), "{}", reasons(&ran));
    bench.rig.run(&["approve", "plan.json", "--by", "somebody"]).await.ended(0);
    bench.apply(&[]).await.ended(0);
    assert!(bench.runs(102));
    // A container has none.
    bench.snapshot(&["take", "ct-200", "before", "--memory"]).await.ended(6).says(&["`memory`", "container"]);

    // A branch: a new guest as this one was then.
    let branch = json!({ "uid": "branch", "name": "branch", "clone": { "from": 100, "full": true, "snapshot": "before" } });
    bench.desire_too(json!({ "vms": [branch] })).await;
    bench.desire(&[(100, json!({ "tags": [], "net0": { "tag": 8 } }))]).await;
    bench.plan().await;
    bench.apply(&[]).await.ended(0);
    assert!(
        bench.option(110, "net0").contains("bridge=vmbr0") && !bench.option(110, "net0").contains("tag=")
    );
    assert_eq!(bench.option(110, "description"), "[pvegraph:rig/branch]");
    assert_eq!(bench.plan().await.rows(), Vec::<Value>::new());
    bench.rig.run(&["audit", "verify"]).await.ended(0);
    bench.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn guests_become_templates_and_stay_it() {
    let bench = Bench::new().await;
    bench.world().set_power(201, Power::Stopped).unwrap();
    let before = bench.guests();
    let template = json!({ "template": true });
    bench.import(&[(105, template.clone())], &[(201, template.clone())]).await;
    bench.rig.run(&["plan"]).await.ended(6).says(&["`scope`", "does not allow to template"]);
    bench.allow("template").await;
    bench.plan().await;
    // Nothing makes a template a guest again.
    bench.apply(&[]).await.ended(7).says(&["not approved", "makes one a template"]);
    bench.only_changed(&before, &[]);
    bench.rig.run(&["approve", "plan.json", "--by", "somebody"]).await.ended(0);
    bench.apply(&[]).await.ended(0);
    assert_eq!(
        (bench.option(105, "template"), bench.option(201, "template")),
        ("1".to_owned(), "1".to_owned())
    );
    assert!(bench.option(105, "scsi0").contains("base-105-disk-0"));
    let bound = bench.binding("ct-201").await;
    assert!(bench.option(201, "rootfs").starts_with(bound["fingerprint"].as_str().unwrap()), "{bound}");
    bench.only_changed(&before, &[105, 201]);
    assert_eq!(bench.plan().await.rows(), Vec::<Value>::new());
    bench.snapshot(&["take", "vm-105", "before"]).await.ended(6).says(&["`template`", "no snapshots"]);

    // Neither one that runs nor one with snapshots.
    bench.desire(&[(100, template.clone())]).await;
    bench.rig.run(&["plan"]).await.ended(6).says(&["vm-100 (guest 100): `template`", "stop it first"]);
    bench.desire(&[(100, json!({}))]).await;
    bench.snapshot(&["take", "vm-107", "before"]).await.ended(0);
    bench.apply(&[]).await.ended(0);
    bench.desire(&[(107, template)]).await;
    bench.rig.run(&["plan"]).await.ended(6).says(&["vm-107 (guest 107): `template`", "has snapshots"]);
    bench.server.shutdown().await;
}

/// Seen failing with: an option that nobody hands on.
#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_taken_before_a_restart_where_it_is_asked_for() {
    let bench = Bench::new().await;
    bench.desire(&[(100, json!({ "cores": 4, "reboot": "allow" })), (101, json!({ "tags": ["web"] }))]).await;
    let names = |vmid: u32| -> Vec<String> {
        let of = |guest: &pve_sim::Guest| guest.snapshots.iter().map(|one| one.name.clone()).collect();
        bench.world().read(|state| of(&state.guests[&vmid]))
    };
    bench.rig.run(&["plan", "--snapshot-before", "--out", "plan.json"]).await.ended(0);
    bench.apply(&[]).await.ended(0);
    let taken = names(100);
    assert!(taken.len() == 1 && taken[0].starts_with("before-") && taken[0].len() == 15, "{taken:?}");
    assert!(names(101).is_empty());
    assert_eq!((bench.option(100, "cores").as_str(), bench.option(101, "tags").contains("web")), ("4", true));
    bench.rig.run(&["plan", "--exit-code"]).await.ended(0);
    bench.server.shutdown().await;
}
