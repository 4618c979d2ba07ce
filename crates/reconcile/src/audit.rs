//! The audit log: who changed what, approved by whom, as lines that are chained to each other.
//!
//! Each line's hash is SHA-256 of the previous line's hash (32 bytes; zeros before the first) followed by the entry's canonical
//! JSON (keys sorted, no blanks). With a key each line also has an HMAC-SHA256 of its hash. Without a key whoever can write the file
//! can write a whole new chain: only a head that is kept elsewhere shows that, and [`crate::apply`] mirrors it to the graph.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::canonical::hex;
use crate::lines::{self, Lines, LinesError};

/// What damage calls for here.
const MEND: &str = "the log is not what pvegraph wrote: compare it with a backup and keep both";

/// What lines without an HMAC call for where there is a key.
const UNKEYED: &str = "with a key all lines have one: if the log was begun without the key, move it away and let the graph forget its end \
                       (MATCH (l:PvegraphLease {id: 'apply:CLUSTER'}) REMOVE l.audit_entries, l.audit_hash), and a new log begins with it; \
                       else compare the log with a backup and keep both";

/// What comes before the first line.
const START: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// The end of the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// How many lines there are.
    pub entries: u64,
    /// The last line's hash in hexadecimal.
    pub hash: String,
}

impl Default for Head {
    fn default() -> Self {
        Self { entries: 0, hash: START.to_owned() }
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    entry: Map<String, Value>,
    hash: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hmac: Option<String>,
}

/// The log, open for writing.
#[derive(Debug)]
pub struct Audit {
    lines: Lines,
    head: Head,
    key: Option<SecretString>,
}

/// What a log says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verified {
    /// Its end.
    pub head: Head,
    /// The hash of each line.
    pub hashes: Vec<String>,
    /// Lines that have an HMAC.
    pub keyed: u64,
}

impl Audit {
    /// Opens the log and goes through the chain.
    ///
    /// # Errors
    /// It can't be read or made, or its chain does not hold.
    pub fn open(path: &Path, key: Option<SecretString>) -> Result<Self, LinesError> {
        let (lines, text) = Lines::open(path)?;
        let head = verified(path, &text, key.as_ref())?.head;
        Ok(Self { lines, head, key })
    }

    /// Adds an entry. `entry` is an object without secrets; `n` and `at` (epoch seconds) are added.
    ///
    /// # Errors
    /// It can't be written.
    pub fn add(&mut self, now: i64, mut entry: Map<String, Value>) -> Result<&Head, LinesError> {
        let n = self.head.entries + 1;
        entry.insert("n".to_owned(), json!(n));
        entry.insert("at".to_owned(), json!(now));
        let hash = chained(&self.head.hash, &entry);
        let hmac = self.key.as_ref().map(|key| keyed(key, &hash));
        let line = json!(Line { entry, hash: hash.clone(), hmac }).to_string();
        self.lines.add(&line)?;
        self.head = Head { entries: n, hash };
        Ok(&self.head)
    }

    /// The end of the chain.
    pub fn head(&self) -> &Head {
        &self.head
    }
}

/// Goes through the chain of a log. Nothing where there is none.
///
/// # Errors
/// It can't be read, a line was changed, added or taken out, or an HMAC is missing or wrong.
pub fn verify(path: &Path, key: Option<&SecretString>) -> Result<Option<Verified>, LinesError> {
    lines::read(path)?.map(|lines| verified(path, &lines, key)).transpose()
}

/// What the log says last of each operation of a run, by its number: `done`, `failed`, … Its chain is not gone through.
///
/// # Errors
/// It can't be read.
pub fn results(path: &Path, run: &str) -> Result<BTreeMap<usize, String>, LinesError> {
    let mut told = BTreeMap::new();
    for line in lines::read(path)?.unwrap_or_default() {
        let Ok(Line { entry, .. }) = serde_json::from_str(&line) else { continue };
        let text = |key: &str| entry.get(key).and_then(Value::as_str);
        let number = entry.get("operation").and_then(Value::as_u64).and_then(|at| usize::try_from(at).ok());
        if let (Some(number), Some(result), Some("operation"), true) =
            (number, text("result"), text("what"), text("run") == Some(run))
        {
            told.insert(number, result.to_owned());
        }
    }
    Ok(told)
}

/// Where a log and the head that the graph has do not agree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Disagreement {
    /// Lines are missing at the end.
    #[error(
        "{} has {have} entries, and the graph knows of {known}: its end was cut off, or an older copy lies there; bring the whole log back \
         from a backup",
        path.display()
    )]
    Truncated {
        /// The log.
        path: PathBuf,
        /// Its lines.
        have: u64,
        /// The graph's.
        known: u64,
    },
    /// The chain is another one.
    #[error(
        "entry {known} of {} is another one than the graph knows of: the log was written anew; keep it, and bring the one before back \
         from a backup",
        path.display()
    )]
    Rewritten {
        /// The log.
        path: PathBuf,
        /// The entry.
        known: u64,
    },
    /// The log that the graph knows of is another host's, or in another directory.
    #[error(
        "this cluster's audit log is kept elsewhere: the graph knows of {known} entries{}, and {} is not that log: apply there, or bring that \
         directory from there, whole, to where this one is; if nobody ever applied from elsewhere, this log was taken away: bring it back from a \
         backup",
        kept_at.as_ref().map(|place| format!(", written at {place}")).unwrap_or_default(),
        path.display()
    )]
    Elsewhere {
        /// The log here.
        path: PathBuf,
        /// How many lines the graph knows of.
        known: u64,
        /// The host and the directory of the other log, if they are known.
        kept_at: Option<String>,
    },
}

impl Disagreement {
    /// The same, for a log that is kept here, where the graph knows of one that is kept at `there`. An empty log of which that is not known
    /// may never have been begun here.
    #[must_use]
    pub fn seen_from(self, here: &str, there: Option<&str>) -> Self {
        let (path, empty, known) = match &self {
            Self::Truncated { path, have, known } => (path.clone(), *have == 0, *known),
            Self::Rewritten { path, known } => (path.clone(), false, *known),
            Self::Elsewhere { .. } => return self,
        };
        let elsewhere = there.map_or(empty, |there| there != here);
        if elsewhere { Self::Elsewhere { path, known, kept_at: there.map(str::to_owned) } } else { self }
    }
}

impl Verified {
    /// Compares with the head that the graph has. It may be behind: it is mirrored after the line is written.
    ///
    /// # Errors
    /// The log is not a continuation of it.
    pub fn agrees(&self, path: &Path, mirrored: &Head) -> Result<(), Disagreement> {
        let at = usize::try_from(mirrored.entries).unwrap_or(usize::MAX);
        if mirrored.entries == 0 {
            return Ok(());
        }
        match self.hashes.get(at - 1) {
            None => Err(Disagreement::Truncated {
                path: path.to_owned(),
                have: self.head.entries,
                known: mirrored.entries,
            }),
            Some(hash) if *hash != mirrored.hash => {
                Err(Disagreement::Rewritten { path: path.to_owned(), known: mirrored.entries })
            }
            Some(_) => Ok(()),
        }
    }
}

fn verified(path: &Path, lines: &[String], key: Option<&SecretString>) -> Result<Verified, LinesError> {
    let mut found = Verified::default();
    for (at, text) in lines.iter().enumerate() {
        let damaged =
            |why: String| LinesError::Damaged { path: path.to_owned(), line: at + 1, why, mend: MEND };
        let line: Line = serde_json::from_str(text).map_err(|error| damaged(error.to_string()))?;
        // A key that is there twice would be lost without a word.
        if json!(line).to_string().as_str() != text {
            return Err(damaged("it is not as pvegraph writes it".to_owned()));
        }
        let Line { entry, hash, hmac } = line;
        if entry.get("n") != Some(&json!(found.head.entries + 1)) {
            return Err(damaged("it is not the entry that comes next".to_owned()));
        }
        if chained(&found.head.hash, &entry) != hash {
            return Err(damaged("its hash is not that of its entry after the line before".to_owned()));
        }
        match (&hmac, key) {
            (Some(hmac), Some(key)) if !is_keyed(key, &hash, hmac) => {
                return Err(damaged("its HMAC is not of this key".to_owned()));
            }
            (None, None) if found.keyed > 0 => {
                return Err(damaged("it has no HMAC, and lines before it have one".to_owned()));
            }
            (None, Some(_)) => {
                let (path, line) = (path.to_owned(), at + 1);
                let why = "it has no HMAC".to_owned();
                return Err(LinesError::Damaged { path, line, why, mend: UNKEYED });
            }
            _ => {}
        }
        found.keyed += u64::from(hmac.is_some());
        found.hashes.push(hash.clone());
        found.head = Head { entries: found.head.entries + 1, hash };
    }
    Ok(found)
}

/// The hash of an entry after the line with `previous`.
fn chained(previous: &str, entry: &Map<String, Value>) -> String {
    let mut hasher = Sha256::new();
    let byte =
        |pair: &[u8]| std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok());
    let before: Vec<u8> = previous.as_bytes().chunks(2).filter_map(byte).collect();
    hasher.update(&before);
    hasher.update(json!(entry).to_string().as_bytes());
    hex(&hasher.finalize())
}

fn mac(key: &SecretString, hash: &str) -> Option<Hmac<Sha256>> {
    // HMAC takes keys of any length.
    let mut mac = Hmac::<Sha256>::new_from_slice(key.expose_secret().as_bytes()).ok()?;
    mac.update(hash.as_bytes());
    Some(mac)
}

fn keyed(key: &SecretString, hash: &str) -> String {
    mac(key, hash).map(|mac| hex(&mac.finalize().into_bytes())).unwrap_or_default()
}

fn is_keyed(key: &SecretString, hash: &str, hmac: &str) -> bool {
    // Of equal length, compared without a branch on the content.
    let right = keyed(key, hash);
    right.len() == hmac.len() && right.bytes().zip(hmac.bytes()).fold(0, |all, (a, b)| all | (a ^ b)) == 0
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;
    use std::fs;

    fn entry(uid: &str) -> Map<String, Value> {
        json!({ "uid": uid, "result": "verified" }).as_object().cloned().unwrap()
    }

    fn log(key: Option<&str>) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::TempDir::new().unwrap();
        let path = directory.path().join("audit.jsonl");
        for uid in ["a", "b", "c"] {
            // Each time anew, as processes do.
            let mut audit = Audit::open(&path, key.map(SecretString::from)).unwrap();
            audit.add(7, entry(uid)).unwrap();
        }
        (directory, path)
    }

    #[test]
    fn the_chain_is_what_its_definition_says() {
        let (_directory, path) = log(None);
        let text = fs::read_to_string(&path).unwrap();
        let first: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        let mut bytes = vec![0; 32];
        bytes.extend_from_slice(br#"{"at":7,"n":1,"result":"verified","uid":"a"}"#);
        assert_eq!(first["hash"], hex(&Sha256::digest(&bytes)));
        assert!(first.get("hmac").is_none());
    }

    #[test]
    fn the_last_result_of_each_operation_of_a_run_is_told() {
        let directory = tempfile::TempDir::new().unwrap();
        let path = directory.path().join("audit.jsonl");
        assert!(results(&path, "r1").unwrap().is_empty());
        let mut audit = Audit::open(&path, None).unwrap();
        for (run, what, number, result) in [
            ("r1", "operation", 1, "unknown"),
            ("r0", "operation", 2, "done"),
            ("r1", "begin", 3, "x"),
            ("r1", "operation", 1, "done"),
        ] {
            let entry = json!({ "run": run, "what": what, "operation": number, "result": result });
            audit.add(7, entry.as_object().cloned().unwrap()).unwrap();
        }
        assert_eq!(results(&path, "r1").unwrap(), BTreeMap::from([(1, "done".to_owned())]));
    }

    #[test]
    fn tampering_is_told_with_the_line() {
        for key in [None, Some("hunter2")] {
            let (_directory, path) = log(key);
            let secret = key.map(SecretString::from);
            let whole = fs::read_to_string(&path).unwrap();
            assert!(!whole.contains("hunter2"));
            let found = verify(&path, secret.as_ref()).unwrap().unwrap();
            assert_eq!((found.head.entries, found.keyed), (3, if key.is_some() { 3 } else { 0 }));
            let lines: Vec<&str> = whole.lines().collect();
            for (damaged, line) in [
                (whole.replace("\"uid\":\"b\"", "\"uid\":\"x\""), 2),
                (format!("{}\n{}\n", lines[0], lines[2]), 2),
                (format!("{}\n{}\n{}\n", lines[1], lines[0], lines[2]), 1),
                (format!("{}\n{}\n", lines[1], lines[2]), 1),
                (format!("{whole}{}\n", lines[2]), 4),
                (whole.replace("verified", "failed"), 1),
            ] {
                fs::write(&path, &damaged).unwrap();
                let error = verify(&path, secret.as_ref()).unwrap_err().to_string();
                assert!(error.contains(&format!("line {line} ")), "{error}\n{damaged}");
                assert!(Audit::open(&path, secret.clone()).is_err(), "nothing is added to it");
            }
        }
    }

    #[test]
    fn a_chain_without_the_key_is_told() {
        let (_directory, path) = log(Some("hunter2"));
        assert!(verify(&path, Some(&SecretString::from("other"))).unwrap_err().to_string().contains("HMAC"));
        let (_other, forged) = log(None);
        let forged = fs::read_to_string(forged).unwrap();
        let whole = fs::read_to_string(&path).unwrap();
        let first = whole.lines().next().unwrap();
        let rest: Vec<&str> = forged.lines().skip(1).collect();
        fs::write(&path, format!("{first}\n{}\n", rest.join("\n"))).unwrap();
        assert!(verify(&path, None).unwrap_err().to_string().contains("no HMAC"));
    }

    #[test]
    fn with_a_key_a_chain_without_any_hmac_is_damaged() {
        let (_directory, path) = log(None);
        let error = verify(&path, Some(&SecretString::from("hunter2"))).unwrap_err().to_string();
        assert!(
            error.contains("line 1 ") && error.contains("no HMAC") && error.contains("new log"),
            "{error}"
        );
        assert!(Audit::open(&path, Some(SecretString::from("hunter2"))).is_err());
    }

    #[test]
    fn a_line_that_is_not_spelled_as_it_was_written_is_damaged() {
        let (_directory, path) = log(None);
        let whole = fs::read_to_string(&path).unwrap();
        for other in [
            whole.replacen("\"uid\":\"a\"", "\"uid\":\"x\",\"uid\":\"a\"", 1),
            whole.replacen("{\"entry\"", "{ \"entry\"", 1),
        ] {
            fs::write(&path, &other).unwrap();
            let error = verify(&path, None).unwrap_err().to_string();
            assert!(error.contains("line 1 "), "{error}");
        }
    }

    #[test]
    fn an_empty_log_of_another_host_is_none_that_was_cut_off() {
        let (_directory, path) = log(None);
        let head = verify(&path, None).unwrap().unwrap().head;
        let empty = Verified::default().agrees(&path, &head).unwrap_err();
        let seen = |there: Option<&str>| empty.clone().seen_from("b:/state/rig", there).to_string();
        let told = seen(Some("a:/state/rig"));
        for word in ["kept elsewhere", "3 entries", "a:/state/rig", "bring that directory"] {
            assert!(told.contains(word), "{told}");
        }
        assert!(seen(None).contains("kept elsewhere"));
        assert!(seen(Some("b:/state/rig")).contains("its end was cut off"));
        let cut = Disagreement::Truncated { path, have: 2, known: 3 };
        assert_eq!(cut.clone().seen_from("b:/state/rig", None), cut);
    }

    #[test]
    fn a_cut_or_new_log_disagrees_with_the_head_that_is_kept_elsewhere() {
        let (_directory, path) = log(None);
        let head = verify(&path, None).unwrap().unwrap().head;
        let whole = fs::read_to_string(&path).unwrap();
        let two: Vec<&str> = whole.lines().take(2).collect();
        fs::write(&path, format!("{}\n", two.join("\n"))).unwrap();
        let cut = verify(&path, None).unwrap().unwrap();
        assert!(matches!(cut.agrees(&path, &head), Err(Disagreement::Truncated { have: 2, known: 3, .. })));
        // The graph may be behind.
        assert_eq!(cut.agrees(&path, &Head { entries: 1, hash: cut.hashes[0].clone() }), Ok(()));
        assert_eq!(cut.agrees(&path, &Head::default()), Ok(()));
        fs::remove_file(&path).unwrap();
        for uid in ["x", "y", "z"] {
            Audit::open(&path, None).unwrap().add(7, entry(uid)).unwrap();
        }
        let anew = verify(&path, None).unwrap().unwrap();
        assert!(matches!(anew.agrees(&path, &head), Err(Disagreement::Rewritten { known: 3, .. })));
    }
}
