//! What the driver's errors mean, and which of them are worth another try.

use std::collections::HashSet;

use neo4rs::{Error, Neo4jClientErrorKind, Neo4jError, Neo4jErrorKind, Neo4jSecurityErrorKind};
use serde_json::Value;

use super::Neo4jConfig;
use super::values::ValueError;
use crate::store::{Statement, StoreError};

/// A message of the server is cut here, in characters: it may repeat a statement of many lines.
const LONGEST_MESSAGE: usize = 2_000;

/// The code of a failure that is not the server's.
const DRIVER_CODE: &str = "Driver.Value";

/// A failed attempt.
#[derive(Debug)]
pub(super) struct Failure {
    pub error: StoreError,
    /// The same call may succeed later.
    pub retry: bool,
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self { error, retry: false }
    }
}

/// A value that can't be sent or received.
pub(super) fn value(error: &ValueError) -> Failure {
    StoreError::Statement { code: DRIVER_CODE.to_owned(), message: error.to_string() }.into()
}

/// What an error of the driver means. `statements` are those whose parameters it may repeat.
pub(super) fn failure(error: Error, target: &str, config: &Neo4jConfig, statements: &[Statement]) -> Failure {
    let target = target.to_owned();
    let auth = |target| StoreError::Auth { target, user: config.user.clone() };
    let unreachable =
        |target, reason| Failure { error: StoreError::Unreachable { target, reason }, retry: true };
    match error {
        Error::Neo4j(error) => {
            let retry = is_transient(&error);
            let message = spoken(error.message(), statements);
            let error = match error.code() {
                "Neo.ClientError.Security.CredentialsExpired" => StoreError::Unusable {
                    target,
                    reason: format!(
                        "the password of user {:?} has expired: set a new one with ALTER CURRENT USER",
                        config.user
                    ),
                },
                "Neo.ClientError.Security.Unauthorized"
                | "Neo.ClientError.Security.AuthenticationRateLimit"
                | "Neo.ClientError.Security.TokenExpired" => auth(target),
                "Neo.ClientError.Database.DatabaseNotFound" => {
                    StoreError::Unusable { target, reason: format!("{message} Check `database` in [store]") }
                }
                "Neo.ClientError.Statement.AccessMode" => StoreError::ReadOnly { message },
                code => StoreError::Statement { code: code.to_owned(), message },
            };
            Failure { error, retry }
        }
        Error::AuthenticationError(_) => auth(target).into(),
        // A wrong port or a server that is no graph store stays so.
        error @ (Error::ProtocolMismatch(_) | Error::UnsupportedVersion(..)) => {
            StoreError::Unusable { target, reason: error.to_string() }.into()
        }
        Error::IOError { detail } => unreachable(target, detail.to_string()),
        error @ (Error::ConnectionError
        | Error::ConnectionTimedOut
        | Error::ConnectionClosed(_)
        | Error::IncompleteBoltExchange
        | Error::RequestIgnoredError
        | Error::RoutingTableError(_)
        | Error::RoutingTableRefreshFailed(_)
        | Error::ServerUnavailableError(_)
        | Error::InvalidDnsName(_)) => unreachable(target, error.to_string()),
        error => StoreError::Statement {
            code: DRIVER_CODE.to_owned(),
            message: spoken(&error.to_string(), statements),
        }
        .into(),
    }
}

fn is_transient(error: &Neo4jError) -> bool {
    // Its class says transient, and the same statement needs the same memory the next time.
    if error.code() == "Neo.TransientError.General.MemoryPoolOutOfMemoryError" {
        return false;
    }
    matches!(
        error.kind(),
        Neo4jErrorKind::Transient
            | Neo4jErrorKind::Client(
                Neo4jClientErrorKind::SessionExpired
                    | Neo4jClientErrorKind::Security(Neo4jSecurityErrorKind::AuthorizationExpired)
            )
    )
}

/// The server's message without what it quotes from the parameters: a constraint's message repeats the value, and the rows
/// may hold what is nobody's business in a log.
fn spoken(message: &str, statements: &[Statement]) -> String {
    let mut values = HashSet::new();
    for value in statements.iter().flat_map(|statement| statement.params.values()) {
        strings(value, &mut values);
    }
    let mut spoken = String::with_capacity(message.len());
    let mut rest = message;
    'next: while let Some(at) = rest.find(['\'', '"', '`']) {
        let (before, quoted) = rest.split_at(at);
        spoken.push_str(before);
        let quote = quoted.get(..1).unwrap_or_default();
        let inner = quoted.get(1..).unwrap_or_default();
        // A value may itself contain quotes, so any of the following ones may be its end.
        for (end, _) in inner.match_indices(quote) {
            if inner.get(..end).is_some_and(|value| values.contains(value)) {
                spoken.push_str(quote);
                spoken.push('…');
                spoken.push_str(quote);
                rest = inner.get(end + 1..).unwrap_or_default();
                continue 'next;
            }
        }
        spoken.push_str(quote);
        rest = inner;
    }
    spoken.push_str(rest);
    match spoken.char_indices().nth(LONGEST_MESSAGE) {
        Some((end, _)) => format!("{}…", spoken.get(..end).unwrap_or_default()),
        None => spoken,
    }
}

fn strings<'a>(value: &'a Value, into: &mut HashSet<&'a str>) {
    match value {
        Value::String(text) if !text.is_empty() => {
            into.insert(text);
        }
        Value::Array(items) => items.iter().for_each(|item| strings(item, into)),
        Value::Object(map) => map.values().for_each(|item| strings(item, into)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use serde_json::json;

    use super::super::{DEFAULT_MAX_CONNECTIONS, StoreTimeouts};
    use super::*;

    fn config() -> Neo4jConfig {
        Neo4jConfig {
            uri: "bolt://x:1".to_owned(),
            user: "reader".to_owned(),
            password: "hunter2".into(),
            database: None,
            max_connections: DEFAULT_MAX_CONNECTIONS,
            timeouts: StoreTimeouts::default(),
        }
    }

    fn of(error: Error) -> Failure {
        failure(error, "bolt://x:1", &config(), &[])
    }

    #[test]
    fn errors_without_a_server_s_code_are_sorted() {
        let refused = of(io::Error::from(io::ErrorKind::ConnectionRefused).into());
        assert!(refused.error.is_unreachable() && refused.retry);
        let lost = of(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        assert!(lost.error.is_unreachable() && lost.retry);
        let auth = of(Error::AuthenticationError("hunter2 is wrong".to_owned()));
        assert!(auth.error.is_auth() && !auth.retry);
        assert!(!auth.error.to_string().contains("hunter2"), "{}", auth.error);
        assert!(matches!(of(Error::ProtocolMismatch(0x4854_5450)).error, StoreError::Unusable { .. }));
    }

    #[test]
    fn a_message_does_not_repeat_the_parameters() {
        let statement =
            Statement::new("…").with("rows", json!([{ "name": "it's secret", "label": "ProxmoxVM" }]));
        let message = "Node(1) already exists with label `Other` and property `name` = 'it's secret', 'x'";
        assert_eq!(
            spoken(message, &[statement]),
            "Node(1) already exists with label `Other` and property `name` = '…', 'x'"
        );
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let cut = spoken(&"ä".repeat(LONGEST_MESSAGE + 1), &[]);
        assert_eq!(cut.chars().count(), LONGEST_MESSAGE + 1);
        assert!(cut.ends_with('…'));
    }
}
