//! Which cluster it is: its name, and the proof that it is the one that the graph knows by that name.

use std::collections::BTreeMap;

use pve_client::answers::ClusterStatusRow;
use pve_client::{ApiError, PveClient};
use pvegraph_graph::{Statement, Store, StoreError, labels};
use pvegraph_inventory::{Cluster, ClusterId, Node, NodeStatus, build};
use serde_json::Value;

/// The certificate of a cluster's own authority, as PVE names it.
const AUTHORITY: &str = "pve-root-ca.pem";

/// Why a cluster is refused.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// It may not be asked for its name, and none is configured.
    #[error(
        "the cluster behind {endpoint} does not tell its name, so that it can't be told from another: set `name` under its \
         [[clusters]], or let the token read it (pveum acl modify / --tokens 'USER@REALM!TOKEN' --roles PVEAuditor)"
    )]
    Unnamed {
        /// Where it is.
        endpoint: String,
        /// Its refusal.
        #[source]
        source: Box<ApiError>,
    },
    /// It answers, but names neither itself nor a node.
    #[error(
        "the cluster behind {endpoint} names neither itself nor one single node: set `name` under its [[clusters]]"
    )]
    Unknown {
        /// Where it is.
        endpoint: String,
    },
    /// What it says of itself was not understood.
    #[error(
        "the cluster behind {endpoint} can't be told from another, because its status was not understood ({odd}): set `name` \
         under its [[clusters]]"
    )]
    Odd {
        /// Where it is.
        endpoint: String,
        /// What was odd.
        odd: String,
    },
    /// Its own name can't be an identifier.
    #[error("a cluster's own name can't be its identifier: set `name` under its [[clusters]]")]
    BadName(#[from] pvegraph_inventory::InvalidClusterId),
    /// The graph knows another cluster by that name.
    #[error(
        "the graph knows another cluster as \"{id}\": its certificate authority was {known} and is {found} now. Give this one a `name` \
         of its own under its [[clusters]]; if it is the same cluster with a new authority, run once with \
         --accept-new-authority {id}"
    )]
    Another {
        /// The identifier.
        id: ClusterId,
        /// SHA-256 of the authority in the graph.
        known: String,
        /// SHA-256 of the authority that was found.
        found: String,
    },
    /// The graph knows this cluster by another name.
    #[error(
        "the graph knows this cluster as {known_as:?}, and as \"{id}\" it would be in it twice: set name = {known_as:?} under its \
         [[clusters]]; to rename it, remove the old one first (pvegraph reset --cluster {known_as})"
    )]
    Renamed {
        /// The identifier that it has now.
        id: ClusterId,
        /// The one that the graph knows.
        known_as: String,
    },
    /// The graph knows its authority, and it does not tell one.
    #[error(
        "the cluster at \"{id}\" does not tell its certificate authority, and the graph knows one ({known}): whether it is the same cluster \
         is not known; let a node answer /nodes/NODE/certificates/info"
    )]
    Unproven {
        /// The identifier.
        id: ClusterId,
        /// SHA-256 of the authority in the graph.
        known: String,
    },
    /// Two configured clusters are the same one, or have the same name.
    #[error(
        "two of the configured clusters are \"{id}\": give one of them another `name`, or list their endpoints under one [[clusters]]"
    )]
    Twice {
        /// The identifier.
        id: ClusterId,
    },
}

impl IdentityError {
    pub(crate) fn unnamed(endpoint: &str, source: ApiError) -> Self {
        Self::Unnamed { endpoint: endpoint.to_owned(), source: Box::new(source) }
    }
}

/// The cluster's own name, or one made from a standalone node's.
pub(crate) fn named_by(rows: &[ClusterStatusRow], endpoint: &str) -> Result<ClusterId, IdentityError> {
    if let Some(row) = build::cluster_row(rows) {
        return Ok(row.name.parse()?);
    }
    // A standalone node is alone; several members without a cluster are an answer that lacks something.
    let mut members = build::members(rows);
    match (members.next(), members.next()) {
        (Some(node), None) => Ok(format!("standalone-{}", node.name).parse()?),
        _ => Err(IdentityError::Unknown { endpoint: endpoint.to_owned() }),
    }
}

/// The fingerprint of the cluster's own certificate authority, from the first node that says. Every user may ask.
pub(crate) async fn own_authority(client: &PveClient, nodes: &[Node]) -> Option<String> {
    let online = nodes.iter().filter(|node| node.status != NodeStatus::Offline);
    authority_of(client, online.map(|node| node.name.as_str())).await
}

async fn authority_of(client: &PveClient, nodes: impl Iterator<Item = &str>) -> Option<String> {
    for node in nodes {
        match client.certificates(node).await {
            Ok(read) => {
                let authority = read.value.into_iter().find(|certificate| certificate.filename == AUTHORITY);
                return authority.and_then(|certificate| certificate.fingerprint);
            }
            Err(error) => {
                tracing::debug!(node, %error, "no certificates");
            }
        }
    }
    None
}

/// The certificate authorities that the graph knows clusters by.
///
/// # Errors
/// The store's.
pub async fn known_authorities(store: &dyn Store) -> Result<BTreeMap<String, String>, StoreError> {
    let text = format!(
        "MATCH (c:{})\nWHERE c.ca_fingerprint IS NOT NULL\nRETURN c.cluster_id AS cluster_id, c.ca_fingerprint AS ca_fingerprint",
        labels::CLUSTER.name
    );
    let rows = store.read(Statement::new(text)).await?;
    let text = |at, column| rows.get(at, column).and_then(Value::as_str).map(str::to_owned);
    let one = |at| Some((text(at, "cluster_id")?, text(at, "ca_fingerprint")?));
    Ok((0..rows.rows.len()).filter_map(one).collect())
}

/// Why it could not be told whether a cluster is the one that the graph knows.
#[derive(Debug, thiserror::Error)]
pub enum UnverifiedError {
    /// It is another one, or proves nothing.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// It does not answer.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The graph does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Asks the cluster behind `client` for its authority, and refuses it where it is not the one that the graph knows as `id`: before
/// it is changed, and before what is desired of it is.
///
/// # Errors
/// It is another one, does not prove which it is, or can't be asked.
pub async fn verify(client: &PveClient, store: &dyn Store, id: &ClusterId) -> Result<(), UnverifiedError> {
    let known = known_authorities(store).await?;
    if known.is_empty() {
        return Ok(());
    }
    let nodes = client.nodes().await?.value;
    let online = nodes.iter().filter(|node| node.status.as_deref() != Some("offline"));
    let found = authority_of(client, online.map(|node| node.node.as_str())).await;
    Ok(proven(id, found, &known)?)
}

/// As [`check`], but what the graph knows has to be proven.
fn proven(
    id: &ClusterId,
    found: Option<String>,
    known: &BTreeMap<String, String>,
) -> Result<(), IdentityError> {
    if let (Some(known), None) = (known.get(id.as_str()), &found) {
        return Err(IdentityError::Unproven { id: id.clone(), known: known.clone() });
    }
    compared(id, found.as_deref(), known)
}

/// Refuses a cluster that is another one than the graph knows by its identifier, and one that the graph knows by another identifier.
/// `known`: the authorities in the graph by cluster. What either side does not know proves nothing.
///
/// # Errors
/// [`IdentityError::Another`], [`IdentityError::Renamed`].
pub fn check(cluster: &Cluster, known: &BTreeMap<String, String>) -> Result<(), IdentityError> {
    compared(&cluster.id, cluster.ca_fingerprint.as_deref(), known)
}

fn compared(
    id: &ClusterId,
    found: Option<&str>,
    known: &BTreeMap<String, String>,
) -> Result<(), IdentityError> {
    let id = id.clone();
    match (known.get(id.as_str()), found) {
        (Some(known), Some(found)) if known == found => Ok(()),
        (Some(known), Some(found)) => {
            Err(IdentityError::Another { id, known: known.clone(), found: found.to_owned() })
        }
        // Nothing is swept in such a run: its scope is partial.
        (_, None) => Ok(()),
        (None, Some(found)) => match known.iter().find(|(_, authority)| *authority == found) {
            Some((other, _)) => Err(IdentityError::Renamed { id, known_as: other.clone() }),
            None => Ok(()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(authority: Option<&str>) -> Cluster {
        Cluster {
            id: "rig".parse().unwrap(),
            name: "rig".into(),
            version: None,
            quorate: None,
            nodes_online: Some(1),
            ca_fingerprint: authority.map(str::to_owned),
        }
    }

    #[test]
    fn a_cluster_is_known_by_its_authority() {
        let rig = |authority: &str| BTreeMap::from([("rig".to_owned(), authority.to_owned())]);
        let other = BTreeMap::from([("old".to_owned(), "A".to_owned())]);
        assert!(check(&cluster(Some("A")), &rig("A")).is_ok());
        assert!(check(&cluster(Some("A")), &BTreeMap::new()).is_ok());
        assert!(check(&cluster(None), &other).is_ok());
        let refused = |authority, known: &BTreeMap<String, String>| {
            check(&cluster(authority), known).unwrap_err().to_string()
        };
        assert!(refused(Some("B"), &rig("A")).contains("--accept-new-authority rig"));
        assert!(check(&cluster(None), &rig("A")).is_ok());
        assert!(refused(Some("A"), &other).contains("name = \"old\""));
    }

    #[test]
    fn what_is_changed_has_to_prove_that_it_is_what_the_graph_knows() {
        let id: ClusterId = "rig".parse().unwrap();
        let rig = BTreeMap::from([("rig".to_owned(), "A".to_owned())]);
        assert!(proven(&id, Some("A".to_owned()), &rig).is_ok());
        let copy = proven(&id, Some("B".to_owned()), &rig);
        assert!(matches!(copy, Err(IdentityError::Another { .. })), "a restored copy has another authority");
        let silent = proven(&id, None, &rig);
        assert!(matches!(silent, Err(IdentityError::Unproven { .. })));
        assert!(proven(&id, None, &BTreeMap::new()).is_ok(), "before the first sync nothing is known");
    }
}
