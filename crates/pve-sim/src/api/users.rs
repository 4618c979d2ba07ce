//! `/access`, for writing and for single objects: users, groups, roles, access control, tokens, second factors.

use serde_json::{Map, Value, json};

use super::Call;
use super::act::{Act, done, fail};
use crate::answer::{Answer, Rows};
use crate::schema::split_list;
use crate::world::access::{Access, Principal, Privileges, Token, User};
use crate::world::ids;

/// The realms.
pub fn domains(_: &Call<'_>) -> Result<Answer, Answer> {
    Ok(Answer::ok(json!([
        {"comment": "Linux PAM standard authentication", "realm": "pam", "type": "pam"},
        {"comment": "Proxmox VE authentication server", "realm": "pve", "type": "pve"},
    ])))
}

fn user<'a>(call: &Call<'a>) -> Result<&'a User, Answer> {
    let id = call.text("userid");
    call.state.access.users.get(id).ok_or_else(|| Answer::error(500, format!("no such user ('{id}')")))
}

fn user_mut<'a>(act: &'a mut Act<'_>) -> Result<&'a mut User, Answer> {
    let id = act.text("userid").to_owned();
    let missing = Answer::error(500, format!("no such user ('{id}')"));
    act.state.access.users.get_mut(&id).ok_or(missing)
}

fn token_row(token: &Token) -> Map<String, Value> {
    let mut row = Map::new();
    row.insert("expire".to_owned(), json!(token.expire));
    row.insert("privsep".to_owned(), json!(u8::from(token.privilege_separation)));
    if let Some(comment) = &token.comment {
        row.insert("comment".to_owned(), json!(comment));
    }
    row
}

/// One user, with groups as a list and tokens by name.
pub fn get_user(call: &Call<'_>) -> Result<Answer, Answer> {
    let user = user(call)?;
    let mut row = Map::new();
    for (key, value) in &user.about {
        row.insert(key.clone(), json!(value));
    }
    let tokens: Map<String, Value> =
        user.tokens.iter().map(|(name, token)| (name.clone(), Value::Object(token_row(token)))).collect();
    row.insert("enable".to_owned(), json!(u8::from(user.enabled)));
    row.insert("expire".to_owned(), json!(user.expire));
    row.insert("groups".to_owned(), json!(user.groups));
    row.insert("tokens".to_owned(), if tokens.is_empty() { Value::Null } else { Value::Object(tokens) });
    if user.totp.is_some() {
        row.insert("keys".to_owned(), json!("x"));
    }
    Ok(Answer::ok(Value::Object(row)))
}

const ABOUT: [&str; 4] = ["comment", "email", "firstname", "lastname"];

fn change_user(act: &mut Act<'_>) -> Result<(), Answer> {
    let parameters = act.parameters.clone();
    let append = act.flag("append");
    let groups: Vec<String> = split_list(act.text("groups")).map(str::to_owned).collect();
    if let Some(unknown) = groups.iter().find(|group| !act.state.access.groups.contains_key(*group)) {
        return fail(format!("no such group '{unknown}'"));
    }
    let user = user_mut(act)?;
    for key in ABOUT {
        if let Some(value) = parameters.get(key) {
            user.about.insert(key.to_owned(), value.clone());
        }
    }
    if let Some(enable) = parameters.get("enable") {
        user.enabled = enable == "1";
    }
    if let Some(expire) = parameters.get("expire").and_then(|text| text.parse().ok()) {
        user.expire = expire;
    }
    if let Some(password) = parameters.get("password") {
        user.password = Some(password.clone());
    }
    if parameters.contains_key("groups") {
        if !append {
            user.groups.clear();
        }
        user.groups.extend(groups);
    }
    Ok(())
}

pub fn create_user(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let id = act.text("userid").to_owned();
    if act.state.access.users.contains_key(&id) {
        return fail(format!("create user failed: user '{id}' already exists"));
    }
    act.state.access.users.insert(id.clone(), User { enabled: true, ..User::default() });
    change_user(act).inspect_err(|_| drop(act.state.access.users.remove(&id)))?;
    done()
}

pub fn update_user(act: &mut Act<'_>) -> Result<Answer, Answer> {
    change_user(act)?;
    done()
}

/// A user goes with its tokens and entries.
pub fn delete_user(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let id = act.text("userid").to_owned();
    if act.state.access.users.remove(&id).is_none() {
        return fail(format!("delete user failed: user '{id}' does not exist"));
    }
    let of_user = format!("{id}!");
    for entries in act.state.access.acl.values_mut() {
        entries.retain(|entry| entry.who != id && !entry.who.starts_with(&of_user));
    }
    act.state.access.acl.retain(|_, entries| !entries.is_empty());
    done()
}

/// `PUT /access/password`. Who changes another's needs rights, which the declaration checks.
pub fn password(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let id = act.text("userid").to_owned();
    let password = act.text("password").to_owned();
    match act.state.access.users.get_mut(&id) {
        Some(user) => user.password = Some(password),
        None => return fail(format!("no such user ('{id}')")),
    }
    done()
}

fn members(call: &Call<'_>, group: &str) -> Vec<String> {
    let users = call.state.access.users.iter();
    users.filter(|(_, user)| user.groups.contains(group)).map(|(id, _)| id.clone()).collect()
}

/// The groups that the caller may see.
pub fn groups(call: &Call<'_>) -> Result<Answer, Answer> {
    let mut rows = Rows::default();
    let all = call.allows("/access/groups", &["Sys.Audit", "Group.Allocate", "User.Modify"]);
    for (name, comment) in &call.state.access.groups {
        if !all
            && !call
                .allows(&format!("/access/groups/{name}"), &["User.Modify", "Sys.Audit", "Group.Allocate"])
        {
            continue;
        }
        let mut row = json!({"groupid": name, "users": members(call, name).join(",")});
        if let Some(comment) = comment {
            row["comment"] = json!(comment);
        }
        rows.push(&row);
    }
    Ok(Answer::rows(rows))
}

pub fn get_group(call: &Call<'_>) -> Result<Answer, Answer> {
    let name = call.text("groupid");
    let Some(comment) = call.state.access.groups.get(name) else {
        return fail(format!("group '{name}' does not exist"));
    };
    let mut row = json!({"members": members(call, name)});
    if let Some(comment) = comment {
        row["comment"] = json!(comment);
    }
    Ok(Answer::ok(row))
}

pub fn create_group(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let (name, comment) = (act.text("groupid").to_owned(), act.given("comment").map(str::to_owned));
    if act.state.access.groups.contains_key(&name) {
        return fail(format!("create group failed: group '{name}' already exists"));
    }
    act.state.access.groups.insert(name, comment);
    done()
}

pub fn update_group(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let (name, comment) = (act.text("groupid").to_owned(), act.given("comment").map(str::to_owned));
    match act.state.access.groups.get_mut(&name) {
        Some(have) => *have = comment,
        None => return fail(format!("update group failed: group '{name}' does not exist")),
    }
    done()
}

pub fn delete_group(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let name = act.text("groupid").to_owned();
    if act.state.access.groups.remove(&name).is_none() {
        return fail(format!("delete group failed: group '{name}' does not exist"));
    }
    for user in act.state.access.users.values_mut() {
        user.groups.remove(&name);
    }
    done()
}

pub fn get_role(call: &Call<'_>) -> Result<Answer, Answer> {
    let name = call.text("roleid");
    match call.state.access.roles.get(name) {
        Some(privileges) => Ok(Answer::ok(Value::Object(
            privileges.names().map(|name| (name.to_owned(), json!(1))).collect(),
        ))),
        None => fail(format!("role '{name}' does not exist")),
    }
}

fn privileges(text: &str) -> Privileges {
    Privileges::named(&split_list(text).collect::<Vec<_>>())
}

pub fn create_role(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let name = act.text("roleid").to_owned();
    if act.state.access.roles.contains_key(&name) {
        return fail(format!("create role failed: role '{name}' already exists"));
    }
    let set = privileges(act.text("privs"));
    act.state.access.roles.insert(name, set);
    done()
}

fn check_own_role(name: &str, verb: &str) -> Result<(), Answer> {
    if Access::fresh().roles.contains_key(name) {
        return fail(format!("{verb} role failed: auto-generated role '{name}' cannot be modified"));
    }
    Ok(())
}

pub fn update_role(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let name = act.text("roleid").to_owned();
    check_own_role(&name, "update")?;
    let (more, append) = (privileges(act.text("privs")), act.flag("append"));
    let Some(have) = act.state.access.roles.get_mut(&name) else {
        return fail(format!("update role failed: role '{name}' does not exist"));
    };
    let kept: Vec<&str> = if append { have.names().collect() } else { Vec::new() };
    *have = Privileges::named(&kept.into_iter().chain(more.names()).collect::<Vec<_>>());
    done()
}

pub fn delete_role(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let name = act.text("roleid").to_owned();
    check_own_role(&name, "delete")?;
    if act.state.access.roles.remove(&name).is_none() {
        return fail(format!("delete role failed: role '{name}' does not exist"));
    }
    done()
}

/// The places at which there can be rights.
fn is_acl_path(path: &str) -> bool {
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    let number = |text: &&str| text.parse::<u32>().is_ok_and(|vmid| vmid >= 100);
    match parts.as_slice() {
        [""] => true,
        ["access"] | ["nodes"] | ["pool"] | ["sdn"] | ["storage"] | ["vms"] | ["mapping"] => true,
        ["access", "groups" | "realm"] | ["access", "groups" | "realm", _] => true,
        ["nodes" | "storage", _] => true,
        ["pool", rest @ ..] => rest.len() <= 3,
        ["vms", vmid] => number(vmid),
        ["sdn", "zones" | "controllers" | "dns" | "ipams", ..] => true,
        ["mapping", "dir" | "pci" | "usb" | "notifications", ..] => true,
        _ => false,
    }
}

/// `PUT /access/acl`: gives or, with `delete`, takes roles.
pub fn update_acl(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let path = act.text("path").to_owned();
    if !is_acl_path(&path) {
        return Err(Answer::bad_parameter("path", &format!("invalid ACL path '{path}'")));
    }
    let list = |name: &str| -> Vec<String> { split_list(act.text(name)).map(str::to_owned).collect() };
    let (users, groups, tokens, roles) = (list("users"), list("groups"), list("tokens"), list("roles"));
    if users.is_empty() && groups.is_empty() && tokens.is_empty() {
        let text = "either 'users', 'groups' or 'tokens' is required.";
        let errors = ["users", "groups", "tokens"].map(|name| (name.to_owned(), json!(text)));
        return Err(Answer::bad_parameters(Map::from_iter(errors)));
    }
    let propagate = act.given("propagate").is_none_or(|flag| flag == "1");
    let delete = act.flag("delete");
    for role in &roles {
        if !act.state.access.roles.contains_key(role) {
            return fail(format!("ACL update failed: role '{role}' does not exist"));
        }
    }
    let access = &act.state.access;
    for group in &groups {
        if !access.groups.contains_key(group) {
            return fail(format!("ACL update failed: group '{group}' does not exist"));
        }
    }
    for user in &users {
        if !access.users.contains_key(user) {
            return fail(format!("ACL update failed: user '{user}' does not exist"));
        }
    }
    for token in &tokens {
        let Principal::Token(user, name) = Principal::parse(token) else { continue };
        if !access.users.get(&user).is_some_and(|user| user.tokens.contains_key(&name)) {
            return fail(format!("ACL update failed: token '{token}' does not exist"));
        }
    }
    let groups = groups.into_iter().map(|group| format!("@{group}"));
    for who in users.into_iter().chain(groups).chain(tokens) {
        for role in &roles {
            if delete {
                if let Some(entries) = act.state.access.acl.get_mut(&path) {
                    entries.retain(|entry| entry.who != who || entry.role != *role);
                }
            } else {
                act.state.access.grant(&who, role, &path, propagate);
            }
        }
    }
    act.state.access.acl.retain(|_, entries| !entries.is_empty());
    done()
}

fn token<'a>(call: &Call<'a>) -> Result<&'a Token, Answer> {
    let (id, name) = (call.text("userid"), call.text("tokenid"));
    let found = user(call)?.tokens.get(name);
    found.ok_or_else(|| Answer::error(500, format!("no such token '{name}' for user '{id}'")))
}

pub fn tokens(call: &Call<'_>) -> Result<Answer, Answer> {
    let mut rows = Rows::default();
    for (name, token) in &user(call)?.tokens {
        let mut row = token_row(token);
        row.insert("tokenid".to_owned(), json!(name));
        rows.push(&Value::Object(row));
    }
    Ok(Answer::rows(rows))
}

pub fn get_token(call: &Call<'_>) -> Result<Answer, Answer> {
    token(call).map(|token| Answer::ok(Value::Object(token_row(token))))
}

/// The only answer that shows a token's secret. What was asked for comes back as text.
pub fn create_token(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let (id, name) = (act.text("userid").to_owned(), act.text("tokenid").to_owned());
    user(&act.call())?;
    if token(&act.call()).is_ok() {
        return Err(Answer::bad_parameter("tokenid", "Token already exists."));
    }
    act.state.created += 1;
    let secret = ids::uuid(act.state.seed, &format!("token {id}!{name} {}", act.state.created));
    let token = Token {
        secret: secret.clone(),
        privilege_separation: act.given("privsep").is_none_or(|flag| flag == "1"),
        expire: act.text("expire").parse().unwrap_or_default(),
        comment: act.given("comment").map(str::to_owned),
    };
    let mut info = Map::new();
    info.insert("privsep".to_owned(), act.given("privsep").map_or(json!(1), |flag| json!(flag)));
    for key in ["comment", "expire"] {
        if let Some(value) = act.given(key) {
            info.insert(key.to_owned(), json!(value));
        }
    }
    user_mut(act)?.tokens.insert(name.clone(), token);
    Ok(Answer::ok(json!({"full-tokenid": format!("{id}!{name}"), "info": info, "value": secret})))
}

/// What changed comes back as text, the rest as numbers.
pub fn update_token(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let (name, parameters) = (act.text("tokenid").to_owned(), act.parameters.clone());
    token(&act.call())?;
    let Some(token) = user_mut(act)?.tokens.get_mut(&name) else { return done() };
    if let Some(flag) = parameters.get("privsep") {
        token.privilege_separation = flag == "1";
    }
    if let Some(expire) = parameters.get("expire").and_then(|text| text.parse().ok()) {
        token.expire = expire;
    }
    if let Some(comment) = parameters.get("comment") {
        token.comment = Some(comment.clone());
    }
    let mut row = token_row(token);
    for key in ["privsep", "expire"] {
        if let Some(value) = parameters.get(key) {
            row.insert(key.to_owned(), json!(value));
        }
    }
    Ok(Answer::ok(Value::Object(row)))
}

pub fn delete_token(act: &mut Act<'_>) -> Result<Answer, Answer> {
    token(&act.call())?;
    let (id, name) = (act.text("userid").to_owned(), act.text("tokenid").to_owned());
    user_mut(act)?.tokens.remove(&name);
    let who = format!("{id}!{name}");
    for entries in act.state.access.acl.values_mut() {
        entries.retain(|entry| entry.who != who);
    }
    done()
}

fn factor_rows(user: &User, now: u64) -> Vec<Value> {
    let row = |(id, description): &(String, String)| json!({"created": now, "description": description, "id": id, "type": "totp"});
    user.factors.iter().map(row).collect()
}

/// The second factors of all users that the caller may see.
pub fn factors(call: &Call<'_>) -> Result<Answer, Answer> {
    let all = call.allows("/access/groups", &["User.Modify", "Sys.Audit"]);
    let mut rows = Rows::default();
    for (id, user) in &call.state.access.users {
        if !user.factors.is_empty() && (all || id == call.principal.user()) {
            rows.push(&json!({"entries": factor_rows(user, call.now), "userid": id}));
        }
    }
    Ok(Answer::rows(rows))
}

pub fn user_factors(call: &Call<'_>) -> Result<Answer, Answer> {
    let factors = call.state.access.users.get(call.text("userid")).map(|user| factor_rows(user, call.now));
    Ok(Answer::ok(Value::Array(factors.unwrap_or_default())))
}

/// Enrols a second factor. Its code is not checked: it would have to be computed, which no client can tell.
pub fn add_factor(act: &mut Act<'_>) -> Result<Answer, Answer> {
    act.state.created += 1;
    let id = ids::uuid(act.state.seed, &format!("factor {}", act.state.created));
    let description = act.text("description").to_owned();
    let code = act.text("value").to_owned();
    let user = user_mut(act)?;
    user.factors.push((id.clone(), description));
    user.totp = Some(code);
    Ok(Answer::ok(json!({"id": id})))
}

pub fn delete_factor(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let id = act.text("id").to_owned();
    let user = user_mut(act)?;
    if !user.factors.iter().any(|(have, _)| *have == id) {
        return fail(format!("no such tfa entry '{id}'"));
    }
    user.factors.retain(|(have, _)| *have != id);
    if user.factors.is_empty() {
        user.totp = None;
    }
    done()
}

/// `/access`: its index.
pub fn realm(call: &Call<'_>) -> Result<Answer, Answer> {
    match call.text("realm") {
        realm @ ("pam" | "pve") => {
            Ok(Answer::ok(json!({"digest": crate::world::config::Config::default().digest(), "type": realm})))
        }
        realm => fail(format!("domain '{realm}' does not exist")),
    }
}
