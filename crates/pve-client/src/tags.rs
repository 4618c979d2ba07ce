//! The tags of a guest.

use std::convert::Infallible;
use std::fmt;
use std::ops::Deref;
use std::str::FromStr;

/// The tags of a guest in the order in which PVE keeps them. PVE separates them by `;`, older configurations and
/// users also by `,` and white space. A guest whose tags were removed keeps one blank, which is no tag.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tags(Vec<String>);

impl Tags {
    /// The tags as a list.
    pub fn into_vec(self) -> Vec<String> {
        self.0
    }
}

impl FromStr for Tags {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        let separator = |c: char| c == ';' || c == ',' || c.is_whitespace();
        Ok(Self(text.split(separator).filter(|tag| !tag.is_empty()).map(str::to_owned).collect()))
    }
}

impl fmt::Display for Tags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, tag) in self.0.iter().enumerate() {
            if place > 0 {
                f.write_str(";")?;
            }
            f.write_str(tag)?;
        }
        Ok(())
    }
}

impl Deref for Tags {
    type Target = [String];

    fn deref(&self) -> &[String] {
        &self.0
    }
}

/// Takes the texts apart at separators like [`Tags::from_str`], so that what is written is read back equal.
impl<S: AsRef<str>> FromIterator<S> for Tags {
    fn from_iter<I: IntoIterator<Item = S>>(texts: I) -> Self {
        let mut tags = Vec::new();
        for text in texts {
            let Ok(Self(more)) = text.as_ref().parse();
            tags.extend(more);
        }
        Self(tags)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn list(text: &str) -> Vec<String> {
        let Ok(tags) = text.parse::<Tags>();
        tags.into_vec()
    }

    #[test]
    fn separators_and_order() {
        assert_eq!(list("web;x"), ["web", "x"]);
        assert_eq!(list("zeta;alpha"), ["zeta", "alpha"]);
        assert_eq!(list("a,b c;;d\n"), ["a", "b", "c", "d"]);
        assert_eq!(list(" "), Vec::<String>::new());
        assert_eq!(list(""), Vec::<String>::new());
    }

    proptest! {
        #[test]
        fn tags_come_back(text in "\\PC*|[a-z;, ]{0,30}") {
            let Ok(tags) = text.parse::<Tags>();
            let Ok(again) = tags.to_string().parse::<Tags>();
            prop_assert_eq!(&again, &tags);
            prop_assert_eq!(tags.iter().collect::<Tags>(), tags);
        }
    }
}
