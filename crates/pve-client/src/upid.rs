//! The identifier of a task.

use std::fmt;
use std::str::FromStr;

use crate::malformed::Malformed;

/// The identifier of a task: `UPID:node:pid:pstart:starttime:type:id:user@realm!token:`, numbers in upper-case
/// hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Upid {
    /// The node that runs the task.
    pub node: String,
    /// The worker's process id.
    pub pid: u32,
    /// The start of the process in the kernel's clock ticks since boot; with `pid` it names one process of one boot.
    pub pstart: u64,
    /// The start of the task, in epoch seconds.
    pub starttime: u64,
    /// The kind of work, such as `qmstart` or `vzdump`. PVE calls it `type`.
    pub worker_type: String,
    /// What is worked on, often a vmid; empty where the work has no single object. PVE escapes a `:` in it.
    pub id: String,
    /// Who started it, `user@realm`.
    pub user: String,
    /// The name of the API token that was used.
    pub token: Option<String>,
}

const EXPECTED: &str = "a UPID such as `UPID:pve1:00000F3C:00066052:6B014211:qmstart:110:root@pam:`";

impl Upid {
    /// Who started it, as [`crate::PveClient::account`] names the one who asks.
    pub fn account(&self) -> String {
        match &self.token {
            Some(token) => format!("{}!{token}", self.user),
            None => self.user.clone(),
        }
    }
}

impl FromStr for Upid {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        read(text).ok_or_else(|| Malformed::new(EXPECTED, text))
    }
}

fn read(text: &str) -> Option<Upid> {
    let mut parts = text.strip_prefix("UPID:")?.strip_suffix(':')?.split(':');
    let node = parts.next().filter(|node| is_node_name(node))?;
    let pid = u32::try_from(hex(parts.next()?, 8..=8)?).ok()?;
    // A machine that has been up for long needs a ninth digit.
    let pstart = hex(parts.next()?, 8..=9)?;
    let starttime = hex(parts.next()?, 8..=8)?;
    let worker_type = parts.next().filter(|part| !part.is_empty() && is_plain(part))?;
    let id = parts.next().filter(|part| is_plain(part))?;
    let who = parts.next().filter(|part| !part.is_empty() && is_plain(part))?;
    if parts.next().is_some() {
        return None;
    }
    // A user's name may hold a `!`, a realm's may not: the token begins at the first one after the last `@`.
    let realm = who.rfind('@').map_or(0, |at| at + 1);
    let (user, token) = match who.get(realm..)?.find('!') {
        Some(mark) => (who.get(..realm + mark)?, Some(who.get(realm + mark + 1..)?)),
        None => (who, None),
    };
    Some(Upid {
        node: node.to_owned(),
        pid,
        pstart,
        starttime,
        worker_type: worker_type.to_owned(),
        id: id.to_owned(),
        user: user.to_owned(),
        token: token.map(str::to_owned),
    })
}

fn is_node_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.')
}

fn is_plain(text: &str) -> bool {
    !text.contains(char::is_whitespace)
}

fn hex(text: &str, digits: std::ops::RangeInclusive<usize>) -> Option<u64> {
    let plain = digits.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    plain.then(|| u64::from_str_radix(text, 16).ok()).flatten()
}

impl fmt::Display for Upid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, pid, pstart, starttime, worker_type, id, user, token } = self;
        write!(f, "UPID:{node}:{pid:08X}:{pstart:08X}:{starttime:08X}:{worker_type}:{id}:{user}")?;
        if let Some(token) = token {
            write!(f, "!{token}")?;
        }
        f.write_str(":")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_genuine_one_is_read_and_written() {
        let text = "UPID:pve2:00000F3C:00066052:6B014211:qmstart:110:root@pam:";
        let upid: Upid = text.parse().unwrap();
        assert_eq!((upid.node.as_str(), upid.pid, upid.pstart), ("pve2", 0xF3C, 0x66052));
        assert_eq!(upid.starttime, 1_795_244_561);
        assert_eq!(
            (upid.worker_type.as_str(), upid.id.as_str(), upid.user.as_str()),
            ("qmstart", "110", "root@pam")
        );
        assert_eq!(upid.token, None);
        assert_eq!(upid.to_string(), text);
    }

    #[test]
    fn tokens_empty_ids_and_long_uptimes() {
        for text in [
            "UPID:pve1:00007B1D:1000632F0:6B0149C5:vzdump::root@pam!ci:",
            "UPID:pve1:00007B1D:000632F0:6B0149C5:imgdel:204@local:admin@pve!full:",
            "UPID:pve1:00007B1D:000632F0:6B0149C5:vzdump:1:odd!name@pve!full:",
        ] {
            assert_eq!(text.parse::<Upid>().unwrap().to_string(), text);
        }
        let odd: Upid = "UPID:n:00007B1D:000632F0:6B0149C5:a:1:odd!name@pve!full:".parse().unwrap();
        assert_eq!((odd.user.as_str(), odd.token.as_deref()), ("odd!name@pve", Some("full")));
        assert_eq!(odd.account(), "odd!name@pve!full");
    }

    #[test]
    fn what_is_no_upid_is_refused() {
        for bad in [
            "",
            "UPID:",
            "UPID:pve1",
            "UPID:pve1:00000F3C:00066052:6B014211:qmstart:110:root@pam",
            "UPID:pve1:F3C:00066052:6B014211:qmstart:110:root@pam:",
            "UPID:pve1:+0000F3C:00066052:6B014211:qmstart:110:root@pam:",
            "UPID:pve1:00000F3C:00066052:6B014211:qmstart:110:root@pam:x:",
            "UPID:pve1:00000F3C:00066052:6B014211::110:root@pam:",
            "UPID:../x:00000F3C:00066052:6B014211:qmstart:110:root@pam:",
        ] {
            assert!(bad.parse::<Upid>().is_err(), "{bad:?} was read");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(
            text in "\\PC*|UPID:[a-z.-]{0,4}:[0-9A-Fa-f]{7,9}:[0-9A-F]{7,10}:[0-9a-f]{8}:[a-z]{0,3}:[0-9@ ]{0,3}:[a-z@!]{0,8}:"
        ) {
            if let Ok(upid) = text.parse::<Upid>() {
                prop_assert_eq!(upid.to_string().parse::<Upid>().unwrap(), upid);
            }
        }
    }
}
