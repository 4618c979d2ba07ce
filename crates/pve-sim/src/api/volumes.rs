//! Single volumes of storages, uploads and backups.

use serde_json::{Map, Value, json};

use super::Call;
use super::act::{Act, done, fail};
use super::{checks, volume_access};
use crate::answer::{Answer, Rows};
use crate::work::disks::volume_exists;
use crate::world::config::parse_size;
use crate::world::state::{Guest, Storage, Volume};
use crate::world::volname::{image_file, keeps_files, split_volume_id};

/// The volume that the path names: with its storage, which must be the path's, or without.
fn volume_id(call: &Call<'_>) -> Result<String, Answer> {
    let (storage, volume) = (call.text("storage"), call.text("volume"));
    if !volume.contains(':') {
        return Ok(format!("{storage}:{volume}"));
    }
    let problem = match split_volume_id(volume) {
        Some((named, _)) if named == storage => return Ok(volume.to_owned()),
        Some((named, _)) => format!("storage ID mismatch ({named} != {storage})\n"),
        None => format!("unable to parse volume ID '{volume}'\n"),
    };
    Err(Answer::bad_parameter("volume", &problem))
}

fn storage<'a>(call: &Call<'a>) -> Result<&'a Storage, Answer> {
    volume_access::defined(call.state, call.text("storage"))
}

/// Where a storage keeps a volume.
fn path_of(storage: &Storage, name: &str) -> String {
    let Some(root) = storage.properties.get("path").and_then(Value::as_str) else {
        return format!("/dev/{}/{name}", storage.id);
    };
    match name.split_once('/') {
        Some(("iso", file)) => format!("{root}/template/iso/{file}"),
        Some(("vztmpl", file)) => format!("{root}/template/cache/{file}"),
        Some(("backup", file)) => format!("{root}/dump/{file}"),
        Some(("snippets" | "import", _)) => format!("{root}/{name}"),
        _ => format!("{root}/images/{name}"),
    }
}

/// `GET …/content/{volume}`: where it is and how large; of a backup also its notes and whether it is protected.
pub fn get(call: &Call<'_>) -> Result<Answer, Answer> {
    let id = volume_id(call)?;
    volume_access::check(call, None, &id, None)?;
    let (storage, parsed) = volume_access::parse(call.state, &id)?;
    let name = id.split_once(':').map_or("", |(_, name)| name);
    let path = path_of(storage, name);
    if let Some(volume) = call.state.volumes.get(&id) {
        let mut row =
            json!({"format": volume.format, "path": path, "size": volume.size, "used": volume.size});
        if parsed.content == "backup" {
            row["notes"] = json!(volume.notes.as_deref().unwrap_or_default());
            row["protected"] = json!(u8::from(volume.protected));
        }
        return Ok(Answer::ok(row));
    }
    for guest in call.state.guests.values() {
        if let Some(drive) = guest.drives().into_iter().find(|drive| drive.volume == id) {
            let size = drive.size().unwrap_or(1 << 30);
            return Ok(Answer::ok(json!({
                "format": parsed.format, "path": path, "size": size, "used": size / 3,
            })));
        }
    }
    fail(format!("volume_size_info on '{id}' failed - no format"))
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
    let ending = name.rsplit_once('.').map(|(_, ending)| ending.to_owned());
    let ending = ending.filter(|ending| matches!(ending.as_str(), "raw" | "qcow2" | "vmdk"));
    if let (Some(wanted), Some(ending)) = (act.given("format"), &ending)
        && wanted != ending
    {
        let text = format!("different storage formats ({wanted} != {ending})");
        return Err(Answer::bad_parameter("format", &text));
    }
    let storage = volume_access::enabled(act.state, &storage_id, &act.node()?)?.clone();
    let is_file = keeps_files(&storage.kind);
    let format = act.given("format").map(str::to_owned).or(ending).unwrap_or_else(|| "raw".to_owned());
    if is_file {
        let (own, _) = image_file(&name).map_err(|text| Answer::error(500, text))?;
        if own != format {
            return fail(format!(
                "illegal name '{name}' - wrong extension for format ('{own} != '{format}')"
            ));
        }
    } else if !name.starts_with(&format!("vm-{vmid}-")) && !name.starts_with(&format!("subvol-{vmid}-")) {
        return fail(format!("illegal name '{name}' - should be 'vm-{vmid}-*'"));
    }
    let id = if is_file { format!("{storage_id}:{vmid}/{name}") } else { format!("{storage_id}:{name}") };
    if volume_exists(act.state, &id) {
        let path = path_of(&storage, id.split_once(':').map_or("", |(_, name)| name));
        return fail(format!("disk image '{path}' already exists"));
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
    let (storage, parsed) = volume_access::parse(call.state, &id)?;
    let here = format!("/storage/{}", storage.id);
    let owner = parsed.owner;
    match owner.filter(|_| parsed.content == "backup") {
        Some(vmid) => {
            checks::require(&call, &here, &["Datastore.AllocateSpace"], false)?;
            checks::require(&call, &format!("/vms/{vmid}"), &["VM.Backup"], false)?;
        }
        None => checks::require(&call, &here, &["Datastore.Allocate"], false)?,
    }
    let storage = act.text("storage").to_owned();
    let about = owner.map_or_else(|| format!("@{storage}"), |vmid| format!("{vmid}@{storage}"));
    let answer = act.fork("imgdel", &about, &[("volid", &id)])?;
    // Who waits for it and sees it end gets no UPID.
    let ended = act.state.tasks.last().and_then(|task| task.exit.clone());
    match ended.filter(|_| act.given("delay").is_some()) {
        Some(exit) if exit == "OK" || exit.starts_with("WARNINGS") => done(),
        Some(exit) => fail(exit),
        None => Ok(answer),
    }
}

/// `PUT …/content/{volume}`: a backup's notes and protection.
pub fn update(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let id = volume_id(&act.call())?;
    let (notes, protected) =
        (act.given("notes").map(str::to_owned), act.given("protected").map(|flag| flag == "1"));
    volume_access::check(&act.call(), None, &id, None)?;
    let (_, parsed) = volume_access::parse(act.state, &id)?;
    if parsed.content != "backup"
        && let Some(attribute) = ["notes", "protected"].iter().find(|name| act.given(name).is_some())
    {
        return fail(format!("only backups support attribute '{attribute}'"));
    }
    // Notes are a file beside the backup, which PVE writes without looking for the backup.
    let Some(volume) = act.state.volumes.get_mut(&id) else { return done() };
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

/// `DELETE …/prunebackups`: a task, of one guest's backups or of all.
pub fn prune(act: &mut Act<'_>) -> Result<Answer, Answer> {
    act.node()?;
    let storage = act.text("storage").to_owned();
    let place = format!("/storage/{storage}");
    let id = match act.given("vmid") {
        Some(vmid) => {
            act.require(&place, &["Datastore.AllocateSpace"])?;
            act.require(&format!("/vms/{vmid}"), &["VM.Backup"])?;
            format!("{vmid}@{storage}")
        }
        None => {
            act.require(&place, &["Datastore.Allocate"])?;
            storage
        }
    };
    act.fork("prunebackups", &id, &[])
}

/// What contradicts the list of guests in a request for a backup.
fn check_selection(act: &Act<'_>) -> Result<(), Answer> {
    let refuse = |name: &str, text: &str| Err(Answer::bad_parameter(name, text));
    if act.given("vmid").is_some() {
        if let Some(name) = ["exclude", "pool"].iter().find(|name| act.given(name).is_some()) {
            return refuse(name, "option conflicts with option 'vmid'");
        }
        if act.flag("all") {
            return refuse("all", "option conflicts with option 'vmid'");
        }
        return Ok(());
    }
    if act.flag("all") || act.flag("stop") || act.given("pool").is_some() || act.given("exclude").is_some() {
        return Ok(());
    }
    refuse("vmid", "property is missing")
}

/// `POST /nodes/{node}/vzdump`: a backup task, of guests on this node. Guests of other nodes are left out, and without any
/// of this one there is no task. What the storage or a guest lacks is found in the task.
pub fn backup(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let node = act.node()?;
    if act.flag("stdout") {
        return Err(Answer::bad_parameter("stdout", "option is only allowed on the command line interface."));
    }
    for name in ["prune-backups", "maxfiles", "tmpdir", "dumpdir", "script", "job-id", "bwlimit", "ionice"] {
        if act.given(name).is_some() && !act.is_root() {
            return Err(Answer::bad_parameter(name, "Only root may set this option."));
        }
    }
    check_selection(act)?;
    let named: Vec<u32> =
        crate::schema::split_list(act.text("vmid")).filter_map(|vmid| vmid.parse().ok()).collect();
    // One that there is not counts as local, so that its task fails visibly.
    let here = |vmid: &&u32| act.state.guests.get(vmid).is_none_or(|guest| *guest.node == node);
    let local: Vec<u32> = match (act.given("vmid"), act.given("pool")) {
        (Some(_), _) => named.iter().filter(here).copied().collect(),
        (None, pool) => {
            let of_pool = |guest: &&Guest| pool.is_none_or(|pool| guest.pool.as_deref() == Some(pool));
            act.state.guests_on(&node).filter(of_pool).map(|guest| guest.vmid).collect()
        }
    };
    if local.is_empty() && !act.flag("all") {
        return Ok(Answer::ok(json!("OK")));
    }
    if act.given("dumpdir").is_none() {
        let storage = act.given("storage").unwrap_or("local");
        act.require(&format!("/storage/{storage}"), &["Datastore.AllocateSpace"])?;
    }
    let id = match local.as_slice() {
        [one] => one.to_string(),
        _ => String::new(),
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
    volume_access::check(call, None, id, None)?;
    let (_, parsed) = volume_access::parse(call.state, id)?;
    if let Some(vmid) = parsed.owner {
        checks::require(call, &format!("/vms/{vmid}"), &["VM.Backup"], false)?;
    }
    match call.state.volumes.get(id) {
        Some(volume) => Ok(Answer::ok(json!(volume.config.clone().unwrap_or_default()))),
        None => fail(format!("volume '{id}' does not exist")),
    }
}
