//! `/access/groups` and `/access/roles`.

use serde_json::{Value, json};

use super::Call;
use super::act::{Act, done, fail};
use crate::answer::{Answer, Rows};
use crate::schema::split_list;
use crate::world::access::{Access, Privileges};

/// A comment; an empty one is none.
fn comment(act: &Act<'_>) -> Option<String> {
    act.given("comment").filter(|comment| !comment.is_empty()).map(str::to_owned)
}

fn members(call: &Call<'_>, group: &str) -> Vec<String> {
    let users = call.state.access.users.iter();
    users.filter(|(_, user)| user.groups.contains(group)).map(|(id, _)| id.clone()).collect()
}

/// The groups that the caller may see.
pub fn groups(call: &Call<'_>) -> Result<Answer, Answer> {
    let mut rows = Rows::default();
    for (name, comment) in &call.state.access.groups {
        let path = format!("/access/groups/{name}");
        if !call.allows(&path, &["User.Modify", "Sys.Audit", "Group.Allocate"]) {
            continue;
        }
        let mut row = json!({"groupid": name, "users": members(call, name).join(",")});
        if let Some(comment) = comment {
            row["comment"] = json!(comment);
        }
        rows.push(&row);
    }
    Ok(Answer::rows(rows))
}

pub fn get_group(call: &Call<'_>) -> Result<Answer, Answer> {
    let name = call.text("groupid");
    let Some(comment) = call.state.access.groups.get(name) else {
        return fail(format!("group '{name}' does not exist"));
    };
    let mut row = json!({"members": members(call, name)});
    if let Some(comment) = comment {
        row["comment"] = json!(comment);
    }
    Ok(Answer::ok(row))
}

pub fn create_group(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let (name, comment) = (act.text("groupid").to_owned(), comment(act));
    if act.state.access.groups.contains_key(&name) {
        return fail(format!("create group failed: group '{name}' already exists"));
    }
    act.state.access.groups.insert(name, comment);
    done()
}

pub fn update_group(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let (name, given, comment) =
        (act.text("groupid").to_owned(), act.given("comment").is_some(), comment(act));
    match act.state.access.groups.get_mut(&name) {
        Some(have) if given => *have = comment,
        Some(_) => {}
        None => return fail(format!("update group failed: group '{name}' does not exist")),
    }
    done()
}

pub fn delete_group(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let name = act.text("groupid").to_owned();
    if act.state.access.groups.remove(&name).is_none() {
        return fail(format!("delete group failed: group '{name}' does not exist"));
    }
    for user in act.state.access.users.values_mut() {
        user.groups.remove(&name);
    }
    let who = format!("@{name}");
    act.state.access.forget(|entry| entry.who == who);
    done()
}

pub fn get_role(call: &Call<'_>) -> Result<Answer, Answer> {
    let name = call.text("roleid");
    match call.state.access.roles.get(name) {
        Some(privileges) => Ok(Answer::ok(Value::Object(
            privileges.names().map(|name| (name.to_owned(), json!(1))).collect(),
        ))),
        None => fail(format!("role '{name}' does not exist")),
    }
}

fn privileges(text: &str) -> Privileges {
    Privileges::named(&split_list(text).collect::<Vec<_>>())
}

/// `POST /access/roles`. Names that begin with `PVE` are PVE's own.
pub fn create_role(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let name = act.text("roleid").to_owned();
    if name.to_ascii_lowercase().starts_with("pve") {
        let text = "cannot use role ID starting with the (case-insensitive) 'PVE' namespace";
        return Err(Answer::bad_parameter("roleid", text));
    }
    if act.state.access.roles.contains_key(&name) {
        return fail(format!("create role failed: role '{name}' already exists"));
    }
    let set = privileges(act.text("privs"));
    act.state.access.roles.insert(name, set);
    done()
}

fn check_own_role(name: &str, verb: &str) -> Result<(), Answer> {
    if Access::fresh().roles.contains_key(name) {
        return fail(format!("auto-generated role '{name}' cannot be {verb}"));
    }
    Ok(())
}

pub fn update_role(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let name = act.text("roleid").to_owned();
    check_own_role(&name, "modified")?;
    let (more, append) = (privileges(act.text("privs")), act.flag("append"));
    let Some(have) = act.state.access.roles.get_mut(&name) else {
        return fail(format!("update role failed: role '{name}' does not exist"));
    };
    let kept: Vec<&str> = if append { have.names().collect() } else { Vec::new() };
    *have = Privileges::named(&kept.into_iter().chain(more.names()).collect::<Vec<_>>());
    done()
}

/// A role goes with the entries that give it.
pub fn delete_role(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let name = act.text("roleid").to_owned();
    check_own_role(&name, "deleted")?;
    if act.state.access.roles.remove(&name).is_none() {
        return fail(format!("delete role failed: role '{name}' does not exist"));
    }
    act.state.access.forget(|entry| entry.role == name);
    done()
}
