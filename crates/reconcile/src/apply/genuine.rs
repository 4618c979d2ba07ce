//! Whether a plan file has only what this program plans. Its hash shows that it is whole, not who wrote it. Pure.

use super::carried::{is_method, least_effect, odd as odd_call, odd_making};
use super::destroy::{destroys, is_narrow};
use super::kinds::snapshot;
use super::make::made;
use crate::plan::{Action, Effect, Operation, Plan, Request, VALID_SECONDS};
use crate::scope;

/// What this program would not have written: the operation, and the mend.
pub fn odd(plan: &Plan) -> Option<String> {
    if plan.expires_at.checked_sub(plan.made_at) != Some(VALID_SECONDS) {
        return Some(format!("the plan does not end {VALID_SECONDS} s after it was made: plan again"));
    }
    // What it says of itself decides whether it has to be approved.
    if plan.deletes != scope::deleted(&plan.operations, |_| true) {
        return Some("the plan does not tell how many guests it deletes: plan again".to_owned());
    }
    plan.operations.iter().find_map(|operation| odd_operation(plan, operation))
}

/// What would make a new guest something else than a new guest: a restored one, or one that another is overwritten with.
const NOT_NEW: [&str; 6] = ["archive", "force", "live-restore", "restore", "start", "unique"];

fn odd_operation(plan: &Plan, operation: &Operation) -> Option<String> {
    let Operation { number, uid, vmid, .. } = operation;
    let tell = |what: String| Some(format!("operation {number} ({uid}, guest {vmid}): {what}: plan again"));
    // The identity of what the plan makes is found when it is made.
    if !plan.makes(uid) && operation.fingerprint.is_none() {
        return tell("it names no fingerprint that the guest must have".to_owned());
    }
    if !plan.makes(uid) && operation.digest.is_none() {
        return tell("it names no digest that the guest's configuration must have".to_owned());
    }
    let least = least_effect(plan, operation);
    if operation.effect < least {
        return tell(format!("it says {}, and its calls are: {least}", operation.effect));
    }
    for (at, request) in operation.requests.iter().enumerate() {
        if let Some(made) = made(request) {
            let new = if made.source.is_some() { "newid" } else { "vmid" };
            let number = request.set.get(new).is_some_and(|value| value.to_string() == vmid.to_string());
            let first = operation.action == Action::Create && at == 0;
            let clean = !NOT_NEW.iter().any(|name| request.set.contains_key(*name));
            let target = match (request.set.get("target"), &made.source) {
                (Some(target), Some(_)) => target.to_string(),
                _ => made.node.clone(),
            };
            if !(first && number && clean && made.kind == operation.kind && target == operation.node) {
                return tell(format!("{} {} does not make this guest anew", request.method, request.path));
            }
            if let Some(what) = odd_making(operation, request) {
                return tell(format!("{} {} {what}", request.method, request.path));
            }
            continue;
        }
        let deletes = operation.action == Action::Destroy;
        if destroys(request) != deletes
            || deletes && (!is_narrow(request) || operation.effect != Effect::Delete)
        {
            let text = format!("{} {} is no deletion as this program plans it", request.method, request.path);
            return tell(text);
        }
        let Some(rest) = rest_of(operation, request) else {
            return tell(format!("{} {} is not a call of this guest's", request.method, request.path));
        };
        if let Some(what) = odd_call(operation, request, rest) {
            return tell(format!("{} {} {what}", request.method, request.path));
        }
        if matches!(rest, "/config" | "/resize" | "/move_disk" | "/move_volume") && !request.with_digest {
            return tell(format!("{} {} does not carry the digest", request.method, request.path));
        }
    }
    None
}

/// What comes after the guest's own path; nothing where the path is another's.
fn rest_of<'a>(operation: &Operation, request: &'a Request) -> Option<&'a str> {
    let Operation { node, kind, vmid, .. } = operation;
    let sid = if kind.as_str() == "qemu" { "vm" } else { "ct" };
    let rest = if request.path == format!("/cluster/ha/resources/{sid}:{vmid}") {
        (operation.action == Action::Power).then_some("")?
    } else {
        let rest = request.path.strip_prefix(&format!("/nodes/{node}/{}/{vmid}", kind.as_str()))?;
        (!rest.is_empty() || destroys(request)).then_some(rest)?
    };
    let of_action = match operation.action {
        Action::Snapshot => snapshot(request).is_some_and(|(_, back)| !back),
        Action::RestoreSnapshot => snapshot(request).is_some_and(|(_, back)| back),
        Action::Template => rest == "/template",
        Action::Migrate => rest == "/migrate" && request.target().is_some(),
        Action::Destroy => rest.is_empty() && destroys(request),
        Action::Create | Action::Mark => rest == "/config",
        Action::Configure => matches!(rest, "/config" | "/status/reboot"),
        Action::Grow => rest == "/resize",
        Action::Move => matches!(rest, "/move_disk" | "/move_volume"),
        Action::Power => {
            rest.is_empty() || matches!(rest, "/status/start" | "/status/shutdown" | "/status/reboot")
        }
    } && is_method(operation, request, rest);
    of_action.then_some(rest)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use pvegraph_inventory::GuestType;

    use super::*;
    use crate::plan::Method;

    fn plan(request: Request) -> Plan {
        let operation = Operation {
            number: 1,
            after: BTreeSet::new(),
            uid: "web".to_owned(),
            vmid: 100,
            kind: GuestType::Qemu,
            node: "pve1".to_owned(),
            action: Action::Configure,
            effect: Effect::Hot,
            reversible: true,
            fields: Vec::new(),
            reasons: Vec::new(),
            affects: BTreeSet::new(),
            blast: 1,
            fingerprint: Some("u".to_owned()),
            digest: Some("abc".to_owned()),
            pending_sha256: None,
            before: BTreeMap::new(),
            status: None,
            requests: vec![request],
        };
        Plan { operations: vec![operation], ..Plan::of_nothing("rig", 100) }
    }

    fn put(path: &str) -> Request {
        Request::new(Method::Put, path).guarded()
    }

    #[test]
    fn only_calls_of_the_operations_own_guest_are_taken() {
        let (vm, ha) = (GuestType::Qemu, "/cluster/ha/resources/vm:100");
        assert_eq!(odd(&plan(put("/nodes/pve1/qemu/100/config"))), None);
        assert_eq!(told(Action::Grow, vm, &put("/nodes/pve1/qemu/100/resize")), None);
        assert_eq!(told(Action::Power, vm, &Request::new(Method::Put, ha).with("state", "started")), None);
        for path in [
            "/nodes/pve1/qemu/101/config",
            "/nodes/pve2/qemu/100/config",
            "/nodes/pve1/lxc/100/config",
            "/nodes/pve1/qemu/100/../101/config",
            "/nodes/pve1/qemu/1000/config",
            "/cluster/ha/resources/vm:101",
            "/cluster/ha/resources/ct:100",
            "/access/users/root@pam/config",
        ] {
            let told = odd(&plan(put(path))).unwrap_or_default();
            assert!(
                told.contains("operation 1 (web, guest 100)") && told.contains("plan again"),
                "{path}: {told}"
            );
        }
    }

    #[test]
    fn neither_fingerprint_nor_digest_nor_end_can_be_left_out() {
        let config = || put("/nodes/pve1/qemu/100/config");
        let mut unguarded = config();
        unguarded.with_digest = false;
        assert!(odd(&plan(unguarded)).is_some_and(|told| told.contains("digest")));
        let mut anonymous = plan(config());
        anonymous.operations.iter_mut().for_each(|operation| operation.fingerprint = None);
        assert!(odd(&anonymous).is_some_and(|told| told.contains("fingerprint")));
        let mut stale = plan(config());
        stale.operations.iter_mut().for_each(|operation| operation.digest = None);
        assert!(odd(&stale).is_some_and(|told| told.contains("names no digest")));
        let endless = Plan { expires_at: i64::MAX, ..plan(config()) };
        assert!(odd(&endless).is_some_and(|told| told.contains("3600 s")));
    }

    /// What a plan of this one call is refused with; nothing where it is taken.
    fn told(action: Action, kind: GuestType, request: &Request) -> Option<String> {
        let mut plan = plan(request.clone());
        for operation in &mut plan.operations {
            (operation.action, operation.kind, operation.effect) = (action, kind, Effect::Stop);
        }
        odd(&plan)
    }

    /// A move may free a volume or write over one, and a migration may take others along: with the parameters that are planned alone.
    #[test]
    fn moves_and_migrations_have_no_parameters_but_those_that_are_planned() {
        let (vm, ct) = (GuestType::Qemu, GuestType::Lxc);
        let post = |kind: GuestType, rest: &str| {
            Request::new(Method::Post, format!("/nodes/pve1/{}/100/{rest}", kind.as_str()))
        };
        let disk = post(vm, "move_disk").with("disk", "scsi0").with("storage", "b").with("delete", "1");
        let volume = post(ct, "move_volume").with("volume", "rootfs").with("storage", "b");
        let machine =
            post(vm, "migrate").with("target", "pve2").with("online", "1").with("with-local-disks", "1");
        let container = post(ct, "migrate").with("target", "pve2").with("restart", "1");
        let disk = disk.with("format", "raw").guarded();
        for (action, kind, request, forged) in [
            (Action::Move, vm, disk, &["target-vmid", "target-disk", "bwlimit"][..]),
            (Action::Move, ct, volume.guarded(), &["target-vmid", "target-volume", "bwlimit"]),
            (
                Action::Migrate,
                vm,
                machine,
                &["force", "targetstorage", "migration_network", "migration_type"],
            ),
            (Action::Migrate, ct, container, &["target-storage", "timeout", "bwlimit"]),
        ] {
            assert_eq!(told(action, kind, &request), None, "{request}");
            for name in forged {
                let told = told(action, kind, &request.clone().with(name, "1")).unwrap_or_default();
                assert!(told.contains(&format!("has the parameter {name}: plan again")), "{request}: {told}");
            }
            if action == Action::Move {
                let told = told(action, kind, &Request { with_digest: false, ..request });
                assert!(told.is_some_and(|told| told.contains("does not carry the digest")));
            } else {
                // A plan tells what it does by its actions, and scopes allow it by them.
                let told = told(Action::Configure, kind, &request);
                assert!(told.is_some_and(|told| told.contains("not a call of this guest's")));
            }
        }
    }

    /// A hash shows that a file is whole, not that this program wrote it.
    ///
    /// Seen failing with: calls that carry whatever the file says.
    #[test]
    fn calls_carry_what_their_operation_is_about_and_nothing_else() {
        let (vm, ct) = (GuestType::Qemu, GuestType::Lxc);
        let call = |method, rest: &str| Request::new(method, format!("/nodes/pve1/qemu/100/{rest}"));
        let with_fields = |request: &Request, fields: &[&str]| {
            let mut plan = plan(request.clone());
            let fields: Vec<String> = fields.iter().map(|field| (*field).to_owned()).collect();
            plan.operations.iter_mut().for_each(|operation| operation.fields.clone_from(&fields));
            odd(&plan)
        };
        let config = || call(Method::Post, "config").guarded();
        let disk = config().with("cores", "4").with("scsi1", "lvm:vm-100-disk-1,discard=on");
        assert_eq!(with_fields(&disk, &["cores", "scsi1.discard"]), None);
        assert!(with_fields(&disk, &["cores"]).is_some_and(|told| told.contains("parameter scsi1")));
        for name in ["force", "skiplock", "background_delay", "lock", "revert", "digest", "delete", "unused0"]
        {
            let told = with_fields(&config().with(name, "1"), &[name]).unwrap_or_default();
            assert!(told.contains(&format!("has the parameter {name}: plan again")), "{name}: {told}");
        }
        for name in ["unused0", "lock", "memory"] {
            let mut request = config();
            request.delete.insert(name.to_owned());
            let told = with_fields(&request, &["unused0", "lock"]).unwrap_or_default();
            assert!(told.contains(&format!("removes {name}: plan again")), "{name}: {told}");
        }
        for volume in ["lvm:vm-101-disk-0", "lvm:0,import-from=lvm:vm-101-disk-0", "local:101/x.raw,size=1G"]
        {
            assert!(with_fields(&config().with("scsi1", volume), &["scsi1"]).is_some(), "{volume}");
        }
        let mut leaks = config();
        let secret = crate::document::SecretRef::Env("X".to_owned());
        leaks.set.insert("description".to_owned(), crate::plan::FormValue::Secret { secret });
        assert!(with_fields(&leaks, &["description"]).is_some_and(|told| told.contains("secret")));

        let ha = |kind: GuestType| {
            let sid = if kind == vm { "vm" } else { "ct" };
            Request::new(Method::Put, format!("/cluster/ha/resources/{sid}:100")).with("state", "started")
        };
        let lxc = |rest: &str| Request::new(Method::Post, format!("/nodes/pve1/lxc/100/{rest}"));
        let snapshot = call(Method::Post, "snapshot").with("snapname", "a");
        let grow = call(Method::Put, "resize").with("disk", "scsi0").with("size", "9G").guarded();
        for (action, kind, request, name) in [
            (Action::Power, vm, call(Method::Post, "status/start"), "skiplock"),
            (Action::Power, vm, call(Method::Post, "status/start"), "stateuri"),
            (Action::Power, ct, lxc("status/start"), "debug"),
            (Action::Power, vm, ha(vm), "group"),
            (Action::Power, ct, ha(ct), "max_relocate"),
            (Action::Snapshot, vm, snapshot, "force"),
            (Action::Template, vm, call(Method::Post, "template"), "disk"),
            (Action::Grow, vm, grow.clone(), "skiplock"),
        ] {
            assert_eq!(told(action, kind, &request), None, "{request}");
            let told = told(action, kind, &request.clone().with(name, "1")).unwrap_or_default();
            assert!(told.contains(&format!("has the parameter {name}: plan again")), "{request}: {told}");
        }
        assert!(told(Action::Grow, vm, &grow.with("size", "+9G")).is_some());
        for (action, request) in [
            (Action::Power, Request { method: Method::Delete, ..ha(vm) }),
            (Action::Power, ha(vm).with("state", "ignored")),
            (Action::Power, call(Method::Post, "status/stop")),
            (Action::Configure, call(Method::Post, "status/start")),
            (Action::Mark, config().with("cores", "4")),
        ] {
            assert!(told(action, vm, &request).is_some(), "{action:?} {request}");
        }
    }

    /// Limits of what may go down are counted by effects.
    ///
    /// Seen failing with: the file's word for what a call does.
    #[test]
    fn an_operation_says_at_least_what_its_calls_do() {
        let post = |rest: &str| Request::new(Method::Post, format!("/nodes/pve1/qemu/100/{rest}"));
        let ha = Request::new(Method::Put, "/cluster/ha/resources/vm:100").with("state", "stopped");
        for (action, request, effect) in [
            (Action::Power, post("status/shutdown"), Effect::Stop),
            (Action::Power, ha, Effect::Stop),
            (Action::Power, post("status/reboot"), Effect::Restart),
            (Action::Configure, post("status/reboot"), Effect::Restart),
            (Action::RestoreSnapshot, post("snapshot/a/rollback"), Effect::Restart),
            (Action::Migrate, post("migrate").with("target", "b").with("restart", "1"), Effect::Restart),
        ] {
            let mut plan = plan(request.clone());
            plan.operations.iter_mut().for_each(|operation| operation.action = action);
            let told = odd(&plan).unwrap_or_default();
            assert!(told.contains(&format!("its calls are: {effect}: plan again")), "{request}: {told}");
            plan.operations.iter_mut().for_each(|operation| operation.effect = effect);
            assert_eq!(odd(&plan), None, "{request}");
        }
    }
}
