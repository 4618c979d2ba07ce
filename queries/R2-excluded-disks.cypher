// Disks excluded from backup
// code: R2
// question: Which volumes would a backup of their guest leave out?
// severity: warning
// columns: name, node, vmid, cluster_id, disk_id, storage, size (bytes)
// needs: guests
// note: machines: `backup=0`; containers: mount points without `backup=1`. Whether a job covers the guest at all is R1.
MATCH (v:ProxmoxVM)-[:HAS_DISK]->(d:ProxmoxDisk)
WHERE d.attached = true AND d.backup = false
RETURN v.name AS name, v.node AS node, v.vmid AS vmid, v.cluster_id AS cluster_id, d.disk_id AS disk_id,
       d.storage AS storage, d.size AS size
ORDER BY cluster_id, vmid, disk_id
