//! Plans of small estates.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod bad_input;
mod beforehand;
mod clones;
mod estate;
mod file;
mod guards;
mod kept;
mod moves;
mod never;
mod operations;
mod own;
mod places;
mod properties;
mod requests;
mod snapshots;
