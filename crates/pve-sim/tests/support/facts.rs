//! Facts of PVE's answers as recordings: each is prepared, sent and compared as `pve-sim replay` does.

use pve_sim::replay::{Recording, Verdict, judge};
use serde_json::{Value, json};

pub const ROOT: &str = "root@pam (ticket)";
pub const TOKEN: &str = "admin@pve!full (token)";

/// What PVE answers: status, reason, body.
pub struct Expected(pub u16, pub String, pub Value);

pub fn error(text: &str) -> Expected {
    Expected(500, text.to_owned(), json!({"data": null, "message": format!("{text}\n")}))
}

pub fn forbidden(what: &str) -> Expected {
    let text = format!("Permission check failed ({what})");
    Expected(403, text.clone(), json!({"data": null, "message": format!("{text}\n")}))
}

pub fn refused(errors: Value) -> Expected {
    let text = "Parameter verification failed.";
    let body = json!({"data": null, "errors": errors, "message": format!("{text}\n")});
    Expected(400, text.to_owned(), body)
}

pub fn data(data: Value) -> Expected {
    Expected(200, "OK".to_owned(), json!({ "data": data }))
}

pub fn task(kind: &str) -> Expected {
    data(json!(format!("UPID:pve1:00001688:0003BBAA:6B013B4D:{kind}:100:root@pam:")))
}

pub fn verdict(who: &str, method: &str, path: &str, params: Value, expected: &Expected) -> Verdict {
    let Expected(status, reason, body) = expected;
    let recording = json!({
        "auth": who, "method": method, "path": format!("/api2/json{path}"), "params": params, "request_body": null,
        "status": status, "reason": reason, "json": body,
    });
    judge(&serde_json::from_value::<Recording>(recording).unwrap())
}

#[allow(unused_macros, reason = "every test binary uses its own part")]
macro_rules! facts {
    ($($name:ident: $who:ident $method:ident $path:literal $params:tt => $expected:expr;)*) => {$(
        #[test]
        fn $name() {
            let expected = $expected;
            let found = $crate::support::facts::verdict($who, stringify!($method), $path, serde_json::json!($params), &expected);
            assert_eq!(found, pve_sim::replay::Verdict::Agrees);
        }
    )*};
}

/// Whether a whole recording, such as one of another path or body, is agreed with.
pub fn agrees(recording: Value) {
    let verdict = judge(&serde_json::from_value::<Recording>(recording).unwrap());
    assert_eq!(verdict, Verdict::Agrees);
}
