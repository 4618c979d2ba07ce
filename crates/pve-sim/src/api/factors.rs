//! `/access/tfa`: second factors.

use serde_json::{Value, json};

use super::Call;
use super::act::{Act, done, fail};
use super::users::user_mut;
use crate::answer::{Answer, Rows};
use crate::world::access::User;
use crate::world::ids;

fn factor_rows(user: &User, now: u64) -> Vec<Value> {
    let row = |(id, description): &(String, String)| json!({"created": now, "description": description, "id": id, "type": "totp"});
    user.factors.iter().map(row).collect()
}

/// The second factors of all users that the caller may see.
pub fn factors(call: &Call<'_>) -> Result<Answer, Answer> {
    let mut rows = Rows::default();
    for (id, user) in &call.state.access.users {
        if !user.factors.is_empty() && super::access::sees_user(call, id, user) {
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
    super::users::confirmed(act, "password")?;
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
    super::users::confirmed(act, "password")?;
    let id = act.text("id").to_owned();
    let user = user_mut(act)?;
    if !user.factors.iter().any(|(have, _)| *have == id) {
        return fail("no such entry");
    }
    user.factors.retain(|(have, _)| *have != id);
    if user.factors.is_empty() {
        user.totp = None;
    }
    done()
}

/// One second factor. One that there is not is the only thing in `/access` that is answered with 404.
pub fn factor(call: &Call<'_>) -> Result<Answer, Answer> {
    let id = call.text("id");
    let user = call.state.access.users.get(call.text("userid"));
    let rows = user.map(|user| factor_rows(user, call.now)).unwrap_or_default();
    match rows.into_iter().find(|row| row["id"] == id) {
        Some(row) => Ok(Answer::ok(row)),
        None => Err(Answer::error(404, format!("No such tfa entry '{id}'"))),
    }
}

/// `PUT /access/tfa/{userid}/{id}`.
pub fn update_factor(act: &mut Act<'_>) -> Result<Answer, Answer> {
    super::users::confirmed(act, "password")?;
    let (id, description) = (act.text("id").to_owned(), act.given("description").map(str::to_owned));
    match user_mut(act)?.factors.iter_mut().find(|(have, _)| *have == id) {
        Some(factor) => factor.1 = description.unwrap_or(std::mem::take(&mut factor.1)),
        None => return fail("no such entry"),
    }
    done()
}

/// The sorts of second factors that a user has. No realm of this world asks for any.
pub fn factor_types(call: &Call<'_>) -> Result<Answer, Answer> {
    let realm = call.text("userid").rsplit_once('@').map_or("", |(_, realm)| realm);
    if !call.state.access.realms.contains_key(realm) {
        return fail(format!("auth domain '{realm}' does not exist"));
    }
    let user = call.state.access.users.get(call.text("userid"));
    let has = user.is_some_and(|user| !user.factors.is_empty());
    Ok(Answer::ok(match (call.flag("multiple"), has) {
        (true, true) => json!({"user": ["totp"]}),
        (true, false) => json!({"user": []}),
        (false, true) => json!({"user": "oath"}),
        (false, false) => json!({}),
    }))
}
