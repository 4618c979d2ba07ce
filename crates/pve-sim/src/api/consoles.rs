//! Consoles, keys, the monitor and the guest agent of guests, and the shells of nodes.

use serde_json::json;

use super::Call;
use super::act::{Act, done, fail};
use crate::answer::Answer;
use crate::world::state::{GuestKind, Power};

/// What a console's answer has beside its ticket.
struct Console {
    task: &'static str,
    /// The certificate that a VNC client checks.
    certificate: bool,
    /// A password inside the VNC protocol, for who connects from a browser.
    password: bool,
}

/// A ticket for a console, whose task waits for somebody to connect.
fn console(act: &mut Act<'_>, id: &str, what: &Console) -> Result<Answer, Answer> {
    let cert = act.state.ca_certificate.clone().unwrap_or_else(|| "-----BEGIN CERTIFICATE-----\n".to_owned());
    let answer = act.fork(what.task, id, &[])?;
    let mut data = json!({
        "port": "5900", "ticket": "PVEVNC:00000000::c2ltdWxhdGVk", "upid": answer.body.to_json()["data"],
        "user": act.principal.id(),
    });
    if what.certificate {
        data["cert"] = json!(cert);
    }
    if what.password {
        data["password"] = json!("simulated");
    }
    Ok(Answer::ok(data))
}

/// A VM whose display is a serial port shows text, without a password of its own.
pub fn vnc_qemu(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let guest = act.call().guest(GuestKind::Qemu)?;
    let (vmid, display) = (guest.vmid, guest.config.text("vga").unwrap_or_default().into_owned());
    let display = display.strip_prefix("type=").unwrap_or(&display);
    let password = !display.starts_with("serial") || act.flag("websocket") || act.flag("generate-password");
    console(act, &vmid.to_string(), &Console { task: "vncproxy", certificate: true, password })
}

pub fn vnc_lxc(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let vmid = act.call().guest(GuestKind::Lxc)?.vmid;
    let password = act.flag("websocket");
    console(act, &vmid.to_string(), &Console { task: "vncproxy", certificate: true, password })
}

fn terminal(act: &mut Act<'_>, kind: GuestKind) -> Result<Answer, Answer> {
    let vmid = act.call().guest(kind)?.vmid;
    console(act, &vmid.to_string(), &Console { task: "vncproxy", certificate: false, password: false })
}

pub fn term_qemu(act: &mut Act<'_>) -> Result<Answer, Answer> {
    terminal(act, GuestKind::Qemu)
}

pub fn term_lxc(act: &mut Act<'_>) -> Result<Answer, Answer> {
    terminal(act, GuestKind::Lxc)
}

/// `POST /nodes/{node}/vncshell`.
pub fn vnc_shell(act: &mut Act<'_>) -> Result<Answer, Answer> {
    act.node()?;
    let password = act.flag("websocket");
    console(act, "", &Console { task: "vncshell", certificate: true, password })
}

/// `POST /nodes/{node}/termproxy`.
pub fn term_shell(act: &mut Act<'_>) -> Result<Answer, Answer> {
    act.node()?;
    console(act, "", &Console { task: "vncshell", certificate: false, password: false })
}

/// What a SPICE viewer is started with.
fn viewer(act: &Act<'_>, node: &str, title: &str) -> Answer {
    let ca = act.state.ca_certificate.clone().unwrap_or_default().replace('\n', "\\n");
    let given = act.given("proxy").unwrap_or(node);
    let proxy = if given.contains("://") { given.to_owned() } else { format!("http://{given}:3128") };
    Answer::ok(json!({
        "ca": ca, "delete-this-file": 1, "host": format!("pvespiceproxy:00000000:{title}:{node}:61000::c2lt"),
        "host-subject": format!("OU=PVE Cluster Node,O=Proxmox Virtual Environment,CN={node}"),
        "password": "simulated", "proxy": proxy, "release-cursor": "Ctrl+Alt+R", "secure-attention": "Ctrl+Alt+Ins",
        "title": title, "tls-port": 61_000, "toggle-fullscreen": "Shift+F11", "type": "spice",
    }))
}

/// `POST …/spiceproxy` of a VM, whose display must speak SPICE.
pub fn spice_qemu(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let guest = act.call().guest(GuestKind::Qemu)?;
    if !guest.is_running() {
        return fail(format!("VM {} not running", guest.vmid));
    }
    let display = guest.config.text("vga").unwrap_or_default();
    if !display.strip_prefix("type=").unwrap_or(&display).starts_with("qxl") {
        return fail("no spice port");
    }
    Ok(viewer(act, &guest.node, &format!("VM {} - {}", guest.vmid, guest.name())))
}

/// `POST …/spiceproxy` of a container, which must run.
pub fn spice_lxc(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let guest = act.call().guest(GuestKind::Lxc)?.clone();
    if !guest.is_running() {
        return fail(format!("CT {} not running", guest.vmid));
    }
    act.fork("spiceproxy", &guest.vmid.to_string(), &[])?;
    Ok(viewer(act, &guest.node, &format!("CT {}", guest.vmid)))
}

/// `POST /nodes/{node}/spiceshell`.
pub fn spice_shell(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let node = act.node()?;
    act.fork("spiceshell", "", &[])?;
    let title = format!("Shell on '{node}'");
    Ok(viewer(act, &node, &title))
}

/// `GET …/vncwebsocket`: no ticket is one that this cluster's VNC server gave out.
pub fn websocket(_: &Call<'_>) -> Result<Answer, Answer> {
    Err(Answer::error(401, "permission denied - invalid PVEVNC ticket"))
}

/// `POST …/mtunnel`: the other end of a migration between clusters; its guest must not be there yet.
pub fn tunnel(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let node = act.node()?;
    if let Some(other) = act.state.guests.get(&act.number("vmid")) {
        let what = if act.lxc_path { "CT" } else { "VM" };
        let text = format!("unable to create empty {what} config - {}\n", super::create::taken(other));
        return Err(Answer::bad_parameter("vmid", &text));
    }
    for id in crate::schema::split_list(act.text("storages")) {
        super::volume_access::enabled(act.state, id, &node)?;
        act.require(&format!("/storage/{id}"), &["Datastore.AllocateSpace"])?;
    }
    let (id, task) = (act.text("vmid").to_owned(), if act.lxc_path { "vzmtunnel" } else { "qmtunnel" });
    let upid = act.fork(task, &id, &[])?.body.to_json()["data"].clone();
    let kind = if act.lxc_path { "pct" } else { "qemu-server" };
    Ok(Answer::ok(json!({
        "socket": format!("/run/{kind}/{id}.mtunnel"), "ticket": "PVETUNNEL:00000000::c2ltdWxhdGVk", "upid": upid,
    })))
}

/// `POST …/monitor`: QEMU's own words.
pub fn monitor(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let guest = act.call().guest(GuestKind::Qemu)?;
    let text = match (act.text("command"), guest.power) {
        (_, Power::Stopped) => format!("ERROR: VM {} not running\n", guest.vmid),
        ("info status", Power::Paused) => "VM status: paused\r\n".to_owned(),
        ("info status", Power::Running) => "VM status: running\r\n".to_owned(),
        (command, _) => format!("unknown command: '{command}'\r\n"),
    };
    Ok(Answer::ok(json!(text)))
}

/// `PUT …/sendkey`.
pub fn send_key(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let guest = act.call().guest(GuestKind::Qemu)?;
    if !guest.is_running() {
        return fail(format!("VM {} not running", guest.vmid));
    }
    done()
}

/// `POST …/agent/…`: no guest's agent ever runs here.
pub fn agent(act: &mut Act<'_>) -> Result<Answer, Answer> {
    super::guests::agent(&act.call())
}
