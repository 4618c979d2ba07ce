//! `/nodes` and what each node says of itself.

use serde_json::{Map, Value, json};

use super::metrics::{node_cpu, node_uptime, number};
use super::{Call, cluster};
use crate::answer::{Answer, Rows};
use crate::world::fingerprint;
use crate::world::state::{EPOCH, Node};

/// The version that all nodes run.
pub const VERSION: &str = "8.4.21";
const REPO_ID: &str = "2606ac850d46da29";

/// `/version` of the cluster and of a node. The datacenter's one also has its console setting.
pub fn version(call: &Call<'_>) -> Result<Answer, Answer> {
    let mut data = json!({"release": "8.4", "repoid": REPO_ID, "version": VERSION});
    if call.text("node").is_empty()
        && let Some(console) = call.state.options.get("console")
    {
        data["console"] = console.clone();
    }
    Ok(Answer::ok(data))
}

/// All nodes, with the fingerprints of their certificates and without their addresses.
pub fn list(call: &Call<'_>) -> Result<Answer, Answer> {
    let mut rows = Rows::default();
    for node in call.state.nodes.values() {
        let mut row = cluster::node_row(call, node);
        row["ssl_fingerprint"] = json!(node.fingerprint);
        rows.push(&row);
    }
    Ok(Answer::rows(rows))
}

/// A node's index; also an offline node's, for the node asked answers it.
pub fn index(call: &Call<'_>) -> Result<Answer, Answer> {
    call.node()?;
    let names = [
        "aplinfo",
        "apt",
        "capabilities",
        "ceph",
        "certificates",
        "config",
        "disks",
        "dns",
        "firewall",
        "hardware",
        "hosts",
        "journal",
        "lxc",
        "migrateall",
        "netstat",
        "network",
        "qemu",
        "query-url-metadata",
        "replication",
        "report",
        "rrd",
        "rrddata",
        "scan",
        "sdn",
        "services",
        "spiceshell",
        "startall",
        "status",
        "stopall",
        "storage",
        "subscription",
        "suspendall",
        "syslog",
        "tasks",
        "termproxy",
        "time",
        "version",
        "vncshell",
        "vzdump",
        "wakeonlan",
    ];
    Ok(Answer::ok(names.iter().map(|name| json!({"name": name})).collect()))
}

/// A node's hardware and load.
pub fn status(call: &Call<'_>) -> Result<Answer, Answer> {
    let node = call.node()?;
    let kernel = "6.8.12-11-pve";
    let build = "#1 SMP PREEMPT_DYNAMIC PMX 6.8.12-11 (2025-05-22T09:39Z)";
    let cpu = node_cpu(call, node);
    let load = cpu * f64::from(node.cpus);
    let boot = if call.state.legacy_boot.contains(node.name.as_ref()) {
        json!({"mode": "legacy-bios"})
    } else {
        json!({"mode": "efi", "secureboot": 0})
    };
    let free = |total: u64, used: u64| total.saturating_sub(used);
    Ok(Answer::ok(json!({
        "boot-info": boot,
        "cpu": number(cpu),
        "cpuinfo": {
            "cores": node.cpus / 2, "cpus": node.cpus, "flags": "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr vmx aes",
            "hvm": "1", "mhz": "2600.000", "model": "Intel(R) Xeon(R) Silver 4314 CPU @ 2.40GHz", "sockets": 1,
            "user_hz": 100,
        },
        "current-kernel": {"machine": "x86_64", "release": kernel, "sysname": "Linux", "version": build},
        "idle": 0,
        "ksm": {"shared": 0},
        "kversion": format!("Linux {kernel} {build}"),
        "loadavg": [format!("{load:.2}"), format!("{load:.2}"), format!("{load:.2}")],
        "memory": {
            "free": free(node.memory.total, node.memory.used), "total": node.memory.total, "used": node.memory.used,
        },
        "pveversion": format!("pve-manager/{VERSION}/{REPO_ID}"),
        "rootfs": {
            "avail": free(node.rootfs.total, node.rootfs.used), "free": free(node.rootfs.total, node.rootfs.used),
            "total": node.rootfs.total, "used": node.rootfs.used,
        },
        "swap": {"free": 8u64 << 30, "total": 8u64 << 30, "used": 0},
        "uptime": node_uptime(call, node),
        "wait": 0,
    })))
}

/// A node's clock: the one number that always follows the real time, so that clients can compare clocks.
pub fn time(call: &Call<'_>) -> Result<Answer, Answer> {
    Ok(Answer::ok(json!({"localtime": call.now, "time": call.now, "timezone": "Etc/UTC"})))
}

/// The cluster's certification authority and the node's certificate; the PEM texts are there once a server runs.
pub fn certificates(call: &Call<'_>) -> Result<Answer, Answer> {
    let node = call.node()?;
    let name = call.state.cluster_name.as_deref().unwrap_or(&node.name);
    let issuer = format!("/CN=Proxmox Virtual Environment/OU={name}/O=PVE Cluster Manager CA");
    let row = |filename: &str, subject: &str, fingerprint: &str, pem: Option<&str>, san: Vec<String>| {
        let mut row = json!({
            "filename": filename, "fingerprint": fingerprint, "issuer": issuer, "notafter": EPOCH + 63_072_000,
            "notbefore": EPOCH - 86_400, "public-key-bits": 256, "public-key-type": "id-ecPublicKey", "san": san,
            "subject": subject,
        });
        if let Some(pem) = pem {
            row["pem"] = json!(pem);
        }
        row
    };
    let ca = call.state.ca_certificate.as_deref();
    let ca_fingerprint = fingerprint(ca.unwrap_or(name).as_bytes());
    let subject = format!("/OU=PVE Cluster Node/O=Proxmox Virtual Environment/CN={}", node.name);
    let san = vec!["127.0.0.1".to_owned(), "localhost".to_owned(), node.name.to_string()];
    Ok(Answer::ok(json!([
        row("pve-root-ca.pem", &issuer, &ca_fingerprint, ca, Vec::new()),
        row("pve-ssl.pem", &subject, &node.fingerprint, node.certificate.as_deref(), san),
    ])))
}

/// No node has a subscription.
pub fn subscription(call: &Call<'_>) -> Result<Answer, Answer> {
    let node = call.node()?;
    let server_id =
        fingerprint(node.name.as_bytes()).replace(':', "").get(..32).unwrap_or_default().to_owned();
    let mut data = json!({
        "message": "There is no subscription key", "status": "notfound",
        "url": "https://www.proxmox.com/en/proxmox-virtual-environment/pricing",
    });
    if call.allows(&format!("/nodes/{}", node.name), &["Sys.Audit"]) {
        data["serverid"] = json!(server_id);
    }
    Ok(Answer::ok(data))
}

/// A node's own configuration: its description, which ends with a newline, if it has one.
pub fn config(call: &Call<'_>) -> Result<Answer, Answer> {
    let Node { name, description, .. } = call.node()?;
    let mut data = Map::new();
    if let Some(description) = description {
        data.insert("description".to_owned(), json!(description));
    }
    if let Some(settings) = call.state.node_settings.get(name.as_ref()) {
        data.extend(settings.clone());
    }
    if !data.is_empty() {
        data.insert("digest".to_owned(), json!(crate::world::config::Config::default().digest()));
    }
    // An empty configuration is an empty object.
    Ok(Answer::ok(Value::Object(data)))
}
