// Guests in no enabled backup job
// code: R1
// question: Which guests does no enabled backup job cover?
// severity: warning
// columns: name, node, vmid, cluster_id, status, disabled_jobs
// needs: guests backup_jobs
// note: asks the jobs themselves (`included_volumes`); PVE's own `not-backed-up` counts disabled jobs as cover. Templates are left out.
MATCH (v:ProxmoxVM)
WHERE coalesce(v.template, false) = false
  AND NOT EXISTS {
    MATCH (j:ProxmoxBackupJob)-[:BACKS_UP]->(v)
    WHERE j.enabled = true
  }
OPTIONAL MATCH (d:ProxmoxBackupJob)-[:BACKS_UP]->(v)
RETURN v.name AS name, v.node AS node, v.vmid AS vmid, v.cluster_id AS cluster_id, v.status AS status,
       count(d) AS disabled_jobs
ORDER BY cluster_id, vmid
