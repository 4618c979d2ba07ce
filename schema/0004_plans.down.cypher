// Constraints and indexes only: the data stay.
DROP INDEX plan_op_cluster_id IF EXISTS;
DROP INDEX plan_op_lastupdated IF EXISTS;
DROP CONSTRAINT plan_op_key IF EXISTS;
DROP INDEX plan_cluster_id IF EXISTS;
DROP INDEX plan_lastupdated IF EXISTS;
DROP CONSTRAINT plan_key IF EXISTS;
DROP INDEX policy_cluster_id IF EXISTS;
DROP INDEX policy_lastupdated IF EXISTS;
DROP CONSTRAINT policy_key IF EXISTS;
DROP INDEX managed_scope_cluster_id IF EXISTS;
DROP INDEX managed_scope_lastupdated IF EXISTS;
DROP CONSTRAINT managed_scope_key IF EXISTS;
