//! What kinds of values there are.

use pve_client::Size;
use pve_client::property::MacAddr;

use super::{Canonical, TagStyle, property, scalars};

/// The kind of an option's value.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// `0`, `1`, `on`, `yes`, …
    Bool,
    /// A whole number.
    Integer,
    /// A number with decimals.
    Decimal,
    /// A size such as `32G`.
    Size,
    /// A text.
    Text,
    /// A text without its trailing line feeds; it may hold secrets and is never shown.
    Description,
    /// A hardware address.
    Mac,
    /// The guest's tags.
    Tags,
    /// Words, with what separates them.
    Set(char),
    /// Words in their order, with what separates them.
    List(char),
    /// What can be plugged while the guest runs.
    Hotplug,
    /// SSH public keys.
    SshKeys,
    /// A secret.
    Secret,
    /// A property string.
    Property(&'static Format),
    /// The property string of a machine's network interface, whose model may stand as a key.
    Nic(&'static Format),
}

/// The options of one kind of property string.
#[derive(Debug)]
pub struct Format {
    /// Its name in the document's schema.
    pub name: &'static str,
    /// The option whose name may be left out.
    pub default: Option<&'static str>,
    /// Its options; others are texts.
    pub subs: &'static [Sub],
}

/// One option of a property string.
#[derive(Debug)]
pub struct Sub {
    /// Its name.
    pub name: &'static str,
    /// Its kind; never a property string.
    pub kind: Kind,
    /// Another name of it.
    pub alias: Option<&'static str>,
}

impl Format {
    /// The option of this name or alias.
    pub fn sub(&self, name: &str) -> Option<&'static Sub> {
        self.subs.iter().find(|sub| sub.name == name || sub.alias == Some(name))
    }
}

impl Kind {
    /// Reads a value of this kind; what is none stays as it is.
    pub fn read(self, text: &str, style: TagStyle) -> Canonical {
        let read = match self {
            Self::Bool => scalars::boolean(text),
            Self::Integer => scalars::integer(text),
            Self::Decimal => scalars::decimal(text),
            Self::Size => text.parse::<Size>().ok().map(|size| Canonical::Bytes(size.bytes())),
            Self::Text => Some(Canonical::Text(text.to_owned())),
            Self::Description => Some(scalars::description(text)),
            Self::Mac => text.parse::<MacAddr>().ok().map(|mac| Canonical::Text(mac.to_string())),
            Self::Tags => Some(scalars::tags(text, style)),
            Self::Set(by) => Some(scalars::set(text, by)),
            Self::List(by) => Some(scalars::list(text, by)),
            Self::Hotplug => Some(scalars::hotplug(text)),
            Self::SshKeys => scalars::keys(text),
            Self::Secret => Some(scalars::secret(text)),
            Self::Property(format) => property::read(format, text, style),
            Self::Nic(format) => property::read_nic(format, text, style),
        };
        read.unwrap_or_else(|| Canonical::Raw(text.to_owned()))
    }

    /// What a value of this kind is, as a noun with its article.
    pub fn expected(self) -> &'static str {
        match self {
            Self::Bool => "true or false",
            Self::Integer => "a whole number",
            Self::Decimal => "a number",
            Self::Size => "a size such as \"32G\"",
            Self::Text | Self::Description => "a text",
            Self::Mac => "a hardware address such as \"BC:24:11:00:00:01\"",
            Self::Tags | Self::Set(_) | Self::List(_) | Self::Hotplug => "a list of words",
            Self::SshKeys => "a list of SSH public keys",
            Self::Secret => "a reference to a secret",
            Self::Property(_) => "an object, or PVE's own text for it",
            Self::Nic(_) => "an object, or a text such as \"virtio=BC:24:11:00:00:01,bridge=vmbr0\"",
        }
    }

    /// The options of a property string.
    pub fn format(self) -> Option<&'static Format> {
        match self {
            Self::Property(format) | Self::Nic(format) => Some(format),
            _ => None,
        }
    }
}
