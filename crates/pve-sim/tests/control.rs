//! The control endpoint and the faults that only writes can meet.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod support;

use pve_sim::{Fault, FaultRule, ROOT_TOKEN, SimOptions, SimServer, World, WorldSpec};
use serde_json::{Value, json};
use support::{Got, client, get, send, token};

async fn start() -> SimServer {
    SimServer::start(World::generate(&WorldSpec::new("rig", 2, 5, 4)), SimOptions::default()).await.unwrap()
}

async fn control(server: &SimServer, method: &str, path: &str, body: Value) -> Got {
    let request = client(server).request(method.parse().unwrap(), format!("{}{path}", server.url()));
    send(request.body(body.to_string())).await
}

fn write(server: &SimServer, method: &str, path: &str, form: &[(&str, &str)]) -> reqwest::RequestBuilder {
    let credential = server.world().unwrap().credential(ROOT_TOKEN).unwrap();
    let request =
        client(server).request(method.parse().unwrap(), format!("{}/api2/json{path}", server.url()));
    request.header("Authorization", token(&credential)).form(form)
}

#[tokio::test]
async fn faults_are_set_and_removed_over_http() {
    let server = start().await;
    let credential = server.world().unwrap().credential(ROOT_TOKEN).unwrap();
    let asked = json!({"path": "/version", "fault": "status", "status": 500, "reason": "spoilt", "times": 1});
    let got = control(&server, "POST", "/sim/faults", asked).await;
    assert_eq!((got.status, got.data()), (200, json!({"id": 0})));
    assert_eq!(get(&server, &credential, "/version").await.reason, "spoilt");
    assert_eq!(get(&server, &credential, "/version").await.status, 200);
    let bad = control(&server, "POST", "/sim/faults", json!({"path": "/version", "fault": "nonsense"})).await;
    assert_eq!((bad.status, bad.reason.as_str()), (400, "there is no fault \"nonsense\""));
    control(
        &server,
        "POST",
        "/sim/faults",
        json!({"path": "/version", "fault": "jitter", "milliseconds": 1}),
    )
    .await;
    assert_eq!(control(&server, "GET", "/sim/faults", Value::Null).await.data().as_array().unwrap().len(), 2);
    assert_eq!(control(&server, "DELETE", "/sim/faults", Value::Null).await.status, 200);
    assert_eq!(control(&server, "GET", "/sim/faults", Value::Null).await.data(), json!([]));
    let counters = control(&server, "GET", "/sim/counters", Value::Null).await.data();
    assert_eq!(counters["by-path"]["/version"], 2, "{counters}");
}

#[tokio::test]
async fn a_node_goes_down_and_comes_back() {
    let server = start().await;
    let credential = server.world().unwrap().credential(ROOT_TOKEN).unwrap();
    let status = |got: Got| (got.status, got.reason);
    control(&server, "POST", "/sim/world", json!({"node": "pve2", "online": false})).await;
    let down = status(get(&server, &credential, "/nodes/pve2/qemu").await);
    assert_eq!(down, (595, "No route to host".to_owned()));
    control(&server, "POST", "/sim/world", json!({"node": "pve2", "online": true})).await;
    assert_eq!(get(&server, &credential, "/nodes/pve2/qemu").await.status, 200);
    assert_eq!(
        control(&server, "POST", "/sim/world", json!({"node": "nosuch", "online": true})).await.status,
        400
    );
    assert_eq!(control(&server, "POST", "/sim/world", json!({})).await.status, 400);
}

#[tokio::test]
async fn an_answer_is_lost_after_its_effect() {
    let server = start().await;
    server.faults().add(FaultRule::at("/pools", Fault::LoseAnswer).method("POST").times(1));
    assert!(write(&server, "POST", "/pools", &[("poolid", "made")]).send().await.is_err());
    assert!(server.world().unwrap().read(|state| state.pools.contains_key("made")));
    let again = send(write(&server, "POST", "/pools", &[("poolid", "made")])).await;
    assert_eq!(again.reason, "create pool failed: pool 'made' already exists");
}

#[tokio::test]
async fn somebody_else_takes_the_number() {
    let server = start().await;
    server.faults().add(FaultRule::at("/nodes/pve1/qemu", Fault::TakeVmid).times(1));
    let got = send(write(&server, "POST", "/nodes/pve1/qemu", &[("vmid", "5000")])).await;
    assert_eq!(got.reason, "unable to create VM 5000 - VM 5000 already exists on node 'pve1'");
    let got = send(write(&server, "POST", "/nodes/pve1/qemu", &[("vmid", "5001")])).await;
    assert_eq!(got.status, 200, "{got:?}");
}

#[tokio::test]
async fn a_lock_is_set_and_cleared() {
    let server = start().await;
    let guest = server.world().unwrap().add_guest(pve_sim::GuestSpec::qemu(700, "x").node("pve1")).unwrap();
    control(&server, "POST", "/sim/world", json!({"vmid": guest, "lock": "backup"})).await;
    let path = "/nodes/pve1/qemu/700/config";
    assert_eq!(send(write(&server, "PUT", path, &[("cores", "2")])).await.reason, "VM is locked (backup)");
    control(&server, "POST", "/sim/world", json!({"vmid": guest, "lock": null})).await;
    assert_eq!(send(write(&server, "PUT", path, &[("cores", "2")])).await.status, 200);
}
