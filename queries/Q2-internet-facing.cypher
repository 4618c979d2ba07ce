// Find VMs with internet-facing interfaces
// code: Q2
// question: Which running guests have an interface on vmbr0?
// severity: info
// columns: v.name, v.node, i.mac_address, i.bridge
// needs: guests
// note: the bridge's name is all that it looks at; whether vmbr0 faces the internet is yours to know.
MATCH (v:ProxmoxVM)-[:HAS_NETWORK_INTERFACE]->(i:ProxmoxNetworkInterface)
WHERE i.bridge = 'vmbr0' AND v.status = 'running'
RETURN v.name, v.node, i.mac_address, i.bridge
