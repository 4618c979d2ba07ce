//! `/access/users` and `/access/password`.

use serde_json::{Map, Value, json};

use super::Call;
use super::act::{Act, done, fail};
use crate::answer::Answer;
use crate::schema::split_list;
use crate::world::access::{Principal, ROOT, Token, User};

/// The user that the path names.
pub(super) fn user<'a>(call: &Call<'a>) -> Result<&'a User, Answer> {
    let id = call.text("userid");
    call.state.access.users.get(id).ok_or_else(|| Answer::error(500, format!("no such user ('{id}')")))
}

/// The user that the path names, to be changed.
pub(super) fn user_mut<'a>(act: &'a mut Act<'_>) -> Result<&'a mut User, Answer> {
    let id = act.text("userid").to_owned();
    let missing = Answer::error(500, format!("no such user ('{id}')"));
    act.state.access.users.get_mut(&id).ok_or(missing)
}

/// What is shown of a token besides its name.
pub(super) fn token_row(token: &Token) -> Map<String, Value> {
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
    let mut row = user.shown();
    let tokens: Map<String, Value> =
        user.tokens.iter().map(|(name, token)| (name.clone(), Value::Object(token_row(token)))).collect();
    row.insert("groups".to_owned(), json!(user.groups));
    row.insert("tokens".to_owned(), if tokens.is_empty() { Value::Null } else { Value::Object(tokens) });
    Ok(Answer::ok(Value::Object(row)))
}

const ABOUT: [&str; 5] = ["comment", "email", "firstname", "keys", "lastname"];

/// Changes a user; `verb` is what failed, as PVE says it: everything happens under the lock of the file.
fn change_user(act: &mut Act<'_>, user: &mut User, verb: &str) -> Result<(), Answer> {
    let known = |group: &&str| !act.state.access.groups.contains_key(*group);
    if let Some(unknown) = split_list(act.text("groups")).find(known) {
        return fail(format!("{verb} user failed: no such group '{unknown}'"));
    }
    for key in ABOUT {
        if let Some(value) = act.given(key) {
            user.about.insert(key.to_owned(), value.to_owned());
        }
    }
    if let Some(enable) = act.given("enable") {
        user.enabled = enable == "1";
    }
    if let Some(expire) = act.given("expire").and_then(|text| text.parse().ok()) {
        user.expire = expire;
    }
    if let Some(groups) = act.given("groups") {
        if !act.flag("append") {
            user.groups.clear();
        }
        user.groups.extend(split_list(groups).map(str::to_owned));
    }
    Ok(())
}

/// Only a realm that there is keeps a password.
fn check_realm(act: &Act<'_>, id: &str) -> Result<(), String> {
    let realm = id.rsplit_once('@').map_or("", |(_, realm)| realm);
    match act.state.access.realms.get(realm).and_then(|realm| realm.get("type")).and_then(Value::as_str) {
        None => Err(format!("auth domain '{realm}' does not exist")),
        Some(kind @ ("ad" | "ldap" | "openid")) => Err(format!("can't set password on auth type '{kind}'")),
        Some(_) => Ok(()),
    }
}

/// `POST /access/users`. A realm that there is not is no obstacle to a user without a password.
pub fn create_user(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let id = act.text("userid").to_owned();
    if act.state.access.users.contains_key(&id) {
        return fail(format!("create user failed: user '{id}' already exists"));
    }
    let password = act.given("password").map(str::to_owned);
    if password.is_some()
        && let Err(problem) = check_realm(act, &id)
    {
        return fail(format!("create user failed: {problem}"));
    }
    let mut user = User { enabled: true, password, ..User::default() };
    change_user(act, &mut user, "create")?;
    act.state.access.users.insert(id, user);
    done()
}

/// `PUT /access/users/{userid}`.
pub fn update_user(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let id = act.text("userid").to_owned();
    let Some(mut user) = act.state.access.users.get(&id).cloned() else {
        return fail(format!("update user failed: no such user ('{id}')"));
    };
    change_user(act, &mut user, "update")?;
    act.state.access.users.insert(id, user);
    done()
}

/// A user goes with its tokens, second factors and entries. One that there is not is gone already: no error.
pub fn delete_user(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let id = act.text("userid").to_owned();
    act.state.access.users.remove(&id);
    let of_user = format!("{id}!");
    act.state.access.forget(|entry| entry.who == id || entry.who.starts_with(&of_user));
    done()
}

/// Who changes passwords and second factors must be known, may not touch the superuser, and confirms with the own password.
pub(super) fn confirmed(act: &Act<'_>, parameter: &str) -> Result<(), Answer> {
    let call = act.call();
    user(&call)?;
    let root = matches!(act.principal, Principal::User(own) if own == ROOT);
    if root {
        return Ok(());
    }
    if act.text("userid") == ROOT {
        return Err(super::checks::plain());
    }
    let Some(given) = act.given(parameter) else {
        return Err(Answer::bad_parameter(parameter, "password is required to modify user"));
    };
    let own = act.state.access.users.get(act.principal.user()).and_then(|user| user.password.as_deref());
    if own != Some(given) {
        return fail("invalid credentials");
    }
    Ok(())
}

/// `PUT /access/password`. Of the system's own users, none but the superuser changes another's.
pub fn password(act: &mut Act<'_>) -> Result<Answer, Answer> {
    confirmed(act, "confirmation-password")?;
    let id = act.text("userid").to_owned();
    if !act.is_root() && act.principal.user() != id && id.ends_with("@pam") {
        return Err(super::checks::plain());
    }
    if let Err(problem) = check_realm(act, &id) {
        return fail(problem);
    }
    let password = act.text("password").to_owned();
    user_mut(act)?.password = Some(password);
    done()
}
