//! Policies: asked in read mode about the estate as it would be after the plan.

use std::fs;

use serde_json::json;

use super::plans::{desire, managed, plan};
use super::whole;
use crate::on_both_stores;
use crate::support::{Graph, Rig};

async fn a_policy_vetoes_the_estate_as_it_would_be(graph: &Graph) {
    let (server, rig, _) = managed(graph).await;
    let before = whole(&server);
    for name in ["anti-affinity", "n-plus-one-memory"] {
        rig.run(&["policy", "import", name]).await.ended(0);
    }
    let rows = rig.run(&["policy", "list", "-o", "json"]).await.ended(0).rows();
    assert_eq!(rows.iter().filter(|row| row["asked"] == true).count(), 2);

    // On one node as they are, and not after the plan.
    desire(&rig, &[(500, json!({ "anti_affinity": ["vm-501"], "node": "pve2" }))]).await;
    let ran = plan(&rig, 0, &[]).await;
    let file: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(rig.dir.path().join("plan.json")).unwrap()).unwrap();
    assert_eq!(file["plan"]["policies"].as_object().unwrap().len(), 2, "{}", ran.out);
    desire(&rig, &[(500, json!({ "node": null, "name": "new" }))]).await;
    plan(&rig, 6, &[]).await.says(&[
        "policy anti-affinity",
        "guest vm-500, other vm-501, node pve1",
        "desire another node of one of the two",
    ]);
    // Stopped ones share a node without harm.
    desire(&rig, &[(500, json!({ "state": "stopped" }))]).await;
    plan(&rig, 0, &[]).await;

    // More memory than the others have left when a node is lost.
    desire(&rig, &[(500, json!({ "state": "running", "anti_affinity": [], "memory": 4_000_000 }))]).await;
    plan(&rig, 6, &[]).await.says(&["policy n-plus-one-memory", "lost_node pve1", "bytes_needed"]);
    rig.run(&["policy", "remove", "n-plus-one-memory"]).await.ended(0);
    plan(&rig, 0, &[]).await;
    assert_eq!(whole(&server), before);
    server.shutdown().await;
}
on_both_stores!(vetoes => a_policy_vetoes_the_estate_as_it_would_be);

fn policy(rig: &Rig, text: &str) {
    fs::write(rig.dir.path().join("p.cypher"), text).unwrap();
}

async fn a_policy_that_fails_denies_and_one_that_warns_is_shown(graph: &Graph) {
    let (server, rig, _) = managed(graph).await;
    desire(&rig, &[(500, json!({ "name": "new" }))]).await;
    for (text, code, words) in [
        ("RETURN 1", 10, &["p.cypher", "`// name:`"][..]),
        ("// name: p\nRETURN nothing", 1, &["refused a statement"]),
        ("// name: p\nCREATE (n:Hunted) RETURN n", 1, &["only reading is allowed"]),
    ] {
        policy(&rig, text);
        rig.run(&["policy", "import", "p.cypher"]).await.ended(code).says(words);
        assert_eq!(rig.nodes("Policy").await.len(), 0);
    }
    rig.run(&["policy", "import", "absent"])
        .await
        .ended(10)
        .says(&["absent", "anti-affinity, n-plus-one-memory"]);

    let header = "// name: p\n// mend: think\n";
    policy(
        &rig,
        &format!(
            "{header}// severity: warn\nUNWIND $operations AS op RETURN op.uid AS guest, op.action AS action"
        ),
    );
    rig.run(&["policy", "import", "p.cypher"]).await.ended(0);
    let ran = plan(&rig, 0, &[]).await.says(&["policy p", "guest vm-500, action configure: think"]);
    assert_eq!(ran.json()["warnings"].as_array().unwrap().len(), 2);

    // It worked with nothing, and does not with the plan: that denies, whatever its severity.
    let bad = "// severity: warn\nUNWIND $operations AS op WITH op WHERE op.number / (op.number - op.number) > 0 RETURN op.uid AS uid";
    policy(&rig, &format!("{header}{bad}"));
    rig.run(&["policy", "import", "p.cypher"]).await.ended(0);
    if let Graph::Neo4j(_) = graph {
        plan(&rig, 6, &[]).await.says(&["policy p", "could not be asked, which denies", "policy remove p"]);
    }
    // Nothing is asked about a plan of nothing.
    desire(&rig, &[(500, json!({ "name": "web500" }))]).await;
    rig.run(&["plan", "--exit-code"]).await.ended(0);
    server.shutdown().await;
}
on_both_stores!(failing => a_policy_that_fails_denies_and_one_that_warns_is_shown);

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_by_hand_is_checked_and_never_passed_over() {
    let db = pvegraph_testkit::emptied().await;
    let (server, rig, _) = managed(&Graph::Neo4j((*db).clone())).await;
    desire(&rig, &[(500, json!({ "name": "new" }))]).await;
    for (hand, words) in [
        (
            "CREATE (:Policy {cluster_id: 'rig', name: 'p', cypher: 'RETURN 1', severity: 'denny'})",
            vec!["policy p", "`severity`"],
        ),
        ("CREATE (:Policy {cluster_id: 'rig', name: 'p', severity: 'deny'})", vec!["policy p", "`cypher`"]),
        (
            "CREATE (:ManagedScope {cluster_id: 'rig', name: 's', vmid_min: 600, vmid_max: 700, allow: ['destory']})",
            vec!["scope s", "`allow`"],
        ),
        (
            "CREATE (:ManagedScope {cluster_id: 'rig', name: 's', vmid_min: 550, vmid_max: 700})",
            vec!["in common"],
        ),
        (
            "CREATE (:ManagedScope {cluster_id: 'rig', name: 's', vmid_min: 600})",
            vec!["scope s", "`vmid_max`"],
        ),
    ] {
        db.cypher(hand, json!({})).await;
        plan(&rig, 10, &[]).await.says(&words);
        db.cypher("MATCH (n) WHERE n:Policy OR n.name = 's' DETACH DELETE n", json!({})).await;
    }
    // One that writes is refused by the store, and denies.
    let hand = "CREATE (:Policy {cluster_id: 'rig', name: 'p', cypher: 'CREATE (n:Hunted) RETURN n', severity: 'warn'})";
    db.cypher(hand, json!({})).await;
    plan(&rig, 6, &[]).await.says(&["policy p", "which denies", "only reading is allowed"]);
    assert_eq!(rig.nodes("Hunted").await.len(), 0);
    // One that does not end in its time denies.
    let hand = "MATCH (p:Policy) SET p.cypher = 'UNWIND range(1, 1000000) AS a UNWIND range(1, 1000000) AS b RETURN count(*)'";
    db.cypher(hand, json!({})).await;
    plan(&rig, 6, &[]).await.says(&["policy p", "which denies"]);
    server.shutdown().await;
}
