// Guests that must not share a node
// name: anti-affinity
// severity: deny
// mend: desire another node of one of the two
MATCH (a:DesiredVM)-[:ANTI_AFFINITY]->(b:DesiredVM)
WHERE a.cluster_id = $cluster_id
WITH a.uid AS guest, b.uid AS other
WITH guest, other, [g IN $guests WHERE g.uid = guest][0] AS one, [g IN $guests WHERE g.uid = other][0] AS two
WHERE one.running AND two.running AND one.node = two.node
RETURN guest, other, one.node AS node
ORDER BY guest, other
