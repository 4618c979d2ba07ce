// Guests that must not share a node
// name: anti-affinity
// severity: deny
// mend: desire another node of one of the two
UNWIND $guests AS g
WITH g WHERE g.running AND g.uid IS NOT NULL
WITH g.node AS node, collect(g.uid) AS uids
UNWIND uids AS uid
MATCH (a:DesiredVM {cluster_id: $cluster_id, uid: uid})-[:ANTI_AFFINITY]->(b:DesiredVM)
WHERE b.uid IN uids
RETURN a.uid AS guest, b.uid AS other, node
ORDER BY guest, other
