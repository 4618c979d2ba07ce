// Constraints and indexes only: the data stay.
DROP INDEX desired_template_cluster_id IF EXISTS;
DROP INDEX desired_template_lastupdated IF EXISTS;
DROP CONSTRAINT desired_template_key IF EXISTS;
