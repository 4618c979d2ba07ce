//! `PUT` and `POST` of guests' configurations, and what belongs to them.

use serde_json::{Map, Value, json};

use super::act::{Act, done, fail};
use super::{Call, checks};
use crate::answer::{Answer, Rows};
use crate::schema::split_list;
use crate::work::disks::is_drive;
use crate::world::config::{is_numbered, parse_drive, parse_size};
use crate::world::state::{Guest, GuestKind, Work};

/// The parameters of an update that are no options.
const CONTROL: [&str; 7] =
    ["delete", "revert", "force", "digest", "skiplock", "background_delay", "skip_cloud_init"];

/// The privilege that changing an option takes; `None` is for `root@pam` alone.
fn privilege_for(kind: GuestKind, key: &str) -> Option<&'static [&'static str]> {
    let base = key.trim_end_matches(|character: char| character.is_ascii_digit());
    let cdrom = key == "cdrom";
    Some(match (kind, base) {
        (GuestKind::Qemu, _) if is_drive(kind, key) => &["VM.Config.Disk"],
        (GuestKind::Lxc, _) if is_drive(kind, key) => &["VM.Config.Disk"],
        _ if cdrom => &["VM.Config.CDROM"],
        (_, "unused" | "boot" | "bootdisk" | "vmstatestorage") => &["VM.Config.Disk"],
        (_, "cores" | "cpu" | "cpulimit" | "cpuunits" | "numa" | "smp" | "sockets" | "vcpus") => {
            &["VM.Config.CPU"]
        }
        (_, "memory" | "balloon" | "shares" | "swap" | "hugepages" | "keephugepages" | "allow-ksm") => {
            &["VM.Config.Memory"]
        }
        (_, "net") => &["VM.Config.Network"],
        (GuestKind::Lxc, "nameserver" | "searchdomain" | "hostname") => &["VM.Config.Network"],
        (
            GuestKind::Qemu,
            "cicustom" | "cipassword" | "citype" | "ciuser" | "ciupgrade" | "nameserver" | "searchdomain"
            | "sshkeys" | "ipconfig",
        ) => &["VM.Config.Cloudinit", "VM.Config.Network"],
        (
            GuestKind::Qemu,
            "acpi" | "hotplug" | "kvm" | "machine" | "scsihw" | "smbios" | "tablet" | "vga" | "watchdog"
            | "audio" | "serial" | "usb" | "hostpci" | "rng" | "amd-sev" | "arch" | "ivshmem" | "parallel"
            | "vmgenid",
        ) => &["VM.Config.HWType"],
        (
            GuestKind::Qemu,
            "agent" | "autostart" | "bios" | "description" | "keyboard" | "localtime" | "migrate_downtime"
            | "migrate_speed" | "name" | "onboot" | "ostype" | "protection" | "reboot" | "startdate"
            | "startup" | "tdf" | "template" | "tags" | "efidisk" | "spice_enhancements" | "freeze",
        ) => &["VM.Config.Options"],
        (
            GuestKind::Lxc,
            "arch" | "cmode" | "console" | "description" | "onboot" | "ostype" | "protection" | "startup"
            | "tags" | "template" | "timezone" | "tty" | "unprivileged" | "features" | "debug",
        ) => &["VM.Config.Options"],
        _ => return None,
    })
}

/// Every option needs its own privilege. What no privilege covers is for `root@pam` alone, and not for its tokens.
pub fn check_options<'k>(
    act: &Act<'_>,
    kind: GuestKind,
    vmid: u32,
    keys: impl Iterator<Item = &'k str>,
) -> Result<(), Answer> {
    if act.is_root() {
        return Ok(());
    }
    let path = format!("/vms/{vmid}");
    for key in keys {
        let restricted = match (kind, key) {
            (GuestKind::Lxc, "features") => {
                let value = act.text(key);
                split_list(value).any(|one| !one.starts_with("nesting="))
            }
            (GuestKind::Lxc, _) if is_numbered(key, "mp") => act.text(key).starts_with('/'),
            _ => false,
        };
        if restricted {
            return Err(match key {
                "features" => Answer::error(
                    403,
                    "Permission check failed (changing feature flags (except nesting) is only allowed for root@pam)",
                ),
                _ => Answer::error(
                    403,
                    "Permission check failed (mount point type bind is only allowed for root@pam)",
                ),
            });
        }
        match privilege_for(kind, key) {
            Some(privileges) => checks::require(&act.call(), &path, privileges, true)?,
            None => return fail(format!("only root can set '{key}' config")),
        }
    }
    Ok(())
}

/// Every storage that drives name must be known, and its space the caller's to take.
pub fn check_storages(act: &Act<'_>, kind: GuestKind, settings: &[(String, String)]) -> Result<(), Answer> {
    for (key, value) in settings.iter().filter(|(key, _)| is_drive(kind, key)) {
        let drive = parse_drive(key, value);
        let Some(storage) = drive.storage() else { continue };
        if !act.state.storages.contains_key(storage) {
            return fail(format!("storage '{storage}' does not exist"));
        }
        let allocates = drive.volume.split_once(':').is_some_and(|(_, name)| name.parse::<f64>().is_ok());
        if allocates {
            checks::require(
                &act.call(),
                &format!("/storage/{storage}"),
                &["Datastore.AllocateSpace"],
                false,
            )?;
        }
    }
    Ok(())
}

/// `PUT /nodes/{node}/qemu/{vmid}/config`: done before it is answered.
pub fn put_qemu(act: &mut Act<'_>) -> Result<Answer, Answer> {
    checked_update(act, GuestKind::Qemu)?;
    apply(act)
}

/// `POST …/config`: checked at once, done in a task.
pub fn post_qemu(act: &mut Act<'_>) -> Result<Answer, Answer> {
    checked_update(act, GuestKind::Qemu)?;
    let id = act.text("vmid").to_owned();
    act.fork("qmconfig", &id, &[])
}

/// `PUT /nodes/{node}/lxc/{vmid}/config`.
pub fn put_lxc(act: &mut Act<'_>) -> Result<Answer, Answer> {
    checked_update(act, GuestKind::Lxc)?;
    apply(act)
}

fn apply(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let work = Work { kind: String::new(), arguments: act.parameters.clone() };
    crate::work::apply(act.state, &work).map_err(|problem| Answer::error(500, problem))?;
    done()
}

/// What both ways of updating check before they touch anything, in PVE's order.
fn checked_update(act: &mut Act<'_>, kind: GuestKind) -> Result<(), Answer> {
    if act.flag("skiplock") && !act.is_root() {
        return Err(Answer::bad_parameter("skiplock", "Only root may use this option."));
    }
    let settings: Vec<(String, String)> = act.settings(&CONTROL).into_iter().collect();
    if settings.is_empty() && act.text("delete").is_empty() && act.text("revert").is_empty() {
        return fail("no options specified");
    }
    let guest = act.call().guest(kind)?.clone();
    let vmid = guest.vmid;
    let deletes: Vec<String> = split_list(act.text("delete")).map(str::to_owned).collect();
    for key in &deletes {
        if act.given(key).is_some() {
            return Err(Answer::bad_parameter(
                "delete",
                &format!("you can't use '-{key}' and -delete {key}' at the same time"),
            ));
        }
        if !option_exists(kind, key) {
            return Err(Answer::bad_parameter("delete", &format!("unknown option '{key}'")));
        }
    }
    for key in split_list(act.text("revert")) {
        if !option_exists(kind, key) {
            return Err(Answer::bad_parameter("revert", &format!("unknown option '{key}'")));
        }
        if act.given(key).is_some() {
            return Err(Answer::bad_parameter(
                "revert",
                &format!("you can't use '-{key}' and '-revert {key}' at the same time"),
            ));
        }
    }
    let keys = deletes.iter().chain(settings.iter().map(|(key, _)| key)).map(String::as_str);
    check_options(act, kind, vmid, keys)?;
    check_storages(act, kind, &settings)?;
    if act.given("digest").is_some_and(|digest| digest != guest.digest()) {
        return fail("checksum mismatch (file change by other user?)");
    }
    if let Some(lock) = guest.lock().filter(|_| !act.flag("skiplock"))
        && !deletes.iter().any(|key| key == "lock")
    {
        return fail(format!("{} is locked ({lock})", crate::work::guest_word(kind)));
    }
    if kind == GuestKind::Lxc && act.given("unprivileged").is_some() {
        return fail("unable to modify read-only option: 'unprivileged'");
    }
    let balloon: Option<i64> = act.given("balloon").and_then(|text| text.parse().ok());
    let memory =
        act.given("memory").and_then(|text| text.parse().ok()).or_else(|| guest.config.int("memory"));
    if balloon.unwrap_or_default() > memory.unwrap_or(512) {
        return fail("balloon value too large (must be smaller than assigned memory)");
    }
    for key in &deletes {
        check_protection(&guest, key)?;
    }
    Ok(())
}

/// A protected guest keeps its disks.
fn check_protection(guest: &Guest, key: &str) -> Result<(), Answer> {
    if guest.config.int("protection") != Some(1) {
        return Ok(());
    }
    if is_numbered(key, "unused") {
        return fail(format!("can't remove unused disk '{key}' - protection mode enabled"));
    }
    if is_drive(guest.kind, key) {
        let word = if guest.kind == GuestKind::Qemu { "drive" } else { "mountpoint" };
        return fail(format!("can't remove {word} '{key}' - protection mode enabled"));
    }
    Ok(())
}

fn option_exists(kind: GuestKind, key: &str) -> bool {
    let known = crate::work::disks::config_method(kind)
        .is_some_and(|method| crate::schema::kind(method, key).is_some());
    let extra = matches!(key, "cdrom" | "meta" | "vmgenid" | "vmstate" | "parent" | "lock" | "template");
    let no_option =
        matches!(key, "vmid" | "node" | "start" | "pool" | "storage" | "force" | "archive" | "unique");
    (known && !no_option) || extra || is_numbered(key, "unused")
}

/// `PUT …/unlink`: drives are taken off, `force` frees their volumes.
pub fn unlink(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let keys = act.text("idlist").to_owned();
    let mut arguments = act.parameters.clone();
    arguments.remove("idlist");
    arguments.insert("delete".to_owned(), keys);
    let guest = act.call().guest(GuestKind::Qemu)?.clone();
    for key in split_list(act.text("idlist")) {
        check_protection(&guest, key)?;
    }
    let work = Work { kind: String::new(), arguments };
    crate::work::apply(act.state, &work).map_err(|problem| Answer::error(500, problem))?;
    done()
}

/// `PUT …/resize`: a task, in which everything that can go wrong does.
pub fn resize(act: &mut Act<'_>, kind: GuestKind) -> Result<Answer, Answer> {
    act.call().guest(kind)?;
    let id = act.text("vmid").to_owned();
    act.fork("resize", &id, &[])
}

pub fn resize_qemu(act: &mut Act<'_>) -> Result<Answer, Answer> {
    resize(act, GuestKind::Qemu)
}

pub fn resize_lxc(act: &mut Act<'_>) -> Result<Answer, Answer> {
    resize(act, GuestKind::Lxc)
}

/// `POST …/move_disk`: to another storage.
pub fn move_qemu(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let guest = act.call().guest(GuestKind::Qemu)?.clone();
    let storage = act.text("storage").to_owned();
    if !act.state.storages.contains_key(&storage) && act.given("target-vmid").is_none() {
        return fail(format!("storage '{storage}' does not exist"));
    }
    act.require(&format!("/storage/{storage}"), &["Datastore.AllocateSpace"])?;
    let key = act.text("disk");
    let Some(value) = guest.config.text(key) else { return fail(format!("disk '{key}' does not exist")) };
    let drive = parse_drive(key, &value);
    if drive.storage().is_none() {
        return fail("unable to move cdrom or unmanaged disk".to_owned());
    }
    if let Some(lock) = guest.lock() {
        return fail(format!("VM is locked ({lock})"));
    }
    let format = drive.volume.rsplit_once('.').map_or("", |(_, format)| format);
    if drive.storage() == Some(&storage) && act.given("format").is_none_or(|wanted| wanted == format) {
        return fail("you can't move to the same storage with same format");
    }
    let id = act.text("vmid").to_owned();
    act.fork("qmmove", &id, &[])
}

/// `POST …/move_volume` of a container.
pub fn move_lxc(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let guest = act.call().guest(GuestKind::Lxc)?.clone();
    let storage = act.text("storage").to_owned();
    if !act.state.storages.contains_key(&storage) && act.given("target-vmid").is_none() {
        return fail(format!("storage '{storage}' does not exist"));
    }
    let key = act.text("volume");
    if guest.config.get(key).is_none() {
        return fail(format!("volume '{key}' does not exist"));
    }
    if guest.is_running() {
        return fail("cannot move volumes of a running container");
    }
    let id = act.text("vmid").to_owned();
    act.fork("move_volume", &id, &[])
}

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
    ) && key != "cicustom"
}

/// `GET …/cloudinit`: the settings with what is pending.
pub fn cloudinit(call: &Call<'_>) -> Result<Answer, Answer> {
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
pub fn cloudinit_dump(call: &Call<'_>) -> Result<Answer, Answer> {
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
    act.call().guest(GuestKind::Qemu)?;
    done()
}

/// `GET …/feature`: whether the guest's storages can do it.
pub fn feature(call: &Call<'_>, kind: GuestKind) -> Result<Answer, Answer> {
    let guest = call.guest(kind)?;
    let has = match call.text("feature") {
        "snapshot" => crate::work::can_snapshot(call.state, guest),
        "clone" => guest.is_template() && !guest.is_running(),
        _ => !guest.is_running() || kind == GuestKind::Qemu,
    };
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

/// `GET …/migrate`: the nodes that could take the VM, and what stands in the way.
pub fn migrate_preconditions(call: &Call<'_>) -> Result<Answer, Answer> {
    let guest = call.guest(GuestKind::Qemu)?;
    let mut disks = Vec::new();
    for drive in crate::work::local_drives(call.state, guest) {
        let unused = is_numbered(drive.key, "unused");
        let mut row = json!({
            "cdrom": u8::from(drive.is_cdrom()), "is_attached": u8::from(!unused),
            "is_tpmstate": u8::from(drive.key == "tpmstate0"), "is_unused": u8::from(unused), "is_vmstate": 0,
            "replicate": u8::from(drive.option("replicate") != Some("0")), "shared": 0, "volid": drive.volume,
        });
        if !unused {
            row["drivename"] = json!(drive.key);
        }
        let holds = |snapshot: &&crate::world::state::Snapshot| {
            snapshot.config.as_ref().is_some_and(|config| {
                config.iter().any(|(_, value)| value.to_text().split(',').next() == Some(&drive.volume))
            })
        };
        let snapshots: Map<String, Value> =
            guest.snapshots.iter().filter(holds).map(|snapshot| (snapshot.name.clone(), json!(1))).collect();
        if !snapshots.is_empty() {
            row["referenced_in_snapshot"] = Value::Object(snapshots);
        }
        if let Some(size) = drive.option("size").and_then(parse_size) {
            row["size"] = json!(size);
        }
        disks.push(row);
    }
    let others: Vec<&String> =
        call.state.nodes.keys().filter(|name| name.as_str() != guest.node.as_ref()).collect();
    let mut data = json!({
        "local_disks": disks, "local_resources": [], "mapped-resource-info": {}, "mapped-resources": [],
        "running": u8::from(guest.is_running()),
    });
    {
        let lacks = |node: &str| -> Vec<String> {
            let drives = guest.drives();
            let storages = drives.iter().filter_map(|drive| call.state.storages.get(drive.storage()?));
            let mut missing: Vec<String> = storages
                .filter(|storage| !storage.is_active_on(node))
                .map(|storage| storage.id.clone())
                .collect();
            missing.dedup();
            missing
        };
        let mut blocked = Map::new();
        let mut allowed = Vec::new();
        for node in others {
            let missing = lacks(node);
            if missing.is_empty() {
                allowed.push(node.clone());
                blocked.insert(node.clone(), json!({}));
            } else {
                blocked.insert(node.clone(), json!({"unavailable_storages": missing}));
            }
        }
        data["allowed_nodes"] = json!(allowed);
        data["not_allowed_nodes"] = Value::Object(blocked);
    }
    Ok(Answer::ok(data))
}
