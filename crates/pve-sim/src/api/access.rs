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
    if asked != *call.principal && !call.allows("/access", &["Sys.Audit"]) {
        return Err(Answer::forbidden("/access", &["Sys.Audit"]));
    }
    let mut data = Map::new();
    let path = call.text("path");
    let paths = if path.is_empty() { call.state.permission_paths() } else { [path.to_owned()].into() };
    for path in paths {
        let held = privileges_json(call.state.held(&asked, &path));
        if !held.is_empty() {
            data.insert(path, Value::Object(held));
        }
    }
    Ok(Answer::ok(Value::Object(data)))
}

/// The users that the caller may see: all with `Sys.Audit` or `User.Modify` on `/access/groups`, else only itself.
pub fn users(call: &Call<'_>) -> Result<Answer, Answer> {
    let all = call.allows("/access/groups", &["User.Modify", "Sys.Audit"]);
    let wanted = call.text("enabled");
    let mut rows = Rows::default();
    for (id, user) in &call.state.access.users {
        let itself = matches!(call.principal, Principal::User(own) if own == id);
        if !(all || itself) || !wanted.is_empty() && (wanted == "1") != user.enabled {
            continue;
        }
        let realm = id.split_once('@').map_or("", |(_, realm)| realm);
        let mut row = json!({"enable": u8::from(user.enabled), "expire": user.expire, "userid": id});
        // A user of a realm that there is not has no type.
        if matches!(realm, "pam" | "pve") {
            row["realm-type"] = json!(realm);
        }
        for (key, value) in &user.about {
            row[key.as_str()] = json!(value);
        }
        if user.totp.is_some() {
            row["keys"] = json!("x");
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
        if !all && !call.allows(path, &["Permissions.Modify"]) {
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

/// What the login tells a client of the user's rights, grouped for the web interface: in each group those that the user
/// holds at any path below it.
pub fn capabilities(state: &crate::world::state::State, principal: &Principal) -> Value {
    let groups: [(&str, &str, &[&str]); 7] = [
        ("access", "/access", &["User.", "Group.", "Permissions.Modify"]),
        ("dc", "/", &["Sys.Audit", "Sys.Modify", "SDN."]),
        ("mapping", "/mapping", &["Mapping.", "Permissions.Modify"]),
        ("nodes", "/nodes", &["Sys.", "Permissions.Modify"]),
        ("sdn", "/sdn", &["SDN.", "Permissions.Modify"]),
        ("storage", "/storage", &["Datastore.", "Permissions.Modify"]),
        ("vms", "/vms", &["VM.", "Permissions.Modify"]),
    ];
    let paths = state.permission_paths();
    let mut capabilities = Map::new();
    for (group, root, wanted) in groups {
        let below = |path: &&str| *path == root || root != "/" && path.starts_with(&format!("{root}/"));
        let places = paths.iter().map(String::as_str).chain([root]).filter(below);
        let mut held = Map::new();
        for place in places {
            let have = state.held(principal, place).privileges;
            for name in have.names().filter(|name| wanted.iter().any(|prefix| name.starts_with(prefix))) {
                held.insert(name.to_owned(), json!(1));
            }
        }
        capabilities.insert(group.to_owned(), Value::Object(held));
    }
    Value::Object(capabilities)
}
