// Snapshots to look at
// code: R18
// question: Which snapshots are old, hold the machine's memory, or are deep in a chain?
// severity: warning
// param: days = 30
// param: chain = 5
// columns: name, node, vmid, cluster_id, snapshot, age_days, with_memory, depth (1 for the first of a chain)
// needs: guests snapshots
// note: the age is that of the last sync of the cluster; without one the guest's configuration does not say when it was made.
MATCH (s:ProxmoxSnapshot)-[:SNAPSHOT_OF]->(v:ProxmoxVM)
MATCH (c:ProxmoxCluster)
WHERE c.cluster_id = v.cluster_id
MATCH (s)-[:PARENT_SNAPSHOT*0..]->(before:ProxmoxSnapshot)
WITH s, v, (c.lastupdated - s.created_at) / 86400 AS age_days, count(before) AS depth
WHERE age_days IS NULL OR age_days >= $days OR s.with_memory = true OR depth > $chain
RETURN v.name AS name, v.node AS node, v.vmid AS vmid, v.cluster_id AS cluster_id, s.name AS snapshot, age_days,
       s.with_memory AS with_memory, depth
ORDER BY age_days DESC, cluster_id, vmid, snapshot
