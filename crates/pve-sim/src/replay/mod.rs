//! Recorded requests, sent again: each to a world that is as its recorded answer presupposes.

mod answers;
mod answers_access;
mod answers_cluster;
mod answers_guests;
mod answers_storage;
mod compare;
mod elements;
mod guests;
mod login;
mod prepare;
mod refusals;
mod refusals_guests;
mod rights;
mod storages;
mod variants;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, COOKIE};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::answer::Answer;
use crate::recorded::RecordedError;
use crate::world::World;

/// A recorded request with its answer.
#[derive(Clone, Debug, Deserialize)]
pub struct Recording {
    /// What its maker called it; it decides nothing.
    #[serde(default)]
    pub label: String,
    /// Who asked, such as `root@pam (ticket)` or `a@pve!b (token)`.
    pub auth: Option<String>,
    /// The verb.
    pub method: String,
    /// The path with its formatter, without a query.
    pub path: String,
    /// The parameters.
    pub params: Option<Map<String, Value>>,
    /// The body, where the parameters went there.
    pub request_body: Option<String>,
    /// The answer's status.
    pub status: u16,
    /// Its reason phrase.
    pub reason: String,
    /// Its body.
    #[serde(default)]
    pub json: Value,
}

/// How a recording and the simulator's answer compare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Status, reason and the shape of the body agree.
    Agrees,
    /// They do not: what differs, a line each.
    Differs(Vec<String>),
    /// The simulator has no handler for the path.
    NotCovered,
}

/// What became of a file of recordings.
#[derive(Debug, Default)]
pub struct Report {
    /// Each recording's number from 0, name and verdict.
    pub verdicts: Vec<(usize, String, Verdict)>,
}

impl Report {
    /// Agreed, differing, not covered.
    pub fn counts(&self) -> (usize, usize, usize) {
        let count = |wanted: fn(&Verdict) -> bool| {
            self.verdicts.iter().filter(|(.., verdict)| wanted(verdict)).count()
        };
        (
            count(|verdict| *verdict == Verdict::Agrees),
            count(|verdict| matches!(verdict, Verdict::Differs(_))),
            count(|verdict| *verdict == Verdict::NotCovered),
        )
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (number, name, verdict) in &self.verdicts {
            match verdict {
                Verdict::Agrees => {}
                Verdict::NotCovered => writeln!(out, "{number} {name}: not covered")?,
                Verdict::Differs(lines) => {
                    writeln!(out, "{number} {name}: differs")?;
                    for line in lines {
                        writeln!(out, "    {line}")?;
                    }
                }
            }
        }
        let (agreed, differing, not_covered) = self.counts();
        writeln!(out, "agreed {agreed}, differing {differing}, not covered {not_covered}")
    }
}

/// Replays a file of recordings, one JSON object a line.
///
/// # Errors
/// A file that cannot be read, and a line that is no recording.
pub fn replay(file: &Path) -> Result<Report, RecordedError> {
    let text = std::fs::read_to_string(file)
        .map_err(|source| RecordedError::Read { path: file.display().to_string(), source })?;
    let mut report = Report::default();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let recording: Recording =
            serde_json::from_str(line).map_err(|source| RecordedError::Line { line: number + 1, source })?;
        let name = format!("[{}] {} {}", recording.label, recording.method, recording.path);
        report.verdicts.push((number, name, judge(&recording)));
    }
    Ok(report)
}

/// Prepares a world for a recording, sends the request and compares. What the answer leaves open is tried both ways.
pub fn judge(recording: &Recording) -> Verdict {
    if let Some(below) = recording.below()
        && crate::api::is_covered(&recording.method, &below) == Some(false)
    {
        return Verdict::NotCovered;
    }
    let mut first = None;
    for changes in variants::all() {
        let mut prepared = prepare::prepare(recording);
        for change in &changes {
            change(&mut prepared.state);
        }
        let problems = attempt(recording, prepared);
        if problems.is_empty() {
            return Verdict::Agrees;
        }
        first.get_or_insert(problems);
    }
    Verdict::Differs(first.unwrap_or_default())
}

/// Sends the request to a prepared world: what differs.
fn attempt(recording: &Recording, prepared: prepare::Prepared) -> Vec<String> {
    let world = Arc::new(World::from_state(prepared.state));
    // A task that was recorded while it ran is one that takes its time.
    world.set_time_scale(0.0);
    let answer = send(&world, recording, &prepared.changed, &prepared.local_node);
    compare::compare(recording, &answer)
}

impl Recording {
    /// The path below the formatter, decoded; `None` outside the API.
    pub(crate) fn below(&self) -> Option<String> {
        let decoded = percent_encoding::percent_decode_str(&self.path).decode_utf8_lossy().into_owned();
        let below = decoded.strip_prefix("/api2/json").or_else(|| decoded.strip_prefix("/api2/extjs"))?;
        Some(below.to_owned())
    }

    /// An answer of `/api2/extjs` as `/api2/json` would have given it.
    pub(crate) fn unwrapped(&self) -> Self {
        let mut inner = self.clone();
        if self.json.get("success") == Some(&Value::from(0)) {
            inner.status =
                self.json["status"].as_u64().and_then(|status| u16::try_from(status).ok()).unwrap_or(500);
            inner.reason = self.json["message"].as_str().unwrap_or_default().trim().to_owned();
        }
        inner
    }

    /// The parameters as text; where only the body was kept, those in it.
    pub(crate) fn parameters(&self) -> BTreeMap<String, String> {
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let body = self.request_body.as_deref().unwrap_or_default();
        match (&self.params, serde_json::from_str(body)) {
            (Some(given), _) => given.iter().map(|(name, value)| (name.clone(), text(value))).collect(),
            (None, Ok(Value::Object(given))) => {
                given.iter().map(|(name, value)| (name.clone(), text(value))).collect()
            }
            (None, _) if body.starts_with("--") => BTreeMap::new(),
            (None, _) => url::form_urlencoded::parse(body.as_bytes()).into_owned().collect(),
        }
    }
}

/// Stands for a parameter that is not sent: a digest that was the right one says nothing.
const REMOVED: &str = "@removed";

fn encode(parameters: &BTreeMap<String, String>) -> String {
    url::form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish()
}

/// Sends a request through the server's own code. `changed` replaces parameters that name what only their own cluster
/// knew: tickets and digests.
fn send(world: &Arc<World>, recording: &Recording, changed: &BTreeMap<String, String>, node: &str) -> Answer {
    let mut parameters = recording.parameters();
    for (name, value) in changed {
        // Tickets are this cluster's own.
        let value = match value.split_once(' ') {
            Some(("@ticket", user)) => crate::api::issue_for(world, user).0,
            Some(("@challenge", user)) => crate::api::challenge_for(world, user),
            _ => value.clone(),
        };
        if value == REMOVED {
            parameters.remove(name);
        } else {
            parameters.insert(name.clone(), value);
        }
    }
    let mut uri = recording.path.clone();
    let mut body = recording.request_body.clone().unwrap_or_default();
    let in_body = recording.request_body.is_some() || matches!(recording.method.as_str(), "POST" | "PUT");
    let mut kind = "application/x-www-form-urlencoded".to_owned();
    if !in_body && !parameters.is_empty() {
        uri = format!("{uri}?{}", encode(&parameters));
    } else if in_body && (body.is_empty() || !changed.is_empty()) {
        body = encode(&parameters);
    } else if body.starts_with('{') {
        kind = "application/json".to_owned();
    } else if body.starts_with("--") {
        let boundary = body.lines().next().unwrap_or_default().trim_start_matches("--").trim().to_owned();
        kind = format!("multipart/form-data; boundary={boundary}");
    }
    // The type of a refused body is in the refusal.
    if let Some(refused) = recording.reason.strip_prefix("upload 'Content-Type '") {
        kind = refused.split('\'').next().unwrap_or_default().to_owned();
    }
    let mut request = http::Request::builder().method(recording.method.as_str()).uri(uri);
    if !body.is_empty() {
        request = request.header(CONTENT_TYPE, kind);
    }
    let who = recording.auth.as_deref().unwrap_or_default();
    if let Some(id) = who.strip_suffix(" (token)") {
        let secret = world.credential(id).map(|credential| credential.secret).unwrap_or_default();
        request = request.header(AUTHORIZATION, format!("PVEAPIToken={id}={secret}"));
    } else if !who.is_empty() && recording.reason == "Authentication failed!" {
        request = request.header(AUTHORIZATION, "PVEAPIToken=nobody@pve!x=y");
    } else if !who.is_empty() && recording.reason != "No ticket" {
        let user = who.strip_suffix(" (ticket)").unwrap_or("root@pam");
        let (ticket, csrf) = crate::api::issue_for(world, user);
        request = request.header(COOKIE, format!("PVEAuthCookie={ticket}"));
        if !recording.reason.contains("invalid csrf token") {
            request = request.header("CSRFPreventionToken", csrf);
        }
    }
    match request.body(Bytes::from(body)) {
        Ok(request) => crate::exchange::answer_directly(world, request, node),
        Err(error) => Answer::error(400, format!("the recorded request cannot be sent: {error}")),
    }
}
