//! Plans carried out: real processes, the simulator over HTTPS, a real Neo4j.

mod bench;
mod hot;

use bench::Bench;
