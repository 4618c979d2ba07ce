//! The client: one PVE cluster behind one or more endpoints.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use http::header::{CONTENT_TYPE, HeaderMap};
use http::{HeaderValue, Method, StatusCode};
use hyper::ext::ReasonPhrase;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::sync::Semaphore;
use url::Url;

use crate::auth::{Credentials, LogIn, Session, log_in_path};
use crate::config::{ClientConfig, Timeouts};
use crate::error::{ApiError, ErrorKind, printable, root_cause};
use crate::failure::StatusAnswer;
use crate::path::ApiPath;
use crate::retry::{RetryPolicy, Trouble};
use crate::tls::{self, Trust};

/// The largest answer read. A guest takes some 700 bytes of `/cluster/resources`, so this holds 90,000 of them,
/// and a wrong host cannot fill the memory.
const MAX_BODY: usize = 64 << 20;
/// The most that is read of an error's body; what is longer is no PVE error.
const MAX_ERROR_BODY: usize = 1 << 20;
/// How much of a wrong answer a message shows, in characters.
const EXCERPT: usize = 60;
/// PVE's API daemon closes connections that are idle for five seconds; ours go first, so that a request does not
/// meet a connection that is just being closed.
const POOL_IDLE: Duration = Duration::from_secs(4);

/// A client of one PVE cluster; clones share connections, ticket, limits and counters.
///
/// Guarantees
/// - A read is repeated as [`RetryPolicy`] says, a write only where PVE can't have looked at it, see [`PveClient::put`].
/// - Redirects are not followed, proxies of the environment not used, HTTP without TLS not spoken.
/// - No more requests are in flight than the configuration allows, log-ins aside (one at a time).
/// - An endpoint that cannot be connected to or trusted is left for the next one, which is then preferred.
#[derive(Clone)]
pub struct PveClient {
    shared: Arc<Shared>,
}

struct Shared {
    http: reqwest::Client,
    endpoints: Vec<Endpoint>,
    /// Index of the endpoint that answered last.
    preferred: AtomicUsize,
    session: Session,
    timeouts: Timeouts,
    retry: RetryPolicy,
    per_node: usize,
    cluster: Semaphore,
    cluster_trouble: Trouble,
    nodes: Mutex<HashMap<String, Arc<Node>>>,
    /// When the first request was asked for.
    began: OnceLock<Instant>,
    counters: Counters,
}

struct Endpoint {
    /// `https://host:port`, without a trailing slash.
    origin: String,
    port_given: bool,
    /// It has been told that it does not answer.
    told: AtomicBool,
}

/// The limits of one node.
struct Node {
    permits: Semaphore,
    trouble: Trouble,
}

#[derive(Default)]
struct Counters {
    requests: AtomicU64,
    retries: AtomicU64,
    failovers: AtomicU64,
    logins: AtomicU64,
}

/// What a client has done so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// HTTP requests begun, log-ins, repeats and failed connections among them.
    pub requests: u64,
    /// Repeats after a wait.
    pub retries: u64,
    /// Changes of endpoint.
    pub failovers: u64,
    /// Log-ins and ticket renewals.
    pub logins: u64,
}

/// One request, however often it is sent.
struct Request<'a> {
    method: Method,
    path: &'a ApiPath,
    target: String,
    form: Option<String>,
    headers: HeaderMap,
    repeatable: bool,
    /// Whether it waits for permits.
    limited: bool,
    /// The answer holds secrets, so that no error may quote it.
    secret_answer: bool,
}

impl PveClient {
    /// Checks the configuration and makes a client. Nothing is sent yet, so no runtime is needed.
    ///
    /// # Errors
    /// [`ErrorKind::Config`]: no or unusable endpoints, an unusable CA file, unusable credentials, a limit of zero.
    pub fn new(config: ClientConfig) -> Result<Self, ApiError> {
        let ClientConfig { endpoints, auth, trust, timeouts, retry, concurrency } = config;
        let subject = endpoints.first().and_then(Url::host_str).unwrap_or("no endpoint").to_owned();
        let refuse =
            |text: String| ApiError::new("set up the client", subject.clone(), None, ErrorKind::Config(text));
        if endpoints.is_empty() {
            return Err(refuse("no endpoint is given; at least one https://host:8006 is needed".to_owned()));
        }
        let endpoints = endpoints.iter().map(Endpoint::new).collect::<Result<Vec<_>, _>>().map_err(refuse)?;
        if concurrency.cluster == 0 || concurrency.per_node == 0 {
            return Err(refuse("the limits of concurrent requests must be at least 1".to_owned()));
        }
        if timeouts.connect.is_zero() || timeouts.request.is_zero() {
            return Err(refuse("the connect and request time-outs must be longer than zero".to_owned()));
        }
        let tls = tls::client_config(&trust).map_err(refuse)?;
        let session = Session::new(auth, timeouts.ticket_renewal).map_err(refuse)?;
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .http1_only()
            .https_only(true)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .connect_timeout(timeouts.connect)
            .pool_idle_timeout(POOL_IDLE)
            .user_agent(concat!("pve-client/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| refuse(format!("the HTTP client cannot be set up: {error}")))?;
        if matches!(trust, Trust::Insecure) {
            let names: Vec<&str> = endpoints.iter().map(|endpoint| endpoint.origin.as_str()).collect();
            tracing::warn!(
                endpoints = names.join(" "),
                "TLS certificates are NOT checked: anybody in between can read and change everything, the credentials \
                 too; set ca_file or fingerprint instead of insecure"
            );
        }
        Ok(Self {
            shared: Arc::new(Shared {
                http,
                endpoints,
                preferred: AtomicUsize::new(0),
                session,
                timeouts,
                retry,
                per_node: concurrency.per_node,
                cluster: Semaphore::new(concurrency.cluster),
                cluster_trouble: Trouble::default(),
                nodes: Mutex::default(),
                began: OnceLock::new(),
                counters: Counters::default(),
            }),
        })
    }

    /// Reads `path` and returns the answer's `data`.
    ///
    /// # Errors
    /// See [`ErrorKind`]. Retries, fail-over and one ticket renewal have happened before.
    pub async fn get(&self, path: &ApiPath) -> Result<Value, ApiError> {
        let data = self.get_text(path).await?;
        parsed(path, &data, false)
    }

    /// Likewise, as the text that came.
    pub(crate) async fn get_text(&self, path: &ApiPath) -> Result<Box<RawValue>, ApiError> {
        self.within_run(path, self.read(path)).await
    }

    /// Posts `form` to `path` and returns the answer's `data`. See [`PveClient::put`].
    ///
    /// # Errors
    /// Likewise.
    pub async fn post(&self, path: &ApiPath, form: &[(&str, &str)]) -> Result<Value, ApiError> {
        self.write(Method::POST, path, form).await
    }

    /// Puts `form` to `path` and returns the answer's `data`. It is sent once, with two exceptions in which PVE has not looked at it:
    /// where no connection came about the next endpoint is asked, and where the ticket was refused (401) it is sent again
    /// with a new one.
    ///
    /// # Errors
    /// See [`ErrorKind`]. Where [`ApiError::outcome_unknown`] says so, PVE may have acted, or may be about to.
    pub async fn put(&self, path: &ApiPath, form: &[(&str, &str)]) -> Result<Value, ApiError> {
        self.write(Method::PUT, path, form).await
    }

    /// Deletes `path`; the form goes into its query, because PVE takes no body there. See [`PveClient::put`].
    ///
    /// # Errors
    /// Likewise.
    pub async fn delete(&self, path: &ApiPath, form: &[(&str, &str)]) -> Result<Value, ApiError> {
        let path = form.iter().fold(path.clone(), |path, (name, value)| path.query(name, value));
        self.write(Method::DELETE, &path, &[]).await
    }

    async fn write(&self, method: Method, path: &ApiPath, form: &[(&str, &str)]) -> Result<Value, ApiError> {
        // A write that has begun is not cut off by the run's deadline: nobody would know what became of it.
        self.within_run(path, async { Ok(()) }).await?;
        let target = path.target()?;
        let form = (method != Method::DELETE).then(|| encode_form(form));
        let request = |credentials: Credentials| Request {
            method: method.clone(),
            path,
            target: target.clone(),
            form: form.clone(),
            headers: credentials.write,
            repeatable: false,
            limited: true,
            // A new token's secret is shown in such an answer.
            secret_answer: true,
        };
        parsed(path, &self.signed(request).await?, true)
    }

    /// What has been done so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let Counters { requests, retries, failovers, logins } = &self.shared.counters;
        Stats {
            requests: requests.load(Ordering::Relaxed),
            retries: retries.load(Ordering::Relaxed),
            failovers: failovers.load(Ordering::Relaxed),
            logins: logins.load(Ordering::Relaxed),
        }
    }

    /// Who asks: `user@realm!token`, or `user@realm`.
    #[must_use]
    pub fn account(&self) -> String {
        self.shared.session.account()
    }

    /// The endpoint that answered last, or the first one, for example `https://192.0.2.11:8006`.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        let index = self.shared.preferred.load(Ordering::Relaxed);
        self.shared.endpoints.get(index).map_or("", |endpoint| endpoint.origin.as_str())
    }

    async fn within_run<T>(
        &self,
        path: &ApiPath,
        work: impl Future<Output = Result<T, ApiError>>,
    ) -> Result<T, ApiError> {
        let Some(run) = self.shared.timeouts.run else {
            return work.await;
        };
        let passed = || path.error(None, ErrorKind::RunDeadline(run));
        let left = run.saturating_sub(self.shared.began.get_or_init(Instant::now).elapsed());
        if left.is_zero() {
            return Err(passed());
        }
        tokio::time::timeout(left, work).await.unwrap_or_else(|_| Err(passed()))
    }

    async fn read(&self, path: &ApiPath) -> Result<Box<RawValue>, ApiError> {
        let target = path.target()?;
        let request = |credentials: Credentials| Request {
            method: Method::GET,
            path,
            target: target.clone(),
            form: None,
            headers: credentials.read,
            repeatable: true,
            limited: true,
            secret_answer: false,
        };
        self.signed(request).await
    }

    /// Sends a request with the session's credentials, and once more with a new ticket where the server no longer takes the old one.
    async fn signed<'a>(
        &self,
        request: impl Fn(Credentials) -> Request<'a>,
    ) -> Result<Box<RawValue>, ApiError> {
        let session = &self.shared.session;
        let credentials = session.credentials(None, self).await?;
        let ticket = credentials.ticket;
        let mut result = self.send_patiently(&request(credentials)).await;
        if session.is_renewable() && result.as_ref().is_err_and(ApiError::is_unauthorized) {
            let credentials = session.credentials(ticket, self).await?;
            result = self.send_patiently(&request(credentials)).await;
        }
        result.map_err(|error| session.name_refusal(error))
    }

    fn node(&self, name: &str) -> Arc<Node> {
        let mut nodes = self.shared.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        let new =
            || Arc::new(Node { permits: Semaphore::new(self.shared.per_node), trouble: Trouble::default() });
        Arc::clone(nodes.entry(name.to_owned()).or_insert_with(new))
    }

    /// Sends, within the limits, until an answer comes or patience ends.
    async fn send_patiently(&self, request: &Request<'_>) -> Result<Box<RawValue>, ApiError> {
        let Shared { retry, cluster_trouble, counters, .. } = &*self.shared;
        let node = request.path.node_name().map(|name| self.node(name));
        let mut delays = retry.delays();
        loop {
            let began = Instant::now();
            let result = self.send_limited(request, node.as_deref()).await;
            let error = match result {
                Err(error) if error.is_retryable() => error,
                done => {
                    // Even a refusal shows that the way is open.
                    if done.as_ref().map_or_else(|error| error.answer().is_some(), |_| true) {
                        cluster_trouble.clear();
                        if let Some(node) = &node {
                            node.trouble.clear();
                        }
                    }
                    return done;
                }
            };
            if !request.repeatable {
                return Err(error);
            }
            // An endpoint that cannot be reached says nothing about the node behind it.
            let trouble = match &node {
                Some(node) if !error.is_unreachable() => &node.trouble,
                _ => cluster_trouble,
            };
            let Some(delay) = delays.next() else {
                return Err(error);
            };
            if !trouble.may_retry(began, delay, retry.node_deadline) {
                return Err(error);
            }
            self.tell_unreachable(&error);
            tracing::debug!(path = %request.path, %error, ?delay, "trying again");
            counters.retries.fetch_add(1, Ordering::Relaxed);
            // No permit is held meanwhile: a node in trouble must not use up the cluster's.
            tokio::time::sleep(delay).await;
        }
    }

    /// Tells of each endpoint that can't be connected to that it is tried again: once, however many requests it fails.
    fn tell_unreachable(&self, error: &ApiError) {
        let Shared { endpoints, timeouts, retry, .. } = &*self.shared;
        let failed: Vec<&ApiError> = error.unconnected().collect();
        // A refusal takes no time.
        let silent = failed.iter().filter(|error| error.is_timeout()).count();
        let each = timeouts.connect.saturating_mul(u32::try_from(silent).unwrap_or(u32::MAX));
        let whole = retry.patience(each);
        for error in failed {
            let endpoint = endpoints.iter().find(|endpoint| error.endpoint() == Some(&*endpoint.origin));
            let Some(endpoint) = endpoint.filter(|endpoint| !endpoint.told.swap(true, Ordering::Relaxed))
            else {
                continue;
            };
            tracing::warn!(
                endpoint = endpoint.origin,
                cause = root_cause(error),
                "it does not answer, and is tried again for about {} s",
                whole.as_secs().max(1)
            );
        }
    }

    async fn send_limited(
        &self,
        request: &Request<'_>,
        node: Option<&Node>,
    ) -> Result<Box<RawValue>, ApiError> {
        if !request.limited {
            return self.send_somewhere(request).await;
        }
        // The node's permit first: who waits for a busy node must not hold one of the cluster's. The semaphores
        // are never closed, so that acquiring cannot fail.
        let _node_permit = match node {
            Some(node) => node.permits.acquire().await.ok(),
            None => None,
        };
        let _cluster_permit = self.shared.cluster.acquire().await.ok();
        self.send_somewhere(request).await
    }

    /// Sends to the preferred endpoint and, as long as nothing could be sent, to the others in turn.
    async fn send_somewhere(&self, request: &Request<'_>) -> Result<Box<RawValue>, ApiError> {
        let Shared { endpoints, preferred, counters, .. } = &*self.shared;
        let start = preferred.load(Ordering::Relaxed);
        // Only the request that still sees its own start moves the preference, so that a crowd of failures moves it once.
        let prefer = |index: usize| {
            if preferred.compare_exchange(start, index, Ordering::Relaxed, Ordering::Relaxed).is_ok()
                && index != start
            {
                counters.failovers.fetch_add(1, Ordering::Relaxed);
                let name = endpoints.get(index).map_or("", |endpoint| endpoint.origin.as_str());
                tracing::warn!(endpoint = name, "changing to another endpoint");
            }
        };
        let mut tried = Vec::new();
        for (index, endpoint) in endpoints.iter().enumerate().cycle().skip(start).take(endpoints.len()) {
            match self.send(endpoint, request).await {
                Err(error) if error.never_sent() => {
                    tracing::debug!(%error, cause = root_cause(&error), "endpoint not usable");
                    tried.push(error);
                }
                Err(error) if error.lost_on_the_way() => {
                    prefer((index + 1) % endpoints.len());
                    return Err(error);
                }
                answered => {
                    prefer(index);
                    return answered;
                }
            }
        }
        match tried.pop() {
            Some(only) if tried.is_empty() => Err(only),
            Some(last) => {
                tried.push(last);
                Err(request.path.error(None, ErrorKind::Unreachable { tried }))
            }
            None => Err(request.path.error(None, ErrorKind::Config("no endpoint is given".to_owned()))),
        }
    }

    /// Sends once, to one endpoint.
    async fn send(&self, endpoint: &Endpoint, request: &Request<'_>) -> Result<Box<RawValue>, ApiError> {
        let Shared { http, timeouts, counters, .. } = &*self.shared;
        counters.requests.fetch_add(1, Ordering::Relaxed);
        let fail = |kind| request.path.error(Some(&endpoint.origin), kind);
        let transport = |error| fail(ErrorKind::from_transport(error, endpoint.port_given, timeouts.request));
        let mut builder = http
            .request(request.method.clone(), format!("{}/api2/json{}", endpoint.origin, request.target))
            .headers(request.headers.clone())
            .timeout(timeouts.request);
        if let Some(form) = &request.form {
            builder = builder
                .header(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"))
                .body(form.clone());
        }
        let response = builder.send().await.map_err(transport)?;
        let status = response.status();
        let content_type = response.headers().get(CONTENT_TYPE).map_or_else(
            || "of no content type".to_owned(),
            |value| printable(&String::from_utf8_lossy(value.as_bytes())),
        );
        let reason = response.extensions().get::<ReasonPhrase>().cloned();
        let limit = if status.is_success() { MAX_BODY } else { MAX_ERROR_BODY };
        let body = read_body(response, limit).await;
        if !status.is_success() {
            // A status is an answer even if its body is too long or got lost.
            let body = body.ok().flatten().unwrap_or_default();
            return Err(fail(ErrorKind::Status(status_answer(status, reason.as_ref(), &body))));
        }
        let body = body.map_err(transport)?.ok_or_else(|| fail(ErrorKind::TooLarge { limit }))?;
        match serde_json::from_slice::<Envelope>(&body) {
            Ok(Envelope { data }) => Ok(data),
            Err(_) if request.secret_answer => Err(fail(ErrorKind::NotJson {
                reason: "not to be parsed".to_owned(),
                content_type,
                begins: "(not shown)".to_owned(),
            })),
            Err(error) => Err(fail(ErrorKind::NotJson {
                reason: excerpt(&error.to_string(), 2 * EXCERPT),
                content_type,
                begins: excerpt(&String::from_utf8_lossy(&body), EXCERPT),
            })),
        }
    }
}

impl LogIn for PveClient {
    async fn log_in(&self, user: &str, password: &SecretString) -> Result<Value, ApiError> {
        self.shared.counters.logins.fetch_add(1, Ordering::Relaxed);
        let path = log_in_path();
        let request = Request {
            method: Method::POST,
            path: &path,
            target: path.target()?,
            form: Some(encode_form(&[("username", user), ("password", password.expose_secret())])),
            headers: HeaderMap::new(),
            // A second ticket does no harm.
            repeatable: true,
            // Others wait for it, and there is only one at a time.
            limited: false,
            secret_answer: true,
        };
        parsed(&path, &self.send_patiently(&request).await?, true)
    }
}

impl fmt::Debug for PveClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let endpoints: Vec<&str> =
            self.shared.endpoints.iter().map(|endpoint| endpoint.origin.as_str()).collect();
        f.debug_struct("PveClient")
            .field("endpoints", &endpoints)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

impl Endpoint {
    fn new(url: &Url) -> Result<Self, String> {
        // Looked at first, so that no message below can show a password.
        if !url.username().is_empty() || url.password().is_some() {
            return Err(
                "an endpoint must not hold user or password; configure the credentials apart".to_owned()
            );
        }
        let host = url.host_str().unwrap_or_default();
        if url.scheme() != "https" {
            return Err(format!("endpoint {url}: PVE speaks HTTPS only; write https://{host}:8006"));
        }
        if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
            return Err(format!("endpoint {url}: only https://host:port is expected, without a path"));
        }
        Ok(Self {
            origin: url.origin().ascii_serialization(),
            port_given: url.port().is_some(),
            told: AtomicBool::new(false),
        })
    }
}

#[derive(Deserialize)]
struct Envelope {
    data: Box<RawValue>,
}

/// The answer's `data` as JSON. It is JSON in form already; it may still be nested too deep, or hold half a character.
fn parsed(path: &ApiPath, data: &RawValue, secret: bool) -> Result<Value, ApiError> {
    serde_json::from_str(data.get()).map_err(|error| {
        let begins = if secret { "(not shown)".to_owned() } else { excerpt(data.get(), EXCERPT) };
        let reason = excerpt(&error.to_string(), 2 * EXCERPT);
        path.error(None, ErrorKind::NotJson { reason, content_type: "JSON".to_owned(), begins })
    })
}

/// What an error's JSON body may hold; whatever is wrong with it, the status still counts.
#[derive(Deserialize, Default)]
struct ErrorBody {
    #[serde(default)]
    message: Value,
    #[serde(default)]
    errors: Value,
}

fn status_answer(status: StatusCode, reason: Option<&ReasonPhrase>, body: &[u8]) -> StatusAnswer {
    let ErrorBody { message, errors } = serde_json::from_slice(body).unwrap_or_default();
    let message = message.as_str().map(|text| text.trim_end().to_owned()).filter(|text| !text.is_empty());
    let text = |value: Value| match value {
        Value::String(text) => text,
        other => other.to_string(),
    };
    let errors: BTreeMap<String, String> = match errors {
        Value::Object(map) => map.into_iter().map(|(key, value)| (key, text(value))).collect(),
        _ => BTreeMap::new(),
    };
    // The extension is there only if the phrase differs from the standard one, and empty if it was not ASCII.
    let phrase = reason.map(|reason| String::from_utf8_lossy(reason.as_bytes()).trim().to_owned());
    let standard = || status.canonical_reason().unwrap_or_default().to_owned();
    let reason = match phrase {
        Some(phrase) if !phrase.is_empty() => phrase,
        Some(_) => message.clone().unwrap_or_else(standard),
        None => standard(),
    };
    StatusAnswer { status: status.as_u16(), reason, message, errors }
}

/// The body, or `None` if it is longer than `limit`.
async fn read_body(mut response: reqwest::Response, limit: usize) -> Result<Option<Vec<u8>>, reqwest::Error> {
    let announced = response.content_length().and_then(|length| usize::try_from(length).ok());
    if announced.is_some_and(|length| length > limit) {
        return Ok(None);
    }
    let mut body = Vec::with_capacity(announced.unwrap_or_default().min(MAX_ERROR_BODY));
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > limit {
            return Ok(None);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Some(body))
}

fn encode_form(form: &[(&str, &str)]) -> String {
    url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish()
}

/// The first characters of a foreign text, fit for a message.
fn excerpt(text: &str, characters: usize) -> String {
    // Some blanks fall away, hence the margin; the rest of a large body is not looked at.
    let head: String = text.chars().take(8 * characters).collect();
    printable(&head).chars().take(characters).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Auth;

    fn config(endpoints: &[&str]) -> ClientConfig {
        let endpoints = endpoints.iter().map(|url| url.parse().unwrap()).collect();
        let auth = Auth::Token { id: "root@pam!sync".parse().unwrap(), secret: "hunter2".into() };
        ClientConfig::new(endpoints, auth, Trust::Fingerprint(vec![tls::Sha256Fingerprint::of(b"")]))
    }

    #[test]
    fn endpoints_that_cannot_work_are_refused() {
        let cases: [(&[&str], &str); 5] = [
            (&[], "no endpoint is given"),
            (&["http://127.0.0.1:8006"], "PVE speaks HTTPS only; write https://127.0.0.1:8006"),
            (&["https://pve1:8006", "https://pve2:8006/api2/json"], "without a path"),
            (&["https://pve1:8006?x=y"], "without a path"),
            (&["https://root:hunter2@pve1:8006"], "must not hold user or password"),
        ];
        for (endpoints, expected) in cases {
            let error = PveClient::new(config(endpoints)).unwrap_err();
            assert!(error.is_config() && error.to_string().contains(expected), "{error}");
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
        }
        assert_eq!(
            PveClient::new(config(&["https://[2001:db8::1]:8006/"])).unwrap().endpoint(),
            "https://[2001:db8::1]:8006"
        );
    }

    #[test]
    fn limits_and_time_outs_of_zero_are_refused() {
        type Change = fn(&mut ClientConfig);
        let changes: [Change; 4] = [
            |config| config.concurrency.cluster = 0,
            |config| config.concurrency.per_node = 0,
            |config| config.timeouts.connect = Duration::ZERO,
            |config| config.timeouts.request = Duration::ZERO,
        ];
        for change in changes {
            let mut config = config(&["https://pve1:8006"]);
            change(&mut config);
            assert!(PveClient::new(config).unwrap_err().is_config());
        }
    }

    #[test]
    fn a_reason_comes_from_the_phrase_then_the_message_then_the_standard() {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        let phrase = ReasonPhrase::from_static(b"VM is locked (backup)");
        let empty = ReasonPhrase::from_static(b"");
        let body = br#"{"data":null,"message":"from the body\n","errors":{"a":"b\n","c":3}}"#;
        let answer = status_answer(status, Some(&phrase), body);
        assert_eq!(answer.reason, "VM is locked (backup)");
        assert_eq!(answer.message.as_deref(), Some("from the body"));
        assert_eq!(answer.errors, BTreeMap::from([("a".into(), "b\n".into()), ("c".into(), "3".into())]));
        assert_eq!(status_answer(status, Some(&empty), body).reason, "from the body");
        assert_eq!(status_answer(status, Some(&empty), b"").reason, "Internal Server Error");
        assert_eq!(status_answer(status, None, body).reason, "Internal Server Error");
        for odd in [&b"[]"[..], b"null", b"<html>", br#"{"message":5,"errors":[1]}"#] {
            let answer = status_answer(status, Some(&phrase), odd);
            assert_eq!((answer.message, answer.errors), (None, BTreeMap::new()));
        }
    }
}
