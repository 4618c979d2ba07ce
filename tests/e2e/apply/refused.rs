//! Plans that may not be gone by any more: refused before anything is sent, with guest and mend, and nothing is changed.

use std::fs;

use pvegraph_reconcile::plan::Plan;
use serde_json::json;

use super::Bench;

/// Seen failing with: an approval whose end nobody looks at.
#[tokio::test(flavor = "multi_thread")]
async fn an_approval_that_expired_and_a_plan_that_is_stale_are_refused() {
    let bench = Bench::new().await;
    bench.desire(&[(100, json!({ "tags": ["one"] }))]).await;
    bench.plan().await;
    let before = bench.guests();
    bench.rig.run(&["approve", "plan.json", "--by", "kim"]).await.ended(0);
    let expire = "MATCH (p:Plan) WHERE p.approver = 'kim' SET p.approval_expires_at = p.approved_at - 60";
    bench.db().cypher(expire, json!({})).await;
    let words = ["the approval of plan", "by kim expired", "approve it again", "nothing was changed"];
    bench.rig.run(&["apply", "plan.json"]).await.ended(7).says(&words);

    let path = bench.rig.dir.path().join("plan.json");
    let text = fs::read_to_string(&path).unwrap();
    let made: serde_json::Value = serde_json::from_str(&text).unwrap();
    let mut old = Plan::from_file(&text, made["plan"]["made_at"].as_i64().unwrap()).unwrap();
    (old.made_at, old.expires_at) = (1_000, 4_600);
    fs::write(&path, old.to_file()).unwrap();
    bench.apply(&[]).await.ended(7).says(&["plan.json", "stale", "plan again"]);
    assert_eq!(bench.guests(), before);

    fs::write(&path, text).unwrap();
    bench.rig.run(&["approve", "plan.json", "--by", "kim"]).await.ended(0);
    bench.rig.run(&["apply", "plan.json"]).await.ended(0);
    bench.only_changed(&before, &[100]);
    bench.server.shutdown().await;
}

/// Seen failing with: a look before the call that finds nothing to say, and tells no mend.
#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_is_gone_since_the_plan_is_not_made_anew() {
    let bench = Bench::new().await;
    bench.desire(&[(100, json!({ "tags": ["one"] }))]).await;
    bench.plan().await;
    bench.world().remove_guest(100).unwrap();
    let before = bench.guests();
    bench.apply(&[]).await.ended(7).says(&["vm-100", "gone", "plan again"]);
    bench.rig.run(&["plan"]).await.ended(6).says(&[
        "vm-100 (guest 100): `guest`",
        "is gone",
        "pvegraph release vm-100",
    ]);
    assert_eq!(bench.guests(), before);
    bench.server.shutdown().await;
}
