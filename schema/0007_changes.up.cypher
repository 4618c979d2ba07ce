// What syncs saw to change.
CREATE CONSTRAINT proxmox_change_key IF NOT EXISTS FOR (n:ProxmoxChange) REQUIRE (n.cluster_id, n.at, n.change_id) IS UNIQUE;
CREATE INDEX proxmox_change_at IF NOT EXISTS FOR (n:ProxmoxChange) ON (n.at);
CREATE INDEX proxmox_change_vmid IF NOT EXISTS FOR (n:ProxmoxChange) ON (n.vmid);
CREATE INDEX proxmox_change_lastupdated IF NOT EXISTS FOR (n:ProxmoxChange) ON (n.lastupdated);
CREATE INDEX proxmox_change_cluster_id IF NOT EXISTS FOR (n:ProxmoxChange) ON (n.cluster_id);
