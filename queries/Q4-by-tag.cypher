// Find VMs by tag
// code: Q4
// question: Which guests have the tag `production`?
// severity: info
// columns: v.name, v.node, v.status, v.tags
// needs: guests
MATCH (v:ProxmoxVM)
WHERE 'production' IN v.tags
RETURN v.name, v.node, v.status, v.tags
