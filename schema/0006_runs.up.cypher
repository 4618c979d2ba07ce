// The runs that applied plans. No sync writes them.
CREATE CONSTRAINT run_key IF NOT EXISTS FOR (n:Run) REQUIRE (n.cluster_id, n.run) IS UNIQUE;
CREATE INDEX run_lastupdated IF NOT EXISTS FOR (n:Run) ON (n.lastupdated);
CREATE INDEX run_cluster_id IF NOT EXISTS FOR (n:Run) ON (n.cluster_id);
