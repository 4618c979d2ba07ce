//! Desired state of guests, and what the clusters have instead.
//!
//! The core is pure: [`canonical`] (one form for each option), [`document`] (what a file says), [`desired`] (what it means),
//! [`diff`] (what differs), [`scope`], [`marker`] and [`versions`] (what may be touched), [`plan`] (what would be done), [`after`] (the estate then), [`rollback`] (the way back) and [`discover`] (what a cluster already fulfils). [`live`] and [`surroundings`] ask
//! clusters, [`recorded`] tells what a sync had seen of one, [`stored`] reads and writes the graph, [`policy`] and [`why`] ask it about a plan. [`apply`] alone changes a cluster,
//! with [`journal`] and [`audit`], and keeps in [`sent`] which passwords it sent.

pub mod adopt;
pub mod after;
pub mod apply;
pub mod audit;
pub mod canonical;
pub mod desired;
pub mod diff;
pub mod discover;
pub mod document;
pub mod edits;
pub mod import;
pub mod journal;
pub mod lines;
pub mod live;
pub mod marker;
pub mod own;
pub mod plan;
pub mod policy;
pub mod recorded;
pub mod rollback;
pub mod scope;
pub mod sent;
pub mod stored;
pub mod surroundings;
pub mod versions;
pub mod why;
