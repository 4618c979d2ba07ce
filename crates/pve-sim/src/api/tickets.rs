//! Who is it? API tokens, tickets and their renewal, the second factor, and the protection against forged writes.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::access;
use crate::answer::Answer;
use crate::world::World;
use crate::world::access::Principal;

/// What a request brings along to say who sends it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Presented<'a> {
    /// The `Authorization` header.
    pub authorization: Option<&'a str>,
    /// The `Cookie` header.
    pub cookie: Option<&'a str>,
    /// The `CSRFPreventionToken` header.
    pub csrf: Option<&'a str>,
    /// Whether the request may change something; reads need no `CSRFPreventionToken`.
    pub writes: bool,
}

/// The 401 of a bad or expired ticket or token.
fn failed() -> Answer {
    Answer::bare(401, "Authentication failed!")
}

/// Finds out who sends a request. The refusals are 401 without a body, and differ in their reason.
pub fn authenticate(world: &World, presented: Presented<'_>, lifetime: u64) -> Result<Principal, Answer> {
    let ticket = presented.cookie.and_then(ticket_in).or_else(|| presented.authorization.and_then(ticket_in));
    let Some(ticket) = ticket else {
        let token = presented.authorization.and_then(|header| header.strip_prefix("PVEAPIToken="));
        return match token {
            Some(token) => by_token(world, token).ok_or_else(failed),
            None => Err(Answer::bare(401, "No ticket")),
        };
    };
    let user = verify_ticket(world, &ticket, lifetime).ok_or_else(failed)?;
    if presented.writes && !presented.csrf.is_some_and(|token| verify_csrf(world, &user, token, lifetime)) {
        return Err(Answer::bare(401, "Permission denied - invalid csrf token"));
    }
    Ok(Principal::User(user))
}

/// `user@realm!name=secret`. Tokens need no CSRF header and expire only if they say so.
fn by_token(world: &World, text: &str) -> Option<Principal> {
    let (id, secret) = text.split_once('=')?;
    let principal = Principal::parse(id);
    let Principal::Token(user, name) = &principal else { return None };
    let now = world.now();
    world.read(|state| {
        let user = state.access.users.get(user).filter(|user| user.enabled)?;
        let token = user.tokens.get(name)?;
        let valid = token.secret == secret && (token.expire == 0 || token.expire > now);
        valid.then(|| principal.clone())
    })
}

/// The ticket in a `Cookie` header, or in `Authorization`; clients send it raw or url-encoded. It goes before a token.
fn ticket_in(cookie: &str) -> Option<String> {
    let value = cookie.split(';').find_map(|part| part.trim().strip_prefix("PVEAuthCookie="))?;
    Some(percent_encoding::percent_decode_str(value).decode_utf8_lossy().into_owned())
}

/// A signature that only this world can make. The real one is RSA; clients cannot tell.
fn signature(world: &World, text: &str) -> String {
    let seed = world.read(|state| state.seed);
    let mut hash = Sha256::new();
    hash.update(seed.to_le_bytes());
    hash.update(b"the key of the simulated cluster");
    hash.update(text.as_bytes());
    STANDARD.encode(hash.finalize())
}

/// `PVE:user@realm:HEX::signature`, where HEX is the time of issue.
fn ticket(world: &World, user: &str) -> String {
    let plain = format!("PVE:{user}:{:08X}", world.now());
    format!("{plain}::{}", signature(world, &plain))
}

fn fresh(world: &World, issued: &str, lifetime: u64) -> bool {
    // A little into the future is fine: PVE allows for clocks that differ by five minutes.
    let now = world.now();
    u64::from_str_radix(issued, 16).is_ok_and(|issued| issued <= now + 300 && now < issued + lifetime)
}

fn verify_ticket(world: &World, ticket: &str, lifetime: u64) -> Option<String> {
    let (plain, given) = ticket.split_once("::")?;
    let (user, issued) = plain.strip_prefix("PVE:")?.rsplit_once(':')?;
    let enabled = world.read(|state| state.access.users.get(user).is_some_and(|user| user.enabled));
    let valid = signature(world, plain) == given && fresh(world, issued, lifetime) && enabled;
    valid.then(|| user.to_owned())
}

fn csrf_token(world: &World, user: &str) -> String {
    let issued = format!("{:08X}", world.now());
    let signed = signature(world, &format!("csrf {issued} {user}"));
    format!("{issued}:{}", signed.trim_end_matches('='))
}

fn verify_csrf(world: &World, user: &str, token: &str, lifetime: u64) -> bool {
    token.split_once(':').is_some_and(|(issued, given)| {
        let signed = signature(world, &format!("csrf {issued} {user}"));
        signed.trim_end_matches('=') == given && fresh(world, issued, lifetime)
    })
}

/// What a user with a second factor gets for the password: no ticket but a challenge, signed for that user.
fn challenge(world: &World, user: &str) -> String {
    let plain = format!("PVE:!tfa!{{\"totp\"%3Atrue}}:{:08X}", world.now());
    format!("{plain}::{}", signature(world, &format!("{plain} {user}")))
}

fn verify_challenge(world: &World, user: &str, challenge: &str, lifetime: u64) -> bool {
    challenge.split_once("::").is_some_and(|(plain, given)| {
        let issued = plain.rsplit_once(':').map_or("", |(_, issued)| issued);
        plain.starts_with("PVE:!tfa!")
            && signature(world, &format!("{plain} {user}")) == given
            && fresh(world, issued, lifetime)
    })
}

/// The 401 of the login, the only one with a body.
fn refused() -> Answer {
    Answer::error(401, "authentication failure")
}

/// `POST /access/ticket`: a password, or a ticket that is still valid, buys a ticket.
pub fn login(world: &World, parameters: &BTreeMap<String, String>, lifetime: u64) -> Answer {
    let given = |name: &str| parameters.get(name).map(String::as_str);
    let missing = |name| Answer::bad_parameter(name, "property is missing and it is not optional");
    let (Some(name), Some(password)) = (given("username"), given("password")) else {
        return missing(if given("username").is_none() { "username" } else { "password" });
    };
    let user = match given("realm") {
        Some(realm) if !name.ends_with(&format!("@{realm}")) => format!("{name}@{realm}"),
        _ => name.to_owned(),
    };
    let Some(known) = world.read(|state| state.access.users.get(&user).cloned()).filter(|user| user.enabled)
    else {
        return refused();
    };
    if let Some(proof) = given("tfa-challenge") {
        let code = password.strip_prefix("totp:");
        let right = verify_challenge(world, &user, proof, lifetime)
            && code.is_some()
            && code == known.totp.as_deref();
        return if right { issue(world, &user) } else { refused() };
    }
    let renewed = verify_ticket(world, password, lifetime).as_deref() == Some(user.as_str());
    if !renewed && known.password.as_deref() != Some(password) {
        return refused();
    }
    if known.totp.is_some() && !renewed {
        return Answer::ok(json!({
            "CSRFPreventionToken": csrf_token(world, &user), "NeedTFA": 1, "ticket": challenge(world, &user),
            "username": user,
        }));
    }
    issue(world, &user)
}

/// A ticket with all that comes along. The cluster's name is for who may read the cluster's status.
fn issue(world: &World, user: &str) -> Answer {
    let principal = Principal::User(user.to_owned());
    let mut data = json!({
        "CSRFPreventionToken": csrf_token(world, user), "ticket": ticket(world, user), "username": user,
    });
    world.read(|state| {
        data["cap"] = access::capabilities(state, &principal);
        if let Some(name) = &state.cluster_name
            && state.allows(&principal, "/", &["Sys.Audit"])
        {
            data["clustername"] = json!(name);
        }
    });
    Answer::ok(data)
}

/// A ticket of a user and the token that its writes need, without a login.
pub(crate) fn issue_for(world: &World, user: &str) -> (String, String) {
    (ticket(world, user), csrf_token(world, user))
}

/// The challenge of a second factor, without a login.
pub(crate) fn challenge_for(world: &World, user: &str) -> String {
    challenge(world, user)
}
