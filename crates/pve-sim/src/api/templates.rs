//! Templates, and what a guest's storages can do.

use serde_json::{Map, Value, json};

use super::act::{Act, done, fail};
use super::{Call, volume_access};
use crate::answer::Answer;
use crate::world::config::is_numbered;
use crate::world::state::{GuestKind, Work};
use crate::world::volname::{self, Feature};

/// `GET …/feature`: whether the guest's storages can do it.
pub fn feature(call: &Call<'_>, kind: GuestKind) -> Result<Answer, Answer> {
    if kind == GuestKind::Qemu {
        call.vm_on_node()?;
    }
    let guest = call.guest(kind)?;
    let snapshot = call.text("snapname");
    if !snapshot.is_empty() && !guest.snapshots.iter().any(|have| have.name == snapshot) {
        return fail(format!("snapshot '{snapshot}' does not exist"));
    }
    let feature = match call.text("feature") {
        "snapshot" => Feature::Snapshot,
        "clone" => Feature::Clone,
        _ => Feature::Copy,
    };
    let has = guest.drives().iter().all(|drive| {
        if drive.is_cdrom() || is_numbered(drive.key, "unused") {
            return true;
        }
        volume_access::parse(call.state, &drive.volume).is_ok_and(|(storage, volume)| {
            volname::has_feature(&storage.kind, feature, &volume, !snapshot.is_empty())
        })
    });
    let mut data = Map::from_iter([("hasFeature".to_owned(), json!(u8::from(has)))]);
    if kind == GuestKind::Qemu {
        let is_shared = crate::work::local_drives(call.state, guest).is_empty();
        let everywhere =
            call.state.nodes.keys().filter(|name| is_shared || name.as_str() == guest.node.as_ref());
        data.insert("nodes".to_owned(), everywhere.cloned().collect());
    }
    Ok(Answer::ok(Value::Object(data)))
}

pub fn feature_qemu(call: &Call<'_>) -> Result<Answer, Answer> {
    feature(call, GuestKind::Qemu)
}

pub fn feature_lxc(call: &Call<'_>) -> Result<Answer, Answer> {
    feature(call, GuestKind::Lxc)
}

/// What keeps a guest from becoming a template.
fn check_template(act: &Act<'_>, kind: GuestKind) -> Result<(), Answer> {
    let guest = act.call().guest(kind)?;
    let word = crate::work::guest_word(kind);
    if let Some(lock) = guest.lock() {
        return fail(format!("{word} is locked ({lock})"));
    }
    if !guest.snapshots.is_empty() {
        return fail(format!("unable to create template, because {word} contains snapshots"));
    }
    // One more disk of a VM's template can become a base image.
    if guest.is_template() && act.given("disk").is_none() {
        return fail("you can't convert a template to a template");
    }
    if guest.is_running() {
        return fail(match kind {
            GuestKind::Qemu => "you can't convert a VM to template if VM is running".to_owned(),
            GuestKind::Lxc => "you can't convert a CT to template if the CT is running".to_owned(),
        });
    }
    Ok(())
}

pub fn template_qemu(act: &mut Act<'_>) -> Result<Answer, Answer> {
    check_template(act, GuestKind::Qemu)?;
    let id = act.text("vmid").to_owned();
    act.fork("qmtemplate", &id, &[])
}

/// A container becomes a template before it is answered: no task.
pub fn template_lxc(act: &mut Act<'_>) -> Result<Answer, Answer> {
    check_template(act, GuestKind::Lxc)?;
    let work = Work { kind: "vztemplate".to_owned(), arguments: act.parameters.clone() };
    crate::work::template(act.state, &work).map_err(|problem| Answer::error(500, problem))?;
    done()
}
