//! What a successful answer says is so: firewalls, access control, collections.

use serde_json::Value;

use super::answers::{object, text, without};
use super::prepare::Maker;
use crate::schema::split_list;
use crate::world::access::{Principal, Privileges};

impl Maker<'_> {
    pub(super) fn firewall_answer(&mut self, data: &Value) {
        let rows = self.rows();
        let last = self.template.rsplit('/').next().unwrap_or_default();
        match last {
            "options" => self.firewall().options = without(data, &["digest"]),
            "rules" | "{group}" => {
                let rules = rows.iter().map(|row| without(row, &["digest", "pos"])).collect();
                self.firewall().rules = rules;
            }
            "{pos}" => {
                let rule = without(data, &["digest", "pos"]);
                for have in &mut self.firewall().rules {
                    *have = rule.clone();
                }
            }
            "groups" => {
                for row in &rows {
                    let options = without(row, &["digest", "group"]);
                    self.state
                        .firewalls
                        .entry(format!("group/{}", text(row, "group")))
                        .or_default()
                        .options = options;
                }
            }
            "aliases" => {
                for row in &rows {
                    let alias = without(row, &["digest"]);
                    self.firewall().aliases.insert(text(row, "name"), alias);
                }
            }
            "ipset" => {
                for row in &rows {
                    let comment = row["comment"].as_str().map(str::to_owned);
                    self.firewall().sets.insert(text(row, "name"), (comment, Vec::new()));
                }
            }
            "{name}" if self.template.contains("ipset") => {
                let name = self.parameter("name").to_owned();
                let entries = rows.iter().map(|row| without(row, &["digest"])).collect();
                self.firewall().sets.insert(name, (None, entries));
            }
            "refs" => {
                for row in &rows {
                    let cluster = self.state.firewalls.entry("cluster".to_owned()).or_default();
                    let name = text(row, "name");
                    if row["type"] == "ipset" {
                        cluster.sets.insert(name, (row["comment"].as_str().map(str::to_owned), Vec::new()));
                    } else {
                        cluster.aliases.insert(name, without(row, &["name", "ref", "scope", "type"]));
                    }
                }
            }
            _ => {}
        }
    }

    /// Entries of a collection that is only kept.
    pub(super) fn collection(&mut self, data: &Value) {
        let names = ["zone", "vnet", "controller", "ipam", "dns", "plugin", "id", "name"];
        match self.template.rsplit_once("/{") {
            Some((base, name)) => {
                let name = name.trim_end_matches('}');
                let (base, id) = (base.to_owned(), self.parameter(name).to_owned());
                let entry = Value::Object(without(data, &[name, "digest"]));
                self.state.collections.entry(base).or_default().insert(id, entry);
            }
            None => {
                for row in self.rows() {
                    let Some(name) = names.iter().find(|name| row.get(**name).is_some_and(Value::is_string))
                    else {
                        continue;
                    };
                    let entry = Value::Object(without(&row, &[name, "digest"]));
                    let base = self.template.to_owned();
                    self.state.collections.entry(base).or_default().insert(text(&row, name), entry);
                }
            }
        }
    }

    fn user_row(&mut self, id: &str, row: &Value) {
        let user = self.state.access.users.entry(id.to_owned()).or_default();
        user.enabled = row["enable"] != 0;
        user.expire = row["expire"].as_u64().unwrap_or_default();
        for key in ["comment", "email", "firstname", "lastname"] {
            if let Some(value) = row[key].as_str() {
                user.about.insert(key.to_owned(), value.to_owned());
            }
        }
        if row.get("keys").is_some() {
            user.totp = Some("0".to_owned());
        }
        let groups: Vec<String> = match &row["groups"] {
            Value::String(text) => split_list(text).map(str::to_owned).collect(),
            Value::Array(names) => names.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            _ => Vec::new(),
        };
        user.groups.extend(groups.iter().cloned());
        for group in groups {
            self.state.access.groups.entry(group).or_default();
        }
        let tokens: Vec<(String, Value)> = match &row["tokens"] {
            Value::Array(rows) => rows.iter().map(|row| (text(row, "tokenid"), row.clone())).collect(),
            Value::Object(rows) => rows.iter().map(|(name, row)| (name.clone(), row.clone())).collect(),
            _ => Vec::new(),
        };
        for (name, token) in tokens {
            self.token_row(id, &name, &token);
        }
    }

    fn token_row(&mut self, user: &str, name: &str, row: &Value) {
        crate::world::insert_token(&mut self.state, user, name, row["privsep"] != 0);
        let token = self.state.access.users.get_mut(user).and_then(|user| user.tokens.get_mut(name));
        if let Some(token) = token {
            token.comment = row["comment"].as_str().map(str::to_owned);
            token.expire = row["expire"].as_u64().unwrap_or_default();
        }
    }

    pub(super) fn access(&mut self, data: &Value) {
        let rows = self.rows();
        match self.template {
            "/access/users" => {
                for row in &rows {
                    let id = text(row, "userid");
                    if id != self.principal.user() {
                        self.grant_unless_root("/access/groups", &["Sys.Audit"]);
                    }
                    self.user_row(&id, row);
                }
            }
            "/access/users/{userid}" => {
                let id = self.parameter("userid").to_owned();
                self.user_row(&id, data);
            }
            "/access/users/{userid}/token" => {
                let id = self.parameter("userid").to_owned();
                for row in &rows {
                    self.token_row(&id, &text(row, "tokenid"), row);
                }
            }
            "/access/users/{userid}/token/{tokenid}" => {
                let (id, name) = (self.parameter("userid").to_owned(), self.parameter("tokenid").to_owned());
                self.token_row(&id, &name, data);
            }
            "/access/groups" => {
                for row in &rows {
                    let name = text(row, "groupid");
                    self.grant_unless_root(&format!("/access/groups/{name}"), &["Sys.Audit"]);
                    self.state.access.groups.insert(name, row["comment"].as_str().map(str::to_owned));
                }
            }
            "/access/groups/{groupid}" => {
                let name = self.parameter("groupid").to_owned();
                for member in data["members"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                    let user = self.state.access.users.entry(member.to_owned()).or_default();
                    user.groups.insert(name.clone());
                }
                self.state.access.groups.insert(name, data["comment"].as_str().map(str::to_owned));
            }
            "/access/roles/{roleid}" => {
                let name = self.parameter("roleid").to_owned();
                let names: Vec<String> = object(data).keys().cloned().collect();
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                self.state.access.roles.insert(name, Privileges::named(&names));
            }
            "/access/acl" => {
                for row in &rows {
                    let path = text(row, "path");
                    let who = match row["type"].as_str() {
                        Some("group") => format!("@{}", text(row, "ugid")),
                        _ => text(row, "ugid"),
                    };
                    self.grant_unless_root(&path, &["Permissions.Modify"]);
                    self.state.access.grant(&who, &text(row, "roleid"), &path, row["propagate"] == 1);
                }
            }
            "/access/tfa" | "/access/tfa/{userid}" => {
                let single = self.in_path.get("userid").cloned();
                for row in &rows {
                    let id = single.clone().unwrap_or_else(|| text(row, "userid"));
                    let user = self.state.access.users.entry(id).or_default();
                    user.enabled = true;
                    user.factors.push((text(row, "id"), text(row, "description")));
                }
            }
            "/access/permissions" => self.permissions(data),
            _ => {}
        }
    }

    /// The rights that the answer lists, at each place with their flags.
    fn permissions(&mut self, data: &Value) {
        let of = self.parameter("userid").to_owned();
        let asker = self.principal.clone();
        if !of.is_empty() {
            self.principal = Principal::parse(&of);
        }
        if self.principal.user() != crate::world::access::ROOT {
            for (path, held) in object(data) {
                for (flag, propagate) in [(0, false), (1, true)] {
                    let held = object(&held);
                    let names: Vec<&str> = held
                        .iter()
                        .filter(|(_, value)| **value == flag)
                        .map(|(name, _)| name.as_str())
                        .collect();
                    // What a place inherits it has from above already.
                    let above = path
                        .rsplit_once('/')
                        .map_or("/", |(above, _)| if above.is_empty() { "/" } else { above });
                    let inherited = path != "/" && data.get(above) == data.get(&path) && propagate;
                    if !names.is_empty() && !inherited {
                        self.grant_exactly(&path, &names, propagate);
                    }
                }
            }
        }
        self.principal = asker;
    }
}
