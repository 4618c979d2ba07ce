//! The configuration: built-in defaults, then a TOML file, then `PVEGRAPH__…` variables, then flags.
//!
//! # Guarantees
//! - A key or variable that nobody knows is refused, with its place and the nearest known name.
//! - Every setting knows where its value comes from.
//! - No secret is part of a setting, of an error or of what `config show` prints.

mod check;
mod keys;
mod layers;

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use config::{Config, Value};
use jiff::SignedDuration;
use secrecy::SecretString;
use serde::{Deserialize, Deserializer};
use serde_json::json;
use url::Url;

use crate::secret::{EnvSecret, Secret, SecretError};
use keys::{Kind, Section};

/// Starts a store's URI that is a local file.
pub const EMBEDDED: &str = "embedded:";

/// The files that are tried in this order when none is named.
const DEFAULT_FILES: [&str; 2] = ["pvegraph.toml", "/etc/pvegraph/pvegraph.toml"];

/// Names the file when `--config` does not.
const FILE_VARIABLE: &str = "PVEGRAPH_CONFIG";

/// What is wrong in one place of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    origin: String,
    message: String,
}

impl Problem {
    fn new(origin: impl Into<String>, message: String) -> Self {
        Self { origin: origin.into(), message }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.origin, self.message)
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("the configuration file {} (from {named_by}) can't be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What named it.
        named_by: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// Its content is refused.
    #[error("the configuration is not valid{}", list(problems))]
    Invalid {
        /// All that is wrong.
        problems: Vec<Problem>,
    },
    /// A command needs a cluster and there is none.
    #[error(
        "no cluster is configured: add a [[clusters]] section to {} (config.example.toml shows one), or set \
         PVEGRAPH__CLUSTERS__0__ENDPOINTS and its credentials",
        file.as_ref().map_or("a configuration file".into(), |file| file.display().to_string())
    )]
    NoClusters {
        /// The file that was read, if any.
        file: Option<PathBuf>,
    },
    /// A cluster was asked for that is not there.
    #[error(
        "there is no cluster named {name:?} in the configuration; there {known} (only one that has a `name` there can be chosen)"
    )]
    UnknownCluster {
        /// What was asked for.
        name: String,
        /// `is …` or `are …`.
        known: String,
    },
    /// The program's table of keys and its settings disagree.
    #[error("the settings could not be put together")]
    Settings(#[from] config::ConfigError),
}

fn list(problems: &[Problem]) -> String {
    match problems {
        [one] => format!(": {one}"),
        many => many.iter().map(|problem| format!("\n  {problem}")).collect(),
    }
}

/// Where the graph is.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreSettings {
    /// `bolt://…`, `neo4j://…` (with `+s` for TLS), or `embedded:PATH`. Never with credentials.
    pub uri: String,
    /// The user for Neo4j.
    pub user: String,
    password_file: Option<PathBuf>,
    /// The database; without one, the server's default.
    pub database: Option<String>,
    /// The most connections that are open at once.
    pub max_connections: u32,
    /// How long connecting may take.
    #[serde(deserialize_with = "duration")]
    pub connect_timeout: Duration,
    /// How long one call may take.
    #[serde(deserialize_with = "duration")]
    pub request_timeout: Duration,
}

impl StoreSettings {
    /// The file of an embedded store, or `None` for a server.
    pub fn embedded_path(&self) -> Option<&Path> {
        self.uri.strip_prefix(EMBEDDED).map(Path::new)
    }
}

/// How a run behaves.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SyncSettings {
    /// What a run with an offline node is.
    pub offline_nodes: OfflineNodes,
    /// The largest share (0–100 %) of a cluster's label that one run may delete.
    pub max_delete_percent: u8,
    /// From how many objects of a label on that share is watched.
    pub guard_from: u64,
    /// For how many days changes are kept.
    pub history_days: u32,
}

/// What changing clusters needs.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApplySettings {
    directory: Option<PathBuf>,
    audit_key_file: Option<PathBuf>,
    /// How old the last whole sync may be where policies are asked.
    #[serde(deserialize_with = "duration")]
    pub max_inventory_age: Duration,
}

impl ApplySettings {
    /// Where journals and audit logs are: the one that is set, else the service's or the user's directory for state.
    pub fn directory(&self) -> Option<PathBuf> {
        let variable = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let own = || variable("XDG_STATE_HOME").or_else(|| Some(variable("HOME")?.join(".local/state")));
        // systemd makes and names a service's own one.
        let found = self.directory.clone().or_else(|| variable("STATE_DIRECTORY"));
        found.or_else(|| Some(own()?.join("pvegraph")))
    }
}

/// What a run is in which a node was offline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OfflineNodes {
    /// A success.
    Ok,
    /// Partial.
    Partial,
}

/// One Proxmox VE cluster or standalone node.
#[derive(Debug, Clone)]
pub struct ClusterSettings {
    /// Its position in the configuration, from 0.
    pub index: usize,
    /// The name that the user gave it.
    pub name: Option<String>,
    /// Its API, one or more nodes of the same cluster. HTTPS, without path or credentials.
    pub endpoints: Vec<Url>,
    /// Who we are there.
    pub login: Login,
    /// Why its certificate is trusted.
    pub trust: Trust,
    /// The most requests in flight to the cluster.
    pub concurrency: usize,
    /// The most requests in flight about one node.
    pub per_node_concurrency: usize,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// How long one request may take.
    pub request_timeout: Duration,
    /// How long the crawl of the cluster may take.
    pub run_timeout: Duration,
    /// Guests that no plan takes down: the graph or this program needs them.
    pub keep_up: BTreeSet<i64>,
}

/// How we log in at a cluster; its secret is read by [`Settings::cluster_secret`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Login {
    /// An API token, `USER@REALM!TOKEN`.
    Token {
        /// Its id.
        id: String,
        /// The file with its secret.
        secret_file: Option<PathBuf>,
    },
    /// A user, `USER@REALM`, with a password.
    Password {
        /// Its name.
        username: String,
        /// The file with the password.
        password_file: Option<PathBuf>,
    },
}

/// Why a cluster's certificate is trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// The system's certificate authorities.
    SystemRoots,
    /// The authorities in this PEM file.
    CaFile(PathBuf),
    /// The certificates with these SHA-256, written `AA:BB:…`, with commas between them.
    Fingerprint(String),
    /// It is not checked at all.
    Insecure,
}

impl ClusterSettings {
    /// What to call it in messages.
    pub fn label(&self) -> String {
        check::label(self.index, self.name.as_deref())
    }
}

/// One line of `config show`.
#[derive(Debug, Clone, PartialEq)]
pub struct Shown {
    /// The setting's full name.
    pub name: String,
    /// Its value, null where it is not set. Never a secret.
    pub value: serde_json::Value,
    /// Where it comes from: `default`, `PATH:LINE`, `env VARIABLE` or `flag --NAME`.
    pub origin: String,
}

/// The effective configuration.
#[derive(Debug)]
pub struct Settings {
    /// The file that was read, if any.
    pub file: Option<PathBuf>,
    /// Where the graph is.
    pub store: StoreSettings,
    /// The clusters, at least none.
    pub clusters: Vec<ClusterSettings>,
    /// How a run behaves.
    pub sync: SyncSettings,
    /// What changing clusters needs.
    pub apply: ApplySettings,
    secrets: BTreeMap<String, EnvSecret>,
    shown: Vec<Shown>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    store: StoreSettings,
    #[serde(default)]
    clusters: Vec<RawCluster>,
    sync: SyncSettings,
    apply: ApplySettings,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCluster {
    name: Option<String>,
    #[serde(default)]
    endpoints: Vec<String>,
    token_id: Option<String>,
    token_secret_file: Option<PathBuf>,
    username: Option<String>,
    password_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
    fingerprint: Option<String>,
    insecure: bool,
    concurrency: usize,
    per_node_concurrency: usize,
    #[serde(deserialize_with = "duration")]
    connect_timeout: Duration,
    #[serde(deserialize_with = "duration")]
    request_timeout: Duration,
    #[serde(deserialize_with = "duration")]
    run_timeout: Duration,
    #[serde(default)]
    keep_up: Vec<String>,
}

impl Settings {
    /// Reads the configuration. `file` and `store` are the flags `--config` and `--store`.
    ///
    /// # Errors
    /// A file that can't be read, or everything that is wrong in the file, the environment and the flags at once.
    pub fn load(file: Option<&Path>, store: Option<&str>) -> Result<Self, ConfigError> {
        let mut problems = Vec::new();
        let found = find(file)?;
        let from_file = match &found {
            Some((path, text)) => {
                tracing::debug!(file = %path.display(), "configuration file");
                let layer = layers::file(path, text, &mut problems);
                layer.map_err(|problem| ConfigError::Invalid { problems: vec![problem] })?
            }
            None => layers::Layer::default(),
        };
        let variables = layers::process_environment();
        let from_env = layers::environment(variables, from_file.clusters, &mut problems);
        if !problems.is_empty() {
            return Err(ConfigError::Invalid { problems });
        }

        let clusters = from_file.clusters.max(from_env.clusters);
        let defaults = layers::defaults(clusters);
        let defaults = defaults.map_err(|problem| ConfigError::Invalid { problems: vec![problem] })?;
        let secrets = from_env.secrets.clone();
        let merged = Config::builder()
            .add_source(defaults)
            .add_source(from_file)
            .add_source(from_env)
            .add_source(layers::flags(store))
            .build()?;

        let mut shown = effective(&merged, clusters, &secrets);
        let Raw { store, clusters, sync, apply } = merged.try_deserialize()?;
        let origins = check::Origins::new(&shown);
        check::store(&store, &origins, &mut problems);
        let clusters = check::clusters(clusters, &origins, &mut problems);
        if !problems.is_empty() {
            return Err(ConfigError::Invalid { problems });
        }
        // Shown as it is used, which for a fingerprint is not as it was written.
        for cluster in &clusters {
            if let Trust::Fingerprint(fingerprint) = &cluster.trust {
                let name = layers::setting(Section::Clusters, cluster.index, "fingerprint");
                shown
                    .iter_mut()
                    .filter(|row| row.name == name)
                    .for_each(|row| row.value = json!(fingerprint));
            }
        }
        let file = found.map(|(path, _)| path);
        Ok(Self { file, store, clusters, sync, apply, secrets, shown })
    }

    /// Every setting with its value and origin, in the order of the example file.
    pub fn shown(&self) -> &[Shown] {
        &self.shown
    }

    /// The clusters to work on: all, or the one of that name.
    ///
    /// # Errors
    /// There are none, or none of that name.
    pub fn selected(&self, name: Option<&str>) -> Result<Vec<&ClusterSettings>, ConfigError> {
        if self.clusters.is_empty() {
            return Err(ConfigError::NoClusters { file: self.file.clone() });
        }
        let Some(name) = name else { return Ok(self.clusters.iter().collect()) };
        let found: Vec<_> =
            self.clusters.iter().filter(|cluster| cluster.name.as_deref() == Some(name)).collect();
        if found.is_empty() {
            let names: Vec<String> = self.clusters.iter().map(ClusterSettings::label).collect();
            let verb = if names.len() == 1 { "is" } else { "are" };
            let known = format!("{verb} {}", names.join(", "));
            return Err(ConfigError::UnknownCluster { name: name.to_owned(), known });
        }
        Ok(found)
    }

    /// The same, where any name may mean the only cluster if that has none: whoever asks it compares what it calls itself.
    ///
    /// # Errors
    /// Likewise.
    pub fn meant(&self, name: Option<&str>) -> Result<Vec<&ClusterSettings>, ConfigError> {
        match self.clusters.as_slice() {
            [only] if only.name.is_none() => Ok(vec![only]),
            _ => self.selected(name),
        }
    }

    /// The guests that no plan for a cluster takes down. `cluster`: the name that was given.
    ///
    /// # Errors
    /// There is no such cluster.
    pub fn keep_up(&self, cluster: Option<&str>) -> Result<BTreeSet<i64>, ConfigError> {
        Ok(self.meant(cluster)?.iter().flat_map(|cluster| cluster.keep_up.iter().copied()).collect())
    }

    /// The store's password, if one is given anywhere.
    ///
    /// # Errors
    /// The file that should hold it can't be used.
    pub fn store_password(&self) -> Result<Option<SecretString>, SecretError> {
        Secret {
            what: "the password of the graph store".into(),
            setting: "store.password_file".into(),
            file: self.store.password_file.as_deref(),
            credential: "store.password".into(),
            env: self.secrets.get("store.password"),
            variable: layers::variable(Section::Store, 0, "password"),
        }
        .read()
    }

    /// The key of the audit log's HMACs, if one is given anywhere.
    ///
    /// # Errors
    /// The file that should hold it can't be used.
    pub fn audit_key(&self) -> Result<Option<SecretString>, SecretError> {
        Secret {
            what: "the key of the audit log".into(),
            setting: "apply.audit_key_file".into(),
            file: self.apply.audit_key_file.as_deref(),
            credential: "apply.audit_key".into(),
            env: self.secrets.get("apply.audit_key"),
            variable: layers::variable(Section::Apply, 0, "audit_key"),
        }
        .read()
    }

    /// The secret of a cluster's token or user.
    ///
    /// # Errors
    /// It is given nowhere, or the file that should hold it can't be used.
    pub fn cluster_secret(&self, cluster: &ClusterSettings) -> Result<SecretString, SecretError> {
        let (key, suffix, file, of) = match &cluster.login {
            Login::Token { id, secret_file } => ("token_secret", "token", secret_file, format!("token {id}")),
            Login::Password { username, password_file } => {
                ("password", "password", password_file, format!("user {username}"))
            }
        };
        let owner = cluster.name.clone().unwrap_or_else(|| format!("clusters.{}", cluster.index));
        let secret = Secret {
            what: format!("the secret of {of} at {}", cluster.label()),
            setting: layers::setting(Section::Clusters, cluster.index, &format!("{key}_file")),
            file: file.as_deref(),
            credential: format!("{owner}.{suffix}"),
            env: self.secrets.get(&layers::setting(Section::Clusters, cluster.index, key)),
            variable: layers::variable(Section::Clusters, cluster.index, key),
        };
        secret.read()?.ok_or_else(|| secret.missing())
    }
}

/// The file that applies, with its text.
fn find(named: Option<&Path>) -> Result<Option<(PathBuf, String)>, ConfigError> {
    let variable = env::var_os(FILE_VARIABLE).filter(|value| !value.is_empty()).map(PathBuf::from);
    let (path, named_by) = match (named, variable) {
        (Some(path), _) => (path.to_owned(), "--config"),
        (None, Some(path)) => (path, FILE_VARIABLE),
        (None, None) => {
            for path in DEFAULT_FILES {
                match read(Path::new(path)) {
                    Ok(found) => return Ok(Some(found)),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(source) => {
                        return Err(ConfigError::Read {
                            path: path.into(),
                            named_by: "the default places",
                            source,
                        });
                    }
                }
            }
            return Ok(None);
        }
    };
    read(&path).map(Some).map_err(|source| ConfigError::Read { path, named_by, source })
}

fn read(path: &Path) -> io::Result<(PathBuf, String)> {
    // Absolute, so that an origin means something wherever it is read.
    Ok((std::path::absolute(path)?, fs::read_to_string(path)?))
}

fn effective(merged: &Config, clusters: usize, secrets: &BTreeMap<String, EnvSecret>) -> Vec<Shown> {
    let mut rows = Vec::new();
    for section in Section::ALL {
        let count = if section == Section::Clusters { clusters } else { 1 };
        for index in 0..count {
            for key in section.keys() {
                let name = layers::setting(section, index, key.name);
                if key.kind == Kind::Secret {
                    if let Some(secret) = secrets.get(&name) {
                        let origin = format!("env {}", secret.variable);
                        rows.push(Shown { name, value: json!("(hidden)"), origin });
                    }
                    continue;
                }
                let value = merged.get::<Value>(&name).ok();
                let origin = origin_of(merged, section, index, key.name).unwrap_or("default").to_owned();
                rows.push(Shown { name, value: value.map_or(serde_json::Value::Null, to_json), origin });
            }
        }
    }
    rows
}

/// The origin that a value carries; `Config::get` would drop it.
fn origin_of<'a>(merged: &'a Config, section: Section, index: usize, key: &str) -> Option<&'a str> {
    let table = |value: &'a Value, name: &str| match &value.kind {
        config::ValueKind::Table(map) => map.get(name),
        _ => None,
    };
    let mut found = table(&merged.cache, section.name())?;
    if let config::ValueKind::Array(items) = &found.kind {
        found = items.get(index)?;
    }
    table(found, key)?.origin()
}

fn to_json(value: Value) -> serde_json::Value {
    match value.kind {
        config::ValueKind::Boolean(flag) => json!(flag),
        config::ValueKind::I64(number) => json!(number),
        config::ValueKind::String(text) => json!(text),
        config::ValueKind::Array(items) => items.into_iter().map(to_json).collect(),
        _ => serde_json::Value::Null,
    }
}

fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(from)?;
    let signed: SignedDuration = text.parse().map_err(serde::de::Error::custom)?;
    Duration::try_from(signed).map_err(serde::de::Error::custom)
}
