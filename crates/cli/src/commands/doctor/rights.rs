//! What an account may see, what follows from what it may not, and the lines of `pveum` that mend it.

use std::collections::BTreeSet;

use pve_client::answers::Permissions;

use super::Findings;
use crate::config::Login;
use crate::exit::Exit;

/// Names in one cell; the rest is counted.
const MOST_NAMED: usize = 6;

/// A role of PVE's own, with every privilege that a sync needs and none to change anything.
const ROLE: &str = "PVEAuditor";

/// The superuser, to whom no access control list applies; tokens of it have their own.
const ROOT: &str = "root@pam";

/// Every check of this file.
pub const CHECKS: [&str; 6] = [GUESTS, STORAGES, CLUSTER, NODES, POOLS, LEAST];
const GUESTS: &str = "VM.Audit on /vms";
const STORAGES: &str = "Datastore.Audit on /storage";
const CLUSTER: &str = "Sys.Audit on /";
const NODES: &str = "Sys.Audit on /nodes";
const POOLS: &str = "Pool.Audit on /pool";
const LEAST: &str = "least privilege";

/// Who asks at Proxmox VE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    user: String,
    token: Option<String>,
}

impl Account {
    /// The account of these settings.
    pub fn new(login: &Login) -> Self {
        match login {
            Login::Token { id, .. } => {
                // A user's name may hold a `!`, a token's may not.
                let (user, token) = id.rsplit_once('!').unwrap_or((id, ""));
                Self { user: user.to_owned(), token: Some(token.to_owned()) }
            }
            Login::Password { username, .. } => Self { user: username.clone(), token: None },
        }
    }

    /// What to call it.
    pub fn label(&self) -> String {
        match &self.token {
            Some(token) => format!("token {}!{token}", self.user),
            None => format!("user {}", self.user),
        }
    }

    /// Gives it the right to read everything. A token with privilege separation has what both it and its user have; for one
    /// without, the second line changes nothing.
    pub fn grant(&self) -> String {
        let lines = [(self.user != ROOT).then(|| self.user_line("/")), self.token_line("/")];
        lines.into_iter().flatten().collect::<Vec<_>>().join("; ")
    }

    /// Gives it the right to read below `path`, where an entry is in the way of what is given at the top. Not to be done
    /// blindly for a user, who may inherit more than to read.
    fn grant_below(&self, path: &str) -> String {
        let user = format!("{}, which replaces there what the user inherits", self.user_line(path));
        let how = match self.token_line(path) {
            None => user,
            Some(token) if self.user == ROOT => token,
            Some(token) => format!("{token}; where its user lacks it too: {user}"),
        };
        format!("an entry in `pveum acl list` replaces there what / gives: remove it, or {how}")
    }

    fn user_line(&self, path: &str) -> String {
        format!("pveum acl modify {} --users {} --roles {ROLE}", quoted(path), quoted(&self.user))
    }

    fn token_line(&self, path: &str) -> Option<String> {
        let id = quoted(&format!("{}!{}", self.user, self.token.as_ref()?));
        Some(format!("pveum acl modify {} --tokens {id} --roles {ROLE}", quoted(path)))
    }

    /// Makes a token with this name and the right to read everything.
    fn make_token(&self, name: &str) -> String {
        let token = Self { user: self.user.clone(), token: Some(name.to_owned()) };
        format!("pveum user token add {} {} --privsep 1; {}", quoted(&self.user), quoted(name), token.grant())
    }

    /// A token for this program: another one than this account's own.
    pub fn other_token(&self) -> String {
        let name = if self.token.as_deref() == Some("pvegraph") { "pvegraph-read" } else { "pvegraph" };
        self.make_token(name)
    }

    /// What to do where its credentials are refused.
    pub fn mend_credentials(&self) -> String {
        let user = quoted(&self.user);
        let new_user = if self.user == ROOT { String::new() } else { format!("pveum user add {user}; ") };
        match &self.token {
            Some(token) => format!(
                "check `token_id` and the secret in `token_secret_file`; on a node, `pveum user token list {user}` shows whether \
                 the token is there and when it expires; a new user and token: {new_user}{}",
                self.make_token(token)
            ),
            None => format!(
                "check `username` and `password_file`; on a node, `pveum user list` shows whether the user is there, enabled and \
                 not expired, and `pveum passwd {user}` sets another password; better use a token: {new_user}{}",
                self.other_token()
            ),
        }
    }
}

/// A text as one word of a shell.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '-' | '_' | '.');
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// The first of these names, and how many more there are.
pub fn named<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.into_iter().collect();
    let (shown, rest) = names.split_at(names.len().min(MOST_NAMED));
    let more = if rest.is_empty() { String::new() } else { format!(" and {} more", rest.len()) };
    format!("{}{more}", shown.join(", "))
}

/// A privilege that lets the account see all things of a kind.
struct Wanted {
    check: &'static str,
    privilege: &'static str,
    area: &'static str,
    things: &'static str,
    /// What follows where it is missing.
    then: &'static str,
}

const WANTED: [Wanted; 3] = [
    Wanted {
        check: GUESTS,
        privilege: "VM.Audit",
        area: "/vms",
        things: "guests",
        then: "the others are not seen, and those that the graph knows stay as they are, marked stale",
    },
    Wanted {
        check: STORAGES,
        privilege: "Datastore.Audit",
        area: "/storage",
        things: "storages",
        then: "the others are not seen, nor how full they are and which disks are on them",
    },
    Wanted {
        check: POOLS,
        privilege: "Pool.Audit",
        area: "/pool",
        things: "pools",
        then: "the others are not listed; a guest that is seen still tells its pool",
    },
];

/// Checks the rights. `nodes` are the names of the cluster's nodes.
pub fn check(found: &mut Findings, account: &Account, permissions: &Permissions, nodes: &[String]) {
    let [guests, storages, pools] = &WANTED;
    wanted(found, guests, account, permissions);
    wanted(found, storages, account, permissions);
    if permissions.has("/", "Sys.Audit") {
        found.ok(CLUSTER, "cluster status and backup jobs are seen");
    } else {
        found.warn(
            CLUSTER,
            "missing: no cluster status (name, quorum, addresses of nodes) and no backup jobs, so that reports on backups stay \
             unknown",
            account.grant(),
        );
    }
    let blind = nodes.iter().filter(|node| !permissions.has(&format!("/nodes/{node}"), "Sys.Audit"));
    let blind: Vec<&str> = blind.map(String::as_str).collect();
    if blind.is_empty() {
        found.ok(NODES, "load, memory and clock of every node are seen");
    } else {
        let detail = format!("missing on {}: no load, memory, uptime and clock of them", named(blind));
        found.warn(NODES, detail, mend(account, permissions, "Sys.Audit", "/nodes"));
    }
    wanted(found, pools, account, permissions);
    least(found, account, permissions);
}

/// Where to give a privilege: at the top, unless it is given there already and an entry below replaces it.
fn mend(account: &Account, permissions: &Permissions, privilege: &str, area: &str) -> String {
    if permissions.has("/", privilege) { account.grant_below(area) } else { account.grant() }
}

fn wanted(found: &mut Findings, wanted: &Wanted, account: &Account, permissions: &Permissions) {
    let Wanted { check, privilege, area, things, then } = wanted;
    let below = format!("{area}/");
    // Rights on a pool reach its guests and storages, whose own paths are listed then.
    let listed = || permissions.0.iter().filter(|(path, _)| path.starts_with(&below));
    // A name that nothing has: only an inherited right counts.
    if permissions.has(&format!("{area}/0"), privilege) {
        let denied = listed().filter(|(_, held)| !held.contains_key(*privilege));
        let denied: Vec<&str> = denied.map(|(path, _)| path.as_str()).collect();
        let Some(first) = denied.first() else {
            found.ok(check, format!("all {things} are seen"));
            return;
        };
        let detail = format!("an entry of the access list hides {}; {then}", named(denied.iter().copied()));
        found.warn(check, detail, account.grant_below(first));
        return;
    }
    let seen: Vec<&str> =
        listed().filter(|(_, held)| held.contains_key(*privilege)).map(|(path, _)| path.as_str()).collect();
    let mend = mend(account, permissions, privilege, area);
    if !seen.is_empty() {
        found.warn(check, format!("missing: of all {things} only {} can be seen; {then}", named(seen)), mend);
    } else if *check == GUESTS {
        found.fail(check, Exit::Auth, "missing: no guest is seen, so that there is nothing to sync", mend);
    } else {
        found.warn(check, format!("missing: no {things} can be seen; {then}"), mend);
    }
}

/// Everything that is not there to read with is more than a sync needs.
fn least(found: &mut Findings, account: &Account, permissions: &Permissions) {
    let held = permissions.0.values().flat_map(|held| held.keys().map(String::as_str));
    let more: BTreeSet<&str> = held.filter(|privilege| !privilege.ends_with(".Audit")).collect();
    if more.is_empty() {
        found.ok(LEAST, "it may only read");
        return;
    }
    let detail = format!(
        "it may do more than read ({}): whoever gets hold of its secret may, too; a sync only needs {ROLE}",
        named(more)
    );
    found.warn(LEAST, detail, format!("{}; then use that token", account.other_token()));
}
