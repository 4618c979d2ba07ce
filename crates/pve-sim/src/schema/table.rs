//! The table of paths and methods, read once.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use regex::Regex;
use serde_json::{Map, Value};

const TEXT: &str = include_str!("params.json");

/// The type of a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Anything.
    Text,
    /// 0 or 1.
    Boolean,
    /// A whole number.
    Integer,
    /// A number.
    Number,
    /// A parameter that may be repeated.
    List,
}

/// The format of a parameter.
#[derive(Debug)]
pub enum Format {
    /// A rule with a name.
    Named(String),
    /// A property string: its parts.
    Parts(BTreeMap<String, Parameter>),
}

/// What is declared of a parameter.
#[derive(Debug)]
pub struct Parameter {
    pub kind: Kind,
    pub optional: bool,
    pub format: Option<Format>,
    pub values: Option<Vec<String>>,
    pub minimum: Option<f64>,
    pub maximum: Option<f64>,
    pub min_length: Option<usize>,
    pub max_length: Option<usize>,
    pub pattern: Option<Regex>,
    pub requires: Option<String>,
    pub alias: Option<String>,
    pub key_alias: Option<String>,
    pub default_key: bool,
}

/// What is declared of a method on a path.
#[derive(Debug)]
pub struct Method {
    pub parameters: BTreeMap<String, &'static Parameter>,
    /// PVE's expression of the privileges.
    pub check: Option<Value>,
    /// `all` or `world`.
    pub user: Option<String>,
    /// Whether the node in the path answers.
    pub proxied: bool,
    /// Whether API tokens are refused.
    pub no_token: bool,
    /// Whether unknown parameters are allowed.
    pub open: bool,
    /// The key of an index's rows.
    pub index: Option<String>,
}

/// A method on a path with the values in the path.
#[derive(Debug)]
pub struct Declared {
    pub template: &'static str,
    pub method: &'static Method,
    pub in_path: Vec<(String, String)>,
}

struct Path {
    template: String,
    segments: Vec<String>,
    methods: BTreeMap<String, Method>,
}

/// PVE writes regular expressions as Perl prints them: `(?^:…)` is a group without flags, `(?^i:…)` ignores case.
fn compile(pattern: &str) -> Option<Regex> {
    let pattern = pattern.replace("(?^:", "(?:").replace("(?^i:", "(?i:").replace("\\/", "/");
    Regex::new(&format!("^(?:{pattern})$")).ok()
}

/// A declaration as the schema writes it.
pub(super) fn parameter(declared: &Value) -> Parameter {
    let number = |key: &str| declared[key].as_f64().or_else(|| declared[key].as_str()?.parse().ok());
    let size = |key: &str| number(key).map(|size| size as usize);
    // Perl writes some flags as text.
    let flag = |key: &str| declared[key] == 1 || declared[key] == true || declared[key] == "1";
    let text = |key: &str| declared[key].as_str().map(str::to_owned);
    Parameter {
        kind: match declared["type"].as_str() {
            Some("boolean") => Kind::Boolean,
            Some("integer") => Kind::Integer,
            Some("number") => Kind::Number,
            Some("array") => Kind::List,
            _ => Kind::Text,
        },
        optional: flag("optional"),
        format: match &declared["format"] {
            Value::String(name) => Some(Format::Named(name.clone())),
            Value::Object(parts) => Some(Format::Parts(
                parts.iter().map(|(name, part)| (name.clone(), parameter(part))).collect(),
            )),
            _ => None,
        },
        values: declared["enum"].as_array().map(|values| {
            values
                .iter()
                .map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned))
                .collect()
        }),
        minimum: number("minimum"),
        maximum: number("maximum"),
        min_length: size("minLength"),
        max_length: size("maxLength"),
        pattern: declared["pattern"].as_str().and_then(compile),
        requires: text("requires"),
        alias: text("alias"),
        key_alias: text("keyAlias"),
        default_key: flag("default_key"),
    }
}

fn method(declared: &Value, types: &'static [Parameter]) -> Method {
    let none = Map::new();
    let parameters = declared["p"].as_object().unwrap_or(&none).iter().filter_map(|(name, place)| {
        let place = usize::try_from(place.as_u64()?).ok()?;
        Some((name.clone(), types.get(place)?))
    });
    Method {
        parameters: parameters.collect(),
        check: declared.get("check").cloned(),
        user: declared["user"].as_str().map(str::to_owned),
        proxied: declared["proxyto"] == "node",
        no_token: declared["noToken"] == 1,
        open: declared["open"] == 1,
        index: declared["index"].as_str().map(str::to_owned),
    }
}

fn paths() -> &'static [Path] {
    static TYPES: OnceLock<Vec<Parameter>> = OnceLock::new();
    static PATHS: OnceLock<Vec<Path>> = OnceLock::new();
    PATHS.get_or_init(|| {
        let table: Value = serde_json::from_str(TEXT).unwrap_or_default();
        let types = TYPES
            .get_or_init(|| table["types"].as_array().into_iter().flatten().map(parameter).collect())
            .as_slice();
        let none = Map::new();
        let mut paths: Vec<Path> = Vec::new();
        for (template, methods) in table["paths"].as_object().unwrap_or(&none) {
            paths.push(Path {
                template: template.clone(),
                segments: template.split('/').skip(1).map(str::to_owned).collect(),
                methods: methods
                    .as_object()
                    .unwrap_or(&none)
                    .iter()
                    .map(|(name, declared)| (name.clone(), method(declared, types)))
                    .collect(),
            });
        }
        // Fixed segments win over parameters.
        paths.sort_by_key(|path| path.template.matches('{').count());
        paths
    })
}

/// The only parameter that takes the rest of the path, slashes and all.
const REST: &str = "{volume}";

/// The declaration for a path; `None` where PVE knows no such path or method.
pub fn find(wanted: &str, path: &str) -> Option<Declared> {
    let trimmed = path.trim_end_matches('/');
    let have: Vec<&str> = trimmed.split('/').skip(1).collect();
    paths().iter().find_map(|path| {
        let takes_rest = path.segments.last().is_some_and(|last| last == REST);
        let fits = path.segments.len() == have.len() || takes_rest && have.len() > path.segments.len();
        if !fits {
            return None;
        }
        let mut in_path = Vec::new();
        for (at, want) in path.segments.iter().enumerate() {
            let found = have.get(at).copied().unwrap_or_default();
            match want.strip_prefix('{').and_then(|want| want.strip_suffix('}')) {
                Some(name) if want == REST => {
                    in_path.push((name.to_owned(), have.get(at..).unwrap_or_default().join("/")));
                }
                Some(name) => in_path.push((name.to_owned(), found.to_owned())),
                None if want == found => {}
                None => return None,
            }
        }
        let method = path.methods.get(wanted)?;
        // A value that does not match its pattern is no such path, rather than a bad parameter.
        let fits = |(name, value): &(String, String)| {
            let pattern = method.parameters.get(name).and_then(|declared| declared.pattern.as_ref());
            pattern.is_none_or(|pattern| pattern.is_match(value))
        };
        in_path.iter().all(fits).then_some(Declared { template: &path.template, method, in_path })
    })
}

/// The fixed names below a template: what an index lists.
pub fn siblings(template: &str) -> Vec<&'static str> {
    let prefix = format!("{}/", template.trim_end_matches('/'));
    let mut names: Vec<&str> = paths()
        .iter()
        .filter_map(|path| path.template.strip_prefix(&prefix))
        .filter_map(|rest| rest.split('/').next())
        .filter(|name| !name.starts_with('{') && !name.is_empty())
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_found_by_their_fixed_parts_first() {
        let found = find("GET", "/nodes/pve1/qemu/100/config").unwrap();
        assert_eq!(found.template, "/nodes/{node}/qemu/{vmid}/config");
        assert_eq!(found.in_path, [("node".into(), "pve1".into()), ("vmid".into(), "100".into())]);
        assert!(find("GET", "/version/").is_some() && find("GET", "/nosuch").is_none());
        assert!(find("POST", "/version").is_none());
        let volume = find("GET", "/nodes/a/storage/s/content/s:100/vm-100-disk-0.raw").unwrap();
        assert_eq!(volume.in_path[2].1, "s:100/vm-100-disk-0.raw");
        assert!(find("POST", "/access/users/a@pve/token/x y").is_none());
    }
}
