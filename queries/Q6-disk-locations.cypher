// Map VM disk locations
// code: Q6
// question: Which storage is each volume on?
// severity: info
// columns: v.name, d.disk_id, d.size (bytes), storage, s.type
// needs: guests storages
MATCH (v:ProxmoxVM)-[:HAS_DISK]->(d:ProxmoxDisk)-[:STORED_ON]->(s:ProxmoxStorage)
RETURN v.name, d.disk_id, d.size, s.name as storage, s.type
ORDER BY v.name, d.disk_id
