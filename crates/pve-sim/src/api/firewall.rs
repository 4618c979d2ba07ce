//! The firewalls of the cluster, nodes, guests, virtual networks and security groups: whose one a path is about, options,
//! groups, references, macros.

use serde_json::{Map, Value, json};

use super::Call;
use super::act::{Act, done, fail};
use crate::answer::{Answer, Rows};
use crate::schema::split_list;
use crate::world::config::Config;
use crate::world::state::Firewall;

/// A digest of anything that an answer shows.
pub fn digest_of(value: &Value) -> String {
    let mut config = Config::default();
    config.set("all", value.to_string());
    config.digest()
}

/// The SHA-1 of nothing: the digest of an empty list.
const EMPTY: &str = "da39a3ee5e6b4b0d3255bfef95601890afd80709";

/// The digest of a list of entries. Each list has its own: options, rules, aliases, sets and the entries of a set.
pub(super) fn list_digest<'a>(entries: impl IntoIterator<Item = &'a Map<String, Value>>) -> String {
    let entries: Vec<_> = entries.into_iter().filter(|entry| !entry.is_empty()).collect();
    if entries.is_empty() { EMPTY.to_owned() } else { digest_of(&json!(entries)) }
}

/// A digest that was given must be the current one.
pub(super) fn check_digest(act: &Act<'_>, current: &str) -> Result<(), Answer> {
    if act.given("digest").is_some_and(|digest| digest != current) {
        return fail("detected modified configuration - file changed by other user? Try again.");
    }
    Ok(())
}

/// Whose firewall a path is about. Nobody looks whether there is such a guest; a security group must be there.
pub(super) fn place(call: &Call<'_>) -> Result<String, Answer> {
    if !call.text("vmid").is_empty() {
        return Ok(format!("guest/{}", call.text("vmid")));
    }
    if !call.text("vnet").is_empty() {
        return Ok(format!("vnet/{}", call.text("vnet")));
    }
    if !call.text("group").is_empty() {
        let group = call.text("group");
        let place = format!("group/{group}");
        if !call.state.firewalls.contains_key(&place) {
            return fail(format!("no such security group '{group}'"));
        }
        return Ok(place);
    }
    if !call.text("node").is_empty() {
        return Ok(format!("node/{}", call.node()?.name));
    }
    Ok("cluster".to_owned())
}

/// The firewall of a path, if anything has been written to it.
pub(super) fn of<'a>(call: &Call<'a>) -> Result<Option<&'a Firewall>, Answer> {
    Ok(call.state.firewalls.get(&place(call)?))
}

/// The firewall of a path, to be changed.
pub(super) fn of_mut<'a>(act: &'a mut Act<'_>) -> Result<&'a mut Firewall, Answer> {
    let place = place(&act.call())?;
    Ok(act.state.firewalls.entry(place).or_default())
}

fn options_digest(firewall: Option<&Firewall>) -> String {
    list_digest(firewall.map(|firewall| &firewall.options))
}

pub fn options(call: &Call<'_>) -> Result<Answer, Answer> {
    let firewall = of(call)?;
    let mut data = firewall.map(|firewall| firewall.options.clone()).unwrap_or_default();
    data.insert("digest".to_owned(), json!(options_digest(firewall)));
    Ok(Answer::ok(Value::Object(data)))
}

/// Options by their names; the cluster's `enable` beyond 1 is when it was enabled.
pub fn set_options(act: &mut Act<'_>) -> Result<Answer, Answer> {
    check_digest(act, &options_digest(of(&act.call())?))?;
    let deletes: Vec<String> = split_list(act.text("delete")).map(str::to_owned).collect();
    for key in &deletes {
        let known = crate::schema::kind(act.method, key).is_some();
        if !known || matches!(key.as_str(), "delete" | "digest" | "node" | "vmid" | "vnet") {
            return Err(Answer::bad_parameter("delete", &format!("no such option '{key}'")));
        }
    }
    let settings = act.settings(&["delete", "digest", "vnet"]);
    let mut typed: Map<String, Value> =
        settings.iter().map(|(name, value)| (name.clone(), act.typed(name, value))).collect();
    if typed.get("enable").and_then(Value::as_i64).is_some_and(|enable| enable > 1) {
        typed.insert("enable".to_owned(), json!(act.now));
    }
    let firewall = of_mut(act)?;
    for key in deletes {
        firewall.options.remove(&key);
    }
    firewall.options.extend(typed);
    done()
}

/// An entry with the digest of its list.
pub(super) fn with_digest(entry: &Map<String, Value>, digest: &str) -> Map<String, Value> {
    let mut row = entry.clone();
    row.insert("digest".to_owned(), json!(digest));
    row
}

fn group_entries(call: &Call<'_>) -> Vec<Map<String, Value>> {
    let groups = call.state.firewalls.iter();
    groups
        .filter_map(|(place, group)| {
            let mut row = group.options.clone();
            row.insert("group".to_owned(), json!(place.strip_prefix("group/")?));
            Some(row)
        })
        .collect()
}

/// The security groups.
pub fn groups(call: &Call<'_>) -> Result<Answer, Answer> {
    let entries = group_entries(call);
    let digest = list_digest(&entries);
    let mut rows = Rows::default();
    for entry in &entries {
        rows.push(&Value::Object(with_digest(entry, &digest)));
    }
    Ok(Answer::rows(rows))
}

/// A new group, or with `rename` another name or comment for one.
pub fn create_group(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let name = act.text("group").to_owned();
    let refuse = |text: String| Err(Answer::bad_parameter("group", &text));
    let place = format!("group/{name}");
    let taken = act.state.firewalls.contains_key(&place);
    let mut group = match act.given("rename").map(str::to_owned) {
        Some(old) => {
            check_digest(act, &list_digest(&group_entries(&act.call())))?;
            if !act.state.firewalls.contains_key(&format!("group/{old}")) {
                return refuse(format!("Security group '{old}' does not exists"));
            }
            if taken && old != name {
                return refuse(format!("Security group '{name}' does already exist"));
            }
            act.state.firewalls.remove(&format!("group/{old}")).unwrap_or_default()
        }
        None if taken => return refuse(format!("Security group '{name}' already exists")),
        None => Firewall::default(),
    };
    match act.given("comment") {
        Some("") => drop(group.options.remove("comment")),
        Some(comment) => drop(group.options.insert("comment".to_owned(), json!(comment))),
        None => {}
    }
    act.state.firewalls.insert(place, group);
    done()
}

pub fn delete_group(act: &mut Act<'_>) -> Result<Answer, Answer> {
    let place = place(&act.call())?;
    if act.state.firewalls.get(&place).is_some_and(|group| !group.rules.is_empty()) {
        return fail(format!("Security group '{}' is not empty", act.text("group")));
    }
    act.state.firewalls.remove(&place);
    done()
}

/// What rules can refer to: aliases and sets of the cluster, and of the guest itself.
pub fn refs(call: &Call<'_>) -> Result<Answer, Answer> {
    let own = if call.text("vmid").is_empty() { None } else { of(call)? };
    let cluster = call.state.firewalls.get("cluster");
    let mut rows = Rows::default();
    for (scope, firewall) in [("dc", cluster), ("guest", own)] {
        let Some(firewall) = firewall else { continue };
        let wanted = call.text("type");
        for (name, (comment, _)) in firewall.sets.iter().filter(|_| matches!(wanted, "" | "ipset")) {
            let mut row = json!({"name": name, "ref": format!("+{name}"), "scope": scope, "type": "ipset"});
            if let Some(comment) = comment {
                row["comment"] = json!(comment);
            }
            rows.push(&row);
        }
        for (name, alias) in firewall.aliases.iter().filter(|_| matches!(wanted, "" | "alias")) {
            let mut row = json!({"name": name, "ref": name, "scope": scope, "type": "alias"});
            if let Some(comment) = alias.get("comment") {
                row["comment"] = comment.clone();
            }
            rows.push(&row);
        }
    }
    Ok(Answer::rows(rows))
}

/// The names of all macros.
pub(super) const MACROS: [&str; 86] = [
    "Amanda",
    "Auth",
    "BGP",
    "BitTorrent",
    "BitTorrent32",
    "CVS",
    "Ceph",
    "Citrix",
    "DAAP",
    "DCC",
    "DHCPfwd",
    "DHCPv6",
    "DNS",
    "Distcc",
    "FTP",
    "Finger",
    "GNUnet",
    "GRE",
    "Git",
    "HKP",
    "HTTP",
    "HTTPS",
    "ICPV2",
    "ICQ",
    "IMAP",
    "IMAPS",
    "IPIP",
    "IPsec",
    "IPsecah",
    "IPsecnat",
    "IRC",
    "Jetdirect",
    "L2TP",
    "LDAP",
    "LDAPS",
    "MDNS",
    "MSNP",
    "MSSQL",
    "Mail",
    "Munin",
    "MySQL",
    "NNTP",
    "NNTPS",
    "NTP",
    "NeighborDiscovery",
    "OSPF",
    "OpenVPN",
    "PCA",
    "PMG",
    "POP3",
    "POP3S",
    "PPtP",
    "Ping",
    "PostgreSQL",
    "Printer",
    "RDP",
    "RIP",
    "RNDC",
    "Razor",
    "Rdate",
    "Rsync",
    "SANE",
    "SMB",
    "SMBswat",
    "SMTP",
    "SMTPS",
    "SNMP",
    "SPAMD",
    "SPICEproxy",
    "SSH",
    "SVN",
    "SixXS",
    "Squid",
    "Submission",
    "Syslog",
    "TFTP",
    "Telnet",
    "Telnets",
    "Time",
    "Trcrt",
    "VNC",
    "VNCL",
    "Web",
    "Webcache",
    "Webmin",
    "Whois",
];

/// The macros. What PVE has no text for is described by its name; here that is all of them.
pub fn macros(_: &Call<'_>) -> Result<Answer, Answer> {
    Ok(Answer::ok(MACROS.iter().map(|name| json!({"descr": name, "macro": name})).collect()))
}

/// The firewall's log is empty.
pub fn log(call: &Call<'_>) -> Result<Answer, Answer> {
    place(call)?;
    Ok(Answer::ok(json!([{"n": 1, "t": "no content"}])))
}
