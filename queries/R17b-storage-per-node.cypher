// Storage usage per node
// code: R17b
// question: How full is each storage on each node?
// severity: info
// param: full = 0.85
// columns: storage, node, cluster_id, state, type, shared, usage (0 to 1), used (bytes), total (bytes)
// needs: storages node_storages
// note: a full local disk can't hide in a sum here. `unknown`: the node did not say in the last sync; `inactive`: not mounted there.
MATCH (s:ProxmoxStorage)-[a:AVAILABLE_ON]->(n:ProxmoxNode)
WHERE s.enabled = true
WITH s, a, n,
     CASE WHEN a.total > 0 THEN a.used * 1.0 / a.total ELSE null END AS usage
RETURN s.name AS storage, n.name AS node, s.cluster_id AS cluster_id,
       CASE
         WHEN n.status <> 'online' OR a.active IS NULL THEN 'unknown'
         WHEN a.active = false THEN 'inactive'
         WHEN usage IS NULL THEN 'unknown'
         WHEN usage >= $full THEN 'full'
         ELSE 'ok'
       END AS state,
       s.type AS type, s.shared AS shared, usage, a.used AS used, a.total AS total
ORDER BY usage DESC, cluster_id, storage, node
