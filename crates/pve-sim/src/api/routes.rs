//! The table of paths: each with its privileges, its parameters and its handler, as `api-schema` of PVE 8.4 declares them.

use std::sync::OnceLock;

use super::{Call, access, backup, cluster, guests, nodes, pools, storage};
use crate::answer::Answer;

/// Who may call a path.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Check {
    /// Every authenticated caller; the answer may be filtered.
    Anyone,
    /// Who holds any of the privileges at the path, in which `{name}` stands for a parameter.
    Held(&'static str, &'static [&'static str]),
}

/// The kind of a parameter, as far as reading needs it checked.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Text,
    Flag,
    Integer,
}

/// One path and verb.
#[derive(Debug)]
pub(crate) struct Route {
    method: &'static str,
    template: &'static str,
    check: Check,
    /// Whether the node in the path answers, and not the one asked.
    pub proxied: bool,
    parameters: &'static [(&'static str, Kind)],
    pub handle: for<'a, 'b> fn(&'a Call<'b>) -> Result<Answer, Answer>,
}

type Handler = for<'a, 'b> fn(&'a Call<'b>) -> Result<Answer, Answer>;

const AUDIT_ALL: Check = Check::Held("/", &["Sys.Audit"]);
const AUDIT_NODE: Check = Check::Held("/nodes/{node}", &["Sys.Audit"]);
const AUDIT_GUEST: Check = Check::Held("/vms/{vmid}", &["VM.Audit"]);
const SEE_STORAGE: Check = Check::Held("/storage/{storage}", &["Datastore.Audit", "Datastore.AllocateSpace"]);

const fn read(template: &'static str, check: Check, handle: Handler) -> Route {
    // Paths below a node are answered by that node, its index excepted.
    let proxied = template.len() > "/nodes/{node}".len() && matches!(template.as_bytes(), [b'/', b'n', ..]);
    Route { method: "GET", template, check, proxied, parameters: &[], handle }
}

const ROUTES: &[Route] = &[
    read("/version", Check::Anyone, nodes::version),
    read("/access/permissions", Check::Anyone, access::permissions)
        .taking(&[("path", Kind::Text), ("userid", Kind::Text)]),
    read("/access/users", Check::Anyone, access::users)
        .taking(&[("enabled", Kind::Flag), ("full", Kind::Flag)]),
    read("/access/roles", Check::Anyone, access::roles),
    read("/access/acl", Check::Anyone, access::acl),
    read("/cluster/status", AUDIT_ALL, cluster::status),
    read("/cluster/resources", Check::Anyone, cluster::resources).taking(&[("type", Kind::Text)]),
    read("/cluster/nextid", Check::Anyone, cluster::next_id).taking(&[("vmid", Kind::Integer)]),
    read("/cluster/tasks", Check::Anyone, cluster::none),
    read("/cluster/options", Check::Anyone, cluster::options),
    read("/cluster/replication", Check::Anyone, cluster::none),
    read("/cluster/ha/resources", AUDIT_ALL, cluster::ha_resources).taking(&[("type", Kind::Text)]),
    read("/cluster/ha/groups", AUDIT_ALL, cluster::none),
    read("/cluster/backup", AUDIT_ALL, backup::jobs),
    read("/cluster/backup/{id}", AUDIT_ALL, backup::job),
    read("/cluster/backup/{id}/included_volumes", AUDIT_ALL, backup::included_volumes),
    read("/cluster/backup-info/not-backed-up", AUDIT_ALL, backup::not_backed_up),
    read("/storage", Check::Anyone, storage::definitions).taking(&[("type", Kind::Text)]),
    read(
        "/storage/{storage}",
        Check::Held("/storage/{storage}", &["Datastore.Allocate"]),
        storage::definition,
    ),
    read("/pools", Check::Anyone, pools::list).taking(&[("poolid", Kind::Text), ("type", Kind::Text)]),
    read("/pools/{poolid}", Check::Held("/pool/{poolid}", &["Pool.Audit"]), pools::pool)
        .taking(&[("type", Kind::Text)]),
    read("/nodes", Check::Anyone, nodes::list),
    read("/nodes/{node}", Check::Anyone, nodes::index),
    read("/nodes/{node}/status", AUDIT_NODE, nodes::status),
    read("/nodes/{node}/time", AUDIT_NODE, nodes::time),
    read("/nodes/{node}/version", Check::Anyone, nodes::version),
    read("/nodes/{node}/network", Check::Anyone, nodes::network).taking(&[("type", Kind::Text)]),
    read("/nodes/{node}/certificates/info", Check::Anyone, nodes::certificates),
    read("/nodes/{node}/subscription", Check::Anyone, nodes::subscription),
    read("/nodes/{node}/config", AUDIT_ALL, nodes::config).taking(&[("property", Kind::Text)]),
    read("/nodes/{node}/tasks", Check::Anyone, cluster::none).taking(&[
        ("errors", Kind::Flag),
        ("limit", Kind::Integer),
        ("since", Kind::Integer),
        ("source", Kind::Text),
        ("start", Kind::Integer),
        ("statusfilter", Kind::Text),
        ("typefilter", Kind::Text),
        ("until", Kind::Integer),
        ("userfilter", Kind::Text),
        ("vmid", Kind::Integer),
    ]),
    read("/nodes/{node}/storage", Check::Anyone, storage::on_node).taking(&[
        ("content", Kind::Text),
        ("enabled", Kind::Flag),
        ("format", Kind::Flag),
        ("storage", Kind::Text),
        ("target", Kind::Text),
    ]),
    read("/nodes/{node}/storage/{storage}/status", SEE_STORAGE, storage::status),
    read("/nodes/{node}/storage/{storage}/content", SEE_STORAGE, storage::content)
        .taking(&[("content", Kind::Text), ("vmid", Kind::Integer)]),
    read("/nodes/{node}/qemu", Check::Anyone, guests::list_qemu).taking(&[("full", Kind::Flag)]),
    read("/nodes/{node}/qemu/{vmid}/config", AUDIT_GUEST, guests::config_qemu).taking(CONFIG),
    read("/nodes/{node}/qemu/{vmid}/pending", AUDIT_GUEST, guests::pending_qemu),
    read("/nodes/{node}/qemu/{vmid}/status/current", AUDIT_GUEST, guests::status_qemu),
    read("/nodes/{node}/qemu/{vmid}/snapshot", AUDIT_GUEST, guests::snapshots_qemu),
    read("/nodes/{node}/qemu/{vmid}/agent/network-get-interfaces", MONITOR, guests::agent),
    read("/nodes/{node}/qemu/{vmid}/agent/get-osinfo", MONITOR, guests::agent),
    read("/nodes/{node}/qemu/{vmid}/agent/get-host-name", MONITOR, guests::agent),
    read("/nodes/{node}/lxc", Check::Anyone, guests::list_lxc),
    read("/nodes/{node}/lxc/{vmid}/config", AUDIT_GUEST, guests::config_lxc).taking(CONFIG),
    read("/nodes/{node}/lxc/{vmid}/pending", AUDIT_GUEST, guests::pending_lxc),
    read("/nodes/{node}/lxc/{vmid}/status/current", AUDIT_GUEST, guests::status_lxc),
    read("/nodes/{node}/lxc/{vmid}/snapshot", AUDIT_GUEST, guests::snapshots_lxc),
    read("/nodes/{node}/lxc/{vmid}/interfaces", AUDIT_GUEST, guests::interfaces_lxc),
];

const MONITOR: Check = Check::Held("/vms/{vmid}", &["VM.Monitor"]);
const CONFIG: &[(&str, Kind)] = &[("current", Kind::Flag), ("snapshot", Kind::Text)];

impl Route {
    const fn taking(self, parameters: &'static [(&'static str, Kind)]) -> Self {
        Self { parameters, ..self }
    }

    /// 403 unless the caller holds what the path asks for.
    pub fn check_privileges(&self, call: &Call<'_>) -> Result<(), Answer> {
        let Check::Held(template, privileges) = self.check else { return Ok(()) };
        let path = fill(template, call);
        if call.allows(&path, privileges) { Ok(()) } else { Err(Answer::forbidden(&path, privileges)) }
    }

    /// 400 for a parameter that the path does not know, or one of the wrong type.
    pub fn check_parameters(&self, call: &Call<'_>) -> Result<(), Answer> {
        for (name, value) in &call.parameters {
            if self.template.contains(&format!("{{{name}}}")) {
                check_path_parameter(name, value)?;
                continue;
            }
            let known = self.parameters.iter().find(|(known, _)| known == name);
            let Some((_, kind)) = known else {
                let text =
                    "property is not defined in schema and the schema does not allow additional properties";
                return Err(Answer::bad_parameter(name, text));
            };
            let (fits, type_name) = match kind {
                Kind::Text => (true, "string"),
                Kind::Flag => (value == "0" || value == "1", "boolean"),
                Kind::Integer => (value.parse::<i64>().is_ok(), "integer"),
            };
            if !fits {
                return Err(Answer::bad_parameter(
                    name,
                    &format!("type check ('{type_name}') failed - got '{value}'"),
                ));
            }
        }
        Ok(())
    }
}

/// A vmid is a number from 100 to 999999999; the two ways of missing that have two texts.
fn check_path_parameter(name: &str, value: &str) -> Result<(), Answer> {
    if name != "vmid" {
        return Ok(());
    }
    if value.parse::<i64>().is_err() {
        return Err(Answer::bad_parameter(name, &format!("type check ('integer') failed - got '{value}'")));
    }
    match value.parse::<u32>() {
        Ok(100..=999_999_999) if !value.starts_with('0') => Ok(()),
        _ => Err(Answer::bad_parameter(name, "invalid format - value does not look like a valid VM ID\n")),
    }
}

fn fill(template: &str, call: &Call<'_>) -> String {
    let parts = template.split('/').map(|part| {
        match part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
            Some(name) => call.text(name),
            None => part,
        }
    });
    parts.collect::<Vec<_>>().join("/")
}

/// The route of a request and the parameters in its path. An empty last segment does not count: PVE takes
/// `/pools/?poolid=x` for `/pools?poolid=x`.
pub(crate) fn find<'a>(method: &str, path: &'a str) -> Option<(&'static Route, Vec<(String, String)>)> {
    static TABLE: OnceLock<Vec<(Vec<&'static str>, &'static Route)>> = OnceLock::new();
    let table = TABLE.get_or_init(|| {
        ROUTES.iter().map(|route| (route.template.split('/').skip(1).collect(), route)).collect()
    });
    let segments: Vec<&'a str> = path.trim_end_matches('/').split('/').skip(1).collect();
    table.iter().find_map(|(template, route)| {
        if route.method != method || template.len() != segments.len() {
            return None;
        }
        let mut parameters = Vec::new();
        for (want, have) in template.iter().zip(&segments) {
            match want.strip_prefix('{').and_then(|want| want.strip_suffix('}')) {
                Some(name) => parameters.push((name.to_owned(), (*have).to_owned())),
                None if want == have => {}
                None => return None,
            }
        }
        Some((*route, parameters))
    })
}

/// The templates of all paths that can be read, for tests that compare them with PVE's schema.
pub fn templates() -> impl Iterator<Item = &'static str> {
    ROUTES.iter().filter(|route| route.method == "GET").map(|route| route.template)
}

/// What a path asks for and takes: template, place and privileges of its check, parameters of the query.
pub type RouteFacts = (&'static str, Option<(&'static str, &'static [&'static str])>, Vec<&'static str>);

/// The facts of every path that can be read, for tests that compare them with PVE's schema.
pub fn facts() -> Vec<RouteFacts> {
    let check = |route: &Route| match route.check {
        Check::Anyone => None,
        Check::Held(path, privileges) => Some((path, privileges)),
    };
    let names = |route: &Route| route.parameters.iter().map(|(name, _)| *name).collect();
    ROUTES.iter().map(|route| (route.template, check(route), names(route))).collect()
}
