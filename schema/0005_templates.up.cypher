// The catalogue of templates that new guests are copies of. No sync writes it.
CREATE CONSTRAINT desired_template_key IF NOT EXISTS FOR (n:DesiredTemplate) REQUIRE (n.cluster_id, n.name) IS UNIQUE;
CREATE INDEX desired_template_lastupdated IF NOT EXISTS FOR (n:DesiredTemplate) ON (n.lastupdated);
CREATE INDEX desired_template_cluster_id IF NOT EXISTS FOR (n:DesiredTemplate) ON (n.cluster_id);
