//! Plans carried out: real processes, the simulator over HTTPS, a real Neo4j.

mod back;
mod begins;
mod bench;
mod clone;
mod disks;
mod faults;
mod history;
mod hot;
mod kills;
mod life;
mod lost;
mod make;
mod refused;
mod snapshots;

use bench::Bench;
