//! One run: crawl → load → sweep → record, with completeness per scope.
mod batch;
pub mod crawl;
pub mod diff;
mod feed;
pub mod identity;
pub mod load;
pub mod run;
pub mod sweep;

pub use crawl::chain;
