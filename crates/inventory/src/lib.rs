//! The nouns of an estate: identities, model, builder; pure, without I/O.
pub mod build;
pub mod model;
pub mod scope;
pub use model::*;
pub use scope::{Collector, Completeness, Scope, Scopes};
