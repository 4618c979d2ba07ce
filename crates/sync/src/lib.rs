//! One run: crawl → load → sweep → record, with completeness per scope.
pub mod crawl;
pub mod diff;
mod feed;
pub mod identity;
pub mod load;
pub mod run;
pub mod sweep;

pub use crawl::chain;
