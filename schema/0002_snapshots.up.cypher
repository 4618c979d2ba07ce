// Snapshots of guests.
CREATE CONSTRAINT proxmox_snapshot_key IF NOT EXISTS FOR (n:ProxmoxSnapshot) REQUIRE (n.cluster_id, n.vmid, n.name) IS UNIQUE;
CREATE INDEX proxmox_snapshot_id IF NOT EXISTS FOR (n:ProxmoxSnapshot) ON (n.id);
CREATE INDEX proxmox_snapshot_lastupdated IF NOT EXISTS FOR (n:ProxmoxSnapshot) ON (n.lastupdated);
CREATE INDEX proxmox_snapshot_cluster_id IF NOT EXISTS FOR (n:ProxmoxSnapshot) ON (n.cluster_id);
