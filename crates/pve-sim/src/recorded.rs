//! An estate that was recorded elsewhere, served again as it was.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use crate::answer::{Answer, Body};
use crate::world::Credential;

/// Why a recording cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum RecordedError {
    /// The file cannot be read.
    #[error("cannot read the recording {path}: check that it is there and readable")]
    Read {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A line is not a recorded answer.
    #[error("line {line} of the recording is not an object with path, status, reason and json")]
    Line {
        /// From 1.
        line: usize,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
}

#[derive(Deserialize)]
struct Line {
    path: String,
    status: u16,
    reason: String,
    json: Value,
}

/// Recorded answers to GET requests by path.
///
/// A request is answered by the recording with the same path and the same query, in whatever order; else by the one of the
/// path alone; else with 501.
#[derive(Clone, Debug, Default)]
pub struct RecordedEstate {
    answers: BTreeMap<(String, Vec<(String, String)>), Answer>,
    credential: Option<Credential>,
}

impl RecordedEstate {
    /// Reads a file of lines `{"path": …, "status": …, "reason": …, "json": …}`.
    pub fn read(path: &Path) -> Result<Self, RecordedError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| RecordedError::Read { path: path.display().to_string(), source })?;
        Self::parse(&text)
    }

    /// Takes the lines apart; empty ones are skipped.
    pub fn parse(text: &str) -> Result<Self, RecordedError> {
        let mut estate = Self::default();
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let Line { path, status, reason, json } = serde_json::from_str(line)
                .map_err(|source| RecordedError::Line { line: number + 1, source })?;
            let body = if json.is_null() { Body::Empty } else { Body::Json(json) };
            let (path, query) = path.split_once('?').unwrap_or((path.as_str(), ""));
            let parameters = url::form_urlencoded::parse(query.as_bytes()).into_owned();
            estate.answers.insert(key(path, parameters), Answer { status, reason, body });
        }
        Ok(estate)
    }

    /// Accepts this token alone; else any `PVEAPIToken` or ticket will do.
    pub fn only_token(mut self, id: &str, secret: &str) -> Self {
        self.credential = Some(Credential { id: id.to_owned(), secret: secret.to_owned() });
        self
    }

    /// How many answers there are.
    pub fn len(&self) -> usize {
        self.answers.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.answers.is_empty()
    }

    /// Replaces or adds the answer of a path, which may have a query: for estates that differ in one thing.
    pub fn set(&mut self, path: &str, answer: Answer) {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        self.answers.insert(key(path, url::form_urlencoded::parse(query.as_bytes()).into_owned()), answer);
    }

    /// The answer of a path, which may have a query, as it was recorded.
    pub fn get(&self, path: &str) -> Answer {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        self.answer("GET", path, &url::form_urlencoded::parse(query.as_bytes()).into_owned().collect())
    }

    pub(crate) fn admits(&self, presented: Option<&str>, has_ticket: bool) -> Result<(), Answer> {
        let token = presented.and_then(|header| header.strip_prefix("PVEAPIToken="));
        match (&self.credential, token) {
            (None, Some(_)) => Ok(()),
            (None, None) if has_ticket => Ok(()),
            (Some(Credential { id, secret }), Some(token)) if *token == format!("{id}={secret}") => Ok(()),
            (_, None) if !has_ticket => Err(Answer::bare(401, "No ticket")),
            _ => Err(Answer::bare(401, "Authentication failed!")),
        }
    }

    pub(crate) fn answer(&self, method: &str, path: &str, parameters: &BTreeMap<String, String>) -> Answer {
        let exact = key(path, parameters.iter().map(|(name, value)| (name.clone(), value.clone())));
        let found = self.answers.get(&exact).or_else(|| self.answers.get(&key(path, [])));
        match found {
            Some(answer) if method == "GET" => answer.clone(),
            _ => Answer::not_implemented(method, path),
        }
    }
}

/// Recorded paths are percent-encoded (`/access/users/a%40b/token`), requests are decoded by the time they get here.
fn key(
    path: &str,
    parameters: impl IntoIterator<Item = (String, String)>,
) -> (String, Vec<(String, String)>) {
    let decoded = percent_encoding::percent_decode_str(path).decode_utf8_lossy();
    let mut parameters: Vec<(String, String)> = parameters.into_iter().collect();
    parameters.sort_unstable();
    let path = decoded.trim_end_matches('/');
    (if path.is_empty() { "/".to_owned() } else { path.to_owned() }, parameters)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_query_decides_and_else_the_path() {
        let text = concat!(
            r#"{"path":"/nodes/a/qemu","status":200,"reason":"OK","json":{"data":1}}"#,
            "\n\n",
            r#"{"path":"/nodes/a/qemu?x=1&full=1","status":200,"reason":"OK","json":{"data":2}}"#,
        );
        let estate = RecordedEstate::parse(text).unwrap();
        assert_eq!(estate.len(), 2);
        assert_eq!(estate.get("/nodes/a/qemu?full=1&x=1").body.to_json(), json!({"data": 2}));
        assert_eq!(estate.get("/nodes/a/qemu?full=0").body.to_json(), json!({"data": 1}));
        assert_eq!(estate.get("/nodes/a/lxc").status, 501);
        let error = RecordedEstate::parse("\n{}").unwrap_err();
        assert!(error.to_string().starts_with("line 2 "), "{error}");
    }
}
