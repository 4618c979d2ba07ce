//! Whether a storage can be used, and whether a caller may use a volume: what PVE asks before anything is done with one.

use super::{Call, checks};
use crate::answer::Answer;
use crate::world::access::{Principal, ROOT};
use crate::world::state::{State, Storage};
use crate::world::volname::{self, VolumeName, split_volume_id};

/// 500 with a text.
fn refuse(text: impl Into<String>) -> Answer {
    Answer::error(500, text)
}

/// A storage that is defined.
pub fn defined<'a>(state: &'a State, storage: &str) -> Result<&'a Storage, Answer> {
    state.storages.get(storage).ok_or_else(|| refuse(format!("storage '{storage}' does not exist")))
}

/// A storage that is defined, switched on and for that node.
pub fn enabled<'a>(state: &'a State, storage: &str, node: &str) -> Result<&'a Storage, Answer> {
    crate::work::disks::usable(state, storage, node).map_err(refuse)
}

/// Whether a storage is for that kind of content.
pub fn has_content(storage: &Storage, wanted: &str) -> bool {
    storage.content.split(',').any(|content| content == wanted)
}

/// The storage of a volume, and what its name tells.
pub fn parse<'a>(state: &'a State, id: &str) -> Result<(&'a Storage, VolumeName), Answer> {
    let (storage, name) =
        split_volume_id(id).ok_or_else(|| refuse(format!("unable to parse volume ID '{id}'")))?;
    let storage = defined(state, storage)?;
    volname::parse(&storage.kind, name).map(|parsed| (storage, parsed)).map_err(refuse)
}

/// Whether the caller may use a volume for a guest. `content` is what the volume must be; root file systems are kept as
/// images. Paths of the host are for the superuser, and not for its tokens.
pub fn check(call: &Call<'_>, vmid: Option<u32>, id: &str, content: Option<&str>) -> Result<(), Answer> {
    if split_volume_id(id).is_none() {
        if *call.principal == Principal::User(ROOT.to_owned()) {
            return Ok(());
        }
        // PVE forgot a line break, so that Perl tells where it stopped.
        let place = "at /usr/share/perl5/PVE/Storage.pm line 557.";
        return Err(refuse(format!("Only root can pass arbitrary filesystem paths. {place}")));
    }
    let (storage, volume) = parse(call.state, id)?;
    if let Some(wanted) = content.filter(|wanted| *wanted != volume.content)
        && !(wanted == "rootdir" && volume.content == "images")
    {
        return Err(refuse(format!("unable to use volume {id} - content type needs to be '{wanted}'")));
    }
    let here = format!("/storage/{}", storage.id);
    if call.allows(&here, &["Datastore.Allocate"]) {
        return Ok(());
    }
    let guest = format!("/vms/{}", volume.owner.unwrap_or_default());
    match (volume.content, volume.owner) {
        ("iso" | "vztmpl" | "import", _) => {
            checks::require(call, &here, &["Datastore.AllocateSpace", "Datastore.Audit"], true)
        }
        (_, Some(owner)) if vmid == Some(owner) => Ok(()),
        ("backup", Some(_)) => {
            checks::require(call, &here, &["Datastore.AllocateSpace"], false)?;
            checks::require(call, &guest, &["VM.Backup"], false)
        }
        ("images" | "rootdir", Some(_)) => {
            checks::require(call, &here, &["Datastore.Audit"], false)?;
            checks::require(call, &guest, &["VM.Config.Disk"], false)
        }
        _ => Err(refuse(format!("missing privileges to access {id}"))),
    }
}

/// 403 unless the caller may use the bridges that a guest's network cards name. A card with a VLAN needs the VLAN alone.
pub fn check_bridges<'v>(
    call: &Call<'_>,
    cards: impl Iterator<Item = (&'v str, &'v str)>,
) -> Result<(), Answer> {
    for (_, value) in cards.filter(|(key, _)| crate::world::config::is_numbered(key, "net")) {
        let option = |name: &str| {
            value.split(',').find_map(|part| part.strip_prefix(name)?.strip_prefix('=')).unwrap_or_default()
        };
        let bridge = option("bridge");
        if bridge.is_empty() {
            continue;
        }
        let place = format!("/sdn/zones/localnetwork/{bridge}");
        match option("tag") {
            "" => checks::require(call, &place, &["SDN.Use"], false)?,
            tag => checks::require(call, &format!("{place}/{tag}"), &["SDN.Use"], false)?,
        }
    }
    Ok(())
}
