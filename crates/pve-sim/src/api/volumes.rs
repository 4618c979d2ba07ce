//! Single volumes of storages, uploads and backups.

use serde_json::{Map, Value, json};

use super::Call;
use super::act::{Act, done, fail};
use super::checks;
use crate::answer::{Answer, Rows};
use crate::work::disks::{volume_exists, volumes_of};
use crate::world::config::parse_size;
use crate::world::state::{Storage, Volume};

/// `local:iso/a.iso` of the path, or what `volume` alone names.
fn volume_id(call: &Call<'_>) -> Result<String, Answer> {
    let (storage, volume) = (call.text("storage"), call.text("volume"));
    if volume.contains(':') {
        return Ok(volume.to_owned());
    }
    let named = volume.contains('/');
    if !named {
        return fail(format!("unable to parse directory volume name '{volume}'"));
    }
    Ok(format!("{storage}:{volume}"))
}

fn storage<'a>(call: &Call<'a>) -> Result<&'a Storage, Answer> {
    let id = call.text("storage");
    let found = call.state.storages.get(id);
    found.ok_or_else(|| Answer::error(500, format!("storage '{id}' does not exist")))
}

/// `GET …/content/{volume}`: where it is and how large.
pub fn get(call: &Call<'_>) -> Result<Answer, Answer> {
    let id = volume_id(call)?;
    let storage = storage(call)?;
    let path = storage.properties.get("path").and_then(Value::as_str).unwrap_or("/dev").to_owned();
    let name = id.split_once(':').map_or("", |(_, name)| name).to_owned();
    if let Some(volume) = call.state.volumes.get(&id) {
        let mut row = json!({
            "format": volume.format, "path": format!("{path}/{name}"), "size": volume.size, "used": volume.size,
        });
        if let Some(notes) = &volume.notes {
            row["notes"] = json!(notes);
        }
        if volume.content == "backup" {
            row["protected"] = json!(u8::from(volume.protected));
        }
        return Ok(Answer::ok(row));
    }
    for guest in call.state.guests.values() {
        if let Some(drive) = guest.drives().into_iter().find(|drive| drive.volume == id) {
            let format = id.rsplit_once('.').map_or("raw", |(_, end)| end);
            let size = drive.size().unwrap_or(1 << 30);
            return Ok(Answer::ok(json!({
                "format": format, "path": format!("{path}/images/{name}"), "size": size, "used": size / 3,
            })));
        }
    }
    fail(format!("volume '{id}' does not exist"))
}

/// The rows of volumes that no guest mentions, for the list of a storage's content.
pub fn rows(call: &Call<'_>, storage: &Storage, node: &str, rows: &mut Rows) {
    let prefix = format!("{}:", storage.id);
    let (wanted, owner) = (call.text("content"), call.text("vmid").parse::<u32>().ok());
    for (id, volume) in call.state.volumes.range(prefix.clone()..) {
        if !id.starts_with(&prefix) {
            break;
        }
        let elsewhere = !storage.shared && volume.node.as_deref().is_some_and(|have| have != node);
        let kept = (wanted.is_empty() || wanted == volume.content)
            && owner.is_none_or(|vmid| volume.vmid == Some(vmid));
        if elsewhere || !kept || !may_see(call, storage, volume) {
            continue;
        }
        let mut row = Map::new();
        let mut set = |key: &str, value: Value| drop(row.insert(key.to_owned(), value));
        set("content", json!(volume.content));
        set("ctime", json!(volume.time));
        set("format", json!(volume.format));
        set("size", json!(volume.size));
        set("volid", json!(id));
        if let Some(vmid) = volume.vmid {
            set("vmid", json!(vmid));
        }
        if let Some(notes) = &volume.notes {
            set("notes", json!(notes));
        }
        match volume.content.as_str() {
            "images" | "rootdir" => {
                set("parent", json!(volume.parent));
                set("used", json!(volume.size / 3));
            }
            "backup" => {
                set("subtype", json!(if id.contains("vzdump-lxc") { "lxc" } else { "qemu" }));
                if volume.protected {
                    set("protected", json!(1));
                }
            }
            _ => {}
        }
        rows.push(&Value::Object(row));
    }
}

/// Images and templates of everyone are for all who see the storage; backups need `Datastore.Allocate`, or
/// `Datastore.AllocateSpace` with `VM.Backup` on the guest.
fn may_see(call: &Call<'_>, storage: &Storage, volume: &Volume) -> bool {
    let here = format!("/storage/{}", storage.id);
    let guest = format!("/vms/{}", volume.vmid.unwrap_or_default());
    match volume.content.as_str() {
        "iso" | "vztmpl" | "snippets" | "import" => true,
        "backup" => {
            call.allows(&here, &["Datastore.Allocate"])
                || call.allows(&here, &["Datastore.AllocateSpace"]) && call.allows(&guest, &["VM.Backup"])
        }
        _ => call.allows(&here, &["Datastore.Allocate"]) || call.allows(&guest, &["VM.Config.Disk"]),
    }
}

/// `POST …/content`: an empty image.
pub fn allocate(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let (storage_id, name, vmid) =
        (act.text("storage").to_owned(), act.text("filename").to_owned(), act.number("vmid"));
    let call = act.call();
    let storage = storage(&call)?.clone();
    if storage.disabled {
        return fail(format!("storage '{storage_id}' is disabled"));
    }
    let prefix = format!("vm-{vmid}-");
    let stem = name
        .strip_prefix("vm-")
        .or_else(|| name.strip_prefix("base-"))
        .or_else(|| name.strip_prefix("subvol-"));
    if stem.is_none() {
        return fail(format!("unable to parse volume filename '{name}'"));
    }
    if !name.starts_with(&prefix) && !name.starts_with("subvol-") {
        return fail(format!("illegal name '{name}' - should be 'vm-{vmid}-*'"));
    }
    let format = act.given("format").map_or_else(
        || name.rsplit_once('.').map_or("raw".to_owned(), |(_, end)| end.to_owned()),
        str::to_owned,
    );
    let is_file = matches!(storage.kind.as_str(), "dir" | "nfs" | "cifs");
    let id = if is_file { format!("{storage_id}:{vmid}/{name}") } else { format!("{storage_id}:{name}") };
    if volume_exists(act.state, &id) {
        return fail(format!("disk image '{id}' already exists"));
    }
    // A size without a unit is in KiB.
    let text = act.text("size");
    let plain = text.parse::<u64>().ok().map(|kib| kib << 10);
    let volume = Volume {
        content: "images".to_owned(),
        size: plain.or_else(|| parse_size(text)).unwrap_or_default(),
        format,
        time: act.now,
        vmid: Some(vmid),
        node: Some(act.node()?),
        ..Volume::default()
    };
    act.state.volumes.insert(id.clone(), volume);
    Ok(Answer::ok(json!(id)))
}

/// `DELETE …/content/{volume}`: a task. What a guest uses stays.
pub fn delete(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let call = act.call();
    let id = volume_id(&call)?;
    storage(&call)?;
    let here = format!("/storage/{}", call.text("storage"));
    let volume = act.state.volumes.get(&id);
    let owner = volume.and_then(|volume| volume.vmid).or_else(|| {
        act.state.guests.values().find(|guest| volumes_of(guest).contains(&id)).map(|guest| guest.vmid)
    });
    let owner = owner.or_else(|| vmid_in(&id));
    let backup = id.contains(":backup/");
    if !call.allows(&here, &["Datastore.Allocate"]) {
        let vmid = owner.unwrap_or_default();
        match backup {
            true => {
                checks::require(&call, &here, &["Datastore.AllocateSpace"], false)?;
                checks::require(&call, &format!("/vms/{vmid}"), &["VM.Backup"], false)?;
            }
            false => checks::require(&call, &here, &["Datastore.Allocate"], false)?,
        }
    }
    let storage = act.text("storage").to_owned();
    let about = owner.map_or_else(|| format!("@{storage}"), |vmid| format!("{vmid}@{storage}"));
    act.fork("imgdel", &about, &[("volid", &id)])
}

/// The guest in a volume's name.
fn vmid_in(id: &str) -> Option<u32> {
    id.split([':', '/', '-', '_']).find_map(|part| part.parse::<u32>().ok().filter(|vmid| *vmid >= 100))
}

/// `PUT …/content/{volume}`: a backup's notes and protection.
pub fn update(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let id = volume_id(&act.call())?;
    let (notes, protected) =
        (act.given("notes").map(str::to_owned), act.given("protected").map(|flag| flag == "1"));
    let Some(volume) = act.state.volumes.get_mut(&id) else {
        return fail(format!("volume '{id}' does not exist"));
    };
    if let Some(notes) = notes {
        volume.notes = Some(notes);
    }
    if let Some(protected) = protected {
        volume.protected = protected;
    }
    done()
}

/// `GET …/prunebackups`: what a prune would keep and remove.
pub fn prune_preview(call: &Call<'_>) -> Result<Answer, Answer> {
    let storage = storage(call)?;
    if !storage.content.split(',').any(|content| content == "backup") {
        return fail(format!("storage '{}' does not support backups", storage.id));
    }
    let own = storage.properties.get("prune-backups");
    if call.text("prune-backups").is_empty() && own.is_none() {
        return fail(format!("no prune-backups options configured for storage '{}'", storage.id));
    }
    let prefix = format!("{}:backup/", storage.id);
    let keep: usize = call
        .text("prune-backups")
        .split(',')
        .find_map(|part| part.strip_prefix("keep-last=")?.parse().ok())
        .unwrap_or(usize::MAX);
    let mut rows = Rows::default();
    let mut kept: std::collections::BTreeMap<Option<u32>, usize> = Default::default();
    let mut all: Vec<(&String, &Volume)> =
        call.state.volumes.iter().filter(|(id, _)| id.starts_with(&prefix)).collect();
    all.sort_by_key(|(_, volume)| std::cmp::Reverse(volume.time));
    for (id, volume) in all {
        let count = kept.entry(volume.vmid).or_default();
        *count += 1;
        let mark = if volume.protected {
            "protected"
        } else if *count <= keep {
            "keep"
        } else {
            "remove"
        };
        let kind = if id.contains("vzdump-lxc") { "lxc" } else { "qemu" };
        rows.push(
            &json!({"ctime": volume.time, "mark": mark, "type": kind, "vmid": volume.vmid, "volid": id}),
        );
    }
    Ok(Answer::rows(rows))
}

/// `DELETE …/prunebackups`: a task.
pub fn prune(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let id = act.text("storage").to_owned();
    storage(&act.call())?;
    act.fork("prunebackups", &id, &[])
}

/// `POST /nodes/{node}/vzdump`: a backup task, of guests on this node.
pub fn backup(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let target = act.given("storage").unwrap_or("local").to_owned();
    let storage = format!("/storage/{target}");
    checks::require(&act.call(), &storage, &["Datastore.AllocateSpace"], false)?;
    if !act.state.storages.contains_key(&target) {
        return fail(format!("storage '{target}' does not exist"));
    }
    let chosen = ["vmid", "all", "pool"].iter().any(|name| act.given(name).is_some());
    if !chosen {
        return Err(Answer::bad_parameter("vmid", "property is missing"));
    }
    for vmid in crate::schema::split_list(act.text("vmid")) {
        checks::require(&act.call(), &format!("/vms/{vmid}"), &["VM.Backup"], false)?;
    }
    let id = match act.text("vmid") {
        list if list.contains(',') => String::new(),
        one => one.to_owned(),
    };
    act.fork("vzdump", &id, &[])
}

/// `GET /nodes/{node}/vzdump/defaults`.
pub fn backup_defaults(call: &Call<'_>) -> Result<Answer, Answer> {
    call.node()?;
    let storage = if call.text("storage").is_empty() { "local" } else { call.text("storage") };
    let place = format!("/storage/{storage}");
    checks::require(call, &place, &["Datastore.Audit", "Datastore.AllocateSpace"], true)?;
    let mut data = json!({
        "all": 0, "bwlimit": 0, "compress": "0", "fleecing": {"enabled": 0}, "ionice": 7, "lockwait": 180,
        "mailnotification": "always", "mode": "snapshot", "notification-mode": "auto", "notification-policy": "always",
        "performance": {"max-workers": 16, "pbs-entries-max": 1_048_576}, "pigz": 0, "prune-backups": "keep-all=1",
        "quiet": 0, "remove": 1, "stdexcludes": 1, "stop": 0, "stopwait": 10, "zstd": 1,
    });
    data["storage"] = json!(storage);
    let path = call.state.storages.get(storage).and_then(|storage| storage.properties.get("path"));
    if let Some(path) = path.and_then(Value::as_str) {
        data["dumpdir"] = json!(format!("{path}/dump"));
    }
    Ok(Answer::ok(data))
}

/// `GET /nodes/{node}/vzdump/extractconfig`: the configuration in a backup.
pub fn extract(call: &Call<'_>) -> Result<Answer, Answer> {
    let id = call.text("volume");
    match call.state.volumes.get(id) {
        Some(volume) => Ok(Answer::ok(json!(volume.config.clone().unwrap_or_default()))),
        None => fail(format!("volume '{id}' does not exist")),
    }
}
