//! `pvegraph apply` of many changes: whether it uses what it is allowed at once.

use std::collections::BTreeSet;

use serde::Deserialize;

use crate::case::Estate;
use crate::desired_estate::DesiredEstate;
use crate::figures::Applies;
use crate::problem::{Problem, While};
use crate::rounds::{Bench, say};

/// How many guests differ; in a smaller estate one in five.
const CHANGED: usize = 200;

/// Operations that may be under way at once in a cluster.
pub const ALLOWED: usize = 8;

impl Bench {
    /// Measures applying to an estate of one cluster: another option of 200 machines in each round.
    ///
    /// # Errors
    /// Something does not start, or fails, or more is under way than is allowed.
    pub async fn applies(&self, estate: &Estate) -> Result<Applies, Problem> {
        let changed = CHANGED.min(estate.guests / 5).max(1);
        let desired = Box::pin(DesiredEstate::new(self, "apply", estate, changed)).await?;
        let mut rounds = Vec::new();
        for number in 1..=self.runs {
            desired.change().await;
            let (_, operations) = desired.program.plan(&desired.simulators).await?;
            desired.check_plan(operations)?;
            let run = desired.program.apply(&desired.simulators).await?;
            let seconds = run.usage.wall_seconds;
            say(&format!("  round {number}: {operations} operations in {seconds:.1} s"));
            if run.most > ALLOWED {
                return Err(Problem::new(format!("{} operations were under way at once", run.most)));
            }
            rounds.push(run);
        }
        Ok(Applies { estate: desired.estate, seed: self.seed, operations: changed, rounds })
    }
}

/// What `apply --events` says of one moment; events of other kinds tell nothing here.
#[derive(Debug, Deserialize)]
struct Line {
    event: String,
    operation: Option<usize>,
}

/// How many operations were under way at most, and on average whenever one began while as many more as are allowed still waited.
///
/// # Errors
/// A line is no event.
pub fn under_way(events: &str) -> Result<(usize, f64), Problem> {
    let mut open = BTreeSet::new();
    let mut counts = Vec::new();
    for line in events.lines() {
        let Line { event, operation } = serde_json::from_str(line).when("an event of pvegraph apply")?;
        match (event.as_str(), operation) {
            ("begins", Some(operation)) => {
                open.insert(operation);
                counts.push(open.len());
            }
            ("ends", Some(operation)) => {
                open.remove(&operation);
            }
            _ => {}
        }
    }
    let most = counts.iter().copied().max().unwrap_or(0);
    // While it starts there is nothing to join, and at the end nothing left to begin.
    let middle = counts.get(ALLOWED..counts.len().saturating_sub(ALLOWED)).unwrap_or_default();
    Ok((most, middle.iter().sum::<usize>() as f64 / middle.len() as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_under_way_is_counted_between_start_and_end() {
        let mut lines = String::new();
        let mut line = |event: &str, operation: usize| {
            lines += &format!("{{\"event\":\"{event}\",\"operation\":{operation},\"at\":1}}\n");
        };
        (0..8).for_each(|at| line("begins", at));
        for at in 8..20 {
            line("ends", at - 8);
            line("begins", at);
        }
        let end = "{\"event\":\"ended\",\"exit\":0}\n";
        assert_eq!(under_way(&(lines + end)).unwrap(), (8, 8.0));
        let one_by_one = "{\"event\":\"begins\",\"operation\":1}\n{\"event\":\"ends\",\"operation\":1}\n";
        assert_eq!(under_way(&one_by_one.repeat(20)).unwrap(), (1, 1.0));
        assert!(under_way("no event").is_err());
    }
}
