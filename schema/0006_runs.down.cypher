// Constraints and indexes only: the data stay.
DROP INDEX run_cluster_id IF EXISTS;
DROP INDEX run_lastupdated IF EXISTS;
DROP CONSTRAINT run_key IF EXISTS;
