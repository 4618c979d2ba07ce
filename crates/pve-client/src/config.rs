//! What a client is made from.

use std::time::Duration;

use url::Url;

use crate::auth::{Auth, TICKET_RENEWAL};
use crate::retry::RetryPolicy;
use crate::tls::Trust;

/// A connection within one site takes milliseconds and across the world one second; three lost SYNs take seven.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// PVE gives up on another node after 30 s and says so (596). Its answer tells more than a time-out of one's own,
/// so it is waited for.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(40);
/// Requests in flight to one cluster: well below the 500 connections that a PVE API daemon accepts, and enough
/// to hide a latency of 50 ms at a thousand requests a second.
const CLUSTER_CONCURRENCY: usize = 64;
/// Requests in flight that one node answers: its API daemon has three workers by default, each busy with one
/// request at a time, and the web interface wants one of them now and then.
const NODE_CONCURRENCY: usize = 8;

/// How to reach one PVE cluster.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// One or more of the cluster's nodes, `https://host:8006`, in order of preference.
    pub endpoints: Vec<Url>,
    /// Who asks.
    pub auth: Auth,
    /// Whom to trust.
    pub trust: Trust,
    /// How long to wait.
    pub timeouts: Timeouts,
    /// When to try again.
    pub retry: RetryPolicy,
    /// How much to ask at once.
    pub concurrency: Concurrency,
}

impl ClientConfig {
    /// A configuration with the default time-outs, retries and limits.
    #[must_use]
    pub fn new(endpoints: Vec<Url>, auth: Auth, trust: Trust) -> Self {
        Self {
            endpoints,
            auth,
            trust,
            timeouts: Timeouts::default(),
            retry: RetryPolicy::default(),
            concurrency: Concurrency::default(),
        }
    }
}

/// How long to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For a connection and its TLS handshake.
    pub connect: Duration,
    /// For one whole answer.
    pub request: Duration,
    /// For everything that this client does, counted from its first request; `None` is without end.
    pub run: Option<Duration>,
    /// The age at which a ticket is renewed; PVE accepts one for two hours.
    pub ticket_renewal: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: CONNECT_TIMEOUT, request: REQUEST_TIMEOUT, run: None, ticket_renewal: TICKET_RENEWAL }
    }
}

/// How many requests may be in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Concurrency {
    /// To the whole cluster.
    pub cluster: usize,
    /// To any one node, through whatever endpoint.
    pub per_node: usize,
}

impl Default for Concurrency {
    fn default() -> Self {
        Self { cluster: CLUSTER_CONCURRENCY, per_node: NODE_CONCURRENCY }
    }
}
