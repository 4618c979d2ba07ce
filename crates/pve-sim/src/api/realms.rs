//! `/access/domains`: where users come from.

use serde_json::{Map, Value, json};

use super::Call;
use super::act::{Act, done, fail};
use super::firewall::digest_of;
use crate::answer::Answer;
use crate::schema::split_list;

/// The realms, for the login box: everyone may see them.
pub fn list(call: &Call<'_>) -> Result<Answer, Answer> {
    let row = |(name, realm): (&String, &Map<String, Value>)| {
        let mut row = json!({"realm": name, "type": realm.get("type")});
        for key in ["comment", "default"] {
            if let Some(value) = realm.get(key).filter(|value| **value != json!(0) && **value != json!("")) {
                row[key] = value.clone();
            }
        }
        let tfa = realm.get("tfa").and_then(Value::as_str).unwrap_or_default();
        if let Some(kind) = tfa.split(',').find_map(|part| part.strip_prefix("type=")) {
            row["tfa"] = json!(kind);
        }
        row
    };
    Ok(Answer::ok(call.state.access.realms.iter().map(row).collect()))
}

fn digest(call: &Call<'_>) -> String {
    digest_of(&json!(call.state.access.realms.iter().collect::<Vec<_>>()))
}

/// One realm.
pub fn get(call: &Call<'_>) -> Result<Answer, Answer> {
    let name = call.text("realm");
    let Some(realm) = call.state.access.realms.get(name) else {
        return fail(format!("domain '{name}' does not exist"));
    };
    let mut row = realm.clone();
    row.insert("digest".to_owned(), json!(digest(call)));
    Ok(Answer::ok(Value::Object(row)))
}

/// What each type cannot be without.
fn required(kind: &str) -> &'static [&'static str] {
    match kind {
        "ad" => &["domain", "server1"],
        "ldap" => &["base_dn", "server1", "user_attr"],
        "openid" => &["client-id", "issuer-url"],
        _ => &[],
    }
}

/// Keys that belong to the types that have them; the others are for all.
const OF_TYPES: [(&str, &[&str]); 4] =
    [("base_dn", &["ldap"]), ("domain", &["ad"]), ("issuer-url", &["openid"]), ("client-id", &["openid"])];

fn settings(act: &Act<'_>) -> Map<String, Value> {
    // The password goes into a file of its own.
    let kept = act.settings(&["realm", "password", "delete", "digest"]);
    kept.iter().map(|(name, value)| (name.clone(), act.typed(name, value))).collect()
}

fn check(settings: &Map<String, Value>, kind: &str) -> Result<(), String> {
    for (key, kinds) in OF_TYPES {
        if settings.contains_key(key) && !kinds.contains(&kind) {
            return Err(format!("unexpected property '{key}'"));
        }
    }
    Ok(())
}

/// There is one default at most.
fn only_default(act: &mut Act<'_>, settings: &Map<String, Value>) {
    if settings.get("default") == Some(&json!(1)) {
        for realm in act.state.access.realms.values_mut() {
            realm.remove("default");
        }
    }
}

/// `POST /access/domains`.
pub fn create(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let problem = |text: String| fail(format!("add auth server failed: {text}"));
    let (name, kind) = (act.text("realm").to_owned(), act.text("type").to_owned());
    if act.state.access.realms.contains_key(&name) {
        return problem(format!("domain '{name}' already exists"));
    }
    if matches!(kind.as_str(), "pam" | "pve") {
        return problem(format!("unable to create builtin type '{kind}'"));
    }
    let settings = settings(act);
    if let Err(text) = check(&settings, &kind) {
        return problem(text);
    }
    if let Some(missing) = required(&kind).iter().find(|key| !settings.contains_key(**key)) {
        return problem(format!("missing value for required option '{missing}'"));
    }
    only_default(act, &settings);
    act.state.access.realms.insert(name, settings);
    done()
}

/// `PUT /access/domains/{realm}`.
pub fn update(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let problem = |text: String| fail(format!("update auth server failed: {text}"));
    if act.given("digest").is_some_and(|given| given != digest(&act.call())) {
        return problem(
            "detected modified configuration - file changed by other user? Try again.".to_owned(),
        );
    }
    let name = act.text("realm").to_owned();
    let Some(mut realm) = act.state.access.realms.get(&name).cloned() else {
        return problem(format!("domain '{name}' does not exist"));
    };
    let settings = settings(act);
    if settings.is_empty() && act.given("delete").is_none() && act.given("password").is_none() {
        return problem("no options specified".to_owned());
    }
    let kind = realm.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
    if let Err(text) = check(&settings, &kind) {
        return problem(text);
    }
    for key in split_list(act.text("delete")) {
        realm.remove(key);
    }
    only_default(act, &settings);
    realm.extend(settings);
    act.state.access.realms.insert(name, realm);
    done()
}

/// `DELETE /access/domains/{realm}`. Its users stay. The two that PVE brings along are there again at once.
pub fn delete(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let name = act.text("realm").to_owned();
    if !act.state.access.realms.contains_key(&name) {
        return fail(format!("delete auth server failed: authentication domain '{name}' does not exist"));
    }
    act.state.access.realms.remove(&name);
    if let Some(builtin) = crate::world::access::Access::fresh().realms.remove(&name) {
        act.state.access.realms.insert(name, builtin);
    }
    done()
}

/// `POST /access/domains/{realm}/sync`: nothing answers at the other end, so the task fails or, dry, finds nothing.
pub fn sync(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let name = act.text("realm").to_owned();
    let Some(realm) = act.state.access.realms.get(&name) else {
        return Err(Answer::bad_parameter("realm", "Realm does not exist."));
    };
    let kind = realm.get("type").and_then(Value::as_str).unwrap_or_default();
    if !matches!(kind, "ad" | "ldap") {
        return fail(format!("Cannot sync realm type '{kind}'! Only LDAP/AD realms can be synced."));
    }
    let defaults = realm.get("sync-defaults-options").and_then(Value::as_str).unwrap_or_default();
    if act.given("scope").is_none() && !defaults.contains("scope=") {
        let text = "Not passed as parameter and not defined in realm default sync options.";
        return Err(Answer::bad_parameter("scope", text));
    }
    let kind = if act.flag("dry-run") { "auth-realm-sync-test" } else { "auth-realm-sync" };
    act.fork(kind, &name, &[])
}
