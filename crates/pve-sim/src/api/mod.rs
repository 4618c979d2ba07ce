//! The API: which paths there are, who may read them, and the order in which PVE checks a request.

mod access;
mod backup;
mod cluster;
mod guests;
mod metrics;
mod nodes;
mod pools;
pub(crate) mod routes;
mod storage;
mod tickets;

use std::collections::BTreeMap;

use crate::answer::Answer;
use crate::world::World;
use crate::world::access::Principal;
use crate::world::state::{Guest, Node, State};

pub(crate) use tickets::{Presented, authenticate, login};

/// A request as the API sees it: authenticated, its path below `/api2/json` decoded, its parameters taken apart.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// `GET`, `POST`, `PUT` or `DELETE`.
    pub method: &'a str,
    /// The path below `/api2/json`, such as `/nodes/pve1/qemu`.
    pub path: &'a str,
    /// The parameters of query and body.
    pub parameters: BTreeMap<String, String>,
    /// Who asks.
    pub principal: Principal,
    /// The node that got the request.
    pub local_node: &'a str,
}

/// A request on its way through one route's handler.
pub(crate) struct Call<'a> {
    pub state: &'a State,
    pub principal: &'a Principal,
    /// Parameters of the path, the query and the body.
    pub parameters: BTreeMap<String, String>,
    pub local_node: &'a str,
    /// The moment to compute metrics for, if they are to vary.
    pub moment: Option<u64>,
    /// The cluster's time in seconds since 1970.
    pub now: u64,
}

impl<'a> Call<'a> {
    /// A parameter; those of the path are always there.
    pub fn text(&self, name: &str) -> &str {
        self.parameters.get(name).map_or("", String::as_str)
    }

    /// Whether a boolean parameter is set; [`routes`] has checked its spelling.
    pub fn flag(&self, name: &str) -> bool {
        self.text(name) == "1"
    }

    /// Whether the caller holds any of `privileges` at `path`.
    pub fn allows(&self, path: &str, privileges: &[&str]) -> bool {
        self.state.allows(self.principal, path, privileges)
    }

    /// Whether the caller may see a guest.
    pub fn sees_guest(&self, vmid: u32) -> bool {
        self.allows(&format!("/vms/{vmid}"), &["VM.Audit"])
    }

    /// Whether the caller may see a storage: any of the two privileges will do.
    pub fn sees_storage(&self, storage: &str) -> bool {
        self.allows(&format!("/storage/{storage}"), &["Datastore.Audit", "Datastore.AllocateSpace"])
    }

    /// The node that the path names; the dispatcher has made sure that there is one.
    pub fn node(&self) -> Result<&'a Node, Answer> {
        let name = match self.text("node") {
            "localhost" => self.local_node,
            name => name,
        };
        self.state.nodes.get(name).ok_or_else(|| unknown_node(name))
    }

    /// The guest that the path names, if it is of that kind and on that node.
    pub fn guest(&self, kind: crate::world::state::GuestKind) -> Result<&'a Guest, Answer> {
        let node = self.node()?;
        let vmid = self.text("vmid");
        let found = vmid.parse::<u32>().ok().and_then(|vmid| self.state.guests.get(&vmid));
        found
            .filter(|guest| guest.kind == kind && guest.node == node.name)
            .ok_or_else(|| no_configuration_file(&node.name, kind.config_directory(), vmid))
    }
}

/// An unknown guest, or one on another node or of the other kind: 500 with the path of the missing file.
fn no_configuration_file(node: &str, directory: &str, vmid: &str) -> Answer {
    Answer::error(500, format!("Configuration file 'nodes/{node}/{directory}/{vmid}.conf' does not exist"))
}

/// An unknown node: 500, for PVE tries to look up its address.
fn unknown_node(name: &str) -> Answer {
    let text = "failed to get address info for";
    Answer::error(500, format!("hostname lookup '{name}' failed - {text}: {name}: Name or service not known"))
}

/// A known node that is down: 595 without a body.
fn unreachable_node() -> Answer {
    Answer::bare(595, "No route to host")
}

/// Answers a request.
///
/// PVE's order: unknown path or verb (501), privileges (403), the way to the other node (500, 595), parameters (400), and
/// only then the handler. So who lacks rights gets 403 even for a guest that does not exist.
pub(crate) fn answer(world: &World, request: &Request<'_>) -> Answer {
    let Some((route, from_path)) = routes::find(request.method, request.path) else {
        return Answer::not_implemented(request.method, request.path);
    };
    let mut parameters = request.parameters.clone();
    parameters.extend(from_path);
    let (moment, now) = (world.metrics_time(), world.now());
    world.read(|state| {
        let call = Call {
            state,
            principal: &request.principal,
            parameters,
            local_node: request.local_node,
            moment,
            now,
        };
        checked(route, &call).unwrap_or_else(|refusal| refusal)
    })
}

fn checked(route: &routes::Route, call: &Call<'_>) -> Result<Answer, Answer> {
    route.check_privileges(call)?;
    if route.proxied && !call.node()?.online {
        return Err(unreachable_node());
    }
    route.check_parameters(call)?;
    (route.handle)(call)
}

impl World {
    /// What `root@pam` is answered, without a server: for expected values in tests.
    ///
    /// `path` is below `/api2/json` and may have a query.
    pub fn get(&self, path: &str) -> Answer {
        self.get_as(&Principal::User(crate::world::access::ROOT.to_owned()), path)
    }

    /// What `principal` is answered, without a server.
    pub fn get_as(&self, principal: &Principal, path: &str) -> Answer {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let local_node = self.read(|state| state.nodes.keys().next().cloned().unwrap_or_default());
        let parameters = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        let principal = principal.clone();
        answer(self, &Request { method: "GET", path, parameters, principal, local_node: &local_node })
    }
}
