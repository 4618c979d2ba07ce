//! One request's path, with what limits and errors need to know about it.

use std::borrow::Cow;
use std::fmt::{self, Display};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::error::{ApiError, ErrorKind};

/// What a path segment or query value may hold unencoded: RFC 3986's unreserved characters and `!`, which
/// PVE's own web interface leaves alone as well.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'!');

/// A path below `/api2/json`, its query, the operation it serves and the node that will answer it.
///
/// ```
/// use pve_client::ApiPath;
/// let path = ApiPath::new("read guest config").node("pve1").segment("qemu").segment(100).segment("config");
/// assert_eq!(path.to_string(), "/nodes/pve1/qemu/100/config");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiPath {
    operation: Cow<'static, str>,
    segments: Vec<String>,
    query: Vec<(String, String)>,
    node: Option<String>,
}

impl ApiPath {
    /// An empty path. `operation` completes the sentence "cannot …" and starts with a verb.
    #[must_use]
    pub fn new(operation: impl Into<Cow<'static, str>>) -> Self {
        Self { operation: operation.into(), segments: Vec::new(), query: Vec::new(), node: None }
    }

    /// Appends the segments of a fixed path such as `/cluster/resources`. Names and ids go through
    /// [`ApiPath::segment`], since they may hold a slash.
    #[must_use]
    pub fn fixed(mut self, path: &str) -> Self {
        self.segments.extend(path.split('/').filter(|segment| !segment.is_empty()).map(str::to_owned));
        self
    }

    /// Appends one segment, whatever characters it holds.
    #[must_use]
    pub fn segment(mut self, segment: impl Display) -> Self {
        self.segments.push(segment.to_string());
        self
    }

    /// Appends `/nodes/{name}` and counts the request against that node's limits.
    #[must_use]
    pub fn node(mut self, name: &str) -> Self {
        self.segments.push("nodes".to_owned());
        self.segments.push(name.to_owned());
        self.node = Some(name.to_owned());
        self
    }

    /// Adds a query parameter.
    #[must_use]
    pub fn query(mut self, name: &str, value: impl Display) -> Self {
        self.query.push((name.to_owned(), value.to_string()));
        self
    }

    /// What the request is for.
    #[must_use]
    pub fn operation(&self) -> &str {
        &self.operation
    }

    /// The node whose limits the request counts against.
    #[must_use]
    pub fn node_name(&self) -> Option<&str> {
        self.node.as_deref()
    }

    /// The encoded path and query, with the leading slash.
    ///
    /// # Errors
    /// An empty segment, `.` or `..` would lead elsewhere.
    pub(crate) fn target(&self) -> Result<String, ApiError> {
        let mut target = String::new();
        for segment in &self.segments {
            if segment.is_empty() || segment == "." || segment == ".." {
                let text = format!("'{segment}' cannot be part of an API path");
                return Err(self.error(None, ErrorKind::Config(text)));
            }
            target.push('/');
            target.extend(utf8_percent_encode(segment, ENCODED));
        }
        for (index, (name, value)) in self.query.iter().enumerate() {
            target.push(if index == 0 { '?' } else { '&' });
            target.extend(utf8_percent_encode(name, ENCODED));
            target.push('=');
            target.extend(utf8_percent_encode(value, ENCODED));
        }
        Ok(target)
    }

    pub(crate) fn error(&self, endpoint: Option<&str>, kind: ErrorKind) -> ApiError {
        ApiError::new(self.operation.clone(), self.to_string(), endpoint, kind)
    }
}

/// The path as a reader writes it: not encoded, without the query.
impl Display for ApiPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.segments.iter().try_for_each(|segment| write!(f, "/{segment}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_and_values_are_encoded() {
        let path = ApiPath::new("read volume")
            .node("pve1")
            .fixed("storage")
            .segment("a b")
            .fixed("/content/")
            .segment("local:iso/ü&?#%2F.iso")
            .query("user id", "root@pam!x+y");
        assert_eq!(
            path.target().unwrap(),
            "/nodes/pve1/storage/a%20b/content/local%3Aiso%2F%C3%BC%26%3F%23%252F.iso?user%20id=root%40pam!x%2By"
        );
        assert_eq!(path.to_string(), "/nodes/pve1/storage/a b/content/local:iso/ü&?#%2F.iso");
        assert_eq!(path.node_name(), Some("pve1"));
    }

    #[test]
    fn segments_that_lead_elsewhere_are_refused() {
        for segment in ["", ".", ".."] {
            let error = ApiPath::new("read pool").fixed("/pools").segment(segment).target().unwrap_err();
            assert!(error.is_config(), "{segment}");
        }
    }
}
