// Find all running VMs
// code: Q1
// question: Which guests run, largest first?
// severity: info
// columns: v.name, v.node, v.memory (bytes), v.cpu_cores
// needs: guests
MATCH (v:ProxmoxVM)
WHERE v.status = 'running' AND v.template = false
RETURN v.name, v.node, v.memory, v.cpu_cores
ORDER BY v.memory DESC
