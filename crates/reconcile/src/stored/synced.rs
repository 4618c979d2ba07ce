//! How old what the graph has of a cluster is: policies are asked of the estate as the last sync saw it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use pvegraph_graph::labels::SYNC_RUN;
use pvegraph_graph::{Statement, Store, StoreError};
use pvegraph_inventory::{ClusterId, Completeness};
use serde_json::Value;

/// When the last sync began that saw all of a cluster which its token may see, offline nodes aside, in epoch seconds; nothing where there was
/// none.
///
/// # Errors
/// The store's.
pub async fn synced_at(store: &dyn Store, cluster: &ClusterId) -> Result<Option<i64>, StoreError> {
    let whole = [Completeness::Complete, Completeness::Filtered].map(Completeness::as_str);
    let of = |text: String| store.read(Statement::new(text).with("cluster_id", cluster.as_str()));
    let runs = of(format!(
        "MATCH (r:{SYNC_RUN})\nWHERE r.cluster_id = $cluster_id AND r.finished_at IS NOT NULL\n\
         RETURN r.started_at AS at, r.status AS status, r.blocked AS blocked ORDER BY at DESC"
    ))
    .await?;
    let unseen = of(format!(
        "MATCH (r:{SYNC_RUN})-[s:COLLECTED]->(:ProxmoxCluster)\n\
         WHERE r.cluster_id = $cluster_id AND s.status IN ['partial', 'failed']\nRETURN r.started_at AS at, s.node AS node"
    ))
    .await?;
    let offline = of(
        "MATCH (n:ProxmoxNode)\nWHERE n.cluster_id = $cluster_id AND n.status = 'offline'\nRETURN n.name AS name"
            .to_owned(),
    )
    .await?;
    let offline: BTreeSet<&str> = offline.rows.iter().filter_map(|row| row.first()?.as_str()).collect();
    // By run: is an offline node all that it did not see?
    let mut aside: BTreeMap<i64, bool> = BTreeMap::new();
    for row in 0..unseen.rows.len() {
        let Some(at) = unseen.get(row, "at").and_then(Value::as_i64) else { continue };
        let is_offline =
            unseen.get(row, "node").and_then(Value::as_str).is_some_and(|node| offline.contains(node));
        *aside.entry(at).or_insert(true) &= is_offline;
    }
    let saw_all = |row: &usize| {
        let at = runs.get(*row, "at").and_then(Value::as_i64)?;
        let status = runs.get(*row, "status").and_then(Value::as_str).unwrap_or_default();
        let blocked = runs.get(*row, "blocked").is_some_and(|why| !why.is_null());
        (whole.contains(&status) || !blocked && aside.get(&at) == Some(&true)).then_some(at)
    };
    Ok((0..runs.rows.len()).find_map(|row| saw_all(&row)))
}

/// Why what the graph has of a cluster is too old to be asked, and the mend. `now` is in epoch seconds.
pub fn outdated(synced_at: Option<i64>, now: i64, limit: Duration) -> Option<String> {
    let mend = "run `pvegraph sync`";
    let Some(at) = synced_at else {
        return Some(format!(
            "the graph has no sync that saw all of the cluster (offline nodes aside): {mend}"
        ));
    };
    let age = Duration::from_secs(u64::try_from(now.saturating_sub(at)).unwrap_or_default());
    (age > limit).then(|| {
        format!(
            "the last sync that saw all of the cluster began {} ago, and `max_inventory_age` in [apply] is {}: {mend}",
            span(age),
            span(limit)
        )
    })
}

/// A length of time in its largest unit that tells it well.
fn span(time: Duration) -> String {
    match time.as_secs() {
        seconds if seconds < 120 => format!("{seconds} s"),
        seconds if seconds < 7_200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3_600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seen failing with: an age that is counted from the wrong end.
    #[test]
    fn a_graph_is_too_old_from_the_limit_on_and_where_nobody_synced() {
        let day = Duration::from_secs(24 * 3_600);
        assert_eq!(outdated(Some(1_000), 1_000 + 24 * 3_600, day), None);
        // A clock that is behind.
        assert_eq!(outdated(Some(2_000), 1_000, day), None);
        let why = outdated(Some(1_000), 1_001 + 24 * 3_600, day).unwrap();
        assert!(why.contains("began 24 h ago") && why.contains("is 24 h: run `pvegraph sync`"), "{why}");
        let why = outdated(Some(1_000), 1_000 + 119 * 60, Duration::from_secs(90)).unwrap();
        assert!(why.contains("119 min ago") && why.contains("is 90 s"), "{why}");
        assert!(outdated(None, 1_000, day).unwrap().contains("`pvegraph sync`"));
    }
}
