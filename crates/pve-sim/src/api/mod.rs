//! The API: which paths there are, who may read them, and the order in which PVE checks a request.

mod access;
mod acl;
mod act;
mod backup;
mod checks;
mod clone;
mod cloudinit;
mod cluster;
mod collections;
mod config;
mod config_container;
mod config_privileges;
mod consoles;
mod create;
mod disks;
mod downloads;
mod factors;
mod firewall;
mod firewall_aliases;
mod firewall_rules;
mod firewall_sets;
mod guests;
mod ha;
mod metrics;
mod migrate;
mod network;
mod node_actions;
mod nodes;
mod pools;
mod power;
mod realms;
mod replication;
mod roles;
pub(crate) mod routes;
mod snapshots;
mod static_reads;
mod storage;
mod tasks;
mod templates;
mod tickets;
mod tokens;
mod users;
mod volume_access;
mod volumes;

use std::collections::BTreeMap;

use crate::answer::Answer;
use crate::schema::{self, Declared};
use crate::world::World;
use crate::world::access::Principal;
use crate::world::state::{Guest, Node, State};

pub(crate) use act::{Act, typed};
pub(crate) use checks::ticket_only;
pub(crate) use tickets::{Presented, authenticate, challenge_for, issue_for, login};

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
    pub parameters: &'a BTreeMap<String, String>,
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

    /// Whether the path's VM runs. PVE asks its process for that, and of a VM that is not there says so in other words than
    /// where it reads the configuration.
    pub fn vm_on_node(&self) -> Result<bool, Answer> {
        let node = &self.node()?.name;
        let vmid = self.text("vmid");
        let found = self.guest(crate::world::state::GuestKind::Qemu).map(Guest::is_running);
        found.map_err(|_| {
            Answer::error(500, format!("unable to find configuration file for VM {vmid} on node '{node}'"))
        })
    }

    /// Whether the path's container runs; one that is not there does not.
    pub fn container_runs(&self) -> bool {
        self.guest(crate::world::state::GuestKind::Lxc).is_ok_and(Guest::is_running)
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
fn unreachable_node(reason: Option<&String>) -> Answer {
    Answer::bare(595, reason.map_or("No route to host", String::as_str))
}

/// Whether the simulator has a handler for a path that PVE knows; `None` where PVE knows none.
pub(crate) fn is_covered(method: &str, path: &str) -> Option<bool> {
    // The index and the login have code of their own.
    if method == "GET" && matches!(path, "" | "/") || path == "/access/ticket" {
        return Some(true);
    }
    schema::find(method, path).map(|declared| {
        routes::handler(method, declared.template).is_some()
            || collections::is_one(declared.template)
            || declared.method.index.is_some()
    })
}

/// Answers a request.
///
/// PVE's order: unknown path or verb (501), privileges (403), the way to the other node (500, 595), parameters (400), and
/// only then the handler. So who lacks rights gets 403 even for a guest that does not exist.
pub(crate) fn answer(world: &World, request: &Request<'_>) -> Answer {
    if request.method == "GET" && matches!(request.path, "" | "/") {
        return static_reads::root();
    }
    let Some(declared) = schema::find(request.method, request.path) else {
        return Answer::not_implemented(request.method, request.path);
    };
    let answer = declared_answer(world, request, &declared);
    crate::contract::check_answer(world, request.method, declared.template, &answer);
    answer
}

fn declared_answer(world: &World, request: &Request<'_>, declared: &Declared) -> Answer {
    let not_there = || Answer::not_implemented(request.method, request.path);
    let handler = match routes::handler(request.method, declared.template) {
        Some(routes::Handle::Read(read)) => Some(Way::Read(read)),
        Some(routes::Handle::Write(write)) => Some(Way::Write(Some(write))),
        None if !collections::is_one(declared.template) => None,
        None if request.method == "GET" => Some(Way::Collection),
        None => Some(Way::Write(None)),
    };
    let mut parameters = request.parameters.clone();
    // What the path says may be said again, but not otherwise.
    let differs =
        |(name, value): &&(String, String)| parameters.get(name).is_some_and(|given| given != value);
    if let Some((name, _)) = declared.in_path.iter().find(differs) {
        let text = "duplicate parameter (already defined in URI) with conflicting values!";
        return Answer::bad_parameter(name, text);
    }
    parameters.extend(declared.in_path.iter().cloned());
    world.settle();
    let (moment, now) = (world.metrics_time(), world.now());
    let principal = &request.principal;
    // A macro rather than a closure: each use borrows the state for a time of its own.
    macro_rules! call {
        ($state:expr) => {
            Call {
                state: $state,
                principal,
                parameters: &parameters,
                local_node: request.local_node,
                moment,
                now,
            }
        };
    }
    match handler {
        Some(Way::Write(write)) => world.update(|state| {
            let answer = checked(declared, &call!(state)).and_then(|()| {
                let mut act = Act {
                    state,
                    method: declared.method,
                    principal,
                    parameters: &parameters,
                    local_node: request.local_node,
                    lxc_path: is_lxc(declared.template),
                    moment,
                    now,
                    milliseconds: world.now_in_milliseconds(),
                    scale: world.time_scale(),
                };
                match write {
                    Some(write) => write(&mut act),
                    None => collections::write(declared.template, request.method, &mut act),
                }
            });
            answer.unwrap_or_else(|refusal| refusal)
        }),
        Some(Way::Collection) => world.read(|state| {
            let call = call!(state);
            let read = || collections::read(declared.template, &call);
            checked(declared, &call).and_then(|()| read()).unwrap_or_else(|refusal| refusal)
        }),
        Some(Way::Read(read)) => world.read(|state| {
            let call = call!(state);
            checked(declared, &call).and_then(|()| read(&call)).unwrap_or_else(|refusal| refusal)
        }),
        None => world.read(|state| match (&declared.method.index, checked(declared, &call!(state))) {
            (Some(key), Ok(())) => match check_index(declared.template, &call!(state)) {
                Ok(()) => index(key, declared.template),
                Err(refusal) => refusal,
            },
            (None, Ok(())) => not_there(),
            (_, Err(refusal)) => refusal,
        }),
    }
}

/// How a request is answered: by a handler of its own, or as one on a collection that is only kept.
enum Way {
    Read(routes::Read),
    Collection,
    Write(Option<routes::Write>),
}

fn is_lxc(template: &str) -> bool {
    template.starts_with("/nodes/{node}/lxc")
}

/// Some indices read the guest's configuration first, others do not look whether it is there.
fn check_index(template: &str, call: &Call<'_>) -> Result<(), Answer> {
    use crate::world::state::GuestKind;
    match template {
        "/nodes/{node}/qemu/{vmid}/status" => call.guest(GuestKind::Qemu).map(drop),
        "/nodes/{node}/lxc/{vmid}" | "/nodes/{node}/lxc/{vmid}/status" => {
            call.guest(GuestKind::Lxc).map(drop)
        }
        _ => Ok(()),
    }
}

/// An index: the fixed names below a path.
fn index(key: &str, template: &str) -> Answer {
    let row = |name: &str| serde_json::Value::Object([(key.to_owned(), name.into())].into_iter().collect());
    Answer::ok(schema::siblings(template).into_iter().map(row).collect())
}

fn checked(declared: &Declared, call: &Call<'_>) -> Result<(), Answer> {
    checks::privileges(declared, call)?;
    if declared.method.proxied && !call.text("node").is_empty() {
        let node = call.node()?;
        let reason = call.state.unreachable.get(node.name.as_ref());
        if !node.online || reason.is_some() {
            return Err(unreachable_node(reason));
        }
    }
    schema::verify(declared.method, call.parameters)
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

    /// What `principal` is answered to a request that may change something, without a server.
    pub fn request(
        &self,
        principal: &Principal,
        method: &str,
        path: &str,
        parameters: &[(&str, &str)],
    ) -> Answer {
        let local_node = self.read(|state| state.nodes.keys().next().cloned().unwrap_or_default());
        let given = parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let (principal, parameters) = (principal.clone(), given.collect());
        answer(self, &Request { method, path, parameters, principal, local_node: &local_node })
    }
}
