//! `PUT /access/acl`: who gets or loses which role where.

use serde_json::{Map, json};

use super::act::{Act, done, fail};
use super::checks::normal_path;
use crate::answer::Answer;
use crate::schema::split_list;
use crate::world::access::{Principal, ROOT};

/// The places at which there can be rights.
fn is_acl_path(path: &str) -> bool {
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    let number = |text: &str, least: u32, most: u32| {
        !text.starts_with('0') && text.parse().is_ok_and(|number: u32| (least..=most).contains(&number))
    };
    match parts.as_slice() {
        [""] => true,
        ["access" | "nodes" | "pool" | "sdn" | "storage" | "vms" | "mapping"] => true,
        ["access", "groups" | "realm"] | ["access", "groups" | "realm", _] => true,
        ["nodes" | "storage", _] => true,
        ["pool", rest @ ..] => rest.len() <= 3,
        ["vms", vmid] => number(vmid, 100, u32::MAX),
        ["sdn", "controllers" | "dns" | "ipams"] | ["sdn", "controllers" | "dns" | "ipams", _] => true,
        ["sdn", "zones"] | ["sdn", "zones", _] | ["sdn", "zones", _, _] => true,
        ["sdn", "zones", _, _, vlan] => number(vlan, 1, 9_999),
        ["mapping", _] | ["mapping", _, _] => true,
        _ => false,
    }
}

/// Gives or, with `delete`, takes roles: all of them or, where something is unknown, none.
pub fn update(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let list = |name: &str| -> Vec<String> { split_list(act.text(name)).map(str::to_owned).collect() };
    let (users, groups, tokens, roles) = (list("users"), list("groups"), list("tokens"), list("roles"));
    if users.is_empty() && groups.is_empty() && tokens.is_empty() {
        let text = "either 'users', 'groups' or 'tokens' is required.";
        let errors = ["users", "groups", "tokens"].map(|name| (name.to_owned(), json!(text)));
        return Err(Answer::bad_parameters(Map::from_iter(errors)));
    }
    let delete = act.flag("delete");
    let path = normal_path(act.text("path")).filter(|path| delete || is_acl_path(path));
    let Some(path) = path else {
        let text = format!("invalid ACL path '{}'", act.text("path"));
        return Err(Answer::bad_parameter("path", &text));
    };
    let propagate = act.given("propagate").is_none_or(|flag| flag == "1");
    let access = &act.state.access;
    // Role by role, and for each first the groups, then the users, then the tokens.
    for role in &roles {
        if !access.roles.contains_key(role) {
            return fail(format!("ACL update failed: role '{role}' does not exist"));
        }
        if let Some(group) = groups.iter().find(|group| !access.groups.contains_key(*group)) {
            return fail(format!("ACL update failed: group '{group}' does not exist"));
        }
        if let Some(user) = users.iter().find(|user| !access.users.contains_key(*user)) {
            return fail(format!("ACL update failed: user '{user}' does not exist"));
        }
        for token in &tokens {
            let Principal::Token(id, name) = Principal::parse(token) else { continue };
            match access.users.get(&id) {
                None => return fail(format!("ACL update failed: no such user ('{id}')")),
                Some(user) if !user.tokens.contains_key(&name) => {
                    return fail(format!("ACL update failed: no such token '{name}' for user '{id}'"));
                }
                Some(_) => {}
            }
        }
    }
    // The superuser has every right already, and no entry.
    let users = users.into_iter().filter(|user| user != ROOT);
    let groups = groups.into_iter().map(|group| format!("@{group}"));
    for who in users.chain(groups).chain(tokens) {
        for role in &roles {
            if delete {
                act.state.access.forget_at(&path, |entry| entry.who == who && entry.role == *role);
            } else {
                act.state.access.grant(&who, role, &path, propagate);
            }
        }
    }
    done()
}
