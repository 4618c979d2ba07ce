//! Scratch.
#[path = "../e2e/testkit_selftest.rs"]
mod testkit_selftest;
