//! Collections that PVE keeps as sections of a file and that the simulator gives no further meaning: each entry is what was
//! written. SDN, hardware mappings, metric servers, notification targets, realms' synchronisation, ACME.

use serde_json::{Map, Value, json};

use super::Call;
use super::act::{Act, done, fail};
use super::firewall::digest_of;
use crate::answer::{Answer, Rows};
use crate::schema::split_list;

/// A collection: the path of its list, the parameter that names an entry, and what PVE calls an entry.
struct Collection {
    base: &'static str,
    id: &'static str,
    noun: &'static str,
}

const COLLECTIONS: [Collection; 16] = [
    Collection { base: "/cluster/sdn/zones", id: "zone", noun: "sdn zone object" },
    Collection { base: "/cluster/sdn/vnets", id: "vnet", noun: "sdn vnet object" },
    Collection { base: "/cluster/sdn/controllers", id: "controller", noun: "sdn controller object" },
    Collection { base: "/cluster/sdn/ipams", id: "ipam", noun: "sdn ipam object" },
    Collection { base: "/cluster/sdn/dns", id: "dns", noun: "sdn dns object" },
    Collection { base: "/cluster/mapping/dir", id: "id", noun: "directory mapping" },
    Collection { base: "/cluster/mapping/pci", id: "id", noun: "pci mapping" },
    Collection { base: "/cluster/mapping/usb", id: "id", noun: "usb mapping" },
    Collection { base: "/cluster/metrics/server", id: "id", noun: "metric server" },
    Collection { base: "/cluster/notifications/endpoints/gotify", id: "name", noun: "gotify endpoint" },
    Collection { base: "/cluster/notifications/endpoints/sendmail", id: "name", noun: "sendmail endpoint" },
    Collection { base: "/cluster/notifications/endpoints/smtp", id: "name", noun: "smtp endpoint" },
    Collection { base: "/cluster/notifications/endpoints/webhook", id: "name", noun: "webhook endpoint" },
    Collection { base: "/cluster/notifications/matchers", id: "name", noun: "notification matcher" },
    Collection { base: "/cluster/acme/plugins", id: "id", noun: "ACME plugin" },
    Collection { base: "/cluster/jobs/realm-sync", id: "id", noun: "realm sync job" },
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

fn entries(call: &Call<'_>, collection: &Collection) -> Map<String, Value> {
    let mut all: Map<String, Value> =
        builtin(collection.base).into_iter().map(|(name, entry)| (name.to_owned(), entry)).collect();
    if let Some(written) = call.state.collections.get(collection.base) {
        all.extend(written.clone());
    }
    all
}

/// An entry as an answer shows it: ACME calls its name `plugin`, notifications have no digest in lists.
fn shown(collection: &Collection, name: &str, entry: &Value) -> Value {
    let mut row = entry.clone();
    let key = if collection.base.ends_with("plugins") { "plugin" } else { collection.id };
    row[key] = json!(name);
    if !collection.base.contains("/notifications/") && !collection.base.contains("/metrics/") {
        row["digest"] = json!(digest_of(entry));
    }
    row
}

/// `GET` on a collection or an entry.
pub fn read(template: &str, call: &Call<'_>) -> Result<Answer, Answer> {
    let Some((collection, single)) = of(template) else { return fail("no collection") };
    let all = entries(call, collection);
    if !single {
        let mut rows = Rows::default();
        for (name, entry) in &all {
            rows.push(&shown(collection, name, entry));
        }
        return Ok(Answer::rows(rows));
    }
    let name = call.text(collection.id);
    match all.get(name) {
        Some(entry) => Ok(Answer::ok(shown(collection, name, entry))),
        None => fail(format!("{} '{name}' does not exist", collection.noun)),
    }
}

/// `POST`, `PUT` and `DELETE`.
pub fn write(template: &str, method: &str, act: &mut Act<'_>) -> Result<Answer, Answer> {
    let Some((collection, _)) = of(template) else { return fail("no collection") };
    let name = act.text(collection.id).to_owned();
    let known = entries(&act.call(), collection);
    let have = known.get(&name).cloned();
    let settings: Vec<(String, Value)> = act
        .settings(&[collection.id, "delete", "digest"])
        .iter()
        .map(|(key, value)| (key.clone(), act.typed(key, value)))
        .collect();
    let deletes: Vec<String> = split_list(act.text("delete")).map(str::to_owned).collect();
    let written = act.state.collections.entry(collection.base.to_owned()).or_default();
    match (method, have) {
        ("POST", Some(_)) => return fail(format!("{} ID '{name}' already defined", collection.noun)),
        ("POST", None) => drop(written.insert(name, Value::Object(settings.into_iter().collect()))),
        (_, None) => return fail(format!("{} '{name}' does not exist", collection.noun)),
        ("DELETE", Some(_)) => drop(written.remove(&name)),
        (_, Some(mut entry)) => {
            if let Some(fields) = entry.as_object_mut() {
                for key in deletes {
                    fields.remove(&key);
                }
                fields.extend(settings);
            }
            written.insert(name, entry);
        }
    }
    done()
}
