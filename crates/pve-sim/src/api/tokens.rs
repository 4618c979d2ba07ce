//! `/access/users/{userid}/token`.

use serde_json::{Map, Value, json};

use super::Call;
use super::act::{Act, done};
use super::users::{token_row, user, user_mut};
use crate::answer::{Answer, Rows};
use crate::world::access::Token;
use crate::world::ids;

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
        comment: act.given("comment").filter(|comment| !comment.is_empty()).map(str::to_owned),
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
    if let Some(comment) = parameters.get("comment").filter(|comment| !comment.is_empty()) {
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
    act.state.access.forget(|entry| entry.who == who);
    done()
}
