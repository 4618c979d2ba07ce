//! The engine's errors as the store's.

use std::io;

use kglite::api::io::LeaseRefusal;
use kglite::api::session::{LogOpenFailure, OpenError};
use kglite::api::{KgError, KgErrorCode};
use pvegraph_graph::store::{Statement, StoreError};
use serde_json::{Map, Value};

use crate::Call;

/// Values shorter than this are too common in ordinary words to be taken out of a message.
const SHORTEST_REDACTED: usize = 4;

/// A statement's failure. The engine quotes values in some messages, so those that came in as parameters are
/// taken out.
pub(crate) fn statement(call: &Call, error: &KgError, statement: &Statement) -> StoreError {
    let code = error.code();
    match code {
        KgErrorCode::CypherTimeout | KgErrorCode::Cancelled => {
            StoreError::Timeout { target: call.target.clone(), operation: call.operation, after: call.limit }
        }
        _ => StoreError::Statement {
            // An undefined variable: the engine files it under its schema.
            code: match code {
                KgErrorCode::Schema => KgErrorCode::CypherSyntax.neo4j_status_code(),
                _ => code.neo4j_status_code(),
            }
            .to_owned(),
            message: without_values(error.to_string(), &statement.text, &statement.params),
        },
    }
}

fn without_values(mut message: String, text: &str, params: &Map<String, Value>) -> String {
    let mut values = Vec::new();
    params.values().for_each(|value| strings(value, &mut values));
    // The longest first: a value that is part of another must not break it up.
    values.sort_unstable_by_key(|value| std::cmp::Reverse(value.len()));
    for value in values {
        if message.contains(&value) && !text.contains(&value) {
            message = message.replace(&value, "…");
        }
    }
    message
}

fn strings(value: &Value, into: &mut Vec<String>) {
    match value {
        Value::String(text) if text.len() >= SHORTEST_REDACTED => into.push(text.clone()),
        Value::Number(number) => {
            let text = number.to_string();
            if text.len() >= SHORTEST_REDACTED {
                into.push(text);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| strings(item, into)),
        Value::Object(map) => map.values().for_each(|item| strings(item, into)),
        _ => {}
    }
}

/// Why the file could not be opened.
pub(crate) fn open(target: &str, error: OpenError) -> StoreError {
    match error {
        OpenError::Lease(refusal) => lease(target, refusal),
        OpenError::Open(error) => file(target, &error),
        OpenError::Session { failure, message, .. } => StoreError::Unusable {
            target: target.to_owned(),
            reason: match failure {
                LogOpenFailure::Io | LogOpenFailure::Replay => format!(
                    "its write-ahead log (the same name with `-wal`) can't be replayed: {message}. Restore both files from a \
                     backup, or move both away and run `pvegraph sync` again"
                ),
                LogOpenFailure::Refused => message,
            },
        },
    }
}

/// Why the file could not be read.
pub(crate) fn file(target: &str, error: &io::Error) -> StoreError {
    let reason = match error.kind() {
        io::ErrorKind::PermissionDenied => format!("{error}: give this user the right to read and write it"),
        io::ErrorKind::NotFound => {
            "there is no such file: run `pvegraph sync` first, or check the path".to_owned()
        }
        _ => format!(
            "it is damaged, or not a graph of this program ({error}). Restore it from a backup, or move it away and run \
             `pvegraph sync` again"
        ),
    };
    StoreError::Unusable { target: target.to_owned(), reason }
}

/// Why the writer's lease was refused: somebody holds it, or its file can't be made.
pub(crate) fn lease(target: &str, refusal: LeaseRefusal) -> StoreError {
    let Some(holder) = refusal.holder else {
        return StoreError::Unusable {
            target: target.to_owned(),
            reason: format!(
                "its lock file can't be used ({}): check the directory's permissions",
                refusal.error
            ),
        };
    };
    let who = match (holder.is_self(), holder.pid, &holder.since) {
        (true, ..) => "this very process has it open for writing already".to_owned(),
        (_, Some(pid), Some(since)) => format!("process {pid} is writing it since {since}"),
        (_, Some(pid), None) => format!("process {pid} is writing it"),
        _ => "another process is writing it".to_owned(),
    };
    StoreError::Busy {
        target: target.to_owned(),
        reason: format!(
            "{who}; try again when that is done (the lock goes away with the process, even when it crashes)"
        ),
    }
}
