//! Every statement that `pvegraph-graph` generates, run directly on both stores with the same parameters: each step's rows, and the
//! whole graph after it, are equal.

use pvegraph_embedded_store::Mode;
use pvegraph_graph::changes::{self, Asked, Change, ChangeType};
use pvegraph_graph::cypher::{Writer, count};
use pvegraph_graph::labels::{
    self, BACKS_UP, BACKS_UP_TO, BACKUP_JOB, CHANGE, CLUSTER, CONTAINS_NODE, DISK, GUEST, HAS_DISK,
    HAS_NETWORK_INTERFACE, HOSTS_VM, INCLUDES_DISK, Label, NIC, NODE, NodeRow, PARENT_SNAPSHOT,
    RelationshipRow, SNAPSHOT, SNAPSHOT_OF, STORAGE, STORED_ON,
};
use pvegraph_graph::lease::{Holder, LEASE_SECONDS, Lease, LeaseError};
use pvegraph_graph::migrate::{MigrateOptions, Migrations};
use pvegraph_graph::reports;
use pvegraph_graph::runs::{Counts, RUNS_KEPT, Run};
use pvegraph_graph::{Statement, Store, StoreError};
use pvegraph_inventory::{ClusterId, Collector, Completeness, Scopes};
use pvegraph_testkit::emptied;
use serde_json::{Value, json};

use super::{assert_same, bag, embedded, neo4j, whole};
use crate::support::{Graph, Rig};

/// Gives a store its schema.
pub async fn migrate(store: &dyn Store) {
    let options = MigrateOptions { backup_dir: None, key_of: pvegraph_graph::dump::own_key };
    Migrations::embedded().unwrap().up(store, None, &options).await.unwrap();
}

/// Both stores, which do each step one after the other.
struct Both<'a>([&'a dyn Store; 2]);

impl Both<'_> {
    /// Does the same on both, and compares what came of it and the whole graphs. Answers what both gave.
    async fn step<T: PartialEq + std::fmt::Debug>(
        &self,
        what: &str,
        act: impl AsyncFn(&dyn Store) -> T,
    ) -> T {
        let [a, b] = [act(self.0[0]).await, act(self.0[1]).await];
        assert_eq!(a, b, "{what}: Neo4j and the file");
        assert_same(what, [&whole(self.0[0], &[]).await, &whole(self.0[1], &[]).await]);
        a
    }

    /// One transaction; each statement's rows.
    async fn write(&self, what: &str, make: impl Fn(&dyn Store) -> Vec<Statement>) -> Vec<Vec<Vec<Value>>> {
        self.step(what, async |store| {
            let answers = store.write(make(store)).await.unwrap_or_else(|error| panic!("{what}: {error}"));
            answers.into_iter().map(|rows| rows.rows).collect()
        })
        .await
    }

    /// One reading statement; its rows as a bag.
    async fn read(&self, what: &str, make: impl Fn(&dyn Store) -> Statement) -> Vec<String> {
        let read = async |store: &dyn Store| {
            let rows = store.read(make(store)).await.unwrap_or_else(|error| panic!("{what}: {error}"));
            (rows.columns.clone(), bag(&rows))
        };
        let (columns, rows) = self.step(what, read).await;
        println!("{what}: {columns:?}: {} rows", rows.len());
        rows
    }
}

/// Opens both, empty but for the schema, and runs the test.
async fn on_both(test: impl AsyncFn(Both<'_>)) {
    let db = emptied().await;
    let rig = Rig::new(&Graph::Embedded);
    let (neo4j, embedded) = (neo4j(&db), embedded(&rig, Mode::Write));
    migrate(&neo4j).await;
    migrate(&embedded).await;
    test(Both([&neo4j, &embedded])).await;
}

fn id(text: &str) -> ClusterId {
    text.parse().unwrap()
}

fn writer<'a>(store: &dyn Store, cluster: &'a ClusterId, tag: i64) -> Writer<'a> {
    Writer { dialect: store.dialect(), cluster, tag }
}

/// A row from an object; the key is what the label's columns say.
fn row<T>(label: &Label<T>, set: Value) -> NodeRow {
    let Value::Object(set) = set else { panic!("no object: {set}") };
    NodeRow { key: label.key.iter().map(|name| set[*name].clone()).collect(), set }
}

fn link(from: Value, to: Value) -> RelationshipRow {
    let list = |value: Value| value.as_array().unwrap().clone();
    RelationshipRow::new(list(from), list(to))
}

fn link_with(from: Value, to: Value, set: Value) -> RelationshipRow {
    RelationshipRow { set: set.as_object().unwrap().clone(), ..link(from, to) }
}

fn keys(of: Value) -> Vec<Vec<Value>> {
    of.as_array().unwrap().iter().map(|key| key.as_array().unwrap().clone()).collect()
}

/// A small cluster with every label and type, and every type of value.
fn estate(writer: Writer<'_>) -> Vec<Statement> {
    let cluster = writer.cluster.as_str();
    let guest = |vmid: i64, node: &str, more: Value| {
        let mut set = json!({
            "id": format!("{node}:{vmid}"), "vmid": vmid, "name": format!("guest {vmid}"), "node": node, "type": "qemu",
            "status": "running", "template": false, "cpu_cores": 2, "cpu_sockets": 1, "memory": i64::MAX, "tags": ["b", "a"],
            "uptime": 7, "created_at": 1_600_000_000, "smbios_uuid": "00000000-0000-4000-8000-000000000000",
        });
        more.as_object().unwrap().iter().for_each(|(name, value)| set[name] = value.clone());
        row(&GUEST, set)
    };
    let disk = |vmid: i64, disk: &str, more: Value| {
        let mut set = json!({
            "id": format!("{vmid}:{disk}"), "vmid": vmid, "disk_id": disk, "kind": "disk", "attached": true, "storage": "local",
            "volume": format!("local:vm-{vmid}-{disk}"), "size": 1_i64 << 40, "backup": true, "cache": "none",
        });
        more.as_object().unwrap().iter().for_each(|(name, value)| set[name] = value.clone());
        row(&DISK, set)
    };
    let snapshot = |vmid: i64, name: &str, more: Value| {
        let mut set = json!({
            "id": format!("{vmid}:{name}"), "vmid": vmid, "name": name, "parent": null, "created_at": 1_600_000_000,
            "with_memory": false, "current": false,
        });
        more.as_object().unwrap().iter().for_each(|(name, value)| set[name] = value.clone());
        row(&SNAPSHOT, set)
    };
    vec![
        writer.upsert(&CLUSTER, vec![row(&CLUSTER, json!({ "id": cluster, "name": cluster, "quorate": true, "nodes_online": 2 }))]),
        writer.upsert(
            &NODE,
            ["pve1", "pve2"]
                .map(|name| {
                    row(
                        &NODE,
                        json!({
                            "id": name, "name": name, "status": "online", "cpu_usage": 0.1_f64 + 0.2, "cpu_count": 4,
                            "memory_total": 1_000_000, "memory_used": 950_000, "ip": "192.0.2.1",
                        }),
                    )
                })
                .to_vec(),
        ),
        writer.relate(&CONTAINS_NODE, vec![link(json!([]), json!(["pve1"])), link(json!([]), json!(["pve2"]))]),
        writer.upsert(
            &STORAGE,
            ["local", "nfs", "Ü 'quoted\" \\ \n $x"]
                .map(|name| {
                    row(
                        &STORAGE,
                        json!({
                            "id": name, "name": name, "type": "dir", "content_types": ["images"], "shared": false, "enabled": true,
                            "total": 100, "used": 90, "available": 10,
                        }),
                    )
                })
                .to_vec(),
        ),
        writer.relate(
            &labels::AVAILABLE_ON,
            vec![
                link_with(json!(["local"]), json!(["pve1"]), json!({ "active": true, "total": 100, "used": 90, "available": 10 })),
                link_with(json!(["local"]), json!(["pve2"]), json!({ "active": false, "total": null, "used": null, "available": null })),
                link(json!(["nfs"]), json!(["pve1"])),
            ],
        ),
        writer.upsert(
            &GUEST,
            vec![
                guest(100, "pve1", json!({})),
                guest(101, "pve1", json!({ "name": "ä`'\"\\\n", "tags": [], "cpu_sockets": null, "type": "lxc" })),
                guest(102, "pve2", json!({ "name": null, "status": "unknown", "pool": null, "tags": ["production"] })),
                // A name alone, as of a guest whose configuration was not read.
                row(&GUEST, json!({ "id": "pve2:103", "vmid": 103, "node": "pve2", "type": "qemu", "status": "stopped" })),
            ],
        ),
        writer.relate(
            &HOSTS_VM,
            vec![
                link(json!(["pve1"]), json!([100])),
                link(json!(["pve1"]), json!([101])),
                link(json!(["pve2"]), json!([102])),
                link(json!(["pve2"]), json!([103])),
            ],
        ),
        writer.upsert(
            &DISK,
            vec![
                disk(100, "scsi0", json!({})),
                disk(100, "unused0", json!({ "attached": false, "kind": "unused", "size": null, "storage": "nfs" })),
                disk(101, "rootfs", json!({ "backup": false, "cache": null, "kind": "rootfs" })),
                disk(102, "scsi0", json!({ "storage": null, "volume": "/dev/disk/by-id/x" })),
            ],
        ),
        writer.relate(
            &HAS_DISK,
            vec![
                link(json!([100]), json!([100, "scsi0"])),
                link(json!([100]), json!([100, "unused0"])),
                link(json!([101]), json!([101, "rootfs"])),
                link(json!([102]), json!([102, "scsi0"])),
            ],
        ),
        writer.relate(
            &STORED_ON,
            vec![
                link(json!([100, "scsi0"]), json!(["local"])),
                link(json!([100, "unused0"]), json!(["nfs"])),
                link(json!([101, "rootfs"]), json!(["local"])),
            ],
        ),
        writer.upsert(
            &NIC,
            vec![
                row(
                    &NIC,
                    json!({
                        "id": "100:net0", "vmid": 100, "net_id": "net0", "bridge": "vmbr0", "mac_address": "BC:24:11:00:00:01",
                        "model": "virtio", "firewall": true, "vlan_tag": 4094,
                    }),
                ),
                row(
                    &NIC,
                    json!({
                        "id": "101:net0", "vmid": 101, "net_id": "net0", "bridge": null, "mac_address": null, "model": "veth",
                        "firewall": false, "vlan_tag": null,
                    }),
                ),
            ],
        ),
        writer.relate(
            &HAS_NETWORK_INTERFACE,
            vec![link(json!([100]), json!([100, "net0"])), link(json!([101]), json!([101, "net0"]))],
        ),
        writer.upsert(
            &SNAPSHOT,
            vec![
                snapshot(100, "one", json!({})),
                snapshot(100, "two", json!({ "parent": "one", "with_memory": true, "current": true })),
                // The parent's name is of another guest's snapshot.
                snapshot(101, "one", json!({ "parent": "two", "created_at": null })),
            ],
        ),
        writer.relate(
            &SNAPSHOT_OF,
            vec![
                link(json!([100, "one"]), json!([100])),
                link(json!([100, "two"]), json!([100])),
                link(json!([101, "one"]), json!([101])),
            ],
        ),
        writer.relate(
            &PARENT_SNAPSHOT,
            vec![
                link(json!([100, "two"]), json!([100, "one"])),
                link(json!([101, "one"]), json!([101, "two"])),
            ],
        ),
        writer.upsert(
            &BACKUP_JOB,
            vec![
                row(
                    &BACKUP_JOB,
                    json!({
                        "id": "backup-1", "job_id": "backup-1", "enabled": true, "schedule": "02:00", "storage": "nfs", "all": false,
                        "vmids": [100, 101], "exclude": [], "comment": null,
                    }),
                ),
                row(
                    &BACKUP_JOB,
                    json!({ "id": "off", "job_id": "off", "enabled": false, "all": true, "vmids": [], "exclude": [101] }),
                ),
            ],
        ),
        writer.relate(&BACKS_UP_TO, vec![link(json!(["backup-1"]), json!(["nfs"]))]),
        writer.relate(
            &BACKS_UP,
            vec![
                link(json!(["backup-1"]), json!([100])),
                link(json!(["backup-1"]), json!([101])),
                link(json!(["off"]), json!([102])),
            ],
        ),
        writer.relate(
            &INCLUDES_DISK,
            vec![
                link_with(json!(["backup-1"]), json!([100, "scsi0"]), json!({ "included": true, "reason": "enabled" })),
                link_with(json!(["backup-1"]), json!([101, "rootfs"]), json!({ "included": false, "reason": null })),
            ],
        ),
    ]
}

/// What reports stumble over: zeros to divide by, and nothing where something should be.
pub async fn odd_estate(store: &dyn Store) {
    let (rig, other) = (id("rig"), id("other"));
    for cluster in [&rig, &other] {
        let writer = writer(store, cluster, 1000);
        store.write(estate(writer)).await.unwrap();
        let node = |name: &str, more: Value| {
            let mut set = json!({ "id": name, "name": name, "status": "online" });
            more.as_object().unwrap().iter().for_each(|(name, value)| set[name] = value.clone());
            row(&NODE, set)
        };
        let nodes = vec![
            node("empty", json!({ "cpu_usage": 0, "memory_total": 1, "memory_used": 0 })),
            node("no total", json!({ "cpu_usage": 0.9, "memory_total": null, "memory_used": 5 })),
            node(
                "unknown",
                json!({ "cpu_usage": null, "memory_total": null, "memory_used": 5, "status": null }),
            ),
            node("idle", json!({ "cpu_usage": 0.01, "memory_total": 100, "memory_used": 1 })),
            node("whole", json!({ "cpu_usage": 1, "memory_total": 3, "memory_used": 3 })),
            node("Älter", json!({ "cpu_usage": 1.0, "memory_total": 3, "memory_used": 1 })),
        ];
        let names: Vec<_> = nodes.iter().map(|row| row.key[0].clone()).collect();
        let storage = |name: &str, more: Value| {
            let mut set = json!({ "id": name, "name": name, "type": "dir", "enabled": true, "shared": true });
            more.as_object().unwrap().iter().for_each(|(name, value)| set[name] = value.clone());
            row(&STORAGE, set)
        };
        let storages = vec![
            storage("zero", json!({ "total": 0, "used": 0 })),
            storage("over", json!({ "total": 3, "used": 4 })),
            storage("null", json!({ "total": null, "used": null })),
            storage("used unknown", json!({ "total": 7 })),
        ];
        let on = |name: &str, set: Value| link_with(json!([name]), json!(["idle"]), set);
        store
            .write(vec![
                writer.upsert(&NODE, nodes),
                writer.relate(
                    &CONTAINS_NODE,
                    names.iter().map(|name| link(json!([]), json!([name]))).collect(),
                ),
                writer.upsert(&STORAGE, storages),
                writer.relate(
                    &labels::AVAILABLE_ON,
                    vec![
                        on("zero", json!({ "active": true, "total": 0, "used": 0 })),
                        on("over", json!({ "active": true, "total": 3, "used": 4 })),
                        on("null", json!({ "active": null, "total": null })),
                        on("used unknown", json!({ "active": true, "total": 7, "used": null })),
                    ],
                ),
                writer.relate(&HAS_DISK, vec![link(json!([103]), json!([102, "scsi0"]))]),
            ])
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn rows_are_written_alike() {
    on_both(async |both| {
        let (rig, other) = (id("rig"), id("other"));
        let at = |store: &dyn Store, tag| writer(store, &rig, tag);

        // On nothing.
        both.write("an empty graph", |store| {
            let writer = at(store, 1000);
            let nothing = keys(json!([[100]]));
            vec![
                writer.upsert(&GUEST, vec![]),
                writer.relate(&HOSTS_VM, vec![]),
                writer.relate(&HOSTS_VM, vec![link(json!(["pve1"]), json!([100]))]),
                writer.unrelate(&HOSTS_VM, &nothing),
                writer.unrelate(&BACKS_UP, &[]),
                writer.delete(GUEST.name, GUEST.key, &nothing),
                writer.mark_stale(GUEST.name, GUEST.key, &nothing),
            ]
        })
        .await;
        assert!(both.read("nothing", |store| at(store, 1000).read_back(&GUEST, &[&HOSTS_VM, &BACKS_UP], &keys(json!([[100]])))).await.is_empty());
        assert_eq!(both.read("nothing", |_| count(&rig, GUEST.name)).await, ["[0]"]);
        assert!(both.read("nothing", |store| at(store, 1000).untouched(GUEST.name, GUEST.key, &["node"])).await.is_empty());

        both.write("a cluster", |store| estate(at(store, 1000))).await;
        both.write("another", |store| estate(writer(store, &other, 1000))).await;
        both.write("the same again", |store| estate(at(store, 1001))).await;

        let read_back = both
            .read("guests", |store| at(store, 1).read_back(&GUEST, &[&HOSTS_VM, &BACKS_UP], &keys(json!([[100], [103], [999], [100], [102]]))))
            .await;
        assert_eq!(read_back.len(), 4, "{read_back:?}");
        both.read("clusters", |store| at(store, 1).read_back(&CLUSTER, &[], &keys(json!([[]])))).await;
        both.read("nodes", |store| at(store, 1).read_back(&NODE, &[], &keys(json!([["pve1"], ["PVE1"], ["pve2"]])))).await;
        both.read("storages", |store| at(store, 1).read_back(&STORAGE, &[], &keys(json!([["Ü 'quoted\" \\ \n $x"], ["local"]])))).await;
        both.read("disks", |store| at(store, 1).read_back(&DISK, &[&STORED_ON, &INCLUDES_DISK], &keys(json!([[100, "scsi0"], [100, "rootfs"]])))).await;
        both.read("interfaces", |store| at(store, 1).read_back(&NIC, &[], &keys(json!([[100, "net0"], [101, "net0"]])))).await;
        both.read("jobs", |store| at(store, 1).read_back(&BACKUP_JOB, &[], &keys(json!([["off"], ["backup-1"]])))).await;
        both.read("snapshots", |store| at(store, 1).read_back(&SNAPSHOT, &[&PARENT_SNAPSHOT], &keys(json!([[100, "two"], [101, "two"]])))).await;
        let vmids = keys(json!([[100], [101], [103], [999]]));
        let disks = both.read("disks of guests", |store| at(store, 1).read_back_of_guests(&DISK, &HAS_DISK, &[&STORED_ON, &INCLUDES_DISK], &vmids)).await;
        assert_eq!(disks.len(), 3, "{disks:?}");
        let nics = both
            .read("interfaces of guests", |store| at(store, 1).read_back_of_guests(&NIC, &HAS_NETWORK_INTERFACE, &[], &vmids))
            .await;
        assert_eq!(nics.len(), 2, "{nics:?}");
        let snapshots = both
            .read("snapshots of guests", |store| at(store, 1).read_back_of_guests(&SNAPSHOT, &SNAPSHOT_OF, &[&PARENT_SNAPSHOT], &vmids))
            .await;
        assert_eq!(snapshots.len(), 3, "{snapshots:?}");
        let chain = "MATCH (a:ProxmoxSnapshot)-[:PARENT_SNAPSHOT]->(b:ProxmoxSnapshot) RETURN a.cluster_id, a.vmid, a.name, b.vmid, b.name";
        let chain = both.read("chains", |_| Statement::new(chain)).await;
        assert_eq!(chain, [r#"["other",100,"two",100,"one"]"#, r#"["rig",100,"two",100,"one"]"#]);

        // With what has them, in either direction; a row whose owner is not there is lost in Neo4j alone, and sync sends none.
        let snapshot = |vmid: i64, name: &str, parent: Value| {
            row(&SNAPSHOT, json!({ "id": format!("{vmid}:{name}"), "vmid": vmid, "name": name, "parent": parent, "current": false }))
        };
        let nic = || row(&NIC, json!({ "id": "101:net1", "vmid": 101, "net_id": "net1", "bridge": "vmbr9", "firewall": false }));
        for tag in [1002, 1003] {
            // Not the answers: the one store does it in one statement, the other in two.
            both.step("owned", async |store| {
                let snapshots = vec![snapshot(100, "before", Value::Null), snapshot(100, "after", json!("before"))];
                let mut statements = at(store, tag).upsert_owned(&SNAPSHOT, &SNAPSHOT_OF, snapshots);
                statements.extend(at(store, tag).upsert_owned(&NIC, &HAS_NETWORK_INTERFACE, vec![nic()]));
                let parent = vec![link(json!([100, "after"]), json!([100, "before"]))];
                statements.push(at(store, tag).relate(&PARENT_SNAPSHOT, parent));
                store.write(statements).await.map(drop).map_err(|error| error.to_string()).unwrap();
            })
            .await;
        }
        let snapshots =
            both.read("snapshots of guests", |store| at(store, 1).read_back_of_guests(&SNAPSHOT, &SNAPSHOT_OF, &[&PARENT_SNAPSHOT], &vmids)).await;
        assert_eq!(snapshots.len(), 5, "{snapshots:?}");

        // Stamped without being written: what hangs on these guests, and nothing of another guest or cluster.
        both.write("stamped", |store| {
            let writer = at(store, 1500);
            let guests = keys(json!([[100], [101], [999]]));
            vec![
                writer.confirm_owned(&DISK, &HAS_DISK, &guests),
                writer.confirm_owned(&NIC, &HAS_NETWORK_INTERFACE, &guests),
                writer.confirm_owned(&SNAPSHOT, &SNAPSHOT_OF, &guests),
                writer.confirm_beyond(&SNAPSHOT, &SNAPSHOT_OF, &PARENT_SNAPSHOT, &guests),
                writer.confirm_beyond(&DISK, &HAS_DISK, &STORED_ON, &guests),
                writer.confirm_beyond(&DISK, &HAS_DISK, &INCLUDES_DISK, &guests),
                writer.confirm(&GUEST, &HOSTS_VM, &guests),
                writer.confirm(&GUEST, &BACKS_UP, &guests),
            ]
        })
        .await;
        let stamped = "MATCH (a)-[r]->(b) WHERE r.lastupdated = 1500 \
                       RETURN type(r) AS type, a.cluster_id AS cluster, coalesce(a.vmid, b.vmid) AS vmid, count(*) AS count \
                       ORDER BY type, vmid";
        let stamped = both.read("stamped", |_| Statement::new(stamped)).await;
        assert!(stamped.iter().all(|row| row.contains("\"rig\",100") || row.contains("\"rig\",101")), "{stamped:?}");
        for kind in ["HAS_DISK", "HAS_NETWORK_INTERFACE", "SNAPSHOT_OF", "PARENT_SNAPSHOT", "HOSTS_VM", "STORED_ON"] {
            assert!(stamped.iter().any(|row| row.contains(kind)), "{kind}: {stamped:?}");
        }

        // What is not said stays; what is null goes; types change.
        both.write("said in part", |store| {
            vec![at(store, 2000).upsert(
                &GUEST,
                vec![
                    row(&GUEST, json!({ "vmid": 100, "id": "pve2:100", "node": "pve2", "tags": [], "memory": 1.5, "lock": "backup" })),
                    row(&GUEST, json!({ "vmid": 101, "name": null, "status": null, "cpu_cores": null, "uptime": null })),
                    row(&GUEST, json!({ "vmid": 102, "name": "", "template": true, "status": 7, "cpu_sockets": 2 })),
                    // Twice in one batch: the last one counts.
                    row(&GUEST, json!({ "vmid": 104, "id": "pve1:104", "node": "pve1", "type": "lxc", "name": "first" })),
                    row(&GUEST, json!({ "vmid": 104, "id": "pve1:104", "node": "pve1", "pool": "p" })),
                ],
            )]
        })
        .await;
        let known = both.read("said in part", |store| at(store, 1).read_back(&GUEST, &[&HOSTS_VM, &BACKS_UP], &keys(json!([[100], [104]])))).await;
        assert!(known[0].contains("\"first\"") && known[0].contains("\"p\""), "{known:?}");
        assert!(known[1].contains("\"pve2:100\"") && known[1].contains("\"guest 100\""), "{known:?}");
        assert!(known[1].contains(",1000,[[\"pve1\"]]"), "firstseen stays: {known:?}");

        // A relationship without one of its ends, or with an end that only the other cluster has.
        both.write("ends", |store| {
            vec![
                writer(store, &other, 2000).upsert(&NODE, vec![row(&NODE, json!({ "id": "lone", "name": "lone" }))]),
                at(store, 2000).relate(
                    &HOSTS_VM,
                    vec![
                        link(json!(["pve2"]), json!([100])),
                        link(json!(["absent"]), json!([101])),
                        link(json!(["lone"]), json!([101])),
                        link(json!(["pve1"]), json!([999])),
                        link(json!(["pve2"]), json!([100])),
                    ],
                ),
                at(store, 2000).relate(
                    &labels::AVAILABLE_ON,
                    vec![
                        link_with(json!(["local"]), json!(["pve1"]), json!({ "used": 91 })),
                        link_with(json!(["nfs"]), json!(["pve1"]), json!({ "active": true, "total": null })),
                        link_with(json!(["nfs"]), json!(["absent"]), json!({ "active": true })),
                    ],
                ),
                at(store, 2000).relate(&STORED_ON, vec![link(json!([100, "scsi0"]), json!(["nfs"]))]),
                at(store, 2000)
                    .relate(&INCLUDES_DISK, vec![link_with(json!(["backup-1"]), json!([101, "rootfs"]), json!({ "reason": "now" }))]),
            ]
        })
        .await;
        both.write("old relationships go", |store| {
            let writer = at(store, 2000);
            vec![
                writer.unrelate(&HOSTS_VM, &keys(json!([[100], [999]]))),
                writer.unrelate(&STORED_ON, &keys(json!([[100, "scsi0"], [7, "absent"]]))),
                writer.unrelate(&labels::AVAILABLE_ON, &keys(json!([["local"], ["nfs"]]))),
                writer.unrelate(&BACKS_UP, &keys(json!([["off"]]))),
                writer.unrelate(&INCLUDES_DISK, &keys(json!([["backup-1"]]))),
                writer.unrelate(&CONTAINS_NODE, &[]),
            ]
        })
        .await;
        let hosts = "MATCH (n:ProxmoxNode)-[r:HOSTS_VM]->(v:ProxmoxVM) WHERE v.vmid = 100 RETURN n.name, n.cluster_id, r.lastupdated";
        let hosts = both.read("one host", |_| Statement::new(hosts)).await;
        assert_eq!(hosts, [r#"["pve1","other",1000]"#, r#"["pve2","rig",2000]"#]);

        // The sweep.
        let untouched = both.read("untouched", |store| at(store, 2000).untouched(GUEST.name, GUEST.key, &["node", "type"])).await;
        assert_eq!(untouched, [r#"[103,"pve2","qemu"]"#]);
        for label in labels::labels() {
            let key: Vec<_> = label.key.iter().copied().filter(|name| *name != "cluster_id").collect();
            both.read(label.name, |store| at(store, 2000).untouched(label.name, &key, &[])).await;
            both.read(label.name, |_| count(&rig, label.name)).await;
            both.read(label.name, |_| count(&id("absent"), label.name)).await;
        }
        for tag in [2000, 2001] {
            both.write("stale", |store| {
                let writer = at(store, tag);
                vec![
                    writer.mark_stale(GUEST.name, GUEST.key, &keys(json!([[103], [999]]))),
                    writer.mark_stale(DISK.name, DISK.key, &keys(json!([[101, "rootfs"]]))),
                    writer.mark_stale(CLUSTER.name, CLUSTER.key, &keys(json!([[]]))),
                ]
            })
            .await;
        }
        let stale = Statement::new("MATCH (v:ProxmoxVM) WHERE v.stale_since IS NOT NULL RETURN v.vmid, v.stale_since, v.lastupdated");
        assert_eq!(both.read("stale", |_| stale.clone()).await, ["[103,2000,1001]"]);
        both.write("seen again", |store| vec![at(store, 2002).upsert(&GUEST, vec![row(&GUEST, json!({ "vmid": 103 }))])]).await;
        assert!(both.read("seen again", |_| stale.clone()).await.is_empty());
        both.write("gone", |store| {
            let writer = at(store, 2003);
            vec![
                writer.delete(DISK.name, DISK.key, &keys(json!([[100, "scsi0"], [100, "absent"]]))),
                writer.delete(GUEST.name, GUEST.key, &keys(json!([[101], [999]]))),
                writer.delete(NODE.name, NODE.key, &keys(json!([["pve2"]]))),
                writer.delete(BACKUP_JOB.name, BACKUP_JOB.key, &keys(json!([["off"]]))),
            ]
        })
        .await;
        // Another guest under the number of one that is gone, in the transaction that deletes it.
        both.write("another guest", |store| {
            let writer = at(store, 2004);
            vec![
                writer.delete(GUEST.name, GUEST.key, &keys(json!([[100]]))),
                writer.upsert(&GUEST, vec![row(&GUEST, json!({ "vmid": 100, "id": "pve1:100", "node": "pve1", "type": "lxc" }))]),
            ]
        })
        .await;
        let new = both.read("another guest", |store| at(store, 1).read_back(&GUEST, &[&HOSTS_VM, &BACKS_UP], &keys(json!([[100]])))).await;
        assert!(new[0].ends_with(",2004,[],[]]") && new[0].contains("null"), "{new:?}");
        both.write("the cluster", |store| vec![at(store, 2005).delete(CLUSTER.name, CLUSTER.key, &keys(json!([[]])))]).await;
    })
    .await;
}

/// Neo4j refuses a null in a key, and so must the file: a row without its key would be some other node.
#[tokio::test]
async fn a_row_without_its_key_is_refused() {
    on_both(async |both| {
        let rig = id("rig");
        let refused = both
            .step("a null key", async |store| {
                let rows = vec![NodeRow { key: vec![Value::Null], set: serde_json::Map::new() }];
                let guard = vec![writer(store, &rig, 1).upsert(&NODE, rows)];
                matches!(store.write(guard).await, Err(StoreError::Statement { .. }))
            })
            .await;
        assert!(refused);
    })
    .await;
}

const LEASE: &str =
    "MATCH (l:PvegraphLease) RETURN l.id, l.holder, l.lock, l.number, l.tag, l.expires_at, l.asked_at";

#[tokio::test]
async fn the_lease_is_taken_and_lost_alike() {
    on_both(async |both| {
        let holder =
            |name: &str, lock: Option<&str>| Holder { name: name.to_owned(), lock: lock.map(str::to_owned) };
        /// The tag, or who has it until when.
        async fn take(
            both: &Both<'_>,
            leases: &mut Vec<[Lease; 2]>,
            holder: &Holder,
            now: i64,
        ) -> Result<i64, (String, i64)> {
            let mut taken = Vec::new();
            let mut said = Vec::new();
            for store in both.0 {
                match Lease::take(store, holder, now).await {
                    Ok(lease) => {
                        said.push(Ok(lease.tag));
                        taken.push(lease);
                    }
                    Err(LeaseError::Held { holder, expires_at, .. }) => said.push(Err((holder, expires_at))),
                    Err(error) => panic!("{holder:?} at {now}: {error}"),
                }
            }
            both.read(&format!("{holder:?} at {now}"), |_| Statement::new(LEASE)).await;
            assert_eq!(said[0], said[1], "{holder:?} at {now}");
            if let Ok(both) = taken.try_into() {
                leases.push(both);
            }
            said.remove(0)
        }
        /// Writes under a lease; whether it was let to.
        async fn guarded(both: &Both<'_>, leases: &[Lease; 2], now: i64) -> bool {
            let mut wrote = Vec::new();
            for (store, lease) in both.0.into_iter().zip(leases) {
                let create = Statement::new("CREATE (n:ProxmoxSyncRun {id: $id, name: null})")
                    .with("id", format!("made at {now}"));
                match store.write(vec![create, lease.guard(now)]).await {
                    Ok(_) => wrote.push(true),
                    Err(StoreError::Guard { .. }) => wrote.push(false),
                    Err(error) => panic!("{error}"),
                }
            }
            assert_eq!(wrote[0], wrote[1]);
            let what = format!("guarded at {now}");
            let made = Statement::new("MATCH (r:ProxmoxSyncRun) WHERE r.id = $id RETURN r.id")
                .with("id", format!("made at {now}"));
            let made = both.read(&what, |_| made.clone()).await;
            assert_eq!(made.len(), usize::from(wrote[0]), "a guard that fails takes its transaction with it");
            both.read(&what, |_| Statement::new(LEASE)).await;
            wrote[0]
        }
        let mut all = Vec::new();
        let (a, b) = (holder("a", Some("lock of a")), holder("b", Some("lock of b")));
        let end = 1000 + LEASE_SECONDS;
        assert_eq!(take(&both, &mut all, &a, 1000).await, Ok(1000));
        assert_eq!(take(&both, &mut all, &b, 1010).await, Err(("a".to_owned(), end)));
        assert_eq!(
            take(&both, &mut all, &holder("c", None), end).await,
            Err(("a".to_owned(), end)),
            "it ends after its last second"
        );
        assert!(guarded(&both, &all[0], 1020).await);
        // A clock that went back takes nothing away.
        assert!(guarded(&both, &all[0], 900).await);
        let end = 1020 + LEASE_SECONDS;
        assert_eq!(take(&both, &mut all, &b, end).await, Err(("a".to_owned(), end)));
        // Its own holder again, whose first answer was lost: another number, another tag.
        assert_eq!(take(&both, &mut all, &a, 1000).await, Ok(1001));
        assert!(!guarded(&both, &all[0], 1021).await);
        assert!(guarded(&both, &all[1], 1022).await);
        // Expired.
        let late = 1022 + LEASE_SECONDS + 1;
        assert_eq!(take(&both, &mut all, &b, late).await, Ok(late));
        assert!(!guarded(&both, &all[1], late + 1).await);
        let [one, other] = all[1].clone();
        one.release(both.0[0]).await.unwrap();
        other.release(both.0[1]).await.unwrap();
        assert!(guarded(&both, &all[2], late + 2).await, "a lease that was lost is not given back");
        // The same lock: the process that had it is dead.
        assert_eq!(
            take(&both, &mut all, &holder("b again", Some("lock of b")), late + 3).await,
            Ok(late + 3)
        );
        assert!(!guarded(&both, &all[2], late + 4).await);
        for (lease, store) in all[3].clone().into_iter().zip(both.0) {
            lease.release(store).await.unwrap();
        }
        let released = both.read("released", |_| Statement::new(LEASE)).await;
        assert_eq!(released, [json!(["sync", null, null, 4, late + 3, null, late + 3]).to_string()]);
        assert!(!guarded(&both, &all[3], late + 5).await);
        // Nobody's, by one without a lock, whose clock is behind; then two without a lock are not the same one.
        assert_eq!(take(&both, &mut all, &holder("d", None), 500).await, Ok(late + 4));
        assert_eq!(
            take(&both, &mut all, &holder("e", None), 501).await,
            Err(("d".to_owned(), 500 + LEASE_SECONDS))
        );
        assert_eq!(take(&both, &mut all, &b, 501).await, Err(("d".to_owned(), 500 + LEASE_SECONDS)));
    })
    .await;
}

fn nothing_odd(scopes: &Scopes) -> (&Scopes, Completeness) {
    (scopes, Completeness::Complete)
}

/// Seen failing with: the changes of the run that is at the limit counted as beyond it.
#[tokio::test]
async fn changes_are_told_and_pruned_alike() {
    on_both(async |both| {
        let (rig, other) = (id("rig"), id("other"));
        let change = |at: i64, kind: ChangeType, label: &'static str, key: Value, field: Option<&'static str>| {
            let key = key.as_array().unwrap().clone();
            let vmid = key.first().and_then(Value::as_i64);
            let (old, new) = if field.is_some() { (json!(["a"]), json!(4)) } else { (Value::Null, Value::Null) };
            Change { at, kind, label, key, vmid, name: None, field, old, new }
        };
        let tell = |writer: Writer<'_>, all: &[Change]| {
            let of = |label: &str| all.iter().filter(|one| one.label == label).map(changes::end).collect();
            vec![
                writer.upsert(&CHANGE, all.iter().map(|one| CHANGE.row(one)).collect()),
                writer.relate(&changes::changed(GUEST.name, GUEST.key), of(GUEST.name)),
                writer.relate(&changes::changed(DISK.name, DISK.key), of(DISK.name)),
                writer.relate(&changes::changed(CLUSTER.name, CLUSTER.key), of(CLUSTER.name)),
            ]
        };
        let seen = both.read("nothing was seen", |_| changes::seen_before(&rig)).await;
        assert!(seen.is_empty(), "{seen:?}");
        both.write("estate", |store| estate(writer(store, &rig, 1000))).await;
        for (number, at) in [1001, 1002, 1003].into_iter().enumerate() {
            let all = [
                change(at, ChangeType::Updated, GUEST.name, json!([100]), Some("tags")),
                change(at, ChangeType::Created, DISK.name, json!([100, "scsi0"]), None),
                change(at, ChangeType::Deleted, GUEST.name, json!([999]), None),
                change(at, ChangeType::Updated, CLUSTER.name, json!([]), Some("version")),
            ];
            // A transaction whose answer was lost is sent again, and tells nothing twice.
            for _ in 0..2 {
                both.write("changes", |store| tell(writer(store, &rig, at), &all)).await;
            }
            let told = "MATCH (h:ProxmoxChange) OPTIONAL MATCH (h)-[r:CHANGED]->() RETURN count(DISTINCT h), count(r)";
            let (told, lead) = (both.read("told", |_| Statement::new(told)).await, 4 * (number + 1));
            assert_eq!(told, [json!([lead, lead / 4 * 3]).to_string()]);
        }
        both.write("known since", |store| vec![changes::known_since(store.dialect(), &rig, 1001)]).await;
        both.write("known since then", |store| vec![changes::known_since(store.dialect(), &rig, 1003)]).await;
        let known = both.read("known", |_| changes::known()).await;
        assert_eq!(known, [r#"["rig",1001]"#]);

        let asked = |limit: usize| Asked { limit, ..Asked::default() };
        for (what, asked, rows) in [
            ("all", asked(100), 12),
            ("the latest", asked(5), 5),
            ("of a guest", Asked { vmid: Some(100), ..asked(100) }, 6),
            ("of a type", Asked { kinds: vec![ChangeType::Deleted, ChangeType::Created], ..asked(100) }, 6),
            ("of a cluster", Asked { cluster: Some("other".to_owned()), ..asked(100) }, 0),
            ("since", Asked { since: 1002, ..asked(100) }, 8),
        ] {
            assert_eq!(both.read(what, |_| changes::read(&asked)).await.len(), rows, "{what}");
        }

        // Of the three runs' four each, the sixth is of the second run.
        assert_eq!(both.read("beyond", |_| changes::beyond(&rig, 5)).await, ["[1002]"]);
        assert_eq!(both.read("beyond all", |_| changes::beyond(&rig, 12)).await, [""; 0]);
        let left = async |before: i64| both.read("before", |_| changes::any_before(&rig, before)).await.len();
        assert_eq!((left(1001).await, left(1002).await), (0, 1));
        both.step("pruned in parts", async |store| {
            let mut left = Vec::new();
            for _ in 0..3 {
                // Which ones go first is the store's choice.
                store.write(vec![changes::prune(&rig, 1002, 3)]).await.unwrap();
                let count = Statement::new("MATCH (h:ProxmoxChange) RETURN count(h)");
                left.push(store.read(count).await.unwrap().rows[0][0].clone());
            }
            assert_eq!(left, [9, 8, 8]);
        })
        .await;
        both.write("forgotten", |store| vec![changes::forgotten_before(store.dialect(), &rig, 1002)]).await;
        both.write("not before", |store| vec![changes::forgotten_before(store.dialect(), &rig, 1000)]).await;
        assert_eq!(both.read("known", |_| changes::known()).await, [r#"["rig",1002]"#]);
        both.write("another's", |_| vec![changes::prune(&other, 9999, 100)]).await;

        let (run, mut scopes) = (Run { cluster: &rig, tag: 1004 }, Scopes::default());
        scopes.note(Collector::Guests, None, Completeness::Partial, None, 7);
        scopes.note(Collector::Nodes, None, Completeness::Filtered, None, 2);
        scopes.note(Collector::BackupJobs, None, Completeness::Filtered, Some("403".into()), 0);
        scopes.note(Collector::Storages, None, Completeness::Failed, Some("500".into()), 0);
        scopes.note(Collector::Qemu, Some("pve1"), Completeness::Complete, None, 3);
        both.write("failed", |_| vec![run.begin(1004), run.fail(1005, "no answer")]).await;
        assert!(both.read("failed", |_| changes::seen_before(&rig)).await.is_empty());
        let counts = Counts::default();
        both.write("ended", |store| run.finish(store.dialect(), 1005, nothing_odd(&scopes), None, counts)).await;
        assert_eq!(both.read("seen", |_| changes::seen_before(&rig)).await, [r#"["guests"]"#, r#"["nodes"]"#]);
    })
    .await;
}

#[tokio::test]
async fn runs_are_recorded_and_pruned_alike() {
    on_both(async |both| {
        let (rig, other) = (id("rig"), id("other"));
        let needs = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let unseen = async |what: &str, list: &[&str]| {
            let list = needs(list);
            both.step(what, async |store| {
                reports::unseen(store, &list)
                    .await
                    .unwrap()
                    .0
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
            })
            .await
        };
        assert_eq!(unseen("no cluster", &["guests"]).await.len(), 1);
        both.write("clusters", |store| {
            let cluster = |id: &ClusterId| {
                writer(store, id, 1)
                    .upsert(&CLUSTER, vec![row(&CLUSTER, json!({ "id": id.as_str(), "name": id.as_str() }))])
            };
            vec![cluster(&rig), cluster(&other)]
        })
        .await;
        assert_eq!(unseen("no run", &["guests"]).await.len(), 2);

        let run = Run { cluster: &rig, tag: 1000 };
        both.write("begun", |_| vec![run.begin(999)]).await;
        both.write("begun twice", |_| vec![run.begin(999)]).await;
        // Nothing was collected of either cluster, and one of them is being synced.
        assert_eq!(unseen("no finished run", &["guests", "nodes"]).await.len(), 5);

        let mut scopes = Scopes::default();
        scopes.note(Collector::Guests, None, Completeness::Complete, None, 7);
        scopes.note(Collector::Nodes, None, Completeness::Filtered, Some("Sys.Audit".into()), 0);
        scopes.note(Collector::Lxc, Some("pve2"), Completeness::Failed, Some("got 'timeout'".into()), 0);
        scopes.note(Collector::Lxc, Some("pve1"), Completeness::Partial, None, 3);
        let counts = Counts { created: 1, updated: 2, unchanged: 3, deleted: 4, kept: 5 };
        // A transaction whose answer was lost is sent again, and leaves one of each.
        for what in ["finished", "finished twice"] {
            both.write(what, |store| run.finish(store.dialect(), 1005, nothing_odd(&scopes), None, counts))
                .await;
        }
        let said = unseen("filtered and failed", &["guests", "nodes"]).await;
        assert_eq!(
            said,
            [
                "other: guests never: no finished run has collected it",
                "other: nodes never: no finished run has collected it",
                "rig: lxc on pve1 partial",
                "rig: lxc on pve2 failed: got 'timeout'",
                "rig: nodes filtered: Sys.Audit",
            ]
        );
        let blocked = Run { cluster: &other, tag: 1000 };
        both.write("blocked", |store| {
            let mut all = vec![blocked.begin(1006)];
            all.extend(blocked.finish(
                store.dialect(),
                1007,
                nothing_odd(&Scopes::default()),
                Some("31 of 100"),
                Counts::default(),
            ));
            all
        })
        .await;
        let record =
            "MATCH (r:ProxmoxSyncRun) RETURN r.id, r.status, r.blocked, r.created, r.kept, r.finished_at";
        assert_eq!(
            both.read("records", |_| Statement::new(record)).await,
            [r#"["other/1000","partial","31 of 100",0,0,1007]"#, r#"["rig/1000","failed",null,1,5,1005]"#]
        );
        // A later run that was cut off is not the last word, but it is said.
        both.write("cut off", |_| vec![Run { cluster: &rig, tag: 1100 }.begin(1100)]).await;
        let (unfinished, rest): (Vec<_>, Vec<_>) = unseen("cut off", &["guests", "nodes"])
            .await
            .into_iter()
            .partition(|one| one.contains("unfinished"));
        assert_eq!((unfinished.len(), rest), (1, said));
        // The cluster is not there any more: a report knows it by its run, and what that run collected of it by nothing.
        both.write("gone", |store| {
            let gone = id("gone");
            let run = Run { cluster: &gone, tag: 1000 };
            let mut all = vec![run.begin(1)];
            all.extend(run.finish(store.dialect(), 2, nothing_odd(&scopes), None, counts));
            all
        })
        .await;

        let whole = |cluster: &ClusterId, tag: i64, store: &dyn Store| {
            let run = Run { cluster, tag };
            let mut scopes = Scopes::default();
            scopes.note(Collector::Guests, None, Completeness::Complete, None, 1);
            let mut all = vec![run.begin(tag)];
            all.extend(run.finish(store.dialect(), tag, nothing_odd(&scopes), None, Counts::default()));
            all
        };
        both.write("many runs", |store| (0..200).flat_map(|n| whole(&rig, 2000 + n, store)).collect()).await;
        let kept = "MATCH (r:ProxmoxSyncRun) RETURN r.cluster_id, count(r), min(r.tag), max(r.tag)";
        let kept = both.read("pruned", |_| Statement::new(kept)).await;
        assert_eq!(
            kept,
            [
                r#"["gone",1,1000,1000]"#,
                r#"["other",1,1000,1000]"#,
                &format!(r#"["rig",{RUNS_KEPT},2020,2199]"#)
            ]
        );
        assert_eq!(
            unseen("the last run is whole", &["guests"]).await,
            [
                "gone: cluster failed",
                "gone: guests never: no finished run has collected it",
                "other: guests never: no finished run has collected it",
            ]
        );
    })
    .await;
}
