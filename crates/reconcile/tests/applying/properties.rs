//! What holds of every estate: a plan that was carried out leaves nothing to plan, nobody else's guest is touched, and nothing is
//! deleted without every key. Estates shrink to the smallest that breaks it.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use pvegraph_reconcile::apply::Outcome;
use pvegraph_reconcile::document::Policy;
use pvegraph_reconcile::plan::{Action, Ask, Plan, Remark};
use serde_json::json;

use crate::estates::{Estate, Later, estates, vmid, wrong};
use crate::rig::Rig;

/// The guest that a remark is about; none where it is about the estate or a scope.
fn about(rig: &Rig, remark: &Remark) -> Option<String> {
    let uid = remark.subject.split(" (guest ").next().unwrap_or_default();
    rig.desired.guests.contains_key(uid).then(|| uid.to_owned())
}

/// Lets a guest be watched only, as somebody does whom a plan tells that it can't be.
fn watch_only(rig: &mut Rig, uid: &str) {
    rig.desired.guests.get_mut(uid).unwrap().policy = Policy::Observe;
    rig.consent.delete.remove(uid);
}

/// A plan that nothing forbids: guests that forbid it, or are too many, are watched only.
async fn unblocked(rig: &mut Rig) -> Plan {
    loop {
        let plan = rig.plan().await;
        if plan.blocked.is_empty() {
            return plan;
        }
        let mut named: BTreeSet<String> =
            plan.blocked.iter().filter_map(|remark| about(rig, remark)).collect();
        if named.is_empty() {
            named.extend(plan.operations.last().map(|operation| operation.uid.clone()));
        }
        assert!(!named.is_empty(), "nothing can be done about it: {:?}", plan.blocked);
        for uid in named {
            assert_eq!(rig.desired.guests[&uid].policy, Policy::Manage, "{:?}", plan.blocked);
            watch_only(rig, &uid);
        }
    }
}

/// Carries a plan out. `touched`: the guests of its operations are added.
async fn carry_out(rig: &mut Rig, plan: &Plan, touched: &mut BTreeSet<String>) -> Result<(), String> {
    touched.extend(plan.operations.iter().map(|operation| operation.uid.clone()));
    let outcomes = rig.apply(plan).await;
    rig.noted();
    match outcomes.iter().find(|outcome| !matches!(outcome, Outcome::Done { .. })) {
        Some(other) => Err(format!("{other:?} of {:?}", plan.operations)),
        None => Ok(()),
    }
}

/// Plans and carries out until there is nothing to do. A next plan is empty but for guests of which something was postponed, and only these
/// may be blocked then.
/// The guests of which something is still postponed.
async fn converge(rig: &mut Rig, touched: &mut BTreeSet<String>) -> Result<BTreeSet<String>, String> {
    let mut plan = unblocked(rig).await;
    let mut rounds = 0;
    while !plan.operations.is_empty() {
        // A move and then its options; a copy of a copy of a copy.
        if rounds > 4 {
            return Err(format!("there is always something to do: {:?}", plan.operations));
        }
        carry_out(rig, &plan, touched).await?;
        rounds += 1;
        let next = rig.plan().await;
        let postponed: BTreeSet<String> =
            plan.postponed.iter().filter_map(|remark| about(rig, remark)).collect();
        let does = |operation: &&pvegraph_reconcile::plan::Operation| !postponed.contains(&operation.uid);
        if let Some(operation) = next.operations.iter().find(does) {
            return Err(format!("the next plan is not empty: {operation:?} after {:?}", plan.operations));
        }
        if let Some(remark) =
            next.blocked.iter().find(|remark| about(rig, remark).is_none_or(|uid| !postponed.contains(&uid)))
        {
            return Err(format!("the next plan is blocked: {remark} after {:?}", plan.operations));
        }
        plan = unblocked(rig).await;
    }
    Ok(plan.postponed.iter().filter_map(|remark| about(rig, remark)).collect())
}

/// A snapshot is taken of a guest that is as desired, and perhaps gone back to after somebody changed it: neither makes a difference.
async fn kept(rig: &mut Rig, later: Later, touched: &mut BTreeSet<String>) -> Result<(), String> {
    let managed = rig.desired.guests.values().filter(|guest| {
        guest.policy == Policy::Manage && !guest.tombstone && rig.bindings.contains_key(&guest.uid)
    });
    let uids: Vec<String> = managed.map(|guest| guest.uid.clone()).collect();
    let Some(uid) = uids.get(later.guest) else { return Ok(()) };
    if let Some(vmid) = rig.bindings.get(uid).map(|binding| binding.vmid) {
        rig.desired.guests.get_mut(uid).unwrap().vmid = Some(vmid);
    }
    let name = "later".to_owned();
    let plan = rig.asked(uid, &Ask::Take { name: name.clone(), memory: false, description: None }).await;
    if !plan.blocked.is_empty() {
        return Ok(());
    }
    let outcomes = rig.apply(&plan).await;
    touched.insert(uid.clone());
    match &*outcomes {
        [Outcome::Done { .. }] => {}
        // Proxmox VE alone knows of which images its storages take any.
        [Outcome::Failed { reason, .. }] if reason.contains("snapshot feature is not available") => {
            return Ok(());
        }
        other => return Err(format!("{other:?} of {:?}", plan.operations)),
    }
    if later.back {
        let number = u32::try_from(rig.desired.guests[uid].vmid.unwrap()).unwrap();
        rig.world().set_config(number, "onboot", 1).unwrap();
        let plan = rig.asked(uid, &Ask::Rollback { name, config: None }).await;
        if plan.blocked.is_empty() {
            carry_out(rig, &plan, touched).await?;
        }
    }
    let next = rig.plan().await;
    let moved = |remark: &Remark| !remark.text.contains("snapshot");
    if !later.back && !next.operations.is_empty() || next.blocked.iter().any(moved) {
        return Err(format!("after a snapshot: {:?} {:?}", next.operations, next.blocked));
    }
    Ok(())
}

/// Is all that is managed, and of which nothing is postponed, as it is desired?
fn as_desired(rig: &Rig, estate: &Estate, postponed: &BTreeSet<String>) -> Result<(), String> {
    let there = estate.guests.iter().enumerate().filter(|(_, one)| one.managed && !one.doom.tombstone);
    let there = there.map(|(at, one)| (one.uid(at), one.is.machine, &one.wants, &one.placed));
    let made = estate.made.iter().enumerate();
    let made = made.map(|(at, new)| (Estate::new_uid(at), estate.is_machine(at), &new.wants, &new.placed));
    for (uid, machine, wants, placed) in there.chain(made) {
        if rig.desired.guests[&uid].policy == Policy::Observe || postponed.contains(&uid) {
            continue;
        }
        let number = u32::try_from(rig.bindings[&uid].vmid).unwrap();
        if let Some(field) = rig.world().read(|state| wrong(&state.guests[&number], machine, wants, placed)) {
            return Err(format!("{uid} ({number}) is not as desired: {field}"));
        }
    }
    Ok(())
}

async fn check(estate: &Estate) -> Result<bool, String> {
    let one_by_one = || estate.guests.iter().enumerate();
    let mut rig = Rig::new(one_by_one().map(|(at, one)| one.spec(at)).collect()).await;
    one_by_one().for_each(|(at, one)| one.finish(rig.world(), at));
    rig.bind().await;
    rig.scopes[0].max_deletes = estate.max_deletes;
    rig.scopes[0].allow.extend([Action::Template, Action::RestoreSnapshot]);
    if estate.allows_destroy {
        rig.scopes[0].allow.insert(Action::Destroy);
    }
    let managed = || one_by_one().filter(|(_, one)| one.managed);
    let (mut vms, mut containers) = (Vec::new(), Vec::new());
    let entries = managed().map(|(at, one)| (one.is.machine, one.entry(at)));
    for (machine, entry) in entries.chain((0..estate.made.len()).map(|at| estate.new_entry(at))) {
        if machine { vms.push(entry) } else { containers.push(entry) }
    }
    // One guest in ten may go down: these are only watched, and not there.
    vms.extend((800..850).map(|vmid| json!({ "vmid": vmid, "policy": "observe" })));
    rig.desire(vms, containers);
    rig.consent.delete = managed()
        .filter(|(_, one)| one.doom.consent && one.doom.tombstone)
        .map(|(at, one)| one.uid(at))
        .collect();
    let before = rig.guests();
    let mut touched = BTreeSet::new();
    let mut postponed = converge(&mut rig, &mut touched).await?;
    if let Some(later) = estate.later {
        kept(&mut rig, later, &mut touched).await?;
        postponed = converge(&mut rig, &mut touched).await?;
    }
    let after = rig.guests();
    let is_managed =
        |uid: &str| rig.desired.guests.get(uid).is_some_and(|guest| guest.policy == Policy::Manage);
    for (at, one) in one_by_one() {
        let (number, uid) = (vmid(at), one.uid(at));
        if !(one.managed && touched.contains(&uid)) && before.get(&number) != after.get(&number) {
            return Err(format!("{number} was touched: {:?} {:?}", before.get(&number), after.get(&number)));
        }
        let keys = is_managed(&uid) && one.doom.all() && estate.allows_destroy && !one.is.runs && !one.is.ha;
        if !after.contains_key(&number) && !keys {
            return Err(format!("{number} is gone"));
        }
    }
    let gone = before.keys().filter(|number| !after.contains_key(number)).count();
    if i64::try_from(gone).unwrap() > estate.max_deletes {
        return Err(format!("{gone} are gone"));
    }
    as_desired(&rig, estate, &postponed)?;
    let new = after.keys().filter(|number| !before.contains_key(number)).count();
    let wanted = (0..estate.made.len()).filter(|at| is_managed(&Estate::new_uid(*at))).count();
    if new != wanted {
        return Err(format!("{new} guests are new, and {wanted} were desired"));
    }
    rig.server.shutdown().await;
    Ok(!touched.is_empty())
}

/// At once: most of an estate's time is spent waiting.
const AT_ONCE: u32 = 4;

/// Goes through so many estates, and answers how many of them had something to do.
fn some(seed: u64, cases: u32) -> Result<usize, String> {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 300, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let carried_out = std::cell::Cell::new(0);
    let result = runner.run(&estates(), |estate| {
        match runtime.block_on(check(&estate)) {
            Ok(yes) => carried_out.set(carried_out.get() + usize::from(yes)),
            Err(why) => return Err(TestCaseError::fail(why)),
        }
        Ok(())
    });
    result.map(|()| carried_out.get()).map_err(|error| error.to_string())
}

/// Seen failing with: a deletion that does not ask whether the guest is protected; a volume that goes to a storage of its node before its guest leaves
/// it.
#[test]
fn a_plan_carried_out_leaves_nothing_to_plan_and_nobody_elses_guest_is_touched() {
    let soak = std::env::var("PVEGRAPH_SOAK").is_ok_and(|value| value == "1");
    let seed: u64 = match std::env::var("PVEGRAPH_TEST_SEED") {
        Ok(seed) => seed.parse().unwrap(),
        Err(_) => std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs(),
    };
    println!("PVEGRAPH_TEST_SEED={seed}");
    let cases = if soak { 3000 } else { 240 };
    let carried_out: usize = std::thread::scope(|scope| {
        let begin =
            |number: u32| scope.spawn(move || some(seed + u64::from(number) * 1_000_003, cases / AT_ONCE));
        let all: Vec<_> = (0..AT_ONCE).map(begin).collect();
        all.into_iter()
            .map(|one| one.join().unwrap().unwrap_or_else(|error| panic!("seed {seed}: {error}")))
            .sum()
    });
    println!("carried out: {carried_out} of {cases}");
    assert!(carried_out * 2 > cases as usize, "most plans were blocked");
}
