//! Collections that PVE keeps as sections of a file and that the simulator gives little further meaning: each entry is what was
//! written. SDN, hardware mappings, metric servers, notification targets, realms' synchronisation, ACME.

use serde_json::{Map, Value, json};

use super::Call;
use super::act::{Act, done, fail};
use super::firewall::digest_of;
use crate::answer::{Answer, Rows};
use crate::schema::split_list;

/// How a family of collections says what it has to say.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    Acme,
    Mapping,
    Metrics,
    Notifications,
    RealmSync,
    Sdn,
}

/// A collection: the path of its list, the parameter that names an entry, and what PVE calls an entry.
struct Collection {
    base: &'static str,
    id: &'static str,
    noun: &'static str,
    family: Family,
}

const fn of_family(family: Family, base: &'static str, id: &'static str, noun: &'static str) -> Collection {
    Collection { base, id, noun, family }
}

const COLLECTIONS: [Collection; 16] = [
    of_family(Family::Sdn, "/cluster/sdn/zones", "zone", "sdn zone object"),
    of_family(Family::Sdn, "/cluster/sdn/vnets", "vnet", "sdn vnet object"),
    of_family(Family::Sdn, "/cluster/sdn/controllers", "controller", "sdn controller object"),
    of_family(Family::Sdn, "/cluster/sdn/ipams", "ipam", "sdn ipam object"),
    of_family(Family::Sdn, "/cluster/sdn/dns", "dns", "sdn dns object"),
    of_family(Family::Mapping, "/cluster/mapping/dir", "id", "dir"),
    of_family(Family::Mapping, "/cluster/mapping/pci", "id", "pci"),
    of_family(Family::Mapping, "/cluster/mapping/usb", "id", "usb"),
    of_family(Family::Metrics, "/cluster/metrics/server", "id", "metric server"),
    of_family(Family::Notifications, "/cluster/notifications/endpoints/gotify", "name", "endpoint"),
    of_family(Family::Notifications, "/cluster/notifications/endpoints/sendmail", "name", "endpoint"),
    of_family(Family::Notifications, "/cluster/notifications/endpoints/smtp", "name", "endpoint"),
    of_family(Family::Notifications, "/cluster/notifications/endpoints/webhook", "name", "endpoint"),
    of_family(Family::Notifications, "/cluster/notifications/matchers", "name", "matcher"),
    of_family(Family::Acme, "/cluster/acme/plugins", "id", "ACME plugin"),
    of_family(Family::RealmSync, "/cluster/jobs/realm-sync", "id", "realm sync job"),
];

/// Whether a method on a template belongs to a collection.
pub fn is_one(template: &str) -> bool {
    of(template).is_some()
}

/// The collection of a template, and whether the template is of one entry.
fn of(template: &str) -> Option<(&'static Collection, bool)> {
    COLLECTIONS.iter().find_map(|collection| {
        let rest = template.strip_prefix(collection.base)?;
        match rest {
            "" => Some((collection, false)),
            rest if rest.starts_with("/{") && rest.matches('/').count() == 1 => Some((collection, true)),
            _ => None,
        }
    })
}

/// The entries of a fresh installation.
fn builtin(base: &str) -> Vec<(&'static str, Value)> {
    match base {
        "/cluster/sdn/ipams" => vec![("pve", json!({"type": "pve"}))],
        "/cluster/acme/plugins" => vec![("standalone", json!({"type": "standalone"}))],
        "/cluster/notifications/endpoints/sendmail" => vec![(
            "mail-to-root",
            json!({
                "comment": "Send mails to root@pam's email address", "mailto-user": ["root@pam"], "origin": "builtin",
            }),
        )],
        "/cluster/notifications/matchers" => vec![(
            "default-matcher",
            json!({
                "comment": "Route all notifications to mail-to-root", "mode": "all", "origin": "builtin",
                "target": ["mail-to-root"],
            }),
        )],
        _ => Vec::new(),
    }
}

fn entries(call: &Call<'_>, base: &str) -> Map<String, Value> {
    let mut all: Map<String, Value> =
        builtin(base).into_iter().map(|(name, entry)| (name.to_owned(), entry)).collect();
    if let Some(written) = call.state.collections.get(base) {
        all.extend(written.clone());
    }
    all
}

/// The digest of the file that an entry is in; that of nothing where there are only PVE's own entries.
fn digest(call: &Call<'_>, collection: &Collection) -> String {
    // All targets and matchers are in one file.
    let mine = |one: &&Collection| match collection.family {
        Family::Notifications => one.family == Family::Notifications,
        _ => one.base == collection.base,
    };
    let written: Vec<&Map<String, Value>> =
        COLLECTIONS.iter().filter(mine).filter_map(|one| call.state.collections.get(one.base)).collect();
    super::firewall::list_digest(written)
}

/// What is kept in a file of its own, or shown to nobody.
const SECRET: [&str; 4] = ["data", "key", "password", "token"];

/// An entry as an answer shows it.
fn shown(collection: &Collection, name: &str, entry: &Value, digest: &str, single: bool) -> Value {
    let mut row = entry.clone();
    if let (Some(fields), true) =
        (row.as_object_mut(), matches!(collection.family, Family::Notifications | Family::Metrics))
    {
        fields.retain(|key, _| !SECRET.contains(&key.as_str()));
    }
    match collection.family {
        // A list of servers says only where they are, and one server does not say its name.
        Family::Metrics if single => {}
        Family::Metrics => {
            return json!({
                "disable": row.get("disable").cloned().unwrap_or(json!(0)), "id": name, "port": row["port"],
                "server": row["server"], "type": row["type"],
            });
        }
        Family::Mapping if single => row["digest"] = json!(digest),
        Family::Mapping | Family::Sdn => {
            row[collection.id] = json!(name);
            row["digest"] = json!(digest);
        }
        Family::Acme => {
            row["plugin"] = json!(name);
            row["digest"] = json!(digest);
        }
        Family::RealmSync => row[collection.id] = json!(name),
        Family::Notifications => {
            row[collection.id] = json!(name);
            if single {
                row["digest"] = json!(digest);
            }
        }
    }
    row
}

/// Whether the caller sees an entry in the list.
fn sees(call: &Call<'_>, collection: &Collection, name: &str, entry: &Value) -> bool {
    let mapping = ["Mapping.Modify", "Mapping.Use", "Mapping.Audit"];
    let sdn = ["SDN.Audit", "SDN.Allocate"];
    match (collection.family, collection.base.rsplit('/').next().unwrap_or_default()) {
        (Family::Mapping, kind) => call.allows(&format!("/mapping/{kind}/{name}"), &mapping),
        (Family::Notifications, _) => call.allows("/mapping/notifications", &mapping),
        (Family::Sdn, "vnets") => {
            let zone = entry["zone"].as_str().unwrap_or_default();
            call.allows(&format!("/sdn/zones/{zone}/{name}"), &sdn)
        }
        (Family::Sdn, kind) => call.allows(&format!("/sdn/{kind}/{name}"), &sdn),
        _ => true,
    }
}

/// An entry that there is not.
fn missing(collection: &Collection, name: &str) -> Answer {
    let noun = collection.noun;
    match collection.family {
        Family::Acme => Answer::error(500, format!("{noun} '{name}' not defined")),
        Family::Mapping => Answer::error(500, format!("mapping '{name}' not found")),
        Family::Metrics => Answer::error(500, format!("status server entry '{name}' does not exist")),
        Family::Notifications => Answer::error(404, format!("{noun} '{name}' not found")),
        Family::RealmSync => Answer::bad_parameter("id", &format!("No such job '{name}'")),
        Family::Sdn => Answer::error(500, format!("sdn '{name}' does not exist")),
    }
}

/// Rights on a virtual network hang on its zone, which its entry says; so one that there is not is missing before that.
fn check_vnet(call: &Call<'_>, name: &str, privileges: &[&str]) -> Result<(), Answer> {
    let Some(zone) = entries(call, "/cluster/sdn/vnets").get(name).map(|entry| entry["zone"].clone()) else {
        return fail(format!("sdn '{name}' does not exist"));
    };
    let path = format!("/sdn/zones/{}/{name}", zone.as_str().unwrap_or_default());
    super::checks::require(call, &path, privileges, true)
}

/// `GET` on a collection or an entry.
pub fn read(template: &str, call: &Call<'_>) -> Result<Answer, Answer> {
    let Some((collection, single)) = of(template) else { return fail("no collection") };
    let (all, digest) = (entries(call, collection.base), digest(call, collection));
    let name = call.text(collection.id);
    if single && collection.id == "vnet" {
        check_vnet(call, name, &["SDN.Audit", "SDN.Allocate"])?;
    }
    if single {
        let entry = all.get(name).ok_or_else(|| missing(collection, name))?;
        return Ok(Answer::ok(shown(collection, name, entry, &digest, true)));
    }
    let wanted = call.text("type");
    let mut rows = Rows::default();
    for (name, entry) in &all {
        let fits = wanted.is_empty() || entry["type"] == wanted;
        if fits && sees(call, collection, name, entry) {
            rows.push(&shown(collection, name, entry, &digest, false));
        }
    }
    Ok(Answer::rows(rows))
}

/// What PVE calls a write that fails, where it says so.
fn failed(collection: &Collection, verb: &str) -> String {
    match (collection.family, collection.noun) {
        (Family::Sdn, noun) => format!("{verb} {noun} failed: "),
        (Family::Mapping, "dir") => format!("{verb} directory mapping failed: "),
        (Family::Mapping, kind) if verb == "delete" => format!("delete {kind} mapping failed: "),
        (Family::Mapping, _) => format!("{verb} hardware mapping failed: "),
        _ => String::new(),
    }
}

const MODIFIED: &str = "detected modified configuration - file changed by other user? Try again.";

/// Who still needs an entry that is to go.
fn user_of(call: &Call<'_>, collection: &Collection, name: &str) -> Option<Answer> {
    let prefix = failed(collection, "delete");
    match collection.id {
        "zone" => {
            let vnets = entries(call, "/cluster/sdn/vnets");
            let vnet = vnets.iter().find(|(_, vnet)| vnet["zone"] == name)?.0;
            Some(Answer::error(500, format!("{prefix}zone {name} is used by vnet {vnet}")))
        }
        "vnet" => {
            let used =
                call.state.collections.get("/cluster/sdn/subnets")?.values().any(|one| one["vnet"] == name);
            used.then(|| Answer::error(500, format!("{prefix}Can't delete vnet if subnets exists")))
        }
        _ if collection.noun == "endpoint" => {
            let matchers = entries(call, "/cluster/notifications/matchers");
            let targets =
                |matcher: &Value| matcher["target"].as_array().is_some_and(|all| all.contains(&json!(name)));
            let users: Vec<&str> =
                matchers.iter().filter(|(_, one)| targets(one)).map(|(name, _)| name.as_str()).collect();
            let text = format!("cannot delete '{name}', referenced by: {}", users.join(", "));
            (!users.is_empty()).then(|| Answer::error(400, text))
        }
        _ => None,
    }
}

/// A name that is taken. The names of targets of all sorts and of matchers are one set.
fn taken(call: &Call<'_>, collection: &Collection, name: &str) -> Option<Answer> {
    if collection.family == Family::Notifications {
        let mut all = COLLECTIONS.iter().filter(|one| one.family == Family::Notifications);
        let text = format!("Cannot create '{name}', an entity with the same name already exists");
        return all.any(|one| entries(call, one.base).contains_key(name)).then(|| Answer::error(400, text));
    }
    if !entries(call, collection.base).contains_key(name) {
        return None;
    }
    let (prefix, noun) = (failed(collection, "create"), collection.noun);
    Some(Answer::error(
        500,
        match collection.family {
            Family::Acme => format!("ACME plugin ID '{name}' already exists"),
            Family::Metrics => format!("Metric server '{name}' already exists"),
            Family::RealmSync => format!("realm-sync job '{name}' already exists"),
            _ => format!("{prefix}{noun} ID '{name}' already defined"),
        },
    ))
}

/// `POST`, `PUT` and `DELETE`.
pub fn write(template: &str, method: &str, act: &mut Act<'_>) -> Result<Answer, Answer> {
    let Some((collection, _)) = of(template) else { return fail("no collection") };
    let name = act.text(collection.id).to_owned();
    let verb = if method == "PUT" { "update" } else { "delete" };
    let call = act.call();
    if method != "POST" && collection.id == "vnet" {
        check_vnet(&call, &name, &["SDN.Allocate"])?;
    }
    if act.given("digest").is_some_and(|given| given != digest(&call, collection)) {
        return Err(match collection.family {
            Family::Notifications => Answer::error(400, MODIFIED),
            _ => Answer::error(500, format!("{}{MODIFIED}", failed(collection, verb))),
        });
    }
    let have = entries(&call, collection.base).get(&name).cloned();
    let mut settings: Map<String, Value> = act
        .settings(&[collection.id, "delete", "digest"])
        .iter()
        .map(|(key, value)| (key.clone(), act.typed(key, value)))
        .collect();
    match collection.base.rsplit('/').next().unwrap_or_default() {
        "vnets" => drop(settings.insert("type".to_owned(), json!("vnet"))),
        "matchers" => drop(settings.entry("mode").or_insert(json!("all"))),
        _ => {}
    }
    if method == "POST" && collection.id == "vnet" {
        let zone = settings.get("zone").and_then(Value::as_str).unwrap_or_default();
        if !entries(&call, "/cluster/sdn/zones").contains_key(zone) {
            return fail("create sdn vnet object failed: cannot lookup undefined type!");
        }
    }
    let deletes: Vec<String> = split_list(act.text("delete")).map(str::to_owned).collect();
    let (taken, used) = (taken(&call, collection, &name), user_of(&call, collection, &name));
    let built_in = builtin(collection.base).into_iter().any(|(one, _)| one == name);
    let prefix = failed(collection, verb);
    let written = act.state.collections.entry(collection.base.to_owned()).or_default();
    match (method, have) {
        ("POST", _) => {
            if let Some(refusal) = taken {
                return Err(refusal);
            }
            if collection.family == Family::Notifications {
                settings.insert("origin".to_owned(), json!("user-created"));
            }
            written.insert(name, Value::Object(settings));
        }
        // What is not there is gone already.
        ("DELETE", None) if collection.family == Family::Mapping => {}
        (_, None) if collection.family == Family::Mapping => {
            return fail(format!("{prefix}{} ID '{name}' does not exist", collection.noun));
        }
        (_, None) if collection.family == Family::Metrics && method == "PUT" => {
            return fail(format!("no such server '{name}'"));
        }
        (_, None) if collection.family == Family::Metrics => return fail("cannot lookup undefined type!"),
        (_, None) => {
            let mut refusal = missing(collection, &name);
            if !prefix.is_empty() {
                refusal = Answer::error(refusal.status, format!("{prefix}{}", refusal.reason));
            }
            return Err(refusal);
        }
        ("DELETE", Some(_)) => {
            if let Some(refusal) = used {
                return Err(refusal);
            }
            written.remove(&name);
        }
        (_, Some(mut entry)) => {
            if let Some(fields) = entry.as_object_mut() {
                for key in deletes {
                    fields.remove(&key);
                }
                fields.extend(settings);
                if collection.family == Family::Notifications {
                    let origin = if built_in { "modified-builtin" } else { "user-created" };
                    fields.insert("origin".to_owned(), json!(origin));
                }
            }
            written.insert(name, entry);
        }
    }
    done()
}

/// All targets, of every sort.
pub fn targets(call: &Call<'_>) -> Result<Answer, Answer> {
    let mut rows = Rows::default();
    for collection in COLLECTIONS.iter().filter(|one| one.noun == "endpoint") {
        let kind = collection.base.rsplit('/').next().unwrap_or_default();
        for (name, entry) in entries(call, collection.base) {
            if !sees(call, collection, &name, &entry) {
                continue;
            }
            let mut row = json!({"name": name, "type": kind});
            for key in ["comment", "disable", "origin"] {
                if let Some(value) = entry.get(key) {
                    row[key] = value.clone();
                }
            }
            rows.push(&row);
        }
    }
    Ok(Answer::rows(rows))
}

/// Where subnets are kept: by zone, address and length.
const SUBNETS: &str = "/cluster/sdn/subnets";

fn subnet_row(call: &Call<'_>, id: &str, subnet: &Value) -> Value {
    let mut row = subnet.clone();
    let all = call.state.collections.get(SUBNETS);
    row["digest"] = json!(digest_of(&json!(all)));
    row["id"] = json!(id);
    row["subnet"] = json!(id);
    row
}

/// `GET /cluster/sdn/vnets/{vnet}/subnets`.
pub fn subnets(call: &Call<'_>) -> Result<Answer, Answer> {
    let vnet = call.text("vnet");
    check_vnet(call, vnet, &["SDN.Audit", "SDN.Allocate"])?;
    let all = call.state.collections.get(SUBNETS).into_iter().flatten();
    let own = all.filter(|(_, subnet)| subnet["vnet"] == vnet);
    Ok(Answer::ok(own.map(|(id, subnet)| subnet_row(call, id, subnet)).collect()))
}

/// One subnet of a network.
pub fn subnet(call: &Call<'_>) -> Result<Answer, Answer> {
    let (vnet, id) = (call.text("vnet"), call.text("subnet"));
    check_vnet(call, vnet, &["SDN.Audit", "SDN.Allocate"])?;
    match call.state.collections.get(SUBNETS).and_then(|all| all.get(id)) {
        Some(subnet) if subnet["vnet"] == vnet => Ok(Answer::ok(subnet_row(call, id, subnet))),
        Some(_) => Err(Answer::bad_parameter("vnet", "wrong vnet")),
        None => fail(format!("sdn subnet '{id}' does not exist")),
    }
}

fn subnet_settings(act: &Act<'_>) -> Map<String, Value> {
    let kept = act.settings(&["subnet", "delete", "digest"]);
    let mut all: Map<String, Value> =
        kept.iter().map(|(name, value)| (name.clone(), act.typed(name, value))).collect();
    all.insert("type".to_owned(), json!("subnet"));
    all
}

/// `POST …/subnets`: its name becomes that of the zone with the network.
pub fn create_subnet(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let (vnet, cidr) = (act.text("vnet").to_owned(), act.text("subnet").to_owned());
    check_vnet(&act.call(), &vnet, &["SDN.Allocate"])?;
    let zone = entries(&act.call(), "/cluster/sdn/vnets")
        .get(&vnet)
        .and_then(|entry| entry["zone"].as_str().map(str::to_owned))
        .unwrap_or_default();
    let (network, mask) = cidr.split_once('/').unwrap_or((&cidr, "32"));
    let id = format!("{zone}-{network}-{mask}");
    let mut settings = subnet_settings(act);
    for (key, value) in [("cidr", &*cidr), ("network", network), ("mask", mask), ("zone", &*zone)] {
        settings.insert(key.to_owned(), json!(value));
    }
    settings.entry("dhcp-range").or_insert(json!([]));
    let all = act.state.collections.entry(SUBNETS.to_owned()).or_default();
    if all.contains_key(&id) {
        return fail(format!("create sdn subnet object failed: sdn subnet object ID '{id}' already defined"));
    }
    all.insert(id, Value::Object(settings));
    done()
}

/// `PUT …/subnets/{subnet}`.
pub fn update_subnet(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let (vnet, id) = (act.text("vnet").to_owned(), act.text("subnet").to_owned());
    check_vnet(&act.call(), &vnet, &["SDN.Allocate"])?;
    let (changes, deletes) = (subnet_settings(act), act.text("delete").to_owned());
    let found = act.state.collections.get_mut(SUBNETS).and_then(|all| all.get_mut(&id));
    let Some(fields) = found.and_then(Value::as_object_mut) else {
        return fail(format!("update sdn subnet object failed: sdn subnet '{id}' does not exist"));
    };
    for key in split_list(&deletes) {
        fields.remove(key);
    }
    fields.extend(changes);
    done()
}

/// `DELETE …/subnets/{subnet}`.
pub fn delete_subnet(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let (vnet, id) = (act.text("vnet").to_owned(), act.text("subnet").to_owned());
    check_vnet(&act.call(), &vnet, &["SDN.Allocate"])?;
    if let Some(all) = act.state.collections.get_mut(SUBNETS) {
        all.remove(&id);
    }
    done()
}

/// `PUT /cluster/sdn`: what was written takes effect on all nodes, in a task.
pub fn apply_sdn(act: &mut Act<'_>) -> Result<Answer, Answer> {
    act.fork("reloadnetworkall", "", &[])
}
