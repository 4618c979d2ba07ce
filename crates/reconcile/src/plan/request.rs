//! The calls of an operation as they will be sent: plain data, without what may be secret.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use pve_client::ApiPath;
use pvegraph_inventory::GuestType;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::merge::merged;
use crate::canonical::hex;
use crate::desired::Guest;
use crate::document::SecretRef;
use crate::live::LiveGuest;
use crate::marker;

/// The verb of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    /// `PUT`.
    Put,
    /// `POST`.
    Post,
    /// `DELETE`; its parameters go into the query.
    Delete,
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Put => "PUT",
            Self::Post => "POST",
            Self::Delete => "DELETE",
        })
    }
}

/// One call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The verb.
    pub method: Method,
    /// The path below `/api2/json`: `/nodes/pve1/qemu/100/config`. No segment of it holds a slash.
    pub path: String,
    /// Parameters by name. A property string is the live one with what changes: hardware address, volume and options that
    /// nobody desires stay.
    #[serde(default)]
    pub set: BTreeMap<String, FormValue>,
    /// Options to remove: sent as the parameter `delete`, joined by commas.
    #[serde(default)]
    pub delete: BTreeSet<String>,
    /// The configuration's digest is sent too: the operation's, or for a later call the one that was read after the call
    /// before.
    #[serde(default)]
    pub with_digest: bool,
}

/// A parameter's value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum FormValue {
    /// As PVE's API takes it, before it is form-encoded.
    Plain(String),
    /// Free text, which may hold a secret, and is not in the plan.
    Hidden(Hidden),
    /// Options that are written onto the property string that the guest has when it is sent: of what is made only now nobody knows it yet.
    Onto(Onto),
    /// A secret, read from where it is when it is sent.
    Secret {
        /// Where it is.
        secret: SecretRef,
    },
}

/// Free text that is looked up again when it is sent, and must be the same then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hidden {
    /// Where it is from.
    pub hidden: Origin,
    /// The marker's last line, which follows the text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trailer: Option<String>,
    /// SHA-256 of all that is sent.
    pub sha256: String,
}

/// What changes of a property string.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Onto {
    /// Options that are set.
    pub onto: BTreeMap<String, String>,
    /// Options that go.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub without: BTreeSet<String>,
}

impl Onto {
    pub(super) fn new(onto: BTreeMap<String, String>, without: &BTreeSet<&str>) -> Self {
        Self { onto, without: without.iter().map(|name| (*name).to_owned()).collect() }
    }

    /// The string as it is sent; nothing where the guest's is not understood.
    pub fn written(&self, guest: GuestType, key: &str, live: &str) -> Option<String> {
        let set = self.onto.iter().map(|(name, value)| (name.as_str(), value)).collect();
        merged(guest, key, live, &set, &self.without.iter().map(String::as_str).collect())
    }
}

/// Whose text it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// The desired one.
    Desired,
    /// The one that the guest has.
    Live,
}

/// Why a call can't be sent as it was planned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unresolved {
    /// The text is another one than was planned.
    #[error("`{0}`: its text was changed since the plan was made: plan again")]
    Changed(String),
    /// There is nothing that it could be written onto.
    #[error("`{0}`: the guest has not what it was expected to have there: plan again")]
    Onto(String),
    /// A secret can't be read.
    #[error("`{0}`: {1}")]
    Secret(String, String),
}

impl Request {
    /// The node that the call takes the guest to.
    pub fn target(&self) -> Option<&str> {
        if self.method != Method::Post || !self.path.ends_with("/migrate") {
            return None;
        }
        match self.set.get("target") {
            Some(FormValue::Plain(target)) => Some(target),
            _ => None,
        }
    }

    /// A call without parameters.
    pub fn new(method: Method, path: impl Into<String>) -> Self {
        Self { method, path: path.into(), set: BTreeMap::new(), delete: BTreeSet::new(), with_digest: false }
    }

    /// The same call with one more parameter.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.set.insert(name.to_owned(), FormValue::Plain(value.into()));
        self
    }

    /// The same call with the configuration's digest.
    #[must_use]
    pub fn guarded(mut self) -> Self {
        self.with_digest = true;
        self
    }

    /// The path for the client. `operation` completes the sentence "cannot …".
    pub fn api_path(&self, operation: &str) -> ApiPath {
        let path = ApiPath::new(operation.to_owned());
        match self.path.strip_prefix("/nodes/").and_then(|rest| rest.split_once('/')) {
            Some((node, rest)) => path.node(node).fixed(rest),
            None => path.fixed(&self.path),
        }
    }

    /// The parameters as they are sent, `delete` and the digest among them. `desired` and `live` are the guest's, as they are now;
    /// `secret` reads a secret.
    ///
    /// # Errors
    /// A text changed since, or a secret can't be read. The text itself is never in the error.
    pub fn form(
        &self,
        digest: Option<&str>,
        desired: &Guest,
        live: Option<&LiveGuest>,
        secret: impl Fn(&SecretRef) -> Result<String, String>,
    ) -> Result<BTreeMap<String, String>, Unresolved> {
        let mut form = BTreeMap::new();
        for (name, value) in &self.set {
            let text = match value {
                FormValue::Plain(text) => text.clone(),
                FormValue::Secret { secret: from } => {
                    secret(from).map_err(|error| Unresolved::Secret(name.clone(), error))?
                }
                FormValue::Onto(onto) => {
                    let has = live.and_then(|live| live.config.get(name));
                    let text = has.and_then(|has| onto.written(desired.kind, name, has));
                    text.ok_or_else(|| Unresolved::Onto(name.clone()))?
                }
                FormValue::Hidden(hidden) => {
                    let text = match hidden.hidden {
                        Origin::Desired => desired.fields.get(name).map(ToString::to_string),
                        Origin::Live => live.and_then(|live| live.config.get(name)).cloned(),
                    };
                    let text = hidden.whole(&text.unwrap_or_default());
                    if hash(&text) != hidden.sha256 {
                        return Err(Unresolved::Changed(name.clone()));
                    }
                    text
                }
            };
            form.insert(name.clone(), text);
        }
        if !self.delete.is_empty() {
            form.insert("delete".to_owned(), self.delete.iter().cloned().collect::<Vec<_>>().join(","));
        }
        if let Some(digest) = digest.filter(|_| self.with_digest) {
            form.insert("digest".to_owned(), digest.to_owned());
        }
        Ok(form)
    }
}

impl Hidden {
    /// The text of this origin, with the trailer behind it.
    pub fn new(from: Origin, text: &str, trailer: Option<String>) -> Self {
        let mut hidden = Self { hidden: from, trailer, sha256: String::new() };
        hidden.sha256 = hash(&hidden.whole(text));
        hidden
    }

    fn whole(&self, text: &str) -> String {
        match &self.trailer {
            // The guest's own text may end with another marker.
            Some(trailer) => marker::appended(marker::without_trailer(text), trailer),
            None => text.to_owned(),
        }
    }
}

fn hash(text: &str) -> String {
    hex(&Sha256::digest(text.as_bytes()))
}

/// As a reader sees it: nothing that is hidden.
impl fmt::Display for FormValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(text) => f.write_str(text),
            Self::Hidden(hidden) => {
                write!(f, "(a text, sha256 {})", hidden.sha256.get(..12).unwrap_or_default())
            }
            Self::Onto(Onto { onto, without }) => {
                f.write_str("(as it is)")?;
                onto.iter().try_for_each(|(name, value)| write!(f, ",{name}={value}"))?;
                without.iter().try_for_each(|name| write!(f, ",-{name}"))
            }
            Self::Secret { .. } => f.write_str("(a secret)"),
        }
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.path)?;
        for (name, value) in &self.set {
            // A snapshot's words stand in the plan's file alone: nothing else has them when it is taken.
            if name == "description" && self.path.ends_with("/snapshot") {
                write!(f, " {name}=(a text)")?;
            } else {
                write!(f, " {name}={value}")?;
            }
        }
        for name in &self.delete {
            write!(f, " -{name}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::canonical::Canonical;

    fn request() -> Request {
        let mut request =
            Request::new(Method::Put, "/nodes/pve1/qemu/100/config").with("cores", "4").guarded();
        let text = Hidden::new(Origin::Desired, "hunter2", Some("[pvegraph:rig/web]".to_owned()));
        request.set.insert("description".to_owned(), FormValue::Hidden(text));
        let secret = SecretRef::File("/run/secret".to_owned());
        request.set.insert("cipassword".to_owned(), FormValue::Secret { secret });
        request.delete.insert("balloon".to_owned());
        request
    }

    #[test]
    fn it_comes_back_from_its_json_and_shows_no_secret() {
        let request = request();
        let json = json!(request);
        assert_eq!(serde_json::from_value::<Request>(json.clone()).unwrap(), request);
        assert!(
            !json.to_string().contains("hunter2") && !request.to_string().contains("hunter2"),
            "{request}"
        );
        assert_eq!(request.api_path("configure").node_name(), Some("pve1"));
        assert_eq!(request.api_path("configure").to_string(), request.path);
        let mut odd = json;
        odd["set"]["description"]["more"] = json!(1);
        assert!(serde_json::from_value::<Request>(odd).is_err());
    }

    #[test]
    fn what_is_hidden_is_looked_up_again_and_must_be_the_same() {
        let mut guest = Guest::new("web", GuestType::Qemu);
        guest.fields.insert("description".to_owned(), Canonical::Text("hunter2".to_owned()));
        let form = |guest: &Guest, secret: Result<&str, &str>| {
            request().form(Some("abc"), guest, None, |_| secret.map(str::to_owned).map_err(str::to_owned))
        };
        let sent = form(&guest, Ok("pass")).unwrap();
        assert_eq!(sent["description"], "hunter2\n\n[pvegraph:rig/web]");
        assert_eq!((&*sent["cipassword"], &*sent["digest"], &*sent["delete"]), ("pass", "abc", "balloon"));
        assert!(form(&guest, Err("no such file")).unwrap_err().to_string().contains("no such file"));
        guest.fields.insert("description".to_owned(), Canonical::Text("other".to_owned()));
        let error = form(&guest, Ok("pass")).unwrap_err();
        assert_eq!(error, Unresolved::Changed("description".to_owned()));
        assert!(error.to_string().contains("plan again"));
    }
}
