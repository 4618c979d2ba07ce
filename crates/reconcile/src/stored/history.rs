//! Plans and runs in the graph: what was to be done, by whose word it was, and what came of it. The journal stays the truth.

use std::collections::BTreeMap;

use pvegraph_graph::Statement;
use pvegraph_graph::cypher::Writer;
use pvegraph_graph::desired_labels::{
    AFFECTS, AFFECTS_GUEST, DESIRED_VM, DID, HAS_OP, OF_PLAN, PLAN, PLAN_OP, RUN, Row,
};
use pvegraph_graph::labels::{Label, NodeRow, RelationshipRow};
use serde_json::{Map, Value, json};

use super::write::{keyed, row};
use crate::apply::{Ended, Outcome};
use crate::desired::Desired;
use crate::plan::Plan;

/// A row that leaves alone what it does not name.
pub(super) fn part(label: &Label<Row>, named: &Row) -> NodeRow {
    let mut whole = row(label, named);
    whole.set.retain(|name, _| named.0.contains_key(name));
    whole
}

/// The plan and its operations. Its approval stays as it is.
pub(super) fn plan(writer: &Writer<'_>, plan: &Plan, desired: &Desired) -> Vec<Statement> {
    let sha256 = json!(plan.sha256());
    let whole = keyed(&[
        ("sha256", sha256.clone()),
        ("generation", json!(plan.generation)),
        ("made_at", json!(plan.made_at)),
        ("expires_at", json!(plan.expires_at)),
        ("operations", json!(plan.operations.len())),
        ("restarts", json!(plan.restarts)),
        ("deletes", json!(plan.deletes)),
        ("blast", json!(plan.blast)),
    ]);
    let mut numbers: BTreeMap<&str, i64> =
        desired.guests.values().filter_map(|guest| Some((guest.uid.as_str(), guest.vmid?))).collect();
    numbers.extend(plan.operations.iter().map(|op| (op.uid.as_str(), op.vmid)));
    let (mut operations, mut has) = (Vec::new(), Vec::new());
    let (mut affects, mut guests) = (Vec::new(), Vec::new());
    for op in &plan.operations {
        let key = || vec![sha256.clone(), json!(op.number)];
        let requests: Vec<String> = op.requests.iter().map(ToString::to_string).collect();
        let one = keyed(&[
            ("sha256", sha256.clone()),
            ("number", json!(op.number)),
            ("uid", json!(op.uid)),
            ("vmid", json!(op.vmid)),
            ("node", json!(op.node)),
            ("action", json!(op.action.as_str())),
            ("effect", json!(op.effect.to_string())),
            ("reversible", json!(op.reversible)),
            ("reasons", json!(op.reasons)),
            ("requests", json!(requests)),
        ]);
        operations.push(row(&PLAN_OP, &one));
        has.push(RelationshipRow::new(vec![sha256.clone()], key()));
        affects.extend(op.affects.iter().map(|uid| RelationshipRow::new(key(), vec![json!(uid)])));
        let known = op.affects.iter().filter_map(|uid| numbers.get(uid.as_str()));
        guests.extend(known.map(|vmid| RelationshipRow::new(key(), vec![json!(vmid)])));
    }
    debug_assert_eq!(DESIRED_VM.key, ["uid"]);
    vec![
        writer.upsert(&PLAN, vec![part(&PLAN, &whole)]),
        writer.upsert(&PLAN_OP, operations),
        writer.relate(&HAS_OP, has),
        writer.relate(&AFFECTS, affects),
        writer.relate(&AFFECTS_GUEST, guests),
    ]
}

/// A run, and what it applies.
#[derive(Debug, Clone, Copy)]
pub struct RunOf<'a> {
    /// Its name.
    pub run: &'a str,
    /// The plan.
    pub plan: &'a Plan,
    /// What is desired, with numbers.
    pub desired: &'a Desired,
    /// Who began it; nothing where another process did.
    pub actor: Option<&'a str>,
    /// By whose word.
    pub approver: &'a str,
    /// When it began, in epoch seconds.
    pub started_at: i64,
}

/// How a run ended.
#[derive(Debug, Clone, Copy)]
pub struct EndOf<'a> {
    /// What came of each operation, in the plan's order.
    pub outcomes: &'a [Outcome],
    /// What that is together.
    pub ended: Ended,
    /// `resume` has to go on with it.
    pub open: bool,
    /// Why it was stopped.
    pub stopped: Option<&'a str>,
}

impl RunOf<'_> {
    /// What says that it runs: the plan, which nobody may have approved, is written too. `resumed_by`: who goes on with it.
    pub fn begins(&self, writer: &Writer<'_>, resumed_by: Option<&str>) -> Vec<Statement> {
        let mut named = self.named();
        named.extend([("state", json!("running")), ("ended_at", Value::Null), ("open", Value::Null)]);
        if let Some(who) = resumed_by {
            named.extend([("resumed_at", json!(writer.tag)), ("resumed_by", json!(who))]);
        }
        self.written(writer, &named)
    }

    /// What says how it ended, with what came of each operation. It is whole: what said that it runs may have been lost.
    pub fn ends(&self, writer: &Writer<'_>, end: &EndOf<'_>) -> Vec<Statement> {
        let EndOf { outcomes, ended, open, stopped } = *end;
        let count = |is: fn(&Outcome) -> bool| json!(outcomes.iter().filter(|one| is(one)).count());
        let mut named = self.named();
        named.extend([
            ("state", json!(ended)),
            ("ended_at", json!(writer.tag)),
            ("exit", json!(ended.code())),
            ("open", json!(open)),
            ("stopped", json!(stopped)),
            ("done", count(|one| matches!(one, Outcome::Done { .. }))),
            ("waiting", count(|one| matches!(one, Outcome::Done { waiting } if !waiting.is_empty()))),
            ("failed", count(|one| matches!(one, Outcome::Failed { .. } | Outcome::HalfDone { .. }))),
            ("unknown", count(|one| matches!(one, Outcome::Unknown { .. }))),
            (
                "left",
                count(|one| matches!(one, Outcome::Stale { .. } | Outcome::Skipped | Outcome::NotBegun)),
            ),
        ]);
        let sha256 = json!(self.plan.sha256());
        let did = self.plan.operations.iter().zip(outcomes).map(|(operation, outcome)| {
            let set = Map::from_iter([
                ("result".to_owned(), json!(outcome.word())),
                ("reason".to_owned(), json!(outcome.reason())),
            ]);
            let to = vec![sha256.clone(), json!(operation.number)];
            RelationshipRow { from: vec![json!(self.run)], to, set }
        });
        let mut statements = self.written(writer, &named);
        statements.push(writer.relate(&DID, did.collect()));
        statements
    }

    fn named(&self) -> Vec<(&'static str, Value)> {
        let mut named = vec![
            ("run", json!(self.run)),
            ("sha256", json!(self.plan.sha256())),
            ("approver", json!(self.approver)),
            ("started_at", json!(self.started_at)),
            ("operations", json!(self.plan.operations.len())),
        ];
        named.extend(self.actor.map(|actor| ("actor", json!(actor))));
        named
    }

    fn written(&self, writer: &Writer<'_>, named: &[(&str, Value)]) -> Vec<Statement> {
        let mut statements = plan(writer, self.plan, self.desired);
        statements.push(writer.upsert(&RUN, vec![part(&RUN, &keyed(named))]));
        let of = RelationshipRow::new(vec![json!(self.run)], vec![json!(self.plan.sha256())]);
        statements.push(writer.relate(&OF_PLAN, vec![of]));
        statements
    }
}
