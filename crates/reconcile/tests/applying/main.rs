//! Plans carried out on a simulated cluster, within this process: waits are short, and no graph is needed.

// A failed expectation anywhere in a test is a failed test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod destroy;
mod migrate;
mod power;
mod properties;
mod rig;
mod rollback;
mod unmarked;
