//! The plan file: canonical JSON with its SHA-256, read back only where it is whole, of this version, and not stale.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::Plan;
use crate::canonical::hex;

/// What the file is.
const FORMAT: &str = "pvegraph-plan";

/// The version of its form.
pub const VERSION: u32 = 3;

/// The file around the plan.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Whole {
    format: String,
    version: u32,
    sha256: String,
    plan: Value,
}

/// Why a file is no plan to go by.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// It is something else.
    #[error("it is no plan of `pvegraph plan --out`: {0}")]
    NoPlan(String),
    /// It is of another version of the program.
    #[error("its form is version {found}, and this program's is {VERSION}: plan again with this program")]
    Version {
        /// The file's.
        found: u32,
    },
    /// It is not what was written.
    #[error("it was edited: its SHA-256 is {actual}, and it says {told}; plan again")]
    Edited {
        /// What it says.
        told: String,
        /// What it is.
        actual: String,
    },
    /// It is too old.
    #[error("it is stale: it expired {ago} s ago; plan again")]
    Stale {
        /// For how many seconds.
        ago: i64,
    },
    /// It is from a clock that is ahead of this one.
    #[error("it was made {ahead} s after this host's time: set the clock, and plan again")]
    Future {
        /// By how many seconds.
        ahead: i64,
    },
}

/// JSON with its keys sorted and without blanks.
pub fn canonical_json(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort();
            let parts: Vec<String> = keys
                .into_iter()
                .filter_map(|key| {
                    Some(format!("{}:{}", Value::String(key.clone()), canonical_json(map.get(key)?)))
                })
                .collect();
            format!("{{{}}}", parts.join(","))
        }
        Value::Array(items) => {
            format!("[{}]", items.iter().map(canonical_json).collect::<Vec<_>>().join(","))
        }
        other => other.to_string(),
    }
}

fn sha256(value: &Value) -> String {
    hex(&Sha256::digest(canonical_json(value).as_bytes()))
}

impl Plan {
    fn value(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }

    /// SHA-256 of its canonical JSON: what an approval binds to.
    pub fn sha256(&self) -> String {
        sha256(&self.value())
    }

    /// The file's text.
    pub fn to_file(&self) -> String {
        let plan = self.value();
        let whole = Whole { format: FORMAT.to_owned(), version: VERSION, sha256: sha256(&plan), plan };
        canonical_json(&serde_json::to_value(whole).unwrap_or_default())
    }

    /// Reads a file's text. `now` is in epoch seconds.
    ///
    /// # Errors
    /// It is no plan, of another version, edited, or stale.
    pub fn from_file(text: &str, now: i64) -> Result<Self, FileError> {
        let no_plan = |error: serde_json::Error| {
            // Where it is wrong, and not what is there.
            FileError::NoPlan(format!("line {}, column {}", error.line(), error.column()))
        };
        let value: Value = serde_json::from_str(text).map_err(no_plan)?;
        if value.get("format").and_then(Value::as_str) != Some(FORMAT) {
            return Err(FileError::NoPlan(format!("it has no `\"format\": {FORMAT:?}`")));
        }
        let version = value.get("version").and_then(Value::as_u64).unwrap_or_default();
        if version != u64::from(VERSION) {
            return Err(FileError::Version { found: u32::try_from(version).unwrap_or(u32::MAX) });
        }
        let whole: Whole =
            serde_json::from_value(value).map_err(|error| FileError::NoPlan(error.to_string()))?;
        let actual = sha256(&whole.plan);
        if actual != whole.sha256 {
            return Err(FileError::Edited { told: whole.sha256, actual });
        }
        let plan: Self =
            serde_json::from_value(whole.plan).map_err(|error| FileError::NoPlan(error.to_string()))?;
        plan.fresh(now)?;
        Ok(plan)
    }

    /// Says whether it may still be gone by.
    ///
    /// # Errors
    /// It is stale, or from the future.
    pub fn fresh(&self, now: i64) -> Result<(), FileError> {
        if now >= self.expires_at {
            return Err(FileError::Stale { ago: now - self.expires_at });
        }
        // Clocks of two hosts may differ by some seconds.
        if self.made_at > now + CLOCK_SKEW {
            return Err(FileError::Future { ahead: self.made_at - now });
        }
        Ok(())
    }
}

/// By how many seconds the clock of the host that planned may be ahead.
const CLOCK_SKEW: i64 = 60;
