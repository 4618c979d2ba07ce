//! The transport: HTTPS on loopback, PVE's headers and reason phrases, faults, counters, several endpoints.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body as HttpBody, to_bytes};
use http::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::SimError;
use crate::answer::{Answer, Body};
use crate::control;
use crate::counters::Counters;
use crate::exchange::{self, Backend, MOST_BODY};
use crate::faults::{Fault, Faults, replace};
use crate::http_answer::{Dropped, html, http_response, truncated};
use crate::parameters;
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
    let path = exchange::path_of(&decoded);
    let _in_progress = shared.counters.begin(request.method().as_str(), &path);
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
            answer(request, node, shared, takes).await
        }
    };
    if faults.iter().any(|fault| matches!(fault, Fault::LoseAnswer)) {
        return Err(Dropped);
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
            Fault::StatusAfter { status, reason } => answer = Answer::error(*status, reason.clone()),
            Fault::Truncate(length) => return Ok(truncated(answer, *length)),
            _ => {}
        }
    }
    Ok(http_response(answer))
}

/// The answer of the backend. A body that is too long is cut where it shows that it is.
async fn answer(request: http::Request<Incoming>, node: &str, shared: &Shared, takes_vmid: bool) -> Answer {
    let (parts, body) = request.into_parts();
    let Ok(bytes) = to_bytes(HttpBody::new(body), MOST_BODY).await else {
        return Answer::bare(501, "for data too large");
    };
    if let Backend::World(world) = &shared.backend
        && takes_vmid
    {
        take_vmid(world, &parameters::of_body(&parts.headers, &bytes).unwrap_or_default(), node);
    }
    exchange::answer(&parts, &bytes, node, &shared.backend, shared.ticket_lifetime)
}

/// Somebody else is faster: the number that a request asks for is taken.
fn take_vmid(world: &World, parameters: &[(String, String)], node: &str) {
    let wanted = |name: &str| parameters.iter().find(|(have, _)| have == name)?.1.parse().ok();
    if let Some(vmid) = wanted("newid").or_else(|| wanted("vmid")) {
        // A number that is taken already stays so.
        let _ = world.add_guest(GuestSpec::qemu(vmid, "somebody-elses").node(node));
    }
}
