//! `…/cloudinit`: what a VM's cloud-init drive holds.

use serde_json::{Value, json};

use super::Call;
use super::act::{Act, done, fail};
use crate::answer::{Answer, Rows};
use crate::world::state::GuestKind;

/// The keys of a cloud-init drive's content.
fn is_cloudinit(key: &str) -> bool {
    matches!(
        key,
        "cicustom"
            | "cipassword"
            | "citype"
            | "ciuser"
            | "ciupgrade"
            | "nameserver"
            | "searchdomain"
            | "sshkeys"
    )
}

/// `GET …/cloudinit`: the settings with what is pending.
pub fn settings(call: &Call<'_>) -> Result<Answer, Answer> {
    let guest = call.guest(GuestKind::Qemu)?;
    let mut rows = Rows::default();
    for (key, value) in guest.config.iter().filter(|(key, _)| is_cloudinit(key)) {
        rows.push(&json!({"key": key, "value": shown(key, value.to_json())}));
    }
    Ok(Answer::rows(rows))
}

/// A password is never shown.
pub fn shown(key: &str, value: Value) -> Value {
    if key == "cipassword" { json!("**********") } else { value }
}

/// `GET …/cloudinit/dump`: what the guest would read.
pub fn dump(call: &Call<'_>) -> Result<Answer, Answer> {
    let guest = call.guest(GuestKind::Qemu)?;
    let name = guest.name();
    let text = match call.text("type") {
        "user" => {
            let mut text = format!("#cloud-config\nhostname: {name}\nmanage_etc_hosts: true\n");
            if let Some(user) = guest.config.text("ciuser") {
                text.push_str(&format!("user: {user}\n"));
            }
            text.push_str("chpasswd:\n  expire: False\nusers:\n  - default\npackage_upgrade: true\n");
            text
        }
        "network" => "version: 1\nconfig:\n".to_owned(),
        _ => format!("instance-id: {}\n", guest.config.digest()),
    };
    Ok(Answer::ok(json!(text)))
}

/// `PUT …/cloudinit`: the drive is written anew.
pub fn regenerate(act: &mut Act<'_>) -> Result<Answer, Answer> {
    match act.call().guest(GuestKind::Qemu)?.lock() {
        Some(lock) => fail(format!("VM is locked ({lock})")),
        None => done(),
    }
}
