//! Graph and end-to-end tests: a real Neo4j, real HTTPS, real processes. One binary, so that they share one server.
mod cli_frame;
mod contract;
mod embedded;
mod estate;
mod scenarios;
mod lease;
mod migrations;
mod schema;
mod store;
mod support;
mod testkit_selftest;
