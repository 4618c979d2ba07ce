// Find VMs without backup protection
// code: Q7
// question: Which guests have no volume that a backup would take?
// severity: info
// columns: v.name, v.node, v.cluster_id
// needs: guests
// note: EFI and TPM volumes count here, and whether any job runs does not; R1 asks the jobs.
MATCH (v:ProxmoxVM)
WHERE v.template = false
  AND NOT EXISTS {
    MATCH (v)-[:HAS_DISK]->(d:ProxmoxDisk)
    WHERE d.backup = true
  }
RETURN v.name, v.node, v.cluster_id
