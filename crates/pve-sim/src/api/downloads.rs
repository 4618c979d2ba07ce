//! Files that come onto a storage: uploads, downloads, templates of appliances; and what is read out of backups.

use serde_json::Value;

use super::act::{Act, fail};
use super::{Call, volume_access};
use crate::answer::Answer;
use crate::world::state::Storage;
use crate::world::volname::is_container_template;

/// A storage of files; others have nowhere to put one.
fn of_files<'a>(act: &'a Act<'_>, refusal: &str) -> Result<&'a Storage, Answer> {
    let storage = volume_access::enabled(act.state, act.text("storage"), &act.node()?)?;
    if storage.properties.get("path").is_none_or(Value::is_null) {
        return fail(format!("can't upload to storage type '{}'{refusal}", storage.kind));
    }
    Ok(storage)
}

/// The name's ending must fit the content.
fn check_name(act: &Act<'_>) -> Result<(), Answer> {
    let name = act.text("filename").to_lowercase();
    let ends_in = |endings: &[&str]| endings.iter().any(|end| name.len() > end.len() && name.ends_with(end));
    let (fits, refusal) = match act.text("content") {
        "iso" => (ends_in(&[".iso", ".img"]), "wrong file extension"),
        "vztmpl" => (is_container_template(&name), "wrong file extension"),
        _ => (ends_in(&[".ova", ".qcow2", ".raw", ".vmdk"]), "invalid filename or wrong extension"),
    };
    if fits { Ok(()) } else { Err(Answer::bad_parameter("filename", refusal)) }
}

/// `POST …/upload`.
pub fn upload(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let storage = of_files(act, "")?;
    check_name(act)?;
    let content = act.text("content");
    if !volume_access::has_content(storage, content) {
        return fail(format!("storage '{}' does not support '{content}' content", storage.id));
    }
    act.fork("imgcopy", "", &[])
}

/// `POST …/download-url`.
pub fn from_url(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let storage = of_files(act, ", not a file based storage!")?;
    let content = act.text("content");
    if !volume_access::has_content(storage, content) {
        return fail(format!("storage '{}' is not configured for content-type '{content}'", storage.id));
    }
    check_name(act)?;
    let name = act.text("filename").replace(' ', "_");
    act.fork("download", &name, &[])
}

/// `POST /nodes/{node}/aplinfo`: a template that the list names.
pub fn appliance(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let template = act.text("template").to_owned();
    if !super::static_reads::is_appliance(&template) {
        return Err(Answer::bad_parameter("template", "no such template"));
    }
    let storage = volume_access::enabled(act.state, act.text("storage"), &act.node()?)?;
    if !volume_access::has_content(storage, "vztmpl") {
        return fail(format!("storage '{}' does not support templates", storage.id));
    }
    act.fork("download", &template, &[])
}

/// `GET …/file-restore/list` and `…/download`: of a Proxmox Backup Server alone.
pub fn restore_files(call: &Call<'_>) -> Result<Answer, Answer> {
    call.node()?;
    let storage = volume_access::defined(call.state, call.text("storage"))?;
    let volume = call.text("volume");
    let id = if volume.contains(':') { volume.to_owned() } else { format!("{}:{volume}", storage.id) };
    volume_access::check(call, None, &id, Some("backup"))?;
    if storage.kind != "pbs" {
        return Err(Answer::bad_parameter("storage", "Only PBS storages supported for file-restore."));
    }
    fail("proxmox-file-restore failed: the backup server cannot be reached")
}
