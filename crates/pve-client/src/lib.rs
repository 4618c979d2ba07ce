//! pve-client

pub mod answers;
mod auth;
mod client;
mod config;
mod endpoints;
mod error;
mod failure;
mod malformed;
mod path;
pub mod property;
mod retry;
mod size;
mod tags;
mod tasks;
mod tls;
mod upid;
mod vmid;
pub mod wire;

pub use auth::{Auth, TokenId, TokenIdParseError};
pub use client::{PveClient, Stats};
pub use config::{ClientConfig, Concurrency, Timeouts};
pub use endpoints::{ENDPOINTS, WRITES};
pub use error::{ApiError, ErrorKind};
pub use failure::{FailureClass, StatusAnswer};
pub use malformed::Malformed;
pub use path::ApiPath;
pub use retry::RetryPolicy;
pub use size::Size;
pub use tags::Tags;
pub use tasks::{TaskEnd, TaskFilter};
pub use tls::{CaSource, FingerprintParseError, Sha256Fingerprint, Trust};
pub use upid::Upid;
pub use vmid::Vmid;
