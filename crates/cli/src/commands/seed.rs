//! `pvegraph seed` and `pvegraph demo`: a simulated cluster, synced like a real one.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use pve_client::{Auth, CaSource, ClientConfig, PveClient, Trust};
use pve_sim::{ROOT_TOKEN, SimOptions, SimServer, World, WorldSpec};
use pvegraph_graph::lease::Holder;
use pvegraph_graph::{Statement, Store};
use pvegraph_inventory::ClusterId;
use pvegraph_sync::history::Retention;
use pvegraph_sync::run::{Options, Target};
use pvegraph_sync::sweep::Guard;

use super::Global;
use super::migrate::ensure_migrated;
use super::sync::sync_and_report;
use crate::connect::{self, Access, HostLock};
use crate::exit::{Exit, Failure};

/// A named estate.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
pub enum Estate {
    /// 3 nodes and 24 guests, with something to find for every report; it becomes the cluster `pvegraph-demo`
    #[default]
    Demo,
}

impl Estate {
    /// Its world, what its cluster calls itself, and its identifier in the graph, which no real cluster is likely to have.
    fn spec(self) -> (WorldSpec, &'static str, &'static str) {
        match self {
            Self::Demo => (WorldSpec::demo(), "demo", "pvegraph-demo"),
        }
    }
}

/// Options of `seed`.
#[derive(Debug, Args)]
#[command(after_help = "\
The estate is served by a simulator in this process and synced like a real cluster. It is a cluster of its own beside yours; \
`pvegraph reset --cluster pvegraph-demo` removes it again.

Examples:
  pvegraph seed
  pvegraph --store embedded:demo.kgl seed demo")]
pub struct Seed {
    /// Which estate
    #[arg(value_enum, default_value_t)]
    estate: Estate,
}

impl Seed {
    /// Runs the command.
    ///
    /// # Errors
    /// The store or the lock can't be had, or the simulator can't be started.
    pub fn run(self, global: &Global) -> Result<Exit, Failure> {
        let settings = global.settings()?;
        connect::block_on(async {
            let lock = HostLock::take(&settings)?;
            let store = connect::store(&settings, Access::Write).await?;
            let holder = lock.holder();
            ensure_migrated(&*store, Some(&holder)).await?;
            plant(&*store, self.estate, holder, global).await
        })
    }
}

/// Starts the estate's simulator, and syncs it into the store.
async fn plant(store: &dyn Store, estate: Estate, holder: Holder, global: &Global) -> Result<Exit, Failure> {
    let (spec, name, id) = estate.spec();
    let cluster_id: ClusterId = id.parse().map_err(Failure::failed)?;
    refuse_another(store, &cluster_id, name).await?;
    let world = World::generate(&spec);
    let credential = world
        .credential(ROOT_TOKEN)
        .ok_or_else(|| Failure::failed("the simulated cluster has no token for root"))?;
    let server = SimServer::start(world, SimOptions::default()).await.map_err(Failure::failed)?;
    let auth =
        Auth::Token { id: credential.id.parse().map_err(Failure::failed)?, secret: credential.secret.into() };
    let endpoints =
        server.urls().iter().map(|url| url.parse()).collect::<Result<_, _>>().map_err(Failure::failed)?;
    let trust = Trust::CaFile(CaSource::Pem(server.ca_pem().as_bytes().to_vec()));
    let client = PveClient::new(ClientConfig::new(endpoints, auth, trust)).map_err(Failure::failed)?;
    let options = Options {
        dry_run: false,
        guard: Guard { max_delete_percent: 100.0, ..Guard::default() },
        offline_is_partial: false,
        // The simulator makes itself a new authority each time.
        accept_new_authority: vec![cluster_id.clone()],
        holder,
        history: Retention::default(),
    };
    let ended = sync_and_report(store, &[Target { name: Some(cluster_id), client }], &options, global).await;
    server.shutdown().await;
    ended
}

/// Refuses to write over a cluster that has the estate's identifier and is another one.
async fn refuse_another(store: &dyn Store, id: &ClusterId, name: &str) -> Result<(), Failure> {
    let statement = Statement::new("MATCH (c:ProxmoxCluster) WHERE c.cluster_id = $id RETURN c.name AS name");
    let rows = store.read(statement.with("id", id.as_str())).await?;
    match rows.get(0, "name") {
        Some(found) if found != name => Err(Failure::new(
            Exit::Config,
            format!(
                "the graph has a cluster {id} that calls itself {found}, and the estate would be written over it: give that \
                 cluster another `name` in the configuration, or remove it with `pvegraph reset --cluster {id}`"
            ),
        )),
        _ => Ok(()),
    }
}

/// Options of `demo`.
#[derive(Debug, Args)]
#[command(after_help = "\
Needs no server, no cluster and no configuration.

Examples:
  pvegraph demo
  pvegraph demo --file demo.kgl")]
pub struct Demo {
    /// Keep the graph in this file instead of a temporary one
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

/// The reports that the demonstration runs.
#[cfg(feature = "embedded")]
const SHOWN: [&str; 6] = ["Q8", "R1", "R2", "R17", "R17b", "R18"];

impl Demo {
    /// Runs the command.
    ///
    /// # Errors
    /// The file can't be used, or the simulator can't be started.
    #[cfg(feature = "embedded")]
    pub fn run(self, global: &Global) -> Result<Exit, Failure> {
        use pvegraph_embedded_store::{EmbeddedStore, Mode};
        use pvegraph_graph::reports::reports;

        let file = match self.file {
            Some(file) => file,
            // It is kept, to be asked further; the system's own cleaning takes it away.
            None => tempfile::Builder::new().prefix("pvegraph-demo-").tempdir()?.keep().join("graph.kgl"),
        };
        say(
            global,
            &format!(
                "A simulated cluster of 3 nodes and 24 guests, 2 of them templates, which Q8 does not count → {}",
                file.display()
            ),
        );
        connect::block_on(async {
            let path = file.clone();
            let opened = tokio::task::spawn_blocking(move || EmbeddedStore::open(&path, Mode::Write));
            let store = opened.await.map_err(Failure::failed)??;
            let holder = Holder { name: format!("the demo, process {}", std::process::id()), lock: None };
            ensure_migrated(&store, Some(&holder)).await?;
            let synced = plant(&store, Estate::Demo, holder, global).await?;
            if synced != Exit::Success {
                // What the reports would show of it is not the demonstration's.
                return Ok(synced);
            }
            let all = reports().map_err(Failure::failed)?;
            for report in all.iter().filter(|report| SHOWN.contains(&report.code.as_str())) {
                say(global, &format!("\n{} — {} ({})", report.code, report.title, report.question));
                super::report::print(&store, report, &serde_json::Map::new(), global).await?;
            }
            say(global, &next(&file));
            Ok(Exit::Success)
        })
    }

    /// Runs the command.
    ///
    /// # Errors
    /// Always: this build has no embedded store.
    #[cfg(not(feature = "embedded"))]
    pub fn run(self, _: &Global) -> Result<Exit, Failure> {
        let Self { file: _ } = self;
        Err(Failure::failed(
            "this program was built without the embedded store (feature `embedded`), which the demo needs",
        ))
    }
}

/// Words around the rows stand between the tables; beside a form for machines they go to standard error.
#[cfg(feature = "embedded")]
fn say(global: &Global, text: &str) {
    use std::io::Write;
    if global.quiet {
        return;
    }
    // Nobody is left to tell where it is closed.
    let _ = match global.output {
        crate::render::Output::Table => writeln!(std::io::stdout(), "{text}"),
        _ => writeln!(std::io::stderr(), "{text}"),
    };
}

/// What to try after the demonstration.
#[cfg(feature = "embedded")]
fn next(file: &std::path::Path) -> String {
    let store = format!("embedded:{}", file.display());
    // It may not be in the search path.
    let program =
        std::env::current_exe().map_or_else(|_| "pvegraph".to_owned(), |path| path.display().to_string());
    format!(
        "\nWhat next:\n  \
         {program} --store {store} query 'MATCH (v:ProxmoxVM) RETURN v.name, v.node, v.status ORDER BY v.name'\n  \
         {program} --store {store} report list\n  \
         Your own cluster: copy config.example.toml to pvegraph.toml, then `{program} doctor` and `{program} sync`."
    )
}
