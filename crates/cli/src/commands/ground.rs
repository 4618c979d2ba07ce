//! What every plan is made on: the cluster, proven to be the one that the graph knows, and what the graph has of it; and what every plan
//! has to pass once it is made.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::try_join;
use pve_client::PveClient;
use pvegraph_graph::Store;
use pvegraph_inventory::ClusterId;
use pvegraph_reconcile::desired::Problem;
use pvegraph_reconcile::live::{self, Live};
use pvegraph_reconcile::plan::Plan;
use pvegraph_reconcile::policy::{self, Policy};
use pvegraph_reconcile::scope::Scope;
use pvegraph_reconcile::stored::{self, Stored};
use pvegraph_reconcile::{after, own, versions};

use super::drift::proven_cluster;
use crate::config::Settings;
use crate::exit::Failure;

/// What a plan is made on.
pub struct Ground<'a> {
    store: &'a dyn Store,
    /// The cluster.
    pub id: ClusterId,
    /// Its client.
    pub client: PveClient,
    /// What is desired, with the numbers that bindings give.
    pub stored: Stored,
    /// Where guests may be touched.
    pub scopes: Vec<Scope>,
    policies: Vec<Policy>,
    keep_up: BTreeSet<i64>,
    max_age: Duration,
}

impl<'a> Ground<'a> {
    /// Reads all of it. `cluster`: the name that was given.
    ///
    /// # Errors
    /// The cluster is not known or another one, what is desired is not valid, or one of the two can't be read.
    pub async fn of(
        settings: &Settings,
        cluster: Option<&str>,
        store: &'a dyn Store,
    ) -> Result<Self, Failure> {
        let (id, client) = proven_cluster(settings, cluster, store).await?;
        let stored = stored::read(store, &id).await?.with_numbers();
        let (scopes, policies) = try_join!(stored::scopes(store, &id), stored::policies(store, &id))?;
        let keep_up = settings.keep_up(cluster)?;
        let max_age = settings.apply.max_inventory_age;
        Ok(Self { store, id, client, stored, scopes, policies, keep_up, max_age })
    }

    /// Whether the cluster can be written to; a standalone node always can.
    pub async fn quorate(&self) -> bool {
        live::quorate(&self.client).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "the cluster's quorum is not known");
            false
        })
    }

    /// Enters into a plan what binds it to what is desired, and what quorum and policies say of it.
    pub async fn passed(&self, plan: &mut Plan, live: &Live, quorate: bool) {
        // Numbers that bindings give are nobody's wish, and come and go.
        plan.desired_sha256.clone_from(&self.stored.sha256);
        if !quorate {
            let text = "the cluster has no quorum, or does not say: wait for it, or let the token read it (Sys.Audit on /)";
            plan.blocked.push(Problem::new("the cluster", "quorum", text).into());
        }
        plan.blocked.extend(own::forbidden(plan, live, &self.keep_up, this_machine().as_deref()));
        if plan.operations.is_empty() {
            return;
        }
        for (field, text) in [("version", self.version().await), ("sync", self.outdated(plan.made_at).await)]
        {
            plan.warnings.extend(text.map(|text| Problem::new("the cluster", field, text).into()));
        }
        if !self.policies.is_empty() {
            let after = after::estate(live, &self.stored.desired, plan);
            policy::enter(self.store, &self.policies, &after, plan).await;
        }
    }

    /// Why `apply` would not go on at this version of Proxmox VE.
    async fn version(&self) -> Option<String> {
        match self.client.version().await {
            Ok(version) => versions::unknown(&version.value.version),
            Err(error) => Some(format!("it does not tell its version, and `apply` will ask again: {error}")),
        }
    }

    /// Why what the graph has of the cluster is too old to be asked.
    async fn outdated(&self, now: i64) -> Option<String> {
        match stored::synced_at(self.store, &self.id).await {
            Ok(at) => stored::outdated(at, now, self.max_age),
            Err(error) => Some(format!("when it was synced last can't be read: {error}")),
        }
    }
}

/// What no other plan has; see [`Plan::nonce`].
pub fn nonce() -> String {
    format!("{:032x}", rand::random::<u128>())
}

/// The SMBIOS UUID of the machine that this program runs on. The kernel tells it to root alone; a container has none of its own.
pub fn this_machine() -> Option<String> {
    let uuid = std::fs::read_to_string("/sys/class/dmi/id/product_uuid").ok()?;
    Some(uuid.trim().to_owned()).filter(|uuid| !uuid.is_empty())
}
