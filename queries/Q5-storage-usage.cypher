// Find storage backends and their usage
// code: Q5
// question: How full is each storage?
// severity: info
// columns: s.name, s.type, usage_percent, s.shared
// needs: storages node_storages
MATCH (s:ProxmoxStorage)
WHERE s.total > 0
RETURN s.name, s.type,
       (s.used * 100.0 / s.total) as usage_percent,
       s.shared
ORDER BY usage_percent DESC
