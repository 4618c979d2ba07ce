//! An answer as HTTP.

use std::time::Duration;

use axum::body::Body as HttpBody;
use bytes::Bytes;
use futures::StreamExt as _;
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, SERVER};
use http::{Response, StatusCode};
use hyper::ext::ReasonPhrase;
use serde_json::json;

use crate::answer::{Answer, Body};

/// Between the start of a truncated body and the end of its connection.
const TRUNCATION_PAUSE: Duration = Duration::from_millis(20);

/// The `Server` header that PVE sends.
const SERVER_NAME: &str = "pve-api-daemon/3.0";

/// PVE's content type of every answer with a body.
const JSON: &str = "application/json;charset=UTF-8";

/// The connection is to be closed without an answer.
#[derive(Debug, thiserror::Error)]
#[error("the simulated connection is dropped")]
pub(crate) struct Dropped;

/// An answer as HTTP: errors close the connection, successes keep it, and only a body has a content type.
pub(crate) fn http_response(answer: Answer) -> Response<HttpBody> {
    let has_body = answer.body != Body::Empty;
    let mut response = Response::new(HttpBody::from(answer.body.into_bytes()));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(SERVER, HeaderValue::from_static(SERVER_NAME));
    headers.insert(
        CONNECTION,
        HeaderValue::from_static(if answer.status == 200 { "Keep-Alive" } else { "close" }),
    );
    if has_body {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(JSON));
    }
    // A phrase must be one line of visible text; what is not is left out rather than failing the answer.
    let phrase: String = answer.reason.chars().filter(|character| !character.is_control()).collect();
    if let Ok(phrase) = ReasonPhrase::try_from(phrase) {
        response.extensions_mut().insert(phrase);
    }
    response
}

/// A page for people, as a proxy in front of PVE would send it.
pub(crate) fn html() -> Response<HttpBody> {
    let page =
        "<!DOCTYPE html><html><head><title>Sign in</title></head><body><h1>Sign in</h1></body></html>\n";
    let mut response = http_response(Answer { body: Body::Spelt(page.into()), ..Answer::ok(json!(null)) });
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html;charset=UTF-8"));
    response
}

/// The length promises the whole body, and then the stream breaks off.
pub(crate) fn truncated(answer: Answer, length: usize) -> Response<HttpBody> {
    let bytes = answer.body.clone().into_bytes();
    let whole = bytes.len();
    let start: Bytes = bytes.get(..length.min(whole)).unwrap_or_default().to_vec().into();
    let mut response = http_response(answer);
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(whole));
    // The pause lets what is there go out; an error at once would take the headers with it.
    let parts =
        futures::stream::iter([Ok(start), Err(Dropped)]).enumerate().then(|(number, part)| async move {
            if number > 0 {
                tokio::time::sleep(TRUNCATION_PAUSE).await;
            }
            part
        });
    *response.body_mut() = HttpBody::from_stream(parts);
    response
}
