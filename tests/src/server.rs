//! The shared server, servers of a test's own, and how either is come by.

use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::ops::Deref;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::{sleep, timeout};

use crate::container::{self, Container};
use crate::jars::{self, Serve};

/// The only user of a fresh Community server.
pub(crate) const USER: &str = "neo4j";

/// A start takes about 6 s on two idle cores, and several times that while something is compiled beside it.
const START_LIMIT: Duration = Duration::from_secs(240);

/// Where a server came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// Named by `PVEGRAPH_TEST_NEO4J_URI`.
    Provided,
    /// A container that the test process made.
    Container,
    /// The Community server from Maven's jars, as a child of the test process.
    Jars,
}

/// A Neo4j server and how to log in to it. A changed copy makes a wrong login.
#[derive(Clone)]
pub struct Neo4jServer {
    /// `bolt://HOST:PORT`; the same after a restart.
    pub bolt_uri: String,
    /// The user's name.
    pub user: String,
    /// The user's password.
    pub password: String,
    /// Where the server came from.
    pub how: How,
}

impl fmt::Debug for Neo4jServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bolt_uri, user, password: _, how } = self;
        f.debug_struct("Neo4jServer")
            .field("bolt_uri", bolt_uri)
            .field("user", user)
            .field("how", how)
            .finish_non_exhaustive()
    }
}

/// How the Java machine of a server from the jars runs; a container has the image's own flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Jvm {
    /// The quick compiler alone.
    Quick,
    /// As Neo4j's own launcher runs it.
    Server,
}

impl Jvm {
    /// The word that `neo4j/serve` knows it by.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Quick => "quick",
            Self::Server => "server",
        }
    }
}

/// Settings of a server that a test starts for itself.
#[derive(Debug, Clone)]
pub struct Settings {
    heap: String,
    jvm: Jvm,
    more: Vec<(String, String)>,
}

impl Default for Settings {
    /// A heap of 512 MB and the rest as Neo4j has it.
    fn default() -> Self {
        Self { heap: "512m".to_owned(), jvm: Jvm::Quick, more: Vec::new() }
    }
}

impl Settings {
    /// The heap's size, such as `256m` or `2g`.
    #[must_use]
    pub fn heap(mut self, size: &str) -> Self {
        size.clone_into(&mut self.heap);
        self
    }

    /// One more setting by its name in `neo4j.conf`, such as `db.transaction.timeout`.
    #[must_use]
    pub fn set(mut self, key: &str, value: &str) -> Self {
        self.more.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Runs the Java machine with the flags of Neo4j's own launcher: for measurements. A start takes longer, and what runs
    /// for a while is several times as fast as with the quick compiler alone.
    #[must_use]
    pub fn server_jvm(mut self) -> Self {
        self.jvm = Jvm::Server;
        self
    }

    pub(crate) fn jvm(&self) -> Jvm {
        self.jvm
    }

    pub(crate) fn heap_size(&self) -> &str {
        &self.heap
    }

    /// Everything for `neo4j.conf` but addresses. A later line replaces an earlier one.
    pub(crate) fn all(&self) -> Vec<(String, String)> {
        let defaults = [
            ("server.memory.heap.max_size", self.heap.as_str()),
            ("server.memory.pagecache.size", "64m"),
            // two logs of 256 MB each otherwise, on what is often a file system in memory
            ("db.tx_log.preallocate", "false"),
            ("server.http.enabled", "false"),
            // tests of wrong passwords must not lock the others out
            ("dbms.security.auth_max_failed_attempts", "0"),
            ("dbms.usage_report.enabled", "false"),
            ("client.allow_telemetry", "false"),
            // a clean stop takes 0.2 s instead of 10
            ("internal.dbms.bolt.netty_server_shutdown_quiet_period", "0"),
        ];
        let mut all: Vec<(String, String)> = Vec::new();
        for (key, value) in defaults {
            if !self.more.iter().any(|(k, _)| k == key) {
                all.push((key.to_owned(), value.to_owned()));
            }
        }
        all.extend(self.more.iter().cloned());
        all
    }
}

/// The one server that all tests of this process share, started at the first call. It ends with the process.
///
/// Blocks for the seconds of a start, also inside async code. Its only database is everybody's: see [`fresh`].
///
/// # Panics
/// Where no server can be had; the message says what to install.
pub fn neo4j() -> &'static Neo4jServer {
    // never dropped: the pipe of the keeper closes with the process
    static SHARED: OnceLock<Result<(Neo4jServer, Option<Keeper>), String>> = OnceLock::new();
    let shared = SHARED.get_or_init(|| {
        // a thread with a runtime of its own: the caller's ends with the caller's test
        let start = std::thread::spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|e| format!("no runtime: {e}"))?;
            runtime.block_on(async {
                if let Some(server) = provided(|name| std::env::var(name).ok())? {
                    check_provided(&server).await?;
                    return Ok((server, None));
                }
                let (server, keeper) = start(&Settings::default()).await?;
                Ok((server, Some(keeper)))
            })
        });
        start.join().unwrap_or_else(|_| Err("the start panicked".to_owned()))
    });
    match shared {
        Ok((server, _)) => server,
        Err(e) => panic!("no Neo4j for the tests: {e}"),
    }
}

/// The shared server while nobody else uses it.
#[derive(Debug)]
pub struct Exclusive {
    server: &'static Neo4jServer,
    _lock: MutexGuard<'static, ()>,
}

impl Deref for Exclusive {
    type Target = Neo4jServer;

    fn deref(&self) -> &Neo4jServer {
        self.server
    }
}

/// Waits for the shared server to be free and keeps it until the guard is dropped. Community has one database, so
/// tests of one process take turns.
///
/// # Panics
/// As [`neo4j`].
pub async fn exclusive() -> Exclusive {
    static TURN: Mutex<()> = Mutex::const_new(());
    let lock = TURN.lock().await;
    Exclusive { server: neo4j(), _lock: lock }
}

/// May the shared server have a schema that the program under test does not make? So it may until it was wiped, and after a test
/// that took it wiped, which may have made any.
static ODD_SCHEMA: AtomicBool = AtomicBool::new(true);

/// [`exclusive`], without data. What the program's migrations made before may still be there: to make it takes several seconds, and they
/// take it as it is. For tests whose schema is the program's own; any other takes [`fresh`].
///
/// # Panics
/// As [`neo4j`], and when the server refuses.
pub async fn emptied() -> Exclusive {
    let server = exclusive().await;
    if ODD_SCHEMA.load(Ordering::Relaxed) {
        server.wipe().await;
        ODD_SCHEMA.store(false, Ordering::Relaxed);
    } else {
        server.delete_all().await;
    }
    server
}

/// [`exclusive`], wiped: neither data nor schema.
///
/// # Panics
/// As [`neo4j`], and when the wipe fails.
pub async fn fresh() -> Exclusive {
    let server = exclusive().await;
    ODD_SCHEMA.store(true, Ordering::Relaxed);
    server.wipe().await;
    server
}

/// A server that one test has to itself. It ends when dropped, or with the process.
#[derive(Debug)]
pub struct OwnedServer {
    server: Neo4jServer,
    keeper: Keeper,
}

impl Deref for OwnedServer {
    type Target = Neo4jServer;

    fn deref(&self) -> &Neo4jServer {
        &self.server
    }
}

impl Neo4jServer {
    /// Starts a server for one test; `PVEGRAPH_TEST_NEO4J_URI` plays no part.
    ///
    /// # Panics
    /// Where none can be had; the message says what to install.
    pub async fn start_own(settings: Settings) -> OwnedServer {
        match start(&settings).await {
            Ok((server, keeper)) => OwnedServer { server, keeper },
            Err(e) => panic!("no Neo4j of its own for this test: {e}"),
        }
    }
}

impl OwnedServer {
    /// Ends the server cleanly and keeps its data. Blocks until it has ended.
    ///
    /// # Panics
    /// When it does not end.
    pub fn stop(&mut self) {
        self.keeper.stop().unwrap_or_else(|e| panic!("stop: {e}"));
    }

    /// Kills the server as a power cut would and keeps its data. Blocks until it has ended.
    ///
    /// # Panics
    /// When it does not end.
    pub fn kill(&mut self) {
        self.keeper.kill().unwrap_or_else(|e| panic!("kill: {e}"));
    }

    /// Starts a stopped or killed server on its data and its port, and waits until it answers.
    ///
    /// # Panics
    /// When it does not.
    pub async fn start(&mut self) {
        let started = match self.keeper.start() {
            Ok(()) => until_it_answers(&self.server, &mut self.keeper).await,
            Err(e) => Err(e),
        };
        started.unwrap_or_else(|e| panic!("start: {e}"));
    }

    /// Gives a running server a setting, from its next start on, that is none of those it was started with.
    ///
    /// # Panics
    /// When its file can't be written.
    pub fn configure(&self, key: &str, value: &str) {
        let written = match &self.keeper {
            Keeper::Container(c) => c.configure(key, value),
            Keeper::Jars(s) => s.configure(key, value),
        };
        written.unwrap_or_else(|e| panic!("configure {key}={value}: {e}"));
    }

    /// [`stop`](Self::stop), then [`start`](Self::start).
    ///
    /// # Panics
    /// As those.
    pub async fn restart(&mut self) {
        self.stop();
        self.start().await;
    }
}

/// What holds a server that this process started.
#[derive(Debug)]
enum Keeper {
    Container(Container),
    Jars(Serve),
}

impl Keeper {
    fn start(&mut self) -> Result<(), String> {
        match self {
            Self::Container(c) => c.start(),
            Self::Jars(s) => s.start(),
        }
    }

    fn stop(&mut self) -> Result<(), String> {
        match self {
            Self::Container(c) => c.stop(),
            Self::Jars(s) => s.stop(),
        }
    }

    fn kill(&mut self) -> Result<(), String> {
        match self {
            Self::Container(c) => c.kill(),
            Self::Jars(s) => s.kill(),
        }
    }

    fn alive(&mut self) -> bool {
        match self {
            Self::Container(c) => c.alive(),
            Self::Jars(s) => s.alive(),
        }
    }

    fn log(&self) -> String {
        match self {
            Self::Container(c) => c.log(),
            Self::Jars(s) => s.log(),
        }
    }
}

/// Which of the two ways to start a server are tried.
#[derive(Debug, PartialEq)]
enum Wanted {
    ContainerThenJars,
    Container,
    Jars,
}

fn wanted(forced: Option<&str>) -> Result<Wanted, String> {
    match forced {
        None | Some("") => Ok(Wanted::ContainerThenJars),
        Some("container") => Ok(Wanted::Container),
        Some("jars") => Ok(Wanted::Jars),
        Some(other) => Err(format!("PVEGRAPH_TEST_NEO4J={other}: it is `container` or `jars`")),
    }
}

/// Starts a server in the first way that works, and waits until it answers.
async fn start(settings: &Settings) -> Result<(Neo4jServer, Keeper), String> {
    let wanted = wanted(std::env::var("PVEGRAPH_TEST_NEO4J").ok().as_deref())?;
    let mut lacking = Vec::new();
    if wanted != Wanted::Jars {
        match in_container(settings).await {
            Ok(started) => return Ok(started),
            Err(e) => lacking.push(format!("container: {e}")),
        }
    }
    if wanted != Wanted::Container {
        match from_jars(settings).await {
            Ok(started) => return Ok(started),
            Err(e) => lacking.push(format!("Maven's jars: {e}")),
        }
    }
    Err(format!(
        "\n  {}\nAny one of these helps:\n  \
         - a JRE {} and Maven (on Debian: apt-get install openjdk-17-jre-headless maven)\n  \
         - a Docker engine, and: docker pull {}:{}\n  \
         - PVEGRAPH_TEST_NEO4J_URI=bolt://HOST:7687 and PVEGRAPH_TEST_NEO4J_PASSWORD of an empty Neo4j 5.26\n\
         See docs/testing.md.",
        lacking.join("\n  "),
        "17 or later",
        container::IMAGES[0].0,
        container::IMAGES[0].1,
    ))
}

async fn in_container(settings: &Settings) -> Result<(Neo4jServer, Keeper), String> {
    let (server, container) = Container::new(blocking(container::find).await?, settings).await?;
    let mut keeper = Keeper::Container(container);
    until_it_answers(&server, &mut keeper).await?;
    Ok((server, keeper))
}

async fn from_jars(settings: &Settings) -> Result<(Neo4jServer, Keeper), String> {
    let jars = blocking(jars::find).await?;
    let (server, serve) = Serve::new(&jars, settings)?;
    let mut keeper = Keeper::Jars(serve);
    until_it_answers(&server, &mut keeper).await?;
    Ok((server, keeper))
}

async fn blocking<T: Send + 'static>(
    find: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    tokio::task::spawn_blocking(find).await.unwrap_or_else(|e| Err(e.to_string()))
}

async fn until_it_answers(server: &Neo4jServer, keeper: &mut Keeper) -> Result<(), String> {
    let end = Instant::now() + START_LIMIT;
    loop {
        if !keeper.alive() {
            return Err(format!("the server ended while it started:\n{}", keeper.log()));
        }
        let last = match answers(server).await {
            Ok(()) => return Ok(()),
            Err(e) => e,
        };
        if Instant::now() > end {
            return Err(format!("no answer within {START_LIMIT:?} ({last}):\n{}", keeper.log()));
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// One question to the server, bounded: the driver waits long for what does not answer.
async fn answers(server: &Neo4jServer) -> Result<(), String> {
    // a closed port costs nothing to find out this way; the driver tries again for a minute
    let address = server.bolt_uri.split("://").nth(1).unwrap_or_default();
    timeout(Duration::from_secs(5), tokio::net::TcpStream::connect(address))
        .await
        .map_err(|_| format!("{address} does not answer"))?
        .map_err(|e| format!("{address}: {e}"))?;
    match timeout(Duration::from_secs(15), server.try_cypher("RETURN 1", Value::Null)).await {
        Ok(answer) => answer.map(drop).map_err(|e| e.to_string()),
        Err(_) => Err(format!("{address} takes connections and does not answer")),
    }
}

/// The server that the environment names, if any.
fn provided(env: impl Fn(&str) -> Option<String>) -> Result<Option<Neo4jServer>, String> {
    let var = |name: &str| env(name).filter(|value| !value.is_empty());
    let Some(bolt_uri) = var("PVEGRAPH_TEST_NEO4J_URI") else { return Ok(None) };
    let password = match (var("PVEGRAPH_TEST_NEO4J_PASSWORD"), var("PVEGRAPH_TEST_NEO4J_PASSWORD_FILE")) {
        (Some(password), _) => password,
        (None, Some(file)) => std::fs::read_to_string(Path::new(&file))
            .map_err(|e| format!("PVEGRAPH_TEST_NEO4J_PASSWORD_FILE={file}: {e}"))?
            .trim_end_matches(['\r', '\n'])
            .to_owned(),
        (None, None) => {
            return Err(format!(
                "PVEGRAPH_TEST_NEO4J_URI={bolt_uri} comes without PVEGRAPH_TEST_NEO4J_PASSWORD \
                 or PVEGRAPH_TEST_NEO4J_PASSWORD_FILE"
            ));
        }
    };
    let user = var("PVEGRAPH_TEST_NEO4J_USER").unwrap_or_else(|| USER.to_owned());
    Ok(Some(Neo4jServer { bolt_uri, user, password, how: How::Provided }))
}

/// Refuses a named server that holds data, since tests delete everything: it may be somebody's.
async fn check_provided(server: &Neo4jServer) -> Result<(), String> {
    let count = server.try_cypher("MATCH (n) RETURN count(n) AS nodes", Value::Null);
    let rows = timeout(Duration::from_secs(60), count)
        .await
        .map_err(|_| format!("{} does not answer", server.bolt_uri))?
        .map_err(|e| format!("{}: {e}", server.bolt_uri))?;
    let nodes = rows.first().and_then(|row| row["nodes"].as_i64()).unwrap_or(-1);
    if nodes == 0 || std::env::var("PVEGRAPH_TEST_NEO4J_WIPE").as_deref() == Ok("yes") {
        return Ok(());
    }
    Err(format!(
        "{} holds {nodes} nodes, and tests delete everything: name an empty server, or set \
         PVEGRAPH_TEST_NEO4J_WIPE=yes if they may go",
        server.bolt_uri
    ))
}

/// A number that other processes and other calls do not share.
pub(crate) fn random() -> u64 {
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}

pub(crate) fn password() -> String {
    format!("test-{:016x}", random())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env<'a>(pairs: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<String> + 'a {
        |name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
    }

    const URI: (&str, &str) = ("PVEGRAPH_TEST_NEO4J_URI", "bolt://192.0.2.7:7687");

    #[test]
    fn nothing_is_provided_by_default() {
        assert!(provided(env(&[])).unwrap().is_none());
        assert!(provided(env(&[("PVEGRAPH_TEST_NEO4J_URI", "")])).unwrap().is_none());
    }

    #[test]
    fn a_provided_server_needs_a_password() {
        let error = provided(env(&[URI])).unwrap_err();
        assert!(error.contains("PVEGRAPH_TEST_NEO4J_PASSWORD"), "{error}");

        let server = provided(env(&[URI, ("PVEGRAPH_TEST_NEO4J_PASSWORD", "pw")])).unwrap().unwrap();
        assert_eq!((server.user.as_str(), server.password.as_str()), ("neo4j", "pw"));
        assert_eq!(server.how, How::Provided);
        assert!(!format!("{server:?}").contains("pw"), "a password is never printed");
    }

    #[test]
    fn a_password_file_ends_at_its_line() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "a word \n").unwrap();
        let path = file.path().to_str().unwrap().to_owned();
        let pairs = [
            URI,
            ("PVEGRAPH_TEST_NEO4J_PASSWORD_FILE", path.as_str()),
            ("PVEGRAPH_TEST_NEO4J_USER", "tester"),
        ];
        let server = provided(env(&pairs)).unwrap().unwrap();
        assert_eq!((server.user.as_str(), server.password.as_str()), ("tester", "a word "));

        let absent = [URI, ("PVEGRAPH_TEST_NEO4J_PASSWORD_FILE", "/nonexistent/password")];
        let error = provided(env(&absent)).unwrap_err();
        assert!(error.contains("/nonexistent/password"), "{error}");
    }

    #[test]
    fn one_way_can_be_forced() {
        assert_eq!(wanted(None), Ok(Wanted::ContainerThenJars));
        assert_eq!(wanted(Some("")), Ok(Wanted::ContainerThenJars));
        assert_eq!(wanted(Some("jars")), Ok(Wanted::Jars));
        assert_eq!(wanted(Some("container")), Ok(Wanted::Container));
        assert!(wanted(Some("docker")).unwrap_err().contains("PVEGRAPH_TEST_NEO4J=docker"));
    }

    #[test]
    fn a_setting_replaces_the_default() {
        let all = Settings::default().heap("256m").set("server.http.enabled", "true").all();
        let of =
            |key: &str| all.iter().filter(|(k, _)| k == key).map(|(_, v)| v.as_str()).collect::<Vec<_>>();
        assert_eq!(of("server.memory.heap.max_size"), ["256m"]);
        assert_eq!(of("server.http.enabled"), ["true"]);
    }
}
