//! The parameters of a request: of its query and its body.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use serde_json::Value;

use crate::answer::Answer;

/// All parameters of a request. The query wins over the body, and what browsers send against caches is left out.
///
/// # Errors
/// A body that PVE does not take.
pub(crate) fn of_request(
    headers: &HeaderMap,
    query: &str,
    bytes: &Bytes,
) -> Result<BTreeMap<String, String>, Answer> {
    let mut parameters = joined(of_body(headers, bytes)?);
    parameters.extend(joined(url::form_urlencoded::parse(query.as_bytes()).into_owned().collect()));
    parameters.remove("_dc");
    Ok(parameters)
}

/// What is given twice is a list, which PVE separates by a zero.
fn joined(pairs: Vec<(String, String)>) -> BTreeMap<String, String> {
    let mut parameters: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in pairs {
        match parameters.get_mut(&name) {
            Some(have) => {
                have.push('\0');
                have.push_str(&value);
            }
            None => drop(parameters.insert(name, value)),
        }
    }
    parameters
}

/// A value of a JSON body as text. Perl has no booleans: true is 1. Nothing is no parameter.
fn text_of(value: Value) -> Option<String> {
    Some(match value {
        Value::Null => return None,
        Value::Bool(flag) => u8::from(flag).to_string(),
        Value::String(text) => text,
        Value::Array(items) => items.into_iter().filter_map(text_of).collect::<Vec<_>>().join("\0"),
        other => other.to_string(),
    })
}

/// The parameters in a body: a form, JSON, or the fields of an upload; PVE takes nothing else.
///
/// # Errors
/// Another type, and JSON that is no object.
pub(crate) fn of_body(headers: &HeaderMap, bytes: &Bytes) -> Result<Vec<(String, String)>, Answer> {
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (base, boundary) = match kind.split_once(';') {
        Some((base, rest)) => {
            (base.trim(), rest.split_once("boundary=").map(|(_, boundary)| boundary.trim()))
        }
        None => (kind.trim(), None),
    };
    match (base, boundary) {
        ("" | "application/x-www-form-urlencoded", _) => {
            Ok(url::form_urlencoded::parse(bytes).into_owned().collect())
        }
        ("application/json", _) => {
            let parsed: serde_json::Map<String, Value> = serde_json::from_slice(bytes)
                .map_err(|error| Answer::bare(501, format!("malformed JSON string: {error}")))?;
            let pairs = parsed.into_iter().filter_map(|(name, value)| Some((name, text_of(value)?)));
            Ok(pairs.collect())
        }
        ("multipart/form-data", Some(boundary)) => Ok(multipart(bytes, boundary.trim_matches('"'))),
        _ => Err(Answer::bare(506, format!("upload 'Content-Type '{kind}' not implemented"))),
    }
}

/// The fields of an upload; of a file its name and size are kept.
fn multipart(bytes: &Bytes, boundary: &str) -> Vec<(String, String)> {
    let text = String::from_utf8_lossy(bytes);
    let mut fields = Vec::new();
    for part in text.split(&format!("--{boundary}")) {
        let Some((head, content)) = part.split_once("\r\n\r\n").or_else(|| part.split_once("\n\n")) else {
            continue;
        };
        let attribute = |name: &str| {
            let start = head.find(&format!("{name}=\""))? + name.len() + 2;
            head.get(start..)?.split('"').next().map(str::to_owned)
        };
        let Some(name) = attribute(" name") else { continue };
        match attribute("filename") {
            Some(file) => fields.push((name, file)),
            None => fields.push((name, content.trim_end().to_owned())),
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(kind: &str) -> HeaderMap {
        [(CONTENT_TYPE, kind.parse().unwrap())].into_iter().collect()
    }

    #[test]
    fn the_query_wins_and_what_comes_twice_is_a_list() {
        let form = headers("application/x-www-form-urlencoded; charset=UTF-8");
        let found = of_request(&form, "a=1&_dc=77", &Bytes::from_static(b"a=2&b=3&b=4")).unwrap();
        assert_eq!(found["a"], "1");
        assert_eq!(found["b"], "3\x004");
        assert!(!found.contains_key("_dc"));
    }

    #[test]
    fn json_has_booleans_and_nothing() {
        let body = Bytes::from_static(br#"{"a": true, "b": null, "c": 5, "d": ["x", "y"]}"#);
        let found = of_request(&headers("application/json"), "", &body).unwrap();
        assert_eq!((found["a"].as_str(), found["c"].as_str(), found["d"].as_str()), ("1", "5", "x\0y"));
        assert!(!found.contains_key("b"));
        let broken = of_request(&headers("application/json"), "", &Bytes::from_static(b"{")).unwrap_err();
        assert_eq!(broken.status, 501);
        assert_eq!(
            of_request(&headers("text/plain"), "", &Bytes::from_static(b"x")).unwrap_err().status,
            506
        );
    }
}
