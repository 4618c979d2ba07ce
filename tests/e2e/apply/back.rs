//! The way back from a run, as a plan of its own.

use std::fs;

use serde_json::{Value, json};

use super::Bench;

/// Seen failing with: a way back that does not know what was done.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_brought_back_by_its_plan_or_its_name() {
    let bench = Bench::new().await;
    let before = bench.guests();
    let rows = || Vec::<Value>::new();
    assert_eq!(bench.plan().await.rows(), rows());
    bench.apply(&[]).await.ended(0);

    bench
        .desire(&[
            (100, json!({ "name": "web", "tags": ["a"], "net0": { "tag": 5 } })),
            (105, json!({ "cores": 4 })),
        ])
        .await;
    bench.plan().await;
    let never = bench.rig.run(&["rollback", "plan.json", "--out", "back.json"]).await;
    never.ended(10).says(&["never applied"]);
    bench.apply(&[]).await.ended(0);
    let ran = bench.rig.run(&["rollback", "plan.json", "--out", "back.json", "-o", "json"]).await.ended(0);
    assert_eq!(ran.rows().len(), 2);
    bench.rig.run(&["apply", "back.json"]).await.ended(7).says(&["not approved"]);
    bench.rig.run(&["approve", "back.json", "--by", "kim"]).await.ended(0);
    bench.rig.run(&["apply", "back.json"]).await.ended(0);
    assert_eq!(bench.guests(), before);
    // What is desired is still desired.
    assert_eq!(bench.plan().await.rows().len(), 2);

    // By the name of the run; what does not come back is refused, or left out.
    bench.desire(&[(100, json!({ "name": "web", "scsi0": { "size": "9G" } })), (105, json!({}))]).await;
    bench.plan().await;
    bench.apply(&[]).await.ended(0);
    let mut runs: Vec<_> =
        fs::read_dir(bench.state().join("runs")).unwrap().map(|run| run.unwrap().path()).collect();
    runs.sort_by_key(|path| fs::metadata(path).unwrap().modified().unwrap());
    let run = runs.last().unwrap().file_stem().unwrap().to_str().unwrap().to_owned();
    let args = ["rollback", &run, "--out", "back.json", "-o", "json"];
    bench.rig.run(&args).await.ended(6).says(&["vm-100", "larger", "--partial"]);
    bench.rig.run(&["apply", "back.json", "--auto-approve"]).await.ended(6);
    let ran = bench.rig.run(&[&args[..], &["--partial"]].concat()).await.ended(0);
    assert_eq!(ran.rows().len(), 1);
    bench.rig.run(&["apply", "back.json", "--auto-approve"]).await.ended(0);
    assert_eq!(bench.option(100, "name"), "machine100");
    assert!(bench.option(100, "scsi0").contains("size=9G"));
    bench.rig.run(&["rollback", "nothing"]).await.ended(10).says(&["neither a plan"]);
    bench.server.shutdown().await;
}
