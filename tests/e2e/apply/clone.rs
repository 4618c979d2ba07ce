//! Guests that are copied from a template: identity, configuration, and what becomes of a copy that was half made.

use pve_sim::{Fault, FaultRule, GuestSpec};
use serde_json::{Value, json};

use super::Bench;
use super::hot::results;

const SOURCE: u32 = 9000;
const CLONE: &str = "/nodes/pve1/qemu/9000/clone";
const MAC: &str = "BC:24:11:00:90:00";

fn entry(uid: &str, more: Value) -> Value {
    let mut entry = json!({ "uid": uid, "name": uid, "clone": { "from": "golden", "full": true } });
    for (key, value) in more.as_object().unwrap() {
        entry[key] = value.clone();
    }
    entry
}

impl Bench {
    /// A template that nobody manages, with a text and tags of its own.
    fn add_template(&self) {
        let spec = GuestSpec::qemu(SOURCE, "golden").node("pve1").disk("scsi0", "local-lvm", 4, "discard=on");
        let spec = spec.config("net0", format!("virtio={MAC},bridge=vmbr0,firewall=1")).config("cores", 1);
        let spec = spec.config("tags", "image").config("description", "the image\n\n[pvegraph:rig/other]");
        self.world().add_guest(spec.config("template", 1)).unwrap();
        let base = self.option(SOURCE, "scsi0").replace("vm-9000-disk", "base-9000-disk");
        self.world().set_config(SOURCE, "scsi0", base).unwrap();
    }

    /// Desires copies, and names the template.
    async fn copies(&self, guests: &[Value]) {
        self.desire_too(json!({ "templates": { "golden": { "vmid": SOURCE } }, "vms": guests })).await;
    }

    fn clones(&self) -> usize {
        self.tasks("qmclone", SOURCE)
    }
}

/// Seen failing with: a tag of another guest's marker that stays; the template's address in what is written.
#[tokio::test(flavor = "multi_thread")]
async fn copies_are_made_their_own_and_the_next_plan_is_empty() {
    let bench = Bench::new().await;
    bench.add_template();
    let before = bench.guests();
    bench
        .copies(&[
            entry("web", json!({
                "state": "running", "cores": 2, "memory": 1024, "tags": ["prod"], "description": "hunter2", "scsi0": { "size": "10G", "iothread": true },
                "net0": { "tag": 7 }, "ipconfig0": { "ip": "dhcp" }, "ciuser": "admin", "sshkeys": ["ssh-ed25519 AAAA a@b"],
                "scsi1": { "storage": "local-lvm", "size": "1G" },
            })),
            entry("db", json!({ "clone": { "from": SOURCE }, "depends_on": ["web"] })),
        ])
        .await;
    bench.plan().await;
    let ran = bench.apply(&["-vv"]).await.ended(0);
    assert!(!ran.err.contains("hunter2"), "{}", ran.err);
    assert!(results(&ran).iter().all(|(_, result)| result == "done"), "{:?}", results(&ran));
    let (db, web) = (110, 111);
    let nic = bench.option(web, "net0");
    assert!(
        nic.starts_with("virtio=BC:24:11:")
            && !nic.contains(MAC)
            && nic.ends_with(",bridge=vmbr0,firewall=1,tag=7"),
        "{nic}"
    );
    let disk = bench.option(web, "scsi0");
    assert!(
        disk.starts_with("local-lvm:vm-111-disk-0,")
            && disk.contains("discard=on")
            && disk.contains("iothread=1")
            && disk.contains("size=10G"),
        "{disk}"
    );
    assert!(bench.option(web, "scsi1").contains("size=1G") && bench.option(web, "unused0").is_empty());
    assert_eq!(bench.option(web, "tags"), "prod;pvegraph");
    assert_eq!(bench.option(web, "description"), "hunter2\n\n[pvegraph:rig/web]");
    assert!(bench.world().read(|state| state.guests[&web].is_running()));
    assert!(
        bench.option(db, "scsi0").starts_with("local-lvm:base-9000-disk-0/vm-110-disk-0,"),
        "it builds on the template"
    );
    assert_eq!(
        (bench.option(db, "tags"), bench.option(db, "description")),
        ("image;pvegraph".to_owned(), "the image\n\n[pvegraph:rig/db]".to_owned())
    );
    let now = bench.guests();
    assert!(before.iter().all(|(vmid, guest)| now.get(vmid) == Some(guest)), "no other guest is another");
    assert_eq!((now.len(), bench.clones()), (before.len() + 2, 2));
    let binding = bench.binding("web").await;
    assert_eq!(bench.option(web, "smbios1"), format!("uuid={}", binding["fingerprint"].as_str().unwrap()));
    assert_eq!(bench.plan().await.rows(), Vec::<Value>::new());
    let copied = bench.rig.read("MATCH (d:DesiredVM {uid: 'web'}) RETURN d.clone_from AS name").await;
    assert_eq!(copied[0]["name"], "golden");
    // What the document says comes back from the graph.
    bench.rig.run(&["desired", "export", "--to", "estate.json"]).await.ended(0);
    let ran = bench.rig.run(&["desired", "import", "estate.json", "-o", "json"]).await.ended(0);
    assert_eq!(ran.rows(), Vec::<Value>::new());

    // A name that there is not is refused when it is imported, a number when it is planned.
    let unknown = json!({ "version": 1, "plugins": { "proxmox": { "vms": [entry("no", json!({ "clone": { "from": "nobody" } }))] } } });
    std::fs::write(bench.rig.dir.path().join("unknown.json"), unknown.to_string()).unwrap();
    bench
        .rig
        .run(&["desired", "import", "unknown.json"])
        .await
        .ended(10)
        .says(&["no: `clone.from`", "\"nobody\""]);
    bench.copies(&[entry("no", json!({ "clone": { "from": 9999 } }))]).await;
    bench.rig.run(&["plan"]).await.ended(6).says(&["no: `clone.from`", "no guest 9999"]);
    bench.server.shutdown().await;
}

/// Seen failing with: a plan that takes what was half made for another guest.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_was_half_made_is_told_and_finished_by_the_next_plan() {
    let bench = Bench::new().await;
    bench.add_template();
    let faults = bench.server.faults();
    let status = |reason: &str| Fault::Status { status: 500, reason: reason.to_owned() };

    // It has the line of its description, and not the tag.
    bench.copies(&[entry("web", json!({ "cores": 2, "net0": { "tag": 7 } }))]).await;
    bench.plan().await;
    faults.add(FaultRule::at("/nodes/pve1/qemu/110/config", status("no tags today")).method("PUT").times(1));
    bench.apply(&[]).await.ended(3).says(&["web (guest 110)", "half done", "no tags today"]);
    assert!(bench.binding("web").await["run"].is_string(), "its number is kept");
    let rows = bench.plan().await.rows();
    let actions: Vec<&str> = rows.iter().map(|row| row["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["mark", "configure"], "{rows:?}");
    bench.apply(&[]).await.ended(0);
    assert_eq!(
        (bench.option(110, "tags"), bench.option(110, "cores"), bench.clones()),
        ("image;pvegraph".to_owned(), "2".to_owned(), 1)
    );
    assert_eq!(bench.binding("web").await["run"], Value::Null);
    assert_eq!(bench.plan().await.rows(), Vec::<Value>::new());

    // It is bound, and what comes after failed.
    bench.copies(&[entry("db", json!({ "scsi0": { "size": "9G" }, "cores": 2 }))]).await;
    bench.plan().await;
    faults.add(FaultRule::at("/nodes/pve1/qemu/111/resize", status("no room")).times(1));
    bench.apply(&[]).await.ended(3).says(&["db (guest 111)", "no room"]);
    assert_eq!(bench.binding("db").await["run"], Value::Null);
    bench.plan().await;
    bench.apply(&[]).await.ended(0);
    assert_eq!(bench.plan().await.rows(), Vec::<Value>::new());

    // The template is not what the plan was made of.
    bench.copies(&[entry("cache", json!({}))]).await;
    bench.plan().await;
    bench.world().set_config(SOURCE, "cores", 3).unwrap();
    bench.apply(&[]).await.ended(7).says(&["cache (guest 112)", "`clone.from`", "9000", "plan again"]);
    bench.plan().await;
    bench.world().set_config(SOURCE, "lock", "backup").unwrap();
    bench.apply(&[]).await.ended(7).says(&["`clone.from`", "locked (backup)"]);
    bench.world().delete_config(SOURCE, "lock").unwrap();
    assert_eq!(bench.clones(), 2);

    // The answer is lost; killed while PVE copies: the task is its source's.
    faults.add(FaultRule::at(CLONE, Fault::LoseAnswer).times(1));
    bench.apply(&[]).await.ended(0);
    bench.copies(&[entry("mail", json!({ "cores": 2, "state": "running" }))]).await;
    bench.plan().await;
    // Some seconds: longer than killing the one process and starting the other.
    bench.world().set_time_scale(0.6);
    faults.add(FaultRule::at(CLONE, Fault::LoseAnswer).times(1));
    let mut command = bench.rig.command(&["apply", "plan.json", "--auto-approve"]);
    let mut child =
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap();
    while bench.clones() < 4 {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    child.kill().await.unwrap();
    bench.rig.run(&["resume"]).await.ended(0);
    bench.world().set_time_scale(0.0);
    assert_eq!((bench.clones(), bench.option(113, "cores")), (4, "2".to_owned()));
    assert!(bench.world().read(|state| state.guests[&113].is_running()));
    assert_eq!(bench.plan().await.rows(), Vec::<Value>::new());
    bench.rig.run(&["audit", "verify"]).await.ended(0);
    bench.server.shutdown().await;
}
