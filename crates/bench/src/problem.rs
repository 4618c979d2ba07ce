//! Why nothing could be measured.

/// A sentence for whoever started the bench, with its mend.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Problem(String);

impl Problem {
    /// A problem in words.
    pub fn new(words: impl Into<String>) -> Self {
        Self(words.into())
    }
}

/// `map_err` with what was being done.
pub trait While<T> {
    /// Says what failed.
    ///
    /// # Errors
    /// The same as before, in words.
    fn when(self, doing: &str) -> Result<T, Problem>;
}

impl<T, E: std::error::Error> While<T> for Result<T, E> {
    fn when(self, doing: &str) -> Result<T, Problem> {
        self.map_err(|error| {
            let mut text = format!("{doing}: {error}");
            let mut cause = error.source();
            while let Some(error) = cause {
                text.push_str(&format!(": {error}"));
                cause = error.source();
            }
            Problem(text)
        })
    }
}
