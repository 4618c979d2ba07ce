//! Privileges, as PVE's schema declares them for each method.

use serde_json::Value;

use super::Call;
use crate::answer::Answer;
use crate::schema::Declared;
use crate::world::access::{Principal, ROOT};

/// 403 unless the caller may call the method.
pub fn privileges(declared: &Declared, call: &Call<'_>) -> Result<(), Answer> {
    let method = declared.method;
    if method.no_token && matches!(call.principal, Principal::Token(..)) {
        return Err(ticket_only(declared.template));
    }
    if method.user.as_deref().is_some_and(|user| matches!(user, "all" | "world")) {
        return Ok(());
    }
    match &method.check {
        Some(check) => evaluate(check, call),
        // What declares nothing is for the superuser alone.
        None if matches!(call.principal, Principal::User(user) if user == ROOT) => Ok(()),
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

fn evaluate(check: &Value, call: &Call<'_>) -> Result<(), Answer> {
    let parts = check.as_array().map(Vec::as_slice).unwrap_or_default();
    let Some((kind, rest)) = parts.split_first() else { return Ok(()) };
    let text = |at: usize| rest.get(at).and_then(Value::as_str);
    let names = |at: usize| -> Vec<&str> {
        rest.get(at).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
    };
    match kind.as_str().unwrap_or_default() {
        "and" => rest.iter().try_for_each(|one| evaluate(one, call)),
        "or" if rest.iter().any(|one| evaluate(one, call).is_ok()) => Ok(()),
        "or" => Err(plain()),
        "perm" => {
            let path = fill(text(0).unwrap_or_default(), call);
            let option = |name: &str| {
                let at = rest.iter().skip(2).position(|one| one == name)?;
                rest.get(at + 3)
            };
            // An alternative by a parameter is none where that is not given.
            if option("require_param").and_then(Value::as_str).is_some_and(|name| call.text(name).is_empty())
            {
                return Err(plain());
            }
            let any = option("any").is_some();
            require(call, &path, &names(1), any)
        }
        "userid-param" => match text(0) {
            // A token is not its user.
            Some("self") if call.text("userid") == call.principal.id() => Ok(()),
            Some("self") | None => Err(plain()),
            Some(privilege) => {
                let realm = call.text("userid").rsplit_once('@').map_or("pam", |(_, realm)| realm);
                require(call, &format!("/access/realm/{realm}"), &[privilege], false)
            }
        },
        "userid-group" => user_groups(call, &names(0)),
        "perm-modify" => {
            let path = fill(text(0).unwrap_or_default(), call);
            require(call, &path, &["Permissions.Modify"], false)
        }
        _ => Ok(()),
    }
}

/// Rights over a user come from `/access/groups`, or from one of the user's groups.
fn user_groups(call: &Call<'_>, privileges: &[&str]) -> Result<(), Answer> {
    let of_user = call.state.access.users.get(call.text("userid")).map(|user| &user.groups);
    let of_group = |group: &String| call.allows(&format!("/access/groups/{group}"), privileges);
    if call.allows("/access/groups", privileges) || of_user.is_some_and(|groups| groups.iter().any(of_group))
    {
        return Ok(());
    }
    Err(Answer::forbidden("/access/groups", privileges))
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
