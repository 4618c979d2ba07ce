//! What can go wrong with one request.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use crate::failure::{FailureClass, StatusAnswer};
use crate::tls::{CertificateRefused, Sha256Fingerprint};
use crate::wire::Oddity;

/// A failed request: what was being done, to what, at which endpoint, and why it failed.
///
/// Neither `Display` nor `Debug` ever holds a password, ticket or token secret.
#[derive(Debug)]
pub struct ApiError {
    // Boxed, so that a `Result` of it stays small.
    inner: Box<Inner>,
}

#[derive(Debug)]
struct Inner {
    operation: Cow<'static, str>,
    subject: String,
    endpoint: Option<String>,
    kind: ErrorKind,
}

/// The kinds of failure.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ErrorKind {
    /// PVE answered with a status other than 2xx.
    #[error("{0}")]
    Status(StatusAnswer),
    /// PVE refused the credentials (status 401), after one renewal where there is a ticket.
    #[error("{answer}: PVE refused {account}; {mend}")]
    Login {
        /// The token id or the user, never the secret.
        account: String,
        /// What to do about it.
        mend: &'static str,
        /// The refusing answer.
        answer: StatusAnswer,
    },
    /// The user has two-factor authentication, which an unattended log-in cannot answer.
    #[error(
        "user {account} has two-factor authentication, which this program cannot answer; use an API token"
    )]
    Tfa {
        /// The user.
        account: String,
    },
    /// The TLS handshake failed, or the certificate is not trusted.
    #[error("TLS failed: {detail}")]
    Tls {
        /// What failed, and the mend.
        detail: String,
        /// SHA-256 of the certificate that the server presented, where one was presented.
        presented: Option<Sha256Fingerprint>,
        /// What the TLS library says.
        #[source]
        source: Option<rustls::Error>,
    },
    /// No connection came about: nothing was sent.
    #[error("cannot connect{hint}")]
    Connect {
        /// A likely mend, with its leading separator.
        hint: &'static str,
        /// Why not.
        #[source]
        source: reqwest::Error,
    },
    /// Every configured endpoint failed before anything was sent.
    #[error("none of the {} endpoints can be used{}", .tried.len(), join(.tried))]
    Unreachable {
        /// One error per endpoint, in the order they were tried.
        tried: Vec<ApiError>,
    },
    /// No whole answer came within the request time-out.
    #[error("no answer within {} s", .after.as_secs_f64())]
    Timeout {
        /// The request time-out.
        after: Duration,
        /// What was being waited for.
        #[source]
        source: reqwest::Error,
    },
    /// The connection broke after the request was sent; a write may have been carried out.
    #[error("the connection broke before the whole answer came")]
    Broken {
        /// How it broke.
        #[source]
        source: reqwest::Error,
    },
    /// The answer is a success but not PVE's JSON.
    #[error(
        "the answer is not PVE's JSON ({reason}); it is {content_type} and begins with \"{begins}\"; is the endpoint a PVE API (https://host:8006)?"
    )]
    NotJson {
        /// The parser's complaint.
        reason: String,
        /// The answer's content type, or `of no content type`.
        content_type: String,
        /// The first characters of the body, control characters replaced.
        begins: String,
    },
    /// The answer is larger than the client is willing to hold.
    #[error("the answer is larger than {limit} bytes; is the endpoint a PVE API (https://host:8006)?")]
    TooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// The answer is JSON, but not of the kind that this endpoint gives.
    #[error("the answer is not what PVE gives here")]
    Odd {
        /// What is odd.
        #[source]
        source: Oddity,
    },
    /// The configuration cannot work; no request was sent.
    #[error("{0}")]
    Config(String),
    /// The time allowed for the whole run is over.
    #[error("the run's deadline of {} s has passed; raise the run time-out, or look for a slow node", .0.as_secs_f64())]
    RunDeadline(Duration),
}

/// Statuses that a repeated read may overcome: the proxies' own, and PVE's 595 (no connection to the other
/// node), 596 and 599 (the other node did not answer in time). A 500 is an answer.
const RETRYABLE_STATUSES: [u16; 6] = [502, 503, 504, 595, 596, 599];

impl ApiError {
    pub(crate) fn new(
        operation: impl Into<Cow<'static, str>>,
        subject: impl Into<String>,
        endpoint: Option<&str>,
        kind: ErrorKind,
    ) -> Self {
        Self {
            inner: Box::new(Inner {
                operation: operation.into(),
                subject: subject.into(),
                endpoint: endpoint.map(str::to_owned),
                kind,
            }),
        }
    }

    /// What was being done, for example `read guest config`.
    #[must_use]
    pub fn operation(&self) -> &str {
        &self.inner.operation
    }

    /// What it was done to: the API path without `/api2/json`, or a configuration's name.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.inner.subject
    }

    /// The endpoint that was asked, for example `https://192.0.2.11:8006`.
    #[must_use]
    pub fn endpoint(&self) -> Option<&str> {
        self.inner.endpoint.as_deref()
    }

    /// The kind of failure, with its details.
    #[must_use]
    pub fn kind(&self) -> &ErrorKind {
        &self.inner.kind
    }

    /// The answer, if PVE answered with an error status.
    #[must_use]
    pub fn answer(&self) -> Option<&StatusAnswer> {
        match &self.inner.kind {
            ErrorKind::Status(answer) | ErrorKind::Login { answer, .. } => Some(answer),
            _ => None,
        }
    }

    /// The HTTP status, if PVE answered with an error status.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        self.answer().map(|answer| answer.status)
    }

    /// PVE's own error text, see [`StatusAnswer::reason`].
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        self.answer().map(|answer| answer.reason.as_str())
    }

    /// What the status and reason mean; `None` if there was no answer at all.
    #[must_use]
    pub fn class(&self) -> Option<FailureClass> {
        self.answer().map(StatusAnswer::class)
    }

    /// The object is not there (a 500 with such a reason, or a 404).
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.class() == Some(FailureClass::NotFound)
    }

    /// A permission is missing (403).
    #[must_use]
    pub fn is_forbidden(&self) -> bool {
        self.status() == Some(403)
    }

    /// The credentials are refused (401), or cannot be used unattended (TFA).
    #[must_use]
    pub fn is_unauthorized(&self) -> bool {
        self.status() == Some(401) || matches!(self.inner.kind, ErrorKind::Tfa { .. })
    }

    /// The user has two-factor authentication.
    #[must_use]
    pub fn is_tfa(&self) -> bool {
        matches!(self.inner.kind, ErrorKind::Tfa { .. })
    }

    /// PVE has no such path or method (501).
    #[must_use]
    pub fn is_not_implemented(&self) -> bool {
        self.status() == Some(501)
    }

    /// The node behind the endpoint is unknown, offline or silent (595, 596, 599, `hostname lookup … failed`).
    #[must_use]
    pub fn is_node_unreachable(&self) -> bool {
        self.class() == Some(FailureClass::NodeUnreachable)
    }

    /// The guest is locked.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        self.class() == Some(FailureClass::Locked)
    }

    /// PVE answered with what is a fact about the estate (no agent, storage disabled or not on this node, guest
    /// gone, no permission), see [`FailureClass::is_permanent`].
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        self.class().is_some_and(FailureClass::is_permanent)
    }

    /// TLS failed, at one endpoint at least where none could be used.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        match &self.inner.kind {
            ErrorKind::Tls { .. } => true,
            ErrorKind::Unreachable { tried } => tried.iter().any(Self::is_tls),
            _ => false,
        }
    }

    /// No endpoint could be connected to or, with [`ApiError::is_tls`], none could be trusted: nothing was sent.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        matches!(self.inner.kind, ErrorKind::Connect { .. } | ErrorKind::Unreachable { .. })
    }

    /// The failed connections, one for each endpoint that was tried.
    pub(crate) fn unconnected(&self) -> impl Iterator<Item = &Self> {
        let tried = match &self.inner.kind {
            ErrorKind::Unreachable { tried } => tried.as_slice(),
            _ => std::slice::from_ref(self),
        };
        tried.iter().filter(|error| matches!(error.inner.kind, ErrorKind::Connect { .. }))
    }

    /// The request or the connecting took too long.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        match &self.inner.kind {
            ErrorKind::Timeout { .. } => true,
            ErrorKind::Connect { source, .. } => source.is_timeout(),
            ErrorKind::Unreachable { tried } => tried.iter().all(Self::is_timeout),
            _ => false,
        }
    }

    /// The run's deadline has passed.
    #[must_use]
    pub fn is_run_deadline(&self) -> bool {
        matches!(self.inner.kind, ErrorKind::RunDeadline(_))
    }

    /// The configuration is at fault; no request was sent.
    #[must_use]
    pub fn is_config(&self) -> bool {
        matches!(self.inner.kind, ErrorKind::Config(_))
    }

    /// Whether a read that failed so may be repeated.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match &self.inner.kind {
            ErrorKind::Status(answer) => RETRYABLE_STATUSES.contains(&answer.status),
            ErrorKind::Connect { .. } | ErrorKind::Timeout { .. } | ErrorKind::Broken { .. } => true,
            ErrorKind::Unreachable { tried } => tried.iter().any(Self::is_retryable),
            ErrorKind::Login { .. }
            | ErrorKind::Tfa { .. }
            | ErrorKind::Tls { .. }
            | ErrorKind::NotJson { .. }
            | ErrorKind::Odd { .. }
            | ErrorKind::TooLarge { .. }
            | ErrorKind::Config(_)
            | ErrorKind::RunDeadline(_) => false,
        }
    }

    /// After a write: whether PVE may have acted, or may still be about to. No answer came, or one that does not say. Then
    /// only a look at the object tells, and sending it again could do it twice.
    #[must_use]
    pub fn outcome_unknown(&self) -> bool {
        match &self.inner.kind {
            ErrorKind::Status(answer) => RETRYABLE_STATUSES.contains(&answer.status),
            ErrorKind::Timeout { .. }
            | ErrorKind::Broken { .. }
            | ErrorKind::NotJson { .. }
            | ErrorKind::TooLarge { .. }
            | ErrorKind::Odd { .. } => true,
            ErrorKind::Login { .. }
            | ErrorKind::Tfa { .. }
            | ErrorKind::Tls { .. }
            | ErrorKind::Connect { .. }
            | ErrorKind::Unreachable { .. }
            | ErrorKind::Config(_)
            | ErrorKind::RunDeadline(_) => false,
        }
    }

    /// PVE could not do it just now and has changed nothing: a lock was not to be had in time, or no worker.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.class().is_some_and(FailureClass::is_busy)
    }

    /// Whether nothing was sent, so that another endpoint may be asked, even to write.
    pub(crate) fn never_sent(&self) -> bool {
        matches!(self.inner.kind, ErrorKind::Connect { .. } | ErrorKind::Tls { .. })
    }

    /// Whether the request went out and no whole answer came back, which another endpoint may do better.
    pub(crate) fn lost_on_the_way(&self) -> bool {
        matches!(self.inner.kind, ErrorKind::Timeout { .. } | ErrorKind::Broken { .. })
    }

    /// A final 401 becomes the refusal of an account.
    pub(crate) fn into_login(mut self, account: &str, mend: &'static str) -> Self {
        if let ErrorKind::Status(answer) = &self.inner.kind
            && answer.status == 401
        {
            self.inner.kind = ErrorKind::Login { account: account.to_owned(), mend, answer: answer.clone() };
        }
        self
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { operation, subject, endpoint, kind } = &*self.inner;
        write!(f, "cannot {operation} ({})", printable(subject))?;
        if let Some(endpoint) = endpoint {
            write!(f, " at {endpoint}")?;
        }
        write!(f, ": {kind}")
    }
}

impl std::error::Error for ApiError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.inner.kind.source()
    }
}

impl ErrorKind {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(self)
    }

    /// Sorts a failure of the HTTP library by what it means.
    pub(crate) fn from_transport(error: reqwest::Error, port_given: bool, request_timeout: Duration) -> Self {
        // The URL is in the error's subject already.
        let source = error.without_url();
        if source.is_connect() {
            // Once it stands, TLS may fail after the request went out: then the connection broke, and a write may have been done.
            if let Some(tls) = find_cause::<rustls::Error>(&source) {
                return Self::from_tls(tls.clone());
            }
            let hint = if port_given {
                "; check host and port (PVE listens on 8006), and what is in between"
            } else {
                "; the endpoint names no port, so 443 was tried: PVE listens on 8006"
            };
            return Self::Connect { hint, source };
        }
        if source.is_timeout() {
            return Self::Timeout { after: request_timeout, source };
        }
        Self::Broken { source }
    }

    fn from_tls(error: rustls::Error) -> Self {
        use rustls::{CertificateError, Error};
        if let Error::InvalidCertificate(CertificateError::Other(other)) = &error
            && let Some(refused) = other.0.downcast_ref::<CertificateRefused>()
        {
            return Self::Tls {
                detail: refused.to_string(),
                presented: Some(refused.presented()),
                source: refused.cause().cloned(),
            };
        }
        let detail = match &error {
            Error::InvalidMessage(_) => {
                "the server does not speak TLS there; check host and port (PVE: 8006)"
            }
            _ => "the handshake failed",
        };
        Self::Tls { detail: detail.to_owned(), presented: None, source: Some(error) }
    }
}

/// Every endpoint's failure with its innermost cause, which a list cannot leave to `source`.
fn join(tried: &[ApiError]) -> String {
    tried
        .iter()
        .map(|error| {
            let endpoint = error.endpoint().unwrap_or_default();
            match root_cause(error) {
                Some(cause) => format!("; {endpoint}: {}: {cause}", error.kind()),
                None => format!("; {endpoint}: {}", error.kind()),
            }
        })
        .collect()
}

/// The innermost cause's text.
pub(crate) fn root_cause(error: &dyn std::error::Error) -> Option<String> {
    let mut cause = error.source()?;
    while let Some(next) = cause.source() {
        cause = next;
    }
    Some(cause.to_string())
}

/// Finds a cause of a type, also inside of `io::Error`, whose `source()` skips the error that it wraps.
fn find_cause<'a, T: std::error::Error + 'static>(
    error: &'a (dyn std::error::Error + 'static),
) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        next = match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

/// A foreign text for a message: runs of blanks and control characters, which could forge lines or move a
/// terminal's cursor, become one blank.
pub(crate) fn printable(text: &str) -> String {
    text.split(|c: char| c.is_whitespace() || c.is_control())
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn answer(status: u16, reason: &str) -> StatusAnswer {
        StatusAnswer { status, reason: reason.to_owned(), message: None, errors: BTreeMap::new() }
    }

    #[test]
    fn a_message_names_everything_on_one_line() {
        let mut answer = answer(400, "Parameter verification\u{1b}[2J failed.");
        answer.errors.insert("net0".into(), "invalid format\nnet0.model: missing\n".into());
        let error = ApiError::new(
            "read guest config",
            "/nodes/pve1/qemu/100/config",
            Some("https://pve1:8006"),
            ErrorKind::Status(answer),
        );
        assert_eq!(
            error.to_string(),
            "cannot read guest config (/nodes/pve1/qemu/100/config) at https://pve1:8006: \
             HTTP 400 Parameter verification [2J failed.; net0: invalid format net0.model: missing"
        );
    }

    #[test]
    fn only_some_statuses_are_retried() {
        let retried: Vec<u16> = (300..=600)
            .filter(|status| {
                ApiError::new("read", "/x", None, ErrorKind::Status(answer(*status, "x"))).is_retryable()
            })
            .collect();
        assert_eq!(retried, RETRYABLE_STATUSES);
    }
}
