//! A small estate that is bound, marked and in a scope, and what tests do with it.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use pve_sim::{GuestSpec, Power, ROOT_TOKEN, SimOptions, SimServer, World, WorldSpec};
use pvegraph_testkit::{Exclusive, Neo4jServer, emptied};
use serde_json::{Value, json};

use crate::support::{Graph, Ran, Rig};

/// Machines 100 to 109, containers 200 to 203, half of them running.
pub struct Bench {
    pub server: SimServer,
    pub rig: Rig,
    db: Neo4jServer,
    _shared: Option<Exclusive>,
}

pub fn vm(vmid: i64) -> String {
    format!("vm-{vmid}")
}

impl Bench {
    /// The estate with a mark on each guest, put there by an apply.
    pub async fn new() -> Self {
        let shared = emptied().await;
        let bench = Self::on((*shared).clone()).await;
        Self { _shared: Some(shared), ..bench }
    }

    /// The same on a server of the test's own.
    pub async fn on(db: Neo4jServer) -> Self {
        let bench = Self::unmarked(db).await;
        let uids: Vec<String> = bench.uids();
        let mut args = vec!["plan", "--out", "plan.json"];
        uids.iter().for_each(|uid| args.extend(["--mark", uid]));
        bench.rig.run(&args).await.ended(0);
        bench.apply(&[]).await.ended(0);
        bench
    }

    pub fn uids(&self) -> Vec<String> {
        (100..110).map(vm).chain((200..204).map(|vmid| format!("ct-{vmid}"))).collect()
    }

    /// The estate, bound and in a scope.
    async fn unmarked(db: Neo4jServer) -> Self {
        let world = World::generate(&WorldSpec::new("rig", 2, 0, 7));
        for vmid in 100..110_u32 {
            let node = if vmid % 2 == 0 { "pve1" } else { "pve2" };
            let power = if vmid < 105 { Power::Running } else { Power::Stopped };
            let spec = GuestSpec::qemu(vmid, &format!("machine{vmid}")).node(node).power(power);
            let spec =
                spec.disk("scsi0", "local-lvm", 8, "discard=on").config("cores", 2).config("memory", "2048");
            let nic = format!("virtio=BC:24:11:00:00:{:02X},bridge=vmbr0,firewall=1", vmid - 100);
            world.add_guest(spec.config("net0", nic)).unwrap();
        }
        for vmid in 200..204_u32 {
            let node = if vmid % 2 == 0 { "pve1" } else { "pve2" };
            let spec =
                GuestSpec::lxc(vmid, &format!("ct{vmid}")).node(node).disk("rootfs", "local-lvm", 4, "");
            world.add_guest(spec.config("memory", 512).config("cores", 1)).unwrap();
        }
        let server = SimServer::start(world, SimOptions::default()).await.unwrap();
        let token = server.world().unwrap().credential(ROOT_TOKEN);
        let mut rig = Rig::new(&Graph::Neo4j(db.clone())).cluster(Some("rig"), &server, token.as_ref());
        rig.settings = "\n[apply]\ndirectory = \"state\"\n".to_owned();
        rig.sync(0).await;
        rig.run(&["adopt", "--all", "--manage"]).await.ended(0);
        rig.run(&["scope", "set", "all", "--vmids", "100-999"]).await.ended(0);
        Self { server, rig, db, _shared: None }
    }

    pub fn db(&self) -> &Neo4jServer {
        &self.db
    }

    pub fn world(&self) -> &World {
        self.server.world().unwrap()
    }

    /// Desires these options of machines, and nothing else of them.
    pub async fn desire(&self, machines: &[(i64, Value)]) {
        self.import(machines, &[]).await;
    }

    pub async fn import(&self, machines: &[(i64, Value)], containers: &[(i64, Value)]) {
        let guest = |(vmid, options): &(i64, Value), prefix: &str| {
            let mut guest = options.clone();
            guest["vmid"] = json!(vmid);
            guest["uid"] = json!(format!("{prefix}-{vmid}"));
            guest["policy"] = json!("manage");
            guest
        };
        let document = json!({ "version": 1, "plugins": { "proxmox": {
            "vms": machines.iter().map(|one| guest(one, "vm")).collect::<Vec<_>>(),
            "containers": containers.iter().map(|one| guest(one, "ct")).collect::<Vec<_>>(),
        } } });
        fs::write(self.rig.dir.path().join("desired.json"), document.to_string()).unwrap();
        self.rig.run(&["desired", "import", "desired.json"]).await.ended(0);
    }

    /// Plans into `plan.json`.
    pub async fn plan(&self) -> Ran {
        self.rig.run(&["plan", "--out", "plan.json", "-o", "json"]).await.ended(0)
    }

    /// Applies `plan.json` without an approval.
    pub async fn apply(&self, args: &[&str]) -> Ran {
        let mut all = vec!["apply", "plan.json", "--auto-approve", "-o", "json"];
        all.extend_from_slice(args);
        self.rig.run(&all).await
    }

    /// Where the cluster's journal and audit log are.
    pub fn state(&self) -> PathBuf {
        self.rig.dir.path().join("state/rig")
    }

    /// The journal of the open run: each line's state.
    pub fn journal(&self) -> Vec<Value> {
        lines(&self.state().join("journal.jsonl"))
    }

    /// The guests as the simulator keeps them.
    pub fn guests(&self) -> BTreeMap<u32, String> {
        self.world().read(|state| {
            let text =
                |guest: &pve_sim::Guest| format!("{:?} {:?} {:?}", guest.config, guest.pending, guest.power);
            state.guests.iter().map(|(vmid, guest)| (*vmid, text(guest))).collect()
        })
    }

    /// Asserts that no guest but these is another than before.
    pub fn only_changed(&self, before: &BTreeMap<u32, String>, changed: &[u32]) {
        let now = self.guests();
        let others: Vec<_> =
            now.iter().filter(|(vmid, text)| before.get(vmid) != Some(text)).map(|(vmid, _)| *vmid).collect();
        assert!(
            others.iter().all(|vmid| changed.contains(vmid)),
            "changed: {others:?}, expected: {changed:?}"
        );
        assert_eq!(now.len(), before.len());
    }

    /// An option of a guest as it is in force.
    pub fn option(&self, vmid: u32, key: &str) -> String {
        self.world().read(|state| state.guests[&vmid].config.text(key).unwrap_or_default().into_owned())
    }

    /// The tasks of one kind about a guest.
    pub fn tasks(&self, kind: &str, vmid: u32) -> usize {
        let id = vmid.to_string();
        self.world()
            .read(|state| state.tasks.iter().filter(|task| task.kind == kind && task.id == id).count())
    }
}

/// The lines of a file of JSON lines; a torn one is left out.
pub fn lines(path: &std::path::Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}
