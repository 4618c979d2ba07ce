//! What PVE answers about the cluster as a whole: access, HA, firewall, pools, storages' definitions, SDN, mappings and
//! notifications. Each line is a request as the superuser and PVE's answer to it; refusals are told by their texts.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use pve_sim::{Answer, GuestSpec, Principal, World, WorldSpec};
use serde_json::{Value, json};

fn rig() -> World {
    let world = World::generate(&WorldSpec::new("rig", 2, 0, 1));
    world.add_guest(GuestSpec::qemu(100, "web").node("pve1").disk("scsi0", "local-lvm", 8, "")).unwrap();
    world.add_guest(GuestSpec::lxc(200, "ct").node("pve1").disk("rootfs", "local-lvm", 4, "")).unwrap();
    world
}

fn send(world: &World, who: &str, request: &str) -> Answer {
    let (method, rest) = request.split_once(' ').unwrap();
    let (path, query) = rest.split_once(' ').unwrap_or((rest, ""));
    let pairs: Vec<(String, String)> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())).unwrap())
        .collect();
    let pairs: Vec<(&str, &str)> = pairs.iter().map(|(name, value)| (&**name, &**value)).collect();
    world.request(&Principal::parse(who), method, path, &pairs)
}

/// What an answer says: `ok`, its reason, or of a 400 the parameter and its problem.
fn said(answer: &Answer) -> String {
    let body = answer.body.to_json();
    match (answer.status, body["errors"].as_object().and_then(|errors| errors.iter().next())) {
        (200, _) => "ok".to_owned(),
        (400, Some((name, problem))) => format!("{name}: {}", problem.as_str().unwrap().trim_end()),
        _ => format!("{} {}", answer.status, answer.reason),
    }
}

fn as_root(world: &World, lines: &[(&str, &str)]) {
    for (request, expected) in lines {
        assert_eq!(said(&send(world, "root@pam", request)), *expected, "{request}");
    }
}

fn data(world: &World, path: &str) -> Value {
    let answer = world.get(path);
    assert!(answer.is_ok(), "{path}: {answer:?}");
    answer.body.to_json()["data"].clone()
}

#[test]
fn users_groups_and_roles_are_refused_in_the_words_of_the_lock_they_are_under() {
    let world = rig();
    as_root(
        &world,
        &[
            ("POST /access/users userid=a@pve&comment=c&password=long-enough", "ok"),
            ("POST /access/users userid=a@pve", "500 create user failed: user 'a@pve' already exists"),
            (
                "POST /access/users userid=b@zz&password=long-enough",
                "500 create user failed: auth domain 'zz' does not exist",
            ),
            ("POST /access/users userid=c@pve&groups=nope", "500 create user failed: no such group 'nope'"),
            ("PUT /access/users/c@pve comment=x", "500 update user failed: no such user ('c@pve')"),
            ("PUT /access/users/a@pve groups=nope", "500 update user failed: no such group 'nope'"),
            (
                "PUT /access/users/a@pve append=1",
                "groups: missing property - 'append' requires this property",
            ),
            ("GET /access/users/c@pve", "500 no such user ('c@pve')"),
            // One that there is not is gone already.
            ("DELETE /access/users/c@pve", "ok"),
            ("PUT /access/password userid=c@pve&password=long-enough", "500 no such user ('c@pve')"),
            ("GET /access/users/c@pve/tfa", "ok"),
            ("GET /access/users/c@zz/tfa", "500 auth domain 'zz' does not exist"),
            ("GET /access/tfa/a@pve/nope", "404 No such tfa entry 'nope'"),
            ("DELETE /access/tfa/a@pve/nope", "500 no such entry"),
            ("POST /access/groups groupid=ops&comment=c", "ok"),
            ("POST /access/groups groupid=ops", "500 create group failed: group 'ops' already exists"),
            ("PUT /access/groups/ops", "ok"),
            ("PUT /access/groups/none", "500 update group failed: group 'none' does not exist"),
            ("GET /access/groups/none", "500 group 'none' does not exist"),
            (
                "POST /access/roles roleid=pveMine",
                "roleid: cannot use role ID starting with the (case-insensitive) 'PVE' namespace",
            ),
            (
                "POST /access/roles roleid=Administrator",
                "500 create role failed: role 'Administrator' already exists",
            ),
            ("POST /access/roles roleid=Mine&privs=VM.Audit", "ok"),
            (
                "PUT /access/roles/PVEAdmin privs=VM.Audit",
                "500 auto-generated role 'PVEAdmin' cannot be modified",
            ),
            ("DELETE /access/roles/PVEAdmin", "500 auto-generated role 'PVEAdmin' cannot be deleted"),
            ("DELETE /access/roles/Nope", "500 delete role failed: role 'Nope' does not exist"),
            ("GET /access/roles/Nope", "500 role 'Nope' does not exist"),
        ],
    );
    // A comment that was not given stays; an e-mail address is an empty text where something follows it in the file.
    assert_eq!(data(&world, "/access/groups/ops"), json!({"comment": "c", "members": []}));
    let user = data(&world, "/access/users/a@pve");
    assert_eq!(
        (&user["comment"], &user["email"], &user["firstname"]),
        (&json!("c"), &json!(""), &Value::Null)
    );
}

#[test]
fn acls_know_their_paths_and_go_with_what_they_name() {
    let world = rig();
    as_root(
        &world,
        &[
            ("POST /access/users userid=a@pve", "ok"),
            ("POST /access/groups groupid=ops", "ok"),
            ("POST /access/roles roleid=Mine&privs=VM.Audit", "ok"),
            (
                "PUT /access/acl path=/vms/100&roles=Mine",
                "groups: either 'users', 'groups' or 'tokens' is required.",
            ),
            ("PUT /access/acl path=/vms/99&roles=Mine&users=a@pve", "path: invalid ACL path '/vms/99'"),
            ("PUT /access/acl path=/sdn/zones/z/v/10&roles=Mine&users=a@pve", "ok"),
            ("PUT /access/acl path=//vms//100/&roles=Mine&users=a@pve", "ok"),
            (
                "PUT /access/acl path=/vms/100&roles=Mine&users=b@pve",
                "500 ACL update failed: user 'b@pve' does not exist",
            ),
            (
                "PUT /access/acl path=/vms/100&roles=Mine&groups=g",
                "500 ACL update failed: group 'g' does not exist",
            ),
            (
                "PUT /access/acl path=/vms/100&roles=Mine&tokens=a@pve!tk",
                "500 ACL update failed: no such token 'tk' for user 'a@pve'",
            ),
            ("PUT /access/acl path=/vms/100&roles=Mine&groups=ops", "ok"),
            ("PUT /access/acl path=/vms/100&roles=Mine&users=root@pam", "ok"),
            ("DELETE /access/groups/ops", "ok"),
        ],
    );
    let left = |world: &World| -> Vec<String> {
        let rows = data(world, "/access/acl");
        let mine = rows.as_array().unwrap().iter().filter(|row| row["roleid"] == "Mine");
        mine.map(|row| format!("{} {}", row["path"].as_str().unwrap(), row["ugid"].as_str().unwrap()))
            .collect()
    };
    assert_eq!(left(&world), ["/sdn/zones/z/v/10 a@pve", "/vms/100 a@pve"]);
    as_root(&world, &[("DELETE /access/roles/Mine", "ok")]);
    assert!(left(&world).is_empty());
}

#[test]
fn who_may_touch_users_is_said_as_pve_says_it() {
    let world = rig();
    for user in ["a@pve", "b@pve", "chief@pve"] {
        world.add_user(user, "secret-word");
    }
    as_root(
        &world,
        &[
            ("POST /access/groups groupid=ops", "ok"),
            ("POST /access/groups groupid=dev", "ok"),
            ("PUT /access/users/a@pve groups=ops", "ok"),
            ("PUT /access/acl path=/access/groups/ops&roles=PVEUserAdmin&users=chief@pve", "ok"),
            ("PUT /access/acl path=/access/realm/pve&roles=PVEUserAdmin&users=chief@pve", "ok"),
        ],
    );
    for (who, request, expected) in [
        ("chief@pve", "GET /access/users/a@pve", "ok"),
        ("chief@pve", "GET /access/users/b@pve", "403 Permission check failed"),
        ("chief@pve", "GET /access/users/z@pve", "500 no such user ('z@pve')"),
        (
            "chief@pve",
            "POST /access/users userid=c@pve",
            "403 Permission check failed (/access/groups, User.Modify)",
        ),
        (
            "chief@pve",
            "POST /access/users userid=c@pve&groups=dev",
            "403 Permission check failed (/access/groups/dev, User.Modify)",
        ),
        ("chief@pve", "POST /access/users userid=c@pve&groups=ops", "ok"),
        (
            "a@pve",
            "PUT /access/password userid=b@pve&password=another-word",
            "403 Permission check failed (/access/realm/pve, Realm.AllocateUser)",
        ),
        (
            "a@pve",
            "PUT /access/password userid=a@pve&password=another-word",
            "confirmation-password: password is required to modify user",
        ),
        (
            "a@pve",
            "PUT /access/password userid=a@pve&password=another-word&confirmation-password=wrong",
            "500 invalid credentials",
        ),
        (
            "a@pve",
            "PUT /access/password userid=a@pve&password=another-word&confirmation-password=secret-word",
            "ok",
        ),
        (
            "a@pve",
            "PUT /access/acl path=/vms/100&roles=PVEAuditor&users=a@pve",
            "403 Permission check failed (/vms/100, Permissions.Modify|VM.Allocate)",
        ),
        (
            "a@pve",
            "PUT /access/acl path=/pool/x&roles=PVEAuditor&users=a@pve",
            "403 Permission check failed (/pool/x, Permissions.Modify|Pool.Allocate)",
        ),
        (
            "a@pve",
            "PUT /access/acl path=/nodes&roles=PVEAuditor&users=a@pve",
            "403 Permission check failed (/nodes, Permissions.Modify)",
        ),
        ("a@pve", "GET /cluster/acme/account/x", "403 Permission check failed (user != root@pam)"),
    ] {
        assert_eq!(said(&send(&world, who, request)), expected, "{who} {request}");
    }
    let seen = send(&world, "chief@pve", "GET /access/users").body.to_json()["data"].clone();
    let ids: Vec<&str> = seen.as_array().unwrap().iter().map(|row| row["userid"].as_str().unwrap()).collect();
    assert_eq!(ids, ["a@pve", "c@pve", "chief@pve"], "users of groups with rights, and oneself");
    assert_eq!(data(&world, "/access/permissions?userid=b@pve&path=/vms/1"), json!({"/vms/1": {}}));
}

#[test]
fn a_pools_no_access_trumps_other_entries() {
    let world = rig();
    world.add_user("a@pve", "pw");
    world.add_pool("p", pve_sim::Pool::default());
    world.set_pool(100, Some("p")).unwrap();
    world.grant("a@pve", "PVEAuditor", "/vms", true).unwrap();
    assert!(send(&world, "a@pve", "GET /nodes/pve1/qemu/100/config").is_ok());
    world.grant("a@pve", "NoAccess", "/pool/p", true).unwrap();
    assert_eq!(send(&world, "a@pve", "GET /nodes/pve1/qemu/100/config").status, 403);
}

#[test]
fn realms_come_and_go_but_not_pves_own() {
    let world = rig();
    let stale = "500 update auth server failed: detected modified configuration - file changed by other user? Try again.";
    as_root(
        &world,
        &[
            (
                "POST /access/domains realm=corp&type=ldap&server1=ldap.test&base_dn=dc=x",
                "500 add auth server failed: missing value for required option 'user_attr'",
            ),
            (
                "POST /access/domains realm=corp&type=ldap&server1=ldap.test&base_dn=dc=x&user_attr=uid&default=1",
                "ok",
            ),
            (
                "POST /access/domains realm=corp&type=ldap&server1=l&base_dn=dc=x&user_attr=uid",
                "500 add auth server failed: domain 'corp' already exists",
            ),
            (
                "POST /access/domains realm=other&type=pve",
                "500 add auth server failed: unable to create builtin type 'pve'",
            ),
            ("PUT /access/domains/corp", "500 update auth server failed: no options specified"),
            ("PUT /access/domains/corp comment=x&digest=00", stale),
            (
                "PUT /access/domains/none comment=x",
                "500 update auth server failed: domain 'none' does not exist",
            ),
            ("GET /access/domains/none", "500 domain 'none' does not exist"),
            ("POST /access/domains/none/sync", "realm: Realm does not exist."),
            (
                "POST /access/domains/pam/sync",
                "500 Cannot sync realm type 'pam'! Only LDAP/AD realms can be synced.",
            ),
            (
                "POST /access/domains/corp/sync",
                "scope: Not passed as parameter and not defined in realm default sync options.",
            ),
            ("POST /access/domains/corp/sync scope=both", "ok"),
            (
                "POST /access/users userid=x@corp&password=long-enough",
                "500 create user failed: can't set password on auth type 'ldap'",
            ),
            ("POST /access/users userid=x@corp", "ok"),
        ],
    );
    let row = |rows: &Value, name: &str, value: &str| {
        rows.as_array().unwrap().iter().find(|row| row[name] == value).unwrap().clone()
    };
    assert_eq!(row(&data(&world, "/access/domains"), "realm", "corp")["default"], 1);
    assert_eq!(row(&data(&world, "/access/users"), "userid", "x@corp")["realm-type"], "ldap");
    as_root(
        &world,
        &[
            ("DELETE /access/domains/corp", "ok"),
            (
                "DELETE /access/domains/corp",
                "500 delete auth server failed: authentication domain 'corp' does not exist",
            ),
        ],
    );
    assert!(row(&data(&world, "/access/users"), "userid", "x@corp")["realm-type"].is_null());
}

#[test]
fn ha_says_which_resource_and_which_lock() {
    let world = rig();
    let stale = "detected modified configuration - file changed by other user? Try again.";
    as_root(
        &world,
        &[
            ("POST /cluster/ha/resources sid=999", "500 unable do add resource - VM/CT 999 does not exist"),
            (
                "POST /cluster/ha/resources sid=ct:100",
                "500 resource 'ct:100' - guest with ID 100 is not a container",
            ),
            ("POST /cluster/ha/resources sid=vm:100&type=ct", "500 types does not match"),
            (
                "POST /cluster/ha/resources sid=100&state=bogus",
                "state: value 'bogus' does not have a value in the enumeration 'started, stopped, enabled, disabled, ignored'",
            ),
            (
                "POST /cluster/ha/resources sid=nope",
                "sid: invalid format - value does not look like a valid ha resource id",
            ),
            ("POST /cluster/ha/resources sid=100&group=gone", "ok"),
            (
                "POST /cluster/ha/resources sid=vm:100",
                "500 create resource failed: resource ID 'vm:100' already defined",
            ),
            ("PUT /cluster/ha/resources/vm:100 group=gone", "500 HA group 'gone' does not exist"),
            (
                "PUT /cluster/ha/resources/vm:100 delete=bogus",
                "500 update resource failed: no such option 'bogus'",
            ),
            (
                "PUT /cluster/ha/resources/ct:200 comment=x",
                "500 update resource failed: no such resource 'ct:200'",
            ),
            (
                "POST /cluster/ha/resources/ct:200/migrate node=pve2",
                "500 resource 'ct:200' is not HA managed",
            ),
            // HA looks for the node later.
            ("POST /cluster/ha/resources/vm:100/migrate node=nowhere", "ok"),
            ("DELETE /cluster/ha/resources/ct:200", "500 cannot delete service 'ct:200', not HA managed!"),
            ("POST /cluster/ha/groups group=gr", "nodes: property is missing and it is not optional"),
            (
                "POST /cluster/ha/groups group=gr&nodes=pve1:x",
                "nodes: invalid format - value does not look like a valid ha group node",
            ),
            ("POST /cluster/ha/groups group=gr&nodes=pve1", "ok"),
            (
                "POST /cluster/ha/groups group=gr&nodes=pve1",
                "500 create ha group failed: ha group ID 'gr' already defined",
            ),
            ("PUT /cluster/ha/groups/hh comment=x", "500 update ha group failed: no such ha group 'hh'"),
            (
                "PUT /cluster/ha/groups/gr delete=nodes",
                "500 update ha group failed: unable to delete required option 'nodes'",
            ),
            ("GET /cluster/ha/groups/hh", "500 no such ha group 'hh'"),
            ("PUT /cluster/ha/resources/vm:100 group=gr", "ok"),
            (
                "DELETE /cluster/ha/groups/gr",
                "500 delete ha group failed: ha group is used by service 'vm:100'",
            ),
            ("DELETE /cluster/ha/groups/none", "ok"),
        ],
    );
    for (path, verb) in
        [("resources/vm:100", "update resource failed"), ("groups/gr", "update ha group failed")]
    {
        let answer = send(&world, "root@pam", &format!("PUT /cluster/ha/{path} comment=x&digest=00"));
        assert_eq!(said(&answer), format!("500 {verb}: {stale}"));
    }
    as_root(&world, &[("POST /cluster/ha/resources sid=200&group=gone", "ok")]);
    let rows = data(&world, "/cluster/ha/resources");
    let row = rows.as_array().unwrap().iter().find(|row| row["sid"] == "ct:200").unwrap();
    assert_eq!(row["errors"]["group"], "group 'gone' does not exist");
}

#[test]
fn firewall_rules_are_verified_one_problem_at_a_time() {
    let world = rig();
    let guest = "/nodes/pve1/qemu/100/firewall";
    as_root(
        &world,
        &[
            ("POST /cluster/firewall/rules type=in&action=NOPE", "action: unknown action 'NOPE'"),
            (
                "POST /cluster/firewall/rules type=in&action=DROP&dport=22",
                "proto: missing property - 'dport' requires this property",
            ),
            (
                "POST /cluster/firewall/rules type=in&action=DROP&proto=esp&dport=22",
                "dport: protocol 'esp' does not support ports",
            ),
            ("POST /cluster/firewall/rules type=in&action=DROP&macro=bogus", "macro: unknown macro 'bogus'"),
            ("POST /cluster/firewall/rules type=in&action=DROP&source=+none", "source: no such ipset 'none'"),
            (
                "POST /cluster/firewall/rules type=in&action=DROP&source=nobody",
                "source: no such alias 'nobody'",
            ),
            (
                "POST /cluster/firewall/rules type=in&action=DROP&source=10.0.0.1&dest=fe80::1",
                "dest: detected mixed ipv4/ipv6 addresses in rule",
            ),
            (
                "POST /cluster/firewall/rules type=group&action=nogroup",
                "action: security group 'nogroup' does not exist",
            ),
            ("POST /cluster/firewall/rules type=in&action=DROP&macro=ssh&comment=first", "ok"),
            // The position is not looked at, nor is a digest: a new rule is the first.
            ("POST /cluster/firewall/rules type=in&action=ACCEPT&pos=1&digest=00", "ok"),
            (
                "PUT /cluster/firewall/rules/0 digest=00&comment=x",
                "500 detected modified configuration - file changed by other user? Try again.",
            ),
            ("PUT /cluster/firewall/rules/9 comment=x", "500 no rule at position 9"),
            ("PUT /cluster/firewall/rules/0 delete=bogus", "delete: no such property 'bogus'"),
            ("DELETE /cluster/firewall/rules/9", "500 no rule at position 9"),
            (
                &*format!("POST {guest}/rules type=in&action=DROP&iface=eth0"),
                "iface: value does not match the regex pattern 'net\\d+'",
            ),
            (&*format!("POST {guest}/rules type=in&action=DROP&iface=net0"), "ok"),
            // Nobody looks whether there is such a guest.
            ("GET /nodes/pve1/qemu/999/firewall/rules", "ok"),
            ("POST /cluster/firewall/groups group=web", "ok"),
            ("POST /cluster/firewall/groups group=web", "group: Security group 'web' already exists"),
            (
                "POST /cluster/firewall/groups group=xx&rename=none",
                "group: Security group 'none' does not exists",
            ),
            ("POST /cluster/firewall/groups/web type=group&action=web", "type: security groups not allowed"),
            (
                "POST /cluster/firewall/groups/web type=in&action=DROP&iface=net0",
                "type: parameter -i not allowed for this rule type",
            ),
            ("GET /cluster/firewall/groups/none", "500 no such security group 'none'"),
            ("PUT /cluster/firewall/options delete=bogus", "delete: no such option 'bogus'"),
        ],
    );
    let rules = data(&world, "/cluster/firewall/rules");
    assert_eq!((&rules[0]["action"], &rules[1]["macro"]), (&json!("ACCEPT"), &json!("SSH")));
    // Options have a digest of their own.
    as_root(&world, &[("PUT /cluster/firewall/options enable=1", "ok")]);
    assert_eq!(data(&world, "/cluster/firewall/rules")[0]["digest"], rules[0]["digest"]);
}

#[test]
fn sets_and_aliases_are_named_without_regard_to_what_is_gone() {
    let world = rig();
    as_root(
        &world,
        &[
            ("POST /cluster/firewall/ipset name=web", "ok"),
            ("POST /cluster/firewall/ipset name=web", "name: IPSet 'web' already exists"),
            ("POST /cluster/firewall/ipset name=yy&rename=none", "name: IPSet 'none' does not exists"),
            ("POST /cluster/firewall/ipset name=yy", "ok"),
            ("POST /cluster/firewall/ipset name=yy&rename=web", "name: IPSet 'yy' does already exist"),
            (
                "POST /cluster/firewall/ipset/web cidr=10.0.0.0/0",
                "cidr: a zero prefix is not allowed in ipset entries",
            ),
            ("POST /cluster/firewall/ipset/web cidr=nobody", "500 no such alias 'nobody'"),
            ("POST /cluster/firewall/ipset/web cidr=10.0.0.1&nomatch=1&comment=c", "ok"),
            ("POST /cluster/firewall/ipset/web cidr=10.0.0.1", "cidr: address '10.0.0.1' already exists"),
            ("POST /cluster/firewall/ipset/none cidr=10.0.0.1", "500 no such IPSet 'none'"),
            ("PUT /cluster/firewall/ipset/web/10.0.0.9", "cidr: no such IP/Network"),
            ("PUT /cluster/firewall/ipset/web/10.0.0.1 comment=d", "ok"),
            ("DELETE /cluster/firewall/ipset/web/10.0.0.9", "ok"),
            ("DELETE /cluster/firewall/ipset/web", "500 IPSet 'web' is not empty"),
            ("DELETE /cluster/firewall/ipset/none", "500 no such IPSet 'none'"),
            ("POST /cluster/firewall/aliases name=Lan&cidr=10.0.0.1/32", "ok"),
            ("POST /cluster/firewall/aliases name=lan&cidr=10.0.0.0/8", "name: alias 'lan' already exists"),
            ("GET /cluster/firewall/aliases/none", "name: no such alias"),
            ("PUT /cluster/firewall/aliases/none cidr=10.0.0.0/8", "name: no such alias"),
            ("PUT /cluster/firewall/aliases/lan", "cidr: property is missing and it is not optional"),
            ("DELETE /cluster/firewall/aliases/none", "ok"),
        ],
    );
    assert_eq!(data(&world, "/cluster/firewall/aliases/LAN")["cidr"], "10.0.0.1");
    let entry = data(&world, "/cluster/firewall/ipset/web")[0].clone();
    assert_eq!((&entry["comment"], &entry["nomatch"]), (&json!("d"), &Value::Null));
}

#[test]
fn interfaces_share_neither_gateway_nor_port_and_keep_what_is_not_given() {
    let world = rig();
    let net = "/nodes/pve1/network";
    for (request, expected) in [
        (format!("POST {net} iface=vmbr0&type=bridge"), "iface: interface already exists"),
        (
            format!("POST {net} iface=vmbr9&type=bridge&cidr=10.9.0.1/24&gateway=10.9.0.254"),
            "gateway: Default gateway already exists on interface 'vmbr0'.",
        ),
        (
            format!("POST {net} iface=bond0&type=bond&slaves=eno1"),
            "slaves: eno1 is already used on interface 'vmbr0'.",
        ),
        (
            format!("POST {net} iface=vmbr9&type=bridge&cidr=10.9.0.1/24&address=10.9.0.1&netmask=24"),
            "address: address conflicts with cidr",
        ),
        (
            format!("POST {net} iface=vmbr9&type=OVSBridge"),
            "500 Open VSwitch is not installed (need package 'openvswitch-switch')",
        ),
        (format!("PUT {net}/none type=bridge"), "iface: interface does not exist"),
        (format!("DELETE {net}/none"), "iface: interface does not exist"),
        (format!("POST {net} iface=vmbr9&type=bridge&autostart=1&cidr6=fd00::1/64&mtu=1400"), "ok"),
        (format!("PUT {net}/vmbr9 type=bridge&comments=x"), "ok"),
    ] {
        assert_eq!(said(&send(&world, "root@pam", &request)), expected, "{request}");
    }
    let have = data(&world, &format!("{net}/vmbr9"));
    assert_eq!(have["autostart"], 1);
    assert!(!have["mtu"].is_null());
    assert_eq!((&have["method6"], &have["cidr6"]), (&json!("manual"), &Value::Null));
    assert!(send(&world, "root@pam", &format!("DELETE {net}")).is_ok());
    assert!(world.get(&format!("{net}/vmbr9")).body.to_json()["errors"].is_object());
}

#[test]
fn storages_have_what_their_type_has() {
    let world = rig();
    as_root(
        &world,
        &[
            ("POST /storage storage=d1&type=dir&path=/x&server=s", "500 unexpected property 'server'"),
            (
                "POST /storage storage=l1&type=lvm&vgname=vg&content=iso",
                "500 storage does not support content type 'iso'",
            ),
            (
                "POST /storage storage=p1&type=pbs&server=s",
                "500 missing value for required option 'datastore'",
            ),
            ("POST /storage storage=d1&type=dir&path=/x", "ok"),
            ("POST /storage storage=l1&type=lvm&vgname=vg&base=d1:x", "ok"),
            ("PUT /storage/d1 content=bogus", "content: invalid format - invalid content type 'bogus'"),
            ("PUT /storage/d1 server=s", "500 update storage failed: unexpected property 'server'"),
            (
                "PUT /storage/d1 delete=path",
                "500 update storage failed: unable to delete required option 'path'",
            ),
            ("PUT /storage/d1 delete=bogus", "500 update storage failed: no such option 'bogus'"),
            (
                "PUT /storage/d1 disable=1&delete=disable",
                "500 update storage failed: cannot set and delete property 'disable' at the same time!",
            ),
            ("PUT /storage/none disable=1", "500 update storage failed: storage 'none' does not exist"),
            (
                "PUT /storage/none disable=1&digest=00",
                "500 update storage failed: detected modified configuration - file changed by other user? Try again.",
            ),
            (
                "DELETE /storage/d1",
                "500 delete storage failed: can't remove storage - storage is used as base of another storage",
            ),
            ("DELETE /storage/l1", "ok"),
            ("PUT /access/acl path=/storage/d1&roles=PVEAuditor&users=root@pam", "ok"),
            ("DELETE /storage/d1", "ok"),
        ],
    );
    let rows = data(&world, "/storage");
    let digests: std::collections::BTreeSet<String> =
        rows.as_array().unwrap().iter().map(|row| row["digest"].to_string()).collect();
    assert_eq!(digests.len(), 1, "the digest is that of the whole file");
}

#[test]
fn pools_take_members_that_there_are_not_and_say_who_may_not() {
    let world = rig();
    world.add_user("a@pve", "pw");
    world.grant("a@pve", "PVEPoolAdmin", "/pool/p", true).unwrap();
    as_root(
        &world,
        &[
            ("POST /pools poolid=p", "ok"),
            (
                "POST /pools poolid=none/p",
                "500 create pool failed: parent 'none' of pool 'none/p' does not exist",
            ),
            ("PUT /pools poolid=p&vms=999", "ok"),
            ("PUT /pools poolid=p&vms=100&storage=local", "ok"),
            (
                "PUT /pools poolid=p&storage=local",
                "500 update pools failed: Storage 'local' is already a pool member",
            ),
            ("PUT /pools poolid=p&vms=200&delete=1", "500 update pools failed: VM 200 is not a pool member"),
            ("PUT /pools poolid=q&vms=100", "500 update pools failed: pool 'q' does not exist"),
            ("DELETE /pools/p", "500 delete pool failed: pool 'p' is not empty (contains VM 100)"),
            (
                "GET /pools/p type=bogus",
                "type: value 'bogus' does not have a value in the enumeration 'qemu, lxc, storage'",
            ),
        ],
    );
    let text =
        "500 update pools failed: 403 Permission check failed (/vms/200, Permissions.Modify|VM.Allocate)";
    assert_eq!(said(&send(&world, "a@pve", "PUT /pools poolid=p&vms=200")), text);
}

#[test]
fn sdn_mappings_metrics_and_notifications_have_words_of_their_own() {
    let world = rig();
    as_root(
        &world,
        &[
            ("GET /cluster/sdn/zones/none", "500 sdn 'none' does not exist"),
            ("POST /cluster/sdn/zones zone=z1&type=simple", "ok"),
            (
                "POST /cluster/sdn/zones zone=z1&type=simple",
                "500 create sdn zone object failed: sdn zone object ID 'z1' already defined",
            ),
            (
                "PUT /cluster/sdn/zones/none mtu=1500",
                "500 update sdn zone object failed: sdn 'none' does not exist",
            ),
            ("POST /cluster/sdn/vnets vnet=v1&zone=z1", "ok"),
            ("GET /cluster/sdn/vnets/none", "500 sdn 'none' does not exist"),
            ("DELETE /cluster/sdn/zones/z1", "500 delete sdn zone object failed: zone z1 is used by vnet v1"),
            ("POST /cluster/sdn/vnets/v1/subnets subnet=10.0.0.0/24&type=subnet&gateway=10.0.0.1", "ok"),
            (
                "POST /cluster/sdn/vnets/v1/subnets subnet=10.0.0.0/24&type=subnet",
                "500 create sdn subnet object failed: sdn subnet object ID 'z1-10.0.0.0-24' already defined",
            ),
            (
                "DELETE /cluster/sdn/vnets/v1",
                "500 delete sdn vnet object failed: Can't delete vnet if subnets exists",
            ),
            ("DELETE /cluster/sdn/vnets/v1/subnets/z1-10.0.0.0-24", "ok"),
            ("DELETE /cluster/sdn/vnets/v1", "ok"),
            ("PUT /cluster/sdn", "ok"),
            ("GET /cluster/mapping/pci/none", "500 mapping 'none' not found"),
            (
                "POST /cluster/mapping/pci id=gpu&description=d&map=node=pve1,path=0000:01:00.0,id=10de:1234",
                "ok",
            ),
            (
                "POST /cluster/mapping/pci id=gpu&map=node=pve1,path=0000:01:00.0,id=10de:1234",
                "500 create hardware mapping failed: pci ID 'gpu' already defined",
            ),
            ("DELETE /cluster/mapping/pci/none", "ok"),
            ("GET /cluster/metrics/server/none", "500 status server entry 'none' does not exist"),
            ("POST /cluster/metrics/server/gra type=graphite&server=g.test&port=2003", "ok"),
            (
                "POST /cluster/metrics/server/gra type=graphite&server=g.test&port=2003",
                "500 Metric server 'gra' already exists",
            ),
            ("PUT /cluster/metrics/server/none server=x&port=1", "500 no such server 'none'"),
            ("GET /cluster/notifications/matchers/none", "404 matcher 'none' not found"),
            ("GET /cluster/notifications/endpoints/gotify/none", "404 endpoint 'none' not found"),
            ("POST /cluster/notifications/endpoints/gotify name=goo&server=https://g.test&token=t", "ok"),
            (
                "POST /cluster/notifications/endpoints/gotify name=mail-to-root&server=https://g.test&token=t",
                "400 Cannot create 'mail-to-root', an entity with the same name already exists",
            ),
            (
                "DELETE /cluster/notifications/endpoints/sendmail/mail-to-root",
                "400 cannot delete 'mail-to-root', referenced by: default-matcher",
            ),
            ("GET /cluster/acme/plugins/none", "500 ACME plugin 'none' not defined"),
            ("GET /cluster/acme/account/none", "500 ACME account config file 'none' does not exist."),
            ("GET /cluster/notifications/matcher-field-values", "ok"),
            ("GET /nodes/pve1/ceph/osd", "500 binary not installed: /usr/bin/ceph-mon"),
            ("PUT /cluster/ceph/flags/noout value=1", "500 binary not installed: /usr/bin/ceph-mon"),
            ("GET /cluster/ceph/metadata", "500 binary not installed: /usr/bin/ceph-mon"),
            ("POST /cluster/replication id=999-0&type=local&target=pve2", "500 Guest '999' does not exists."),
            (
                "POST /cluster/replication id=100-0&type=local&target=pve9",
                "500 Target 'pve9' does not exists.",
            ),
            ("GET /nodes/pve1/replication/100-0/status", "500 no such replication job '100-0'"),
        ],
    );
    assert_eq!(data(&world, "/cluster/metrics/server")[0]["disable"], 0);
    assert!(data(&world, "/cluster/mapping/pci")[0]["map"].is_array());
    let targets = data(&world, "/cluster/notifications/targets");
    let names: Vec<&Value> = targets.as_array().unwrap().iter().map(|row| &row["name"]).collect();
    assert_eq!(names, ["goo", "mail-to-root"]);
    assert!(
        data(&world, "/cluster/notifications/endpoints/gotify/goo")["token"].is_null(),
        "a secret is not shown"
    );
    assert_eq!(data(&world, "/cluster/config/join")["preferred_node"], "pve1");
}
