//! One endpoint: the way to it, its certificate, who answers, and whether it lets the account in.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use pve_client::answers::{Certificate, ClusterStatusRow, NodeRow};
use pve_client::{
    ApiError, Auth, ClientConfig, ErrorKind, PveClient, RetryPolicy, Sha256Fingerprint, Timeouts,
};
use pvegraph_graph::lease::LEASE_SECONDS;
use pvegraph_inventory::build;
use pvegraph_sync::load::now;
use url::Url;

use super::rights::Account;
use super::{Findings, chain};
use crate::commands::sync::api_code;
use crate::config::{ClusterSettings, Settings, Trust};
use crate::connect;
use crate::exit::{Exit, Failure};

const CONNECTION: &str = "connection";
const TLS: &str = "tls";
const API: &str = "version";
const AUTHENTICATION: &str = "authentication";
const CLOCK: &str = "clock";
const CERTIFICATE: &str = "certificate";

/// What needs an endpoint that lets us in.
const INSIDE: [&str; 2] = [CLOCK, CERTIFICATE];

/// Seconds between two clocks that time servers keep; an order above what they leave, and above what a slow answer hides.
const CLOCK_WARNING: i64 = 30;
/// From here on a lease of another host may be taken for expired while that host still writes.
const CLOCK_FAILURE: i64 = LEASE_SECONDS;
/// A certificate is renewed when it has this long left by ACME's habit, and two weeks by PVE's own: time for a person to act.
const CERTIFICATE_WARNING: i64 = 30 * 24 * 60 * 60;
/// The oldest major version whose answers the client was made for.
const OLDEST_VERSION: u32 = 7;
/// The certificate of a cluster's own authority, as PVE names it.
const AUTHORITY: &str = "pve-root-ca.pem";
/// The certificates that a node may show, the first that is there being shown.
const SHOWN: [&str; 2] = ["pveproxy-ssl.pem", "pve-ssl.pem"];

/// What an endpoint that lets us in told.
pub struct Told {
    /// Its client.
    pub client: PveClient,
    /// How long one question may take.
    pub limit: Duration,
    /// What to call it.
    pub name: String,
    /// The cluster's status, as far as the account may ask.
    pub status: Result<Vec<ClusterStatusRow>, Unanswered>,
    /// The nodes.
    pub nodes: Result<Vec<NodeRow>, Unanswered>,
    /// SHA-256 of the cluster's authority.
    pub authority: Option<String>,
}

/// A question without an answer.
#[derive(Debug)]
pub enum Unanswered {
    /// It failed.
    Api(ApiError),
    /// It took too long, repeats included.
    Slow(Duration),
}

impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Api(error) => f.write_str(&chain(error)),
            Self::Slow(limit) => write!(f, "no answer within {} s", limit.as_secs_f64()),
        }
    }
}

impl Error for Unanswered {}

impl Unanswered {
    /// The exit code that it stands for.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Api(error) => api_code(error),
            Self::Slow(_) => Exit::Unreachable,
        }
    }

    /// A right is missing.
    pub fn is_forbidden(&self) -> bool {
        matches!(self, Self::Api(error) if error.is_forbidden())
    }
}

/// Asks, for no longer than `limit`.
///
/// # Errors
/// There is no answer.
pub async fn ask<T>(
    limit: Duration,
    question: impl Future<Output = Result<pve_client::wire::Read<T>, ApiError>>,
) -> Result<T, Unanswered> {
    match tokio::time::timeout(limit, question).await {
        Ok(Ok(read)) => Ok(read.value),
        Ok(Err(error)) => Err(Unanswered::Api(error)),
        Err(_) => Err(Unanswered::Slow(limit)),
    }
}

/// Checks one endpoint. Without `secret` it goes no further than the way to it.
pub async fn check(
    settings: &Settings,
    cluster: &ClusterSettings,
    endpoint: &Url,
    account: &Account,
    secret: bool,
) -> (Findings, Option<Told>) {
    let name = endpoint.origin().ascii_serialization();
    let mut found = Findings::new(format!("{} at {name}", cluster.label()));
    let told = Check { settings, cluster, endpoint, account, name, found: &mut found }.run(secret).await;
    (found, told)
}

struct Check<'a> {
    settings: &'a Settings,
    cluster: &'a ClusterSettings,
    endpoint: &'a Url,
    account: &'a Account,
    name: String,
    found: &'a mut Findings,
}

impl Check<'_> {
    async fn run(mut self, secret: bool) -> Option<Told> {
        let presented = self.connection().await?;
        if !secret {
            self.skip(&[TLS, API, AUTHENTICATION], "the secret can't be read");
            return None;
        }
        // A client of this endpoint alone.
        let alone = ClusterSettings { endpoints: vec![self.endpoint.clone()], ..self.cluster.clone() };
        let client = match connect::client(self.settings, &alone) {
            Ok(client) => client,
            Err(failure) => {
                self.unusable(&failure);
                return None;
            }
        };
        // One try as the settings have it; what repeats do not mend in that time is told.
        let limit = self.cluster.connect_timeout.saturating_add(self.cluster.request_timeout);
        let version = match ask(limit, client.version()).await {
            Ok(version) => version.version,
            Err(error) => {
                self.refused(&error, presented);
                return None;
            }
        };
        self.tls(presented);
        self.version(&version);
        self.found.ok(AUTHENTICATION, format!("{} is let in", self.account.label()));
        let (status, nodes) = tokio::join!(ask(limit, client.cluster_status()), ask(limit, client.nodes()));
        let node = which(&status, &nodes, presented);
        let authority = match &node {
            Some(node) => {
                self.clock(&client, limit, node).await;
                self.certificates(&client, limit, node).await
            }
            None => {
                self.skip(&[], "it is not known which node answers");
                None
            }
        };
        Some(Told { client, limit, name: self.name, status, nodes, authority })
    }

    /// Skips these, and what needs an endpoint that lets us in.
    fn skip(&mut self, checks: &[&'static str], why: &str) {
        self.found.skip(checks, why);
        self.found.skip(&INSIDE, why);
    }

    /// The way to the endpoint, up to the certificate that it presents. `None`: it ends before, and the rest is skipped.
    async fn connection(&mut self) -> Option<Option<Sha256Fingerprint>> {
        let mend = "is the node up, and is the endpoint right? PVE listens on port 8006; a firewall may be in between";
        if let Some(host) = self.endpoint.domain() {
            let port = self.endpoint.port_or_known_default().unwrap_or_default();
            let lookup =
                tokio::time::timeout(self.cluster.connect_timeout, tokio::net::lookup_host((host, port)));
            let why = match lookup.await {
                Ok(Ok(_)) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some(format!("no answer within {} s", self.cluster.connect_timeout.as_secs_f64())),
            };
            if let Some(why) = why {
                let detail = format!("the name {host} can't be resolved: {why}");
                let mend = "correct the name in `endpoints`, or this machine's name service; an address does as well";
                self.found.fail(CONNECTION, Exit::Unreachable, detail, mend);
                self.skip(&[TLS, API, AUTHENTICATION], "no connection");
                return None;
            }
        }
        match self.probe().await {
            Ok(presented) => {
                self.found.ok(CONNECTION, "it answers");
                Some(presented)
            }
            // It spoke, and not TLS as we know it.
            Err(error) if error.is_tls() => {
                self.found.ok(CONNECTION, "it answers");
                self.found.fail(TLS, Exit::Unreachable, chain(&error), mend);
                self.skip(&[API, AUTHENTICATION], "no TLS");
                None
            }
            Err(error) => {
                self.found.fail(CONNECTION, Exit::Unreachable, chain(&error), mend);
                self.skip(&[TLS, API, AUTHENTICATION], "no connection");
                None
            }
        }
    }

    /// Shakes hands with a pin that no certificate has, so that nothing is sent, and the certificate is told.
    async fn probe(&self) -> Result<Option<Sha256Fingerprint>, ApiError> {
        let Ok(id) = "nobody@pve!none".parse() else { return Ok(None) };
        let nobody = Auth::Token { id, secret: "none".into() };
        let refuse = pve_client::Trust::Fingerprint(vec![Sha256Fingerprint::of(b"")]);
        let timeouts = Timeouts {
            connect: self.cluster.connect_timeout,
            request: self.cluster.request_timeout,
            ..Timeouts::default()
        };
        let retry = RetryPolicy { max_retries: 0, ..RetryPolicy::default() };
        let config = ClientConfig {
            timeouts,
            retry,
            ..ClientConfig::new(vec![self.endpoint.clone()], nobody, refuse)
        };
        match PveClient::new(config)?.version().await {
            Err(error) => match error.kind() {
                ErrorKind::Tls { presented: Some(presented), .. } => Ok(Some(*presented)),
                _ => Err(error),
            },
            Ok(_) => Ok(None),
        }
    }

    fn unusable(&mut self, failure: &Failure) {
        self.found.fail_as_told(TLS, failure.exit(), failure.error());
        self.skip(&[API, AUTHENTICATION], "the cluster's settings can't be used");
    }

    /// Sorts a first question that failed.
    fn refused(&mut self, error: &Unanswered, presented: Option<Sha256Fingerprint>) {
        match error {
            Unanswered::Api(api) if api.is_tls() => {
                let mend = self.mend_trust(api, presented);
                self.found.fail(TLS, Exit::Unreachable, chain(api), mend);
                self.skip(&[API, AUTHENTICATION], "its certificate is not trusted");
            }
            Unanswered::Api(api) if api.is_tfa() => {
                self.tls(presented);
                self.found.ok(API, "it is a Proxmox VE");
                let mend =
                    format!("{}; then set `token_id` and `token_secret_file`", self.account.other_token());
                self.found.fail(AUTHENTICATION, Exit::Auth, chain(api), mend);
                self.skip(&[], "not let in");
            }
            Unanswered::Api(api) if api.is_unauthorized() || api.is_forbidden() => {
                self.tls(presented);
                self.found.ok(API, "it is a Proxmox VE");
                self.found.fail(AUTHENTICATION, Exit::Auth, chain(api), self.account.mend_credentials());
                self.skip(&[], "not let in");
            }
            other => {
                self.tls(presented);
                let mend = "is the endpoint a node of the cluster (https://HOST:8006), and are its services running? On the node: \
                            systemctl status pveproxy pvedaemon";
                self.found.fail(API, other.exit(), other.to_string(), mend);
                self.skip(&[AUTHENTICATION], "it does not answer as a Proxmox VE");
            }
        }
    }

    fn mend_trust(&self, error: &ApiError, presented: Option<Sha256Fingerprint>) -> String {
        use rustls::CertificateError::{
            Expired, ExpiredContext, NotValidForName, NotValidForNameContext, NotValidYet, NotValidYetContext,
        };
        let cause = match error.kind() {
            ErrorKind::Tls { source: Some(rustls::Error::InvalidCertificate(cause)), .. } => Some(cause),
            _ => None,
        };
        match (&self.cluster.trust, cause) {
            (Trust::Fingerprint(_), _) if self.cluster.endpoints.len() > 1 => {
                "every node has a certificate of its own: use `ca_file` (the cluster's /etc/pve/pve-root-ca.pem) instead of \
                 `fingerprint`"
                    .to_owned()
            }
            (Trust::Fingerprint(_), _) => {
                let pin = pin(presented);
                let pin = pin.trim_start_matches(", or ");
                format!("if it was renewed on purpose, {pin}; else somebody is in between")
            }
            (_, Some(NotValidForName | NotValidForNameContext { .. })) => {
                format!("in `endpoints`, use a name or address that the certificate carries{}", pin(presented))
            }
            (_, Some(Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. })) => {
                "set this machine's clock right, or renew the certificate on the node: pvecm updatecerts -f".to_owned()
            }
            _ => {
                format!("copy the cluster's /etc/pve/pve-root-ca.pem here and name it as `ca_file`{}", pin(presented))
            }
        }
    }

    fn tls(&mut self, presented: Option<Sha256Fingerprint>) {
        let shown = presented.map_or_else(|| "unknown".to_owned(), |print| print.to_string());
        let by = match &self.cluster.trust {
            Trust::SystemRoots => "one of the system's authorities signed it".to_owned(),
            Trust::CaFile(path) => format!("signed by an authority in {}", path.display()),
            Trust::Fingerprint(_) => "it is the pinned one".to_owned(),
            Trust::Insecure => {
                let detail = format!(
                    "`insecure` trusts anybody: whoever is in between reads the secret; the certificate presented is {shown}"
                );
                let mend = format!(
                    "instead of `insecure`, copy the cluster's /etc/pve/pve-root-ca.pem here and name it as `ca_file`{}",
                    pin(presented)
                );
                self.found.warn(TLS, detail, mend);
                return;
            }
        };
        self.found.ok(TLS, format!("{by}; {shown}"));
    }

    fn version(&mut self, version: &str) {
        let major = version.split(['.', '-']).next().and_then(|major| major.parse::<u32>().ok());
        match major {
            Some(major) if major >= OLDEST_VERSION => self.found.ok(API, format!("Proxmox VE {version}")),
            Some(_) => {
                let detail = format!(
                    "Proxmox VE {version} is older than {OLDEST_VERSION}: parts may not be understood"
                );
                self.found.warn(API, detail, "update the cluster");
            }
            None => {
                let detail = format!("the version {version:?} is not known: parts may not be understood");
                self.found.warn(API, detail, "is the endpoint a node of the cluster (https://HOST:8006)?");
            }
        }
    }

    async fn clock(&mut self, client: &PveClient, limit: Duration, node: &str) {
        let before = now();
        let time = match ask(limit, client.node_time(node)).await {
            Ok(time) => i64::try_from(time.time).unwrap_or(i64::MAX),
            Err(error) if error.is_forbidden() => {
                self.found.skip(&[CLOCK], "it takes Sys.Audit on /nodes to ask");
                return;
            }
            Err(error) => {
                self.found.warn(CLOCK, error.to_string(), "look at that node");
                return;
            }
        };
        // The node told its time at some moment between the two.
        let ahead = if time < before { time - before } else { (time - now()).max(0) };
        let apart = ahead.abs();
        if apart <= CLOCK_WARNING {
            self.found.ok(CLOCK, format!("{node} and this machine agree within {CLOCK_WARNING} s"));
            return;
        }
        let side = if ahead > 0 { "ahead of" } else { "behind" };
        let detail = format!("the clock of {node} is {apart} s {side} this machine's");
        let mend = "let both follow a time server: `timedatectl` here, `chronyc tracking` on the node";
        if apart > CLOCK_FAILURE {
            let detail = format!(
                "{detail}: if it is this machine's that is wrong, syncs of several hosts may write side by side"
            );
            self.found.fail(CLOCK, Exit::Failed, detail, mend);
        } else {
            self.found.warn(CLOCK, detail, mend);
        }
    }

    /// Checks the certificate's date, and gives the fingerprint of the cluster's authority.
    async fn certificates(&mut self, client: &PveClient, limit: Duration, node: &str) -> Option<String> {
        let list = match ask(limit, client.certificates(node)).await {
            Ok(list) => list,
            Err(error) => {
                self.found.warn(CERTIFICATE, error.to_string(), "look at that node");
                return None;
            }
        };
        let of = |name: &str| list.iter().find(|certificate| certificate.filename == name);
        match SHOWN.iter().find_map(|name| of(name)) {
            Some(shown) => self.expiry(node, shown),
            None => self.found.skip(&[CERTIFICATE], "the node names none"),
        }
        of(AUTHORITY)?.fingerprint.clone()
    }

    fn expiry(&mut self, node: &str, Certificate { filename, notafter, .. }: &Certificate) {
        let Some(end) = *notafter else {
            self.found.skip(&[CERTIFICATE], "the node does not tell how long it is valid");
            return;
        };
        let at = jiff::Timestamp::from_second(end).map_or_else(|_| "?".to_owned(), |at| at.to_string());
        let left = end.saturating_sub(now());
        if left > CERTIFICATE_WARNING {
            self.found.ok(CERTIFICATE, format!("{filename} of {node} is valid until {at}"));
            return;
        }
        let verb = if left > 0 { "ends" } else { "ended" };
        let renew = if filename.starts_with("pveproxy") {
            format!("renew it on {node} (`pvenode acme cert renew`, or `pvenode cert set` with a new one)")
        } else {
            format!("renew it on {node}: pvecm updatecerts -f")
        };
        let pin =
            if matches!(self.cluster.trust, Trust::Fingerprint(_)) { "; then pin the new one" } else { "" };
        self.found.warn(CERTIFICATE, format!("{filename} of {node} {verb} at {at}"), format!("{renew}{pin}"));
    }
}

/// How to pin a certificate, where one was presented.
fn pin(presented: Option<Sha256Fingerprint>) -> String {
    presented.map_or_else(String::new, |print| {
        format!(", or set fingerprint = \"{print}\" after comparing it with `pvenode cert info` on the node")
    })
}

/// The node that answers: as the cluster's status has it, or by its certificate. Else any that is there, through which the same
/// authority is told.
fn which(
    status: &Result<Vec<ClusterStatusRow>, Unanswered>,
    nodes: &Result<Vec<NodeRow>, Unanswered>,
    presented: Option<Sha256Fingerprint>,
) -> Option<String> {
    let members = status.iter().flat_map(|rows| build::members(rows));
    if let Some(member) = members.into_iter().find(|member| member.local == Some(true)) {
        return Some(member.name.clone());
    }
    let nodes = || nodes.iter().flatten();
    let shown = presented.map(|print| print.to_string());
    let same = nodes().find(|node| shown.is_some() && node.ssl_fingerprint == shown);
    let online =
        || nodes().filter(|node| node.status.as_deref() != Some("offline")).min_by_key(|node| &node.node);
    same.or_else(online).map(|node| node.node.clone())
}
