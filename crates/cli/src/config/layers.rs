//! Where settings come from: the defaults, the file, the environment, the flags. Each becomes a [`Layer`].

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::fmt;
use std::path::Path;

use config::{Map, Source, Value};
use secrecy::SecretString;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::{Key, Kind, Section, did_you_mean};
use super::{EMBEDDED, Problem};
use crate::secret::EnvSecret;

/// Starts the name of every variable that is a setting.
const PREFIX: &str = "PVEGRAPH__";

/// The settings of one source. Each value carries its origin.
#[derive(Debug, Clone, Default)]
pub struct Layer {
    values: Map<String, Value>,
    /// Secrets, by their setting's name; they never become values.
    pub secrets: BTreeMap<String, EnvSecret>,
    /// How many clusters it names.
    pub clusters: usize,
}

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, config::ConfigError> {
        Ok(self.values.clone())
    }
}

/// A setting's full name, in the form of the `config` crate's paths.
pub fn setting(section: Section, index: usize, key: &str) -> String {
    match section {
        Section::Clusters => format!("clusters[{index}].{key}"),
        _ => format!("{}.{key}", section.name()),
    }
}

/// The variable that holds a setting.
pub fn variable(section: Section, index: usize, key: &str) -> String {
    let section_name = section.name().to_uppercase();
    let key = key.to_uppercase();
    match section {
        Section::Clusters => format!("{PREFIX}{section_name}__{index}__{key}"),
        _ => format!("{PREFIX}{section_name}__{key}"),
    }
}

/// The built-in defaults for this many clusters.
pub fn defaults(clusters: usize) -> Result<Layer, Problem> {
    let mut layer = Layer::default();
    for section in Section::ALL {
        let count = if section == Section::Clusters { clusters } else { 1 };
        for index in 0..count {
            for key in section.keys() {
                let Some(text) = key.default else { continue };
                let name = setting(section, index, key.name);
                match key.kind.read_text(text, "default") {
                    Ok(value) => drop(layer.values.insert(name, value)),
                    Err(expected) => {
                        return Err(Problem::new("default", format!("{name} must be {expected}")));
                    }
                }
            }
        }
    }
    Ok(layer)
}

/// The flags that are settings.
pub fn flags(store: Option<&str>) -> Layer {
    let mut layer = Layer::default();
    if let Some(uri) = store {
        let origin = "flag --store".to_owned();
        layer.values.insert("store.uri".into(), Value::new(Some(&origin), uri));
    }
    layer
}

/// The file's settings. `path` is absolute; relative paths in the file are resolved against its directory.
/// What is not TOML is the one problem that is returned, because nothing else can be said then; the others are collected.
pub fn file(path: &Path, text: &str, problems: &mut Vec<Problem>) -> Result<Layer, Problem> {
    let mut reader = FileReader { path, text, layer: Layer::default(), problems: Vec::new() };
    match DeTable::parse(text) {
        Ok(table) => reader.document(table.get_ref()),
        Err(error) => {
            // Only the message: the line itself might be one that somebody wrote a secret into.
            let at = reader.origin(error.span().map_or(0, |span| span.start));
            return Err(Problem::new(at, format!("not TOML: {}", error.message().trim())));
        }
    }
    // Tables come sorted by name; people read from the top.
    reader.problems.sort_by_key(|(at, _)| *at);
    problems.extend(reader.problems.into_iter().map(|(_, problem)| problem));
    Ok(reader.layer)
}

struct FileReader<'a> {
    path: &'a Path,
    text: &'a str,
    layer: Layer,
    problems: Vec<(usize, Problem)>,
}

impl FileReader<'_> {
    fn origin(&self, at: usize) -> String {
        let before = self.text.as_bytes().iter().take(at);
        let line = 1 + before.filter(|byte| **byte == b'\n').count();
        format!("{}:{line}", self.path.display())
    }

    fn refuse(&mut self, at: usize, message: String) {
        let origin = self.origin(at);
        self.problems.push((at, Problem::new(origin, message)));
    }

    fn document(&mut self, table: &DeTable<'_>) {
        for (name, value) in table {
            let at = name.span().start;
            match (Section::named(name.get_ref()), value.get_ref()) {
                (Some(Section::Clusters), DeValue::Array(items)) => {
                    self.layer.clusters = items.len();
                    for (index, item) in items.iter().enumerate() {
                        match item.get_ref() {
                            DeValue::Table(keys) => self.section(Section::Clusters, index, keys),
                            _ => self
                                .refuse(at, "`clusters` must be a list of tables: write [[clusters]]".into()),
                        }
                    }
                }
                (Some(Section::Clusters), _) => {
                    self.refuse(at, "`clusters` is a list: write [[clusters]], with double brackets".into());
                }
                (Some(section), DeValue::Table(keys)) => self.section(section, 0, keys),
                (Some(section), _) => {
                    let heading = section.heading();
                    self.refuse(at, format!("`{}` is a section: write {heading}", section.name()));
                }
                (None, _) => {
                    let shown = shown(name.get_ref());
                    let owner =
                        Section::ALL.into_iter().find(|section| section.key(name.get_ref()).is_some());
                    let hint = match owner {
                        Some(section) => format!(": it belongs into {}", section.heading()),
                        None => {
                            let known = Section::ALL.into_iter().map(Section::name);
                            did_you_mean(name.get_ref(), known, "`", None)
                        }
                    };
                    self.refuse(at, format!("unknown key `{shown}`{hint}"));
                }
            }
        }
    }

    fn section(&mut self, section: Section, index: usize, table: &DeTable<'_>) {
        for (name, value) in table {
            let at = name.span().start;
            match section.key(name.get_ref()) {
                Some(key) if key.kind == Kind::Secret => {
                    let key = key.name;
                    self.refuse(
                        at,
                        format!(
                            "a secret has no place in this file, so `{key}` is refused: put it into a file of its \
                             own and name that in `{key}_file` (and change the secret if others could read it here)"
                        ),
                    );
                }
                Some(key) => self.value(setting(section, index, key.name), key, value, at),
                None => {
                    let known =
                        section.keys().iter().filter(|key| key.kind != Kind::Secret).map(|key| key.name);
                    let hint = did_you_mean(name.get_ref(), known, "`", None);
                    let shown = shown(name.get_ref());
                    self.refuse(at, format!("unknown key `{shown}` in {}{hint}", section.heading()));
                }
            }
        }
    }

    fn value(&mut self, name: String, key: &Key, given: &Spanned<DeValue<'_>>, at: usize) {
        let origin = self.origin(at);
        match key.kind.read_toml(given.get_ref(), &origin) {
            Ok(value) => {
                let value = self.resolved(key.kind, value, &origin);
                self.layer.values.insert(name, value);
            }
            Err(expected) => self.refuse(at, format!("{name} must be {expected}")),
        }
    }

    /// A path in the file means a path beside the file, wherever the program was started.
    fn resolved(&self, kind: Kind, value: Value, origin: &String) -> Value {
        let directory = self.path.parent().unwrap_or(Path::new(""));
        let join = |path: &str| directory.join(path).to_string_lossy().into_owned();
        match (kind, &value.kind) {
            (Kind::Path, config::ValueKind::String(path)) if !path.is_empty() => {
                Value::new(Some(origin), join(path))
            }
            (Kind::StoreUri, config::ValueKind::String(uri)) => match uri.strip_prefix(EMBEDDED) {
                Some(path) if !path.is_empty() => {
                    Value::new(Some(origin), format!("{EMBEDDED}{}", join(path)))
                }
                _ => value,
            },
            _ => value,
        }
    }
}

/// The environment's settings. An empty variable counts as unset, as compose files and unit files make them.
pub fn environment(
    variables: impl Iterator<Item = (OsString, OsString)>,
    in_file: usize,
    problems: &mut Vec<Problem>,
) -> Layer {
    let mut layer = Layer::default();
    let mut variables: Vec<(String, OsString)> = variables
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
        .filter(|(name, _)| name.starts_with("PVEGRAPH_"))
        .collect();
    variables.sort();
    let mut named = Vec::new();
    for (name, value) in variables {
        let Some(parts) = parts(&name) else { continue };
        match known(&parts) {
            Some((section, index, key)) => {
                if value.is_empty() {
                    continue;
                }
                let origin = format!("env {name}");
                let Ok(text) = value.into_string() else {
                    problems.push(Problem::new(origin, "the value is not UTF-8 text".into()));
                    continue;
                };
                if section == Section::Clusters {
                    named.push((index, origin.clone()));
                    layer.clusters = layer.clusters.max(index.saturating_add(1));
                }
                let setting = setting(section, index, key.name);
                if key.kind == Kind::Secret {
                    layer
                        .secrets
                        .insert(setting, EnvSecret { variable: name, value: SecretString::from(text) });
                    continue;
                }
                match key.kind.read_text(&text, &origin) {
                    Ok(value) => drop(layer.values.insert(setting, value)),
                    Err(expected) => problems.push(Problem::new(origin, format!("must be {expected}"))),
                }
            }
            None => {
                let (section, index) = nearest_section(&parts);
                let all = known_variables(section, index);
                let hint = did_you_mean(&name, all.iter().map(String::as_str), "", Some(2));
                problems.push(Problem::new(format!("env {name}"), format!("unknown variable{hint}")));
            }
        }
    }
    // Without this, `clusters[3]` of the environment would silently be the second one, or the list as long as the number.
    for at in in_file..layer.clusters {
        if !named.iter().any(|(index, _)| *index == at) {
            let origin =
                named.iter().find(|(index, _)| *index > at).map_or("environment", |(_, origin)| origin);
            let message = format!("there is no cluster {at}: clusters are numbered from 0 without gaps");
            problems.push(Problem::new(origin, message));
            break;
        }
    }
    layer
}

/// The parts of a name that is, or is probably meant to be, a setting's.
fn parts(name: &str) -> Option<Vec<&str>> {
    if let Some(rest) = name.strip_prefix(PREFIX) {
        return Some(rest.split("__").collect());
    }
    // `PVEGRAPH_STORE_URI`: the commonest slip, which would otherwise go unseen.
    let rest = name.strip_prefix("PVEGRAPH_")?;
    let (first, rest) = rest.split_once('_')?;
    Section::named(&first.to_lowercase())?;
    Some(vec![first, "", rest])
}

fn known(parts: &[&str]) -> Option<(Section, usize, &'static Key)> {
    let upper = |name: &str| name.to_uppercase();
    let section = |given: &str| Section::ALL.into_iter().find(|section| upper(section.name()) == given);
    let key = |section: Section, given: &str| section.keys().iter().find(|key| upper(key.name) == given);
    match parts {
        [first, name] => {
            let section = section(first).filter(|section| *section != Section::Clusters)?;
            Some((section, 0, key(section, name)?))
        }
        [first, index, name] => {
            let section = section(first).filter(|section| *section == Section::Clusters)?;
            Some((section, index.parse().ok()?, key(section, name)?))
        }
        _ => None,
    }
}

fn nearest_section(parts: &[&str]) -> (Option<Section>, usize) {
    let section = parts.first().and_then(|first| Section::named(&first.to_lowercase()));
    (section, parts.iter().find_map(|part| part.parse().ok()).unwrap_or(0))
}

fn known_variables(section: Option<Section>, index: usize) -> Vec<String> {
    let sections = Section::ALL.into_iter().filter(|known| section.is_none_or(|section| section == *known));
    sections.flat_map(|known| known.keys().iter().map(move |key| variable(known, index, key.name))).collect()
}

/// A name out of a file, fit for a terminal.
fn shown(name: &str) -> impl fmt::Display {
    name.escape_debug().to_string()
}

/// The process's own environment.
pub fn process_environment() -> impl Iterator<Item = (OsString, OsString)> {
    env::vars_os()
}
