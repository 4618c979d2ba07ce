//! Privileges, as PVE's schema declares them for each method.

use serde_json::Value;

use super::Call;
use crate::answer::Answer;
use crate::schema::{Declared, split_list};
use crate::world::access::{Principal, ROOT};

/// 403 unless the caller may call the method.
pub fn privileges(declared: &Declared, call: &Call<'_>) -> Result<(), Answer> {
    let method = declared.method;
    if method.no_token && matches!(call.principal, Principal::Token(..)) {
        return Err(ticket_only(declared.template));
    }
    if method.user.as_deref().is_some_and(|user| matches!(user, "all" | "world"))
        || matches!(call.principal, Principal::User(user) if user == ROOT)
    {
        return Ok(());
    }
    match &method.check {
        Some(check) => evaluate(check, call, false).map(drop),
        // What declares nothing is for the superuser alone.
        None => Err(Answer::error(403, "Permission check failed (user != root@pam)")),
    }
}

/// The 403 of paths that tokens may not use. PVE's own text has a line break before the closing parenthesis; the reason
/// phrase ends there.
pub fn ticket_only(path: &str) -> Answer {
    let text =
        format!("Permission check failed (URI '{path}' not available with API token, need proper ticket.");
    let mut answer = Answer::error(403, text.clone());
    answer.body =
        crate::answer::Body::Json(serde_json::json!({"data": null, "message": format!("{text}\n)\n")}));
    answer
}

/// 403 without a reason: PVE's alternatives name none of themselves.
pub fn plain() -> Answer {
    Answer::error(403, "Permission check failed")
}

/// One expression. A quiet one says only whether it holds; the others refuse with their own text.
///
/// What PVE answers 0 to without a refusal is granted nevertheless: nobody looks at it.
fn evaluate(check: &Value, call: &Call<'_>, quiet: bool) -> Result<bool, Answer> {
    let parts = check.as_array().map(Vec::as_slice).unwrap_or_default();
    let Some((kind, rest)) = parts.split_first() else { return Ok(true) };
    let text = |at: usize| rest.get(at).and_then(Value::as_str);
    let names = |at: usize| -> Vec<&str> {
        rest.get(at).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
    };
    // Options follow in pairs.
    let option = |name: &str| rest.iter().position(|one| one == name).and_then(|at| rest.get(at + 1));
    let held = |found: Result<(), Answer>| match found {
        Err(_) if quiet => Ok(false),
        found => found.map(|()| true),
    };
    match kind.as_str().unwrap_or_default() {
        // Its parts refuse by themselves, even where it stands among alternatives.
        "and" => rest.iter().try_for_each(|one| evaluate(one, call, false).map(drop)).map(|()| true),
        "or" => {
            for one in rest {
                if evaluate(one, call, true)? {
                    return Ok(true);
                }
            }
            held(Err(plain()))
        }
        "perm" => {
            let needed = option("require_param").and_then(Value::as_str);
            if needed.is_some_and(|name| !call.parameters.contains_key(name)) {
                return held(Err(plain()));
            }
            let path = fill(text(0).unwrap_or_default(), call);
            held(require(call, &path, &names(1), option("any").is_some()))
        }
        "userid-param" if text(0) == Some("self") => {
            let itself = matches!(call.principal, Principal::User(own) if own == call.text("userid"));
            match user_exists(call) {
                Ok(()) if itself => Ok(true),
                Ok(()) => held(Err(plain())),
                missing => held(missing),
            }
        }
        "userid-param" => {
            let realm = call.text("userid").rsplit_once('@').map_or("pam", |(_, realm)| realm);
            held(require(call, &format!("/access/realm/{realm}"), &[text(0).unwrap_or_default()], false))
        }
        "userid-group" => held(user_groups(call, &names(0), option("groups_param").and_then(Value::as_str))),
        "perm-modify" => match normal_path(&fill(text(0).unwrap_or_default(), call)) {
            Some(path) => held(modify(call, &path)),
            // The handler refuses it.
            None => Ok(true),
        },
        _ => Ok(true),
    }
}

fn user_exists(call: &Call<'_>) -> Result<(), Answer> {
    let id = call.text("userid");
    if call.state.access.users.contains_key(id) {
        return Ok(());
    }
    Err(Answer::error(500, format!("no such user ('{id}')")))
}

/// Rights over a user come from `/access/groups`, or from a group that the user is in. Whoever creates or changes the
/// groups of a user needs them on each group given.
fn user_groups(call: &Call<'_>, privileges: &[&str], groups: Option<&str>) -> Result<(), Answer> {
    let exists = groups != Some("create");
    if exists {
        user_exists(call)?;
    }
    if call.allows("/access/groups", privileges) {
        return Ok(());
    }
    let path = |group: &str| format!("/access/groups/{group}");
    if groups.is_some() {
        let mut given = split_list(call.text("groups")).peekable();
        if given.peek().is_none() {
            return Err(Answer::forbidden("/access/groups", privileges));
        }
        if let Some(group) = given.find(|group| {
            !call.state.access.groups.contains_key(*group) || !call.allows(&path(group), privileges)
        }) {
            return Err(Answer::forbidden(&path(group), privileges));
        }
    }
    let of_user = call.state.access.users.get(call.text("userid")).map(|user| &user.groups);
    let may = of_user.is_some_and(|groups| groups.iter().any(|group| call.allows(&path(group), privileges)));
    if exists && !may { Err(plain()) } else { Ok(()) }
}

/// Who may change permissions at a path: `Permissions.Modify`, or the right to allocate what the path names.
pub fn modify(call: &Call<'_>, path: &str) -> Result<(), Answer> {
    let below = |root: &str| path.strip_prefix(root).is_some_and(|rest| !rest.is_empty());
    let mut privileges = vec!["Permissions.Modify"];
    for (root, more) in
        [("/storage/", "Datastore.Allocate"), ("/vms/", "VM.Allocate"), ("/pool/", "Pool.Allocate")]
    {
        if below(root) {
            privileges.push(more);
        }
    }
    require(call, path, &privileges, true)
}

/// A path with single slashes and none at its end; `None` where it has characters that no path has.
pub fn normal_path(path: &str) -> Option<String> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let fits = |character: char| character.is_alphanumeric() || matches!(character, '.' | '-' | '_');
    let fits = !path.is_empty() && parts.iter().all(|part| part.chars().all(fits));
    fits.then(|| format!("/{}", parts.join("/")))
}

/// All of the privileges, or any. The refusal names the first one that is missing, or all alternatives.
pub fn require(call: &Call<'_>, path: &str, privileges: &[&str], any: bool) -> Result<(), Answer> {
    if any {
        return if call.allows(path, privileges) { Ok(()) } else { Err(Answer::forbidden(path, privileges)) };
    }
    match privileges.iter().find(|privilege| !call.allows(path, &[privilege])) {
        Some(missing) => Err(Answer::forbidden(path, &[missing])),
        None => Ok(()),
    }
}

fn fill(template: &str, call: &Call<'_>) -> String {
    let parts = template.split('/').map(|part| {
        match part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
            Some("node") if call.text("node") == "localhost" => call.local_node,
            Some(name) => call.text(name),
            None => part,
        }
    });
    let path = parts.collect::<Vec<_>>().join("/");
    // A parameter that holds a path brings its own slash.
    path.replace("//", "/")
}
