//! The transport, authentication and faults, as a client sees them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod support;

use std::time::Duration;

use pve_sim::{
    AUDIT_TOKEN, Credential, Fault, FaultRule, GuestKind, POOL_TOKEN, ROOT_TOKEN, RecordedEstate, SimError,
    SimOptions, SimServer, TFA_USER, World, WorldSpec,
};
use serde_json::{Value, json};
use support::{client, get, recordings, send, token};

const SEED: u64 = 31;

async fn start(options: SimOptions) -> SimServer {
    println!("seed {SEED}");
    let world = World::generate(&WorldSpec::new("rig", 3, 40, SEED));
    SimServer::start(world, options).await.unwrap()
}

fn credential(server: &SimServer, id: &str) -> Credential {
    server.world().unwrap().credential(id).unwrap()
}

/// The first guest of a kind on a node.
fn some_guest(server: &SimServer, kind: GuestKind, node: &str) -> u32 {
    server
        .world()
        .unwrap()
        .read(|state| state.guests_on(node).find(|guest| guest.kind == kind).map(|guest| guest.vmid).unwrap())
}

#[tokio::test]
async fn successes_and_errors_have_the_recorded_headers_and_texts() {
    let server = start(SimOptions::default()).await;
    let root = credential(&server, ROOT_TOKEN);
    let ok = get(&server, &root, "/version").await;
    assert_eq!((ok.status, ok.reason.as_str()), (200, "OK"));
    assert_eq!(ok.headers["connection"], "Keep-Alive");
    assert_eq!(ok.headers["content-type"], "application/json;charset=UTF-8");
    assert_eq!(ok.headers["server"], "pve-api-daemon/3.0");
    assert_eq!(ok.data()["version"], "8.4.21");

    let unknown = get(&server, &root, "/nodes/pve1/nosuch").await;
    assert_eq!(
        (unknown.status, unknown.reason.as_str()),
        (501, "Method 'GET /nodes/pve1/nosuch' not implemented")
    );
    assert_eq!(unknown.headers["connection"], "close");
    assert_eq!(unknown.json()["message"], "Method 'GET /nodes/pve1/nosuch' not implemented");

    let guest = get(&server, &root, "/nodes/pve1/qemu/99999/config").await;
    let text = "Configuration file 'nodes/pve1/qemu-server/99999.conf' does not exist";
    assert_eq!((guest.status, guest.reason.as_str()), (500, text));
    assert_eq!(guest.json(), json!({"data": null, "message": format!("{text}\n")}));

    let outside = send(client(&server).get(format!("{}/nosuch", server.url()))).await;
    assert_eq!((outside.status, outside.reason.as_str()), (500, "no such file '/nosuch'"));
    let format = client(&server).get(format!("{}/api2/xyz/version", server.url()));
    let format = send(format.header("Authorization", token(&root))).await;
    assert_eq!((format.status, format.reason.as_str()), (501, "no formatter for uri /version, xyz"));
    let head = client(&server).head(format!("{}/api2/json/version", server.url()));
    let head = send(head.header("Authorization", token(&root))).await;
    assert_eq!((head.status, head.reason.as_str()), (501, "method 'HEAD' not available"));
    server.shutdown().await;
}

#[tokio::test]
async fn parameters_are_checked_with_the_recorded_texts() {
    let server = start(SimOptions::default()).await;
    let root = credential(&server, ROOT_TOKEN);
    for (path, name, text) in [
        (
            "/nodes/pve1/qemu?foo=1",
            "foo",
            "property is not defined in schema and the schema does not allow additional properties",
        ),
        ("/nodes/pve1/qemu?full=yes", "full", "type check ('boolean') failed - got 'yes'"),
        ("/nodes/pve1/qemu/99/config", "vmid", "invalid format - value does not look like a valid VM ID\n"),
        ("/nodes/pve1/qemu/abc/config", "vmid", "type check ('integer') failed - got 'abc'"),
        ("/nodes/pve1/storage/nosuch/status", "storage", "No such storage."),
        ("/cluster/backup/nosuch", "id", "No such job 'nosuch'"),
    ] {
        let got = get(&server, &root, path).await;
        assert_eq!((got.status, got.reason.as_str()), (400, "Parameter verification failed."), "{path}");
        assert_eq!(got.json()["errors"], json!({name: text}), "{path}");
    }
    let taken = some_guest(&server, GuestKind::Qemu, "pve1");
    let got = get(&server, &root, &format!("/cluster/nextid?vmid={taken}")).await;
    assert_eq!(got.json()["errors"]["vmid"], format!("VM {taken} already exists"));
    for (path, text) in [
        ("/pools/nosuch", "pool 'nosuch' does not exist"),
        ("/storage/nosuch", "storage 'nosuch' does not exist"),
        (
            "/nodes/nosuch/qemu",
            "hostname lookup 'nosuch' failed - failed to get address info for: nosuch: Name or service not known",
        ),
    ] {
        let got = get(&server, &root, path).await;
        assert_eq!((got.status, got.reason.as_str()), (500, text), "{path}");
    }
}

#[tokio::test]
async fn refusals_to_authenticate_differ_in_their_reason() {
    let server = start(SimOptions::default()).await;
    let url = format!("{}/api2/json/version", server.url());
    let root = credential(&server, ROOT_TOKEN);
    let get = || client(&server).get(&url);
    for (request, reason) in [
        (get(), "No ticket"),
        (get().header("Authorization", format!("PVEAPIToken={}=wrong", root.id)), "Authentication failed!"),
        (get().header("Authorization", "PVEAPIToken=root@pam!nosuch=x"), "Authentication failed!"),
        (get().header("Authorization", "PVEAPIToken=malformed"), "Authentication failed!"),
        (get().header("Cookie", "PVEAuthCookie=PVE:root@pam:00000000::x"), "Authentication failed!"),
    ] {
        let got = send(request).await;
        assert_eq!((got.status, got.reason.as_str(), got.body.as_str()), (401, reason, ""));
        assert!(!got.headers.contains_key("content-type"), "{got:?}");
    }
    let world = server.world().unwrap();
    let token_header = token(&credential(&server, AUDIT_TOKEN));
    assert_eq!(send(get().header("Authorization", &token_header)).await.status, 200);
    world.remove_token("audit@pve", "sim").unwrap();
    assert_eq!(send(get().header("Authorization", &token_header)).await.status, 401);
}

async fn login(server: &SimServer, fields: &[(&str, &str)]) -> support::Got {
    send(client(server).post(format!("{}/api2/json/access/ticket", server.url())).form(fields)).await
}

#[tokio::test]
async fn tickets_are_issued_renewed_and_expire() {
    let server = start(SimOptions::default()).await;
    let world = server.world().unwrap();
    let password = world.password("admin@pve").unwrap();
    for fields in [
        [("username", "admin@pve"), ("password", "wrong")],
        [("username", "nobody@pve"), ("password", "x")],
        [("username", "admin"), ("password", password.as_str())],
    ] {
        let got = login(&server, &fields).await;
        assert_eq!((got.status, got.reason.as_str()), (401, "authentication failure"));
        assert_eq!(got.json(), json!({"data": null, "message": "authentication failure\n"}));
    }
    let got = login(&server, &[("username", "admin@pve")]).await;
    assert_eq!(got.json()["errors"]["password"], "property is missing and it is not optional");

    let data =
        login(&server, &[("username", "admin"), ("realm", "pve"), ("password", &password)]).await.data();
    assert_eq!((&data["username"], &data["clustername"]), (&json!("admin@pve"), &json!("rig")));
    assert_eq!(data["cap"]["vms"]["VM.Audit"], 1);
    let ticket = data["ticket"].as_str().unwrap().to_owned();
    assert!(ticket.starts_with("PVE:admin@pve:"), "{ticket}");
    let url = format!("{}/api2/json/cluster/status", server.url());
    let encoded: String = url::form_urlencoded::byte_serialize(ticket.as_bytes()).collect();
    for cookie in [&ticket, &encoded.replace('+', "%2B")] {
        let got = send(client(&server).get(&url).header("Cookie", format!("PVEAuthCookie={cookie}"))).await;
        assert_eq!(got.status, 200, "{got:?}");
    }
    world.advance_clock(2 * 60 * 60 - 60);
    let renewed = login(&server, &[("username", "admin@pve"), ("password", &ticket)]).await.data();
    let renewed = renewed["ticket"].as_str().unwrap();
    world.advance_clock(120);
    let with =
        |ticket: &str| send(client(&server).get(&url).header("Cookie", format!("PVEAuthCookie={ticket}")));
    let old = with(&ticket).await;
    assert_eq!((old.status, old.reason.as_str()), (401, "Authentication failed!"));
    assert_eq!(with(renewed).await.status, 200);
    assert_eq!(login(&server, &[("username", "admin@pve"), ("password", &ticket)]).await.status, 401);
}

#[tokio::test]
async fn a_write_with_a_ticket_needs_the_csrf_token_and_a_token_cannot_log_in() {
    let server = start(SimOptions::default()).await;
    let password = server.world().unwrap().password("admin@pve").unwrap();
    let data = login(&server, &[("username", "admin@pve"), ("password", &password)]).await.data();
    let cookie = format!("PVEAuthCookie={}", data["ticket"].as_str().unwrap());
    let post = || client(&server).post(format!("{}/api2/json/pools", server.url())).header("Cookie", &cookie);
    let got = send(post()).await;
    assert_eq!(
        (got.status, got.reason.as_str(), got.body.as_str()),
        (401, "Permission denied - invalid csrf token", "")
    );
    let got = send(post().header("CSRFPreventionToken", data["CSRFPreventionToken"].as_str().unwrap())).await;
    assert_eq!((got.status, got.reason.as_str()), (400, "Parameter verification failed."));

    let request = client(&server).post(format!("{}/api2/json/access/ticket", server.url()));
    let request = request.header("Authorization", token(&credential(&server, ROOT_TOKEN)));
    let got = send(request.form(&[("username", "root@pam"), ("password", "x")])).await;
    let text =
        "Permission check failed (URI '/access/ticket' not available with API token, need proper ticket.";
    assert_eq!((got.status, got.reason.as_str()), (403, text));
    assert_eq!(got.json()["message"], format!("{text}\n)\n"));
    let got = send(client(&server).get(format!("{}/api2/json/access/ticket", server.url()))).await;
    assert_eq!((got.status, got.json()), (200, json!({"data": null})));
    let got = client(&server).post(format!("{}/api2/json/access/ticket", server.url()));
    let got = send(got.header("Content-Type", "text/plain").body("username=x")).await;
    assert_eq!((got.status, got.reason.as_str()), (506, "upload 'Content-Type 'text/plain' not implemented"));
}

#[tokio::test]
async fn a_second_factor_is_asked_for_and_checked() {
    let server = start(SimOptions::default()).await;
    let world = server.world().unwrap();
    let password = world.password(TFA_USER).unwrap();
    let first = login(&server, &[("username", TFA_USER), ("password", &password)]).await.data();
    assert_eq!(first["NeedTFA"], 1);
    let challenge = first["ticket"].as_str().unwrap();
    assert!(challenge.starts_with("PVE:!tfa!{\"totp\"%3Atrue}:"), "{challenge}");
    let cookie = format!("PVEAuthCookie={challenge}");
    let got =
        send(client(&server).get(format!("{}/api2/json/version", server.url())).header("Cookie", cookie))
            .await;
    assert_eq!(got.status, 401);
    world.set_totp(TFA_USER, Some("123456")).unwrap();
    let second = |code: &'static str, challenge: &str| {
        let fields = [("username", TFA_USER), ("password", code), ("tfa-challenge", challenge)];
        let fields = fields.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let url = format!("{}/api2/json/access/ticket", server.url());
        send(client(&server).post(url).form(&fields))
    };
    assert_eq!(second("totp:000000", challenge).await.status, 401);
    let got = second("totp:123456", challenge).await;
    assert!(got.data()["ticket"].as_str().unwrap().starts_with("PVE:tfa@pve:"), "{got:?}");
}

#[tokio::test]
async fn an_offline_node_gives_595_and_its_own_endpoint_drops_connections() {
    let server = start(SimOptions { endpoints: 3, ..SimOptions::default() }).await;
    let world = server.world().unwrap();
    let root = credential(&server, ROOT_TOKEN);
    assert_eq!(server.endpoints().len(), 3);
    let distinct: std::collections::BTreeSet<_> =
        server.endpoints().iter().map(|end| &end.fingerprint).collect();
    assert_eq!(distinct.len(), 3);
    let rows = get(&server, &root, "/nodes").await.data();
    assert_eq!(rows[0]["ssl_fingerprint"], server.fingerprint());
    let certificates = get(&server, &root, "/nodes/pve1/certificates/info").await.data();
    assert_eq!(certificates[0]["pem"], server.ca_pem());
    assert!(certificates[1]["pem"].as_str().unwrap().starts_with("-----BEGIN CERTIFICATE-----"));
    let second = &server.urls()[1];
    let via = |url: &str| {
        let request = client(&server).get(format!("{url}/api2/json/cluster/status"));
        request.header("Authorization", token(&root)).send()
    };
    let status: Value = serde_json::from_str(&via(second).await.unwrap().text().await.unwrap()).unwrap();
    let local: Vec<&Value> =
        status["data"].as_array().unwrap().iter().filter(|row| row["local"] == 1).collect();
    assert_eq!(local[0]["name"], "pve2");

    world.set_node_online("pve2", false).unwrap();
    assert!(via(second).await.is_err());
    for path in ["/nodes/pve2/qemu", "/nodes/pve2/status", "/nodes/pve2/qemu/99999/config"] {
        let got = get(&server, &root, path).await;
        assert_eq!(
            (got.status, got.reason.as_str(), got.body.as_str()),
            (595, "No route to host", ""),
            "{path}"
        );
    }
    assert_eq!(get(&server, &root, "/nodes/pve2").await.status, 200);
    let rows = |data: Value| data.as_array().unwrap().clone();
    let guest = some_guest(&server, GuestKind::Qemu, "pve2");
    let row = |rows: Vec<Value>| rows.into_iter().find(|row| row["vmid"] == guest).unwrap();
    let before = row(rows(get(&server, &root, "/cluster/resources?type=vm").await.data()));
    assert!(before["name"].is_string() && before["status"] != "unknown");
    world.forget_offline("pve2").unwrap();
    let after = row(rows(get(&server, &root, "/cluster/resources?type=vm").await.data()));
    assert_eq!(after["status"], "unknown");
    assert!(after.get("name").is_none() && after.get("maxmem").is_none(), "{after}");
    world.set_node_online("pve2", true).unwrap();
    assert_eq!(row(rows(get(&server, &root, "/cluster/resources?type=vm").await.data())), before);
}

#[tokio::test]
async fn faults_strike_as_asked() {
    let server = start(SimOptions::default()).await;
    let root = credential(&server, ROOT_TOKEN);
    let faults = server.faults();
    let status = Fault::Status { status: 500, reason: "it broke".into() };
    faults.add(FaultRule::below("/nodes/pve1", status).times(2));
    for _ in 0..2 {
        let got = get(&server, &root, "/nodes/pve1/lxc").await;
        assert_eq!((got.status, got.reason.as_str()), (500, "it broke"));
    }
    assert_eq!(get(&server, &root, "/nodes/pve1/lxc").await.status, 200);

    faults.add(FaultRule::at("/version", Fault::BareStatus { status: 596, reason: "Timeout".into() }));
    let got = get(&server, &root, "/version").await;
    assert_eq!((got.status, got.reason.as_str(), got.body.as_str()), (596, "Timeout", ""));
    faults.clear();

    let path = "/cluster/nextid";
    let request = || {
        let request = client(&server).get(format!("{}/api2/json{path}", server.url()));
        request.header("Authorization", token(&root))
    };
    faults.add(FaultRule::at(path, Fault::Drop));
    assert!(request().send().await.is_err());
    faults.clear();
    faults.add(FaultRule::at(path, Fault::Truncate(5)));
    assert!(request().send().await.unwrap().text().await.is_err());
    faults.clear();
    faults.add(FaultRule::at(path, Fault::Html));
    let got = get(&server, &root, path).await;
    assert!(got.status == 200 && got.body.starts_with("<!DOCTYPE html>"), "{got:?}");
    faults.clear();
    faults.add(FaultRule::at(path, Fault::Body(b"{\"data\":".to_vec())));
    assert_eq!(get(&server, &root, path).await.body, "{\"data\":");
    faults.clear();
    faults.add(FaultRule::at(path, Fault::Replace { pointer: "/data".into(), value: json!([7]) }));
    assert_eq!(get(&server, &root, path).await.data(), json!([7]));
    faults.clear();
    faults.add(FaultRule::at(path, Fault::Latency(Duration::from_millis(1))));
    assert_eq!(get(&server, &root, path).await.status, 200);
    faults.add(FaultRule::at(path, Fault::Hang));
    assert!(tokio::time::timeout(Duration::from_millis(200), request().send()).await.is_err());
    server.shutdown().await;
}

#[tokio::test]
async fn requests_and_connections_are_counted() {
    let server = start(SimOptions::default()).await;
    let root = credential(&server, ROOT_TOKEN);
    server.faults().add(FaultRule::at("/version", Fault::Hang).times(3));
    let hanging: Vec<_> = (0..3)
        .map(|_| {
            let request = client(&server).get(format!("{}/api2/json/version", server.url()));
            tokio::spawn(request.header("Authorization", token(&root)).send())
        })
        .collect();
    let counters = server.counters();
    // They hang until they are told to stop, so this ends as soon as all three are there.
    while counters.highest_concurrency() < 3 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    hanging.into_iter().for_each(|request| request.abort());
    let path = "/nodes/pve1/qemu";
    get(&server, &root, &format!("{path}?full=1")).await;
    assert_eq!((counters.total(), counters.of("/version"), counters.of(path)), (4, 3, 1));
    assert_eq!(counters.connections(), 4);
    assert_eq!(counters.by_path().len(), 2);
}

#[tokio::test]
async fn it_listens_on_loopback_unless_allowed() {
    let world = World::generate(&WorldSpec::new("rig", 1, 0, 1));
    let listen = "0.0.0.0:0".parse().unwrap();
    let refused = SimServer::start(world, SimOptions { listen, ..SimOptions::default() }).await;
    assert!(matches!(refused, Err(SimError::NotLoopback { .. })), "{refused:?}");
    let world = World::from_state(pve_sim::State::empty());
    assert!(matches!(SimServer::start(world, SimOptions::default()).await, Err(SimError::NoNodes)));
}

#[tokio::test]
async fn a_stopped_server_frees_its_port() {
    let server = start(SimOptions::default()).await;
    let listen = server.endpoints()[0].address;
    let root = credential(&server, ROOT_TOKEN);
    get(&server, &root, "/version").await;
    server.shutdown().await;
    assert!(tokio::net::TcpStream::connect(listen).await.is_err());
}

#[tokio::test]
async fn the_genuine_estate_is_served_as_it_was_recorded() {
    let Some(folder) = recordings("the_genuine_estate_is_served_as_it_was_recorded") else { return };
    let estate = RecordedEstate::read(&folder.join("estate-8.4/root.jsonl")).unwrap();
    let only = estate.clone().only_token("reader@pve!app", "secret");
    let server = SimServer::start_recorded(estate, SimOptions::default()).await.unwrap();
    let any = Credential { id: "any@pve!x".into(), secret: "y".into() };
    let client = client(&server);
    for line in support::estate(&folder, "root.jsonl") {
        let request = client.get(format!("{}/api2/json{}", server.url(), line.path));
        let got = send(request.header("Authorization", token(&any))).await;
        assert_eq!((got.status, &got.reason), (line.status, &line.reason), "{}", line.path);
        let json = if got.body.is_empty() { Value::Null } else { got.json() };
        assert_eq!(json, line.json, "{}", line.path);
    }
    let got = get(&server, &any, "/nosuch").await;
    assert_eq!((got.status, got.reason.as_str()), (501, "Method 'GET /nosuch' not implemented"));
    assert_eq!(send(client.get(format!("{}/api2/json/version", server.url()))).await.reason, "No ticket");

    let server = SimServer::start_recorded(only, SimOptions::default()).await.unwrap();
    assert_eq!(get(&server, &any, "/version").await.reason, "Authentication failed!");
    let right = Credential { id: "reader@pve!app".into(), secret: "secret".into() };
    assert_eq!(get(&server, &right, "/version").await.status, 200);
}

#[tokio::test]
async fn a_pool_token_reads_over_https_what_its_pool_holds() {
    let server = start(SimOptions::default()).await;
    let pool = credential(&server, POOL_TOKEN);
    let got = get(&server, &pool, "/cluster/status").await;
    assert_eq!((got.status, got.reason.as_str()), (403, "Permission check failed (/, Sys.Audit)"));
    assert_eq!(got.json()["message"], "Permission check failed (/, Sys.Audit)\n");
    let rows = get(&server, &pool, "/cluster/resources?type=vm").await.data();
    assert!(rows.as_array().unwrap().iter().all(|row| row["pool"] == "prod"), "{rows}");
}
