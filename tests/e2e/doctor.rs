//! `pvegraph doctor`: what is wrong is found, named with its mend and its exit code, and nothing is written or given away.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use pve_sim::{
    AUDIT_TOKEN, Answer, Credential, Fault, FaultRule, RecordedEstate, SimOptions, SimServer, TFA_USER,
    World, WorldSpec,
};
use pvegraph_embedded_store::{EmbeddedStore, Mode};
use pvegraph_testkit::{Neo4jServer, fresh, recordings_dir};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use crate::support::{Graph, Rig};

/// Long enough for a server under test, short enough to wait for one that never answers.
const SHORT: &str = "connect_timeout = \"2s\"\nrequest_timeout = \"3s\"\n";

/// What a run told.
struct Told {
    code: Option<i32>,
    rows: Vec<Value>,
}

impl Told {
    fn ended(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}", self.shown());
        self
    }

    fn shown(&self) -> String {
        self.rows.iter().map(|row| format!("{row}\n")).collect()
    }

    /// The one row of this check whose subject has this word.
    fn row(&self, subject: &str, check: &str) -> &Value {
        let has = |row: &&Value| row["subject"].as_str().unwrap().contains(subject) && row["check"] == check;
        let found: Vec<&Value> = self.rows.iter().filter(has).collect();
        assert_eq!(found.len(), 1, "{subject} {check}: {}", self.shown());
        found[0]
    }

    /// Asserts one row's result, and words of its detail and mend.
    fn says(&self, subject: &str, check: &str, result: &str, words: &[&str]) -> &Self {
        let row = self.row(subject, check);
        assert_eq!(row["result"], result, "{}", self.shown());
        let text =
            format!("{} {}", row["detail"].as_str().unwrap(), row["mend"].as_str().unwrap_or_default());
        for word in words {
            assert!(text.contains(word), "{word:?} is not in: {text}");
        }
        self
    }

    fn mend(&self, subject: &str, check: &str) -> &str {
        self.row(subject, check)["mend"].as_str().unwrap()
    }

    /// The checks that did not end well, as `check: result`.
    fn amiss(&self) -> Vec<String> {
        let amiss = self.rows.iter().filter(|row| row["result"] != "ok");
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        amiss.map(|row| format!("{}: {}", text(&row["check"]), text(&row["result"]))).collect()
    }
}

/// Runs it, and asserts that no secret of the rig is in what it prints, not even with all logs.
async fn doctor(rig: &Rig, args: &[&str]) -> Told {
    let ran = rig.run(&[&["doctor", "-o", "json", "-vv"], args].concat()).await;
    assert!(!ran.err.contains("panicked"), "{}", ran.err);
    for entry in fs::read_dir(rig.dir.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|end| end == "token" || end == "password") {
            let secret = fs::read_to_string(&path).unwrap();
            assert!(secret.len() > 8, "a secret that is short is in every text");
            assert!(!ran.out.contains(&secret) && !ran.err.contains(&secret), "{} is shown", path.display());
        }
    }
    Told { code: ran.code, rows: ran.rows() }
}

async fn migrated(graph: &Graph) -> Rig {
    let rig = Rig::new(graph);
    rig.run(&["migrate", "up"]).await.ended(0);
    rig
}

/// Adds a cluster in words of the test's own, with short time-outs.
fn cluster(rig: &mut Rig, endpoints: &[String], more: &str) {
    let settings = &mut rig.settings;
    settings.push_str(&format!("\n[[clusters]]\nendpoints = {endpoints:?}\n{SHORT}{more}\n"));
}

/// The keys of a token, whose secret is put into a file.
fn token(rig: &Rig, Credential { id, secret }: &Credential) -> String {
    let file = format!("{}.token", id.replace(['@', '!'], "-"));
    fs::write(rig.dir.path().join(&file), secret).unwrap();
    format!("token_id = {id:?}\ntoken_secret_file = {file:?}\n")
}

/// The key of a CA file, which is written.
fn authority(rig: &Rig, name: &str, server: &SimServer) -> String {
    fs::write(rig.dir.path().join(name), server.ca_pem()).unwrap();
    format!("ca_file = {name:?}\n")
}

async fn serve(world: World) -> SimServer {
    SimServer::start(world, SimOptions::default()).await.unwrap()
}

fn world() -> World {
    World::generate(&WorldSpec::new("rig", 2, 10, 7))
}

/// A rig with one simulated cluster that an auditor's token reads: nothing is amiss in it.
async fn sound() -> (Rig, SimServer) {
    let server = serve(world()).await;
    let credential = server.world().unwrap().credential(AUDIT_TOKEN).unwrap();
    let rig = migrated(&Graph::Embedded).await.cluster(None, &server, Some(&credential));
    (rig, server)
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// A genuine estate, at the present time.
async fn recorded(test: &str, view: &str) -> Option<SimServer> {
    let path = recordings_dir(test)?.join("estate-8.4").join(format!("{view}.jsonl"));
    let mut estate = RecordedEstate::read(&path).unwrap();
    for node in ["pve1", "pve2"] {
        let path = format!("/nodes/{node}/time");
        if estate.get(&path).status == 200 {
            estate
                .set(&path, Answer::ok(json!({ "time": now(), "localtime": now(), "timezone": "Etc/UTC" })));
        }
    }
    Some(SimServer::start_recorded(estate, SimOptions::default()).await.unwrap())
}

fn credential(id: &str) -> Credential {
    Credential { id: id.to_owned(), secret: "8f14e45f-ceea-467f-a0e6-0123456789ab".to_owned() }
}

/// An endpoint that takes connections and sends `greeting`, or nothing for ever.
async fn listener(greeting: Option<&'static [u8]>) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut open = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            if let Some(greeting) = greeting {
                let _ = stream.write_all(greeting).await;
            }
            open.push(stream);
        }
    });
    address
}

/// A port that nobody listens on.
async fn closed() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_genuine_estate_seen_by_root_lacks_nothing_but_modesty() {
    let Some(server) = recorded("a_genuine_estate_seen_by_root", "root").await else { return };
    let rig = migrated(&Graph::Embedded).await.cluster(None, &server, Some(&credential("root@pam!ci")));
    let told = doctor(&rig, &[]).await.ended(0);
    assert_eq!(told.amiss(), ["least privilege: warning"], "{}", told.shown());
    told.says("cluster", "least privilege", "warning", &["Datastore.Allocate", "more"]);
    assert_eq!(
        told.mend("cluster", "least privilege"),
        "pveum user token add 'root@pam' pvegraph --privsep 1; pveum acl modify / --tokens 'root@pam!pvegraph' --roles \
         PVEAuditor; then use that token"
    );
    told.says("clusters[0]", "name", "ok", &["rig"]).says("at https", "version", "ok", &["8.4.21"]);
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_genuine_estate_seen_by_an_auditor_lacks_nothing() {
    let Some(server) = recorded("a_genuine_estate_seen_by_an_auditor", "auditor").await else { return };
    let rig = migrated(&Graph::Embedded).await.cluster(None, &server, Some(&credential("ops@pve!inv")));
    let told = doctor(&rig, &[]).await.ended(0);
    assert_eq!(told.amiss(), [""; 0], "{}", told.shown());
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_genuine_estate_seen_by_a_tenant_says_what_is_not_seen() {
    let Some(server) = recorded("a_genuine_estate_seen_by_a_tenant", "pool-limited").await else { return };
    let rig =
        migrated(&Graph::Embedded).await.cluster(Some("rig"), &server, Some(&credential("tenant@pve!inv")));
    let told = doctor(&rig, &[]).await.ended(0);
    let grant = "pveum acl modify / --users 'tenant@pve' --roles PVEAuditor; pveum acl modify / --tokens 'tenant@pve!inv' \
                 --roles PVEAuditor";
    for (check, words) in [
        ("VM.Audit on /vms", ["/vms/120, /vms/121", "stale"]),
        ("Datastore.Audit on /storage", ["/storage/data", "how full"]),
        ("Sys.Audit on /", ["no cluster status", "no backup jobs"]),
        ("Sys.Audit on /nodes", ["pve1, pve2", "no load"]),
        ("Pool.Audit on /pool", ["/pool/prod", "pools"]),
    ] {
        told.says("cluster", check, "warning", &words);
        assert_eq!(told.mend("cluster", check), grant, "{check}");
    }
    told.says("cluster \"rig\"", "quorum", "skipped", &["Sys.Audit"]).says(
        "at https",
        "clock",
        "skipped",
        &["Sys.Audit"],
    );
    assert!(!told.shown().contains("\"failed\""), "{}", told.shown());

    // Without a configured name it is not known which cluster this is.
    let rig = rig.without_clusters().cluster(None, &server, Some(&credential("tenant@pve!inv")));
    let told = doctor(&rig, &[]).await.ended(12);
    told.says(
        "clusters[0]",
        "name",
        "failed",
        &["set `name` under its [[clusters]], or: pveum acl modify / --users"],
    );
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_form_of_output_has_the_rows() {
    let (rig, server) = sound().await;
    for form in ["table", "json", "csv", "md"] {
        let ran = rig.run(&["doctor", "-o", form]).await.ended(0);
        assert_eq!(ran.err, "", "{form}");
        for word in ["subject", "detail", "VM.Audit on /vms", "least privilege", "constraints and indexes"] {
            assert!(ran.out.contains(word), "{form}: {}", ran.out);
        }
    }
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_credentials_tell_how_to_make_others() {
    let (rig, server) = sound().await;
    let rig = rig.without_clusters().cluster(Some("rig"), &server, Some(&credential("audit@pve!sim")));
    let told = doctor(&rig, &[]).await.ended(12);
    told.says("at https", "connection", "ok", &[]).says("at https", "tls", "ok", &[]).says(
        "at https",
        "authentication",
        "failed",
        &[
            "401",
            "pveum user token list 'audit@pve'",
            "pveum user add 'audit@pve'; pveum user token add 'audit@pve' sim --privsep 1; pveum acl modify / --users 'audit@pve' \
             --roles PVEAuditor; pveum acl modify / --tokens 'audit@pve!sim' --roles PVEAuditor",
        ],
    );
    told.says("at https", "clock", "skipped", &[]).says("cluster \"rig\"", "least privilege", "skipped", &[]);
    // The store is looked at all the same.
    told.says("store", "constraints and indexes", "ok", &[]);

    let user = |rig: &mut Rig, name: &str, password: &str| {
        fs::write(rig.dir.path().join("user.password"), password).unwrap();
        let more = format!("name = \"rig\"\nusername = {name:?}\npassword_file = \"user.password\"\n");
        let trust = authority(rig, "rig.pem", &server);
        rig.settings.clear();
        cluster(rig, &server.urls(), &format!("{more}{trust}"));
    };
    let mut rig = rig.without_clusters();
    user(&mut rig, "audit@pve", "wrong-password");
    let told = doctor(&rig, &[]).await.ended(12);
    told.says("at https", "authentication", "failed", &["audit@pve", "pveum passwd 'audit@pve'"]);
    let world = server.world().unwrap();
    user(&mut rig, TFA_USER, &world.password(TFA_USER).unwrap());
    let told = doctor(&rig, &[]).await.ended(12);
    told.says(
        "at https",
        "authentication",
        "failed",
        &[
            "two-factor",
            &format!("pveum user token add '{TFA_USER}' pvegraph --privsep 1"),
            "token_secret_file",
        ],
    );
    user(&mut rig, "audit@pve", &world.password("audit@pve").unwrap());
    assert_eq!(doctor(&rig, &[]).await.ended(0).amiss(), [""; 0]);
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_without_rights_of_its_own_sees_nothing() {
    let (rig, server) = sound().await;
    let world = server.world().unwrap();
    let credential = world.add_full_token("audit@pve", "bare");
    world.set_privilege_separation("audit@pve", "bare", true).unwrap();
    let rig = rig.without_clusters().cluster(Some("rig"), &server, Some(&credential));
    let told = doctor(&rig, &[]).await.ended(12);
    told.says("cluster", "VM.Audit on /vms", "failed", &["nothing to sync"]);
    assert_eq!(
        told.mend("cluster", "VM.Audit on /vms"),
        "pveum acl modify / --users 'audit@pve' --roles PVEAuditor; pveum acl modify / --tokens 'audit@pve!bare' --roles PVEAuditor"
    );
    // The mend mends it.
    world.grant("audit@pve", "PVEAuditor", "/", true).unwrap();
    world.grant("audit@pve!bare", "PVEAuditor", "/", true).unwrap();
    assert_eq!(doctor(&rig, &[]).await.ended(0).amiss(), [""; 0]);

    // An entry nearer to the guests replaces what is given at the top.
    world.grant("audit@pve!bare", "PVEDatastoreUser", "/vms", true).unwrap();
    let told = doctor(&rig, &[]).await.ended(0);
    told.says(
        "cluster",
        "VM.Audit on /vms",
        "warning",
        &[
            "pveum acl list",
            "pveum acl modify /vms --tokens 'audit@pve!bare'",
            "replaces there what the user inherits",
        ],
    );
    told.says("cluster", "Datastore.Audit on /storage", "ok", &[]);
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_s_token_is_warned_of() {
    let (rig, server) = sound().await;
    let world = server.world().unwrap();
    world.grant("admin@pve", "Administrator", "/", true).unwrap();
    let credential = world.add_full_token("admin@pve", "pvegraph");
    let rig = rig.without_clusters().cluster(None, &server, Some(&credential));
    let told = doctor(&rig, &[]).await.ended(0);
    told.says(
        "cluster",
        "least privilege",
        "warning",
        &["pveum user token add 'admin@pve' pvegraph-read --privsep 1"],
    );
    assert_eq!(told.amiss(), ["least privilege: warning"], "{}", told.shown());

    // A name is one word of the shell, whatever it holds.
    let credential = world.add_full_token("o'neil@pve", "sync");
    let rig = rig.without_clusters().cluster(Some("rig"), &server, Some(&credential));
    let told = doctor(&rig, &[]).await.ended(12);
    let mend = r"pveum acl modify / --users 'o'\''neil@pve' --roles PVEAuditor; ";
    assert!(told.mend("cluster", "VM.Audit on /vms").starts_with(mend), "{}", told.shown());
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trust_is_told_with_the_certificate_presented() {
    let server = serve(world()).await;
    let other = serve(world()).await;
    let credential = server.world().unwrap().credential(AUDIT_TOKEN).unwrap();
    let mut rig = migrated(&Graph::Embedded).await;
    let login = token(&rig, &credential);
    let pin = format!("fingerprint = \"{}\"", server.fingerprint());
    let wrong = authority(&rig, "other.pem", &other);
    let cases = [
        (pin.as_str(), 0, "ok", "it is the pinned one"),
        ("insecure = true", 0, "warning", "whoever is in between reads the secret"),
        (wrong.as_str(), 13, "failed", "copy the cluster's /etc/pve/pve-root-ca.pem"),
        ("", 13, "failed", "/etc/pve/pve-root-ca.pem"),
        (&format!("fingerprint = \"{}\"", other.fingerprint()), 13, "failed", "somebody is in between"),
        ("ca_file = \"absent.pem\"", 10, "failed", "absent.pem"),
    ];
    for (trust, code, result, words) in cases {
        rig.settings.clear();
        cluster(&mut rig, &server.urls(), &format!("{login}{trust}"));
        let asked = server.counters().total();
        let told = doctor(&rig, &[]).await.ended(code);
        assert_eq!(server.counters().total() > asked, code == 0, "who is not trusted is sent nothing");
        told.says("at https", "tls", result, &[words]).says("at https", "connection", "ok", &[]);
        if code != 10 {
            // What was presented is shown, to be compared and pinned.
            told.says("at https", "tls", result, &[server.fingerprint()]);
        }
        if code == 13 || result == "warning" {
            told.says("at https", "tls", result, &[&pin]);
        }
        if code != 0 {
            told.says("at https", "authentication", "skipped", &[]);
        }
    }

    // The right authority, for other names.
    let anywhere =
        SimOptions { listen: ([0, 0, 0, 0], 0).into(), allow_non_loopback: true, ..SimOptions::default() };
    let elsewhere = SimServer::start(world(), anywhere).await.unwrap();
    let trust = authority(&rig, "elsewhere.pem", &elsewhere);
    rig.settings.clear();
    let port = elsewhere.endpoints()[0].address.port();
    cluster(&mut rig, &[format!("https://127.0.0.2:{port}")], &format!("{login}{trust}"));
    let told = doctor(&rig, &[]).await.ended(13);
    told.says("at https", "tls", "failed", &["name or address", elsewhere.fingerprint()]);
    assert!(!told.mend("at https", "tls").contains("pve-root-ca.pem"), "{}", told.shown());
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_is_no_proxmox_ve_is_told() {
    let mut rig = migrated(&Graph::Embedded).await;
    let login = token(&rig, &credential("audit@pve!sim"));
    let silent = listener(None).await;
    let plain = listener(Some(b"HTTP/1.0 400 Bad Request\r\n\r\n")).await;
    let nobody = closed().await;
    for (address, check, words) in [
        (nobody.to_string(), "connection", "8006"),
        (silent.to_string(), "connection", "8006"),
        (plain.to_string(), "tls", "does not speak TLS"),
        ("no-such-host.invalid:8006".to_owned(), "connection", "no-such-host.invalid can't be resolved"),
    ] {
        rig.settings.clear();
        cluster(&mut rig, &[format!("https://{address}")], &login);
        let told = doctor(&rig, &[]).await.ended(13);
        told.says("at https", check, "failed", &[words]);
        told.says("at https", "authentication", "skipped", &[]).says("clusters[0]", "name", "skipped", &[]);
        told.says("store", "migrations", "ok", &[]);
    }

    let (mut rig, server) = sound().await;
    let page = server.faults().add(FaultRule::below("/", Fault::Html));
    let told = doctor(&rig, &[]).await.ended(13);
    told.says("at https", "version", "failed", &["not PVE's JSON", "text/html"]).says(
        "at https",
        "connection",
        "ok",
        &[],
    );
    server.faults().remove(page);
    server.faults().add(FaultRule::below("/", Fault::Hang));
    rig = rig.without_clusters();
    let login = token(&rig, &server.world().unwrap().credential(AUDIT_TOKEN).unwrap());
    let trust = authority(&rig, "rig.pem", &server);
    cluster(&mut rig, &server.urls(), &format!("{login}{trust}"));
    let told = doctor(&rig, &[]).await.ended(13);
    told.says("at https", "version", "failed", &["no answer within 5 s"]);
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_of_different_clusters_are_not_one() {
    let (server, other) = (serve(world()).await, serve(world()).await);
    let (here, there) = (server.url().to_owned(), other.url().to_owned());
    let mut rig = migrated(&Graph::Embedded).await;
    let login = token(&rig, &server.world().unwrap().credential(AUDIT_TOKEN).unwrap());
    let both = format!("{}{}", server.ca_pem(), other.ca_pem());
    fs::write(rig.dir.path().join("both.pem"), both).unwrap();
    let trust = "ca_file = \"both.pem\"\n";
    cluster(&mut rig, &[here.clone(), there.clone()], &format!("{login}{trust}"));
    let told = doctor(&rig, &[]).await.ended(10);
    told.says("clusters[0]", "one cluster", "failed", &[&here, &there, "[[clusters]] of its own"]);

    // One cluster under two names, and two under one.
    for (first, second, words) in [(&here, &here, "the same cluster as"), (&here, &there, "has the name of")]
    {
        rig.settings.clear();
        cluster(&mut rig, std::slice::from_ref(first), &format!("{login}{trust}name = \"a\""));
        let name = if first == second { "name = \"b\"" } else { "" };
        cluster(&mut rig, std::slice::from_ref(second), &format!("{login}{trust}{name}"));
        if name.is_empty() {
            rig.settings = rig.settings.replace("name = \"a\"", "");
        }
        let told = doctor(&rig, &[]).await.ended(10);
        let failed: Vec<&Value> = told.rows.iter().filter(|row| row["check"] == "identity").collect();
        assert_eq!(failed.len(), 2, "{}", told.shown());
        for row in failed {
            assert!(row["result"] == "failed" && row["detail"].as_str().unwrap().contains(words), "{row}");
        }
        // One of them alone is all right.
        if first == second {
            let told = doctor(&rig, &["--cluster", "b"]).await.ended(0);
            assert!(!told.shown().contains("cluster \\\"a\\\""), "{}", told.shown());
            assert_eq!(
                doctor(&rig, &["--cluster", "c"])
                    .await
                    .ended(10)
                    .says("configuration", "clusters", "failed", &["\"c\""])
                    .amiss()
                    .len(),
                1
            );
        }
    }

    // The graph knows a cluster by its authority.
    rig.settings.clear();
    cluster(&mut rig, std::slice::from_ref(&here), &format!("{login}{trust}"));
    rig.sync(0).await;
    doctor(&rig, &[]).await.ended(0).says("clusters[0]", "identity", "ok", &["knows it as rig"]);
    rig.settings = rig.settings.replace("[[clusters]]", "[[clusters]]\nname = \"renamed\"");
    doctor(&rig, &[]).await.ended(0).says("renamed", "identity", "warning", &["name = \"rig\""]);
    rig.settings.clear();
    cluster(&mut rig, &[there], &format!("{login}{trust}"));
    doctor(&rig, &[]).await.ended(10).says(
        "clusters[0]",
        "identity",
        "failed",
        &["--accept-new-authority rig"],
    );
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_in_trouble_is_warned_of() {
    let server =
        SimServer::start(world(), SimOptions { endpoints: 2, ..SimOptions::default() }).await.unwrap();
    let world = server.world().unwrap();
    let rig = migrated(&Graph::Embedded).await.cluster(
        None,
        &server,
        Some(&world.credential(AUDIT_TOKEN).unwrap()),
    );
    assert_eq!(doctor(&rig, &[]).await.ended(0).amiss(), [""; 0]);
    world.set_quorum(false);
    world.advance_clock(60);
    let expiring = json!(now() + 20 * 24 * 60 * 60);
    let certificates = "/nodes/pve1/certificates/info";
    let replace = |pointer: &str, value| Fault::Replace { pointer: pointer.to_owned(), value };
    server.faults().add(FaultRule::at(certificates, replace("/data/1/notafter", expiring)));
    server.faults().add(FaultRule::at("/version", replace("/data/version", json!("6.4-15"))));
    let told = doctor(&rig, &[]).await.ended(0);
    let [first, second] = [0, 1].map(|at| server.urls()[at].clone());
    for endpoint in [&first, &second] {
        // The node's answer may be read a moment later than it was told.
        let ahead = told.row(endpoint, "clock")["detail"].as_str().unwrap();
        assert!((50..=60).any(|seconds| ahead.contains(&format!(" {seconds} s ahead of"))), "{ahead}");
        told.says(endpoint, "clock", "warning", &["ahead of"]).says(
            endpoint,
            "version",
            "warning",
            &["6.4-15"],
        );
    }
    told.says("clusters[0]", "quorum", "warning", &["pvecm status"]);
    // The certificate is that of the endpoint's own node.
    told.says(&first, "certificate", "warning", &["pve-ssl.pem of pve1", "pvecm updatecerts -f"]);
    told.says(&second, "certificate", "ok", &["pve-ssl.pem of pve2"]);

    world.advance_clock(-600);
    let told = doctor(&rig, &[]).await.ended(1);
    told.says(&first, "clock", "failed", &["s behind this machine's"]);
    world.advance_clock(540);
    world.set_node_online("pve2", false).unwrap();
    let told = doctor(&rig, &[]).await.ended(13);
    told.says("clusters[0]", "nodes", "warning", &["not online: pve2", "offline_nodes"]);
    told.says(&second, "connection", "failed", &[]).says(&first, "authentication", "ok", &[]);
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_is_wrong_is_a_row_for_each_mistake() {
    let mut rig = Rig::new(&Graph::Embedded);
    rig.settings = "frobnicate = 1\n[sync]\nguard_form = 3\n".to_owned();
    let told = doctor(&rig, &[]).await.ended(10);
    let details: Vec<&str> = told.rows.iter().map(|row| row["detail"].as_str().unwrap()).collect();
    assert_eq!(details.len(), 2, "{details:?}");
    assert!(details[0].contains("frobnicate") && details[1].contains("`guard_from`"), "{details:?}");

    // Without a cluster the store is looked at; a secret that is absent leaves the way to the cluster.
    let mut rig = migrated(&Graph::Embedded).await;
    doctor(&rig, &[]).await.ended(0).says("configuration", "clusters", "warning", &["[[clusters]]"]);
    let server = serve(world()).await;
    let login = "token_id = \"audit@pve!sim\"\ntoken_secret_file = \"nowhere\"\n";
    cluster(&mut rig, &server.urls(), login);
    let told = doctor(&rig, &[]).await.ended(10);
    told.says("clusters[0]", "secret", "failed", &["nowhere", "token_secret_file"]).says(
        "at https",
        "connection",
        "ok",
        &[],
    );
    told.says("at https", "authentication", "skipped", &[]).says("store", "migrations", "ok", &[]);
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_embedded_file_is_looked_at_from_outside() {
    let mut rig = Rig::new(&Graph::Embedded);
    let path = rig.dir.path().join("graph.kgl");
    let told = doctor(&rig, &[]).await.ended(0);
    told.says("store", "file", "warning", &["pvegraph sync"]).says("store", "migrations", "skipped", &[]);
    assert!(!path.exists(), "a check makes no file");

    rig.run(&["migrate", "up"]).await.ended(0);
    let before = files(rig.dir.path());
    let told = doctor(&rig, &[]).await.ended(0);
    assert_eq!(told.amiss(), ["clusters: warning"], "{}", told.shown());
    assert_eq!(files(rig.dir.path()), before);

    let writer = EmbeddedStore::open(&path, Mode::Write).unwrap();
    doctor(&rig, &[]).await.ended(0).says("store", "writer", "warning", &["another process"]);
    drop(writer);
    doctor(&rig, &[]).await.ended(0).says("store", "writer", "ok", &[]);

    fs::write(&path, "this is no graph").unwrap();
    doctor(&rig, &[]).await.ended(14).says("store", "version", "failed", &["damaged"]);
    for (uri, words) in [("embedded:.", "it is a directory"), ("embedded:absent/graph.kgl", "mkdir -p")] {
        let told = doctor(&rig, &["--store", uri]).await.ended(14);
        told.says("store", "file", "failed", &[words]).says("store", "stamps", "skipped", &[]);
    }
    // The first kind that failed gives the code.
    rig.settings =
        "\n[[clusters]]\nendpoints = [\"https://127.0.0.1:1\"]\ntoken_id = \"a@pve!b\"\n".to_owned();
    doctor(&rig, &["--store", "embedded:."]).await.ended(10);
}

/// What is in a directory, configuration aside.
fn files(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    let mut files: Vec<_> = entries
        .filter(|entry| entry.file_type().unwrap().is_file())
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .collect();
    files.sort();
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn a_neo4j_is_looked_at_as_a_whole() {
    let db = fresh().await;
    let rig = Rig::new(&Graph::Neo4j((*db).clone()));
    let told = doctor(&rig, &[]).await.ended(0);
    told.says("store", "migrations", "warning", &["pvegraph migrate up"]).says(
        "store",
        "version",
        "ok",
        &["community"],
    );
    rig.run(&["migrate", "up"]).await.ended(0);
    let told = doctor(&rig, &[]).await.ended(0);
    assert_eq!(told.amiss(), ["clusters: warning"], "{}", told.shown());

    // Somebody dropped a constraint and an index; the mend, word for word, brings them back.
    db.cypher("DROP CONSTRAINT proxmox_network_interface_key", Value::Null).await;
    db.cypher("DROP INDEX proxmox_vm_name", Value::Null).await;
    let told = doctor(&rig, &[]).await.ended(14);
    let missing: Vec<&Value> =
        told.rows.iter().filter(|row| row["check"] == "constraints and indexes").collect();
    assert_eq!(missing.len(), 2, "{}", told.shown());
    let results: Vec<&str> = missing.iter().map(|row| row["result"].as_str().unwrap()).collect();
    assert_eq!(results, ["failed", "warning"]);
    for row in missing {
        let statement = row["mend"].as_str().unwrap().split_once(": ").unwrap().1;
        db.cypher(statement, Value::Null).await;
    }
    assert_eq!(doctor(&rig, &[]).await.ended(0).amiss(), ["clusters: warning"]);
    let named = db
        .cypher(
            "SHOW INDEXES YIELD name WHERE name IN ['proxmox_network_interface_key', 'proxmox_vm_name']",
            Value::Null,
        )
        .await;
    assert_eq!(named.len(), 2, "by their own names, so that a migration finds them");

    // Somebody else's node under a label of ours.
    db.cypher("CREATE (:ProxmoxVM {vmid: 7}), (:ProxmoxVM {vmid: 8}), (:ProxmoxDisk {firstseen: 1, lastupdated: 1, cluster_id: 'c'})", Value::Null)
        .await;
    let told = doctor(&rig, &[]).await.ended(0);
    told.says("store", "stamps", "warning", &["2 of ProxmoxVM", "pvegraph query 'MATCH (n:ProxmoxVM)"]);
    assert!(!told.row("store", "stamps")["detail"].as_str().unwrap().contains("ProxmoxDisk"));
    db.cypher("MATCH (n:ProxmoxVM) DELETE n", Value::Null).await;

    let hold = "MERGE (l:PvegraphLease {id: 'sync'}) SET l.holder = 'elsewhere', l.expires_at = $until";
    db.cypher(hold, json!({ "until": now() + 90 })).await;
    doctor(&rig, &[]).await.ended(0).says("store", "lease", "warning", &["held by elsewhere until"]);
    db.cypher(hold, json!({ "until": now() - 90 })).await;
    doctor(&rig, &[]).await.ended(0).says("store", "lease", "ok", &["left behind by elsewhere"]);

    let before = dump(&db).await;
    for (change, words) in [
        ("SET m.checksum = 'other'", "was changed after it was applied"),
        ("SET m.version = 99", "was applied by a newer pvegraph"),
        ("SET m.state = 'running up', m.backup = '/nowhere'", "was begun and not ended"),
    ] {
        let keep = "MATCH (m:PvegraphMigration) WITH m ORDER BY m.version LIMIT 1";
        let record =
            db.cypher(&format!("{keep} RETURN properties(m) AS m"), Value::Null).await[0]["m"].clone();
        db.cypher(&format!("{keep} {change}"), Value::Null).await;
        let changed = dump(&db).await;
        let told = doctor(&rig, &[]).await.ended(14);
        let details: String =
            told.rows.iter().filter(|row| row["check"] == "migrations").map(Value::to_string).collect();
        assert!(details.contains(words), "{}", told.shown());
        assert_eq!(dump(&db).await, changed, "a check writes nothing");
        db.cypher(
            "MATCH (m:PvegraphMigration {id: $record.id}) SET m = $record",
            json!({ "record": record }),
        )
        .await;
    }
    assert_eq!(dump(&db).await, before);
}

/// Every node of the database with its properties, and its constraints.
async fn dump(db: &Neo4jServer) -> Vec<Value> {
    let mut all = db
        .cypher("MATCH (n) RETURN labels(n) AS l, properties(n) AS p ORDER BY elementId(n)", Value::Null)
        .await;
    all.extend(db.cypher("SHOW CONSTRAINTS YIELD name RETURN name ORDER BY name", Value::Null).await);
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_neo4j_that_can_not_be_used_says_why() {
    let db = fresh().await;
    let at = |uri: String, password: &str| {
        let (bolt_uri, password) = (uri, password.to_owned());
        let mut rig = Rig::new(&Graph::Neo4j(Neo4jServer { bolt_uri, password, ..(*db).clone() }));
        rig.settings = SHORT.to_owned();
        rig
    };
    let told = doctor(&at(db.bolt_uri.clone(), "not-the-password"), &[]).await.ended(12);
    told.says("store", "connection", "ok", &[]).says(
        "store",
        "credentials",
        "failed",
        &["password_file", "NEO4J_AUTH"],
    );
    told.says("store", "migrations", "skipped", &[]);

    let address = db.bolt_uri.strip_prefix("bolt://").unwrap();
    let (nobody, silent) = (closed().await, listener(None).await);
    let web = listener(Some(b"HTTP/1.1 400 Bad Request\r\n\r\n")).await;
    for uri in [
        format!("bolt://{nobody}"),
        format!("bolt://{silent}"),
        format!("bolt://{web}"),
        format!("bolt+s://{address}"),
    ] {
        let told = doctor(&at(uri.clone(), &db.password), &[]).await.ended(14);
        told.says("store", "connection", "failed", &["`uri` in [store]"]).says(
            "store",
            "lease",
            "skipped",
            &[],
        );
    }
    let told = doctor(&at(format!("http://{address}"), &db.password), &[]).await.ended(10);
    told.says("configuration", "settings", "failed", &["bolt://HOST:PORT"]);

    let rig = at(db.bolt_uri.clone(), &db.password);
    rig.config();
    fs::remove_file(rig.dir.path().join("neo4j.password")).unwrap();
    // The rig would write the file again.
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_pvegraph"));
    let output = command
        .env_clear()
        .current_dir(rig.dir.path())
        .args(["doctor", "-o", "json"])
        .output()
        .await
        .unwrap();
    let ran = Told {
        code: output.status.code(),
        rows: serde_json::from_slice::<Value>(&output.stdout).unwrap()["rows"].as_array().unwrap().clone(),
    };
    ran.ended(10).says("store", "password", "failed", &["neo4j.password"]).says(
        "store",
        "stamps",
        "skipped",
        &[],
    );
}
