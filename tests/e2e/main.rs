//! Graph and end-to-end tests: a real Neo4j, real HTTPS, real processes. One binary, so that they share one server.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests and their helpers fail by panicking")]

mod apply;
mod bad_input;
mod changes;
mod cli_frame;
mod commits;
mod contract;
mod doctor;
mod embedded;
mod estate;
mod honesty;
mod kills;
mod lease;
mod migrations;
mod outages;
mod reconcile;
mod reports;
mod scenarios;
mod schema;
mod seed;
mod soak;
mod store;
mod support;
mod testkit_selftest;
mod vanish;
