//! One run: crawl → load → sweep → record, with completeness per scope.
mod batch;
mod coverage;
pub mod crawl;
pub mod diff;
mod feed;
pub mod history;
pub mod identity;
pub mod load;
pub mod run;
pub mod sweep;
mod unchanged;

pub use crawl::chain;
