//! Answers about hardware, software and services, the same on every node and mostly fixed.

use serde_json::{Map, Value, json};

use super::Call;
use super::act::{Act, done, fail};
use super::firewall::digest_of;
use crate::answer::{Answer, Rows};
use crate::schema::split_list;

fn on_node(call: &Call<'_>, data: Value) -> Result<Answer, Answer> {
    call.node()?;
    Ok(Answer::ok(data))
}

/// The API's first index.
pub fn root() -> Answer {
    let names = ["version", "cluster", "nodes", "storage", "access", "pools"];
    Answer::ok(names.iter().map(|name| json!({"subdir": name})).collect())
}

/// Lists that are empty on a fresh cluster.
pub fn none(_: &Call<'_>) -> Result<Answer, Answer> {
    Ok(Answer::ok(json!([])))
}

/// Empty lists of a node.
pub fn none_on_node(call: &Call<'_>) -> Result<Answer, Answer> {
    on_node(call, json!([]))
}

/// ZFS's pools: none, and on a node without its programs not even a list.
pub fn zfs_pools(call: &Call<'_>) -> Result<Answer, Answer> {
    if call.state.without_zfs {
        return fail("zfsutils-linux not installed");
    }
    on_node(call, json!([]))
}

/// LVM's volume groups are a tree.
pub fn volume_groups(call: &Call<'_>) -> Result<Answer, Answer> {
    on_node(call, json!({"children": [], "leaf": 0}))
}

pub fn dns(call: &Call<'_>) -> Result<Answer, Answer> {
    let node = call.node()?;
    let mut data = json!({"dns1": "192.0.2.53"});
    if let Some(search) =
        call.state.node_settings.get(node.name.as_ref()).and_then(|settings| settings.get("search"))
    {
        data["search"] = search.clone();
    }
    Ok(Answer::ok(data))
}

pub fn hosts(call: &Call<'_>) -> Result<Answer, Answer> {
    call.node()?;
    let mut text = "127.0.0.1 localhost\n".to_owned();
    for node in call.state.nodes.values() {
        text.push_str(&format!("{0} {1}.test.local {1}\n", node.ip, node.name));
    }
    let digest = digest_of(&json!(text));
    Ok(Answer::ok(json!({"data": text, "digest": digest})))
}

pub fn cpus(call: &Call<'_>) -> Result<Answer, Answer> {
    let models = [
        ("host", "default"),
        ("kvm64", "default"),
        ("x86-64-v2-AES", "default"),
        ("EPYC", "AuthenticAMD"),
        ("Haswell", "GenuineIntel"),
    ];
    on_node(
        call,
        models.iter().map(|(name, vendor)| json!({"custom": 0, "name": name, "vendor": vendor})).collect(),
    )
}

pub fn machines(call: &Call<'_>) -> Result<Answer, Answer> {
    let row = |kind: &str, version: &str| {
        let prefix = if kind == "q35" { "pc-q35" } else { "pc-i440fx" };
        json!({"id": format!("{prefix}-{version}"), "type": kind, "version": version})
    };
    let mut rows: Vec<Value> = ["9.2", "9.0", "8.2", "7.2"]
        .iter()
        .flat_map(|version| [row("q35", version), row("i440fx", version)])
        .collect();
    let mut changed = row("q35", "4.1+pve2");
    changed["changes"] = json!("Increases the number of SCSI drives supported.");
    rows.push(changed);
    on_node(call, Value::Array(rows))
}

pub fn pci(call: &Call<'_>) -> Result<Answer, Answer> {
    let row = |id: &str, class: &str, device: &str, name: &str| {
        json!({
            "class": class, "device": device, "device_name": name, "id": id, "iommugroup": -1,
            "subsystem_device": device, "subsystem_vendor": "0x1af4", "subsystem_vendor_name": "Red Hat, Inc.",
            "vendor": "0x1af4", "vendor_name": "Red Hat, Inc.",
        })
    };
    on_node(
        call,
        json!([
            row("0000:00:01.0", "0x018000", "0x1042", "Virtio 1.0 block device"),
            row("0000:00:02.0", "0x020000", "0x1041", "Virtio 1.0 network device"),
        ]),
    )
}

/// A series is a file named after what it is about; PVE looks for nothing else.
fn check_series(call: &Call<'_>) -> Result<(), Answer> {
    let file = if !call.text("vmid").is_empty() {
        let vmid = call.text("vmid");
        let known = vmid.parse().is_ok_and(|vmid: u32| call.state.guests.contains_key(&vmid));
        (!known).then(|| format!("pve2-vm/{vmid}"))
    } else {
        let storage = call.text("storage");
        let known = storage.is_empty() || call.state.storages.contains_key(storage);
        (!known).then(|| format!("pve2-storage/{}/{storage}", call.text("node")))
    };
    match file {
        Some(file) => {
            fail(format!("RRD error: opening '/var/lib/rrdcached/db/{file}': No such file or directory"))
        }
        None => Ok(()),
    }
}

/// The points of a time series: of the last hour, day, … by its own step. Only the latest were measured.
pub fn rrd(call: &Call<'_>) -> Result<Answer, Answer> {
    check_series(call)?;
    let step: u64 = match call.text("timeframe") {
        "hour" => 60,
        "day" => 1_800,
        "week" => 10_800,
        "month" => 43_200,
        _ => 604_800,
    };
    let end = call.now / step * step;
    let stopped = |vmid: &str| {
        let vmid = vmid.parse().unwrap_or_default();
        call.state.guests.get(&vmid).is_some_and(|guest| !guest.is_running())
    };
    // Of a guest whose past is known each point says itself what was measured.
    let known = call.state.measured_fields.as_ref();
    let measured = if known.is_none() && stopped(call.text("vmid")) {
        json!({"disk": 0, "maxcpu": 1, "maxdisk": 1u64 << 30, "maxmem": 512u64 << 20})
    } else if !call.text("vmid").is_empty() {
        json!({
            "cpu": 0.01, "disk": 0, "diskread": 0, "diskwrite": 0, "maxcpu": 1, "maxdisk": 1u64 << 30,
            "maxmem": 512u64 << 20, "mem": 256u64 << 20, "netin": 10.5, "netout": 8.5,
        })
    } else if !call.text("storage").is_empty() {
        let usage =
            call.state.storages.get(call.text("storage")).map(|storage| storage.usage).unwrap_or_default();
        json!({"total": usage.total, "used": usage.used})
    } else {
        let node = call.node()?;
        json!({
            "cpu": node.cpu_load, "iowait": 0, "loadavg": 0.5, "maxcpu": node.cpus, "memtotal": node.memory.total,
            "memused": node.memory.used, "netin": 100.5, "netout": 80.5, "roottotal": node.rootfs.total,
            "rootused": node.rootfs.used, "swaptotal": 8u64 << 30, "swapused": 0,
        })
    };
    let point = |number: u64| {
        let mut row = match known.map(|points| points.get(usize::try_from(number).unwrap_or_default())) {
            Some(fields) => measured
                .as_object()
                .into_iter()
                .flatten()
                .filter(|(name, _)| fields.is_some_and(|fields| fields.contains(*name)))
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect(),
            None if number >= call.state.unmeasured_points => measured.clone(),
            None => json!({}),
        };
        row["time"] = json!(end.saturating_sub((69 - number) * step));
        row
    };
    Ok(Answer::ok((0..70u64).map(point).collect()))
}

pub fn services(call: &Call<'_>) -> Result<Answer, Answer> {
    on_node(call, SERVICES.iter().map(|name| service_row(name)).collect())
}

const SERVICES: [&str; 8] =
    ["chrony", "corosync", "cron", "pve-cluster", "pve-firewall", "pvedaemon", "pveproxy", "pvestatd"];

fn service_row(name: &str) -> Value {
    json!({
        "active-state": "active", "desc": format!("The service {name}"), "name": name, "service": name, "state": "running",
        "unit-state": "enabled",
    })
}

pub fn service(call: &Call<'_>) -> Result<Answer, Answer> {
    on_node(call, service_row(call.text("service")))
}

pub fn apt_versions(call: &Call<'_>) -> Result<Answer, Answer> {
    let row = |package: &str, version: &str| {
        json!({
            "Arch": "all", "CurrentState": "Installed", "Description": package, "OldVersion": version, "Origin": "Proxmox",
            "Package": package, "Priority": "optional", "Section": "admin", "Title": package, "Version": version,
        })
    };
    let mut current = row("pve-manager", super::nodes::VERSION);
    if let Some(current) = current.as_object_mut() {
        current.remove("OldVersion");
    }
    on_node(call, json!([current, row("qemu-server", "8.4.0")]))
}

pub fn apt_updates(call: &Call<'_>) -> Result<Answer, Answer> {
    let (old, new) = ("2.39.5-0+deb12u1", "2.39.5-0+deb12u2");
    on_node(
        call,
        json!([{
            "Arch": "amd64", "Description": "version control system", "OldVersion": old, "Origin": "Debian", "Package": "git",
            "Priority": "optional", "Section": "vcs", "Title": "version control system", "Version": new,
        }]),
    )
}

/// No node has Ceph.
pub fn no_ceph(_: &Call<'_>) -> Result<Answer, Answer> {
    fail("binary not installed: /usr/bin/ceph-mon")
}

/// No node has Ceph whose flags could be set.
pub fn no_ceph_to_change(act: &mut Act<'_>) -> Result<Answer, Answer> {
    no_ceph(&act.call())
}

/// The system log, which is empty, with the number of its lines: one says so.
pub fn log_lines(call: &Call<'_>) -> Result<Answer, Answer> {
    let mut answer = on_node(call, json!([]))?;
    answer.body = crate::answer::Body::Json(json!({"data": [{"n": 1, "t": "no content"}], "total": 1}));
    Ok(answer)
}

pub fn journal(call: &Call<'_>) -> Result<Answer, Answer> {
    on_node(call, json!(["-- No entries --"]))
}

pub fn report(call: &Call<'_>) -> Result<Answer, Answer> {
    on_node(call, json!(format!("pveversion: {}\n", super::nodes::VERSION)))
}

pub fn netstat(call: &Call<'_>) -> Result<Answer, Answer> {
    on_node(call, json!([]))
}

/// `GET /cluster/config/nodes`: numbers are texts here.
pub fn corosync_nodes(call: &Call<'_>) -> Result<Answer, Answer> {
    let rows = call.state.nodes.values().filter(|_| call.state.cluster_name.is_some()).map(|node| {
        json!({
            "name": *node.name, "node": *node.name, "nodeid": node.id.to_string(), "quorum_votes": "1",
            "ring0_addr": node.ip,
        })
    });
    Ok(Answer::ok(rows.collect()))
}

pub fn totem(call: &Call<'_>) -> Result<Answer, Answer> {
    Ok(Answer::ok(json!({
        "cluster_name": call.state.cluster_name, "config_version": "1", "interface": {"0": {"linknumber": "0"}},
        "ip_version": "ipv4-6", "link_mode": "passive", "secauth": "on", "version": "2",
    })))
}

/// The cluster's log, of which a caller without `Sys.Syslog` sees its own lines.
pub fn cluster_log(call: &Call<'_>) -> Result<Answer, Answer> {
    let all = call.allows("/", &["Sys.Syslog"]);
    let most: usize = call.text("max").parse().unwrap_or(usize::MAX);
    let own = |line: &&Map<String, Value>| {
        all || line.get("user").and_then(Value::as_str) == Some(call.principal.user())
    };
    let mut rows = Rows::default();
    for line in call.state.log.iter().rev().filter(own).take(most) {
        rows.push(&Value::Object(line.clone()));
    }
    Ok(Answer::rows(rows))
}

/// What a further node needs to know to join.
pub fn join_information(call: &Call<'_>) -> Result<Answer, Answer> {
    if call.state.cluster_name.is_none() {
        return fail("node is not in a cluster, no join info available!");
    }
    let nodes: Vec<Value> = call
        .state
        .nodes
        .values()
        .map(|node| {
            json!({
                "name": *node.name, "nodeid": node.id, "pve_addr": node.ip, "pve_fp": node.fingerprint, "quorum_votes": 1, "ring0_addr": node.ip,
            })
        })
        .collect();
    let totem = totem(call)?.body.to_json()["data"].clone();
    Ok(Answer::ok(json!({
        "config_digest": digest_of(&json!(nodes)), "nodelist": nodes, "preferred_node": call.local_node,
        "totem": totem,
    })))
}

/// There is no ACME account.
pub fn no_acme_account(call: &Call<'_>) -> Result<Answer, Answer> {
    let name = call.parameters.get("name").map_or("default", String::as_str);
    fail(format!("ACME account config file '{name}' does not exist."))
}

/// Nothing has been gathered to be pulled.
pub fn no_metrics(_: &Call<'_>) -> Result<Answer, Answer> {
    Ok(Answer::ok(json!({"data": []})))
}

/// The next runs of a calendar event: the format has been checked by now.
pub fn schedule(call: &Call<'_>) -> Result<Answer, Answer> {
    let count: u64 = call.text("iterations").parse().unwrap_or(10);
    let start = call.text("starttime").parse().unwrap_or(call.now);
    let row = |number: u64| {
        let time = start / 3_600 * 3_600 + (number + 1) * 3_600;
        json!({"timestamp": time, "utc": format!("{time}")})
    };
    Ok(Answer::ok((0..count).map(row).collect()))
}

/// `PUT /cluster/options`.
pub fn set_options(act: &mut Act<'_>) -> Result<Answer, Answer> {
    for key in split_list(act.text("delete")).map(str::to_owned).collect::<Vec<_>>() {
        act.state.options.remove(&key);
    }
    for (name, value) in act.settings(&["delete"]) {
        let parts = crate::schema::properties(act.method, &name, &value);
        let shown = match (name.as_str(), parts) {
            ("registered-tags", _) => {
                json!(split_list(&value).collect::<std::collections::BTreeSet<_>>())
            }
            (_, Some(parts)) => json!(parts),
            _ => act.typed(&name, &value),
        };
        act.state.options.insert(name, shown);
    }
    done()
}

/// `PUT /nodes/{node}/config`. A description ends with a newline from then on.
pub fn set_node_config(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let node = act.node()?;
    let deletes: Vec<String> = split_list(act.text("delete")).map(str::to_owned).collect();
    let settings = act.settings(&["delete", "digest"]);
    let typed: Vec<(String, Value)> = settings
        .iter()
        .map(|(name, value)| match name.as_str() {
            "description" => (name.clone(), json!(format!("{}\n", value.trim_end_matches('\n')))),
            _ => (name.clone(), act.typed(name, value)),
        })
        .collect();
    let have = act.state.node_settings.entry(node.clone()).or_default();
    for key in &deletes {
        have.remove(key);
    }
    have.extend(typed);
    let description = have.get("description").and_then(Value::as_str).map(str::to_owned);
    if let Some(node) = act.state.nodes.get_mut(&node)
        && (description.is_some() || deletes.iter().any(|key| key == "description"))
    {
        node.description = description;
    }
    done()
}

/// `PUT /nodes/{node}/time`: the zone must be one.
pub fn set_time(act: &mut Act<'_>) -> Result<Answer, Answer> {
    const REGIONS: [&str; 12] = [
        "Africa",
        "America",
        "Antarctica",
        "Arctic",
        "Asia",
        "Atlantic",
        "Australia",
        "Etc",
        "Europe",
        "Indian",
        "Pacific",
        "US",
    ];
    act.node()?;
    let zone = act.text("timezone");
    let known = match zone.split_once('/') {
        Some((region, city)) => REGIONS.contains(&region) && !city.is_empty(),
        None => !zone.is_empty() && zone.len() <= 7 && zone.bytes().all(|byte| byte.is_ascii_alphanumeric()),
    };
    if known { done() } else { Err(Answer::bad_parameter("timezone", "No such timezone")) }
}

/// `POST /nodes/{node}/hosts`: a digest must be that of the file.
pub fn set_hosts(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let own = hosts(&act.call())?.body.to_json()["data"]["digest"].clone();
    match act.given("digest").filter(|digest| own != *digest) {
        Some(_) => fail(super::disks::MODIFIED),
        None => done(),
    }
}

/// `PUT /nodes/{node}/dns`: taken note of.
pub fn accept(act: &mut Act<'_>) -> Result<Answer, Answer> {
    act.node()?;
    done()
}

/// `POST /nodes/{node}/status`: reboot or shutdown.
pub fn node_power(act: &mut Act<'_>) -> Result<Answer, Answer> {
    act.node()?;
    done()
}

pub fn apt_update(act: &mut Act<'_>) -> Result<Answer, Answer> {
    act.node()?;
    act.fork("aptupdate", "", &[])
}

/// The version of the cluster's join protocol.
pub fn api_version(_: &Call<'_>) -> Result<Answer, Answer> {
    Ok(Answer::ok(json!(1)))
}

/// An object without fields.
pub fn empty(_: &Call<'_>) -> Result<Answer, Answer> {
    Ok(Answer::ok(json!({})))
}

pub fn acme_directories(_: &Call<'_>) -> Result<Answer, Answer> {
    Ok(Answer::ok(json!([
        {"name": "Let's Encrypt V2", "url": "https://acme-v02.api.letsencrypt.org/directory"},
        {"name": "Let's Encrypt V2 Staging", "url": "https://acme-staging-v02.api.letsencrypt.org/directory"},
    ])))
}

pub fn acme_terms(_: &Call<'_>) -> Result<Answer, Answer> {
    Ok(Answer::ok(json!("https://letsencrypt.org/documents/LE-SA-v1.5-February-24-2025.pdf")))
}

/// The only template that the list of appliances has.
const APPLIANCE: &str = "debian-12-standard_12.7-1_amd64.tar.zst";

/// Whether the list of appliances has a template.
pub fn is_appliance(template: &str) -> bool {
    template == APPLIANCE
}

pub fn appliances(call: &Call<'_>) -> Result<Answer, Answer> {
    on_node(
        call,
        json!([{
            "architecture": "amd64", "description": "Debian 12 Bookworm (standard)", "headline": "Debian 12 Bookworm (standard)",
            "infopage": "https://pve.proxmox.com/wiki/Linux_Container#pct_supported_distributions",
            "location": "http://download.proxmox.com/images/system/debian-12-standard_12.7-1_amd64.tar.zst",
            "maintainer": "Proxmox Support Team <support@proxmox.com>", "os": "debian-12", "package": "debian-12-standard",
            "section": "system", "source": "http://download.proxmox.com/images",
            "template": APPLIANCE, "type": "lxc", "version": "12.7-1",
        }]),
    )
}

pub fn changelog(call: &Call<'_>) -> Result<Answer, Answer> {
    on_node(call, json!(format!("{} (simulated)\n", call.text("name"))))
}

pub fn matcher_fields(_: &Call<'_>) -> Result<Answer, Answer> {
    Ok(Answer::ok(["hostname", "job-id", "type"].iter().map(|name| json!({"name": name})).collect()))
}

/// The values that notifications can be matched by: kinds, nodes and backup jobs.
pub fn matcher_values(call: &Call<'_>) -> Result<Answer, Answer> {
    let kinds = ["fencing", "package-updates", "replication", "system-mail", "vzdump"];
    let mut rows: Vec<Value> = kinds.iter().map(|kind| json!({"field": "type", "value": kind})).collect();
    rows.extend(call.state.nodes.keys().map(|node| json!({"field": "hostname", "value": node})));
    rows.extend(call.state.jobs.keys().map(|job| json!({"field": "job-id", "value": job})));
    Ok(Answer::ok(Value::Array(rows)))
}
