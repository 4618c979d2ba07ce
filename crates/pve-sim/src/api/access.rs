//! `/access`: permissions, users, roles and the access control list.

use serde_json::{Map, Value, json};

use super::Call;
use crate::answer::{Answer, Rows};
use crate::world::access::{Held, Principal};

fn privileges_json(held: Held) -> Map<String, Value> {
    let inherited: Vec<&str> = held.propagated.names().collect();
    held.privileges
        .names()
        .map(|name| (name.to_owned(), json!(u8::from(inherited.contains(&name)))))
        .collect()
}

/// What a principal holds at each path that PVE looks at. The values are the propagate flag: 0 is a right, too, one that
/// paths below do not inherit, and rights that come from a pool are such. Another principal than oneself needs `Sys.Audit` on
/// `/access`.
pub fn permissions(call: &Call<'_>) -> Result<Answer, Answer> {
    let of = call.text("userid");
    let asked = if of.is_empty() { call.principal.clone() } else { Principal::parse(of) };
    let own_token = matches!(call.principal, Principal::User(user) if *user == asked.user());
    if asked != *call.principal && !own_token && !call.allows("/access", &["Sys.Audit"]) {
        return Err(Answer::forbidden("/access", &["Sys.Audit"]));
    }
    let path = call.text("path");
    if !path.is_empty() {
        // A path that was asked for is there even where nothing is held.
        let held = privileges_json(call.state.held(&asked, path));
        return Ok(Answer::ok(json!({path: held})));
    }
    let mut data = Map::new();
    for path in call.state.permission_paths() {
        let held = privileges_json(call.state.held(&asked, &path));
        if !held.is_empty() {
            data.insert(path, Value::Object(held));
        }
    }
    Ok(Answer::ok(Value::Object(data)))
}

/// Whether the caller may see a user: itself, and with rights on `/access/groups` or on a group of the user's.
pub fn sees_user(call: &Call<'_>, id: &str, user: &crate::world::access::User) -> bool {
    let wanted = ["User.Modify", "Sys.Audit"];
    matches!(call.principal, Principal::User(own) if own == id)
        || call.allows("/access/groups", &wanted)
        || user.groups.iter().any(|group| call.allows(&format!("/access/groups/{group}"), &wanted))
}

/// The users that the caller may see: all with `Sys.Audit` or `User.Modify` on `/access/groups`, else only itself.
pub fn users(call: &Call<'_>) -> Result<Answer, Answer> {
    let wanted = call.text("enabled");
    let mut rows = Rows::default();
    for (id, user) in &call.state.access.users {
        if !sees_user(call, id, user) || !wanted.is_empty() && (wanted == "1") != user.enabled {
            continue;
        }
        let mut row = Value::Object(user.shown());
        row["userid"] = json!(id);
        // A user of a realm that there is not has no type.
        let realm = id.rsplit_once('@').and_then(|(_, realm)| call.state.access.realms.get(realm));
        if let Some(kind) = realm.and_then(|realm| realm.get("type")) {
            row["realm-type"] = kind.clone();
        }
        if call.flag("full") {
            let token = |(name, token): (&String, &crate::world::access::Token)| {
                let privsep = u8::from(token.privilege_separation);
                let mut row = json!({"expire": token.expire, "privsep": privsep, "tokenid": name});
                if let Some(comment) = &token.comment {
                    row["comment"] = json!(comment);
                }
                row
            };
            let tokens: Vec<Value> = user.tokens.iter().map(token).collect();
            row["tokens"] = if tokens.is_empty() { Value::Null } else { Value::Array(tokens) };
            row["groups"] = json!(user.groups.iter().map(String::as_str).collect::<Vec<_>>().join(","));
        }
        rows.push(&row);
    }
    Ok(Answer::rows(rows))
}

/// The roles; everyone may read them.
pub fn roles(call: &Call<'_>) -> Result<Answer, Answer> {
    let mut rows = Rows::default();
    let builtin = crate::world::access::Access::fresh();
    for (name, privileges) in &call.state.access.roles {
        let names: Vec<&str> = privileges.names().collect();
        let special = u8::from(builtin.roles.contains_key(name));
        rows.push(&json!({"privs": names.join(","), "roleid": name, "special": special}));
    }
    Ok(Answer::rows(rows))
}

/// The entries at paths where the caller may audit or change permissions.
pub fn acl(call: &Call<'_>) -> Result<Answer, Answer> {
    let all = call.allows("/access", &["Sys.Audit"]);
    let mut rows = Rows::default();
    for (path, entries) in &call.state.access.acl {
        if !all && super::checks::modify(call, path).is_err() {
            continue;
        }
        for entry in entries {
            let (kind, who) = match entry.who.strip_prefix('@') {
                Some(group) => ("group", group),
                None if entry.who.contains('!') => ("token", entry.who.as_str()),
                None => ("user", entry.who.as_str()),
            };
            rows.push(&json!({
                "path": path, "propagate": u8::from(entry.propagate), "roleid": entry.role, "type": kind, "ugid": who,
            }));
        }
    }
    Ok(Answer::rows(rows))
}

/// What the login tells a client of the user's rights, grouped for the web interface by the first part of the paths at which
/// there are entries.
pub fn capabilities(state: &crate::world::state::State, principal: &Principal) -> Value {
    let groups: [(&str, &[&str]); 7] = [
        ("access", &["User.", "Group.", "Permissions.Modify"]),
        ("dc", &["Sys.Audit", "Sys.Modify", "SDN."]),
        ("mapping", &["Mapping.", "Permissions.Modify"]),
        ("nodes", &["Sys.", "Permissions.Modify"]),
        ("sdn", &["SDN.", "Permissions.Modify"]),
        ("storage", &["Datastore.", "Permissions.Modify"]),
        ("vms", &["VM.", "Permissions.Modify"]),
    ];
    let mut held: Map<String, Value> =
        groups.iter().map(|(group, _)| ((*group).to_owned(), json!({}))).collect();
    let required = ["/", "/nodes", "/access/groups", "/vms", "/storage", "/sdn", "/mapping"];
    let mut paths: std::collections::BTreeSet<String> =
        required.iter().map(|path| (*path).to_owned()).collect();
    for path in state.access.acl.keys() {
        paths.extend(crate::world::access::ancestors(path).map(|(place, _)| place.to_owned()));
    }
    for path in paths {
        let top = path.split('/').nth(1).filter(|top| !top.is_empty()).unwrap_or("dc");
        for name in state.held(principal, &path).privileges.names() {
            // What is held on a pool is held on guests and storages.
            let into: &[&str] = match top {
                "pool" if name.starts_with("VM.") => &["vms"],
                "pool" if name.starts_with("Datastore.") => &["storage"],
                "pool" if name == "Permissions.Modify" => &["storage", "vms"],
                "pool" => &[],
                _ => &[top],
            };
            for group in into {
                let fits = groups.iter().any(|(one, wanted)| {
                    one == group && (top == "pool" || wanted.iter().any(|prefix| name.starts_with(prefix)))
                });
                if fits {
                    held[*group][name] = json!(1);
                }
            }
        }
    }
    Value::Object(held)
}
