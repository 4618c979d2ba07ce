//! One cluster behind its endpoints: its name, its nodes, whether the endpoints are of one cluster, and what the account may see.

use std::collections::BTreeMap;

use futures::future::join_all;
use pve_client::answers::{ClusterStatusRow, NodeRow};
use pvegraph_inventory::{ClusterId, build};

use super::Findings;
use super::endpoint::{self, Told, Unanswered, ask};
use super::rights::{self, Account, named};
use crate::config::{ClusterSettings, Settings};
use crate::exit::Exit;

const SECRET: &str = "secret";
const NAME: &str = "name";
const SAME: &str = "one cluster";
const ONLINE: &str = "nodes";
const QUORUM: &str = "quorum";
const IDENTITY: &str = "identity";

/// What needs an endpoint that lets us in.
const INSIDE: [&str; 4] = [NAME, ONLINE, QUORUM, SAME];

/// A cluster that was looked at.
pub struct Examined {
    /// What was found: of the cluster first, then of each endpoint.
    pub findings: Vec<Findings>,
    label: String,
    id: Option<String>,
    authority: Option<String>,
}

/// Checks one cluster.
pub async fn check(settings: &Settings, cluster: &ClusterSettings) -> Examined {
    let mut found = Findings::new(cluster.label());
    let account = Account::new(&cluster.login);
    let secret = match settings.cluster_secret(cluster) {
        Ok(_) => {
            found.ok(SECRET, format!("that of {} can be read", account.label()));
            true
        }
        Err(error) => {
            found.fail_as_told(SECRET, Exit::Config, &error);
            false
        }
    };
    let endpoints = cluster.endpoints.iter();
    let checks = endpoints.map(|url| endpoint::check(settings, cluster, url, &account, secret));
    let (of_endpoints, told): (Vec<Findings>, Vec<Option<Told>>) = join_all(checks).await.into_iter().unzip();
    let told: Vec<Told> = told.into_iter().flatten().collect();
    let mut id = cluster.name.clone();
    match told.first() {
        Some(first) => {
            id = name(&mut found, cluster, &account, &first.status);
            online(&mut found, first);
            quorum(&mut found, &first.status);
            same(&mut found, &told);
            seen(&mut found, &account, first).await;
        }
        None => {
            found.skip(&INSIDE, "no endpoint lets us in");
            found.skip(&rights::CHECKS, "no endpoint lets us in");
        }
    }
    let authority = told.iter().find_map(|one| one.authority.clone());
    let findings = std::iter::once(found).chain(of_endpoints).collect();
    Examined { findings, label: cluster.label(), id, authority }
}

/// Which cluster it is, as a sync would call it.
fn name(
    found: &mut Findings,
    cluster: &ClusterSettings,
    account: &Account,
    status: &Result<Vec<ClusterStatusRow>, Unanswered>,
) -> Option<String> {
    const CONFIGURE: &str = "set `name` under its [[clusters]]";
    let own = status.as_ref().ok().and_then(|rows| {
        let node = || build::members(rows).next().map(|member| format!("standalone-{}", member.name));
        build::cluster_row(rows).map(|row| row.name.clone()).or_else(node)
    });
    if let Some(configured) = &cluster.name {
        let calls = own.filter(|own| own != configured).map(|own| format!("; it calls itself {own}"));
        found.ok(NAME, format!("{configured}, as configured{}", calls.unwrap_or_default()));
        return Some(configured.clone());
    }
    match (own, status) {
        (Some(own), _) => match own.parse::<ClusterId>() {
            Ok(_) => {
                found.ok(NAME, own.clone());
                return Some(own);
            }
            Err(error) => found.fail(NAME, Exit::Config, error.to_string(), CONFIGURE),
        },
        (None, Ok(_)) => found.fail(NAME, Exit::Config, "it names neither itself nor a node", CONFIGURE),
        (None, Err(error)) if error.is_forbidden() => {
            let detail = "the account may not ask for it, so that this cluster can't be told from another, and a sync refuses it";
            found.fail(NAME, Exit::Auth, detail, format!("{CONFIGURE}, or: {}", account.grant()));
        }
        (None, Err(error)) => found.fail(NAME, error.exit(), error.to_string(), CONFIGURE),
    }
    None
}

fn online(found: &mut Findings, told: &Told) {
    let rows = match &told.nodes {
        Ok(rows) => rows,
        Err(error) => {
            found.fail(ONLINE, error.exit(), error.to_string(), "look at the cluster's nodes");
            return;
        }
    };
    let away: Vec<&str> = names(rows, |row| row.status.as_deref() != Some("online"));
    if away.is_empty() {
        found.ok(ONLINE, format!("{} online: {}", rows.len(), named(names(rows, |_| true))));
        return;
    }
    let detail = format!("not online: {}; what is known of them and of their guests is kept", named(away));
    found.warn(
        ONLINE,
        detail,
        "look at them; where that is how it shall be, set offline_nodes = \"ok\" in [sync]",
    );
}

fn names(rows: &[NodeRow], wanted: impl Fn(&NodeRow) -> bool) -> Vec<&str> {
    let mut names: Vec<&str> = rows.iter().filter(|row| wanted(row)).map(|row| row.node.as_str()).collect();
    names.sort_unstable();
    names
}

fn quorum(found: &mut Findings, status: &Result<Vec<ClusterStatusRow>, Unanswered>) {
    let Ok(rows) = status else {
        found.skip(&[QUORUM], "it takes Sys.Audit on / to ask");
        return;
    };
    match build::cluster_row(rows).map(|row| row.quorate) {
        None => found.ok(QUORUM, "a standalone node needs none"),
        Some(Some(false)) => {
            let detail =
                "the cluster has no quorum: its configuration can't be changed, and what it tells may be old";
            found.warn(QUORUM, detail, "on a node: pvecm status");
        }
        Some(_) => found.ok(QUORUM, "it has quorum"),
    }
}

/// Endpoints that stand in for one another must be nodes of one cluster.
fn same(found: &mut Findings, told: &[Told]) {
    let mut by_authority: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for one in told {
        if let Some(authority) = &one.authority {
            by_authority.entry(authority).or_default().push(&one.name);
        }
    }
    match by_authority.len() {
        0 => found.skip(&[SAME], "no endpoint told its certificate authority"),
        1 => found.ok(
            SAME,
            by_authority.keys().map(|print| format!("certificate authority {print}")).collect::<String>(),
        ),
        _ => {
            let groups: Vec<String> = by_authority.values().map(|names| names.join(", ")).collect();
            let detail = format!(
                "the endpoints are of {} clusters, as their certificate authorities tell: {}",
                groups.len(),
                groups.join(" | ")
            );
            found.fail(
                SAME,
                Exit::Config,
                detail,
                "list each cluster's endpoints under a [[clusters]] of its own",
            );
        }
    }
}

async fn seen(found: &mut Findings, account: &Account, told: &Told) {
    match ask(told.limit, told.client.permissions()).await {
        Ok(permissions) => {
            let nodes: Vec<String> =
                told.nodes.iter().flat_map(|rows| names(rows, |_| true)).map(str::to_owned).collect();
            rights::check(found, account, &permissions, &nodes);
        }
        Err(error) => {
            found.fail(
                "permissions",
                error.exit(),
                error.to_string(),
                "try again; what may be seen is not known",
            );
            found.skip(&rights::CHECKS, "the permissions are not known");
        }
    }
}

/// Compares the clusters with one another and with those that the graph knows. `known`: the authorities of these, by name; `None`
/// where they can't be read.
pub fn compare(all: &mut [Examined], known: Option<&BTreeMap<String, String>>) {
    let seen: Vec<(String, Option<String>, Option<String>)> =
        all.iter().map(|one| (one.label.clone(), one.id.clone(), one.authority.clone())).collect();
    for (at, one) in all.iter_mut().enumerate() {
        let Some(found) = one.findings.first_mut() else { continue };
        let (Some(id), Some(authority)) = (&one.id, &one.authority) else {
            found.skip(&[IDENTITY], "its name or its certificate authority is not known");
            continue;
        };
        let others = || seen.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, other)| other);
        if let Some((label, ..)) = others().find(|(_, _, other)| other.as_ref() == Some(authority)) {
            let detail = format!("it is the same cluster as {label}");
            found.fail(IDENTITY, Exit::Config, detail, "list the endpoints of both under one [[clusters]]");
            continue;
        }
        if let Some((label, ..)) = others().find(|(_, other, _)| other.as_ref() == Some(id)) {
            let detail = format!("it has the name of {label}: {id}");
            found.fail(
                IDENTITY,
                Exit::Config,
                detail,
                "give one of them another `name` under its [[clusters]]",
            );
            continue;
        }
        let Some(known) = known else {
            found.skip(&[IDENTITY], "the graph could not be read");
            continue;
        };
        identity(found, id, authority, known);
    }
}

fn identity(found: &mut Findings, id: &str, authority: &str, known: &BTreeMap<String, String>) {
    let known_as = known.iter().find(|(_, other)| *other == authority);
    match (known.get(id), known_as) {
        (Some(other), _) if other != authority => {
            let detail = format!(
                "the graph knows another cluster as {id}: its certificate authority was {other} and is {authority} now"
            );
            let mend = format!(
                "give this one a `name` of its own under its [[clusters]]; if it is the same cluster with a new authority, run once \
                 with --accept-new-authority {id}"
            );
            found.fail(IDENTITY, Exit::Config, detail, mend);
        }
        (Some(_), _) => found.ok(IDENTITY, format!("the graph knows it as {id}")),
        (None, Some((name, _))) => {
            let detail = format!("the graph knows this cluster as {name}: as {id} it would be there twice");
            found.warn(IDENTITY, detail, format!("set name = {name:?} under its [[clusters]]"));
        }
        (None, None) => found.ok(IDENTITY, format!("new to the graph, as {id}")),
    }
}
