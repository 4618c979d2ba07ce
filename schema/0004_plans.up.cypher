// What may be done to guests, and the plans that were approved. No sync writes it.
CREATE CONSTRAINT managed_scope_key IF NOT EXISTS FOR (n:ManagedScope) REQUIRE (n.cluster_id, n.name) IS UNIQUE;
CREATE INDEX managed_scope_lastupdated IF NOT EXISTS FOR (n:ManagedScope) ON (n.lastupdated);
CREATE INDEX managed_scope_cluster_id IF NOT EXISTS FOR (n:ManagedScope) ON (n.cluster_id);
CREATE CONSTRAINT policy_key IF NOT EXISTS FOR (n:Policy) REQUIRE (n.cluster_id, n.name) IS UNIQUE;
CREATE INDEX policy_lastupdated IF NOT EXISTS FOR (n:Policy) ON (n.lastupdated);
CREATE INDEX policy_cluster_id IF NOT EXISTS FOR (n:Policy) ON (n.cluster_id);
CREATE CONSTRAINT plan_key IF NOT EXISTS FOR (n:Plan) REQUIRE (n.cluster_id, n.sha256) IS UNIQUE;
CREATE INDEX plan_lastupdated IF NOT EXISTS FOR (n:Plan) ON (n.lastupdated);
CREATE INDEX plan_cluster_id IF NOT EXISTS FOR (n:Plan) ON (n.cluster_id);
CREATE CONSTRAINT plan_op_key IF NOT EXISTS FOR (n:PlanOp) REQUIRE (n.cluster_id, n.sha256, n.number) IS UNIQUE;
CREATE INDEX plan_op_lastupdated IF NOT EXISTS FOR (n:PlanOp) ON (n.lastupdated);
CREATE INDEX plan_op_cluster_id IF NOT EXISTS FOR (n:PlanOp) ON (n.cluster_id);
