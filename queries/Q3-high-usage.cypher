// Find nodes with high resource usage
// code: Q3
// question: Which nodes are short of processor or memory now?
// severity: info
// columns: n.name, n.cpu_usage, memory_percent, n.status
// needs: nodes
MATCH (n:ProxmoxNode)
WHERE n.cpu_usage > 0.8 OR (n.memory_used * 1.0 / n.memory_total) > 0.9
RETURN n.name, n.cpu_usage,
       (n.memory_used * 100.0 / n.memory_total) as memory_percent,
       n.status
ORDER BY n.cpu_usage DESC
