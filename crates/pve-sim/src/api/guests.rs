//! `/nodes/{node}/qemu` and `/nodes/{node}/lxc`: lists, configurations, states.

use serde_json::{Map, Value, json};

use super::Call;
use super::cluster::cpus_of;
use super::metrics::{Measured, measure, number};
use crate::answer::{Answer, Rows};
use crate::world::config::{is_numbered, parse_drive};
use crate::world::state::{Guest, GuestKind, Power};

/// The machine type and QEMU version of every running VM.
const MACHINE: &str = "pc-i440fx-9.2+pve1";
const QEMU: &str = "9.2.0";

/// The VMs of a node that the caller may see; with `full=1` also what QEMU itself says of the running ones.
pub fn list_qemu(call: &Call<'_>) -> Result<Answer, Answer> {
    let node = call.node()?;
    let full = call.flag("full");
    let mut rows = Rows::default();
    for guest in call.state.guests_on(&node.name).filter(|guest| guest.kind == GuestKind::Qemu) {
        if call.sees_guest(guest.vmid) {
            let mut row = qemu_row(call, guest);
            if full {
                add_qmp(call, guest, &mut row);
            }
            rows.push(&Value::Object(row));
        }
    }
    Ok(Answer::rows(rows))
}

/// The containers of a node that the caller may see.
pub fn list_lxc(call: &Call<'_>) -> Result<Answer, Answer> {
    let node = call.node()?;
    let mut rows = Rows::default();
    for guest in call.state.guests_on(&node.name).filter(|guest| guest.kind == GuestKind::Lxc) {
        if call.sees_guest(guest.vmid) {
            rows.push(&Value::Object(lxc_row(call, guest)));
        }
    }
    Ok(Answer::rows(rows))
}

fn common_row(call: &Call<'_>, guest: &Guest, measured: &Measured) -> Map<String, Value> {
    let mut row = Map::new();
    let mut set = |key: &str, value: Value| drop(row.insert(key.to_owned(), value));
    set("cpu", number(measured.cpu));
    set("cpus", json!(cpus_of(call, guest)));
    set("disk", json!(measured.disk));
    set("maxdisk", json!(guest.boot_disk_size()));
    set("maxmem", json!(guest.memory()));
    set("mem", json!(measured.mem));
    set("name", json!(guest.name()));
    set("netin", json!(measured.net_in));
    set("netout", json!(measured.net_out));
    set("status", json!(guest.status()));
    set("uptime", json!(measured.uptime));
    set("vmid", json!(guest.vmid));
    if guest.is_running() {
        set("pid", json!(measured.pid));
    }
    if guest.is_template() {
        set("template", json!(1));
    }
    for key in ["tags", "lock"] {
        if let Some(value) = guest.config.text(key) {
            set(key, json!(value));
        }
    }
    row
}

/// A VM's row. `balloon_min`, `shares` and `serial` come only where the configuration has them.
fn qemu_row(call: &Call<'_>, guest: &Guest) -> Map<String, Value> {
    let mut row = common_row(call, guest, &measure(call, guest));
    if let Some(mib) = guest.config.int("balloon").filter(|mib| *mib > 0) {
        row.insert("balloon_min".to_owned(), json!(mib << 20));
        row.insert("shares".to_owned(), json!(guest.config.int("shares").unwrap_or(1000)));
    }
    if guest.config.iter().any(|(key, _)| is_numbered(key, "serial")) {
        row.insert("serial".to_owned(), json!(1));
    }
    row
}

/// A container's row; unlike a VM's it has its type.
fn lxc_row(call: &Call<'_>, guest: &Guest) -> Map<String, Value> {
    let measured = measure(call, guest);
    let mut row = common_row(call, guest, &measured);
    row.insert("diskread".to_owned(), json!(measured.disk_read));
    row.insert("diskwrite".to_owned(), json!(measured.disk_write));
    row.insert("maxswap".to_owned(), json!(guest.config.int("swap").unwrap_or(512) << 20));
    row.insert("swap".to_owned(), json!(0));
    row.insert("type".to_owned(), json!("lxc"));
    row
}

/// What the QEMU monitor adds: a paused VM is `running` with `qmpstatus: paused`, and numbers per drive and card.
fn add_qmp(call: &Call<'_>, guest: &Guest, row: &mut Map<String, Value>) {
    let mut set = |key: &str, value: Value| drop(row.insert(key.to_owned(), value));
    set(
        "qmpstatus",
        json!(match guest.power {
            Power::Running => "running",
            Power::Stopped => "stopped",
            Power::Paused => "paused",
        }),
    );
    if !guest.is_running() {
        return;
    }
    let measured = measure(call, guest);
    set("nics", cards(guest, &measured));
    if call.state.silent_monitors.contains(&guest.vmid) {
        return;
    }
    set("diskread", json!(measured.disk_read));
    set("diskwrite", json!(measured.disk_write));
    set("proxmox-support", json!({}));
    set("running-machine", json!(MACHINE));
    set("running-qemu", json!(QEMU));
    let drives = guest
        .drives()
        .into_iter()
        .filter(|drive| !drive.key.starts_with("unused") && drive.key != "tpmstate0");
    let (mut blocks, mut first) = (Map::new(), true);
    for drive in drives {
        // All traffic is the first drive's, so that the sums agree with the guest's own.
        let (read, written) = if first { (measured.disk_read, measured.disk_write) } else { (0, 0) };
        let touched = call.state.touched_drives.get(&guest.vmid);
        let touched = touched.map_or(first, |drives| drives.contains(drive.key));
        first = false;
        let mut statistics = block_statistics(read, written);
        // QEMU tells how long a drive has been idle once it was used.
        if touched {
            statistics["idle_time_ns"] = json!(1_000_000_000);
        }
        blocks.insert(drive.key.to_owned(), statistics);
    }
    set("blockstat", Value::Object(blocks));
}

/// The traffic of each card, as the host counts it.
fn cards(guest: &Guest, measured: &Measured) -> Value {
    let mut cards = Map::new();
    for (key, _) in guest.config.iter().filter(|(key, _)| is_numbered(key, "net")) {
        let (received, sent) = if cards.is_empty() { (measured.net_in, measured.net_out) } else { (0, 0) };
        let name = format!("tap{}i{}", guest.vmid, key.trim_start_matches("net"));
        cards.insert(name, json!({"netin": received, "netout": sent}));
    }
    Value::Object(cards)
}

fn block_statistics(read: u64, written: u64) -> Value {
    let mut statistics = Map::new();
    for operation in ["rd", "wr", "flush", "unmap"] {
        statistics.insert(format!("failed_{operation}_operations"), json!(0));
        statistics.insert(format!("invalid_{operation}_operations"), json!(0));
        statistics.insert(format!("{operation}_operations"), json!(0));
        statistics.insert(format!("{operation}_total_time_ns"), json!(0));
    }
    for operation in ["rd", "wr", "unmap"] {
        statistics.insert(format!("{operation}_merged"), json!(0));
    }
    for (key, value) in [
        ("account_failed", json!(true)),
        ("account_invalid", json!(true)),
        ("rd_bytes", json!(read)),
        ("rd_operations", json!(read / 4096)),
        ("timed_stats", json!([])),
        ("unmap_bytes", json!(0)),
        ("wr_bytes", json!(written)),
        ("wr_highest_offset", json!(written)),
        ("wr_operations", json!(written / 4096)),
    ] {
        statistics.insert(key.to_owned(), value);
    }
    Value::Object(statistics)
}

/// What HA says of a guest: `group` is null where there is none.
fn ha(call: &Call<'_>, guest: &Guest) -> Value {
    match super::ha::shown(call.state, guest) {
        None => json!({"managed": 0}),
        Some(state) => json!({"group": null, "managed": 1, "state": state}),
    }
}

/// A VM's state. `agent`, `clipboard` and `spice` depend on its configuration.
pub fn status_qemu(call: &Call<'_>) -> Result<Answer, Answer> {
    let guest = call.guest(GuestKind::Qemu)?;
    let mut row = qemu_row(call, guest);
    add_qmp(call, guest, &mut row);
    row.insert("ha".to_owned(), ha(call, guest));
    if has_agent(guest) {
        row.insert("agent".to_owned(), json!(1));
    }
    if let Some(display) = guest.config.text("vga") {
        row.insert("clipboard".to_owned(), Value::Null);
        if display.starts_with("qxl") {
            row.insert("spice".to_owned(), json!(1));
        }
    }
    Ok(Answer::ok(Value::Object(row)))
}

/// A container's state.
pub fn status_lxc(call: &Call<'_>) -> Result<Answer, Answer> {
    let guest = call.guest(GuestKind::Lxc)?;
    let mut row = lxc_row(call, guest);
    row.insert("ha".to_owned(), ha(call, guest));
    Ok(Answer::ok(Value::Object(row)))
}

/// A VM's configuration with its digest.
pub fn config_qemu(call: &Call<'_>) -> Result<Answer, Answer> {
    config(call, GuestKind::Qemu)
}

/// A container's configuration with its digest.
pub fn config_lxc(call: &Call<'_>) -> Result<Answer, Answer> {
    config(call, GuestKind::Lxc)
}

fn config(call: &Call<'_>, kind: GuestKind) -> Result<Answer, Answer> {
    if !call.text("snapshot").is_empty() && call.flag("current") {
        let text = "cannot use 'snapshot' parameter with 'current'";
        let errors = ["current", "snapshot"].map(|name| (name.to_owned(), text.into()));
        return Err(Answer::bad_parameters(errors.into_iter().collect()));
    }
    let guest = call.guest(kind)?;
    // Pending values show as if they were applied, unless the present ones are asked for.
    let config =
        if guest.pending.is_empty() || call.flag("current") { &guest.config } else { &guest.config_to_be() };
    let mut data = config.to_json();
    if let Some(password) = data.get_mut("cipassword") {
        *password = super::cloudinit::shown("cipassword", password.take());
    }
    let snapshot = call.text("snapshot");
    if !snapshot.is_empty() {
        let found = guest.snapshots.iter().find(|have| have.name == snapshot);
        let Some(found) = found else {
            return Err(Answer::error(500, format!("snapshot '{snapshot}' does not exist")));
        };
        if let Some(config) = &found.config {
            data = config.to_json();
        }
        data.insert("snaptime".to_owned(), json!(found.time));
        data.remove("description");
        if !found.description.is_empty() {
            data.insert("description".to_owned(), json!(found.description));
        }
    }
    data.insert("digest".to_owned(), json!(guest.digest()));
    Ok(Answer::ok(Value::Object(data)))
}

/// A VM's keys, one row each, with what is pending.
pub fn pending_qemu(call: &Call<'_>) -> Result<Answer, Answer> {
    pending(call, GuestKind::Qemu)
}

/// A container's keys, one row each.
pub fn pending_lxc(call: &Call<'_>) -> Result<Answer, Answer> {
    pending(call, GuestKind::Lxc)
}

fn pending(call: &Call<'_>, kind: GuestKind) -> Result<Answer, Answer> {
    let guest = call.guest(kind)?;
    let mut rows = Rows::default();
    for (key, value) in guest.config.iter() {
        let mut row = json!({"key": key, "value": super::cloudinit::shown(key, value.to_json())});
        match guest.pending.iter().find(|(have, _)| have == key) {
            Some((_, Some(value))) => row["pending"] = super::cloudinit::shown(key, value.to_json()),
            Some((_, None)) => row["delete"] = json!(1),
            None => {}
        }
        rows.push(&row);
    }
    for (key, value) in guest.pending.iter().filter(|(key, _)| guest.config.get(key).is_none()) {
        if let Some(value) = value {
            rows.push(&json!({"key": key, "pending": super::cloudinit::shown(key, value.to_json())}));
        }
    }
    rows.push(&json!({"key": "digest", "value": guest.digest()}));
    Ok(Answer::rows(rows))
}

/// A VM's snapshots.
pub fn snapshots_qemu(call: &Call<'_>) -> Result<Answer, Answer> {
    snapshots(call, GuestKind::Qemu)
}

/// A container's snapshots; they never hold memory, so `vmstate` is absent.
pub fn snapshots_lxc(call: &Call<'_>) -> Result<Answer, Answer> {
    snapshots(call, GuestKind::Lxc)
}

/// The snapshots, each with its parent, and last the present as `current`.
fn snapshots(call: &Call<'_>, kind: GuestKind) -> Result<Answer, Answer> {
    let guest = call.guest(kind)?;
    let mut rows = Rows::default();
    for (snapshot, parent) in guest.snapshots.iter().zip(guest.parents()) {
        let mut row =
            json!({"description": snapshot.description, "name": snapshot.name, "snaptime": snapshot.time});
        if kind == GuestKind::Qemu {
            row["vmstate"] = json!(u8::from(snapshot.with_memory));
        }
        if let Some(parent) = parent {
            row["parent"] = json!(parent);
        }
        rows.push(&row);
    }
    let mut current = json!({
        "description": "You are here!", "digest": guest.digest(), "name": "current",
        "running": u8::from(guest.is_running()),
    });
    if let Some(parent) = guest.config.text("parent") {
        current["parent"] = json!(parent);
    }
    rows.push(&current);
    Ok(Answer::rows(rows))
}

/// Whether the configuration switches the guest agent on: `1`, or `enabled=1` anywhere.
fn has_agent(guest: &Guest) -> bool {
    let text = guest.config.text("agent").unwrap_or_default();
    text.split(',').any(|part| matches!(part, "1" | "enabled=1"))
}

/// No guest's agent ever runs here: three texts say why, and each is a 500.
pub fn agent(call: &Call<'_>) -> Result<Answer, Answer> {
    let guest = call.guest(GuestKind::Qemu)?;
    Err(if !has_agent(guest) {
        Answer::error(500, "No QEMU guest agent configured")
    } else if guest.is_running() {
        Answer::error(500, "QEMU guest agent is not running")
    } else {
        Answer::error(500, format!("VM {} is not running", guest.vmid))
    })
}

/// The interfaces that a running container shows; null of a stopped one.
pub fn interfaces_lxc(call: &Call<'_>) -> Result<Answer, Answer> {
    let guest = call.guest(GuestKind::Lxc)?;
    if !guest.is_running() {
        return Ok(Answer::ok(Value::Null));
    }
    let row = |name: &str, mac: &str| {
        let mac = mac.to_lowercase();
        json!({"hardware-address": mac, "hwaddr": mac, "ip-addresses": [], "name": name})
    };
    let mut rows = Rows::default();
    rows.push(&row("lo", "00:00:00:00:00:00"));
    for (key, value) in guest.config.iter().filter(|(key, _)| is_numbered(key, "net")) {
        // A network card's property string has the form of a drive's: one leading part, then options.
        let card = parse_drive(key, &value.to_text());
        let name = card.volume.strip_prefix("name=").unwrap_or(key).to_owned();
        rows.push(&row(&name, card.option("hwaddr").unwrap_or_default()));
    }
    Ok(Answer::rows(rows))
}
