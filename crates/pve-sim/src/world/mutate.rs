//! What tests and the demonstration do to a world: each method is one thing that happens to a cluster.

use std::collections::BTreeMap;

use super::access::{Principal, ROOT, Token, User};
use super::config::{self, Config, ConfigValue};
use super::state::{
    BackupJob, EPOCH, Guest, GuestKind, GuestSpec, Node, Pool, Power, Snapshot, State, Storage, Usage, Volume,
};
use super::{Credential, World, WorldError, generate, ids};

/// Generated guests were created from this long before [`EPOCH`] on, in seconds.
const FIRST_CREATION: u64 = 30_000_000;

impl World {
    /// Adds a guest and returns its vmid.
    pub fn add_guest(&self, spec: GuestSpec) -> Result<u32, WorldError> {
        self.update(|state| create(state, spec))
    }

    /// Adds `count` generated guests with the next free vmids and returns those.
    pub fn grow(&self, count: usize) -> Vec<u32> {
        self.update(|state| generate::more_guests(state, count))
    }

    /// Destroys a guest.
    pub fn remove_guest(&self, vmid: u32) -> Result<(), WorldError> {
        self.update(|state| state.guests.remove(&vmid).map(drop).ok_or(WorldError::NoGuest(vmid)))
    }

    /// Destroys a guest and creates another one under the same vmid: another UUID and creation time, perhaps another
    /// kind.
    pub fn recreate(&self, spec: GuestSpec) -> Result<(), WorldError> {
        self.update(|state| {
            let old = state.guests.remove(&spec.vmid).ok_or(WorldError::NoGuest(spec.vmid))?;
            create(state, spec).map(drop).inspect_err(|_| {
                state.guests.insert(old.vmid, old);
            })
        })
    }

    /// Changes one guest as one likes.
    pub fn edit_guest<R>(&self, vmid: u32, change: impl FnOnce(&mut Guest) -> R) -> Result<R, WorldError> {
        self.update(|state| state.guests.get_mut(&vmid).map(change).ok_or(WorldError::NoGuest(vmid)))
    }

    /// Sets a key of a guest's configuration.
    pub fn set_config(&self, vmid: u32, key: &str, value: impl Into<ConfigValue>) -> Result<(), WorldError> {
        let value = value.into();
        if matches!(value, ConfigValue::Odd(_)) {
            self.update(|state| state.odd = true);
        }
        self.edit_guest(vmid, |guest| guest.config.set(key.to_owned(), value))
    }

    /// Deletes a key of a guest's configuration; PVE only warns where it is absent.
    pub fn delete_config(&self, vmid: u32, key: &str) -> Result<(), WorldError> {
        self.edit_guest(vmid, |guest| guest.config.remove(key)).map(drop)
    }

    /// Gives a guest another name.
    pub fn rename(&self, vmid: u32, name: &str) -> Result<(), WorldError> {
        self.edit_guest(vmid, |guest| {
            guest.config.set(if guest.kind == GuestKind::Qemu { "name" } else { "hostname" }, name);
        })
    }

    /// Sets a guest's tags; none removes the key.
    pub fn set_tags(&self, vmid: u32, tags: &[&str]) -> Result<(), WorldError> {
        self.edit_guest(vmid, |guest| {
            if tags.is_empty() {
                guest.config.remove("tags");
            } else {
                guest.config.set("tags", tags.join(";"));
            }
        })
    }

    /// Starts, stops or pauses a guest.
    pub fn set_power(&self, vmid: u32, power: Power) -> Result<(), WorldError> {
        self.edit_guest(vmid, |guest| guest.power = power)
    }

    /// Puts a guest into a pool or takes it out.
    pub fn set_pool(&self, vmid: u32, pool: Option<&str>) -> Result<(), WorldError> {
        self.update(|state| {
            if let Some(name) = pool.filter(|name| !state.pools.contains_key(*name)) {
                return Err(WorldError::NoPool(name.to_owned()));
            }
            let guest = state.guests.get_mut(&vmid).ok_or(WorldError::NoGuest(vmid))?;
            guest.pool = pool.map(Into::into);
            Ok(())
        })
    }

    /// Lets HA manage a guest in that state, or no longer.
    pub fn set_ha(&self, vmid: u32, ha: Option<&str>) -> Result<(), WorldError> {
        self.edit_guest(vmid, |guest| guest.ha = ha.map(Into::into))
    }

    /// Takes a snapshot of a guest's configuration and disks.
    pub fn add_snapshot(&self, vmid: u32, name: &str, description: &str) -> Result<(), WorldError> {
        self.edit_guest(vmid, |guest| {
            let time = EPOCH + 60 * guest.snapshots.len() as u64;
            let snapshot = Snapshot {
                name: name.to_owned(),
                description: description.to_owned(),
                time,
                with_memory: false,
                parent: None,
                config: None,
            };
            guest.snapshots.push(snapshot);
            guest.config.set("parent", name);
        })
    }

    /// Moves a guest to another node; its disks keep their volume ids.
    pub fn migrate(&self, vmid: u32, node: &str) -> Result<(), WorldError> {
        self.update(|state| {
            let name = node_mut(state, node)?.name.clone();
            state.guests.get_mut(&vmid).ok_or(WorldError::NoGuest(vmid))?.node = name;
            Ok(())
        })
    }

    /// Moves a disk to another storage; the key stays and the volume id changes.
    pub fn move_disk(&self, vmid: u32, key: &str, storage: &str) -> Result<(), WorldError> {
        self.update(|state| {
            let target =
                state.storages.get(storage).ok_or_else(|| WorldError::NoStorage(storage.to_owned()))?;
            let guest = state.guests.get_mut(&vmid).ok_or(WorldError::NoGuest(vmid))?;
            let no_disk = || WorldError::NoDisk { vmid, key: key.to_owned() };
            let value = guest.config.text(key).ok_or_else(no_disk)?;
            let mut drive = config::parse_drive(key, &value);
            drive.storage().ok_or_else(no_disk)?;
            let taken: Vec<String> = guest.drives().into_iter().map(|drive| drive.volume).collect();
            let free =
                (0..).map(|disk| target.volume_id(guest.kind, vmid, disk)).find(|id| !taken.contains(id));
            drive.volume = free.unwrap_or_default();
            let text = drive.to_property_string();
            guest.config.set(key.to_owned(), text);
            Ok(())
        })
    }

    /// Makes a disk larger by so many GiB.
    pub fn grow_disk(&self, vmid: u32, key: &str, gib: u64) -> Result<(), WorldError> {
        self.edit_guest(vmid, |guest| {
            let no_disk = || WorldError::NoDisk { vmid, key: key.to_owned() };
            let value = guest.config.text(key).ok_or_else(no_disk)?;
            let mut drive = config::parse_drive(key, &value);
            let size = drive.size().ok_or_else(no_disk)? + (gib << 30);
            for (_, value) in drive.options.iter_mut().filter(|(name, _)| name == "size") {
                *value = config::format_size(size);
            }
            let text = drive.to_property_string();
            guest.config.set(key.to_owned(), text);
            Ok(())
        })?
    }

    /// Cuts a node off or brings it back. Cut off, its guests keep their last status, and requests to it give 595.
    pub fn set_node_online(&self, node: &str, online: bool) -> Result<(), WorldError> {
        self.update(|state| {
            let node = node_mut(state, node)?;
            node.online = online;
            node.forgotten &= !online;
            Ok(())
        })
    }

    /// Lets the statistics of an offline node expire, which takes PVE some five minutes: its guests shrink to base rows
    /// with the status `unknown`.
    pub fn forget_offline(&self, node: &str) -> Result<(), WorldError> {
        self.update(|state| {
            let node = node_mut(state, node)?;
            node.forgotten = !node.online;
            Ok(())
        })
    }

    /// Lets the next task that would succeed end with this exit status, such as `WARNINGS: 1` or a failure. It does its work
    /// all the same: a start can fail with the VM running.
    pub fn set_next_exit(&self, exit: &str) {
        self.update(|state| state.next_exit = Some(exit.to_owned()));
    }

    /// Sets whether the cluster has quorum.
    pub fn set_quorum(&self, quorate: bool) {
        self.update(|state| state.quorate = quorate);
    }

    /// Sets a node's load: the share of its CPUs and of its memory in use, 0 to 1.
    pub fn set_node_load(&self, node: &str, cpu: f64, memory: f64) -> Result<(), WorldError> {
        self.update(|state| {
            let node = node_mut(state, node)?;
            node.cpu_load = cpu;
            node.memory.used = (node.memory.total as f64 * memory) as u64;
            Ok(())
        })
    }

    /// Adds a storage, or replaces the one of that name.
    pub fn add_storage(&self, storage: Storage) {
        self.update(|state| state.storages.insert(storage.id.clone(), storage));
    }

    /// Removes a storage's definition; volumes on it stay where they are mentioned.
    pub fn remove_storage(&self, storage: &str) -> Result<(), WorldError> {
        self.update(|state| {
            for pool in state.pools.values_mut() {
                pool.storages.remove(storage);
            }
            state.storages.remove(storage).map(drop).ok_or_else(|| WorldError::NoStorage(storage.to_owned()))
        })
    }

    /// Changes one storage as one likes.
    pub fn edit_storage<R>(
        &self,
        storage: &str,
        change: impl FnOnce(&mut Storage) -> R,
    ) -> Result<R, WorldError> {
        let missing = || WorldError::NoStorage(storage.to_owned());
        self.update(|state| state.storages.get_mut(storage).map(change).ok_or_else(missing))
    }

    /// Puts a template of containers on a storage: `local:vztmpl/debian-12.tar.zst`. Where the storage is not shared, `node` has it.
    pub fn add_container_template(&self, volume: &str, node: Option<&str>) {
        let file = Volume {
            content: "vztmpl".to_owned(),
            size: 120 << 20,
            format: "tar.zst".to_owned(),
            time: 1_700_000_000,
            vmid: None,
            notes: None,
            protected: false,
            node: node.map(str::to_owned),
            config: None,
            parent: None,
        };
        self.update(|state| state.volumes.insert(volume.to_owned(), file));
    }

    /// Sets the room that a node sees on a storage, in bytes; without a node, everywhere.
    pub fn set_storage_usage(
        &self,
        storage: &str,
        node: Option<&str>,
        usage: Usage,
    ) -> Result<(), WorldError> {
        self.edit_storage(storage, |storage| match node {
            Some(node) => {
                storage.usage_on.insert(node.to_owned(), usage);
            }
            None => {
                storage.usage_on.clear();
                storage.usage = usage;
            }
        })
    }

    /// Adds a pool, or replaces the one of that name.
    pub fn add_pool(&self, name: &str, pool: Pool) {
        self.update(|state| state.pools.insert(name.to_owned(), pool));
    }

    /// Adds a backup job, or replaces the one of that name.
    pub fn add_backup_job(&self, job: BackupJob) {
        self.update(|state| state.jobs.insert(job.id.clone(), job));
    }

    /// Removes a backup job.
    pub fn remove_backup_job(&self, id: &str) -> Result<(), WorldError> {
        self.update(|state| state.jobs.remove(id).map(drop).ok_or_else(|| WorldError::NoJob(id.to_owned())))
    }

    /// Switches a backup job on or off.
    pub fn set_job_enabled(&self, id: &str, enabled: bool) -> Result<(), WorldError> {
        self.update(|state| {
            state.jobs.get_mut(id).ok_or_else(|| WorldError::NoJob(id.to_owned()))?.enabled = enabled;
            Ok(())
        })
    }

    /// Adds a user with a password, or gives one another password.
    pub fn add_user(&self, user: &str, password: &str) {
        self.update(|state| {
            let user = state.access.users.entry(user.to_owned()).or_default();
            user.enabled = true;
            user.password = Some(password.to_owned());
        });
    }

    /// Asks a user for a second factor at login, which accepts this code alone; `None` asks for none.
    pub fn set_totp(&self, user: &str, code: Option<&str>) -> Result<(), WorldError> {
        self.edit_user(user, |user| user.totp = code.map(str::to_owned))
    }

    /// Lets a user in or not; the tokens too.
    pub fn set_user_enabled(&self, user: &str, enabled: bool) -> Result<(), WorldError> {
        self.edit_user(user, |user| user.enabled = enabled)
    }

    fn edit_user<R>(&self, user: &str, change: impl FnOnce(&mut User) -> R) -> Result<R, WorldError> {
        let missing = || WorldError::NoUser(user.to_owned());
        self.update(|state| state.access.users.get_mut(user).map(change).ok_or_else(missing))
    }

    /// Adds a token that holds `role` on `path`, and its user where there is none.
    ///
    /// The token has privilege separation; its user gets the same role there, for a token never holds more.
    pub fn add_token(
        &self,
        user: &str,
        name: &str,
        role: &str,
        path: &str,
    ) -> Result<Credential, WorldError> {
        self.update(|state| {
            if !state.access.roles.contains_key(role) {
                return Err(WorldError::NoRole(role.to_owned()));
            }
            let credential = insert_token(state, user, name, true);
            if user != ROOT {
                state.access.grant(user, role, path, true);
            }
            state.access.grant(&credential.id, role, path, true);
            Ok(credential)
        })
    }

    /// Adds a token that holds what its user holds.
    pub fn add_full_token(&self, user: &str, name: &str) -> Credential {
        self.update(|state| insert_token(state, user, name, false))
    }

    /// Removes a token; requests with it get 401.
    pub fn remove_token(&self, user: &str, name: &str) -> Result<(), WorldError> {
        self.edit_user(user, |user| drop(user.tokens.remove(name)))
    }

    /// Sets a token's privilege separation.
    pub fn set_privilege_separation(
        &self,
        user: &str,
        name: &str,
        separated: bool,
    ) -> Result<(), WorldError> {
        self.edit_user(user, |user| {
            if let Some(token) = user.tokens.get_mut(name) {
                token.privilege_separation = separated;
            }
        })
    }

    /// Gives a role at a path to a user or token.
    pub fn grant(&self, who: &str, role: &str, path: &str, propagate: bool) -> Result<(), WorldError> {
        self.update(|state| {
            if !state.access.roles.contains_key(role) {
                return Err(WorldError::NoRole(role.to_owned()));
            }
            state.access.grant(who, role, path, propagate);
            Ok(())
        })
    }

    /// Takes all roles at a path from a user or token.
    pub fn revoke(&self, who: &str, path: &str) {
        self.update(|state| state.access.revoke(who, path));
    }

    /// The secret of a token, `user@realm!name`.
    pub fn credential(&self, id: &str) -> Option<Credential> {
        let Principal::Token(user, name) = Principal::parse(id) else { return None };
        self.read(|state| {
            let token = state.access.users.get(&user)?.tokens.get(&name)?;
            Some(Credential { id: id.to_owned(), secret: token.secret.clone() })
        })
    }

    /// The password of a user.
    pub fn password(&self, user: &str) -> Option<String> {
        self.read(|state| state.access.users.get(user)?.password.clone())
    }
}

fn node_mut<'a>(state: &'a mut State, node: &str) -> Result<&'a mut Node, WorldError> {
    state.nodes.get_mut(node).ok_or_else(|| WorldError::NoNode(node.to_owned()))
}

/// Adds a token and its user where there is none.
pub(crate) fn insert_token(
    state: &mut State,
    user: &str,
    name: &str,
    privilege_separation: bool,
) -> Credential {
    let id = format!("{user}!{name}");
    let secret = ids::uuid(state.seed, &format!("token {id}"));
    let owner = state.access.users.entry(user.to_owned()).or_insert_with(|| User {
        enabled: true,
        tokens: BTreeMap::new(),
        ..User::default()
    });
    owner.tokens.insert(
        name.to_owned(),
        Token { secret: secret.clone(), privilege_separation, expire: 0, comment: None },
    );
    Credential { id, secret }
}

/// Creates a guest from its specification, with what PVE adds by itself: UUIDs, creation time, boot order.
pub(super) fn create(state: &mut State, spec: GuestSpec) -> Result<u32, WorldError> {
    let GuestSpec { vmid, kind, node, power, pool, ha, cpu_load, disks, config: given } = spec;
    if state.guests.contains_key(&vmid) {
        return Err(WorldError::GuestExists(vmid));
    }
    let node = match node {
        Some(name) => node_mut(state, &name)?.name.clone(),
        None => state
            .nodes
            .values()
            .next()
            .map(|node| node.name.clone())
            .ok_or_else(|| WorldError::NoNode("of any name".to_owned()))?,
    };
    if let Some(name) = pool.as_deref().filter(|name| !state.pools.contains_key(*name)) {
        return Err(WorldError::NoPool(name.to_owned()));
    }
    let mut config = Config::default();
    defaults(state, kind, vmid, &mut config);
    let mut order = Vec::new();
    for (disk, (key, storage, size, options)) in disks.into_iter().enumerate() {
        let target = state.storages.get(&storage).ok_or(WorldError::NoStorage(storage))?;
        let volume = target.volume_id(kind, vmid, disk);
        if config::is_qemu_disk_key(&key) && key != "efidisk0" && key != "tpmstate0" {
            order.push(key.clone());
        }
        config.set(key, disk_value(&volume, size, &options));
    }
    if kind == GuestKind::Qemu {
        order.truncate(1);
        if given.iter().any(|(key, _)| key == "net0") {
            order.push("net0".to_owned());
        }
        config.set("boot", format!("order={}", order.join(";")));
    }
    for (key, value) in given {
        state.odd |= matches!(value, ConfigValue::Odd(_));
        config.set(key, value);
    }
    state.created += 1;
    let (pool, ha) = (pool.map(Into::into), ha.map(Into::into));
    let guest = Guest {
        vmid,
        kind,
        node,
        power,
        config,
        pool,
        ha,
        snapshots: Vec::new(),
        cpu_load,
        pending: Vec::new(),
    };
    state.guests.insert(vmid, guest);
    Ok(vmid)
}

fn defaults(state: &State, kind: GuestKind, vmid: u32, config: &mut Config) {
    let serial = state.created;
    match kind {
        GuestKind::Qemu => {
            let created = EPOCH - FIRST_CREATION + 60 * serial;
            config.set("cores", 1);
            config.set("memory", "2048");
            config.set("meta", format!("creation-qemu=9.2.0,ctime={created}"));
            config.set("ostype", "l26");
            config.set("scsihw", "virtio-scsi-single");
            config.set(
                "smbios1",
                format!("uuid={}", ids::uuid(state.seed, &format!("smbios {vmid} {serial}"))),
            );
            config.set("vmgenid", ids::uuid(state.seed, &format!("vmgenid {vmid} {serial}")));
        }
        GuestKind::Lxc => {
            config.set("arch", "amd64");
            config.set("memory", 512);
            config.set("ostype", "debian");
            config.set("swap", 512);
            config.set("unprivileged", 1);
        }
    }
}

/// A disk's property string as PVE writes it: the volume, `mp=` where there is one, then the sorted options with `size=`.
fn disk_value(volume: &str, size: u64, options: &str) -> String {
    let size = format!("size={}", config::format_size(size));
    let mut parts: Vec<&str> = options.split(',').filter(|part| !part.is_empty()).collect();
    parts.push(&size);
    parts.sort_by_key(|part| (!part.starts_with("mp="), *part));
    format!("{volume},{}", parts.join(","))
}

/// A VM's network card as PVE writes it; `options` are sorted in, such as `firewall=1,tag=20`.
pub(super) fn qemu_nic(model: &str, mac: &str, bridge: &str, options: &str) -> String {
    let bridge = format!("bridge={bridge}");
    let mut parts: Vec<&str> = options.split(',').filter(|part| !part.is_empty()).collect();
    parts.push(&bridge);
    parts.sort_unstable();
    format!("{model}={mac},{}", parts.join(","))
}

/// A container's network card as PVE writes it.
pub(super) fn lxc_nic(name: &str, mac: &str, bridge: &str, options: &str) -> String {
    let (bridge, mac) = (format!("bridge={bridge}"), format!("hwaddr={mac}"));
    let mut parts: Vec<&str> = options.split(',').filter(|part| !part.is_empty()).collect();
    parts.extend([bridge.as_str(), mac.as_str(), "type=veth"]);
    parts.sort_unstable();
    format!("name={name},{}", parts.join(","))
}

#[cfg(test)]
mod tests {
    use super::super::WorldSpec;
    use super::*;

    fn world() -> World {
        World::generate(&WorldSpec::new("rig", 3, 30, 5))
    }

    #[test]
    fn a_reused_vmid_is_another_guest() {
        let world = world();
        let vmid = world.read(|state| *state.guests.keys().next().unwrap());
        world.recreate(GuestSpec::qemu(vmid, "one").disk("scsi0", "local-lvm", 8, "")).unwrap();
        let uuid = |world: &World| {
            world.read(|state| state.guests[&vmid].config.text("smbios1").unwrap().into_owned())
        };
        let first = uuid(&world);
        world.recreate(GuestSpec::qemu(vmid, "two")).unwrap();
        assert_ne!(uuid(&world), first);
        assert_eq!(world.add_guest(GuestSpec::qemu(vmid, "three")), Err(WorldError::GuestExists(vmid)));
    }

    #[test]
    fn a_failed_recreation_keeps_the_old_guest() {
        let world = world();
        let vmid = world.read(|state| *state.guests.keys().next().unwrap());
        let spec = GuestSpec::lxc(vmid, "x").disk("rootfs", "nowhere", 1, "");
        assert_eq!(world.recreate(spec), Err(WorldError::NoStorage("nowhere".into())));
        assert!(world.read(|state| state.guests.contains_key(&vmid)));
    }

    #[test]
    fn a_moved_disk_keeps_key_size_and_options() {
        let world = world();
        let spec = GuestSpec::qemu(9000, "x")
            .disk("scsi0", "local-lvm", 8, "backup=0")
            .disk("scsi1", "nfs-vm", 8, "");
        world.add_guest(spec).unwrap();
        world.move_disk(9000, "scsi0", "nfs-vm").unwrap();
        world.grow_disk(9000, "scsi0", 2).unwrap();
        let value = world.read(|state| state.guests[&9000].config.text("scsi0").unwrap().into_owned());
        assert_eq!(value, "nfs-vm:9000/vm-9000-disk-0.qcow2,backup=0,size=10G");
        let missing = WorldError::NoDisk { vmid: 9000, key: "scsi7".into() };
        assert_eq!(world.move_disk(9000, "scsi7", "nfs-vm"), Err(missing));
    }

    #[test]
    fn property_strings_are_sorted_as_pve_sorts_them() {
        assert_eq!(disk_value("s:v", 1 << 30, "ssd=1,backup=0"), "s:v,backup=0,size=1G,ssd=1");
        assert_eq!(disk_value("s:v", 1 << 30, "backup=1,mp=/data"), "s:v,mp=/data,backup=1,size=1G");
        assert_eq!(
            qemu_nic("virtio", "M", "vmbr0", "tag=5,firewall=1"),
            "virtio=M,bridge=vmbr0,firewall=1,tag=5"
        );
    }
}
