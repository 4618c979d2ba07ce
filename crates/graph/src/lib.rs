//! The graph: label tables, the Cypher made from them, the Neo4j store, migrations, reports.
pub mod apply_lease;
pub mod changes;
pub mod cypher;
pub mod desired_labels;
pub mod dump;
pub mod labels;
pub mod lease;
pub mod migrate;
pub mod neo4j;
pub mod reports;
pub mod runs;
pub mod schema_page;
pub mod store;
pub use store::{Dialect, Rows, SchemaKind, SchemaObject, Statement, Store, StoreError, StoreInfo};
