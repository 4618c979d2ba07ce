//! Users, tokens, roles and access control lists, and the question that PVE asks of them: who may do what where.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::state::State;

/// Every privilege of PVE 8.4, sorted. A privilege's place is its bit in [`Privileges`].
pub const PRIVILEGES: [&str; 42] = [
    "Datastore.Allocate",
    "Datastore.AllocateSpace",
    "Datastore.AllocateTemplate",
    "Datastore.Audit",
    "Group.Allocate",
    "Mapping.Audit",
    "Mapping.Modify",
    "Mapping.Use",
    "Permissions.Modify",
    "Pool.Allocate",
    "Pool.Audit",
    "Realm.Allocate",
    "Realm.AllocateUser",
    "SDN.Allocate",
    "SDN.Audit",
    "SDN.Use",
    "Sys.AccessNetwork",
    "Sys.Audit",
    "Sys.Console",
    "Sys.Incoming",
    "Sys.Modify",
    "Sys.PowerMgmt",
    "Sys.Syslog",
    "User.Modify",
    "VM.Allocate",
    "VM.Audit",
    "VM.Backup",
    "VM.Clone",
    "VM.Config.CDROM",
    "VM.Config.CPU",
    "VM.Config.Cloudinit",
    "VM.Config.Disk",
    "VM.Config.HWType",
    "VM.Config.Memory",
    "VM.Config.Network",
    "VM.Config.Options",
    "VM.Console",
    "VM.Migrate",
    "VM.Monitor",
    "VM.PowerMgmt",
    "VM.Snapshot",
    "VM.Snapshot.Rollback",
];

/// The superuser, to whom no access control list applies.
pub const ROOT: &str = "root@pam";

/// A set of privileges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Privileges(u64);

impl Privileges {
    /// Every privilege.
    pub const ALL: Self = Self((1 << PRIVILEGES.len()) - 1);

    /// The set of the privileges that `wanted` accepts.
    pub fn filter(wanted: impl Fn(&str) -> bool) -> Self {
        let bits = PRIVILEGES.iter().enumerate().filter(|(_, name)| wanted(name));
        Self(bits.fold(0, |set, (bit, _)| set | 1 << bit))
    }

    /// The set of the privileges named; unknown names are left out.
    pub fn named(names: &[&str]) -> Self {
        Self::filter(|name| names.contains(&name))
    }

    /// Whether any of `other` is in the set.
    pub fn has_any(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether nothing is in the set.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The names in the set, sorted.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        PRIVILEGES
            .into_iter()
            .enumerate()
            .filter(move |(bit, _)| self.0 & (1 << bit) != 0)
            .map(|(_, name)| name)
    }
}

/// What a principal holds at one path: the privileges, and those of them that are inherited further down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// The privileges held.
    pub privileges: Privileges,
    /// The privileges among them whose entry has the propagate flag; `/access/permissions` shows 1 for them and 0
    /// for the others.
    pub propagated: Privileges,
}

/// Who a request comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Principal {
    /// A user with a ticket: `user@realm`.
    User(String),
    /// An API token: `user@realm` and the token's name.
    Token(String, String),
}

impl Principal {
    /// The user, of a token too.
    pub fn user(&self) -> &str {
        match self {
            Self::User(user) | Self::Token(user, _) => user,
        }
    }

    /// `user@realm` or `user@realm!name`.
    pub fn id(&self) -> String {
        match self {
            Self::User(user) => user.clone(),
            Self::Token(user, name) => format!("{user}!{name}"),
        }
    }

    /// Reads `user@realm` or `user@realm!name`.
    pub fn parse(id: &str) -> Self {
        match id.split_once('!') {
            Some((user, name)) => Self::Token(user.to_owned(), name.to_owned()),
            None => Self::User(id.to_owned()),
        }
    }
}

/// A token's secret and settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// The secret, a UUID.
    pub secret: String,
    /// With privilege separation a token has its own entries, and at most its user's rights.
    pub privilege_separation: bool,
    /// Seconds since 1970 after which the token is refused; 0 means never.
    pub expire: u64,
    /// What its maker wrote.
    pub comment: Option<String>,
}

/// A user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// The password; without one the user has only tokens.
    pub password: Option<String>,
    /// The one-time code that the second factor accepts; `None` means no second factor.
    pub totp: Option<String>,
    /// Whether the user may log in at all.
    pub enabled: bool,
    /// The user's tokens by name.
    pub tokens: BTreeMap<String, Token>,
    /// The groups the user is in.
    pub groups: BTreeSet<String>,
    /// `comment`, `email`, `firstname`, `keys`, `lastname`, as they were given.
    pub about: BTreeMap<String, String>,
    /// Seconds since 1970 after which the user is refused; 0 means never.
    pub expire: u64,
    /// Second factors: id and description.
    pub factors: Vec<(String, String)>,
}

/// One entry of the access control list: a role at a path, given to a user or a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AclEntry {
    /// `user@realm` or `user@realm!name`.
    pub who: String,
    /// The role's name.
    pub role: String,
    /// Whether paths below inherit it.
    pub propagate: bool,
}

/// All of the cluster's access control.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Access {
    /// Users by `user@realm`.
    pub users: BTreeMap<String, User>,
    /// Roles by name.
    pub roles: BTreeMap<String, Privileges>,
    /// Entries by path. A group stands there as `@name`.
    pub acl: BTreeMap<String, Vec<AclEntry>>,
    /// Groups by name, with their comment.
    pub groups: BTreeMap<String, Option<String>>,
    /// Realms by name: `type`, `comment` and what their type has besides.
    pub realms: BTreeMap<String, Map<String, Value>>,
}

/// A realm of this type.
fn realm(kind: &str, comment: &str) -> Map<String, Value> {
    let fields = [("comment", comment), ("type", kind)];
    fields.map(|(key, value)| (key.to_owned(), Value::from(value))).into_iter().collect()
}

impl User {
    /// What PVE shows of a user besides groups and tokens. What is empty is gone, but an e-mail address stays as an
    /// empty text where a comment or keys follow it in the file.
    pub fn shown(&self) -> Map<String, Value> {
        let about = |key: &str| self.about.get(key).filter(|value| !value.is_empty());
        let mut row = Map::new();
        for key in ["comment", "email", "firstname", "keys", "lastname"] {
            if let Some(value) = about(key) {
                row.insert(key.to_owned(), Value::from(value.as_str()));
            }
        }
        if self.totp.is_some() {
            row.insert("keys".to_owned(), Value::from("x"));
        }
        if row.contains_key("comment") || row.contains_key("keys") {
            row.entry("email").or_insert(Value::from(""));
        }
        row.insert("enable".to_owned(), Value::from(u8::from(self.enabled)));
        row.insert("expire".to_owned(), Value::from(self.expire));
        row
    }
}

impl Access {
    /// Access control of a fresh installation: the built-in roles and `root@pam`.
    pub fn fresh() -> Self {
        let audit: &[&str] =
            &["Datastore.Audit", "Mapping.Audit", "Pool.Audit", "SDN.Audit", "Sys.Audit", "VM.Audit"];
        let not_admin: &[&str] = &[
            "Mapping.Modify",
            "Permissions.Modify",
            "Realm.Allocate",
            "Sys.AccessNetwork",
            "Sys.Incoming",
            "Sys.Modify",
            "Sys.PowerMgmt",
        ];
        let vm_user: &[&str] = &[
            "VM.Audit",
            "VM.Backup",
            "VM.Config.CDROM",
            "VM.Config.Cloudinit",
            "VM.Console",
            "VM.PowerMgmt",
        ];
        let roles = [
            ("Administrator", Privileges::ALL),
            ("NoAccess", Privileges::default()),
            ("PVEAdmin", Privileges::filter(|name| !not_admin.contains(&name))),
            ("PVEAuditor", Privileges::named(audit)),
            ("PVEDatastoreAdmin", Privileges::filter(|name| name.starts_with("Datastore."))),
            ("PVEDatastoreUser", Privileges::named(&["Datastore.AllocateSpace", "Datastore.Audit"])),
            ("PVEMappingAdmin", Privileges::filter(|name| name.starts_with("Mapping."))),
            ("PVEMappingUser", Privileges::named(&["Mapping.Audit", "Mapping.Use"])),
            ("PVEPoolAdmin", Privileges::filter(|name| name.starts_with("Pool."))),
            ("PVEPoolUser", Privileges::named(&["Pool.Audit"])),
            ("PVESDNAdmin", Privileges::filter(|name| name.starts_with("SDN."))),
            ("PVESDNUser", Privileges::named(&["SDN.Audit", "SDN.Use"])),
            ("PVESysAdmin", Privileges::named(&["Sys.Audit", "Sys.Console", "Sys.Syslog"])),
            ("PVETemplateUser", Privileges::named(&["VM.Audit", "VM.Clone"])),
            ("PVEUserAdmin", Privileges::named(&["Group.Allocate", "Realm.AllocateUser", "User.Modify"])),
            ("PVEVMAdmin", Privileges::filter(|name| name.starts_with("VM."))),
            ("PVEVMUser", Privileges::named(vm_user)),
        ];
        let root = User { enabled: true, ..User::default() };
        Self {
            users: BTreeMap::from([(ROOT.to_owned(), root)]),
            roles: roles.into_iter().map(|(name, set)| (name.to_owned(), set)).collect(),
            acl: BTreeMap::new(),
            groups: BTreeMap::new(),
            realms: [
                ("pam", "Linux PAM standard authentication"),
                ("pve", "Proxmox VE authentication server"),
            ]
            .map(|(name, comment)| (name.to_owned(), realm(name, comment)))
            .into(),
        }
    }

    /// Adds an entry, or replaces the propagate flag of the same one.
    pub fn grant(&mut self, who: &str, role: &str, path: &str, propagate: bool) {
        let entries = self.acl.entry(path.to_owned()).or_default();
        entries.retain(|entry| entry.who != who || entry.role != role);
        entries.push(AclEntry { who: who.to_owned(), role: role.to_owned(), propagate });
    }

    /// Removes the entries of `who` at `path`.
    pub fn revoke(&mut self, who: &str, path: &str) {
        if let Some(entries) = self.acl.get_mut(path) {
            entries.retain(|entry| entry.who != who);
            if entries.is_empty() {
                self.acl.remove(path);
            }
        }
    }

    /// Removes the entries that `gone` picks everywhere.
    pub fn forget(&mut self, gone: impl Fn(&AclEntry) -> bool) {
        for entries in self.acl.values_mut() {
            entries.retain(|entry| !gone(entry));
        }
        self.acl.retain(|_, entries| !entries.is_empty());
    }

    /// Removes the entries at `path` that `gone` picks.
    pub fn forget_at(&mut self, path: &str, gone: impl Fn(&AclEntry) -> bool) {
        if let Some(entries) = self.acl.get_mut(path) {
            entries.retain(|entry| !gone(entry));
            if entries.is_empty() {
                self.acl.remove(path);
            }
        }
    }

    fn token(&self, user: &str, name: &str) -> Option<&Token> {
        self.users.get(user)?.tokens.get(name)
    }

    /// The roles of `who` at `path` with their propagate flags. An entry nearer to the path replaces all those
    /// further up, and `NoAccess` trumps the rest. Pools are not considered here.
    fn roles_at<'a>(&'a self, who: &str, path: &str) -> BTreeMap<&'a str, bool> {
        let mut roles = BTreeMap::new();
        for (place, is_target) in ancestors(path) {
            let counts = |entry: &&AclEntry| is_target || entry.propagate;
            let entries = || self.acl.get(place).into_iter().flatten().filter(counts);
            let mut found: BTreeMap<&str, bool> = entries()
                .filter(|entry| entry.who == who)
                .map(|entry| (entry.role.as_str(), entry.propagate))
                .collect();
            // A user's own entry beats those of the user's groups at the same path.
            if found.is_empty() {
                let in_group = |entry: &&AclEntry| {
                    let groups = self.users.get(who).map(|user| &user.groups);
                    let group = entry.who.strip_prefix('@');
                    group.is_some_and(|group| groups.is_some_and(|groups| groups.contains(group)))
                };
                found =
                    entries().filter(in_group).map(|entry| (entry.role.as_str(), entry.propagate)).collect();
            }
            if !found.is_empty() {
                roles = found;
            }
        }
        if let Some(propagate) = roles.get("NoAccess").copied() {
            roles = BTreeMap::from([("NoAccess", propagate)]);
        }
        roles
    }

    fn held_by_roles(&self, roles: &BTreeMap<&str, bool>) -> Held {
        let mut held = Held::default();
        for (role, propagate) in roles {
            let set = self.roles.get(*role).copied().unwrap_or_default();
            held.privileges.0 |= set.0;
            if *propagate {
                held.propagated.0 |= set.0;
            }
        }
        held
    }
}

/// `/vms/100` → `/`, `/vms`, `/vms/100`, each with whether it is the path itself.
pub(crate) fn ancestors(path: &str) -> impl Iterator<Item = (&str, bool)> {
    let below = path.match_indices('/').skip(1).map(move |(at, _)| (path.get(..at).unwrap_or(path), false));
    let root = (path != "/").then_some(("/", false));
    root.into_iter().chain(below).chain(std::iter::once((path, true)))
}

impl State {
    /// What `principal` holds at `path`.
    ///
    /// `root@pam` holds everything everywhere. A token without privilege separation holds what its user holds; one
    /// with it holds what both it and its user hold.
    pub fn held(&self, principal: &Principal, path: &str) -> Held {
        match principal {
            Principal::User(user) => self.held_by(user, path),
            Principal::Token(user, name) => {
                let by_user = self.held_by(user, path);
                match self.access.token(user, name) {
                    None => Held::default(),
                    Some(token) if !token.privilege_separation => by_user,
                    Some(_) => {
                        let own = self.held_by(&principal.id(), path);
                        Held {
                            privileges: Privileges(own.privileges.0 & by_user.privileges.0),
                            propagated: Privileges(own.propagated.0 & by_user.propagated.0),
                        }
                    }
                }
            }
        }
    }

    fn held_by(&self, who: &str, path: &str) -> Held {
        if who == ROOT {
            return Held { privileges: Privileges::ALL, propagated: Privileges::ALL };
        }
        let mut roles = self.access.roles_at(who, path);
        self.add_pool_roles(who, path, &mut roles);
        self.access.held_by_roles(&roles)
    }

    /// A role held on `/pool/P` counts on the guests and storages of that pool, without the propagate flag; a direct
    /// `NoAccess` beats it.
    fn add_pool_roles<'a>(&'a self, who: &str, path: &str, roles: &mut BTreeMap<&'a str, bool>) {
        if roles.contains_key("NoAccess") {
            return;
        }
        let pools: Vec<&str> =
            if let Some(vmid) = path.strip_prefix("/vms/").and_then(|id| id.parse::<u32>().ok()) {
                self.guests.get(&vmid).and_then(|guest| guest.pool.as_deref()).into_iter().collect()
            } else if let Some(storage) = path.strip_prefix("/storage/") {
                let holds = |(name, pool): (&'a String, &'a super::state::Pool)| {
                    pool.storages.contains(storage).then_some(name.as_str())
                };
                self.pools.iter().filter_map(holds).collect()
            } else {
                return;
            };
        let of_pool = |pool: &str| self.access.roles_at(who, &format!("/pool/{pool}"));
        let more: Vec<&str> = pools.into_iter().flat_map(|pool| of_pool(pool).into_keys()).collect();
        if more.contains(&"NoAccess") {
            *roles = BTreeMap::from([("NoAccess", false)]);
            return;
        }
        for role in more {
            roles.entry(role).or_insert(false);
        }
    }

    /// Whether `principal` holds any of `wanted` at `path`.
    pub fn allows(&self, principal: &Principal, path: &str, wanted: &[&str]) -> bool {
        principal.user() == ROOT && matches!(principal, Principal::User(_))
            || self.held(principal, path).privileges.has_any(Privileges::named(wanted))
    }

    /// Every path at which `/access/permissions` looks: the top-level ones, those in the access control list with
    /// their parents, the pools and their members.
    pub fn permission_paths(&self) -> BTreeSet<String> {
        let top = ["/", "/access", "/access/groups", "/nodes", "/pool", "/sdn", "/storage", "/vms"];
        let mut paths: BTreeSet<String> = top.into_iter().map(str::to_owned).collect();
        for path in self.access.acl.keys() {
            paths.extend(ancestors(path).map(|(place, _)| place.to_owned()));
        }
        for (name, pool) in &self.pools {
            paths.insert(format!("/pool/{name}"));
            paths.extend(pool.storages.iter().map(|storage| format!("/storage/{storage}")));
        }
        let pooled = self.guests.values().filter(|guest| guest.pool.is_some());
        paths.extend(pooled.map(|guest| format!("/vms/{}", guest.vmid)));
        paths
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ancestors_end_with_the_path_itself() {
        assert_eq!(ancestors("/").collect::<Vec<_>>(), [("/", true)]);
        assert_eq!(
            ancestors("/vms/100").collect::<Vec<_>>(),
            [("/", false), ("/vms", false), ("/vms/100", true)]
        );
    }

    #[test]
    fn nearer_entries_replace_and_no_access_trumps() {
        let mut state = State::empty();
        state.access.users.insert("u@pve".into(), User { enabled: true, ..User::default() });
        state.access.grant("u@pve", "PVEVMAdmin", "/", true);
        state.access.grant("u@pve", "PVEAuditor", "/vms", false);
        let user = Principal::parse("u@pve");
        assert!(state.allows(&user, "/vms/100", &["VM.Allocate"]));
        assert!(!state.allows(&user, "/vms", &["VM.Allocate"]));
        assert!(state.allows(&user, "/vms", &["VM.Audit"]));
        state.access.grant("u@pve", "NoAccess", "/vms/100", true);
        assert!(!state.allows(&user, "/vms/100", &["VM.Audit"]));
    }

    #[test]
    fn the_builtin_roles_have_the_recorded_sizes() {
        let access = Access::fresh();
        let count = |role: &str| access.roles[role].names().count();
        assert_eq!(
            (count("PVEAuditor"), count("PVEAdmin"), count("PVEVMAdmin"), count("Administrator")),
            (6, 35, 18, 42)
        );
    }
}
