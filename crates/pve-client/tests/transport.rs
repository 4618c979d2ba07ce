//! The client against an HTTPS server of this file's own, which writes its answers byte by byte, so that every
//! fault is exactly the one meant.

// A failed expectation anywhere in a test is a failed test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::error::Error as _;
use std::future::Future;
use std::io::Write as _;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pve_client::{
    ApiError, ApiPath, Auth, CaSource, ClientConfig, Concurrency, ErrorKind, FailureClass, PveClient,
    RetryPolicy, Sha256Fingerprint, Trust,
};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

const SECRET: &str = "8f14e45f-ceea-467f-a0e6-aaaabbbbcccc";
const PASSWORD: &str = "correct horse & battery=staple";

// ---- the server ----

#[derive(Debug, Clone)]
struct Seen {
    method: String,
    target: String,
    headers: BTreeMap<String, String>,
    body: String,
}

impl Seen {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    fn form(&self) -> BTreeMap<String, String> {
        url::form_urlencoded::parse(self.body.as_bytes()).into_owned().collect()
    }
}

enum Reply {
    /// Bytes that are no TLS, past the encryption.
    Garbage,
    /// These bytes; then the connection waits for the next request.
    Bytes(Vec<u8>),
    /// These bytes, then an orderly close of the connection.
    Close(Vec<u8>),
    /// Nothing, ever.
    Hang,
}

type Answer = Pin<Box<dyn Future<Output = Reply> + Send>>;

struct Server {
    port: u16,
    ca_pem: String,
    fingerprint: Sha256Fingerprint,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    /// A server whose every request is answered by `handler`.
    async fn new(handler: impl Fn(Seen) -> Reply + Send + Sync + 'static) -> Self {
        Self::with_async(move |seen| {
            let reply = handler(seen);
            Box::pin(async move { reply })
        })
        .await
    }

    async fn with_async(handler: impl Fn(Seen) -> Answer + Send + Sync + 'static) -> Self {
        Self::named("127.0.0.1", handler).await
    }

    async fn named(name: &str, handler: impl Fn(Seen) -> Answer + Send + Sync + 'static) -> Self {
        let mut ca_params = CertificateParams::new(Vec::new()).unwrap();
        // Each CA has its own name, so that a stranger's is not found rather than found wanting.
        static CAS: AtomicUsize = AtomicUsize::new(0);
        let ca_name = format!("test CA {}", CAS.fetch_add(1, Ordering::Relaxed));
        ca_params.distinguished_name.push(DnType::CommonName, ca_name);
        ca_params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca_key = KeyPair::generate().unwrap();
        let ca = ca_params.self_signed(&ca_key).unwrap();
        let issuer = Issuer::new(ca_params, ca_key);
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
        let tls =
            rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(
                    vec![leaf.der().clone()],
                    PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
                )
                .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let (handler, log) = (Arc::new(handler), Arc::clone(&seen));
        tokio::spawn(async move {
            loop {
                let Ok((tcp, _)) = listener.accept().await else { return };
                let (acceptor, handler, log) = (acceptor.clone(), Arc::clone(&handler), Arc::clone(&log));
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(tcp).await else { return };
                    while let Some(request) = read_request(&mut stream).await {
                        log.lock().unwrap().push(request.clone());
                        let (bytes, close) = match handler(request).await {
                            Reply::Bytes(bytes) => (bytes, false),
                            Reply::Close(bytes) => (bytes, true),
                            Reply::Hang => std::future::pending().await,
                            Reply::Garbage => {
                                stream.get_mut().0.write_all(b"HTTP/1.1 502 Bad Gateway\r\n\r\n").await.ok();
                                std::future::pending().await
                            }
                        };
                        if stream.write_all(&bytes).await.is_err() || stream.flush().await.is_err() {
                            return;
                        }
                        if close {
                            stream.shutdown().await.ok();
                            return;
                        }
                    }
                });
            }
        });
        Self { port, ca_pem: ca.pem(), fingerprint: Sha256Fingerprint::of(leaf.der()), seen }
    }

    fn endpoint(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    fn ca(&self) -> Trust {
        Trust::CaFile(CaSource::Pem(self.ca_pem.clone().into_bytes()))
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    /// A configuration that trusts this server, asks with a token and hardly waits between tries.
    fn config(&self) -> ClientConfig {
        config(&[self.endpoint()], token(), self.ca())
    }

    fn client(&self) -> PveClient {
        PveClient::new(self.config()).unwrap()
    }

    fn password_client(&self, change: impl FnOnce(&mut ClientConfig)) -> PveClient {
        let mut config = self.config();
        config.auth = Auth::Password { user: "reader@pve".to_owned(), password: PASSWORD.into() };
        change(&mut config);
        PveClient::new(config).unwrap()
    }
}

async fn read_request(stream: &mut (impl AsyncReadExt + Unpin)) -> Option<Seen> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.trim_end().split("\r\n");
    let mut first = lines.next().unwrap().split(' ');
    let (method, target) = (first.next().unwrap().to_owned(), first.next().unwrap().to_owned());
    let headers: BTreeMap<String, String> = lines
        .map(|line| line.split_once(": ").unwrap())
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(Seen { method, target, headers, body: String::from_utf8(body).unwrap() })
}

/// A status line and headers as given, with the body's length.
fn raw(status: u16, reason: &[u8], headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("HTTP/1.1 {status} ").into_bytes();
    bytes.extend_from_slice(reason);
    for (name, value) in headers {
        write!(bytes, "\r\n{name}: {value}").unwrap();
    }
    write!(bytes, "\r\nContent-Length: {}\r\n\r\n", body.len()).unwrap();
    bytes.extend_from_slice(body);
    bytes
}

const JSON: (&str, &str) = ("Content-Type", "application/json;charset=UTF-8");

fn ok(data: Value) -> Reply {
    Reply::Bytes(raw(200, b"OK", &[JSON], json!({ "data": data }).to_string().as_bytes()))
}

/// An error as PVE sends it: text in the reason phrase and the message, then the connection closes.
fn pve_error(status: u16, reason: &str) -> Reply {
    let body = json!({ "data": null, "message": format!("{reason}\n") }).to_string();
    Reply::Close(raw(status, reason.as_bytes(), &[JSON, ("Connection", "close")], body.as_bytes()))
}

fn bare_error(status: u16, reason: &str) -> Reply {
    Reply::Close(raw(status, reason.as_bytes(), &[("Connection", "close")], b""))
}

// ---- the client's side ----

fn token() -> Auth {
    Auth::Token { id: "inventory@pve!sync".parse().unwrap(), secret: SECRET.into() }
}

fn config(endpoints: &[String], auth: Auth, trust: Trust) -> ClientConfig {
    let endpoints = endpoints.iter().map(|endpoint| endpoint.parse().unwrap()).collect();
    let mut config = ClientConfig::new(endpoints, auth, trust);
    config.retry = RetryPolicy {
        max_retries: 3,
        min_delay: Duration::from_millis(1),
        max_delay: Duration::from_millis(1),
        node_deadline: Duration::from_secs(600),
    };
    config
}

fn version() -> ApiPath {
    ApiPath::new("read version").fixed("/version")
}

fn guest_config() -> ApiPath {
    ApiPath::new("read guest config").node("pve1").segment("qemu").segment(100).segment("config")
}

/// Everything that an error can print, causes included.
fn all_texts(error: &ApiError) -> String {
    let mut text = format!("{error}\n{error:?}");
    let mut cause = error.source();
    while let Some(next) = cause {
        text += &format!("\n{next}\n{next:?}");
        cause = next.source();
    }
    text
}

async fn closed_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

/// What is logged while a test runs, on its thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn of_this_test() -> (Self, tracing::subscriber::DefaultGuard) {
        let log = Self::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    /// The client's own warnings.
    fn warnings(&self) -> Vec<String> {
        let text = self.text();
        let ours = |line: &&str| line.contains(" WARN ") && line.contains("pve_client");
        text.lines().filter(ours).map(str::to_owned).collect()
    }
}

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

// ---- requests and authentication ----

#[tokio::test]
async fn a_token_is_sent_and_data_comes_back() {
    let server = Server::new(|_| ok(json!({ "release": "8.4" }))).await;
    let client = server.client();
    let path =
        ApiPath::new("read tasks").node("pve1").fixed("tasks").segment("UPID:pve1:0:x").query("limit", 5);
    assert_eq!(client.get(&path).await.unwrap(), json!({ "release": "8.4" }));
    assert_eq!(client.get(&version()).await.unwrap(), json!({ "release": "8.4" }));
    let seen = server.seen();
    assert_eq!(
        (seen[0].method.as_str(), seen[0].target.as_str()),
        ("GET", "/api2/json/nodes/pve1/tasks/UPID%3Apve1%3A0%3Ax?limit=5")
    );
    assert_eq!(seen[0].header("authorization"), format!("PVEAPIToken=inventory@pve!sync={SECRET}"));
    for absent in ["cookie", "csrfpreventiontoken", "accept-encoding"] {
        assert_eq!(seen[0].header(absent), "", "{absent}");
    }
    assert_eq!((client.stats().requests, client.stats().retries, client.stats().logins), (2, 0, 0));
}

#[tokio::test]
async fn data_may_be_null_but_not_absent() {
    let server = Server::new(|seen| {
        let body: &[u8] = if seen.target.ends_with("null") { br#"{"data":null}"# } else { br#"{"other":1}"# };
        Reply::Bytes(raw(200, b"OK", &[JSON], body))
    })
    .await;
    let client = server.client();
    assert_eq!(client.get(&ApiPath::new("read").segment("null")).await.unwrap(), Value::Null);
    let error = client.get(&version()).await.unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::NotJson { reason, .. } if reason.contains("missing field `data`")),
        "{error}"
    );
}

/// A ticket service: `T1`, `T2`, … The handler for everything else gets the number of the ticket in the cookie.
async fn ticket_server(
    log_in: impl Fn(&Seen, usize) -> Option<Reply> + Send + Sync + 'static,
    other: impl Fn(&Seen, usize) -> Reply + Send + Sync + 'static,
) -> Server {
    let issued = AtomicUsize::new(0);
    Server::new(move |seen| {
        if seen.target != "/api2/json/access/ticket" {
            let cookie = seen.header("cookie");
            let number = cookie.strip_prefix("PVEAuthCookie=PVE:reader@pve:T").and_then(|n| n.parse().ok());
            return other(&seen, number.unwrap_or_else(|| panic!("cookie {cookie}")));
        }
        let attempt = issued.fetch_add(1, Ordering::SeqCst) + 1;
        log_in(&seen, attempt).unwrap_or_else(|| {
            ok(json!({ "ticket": format!("PVE:reader@pve:T{attempt}"), "CSRFPreventionToken": format!("C{attempt}") }))
        })
    })
    .await
}

fn log_ins(server: &Server) -> Vec<String> {
    let seen = server.seen().into_iter().filter(|seen| seen.target == "/api2/json/access/ticket");
    seen.map(|seen| {
        assert_eq!((seen.method.as_str(), seen.form()["username"].as_str()), ("POST", "reader@pve"));
        assert_eq!((seen.header("cookie"), seen.header("authorization")), ("", ""));
        seen.form()["password"].clone()
    })
    .collect()
}

#[tokio::test]
async fn a_password_fetches_one_ticket_for_all() {
    let server = ticket_server(
        |_, _| None,
        |seen, ticket| {
            assert_eq!(seen.header("csrfpreventiontoken"), if seen.method == "POST" { "C1" } else { "" });
            ok(json!(ticket))
        },
    )
    .await;
    let client = server.password_client(|_| {});
    assert_eq!(server.count(), 0, "making a client sends nothing");
    let path = version();
    let reads = futures::future::join_all((0..20).map(|_| client.get(&path))).await;
    assert!(reads.into_iter().all(|read| read.unwrap() == json!(1)));
    let form = [("poolid", "a b&c"), ("comment", "ü")];
    assert_eq!(client.post(&ApiPath::new("create pool").fixed("/pools"), &form).await.unwrap(), json!(1));
    assert_eq!(log_ins(&server), [PASSWORD]);
    let post = server.seen().pop().unwrap();
    assert_eq!(post.header("content-type"), "application/x-www-form-urlencoded");
    assert_eq!(post.form(), BTreeMap::from(form.map(|(name, value)| (name.to_owned(), value.to_owned()))));
    assert_eq!(client.stats().logins, 1);
}

#[tokio::test]
async fn an_ageing_ticket_is_renewed_with_itself() {
    let server = ticket_server(|_, _| None, |_, ticket| ok(json!(ticket))).await;
    let client = server.password_client(|config| config.timeouts.ticket_renewal = Duration::ZERO);
    for ticket in 1..=3 {
        assert_eq!(client.get(&version()).await.unwrap(), json!(ticket));
    }
    assert_eq!(log_ins(&server), [PASSWORD, "PVE:reader@pve:T1", "PVE:reader@pve:T2"]);
}

#[tokio::test]
async fn a_refused_renewal_becomes_a_log_in_and_an_unreachable_one_keeps_the_ticket() {
    let server = ticket_server(
        |_, attempt| match attempt {
            2 => Some(pve_error(401, "authentication failure")),
            4.. => Some(bare_error(503, "Service Unavailable")),
            _ => None,
        },
        |_, ticket| ok(json!(ticket)),
    )
    .await;
    let client = server.password_client(|config| {
        config.timeouts.ticket_renewal = Duration::ZERO;
        config.retry.max_retries = 0;
    });
    assert_eq!(client.get(&version()).await.unwrap(), json!(1));
    assert_eq!(client.get(&version()).await.unwrap(), json!(3));
    assert_eq!(client.get(&version()).await.unwrap(), json!(3));
    assert_eq!(log_ins(&server), [PASSWORD, "PVE:reader@pve:T1", PASSWORD, "PVE:reader@pve:T3"]);
}

#[tokio::test]
async fn many_refusals_at_once_cause_one_log_in() {
    // Every first request arrives before any is refused, so that all of them are refused with the same ticket.
    let crowd = Arc::new(tokio::sync::Barrier::new(10));
    let log_ins_seen = Arc::new(AtomicUsize::new(0));
    let server = Server::with_async(move |seen| {
        let (crowd, log_ins_seen) = (Arc::clone(&crowd), Arc::clone(&log_ins_seen));
        Box::pin(async move {
            if seen.target.ends_with("/ticket") {
                let n = log_ins_seen.fetch_add(1, Ordering::SeqCst) + 1;
                return ok(json!({ "ticket": format!("T{n}"), "CSRFPreventionToken": "C" }));
            }
            if seen.header("cookie") == "PVEAuthCookie=T1" {
                crowd.wait().await;
                return bare_error(401, "Authentication failed!");
            }
            ok(json!(seen.header("cookie")))
        })
    })
    .await;
    let client = server.password_client(|_| {});
    let path = version();
    let reads = futures::future::join_all((0..10).map(|_| client.get(&path))).await;
    assert!(reads.into_iter().all(|read| read.unwrap() == json!("PVEAuthCookie=T2")));
    assert_eq!(log_ins(&server), [PASSWORD, PASSWORD]);
}

#[tokio::test]
async fn a_401_renews_once_and_then_is_an_error() {
    let server = ticket_server(|_, _| None, |_, _| bare_error(401, "Authentication failed!")).await;
    let client = server.password_client(|_| {});
    let error = client.get(&version()).await.unwrap_err();
    assert!(error.is_unauthorized() && matches!(error.kind(), ErrorKind::Login { .. }), "{error}");
    assert_eq!((error.status(), error.reason()), (Some(401), Some("Authentication failed!")));
    assert_eq!((log_ins(&server).len(), server.count()), (2, 4));
}

#[tokio::test]
async fn a_write_is_not_repeated() {
    for (status, reason) in
        [(500, "got no worker upid"), (502, "x"), (503, "busy"), (596, "timed out"), (599, "x")]
    {
        let server = ticket_server(|_, _| None, move |_, _| bare_error(status, reason)).await;
        let client = server.password_client(|_| {});
        let pools = ApiPath::new("create pool").fixed("/pools");
        for error in [
            client.post(&pools, &[("poolid", "x")]).await.unwrap_err(),
            client.put(&pools, &[("poolid", "x")]).await.unwrap_err(),
            client.delete(&pools, &[("poolid", "x")]).await.unwrap_err(),
        ] {
            assert_eq!((error.status(), error.reason()), (Some(status), Some(reason)));
            assert_eq!(error.outcome_unknown(), status != 500, "{error}");
            assert_eq!(error.is_busy(), status == 500, "{error}");
        }
        assert_eq!(server.count(), 4, "one log-in, three writes");
    }
}

#[tokio::test]
async fn a_write_whose_answer_is_lost_or_strange_is_sent_once_and_its_outcome_is_unknown() {
    for reply in [
        || Reply::Close(Vec::new()),
        || Reply::Bytes(raw(200, b"OK", &[], b"<html>")),
        || Reply::Hang,
        || Reply::Garbage,
    ] {
        let server = Server::new(move |_| reply()).await;
        let mut config = config(&[server.endpoint()], token(), server.ca());
        config.timeouts.request = Duration::from_millis(300);
        let client = PveClient::new(config).unwrap();
        let error = client.put(&guest_config(), &[("tags", "x")]).await.unwrap_err();
        assert!(error.outcome_unknown(), "{error:?}");
        assert_eq!(server.count(), 1);
    }
    // Nothing was sent.
    let closed = format!("https://127.0.0.1:{}", closed_port().await);
    let client = PveClient::new(config(&[closed], token(), Trust::Insecure)).unwrap();
    let error = client.put(&guest_config(), &[("tags", "x")]).await.unwrap_err();
    assert!(!error.outcome_unknown() && error.is_unreachable(), "{error:?}");
}

#[tokio::test]
async fn a_write_with_an_expired_ticket_is_sent_again_with_a_new_one() {
    let server = ticket_server(
        |_, _| None,
        |seen, ticket| {
            assert_eq!(seen.header("csrfpreventiontoken"), format!("C{ticket}"));
            if ticket == 1 {
                bare_error(401, "Permission denied - invalid csrf token")
            } else {
                ok(json!(null))
            }
        },
    )
    .await;
    let client = server.password_client(|_| {});
    assert_eq!(client.put(&guest_config(), &[("tags", "a b")]).await.unwrap(), json!(null));
    let seen = server.seen();
    assert_eq!(
        seen.iter().map(|seen| seen.method.as_str()).collect::<Vec<_>>(),
        ["POST", "PUT", "POST", "PUT"]
    );
    assert_eq!(seen[3].form(), BTreeMap::from([("tags".to_owned(), "a b".to_owned())]));

    // Twice is an answer.
    let server = ticket_server(|_, _| None, |_, _| bare_error(401, "Authentication failed!")).await;
    let client = server.password_client(|_| {});
    assert!(client.put(&guest_config(), &[("tags", "x")]).await.unwrap_err().is_unauthorized());
    assert_eq!(server.count(), 4);
}

#[tokio::test]
async fn what_is_deleted_is_named_in_the_query() {
    let server = Server::new(|_| ok(json!(null))).await;
    let client = server.client();
    client.delete(&guest_config(), &[("purge", "1"), ("x", "a&b")]).await.unwrap();
    let seen = server.seen();
    assert_eq!((seen[0].method.as_str(), seen[0].body.as_str()), ("DELETE", ""));
    assert_eq!(seen[0].target, "/api2/json/nodes/pve1/qemu/100/config?purge=1&x=a%26b");
}

#[tokio::test]
async fn a_task_is_followed_from_before_it_is_known_to_its_end() {
    let asked = AtomicUsize::new(0);
    const UPID: &str = "UPID:pve1:00000F3C:00066052:6B014211:qmconfig:100:root@pam:";
    let server = Server::new(move |seen| {
        if seen.target.contains("/log?") {
            return ok(json!([{"n": 1, "t": "update VM"}, {"n": 2, "t": "TASK WARNINGS: 1"}]));
        }
        let unknown = br#"{"data":null,"errors":{"upid":"no such task"}}"#;
        match asked.fetch_add(1, Ordering::SeqCst) {
            0 => Reply::Bytes(raw(400, b"Parameter verification failed.", &[], unknown)),
            1 => ok(json!({"upid": UPID, "status": "running"})),
            _ => ok(json!({"upid": UPID, "status": "stopped", "exitstatus": "WARNINGS: 1"})),
        }
    })
    .await;
    let client = server.client();
    let end = client.follow(&UPID.parse().unwrap()).await.unwrap();
    assert!(end.success && end.warned(), "{end:?}");
    assert_eq!(end.log, ["update VM", "TASK WARNINGS: 1"]);
    assert_eq!(server.count(), 4);
}

#[tokio::test]
async fn a_wrong_password_is_tried_once() {
    let server =
        ticket_server(|_, _| Some(pve_error(401, "authentication failure")), |_, _| unreachable!()).await;
    let client = server.password_client(|_| {});
    let path = version();
    let errors = futures::future::join_all((0..5).map(|_| client.get(&path))).await;
    for error in errors {
        let error = error.unwrap_err();
        assert!(
            matches!(error.kind(), ErrorKind::Login { account, .. } if account == "user reader@pve"),
            "{error}"
        );
        assert!(
            error.to_string().contains("authentication failure") && error.to_string().contains("check user"),
            "{error}"
        );
        assert!(!all_texts(&error).contains("horse"), "{error:?}");
    }
    assert_eq!(server.count(), 1);
}

#[tokio::test]
async fn a_log_in_is_repeated_when_the_server_is_busy() {
    let server =
        ticket_server(|_, attempt| (attempt < 3).then(|| bare_error(503, "busy")), |_, t| ok(json!(t))).await;
    assert_eq!(server.password_client(|_| {}).get(&version()).await.unwrap(), json!(3));
}

#[tokio::test]
async fn a_wrong_token_is_named_without_its_secret() {
    let server = Server::new(|_| bare_error(401, "Authentication failed!")).await;
    let error = server.client().get(&version()).await.unwrap_err();
    assert!(error.is_unauthorized() && error.to_string().contains("token inventory@pve!sync"), "{error}");
    assert!(!all_texts(&error).contains(SECRET));
    assert_eq!(server.count(), 1, "a token cannot be renewed");
}

#[tokio::test]
async fn a_user_with_tfa_is_told_to_use_a_token() {
    let half = json!({ "NeedTFA": 1, "ticket": "PVE:!tfa!secretpart:6B0141B7::x", "CSRFPreventionToken": "C", "username": "tfa@pve" });
    let server = ticket_server(move |_, _| Some(ok(half.clone())), |_, _| unreachable!()).await;
    let client = server.password_client(|_| {});
    for _ in 0..2 {
        let error = client.get(&version()).await.unwrap_err();
        assert!(error.is_tfa() && error.is_unauthorized(), "{error}");
        assert!(
            error.to_string().contains("API token") && !all_texts(&error).contains("secretpart"),
            "{error}"
        );
    }
    assert_eq!(server.count(), 1);
}

#[tokio::test]
async fn a_garbled_log_in_is_not_quoted() {
    for body in [
        r#"{"data":{"ticket":"PVE:reader@pve:topsecret"#,
        r#"{"data":{"ticket":"PVE:reader@pve:topsecret"}}"#,
        r#""topsecret""#,
    ] {
        let server = ticket_server(
            move |_, _| Some(Reply::Bytes(raw(200, b"OK", &[JSON], body.as_bytes()))),
            |_, _| unreachable!(),
        )
        .await;
        let error = server.password_client(|_| {}).get(&version()).await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::NotJson { .. }), "{error}");
        assert!(!all_texts(&error).contains("topsecret"), "{error:?}");
    }
}

#[tokio::test]
async fn secrets_are_in_no_debug_text_and_no_log() {
    let (log, _guard) = Log::of_this_test();
    let server = ticket_server(
        |_, attempt| (attempt == 2).then(|| pve_error(401, "authentication failure")),
        |_, ticket| if ticket == 1 { bare_error(503, "busy") } else { ok(json!(ticket)) },
    )
    .await;
    let mut debugs = String::new();
    let client = server.password_client(|config| {
        config.trust = Trust::Insecure;
        config.timeouts.ticket_renewal = Duration::ZERO;
        config.retry.max_retries = 1;
        debugs += &format!("{config:?}");
    });
    client.get(&version()).await.unwrap_err();
    client.get(&version()).await.unwrap();
    debugs += &format!("{client:?} {:?} {:?}", server.config(), server.client());

    let log = log.text();
    for text in [&log, &debugs] {
        for secret in [SECRET, "horse", "reader@pve:T"] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
    }
    // What was logged shows that the search had something to search.
    assert!(log.contains("trying again") && log.contains("logging in anew"), "{log}");
    let warnings: Vec<&str> =
        log.lines().filter(|line| line.contains("certificates are NOT checked")).collect();
    assert_eq!(warnings.len(), 1, "{log}");
    assert!(warnings[0].contains("WARN") && warnings[0].contains(&server.endpoint()), "{warnings:?}");
}

// ---- TLS ----

#[tokio::test]
async fn the_ca_the_fingerprint_and_nothing_are_trusted_as_told() {
    let server = Server::new(|_| ok(json!(1))).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("some comment\n{}", server.ca_pem)).unwrap();
    let other = Sha256Fingerprint::of(b"another certificate");
    for trust in [
        server.ca(),
        Trust::CaFile(CaSource::Path(file.path().to_owned())),
        Trust::Fingerprint(vec![other, server.fingerprint.to_string().to_lowercase().parse().unwrap()]),
        Trust::Insecure,
    ] {
        let client = PveClient::new(config(&[server.endpoint()], token(), trust.clone())).unwrap();
        assert_eq!(client.get(&version()).await.unwrap(), json!(1), "{trust:?}");
    }
    assert_eq!(server.count(), 4);
}

#[tokio::test]
async fn a_wrong_fingerprint_shows_both_and_sends_nothing() {
    let server = Server::new(|_| ok(json!(1))).await;
    let pinned = Sha256Fingerprint::of(b"another certificate");
    let client =
        PveClient::new(config(&[server.endpoint()], token(), Trust::Fingerprint(vec![pinned]))).unwrap();
    let error = client.get(&version()).await.unwrap_err();
    assert!(error.is_tls() && !error.is_unreachable() && !error.is_retryable(), "{error}");
    let text = error.to_string();
    assert!(text.contains(&pinned.to_string()) && text.contains(&server.fingerprint.to_string()), "{text}");
    assert_eq!((server.count(), client.stats().requests), (0, 1));
}

#[tokio::test]
async fn an_unknown_ca_shows_the_certificate_and_the_mend() {
    let server = Server::new(|_| ok(json!(1))).await;
    let stranger = Server::new(|_| ok(json!(1))).await;
    let client = PveClient::new(config(&[server.endpoint()], token(), stranger.ca())).unwrap();
    let error = client.get(&version()).await.unwrap_err();
    assert!(error.is_tls(), "{error}");
    assert!(
        matches!(error.kind(), ErrorKind::Tls { presented: Some(presented), .. } if *presented == server.fingerprint)
    );
    let text = error.to_string();
    for part in ["ca_file", "fingerprint", &server.fingerprint.to_string(), &server.endpoint()] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(error.source().unwrap().to_string().contains("UnknownIssuer"), "{error:?}");
    assert_eq!(server.count(), 0);
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused_by_the_ca_and_taken_by_its_pin() {
    let server = Server::named("pve1.example", |_| Box::pin(async { ok(json!(1)) })).await;
    let error = server.client().get(&version()).await.unwrap_err();
    assert!(error.is_tls() && error.to_string().contains("other names"), "{error}");
    let pin = Trust::Fingerprint(vec![server.fingerprint]);
    let client = PveClient::new(config(&[server.endpoint()], token(), pin)).unwrap();
    assert_eq!(client.get(&version()).await.unwrap(), json!(1));
}

#[tokio::test]
async fn a_pinned_certificate_without_its_key_is_refused() {
    // The certificate is public; a thief has it, but must sign with a key of his own.
    let honest = Server::new(|_| ok(json!(1))).await;
    let key = KeyPair::generate().unwrap();
    let signer = rustls::crypto::ring::sign::any_supported_type(&PrivateKeyDer::Pkcs8(
        PrivatePkcs8KeyDer::from(key.serialize_der()),
    ))
    .unwrap();
    let stolen = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap().cert.der().clone();
    let pin = Sha256Fingerprint::of(&stolen);
    let certified = rustls::sign::CertifiedKey::new(vec![stolen], signer);
    let tls = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(certified)));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("https://127.0.0.1:{}", listener.local_addr().unwrap().port());
    let handshakes = tokio::spawn(async move {
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let (tcp, _) = listener.accept().await.unwrap();
        acceptor.accept(tcp).await.map(drop)
    });
    let pins = Trust::Fingerprint(vec![pin, honest.fingerprint]);
    let client = PveClient::new(config(&[endpoint], token(), pins)).unwrap();
    let error = client.get(&version()).await.unwrap_err();
    assert!(error.is_tls(), "{error}");
    assert!(handshakes.await.unwrap().is_err());
}

#[tokio::test]
async fn a_port_without_tls_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("https://127.0.0.1:{}", listener.local_addr().unwrap().port());
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            tcp.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.ok();
            // The client's bytes are read, so that the close is no reset.
            tokio::spawn(async move { tcp.read_to_end(&mut Vec::new()).await });
        }
    });
    let client = PveClient::new(config(&[endpoint], token(), Trust::Insecure)).unwrap();
    let error = client.get(&version()).await.unwrap_err();
    assert!(error.is_tls() && error.to_string().contains("does not speak TLS"), "{error}");
}

// ---- endpoints, retries, limits ----

#[tokio::test]
async fn a_closed_endpoint_is_left_for_the_next_which_is_remembered() {
    let server = Server::new(|_| ok(json!(1))).await;
    let closed = format!("https://127.0.0.1:{}", closed_port().await);
    let client = PveClient::new(config(&[closed, server.endpoint()], token(), server.ca())).unwrap();
    assert_eq!(client.get(&version()).await.unwrap(), json!(1));
    assert_eq!((client.stats().requests, client.stats().retries, client.stats().failovers), (2, 0, 1));
    assert_eq!(client.endpoint(), server.endpoint());
    assert_eq!(client.post(&version(), &[]).await.unwrap(), json!(1));
    assert_eq!(client.stats().requests, 3, "the closed endpoint is not tried again");
}

#[tokio::test]
async fn a_write_fails_over_only_if_nothing_was_sent() {
    let server = Server::new(|_| ok(json!(1))).await;
    let closed = format!("https://127.0.0.1:{}", closed_port().await);
    let client = PveClient::new(config(&[closed, server.endpoint()], token(), server.ca())).unwrap();
    assert_eq!(client.post(&version(), &[]).await.unwrap(), json!(1));

    let breaking = Server::new(|_| Reply::Close(Vec::new())).await;
    let endpoints = [breaking.endpoint(), server.endpoint()];
    let client = PveClient::new(config(&endpoints, token(), Trust::Insecure)).unwrap();
    let error = client.post(&version(), &[]).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Broken { .. }), "{error}");
    assert_eq!((breaking.count(), server.count()), (1, 1));
    // The next request goes elsewhere.
    assert_eq!(client.get(&version()).await.unwrap(), json!(1));
    assert_eq!((breaking.count(), server.count()), (1, 2));
}

#[tokio::test]
async fn when_no_endpoint_answers_each_is_named() {
    let server = Server::new(|_| ok(json!(1))).await;
    let closed = format!("https://127.0.0.1:{}", closed_port().await);
    let pin = Trust::Fingerprint(vec![Sha256Fingerprint::of(b"another certificate")]);
    let client = PveClient::new(config(&[closed.clone(), server.endpoint()], token(), pin)).unwrap();
    let error = client.get(&version()).await.unwrap_err();
    assert!(error.is_unreachable() && error.is_tls(), "{error}");
    let text = error.to_string();
    for part in [&closed, &server.endpoint(), "refused", "not the pinned one"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    // A refused connection may be a restart, so all endpoints were tried again.
    assert_eq!((client.stats().requests, client.stats().retries), (8, 3));

    let client = PveClient::new(config(std::slice::from_ref(&closed), token(), Trust::Insecure)).unwrap();
    let error = client.get(&version()).await.unwrap_err();
    assert!(error.is_unreachable() && !error.is_tls() && !error.is_timeout(), "{error}");
    assert_eq!(
        (error.endpoint(), error.operation(), error.subject()),
        (Some(closed.as_str()), "read version", "/version")
    );
    assert_eq!(client.stats().requests, 4);
}

#[tokio::test]
async fn passing_troubles_are_retried() {
    for status in [502, 503, 504, 595, 596, 599] {
        let count = AtomicUsize::new(0);
        let server = Server::new(move |_| match count.fetch_add(1, Ordering::SeqCst) {
            0 | 1 => bare_error(status, "not now"),
            _ => ok(json!("at last")),
        })
        .await;
        let client = server.client();
        assert_eq!(client.get(&guest_config()).await.unwrap(), json!("at last"), "{status}");
        assert_eq!((server.count(), client.stats().retries), (3, 2), "{status}");
    }
}

#[tokio::test]
async fn retries_end() {
    let server = Server::new(|_| bare_error(595, "No route to host")).await;
    let spare = Server::new(|_| ok(json!(1))).await;
    let client =
        PveClient::new(config(&[server.endpoint(), spare.endpoint()], token(), Trust::Insecure)).unwrap();
    let error = client.get(&guest_config()).await.unwrap_err();
    assert!(error.is_node_unreachable() && !error.is_unreachable(), "{error}");
    assert_eq!((error.status(), error.reason()), (Some(595), Some("No route to host")));
    assert_eq!((server.count(), spare.count()), (4, 0), "an offline node is offline through every endpoint");
}

#[tokio::test]
async fn answers_are_not_retried() {
    for (status, reason, class) in [
        (400, "Parameter verification failed.", FailureClass::BadRequest),
        (401, "No ticket", FailureClass::Unauthorized),
        (403, "Permission check failed (/vms/100, VM.Audit)", FailureClass::Forbidden),
        (404, "Not here", FailureClass::NotFound),
        (500, "QEMU guest agent is not running", FailureClass::AgentNotRunning),
        (500, "nobody knows", FailureClass::Unknown),
        (501, "Method 'GET /nosuch' not implemented", FailureClass::NotImplemented),
    ] {
        let server = Server::new(move |_| pve_error(status, reason)).await;
        let error = server.client().get(&guest_config()).await.unwrap_err();
        assert_eq!(
            (error.status(), error.reason(), error.class()),
            (Some(status), Some(reason), Some(class))
        );
        assert_eq!(
            (error.operation(), error.subject()),
            ("read guest config", "/nodes/pve1/qemu/100/config")
        );
        assert_eq!(server.count(), 1, "{status} {reason}");
    }
}

#[tokio::test]
async fn a_node_that_keeps_failing_gets_one_try_each_until_it_answers() {
    let healed = Arc::new(AtomicUsize::new(0));
    let state = Arc::clone(&healed);
    let server =
        Server::new(move |seen| match (state.load(Ordering::SeqCst), seen.target.contains("pve1")) {
            (0, true) => bare_error(595, "No route to host"),
            _ => ok(json!(1)),
        })
        .await;
    let mut config = server.config();
    config.retry.max_retries = usize::MAX;
    config.retry.node_deadline = Duration::from_millis(50);
    let client = PveClient::new(config).unwrap();
    // Ends only because the deadline does.
    client.get(&guest_config()).await.unwrap_err();
    for _ in 0..3 {
        let before = server.count();
        client.get(&guest_config()).await.unwrap_err();
        assert_eq!(server.count(), before + 1);
        // Other nodes and the cluster itself are not to blame.
        client.get(&version()).await.unwrap();
    }
    healed.store(1, Ordering::SeqCst);
    client.get(&guest_config()).await.unwrap();
    healed.store(0, Ordering::SeqCst);
    let (before, retries) = (server.count(), client.stats().retries);
    client.get(&guest_config()).await.unwrap_err();
    assert!(server.count() > before + 1 && client.stats().retries > retries, "an answer restores patience");
}

/// The most requests that a server has at once, of four times `limit` sent together; it answers none before `limit` are
/// waiting, so that a client that keeps below its limit waits for ever.
async fn highest_at_once(cluster: usize, per_node: usize, limit: usize, path: ApiPath) -> usize {
    let (now, highest) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
    let state = Arc::new((now, Arc::clone(&highest), tokio::sync::Barrier::new(limit)));
    let server = Server::with_async(move |_| {
        let state = Arc::clone(&state);
        Box::pin(async move {
            let (now, highest, crowd) = &*state;
            highest.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            crowd.wait().await;
            // Room for a request too many to show itself.
            tokio::time::sleep(Duration::from_millis(20)).await;
            now.fetch_sub(1, Ordering::SeqCst);
            ok(json!(1))
        })
    })
    .await;
    let mut config = server.config();
    config.concurrency = Concurrency { cluster, per_node };
    let client = PveClient::new(config).unwrap();
    let reads = futures::future::join_all((0..4 * limit).map(|_| client.get(&path)));
    let reads = tokio::time::timeout(Duration::from_secs(60), reads).await.expect("the limit is reached");
    assert!(reads.into_iter().all(|read| read.is_ok()));
    highest.load(Ordering::SeqCst)
}

#[tokio::test]
async fn the_limits_are_reached_and_kept() {
    assert_eq!(highest_at_once(5, 100, 5, version()).await, 5);
    assert_eq!(highest_at_once(5, 100, 5, guest_config()).await, 5);
    assert_eq!(highest_at_once(100, 3, 3, guest_config()).await, 3);
    // What no node answers in particular is not limited per node.
    assert_eq!(highest_at_once(7, 1, 7, version()).await, 7);
}

#[tokio::test]
async fn a_hanging_node_leaves_room_for_the_others() {
    let server =
        Server::new(|seen| if seen.target.contains("/pve1/") { Reply::Hang } else { ok(json!(1)) }).await;
    let mut config = server.config();
    config.concurrency = Concurrency { cluster: 4, per_node: 3 };
    let client = PveClient::new(config).unwrap();
    for _ in 0..10 {
        let client = client.clone();
        tokio::spawn(async move { client.get(&guest_config()).await });
    }
    while server.count() < 3 {
        tokio::task::yield_now().await;
    }
    let path = ApiPath::new("read status").node("pve2").segment("status");
    assert_eq!(client.get(&path).await.unwrap(), json!(1));
    assert_eq!(server.count(), 4);
}

// ---- time ----

#[tokio::test]
async fn a_hanging_server_times_out() {
    let server = Server::new(|_| Reply::Hang).await;
    let mut config = server.config();
    config.timeouts.request = Duration::from_millis(100);
    config.retry.max_retries = 1;
    let client = PveClient::new(config).unwrap();
    let error = client.get(&version()).await.unwrap_err();
    assert!(error.is_timeout() && !error.is_unreachable(), "{error}");
    assert!(error.to_string().contains("0.1 s"), "{error}");
    assert_eq!(server.count(), 2);
}

#[tokio::test]
async fn a_body_that_does_not_end_times_out() {
    let server =
        Server::new(|_| Reply::Bytes(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"data\":".to_vec()))
            .await;
    let mut config = server.config();
    config.timeouts.request = Duration::from_millis(100);
    config.retry.max_retries = 0;
    let error = PveClient::new(config).unwrap().get(&version()).await.unwrap_err();
    assert!(error.is_timeout(), "{error}");
}

#[tokio::test]
async fn after_the_runs_deadline_nothing_is_sent() {
    let server = Server::new(|_| Reply::Hang).await;
    let mut config = server.config();
    config.timeouts.run = Some(Duration::from_millis(200));
    let client = PveClient::new(config).unwrap();
    let error = client.get(&version()).await.unwrap_err();
    assert!(error.is_run_deadline() && error.to_string().contains("0.2 s"), "{error}");
    let before = client.stats().requests;
    assert!(client.get(&guest_config()).await.unwrap_err().is_run_deadline());
    assert!(client.post(&version(), &[]).await.unwrap_err().is_run_deadline());
    assert_eq!(client.stats().requests, before);
}

#[tokio::test]
async fn the_runs_deadline_counts_from_the_first_request() {
    let server = Server::new(|_| Reply::Bytes(raw(200, b"OK", &[], br#"{"data":{}}"#))).await;
    let mut config = server.config();
    config.timeouts.run = Some(Duration::from_millis(300));
    let client = PveClient::new(config).unwrap();
    tokio::time::sleep(Duration::from_millis(400)).await;
    client.get(&version()).await.unwrap();
}

// ---- odd answers ----

#[tokio::test]
async fn what_is_not_pves_json_is_described() {
    let cases: [(&'static str, &'static str, &'static str); 4] = [
        (
            "text/html; charset=utf-8",
            "<!DOCTYPE html>\n<html>\u{1b}[2J<title>Router</title>",
            "<!DOCTYPE html> <html> [2J<title>Router</title>",
        ),
        ("application/json;charset=UTF-8", r#"{"data":[{"vmid":100},{"vm"#, r#"{"data":[{"vmid":100},{"vm"#),
        ("application/json;charset=UTF-8", "", ""),
        (
            "text/plain",
            "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
        ),
    ];
    for (content_type, body, expected) in cases {
        let server = Server::new(move |_| {
            Reply::Bytes(raw(200, b"OK", &[("Content-Type", content_type)], body.as_bytes()))
        })
        .await;
        let error = server.client().get(&version()).await.unwrap_err();
        let ErrorKind::NotJson { content_type: named, begins, .. } = error.kind() else { panic!("{error}") };
        assert_eq!((named.as_str(), begins.as_str()), (content_type, expected));
        assert!(error.to_string().contains("https://host:8006") && !error.to_string().contains('\u{1b}'));
        assert_eq!(server.count(), 1);
    }
}

/// Whoever waits is told why, once for each endpoint, however many requests fail; and not of what a repeat overcomes.
///
/// Seen failing with: a line for each request; a line after a 503 as well; nothing.
#[tokio::test]
async fn an_endpoint_that_does_not_answer_is_told_once() {
    let (log, _guard) = Log::of_this_test();
    let closed = [closed_port().await, closed_port().await].map(|port| format!("https://127.0.0.1:{port}"));
    let server = Server::new(|_| bare_error(503, "busy")).await;
    let busy = server.client();
    busy.get(&version()).await.unwrap_err();
    assert_eq!((server.count(), log.warnings()), (4, vec![]));

    let mut config = config(&closed, token(), server.ca());
    config.retry.min_delay = Duration::from_millis(400);
    config.retry.max_delay = Duration::from_millis(400);
    let client = PveClient::new(config).unwrap();
    let mut many = tokio::task::JoinSet::new();
    for _ in 0..64 {
        let client = client.clone();
        many.spawn(async move { client.get(&version()).await });
    }
    assert!(many.join_all().await.iter().all(|one| one.as_ref().is_err_and(ApiError::is_unreachable)));
    let warnings = log.warnings();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    for (endpoint, warning) in closed.iter().zip(&warnings) {
        let words = [endpoint, "does not answer, and is tried again for about ", "Connection refused"];
        assert!(words.iter().all(|word| warning.contains(*word)), "{warning}");
        assert!(warning.contains("about 1 s") || warning.contains("about 2 s"), "{warning}");
    }
}

#[tokio::test]
async fn a_connection_that_breaks_is_retried() {
    for first in [
        &b""[..],
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"data\":",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"dat",
    ] {
        let count = AtomicUsize::new(0);
        let server = Server::new(move |_| match count.fetch_add(1, Ordering::SeqCst) {
            0 => Reply::Close(first.to_vec()),
            _ => ok(json!(1)),
        })
        .await;
        let client = server.client();
        assert_eq!(client.get(&version()).await.unwrap(), json!(1));
        assert_eq!((server.count(), client.stats().retries), (2, 1), "{first:?}");

        let server = Server::new(move |_| Reply::Close(first.to_vec())).await;
        let error = server.client().get(&version()).await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Broken { .. }), "{error}");
    }
}

#[tokio::test]
async fn an_endless_answer_is_cut() {
    let announced = b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n".to_vec();
    let mut chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    // One chunk of 65 MiB, one more than is read.
    chunked.extend_from_slice(b"4100000\r\n");
    chunked.resize(chunked.len() + 0x410_0000, b' ');
    for reply in [announced, chunked] {
        let server = Server::new(move |_| Reply::Bytes(reply.clone())).await;
        let error = server.client().get(&version()).await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::TooLarge { .. }), "{error}");
        assert_eq!(server.count(), 1);
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let server = Server::new(|_| Reply::Bytes(raw(302, b"Found", &[("Location", "/login")], b""))).await;
    let error = server.client().get(&version()).await.unwrap_err();
    assert_eq!(error.status(), Some(302));
    assert!(error.to_string().contains("redirect"), "{error}");
    assert_eq!(server.count(), 1);
}

#[tokio::test]
async fn a_reason_that_is_not_ascii_is_taken_from_the_message() {
    let server = Server::new(|seen| {
        let reason = "Pool 'Küche' does not exist";
        if seen.target.ends_with("old") { bare_error(500, reason) } else { pve_error(500, reason) }
    })
    .await;
    let client = server.client();
    let error = client.get(&version()).await.unwrap_err();
    assert_eq!((error.reason(), error.is_not_found()), (Some("Pool 'Küche' does not exist"), true));
    // An older server has no message; the HTTP parser gives no such phrase.
    let error = client.get(&ApiPath::new("read pool").segment("old")).await.unwrap_err();
    assert_eq!((error.status(), error.reason()), (Some(500), Some("Internal Server Error")));
}

#[tokio::test]
async fn an_error_with_a_broken_or_foreign_body_keeps_its_status() {
    let replies: [fn() -> Reply; 3] = [
        || {
            Reply::Close(
                b"HTTP/1.1 500 storage 'off' is disabled\r\nContent-Length: 100\r\n\r\n{\"da".to_vec(),
            )
        },
        || Reply::Close(raw(500, b"storage 'off' is disabled", &[("Content-Type", "text/html")], b"<html>")),
        || Reply::Close(raw(500, b"storage 'off' is disabled", &[], &vec![b'x'; 2 << 20])),
    ];
    for reply in replies {
        let server = Server::new(move |_| reply()).await;
        let error = server.client().get(&version()).await.unwrap_err();
        assert_eq!(
            (error.class(), error.is_permanent()),
            (Some(FailureClass::StorageDisabled), true),
            "{error}"
        );
    }
}

// ---- genuine errors ----

/// The recordings' folder, or `None` (with a line that says so) where a user's machine does not have it.
fn recordings(test: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PVEGRAPH_RECORDINGS")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/pve"), PathBuf::from);
    if path.join("recordings.jsonl").is_file() {
        return Some(path);
    }
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{} is absent", path.display());
    println!("not run: {test}: {} is absent", path.display());
    None
}

fn recorded_errors(folder: &std::path::Path) -> Vec<Value> {
    let mut errors = Vec::new();
    for (file, least) in [
        ("recordings.jsonl", 205),
        ("estate-8.4/root.jsonl", 1),
        ("estate-8.4/auditor.jsonl", 1),
        ("estate-8.4/pool-limited.jsonl", 296),
    ] {
        let text = std::fs::read_to_string(folder.join(file)).unwrap();
        let records = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let before = errors.len();
        errors.extend(records.filter(|record| record["status"].as_u64().unwrap() >= 400));
        assert!(errors.len() - before >= least, "{file} has {} errors", errors.len() - before);
    }
    errors
}

#[tokio::test]
async fn every_recorded_error_keeps_status_reason_and_errors() {
    let Some(folder) = recordings("every_recorded_error_keeps_status_reason_and_errors") else { return };
    let records = Arc::new(recorded_errors(&folder));
    let served = Arc::clone(&records);
    let server = Server::new(move |seen| {
        let index: usize = seen.target.rsplit('/').next().unwrap().parse().unwrap();
        let record = &served[index];
        let recorded = record["headers"].as_object();
        let mut headers: Vec<(&str, &str)> = recorded
            .into_iter()
            .flatten()
            .map(|(name, value)| (name.as_str(), value.as_str().unwrap()))
            .collect();
        if recorded.is_none() {
            headers.extend([JSON, ("Connection", "close")]);
        }
        let body = match &record["json"] {
            Value::Null => Vec::new(),
            json => json.to_string().into_bytes(),
        };
        let status = u16::try_from(record["status"].as_u64().unwrap()).unwrap();
        Reply::Close(raw(status, record["reason"].as_str().unwrap().as_bytes(), &headers, &body))
    })
    .await;
    let mut config = server.config();
    config.retry.max_retries = 0;
    let client = PveClient::new(config).unwrap();
    let mut unclassified_reads = Vec::new();
    for (index, record) in records.iter().enumerate() {
        let error = client.get(&ApiPath::new("replay").fixed("/recorded").segment(index)).await.unwrap_err();
        let answer = error.answer().unwrap_or_else(|| panic!("{error} for {record}"));
        let errors: BTreeMap<String, String> =
            serde_json::from_value(record["json"]["errors"].clone()).unwrap_or_default();
        assert_eq!(u64::from(answer.status), record["status"].as_u64().unwrap());
        assert_eq!(answer.reason, record["reason"].as_str().unwrap());
        assert_eq!(answer.errors, errors, "{record}");
        assert_eq!(answer.message.as_deref(), record["json"]["message"].as_str().map(str::trim_end));
        // The estate's records are all reads and do not say so.
        let is_read = record["method"].as_str().is_none_or(|method| method == "GET");
        if is_read && answer.class() == FailureClass::Unknown {
            unclassified_reads.push(answer.reason.clone());
        }
    }
    assert_eq!(server.count(), records.len());
    assert_eq!(unclassified_reads, Vec::<String>::new());
}
