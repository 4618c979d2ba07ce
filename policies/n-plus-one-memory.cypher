// Memory when any one node is lost
// name: n-plus-one-memory
// severity: deny
// mend: give guests less memory, stop some, or add a node: without this one the others could not hold all that run
WITH reduce(need = 0, g IN $guests | need + CASE WHEN g.running THEN coalesce(g.memory, 0) ELSE 0 END) AS need
UNWIND $nodes AS lost
WITH need, lost,
     reduce(have = 0, n IN $nodes | have + CASE WHEN n.online AND n.name <> lost.name THEN coalesce(n.memory, 0) ELSE 0 END) AS have
WHERE lost.online AND need > have
RETURN lost.name AS lost_node, need AS bytes_needed, have AS bytes_left
ORDER BY lost_node
