//! Tasks: lists, states, logs, and how to stop one.

use serde_json::{Value, json};

use super::Call;
use super::act::{Act, done};
use super::checks;
use crate::answer::{Answer, Body, Rows};
use crate::schema::split_list;
use crate::world::access::Principal;
use crate::world::state::Task;

/// HA's own actions are tasks that nobody sees.
fn visible<'a>(call: &Call<'a>) -> Vec<&'a Task> {
    call.state.tasks.iter().rev().filter(|task| !task.upid.is_empty()).collect()
}

/// A token sees its own tasks, and a user its own and those of its tokens; everyone else's need `Sys.Audit`.
fn is_own(call: &Call<'_>, task: &Task) -> bool {
    match call.principal {
        Principal::User(user) => *user == task.user,
        Principal::Token(user, name) => *user == task.user && task.token.as_deref() == Some(name),
    }
}

fn may_see(call: &Call<'_>, task: &Task) -> bool {
    is_own(call, task) || call.allows(&format!("/nodes/{}", task.node), &["Sys.Audit"])
}

fn row(task: &Task) -> Value {
    let mut row = json!({
        "id": task.id, "node": task.node, "pid": task.pid, "pstart": task.pstart, "starttime": task.start,
        "type": task.kind, "upid": task.upid, "user": task.user,
    });
    if let Some(token) = &task.token {
        row["tokenid"] = json!(token);
    }
    row
}

/// `GET /cluster/tasks`: the last 25 of each node, without their processes once they have ended. `saved` is text.
pub fn cluster(call: &Call<'_>) -> Result<Answer, Answer> {
    let mut rows = Rows::default();
    let mut shown: std::collections::BTreeMap<&str, usize> = Default::default();
    for task in visible(call).into_iter().filter(|task| may_see(call, task)) {
        let count = shown.entry(&task.node).or_default();
        *count += 1;
        if *count > 25 {
            continue;
        }
        let mut row = row(task);
        let fields = row.as_object_mut();
        if let Some(fields) = fields {
            fields.remove("pstart");
            if let (Some(end), Some(exit)) = (task.end, &task.exit) {
                fields.remove("pid");
                fields.insert("endtime".to_owned(), json!(end));
                fields.insert("saved".to_owned(), json!("1"));
                fields.insert("status".to_owned(), json!(exit));
            } else if call.state.announced_tasks.contains(&task.upid) {
                fields.insert("saved".to_owned(), json!("0"));
            }
        }
        rows.push(&row);
    }
    Ok(Answer::rows(rows))
}

/// `GET /nodes/{node}/tasks`: filtered, the newest first, 50 at a time, with the number of all.
pub fn list(call: &Call<'_>) -> Result<Answer, Answer> {
    let node = call.node()?.name.clone();
    let source = if call.text("source").is_empty() { "archive" } else { call.text("source") };
    let number = |name: &str| call.text(name).parse::<u64>().ok();
    let kind_of_exit = |task: &Task| match task.exit.as_deref() {
        Some("OK") => "ok",
        Some("unexpected status") | None => "unknown",
        Some(exit) if exit.starts_with("WARNINGS") => "warning",
        Some(_) => "error",
    };
    let wanted = |task: &&Task| {
        let active = task.exit.is_none();
        let filter = call.text("statusfilter");
        task.node == *node
            && may_see(call, task)
            && match source {
                "active" => active,
                "archive" => !active,
                _ => true,
            }
            && (!call.flag("errors") || task.has_failed())
            && (filter.is_empty() || split_list(filter).any(|one| one == kind_of_exit(task)))
            && (call.text("typefilter").is_empty() || task.kind == call.text("typefilter"))
            && (call.text("vmid").is_empty() || task.id == call.text("vmid"))
            && task.user.contains(call.text("userfilter"))
            && number("since").is_none_or(|since| task.start >= since)
            && number("until").is_none_or(|until| task.start <= until)
    };
    let all: Vec<&Task> = visible(call).into_iter().filter(wanted).collect();
    let start = number("start").unwrap_or_default();
    let limit = number("limit").unwrap_or(50);
    let page = all.iter().skip(usize::try_from(start).unwrap_or(usize::MAX));
    let rows: Vec<Value> = page
        .take(usize::try_from(limit).unwrap_or(usize::MAX))
        .map(|task| {
            let mut row = row(task);
            match (&task.exit, task.end) {
                (Some(exit), Some(end)) => {
                    row["status"] = json!(exit);
                    row["endtime"] = json!(end);
                }
                _ => {
                    row["saved"] = json!("0");
                    row["status"] = json!("RUNNING");
                }
            }
            row
        })
        .collect();
    let mut answer = Answer::ok(Value::Null);
    // A number of nothing is left out.
    answer.body = Body::Json(match all.len() {
        0 => json!({"data": []}),
        total => json!({"data": rows, "total": total}),
    });
    Ok(answer)
}

/// The UPID of a path: what is none is a bad parameter.
fn parse(call: &Call<'_>) -> Result<Task, Answer> {
    let parsed = Task::parse(call.text("upid"));
    parsed.ok_or_else(|| Answer::bad_parameter("upid", "unable to parse worker upid"))
}

fn find<'a>(call: &Call<'a>) -> Option<&'a Task> {
    let upid = call.text("upid");
    call.state.tasks.iter().find(|task| task.upid == upid)
}

/// The task of a path, which must be known.
fn known<'a>(call: &Call<'a>) -> Result<&'a Task, Answer> {
    parse(call)?;
    find(call).ok_or_else(|| Answer::bad_parameter("upid", "no such task"))
}

fn check_owner(call: &Call<'_>, task: &Task) -> Result<(), Answer> {
    if is_own(call, task) {
        return Ok(());
    }
    checks::require(call, &format!("/nodes/{}", call.text("node")), &["Sys.Audit"], false)
}

/// `GET …/status`: `stopped` with an exit status, or `running` without one.
pub fn status(call: &Call<'_>) -> Result<Answer, Answer> {
    let task = known(call)?;
    check_owner(call, task)?;
    let mut row = row(task);
    match &task.exit {
        Some(exit) => {
            row["status"] = json!("stopped");
            row["exitstatus"] = json!(exit);
        }
        None => row["status"] = json!("running"),
    }
    Ok(Answer::ok(row))
}

/// `GET …/log`: lines with numbers. An empty log has the one line `no content`; the log of a task that there never was is
/// no list at all.
pub fn log(call: &Call<'_>) -> Result<Answer, Answer> {
    check_owner(call, &parse(call)?)?;
    let Some(task) = find(call) else {
        let mut answer = Answer::ok(Value::Null);
        let line = json!({"n": 1, "t": "unable to open file - No such file or directory"});
        answer.body = Body::Json(json!({"data": line, "total": 1}));
        return Ok(answer);
    };
    if call.flag("download") {
        let mut answer = Answer::ok(Value::Null);
        answer.body = Body::Text(task.log.iter().map(|line| format!("{line}\n")).collect());
        return Ok(answer);
    }
    let number = |name: &str, default: usize| call.text(name).parse().unwrap_or(default);
    let (start, limit) = (number("start", 0), number("limit", 50));
    let limit = if limit == 0 { usize::MAX } else { limit };
    let none = ["no content".to_owned()];
    let lines = if task.log.is_empty() { &none[..] } else { &task.log };
    let rows: Vec<Value> = (1..)
        .zip(lines)
        .skip(start)
        .take(limit)
        .map(|(number, line): (usize, &String)| json!({"n": number, "t": line}))
        .collect();
    let mut answer = Answer::ok(Value::Null);
    answer.body = Body::Json(json!({"data": rows, "total": lines.len()}));
    Ok(answer)
}

/// `DELETE /nodes/{node}/tasks/{upid}`: a running one is interrupted, one that has ended stays as it is.
pub fn stop(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let upid = act.text("upid").to_owned();
    let call = act.call();
    let task = known(&call)?;
    if !is_own(&call, task) {
        checks::require(&call, &format!("/nodes/{}", call.text("node")), &["Sys.Modify"], false)?;
    }
    let now = act.now;
    if let Some(task) = act.state.tasks.iter_mut().find(|task| task.upid == upid && task.exit.is_none()) {
        crate::work::interrupt(task, now);
    }
    done()
}
