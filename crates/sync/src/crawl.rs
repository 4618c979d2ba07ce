//! The crawl of one cluster: what is asked, in which order, and how each scope ends. It fetches; meaning is given by the
//! inventory's builder, and nothing here knows the graph.

mod guests;
mod proof;
mod survey;

use pve_client::wire::{Lost, Oddity, Read};
use pve_client::{ApiError, PveClient};
use pvegraph_inventory::{Collector, Completeness, GuestType};

pub use self::guests::{Unit, Units};
pub use self::proof::Confirmed;
pub use self::survey::{Survey, SurveyError};

/// Requests that one step has ready for the client, whose own limits decide when they go out.
const ASKED_AT_ONCE: usize = 64;
/// Why the scopes of a node that is offline failed.
const OFFLINE: &str = "the node is offline";

/// How a scope ended, as a crawl tells it; see [`pvegraph_inventory::Scopes::note`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// What was collected.
    pub collector: Collector,
    /// On which node.
    pub node: Option<String>,
    /// How much of it was seen.
    pub status: Completeness,
    /// Why not all of it.
    pub reason: Option<String>,
    /// How many things were seen.
    pub count: usize,
}

impl Note {
    fn new(
        collector: Collector,
        node: Option<&str>,
        status: Completeness,
        reason: Option<String>,
        count: usize,
    ) -> Self {
        Self { collector, node: node.map(str::to_owned), status, reason, count }
    }
}

/// A crawl of one cluster.
#[derive(Clone)]
pub struct Crawl {
    client: PveClient,
}

/// Takes the value of an answer, and notes what was odd in it. True: whole entries of a list were lost, so that it proves nothing.
fn take<T>(read: Read<T>, odd: &mut Vec<String>) -> (T, bool) {
    let lost = read.oddities.iter().any(|oddity| oddity.lost != Lost::Field);
    odd.extend(read.oddities.iter().map(Oddity::to_string));
    (read.value, lost)
}

/// The text of an error with its causes, on one line.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        // Some errors repeat their cause.
        if !text.ends_with(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text.lines().map(str::trim).collect::<Vec<_>>().join(" ")
}

/// How a listing that was answered ends its scope. `lost`: whole entries of it were.
fn listed(lost: bool) -> (Completeness, Option<String>) {
    if lost {
        (Completeness::Partial, Some("entries of the listing were not understood".to_owned()))
    } else {
        (Completeness::Complete, None)
    }
}

/// How a refused or failed listing ends its scope. A 403 is PVE's word that the token may not: filtered, not failed.
fn refused(error: &ApiError) -> (Completeness, Option<String>) {
    let status = if error.is_forbidden() { Completeness::Filtered } else { Completeness::Failed };
    (status, Some(chain(error)))
}

impl Crawl {
    /// A crawl through this client.
    pub fn new(client: PveClient) -> Self {
        Self { client }
    }
}

fn collector(kind: GuestType) -> Collector {
    match kind {
        GuestType::Qemu => Collector::Qemu,
        GuestType::Lxc => Collector::Lxc,
    }
}
