// Cluster topology overview
// code: Q8
// question: How many guests are on each node?
// severity: info
// columns: cluster, node, vm_count, n.status
// needs: nodes guests
MATCH (c:ProxmoxCluster)-[:CONTAINS_NODE]->(n:ProxmoxNode)
OPTIONAL MATCH (n)-[:HOSTS_VM]->(v:ProxmoxVM)
WHERE v.template = false
RETURN c.name as cluster,
       n.name as node,
       count(v) as vm_count,
       n.status
ORDER BY c.name, n.name
