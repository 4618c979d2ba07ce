//! Desired state of guests, and what the clusters have instead.
//!
//! The core is pure: [`canonical`] (one form for each option), [`document`] (what a file says), [`desired`] (what it means),
//! [`diff`] (what differs), [`plan`] (what would be done) and [`discover`] (what a cluster already fulfils). [`live`] and [`surroundings`] ask
//! clusters, [`stored`] reads and writes the graph; nothing here changes a cluster.

pub mod audit;
pub mod canonical;
pub mod desired;
pub mod diff;
pub mod discover;
pub mod document;
pub mod edits;
pub mod journal;
pub mod lines;
pub mod live;
pub mod plan;
pub mod stored;
pub mod surroundings;
