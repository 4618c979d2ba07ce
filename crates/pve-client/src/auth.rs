//! Who asks: an API token, or a user with password and ticket.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderValue;
use http::header::{AUTHORIZATION, COOKIE, HeaderMap};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use tokio::sync::Mutex;

use crate::error::{ApiError, ErrorKind};
use crate::failure::StatusAnswer;
use crate::path::ApiPath;

/// How long PVE accepts a ticket.
const TICKET_LIFETIME: Duration = Duration::from_secs(2 * 3600);
/// When a ticket is renewed: half its life, so that a failed renewal leaves an hour of others.
pub(crate) const TICKET_RENEWAL: Duration = Duration::from_secs(3600);

const CSRF_HEADER: &str = "csrfpreventiontoken";

const TOKEN_MEND: &str = "check the token's id and secret, and that it has not expired or been deleted";
const PASSWORD_MEND: &str = "check user, realm and password";

/// The credentials.
#[derive(Debug, Clone)]
pub enum Auth {
    /// An API token: no log-in, no expiry during a run.
    Token {
        /// `user@realm!name`.
        id: TokenId,
        /// The UUID that PVE showed once.
        secret: SecretString,
    },
    /// A user of any realm. A ticket is fetched with the first request and renewed in time.
    Password {
        /// `user@realm`.
        user: String,
        /// The password.
        password: SecretString,
    },
}

/// The full id of an API token, `user@realm!name`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TokenId {
    user: String,
    realm: String,
    name: String,
}

/// Why a text is not a token id. The text itself is not repeated: people paste the secret along with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenIdParseError {
    /// It is not of the form `user@realm!name`.
    #[error("not a token id: user@realm!name is expected, for example inventory@pve!sync")]
    Form,
    /// It holds a `=`.
    #[error(
        "not a token id: it holds a '='; the part after it is the token's secret, which is configured apart"
    )]
    Secret,
}

impl TokenId {
    /// The user without realm.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The realm, for example `pam` or `pve`.
    #[must_use]
    pub fn realm(&self) -> &str {
        &self.realm
    }

    /// The token's own name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl FromStr for TokenId {
    type Err = TokenIdParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.contains('=') {
            return Err(TokenIdParseError::Secret);
        }
        // A user name may itself hold `@` and `!`; realm and name may not.
        let (account, name) = text.rsplit_once('!').ok_or(TokenIdParseError::Form)?;
        let (user, realm) = split_user(account).ok_or(TokenIdParseError::Form)?;
        if !is_identifier(name) {
            return Err(TokenIdParseError::Form);
        }
        Ok(Self { user: user.to_owned(), realm: realm.to_owned(), name: name.to_owned() })
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { user, realm, name } = self;
        write!(f, "{user}@{realm}!{name}")
    }
}

/// Splits `user@realm`; `None` if it is not of PVE's form.
fn split_user(account: &str) -> Option<(&str, &str)> {
    let (user, realm) = account.rsplit_once('@')?;
    let user_ok = !user.is_empty()
        && user
            .chars()
            .all(|c| !c.is_whitespace() && !c.is_control() && c.is_ascii() && c != ':' && c != '/');
    (user_ok && is_identifier(realm)).then_some((user, realm))
}

/// PVE's rule for realm and token names: a letter, then letters, digits, `.`, `-` and `_`, two characters at least.
fn is_identifier(text: &str) -> bool {
    text.len() >= 2
        && text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))
}

/// What asks PVE for a ticket; the answer's `data`.
pub(crate) trait LogIn {
    /// Sends user and password (or an earlier ticket in its place).
    fn log_in(
        &self,
        user: &str,
        password: &SecretString,
    ) -> impl Future<Output = Result<Value, ApiError>> + Send;
}

/// The credentials in use.
pub(crate) enum Session {
    Token { id: TokenId, header: HeaderValue },
    Password { user: String, password: SecretString, renew_after: Duration, state: Mutex<State> },
}

#[derive(Default)]
pub(crate) struct State {
    ticket: Option<Arc<Ticket>>,
    count: u64,
    refusal: Option<Refusal>,
}

/// What PVE said to a full log-in, remembered: a repeated one cannot succeed, and a burst of them gets the
/// machine banned.
enum Refusal {
    Password(StatusAnswer),
    Tfa,
}

struct Ticket {
    number: u64,
    /// The ticket alone, which also serves as the password of its renewal.
    value: SecretString,
    cookie: HeaderValue,
    csrf: HeaderValue,
    issued: Instant,
}

/// The headers that authenticate one request.
#[derive(Clone, Default)]
pub(crate) struct Credentials {
    pub(crate) read: HeaderMap,
    pub(crate) write: HeaderMap,
    /// Which ticket this is, to tell a refusal of this one from one of its predecessor.
    pub(crate) ticket: Option<u64>,
}

pub(crate) fn log_in_path() -> ApiPath {
    ApiPath::new("log in").fixed("/access/ticket")
}

impl Session {
    /// # Errors
    /// Credentials that cannot be sent.
    pub(crate) fn new(auth: Auth, renew_after: Duration) -> Result<Self, String> {
        match auth {
            Auth::Token { id, secret } => {
                let secret = secret.expose_secret().trim();
                if secret.is_empty() || !secret.bytes().all(|b| b.is_ascii_graphic()) {
                    return Err(format!(
                        "the secret of token {id} is empty or holds characters that no token secret has"
                    ));
                }
                let mut header = HeaderValue::from_str(&format!("PVEAPIToken={id}={secret}"))
                    .map_err(|_| format!("token {id} cannot be sent in a header"))?;
                header.set_sensitive(true);
                Ok(Self::Token { id, header })
            }
            Auth::Password { user, password } => {
                if split_user(&user).is_none() {
                    return Err(format!(
                        "'{}' is not a user name with its realm, for example root@pam",
                        crate::error::printable(&user)
                    ));
                }
                if password.expose_secret().is_empty() {
                    return Err(format!("the password of {user} is empty"));
                }
                Ok(Self::Password { user, password, renew_after, state: Mutex::default() })
            }
        }
    }

    /// The token's id, or the user.
    pub(crate) fn account(&self) -> String {
        match self {
            Self::Token { id, .. } => id.to_string(),
            Self::Password { user, .. } => user.clone(),
        }
    }

    /// Words a final 401 for this account.
    pub(crate) fn name_refusal(&self, error: ApiError) -> ApiError {
        match self {
            Self::Token { id, .. } => error.into_login(&format!("token {id}"), TOKEN_MEND),
            Self::Password { user, .. } => error.into_login(&format!("user {user}"), PASSWORD_MEND),
        }
    }

    /// Whether a 401 may be mended by another ticket.
    pub(crate) fn is_renewable(&self) -> bool {
        matches!(self, Self::Password { .. })
    }

    /// The headers to send. `refused` is the ticket that PVE answered with 401, if any.
    ///
    /// Requests that need a ticket at the same time wait for one log-in; those whose ticket another request
    /// has replaced meanwhile get the new one without a log-in of their own.
    ///
    /// # Errors
    /// The log-in's.
    pub(crate) async fn credentials(
        &self,
        refused: Option<u64>,
        server: &(impl LogIn + Sync),
    ) -> Result<Credentials, ApiError> {
        let (user, password, renew_after, state) = match self {
            Self::Token { header, .. } => {
                let headers = HeaderMap::from_iter([(AUTHORIZATION, header.clone())]);
                return Ok(Credentials { read: headers.clone(), write: headers, ticket: None });
            }
            Self::Password { user, password, renew_after, state } => (user, password, *renew_after, state),
        };
        let mut state = state.lock().await;
        if let Some(refusal) = &state.refusal {
            return Err(self.name_refusal(log_in_path().error(None, refusal.kind(user))));
        }
        let current = state.ticket.clone().filter(|ticket| Some(ticket.number) != refused);
        if let Some(ticket) = current {
            let age = ticket.issued.elapsed();
            if age < renew_after {
                return Ok(ticket.credentials());
            }
            if age < TICKET_LIFETIME {
                let renewed = server.log_in(user, &ticket.value).await;
                match renewed.and_then(|data| state.take(user, &data)) {
                    Ok(ticket) => return Ok(ticket.credentials()),
                    Err(error) if error.is_unauthorized() => {
                        tracing::debug!(user, %error, "the ticket's renewal was refused; logging in anew");
                    }
                    // The way to the server fails, not the ticket.
                    Err(error) => {
                        tracing::debug!(user, %error, "the ticket's renewal failed; using the old one");
                        return Ok(ticket.credentials());
                    }
                }
            }
        }
        // A ticket that a request was refused with is not offered for renewal: PVE would refuse it there too,
        // three seconds later.
        let result = server.log_in(user, password).await.and_then(|data| state.take(user, &data));
        match result {
            Ok(ticket) => Ok(ticket.credentials()),
            Err(error) => {
                if error.is_tfa() {
                    state.refusal = Some(Refusal::Tfa);
                } else if let Some(answer) = error.answer().filter(|answer| answer.status == 401) {
                    state.refusal = Some(Refusal::Password(answer.clone()));
                }
                Err(self.name_refusal(error))
            }
        }
    }
}

impl Refusal {
    fn kind(&self, user: &str) -> ErrorKind {
        match self {
            Self::Password(answer) => ErrorKind::Status(answer.clone()),
            Self::Tfa => ErrorKind::Tfa { account: user.to_owned() },
        }
    }
}

impl State {
    /// Reads a log-in's `data` and keeps its ticket.
    fn take(&mut self, user: &str, data: &Value) -> Result<Arc<Ticket>, ApiError> {
        let path = log_in_path();
        let needs_tfa = match data.get("NeedTFA") {
            Some(Value::Number(n)) => n.as_u64() != Some(0),
            Some(Value::Bool(b)) => *b,
            Some(Value::String(s)) => s != "0" && !s.is_empty(),
            _ => false,
        };
        if needs_tfa {
            return Err(path.error(None, ErrorKind::Tfa { account: user.to_owned() }));
        }
        let text = |key: &str| data.get(key).and_then(Value::as_str).unwrap_or_default();
        let sensitive = |text: &str| {
            let mut value = HeaderValue::from_str(text).ok()?;
            value.set_sensitive(true);
            Some(value)
        };
        let (value, csrf) = (text("ticket"), text("CSRFPreventionToken"));
        let headers = (!value.is_empty() && !csrf.is_empty())
            .then(|| Some((sensitive(&format!("PVEAuthCookie={value}"))?, sensitive(csrf)?)))
            .flatten();
        let Some((cookie, csrf)) = headers else {
            // The answer is not quoted: half of it may be a ticket.
            return Err(path.error(
                None,
                ErrorKind::NotJson {
                    reason: "no usable ticket and CSRFPreventionToken".to_owned(),
                    content_type: "JSON".to_owned(),
                    begins: "(not shown)".to_owned(),
                },
            ));
        };
        self.count += 1;
        let ticket = Arc::new(Ticket {
            number: self.count,
            value: SecretString::from(value),
            cookie,
            csrf,
            issued: Instant::now(),
        });
        self.ticket = Some(Arc::clone(&ticket));
        Ok(ticket)
    }
}

impl Ticket {
    fn credentials(&self) -> Credentials {
        let read = HeaderMap::from_iter([(COOKIE, self.cookie.clone())]);
        let mut write = read.clone();
        write.insert(CSRF_HEADER, self.csrf.clone());
        Credentials { read, write, ticket: Some(self.number) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_ids_round_trip() {
        for text in ["root@pam!sync", "a.b-c@my-realm!x_1", "who@example.com@ldap!ab", "odd!user@pve!tok"] {
            let id: TokenId = text.parse().unwrap();
            assert_eq!(id.to_string(), text);
        }
        let id: TokenId = "who@example.com@ldap!ab".parse().unwrap();
        assert_eq!((id.user(), id.realm(), id.name()), ("who@example.com", "ldap", "ab"));
    }

    #[test]
    fn what_is_no_token_id_is_refused() {
        for text in [
            "",
            "root@pam",
            "root!sync",
            "@pam!sync",
            "root@!sync",
            "root@pam!",
            "root@pam!1x",
            "ro ot@pam!sync",
            "root@pam!sy nc",
            "ro/ot@pam!sync",
            "root@pam!sync\r\n",
        ] {
            assert_eq!(text.parse::<TokenId>(), Err(TokenIdParseError::Form), "{text}");
        }
        let pasted = "root@pam!sync=8f14e45f-ceea-467f-a0e6-0123456789ab".parse::<TokenId>().unwrap_err();
        assert_eq!(pasted, TokenIdParseError::Secret);
        assert!(!pasted.to_string().contains("8f14e45f"));
    }

    #[test]
    fn unusable_credentials_are_refused_without_showing_them() {
        let token =
            |secret: &str| Auth::Token { id: "root@pam!sync".parse().unwrap(), secret: secret.into() };
        for secret in ["", " ", "line1\nhunter2", "hünter2"] {
            let error = Session::new(token(secret), TICKET_RENEWAL).err().unwrap();
            assert!(!error.contains("nter2"), "{error}");
        }
        // The newline that ends a secret file is no part of the secret.
        assert!(Session::new(token("8f14e45f\n"), TICKET_RENEWAL).is_ok());
        for user in ["root", "root@", "root@pam\u{1b}[2J"] {
            let auth = Auth::Password { user: user.to_owned(), password: "hunter2".into() };
            let error = Session::new(auth, TICKET_RENEWAL).err().unwrap();
            assert!(
                error.contains("root@pam") && !error.contains("hunter2") && !error.contains('\u{1b}'),
                "{error}"
            );
        }
    }
}
