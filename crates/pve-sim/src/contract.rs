//! PVE's own schema of its answers, and whether an answer keeps to it.
//!
//! With `PVE_SIM_SCHEMA` naming the schema's file, every answer that the simulator gives in this process is checked, whoever
//! asks and over whichever transport, and one that breaks the schema is a panic: the project's tests set it. What genuine
//! answers prove to be errors of the schema itself is in a list of its own.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;

use crate::answer::Answer;
use crate::world::World;

/// The environment variable with the path of `api-schema-8.4.json`.
pub const SCHEMA_VARIABLE: &str = "PVE_SIM_SCHEMA";

/// Why there is no schema to check by.
#[derive(Debug, thiserror::Error)]
pub enum ContractError {
    /// The file cannot be read.
    #[error("cannot read PVE's API schema {path}: name the file in PVE_SIM_SCHEMA, or unset it")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is no JSON.
    #[error("PVE's API schema {path} is no JSON: take it from a PVE 8.4 host")]
    Json {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

/// The schema's own errors, a line each.
const LISTED: &str = include_str!("../tests/schema-errors.txt");

/// The schema of all paths.
#[derive(Debug)]
pub struct Contract {
    paths: Value,
    listed: BTreeSet<&'static str>,
}

impl Contract {
    /// Reads the schema.
    ///
    /// # Errors
    /// A file that is not there or no JSON.
    pub fn read(file: &Path) -> Result<Self, ContractError> {
        let path = || file.to_owned();
        let text =
            std::fs::read_to_string(file).map_err(|source| ContractError::Read { path: path(), source })?;
        let mut schema: Value =
            serde_json::from_str(&text).map_err(|source| ContractError::Json { path: path(), source })?;
        let lines = LISTED.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        Ok(Self { paths: schema["paths"].take(), listed: lines.collect() })
    }

    /// The declaration of a method on a template; null where there is none.
    pub fn declaration(&self, method: &str, template: &str) -> &Value {
        &self.paths[template][method]
    }

    /// The template of a concrete path. Fixed segments win over parameters.
    pub fn template(&self, path: &str) -> Option<&str> {
        let path = path.split('?').next().unwrap_or_default().trim_end_matches('/');
        let have: Vec<&str> = path.split('/').collect();
        let fits = |template: &&String| {
            let want: Vec<&str> = template.split('/').collect();
            want.len() == have.len()
                && want.iter().zip(&have).all(|(want, have)| want.starts_with('{') || want == have)
        };
        let templates = self.paths.as_object()?.keys().filter(fits);
        templates.min_by_key(|template| template.matches('{').count()).map(String::as_str)
    }

    /// What is wrong with the `data` of an answer: each place and problem once, without indices and values, the schema's own
    /// errors among them.
    pub fn problems(&self, method: &str, template: &str, data: &Value) -> BTreeSet<String> {
        let mut problems = BTreeSet::new();
        let returns = &self.declaration(method, template)["returns"];
        let nothing = data.is_null() && returns["optional"] == 1;
        if returns.is_object() && !nothing {
            check(returns, data, "$", &mut problems);
        }
        problems
    }

    /// What is wrong with an answer beyond the schema's own errors, a line each.
    pub fn violations(&self, method: &str, template: &str, data: &Value) -> Vec<String> {
        let lines = self.problems(method, template, data).into_iter();
        let lines = lines.map(|problem| Self::line(method, template, &problem));
        lines.filter(|line| !self.listed.contains(line.as_str())).collect()
    }

    /// A problem as the list has it.
    pub fn line(method: &str, template: &str, problem: &str) -> String {
        match method {
            "GET" => format!("{template} {problem}"),
            method => format!("{method} {template} {problem}"),
        }
    }

    /// The schema's own errors.
    pub fn listed(&self) -> &BTreeSet<&'static str> {
        &self.listed
    }

    /// Whether the schema knows a key of the rows or object that reading a path returns.
    pub fn knows_key(&self, template: &str, key: &str) -> bool {
        let returns = &self.declaration("GET", template)["returns"];
        let row = if returns["type"] == "array" { &returns["items"] } else { returns };
        row["properties"].as_object().is_some_and(|properties| property(properties, key).is_some())
    }
}

/// How many answers have been checked in this process.
static CHECKED: AtomicUsize = AtomicUsize::new(0);

/// How many answers of the simulator have been checked against the schema in this process; 0 where there is none to check by.
pub fn checked_answers() -> usize {
    CHECKED.load(Ordering::Relaxed)
}

/// The schema's file, if answers are to be checked: `api-schema-8.4.json` in the folder that `PVEGRAPH_RECORDINGS` names, else
/// what [`SCHEMA_VARIABLE`] names. Without the latter nothing is checked.
pub fn schema_file() -> Option<PathBuf> {
    let named = PathBuf::from(std::env::var_os(SCHEMA_VARIABLE)?);
    let folder = std::env::var_os("PVEGRAPH_RECORDINGS").map(PathBuf::from);
    Some(folder.map_or(named, |folder| folder.join("api-schema-8.4.json")))
}

/// The schema that the environment names. One that is named and absent is passed over, except in CI.
fn of_environment() -> Option<&'static Contract> {
    static CONTRACT: OnceLock<Option<Contract>> = OnceLock::new();
    let read = || {
        let file = schema_file()?;
        match Contract::read(&file) {
            Ok(contract) => Some(contract),
            Err(error) if std::env::var("CI").as_deref() == Ok("true") => {
                violation(&format!("{error}"));
                None
            }
            Err(error) => {
                tracing::info!(%error, "answers are not checked");
                None
            }
        }
    };
    CONTRACT.get_or_init(read).as_ref()
}

/// A broken contract ends the test that asked, and says why: no test can mean to go on.
#[expect(clippy::panic, reason = "only where the environment asks for the check, which is in tests")]
fn violation(text: &str) {
    panic!("the simulated answer breaks PVE's schema: {text}");
}

/// Checks an answer, if the environment asks for that.
pub(crate) fn check_answer(world: &World, method: &str, template: &str, answer: &Answer) {
    let Some(contract) = of_environment().filter(|_| answer.is_ok()) else { return };
    if world.read(|state| state.odd) {
        return;
    }
    CHECKED.fetch_add(1, Ordering::Relaxed);
    let violations = contract.violations(method, template, &answer.body.to_json()["data"]);
    if !violations.is_empty() {
        violation(&violations.join("; "));
    }
}

/// Where the schema wants a type: PVE's booleans are 0 and 1.
fn has_type(wanted: &str, value: &Value) -> bool {
    match wanted {
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.as_i64().is_some_and(|number| number == 0 || number == 1) || value.is_boolean(),
        "object" => value.is_object(),
        "array" => value.is_array(),
        "null" => value.is_null(),
        "any" => true,
        // A test sees that the schema has no other type.
        _ => false,
    }
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true/false",
        Value::Number(number) if number.is_f64() => "fraction",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// `net0` is declared as `net[n]`.
fn property<'a>(properties: &'a serde_json::Map<String, Value>, key: &str) -> Option<&'a Value> {
    let stem = key.trim_end_matches(|character: char| character.is_ascii_digit());
    properties.get(key).or_else(|| properties.get(&format!("{stem}[n]")))
}

fn check(schema: &Value, value: &Value, place: &str, problems: &mut BTreeSet<String>) {
    let Some(wanted) = schema["type"].as_str() else { return };
    if !has_type(wanted, value) {
        problems.insert(format!("{place} wants {wanted}, got {}", type_of(value)));
        return;
    }
    if let (Some(allowed), true) = (schema["enum"].as_array(), value.is_string())
        && !allowed.contains(value)
    {
        problems.insert(format!("{place} has a value outside its enumeration"));
    }
    if let Value::Array(items) = value {
        for item in items {
            check(&schema["items"], item, &format!("{place}[]"), problems);
        }
    }
    let (Value::Object(object), Some(properties)) = (value, schema["properties"].as_object()) else { return };
    for (name, declared) in properties {
        if declared["optional"].as_i64() != Some(1) && !object.contains_key(name) && !name.ends_with("[n]") {
            problems.insert(format!("{place}.{name} is missing"));
        }
    }
    for (name, value) in object {
        match property(properties, name) {
            Some(declared) => check(declared, value, &format!("{place}.{name}"), problems),
            None if schema["additionalProperties"].as_i64() == Some(0) => {
                problems.insert(format!("{place}.{name} is not declared"));
            }
            None => {}
        }
    }
}
