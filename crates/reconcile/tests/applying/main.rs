//! Plans carried out on a simulated cluster, within this process: waits are short, and no graph is needed.

// A failed expectation anywhere in a test is a failed test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod beforehand;
mod busy;
mod destroy;
mod estates;
mod kills;
mod made;
mod migrate;
mod plugged;
mod power;
mod properties;
mod renamed;
mod rig;
mod rollback;
mod secrets;
mod unmarked;
