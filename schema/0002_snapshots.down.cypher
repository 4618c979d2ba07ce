// Constraints and indexes only: the data stay, and `pvegraph reset` removes them.
DROP INDEX proxmox_snapshot_cluster_id IF EXISTS;
DROP INDEX proxmox_snapshot_lastupdated IF EXISTS;
DROP INDEX proxmox_snapshot_id IF EXISTS;
DROP CONSTRAINT proxmox_snapshot_key IF EXISTS;
