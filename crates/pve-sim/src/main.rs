//! `pve-sim`: serves a simulated Proxmox VE cluster until it is stopped.

use std::error::Error;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use pve_sim::{Credential, PVE_PORT, ROOT_TOKEN, RecordedEstate, SimOptions, SimServer, World, WorldSpec};

/// Serves a simulated Proxmox VE 8.4 cluster over HTTPS.
#[derive(Parser)]
#[command(version)]
#[command(args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Nodes of the cluster
    #[arg(long, default_value_t = 3)]
    nodes: usize,
    /// Guests of the cluster
    #[arg(long, default_value_t = 100)]
    guests: usize,
    /// Storages of the cluster
    #[arg(long, default_value_t = WorldSpec::DEFAULT_STORAGES)]
    storages: usize,
    /// The same seed gives the same cluster
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The cluster's name
    #[arg(long, default_value = "sim", conflicts_with = "standalone")]
    name: String,
    /// Serve one node that is in no cluster
    #[arg(long, conflicts_with = "nodes")]
    standalone: bool,
    /// Serve the demonstration estate
    #[arg(long, conflicts_with_all = ["nodes", "guests", "storages", "seed", "name", "standalone", "recorded"])]
    demo: bool,
    /// Serve the world of this file, TOML or JSON
    #[arg(long, value_name = "FILE", conflicts_with_all = ["nodes", "guests", "storages", "seed", "name", "standalone", "demo", "recorded"])]
    world: Option<PathBuf>,
    /// Serve recorded answers from this file instead; any token will do
    #[arg(long, value_name = "FILE")]
    recorded: Option<PathBuf>,
    /// Where the first node listens; port 0 takes a free one
    #[arg(long, default_value_t = SocketAddr::from(([127, 0, 0, 1], PVE_PORT)))]
    listen: SocketAddr,
    /// How many nodes get an address of their own
    #[arg(long, default_value_t = 1)]
    endpoints: usize,
    /// Allow an address that others can reach, although the secrets follow from the seed
    #[arg(long)]
    allow_non_loopback: bool,
    /// The factor for PVE's own delays: 0 has none
    #[arg(long, default_value_t = 1.0)]
    time_scale: f64,
    /// Let CPU, memory and uptime vary with time
    #[arg(long)]
    live_metrics: bool,
    /// Where to put the CA certificate and the token's secret; by default a new directory among the temporary files
    #[arg(long, value_name = "DIRECTORY")]
    out: Option<PathBuf>,
}

/// What else it can do.
#[derive(Subcommand)]
enum Command {
    /// Send recorded requests again, each to a world prepared from its answer, and compare
    Replay {
        /// Recordings, one JSON object a line
        file: PathBuf,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut text = format!("pve-sim: {error}");
            let mut cause = error.source();
            while let Some(error) = cause {
                text.push_str(&format!(": {error}"));
                cause = error.source();
            }
            eprintln!("{text}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), Box<dyn Error>> {
    if let Some(Command::Replay { file }) = &arguments.command {
        write!(std::io::stdout().lock(), "{}", pve_sim::replay::replay(file)?)?;
        return Ok(());
    }
    let options = SimOptions {
        listen: arguments.listen,
        endpoints: arguments.endpoints,
        allow_non_loopback: arguments.allow_non_loopback,
        time_scale: arguments.time_scale,
        ..SimOptions::default()
    };
    // Before anything is promised: a signal that comes early must stop it, too.
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let (server, credential) = match &arguments.recorded {
        Some(file) => {
            let estate = RecordedEstate::read(file)?;
            (SimServer::start_recorded(estate, options).await?, None)
        }
        None => {
            let world = match &arguments.world {
                Some(file) => World::from_file(file)?,
                None => World::generate(&spec(&arguments)),
            };
            world.set_live_metrics(arguments.live_metrics);
            let credential = world.credential(ROOT_TOKEN);
            (SimServer::start(world, options).await?, credential)
        }
    };
    // Removed when it is dropped, on every way out.
    let mut own_directory = None;
    let directory = match &arguments.out {
        Some(directory) => directory.clone(),
        None => {
            own_directory.insert(tempfile::Builder::new().prefix("pve-sim-").tempdir()?).path().to_owned()
        }
    };
    announce(&server, credential.as_ref(), &directory)?;
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
    server.shutdown().await;
    Ok(())
}

const CA_FILE: &str = "ca.pem";
const PASSWORD_FILE: &str = "user.password";
/// A user of every generated world who may do everything.
const ADMIN: &str = "admin@pve";
const SECRET_FILE: &str = "token.secret";

fn spec(arguments: &Arguments) -> WorldSpec {
    if arguments.demo {
        return WorldSpec::demo();
    }
    let mut spec = if arguments.standalone {
        WorldSpec::standalone(arguments.guests, arguments.seed)
    } else {
        WorldSpec::new(&arguments.name, arguments.nodes, arguments.guests, arguments.seed)
    };
    spec.storages = arguments.storages;
    spec
}

/// Prints what a client needs; the secret itself goes to a file that only its owner may read.
fn announce(
    server: &SimServer,
    credential: Option<&Credential>,
    directory: &Path,
) -> Result<(), Box<dyn Error>> {
    let write = |path: &Path, text: &str| -> std::io::Result<()> {
        use std::os::unix::fs::OpenOptionsExt as _;
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        options.open(path)?.write_all(text.as_bytes())
    };
    let explain = |error: std::io::Error| format!("cannot write to {}: {error}", directory.display());
    std::fs::create_dir_all(directory).map_err(explain)?;
    let ca = directory.join(CA_FILE);
    write(&ca, server.ca_pem()).map_err(explain)?;
    let mut out = std::io::stdout().lock();
    for endpoint in server.endpoints() {
        writeln!(out, "url {} node {} fingerprint {}", endpoint.url, endpoint.node, endpoint.fingerprint)?;
    }
    writeln!(out, "ca-file {}", ca.display())?;
    if let Some(world) = server.world()
        && let Some(password) = world.password(ADMIN)
    {
        let file = directory.join(PASSWORD_FILE);
        write(&file, &format!("{password}\n")).map_err(explain)?;
        writeln!(out, "user-id {ADMIN}")?;
        writeln!(out, "user-password-file {}", file.display())?;
    }
    if let Some(credential) = credential {
        let secret = directory.join(SECRET_FILE);
        write(&secret, &format!("{}\n", credential.secret)).map_err(explain)?;
        writeln!(out, "token-id {}", credential.id)?;
        writeln!(out, "token-secret-file {}", secret.display())?;
    }
    out.flush()?;
    Ok(())
}
