//! From settings to the things they name: the store, the clusters' clients, and the lock of this host.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use pve_client::{Auth, CaSource, ClientConfig, Concurrency, PveClient, Timeouts};
use pvegraph_graph::Store;
use pvegraph_graph::lease::Holder;
use pvegraph_graph::neo4j::{Neo4jConfig, Neo4jStore, StoreTimeouts, require_supported};
use pvegraph_sync::chain;
use secrecy::SecretString;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::config::{ClusterSettings, Login, Settings, Trust};
use crate::exit::{Exit, Failure};

/// What a command does with the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// It only reads.
    Read,
    /// It may write.
    Write,
}

/// Opens the store that the settings name. For a server: connects, and refuses one that is too old.
///
/// # Errors
/// It can't be reached, refuses the credentials, or can't be used.
pub async fn store(settings: &Settings, access: Access) -> Result<Box<dyn Store>, Failure> {
    let store = unchecked_store(settings, access).await?;
    let info = store.info().await?;
    if settings.store.embedded_path().is_none() {
        require_supported(&info, store.target())?;
    }
    Ok(store)
}

/// The same without asking the server anything.
///
/// # Errors
/// The settings can't be right, or the file can't be used.
pub async fn unchecked_store(settings: &Settings, access: Access) -> Result<Box<dyn Store>, Failure> {
    if let Some(path) = settings.store.embedded_path() {
        return embedded(path.to_owned(), access).await;
    }
    let password = settings.store_password()?.unwrap_or_else(|| SecretString::from(String::new()));
    let store = Neo4jStore::connect(Neo4jConfig {
        uri: settings.store.uri.clone(),
        user: settings.store.user.clone(),
        password,
        database: settings.store.database.clone(),
        max_connections: usize::try_from(settings.store.max_connections).unwrap_or(1),
        timeouts: StoreTimeouts {
            connect: settings.store.connect_timeout,
            statement: settings.store.request_timeout,
        },
    })
    .map_err(|error| Failure::new(Exit::Config, error))?;
    Ok(Box::new(store))
}

#[cfg(feature = "embedded")]
async fn embedded(path: PathBuf, access: Access) -> Result<Box<dyn Store>, Failure> {
    use pvegraph_embedded_store::{EmbeddedStore, Mode};
    let mode = match access {
        Access::Read => Mode::Read,
        Access::Write => Mode::Write,
    };
    let opened = tokio::task::spawn_blocking(move || EmbeddedStore::open(&path, mode));
    Ok(Box::new(opened.await.map_err(Failure::failed)??))
}

#[cfg(not(feature = "embedded"))]
async fn embedded(path: PathBuf, _: Access) -> Result<Box<dyn Store>, Failure> {
    let reason = "this program was built without the embedded store (feature `embedded`)".to_owned();
    let target = format!("{}{}", crate::config::EMBEDDED, path.display());
    Err(pvegraph_graph::StoreError::Unusable { target, reason }.into())
}

/// A store to compare with: the one that the settings name, for reading. In place of a file that a first sync has yet to make,
/// an empty graph in a temporary directory, which is given as well and must live as long.
///
/// # Errors
/// As [`store`].
pub async fn compared(settings: &Settings) -> Result<(Box<dyn Store>, Option<TempDir>), Failure> {
    match settings.store.embedded_path() {
        Some(path) if cfg!(feature = "embedded") && !path.try_exists().unwrap_or(true) => {
            let directory = TempDir::with_prefix("pvegraph-dry-run-")?;
            let store = embedded(directory.path().join("graph.kgl"), Access::Write).await?;
            Ok((store, Some(directory)))
        }
        _ => Ok((store(settings, Access::Read).await?, None)),
    }
}

/// The client of one cluster. Nothing is sent yet.
///
/// # Errors
/// A secret can't be read, or the settings can't be right.
pub fn client(settings: &Settings, cluster: &ClusterSettings) -> Result<PveClient, Failure> {
    let invalid = |error: String| Failure::new(Exit::Config, format!("{}: {error}", cluster.label()));
    let secret = settings.cluster_secret(cluster)?;
    let auth = match &cluster.login {
        Login::Token { id, .. } => {
            Auth::Token { id: id.parse().map_err(|e| invalid(format!("token_id: {e}")))?, secret }
        }
        Login::Password { username, .. } => Auth::Password { user: username.clone(), password: secret },
    };
    let trust = match &cluster.trust {
        Trust::SystemRoots => pve_client::Trust::System,
        Trust::CaFile(path) => pve_client::Trust::CaFile(CaSource::Path(path.clone())),
        Trust::Fingerprint(text) => {
            let all: Result<Vec<_>, _> = text.split(',').map(str::parse).collect();
            pve_client::Trust::Fingerprint(all.map_err(|e| invalid(format!("fingerprint: {e}")))?)
        }
        Trust::Insecure => pve_client::Trust::Insecure,
    };
    let config = ClientConfig {
        timeouts: Timeouts {
            connect: cluster.connect_timeout,
            request: cluster.request_timeout,
            run: Some(cluster.run_timeout),
            ..Timeouts::default()
        },
        concurrency: Concurrency { cluster: cluster.concurrency, per_node: cluster.per_node_concurrency },
        ..ClientConfig::new(cluster.endpoints.clone(), auth, trust)
    };
    PveClient::new(config).map_err(|error| {
        let text = chain(&error);
        match &cluster.trust {
            Trust::CaFile(path) if !text.contains(&path.display().to_string()) => {
                invalid(format!("ca_file {}: {text}", path.display()))
            }
            _ => invalid(text),
        }
    })
}

/// The lock of this host: at most one process of it writes to one store. Held until it is dropped.
///
/// The lease in the graph would be enough between hosts; this one is let go by the system when a process is killed, so that
/// the next run need not wait for the lease to expire.
pub struct HostLock {
    _file: File,
    id: String,
}

impl HostLock {
    /// Takes the lock for the store that the settings name.
    ///
    /// # Errors
    /// Another process of this host has it, or its file can't be made.
    pub fn take(settings: &Settings) -> Result<Self, Failure> {
        let target = &settings.store.uri;
        let path = directory().join(format!("pvegraph-{:.16}.lock", hex(&Sha256::digest(target.as_bytes()))));
        let mend = "set XDG_RUNTIME_DIR to a directory that you can write to";
        Self::at(&path, &format!("writing to {target}"), mend)
    }

    /// Takes the lock in this file. `doing` is what only one process does at a time; `mend` is for a file that can't be made.
    ///
    /// # Errors
    /// Likewise.
    pub fn at(path: &Path, doing: &str, mend: &str) -> Result<Self, Failure> {
        let failed = |what: &str, error: std::io::Error| {
            Failure::failed(format!("the lock file {} can't be {what}: {error}; {mend}", path.display()))
        };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        // In a directory that everybody may write to, a link could be somebody else's.
        options.custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed());
        let mut file = options.open(path).map_err(|error| failed("opened", error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let text = format!(
                    "another pvegraph on this host is {doing} (lock file {}); try again later",
                    path.display()
                );
                return Err(Failure::new(Exit::Locked, text));
            }
            Err(TryLockError::Error(error)) => return Err(failed("locked", error)),
        }
        let mut id = String::new();
        file.read_to_string(&mut id).map_err(|error| failed("read", error))?;
        if id.is_empty() {
            // A name that no other host's lock has, even where hosts share their name.
            id = format!("{:032x}", rand::random::<u128>());
            file.rewind()
                .and_then(|()| file.write_all(id.as_bytes()))
                .map_err(|error| failed("written", error))?;
        }
        Ok(Self { _file: file, id })
    }

    /// Who holds the lease of this process.
    pub fn holder(&self) -> Holder {
        let host =
            std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_else(|_| "a host".to_owned());
        let name = format!("{} process {} ({:08x})", host.trim(), std::process::id(), rand::random::<u32>());
        Holder { name, lock: Some(self.id.clone()) }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Where lock files go: the user's runtime directory, or root's; else the host's temporary one.
fn directory() -> PathBuf {
    let of_root = || rustix::process::getuid().is_root().then(|| PathBuf::from("/run"));
    std::env::var_os("XDG_RUNTIME_DIR")
        .map(PathBuf::from)
        .or_else(of_root)
        .filter(|path| rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_ok() && path.is_dir())
        .unwrap_or_else(std::env::temp_dir)
}

/// Runs a command's asynchronous part.
///
/// # Errors
/// Those of the work, or the system gives no threads.
pub fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Failure::failed)?.block_on(work)
}
