//! A simulated cluster whose guests are bound, marked and in a scope, and plans that are carried out on it within this process.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use pve_client::{Auth, CaSource, ClientConfig, PveClient, RetryPolicy, Trust};
use pve_sim::{GuestSpec, Power, ROOT_TOKEN, SimOptions, SimServer, World, WorldSpec};
use pvegraph_graph::lease::{Holder, Lease, Purpose};
use pvegraph_graph::{Dialect, Rows, SchemaObject, Statement, Store, StoreError, StoreInfo};
use pvegraph_inventory::GuestType;
use pvegraph_reconcile::apply::{
    Fence, Good, Happened, Keys, Outcome, Patience, Progress, Run, Setup, Stop, Who,
};
use pvegraph_reconcile::audit::Audit;
use pvegraph_reconcile::desired::{Desired, default_uid, from_document};
use pvegraph_reconcile::diff::{self, GuestDiff};
use pvegraph_reconcile::document::{Form, SecretRef, read};
use pvegraph_reconcile::journal::{Event, Journal};
use pvegraph_reconcile::live::{self, Live};
use pvegraph_reconcile::plan::{Action, Around, Ask, Consent, Input, Operation, Plan, plan, snapshot_plan};
use pvegraph_reconcile::rollback::reverse;
use pvegraph_reconcile::scope::Scope;
use pvegraph_reconcile::sent::{self, Compared, Sent};
use pvegraph_reconcile::stored::{self, Binding};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The file of hashes of passwords.
const SECRETS: &str = "secrets.json";

/// A graph that has nothing but a lease, which is always ours, and bindings.
#[derive(Default)]
struct Kept(Mutex<BTreeMap<String, Binding>>);

impl Kept {
    fn take(&self, statement: &Statement) {
        let params = &statement.params;
        let mut bindings = self.0.lock().unwrap();
        if statement.text.contains("DETACH DELETE b") {
            let uid = params["uid"].as_str().unwrap();
            if bindings.get(uid).is_some_and(|one| one.reserved_by.is_some() && one.vmid == params["vmid"]) {
                bindings.remove(uid);
            }
        }
        if statement.text.contains("b.destroyed_at") {
            let uids = params["uids"].as_array().unwrap().iter().map(|uid| uid.as_str().unwrap());
            for uid in uids {
                bindings.get_mut(uid).unwrap().destroyed_at = Some(now());
            }
        }
        if statement.text.contains("MERGE (n:Binding") {
            for row in params["rows"].as_array().unwrap() {
                let set = &row["set"];
                let text = |name: &str| set[name].as_str().map(str::to_owned);
                let (uid, machine) = (row["uid"].as_str().unwrap().to_owned(), set["type"] == "qemu");
                let binding = Binding {
                    uid: uid.clone(),
                    kind: if machine { GuestType::Qemu } else { GuestType::Lxc },
                    vmid: set["vmid"].as_i64().unwrap(),
                    fingerprint: text(if machine { "smbios_uuid" } else { "lxc_rootfs_volid" }),
                    last_applied: set["last_applied"].as_i64(),
                    reserved_by: text("reserved_by"),
                    destroyed_at: set["destroyed_at"].as_i64(),
                };
                bindings.insert(uid, binding);
            }
        }
    }
}

#[async_trait]
impl Store for Kept {
    fn dialect(&self) -> Dialect {
        Dialect::Neo4j
    }

    fn target(&self) -> &str {
        "nowhere"
    }

    async fn info(&self) -> Result<StoreInfo, StoreError> {
        unreachable!("nobody asks")
    }

    async fn read(&self, _: Statement) -> Result<Rows, StoreError> {
        Ok(lease())
    }

    async fn write(&self, statements: Vec<Statement>) -> Result<Vec<Rows>, StoreError> {
        statements.iter().for_each(|statement| self.take(statement));
        Ok(statements.iter().map(|_| lease()).collect())
    }

    async fn schema(&self, _: &str) -> Result<(), StoreError> {
        Ok(())
    }

    async fn schema_objects(&self) -> Result<Vec<SchemaObject>, StoreError> {
        Ok(Vec::new())
    }

    async fn checkpoint(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

fn lease() -> Rows {
    let columns = ["number", "tag", "paused"].map(str::to_owned).to_vec();
    Rows { columns, rows: vec![vec![json!(1), json!(1), json!(false)]] }
}

/// Notes what happens.
#[derive(Default)]
pub struct Told(pub Mutex<Vec<Value>>);

impl Progress for Told {
    fn tell(&self, event: &Happened<'_>) {
        self.0.lock().unwrap().push(json!(event));
    }
}

/// What the graph says to a deletion.
#[derive(Default)]
pub struct Graph {
    pub refuses: Option<String>,
    pub asked: AtomicUsize,
    /// The guests whose scope is paused, from the second call on.
    pub paused: Vec<i64>,
    pub calls: AtomicUsize,
    /// What somebody else does while it is asked.
    pub meanwhile: Option<Box<dyn Fn() + Send + Sync>>,
}

impl Keys for Graph {
    fn paused(&self, vmid: i64) -> BoxFuture<'_, Option<String>> {
        let first = self.calls.fetch_add(1, Ordering::Relaxed) == 0;
        let is = !first && self.paused.contains(&vmid);
        Box::pin(std::future::ready(is.then(|| "its scope lab is paused".to_owned())))
    }

    fn may_delete<'k>(&'k self, _: &'k Operation) -> BoxFuture<'k, Result<(), String>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.meanwhile.iter().for_each(|does| does());
        let answer = self.refuses.clone().map_or(Ok(()), Err);
        Box::pin(std::future::ready(answer))
    }
}

fn now() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(now.as_secs()).unwrap()
}

/// A machine that is managed, with the marker of `vm-<vmid>`.
pub fn machine(vmid: u32, node: &str) -> GuestSpec {
    GuestSpec::qemu(vmid, &format!("machine{vmid}"))
        .node(node)
        .config("tags", "pvegraph")
        .config("description", format!("[pvegraph:rig/vm-{vmid}]"))
        .config("cores", 2)
        .config("memory", "2048")
}

/// The same of a container.
pub fn container(vmid: u32, node: &str) -> GuestSpec {
    GuestSpec::lxc(vmid, &format!("ct{vmid}"))
        .node(node)
        .config("tags", "pvegraph")
        .config("description", format!("[pvegraph:rig/ct-{vmid}]\n"))
        .config("cores", 1)
        .config("memory", 512)
}

/// The cluster, what is desired of it, and what a run leaves behind.
pub struct Rig {
    pub server: SimServer,
    /// What the last run told.
    pub told: Told,
    pub client: PveClient,
    pub desired: Desired,
    pub bindings: BTreeMap<String, Binding>,
    pub scopes: Vec<Scope>,
    pub consent: Consent,
    /// What every reference to a secret stands for.
    pub secret: Option<String>,
    pub patience: Patience,
    /// What the graph says to a deletion, and how often it was asked.
    pub keys: Graph,
    /// The storage that every node has.
    pub shared: String,
    config: ClientConfig,
    kept: Kept,
    dir: TempDir,
}

impl Rig {
    /// Three nodes with these guests.
    pub async fn new(guests: Vec<GuestSpec>) -> Self {
        let world = World::generate(&WorldSpec::new("rig", 3, 0, 7));
        let shared = world.read(|state| {
            let usable = |storage: &&pve_sim::Storage| {
                storage.shared
                    && !storage.disabled
                    && storage.content.split(',').any(|content| content == "images")
            };
            state.storages.values().find(usable).unwrap().id.clone()
        });
        for guest in guests {
            world.add_guest(guest).unwrap();
        }
        let token = world.credential(ROOT_TOKEN).unwrap();
        let server = SimServer::start(world, SimOptions::default()).await.unwrap();
        let auth = Auth::Token { id: token.id.parse().unwrap(), secret: token.secret.into() };
        let trust = Trust::CaFile(CaSource::Pem(server.ca_pem().as_bytes().to_vec()));
        let config = ClientConfig::new(vec![server.url().parse().unwrap()], auth, trust);
        let client = PveClient::new(config.clone()).unwrap();
        let patience = Patience {
            retries: 2,
            backoff: Duration::from_millis(1),
            first: Duration::from_millis(2),
            looks: 3,
            restart_looks: 3,
            ha_looks: 400,
            between: Duration::from_millis(10),
            told: Duration::from_millis(50),
        };
        let mut rig = Self {
            server,
            told: Told::default(),
            client,
            config,
            desired: from_document(
                &read("{\"version\":1,\"plugins\":{\"proxmox\":{}}}", Form::Json).unwrap(),
                &"rig".parse().unwrap(),
            )
            .unwrap(),
            bindings: BTreeMap::new(),
            scopes: vec![Scope::new("lab", 100, 999)],
            consent: Consent::default(),
            secret: None,
            patience,
            keys: Graph::default(),
            shared,
            kept: Kept::default(),
            dir: tempfile::tempdir().unwrap(),
        };
        rig.bind().await;
        rig
    }

    /// Binds all guests to what they are now.
    pub async fn bind(&mut self) {
        let live = live::read(&self.client, None).await.unwrap();
        for guest in live.guests.values() {
            let uid = default_uid(guest.kind, guest.vmid);
            let binding = Binding {
                uid: uid.clone(),
                kind: guest.kind,
                vmid: guest.vmid,
                fingerprint: guest.fingerprint(),
                last_applied: None,
                reserved_by: None,
                destroyed_at: None,
            };
            self.kept.0.lock().unwrap().insert(uid.clone(), binding.clone());
            self.bindings.insert(uid, binding);
        }
    }

    /// Lets the client ask once only.
    pub fn give_up_soon(&mut self) {
        self.config.retry = RetryPolicy { max_retries: 0, ..RetryPolicy::default() };
        self.client = PveClient::new(self.config.clone()).unwrap();
    }

    pub fn world(&self) -> &World {
        self.server.world().unwrap()
    }

    /// Desires this, and nothing else.
    pub fn desire(&mut self, vms: Vec<Value>, containers: Vec<Value>) {
        let text =
            json!({ "version": 1, "plugins": { "proxmox": { "vms": vms, "containers": containers } } });
        self.desired =
            from_document(&read(&text.to_string(), Form::Json).unwrap(), &"rig".parse().unwrap()).unwrap();
    }

    async fn diffs(&self, desired: &Desired, live: &Live, around: &mut Around) -> Vec<GuestDiff> {
        let mut diffs = Vec::new();
        around.replicated = live::replicated(&self.client).await.unwrap();
        for guest in desired.guests.values() {
            if stored::is_done(&self.bindings, guest) {
                continue;
            }
            let Some(has) = guest.vmid.and_then(|vmid| live.guests.get(&vmid)) else {
                if let Some(clone) = &guest.clone_of
                    && let Some(name) = &clone.snapshot
                    && let Some(source) = desired.source(clone).and_then(|vmid| live.guests.get(&vmid))
                {
                    let config = live::snapshot(&self.client, source, name).await.unwrap();
                    around.snapshots.insert((source.vmid, name.clone()), config);
                }
                diffs.push(diff::missing(guest));
                continue;
            };
            let bound = stored::bound_to(&self.bindings, &guest.uid)
                .filter(|bound| !bound.is_of(&self.desired.cluster, has));
            if let Some(bound) = bound.filter(|_| has.kind == guest.kind) {
                let is = has.fingerprint();
                diffs.push(diff::another(guest, bound.fingerprint.as_deref(), is.as_deref()));
                continue;
            }
            let pending = live::pending(&self.client, has).await.unwrap();
            diffs.push(diff::diff(guest, has, &pending, live.style));
            if guest.tombstone && live::is_base(has) {
                around.clones.insert(has.vmid, live::linked_clones(&self.client, has).await.unwrap());
            }
            around.pending.insert(has.vmid, pending);
            if has.config.contains_key("parent") {
                let volumes = live::snapshotted(&self.client, has).await.unwrap();
                around.snapshotted.insert(has.vmid, volumes);
            }
            if !guest.may_be_on(&has.node)
                && let Ok(Some(says)) = live::migration(&self.client, has, guest.node.as_deref()).await
            {
                around.migrations.insert(has.vmid, says);
            }
        }
        diffs
    }

    pub async fn plan(&self) -> Plan {
        self.plan_of(&self.desired).await
    }

    /// The way back from a plan of which these operations were done, and what does not come back.
    pub async fn back(&self, plan: &Plan) -> (Plan, Vec<String>) {
        let live = live::read(&self.client, None).await.unwrap();
        let mut pending = BTreeMap::new();
        for guest in live.guests.values() {
            pending.insert(guest.vmid, live::pending(&self.client, guest).await.unwrap());
        }
        let done = plan.operations.iter().map(|operation| operation.number).collect();
        let back = reverse(plan, &done, &self.desired, &live.guests, &pending, live.style);
        let mut made = self.plan_of(&back.desired).await;
        made.back_of = Some(plan.sha256());
        (made, back.left.iter().map(ToString::to_string).collect())
    }

    async fn plan_of(&self, desired: &Desired) -> Plan {
        let live = live::read(&self.client, None).await.unwrap();
        let mut around = Around::of(&live);
        let desired = &*stored::numbered(&self.bindings, desired);
        let mut diffs = self.diffs(desired, &live, &mut around).await;
        self.compare_secrets(desired, &live, &mut diffs);
        plan(&Input {
            desired,
            generation: 1,
            bindings: &self.bindings,
            scopes: &self.scopes,
            live: &live.guests,
            diffs: &diffs,
            unread: &BTreeMap::new(),
            around: &around,
            consent: &self.consent,
            now: now(),
            nonce: "rig",
        })
    }

    fn compare_secrets(&self, desired: &Desired, live: &Live, diffs: &mut [GuestDiff]) -> Compared {
        let kept = Sent::read(&self.dir.path().join(SECRETS)).unwrap();
        let read = |_: &SecretRef| self.secret.clone().ok_or_else(|| "there are none".to_owned());
        sent::compare(desired, live, diffs, kept.as_ref(), read)
    }

    /// What comes of comparing passwords.
    pub async fn secrets(&self) -> Compared {
        let live = live::read(&self.client, None).await.unwrap();
        let mut diffs = self.diffs(&self.desired, &live, &mut Around::of(&live)).await;
        self.compare_secrets(&self.desired, &live, &mut diffs)
    }

    /// The text of every file that runs left.
    pub fn texts(&self) -> String {
        let read = |path: PathBuf| std::fs::read_to_string(path).unwrap();
        std::fs::read_dir(self.dir.path()).unwrap().map(|entry| read(entry.unwrap().path())).collect()
    }

    /// A plan that nothing forbids.
    pub async fn planned(&self) -> Plan {
        let plan = self.plan().await;
        assert_eq!(blocked(&plan), "");
        plan
    }

    /// Carries a plan out from its beginning.
    pub async fn apply(&self, plan: &Plan) -> Vec<Outcome> {
        let _ = std::fs::remove_file(self.journal(plan));
        self.resume(plan).await
    }

    fn journal(&self, plan: &Plan) -> PathBuf {
        self.dir.path().join(format!("{}.jsonl", plan.sha256()))
    }

    /// What the audit log says, an entry a line.
    pub fn audited(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.dir.path().join("audit.jsonl")).unwrap();
        let entry = |line: &str| serde_json::from_str::<Value>(line).unwrap()["entry"].take();
        text.lines().map(entry).collect()
    }

    /// Takes the audit log away.
    pub fn without_audit(&self) {
        std::fs::remove_file(self.dir.path().join("audit.jsonl")).unwrap();
    }

    /// Goes on with a plan.
    pub async fn resume(&self, plan: &Plan) -> Vec<Outcome> {
        let (outcomes, stop) = self.run(plan).await;
        assert_eq!(stop, None);
        outcomes
    }

    /// Carries a plan out and notes at the bindings what it deleted, as the command does.
    pub async fn apply_and_note(&mut self, plan: &Plan) -> Vec<Outcome> {
        let outcomes = self.apply(plan).await;
        for (operation, outcome) in plan.operations.iter().zip(&outcomes) {
            if operation.action == Action::Destroy
                && matches!(outcome, Outcome::Done { .. })
                && let Some(binding) = self.bindings.get_mut(&operation.uid)
            {
                binding.destroyed_at = Some(now());
            }
        }
        outcomes
    }

    pub async fn run(&self, plan: &Plan) -> (Vec<Outcome>, Option<Stop>) {
        self.watched(plan, |_| ()).await
    }

    /// The same. `see` is told the journal's text before and after each step of the run.
    pub async fn watched(&self, plan: &Plan, mut see: impl FnMut(&str)) -> (Vec<Outcome>, Option<Stop>) {
        let store = &self.kept;
        let holder = Holder { name: "test".to_owned(), lock: None };
        let lease = Lease::take_for(store, Purpose::Apply("rig"), &holder, now()).await.unwrap();
        let good = Good::since(now());
        let fence = Fence::new(store, lease, &now, good, Duration::from_secs(10));
        self.told.0.lock().unwrap().clear();
        let path = self.journal(plan);
        let fresh = !path.exists();
        let mut journal = Journal::open(&path).unwrap();
        let first = if fresh {
            let cluster = "rig".to_owned();
            Event::Begin { run: "run".to_owned(), plan: plan.sha256(), cluster, approver: "test".to_owned() }
        } else {
            Event::Resumed
        };
        journal.add(now(), first).unwrap();
        let live = live::read(&self.client, Some(&BTreeSet::new())).await.unwrap();
        let setup = Setup {
            client: &self.client,
            plan,
            desired: &self.desired,
            style: live.style,
            storages: BTreeMap::new(),
            fence: &fence,
            progress: &self.told,
            keys: &self.keys,
            secrets: &|_| self.secret.clone().ok_or_else(|| "there are none".to_owned()),
            clock: &now,
            patience: self.patience,
            who: Who { actor: "test".to_owned(), approver: "test".to_owned() },
            valid_until: plan.expires_at,
            told: BTreeMap::new(),
        };
        let audit = Audit::open(&self.dir.path().join("audit.jsonl"), None).unwrap();
        let run = Run::new(setup, journal, audit, Sent::open(&self.dir.path().join(SECRETS)).unwrap());
        let mut going = Box::pin(run.go());
        let mut seen = || see(&std::fs::read_to_string(&path).unwrap());
        let went = std::future::poll_fn(|context| {
            seen();
            let went = going.as_mut().poll(context);
            seen();
            went
        });
        let (outcomes, stop) = went.await.unwrap();
        drop(going);
        fence.bound(&self.desired.cluster, &run.to_bind(&outcomes)).await.unwrap();
        fence.destroyed(&self.desired.cluster, &run.to_forget(&outcomes)).await.unwrap();
        (outcomes, stop)
    }

    /// The bindings in the graph.
    pub fn kept(&self) -> BTreeMap<String, Binding> {
        self.kept.0.lock().unwrap().clone()
    }

    /// Puts disk and graph back: this journal of a plan, no audit log, these bindings.
    pub fn put_back(&mut self, plan: &Plan, journal: &str, kept: &BTreeMap<String, Binding>) {
        for entry in std::fs::read_dir(self.dir.path()).unwrap() {
            std::fs::remove_file(entry.unwrap().path()).unwrap();
        }
        if !journal.is_empty() {
            std::fs::write(self.journal(plan), journal).unwrap();
        }
        self.kept.0.lock().unwrap().clone_from(kept);
        self.noted();
    }

    /// Cuts a plan's journal back to this, as if its process had been killed then. A hash of a password that was taken is only about to be sent
    /// again.
    pub fn cut_back(&self, plan: &Plan, journal: &str) {
        std::fs::write(self.journal(plan), journal).unwrap();
        let path = self.dir.path().join(SECRETS);
        let mut kept: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        for entry in kept["guests"].as_object_mut().unwrap().values_mut() {
            *entry = json!({ "coming": entry["sent"]["hash"] });
        }
        std::fs::write(&path, kept.to_string()).unwrap();
    }

    /// What runs noted at bindings counts from now on.
    pub fn noted(&mut self) {
        self.bindings = self.kept();
    }

    /// A plan of one guest's snapshot.
    pub async fn asked(&self, uid: &str, ask: &Ask) -> Plan {
        let live = live::read(&self.client, None).await.unwrap();
        let around = Around::of(&live);
        let guest = &self.desired.guests[uid];
        let has = &live.guests[&guest.vmid.unwrap()];
        let taken = live::snapshots(&self.client, has).await.unwrap();
        let input = Input {
            desired: &self.desired,
            generation: 1,
            bindings: &self.bindings,
            scopes: &self.scopes,
            live: &live.guests,
            diffs: &[],
            unread: &BTreeMap::new(),
            around: &around,
            consent: &self.consent,
            now: now(),
            nonce: "rig",
        };
        snapshot_plan(&input, guest, &taken, ask)
    }

    /// All guests as they are kept: configuration, what waits, power, node.
    pub fn guests(&self) -> BTreeMap<u32, String> {
        self.world().read(|state| {
            let text = |guest: &pve_sim::Guest| {
                format!("{:?} {:?} {:?} {}", guest.config, guest.pending, guest.power, guest.node)
            };
            state.guests.iter().map(|(vmid, guest)| (*vmid, text(guest))).collect()
        })
    }

    /// The node that a guest is on, and whether it runs.
    pub fn place(&self, vmid: u32) -> (String, bool) {
        self.world().read(|state| {
            let guest = &state.guests[&vmid];
            (guest.node.to_string(), guest.power == Power::Running)
        })
    }

    /// The tasks of one kind about a guest.
    pub fn tasks(&self, kind: &str, vmid: u32) -> usize {
        let id = vmid.to_string();
        self.world()
            .read(|state| state.tasks.iter().filter(|task| task.kind == kind && task.id == id).count())
    }
}

pub fn blocked(plan: &Plan) -> String {
    plan.blocked.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

pub fn words(outcomes: &[Outcome]) -> Vec<&'static str> {
    outcomes.iter().map(Outcome::word).collect()
}

/// What there is to say of all of them.
pub fn reasons(outcomes: &[Outcome]) -> String {
    outcomes.iter().filter_map(Outcome::reason).collect::<Vec<_>>().join("\n")
}
