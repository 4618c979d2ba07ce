//! The transport: HTTPS on loopback, PVE's headers and reason phrases, faults, counters, several endpoints.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body as HttpBody, to_bytes};
use bytes::Bytes;
use futures::StreamExt as _;
use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, HeaderMap, HeaderValue, SERVER,
};
use http::{Method, Response, StatusCode};
use hyper::body::Incoming;
use hyper::ext::ReasonPhrase;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::SimError;
use crate::answer::{Answer, Body};
use crate::api::{self, Request};
use crate::control;
use crate::counters::Counters;
use crate::faults::{Fault, Faults, replace};
use crate::recorded::RecordedEstate;
use crate::tls::{Authority, Identity};
use crate::world::state::GuestSpec;
use crate::world::{World, quick_fraction};

/// The port of PVE's API.
pub const PVE_PORT: u16 = 8006;

/// PVE delays every refusal to authenticate by so much.
pub const REFUSAL_DELAY: Duration = Duration::from_secs(3);

/// A ticket lives two hours.
pub const TICKET_LIFETIME: Duration = Duration::from_secs(2 * 60 * 60);

/// The largest request body; PVE itself takes 512 KiB.
const MOST_BODY: usize = 512 * 1024;

/// Between the start of a truncated body and the end of its connection.
const TRUNCATION_PAUSE: Duration = Duration::from_millis(20);

/// The `Server` header that PVE sends.
const SERVER_NAME: &str = "pve-api-daemon/3.0";

/// PVE's content type of every answer with a body.
const JSON: &str = "application/json;charset=UTF-8";

/// How to serve.
#[derive(Clone, Debug)]
pub struct SimOptions {
    /// Where the first endpoint listens; port 0 takes a free one. Further endpoints take free ports of the same address.
    pub listen: SocketAddr,
    /// How many nodes have an endpoint: the first ones by name, at least one.
    pub endpoints: usize,
    /// Whether an address other than loopback is allowed.
    pub allow_non_loopback: bool,
    /// The factor for PVE's own delays, such as [`REFUSAL_DELAY`]; 0 has none, 1 all of them.
    pub time_scale: f64,
    /// How long a ticket lives, on the world's clock.
    pub ticket_lifetime: Duration,
}

impl Default for SimOptions {
    fn default() -> Self {
        Self {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
            endpoints: 1,
            allow_non_loopback: false,
            time_scale: 0.0,
            ticket_lifetime: TICKET_LIFETIME,
        }
    }
}

/// What stands behind the transport.
enum Backend {
    World(Arc<World>),
    Recorded(RecordedEstate),
}

struct Shared {
    backend: Backend,
    faults: Arc<Faults>,
    counters: Arc<Counters>,
    refusal_delay: Duration,
    ticket_lifetime: u64,
}

/// One node's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The node.
    pub node: String,
    /// `https://127.0.0.1:PORT`.
    pub url: String,
    /// The address it listens on.
    pub address: SocketAddr,
    /// The SHA-256 fingerprint of its certificate, `AA:BB:…`.
    pub fingerprint: String,
}

/// A running server. Dropping it closes every connection and listener.
#[derive(Debug)]
pub struct SimServer {
    endpoints: Vec<Endpoint>,
    ca_pem: String,
    world: Option<Arc<World>>,
    faults: Arc<Faults>,
    counters: Arc<Counters>,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl SimServer {
    /// Serves a world. It needs a Tokio runtime and runs on that one.
    ///
    /// The world's nodes get the fingerprints and certificates that are really presented. A node that is set offline drops
    /// every connection to its own endpoint.
    ///
    /// # Errors
    /// An address that is in use or not loopback, or a world without nodes.
    pub async fn start(world: impl Into<Arc<World>>, options: SimOptions) -> Result<Self, SimError> {
        let world = world.into();
        let (name, nodes) = world
            .read(|state| (state.cluster_name.clone(), state.nodes.keys().cloned().collect::<Vec<String>>()));
        world.set_time_scale(options.time_scale);
        let count = options.endpoints.clamp(1, nodes.len().max(1));
        let nodes: Vec<String> = nodes.into_iter().take(count).collect();
        let name = name.unwrap_or_else(|| nodes.first().cloned().unwrap_or_default());
        Self::serve(Backend::World(Arc::clone(&world)), Some(world), &name, &nodes, &options).await
    }

    /// Serves a recording.
    ///
    /// # Errors
    /// An address that is in use or not loopback.
    pub async fn start_recorded(estate: RecordedEstate, options: SimOptions) -> Result<Self, SimError> {
        let nodes = ["recorded".to_owned()];
        Self::serve(Backend::Recorded(estate), None, "recorded", &nodes, &options).await
    }

    async fn serve(
        backend: Backend,
        world: Option<Arc<World>>,
        cluster: &str,
        nodes: &[String],
        options: &SimOptions,
    ) -> Result<Self, SimError> {
        let address = options.listen.ip();
        if !address.is_loopback() && !options.allow_non_loopback {
            return Err(SimError::NotLoopback { address });
        }
        if nodes.is_empty() {
            return Err(SimError::NoNodes);
        }
        let authority = Authority::new(cluster)?;
        let (stop, stopped) = watch::channel(false);
        let (faults, counters) = (Arc::<Faults>::default(), Arc::<Counters>::default());
        let shared = Arc::new(Shared {
            backend,
            faults: Arc::clone(&faults),
            counters: Arc::clone(&counters),
            refusal_delay: scaled(REFUSAL_DELAY, options.time_scale),
            ticket_lifetime: options.ticket_lifetime.as_secs(),
        });
        let (mut endpoints, mut tasks) = (Vec::new(), Vec::new());
        for (number, node) in nodes.iter().enumerate() {
            let port = if number == 0 { options.listen.port() } else { 0 };
            let wanted = SocketAddr::new(address, port);
            let busy = |source| SimError::Listen { address: wanted, source };
            let listener = TcpListener::bind(wanted).await.map_err(busy)?;
            let address = listener.local_addr().map_err(busy)?;
            let Identity { acceptor, pem, fingerprint } = authority.issue(node, address.ip())?;
            if let Some(world) = &world {
                world.update(|state| {
                    state.ca_certificate = Some(authority.pem.clone());
                    if let Some(node) = state.nodes.get_mut(node) {
                        node.fingerprint.clone_from(&fingerprint);
                        node.certificate = Some(pem);
                    }
                });
            }
            let (shared, stopped) = (Arc::clone(&shared), stopped.clone());
            let name: Arc<str> = node.as_str().into();
            tasks.push(tokio::spawn(accept(listener, acceptor, name, shared, stopped)));
            endpoints.push(Endpoint {
                node: node.clone(),
                url: format!("https://{address}"),
                address,
                fingerprint,
            });
        }
        Ok(Self { endpoints, ca_pem: authority.pem, world, faults, counters, stop, tasks })
    }

    /// The endpoints, one per served node, the first node's first.
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// The URLs of the endpoints.
    pub fn urls(&self) -> Vec<String> {
        self.endpoints.iter().map(|endpoint| endpoint.url.clone()).collect()
    }

    /// The URL of the first endpoint.
    pub fn url(&self) -> &str {
        self.endpoints.first().map_or("", |endpoint| &endpoint.url)
    }

    /// The fingerprint of the first endpoint's certificate.
    pub fn fingerprint(&self) -> &str {
        self.endpoints.first().map_or("", |endpoint| &endpoint.fingerprint)
    }

    /// The certificate of the cluster's certification authority, in PEM.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// The world; `None` where a recording is served.
    pub fn world(&self) -> Option<&Arc<World>> {
        self.world.as_ref()
    }

    /// The faults, to be added and removed while it runs.
    pub fn faults(&self) -> &Arc<Faults> {
        &self.faults
    }

    /// The counters.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Closes every connection and listener, and waits until that is done.
    pub async fn shutdown(mut self) {
        let _ = self.stop.send(true);
        for task in std::mem::take(&mut self.tasks) {
            let _ = task.await;
        }
    }
}

impl Drop for SimServer {
    fn drop(&mut self) {
        let _ = self.stop.send(true);
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Accepts connections until told to stop; the set of connections ends with it.
async fn accept(
    listener: TcpListener,
    acceptor: tokio_rustls::TlsAcceptor,
    node: Arc<str>,
    shared: Arc<Shared>,
    mut stopped: watch::Receiver<bool>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            _ = stopped.changed() => return,
            // Reaped as they end, so that a long run does not keep the finished ones.
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    shared.counters.connected();
                    let (acceptor, node, shared) = (acceptor.clone(), Arc::clone(&node), Arc::clone(&shared));
                    connections.spawn(connection(stream, acceptor, node, shared));
                }
                Err(error) => {
                    // Mostly too many open files: accepting again at once would spin.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
        }
    }
}

async fn connection(
    stream: TcpStream,
    acceptor: tokio_rustls::TlsAcceptor,
    node: Arc<str>,
    shared: Arc<Shared>,
) {
    if !node_is_up(&shared, &node) {
        return;
    }
    let _ = stream.set_nodelay(true);
    let from_here = stream.peer_addr().is_ok_and(|peer| peer.ip().is_loopback());
    let stream = match acceptor.accept(stream).await {
        Ok(stream) => stream,
        Err(error) => {
            tracing::debug!(%error, %node, "TLS handshake failed");
            return;
        }
    };
    let service = service_fn(|request: http::Request<Incoming>| {
        let (node, shared) = (Arc::clone(&node), Arc::clone(&shared));
        async move { respond(request, &node, &shared, from_here).await }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .title_case_headers(true)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, %node, "connection ended");
    }
}

fn node_is_up(shared: &Shared, node: &str) -> bool {
    match &shared.backend {
        Backend::World(world) => world.read(|state| state.nodes.get(node).is_some_and(|node| node.online)),
        Backend::Recorded(_) => true,
    }
}

/// A delay times the scale; none where that is no duration, such as a negative or infinite one.
fn scaled(delay: Duration, scale: f64) -> Duration {
    Duration::try_from_secs_f64(delay.as_secs_f64() * scale).unwrap_or_default()
}

/// The connection is to be closed without an answer.
#[derive(Debug, thiserror::Error)]
#[error("the simulated connection is dropped")]
struct Dropped;

async fn respond(
    request: http::Request<Incoming>,
    node: &str,
    shared: &Shared,
    from_here: bool,
) -> Result<Response<HttpBody>, Dropped> {
    if !node_is_up(shared, node) {
        return Err(Dropped);
    }
    let path = request.uri().path().to_owned();
    let decoded = percent_encoding::percent_decode_str(&path).decode_utf8_lossy().into_owned();
    if decoded.starts_with("/sim/") && from_here {
        let method = request.method().as_str().to_owned();
        let bytes = to_bytes(HttpBody::new(request.into_body()), MOST_BODY).await.unwrap_or_default();
        let world = match &shared.backend {
            Backend::World(world) => Some(world.as_ref()),
            Backend::Recorded(_) => None,
        };
        let answer = control::answer(&method, &decoded, &bytes, &shared.faults, &shared.counters, world);
        return Ok(http_response(answer));
    }
    let Some((format, path)) = split_format(&decoded) else {
        return Ok(http_response(Answer::bare(500, format!("no such file '{decoded}'"))));
    };
    if !matches!(format, "json" | "extjs") {
        return Ok(http_response(Answer::bare(501, format!("no formatter for uri {path}, {format}"))));
    }
    let wrapped = format == "extjs";
    let _in_progress = shared.counters.begin(&path);
    let mut faults = shared.faults.strike(request.method().as_str(), &path);
    for fault in &faults {
        match fault {
            Fault::Latency(delay) => tokio::time::sleep(*delay).await,
            Fault::Jitter(most) => {
                let turn = u32::try_from(shared.counters.total() % 1_000_000).unwrap_or_default();
                tokio::time::sleep(most.mul_f64(quick_fraction(0, turn, 99))).await;
            }
            Fault::Hang => std::future::pending().await,
            Fault::Drop => return Err(Dropped),
            _ => {}
        }
    }
    faults.retain(|fault| !matches!(fault, Fault::Latency(_)));
    let instead = faults.iter().find_map(|fault| match fault {
        Fault::Status { status, reason } => Some(Answer::error(*status, reason.clone())),
        Fault::BareStatus { status, reason } => Some(Answer::bare(*status, reason.clone())),
        _ => None,
    });
    let mut answer = match instead {
        Some(answer) => answer,
        None => {
            let takes = faults.iter().any(|fault| matches!(fault, Fault::TakeVmid));
            answer(request, &path, node, shared, takes).await
        }
    };
    if faults.iter().any(|fault| matches!(fault, Fault::LoseAnswer)) {
        return Err(Dropped);
    }
    if wrapped {
        answer = wrap(answer);
    }
    if answer.status == 401 {
        tokio::time::sleep(shared.refusal_delay).await;
    }
    for fault in &faults {
        match fault {
            Fault::Replace { pointer, value } => {
                let mut body = answer.body.to_json();
                replace(&mut body, pointer, value.clone());
                answer.body = Body::Json(body);
            }
            Fault::Html => return Ok(html()),
            Fault::Body(bytes) => {
                answer = Answer { body: Body::Spelt(bytes.clone()), ..Answer::ok(json!(null)) }
            }
            Fault::Truncate(length) => return Ok(truncated(answer, *length)),
            _ => {}
        }
    }
    Ok(http_response(answer))
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

/// The answer of the backend: methods that PVE does not know first, then authentication, then the API.
async fn answer(
    request: http::Request<Incoming>,
    path: &str,
    node: &str,
    shared: &Shared,
    takes_vmid: bool,
) -> Answer {
    let (parts, body) = request.into_parts();
    let Ok(bytes) = to_bytes(HttpBody::new(body), MOST_BODY).await else {
        return Answer::bare(413, "for data too large");
    };
    if let Backend::World(world) = &shared.backend
        && takes_vmid
    {
        take_vmid(world, &body_parameters(&parts.headers, &bytes).unwrap_or_default(), node);
    }
    exchange(&parts, &bytes, path, node, &shared.backend, shared.ticket_lifetime)
}

/// Somebody else is faster: the number that a request asks for is taken.
fn take_vmid(world: &World, parameters: &[(String, String)], node: &str) {
    let wanted = |name: &str| parameters.iter().find(|(have, _)| have == name)?.1.parse().ok();
    if let Some(vmid) = wanted("newid").or_else(|| wanted("vmid")) {
        // A number that is taken already stays so.
        let _ = world.add_guest(GuestSpec::qemu(vmid, "somebody-elses").node(node));
    }
}

/// A request that has come in whole, answered: methods that PVE does not know first, then authentication, then the API.
fn exchange(
    parts: &http::request::Parts,
    bytes: &Bytes,
    path: &str,
    node: &str,
    backend: &Backend,
    lifetime: u64,
) -> Answer {
    if ![Method::GET, Method::POST, Method::PUT, Method::DELETE].contains(&parts.method) {
        return Answer::bare(501, format!("method '{}' not available", parts.method));
    }
    let query = parts.uri.query().unwrap_or_default();
    let mut parameters = joined(url::form_urlencoded::parse(query.as_bytes()).into_owned());
    match body_parameters(&parts.headers, bytes) {
        Ok(more) => parameters.extend(joined(more)),
        Err(refusal) => return refusal,
    }
    let method = parts.method.as_str();
    let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
    let presented = api::Presented {
        authorization: header(AUTHORIZATION.as_str()),
        cookie: header(COOKIE.as_str()),
        csrf: header("CSRFPreventionToken"),
        writes: parts.method != Method::GET,
    };
    match backend {
        Backend::Recorded(estate) => match estate.admits(presented.authorization, presented.cookie.is_some())
        {
            Ok(()) => estate.answer(method, path, &parameters),
            Err(refusal) => refusal,
        },
        Backend::World(world) => {
            if path == "/access/ticket" {
                return ticket(world, method, presented, &parameters, lifetime);
            }
            match api::authenticate(world, presented, lifetime) {
                Ok(principal) => {
                    api::answer(world, &Request { method, path, parameters, principal, local_node: node })
                }
                Err(refusal) => refusal,
            }
        }
    }
}

/// Parameters by name. One that is repeated has its values with a zero byte between them, as PVE takes lists.
fn joined(pairs: impl IntoIterator<Item = (String, String)>) -> BTreeMap<String, String> {
    let mut parameters: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in pairs {
        match parameters.get_mut(&name) {
            Some(have) => {
                have.push('\0');
                have.push_str(&value);
            }
            None => drop(parameters.insert(name, value)),
        }
    }
    parameters
}

/// Answers a request as the server does, without a connection.
pub(crate) fn answer_directly(world: &Arc<World>, request: http::Request<Bytes>, node: &str) -> Answer {
    let (parts, bytes) = request.into_parts();
    let decoded = percent_encoding::percent_decode_str(parts.uri.path()).decode_utf8_lossy().into_owned();
    let Some((format, path)) = split_format(&decoded) else {
        return Answer::bare(500, format!("no such file '{decoded}'"));
    };
    let backend = Backend::World(Arc::clone(world));
    let lifetime = TICKET_LIFETIME.as_secs();
    match format {
        "json" => exchange(&parts, &bytes, &path, node, &backend, lifetime),
        "extjs" => wrap(exchange(&parts, &bytes, &path, node, &backend, lifetime)),
        _ => Answer::bare(501, format!("no formatter for uri {path}, {format}")),
    }
}

/// `/api2/json/version` is `/version` as JSON.
fn split_format(decoded: &str) -> Option<(&str, String)> {
    let below = decoded.strip_prefix("/api2/")?;
    let (format, path) = below.split_once('/').map_or((below, ""), |(format, rest)| (format, rest));
    Some((format, format!("/{path}")))
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

/// The parameters in a body: a form or JSON; PVE takes nothing else.
fn body_parameters(headers: &HeaderMap, bytes: &Bytes) -> Result<Vec<(String, String)>, Answer> {
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if kind.starts_with("application/x-www-form-urlencoded") {
        return Ok(url::form_urlencoded::parse(bytes).into_owned().collect());
    }
    if kind.starts_with("application/json") {
        let parsed: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(bytes)
            .map_err(|error| Answer::error(400, format!("malformed JSON: {error}")))?;
        let text = |value: serde_json::Value| match value {
            serde_json::Value::String(text) => text,
            other => other.to_string(),
        };
        return Ok(parsed.into_iter().map(|(name, value)| (name, text(value))).collect());
    }
    if let Some(boundary) =
        kind.strip_prefix("multipart/form-data").and_then(|rest| rest.split("boundary=").nth(1))
    {
        return Ok(multipart(bytes, boundary.trim_matches('"')));
    }
    Err(Answer::bare(506, format!("upload 'Content-Type '{kind}' not implemented")))
}

/// The fields of an upload; of a file its name and size are kept.
fn multipart(bytes: &Bytes, boundary: &str) -> Vec<(String, String)> {
    let text = String::from_utf8_lossy(bytes);
    let mut fields = Vec::new();
    for part in text.split(&format!("--{boundary}")) {
        let Some((head, content)) = part.split_once("\r\n\r\n").or_else(|| part.split_once("\n\n")) else {
            continue;
        };
        let attribute = |name: &str| {
            let start = head.find(&format!("{name}=\""))? + name.len() + 2;
            head.get(start..)?.split('"').next().map(str::to_owned)
        };
        let Some(name) = attribute(" name") else { continue };
        match attribute("filename") {
            Some(file) => fields.push((name, file)),
            None => fields.push((name, content.trim_end().to_owned())),
        }
    }
    fields
}

/// An answer as HTTP: errors close the connection, successes keep it, and only a body has a content type.
fn http_response(answer: Answer) -> Response<HttpBody> {
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

fn html() -> Response<HttpBody> {
    let page =
        "<!DOCTYPE html><html><head><title>Sign in</title></head><body><h1>Sign in</h1></body></html>\n";
    let mut response = http_response(Answer { body: Body::Spelt(page.into()), ..Answer::ok(json!(null)) });
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html;charset=UTF-8"));
    response
}

/// The length promises the whole body, and then the stream breaks off.
fn truncated(answer: Answer, length: usize) -> Response<HttpBody> {
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
