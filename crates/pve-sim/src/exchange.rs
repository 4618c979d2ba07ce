//! A request that has come in whole, answered: method, authentication, body, formatter, and then the API.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use http::Method;
use http::header::{AUTHORIZATION, COOKIE};
use serde_json::json;

use crate::answer::{Answer, Body};
use crate::api::{self, Request};
use crate::parameters;
use crate::recorded::RecordedEstate;
use crate::world::World;
use crate::world::access::Principal;

/// The largest request body that PVE takes.
pub(crate) const MOST_BODY: usize = 512 * 1024;

/// What stands behind the transport.
pub(crate) enum Backend {
    /// A world.
    World(Arc<World>),
    /// Recorded answers.
    Recorded(RecordedEstate),
}

/// `/api2/extjs` always answers 200, and says inside whether it worked. Who is not authenticated gets 401 all the same.
fn wrap(answer: Answer) -> Answer {
    if answer.status == 401 || answer.body == Body::Empty {
        return answer;
    }
    let mut body = answer.body.to_json();
    if answer.is_ok() {
        body["success"] = json!(1);
    } else {
        body["success"] = json!(0);
        body["status"] = json!(answer.status);
    }
    Answer { body: Body::Json(body), ..Answer::ok(json!(null)) }
}

/// `/api2/json/version` is `/version` as JSON. The formatter's name has small letters and digits.
fn split_format(decoded: &str) -> Option<(&str, String)> {
    let below = decoded.strip_prefix("/api2")?.strip_prefix('/')?.trim_start_matches('/');
    let (format, path) = below.split_once('/').unwrap_or((below, ""));
    let mut letters = format.bytes();
    let fits = letters.next().is_some_and(|first| first.is_ascii_lowercase())
        && format.len() > 1
        && letters.all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    fits.then(|| (format, format!("/{path}")))
}

/// The path below the formatter, for faults and counters; that of anything else is what it is.
pub(crate) fn path_of(decoded: &str) -> String {
    split_format(decoded).map_or_else(|| decoded.to_owned(), |(_, path)| path)
}

/// Answers a request to a node, in PVE's order: unknown methods, paths outside the API, authentication, the body, the
/// formatter, and the API.
pub(crate) fn answer(
    parts: &http::request::Parts,
    bytes: &Bytes,
    node: &str,
    backend: &Backend,
    lifetime: u64,
) -> Answer {
    if ![Method::GET, Method::POST, Method::PUT, Method::DELETE].contains(&parts.method) {
        return Answer::bare(501, format!("method '{}' not available", parts.method));
    }
    let decoded = percent_encoding::percent_decode_str(parts.uri.path()).decode_utf8_lossy().into_owned();
    if !decoded.starts_with("/api2") {
        return Answer::bare(500, format!("no such file '{decoded}'"));
    }
    let Some((format, path)) = split_format(&decoded) else { return Answer::bare(501, "no such uri") };
    let answer = formatted(parts, bytes, format, &path, node, backend, lifetime);
    if format == "extjs" { wrap(answer) } else { answer }
}

/// What needs no login: logins themselves, and what a login page asks.
fn is_public(method: &Method, path: &str) -> bool {
    match path {
        "/access/ticket" => *method == Method::GET || *method == Method::POST,
        "/access/domains" => *method == Method::GET,
        "/access/openid/auth-url" | "/access/openid/login" => *method == Method::POST,
        _ => false,
    }
}

fn formatted(
    parts: &http::request::Parts,
    bytes: &Bytes,
    format: &str,
    path: &str,
    node: &str,
    backend: &Backend,
    lifetime: u64,
) -> Answer {
    let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
    let presented = api::Presented {
        authorization: header(AUTHORIZATION.as_str()),
        cookie: header(COOKIE.as_str()),
        csrf: header("CSRFPreventionToken"),
        // An upload comes from a form, which cannot send the header.
        writes: parts.method != Method::GET && !(parts.method == Method::POST && path.ends_with("/upload")),
    };
    let public = is_public(&parts.method, path.trim_end_matches('/'));
    let principal = match backend {
        Backend::Recorded(estate) => {
            estate.admits(presented.authorization, presented.cookie.is_some()).map(|()| nobody())
        }
        Backend::World(_) if public => Ok(nobody()),
        Backend::World(world) => api::authenticate(world, presented, lifetime),
    };
    let principal = match principal {
        Ok(principal) => principal,
        Err(refusal) => return refusal,
    };
    if !bytes.is_empty() && parts.method != Method::PUT && parts.method != Method::POST {
        return Answer::bare(501, format!("Unexpected content for method '{}'", parts.method));
    }
    if bytes.len() > MOST_BODY {
        return Answer::bare(501, "for data too large");
    }
    let query = parts.uri.query().unwrap_or_default();
    let parameters = match parameters::of_request(&parts.headers, query, bytes) {
        Ok(parameters) => parameters,
        Err(refusal) => return refusal,
    };
    if !matches!(format, "json" | "extjs") {
        return Answer::bare(501, format!("no formatter for uri {path}, {format}"));
    }
    let method = parts.method.as_str();
    match backend {
        Backend::Recorded(estate) => estate.answer(method, path, &parameters),
        Backend::World(world) if path == "/access/ticket" => {
            ticket(world, method, presented, &parameters, lifetime)
        }
        Backend::World(world) => {
            api::answer(world, &Request { method, path, parameters, principal, local_node: node })
        }
    }
}

/// Who is not logged in.
fn nobody() -> Principal {
    Principal::User(String::new())
}

/// Answers a request as the server does, without a connection.
pub(crate) fn answer_directly(world: &Arc<World>, request: http::Request<Bytes>, node: &str) -> Answer {
    let (parts, bytes) = request.into_parts();
    let backend = Backend::World(Arc::clone(world));
    answer(&parts, &bytes, node, &backend, crate::server::TICKET_LIFETIME.as_secs())
}

/// `/access/ticket` needs no authentication; a token that presents itself there is refused.
fn ticket(
    world: &World,
    method: &str,
    presented: api::Presented<'_>,
    parameters: &BTreeMap<String, String>,
    lifetime: u64,
) -> Answer {
    if method == "POST" && presented.authorization.is_some_and(|header| header.starts_with("PVEAPIToken=")) {
        return api::ticket_only("/access/ticket");
    }
    match method {
        "GET" => Answer::ok(json!(null)),
        "POST" => api::login(world, parameters, lifetime),
        _ => Answer::not_implemented(method, "/access/ticket"),
    }
}
