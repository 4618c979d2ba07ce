//! Why a plan does what it does to one guest: what is desired, what is there, and the graph's edges between them.

use pvegraph_graph::{Statement, Store, StoreError};
use pvegraph_inventory::ClusterId;
use serde_json::Value;

use crate::desired::{Desired, Guest};
use crate::plan::{Effect, Plan, Remark};

/// One line of the explanation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The operation's number; nothing where it is about the guest as a whole.
    pub operation: Option<usize>,
    /// `does`, `because`, `asks`, `after`, `touches`, `felt by`, `blocked`, `postponed`, `warning` or `nothing`.
    pub what: &'static str,
    /// What it is about: a field, a guest, a call.
    pub subject: String,
    /// The words.
    pub text: String,
}

/// What the last sync saw of a guest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Edges {
    /// The node that it is on.
    pub node: Option<String>,
    /// Its volumes, with the storage of each.
    pub disks: Vec<(String, Option<String>)>,
    /// The backup jobs that have it.
    pub backups: Vec<String>,
}

/// Reads the edges of a guest.
///
/// # Errors
/// The store's.
pub async fn edges(store: &dyn Store, cluster: &ClusterId, vmid: i64) -> Result<Edges, StoreError> {
    let guest = "(v:ProxmoxVM)\nWHERE v.cluster_id = $cluster_id AND v.vmid = $vmid";
    let ask = async |before: &str, after: &str| {
        let text = format!("MATCH {before}{guest}\n{after}");
        let statement = Statement::new(text).with("cluster_id", cluster.as_str()).with("vmid", vmid);
        let rows = store.read(statement).await?;
        let word = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
        let pairs = rows.rows.iter().map(|row| (word(row.first()), word(row.get(1))));
        Ok::<Vec<_>, StoreError>(pairs.collect())
    };
    let nodes = ask("(n:ProxmoxNode)-[:HOSTS_VM]->", "RETURN n.name AS name").await?;
    let disks = ask(
        "(s:ProxmoxStorage)<-[:STORED_ON]-(d:ProxmoxDisk)<-[:HAS_DISK]-",
        "RETURN d.disk_id AS disk, s.name AS storage ORDER BY disk, storage",
    );
    let jobs = ask("(j:ProxmoxBackupJob)-[:BACKS_UP]->", "RETURN j.job_id AS job ORDER BY job");
    Ok(Edges {
        node: nodes.into_iter().find_map(|(name, _)| name),
        disks: disks.await?.into_iter().filter_map(|(disk, storage)| Some((disk?, storage))).collect(),
        backups: jobs.await?.into_iter().filter_map(|(job, _)| job).collect(),
    })
}

/// Explains the plan for one guest.
pub fn lines(desired: &Desired, guest: &Guest, edges: &Edges, plan: &Plan) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut say = |operation: Option<usize>, what: &'static str, subject: String, text: String| {
        lines.push(Line { operation, what, subject, text });
    };
    let concerned: Vec<_> = plan.operations.iter().filter(|op| op.affects.contains(&guest.uid)).collect();
    for op in &concerned {
        let number = Some(op.number);
        let undone = match (op.reversible, op.effect) {
            (true, Effect::Pending) => "can be taken back once it has restarted",
            (true, _) => "can be taken back",
            (false, _) => "can't be taken back",
        };
        say(number, "does", op.action.as_str().to_owned(), format!("{} ({undone})", op.effect));
        if op.uid != guest.uid {
            let chain = chain(desired, &guest.uid, &op.uid);
            say(number, "because", op.uid.clone(), format!("{} depends on it", chain.join(" → ")));
            continue;
        }
        for reason in &op.reasons {
            let (field, text) = reason.split_once(": ").unwrap_or((reason, ""));
            let text = format!("{text}, by generation {} of what is desired", plan.generation);
            say(number, "because", field.to_owned(), text);
        }
        for request in &op.requests {
            let text = request.to_string();
            let place = format!("{} {}", request.method, request.path);
            let form = text.strip_prefix(&place).unwrap_or_default().trim();
            say(number, "asks", place.clone(), form.to_owned());
        }
        for before in &op.after {
            let other = plan.operations.iter().find(|other| other.number == *before);
            let what = other.map(|op| format!("{} {}", op.action.as_str(), op.uid)).unwrap_or_default();
            say(number, "after", before.to_string(), what);
        }
        for path in paths(desired, guest, edges, &op.fields) {
            say(number, "touches", guest.uid.clone(), path);
        }
        for uid in op.affects.iter().filter(|uid| **uid != guest.uid) {
            say(number, "felt by", uid.clone(), chain(desired, uid, &guest.uid).join(" → "));
        }
    }
    if !concerned.is_empty() && !edges.backups.is_empty() {
        say(None, "touches", guest.uid.clone(), format!("backup jobs: {}", edges.backups.join(", ")));
    }
    // What is not of another guest blocks this one's operations too.
    let other = |remark: &Remark| {
        let mut others = desired.guests.values().filter(|other| other.uid != guest.uid);
        others.any(|other| remark.subject == other.label() || remark.subject == other.uid)
    };
    for (what, remarks) in
        [("blocked", &plan.blocked), ("postponed", &plan.postponed), ("warning", &plan.warnings)]
    {
        for remark in remarks.iter().filter(|remark| !other(remark)) {
            say(None, what, format!("{} `{}`", remark.subject, remark.field), remark.text.clone());
        }
    }
    if plan.observed.contains(&guest.uid) {
        let text = "it differs, and is only observed: desire `policy: manage` to have it changed";
        say(None, "nothing", guest.uid.clone(), text.to_owned());
    } else if lines.is_empty() {
        let text = "it is as desired, or what differs only waits for a restart: `pvegraph drift` tells";
        lines.push(Line {
            operation: None,
            what: "nothing",
            subject: guest.uid.clone(),
            text: text.to_owned(),
        });
    }
    lines
}

/// From who depends on the guest, over the guest and its volume, to storage and node.
fn paths(desired: &Desired, guest: &Guest, edges: &Edges, fields: &[String]) -> Vec<String> {
    let services: Vec<&str> = desired
        .guests
        .values()
        .filter(|other| other.depends_on.contains(&guest.uid))
        .map(|other| other.uid.as_str())
        .collect();
    let services = if services.is_empty() { String::new() } else { format!("{} → ", services.join(", ")) };
    let node = edges.node.as_deref().unwrap_or("a node that no sync saw");
    let touched = |disk: &str| fields.iter().any(|field| field.split('.').next() == Some(disk));
    let disks: Vec<_> = edges.disks.iter().filter(|(disk, _)| touched(disk)).collect();
    if disks.is_empty() {
        return vec![format!("{services}{} → {node}", guest.uid)];
    }
    disks
        .into_iter()
        .map(|(disk, storage)| {
            let storage = storage.as_deref().unwrap_or("a storage that no sync saw");
            format!("{services}{} → {disk} → {storage} → {node}", guest.uid)
        })
        .collect()
}

/// The shortest way along `depends_on` from one guest to another.
fn chain(desired: &Desired, from: &str, to: &str) -> Vec<String> {
    let mut ways = vec![vec![from.to_owned()]];
    let mut seen = std::collections::BTreeSet::from([from.to_owned()]);
    let mut at = 0;
    while let Some(way) = ways.get(at).cloned() {
        at += 1;
        let Some(last) = way.last() else { continue };
        if last == to {
            return way;
        }
        for next in desired.guests.get(last).into_iter().flat_map(|guest| &guest.depends_on) {
            if seen.insert(next.clone()) {
                ways.push(way.iter().cloned().chain([next.clone()]).collect());
            }
        }
    }
    vec![from.to_owned(), to.to_owned()]
}
