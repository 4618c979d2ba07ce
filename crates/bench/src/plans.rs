//! `pvegraph plan` on an estate whose guests are all desired, and of which some differ.

use crate::case::Estate;
use crate::desired_estate::DesiredEstate;
use crate::figures::Plans;
use crate::problem::Problem;
use crate::rounds::{Bench, say};

/// One in so many guests differs.
const CHANGED_ONE_IN: usize = 100;

impl Bench {
    /// Measures plans of an estate of one cluster: every guest adopted and managed, one in a hundred with another desired option.
    ///
    /// # Errors
    /// Something does not start, or fails.
    pub async fn plans(&self, estate: &Estate) -> Result<Plans, Problem> {
        let changed = (estate.guests / CHANGED_ONE_IN).max(1);
        let desired = Box::pin(DesiredEstate::new(self, "plan", estate, changed)).await?;
        desired.change().await;
        let mut rounds = Vec::new();
        for number in 1..=self.runs {
            let (run, operations) = desired.program.plan(&desired.simulators).await?;
            say(&format!("  round {number}: {operations} operations in {:.1} s", run.usage.wall_seconds));
            desired.check_plan(operations)?;
            rounds.push(run);
        }
        Ok(Plans { estate: desired.estate, seed: self.seed, operations: changed, rounds })
    }
}
