// Hot and idle nodes
// code: R17
// question: Which nodes are short of processor or memory, which are idle, and of which is it not known?
// severity: warning
// param: cpu = 0.8
// param: memory = 0.9
// param: idle = 0.1
// columns: name, cluster_id, state, cpu_usage (0 to 1), memory_usage (0 to 1), status
// needs: nodes
// note: the moment of the last sync, not an average. A node that is offline, or whose load the token may not see, is `unknown`.
MATCH (n:ProxmoxNode)
WITH n, n.memory_used * 1.0 / n.memory_total AS memory_usage
WITH n, memory_usage,
     CASE
       WHEN n.status <> 'online' OR n.cpu_usage IS NULL OR memory_usage IS NULL OR n.stale_since IS NOT NULL THEN 'unknown'
       WHEN n.cpu_usage >= $cpu OR memory_usage >= $memory THEN 'hot'
       WHEN n.cpu_usage <= $idle AND memory_usage <= $memory / 2 THEN 'idle'
       ELSE 'ok'
     END AS state
WHERE state <> 'ok'
RETURN n.name AS name, n.cluster_id AS cluster_id, state, n.cpu_usage AS cpu_usage, memory_usage, n.status AS status
ORDER BY CASE state WHEN 'hot' THEN 0 WHEN 'unknown' THEN 1 ELSE 2 END, cpu_usage DESC, cluster_id, name
