//! The one error of every `FromStr` in this crate.

/// The longest piece of a foreign text that a message shows.
const SHOWN: usize = 48;

/// A text that does not have the form that its type asks for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}, found {found}")]
pub struct Malformed {
    /// What the type asks for, as a noun with its article.
    pub expected: &'static str,
    /// What was there: shortened, control characters escaped.
    pub found: String,
}

impl Malformed {
    /// Says that `text` is not `expected`.
    pub fn new(expected: &'static str, text: &str) -> Self {
        Self { expected, found: quote(text) }
    }
}

/// A foreign text as a message may show it: quoted, escaped, shortened.
pub(crate) fn quote(text: &str) -> String {
    let mut shown: String = text.chars().take(SHOWN).flat_map(char::escape_debug).collect();
    if text.chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    format!("\"{shown}\"")
}
