//! Bad input: each kind of it gives one clear error that names the thing and the mend, the right exit code, and loses nothing.
//! One odd guest never stops the rest: it is synced as far as it is understood, and reported.
//!
//! Each test syncs a good world first, then spoils something, and compares what is in the graph with what was. Where the store
//! does not matter it is a file, because that is quicker.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Stdio;

use pve_sim::{
    Fault, FaultRule, GuestSpec, Power, ROOT_TOKEN, SimOptions, SimServer, TFA_USER, World, WorldSpec,
};
use pvegraph_testkit::Neo4jServer;
use serde_json::{Map, Value, json};

use crate::on_both_stores;
use crate::support::{Graph, METRICS, Ran, Rig};

const SEED: u64 = 20_261_122;

/// The odd one; on pve1, like 101 and 102.
const ODD: u32 = 100;
/// Another machine of the same node, whose change must arrive.
const OTHER: u32 = 101;
const CONTAINER: u32 = 102;

type Stable = BTreeMap<String, Vec<Map<String, Value>>>;

/// A world that was synced once, and what the graph had then.
struct Synced {
    server: SimServer,
    rig: Rig,
    before: Stable,
}

fn world() -> World {
    println!("seed {SEED}");
    let world = World::generate(&WorldSpec::new("rig", 2, 0, SEED));
    let machine = |vmid: u32, name: &str, node: &str| {
        GuestSpec::qemu(vmid, name)
            .node(node)
            .power(Power::Running)
            .config("cores", 4)
            .config("sockets", 2)
            .config("memory", "4096")
            .config("onboot", 1)
            .config("tags", "prod;web")
            .disk("scsi0", "local-lvm", 8, "backup=0,cache=writeback")
            .disk("scsi1", "nfs-vm", 4, "")
            .config("net0", "virtio=BC:24:11:00:00:01,bridge=vmbr0,firewall=1,tag=12")
            .config("net1", "virtio=BC:24:11:00:00:02,bridge=vmbr1")
    };
    let container = |vmid: u32, name: &str, node: &str| {
        GuestSpec::lxc(vmid, name)
            .node(node)
            .config("memory", 1024)
            .disk("rootfs", "local-lvm", 8, "")
            .disk("mp0", "nfs-vm", 4, "mp=/data,backup=1")
            .config("net0", "name=eth0,bridge=vmbr0,firewall=1,hwaddr=BC:24:11:00:00:03,tag=7,type=veth")
    };
    for guest in [
        machine(ODD, "odd", "pve1"),
        machine(OTHER, "other", "pve1"),
        container(CONTAINER, "container", "pve1"),
        machine(103, "far", "pve2"),
        container(104, "far-container", "pve2"),
    ] {
        world.add_guest(guest).unwrap();
    }
    world.set_pool(ODD, Some("prod")).unwrap();
    world
}

impl Synced {
    async fn new(graph: &Graph) -> Self {
        Self::named(graph, None).await
    }

    async fn named(graph: &Graph, name: Option<&str>) -> Self {
        let server = SimServer::start(world(), SimOptions::default()).await.unwrap();
        let credential = server.world().unwrap().credential(ROOT_TOKEN);
        let rig = Rig::new(graph).cluster(name, &server, credential.as_ref());
        rig.sync(0).await;
        let before = rig.stable(&left_out()).await;
        assert_eq!(before["ProxmoxVM"].len(), 5);
        assert_eq!(before["ProxmoxDisk"].len(), 10);
        assert!(!before["ProxmoxBackupJob"].is_empty() && !before["AVAILABLE_ON"].is_empty());
        Self { server, rig, before }
    }

    fn world(&self) -> &World {
        self.server.world().unwrap()
    }

    fn fault(&self, path: &str, fault: Fault) {
        self.server.faults().add(FaultRule::at(path, fault));
    }

    /// Replaces a value in the configuration of the odd guest.
    fn spoil(&self, key: &str, value: Value) {
        self.fault(&config_of(ODD), Fault::Replace { pointer: format!("/data/{key}"), value });
    }

    /// Replaces a value in a guest's entry of a listing.
    async fn spoil_listing(&self, path: &str, vmid: u32, key: &str, value: Value) {
        let mut rows = self.answer(path).await;
        let row = rows.as_array_mut().unwrap().iter_mut().find(|row| row["vmid"] == vmid).unwrap();
        row[key] = value;
        self.fault(path, Fault::Body(json!({ "data": rows }).to_string().into_bytes()));
    }

    /// What the world answers.
    async fn answer(&self, path: &str) -> Value {
        let credential = self.world().credential(ROOT_TOKEN).unwrap();
        let auth =
            pve_client::Auth::Token { id: credential.id.parse().unwrap(), secret: credential.secret.into() };
        let trust = pve_client::Trust::Fingerprint(vec![self.server.fingerprint().parse().unwrap()]);
        let config = pve_client::ClientConfig::new(vec![self.server.url().parse().unwrap()], auth, trust);
        let path: &'static str = path.to_owned().leak();
        let path = pve_client::ApiPath::new("read").fixed(path);
        pve_client::PveClient::new(config).unwrap().get(&path).await.unwrap()
    }

    /// Syncs with another configuration: the rig's own, with this text in place of that one.
    async fn with(&self, replacements: &[(&str, &str)], args: &[&str]) -> Ran {
        let mut text = fs::read_to_string(self.rig.config()).unwrap();
        for (this, that) in replacements {
            assert!(text.contains(this), "{this:?} is not in {text}");
            text = text.replace(this, that);
        }
        let path = self.rig.dir.path().join("bad.toml");
        fs::write(&path, text).unwrap();
        let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_pvegraph"))
            .env_clear()
            .env("XDG_RUNTIME_DIR", self.rig.dir.path())
            .arg("--config")
            .arg(path)
            .args(args)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let ran = Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) };
        self.clean(&ran);
        ran
    }

    /// A sync that fails as a whole: one error, and nothing of the graph is another.
    async fn refused(&self, replacements: &[(&str, &str)], code: i32, words: &[&str]) -> Ran {
        let ran = self.with(replacements, &["sync"]).await.ended(code).says(words);
        println!("{}", ran.err);
        let errors =
            ran.err.lines().filter(|line| line.contains(" ERROR ") || line.starts_with("error: ")).count();
        assert_eq!(errors, 1, "{}", ran.err);
        assert_eq!(self.changes().await, [""; 0]);
        ran
    }

    /// A sync that saw less than all.
    async fn partial(&self, words: &[&str]) -> Ran {
        let ran = self.rig.run(&["sync", "-o", "json"]).await.ended(3).says(words);
        self.clean(&ran);
        println!("{}", ran.err);
        assert!(!ran.err.contains(" ERROR "), "{}", ran.err);
        ran
    }

    /// Neither a backtrace nor a secret is in what the program wrote.
    fn clean(&self, ran: &Ran) {
        let mut secrets = vec![self.world().credential(ROOT_TOKEN).unwrap().secret];
        secrets.extend(self.world().password(TFA_USER));
        secrets.extend(self.world().password("audit@pve"));
        secrets.extend(fs::read_to_string(self.rig.dir.path().join("neo4j.password")));
        secrets.push("hunter2".to_owned());
        for text in [&ran.out, &ran.err] {
            for secret in &secrets {
                assert!(!text.contains(secret), "{secret} is in {text}");
            }
            for word in ["panicked", "BACKTRACE", "stack backtrace"] {
                assert!(!text.contains(word), "{text}");
            }
        }
    }

    /// What is another in the graph than it was, value by value.
    async fn changes(&self) -> Vec<String> {
        let after = flat(&self.rig.stable(&left_out()).await);
        let before = flat(&self.before);
        let keys: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        let show = |value: Option<&Value>| value.map_or_else(|| "-".to_owned(), Value::to_string);
        keys.into_iter()
            .filter(|key| before.get(*key) != after.get(*key))
            .map(|key| format!("{key}: {} -> {}", show(before.get(key)), show(after.get(key))))
            .collect()
    }

    /// Renames the other guest, so that a run has something to bring.
    fn rename_other(&self) {
        self.world().rename(OTHER, "renamed").unwrap();
    }
}

const RENAMED: &str = "ProxmoxVM pve1:101 name: \"other\" -> \"renamed\"";

fn left_out() -> Vec<&'static str> {
    METRICS.into_iter().chain(["stale_since"]).collect()
}

fn config_of(vmid: u32) -> String {
    let kind = if vmid == CONTAINER { "lxc" } else { "qemu" };
    format!("/nodes/pve1/{kind}/{vmid}/config")
}

fn flat(graph: &Stable) -> BTreeMap<String, Value> {
    let mut values = BTreeMap::new();
    for (label, rows) in graph {
        for row in rows {
            let id = row.get("id").and_then(Value::as_str).unwrap_or("");
            match row.get("to").and_then(Value::as_str) {
                Some(to) => {
                    values.insert(format!("{label} {id} {to}"), json!(true));
                }
                None => values
                    .extend(row.iter().map(|(name, value)| (format!("{label} {id} {name}"), value.clone()))),
            }
        }
    }
    values
}

const TOKEN_LINES: &str = "token_id = \"root@pam!sim\"\ntoken_secret_file = \"0.token\"\n";
const CA_LINE: &str = "ca_file = \"0.ca.pem\"\n";

// --- The way to the cluster ---

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_port() {
    let it = Synced::new(&Graph::Embedded).await;
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("https://{port}");
    it.refused(
        &[(it.server.url(), &url)],
        13,
        &[
            &url,
            "it does not answer, and is tried again for about 23 s",
            "cannot connect",
            "check host and port",
            "Connection refused",
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_never_answers() {
    let it = Synced::new(&Graph::Embedded).await;
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", silent.local_addr().unwrap());
    let short = format!("{CA_LINE}connect_timeout = \"200ms\"\nrequest_timeout = \"400ms\"\n");
    let told = [&*url, "it does not answer, and is tried again for about 24 s", "timed out"];
    it.refused(&[(it.server.url(), &url), (CA_LINE, &short)], 13, &told).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_takes_too_long() {
    let it = Synced::new(&Graph::Embedded).await;
    it.fault("/version", Fault::Hang);
    let short = format!("{CA_LINE}run_timeout = \"500ms\"\n");
    it.refused(&[(CA_LINE, &short)], 13, &["deadline of 0.5 s", "raise the run time-out"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_an_unknown_authority() {
    let it = Synced::new(&Graph::Embedded).await;
    let other = SimServer::start(world(), SimOptions::default()).await.unwrap();
    fs::write(it.rig.dir.path().join("0.ca.pem"), other.ca_pem()).unwrap();
    it.refused(&[], 13, &["not trusted", it.server.fingerprint(), "set ca_file", "pvenode cert info"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_certificate_than_the_pinned_one() {
    let it = Synced::new(&Graph::Embedded).await;
    let pinned = ["AB"; 32].join(":");
    let line = format!("fingerprint = \"{pinned}\"\n");
    it.refused(&[(CA_LINE, &line)], 13, &[&pinned, it.server.fingerprint(), "pin the new one"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ca_file_that_is_none() {
    let it = Synced::new(&Graph::Embedded).await;
    it.refused(&[("0.ca.pem", "absent.pem")], 10, &["absent.pem", "No such file"]).await;
    fs::write(it.rig.dir.path().join("0.ca.pem"), "no certificate").unwrap();
    it.refused(&[], 10, &["0.ca.pem"]).await;
}

// --- Credentials ---

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_token() {
    let it = Synced::new(&Graph::Embedded).await;
    fs::write(it.rig.dir.path().join("bad.token"), "hunter2").unwrap();
    it.refused(&[("0.token", "bad.token")], 12, &["root@pam!sim", "check the token's id and secret"]).await;
    it.refused(&[("root@pam!sim", "nobody@pam!sim")], 12, &["nobody@pam!sim", "check the token's id"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password() {
    let it = Synced::new(&Graph::Embedded).await;
    fs::write(it.rig.dir.path().join("bad.password"), "hunter2").unwrap();
    let lines = "username = \"audit@pve\"\npassword_file = \"bad.password\"\n";
    it.refused(&[(TOKEN_LINES, lines)], 12, &["audit@pve", "check user, realm and password"]).await;
    // The right one does.
    fs::write(it.rig.dir.path().join("bad.password"), it.world().password("audit@pve").unwrap()).unwrap();
    it.with(&[(TOKEN_LINES, lines)], &["sync"]).await.ended(0);
    assert_eq!(it.changes().await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_with_a_second_factor() {
    let it = Synced::new(&Graph::Embedded).await;
    fs::write(it.rig.dir.path().join("tfa.password"), it.world().password(TFA_USER).unwrap()).unwrap();
    let lines = format!("username = \"{TFA_USER}\"\npassword_file = \"tfa.password\"\n");
    it.refused(&[(TOKEN_LINES, &lines)], 12, &[TFA_USER, "two-factor", "use an API token"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_secret_file() {
    let it = Synced::new(&Graph::Embedded).await;
    let dir = it.rig.dir.path();
    it.refused(&[("0.token", "absent.token")], 10, &["absent.token", "token_secret_file", "No such file"])
        .await;
    fs::create_dir(dir.join("directory.token")).unwrap();
    it.refused(&[("0.token", "directory.token")], 10, &["directory.token", "token_secret_file", "directory"])
        .await;
    fs::write(dir.join("empty.token"), "\n").unwrap();
    it.refused(&[("0.token", "empty.token")], 10, &["empty.token", "is empty"]).await;
    fs::write(dir.join("two.token"), "hunter2\nhunter2\n").unwrap();
    it.refused(&[("0.token", "two.token")], 10, &["two.token", "more than one line"]).await;
    fs::write(dir.join("odd.token"), "hünter2 hunter2").unwrap();
    it.refused(&[("0.token", "odd.token")], 10, &["root@pam!sim", "secret"]).await;
}

// --- Configuration and options ---

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_nobody_knows() {
    let it = Synced::new(&Graph::Embedded).await;
    let near = [(CA_LINE, "ca_fiel = \"0.ca.pem\"\n")];
    it.refused(&near, 10, &["bad.toml:", "`ca_fiel`", "did you mean `ca_file`?"]).await;
    it.refused(&[("[store]\n", "[store]\nfrobnicate = 1\n")], 10, &["bad.toml:2", "`frobnicate` in [store]"])
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_misspelt_option() {
    let it = Synced::new(&Graph::Embedded).await;
    it.with(&[], &["sync", "--dry-rnu"]).await.ended(2).says(&["--dry-rnu", "'--dry-run'"]);
    it.with(&[], &["synk"]).await.ended(2).says(&["synk", "'sync'"]);
    it.with(&[], &["sync", "--cluster", "rgi"]).await.ended(10).says(&["rgi"]);
    assert_eq!(it.changes().await, [""; 0]);
}

// --- What is not PVE's answer ---

/// Answers that are none, and a listing that lacks everything.
fn no_answers() -> Vec<(&'static str, Fault)> {
    let body = |text: &str| Fault::Body(text.as_bytes().to_vec());
    vec![
        ("500", Fault::Status { status: 500, reason: "something nobody has seen".to_owned() }),
        ("html", Fault::Html),
        ("truncated", body("{\"data\":[{\"node\":\"pve1\",\"vm")),
        ("null", body("{\"data\":null}")),
        ("text", body("{\"data\":\"all is well\"}")),
        ("no data", body("{}")),
        ("odd entries", body("{\"data\":[null,[],{},\"x\",5]}")),
        ("empty", body("{\"data\":[]}")),
    ]
}

/// No listing that fails, in whichever way, makes anything look gone; the other listings are not stopped by it.
#[tokio::test(flavor = "multi_thread")]
async fn no_listing_can_wipe_anything() {
    let it = Synced::named(&Graph::Embedded, Some("rig")).await;
    for path in [
        "/cluster/resources",
        "/cluster/status",
        "/nodes",
        "/storage",
        "/cluster/backup",
        "/access/permissions",
        "/nodes/pve1/qemu",
        "/nodes/pve1/lxc",
        "/nodes/pve1/storage",
    ] {
        for (what, fault) in no_answers() {
            println!("{path}: {what}");
            it.fault(path, fault);
            let ran = it.rig.run(&["sync", "-o", "json"]).await;
            it.server.faults().clear();
            it.clean(&ran);
            // An empty listing of one node is as good as any; what the others list there is read all the same.
            let code = if what == "empty" && path.starts_with("/nodes/") { 0 } else { 3 };
            let ran = ran.ended(code);
            assert!(code == 0 || !ran.err.contains("no reason given"), "{}", ran.err);
            for row in ran.rows() {
                for count in ["created", "updated", "deleted"] {
                    assert_eq!(row[count], 0, "{path} {what}: {row} {count}\n{}", ran.err);
                }
            }
        }
        assert_eq!(it.changes().await, [""; 0], "{path}");
    }
    // And with all of them at once, as a proxy would.
    for (what, fault) in no_answers() {
        println!("everything: {what}");
        let rule = FaultRule::below("/", fault);
        it.server.faults().add(rule);
        let ran = it.rig.run(&["sync", "-o", "json"]).await;
        it.server.faults().clear();
        it.clean(&ran);
        assert!(matches!(ran.code, Some(1 | 13)), "{what}: {ran:?}");
        assert_eq!(ran.err.matches(" ERROR ").count(), 1, "{}", ran.err);
    }
    assert_eq!(it.changes().await, [""; 0]);
}

/// All listings are empty at once while everything else answers: the worst that a cache in between can do.
#[tokio::test(flavor = "multi_thread")]
async fn empty_listings_everywhere() {
    for name in [None, Some("rig")] {
        let it = Synced::named(&Graph::Embedded, name).await;
        for path in [
            "/cluster/resources",
            "/cluster/status",
            "/nodes",
            "/storage",
            "/cluster/backup",
            "/nodes/pve1/qemu",
            "/nodes/pve1/lxc",
            "/nodes/pve2/qemu",
            "/nodes/pve2/lxc",
            "/nodes/pve1/storage",
            "/nodes/pve2/storage",
        ] {
            it.fault(path, Fault::Body(b"{\"data\":[]}".to_vec()));
        }
        let ran = it.rig.run(&["sync"]).await.ended(if name.is_some() { 3 } else { 10 });
        it.clean(&ran);
        assert_eq!(it.changes().await, [""; 0]);
    }
}

/// No listing names a node, and the storages are listed all the same: they keep their places.
#[tokio::test(flavor = "multi_thread")]
async fn no_node_in_any_listing() {
    let it = Synced::named(&Graph::Embedded, Some("rig")).await;
    for (what, fault) in no_answers() {
        println!("{what}");
        for path in ["/cluster/resources", "/cluster/status", "/nodes"] {
            it.fault(path, fault.clone());
        }
        it.partial(&["nodes ", "guests "]).await;
        it.server.faults().clear();
        assert_eq!(it.changes().await, [""; 0], "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn html_instead_of_json() {
    let it = Synced::new(&Graph::Embedded).await;
    it.fault("/version", Fault::Html);
    it.refused(&[], 13, &["/version", "text/html", "is the endpoint a PVE API (https://host:8006)?"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn truncated_json() {
    let it = Synced::new(&Graph::Embedded).await;
    it.fault("/version", Fault::Body(b"{\"data\":{\"version\":\"8.".to_vec()));
    it.refused(&[], 13, &["/version", "not PVE's JSON", "EOF"]).await;
    // A connection that breaks off is asked again.
    it.server.faults().clear();
    it.server.faults().add(FaultRule::at("/cluster/resources", Fault::Truncate(60)).times(1));
    it.rename_other();
    it.rig.sync(0).await;
    assert_eq!(it.changes().await, [RENAMED]);
}

// --- Which cluster it is ---

/// Without its own row a cluster looks like a standalone node, and would be synced a second time as one.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_whose_own_row_is_odd_is_not_taken_for_another() {
    let it = Synced::new(&Graph::Embedded).await;
    let rows = it.answer("/cluster/status").await;
    let serve = |rows: Vec<Value>| {
        it.server.faults().clear();
        it.fault("/cluster/status", Fault::Body(json!({ "data": rows }).to_string().into_bytes()));
    };
    let with = |key: &str, value: Value| -> Vec<Value> {
        let mut rows = rows.as_array().unwrap().clone();
        rows.iter_mut().filter(|row| row["type"] == "cluster").for_each(|row| row[key] = value.clone());
        rows
    };
    let mend = ["set `name` under its [[clusters]]", it.server.url()];
    serve(with("name", json!(["rig"])));
    it.refused(&[], 10, &mend).await;
    // A cluster of one node, too.
    serve(with("name", json!(["rig"])).into_iter().filter(|row| row["name"] != "pve2").collect());
    it.refused(&[], 10, &["was not understood", mend[0]]).await;
    serve(with("type", json!("federation")));
    it.refused(&[], 10, &mend).await;
    serve(with("name", json!("r/g")));
    it.refused(&[], 10, &["set `name` under its [[clusters]]", "r/g"]).await;
    it.server.faults().clear();
    it.fault("/cluster/status", Fault::Status { status: 500, reason: "no such luck".to_owned() });
    it.refused(&[], 1, &["set `name` under its [[clusters]]", "no such luck"]).await;
}

/// Whether there is a quorum is not known: what is gone stays for now.
#[tokio::test(flavor = "multi_thread")]
async fn a_quorum_that_is_not_said() {
    let it = Synced::new(&Graph::Embedded).await;
    it.rename_other();
    it.world().remove_guest(104).unwrap();
    let rows = it.answer("/cluster/status").await;
    let at = rows.as_array().unwrap().iter().position(|row| row["type"] == "cluster").unwrap();
    let pointer = format!("/data/{at}/quorate");
    it.fault("/cluster/status", Fault::Replace { pointer, value: json!("perhaps") });
    it.partial(&["/cluster/status", "`quorate`", "whether there is a quorum"]).await;
    // The job's own answer lacks it as well, and says so of itself.
    let changes = it.changes().await;
    let rest =
        changes.iter().filter(|c| !c.starts_with("BACKS_UP nightly") && !c.starts_with("INCLUDES_DISK"));
    assert_eq!(rest.collect::<Vec<_>>(), [RENAMED]);
    it.server.faults().clear();
    assert_eq!(it.rig.sync(0).await.counts("ProxmoxVM")[3], 1);
}

/// Of two clusters one can't be read: the other is synced all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_fails_does_not_stop_the_next() {
    let mut it = Synced::new(&Graph::Embedded).await;
    let other =
        SimServer::start(World::generate(&WorldSpec::new("other", 1, 3, SEED)), SimOptions::default());
    let other = other.await.unwrap();
    let credential = other.world().unwrap().credential(ROOT_TOKEN);
    it.rig = it.rig.cluster(None, &other, credential.as_ref());
    it.fault("/version", Fault::Html);
    let ran = it.rig.run(&["sync", "-o", "json"]).await.ended(3).says(&[it.server.url(), "text/html"]);
    it.clean(&ran);
    assert_eq!(ran.err.matches(" ERROR ").count(), 1, "{}", ran.err);
    assert_eq!(ran.counts("ProxmoxVM"), [3, 0, 0, 0, 0]);
    let rows = it.rig.read("MATCH (v:ProxmoxVM) WHERE v.cluster_id = 'rig' RETURN count(v) AS count").await;
    assert_eq!(rows, [json!({ "count": 5 })]);
}

// --- One odd guest ---

/// A value of a wrong type, in each key of the configuration that the graph shows.
async fn a_wrong_type_in_a_configuration(graph: &Graph) {
    let it = Synced::new(graph).await;
    it.rename_other();
    it.world().set_config(ODD, "scsi2", "local-lvm:vm-100-disk-7,size=1G").unwrap();
    let keys = ["cores", "sockets", "memory", "onboot", "ostype", "smbios1", "meta", "lock", "scsi0", "net0"];
    for key in keys {
        it.spoil(key, json!({ "not": ["what", "it", "was"] }));
    }
    let path = config_of(ODD);
    let ran = it.partial(&[&path, "guest 100"]).await;
    for key in keys {
        assert!(ran.err.contains(&format!("`{key}`")), "{key}: {}", ran.err);
    }
    // The rest is there: the other guest's name, and of the odd one the new disk.
    let changes = it.changes().await;
    let rest: Vec<_> = changes.iter().filter(|change| !change.contains("100:scsi2")).collect();
    assert_eq!(rest, [RENAMED]);
    assert!(changes.iter().any(|change| change == "STORED_ON 100:scsi2 local-lvm: - -> true"), "{changes:?}");
    // When the trouble is over, all is as in the world, and the guest is the same one.
    it.server.faults().clear();
    it.rig.sync(0).await;
    let changes = it.changes().await;
    assert!(
        changes.contains(&"ProxmoxVM pve1:100 disk_size: 12884901888 -> 13958643712".to_owned()),
        "{changes:?}"
    );
    assert!(!changes.iter().any(|change| change.contains("firstseen: 1")), "{changes:?}");
}
on_both_stores!(wrong_type => a_wrong_type_in_a_configuration);

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_type_in_a_containers_configuration() {
    let it = Synced::new(&Graph::Embedded).await;
    it.rename_other();
    let keys = ["cores", "memory", "onboot", "ostype", "rootfs", "mp0", "net0"];
    for key in keys {
        let pointer = format!("/data/{key}");
        it.fault(&config_of(CONTAINER), Fault::Replace { pointer, value: json!([1]) });
    }
    let ran = it.partial(&[&config_of(CONTAINER), "guest 102"]).await;
    for key in keys {
        assert!(ran.err.contains(&format!("`{key}`")), "{key}: {}", ran.err);
    }
    assert_eq!(it.changes().await, [RENAMED]);
}

/// The configuration is no object at all.
#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_is_none() {
    let it = Synced::new(&Graph::Embedded).await;
    it.rename_other();
    for (what, fault) in no_answers() {
        println!("{what}");
        it.fault(&config_of(ODD), fault);
        it.partial(&["guest 100", &config_of(ODD)]).await;
        it.server.faults().clear();
        assert_eq!(it.changes().await, [RENAMED], "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_form_of_a_property_string() {
    let it = Synced::new(&Graph::Embedded).await;
    it.rename_other();
    // Neither tells what it is about: both stay as they were. The other disk and interface are read.
    it.world().set_config(ODD, "scsi1", "nfs-vm:100/vm-100-disk-1.qcow2,cache=directsync,size=4G").unwrap();
    it.world().set_config(ODD, "net1", "virtio=BC:24:11:00:00:02,bridge=vmbr0").unwrap();
    it.spoil("scsi0", json!("size=1G,,x=1,x=2"));
    it.spoil("net0", json!("bridge=vmbr9"));
    it.partial(&["guest 100", "`scsi0`", "`net0`", &config_of(ODD)]).await;
    let expected = [
        "ProxmoxDisk 100:scsi1 cache: \"none\" -> \"directsync\"",
        "ProxmoxNetworkInterface 100:net1 bridge: \"vmbr1\" -> \"vmbr0\"",
        RENAMED,
    ];
    assert_eq!(it.changes().await, expected);
}

/// One odd option: the others of the same string are read, and it keeps its value.
#[tokio::test(flavor = "multi_thread")]
async fn an_odd_option_of_a_property_string() {
    let it = Synced::new(&Graph::Embedded).await;
    it.rename_other();
    it.spoil("scsi0", json!("ceph-vm:vm-100-disk-0,backup=perhaps,cache=writethrough,size=large"));
    it.spoil("net0", json!("virtio=BC:24:11:00:00:09,bridge=vmbr1,firewall=perhaps,tag=native"));
    it.partial(&["guest 100", "scsi0", "`size`", "`backup`", "net0", "`tag`", "`firewall`"]).await;
    let expected = [
        "ProxmoxDisk 100:scsi0 cache: \"writeback\" -> \"writethrough\"",
        "ProxmoxDisk 100:scsi0 storage: \"local-lvm\" -> \"ceph-vm\"",
        "ProxmoxDisk 100:scsi0 volume: \"local-lvm:vm-100-disk-0\" -> \"ceph-vm:vm-100-disk-0\"",
        "ProxmoxNetworkInterface 100:net0 bridge: \"vmbr0\" -> \"vmbr1\"",
        "ProxmoxNetworkInterface 100:net0 mac_address: \"BC:24:11:00:00:01\" -> \"BC:24:11:00:00:09\"",
        RENAMED,
        "STORED_ON 100:scsi0 ceph-vm: - -> true",
        "STORED_ON 100:scsi0 local-lvm: true -> -",
    ];
    assert_eq!(it.changes().await, expected);
}

/// An option that this version does not know is no oddity: a newer PVE has some.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_newer_release_adds_is_no_trouble() {
    let it = Synced::new(&Graph::Embedded).await;
    it.spoil("scsi0", json!("local-lvm:vm-100-disk-0,backup=0,cache=writeback,size=8G,quantum=1"));
    it.spoil("shiny-new", json!({ "a": 1 }));
    it.fault("/cluster/status", Fault::Replace { pointer: "/data/0/shiny".into(), value: json!([1]) });
    let ran = it.rig.sync(0).await;
    assert_eq!(ran.err, "");
    assert_eq!(it.changes().await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_type_in_the_clusters_listing() {
    let it = Synced::new(&Graph::Embedded).await;
    it.rename_other();
    let mut rows = it.answer("/cluster/resources").await;
    let keys = ["name", "status", "template", "tags", "pool", "uptime", "maxcpu", "maxmem"];
    for row in
        rows.as_array_mut().unwrap().iter_mut().filter(|row| row["vmid"] == ODD || row["vmid"] == CONTAINER)
    {
        for key in keys {
            row[key] = json!({ "not": "it" });
        }
    }
    it.fault("/cluster/resources", Fault::Body(json!({ "data": rows }).to_string().into_bytes()));
    let ran = it.partial(&["/cluster/resources", "vmid=100", "vmid=102"]).await;
    for key in keys {
        assert!(ran.err.contains(&format!("`{key}`")), "{key}: {}", ran.err);
    }
    assert_eq!(it.changes().await, [RENAMED]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_type_in_both_listings() {
    let it = Synced::new(&Graph::Embedded).await;
    it.rename_other();
    for path in ["/cluster/resources", "/nodes/pve1/qemu"] {
        let mut rows = it.answer(path).await;
        let row = rows.as_array_mut().unwrap().iter_mut().find(|row| row["vmid"] == ODD).unwrap();
        for key in ["name", "template", "tags", "pool"] {
            row[key] = json!({ "not": "it" });
        }
        it.fault(path, Fault::Body(json!({ "data": rows }).to_string().into_bytes()));
    }
    it.partial(&["/cluster/resources", "/nodes/pve1/qemu", "vmid=100", "`tags`"]).await;
    assert_eq!(it.changes().await, [RENAMED]);
}

/// The number itself can't be read, in one listing or in both: the guest must not look gone.
async fn a_vmid_that_is_no_number(graph: &Graph) {
    let it = Synced::new(graph).await;
    it.rename_other();
    it.spoil_listing("/cluster/resources", ODD, "vmid", json!("one hundred")).await;
    it.partial(&["/cluster/resources", "one hundred"]).await;
    assert_eq!(it.changes().await, [RENAMED]);
    it.spoil_listing("/nodes/pve1/qemu", ODD, "vmid", json!("one hundred")).await;
    it.partial(&["/nodes/pve1/qemu", "one hundred"]).await;
    assert_eq!(it.changes().await, [RENAMED]);
    it.server.faults().clear();
    it.spoil_listing("/nodes/pve1/qemu", ODD, "vmid", Value::Null).await;
    it.partial(&["/nodes/pve1/qemu"]).await;
    assert_eq!(it.changes().await, [RENAMED]);
    // A number that is written as a text is one.
    it.server.faults().clear();
    it.spoil_listing("/cluster/resources", ODD, "vmid", json!("100")).await;
    it.rig.sync(0).await;
    assert_eq!(it.changes().await, [RENAMED]);
}
on_both_stores!(vmid => a_vmid_that_is_no_number);

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_configuration() {
    let it = Synced::new(&Graph::Embedded).await;
    it.rename_other();
    let reason = "Permission check failed (/vms/100, VM.Audit)".to_owned();
    it.fault(&config_of(ODD), Fault::Status { status: 403, reason });
    it.partial(&["guest 100", "HTTP 403", "VM.Audit"]).await;
    assert_eq!(it.changes().await, [RENAMED]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_machines_can_not_be_listed() {
    let it = Synced::new(&Graph::Embedded).await;
    it.rename_other();
    it.world().rename(CONTAINER, "renamed-container").unwrap();
    it.world().rename(103, "renamed-far").unwrap();
    it.fault("/nodes/pve1/qemu", Fault::Status { status: 500, reason: "got timeout".to_owned() });
    it.partial(&["qemu on pve1 failed", "got timeout"]).await;
    let expected = [
        "ProxmoxVM pve1:102 name: \"container\" -> \"renamed-container\"",
        "ProxmoxVM pve2:103 name: \"far\" -> \"renamed-far\"",
    ];
    assert_eq!(it.changes().await, expected);
    let stale = it
        .rig
        .read("MATCH (v:ProxmoxVM) WHERE v.stale_since IS NOT NULL RETURN v.vmid AS vmid ORDER BY vmid")
        .await;
    assert_eq!(stale, [json!({ "vmid": 100 }), json!({ "vmid": 101 })]);
}

// --- Storages and backup jobs ---

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_storage_type() {
    let it = Synced::new(&Graph::Embedded).await;
    let storages = it.answer("/storage").await;
    let at = storages.as_array().unwrap().iter().position(|row| row["storage"] == "nfs-vm").unwrap();
    it.fault("/storage", Fault::Replace { pointer: format!("/data/{at}/type"), value: json!("quantumfs") });
    it.rig.sync(0).await;
    assert_eq!(it.changes().await, ["ProxmoxStorage nfs-vm type: \"nfs\" -> \"quantumfs\""]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_odd_storage_keeps_what_is_not_understood() {
    let it = Synced::new(&Graph::Embedded).await;
    it.rename_other();
    let storages = it.answer("/storage").await;
    let place =
        |name: &str| storages.as_array().unwrap().iter().position(|row| row["storage"] == name).unwrap();
    let replace = |at: usize, key: &str, value: Value| {
        it.fault("/storage", Fault::Replace { pointer: format!("/data/{at}/{key}"), value });
    };
    for key in ["type", "content", "shared"] {
        replace(place("nfs-vm"), key, json!([1]));
    }
    // Where it is allowed, and that it is turned off.
    replace(place("scratch"), "nodes", json!({ "pve2": 1 }));
    replace(place("old-nfs"), "disable", json!("perhaps"));
    it.partial(&[
        "storage=nfs-vm",
        "`content`",
        "storage=scratch",
        "`nodes`",
        "storage=old-nfs",
        "`disable`",
    ])
    .await;
    assert_eq!(it.changes().await, [RENAMED]);
    // One whose name is odd is not gone.
    it.server.faults().clear();
    replace(place("nfs-vm"), "storage", Value::Null);
    it.partial(&["storages partial", "entries of the listing were not understood"]).await;
    assert_eq!(it.changes().await, [RENAMED]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_odd_backup_job_keeps_what_is_not_understood() {
    let it = Synced::new(&Graph::Embedded).await;
    it.rename_other();
    let jobs = it.answer("/cluster/backup").await;
    for at in 0..jobs.as_array().unwrap().len() {
        for key in
            ["enabled", "schedule", "storage", "mode", "all", "vmid", "exclude", "pool", "node", "comment"]
        {
            let pointer = format!("/data/{at}/{key}");
            it.fault("/cluster/backup", Fault::Replace { pointer, value: json!({ "not": "it" }) });
        }
    }
    it.partial(&["/cluster/backup", "`enabled`", "`vmid`", "`storage`"]).await;
    assert_eq!(it.changes().await, [RENAMED]);
    it.server.faults().clear();
    // A number in a list of them.
    let at = jobs.as_array().unwrap().iter().position(|job| job.get("vmid").is_some());
    let (at, key) = at.map_or((0, "exclude"), |at| (at, "vmid"));
    let pointer = format!("/data/{at}/{key}");
    it.fault("/cluster/backup", Fault::Replace { pointer, value: json!("100,one hundred") });
    it.partial(&["/cluster/backup", "one hundred"]).await;
    assert_eq!(it.changes().await, [RENAMED]);
    // One job that is really gone, goes, with no other.
    it.server.faults().clear();
    let gone = jobs[0]["id"].as_str().unwrap().to_owned();
    it.world().remove_backup_job(&gone).unwrap();
    let ran = it.rig.sync(0).await;
    assert_eq!(ran.counts("ProxmoxBackupJob")[3], 1);
    assert!(it.changes().await.iter().all(|change| change.contains(&gone) || change == RENAMED));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_odd_answer_about_a_jobs_volumes() {
    let it = Synced::new(&Graph::Embedded).await;
    let jobs = it.answer("/cluster/backup").await;
    for (what, fault) in no_answers() {
        println!("{what}");
        for job in jobs.as_array().unwrap() {
            let id = job["id"].as_str().unwrap();
            it.fault(&format!("/cluster/backup/{id}/included_volumes"), fault.clone());
        }
        it.partial(&["backup_jobs partial"]).await;
        it.server.faults().clear();
    }
    // A volume that can't be told: the others of its job stay too.
    let id = jobs[0]["id"].as_str().unwrap();
    let path = format!("/cluster/backup/{id}/included_volumes");
    let children = it.answer(&path).await["children"].clone();
    let at = children.as_array().unwrap().iter().position(|guest| guest["children"][0].is_object()).unwrap();
    let pointer = format!("/data/children/{at}/children/0/id");
    it.fault(&path, Fault::Replace { pointer, value: json!("scsi0") });
    it.partial(&["backup_jobs partial"]).await;
    assert_eq!(it.changes().await, [""; 0]);
}

// --- The store ---

async fn neo4j() -> (Synced, pvegraph_testkit::Exclusive) {
    let db = pvegraph_testkit::emptied().await;
    (Synced::new(&Graph::Neo4j((*db).clone())).await, db)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_neo4j_with_another_password() {
    let (it, db) = neo4j().await;
    fs::write(it.rig.dir.path().join("bad.password"), "hunter2").unwrap();
    let words =
        [db.bolt_uri.as_str(), "refused the credentials", "check `user` and `password_file` in [store]"];
    it.refused(&[("neo4j.password", "bad.password")], 12, &words).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_neo4j_that_is_down() {
    let (it, db) = neo4j().await;
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let uri = format!("bolt://{port}");
    it.refused(&[(&db.bolt_uri, &uri)], 14, &[&uri, "can't be reached", "check that it runs there"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_neo4j_that_never_answers() {
    let (it, db) = neo4j().await;
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let uri = format!("bolt://{}", silent.local_addr().unwrap());
    let short = format!("{uri}\"\nconnect_timeout = \"1s\"\nrequest_timeout = \"2s");
    it.refused(&[(&db.bolt_uri, &short)], 14, &[&uri]).await;
}

/// The graph as `change` leaves it is refused, and neither the sync nor `migrate up` touches it.
async fn refused_migrations(change: &str, words: &[&str], up: Option<i32>) {
    let (it, db) = neo4j().await;
    let server: &Neo4jServer = &db;
    server.cypher(change, json!({})).await;
    let records = "MATCH (m:PvegraphMigration) RETURN properties(m) AS m ORDER BY m.version";
    let before = server.cypher(records, json!({})).await;
    it.refused(&[], 14, words).await;
    it.with(&[], &["sync", "--dry-run"]).await.ended(14).says(words);
    assert_eq!(server.cypher(records, json!({})).await, before);
    if let Some(code) = up {
        let ran = it.with(&[], &["migrate", "up"]).await.ended(code);
        if code == 0 {
            it.with(&[], &["sync"]).await.ended(0);
        } else {
            assert!(ran.err.contains("0001_"), "{}", ran.err);
            assert_eq!(server.cypher(records, json!({})).await, before);
        }
        assert_eq!(it.changes().await, [""; 0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn edited_migrations() {
    refused_migrations(
        "MATCH (m:PvegraphMigration {version: 1}) SET m.checksum = 'edited'",
        &["migration 0001_", "was changed after it was applied", "restore its files"],
        Some(14),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn migrations_of_a_newer_program() {
    refused_migrations(
        "CREATE (:PvegraphMigration {id: '9999', version: 9999, name: 'future', checksum: 'x', state: 'applied'})",
        &["migration 9999_future", "newer"],
        None,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pending_migrations() {
    let db = pvegraph_testkit::emptied().await;
    let it = Synced::new(&Graph::Neo4j((*db).clone())).await;
    let newest = "MATCH (m:PvegraphMigration) WITH m ORDER BY m.version DESC LIMIT 1";
    let count = db.cypher("MATCH (m:PvegraphMigration) RETURN count(m) AS count", json!({})).await;
    db.cypher(&format!("{newest} DETACH DELETE m"), json!({})).await;
    if count[0]["count"].as_u64() > Some(1) {
        it.refused(&[], 14, &["is pending", "run `pvegraph migrate up`"]).await;
        it.with(&[], &["migrate", "up"]).await.ended(0);
    }
    // With none at all, it is a graph that has no schema yet: it gets it.
    it.with(&[], &["sync"]).await.ended(0);
    assert_eq!(it.changes().await, [""; 0]);
}
