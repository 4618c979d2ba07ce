//! 2: a 500, a time-out, a truncated answer and a 403 at every question that a sync asks: the first time, in the middle, at the
//! end.
//!
//! Each case begins with a graph that is as the world, changes the world, and has one question fail from some request on. The
//! graph then has to be, value by value, the one before with exactly those changes that were still seen, and what was seen has to
//! bear the run's stamp. A next run, with all answered and the world as it was, has to lead back.
//!
//! Unknown errors and refusals go through the program. Time-outs and truncated answers are repeated for a quarter of a minute
//! there; so they run in this process, with a client that has less patience, and once each through the program.
//!
//! Seen failing with: a listing of machines that failed taken for an empty one.

use std::collections::BTreeMap;

use pve_sim::{Fault, FaultRule};
use pvegraph_graph::lease::Holder;
use pvegraph_inventory::Completeness;
use pvegraph_sync::history::Retention;
use pvegraph_sync::run::{ClusterError, Options, Silent, Target, run};
use pvegraph_sync::sweep::Guard;

use super::endpoints::{Failing, Place, expected, of_confirmation, question, questions};
use super::estate::{CHANGES, Change, Estate, Flat, differences, flat, with_changes};

/// The program's exit code of a run inside this process, by the table in `docs/operations.md`.
async fn exit_of_a_run(it: &Estate) -> i32 {
    let targets = [Target { name: Some("rig".parse().unwrap()), client: it.client() }];
    let options = Options {
        dry_run: false,
        guard: Guard::default(),
        offline_is_partial: true,
        accept_new_authority: Vec::new(),
        holder: Holder { name: "honesty".to_owned(), lock: None },
        history: Retention::default(),
    };
    let mut outcome = run(&it.store, &targets, &options, &Silent).await.unwrap();
    match outcome.remove(0) {
        Ok(report) if report.blocked.is_some() => 6,
        Ok(report) if report.completeness >= Completeness::Partial => 3,
        Ok(_) => 0,
        Err(ClusterError::Api { source, .. }) if source.is_forbidden() || source.is_unauthorized() => 12,
        Err(ClusterError::Api { source, .. }) if source.status().is_none() => 13,
        Err(error) => {
            println!("{error:?}");
            1
        }
    }
}

async fn exit_of_the_program(it: &Estate) -> i32 {
    let ran = it.rig.run(&["sync", "-o", "json"]).await;
    assert!(!ran.err.contains("panicked"), "{}", ran.err);
    ran.code.unwrap()
}

fn fault(failing: Failing) -> Fault {
    let status = |status: u16, reason: &str| Fault::Status { status, reason: reason.to_owned() };
    match failing {
        Failing::Unknown500 => status(500, "something nobody has seen"),
        Failing::TimeOut => Fault::Hang,
        Failing::Truncated => Fault::Truncate(5),
        Failing::Forbidden => status(403, "Permission check failed"),
    }
}

/// What a run asks when the world has changed: the requests to each question, in the order of their paths.
async fn asked(it: &Estate) -> BTreeMap<String, Vec<Place>> {
    let before = it.server.counters().by_path();
    assert_eq!(exit_of_the_program(it).await, 0);
    let mut asked: BTreeMap<String, Vec<Place>> = BTreeMap::new();
    for (path, count) in it.server.counters().by_path() {
        let count = count - before.get(&path).copied().unwrap_or_default();
        let places = asked.entry(question(&path)).or_default();
        places.extend((0..count).map(|after| Place { path: path.clone(), after }));
    }
    asked.retain(|_, places| !places.is_empty());
    asked
}

/// The first, the middle and the last of them.
fn three(places: &[Place]) -> Vec<Place> {
    let mut three =
        vec![places[0].clone(), places[places.len() / 2].clone(), places[places.len() - 1].clone()];
    three.dedup();
    three
}

/// What a case needs to know of the estate without faults.
struct Known {
    places: Vec<Place>,
    /// The graph before the changes, and after all of them.
    old: Flat,
    new: Flat,
}

/// Learns what a sync asks, and sees that every question is listed and every listed one is asked.
async fn learn(it: &Estate) -> Known {
    let old = flat(&it.whole().await);
    it.change();
    let asked = asked(it).await;
    let new = flat(&it.whole().await);
    assert_eq!(asked.keys().map(String::as_str).collect::<Vec<_>>(), questions());
    assert!(it.recorded().await.incomplete().is_empty());
    // Every difference is one of the changes, and each of them makes one.
    assert_eq!(differences(&new, &with_changes(&old, &new, &[])), [""; 0]);
    for change in CHANGES.iter().filter(|change| crate::support::LABELS.contains(&label(**change))) {
        assert_ne!(differences(&new, &with_changes(&old, &new, &[*change])), [""; 0], "{change:?}");
    }
    Known { places: asked.values().flat_map(|places| three(places)).collect(), old, new }
}

fn label(change: Change) -> &'static str {
    match change {
        Change::Guest | Change::Name => "ProxmoxVM",
        Change::Disk => "ProxmoxDisk",
        Change::Snapshot => "ProxmoxSnapshot",
        Change::Job => "ProxmoxBackupJob",
        Change::Storage => "ProxmoxStorage",
    }
}

/// What a thing that went and came again has anew.
fn without_first_seen(graph: &Flat) -> Flat {
    let kept = graph.iter().filter(|(key, _)| !key.ends_with(" firstseen"));
    kept.map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// One case. Gives what is wrong, so that a run tells all that is.
async fn case(
    it: &Estate,
    known: &Known,
    place: &Place,
    failing: Failing,
    program: bool,
) -> Result<(), String> {
    // As the world was, all answered: this also sees that the case before left nothing behind.
    it.restore();
    assert_eq!(exit_of_a_run(it).await, 0, "before {failing:?} {place:?}");
    let whole = it.whole().await;
    let before = flat(&whole);
    let left = differences(&without_first_seen(&known.old), &without_first_seen(&before));
    assert_eq!(left, [""; 0], "before {failing:?} {place:?}");

    it.change();
    it.server.faults().add(FaultRule::at(&place.path, fault(failing)).after(place.after));
    let exit = if program { exit_of_the_program(it).await } else { exit_of_a_run(it).await };
    it.server.faults().clear();
    let after_whole = it.whole().await;
    let after = flat(&after_whole);
    let recorded = it.recorded().await;

    let mut wrong = Vec::new();
    let mut expected = expected(place, failing);
    if exit != expected.exit {
        wrong.push(format!("exit code {exit} in place of {}", expected.exit));
    }
    if expected.refused {
        if after_whole != whole {
            wrong.push("a run that failed has written".to_owned());
        }
        if (recorded.status.as_str(), recorded.reason.is_some()) != ("failed", true) {
            wrong.push(format!("recorded as {recorded:?}"));
        }
        return if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n  ")) };
    }
    let incomplete = recorded.incomplete();
    if place.path == "/access/permissions" && place.after > 1 && incomplete.len() == 1 {
        expected = of_confirmation(expected, &incomplete);
    }
    if incomplete != expected.scopes {
        wrong.push(format!("scopes {incomplete:?} in place of {:?}", expected.scopes));
    }
    let wanted = with_changes(&before, &known.new, &expected.held);
    wrong.extend(differences(&wanted, &after).into_iter().take(12));
    // What was seen has the run's stamp; what was not has its old one, and says since when.
    for (label, nodes) in after_whole.iter().filter(|(_, nodes)| nodes.iter().all(|n| !n.contains_key("to")))
    {
        for node in nodes {
            let id = &node["id"];
            let held = expected.held.iter().any(|change| {
                *change != Change::Name && change.has(&format!("{label} {}", id.as_str().unwrap()))
            });
            let unseen = held || expected.unseen.iter().any(|unseen| unseen.has(label, node));
            let fresh = node["lastupdated"].as_i64() == Some(recorded.tag);
            if fresh == unseen {
                wrong.push(format!("{label} {id}: seen {fresh}, to be seen {}", !unseen));
            }
            if fresh == node.contains_key("stale_since") {
                wrong.push(format!(
                    "{label} {id}: fresh {fresh}, and stale since {:?}",
                    node.get("stale_since")
                ));
            }
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n  ")) }
}

/// All places, failing in this way.
async fn everywhere(failing: Failing, program: bool) {
    let it = Estate::new().await;
    let known = learn(&it).await;
    let mut wrong = Vec::new();
    for place in &known.places {
        if let Err(what) = case(&it, &known, place, failing, program).await {
            wrong.push(format!("{failing:?} {place:?}:\n  {what}"));
        }
    }
    println!("{failing:?}: {} places", known.places.len());
    assert!(wrong.is_empty(), "{} of {} places:\n{}", wrong.len(), known.places.len(), wrong.join("\n"));
    it.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn item_2_an_unknown_500_anywhere_hides_only_what_it_hides() {
    everywhere(Failing::Unknown500, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn item_2_a_403_anywhere_hides_only_what_it_hides() {
    everywhere(Failing::Forbidden, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn item_2_a_time_out_anywhere_hides_only_what_it_hides() {
    everywhere(Failing::TimeOut, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn item_2_a_truncated_answer_anywhere_hides_only_what_it_hides() {
    everywhere(Failing::Truncated, false).await;
}

/// The program's own patience: it repeats for a quarter of a minute, and then does the same.
#[tokio::test(flavor = "multi_thread")]
async fn item_2_the_program_gives_up_a_question_that_is_never_answered() {
    let mut it = Estate::new().await;
    it.rig.cluster_lines("request_timeout = \"1s\"\n");
    let known = learn(&it).await;
    let path = "/nodes/pve2/qemu/202/config".to_owned();
    let place = Place { path, after: 0 };
    for failing in [Failing::TimeOut, Failing::Truncated] {
        if let Err(what) = case(&it, &known, &place, failing, true).await {
            panic!("{failing:?} {place:?}:\n  {what}");
        }
    }
    it.server.shutdown().await;
}
