//! Lenient reading of PVE's JSON.
//!
//! PVE writes a boolean as `0`, `1`, `"0"`, `"1"` or `""`, and a number at times as a string. A field that is not of its
//! type is left out and noted as an [`Oddity`]; an entry that lacks what it cannot do without is left out alone, and
//! its list goes on. So one odd guest never hides the others. `null` means absent. Keys that nobody asks for are no
//! oddity, since a newer PVE adds some; [`unread`] lists them.

mod scalars;
mod tables;
#[cfg(test)]
mod tests;

pub use scalars::CommaList;
pub(crate) use tables::{answer, rows_by_type};

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::malformed::quote;
use crate::property::Property;

/// An answer, and what in it could not be understood.
#[derive(Clone, Debug, PartialEq)]
pub struct Read<T> {
    /// What was understood.
    pub value: T,
    /// What was not.
    pub oddities: Vec<Oddity>,
}

/// One value in an answer that is not what it should be. It never holds a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Oddity {
    /// What was asked for: the request's path, shared by all oddities of one answer.
    pub subject: Arc<str>,
    /// Where in the answer, such as `[vmid=101].net0`; empty for the answer itself.
    pub place: String,
    /// The key whose value is odd, where it has one.
    pub key: Option<String>,
    /// What was expected there.
    pub expected: String,
    /// What was found: its kind, and the value if it is short and cannot be a secret.
    pub found: String,
    /// How much of the answer is lost by it.
    pub lost: Lost,
}

/// How much an [`Oddity`] costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// One field, or one option of a property string.
    Field,
    /// A whole entry of a list.
    Entry,
    /// The whole answer.
    Answer,
}

impl fmt::Display for Oddity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { subject, place, key, expected, found, lost } = self;
        f.write_str(subject)?;
        if !place.is_empty() {
            write!(f, ", {place}")?;
        }
        if let Some(key) = key {
            write!(f, ", key `{key}`")?;
        }
        let lost = match lost {
            Lost::Field => "the value is left out",
            Lost::Entry => "the entry is left out",
            Lost::Answer => "the answer cannot be used",
        };
        write!(f, ": expected {expected}, found {found}; {lost}")
    }
}

impl std::error::Error for Oddity {}

/// Reads the `data` of an answer to `subject`, the request's path.
///
/// # Errors
/// The answer as a whole is not of its type, a list for instance where an object is expected.
pub fn read<T: Wire>(subject: &str, data: &Value) -> Result<Read<T>, Oddity> {
    let mut reader = Reader { subject: subject.into(), ..Reader::default() };
    match T::read(data, &mut reader) {
        Ok(value) => Ok(Read { value, oddities: reader.oddities }),
        Err(mismatch) => Err(reader.oddity(None, data, mismatch, Lost::Answer)),
    }
}

/// The keys of an answer that this version does not read, as patterns such as `[].blockstat`.
///
/// # Errors
/// As [`read`].
pub fn unread<T: Wire>(subject: &str, data: &Value) -> Result<BTreeSet<String>, Oddity> {
    let mut reader = Reader { subject: subject.into(), unread: Some(BTreeSet::new()), ..Reader::default() };
    match T::read(data, &mut reader) {
        Ok(_) => Ok(reader.unread.unwrap_or_default()),
        Err(mismatch) => Err(reader.oddity(None, data, mismatch, Lost::Answer)),
    }
}

/// A value is not of the type that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// What is asked for, as a noun with its article.
    pub expected: Cow<'static, str>,
    /// What was found, where that is not the value itself.
    pub found: Option<String>,
}

impl Mismatch {
    /// The value itself is not `expected`.
    pub fn new(expected: impl Into<Cow<'static, str>>) -> Self {
        Self { expected: expected.into(), found: None }
    }
}

/// What can stand in PVE's JSON.
pub trait Wire: Sized {
    /// Reads the value, noting in `reader` what inside of it is odd.
    ///
    /// # Errors
    /// The value as a whole is not of this type.
    fn read(value: &Value, reader: &mut Reader) -> Result<Self, Mismatch>;

    /// The value as PVE writes it.
    fn write(&self) -> Value;
}

/// What is an object in PVE's JSON.
pub trait Object: Sized {
    /// Is it a key that this type reads, or leaves out on purpose?
    fn knows(key: &str) -> bool;

    /// Reads the object.
    ///
    /// # Errors
    /// A required key is absent or not of its type.
    fn read_object(object: &Map<String, Value>, reader: &mut Reader) -> Result<Self, Mismatch>;

    /// The object as PVE writes it.
    fn write_object(&self) -> Map<String, Value>;
}

/// What a numbered key (`net0`) names.
pub trait Slot: Ord + Sized {
    /// The slot of this key, if it is of this kind. Most keys are not, so that saying no has to cost nothing.
    fn of(key: &str) -> Option<Self>;
}

/// One step into an answer. An answer has many more steps than oddities, so that making one allocates nothing where it can.
#[derive(Debug)]
pub(crate) struct Step {
    /// As a pattern: `net0`, `[]`.
    pattern: Cow<'static, str>,
    /// As a message shows it, where that is not the pattern.
    shown: Option<String>,
}

impl Step {
    /// Into an entry that has no name yet; see [`Reader::entry`].
    pub(crate) fn nameless(pattern: &'static str) -> Self {
        Self { pattern: Cow::Borrowed(pattern), shown: None }
    }

    fn shown(&self) -> &str {
        self.shown.as_deref().unwrap_or(&self.pattern)
    }
}

impl From<Cow<'static, str>> for Step {
    fn from(key: Cow<'static, str>) -> Self {
        Self { pattern: key, shown: None }
    }
}

/// Notes what is odd, and where.
#[derive(Debug, Default)]
pub struct Reader {
    subject: Arc<str>,
    /// The way into the answer.
    steps: Vec<Step>,
    oddities: Vec<Oddity>,
    /// The keys of the object being read that lead to each oddity; as many as there are oddities.
    roots: Vec<Vec<String>>,
    /// Keys that nobody reads, where they are asked for.
    unread: Option<BTreeSet<String>>,
}

/// A moment in reading: see [`Reader::keys_since`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    oddities: usize,
    depth: usize,
}

impl Reader {
    /// The start of an object.
    pub(crate) fn mark(&self) -> Mark {
        Mark { oddities: self.oddities.len(), depth: self.steps.len() }
    }

    /// The keys of the object that began there under which something odd was noted.
    pub(crate) fn keys_since(&self, Mark { oddities, depth }: Mark) -> Vec<String> {
        let keys: BTreeSet<&String> =
            self.roots.iter().skip(oddities).filter_map(|root| root.get(depth)).collect();
        keys.into_iter().cloned().collect()
    }

    /// The value of `key`, if it is there and of its type.
    pub fn optional<T: Wire>(&mut self, object: &Map<String, Value>, key: &'static str) -> Option<T> {
        let value = object.get(key).filter(|value| !value.is_null())?;
        self.field(Cow::Borrowed(key), key, value)
    }

    fn field<T: Wire>(&mut self, step: Cow<'static, str>, key: &str, value: &Value) -> Option<T> {
        match self.step(step.into(), |reader| T::read(value, reader)) {
            Ok(read) => Some(read),
            Err(mismatch) => {
                self.odd(Some(key), value, mismatch, Lost::Field);
                None
            }
        }
    }

    /// The value of `key`.
    ///
    /// # Errors
    /// It is absent or not of its type.
    pub fn required<T: Wire>(
        &mut self,
        object: &Map<String, Value>,
        key: &'static str,
    ) -> Result<T, Mismatch> {
        let Some(value) = object.get(key).filter(|value| !value.is_null()) else {
            return Err(Mismatch {
                expected: format!("the key `{key}`").into(),
                found: Some("no such key".to_owned()),
            });
        };
        self.step(Cow::Borrowed(key).into(), |reader| T::read(value, reader)).map_err(|mismatch| {
            let found = mismatch.found.unwrap_or_else(|| describe(Some(key), value));
            Mismatch { expected: format!("in `{key}` {}", mismatch.expected).into(), found: Some(found) }
        })
    }

    /// The numbered keys (`net0`, `net1`, …) whose names are slots of the kind `S`.
    pub fn slots<S, T>(&mut self, object: &Map<String, Value>) -> BTreeMap<S, T>
    where
        S: Slot,
        T: Wire,
    {
        let mut found = BTreeMap::new();
        for (key, value) in object.iter().filter(|(_, value)| !value.is_null()) {
            if let Some(slot) = S::of(key)
                && let Some(value) = self.field(Cow::Owned(key.clone()), key, value)
            {
                found.insert(slot, value);
            }
        }
        found
    }

    /// Reads an entry of a list or map, one step further into the answer; an odd one is noted and left out. The entry is only named
    /// where something in it is odd, and then read once more.
    pub(crate) fn entry<T: Wire>(
        &mut self,
        pattern: &'static str,
        name: impl FnOnce() -> String,
        value: &Value,
    ) -> Option<T> {
        let noted = self.oddities.len();
        let read = self.step(Step::nameless(pattern), |reader| T::read(value, reader));
        if self.oddities.len() == noted
            && let Ok(read) = read
        {
            return Some(read);
        }
        self.oddities.truncate(noted);
        self.roots.truncate(noted);
        let step = Step { pattern: Cow::Borrowed(pattern), shown: Some(name()) };
        self.step(step, |reader| match T::read(value, reader) {
            Ok(read) => Some(read),
            Err(mismatch) => {
                reader.odd(None, value, mismatch, Lost::Entry);
                None
            }
        })
    }

    /// Lists the keys of which `knows` says no, where they are asked for.
    pub fn note_unread(&mut self, object: &Map<String, Value>, knows: impl Fn(&str) -> bool) {
        let Some(unread) = &mut self.unread else { return };
        for key in object.iter().filter(|(key, value)| !value.is_null() && !knows(key)).map(|(key, _)| key) {
            let mut pattern: String =
                self.steps.iter().map(|step| step.pattern.as_ref()).collect::<Vec<_>>().join(".");
            if !pattern.is_empty() {
                pattern.push('.');
            }
            pattern.push_str(key);
            unread.insert(pattern);
        }
    }

    /// Notes that the value of `key` is odd.
    pub fn odd(&mut self, key: Option<&str>, value: &Value, mismatch: Mismatch, lost: Lost) {
        let oddity = self.oddity(key, value, mismatch, lost);
        let steps = self.steps.iter().map(Step::shown);
        self.roots.push(steps.chain(key).map(str::to_owned).collect());
        self.oddities.push(oddity);
    }

    /// Does something one step further into the answer.
    fn step<R>(&mut self, step: Step, work: impl FnOnce(&mut Self) -> R) -> R {
        self.steps.push(step);
        let result = work(self);
        self.steps.pop();
        result
    }

    fn oddity(&self, key: Option<&str>, value: &Value, mismatch: Mismatch, lost: Lost) -> Oddity {
        let inside = key.or_else(|| self.steps.last().map(Step::shown));
        let found = mismatch.found.unwrap_or_else(|| describe(inside, value));
        let place = self.steps.iter().map(Step::shown).collect::<Vec<_>>().join(".");
        Oddity {
            subject: Arc::clone(&self.subject),
            place,
            key: key.map(str::to_owned),
            expected: mismatch.expected.into_owned(),
            found,
            lost,
        }
    }
}

/// May the value of this key be a secret, or hold one in free text?
pub fn may_hold_secret(key: &str) -> bool {
    const PARTS: [&str; 7] = ["password", "passwd", "secret", "sshkey", "ticket", "csrf", "private"];
    const WHOLE: [&str; 6] = ["description", "notes", "args", "keyring", "encryption-key", "value"];
    let key = key.to_ascii_lowercase();
    WHOLE.contains(&key.as_str()) || PARTS.iter().any(|part| key.contains(part))
}

fn describe(key: Option<&str>, value: &Value) -> String {
    let hidden = key.is_some_and(may_hold_secret);
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) | Value::Number(_) if hidden => "a value that is not shown".to_owned(),
        Value::Bool(truth) => truth.to_string(),
        Value::Number(number) => format!("the number {number}"),
        Value::String(_) if hidden => "a text that is not shown".to_owned(),
        Value::String(text) => format!("the text {}", quote(text)),
        Value::Array(items) => format!("a list of {}", items.len()),
        Value::Object(object) => format!("an object with {} keys", object.len()),
    }
}

/// Reads a property string; an odd option in it is noted, and the rest of it is read.
pub(crate) fn read_property<T: Property>(value: &Value, reader: &mut Reader) -> Result<T, Mismatch> {
    let text = String::read(value, reader)?;
    let (read, odd) = T::read_leniently(&text)
        .map_err(|problem| Mismatch { expected: problem.expected.into(), found: Some(problem.found) })?;
    for option in odd {
        let mismatch =
            Mismatch { expected: option.problem.expected.into(), found: Some(option.problem.found) };
        reader.odd(Some(option.key), &Value::Null, mismatch, Lost::Field);
    }
    Ok(read)
}

/// Reads an object whose keys `T` knows, and lists the others.
pub(crate) fn read_whole<T: Object>(value: &Value, reader: &mut Reader) -> Result<T, Mismatch> {
    let object = value.as_object().ok_or_else(|| Mismatch::new("an object"))?;
    let read = T::read_object(object, reader)?;
    reader.note_unread(object, T::knows);
    Ok(read)
}
