//! What the graph is told of a run, as far as it can be: no run waits for that, and none ends for the lack of it.

use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use pvegraph_graph::cypher::Writer;
use pvegraph_graph::{Statement, Store};
use pvegraph_inventory::ClusterId;
use pvegraph_reconcile::desired::Desired;
use pvegraph_reconcile::plan::Plan;
use pvegraph_reconcile::stored::{EndOf, RunOf};

/// How long the graph may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// How a run's name begins: when it began.
pub const RUN_BEGINS_WITH: &str = "%Y%m%dT%H%M%SZ";

/// A run of which the graph is told.
pub struct Noted<'a> {
    store: &'a dyn Store,
    cluster: &'a ClusterId,
    run: RunOf<'a>,
    /// Who goes on with it.
    resumed_by: Option<&'a str>,
}

impl<'a> Noted<'a> {
    /// `who`: who runs it now, and who approved the plan.
    pub fn of(
        store: &'a dyn Store,
        cluster: &'a ClusterId,
        run: &'a str,
        plan: &'a Plan,
        desired: &'a Desired,
        (actor, approver): (&'a str, &'a str),
        resumed: bool,
    ) -> Self {
        let started_at = started_at(run).unwrap_or(plan.made_at);
        let began = (!resumed).then_some(actor);
        let run = RunOf { run, plan, desired, actor: began, approver, started_at };
        Self { store, cluster, run, resumed_by: resumed.then_some(actor) }
    }

    /// It begins, or goes on.
    pub async fn begins(&self) {
        self.told(self.run.begins(&self.writer(), self.resumed_by)).await;
    }

    /// It has ended, for now where it waits for a `resume`.
    pub async fn ends(&self, end: &EndOf<'_>) {
        self.told(self.run.ends(&self.writer(), end)).await;
    }

    fn writer(&self) -> Writer<'a> {
        Writer { dialect: self.store.dialect(), cluster: self.cluster, tag: Timestamp::now().as_second() }
    }

    async fn told(&self, statements: Vec<Statement>) {
        let why = match tokio::time::timeout(PATIENCE, self.store.write(statements)).await {
            Ok(Ok(_)) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the graph does not answer".to_owned(),
        };
        tracing::warn!(
            "the graph was not told how far the run {} is; its journal and the audit log have it: {why}",
            self.run.run
        );
    }
}

/// When a run of this name began, in epoch seconds.
fn started_at(run: &str) -> Option<i64> {
    let (time, _) = run.split_once('-')?;
    let time = DateTime::strptime(RUN_BEGINS_WITH, time).ok()?;
    Some(time.to_zoned(TimeZone::UTC).ok()?.timestamp().as_second())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runs_name_says_when_it_began() {
        let at = Timestamp::from_second(1_800_000_000).expect("a time");
        let run = format!("{}-0a1b2c3d", at.strftime(RUN_BEGINS_WITH));
        assert_eq!(started_at(&run), Some(1_800_000_000));
        assert_eq!(started_at("somebody's"), None);
    }
}
