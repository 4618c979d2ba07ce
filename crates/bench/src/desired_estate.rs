//! An estate whose guests are all desired, and of which some differ: what `plan` and `apply` are measured with.

use pvegraph_testkit::{Neo4jServer, OwnedServer};
use serde_json::json;
use tempfile::TempDir;

use crate::case::Estate;
use crate::graph_program::{GraphProgram, Login};
use crate::problem::{Problem, While};
use crate::processes::load_average;
use crate::rounds::{Bench, say};
use crate::simulators::Simulator;

/// One cluster with its graph.
pub struct DesiredEstate {
    /// How large it is.
    pub estate: Estate,
    /// The one simulator.
    pub simulators: [Simulator; 1],
    /// The program, configured for both.
    pub program: GraphProgram,
    /// The machines that can differ: they bear the marker.
    vmids: Vec<i64>,
    server: OwnedServer,
    _directory: TempDir,
}

impl DesiredEstate {
    /// Syncs the estate, adopts and manages every guest, and marks so many machines.
    ///
    /// # Errors
    /// Something does not start, or fails.
    pub async fn new(bench: &Bench, what: &str, estate: &Estate, marked: usize) -> Result<Self, Problem> {
        let estate = Estate { clusters: 1, ..estate.clone() };
        estate.check().map_err(Problem::new)?;
        let directory = TempDir::with_prefix("pvegraph-bench-").when("a temporary directory")?;
        let place = directory.path();
        say(&format!("{what}: {estate}; seed {}; load average {:.2}", bench.seed, load_average()));
        let simulators = [Simulator::start(&bench.pve_sim, place, &estate, 0, bench.seed).await?];
        let server = bench.server().await;
        let login = Login {
            uri: server.bolt_uri.clone(),
            user: server.user.clone(),
            password: server.password.clone(),
        };
        let program = GraphProgram::new(&bench.pvegraph, place, &login, &simulators)?;
        program.migrate()?;
        program.sync(&simulators).await?;
        let machines = machines(&server, marked).await;
        let [simulator] = &simulators;
        for (node, vmid) in &machines {
            simulator.mark(node, *vmid).await?;
        }
        program.run(&["adopt", "--all", "--manage"])?;
        let open = ["scope", "set", "all", "--vmids", "100-999999999", "--allow", "configure"];
        program.run(&open)?;
        let vmids = machines.into_iter().map(|(_, vmid)| vmid).collect();
        Ok(Self { estate, simulators, program, vmids, server, _directory: directory })
    }

    /// Desires of each marked machine that it starts with its node, or that it does not: the other one than before.
    pub async fn change(&self) {
        let change =
            "MATCH (v:DesiredVM) WHERE v.vmid IN $vmids SET v.onboot = NOT coalesce(v.onboot, false)";
        self.server.cypher(change, json!({ "vmids": self.vmids })).await;
    }

    /// A plan has one operation for each marked machine.
    ///
    /// # Errors
    /// It has another number of them.
    pub fn check_plan(&self, operations: usize) -> Result<(), Problem> {
        let marked = self.vmids.len();
        if operations == marked {
            return Ok(());
        }
        Err(Problem::new(format!("{marked} guests were changed, and the plan has {operations} operations")))
    }
}

/// Node and number of so many machines that no lock holds, from all nodes alike.
async fn machines(server: &Neo4jServer, count: usize) -> Vec<(String, i64)> {
    let text = "MATCH (n:ProxmoxNode)-[:HOSTS_VM]->(v:ProxmoxVM) \
                WHERE v.type = 'qemu' AND v.lock IS NULL AND NOT coalesce(v.template, false) \
                WITH n.name AS node, v.vmid AS vmid ORDER BY vmid \
                WITH node, collect(vmid) AS vmids UNWIND range(0, size(vmids) - 1) AS place \
                RETURN node, vmids[place] AS vmid ORDER BY place, node LIMIT $count";
    let rows = server.cypher(text, json!({ "count": count })).await;
    rows.iter().filter_map(|row| Some((row["node"].as_str()?.to_owned(), row["vmid"].as_i64()?))).collect()
}
