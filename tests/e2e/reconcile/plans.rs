//! Plans over a simulated cluster, on both stores: made, explained, approved. Nothing is changed at the cluster.

use std::fs;

use pve_sim::{AUDIT_TOKEN, GuestSpec, Power, ROOT_TOKEN, SimServer};
use pvegraph_reconcile::plan::Plan;
use serde_json::{Value, json};

use super::{SEED, document, put, serve, whole, with_token};
use crate::on_both_stores;
use crate::support::{Graph, Ran, Rig};

/// Machines that are desired as they are, bound and managed, in one scope; their numbers.
pub async fn managed(graph: &Graph) -> (SimServer, Rig, Vec<u32>) {
    let server = serve(20, SEED).await;
    let world = server.world().unwrap();
    let vmids = vec![500, 501, 502];
    for vmid in &vmids {
        let spec = GuestSpec::qemu(*vmid, &format!("web{vmid}")).node("pve1").power(Power::Running);
        let spec =
            spec.disk("scsi0", "local-lvm", 8, "iothread=1").config("cores", 2).config("memory", "1024");
        world.add_guest(spec.config("net0", "virtio=BC:24:11:00:00:01,bridge=vmbr0,mtu=1400")).unwrap();
    }
    let rig = with_token(Rig::new(graph), &server, AUDIT_TOKEN);
    rig.sync(0).await;
    rig.run(&["adopt", "500", "501", "502"]).await.ended(0);
    rig.run(&["adopt", "500", "501", "502", "--manage"]).await.ended(0);
    rig.run(&["scope", "set", "lab", "--vmids", "500-599"]).await.ended(0);
    (server, rig, vmids)
}

/// Changes what is desired of guests, by number.
pub async fn desire(rig: &Rig, changes: &[(u32, Value)]) {
    rig.run(&["desired", "export", "--to", "estate.json"]).await.ended(0);
    let mut estate = document(rig);
    let machines = estate["plugins"]["proxmox"]["vms"].as_array_mut().unwrap();
    for (vmid, change) in changes {
        let guest = machines.iter_mut().find(|guest| guest["vmid"] == *vmid).unwrap();
        for (key, value) in change.as_object().unwrap() {
            guest[key] = value.clone();
        }
    }
    put(rig, "estate.json", &estate);
    rig.run(&["desired", "import", "estate.json"]).await.ended(0);
}

/// Plans with the marker for the first machine.
pub async fn plan(rig: &Rig, code: i32, more: &[&str]) -> Ran {
    let args = [&["plan", "--mark", "vm-500", "--out", "plan.json", "-o", "json"], more].concat();
    rig.run(&args).await.ended(code)
}

fn file(rig: &Rig) -> String {
    fs::read_to_string(rig.dir.path().join("plan.json")).unwrap()
}

async fn adopting_plans_nothing_and_managing_needs_scope_and_marker(graph: &Graph) {
    let (server, rig, _) = managed(graph).await;
    let world = server.world().unwrap();
    rig.run(&["plan", "--exit-code"]).await.ended(0);
    // Adopted as observed: nothing is planned for it whatever happens.
    world.add_guest(GuestSpec::qemu(503, "watched").node("pve1")).unwrap();
    rig.run(&["adopt", "503"]).await.ended(0);
    world.set_config(503, "name", "other").unwrap();
    let ran = rig.run(&["plan", "--exit-code", "-o", "json"]).await.ended(0);
    assert_eq!(ran.json()["observed"], json!(["vm-503"]));
    world.set_config(503, "name", "watched").unwrap();

    desire(&rig, &[(500, json!({ "name": "new" }))]).await;
    let before = whole(&server);
    rig.run(&["plan"]).await.ended(6).says(&["vm-500 (guest 500)", "`marker`", "--mark vm-500"]);
    rig.run(&["scope", "set", "lab", "--pause"]).await.ended(0);
    rig.run(&["plan"]).await.ended(6).says(&["`scope`", "lab is paused"]);
    rig.run(&["scope", "set", "lab", "--resume", "--vmids", "600-699"]).await.ended(0);
    rig.run(&["plan"]).await.ended(6).says(&["`vmid`", "500 is in no scope"]);
    rig.run(&["scope", "remove", "lab"]).await.ended(0);
    rig.run(&["plan"]).await.ended(6).says(&["500 is in no scope", "pvegraph scope set"]);
    rig.run(&["scope", "set", "lab", "--vmids", "500-599", "--allow", "power"]).await.ended(0);
    plan(&rig, 6, &[]).await.says(&["does not allow to configure"]);
    rig.run(&["scope", "set", "lab", "--allow", "configure"]).await.ended(0);

    let ran = plan(&rig, 5, &["--exit-code"]).await;
    let rows = ran.rows();
    let actions: Vec<_> = rows.iter().map(|row| (&row["action"], &row["effect"])).collect();
    assert_eq!(actions, [(&json!("mark"), &json!("hot")), (&json!("configure"), &json!("hot"))]);
    assert_eq!(rows[1]["why"], json!(["name: web500 → new"]));
    let file: Value = serde_json::from_str(&file(&rig)).unwrap();
    assert_eq!(file["sha256"], ran.json()["sha256"]);
    let operation = &file["plan"]["operations"][1];
    assert_eq!(operation["vmid"], 500);
    assert_eq!(operation["requests"][0]["path"], "/nodes/pve1/qemu/500/config");
    assert_eq!(operation["requests"][0]["set"], json!({ "name": "new" }));
    for key in ["digest", "pending_sha256", "fingerprint"] {
        assert!(operation[key].is_string(), "{key}: {operation}");
    }
    let table = rig.run(&["plan", "--mark", "vm-500"]).await.ended(0);
    assert!(table.out.trim_end().ends_with("restarts: 0  deletes: 0  blast: 1"), "{}", table.out);

    // Without quorum nothing may be written.
    world.set_quorum(false);
    plan(&rig, 6, &[]).await.says(&["quorum"]);
    world.set_quorum(true);
    assert_eq!(whole(&server), before, "nothing was changed at the cluster");
    server.shutdown().await;
}
on_both_stores!(managed_ones => adopting_plans_nothing_and_managing_needs_scope_and_marker);

async fn the_marker_is_no_difference(graph: &Graph) {
    let (server, rig, _) = managed(graph).await;
    desire(&rig, &[(500, json!({ "tags": ["b", "a"], "description": "web" }))]).await;
    let ran = plan(&rig, 0, &[]).await;
    assert_eq!(ran.rows().len(), 2);
    // As the calls would leave it.
    let world = server.world().unwrap();
    world.set_config(500, "tags", "a;b;pvegraph").unwrap();
    world.set_config(500, "description", "web\n\n[pvegraph:rig/vm-500]").unwrap();
    rig.run(&["drift"]).await.ended(0);
    rig.run(&["plan", "--exit-code"]).await.ended(0);
    rig.run(&["plan", "--exit-code", "--mark", "vm-500"]).await.ended(0);
    // What is discovered and adopted is the guest without it.
    rig.run(&["discover", "--export", "--to", "estate.json"]).await.ended(0);
    let estate = document(&rig).to_string();
    assert!(estate.contains("\"tags\":[\"a\",\"b\"]") && !estate.contains("pvegraph:"), "{estate}");
    // Somebody took it off: it is nobody's guest now.
    world.set_config(500, "tags", "a;b").unwrap();
    world.set_config(500, "name", "other").unwrap();
    rig.run(&["plan"]).await.ended(6).says(&["`marker`"]);
    server.shutdown().await;
}
on_both_stores!(marked => the_marker_is_no_difference);

async fn a_plan_file_is_approved_as_it_is_and_in_time(graph: &Graph) {
    let (server, rig, _) = managed(graph).await;
    let before = whole(&server);
    desire(
        &rig,
        &[(500, json!({ "cores": 4, "reboot": "allow" })), (501, json!({ "depends_on": ["vm-500"] }))],
    )
    .await;
    let sha256 = plan(&rig, 0, &[]).await.json()["sha256"].clone();
    let good = file(&rig);
    let refused = async |text: &str, code: i32, words: &[&str]| {
        fs::write(rig.dir.path().join("bad.json"), text).unwrap();
        rig.run(&["approve", "bad.json", "--by", "kim"]).await.ended(code).says(words);
        assert_eq!(rig.nodes("Plan").await.len(), 0);
    };
    refused(&good.replace("\"cores\":\"4\"", "\"cores\":\"8\""), 7, &["bad.json", "edited", "plan again"])
        .await;
    let mut old = Plan::from_file(&good, 0).unwrap_or_else(|_| {
        let made_at = serde_json::from_str::<Value>(&good).unwrap()["plan"]["made_at"].as_i64().unwrap();
        Plan::from_file(&good, made_at).unwrap()
    });
    let fresh = old.clone();
    (old.made_at, old.expires_at) = (1_000, 4_600);
    refused(&old.to_file(), 7, &["bad.json", "stale", "plan again"]).await;
    refused(&good.replace("\"version\":3", "\"version\":9"), 7, &["version 9", "plan again"]).await;
    refused("hunter2", 10, &["bad.json", "no plan"]).await;
    let mut blocked = fresh.clone();
    blocked.blocked.push(pvegraph_reconcile::desired::Problem::new("vm-500", "lock", "wait").into());
    refused(&blocked.to_file(), 6, &["vm-500: `lock`: wait"]).await;
    rig.run(&["approve", "absent.json", "--by", "kim"]).await.ended(10).says(&["absent.json"]);
    // There is no user in this environment.
    rig.run(&["approve", "plan.json"]).await.ended(10).says(&["--by NAME"]);

    rig.run(&["approve", "plan.json", "--by", "kim", "--minutes", "5"]).await.ended(0);
    let stored = &rig.nodes("Plan").await[0];
    assert_eq!((&stored["sha256"], &stored["approver"]), (&sha256, &json!("kim")));
    let until = stored["approval_expires_at"].as_i64().unwrap();
    assert_eq!(until - stored["approved_at"].as_i64().unwrap(), 300);
    let operations = rig.nodes("PlanOp").await;
    assert_eq!(operations.len(), 2);
    assert!(
        operations.iter().any(|op| op["requests"].to_string().contains("/status/reboot")),
        "{operations:?}"
    );
    let felt = rig
        .read(
            "MATCH (p:Plan)-[:HAS_OP]->(o:PlanOp)-[:AFFECTS]->(v:DesiredVM) \
             RETURN o.number AS number, v.uid AS uid ORDER BY number, uid",
        )
        .await;
    let felt: Vec<_> =
        felt.iter().map(|row| (row["number"].as_i64().unwrap(), row["uid"].as_str().unwrap())).collect();
    assert_eq!(felt, [(1, "vm-500"), (2, "vm-500"), (2, "vm-501")]);
    // Once more is the same plan, with the later approval.
    rig.run(&["approve", "plan.json", "--by", "sam"]).await.ended(0);
    let stored = rig.nodes("Plan").await;
    assert_eq!((stored.len(), &stored[0]["approver"]), (1, &json!("sam")));

    // What is desired is another matter now.
    desire(&rig, &[(500, json!({ "cores": 3 }))]).await;
    rig.run(&["approve", "plan.json", "--by", "kim"]).await.ended(7).says(&["generation", "plan again"]);
    assert_eq!(whole(&server), before);
    server.shutdown().await;
}
on_both_stores!(approved => a_plan_file_is_approved_as_it_is_and_in_time);

/// Seen failing with: operations of which nothing is noted.
async fn a_run_and_what_it_did_are_nodes(graph: &Graph) {
    let (server, rig, _) = managed(graph).await;
    let mut rig = with_token(rig.without_clusters(), &server, ROOT_TOKEN);
    rig.settings = "\n[apply]\ndirectory = \"state\"\n".to_owned();
    desire(&rig, &[(500, json!({ "name": "new" }))]).await;
    plan(&rig, 0, &[]).await;
    rig.run(&["apply", "plan.json", "--auto-approve"]).await.ended(0);
    let [run] = rig.nodes("Run").await.try_into().expect("one run");
    assert_eq!((&run["state"], &run["done"], &run["open"]), (&json!("applied"), &json!(2), &json!(false)));
    let did = rig
        .read(
            "MATCH (r:Run)-[d:DID]->(o:PlanOp)-[:AFFECTS]->(g:ProxmoxVM) \
             RETURN o.action AS action, d.result AS result, g.vmid AS vmid ORDER BY action",
        )
        .await;
    let row = |action: &str| json!({ "action": action, "result": "done", "vmid": 500 });
    assert_eq!(did, [row("configure"), row("mark")]);
    let plan = &rig
        .read("MATCH (:Run)-[:OF_PLAN]->(p:Plan) RETURN p.approver AS approver, p.operations AS operations")
        .await;
    assert_eq!(plan, &[json!({ "approver": null, "operations": 2 })]);
    server.shutdown().await;
}
on_both_stores!(noted => a_run_and_what_it_did_are_nodes);

async fn why_tells_reasons_calls_edges_and_what_blocks(graph: &Graph) {
    let (server, rig, _) = managed(graph).await;
    let changes =
        json!({ "cores": 4, "reboot": "allow", "scsi0": { "storage": "local-lvm", "size": "16G" } });
    desire(
        &rig,
        &[
            (500, changes),
            (501, json!({ "depends_on": ["vm-500"] })),
            (502, json!({ "depends_on": ["vm-501"] })),
        ],
    )
    .await;
    let lines = async |uid: &str| -> Vec<String> {
        let ran = rig.run(&["why", uid, "--mark", "vm-500", "-o", "json"]).await.ended(0);
        let text = |row: &Value| {
            let word = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
            format!("{} {}: {}", word("what"), word("subject"), word("text"))
        };
        ran.rows().iter().map(text).collect()
    };
    let told = lines("vm-500").await.join("\n");
    for words in [
        "does grow: hot (can't be taken back)",
        "because scsi0.size: 8G → 16G, by generation",
        "asks PUT /nodes/pve1/qemu/500/resize: disk=scsi0 size=16G",
        "touches vm-500: vm-501 → vm-500 → scsi0 → local-lvm → pve1",
        "does configure: restart (can be taken back)",
        "after 1: mark vm-500",
        "felt by vm-501: vm-501 → vm-500",
        "felt by vm-502: vm-502 → vm-501 → vm-500",
    ] {
        assert!(told.contains(words), "{words:?} is not in\n{told}");
    }
    let told = lines("vm-502").await.join("\n");
    assert!(told.contains("because vm-500: vm-502 → vm-501 → vm-500 depends on it"), "{told}");
    server.world().unwrap().set_config(500, "lock", "backup").unwrap();
    let told = lines("vm-500").await.join("\n");
    assert!(told.contains("blocked vm-500 (guest 500) `lock`: Proxmox VE has it locked (backup)"), "{told}");
    rig.run(&["why", "vm-5"]).await.ended(10).says(&["no desired guest \"vm-5\"", "did you mean vm-50"]);
    server.shutdown().await;
}
on_both_stores!(explained => why_tells_reasons_calls_edges_and_what_blocks);

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_is_planned_with_every_key_only() {
    let (server, rig, _) = managed(&Graph::Embedded).await;
    let world = server.world().unwrap();
    world.set_config(500, "tags", "pvegraph").unwrap();
    world.set_config(500, "description", "[pvegraph:rig/vm-500]").unwrap();
    let plan = async |code: i32, more: &[&str], words: &[&str]| {
        let args = [&["plan", "-o", "json"], more].concat();
        rig.run(&args).await.ended(code).says(words)
    };
    let agreed = ["--allow-delete", "vm-500"];
    plan(6, &agreed, &["nobody desires its deletion"]).await;
    desire(&rig, &[(500, json!({ "tombstone": true }))]).await;
    plan(6, &agreed, &["`deletion` is `forbid`"]).await;
    desire(&rig, &[(500, json!({ "deletion": "destroy" }))]).await;
    plan(6, &agreed, &["does not allow to destroy"]).await;
    rig.run(&["scope", "set", "lab", "--allow", "configure,destroy"]).await.ended(0);
    plan(6, &agreed, &["allows 0 deletions"]).await;
    rig.run(&["scope", "set", "lab", "--max-deletes", "1"]).await.ended(0);
    plan(6, &[], &["--allow-delete vm-500"]).await;
    plan(6, &agreed, &["`state`", "it is running: stop it first"]).await;
    world.edit_guest(500, |guest| guest.power = Power::Stopped).unwrap();
    world.set_config(500, "protection", 1).unwrap();
    plan(6, &agreed, &["protected"]).await;
    world.set_config(500, "protection", 0).unwrap();
    let ran = plan(0, &agreed, &[]).await;
    assert_eq!((&ran.rows()[0]["action"], &ran.json()["deletes"]), (&json!("destroy"), &json!(1)));
    // It went missing here: that is no deletion.
    rig.run(&["desired", "export", "--to", "estate.json"]).await.ended(0);
    let mut estate = document(&rig);
    estate["plugins"]["proxmox"]["vms"].as_array_mut().unwrap().retain(|guest| guest["vmid"] != 500);
    put(&rig, "estate.json", &estate);
    rig.run(&["desired", "import", "estate.json", "--prune"]).await.ended(0);
    plan(0, &["--exit-code"], &[]).await;
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_cluster_does_not_have_is_refused_before_anything_is_asked_of_it() {
    let (server, rig, _) = managed(&Graph::Embedded).await;
    let before = whole(&server);
    let new = |guest: Value| json!({ "version": 1, "plugins": { "proxmox": { "containers": [guest] } } });
    let template = "local:vztmpl/none.tar.zst";
    let cases = [
        (json!({ "ostemplate": template, "node": "pve1" }), vec!["`ostemplate`", "no template"]),
        (
            json!({ "ostemplate": template, "node": "pve1", "net0": { "name": "eth0", "bridge": "vmbr99" } }),
            vec!["`net0.bridge`", "no bridge \"vmbr99\"", "vmbr0"],
        ),
        (json!({ "node": "pve1" }), vec!["`ostemplate`", "made from a template"]),
        (
            json!({ "vmid": 700, "node": "pve1", "ostemplate": template }),
            vec!["`vmid`", "700 is in no scope"],
        ),
    ];
    for (mut guest, words) in cases {
        guest["uid"] = json!("new");
        put(&rig, "new.json", &new(guest));
        rig.run(&["desired", "import", "new.json"]).await.ended(0);
        rig.run(&["plan"]).await.ended(6).says(&words);
        rig.run(&["desired", "export", "--to", "estate.json"]).await.ended(0);
        let mut estate = document(&rig);
        estate["plugins"]["proxmox"].as_object_mut().unwrap().remove("containers");
        put(&rig, "estate.json", &estate);
        rig.run(&["desired", "import", "estate.json", "--prune"]).await.ended(0);
    }
    // A new machine gets a free number of the scope.
    let machine = json!({
        "uid": "new", "node": "pve1", "name": "new", "scsi0": { "storage": "local-lvm", "size": "4G" },
        "net0": { "model": "virtio", "bridge": "vmbr0" },
    });
    put(&rig, "new.json", &json!({ "version": 1, "plugins": { "proxmox": { "vms": [machine] } } }));
    rig.run(&["desired", "import", "new.json"]).await.ended(0);
    let ran = rig.run(&["plan", "-o", "json"]).await.ended(0);
    assert_eq!((&ran.rows()[0]["action"], &ran.rows()[0]["vmid"]), (&json!("create"), &json!(503)));
    assert_eq!(whole(&server), before);
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_is_planned_where_proxmox_lets_it() {
    let (server, rig, _) = managed(&Graph::Embedded).await;
    // Proxmox VE tells where a guest may go to those only who may move it.
    let rig = with_token(rig.without_clusters(), &server, ROOT_TOKEN);
    desire(&rig, &[(500, json!({ "node": "pve2" }))]).await;
    plan(&rig, 6, &[]).await.says(&["`local_disks`", "volumes that only pve1 has"]);
    desire(&rig, &[(500, json!({ "node": "pve2", "local_disks": "migrate" }))]).await;
    let ran = plan(&rig, 0, &[]).await;
    let rows = ran.rows();
    assert_eq!((&rows[1]["action"], &rows[1]["effect"]), (&json!("migrate"), &json!("move")));
    let file: Value = serde_json::from_str(&file(&rig)).unwrap();
    let set = &file["plan"]["operations"][1]["requests"][0]["set"];
    assert_eq!(set, &json!({ "online": "1", "target": "pve2", "with-local-disks": "1" }));
    server.world().unwrap().set_node_online("pve2", false).unwrap();
    plan(&rig, 6, &[]).await.says(&["`node`", "pve2 is offline"]);
    // One of several.
    desire(
        &rig,
        &[(
            500,
            json!({ "node": null, "nodes": ["pve2", "pve3"], "prefer": ["pve2"], "local_disks": "migrate" }),
        )],
    )
    .await;
    let ran = plan(&rig, 0, &[]).await;
    let why = ran.rows()[1]["why"].to_string();
    assert!(
        why.contains("node: pve1 → pve3") && why.contains("not pve2, `node`: the node pve2 is offline"),
        "{why}"
    );
    server.shutdown().await;
}

/// Seen failing with: snapshots of which nobody asks what they are of.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_moves_unless_a_snapshot_is_of_it() {
    let (server, rig, _) = managed(&Graph::Embedded).await;
    let world = server.world().unwrap();
    let other = world.read(|state| {
        let usable = |storage: &&pve_sim::Storage| {
            storage.id != "local-lvm"
                && !storage.disabled
                && storage.content.split(',').any(|kind| kind == "images")
        };
        state.storages.values().find(|one| usable(one) && one.is_for_node("pve1")).unwrap().id.clone()
    });
    let root = pve_sim::Principal::parse("root@pam");
    let taken = world.request(&root, "POST", "/nodes/pve1/qemu/500/snapshot", &[("snapname", "before")]);
    assert!(taken.is_ok(), "{taken:?}");
    world.set_config(500, "scsi1", "local-lvm:vm-500-disk-7,size=4G").unwrap();
    let moved = |key: &str, size: &str| json!({ key: { "storage": other, "size": size } });
    desire(&rig, &[(500, moved("scsi1", "4G"))]).await;
    let ran = plan(&rig, 0, &[]).await;
    assert_eq!(ran.rows()[1]["action"], "move", "it came after the snapshot");
    desire(&rig, &[(500, moved("scsi0", "8G"))]).await;
    plan(&rig, 6, &[]).await.says(&["vm-500 (guest 500): `scsi0.storage`", "snapshots", "remove them first"]);
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn scopes_are_refused_where_they_can_not_be() {
    let (server, rig, _) = managed(&Graph::Embedded).await;
    let cases: [(&[&str], i32, &[&str]); 6] = [
        (&["set", "b", "--vmids", "599-700"], 10, &["in common"]),
        (&["set", "b", "--vmids", "700-600"], 10, &["no range"]),
        (&["set", "b"], 10, &["--vmids FIRST-LAST"]),
        (&["set", "b", "--vmids", "1"], 2, &["FIRST-LAST"]),
        (&["set", "lab", "--allow", "destory"], 2, &["destroy"]),
        (&["remove", "b"], 10, &["no scope \"b\"", "lab"]),
    ];
    let before = rig.nodes("ManagedScope").await;
    for (args, code, words) in cases {
        rig.run(&[&["scope"], args].concat()).await.ended(code).says(words);
        assert_eq!(rig.nodes("ManagedScope").await, before);
    }
    let rows = rig.run(&["scope", "list", "-o", "json"]).await.ended(0).rows();
    let allow = rows[0]["allow"].as_array().unwrap();
    assert!(!allow.contains(&json!("destroy")) && allow.contains(&json!("configure")), "{rows:?}");
    assert_eq!(rows[0]["max_deletes"], 0);
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_was_made_without_a_number_is_found_by_its_binding() {
    let db = pvegraph_testkit::emptied().await;
    let (server, rig, _) = managed(&Graph::Neo4j((*db).clone())).await;
    db.cypher("MATCH (v:DesiredVM {uid: 'vm-500'}) REMOVE v.vmid", json!({})).await;
    rig.run(&["drift"]).await.ended(0);
    rig.run(&["plan", "--exit-code"]).await.ended(0);
    db.cypher("MATCH (v:DesiredVM {uid: 'vm-500'}) SET v.cores = 4", json!({})).await;
    let ran = plan(&rig, 0, &[]).await;
    assert_eq!((&ran.rows()[1]["action"], &ran.rows()[1]["vmid"]), (&json!("configure"), &json!(500)));
    server.shutdown().await;
}
