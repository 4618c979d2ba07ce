//! A simulated Proxmox VE 8.4 cluster over HTTPS on loopback: for tests, for the demonstration, and for everyone without
//! a spare cluster.
//!
//! A [`World`] is the cluster's state; it is generated from a [`WorldSpec`] (the same one gives the same world) and
//! changed by its methods while a [`SimServer`] serves it. A [`RecordedEstate`] serves recorded answers over the same
//! transport. Answers are raw JSON and share no code with any client, so that neither hides the other's mistakes.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use pve_sim::{ROOT_TOKEN, SimOptions, SimServer, World, WorldSpec};
//!
//! let world = World::generate(&WorldSpec::new("rig", 3, 100, 7));
//! let token = world.credential(ROOT_TOKEN);
//! let server = SimServer::start(world, SimOptions::default()).await?;
//! println!("{} {:?}", server.url(), token);
//! server.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! # Figures
//! `cargo run --release -p pve-sim --example figures` on one core of a small virtual machine: 40,000 config answers a
//! second without the transport; 100,000 guests in 240 MiB, made in 2.2 s; their 32 MB of `/cluster/resources` in 1.1 s.
//!
//! Over HTTPS, with 16 connections that stay and a token: 24,000 to 28,000 config answers of 600 bytes a second of processor
//! time on one core; 14,000 a second on the clock, where the server and the client have a core each (example `https`, which tells
//! how it is measured).
//!
//! # Replay
//! `pve-sim replay FILE` takes recorded requests with their answers, prepares for each the world that its answer
//! presupposes, sends it through the server's code and compares status, reason and the shape and types of the body. Its
//! last line is `agreed N, differing N, not covered N`.
//!
//! # Guarantees
//! - Status, reason phrase, body and the order of checks agree with a genuine PVE 8.4 API server.
//! - Writes change the world as PVE would: parameters are checked by PVE's own schema, long operations are tasks with
//!   UPIDs, logs and locks, and what PVE refuses is refused with the same status and text.
//! - The same specification gives the same answers, apart from certificates, `/nodes/{n}/time`, and metrics that were asked to
//!   be live.
//!
//! # Assumptions
//! - It is for tests: secrets follow from the seed, and whoever knows the seed knows them. It refuses to listen on anything but
//!   loopback unless told otherwise.
//! - A path that PVE knows and this crate does not is answered with 501; `pve-sim replay` tells which.

mod answer;
mod api;
mod contract;
mod control;
mod counters;
mod exchange;
mod faults;
mod http_answer;
mod parameters;
mod recorded;
pub mod replay;
mod schema;
mod server;
mod tls;
mod work;
mod world;

use std::net::{IpAddr, SocketAddr};

pub use answer::{Answer, Body, Rows};
pub use api::routes::templates;
pub use contract::{Contract, ContractError, SCHEMA_VARIABLE, checked_answers, schema_file};
pub use counters::Counters;
pub use faults::{Fault, FaultRule, Faults};
pub use recorded::{RecordedError, RecordedEstate};
pub use server::{Endpoint, PVE_PORT, REFUSAL_DELAY, SimOptions, SimServer, TICKET_LIFETIME};
pub use world::access::{Access, AclEntry, Held, PRIVILEGES, Principal, Privileges, ROOT, Token, User};
pub use world::config::{Config, ConfigValue, Drive, format_size, parse_drive, parse_size};
pub use world::state::{
    BackupJob, EPOCH, Firewall, Guest, GuestKind, GuestSpec, Node, Pool, Power, Selection, Snapshot, State,
    Storage, Task, Usage, Volume, Work,
};
pub use world::{
    AUDIT_TOKEN, Credential, POOL_TOKEN, ROOT_TOKEN, TFA_USER, World, WorldError, WorldFileError, WorldSpec,
};

/// Why the server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum SimError {
    /// An address that others can reach.
    #[error(
        "{address} is not a loopback address; a simulated cluster has guessable secrets, so allow that explicitly"
    )]
    NotLoopback {
        /// The address asked for.
        address: IpAddr,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: choose another port, or port 0 for a free one")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// There is nobody to answer.
    #[error("the world has no node: add one before serving it")]
    NoNodes,
    /// A certificate cannot be made.
    #[error("cannot make a certificate for the simulated cluster")]
    Certificate(#[from] rcgen::Error),
    /// A private key has a form that TLS does not take.
    #[error("cannot use the private key made for the simulated cluster")]
    Key,
    /// TLS refuses the certificate.
    #[error("cannot set up TLS for the simulated cluster")]
    Tls(#[from] rustls::Error),
}
