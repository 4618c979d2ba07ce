//! Graph and end-to-end tests: a real Neo4j, real HTTPS, real processes. One binary, so that they share one server.
mod cli_frame;
mod estate;
mod migrations;
mod store;
mod support;
mod testkit_selftest;
