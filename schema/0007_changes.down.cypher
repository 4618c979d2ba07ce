// Constraints and indexes only: the data stay, and `pvegraph reset` removes them.
DROP INDEX proxmox_change_cluster_id IF EXISTS;
DROP INDEX proxmox_change_lastupdated IF EXISTS;
DROP INDEX proxmox_change_vmid IF EXISTS;
DROP INDEX proxmox_change_at IF EXISTS;
DROP CONSTRAINT proxmox_change_key IF EXISTS;
