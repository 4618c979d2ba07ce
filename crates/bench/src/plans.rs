//! `pvegraph plan` on an estate whose guests are all desired, and of which some differ.

use pvegraph_testkit::Neo4jServer;
use serde_json::json;
use tempfile::TempDir;

use crate::case::Estate;
use crate::figures::Plans;
use crate::graph_program::{GraphProgram, Login};
use crate::problem::{Problem, While};
use crate::processes::load_average;
use crate::rounds::{Bench, say};
use crate::simulators::Simulator;

/// One in so many guests differs.
const CHANGED_ONE_IN: usize = 100;

impl Bench {
    /// Measures plans of an estate of one cluster: every guest adopted and managed, one in a hundred with another desired option.
    ///
    /// # Errors
    /// Something does not start, or fails.
    pub async fn plans(&self, estate: &Estate) -> Result<Plans, Problem> {
        let estate = Estate { clusters: 1, ..estate.clone() };
        estate.check().map_err(Problem::new)?;
        let directory = TempDir::with_prefix("pvegraph-bench-").when("a temporary directory")?;
        let place = directory.path();
        say(&format!("plan: {estate}; seed {}; load average {:.2}", self.seed, load_average()));
        let simulators = [Simulator::start(&self.pve_sim, place, &estate, 0, self.seed).await?];
        let server = self.server().await;
        let login = Login {
            uri: server.bolt_uri.clone(),
            user: server.user.clone(),
            password: server.password.clone(),
        };
        let program = GraphProgram::new(&self.pvegraph, place, &login, &simulators)?;
        program.migrate()?;
        program.sync(&simulators).await?;
        let [simulator] = &simulators;
        let wanted = (estate.guests / CHANGED_ONE_IN).max(1);
        let changed = changed(&server, wanted).await;
        for (node, vmid) in &changed {
            simulator.mark(node, *vmid).await?;
        }
        program.run(&["adopt", "--all", "--manage"])?;
        program.run(&["scope", "set", "all", "--vmids", "100-999999999"])?;
        let vmids: Vec<i64> = changed.iter().map(|(_, vmid)| *vmid).collect();
        let change =
            "MATCH (v:DesiredVM) WHERE v.vmid IN $vmids SET v.onboot = NOT coalesce(v.onboot, false)";
        server.cypher(change, json!({ "vmids": vmids })).await;
        let mut operations = 0;
        let mut rounds = Vec::new();
        for number in 1..=self.runs {
            let (run, count) = program.plan(&simulators).await?;
            say(&format!("  round {number}: {count} operations in {:.1} s", run.usage.wall_seconds));
            operations = count;
            rounds.push(run);
        }
        if operations != changed.len() {
            let text =
                format!("{} guests were changed, and the plan has {operations} operations", changed.len());
            return Err(Problem::new(text));
        }
        Ok(Plans { estate, seed: self.seed, operations, rounds })
    }
}

/// Node and number of so many machines that no lock holds.
async fn changed(server: &Neo4jServer, count: usize) -> Vec<(String, i64)> {
    let text = "MATCH (n:ProxmoxNode)-[:HOSTS_VM]->(v:ProxmoxVM) \
                WHERE v.type = 'qemu' AND v.lock IS NULL AND NOT coalesce(v.template, false) \
                RETURN n.name AS node, v.vmid AS vmid ORDER BY vmid LIMIT $count";
    let rows = server.cypher(text, json!({ "count": count })).await;
    rows.iter().filter_map(|row| Some((row["node"].as_str()?.to_owned(), row["vmid"].as_i64()?))).collect()
}
