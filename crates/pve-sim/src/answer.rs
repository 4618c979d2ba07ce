//! What the API answers: status, reason phrase and body, in PVE's way of saying errors.

use serde_json::{Map, Value, json};

/// An answer, before the transport turns it into HTTP.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The HTTP status; PVE also uses 595 and 596.
    pub status: u16,
    /// The HTTP reason phrase; PVE puts the error text there.
    pub reason: String,
    /// The body.
    pub body: Body,
}

/// An answer's body.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// No body at all, and no content type.
    Empty,
    /// JSON.
    Json(Value),
    /// Plain text.
    Text(String),
    /// JSON that is already spelt out; listings of many guests are written row by row.
    Spelt(Vec<u8>),
}

impl Body {
    /// The bytes of the body.
    pub fn into_bytes(self) -> Vec<u8> {
        match self {
            Self::Empty => Vec::new(),
            Self::Text(text) => text.into_bytes(),
            Self::Json(value) => value.to_string().into_bytes(),
            Self::Spelt(bytes) => bytes,
        }
    }

    /// The body as JSON; `null` where it is empty.
    pub fn to_json(&self) -> Value {
        match self {
            Self::Empty | Self::Text(_) => Value::Null,
            Self::Json(value) => value.clone(),
            Self::Spelt(bytes) => serde_json::from_slice(bytes).unwrap_or_default(),
        }
    }
}

impl Answer {
    /// 200 with `{"data": …}`.
    pub fn ok(data: Value) -> Self {
        let body = Body::Json(Value::Object(Map::from_iter([("data".to_owned(), data)])));
        Self { status: 200, reason: "OK".to_owned(), body }
    }

    /// 200 with rows.
    pub fn rows(rows: Rows) -> Self {
        Self { status: 200, reason: "OK".to_owned(), body: Body::Spelt(rows.finish()) }
    }

    /// An error as PVE's API layer says it: the text is the reason phrase and, with a newline, the body's `message`.
    pub fn error(status: u16, reason: impl Into<String>) -> Self {
        let text = reason.into();
        let body = Body::Json(json!({"data": null, "message": format!("{text}\n")}));
        // A phrase is one line: the text's first.
        let reason = text.lines().next().unwrap_or_default().to_owned();
        Self { status, reason, body }
    }

    /// An error without a body: the authentication layer's 401, proxying errors, unsupported methods.
    pub fn bare(status: u16, reason: impl Into<String>) -> Self {
        Self { status, reason: reason.into(), body: Body::Empty }
    }

    /// 400: always the same text, and the parameters at fault in `errors`.
    pub fn bad_parameter(parameter: &str, problem: &str) -> Self {
        Self::bad_parameters(Map::from_iter([(parameter.to_owned(), Value::from(problem))]))
    }

    /// 400 with several parameters at fault.
    pub fn bad_parameters(errors: Map<String, Value>) -> Self {
        let reason = "Parameter verification failed.";
        let body = json!({"data": null, "errors": errors, "message": format!("{reason}\n")});
        Self { status: 400, reason: reason.to_owned(), body: Body::Json(body) }
    }

    /// 403 for a missing privilege; several privileges are alternatives.
    pub fn forbidden(path: &str, privileges: &[&str]) -> Self {
        Self::error(403, format!("Permission check failed ({path}, {})", privileges.join("|")))
    }

    /// 501 for an unknown path or verb. Its message, unlike others, has no newline.
    pub fn not_implemented(method: &str, path: &str) -> Self {
        let reason = format!("Method '{method} {path}' not implemented");
        let body = Body::Json(json!({"data": null, "message": reason}));
        Self { status: 501, reason, body }
    }

    /// Whether it is a 200.
    pub fn is_ok(&self) -> bool {
        self.status == 200
    }
}

/// `{"data": [row, …]}`, written row by row: a listing of 100,000 guests never exists as a tree.
#[derive(Debug)]
pub struct Rows(Vec<u8>);

impl Default for Rows {
    fn default() -> Self {
        Self(b"{\"data\":[".to_vec())
    }
}

impl Rows {
    /// Adds a row.
    pub fn push(&mut self, row: &Value) {
        if self.0.last() != Some(&b'[') || self.0.len() > b"{\"data\":[".len() {
            self.0.push(b',');
        }
        // Writing JSON into memory has no way to fail: keys are strings.
        let _ = serde_json::to_writer(&mut self.0, row);
    }

    fn finish(mut self) -> Vec<u8> {
        self.0.extend_from_slice(b"]}");
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_json() {
        let mut rows = Rows::default();
        assert_eq!(Body::Spelt(Rows::default().finish()).to_json(), json!({"data": []}));
        rows.push(&json!([]));
        rows.push(&json!({"a": 1}));
        assert_eq!(Answer::rows(rows).body.to_json(), json!({"data": [[], {"a": 1}]}));
    }
}
