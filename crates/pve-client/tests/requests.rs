//! Every request that the client has a method for is one that PVE takes, and its answer is as PVE's schema has it.
//!
//! The simulator refuses parameters that PVE's schema does not have, and ends a test whose answer breaks that schema.

// A failed expectation anywhere in a test is a failed test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;

use pve_client::{Auth, CaSource, ClientConfig, ENDPOINTS, PveClient, TaskFilter, Trust, WRITES};
use pve_sim::{BackupJob, GuestKind, ROOT_TOKEN, Selection, SimOptions, SimServer, World, WorldSpec};

/// Sends the request of one endpoint. A new endpoint fails here until it has its line.
async fn send(client: &PveClient, endpoint: &str, qemu: (&str, i64), lxc: (&str, i64)) -> Result<(), String> {
    macro_rules! ask {
        ($request:expr) => {
            $request.await.map(drop).map_err(|error| format!("{error:?}"))
        };
    }
    let node = qemu.0;
    match endpoint {
        "version" => ask!(client.version()),
        "cluster_status" => ask!(client.cluster_status()),
        "cluster_resources" => ask!(client.cluster_resources()),
        "nodes" => ask!(client.nodes()),
        "permissions" => ask!(client.permissions()),
        "permissions_on" => ask!(client.permissions_on("/vms/100")),
        "storages" => ask!(client.storages()),
        "node_storages" => ask!(client.node_storages(node)),
        "qemu_guests" => {
            ask!(client.qemu_guests(node, false))?;
            ask!(client.qemu_guests(node, true))
        }
        "lxc_guests" => ask!(client.lxc_guests(node)),
        "qemu_config" => ask!(client.qemu_config(node, qemu.1)),
        "lxc_config" => ask!(client.lxc_config(lxc.0, lxc.1)),
        "qemu_snapshots" => ask!(client.qemu_snapshots(node, qemu.1)),
        "lxc_snapshots" => ask!(client.lxc_snapshots(lxc.0, lxc.1)),
        "certificates" => ask!(client.certificates(node)),
        "node_time" => ask!(client.node_time(node)),
        "backup_jobs" => ask!(client.backup_jobs()),
        "backup_job" => ask!(client.backup_job("night")),
        "included_volumes" => ask!(client.included_volumes("night")),
        "qemu_status" => ask!(client.qemu_status(node, qemu.1)),
        "lxc_status" => ask!(client.lxc_status(lxc.0, lxc.1)),
        "qemu_pending" => ask!(client.qemu_pending(node, qemu.1)),
        "lxc_pending" => ask!(client.lxc_pending(lxc.0, lxc.1)),
        "node_tasks" => {
            ask!(client.node_tasks(node, &TaskFilter::default()))?;
            let (kind, user) = (Some("qmconfig"), Some("root@pam"));
            ask!(client.node_tasks(node, &TaskFilter { vmid: Some(qemu.1), kind, user, since: Some(1) }))
        }
        "task_status" | "task_log" => {
            let form = [("onboot", "1")];
            let started = client.post_qemu_config(node, qemu.1, &form).await;
            let upid = started.map_err(|error| format!("{error:?}"))?.ok_or("no task")?;
            if endpoint == "task_status" {
                ask!(client.task_status(&upid))
            } else {
                ask!(client.task_log(&upid, 10))
            }
        }
        other => Err(format!("{other} is not checked against PVE's schema: add its line here")),
    }
}

/// Sends the write of one endpoint. A new one fails here until it has its line.
async fn write(client: &PveClient, name: &str, qemu: (&str, i64), lxc: (&str, i64)) -> Result<(), String> {
    let digest = |error: pve_client::ApiError| format!("{error:?}");
    let form = [("tags", "one;two"), ("delete", "onboot")];
    let started = match name {
        "put_qemu_config" => client.put_qemu_config(qemu.0, qemu.1, &form).await,
        "post_qemu_config" => client.post_qemu_config(qemu.0, qemu.1, &form).await,
        "put_lxc_config" => client.put_lxc_config(lxc.0, lxc.1, &form).await,
        "resize_qemu" => client.resize_qemu(qemu.0, qemu.1, &[("disk", "scsi0"), ("size", "900G")]).await,
        "resize_lxc" => client.resize_lxc(lxc.0, lxc.1, &[("disk", "rootfs"), ("size", "900G")]).await,
        "qemu_power" => client.qemu_power(qemu.0, qemu.1, "stop", &[("timeout", "5")]).await,
        "lxc_power" => client.lxc_power(lxc.0, lxc.1, "stop", &[]).await,
        other => return Err(format!("{other} is not checked against PVE's schema: add its line here")),
    };
    let upid = started.map_err(digest)?;
    assert_eq!(upid.is_none(), name.starts_with("put_"), "{name}: {upid:?}");
    let Some(upid) = upid else { return Ok(()) };
    let end = client.follow(&upid).await.map_err(digest)?;
    if end.success { Ok(()) } else { Err(format!("{end:?}")) }
}

#[tokio::test]
async fn every_endpoint_sends_what_pves_schema_takes() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let world = World::generate(&WorldSpec::new("rig", 2, 40, 3));
    world.add_backup_job(BackupJob {
        id: "night".to_owned(),
        enabled: true,
        schedule: "daily".to_owned(),
        storage: "local".to_owned(),
        selection: Selection::All { exclude: Vec::new() },
        node: None,
        properties: serde_json::Map::new(),
    });
    let first = |kind| {
        world.read(|state| {
            let guest = state.guests.values().find(|guest| guest.kind == kind && guest.is_running()).unwrap();
            (guest.node.to_string(), i64::from(guest.vmid))
        })
    };
    let (qemu, lxc) = (first(GuestKind::Qemu), first(GuestKind::Lxc));
    let token = world.credential(ROOT_TOKEN).unwrap();
    let server = SimServer::start(world, SimOptions::default()).await.unwrap();
    let auth = Auth::Token { id: token.id.parse().unwrap(), secret: token.secret.into() };
    let trust = Trust::CaFile(CaSource::Pem(server.ca_pem().as_bytes().to_vec()));
    let client = PveClient::new(ClientConfig::new(vec![server.url().parse().unwrap()], auth, trust)).unwrap();

    let mut names = BTreeSet::new();
    let before = pve_sim::checked_answers();
    for endpoint in ENDPOINTS {
        let sent = send(&client, endpoint, (&qemu.0, qemu.1), (&lxc.0, lxc.1)).await;
        assert_eq!(sent, Ok(()), "{endpoint}");
        assert!(names.insert(endpoint), "{endpoint} is there twice");
    }
    for name in WRITES {
        let sent = write(&client, name, (&qemu.0, qemu.1), (&lxc.0, lxc.1)).await;
        assert_eq!(sent, Ok(()), "{name}");
        assert!(names.insert(name), "{name} is there twice");
    }
    if pve_sim::schema_file().is_some_and(|file| file.is_file()) {
        let sent = ENDPOINTS.len() + WRITES.len();
        assert!(pve_sim::checked_answers() >= before + sent, "every answer has been checked");
    } else {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "PVE's schema is absent");
        println!("the answers were not checked: PVE's schema is absent");
    }
    server.shutdown().await;
}
