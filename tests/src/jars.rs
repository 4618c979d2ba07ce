//! The Community server from Maven's jars, kept by the script `neo4j/serve`.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use crate::process::run;
use crate::server::{How, Neo4jServer, Settings, USER};

/// The oldest Java that Neo4j 5.26 runs on.
const MIN_JAVA: u32 = 17;

/// A first resolution fetches 120 MB.
const MAVEN_LIMIT: Duration = Duration::from_secs(1200);

/// After this a server that was asked to stop is killed.
const STOP_LIMIT: Duration = Duration::from_secs(60);

const POM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/neo4j/pom.xml");
const SERVE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/neo4j/serve");

/// A Java and the folder of the server's jars.
#[derive(Debug)]
pub struct Jars {
    java: PathBuf,
    folder: PathBuf,
}

/// Finds Java and the jars, which Maven resolves once per pom into the user's cache.
///
/// # Errors
/// A sentence that says what is lacking.
pub fn find() -> Result<Jars, String> {
    let java = match std::env::var_os("JAVA_HOME").map(|home| Path::new(&home).join("bin/java")) {
        Some(java) if java.is_file() => java,
        _ => PathBuf::from("java"),
    };
    // it writes to standard error, which `run` leaves out
    let said =
        run(Command::new("sh").args(["-c", "exec \"$0\" -version 2>&1"]).arg(&java), Duration::from_secs(30))
            .map_err(|_| format!("Java {MIN_JAVA} or later is not installed"))?;
    match java_version(&said) {
        Some(version) if version >= MIN_JAVA => {}
        _ => return Err(format!("Java {MIN_JAVA} or later is needed, and `java -version` says: {said}")),
    }
    Ok(Jars { java, folder: resolve()? })
}

/// The feature release out of `java -version`: 17 of `"17.0.15"`, 8 of `"1.8.0_402"`.
fn java_version(said: &str) -> Option<u32> {
    let version = said.split('"').nth(1)?;
    let mut parts = version.split(|c: char| !c.is_ascii_digit());
    match parts.next()?.parse().ok()? {
        1 => parts.next()?.parse().ok(),
        feature => Some(feature),
    }
}

/// The folder of the jars, filled by Maven the first time. Other test processes wait for the one that fills it.
fn resolve() -> Result<PathBuf, String> {
    let pom = fs::read(POM).map_err(|e| format!("{POM}: {e}"))?;
    let hash: String = Sha256::digest(&pom).iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache")))
        .unwrap_or_else(std::env::temp_dir)
        .join("pvegraph-tests");
    let named = |e: std::io::Error| format!("{}: {e}", cache.display());
    fs::create_dir_all(&cache).map_err(named)?;
    let folder = cache.join(format!("neo4j-{hash}"));
    let lock = File::create(cache.join(format!("neo4j-{hash}.lock"))).map_err(named)?;
    lock.lock().map_err(named)?;
    if folder.is_dir() {
        return Ok(folder);
    }
    // filled beside and renamed when complete: whatever bears the final name can be used
    let partial = tempfile::Builder::new().prefix("partial-").tempdir_in(&cache).map_err(named)?;
    let jars = partial.path().join("jars");
    let mut output = OsString::from("-DoutputDirectory=");
    output.push(&jars);
    run(
        Command::new("mvn")
            .args(["-q", "-B", "-f", POM, "dependency:copy-dependencies", "-DincludeScope=runtime"])
            .arg(output),
        MAVEN_LIMIT,
    )
    .map_err(|e| format!("the jars are not resolved yet and {e}"))?;
    fs::rename(&jars, &folder).map_err(named)?;
    Ok(folder)
}

/// A port of loopback that nothing listens on, below the range that systems give to outgoing connections: such a
/// connection cannot take it while its server restarts.
pub fn free_port() -> Result<u16, String> {
    (0..200)
        .map(|_| 20_000 + (crate::server::random() % 10_000) as u16)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .ok_or_else(|| "no free port between 20000 and 29999".to_owned())
}

/// A server under its keeper. Dropping it, or the end of this process by any means, ends both.
#[derive(Debug)]
pub struct Serve {
    keeper: Child,
    /// Open as long as the server is wanted.
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    conf: PathBuf,
    log: PathBuf,
}

impl Serve {
    /// Sets a server up on a free port and starts it; it does not answer yet.
    ///
    /// # Errors
    /// A sentence about the file or process that failed.
    pub fn new(jars: &Jars, settings: &Settings) -> Result<(Neo4jServer, Self), String> {
        let port = free_port()?;
        let password = crate::server::password();
        let home = tempfile::Builder::new()
            .prefix("pvegraph-neo4j-")
            .tempdir()
            .map_err(|e| format!("no temporary directory: {e}"))?;
        let failed = |e: std::io::Error| format!("{}: {e}", home.path().display());
        for part in ["conf", "logs", "data", "import"] {
            fs::create_dir(home.path().join(part)).map_err(failed)?;
        }
        let address = format!("127.0.0.1:{port}");
        let mut conf = format!(
            "server.default_listen_address=127.0.0.1\n\
             server.bolt.listen_address={address}\n\
             server.bolt.advertised_address={address}\n"
        );
        for (key, value) in settings.all() {
            conf += &format!("{key}={value}\n");
        }
        let file = home.path().join("conf/neo4j.conf");
        fs::write(&file, conf).map_err(failed)?;
        let log = home.path().join("logs/console.log");
        let mut keeper = Command::new("bash")
            .arg(SERVE)
            .args([jars.java.as_os_str(), jars.folder.as_os_str(), home.path().as_os_str()])
            .args([settings.heap_size(), settings.jvm().word()])
            .env("NEO4J_TEST_PASSWORD", &password)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // what is sent to the whole group of the test process, by a terminal or `kill`, leaves the keeper to its work
            .process_group(0)
            .spawn()
            .map_err(|e| format!("bash {SERVE}: {e}"))?;
        let (Some(commands), Some(answers)) = (keeper.stdin.take(), keeper.stdout.take()) else {
            return Err(format!("bash {SERVE}: no pipes"));
        };
        let _ = home.keep(); // the keeper removes it
        let mut serve =
            Self { keeper, commands: Some(commands), answers: BufReader::new(answers), conf: file, log };
        serve.start()?;
        let server = Neo4jServer {
            bolt_uri: format!("bolt://{address}"),
            user: USER.to_owned(),
            password,
            how: How::Jars,
        };
        Ok((server, serve))
    }

    fn command(&mut self, command: &str) -> Result<String, String> {
        let lost = |e: std::io::Error| format!("{SERVE} is gone: {e}");
        if let Some(pipe) = &mut self.commands {
            writeln!(pipe, "{command}").map_err(lost)?;
        }
        let mut answer = String::new();
        self.answers.read_line(&mut answer).map_err(lost)?;
        match answer.trim() {
            "" => Err(format!("{SERVE} is gone")),
            answer => Ok(answer.to_owned()),
        }
    }

    pub fn start(&mut self) -> Result<(), String> {
        self.command("start").map(drop)
    }

    pub fn alive(&mut self) -> bool {
        self.command("alive").is_ok_and(|answer| answer == "yes")
    }

    pub fn stop(&mut self) -> Result<(), String> {
        self.command("stop")?;
        let end = Instant::now() + STOP_LIMIT;
        while self.alive() {
            if Instant::now() > end {
                self.kill()?;
                return Err(format!("Neo4j did not stop within {STOP_LIMIT:?}"));
            }
            sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    pub fn kill(&mut self) -> Result<(), String> {
        self.command("kill").map(drop)
    }

    pub fn configure(&self, key: &str, value: &str) -> Result<(), String> {
        let failed = |e: std::io::Error| format!("{}: {e}", self.conf.display());
        let before = fs::read_to_string(&self.conf).map_err(failed)?;
        let others = before.lines().filter(|line| !line.starts_with(&format!("{key}=")));
        let conf: String = others.map(|line| format!("{line}\n")).collect();
        fs::write(&self.conf, format!("{conf}{key}={value}\n")).map_err(failed)
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        self.commands = None;
        let _ = self.keeper.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_javas_version() {
        let of = |quoted: &str| java_version(&format!("openjdk version {quoted} 2025-04-15\nmore"));
        assert_eq!(of("\"17.0.15\""), Some(17));
        assert_eq!(of("\"21\""), Some(21));
        assert_eq!(of("\"22-ea\""), Some(22));
        assert_eq!(of("\"1.8.0_402\""), Some(8));
        assert_eq!(of("unknown"), None);
        assert_eq!(java_version(""), None);
    }
}
