//! Every key that the configuration knows: its type, its default, and the nearest one to a misspelt name.
//!
//! The file, the environment, `config show` and the messages about unknown keys all read this table, so a new setting is one
//! line here and one field in [`super`].

use config::{Value, ValueKind};
use jiff::SignedDuration;
use toml::de::DeValue;

/// A part of the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    /// `[store]`: where the graph is.
    Store,
    /// `[[clusters]]`: one for each Proxmox VE cluster or standalone node.
    Clusters,
    /// `[sync]`: how a run behaves.
    Sync,
    /// `[apply]`: what changing clusters needs.
    Apply,
}

impl Section {
    /// All sections, in the order in which they are shown.
    pub const ALL: [Section; 4] = [Section::Store, Section::Clusters, Section::Sync, Section::Apply];

    /// Its name in the file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Store => "store",
            Self::Clusters => "clusters",
            Self::Sync => "sync",
            Self::Apply => "apply",
        }
    }

    /// Its heading as it is written in the file.
    pub fn heading(self) -> &'static str {
        match self {
            Self::Store => "[store]",
            Self::Clusters => "[[clusters]]",
            Self::Sync => "[sync]",
            Self::Apply => "[apply]",
        }
    }

    /// Its keys.
    pub fn keys(self) -> &'static [Key] {
        match self {
            Self::Store => STORE,
            Self::Clusters => CLUSTER,
            Self::Sync => SYNC,
            Self::Apply => APPLY,
        }
    }

    /// The key of that name.
    pub fn key(self, name: &str) -> Option<&'static Key> {
        self.keys().iter().find(|key| key.name == name)
    }

    /// The section of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|section| section.name() == name)
    }
}

/// A key within its section.
#[derive(Debug)]
pub struct Key {
    /// Its name in the file; in the environment the same in capitals.
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// Its built-in default, written as it would be in the environment.
    pub default: Option<&'static str>,
}

/// What a key holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Any text.
    Text,
    /// The store's URI. The path in `embedded:PATH` is resolved like [`Kind::Path`].
    StoreUri,
    /// A path; one in a file is relative to that file's directory.
    Path,
    /// A whole number within these bounds.
    Whole(i64, i64),
    /// `true` or `false`.
    Flag,
    /// A length of time, such as `30s` or `1h 30m`.
    Duration,
    /// A list of texts; comma-separated in the environment.
    Texts,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A secret. It is read from the environment and refused in a file; `NAME_file` names a file that holds it.
    Secret,
}

const fn key(name: &'static str, kind: Kind) -> Key {
    Key { name, kind, default: None }
}

const fn with_default(name: &'static str, kind: Kind, default: &'static str) -> Key {
    Key { name, kind, default: Some(default) }
}

const STORE: &[Key] = &[
    with_default("uri", Kind::StoreUri, "bolt://127.0.0.1:7687"),
    with_default("user", Kind::Text, "neo4j"),
    key("password", Kind::Secret),
    key("password_file", Kind::Path),
    key("database", Kind::Text),
    with_default("max_connections", Kind::Whole(1, 1_000), "8"),
    with_default("connect_timeout", Kind::Duration, "10s"),
    with_default("request_timeout", Kind::Duration, "100s"),
];

const CLUSTER: &[Key] = &[
    key("name", Kind::Text),
    key("endpoints", Kind::Texts),
    key("token_id", Kind::Text),
    key("token_secret", Kind::Secret),
    key("token_secret_file", Kind::Path),
    key("username", Kind::Text),
    key("password", Kind::Secret),
    key("password_file", Kind::Path),
    key("ca_file", Kind::Path),
    key("fingerprint", Kind::Text),
    with_default("insecure", Kind::Flag, "false"),
    // 64 requests at once keep a cluster of many nodes busy, 8 leave a node's pvedaemon (3 workers, plus what pveproxy
    // queues) room for its users.
    with_default("concurrency", Kind::Whole(1, 1_000), "64"),
    with_default("per_node_concurrency", Kind::Whole(1, 1_000), "8"),
    with_default("connect_timeout", Kind::Duration, "10s"),
    // Above the 30 s after which a node gives up on another one: its answer says more than our own time-out.
    with_default("request_timeout", Kind::Duration, "40s"),
    with_default("run_timeout", Kind::Duration, "1h"),
    key("keep_up", Kind::Texts),
];

const SYNC: &[Key] = &[
    with_default("offline_nodes", Kind::Choice(&["ok", "partial"]), "partial"),
    with_default("max_delete_percent", Kind::Whole(0, 100), "30"),
    with_default("guard_from", Kind::Whole(0, 1_000_000_000), "20"),
    with_default("history_days", Kind::Whole(1, 36_500), "180"),
];

const APPLY: &[Key] = &[
    key("directory", Kind::Path),
    key("audit_key", Kind::Secret),
    key("audit_key_file", Kind::Path),
    // Syncs run each night as a rule.
    with_default("max_inventory_age", Kind::Duration, "24h"),
];

impl Kind {
    /// What the value must be, to finish "must be …".
    fn expected(self) -> String {
        match self {
            Self::Text | Self::StoreUri | Self::Path | Self::Secret => "text".into(),
            Self::Whole(low, high) => format!("a whole number from {low} to {high}"),
            Self::Flag => "true or false".into(),
            Self::Duration => "a length of time with its unit, such as \"30s\" or \"1h 30m\"".into(),
            Self::Texts => "a list of texts, such as [\"…\", \"…\"]".into(),
            Self::Choice(words) => {
                words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(" or ")
            }
        }
    }

    /// Reads a value as the environment, a flag or the table of defaults writes it. The error finishes "must be …".
    pub fn read_text(self, text: &str, origin: &str) -> Result<Value, String> {
        let kind = match self {
            Self::Texts => {
                let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
                ValueKind::Array(items.map(|item| value(origin, item.to_owned())).collect())
            }
            Self::Flag => ValueKind::Boolean(text.parse().map_err(|_| self.expected())?),
            Self::Whole(..) => return self.whole(text.parse().ok(), origin),
            _ => return self.text(text, origin),
        };
        Ok(value(origin, kind))
    }

    /// Reads a value of a TOML file. The error finishes "must be …".
    pub fn read_toml(self, given: &DeValue<'_>, origin: &str) -> Result<Value, String> {
        match (self, given) {
            (Self::Texts, DeValue::Array(items)) => {
                let mut texts = Vec::new();
                for item in items {
                    let text = item.get_ref().as_str().ok_or_else(|| self.expected())?;
                    texts.push(value(origin, text.to_owned()));
                }
                Ok(value(origin, ValueKind::Array(texts)))
            }
            (Self::Flag, DeValue::Boolean(flag)) => Ok(value(origin, *flag)),
            (Self::Whole(..), DeValue::Integer(number)) => {
                self.whole(i64::from_str_radix(number.as_str(), number.radix()).ok(), origin)
            }
            (Self::Texts | Self::Flag | Self::Whole(..), other) => Err(self.unexpected(other)),
            (_, DeValue::String(text)) => self.text(text, origin),
            (_, other) => Err(self.unexpected(other)),
        }
    }

    fn unexpected(self, given: &DeValue<'_>) -> String {
        format!("{}, and is of type {}", self.expected(), given.type_str())
    }

    fn whole(self, number: Option<i64>, origin: &str) -> Result<Value, String> {
        match (self, number) {
            (Self::Whole(low, high), Some(number)) if (low..=high).contains(&number) => {
                Ok(value(origin, number))
            }
            _ => Err(self.expected()),
        }
    }

    fn text(self, text: &str, origin: &str) -> Result<Value, String> {
        match self {
            Self::Choice(words) if !words.contains(&text) => {
                Err(format!("{}{}", self.expected(), did_you_mean(text, words.iter().copied(), "\"", None)))
            }
            Self::Duration => match text.parse::<SignedDuration>() {
                Ok(duration) if duration > SignedDuration::ZERO => Ok(value(origin, text.to_owned())),
                Ok(_) => Err("longer than nothing".into()),
                Err(_) => Err(self.expected()),
            },
            _ => Ok(value(origin, text.to_owned())),
        }
    }
}

fn value(origin: &str, kind: impl Into<ValueKind>) -> Value {
    Value::new(Some(&origin.to_owned()), kind)
}

/// `: did you mean …?` with the nearest known name, or nothing where none is near. `limit` is how many letters may differ.
pub fn did_you_mean<'a>(
    given: &str,
    known: impl Iterator<Item = &'a str>,
    quote: &str,
    limit: Option<usize>,
) -> String {
    // One underscore for two is no misspelling of the name itself.
    let plain = |name: &str| name.to_lowercase().replace("__", "_");
    let given = plain(given);
    // A third of the letters may be wrong: more, and the suggestion would be a guess.
    let limit = limit.unwrap_or((given.chars().count() / 3).max(1));
    known
        .map(|name| (strsim::damerau_levenshtein(&given, &plain(name)), name))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| format!(": did you mean {quote}{name}{quote}?"))
        .unwrap_or_default()
}
