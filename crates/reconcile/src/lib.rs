//! Desired state of guests, and what the clusters have instead.

pub mod canonical;
